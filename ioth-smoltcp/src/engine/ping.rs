//! Ping sockets: echo requests and their replies, by datagrams (icmp(7)).
//!
//! The identifier of the echo is the socket's port: the node puts it into what is sent, and finds the socket by it in
//! what comes back.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ioth_core::{Domain, Errno, MsgFlags, Result, SendMsg, SockAddr};
use ioth_vde::Frame;
use smoltcp::wire::IpProtocol;

use super::calls::is_scoped;
use super::datagram::Notice;
use super::raw::Endpoint;
use super::sockets::Kind;
use super::wire::{self, IpHeader, ip_header_len};
use super::{Engine, SocketId, offload};

/// Length of an echo's header, in bytes.
const HEADER: usize = 8;
/// More is refused before anything else is looked at.
const MAX_LENGTH: usize = 65_535;
/// Requests by family, those of RFC 8335 second.
const REQUESTS_V4: [u8; 2] = [8, 42];
const REQUESTS_V6: [u8; 2] = [128, 160];

/// A ping socket.
#[derive(Debug, Default)]
pub(crate) struct Ping {
    pub(crate) endpoint: Endpoint,
    /// The identifier; 0 until there is one.
    pub(crate) ident: u16,
    /// bind(2) named it.
    ident_by_user: bool,
}

/// The ping sockets by identifier, those bound first first.
#[derive(Debug, Default)]
pub(crate) struct Pings(BTreeMap<u16, Vec<SocketId>>);

impl Pings {
    fn of(&self, ident: u16) -> &[SocketId] {
        self.0.get(&ident).map_or(&[], Vec::as_slice)
    }

    fn remove(&mut self, ident: u16, id: SocketId) {
        if let Some(sockets) = self.0.get_mut(&ident) {
            sockets.retain(|other| *other != id);
            if sockets.is_empty() {
                self.0.remove(&ident);
            }
        }
    }
}

impl Engine {
    /// bind(2): the address, and the identifier as its port; 0 has one chosen.
    ///
    /// # Errors
    /// `EAFNOSUPPORT` or over IPv6 `EINVAL` for another family, `EADDRNOTAVAIL`, `EINVAL` when it has an identifier,
    /// `EADDRINUSE`.
    pub(super) fn ping_bind(&mut self, id: SocketId, addr: &SockAddr) -> Result<()> {
        let addr = match (self.sock(id)?.domain, *addr) {
            (Domain::INET, SockAddr::Ip(addr @ SocketAddr::V4(_))) => addr,
            (Domain::INET, SockAddr::Unspecified) => SocketAddr::from(([0, 0, 0, 0], 0)),
            (Domain::INET, _) => return Err(Errno::EAFNOSUPPORT),
            (_, SockAddr::Ip(SocketAddr::V6(addr))) if addr.ip().to_ipv4_mapped().is_none() => addr.into(),
            _ => return Err(Errno::EINVAL),
        };
        self.endpoint_may_bind(id, addr, false)?;
        if self.ping_mut(id)?.ident != 0 {
            return Err(Errno::EINVAL);
        }
        self.ping_take_ident(id, addr.port()).ok_or(Errno::EADDRINUSE)?;
        let ping = self.ping_mut(id)?;
        ping.ident_by_user = addr.port() != 0;
        ping.endpoint.local = Some(addr.ip()).filter(|ip| !ip.is_unspecified());
        ping.endpoint.local_by_connect = false;
        Ok(())
    }

    /// connect(2).
    pub(super) fn ping_connect(&mut self, id: SocketId, addr: &SockAddr) -> Result<()> {
        self.ping_autobind(id)?;
        self.endpoint_connect(id, addr)
    }

