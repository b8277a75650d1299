//! ioctl(2), of which only a socket's requests are looked at.

use std::ffi::{c_int, c_ulong};
use std::mem::offset_of;

use ioth_node_proto::{EndName, Op, State};
use libc::{ifreq, rtentry};

use crate::Client;
use crate::control::{self, Question};
use crate::errno::{Errno, Result};
use crate::sys::memory::User;
use crate::sys::pieces::{Inward, Outward, Pieces};
use crate::sys::raw::{self, call, number};
use crate::{end, message, stream};

const FIONREAD: c_ulong = libc::FIONREAD as c_ulong;
const SIOCOUTQ: c_ulong = libc::TIOCOUTQ as c_ulong;
/// asm-generic/sockios.h; the requests before it are the descriptor's own (its owner).
const SIOCATMARK: c_ulong = 0x8905;
/// When the last datagram came, by four names: those who read a pair are not known to the node.
const STAMPS: [c_ulong; 4] = [0x8906, 0x8907, 0x8010_8906, 0x8010_8907];
/// linux/sockios.h
const SIOCOUTQNSD: c_ulong = 0x894b;
/// linux/sockios.h: what socket requests begin and end with.
const SOCKIOS: std::ops::RangeInclusive<c_ulong> = SIOCATMARK..=0x89ff;
/// linux/sockios.h: the requests about interfaces are over struct ifreq, from SIOCGIFNAME to SIOCSIFMAP.
const INTERFACES: std::ops::RangeInclusive<c_ulong> = 0x8910..=0x8971;

/// linux/if.h: `struct ifconf`
#[repr(C)]
struct Ifconf {
    len: c_int,
    array: usize,
}

/// linux/ipv6.h: `struct in6_ifreq`; linux/ipv6_route.h: `struct in6_rtmsg`
const IN6_IFREQ: usize = 24;
const IN6_RTMSG: usize = 80;
/// The longest array of addresses, in bytes.
const LONGEST: usize = 64 << 10;
/// Room for every request's structure.
const ARGUMENT_MAX: usize = size_of::<rtentry>() + libc::IFNAMSIZ;

/// ioctl(2)
pub fn ioctl(client: &Client, fd: c_int, request: c_ulong, argument: User<u8>) -> Result<c_int> {
    // The C library's declaration has an unsigned long, the kernel's an unsigned int: others come sign-extended.
    let request = request & c_ulong::from(u32::MAX);
    let is_socket =
        request == FIONREAD || request == SIOCOUTQ || SOCKIOS.contains(&request) || STAMPS.contains(&request);
    let native = || {
        let args = [number(fd), request as usize, argument.pointer() as usize, 0, 0, 0];
        Ok(call(libc::SYS_ioctl, args)? as c_int)
    };
    let Some(name) = is_socket.then(|| end::of(fd)).flatten() else {
        return native();
    };
    match request {
        // A stream has no urgent data, which is what the pair says as well.
        SIOCATMARK if name.is_stream() => native(),
        FIONREAD => argument.cast::<c_int>().write(unread(client, fd, &name)?).map(|()| 0),
        SIOCOUTQ => argument.cast::<c_int>().write(waiting(client, fd, 1)?).map(|()| 0),
        stamp if STAMPS.contains(&stamp) => Err(Errno(libc::ENOTTY)),
        libc::SIOCGIFCONF => addresses(client, fd, argument),
        libc::SIOCADDRT | libc::SIOCDELRT if c_int::from(name.domain) == libc::AF_INET => {
            ipv4_route(client, fd, request, argument)
        }
        _ => structure(client, fd, request, argument, argument_len(&name, request)),
    }
}

/// ioctl(2) on a socket that is known to be the node's, whose argument is the structure; what that points to is in it as
/// [`Op::Ioctl`] says.
///
/// # Errors
/// As ioctl(2); `ENETDOWN` when the node has gone.
pub fn request(
    client: &Client,
    fd: c_int,
    name: &EndName,
    request: c_ulong,
    argument: &mut [u8],
) -> Result<c_int> {
    let count = match request {
        // As above: a stream has no urgent data.
        SIOCATMARK if name.is_stream() => Some(raw::count(fd, request)?),
        FIONREAD => Some(unread(client, fd, name)?),
        SIOCOUTQ => Some(waiting(client, fd, 1)?),
        stamp if STAMPS.contains(&stamp) => return Err(Errno(libc::ENOTTY)),
        _ => None,
    };
    if let Some(count) = count {
        argument.get_mut(..size_of::<c_int>()).ok_or(Errno::INVAL)?.copy_from_slice(&count.to_ne_bytes());
        return Ok(0);
    }
    if argument.len() > LONGEST {
        return Err(Errno::INVAL);
    }
    let mut before = [0; ARGUMENT_MAX];
    let mut payload = Pieces::<Outward>::new();
    match before.get_mut(..argument.len()) {
        Some(before) => {
            before.copy_from_slice(argument);
            payload.own(before)?;
        }
        // An array for results, of which nobody reads what is there before.
        None => {
            static NOTHING: [u8; LONGEST] = [0; LONGEST];
            payload.own(&NOTHING[..argument.len()])?;
        }
    }
    let mut room = Pieces::<Inward>::new();
    room.own(argument)?;
    let answer = control::ask_with(client, &question(fd, request), &mut payload, &mut room)?;
    Ok(answer.reply.result)
}

