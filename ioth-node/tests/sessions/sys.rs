//! What the compiler cannot check.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Owns a descriptor that came as SCM_RIGHTS, or from accept4(2).
pub(crate) fn received(fd: RawFd) -> OwnedFd {
    // nix hands received descriptors over as numbers.
    // SAFETY: the kernel has just opened it for the caller.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
