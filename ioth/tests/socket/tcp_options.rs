//! Options of streams, and what they do.

use std::time::Duration;

use ioth::berkeley::*;
use ioth::{Events, MsgFlags};

use crate::fixture::*;

const TCP: i32 = libc::IPPROTO_TCP;
const SOCKET: i32 = libc::SOL_SOCKET;

/// As much of `struct tcp_info` as Linux has had since its version 5.4.
const INFO: usize = 232;
/// Where `struct tcp_info` has the fields that are looked at.
const STATE: usize = 0;
const RTO: usize = 8;
const SND_MSS: usize = 16;
const RCV_MSS: usize = 20;
const UNACKED: usize = 24;
const SACKED: usize = 28;
const RETRANS: usize = 36;
const LAST_DATA_SENT: usize = 44;
const LAST_DATA_RECV: usize = 52;
const PMTU: usize = 60;
const RTT: usize = 68;
const RTTVAR: usize = 72;
const SND_CWND: usize = 80;
const ADVMSS: usize = 84;
const TOTAL_RETRANS: usize = 100;
const BYTES_ACKED: usize = 120;
const BYTES_RECEIVED: usize = 128;
const SEGS_OUT: usize = 136;
const SEGS_IN: usize = 140;
const NOTSENT: usize = 144;
const MIN_RTT: usize = 148;
const DATA_SEGS_IN: usize = 152;
const DATA_SEGS_OUT: usize = 156;
const DELIVERED: usize = 192;
const BYTES_SENT: usize = 200;
const BYTES_RETRANS: usize = 208;
const SND_WND: usize = 228;

/// States of linux/tcp_states.h.
const ESTABLISHED: u8 = 1;
const FIN_WAIT2: u8 = 5;
const CLOSE: u8 = 7;
const CLOSE_WAIT: u8 = 8;
const LISTEN: u8 = 10;

