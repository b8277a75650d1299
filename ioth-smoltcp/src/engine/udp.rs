//! UDP (RFC 768, RFC 8085, udp(7)).
//!
//! Datagrams wait in the frames that brought them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ioth_core::{Domain, Errno, Events, MsgFlags, RecvMsg, Result, SendMsg, SockAddr};
use ioth_vde::{Checksum, Frame};
use smoltcp::wire::{IpProtocol, UdpPacket};

use super::datagram::{Datagram, Inbox, IpArrival};
use super::icmp::Unreachable;
use super::ports::Space;
use super::sockets::Kind;
use super::wire::{self, IpHeader, UDP_HEADER, ip_header_len};
use super::{Engine, SocketId};

/// Largest datagram, in bytes: RFC 768's length field less the headers.
const MAX_PAYLOAD: usize = 65_535 - UDP_HEADER;

/// A datagram socket.
#[derive(Debug, Default)]
pub(crate) struct Datagrams {
    /// The local address, the port always set.
    pub(crate) bound: Option<SocketAddr>,
    /// The address was chosen by connect(2) and goes with it.
    bound_by_connect: bool,
    /// The port was chosen by connect(2) or a send, and goes with the peer.
    port_chosen: bool,
    pub(crate) peer: Option<SocketAddr>,
    inbox: Inbox,
    shut_read: bool,
    shut_write: bool,
}

impl Datagrams {
    /// The poll bits, as Linux's udp_poll() has them, without a pending error.
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

    /// Length of the datagram that is next: FIONREAD.
    pub(crate) fn next_len(&self) -> usize {
        self.inbox.next_len()
    }
}

impl Engine {
    pub(super) fn udp_bind(&mut self, id: SocketId, addr: SocketAddr) -> Result<()> {
        if self.datagrams_mut(id)?.bound.is_some() {
            return Err(Errno::EINVAL);
        }
        let port = self.bind_port(Space::Udp, id, addr)?;
        self.datagrams_mut(id)?.bound = Some(SocketAddr::new(addr.ip(), port));
        Ok(())
    }

    pub(super) fn udp_connect(&mut self, id: SocketId, peer: SocketAddr) -> Result<()> {
        let ip = match peer.ip() {
            IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            other => other,
        };
        let scope = self.scope_of(id, peer)?;
        let bound = self.datagrams_mut(id)?.bound;
        let source = bound.map(|addr| addr.ip()).filter(|ip| !ip.is_unspecified());
        let path = self.net.tables.route(ip, scope, source).map_err(|error| error.to_errno())?;
        if path.broadcast && !self.sockets[id.0].options.broadcast {
            return Err(Errno::EACCES);
        }
        self.udp_autobind(id)?;
        let datagrams = self.datagrams_mut(id)?;
        let mut peer = peer;
        peer.set_ip(ip);
        datagrams.peer = Some(peer);
        if let Some(bound) = &mut datagrams.bound
            && bound.ip().is_unspecified()
        {
            bound.set_ip(path.source);
            datagrams.bound_by_connect = true;
            let (port, source) = (bound.port(), path.source);
            self.ports.update(Space::Udp, port, id, |binding| binding.addr = source);
        }
        Ok(())
    }

    /// connect(2) with AF_UNSPEC: no peer any more.
    pub(super) fn udp_disconnect(&mut self, id: SocketId) -> Result<()> {
        let wildcard = self.sockets[id.0].wildcard();
        let dual = self.sockets[id.0].domain == Domain::INET6 && !self.sockets[id.0].options.v6_only;
        let datagrams = self.datagrams_mut(id)?;
        datagrams.peer = None;
        if std::mem::take(&mut datagrams.port_chosen) {
            datagrams.bound_by_connect = false;
            self.udp_release(id);
            return Ok(());
        }
        if std::mem::take(&mut datagrams.bound_by_connect)
            && let Some(bound) = &mut datagrams.bound
        {
            bound.set_ip(wildcard);
            let port = bound.port();
            self.ports.update(Space::Udp, port, id, |binding| {
                binding.addr = wildcard;
                binding.dual = dual;
            });
        }
        Ok(())
    }

