//! TCP by Berkeley's calls.

use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ioth::berkeley::*;
use ioth::{Events, MsgFlags};

use crate::fixture::*;

pub(crate) fn echo(pair: &Pair) {
    let (listener, addr) = pair.listener();
    let client = pair.tcp_a();
    connect(client.0, addr).unwrap();
    let (server, from) = accept(listener.0).unwrap();
    let server = Fd(server);
    assert_eq!(from.as_ip(), Some(name(&client)));
    assert_eq!(peer(&server), name(&client));
    assert_eq!(peer(&client), name(&server));
    assert_eq!(write(client.0, b"hello").unwrap(), 5);
    assert_eq!(read_some(&server, 5), b"hello");
    assert_eq!(send(server.0, b"world", NONE).unwrap(), 5);
    let mut buffer = [0; 16];
    assert_eq!(recvfrom(client.0, &mut buffer, NONE).unwrap(), (5, None));
    assert_eq!(&buffer[..5], b"world");
}

pub(crate) fn half_close(pair: &Pair) {
    let (client, server) = pair.connected();
    send_all(&client, b"question");
    shutdown(client.0, libc::SHUT_WR).unwrap();
    assert_eq!(read_some(&server, 100), b"question");
    assert_eq!(read(server.0, &mut [0; 4]).unwrap(), 0);
    send_all(&server, b"answer");
    assert_eq!(read_some(&client, 6), b"answer");
    drop(server);
    assert_eq!(read(client.0, &mut [0; 4]).unwrap(), 0);
}

pub(crate) fn refused(pair: &Pair) {
    let (_closed, addr) = pair.refusing();
    let client = pair.tcp_a();
    assert_eq!(errno(connect(client.0, addr)), libc::ECONNREFUSED);
    assert_eq!(so_error(&client), 0);
    // Linux lets the same socket try again.
    let (_listener, addr) = pair.listener();
    connect(client.0, addr).unwrap();
}

pub(crate) fn reset_by_unread_data(pair: &Pair) {
    let (client, server) = pair.connected();
    send_all(&client, b"nobody reads this");
    wait(&server, Events::IN);
    drop(server); // RFC 2525 §2.17: data is lost, so the peer gets a reset
    wait(&client, Events::HUP);
    assert_eq!(errno(read(client.0, &mut [0; 4])), libc::ECONNRESET);
    assert_eq!(read(client.0, &mut [0; 4]).unwrap(), 0);
    assert_eq!(errno(write(client.0, b"x")), libc::EPIPE);
}

pub(crate) fn reset_by_linger(pair: &Pair) {
    let (client, server) = pair.connected();
    let linger = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
    setsockopt(server.0, libc::SOL_SOCKET, libc::SO_LINGER, &linger).unwrap();
    drop(server);
    assert_eq!(errno(read(client.0, &mut [0; 4])), libc::ECONNRESET);
}

pub(crate) fn broken_pipe(pair: &Pair) {
    let (client, server) = pair.connected();
    shutdown(client.0, libc::SHUT_WR).unwrap();
    assert_eq!(errno(write(client.0, b"x")), libc::EPIPE);
    // Reading is not affected.
    send_all(&server, b"x");
    assert_eq!(read_some(&client, 1), b"x");
    shutdown(client.0, libc::SHUT_RD).unwrap();
    assert_eq!(read(client.0, &mut [0; 4]).unwrap(), 0);
    assert_eq!(errno(shutdown(client.0, 7)), libc::EINVAL);
}

pub(crate) fn address_in_use(pair: &Pair) {
    let (_listener, addr) = pair.listener();
    let other = pair.tcp_b();
    assert_eq!(errno(bind(other.0, addr)), libc::EADDRINUSE);
    let wildcard = SocketAddr::new(pair.wildcard(), addr.port());
    assert_eq!(errno(bind(other.0, wildcard)), libc::EADDRINUSE);
    let elsewhere: SocketAddr = match addr {
        SocketAddr::V4(_) => "192.0.2.1:0".parse().unwrap(),
        SocketAddr::V6(_) => "[2001:db8::1]:0".parse().unwrap(),
    };
    assert_eq!(errno(bind(other.0, elsewhere)), libc::EADDRNOTAVAIL);
}

