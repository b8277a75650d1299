//! Control messages: what arrives with a datagram or a stream's data, and what is said for one datagram.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ioth::berkeley::*;
use ioth::core::control;
use ioth::{MsgFlags, RecvMsg, SendMsg, SockAddr};

use crate::fixture::*;

/// SO_TIMESTAMP_NEW and SO_TIMESTAMPNS_NEW, which libc's SO_TIMESTAMP is not.
const TIMESTAMP_NEW: i32 = 63;
const TIMESTAMPNS_NEW: i32 = 64;

/// The names of a family's options and messages.
struct Names {
    level: i32,
    receive_info: i32,
    info: i32,
    receive_hops: i32,
    hops: i32,
    receive_class: i32,
    class: i32,
}

fn names(pair: &Pair) -> Names {
    match pair.domain() {
        libc::AF_INET => Names {
            level: libc::IPPROTO_IP,
            receive_info: libc::IP_PKTINFO,
            info: libc::IP_PKTINFO,
            receive_hops: libc::IP_RECVTTL,
            hops: libc::IP_TTL,
            receive_class: libc::IP_RECVTOS,
            class: libc::IP_TOS,
        },
        _ => Names {
            level: libc::IPPROTO_IPV6,
            receive_info: libc::IPV6_RECVPKTINFO,
            info: libc::IPV6_PKTINFO,
            receive_hops: libc::IPV6_RECVHOPLIMIT,
            hops: libc::IPV6_HOPLIMIT,
            receive_class: libc::IPV6_RECVTCLASS,
            class: libc::IPV6_TCLASS,
        },
    }
}

/// A control message: level, type, data.
type Message = (i32, i32, Vec<u8>);

fn messages(control: &[u8]) -> Vec<Message> {
    let plain = |message: control::Message<'_>| (message.level, message.kind, message.data.to_vec());
    control::messages(control).map(|message| plain(message.unwrap())).collect()
}

/// Receives a datagram with this much room for control messages.
fn receive(fd: &Fd, room: usize) -> (Vec<Message>, usize, MsgFlags) {
    let (mut data, mut control) = ([0; 100], vec![0; room]);
    let mut slices = [IoSliceMut::new(&mut data)];
    let mut message = RecvMsg { control: &mut control, ..RecvMsg::new(&mut slices) };
    recvmsg(fd.0, &mut message, NONE).unwrap();
    let (len, flags) = (message.control_len, message.flags);
    (messages(&control[..len]), len, flags)
}

fn say(fd: &Fd, to: SocketAddr, said: &[Message]) -> std::io::Result<usize> {
    let mut control = Vec::new();
    for (level, kind, data) in said {
        control::push(&mut control, *level, *kind, data);
    }
    send_raw(fd, to, &control)
}

fn send_raw(fd: &Fd, to: SocketAddr, control: &[u8]) -> std::io::Result<usize> {
    let addr = SockAddr::from(to);
    sendmsg(fd.0, &SendMsg { data: &[IoSlice::new(b"x")], addr: Some(&addr), control }, NONE)
}

fn int(number: i32) -> Vec<u8> {
    number.to_ne_bytes().to_vec()
}

/// A `struct in_pktinfo` or `in6_pktinfo` that names a source and an interface.
fn info(source: IpAddr, ifindex: u32) -> Vec<u8> {
    match source {
        IpAddr::V4(v4) => [&ifindex.to_ne_bytes()[..], &v4.octets(), &[0; 4]].concat(),
        IpAddr::V6(v6) => [&v6.octets()[..], &ifindex.to_ne_bytes()].concat(),
    }
}

/// The interface that a datagram came by.
fn arrival(pair: &Pair, fd: &Fd) -> u32 {
    let names = names(pair);
    let (got, _, _) = receive(fd, 200);
    let (_, _, data) =
        got.iter().find(|message| (message.0, message.1) == (names.level, names.info)).unwrap();
    let at = if pair.a_addr.is_ipv4() { 0 } else { 16 };
    u32::from_ne_bytes(data[at..at + 4].try_into().unwrap())
}

