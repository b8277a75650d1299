//! What raw and ping sockets share: addresses without ports, and the queue.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ioth_core::{Domain, Errno, Events, MsgFlags, RecvMsg, Result, SockAddr};
use ioth_vde::Frame;

use super::is_shared;
use crate::engine::calls::{is_scoped, scope_id};
use crate::engine::datagram::{Datagram, Inbox, IpArrival};
use crate::engine::ip_options::Received;
use crate::engine::sockets::Kind;
use crate::engine::wire::IpHeader;
use crate::engine::{Engine, SocketId};

/// One end of what a socket without ports may be connected to.
#[derive(Debug, Default)]
pub(crate) struct Endpoint {
    /// By bind(2) or connect(2); `None` for any.
    pub(crate) local: Option<IpAddr>,
    /// connect(2) chose it.
    pub(crate) local_by_connect: bool,
    /// With the port that connect(2) was given, which means nothing.
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) inbox: Inbox,
    shut_read: bool,
    shut_write: bool,
}

impl Endpoint {
    /// The poll bits without a pending error.
    pub(crate) fn events(&self) -> Events {
        let mut events = Events::OUT;
        if self.shut_read {
            events |= Events::IN | Events::RDHUP;
        }
        if self.shut_read && self.shut_write {
            events |= Events::HUP;
        }
        if !self.inbox.is_empty() {
            events |= Events::IN;
        }
        events
    }

    /// Whether shutdown(2) ended sending.
    pub(crate) fn shut_write(&self) -> bool {
        self.shut_write
    }
}

impl Engine {
    /// Whether bind(2) may give a socket an address; a scope id binds it to its interface.
    ///
    /// # Errors
    /// `EINVAL` for a link-local address without its interface, `ENODEV`, `EADDRNOTAVAIL`.
    pub(in crate::engine) fn endpoint_may_bind(
        &mut self,
        id: SocketId,
        addr: SocketAddr,
        groups: bool,
    ) -> Result<()> {
        let (ip, scoped) = (addr.ip(), is_scoped(addr.ip()));
        // Linux's ping_check_bind_addr() takes any scope id seriously, and wants one where it means something.
        let scope = scope_id(addr).filter(|_| scoped || !groups);
        if !groups && ip.is_ipv6() && (ip.is_multicast() || (scoped && scope.is_none())) {
            return Err(Errno::EINVAL);
        }
        let bound = self.sockets[id.0].options.device;
        let device = scope.or(bound);
        if scoped && device.is_none() {
            return Err(Errno::EINVAL);
        }
        if ip.is_ipv6() && device.is_some_and(|device| self.net.tables.iface(device).is_none()) {
            return Err(Errno::ENODEV);
        }
        if scoped && groups {
            self.set_device(id, device);
        }
        let group = groups && (is_shared(ip) || self.is_subnet_broadcast(ip));
        let free = self.sockets[id.0].options.free_bind && !is_shared(ip);
        if !(ip.is_unspecified() || group || free || self.owns(ip, device)) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        if scoped {
            self.set_device(id, device);
        }
        Ok(())
    }

    /// connect(2).
    pub(in crate::engine) fn endpoint_connect(&mut self, id: SocketId, addr: &SockAddr) -> Result<()> {
        let domain = self.sock(id)?.domain;
        let peer = match *addr {
            SockAddr::Ip(peer) if peer.is_ipv6() == (domain == Domain::INET6) => peer,
            _ => return Err(Errno::EAFNOSUPPORT),
        };
        if matches!(peer, SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some()) {
            return Err(Errno::ENETUNREACH);
        }
        self.connect_scope(id, peer)?;
        let local = self.endpoint_mut(id)?.local;
        let way = self.way(id, peer, local, &[])?;
        let endpoint = self.endpoint_mut(id)?;
        endpoint.peer = Some(SocketAddr::new(way.destination, peer.port()));
        if endpoint.local.is_none() {
            endpoint.local = Some(way.source);
            endpoint.local_by_connect = true;
        }
        Ok(())
    }

    pub(in crate::engine) fn endpoint_recv(
        &mut self,
        id: SocketId,
        message: &mut RecvMsg<'_, '_>,
        flags: MsgFlags,
    ) -> Result<usize> {
        if let Some(error) = self.take_error(id) {
            return Err(error);
        }
        let epoch = self.net.epoch;
        let sock = &mut self.sockets[id.0];
        let (endpoint, flags) = match &mut sock.kind {
            Kind::Raw(raw) => (&mut raw.endpoint, flags),
            // Linux's ping_recvmsg() reports what it copied, whatever is asked for.
            Kind::Ping(ping) => (&mut ping.endpoint, flags - MsgFlags::TRUNC),
            _ => return Err(Errno::EOPNOTSUPP),
        };
        let Some(len) = endpoint.inbox.receive(sock.domain, &sock.options, epoch, message, flags) else {
            // Linux: only a call that would wait finds the end.
            let ended = endpoint.shut_read && !flags.contains(MsgFlags::DONTWAIT);
            return if ended { Ok(0) } else { Err(Errno::EAGAIN) };
        };
        if endpoint.inbox.is_empty() {
            self.touch(id);
        }
        Ok(len)
    }

    pub(in crate::engine) fn endpoint_shutdown(
        &mut self,
        id: SocketId,
        read: bool,
        write: bool,
    ) -> Result<()> {
        let endpoint = self.endpoint_mut(id)?;
        let connected = endpoint.peer.is_some();
        endpoint.shut_read |= read;
        endpoint.shut_write |= write;
        self.touch(id);
        // Linux's inet_shutdown() shuts all the same: who waits to receive hears of it.
        if connected { Ok(()) } else { Err(Errno::ENOTCONN) }
    }

    /// Gives a socket what follows `start` in a packet, as much as its filter leaves.
    pub(in crate::engine) fn endpoint_deliver(
        &mut self,
        id: SocketId,
        ifindex: u32,
        header: &IpHeader,
        packet: &Frame,
        start: usize,
    ) {
        let Some(kept) = self.filter_ip(id, ifindex, header, packet, (start, 1)) else { return };
        let local = match self.net.tables.is_local(header.dst, Some(ifindex)) {
            Some(_) => header.dst,
            None => self.net.answering(ifindex, header.src, header.dst),
        };
        let mut payload = packet.clone();
        payload.pull_front(start);
        payload.truncate(kept);
        let source = SockAddr::Ip(SocketAddr::new(header.src, 0));
        let ip = Some(IpArrival::new(ifindex, header, local));
        let options = Received::of(&self.net, header, packet).map(Arc::new);
        let datagram = Datagram { source, payload, time: self.net.now, ip, link: None, options };
        let sock = &mut self.sockets[id.0];
        let endpoint = match &mut sock.kind {
            Kind::Raw(raw) => &mut raw.endpoint,
            Kind::Ping(ping) => &mut ping.endpoint,
            _ => return,
        };
        let was_empty = endpoint.inbox.is_empty();
        if !endpoint.inbox.push(datagram, &sock.options) {
            self.net.drops.receive_buffer += 1;
        } else if was_empty {
            self.touch(id);
        }
    }

    pub(in crate::engine) fn endpoint_mut(&mut self, id: SocketId) -> Result<&mut Endpoint> {
        match self.sockets.get_mut(id.0).map(|sock| &mut sock.kind) {
            Some(Kind::Raw(raw)) => Ok(&mut raw.endpoint),
            Some(Kind::Ping(ping)) => Ok(&mut ping.endpoint),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }
}
