//! Segments for an established connection that are out of order, forged, or contradict each other.
//!
//! Read first: RFC 9293 §3.10.7.4, RFC 5961.

use ioth_core::{Errno, Events};
use ioth_vde::Batch;
use smoltcp::time::Duration;

use crate::engine::SocketId;
use crate::engine::tests::lan::{Dice, ETH, send};
use crate::engine::tests::peer::{A, F, P, Peer, R, S, U};
use crate::sys::Size;

const RECEIVE_BUFFER: usize = Size::Near.receive();

const NOTHING: [&str; 0] = [];
const HERE: [&str; 1] = ["A seq 1 ack 1 len 0"];
/// After this long, another challenge is answered.
const INTERVAL: Duration = Duration::from_millis(501);

/// Data goes both ways, unchanged.
#[track_caller]
fn lives(peer: &mut Peer, id: SocketId) {
    peer.wait(INTERVAL);
    peer.hear();
    peer.send(A | P, 0, 0, b"still");
    assert_eq!(peer.read(id), Ok(b"still".to_vec()));
    peer.seq = peer.seq.wrapping_add(5);
    let answers = peer.write(id, b"there");
    assert!(answers.len() == 1 && answers[0].ends_with("len 5"), "{answers:?}");
    peer.ack = peer.ack.wrapping_add(5);
    assert_eq!(peer.send(A, 0, 0, b""), NOTHING);
}

/// From such a number half of all away, the right one would be none that is newer.
#[test]
fn a_connection_does_not_count_from_what_was_forged_while_it_opened() {
    for v6 in [false, true] {
        for ack in [-1, -2, -70_000, -(1 << 31), 1 - (1 << 31)] {
            let mut peer = Peer::new(v6);
            let listener = peer.listener(5);
            peer.begin(&[]);
            assert_eq!(peer.send(A, 1, ack, b"").len(), 1, "a reset: RFC 9293 §3.10.7.4");
            assert_eq!(peer.send(A, 0, 0, b""), NOTHING);
            let (id, _) = peer.engine.accept(listener).unwrap();
            lives(&mut peer, id);
        }
    }
}

/// RFC 5961 §3.2
#[test]
fn only_the_exact_reset_resets() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        for at in [1, 2, 1460, 60_000] {
            for flags in [R, R | A, R | S, R | F | A] {
                assert_eq!(peer.send(flags, at, 0, b""), HERE, "{flags:#x} in the window: challenged");
                assert_eq!(peer.send(flags, at + 1, 0, b""), NOTHING, "no two answers in half a second");
                peer.wait(INTERVAL);
            }
        }
        assert_eq!(peer.send(R | A, 60_000, 7, b""), HERE);
        for far in [-1, -1000, -1461, RECEIVE_BUFFER as i64 + 1, 3 << 20, 1 << 30, 1 << 31] {
            peer.wait(INTERVAL);
            assert_eq!(peer.send(R, far, 0, b""), NOTHING, "{far}");
        }
        assert!(!peer.engine.events(id).contains(Events::ERR));
        lives(&mut peer, id);
        // Who was really reset answers the challenge with the number that is in it.
        assert_eq!(peer.send(R, 0, 0, b""), NOTHING);
        assert!(peer.engine.events(id).contains(Events::ERR | Events::HUP));
        assert_eq!(peer.read(id), Err(Errno::ECONNRESET));
        assert_eq!(peer.engine.census().connections, 0);
    }
}

#[test]
fn a_reset_may_have_other_flags() {
    for v6 in [false, true] {
        for flags in [R | F | A, R | S, R | P | U] {
            let (mut peer, id) = Peer::accepted(v6);
            assert_eq!(peer.send(flags, 0, 0, b""), NOTHING);
            assert_eq!(peer.read(id), Err(Errno::ECONNRESET), "{flags:#x}");
        }
    }
}

