//! Buffers that grow with what their connection can use, and are given back.

use std::cell::RefCell;

use smoltcp::time::Duration;

use super::lan::{Dice, Lan, WIRE, recv, send};
use super::peer::{A, P, Peer, S};
use crate::engine::SocketId;
use crate::sys::Size;

/// A wire of a gigabit a second that holds what it can't pass on yet, and takes `delay` each way. What it holds at most
/// is more than any window.
fn pipe(lan: &mut Lan, delay: Duration) {
    const NANOS_PER_BYTE: u64 = 8;
    // When the way of each sender is free, and the latest time that is known.
    let free = RefCell::new([0u64; 2]);
    let clock = lan.clock.clone();
    lan.fate = Box::new(move |frame| {
        let from = usize::from(frame[11] & 1);
        let now = clock.get().total_micros() as u64 * 1000;
        let mut free = free.borrow_mut();
        free[from] = free[from].max(now) + frame.len() as u64 * NANOS_PER_BYTE;
        vec![Duration::from_micros((free[from] - now) / 1000) + delay]
    });
}

fn buffer(lan: &mut Lan, node: usize, id: SocketId, name: i32) -> usize {
    let mut value = [0; 4];
    lan.nodes[node].option(id, libc::SOL_SOCKET, name, &mut value).unwrap();
    i32::from_ne_bytes(value) as usize
}

fn set_buffer(lan: &mut Lan, node: usize, id: SocketId, name: i32, bytes: i32) {
    lan.nodes[node].set_option(id, libc::SOL_SOCKET, name, &bytes.to_ne_bytes()).unwrap();
}

fn amount(lan: &mut Lan, node: usize, id: SocketId, request: u64) -> usize {
    let mut bytes = [0; 4];
    lan.nodes[node].ioctl(id, request, &mut bytes).unwrap();
    i32::from_ne_bytes(bytes) as usize
}

/// Writes as much as goes in.
fn fill(lan: &mut Lan, id: SocketId, left: &mut usize) {
    let data = [7; 1 << 16];
    lan.nodes[0].set_now(lan.now);
    while *left > 0
        && let Ok(n) = send(&mut lan.nodes[0], id, &data[..data.len().min(*left)])
    {
        *left -= n;
    }
}

fn drain(lan: &mut Lan, id: SocketId) -> usize {
    let mut data = vec![0; 1 << 16];
    lan.nodes[1].set_now(lan.now);
    let mut read = 0;
    while let Ok(n) = recv(&mut lan.nodes[1], id, &mut data) {
        read += n;
    }
    read
}

/// Sends so much to a reader who takes all at once; the most that was under way, and how long it took.
fn transfer(lan: &mut Lan, client: SocketId, server: SocketId, len: usize) -> (usize, Duration) {
    let start = lan.now;
    let (mut left, mut received, mut most) = (len, 0, 0);
    assert!(lan.run_until(Duration::from_secs(60), |lan| {
        fill(lan, client, &mut left);
        received += drain(lan, server);
        most = most.max(amount(lan, 0, client, libc::TIOCOUTQ));
        received == len
    }));
    (most, lan.now - start)
}

#[test]
fn a_long_path_is_filled() {
    for v6 in [false, true] {
        let mut lan = Lan::new(2, WIRE);
        pipe(&mut lan, Duration::from_millis(25));
        let (client, server) = lan.connection(v6);
        let (most, time) = transfer(&mut lan, client, server, 40 << 20);
        assert!(most > 2 << 20, "{most} bytes under way at most");
        // With 1 MiB each round trip of 50 ms it would take two seconds, with 64 KiB half a minute.
        assert!(time < Duration::from_millis(1500), "{time}");
        assert!(buffer(&mut lan, 1, server, libc::SO_RCVBUF) > 4 << 20);
        assert_eq!(buffer(&mut lan, 0, client, libc::SO_SNDBUF), Size::Far.send());
        // The other way nothing was sent.
        assert_eq!(buffer(&mut lan, 0, client, libc::SO_RCVBUF), 131_072);
        assert_eq!(buffer(&mut lan, 1, server, libc::SO_SNDBUF), 87_040);
    }
}

