//! socket(2): what is made of which domain, type and protocol.

use ioth::berkeley::*;

use super::{Row, row, said};
use crate::fixture::*;

pub(super) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (kind, type_name) in TYPES {
        for (protocol, protocol_name) in PROTOCOLS {
            let open = move |pair: &Pair| said(pair.open(&pair.a, pair.domain(), kind, protocol));
            rows.push(row(format!("socket {type_name}, {protocol_name}"), open, ""));
        }
    }
    let other = |domain| move |pair: &Pair| said(pair.open(&pair.a, domain, libc::SOCK_STREAM, 0));
    rows.push(row("socket AF_UNSPEC", other(libc::AF_UNSPEC), ""));
    rows.push(row("socket of domain 99", other(99), ""));
    rows.push(row("socket of domain -1", other(-1), ""));
    rows.push(row(
        "socket with unknown flags",
        |pair| said(pair.open(&pair.a, pair.domain(), libc::SOCK_STREAM | 0x1000, 0)),
        "",
    ));
    let netlink =
        |kind, protocol| move |pair: &Pair| said(pair.open(&pair.a, libc::AF_NETLINK, kind, protocol));
    rows.push(row("socket AF_NETLINK, SOCK_RAW", netlink(libc::SOCK_RAW, libc::NETLINK_ROUTE), ""));
    rows.push(row("socket AF_NETLINK, SOCK_DGRAM", netlink(libc::SOCK_DGRAM, libc::NETLINK_ROUTE), ""));
    rows.push(row("socket AF_NETLINK, SOCK_STREAM", netlink(libc::SOCK_STREAM, libc::NETLINK_ROUTE), ""));
    rows.push(row("socket AF_NETLINK of protocol 33", netlink(libc::SOCK_RAW, 33), ""));
    let packet = |kind| move |pair: &Pair| said(pair.open(&pair.a, libc::AF_PACKET, kind, 0));
    rows.push(row("socket AF_PACKET, SOCK_RAW", packet(libc::SOCK_RAW), ""));
    rows.push(row("socket AF_PACKET, SOCK_DGRAM", packet(libc::SOCK_DGRAM), ""));
    rows.push(row("socket AF_PACKET, SOCK_STREAM", packet(libc::SOCK_STREAM), ""));
    rows.push(row("SOCK_CLOEXEC, SOCK_NONBLOCK", flags, ""));
    rows
}

const TYPES: [(i32, &str); 5] = [
    (libc::SOCK_STREAM, "SOCK_STREAM"),
    (libc::SOCK_DGRAM, "SOCK_DGRAM"),
    (libc::SOCK_RAW, "SOCK_RAW"),
    (libc::SOCK_SEQPACKET, "SOCK_SEQPACKET"),
    (9, "type 9"),
];

const PROTOCOLS: [(i32, &str); 10] = [
    (0, "0"),
    (libc::IPPROTO_TCP, "TCP"),
    (libc::IPPROTO_UDP, "UDP"),
    (libc::IPPROTO_UDPLITE, "UDPLITE"),
    (libc::IPPROTO_ICMP, "ICMP"),
    (libc::IPPROTO_ICMPV6, "ICMPV6"),
    (89, "protocol 89"),
    (libc::IPPROTO_RAW, "RAW"),
    (256, "protocol 256"),
    (-1, "protocol -1"),
];

fn flags(pair: &Pair) -> String {
    let flags = |kind| {
        let fd = pair.open(&pair.a, pair.domain(), libc::SOCK_STREAM | kind, 0).unwrap();
        let status = fcntl(fd.0, libc::F_GETFL, 0).unwrap() & libc::O_NONBLOCK;
        format!("{}{}", fcntl(fd.0, libc::F_GETFD, 0).unwrap(), i32::from(status != 0))
    };
    [0, libc::SOCK_CLOEXEC, libc::SOCK_NONBLOCK].map(flags).join(", ")
}
