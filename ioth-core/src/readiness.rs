//! Readiness: what poll(2) says of a socket, and who is told when it changes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::task::{Poll, Waker};
use std::time::Instant;

use bitflags::bitflags;

use crate::signal::SignalFd;
use crate::{Errno, Result};
use park::{Parked, Parker};
use sync::{AtomicU64, Mutex, Ordering};

mod park;
mod sync;

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;

bitflags! {
    /// The bits of poll(2), with Linux's values.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Events: u32 {
        /// `POLLIN`: a read would not wait.
        const IN = libc::POLLIN as u32;
        /// `POLLPRI`: urgent data.
        const PRI = libc::POLLPRI as u32;
        /// `POLLOUT`: a write would not wait.
        const OUT = libc::POLLOUT as u32;
        /// `POLLERR`: an error is pending.
        const ERR = libc::POLLERR as u32;
        /// `POLLHUP`: both directions are over.
        const HUP = libc::POLLHUP as u32;
        /// `POLLRDHUP`: the peer writes no more.
        const RDHUP = libc::POLLRDHUP as u32;
    }
}

/// The readiness of one socket: poll(2)'s bits, and whoever waits for them.
///
/// The stack calls [`set`](Self::set) with its lock held and, where that says so, [`notify`](Self::notify) after
/// unlocking. Waiters are parked threads ([`wait`](Self::wait)), tasks ([`poll_ready`](Self::poll_ready)) and one
/// signal fd ([`make_signal_fd`](Self::make_signal_fd)).
///
/// A call that was made with the signal fd's number ends with [`settle`](Self::settle), which does what only
/// the user's end of the pair can do. It comes after `set` and `notify`, with no lock held, before the call returns:
///
/// ```text
///   lock stack; run the engine; told = readiness.set(bits); unlock;
///   if told { readiness.notify() }
///   readiness.settle(fd)          (calls by descriptor only)
/// ```
///
/// Three rules for what is set, because the signal fd cannot take everything back:
/// * `RDHUP`, and `HUP` and `ERR` together with it, are for good. `HUP` without `RDHUP`, which is how Linux polls a
///   fresh stream socket, is not shown.
/// * `ERR` without `RDHUP` is an error that the next call takes away (a datagram socket's); the signal fd shows `IN`.
/// * `IN` goes with `RDHUP`, `HUP` and `ERR`, as on Linux: a read does not wait then.
#[derive(Debug)]
pub struct Readiness {
    /// See [`Word`].
    word: AtomicU64,
    /// Lock order: taken with no lock of a stack held; nothing is called with it held.
    waiters: Mutex<Waiters>,
    signal: OnceLock<SignalFd>,
}

impl Readiness {
    /// The readiness of a new socket.
    pub fn new(initial: Events) -> Self {
        Readiness {
            word: AtomicU64::new(Word::default().with_events(initial).0),
            waiters: Mutex::new(Waiters::default()),
            signal: OnceLock::new(),
        }
    }

    /// What holds now: one atomic load.
    pub fn events(&self) -> Events {
        self.load().events()
    }

    /// Whether a thread or a task waits for something.
    pub fn is_awaited(&self) -> bool {
        self.load().has(Word::WAITERS)
    }

    /// Stores what holds from now on. True when somebody may have to be told: then call
    /// [`notify`](Self::notify) after unlocking the stack.
    ///
    /// Made for a stack that holds its lock: a few atomic operations, no lock, no system call.
    #[must_use = "somebody may wait to be told: call notify() after unlocking the stack"]
    pub fn set(&self, events: Events) -> bool {
        let mut old = self.load();
        loop {
            if old.events() == events {
                return false;
            }
            let new = old.with_events(events);
            // The waiters' flags live in the same word, so there is one order of "set" and "wait": either this
            // sees the flag, or the waiter sees the events.
            match self.word.compare_exchange_weak(old.0, new.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return old.is_watched(),
                Err(now) => old = Word(now),
            }
        }
    }

