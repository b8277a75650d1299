//! A lock with an inbox: what arrives while the lock is taken is looked at by whoever gives it back.
//!
//! ```text
//!   bringer                          holder                       spinner
//!   push                             unlock                       says that it spins no longer
//!   ── fence ──                      ── fence ──                  ── fence ──
//!   is somebody spinning?            anything in the inbox?       anything in the inbox?
//!   is the lock free?
//! ```
//! Of two threads with a fence between their steps at least one sees what the other did before its fence. So the
//! bringer finds the lock free, or its holder finds what was brought; the same with the spinner.
//! [`models`](super::models) tries all orders.

use std::collections::VecDeque;

use super::sync::{AtomicUsize, Mutex, MutexGuard, Ordering, fence};

/// `C` under a lock, and `T`s that arrived for it, in order.
#[derive(Debug)]
pub(crate) struct Desk<C, T> {
    core: Mutex<C>,
    queue: Mutex<VecDeque<T>>,
    /// The queue's length, to be looked at without its lock.
    len: AtomicUsize,
    /// Threads that are awake and look into the inbox themselves.
    spinners: AtomicUsize,
}

/// What a bringer has to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Brought {
    /// How much is in the inbox now.
    pub(crate) waiting: usize,
    /// Somebody awake will look at it: the bringer need not.
    pub(crate) watched: bool,
}

impl<C, T> Desk<C, T> {
    pub(crate) fn new(core: C) -> Self {
        Desk {
            core: Mutex::new(core),
            queue: Mutex::new(VecDeque::new()),
            len: AtomicUsize::new(0),
            spinners: AtomicUsize::new(0),
        }
    }

    /// Puts something into the inbox. Who does has to [`try_lock`](Self::try_lock) afterwards, unless it is watched.
    pub(crate) fn bring(&self, items: impl Iterator<Item = T>) -> Brought {
        let mut queue = self.queue.lock();
        queue.extend(items);
        let waiting = queue.len();
        self.len.store(waiting, Ordering::Release);
        drop(queue);
        fence(Ordering::SeqCst);
        Brought { waiting, watched: self.spinners.load(Ordering::Relaxed) > 0 }
    }

    /// Who gives this lock back has to [`look`](Self::look) afterwards.
    pub(crate) fn lock(&self) -> MutexGuard<'_, C> {
        self.core.lock()
    }

    /// The same if it is free: if not, its holder will look.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, C>> {
        self.core.try_lock()
    }

    pub(crate) fn is_locked(&self) -> bool {
        self.core.is_locked()
    }

    /// After the lock was given back: whether something is in the inbox that nobody else may know of.
    pub(crate) fn look(&self) -> bool {
        fence(Ordering::SeqCst);
        !self.is_empty()
    }

    /// From now on this thread watches the inbox.
    pub(crate) fn watch(&self) {
        self.spinners.fetch_add(1, Ordering::Relaxed);
    }

    /// It watches no longer: whether something is in the inbox that was left to it.
    pub(crate) fn unwatch(&self) -> bool {
        self.spinners.fetch_sub(1, Ordering::Relaxed);
        self.look()
    }

    /// Hands over up to `limit` things from the inbox, without holding it meanwhile: how many. With the lock held, so
    /// that order is kept.
    pub(crate) fn take(&self, limit: usize, mut f: impl FnMut(T)) -> usize {
        if self.is_empty() {
            return 0;
        }
        let mut taken = 0;
        while taken < limit {
            let mut queue = self.queue.lock();
            let chunk: VecDeque<_> = if queue.len() <= limit - taken {
                std::mem::take(&mut *queue)
            } else {
                queue.drain(..limit - taken).collect()
            };
            self.len.store(queue.len(), Ordering::Release);
            drop(queue);
            if chunk.is_empty() {
                break;
            }
            taken += chunk.len();
            chunk.into_iter().for_each(&mut f);
        }
        taken
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
