//! What TCP does by the clock: retries, probes, time-outs, delays.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ioth_core::{Domain, Errno, Events, Result, Shutdown, SockAddr};
use ioth_vde::Frame;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::TcpPacket;

use super::lan::{ETH, Lan, WIRE, addr, mac, recv, send};
use crate::engine::SocketId;

const DELAY: Duration = Duration::from_millis(1);

fn set(lan: &mut Lan, node: usize, id: SocketId, name: i32, value: i32) {
    lan.nodes[node].set_option(id, libc::IPPROTO_TCP, name, &value.to_ne_bytes()).unwrap();
}

/// Sends at the time that it is.
fn give(lan: &mut Lan, node: usize, id: SocketId, data: &[u8]) -> Result<usize> {
    lan.nodes[node].set_now(lan.now);
    send(&mut lan.nodes[node], id, data)
}

/// The segment in a frame: its sender, and its bytes from the TCP header on.
fn segment(frame: &Frame) -> Option<(usize, &[u8])> {
    let from = (0..2).find(|i| frame[6..12] == mac(*i).0)?;
    let (protocol, at) = match frame[12..14] {
        [8, 0] => (frame[23], 34),
        [0x86, 0xdd] => (frame[20], 54),
        _ => return None,
    };
    (protocol == 6).then(|| (from, &frame[at..]))
}

/// Bytes of data in a segment.
fn payload(segment: &[u8]) -> usize {
    segment.len() - usize::from(TcpPacket::new_unchecked(segment).header_len())
}

/// Has every segment told; what is answered is its fate.
fn watch(lan: &mut Lan, mut fate: impl FnMut(usize, &[u8]) -> Option<Duration> + 'static) {
    lan.fate = Box::new(move |frame| match segment(frame) {
        Some((from, segment)) => fate(from, segment).into_iter().collect(),
        None => vec![DELAY],
    });
}

/// A connection over a wire that takes a millisecond, which both have measured.
fn measured(v6: bool) -> (Lan, SocketId, SocketId) {
    let mut lan = Lan::new(2, WIRE);
    lan.fate = Box::new(|_| vec![DELAY]);
    let (client, server) = lan.connection(v6);
    for _ in 0..20 {
        give(&mut lan, 0, client, b"ping").unwrap();
        wait_for(&mut lan, 1, server, 4);
        give(&mut lan, 1, server, b"pong").unwrap();
        wait_for(&mut lan, 0, client, 4);
    }
    lan.run_for(Duration::from_secs(1));
    (lan, client, server)
}

/// Runs until so much has arrived: how long that took.
#[track_caller]
fn wait_for(lan: &mut Lan, node: usize, id: SocketId, mut len: usize) -> Duration {
    let start = lan.now;
    let mut buffer = vec![0; 1 << 16];
    assert!(lan.run_until(Duration::from_secs(100), |lan| {
        while let Ok(n) = recv(&mut lan.nodes[node], id, &mut buffer) {
            assert_ne!(n, 0, "the end");
            len -= n;
        }
        len == 0
    }));
    lan.now - start
}

#[track_caller]
fn fails(lan: &mut Lan, node: usize, id: SocketId, errno: Errno) -> Duration {
    let start = lan.now;
    assert!(lan.run_until(Duration::from_secs(2000), |lan| lan.nodes[node].events(id).contains(Events::ERR)));
    assert_eq!(lan.nodes[node].take_error(id), Some(errno));
    lan.now - start
}

#[test]
fn a_fresh_socket_polls_as_on_linux() {
    let mut lan = Lan::new(2, WIRE);
    let fresh = lan.stream(0, Domain::INET);
    assert_eq!(lan.nodes[0].events(fresh), Events::OUT | Events::HUP);
    let (client, server) = lan.connection(false);
    assert_eq!(lan.nodes[0].events(client), Events::OUT);
    lan.nodes[0].connect(client, &SockAddr::Unspecified).unwrap();
    assert_eq!(lan.nodes[0].events(client), Events::OUT | Events::HUP | Events::ERR);
    assert_eq!(lan.nodes[0].take_error(client), Some(Errno::ECONNRESET));
    assert_eq!(lan.nodes[0].events(client), Events::OUT | Events::HUP);
    assert!(lan.run_until(DELAY * 2, |lan| lan.nodes[1].events(server).contains(Events::HUP)));
}

