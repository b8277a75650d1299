//! The primitives under [`Desk`](super::desk::Desk) and [`Lane`](super::lane::Lane): loom's where it checks the orders
//! of execution.

#[cfg(loom)]
pub(super) use loom::sync::MutexGuard;
#[cfg(loom)]
pub(super) use loom::sync::atomic::{AtomicUsize, Ordering, fence};
#[cfg(not(loom))]
pub(super) use std::sync::atomic::{AtomicUsize, Ordering, fence};

#[cfg(not(loom))]
pub(super) use parking_lot::{Mutex, MutexGuard};

/// loom's mutex with parking_lot's face.
#[cfg(loom)]
#[derive(Debug)]
pub(super) struct Mutex<T>(loom::sync::Mutex<T>);

#[cfg(loom)]
impl<T> Mutex<T> {
    pub(super) fn new(value: T) -> Self {
        Mutex(loom::sync::Mutex::new(value))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().expect("no thread panics with the lock held")
    }

    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok()
    }

    pub(super) fn is_locked(&self) -> bool {
        self.try_lock().is_none()
    }
}
