//! Segments that no honest peer sends, and what an engine must make of each.
//!
//! Read first: RFC 5961 (blind attacks), RFC 9293 §3.10.7.4, RFC 4987 (SYN floods), RFC 6191 (TIME_WAIT).

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use ioth_core::{Domain, Errno, Events, Shutdown, SockAddr};
use ioth_vde::Frame;
use smoltcp::time::Duration;
use smoltcp::wire::{IpProtocol, TcpPacket, TcpSeqNumber};

use super::lan::{Dice, ETH, Lan, WIRE, addr, mac, recv, send};
use crate::engine::SocketId;
use crate::engine::neigh::MAX_ENTRIES;
use crate::engine::wire::{IpAttrs, TCP_HEADER, emit_ip, fill_checksum, ip_header_len, parse_ip};
use crate::sys::RECEIVE_BUFFER;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;
const URG: u8 = 32;

const SHORT: Duration = Duration::from_secs(5);
/// Longer than an acknowledgement is delayed.
const MOMENT: Duration = Duration::from_millis(100);
/// Longer than anything is rate limited for.
const REST: Duration = Duration::from_secs(2);

/// What a segment says, beside its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    to: u16,
    sequence: u32,
    ack: u32,
    flags: u8,
    window: u16,
    len: usize,
}

/// A segment as anybody may write it.
#[derive(Clone, Copy, Debug)]
struct Forged<'a> {
    from: SocketAddr,
    to: SocketAddr,
    sequence: u32,
    ack: u32,
    flags: u8,
    urgent: u16,
    data: &'a [u8],
}

impl Forged<'_> {
    fn frame(&self) -> Frame {
        let ip = ip_header_len(self.from.ip());
        let mut packet = vec![0; ip + TCP_HEADER];
        packet.extend_from_slice(self.data);
        emit_ip(&mut packet, self.from.ip(), self.to.ip(), IpAttrs::new(IpProtocol::Tcp, 64));
        let mut tcp = TcpPacket::new_unchecked(&mut packet[ip..]);
        tcp.set_src_port(self.from.port());
        tcp.set_dst_port(self.to.port());
        tcp.set_header_len(TCP_HEADER as u8);
        tcp.set_seq_number(TcpSeqNumber(self.sequence as i32));
        tcp.set_ack_number(TcpSeqNumber(self.ack as i32));
        tcp.set_window_len(8192);
        tcp.set_urgent_at(self.urgent);
        packet[ip + 13] = self.flags;
        let header = parse_ip(&packet, true).unwrap();
        fill_checksum(&mut packet, &header);
        let ethertype: [u8; 2] = if self.from.is_ipv4() { [8, 0] } else { [0x86, 0xdd] };
        Frame::copy_of(&[&mac(1).0[..], &mac(0).0, &ethertype, &packet].concat())
    }
}

/// What node 1 says in a frame, if it is TCP.
fn said(frame: &Frame) -> Option<Said> {
    let (protocol, at) = match frame[12..14] {
        [8, 0] => (frame[23], 34),
        [0x86, 0xdd] => (frame[20], 54),
        _ => return None,
    };
    if protocol != 6 || frame[6..12] != mac(1).0 {
        return None;
    }
    let tcp = TcpPacket::new_unchecked(&frame[at..]);
    Some(Said {
        to: tcp.dst_port(),
        sequence: tcp.seq_number().0 as u32,
        ack: tcp.ack_number().0 as u32,
        flags: frame[at + 13],
        window: tcp.window_len(),
        len: frame.len() - at - usize::from(tcp.header_len()),
    })
}

/// A connection of node 0 to node 1, and somebody who writes segments to node 1 in the name of node 0.
struct Scene {
    lan: Lan,
    v6: bool,
    client: SocketId,
    server: SocketId,
    /// Node 0's end.
    peer: SocketAddr,
    /// What node 1 said since somebody looked.
    heard: Rc<RefCell<Vec<Said>>>,
    /// Whether node 0 hears it, too.
    open: Rc<Cell<bool>>,
    /// Node 1's RCV.NXT and SND.NXT.
    expected: u32,
    next: u32,
}

