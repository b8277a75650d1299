//! The calls that move data: which way it goes.

use std::ffi::c_int;

use ioth_node_proto::EndName;

use crate::Client;
use crate::calls::{self, SOCKADDR_MAX};
use crate::deadline::Deadline;
use crate::errno::{Errno, Result};
use crate::sys::memory::User;
use crate::sys::pieces::{IOVECS_MAX, LARGE, Pieces, SMALL};
use crate::sys::raw::{self, call, number};
use crate::{end, message, stream};

/// The longest message that goes through a pair, in bytes; longer ones go by request.
pub(crate) const MESSAGE_MAX: usize = 60_000;
/// The most that one call moves, as in the kernel (`MAX_RW_COUNT`).
const COUNT_MAX: usize = i32::MAX as usize & !0xfff;
/// Flags with which data goes through a pair as it is.
const PLAIN_FLAGS: c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

/// The program's buffers.
#[derive(Clone, Copy, Debug)]
pub enum Data {
    /// One, and its length in bytes.
    One(User<u8>, usize),
    /// A list of so many.
    List(User<libc::iovec>, usize),
}

impl Data {
    /// Adds them to the pieces: how many bytes they have.
    pub(crate) fn add<D, const N: usize>(self, pieces: &mut Pieces<'_, D, N>) -> Result<usize> {
        match self {
            Data::One(at, len) => {
                let len = len.min(COUNT_MAX);
                pieces.user(at, len)?;
                Ok(len)
            }
            Data::List(list, count) => pieces.user_list(list, count, COUNT_MAX),
        }
    }

    fn is_large(self) -> bool {
        const FEW: usize = SMALL - (LARGE - IOVECS_MAX);
        matches!(self, Data::List(_, FEW..))
    }
}

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing {
    /// The data.
    pub data: Data,
    /// Where to, a `struct sockaddr`; null for nobody in particular.
    pub addr: User<u8>,
    /// Its length in bytes.
    pub addr_len: u32,
    /// Ancillary data.
    pub control: User<u8>,
    /// Its length in bytes.
    pub control_len: usize,
}

/// Where to receive into, and what for.
#[derive(Clone, Copy, Debug)]
pub struct Incoming {
    /// The buffers.
    pub data: Data,
    /// Whether the sender's address is asked for.
    pub wants_name: bool,
    /// Room for ancillary data.
    pub control: User<u8>,
    /// Its length in bytes.
    pub control_room: usize,
}

/// What was received.
#[derive(Clone, Copy, Debug)]
pub struct Got {
    /// What the call returns.
    pub len: usize,
    /// `msg_flags`
    pub flags: c_int,
    /// The sender's address.
    pub name: [u8; SOCKADDR_MAX],
    /// Its length in bytes; 0 for none.
    pub name_len: usize,
    /// How much ancillary data there is, in bytes.
    pub control_len: usize,
}

impl Got {
    pub(crate) fn new(len: usize, flags: c_int) -> Got {
        Got { len, flags, name: [0; SOCKADDR_MAX], name_len: 0, control_len: 0 }
    }

    fn name(&self) -> &[u8] {
        &self.name[..self.name_len]
    }
}

/// The node's socket that a descriptor is, if it has to be treated as one.
fn ours(client: &Client, fd: c_int, is_plain: bool) -> Option<EndName> {
    if client.place().is_none() || is_plain && end::is_plain(fd) {
        return None;
    }
    end::of(fd)
}

/// sendto(2)
pub fn sendto(
    client: &Client,
    fd: c_int,
    data: User<u8>,
    len: usize,
    flags: c_int,
    addr: User<u8>,
    addr_len: u32,
) -> Result<isize> {
    // The state's answer is good for both kinds of pairs, except that a stream's writer gets SIGPIPE.
    let is_plain = addr.is_null() && flags & !PLAIN_FLAGS == 0 && (1..=MESSAGE_MAX).contains(&len);
    if is_plain && client.place().is_some() && end::is_plain(fd) {
        return match raw::send_native(fd, data, len, flags | libc::MSG_NOSIGNAL) {
            Err(Errno::PIPE) => Err(broken_pipe(client, fd, flags)),
            sent => sent.map(|sent| sent as isize),
        };
    }
    let Some(name) = ours(client, fd, false) else {
        let args = [
            number(fd),
            data.pointer() as usize,
            len,
            number(flags),
            addr.pointer() as usize,
            addr_len as usize,
        ];
        return call(libc::SYS_sendto, args);
    };
    let addr_len = if addr.is_null() { 0 } else { addr_len };
    let data = Data::One(data, len);
    let outgoing = Outgoing { data, addr, addr_len, control: User::NULL, control_len: 0 };
    send(client, fd, &name, &outgoing, flags)
}

