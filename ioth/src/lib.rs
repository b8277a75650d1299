//! The Internet of Threads: every process, even every thread, a node of the Internet.
//!
//! A [`Stack`] is one node's TCP/IP, with addresses of its own. Programs talk through it by
//! types in the image of `std::net` ([`net`]) or by Berkeley's calls on real, pollable descriptors
//! ([`berkeley`]).
//!
//! ```text
//!     net::TcpStream ..        berkeley::socket ..
//!            │                        │  descriptor
//!            └────────┬───────────────┘
//!                   Stack            the default one of the thread, of the process, or an explicit one
//!          ┌──────────┼──────────┐
//!     kernel   smoltcp   node   yours        by name, from one table: `register` adds to it
//! ```
//!
//! ```
//! use std::io::{Read, Write};
//! use ioth::{Stack, net::{TcpListener, TcpStream}};
//!
//! let stack = Stack::newstack("kernel", None)?;
//! let listener = TcpListener::bind_on(&stack, "127.0.0.1:0")?;
//! let mut client = TcpStream::connect_on(&stack, listener.local_addr()?)?;
//! let (mut server, _) = listener.accept()?;
//! client.write_all(b"hello")?;
//! let mut hello = [0; 5];
//! server.read_exact(&mut hello)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//! `kernel` (the stacks `kernel` and `vdestack`), `smoltcp` and `node` (a stack in a process of its own) put these backends into
//! the table; `conf` adds configuration strings
//! (`Stack::new`, `Stack::config`). All are on by default.
//!
//! # What it does not do
//! It resolves no names: only literal addresses are taken, since the host's resolver would ask over the host's network.
//! A stack lives and ends with its process, except where its backend says otherwise.
#![forbid(unsafe_code)]

mod backends;
pub mod berkeley;
mod current;
mod error;
pub mod net;
mod stack;
mod table;

/// Configuration strings.
#[cfg(feature = "conf")]
pub use ioth_conf as conf;
/// What a backend is made of, and the types of the socket calls.
pub use ioth_core as core;
pub use ioth_core::netlink::InterfaceAddress;
pub use ioth_core::{
    Cidr, Domain, Errno, Events, MacAddr, Mmsg, MsgFlags, RecvMsg, Registry, SendMsg, Shutdown, SockAddr,
    Socket, SocketType,
};
/// Nodes with a process of their own: the backend `node`.
#[cfg(feature = "node")]
pub use ioth_node_client as node;
/// Virtual Ethernet: links, virtual network locators, the in-process LAN.
pub use ioth_vde as vde;

pub use backends::{backends, builtin, register};
pub use current::{Entered, get_defstack, set_defstack};
pub use error::Error;
pub use stack::Stack;

/// Result of an operation on a [`Stack`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