impl Scene {
    fn new(v6: bool) -> Scene {
        let mut lan = Lan::new(2, WIRE);
        let heard = Rc::new(RefCell::new(Vec::new()));
        let open = Rc::new(Cell::new(true));
        let (hears, is_open) = (heard.clone(), open.clone());
        lan.fate = Box::new(move |frame| {
            if let Some(said) = said(frame) {
                hears.borrow_mut().push(said);
                if !is_open.get() {
                    return Vec::new();
                }
            }
            vec![Duration::from_micros(50)]
        });
        let (client, server) = lan.connection(v6);
        let Ok(SockAddr::Ip(peer)) = lan.nodes[0].local_addr(client) else { panic!("no address") };
        let mut scene = Scene { lan, v6, client, server, peer, heard, open, expected: 0, next: 0 };
        scene.lives();
        scene
    }

    fn target(&self) -> SocketAddr {
        addr(1, self.v6, 80)
    }

    /// Data goes both ways, unchanged. Nothing may be left to read.
    #[track_caller]
    fn lives(&mut self) {
        self.open.set(true);
        let mut buffer = [0; 64];
        for (from, to) in [(0, 1), (1, 0)] {
            let ends = [self.client, self.server];
            self.lan.nodes[from].set_now(self.lan.now);
            assert_eq!(send(&mut self.lan.nodes[from], ends[from], b"still there"), Ok(11));
            let arrived =
                self.lan.run_until(SHORT, |lan| lan.nodes[to].events(ends[to]).contains(Events::IN));
            assert!(arrived, "from {from} to {to}");
            assert_eq!(recv(&mut self.lan.nodes[to], ends[to], &mut buffer), Ok(11));
            assert_eq!(&buffer[..11], b"still there");
        }
        self.lan.run_for(REST);
        let peer = self.peer.port();
        let last = *self.heard.borrow().iter().rev().find(|said| said.to == peer).unwrap();
        assert_eq!(last.flags & (SYN | RST | FIN), 0);
        (self.expected, self.next) = (last.ack, last.sequence.wrapping_add(last.len as u32));
        self.heard.borrow_mut().clear();
        self.open.set(false);
    }

    fn forged<'a>(&self, sequence: u32, flags: u8, data: &'a [u8]) -> Forged<'a> {
        Forged { from: self.peer, to: self.target(), sequence, ack: self.next, flags, urgent: 0, data }
    }

    /// Node 1 gets a segment, and has the time to say something.
    fn hit(&mut self, forged: Forged<'_>) -> Vec<Said> {
        self.throw(forged);
        self.lan.run_for(MOMENT);
        self.heard.take()
    }

    fn throw(&mut self, forged: Forged<'_>) {
        self.lan.nodes[1].set_now(self.lan.now);
        self.lan.nodes[1].handle_frame(ETH, forged.frame());
        self.lan.settle();
    }

    /// What node 1 has received and not read.
    fn read(&mut self) -> Result<Vec<u8>, Errno> {
        let mut buffer = vec![0; 2 * RECEIVE_BUFFER];
        let n = recv(&mut self.lan.nodes[1], self.server, &mut buffer)?;
        buffer.truncate(n);
        Ok(buffer)
    }

    /// `<SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>`, once.
    #[track_caller]
    fn is_challenge(&self, answers: &[Said]) {
        let [one] = answers else { panic!("{answers:?}") };
        assert_eq!((one.to, one.flags & !PSH, one.len), (self.peer.port(), ACK, 0));
        assert_eq!((one.sequence, one.ack), (self.next, self.expected));
    }
}

/// RFC 5961 §3.2: "If the RST bit is set and the sequence number exactly matches the next expected sequence number".
#[test]
fn a_reset_at_the_next_number_resets() {
    for v6 in [true, false] {
        let mut scene = Scene::new(v6);
        assert_eq!(scene.hit(scene.forged(scene.expected, RST, b"")), []);
        assert!(scene.lan.nodes[1].events(scene.server).contains(Events::ERR | Events::HUP));
        assert_eq!(scene.read(), Err(Errno::ECONNRESET));
        assert_eq!(scene.lan.nodes[1].census().connections, 0);
    }
}