/// A stream that is shut: the error that is why, or the writer's signal, unless it asked for none.
fn broken_pipe(client: &Client, fd: c_int, flags: c_int) -> Errno {
    match end::of(fd) {
        Some(name) if !name.is_stream() => Errno::PIPE,
        _ => stream::broken_pipe(client, fd, flags),
    }
}

/// sendmsg(2) on a socket that is known to be the node's.
///
/// # Errors
/// As sendmsg(2); `ENETDOWN` when the node has gone.
pub fn send(client: &Client, fd: c_int, name: &EndName, outgoing: &Outgoing, flags: c_int) -> Result<isize> {
    let sent = match (name.is_stream(), outgoing.data.is_large()) {
        (true, false) => stream::send::<SMALL>(client, fd, outgoing, flags),
        (true, true) => stream::send::<LARGE>(client, fd, outgoing, flags),
        (false, false) => message::send::<SMALL>(client, fd, name, outgoing, flags),
        (false, true) => message::send::<LARGE>(client, fd, name, outgoing, flags),
    };
    sent.map(|sent| sent as isize)
}

/// sendmsg(2)
pub fn sendmsg(client: &Client, fd: c_int, header: User<libc::msghdr>, flags: c_int) -> Result<isize> {
    match ours(client, fd, false) {
        None => call(libc::SYS_sendmsg, [number(fd), header.pointer() as usize, number(flags), 0, 0, 0]),
        Some(name) => send_message(client, fd, &name, header, flags),
    }
}

fn send_message(
    client: &Client,
    fd: c_int,
    name: &EndName,
    header: User<libc::msghdr>,
    flags: c_int,
) -> Result<isize> {
    let header = header.read()?;
    let mut addr_len = header.msg_namelen;
    if header.msg_name.is_null() {
        addr_len = 0;
    }
    if addr_len as c_int as i64 != i64::from(addr_len) {
        return Err(Errno::INVAL);
    }
    let outgoing = Outgoing {
        data: list_of(&header)?,
        addr: User::pointed(header.msg_name),
        // Linux: a longer name is cut to a `struct sockaddr_storage`.
        addr_len: addr_len.min(SOCKADDR_MAX as u32),
        control: User::pointed(header.msg_control),
        control_len: header.msg_controllen,
    };
    send(client, fd, name, &outgoing, flags)
}

fn list_of(header: &libc::msghdr) -> Result<Data> {
    let count = header.msg_iovlen;
    if count > IOVECS_MAX {
        return Err(Errno::MSGSIZE);
    }
    Ok(Data::List(User::pointed(header.msg_iov).cast(), count))
}

