//! The node process: a stack whose sockets unmodified programs hold.
//!
//! Programs find it by the environment, and talk to it as `ioth_node_proto` says. Each of their sockets is a *session* here:
//! a socket of the stack, the node's end of the pair, and the movement between both.
//!
//! ```text
//!   control ──▶ session ◀──▶ pair ◀──▶ a program's descriptor
//!                  │
//!                  ▼
//!          a socket of the stack
//! ```
//!
//! All of it happens in the reactor's thread, which waits for the links too: a frame, the socket that it makes ready and
//! the bytes that a program gets need no change of thread.
#![deny(unsafe_code)]

mod control;
pub mod diag;
mod interfaces;
mod lease;
mod lookup;
pub mod names;
mod node;
mod pair;
mod row;
mod session;
mod sys;
mod task;

use std::os::fd::OwnedFd;

use ioth::Errno;
use ioth_node_proto::Place;

/// What a node process and the programs on it say to each other.
pub use ioth_node_proto as proto;

/// What a node process is given to serve.
#[derive(Debug)]
pub struct Setup {
    /// The node.
    pub stack: ioth::Stack,
    /// Its name servers and search domains.
    pub resolver: ioth::conf::Resolver,
    /// Where programs find it: the name that `control` is bound to, and the token that they must show.
    pub place: Place,
    /// A listening SOCK_SEQPACKET socket of AF_UNIX, bound to the abstract name of `place`.
    pub control: OwnedFd,
    /// The reading end of a pipe whose writing end the programs inherit: while one of them has it, the node lives on.
    pub lease: OwnedFd,
}

/// Error returned by [`serve`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A system call failed.
    #[error("node: {what}: {errno}")]
    Os {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        errno: Errno,
    },
}

/// Serves programs until the last of them has gone, and the last of their sockets is closed. Then what closed sockets
/// have sent is given a few seconds to leave.
///
/// # Errors
/// [`ServeError`] when it cannot begin.
pub fn serve(setup: Setup) -> Result<(), ServeError> {
    let stack = setup.stack.clone();
    node::Node::begin(setup)?.wait();
    // What is still open belongs to nobody any more.
    let _ = stack.delete();
    Ok(())
}
