//! The one place of this crate that the compiler cannot check.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use ioth::Events;

/// Owns a descriptor that came as SCM_RIGHTS.
///
/// Called by [`pair`](crate::pair) alone, once for each number that recvmsg(2) has just put into this process.
pub(crate) fn received(fd: RawFd) -> OwnedFd {
    // nix hands received descriptors over as numbers.
    // SAFETY: the kernel opened it for this message, so nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// What poll(2) says now, of `interest` and of `ERR` and `HUP`.
pub(crate) fn poll(fd: BorrowedFd<'_>, interest: Events) -> Events {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: interest.bits() as i16, revents: 0 };
    // nix's does not know POLLRDHUP.
    // SAFETY: one entry, of this function; without a time-out the call does not wait.
    match unsafe { libc::poll(&raw mut poll, 1, 0) } {
        1 => Events::from_bits_truncate(u32::from(poll.revents as u16)),
        _ => Events::empty(),
    }
}
