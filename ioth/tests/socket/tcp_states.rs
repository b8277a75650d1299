//! The ways of a stream from state to state that are less trodden.

use std::io::IoSliceMut;
use std::net::SocketAddr;

use ioth::berkeley::*;
use ioth::{Events, MsgFlags, SockAddr};

use crate::fixture::*;

const OVER: Events = Events::IN.union(Events::OUT).union(Events::RDHUP).union(Events::HUP);

fn disconnect(fd: &Fd) {
    connect(fd.0, SockAddr::Unspecified).unwrap();
}

/// RFC 9293 §3.5: simultaneous open, with the one peer that calls at the same moment for certain.
pub(crate) fn connected_to_itself(pair: &Pair) {
    let (fd, addr) = bind_any(&pair.tcp_a(), pair.a_addr);
    connect(fd.0, addr).unwrap();
    assert_eq!((name(&fd), peer(&fd)), (addr, addr));
    send_all(&fd, b"echo");
    assert_eq!(read_some(&fd, 4), b"echo");
    shutdown(fd.0, libc::SHUT_WR).unwrap();
    assert_eq!(read(fd.0, &mut [0]).unwrap(), 0);
}

pub(crate) fn disconnected(pair: &Pair) {
    let (listener, addr) = pair.listener();
    let client = pair.tcp_a();
    disconnect(&client);
    assert_eq!(so_error(&client), 0);
    connect(client.0, addr).unwrap();
    let server = Fd(accept(listener.0).unwrap().0);
    disconnect(&client);
    // It is a reset, on both sides.
    assert_eq!(so_error(&client), libc::ECONNRESET);
    assert_eq!(errno(getpeername(client.0)), libc::ENOTCONN);
    assert_eq!(errno(read(client.0, &mut [0])), libc::ENOTCONN);
    assert_eq!(name(&client).ip(), pair.wildcard());
    wait_exactly(&server, OVER | Events::ERR);
    assert_eq!(errno(read(server.0, &mut [0])), libc::ECONNRESET);
    // And then it can be used for another connection, or as a listener.
    connect(client.0, addr).unwrap();
    let server = Fd(accept(listener.0).unwrap().0);
    send_all(&client, b"again");
    assert_eq!(read_some(&server, 5), b"again");
    disconnect(&client);
    listen(client.0, 1).unwrap();
    assert_ne!(name(&client).port(), 0);
    disconnect(&client);
    assert_eq!(errno(accept(client.0)), libc::EINVAL);
}

pub(crate) fn disconnected_listener(pair: &Pair) {
    let (listener, _guard, addr) = pair.guarded_listener();
    let client = pair.tcp_a();
    connect(client.0, addr).unwrap();
    wait(&listener, Events::IN);
    disconnect(&listener);
    assert_eq!(errno(read(client.0, &mut [0])), libc::ECONNRESET);
    assert_eq!(errno(connect(pair.tcp_a().0, addr)), libc::ECONNREFUSED);
}

pub(crate) fn bound_port_survives_disconnecting(pair: &Pair) {
    let (listener, addr) = pair.listener();
    let (free, own) = bind_any(&pair.tcp_a(), pair.a_addr);
    drop(free);
    let client = pair.tcp_a();
    bind(client.0, own).unwrap();
    connect(client.0, addr).unwrap();
    let server = Fd(accept(listener.0).unwrap().0);
    assert_eq!(peer(&server), own);
    disconnect(&client);
    assert_eq!(name(&client), own);
    assert_eq!(errno(bind(client.0, own)), libc::EINVAL);
    assert_eq!(errno(bind(pair.tcp_a().0, own)), libc::EADDRINUSE);
    connect(client.0, addr).unwrap();
    assert_eq!(name(&client), own);
}

