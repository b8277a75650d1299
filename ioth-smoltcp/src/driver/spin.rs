//! Waiting awake, for a moment.
//!
//! A wake-up across cores costs 25 us, a look at a flag some nanoseconds. Whoever waits looks for 10 us before it sleeps,
//! as long as there are no more spinners than cores: on an oversubscribed machine they would steal the time from
//! those they wait for.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::time::{Duration, Instant};

use super::{Node, runq};

const LONGEST: Duration = Duration::from_micros(10);
/// Looks between two readings of the clock and offers of the core to others.
const LOOKS: usize = 32;

static SPINNING: AtomicUsize = AtomicUsize::new(0);

/// Looks until `done`, doing the node's work meanwhile. False when it has to sleep.
pub(crate) fn until(done: impl Fn() -> bool, node: &Node) -> bool {
    if done() {
        return true;
    }
    let _spinner = Spinner;
    if SPINNING.fetch_add(1, Ordering::Relaxed) >= cores() {
        return done();
    }
    node.spinners.fetch_add(1, Ordering::SeqCst);
    let end = Instant::now() + LONGEST;
    let found = 'spin: loop {
        for _ in 0..LOOKS {
            if !node.inbox.is_empty() {
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
    node.spinners.fetch_sub(1, Ordering::SeqCst);
    fence(Ordering::SeqCst);
    // Whoever brought frames meanwhile relied on this thread.
    if !node.inbox.is_empty()
        && let Some(node) = node.me.upgrade()
    {
        runq::run(node);
    }
    found || done()
}

struct Spinner;

impl Drop for Spinner {
    fn drop(&mut self) {
        SPINNING.fetch_sub(1, Ordering::Relaxed);
    }
}

fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}
