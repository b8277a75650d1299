//! The way from an engine to its link: frames in order, sent by one thread at a time, and back-pressure.
//!
//! ```text
//!                       add, room left
//!                          ╭───╮
//!                          ▼   │  add, LIMIT reached or blocked
//!                         Open ────────────────────────────────▶ Held   (the engine's senders wait)
//!                          ▲                                       │
//!                          ╰───────────── relieve ─────────────────╯
//!                              not blocked, and down to LOW
//! ```
//! Whoever brings a held lane down to [`LOW`] is told so by [`Lane::drain`], and has to have the engine
//! [`relieve`](Lane::relieve) it. While the link takes nothing that is up to its word that it does again
//! ([`Lane::unblock`]).

use std::collections::VecDeque;

use super::sync::Mutex;

/// Frames that go to a link at once.
const BATCH: usize = if cfg!(loom) { 1 } else { 64 };
/// Frames that wait for one another at most, where sending is dear. With more of them whoever gets them would stand idle
/// meanwhile: of 4, 8 and 64 this was the best for redis with 50 clients over vde_switch, and no worse for streams.
const WORTH: usize = 8;
/// Frames in a lane from which on the engine's senders wait. It must not be more than what the engine holds back by
/// itself (`EGRESS_LIMIT`): then whoever waits in the engine waits for a held lane, and is told.
pub(crate) const LIMIT: usize = if cfg!(loom) { 2 } else { 512 };
/// Frames in a lane at which they go on.
const LOW: usize = LIMIT / 4;
/// Frames in a lane at most: answers to the network (ARP, echo replies) wait for nobody. The last ones are dropped.
const MOST: usize = 8 * LIMIT;

/// Frames on their way to a link.
#[derive(Debug)]
pub(crate) struct Lane<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    frames: VecDeque<T>,
    /// Somebody sends, and will see what is added meanwhile.
    draining: bool,
    /// The link left frames and will say when it takes more.
    blocked: bool,
    /// The engine was told to wait.
    held: bool,
    /// Frames dropped beyond [`MOST`].
    overrun: u64,
}

/// What follows from [`Lane::add`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Added {
    /// Something waits to be sent.
    pub(crate) waiting: bool,
    /// The lane became held: the engine has to be told.
    pub(crate) hold: bool,
}

/// How [`Lane::drain`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// Nothing is left for this thread.
    Done,
    /// The engine has to be asked for more, see [`Lane::relieve`]; something may wait still.
    Relieved,
    /// The budget is used up and something waits.
    More,
}

impl<T> Lane<T> {
    pub(crate) fn new() -> Self {
        let state =
            State { frames: VecDeque::new(), draining: false, blocked: false, held: false, overrun: 0 };
        Lane { state: Mutex::new(state) }
    }

    /// Adds frames behind those that wait. With the engine locked.
    pub(crate) fn add(&self, add: impl FnOnce(&mut VecDeque<T>)) -> Added {
        let mut state = self.state.lock();
        add(&mut state.frames);
        if state.frames.len() > MOST {
            state.overrun += (state.frames.len() - MOST) as u64;
            state.frames.truncate(MOST);
        }
        let full = state.blocked || state.frames.len() >= LIMIT;
        let hold = full && !state.held;
        state.held |= full;
        Added { waiting: !state.frames.is_empty(), hold }
    }

    /// Whether the engine's senders may go on that were told to wait. With the engine locked.
    pub(crate) fn relieve(&self) -> bool {
        let mut state = self.state.lock();
        let relieved = state.is_relieved();
        state.held &= !relieved;
        relieved
    }

    /// Sends what waits with `send`, which leaves what the link does not take, unless somebody else is at it. Ends
    /// after `budget` frames, by which it is reduced. Called with no lock held.
    pub(crate) fn drain(&self, budget: &mut usize, mut send: impl FnMut(&mut VecDeque<T>)) -> Drained {
        let mut state = self.state.lock();
        if state.draining || state.blocked || state.frames.is_empty() {
            return Drained::Done;
        }
        state.draining = true;
        let ends = EndOfDraining(self);
        let mut batch = VecDeque::new();
        loop {
            state.take(&mut batch);
            drop(state);
            *budget = budget.saturating_sub(batch.len());
            send(&mut batch);
            if !batch.is_empty() {
                // First say so, then try once more: so the link's word cannot come in between and be lost.
                self.state.lock().blocked = true;
                send(&mut batch);
            }
            state = self.state.lock();
            if batch.is_empty() {
                state.blocked = false;
            } else {
                batch.append(&mut state.frames);
                std::mem::swap(&mut state.frames, &mut batch);
            }
            let drained = match () {
                () if state.is_relieved() => Drained::Relieved,
                () if state.blocked || state.frames.is_empty() => Drained::Done,
                () if *budget == 0 => Drained::More,
                () => continue,
            };
            // In the same step, so that whoever adds more finds somebody at it or nobody.
            state.draining = false;
            std::mem::forget(ends);
            return drained;
        }
    }

    /// Whether as many frames wait as are worth a system call.
    pub(crate) fn has_batch(&self) -> bool {
        self.state.lock().frames.len() >= WORTH
    }

    /// The link takes frames again, or is gone and takes any.
    pub(crate) fn unblock(&self) {
        self.state.lock().blocked = false;
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().frames.is_empty()
    }
}

impl<T> State<T> {
    fn is_relieved(&self) -> bool {
        self.held && !self.blocked && self.frames.len() <= LOW
    }

    /// Fills an empty batch.
    fn take(&mut self, batch: &mut VecDeque<T>) {
        if self.frames.len() <= BATCH {
            std::mem::swap(batch, &mut self.frames);
        } else {
            batch.extend(self.frames.drain(..BATCH));
        }
    }
}

/// Lets others drain when a receiver further down panics.
struct EndOfDraining<'a, T>(&'a Lane<T>);

impl<T> Drop for EndOfDraining<'_, T> {
    fn drop(&mut self) {
        self.0.state.lock().draining = false;
    }
}
