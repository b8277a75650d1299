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

    /// Sleeps until [`unpark`](Self::unpark), which may have come before, or the deadline.
    pub(super) fn park(&self, deadline: Option<Instant>) -> Parked {
        loop {
            match self.0.park(deadline) {
                Parked::Interrupted => {}
                parked => return parked,
            }
        }
    }

    /// The same; a signal interrupts it, as signal(7) says of the calls of sockets: with a deadline each whose handler has
    /// run, without one those that do not say SA_RESTART.
    pub(super) fn park_interruptibly(&self, deadline: Option<Instant>) -> Parked {
        self.0.park(deadline)
    }
}

/// How a sleep ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Parked {
    Woken,
    Late,
    Interrupted,
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
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Instant;

    use nix::errno::Errno;

    use super::{Parked, Parker};
    use crate::sys;

    const NONE: u32 = 0;
    const WOKEN: u32 = 1;

    /// Holds a wake-up that has not been met. A futex(2) of its own, since a condition variable hides what signals do.
    pub(in super::super) struct Place(AtomicU32);

    impl Place {
        pub(super) fn unpark(&self) {
            if self.0.swap(WOKEN, Ordering::Release) == NONE {
                sys::futex_wake(&self.0);
            }
        }

        pub(super) fn park(&self, deadline: Option<Instant>) -> Parked {
            loop {
                if self.0.swap(NONE, Ordering::Acquire) == WOKEN {
                    return Parked::Woken;
                }
                let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
                let parked = match sys::futex_wait(&self.0, NONE, timeout) {
                    Err(Errno::ETIMEDOUT) => Parked::Late,
                    Err(Errno::EINTR) => Parked::Interrupted,
                    // It was woken, or there was no need to sleep.
                    _ => continue,
                };
                // What came at the same time counts more.
                return match self.0.swap(NONE, Ordering::Acquire) {
                    WOKEN => Parked::Woken,
                    _ => parked,
                };
            }
        }
    }

    thread_local! {
        static CURRENT: Parker = Parker::new();
    }

    impl Parker {
        fn new() -> Self {
            Parker(Arc::new(Place(AtomicU32::new(NONE))))
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

    use super::{Parked, Parker};

    pub(in super::super) struct Place(loom::sync::Notify);

    impl Place {
        pub(super) fn unpark(&self) {
            self.0.notify();
        }

        /// loom knows neither time nor signals: a model waits without a deadline.
        pub(super) fn park(&self, deadline: Option<Instant>) -> Parked {
            assert!(deadline.is_none());
            self.0.wait();
            Parked::Woken
        }
    }

    impl Parker {
        pub(in super::super) fn with_current<R>(f: impl FnOnce(&Parker) -> R) -> R {
            f(&Parker(Arc::new(Place(loom::sync::Notify::new()))))
        }
    }
}
