//! Segments for an established connection that are out of order, forged, or contradict each other.
//!
//! Read first: RFC 9293 §3.10.7.4, RFC 5961.

use ioth_core::{Errno, Events};
use ioth_vde::Batch;
use smoltcp::time::Duration;

use crate::engine::tests::lan::{ETH, send};
use crate::engine::tests::peer::{A, F, P, Peer, R, S, U};

const NOTHING: [&str; 0] = [];
const HERE: [&str; 1] = ["A seq 1 ack 1 len 0"];
/// After this long, another challenge is answered.
const INTERVAL: Duration = Duration::from_millis(501);

#[test]
fn only_the_exact_reset_resets() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        assert_eq!(peer.send(R, 10, 0, b""), HERE, "in the window: challenged");
        assert_eq!(peer.send(R, 11, 0, b""), NOTHING, "no two answers in half a second");
        peer.wait(INTERVAL);
        assert_eq!(peer.send(R | A, 60_000, 7, b""), HERE);
        peer.wait(INTERVAL);
        for far in [-1, -1000, 3 << 20, 1 << 31] {
            assert_eq!(peer.send(R, far, 0, b""), NOTHING, "{far}");
        }
        assert!(!peer.engine.events(id).contains(Events::ERR));
        assert_eq!(peer.send(R, 0, 0, b""), NOTHING);
        assert_eq!(peer.read(id), Err(Errno::ECONNRESET));
        assert_eq!(peer.engine.census().connections, 0);
    }
}

#[test]
fn a_reset_may_have_other_flags() {
    for flags in [R | F | A, R | S, R | P | U] {
        let (mut peer, id) = Peer::accepted(true);
        assert_eq!(peer.send(flags, 0, 0, b""), NOTHING);
        assert_eq!(peer.read(id), Err(Errno::ECONNRESET), "{flags:#x}");
    }
}

#[test]
fn a_syn_is_challenged_wherever_it_is() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        for (flags, at) in
            [(S, 0), (S, 7), (S, -5000), (S | A, 3), (S, 1 << 31), (S | F, 0), (S | F | P | A | U, 0)]
        {
            assert_eq!(peer.send(flags, at, 0, b""), HERE, "{flags:#x} at {at}");
            assert_eq!(peer.send(flags, at, 0, b""), NOTHING, "no two answers in half a second");
            peer.wait(INTERVAL);
        }
        assert_eq!(peer.send(A | P, 0, 0, b"alive"), ["A seq 1 ack 6 len 0"]);
        assert_eq!(peer.read(id), Ok(b"alive".to_vec()));
    }
}

#[test]
fn nothing_is_taken_without_an_acknowledgement() {
    let (mut peer, id) = Peer::accepted(false);
    for flags in [0, P, U, F, P | F] {
        assert_eq!(peer.send(flags, 0, 0, b"abc"), NOTHING);
        assert_eq!(peer.read(id), Err(Errno::EAGAIN));
    }
}

#[test]
fn what_was_never_sent_cannot_be_acknowledged() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        assert_eq!(peer.send(A, 0, 1, b""), HERE);
        assert_eq!(peer.send(A, 0, 1000, b""), NOTHING);
        assert_eq!(peer.send(A | P, 0, 1, b"xyz"), NOTHING, "its data is not believed either");
        assert_eq!(peer.read(id), Err(Errno::EAGAIN));
        peer.wait(INTERVAL);
        assert_eq!(peer.send(A, 0, -2_000_000_000, b"abc"), HERE, "RFC 5961 §5: too old");
        assert_eq!(peer.read(id), Err(Errno::EAGAIN));
    }
}