#[test]
fn a_reader_who_does_not_keep_up_gets_no_more_room() {
    for (v6, delay) in [(false, 100), (true, 10_000)] {
        let mut lan = Lan::new(2, WIRE);
        pipe(&mut lan, Duration::from_micros(delay));
        let (client, server) = lan.connection(v6);
        let mut left = 10 << 20;
        for _ in 0..50 {
            fill(&mut lan, client, &mut left);
            lan.run_for(Duration::from_secs(1));
            let waiting = amount(&mut lan, 1, server, libc::FIONREAD);
            assert!((60_000..=65_536 + 3 * 128).contains(&waiting), "{waiting}");
            assert_eq!(drain(&mut lan, server), waiting);
        }
        assert_eq!(buffer(&mut lan, 1, server, libc::SO_RCVBUF), 131_072);
        assert!(buffer(&mut lan, 0, client, libc::SO_SNDBUF) <= 2 * (65_536 + 3 * 128));
    }
}

#[test]
fn a_near_reader_who_keeps_up_gets_what_fits_in_the_cache() {
    let mut lan = Lan::new(2, WIRE);
    pipe(&mut lan, Duration::from_micros(10));
    let (client, server) = lan.connection(true);
    transfer(&mut lan, client, server, 20 << 20);
    let receive = buffer(&mut lan, 1, server, libc::SO_RCVBUF);
    assert!((131_072..=2 * Size::Near.receive()).contains(&receive), "{receive}");
    assert!(buffer(&mut lan, 0, client, libc::SO_SNDBUF) <= Size::Near.send());
}

/// RFC 9293 §3.8.6.2.1: "the receiver ... should not shrink the window".
#[test]
fn a_window_made_smaller_stays_where_it_was_offered() {
    for v6 in [false, true] {
        let mut lan = Lan::new(2, WIRE);
        let (client, server) = lan.connection(v6);
        set_buffer(&mut lan, 1, server, libc::SO_RCVBUF, 4096);
        assert_eq!(buffer(&mut lan, 1, server, libc::SO_RCVBUF), 8192);
        let mut left = 1 << 20;
        let settle = |lan: &mut Lan, left: &mut usize| {
            for _ in 0..3 {
                fill(lan, client, left);
                lan.run_for(Duration::from_secs(1));
            }
            amount(lan, 1, server, libc::FIONREAD)
        };
        let offered = settle(&mut lan, &mut left);
        assert!((65_535..=65_535 + 3 * 128).contains(&offered), "{offered}");
        assert_eq!(drain(&mut lan, server), offered);
        for _ in 0..3 {
            let waiting = settle(&mut lan, &mut left);
            assert!((3000..=4096 + 3 * 128).contains(&waiting), "{waiting}");
            assert_eq!(drain(&mut lan, server), waiting);
        }
        // And larger again, which the writer is told at once.
        let waiting = settle(&mut lan, &mut left);
        set_buffer(&mut lan, 1, server, libc::SO_RCVBUF, 50_000);
        lan.nodes[1].set_now(lan.now);
        lan.run_for(Duration::from_millis(20));
        let more = amount(&mut lan, 1, server, libc::FIONREAD);
        assert!((45_000..=50_000 + 3 * 128).contains(&more), "{waiting} {more}");
    }
}

#[test]
fn what_was_set_before_bounds_a_larger_buffer_as_on_linux() {
    let mut lan = Lan::new(2, WIRE);
    let (client, server) = lan.connection(false);
    set_buffer(&mut lan, 0, client, libc::SO_SNDBUF, 10_000);
    let mut left = 1 << 20;
    fill(&mut lan, client, &mut left);
    assert_eq!((1 << 20) - left, 20_000);
    lan.run_for(Duration::from_secs(2));
    fill(&mut lan, client, &mut left);
    let unsent = amount(&mut lan, 0, client, libc::TIOCOUTQ);
    assert_eq!(unsent, 20_000, "it does not grow any more");
    let waiting = amount(&mut lan, 1, server, libc::FIONREAD);
    assert_eq!(waiting + unsent, (1 << 20) - left);
}

