//! UDP by Berkeley's calls.

use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ioth::berkeley::*;
use ioth::{Events, MsgFlags, RecvMsg, SockAddr};

use crate::fixture::*;

pub(crate) fn echo(pair: &Pair) {
    let (a, a_addr) = pair.udp_a();
    let (b, b_addr) = pair.udp_b();
    assert_eq!(sendto(a.0, b"ping", NONE, b_addr).unwrap(), 4);
    let mut buffer = [0; 100];
    let (len, from) = recvfrom(b.0, &mut buffer, NONE).unwrap();
    assert_eq!((len, from), (4, Some(a_addr.into())));
    sendto(b.0, &buffer[..len], NONE, a_addr).unwrap();
    assert_eq!(recvfrom(a.0, &mut buffer, NONE).unwrap(), (4, Some(b_addr.into())));
    // Datagrams keep their borders and their order.
    for len in 1..20 {
        sendto(a.0, &[7; 20][..len], NONE, b_addr).unwrap();
    }
    for len in 1..20 {
        assert_eq!(read(b.0, &mut buffer).unwrap(), len);
    }
}

pub(crate) fn connected_takes_nobody_else(pair: &Pair) {
    let (a, a_addr) = pair.udp_a();
    let (b, b_addr) = pair.udp_b();
    let (stranger, _) = pair.udp_a();
    connect(b.0, a_addr).unwrap();
    assert_eq!(peer(&b), a_addr);
    sendto(stranger.0, b"strange", NONE, b_addr).unwrap();
    sendto(a.0, b"known", NONE, b_addr).unwrap();
    let mut buffer = [0; 100];
    assert_eq!(recvfrom(b.0, &mut buffer, NONE).unwrap(), (5, Some(a_addr.into())));
    assert_eq!(errno(recv(b.0, &mut buffer, MsgFlags::DONTWAIT)), libc::EAGAIN);
    assert_eq!(send(b.0, b"back", NONE).unwrap(), 4);
    assert_eq!(read(a.0, &mut buffer).unwrap(), 4);
}

pub(crate) fn dissolved(pair: &Pair) {
    let (a, a_addr) = pair.udp_a();
    let (b, _) = pair.udp_b();
    connect(b.0, a_addr).unwrap();
    connect(b.0, SockAddr::Unspecified).unwrap();
    assert_eq!(errno(getpeername(b.0)), libc::ENOTCONN);
    assert_eq!(errno(write(b.0, b"x")), libc::EDESTADDRREQ);
    sendto(b.0, b"x", NONE, a_addr).unwrap();
    assert_eq!(read(a.0, &mut [0; 4]).unwrap(), 1);
}

pub(crate) fn refused(pair: &Pair) {
    let (a, _) = pair.udp_a();
    let (b, b_addr) = pair.udp_b();
    drop(b);
    connect(a.0, b_addr).unwrap();
    send(a.0, b"x", NONE).unwrap();
    assert_eq!(errno(read(a.0, &mut [0; 4])), libc::ECONNREFUSED);
    assert_eq!(errno(recv(a.0, &mut [0; 4], MsgFlags::DONTWAIT)), libc::EAGAIN);
    // The next send(2) would report it as well.
    send(a.0, b"x", NONE).unwrap();
    wait(&a, if pair.native { Events::ERR } else { Events::IN });
    assert_eq!(so_error(&a), libc::ECONNREFUSED);
    assert_eq!(so_error(&a), 0);
    // Unconnected, nobody is told.
    let (other, _) = pair.udp_a();
    sendto(other.0, b"x", NONE, b_addr).unwrap();
    crate::fixture::receive_timeout(&other, Duration::from_millis(50));
    assert_eq!(errno(read(other.0, &mut [0; 4])), libc::EAGAIN);
}

pub(crate) fn too_long(pair: &Pair) {
    let (a, _) = pair.udp_a();
    let (_b, b_addr) = pair.udp_b();
    // RFC 768: the length field counts the header; IPv4's own length counts its header as well.
    let most = if pair.a_addr.is_ipv4() { 65_507 } else { 65_527 };
    assert_eq!(errno(sendto(a.0, &vec![0; most + 1], NONE, b_addr)), libc::EMSGSIZE);
    assert_eq!(errno(sendto(a.0, &vec![0; 100_000], NONE, b_addr)), libc::EMSGSIZE);
}