pub(crate) fn nothing_unasked(pair: &Pair) {
    let (a, _) = pair.udp_a();
    let (b, b_addr) = pair.udp_b();
    sendto(a.0, b"x", NONE, b_addr).unwrap();
    assert_eq!(receive(&b, 200), (Vec::new(), 0, NONE));
    let names = names(pair);
    for name in [names.receive_info, names.receive_hops, names.receive_class] {
        assert_eq!(option(&b, names.level, name).unwrap(), 0);
        set_option(&b, names.level, name, 7).unwrap();
        assert_eq!(option(&b, names.level, name).unwrap(), 1);
        set_option(&b, names.level, name, 0).unwrap();
    }
    sendto(a.0, b"x", NONE, b_addr).unwrap();
    assert_eq!(receive(&b, 200).0, Vec::new());
}

pub(crate) fn header_fields(pair: &Pair) {
    let (a, _) = pair.udp_a();
    let (b, b_addr) = pair.udp_b();
    let names = names(pair);
    for name in [names.receive_info, names.receive_hops, names.receive_class] {
        set_option(&b, names.level, name, 1).unwrap();
    }
    let (unicast_hops, class) = match pair.domain() {
        libc::AF_INET => (libc::IP_TTL, libc::IP_TOS),
        _ => (libc::IPV6_UNICAST_HOPS, libc::IPV6_TCLASS),
    };
    set_option(&a, names.level, unicast_hops, 33).unwrap();
    set_option(&a, names.level, class, 0x48).unwrap();
    sendto(a.0, b"x", NONE, b_addr).unwrap();
    let (got, _, flags) = receive(&b, 200);
    assert_eq!(flags, NONE);
    let (kinds, data): (Vec<_>, Vec<_>) =
        got.into_iter().map(|(level, kind, data)| ((level, kind), data)).unzip();
    assert_eq!(kinds, [(names.level, names.info), (names.level, names.hops), (names.level, names.class)]);
    assert_eq!(data[1], int(33));
    // IPv4's TOS comes as a byte, IPv6's traffic class as an int.
    assert_eq!(data[2], if pair.a_addr.is_ipv4() { vec![0x48] } else { int(0x48) });
    let destination = match pair.b_addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    match pair.domain() {
        // The address to answer from, and the one in the header.
        libc::AF_INET => assert_eq!((&data[0][4..8], &data[0][8..]), (&destination[..], &destination[..])),
        _ => assert_eq!(data[0][..16], destination),
    }
}

pub(crate) fn time_stamps(pair: &Pair) {
    let (a, _) = pair.udp_a();
    let (b, b_addr) = pair.udp_b();
    let stamps = [libc::SO_TIMESTAMP, libc::SO_TIMESTAMPNS, TIMESTAMP_NEW, TIMESTAMPNS_NEW];
    for name in stamps {
        assert_eq!(option(&b, libc::SOL_SOCKET, name).unwrap(), 0);
    }
    for name in stamps {
        set_option(&b, libc::SOL_SOCKET, name, 1).unwrap();
        let said: Vec<_> = stamps.map(|name| option(&b, libc::SOL_SOCKET, name).unwrap()).to_vec();
        let expected = match name {
            libc::SO_TIMESTAMP => [1, 0, 0, 0],
            libc::SO_TIMESTAMPNS => [0, 1, 0, 0],
            TIMESTAMP_NEW => [0, 0, 1, 0],
            _ => [0, 0, 1, 1],
        };
        assert_eq!(said, expected, "{name}");
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        sendto(a.0, b"x", NONE, b_addr).unwrap();
        let (got, _, _) = receive(&b, 200);
        let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert_eq!((got[0].1, got[0].2.len()), (name, 16));
        let stamp = stamp_of(&got);
        // The stamp is cut to its unit.
        assert!(
            stamp + Duration::from_millis(1) > before && stamp <= after,
            "{before:?} {stamp:?} {after:?}"
        );
    }
    set_option(&b, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 0).unwrap();
    sendto(a.0, b"x", NONE, b_addr).unwrap();
    assert_eq!(receive(&b, 200).0, Vec::new());
}

