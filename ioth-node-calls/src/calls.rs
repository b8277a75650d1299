//! The calls that make sockets, name them and connect them.

use std::ffi::{c_int, c_long};

use ioth_node_proto::{EndName, Head, HeadKind, Op, State, reply_flags};

use crate::Client;
use crate::control::{self, Question};
use crate::end;
use crate::errno::{Errno, Result};
use crate::sys::memory::User;
use crate::sys::pieces::{Inward, Outward, Pieces};
use crate::sys::raw::{self, Fd, call, number};
use crate::{message, options};

/// Bytes of `struct sockaddr_storage`: no address is longer.
pub const SOCKADDR_MAX: usize = size_of::<libc::sockaddr_storage>();

/// The flags that socket(2) and accept4(2) take.
const FLAGS: c_int = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;

/// Bits of socket(2)'s type that are not flags.
const TYPE_MASK: c_int = 0xf;

/// socket(2)
pub fn socket(client: &Client, domain: c_int, kind: c_int, protocol: c_int) -> Result<c_int> {
    if client.place().is_none() || !is_of_node(domain, protocol) {
        let made = call(libc::SYS_socket, [number(domain), number(kind), number(protocol), 0, 0, 0])?;
        return Ok(made as c_int);
    }
    let flags = kind & !TYPE_MASK;
    if flags & !FLAGS != 0 {
        return Err(Errno::INVAL);
    }
    // The request had the lowest number that was free, which is the socket's.
    let socket = raw::lowest(open(client, domain, kind & TYPE_MASK, protocol)?)?;
    raw::hand_out(socket, flags & libc::SOCK_NONBLOCK != 0, flags & libc::SOCK_CLOEXEC != 0)
}

/// A socket of the node, of any kind that the node has: blocking, and closed by exec. The type is without flags.
///
/// # Errors
/// As socket(2); `ENETDOWN` when the node has gone.
pub fn open(client: &Client, domain: c_int, kind: c_int, protocol: c_int) -> Result<Fd> {
    let answer = control::ask(client, &Question::general(Op::Socket, [domain, kind, protocol, 0]))?;
    answer.fd.ok_or(Errno::MFILE)
}

/// Whether such sockets are a node's; all others are the host's, which has no network to offer by them.
fn is_of_node(domain: c_int, protocol: c_int) -> bool {
    match domain {
        libc::AF_INET | libc::AF_INET6 | libc::AF_PACKET => true,
        libc::AF_NETLINK => [libc::NETLINK_ROUTE, libc::NETLINK_SOCK_DIAG].contains(&protocol),
        _ => false,
    }
}

/// bind(2)
pub fn bind(client: &Client, fd: c_int, addr: User<u8>, len: u32) -> Result<c_int> {
    if end::of(fd).is_none() {
        return pass(libc::SYS_bind, fd, addr, len);
    }
    let mut payload = address(addr, len)?;
    let answer = control::ask_with(
        client,
        &Question::about(fd, Op::Bind, [0; 4]),
        &mut payload,
        &mut Pieces::<Inward>::new(),
    )?;
    Ok(answer.reply.result)
}

/// listen(2)
pub fn listen(client: &Client, fd: c_int, backlog: c_int) -> Result<c_int> {
    if end::of(fd).is_none() {
        return Ok(call(libc::SYS_listen, [number(fd), number(backlog), 0, 0, 0, 0])? as c_int);
    }
    control::ask(client, &Question::about(fd, Op::Listen, [backlog, 0, 0, 0]))?;
    Ok(0)
}

/// connect(2)
pub fn connect(client: &Client, fd: c_int, addr: User<u8>, len: u32) -> Result<c_int> {
    let Some(name) = end::of(fd) else {
        return pass(libc::SYS_connect, fd, addr, len);
    };
    let mut payload = address(addr, len)?;
    let nonblocking = raw::is_nonblocking(fd)?;
    let question = Question {
        nonblocking,
        interruptible: true,
        timeout: if nonblocking { None } else { raw::timeout(fd, libc::SO_SNDTIMEO)? },
        ..Question::about(fd, Op::Connect, [0; 4])
    };
    match control::ask_with(client, &question, &mut payload, &mut Pieces::<Inward>::new()) {
        Ok(_) => Ok(0),
        Err(errno @ (Errno::INTR | Errno::AGAIN)) if name.is_stream() => {
            // It goes on by itself: from now on the node has to be asked how far it is.
            let _ = raw::set_option(fd, libc::SO_PRIORITY, State::Connecting.priority());
            Err(if errno == Errno::AGAIN { Errno(libc::EINPROGRESS) } else { errno })
        }
        Err(errno) => Err(errno),
    }
}