/// RFC 5961 §4.2: "irrespective of the sequence number".
#[test]
fn a_syn_is_challenged_wherever_it_is() {
    for v6 in [false, true] {
        let mut peer = Peer::new(v6);
        let listener = peer.listener(5);
        let id = peer.shake_hands(listener, &[2, 4, 5, 100]);
        for (flags, at, data) in [
            (S, 0, &b""[..]),
            (S, 7, b""),
            (S, 1000, b""),
            (S, -5000, b""),
            (S, 1 << 30, b""),
            (S, 1 << 31, b""),
            (S | A, 3, b""),
            (S | A, 0, b"evil"),
            (S | F, 0, b""),
            (S | F | P | A | U, 0, b""),
        ] {
            assert_eq!(peer.send(flags, at, 0, data), HERE, "{flags:#x} at {at}");
            assert_eq!(peer.send(flags, at, 0, data), NOTHING, "no two answers in half a second");
            peer.wait(INTERVAL);
        }
        assert_eq!(peer.engine.census().embryos, 0);
        assert_eq!(peer.read(id), Err(Errno::EAGAIN));
        lives(&mut peer, id);
    }
}

/// RFC 5961 §7: whoever sends without end is not answered without end.
#[test]
fn challenges_are_rate_limited() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        let mut answers = 0;
        for i in 0..5000 {
            answers += match i % 3 {
                0 => peer.send(R, 5, 0, b""),
                1 => peer.send(S, 0, 0, b""),
                _ => peer.send(A, 0, 7, b""),
            }
            .len();
            peer.now += Duration::from_millis(1);
        }
        // Two a second for five seconds.
        assert!((4..=11).contains(&answers), "{answers}");
        peer.wait(INTERVAL);
        assert_eq!(peer.send(S, 0, 0, b""), HERE);
        lives(&mut peer, id);
    }
}

#[test]
fn nothing_is_taken_without_an_acknowledgement() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        for flags in [0, P, U, F, P | F, U | P | F] {
            assert_eq!(peer.send(flags, 0, 0, b"abc"), NOTHING);
            assert_eq!(peer.read(id), Err(Errno::EAGAIN));
        }
        lives(&mut peer, id);
    }
}

/// RFC 5961 §5.2: "All incoming segments whose ACK value doesn't satisfy the above condition MUST be discarded and an ACK
/// sent back."
#[test]
fn what_was_never_sent_cannot_be_acknowledged() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        for (ahead, data) in [1, 1000, 1 << 30, 1 << 31, -(1 << 30), -2_000_000_000]
            .into_iter()
            .flat_map(|ahead| [(ahead, &b""[..]), (ahead, b"evil")])
        {
            assert_eq!(peer.send(A | P, 0, ahead, data), HERE, "{ahead}");
            assert_eq!(peer.send(A | P, 0, ahead, data), NOTHING, "no two answers in half a second");
            assert_eq!(peer.read(id), Err(Errno::EAGAIN), "its data is not believed either");
            peer.wait(INTERVAL);
        }
        lives(&mut peer, id);
        // What was given and has not left yet was not sent either.
        assert_eq!(send(&mut peer.engine, id, b"later"), Ok(5));
        let answers = peer.send(A, 0, 3, b"");
        assert!(answers.iter().any(|answer| answer.ends_with("len 5")), "{answers:?}");
        peer.ack = peer.ack.wrapping_add(5);
        peer.send(A, 0, 0, b"");
        lives(&mut peer, id);
    }
}

#[test]
fn what_waits_for_the_window_cannot_be_acknowledged() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted_offering(v6, &[], 4);
        assert_eq!(peer.write(id, b"hello, world"), ["A seq 1 ack 1 len 4"]);
        // All of it is in the buffer, and a third of it was sent.
        assert_eq!(peer.send(A, 0, 12, b""), ["A seq 5 ack 1 len 0"]);
        assert_eq!(peer.send(A, 0, 4, b""), ["A seq 5 ack 1 len 4"]);
        assert_eq!(peer.send(A, 0, 8, b""), ["PA seq 9 ack 1 len 4"]);
        assert_eq!(peer.send(A, 0, 12, b""), NOTHING);
    }
}

