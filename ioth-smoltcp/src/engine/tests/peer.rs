//! A peer that says what it is told to, segment by segment, to one engine, and writes down what it hears.
//!
//! What is expected in the tests was seen on Linux, asked the same over a TUN device. Sequence numbers are told from
//! each side's first one on.

use std::collections::VecDeque;
use std::net::IpAddr;

use ioth_core::{Domain, Errno, Result, SockAddr, SocketType};
use ioth_vde::{Batch, Frame};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{IpProtocol, TcpPacket, TcpSeqNumber};

use super::lan::{ETH, WIRE, addr, mac, node, recv};
use crate::engine::wire::{
    IPV6_HEADER, IpAttrs, TCP_HEADER, emit_ip, fill_checksum, ip_header_len, parse_ip,
};
use crate::engine::{Engine, SocketId};

pub(crate) const F: u8 = 0x01;
pub(crate) const S: u8 = 0x02;
pub(crate) const R: u8 = 0x04;
pub(crate) const P: u8 = 0x08;
pub(crate) const A: u8 = 0x10;
pub(crate) const U: u8 = 0x20;

/// Our first sequence number.
const FIRST: u32 = u32::MAX - 500;
const WINDOW: u16 = 65_535;
/// The engine is node 0, we are node 1.
const US: usize = 1;

/// A peer and the engine that it talks to.
pub(crate) struct Peer {
    pub(crate) engine: Engine,
    pub(crate) now: Instant,
    pub(crate) v6: bool,
    /// The engine's port and ours.
    pub(crate) ports: [u16; 2],
    /// The next sequence number of ours, and of the engine's.
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    /// Where both began.
    first: [u32; 2],
    pub(crate) window: u16,
    pub(crate) options: Vec<u8>,
    /// Packets arrive in one batch: the engine has no time for answers between them.
    pub(crate) in_batch: bool,
    /// The urgent pointer of our segments.
    pub(crate) urgent: u16,
    /// The window in the engine's last segment.
    pub(crate) offered: u16,
    /// What was heard and not asked for yet: IP packets.
    heard: VecDeque<Vec<u8>>,
}

impl Peer {
    pub(crate) fn new(v6: bool) -> Peer {
        let mut peer = Peer {
            engine: node(0, WIRE),
            now: Instant::from_secs(1),
            v6,
            ports: [80, 4000],
            seq: FIRST,
            ack: 0,
            first: [0, FIRST],
            window: WINDOW,
            options: Vec::new(),
            in_batch: false,
            urgent: 0,
            offered: 0,
            heard: VecDeque::new(),
        };
        peer.engine.set_now(peer.now);
        peer
    }

    pub(crate) fn stream(&mut self) -> SocketId {
        let domain = if self.v6 { Domain::INET6 } else { Domain::INET };
        self.engine.socket(domain, SocketType::STREAM, 0).unwrap()
    }

    /// A listener on the engine.
    pub(crate) fn listener(&mut self, backlog: i32) -> SocketId {
        let id = self.stream();
        self.engine.bind(id, &SockAddr::Ip(addr(0, self.v6, self.ports[0]))).unwrap();
        self.engine.listen(id, backlog).unwrap();
        id
    }

    /// A connection of ours that the engine accepted; nobody listens any more.
    pub(crate) fn accepted(v6: bool) -> (Peer, SocketId) {
        Peer::accepted_with(v6, &[2, 4, 5, 100])
    }

    /// The same, with these options in our SYN.
    pub(crate) fn accepted_with(v6: bool, options: &[u8]) -> (Peer, SocketId) {
        Peer::accepted_offering(v6, options, WINDOW)
    }

    /// The same, with this window of ours from the beginning.
    pub(crate) fn accepted_offering(v6: bool, options: &[u8], window: u16) -> (Peer, SocketId) {
        let mut peer = Peer::new(v6);
        peer.window = window;
        let listener = peer.listener(5);
        let id = peer.shake_hands(listener, options);
        peer.engine.close(listener);
        (peer, id)
    }

    /// A handshake with a listener.
    pub(crate) fn shake_hands(&mut self, listener: SocketId, options: &[u8]) -> SocketId {
        self.begin(options);
        assert_eq!(self.send(A, 0, 0, b""), [""; 0]);
        self.engine.accept(listener).unwrap().0
    }

