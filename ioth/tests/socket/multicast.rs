//! Groups: who hears them, and what leaves (ip(7), RFC 3493 §5.2). On a wire, as the loopback interface has none.

use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ioth::berkeley::*;
use ioth::core::control;
use ioth::{Events, MsgFlags, RecvMsg, Stack};

use crate::fixture::*;

fn group(pair: &Pair) -> IpAddr {
    if pair.a_addr.is_ipv4() { "239.9.9.9".parse().unwrap() } else { "ff05::9:9".parse().unwrap() }
}

/// The interface of a node: what a datagram from the other one says of its arrival.
pub(crate) fn ifindex(pair: &Pair, stack: &Stack) -> u32 {
    let at_a = std::ptr::eq(stack, &pair.a);
    let ((to, addr), (from, _)) =
        if at_a { (pair.udp_a(), pair.udp_b()) } else { (pair.udp_b(), pair.udp_a()) };
    let (level, name, at) = match pair.domain() {
        libc::AF_INET => (libc::IPPROTO_IP, libc::IP_PKTINFO, 0),
        _ => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 16),
    };
    set_option(&to, level, name, 1).unwrap();
    sendto(from.0, b"x", NONE, addr).unwrap();
    let (mut data, mut room) = ([0; 4], [0; 100]);
    let mut slices = [IoSliceMut::new(&mut data)];
    let mut message = RecvMsg { control: &mut room, ..RecvMsg::new(&mut slices) };
    recvmsg(to.0, &mut message, NONE).unwrap();
    let filled = message.control_len;
    let info = control::messages(&room[..filled]).next().unwrap().unwrap();
    u32::from_ne_bytes(info.data[at..at + 4].try_into().unwrap())
}

/// A `struct ip_mreqn` or `ipv6_mreq`.
fn request(group: IpAddr, ifindex: u32) -> Vec<u8> {
    match group {
        IpAddr::V4(v4) => [&v4.octets()[..], &[0; 4], &ifindex.to_ne_bytes()].concat(),
        IpAddr::V6(v6) => [&v6.octets()[..], &ifindex.to_ne_bytes()].concat(),
    }
}

/// The numbers of a family's options: level, add, drop, IF, LOOP, TTL or HOPS, ALL.
fn names(pair: &Pair) -> (i32, [i32; 6]) {
    match pair.domain() {
        libc::AF_INET => (
            libc::IPPROTO_IP,
            [
                libc::IP_ADD_MEMBERSHIP,
                libc::IP_DROP_MEMBERSHIP,
                libc::IP_MULTICAST_IF,
                libc::IP_MULTICAST_LOOP,
                libc::IP_MULTICAST_TTL,
                libc::IP_MULTICAST_ALL,
            ],
        ),
        _ => (
            libc::IPPROTO_IPV6,
            [
                libc::IPV6_ADD_MEMBERSHIP,
                libc::IPV6_DROP_MEMBERSHIP,
                libc::IPV6_MULTICAST_IF,
                libc::IPV6_MULTICAST_LOOP,
                libc::IPV6_MULTICAST_HOPS,
                libc::IPV6_MULTICAST_ALL,
            ],
        ),
    }
}

pub(crate) fn join(pair: &Pair, fd: &Fd, group: IpAddr, ifindex: u32) -> std::io::Result<()> {
    let (level, [add, ..]) = names(pair);
    setsockopt(fd.0, level, add, &request(group, ifindex))
}

fn leave(pair: &Pair, fd: &Fd, group: IpAddr, ifindex: u32) -> std::io::Result<()> {
    let (level, [_, drop, ..]) = names(pair);
    setsockopt(fd.0, level, drop, &request(group, ifindex))
}

/// A sender on node a whose datagrams to groups leave by its link.
fn sender(pair: &Pair) -> Fd {
    let fd = pair.socket(&pair.a, libc::SOCK_DGRAM);
    let (level, [_, _, interface, ..]) = names(pair);
    match pair.a_addr {
        IpAddr::V4(v4) => setsockopt(fd.0, level, interface, &v4.octets()).unwrap(),
        IpAddr::V6(_) => set_option(&fd, level, interface, ifindex(pair, &pair.a) as i32).unwrap(),
    }
    fd
}

