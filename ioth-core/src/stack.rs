//! The stack: one node's TCP/IP, whatever runs it.

use std::fmt;
use std::sync::Arc;

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
/// way; [`netlink::Route`](crate::netlink::Route) is the convenient client.
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
}
