//! Segments on their way out: smoltcp's packets are finished, routed and handed to a link.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use ioth_vde::{Checksum, Frame};
use smoltcp::time::Instant;
use smoltcp::wire::TcpPacket;

use super::header::{self, set_mss};
use super::{Conn, Counts, Route};
use crate::engine::iface::{LOOPBACK, MIN_MTU};
use crate::engine::ip_options::IpOptions;
use crate::engine::neigh::Resolution;
use crate::engine::net::Net;
use crate::engine::route::Path;
use crate::engine::wire::{TCP_HEADER, ip_header_len};

/// RTTVAR in microseconds before there was a measurement, as Linux tells it.
const INITIAL_RTTVAR: u64 = 250_000;

/// What TCP_INFO tells of a connection. Times in microseconds, or milliseconds since something happened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) rto: u32,
    pub(crate) rtt: u32,
    pub(crate) rttvar: u32,
    /// Bytes.
    pub(crate) in_flight: usize,
    /// After a loss, until all that was under way then has arrived.
    pub(crate) recovering: bool,
    /// In a row.
    pub(crate) timeouts: u32,
    /// Segments, ever.
    pub(crate) retransmits: u32,
    /// The most segments that were under way at a time: smoltcp does not tell its congestion window.
    pub(crate) window_segments: u32,
    pub(crate) last_sent: u32,
    pub(crate) last_received: u32,
    pub(crate) last_heard: u32,
    pub(crate) path_mtu: u32,
    pub(crate) announced_mss: usize,
    /// Bytes that we let wait at most, and that were read within a round trip at most.
    pub(crate) receive_limit: u32,
    pub(crate) receive_space: u32,
    /// The peer's window scale and ours, where both have one.
    pub(crate) scales: Option<(u8, u8)>,
    pub(crate) sack: bool,
    /// The shortest round trip, once one was measured.
    pub(crate) least_rtt: Option<u32>,
    /// Bytes that were given and not sent.
    pub(crate) unsent: usize,
    /// Bytes that the peer takes, and that it may send.
    pub(crate) send_window: u32,
    pub(crate) receive_window: u32,
    pub(crate) counts: Counts,
}

impl Conn {
    /// Sends a packet that smoltcp built on its way.
    pub(crate) fn transmit(&mut self, net: &mut Net, mut packet: Frame) {
        let ip = ip_header_len(self.tuple.remote_ip);
        let (sequence, segment_len, header_len, acknowledged, window) = {
            let tcp = TcpPacket::new_unchecked(&packet[ip..]);
            (
                tcp.seq_number().0 as u32,
                tcp.segment_len(),
                usize::from(tcp.header_len()),
                tcp.ack_number().0 as u32,
                tcp.window_len(),
            )
        };
        let (syn, rst) = (packet[ip + 13] & 0x02 != 0, packet[ip + 13] & 0x04 != 0);
        let end = sequence.wrapping_add(segment_len as u32);
        let in_flight = self.recovery.in_flight(self.sent.0);
        let mut again = false;
        if rst {
            // The number that a forged acknowledgement named, perhaps: it says nothing of ours.
        } else if end.wrapping_sub(self.sent.0) as i32 > 0 || (syn && self.sent.0 != end) {
            self.flight.on_send(net.now, in_flight == 0);
            self.rtt.on_send(net.now, end);
            self.sent.0 = end;
            self.data_sent = net.now;
            self.flight.most = self.flight.most.max(self.segments_in_flight() as u32);
            self.note_flight(self.recovery.in_flight(end));
        } else if segment_len > 0 && !syn && in_flight > 0 && self.is_needless(sequence, end, acknowledged) {
            return;
        } else if segment_len > 0 && (in_flight > 0 || syn) {
            self.recovery.on_retransmit(sequence);
            self.rtt.on_retransmit();
            self.flight.retransmits = self.flight.retransmits.saturating_add(1);
            again = true;
        }
        let scale = if syn { 0 } else { self.ring_scale() };
        if syn {
            self.given = end;
        }
        self.put_window(&mut packet, ip);
        if !rst {
            self.note_sent(&mut packet, ip);
        }
        if packet[ip + 13] & 0x10 != 0 {
            self.sent.1 = acknowledged;
            self.flight.edge = acknowledged.wrapping_add(u32::from(window) << scale);
        }
        if net.generation() != self.route.generation {
            match net.tables.route(self.first_hop(), self.scope, Some(self.tuple.local_ip)) {
                Ok(path) => self.use_path(net, path),
                Err(_) => {
                    net.drops.no_route += 1;
                    return;
                }
            }
        }
        packet.checksum = Checksum::Trusted;
        if syn {
            set_mss(&mut packet, ip, self.announced_mss());
        }
        let mss = self.wire_mss(header_len);
        let payload = packet.len() - ip - header_len;
        self.count_out(payload, mss, again);
        if payload > mss {
            packet.gso_size = NonZeroU16::new(mss as u16);
        }
        let Some(options) = self.ip_options.clone() else { return self.put_on_link(net, packet) };
        // Linux's ip_queue_xmit(): such a route begins with a neighbour.
        if options.is_strict() && self.route.path.next_hop != self.first_hop() {
            net.drops.no_route += 1;
            return;
        }
        for packet in options.put_into(net, packet) {
            self.put_on_link(net, packet);
        }
    }

