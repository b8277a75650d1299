//! Connections that begin and end in unusual ways, and those that never begin.
//!
//! Read first: RFC 9293 §3.5 and §3.10.7, RFC 1337, RFC 5927.

use ioth_core::{Errno, Events, Shutdown, SockAddr};
use smoltcp::time::Duration;
use smoltcp::wire::IpProtocol;

use crate::engine::tests::lan::addr;
use crate::engine::tests::peer::{A, F, P, Peer, R, S, U};

const NOTHING: [&str; 0] = [];
const INTERVAL: Duration = Duration::from_millis(501);

#[test]
fn a_listener_answers_a_syn_and_resets_an_acknowledgement() {
    for v6 in [false, true] {
        let mut peer = Peer::new(v6);
        peer.listener(5);
        for flags in [0, F, P, U, R, S | F, S | R, R | A] {
            assert_eq!(peer.send(flags, 0, 200, b""), NOTHING, "{flags:#x}");
        }
        for flags in [A, F | A, S | A] {
            assert_eq!(peer.send(flags, 0, 200, b""), ["R seq 200 len 0"], "{flags:#x}");
        }
        assert_eq!(peer.engine.census().embryos, 0);
        peer.begin(&[]);
        assert_eq!(peer.engine.census().embryos, 1);
    }
}

#[test]
fn nobody_listens_and_says_so() {
    for v6 in [false, true] {
        let mut peer = Peer::new(v6);
        assert_eq!(peer.send(S, 0, 0, b""), ["RA seq 0 ack 1 len 0"]);
        assert_eq!(peer.send(A, 0, 77, b"data"), ["R seq 77 len 0"]);
        assert_eq!(peer.send(F, 0, 0, b"data"), ["RA seq 0 ack 5 len 0"]);
        assert_eq!(peer.send(R, 0, 0, b""), NOTHING);
    }
}

#[test]
fn half_open() {
    for v6 in [false, true] {
        let mut peer = Peer::new(v6);
        let listener = peer.listener(5);
        peer.begin(&[2, 4, 5, 100]);
        assert_eq!(peer.send(A, 0, 76, b""), ["R seq 77 len 0"], "an acknowledgement of what was not sent");
        assert_eq!(peer.send(R, 50, 0, b""), NOTHING);
        assert_eq!(peer.send(R, -1, 0, b""), NOTHING);
        assert_eq!(peer.engine.census().embryos, 1, "neither was exact");
        assert_eq!(peer.send(A, 3_000_000, 0, b"far"), NOTHING);
        assert_eq!(peer.send(F | A, 0, 0, b""), ["A seq 1 ack 2 len 0"]);
        let (id, _) = peer.engine.accept(listener).unwrap();
        assert_eq!(peer.read(id), Ok(Vec::new()));

        peer.ports[1] += 1;
        peer.begin(&[]);
        assert_eq!(peer.send(R, 0, 0, b""), NOTHING);
        assert_eq!(peer.engine.census().embryos, 0);
        assert_eq!(peer.send(A, 0, 0, b""), ["R seq 1 len 0"]);
    }
}

#[test]
fn options_of_a_syn() {
    for v6 in [false, true] {
        let headers = if v6 { 60 } else { 40 };
        // RFC 9293 §3.7.1, and what the link carries.
        let (unsaid, widest) = (if v6 { 1220 } else { 536 }, 1500 - headers);
        for (options, segment) in [
            (&[2, 4, 0, 1][..], 48),
            (&[2, 4, 0, 0], unsaid),
            (&[2, 0, 0, 0], unsaid),
            (&[2, 4], unsaid),
            (&[3, 3, 15, 2, 4, 5, 180, 0], widest),
            (&[2, 4, 255, 255], widest),
            (&[19, 18, 1, 1, 2, 4, 5, 180], unsaid),
        ] {
            let (mut peer, id) = Peer::accepted_with(v6, options);
            crate::engine::tests::lan::send(&mut peer.engine, id, &[7; 3000]).unwrap();
            peer.settle();
            let longest = peer.hear_packets().iter().map(|packet| packet.len() - headers).max();
            assert_eq!(longest, Some(segment), "{options:?}");
        }
    }
}

