//! iothaddr.h: addresses made of names.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::net::Ipv6Addr;
use std::time::{SystemTime, UNIX_EPOCH};

use ioth::MacAddr;
use ioth::core::hashaddr;

use super::memory;
use crate::outcome::{Result, run};

/// # Safety
/// `addr` is the program's 16 bytes; the strings are not changed during the call.
#[unsafe(no_mangle)]
unsafe extern "C" fn iothaddr_hash(
    addr: *mut c_void,
    name: *const c_char,
    passwd: *const c_char,
    otiptime: u32,
) -> c_int {
    // SAFETY: the caller's promise.
    run(|| unsafe {
        let (name, passwd) = (memory::string(name)?, password(passwd)?);
        change(addr, |base| hashaddr::otip_addr(base, name.to_bytes(), passwd.to_bytes(), otiptime))
    })
}

#[unsafe(no_mangle)]
extern "C" fn iothaddr_otiptime(period: c_int, offset: c_int) -> u32 {
    run(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Ok(hashaddr::otip_time(now, u32::try_from(period).unwrap_or_default(), offset.into()))
    })
}

/// # Safety
/// `mac` is the program's 6 bytes; the strings are not changed during the call.
#[unsafe(no_mangle)]
unsafe extern "C" fn iothaddr_hashmac(mac: *mut c_void, name: *const c_char, passwd: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    run(|| unsafe {
        let (name, passwd) = (memory::string(name)?, password(passwd)?);
        memory::copy_out(mac, &hashaddr::hash_mac(name.to_bytes(), passwd.to_bytes()).0)?;
        Ok(0)
    })
}

/// # Safety
/// `addr` is the program's 16 bytes; the 6 bytes of `mac` are not changed during the call.
#[unsafe(no_mangle)]
unsafe extern "C" fn iothaddr_eui64(addr: *mut c_void, mac: *const c_void) -> c_int {
    // SAFETY: the caller's promise.
    run(|| unsafe {
        let mut bytes = [0; 6];
        memory::copy_in(mac, &mut bytes)?;
        change(addr, |base| hashaddr::eui64(base, MacAddr(bytes)))
    })
}

/// # Safety
/// `addr` is the program's 16 bytes; the strings are not changed during the call.
#[unsafe(no_mangle)]
unsafe extern "C" fn iothaddr_hasheui64(
    addr: *mut c_void,
    name: *const c_char,
    passwd: *const c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    run(|| unsafe {
        let mac = hashaddr::hash_mac(memory::string(name)?.to_bytes(), password(passwd)?.to_bytes());
        change(addr, |base| hashaddr::eui64(base, mac))
    })
}

/// # Safety
/// The string is not changed while it lives.
unsafe fn password<'a>(text: *const c_char) -> Result<&'a CStr> {
    // SAFETY: the caller's promise.
    if text.is_null() { Ok(c"") } else { unsafe { memory::string(text) } }
}

/// Replaces a base address by what is made of it.
///
/// # Safety
/// `addr` is the program's 16 bytes.
unsafe fn change(addr: *mut c_void, make: impl FnOnce(Ipv6Addr) -> Ipv6Addr) -> Result<c_int> {
    let mut base = [0; 16];
    // SAFETY: the caller's promise.
    unsafe {
        memory::copy_in(addr, &mut base)?;
        memory::copy_out(addr, &make(base.into()).octets())?;
    }
    Ok(0)
}
