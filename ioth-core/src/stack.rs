//! The stack: one node's TCP/IP, whatever runs it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::{Domain, Result, Socket, SocketType};

/// What a backend is asked to make: the argument of a [`Registry`](crate::Registry) factory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StackSpec {
    /// What followed the first comma of the stack's name (`"smoltcp,options"`), verbatim.
    pub options: String,
    /// One virtual network locator an interface, `[ifname:]vnl`; none means loopback only.
    pub vnls: Vec<String>,
}

/// One node of the Internet: interfaces, addresses, routes, and the sockets that live on it.
///
/// State is configured and read through `AF_NETLINK` sockets of the stack and in no other
/// way, but for what [`unheld`](Self::unheld) tells; [`netlink::Route`](crate::netlink::Route) is the convenient client.
///
/// Implementations are shared between threads and must not block, save for a bounded time in [`delete`](Self::delete).
pub trait Stack: Send + Sync + fmt::Debug + 'static {
    /// The name under which the backend is registered, such as `"smoltcp"`.
    fn backend(&self) -> &str;

    /// Makes a socket, as socket(2) does.
    ///
    /// # Errors
    /// `EAFNOSUPPORT`, `EPROTONOSUPPORT`, `ESOCKTNOSUPPORT`, `EMFILE`, `ENOBUFS`, `EPERM`; `ENODEV`
    /// after [`delete`](Self::delete).
    fn socket(&self, domain: Domain, kind: SocketType, protocol: i32) -> Result<Arc<dyn Socket>>;

    /// Ends the node: its links are unplugged and its memory is given back.
    ///
    /// What closed sockets had sent is given a few seconds to leave: to find its neighbour, or to be acknowledged.
    /// Dropping the last reference does the same for a stack without sockets.
    ///
    /// # Errors
    /// `EBUSY` while any of its sockets is open; the stack then goes on unchanged.
    fn delete(&self) -> Result<()>;

    /// The TCP connections that no socket stands for, as ss(8) shows them besides: handshakes at listeners, what waits for
    /// accept(2), what was closed and still delivers, and TIME-WAIT. At most `limit`, of TIME-WAIT the latest.
    ///
    /// For a node whose own `NETLINK_SOCK_DIAG` tells of its sockets; a stack without such tables has none to show.
    fn unheld(&self, limit: usize) -> Vec<Unheld> {
        let _ = limit;
        Vec::new()
    }
}

/// A TCP connection that no socket stands for: see [`Stack::unheld`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unheld {
    /// The family of its socket, where that is known; of TIME-WAIT that of its addresses.
    pub domain: Domain,
    /// Of linux/tcp_states.h.
    pub state: u8,
    /// The node's own address and port.
    pub local: SocketAddr,
    /// The other end's.
    pub peer: SocketAddr,
    /// Index of the interface that it is bound to, 0 for none.
    pub device: u32,
    /// Bytes that wait to be read.
    pub unread: usize,
    /// Bytes that are not acknowledged.
    pub unsent: usize,
    /// How long TIME-WAIT lasts from now.
    pub remaining: Option<Duration>,
}