pub(crate) fn zero_length(pair: &Pair) {
    let (a, a_addr) = pair.udp_a();
    let (b, b_addr) = pair.udp_b();
    assert_eq!(sendto(a.0, b"", NONE, b_addr).unwrap(), 0);
    wait_exactly(&b, Events::IN | Events::OUT);
    let mut buffer = [0; 4];
    assert_eq!(recvfrom(b.0, &mut buffer, NONE).unwrap(), (0, Some(a_addr.into())));
    assert_eq!(events(&b), Events::OUT);
    // A buffer of no length takes a datagram all the same, except with read(2).
    sendto(a.0, b"lost", NONE, b_addr).unwrap();
    wait(&b, Events::IN);
    assert_eq!(read(b.0, &mut []).unwrap(), 0);
    assert_eq!(recv(b.0, &mut [], NONE).unwrap(), 0);
    assert_eq!(errno(recv(b.0, &mut buffer, MsgFlags::DONTWAIT)), libc::EAGAIN);
}

pub(crate) fn truncated(pair: &Pair) {
    let (a, a_addr) = pair.udp_a();
    let (b, b_addr) = pair.udp_b();
    for _ in 0..3 {
        sendto(a.0, b"0123456789", NONE, b_addr).unwrap();
    }
    let mut buffer = [0; 4];
    assert_eq!(recv(b.0, &mut buffer, NONE).unwrap(), 4);
    assert_eq!(recv(b.0, &mut buffer, MsgFlags::TRUNC).unwrap(), 10);
    let mut data = [IoSliceMut::new(&mut buffer)];
    let mut message = RecvMsg::new(&mut data);
    assert_eq!(recvmsg(b.0, &mut message, NONE).unwrap(), 4);
    assert_eq!(message.flags, MsgFlags::TRUNC);
    assert_eq!(message.addr, Some(a_addr.into()));
    assert_eq!(message.control_len, 0);
}

pub(crate) fn peek(pair: &Pair) {
    let (a, _) = pair.udp_a();
    let (b, b_addr) = pair.udp_b();
    sendto(a.0, b"0123456789", NONE, b_addr).unwrap();
    let mut buffer = [0; 4];
    // How long is the next one?
    assert_eq!(recv(b.0, &mut buffer, MsgFlags::PEEK | MsgFlags::TRUNC).unwrap(), 10);
    assert_eq!(recv(b.0, &mut buffer, MsgFlags::PEEK).unwrap(), 4);
    assert_eq!(events(&b), Events::IN | Events::OUT);
    assert_eq!(recv(b.0, &mut buffer, NONE).unwrap(), 4);
    assert_eq!(events(&b), Events::OUT);
}

pub(crate) fn vectors(pair: &Pair) {
    let (a, _) = pair.udp_a();
    let (b, b_addr) = pair.udp_b();
    connect(a.0, b_addr).unwrap();
    assert_eq!(writev(a.0, &[IoSlice::new(b"abc"), IoSlice::new(b"defg")]).unwrap(), 7);
    let (mut first, mut second) = ([0; 5], [9; 5]);
    let mut parts = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
    assert_eq!(readv(b.0, &mut parts).unwrap(), 7);
    assert_eq!((&first, &second), (b"abcde", &[b'f', b'g', 9, 9, 9]));
}

pub(crate) fn no_destination(pair: &Pair) {
    let (a, _) = pair.udp_a();
    assert_eq!(errno(write(a.0, b"x")), libc::EDESTADDRREQ);
    assert_eq!(errno(getpeername(a.0)), libc::ENOTCONN);
    assert_eq!(errno(shutdown(a.0, libc::SHUT_RDWR)), libc::ENOTCONN);
    assert_eq!(errno(listen(a.0, 1)), libc::EOPNOTSUPP);
    assert_eq!(errno(accept(a.0)), libc::EOPNOTSUPP);
    let port_zero = SocketAddr::new(pair.b_addr, 0);
    assert_eq!(errno(sendto(a.0, b"x", NONE, port_zero)), libc::EINVAL);
}

