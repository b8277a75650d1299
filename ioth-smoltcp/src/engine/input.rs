//! Packets on their way in: checked, and handed to whoever they are for.

use std::net::IpAddr;

use ioth_vde::{Checksum, Frame};
use smoltcp::wire::IpProtocol;

use super::icmp::Unreachable;
use super::iface::LOOPBACK;
use super::ports::Space;
use super::reassembly::{self, Expired, Outcome};
use super::wire::{self, Fragment, IpError, IpHeader};
use super::{Engine, ip_options};

impl Engine {
    /// An IP packet without its Ethernet header.
    pub(super) fn ip_input(&mut self, ifindex: u32, packet: Frame) {
        // RFC 8200 §4.5: what was put together is not put together again; a packet within a packet could nest without end.
        if let Some(whole) = self.ip_piece(ifindex, packet, false, false)
            && self.ip_piece(ifindex, whole, false, true).is_some()
        {
            self.net.drops.malformed += 1;
        }
    }

    /// A packet of ours to ourselves, or to a group that we listen to.
    pub(super) fn ip_looped(&mut self, ifindex: u32, packet: Frame) {
        if let Some(whole) = self.ip_piece(ifindex, packet, true, false) {
            self.ip_piece(ifindex, whole, true, true);
        }
    }

    /// A packet or a piece of one; `joined` was put together. Returns the packet that the piece made whole.
    fn ip_piece(&mut self, ifindex: u32, mut packet: Frame, own: bool, joined: bool) -> Option<Frame> {
        self.arrived_by = ifindex;
        let verify = packet.checksum == Checksum::Present;
        let header = match wire::parse_ip(&packet, verify) {
            Ok(header) => IpHeader { fragmented: header.fragmented || joined, ..header },
            Err(IpError::UnknownOption { pointer, answer_multicast }) => {
                self.net.drops.malformed += 1;
                if let Some(header) = self.complains(ifindex, &packet, pointer, answer_multicast, own) {
                    self.unreachable(&packet, &header, Unreachable::Option(pointer));
                }
                return None;
            }
            Err(IpError::UnknownRouting { pointer }) => {
                self.net.drops.malformed += 1;
                if let Some(header) = self.complains(ifindex, &packet, pointer, false, own) {
                    self.unreachable(&packet, &header, Unreachable::Field(pointer));
                }
                return None;
            }
            Err(IpError::Malformed | IpError::Discard) => {
                self.net.drops.malformed += 1;
                return None;
            }
        };
        // RFC 1122 §3.2.1.3, RFC 4291 §2.5.3 and §2.7: what may not be a source, or only within the node.
        let outside = ifindex != LOOPBACK && !own;
        let loopback = header.src.is_loopback() || header.dst.is_loopback();
        // An answer to one of these would be a broadcast: of 0.0.0.0/8 only the address itself means somebody.
        let broadcast = matches!(header.src, IpAddr::V4(v4) if self.net.tables.is_broadcast(v4, ifindex)
            || (v4.octets()[0] == 0 && !v4.is_unspecified()));
        if header.src.is_multicast() || broadcast || (loopback && outside) {
            self.net.drops.martian += 1;
            return None;
        }
        // Nobody else has our address: an answer would go to ourselves. What ICMPv6 makes of it is duplicate address
        // detection's affair.
        if outside
            && header.protocol != IpProtocol::Icmpv6
            && self.net.tables.is_local(header.src, None).is_some()
        {
            self.net.drops.martian += 1;
            return None;
        }
        let unicast = match self.net.tables.is_local(header.dst, Some(ifindex)) {
            Some(_) => true,
            None if header.dst.is_multicast() => {
                if !self.net.tables.is_member(header.dst, ifindex) {
                    self.net.drops.not_ours += 1;
                    return None;
                }
                false
            }
            None => {
                if !matches!(header.dst, IpAddr::V4(v4) if self.net.tables.is_broadcast(v4, ifindex)) {
                    self.net.drops.not_ours += 1;
                    return None;
                }
                false
            }
        };
        if header.src.is_ipv4() && header.payload_at > wire::IPV4_HEADER && !joined {
            let local = match unicast {
                true => header.dst,
                false => self.net.answering(ifindex, header.src, header.dst),
            };
            match ip_options::arrive(&self.net, &header, &mut packet, local) {
                Ok(arrived) if arrived.source_route => {
                    self.net.drops.source_route += 1;
                    return None;
                }
                Ok(_) => {}
                Err(pointer) => {
                    self.net.drops.malformed += 1;
                    self.unreachable(&packet, &header, Unreachable::Field(pointer));
                    return None;
                }
            }
        }
        if let Some(fragment) = header.fragment {
            return self.reassemble(ifindex, &header, fragment, packet);
        }
        // A raw socket sees what is wrong, too.
        let raw = !self.raws.is_empty() && self.raw_input(ifindex, &header, &packet);
        if verify && !wire::verify_checksum(&packet, &header) {
            self.net.drops.checksum += 1;
            return None;
        }
        packet.truncate(header.total_len);
        match header.protocol {
            IpProtocol::Tcp if unicast && !header.src.is_unspecified() => {
                self.tcp_input(ifindex, &header, packet)
            }
            IpProtocol::Tcp => self.net.drops.martian += 1,
            IpProtocol::Udp => self.udp_input(Space::Udp, ifindex, &header, packet, unicast),
            wire::UDP_LITE => self.udp_input(Space::UdpLite, ifindex, &header, packet, unicast),
            IpProtocol::Igmp if header.src.is_ipv4() => self.net.input_igmp(ifindex, &header, &packet),
            IpProtocol::Icmp if header.src.is_ipv4() => self.icmp_input(ifindex, &header, packet, unicast),
            IpProtocol::Icmpv6 if header.src.is_ipv6() => self.icmp_input(ifindex, &header, packet, unicast),
            // RFC 8200 §4.7: "no next header" is nothing to complain about.
            IpProtocol::Ipv6NoNxt => {}
            _ if raw => {}
            _ if unicast => {
                self.net.drops.no_socket += 1;
                // RFC 8200 §4: the pointer names the field that holds the unknown number.
                self.unreachable(&packet, &header, Unreachable::Protocol(next_header_at(&packet, &header)));
            }
            _ => self.net.drops.no_socket += 1,
        }
        None
    }