    /// Something more happened of what already holds: more data arrived. True as for [`set`](Self::set).
    ///
    /// Edge-triggered epoll(7) tells of each arrival, level-triggered waiters notice nothing.
    #[must_use = "somebody may wait to be told: call notify() after unlocking the stack"]
    pub fn renew(&self, events: Events) -> bool {
        let mut old = self.load();
        loop {
            let new = old.with_edges(events & old.events());
            match self.word.compare_exchange_weak(old.0, new.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return old.has(Word::SIGNAL) && new != old,
                Err(now) => old = Word(now),
            }
        }
    }

    /// Wakes the waiters whose interest now holds and brings the signal fd up to date as far as the stack's end
    /// can: it raises bits; taking `IN` and `OUT` away is up to [`settle`](Self::settle).
    ///
    /// Call it with no lock of a stack held: wakers run in it, and system calls.
    pub fn notify(&self) {
        let word = self.load();
        if word.has(Word::WAITERS) {
            self.wake();
        }
        if word.has(Word::SIGNAL)
            && let Some(signal) = self.signal.get()
        {
            signal.sync(None, &|| self.load());
        }
    }

    /// Parks the thread until one of `interest`, or `ERR` or `HUP`, holds, or the deadline passes (`None`: for
    /// ever). Returns which of them hold, none after the deadline. It does not spin.
    pub fn wait(&self, interest: Events, deadline: Option<Instant>) -> Events {
        self.park_until(interest, Parker::park, deadline).0
    }

    /// As [`wait`](Self::wait), for a call that signals interrupt.
    ///
    /// # Errors
    /// `EINTR`: a signal's handler has run, which does not say SA_RESTART, or there is a deadline (signal(7), "Interruption of system
    /// calls and library functions by signal handlers": as the calls of sockets).
    pub fn wait_interruptibly(&self, interest: Events, deadline: Option<Instant>) -> Result<Events> {
        match self.park_until(interest, Parker::park_interruptibly, deadline) {
            (events, Parked::Interrupted) if events.is_empty() => Err(Errno::EINTR),
            (events, _) => Ok(events),
        }
    }

    /// What holds, and how the last sleep ended.
    fn park_until(
        &self,
        interest: Events,
        park: impl Fn(&Parker, Option<Instant>) -> Parked,
        deadline: Option<Instant>,
    ) -> (Events, Parked) {
        let mask = interest | Events::ERR | Events::HUP;
        let ready = self.events() & mask;
        if !ready.is_empty() {
            return (ready, Parked::Woken);
        }
        Parker::with_current(|parker| {
            loop {
                let mut waiters = self.waiters.lock();
                waiters.threads.push((mask, parker.clone()));
                let ready = self.announce() & mask;
                if !ready.is_empty() {
                    waiters.threads.pop();
                    self.retire(&waiters);
                    return (ready, Parked::Woken);
                }
                drop(waiters);
                let parked = park(parker, deadline);
                if parked != Parked::Woken {
                    let mut waiters = self.waiters.lock();
                    let before = waiters.threads.len();
                    waiters.threads.retain(|(_, other)| !Parker::same(parker, other));
                    let taken = waiters.threads.len() == before;
                    self.retire(&waiters);
                    drop(waiters);
                    if taken {
                        // `wake` has this thread in hand. Its signal must not be met by the next wait.
                        parker.park(None);
                    }
                    return (self.events() & mask, parked);
                }
                let ready = self.events() & mask;
                if !ready.is_empty() {
                    return (ready, Parked::Woken);
                }
            }
        })
    }