    fn put_on_link(&mut self, net: &mut Net, packet: Frame) {
        let ifindex = self.route.path.ifindex;
        if ifindex == LOOPBACK {
            return net.output_loopback(self.route.path.arrival, packet);
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

    /// IP_OPTIONS was set.
    pub(crate) fn set_ip_options(&mut self, net: &Net, options: Option<Arc<IpOptions>>) {
        self.ip_options = options.filter(|_| self.tuple.remote_ip.is_ipv4());
        let hop = self.first_hop();
        if let Ok(path) = net.tables.route(hop, self.scope, Some(self.tuple.local_ip)) {
            self.use_path(net, path);
        }
    }

    /// Where its packets go first.
    fn first_hop(&self) -> IpAddr {
        let remote = self.tuple.remote_ip;
        self.ip_options.as_ref().map_or(remote, |options| options.next(remote))
    }

    /// Bytes of options in its packets' headers.
    fn ip_options_len(&self) -> usize {
        self.ip_options.as_ref().map_or(0, |options| options.len())
    }

    /// The interface that its packets leave by.
    pub(crate) fn ifindex(&self) -> u32 {
        self.route.path.ifindex
    }

    pub(super) fn use_path(&mut self, net: &Net, path: Path) {
        let (gso_max, _) = net.offload(path.ifindex);
        self.route = Route {
            // A route can have been given an MTU that has no room for the headers.
            context_mtu: path
                .mtu
                .max(gso_max)
                .max(MIN_MTU)
                .min(usize::from(u16::MAX) - self.ip_options_len()),
            path,
            generation: net.generation(),
            mac: None,
        };
    }

    /// What a SYN says of its sender. The peer's segment size is kept; smoltcp is told one of its own packet size, so that
    /// it builds super-frames.
    pub(super) fn hear_syn(&mut self, packet: &mut Frame) {
        let ip = ip_header_len(self.tuple.remote_ip);
        let ip = if packet[0] >> 4 == 4 { usize::from(packet[0] & 0x0f) * 4 } else { ip };
        let syn = header::syn_options(packet, ip);
        self.counts.first_window = TcpPacket::new_unchecked(&packet[ip..]).window_len();
        self.peer_scale = syn.scale;
        self.scale_offered |= syn.scale.is_some();
        self.peer_sack = syn.sack;
        match syn.mss {
            Some(mss) => self.peer_mss = usize::from(mss).max(48),
            // smoltcp assumes IPv4's 536 for both.
            None if self.tuple.remote_ip.is_ipv6() => header::give_mss(packet, ip, self.peer_mss),
            None => {}
        }
        // Linux: TCP_MAXSEG holds both ways.
        if let Some(limit) = self.mss_limit.map(usize::from).filter(|limit| *limit < self.peer_mss) {
            self.peer_mss = limit;
            set_mss(packet, ip, limit);
        }
        let path_mss = self.route.path.mtu.saturating_sub(ip_header_len(self.tuple.remote_ip) + TCP_HEADER);
        let coalesces = self.peer_mss >= 536.min(path_mss) || self.mss_limit.is_some();
        if self.route.context_mtu > self.route.path.mtu && coalesces {
            set_mss(packet, ip, self.route.context_mtu - ip_header_len(self.tuple.remote_ip) - TCP_HEADER);
        }
        self.told_mss = header::syn_options(packet, ip).mss;
    }

    /// The segment size that our SYN tells.
    pub(super) fn announced_mss(&self) -> usize {
        let path = self.route.path.mtu.min(usize::from(u16::MAX));
        let mss = path.saturating_sub(ip_header_len(self.tuple.remote_ip) + TCP_HEADER);
        self.mss_limit.map_or(mss, |limit| mss.min(usize::from(limit)))
    }

    /// What TCP_INFO tells.
    pub(crate) fn facts(&self, now: Instant) -> Facts {
        let millis = |since: Instant| u32::try_from((now - since).total_millis()).unwrap_or(u32::MAX);
        let micros = |micros: u64| u32::try_from(micros).unwrap_or(u32::MAX);
        Facts {
            rto: micros(self.rtt.timeout().total_micros()),
            rtt: micros(self.rtt.smoothed().unwrap_or(0)),
            rttvar: micros(self.rtt.variation().unwrap_or(INITIAL_RTTVAR)),
            in_flight: self.recovery.in_flight(self.sent.0),
            recovering: self.recovery.is_under_way(),
            timeouts: self.flight.timeouts,
            retransmits: self.flight.retransmits,
            window_segments: self.flight.most,
            last_sent: millis(self.data_sent),
            last_received: millis(self.data_received),
            last_heard: millis(self.heard),
            path_mtu: self.route.path.mtu as u32,
            announced_mss: self.announced_mss(),
            receive_limit: self.window() as u32,
            receive_space: self.read_at_once() as u32,
            scales: self.peer_scale.map(|peer| (peer.min(14), self.wire_scale())),
            sack: self.peer_sack,
            least_rtt: self.rtt.least().map(micros),
            unsent: self.unsent(),
            send_window: match self.flight.knows_window() {
                true => u32::from(self.flight.window) << self.peer_scale.map_or(0, |scale| scale.min(14)),
                false => u32::from(self.counts.first_window),
            },
            receive_window: self.space.offered.map_or(0, |edge| self.until(edge)) as u32,
            counts: self.counts,
        }
    }

    /// How much payload a segment carries on the wire.
    pub(super) fn wire_mss(&self, header_len: usize) -> usize {
        let path = self.route.path.mtu.min(usize::from(u16::MAX));
        let path_mss = path.saturating_sub(ip_header_len(self.tuple.remote_ip) + header_len);
        // Linux's tcp_mtu_to_mss(): options shorten also what the peer takes.
        path_mss.min(self.peer_mss).saturating_sub(self.ip_options_len()).max(1)
    }

    /// The segment size towards the peer, in bytes of payload: TCP_MAXSEG.
    pub(crate) fn mss(&self) -> usize {
        self.wire_mss(TCP_HEADER)
    }
}