/// Linux does the same: SND.NXT moves when a segment leaves TCP, not when it reaches the wire. Somebody on the way who
/// acknowledges it makes the peer wait for ever, if the segment is lost then.
#[test]
fn what_waits_for_a_neighbour_can_be_acknowledged() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        let outstanding = |peer: &mut Peer| {
            let mut amount = [0; 4];
            assert_eq!(peer.engine.ioctl(id, libc::TIOCOUTQ, &mut amount), Ok(0));
            i32::from_ne_bytes(amount)
        };
        peer.engine.net.neighbours.flush(ETH);
        assert_eq!(send(&mut peer.engine, id, b"hello"), Ok(5));
        peer.engine.poll();
        let mut questions = Batch::new();
        peer.engine.take_egress(ETH, &mut questions);
        assert_eq!((questions.len(), peer.engine.census().unresolved), (1, 1), "who is it?");
        assert_eq!(outstanding(&mut peer), 5);
        assert_eq!(peer.send(A, 0, 3, b""), NOTHING);
        assert_eq!(outstanding(&mut peer), 2);
        assert_eq!(peer.send(A, 0, 6, b""), NOTHING, "the challenge waits as well");
        assert_eq!(outstanding(&mut peer), 2, "nobody sent a sixth byte");
        peer.wait(Duration::from_secs(3));
        let heard = peer.hear();
        assert_eq!(heard[0], "PA seq 1 ack 1 len 5", "the answer to the second question sets it free");
        assert_eq!(heard.last().map(String::as_str), Some("PA seq 4 ack 1 len 2"));
        assert_eq!(peer.send(A, 0, 5, b""), NOTHING);
        assert_eq!(outstanding(&mut peer), 0);
    }
}

#[test]
fn data_with_an_old_acknowledgement_is_data() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        assert_eq!(peer.write(id, b"hello"), ["PA seq 1 ack 1 len 5"]);
        // The peer had not seen it when it sent the second of these, which is overtaken by the first.
        assert_eq!(peer.send(A, 3, 5, b"def"), ["A seq 6 ack 1 len 0"]);
        assert_eq!(peer.send(A, 0, 0, b"abc"), ["A seq 6 ack 7 len 0"]);
        assert_eq!(peer.read(id), Ok(b"abcdef".to_vec()));
    }
}

/// RFC 9293 §3.10.7.4: "If an incoming segment is not acceptable, an acknowledgment should be sent in reply".
#[test]
fn data_out_of_the_window_is_answered_and_not_taken() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        for far in [-4, -10, -5001, RECEIVE_BUFFER as i64 + 1, 3_000_000, 1 << 30, 1 << 31] {
            assert_eq!(peer.send(A | P, far, 0, b"evil"), HERE, "{far}");
            assert_eq!(peer.read(id), Err(Errno::EAGAIN));
        }
        assert_eq!(peer.send(F | A, -1, 0, b""), HERE);
        assert_eq!(peer.send(A, -3, 0, b"xxxABC"), ["A seq 1 ack 4 len 0"], "what is new of it is");
        assert_eq!(peer.read(id), Ok(b"ABC".to_vec()));
    }
}

#[test]
fn data_beyond_the_buffer_is_not_taken_while_the_first_window_holds() {
    for v6 in [false, true] {
        // With a window scale, which does not hold for the window of the SYN|ACK.
        let (mut peer, id) = Peer::accepted_with(v6, &[2, 4, 5, 100, 3, 3, 7, 0]);
        let room = peer.engine.census().sockets as i64 * (1 << 20);
        assert_eq!(peer.send(A, room, 0, b"beyond"), HERE);
        assert_eq!(peer.send(A, room - 3, 0, b"cut off"), HERE);
        assert_eq!(peer.send(A, 0, 0, b"start"), ["A seq 1 ack 6 len 0"]);
        assert_eq!(peer.read(id), Ok(b"start".to_vec()));
        assert_eq!(peer.read(id), Err(Errno::EAGAIN));
    }
}