    /// Our SYN, and the SYN|ACK that answers it.
    pub(crate) fn begin(&mut self, options: &[u8]) {
        (self.seq, self.first[1]) = (FIRST, FIRST);
        self.options = options.to_vec();
        self.send_at(S, self.seq, 0, b"");
        self.options.clear();
        let answer = self.heard.pop_front().expect("an answer to the SYN");
        let tcp = TcpPacket::new_checked(&answer[ip_header_len(self.us())..]).unwrap();
        assert!(tcp.syn() && tcp.ack(), "{answer:02x?}");
        self.first[0] = tcp.seq_number().0 as u32;
        self.ack = self.first[0].wrapping_add(1);
        self.seq = self.seq.wrapping_add(1);
    }

    /// A connection that the engine has begun: its SYN has been heard.
    pub(crate) fn connecting(v6: bool) -> (Peer, SocketId) {
        let mut peer = Peer::new(v6);
        peer.ports = [5000, 4000];
        let id = peer.stream();
        peer.engine.bind(id, &SockAddr::Ip(addr(0, v6, 5000))).unwrap();
        assert_eq!(peer.engine.connect(id, &SockAddr::Ip(addr(US, v6, 4000))), Err(Errno::EINPROGRESS));
        peer.settle();
        let syn = peer.heard.pop_front().expect("a SYN");
        let tcp = TcpPacket::new_checked(&syn[ip_header_len(peer.us())..]).unwrap();
        assert!(tcp.syn() && !tcp.ack());
        peer.first[0] = tcp.seq_number().0 as u32;
        peer.ack = peer.first[0].wrapping_add(1);
        (peer, id)
    }

    /// Sends a segment, so far from the numbers that are due; what the engine answers at once.
    pub(crate) fn send(&mut self, flags: u8, seq: i64, ack: i64, payload: &[u8]) -> Vec<String> {
        self.send_at(flags, self.seq.wrapping_add(seq as u32), self.ack.wrapping_add(ack as u32), payload);
        self.hear()
    }

    fn send_at(&mut self, flags: u8, seq: u32, ack: u32, payload: &[u8]) {
        let options = self.options.len().next_multiple_of(4);
        let mut segment = vec![0; TCP_HEADER + options];
        segment[TCP_HEADER..TCP_HEADER + self.options.len()].copy_from_slice(&self.options);
        let mut tcp = TcpPacket::new_unchecked(&mut segment[..]);
        tcp.set_src_port(self.ports[1]);
        tcp.set_dst_port(self.ports[0]);
        tcp.set_header_len((TCP_HEADER + options) as u8);
        tcp.set_seq_number(TcpSeqNumber(seq as i32));
        tcp.set_ack_number(TcpSeqNumber(ack as i32));
        tcp.set_window_len(self.window);
        tcp.set_urgent_at(self.urgent);
        segment[13] = flags;
        segment.extend(payload);
        self.inject(self.us(), IpProtocol::Tcp, &segment);
    }

    /// An IP packet for the engine, with the right checksums, from this address.
    pub(crate) fn inject(&mut self, src: IpAddr, protocol: IpProtocol, payload: &[u8]) {
        self.inject_with_hops(src, protocol, 64, payload);
    }

