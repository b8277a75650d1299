//! Waiting at the link.
//!
//! What a blocked thread waits for mostly comes over the link. Where the link can be waited at
//! ([`Link::attend`](ioth_vde::Link::attend)), one such thread does that itself, and delivers what comes: else the reactor's
//! thread would be woken for the frame, and this one after that, at 25 us each where they are on different cores. All else
//! that it waits for (a deadline of the engine, a call of another thread) wakes it by its waker.
//!
//! That is for answers. Frames that come closer together than a wake-up takes are a stream: it is read by the reactor's
//! thread on one core while this one works at what it has got on another.
//!
//! Where answers come soon the thread looks for them before it sleeps, as [`ioth_core::spin`] has it, and yields its core between two
//! looks: whoever is to answer may need it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use ioth_core::spin::{self, Spinner};
use ioth_core::{Errno, Events, Readiness, Result, interruption};
use ioth_vde::{Patience, Waiter};

use super::Node;
use super::port::Port;

/// What a wake-up takes, where it is dear.
const WAKE_UP: Duration = Duration::from_micros(25);
/// A wait that was hardly more than the way there and back through a switch takes.
const SHORT_SLEEP: Duration = Duration::from_micros(250);
/// A stream pauses, too: so many looks without it are its end.
const CALM: u64 = 8;

/// How a node's waits went. It is a hint: threads may overwrite each other's counts.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Frames that had come at the last look, and the node's age then.
    frames: AtomicU64,
    micros: AtomicU64,
    /// Looks in a row without a stream.
    calm: AtomicU64,
    spin: spin::History,
}

impl History {
    /// Whether a stream comes, now that the link has delivered so many frames.
    fn is_stream(&self, frames: u64, age: Duration) -> bool {
        let micros = age.as_micros() as u64;
        let came = frames.saturating_sub(self.frames.swap(frames, Ordering::Relaxed));
        let passed = micros.saturating_sub(self.micros.swap(micros, Ordering::Relaxed));
        if u128::from(came) * WAKE_UP.as_micros() > u128::from(passed) {
            self.calm.store(0, Ordering::Relaxed);
        }
        self.calm.fetch_add(1, Ordering::Relaxed) < CALM
    }
}

/// Waits at the node's link until one of `interest`, `ERR` or `HUP` holds: false after the deadline. `None` where there is
/// no such link, it is not worth it, or another thread waits there: then nothing is known. `EINTR` where a signal ends it.
pub(super) fn wait(
    node: &Node,
    readiness: &Readiness,
    interest: Events,
    deadline: Option<Instant>,
) -> Option<Result<bool>> {
    let ports = node.ports();
    let [port] = &ports[..] else { return None };
    // The link does that with its descriptors; within the process there are none.
    if port.is_trusted() || !interest.contains(Events::IN) {
        return None;
    }
    let begin = Instant::now();
    let awake = node.attend_history.spin.worth().and_then(|time| Some((Spinner::new()?, begin + time)));
    let mut wait = Wait {
        node,
        port,
        readiness,
        interest,
        deadline,
        begin,
        awake,
        registered: None,
        interrupted: false,
        outcome: None,
    };
    port.attend(&mut wait);
    wait.outcome
}

struct Wait<'a> {
    node: &'a Node,
    port: &'a Port,
    readiness: &'a Readiness,
    interest: Events,
    deadline: Option<Instant>,
    begin: Instant,
    /// Until when it looks; a thread that sleeps is no spinner.
    awake: Option<(Spinner, Instant)>,
    /// What the socket has to wake it by.
    registered: Option<Waker>,
    /// A signal has ended it.
    interrupted: bool,
    outcome: Option<Result<bool>>,
}

impl Waiter for Wait<'_> {
    fn patience(&mut self, waker: &Waker) -> Option<Patience> {
        let history = &self.node.attend_history;
        if self.readiness.poll_ready(self.interest, waker).is_ready() {
            match self.awake {
                Some(_) => history.spin.record(true),
                None => history.spin.slept(self.begin.elapsed(), SHORT_SLEEP),
            }
            self.registered = None;
            self.outcome = Some(Ok(true));
            return None;
        }
        if self.registered.is_none() {
            self.registered = Some(waker.clone());
        }
        if self.interrupted {
            self.outcome = Some(Err(Errno::EINTR));
            return None;
        }
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.outcome = Some(Ok(false));
            return None;
        }
        if history.is_stream(self.port.frames_received(), self.node.start.elapsed()) {
            return None;
        }
        if self.awake.take_if(|(_, until)| *until <= now).is_some() {
            history.spin.record(false);
        }
        Some(match &self.awake {
            Some((_, until)) => {
                let until = self.deadline.map_or(*until, |deadline| deadline.min(*until));
                Patience { awake: true, until: Some(until) }
            }
            None => Patience { awake: false, until: self.deadline },
        })
    }

    /// As it would be for one who sleeps elsewhere: [`Readiness::wait_interruptibly`].
    fn interrupted(&mut self) {
        self.interrupted = self.deadline.is_some() || !interruption::handlers_restart();
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(waker) = &self.registered {
            self.readiness.forget(waker);
        }
    }
}
