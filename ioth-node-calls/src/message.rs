//! Messages of all other sockets: datagrams, packets, netlink.

use std::ffi::c_int;

use ioth_node_proto::{ADDR_MAX, EndName, Head, HeadKind, Op, REQUEST_ROOM, Request, State};

use crate::Client;
use crate::calls;
use crate::control::{self, Question};
use crate::data::{Got, Incoming, MESSAGE_MAX, Outgoing};
use crate::errno::{Errno, Result};
use crate::sys::pieces::{Inward, Outward, Pieces};
use crate::sys::raw;
use crate::table::Destination;
use crate::{ancillary, end, options};

/// Flags with which a message can go through the pair: what they ask for, the pair does.
const PAIR_FLAGS: c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | libc::MSG_CONFIRM;
/// More ancillary data than all options together bring.
const CONTROL_MAX: usize = 1024;

/// sendmsg(2)
pub(crate) fn send<const N: usize>(
    client: &Client,
    fd: c_int,
    name: &EndName,
    outgoing: &Outgoing,
    flags: c_int,
) -> Result<usize> {
    let mut pieces = Pieces::<Outward, N>::new();
    let len = outgoing.data.add(&mut pieces)?;
    let fits = (1..=MESSAGE_MAX).contains(&len) && outgoing.control_len == 0 && flags & !PAIR_FLAGS == 0;
    let fits = fits && is_judged_by_destination(name);
    let addr_len = outgoing.addr_len as usize;
    let mut destination = None;
    match end::state(fd) {
        State::Connected if fits && addr_len == 0 => {
            match raw::send(fd, &[], &mut pieces, None, flags | libc::MSG_NOSIGNAL) {
                Err(Errno::MSGSIZE) => {}
                sent => return sent,
            }
        }
        State::Fresh if fits && (1..=ADDR_MAX).contains(&addr_len) => {
            let mut addr = [0; ADDR_MAX];
            outgoing.addr.read_bytes(&mut addr[..addr_len])?;
            let there = Destination::new(name, &addr[..addr_len]);
            if there.is_known() {
                let head = Head::new(HeadKind::Message, &addr[..addr_len]).emit();
                match raw::send(fd, &head, &mut pieces, None, flags | libc::MSG_NOSIGNAL) {
                    Err(Errno::MSGSIZE) => {}
                    sent => return sent.map(|sent| sent.saturating_sub(Head::LEN)),
                }
            }
            destination = Some(there);
        }
        _ => {}
    }
    let sent = request::<N>(client, fd, outgoing, len, flags);
    match (destination, &sent) {
        (Some(there), Ok(_)) => there.learn(),
        (Some(there), Err(_)) => there.forget(),
        (None, _) => {}
    }
    sent
}

/// Whether nothing in a message itself makes it fail: else each goes by a request, whose answer is the call's.
fn is_judged_by_destination(name: &EndName) -> bool {
    c_int::from(name.domain) == libc::AF_NETLINK
        || [libc::IPPROTO_UDP, libc::IPPROTO_UDPLITE].contains(&name.protocol.into())
}

/// Sends by way of the node, which says what came of it.
fn request<const N: usize>(
    client: &Client,
    fd: c_int,
    outgoing: &Outgoing,
    len: usize,
    flags: c_int,
) -> Result<usize> {
    let addr_len = outgoing.addr_len as usize;
    let parts = [Request::LEN, addr_len, outgoing.control_len, len];
    if parts.iter().fold(0usize, |sum, part| sum.saturating_add(*part)) > REQUEST_ROOM {
        return Err(Errno::MSGSIZE);
    }
    let mut pieces = Pieces::<Outward, N>::new();
    pieces.user(outgoing.addr, addr_len)?;
    pieces.user(outgoing.control, outgoing.control_len)?;
    outgoing.data.add(&mut pieces)?;
    let args = [flags, addr_len as i32, outgoing.control_len as i32, 0];
    let nonblocking = flags & libc::MSG_DONTWAIT != 0 || raw::is_nonblocking(fd)?;
    let timeout = if nonblocking { None } else { raw::timeout(fd, libc::SO_SNDTIMEO)? };
    let question = Question { nonblocking, timeout, ..Question::about(fd, Op::Send, args) };
    let answer = control::ask_with(client, &question, &mut pieces, &mut Pieces::<Inward>::new())?;
    Ok(answer.reply.result as usize)
}

