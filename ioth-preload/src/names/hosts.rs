//! gethostbyname(3) and its kin.

use std::ffi::{c_char, c_int};

use ioth_node_calls::Errno;
use ioth_node_calls::control::Question;
use ioth_node_proto::{Item, Op, Row};

use super::{ROOM, ask, refused};
use crate::sys::room::Room;

/// netdb.h's `struct hostent`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hostent {
    name: *mut c_char,
    aliases: *mut *mut c_char,
    family: c_int,
    length: c_int,
    addresses: *mut *mut c_char,
}

/// What host is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted<'a> {
    Name(&'a [u8]),
    Address(&'a [u8]),
}

/// Why there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HostFailure {
    /// What h_errno becomes.
    pub(crate) code: c_int,
    /// For [`INTERNAL`](HostFailure::INTERNAL) what errno becomes.
    pub(crate) errno: Errno,
}

impl HostFailure {
    const INTERNAL: c_int = -1;
    const HOST_NOT_FOUND: c_int = 1;
    const TRY_AGAIN: c_int = 2;
    const NO_DATA: c_int = 4;

    /// There is no such host.
    pub(crate) const NOT_FOUND: HostFailure =
        HostFailure { code: HostFailure::HOST_NOT_FOUND, errno: Errno::NONE };

    pub(crate) fn internal(errno: Errno) -> HostFailure {
        HostFailure { code: HostFailure::INTERNAL, errno }
    }

    /// What the functions whose names end in `_r` return: that there is no such host is no failure of theirs.
    pub(crate) fn returned(self) -> c_int {
        match self.code {
            HostFailure::HOST_NOT_FOUND | HostFailure::NO_DATA => 0,
            HostFailure::TRY_AGAIN => libc::EAGAIN,
            HostFailure::INTERNAL => self.errno.0,
            _ => libc::EINVAL,
        }
    }
}

/// Asks for a host, and puts what is known of it into `room`.
///
/// # Errors
/// The node's; `ERANGE` where there is too little room.
pub(crate) fn host(wanted: Wanted<'_>, family: c_int, room: &mut Room) -> Result<Hostent, HostFailure> {
    let (op, payload) = match wanted {
        Wanted::Name(name) => (Op::HostByName, name),
        Wanted::Address(address) => (Op::HostByAddr, address),
    };
    let mut row = [0; ROOM];
    let (reply, row) =
        ask(&Question::general(op, [family, 0, 0, 0]), payload, &mut row).map_err(HostFailure::internal)?;
    match reply.result {
        0 => {}
        code @ HostFailure::INTERNAL..=HostFailure::NO_DATA => {
            return Err(HostFailure { code, errno: Errno(reply.args[0]) });
        }
        other => return Err(HostFailure::internal(refused(other))),
    }
    put(row, family, room).ok_or(HostFailure::internal(Errno(libc::ERANGE)))
}

/// Lays out a host; `None` without room.
fn put(row: Row<'_>, family: c_int, room: &mut Room) -> Option<Hostent> {
    let length = if family == libc::AF_INET6 { 16 } else { 4 };
    let count = |is: fn(&Item<'_>) -> bool| row.clone().filter(is).count();
    let aliases = count(|item| matches!(item, Item::Alias(_)));
    let addresses = count(|item| matches!(item, Item::Address(_)));
    // Each list ends with a null pointer.
    let alias_list = room.array::<*mut c_char>(aliases + 1)?;
    let address_list = room.array::<*mut c_char>(addresses + 1)?;
    let (mut name, mut alias_at, mut address_at) = (std::ptr::null_mut(), 0, 0);
    for item in row {
        match item {
            Item::Name(text) => name = room.text(text)?,
            Item::Alias(text) => {
                let text = room.text(text)?;
                room.set(alias_list, alias_at, text);
                alias_at += 1;
            }
            Item::Address(bytes) if bytes.len() == length => {
                let bytes = room.bytes(bytes, align_of::<u64>())?;
                room.set(address_list, address_at, bytes.cast());
                address_at += 1;
            }
            _ => {}
        }
    }
    room.set(alias_list, alias_at, std::ptr::null_mut());
    room.set(address_list, address_at, std::ptr::null_mut());
    if name.is_null() {
        name = room.text(b"")?;
    }
    Some(Hostent { name, aliases: alias_list, family, length: length as c_int, addresses: address_list })
}
