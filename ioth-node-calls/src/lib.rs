//! Berkeley's calls on the sockets of a node process.
//!
//! A socket of a node process is one end of a pair of AF_UNIX sockets (`ioth_node_proto` tells how). What the pair does by
//! itself is a system call on it; for everything else the node is asked.
//!
//! ```text
//!   ioth-preload: an unmodified program's calls      ioth-node-client: the backend `stack=node`
//!        └───────────────────────────┬──────────────────────────┘
//!   calls, options, data, ioctl      what each call is
//!        │                 │
//!   control: a request   stream, message: through the pair
//!        │                 │
//!        ▼                 ▼
//!   the node process ═══ node's end ═══════════════════ user's end
//! ```
//!
//! There is no thread or lock here, no memory is taken, and nothing is kept by descriptor number: descriptors come and go by
//! fork, exec, dup and SCM_RIGHTS, and what one of them is, is asked of the kernel each time ([`end`]). So every function is as
//! safe in signal handlers, threads and forked children as the system call. None of them calls a function of the C library
//! for which a preloaded library may stand in.
//!
//! Arguments are those of the C functions, since that is what a preloaded library is given: pointers are [`User`]s, which the
//! kernel checks, and errors are numbers ([`Errno`]).
#![deny(unsafe_code)]

mod ancillary;
pub mod calls;
pub mod control;
pub mod data;
mod deadline;
pub mod end;
mod errno;
pub mod ioctl;
mod message;
pub mod options;
mod stream;
pub mod sys;
mod table;

pub use errno::{Errno, Result};
pub use sys::memory::{Plain, User};

use ioth_node_proto::Place;

/// A node process as its programs reach it: what every call takes first.
///
/// Without a place, for a program that has no node, sockets are the host's, and what has to be asked of a node fails with
/// `ENETDOWN`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Client {
    place: Option<Place>,
}

impl Client {
    /// The client of the node that is there.
    pub const fn new(place: Option<Place>) -> Self {
        Client { place }
    }

    /// Where the node is.
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }
}
