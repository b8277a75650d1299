//! What options of IPPROTO_IP and IPPROTO_IPV6 do, on a link with an MTU of 1500 bytes.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ioth::berkeley::*;

use crate::fixture::*;

/// Length of the headers of IP and UDP together.
fn headers(pair: &Pair) -> usize {
    if pair.a_addr.is_ipv4() { 28 } else { 48 }
}

/// Level, MTU, MTU_DISCOVER.
fn names(pair: &Pair) -> (i32, i32, i32) {
    match pair.domain() {
        libc::AF_INET => (libc::IPPROTO_IP, libc::IP_MTU, libc::IP_MTU_DISCOVER),
        _ => (libc::IPPROTO_IPV6, libc::IPV6_MTU, libc::IPV6_MTU_DISCOVER),
    }
}

/// Sends bytes that can be told apart, and expects them at the other end.
fn passes(from: &Fd, to: &Fd, addr: SocketAddr, len: usize) {
    let data: Vec<u8> = (0..len).map(|i| (i / 7) as u8).collect();
    assert_eq!(sendto(from.0, &data, NONE, addr).unwrap(), len);
    let mut got = vec![0; len + 1];
    assert_eq!(read(to.0, &mut got).unwrap(), len);
    assert!(got[..len] == data, "{len} bytes are others");
}

pub(crate) fn path_mtu(pair: &Pair) {
    let (a, _) = pair.udp_a();
    let (_b, b_addr) = pair.udp_b();
    let (level, mtu, _) = names(pair);
    assert_eq!(errno(option(&a, level, mtu)), libc::ENOTCONN);
    connect(a.0, b_addr).unwrap();
    assert_eq!(option(&a, level, mtu).unwrap(), 1500);
    let (client, _server) = pair.connected();
    assert_eq!(option(&client, level, mtu).unwrap(), 1500);
    assert_eq!(errno(option(&pair.tcp_a(), level, mtu)), libc::ENOTCONN);
}

/// What is longer than the MTU travels in pieces.
pub(crate) fn long_datagrams(pair: &Pair) {
    let (a, a_addr) = pair.udp_a();
    let (b, b_addr) = pair.udp_b();
    let whole = 1500 - headers(pair);
    let most = if pair.a_addr.is_ipv4() { 65_507 } else { 65_527 };
    for len in [whole, whole + 1, 2 * whole, 4000, 20_000, most] {
        passes(&a, &b, b_addr, len);
    }
    assert_eq!(errno(sendto(a.0, &vec![0; most + 1], NONE, b_addr)), libc::EMSGSIZE);
    passes(&b, &a, a_addr, 9000);
}

pub(crate) fn discovery(pair: &Pair) {
    let (a, _) = pair.udp_a();
    let (b, b_addr) = pair.udp_b();
    let (level, _, discover) = names(pair);
    let whole = 1500 - headers(pair);
    for (mode, fragments) in [(0, true), (1, true), (2, false), (3, false), (4, false), (5, true)] {
        set_option(&a, level, discover, mode).unwrap();
        passes(&a, &b, b_addr, whole);
        match fragments {
            true => passes(&a, &b, b_addr, whole + 1),
            false => {
                assert_eq!(errno(sendto(a.0, &vec![0; whole + 1], NONE, b_addr)), libc::EMSGSIZE, "{mode}");
            }
        }
    }
}

pub(crate) fn dont_fragment(pair: &Pair) {
    if pair.a_addr.is_ipv4() {
        return;
    }
    let (a, _) = pair.udp_a();
    let (b, b_addr) = pair.udp_b();
    set_option(&a, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 1).unwrap();
    passes(&a, &b, b_addr, 1452);
    assert_eq!(errno(sendto(a.0, &[0; 1453], NONE, b_addr)), libc::EMSGSIZE);
    set_option(&a, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 0).unwrap();
    passes(&a, &b, b_addr, 1453);
    // A bound of the user's own makes pieces, and is no bound for datagrams.
    set_option(&a, libc::IPPROTO_IPV6, libc::IPV6_MTU, 1280).unwrap();
    passes(&a, &b, b_addr, 1400);
    set_option(&a, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 1).unwrap();
    assert_eq!(errno(sendto(a.0, &[0; 1280 - 48 + 1], NONE, b_addr)), libc::EMSGSIZE);
    passes(&a, &b, b_addr, 1280 - 48);
}