pub(crate) fn congestion_control(pair: &Pair) {
    let tcp = pair.tcp_a();
    let name = |len: usize| {
        let mut name = vec![7; len];
        let len = getsockopt(tcp.0, TCP, libc::TCP_CONGESTION, &mut name)?;
        name.truncate(len);
        std::io::Result::Ok(name)
    };
    let set = |name: &[u8]| setsockopt(tcp.0, TCP, libc::TCP_CONGESTION, name);
    assert_eq!(name(16).unwrap().len(), 16);
    set(b"reno").unwrap();
    assert_eq!(name(100).unwrap(), b"reno\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(name(2).unwrap(), b"re");
    set(b"reno\0with something behind it").unwrap();
    assert_eq!(errno(set(b"")), libc::EINVAL);
    assert_eq!(errno(set(b"renault")), libc::ENOENT);
    assert_eq!(errno(set(b"reno, and on and on without an end")), libc::ENOENT);
    assert_eq!(name(4).unwrap(), b"reno");
    // It can be chosen while a connection is there.
    let (client, server) = pair.connected();
    setsockopt(client.0, TCP, libc::TCP_CONGESTION, b"reno\0").unwrap();
    send_all(&client, b"still there");
    assert_eq!(read_some(&server, 11), b"still there");
}

fn info(fd: &Fd) -> Vec<u8> {
    let mut info = vec![0; INFO];
    assert_eq!(getsockopt(fd.0, TCP, libc::TCP_INFO, &mut info).unwrap(), INFO);
    info
}

fn word(info: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(info[at..at + 4].try_into().unwrap())
}

pub(crate) fn info_by_state(pair: &Pair) {
    let fresh = pair.tcp_a();
    let told = info(&fresh);
    assert_eq!(told[STATE], CLOSE);
    assert_eq!((word(&told, RTO), word(&told, SND_MSS), word(&told, SND_CWND)), (1_000_000, 536, 10));
    let (listener, addr) = pair.listener();
    assert_eq!(info(&listener)[STATE], LISTEN);
    connect(fresh.0, addr).unwrap();
    wait(&listener, Events::IN);
    let told = info(&listener);
    assert_eq!((word(&told, UNACKED), word(&told, SACKED)), (1, 16), "the queue and the backlog");
    let server = Fd(accept(listener.0).unwrap().0);
    for fd in [&fresh, &server] {
        let told = info(fd);
        assert_eq!(told[STATE], ESTABLISHED);
        assert!(word(&told, RTO) >= 200_000);
        assert!(word(&told, SND_CWND) >= 2);
        let (mss, path) = (word(&told, SND_MSS), word(&told, PMTU));
        assert!((536..path - 39).contains(&mss), "{mss} of {path}");
        assert!(word(&told, ADVMSS) <= path - 40);
    }
    shutdown(server.0, libc::SHUT_WR).unwrap();
    wait(&fresh, Events::RDHUP);
    assert_eq!(info(&fresh)[STATE], CLOSE_WAIT);
    until(|| info(&server)[STATE] == FIN_WAIT2);
    for len in [0, 1, 7, 8, 50, 103, 104, 105, 119, 150, INFO] {
        assert_eq!(getsockopt(fresh.0, TCP, libc::TCP_INFO, &mut vec![0; len]).unwrap(), len);
    }
    assert_eq!(errno(set_option(&fresh, TCP, libc::TCP_INFO, 1)), libc::ENOPROTOOPT);
}

/// What is counted: bytes are exact, segments are what the network made of them.
pub(crate) fn info_counts(pair: &Pair) {
    const BYTES: usize = 1000;
    let (client, server) = pair.connected();
    let long = |fd: &Fd, at: usize| u64::from_ne_bytes(info(fd)[at..at + 8].try_into().unwrap());
    // Linux counts the SYN of the one that connects.
    let begun = [&client, &server].map(|fd| long(fd, BYTES_ACKED));
    assert!(begun[0] <= 1 && begun[1] == 0, "{begun:?}");
    for fd in [&client, &server] {
        let told = info(fd);
        for nothing in [NOTSENT, DATA_SEGS_IN, DATA_SEGS_OUT, UNACKED, RETRANS, TOTAL_RETRANS] {
            assert_eq!(word(&told, nothing), 0, "at {nothing}");
        }
        assert!(word(&told, SEGS_IN) > 0 && word(&told, SND_WND) > 0);
        assert_eq!([BYTES_RECEIVED, BYTES_SENT, BYTES_RETRANS].map(|at| long(fd, at)), [0; 3]);
    }
    assert!(word(&info(&client), SEGS_OUT) > 0);
    send_all(&client, &[7; BYTES]);
    assert_eq!(read_some(&server, BYTES).len(), BYTES);
    send_all(&server, b"an answer");
    assert_eq!(read_some(&client, 9), b"an answer");
    for (fd, begun, sent, received) in [(&client, begun[0], BYTES, 9), (&server, begun[1], 9, BYTES)] {
        until(|| long(fd, BYTES_ACKED) - begun == sent as u64);
        assert_eq!(long(fd, BYTES_RECEIVED), received as u64);
        assert_eq!(long(fd, BYTES_SENT) - long(fd, BYTES_RETRANS), sent as u64);
        let told = info(fd);
        for some in [SEGS_IN, SEGS_OUT, DATA_SEGS_IN, DATA_SEGS_OUT, DELIVERED] {
            assert!((1..100).contains(&word(&told, some)), "{} at {some}", word(&told, some));
        }
        assert!(word(&told, RTTVAR) < 60_000_000 && word(&told, RTT) < 60_000_000);
        assert!(word(&told, MIN_RTT) <= word(&told, RTT).max(1000), "{told:?}");
        assert!(word(&told, LAST_DATA_SENT) < 60_000 && word(&told, LAST_DATA_RECV) < 60_000);
        assert_eq!((word(&told, UNACKED), word(&told, NOTSENT)), (0, 0));
        assert!(word(&told, RCV_MSS) <= word(&told, PMTU));
    }
    // A FIN counts as a byte.
    shutdown(client.0, libc::SHUT_WR).unwrap();
    wait(&server, Events::RDHUP);
    assert_eq!(long(&server, BYTES_RECEIVED), BYTES as u64 + 1);
    until(|| long(&client, BYTES_ACKED) - begun[0] == BYTES as u64 + 1);
    // What the peer has no room for waits.
    nonblocking(&server, true);
    until(|| {
        while write(server.0, &[7; 1 << 16]).is_ok() {}
        word(&info(&server), NOTSENT) > 0
    });
}

pub(crate) fn segment_size(pair: &Pair) {
    let (listener, addr) = pair.listener();
    let client = pair.tcp_a();
    assert_eq!(option(&client, TCP, libc::TCP_MAXSEG).unwrap(), 536);
    set_option(&client, TCP, libc::TCP_MAXSEG, 1000).unwrap();
    connect(client.0, addr).unwrap();
    let server = Fd(accept(listener.0).unwrap().0);
    // Time stamps, where they are in use, take 12 bytes of it.
    for fd in [&client, &server] {
        let mss = option(fd, TCP, libc::TCP_MAXSEG).unwrap();
        assert!((900..=1000).contains(&mss), "{mss}");
    }
    let data = vec![7; 100_000];
    std::thread::scope(|scope| {
        scope.spawn(|| send_all(&client, &data));
        assert_eq!(read_some(&server, data.len()), data);
    });
    // What is set later is kept for another connection.
    set_option(&client, TCP, libc::TCP_MAXSEG, 500).unwrap();
    assert!(option(&client, TCP, libc::TCP_MAXSEG).unwrap() >= 900);
}

pub(crate) fn cork(pair: &Pair) {
    let (client, server) = pair.connected();
    set_option(&client, TCP, libc::TCP_CORK, 1).unwrap();
    send_all(&client, b"head");
    send_all(&client, b"body");
    set_option(&client, TCP, libc::TCP_CORK, 0).unwrap();
    assert_eq!(read_some(&server, 8), b"headbody");
    // TCP_NODELAY lets it go though the cork stays; so does the end of the stream.
    set_option(&client, TCP, libc::TCP_CORK, 1).unwrap();
    send_all(&client, b"flush");
    set_option(&client, TCP, libc::TCP_NODELAY, 1).unwrap();
    assert_eq!(read_some(&server, 5), b"flush");
    send_all(&client, b"end");
    shutdown(client.0, libc::SHUT_WR).unwrap();
    assert_eq!(read_some(&server, 9), b"end");
}

pub(crate) fn more_to_come(pair: &Pair) {
    let (client, server) = pair.connected();
    let data: Vec<u8> = (0..50_000u32).map(|n| n as u8).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (n, piece) in data.chunks(777).enumerate() {
                let flags = if n % 3 == 0 { NONE } else { MsgFlags::MORE };
                assert_eq!(send(client.0, piece, flags).unwrap(), piece.len());
            }
            // What nobody sends on leaves after 200 ms.
        });
        assert_eq!(read_some(&server, data.len()), data);
    });
    assert_eq!(send(client.0, b"x", MsgFlags::MORE | MsgFlags::NOSIGNAL).unwrap(), 1);
    assert_eq!(send(client.0, b"y", NONE).unwrap(), 1);
    assert_eq!(read_some(&server, 2), b"xy");
}