    /// connect(2) with AF_UNSPEC: what was chosen goes, what bind(2) named stays.
    pub(super) fn ping_disconnect(&mut self, id: SocketId) -> Result<()> {
        self.set_device(id, None);
        let ping = self.ping_mut(id)?;
        ping.endpoint.peer = None;
        if std::mem::take(&mut ping.endpoint.local_by_connect) {
            ping.endpoint.local = None;
        }
        if !ping.ident_by_user {
            let ident = std::mem::take(&mut ping.ident);
            self.pings.remove(ident, id);
        }
        Ok(())
    }

    /// sendmsg(2): an echo request, whose identifier and checksum are filled in.
    ///
    /// # Errors
    /// `EMSGSIZE`, `EINVAL` for anything but an echo request, `EOPNOTSUPP` for MSG_OOB, `EDESTADDRREQ`, `EAFNOSUPPORT` or over IPv6
    /// `EINVAL` for another family, `EPIPE`, `EAGAIN` without a free identifier and while the link takes nothing, a pending
    /// error, and those of the way.
    pub(super) fn ping_send(
        &mut self,
        id: SocketId,
        message: &SendMsg<'_>,
        flags: MsgFlags,
    ) -> Result<usize> {
        self.ping_autobind(id)?;
        let len = message.len();
        let v6 = self.sockets[id.0].domain == Domain::INET6;
        if len > MAX_LENGTH {
            return Err(Errno::EMSGSIZE);
        }
        if len < HEADER {
            return Err(Errno::EINVAL);
        }
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut start = message.data.iter().flat_map(|slice| slice.iter());
        let (kind, code) = (start.next().copied(), start.next().copied());
        let requests = if v6 { REQUESTS_V6 } else { REQUESTS_V4 };
        if !kind.is_some_and(|kind| requests.contains(&kind)) || code != Some(0) {
            return Err(Errno::EINVAL);
        }
        let Ping { endpoint, ident, .. } = self.ping_mut(id)?;
        let (local, ident, shut) = (endpoint.local, *ident, endpoint.shut_write());
        let destination = match (message.addr, v6) {
            (None, _) => endpoint.peer.ok_or(Errno::EDESTADDRREQ)?,
            (Some(SockAddr::Ip(to @ SocketAddr::V4(_))), false) => *to,
            (Some(_), false) => return Err(Errno::EAFNOSUPPORT),
            (Some(SockAddr::Ip(SocketAddr::V6(to))), true) if to.ip().to_ipv4_mapped().is_none() => {
                SocketAddr::V6(*to)
            }
            (Some(_), true) => return Err(Errno::EINVAL),
        };
        self.ping_scope(id, destination)?;
        let way = self.way(id, destination, local, message.control)?;
        way.takes(len)?;
        if let Some(error) = self.take_error(id) {
            return Err(error);
        }
        if shut {
            return Err(Errno::EPIPE);
        }
        if self.net.congested(way.path.ifindex) {
            self.stall(id);
            return Err(Errno::EAGAIN);
        }
        let ip = ip_header_len(way.destination);
        let mut packet = Frame::new(ip + len);
        let mut at = ip;
        for slice in message.data {
            packet[at..at + slice.len()].copy_from_slice(slice);
            at += slice.len();
        }
        packet[ip + 4..ip + 6].copy_from_slice(&ident.to_be_bytes());
        let protocol = if v6 { IpProtocol::Icmpv6 } else { IpProtocol::Icmp };
        wire::emit_ip(&mut packet, way.source, way.destination, way.attrs(protocol));
        offload::fill_checksums(&mut packet);
        self.send_by(&way, packet);
        Ok(len)
    }

    pub(super) fn ping_release(&mut self, id: SocketId) {
        if let Ok(ping) = self.ping_mut(id) {
            let ident = ping.ident;
            self.pings.remove(ident, id);
        }
    }

    /// An echo reply arrived, whose header is whole: one socket has it.
    pub(super) fn ping_input(&mut self, ifindex: u32, header: &IpHeader, packet: &Frame) {
        let at = header.payload_at;
        let ident = u16::from_be_bytes([packet[at + 4], packet[at + 5]]);
        if let Some(id) = self.ping_receiver(ident, header.dst, Some(ifindex)) {
            self.endpoint_deliver(id, ifindex, header, packet, at);
        }
    }

