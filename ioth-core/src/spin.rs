//! Waiting awake, for a moment.
//!
//! A wake-up across cores costs 25 us and more, a look at a flag some nanoseconds. Whoever waits looks for 10 us before it
//! sleeps, as long as there are no more spinners than cores: on an oversubscribed machine they would steal the time from
//! those they wait for. Two rules follow what came of it:
//! * When a sleep turned out to be hardly longer than a wake-up takes, the next look is that long: else two threads that
//!   answer each other would each fall asleep while the other one wakes.
//! * A node whose waiters looked in vain several times in a row sleeps at once, and tries again only now and then: the
//!   thread that it waits for may share its core.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::fork::PerProcess;

/// How long a look takes as a rule, and after a short sleep if nothing else is said.
const USUAL: Duration = Duration::from_micros(10);
const LONGEST: Duration = Duration::from_micros(100);
/// A wait that was hardly more than the way there and back through a switch takes, with another process at its end; and how long
/// a look takes after one.
const SHORT_SERVICE: Duration = Duration::from_micros(300);
const LONGEST_SERVICE: Duration = Duration::from_micros(250);
/// Looks in vain after which a node's waiters sleep at once, but for every so many-th.
const PATIENCE: usize = 8;
const RETRY: usize = 16;

/// Spinners of the process that a child was forked from are not in the child.
static SPINNING: PerProcess<AtomicUsize> = PerProcess::new();

/// How a node's waiters fared. It is a hint: threads may overwrite each other's counts.
#[derive(Debug)]
pub struct History {
    longest: Duration,
    /// Looks in vain since the last success.
    misses: AtomicUsize,
    /// Waits that were not worth a look.
    skipped: AtomicUsize,
    /// The last sleep was a short one.
    eager: AtomicBool,
}

impl Default for History {
    fn default() -> Self {
        History::new(LONGEST)
    }
}

impl History {
    /// Of waiters who look so long after a short sleep.
    pub fn new(longest: Duration) -> Self {
        History {
            longest,
            misses: AtomicUsize::new(0),
            skipped: AtomicUsize::new(0),
            eager: AtomicBool::new(false),
        }
    }

    /// How long a look is worth while; `None` not at all.
    pub fn worth(&self) -> Option<Duration> {
        let patient = self.misses.load(Ordering::Relaxed) < PATIENCE
            || self.skipped.fetch_add(1, Ordering::Relaxed).is_multiple_of(RETRY);
        let eager = self.eager.load(Ordering::Relaxed);
        patient.then_some(if eager { self.longest } else { USUAL })
    }

    /// A wait took so long altogether, most of it asleep; what is hardly more than `short` would have been worth a look.
    pub fn slept(&self, time: Duration, short: Duration) {
        self.eager.store(time <= short, Ordering::Relaxed);
    }

    /// A look has found something, or has not.
    pub fn record(&self, found: bool) {
        if found {
            self.misses.store(0, Ordering::Relaxed);
        } else {
            self.misses.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// How the waits of a thread fared that serves other processes: see [`look_or_sleep`].
#[derive(Debug)]
pub struct Service(History);

impl Default for Service {
    fn default() -> Self {
        Service(History::new(LONGEST_SERVICE))
    }
}

/// Looks for what comes, until `deadline` at most, and yields its core between two looks: whoever brings it may need it. Then sleeps.
/// `wait` does either, `came` tells whether there was something.
///
/// For a thread that has no other work than to serve other processes: each of them would sleep while the other one wakes.
pub fn look_or_sleep<T>(
    service: &Service,
    deadline: Option<Instant>,
    came: impl Fn(&T) -> bool,
    mut wait: impl FnMut(Wait) -> T,
) -> T {
    let (Service(history), begin) = (service, Instant::now());
    if let Some((time, _spinner)) = history.worth().and_then(|time| Some((time, Spinner::new()?))) {
        let until = deadline.map_or(begin + time, |deadline| deadline.min(begin + time));
        loop {
            let found = wait(Wait::Awake);
            if came(&found) {
                history.record(true);
                return found;
            }
            if Instant::now() >= until {
                break;
            }
            thread::yield_now();
        }
        history.record(false);
    }
    let slept = wait(Wait::Asleep);
    history.slept(begin.elapsed(), SHORT_SERVICE);
    slept
}

/// How to wait once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A look, without waiting.
    Awake,
    /// Until something comes.
    Asleep,
}

/// A thread of the process that spins, until this is dropped.
#[derive(Debug)]
pub struct Spinner(());

impl Spinner {
    /// `None` when as many threads spin as there are cores.
    pub fn new() -> Option<Spinner> {
        let others = spinners().fetch_add(1, Ordering::Relaxed);
        let spinner = Spinner(());
        (others < cores()).then_some(spinner)
    }

    /// How many threads of the process spin.
    pub fn count() -> usize {
        spinners().load(Ordering::Relaxed)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        spinners().fetch_sub(1, Ordering::Relaxed);
    }
}

fn spinners() -> &'static AtomicUsize {
    SPINNING.get_or_init(AtomicUsize::default)
}

fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}
