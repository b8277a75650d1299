//! A thread's place to sleep.
//!
//! `std::thread::park` is not used: its token belongs to the program, and a wait of ours would eat it.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// One thread's place to sleep; clones are the same place.
#[derive(Clone)]
pub(super) struct Parker(Arc<Place>);

impl Parker {
    /// Whether both are one place.
    pub(super) fn same(one: &Parker, other: &Parker) -> bool {
        Arc::ptr_eq(&one.0, &other.0)
    }

    /// Ends the thread's sleep, or the next one.
    pub(super) fn unpark(&self) {
        self.0.unpark();
    }

    /// Sleeps until [`unpark`](Self::unpark), which may have come before. False after the deadline.
    pub(super) fn park(&self, deadline: Option<Instant>) -> bool {
        self.0.park(deadline)
    }
}

impl fmt::Debug for Parker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Parker")
    }
}

#[cfg(loom)]
use model::Place;
#[cfg(not(loom))]
pub(super) use real::Place;

#[cfg(not(loom))]
mod real {
    use std::sync::Arc;
    use std::time::Instant;

    use parking_lot::{Condvar, Mutex};

    use super::Parker;

    pub(in super::super) struct Place {
        woken: Mutex<bool>,
        wakes: Condvar,
    }

    impl Place {
        pub(super) fn unpark(&self) {
            *self.woken.lock() = true;
            self.wakes.notify_one();
        }

        pub(super) fn park(&self, deadline: Option<Instant>) -> bool {
            let mut woken = self.woken.lock();
            while !*woken {
                match deadline {
                    None => self.wakes.wait(&mut woken),
                    Some(deadline) => {
                        if self.wakes.wait_until(&mut woken, deadline).timed_out() && !*woken {
                            return false;
                        }
                    }
                }
            }
            *woken = false;
            true
        }
    }

    thread_local! {
        static CURRENT: Parker = Parker::new();
    }

    impl Parker {
        fn new() -> Self {
            Parker(Arc::new(Place { woken: Mutex::new(false), wakes: Condvar::new() }))
        }

        /// Calls `f` with the thread's own place.
        pub(in super::super) fn with_current<R>(f: impl FnOnce(&Parker) -> R) -> R {
            // A thread that is ending has lost its place: then one for the occasion.
            let parker = CURRENT.try_with(Parker::clone).unwrap_or_else(|_| Parker::new());
            f(&parker)
        }
    }
}

#[cfg(loom)]
mod model {
    use std::sync::Arc;
    use std::time::Instant;

    use super::Parker;

    pub(in super::super) struct Place(loom::sync::Notify);

    impl Place {
        pub(super) fn unpark(&self) {
            self.0.notify();
        }

        /// loom knows no time: a model waits without a deadline.
        pub(super) fn park(&self, deadline: Option<Instant>) -> bool {
            assert!(deadline.is_none());
            self.0.wait();
            true
        }
    }

    impl Parker {
        pub(in super::super) fn with_current<R>(f: impl FnOnce(&Parker) -> R) -> R {
            f(&Parker(Arc::new(Place(loom::sync::Notify::new()))))
        }
    }
}