/// RFC 5961 §3.2: "does not exactly match the next expected sequence value, yet is within the current receive window".
#[test]
fn a_reset_elsewhere_in_the_window_is_challenged() {
    for v6 in [true, false] {
        let mut scene = Scene::new(v6);
        for ahead in [1, 2, 1460, 60_000] {
            for flags in [RST, RST | ACK, RST | SYN, RST | FIN | ACK] {
                let answers = scene.hit(scene.forged(scene.expected.wrapping_add(ahead), flags, b""));
                scene.is_challenge(&answers);
                scene.lan.run_for(REST);
            }
        }
        scene.lives();
    }
}

/// RFC 5961 §3.2: "the sequence number is outside the current receive window: silently discard the segment".
#[test]
fn a_reset_outside_the_window_is_ignored() {
    for v6 in [true, false] {
        let mut scene = Scene::new(v6);
        for ahead in [u32::MAX, u32::MAX - 1460, 1 << 31, 1 << 30, RECEIVE_BUFFER as u32 + 1] {
            assert_eq!(scene.hit(scene.forged(scene.expected.wrapping_add(ahead), RST, b"")), [], "{ahead}");
            scene.lan.run_for(REST);
        }
        scene.lives();
    }
}

/// RFC 5961 §3.2: the one who was really reset answers the challenge with the right number.
#[test]
fn the_answer_to_a_challenge_resets() {
    for v6 in [true, false] {
        let mut scene = Scene::new(v6);
        let answers = scene.hit(scene.forged(scene.expected.wrapping_add(9), RST, b""));
        scene.is_challenge(&answers);
        scene.hit(scene.forged(answers[0].ack, RST, b""));
        assert_eq!(scene.read(), Err(Errno::ECONNRESET));
    }
}

/// RFC 5961 §4.2: "irrespective of the sequence number".
#[test]
fn a_syn_to_a_connection_is_challenged() {
    for v6 in [true, false] {
        let mut scene = Scene::new(v6);
        for ahead in [0, 1000, u32::MAX, 1 << 30, 1 << 31] {
            for (flags, data) in [(SYN, &b""[..]), (SYN | ACK, b""), (SYN | FIN, b""), (SYN | ACK, b"evil")] {
                let answers = scene.hit(scene.forged(scene.expected.wrapping_add(ahead), flags, data));
                scene.is_challenge(&answers);
                scene.lan.run_for(REST);
            }
        }
        assert_eq!(scene.lan.nodes[1].census().embryos, 0);
        scene.lives();
    }
}

/// RFC 5961 §7: whoever sends without end is not answered without end.
#[test]
fn challenges_are_rate_limited() {
    for v6 in [true, false] {
        let mut scene = Scene::new(v6);
        let mut answers = 0;
        for i in 0..5_000 {
            let forged = match i % 3 {
                0 => scene.forged(scene.expected.wrapping_add(5), RST, b""),
                1 => scene.forged(scene.expected, SYN, b""),
                _ => Forged { ack: scene.next.wrapping_add(7), ..scene.forged(scene.expected, ACK, b"") },
            };
            scene.throw(forged);
            scene.lan.run_for(Duration::from_millis(1));
            answers += scene.heard.take().len();
        }
        // Two a second for five seconds.
        assert!((4..=11).contains(&answers), "{answers}");
        scene.lan.run_for(REST);
        let answer = scene.hit(scene.forged(scene.expected, SYN, b""));
        scene.is_challenge(&answer);
        scene.lives();
    }
}

