//! The one system call that nix does not wrap.
#![allow(unsafe_code)]

use std::os::fd::RawFd;

use ioth_core::{Errno, Result};

/// setsockopt(2) with the option's C representation.
pub(super) fn set_option(fd: RawFd, level: i32, name: i32, value: &[u8]) -> Result<()> {
    // nix has no netlink options.
    // SAFETY: the pointer and length are those of one live slice, which the call only reads.
    let result = unsafe { libc::setsockopt(fd, level, name, value.as_ptr().cast(), value.len() as u32) };
    Errno::result(result).map(drop)
}
