//! What a forked child may touch.
//!
//! fork(2) copies the memory of all threads and goes on with one of them. What another thread was changing stays
//! half-changed in the child, its locks stay taken, and descriptors (the reactor's epoll among them) are shared with
//! the parent. So what belongs to the parent is told from the child's own by a number, [`generation`], and:
//!
//! | of the parent | in the child |
//! |---|---|
//! | a node, and what is on it | each call fails with [`check`]'s error before it takes a lock; nothing is dropped ([`Owned`]) |
//! | the reactor, memory pools, in-process LANs ([`PerProcess`]) | made anew when first asked for |
//! | which descriptor is which socket, the default stack ([`Inherited`]) | taken over |
//!
//! The number is in a page that the kernel wipes in a child (madvise(2), `MADV_WIPEONFORK`), so that it costs a
//! load and is right however the process was forked; where the kernel has no such page, pthread_atfork(3)
//! wipes it.

use std::cell::RefCell;
use std::fmt;
use std::mem;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;

use crate::{Errno, Result, sys};

/// The number of this process among its ancestors that used this library: a child's is greater than its parent's.
pub fn generation() -> u64 {
    let mark = sys::fork_mark(hold, release, carry);
    match mark.load(Ordering::Relaxed) {
        0 => begin(mark),
        generation => generation,
    }
}

/// Whether what was made in `generation` belongs to this process.
///
/// # Errors
/// `ENODEV` for an ancestor's: it is open, and can be polled, duplicated and closed, but its device, the node, is
/// somewhere else. (`EBADF` would say that the descriptor is closed, and programs leave those alone.)
pub fn check(generation: u64) -> Result<()> {
    if generation == self::generation() { Ok(()) } else { Err(Errno::ENODEV) }
}

/// The first look in a process.
#[cold]
fn begin(mark: &AtomicU64) -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let next = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    // Threads of a child may come at the same time: the first one's number counts.
    match mark.compare_exchange(0, next, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => next,
        Err(theirs) => theirs,
    }
}

/// A value that is dropped only by the process that made it: a child leaks it, and disturbs nobody.
pub struct Owned<T> {
    /// `None` only while it is dropped.
    value: Option<T>,
    generation: u64,
}

impl<T> Owned<T> {
    /// Belongs to this process.
    pub fn new(value: T) -> Self {
        Owned { value: Some(value), generation: generation() }
    }

    /// Whether this process made it.
    ///
    /// # Errors
    /// `ENODEV` if not, see [`check`].
    pub fn check(&self) -> Result<()> {
        check(self.generation)
    }
}

impl<T> Deref for Owned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("there until it is dropped")
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if self.check().is_err() {
            mem::forget(self.value.take());
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Owned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A child could wait for ever for a lock that it shows.
        match self.check() {
            Ok(()) => (**self).fmt(f),
            Err(_) => f.write_str("<another process's>"),
        }
    }
}

/// A value that each process makes for itself; a child leaks its ancestors'.
pub struct PerProcess<T> {
    first: OnceLock<Box<Slot<T>>>,
}

struct Slot<T> {
    generation: u64,
    /// `None` only while it is dropped.
    value: Option<T>,
    /// A descendant's.
    next: OnceLock<Box<Slot<T>>>,
}

impl<T> PerProcess<T> {
    /// Nobody's yet.
    pub const fn new() -> Self {
        PerProcess { first: OnceLock::new() }
    }

    /// This process's value, if it was made.
    pub fn get(&self) -> Option<&T> {
        let generation = generation();
        let mut at = &self.first;
        loop {
            let slot = at.get()?;
            if slot.generation == generation {
                return slot.value.as_ref();
            }
            at = &slot.next;
        }
    }

    /// This process's value; `make` makes it, and may run in several threads, of which one counts.
    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        self.get_or(|_| make())
    }

    /// The same; `make` is told whether an ancestor had one.
    fn get_or(&self, make: impl FnOnce(bool) -> T) -> &T {
        let generation = generation();
        let mut at = &self.first;
        let mut make = Some(make);
        let mut inherits = false;
        loop {
            match at.get() {
                Some(slot) if slot.generation == generation => {
                    return slot.value.as_ref().expect("there until it is dropped");
                }
                Some(slot) => {
                    inherits = true;
                    at = &slot.next;
                }
                None => {
                    // If another thread was faster, that thread's value is found by the next turn.
                    if let Some(make) = make.take() {
                        let value = Some(make(inherits));
                        let _ = at.set(Box::new(Slot { generation, value, next: OnceLock::new() }));
                    }
                }
            }
        }
    }
}

impl<T> Default for PerProcess<T> {
    fn default() -> Self {
        PerProcess::new()
    }
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        if check(self.generation).is_err() {
            mem::forget(self.value.take());
        }
    }
}

impl<T> fmt::Debug for PerProcess<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerProcess").finish_non_exhaustive()
    }
}

/// A process-wide value behind a lock, which a forked child takes over as it was.
///
/// fork(3) waits until no other thread holds the lock, in the manner of malloc(3)'s; so it is for what takes a moment:
/// no call that could wait, nothing of a user's. Where it has to be done without (the fork came from a signal handler
/// within such a moment, or by a system call that runs no handlers) the child begins with a value that says so.
pub struct Inherited<T: 'static> {
    lock: PerProcess<RwLock<T>>,
    first: fn() -> T,
    lost: fn() -> T,
    /// What the child does with it.
    carried: fn(&mut T),
    known: AtomicBool,
}

impl<T: Send + Sync> Inherited<T> {
    /// `first` is the value to begin with, `lost` what a child has that could not take it over.
    pub const fn new(first: fn() -> T, lost: fn() -> T) -> Self {
        Inherited::with(first, lost, |_| ())
    }

