//! ioctl(2): requests, whose structures have the length that the request and the socket's family say.

use std::ffi::{c_int, c_ulong, c_void};
use std::mem::offset_of;
use std::os::fd::RawFd;

use ioth::{Errno, berkeley};
use libc::{ifconf, ifreq, rtentry};

use super::{memory, run_on};
use crate::outcome::Result;

/// Room for more interfaces' addresses than anybody has, in bytes.
const CONF_MAX: usize = 1 << 20;

/// # Safety
/// `argument` is what the request takes.
pub(super) unsafe fn ioctl(fd: RawFd, request: c_ulong, argument: *mut c_void) -> c_int {
    run_on(fd, || match request {
        // SAFETY: the caller's promise.
        libc::SIOCGIFCONF => unsafe { addresses(fd, argument.cast()) },
        // SAFETY: the caller's promise.
        libc::SIOCADDRT | libc::SIOCDELRT if domain(fd)? == libc::AF_INET => unsafe {
            ipv4_route(fd, request, argument)
        },
        _ => {
            let mut bytes = vec![0; argument_len(fd, request)?];
            // SAFETY: the caller's promise.
            unsafe { memory::copy_in(argument, &mut bytes)? };
            let before = bytes.clone();
            let value = berkeley::ioctl(fd, request, &mut bytes)?;
            if bytes != before {
                // A request that only says something may have a constant for its argument.
                // SAFETY: the caller's promise.
                unsafe { memory::copy_out(argument, &bytes)? };
            }
            Ok(value)
        }
    })
}

/// `SIOCGIFCONF`, whose structure points to an array.
///
/// # Safety
/// As [`ioctl`].
unsafe fn addresses(fd: RawFd, argument: *mut ifconf) -> Result<c_int> {
    // SAFETY: the caller's promise; a pointer and a number.
    let (len, array) = unsafe {
        let len = argument.wrapping_byte_add(offset_of!(ifconf, ifc_len)).cast::<c_int>();
        let array = argument.wrapping_byte_add(offset_of!(ifconf, ifc_ifcu)).cast::<*mut c_void>();
        (memory::get(len.cast_const())?, memory::get(array.cast_const())?)
    };
    let room = if array.is_null() { 0 } else { usize::try_from(len).map_err(|_| Errno::EINVAL)? };
    let mut bytes = vec![0; room.min(CONF_MAX)];
    // Room for no address is not the question how much would be needed.
    let used = match !array.is_null() && room == 0 {
        true => 0,
        false => berkeley::ioctl(fd, libc::SIOCGIFCONF, &mut bytes)?,
    };
    let written = usize::try_from(used).unwrap_or_default().min(bytes.len());
    // SAFETY: the caller's promise.
    unsafe {
        memory::copy_out(array, &bytes[..written])?;
        memory::put(argument.wrapping_byte_add(offset_of!(ifconf, ifc_len)).cast(), used)?;
    }
    Ok(0)
}

/// `SIOCADDRT`, `SIOCDELRT` of IPv4, whose structure points to the device's name; it follows the structure on the way on.
///
/// # Safety
/// As [`ioctl`].
unsafe fn ipv4_route(fd: RawFd, request: c_ulong, argument: *mut c_void) -> Result<c_int> {
    let mut bytes = vec![0; size_of::<rtentry>() + libc::IFNAMSIZ];
    let (entry, device) = bytes.split_at_mut(size_of::<rtentry>());
    // SAFETY: the caller's promise.
    unsafe { memory::copy_in(argument, entry)? };
    // SAFETY: as above.
    let name = unsafe {
        let at = argument.wrapping_byte_add(offset_of!(rtentry, rt_dev)).cast::<*const c_void>();
        memory::get(at.cast_const())?
    };
    if !name.is_null() {
        // As the kernel does: 15 bytes, or those before the first that is not there.
        // SAFETY: the caller's promise.
        if unsafe { memory::copy_in_some(name, &mut device[..libc::IFNAMSIZ - 1]) } == 0 {
            return Err(Errno::EFAULT.into());
        }
    }
    Ok(berkeley::ioctl(fd, request, &mut bytes)?)
}

/// The size of a request's structure; 0 for one that is unknown, which is then refused, or has none.
fn argument_len(fd: RawFd, request: c_ulong) -> Result<usize> {
    const SIOCOUTQ: c_ulong = libc::TIOCOUTQ as _;
    // linux/sockios.h
    const SIOCOUTQNSD: c_ulong = 0x894b;
    const FIONREAD: c_ulong = libc::FIONREAD as _;
    const FIONBIO: c_ulong = libc::FIONBIO as _;
    const FIOASYNC: c_ulong = libc::FIOASYNC as _;
    // asm-generic/sockios.h: the owner's requests and SIOCATMARK.
    const FIOSETOWN: c_ulong = 0x8901;
    const SIOCATMARK: c_ulong = 0x8905;
    const SIOCGSTAMP: c_ulong = 0x8906;
    const SIOCGSTAMPNS: c_ulong = 0x8907;
    const SIOCGSTAMP_NEW: c_ulong = 0x8010_8906;
    const SIOCGSTAMPNS_NEW: c_ulong = 0x8010_8907;
    // linux/sockios.h: the requests about interfaces are over struct ifreq, from SIOCGIFNAME to SIOCSIFMAP.
    const SIOCGIFNAME: c_ulong = 0x8910;
    const SIOCSIFMAP: c_ulong = 0x8971;
    /// linux/ipv6.h: `struct in6_ifreq`; linux/ipv6_route.h: `struct in6_rtmsg`
    const IN6_IFREQ: usize = 24;
    const IN6_RTMSG: usize = 80;
    Ok(match request {
        SIOCOUTQ | SIOCOUTQNSD | FIONREAD | FIONBIO | FIOASYNC | FIOSETOWN..=SIOCATMARK => size_of::<c_int>(),
        SIOCGSTAMP | SIOCGSTAMPNS | SIOCGSTAMP_NEW | SIOCGSTAMPNS_NEW => 2 * size_of::<i64>(),
        libc::SIOCADDRT | libc::SIOCDELRT => match domain(fd)? {
            libc::AF_INET6 => IN6_RTMSG,
            _ => 0,
        },
        libc::SIOCSIFADDR | libc::SIOCSIFDSTADDR | libc::SIOCDIFADDR if domain(fd)? == libc::AF_INET6 => {
            IN6_IFREQ
        }
        SIOCGIFNAME..=SIOCSIFMAP => size_of::<ifreq>(),
        _ => 0,
    })
}

/// The socket's address family.
fn domain(fd: RawFd) -> Result<c_int> {
    let mut domain = [0; size_of::<c_int>()];
    berkeley::getsockopt(fd, libc::SOL_SOCKET, libc::SO_DOMAIN, &mut domain)?;
    Ok(c_int::from_ne_bytes(domain))
}
