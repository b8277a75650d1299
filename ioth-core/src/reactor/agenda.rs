//! What the reactor's thread has to do beside waiting for descriptors: deadlines and jobs.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use super::Alarm;

/// What the thread has to do beside waiting for descriptors.
#[derive(Default)]
pub(super) struct Agenda {
    pub(super) heap: BinaryHeap<Due>,
    pub(super) jobs: Vec<Box<dyn FnOnce() + Send>>,
    /// Jobs after the next wait.
    pub(super) next_round: Vec<Box<dyn FnOnce() + Send>>,
    pub(super) sleep: Sleep,
}

/// What the thread is doing: whoever brings something earlier has to wake it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Sleep {
    #[default]
    Awake,
    Until(Instant),
    Forever,
}

impl Agenda {
    /// Queues a deadline; whether the thread has to be woken for it.
    pub(super) fn push(&mut self, deadline: Instant, timer: &Arc<TimerInner>) -> bool {
        self.heap.push(Due { deadline, timer: Arc::downgrade(timer) });
        match self.sleep {
            Sleep::Until(until) if until <= deadline => false,
            _ => self.rouse(),
        }
    }

    /// Whether the thread is asleep, and has to be woken by the caller, who is the only one.
    pub(super) fn rouse(&mut self) -> bool {
        std::mem::replace(&mut self.sleep, Sleep::Awake) != Sleep::Awake
    }

    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Due> {
        let mut due = Vec::new();
        while self.heap.peek().is_some_and(|next| next.deadline <= now) {
            due.extend(self.heap.pop());
        }
        due
    }

    /// Called by the thread before it waits: for how long.
    pub(super) fn fall_asleep(&mut self) -> Sleep {
        // What was cleared or dropped meanwhile must not cause a wake-up.
        while self.heap.peek().is_some_and(Due::is_void) {
            self.heap.pop();
        }
        self.jobs.append(&mut self.next_round);
        self.sleep = match self.heap.peek() {
            _ if !self.jobs.is_empty() => Sleep::Awake,
            Some(due) => Sleep::Until(due.deadline),
            None => Sleep::Forever,
        };
        self.sleep
    }
}

pub(super) struct TimerInner {
    pub(super) target: Weak<dyn Alarm>,
    pub(super) state: Mutex<TimerState>,
}

pub(super) struct TimerState {
    pub(super) deadline: Option<Instant>,
    /// Deadline of the heap's entry that counts. It is never later than `deadline`; a later entry is void, and an
    /// earlier one is queued again with the deadline that holds then. So a deadline that moves away with every
    /// packet costs no heap operation.
    pub(super) queued: Option<Instant>,
}

/// An entry of the heap, the earliest on top.
pub(super) struct Due {
    pub(super) deadline: Instant,
    pub(super) timer: Weak<TimerInner>,
}

impl Due {
    /// Whether nobody waits for it any more. One that was moved away is not void: it is queued again at its time.
    fn is_void(&self) -> bool {
        let Some(timer) = self.timer.upgrade() else { return true };
        // Against the lock order, hence only where it does not wait; the price is a wake-up for nothing.
        let Some(mut state) = timer.state.try_lock() else { return false };
        if state.queued == Some(self.deadline) && state.deadline.is_none() {
            state.queued = None;
        }
        state.queued != Some(self.deadline)
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.deadline == other.deadline
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        other.deadline.cmp(&self.deadline)
    }
}