fn unread(client: &Client, fd: c_int, name: &EndName) -> Result<c_int> {
    if !name.is_stream() {
        return message::unread(fd);
    }
    match end::state(fd) {
        State::Listening => Err(Errno::INVAL),
        State::Connected => Ok(stream::unread(fd)?.saturating_add(waiting(client, fd, 0)?)),
        _ => waiting(client, fd, 0),
    }
}

/// What the node has of the socket's bytes: unread ones, or unsent ones.
fn waiting(client: &Client, fd: c_int, which: c_int) -> Result<c_int> {
    Ok(control::ask(client, &Question::about(fd, Op::Waiting, [which, 0, 0, 0]))?.reply.result)
}

fn question(fd: c_int, request: c_ulong) -> Question {
    // Only the low half is ever used, see above.
    Question::about(fd, Op::Ioctl, [request as u32 as i32, 0, 0, 0])
}

/// A request over a structure of `len` bytes.
fn structure(client: &Client, fd: c_int, request: c_ulong, argument: User<u8>, len: usize) -> Result<c_int> {
    let (mut before, mut after) = ([0; ARGUMENT_MAX], [0; ARGUMENT_MAX]);
    argument.read_bytes(&mut before[..len])?;
    let mut payload = Pieces::<Outward>::new();
    payload.own(&before[..len])?;
    let mut room = Pieces::<Inward>::new();
    room.own(&mut after[..len])?;
    let answer = control::ask_with(client, &question(fd, request), &mut payload, &mut room)?;
    let len = answer.len.min(len);
    // A request that only says something may have a constant for its argument.
    if after[..len] != before[..len] {
        argument.write_bytes(&after[..len])?;
    }
    Ok(answer.reply.result)
}

/// `SIOCGIFCONF`, whose structure points to an array.
fn addresses(client: &Client, fd: c_int, argument: User<u8>) -> Result<c_int> {
    let len_at = argument.byte_add(offset_of!(Ifconf, len)).cast::<c_int>();
    let array = argument.byte_add(offset_of!(Ifconf, array)).cast::<usize>().read()? as *const u8;
    let (len, array) = (len_at.read()?, User::pointed(array));
    let room = if array.is_null() { 0 } else { usize::try_from(len).map_err(|_| Errno::INVAL)? };
    // Room for no address is not the question how much would be needed.
    if !array.is_null() && room == 0 {
        return len_at.write(0).map(|()| 0);
    }
    let room = room.min(LONGEST);
    let mut payload = control::payload(array, room)?;
    let answer = control::ask_with(
        client,
        &question(fd, libc::SIOCGIFCONF),
        &mut payload,
        &mut control::room(array, room)?,
    )?;
    len_at.write(answer.reply.result)?;
    Ok(0)
}

/// `SIOCADDRT`, `SIOCDELRT` of IPv4, whose structure points to the device's name; it follows the structure on the way on.
fn ipv4_route(client: &Client, fd: c_int, request: c_ulong, argument: User<u8>) -> Result<c_int> {
    let mut bytes = [0; ARGUMENT_MAX];
    let (entry, device) = bytes.split_at_mut(size_of::<rtentry>());
    argument.read_bytes(entry)?;
    let name = argument.byte_add(offset_of!(rtentry, rt_dev)).cast::<usize>().read()? as *const u8;
    if !name.is_null() {
        User::pointed(name).read_text(&mut device[..libc::IFNAMSIZ - 1])?;
    }
    let mut payload = Pieces::<Outward>::new();
    payload.own(&bytes)?;
    let answer =
        control::ask_with(client, &question(fd, request), &mut payload, &mut Pieces::<Inward>::new())?;
    Ok(answer.reply.result)
}

/// The size of a request's structure; 0 for one that is unknown, which is then refused, or has none.
fn argument_len(name: &EndName, request: c_ulong) -> usize {
    let is_ipv6 = c_int::from(name.domain) == libc::AF_INET6;
    match request {
        SIOCATMARK | SIOCOUTQNSD => size_of::<c_int>(),
        libc::SIOCADDRT | libc::SIOCDELRT if is_ipv6 => IN6_RTMSG,
        libc::SIOCADDRT | libc::SIOCDELRT => 0,
        libc::SIOCSIFADDR | libc::SIOCSIFDSTADDR | libc::SIOCDIFADDR if is_ipv6 => IN6_IFREQ,
        request if INTERFACES.contains(&request) => size_of::<ifreq>(),
        _ => 0,
    }
}
