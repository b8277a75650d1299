//! Calls that wait: their thread moves what they wait for.
//!
//! A frame from the network would wake the reactor's thread, and what that gives the kernel the thread that waits for it. So a
//! call that would wait waits at the link as well, for as long as there is nothing to read; then it is made as it is, and all that
//! it says is the kernel's. What interrupts the wait is told as the kernel tells it.
//!
//! Where answers come soon it looks for them before it sleeps, as [`ioth_core::spin`] has it, and yields its core between two looks:
//! whoever is to answer may need it.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use ioth_core::spin::{History, Spinner};
use ioth_core::{Errno, Events, MsgFlags, RecvMsg, Result, interruption};
use ioth_vde::{Patience, Waiter};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};

use crate::calls;
use crate::socket::Carrier;

/// How often a wait looks, at most: a thread that has moved so much for others leaves them to the reactor.
const LOOKS: u32 = 32;
/// A wait that was hardly more than the way there and back through a switch takes.
const SHORT_SLEEP: Duration = Duration::from_micros(250);

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
    if is_ready(fd, READABLE) || calls::nonblocking(fd.as_fd()) != Ok(false) || !call.waits(fd.as_fd()) {
        return Ok(());
    }
    let timeout = getsockopt(fd, sockopt::ReceiveTimeout).ok();
    let timeout = timeout
        .map(|time| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000))
        .filter(|timeout| !timeout.is_zero());
    // One too long for the clock has none.
    let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    match (wait_for(fd, READABLE, until, timeout.is_some(), carrier), until) {
        (Some(outcome), _) => outcome,
        // The call itself waits; with a time-out it would begin anew.
        (None, None) => Ok(()),
        (None, Some(until)) => wait_until(fd, until),
    }
}

/// Waits until a connect(2) that has begun is over, as long as it is worth it: the call, made once more, waits for the rest.
///
/// # Errors
/// `EINTR` where the call would have been interrupted.
pub(crate) fn wait_connected(fd: &Arc<OwnedFd>, carrier: &dyn Carrier) -> Result<()> {
    wait_for(fd, Events::OUT | Events::HUP | Events::ERR, None, false, carrier).unwrap_or(Ok(()))
}

/// `None` where another thread is at it, or has to be.
fn wait_for(
    fd: &Arc<OwnedFd>,
    interest: Events,
    until: Option<Instant>,
    timed: bool,
    carrier: &dyn Carrier,
) -> Option<Result<()>> {
    let (begin, history) = (Instant::now(), carrier.history());
    let awake = history.worth().and_then(|time| Some((Spinner::new()?, begin + time)));
    let mut wait =
        Wait { fd: fd.clone(), interest, history, begin, awake, until, timed, looks: 0, outcome: None };
    carrier.attend(&mut wait);
    wait.outcome
}

struct Wait<'a> {
    fd: Arc<OwnedFd>,
    /// What it waits for.
    interest: Events,
    history: &'a History,
    begin: Instant,
    /// Until when it looks; a thread that sleeps is no spinner.
    awake: Option<(Spinner, Instant)>,
    until: Option<Instant>,
    timed: bool,
    looks: u32,
    outcome: Option<Result<()>>,
}

impl Waiter for Wait<'_> {
    fn patience(&mut self, _: &Waker) -> Option<Patience> {
        self.looks += 1;
        if self.outcome.is_some() || self.looks > LOOKS {
            return None;
        }
        if is_ready(&self.fd, self.interest) {
            match self.awake {
                Some(_) => self.history.record(true),
                None => self.history.slept(self.begin.elapsed(), SHORT_SLEEP),
            }
            self.outcome = Some(Ok(()));
            return None;
        }
        let now = Instant::now();
        if self.until.is_some_and(|until| until <= now) {
            self.outcome = Some(Err(Errno::EAGAIN));
            return None;
        }
        if self.awake.take_if(|(_, until)| *until <= now).is_some() {
            self.history.record(false);
        }
        Some(match &self.awake {
            Some((_, until)) => {
                Patience { awake: true, until: Some(self.until.map_or(*until, |end| end.min(*until))) }
            }
            None => Patience { awake: false, until: self.until },
        })
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

/// What a call that receives or accepts does not wait for.
const READABLE: Events = Events::IN.union(Events::RDHUP).union(Events::HUP).union(Events::ERR);

fn is_ready(fd: &OwnedFd, interest: Events) -> bool {
    calls::events(fd.as_fd()).intersects(interest)
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
