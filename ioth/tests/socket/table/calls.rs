//! Calls in circumstances that a state of the socket or an argument makes.

use std::net::SocketAddr;

use ioth::MsgFlags;
use ioth::berkeley::*;

use super::{Row, row, said, said_number};
use crate::fixture::*;

pub(super) fn rows() -> Vec<Row> {
    vec![
        row("accept on a fresh stream", |pair| said(accept(pair.tcp_a().0)), ""),
        row("accept on a datagram socket", |pair| said(accept(pair.udp_a().0.0)), ""),
        row(
            "bind to an address that is not ours",
            |pair| said(bind(pair.tcp_a().0, (stranger(pair), 0))),
            "",
        ),
        row(
            "bind a bound socket",
            |pair| {
                let (fd, _) = bind_any(&pair.tcp_a(), pair.a_addr);
                said(bind(fd.0, SocketAddr::new(pair.a_addr, 0)))
            },
            "",
        ),
        row(
            "connect to port 0 (stream)",
            |pair| said(connect(pair.tcp_a().0, SocketAddr::new(pair.b_addr, 0))),
            "",
        ),
        row(
            "connect of a listening socket",
            |pair| {
                let (fd, _) = pair.listener();
                said(connect(fd.0, SocketAddr::new(pair.b_addr, 1)))
            },
            "",
        ),
        row("getpeername unconnected", |pair| said(getpeername(pair.tcp_a().0)), ""),
        row("listen on a datagram socket", |pair| said(listen(pair.udp_a().0.0, 1)), ""),
        row("listen on a connected stream", |pair| said(listen(pair.connected().0.0, 1)), ""),
        row("recv on a fresh stream", |pair| said(recv(pair.tcp_a().0, &mut [0; 4], NONE)), ""),
        row("send on a fresh stream", |pair| said(send(pair.tcp_a().0, b"x", NONE)), ""),
        row("send on an unconnected datagram socket", |pair| said(send(pair.udp_a().0.0, b"x", NONE)), ""),
        row("sendto port 0", |pair| said(sendto(pair.udp_a().0.0, b"x", NONE, (pair.b_addr, 0))), ""),
        row("shutdown of a fresh stream", |pair| said(shutdown(pair.tcp_a().0, libc::SHUT_RDWR)), ""),
        row(
            "accept4 with unknown flags",
            |pair| said(accept4(pair.listener().0.0, libc::SOCK_CLOEXEC | 1)),
            "",
        ),
        row(
            "dup3 to the same number",
            |pair| {
                let fd = pair.tcp_a();
                said(dup3(fd.0, fd.0, 0))
            },
            "",
        ),
        row(
            "dup3 with unknown flags",
            |pair| {
                let (fd, other) = (pair.tcp_a(), pair.tcp_a());
                said(dup3(fd.0, other.0, libc::O_NONBLOCK))
            },
            "",
        ),
        row(
            "recv with MSG_OOB, of nothing urgent",
            |pair| {
                let (fresh, (connected, _other)) = (pair.tcp_a(), pair.connected());
                let urgent = |fd: &Fd| said(recv(fd.0, &mut [0; 4], MsgFlags::OOB));
                format!(
                    "fresh stream: {}<br>listening: {}<br>connected stream: {}<br>datagram: {}",
                    urgent(&fresh),
                    urgent(&pair.listener().0),
                    urgent(&connected),
                    said(recv(pair.udp_a().0.0, &mut [0; 4], MsgFlags::OOB | MsgFlags::DONTWAIT)),
                )
            },
            "",
        ),
        row(
            "sendmmsg, recvmmsg of no messages",
            |pair| {
                let fd = pair.tcp_a();
                let (sent, received) = (sendmmsg(fd.0, &mut [], NONE), recvmmsg(fd.0, &mut [], NONE, None));
                format!("{}, {}", said_number(sent), said_number(received))
            },
            "",
        ),
        row("shutdown with another number", |pair| said(shutdown(pair.tcp_a().0, 3)), ""),
    ]
}

/// An address of the nodes' subnet that nobody has.
pub(super) fn stranger(pair: &Pair) -> std::net::IpAddr {
    match pair.domain() {
        libc::AF_INET => [10, 9, 0, 77].into(),
        _ => [0xfd09, 0, 0, 0, 0, 0, 0, 0x77].into(),
    }
}