#[test]
fn a_window_scale_beyond_bounds_is_the_largest() {
    for v6 in [false, true] {
        // RFC 7323 §2.3: "the TCP implementation SHOULD log the error but MUST use 14 instead of the specified value".
        let (mut peer, id) = Peer::accepted_with(v6, &[3, 3, 255, 2, 4, 5, 180, 0]);
        peer.window = u16::MAX;
        peer.send(A, 0, 0, b"");
        assert!(crate::engine::tests::lan::send(&mut peer.engine, id, &vec![7; 500_000]).is_ok());
        peer.settle();
        assert!(!peer.hear().is_empty());
    }
}

#[test]
fn while_connecting_only_the_right_answer_counts() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::connecting(v6);
        assert_eq!(peer.send(R, 0, 0, b""), NOTHING, "without an acknowledgement");
        assert_eq!(peer.send(R | A, 0, 4, b""), NOTHING);
        assert_eq!(peer.send(A, 0, 8, b""), ["R seq 9 len 0"]);
        assert_eq!(peer.send(A, 0, 0, b""), NOTHING);
        assert_eq!(peer.send(S | A, 0, 8, b""), ["R seq 9 len 0"]);
        assert_eq!(peer.send(F | A, 0, 0, b""), NOTHING);
        assert_eq!(peer.send(0, 0, 0, b""), NOTHING);
        assert!(peer.engine.connecting(id));
        assert_eq!(
            peer.send(S | A, 0, 0, b""),
            ["A seq 1 ack 1 len 0"],
            "and it went on as if nothing had been"
        );
        assert!(!peer.engine.connecting(id));
        assert_eq!(peer.write(id, b"hello"), ["PA seq 1 ack 1 len 5"]);
    }
}

#[test]
fn both_open_at_once() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::connecting(v6);
        assert_eq!(peer.send(S, 0, 0, b""), ["SA seq 0 ack 1 len 0"]);
        assert!(peer.engine.connecting(id));
        assert_eq!(peer.send(S | A, 0, 0, b""), ["A seq 1 ack 1 len 0"]);
        peer.seq = peer.seq.wrapping_add(1);
        assert_eq!(peer.send(A | P, 0, 0, b"hi"), ["A seq 1 ack 3 len 0"]);
        assert!(!peer.engine.connecting(id));
        assert_eq!(peer.read(id), Ok(b"hi".to_vec()));
        assert_eq!(peer.write(id, b"hello"), ["PA seq 1 ack 3 len 5"]);
    }
}

#[test]
fn a_socket_connects_to_itself() {
    for target in ["[::1]:5000", "127.0.0.1:5000"] {
        let target: std::net::SocketAddr = target.parse().unwrap();
        let mut peer = Peer::new(target.is_ipv6());
        let id = peer.stream();
        peer.engine.bind(id, &SockAddr::Ip(target)).unwrap();
        let _ = peer.engine.connect(id, &SockAddr::Ip(target));
        peer.settle();
        assert_eq!(peer.engine.peer_addr(id), Ok(SockAddr::Ip(target)));
        crate::engine::tests::lan::send(&mut peer.engine, id, b"me").unwrap();
        peer.settle();
        assert_eq!(peer.read(id), Ok(b"me".to_vec()));
        peer.engine.close(id);
        peer.wait(Duration::from_secs(200));
        assert_eq!(peer.engine.census().sockets, 0);
    }
}