pub(crate) fn low_water(pair: &Pair) {
    let (client, server) = pair.connected();
    assert_eq!(option(&server, SOCKET, libc::SO_RCVLOWAT).unwrap(), 1);
    set_option(&server, SOCKET, libc::SO_RCVLOWAT, 5).unwrap();
    assert_eq!(option(&server, SOCKET, libc::SO_RCVLOWAT).unwrap(), 5);
    send_all(&client, b"abc");
    until(|| unread(&server) == 3);
    assert_eq!(events(&server), Events::OUT);
    // Who doesn't wait takes what there is.
    assert_eq!(recv(server.0, &mut [0; 9], MsgFlags::DONTWAIT).unwrap(), 3);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| recv(server.0, &mut [0; 9], NONE).unwrap());
        // In one piece: Linux does not wake a reader that has taken less than it wants for less than the mark again.
        send_all(&client, b"abcde");
        assert_eq!(reader.join().unwrap(), 5);
    });
    send_all(&client, b"fghij");
    wait_exactly(&server, Events::IN | Events::OUT);
    // A short buffer needs no more than it takes.
    assert_eq!(read_some(&server, 2), b"fg");
    until(|| events(&server) == Events::OUT);
    assert_eq!(recv(server.0, &mut [0; 3], NONE).unwrap(), 3);
    send_all(&client, b"k");
    shutdown(client.0, libc::SHUT_WR).unwrap();
    wait_exactly(&server, Events::IN | Events::OUT | Events::RDHUP);
    assert_eq!(read_some(&server, 9), b"k");
    // 0 is 1.
    set_option(&server, SOCKET, libc::SO_RCVLOWAT, 0).unwrap();
    assert_eq!(option(&server, SOCKET, libc::SO_RCVLOWAT).unwrap(), 1);
    assert_eq!(option(&server, SOCKET, libc::SO_SNDLOWAT).unwrap(), 1);
    assert_eq!(errno(set_option(&server, SOCKET, libc::SO_SNDLOWAT, 5)), libc::ENOPROTOOPT);
}

pub(crate) fn receive_buffer_bounds_the_window(pair: &Pair) {
    let listener = pair.tcp_b();
    set_option(&listener, SOCKET, libc::SO_RCVBUF, 8192).unwrap();
    let (listener, addr) = bind_any(&listener, pair.b_addr);
    listen(listener.0, 1).unwrap();
    let client = pair.tcp_a();
    set_option(&client, SOCKET, libc::SO_SNDBUF, 8192).unwrap();
    connect(client.0, addr).unwrap();
    let server = Fd(accept(listener.0).unwrap().0);
    assert_eq!(option(&server, SOCKET, libc::SO_RCVBUF).unwrap(), 16_384);
    nonblocking(&client, true);
    let mut sent = 0;
    loop {
        match send(client.0, &[7; 4096], NONE) {
            Ok(n) => sent += n,
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
                if Edges::new(&client).wait(Duration::from_millis(300)).is_empty() {
                    break;
                }
            }
        }
        assert!(sent < 1 << 20, "nothing bounds it");
    }
    assert!(unread(&server) <= 16_384, "{}", unread(&server));
    assert_eq!(read_some(&server, sent).len(), sent);
}

