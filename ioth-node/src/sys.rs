//! The one place of this crate that the compiler cannot check.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Owns a descriptor that came as SCM_RIGHTS.
///
/// Called by [`pair`](crate::pair) alone, once for each number that recvmsg(2) has just put into this process.
pub(crate) fn received(fd: RawFd) -> OwnedFd {
    // nix hands received descriptors over as numbers.
    // SAFETY: the kernel opened it for this message, so nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
