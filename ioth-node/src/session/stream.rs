//! Streams: connecting, and the bytes of a connection.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use ioth::{Errno, Events, MsgFlags, RecvMsg, SendMsg, Shutdown, SockAddr, Socket};
use ioth_node_proto::State;

use super::{Cause, Role, Side, Turn};
use crate::control::Conversation;
use crate::node::with_scratch;
use crate::pair;

/// Bytes that are read from a socket at once: what the pair does not take has to be kept.
const PIECE: usize = 64 << 10;

/// A stream between connect(2) and its outcome.
#[derive(Debug, Default)]
pub(super) struct Connecting {
    /// Bytes in the pair that the node put there, so that the user's end is not writable.
    filled: usize,
    waiter: Option<Waiter>,
}

/// Whom to answer.
#[derive(Debug)]
struct Waiter {
    conversation: Arc<Conversation>,
    user: OwnedFd,
    addr: SockAddr,
}

impl Connecting {
    /// What the program wrote before is of no connection.
    pub(super) fn begin(end: BorrowedFd<'_>) -> Self {
        with_scratch(|buffer| while pair::receive(end, buffer).is_ok_and(|len| len > 0) {});
        Connecting::default()
    }

    /// Nobody waits: poll(2) shall tell.
    pub(super) fn go_on_alone(&mut self, user: BorrowedFd<'_>) {
        self.filled += pair::fill(user);
        let _ = pair::set_state(user, State::Connecting);
    }

    pub(super) fn wait(&mut self, conversation: Arc<Conversation>, user: OwnedFd, addr: SockAddr) {
        self.waiter = Some(Waiter { conversation, user, addr });
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.waiter.is_some()
    }

    pub(super) fn deserted(&mut self, conversation: &Conversation) {
        if self.waiter.as_ref().is_some_and(|waiter| std::ptr::eq(&*waiter.conversation, conversation))
            && let Some(Waiter { user, .. }) = self.waiter.take()
            && self.filled == 0
        {
            self.go_on_alone(user.as_fd());
        }
    }

    /// Takes out what was filled in, which makes the user's end writable, and nothing that the program wrote since.
    pub(super) fn drain(&mut self, end: BorrowedFd<'_>) {
        with_scratch(|buffer| {
            while self.filled > 0 {
                let room = self.filled.min(buffer.len());
                match pair::receive(end, &mut buffer[..room]) {
                    Ok(len) if len > 0 => self.filled -= len,
                    _ => break,
                }
            }
        });
    }

    /// What the stream has become, once that is decided.
    pub(super) fn turn(&mut self, socket: &dyn Socket, end: BorrowedFd<'_>) -> Option<Role> {
        let events = socket.events();
        let failed = events.intersects(Events::ERR | Events::HUP);
        if !failed && !events.contains(Events::OUT) {
            return None;
        }
        self.drain(end);
        if let Some(Waiter { conversation, user, addr }) = self.waiter.take() {
            // Asked again, connect(2) tells how it went, and may then be used for another attempt.
            let result = socket.connect(&addr);
            let _ = pair::set_state(user.as_fd(), if failed { State::Fresh } else { State::Connected });
            conversation.answer(result.map(|()| 0));
        }
        Some(if failed { Role::Idle } else { Role::Stream(Stream::default()) })
    }
}

/// Linux gives up what an orphan has to send after fewer attempts than other connections' (tcp(7): tcp_orphan_retries);
/// here it would keep the node.
fn bound_patience(socket: &dyn Socket) {
    const MILLISECONDS: i32 = 60_000;
    let mut now = [0; 4];
    let (level, name) = (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT);
    let set = socket.option(level, name, &mut now).map(|_| i32::from_ne_bytes(now));
    if !matches!(set, Ok(1..MILLISECONDS)) {
        let _ = socket.set_option(level, name, &MILLISECONDS.to_ne_bytes());
    }
}

/// Takes the pending error, as SO_ERROR.
fn take_error(socket: &dyn Socket) -> Option<Errno> {
    let mut value = [0; 4];
    socket.option(libc::SOL_SOCKET, libc::SO_ERROR, &mut value).ok()?;
    let error = i32::from_ne_bytes(value);
    (error != 0).then(|| Errno::from_raw(error))
}