#[test]
fn both_close_at_once_and_time_wait_keeps_its_peace() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        peer.engine.close(id);
        peer.settle();
        assert_eq!(peer.hear(), ["FA seq 1 ack 1 len 0"]);
        assert_eq!(peer.send(F | A, 0, 0, b""), ["A seq 2 ack 2 len 0"], "CLOSING");
        (peer.seq, peer.ack) = (peer.seq.wrapping_add(1), peer.ack.wrapping_add(1));
        assert_eq!(peer.send(A, 0, 0, b""), NOTHING);
        assert_eq!((peer.engine.census().sockets, peer.engine.census().time_wait), (0, 1));
        // Two nodes in TIME-WAIT must not answer each other for ever.
        assert_eq!(peer.send(A, 0, 0, b""), NOTHING);
        assert_eq!(peer.send(A, -5, 0, b""), ["A seq 2 ack 2 len 0"]);
        assert_eq!(peer.send(A, -5, 0, b""), NOTHING, "no two answers in half a second");
        assert_eq!(peer.send(A, 0, 0, b"abc"), ["A seq 2 ack 2 len 0"]);
        assert_eq!(peer.send(F | A, -1, 0, b""), ["A seq 2 ack 2 len 0"]);
        peer.wait(INTERVAL);
        assert_eq!(peer.send(S, -9, 0, b""), ["A seq 2 ack 2 len 0"], "an old SYN");
        // RFC 1337: unlike Linux by default, no reset ends it.
        assert_eq!(peer.send(R, 0, 0, b""), NOTHING);
        assert_eq!(peer.engine.census().time_wait, 1);
        peer.wait(Duration::from_secs(61));
        assert_eq!(peer.send(A, 0, 0, b""), ["R seq 2 len 0"], "it is over");
    }
}

#[test]
fn data_for_a_closed_socket_is_reset() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        peer.engine.close(id);
        peer.settle();
        peer.hear();
        let answer = peer.send(A, 0, 1, b"late");
        assert!(answer.iter().any(|segment| segment.starts_with('R')), "{answer:?}");
        assert_eq!(peer.engine.census().sockets, 0);
    }
}

#[test]
fn closing_after_hours_of_silence_is_no_reset() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        peer.wait(Duration::from_secs(3 * 3600));
        assert_eq!(peer.hear(), NOTHING);
        peer.engine.shutdown(id, Shutdown::Write).unwrap();
        peer.settle();
        assert_eq!(peer.hear(), ["FA seq 1 ack 1 len 0"]);
        assert_eq!(peer.send(A, 0, 1, b"the answer"), ["A seq 2 ack 11 len 0"]);
        assert_eq!(peer.read(id), Ok(b"the answer".to_vec()));
    }
}

