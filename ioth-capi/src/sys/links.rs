//! Interfaces, addresses and routes over netlink: what C programs have as nlinline, and the text of MAC addresses.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::net::IpAddr;

use ioth::core::netlink::{AddressDetails, NewLink, Route, RouteDetails};
use ioth::{Cidr, Errno, MacAddr};
use libc::size_t;

use super::{Ioth, memory};
use crate::dialog::{HEADER, dialog};
use crate::handle;
use crate::outcome::{Result, run};

/// Bytes of a MAC address' text with its NUL.
const MAC_TEXT: usize = 18;

/// Attributes of an interface that is to be made: no type has as many.
const LINK_DATA_MAX: usize = 256;

/// Longest netlink message that a program may send, in bytes.
const MESSAGE_MAX: usize = 1 << 20;

/// # Safety
/// The string is not changed during the call.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_if_nametoindex(stack: *mut Ioth, ifname: *const c_char) -> c_int {
    run(|| {
        // SAFETY: the caller's promise.
        let name = unsafe { memory::text(ifname)? }.ok_or(Errno::EFAULT)?;
        index(on(stack, |route| route.link_index(name))?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn ioth_linksetupdown(stack: *mut Ioth, ifindex: c_uint, updown: c_int) -> c_int {
    done(|| on(stack, |route| route.set_link_up(ifindex, updown != 0)))
}

/// # Safety
/// The 6 bytes of `mac` are not changed during the call.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_linksetaddr(stack: *mut Ioth, ifindex: c_uint, mac: *const c_void) -> c_int {
    done(|| {
        // SAFETY: the caller's promise.
        let mac = unsafe { read_mac(mac)? };
        on(stack, |route| route.set_link_addr(ifindex, mac))
    })
}

/// # Safety
/// `mac` is the program's 6 bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_linkgetaddr(stack: *mut Ioth, ifindex: c_uint, mac: *mut c_void) -> c_int {
    done(|| {
        let found = on(stack, |route| route.link_addr(ifindex))?.ok_or(Errno::ENOENT)?;
        // SAFETY: the caller's promise.
        unsafe { memory::copy_out(mac, &found.0) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn ioth_linksetmtu(stack: *mut Ioth, ifindex: c_uint, mtu: c_uint) -> c_int {
    done(|| on(stack, |route| route.set_link_mtu(ifindex, mtu)))
}

/// # Safety
/// The bytes of `addr` are not changed during the call.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_ipaddr_add(
    stack: *mut Ioth,
    family: c_int,
    addr: *const c_void,
    prefix: c_int,
    ifindex: c_uint,
) -> c_int {
    done(|| {
        let prefix = Prefix::read(prefix, ADDRESS_FORM)?;
        // SAFETY: the caller's promise.
        let address = cidr(unsafe { read_ip(family, addr)? }, prefix.len)?;
        on(stack, |route| match prefix.details {
            None => route.add_address(ifindex, address),
            Some((flags, scope)) => route.add_address_with(ifindex, address, AddressDetails { flags, scope }),
        })
    })
}

/// # Safety
/// The bytes of `addr` are not changed during the call.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_ipaddr_del(
    stack: *mut Ioth,
    family: c_int,
    addr: *const c_void,
    prefix: c_int,
    ifindex: c_uint,
) -> c_int {
    done(|| {
        let prefix = Prefix::read(prefix, ADDRESS_FORM)?;
        // SAFETY: the caller's promise.
        let address = cidr(unsafe { read_ip(family, addr)? }, prefix.len)?;
        on(stack, |route| route.del_address(ifindex, address))
    })
}

/// # Safety
/// The bytes of the addresses are not changed during the call.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_iproute_add(
    stack: *mut Ioth,
    family: c_int,
    dst: *const c_void,
    prefix: c_int,
    gateway: *const c_void,
    ifindex: c_uint,
) -> c_int {
    done(|| {
        // SAFETY: the caller's promise.
        let RouteArguments { dst, gateway, details } =
            unsafe { RouteArguments::read(family, dst, prefix, gateway)? };
        on(stack, |route| match details {
            None => route.add_route(dst, gateway, ifindex),
            Some(details) => route.add_route_with(dst, gateway, ifindex, details),
        })
    })
}

/// # Safety
/// The bytes of the addresses are not changed during the call.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_iproute_del(
    stack: *mut Ioth,
    family: c_int,
    dst: *const c_void,
    prefix: c_int,
    gateway: *const c_void,
    ifindex: c_uint,
) -> c_int {
    done(|| {
        // SAFETY: the caller's promise.
        let RouteArguments { dst, gateway, details } =
            unsafe { RouteArguments::read(family, dst, prefix, gateway)? };
        on(stack, |route| match details {
            None => route.del_route(dst, gateway, ifindex),
            Some(details) => route.del_route_with(dst, gateway, ifindex, details),
        })
    })
}

/// `struct nl_iplink_data`: one attribute of what a type of interface wants to know.
#[repr(C)]
#[derive(Clone, Copy)]
struct LinkData {
    tag: c_int,
    len: size_t,
    data: *const c_void,
}

/// # Safety
/// The strings, the `count` attributes and what they point to are not changed during the call.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_iplink_add(
    stack: *mut Ioth,
    ifname: *const c_char,
    ifindex: c_uint,
    kind: *const c_char,
    data: *const LinkData,
    count: c_int,
) -> c_int {
    run(|| {
        // SAFETY: the caller's promise.
        let (name, kind, data) =
            unsafe { (memory::text(ifname)?, memory::text(kind)?, link_data(data, count)?) };
        let kind = kind.ok_or(Errno::EFAULT)?;
        let data: Vec<_> = data.iter().map(|(number, value)| (*number, &value[..])).collect();
        // -1 asks for the index that the stack chooses, to be returned.
        let asked = ifindex as c_int == -1;
        let new = NewLink { kind, name, index: if asked { 0 } else { ifindex }, vnl: None, data: &data };
        let given = on(stack, |route| route.add_link(&new))?;
        if asked { index(given.unwrap_or(0)) } else { Ok(0) }
    })
}

