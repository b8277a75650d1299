//! fork(2), which no safe wrapper covers.
#![allow(unsafe_code)]

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use std::os::fd::AsFd;

/// Far longer than anything takes; only a child that hangs has it waited for.
const LONG: u16 = 20_000;

/// Runs `test` in a forked child, and fails when it does, or hangs.
#[track_caller]
pub(crate) fn child(test: impl FnOnce()) {
    let (mut alive, end) = std::io::pipe().unwrap();
    // A test of fork needs one.
    // SAFETY: in the child of a process with threads, locks of those threads may be held. That the library takes none of
    // them is what is tested; what the test itself uses is the allocator, which the C library looks after.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            drop(alive);
            let ended = catch_unwind(AssertUnwindSafe(test));
            // SAFETY: ends the process at once; the parent's test harness, of which this is a copy, has no part in it.
            unsafe { libc::_exit(if ended.is_ok() { 0 } else { 1 }) }
        }
        ForkResult::Parent { child } => {
            drop(end);
            let mut polled = [PollFd::new(alive.as_fd(), PollFlags::POLLIN)];
            let hangs = poll(&mut polled, PollTimeout::from(LONG)).unwrap() == 0;
            if hangs {
                kill(child, Signal::SIGKILL).unwrap();
            }
            let status = waitpid(child, None).unwrap();
            assert!(!hangs, "the child hangs");
            assert_eq!(status, WaitStatus::Exited(child, 0));
            let _ = alive.read(&mut [0]);
        }
    }
}

/// Forks: whether this is the child.
pub(crate) fn forked() -> bool {
    // As above.
    // SAFETY: called in a child that has one thread of the test's, and the library's, whose locks are what is tested.
    matches!(unsafe { fork() }.unwrap(), ForkResult::Child)
}

/// Ends a child at once, with success.
pub(crate) fn exit() -> ! {
    // SAFETY: as in `child`.
    unsafe { libc::_exit(0) }
}