/// A connection.
#[derive(Debug, Default)]
pub(super) struct Stream {
    up: Up,
    down: Down,
    /// The program has closed its last descriptor before all that it wrote was with the stack.
    orphaned: bool,
}

/// From the program to the stack.
#[derive(Debug, Default)]
struct Up {
    /// Read from the pair, not yet taken by the stack; from `sent` on.
    kept: Vec<u8>,
    sent: usize,
    /// Something came at some time.
    any: bool,
    over: bool,
    /// What it found nothing at, or no room.
    waits: Option<Side>,
}

/// From the stack to the program.
#[derive(Debug, Default)]
struct Down {
    kept: Vec<u8>,
    sent: usize,
    /// Something went at some time.
    any: bool,
    over: bool,
    /// What it found nothing at, or no room.
    waits: Option<Side>,
    /// Nobody reads any more: what comes is acknowledged and thrown away, as after SHUT_RD.
    deaf: bool,
}

/// What one attempt to move a piece came to.
enum Moved {
    Some,
    /// A piece, and there was no more of it.
    All,
    /// The pair has nothing, or no room.
    EndWaits,
    /// The socket has nothing, or no room.
    SocketWaits,
    Over,
    Broken(Errno),
    /// The program closed its last descriptor with data unread.
    Abandoned,
}

impl Stream {
    /// Moves a piece each way.
    pub(super) fn turn(
        &mut self,
        socket: &dyn Socket,
        end: &OwnedFd,
        hung: bool,
        cause: Cause,
        error: &mut Option<Errno>,
    ) -> Turn {
        if self.up.over {
            if hung {
                return self.closed();
            }
        } else if hung || cause.concerns(self.up.waits) {
            // Of what comes after a hang-up nobody tells.
            self.up.waits = None;
            match self.up.step(socket, end.as_fd()) {
                Moved::Some => {}
                Moved::All if hung => {}
                Moved::All | Moved::EndWaits => self.up.waits = Some(Side::End),
                Moved::SocketWaits => {
                    if hung && !std::mem::replace(&mut self.orphaned, true) {
                        bound_patience(socket);
                    }
                    self.up.waits = Some(Side::Socket);
                }
                Moved::Abandoned => return Turn::Over { reset: true },
                Moved::Over if hung || pair::is_hung_up(end) => return self.closed(),
                Moved::Over => {
                    self.up.over = true;
                    let _ = socket.shutdown(Shutdown::Write);
                }
                Moved::Broken(why) => {
                    self.up.over = true;
                    *error = error.or(Some(why)).filter(|&error| error != Errno::EPIPE);
                    // Where nobody reads any more, nothing comes after this.
                    if self.down.over || hung {
                        return Turn::Over { reset: false };
                    }
                }
            }
        }
        // After a close, what is unread stays so, and makes the stack reset the connection.
        if !self.down.over && !hung && cause.concerns(self.down.waits) {
            self.down.waits = None;
            match self.down.step(socket, end.as_fd()) {
                Moved::Some => {}
                Moved::EndWaits => self.down.waits = Some(Side::End),
                Moved::All | Moved::SocketWaits => self.down.waits = Some(Side::Socket),
                Moved::Over => {
                    self.down.over = true;
                    pair::end_of_data(end.as_fd());
                }
                Moved::Broken(why) => {
                    *error = error.or(Some(why));
                    // The program finds the end of the data, or ECONNRESET if there is something that it wrote.
                    return Turn::Over { reset: false };
                }
                Moved::Abandoned => return Turn::Over { reset: true },
            }
        }
        let down_over = self.down.over || hung;
        if (!self.up.over && self.up.waits.is_none()) || (!down_over && self.down.waits.is_none()) {
            return Turn::Again;
        }
        // With nothing to read any more, a reset shows in the bits alone.
        let listens = self.down.over && !self.up.over;
        if listens && socket.events().intersects(Events::ERR | Events::HUP) {
            *error = error.or(take_error(socket));
            return Turn::Over { reset: false };
        }
        let mut wait = (Events::empty(), Events::empty());
        match self.up.waits {
            _ if self.up.over => {}
            Some(Side::End) => wait.0 |= Events::IN,
            _ => wait.1 |= Events::OUT,
        }
        match self.down.waits {
            _ if down_over => {}
            Some(Side::End) => wait.0 |= Events::OUT,
            _ => wait.1 |= Events::IN,
        }
        Turn::Wait { end: wait.0, socket: (listens || !wait.1.is_empty()).then_some(wait.1) }
    }

