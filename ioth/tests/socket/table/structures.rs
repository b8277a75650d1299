//! Options that are not an int: structures, names, and ints with bounds that sysctls decide about.

use std::net::IpAddr;

use ioth::berkeley::*;

use super::options::{BOTH, On, on_kinds, open};
use super::{Row, row, said, said_number};
use crate::fixture::*;
use crate::ioctl::device;

/// linux/icmp.h and linux/icmpv6.h; the libc crate does not have them.
const ICMP_FILTER: i32 = 1;

pub(super) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let time_outs = [
        (libc::SO_RCVTIMEO, "SO_RCVTIMEO"),
        (libc::SO_SNDTIMEO, "SO_SNDTIMEO"),
        (66, "SO_RCVTIMEO_NEW"),
        (67, "SO_SNDTIMEO_NEW"),
    ];
    for (name, label) in time_outs {
        rows.push(row(label, move |pair| on_kinds(pair, BOTH, |fd| time_out(fd, name)), ""));
    }
    for (name, label) in [(libc::SO_RCVBUF, "SO_RCVBUF"), (libc::SO_SNDBUF, "SO_SNDBUF")] {
        rows.push(row(label, move |pair| on_kinds(pair, BOTH, |fd| buffer(fd, name)), ""));
    }
    rows.push(row("SO_LINGER", |pair| on_kinds(pair, BOTH, linger), ""));
    rows.push(row("SO_BINDTODEVICE", bind_to_device, ""));
    rows.push(row("SO_COOKIE", |pair| on_kinds(pair, BOTH, cookie), ""));
    rows.push(row("SO_PEERNAME", peer_name, ""));
    rows.push(row("TCP_INFO", tcp_info, ""));
    rows.push(row("TCP_CONGESTION", congestion, ""));
    rows.push(row("ICMP_FILTER, ICMP6_FILTER", icmp_filter, ""));
    rows.push(row(
        "IP_ADD_MEMBERSHIP, IPV6_ADD_MEMBERSHIP",
        |pair| on_kinds(pair, BOTH, |fd| membership(pair, fd)),
        "",
    ));
    rows.push(row("IPV6_PKTINFO", |pair| on_kinds(pair, BOTH, |fd| packet_info(pair, fd)), ""));
    rows
}

/// What came of each, such as "1 s: ok, nothing: EINVAL".
fn list<'a>(outcomes: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let outcomes = outcomes.into_iter().map(|(what, outcome)| format!("{what}: {outcome}"));
    outcomes.collect::<Vec<_>>().join(", ")
}

fn time_out(fd: &Fd, name: i32) -> String {
    let value = |seconds: i64, micros: i64| [seconds.to_ne_bytes(), micros.to_ne_bytes()].concat();
    let read = || {
        let mut value = [0; 16];
        getsockopt(fd.0, libc::SOL_SOCKET, name, &mut value).unwrap();
        let word = |at: usize| i64::from_ne_bytes(value[at..at + 8].try_into().unwrap());
        format!("{},{}", word(0), word(8))
    };
    let set = |value: &[u8]| match setsockopt(fd.0, libc::SOL_SOCKET, name, value) {
        Ok(()) => read(),
        error => said(error),
    };
    let fresh = read();
    let outcomes = list([
        ("1,0", set(&value(1, 0))),
        ("0,1000000", set(&value(0, 1_000_000))),
        ("0,-1", set(&value(0, -1))),
        ("-1,0", set(&value(-1, 0))),
        ("-1,-1", set(&value(-1, -1))),
        ("2^62,0", set(&value(1 << 62, 0))),
        ("0,0", set(&value(0, 0))),
        ("15 bytes", set(&value(1, 0)[..15])),
        ("20 bytes", set(&[&value(2, 0)[..], &[0; 4]].concat())),
    ]);
    let short = said_number(getsockopt(fd.0, libc::SOL_SOCKET, name, &mut [0; 8]));
    format!("{fresh}; set {outcomes}; get of 8 bytes: {short}")
}

fn buffer(fd: &Fd, name: i32) -> String {
    let set = |value| match set_option(fd, libc::SOL_SOCKET, name, value) {
        Ok(()) => said_number(option(fd, libc::SOL_SOCKET, name)),
        error => said(error),
    };
    let greatest = set(i32::MAX);
    let negative = |value| {
        let outcome = set(value);
        if outcome == greatest { "the greatest".to_owned() } else { outcome }
    };
    list([
        ("set 0", set(0)),
        ("1", set(1)),
        ("5000", set(5000)),
        ("-1", negative(-1)),
        ("a byte", said(setsockopt(fd.0, libc::SOL_SOCKET, name, &[1]))),
    ])
}

