//! getaddrinfo(3) and getnameinfo(3).

use std::ffi::c_int;

use ioth_node_calls::control::Question;
use ioth_node_calls::sys::pieces::{Inward, Pieces};
use ioth_node_calls::sys::raw;
use ioth_node_calls::{Errno, User, calls, control};
use ioth_node_proto::{AddrInfo, Item, Op, Reply, Row, Wanted, wanted_names};
use libc::{addrinfo, sockaddr};

use super::{NAME_MAX, ROOM, ask, refused};
use crate::sys::room::Room;
use crate::sys::start;

/// Bytes of two names and their marks.
const WANTED_MAX: usize = 2 * (NAME_MAX + 1);

/// Why there is no answer.
struct Failure {
    /// An `EAI_*`.
    code: c_int,
    /// For `EAI_SYSTEM`, which is explained by errno.
    errno: Errno,
}

impl From<c_int> for Failure {
    fn from(code: c_int) -> Self {
        Failure { code, errno: Errno::NONE }
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Failure { code: libc::EAI_SYSTEM, errno }
    }
}

/// What the functions return, and errno.
fn code(call: impl FnOnce() -> Result<(), Failure>) -> c_int {
    let before = raw::errno();
    let (code, errno) = match call() {
        Ok(()) => (0, Errno::NONE),
        Err(Failure { code, errno }) => (code, errno),
    };
    raw::set_errno(if errno == Errno::NONE { before } else { errno.0 });
    code
}

/// getaddrinfo(3): 0 or an `EAI_*`.
pub(crate) fn getaddrinfo(
    host: User<u8>,
    service: User<u8>,
    hints: User<addrinfo>,
    result: User<*mut addrinfo>,
) -> c_int {
    code(|| Ok(result.write(lookup(host, service, hints)?)?))
}

fn lookup(host: User<u8>, service: User<u8>, hints: User<addrinfo>) -> Result<*mut addrinfo, Failure> {
    let (mut host_text, mut service_text) = ([0; NAME_MAX], [0; NAME_MAX]);
    // No name is longer, whatever else is wrong with it.
    let no_name = |errno| match errno {
        Errno::MSGSIZE => Failure::from(libc::EAI_NONAME),
        errno => Failure::from(errno),
    };
    let host = host.text(&mut host_text).map_err(no_name)?;
    let service = service.text(&mut service_text).map_err(no_name)?;
    let args = match hints.is_null() {
        true => [libc::AI_V4MAPPED | libc::AI_ADDRCONFIG, libc::AF_UNSPEC, 0, 0],
        false => {
            let hints = hints.read()?;
            [hints.ai_flags, hints.ai_family, hints.ai_socktype, hints.ai_protocol]
        }
    };
    let mut payload = [0; WANTED_MAX];
    let len = Wanted { host, service }.emit(&mut payload).ok_or(libc::EAI_NONAME)?;
    let mut row = [0; ROOM];
    let (reply, row) = ask(&Question::general(Op::Lookup, args), &payload[..len], &mut row)?;
    check(&reply)?;
    let canonical = row.clone().find_map(|item| match item {
        Item::Name(name) => Some(name),
        _ => None,
    });
    let list = chain(row, args[0], canonical).ok_or(libc::EAI_MEMORY)?;
    if list.is_null() { Err(libc::EAI_NONAME.into()) } else { Ok(list) }
}

/// Fails with the reply's `EAI_*`.
fn check(reply: &Reply) -> Result<(), Failure> {
    // netdb.h's go to EAI_OVERFLOW; the others are of functions that do not wait, which are not here.
    match reply.result {
        0 => Ok(()),
        libc::EAI_SYSTEM => Err(Errno(reply.args[0]).into()),
        code @ libc::EAI_OVERFLOW..0 => Err(code.into()),
        other => Err(refused(other).into()),
    }
}

/// The list from an item on, each of its entries in memory of its own; null for none. `None` without memory.
fn chain(mut row: Row<'_>, flags: c_int, canonical: Option<&[u8]>) -> Option<*mut addrinfo> {
    let found = row.find_map(|item| match item {
        Item::AddrInfo(found) => Some(found),
        _ => None,
    });
    let Some(AddrInfo { family, kind, protocol, addr }) = found else { return Some(std::ptr::null_mut()) };
    // freeaddrinfo(3) of the C library frees an entry with its address, and the name by itself.
    let mut room = Room::new(size_of::<addrinfo>() + addr.len().next_multiple_of(8))?;
    let entry = room.array::<addrinfo>(1)?;
    let at = room.bytes(addr, align_of::<u64>())?;
    let name = match canonical {
        Some(name) => {
            let mut room = Room::new(name.len() + 1)?;
            room.text(name)?;
            Some(room)
        }
        None => None,
    };
    let next = chain(row, flags, None)?;
    let value = addrinfo {
        // As the C library: those that it was asked with.
        ai_flags: flags,
        ai_family: family,
        ai_socktype: kind,
        ai_protocol: protocol,
        ai_addrlen: addr.len() as libc::socklen_t,
        ai_addr: at.cast::<sockaddr>(),
        ai_canonname: name.map_or(std::ptr::null_mut(), Room::give),
        ai_next: next,
    };
    room.set(entry, 0, value);
    Some(room.give())
}

/// A name that getnameinfo(3) is to write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) at: User<u8>,
    pub(crate) len: usize,
}

impl Place {
    fn is_wanted(self) -> bool {
        !self.at.is_null() && self.len > 0
    }
}

/// getnameinfo(3), but for AF_UNIX: 0 or an `EAI_*`.
pub(crate) fn getnameinfo(addr: User<u8>, addr_len: u32, host: Place, service: Place, flags: c_int) -> c_int {
    code(|| names(addr, addr_len, host, service, flags))
}

fn names(addr: User<u8>, addr_len: u32, host: Place, service: Place, flags: c_int) -> Result<(), Failure> {
    let mut wanted = 0;
    for (place, bit) in [(host, wanted_names::HOST), (service, wanted_names::SERVICE)] {
        wanted |= if place.is_wanted() { bit } else { 0 };
    }
    if wanted == 0 {
        return Err(libc::EAI_NONAME.into());
    }
    let mut payload = calls::address(addr, addr_len).map_err(|_| libc::EAI_FAMILY)?;
    let mut bytes = [0; 4 * NAME_MAX];
    let room = bytes.len();
    let mut pieces = Pieces::<Inward>::new();
    pieces.own(&mut bytes)?;
    let question = Question::general(Op::NameInfo, [flags, wanted, 0, 0]);
    let answer = control::exchange(start::client(), &question, &mut payload, &mut pieces)?;
    check(&answer.reply)?;
    for item in Row::new(&bytes[..answer.len.min(room)]) {
        match item {
            Item::Name(name) if host.is_wanted() => put(host, name)?,
            Item::Service(name) if service.is_wanted() => put(service, name)?,
            _ => {}
        }
    }
    Ok(())
}

fn put(place: Place, name: &[u8]) -> Result<(), Failure> {
    if name.len() >= place.len {
        return Err(libc::EAI_OVERFLOW.into());
    }
    place.at.write_bytes(name)?;
    Ok(place.at.byte_add(name.len()).write(0)?)
}