pub(crate) fn would_block(pair: &Pair) {
    let (a, _) = pair.udp_a();
    assert_eq!(errno(recv(a.0, &mut [0; 4], MsgFlags::DONTWAIT)), libc::EAGAIN);
    nonblocking(&a, true);
    assert_eq!(errno(recvfrom(a.0, &mut [0; 4], NONE)), libc::EAGAIN);
}

pub(crate) fn receive_timeout(pair: &Pair) {
    let (a, _) = pair.udp_a();
    crate::fixture::receive_timeout(&a, Duration::from_millis(60));
    let start = Instant::now();
    assert_eq!(errno(read(a.0, &mut [0; 4])), libc::EAGAIN);
    assert!(start.elapsed() >= Duration::from_millis(55), "{:?}", start.elapsed());
}

pub(crate) fn names(pair: &Pair) {
    let (_b, b_addr) = pair.udp_b();
    let fresh = pair.socket(&pair.a, libc::SOCK_DGRAM);
    assert_eq!(name(&fresh), SocketAddr::new(pair.wildcard(), 0));
    // Sending takes a port, connecting an address as well.
    sendto(fresh.0, b"x", NONE, b_addr).unwrap();
    assert_eq!(name(&fresh).ip(), pair.wildcard());
    assert_ne!(name(&fresh).port(), 0);
    connect(fresh.0, b_addr).unwrap();
    assert_eq!(name(&fresh).ip(), pair.a_addr);
}

pub(crate) fn address_in_use(pair: &Pair) {
    let (b, b_addr) = pair.udp_b();
    let other = pair.socket(&pair.b, libc::SOCK_DGRAM);
    assert_eq!(errno(bind(other.0, b_addr)), libc::EADDRINUSE);
    drop(b);
    bind(other.0, b_addr).unwrap();
    assert_eq!(errno(bind(other.0, b_addr)), libc::EINVAL);
}

/// What connect(2) chose goes with the association; what bind(2) named stays.
pub(crate) fn dissolved_names(pair: &Pair) {
    let (_b, b_addr) = pair.udp_b();
    for (bound, named) in
        [(None, false), (Some(pair.wildcard()), false), (Some(pair.a_addr), false), (Some(pair.a_addr), true)]
    {
        let fd = pair.socket(&pair.a, libc::SOCK_DGRAM);
        if let Some(ip) = bound {
            let port = if named { pair.udp_a().1.port() } else { 0 };
            bind(fd.0, SocketAddr::new(ip, port)).unwrap();
        }
        connect(fd.0, b_addr).unwrap();
        assert_eq!(name(&fd).ip(), pair.a_addr);
        connect(fd.0, SockAddr::Unspecified).unwrap();
        assert_eq!(name(&fd).ip(), bound.unwrap_or(pair.wildcard()));
        assert_eq!(name(&fd).port() != 0, named);
        let again = bind(fd.0, SocketAddr::new(pair.a_addr, 0));
        match named {
            true => assert_eq!(errno(again), libc::EINVAL),
            false => again.unwrap(),
        }
    }
}

pub(crate) fn connected_sends_elsewhere(pair: &Pair) {
    let (a, a_addr) = pair.udp_a();
    let ((b, b_addr), (other, other_addr)) = (pair.udp_b(), pair.udp_b());
    connect(a.0, b_addr).unwrap();
    sendto(a.0, b"there", NONE, other_addr).unwrap();
    assert_eq!(recvfrom(other.0, &mut [0; 8], NONE).unwrap(), (5, Some(a_addr.into())));
    assert_eq!(peer(&a), b_addr);
    assert_eq!(errno(recv(b.0, &mut [0; 4], MsgFlags::DONTWAIT)), libc::EAGAIN);
    // Who answers from there is not heard.
    sendto(other.0, b"back", NONE, a_addr).unwrap();
    sendto(b.0, b"b", NONE, a_addr).unwrap();
    assert_eq!(recvfrom(a.0, &mut [0; 8], NONE).unwrap(), (1, Some(b_addr.into())));
}