/// Reads the attributes of an interface that is to be made.
///
/// # Safety
/// The `count` attributes and what they point to are not changed during the call.
unsafe fn link_data(data: *const LinkData, count: c_int) -> Result<Vec<(u16, Vec<u8>)>> {
    let count = usize::try_from(count).ok().filter(|count| *count <= LINK_DATA_MAX).ok_or(Errno::EINVAL)?;
    let mut attributes = Vec::with_capacity(count);
    for at in 0..count {
        // SAFETY: the caller's promise.
        let LinkData { tag, len, data } = unsafe { memory::get(data.wrapping_add(at))? };
        let number = u16::try_from(tag).map_err(|_| Errno::EINVAL)?;
        if len > usize::from(u16::MAX) {
            return Err(Errno::EINVAL.into());
        }
        let mut value = vec![0; len];
        // SAFETY: the caller's promise.
        unsafe { memory::copy_in(data, &mut value)? };
        attributes.push((number, value));
    }
    Ok(attributes)
}

/// # Safety
/// The string is not changed during the call.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_iplink_del(stack: *mut Ioth, ifname: *const c_char, ifindex: c_uint) -> c_int {
    done(|| {
        // SAFETY: the caller's promise.
        let name = unsafe { memory::text(ifname)? };
        on(stack, |route| route.del_link(ifindex, name))
    })
}

/// # Safety
/// `message` is as long as it says, and not changed during the call.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_nldialog(stack: *mut Ioth, message: *const c_void) -> c_int {
    run(|| {
        let stack = handle::find(stack.addr())?;
        // SAFETY: the caller's promise; the length comes first.
        let len = unsafe { memory::get(message.cast::<u32>())? } as usize;
        if !(HEADER..=MESSAGE_MAX).contains(&len) {
            return Err(Errno::EINVAL.into());
        }
        let mut bytes = vec![0; len];
        // SAFETY: the caller's promise.
        unsafe { memory::copy_in(message, &mut bytes)? };
        dialog(&stack, &mut bytes)
    })
}

/// # Safety
/// The 6 bytes of `mac` are not changed during the call; `text` is the program's, of `size` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_ntomac(mac: *const c_void, text: *mut c_char, size: size_t) -> *const c_char {
    run(|| {
        // SAFETY: the caller's promise.
        let mac = unsafe { read_mac(mac)? };
        if size < MAC_TEXT {
            return Err(Errno::ENOSPC.into());
        }
        let mut string = mac.to_string().into_bytes();
        string.push(0);
        // SAFETY: the caller's promise.
        unsafe { memory::copy_out(text.cast(), &string)? };
        Ok(text.cast_const())
    })
}

