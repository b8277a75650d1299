//! The one system call that has no safe wrapper.
#![allow(unsafe_code)]

use nix::unistd::{ForkResult, Pid, fork};

/// Forks a child that waits for a signal for ever: its number.
pub(crate) fn sleeping_child() -> Pid {
    // A process of a test's own has to be forked, not started: it is to have the descriptors.
    // SAFETY: the child makes nothing but one system call, again and again.
    match unsafe { fork() }.expect("a process") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => loop {
            nix::unistd::pause();
        },
    }
}
