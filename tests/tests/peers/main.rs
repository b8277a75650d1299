//! The user-space stack on Debian's vde_switch, with a Linux kernel in a namespace of its own as its peer.
//!
//! ```text
//!   this process's network namespace            another one
//!   smoltcp ── vde:// ── vde_switch ── vde_plug ── tap0 ── Linux
//! ```
//! The kernel's programs are `std::net` in threads that have entered its namespace.
#![forbid(unsafe_code)]

mod datagrams;
mod debian;
mod failures;
mod fixture;
mod links;
mod names;
mod programs;
mod reach;
mod starved;
mod streams;
mod switches;
mod tables;
mod vdens;
mod vdestack;
mod wirefilter;