    pub(crate) fn inject_with_hops(&mut self, src: IpAddr, protocol: IpProtocol, hops: u8, payload: &[u8]) {
        let to = addr(0, src.is_ipv6(), 0).ip();
        let mut packet = vec![0; ip_header_len(src)];
        packet.extend(payload);
        emit_ip(&mut packet, src, to, IpAttrs::new(protocol, hops));
        let header = parse_ip(&packet, true).unwrap();
        fill_checksum(&mut packet, &header);
        self.inject_frame(if src.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] }, &packet);
    }

    /// A frame for the engine.
    pub(crate) fn inject_frame(&mut self, ethertype: [u8; 2], payload: &[u8]) {
        let frame = [&mac(0).0[..], &mac(US).0, &ethertype, payload].concat();
        self.engine.set_now(self.now);
        self.engine.handle_frame(ETH, Frame::copy_of(&frame));
        if !self.in_batch {
            self.settle();
        }
    }

    /// What the engine sent since the last time, in words: flags, numbers, length.
    pub(crate) fn hear(&mut self) -> Vec<String> {
        let packets: Vec<_> = self.heard.drain(..).collect();
        packets.iter().map(|packet| self.describe(packet)).collect()
    }

    /// The whole packets.
    pub(crate) fn hear_packets(&mut self) -> Vec<Vec<u8>> {
        self.heard.drain(..).collect()
    }

    fn describe(&self, packet: &[u8]) -> String {
        let tcp = TcpPacket::new_checked(&packet[ip_header_len(self.us())..]).unwrap();
        let bits = packet[ip_header_len(self.us()) + 13];
        let flags: String =
            "FSRPAU".chars().enumerate().filter(|(i, _)| bits >> i & 1 != 0).map(|(_, c)| c).collect();
        let seq = (tcp.seq_number().0 as u32).wrapping_sub(self.first[0]) as i32;
        let ack = (tcp.ack_number().0 as u32).wrapping_sub(self.first[1]) as i32;
        let len = tcp.payload().len();
        match tcp.ack() {
            true => format!("{flags} seq {seq} ack {ack} len {len}"),
            false => format!("{flags} seq {seq} len {len}"),
        }
    }

    /// Lets time pass; what is heard meanwhile waits.
    pub(crate) fn wait(&mut self, time: Duration) {
        self.wait_answering(time, |_| {});
    }

    /// The same; `answer` is called whenever something was heard.
    pub(crate) fn wait_answering(&mut self, time: Duration, mut answer: impl FnMut(&mut Peer)) {
        let end = self.now + time;
        loop {
            self.settle();
            if !self.heard.is_empty() {
                answer(self);
            }
            match self.engine.poll() {
                Some(next) if next <= end => self.now = self.now.max(next),
                _ => break,
            }
        }
        self.now = end;
        self.settle();
    }

    /// Lets the engine do what it has to, and answers who asks for our Ethernet address.
    pub(crate) fn settle(&mut self) {
        loop {
            self.engine.set_now(self.now);
            self.engine.poll();
            let mut batch = Batch::new();
            self.engine.take_egress(ETH, &mut batch);
            if batch.is_empty() {
                return;
            }
            for frame in batch {
                match frame[12..14] {
                    [0x08, 0x06] => self.answer_arp(&frame),
                    [0x86, 0xdd] if frame[20] == 58 && frame[54] == 135 => self.answer_solicitation(&frame),
                    _ if frame[if self.v6 { 20 } else { 23 }] == u8::from(IpProtocol::Tcp) => {
                        let packet = frame[14..].to_vec();
                        let tcp = TcpPacket::new_unchecked(&packet[ip_header_len(self.us())..]);
                        self.offered = tcp.window_len();
                        self.heard.push_back(packet);
                    }
                    // Groups are joined, and the like.
                    _ => {}
                }
            }
        }
    }

    fn answer_arp(&mut self, frame: &[u8]) {
        let IpAddr::V4(us) = addr(US, false, 0).ip() else { return };
        if frame[21] == 1 && frame[38..42] == us.octets() {
            let to = &frame[22..32];
            let reply =
                [&mac(0).0[..], &mac(US).0, &frame[12..20], &[0, 2], &mac(US).0, &us.octets(), to].concat();
            self.engine.handle_frame(ETH, Frame::copy_of(&reply));
        }
    }

    fn answer_solicitation(&mut self, frame: &[u8]) {
        let IpAddr::V6(us) = addr(US, true, 0).ip() else { return };
        let target = 14 + IPV6_HEADER + 8;
        if frame[target..target + 16] != us.octets() {
            return;
        }
        let mut packet = vec![0; IPV6_HEADER];
        packet.extend([136, 0, 0, 0, 0x60, 0, 0, 0]);
        packet.extend(us.octets());
        packet.extend([2, 1]);
        packet.extend(mac(US).0);
        emit_ip(&mut packet, us.into(), addr(0, true, 0).ip(), IpAttrs::new(IpProtocol::Icmpv6, 255));
        let header = parse_ip(&packet, true).unwrap();
        fill_checksum(&mut packet, &header);
        let frame = [&mac(0).0[..], &mac(US).0, &[0x86, 0xdd], &packet].concat();
        self.engine.handle_frame(ETH, Frame::copy_of(&frame));
    }

    /// Our address.
    pub(crate) fn us(&self) -> IpAddr {
        addr(US, self.v6, 0).ip()
    }

    /// What the engine's socket received.
    pub(crate) fn read(&mut self, id: SocketId) -> Result<Vec<u8>> {
        let mut buffer = [0; 4096];
        recv(&mut self.engine, id, &mut buffer).map(|len| buffer[..len].to_vec())
    }

    /// What the engine's program sends, and what is heard of it.
    pub(crate) fn write(&mut self, id: SocketId, data: &[u8]) -> Vec<String> {
        assert_eq!(super::lan::send(&mut self.engine, id, data), Ok(data.len()));
        self.settle();
        self.hear()
    }
}