#[test]
fn syns_are_repeated_as_often_as_asked() {
    for (retries, seconds) in [(1, 3), (2, 7), (4, 31)] {
        let mut lan = Lan::new(2, WIRE);
        let syns = Rc::new(Cell::new(0));
        let count = syns.clone();
        watch(&mut lan, move |_, _| {
            count.set(count.get() + 1);
            None
        });
        let client = lan.stream(0, Domain::INET);
        set(&mut lan, 0, client, libc::TCP_SYNCNT, retries);
        let _ = lan.nodes[0].connect(client, &SockAddr::Ip(addr(1, false, 80)));
        assert_eq!(fails(&mut lan, 0, client, Errno::ETIMEDOUT).secs(), seconds);
        assert_eq!(syns.get(), retries + 1);
    }
}

#[test]
fn the_users_time_out_ends_an_attempt() {
    let mut lan = Lan::new(2, WIRE);
    watch(&mut lan, |_, _| None);
    let client = lan.stream(0, Domain::INET6);
    set(&mut lan, 0, client, libc::TCP_USER_TIMEOUT, 2_500);
    let _ = lan.nodes[0].connect(client, &SockAddr::Ip(addr(1, true, 80)));
    assert_eq!(fails(&mut lan, 0, client, Errno::ETIMEDOUT).total_millis(), 2_500);
}

#[test]
fn the_users_time_out_ends_what_nobody_acknowledges() {
    let (mut lan, client, _server) = measured(false);
    set(&mut lan, 0, client, libc::TCP_USER_TIMEOUT, 3_000);
    // Silence alone is no reason.
    lan.run_for(Duration::from_secs(60));
    watch(&mut lan, |_, _| None);
    give(&mut lan, 0, client, b"anybody?").unwrap();
    assert_eq!(fails(&mut lan, 0, client, Errno::ETIMEDOUT).total_millis(), 3_000);
}

#[test]
fn the_users_time_out_ends_waiting_for_a_window() {
    let (mut lan, client, _server) = measured(true);
    set(&mut lan, 0, client, libc::TCP_USER_TIMEOUT, 20_000);
    let data = vec![7; 3 << 20];
    let mut sent = 0;
    // Nobody reads.
    lan.run_until(Duration::from_secs(5), |lan| {
        while let Ok(n) = give(lan, 0, client, &data[sent..]) {
            sent += n;
        }
        false
    });
    let start = lan.now;
    assert!(lan.run_until(Duration::from_secs(40), |lan| lan.nodes[0].events(client).contains(Events::ERR)));
    assert!((10..=20).contains(&(lan.now - start).secs()), "{}", lan.now - start);
    assert_eq!(lan.nodes[0].take_error(client), Some(Errno::ETIMEDOUT));
}

#[test]
fn without_a_time_out_of_the_users_it_takes_a_quarter_of_an_hour() {
    let (mut lan, client, _server) = measured(false);
    watch(&mut lan, |_, _| None);
    give(&mut lan, 0, client, b"anybody?").unwrap();
    assert_eq!(fails(&mut lan, 0, client, Errno::ETIMEDOUT).secs(), 924);
}

#[test]
fn orphans_wait_for_the_peers_end_as_long_as_asked() {
    for (linger2, least, most) in [(0, 60, 61), (5, 5, 6), (-1, 0, 0)] {
        let (mut lan, client, server) = measured(true);
        set(&mut lan, 0, client, libc::TCP_LINGER2, linger2);
        lan.nodes[0].set_now(lan.now);
        lan.nodes[0].close(client);
        let start = lan.now;
        assert!(lan.run_until(Duration::from_secs(200), |lan| lan.nodes[0].socket_count() == 0));
        let took = (lan.now - start).secs();
        assert!((least..=most).contains(&took), "{linger2}: {took}");
        lan.run_for(DELAY * 2);
        // Whoever doesn't wait says so.
        assert_eq!(lan.nodes[1].events(server).contains(Events::HUP), linger2 < 0);
    }
}

