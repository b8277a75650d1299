//! The functions of resolv.h that ask name servers.

use std::ffi::{c_char, c_int, c_ulong, c_void};
use std::mem::offset_of;

use ioth_node_calls::{Errno, Result, User};

use super::next::named;
use super::{raw, returns, set_h_errno, user};
use crate::names::{self, NAME_MAX, Resolved};

named! {
    fn res_query(name: *const c_char, class: c_int, kind: c_int, answer: *mut u8, room: c_int) -> c_int, else { -1 } {
        // SAFETY: the caller's promise.
        let (name, answer) = unsafe { (user(name), user(answer)) };
        resolved(None, raw::errno(), on_name(name, |name| names::query(name, class, kind, answer, room)))
    }

    fn res_search(name: *const c_char, class: c_int, kind: c_int, answer: *mut u8, room: c_int) -> c_int, else { -1 } {
        // SAFETY: the caller's promise.
        let (name, answer) = unsafe { (user(name), user(answer)) };
        resolved(None, raw::errno(), on_name(name, |name| names::search(name, class, kind, answer, room)))
    }

    fn res_nquery(
        state: *mut State,
        name: *const c_char,
        class: c_int,
        kind: c_int,
        answer: *mut u8,
        room: c_int,
    ) -> c_int, else { -1 } {
        // SAFETY: the caller's promise.
        let (state, name, answer) = unsafe { (User::new(state), user(name), user(answer)) };
        resolved(Some(state), raw::errno(), on_name(name, |name| names::query(name, class, kind, answer, room)))
    }

    fn res_nsearch(
        state: *mut State,
        name: *const c_char,
        class: c_int,
        kind: c_int,
        answer: *mut u8,
        room: c_int,
    ) -> c_int, else { -1 } {
        // SAFETY: the caller's promise.
        let (state, name, answer) = unsafe { (User::new(state), user(name), user(answer)) };
        resolved(Some(state), raw::errno(), on_name(name, |name| names::search(name, class, kind, answer, room)))
    }

    fn res_querydomain(
        name: *const c_char,
        domain: *const c_char,
        class: c_int,
        kind: c_int,
        answer: *mut u8,
        room: c_int,
    ) -> c_int, else { -1 } {
        // SAFETY: the caller's promise.
        let (name, domain, answer) = unsafe { (user(name), user(domain), user(answer)) };
        resolved(None, raw::errno(), on_names(name, domain, |name| names::query(name, class, kind, answer, room)))
    }

    fn res_nquerydomain(
        state: *mut State,
        name: *const c_char,
        domain: *const c_char,
        class: c_int,
        kind: c_int,
        answer: *mut u8,
        room: c_int,
    ) -> c_int, else { -1 } {
        // SAFETY: the caller's promise.
        let (name, domain, answer) = unsafe { (user(name), user(domain), user(answer)) };
        // SAFETY: as above.
        let state = unsafe { User::new(state) };
        resolved(Some(state), raw::errno(), on_names(name, domain, |name| names::query(name, class, kind, answer, room)))
    }

    fn res_send(query: *const u8, len: c_int, answer: *mut u8, room: c_int) -> c_int, else { -1 } {
        // SAFETY: the caller's promise.
        let (query, answer) = unsafe { (user(query), user(answer)) };
        returns(|| Ok(names::exchange(query, len, answer, room)? as c_int))
    }

    fn res_nsend(state: *mut State, query: *const u8, len: c_int, answer: *mut u8, room: c_int) -> c_int, else { -1 } {
        // SAFETY: the caller's promise.
        let (query, answer) = unsafe { (user(query), user(answer)) };
        returns(|| Ok(names::exchange(query, len, answer, room)? as c_int))
    }
}

// What programs call that were compiled for a C library before 2.34.
exports! {
    fn __res_query(name: *const c_char, class: c_int, kind: c_int, answer: *mut u8, room: c_int) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { res_query(name, class, kind, answer, room) }
    }

    fn __res_search(name: *const c_char, class: c_int, kind: c_int, answer: *mut u8, room: c_int) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { res_search(name, class, kind, answer, room) }
    }

    fn __res_nquery(state: *mut State, name: *const c_char, class: c_int, kind: c_int, answer: *mut u8, room: c_int) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { res_nquery(state, name, class, kind, answer, room) }
    }

    fn __res_nsearch(state: *mut State, name: *const c_char, class: c_int, kind: c_int, answer: *mut u8, room: c_int) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { res_nsearch(state, name, class, kind, answer, room) }
    }

    fn __res_querydomain(name: *const c_char, domain: *const c_char, class: c_int, kind: c_int, answer: *mut u8, room: c_int) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { res_querydomain(name, domain, class, kind, answer, room) }
    }

    fn __res_nquerydomain(state: *mut State, name: *const c_char, domain: *const c_char, class: c_int, kind: c_int, answer: *mut u8, room: c_int) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { res_nquerydomain(state, name, domain, class, kind, answer, room) }
    }

    fn __res_send(query: *const u8, len: c_int, answer: *mut u8, room: c_int) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { res_send(query, len, answer, room) }
    }

    fn __res_nsend(state: *mut State, query: *const u8, len: c_int, answer: *mut u8, room: c_int) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { res_nsend(state, query, len, answer, room) }
    }
}

/// resolv.h's `struct __res_state` up to the only member that is of interest here.
#[repr(C)]
struct State {
    retrans: c_int,
    retry: c_int,
    options: c_ulong,
    nscount: c_int,
    servers: [libc::sockaddr_in; 3],
    id: u16,
    search: [*mut c_char; 7],
    default_domain: [c_char; 256],
    pfcode: c_ulong,
    bits: u32,
    sort_list: [[u32; 2]; 10],
    hooks: [*mut c_void; 2],
    h_errno: c_int,
}

/// What the functions return, and h_errno.
fn resolved(state: Option<User<State>>, before: c_int, resolved: Resolved) -> c_int {
    match resolved {
        Resolved::Answer(len) => {
            raw::set_errno(before);
            len as c_int
        }
        Resolved::Failure(code, errno) => {
            raw::set_errno(if errno == Errno::NONE { before } else { errno.0 });
            set_h_errno(code);
            if let Some(state) = state {
                let _ = state.byte_add(offset_of!(State, h_errno)).cast::<c_int>().write(code);
            }
            -1
        }
    }
}

/// netdb.h: `NO_RECOVERY`, which is said of names that are too long.
const NO_RECOVERY: c_int = 3;

fn on_name(name: User<u8>, ask: impl FnOnce(&[u8]) -> Resolved) -> Resolved {
    on_names(name, User::NULL, ask)
}

/// Asks for a name in a domain, or for the name alone.
fn on_names(name: User<u8>, domain: User<u8>, ask: impl FnOnce(&[u8]) -> Resolved) -> Resolved {
    let mut bytes = [0; NAME_MAX];
    match join(name, domain, &mut bytes) {
        Ok(name) => ask(name),
        Err(Errno::MSGSIZE) => Resolved::Failure(NO_RECOVERY, Errno::NONE),
        Err(errno) => Resolved::Failure(names::INTERNAL, errno),
    }
}

fn join(name: User<u8>, domain: User<u8>, bytes: &mut [u8; NAME_MAX]) -> Result<&[u8]> {
    let len = name.text(bytes)?.ok_or(Errno::FAULT)?.len();
    if domain.is_null() {
        return Ok(&bytes[..len]);
    }
    bytes[len] = b'.';
    let rest = domain.text(&mut bytes[len + 1..])?.ok_or(Errno::FAULT)?.len();
    Ok(&bytes[..len + 1 + rest])
}