/// Waits until the link carries groups: Linux's IPv6 takes a moment once it is up.
fn ready(pair: &Pair) {
    let (a, (b, port)) = (sender(pair), listener(pair, &pair.b));
    let group: IpAddr =
        if pair.a_addr.is_ipv4() { "239.9.9.1".parse().unwrap() } else { "ff05::9:1".parse().unwrap() };
    join(pair, &b, group, ifindex(pair, &pair.b)).unwrap();
    receive_timeout(&b, Duration::from_millis(20));
    let deadline = Instant::now() + LONG;
    loop {
        sendto(a.0, b"?", NONE, SocketAddr::new(group, port)).unwrap();
        if read(b.0, &mut [0; 4]).is_ok() {
            return;
        }
        assert!(Instant::now() < deadline, "the link carries no groups");
    }
}

/// A socket on the wildcard address and a port of the stack's choice.
fn listener(pair: &Pair, stack: &Stack) -> (Fd, u16) {
    let (fd, addr) = bind_any(&pair.socket(stack, libc::SOCK_DGRAM), pair.wildcard());
    (fd, addr.port())
}

fn expect(fd: &Fd, data: &[u8]) {
    let mut buffer = [0; 64];
    let len = read(fd.0, &mut buffer).unwrap();
    assert_eq!(&buffer[..len], data);
}

fn nothing(fd: &Fd) {
    assert_eq!(errno(recv(fd.0, &mut [0; 4], MsgFlags::DONTWAIT)), libc::EAGAIN);
}

pub(crate) fn membership(pair: &Pair) {
    let index = ifindex(pair, &pair.b);
    let group = group(pair);
    let (fd, _) = pair.udp_b();
    join(pair, &fd, group, index).unwrap();
    assert_eq!(errno(join(pair, &fd, group, index)), libc::EADDRINUSE);
    // Another socket is another member.
    let (other, _) = pair.udp_b();
    join(pair, &other, group, index).unwrap();
    leave(pair, &fd, group, index).unwrap();
    assert_eq!(errno(leave(pair, &fd, group, index)), libc::EADDRNOTAVAIL);
    assert_eq!(errno(join(pair, &fd, pair.b_addr, index)), libc::EINVAL);
    assert_eq!(errno(join(pair, &fd, group, 99)), libc::ENODEV);
    let (level, [add, ..]) = names(pair);
    assert_eq!(errno(setsockopt(fd.0, level, add, &request(group, index)[..7])), libc::EINVAL);
    assert_eq!(errno(join(pair, &pair.tcp_b(), group, index)), libc::EPROTO);
    // One by the form that knows both families.
    let mut both = [0; 136];
    both[..4].copy_from_slice(&index.to_ne_bytes());
    let raw = ioth::SockAddr::from(SocketAddr::new(group, 0)).to_raw();
    both[8..8 + raw.len()].copy_from_slice(&raw);
    setsockopt(fd.0, level, libc::MCAST_JOIN_GROUP, &both).unwrap();
    assert_eq!(errno(join(pair, &fd, group, index)), libc::EADDRINUSE);
    setsockopt(fd.0, level, libc::MCAST_LEAVE_GROUP, &both).unwrap();
    assert_eq!(errno(setsockopt(fd.0, level, libc::MCAST_LEAVE_GROUP, &both)), libc::EADDRNOTAVAIL);
    assert_eq!(errno(setsockopt(fd.0, level, libc::MCAST_JOIN_GROUP, &both[..135])), libc::EINVAL);
}

/// Linux's igmp_max_memberships.
pub(crate) fn bounded(pair: &Pair) {
    if pair.a_addr.is_ipv6() {
        return;
    }
    let index = ifindex(pair, &pair.b);
    let (fd, _) = pair.udp_b();
    for host in 1..=20 {
        join(pair, &fd, IpAddr::from([239, 9, 8, host]), index).unwrap();
    }
    assert_eq!(errno(join(pair, &fd, IpAddr::from([239, 9, 8, 21]), index)), libc::ENOBUFS);
    leave(pair, &fd, IpAddr::from([239, 9, 8, 7]), index).unwrap();
    join(pair, &fd, IpAddr::from([239, 9, 8, 21]), index).unwrap();
}