/// recvmsg(2)
pub(crate) fn receive<const N: usize>(
    client: &Client,
    fd: c_int,
    incoming: &Incoming,
    flags: c_int,
) -> Result<Got> {
    if flags & libc::MSG_ERRQUEUE != 0 {
        return kept_error::<N>(client, fd, incoming, flags);
    }
    // Datagram sockets do not look at MSG_OOB; the whole length is always of interest.
    let pair_flags = flags & (libc::MSG_DONTWAIT | libc::MSG_PEEK) | libc::MSG_TRUNC;
    match end::state(fd) {
        State::Connected => bare::<N>(client, fd, incoming, flags, pair_flags),
        _ => headed::<N>(fd, incoming, flags, pair_flags),
    }
}

/// A message of a connected socket.
fn bare<const N: usize>(
    client: &Client,
    fd: c_int,
    incoming: &Incoming,
    flags: c_int,
    pair_flags: c_int,
) -> Result<Got> {
    let mut pieces = Pieces::<Inward, N>::new();
    let room = incoming.data.add(&mut pieces)?;
    let received = raw::receive(fd, &mut [], &mut pieces, false, pair_flags)?;
    if received.len == 0 {
        check_error(client, fd)?;
        check_node(fd)?;
    }
    let mut got = got(received.len, room, flags);
    if incoming.wants_name {
        // Whom it is connected to is the only one it hears.
        got.name_len = calls::address_of(client, fd, Op::PeerAddr, &mut got.name).unwrap_or(0);
    }
    Ok(got)
}

/// Fails with the socket's pending error, which an empty message may stand for.
pub(crate) fn check_error(client: &Client, fd: c_int) -> Result<()> {
    match options::number(client, fd, libc::SOL_SOCKET, libc::SO_ERROR) {
        // A node that has gone has no errors; what it sent before is still there.
        Ok(0) | Err(_) => Ok(()),
        Ok(errno) => Err(Errno(errno)),
    }
}

/// Fails where a socket of messages has come to its end by itself: the node has gone.
pub(crate) fn check_node(fd: c_int) -> Result<()> {
    match raw::poll(fd, 0, Some(0))? & libc::POLLHUP {
        0 => Ok(()),
        _ => Err(Errno::NETDOWN),
    }
}

/// What the node keeps for MSG_ERRQUEUE: the beginning of a packet, and what was said about it.
fn kept_error<const N: usize>(client: &Client, fd: c_int, incoming: &Incoming, flags: c_int) -> Result<Got> {
    let mut head = [0; Head::LEN];
    let mut spare = [0; CONTROL_MAX];
    let mut pieces = Pieces::<Inward, N>::new();
    pieces.own(&mut head)?;
    let room = incoming.data.add(&mut pieces)?;
    pieces.own(&mut spare)?;
    let question = Question::about(fd, Op::Errors, [0; 4]);
    let answer = control::ask_with(client, &question, &mut Pieces::<Outward>::new(), &mut pieces)?;
    let mut head = [0; Head::LEN];
    pieces.copy_out(0, &mut head);
    let parsed = Head::parse(&head[..answer.len.min(Head::LEN)]).ok_or(Errno::AGAIN)?;
    let body = answer.len - Head::LEN;
    finish(&mut pieces, &parsed, Head::LEN, body, room, incoming, flags)
}