#[test]
fn overlapping_data_stays_one_stream() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        assert_eq!(peer.send(A, 5, 0, b"55555"), HERE);
        assert_eq!(peer.send(A, 3, 0, b"33333"), HERE);
        assert_eq!(peer.send(A, 1, 0, b"1"), HERE);
        // As on Linux, the segment that is in order counts as a whole.
        assert_eq!(peer.send(A, 0, 0, b"0000000000"), ["A seq 1 ack 11 len 0"]);
        assert_eq!(peer.read(id), Ok(b"0000000000".to_vec()));
        // What was acknowledged does not change any more.
        assert_eq!(peer.send(A, 0, 0, b"XXXXXXXXXXnew"), ["A seq 1 ack 14 len 0"]);
        assert_eq!(peer.read(id), Ok(b"new".to_vec()));
    }
}

/// What was received once stays as it is, also unread.
#[test]
fn who_says_it_again_otherwise_changes_nothing() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        peer.send(A | P, 0, 0, b"first");
        // Over it, from before it, over its end, and over all there is.
        for (at, data) in [(0, &b"EVILX"[..]), (-2, b"XXEVILX"), (3, b"XXmore"), (1, b"YYYYYYYY")] {
            peer.send(A | P, at, 0, data);
            peer.wait(INTERVAL);
        }
        assert_eq!(peer.read(id), Ok(b"firstmore".to_vec()));
        peer.hear();
        assert_eq!(peer.send(A | P, 0, 0, b"EVILEVILE"), ["A seq 1 ack 10 len 0"]);
        assert_eq!(peer.read(id), Err(Errno::EAGAIN));
    }
}

#[test]
fn pieces_out_of_order_that_contradict_each_other_make_one_stream() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        for (at, data) in [(6, &b"bbbb"[..]), (4, b"cccc"), (9, b"dddd")] {
            peer.send(A | P, at, 0, data);
            assert_eq!(peer.read(id), Err(Errno::EAGAIN));
        }
        peer.send(A | P, 0, 0, b"aaaa");
        let stream = peer.read(id).unwrap();
        // Where two differ, it is one of them.
        let possible = ["a", "a", "a", "a", "c", "c", "bc", "bc", "b", "bd", "d", "d", "d"];
        assert_eq!(stream.len(), possible.len());
        for (byte, said) in stream.iter().zip(possible) {
            assert!(said.as_bytes().contains(byte), "{}", String::from_utf8_lossy(&stream));
        }
        for at in [0, 4, 6, 9] {
            peer.send(A | P, at, 0, b"EVIL");
        }
        assert_eq!(peer.read(id), Err(Errno::EAGAIN));
    }
}

/// Crumbs in any order, more than anybody keeps, over and over: what arrives in the end is the stream.
#[test]
fn crumbs_in_any_order_are_the_stream_in_the_end() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        let mut dice = Dice(11);
        let data: Vec<u8> = (0..4000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for _ in 0..3000 {
            let at = dice.next() as usize % data.len();
            let end = data.len().min(at + 1 + dice.next() as usize % 20);
            peer.send(A | P, at as i64, 0, &data[at..end]);
        }
        let mut last = None;
        for at in (0..data.len()).step_by(500) {
            last = peer.send(A | P, at as i64, 0, &data[at..at + 500]).pop().or(last);
        }
        assert_eq!(last.as_deref(), Some("A seq 1 ack 4001 len 0"));
        assert_eq!(peer.read(id).unwrap(), data);
    }
}

#[test]
fn data_with_more_holes_than_can_be_remembered() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        for hole in (1..400).rev() {
            peer.send(A, hole * 2, 0, b"x");
        }
        let stream: Vec<u8> = (0..800).map(|at| if at % 2 == 0 { b'x' } else { b'y' }).collect();
        peer.send(A, 0, 0, &stream);
        assert_eq!(peer.read(id).unwrap(), stream);
    }
}

#[test]
fn a_fin_waits_for_the_data_before_it() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        assert_eq!(peer.send(F | A, 3, 0, b"def"), HERE);
        assert_eq!(peer.read(id), Err(Errno::EAGAIN));
        let answers = peer.send(A, 0, 0, b"abc");
        assert_eq!(answers.last().map(String::as_str), Some("A seq 1 ack 8 len 0"), "with the FIN");
        assert_eq!(peer.read(id), Ok(b"abcdef".to_vec()));
        assert_eq!(peer.read(id), Ok(Vec::new()));
        assert!(peer.engine.events(id).contains(Events::RDHUP));
    }
}

