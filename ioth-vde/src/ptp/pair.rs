//! The newer form: a SOCK_SEQPACKET connection.
//!
//! The first one listens at the path. It answers a caller with one byte: 0 when the cable is free, else the number
//! of an error (`EISCONN`), and hangs up.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ioth_core::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Backlog, MsgFlags, SockType, UnixAddr, listen, recv, send};
use parking_lot::Mutex;

use super::{ATTEMPTS, Failure, Name, Options, bury, call, inode, make};
use crate::datagram::{self, frame_max};
use crate::tally::Tally;
use crate::wire::{Descriptor, Halt, Wire};
use crate::{Batch, Properties, sys};

/// How long the first one has for its answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Callers that are turned away in one go.
const CALLERS: usize = 16;

/// One end of a cable.
#[derive(Debug)]
pub(super) struct Cable {
    options: Options,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// We were the first: where others find us.
    door: Option<Door>,
    /// The other end.
    peer: Option<Peer>,
    /// Why the cable cannot be plugged in again.
    ended: Option<String>,
}

#[derive(Debug)]
struct Door {
    listener: Arc<OwnedFd>,
    _name: Name,
}

#[derive(Clone, Debug)]
struct Peer {
    fd: Arc<OwnedFd>,
    /// It has answered, or we have.
    ready: bool,
}

/// What is found at the path.
enum Found {
    /// Somebody listens.
    Peer(OwnedFd),
    /// Nobody: the path is ours.
    Door(Door),
}

impl Cable {
    /// Plugs in at the path, as the second one or else as the first.
    ///
    /// Fails with `EPROTOTYPE` where the path is of the older form.
    pub(super) fn plug(options: Options) -> Result<Self, Failure> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = State { door: None, peer: None, ended: None };
        loop {
            match find(&options)? {
                Found::Door(door) => state.door = Some(door),
                Found::Peer(fd) => match wait_for_answer(&fd, deadline)? {
                    Some(0) => state.peer = Some(Peer { fd: Arc::new(fd), ready: true }),
                    Some(number) => {
                        let what = "asking for the cable's other end (two programs have it)".to_owned();
                        return Err((what, Errno::from_raw(i32::from(number))));
                    }
                    // It has just gone.
                    None if Instant::now() < deadline => continue,
                    None => return Err(("waiting 2 s for an answer".to_owned(), Errno::ETIMEDOUT)),
                },
            }
            return Ok(Cable { options, state: Mutex::new(state) });
        }
    }

    /// The other end has gone: a first one waits for the next, a second one looks who is there now.
    fn lost(&self) -> Result<bool, Halt> {
        let mut state = self.state.lock();
        state.peer = None;
        if state.door.is_some() {
            return Err(Halt::Changed);
        }
        match find(&self.options) {
            Ok(Found::Door(door)) => state.door = Some(door),
            Ok(Found::Peer(fd)) => state.peer = Some(Peer { fd: Arc::new(fd), ready: false }),
            Err((what, errno)) => {
                state.ended = Some(format!("{what}: {errno}"));
                return Err(Halt::Gone);
            }
        }
        Err(Halt::Changed)
    }

    /// Lets one caller in, turns the others away.
    fn answer(&self, listener: &OwnedFd) -> Result<bool, Halt> {
        for _ in 0..CALLERS {
            let caller = match sys::accept(listener.as_fd()) {
                Ok(caller) => caller,
                Err(Errno::EINTR | Errno::ECONNABORTED) => continue,
                // For want of descriptors it stays in the queue; the queue has room for one.
                Err(_) => return Err(Halt::Wait),
            };
            let mut state = self.state.lock();
            let free = state.peer.is_none();
            let answer = if free { 0 } else { Errno::EISCONN as i32 as u8 };
            let told =
                send(caller.as_raw_fd(), &[answer], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL).is_ok();
            if free && told {
                state.peer = Some(Peer { fd: Arc::new(caller), ready: true });
                return Err(Halt::Changed);
            }
        }
        Ok(true)
    }

    /// The answer to a call that was made when the first one had gone.
    fn hear(&self, fd: &OwnedFd) -> Result<bool, Halt> {
        let mut answer = [0; 2];
        match recv(fd.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT) {
            Ok(1) if answer[0] == 0 => {
                if let Some(peer) = &mut self.state.lock().peer {
                    peer.ready = true;
                }
                Ok(true)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Err(Halt::Wait),
            Ok(0) | Err(_) => self.lost(),
            Ok(_) => {
                let errno = Errno::from_raw(i32::from(answer[0]));
                self.state.lock().ended = Some(format!("another program took the cable's end: {errno}"));
                Err(Halt::Gone)
            }
        }
    }
}

