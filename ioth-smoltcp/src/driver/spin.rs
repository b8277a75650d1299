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
use std::time::{Duration, Instant};

use ioth_core::fork::PerProcess;

use super::Node;

/// How long a look takes as a rule, and after a short sleep.
const USUAL: Duration = Duration::from_micros(10);
const LONGEST: Duration = Duration::from_micros(100);
/// A wait that was hardly more than a wake-up.
pub(crate) const SHORT_SLEEP: Duration = Duration::from_micros(150);
/// Looks between two readings of the clock.
const LOOKS: usize = 16;
/// Looks in vain after which a node's waiters sleep at once, but for every so many-th.
const PATIENCE: usize = 8;
const RETRY: usize = 16;

/// Spinners of the process that a child was forked from are not in the child.
static SPINNING: PerProcess<AtomicUsize> = PerProcess::new();

/// Looks until `done`, doing the node's work meanwhile. False when it has to sleep.
pub(crate) fn until(done: impl Fn() -> bool, node: &Node) -> bool {
    if done() {
        return true;
    }
    let Some(longest) = node.spin_history.worth() else { return done() };
    let Some(_spinner) = Spinner::new() else { return done() };
    let watching = Watching::new(node);
    let end = Instant::now() + longest;
    let found = 'spin: loop {
        for _ in 0..LOOKS {
            if !node.desk.is_empty() {
                node.turn();
            }
            if done() {
                break 'spin true;
            }
            std::hint::spin_loop();
        }
        if Instant::now() >= end {
            break false;
        }
    };
    drop(watching);
    node.spin_history.record(found);
    found || done()
}

/// How a node's waiters fared. It is a hint: threads may overwrite each other's counts.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Looks in vain since the last success.
    misses: AtomicUsize,
    /// Waits that were not worth a look.
    skipped: AtomicUsize,
    /// The last sleep was a short one.
    eager: AtomicBool,
}

impl History {
    /// How long a look is worth while; `None` not at all.
    pub(crate) fn worth(&self) -> Option<Duration> {
        let patient = self.misses.load(Ordering::Relaxed) < PATIENCE
            || self.skipped.fetch_add(1, Ordering::Relaxed).is_multiple_of(RETRY);
        let eager = self.eager.load(Ordering::Relaxed);
        patient.then_some(if eager { LONGEST } else { USUAL })
    }

    /// A wait took so long altogether, most of it asleep; what is hardly more than `short` would have been worth a look.
    pub(crate) fn slept(&self, time: Duration, short: Duration) {
        self.eager.store(time <= short, Ordering::Relaxed);
    }

    /// A look has found something, or has not.
    pub(crate) fn record(&self, found: bool) {
        if found {
            self.misses.store(0, Ordering::Relaxed);
        } else {
            self.misses.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A thread of the process that spins. Both guards count also when a turn panics: a spinner that is counted and not
/// there would have a node's frames lie.
pub(crate) struct Spinner;

impl Spinner {
    pub(crate) fn new() -> Option<Spinner> {
        let others = spinners().fetch_add(1, Ordering::Relaxed);
        let spinner = Spinner;
        (others < cores()).then_some(spinner)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        spinners().fetch_sub(1, Ordering::Relaxed);
    }
}

/// A reader of a node that is awake.
struct Watching<'a>(&'a Node);

impl<'a> Watching<'a> {
    fn new(node: &'a Node) -> Self {
        node.desk.watch();
        Watching(node)
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        // Whoever brought frames meanwhile relied on this thread.
        if self.0.desk.unwatch() {
            self.0.run();
        }
    }
}

fn spinners() -> &'static AtomicUsize {
    SPINNING.get_or_init(AtomicUsize::default)
}

fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

#[cfg(all(test, not(loom)))]
pub(crate) fn spinning() -> usize {
    spinners().load(Ordering::Relaxed)
}
