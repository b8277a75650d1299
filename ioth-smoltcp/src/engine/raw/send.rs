//! Packets that raw sockets send.

use std::net::{IpAddr, SocketAddr};

use ioth_core::{Domain, Errno, MsgFlags, Result, SendMsg, SockAddr};
use ioth_vde::Frame;

use super::{RAW, Raw};
use crate::engine::datagram::Way;
use crate::engine::wire::{self, IPV4_HEADER, IPV6_HEADER, ip_header_len};
use crate::engine::{Engine, SocketId};

/// Linux: more is refused before anything else is looked at.
const MAX_LENGTH: usize = 65_535;

impl Engine {
    /// sendmsg(2): what follows the IP header, or with IP_HDRINCL the whole packet.
    ///
    /// # Errors
    /// `EMSGSIZE`, `EOPNOTSUPP` for MSG_OOB, `EDESTADDRREQ`, `EINVAL` for a port of IPv6 that is not the protocol and for headers
    /// that cannot be, `EPIPE`, `EAGAIN` while the link takes nothing, a pending error, and those of the way.
    pub(in crate::engine) fn raw_send(
        &mut self,
        id: SocketId,
        message: &SendMsg<'_>,
        flags: MsgFlags,
    ) -> Result<usize> {
        let len = message.len();
        let v6 = self.sock(id)?.domain == Domain::INET6;
        if len > MAX_LENGTH && !v6 {
            return Err(Errno::EMSGSIZE);
        }
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let Raw { protocol, header_included, checksum, endpoint, .. } = self.raw_mut(id)?;
        let (protocol, header_included, checksum) = (*protocol, *header_included, *checksum);
        let (local, shut) = (endpoint.local, endpoint.shut_write());
        let (destination, protocol) = match message.addr {
            Some(addr) => destination(addr, v6, protocol)?,
            None => (endpoint.peer.ok_or(Errno::EDESTADDRREQ)?, protocol),
        };
        let way = self.way(id, destination, local, message.control)?;
        match header_included {
            // "Linux does not mangle headers on raw sockets, so that IP options + IP_HDRINCL is non-sense."
            true if way.options.is_some() => return Err(Errno::EINVAL),
            true if len > way.path.mtu => return Err(Errno::EMSGSIZE),
            true => {}
            false => way.takes(len)?,
        }
        // Linux: without IP_HDRINCL neither is looked at (ip_append_data() without a transport header).
        if header_included {
            if let Some(error) = self.take_error(id) {
                return Err(error);
            }
            if shut {
                return Err(Errno::EPIPE);
            }
        }
        if self.net.congested(way.path.ifindex) {
            self.stall(id);
            return Err(Errno::EAGAIN);
        }
        if header_included {
            let packet = self.whole(&way, gathered(message, 0))?;
            // Linux sends anything; what is of another version nobody would take.
            match packet[0] >> 4 {
                4 | 6 => self.send_as_it_is(&way, packet),
                _ => self.net.drops.malformed += 1,
            }
            return Ok(len);
        }
        let ip = ip_header_len(way.destination);
        let mut packet = gathered(message, ip);
        wire::emit_ip(&mut packet, way.source, way.destination, way.attrs((protocol as u8).into()));
        if let Some(at) = checksum.filter(|_| v6) {
            // Linux: the two bytes have to be in the data.
            if at + 2 > len {
                return Err(Errno::EINVAL);
            }
            fill(&mut packet[ip..], at, &way, protocol);
        }
        self.send_by(&way, packet);
        Ok(len)
    }

    /// A packet with its IP header, of which Linux fills in what raw(7) says (`raw_send_hdrinc`).
    fn whole(&mut self, way: &Way, mut packet: Frame) -> Result<Frame> {
        if way.destination.is_ipv6() {
            // ipv6(7): the header is sent as it is.
            return if packet.len() < IPV6_HEADER { Err(Errno::EINVAL) } else { Ok(packet) };
        }
        if packet.len() < IPV4_HEADER {
            return Err(Errno::EINVAL);
        }
        let header_len = usize::from(packet[0] & 0x0f) * 4;
        if header_len < IPV4_HEADER || header_len > packet.len() {
            return Err(Errno::EINVAL);
        }
        let len = packet.len() as u16;
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        if packet[4..6] == [0; 2] {
            let ident = self.net.random.next_u64() as u16;
            packet[4..6].copy_from_slice(&ident.to_be_bytes());
        }
        if let (IpAddr::V4(source), [0, 0, 0, 0]) = (way.source, &packet[12..16]) {
            packet[12..16].copy_from_slice(&source.octets());
        }
        wire::fill_ipv4_checksum(&mut packet);
        Ok(packet)
    }
}

/// The destination and the protocol that its port names: over IPv6 it is the socket's own, or any with IPPROTO_RAW.
fn destination(addr: &SockAddr, v6: bool, protocol: u16) -> Result<(SocketAddr, u16)> {
    match *addr {
        SockAddr::Ip(addr @ SocketAddr::V4(_)) if !v6 => Ok((addr, protocol)),
        // Linux takes AF_UNSPEC for AF_INET; the address is not kept, as it means nothing elsewhere.
        SockAddr::Unspecified if !v6 => Ok((SocketAddr::from(([0, 0, 0, 0], 0)), protocol)),
        _ if !v6 => Err(Errno::EAFNOSUPPORT),
        SockAddr::Ip(addr @ SocketAddr::V6(to)) => {
            let protocol = match addr.port() {
                0 => protocol,
                port if port != protocol && protocol != RAW => return Err(Errno::EINVAL),
                port if port > 255 => return Err(Errno::EINVAL),
                port => port,
            };
            if to.ip().to_ipv4_mapped().is_some() {
                return Err(Errno::ENETUNREACH);
            }
            Ok((addr, protocol))
        }
        _ => Err(Errno::EINVAL),
    }
}

/// The data behind `room` bytes for a header.
fn gathered(message: &SendMsg<'_>, room: usize) -> Frame {
    let mut packet = Frame::new(room + message.len());
    let mut at = room;
    for slice in message.data {
        packet[at..at + slice.len()].copy_from_slice(slice);
        at += slice.len();
    }
    packet
}

/// IPV6_CHECKSUM: computes the checksum over pseudo-header and data in place.
fn fill(data: &mut [u8], at: usize, way: &Way, protocol: u16) {
    data[at..at + 2].fill(0);
    let protocol = (protocol as u8).into();
    let mut sum =
        !wire::checksum(wire::pseudo_header(way.source, way.destination, protocol, data.len()), data);
    // RFC 8200 §8.1: UDP has no checksum of zero.
    if sum == 0 && protocol == smoltcp::wire::IpProtocol::Udp {
        sum = 0xffff;
    }
    data[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}
