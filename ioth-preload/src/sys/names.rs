//! The functions about names and interfaces that programs call.

use std::ffi::{c_char, c_int, c_uint};
use std::ptr;

use ioth_node_calls::{Errno, User};
use libc::{addrinfo, ifaddrs, sockaddr, socklen_t};

use super::next::{named, next};
use super::{gives, returns, user};
use crate::names::{self, Place};

named! {
    fn getaddrinfo(
        host: *const c_char,
        service: *const c_char,
        hints: *const addrinfo,
        result: *mut *mut addrinfo,
    ) -> c_int, else { libc::EAI_FAIL } {
        // SAFETY: the caller's promise.
        let (host, service, hints, result) =
            unsafe { (user(host), user(service), User::new(hints), User::new(result)) };
        names::getaddrinfo(host, service, hints, result)
    }

    fn getnameinfo(
        addr: *const sockaddr,
        addr_len: socklen_t,
        host: *mut c_char,
        host_len: socklen_t,
        service: *mut c_char,
        service_len: socklen_t,
        flags: c_int,
    ) -> c_int, else { libc::EAI_FAIL } {
        if family(addr, addr_len) == Some(libc::AF_UNIX) {
            type Next = unsafe extern "C" fn(
                *const sockaddr,
                socklen_t,
                *mut c_char,
                socklen_t,
                *mut c_char,
                socklen_t,
                c_int,
            ) -> c_int;
            let Some(next) = next!("getnameinfo\0" => Next) else { return libc::EAI_FAMILY };
            // Such names are the host's, and ask nobody.
            // SAFETY: the caller's promise.
            return unsafe { next(addr, addr_len, host, host_len, service, service_len, flags) };
        }
        // SAFETY: the caller's promise.
        let (addr, host, service) = unsafe { (user(addr), user(host), user(service)) };
        let host = Place { at: host, len: host_len as usize };
        let service = Place { at: service, len: service_len as usize };
        names::getnameinfo(addr, addr_len, host, service, flags)
    }

    fn if_nametoindex(name: *const c_char) -> c_uint, else { 0 } {
        let mut bytes = [0; libc::IFNAMSIZ];
        // SAFETY: the caller's promise.
        let name = unsafe { user(name) };
        gives(0, || match name.text(&mut bytes) {
            Ok(Some(name)) => names::if_nametoindex(name),
            Ok(None) => Err(Errno::FAULT),
            Err(Errno::MSGSIZE) => Err(Errno(libc::ENODEV)),
            Err(errno) => Err(errno),
        })
    }

    fn if_indextoname(index: c_uint, name: *mut c_char) -> *mut c_char, else { ptr::null_mut() } {
        // SAFETY: the caller's promise.
        let room = unsafe { user(name) };
        gives(ptr::null_mut(), || {
            let (text, len) = names::if_indextoname(index)?;
            room.write_bytes(&text[..=len])?;
            Ok(name)
        })
    }

    fn if_nameindex() -> *mut libc::if_nameindex, else { ptr::null_mut() } {
        gives(ptr::null_mut(), names::if_nameindex)
    }

    fn getifaddrs(list: *mut *mut ifaddrs) -> c_int, else { -1 } {
        // SAFETY: the caller's promise.
        let list = unsafe { User::<usize>::new(list.cast()) };
        returns(|| list.write(names::getifaddrs()? as usize).map(|()| 0))
    }
}

/// The address family, if there is an address.
fn family(addr: *const sockaddr, len: socklen_t) -> Option<c_int> {
    // SAFETY: the promise of getnameinfo(3)'s caller.
    let family = unsafe { User::<libc::sa_family_t>::new(addr.cast()) };
    let is_there = len as usize >= size_of::<libc::sa_family_t>();
    is_there.then(|| family.read().ok()).flatten().map(c_int::from)
}
