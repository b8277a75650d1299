//! The system calls that no safe wrapper covers: the crate's only unsafe code.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use polling::{Event, PollMode, Poller};

/// Adds `fd` to the poller, level-triggered.
pub(crate) fn poller_add(poller: &Poller, fd: BorrowedFd<'_>, interest: Event) -> io::Result<()> {
    // polling has no safe way to add a descriptor.
    // SAFETY: `fd` is open during the call. That it be removed before it is closed guards polling's
    // back-ends that keep the number; epoll keeps the open file and drops it when that is closed.
    unsafe { poller.add_with_mode(&fd, interest, PollMode::Level) }
}

/// Changes what the poller reports of `fd`.
pub(crate) fn poller_modify(poller: &Poller, fd: RawFd, interest: Event) -> io::Result<()> {
    // The table keeps a number, since a borrow cannot be stored.
    // SAFETY: whoever registered `fd` keeps it open until it is deregistered; the number goes into
    // one epoll_ctl call and nowhere else, which fails with EBADF or ENOENT for a stale one.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    poller.modify_with_mode(fd, interest, PollMode::Level)
}

/// Removes `fd` from the poller.
pub(crate) fn poller_delete(poller: &Poller, fd: RawFd) -> io::Result<()> {
    // The table keeps a number, since a borrow cannot be stored.
    // SAFETY: as in `poller_modify`.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    poller.delete(fd)
}
