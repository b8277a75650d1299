//! The backend `node`: a stack in a process of its own.
//!
//! ```text
//!   the program                            node process (the command ioth)
//!   NodeStack ── starts, or joins by name ──▶ stack ───── link
//!   NodeSocket: the user's end ═════════════ node's end
//! ```
//!
//! What a socket of it can do, it can do in every process that has it: after fork(2), after execve(2), when the program that
//! made it has ended. The program has no engine and no thread of the node. It pays with a change of process for each request.
//!
//! * [`NodeStack`] is one node; [`factory`] or [`factory_by`] makes the backend known to a registry.
//! * [`start`](mod@start) starts a node process, [`find`] says by which command, [`named`] has the nodes with a name: both
//!   sides of them, which the command `ioth` shares.
//!
//! How node and program talk is `ioth_node_proto`'s; the calls on sockets are `ioth_node_calls`'.
#![deny(unsafe_code)]

mod error;
pub mod find;
pub mod named;
mod socket;
mod stack;
pub mod start;
mod sys;

pub use error::{Error, Result};
pub use socket::NodeSocket;
pub use stack::{NAME, NodeStack, factory, factory_by};
