//! A user-space node for the Internet of Threads.
//!
//! The [`engine`] is one node's brain without I/O: Ethernet, ARP, neighbour discovery, IPv4, IPv6, ICMP and UDP are its
//! own, TCP is smoltcp's, one socket a connection. Around it a driver locks, moves frames between links and engines,
//! and tells readiness; [`Smoltcp`] and its sockets are what the rest of libioth sees.
//!
//! It needs no privilege: no root, no user namespace, no /dev/net/tun.
#![deny(unsafe_code)]

pub mod engine;
pub mod netlink;

mod driver;
mod socket;
mod stack;
mod sys;

pub use stack::{NAME, Smoltcp, factory};