pub(crate) fn free_bind(pair: &Pair) {
    let strange: IpAddr = match pair.domain() {
        libc::AF_INET => "192.0.2.77".parse().unwrap(),
        _ => "2001:db8::77".parse().unwrap(),
    };
    let (level, name) = match pair.domain() {
        libc::AF_INET => (libc::IPPROTO_IP, libc::IP_FREEBIND),
        _ => (libc::IPPROTO_IPV6, libc::IPV6_FREEBIND),
    };
    for kind in [libc::SOCK_DGRAM, libc::SOCK_STREAM] {
        let fd = pair.socket(&pair.a, kind);
        assert_eq!(errno(bind(fd.0, SocketAddr::new(strange, 0))), libc::EADDRNOTAVAIL);
        set_option(&fd, level, name, 1).unwrap();
        bind(fd.0, SocketAddr::new(strange, 0)).unwrap();
        assert_eq!(crate::fixture::name(&fd).ip(), strange);
    }
    // Both families' options are one.
    if pair.a_addr.is_ipv6() {
        let fd = pair.socket(&pair.a, libc::SOCK_DGRAM);
        set_option(&fd, libc::IPPROTO_IP, libc::IP_FREEBIND, 1).unwrap();
        assert_eq!(option(&fd, level, name).unwrap(), 1);
    }
}

/// Source and interface that all datagrams of a socket leave with.
pub(crate) fn sticky_source(pair: &Pair) {
    if pair.a_addr.is_ipv4() {
        return;
    }
    let a = pair.socket(&pair.a, libc::SOCK_DGRAM);
    let (b, b_addr) = pair.udp_b();
    let info = |addr: IpAddr, ifindex: u32| match addr {
        IpAddr::V6(v6) => [&v6.octets()[..], &ifindex.to_ne_bytes()].concat(),
        IpAddr::V4(_) => Vec::new(),
    };
    let set = |value: &[u8]| setsockopt(a.0, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, value);
    set(&info(pair.a_addr, 0)).unwrap();
    sendto(a.0, b"x", NONE, b_addr).unwrap();
    let (_, from) = recvfrom(b.0, &mut [0; 4], NONE).unwrap();
    assert_eq!(from.unwrap().as_ip().unwrap().ip(), pair.a_addr);
    set(&info(Ipv6Addr::UNSPECIFIED.into(), 0)).unwrap();
    sendto(a.0, b"x", NONE, b_addr).unwrap();
    assert_eq!(errno(set(&[0; 19])), libc::EINVAL);
    assert_eq!(errno(option(&a, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO)), libc::ENOPROTOOPT);
}

/// IPv4's options answer with as few bytes as there is room for.
pub(crate) fn short_values(pair: &Pair) {
    let fd = pair.socket(&pair.a, libc::SOCK_DGRAM);
    let mut byte = [0];
    assert_eq!(getsockopt(fd.0, libc::IPPROTO_IP, libc::IP_TTL, &mut byte).unwrap(), 1);
    assert_eq!(byte, [64]);
    let mut two = [9; 2];
    assert_eq!(getsockopt(fd.0, libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP, &mut two).unwrap(), 1);
    assert_eq!(two, [1, 9]);
    setsockopt(fd.0, libc::IPPROTO_IP, libc::IP_TTL, &[7]).unwrap();
    assert_eq!(option(&fd, libc::IPPROTO_IP, libc::IP_TTL).unwrap(), 7);
    setsockopt(fd.0, libc::IPPROTO_IP, libc::IP_TTL, &[8, 0, 0]).unwrap();
    assert_eq!(option(&fd, libc::IPPROTO_IP, libc::IP_TTL).unwrap(), 8);
}