#[test]
fn the_end_of_a_flight_is_probed() {
    for lost in 1..4 {
        let (mut lan, client, server) = measured(false);
        let seen = Cell::new(0);
        watch(&mut lan, move |from, segment| {
            if from == 0 && payload(segment) > 0 {
                seen.set(seen.get() + 1);
                if (6 - lost..6).contains(&seen.get()) {
                    return None;
                }
            }
            Some(DELAY)
        });
        give(&mut lan, 0, client, &[7; 5 * 1460]).unwrap();
        let took = wait_for(&mut lan, 1, server, 5 * 1460);
        // Two round trips, one for each that is missing, and nothing near a time-out. One alone might be acknowledged
        // with delay.
        let most = if lost == 1 { 210 } else { 50 };
        assert!(took < Duration::from_millis(most), "{lost} lost: {took}");
    }
}

#[test]
fn a_lone_segment_is_sent_again_after_200_ms() {
    let (mut lan, client, server) = measured(true);
    let first = Cell::new(true);
    watch(&mut lan, move |_, segment| (payload(segment) == 0 || !first.replace(false)).then_some(DELAY));
    give(&mut lan, 0, client, b"alone").unwrap();
    let took = wait_for(&mut lan, 1, server, 5).total_millis();
    assert!((200..=215).contains(&took), "{took}");
}

#[test]
fn time_outs_double() {
    let (mut lan, client, _server) = measured(false);
    let sent = Rc::new(Cell::new(0));
    let count = sent.clone();
    watch(&mut lan, move |from, _| {
        count.set(count.get() + usize::from(from == 0));
        None
    });
    give(&mut lan, 0, client, b"anybody?").unwrap();
    let mut times = Vec::<Instant>::new();
    lan.run_until(Duration::from_secs(100), |lan| {
        if sent.get() > times.len() {
            times.push(lan.now);
        }
        false
    });
    assert!(times.len() >= 8, "{times:?}");
    let waits: Vec<_> = times.windows(2).map(|two| (two[1] - two[0]).total_millis()).collect();
    assert!((200..210).contains(&waits[0]), "{waits:?}");
    assert!(waits.windows(2).all(|two| (2 * two[0]).abs_diff(two[1]) < 5), "{waits:?}");
}

#[test]
fn ten_segments_to_begin_with() {
    for (v6, mss) in [(false, 1460), (true, 1440)] {
        let mut lan = Lan::new(2, WIRE);
        let (flown, counting) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
        let (sum, on) = (flown.clone(), counting.clone());
        watch(&mut lan, move |from, segment| {
            if on.get() && from == 0 {
                sum.set(sum.get() + payload(segment));
            }
            Some(Duration::from_millis(50))
        });
        let (client, server) = lan.connection(v6);
        counting.set(true);
        give(&mut lan, 0, client, &vec![7; 80_000]).unwrap();
        lan.run_for(Duration::from_millis(90));
        assert_eq!(flown.get(), 10 * mss);
        counting.set(false);
        wait_for(&mut lan, 1, server, 80_000);
    }
}

#[test]
fn a_cork_is_pulled_after_200_ms() {
    for cork in [true, false] {
        let (mut lan, client, server) = measured(false);
        set(&mut lan, 0, client, libc::TCP_CORK, i32::from(cork));
        give(&mut lan, 0, client, b"half a request").unwrap();
        let took = wait_for(&mut lan, 1, server, 14).total_millis();
        assert_eq!(took, if cork { 201 } else { 1 });
    }
}

#[test]
fn a_cork_lets_whole_segments_pass() {
    let (mut lan, client, server) = measured(false);
    set(&mut lan, 0, client, libc::TCP_CORK, 1);
    for _ in 0..3 {
        give(&mut lan, 0, client, &[7; 1000]).unwrap();
    }
    assert_eq!(wait_for(&mut lan, 1, server, 2 * 1460).total_millis(), 1);
    lan.run_for(DELAY * 3);
    set(&mut lan, 0, client, libc::TCP_CORK, 0);
    assert_eq!(wait_for(&mut lan, 1, server, 80).total_millis(), 1);
}