impl Wire for Cable {
    fn properties(&self) -> Properties {
        self.options.properties
    }

    fn descriptors(&self) -> Vec<Descriptor> {
        let state = self.state.lock();
        let peer = state.peer.iter().map(|peer| Descriptor { fd: peer.fd.clone(), sends: true });
        let door = state.door.iter().map(|door| Descriptor { fd: door.listener.clone(), sends: false });
        peer.chain(door).collect()
    }

    fn send(&self, frames: &mut Batch, tally: &Tally) -> Result<(), Halt> {
        let peer = self.state.lock().peer.clone();
        match peer {
            Some(peer) if peer.ready => {
                // That it is gone is noticed by reading, where its last frames are.
                datagram::send(peer.fd.as_fd(), None::<&UnixAddr>, frames, tally, |errno| {
                    matches!(errno, Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN)
                })
            }
            _ => {
                while !frames.is_empty() {
                    tally.unreachable(frames);
                }
                Ok(())
            }
        }
    }

    fn receive(&self, which: usize, room: usize, batch: &mut Batch, tally: &Tally) -> Result<bool, Halt> {
        let (peer, listener) = {
            let state = self.state.lock();
            (state.peer.clone(), state.door.as_ref().map(|door| door.listener.clone()))
        };
        // The peer comes first in the list; what was registered may be an older list.
        match (peer, listener) {
            (Some(peer), _) if which == 0 && !peer.ready => self.hear(&peer.fd),
            (Some(peer), _) if which == 0 => {
                let frame_max = frame_max(&self.options.properties);
                match datagram::receive(peer.fd.as_fd(), frame_max, room, batch, tally) {
                    Ok(received) if received.empty > 0 => self.lost(),
                    Ok(received) => Ok(received.more),
                    Err(Errno::EAGAIN) => Err(Halt::Wait),
                    Err(_) => self.lost(),
                }
            }
            (_, Some(listener)) => self.answer(&listener),
            _ => Err(Halt::Wait),
        }
    }

    fn epitaph(&self) -> Option<String> {
        self.state.lock().ended.clone()
    }

    fn close(&self) {
        let mut state = self.state.lock();
        // First, so that the other end does not find us again.
        state.door = None;
        if let Some(peer) = state.peer.take() {
            // Another thread may still hold the descriptor: the end is told all the same.
            let _ = nix::sys::socket::shutdown(peer.fd.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        }
    }
}

/// Calls at the path, or takes it. Does not wait.
fn find(options: &Options) -> Result<Found, Failure> {
    let path = &options.path;
    let failed = |what: &str, errno| (format!("{what} {}", path.display()), errno);
    for _ in 0..ATTEMPTS {
        let fd = make(SockType::SeqPacket)?;
        let there = inode(path);
        match call(&fd, path) {
            Ok(()) => return Ok(Found::Peer(fd)),
            Err(Errno::ENOENT) => (),
            Err(Errno::ECONNREFUSED) => bury(path, there)?,
            // Its queue, of one, is full: it is being called, and has no end free for us.
            Err(Errno::EAGAIN) => return Err(failed("calling at", Errno::EISCONN)),
            Err(errno) => return Err(failed("calling at", errno)),
        }
        let named =
            Name::give(&fd, path, options.mode, || listen(&fd, Backlog::new(1).unwrap_or(Backlog::MAXCONN)));
        match named {
            Ok(name) => return Ok(Found::Door(Door { listener: Arc::new(fd), _name: name })),
            // Somebody was quicker, and listens already.
            Err(Errno::EADDRINUSE) => (),
            Err(errno) => return Err(failed("making the socket", errno)),
        }
    }
    Err(failed("others come and go too fast at", Errno::EAGAIN))
}

/// The first one's byte; `None` when it has hung up.
fn wait_for_answer(fd: &OwnedFd, deadline: Instant) -> Result<Option<u8>, Failure> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => return Err(("waiting 2 s for the first one's answer".to_owned(), Errno::ETIMEDOUT)),
            Ok(_) => (),
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(("waiting for an answer".to_owned(), errno)),
        }
        let mut answer = [0; 2];
        return match recv(fd.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT) {
            Ok(1) => Ok(Some(answer[0])),
            Ok(0) | Err(Errno::ECONNRESET) => Ok(None),
            Ok(_) => Err(("reading the answer (one byte was expected)".to_owned(), Errno::EPROTO)),
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            Err(errno) => Err(("reading the answer".to_owned(), errno)),
        };
    }
}