pub(crate) fn delivery(pair: &Pair) {
    ready(pair);
    let a = sender(pair);
    let (b, port) = listener(pair, &pair.b);
    let to = SocketAddr::new(group(pair), port);
    let own = SocketAddr::new(pair.b_addr, port);
    // Nobody joined: only what is sent to the address comes.
    sendto(a.0, b"group", NONE, to).unwrap();
    sendto(a.0, b"own", NONE, own).unwrap();
    expect(&b, b"own");
    let index = ifindex(pair, &pair.b);
    join(pair, &b, to.ip(), index).unwrap();
    sendto(a.0, b"group", NONE, to).unwrap();
    let mut buffer = [0; 16];
    let (len, from) = recvfrom(b.0, &mut buffer, NONE).unwrap();
    assert_eq!((len, from.unwrap().as_ip().unwrap().ip()), (5, pair.a_addr));
    leave(pair, &b, to.ip(), index).unwrap();
    sendto(a.0, b"group", NONE, to).unwrap();
    sendto(a.0, b"own", NONE, own).unwrap();
    expect(&b, b"own");
}

/// Each socket has a copy. Who joined nothing hears what others joined, unless it does not want to.
pub(crate) fn everybody(pair: &Pair) {
    ready(pair);
    let a = sender(pair);
    let make = |port| {
        let fd = pair.socket(&pair.b, libc::SOCK_DGRAM);
        set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).unwrap();
        bind(fd.0, SocketAddr::new(pair.wildcard(), port)).unwrap();
        fd
    };
    let member = make(0);
    let port = name(&member).port();
    let (bystander, not_all, bound) = (make(port), make(port), pair.socket(&pair.b, libc::SOCK_DGRAM));
    let to = SocketAddr::new(group(pair), port);
    set_option(&bound, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).unwrap();
    bind(bound.0, to).unwrap();
    assert_eq!(name(&bound), to);
    let (level, [.., all]) = names(pair);
    set_option(&not_all, level, all, 0).unwrap();
    join(pair, &member, to.ip(), ifindex(pair, &pair.b)).unwrap();
    sendto(a.0, b"x", NONE, to).unwrap();
    for fd in [&member, &bystander, &bound] {
        expect(fd, b"x");
    }
    nothing(&not_all);
    // What is for the node is not for the group's own socket.
    drop((bystander, not_all));
    sendto(a.0, b"y", NONE, SocketAddr::new(pair.b_addr, port)).unwrap();
    expect(&member, b"y");
    nothing(&bound);
}

/// A member on the sender's own node.
pub(crate) fn looped_back(pair: &Pair) {
    ready(pair);
    let a = sender(pair);
    let (own, port) = listener(pair, &pair.a);
    let to = SocketAddr::new(group(pair), port);
    join(pair, &own, to.ip(), ifindex(pair, &pair.a)).unwrap();
    sendto(a.0, b"heard", NONE, to).unwrap();
    expect(&own, b"heard");
    let (level, [_, _, _, loops, ..]) = names(pair);
    set_option(&a, level, loops, 0).unwrap();
    sendto(a.0, b"not", NONE, to).unwrap();
    sendto(a.0, b"own", NONE, SocketAddr::new(pair.a_addr, port)).unwrap();
    expect(&own, b"own");
}

pub(crate) fn hops(pair: &Pair) {
    ready(pair);
    let a = sender(pair);
    let (b, port) = listener(pair, &pair.b);
    let to = SocketAddr::new(group(pair), port);
    join(pair, &b, to.ip(), ifindex(pair, &pair.b)).unwrap();
    let (level, [_, _, _, _, hops, _]) = names(pair);
    let receive = if pair.a_addr.is_ipv4() { libc::IP_RECVTTL } else { libc::IPV6_RECVHOPLIMIT };
    set_option(&b, level, receive, 1).unwrap();
    for (set, seen) in [(None, 1), (Some(7), 7), (Some(255), 255), (Some(-1), 1)] {
        if let Some(set) = set {
            set_option(&a, level, hops, set).unwrap();
        }
        sendto(a.0, b"x", NONE, to).unwrap();
        let (mut data, mut room) = ([0; 4], [0; 100]);
        let mut slices = [IoSliceMut::new(&mut data)];
        let mut message = RecvMsg { control: &mut room, ..RecvMsg::new(&mut slices) };
        recvmsg(b.0, &mut message, NONE).unwrap();
        let filled = message.control_len;
        let info = control::messages(&room[..filled]).next().unwrap().unwrap();
        assert_eq!(info.as_i32(), Some(seen));
    }
    // With none left it stays within the node; Linux sees to that only where the node listens itself.
    set_option(&a, level, hops, 0).unwrap();
    sendto(a.0, b"left", NONE, to).unwrap();
    expect(&b, b"left");
    let (own, _) = listener(pair, &pair.a);
    join(pair, &own, to.ip(), ifindex(pair, &pair.a)).unwrap();
    sendto(a.0, b"not", NONE, to).unwrap();
    sendto(a.0, b"own", NONE, SocketAddr::new(pair.b_addr, port)).unwrap();
    expect(&b, b"own");
}

