//! The system calls that have no safe wrapper.
#![allow(unsafe_code)]

use std::os::unix::thread::JoinHandleExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// Forks a child that waits for a signal for ever: its number.
pub(crate) fn sleeping_child() -> Pid {
    forked(|| {
        loop {
            nix::unistd::pause();
        }
    })
}

/// Runs `program` in a forked child, and waits for it.
///
/// # Panics
/// When the program does.
pub(crate) fn in_child(program: impl FnOnce()) {
    let child = forked(program);
    assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
}

/// Counts what [`signal`] sends from now on.
pub(crate) fn count_signals(flags: SaFlags) -> &'static AtomicUsize {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn count(_: libc::c_int) {
        COUNT.fetch_add(1, Ordering::SeqCst);
    }
    COUNT.store(0, Ordering::SeqCst);
    let action = SigAction::new(SigHandler::Handler(count), flags, SigSet::empty());
    // A handler is what the test is about.
    // SAFETY: it changes a number that is made for that.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.expect("a handler");
    &COUNT
}

/// Sends SIGUSR1 to the thread.
pub(crate) fn signal<T>(thread: &JoinHandle<T>) {
    // nix's needs a feature that nothing else does.
    // SAFETY: a thread that nobody has joined yet is known, also when it has ended.
    unsafe { libc::pthread_kill(thread.as_pthread_t(), libc::SIGUSR1) };
}

fn forked(program: impl FnOnce()) -> Pid {
    // A child of a test's own has to be forked, not started: it is to have the descriptors.
    // SAFETY: the process that forks has this thread, the tests' harness, which waits, and the reactor, whose locks nobody in the
    // child takes.
    match unsafe { fork() }.expect("a process") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let status = catch_unwind(AssertUnwindSafe(program)).map_or(1, |()| 0);
            // Past the harness, whose tests these are not.
            // SAFETY: a number is passed.
            unsafe { libc::_exit(status) }
        }
    }
}