/// Parts what lies from `at` on into ancillary data and data, `body` bytes in all, of which the data has its place there.
fn finish<const N: usize>(
    pieces: &mut Pieces<'_, Inward, N>,
    head: &Head,
    at: usize,
    body: usize,
    room: usize,
    incoming: &Incoming,
    flags: c_int,
) -> Result<Got> {
    let control_len = (head.control_len as usize).min(body);
    let mut got = got(body - control_len, room, flags);
    got.flags |= head.flags as c_int;
    got.name[..head.addr().len()].copy_from_slice(head.addr());
    got.name_len = head.addr().len();
    if control_len > 0 {
        let mut control = [0; CONTROL_MAX];
        let copied = control_len.min(CONTROL_MAX);
        let copied = pieces.copy_out(at, &mut control[..copied]);
        pieces.shift(at + control_len, at, (body - control_len).min(room));
        let (used, lost) = ancillary::cut(&mut control[..copied], incoming.control_room);
        incoming.control.write_bytes(&control[..used])?;
        got.control_len = used;
        if lost || copied < control_len {
            got.flags |= libc::MSG_CTRUNC;
        }
    }
    Ok(got)
}

/// What the call says of a message of `len` bytes.
fn got(len: usize, room: usize, flags: c_int) -> Got {
    let cut = if len > room { libc::MSG_TRUNC } else { 0 };
    Got::new(if flags & libc::MSG_TRUNC != 0 { len } else { len.min(room) }, cut)
}

/// A message behind a head, and perhaps ancillary data.
fn headed<const N: usize>(fd: c_int, incoming: &Incoming, flags: c_int, pair_flags: c_int) -> Result<Got> {
    let mut head = [0; Head::LEN];
    // How much ancillary data there is, the head says only when everything has been received. So it is received as data,
    // with as much room more, and taken out afterwards.
    let mut spare = [0; CONTROL_MAX];
    let mut pieces = Pieces::<Inward, N>::new();
    let room = incoming.data.add(&mut pieces)?;
    pieces.own(&mut spare)?;
    let received = raw::receive(fd, &mut head, &mut pieces, false, pair_flags)?;
    if received.len == 0 {
        check_node(fd)?;
        return Ok(Got::new(0, 0));
    }
    let Some(parsed) = head.get(..received.len.min(Head::LEN)).and_then(Head::parse) else {
        // The socket was connected meanwhile: all of it is data.
        let beginning = received.len.min(Head::LEN);
        let rest = (received.len - beginning).min(pieces.len().saturating_sub(Head::LEN));
        pieces.shift(0, beginning, rest);
        pieces.copy_in(&head[..beginning]);
        return Ok(got(received.len, room, flags));
    };
    match parsed.kind {
        HeadKind::Message => {}
        HeadKind::Error(errno) => {
            if pair_flags & libc::MSG_PEEK != 0 {
                // An error is told once, also to those who only look.
                let once = libc::MSG_DONTWAIT;
                let _ = raw::receive(fd, &mut head, &mut Pieces::<Inward>::new(), false, once);
            }
            return Err(Errno(errno));
        }
        HeadKind::Connection => return Err(Errno::OPNOTSUPP),
    }
    finish(&mut pieces, &parsed, 0, received.len - Head::LEN, room, incoming, flags)
}

/// FIONREAD: the length of the next message, 0 for none.
pub(crate) fn unread(fd: c_int) -> Result<c_int> {
    let mut head = [0; Head::LEN];
    let flags = libc::MSG_DONTWAIT | libc::MSG_PEEK | libc::MSG_TRUNC;
    let len = match raw::receive(fd, &mut head, &mut Pieces::<Inward>::new(), false, flags) {
        Ok(received) => received.len,
        Err(Errno::AGAIN) => return Ok(0),
        Err(errno) => return Err(errno),
    };
    let around = match (end::state(fd), head.get(..len.min(Head::LEN)).and_then(Head::parse)) {
        (State::Connected, _) | (_, None) => 0,
        (_, Some(head)) => Head::LEN + head.control_len as usize,
    };
    Ok(len.saturating_sub(around) as c_int)
}
