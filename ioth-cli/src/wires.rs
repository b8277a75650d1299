//! What goes through a network's plug, and waits for whoever takes it.

use std::collections::VecDeque;
use std::sync::mpsc::Sender;
use std::time::SystemTime;

use ioth::vde::{Batch, Frame, Link, LinkError, Receiver};
use parking_lot::{Condvar, Mutex};

/// Frames that wait at most; what comes then is lost, and counted.
const QUEUE: usize = 4096;

/// Why the work ends.
#[derive(Debug)]
pub(crate) enum End {
    /// It was asked to, or its input or output ended.
    Done,
    /// It cannot go on.
    Failed(String),
}

/// Keeps a link's frames for a thread that takes them, and tells another when it may send.
#[derive(Debug)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
    ends: Mutex<Sender<End>>,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<(SystemTime, Frame)>,
    lost: u64,
    writable: bool,
    closed: bool,
}

impl Inbox {
    pub(crate) fn new(ends: Sender<End>) -> Self {
        Inbox { state: Mutex::default(), changed: Condvar::new(), ends: Mutex::new(ends) }
    }

    /// Waits for frames; `None` when there will not be any more.
    pub(crate) fn take(&self) -> Option<VecDeque<(SystemTime, Frame)>> {
        let mut state = self.state.lock();
        while state.frames.is_empty() {
            if state.closed {
                return None;
            }
            self.changed.wait(&mut state);
        }
        Some(std::mem::take(&mut state.frames))
    }

    /// Waits until the link has room; false when it has ended.
    pub(crate) fn wait_for_room(&self) -> bool {
        let mut state = self.state.lock();
        while !state.writable && !state.closed {
            self.changed.wait(&mut state);
        }
        state.writable = false;
        !state.closed
    }

    /// Wakes those who wait: there will be nothing more.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    /// Frames that found no room.
    pub(crate) fn lost(&self) -> u64 {
        self.state.lock().lost
    }
}

/// Says on standard error which frames a network did not take or bring, by name, if there are any.
pub(crate) fn tell_losses(network: &str, link: &dyn Link, inbox: &Inbox) {
    let lost: Vec<_> = link
        .counters()
        .losses()
        .into_iter()
        .chain([("too slow a taker", inbox.lost())])
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if !lost.is_empty() {
        eprintln!("ioth: {network:?}: frames lost: {}", lost.join(", "));
    }
}

impl Receiver for Inbox {
    fn receive(&self, frames: &mut Batch) {
        let now = SystemTime::now();
        let mut state = self.state.lock();
        for frame in frames.drain(..) {
            if state.frames.len() < QUEUE {
                state.frames.push_back((now, frame));
            } else {
                state.lost += 1;
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    fn writable(&self) {
        self.state.lock().writable = true;
        self.changed.notify_all();
    }

    fn down(&self, cause: LinkError) {
        // Nobody hears it who has ended already.
        let _ = self.ends.lock().send(End::Failed(cause.to_string()));
        self.close();
    }
}
