//! Segments on their way out: smoltcp's packets are finished, routed and handed to a link.

use std::num::NonZeroU16;

use ioth_vde::{Checksum, Frame};
use smoltcp::wire::TcpPacket;

use super::header::{lower_window, mss_of, set_mss};
use super::{Conn, Route};
use crate::engine::iface::LOOPBACK;
use crate::engine::neigh::Resolution;
use crate::engine::net::Net;
use crate::engine::route::Path;
use crate::engine::wire::{TCP_HEADER, ip_header_len};

impl Conn {
    /// Sends a packet that smoltcp built on its way.
    pub(crate) fn transmit(&mut self, net: &mut Net, mut packet: Frame) {
        let ip = ip_header_len(self.tuple.remote_ip);
        let (sequence, segment_len, header_len, acknowledged) = {
            let tcp = TcpPacket::new_unchecked(&packet[ip..]);
            (
                tcp.seq_number().0 as u32,
                tcp.segment_len(),
                usize::from(tcp.header_len()),
                tcp.ack_number().0 as u32,
            )
        };
        let syn = packet[ip + 13] & 0x02 != 0;
        let end = sequence.wrapping_add(segment_len as u32);
        if end.wrapping_sub(self.sent.0) as i32 > 0 || syn {
            self.sent.0 = end;
        } else if segment_len > 0 {
            self.recovery.on_retransmit(sequence);
        }
        if syn {
            self.given = end;
        } else {
            lower_window(&mut packet, ip);
        }
        self.sent.1 = acknowledged;
        if net.generation() != self.route.generation {
            match net.tables.route(self.tuple.remote_ip, self.scope, Some(self.tuple.local_ip)) {
                Ok(path) => self.use_path(net, path),
                Err(_) => {
                    net.drops.no_route += 1;
                    return;
                }
            }
        }
        packet.checksum = Checksum::Trusted;
        if syn {
            let mss = self.route.path.mtu.min(usize::from(u16::MAX)).saturating_sub(ip + TCP_HEADER);
            set_mss(&mut packet, ip, mss);
        }
        let mss = self.wire_mss(header_len);
        if packet.len() - ip - header_len > mss {
            packet.gso_size = NonZeroU16::new(mss as u16);
        }
        let ifindex = self.route.path.ifindex;
        if ifindex == LOOPBACK {
            return net.output_loopback(packet);
        }
        if let Some((mac, fresh_until)) = self.route.mac
            && net.now < fresh_until
        {
            return net.output_ethernet(ifindex, mac, packet);
        }
        match net.hardware_address(ifindex, self.route.path.next_hop, packet) {
            Resolution::Known { mac, packet, fresh_until } => {
                self.route.mac = Some((mac, fresh_until));
                self.route.generation = net.generation();
                net.output_ethernet(ifindex, mac, packet);
            }
            Resolution::Queued { ask: true } => net.solicit((ifindex, self.route.path.next_hop), None),
            Resolution::Queued { ask: false } => {}
        }
    }

    /// The interface that its packets leave by.
    pub(crate) fn ifindex(&self) -> u32 {
        self.route.path.ifindex
    }

    pub(super) fn use_path(&mut self, net: &Net, path: Path) {
        let (gso_max, _) = net.offload(path.ifindex);
        self.route = Route {
            context_mtu: path.mtu.max(gso_max).min(usize::from(u16::MAX)),
            path,
            generation: net.generation(),
            mac: None,
        };
    }

    /// The peer's segment size is kept; smoltcp is told one of its own packet size, so that it builds super-frames.
    pub(super) fn rewrite_mss(&mut self, packet: &mut Frame) {
        let ip = if packet[0] >> 4 == 4 {
            usize::from(packet[0] & 0x0f) * 4
        } else {
            crate::engine::wire::IPV6_HEADER
        };
        if let Some(mss) = mss_of(packet, ip) {
            self.peer_mss = usize::from(mss).max(48);
        }
        let path_mss = self.route.path.mtu.saturating_sub(ip_header_len(self.tuple.remote_ip) + TCP_HEADER);
        if self.route.context_mtu > self.route.path.mtu && self.peer_mss >= 536.min(path_mss) {
            set_mss(packet, ip, self.route.context_mtu - ip_header_len(self.tuple.remote_ip) - TCP_HEADER);
        }
    }

    /// How much payload a segment carries on the wire.
    pub(super) fn wire_mss(&self, header_len: usize) -> usize {
        let path = self.route.path.mtu.min(usize::from(u16::MAX));
        let path_mss = path.saturating_sub(ip_header_len(self.tuple.remote_ip) + header_len);
        path_mss.min(self.peer_mss).max(1)
    }

    /// The segment size towards the peer, in bytes of payload: TCP_MAXSEG.
    pub(crate) fn mss(&self) -> usize {
        self.wire_mss(TCP_HEADER)
    }
}