    pub(super) fn udp_send(&mut self, id: SocketId, message: &SendMsg<'_>, flags: MsgFlags) -> Result<usize> {
        self.udp_autobind(id)?;
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let Datagrams { peer, bound, shut_write, .. } = *self.datagrams_mut(id)?;
        let destination = match message.addr {
            Some(addr) => self.destination(id, addr)?,
            None => peer.ok_or(Errno::EDESTADDRREQ)?,
        };
        if destination.port() == 0 {
            return Err(Errno::EINVAL);
        }
        let len = message.len();
        if len > MAX_PAYLOAD - if destination.is_ipv4() { wire::IPV4_HEADER } else { 0 } {
            return Err(Errno::EMSGSIZE);
        }
        let bound = bound.ok_or(Errno::EINVAL)?;
        let way = self.way(id, destination, Some(bound.ip()), message.control)?;
        let ip = ip_header_len(way.destination);
        if ip + UDP_HEADER + len > way.path.mtu {
            return Err(Errno::EMSGSIZE);
        }
        if let Some(error) = self.take_error(id) {
            return Err(error);
        }
        if shut_write {
            return Err(Errno::EPIPE);
        }
        if self.net.congested(way.path.ifindex) {
            self.stall(id);
            return Err(Errno::EAGAIN);
        }
        let mut packet = Frame::new(ip + UDP_HEADER + len);
        wire::emit_ip(&mut packet, way.source, way.destination, way.attrs(IpProtocol::Udp));
        let mut udp = UdpPacket::new_unchecked(&mut packet[ip..]);
        udp.set_src_port(bound.port());
        udp.set_dst_port(destination.port());
        udp.set_len((UDP_HEADER + len) as u16);
        udp.set_checksum(0);
        let mut at = ip + UDP_HEADER;
        for slice in message.data {
            packet[at..at + slice.len()].copy_from_slice(slice);
            at += slice.len();
        }
        packet.checksum = Checksum::Trusted;
        self.net.output(&way.path, packet);
        Ok(len)
    }

    pub(super) fn udp_recv(
        &mut self,
        id: SocketId,
        message: &mut RecvMsg<'_, '_>,
        flags: MsgFlags,
    ) -> Result<usize> {
        let epoch = self.net.epoch;
        let sock = &mut self.sockets[id.0];
        if let Some(error) = sock.error.take() {
            self.touch(id);
            return Err(error);
        }
        let Kind::Datagrams(datagrams) = &mut sock.kind else { return Err(Errno::EOPNOTSUPP) };
        let Some(len) = datagrams.inbox.receive(sock.domain, &sock.options, epoch, message, flags) else {
            // Linux: the end is told to a receive that would wait, and to no other.
            let ended = datagrams.shut_read && !flags.contains(MsgFlags::DONTWAIT);
            return if ended { Ok(0) } else { Err(Errno::EAGAIN) };
        };
        if datagrams.inbox.is_empty() {
            self.touch(id);
        }
        Ok(len)
    }

    pub(super) fn udp_shutdown(&mut self, id: SocketId, read: bool, write: bool) -> Result<()> {
        let datagrams = self.datagrams_mut(id)?;
        if datagrams.peer.is_none() {
            return Err(Errno::ENOTCONN);
        }
        datagrams.shut_read |= read;
        datagrams.shut_write |= write;
        self.touch(id);
        Ok(())
    }

    pub(super) fn udp_release(&mut self, id: SocketId) {
        if let Ok(datagrams) = self.datagrams_mut(id)
            && let Some(bound) = datagrams.bound.take()
        {
            self.ports.unbind(Space::Udp, bound.port(), id);
        }
    }

