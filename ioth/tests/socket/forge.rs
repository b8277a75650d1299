//! A peer that says what it is told to, segment by segment, in raw frames on the wire of two nodes, and writes down what it hears.
//!
//! It has an address that is nobody's, behind the Ethernet address of node a; what it talks to is node b. Sequence numbers are
//! told from each side's first one on.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::IpAddr;

use ioth::SockAddr;
use ioth::berkeley::{accept, listen, read, recvfrom, sendto};

use crate::fixture::*;
use crate::packet::{Ether, at, frame, raw};
use crate::raw::{checksum, echo};

pub(crate) const F: u8 = 0x01;
pub(crate) const S: u8 = 0x02;
pub(crate) const R: u8 = 0x04;
pub(crate) const P: u8 = 0x08;
pub(crate) const A: u8 = 0x10;
pub(crate) const U: u8 = 0x20;

/// Our first sequence number: soon they begin anew.
const FIRST: u32 = u32::MAX - 500;
/// Echo requests of ours, which tell that what was sent before them has been seen.
const IDENT: u16 = 0x4f2a;

/// See the module.
pub(crate) struct Peer<'a> {
    pair: &'a Pair,
    fd: Fd,
    near: Ether,
    far: Ether,
    us: IpAddr,
    /// b's port and ours.
    pub(crate) ports: [u16; 2],
    /// The next sequence number of ours, and of b's.
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    /// Where both began.
    first: [u32; 2],
    pub(crate) window: u16,
    pub(crate) urgent: u16,
    pub(crate) options: Vec<u8>,
    fences: u16,
    listener: Option<Fd>,
    heard: VecDeque<Vec<u8>>,
}

impl<'a> Peer<'a> {
    pub(crate) fn new(pair: &'a Pair) -> Self {
        let (near, far) = (Ether::of(pair, &pair.a), Ether::of(pair, &pair.b));
        let (us, protocol) = match pair.a_addr {
            IpAddr::V4(_) => ("10.9.0.77", libc::ETH_P_IP),
            IpAddr::V6(_) => ("fd09::77", libc::ETH_P_IPV6),
        };
        let fd = raw(pair, &pair.a, protocol as u16);
        receive_timeout(&fd, LONG);
        let mut peer = Peer {
            pair,
            fd,
            near,
            far,
            us: us.parse().unwrap(),
            ports: [0, 20_000],
            seq: FIRST,
            ack: 0,
            first: [0, FIRST],
            window: u16::MAX,
            urgent: 0,
            options: Vec::new(),
            fences: 0,
            listener: None,
            heard: VecDeque::new(),
        };
        peer.introduce();
        peer
    }

    /// b has a listener, and a new connection with us.
    pub(crate) fn accepted(&mut self, options: &[u8]) -> Fd {
        self.begin(options);
        assert_eq!(self.send(A, 0, 0, b""), [""; 0]);
        self.accept()
    }

    /// The next connection of b's listener, with anybody.
    pub(crate) fn accept(&mut self) -> Fd {
        let port = self.listen();
        let listener = self.listener.as_ref().expect("listens since just now");
        let fd = Fd(accept(listener.0).unwrap().0);
        assert_eq!(name(&fd).port(), port);
        receive_timeout(&fd, LONG);
        fd
    }

    /// Our SYN from another port, and the SYN|ACK that answers it.
    pub(crate) fn begin(&mut self, options: &[u8]) {
        let addr = self.listen();
        self.ports = [addr, self.ports[1] + 1];
        (self.seq, self.first[1], self.ack) = (FIRST, FIRST, 0);
        self.introduce();
        self.options = options.to_vec();
        let answer = self.send(S, 0, 0, b"");
        self.options.clear();
        assert!(answer.len() == 1 && answer[0].starts_with("SA "), "{answer:?}");
        self.seq = self.seq.wrapping_add(1);
    }

    /// The port of b's listener.
    pub(crate) fn listen(&mut self) -> u16 {
        let listener = self.listener.get_or_insert_with(|| {
            let (fd, _) = bind_any(&self.pair.tcp_b(), self.pair.b_addr);
            listen(fd.0, 16).unwrap();
            fd
        });
        name(listener).port()
    }

    /// Where we are, for a connection that b begins.
    pub(crate) fn addr(&self) -> std::net::SocketAddr {
        std::net::SocketAddr::new(self.us, self.ports[1])
    }

    /// b has begun a connection: its SYN.
    pub(crate) fn hear_syn(&mut self) {
        let segment = loop {
            self.fence();
            if let Some(segment) = self.heard.pop_front() {
                break segment;
            }
        };
        assert_eq!(segment[13] & (S | A | R), S, "{segment:02x?}");
        self.ports[0] = u16::from_be_bytes([segment[0], segment[1]]);
        self.first[0] = word(&segment, 4);
        (self.seq, self.first[1]) = (FIRST, FIRST);
        self.ack = self.first[0].wrapping_add(1);
        self.heard.clear();
    }

    /// Sends a segment, so far from the numbers that are due; what is answered to it.
    pub(crate) fn send(&mut self, flags: u8, seq: i64, ack: i64, payload: &[u8]) -> Vec<String> {
        self.put(flags, seq, ack, payload);
        self.hear()
    }