pub(crate) fn outcome_is_told_once(pair: &Pair) {
    let (listener, addr) = pair.listener();
    let client = pair.socket(&pair.a, libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
    assert_eq!(errno(connect(client.0, addr)), libc::EINPROGRESS);
    wait_exactly(&client, Events::OUT);
    connect(client.0, addr).unwrap();
    assert_eq!(errno(connect(client.0, addr)), libc::EISCONN);
    let (_closed, refusing) = pair.refusing();
    for read_first in [false, true] {
        let client = pair.socket(&pair.a, libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
        assert_eq!(errno(connect(client.0, refusing)), libc::EINPROGRESS);
        wait(&client, Events::HUP);
        let told = if read_first {
            assert_eq!(so_error(&client), libc::ECONNREFUSED);
            libc::ECONNABORTED
        } else {
            libc::ECONNREFUSED
        };
        assert_eq!(errno(connect(client.0, addr)), told);
        assert_eq!(errno(connect(client.0, addr)), libc::EINPROGRESS);
        until(
            || !matches!(connect(client.0, addr), Err(error) if error.raw_os_error() == Some(libc::EALREADY)),
        );
        assert_eq!(errno(connect(client.0, addr)), libc::EISCONN);
        assert_eq!(peer(&client), addr);
    }
    drop(listener);
}

pub(crate) fn shut_for_reading_still_takes_data(pair: &Pair) {
    let (client, server) = pair.connected();
    shutdown(server.0, libc::SHUT_RD).unwrap();
    let shut = Events::IN | Events::OUT | Events::RDHUP;
    assert_eq!(events(&server), shut);
    assert_eq!(read(server.0, &mut [0]).unwrap(), 0);
    send_all(&client, b"abc");
    until(|| recv(server.0, &mut [0; 4], MsgFlags::PEEK).unwrap() == 3);
    assert_eq!(read_some(&server, 9), b"abc");
    assert_eq!(events(&client), Events::OUT);
    // The peer is told nothing of it.
    send_all(&server, b"def");
    assert_eq!(read_some(&client, 3), b"def");
    shutdown(server.0, libc::SHUT_WR).unwrap();
    assert_eq!(events(&server), OVER);
    wait_exactly(&client, shut);
}

pub(crate) fn data_for_both_ways_shut_is_a_reset(pair: &Pair) {
    let (client, server) = pair.connected();
    shutdown(server.0, libc::SHUT_RDWR).unwrap();
    wait_exactly(&client, Events::IN | Events::OUT | Events::RDHUP);
    assert_eq!(write(client.0, b"x").unwrap(), 1);
    wait_exactly(&client, OVER | Events::ERR);
    assert_eq!(errno(write(client.0, b"x")), libc::EPIPE);
    assert_eq!(so_error(&server), libc::ECONNRESET);
}

pub(crate) fn the_end_comes_before_the_error(pair: &Pair) {
    let (client, server) = pair.connected();
    send_all(&server, b"bye");
    drop(server);
    wait(&client, Events::RDHUP);
    assert_eq!(write(client.0, b"x").unwrap(), 1);
    wait_exactly(&client, OVER | Events::ERR);
    assert_eq!(read_some(&client, 9), b"bye");
    assert_eq!(read(client.0, &mut [0]).unwrap(), 0);
    // The error is still there: the peer had ended its side already.
    assert_eq!(so_error(&client), libc::EPIPE);
    assert_eq!(errno(write(client.0, b"x")), libc::EPIPE);
}

pub(crate) fn truncation_discards(pair: &Pair) {
    let (client, server) = pair.connected();
    send_all(&client, b"abcdef");
    let mut buffer = *b"....";
    recv(server.0, &mut [0; 6], MsgFlags::PEEK | MsgFlags::WAITALL).unwrap();
    assert_eq!(recv(server.0, &mut buffer, MsgFlags::TRUNC | MsgFlags::PEEK).unwrap(), 4);
    assert_eq!(recv(server.0, &mut buffer, MsgFlags::TRUNC).unwrap(), 4);
    assert_eq!(&buffer, b"....");
    assert_eq!(read_some(&server, 2), b"ef");
    assert_eq!(errno(recv(server.0, &mut buffer, MsgFlags::TRUNC | MsgFlags::DONTWAIT)), libc::EAGAIN);
}

pub(crate) fn peek_waits_for_all(pair: &Pair) {
    let (client, server) = pair.connected();
    send_all(&client, b"abc");
    wait(&server, Events::IN);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut buffer = [0; 6];
            let len = recv(server.0, &mut buffer, MsgFlags::PEEK | MsgFlags::WAITALL).unwrap();
            (len, buffer)
        });
        send_all(&client, b"def");
        assert_eq!(reader.join().unwrap(), (6, *b"abcdef"));
    });
    wait_exactly(&server, Events::IN | Events::OUT);
    let (mut first, mut second) = ([0; 2], [0; 9]);
    let mut parts = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
    assert_eq!(readv(server.0, &mut parts).unwrap(), 6);
    assert_eq!((&first, &second[..4]), (b"ab", &b"cdef"[..]));
    // The end of the stream ends the waiting.
    send_all(&client, b"z");
    shutdown(client.0, libc::SHUT_WR).unwrap();
    let all = MsgFlags::PEEK | MsgFlags::WAITALL;
    assert_eq!(recv(server.0, &mut [0; 4], all).unwrap(), 1);
}

pub(crate) fn a_destination_is_ignored(pair: &Pair) {
    let (client, server) = pair.connected();
    let elsewhere = SocketAddr::new(pair.b_addr, 9);
    assert_eq!(sendto(client.0, b"x", NONE, elsewhere).unwrap(), 1);
    assert_eq!(read_some(&server, 1), b"x");
    assert_eq!(errno(sendto(pair.tcp_a().0, b"x", NONE, elsewhere)), libc::EPIPE);
}

pub(crate) fn connections_keep_their_port(pair: &Pair) {
    for reuse in [0, 1] {
        let listener = pair.tcp_b();
        set_option(&listener, libc::SOL_SOCKET, libc::SO_REUSEADDR, reuse).unwrap();
        let (bound, addr) = bind_any(&listener, pair.b_addr);
        drop(listener);
        listen(bound.0, 1).unwrap();
        let client = pair.tcp_a();
        connect(client.0, addr).unwrap();
        let server = Fd(accept(bound.0).unwrap().0);
        drop(bound);
        let again = |reuse| {
            let fd = pair.tcp_b();
            set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, reuse).unwrap();
            bind(fd.0, addr)
        };
        // Established, then in TIME-WAIT. Both have to agree to share.
        for closed in [false, true] {
            assert_eq!(errno(again(0)), libc::EADDRINUSE, "closed: {closed}");
            match reuse {
                0 => assert_eq!(errno(again(1)), libc::EADDRINUSE, "closed: {closed}"),
                _ => again(1).unwrap(),
            }
            if !closed {
                shutdown(server.0, libc::SHUT_WR).unwrap();
                assert_eq!(read(client.0, &mut [0]).unwrap(), 0);
                shutdown(client.0, libc::SHUT_WR).unwrap();
                wait(&server, Events::HUP);
            }
        }
    }
}

pub(crate) fn a_reset_frees_the_port(pair: &Pair) {
    let (listener, addr) = pair.listener();
    let client = pair.tcp_a();
    connect(client.0, addr).unwrap();
    let server = Fd(accept(listener.0).unwrap().0);
    drop(listener);
    let linger = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
    setsockopt(server.0, libc::SOL_SOCKET, libc::SO_LINGER, &linger).unwrap();
    drop(server);
    wait(&client, Events::HUP);
    bind(pair.tcp_b().0, addr).unwrap();
}
