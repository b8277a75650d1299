//! getsockopt(2) and setsockopt(2).

use std::ffi::c_int;

use ioth_node_proto::{EndName, Op};

use crate::Client;
use crate::control::{self, Question};
use crate::end;
use crate::errno::{Errno, Result};
use crate::sys::memory::User;
use crate::sys::pieces::{Inward, Outward, Pieces};
use crate::sys::raw::{self, call};

/// No option's value is longer; of a longer one only the beginning is looked at, as in the kernel.
const VALUE_MAX: usize = 64 << 10;

/// The time-outs with 64 bits of seconds on every system, which libc does not name.
const SO_RCVTIMEO_NEW: c_int = 66;
const SO_SNDTIMEO_NEW: c_int = 67;

/// The same number as `SO_ATTACH_FILTER`'s.
const SO_GET_FILTER: c_int = libc::SO_ATTACH_FILTER;

/// getsockopt(2)
pub fn get(
    client: &Client,
    fd: c_int,
    level: c_int,
    name: c_int,
    value: User<u8>,
    len: User<u32>,
) -> Result<c_int> {
    let native = || {
        let (value, len) = (value.pointer() as usize, len.pointer() as usize);
        let args = [raw::number(fd), raw::number(level), raw::number(name), value, len, 0];
        Ok(call(libc::SYS_getsockopt, args)? as c_int)
    };
    let Some(end) = end::of(fd) else {
        return native();
    };
    if is_native(level, name) {
        return native();
    }
    let room = usize::try_from(len.cast::<c_int>().read()?).map_err(|_| Errno::INVAL)?.min(VALUE_MAX);
    if let Some(known) = known(&end, level, name) {
        let bytes = known.to_ne_bytes();
        let used = room.min(bytes.len());
        value.write_bytes(&bytes[..used])?;
        len.write(used as u32)?;
        return Ok(0);
    }
    // The length of a filter counts its instructions.
    let unit = match (level, name) {
        (libc::SOL_SOCKET, SO_GET_FILTER) => size_of::<libc::sock_filter>(),
        _ => 1,
    };
    let room = room.saturating_mul(unit).min(VALUE_MAX);
    let question = Question::about(fd, Op::GetOption, [level, name, room as i32, 0]);
    let answer = control::ask_with(
        client,
        &question,
        &mut control::payload(value, room)?,
        &mut control::room(value, room)?,
    )?;
    // Without room for any instruction a filter tells how many it has.
    let used = if room == 0 { answer.reply.result.max(0) as usize } else { answer.len };
    len.write((used / unit) as u32)?;
    Ok(0)
}

/// An option of a node's socket that is an int.
pub(crate) fn number(client: &Client, fd: c_int, level: c_int, name: c_int) -> Result<c_int> {
    let mut bytes = [0; size_of::<c_int>()];
    let mut room = Pieces::<Inward>::new();
    room.own(&mut bytes)?;
    let question = Question::about(fd, Op::GetOption, [level, name, size_of::<c_int>() as i32, 0]);
    let zeroes = [0; size_of::<c_int>()];
    let mut payload = Pieces::<Outward>::new();
    payload.own(&zeroes)?;
    control::ask_with(client, &question, &mut payload, &mut room)?;
    Ok(c_int::from_ne_bytes(bytes))
}

/// What the pair does by itself, with the value that was set there when the node took it.
fn is_native(level: c_int, name: c_int) -> bool {
    let times = [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO, SO_RCVTIMEO_NEW, SO_SNDTIMEO_NEW, libc::SO_RCVLOWAT];
    level == libc::SOL_SOCKET && times.contains(&name)
}

/// What never changes, and is in the end's name.
fn known(end: &EndName, level: c_int, name: c_int) -> Option<c_int> {
    match (level, name) {
        (libc::SOL_SOCKET, libc::SO_TYPE) => Some(end.kind.into()),
        (libc::SOL_SOCKET, libc::SO_DOMAIN) => Some(end.domain.into()),
        (libc::SOL_SOCKET, libc::SO_PROTOCOL) => Some(end.protocol.into()),
        _ => None,
    }
}

/// What a pair cannot do: programs go on without.
fn is_refused(level: c_int, name: c_int) -> bool {
    match level {
        libc::SOL_SOCKET => name == libc::SO_ZEROCOPY,
        libc::IPPROTO_TCP => [libc::TCP_ULP, libc::TCP_FASTOPEN, libc::TCP_FASTOPEN_CONNECT].contains(&name),
        _ => false,
    }
}

/// setsockopt(2)
pub fn set(
    client: &Client,
    fd: c_int,
    level: c_int,
    name: c_int,
    value: User<u8>,
    len: u32,
) -> Result<c_int> {
    let native = || {
        let args = [raw::number(fd), raw::number(level), raw::number(name)];
        let [fd, level, name] = args;
        Ok(call(libc::SYS_setsockopt, [fd, level, name, value.pointer() as usize, len as usize, 0])? as c_int)
    };
    if end::of(fd).is_none() {
        return native();
    }
    if is_refused(level, name) {
        return Err(Errno::NOPROTOOPT);
    }
    let len = usize::try_from(len as c_int).map_err(|_| Errno::INVAL)?;
    let mut payload = match (level, name) {
        (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER) => filter(value, len)?,
        _ => control::payload(value, len.min(VALUE_MAX))?,
    };
    let question = Question::about(fd, Op::SetOption, [level, name, 0, 0]);
    control::ask_with(client, &question, &mut payload, &mut Pieces::<Inward>::new())?;
    if is_native(level, name) {
        native()?;
    }
    Ok(0)
}

/// The instructions to which a `struct sock_fprog` points.
fn filter(value: User<u8>, len: usize) -> Result<Pieces<'static, Outward>> {
    if len != size_of::<libc::sock_fprog>() {
        return Err(Errno::INVAL);
    }
    let program = value.cast::<libc::sock_fprog>().read()?;
    let bytes = usize::from(program.len) * size_of::<libc::sock_filter>();
    control::payload(User::pointed(program.filter), bytes)
}