    /// A datagram arrived for one of our addresses, or a group or broadcast. Its checksum is right.
    pub(super) fn udp_input(&mut self, ifindex: u32, header: &IpHeader, mut packet: Frame, unicast: bool) {
        packet.truncate(header.total_len);
        let Ok(udp) = UdpPacket::new_checked(&packet[header.payload_at..]) else {
            self.net.drops.malformed += 1;
            return;
        };
        let (source, destination, len) = (udp.src_port(), udp.dst_port(), usize::from(udp.len()));
        let source = SocketAddr::new(header.src, source);
        let local = if unicast { header.dst } else { self.net.answering(ifindex, header.src, header.dst) };
        let (time, ip) = (self.net.now, Some(IpArrival::new(ifindex, header, local)));
        if !unicast {
            let members: Vec<_> =
                self.udp_receivers(ifindex, header.dst, destination, source).map(|(_, id)| id).collect();
            for &id in &members {
                let mut copy = packet.clone();
                copy.pull_front(header.payload_at + UDP_HEADER);
                copy.truncate(len - UDP_HEADER);
                self.udp_deliver(id, Datagram { source: SockAddr::Ip(source), payload: copy, time, ip });
            }
            self.net.drops.no_socket += u64::from(members.is_empty());
            return;
        }
        let receiver =
            self.udp_receivers(ifindex, header.dst, destination, source).max_by_key(|(score, _)| *score);
        let Some((_, id)) = receiver else {
            self.net.drops.no_socket += 1;
            return self.unreachable(&packet, header, Unreachable::Port);
        };
        packet.pull_front(header.payload_at + UDP_HEADER);
        packet.truncate(len - UDP_HEADER);
        self.udp_deliver(id, Datagram { source: SockAddr::Ip(source), payload: packet, time, ip });
    }

    /// An ICMP error about a datagram of ours. Only connected sockets hear of it, and only what is for good.
    pub(super) fn udp_error(&mut self, local: SocketAddr, remote: SocketAddr, errno: Errno) {
        let bindings = self.ports.bindings(Space::Udp, local.port()).iter();
        let fitting: Vec<_> =
            bindings.filter(|binding| binding.fits(local.ip()).is_some()).map(|b| b.id).collect();
        for id in fitting {
            if self.datagrams_mut(id).is_ok_and(|datagrams| same_end(datagrams.peer, remote)) {
                self.sockets[id.0].error = Some(errno);
                self.touch(id);
            }
        }
    }

    /// Who may receive a datagram, with how well the socket fits.
    fn udp_receivers(
        &self,
        ifindex: u32,
        dst: IpAddr,
        port: u16,
        source: SocketAddr,
    ) -> impl Iterator<Item = (u8, SocketId)> + '_ {
        self.ports.bindings(Space::Udp, port).iter().filter_map(move |binding| {
            let fits =
                binding.fits(dst).or_else(|| (dst.is_multicast() && binding.addr == dst).then_some(2))?;
            let sock = self.sockets.get(binding.id.0)?;
            let Kind::Datagrams(datagrams) = &sock.kind else { return None };
            if sock.options.device.is_some_and(|device| device != ifindex) {
                return None;
            }
            match datagrams.peer {
                Some(_) if !same_end(datagrams.peer, source) => None,
                Some(_) => Some((fits + 4, binding.id)),
                None => Some((fits, binding.id)),
            }
        })
    }

    fn udp_deliver(&mut self, id: SocketId, datagram: Datagram) {
        let Some(sock) = self.sockets.get_mut(id.0) else { return };
        let Kind::Datagrams(datagrams) = &mut sock.kind else { return };
        let was_empty = datagrams.inbox.is_empty();
        if !datagrams.inbox.push(datagram, &sock.options) {
            self.net.drops.receive_buffer += 1;
            return;
        }
        if was_empty {
            self.touch(id);
        }
    }

    fn udp_autobind(&mut self, id: SocketId) -> Result<()> {
        if self.datagrams_mut(id)?.bound.is_none() {
            let any = self.sockets[id.0].wildcard();
            // Linux: no free port is EAGAIN for a datagram socket.
            self.udp_bind(id, SocketAddr::new(any, 0)).map_err(|_| Errno::EAGAIN)?;
            self.datagrams_mut(id)?.port_chosen = true;
        }
        Ok(())
    }

    fn datagrams_mut(&mut self, id: SocketId) -> Result<&mut Datagrams> {
        match self.sockets.get_mut(id.0).map(|sock| &mut sock.kind) {
            Some(Kind::Datagrams(datagrams)) => Ok(datagrams),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }
}

/// Whether a peer, which may carry a scope id, is the one that a packet came from.
fn same_end(peer: Option<SocketAddr>, source: SocketAddr) -> bool {
    peer.is_some_and(|peer| peer.ip() == source.ip() && peer.port() == source.port())
}
