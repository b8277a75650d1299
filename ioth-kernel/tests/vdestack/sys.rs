//! The one system call that has no safe wrapper.
#![allow(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

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
