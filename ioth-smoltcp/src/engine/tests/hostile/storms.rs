//! Storms of forged segments while a connection opens, closes, or is in TIME-WAIT; and peers that say absurd things for long.
//!
//! Read first: RFC 9293 §3.5 and §3.8.6.2, RFC 1337, RFC 2018, RFC 5961.

use ioth_core::{Errno, Events};
use smoltcp::time::Duration;

use crate::engine::tests::lan::{Dice, send};
use crate::engine::tests::peer::{A, F, P, Peer, R, S};
use crate::engine::wire::ip_header_len;
use crate::sys::Size;

const NOTHING: [&str; 0] = [];
const INTERVAL: Duration = Duration::from_millis(501);

/// Segments of all kinds, none of which has the right numbers: how many were answered.
fn storm(peer: &mut Peer, seed: u64, segments: u32) -> usize {
    let (mut dice, mut answers) = (Dice(seed), 0);
    for _ in 0..segments {
        let flags = [R, R | A, S, S | A, A, F | A, A | P][dice.next() as usize % 7];
        // A blind attacker's numbers: none is the one that is due, nor what comes just before or behind it.
        let [at, ack] = [0, 0].map(|_| i64::from(0x1000_0000 + (dice.next() as u32 & 0x5fff_ffff)));
        answers += peer.send(flags, at, ack, if dice.percent(30) { b"evil" } else { b"" }).len();
    }
    answers
}

#[test]
fn both_open_at_once_in_a_storm() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::connecting(v6);
        storm_of(&mut peer, 1, &[R, R | A, A, F | A]);
        assert!(peer.engine.connecting(id), "only the exact numbers end an attempt");
        assert_eq!(peer.send(S, 0, 0, b""), ["SA seq 0 ack 1 len 0"]);
        peer.seq = peer.seq.wrapping_add(1);
        storm_of(&mut peer, 2, &[R, R | A, F | A]);
        peer.wait(INTERVAL);
        peer.hear();
        assert!(peer.engine.connecting(id));
        assert_eq!(peer.send(A, 0, 0, b""), NOTHING);
        assert!(!peer.engine.connecting(id));
        peer.send(A | P, 0, 0, b"hi");
        assert_eq!(peer.read(id), Ok(b"hi".to_vec()));
    }
}

/// The same of these kinds only.
fn storm_of(peer: &mut Peer, seed: u64, kinds: &[u8]) {
    let mut dice = Dice(seed);
    for _ in 0..3000 {
        let flags = kinds[dice.next() as usize % kinds.len()];
        let [at, ack] = [0, 0].map(|_| i64::from(0x1000_0000 + (dice.next() as u32 & 0x5fff_ffff)));
        peer.send(flags, at, ack, b"");
    }
}

#[test]
fn both_close_at_once_in_a_storm() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        peer.engine.close(id);
        peer.settle();
        assert_eq!(peer.hear(), ["FA seq 1 ack 1 len 0"]);
        assert!(storm(&mut peer, 3, 3000) <= 3000);
        peer.hear();
        assert_eq!(peer.send(F | A, 0, 0, b""), ["A seq 2 ack 2 len 0"], "CLOSING");
        (peer.seq, peer.ack) = (peer.seq.wrapping_add(1), peer.ack.wrapping_add(1));
        storm(&mut peer, 4, 3000);
        peer.hear();
        assert_eq!(peer.send(A, 0, 0, b""), NOTHING);
        assert_eq!((peer.engine.census().sockets, peer.engine.census().time_wait), (0, 1));
        peer.wait(Duration::from_secs(61));
        assert_eq!(peer.send(A, 0, 0, b""), ["R seq 2 len 0"], "it is over");
    }
}

/// RFC 1337 §3: "Ignore RST segments in TIME-WAIT state."
#[test]
fn a_storm_of_resets_does_not_end_time_wait() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        peer.engine.close(id);
        peer.settle();
        peer.hear();
        assert_eq!(peer.send(F | A, 0, 1, b""), ["A seq 2 ack 2 len 0"]);
        let mut dice = Dice(5);
        let mut answers = 0;
        for i in 0..20_000 {
            let at = if i % 2 == 0 { i64::from(dice.next() as u32) } else { dice.next() as i64 % 5 };
            let flags = if dice.percent(50) { R } else { R | A };
            answers += peer.send(flags, at, i64::from(dice.percent(50)), b"").len();
        }
        assert_eq!((answers, peer.engine.census().time_wait), (0, 1));
        assert_eq!(
            peer.send(F | A, 0, 1, b""),
            ["A seq 2 ack 2 len 0"],
            "it still answers the FIN's repetition"
        );
    }
}

