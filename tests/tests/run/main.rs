//! Unmodified programs under `ioth run`.
//!
//! ```text
//!   a network namespace whose lo is down, under a filter that refuses the host's sockets and tells of them
//!   program ── node ── vde:// ── vde_switch ── vde:// ── node ── program
//! ```
//! Each test is a *world*: in the end nobody may have asked for the host's network, and no process may be left.
#![forbid(unsafe_code)]

mod command;
mod nginx;
#[path = "../../../ioth-core/tests/support/place.rs"]
mod place;
mod programs;
mod python;
mod socat;
mod sshd;
mod stack;
mod switch;
mod tokio;
mod world;
