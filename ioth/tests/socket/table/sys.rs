//! ioctl(2) past the calls of this project, which know only the requests that they pass on.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// ioctl(2) on a socket of the kernel's.
///
/// `argument` is what the request takes; it must be none whose structure has a pointer in it that is followed.
pub(super) fn request(socket: BorrowedFd<'_>, request: u64, argument: &mut [u8; 256]) -> io::Result<i32> {
    // Requests come by number, of which nix knows those that are macros.
    // SAFETY: the kernel touches no more than the structure, which is shorter than `argument`, live and exclusive.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), request as _, argument.as_mut_ptr()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}