/// Linux: shut for reading, it receives still, but a call that would wait does not.
pub(crate) fn shut_down(pair: &Pair) {
    let (a, a_addr) = pair.udp_a();
    let (b, b_addr) = pair.udp_b();
    connect(a.0, b_addr).unwrap();
    shutdown(a.0, libc::SHUT_RD).unwrap();
    assert_eq!(read(a.0, &mut [0; 4]).unwrap(), 0);
    assert_eq!(errno(recv(a.0, &mut [0; 4], MsgFlags::DONTWAIT)), libc::EAGAIN);
    sendto(b.0, b"xy", NONE, a_addr).unwrap();
    let mut buffer = [0; 4];
    while recv(a.0, &mut buffer, MsgFlags::DONTWAIT).is_err() {
        std::thread::yield_now();
    }
    assert_eq!(&buffer[..2], b"xy");
    shutdown(a.0, libc::SHUT_WR).unwrap();
    assert_eq!(errno(send(a.0, b"x", NONE)), libc::EPIPE);
    // A length that cannot be is found first.
    assert_eq!(errno(send(a.0, &vec![0; 65_536], NONE)), libc::EMSGSIZE);
}

/// Without a peer it is told so, and shut all the same: who waits to receive has the end.
pub(crate) fn shut_down_unconnected(pair: &Pair) {
    for protocol in [libc::IPPROTO_UDP, libc::IPPROTO_UDPLITE] {
        let fd = pair.open(&pair.a, pair.domain(), libc::SOCK_DGRAM, protocol).unwrap();
        ends_a_wait(&fd);
        let (to, addr) = pair.udp_b();
        let fresh = pair.open(&pair.a, pair.domain(), libc::SOCK_DGRAM, protocol).unwrap();
        assert_eq!(errno(shutdown(fresh.0, libc::SHUT_WR)), libc::ENOTCONN);
        assert_eq!(events(&fresh), Events::OUT);
        assert_eq!(errno(sendto(fresh.0, b"x", NONE, addr)), libc::EPIPE);
        assert_eq!(errno(shutdown(fresh.0, libc::SHUT_RD)), libc::ENOTCONN);
        wait_exactly(&fresh, Events::IN | Events::OUT | Events::RDHUP | Events::HUP);
        assert_eq!(errno(recv(fresh.0, &mut [0; 4], MsgFlags::DONTWAIT)), libc::EAGAIN);
        assert_eq!(errno(shutdown(fresh.0, libc::SHUT_RDWR)), libc::ENOTCONN);
        drop(to);
    }
}

/// The usual way to wake another thread: shutdown(2) of a socket without a peer, in which it waits to receive.
pub(crate) fn ends_a_wait(fd: &Fd) {
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| recv(fd.0, &mut [0; 4], NONE));
        assert_eq!(errno(shutdown(fd.0, libc::SHUT_RDWR)), libc::ENOTCONN);
        assert_eq!(receiver.join().unwrap().unwrap(), 0);
    });
}

pub(crate) fn shutting_down_ends_a_wait(pair: &Pair) {
    ends_a_wait(&pair.socket(&pair.a, libc::SOCK_DGRAM));
    ends_a_wait(&pair.udp_a().0);
}

/// Which of several errors a call finds first.
pub(crate) fn errors_in_order(pair: &Pair) {
    let fresh = pair.socket(&pair.a, libc::SOCK_DGRAM);
    assert_eq!(errno(send(fresh.0, b"x", NONE)), libc::EDESTADDRREQ);
    assert_ne!(name(&fresh).port(), 0, "a port was taken all the same");
    let (a, _) = pair.udp_a();
    let (b, b_addr) = pair.udp_b();
    if pair.a_addr.is_ipv4() {
        assert_eq!(errno(sendto(a.0, b"x", MsgFlags::OOB, b_addr)), libc::EOPNOTSUPP);
    } else {
        assert_eq!(sendto(a.0, b"x", MsgFlags::OOB, b_addr).unwrap(), 1);
    }
    let too_long = vec![0; 65_536];
    let first = if pair.a_addr.is_ipv4() { libc::EMSGSIZE } else { libc::EINVAL };
    assert_eq!(errno(sendto(a.0, &too_long, NONE, SocketAddr::new(pair.b_addr, 0))), first);
    // An error that waits comes after those of the call.
    drop(b);
    connect(a.0, b_addr).unwrap();
    send(a.0, b"x", NONE).unwrap();
    wait(&a, if pair.native { Events::ERR } else { Events::IN });
    assert_eq!(errno(send(a.0, &too_long, NONE)), libc::EMSGSIZE);
    assert_eq!(errno(sendto(a.0, b"x", NONE, SocketAddr::new(pair.b_addr, 0))), libc::EINVAL);
    assert_eq!(errno(send(a.0, b"x", NONE)), libc::ECONNREFUSED);
}