fn linger(fd: &Fd) -> String {
    let read = || {
        let mut value = [0; 8];
        getsockopt(fd.0, libc::SOL_SOCKET, libc::SO_LINGER, &mut value).unwrap();
        let word = |at: usize| i32::from_ne_bytes(value[at..at + 4].try_into().unwrap());
        format!("{},{}", word(0), word(4))
    };
    let fresh = read();
    let set = |on: i32, seconds: i32| {
        let value = [on.to_ne_bytes(), seconds.to_ne_bytes()].concat();
        match setsockopt(fd.0, libc::SOL_SOCKET, libc::SO_LINGER, &value) {
            Ok(()) => read(),
            error => said(error),
        }
    };
    let outcomes = list([
        ("1,5", set(1, 5)),
        ("2,0", set(2, 0)),
        ("0,7", set(0, 7)),
        ("7 bytes", said(setsockopt(fd.0, libc::SOL_SOCKET, libc::SO_LINGER, &[1; 7]))),
    ]);
    let short = said_number(getsockopt(fd.0, libc::SOL_SOCKET, libc::SO_LINGER, &mut [0; 4]));
    format!("{fresh}; set {outcomes}; get of 4 bytes: {short}")
}

fn bind_to_device(pair: &Pair) -> String {
    let (_, device, _) = device(pair);
    on_kinds(pair, BOTH, |fd| {
        let set = |name: &[u8]| said(setsockopt(fd.0, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name));
        let get = |room: usize| {
            let mut value = vec![0; room];
            match getsockopt(fd.0, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, &mut value) {
                Ok(0) => "none".to_owned(),
                Ok(length) if value[..length] == [device.as_bytes(), &[0]].concat() => "its name".to_owned(),
                Ok(length) => format!("{:?}", &value[..length]),
                error => said(error),
            }
        };
        list([
            ("get", get(16)),
            ("set to none there is", set(b"none0")),
            ("to a device", set(device.as_bytes())),
            ("get", get(16)),
            ("get of 15 bytes", get(15)),
            ("set to an empty name", set(b"\0")),
            ("get", get(16)),
        ])
    })
}

fn cookie(fd: &Fd) -> String {
    let get = |room: usize| {
        let mut value = vec![0; room];
        getsockopt(fd.0, libc::SOL_SOCKET, libc::SO_COOKIE, &mut value).map(|length| value[..length].to_vec())
    };
    let [first, again] = [(); 2].map(|()| get(16).unwrap());
    list([
        ("get", format!("{} bytes", first.len())),
        ("again", if first == again { "the same".into() } else { "others".into() }),
        ("get of 7 bytes", said(get(7))),
        ("set", said(setsockopt(fd.0, libc::SOL_SOCKET, libc::SO_COOKIE, &[1; 8]))),
    ])
}

fn peer_name(pair: &Pair) -> String {
    let get = |fd: &Fd, room: usize| {
        let mut value = vec![0; room];
        getsockopt(fd.0, libc::SOL_SOCKET, libc::SO_PEERNAME, &mut value)
            .map(|length| value[..length].to_vec())
    };
    let (client, server) = pair.connected();
    let name = getpeername(client.0).unwrap().to_raw().to_vec();
    let told = if get(&client, name.len()).unwrap() == name { "getpeername's" } else { "another" };
    list([
        ("fresh", said(get(&pair.tcp_a(), 128))),
        ("connected", told.to_owned()),
        ("get of 2 bytes", said_number(get(&server, 2).map(|name| name.len()))),
        ("get of 128 bytes", said(get(&server, 128))),
        ("listening", said(get(&pair.listener().0, 16))),
        ("datagram", said(get(&open(pair, On::Datagram), 16))),
        ("set", said(setsockopt(client.0, libc::SOL_SOCKET, libc::SO_PEERNAME, &[0; 16]))),
    ])
}

fn tcp_info(pair: &Pair) -> String {
    let state = |fd: &Fd| {
        let mut info = [0; 104];
        let length = getsockopt(fd.0, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info);
        if length.as_ref().is_ok_and(|length| *length == info.len()) {
            format!("state {}", info[0])
        } else {
            said_number(length)
        }
    };
    let short = |room: usize| {
        let fd = pair.tcp_a();
        said_number(getsockopt(fd.0, libc::IPPROTO_TCP, libc::TCP_INFO, &mut vec![0; room]))
    };
    let (connected, _server) = pair.connected();
    list([
        ("fresh", state(&pair.tcp_a())),
        ("listening", state(&pair.listener().0)),
        ("connected", state(&connected)),
        ("get of 8 bytes", short(8)),
        ("of 1", short(1)),
        ("of none", short(0)),
        ("set", said(setsockopt(connected.0, libc::IPPROTO_TCP, libc::TCP_INFO, &[0; 104]))),
        ("datagram", state(&open(pair, On::Datagram))),
    ])
}

