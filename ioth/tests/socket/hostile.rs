//! Segments that are out of order, forged, or contradict each other, at every stack in the same words: RFC 9293 §3.10.7, RFC 5961.
//!
//! Each case has a connection of its own: what was answered once is not answered again for half a second.

use ioth::berkeley::*;
use ioth::{Events, Stack};

use crate::fixture::*;
use crate::forge::{A, F, P, Peer, R, S, U, unread};

const NOTHING: [&str; 0] = [];
const HERE: [&str; 1] = ["A seq 1 ack 1 len 0"];
const MSS: [u8; 4] = [2, 4, 5, 100];

/// RFC 5961 §3.2: only the exact number resets; what is near it is challenged.
pub(crate) fn resets(pair: &Pair) {
    let mut peer = Peer::new(pair);
    for (at, answer) in [
        (1, &HERE[..]),
        (1460, &HERE),
        (60_000, &HERE),
        (-1, &[]),
        (-1000, &[]),
        (1 << 30, &[]),
        (1 << 31, &[]),
    ] {
        for flags in [R, R | A, R | S, R | F | A] {
            let fd = peer.accepted(&MSS);
            // A SYN or FIN beside it reaches into the window.
            let answer = if at == -1 && flags & (S | F) != 0 { &HERE[..] } else { answer };
            assert_eq!(peer.send(flags, at, 0, b""), answer, "{flags:#x} at {at}");
            assert_eq!(peer.send(flags, at, 0, b""), NOTHING, "no two answers in half a second");
            peer.lives(&fd);
        }
    }
    for flags in [R, R | A, R | F | A, R | S, R | P | U] {
        let fd = peer.accepted(&MSS);
        assert_eq!(peer.send(flags, 0, 0, b""), NOTHING);
        wait(&fd, Events::HUP);
        assert_eq!(errno(read(fd.0, &mut [0])), libc::ECONNRESET, "{flags:#x}");
    }
}

/// RFC 5961 §4.2: "irrespective of the sequence number".
pub(crate) fn syns(pair: &Pair) {
    let mut peer = Peer::new(pair);
    for (flags, at, data) in [
        (S, 0, &b""[..]),
        (S, 1000, b""),
        (S, -5000, b""),
        (S, 1 << 31, b""),
        (S | A, 3, b""),
        (S | A, 0, b"evil"),
        (S | F, 0, b""),
        (S | F | P | A | U, 0, b""),
    ] {
        let fd = peer.accepted(&MSS);
        assert_eq!(peer.send(flags, at, 0, data), HERE, "{flags:#x} at {at}");
        assert_eq!(peer.send(flags, at, 0, data), NOTHING);
        unread(&fd);
        peer.lives(&fd);
    }
}

/// RFC 5961 §5.2: who acknowledges what was never sent, or is too old, is not believed in anything.
pub(crate) fn acknowledgements(pair: &Pair) {
    let mut peer = Peer::new(pair);
    for ahead in [1, 1000, 1 << 30, -(1 << 30), -2_000_000_000] {
        for data in [&b""[..], b"evil"] {
            let fd = peer.accepted(&MSS);
            assert_eq!(peer.send(A | P, 0, ahead, data), HERE, "{ahead}");
            unread(&fd);
            peer.lives(&fd);
        }
    }
    for flags in [0, P, U, F, P | F, U | P | F] {
        let fd = peer.accepted(&MSS);
        assert_eq!(peer.send(flags, 0, 0, b"abc"), NOTHING, "{flags:#x}: without an acknowledgement");
        unread(&fd);
        peer.lives(&fd);
    }
}

/// RFC 9293 §3.10.7.4: "If an incoming segment is not acceptable, an acknowledgment should be sent in reply".
pub(crate) fn data_elsewhere(pair: &Pair) {
    let mut peer = Peer::new(pair);
    for far in [-4, -10, -5001, 3_000_000, 1 << 30, 1 << 31] {
        let fd = peer.accepted(&MSS);
        assert_eq!(peer.send(A | P, far, 0, b"evil"), HERE, "{far}");
        unread(&fd);
        peer.lives(&fd);
    }
    let fd = peer.accepted(&MSS);
    assert_eq!(peer.send(A | P, -3, 0, b"xxxABC"), ["A seq 1 ack 4 len 0"], "what is new of it counts");
    assert_eq!(read_some(&fd, 3), b"ABC");
    unread(&fd);
}

