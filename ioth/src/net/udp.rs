//! UDP.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ioth_core::{Events, MsgFlags, Socket, SocketType};

use super::addr::{ToSocketAddrs, first};
use super::common::{Inner, common_methods, data_methods};
use crate::{Stack, get_defstack};

/// A UDP socket.
pub struct UdpSocket {
    inner: Arc<Inner>,
}

impl UdpSocket {
    /// A socket on the default stack of the thread, bound to the first of the addresses that can be had.
    ///
    /// # Errors
    /// As bind(2), of the last address.
    pub fn bind(addrs: impl ToSocketAddrs) -> io::Result<Self> {
        UdpSocket::bind_on(&get_defstack()?, addrs)
    }

    /// A socket on `stack`, bound to the first of the addresses that can be had.
    ///
    /// # Errors
    /// As bind(2), of the last address.
    pub fn bind_on(stack: &Stack, addrs: impl ToSocketAddrs) -> io::Result<Self> {
        first(addrs, |addr| {
            let inner = Inner::create(stack, addr, SocketType::DGRAM)?;
            inner.socket.bind(&addr.into())?;
            Ok(UdpSocket { inner })
        })
    }

    /// Sets the peer for [`send`](Self::send), and takes datagrams from nobody else.
    ///
    /// # Errors
    /// As connect(2), of the last address.
    pub fn connect(&self, addrs: impl ToSocketAddrs) -> io::Result<()> {
        first(addrs, |addr| Ok(self.inner.socket.connect(&addr.into())?))
    }

    /// Sends a datagram to the first of the addresses.
    ///
    /// # Errors
    /// As sendto(2); `InvalidInput` for an empty list.
    pub fn send_to(&self, data: &[u8], addrs: impl ToSocketAddrs) -> io::Result<usize> {
        self.inner.send(&[IoSlice::new(data)], Some(one(addrs)?), MsgFlags::empty())
    }

