//! What ends a thread's wait at a link.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Wake;

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Nobody waits, or looks before the next wait.
const AWAKE: u8 = 0;
/// Somebody waits for the descriptor, or is about to.
const ARMED: u8 = 1;
const RUNG: u8 = 2;

/// A descriptor that is written to only where somebody waits for it.
///
/// The waiter arms it, looks whether there is something to wait for still, and waits; whoever changes that rings after the
/// change. A ring whose write comes late ends the next wait for nothing.
#[derive(Debug)]
pub(super) struct Bell {
    fd: EventFd,
    state: AtomicU8,
}

impl Bell {
    /// `None` when there is no descriptor left.
    pub(super) fn new() -> Option<Self> {
        let fd = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).ok()?;
        Some(Bell { fd, state: AtomicU8::new(AWAKE) })
    }

    pub(super) fn arm(&self) {
        self.state.swap(ARMED, Ordering::AcqRel);
    }

    pub(super) fn disarm(&self) {
        self.state.swap(AWAKE, Ordering::AcqRel);
    }

    /// The descriptor was readable: it is not any more.
    pub(super) fn take(&self) {
        let _ = self.fd.read();
    }

    pub(super) fn ring(&self) {
        if self.state.swap(RUNG, Ordering::AcqRel) == ARMED {
            // It fails only with a count near 2^64, which can be read.
            let _ = self.fd.write(1);
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}