    /// An ICMP error about an ICMP message of ours, which is quoted from its IP header on.
    pub(super) fn ping_error(&mut self, quoted: &[u8], local: IpAddr, remote: IpAddr, notice: &Notice) {
        let at = if local.is_ipv4() { usize::from(quoted[0] & 0x0f) * 4 } else { wire::IPV6_HEADER };
        let Some(&[kind, 0, _, _, high, low]) = quoted.get(at..at + 6) else { return };
        let requests = if local.is_ipv4() { REQUESTS_V4 } else { REQUESTS_V6 };
        if !requests.contains(&kind) {
            return;
        }
        if let Some(id) = self.ping_receiver(u16::from_be_bytes([high, low]), local, None) {
            self.endpoint_error(id, notice, SocketAddr::new(remote, 0), &quoted[at..]);
        }
    }

    /// The socket that an identifier and an address of ours name. Among several it is the one bound last, as in Linux.
    fn ping_receiver(&self, ident: u16, local: IpAddr, ifindex: Option<u32>) -> Option<SocketId> {
        let fits = |id: &&SocketId| {
            let Some(sock) = self.sockets.get(id.0) else { return false };
            let Kind::Ping(ping) = &sock.kind else { return false };
            (sock.domain == Domain::INET6) == local.is_ipv6()
                && ping.endpoint.local.is_none_or(|bound| bound == local)
                && (ifindex.is_none() || sock.options.device.is_none() || sock.options.device == ifindex)
        };
        self.pings.of(ident).iter().rev().find(fits).copied()
    }

    /// Other than datagram and raw sockets, ping sockets of IPv6 want to be told the link (`ping_v6_sendmsg`).
    fn ping_scope(&self, id: SocketId, destination: SocketAddr) -> Result<()> {
        if destination.is_ipv4() {
            return Ok(());
        }
        let options = &self.sock(id)?.options;
        let group = options.v6_group.ifindex.filter(|_| destination.ip().is_multicast());
        let sticky = options.sticky_v6.and_then(|(_, ifindex)| ifindex);
        let oif = self.scope_of(id, destination)?.or(sticky).or(group);
        let elsewhere = options.device.is_some_and(|device| oif != Some(device));
        match (is_scoped(destination.ip()) && oif.is_none()) || elsewhere {
            true => Err(Errno::EINVAL),
            false => Ok(()),
        }
    }

    fn ping_autobind(&mut self, id: SocketId) -> Result<()> {
        if self.ping_mut(id)?.ident == 0 {
            self.ping_take_ident(id, 0).ok_or(Errno::EAGAIN)?;
        }
        Ok(())
    }

    /// Gives a socket its identifier: the one that is asked for, or with 0 one that nobody has.
    fn ping_take_ident(&mut self, id: SocketId, wanted: u16) -> Option<()> {
        let ident = match wanted {
            0 => {
                let first = self.net.random.next_u64() as u16;
                let all = (0..=u16::MAX).map(|i| first.wrapping_add(i));
                all.filter(|ident| *ident != 0).find(|ident| self.pings.of(*ident).is_empty())?
            }
            wanted => {
                let shares = |id: SocketId| self.sockets[id.0].options.reuse_addr;
                let mine = shares(id);
                let taken = self.pings.of(wanted).iter().any(|other| !(mine && shares(*other)));
                (!taken).then_some(wanted)?
            }
        };
        self.ping_mut(id).ok()?.ident = ident;
        self.pings.0.entry(ident).or_default().push(id);
        Some(())
    }

    fn ping_mut(&mut self, id: SocketId) -> Result<&mut Ping> {
        match self.sockets.get_mut(id.0).map(|sock| &mut sock.kind) {
            Some(Kind::Ping(ping)) => Ok(ping),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }
}