pub(crate) fn inherited(pair: &Pair) {
    let listener = pair.tcp_b();
    let (low_level, low_name) = match pair.domain() {
        libc::AF_INET => (libc::IPPROTO_IP, libc::IP_TTL),
        _ => (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
    };
    let options = [
        (SOCKET, libc::SO_KEEPALIVE, 1),
        (SOCKET, libc::SO_REUSEADDR, 1),
        (SOCKET, libc::SO_RCVLOWAT, 3),
        (TCP, libc::TCP_NODELAY, 1),
        (TCP, libc::TCP_KEEPIDLE, 77),
        (TCP, libc::TCP_KEEPINTVL, 7),
        (TCP, libc::TCP_KEEPCNT, 3),
        (TCP, libc::TCP_USER_TIMEOUT, 12_345),
        (TCP, libc::TCP_LINGER2, 9),
        (TCP, libc::TCP_SYNCNT, 2),
        (low_level, low_name, 33),
    ];
    for (level, name, value) in options {
        set_option(&listener, level, name, value).unwrap();
    }
    let linger = [1i32.to_ne_bytes(), 5i32.to_ne_bytes()].concat();
    setsockopt(listener.0, SOCKET, libc::SO_LINGER, &linger).unwrap();
    receive_timeout(&listener, Duration::from_secs(3));
    setsockopt(listener.0, TCP, libc::TCP_CONGESTION, b"reno").unwrap();
    let (listener, addr) = bind_any(&listener, pair.b_addr);
    listen(listener.0, 1).unwrap();
    let client = pair.tcp_a();
    connect(client.0, addr).unwrap();
    let server = Fd(accept(listener.0).unwrap().0);
    for (level, name, value) in options {
        assert_eq!(option(&server, level, name).unwrap(), value, "{level} {name}");
    }
    let get = |name, len: usize| {
        let mut value = vec![0; len];
        getsockopt(server.0, SOCKET, name, &mut value).unwrap();
        value
    };
    assert_eq!(get(libc::SO_LINGER, 8), linger);
    assert_eq!(get(libc::SO_RCVTIMEO, 16)[..8], 3i64.to_ne_bytes());
    let mut name = [0; 16];
    getsockopt(server.0, TCP, libc::TCP_CONGESTION, &mut name).unwrap();
    assert_eq!(&name[..5], b"reno\0");
    assert_eq!(option(&server, SOCKET, libc::SO_ACCEPTCONN).unwrap(), 0);
}

pub(crate) fn deferred_accept(pair: &Pair) {
    let (listener, addr) = pair.listener();
    set_option(&listener, TCP, libc::TCP_DEFER_ACCEPT, 30).unwrap();
    let quiet = pair.tcp_a();
    connect(quiet.0, addr).unwrap();
    let talking = pair.tcp_a();
    connect(talking.0, addr).unwrap();
    assert_eq!(events(&listener), Events::empty());
    send_all(&talking, b"hello");
    let (server, from) = accept(listener.0).unwrap();
    let server = Fd(server);
    assert_eq!(from.as_ip(), Some(name(&talking)), "the one with data comes first");
    assert_eq!(recv(server.0, &mut [0; 9], MsgFlags::DONTWAIT).unwrap(), 5);
    assert_eq!(events(&listener), Events::empty());
    send_all(&quiet, b"me too");
    let (second, from) = accept(listener.0).unwrap();
    drop(Fd(second));
    assert_eq!(from.as_ip(), Some(name(&quiet)));
}

pub(crate) fn close_waits_for_delivery(pair: &Pair) {
    for nonblock in [false, true] {
        let (client, server) = pair.connected();
        let linger = [1i32.to_ne_bytes(), 20i32.to_ne_bytes()].concat();
        setsockopt(client.0, SOCKET, libc::SO_LINGER, &linger).unwrap();
        send_all(&client, b"last words");
        // Linux: also when nothing else waits.
        nonblocking(&client, nonblock);
        drop(client);
        assert_eq!(unread(&server), 10);
        assert_eq!(events(&server), Events::IN | Events::OUT | Events::RDHUP);
    }
}