/// sendmmsg(2)
pub fn sendmmsg(
    client: &Client,
    fd: c_int,
    list: User<libc::mmsghdr>,
    count: u32,
    flags: c_int,
) -> Result<c_int> {
    let Some(name) = ours(client, fd, false) else {
        let args = [number(fd), list.pointer() as usize, count as usize, number(flags), 0, 0];
        return Ok(call(libc::SYS_sendmmsg, args)? as c_int);
    };
    let mut done = 0;
    for at in 0..(count as usize).min(IOVECS_MAX) {
        let entry = list.add(at);
        let sent = send_message(client, fd, &name, entry.cast(), flags)
            .and_then(|sent| entry.byte_add(MMSG_LEN).cast::<u32>().write(sent as u32));
        match sent {
            Ok(()) => done += 1,
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// Where `msg_len` is.
const MMSG_LEN: usize = std::mem::offset_of!(libc::mmsghdr, msg_len);

/// What read(2) and readv(2) do not tell by themselves where they find the end of any descriptor: the error that is why, if it
/// is a stream of a node that was reset. A descriptor that is not hung up costs one call of poll(2), which filters of
/// system calls allow where they allow reading.
pub fn check_read_end(client: &Client, fd: c_int) -> Result<isize> {
    let hung_up = client.place().is_some() && raw::poll(fd, 0, Some(0)).is_ok_and(|events| events != 0);
    if hung_up && end::of(fd).is_some_and(|name| name.is_stream()) {
        message::check_error(client, fd)?;
    }
    Ok(0)
}

/// recvfrom(2)
pub fn recvfrom(
    client: &Client,
    fd: c_int,
    room: User<u8>,
    len: usize,
    flags: c_int,
    addr: User<u8>,
    addr_len: User<u32>,
) -> Result<isize> {
    let is_plain = addr.is_null() && flags & !(libc::MSG_DONTWAIT | libc::MSG_PEEK | libc::MSG_WAITALL) == 0;
    if is_plain && client.place().is_some() && end::is_plain(fd) {
        match raw::receive_native(fd, room, len, flags) {
            // The end of a stream, an empty message, or an error that waits.
            Ok(0) if len > 0 => {
                match end::of(fd) {
                    Some(name) if name.is_stream() => stream::check_end(client, fd)?,
                    Some(_) => message::check_error(client, fd)?,
                    None => {}
                }
                return Ok(0);
            }
            received => return received.map(|len| len as isize),
        }
    }
    let Some(name) = ours(client, fd, false) else {
        let (addr, addr_len) = (addr.pointer() as usize, addr_len.pointer() as usize);
        return call(
            libc::SYS_recvfrom,
            [number(fd), room.pointer() as usize, len, number(flags), addr, addr_len],
        );
    };
    let data = Data::One(room, len);
    let wants_name = !addr.is_null();
    let incoming = Incoming { data, wants_name, control: User::NULL, control_room: 0 };
    let got = receive(client, fd, &name, &incoming, flags)?;
    if wants_name {
        calls::write_address(addr, addr_len, got.name())?;
    }
    Ok(got.len as isize)
}

/// recvmsg(2) on a socket that is known to be the node's.
///
/// # Errors
/// As recvmsg(2); `ENETDOWN` when the node has gone.
pub fn receive(client: &Client, fd: c_int, name: &EndName, incoming: &Incoming, flags: c_int) -> Result<Got> {
    match (name.is_stream(), incoming.data.is_large()) {
        (true, false) => stream::receive::<SMALL>(client, fd, incoming, flags),
        (true, true) => stream::receive::<LARGE>(client, fd, incoming, flags),
        (false, false) => message::receive::<SMALL>(client, fd, incoming, flags),
        (false, true) => message::receive::<LARGE>(client, fd, incoming, flags),
    }
}

/// recvmsg(2)
pub fn recvmsg(client: &Client, fd: c_int, header: User<libc::msghdr>, flags: c_int) -> Result<isize> {
    match ours(client, fd, false) {
        None => call(libc::SYS_recvmsg, [number(fd), header.pointer() as usize, number(flags), 0, 0, 0]),
        Some(name) => receive_message(client, fd, &name, header, flags),
    }
}

fn receive_message(
    client: &Client,
    fd: c_int,
    end: &EndName,
    at: User<libc::msghdr>,
    flags: c_int,
) -> Result<isize> {
    let mut header = at.read()?;
    let wants_name = !header.msg_name.is_null();
    if wants_name && (header.msg_namelen as c_int) < 0 {
        return Err(Errno::INVAL);
    }
    let incoming = Incoming {
        data: list_of(&header)?,
        wants_name,
        control: User::pointed(header.msg_control),
        control_room: if header.msg_control.is_null() { 0 } else { header.msg_controllen },
    };
    let got = receive(client, fd, end, &incoming, flags)?;
    if wants_name {
        let fits = got.name_len.min(header.msg_namelen as usize);
        User::pointed(header.msg_name).write_bytes(&got.name[..fits])?;
        header.msg_namelen = got.name_len as u32;
    }
    header.msg_controllen = got.control_len as _;
    header.msg_flags = got.flags | flags & libc::MSG_CMSG_CLOEXEC;
    at.write(header)?;
    Ok(got.len as isize)
}

/// recvmmsg(2)
pub fn recvmmsg(
    client: &Client,
    fd: c_int,
    list: User<libc::mmsghdr>,
    count: u32,
    mut flags: c_int,
    timeout: User<libc::timespec>,
) -> Result<c_int> {
    let Some(name) = ours(client, fd, false) else {
        let args = [
            number(fd),
            list.pointer() as usize,
            count as usize,
            number(flags),
            timeout.pointer() as usize,
            0,
        ];
        return Ok(call(libc::SYS_recvmmsg, args)? as c_int);
    };
    let until = match timeout.is_null() {
        true => None,
        false => Some(Deadline::new(timeout.read()?)?),
    };
    let mut done = 0;
    for at in 0..(count as usize).min(IOVECS_MAX) {
        let entry = list.add(at);
        let received = receive_message(client, fd, &name, entry.cast(), flags & !libc::MSG_WAITFORONE)
            .and_then(|len| entry.byte_add(MMSG_LEN).cast::<u32>().write(len as u32));
        match received {
            Ok(()) => done += 1,
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
        if flags & libc::MSG_WAITFORONE != 0 {
            flags |= libc::MSG_DONTWAIT;
        }
        // recvmmsg(2), BUGS: the time is looked at only after a message.
        if let Some(until) = &until {
            let left = until.left_exactly()?;
            timeout.write(left)?;
            if left.tv_sec == 0 && left.tv_nsec == 0 {
                break;
            }
        }
    }
    Ok(done)
}