#[test]
fn nagle_waits_for_the_acknowledgement() {
    for (no_delay, segments) in [(0, 2), (1, 4)] {
        let (mut lan, client, server) = measured(true);
        let seen = Rc::new(Cell::new(0));
        let count = seen.clone();
        watch(&mut lan, move |from, segment| {
            if from == 0 && payload(segment) > 0 {
                count.set(count.get() + 1);
            }
            Some(DELAY)
        });
        set(&mut lan, 0, client, libc::TCP_NODELAY, no_delay);
        for _ in 0..4 {
            give(&mut lan, 0, client, b"x").unwrap();
            lan.settle();
        }
        wait_for(&mut lan, 1, server, 4);
        assert_eq!(seen.get(), segments);
    }
}

#[test]
fn acknowledgements_wait_for_data_or_a_second_segment() {
    let (mut lan, client, server) = measured(false);
    set(&mut lan, 1, server, libc::TCP_QUICKACK, 0);
    let acks = Rc::new(Cell::new(0));
    let count = acks.clone();
    watch(&mut lan, move |from, _| {
        count.set(count.get() + u32::from(from == 1));
        Some(DELAY)
    });
    // Alone: after a while.
    give(&mut lan, 0, client, b"question").unwrap();
    lan.run_for(Duration::from_millis(8));
    assert_eq!(acks.get(), 0);
    lan.run_for(Duration::from_millis(40));
    assert_eq!(acks.get(), 1);
    // With an answer: in the same segment.
    recv(&mut lan.nodes[1], server, &mut [0; 99]).unwrap();
    give(&mut lan, 0, client, b"question").unwrap();
    wait_for(&mut lan, 1, server, 8);
    give(&mut lan, 1, server, b"answer").unwrap();
    lan.run_for(Duration::from_millis(40));
    assert_eq!(acks.get(), 2);
    // Two full ones: at once.
    give(&mut lan, 0, client, &[7; 2 * 1460]).unwrap();
    lan.run_for(Duration::from_millis(5));
    assert_eq!(acks.get(), 3);
    // TCP_QUICKACK: each at once.
    set(&mut lan, 1, server, libc::TCP_QUICKACK, 1);
    give(&mut lan, 0, client, b"question").unwrap();
    lan.run_for(Duration::from_millis(5));
    assert_eq!(acks.get(), 4);
}

#[test]
fn a_closed_window_is_probed() {
    let (mut lan, client, server) = measured(false);
    let mut sent = 0;
    lan.run_until(Duration::from_secs(5), |lan| {
        while let Ok(n) = give(lan, 0, client, &[7; 1 << 16]) {
            sent += n;
        }
        false
    });
    // The reader opens the window, and what says so is lost.
    watch(&mut lan, |from, _| (from == 0).then_some(DELAY));
    let mut buffer = vec![0; 1 << 20];
    let read = recv(&mut lan.nodes[1], server, &mut buffer).unwrap();
    lan.settle();
    watch(&mut lan, |_, _| Some(DELAY));
    wait_for(&mut lan, 1, server, sent - read);
}

#[test]
fn deferred_connections_come_in_when_their_time_is_over() {
    let mut lan = Lan::new(2, WIRE);
    lan.fate = Box::new(|_| vec![DELAY]);
    let listener = lan.stream(1, Domain::INET6);
    lan.nodes[1].bind(listener, &SockAddr::Ip(addr(1, true, 80))).unwrap();
    set(&mut lan, 1, listener, libc::TCP_DEFER_ACCEPT, 3);
    lan.nodes[1].listen(listener, 5).unwrap();
    let client = lan.stream(0, Domain::INET6);
    let _ = lan.nodes[0].connect(client, &SockAddr::Ip(addr(1, true, 80)));
    assert!(lan.run_until(DELAY * 10, |lan| lan.nodes[0].events(client) == Events::OUT));
    let start = lan.now;
    assert!(lan.run_until(Duration::from_secs(30), |lan| lan.nodes[1].accept_queue(listener) == Some(1)));
    assert!((3..=7).contains(&(lan.now - start).secs()), "{}", lan.now - start);
}