/// Broadcasts need SO_BROADCAST.
pub(crate) fn broadcast(pair: &Pair) {
    if pair.a_addr.is_ipv6() {
        return;
    }
    let (a, _) = pair.udp_a();
    let everybody = SocketAddr::from(([255, 255, 255, 255], 9));
    assert_eq!(errno(sendto(a.0, b"x", NONE, everybody)), libc::EACCES);
    let (_b, b_addr) = pair.udp_b();
    connect(a.0, b_addr).unwrap();
    assert_eq!(errno(connect(a.0, everybody)), libc::EACCES);
    assert_eq!(peer(&a), b_addr, "a connect that fails changes nothing");
}

/// Families that do not go together.
pub(crate) fn families(pair: &Pair) {
    let make = |domain| Fd(msocket(Some(&pair.a), domain, libc::SOCK_DGRAM, 0).unwrap());
    let v6: SocketAddr = "[::1]:9".parse().unwrap();
    let mapped: SocketAddr = "[::ffff:127.0.0.1]:9".parse().unwrap();
    let v4 = make(libc::AF_INET);
    assert_eq!(errno(sendto(v4.0, b"x", NONE, v6)), libc::EAFNOSUPPORT);
    assert_eq!(errno(connect(v4.0, v6)), libc::EAFNOSUPPORT);
    let only = make(libc::AF_INET6);
    set_option(&only, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1).unwrap();
    assert_eq!(errno(sendto(only.0, b"x", NONE, mapped)), libc::ENETUNREACH);
    assert_eq!(errno(connect(only.0, mapped)), libc::ENETUNREACH);
    assert_eq!(errno(bind(only.0, mapped)), libc::EINVAL);
    let plain: SocketAddr = "127.0.0.1:9".parse().unwrap();
    assert_eq!(errno(sendto(only.0, b"x", NONE, plain)), libc::ENETUNREACH);
    assert_eq!(errno(connect(only.0, plain)), libc::EAFNOSUPPORT);
    assert_eq!(errno(bind(only.0, plain)), libc::EINVAL);
    let of_v4 = make(libc::AF_INET6);
    bind(of_v4.0, "[::ffff:127.0.0.1]:0".parse::<SocketAddr>().unwrap()).unwrap();
    assert_eq!(errno(sendto(of_v4.0, b"x", NONE, v6)), libc::EAFNOSUPPORT);
    assert_eq!(errno(connect(of_v4.0, v6)), libc::EAFNOSUPPORT);
    sendto(of_v4.0, b"x", NONE, mapped).unwrap();
    // Nobody in particular is oneself, in the family of the socket's address.
    let any: SocketAddr = "[::]:9".parse().unwrap();
    let of_v4 = make(libc::AF_INET6);
    bind(of_v4.0, "[::ffff:127.0.0.1]:0".parse::<SocketAddr>().unwrap()).unwrap();
    sendto(of_v4.0, b"x", NONE, any).unwrap();
    connect(of_v4.0, any).unwrap();
    assert_eq!(peer(&of_v4), mapped);
    let of_v6 = make(libc::AF_INET6);
    bind(of_v6.0, "[::1]:0".parse::<SocketAddr>().unwrap()).unwrap();
    assert_eq!(errno(sendto(of_v6.0, b"x", NONE, mapped)), libc::ENETUNREACH);
    sendto(of_v6.0, b"x", NONE, v6).unwrap();
}