    /// Ready with those of `interest`, `ERR` and `HUP` that hold; else `waker` is woken when one of them does.
    ///
    /// A waker stays until then: that of a future dropped meanwhile is woken for nothing. At most
    /// 256 are kept; beyond, the oldest is woken early, and asks again if it is still there.
    pub fn poll_ready(&self, interest: Events, waker: &Waker) -> Poll<Events> {
        let mask = interest | Events::ERR | Events::HUP;
        let ready = self.events() & mask;
        if !ready.is_empty() {
            return Poll::Ready(ready);
        }
        // A waker's clone and drop may be anybody's code: both happen with the list unlocked.
        let mut spare = Some(waker.clone());
        let mut waiters = self.waiters.lock();
        let known = waiters.tasks.iter_mut().find(|(_, other)| other.will_wake(waker));
        let added = match known {
            // A task may wait for reading here and for writing there with one waker.
            Some((interest, _)) => {
                *interest |= mask;
                false
            }
            None => {
                waiters.tasks.extend(spare.take().map(|waker| (mask, waker)));
                true
            }
        };
        let ready = self.announce() & mask;
        if !ready.is_empty() {
            let withdrawn = if added { waiters.tasks.pop() } else { None };
            self.retire(&waiters);
            drop(waiters);
            drop(withdrawn);
            return Poll::Ready(ready);
        }
        let oldest = if waiters.tasks.len() > MAX_TASKS { Some(waiters.tasks.remove(0)) } else { None };
        drop(waiters);
        if let Some((_, oldest)) = oldest {
            oldest.wake();
        }
        Poll::Pending
    }

    /// Takes back what [`poll_ready`](Self::poll_ready) keeps of `waker`.
    pub fn forget(&self, waker: &Waker) {
        let mut waiters = self.waiters.lock();
        // Their drop may be anybody's code: it happens with the list unlocked.
        let forgotten: Vec<_> = waiters.tasks.extract_if(.., |(_, other)| other.will_wake(waker)).collect();
        self.retire(&waiters);
        drop(waiters);
        drop(forgotten);
    }

    /// Makes the signal fd and returns the user's end, close-on-exec.
    ///
    /// `closed` is called once, in the reactor's thread with no lock held, after the last duplicate of the user's
    /// end was closed in any process. It is dropped uncalled when the `Readiness` is dropped before that.
    ///
    /// # Errors
    /// `EEXIST` when there is one already; `EMFILE`, `ENFILE`, `ENOMEM`, `ENOBUFS`.
    pub fn make_signal_fd(&self, closed: Box<dyn FnOnce() + Send>) -> Result<OwnedFd, Errno> {
        if self.signal.get().is_some() {
            return Err(Errno::EEXIST);
        }
        let (signal, user) = SignalFd::new(self.load(), closed)?;
        self.signal.set(signal).map_err(|_| Errno::EEXIST)?;
        // Changes from here on are told to the new waiter; what came before is read by `settle`.
        self.word.fetch_or(Word::SIGNAL, Ordering::AcqRel);
        self.settle(user.as_fd());
        Ok(user)
    }

    /// Brings the signal fd up to date, also where it takes the user's end: `IN` is taken away when nothing
    /// is left to read, and `OUT` when there is no room.
    ///
    /// Each call that the user makes by descriptor ends with this, given the descriptor that it was called with (any
    /// duplicate will do); so an emptied socket does not show `IN` after the call that emptied it. When the
    /// socket is emptied by a call that has no descriptor, `IN` stays until the next one that has.
    ///
    /// A number that the program closed and used again meanwhile is recognised and left alone.
    pub fn settle(&self, user: BorrowedFd<'_>) {
        if let Some(signal) = self.signal.get() {
            signal.sync(Some(user), &|| self.load());
        }
    }

    /// Looks whether the last duplicate of the signal fd is closed; then `closed` of
    /// [`make_signal_fd`](Self::make_signal_fd) is called here and now and not in the reactor's thread. No lock is held.
    pub fn check_closed(&self) {
        if let Some(signal) = self.signal.get() {
            signal.check_closed();
        }
    }

