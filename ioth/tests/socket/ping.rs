//! Ping sockets: SOCK_DGRAM of ICMP (icmp(7)).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ioth::berkeley::*;
use ioth::{Events, MsgFlags, SockAddr, Stack};

use crate::datagram::ends_a_wait;
use crate::fixture::*;
use crate::raw::{checksum, echo, host, icmp, v4};

fn ping(pair: &Pair, stack: &Stack) -> Fd {
    pair.open(stack, pair.domain(), libc::SOCK_DGRAM, icmp(pair)).unwrap()
}

#[track_caller]
fn nothing(fd: &Fd) {
    assert_eq!(errno(recv(fd.0, &mut [0; 100], MsgFlags::DONTWAIT)), libc::EAGAIN);
}

pub(crate) fn there_and_back(pair: &Pair) {
    let (fd, other) = (ping(pair, &pair.a), ping(pair, &pair.a));
    assert_eq!(name(&fd), host(pair.wildcard()));
    assert_eq!(events(&fd), Events::OUT);
    let request = echo(pair, false, 4711, b"are you there?");
    // A port means nothing.
    assert_eq!(sendto(fd.0, &request, NONE, SocketAddr::new(pair.b_addr, 9)).unwrap(), request.len());
    // The identifier is the node's choice, and shown as the port.
    let ident = name(&fd).port();
    assert_eq!(name(&fd).ip(), pair.wildcard());
    assert_ne!(ident, 0);
    wait_exactly(&fd, Events::IN | Events::OUT);
    let mut buffer = [0; 100];
    let (len, from) = recvfrom(fd.0, &mut buffer, NONE).unwrap();
    assert_eq!(from, Some(host(pair.b_addr).into()));
    let mut wanted = echo(pair, true, ident, b"are you there?");
    wanted[2..4].copy_from_slice(&buffer[2..4]);
    assert_eq!(buffer[..len], wanted);
    if v4(pair) {
        assert_eq!(checksum(&buffer[..len]), 0);
    }
    nothing(&other);
    // Connected, and cut.
    connect(fd.0, host(pair.b_addr)).unwrap();
    assert_eq!(name(&fd), SocketAddr::new(pair.a_addr, ident));
    write(fd.0, &request).unwrap();
    // Linux: here MSG_TRUNC does not ask for the whole length.
    assert_eq!(recv(fd.0, &mut buffer[..10], MsgFlags::TRUNC).unwrap(), 10);
}

pub(crate) fn only_requests(pair: &Pair) {
    let fd = ping(pair, &pair.a);
    let send = |message: &[u8]| sendto(fd.0, message, NONE, host(pair.b_addr));
    let request = echo(pair, false, 1, b"");
    assert_eq!(send(&request).unwrap(), 8);
    assert_eq!(errno(send(&request[..7])), libc::EINVAL);
    assert_eq!(errno(send(&echo(pair, true, 1, b""))), libc::EINVAL);
    let mut bad = request.clone();
    bad[1] = 1;
    assert_eq!(errno(send(&bad)), libc::EINVAL);
    assert_eq!(errno(send(&vec![request[0]; 65_536])), libc::EMSGSIZE);
    assert_eq!(errno(sendto(fd.0, &request, MsgFlags::OOB, host(pair.b_addr))), libc::EOPNOTSUPP);
    assert_eq!(errno(recv(fd.0, &mut [0; 9], MsgFlags::OOB | MsgFlags::DONTWAIT)), libc::EOPNOTSUPP);
    // It has its identifier even when nothing was sent.
    let fresh = ping(pair, &pair.a);
    assert_eq!(errno(write(fresh.0, &request)), libc::EDESTADDRREQ);
    assert_ne!(name(&fresh).port(), 0);
    let other: SocketAddr = if v4(pair) { "[::1]:0" } else { "127.0.0.1:0" }.parse().unwrap();
    let family = if v4(pair) { libc::EAFNOSUPPORT } else { libc::EINVAL };
    assert_eq!(errno(sendto(fd.0, &request, NONE, other)), family);
    assert_eq!(errno(connect(fd.0, other)), libc::EAFNOSUPPORT);
    assert_eq!(errno(bind(ping(pair, &pair.a).0, other)), family);
    for protocol in [libc::IPPROTO_ICMP, libc::IPPROTO_ICMPV6] {
        let opened = pair.open(&pair.a, pair.domain(), libc::SOCK_DGRAM, protocol);
        assert_eq!(opened.is_ok(), protocol == icmp(pair));
    }
    assert_eq!(option(&fd, libc::SOL_SOCKET, libc::SO_PROTOCOL).unwrap(), icmp(pair));
    assert_eq!(option(&fd, libc::SOL_SOCKET, libc::SO_TYPE).unwrap(), libc::SOCK_DGRAM);
    assert_eq!(errno(ioctl(fd.0, libc::FIONREAD, &mut [0; 4])), libc::ENOTTY);
    assert_eq!(errno(listen(fd.0, 1)), libc::EOPNOTSUPP);
    assert_eq!(errno(shutdown(fd.0, libc::SHUT_RDWR)), libc::ENOTCONN);
}

