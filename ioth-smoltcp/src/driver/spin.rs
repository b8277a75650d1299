//! Waiting awake at a node of this process, whose work the waiter does meanwhile: see [`ioth_core::spin`].

use std::time::{Duration, Instant};

use ioth_core::spin::Spinner;

use super::Node;

/// A wait that was hardly more than a wake-up.
pub(crate) const SHORT_SLEEP: Duration = Duration::from_micros(150);
/// Looks between two readings of the clock.
const LOOKS: usize = 16;

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

/// A reader of a node that is awake. It counts no more when a turn panics, either: else the node's frames would lie.
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
