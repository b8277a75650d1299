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
    let mut node = Some(node);
    let queued = QUEUE.try_with(|queue| {
        let mut queue = queue.borrow_mut();
        if let Some(node) = node.take_if(|node| !queue.iter().any(|queued| Arc::ptr_eq(queued, node))) {
            queue.push_back(node);
        }
    });
    if queued.is_err() {
        // A thread that is ending has no queue any more.
        return node.into_iter().for_each(run_later);
    }
    drop(node);
    if RUNNING.replace(true) {
        return;
    }
    let _running = Running;
    let mut spent = 0;
    while let Some(node) = next() {
        if spent >= BUDGET {
            run_later(node);
            continue;
        }
        spent += node.turn();
        // A holder of the lock will look by itself.
        if !node.desk.is_empty() && !node.desk.is_locked() {
            QUEUE.with_borrow_mut(|queue| queue.push_back(node));
        }
    }
}

/// Gives a node its turns in the reactor's thread.
pub(crate) fn run_later(node: Arc<Node>) {
    match Reactor::try_global() {
        Ok(reactor) => reactor.defer(Box::new(move || run(node))),
        // Without a thread to be had the work has to be done here.
        Err(_) => while node.turn() > 0 {},
    }
}

fn next() -> Option<Arc<Node>> {
    QUEUE.with_borrow_mut(VecDeque::pop_front)
}

/// Ends the outermost run, also by unwinding.
struct Running;

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.set(false);
        // Only a panic leaves something: it is another node's, which must not suffer for it.
        std::iter::from_fn(next).for_each(run_later);
    }
}