/// Link-local groups need a link: a scope id, or IPV6_MULTICAST_IF.
pub(crate) fn link_local(pair: &Pair) {
    if pair.a_addr.is_ipv4() {
        return;
    }
    ready(pair);
    let a = pair.socket(&pair.a, libc::SOCK_DGRAM);
    let (b, port) = listener(pair, &pair.b);
    let group: std::net::Ipv6Addr = "ff02::9:9".parse().unwrap();
    let (from, to) = (ifindex(pair, &pair.a), ifindex(pair, &pair.b));
    join(pair, &b, group.into(), to).unwrap();
    sendto(a.0, b"x", NONE, std::net::SocketAddrV6::new(group, port, 0, from)).unwrap();
    let (_, source) = recvfrom(b.0, &mut [0; 4], NONE).unwrap();
    // RFC 6724 §5, rule 2: of the same scope.
    let Some(SocketAddr::V6(source)) = source.unwrap().as_ip() else { panic!("{source:?}") };
    assert!(source.ip().is_unicast_link_local());
    assert_eq!(source.scope_id(), to);
    // And back by what was heard.
    connect(b.0, SocketAddr::from(source)).unwrap();
    send(b.0, b"back", NONE).unwrap();
    expect(&a, b"back");
}

pub(crate) fn interface(pair: &Pair) {
    let fd = pair.socket(&pair.a, libc::SOCK_DGRAM);
    let (level, [_, _, interface, ..]) = names(pair);
    match pair.a_addr {
        IpAddr::V4(v4) => {
            let strange = setsockopt(fd.0, level, interface, &[192, 0, 2, 77]);
            assert_eq!(errno(strange), libc::EADDRNOTAVAIL);
            assert_eq!(errno(setsockopt(fd.0, level, interface, &[1, 2, 3])), libc::EINVAL);
            setsockopt(fd.0, level, interface, &v4.octets()).unwrap();
            let mut got = [0; 4];
            assert_eq!(getsockopt(fd.0, level, interface, &mut got).unwrap(), 4);
            assert_eq!(got, v4.octets());
            // By index, the address that is told is the one that was given: none.
            let index = ifindex(pair, &pair.a);
            setsockopt(fd.0, level, interface, &request(IpAddr::from([0; 4]), index)).unwrap();
            assert_eq!(getsockopt(fd.0, level, interface, &mut got).unwrap(), 4);
            assert_eq!(got, [0; 4]);
        }
        IpAddr::V6(_) => {
            assert_eq!(errno(set_option(&fd, level, interface, 99)), libc::ENODEV);
            let index = ifindex(pair, &pair.a) as i32;
            set_option(&fd, level, interface, index).unwrap();
            assert_eq!(option(&fd, level, interface).unwrap(), index);
            set_option(&fd, level, interface, 0).unwrap();
            assert_eq!(option(&fd, level, interface).unwrap(), 0);
        }
    }
}

/// A broadcast is heard by everybody on the link, and by the sender's node.
pub(crate) fn broadcast(pair: &Pair) {
    if pair.a_addr.is_ipv6() {
        return;
    }
    let a = pair.socket(&pair.a, libc::SOCK_DGRAM);
    set_option(&a, libc::SOL_SOCKET, libc::SO_BROADCAST, 1).unwrap();
    let (b, port) = listener(pair, &pair.b);
    let subnet = SocketAddr::from(([10, 9, 0, 255], port));
    sendto(a.0, b"x", NONE, subnet).unwrap();
    expect(&b, b"x");
    let (own, port) = listener(pair, &pair.a);
    sendto(a.0, b"y", NONE, SocketAddr::from(([10, 9, 0, 255], port))).unwrap();
    wait(&own, Events::IN);
    expect(&own, b"y");
}