    /// The same; `carried` is run in the child, with what it took over.
    pub(crate) const fn with(first: fn() -> T, lost: fn() -> T, carried: fn(&mut T)) -> Self {
        Inherited { lock: PerProcess::new(), first, lost, carried, known: AtomicBool::new(false) }
    }

    /// Locks it for reading.
    pub fn read(&'static self) -> RwLockReadGuard<'static, T> {
        self.lock().read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks it for changing.
    pub fn write(&'static self) -> RwLockWriteGuard<'static, T> {
        self.lock().write().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&'static self) -> &'static RwLock<T> {
        if !self.known.load(Ordering::Relaxed) && !self.known.swap(true, Ordering::Relaxed) {
            // Beyond the last place it is lost in a child.
            let _ = CARRIED.iter().try_for_each(|place| match place.set(self) {
                Ok(()) => Err(()),
                Err(_) => Ok(()),
            });
        }
        self.lock.get_or(|inherits| RwLock::new(if inherits { (self.lost)() } else { (self.first)() }))
    }
}

impl<T> fmt::Debug for Inherited<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inherited").finish_non_exhaustive()
    }
}

/// What is held while the process forks.
static CARRIED: [OnceLock<&'static dyn Carry>; 64] = [const { OnceLock::new() }; 64];

thread_local! {
    /// The locks that this thread holds while it forks.
    static HELD: RefCell<Vec<Box<dyn Held>>> = const { RefCell::new(Vec::new()) };
}

trait Carry: Sync {
    /// Locks it, unless that takes too long.
    fn hold(&'static self) -> Option<Box<dyn Held>>;
}

trait Held {
    /// Makes it the child's.
    fn carry(self: Box<Self>);
}

struct Holding<T: 'static> {
    of: &'static Inherited<T>,
    guard: RwLockWriteGuard<'static, T>,
}

impl<T: Send + Sync> Carry for Inherited<T> {
    fn hold(&'static self) -> Option<Box<dyn Held>> {
        let lock = self.lock();
        for _ in 0..ATTEMPTS {
            match lock.try_write() {
                Ok(guard) => return Some(Box::new(Holding { of: self, guard })),
                Err(std::sync::TryLockError::Poisoned(guard)) => {
                    return Some(Box::new(Holding { of: self, guard: guard.into_inner() }));
                }
                Err(std::sync::TryLockError::WouldBlock) => thread::yield_now(),
            }
        }
        None
    }
}

impl<T: Send + Sync> Held for Holding<T> {
    fn carry(mut self: Box<Self>) {
        let mut value = mem::replace(&mut *self.guard, (self.of.lost)());
        (self.of.carried)(&mut value);
        self.of.lock.get_or(|_| RwLock::new(value));
        // The ancestor's lock is left as it is. Threads that wait for it are not here.
        mem::forget(self);
    }
}

/// Looks at a lock that is held for a moment only, before it is taken for held by this very thread.
const ATTEMPTS: usize = 10_000;

/// pthread_atfork(3): before.
extern "C" fn hold() {
    let held: Vec<_> = CARRIED.iter().map_while(OnceLock::get).filter_map(|each| each.hold()).collect();
    let _ = HELD.try_with(|list| list.borrow_mut().extend(held));
}

/// pthread_atfork(3): after, in the parent.
extern "C" fn release() {
    let held = HELD.try_with(|list| mem::take(&mut *list.borrow_mut()));
    drop(held);
}

/// pthread_atfork(3): after, in the child.
extern "C" fn carry() {
    sys::fork_mark(hold, release, carry).store(0, Ordering::Relaxed);
    let held = HELD.try_with(|list| mem::take(&mut *list.borrow_mut()));
    held.into_iter().flatten().for_each(Held::carry);
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_one_number() {
        let here = generation();
        assert_ne!(here, 0);
        assert_eq!(thread::spawn(generation).join().unwrap(), here);
        assert_eq!(check(here), Ok(()));
        assert_eq!(check(here + 1), Err(Errno::ENODEV));
    }

    #[test]
    fn a_value_is_made_once_and_dropped_once() {
        struct Counted<'a>(&'a AtomicU64);
        impl Drop for Counted<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let drops = AtomicU64::new(0);
        let mut cell = PerProcess::new();
        let first = std::ptr::from_ref(cell.get_or_init(|| Counted(&drops)));
        assert_eq!(std::ptr::from_ref(cell.get_or_init(|| unreachable!())), first);
        drop(cell);
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        // What another process made is left alone.
        cell = PerProcess::new();
        let slot = Slot { generation: u64::MAX, value: Some(Counted(&drops)), next: OnceLock::new() };
        assert!(cell.first.set(Box::new(slot)).is_ok());
        cell.get_or(|inherits| {
            assert!(inherits);
            Counted(&drops)
        });
        drop(cell);
        assert_eq!(drops.load(Ordering::Relaxed), 2);
        drop(Owned { value: Some(Counted(&drops)), generation: u64::MAX });
        assert_eq!(drops.load(Ordering::Relaxed), 2);
        drop(Owned::new(Counted(&drops)));
        assert_eq!(drops.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn locks_are_held_for_the_time_of_a_fork() {
        static VALUE: Inherited<u32> = Inherited::new(|| 1, || 2);
        *VALUE.write() += 10;
        let held = VALUE.hold().unwrap();
        assert!(VALUE.lock().try_read().is_err());
        drop(held);
        assert!(VALUE.lock().try_read().is_ok());
        assert_eq!(*VALUE.read(), 11);
        // A thread that holds it itself, in a signal handler for instance, does not wait for ever.
        let reading = VALUE.read();
        assert!(VALUE.hold().is_none());
        drop(reading);
    }
}
