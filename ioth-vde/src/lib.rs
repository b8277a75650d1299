//! Virtual Ethernet for the Internet of Threads.
//!
//! A [`Link`] is one Ethernet port into a virtual network. It is named by a VNL (virtual
//! network locator) such as `switch://lan` or `vde:///tmp/sw`, moves batches of [`Frame`]s,
//! and tells a [`Receiver`] what arrives. Tracing and faults are wrappers around any link.
//!
//! ```text
//!   engine ── send(&mut Batch) ──▶ Link ──▶ LAN, vde_switch, ...
//!     ▲                             │
//!     └── Receiver::receive ────────┘
//! ```
//!
//! What it does not do: nothing here knows IP.
#![deny(unsafe_code)]

pub mod frame;
pub mod lan;
pub mod link;
pub mod null;
pub mod schemes;
pub mod vde;
pub mod vnl;

mod sys;
mod tally;

pub use frame::{Batch, Checksum, Frame};
pub use lan::Lan;
pub use link::{Counters, Filter, Link, LinkError, Properties, Receiver};
pub use schemes::{Schemes, open};

/// The number in an error of the operating system.
fn errno(error: &std::io::Error) -> ioth_core::Errno {
    error.raw_os_error().map_or(ioth_core::Errno::EIO, ioth_core::Errno::from_raw)
}