#[test]
fn a_fin_that_data_goes_beyond_is_none() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        peer.send(F | A, 3, 0, b"");
        peer.send(A, 0, 0, b"abcdef");
        assert_eq!(peer.read(id), Ok(b"abcdef".to_vec()));
        assert_eq!(peer.read(id), Err(Errno::EAGAIN));
    }
}

#[test]
fn nothing_follows_a_fin() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        assert_eq!(peer.send(F | A, 0, 0, b"abc"), ["A seq 1 ack 5 len 0"]);
        assert_eq!(peer.send(A, 4, 0, b"more"), NOTHING);
        assert_eq!(peer.send(F | A, 4, 0, b"more"), NOTHING);
        assert_eq!(peer.read(id), Ok(b"abc".to_vec()));
        assert_eq!(peer.read(id), Ok(Vec::new()));
        assert_eq!(
            peer.send(F | A, 3, 0, b""),
            ["A seq 1 ack 5 len 0"],
            "its retransmission is acknowledged"
        );
        // The answer still gets through, whatever was tried.
        assert_eq!(peer.write(id, b"answer"), ["PA seq 1 ack 5 len 6"]);
        assert_eq!(peer.send(R, 3, 0, b""), NOTHING, "Linux takes the FIN's number for a reset's");
        assert!(peer.engine.events(id).contains(Events::ERR));
    }
}

/// RFC 6093 §6: "new applications SHOULD NOT employ the TCP urgent mechanism": here nobody can.
#[test]
fn urgent_data_is_data() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        for (i, (urgent, flags)) in
            [(3, U | A | P), (0, U | A), (60_000, U | A), (5, A)].into_iter().enumerate()
        {
            peer.urgent = urgent;
            let answer = format!("A seq 1 ack {} len 0", 1 + 6 * (i + 1));
            assert_eq!(peer.send(flags, 0, 0, b"abcdef"), [answer]);
            peer.seq = peer.seq.wrapping_add(6);
            assert_eq!(peer.send(A | U, 0, 0, b""), NOTHING);
            assert!(!peer.engine.events(id).contains(Events::PRI));
            assert_eq!(peer.read(id), Ok(b"abcdef".to_vec()));
        }
    }
}

#[test]
fn options_without_sense_do_not_matter() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        for (i, options) in [
            &[2, 0, 0, 0][..],
            &[5, 1, 0, 0],
            &[19, 255, 1, 1],
            &[254],
            &[8, 10, 0, 0],
            &[1, 1, 1, 2],
            &[5; 40],
        ]
        .into_iter()
        .enumerate()
        {
            peer.options = options.to_vec();
            peer.send(A, 2 * i as i64, 0, b"ab");
            assert_eq!(peer.read(id), Ok(b"ab".to_vec()), "{options:?}");
        }
    }
}

#[test]
fn a_storm_of_resets_is_silent_and_harmless() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        let (mut dice, mut answers) = (Dice(3), 0);
        for i in 0..20_000 {
            // Half of them as a blind attacker spreads them, half close to the mark.
            let at = if i % 2 == 0 { dice.next() as u32 } else { dice.next() as u32 % 20_000 };
            let flags = if dice.percent(50) { R } else { R | A };
            answers += peer.send(flags, at.max(1).into(), 0, b"").len();
        }
        assert_eq!(answers, 1, "at one instant");
        lives(&mut peer, id);
    }
}

#[test]
fn duplicate_acknowledgements_without_end_change_nothing() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        peer.write(id, b"hello");
        let mut sent = 0;
        for _ in 0..5000 {
            sent += peer.send(A, 0, 0, b"").len();
        }
        assert!(sent <= 2, "{sent} retransmissions for acknowledgements that say nothing");
        assert_eq!(peer.send(A, 0, 5, b"x"), ["A seq 6 ack 2 len 0"]);
    }
}
