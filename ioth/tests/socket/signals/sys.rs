//! Signals and their handlers, which nix calls unsafe.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::ScopedJoinHandle;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Has a signal counted, by a handler after which calls are begun again or not (SA_RESTART).
pub(crate) fn count_signal(signal: Signal, restart: bool) {
    extern "C" fn count(_: libc::c_int) {
        COUNT.fetch_add(1, Ordering::SeqCst);
    }
    let flags = if restart { SaFlags::SA_RESTART } else { SaFlags::empty() };
    let action = SigAction::new(SigHandler::Handler(count), flags, SigSet::empty());
    // SAFETY: the handler does what one may do (signal-safety(7)): it adds to an atomic number.
    unsafe { sigaction(signal, &action) }.unwrap();
}

/// How many were counted.
pub(crate) fn counted() -> u32 {
    COUNT.load(Ordering::SeqCst)
}

/// A thread that signals can be sent to.
#[derive(Clone, Copy)]
pub(crate) struct Thread(libc::pthread_t);

/// The one that calls.
pub(crate) fn this_thread() -> Thread {
    // SAFETY: it only tells.
    Thread(unsafe { libc::pthread_self() })
}

/// Sends a thread a signal; nothing happens when it has ended.
pub(crate) fn signal_thread<T>(_unjoined: &ScopedJoinHandle<'_, T>, thread: Thread, signal: Signal) {
    // SAFETY: its handle has not been joined, so the thread is known still.
    unsafe { libc::pthread_kill(thread.0, signal as libc::c_int) };
}
