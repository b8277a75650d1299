//! Readiness: what poll(2) says of a socket, and who is told when it changes (contract 2).

use std::task::{Poll, Waker};
use std::time::Instant;

use bitflags::bitflags;

bitflags! {
    /// The bits of poll(2), with Linux's values.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Events: u32 {
        /// `POLLIN`: a read would not wait.
        const IN = libc::POLLIN as u32;
        /// `POLLPRI`: urgent data.
        const PRI = libc::POLLPRI as u32;
        /// `POLLOUT`: a write would not wait.
        const OUT = libc::POLLOUT as u32;
        /// `POLLERR`: an error is pending.
        const ERR = libc::POLLERR as u32;
        /// `POLLHUP`: both directions are over.
        const HUP = libc::POLLHUP as u32;
        /// `POLLRDHUP`: the peer writes no more.
        const RDHUP = libc::POLLRDHUP as u32;
    }
}

/// The readiness of one socket.
#[derive(Debug)]
pub struct Readiness {}