pub(crate) fn truncated(pair: &Pair) {
    let (a, _) = pair.udp_a();
    let (b, b_addr) = pair.udp_b();
    let names = names(pair);
    for name in [names.receive_hops, names.receive_class] {
        set_option(&b, names.level, name, 1).unwrap();
    }
    let whole = control::space(4);
    let class = control::HEADER + if pair.a_addr.is_ipv4() { 1 } else { 4 };
    // Room, what is filled of it, how many messages, and whether the last one is cut.
    for (room, filled, count, cut) in [
        (0, 0, 0, true),
        (control::HEADER - 1, 0, 0, true),
        (control::HEADER, control::HEADER, 1, true),
        (control::HEADER + 2, control::HEADER + 2, 1, true),
        (whole - 1, whole - 1, 1, true),
        (whole, whole, 1, true),
        (whole + control::HEADER, whole + control::HEADER, 2, true),
        (whole + class, whole + class, 2, false),
        (2 * whole, 2 * whole, 2, false),
        (200, 2 * whole, 2, false),
    ] {
        sendto(a.0, b"x", NONE, b_addr).unwrap();
        let (got, len, flags) = receive(&b, room);
        assert_eq!((got.len(), len), (count, filled), "{room}");
        assert_eq!(flags, if cut { MsgFlags::CTRUNC } else { NONE }, "{room}");
    }
}

pub(crate) fn said_for_one_datagram(pair: &Pair) {
    let (a, _) = pair.udp_a();
    let (b, b_addr) = pair.udp_b();
    let names = names(pair);
    for name in [names.receive_hops, names.receive_class] {
        set_option(&b, names.level, name, 1).unwrap();
    }
    let said = [(names.level, names.hops, int(9)), (names.level, names.class, int(0x20))];
    assert_eq!(say(&a, b_addr, &said).unwrap(), 1);
    let (got, _, _) = receive(&b, 200);
    assert_eq!(got[0].2, int(9));
    assert_eq!(got[1].2[0], 0x20);
    // The next one is as the socket has it.
    sendto(a.0, b"x", NONE, b_addr).unwrap();
    let (got, _, _) = receive(&b, 200);
    assert_eq!(got[0].2, int(64));
    assert_eq!(got[1].2[0], 0);
}

pub(crate) fn source_and_interface(pair: &Pair) {
    let names = names(pair);
    let a = pair.socket(&pair.a, libc::SOCK_DGRAM);
    let (b, b_addr) = pair.udp_b();
    set_option(&b, names.level, names.receive_info, 1).unwrap();
    say(&a, b_addr, &[(names.level, names.info, info(pair.a_addr, 0))]).unwrap();
    let ifindex = arrival(pair, &b);
    // Both nodes have one link.
    say(&a, b_addr, &[(names.level, names.info, info(pair.wildcard(), ifindex))]).unwrap();
    assert_eq!(arrival(pair, &b), ifindex);
    let gone = errno(say(&a, b_addr, &[(names.level, names.info, info(pair.wildcard(), 99))]));
    assert_eq!(gone, libc::ENODEV);
    // Not one of ours.
    let strange = match pair.domain() {
        libc::AF_INET => ("192.0.2.77".parse().unwrap(), libc::ENETUNREACH),
        _ => ("2001:db8::77".parse().unwrap(), libc::EINVAL),
    };
    let refused = errno(say(&a, b_addr, &[(names.level, names.info, info(strange.0, 0))]));
    assert_eq!(refused, strange.1);
}

