//! Floods: what is bounded, and who still gets through.
//!
//! Read first: RFC 4987 (SYN floods), RFC 4443 §2.4(f).

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

use ioth_core::Errno;
use smoltcp::time::Duration;
use smoltcp::wire::IpProtocol;

use crate::engine::neigh::MAX_ENTRIES;
use crate::engine::tests::lan::{Dice, ETH, Lan, WIRE, addr, recv, send};
use crate::engine::tests::peer::{A, Peer, R, S};
use crate::engine::wire::ip_header_len;

/// Nobody's address, one of many; with IPv4 half of them are on no link of ours.
fn anybody(v6: bool, i: u32) -> IpAddr {
    match v6 || i.is_multiple_of(2) {
        true => stranger(v6, i),
        false => IpAddr::V4(Ipv4Addr::from(0x4000_0000 | i.wrapping_mul(2_654_435_761) >> 2)),
    }
}

/// A neighbour's address that nobody has, one of many.
fn stranger(v6: bool, i: u32) -> IpAddr {
    if v6 {
        IpAddr::V6(Ipv6Addr::from(0xfd00 << 112 | 0xdead_0000_0000 | u128::from(i)))
    } else {
        IpAddr::V4(Ipv4Addr::from(0x0a00_0100 + i % 0xf000))
    }
}

fn segment(from: u16, to: u16, flags: u8) -> Vec<u8> {
    let mut bytes = [from.to_be_bytes(), to.to_be_bytes()].concat();
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes
}

#[test]
fn a_flood_of_syns_leaves_room_for_others() {
    for v6 in [false, true] {
        let mut peer = Peer::new(v6);
        let listener = peer.listener(5);
        let established = peer.shake_hands(listener, &[]);
        let ours = (peer.seq, peer.ack);
        let (mut accepted, mut waiting) = (0, 0);
        for i in 0..20_000u32 {
            peer.inject(anybody(v6, i), IpProtocol::Tcp, &segment(1000 + (i % 60_000) as u16, 80, S));
            // Somebody honest comes by in the middle of it. The last ones nobody accepts.
            if i % 1000 == 999 {
                peer.hear_packets();
                peer.ports[1] = 5000 + (i / 1000) as u16;
                if i >= 15_000 {
                    peer.begin(&[]);
                    assert_eq!(peer.send(A, 0, 0, b""), [""; 0]);
                    waiting += 1;
                    continue;
                }
                let id = peer.shake_hands(listener, &[]);
                assert_eq!(peer.send(A, 0, 0, b"hi"), ["A seq 1 ack 3 len 0"]);
                assert_eq!(peer.read(id), Ok(b"hi".to_vec()));
                peer.engine.close(id);
                peer.settle();
                peer.send(R, 2, 0, b"");
                accepted += 1;
            }
            peer.hear_packets();
            peer.now += Duration::from_micros(100);
            let census = peer.engine.census();
            assert!(census.embryos <= 512 && census.sockets < 600, "{census:?}");
            assert!(census.neighbours <= MAX_ENTRIES && census.unresolved <= 1024, "{census:?}");
        }
        assert_eq!((accepted, waiting), (15, 5));
        (peer.ports[1], peer.seq, peer.ack) = (4000, ours.0, ours.1);
        peer.send(A, 0, 0, b"still here");
        assert_eq!(peer.read(established), Ok(b"still here".to_vec()));
        // It passes.
        peer.wait(Duration::from_secs(200));
        let census = peer.engine.census();
        assert_eq!((census.embryos, census.unresolved, census.ready), (0, 0, waiting));
    }
}

#[test]
fn a_full_accept_queue_stays_bounded() {
    for v6 in [false, true] {
        let mut peer = Peer::new(v6);
        let listener = peer.listener(2);
        let tcp_at = ip_header_len(peer.us());
        for port in 0..500 {
            peer.ports[1] = 2000 + port;
            peer.inject(peer.us(), IpProtocol::Tcp, &segment(2000 + port, 80, S));
            let answers = peer.hear_packets();
            if let Some(answer) = answers.first() {
                // The last ACK, as far as a SYN|ACK came.
                let mut ack = segment(2000 + port, 80, A);
                ack[4..8].copy_from_slice(&2u32.to_be_bytes());
                let sequence = u32::from_be_bytes(answer[tcp_at + 4..tcp_at + 8].try_into().unwrap());
                ack[8..12].copy_from_slice(&(sequence.wrapping_add(1)).to_be_bytes());
                peer.inject(peer.us(), IpProtocol::Tcp, &ack);
            }
        }
        let census = peer.engine.census();
        assert!(census.ready == 3 && census.parked <= 256 && census.embryos <= 512, "{census:?}");
        peer.engine.close(listener);
        peer.wait(Duration::from_secs(200));
        assert_eq!(peer.engine.census().sockets, 0);
    }
}