#[test]
fn a_fin_beyond_the_window_ends_nothing() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        let beyond = Size::Near.receive() as i64 + 1;
        for far in [beyond, 3 << 20, 1 << 30, 1 << 31] {
            peer.send(F | A, far, 0, b"");
            peer.send(F | A, far, 0, b"the end");
            assert_eq!(peer.read(id), Err(Errno::EAGAIN), "{far}");
            peer.wait(INTERVAL);
        }
        peer.hear();
        assert_eq!(peer.send(A | P, 0, 0, b"on"), ["A seq 1 ack 3 len 0"]);
        assert_eq!(peer.read(id), Ok(b"on".to_vec()));
        assert!(!peer.engine.events(id).contains(Events::RDHUP));
    }
}

/// RFC 2018 §4: blocks tell what arrived. These tell of what never left, of nothing, and of what is long acknowledged.
#[test]
fn selective_acknowledgements_of_what_was_never_sent_change_nothing() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted_with(v6, &[2, 4, 5, 100, 4, 2]);
        assert_eq!(peer.write(id, b"hello"), ["PA seq 1 ack 1 len 5"]);
        let mut sent = 0;
        for (begin, end) in [
            (5, 500),
            (6, 7),
            (1 << 20, 1 << 21),
            (1 << 31, (1 << 31) + 9),
            (-9, -3),
            (-3, 2),
            (4, 1),
            (3, 3),
            (-(1 << 30), 1 << 30),
            (0, 5),
        ] {
            for blocks in [1, 3, 4] {
                peer.options = vec![1, 1, 5, 2 + 8 * blocks];
                for _ in 0..blocks {
                    for edge in [begin, end] {
                        peer.options.extend(peer.ack.wrapping_add(edge as u32).to_be_bytes());
                    }
                }
                sent += peer.send(A, 0, 0, b"").len();
            }
        }
        assert!(sent <= 3, "{sent} answers");
        peer.options.clear();
        assert!(!peer.engine.events(id).intersects(Events::ERR | Events::HUP));
        // Its time-out is not lost, nor what was to arrive.
        peer.wait(Duration::from_secs(5));
        let again = peer.hear();
        assert!(again.iter().any(|segment| segment == "PA seq 1 ack 1 len 5"), "{again:?}");
        assert_eq!(peer.send(A, 0, 5, b""), NOTHING);
        peer.ack = peer.ack.wrapping_add(5);
        assert_eq!(peer.write(id, b"there"), ["PA seq 6 ack 1 len 5"]);
    }
}

/// RFC 9293 §3.8.6.2.2: a receiver does not tell of room that is less than a segment and half its buffer.
#[test]
fn a_reader_of_single_bytes_opens_no_silly_windows() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted_with(v6, &[2, 4, 5, 100]);
        let chunk = [7; 1000];
        let mut sent = 0;
        loop {
            let mut acknowledged = peer.send(A | P, sent, 0, &chunk).len();
            peer.wait(Duration::from_millis(100));
            acknowledged += peer.hear().len();
            sent += 1000;
            if peer.offered == 0 || acknowledged == 0 || sent > 8 << 20 {
                break;
            }
        }
        let closed = peer.offered;
        let mut updates = Vec::new();
        for _ in 0..20_000 {
            let mut byte = [0];
            if crate::engine::tests::lan::recv(&mut peer.engine, id, &mut byte).is_err() {
                break;
            }
            peer.settle();
            if !peer.hear().is_empty() {
                updates.push(peer.offered);
            }
        }
        assert!(closed < 2000, "{closed}");
        assert!(updates.len() <= 20_000 / 1000, "{updates:?}");
        assert!(updates.iter().all(|window| *window >= 1000), "{updates:?}");
    }
}

/// A peer that opens its window by a byte at a time, and closes it again: all arrives, and each step costs a segment.
#[test]
fn a_window_that_opens_and_closes_all_the_time() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted_offering(v6, &[2, 4, 5, 100], 0);
        let data: Vec<u8> = (0..200u32).map(|i| i as u8).collect();
        assert_eq!(send(&mut peer.engine, id, &data), Ok(data.len()));
        peer.settle();
        peer.hear();
        let headers = ip_header_len(peer.us()) + 20;
        let (mut received, mut segments) = (Vec::<u8>::new(), 0);
        let start = peer.ack;
        for step in 0..1000u32 {
            if received.len() == data.len() {
                break;
            }
            peer.window = [1, 0, 3, 0, 0, 1][step as usize % 6];
            let room = usize::from(peer.window);
            peer.ack = start.wrapping_add(received.len() as u32);
            peer.send(A, 0, 0, b"");
            let before = received.len();
            // What the window lets out comes at once, or as a probe.
            peer.wait(Duration::from_millis(300));
            for packet in peer.hear_packets() {
                segments += 1;
                let at = ip_header_len(peer.us()) + 4;
                let sequence = u32::from_be_bytes(packet[at..at + 4].try_into().unwrap());
                let offset = sequence.wrapping_sub(start) as usize;
                if offset == received.len() && packet.len() > headers {
                    let payload = &packet[headers..];
                    let take = payload.len().min(before + room - received.len().min(before + room));
                    received.extend(&payload[..take]);
                }
            }
        }
        assert_eq!(received, data);
        assert!(segments < 2000, "{segments}");
    }
}
