//! The functions about hosts, from before getaddrinfo(3).

use std::cell::UnsafeCell;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;

use ioth_node_calls::{Errno, Plain, User};
use libc::socklen_t;

use super::next::named;
use super::room::Room;
use super::{raw, set_h_errno, user};
use crate::names::{HostFailure, Hostent, NAME_MAX, Wanted, host};

// SAFETY: numbers and pointers, of which any bits are some.
unsafe impl Plain for Hostent {}

named! {
    fn gethostbyname(name: *const c_char) -> *mut Hostent, else { ptr::null_mut() } {
        let mut room = SHARED.room();
        // SAFETY: the caller's promise.
        let found = unsafe { by_name(user(name), libc::AF_INET, &mut room) };
        given(found, room)
    }

    fn gethostbyname2(name: *const c_char, family: c_int) -> *mut Hostent, else { ptr::null_mut() } {
        let mut room = SHARED.room();
        // SAFETY: the caller's promise.
        let found = unsafe { by_name(user(name), family, &mut room) };
        given(found, room)
    }

    fn gethostbyaddr(addr: *const c_void, len: socklen_t, family: c_int) -> *mut Hostent, else { ptr::null_mut() } {
        let mut room = SHARED.room();
        // SAFETY: the caller's promise.
        let found = unsafe { by_address(user(addr), len, family, &mut room) };
        given(found, room)
    }

    fn gethostbyname_r(
        name: *const c_char,
        host: *mut Hostent,
        buffer: *mut c_char,
        len: usize,
        result: *mut *mut Hostent,
        h_errno: *mut c_int,
    ) -> c_int, else { libc::ENOSYS } {
        // SAFETY: the caller's promise.
        unsafe {
            let mut room = Room::lent(user(buffer), len);
            let found = by_name(user(name), libc::AF_INET, &mut room);
            returned(found, User::new(host), User::new(result), User::new(h_errno))
        }
    }

    fn gethostbyname2_r(
        name: *const c_char,
        family: c_int,
        host: *mut Hostent,
        buffer: *mut c_char,
        len: usize,
        result: *mut *mut Hostent,
        h_errno: *mut c_int,
    ) -> c_int, else { libc::ENOSYS } {
        // SAFETY: the caller's promise.
        unsafe {
            let mut room = Room::lent(user(buffer), len);
            let found = by_name(user(name), family, &mut room);
            returned(found, User::new(host), User::new(result), User::new(h_errno))
        }
    }

    fn gethostbyaddr_r(
        addr: *const c_void,
        addr_len: socklen_t,
        family: c_int,
        host: *mut Hostent,
        buffer: *mut c_char,
        len: usize,
        result: *mut *mut Hostent,
        h_errno: *mut c_int,
    ) -> c_int, else { libc::ENOSYS } {
        // SAFETY: the caller's promise.
        unsafe {
            let mut room = Room::lent(user(buffer), len);
            let found = by_address(user(addr), addr_len, family, &mut room);
            returned(found, User::new(host), User::new(result), User::new(h_errno))
        }
    }
}

/// Where the functions without `_r` have their results, as their manual page says: the next call writes over it, and
/// threads are not to call them at once.
struct Shared(UnsafeCell<[u8; Shared::LEN]>);

// SAFETY: the only access is by the pointer of `room`, as the functions' contract has it; writes stay within.
unsafe impl Sync for Shared {}

static SHARED: Shared = Shared(UnsafeCell::new([0; Shared::LEN]));

impl Shared {
    /// Room for all that a reply can list.
    const LEN: usize = 32 << 10;

    fn room(&self) -> Room {
        // SAFETY: memory of that length for as long as the program runs.
        Room::lent(unsafe { User::new(self.0.get().cast()) }, Shared::LEN)
    }
}

type Found = Result<Hostent, HostFailure>;

fn by_name(name: User<u8>, family: c_int, room: &mut Room) -> Found {
    let mut bytes = [0; NAME_MAX];
    match name.text(&mut bytes) {
        Ok(Some(name)) => host(Wanted::Name(name), family, room),
        Ok(None) => Err(HostFailure::internal(Errno::FAULT)),
        Err(Errno::MSGSIZE) => Err(HostFailure::NOT_FOUND),
        Err(errno) => Err(HostFailure::internal(errno)),
    }
}

fn by_address(addr: User<u8>, len: socklen_t, family: c_int, room: &mut Room) -> Found {
    let mut bytes = [0; 16];
    let len = match (family, len) {
        (libc::AF_INET, 4) => 4,
        (libc::AF_INET6, 16) => 16,
        _ => return Err(HostFailure::internal(Errno::INVAL)),
    };
    addr.read_bytes(&mut bytes[..len]).map_err(HostFailure::internal)?;
    host(Wanted::Address(&bytes[..len]), family, room)
}

/// What the functions without `_r` give.
fn given(found: Found, mut room: Room) -> *mut Hostent {
    let found = found.and_then(|host| room.value(host).ok_or(HostFailure::internal(Errno(libc::ERANGE))));
    match found {
        Ok(host) => host,
        Err(failure) => {
            fail(failure);
            ptr::null_mut()
        }
    }
}

fn fail(failure: HostFailure) {
    set_h_errno(failure.code);
    if failure.errno != Errno::NONE {
        raw::set_errno(failure.errno.0);
    }
}

/// What the functions with `_r` give.
fn returned(found: Found, host: User<Hostent>, result: User<*mut Hostent>, h_errno: User<c_int>) -> c_int {
    let written = found.map(|value| host.write(value).and_then(|()| result.write(host.pointer())));
    match written {
        Ok(Ok(())) => 0,
        Ok(Err(errno)) => errno.0,
        Err(failure) => {
            let _ = result.write(ptr::null_mut());
            let _ = h_errno.write(failure.code);
            let returned = failure.returned();
            raw::set_errno(returned);
            returned
        }
    }
}
