//! Packets and errors for raw sockets.

use std::net::{IpAddr, SocketAddr};

use ioth_core::Errno;
use ioth_vde::{Checksum, Frame};
use smoltcp::wire::IpProtocol;

use super::Raw;
use crate::engine::datagram::{Discover, Notice};
use crate::engine::icmp::carried;
use crate::engine::sockets::Kind;
use crate::engine::wire::{self, IpHeader};
use crate::engine::{Engine, SocketId, offload};

impl Engine {
    /// Gives a copy of a whole packet to every raw socket of its protocol. True if there is one, whether it wants the
    /// packet or not.
    pub(in crate::engine) fn raw_input(&mut self, ifindex: u32, header: &IpHeader, packet: &Frame) -> bool {
        let ids = self.raw_receivers(header.protocol, header.dst, header.src, Some(ifindex));
        if ids.is_empty() {
            return false;
        }
        let mut whole = packet.clone();
        whole.truncate(header.total_len);
        if whole.checksum == Checksum::Trusted {
            offload::fill_checksums(&mut whole);
        }
        let start = if header.src.is_ipv4() { 0 } else { header.payload_at };
        for id in ids {
            let sock = &self.sockets[id.0];
            let Kind::Raw(raw) = &sock.kind else { continue };
            let hears = !header.dst.is_multicast() || sock.hears(header.dst, ifindex);
            if !hears || raw.blocks(header, &whole) {
                continue;
            }
            if raw.checksum.is_some() && !sums_up(header, &whole) {
                self.net.drops.checksum += 1;
                continue;
            }
            self.endpoint_deliver(id, ifindex, header, &whole, start);
        }
        true
    }

    /// An ICMP error about a packet of ours, which is quoted. Connected sockets hear of what is for good, others of all if they
    /// want to.
    pub(in crate::engine) fn raw_error(
        &mut self,
        protocol: IpProtocol,
        local: IpAddr,
        remote: IpAddr,
        notice: &Notice,
        quoted: &[u8],
    ) {
        for id in self.raw_receivers(protocol, local, remote, None) {
            self.endpoint_error(id, notice, SocketAddr::new(remote, 0), carried(quoted, 0));
        }
    }

    /// Tells a raw or ping socket of an error, if it wants to hear of all; else it has to be connected, the error for good, or over
    /// IPv4 that a packet was too long for a socket that looks for the path's MTU (`raw_err`, `ping_err`).
    pub(in crate::engine) fn endpoint_error(
        &mut self,
        id: SocketId,
        notice: &Notice,
        to: SocketAddr,
        payload: &[u8],
    ) {
        if self.sockets[id.0].options.hears_errors(to.is_ipv4()) {
            return self.error_push(id, notice, to, payload);
        }
        let Ok(endpoint) = self.endpoint_mut(id) else { return };
        let Some(peer) = endpoint.peer else { return };
        let sock = &mut self.sockets[id.0];
        let discovers = sock.options.discover(true) != Discover::Dont;
        if notice.fatal || (notice.errno == Errno::EMSGSIZE && peer.is_ipv4() && discovers) {
            sock.error = Some(notice.errno);
            self.touch(id);
        }
    }

    fn raw_receivers(
        &self,
        protocol: IpProtocol,
        local: IpAddr,
        remote: IpAddr,
        ifindex: Option<u32>,
    ) -> Vec<SocketId> {
        let fits = |id: &&SocketId| {
            let Some(sock) = self.sockets.get(id.0) else { return false };
            let Kind::Raw(Raw { endpoint, .. }) = &sock.kind else { return false };
            endpoint.local.is_none_or(|bound| bound == local)
                && endpoint.peer.is_none_or(|peer| peer.ip() == remote)
                && (ifindex.is_none() || sock.options.device.is_none() || sock.options.device == ifindex)
        };
        self.raws.of(local.is_ipv6(), protocol.into()).iter().filter(fits).copied().collect()
    }
}

impl Raw {
    /// Whether ICMP_FILTER or ICMP6_FILTER keeps a packet from the socket.
    fn blocks(&self, header: &IpHeader, packet: &[u8]) -> bool {
        // Linux: types from 32 on are not blocked over IPv4, where the filter has no bits for them.
        let known = match header.protocol {
            IpProtocol::Icmp if header.src.is_ipv4() => 31,
            IpProtocol::Icmpv6 if header.src.is_ipv6() => 255,
            _ => return false,
        };
        let Some(&kind) = packet.get(header.payload_at) else { return false };
        kind <= known && self.blocked[usize::from(kind >> 5)] & 1 << (kind & 31) != 0
    }
}

/// Whether the data's checksum is right, wherever in it that is.
fn sums_up(header: &IpHeader, packet: &[u8]) -> bool {
    let data = &packet[header.payload_at..header.total_len];
    wire::checksum(wire::pseudo_header(header.src, header.dst, header.protocol, data.len()), data) == 0xffff
}