/// What was received once stays as it is; of two that are out of order, one is believed.
pub(crate) fn overlaps(pair: &Pair) {
    let mut peer = Peer::new(pair);
    let fd = peer.accepted(&MSS);
    for (at, data) in [(5, &b"55555"[..]), (3, b"33333"), (1, b"1")] {
        assert_eq!(peer.send(A | P, at, 0, data), HERE);
        unread(&fd);
    }
    assert_eq!(peer.send(A | P, 0, 0, b"0000000000"), ["A seq 1 ack 11 len 0"]);
    assert_eq!(peer.send(A | P, 0, 0, b"XXXXXXXXXXnew"), ["A seq 1 ack 14 len 0"]);
    assert_eq!(String::from_utf8_lossy(&read_some(&fd, 13)), "0000000000new");
    unread(&fd);

    let fd = peer.accepted(&MSS);
    peer.send(A | P, 0, 0, b"first");
    for (at, data) in [(0, &b"EVILX"[..]), (-2, b"XXEVILX"), (3, b"XXmore"), (1, b"YYYYYYYY")] {
        peer.send(A | P, at, 0, data);
    }
    assert_eq!(String::from_utf8_lossy(&read_some(&fd, 9)), "firstmore");
    unread(&fd);

    let fd = peer.accepted(&MSS);
    for (at, data) in [(6, &b"bbbb"[..]), (4, b"cccc"), (9, b"dddd"), (0, b"aaaa")] {
        peer.send(A | P, at, 0, data);
    }
    let possible = ["a", "a", "a", "a", "c", "c", "bc", "bc", "b", "bd", "d", "d", "d"];
    let stream = read_some(&fd, possible.len());
    for (byte, said) in stream.iter().zip(possible) {
        assert!(said.as_bytes().contains(byte), "{}", String::from_utf8_lossy(&stream));
    }
    unread(&fd);
}

/// Ends that come too early, too late, or twice, and data behind them.
pub(crate) fn ends(pair: &Pair) {
    let mut peer = Peer::new(pair);
    for far in [-1, 3_000_000, 1 << 30, 1 << 31] {
        let fd = peer.accepted(&MSS);
        peer.send(F | A, far, 0, b"");
        unread(&fd);
        peer.lives(&fd);
    }
    let fd = peer.accepted(&MSS);
    assert_eq!(peer.send(F | A, 3, 0, b"def"), HERE);
    unread(&fd);
    assert_eq!(
        peer.send(A, 0, 0, b"abc").last().map(String::as_str),
        Some("A seq 1 ack 8 len 0"),
        "with the FIN"
    );
    assert_eq!(read_some(&fd, 9), b"abcdef");
    assert_eq!(read(fd.0, &mut [0]).unwrap(), 0);

    let fd = peer.accepted(&MSS);
    peer.put(F | A, 0, 0, b"abc");
    peer.hear_until(|said| said == "A seq 1 ack 5 len 0");
    assert_eq!(peer.send(A, 4, 0, b"more"), NOTHING);
    assert_eq!(peer.send(F | A, 4, 0, b"more"), NOTHING);
    assert_eq!(read_some(&fd, 9), b"abc");
    peer.put(F | A, 3, 0, b"");
    peer.hear_until(|said| said == "A seq 1 ack 5 len 0");
    send_all(&fd, b"answer");
    assert_eq!(peer.hear(), ["PA seq 1 ack 5 len 6"]);
    assert_eq!(peer.send(R, 3, 0, b""), NOTHING, "the FIN's number is taken for a reset's");
    wait(&fd, Events::HUP);
}