#[test]
fn a_node_does_not_talk_to_itself_over_the_wire() {
    // The "land" attack, and loopback addresses from outside.
    for (v6, src) in [
        (false, addr(0, false, 0)),
        (true, addr(0, true, 0)),
        (false, "127.0.0.1:0".parse().unwrap()),
        (true, "[::1]:0".parse().unwrap()),
    ] {
        let mut peer = Peer::new(v6);
        peer.listener(5);
        for (flags, port) in [S, S | A, A, R, F | A].into_iter().flat_map(|flags| [(flags, 80), (flags, 81)])
        {
            let before = peer.engine.drops().martian;
            let segment = [0, port, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
            peer.inject(src.ip(), IpProtocol::Tcp, &segment);
            assert_eq!(peer.hear(), NOTHING);
            let census = peer.engine.census();
            assert_eq!((census.connections, census.embryos, census.egress), (0, 0, 0));
            assert_eq!(peer.engine.drops().martian, before + 1);
        }
    }
}

/// A connection that the engine closed first, and a listener that is still there.
fn in_time_wait(v6: bool) -> Peer {
    let mut peer = Peer::new(v6);
    let listener = peer.listener(5);
    let id = peer.shake_hands(listener, &[2, 4, 5, 100]);
    peer.engine.close(id);
    peer.settle();
    assert_eq!(peer.hear(), ["FA seq 1 ack 1 len 0"]);
    assert_eq!(peer.send(A, 0, 1, b""), NOTHING);
    assert_eq!(peer.send(F | A, 0, 1, b""), ["A seq 2 ack 2 len 0"]);
    (peer.seq, peer.ack) = (peer.seq.wrapping_add(1), peer.ack.wrapping_add(1));
    assert_eq!(peer.engine.census().time_wait, 1);
    peer.wait(INTERVAL);
    peer
}

/// RFC 9293 §3.10.7.4, RFC 1337: what is old does not end TIME_WAIT.
#[test]
fn an_old_syn_does_not_end_time_wait() {
    for v6 in [false, true] {
        let mut peer = in_time_wait(v6);
        for behind in [0, 1, 1000, 1 << 30] {
            assert_eq!(peer.send(S, -behind, 0, b""), ["A seq 2 ack 2 len 0"], "{behind}");
            peer.wait(INTERVAL);
        }
        for at in [0, 1] {
            assert_eq!(peer.send(R, at, 0, b""), NOTHING);
        }
        let census = peer.engine.census();
        assert_eq!((census.time_wait, census.embryos), (1, 0));
        assert_eq!(peer.send(F | A, -1, 0, b""), ["A seq 2 ack 2 len 0"]);
    }
}

/// RFC 9293 §3.6.1: a SYN may reopen when its number is "larger than the largest sequence number it used".
#[test]
fn a_new_syn_ends_time_wait() {
    for v6 in [false, true] {
        let mut peer = in_time_wait(v6);
        let answers = peer.send(S, 70_000, 0, b"");
        let [answer] = &answers[..] else { panic!("{answers:?}") };
        let words: Vec<_> = answer.split(' ').collect();
        let ["SA", "seq", sequence, "ack", "70003", "len", "0"] = words[..] else { panic!("{answer}") };
        assert!(sequence.parse::<i32>().unwrap() > 2, "beyond what the old one used");
        let census = peer.engine.census();
        assert_eq!((census.time_wait, census.embryos), (0, 1));
    }
}

#[test]
fn the_same_ends_meet_again_after_time_wait() {
    for v6 in [false, true] {
        let mut peer = in_time_wait(v6);
        peer.wait(Duration::from_secs(61));
        peer.begin(&[]);
        assert_eq!(peer.send(A, 0, 0, b""), NOTHING);
        assert_eq!(peer.engine.census().ready, 1);
    }
}

/// The ICMP error of this kind about a packet, from a router.
fn icmp(peer: &mut Peer, [v4, v6]: [[u8; 2]; 2], word: u32, quoted: &[u8]) {
    let [kind, code] = if peer.v6 { v6 } else { v4 };
    let message = [&[kind, code, 0, 0][..], &word.to_be_bytes(), quoted].concat();
    let protocol = if peer.v6 { IpProtocol::Icmpv6 } else { IpProtocol::Icmp };
    peer.inject(addr(8, peer.v6, 0).ip(), protocol, &message);
}

const HOST_UNREACHABLE: [[u8; 2]; 2] = [[3, 1], [1, 3]];
const TOO_BIG: [[u8; 2]; 2] = [[3, 4], [2, 0]];

/// The SYN that a connecting engine sends, with its sequence number changed.
fn quoted_syn(peer: &mut Peer, difference: i64) -> Vec<u8> {
    peer.wait(Duration::from_millis(1100));
    let mut packet = peer.hear_packets().pop().expect("the SYN again");
    let at = if peer.v6 { 44 } else { 24 };
    let sequence = u32::from_be_bytes(packet[at..at + 4].try_into().unwrap());
    packet[at..at + 4].copy_from_slice(&sequence.wrapping_add(difference as u32).to_be_bytes());
    packet
}

#[test]
fn an_icmp_error_has_to_quote_what_was_sent() {
    for v6 in [false, true] {
        for difference in [-1, 5, 1000, 1 << 31] {
            let (mut peer, id) = Peer::connecting(v6);
            let quoted = quoted_syn(&mut peer, difference);
            icmp(&mut peer, HOST_UNREACHABLE, 0, &quoted);
            assert!(peer.engine.connecting(id), "{difference}");
            icmp(&mut peer, HOST_UNREACHABLE, 0, &quoted[..if v6 { 44 } else { 24 }]);
            assert!(peer.engine.connecting(id), "without a sequence number");
        }
        let (mut peer, id) = Peer::connecting(v6);
        let quoted = quoted_syn(&mut peer, 0);
        icmp(&mut peer, HOST_UNREACHABLE, 0, &quoted);
        assert_eq!(peer.engine.take_error(id), Some(Errno::EHOSTUNREACH));
    }
}

#[test]
fn no_icmp_error_ends_or_starves_a_connection() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        crate::engine::tests::lan::send(&mut peer.engine, id, &[7; 1000]).unwrap();
        peer.settle();
        let quoted = peer.hear_packets().pop().unwrap();
        for kinds in [HOST_UNREACHABLE, [[3, 3], [1, 4]], [[3, 2], [4, 1]], [[12, 0], [4, 0]], TOO_BIG] {
            for word in [0, 1, 67, 296, 1279, 1280, 65_535, u32::MAX] {
                icmp(&mut peer, kinds, word, &quoted);
            }
        }
        assert!(!peer.engine.events(id).intersects(Events::ERR | Events::HUP));
        peer.hear();
        peer.send(A, 0, 1000, b"");
        peer.ack = peer.ack.wrapping_add(1000);
        crate::engine::tests::lan::send(&mut peer.engine, id, &[8; 1000]).unwrap();
        peer.settle();
        let packets = peer.hear_packets();
        assert!(!packets.is_empty() && packets.len() <= 4, "{} packets for 1000 bytes", packets.len());
    }
}