    /// The same, not waiting for answers.
    pub(crate) fn put(&mut self, flags: u8, seq: i64, ack: i64, payload: &[u8]) {
        let (seq, ack) = (self.seq.wrapping_add(seq as u32), self.ack.wrapping_add(ack as u32));
        let mut segment = [self.ports[1].to_be_bytes(), self.ports[0].to_be_bytes()].concat();
        segment.extend(seq.to_be_bytes());
        segment.extend(ack.to_be_bytes());
        let options = self.options.len().next_multiple_of(4);
        segment.extend([(((20 + options) / 4) << 4) as u8, flags]);
        segment.extend(self.window.to_be_bytes());
        segment.extend([0, 0]);
        segment.extend(self.urgent.to_be_bytes());
        segment.extend(&self.options);
        segment.resize(20 + options, 0);
        segment.extend(payload);
        self.inject(libc::IPPROTO_TCP, &mut segment, Some(16));
    }

    /// What was heard once everything sent before was seen, in words: flags, numbers, length.
    pub(crate) fn hear(&mut self) -> Vec<String> {
        // What is answered to a batch may follow an echo reply of the same batch.
        self.fence();
        self.fence();
        self.heard.drain(..).collect::<Vec<_>>().iter().map(|segment| self.describe(segment)).collect()
    }

    /// Waits for a segment, and forgets those before it.
    #[track_caller]
    pub(crate) fn hear_until(&mut self, wanted: impl Fn(&str) -> bool) {
        let mut others = Vec::new();
        loop {
            while let Some(segment) = self.heard.pop_front() {
                let said = self.describe(&segment);
                if wanted(&said) {
                    return;
                }
                others.push(said);
            }
            assert!(self.listen_once().is_some(), "never heard, but {others:?}");
        }
    }

    /// Data goes both ways, unchanged.
    #[track_caller]
    pub(crate) fn lives(&mut self, fd: &Fd) {
        self.hear();
        self.send(A | P, 0, 0, b"still");
        assert_eq!(String::from_utf8_lossy(&read_some(fd, 5)), "still");
        self.seq = self.seq.wrapping_add(5);
        send_all(fd, b"there");
        self.hear_until(|said| said.ends_with("len 5"));
        self.ack = self.ack.wrapping_add(5);
        assert_eq!(self.send(A, 0, 0, b""), [""; 0]);
    }

    /// The ICMP error of this kind, about a segment of b's that was sent from so far of what we expect.
    pub(crate) fn icmp_error(&mut self, [v4, v6]: [[u8; 2]; 2], word: u32, seq: i64) {
        let [kind, code] = if self.us.is_ipv4() { v4 } else { v6 };
        let sequence = self.ack.wrapping_add(seq as u32);
        let mut quoted = [self.ports[0].to_be_bytes(), self.ports[1].to_be_bytes()].concat();
        quoted.extend(sequence.to_be_bytes());
        quoted.extend([0, 0, 0, 0, 0x50, A, 0xff, 0xff, 0, 0, 0, 0]);
        // A full one, of which a router quotes the beginning.
        quoted.resize(1400, 7);
        let mut quoted = self.packet(self.pair.b_addr, self.us, libc::IPPROTO_TCP, &quoted);
        quoted.truncate(500);
        let mut message = [&[kind, code, 0, 0][..], &word.to_be_bytes(), &quoted].concat();
        self.inject(self.icmp(), &mut message, Some(2));
    }

    /// A packet of ours, whose checksum is filled in at `sum_at`.
    fn inject(&mut self, protocol: i32, payload: &mut [u8], sum_at: Option<usize>) {
        let to = self.pair.b_addr;
        if let Some(at) = sum_at {
            let sum = match (self.us, protocol) {
                (IpAddr::V4(_), libc::IPPROTO_ICMP) => checksum(payload),
                _ => checksum(&[&pseudo_header(self.us, to, protocol, payload.len()), &payload[..]].concat()),
            };
            payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        let packet = self.packet(self.us, to, protocol, payload);
        self.transmit(if self.us.is_ipv4() { libc::ETH_P_IP } else { libc::ETH_P_IPV6 } as u16, &packet);
    }

    fn transmit(&self, protocol: u16, packet: &[u8]) {
        let frame = frame(self.far.mac, self.near.mac, protocol, packet);
        sendto(self.fd.0, &frame, NONE, at(self.near.ifindex, 0)).unwrap();
    }

    fn packet(&self, from: IpAddr, to: IpAddr, protocol: i32, payload: &[u8]) -> Vec<u8> {
        // Neighbour discovery is from the link itself (RFC 4861 §7.1.1).
        let hops = if protocol == libc::IPPROTO_ICMPV6 { 255 } else { 64 };
        let mut packet = match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let [high, low] = (20 + payload.len() as u16).to_be_bytes();
                let start = [0x45, 0, high, low, 0, 0, 0, 0, hops, protocol as u8, 0, 0];
                let mut header = [&start[..], &from.octets(), &to.octets()].concat();
                let sum = checksum(&header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                header
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let [high, low] = (payload.len() as u16).to_be_bytes();
                let start = [0x60, 0, 0, 0, high, low, protocol as u8, hops];
                [&start[..], &from.octets(), &to.octets()].concat()
            }
            _ => unreachable!("both are of the pair's family"),
        };
        packet.extend(payload);
        packet
    }