/// Options without sense, in a SYN and later: they are passed over.
pub(crate) fn options(pair: &Pair) {
    let mut peer = Peer::new(pair);
    for options in
        [&[2, 0, 0, 0][..], &[5, 1, 0, 0], &[19, 255, 1, 1], &[254], &[8, 10, 0, 0], &[1, 1, 1, 2], &[5; 40]]
    {
        let fd = peer.accepted(options);
        peer.options = options.to_vec();
        peer.send(A | P, 0, 0, b"ab");
        assert_eq!(read_some(&fd, 2), b"ab", "{options:?}");
        peer.options.clear();
        peer.seq = peer.seq.wrapping_add(2);
        peer.lives(&fd);
    }
}

/// The segment size and window scale of a SYN, out of all bounds.
pub(crate) fn segment_sizes(pair: &Pair) {
    let mut peer = Peer::new(pair);
    let (unsaid, widest) = if pair.a_addr.is_ipv4() { (536, 1460) } else { (1220, 1440) };
    for (options, segment) in [
        (&[2, 4, 0, 1][..], 48),
        (&[2, 4, 0, 47], 48),
        (&[2, 4, 0, 0], unsaid),
        (&[2, 0, 0, 0], unsaid),
        (&[2, 4], unsaid),
        (&[3, 3, 15, 2, 4, 5, 180, 0], widest.min(1460)),
        (&[3, 3, 255, 2, 4, 5, 180, 0], widest.min(1460)),
        (&[2, 4, 255, 255], widest),
        (&[19, 18, 1, 1, 2, 4, 5, 180], unsaid),
    ] {
        let fd = peer.accepted(options);
        assert_eq!(option(&fd, libc::IPPROTO_TCP, libc::TCP_MAXSEG).unwrap(), segment, "{options:?}");
        peer.lives(&fd);
    }
}

/// RFC 2018: blocks of what was never sent, of nothing, and of what is long acknowledged.
pub(crate) fn selective_acknowledgements(pair: &Pair) {
    let mut peer = Peer::new(pair);
    let fd = peer.accepted(&[2, 4, 5, 100, 4, 2]);
    send_all(&fd, b"hello");
    assert_eq!(peer.hear(), ["PA seq 1 ack 1 len 5"]);
    for (begin, end) in
        [(5, 500), (1 << 20, 1 << 21), (1 << 31, (1 << 31) + 9), (-9, -3), (-3, 2), (4, 1), (3, 3)]
    {
        for blocks in [1u8, 3, 4] {
            peer.options = vec![1, 1, 5, 2 + 8 * blocks];
            for _ in 0..blocks {
                for edge in [begin, end] {
                    peer.options.extend(peer.ack.wrapping_add(edge as i64 as u32).to_be_bytes());
                }
            }
            peer.send(A, 0, 0, b"");
        }
    }
    peer.options.clear();
    peer.send(A, 0, 5, b"");
    peer.ack = peer.ack.wrapping_add(5);
    peer.lives(&fd);
}

/// A window that is closed, opens by a byte, and shrinks: all arrives in the end.
pub(crate) fn windows(pair: &Pair) {
    let mut peer = Peer::new(pair);
    peer.window = 0;
    let fd = peer.accepted(&MSS);
    send_all(&fd, b"abcdef");
    assert_eq!(peer.hear(), NOTHING);
    // The kernel leaves it to its probes to fill so small a window.
    peer.window = 1;
    for i in 0..2 {
        peer.put(A, 0, i, b"");
        let wanted = format!("seq {} ack 1 len 1", i + 1);
        peer.hear_until(|said| said.ends_with(&wanted));
    }
    peer.window = 0;
    assert_eq!(peer.send(A, 0, 2, b""), NOTHING);
    // Who waits for it asks by itself.
    peer.hear_until(|said| said.starts_with('A'));
    peer.window = 100;
    let answers = peer.send(A, 0, 2, b"");
    assert_eq!(answers.last().map(String::as_str), Some("PA seq 3 ack 1 len 4"), "{answers:?}");
    peer.send(A, 0, 6, b"");
    peer.ack = peer.ack.wrapping_add(6);
    peer.lives(&fd);
}

