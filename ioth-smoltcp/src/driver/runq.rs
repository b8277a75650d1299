//! The run queue of a thread: which nodes have frames to look at, one after the other and never nested.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;

use ioth_core::reactor::Reactor;

use super::Node;

/// Frames that a thread handles for others before it hands the rest to the reactor: its own call has to return.
const BUDGET: usize = 4096;

thread_local! {
    static RUNNING: Cell<bool> = const { Cell::new(false) };
    static QUEUE: RefCell<VecDeque<Arc<Node>>> = const { RefCell::new(VecDeque::new()) };
}

/// Gives a node its turns, in this thread: now, or when the outermost call comes back to its queue.
pub(crate) fn run(node: Arc<Node>) {
    QUEUE.with_borrow_mut(|queue| {
        if !queue.iter().any(|queued| Arc::ptr_eq(queued, &node)) {
            queue.push_back(node);
        }
    });
    if RUNNING.replace(true) {
        return;
    }
    let _running = Running;
    let mut spent = 0;
    while let Some(node) = QUEUE.with_borrow_mut(VecDeque::pop_front) {
        if spent >= BUDGET {
            Reactor::global().defer(Box::new(move || run(node)));
            continue;
        }
        spent += node.turn();
        if !node.inbox.is_empty() && !node.core.is_locked() {
            QUEUE.with_borrow_mut(|queue| queue.push_back(node));
        }
    }
}

/// Ends the outermost run, also by unwinding.
struct Running;

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.set(false);
    }
}