pub(crate) fn bad_values(pair: &Pair) {
    let (a, _) = pair.udp_a();
    let (_b, b_addr) = pair.udp_b();
    let names = names(pair);
    let v4 = pair.a_addr.is_ipv4();
    let of_family = |kind, data| (names.level, kind, data);
    for (message, refused) in [
        (of_family(names.hops, int(256)), true),
        (of_family(names.hops, int(255)), false),
        (of_family(names.hops, int(0)), v4),
        (of_family(names.hops, int(-1)), v4),
        (of_family(names.hops, int(-2)), true),
        (of_family(names.hops, vec![1]), true),
        (of_family(names.hops, vec![0; 8]), true),
        (of_family(names.class, int(256)), true),
        (of_family(names.class, int(255)), false),
        (of_family(names.class, int(-1)), v4),
        (of_family(names.class, vec![1]), !v4),
        (of_family(names.info, vec![0; 11]), true),
        (of_family(9999, int(1)), true),
        ((libc::SOL_SOCKET, 9999, int(1)), true),
        ((libc::SOL_SOCKET, libc::SCM_RIGHTS, int(1)), false),
        ((libc::IPPROTO_UDP, 9999, int(1)), true),
        // The other family's level, and a level that nobody knows.
        ((libc::IPPROTO_IP + libc::IPPROTO_IPV6 - names.level, 9999, int(1)), false),
        ((9999, 9999, int(1)), false),
    ] {
        let said = say(&a, b_addr, std::slice::from_ref(&message));
        match refused {
            true => assert_eq!(errno(said), libc::EINVAL, "{message:?}"),
            false => assert_eq!(said.unwrap(), 1, "{message:?}"),
        }
    }
}

pub(crate) fn bad_lengths(pair: &Pair) {
    let (a, _) = pair.udp_a();
    let (_b, b_addr) = pair.udp_b();
    let names = names(pair);
    let mut control = Vec::new();
    control::push(&mut control, names.level, names.hops, &int(5));
    assert_eq!(send_raw(&a, b_addr, &control).unwrap(), 1);
    // Less than a header behind the last message is nothing; a header that lies is an error.
    control.resize(control.len() + control::HEADER - 1, 0xff);
    assert_eq!(send_raw(&a, b_addr, &control).unwrap(), 1);
    control.push(0xff);
    assert_eq!(errno(send_raw(&a, b_addr, &control)), libc::EINVAL);
    control.truncate(control::space(4));
    for len in [0, control::HEADER - 1, control::space(4) + 1] {
        control[..size_of::<usize>()].copy_from_slice(&len.to_ne_bytes());
        assert_eq!(errno(send_raw(&a, b_addr, &control)), libc::EINVAL, "{len}");
    }
}

/// An IPv6 socket that hears IPv4: both levels speak.
pub(crate) fn dual_stack(pair: &Pair) {
    let IpAddr::V4(b_addr) = pair.b_addr else { return };
    let (a, _) = pair.udp_a();
    let b = Fd(msocket(Some(&pair.b), libc::AF_INET6, libc::SOCK_DGRAM, 0).unwrap());
    bind(b.0, SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 0))).unwrap();
    let to = SocketAddr::from((b_addr, name(&b).port()));
    for name in [libc::IPV6_RECVPKTINFO, libc::IPV6_RECVHOPLIMIT, libc::IPV6_RECVTCLASS] {
        set_option(&b, libc::IPPROTO_IPV6, name, 1).unwrap();
    }
    sendto(a.0, b"x", NONE, to).unwrap();
    let (got, _, _) = receive(&b, 300);
    let kinds = |got: &[Message]| got.iter().map(|message| (message.0, message.1)).collect::<Vec<_>>();
    let v6_info = (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO);
    assert_eq!(kinds(&got), [v6_info]);
    assert_eq!(got[0].2[..16], b_addr.to_ipv6_mapped().octets());
    for name in [libc::IP_PKTINFO, libc::IP_RECVTTL, libc::IP_RECVTOS] {
        set_option(&b, libc::IPPROTO_IP, name, 1).unwrap();
    }
    sendto(a.0, b"x", NONE, to).unwrap();
    let ip = |kind| (libc::IPPROTO_IP, kind);
    assert_eq!(
        kinds(&receive(&b, 300).0),
        [v6_info, ip(libc::IP_PKTINFO), ip(libc::IP_TTL), ip(libc::IP_TOS)]
    );
    // And it says which IPv4 address to send from, in either way.
    let back = name_of(&a);
    let mapped = SocketAddr::from((back.0.to_ipv6_mapped(), back.1));
    for (source, result) in
        [(b_addr.to_ipv6_mapped(), Ok(1)), (std::net::Ipv6Addr::LOCALHOST, Err(libc::EINVAL))]
    {
        let said = say(&b, mapped, &[(v6_info.0, v6_info.1, info(source.into(), 0))]);
        assert_eq!(said.map_err(|error| error.raw_os_error().unwrap()), result);
    }
    assert_eq!(say(&b, mapped, &[(libc::IPPROTO_IP, libc::IP_PKTINFO, info(b_addr.into(), 0))]).unwrap(), 1);
}