    fn load(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    /// Wakes the waiters whose interest holds.
    fn wake(&self) {
        let mut waiters = self.waiters.lock();
        let now = self.events();
        let threads: Vec<_> = waiters.threads.extract_if(.., |(mask, _)| mask.intersects(now)).collect();
        let tasks: Vec<_> = waiters.tasks.extract_if(.., |(mask, _)| mask.intersects(now)).collect();
        self.retire(&waiters);
        drop(waiters);
        for (_, parker) in threads {
            parker.unpark();
        }
        for (_, waker) in tasks {
            waker.wake();
        }
    }

    /// Flags that somebody waits, and reads what holds in the same step. The list is locked.
    fn announce(&self) -> Events {
        Word(self.word.fetch_or(Word::WAITERS, Ordering::AcqRel)).events()
    }

    /// Takes the flag back when nobody waits any more. The list is locked.
    fn retire(&self, waiters: &Waiters) {
        if waiters.threads.is_empty() && waiters.tasks.is_empty() {
            self.word.fetch_and(!Word::WAITERS, Ordering::AcqRel);
        }
    }
}

/// Wakers that are kept for a socket.
const MAX_TASKS: usize = 256;

/// Who waits for what.
#[derive(Debug, Default)]
struct Waiters {
    threads: Vec<(Events, Parker)>,
    tasks: Vec<(Events, Waker)>,
}

/// A socket's readiness in one word, so that each look at it is consistent:
///
/// ```text
///   63       48 47       32 31      16   15       14     13    0
///    PRI epoch   OUT epoch   IN epoch  SIGNAL  WAITERS   events
/// ```
///
/// An epoch counts how often its bit went from 0 to 1, or was told anew: edge-triggered epoll must see an edge for a
/// bit that was taken away and came back between two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Word(u64);

impl Word {
    /// What the signal fd shows as `IN`: an error that can be cleared is among it.
    pub(crate) const READABLE: Events = Events::IN.union(Events::ERR);

    const EVENTS: u64 = (1 << 14) - 1;
    /// The list of waiters is not empty.
    const WAITERS: u64 = 1 << 14;
    /// There is a signal fd.
    const SIGNAL: u64 = 1 << 15;
    const IN_EPOCH: u32 = 16;
    const OUT_EPOCH: u32 = 32;
    const PRI_EPOCH: u32 = 48;

    /// The word with other events, the epochs moved on where a bit rises.
    fn with_events(self, events: Events) -> Word {
        // IN and ERR are one bit of the signal fd.
        let before = self.events();
        let risen = if before.intersects(Word::READABLE) {
            events - before - Word::READABLE
        } else {
            events - before
        };
        Word(self.with_edges(risen).0 & !Word::EVENTS | u64::from(events.bits()) & Word::EVENTS)
    }

    /// The word with the epochs of these bits moved on.
    fn with_edges(self, events: Events) -> Word {
        let mut new = self.0;
        let epochs = [
            (Word::READABLE, Word::IN_EPOCH),
            (Events::OUT, Word::OUT_EPOCH),
            (Events::PRI, Word::PRI_EPOCH),
        ];
        for (bits, shift) in epochs {
            if events.intersects(bits) {
                let next = self.epoch(shift).wrapping_add(1);
                new = new & !(0xffff << shift) | u64::from(next) << shift;
            }
        }
        Word(new)
    }

    /// What holds.
    pub(crate) fn events(self) -> Events {
        Events::from_bits_retain((self.0 & Word::EVENTS) as u32)
    }

    /// How often the socket became readable.
    pub(crate) fn in_epoch(self) -> u16 {
        self.epoch(Word::IN_EPOCH)
    }

    /// How often the socket became writable.
    pub(crate) fn out_epoch(self) -> u16 {
        self.epoch(Word::OUT_EPOCH)
    }

    /// How often urgent data came.
    pub(crate) fn pri_epoch(self) -> u16 {
        self.epoch(Word::PRI_EPOCH)
    }

    /// Whether a signal fd shows the same for both.
    pub(crate) fn is_same(self, other: Word) -> bool {
        (self.0 ^ other.0) & !(Word::WAITERS | Word::SIGNAL) == 0
    }

    fn epoch(self, shift: u32) -> u16 {
        (self.0 >> shift) as u16
    }

    fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    fn is_watched(self) -> bool {
        self.has(Word::WAITERS | Word::SIGNAL)
    }
}
