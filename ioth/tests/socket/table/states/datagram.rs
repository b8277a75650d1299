//! Datagram sockets.

use std::net::SocketAddr;

use ioth::berkeley::*;
use ioth::{Events, SockAddr};

use super::{Call, SIOCOUTQNSD, State, Subject, cross, request, subject};
use crate::fixture::*;
use crate::table::{Row, errno_name, said, said_number};

const STATES: &[(&str, State)] = &[
    ("a fresh datagram socket", |pair| subject(pair.socket(&pair.a, libc::SOCK_DGRAM), [])),
    ("a bound datagram socket", |pair| subject(pair.udp_a().0, [])),
    ("a bound one with a datagram", |pair| {
        let ((fd, addr), (other, _)) = (pair.udp_a(), pair.udp_b());
        sendto(other.0, b"data", NONE, addr).unwrap();
        wait(&fd, Events::IN);
        subject(fd, [other])
    }),
    ("a connected datagram socket", connected),
    ("a connected one with an empty datagram", |pair| {
        let subject = connected(pair);
        let from = name(&subject.fd);
        assert_eq!(sendto(subject._others[0].0, b"", NONE, from).unwrap(), 0);
        wait(&subject.fd, Events::IN);
        subject
    }),
    ("a connected one shut for reading", |pair| shut(pair, libc::SHUT_RD)),
    ("a connected one shut for writing", |pair| shut(pair, libc::SHUT_WR)),
    ("a connected one shut for both", |pair| shut(pair, libc::SHUT_RDWR)),
    ("a dissolved datagram socket", |pair| {
        let subject = connected(pair);
        connect(subject.fd.0, SockAddr::Unspecified).unwrap();
        subject
    }),
    ("a refused datagram socket", |pair| subject(refused(pair), [])),
    ("a refused one whose error was read", |pair| {
        let fd = refused(pair);
        assert_eq!(so_error(&fd), libc::ECONNREFUSED);
        subject(fd, [])
    }),
];

const CALLS: &[(&str, Call)] = &[
    ("bind", |pair, fd| said(bind(fd.0, SocketAddr::new(pair.a_addr, 0)))),
    ("connect", |pair, fd| said(connect(fd.0, pair.udp_b().1))),
    ("dissolve", |_, fd| said(connect(fd.0, SockAddr::Unspecified))),
    ("listen", |_, fd| said(listen(fd.0, 1))),
    ("accept", |_, fd| said(accept(fd.0))),
    ("send", |_, fd| said_number(send(fd.0, b"four", NONE))),
    ("send of nothing", |_, fd| said_number(send(fd.0, b"", NONE))),
    ("sendto", |pair, fd| {
        let (_other, addr) = pair.udp_b();
        said_number(sendto(fd.0, b"four", NONE, addr))
    }),
    ("recv", |_, fd| said_number(recv(fd.0, &mut [0; 8], NONE))),
    ("recv of 2 bytes", |_, fd| said_number(recv(fd.0, &mut [0; 2], NONE))),
    ("recv into nothing, recv", |_, fd| {
        said_number(recv(fd.0, &mut [], NONE)) + ", " + &said_number(recv(fd.0, &mut [0; 8], NONE))
    }),
    ("local port", |_, fd| if name(fd).port() == 0 { "none".into() } else { "one".into() }),
    ("local address", |pair, fd| match name(fd).ip() {
        ip if ip == pair.a_addr => "a's".into(),
        ip if ip.is_unspecified() => "any".into(),
        ip => ip.to_string(),
    }),
    ("getpeername", |_, fd| said(getpeername(fd.0))),
    ("SO_ERROR", |_, fd| errno_name(so_error(fd)) + ", " + &errno_name(so_error(fd))),
    ("FIONREAD", |_, fd| said_number(request(fd, libc::FIONREAD as _))),
    ("SIOCOUTQ", |_, fd| said_number(request(fd, libc::TIOCOUTQ as _))),
    ("SIOCOUTQNSD", |_, fd| said_number(request(fd, SIOCOUTQNSD))),
    ("shutdown SHUT_RD, recv", |_, fd| {
        said(shutdown(fd.0, libc::SHUT_RD)) + ", " + &said_number(recv(fd.0, &mut [0; 8], NONE))
    }),
    ("shutdown SHUT_WR, send", |_, fd| {
        said(shutdown(fd.0, libc::SHUT_WR)) + ", " + &said_number(send(fd.0, b"four", NONE))
    }),
    ("poll", |_, fd| format!("{:?}", events(fd))),
];

pub(in crate::table) fn rows() -> Vec<Row> {
    cross(STATES, CALLS, remark)
}

/// Why a signal fd, or smoltcp, differs here.
fn remark(call: &str, _state: &str) -> &'static str {
    match call {
        "poll" => "a signal fd: see \"Poll bits\"",
        _ => "",
    }
}

fn connected(pair: &Pair) -> Subject {
    let (other, addr) = pair.udp_b();
    let fd = pair.socket(&pair.a, libc::SOCK_DGRAM);
    connect(fd.0, addr).unwrap();
    subject(fd, [other])
}

fn shut(pair: &Pair, how: i32) -> Subject {
    let subject = connected(pair);
    shutdown(subject.fd.0, how).unwrap();
    subject
}

fn refused(pair: &Pair) -> Fd {
    let fd = pair.socket(&pair.a, libc::SOCK_DGRAM);
    let (other, addr) = pair.udp_b();
    connect(fd.0, addr).unwrap();
    drop(other);
    send(fd.0, b"x", NONE).unwrap();
    wait_any(&fd, Events::ERR | Events::IN);
    fd
}
