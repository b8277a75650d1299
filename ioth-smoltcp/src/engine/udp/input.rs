//! UDP on the way in: who receives a datagram, and who hears of an error.

use std::net::SocketAddr;
use std::sync::Arc;

use ioth_core::{Errno, SockAddr};
use ioth_vde::Frame;
use smoltcp::wire::UdpPacket;

use crate::engine::datagram::{Datagram, Discover, IpArrival, Notice};
use crate::engine::icmp::{Unreachable, carried};
use crate::engine::ip_options::Received;
use crate::engine::ports::{Ends, Space};
use crate::engine::sockets::Kind;
use crate::engine::wire::{self, IpHeader, UDP_HEADER};
use crate::engine::{Engine, SocketId};

impl Engine {
    /// A datagram arrived for one of our addresses, or a group or broadcast. Its checksum is right.
    pub(in crate::engine) fn udp_input(
        &mut self,
        space: Space,
        ifindex: u32,
        header: &IpHeader,
        mut packet: Frame,
        unicast: bool,
    ) {
        packet.truncate(header.total_len);
        let Some((len, covered)) = lengths(space, &packet[header.payload_at..]) else {
            self.net.drops.malformed += 1;
            return;
        };
        let udp = UdpPacket::new_unchecked(&packet[header.payload_at..]);
        let ends = Ends {
            ifindex,
            source: SocketAddr::new(header.src, udp.src_port()),
            destination: SocketAddr::new(header.dst, udp.dst_port()),
        };
        let local = if unicast { header.dst } else { self.net.answering(ifindex, header.src, header.dst) };
        let (time, ip) = (self.net.now, Some(IpArrival::new(ifindex, header, local)));
        let source = SockAddr::Ip(ends.source);
        let options = Received::of(&self.net, header, &packet).map(Arc::new);
        if !unicast {
            let members: Vec<_> = self.udp_group(space, ends).collect();
            for &id in &members {
                if !self.udp_covers(id, covered, len) {
                    continue;
                }
                let Some(kept) = self.udp_filter(id, ifindex, header, &packet, len) else { continue };
                let mut payload = packet.clone();
                payload.pull_front(header.payload_at + UDP_HEADER);
                payload.truncate(kept - UDP_HEADER);
                self.udp_deliver(
                    id,
                    Datagram { source, payload, time, ip, link: None, options: options.clone() },
                );
            }
            self.net.drops.no_socket += u64::from(members.is_empty());
            return;
        }
        let Some(id) = self.udp_receiver(space, ends) else {
            self.net.drops.no_socket += 1;
            return self.unreachable(&packet, header, Unreachable::Port);
        };
        if !self.udp_covers(id, covered, len) {
            return;
        }
        let Some(kept) = self.udp_filter(id, ifindex, header, &packet, len) else { return };
        packet.pull_front(header.payload_at + UDP_HEADER);
        packet.truncate(kept - UDP_HEADER);
        self.udp_deliver(id, Datagram { source, payload: packet, time, ip, link: None, options });
    }

    /// An ICMP error about a datagram of ours, which is quoted: its socket hears of it if it is connected and the error is for
    /// good, or if it wants to hear of all.
    pub(in crate::engine) fn udp_error(
        &mut self,
        space: Space,
        local: SocketAddr,
        remote: SocketAddr,
        notice: &Notice,
        quoted: &[u8],
    ) {
        let ends = Ends { ifindex: self.arrived_by, source: remote, destination: local };
        let Some(id) = self.udp_receiver(space, ends) else { return };
        let sock = &mut self.sockets[id.0];
        let Kind::Datagrams(datagrams) = &sock.kind else { return };
        // RFC 1122 §4.1.3.3. Linux: who wants no path MTU discovery does not hear of it.
        if notice.errno == Errno::EMSGSIZE && sock.options.discover(remote.is_ipv4()) == Discover::Dont {
            return;
        }
        if sock.options.hears_errors(remote.is_ipv4()) {
            self.error_push(id, notice, remote, carried(quoted, UDP_HEADER));
        } else if datagrams.peer.is_some() && notice.fatal {
            sock.error = Some(notice.errno);
            self.touch(id);
        }
    }

    /// Whether a socket may have sent a datagram: one that would have the answer.
    pub(in crate::engine) fn udp_has_sent(
        &self,
        space: Space,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> bool {
        let ends = Ends { ifindex: self.arrived_by, source: remote, destination: local };
        self.udp_receiver(space, ends).is_some()
    }

    fn udp_receiver(&self, space: Space, ends: Ends) -> Option<SocketId> {
        self.ports.receiver(space, &ends, || self.net.random.tuple(ends.destination, ends.source))
    }

    /// The sockets that have a datagram to a group or broadcast, each a copy.
    fn udp_group(&self, space: Space, ends: Ends) -> impl Iterator<Item = SocketId> + '_ {
        let group = ends.destination.ip();
        self.ports.bindings(space, ends.destination.port()).filter_map(move |binding| {
            let takes = binding.score(&ends).is_some()
                && (!group.is_multicast() || self.sockets[binding.id.0].hears(group, ends.ifindex));
            takes.then_some(binding.id)
        })
    }

    /// How much of a datagram of `len` bytes, header included, a socket's filter leaves.
    fn udp_filter(
        &mut self,
        id: SocketId,
        ifindex: u32,
        header: &IpHeader,
        packet: &[u8],
        len: usize,
    ) -> Option<usize> {
        let datagram = &packet[..header.payload_at + len];
        self.filter_ip(id, ifindex, header, datagram, (header.payload_at, UDP_HEADER))
    }

    /// UDPLITE_RECV_CSCOV: whether a socket takes a datagram of `len` bytes of which `covered` are; what is covered whole it
    /// always does (RFC 3828 §3.3).
    fn udp_covers(&mut self, id: SocketId, covered: usize, len: usize) -> bool {
        let Kind::Datagrams(datagrams) = &self.sockets[id.0].kind else { return false };
        let takes = match datagrams.coverage.receive {
            Some(_) if covered == len => true,
            Some(0) => false,
            Some(least) => covered >= usize::from(least),
            None => true,
        };
        self.net.drops.coverage += u64::from(!takes);
        takes
    }

    fn udp_deliver(&mut self, id: SocketId, datagram: Datagram) {
        let Some(sock) = self.sockets.get_mut(id.0) else { return };
        let Kind::Datagrams(datagrams) = &mut sock.kind else { return };
        if datagrams.inbox.push(datagram, &sock.options) {
            self.touch_arrived(id);
        } else {
            self.net.drops.receive_buffer += 1;
        }
    }
}

/// How long a datagram is, and how much of it its checksum covers, both with the header, in bytes. None when the header lies.
fn lengths(space: Space, packet: &[u8]) -> Option<(usize, usize)> {
    if space == Space::UdpLite {
        return wire::coverage(packet).map(|covered| (packet.len(), covered));
    }
    let len = usize::from(UdpPacket::new_checked(packet).ok()?.len());
    Some((len, len))
}