pub(crate) fn port_free_after_close(pair: &Pair) {
    for _ in 0..20 {
        let (listener, addr) = pair.listener();
        drop(listener);
        let again = pair.tcp_b();
        bind(again.0, addr).unwrap();
    }
}

pub(crate) fn not_connected(pair: &Pair) {
    let fresh = pair.tcp_a();
    assert_eq!(errno(read(fresh.0, &mut [0; 4])), libc::ENOTCONN);
    assert_eq!(errno(write(fresh.0, b"x")), libc::EPIPE);
    assert_eq!(errno(getpeername(fresh.0)), libc::ENOTCONN);
    assert_eq!(errno(shutdown(fresh.0, libc::SHUT_WR)), libc::ENOTCONN);
    assert_eq!(errno(accept(fresh.0)), libc::EINVAL);
    let (listener, _) = pair.listener();
    assert_eq!(errno(read(listener.0, &mut [0; 4])), libc::ENOTCONN);
    assert_eq!(errno(getpeername(listener.0)), libc::ENOTCONN);
}

pub(crate) fn already_connected(pair: &Pair) {
    let (client, server) = pair.connected();
    assert_eq!(errno(connect(client.0, name(&server))), libc::EISCONN);
    assert_eq!(errno(connect(server.0, name(&client))), libc::EISCONN);
    assert_eq!(errno(bind(client.0, SocketAddr::new(pair.a_addr, 0))), libc::EINVAL);
    assert_eq!(errno(listen(client.0, 1)), libc::EINVAL);
    let (listener, addr) = pair.listener();
    assert_eq!(errno(connect(listener.0, addr)), libc::EISCONN);
    listen(listener.0, 4).unwrap();
}

pub(crate) fn wrong_family(pair: &Pair) {
    let (other, expected): (SocketAddr, _) = if pair.a_addr.is_ipv4() {
        ("[::1]:9".parse().unwrap(), libc::EAFNOSUPPORT)
    } else {
        // Linux looks at the length first: a sockaddr_in is too short.
        ("127.0.0.1:9".parse().unwrap(), libc::EINVAL)
    };
    let fresh = pair.tcp_a();
    assert_eq!(errno(connect(fresh.0, other)), expected);
    assert_eq!(errno(bind(fresh.0, other)), expected);
    let kind = libc::SOCK_STREAM;
    assert_eq!(errno(msocket(Some(&pair.a), 200, kind, 0)), libc::EAFNOSUPPORT);
    assert_eq!(errno(msocket(Some(&pair.a), pair.domain(), kind, libc::IPPROTO_UDP)), libc::EPROTONOSUPPORT);
    assert_eq!(errno(msocket(Some(&pair.a), pair.domain(), kind | 0x100, 0)), libc::EINVAL);
}

pub(crate) fn would_block(pair: &Pair) {
    let (listener, addr) = pair.listener();
    nonblocking(&listener, true);
    assert_eq!(errno(accept(listener.0)), libc::EAGAIN);
    let client = pair.tcp_a();
    connect(client.0, addr).unwrap();
    wait(&listener, Events::IN);
    let server = Fd(accept(listener.0).unwrap().0);
    // The flag is not inherited, but MSG_DONTWAIT does as well.
    assert_eq!(fcntl(server.0, libc::F_GETFL, 0).unwrap() & libc::O_NONBLOCK, 0);
    assert_eq!(errno(recv(server.0, &mut [0; 4], MsgFlags::DONTWAIT)), libc::EAGAIN);
    nonblocking(&server, true);
    assert_eq!(errno(read(server.0, &mut [0; 4])), libc::EAGAIN);
    assert_eq!(errno(readv(server.0, &mut [IoSliceMut::new(&mut [0; 4])])), libc::EAGAIN);
    // Non-blocking before, blocking again: the read waits for the data.
    nonblocking(&server, false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_some(&server, 4));
        send_all(&client, b"data");
        assert_eq!(reader.join().unwrap(), b"data");
    });
}

