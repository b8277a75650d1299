//! A descriptor of a stack's socket.

use std::io;
use std::os::fd::RawFd;

use ioth::{Stack, berkeley};

/// A socket by its descriptor number, as Berkeley's calls have it; closed when dropped.
#[derive(Debug)]
pub struct Descriptor(RawFd);

impl Descriptor {
    /// socket(2) on a stack, close-on-exec.
    ///
    /// # Errors
    /// As socket(2).
    pub fn open(stack: &Stack, domain: i32, kind: i32) -> io::Result<Self> {
        berkeley::msocket(Some(stack), domain, kind | libc::SOCK_CLOEXEC, 0).map(Descriptor)
    }

    /// Takes over a descriptor, such as one of accept(2).
    pub fn from_number(fd: RawFd) -> Self {
        Descriptor(fd)
    }

    /// The number.
    pub fn number(&self) -> RawFd {
        self.0
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // Nobody else closes it, so there is nothing to be told.
        let _ = berkeley::close(self.0);
    }
}