#[test]
fn both_call_at_the_same_time() {
    for v6 in [false, true] {
        let mut lan = Lan::new(2, WIRE);
        lan.fate = Box::new(|_| vec![DELAY]);
        let domain = if v6 { Domain::INET6 } else { Domain::INET };
        let ends = [0, 1].map(|i| {
            let id = lan.stream(i, domain);
            lan.nodes[i].bind(id, &SockAddr::Ip(addr(i, v6, 7000))).unwrap();
            id
        });
        for i in [0, 1] {
            let peer = SockAddr::Ip(addr(1 - i, v6, 7000));
            assert_eq!(lan.nodes[i].connect(ends[i], &peer), Err(Errno::EINPROGRESS));
        }
        assert!(lan.run_until(Duration::from_millis(500), |lan| {
            [0, 1].iter().all(|&i| lan.nodes[i].events(ends[i]) == Events::OUT)
        }));
        for i in [0, 1] {
            assert_eq!(lan.nodes[i].peer_addr(ends[i]), Ok(SockAddr::Ip(addr(1 - i, v6, 7000))));
            give(&mut lan, i, ends[i], b"hello").unwrap();
            wait_for(&mut lan, 1 - i, ends[1 - i], 5);
            lan.nodes[i].shutdown(ends[i], Shutdown::Write).unwrap();
        }
        assert!(lan.run_until(Duration::from_secs(1), |lan| {
            [0, 1].iter().all(|&i| lan.nodes[i].events(ends[i]).contains(Events::HUP))
        }));
    }
}

#[test]
fn what_the_network_said_is_the_reason_in_the_end() {
    let (mut lan, client, _server) = measured(true);
    set(&mut lan, 0, client, libc::TCP_USER_TIMEOUT, 400_000);
    // The neighbour is gone: that does not end the connection yet.
    lan.fate = Box::new(|_| Vec::new());
    give(&mut lan, 0, client, b"anybody?").unwrap();
    lan.run_for(Duration::from_secs(300));
    assert!(!lan.nodes[0].events(client).contains(Events::ERR));
    fails(&mut lan, 0, client, Errno::EHOSTUNREACH);
}

#[test]
fn patience_ends_though_the_link_takes_nothing() {
    let mut lan = Lan::new(2, WIRE);
    lan.nodes[0].set_blocked(ETH, true);
    let client = lan.stream(0, Domain::INET);
    set(&mut lan, 0, client, libc::TCP_SYNCNT, 2);
    let _ = lan.nodes[0].connect(client, &SockAddr::Ip(addr(1, false, 80)));
    assert_eq!(fails(&mut lan, 0, client, Errno::ETIMEDOUT).secs(), 7);

    // What it was given before and after; in between it may have been looked at for another reason.
    for blocked_first in [true, false] {
        let (mut lan, client, _server) = measured(false);
        watch(&mut lan, |_, _| None);
        set(&mut lan, 0, client, libc::TCP_USER_TIMEOUT, 3_000);
        lan.nodes[0].set_blocked(ETH, blocked_first);
        give(&mut lan, 0, client, b"anybody?").unwrap();
        lan.settle();
        lan.nodes[0].set_blocked(ETH, true);
        assert_eq!(fails(&mut lan, 0, client, Errno::ETIMEDOUT).total_millis(), 3_000);
    }

    // A silent peer, though the probes don't get away.
    let (mut lan, client, _server) = measured(true);
    for (name, seconds) in [(libc::TCP_KEEPIDLE, 10), (libc::TCP_KEEPINTVL, 2), (libc::TCP_KEEPCNT, 3)] {
        set(&mut lan, 0, client, name, seconds);
    }
    lan.nodes[0].set_option(client, libc::SOL_SOCKET, libc::SO_KEEPALIVE, &1i32.to_ne_bytes()).unwrap();
    lan.settle();
    lan.nodes[0].set_blocked(ETH, true);
    assert!(fails(&mut lan, 0, client, Errno::ETIMEDOUT).secs() <= 16);

    // What a closed socket left.
    let (mut lan, client, _server) = measured(false);
    lan.nodes[0].set_blocked(ETH, true);
    give(&mut lan, 0, client, b"nobody will know").unwrap();
    lan.nodes[0].close(client);
    lan.run_for(Duration::from_secs(205));
    assert_eq!(lan.nodes[0].census().sockets, 0);
}

