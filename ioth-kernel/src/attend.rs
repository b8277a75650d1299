//! Calls that wait: their thread moves what they wait for.
//!
//! A frame from the network would wake the reactor's thread, and what that gives the kernel the thread that waits for it. So a
//! call that would wait waits at the link as well, for as long as there is nothing to read; then it is made as it is, and all that
//! it says is the kernel's. What interrupts the wait is told as the kernel tells it.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use ioth_core::{Errno, Events, MsgFlags, RecvMsg, Result, interruption};
use ioth_vde::{Patience, Waiter};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};

use crate::calls;
use crate::socket::Carrier;

/// How often a wait looks, at most: a thread that has moved so much for others leaves them to the reactor.
const LOOKS: u32 = 32;

/// Flags of recv(2) with which it waits as it does without.
pub(crate) const WAITING: MsgFlags =
    MsgFlags::PEEK.union(MsgFlags::TRUNC).union(MsgFlags::WAITALL).union(MsgFlags::NOSIGNAL);

/// What is going to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Accept,
    Receive,
}

impl Call {
    /// Whether it would wait, on a socket that has nothing to read, rather than say what is wrong with it.
    fn waits(self, fd: BorrowedFd<'_>) -> bool {
        match self {
            Call::Accept => getsockopt(&fd, sockopt::AcceptConn) == Ok(true),
            Call::Receive => {
                let mut byte = [0];
                let mut data = [IoSliceMut::new(&mut byte)];
                let flags = MsgFlags::PEEK | MsgFlags::DONTWAIT;
                calls::recv(fd, &mut RecvMsg::new(&mut data), flags) == Err(Errno::EAGAIN)
            }
        }
    }
}

/// Waits until the socket has something to read or to tell, as a call on it that blocks would; returns at once for one that does not block.
///
/// # Errors
/// `EAGAIN` after the socket's SO_RCVTIMEO, `EINTR` where the call would have been interrupted.
pub(crate) fn wait(fd: &Arc<OwnedFd>, call: Call, carrier: &dyn Carrier) -> Result<()> {
    if is_ready(fd) || calls::nonblocking(fd.as_fd()) != Ok(false) || !call.waits(fd.as_fd()) {
        return Ok(());
    }
    let timeout = getsockopt(fd, sockopt::ReceiveTimeout).ok();
    let timeout = timeout
        .map(|time| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000))
        .filter(|timeout| !timeout.is_zero());
    // One too long for the clock has none.
    let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut wait = Wait { fd: fd.clone(), until, timed: timeout.is_some(), looks: 0, outcome: None };
    carrier.attend(&mut wait);
    match (wait.outcome, until) {
        (Some(outcome), _) => outcome,
        // The call itself waits; with a time-out it would begin anew.
        (None, None) => Ok(()),
        (None, Some(until)) => wait_until(fd, until),
    }
}

struct Wait {
    fd: Arc<OwnedFd>,
    until: Option<Instant>,
    timed: bool,
    looks: u32,
    outcome: Option<Result<()>>,
}

impl Waiter for Wait {
    fn patience(&mut self, _: &Waker) -> Option<Patience> {
        self.looks += 1;
        if self.outcome.is_some() || self.looks > LOOKS {
            return None;
        }
        if is_ready(&self.fd) {
            self.outcome = Some(Ok(()));
        } else if self.until.is_some_and(|until| until <= Instant::now()) {
            self.outcome = Some(Err(Errno::EAGAIN));
        }
        match self.outcome {
            Some(_) => None,
            None => Some(Patience { awake: false, until: self.until }),
        }
    }

    fn descriptor(&self) -> Option<Arc<OwnedFd>> {
        Some(self.fd.clone())
    }

    fn interrupted(&mut self) {
        // signal(7): a call with a time-out is not begun again, others are where the handler says so. Which one that was is not
        // told: one that does not say so counts.
        if self.timed || !interruption::handlers_restart() {
            self.outcome = Some(Err(Errno::EINTR));
        }
    }
}

fn is_ready(fd: &OwnedFd) -> bool {
    calls::events(fd.as_fd()).intersects(Events::IN | Events::RDHUP | Events::HUP | Events::ERR)
}

/// The rest of a time-out.
fn wait_until(fd: &OwnedFd, until: Instant) -> Result<()> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) if left.is_zero() => return Err(Errno::EAGAIN),
            Ok(0) => (),
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
}