pub(crate) fn in_progress(pair: &Pair) {
    let (listener, addr) = pair.listener();
    let client = pair.socket(&pair.a, libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
    assert_eq!(errno(connect(client.0, addr)), libc::EINPROGRESS);
    wait_exactly(&client, Events::OUT);
    assert_eq!(so_error(&client), 0);
    assert_eq!(peer(&client), addr);
    let server = Fd(accept(listener.0).unwrap().0);
    send_all(&client, b"x");
    assert_eq!(read_some(&server, 1), b"x");
}

pub(crate) fn nothing_to_send(pair: &Pair) {
    let (listener, addr) = pair.listener();
    for _ in 0..16 {
        let client = pair.socket(&pair.a, libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
        assert_eq!(errno(connect(client.0, addr)), libc::EINPROGRESS);
        nonblocking(&client, false);
        // It waits for the connection, and for nothing else.
        assert_eq!(send(client.0, b"", NONE).unwrap(), 0);
        assert_eq!(peer(&client), addr);
        let server = Fd(accept(listener.0).unwrap().0);
        send_all(&client, b"x");
        assert_eq!(read_some(&server, 1), b"x");
    }
}

pub(crate) fn in_progress_refused(pair: &Pair) {
    let (_closed, addr) = pair.refusing();
    let client = pair.socket(&pair.a, libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
    assert_eq!(errno(connect(client.0, addr)), libc::EINPROGRESS);
    wait(&client, Events::OUT | Events::ERR | Events::HUP);
    assert_eq!(so_error(&client), libc::ECONNREFUSED);
    assert_eq!(so_error(&client), 0);
    assert_eq!(errno(getpeername(client.0)), libc::ENOTCONN);
}

pub(crate) fn receive_timeout(pair: &Pair) {
    let (client, server) = pair.connected();
    crate::fixture::receive_timeout(&client, Duration::from_millis(60));
    let start = Instant::now();
    assert_eq!(errno(read(client.0, &mut [0; 4])), libc::EAGAIN);
    assert!(start.elapsed() >= Duration::from_millis(55), "{:?}", start.elapsed());
    send_all(&server, b"x");
    assert_eq!(read_some(&client, 1), b"x");
}

pub(crate) fn accept_timeout(pair: &Pair) {
    let (listener, _) = pair.listener();
    crate::fixture::receive_timeout(&listener, Duration::from_millis(60));
    let start = Instant::now();
    assert_eq!(errno(accept(listener.0)), libc::EAGAIN);
    assert!(start.elapsed() >= Duration::from_millis(55), "{:?}", start.elapsed());
}

pub(crate) fn peek(pair: &Pair) {
    let (client, server) = pair.connected();
    send_all(&client, b"abcdef");
    wait(&server, Events::IN);
    let mut buffer = [0; 3];
    assert_eq!(recv(server.0, &mut buffer, MsgFlags::PEEK).unwrap(), 3);
    assert_eq!(&buffer, b"abc");
    assert_eq!(events(&server), Events::IN | Events::OUT);
    assert_eq!(read_some(&server, 6), b"abcdef");
    assert_eq!(errno(recv(server.0, &mut buffer, MsgFlags::PEEK | MsgFlags::DONTWAIT)), libc::EAGAIN);
}

pub(crate) fn wait_all(pair: &Pair) {
    let (client, server) = pair.connected();
    send_all(&client, b"abc");
    wait(&server, Events::IN);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut buffer = [0; 6];
            let len = recv(server.0, &mut buffer, MsgFlags::WAITALL).unwrap();
            (len, buffer)
        });
        send_all(&client, b"def");
        assert_eq!(reader.join().unwrap(), (6, *b"abcdef"));
    });
    send_all(&client, b"xy");
    wait(&server, Events::IN);
    let mut buffer = [0; 6];
    assert_eq!(recv(server.0, &mut buffer, MsgFlags::WAITALL | MsgFlags::DONTWAIT).unwrap(), 2);
    // The end of the stream ends the waiting.
    send_all(&client, b"z");
    shutdown(client.0, libc::SHUT_WR).unwrap();
    assert_eq!(recv(server.0, &mut buffer, MsgFlags::WAITALL).unwrap(), 1);
}

