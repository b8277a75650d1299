//! The signal fd.

use std::os::fd::{BorrowedFd, OwnedFd};

use crate::Errno;
use crate::readiness::Word;

/// The stack's end of a signal fd.
#[derive(Debug)]
pub(crate) struct SignalFd {}

impl SignalFd {
    pub(crate) fn new(_closed: Box<dyn FnOnce() + Send>) -> Result<(Self, OwnedFd), Errno> {
        Err(Errno::ENOSYS)
    }

    pub(crate) fn sync(&self, _user: Option<BorrowedFd<'_>>, _word: &dyn Fn() -> Word) {}
}
