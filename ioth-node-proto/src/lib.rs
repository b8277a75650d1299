//! What a node process and the programs on it say to each other.
//!
//! A *node process* holds a stack for programs that know nothing of it. Each of their sockets is one end of an AF_UNIX
//! pair, whose other end the node process has:
//!
//! ```text
//!   program ── read, write, poll, dup, close, sendfile: the kernel's own ──▶ user's end ═══ node's end ──▶ stack
//!      └────── socket, bind, connect, getsockopt, ...: a request ──────────▶ control socket ─────────────────┘
//! ```
//!
//! * **The pair.** A TCP socket is a SOCK_STREAM pair that carries its bytes. All others are SOCK_SEQPACKET pairs that
//!   carry their messages, behind a [`Head`] unless the [`State`] says otherwise. On a listener each message is a
//!   [`Head`] with the peer's address and, as SCM_RIGHTS, the user's end of the connection.
//! * **Whose is it?** The node's end is bound to an abstract name, an [`EndName`], which getpeername(2) of the user's end
//!   shows: in every process that has a duplicate, and after exec(2). Nothing is kept by descriptor number.
//! * **What may be done with it without asking** is the user's end's `SO_PRIORITY`, a [`State`]: the option means nothing
//!   for AF_UNIX, belongs to the open file as O_NONBLOCK does, and both sides set it.
//! * **Control.** A request is one SOCK_SEQPACKET message on a fresh connection to the abstract name of [`Place`], which
//!   programs inherit in [`ENV`], with the token that is there. Where it is about a socket, the user's end goes with it
//!   as SCM_RIGHTS. The reply is one message. Closing the connection takes back a request that waits.
//! * **Names and interfaces** are asked for by requests as well, since libc would ask the host's: replies are a [`Row`].
//!
//! Both sides run on one machine and come from one build: numbers are in its byte order, and [`VERSION`] is compared.
//! Nothing here allocates, calls the system or trusts what it parses.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod end;
mod head;
mod message;
mod place;
mod row;
#[cfg(test)]
mod tests;

pub use end::{EndName, State};
pub use head::{Head, HeadKind};
pub use message::{Op, REQUEST_ROOM, Reply, Request, reply_flags, request_flags, wanted_names};
pub use place::{ENV, Place};
pub use row::{AddrInfo, InterfaceAddress, Item, Row, Wanted};

/// Changes whenever a layout does.
pub const VERSION: u16 = 2;

/// The longest address, in bytes: `struct sockaddr_in6` has 28.
pub const ADDR_MAX: usize = 32;

/// Little helpers over byte arrays: a cursor that never reads or writes outside.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Cursor { bytes }
    }

    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.bytes.split_first_chunk::<N>()?;
        self.bytes = rest;
        Some(*first)
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.bytes
    }
}
