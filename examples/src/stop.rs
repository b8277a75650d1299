//! Ending when asked to.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// SIGTERM and SIGINT as a descriptor, so that one poll(2) waits for them and for sockets.
#[derive(Debug)]
pub struct Stop(SignalFd);

impl Stop {
    /// Takes the signals. To be called before other threads start: they inherit that the signals are blocked.
    ///
    /// # Errors
    /// As signalfd(2).
    pub fn new() -> io::Result<Self> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGTERM);
        signals.add(Signal::SIGINT);
        signals.thread_block()?;
        Ok(Stop(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)?))
    }

    /// The descriptor: readable once a signal came.
    pub fn number(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
