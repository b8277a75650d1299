//! Windows that close, stay closed, and shrink.
//!
//! Read first: RFC 9293 §3.8.6.

use ioth_core::Events;
use smoltcp::time::Duration;

use crate::engine::tests::lan::send;
use crate::engine::tests::peer::{A, P, Peer};
use crate::engine::wire::ip_header_len;
use crate::sys::Size;

const RECEIVE_BUFFER: usize = Size::Near.receive();

#[test]
fn a_closed_window_is_probed_for_hours_while_the_peer_answers() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted_offering(v6, &[], 0);
        assert!(send(&mut peer.engine, id, b"hello").is_ok());
        let mut probes = 0;
        peer.wait_answering(Duration::from_secs(5 * 3600), |peer| {
            probes += peer.hear().len();
            peer.send(A, 0, 0, b"");
        });
        assert!((200..1000).contains(&probes), "{probes} probes in five hours");
        assert!(!peer.engine.events(id).intersects(Events::ERR | Events::HUP));
        peer.window = 1000;
        assert_eq!(peer.send(A, 0, 0, b""), ["PA seq 1 ack 1 len 5"]);
        // A window that opened late does not make its connection old.
        peer.send(A, 0, 5, b"");
        assert!(!peer.engine.events(id).intersects(Events::ERR | Events::HUP));
    }
}

#[test]
fn a_closed_window_of_a_peer_that_is_gone_ends_in_time() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted_offering(v6, &[], 0);
        assert!(send(&mut peer.engine, id, b"hello").is_ok());
        peer.wait(Duration::from_secs(3600));
        assert!(peer.engine.events(id).contains(Events::ERR));
    }
}

#[test]
fn a_closed_socket_does_not_wait_for_a_window_for_ever() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted_offering(v6, &[], 0);
        assert!(send(&mut peer.engine, id, b"never to be delivered").is_ok());
        peer.engine.close(id);
        peer.wait_answering(Duration::from_secs(400), |peer| {
            peer.hear();
            peer.send(A, 0, 0, b"");
        });
        assert_eq!(peer.engine.census().sockets, 0);
    }
}

#[test]
fn a_window_that_shrinks_holds_nothing_up() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        assert!(send(&mut peer.engine, id, &[7; 4000]).is_ok());
        peer.settle();
        assert!(!peer.hear().is_empty());
        // RFC 9293 §3.8.6: "a sender MUST be robust against window shrinking, which may cause the 'usable window' to
        // become negative". Linux believes it of a segment that is newer than the one with the larger window.
        peer.window = 100;
        peer.send(A, 0, 0, b"x");
        peer.seq = peer.seq.wrapping_add(1);
        let mut received = 0i64;
        let tcp_at = ip_header_len(peer.us());
        peer.wait_answering(Duration::from_secs(300), |peer| {
            for packet in peer.hear_packets() {
                let end = (packet.len() - tcp_at - 20) as i64;
                let sequence = u32::from_be_bytes(packet[tcp_at + 4..tcp_at + 8].try_into().unwrap());
                let at = i64::from(sequence.wrapping_sub(peer.ack) as i32);
                // All that fits.
                let end = (at + end).min(received + i64::from(peer.window));
                if at <= received && end > received {
                    received = end;
                }
            }
            peer.send(A, 0, received, b"");
        });
        assert_eq!(received, 4000);
    }
}

#[test]
fn a_window_of_one_byte_and_its_segment_size() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted_offering(v6, &[2, 4, 0, 1], 1);
        assert_eq!(peer.write(id, b"abc"), ["A seq 1 ack 1 len 1"]);
        assert_eq!(peer.send(A, 0, 1, b""), ["A seq 2 ack 1 len 1"]);
        assert_eq!(peer.send(A, 0, 2, b""), ["PA seq 3 ack 1 len 1"]);
    }
}

/// smoltcp takes the handshake's window for a scaled one, which is more than was offered, or its buffer holds, until it
/// has sent another.
#[test]
fn a_segment_with_an_old_beginning_ends_where_the_window_does() {
    const ROOM: usize = 70_000;
    const OFFERED: usize = 65_535;
    for v6 in [true, false] {
        let mut peer = Peer::new(v6);
        let listener = peer.listener(5);
        let bytes = (ROOM as i32).to_ne_bytes();
        peer.engine.set_option(listener, libc::SOL_SOCKET, libc::SO_RCVBUF, &bytes).unwrap();
        let id = peer.shake_hands(listener, &[2, 4, 5, 100, 1, 3, 3, 0]);
        peer.in_batch = true;
        for at in (0..ROOM - 1_000).step_by(1_000) {
            peer.send(A, at as i64, 0, &[7; 1_000]);
        }
        peer.send(A, ROOM as i64 - 2_000, 0, &[7; 5_000]);
        peer.in_batch = false;
        peer.settle();
        assert_eq!(peer.hear().pop(), Some(format!("A seq 1 ack {} len 0", OFFERED + 1)));
        let mut received = 0;
        while let Ok(data) = peer.read(id) {
            received += data.len();
        }
        assert_eq!(received, OFFERED);
    }
}

/// The number that the engine acknowledges when it gets data so far from what is due, and has the time to say something.
fn acknowledged(peer: &mut Peer, at: i64, data: &[u8]) -> i64 {
    let mut answers = peer.send(A | P, at, 0, data);
    // Longer than an acknowledgement is delayed.
    peer.wait(Duration::from_millis(100));
    answers.append(&mut peer.hear());
    let last = answers.last().expect("data is acknowledged");
    let (_, rest) = last.split_once("ack ").expect("an acknowledgement");
    rest.split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

/// RFC 9293 §3.8.6.1: a receiver with a closed window answers a probe with where it is, and takes nothing.
#[test]
fn a_closed_window_takes_nothing_and_answers_probes() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        let mut sent = 0;
        loop {
            let taken = acknowledged(&mut peer, sent, &[7; 1400]) - 1;
            assert!(taken as usize <= RECEIVE_BUFFER);
            if peer.offered == 0 || taken == sent {
                break;
            }
            sent = taken;
        }
        let (closed, window) = (acknowledged(&mut peer, sent, b"?"), peer.offered);
        for _ in 0..5 {
            peer.wait(Duration::from_secs(2));
            peer.hear();
            let at = acknowledged(&mut peer, closed - 1, b"?");
            assert!((0..=1).contains(&(at - closed)) && peer.offered <= window, "a probe is answered");
        }
        let end = acknowledged(&mut peer, 0, b"?");
        let mut read = 0;
        while let Ok(data) = peer.read(id) {
            read += data.len() as i64;
        }
        assert_eq!(read, end - 1);
        peer.wait(Duration::from_secs(2));
        assert!(!peer.hear().is_empty() && peer.offered > 0, "who waits is told");
    }
}