/// accept4(2)
pub fn accept4(client: &Client, fd: c_int, addr: User<u8>, len: User<u32>, flags: c_int) -> Result<c_int> {
    let Some(name) = end::of(fd) else {
        let (addr, len) = (addr.pointer() as usize, len.pointer() as usize);
        return Ok(call(libc::SYS_accept4, [number(fd), addr, len, number(flags), 0, 0])? as c_int);
    };
    if flags & !FLAGS != 0 {
        return Err(Errno::INVAL);
    }
    check_listening(client, fd, &name)?;
    loop {
        // The kernel looks for a free descriptor before it looks for a connection. One that comes and finds none is lost.
        drop(raw::reserve(fd)?);
        let mut head = [0; Head::LEN];
        match raw::receive(fd, &mut head, &mut Pieces::<Inward>::new(), true, libc::MSG_DONTWAIT) {
            Ok(received) => {
                // No bytes: the node has taken the listener away, as after shutdown(2).
                let head = match received.len {
                    0 => {
                        message::check_node(fd)?;
                        return Err(Errno::INVAL);
                    }
                    len => Head::parse(&head[..len.min(Head::LEN)]).ok_or(Errno(libc::ECONNABORTED))?,
                };
                if let HeadKind::Error(errno) = head.kind {
                    return Err(Errno(errno));
                }
                let socket = received.fd.ok_or(match received.flags & libc::MSG_CTRUNC {
                    0 => Errno(libc::ECONNABORTED),
                    _ => Errno::MFILE,
                })?;
                if !addr.is_null() {
                    write_address(addr, len, head.addr())?;
                }
                return raw::hand_out(
                    socket,
                    flags & libc::SOCK_NONBLOCK != 0,
                    flags & libc::SOCK_CLOEXEC != 0,
                );
            }
            Err(Errno::AGAIN) => {
                // Waits as long as the descriptor says, and leaves the connection to whoever is first.
                let _reserved = raw::reserve(fd)?;
                let waited = raw::receive(fd, &mut [0], &mut Pieces::<Inward>::new(), false, libc::MSG_PEEK)?;
                if waited.len == 0 {
                    message::check_node(fd)?;
                    return Err(Errno::INVAL);
                }
            }
            Err(errno) => return Err(errno),
        }
    }
}

/// Fails as accept(2) of a socket that does not listen.
fn check_listening(client: &Client, fd: c_int, name: &EndName) -> Result<()> {
    if !name.is_stream() {
        return Err(Errno::OPNOTSUPP);
    }
    match end::state(fd) == State::Listening
        || options::number(client, fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN)? != 0
    {
        true => Ok(()),
        false => Err(Errno::INVAL),
    }
}

/// getsockname(2)
pub fn getsockname(client: &Client, fd: c_int, addr: User<u8>, len: User<u32>) -> Result<c_int> {
    name_of(client, libc::SYS_getsockname, Op::LocalAddr, fd, addr, len)
}

/// getpeername(2)
pub fn getpeername(client: &Client, fd: c_int, addr: User<u8>, len: User<u32>) -> Result<c_int> {
    name_of(client, libc::SYS_getpeername, Op::PeerAddr, fd, addr, len)
}

fn name_of(
    client: &Client,
    which: c_long,
    op: Op,
    fd: c_int,
    addr: User<u8>,
    len: User<u32>,
) -> Result<c_int> {
    if end::of(fd).is_none() {
        let (addr, len) = (addr.pointer() as usize, len.pointer() as usize);
        return Ok(call(which, [number(fd), addr, len, 0, 0, 0])? as c_int);
    }
    let mut name = [0; SOCKADDR_MAX];
    let name_len = address_of(client, fd, op, &mut name)?;
    write_address(addr, len, &name[..name_len])?;
    Ok(0)
}

/// The address that the node says, for [`Op::LocalAddr`] or [`Op::PeerAddr`]; how long it is.
///
/// # Errors
/// As getsockname(2) or getpeername(2); `ENETDOWN` when the node has gone.
pub fn address_of(client: &Client, fd: c_int, op: Op, name: &mut [u8; SOCKADDR_MAX]) -> Result<usize> {
    let mut room = Pieces::<Inward>::new();
    room.own(name)?;
    let answer = control::ask_with(
        client,
        &Question::about(fd, op, [0; 4]),
        &mut Pieces::<Outward>::new(),
        &mut room,
    )?;
    Ok(answer.len.min(SOCKADDR_MAX))
}

/// shutdown(2)
pub fn shutdown(client: &Client, fd: c_int, how: c_int) -> Result<c_int> {
    let native = match end::of(fd) {
        None => true,
        Some(name) if name.is_stream() && end::state(fd) == State::Connected => true,
        Some(_) => {
            let answer = control::ask(client, &Question::about(fd, Op::Shutdown, [how, 0, 0, 0]))?;
            answer.reply.flags & reply_flags::NATIVE != 0
        }
    };
    if native {
        raw::shutdown(fd, how)?;
    }
    Ok(0)
}

/// The address that goes to the node, which the kernel reads where it is.
pub fn address(addr: User<u8>, len: u32) -> Result<Pieces<'static, Outward>> {
    match len as usize {
        len if len > SOCKADDR_MAX => Err(Errno::INVAL),
        len => control::payload(addr, len),
    }
}

/// Gives the program an address: as much as it has room for, and the whole length.
pub(crate) fn write_address(addr: User<u8>, len: User<u32>, name: &[u8]) -> Result<()> {
    let room = usize::try_from(len.cast::<c_int>().read()?).map_err(|_| Errno::INVAL)?;
    addr.write_bytes(&name[..name.len().min(room)])?;
    len.write(name.len() as u32)
}

fn pass(which: c_long, fd: c_int, addr: User<u8>, len: u32) -> Result<c_int> {
    Ok(call(which, [number(fd), addr.pointer() as usize, len as usize, 0, 0, 0])? as c_int)
}
