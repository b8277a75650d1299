//! Which descriptors are a node's, and what may be done with them.

use std::ffi::c_int;
use std::mem::offset_of;

use ioth_node_proto::{EndName, State};

use crate::sys::raw;

/// What the other end's name says, if the descriptor is a socket of a node. Costs one system call.
pub fn of(fd: c_int) -> Option<EndName> {
    const PATH: usize = offset_of!(libc::sockaddr_un, sun_path);
    const FAMILY: usize = size_of::<libc::sa_family_t>();
    let mut name = [0; size_of::<libc::sockaddr_un>()];
    let len = raw::peer_name(fd, &mut name).ok()?;
    let family: [u8; FAMILY] = *name.first_chunk()?;
    if libc::sa_family_t::from_ne_bytes(family) != libc::AF_UNIX as libc::sa_family_t {
        return None;
    }
    match name.get(PATH..len)? {
        [0, name @ ..] => EndName::parse(name),
        _ => None,
    }
}

/// The state that an end shows. A value that means nothing makes the caller ask.
pub fn state(fd: c_int) -> State {
    raw::option(fd, libc::SO_PRIORITY).ok().and_then(State::from_priority).unwrap_or(State::Fresh)
}

/// Whether data goes straight through the descriptor, whosever it is: all but a connected end of a node's shows another
/// state, or is none of a node's.
pub(crate) fn is_plain(fd: c_int) -> bool {
    raw::option(fd, libc::SO_PRIORITY) == Ok(State::Connected.priority())
}