/// RFC 5927: an ICMP error has to quote what is under way, and does not end what is established.
pub(crate) fn icmp_errors(pair: &Pair) {
    const UNREACHABLE: [[u8; 2]; 2] = [[3, 1], [1, 3]];
    const TOO_BIG: [[u8; 2]; 2] = [[3, 4], [2, 0]];
    let mut peer = Peer::new(pair);
    let fd = peer.accepted(&[2, 4, 5, 180]);
    let before = option(&fd, libc::IPPROTO_TCP, libc::TCP_MAXSEG).unwrap();
    for far in [1, 1 << 20, 1 << 31, -5000] {
        for kinds in [UNREACHABLE, [[3, 3], [1, 4]], [[3, 2], [4, 1]], [[12, 0], [4, 0]]] {
            peer.icmp_error(kinds, 0, far);
        }
        for narrow in [0, 68, 552, 1280, 1300] {
            peer.icmp_error(TOO_BIG, narrow, far + 1000);
        }
    }
    peer.lives(&fd);
    assert_eq!(option(&fd, libc::IPPROTO_TCP, libc::TCP_MAXSEG).unwrap(), before);
    send_all(&fd, &[7; 100]);
    peer.hear_until(|said| said.ends_with("len 100"));
    for kinds in [UNREACHABLE, [[3, 3], [1, 4]], [[3, 2], [4, 1]], [[12, 0], [4, 0]]] {
        peer.icmp_error(kinds, 0, 0);
    }
    // However little is claimed, no segment is shorter than the least that IP carries.
    for narrow in [0, 1, 68, 552, 1280] {
        peer.icmp_error(TOO_BIG, narrow, 0);
    }
    peer.hear();
    peer.send(A, 0, 100, b"");
    peer.ack = peer.ack.wrapping_add(100);
    assert_eq!(so_error(&fd), 0);
    peer.lives(&fd);
    let least = option(&fd, libc::IPPROTO_TCP, libc::TCP_MAXSEG).unwrap();
    assert!((if pair.a_addr.is_ipv4() { 512..=1280 } else { 1220..=1220 }).contains(&least), "{least}");
}

/// Now and then, as a storm must not be more than the buffers on its way hold.
fn pause(peer: &mut Peer<'_>, sent: i64) {
    if sent % 50 == 49 {
        peer.fence();
    }
}

/// More beginnings than anybody keeps, and somebody honest among them.
pub(crate) fn half_open(pair: &Pair) {
    let mut peer = Peer::new(pair);
    let held = peer.accepted(&MSS);
    let held_state = (peer.ports, peer.seq, peer.ack);
    let port = peer.listen();
    for i in 0..3000u16 {
        peer.ports = [port, 30_000 + i];
        peer.put(S, 0, 0, b"");
        pause(&mut peer, i.into());
        if i % 1000 == 999 {
            let client = pair.tcp_a();
            connect(client.0, std::net::SocketAddr::new(pair.b_addr, port)).unwrap();
            let server = peer.accept();
            send_all(&client, b"honest");
            assert_eq!(read_some(&server, 6), b"honest");
        }
    }
    peer.hear();
    (peer.ports, peer.seq, peer.ack) = held_state;
    peer.lives(&held);
}

