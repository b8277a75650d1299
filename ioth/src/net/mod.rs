//! TCP and UDP in the image of `std::net`: same names, same meaning, on a stack of choice.
//!
//! The plain constructors use the default stack of the thread ([`get_defstack`](crate::get_defstack)); those with
//! `_on` take the stack. Two differences from `std`:
//! * Addresses are literal ([`ToSocketAddrs`]): no name is resolved, since that would ask over the host's network.
//! * There is no descriptor until `into_fd` makes one, for poll(2) and the calls of [`berkeley`](crate::berkeley).
//!
//! Every type waits in three ways: by blocking (with time-outs), by failing with `WouldBlock`, and
//! asynchronously, by methods whose names end with `_async` and by `readable` and `writable`. These need no runtime of their
//! own: any executor will do, as wakers are called by the stack.

mod addr;
mod common;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;

pub use addr::ToSocketAddrs;
pub use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6};
pub use tcp::{Incoming, TcpListener, TcpStream};
pub use udp::UdpSocket;
