//! Waiting awake, for a moment.
//!
//! A wake-up across cores costs 25 us, a look at a flag some nanoseconds. Whoever waits looks for 10 us before it sleeps,
//! as long as there are no more spinners than cores: on an oversubscribed machine they would steal the time from
//! those they wait for.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::Node;

const LONGEST: Duration = Duration::from_micros(10);
/// Looks between two readings of the clock and offers of the core to others.
const LOOKS: usize = 32;

static SPINNING: AtomicUsize = AtomicUsize::new(0);

/// Looks until `done`, doing the node's work meanwhile. False when it has to sleep.
pub(crate) fn until(done: impl Fn() -> bool, node: &Node) -> bool {
    if done() {
        return true;
    }
    let Some(_spinner) = Spinner::new() else { return done() };
    let watching = Watching::new(node);
    let end = Instant::now() + LONGEST;
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
        // The scheduler may have put the thread that is waited for on this core.
        std::thread::yield_now();
    };
    drop(watching);
    found || done()
}

/// A thread of the process that spins. Both guards count also when a turn panics: a spinner that is counted and not
/// there would have a node's frames lie.
struct Spinner;

impl Spinner {
    fn new() -> Option<Spinner> {
        let others = SPINNING.fetch_add(1, Ordering::Relaxed);
        let spinner = Spinner;
        (others < cores()).then_some(spinner)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        SPINNING.fetch_sub(1, Ordering::Relaxed);
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

fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

#[cfg(all(test, not(loom)))]
pub(crate) fn spinning() -> usize {
    SPINNING.load(Ordering::Relaxed)
}