#[test]
fn what_waits_for_the_window_cannot_be_acknowledged() {
    let (mut peer, id) = Peer::accepted_offering(true, &[], 4);
    assert_eq!(peer.write(id, b"hello, world"), ["A seq 1 ack 1 len 4"]);
    // All of it is in the buffer, and a third of it was sent.
    assert_eq!(peer.send(A, 0, 12, b""), ["A seq 5 ack 1 len 0"]);
    assert_eq!(peer.send(A, 0, 4, b""), ["A seq 5 ack 1 len 4"]);
    assert_eq!(peer.send(A, 0, 8, b""), ["PA seq 9 ack 1 len 4"]);
    assert_eq!(peer.send(A, 0, 12, b""), NOTHING);
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

#[test]
fn data_out_of_the_window_is_answered_and_not_taken() {
    for v6 in [false, true] {
        let (mut peer, id) = Peer::accepted(v6);
        assert_eq!(peer.send(A, -10, 0, b"0123456789"), HERE);
        assert_eq!(peer.send(A, 3_000_000, 0, b"0123"), HERE);
        assert_eq!(peer.send(A, 1 << 31, 0, b"0123"), HERE);
        assert_eq!(peer.send(A, -3, 0, b"xxxABC"), ["A seq 1 ack 4 len 0"], "what is new of it is");
        assert_eq!(peer.read(id), Ok(b"ABC".to_vec()));
    }
}

#[test]
fn data_beyond_the_buffer_is_not_taken_while_the_first_window_holds() {
    // With a window scale, which does not hold for the window of the SYN|ACK.
    let (mut peer, id) = Peer::accepted_with(true, &[2, 4, 5, 100, 3, 3, 7, 0]);
    let room = peer.engine.census().sockets as i64 * (1 << 20);
    assert_eq!(peer.send(A, room, 0, b"beyond"), HERE);
    assert_eq!(peer.send(A, room - 3, 0, b"cut off"), HERE);
    assert_eq!(peer.send(A, 0, 0, b"start"), ["A seq 1 ack 6 len 0"]);
    assert_eq!(peer.read(id), Ok(b"start".to_vec()));
    assert_eq!(peer.read(id), Err(Errno::EAGAIN));
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

#[test]
fn data_with_more_holes_than_can_be_remembered() {
    let (mut peer, id) = Peer::accepted(false);
    for hole in (1..400).rev() {
        peer.send(A, hole * 2, 0, b"x");
    }
    let stream: Vec<u8> = (0..800).map(|at| if at % 2 == 0 { b'x' } else { b'y' }).collect();
    peer.send(A, 0, 0, &stream);
    assert_eq!(peer.read(id).unwrap(), stream);
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
    let (mut peer, id) = Peer::accepted(true);
    peer.send(F | A, 3, 0, b"");
    peer.send(A, 0, 0, b"abcdef");
    assert_eq!(peer.read(id), Ok(b"abcdef".to_vec()));
    assert_eq!(peer.read(id), Err(Errno::EAGAIN));
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

#[test]
fn urgent_data_is_data() {
    let (mut peer, id) = Peer::accepted(false);
    assert_eq!(peer.send(A | U, 0, 0, b"abcdef"), ["A seq 1 ack 7 len 0"]);
    assert_eq!(peer.send(A | U, 6, 0, b""), NOTHING);
    assert_eq!(peer.read(id), Ok(b"abcdef".to_vec()));
}

#[test]
fn options_without_sense_do_not_matter() {
    let (mut peer, id) = Peer::accepted(true);
    for (i, options) in
        [&[2, 0, 0, 0][..], &[5, 1, 0, 0], &[19, 255, 1, 1], &[254], &[8, 10, 0, 0], &[1, 1, 1, 2], &[5; 40]]
            .into_iter()
            .enumerate()
    {
        peer.options = options.to_vec();
        peer.send(A, 2 * i as i64, 0, b"ab");
        assert_eq!(peer.read(id), Ok(b"ab".to_vec()), "{options:?}");
    }
}

#[test]
fn a_storm_of_resets_is_silent_and_harmless() {
    let (mut peer, id) = Peer::accepted(true);
    let mut answers = 0;
    for i in 1..20_000i64 {
        answers += peer.send(R, i * 50, 0, b"").len();
    }
    assert_eq!(answers, 1, "at one instant");
    peer.send(A, 0, 0, b"alive");
    assert_eq!(peer.read(id), Ok(b"alive".to_vec()));
}

#[test]
fn duplicate_acknowledgements_without_end_change_nothing() {
    let (mut peer, id) = Peer::accepted(false);
    peer.write(id, b"hello");
    let mut sent = 0;
    for _ in 0..5000 {
        sent += peer.send(A, 0, 0, b"").len();
    }
    assert!(sent <= 2, "{sent} retransmissions for acknowledgements that say nothing");
    assert_eq!(peer.send(A, 0, 5, b"x"), ["A seq 6 ack 2 len 0"]);
}