/// # Safety
/// The string is not changed during the call; `mac` is the program's 6 bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_macton(text: *const c_char, mac: *mut c_void) -> c_int {
    let read = run(|| {
        // SAFETY: the caller's promise.
        let text = unsafe { memory::text(text)? }.ok_or(Errno::EFAULT)?;
        let Ok(read) = text.parse::<MacAddr>() else { return Ok(0) };
        // SAFETY: the caller's promise.
        unsafe { memory::copy_out(mac, &read.0)? };
        Ok(1)
    });
    // As inet_pton(3), there are two answers.
    read.max(0)
}

/// Runs a request on the stack's netlink.
fn on<T>(stack: *mut Ioth, request: impl FnOnce(&Route) -> ioth::core::netlink::Result<T>) -> Result<T> {
    let route = handle::find(stack.addr())?.route()?;
    request(&route).map_err(|error| error.errno().into())
}

fn done(body: impl FnOnce() -> Result<()>) -> c_int {
    run(|| body().map(|()| 0))
}

fn index(index: u32) -> Result<c_int> {
    Ok(c_int::try_from(index).map_err(|_| Errno::EOVERFLOW)?)
}

/// The first byte of a prefix length that has more than the length in it, as `nl_addrdata2prefix` makes it.
const ADDRESS_FORM: u8 = 0x70;
/// The same of `nl_routedata2prefix`.
const ROUTE_FORM: u8 = 0x60;

/// A prefix length, and the two numbers that may be packed beside it.
struct Prefix {
    len: u8,
    details: Option<(u8, u8)>,
}

impl Prefix {
    fn read(prefix: c_int, form: u8) -> Result<Self> {
        match prefix.to_be_bytes() {
            [0, 0, 0, len] => Ok(Prefix { len, details: None }),
            [given, first, scope, len] if given == form => Ok(Prefix { len, details: Some((first, scope)) }),
            _ => Err(Errno::EINVAL.into()),
        }
    }
}

struct RouteArguments {
    dst: Option<Cidr>,
    gateway: Option<IpAddr>,
    details: Option<RouteDetails>,
}

impl RouteArguments {
    /// # Safety
    /// The bytes of the addresses are not changed meanwhile.
    unsafe fn read(family: c_int, dst: *const c_void, prefix: c_int, gateway: *const c_void) -> Result<Self> {
        let prefix = Prefix::read(prefix, ROUTE_FORM)?;
        let ip = |addr: *const c_void| {
            if addr.is_null() {
                return check_family(family).map(|()| None);
            }
            // SAFETY: the caller's promise.
            unsafe { read_ip(family, addr) }.map(Some)
        };
        let (dst, gateway) = (ip(dst)?, ip(gateway)?);
        let unspecified = match family {
            libc::AF_INET => IpAddr::from([0; 4]),
            _ => IpAddr::from([0; 16]),
        };
        // A NULL, or a length of 0, is everywhere; the family is to be known also without a gateway.
        let dst = match dst {
            Some(dst) if prefix.len > 0 => cidr(dst, prefix.len)?,
            _ => cidr(unspecified, 0)?,
        };
        let details = prefix.details.map(|(kind, scope)| RouteDetails { kind, scope });
        Ok(RouteArguments { dst: Some(dst), gateway, details })
    }
}

fn check_family(family: c_int) -> Result<()> {
    match family {
        libc::AF_INET | libc::AF_INET6 => Ok(()),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// # Safety
/// The 4 or 16 bytes are not changed meanwhile.
unsafe fn read_ip(family: c_int, addr: *const c_void) -> Result<IpAddr> {
    check_family(family)?;
    let mut bytes = [0; 16];
    let used = if family == libc::AF_INET { 4 } else { 16 };
    // SAFETY: the caller's promise.
    unsafe { memory::copy_in(addr, &mut bytes[..used])? };
    match bytes {
        [a, b, c, d, ..] if used == 4 => Ok(IpAddr::from([a, b, c, d])),
        bytes => Ok(IpAddr::from(bytes)),
    }
}

/// # Safety
/// The 6 bytes are not changed meanwhile.
unsafe fn read_mac(mac: *const c_void) -> Result<MacAddr> {
    let mut bytes = [0; 6];
    // SAFETY: the caller's promise.
    unsafe { memory::copy_in(mac, &mut bytes)? };
    Ok(MacAddr(bytes))
}

fn cidr(addr: IpAddr, len: u8) -> Result<Cidr> {
    Ok(Cidr::new(addr, len).map_err(|_| Errno::EINVAL)?)
}