    /// A piece of a packet, for one of our addresses or groups.
    fn reassemble(
        &mut self,
        ifindex: u32,
        header: &IpHeader,
        fragment: Fragment,
        packet: Frame,
    ) -> Option<Frame> {
        let bounds = match reassembly::bounds(header, fragment) {
            Ok(bounds) => bounds,
            Err(pointer) => {
                self.net.drops.malformed += 1;
                if let Some(pointer) = pointer {
                    self.unreachable(&packet, header, Unreachable::Field(pointer));
                }
                return None;
            }
        };
        if header.src.is_ipv6() && fragment.offset == 0 && !wire::has_all_headers(&packet, header) {
            self.net.drops.malformed += 1;
            let packet = &packet[..header.total_len];
            let upper = wire::upper_layer(packet, header.protocol, header.payload_at);
            let (protocol, payload_at) = upper.unwrap_or((header.protocol, header.payload_at));
            let header = IpHeader { protocol, payload_at, ..*header };
            self.unreachable(packet, &header, Unreachable::Incomplete);
            return None;
        }
        match self.net.reassembly.insert(self.net.now, ifindex, header, fragment, bounds, packet) {
            Outcome::Whole(whole) => return Some(whole),
            Outcome::Waiting => {}
            Outcome::Overlapping => self.net.drops.fragments += 1,
        }
        None
    }

    /// Packets of which a piece did not come in time: their senders hear of it (RFC 792, RFC 4443 §3.3).
    pub(super) fn reassembly_expired(&mut self) {
        if self.net.reassembly.next_deadline().is_none_or(|next| self.net.now < next) {
            return;
        }
        let mut expired = Vec::new();
        self.net.reassembly.poll(self.net.now, &mut expired);
        for Expired { ifindex, first } in expired {
            self.net.drops.fragments += 1;
            // "If fragment zero is not available then no time exceeded need be sent at all."
            if let Some(first) = first
                && let Ok(header) = wire::parse_ip(&first, false)
            {
                self.arrived_by = ifindex;
                self.unreachable(&first, &header, Unreachable::Reassembly);
            }
        }
    }

    /// RFC 8200 §4.2, §4.4: the sender of an option or routing header that is not known wants to hear of it. Returns what the answer needs of the IP
    /// header, if there is to be one.
    fn complains(
        &self,
        ifindex: u32,
        packet: &Frame,
        pointer: u32,
        answer_multicast: bool,
        own: bool,
    ) -> Option<IpHeader> {
        let addr = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
        let (src, dst) = (addr(8)?, addr(24)?);
        let tables = &self.net.tables;
        let outside = ifindex != LOOPBACK && !own;
        let loopback = src.is_loopback() || dst.is_loopback();
        if outside && (loopback || tables.is_local(src, None).is_some()) {
            return None;
        }
        // RFC 8200 §4: other headers than the hop-by-hop options are "not processed [...] until the packet reaches the
        // node (or each of the set of nodes, in the case of multicast)" that it is for.
        let hop_by_hop = wire::IPV6_HEADER + (usize::from(*packet.get(wire::IPV6_HEADER + 1)?) + 1) * 8;
        let by_the_way =
            IpProtocol::from(packet[6]) == IpProtocol::HopByHop && (pointer as usize) < hop_by_hop;
        let ours = match dst.is_multicast() {
            true => answer_multicast && (by_the_way || tables.is_member(dst, ifindex)),
            false => by_the_way || tables.is_local(dst, Some(ifindex)).is_some(),
        };
        if !ours {
            return None;
        }
        let payload = u16::from_be_bytes([packet[4], packet[5]]);
        let total_len = packet.len().min(wire::IPV6_HEADER + usize::from(payload));
        // RFC 4443 §2.4(e.1): never about an ICMPv6 error, however far behind it is.
        let upper = wire::upper_layer(&packet[..total_len], packet[6].into(), wire::IPV6_HEADER);
        let (protocol, payload_at) = upper.unwrap_or((IpProtocol::Ipv6NoNxt, total_len));
        Some(IpHeader {
            src,
            dst,
            protocol,
            payload_at,
            total_len,
            hop_limit: packet[7],
            traffic_class: 0,
            fragment: None,
            fragmented: false,
        })
    }
}

/// Where in the packet the number of the upper layer's protocol stands.
fn next_header_at(packet: &[u8], header: &IpHeader) -> u32 {
    if header.src.is_ipv4() || header.payload_at == wire::IPV6_HEADER {
        return 6;
    }
    let (mut at, mut field) = (wire::IPV6_HEADER, 6);
    while at < header.payload_at {
        field = at as u32;
        at += (usize::from(packet.get(at + 1).copied().unwrap_or(0)) + 1) * 8;
    }
    field
}
