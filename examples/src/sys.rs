//! poll(2) by descriptor number, which no safe wrapper takes.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;

/// What to wait for on a descriptor.
pub fn interest(fd: RawFd, events: i16) -> libc::pollfd {
    libc::pollfd { fd, events, revents: 0 }
}

/// Waits until one of the descriptors is ready, without a time-out; `revents` then tells which.
///
/// # Errors
/// As poll(2), but never `EINTR`.
pub fn wait(fds: &mut [libc::pollfd]) -> io::Result<()> {
    loop {
        // Berkeley's calls deal in numbers; safe wrappers of poll(2) want borrowed descriptors.
        // SAFETY: the pointer and the length are those of one exclusively borrowed slice.
        let ready = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, -1) };
        if ready >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
