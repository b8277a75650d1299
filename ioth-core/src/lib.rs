//! The ground under every crate of libioth: what a stack and a socket are, how
//! readiness is told, and the text and arithmetic of addresses.
//!
//! A [`Stack`] is one node's TCP/IP; it hands out [`Socket`]s. Backends (the host's
//! kernel, a user-space stack, a third party's) implement these two traits and are
//! found by name in a [`Registry`]. Nothing here moves a packet.
//!
//! ```text
//!   Stack ── socket() ──▶ Socket ── Readiness ──▶ parked thread, Waker, signal fd
//!     ▲                      ▲
//!  Registry             netlink::Route   (configuration, written once for all stacks)
//! ```
//!
//! What it does not do: no backend, no link, no configuration string lives here.
#![deny(unsafe_code)]

pub mod addr;
pub mod cidr;
pub mod control;
pub mod descriptor;
pub mod fork;
pub mod hashaddr;
pub mod interruption;
pub mod mac;
pub mod netlink;
pub mod reactor;
pub mod readiness;
pub mod registry;
pub mod signal;
pub mod socket;
pub mod spin;
pub mod stack;

mod sys;

/// Linux's error numbers: the one error type at the socket edge.
pub use nix::errno::Errno;

pub use addr::{PacketAddr, SockAddr};
pub use cidr::Cidr;
pub use mac::MacAddr;
pub use readiness::{Events, Readiness};
pub use registry::Registry;
pub use socket::{
    Domain, Mmsg, MsgFlags, RecvMsg, SendMsg, Shutdown, Socket, SocketType, recv_each, send_each,
};
pub use stack::{Stack, StackSpec, Unheld};

/// Result of an operation on a stack or a socket.
pub type Result<T, E = Errno> = std::result::Result<T, E>;