    /// Whether no byte has gone through the pair.
    pub(super) fn is_untouched(&self) -> bool {
        !self.up.any && !self.down.any
    }

    /// The program has closed its last descriptor, and all that it wrote is with the stack.
    fn closed(&self) -> Turn {
        // RFC 2525 §2.17: data that was acknowledged and is never read is a reason to reset. What the stack holds
        // itself, it knows.
        Turn::Over { reset: self.down.sent < self.down.kept.len() }
    }
}

impl Up {
    fn step(&mut self, socket: &dyn Socket, end: BorrowedFd<'_>) -> Moved {
        if self.sent < self.kept.len() {
            return match send(socket, &self.kept[self.sent..]) {
                Ok(len) => {
                    self.sent += len;
                    if self.sent == self.kept.len() {
                        (self.kept, self.sent) = (Vec::new(), 0);
                    }
                    Moved::Some
                }
                Err(Errno::EAGAIN) => Moved::SocketWaits,
                Err(error) => Moved::Broken(error),
            };
        }
        with_scratch(|buffer| {
            let len = match pair::receive(end, buffer) {
                Ok(0) => return Moved::Over,
                Ok(len) => len,
                Err(Errno::EAGAIN) => return Moved::EndWaits,
                Err(_) => return Moved::Abandoned,
            };
            self.any = true;
            let sent = match send(socket, &buffer[..len]) {
                Ok(sent) => sent,
                Err(Errno::EAGAIN) => 0,
                Err(error) => return Moved::Broken(error),
            };
            if sent < len {
                self.kept = buffer[sent..len].to_vec();
                return Moved::Some;
            }
            // Were there more, it would be told.
            if len < buffer.len() { Moved::All } else { Moved::Some }
        })
    }
}

impl Down {
    fn step(&mut self, socket: &dyn Socket, end: BorrowedFd<'_>) -> Moved {
        if self.sent < self.kept.len() {
            return match pair::put(end, &[&self.kept[self.sent..]]) {
                Ok(len) => {
                    self.sent += len;
                    if self.sent == self.kept.len() {
                        (self.kept, self.sent) = (Vec::new(), 0);
                    }
                    Moved::Some
                }
                Err(Errno::EAGAIN) => Moved::EndWaits,
                Err(Errno::ECONNRESET) => Moved::Abandoned,
                Err(_) => {
                    (self.kept, self.sent, self.deaf) = (Vec::new(), 0, true);
                    Moved::Some
                }
            };
        }
        with_scratch(|buffer| {
            let buffer = &mut buffer[..PIECE];
            let len = match receive(socket, buffer) {
                Ok(0) => return Moved::Over,
                Ok(len) => len,
                Err(Errno::EAGAIN) => return Moved::SocketWaits,
                Err(error) => return Moved::Broken(error),
            };
            if self.deaf {
                return Moved::Some;
            }
            let sent = match pair::put(end, &[&buffer[..len]]) {
                Ok(sent) => {
                    self.any = true;
                    sent
                }
                Err(Errno::EAGAIN) => 0,
                Err(Errno::ECONNRESET) => return Moved::Abandoned,
                Err(_) => {
                    // Whether it was closed, which is a reset, or shut down for reading, the other direction finds out.
                    self.deaf = true;
                    self.kept = buffer[..len].to_vec();
                    return Moved::EndWaits;
                }
            };
            if sent < len {
                self.kept = buffer[sent..len].to_vec();
                return Moved::Some;
            }
            if len < buffer.len() { Moved::All } else { Moved::Some }
        })
    }
}

fn send(socket: &dyn Socket, data: &[u8]) -> Result<usize, Errno> {
    socket.send(&SendMsg::new(&[std::io::IoSlice::new(data)]), MsgFlags::DONTWAIT | MsgFlags::NOSIGNAL)
}

fn receive(socket: &dyn Socket, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut slices = [std::io::IoSliceMut::new(buffer)];
    socket.recv(&mut RecvMsg::new(&mut slices), MsgFlags::DONTWAIT)
}