pub(crate) fn vectors(pair: &Pair) {
    let (client, server) = pair.connected();
    let parts = [b"ab".as_slice(), b"", b"cdefgh", b"ij"].map(IoSlice::new);
    assert_eq!(writev(client.0, &parts).unwrap(), 10);
    // One segment or more: wait for them all.
    let mut all = [0; 10];
    recv(server.0, &mut all, MsgFlags::PEEK | MsgFlags::WAITALL).unwrap();
    let (mut first, mut second, mut third) = ([0; 4], [0; 4], [9; 4]);
    let mut parts = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second), IoSliceMut::new(&mut third)];
    assert_eq!(readv(server.0, &mut parts).unwrap(), 10);
    assert_eq!((&first, &second, &third), (b"abcd", b"efgh", &[b'i', b'j', 9, 9]));
    assert_eq!(writev(client.0, &[]).unwrap(), 0);
    assert_eq!(read(server.0, &mut []).unwrap(), 0);
}

pub(crate) fn names(pair: &Pair) {
    let listener = pair.tcp_b();
    assert_eq!(name(&listener), SocketAddr::new(pair.wildcard(), 0));
    // listen(2) without bind(2) takes a port.
    listen(listener.0, 1).unwrap();
    let wild = name(&listener);
    assert_eq!(wild.ip(), pair.wildcard());
    assert_ne!(wild.port(), 0);
    let client = pair.tcp_a();
    let addr = SocketAddr::new(pair.b_addr, wild.port());
    connect(client.0, addr).unwrap();
    assert_eq!(name(&client).ip(), pair.a_addr);
    let server = Fd(accept(listener.0).unwrap().0);
    assert_eq!(name(&server), addr);
    assert_eq!(name(&listener), wild);
}

pub(crate) fn backlog_order(pair: &Pair) {
    let (listener, addr) = pair.listener();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let client = pair.tcp_a();
            connect(client.0, addr).unwrap();
            // Data may come before the connection is accepted.
            send_all(&client, &name(&client).port().to_be_bytes());
            client
        })
        .collect();
    for client in &clients {
        let (server, from) = accept(listener.0).unwrap();
        let server = Fd(server);
        assert_eq!(from.as_ip(), Some(name(client)));
        assert_eq!(read_some(&server, 2), name(client).port().to_be_bytes());
    }
    assert_eq!(events(&listener), Events::empty());
    // Connections that nobody accepted are reset with their listener.
    let client = pair.tcp_a();
    connect(client.0, addr).unwrap();
    wait(&listener, Events::IN);
    drop(listener);
    assert_eq!(errno(read(client.0, &mut [0; 4])), libc::ECONNRESET);
}

pub(crate) fn unread_count(pair: &Pair) {
    let (client, server) = pair.connected();
    let count = |fd: &Fd| {
        let mut value = [0; 4];
        ioctl(fd.0, libc::FIONREAD as _, &mut value).unwrap();
        i32::from_ne_bytes(value)
    };
    assert_eq!(count(&server), 0);
    send_all(&client, b"12345");
    wait(&server, Events::IN);
    assert_eq!(count(&server), 5);
    read_some(&server, 2);
    assert_eq!(count(&server), 3);
    let mut on = 1i32.to_ne_bytes();
    ioctl(client.0, libc::FIONBIO as _, &mut on).unwrap();
    assert_eq!(errno(read(client.0, &mut [0])), libc::EAGAIN);
}