fn name_of(fd: &Fd) -> (std::net::Ipv4Addr, u16) {
    match name(fd) {
        SocketAddr::V4(addr) => (*addr.ip(), addr.port()),
        SocketAddr::V6(addr) => panic!("{addr}"),
    }
}

/// Of a stream's messages those of SOL_SOCKET alone are looked at, and all for their length.
pub(crate) fn with_streams(pair: &Pair) {
    let (client, server) = pair.connected();
    let say = |control: &[u8]| {
        sendmsg(client.0, &SendMsg { data: &[IoSlice::new(b"x")], addr: None, control }, NONE)
    };
    let message = |level, kind| {
        let mut control = Vec::new();
        control::push(&mut control, level, kind, &int(0));
        control
    };
    assert_eq!(errno(say(&message(libc::SOL_SOCKET, 99))), libc::EINVAL);
    for passed_over in [message(libc::IPPROTO_IP, libc::IP_TTL), message(libc::IPPROTO_TCP, 99)] {
        assert_eq!(say(&passed_over).unwrap(), 1);
        let mut malformed = passed_over;
        malformed[0] = 200;
        assert_eq!(errno(say(&malformed)), libc::EINVAL);
        malformed[0] = 3;
        assert_eq!(errno(say(&malformed)), libc::EINVAL);
    }
    assert_eq!(say(&[0; 7]).unwrap(), 1);
    assert_eq!(read_some(&server, 3), b"xxx");
    // A stream that cannot send is found first.
    shutdown(client.0, libc::SHUT_WR).unwrap();
    assert_eq!(errno(say(&message(libc::SOL_SOCKET, 99))), libc::EPIPE);
}