#[test]
fn a_storm_of_resets_does_not_hit() {
    for v6 in [true, false] {
        let mut scene = Scene::new(v6);
        let mut dice = Dice(3);
        let mut answers = 0;
        for i in 0..20_000u32 {
            // Half of them as a blind attacker spreads them, half close to the mark.
            let ahead = if i % 2 == 0 { dice.next() as u32 } else { dice.next() as u32 % 20_000 };
            let flags = if dice.percent(50) { RST } else { RST | ACK };
            scene.throw(scene.forged(scene.expected.wrapping_add(ahead.max(1)), flags, b""));
            answers += scene.heard.take().len();
        }
        assert!(answers <= 2, "{answers}");
        scene.lan.run_for(REST);
        scene.lives();
    }
}

/// RFC 5961 §5.2: "All incoming segments whose ACK value doesn't satisfy the above condition MUST be discarded and an ACK
/// sent back."
#[test]
fn who_acknowledges_what_was_never_sent_is_not_believed() {
    for v6 in [true, false] {
        let mut scene = Scene::new(v6);
        for ahead in [1, 1000, 1 << 30, 1 << 31, u32::MAX - (1 << 30)] {
            for data in [&b""[..], b"evil"] {
                let ack = scene.next.wrapping_add(ahead);
                let answers = scene.hit(Forged { ack, ..scene.forged(scene.expected, ACK | PSH, data) });
                scene.is_challenge(&answers);
                assert_eq!(scene.read(), Err(Errno::EAGAIN), "{ahead}");
                scene.lan.run_for(REST);
            }
        }
        scene.lives();
        // What was given and has not left yet was not sent either.
        scene.lan.nodes[1].set_now(scene.lan.now);
        assert_eq!(send(&mut scene.lan.nodes[1], scene.server, b"later"), Ok(5));
        let ack = scene.next.wrapping_add(3);
        let frame = Forged { ack, ..scene.forged(scene.expected, ACK, b"") }.frame();
        scene.lan.nodes[1].handle_frame(ETH, frame);
        scene.open.set(true);
        let (client, mut buffer) = (scene.client, [0; 8]);
        assert!(scene.lan.run_until(SHORT, |lan| lan.nodes[0].events(client).contains(Events::IN)));
        assert_eq!(recv(&mut scene.lan.nodes[0], client, &mut buffer), Ok(5));
        assert_eq!(&buffer[..5], b"later");
        scene.lives();
    }
}

/// RFC 9293 §3.10.7.4: "If an incoming segment is not acceptable, an acknowledgment should be sent in reply".
#[test]
fn data_outside_the_window_is_acknowledged_and_dropped() {
    for v6 in [true, false] {
        let mut scene = Scene::new(v6);
        for ahead in [u32::MAX - 3, u32::MAX - 5000, RECEIVE_BUFFER as u32 + 1, 1 << 30] {
            let answers = scene.hit(scene.forged(scene.expected.wrapping_add(ahead), ACK | PSH, b"evil"));
            scene.is_challenge(&answers);
            assert_eq!(scene.read(), Err(Errno::EAGAIN), "{ahead}");
            scene.lan.run_for(REST);
        }
        let answers = scene.hit(scene.forged(scene.expected.wrapping_sub(1), ACK | FIN, b""));
        scene.is_challenge(&answers);
        scene.lives();
    }
}

#[test]
fn data_without_an_acknowledgement_is_dropped() {
    for v6 in [true, false] {
        let mut scene = Scene::new(v6);
        for flags in [0, PSH, FIN, URG | PSH | FIN] {
            assert_eq!(scene.hit(scene.forged(scene.expected, flags, b"evil")), []);
            assert_eq!(scene.read(), Err(Errno::EAGAIN));
        }
        scene.lives();
    }
}

/// What was received once stays as it is.
#[test]
fn who_says_it_again_otherwise_changes_nothing() {
    for v6 in [true, false] {
        let mut scene = Scene::new(v6);
        let start = scene.expected;
        scene.hit(scene.forged(start, ACK | PSH, b"first"));
        // Behind what is unread, over all of it, and over its end.
        for (ahead, data) in
            [(0, &b"EVILX"[..]), (u32::MAX - 1, b"XXEVILX"), (3, b"XXmore"), (1, b"YYYYYYYY")]
        {
            scene.hit(scene.forged(start.wrapping_add(ahead), ACK | PSH, data));
            scene.lan.run_for(REST);
        }
        assert_eq!(scene.read().unwrap(), b"firstmore");
        let answers = scene.hit(scene.forged(start, ACK | PSH, b"EVILEVILE"));
        assert_eq!(answers.last().map(|answer| answer.ack), Some(start.wrapping_add(9)));
        assert_eq!(scene.read(), Err(Errno::EAGAIN));
    }
}