/// RFC 9293 §3.5: both call at once, while others try to be one of them.
pub(crate) fn opened_at_once(pair: &Pair) {
    let mut peer = Peer::new(pair);
    let client = pair.socket(&pair.b, libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
    assert_eq!(errno(connect(client.0, peer.addr())), libc::EINPROGRESS);
    peer.hear_syn();
    assert_eq!(peer.send(R, 0, 0, b""), NOTHING, "without an acknowledgement");
    assert_eq!(peer.send(R | A, 0, 4, b""), NOTHING);
    assert_eq!(peer.send(A, 0, 8, b""), ["R seq 9 len 0"]);
    assert_eq!(peer.send(S | A, 0, 8, b""), ["R seq 9 len 0"]);
    assert_eq!(peer.send(F | A, 0, 0, b""), NOTHING);
    assert_eq!(peer.send(S, 0, 0, b""), ["SA seq 0 ack 1 len 0"]);
    for at in [5, 100, -3, 1 << 31] {
        peer.send(R, at, 0, b"");
        peer.send(R | A, at, 0, b"");
    }
    peer.seq = peer.seq.wrapping_add(1);
    assert_eq!(events(&client), Events::empty());
    peer.send(A, 0, 0, b"");
    wait_exactly(&client, Events::OUT);
    nonblocking(&client, false);
    peer.lives(&client);
}

/// Both end at once, and then nothing but time ends what remains.
pub(crate) fn closed_at_once(pair: &Pair) {
    let mut peer = Peer::new(pair);
    let fd = peer.accepted(&MSS);
    drop(fd);
    peer.hear_until(|said| said == "FA seq 1 ack 1 len 0");
    for at in [5, 1000, -3, 1 << 31] {
        peer.send(R, at, 0, b"");
        peer.send(S, at, 0, b"");
    }
    assert_eq!(peer.send(F | A, 0, 0, b""), ["A seq 2 ack 2 len 0"], "CLOSING");
    (peer.seq, peer.ack) = (peer.seq.wrapping_add(1), peer.ack.wrapping_add(1));
    assert_eq!(peer.send(A, 0, 0, b""), NOTHING);
    // RFC 1337: resets by a guess do not end it.
    for i in 0..1000i64 {
        peer.put(if i % 2 == 0 { R } else { R | A }, 1 + i * 7919, 0, b"");
        peer.put(R, -2 - i * 104_729, 0, b"");
        pause(&mut peer, i);
    }
    assert_eq!(peer.hear(), NOTHING);
    assert_eq!(peer.send(F | A, -1, 0, b""), ["A seq 2 ack 2 len 0"], "the FIN's repetition");
    assert_eq!(peer.send(A, 0, 0, b"abc"), ["A seq 2 ack 2 len 0"]);
}

/// Resets, SYNs and acknowledgements by the thousand, none of them right.
pub(crate) fn storms(pair: &Pair) {
    let mut peer = Peer::new(pair);
    let fd = peer.accepted(&MSS);
    let mut number = 7u32;
    for i in 0..6000 {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let at = i64::from(if i % 2 == 0 { number } else { number % 20_000 }.max(1));
        let (flags, data) =
            [(R, &b""[..]), (R | A, b""), (S, b""), (S | A, b"evil"), (F, b"evil"), (0, b"evil")][i % 6];
        peer.put(flags, at, i64::from(number >> 8), data);
        pause(&mut peer, i as i64);
    }
    let answers = peer.hear();
    assert!(answers.len() <= 1 + LONG.as_millis() as usize / 500, "{}", answers.len());
    unread(&fd);
    peer.lives(&fd);
}

/// Urgent data: the kernel takes the last byte of it out of the stream, a node leaves it where it is (docs/posix.md).
pub(crate) fn urgent(pair: &Pair) {
    let native = |stack: &Stack| matches!(stack.backend(), "kernel" | "vdestack");
    let mut peer = Peer::new(pair);
    for (urgent, flags, bytes) in [(3, U | A | P, "abdef"), (6, U | A, "abcde"), (5, A, "abcdef")] {
        let fd = peer.accepted(&MSS);
        peer.urgent = urgent;
        assert_eq!(peer.send(flags, 0, 0, b"abcdef"), ["A seq 1 ack 7 len 0"]);
        peer.urgent = 0;
        let wanted = if native(&pair.b) { bytes } else { "abcdef" };
        // The place of urgent data ends a read.
        let mut got = Vec::new();
        while got.len() < wanted.len() {
            got.extend(read_some(&fd, 1));
        }
        assert_eq!(String::from_utf8_lossy(&got), wanted);
        unread(&fd);
        peer.seq = peer.seq.wrapping_add(6);
        peer.lives(&fd);
    }
}