    fn icmp(&self) -> i32 {
        crate::raw::icmp(self.pair)
    }

    /// Has b learn our Ethernet address, by asking for its own.
    fn introduce(&mut self) {
        match (self.us, self.pair.b_addr) {
            (IpAddr::V4(us), IpAddr::V4(them)) => {
                let start = [0, 1, 8, 0, 6, 4, 0, 1];
                let request =
                    [&start[..], &self.near.mac, &us.octets(), &[0; 6], &them.octets(), &[0; 18]].concat();
                self.transmit(libc::ETH_P_ARP as u16, &request);
            }
            (_, IpAddr::V6(them)) => {
                let mut question = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &them.octets(), &[1, 1]].concat();
                question.extend(self.near.mac);
                self.inject(libc::IPPROTO_ICMPV6, &mut question, Some(2));
            }
            _ => unreachable!("both are of the pair's family"),
        }
        self.fence();
    }

    /// Waits until b has seen everything: it answers an echo request.
    pub(crate) fn fence(&mut self) {
        self.fences += 1;
        let mut request = echo(self.pair, false, IDENT, &self.fences.to_be_bytes());
        request[2..4].fill(0);
        self.inject(self.icmp(), &mut request, Some(2));
        let wanted = self.fences.to_be_bytes();
        while self.listen_once().expect("no answer to an echo request") != Some(wanted) {}
    }

    /// Takes a packet for us: a segment is kept, an echo reply's text is told. `None` when none comes.
    fn listen_once(&mut self) -> Option<Option<[u8; 2]>> {
        let mut buffer = vec![0; 70_000];
        loop {
            let len = match recvfrom(self.fd.0, &mut buffer, NONE) {
                Ok((len, Some(SockAddr::Packet(from)))) if from.pkttype != libc::PACKET_OUTGOING => len,
                Ok(_) => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => panic!("{error}"),
            };
            let packet = &buffer[14..len];
            let (protocol, to, payload) = match packet[0] >> 4 {
                4 => {
                    let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
                    let to: [u8; 4] = packet[16..20].try_into().unwrap();
                    (packet[9], IpAddr::from(to), &packet[20..total])
                }
                _ => {
                    let total = 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]));
                    let to: [u8; 16] = packet[24..40].try_into().unwrap();
                    (packet[6], IpAddr::from(to), &packet[40..total])
                }
            };
            if to != self.us {
                continue;
            }
            if i32::from(protocol) == libc::IPPROTO_TCP {
                if payload[2..4] == self.ports[1].to_be_bytes() {
                    self.note(payload.to_vec());
                    return Some(None);
                }
            } else if i32::from(protocol) == self.icmp() && matches!(payload[0], 0 | 129) {
                assert_eq!(payload[4..6], IDENT.to_be_bytes());
                return Some(Some([payload[8], payload[9]]));
            }
        }
    }

    fn note(&mut self, segment: Vec<u8>) {
        // The first number of b's is the one that answers our SYN.
        if segment[13] & (S | A) == S | A && self.ack == 0 {
            self.first[0] = word(&segment, 4);
            self.ack = self.first[0].wrapping_add(1);
        }
        self.heard.push_back(segment);
    }

    fn describe(&self, segment: &[u8]) -> String {
        let flags: String = "FSRPAU"
            .chars()
            .enumerate()
            .filter(|(bit, _)| segment[13] >> bit & 1 != 0)
            .map(|(_, flag)| flag)
            .collect();
        let seq = word(segment, 4).wrapping_sub(self.first[0]) as i32;
        let ack = word(segment, 8).wrapping_sub(self.first[1]) as i32;
        let len = segment.len() - usize::from(segment[12] >> 4) * 4;
        match segment[13] & A {
            0 => format!("{flags} seq {seq} len {len}"),
            _ => format!("{flags} seq {seq} ack {ack} len {len}"),
        }
    }
}

/// Nothing can be read from it now.
#[track_caller]
pub(crate) fn unread(fd: &Fd) {
    nonblocking(fd, true);
    assert_eq!(errno(read(fd.0, &mut [0; 100])), libc::EAGAIN);
    nonblocking(fd, false);
}

fn word(segment: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(segment[at..at + 4].try_into().unwrap())
}

/// RFC 9293 §3.1, RFC 8200 §8.1
fn pseudo_header(from: IpAddr, to: IpAddr, protocol: i32, len: usize) -> Vec<u8> {
    let mut header = Vec::new();
    for addr in [from, to] {
        match addr {
            IpAddr::V4(addr) => header.extend(addr.octets()),
            IpAddr::V6(addr) => header.extend(addr.octets()),
        }
    }
    header.extend((len as u32).to_be_bytes());
    header.extend([0, 0, 0, protocol as u8]);
    header
}
