//! Bytes of a TCP socket: the pair carries them as soon as there is a connection.

use std::ffi::c_int;

use ioth_node_proto::{Op, State};

use crate::Client;
use crate::calls::{self, SOCKADDR_MAX};
use crate::data::{Got, Incoming, Outgoing};
use crate::errno::{Errno, Result};
use crate::sys::pieces::{Inward, Outward, Pieces};
use crate::sys::raw;
use crate::{end, message, options};

/// sendmsg(2). TCP looks neither at the name nor at ancillary data that is none of its own.
pub(crate) fn send<const N: usize>(
    client: &Client,
    fd: c_int,
    outgoing: &Outgoing,
    flags: c_int,
) -> Result<usize> {
    if flags & libc::MSG_FASTOPEN != 0 {
        return Err(Errno::OPNOTSUPP);
    }
    let sent = match is_connected(client, fd, flags, libc::SO_SNDTIMEO) {
        Ok(true) => {
            let mut pieces = Pieces::<Outward, N>::new();
            outgoing.data.add(&mut pieces)?;
            // Urgent data is data like other; the pair would make something else of the flag.
            let flags = flags & !libc::MSG_OOB | libc::MSG_NOSIGNAL;
            raw::send(fd, &[], &mut pieces, None, flags)
        }
        Ok(false) => Err(Errno::PIPE),
        Err(errno) => Err(errno),
    };
    match sent {
        Err(Errno::PIPE) => Err(broken_pipe(client, fd, flags)),
        sent => sent,
    }
}

/// Nothing can be sent any more: the error that is why, once, without a signal; else the writer's signal, unless it asked for
/// none.
pub(crate) fn broken_pipe(client: &Client, fd: c_int, flags: c_int) -> Errno {
    if let Err(errno) = message::check_error(client, fd) {
        return errno;
    }
    if flags & libc::MSG_NOSIGNAL == 0 {
        raw::raise_sigpipe();
    }
    Errno::PIPE
}

/// Nothing comes any more: fails once if an error is why. The node has taken its end away then, which it has not where the peer
/// has but sent its last byte: that costs no request.
pub(crate) fn check_end(client: &Client, fd: c_int) -> Result<()> {
    match raw::poll(fd, 0, Some(0))? {
        0 => Ok(()),
        _ => message::check_error(client, fd),
    }
}

/// Whether there is, or was, a connection. One that is being made is waited for, unless the descriptor or the flags say
/// otherwise; its error, and any other that is pending, is the call's.
fn is_connected(client: &Client, fd: c_int, flags: c_int, timeout: c_int) -> Result<bool> {
    let state = end::state(fd);
    if state == State::Connected {
        return Ok(true);
    }
    if state == State::Connecting {
        wait_for_room(fd, flags, timeout)?;
    }
    match options::number(client, fd, libc::SOL_SOCKET, libc::SO_ERROR)? {
        0 => {}
        errno => return Err(Errno(errno)),
    }
    if state != State::Connecting {
        return Ok(end::state(fd) == State::Connected);
    }
    // It is decided; from now on the end says how.
    let (state, connected) = match calls::address_of(client, fd, Op::PeerAddr, &mut [0; SOCKADDR_MAX]) {
        Ok(_) => (State::Connected, true),
        Err(Errno::NOTCONN) => (State::Fresh, false),
        Err(errno) => return Err(errno),
    };
    raw::set_option(fd, libc::SO_PRIORITY, state.priority())?;
    Ok(connected)
}

/// Waits until the pair is writable: the node makes it so once a connection is decided.
fn wait_for_room(fd: c_int, flags: c_int, timeout: c_int) -> Result<()> {
    let wait = match flags & libc::MSG_DONTWAIT != 0 || raw::is_nonblocking(fd)? {
        true => Some(0),
        false => raw::timeout(fd, timeout)?,
    };
    match raw::poll(fd, libc::POLLOUT, wait)? {
        0 => Err(Errno::AGAIN),
        _ => Ok(()),
    }
}

/// recvmsg(2)
pub(crate) fn receive<const N: usize>(
    client: &Client,
    fd: c_int,
    incoming: &Incoming,
    flags: c_int,
) -> Result<Got> {
    if flags & libc::MSG_ERRQUEUE != 0 {
        return Err(Errno::AGAIN);
    }
    let state = end::state(fd);
    // What comes there is connections.
    if state == State::Listening {
        return Err(Errno::NOTCONN);
    }
    if flags & libc::MSG_OOB != 0 {
        return Err(Errno::INVAL);
    }
    if state != State::Connected {
        match move_in::<N>(client, fd, incoming, flags | libc::MSG_DONTWAIT) {
            Err(Errno::AGAIN) => {}
            received => return received,
        }
        if !is_connected(client, fd, flags, libc::SO_RCVTIMEO)? {
            return Err(Errno::NOTCONN);
        }
    }
    move_in::<N>(client, fd, incoming, flags)
}

fn move_in<const N: usize>(client: &Client, fd: c_int, incoming: &Incoming, flags: c_int) -> Result<Got> {
    let mut pieces = Pieces::<Inward, N>::new();
    let len = incoming.data.add(&mut pieces)?;
    if flags & libc::MSG_TRUNC != 0 {
        return discard(fd, len, flags & !libc::MSG_TRUNC).map(|len| Got::new(len, 0));
    }
    let received = raw::receive(fd, &mut [], &mut pieces, false, flags)?;
    if received.len == 0 && len > 0 {
        check_end(client, fd)?;
    }
    Ok(Got::new(received.len, received.flags))
}

/// tcp(7): with MSG_TRUNC the bytes are thrown away and the buffer is not touched.
fn discard(fd: c_int, len: usize, flags: c_int) -> Result<usize> {
    let mut scratch = [0; 4096];
    let mut take = |len: usize, flags| {
        let mut pieces = Pieces::<Inward>::new();
        let len = len.min(scratch.len());
        pieces.own(&mut scratch[..len])?;
        raw::receive(fd, &mut [], &mut pieces, false, flags).map(|received| received.len)
    };
    if flags & libc::MSG_PEEK != 0 {
        let some = take(len, flags)?;
        let all = usize::try_from(raw::count(fd, libc::FIONREAD)?).unwrap_or(0);
        return Ok(all.max(some).min(len));
    }
    let mut gone = 0;
    while gone < len {
        // Only the first is waited for, unless all are.
        let wait = if gone == 0 || flags & libc::MSG_WAITALL != 0 { 0 } else { libc::MSG_DONTWAIT };
        match take(len - gone, flags | wait) {
            Ok(0) => break,
            Ok(some) => gone += some,
            Err(errno) if gone == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(gone)
}

/// FIONREAD: what waits in the pair, to which the node knows the rest.
pub(crate) fn unread(fd: c_int) -> Result<c_int> {
    raw::count(fd, libc::FIONREAD)
}