#[test]
fn pieces_out_of_order_that_contradict_each_other_make_one_stream() {
    for v6 in [true, false] {
        let mut scene = Scene::new(v6);
        let start = scene.expected;
        for (ahead, data) in [(6, &b"bbbb"[..]), (4, b"cccc"), (9, b"dddd")] {
            scene.hit(scene.forged(start.wrapping_add(ahead), ACK | PSH, data));
            assert_eq!(scene.read(), Err(Errno::EAGAIN));
        }
        scene.hit(scene.forged(start, ACK | PSH, b"aaaa"));
        let stream = scene.read().unwrap();
        assert_eq!(stream.len(), 13);
        // Where two differ, it is one of them.
        for (byte, said) in
            stream.iter().zip(["a", "a", "a", "a", "c", "c", "bc", "bc", "b", "bd", "d", "d", "d"])
        {
            assert!(said.as_bytes().contains(byte), "{}", String::from_utf8_lossy(&stream));
        }
        for ahead in [0, 4, 6, 9] {
            scene.hit(scene.forged(start.wrapping_add(ahead), ACK | PSH, b"EVIL"));
        }
        assert_eq!(scene.read(), Err(Errno::EAGAIN));
    }
}

/// Crumbs in any order, more than anybody keeps, over and over: what arrives in the end is the stream.
#[test]
fn crumbs_in_any_order_are_the_stream_in_the_end() {
    for v6 in [true, false] {
        let mut scene = Scene::new(v6);
        let (start, mut dice) = (scene.expected, Dice(11));
        let data: Vec<u8> = (0..4000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for _ in 0..3000 {
            let at = dice.next() as usize % data.len();
            let end = data.len().min(at + 1 + dice.next() as usize % 20);
            scene.throw(scene.forged(start.wrapping_add(at as u32), ACK | PSH, &data[at..end]));
        }
        for at in (0..data.len()).step_by(500) {
            scene.throw(scene.forged(start.wrapping_add(at as u32), ACK | PSH, &data[at..at + 500]));
        }
        scene.lan.run_for(MOMENT);
        assert_eq!(scene.heard.take().last().map(|last| last.ack), Some(start.wrapping_add(4000)));
        assert_eq!(scene.read().unwrap(), data);
    }
}

/// RFC 9293 §3.8.6.1: a receiver with a closed window answers a probe with where it is, and takes nothing.
#[test]
fn a_closed_window_takes_nothing_and_answers_probes() {
    for v6 in [true, false] {
        let mut scene = Scene::new(v6);
        let data = [7; 1400];
        let mut at = scene.expected;
        let closed = loop {
            let answers = scene.hit(scene.forged(at, ACK | PSH, &data));
            let last = *answers.last().expect("data is acknowledged");
            if last.window == 0 || last.ack == at {
                break last;
            }
            at = last.ack;
            assert!(at.wrapping_sub(scene.expected) as usize <= RECEIVE_BUFFER);
        };
        for _ in 0..5 {
            scene.lan.run_for(REST);
            let answers = scene.hit(scene.forged(closed.ack, ACK | PSH, b"?"));
            let last = answers.last().expect("a probe is answered");
            assert!(last.ack.wrapping_sub(closed.ack) <= 1 && last.window <= closed.window);
        }
        let end = scene.hit(scene.forged(scene.expected, ACK | PSH, b"?")).last().unwrap().ack;
        let read = scene.read().unwrap();
        assert_eq!(read.len(), end.wrapping_sub(scene.expected) as usize);
        scene.lan.run_for(REST);
        assert!(scene.heard.take().iter().any(|update| update.window > 0), "who waits is told");
    }
}

/// RFC 6093 §6: "new applications SHOULD NOT employ the TCP urgent mechanism": here nobody can.
#[test]
fn urgent_data_is_data() {
    for v6 in [true, false] {
        let mut scene = Scene::new(v6);
        for (urgent, flags) in [(3, URG | ACK | PSH), (0, URG | ACK), (60_000, URG | ACK), (5, ACK)] {
            let forged = scene.forged(scene.expected, flags, b"abcdef");
            let answers = scene.hit(Forged { urgent, ..forged });
            scene.expected = scene.expected.wrapping_add(6);
            scene.is_challenge(&answers);
            assert_eq!(scene.read().unwrap(), b"abcdef");
            assert!(!scene.lan.nodes[1].events(scene.server).contains(Events::PRI));
            scene.heard.take();
        }
    }
}

/// RFC 4987: who has never been there takes no place from who is, and keeps nobody out.
#[test]
fn a_flood_from_anywhere_keeps_nobody_out() {
    for v6 in [true, false] {
        let mut scene = Scene::new(v6);
        scene.open.set(true);
        let mut dice = Dice(5);
        let domain = if v6 { Domain::INET6 } else { Domain::INET };
        let mut clients = Vec::new();
        for round in 0..500 {
            for _ in 0..50 {
                let random = dice.next();
                let from: IpAddr = match v6 {
                    true => Ipv6Addr::from(0xfd00u128 << 112 | u128::from(random)).into(),
                    // Half of them neighbours that nobody is, half from elsewhere.
                    false if random.is_multiple_of(2) => {
                        Ipv4Addr::from(0x0a00_0100 | random as u32 & 0xfff).into()
                    }
                    false => Ipv4Addr::from((random >> 8) as u32 & 0x3fff_ffff | 0x4000_0000).into(),
                };
                let port = (random >> 40) as u16 | 1;
                let forged = scene.forged(random as u32, SYN, b"");
                let from = SocketAddr::new(from, port);
                scene.lan.nodes[1].handle_frame(ETH, Forged { from, ack: 0, ..forged }.frame());
            }
            if round % 100 == 99 {
                let client = scene.lan.stream(0, domain);
                let target = SockAddr::Ip(scene.target());
                scene.lan.nodes[0].set_now(scene.lan.now);
                assert_eq!(scene.lan.nodes[0].connect(client, &target), Err(Errno::EINPROGRESS));
                clients.push(client);
            }
            scene.lan.run_for(Duration::from_millis(1));
            let census = scene.lan.nodes[1].census();
            assert!(census.embryos <= 512 && census.sockets < 600, "{census:?}");
            assert!(census.neighbours <= MAX_ENTRIES && census.unresolved <= MAX_ENTRIES, "{census:?}");
        }
        let all_in = scene.lan.run_until(Duration::from_secs(30), |lan| {
            clients
                .iter()
                .all(|&id| !lan.nodes[0].connecting(id) && lan.nodes[0].events(id).contains(Events::OUT))
        });
        assert!(all_in, "{:?}", scene.lan.nodes[1].census());
        scene.lives();
        scene.lan.run_for(Duration::from_secs(200));
        let census = scene.lan.nodes[1].census();
        assert_eq!((census.embryos, census.unresolved), (0, 0), "nothing is left of it");
        assert_eq!(census.ready, clients.len());
        scene.lives();
    }
}

/// The land attack: who is asked to connect to itself.
#[test]
fn nobody_sends_to_us_in_our_name() {
    for v6 in [true, false] {
        let mut scene = Scene::new(v6);
        let before = scene.lan.nodes[1].census();
        for flags in [SYN, SYN | ACK, ACK, RST, FIN | ACK] {
            for port in [80, 81] {
                let itself = SocketAddr::new(scene.target().ip(), port);
                let forged = scene.forged(1, flags, b"");
                assert_eq!(scene.hit(Forged { from: itself, to: itself, ..forged }), []);
                let any: SocketAddr = if v6 { "[::1]:80" } else { "127.0.0.1:80" }.parse().unwrap();
                assert_eq!(scene.hit(Forged { from: any, ..forged }), []);
            }
        }
        let after = scene.lan.nodes[1].census();
        assert_eq!((before.connections, before.egress), (after.connections, after.egress));
        scene.lives();
    }
}

/// The connection's end: node 1 closes first and goes into TIME_WAIT.
fn in_time_wait(v6: bool) -> Scene {
    let mut scene = Scene::new(v6);
    scene.open.set(true);
    let client = scene.client;
    scene.lan.nodes[1].set_now(scene.lan.now);
    scene.lan.nodes[1].close(scene.server);
    assert!(scene.lan.run_until(SHORT, |lan| lan.nodes[0].events(client).contains(Events::IN)));
    assert_eq!(recv(&mut scene.lan.nodes[0], client, &mut [0]), Ok(0));
    scene.lan.nodes[0].shutdown(client, Shutdown::Write).unwrap();
    scene.lan.nodes[0].close(client);
    scene.lan.run_for(MOMENT);
    assert_eq!(scene.lan.nodes[1].census().time_wait, 1);
    assert_eq!(scene.lan.nodes[0].census().connections, 0);
    let last = *scene.heard.borrow().last().unwrap();
    (scene.expected, scene.next) = (last.ack, last.sequence);
    scene.heard.take();
    scene.open.set(false);
    scene
}

/// RFC 9293 §3.10.7.4, RFC 1337: what is old does not end TIME_WAIT.
#[test]
fn an_old_syn_does_not_end_time_wait() {
    for v6 in [true, false] {
        let mut scene = in_time_wait(v6);
        for behind in [0, 1, 1000, 1 << 30] {
            let answers = scene.hit(scene.forged(scene.expected.wrapping_sub(behind), SYN, b""));
            scene.is_challenge(&answers);
            scene.lan.run_for(REST);
        }
        for sequence in [scene.expected, scene.expected.wrapping_add(1)] {
            assert_eq!(scene.hit(scene.forged(sequence, RST, b"")), []);
        }
        let census = scene.lan.nodes[1].census();
        assert_eq!((census.time_wait, census.embryos), (1, 0));
        let answers = scene.hit(scene.forged(scene.expected.wrapping_sub(1), FIN | ACK, b""));
        scene.is_challenge(&answers);
    }
}

/// RFC 9293 §3.6.1: a SYN may reopen when its number is "larger than the largest sequence number it used".
#[test]
fn a_new_syn_ends_time_wait() {
    for v6 in [true, false] {
        let mut scene = in_time_wait(v6);
        let sequence = scene.expected.wrapping_add(70_000);
        let answers = scene.hit(scene.forged(sequence, SYN, b""));
        let [answer] = answers[..] else { panic!("{answers:?}") };
        assert_eq!((answer.flags, answer.ack), (SYN | ACK, sequence.wrapping_add(1)));
        assert!((answer.sequence.wrapping_sub(scene.next) as i32) > 0, "beyond what the old one used");
        let census = scene.lan.nodes[1].census();
        assert_eq!((census.time_wait, census.embryos), (0, 1));
    }
}

#[test]
fn the_same_ends_meet_again_after_time_wait() {
    for v6 in [true, false] {
        let mut scene = in_time_wait(v6);
        scene.open.set(true);
        scene.lan.run_for(Duration::from_secs(61));
        let domain = if v6 { Domain::INET6 } else { Domain::INET };
        let client = scene.lan.stream(0, domain);
        let engine = &mut scene.lan.nodes[0];
        engine.bind(client, &SockAddr::Ip(scene.peer)).unwrap();
        assert_eq!(engine.connect(client, &SockAddr::Ip(addr(1, v6, 80))), Err(Errno::EINPROGRESS));
        assert!(scene.lan.run_until(SHORT, |lan| !lan.nodes[0].connecting(client)));
        assert_eq!(scene.lan.nodes[0].peer_addr(client), Ok(SockAddr::Ip(addr(1, v6, 80))));
        scene.lan.run_for(MOMENT);
        assert_eq!(scene.lan.nodes[1].census().ready, 1);
    }
}
