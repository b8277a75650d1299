//! Stream sockets.

use std::net::SocketAddr;

use ioth::Events;
use ioth::berkeley::*;

use super::{Call, SIOCOUTQNSD, State, cross, request, subject};
use crate::fixture::*;
use crate::table::calls::stranger;
use crate::table::{Row, errno_name, said, said_number};

const STATES: &[(&str, State)] = &[
    ("a fresh stream", |pair| subject(pair.tcp_a(), [])),
    ("a bound stream", |pair| subject(bind_any(&pair.tcp_a(), pair.a_addr).0, [])),
    ("a listener", |pair| {
        let (fd, _) = bind_any(&pair.tcp_a(), pair.a_addr);
        listen(fd.0, 1).unwrap();
        subject(fd, [])
    }),
    ("a connecting stream", |pair| {
        let fd = pair.tcp_a();
        nonblocking(&fd, true);
        assert_eq!(errno(connect(fd.0, (stranger(pair), 9))), libc::EINPROGRESS);
        subject(fd, [])
    }),
    ("a stream that has connected", |pair| {
        let (listener, addr) = pair.listener();
        let fd = pair.tcp_a();
        nonblocking(&fd, true);
        assert_eq!(errno(connect(fd.0, addr)), libc::EINPROGRESS);
        wait(&fd, Events::OUT);
        subject(fd, [listener])
    }),
    ("a connected stream", |pair| {
        let (client, server) = pair.connected();
        subject(client, [server])
    }),
    ("a stream with data", |pair| {
        let (client, server) = pair.connected();
        send_all(&server, b"data");
        wait(&client, Events::IN);
        subject(client, [server])
    }),
    ("a stream shut for reading", |pair| {
        let (client, server) = pair.connected();
        shutdown(client.0, libc::SHUT_RD).unwrap();
        subject(client, [server])
    }),
    ("a stream shut for writing", |pair| {
        let (client, server) = pair.connected();
        shutdown(client.0, libc::SHUT_WR).unwrap();
        wait(&server, Events::RDHUP);
        subject(client, [server])
    }),
    ("a stream whose peer shut writing", |pair| {
        let (client, server) = pair.connected();
        shutdown(server.0, libc::SHUT_WR).unwrap();
        wait(&client, Events::RDHUP);
        subject(client, [server])
    }),
    ("a stream that both shut", |pair| {
        let (client, server) = pair.connected();
        shutdown(server.0, libc::SHUT_WR).unwrap();
        wait(&client, Events::RDHUP);
        shutdown(client.0, libc::SHUT_WR).unwrap();
        wait(&client, Events::HUP);
        subject(client, [server])
    }),
    ("a refused stream", |pair| subject(refused(pair), [])),
    ("a refused stream whose error was read", |pair| {
        let fd = refused(pair);
        assert_eq!(so_error(&fd), libc::ECONNREFUSED);
        subject(fd, [])
    }),
    ("a reset stream", |pair| subject(reset(pair), [])),
    ("a reset stream whose error was read", |pair| {
        let fd = reset(pair);
        assert_eq!(so_error(&fd), libc::ECONNRESET);
        subject(fd, [])
    }),
];

const CALLS: &[(&str, Call)] = &[
    ("bind", |pair, fd| said(bind(fd.0, SocketAddr::new(pair.a_addr, 0)))),
    ("connect", |pair, fd| {
        let (_listener, addr) = pair.listener();
        said(connect(fd.0, addr))
    }),
    ("listen", |_, fd| said(listen(fd.0, 1))),
    ("accept", |_, fd| said(accept(fd.0))),
    ("send", |_, fd| said_number(send(fd.0, b"four", NONE))),
    ("send of nothing", |_, fd| said_number(send(fd.0, b"", NONE))),
    ("recv", |_, fd| said_number(recv(fd.0, &mut [0; 8], NONE))),
    ("recv into nothing", |_, fd| said_number(recv(fd.0, &mut [], NONE))),
    ("recv, then recv", |_, fd| {
        said_number(recv(fd.0, &mut [0; 8], NONE)) + ", " + &said_number(recv(fd.0, &mut [0; 8], NONE))
    }),
    ("send, then send", |_, fd| {
        said_number(send(fd.0, b"four", NONE)) + ", " + &said_number(send(fd.0, b"four", NONE))
    }),
    ("getpeername", |_, fd| said(getpeername(fd.0))),
    ("SO_ERROR", |_, fd| errno_name(so_error(fd)) + ", " + &errno_name(so_error(fd))),
    ("FIONREAD", |_, fd| said_number(request(fd, libc::FIONREAD as _))),
    ("SIOCOUTQ", |_, fd| said_number(request(fd, libc::TIOCOUTQ as _))),
    ("SIOCOUTQNSD", |_, fd| said_number(request(fd, SIOCOUTQNSD))),
    ("shutdown SHUT_RD", |_, fd| said(shutdown(fd.0, libc::SHUT_RD))),
    ("shutdown SHUT_WR", |_, fd| said(shutdown(fd.0, libc::SHUT_WR))),
    ("shutdown SHUT_RDWR, again", |_, fd| {
        said(shutdown(fd.0, libc::SHUT_RDWR)) + ", " + &said(shutdown(fd.0, libc::SHUT_RDWR))
    }),
    ("shutdown SHUT_RD, recv", |_, fd| {
        said(shutdown(fd.0, libc::SHUT_RD)) + ", " + &said_number(recv(fd.0, &mut [0; 8], NONE))
    }),
    ("shutdown SHUT_WR, send", |_, fd| {
        said(shutdown(fd.0, libc::SHUT_WR)) + ", " + &said_number(send(fd.0, b"four", NONE))
    }),
    ("poll", |_, fd| format!("{:?}", events(fd))),
];

pub(in crate::table) fn rows() -> Vec<Row> {
    let mut rows = cross(STATES, CALLS, remark);
    // Our FIN counts until it is acknowledged, which takes its time.
    rows.retain(|row| {
        !row.name.starts_with("SIOCOUTQ") || !row.name.ends_with(": a stream shut for writing")
    });
    rows
}

/// Why smoltcp differs here.
fn remark(call: &str, _: &str) -> &'static str {
    if call == "poll" { "a signal fd: see \"Poll bits\"" } else { "" }
}

fn refused(pair: &Pair) -> Fd {
    let (_guard, addr) = pair.refusing();
    let fd = pair.tcp_a();
    nonblocking(&fd, true);
    assert_eq!(errno(connect(fd.0, addr)), libc::EINPROGRESS);
    wait(&fd, Events::HUP);
    fd
}

fn reset(pair: &Pair) -> Fd {
    let (client, server) = pair.connected();
    let on_at_once = [1_i32.to_ne_bytes(), 0_i32.to_ne_bytes()].concat();
    setsockopt(server.0, libc::SOL_SOCKET, libc::SO_LINGER, &on_at_once).unwrap();
    drop(server);
    wait(&client, Events::HUP);
    client
}