pub(crate) fn identifiers(pair: &Pair) {
    let at = |ident| SocketAddr::new(pair.a_addr, ident);
    let (first, second) = (ping(pair, &pair.a), ping(pair, &pair.a));
    bind(first.0, at(777)).unwrap();
    assert_eq!(name(&first), at(777));
    assert_eq!(errno(bind(first.0, at(778))), libc::EINVAL);
    // Linux: they may share one unless one of them does not want to.
    assert_eq!(option(&second, libc::SOL_SOCKET, libc::SO_REUSEADDR).unwrap(), 1);
    set_option(&second, libc::SOL_SOCKET, libc::SO_REUSEADDR, 0).unwrap();
    assert_eq!(errno(bind(second.0, at(777))), libc::EADDRINUSE);
    set_option(&second, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).unwrap();
    bind(second.0, at(777)).unwrap();
    // Then the last one has the replies.
    sendto(first.0, &echo(pair, false, 1, b"whose?"), NONE, host(pair.b_addr)).unwrap();
    assert_eq!(read(second.0, &mut [0; 100]).unwrap(), 14);
    nothing(&first);
    let stranger: SocketAddr = if v4(pair) { "203.0.113.1:0" } else { "[2001:db8::1]:0" }.parse().unwrap();
    assert_eq!(errno(bind(ping(pair, &pair.a).0, stranger)), libc::EADDRNOTAVAIL);
    let group: SocketAddr = if v4(pair) { "224.0.0.1:0" } else { "[ff02::1]:0" }.parse().unwrap();
    let errno_of_group = if v4(pair) { libc::EADDRNOTAVAIL } else { libc::EINVAL };
    assert_eq!(errno(bind(ping(pair, &pair.a).0, group)), errno_of_group);
}

pub(crate) fn dissolved(pair: &Pair) {
    // What was chosen goes with the association.
    let fd = ping(pair, &pair.a);
    connect(fd.0, SocketAddr::new(pair.b_addr, 9)).unwrap();
    assert_eq!(peer(&fd), SocketAddr::new(pair.b_addr, 9));
    assert_ne!(name(&fd).port(), 0);
    connect(fd.0, SockAddr::Unspecified).unwrap();
    assert_eq!(name(&fd), host(pair.wildcard()));
    assert_eq!(errno(getpeername(fd.0)), libc::ENOTCONN);
    sendto(fd.0, &echo(pair, false, 1, b""), NONE, host(pair.b_addr)).unwrap();
    assert_eq!(read(fd.0, &mut [0; 100]).unwrap(), 8);
    // What bind(2) named stays.
    let bound = ping(pair, &pair.a);
    bind(bound.0, SocketAddr::new(pair.a_addr, 779)).unwrap();
    connect(bound.0, host(pair.b_addr)).unwrap();
    assert_eq!(errno(getpeername(bound.0)), libc::ENOTCONN);
    connect(bound.0, SockAddr::Unspecified).unwrap();
    assert_eq!(name(&bound), SocketAddr::new(pair.a_addr, 779));
}

/// Many sockets of two nodes at the same time: each has its own replies.
pub(crate) fn many(pair: &Pair) {
    let sockets: Vec<_> = (0..20).map(|i| ping(pair, if i % 2 == 0 { &pair.a } else { &pair.b })).collect();
    let ask = |i: usize| {
        let to = if i.is_multiple_of(2) { pair.b_addr } else { pair.a_addr };
        sendto(sockets[i].0, &echo(pair, false, 5, &[i as u8; 50]), NONE, host(to)).unwrap();
    };
    (0..sockets.len()).for_each(ask);
    for (i, fd) in sockets.iter().enumerate() {
        receive_timeout(fd, Duration::from_millis(200));
        let mut buffer = [0; 100];
        // The kernel does not answer on a processor that is just sending an ICMP message of its own.
        let deadline = Instant::now() + LONG;
        let len = loop {
            match read(fd.0, &mut buffer) {
                Ok(len) => break len,
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EAGAIN)),
            }
            assert!(Instant::now() < deadline, "no answer");
            ask(i);
        };
        assert_eq!(len, 58);
        assert_eq!(buffer[8..58], [i as u8; 50]);
    }
}

/// A request longer than the wire's MTU goes in pieces.
pub(crate) fn too_long(pair: &Pair) {
    let fd = ping(pair, &pair.a);
    let request = vec![if v4(pair) { 8 } else { 128 }; 1];
    let most = 1500 - if v4(pair) { 20 } else { 40 };
    let mut longest = [request, vec![0; most - 1]].concat();
    sendto(fd.0, &longest, NONE, host(pair.b_addr)).unwrap();
    let mut buffer = vec![0; 3000];
    assert_eq!(read(fd.0, &mut buffer).unwrap(), most);
    longest.push(0);
    assert_eq!(sendto(fd.0, &longest, NONE, host(pair.b_addr)).unwrap(), most + 1);
    assert_eq!(read(fd.0, &mut buffer).unwrap(), most + 1);
}

/// As of UDP: without a peer it is told so, and shut all the same.
pub(crate) fn shut_down_unconnected(pair: &Pair) {
    let fd = ping(pair, &pair.a);
    ends_a_wait(&fd);
    wait_exactly(&fd, Events::IN | Events::OUT | Events::RDHUP | Events::HUP);
    let request = echo(pair, false, 1, b"shut");
    assert_eq!(errno(sendto(fd.0, &request, NONE, host(pair.b_addr))), libc::EPIPE);
}