/// A time stamp among control messages.
fn stamp_of(messages: &[Message]) -> Duration {
    let [(libc::SOL_SOCKET, kind, data)] = messages else { panic!("{messages:?}") };
    let word = |at: usize| u64::from_ne_bytes(data[at..at + 8].try_into().unwrap());
    let unit = if [libc::SO_TIMESTAMP, TIMESTAMP_NEW].contains(kind) { 1000 } else { 1 };
    Duration::from_secs(word(0)) + Duration::from_nanos(word(8) * unit)
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// Receives from a stream: the data's length, control messages, their length and the flags.
fn receive_some(fd: &Fd, len: usize, room: usize, flags: MsgFlags) -> (usize, Vec<Message>, usize, MsgFlags) {
    let (mut data, mut control) = (vec![0; len], vec![0; room]);
    let mut slices = [IoSliceMut::new(&mut data)];
    let mut message = RecvMsg { control: &mut control, ..RecvMsg::new(&mut slices) };
    let received = recvmsg(fd.0, &mut message, flags).unwrap();
    let (len, flags) = (message.control_len, message.flags);
    (received, messages(&control[..len]), len, flags)
}

/// The kernel begins to stamp a while after somebody has asked for it: waits for that.
fn stamps_begin(client: &Fd, server: &Fd) {
    until(|| {
        send_all(client, b"x");
        !receive_some(server, 1, 200, NONE).1.is_empty()
    });
}

pub(crate) fn time_stamps_of_streams(pair: &Pair) {
    let (client, server) = pair.connected();
    set_option(&client, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1).unwrap();
    for name in [libc::SO_TIMESTAMP, libc::SO_TIMESTAMPNS, TIMESTAMP_NEW, TIMESTAMPNS_NEW] {
        set_option(&server, libc::SOL_SOCKET, name, 1).unwrap();
        stamps_begin(&client, &server);
        let times: Vec<_> = (1..=3)
            .map(|count| {
                let before = since_1970();
                send_all(&client, b"four");
                until(|| unread(&server) == 4 * count);
                (before, since_1970())
            })
            .collect();
        // Linux stamps what it has put together with the time of the last segment in it: some or all of what waits.
        let check =
            |(received, messages, _, flags): (usize, Vec<Message>, usize, MsgFlags), len, from: usize| {
                assert_eq!((received, flags), (len, MsgFlags::empty()));
                assert_eq!((messages[0].1, messages[0].2.len()), (name, 16));
                let (stamp, before, after) = (stamp_of(&messages), times[from].0, times[2].1);
                // It is cut to its unit.
                assert!(
                    stamp + Duration::from_millis(1) > before && stamp <= after,
                    "{before:?} {stamp:?} {after:?}"
                );
                stamp
            };
        let peeked = check(receive_some(&server, 1, 200, MsgFlags::PEEK), 1, 0);
        for len in [1, 0] {
            let read = check(receive_some(&server, len, 200, NONE), len, 0);
            assert!(read.abs_diff(peeked) < Duration::from_millis(1), "{peeked:?} {read:?}");
        }
        check(receive_some(&server, 5, 200, MsgFlags::TRUNC), 5, 1);
        check(receive_some(&server, 6, 200, MsgFlags::WAITALL), 6, 2);
    }
    send_all(&client, b"more");
    until(|| unread(&server) == 4);
    let (received, messages, _, flags) = receive_some(&server, 2, 8, NONE);
    assert_eq!((received, messages, flags), (2, Vec::new(), MsgFlags::CTRUNC));
    set_option(&server, libc::SOL_SOCKET, libc::SO_TIMESTAMP, 0).unwrap();
    assert_eq!(receive_some(&server, 9, 200, NONE).1, Vec::new());
    set_option(&server, libc::SOL_SOCKET, libc::SO_TIMESTAMP, 1).unwrap();
    drop(client);
    let (received, messages, ..) = receive_some(&server, 9, 200, NONE);
    assert_eq!((received, messages), (0, Vec::new()), "the end has no time");
}

pub(crate) fn time_stamps_are_inherited(pair: &Pair) {
    let (listener, addr) = pair.listener();
    set_option(&listener, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1).unwrap();
    let client = pair.tcp_a();
    connect(client.0, addr).unwrap();
    let (server, _) = accept(listener.0).unwrap();
    let server = Fd(server);
    assert_eq!(option(&server, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS).unwrap(), 1);
    stamps_begin(&client, &server);
}

pub(crate) fn time_of_the_last_datagram(pair: &Pair) {
    const SIOCGSTAMP: u64 = 0x8906;
    const SIOCGSTAMPNS: u64 = 0x8907;
    let ask = |fd: &Fd, request: u64| {
        let mut value = [0; 16];
        ioctl(fd.0, request, &mut value)?;
        let word = |at: usize| u64::from_ne_bytes(value[at..at + 8].try_into().unwrap());
        let unit = if request & 1 == 0 { 1000 } else { 1 };
        Ok(Duration::from_secs(word(0)) + Duration::from_nanos(word(8) * unit))
    };
    let ((a, _), (b, b_addr)) = (pair.udp_a(), pair.udp_b());
    // With 64-bit seconds on every machine: the same here.
    for request in [SIOCGSTAMP, SIOCGSTAMPNS, 0x8010_8906, 0x8010_8907] {
        assert_eq!(errno(ask(&b, request)), libc::ENOENT);
        assert_eq!(errno(ask(&pair.tcp_a(), request)), libc::ENOENT, "streams have none");
    }
    let before = since_1970();
    for flags in [MsgFlags::PEEK, NONE] {
        sendto(a.0, b"x", NONE, b_addr).unwrap();
        assert_eq!(recv(b.0, &mut [0; 4], flags).unwrap(), 1);
        let [micros, nanos] = [SIOCGSTAMP, SIOCGSTAMPNS].map(|request| ask(&b, request).unwrap());
        assert!(nanos >= before && nanos <= since_1970(), "{before:?} {nanos:?}");
        assert!(micros.abs_diff(nanos) < Duration::from_millis(1), "{micros:?} {nanos:?}");
    }
    let (client, server) = pair.connected();
    send_all(&client, b"x");
    assert_eq!(recv(server.0, &mut [0; 4], NONE).unwrap(), 1);
    assert_eq!(errno(ask(&server, SIOCGSTAMP)), libc::ENOENT);
}