#[test]
fn an_idle_connection_gives_its_memory_back() {
    for delay in [Duration::from_micros(50), Duration::from_millis(20)] {
        let mut lan = Lan::new(2, WIRE);
        pipe(&mut lan, delay);
        let (client, server) = lan.connection(true);
        transfer(&mut lan, client, server, 30 << 20);
        // What was not read has to be there afterwards.
        let mut left = 5_000;
        fill(&mut lan, client, &mut left);
        lan.run_for(Duration::from_secs(3));
        let resident = [(0, client), (1, server)].map(|(node, id)| lan.nodes[node].resident(id));
        assert!(resident.iter().all(|bytes| *bytes <= 3 * 4096), "{resident:?}");
        assert_eq!(drain(&mut lan, server), 5_000);
        transfer(&mut lan, client, server, 1 << 20);
    }
}

/// What is played to another socket is the SYN that began it, whatever was claimed since.
#[test]
fn a_forged_syn_does_not_shift_a_far_connection() {
    for v6 in [false, true] {
        let mut peer = Peer::new(v6);
        let listener = peer.listener(5);
        peer.begin(&[2, 4, 5, 100, 1, 3, 3, 7]);
        peer.send(S, 0, 0, b"");
        peer.wait(Duration::from_millis(50));
        peer.hear();
        peer.send(A | P, 0, 0, b"hello");
        let (id, _) = peer.engine.accept(listener).unwrap();
        assert_eq!(peer.read(id).unwrap(), b"hello");
        assert_eq!(peer.write(id, b"you"), ["PA seq 1 ack 6 len 3"]);
    }
}

/// The Nagle algorithm must not wait for what does not fit into the buffer.
#[test]
fn super_frames_fill_a_long_path() {
    let properties = ioth_vde::Properties { mtu: 1500, gso_max: 65_535, trusted: true };
    for v6 in [false, true] {
        let mut lan = Lan::new(2, properties);
        lan.fate = Box::new(|_| vec![Duration::from_millis(30)]);
        let (client, server) = lan.connection(v6);
        let (_, time) = transfer(&mut lan, client, server, 4 << 20);
        assert!(time < Duration::from_secs(2), "{time}");
    }
}

/// smoltcp sends again without a look at the window, and forgets its time-out when that closes meanwhile.
#[test]
fn a_window_that_opens_lets_what_was_cut_off_follow() {
    let properties = ioth_vde::Properties { mtu: 1500, gso_max: 65_535, trusted: true };
    for v6 in [false, true] {
        let mut lan = Lan::new(2, properties);
        let mut dice = Dice(3);
        lan.fate = Box::new(move |_| {
            if dice.percent(20) { Vec::new() } else { vec![Duration::from_micros(100 + dice.next() % 3000)] }
        });
        let (client, server) = lan.connection(v6);
        set_buffer(&mut lan, 1, server, libc::SO_RCVBUF, 8_000);
        let (mut left, mut received) = (1 << 20, 0);
        let mut calls = 0;
        let mut data = [0; 3_000];
        assert!(
            lan.run_until(Duration::from_secs(3600), |lan| {
                fill(lan, client, &mut left);
                // Now and then, and never all.
                calls += 1;
                if calls % 7 == 0 {
                    lan.nodes[1].set_now(lan.now);
                    received += recv(&mut lan.nodes[1], server, &mut data).unwrap_or(0);
                }
                received + amount(lan, 1, server, libc::FIONREAD) == 1 << 20
            }),
            "{received} at {}",
            lan.now
        );
    }
}

/// Data that came out of order lies in a ring whose other pages are given back; who sends old data does not change that.
#[test]
fn what_came_too_early_survives_trimming() {
    for old in [1i64 << 31, -5, -70_000] {
        let (mut peer, id) = Peer::accepted(true);
        for at in (0..40_000).step_by(1000) {
            peer.send(A, at, 0, &[1; 1000]);
        }
        let mut received = 0;
        while let Ok(data) = peer.read(id) {
            received += data.len();
        }
        assert_eq!(received, 40_000);
        peer.send(A | P, 50_000, 0, &[7; 1000]);
        peer.send(A, 40_000 + old, 0, &[2; 900]);
        peer.wait(Duration::from_secs(5));
        for at in (40_000..50_000).step_by(1000) {
            peer.send(A | P, at, 0, &[1; 1000]);
        }
        let mut all = Vec::new();
        while let Ok(data) = peer.read(id) {
            all.extend(data);
        }
        assert_eq!(all.len(), 11_000);
        assert!(all[10_000..].iter().all(|byte| *byte == 7));
    }
}
