//! Raw sockets of IP (raw(7), RFC 3542 §3).
//!
//! A raw socket has a copy of every packet of its protocol, before the protocol itself looks at it: over IPv4 with the IP
//! header, over IPv6 without. Without such a socket a packet costs one look at an empty table.

mod endpoint;
mod input;
mod options;
mod send;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ioth_core::{Domain, Errno, Result, SockAddr};

use super::sockets::Kind;
use super::{Engine, SocketId};
pub(crate) use endpoint::Endpoint;

/// `IPPROTO_RAW`: what is sent has its IP header already.
const RAW: u16 = libc::IPPROTO_RAW as u16;
const ICMPV6: u16 = libc::IPPROTO_ICMPV6 as u16;
/// Mobile IPv6 (RFC 6275).
const MOBILITY: u16 = libc::IPPROTO_MH as u16;

/// A raw socket.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) endpoint: Endpoint,
    /// As it was given to socket(2): above 255 it names none that could arrive.
    protocol: u16,
    /// IP_HDRINCL, IPV6_HDRINCL
    header_included: bool,
    /// IPV6_CHECKSUM: where in the data the checksum is that the node computes and checks.
    checksum: Option<usize>,
    /// ICMP_FILTER and ICMP6_FILTER: types that are not wanted, a bit each.
    blocked: [u32; 8],
    /// Linux: who dissolves an association is no longer found by packets.
    deaf: bool,
}

/// The raw sockets by family and protocol.
#[derive(Debug)]
pub(crate) struct Raws(HashMap<(bool, u16), Vec<SocketId>, FixedState>);

impl Raws {
    pub(crate) fn new(seed: u64) -> Raws {
        Raws(HashMap::with_hasher(FixedState::with_seed(seed)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn of(&self, v6: bool, protocol: u8) -> &[SocketId] {
        self.0.get(&(v6, protocol.into())).map_or(&[], Vec::as_slice)
    }

    fn remove(&mut self, v6: bool, protocol: u16, id: SocketId) {
        if let Some(sockets) = self.0.get_mut(&(v6, protocol)) {
            sockets.retain(|other| *other != id);
            if sockets.is_empty() {
                self.0.remove(&(v6, protocol));
            }
        }
    }
}

impl Raw {
    pub(crate) fn new(domain: Domain, protocol: u16) -> Raw {
        let checksum = match protocol {
            ICMPV6 if domain == Domain::INET6 => Some(2),
            MOBILITY if domain == Domain::INET6 => Some(4),
            _ => None,
        };
        Raw {
            endpoint: Endpoint::default(),
            protocol,
            header_included: protocol == RAW,
            checksum,
            blocked: [0; 8],
            deaf: false,
        }
    }

    /// SO_PROTOCOL
    pub(crate) fn protocol(&self) -> u16 {
        self.protocol
    }

    /// What getsockname(2) shows as the port.
    pub(crate) fn port(&self) -> u16 {
        if self.deaf { 0 } else { self.protocol }
    }
}

impl Engine {
    /// Enters a fresh socket.
    pub(super) fn raw_opened(&mut self, id: SocketId) {
        let sock = &self.sockets[id.0];
        if let Kind::Raw(raw) = &sock.kind {
            let key = (sock.domain == Domain::INET6, raw.protocol);
            self.raws.0.entry(key).or_default().push(id);
        }
    }

    /// bind(2): the address of which packets come. A port is not looked at.
    pub(super) fn raw_bind(&mut self, id: SocketId, addr: &SockAddr) -> Result<()> {
        let v6 = self.sock(id)?.domain == Domain::INET6;
        let addr = match *addr {
            // Linux's raw_bind() takes any family for AF_INET: the address is where AF_INET6 has the flow.
            SockAddr::Ip(SocketAddr::V6(addr)) if !v6 => {
                SocketAddr::from((Ipv4Addr::from(addr.flowinfo()), 0))
            }
            SockAddr::Unspecified if !v6 => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SockAddr::Ip(SocketAddr::V6(addr)) if addr.ip().to_ipv4_mapped().is_some() => {
                return Err(Errno::EADDRNOTAVAIL);
            }
            SockAddr::Ip(addr) if addr.is_ipv6() == v6 => addr,
            _ => return Err(Errno::EINVAL),
        };
        if self.raw_mut(id)?.endpoint.peer.is_some() {
            return Err(Errno::EINVAL);
        }
        self.endpoint_may_bind(id, addr, true)?;
        let local = Some(addr.ip()).filter(|ip| !ip.is_unspecified());
        self.raw_mut(id)?.endpoint.local = local;
        Ok(())
    }

    /// connect(2) with AF_UNSPEC. Linux's __udp_disconnect() takes the socket out of the table for good.
    pub(super) fn raw_disconnect(&mut self, id: SocketId) -> Result<()> {
        let v6 = self.sock(id)?.domain == Domain::INET6;
        self.set_device(id, None);
        let raw = self.raw_mut(id)?;
        raw.endpoint.peer = None;
        raw.endpoint.local = None;
        raw.deaf = true;
        let protocol = raw.protocol;
        self.raws.remove(v6, protocol, id);
        Ok(())
    }

    pub(super) fn raw_release(&mut self, id: SocketId) {
        let v6 = self.sockets[id.0].domain == Domain::INET6;
        if let Kind::Raw(raw) = &self.sockets[id.0].kind {
            self.raws.remove(v6, raw.protocol, id);
        }
    }

    fn raw_mut(&mut self, id: SocketId) -> Result<&mut Raw> {
        match self.sockets.get_mut(id.0).map(|sock| &mut sock.kind) {
            Some(Kind::Raw(raw)) => Ok(raw),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }
}

/// 255.255.255.255 or a group.
pub(super) fn is_shared(ip: IpAddr) -> bool {
    ip.is_multicast() || matches!(ip, IpAddr::V4(v4) if v4.is_broadcast())
}