#[test]
fn a_narrower_way_has_to_be_told_with_what_is_under_way() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted_with(v6, &[2, 4, 5, 180]);
        crate::engine::tests::lan::send(&mut peer.engine, id, &[7; 5000]).unwrap();
        peer.settle();
        let packets = peer.hear_packets();
        let quoted = packets.iter().max_by_key(|packet| packet.len()).unwrap().clone();
        let at = if v6 { 44 } else { 24 };
        let with_sequence = |difference: u32| {
            let mut quoted = quoted.clone();
            let sequence = u32::from_be_bytes(quoted[at..at + 4].try_into().unwrap());
            quoted[at..at + 4].copy_from_slice(&sequence.wrapping_add(difference).to_be_bytes());
            quoted
        };
        for difference in [1 << 20, 1 << 31, u32::MAX - 5000] {
            icmp(&mut peer, TOO_BIG, 1300, &with_sequence(difference));
        }
        // Nobody's packet, and one that another host sent.
        icmp(&mut peer, TOO_BIG, 1300, &quoted[..at]);
        let mut others = quoted.clone();
        others[at - 5] ^= 1;
        icmp(&mut peer, TOO_BIG, 1300, &others);
        assert_eq!(peer.engine.census().path_mtus, 0);
        icmp(&mut peer, TOO_BIG, 1300, &quoted);
        assert_eq!(peer.engine.census().path_mtus, 1, "what was sent is believed");
        // Not less than anybody's link carries, however little is claimed.
        icmp(&mut peer, TOO_BIG, 68, &quoted);
        peer.wait(Duration::from_millis(300));
        let least = if v6 { 1280 } else { 552 };
        let longest = peer.hear_packets().iter().map(Vec::len).max();
        assert!(longest.is_some_and(|longest| longest > least - 20 && longest <= 1300), "{longest:?}");
        // It is forgotten in time.
        peer.wait(Duration::from_secs(601));
        assert_eq!(peer.engine.census().path_mtus, 0);
    }
}