#[test]
fn who_gives_up_on_a_blocked_link_leaves_nothing() {
    let mut lan = Lan::new(2, WIRE);
    lan.nodes[0].set_blocked(ETH, true);
    for _ in 0..1000 {
        let client = lan.stream(0, Domain::INET);
        let _ = lan.nodes[0].connect(client, &SockAddr::Ip(addr(1, false, 80)));
        lan.settle();
        lan.nodes[0].close(client);
    }
    assert!(lan.nodes[0].stalled.len() < 100);
    // Those who are there go on.
    let listener = lan.stream(1, Domain::INET);
    lan.nodes[1].bind(listener, &SockAddr::Ip(addr(1, false, 80))).unwrap();
    lan.nodes[1].listen(listener, 5).unwrap();
    let client = lan.stream(0, Domain::INET);
    let _ = lan.nodes[0].connect(client, &SockAddr::Ip(addr(1, false, 80)));
    lan.settle();
    lan.nodes[0].set_blocked(ETH, false);
    assert!(lan.run_until(DELAY * 10, |lan| lan.nodes[0].events(client) == Events::OUT));
}

#[test]
fn a_link_that_is_late_but_in_time() {
    let (mut lan, client, server) = measured(false);
    set(&mut lan, 0, client, libc::TCP_USER_TIMEOUT, 30_000);
    lan.nodes[0].set_blocked(ETH, true);
    give(&mut lan, 0, client, b"late").unwrap();
    lan.run_for(Duration::from_secs(29));
    lan.nodes[0].set_blocked(ETH, false);
    assert!(wait_for(&mut lan, 1, server, 4) < Duration::from_millis(10));
    lan.run_for(Duration::from_secs(60));
    assert_eq!(lan.nodes[0].take_error(client), None);
}

#[test]
fn dead_connections_leave_few_reminders() {
    let mut lan = Lan::new(2, WIRE);
    let listener = lan.stream(1, Domain::INET);
    lan.nodes[1].set_option(listener, libc::SOL_SOCKET, libc::SO_KEEPALIVE, &1i32.to_ne_bytes()).unwrap();
    lan.nodes[1].bind(listener, &SockAddr::Ip(addr(1, false, 80))).unwrap();
    lan.nodes[1].listen(listener, 100).unwrap();
    for _ in 0..40 {
        let clients: Vec<_> = (0..100).map(|_| lan.stream(0, Domain::INET)).collect();
        for client in &clients {
            let _ = lan.nodes[0].connect(*client, &SockAddr::Ip(addr(1, false, 80)));
        }
        // Longer than what was entered for the handshake.
        lan.run_for(Duration::from_secs(90));
        for client in clients {
            let (server, _) = lan.nodes[1].accept(listener).unwrap();
            lan.nodes[0].close(client);
            lan.nodes[1].close(server);
        }
        lan.run_for(Duration::from_secs(1));
    }
    let census = lan.nodes[1].census();
    assert_eq!(census.sockets, 1);
    assert!(census.timers < 2_000, "{census:?}");
}

#[test]
fn who_guesses_cannot_close_the_window() {
    let (mut lan, client, server) = measured(false);
    let kept = Rc::new(RefCell::new(None));
    let keep = kept.clone();
    lan.fate = Box::new(move |frame| {
        if segment(frame).is_some_and(|(from, _)| from == 1) {
            *keep.borrow_mut() = Some(frame.clone());
        }
        vec![DELAY]
    });
    give(&mut lan, 0, client, b"x").unwrap();
    lan.run_for(Duration::from_secs(1));
    // The right ports and acknowledgement, a closed window, and a sequence number from elsewhere.
    let mut forged = kept.borrow_mut().take().unwrap();
    forged.checksum = ioth_vde::Checksum::Trusted;
    let mut tcp = TcpPacket::new_unchecked(&mut forged[34..]);
    tcp.set_seq_number(tcp.seq_number() + (1 << 30));
    tcp.set_window_len(0);
    for _ in 0..5 {
        lan.nodes[0].set_now(lan.now);
        lan.nodes[0].handle_frame(ETH, forged.clone());
    }
    give(&mut lan, 0, client, &[7; 30_000]).unwrap();
    assert!(wait_for(&mut lan, 1, server, 30_001) < Duration::from_millis(50));
}