/// Addresses of one family on sockets that have one of the other.
pub(crate) fn families(pair: &Pair) {
    let make = |own: &str| {
        let fd = Fd(msocket(Some(&pair.a), libc::AF_INET6, libc::SOCK_STREAM, 0).unwrap());
        bind(fd.0, own.parse::<SocketAddr>().unwrap()).unwrap();
        fd
    };
    let listener = make("[::]:0");
    listen(listener.0, 4).unwrap();
    let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), name(&listener).port());
    assert_eq!(errno(connect(make("[::1]:0").0, at("::ffff:127.0.0.1"))), libc::ENETUNREACH);
    let of_v4 = make("[::ffff:127.0.0.1]:0");
    assert_eq!(errno(connect(of_v4.0, at("::1"))), libc::EAFNOSUPPORT);
    connect(of_v4.0, at("::")).unwrap();
    assert_eq!(peer(&of_v4), at("::ffff:127.0.0.1"));
    let only = Fd(msocket(Some(&pair.a), libc::AF_INET6, libc::SOCK_STREAM, 0).unwrap());
    set_option(&only, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1).unwrap();
    assert_eq!(errno(bind(only.0, at("::ffff:127.0.0.1"))), libc::EINVAL);
    assert_eq!(errno(connect(only.0, at("::ffff:127.0.0.1"))), libc::ENETUNREACH);
}

/// The address of bind(2) outlives an attempt that was refused, and is that of the next one.
pub(crate) fn address_survives_refusal(pair: &Pair) {
    let (_guard, refusing) = pair.refusing();
    let fd = pair.tcp_a();
    bind(fd.0, SocketAddr::new(pair.a_addr, 0)).unwrap();
    let before = name(&fd);
    for _ in 0..2 {
        assert_eq!(errno(connect(fd.0, refusing)), libc::ECONNREFUSED);
        assert_eq!(name(&fd).ip(), pair.a_addr);
    }
    assert_ne!(before.port(), 0);
    let (_listener, addr) = pair.listener();
    connect(fd.0, addr).unwrap();
    assert_eq!(name(&fd).ip(), pair.a_addr);
}

/// Linux lets a stream be bound to a group or broadcast address of IPv4; it connects from an address of the interface.
pub(crate) fn bound_to_many(pair: &Pair) {
    let own = |group: &str| -> SocketAddr {
        let prefix = if pair.a_addr.is_ipv4() { "" } else { "::ffff:" };
        SocketAddr::new(format!("{prefix}{group}").parse().unwrap(), 0)
    };
    for group in ["255.255.255.255", "224.0.0.1"] {
        let fd = pair.tcp_a();
        bind(fd.0, own(group)).unwrap();
        assert_eq!(name(&fd).ip(), own(group).ip());
        listen(fd.0, 1).unwrap();
        if pair.a_addr.is_ipv4() {
            let (_listener, addr) = pair.listener();
            let fd = pair.tcp_a();
            bind(fd.0, own(group)).unwrap();
            connect(fd.0, addr).unwrap();
            assert_eq!(name(&fd).ip(), pair.a_addr);
        }
    }
    if pair.a_addr.is_ipv6() {
        for group in ["[ff02::1]:0", "[ff0e::1]:0"] {
            let group: SocketAddr = group.parse().unwrap();
            assert_eq!(errno(bind(pair.tcp_a().0, group)), libc::EINVAL);
        }
    }
}

/// MSG_FASTOPEN where there is nothing to open, and where it is not to be had: without SIGPIPE.
pub(crate) fn fast_open(pair: &Pair) {
    let fast = MsgFlags::from_bits_retain(libc::MSG_FASTOPEN);
    let (client, server) = pair.connected();
    assert_eq!(errno(send(client.0, b"x", fast)), libc::EISCONN);
    assert_eq!(errno(sendto(client.0, b"x", fast, peer(&client))), libc::EISCONN);
    send_all(&client, b"y");
    assert_eq!(read_some(&server, 1), b"y");
    let (_guard, refusing) = pair.refusing();
    let told = errno(sendto(pair.tcp_a().0, b"x", fast, refusing));
    // The kernel's sysctl net.ipv4.tcp_fastopen decides.
    let possible = [libc::EOPNOTSUPP, libc::ECONNREFUSED];
    assert!(possible[..if pair.native { 2 } else { 1 }].contains(&told), "errno {told}");
}