#[test]
fn answers_to_strangers_are_limited_and_come_back() {
    for v6 in [false, true] {
        let mut peer = Peer::new(v6);
        let mut answers = 0;
        for i in 0..5000 {
            peer.inject(peer.us(), IpProtocol::Tcp, &segment(i, 9999, A));
            answers += peer.hear_packets().len();
        }
        assert!((1..=50).contains(&answers), "{answers} resets at one instant");
        peer.now += Duration::from_secs(1);
        peer.inject(peer.us(), IpProtocol::Tcp, &segment(1, 9999, A));
        assert_eq!(peer.hear_packets().len(), 1);
    }
}

#[test]
fn neighbours_that_claim_to_be_many_are_bounded() {
    for v6 in [false, true] {
        let mut peer = Peer::new(v6);
        for i in 0..40_000u32 {
            // Each asks for us, from another address.
            let mac = [2, 0, 0, 0, (i >> 8) as u8, i as u8];
            match (addr(0, v6, 0).ip(), stranger(v6, i)) {
                (IpAddr::V6(target), from) => {
                    let mut solicitation = vec![135, 0, 0, 0, 0, 0, 0, 0];
                    solicitation.extend(target.octets());
                    solicitation.extend([1, 1]);
                    solicitation.extend(mac);
                    peer.inject_with_hops(from, IpProtocol::Icmpv6, 255, &solicitation);
                }
                (IpAddr::V4(target), IpAddr::V4(from)) => {
                    let request =
                        [&[0, 1, 8, 0, 6, 4, 0, 1][..], &mac, &from.octets(), &[0; 6], &target.octets()];
                    peer.inject_frame([0x08, 0x06], &request.concat());
                }
                (IpAddr::V4(_), IpAddr::V6(_)) => unreachable!("a stranger is of our family"),
            }
            peer.hear_packets();
        }
        assert!(peer.engine.census().neighbours <= 16_384);
        let listener = peer.listener(1);
        let id = peer.shake_hands(listener, &[]);
        peer.send(A, 0, 0, b"found");
        assert_eq!(peer.read(id), Ok(b"found".to_vec()));
    }
}

/// Both ends lose what the other sends, again and again, in both directions at once.
#[test]
fn both_ends_recover_when_both_have_lost() {
    for v6 in [false, true] {
        for seed in 0..40u64 {
            let mut lan = Lan::new(2, WIRE);
            let (a, b) = lan.connection(v6);
            let mut dice = Dice(seed);
            lan.fate = Box::new(move |_| {
                if dice.percent(45) {
                    Vec::new()
                } else {
                    vec![Duration::from_micros(50 + dice.next() % 300)]
                }
            });
            for (node, id) in [(0, a), (1, b)] {
                assert_eq!(send(&mut lan.nodes[node], id, &[7; 60_000]), Ok(60_000));
            }
            lan.run_until(Duration::from_secs(3), |_| false);
            lan.fate = Box::new(|_| vec![Duration::from_micros(50)]);
            let mut received = [0, 0];
            let mut buffer = vec![0; 65_536];
            let all = lan.run_until(Duration::from_secs(300), |lan| {
                for (node, id) in [(0, a), (1, b)] {
                    match recv(&mut lan.nodes[node], id, &mut buffer) {
                        Ok(n) => received[node] += n,
                        Err(error) => assert_eq!(error, Errno::EAGAIN),
                    }
                }
                received == [60_000; 2]
            });
            assert!(all, "seed {seed}: {received:?}");
        }
    }
}

/// Two nodes in TIME-WAIT, and an acknowledgement that one of them seems to have sent.
#[test]
fn time_wait_does_not_echo() {
    for v6 in [false, true] {
        let mut lan = Lan::new(2, WIRE);
        let (client, server) = lan.connection(v6);
        let segments = Rc::new(RefCell::new(Vec::new()));
        let keep = segments.clone();
        lan.fate = Box::new(move |frame| {
            // Neighbour discovery goes on.
            if frame[if v6 { 20 } else { 23 }] == u8::from(IpProtocol::Tcp) {
                keep.borrow_mut().push(frame.clone());
            }
            vec![Duration::from_micros(50)]
        });
        // Both FINs cross.
        lan.nodes[0].close(client);
        lan.nodes[1].close(server);
        lan.run_until(Duration::from_secs(1), |_| false);
        assert_eq!([0, 1].map(|node| lan.nodes[node].census().time_wait), [1, 1]);
        let again = segments.borrow().last().cloned().unwrap();
        let before = segments.borrow().len();
        lan.nodes[usize::from(again[5])].handle_frame(ETH, again);
        lan.run_until(Duration::from_secs(30), |_| false);
        assert_eq!(segments.borrow().len(), before);
    }
}