fn congestion(pair: &Pair) -> String {
    let fd = pair.tcp_a();
    let get = |room: usize| {
        let mut name = vec![0; room];
        match getsockopt(fd.0, libc::IPPROTO_TCP, libc::TCP_CONGESTION, &mut name) {
            Ok(length) => format!("{length} bytes"),
            error => said(error),
        }
    };
    let set = |name: &[u8]| said(setsockopt(fd.0, libc::IPPROTO_TCP, libc::TCP_CONGESTION, name));
    list([
        ("get of 32", get(32)),
        ("of 3", get(3)),
        ("set to one there is not", set(b"none")),
        ("to an empty name", set(b"\0")),
        ("to nothing", set(b"")),
        ("to reno", set(b"reno")),
    ])
}

fn icmp_filter(pair: &Pair) -> String {
    let (level, protocol, len) = match pair.domain() {
        libc::AF_INET => (libc::SOL_RAW, libc::IPPROTO_ICMP, 4),
        _ => (libc::IPPROTO_ICMPV6, libc::IPPROTO_ICMPV6, 32),
    };
    let probe = |fd: &Fd| {
        let get = |room: usize| {
            let mut value = vec![0; room];
            match getsockopt(fd.0, level, ICMP_FILTER, &mut value) {
                Ok(length) => format!("{length} bytes, the first {:#x}", value[0]),
                error => said(error),
            }
        };
        let set = |value: &[u8]| said(setsockopt(fd.0, level, ICMP_FILTER, value));
        list([
            ("get", get(64)),
            ("set", set(&vec![0x55; len])),
            ("get", get(64)),
            ("set a byte", set(&[7])),
            ("get a byte", get(1)),
        ])
    };
    let of_icmp = pair.open(&pair.a, pair.domain(), libc::SOCK_RAW, protocol).unwrap();
    let (of_icmp, other) = (probe(&of_icmp), probe(&open(pair, On::Raw)));
    format!("ICMP: {of_icmp}<br>another protocol: {other}<br>stream: {}", probe(&open(pair, On::Stream)))
}

fn membership(pair: &Pair, fd: &Fd) -> String {
    let (_, _, index) = device(pair);
    let (level, add, drop, group) = match pair.domain() {
        libc::AF_INET => {
            (libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, libc::IP_DROP_MEMBERSHIP, [239, 9, 9, 8].into())
        }
        _ => (
            libc::IPPROTO_IPV6,
            libc::IPV6_ADD_MEMBERSHIP,
            libc::IPV6_DROP_MEMBERSHIP,
            "ff05::9:8".parse::<IpAddr>().unwrap(),
        ),
    };
    let request = |group: IpAddr, index: u32| match group {
        IpAddr::V4(group) => [&group.octets()[..], &[0; 4], &index.to_ne_bytes()].concat(),
        IpAddr::V6(group) => [&group.octets()[..], &index.to_ne_bytes()].concat(),
    };
    let ask = |name, value: &[u8]| said(setsockopt(fd.0, level, name, value));
    let own = request(group, index);
    list([
        ("join", ask(add, &own)),
        ("join again", ask(add, &own)),
        ("leave", ask(drop, &own)),
        ("leave again", ask(drop, &own)),
        ("join what is no group", ask(add, &request(pair.b_addr, index))),
        ("leave what is no group", ask(drop, &request(pair.b_addr, index))),
        ("on no interface", ask(add, &request(group, 99))),
        ("7 bytes", ask(add, &own[..7])),
    ])
}

fn packet_info(pair: &Pair, fd: &Fd) -> String {
    let IpAddr::V6(own) = pair.a_addr else { return String::new() };
    let (_, _, index) = device(pair);
    let set = |addr: std::net::Ipv6Addr, index: u32| {
        let value = [&addr.octets()[..], &index.to_ne_bytes()].concat();
        said(setsockopt(fd.0, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &value))
    };
    let none = std::net::Ipv6Addr::UNSPECIFIED;
    let stranger = "fd09::77".parse().unwrap();
    list([
        ("get", said_number(getsockopt(fd.0, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &mut [0; 20]))),
        ("set to an own address", set(own, index)),
        ("to another's", set(stranger, index)),
        ("no interface", set(own, 99)),
        ("nothing", set(none, 0)),
        ("19 bytes", said(setsockopt(fd.0, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &[0; 19]))),
    ])
}