    /// Receives a datagram and its source; what `buffer` cannot take is lost.
    ///
    /// # Errors
    /// As recvfrom(2).
    pub fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.inner.recv_from(buffer, MsgFlags::empty())
    }

    /// As [`recv_from`](Self::recv_from), leaving the datagram queued.
    ///
    /// # Errors
    /// As recvfrom(2).
    pub fn peek_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.inner.recv_from(buffer, MsgFlags::PEEK)
    }

    /// Sends a datagram to the peer.
    ///
    /// # Errors
    /// As send(2): `EDESTADDRREQ` without a peer, `ECONNREFUSED` when it refused an earlier one.
    pub fn send(&self, data: &[u8]) -> io::Result<usize> {
        self.inner.send(&[IoSlice::new(data)], None, MsgFlags::empty())
    }

    /// Receives a datagram of the peer's; what `buffer` cannot take is lost.
    ///
    /// # Errors
    /// As recv(2): `ECONNREFUSED` when the peer refused an earlier datagram.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.recv(&mut [IoSliceMut::new(buffer)], MsgFlags::empty())
    }

    /// As [`recv`](Self::recv), leaving the datagram queued.
    ///
    /// # Errors
    /// As recv(2).
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.recv(&mut [IoSliceMut::new(buffer)], MsgFlags::PEEK)
    }

    /// Allows or forbids sending to broadcast addresses.
    ///
    /// # Errors
    /// As setsockopt(2).
    pub fn set_broadcast(&self, broadcast: bool) -> io::Result<()> {
        self.inner.set_option(libc::SOL_SOCKET, libc::SO_BROADCAST, broadcast.into())
    }

    /// Whether sending to broadcast addresses is allowed.
    ///
    /// # Errors
    /// As getsockopt(2).
    pub fn broadcast(&self) -> io::Result<bool> {
        Ok(self.inner.option(libc::SOL_SOCKET, libc::SO_BROADCAST)? != 0)
    }

    /// Joins an IPv4 multicast group on the interface that has the address `interface`
    /// (unspecified: the stack chooses).
    ///
    /// # Errors
    /// As setsockopt(2).
    pub fn join_multicast_v4(&self, group: &Ipv4Addr, interface: &Ipv4Addr) -> io::Result<()> {
        self.membership_v4(libc::IP_ADD_MEMBERSHIP, group, interface)
    }

    /// Leaves an IPv4 multicast group.
    ///
    /// # Errors
    /// As setsockopt(2).
    pub fn leave_multicast_v4(&self, group: &Ipv4Addr, interface: &Ipv4Addr) -> io::Result<()> {
        self.membership_v4(libc::IP_DROP_MEMBERSHIP, group, interface)
    }

    /// Joins an IPv6 multicast group on the interface with that index (0: the stack chooses).
    ///
    /// # Errors
    /// As setsockopt(2).
    pub fn join_multicast_v6(&self, group: &Ipv6Addr, ifindex: u32) -> io::Result<()> {
        self.membership_v6(libc::IPV6_ADD_MEMBERSHIP, group, ifindex)
    }

    /// Leaves an IPv6 multicast group.
    ///
    /// # Errors
    /// As setsockopt(2).
    pub fn leave_multicast_v6(&self, group: &Ipv6Addr, ifindex: u32) -> io::Result<()> {
        self.membership_v6(libc::IPV6_DROP_MEMBERSHIP, group, ifindex)
    }

    /// Whether multicasts of this IPv4 socket come back to this node.
    ///
    /// # Errors
    /// As setsockopt(2).
    pub fn set_multicast_loop_v4(&self, looped: bool) -> io::Result<()> {
        self.inner.set_option(libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP, looped.into())
    }

    /// Whether multicasts of this IPv6 socket come back to this node.
    ///
    /// # Errors
    /// As setsockopt(2).
    pub fn set_multicast_loop_v6(&self, looped: bool) -> io::Result<()> {
        self.inner.set_option(libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, looped.into())
    }

    /// Sets the time to live of IPv4 multicasts.
    ///
    /// # Errors
    /// As setsockopt(2).
    pub fn set_multicast_ttl_v4(&self, ttl: u32) -> io::Result<()> {
        self.inner.set_option(libc::IPPROTO_IP, libc::IP_MULTICAST_TTL, ttl.try_into().unwrap_or(i32::MAX))
    }

    /// As [`send_to`](Self::send_to), without blocking the thread.
    ///
    /// # Errors
    /// As sendto(2), never `WouldBlock`.
    pub async fn send_to_async(&self, data: &[u8], addrs: impl ToSocketAddrs) -> io::Result<usize> {
        let addr = one(addrs)?;
        let send = || self.inner.send(&[IoSlice::new(data)], Some(addr), MsgFlags::DONTWAIT);
        self.inner.when(Events::OUT, send).await
    }

    /// As [`recv_from`](Self::recv_from), without blocking the thread.
    ///
    /// # Errors
    /// As recvfrom(2), never `WouldBlock`.
    pub async fn recv_from_async(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.inner.when(Events::IN, || self.inner.recv_from(buffer, MsgFlags::DONTWAIT)).await
    }

    /// As [`send`](Self::send), without blocking the thread.
    ///
    /// # Errors
    /// As send(2), never `WouldBlock`.
    pub async fn send_async(&self, data: &[u8]) -> io::Result<usize> {
        let send = || self.inner.send(&[IoSlice::new(data)], None, MsgFlags::DONTWAIT);
        self.inner.when(Events::OUT, send).await
    }

    /// As [`recv`](Self::recv), without blocking the thread.
    ///
    /// # Errors
    /// As recv(2), never `WouldBlock`.
    pub async fn recv_async(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let recv = || self.inner.recv(&mut [IoSliceMut::new(buffer)], MsgFlags::DONTWAIT);
        self.inner.when(Events::IN, recv).await
    }

    /// struct ip_mreq
    fn membership_v4(&self, name: i32, group: &Ipv4Addr, interface: &Ipv4Addr) -> io::Result<()> {
        let value = [group.octets(), interface.octets()].concat();
        Ok(self.inner.socket.set_option(libc::IPPROTO_IP, name, &value)?)
    }

    /// struct ipv6_mreq
    fn membership_v6(&self, name: i32, group: &Ipv6Addr, ifindex: u32) -> io::Result<()> {
        let value = [group.octets().as_slice(), &ifindex.to_ne_bytes()].concat();
        Ok(self.inner.socket.set_option(libc::IPPROTO_IPV6, name, &value)?)
    }
}

common_methods!(UdpSocket);
data_methods!(UdpSocket);

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("UdpSocket");
        if let Ok(local) = self.local_addr() {
            debug.field("local", &local);
        }
        debug.finish_non_exhaustive()
    }
}

fn one(addrs: impl ToSocketAddrs) -> io::Result<SocketAddr> {
    first(addrs, Ok)
}
