//! Raw sockets of IP (raw(7), RFC 3542) between two nodes on a wire.

use std::net::{IpAddr, SocketAddr};

use ioth::berkeley::*;
use ioth::core::control;
use ioth::{Events, MsgFlags, SockAddr, Stack};

use crate::datagram::ends_a_wait;
use crate::filter::{attach, detach, load_byte, ret, unless_equal};
use crate::fixture::*;

/// A protocol for experiments (RFC 3692), of which nobody on the wire knows.
const OURS: i32 = 253;
const ICMP_FILTER: i32 = 1;
const IPV6_HDRINCL: i32 = 36;

fn raw(pair: &Pair, stack: &Stack, protocol: i32) -> Fd {
    pair.open(stack, pair.domain(), libc::SOCK_RAW, protocol).unwrap()
}

pub(crate) fn icmp(pair: &Pair) -> i32 {
    if v4(pair) { libc::IPPROTO_ICMP } else { libc::IPPROTO_ICMPV6 }
}

pub(crate) fn v4(pair: &Pair) -> bool {
    pair.a_addr.is_ipv4()
}

pub(crate) fn host(ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, 0)
}

/// An echo request or reply without its checksum.
pub(crate) fn echo(pair: &Pair, reply: bool, ident: u16, text: &[u8]) -> Vec<u8> {
    let kind = match (v4(pair), reply) {
        (true, false) => 8,
        (true, true) => 0,
        (false, false) => 128,
        (false, true) => 129,
    };
    let [high, low] = ident.to_be_bytes();
    [&[kind, 0, 0, 0, high, low, 0, 1], text].concat()
}

/// The Internet checksum (RFC 1071), which is 0 over data that has it.
pub(crate) fn checksum(data: &[u8]) -> u16 {
    let mut sum: u32 =
        data.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The next packet without its IP header, and where it came from.
#[track_caller]
fn receive(pair: &Pair, fd: &Fd) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 3000];
    let (len, from) = recvfrom(fd.0, &mut buffer, NONE).unwrap();
    let header = if v4(pair) { usize::from(buffer[0] & 0x0f) * 4 } else { 0 };
    (buffer[header..len].to_vec(), from.unwrap().as_ip().unwrap())
}

#[track_caller]
fn nothing(fd: &Fd) {
    assert_eq!(errno(recv(fd.0, &mut [0; 100], MsgFlags::DONTWAIT)), libc::EAGAIN);
}

/// What ping(8) does with a raw socket.
pub(crate) fn echo_by_hand(pair: &Pair) {
    let fd = raw(pair, &pair.a, icmp(pair));
    // Of all that comes, only replies.
    if v4(pair) {
        setsockopt(fd.0, libc::SOL_RAW, ICMP_FILTER, &(!1u32).to_ne_bytes()).unwrap();
    } else {
        let mut filter = [0xff; 32];
        filter[16..20].copy_from_slice(&(!2u32).to_ne_bytes());
        setsockopt(fd.0, libc::IPPROTO_ICMPV6, ICMP_FILTER, &filter).unwrap();
    }
    let mut request = echo(pair, false, 77, b"are you there?");
    if v4(pair) {
        // Over IPv4 the checksum is the program's affair.
        let sum = checksum(&request);
        request[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    sendto(fd.0, &request, NONE, host(pair.b_addr)).unwrap();
    let (reply, from) = receive(pair, &fd);
    assert_eq!(from, host(pair.b_addr));
    assert_eq!(reply[4..], request[4..]);
    assert_eq!(reply[0], if v4(pair) { 0 } else { 129 });
    if v4(pair) {
        assert_eq!(checksum(&reply), 0);
    }
}

pub(crate) fn own_protocol(pair: &Pair) {
    let (a, b, other) = (raw(pair, &pair.a, OURS), raw(pair, &pair.b, OURS), raw(pair, &pair.b, OURS + 1));
    assert_eq!(sendto(a.0, b"hello", NONE, host(pair.b_addr)).unwrap(), 5);
    wait_exactly(&b, Events::IN | Events::OUT);
    let mut unread = [0; 4];
    ioctl(b.0, libc::FIONREAD, &mut unread).unwrap();
    let header = if v4(pair) { 20 } else { 0 };
    assert_eq!(i32::from_ne_bytes(unread), 5 + header);
    let mut buffer = [0; 100];
    assert_eq!(recv(b.0, &mut buffer, MsgFlags::PEEK | MsgFlags::TRUNC).unwrap(), 5 + header as usize);
    if v4(pair) {
        // The header is as it was on the wire.
        assert_eq!((buffer[0], buffer[8], buffer[9]), (0x45, 64, OURS as u8));
        assert_eq!(u16::from_be_bytes([buffer[2], buffer[3]]), 25);
        assert_eq!(checksum(&buffer[..20]), 0);
        assert_eq!(IpAddr::from([buffer[12], buffer[13], buffer[14], buffer[15]]), pair.a_addr);
    }
    assert_eq!(receive(pair, &b), (b"hello".to_vec(), host(pair.a_addr)));
    nothing(&b);
    nothing(&other);
    // Everybody with the protocol has a copy, even of nothing.
    let second = raw(pair, &pair.b, OURS);
    assert_eq!(sendto(a.0, b"", NONE, host(pair.b_addr)).unwrap(), 0);
    for fd in [&b, &second] {
        assert_eq!(receive(pair, fd).0, b"");
    }
}

pub(crate) fn bound_and_connected(pair: &Pair) {
    let a = raw(pair, &pair.a, OURS);
    let bound = raw(pair, &pair.b, OURS);
    let (elsewhere, connected, stranger) =
        (raw(pair, &pair.b, OURS), raw(pair, &pair.b, OURS), raw(pair, &pair.b, OURS));
    bind(bound.0, host(pair.b_addr)).unwrap();
    let localhost: IpAddr =
        if v4(pair) { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
    bind(elsewhere.0, host(localhost)).unwrap();
    connect(connected.0, host(pair.a_addr)).unwrap();
    connect(stranger.0, host(pair.b_addr)).unwrap();
    sendto(a.0, b"to whom?", NONE, host(pair.b_addr)).unwrap();
    assert_eq!(receive(pair, &bound).0, b"to whom?");
    assert_eq!(receive(pair, &connected).0, b"to whom?");
    nothing(&elsewhere);
    nothing(&stranger);
    // A connected socket needs no address, and the other end hears it.
    assert_eq!(write(connected.0, b"back").unwrap(), 4);
    assert_eq!(receive(pair, &a), (b"back".to_vec(), host(pair.b_addr)));
    // Bound to another interface it hears nothing.
    let lo = raw(pair, &pair.b, OURS);
    setsockopt(lo.0, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"lo\0").unwrap();
    sendto(a.0, b"again", NONE, host(pair.b_addr)).unwrap();
    assert_eq!(receive(pair, &bound).0, b"again");
    nothing(&lo);
}

pub(crate) fn names(pair: &Pair) {
    let fd = raw(pair, &pair.a, OURS);
    let port = OURS as u16;
    // The protocol stands where others have a port.
    assert_eq!(name(&fd), SocketAddr::new(pair.wildcard(), port));
    assert_eq!(option(&fd, libc::SOL_SOCKET, libc::SO_TYPE).unwrap(), libc::SOCK_RAW);
    assert_eq!(option(&fd, libc::SOL_SOCKET, libc::SO_PROTOCOL).unwrap(), OURS);
    assert_eq!(option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR).unwrap(), 1);
    assert_eq!(errno(getpeername(fd.0)), libc::ENOTCONN);
    for _ in 0..2 {
        bind(fd.0, SocketAddr::new(pair.a_addr, 9)).unwrap();
        assert_eq!(name(&fd), SocketAddr::new(pair.a_addr, port));
    }
    bind(fd.0, host(pair.wildcard())).unwrap();
    let stranger: SocketAddr = if v4(pair) { "203.0.113.1:0" } else { "[2001:db8::1]:0" }.parse().unwrap();
    assert_eq!(errno(bind(fd.0, stranger)), libc::EADDRNOTAVAIL);
    // A peer without a port is one, and is not shown.
    connect(fd.0, host(pair.b_addr)).unwrap();
    assert_eq!(errno(getpeername(fd.0)), libc::ENOTCONN);
    assert_eq!(name(&fd), SocketAddr::new(pair.a_addr, port));
    connect(fd.0, SocketAddr::new(pair.b_addr, 7)).unwrap();
    assert_eq!(peer(&fd), SocketAddr::new(pair.b_addr, 7));
    assert_eq!(errno(bind(fd.0, host(pair.a_addr))), libc::EINVAL);
    // Dissolved, it can still send, and never receives again.
    connect(fd.0, SockAddr::Unspecified).unwrap();
    assert_eq!(name(&fd), host(pair.wildcard()));
    assert_eq!(errno(getpeername(fd.0)), libc::ENOTCONN);
    let (b, hearing) = (raw(pair, &pair.b, OURS), raw(pair, &pair.a, OURS));
    bind(fd.0, host(pair.a_addr)).unwrap();
    sendto(fd.0, b"there", NONE, host(pair.b_addr)).unwrap();
    assert_eq!(receive(pair, &b).0, b"there");
    sendto(b.0, b"back", NONE, host(pair.a_addr)).unwrap();
    assert_eq!(receive(pair, &hearing).0, b"back");
    nothing(&fd);
}

pub(crate) fn creation(pair: &Pair) {
    let open = |protocol| pair.open(&pair.a, pair.domain(), libc::SOCK_RAW, protocol);
    assert_eq!(errno(open(0)), libc::EPROTONOSUPPORT);
    assert_eq!(errno(open(-1)), libc::EINVAL);
    assert_eq!(errno(open(263)), libc::EINVAL);
    open(255).unwrap();
    open(256).unwrap();
    for protocol in [libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_ICMP, libc::IPPROTO_ICMPV6] {
        assert_eq!(option(&open(protocol).unwrap(), libc::SOL_SOCKET, libc::SO_PROTOCOL).unwrap(), protocol);
    }
}

pub(crate) fn calls_that_are_not(pair: &Pair) {
    let fd = raw(pair, &pair.a, OURS);
    assert_eq!(errno(listen(fd.0, 1)), libc::EOPNOTSUPP);
    assert_eq!(errno(accept(fd.0)), libc::EOPNOTSUPP);
    assert_eq!(errno(shutdown(fd.0, libc::SHUT_WR)), libc::ENOTCONN);
    assert_eq!(errno(recv(fd.0, &mut [0; 4], MsgFlags::OOB | MsgFlags::DONTWAIT)), libc::EOPNOTSUPP);
    assert_eq!(errno(sendto(fd.0, b"x", MsgFlags::OOB, host(pair.b_addr))), libc::EOPNOTSUPP);
    let connected = raw(pair, &pair.a, OURS);
    connect(connected.0, host(pair.b_addr)).unwrap();
    shutdown(connected.0, libc::SHUT_RDWR).unwrap();
    // Linux looks at the end of sending only where the packet comes with its header.
    assert_eq!(write(connected.0, b"x").unwrap(), 1);
    let (level, name) =
        if v4(pair) { (libc::IPPROTO_IP, libc::IP_HDRINCL) } else { (libc::IPPROTO_IPV6, IPV6_HDRINCL) };
    set_option(&connected, level, name, 1).unwrap();
    assert_eq!(errno(write(connected.0, &header(pair, 0))), libc::EPIPE);
    assert_eq!(read(connected.0, &mut [0; 4]).unwrap(), 0);
}

pub(crate) fn send_errors(pair: &Pair) {
    let fd = raw(pair, &pair.a, OURS);
    assert_eq!(errno(write(fd.0, b"x")), libc::EDESTADDRREQ);
    let other: SocketAddr = if v4(pair) { "[::1]:0" } else { "127.0.0.1:0" }.parse().unwrap();
    let family = if v4(pair) { libc::EAFNOSUPPORT } else { libc::EINVAL };
    assert_eq!(errno(sendto(fd.0, b"x", NONE, other)), family);
    assert_eq!(errno(connect(fd.0, other)), libc::EAFNOSUPPORT);
    // A port means nothing over IPv4; over IPv6 it has to be the protocol.
    let port = |port| sendto(fd.0, b"x", NONE, SocketAddr::new(pair.b_addr, port));
    assert_eq!(port(OURS as u16).unwrap(), 1);
    if v4(pair) {
        assert_eq!(port(7).unwrap(), 1);
    } else {
        assert_eq!(errno(port(7)), libc::EINVAL);
        let any = raw(pair, &pair.a, libc::IPPROTO_RAW);
        assert_eq!(errno(sendto(any.0, &[0; 40], NONE, SocketAddr::new(pair.b_addr, 256))), libc::EINVAL);
        let mapped: SocketAddr = "[::ffff:10.9.0.2]:0".parse().unwrap();
        assert_eq!(errno(sendto(fd.0, b"x", NONE, mapped)), libc::ENETUNREACH);
        assert_eq!(errno(bind(fd.0, mapped)), libc::EADDRNOTAVAIL);
    }
    assert_eq!(errno(sendto(fd.0, &vec![0; 65_536], NONE, host(pair.b_addr))), libc::EMSGSIZE);
    let most = if v4(pair) { 65_515 } else { 65_535 };
    assert_eq!(errno(sendto(fd.0, &vec![0; most + 1], NONE, host(pair.b_addr))), libc::EMSGSIZE);
    assert_eq!(sendto(fd.0, &vec![0; most], NONE, host(pair.b_addr)).unwrap(), most);
    if v4(pair) {
        let everybody: SocketAddr = "10.9.0.255:0".parse().unwrap();
        assert_eq!(errno(sendto(fd.0, b"x", NONE, everybody)), libc::EACCES);
    }
}

/// An IP header for a packet of `len` bytes behind it, with what IP_HDRINCL fills in left out.
fn header(pair: &Pair, len: usize) -> Vec<u8> {
    match (pair.a_addr, pair.b_addr) {
        (IpAddr::V4(_), IpAddr::V4(to)) => {
            let mut header = vec![0x45, 0x10, 0xff, 0xff, 0, 0, 0, 0, 33, OURS as u8, 0xde, 0xad, 0, 0, 0, 0];
            header.extend_from_slice(&to.octets());
            header
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend_from_slice(&(len as u16).to_be_bytes());
            header.extend_from_slice(&[OURS as u8, 33]);
            header.extend_from_slice(&from.octets());
            header.extend_from_slice(&to.octets());
            header
        }
        _ => unreachable!(),
    }
}

/// RFC 8200 §4.4
pub(crate) fn routing_headers(pair: &Pair) {
    if v4(pair) {
        return;
    }
    let (a, b) = (raw(pair, &pair.a, libc::IPPROTO_RAW), raw(pair, &pair.b, OURS));
    let complaints = raw(pair, &pair.a, libc::IPPROTO_ICMPV6);
    let mut problems_only = [0xff; 32];
    problems_only[0] = !(1 << 4);
    setsockopt(complaints.0, libc::IPPROTO_ICMPV6, ICMP_FILTER, &problems_only).unwrap();
    let routed = |kind: u8, left: u8, ident: u8| {
        let mut packet = header(pair, 8 + 4);
        packet[6] = 43;
        packet.extend_from_slice(&[OURS as u8, 0, kind, left, 0, 0, 0, 0]);
        packet.extend_from_slice(&[b'r', kind, left, ident]);
        sendto(a.0, &packet, NONE, host(pair.b_addr)).unwrap();
        packet
    };
    // Type 3 and 4 are for nodes that were told to take them.
    for (ident, (kind, left)) in (0..).zip([(3, 0), (4, 0), (4, 1), (0, 0), (77, 0), (2, 0)]) {
        routed(kind, left, ident);
        if !matches!(kind, 3 | 4) {
            let mut buffer = [0; 100];
            let len = recv(b.0, &mut buffer, NONE).unwrap();
            assert_eq!(buffer[..len], [b'r', kind, left, ident]);
        }
    }
    for (kind, left) in [(0, 1), (77, 1), (77, 255), (2, 1)] {
        let packet = routed(kind, left, 9);
        let mut buffer = [0; 200];
        let len = recv(complaints.0, &mut buffer, NONE).unwrap();
        // Parameter Problem, erroneous header field, at the routing type.
        assert_eq!((&buffer[..2], &buffer[4..8]), (&[4, 0][..], &42u32.to_be_bytes()[..]));
        assert_eq!(buffer[8 + 40..len], packet[40..]);
    }
    assert_eq!(errno(recv(b.0, &mut [0; 9], MsgFlags::DONTWAIT)), libc::EAGAIN);
    assert_eq!(errno(recv(complaints.0, &mut [0; 9], MsgFlags::DONTWAIT)), libc::EAGAIN);
}

pub(crate) fn header_included(pair: &Pair) {
    let b = raw(pair, &pair.b, OURS);
    let hdrincl = |fd: &Fd| match v4(pair) {
        true => option(fd, libc::IPPROTO_IP, libc::IP_HDRINCL).unwrap(),
        false => option(fd, libc::IPPROTO_IPV6, IPV6_HDRINCL).unwrap(),
    };
    let a = raw(pair, &pair.a, libc::IPPROTO_RAW);
    assert_eq!(hdrincl(&a), 1);
    let by_option = raw(pair, &pair.a, OURS);
    assert_eq!(hdrincl(&by_option), 0);
    let (level, name) =
        if v4(pair) { (libc::IPPROTO_IP, libc::IP_HDRINCL) } else { (libc::IPPROTO_IPV6, IPV6_HDRINCL) };
    set_option(&by_option, level, name, 1).unwrap();
    assert_eq!(hdrincl(&by_option), 1);
    for fd in [&a, &by_option] {
        let packet = [header(pair, 4), b"data".to_vec()].concat();
        assert_eq!(sendto(fd.0, &packet, NONE, host(pair.b_addr)).unwrap(), packet.len());
        let mut buffer = [0; 100];
        let len = recv(b.0, &mut buffer, NONE).unwrap();
        if v4(pair) {
            // Filled in: length, identification, source, checksum; the rest is the program's.
            assert_eq!((len, buffer[1], buffer[8]), (24, 0x10, 33));
            assert_eq!(u16::from_be_bytes([buffer[2], buffer[3]]), 24);
            assert_ne!(buffer[4..6], [0; 2]);
            assert_eq!(checksum(&buffer[..20]), 0);
            assert_eq!(IpAddr::from([buffer[12], buffer[13], buffer[14], buffer[15]]), pair.a_addr);
        }
        assert_eq!(&buffer[len - 4..len], b"data");
    }
    let send = |packet: &[u8]| sendto(a.0, packet, NONE, host(pair.b_addr));
    let whole = header(pair, 0);
    assert_eq!(errno(send(&whole[..whole.len() - 1])), libc::EINVAL);
    assert_eq!(errno(send(&[whole.clone(), vec![0; 1501 - whole.len()]].concat())), libc::EMSGSIZE);
    assert_eq!(send(&[whole.clone(), vec![0; 1500 - whole.len()]].concat()).unwrap(), 1500);
    if v4(pair) {
        for length in [0x44, 0x4f] {
            let mut bad = whole.clone();
            bad[0] = length;
            assert_eq!(errno(send(&bad)), libc::EINVAL);
        }
        // An identification and a source of the program's own stay.
        let mut own = whole.clone();
        own[4..6].copy_from_slice(&[1, 2]);
        own[12..16].copy_from_slice(&[10, 9, 0, 77]);
        send(&own).unwrap();
        let mut buffer = [0; 2000];
        while recv(b.0, &mut buffer, NONE).unwrap() != 20 {}
        assert_eq!((&buffer[4..6], &buffer[12..16]), (&[1u8, 2][..], &[10u8, 9, 0, 77][..]));
    }
}

pub(crate) fn options(pair: &Pair) {
    let (fd, of_icmp) = (raw(pair, &pair.a, OURS), raw(pair, &pair.a, icmp(pair)));
    let level = if v4(pair) { libc::SOL_RAW } else { libc::IPPROTO_ICMPV6 };
    let len = if v4(pair) { 4 } else { 32 };
    let mut value = [0xff; 40];
    assert_eq!(errno(getsockopt(fd.0, level, ICMP_FILTER, &mut value)), libc::EOPNOTSUPP);
    assert_eq!(errno(setsockopt(fd.0, level, ICMP_FILTER, &value)), libc::EOPNOTSUPP);
    assert_eq!(getsockopt(of_icmp.0, level, ICMP_FILTER, &mut value).unwrap(), len);
    assert_eq!(value[..len], [0; 32][..len]);
    setsockopt(of_icmp.0, level, ICMP_FILTER, &[9; 40]).unwrap();
    setsockopt(of_icmp.0, level, ICMP_FILTER, &[7]).unwrap();
    setsockopt(of_icmp.0, level, ICMP_FILTER, &[]).unwrap();
    assert_eq!(getsockopt(of_icmp.0, level, ICMP_FILTER, &mut value).unwrap(), len);
    assert_eq!((value[0], value[1], value[len - 1]), (7, 9, 9));
    assert_eq!(errno(option(&of_icmp, level, 99)), libc::ENOPROTOOPT);
    assert_eq!(errno(set_option(&of_icmp, level, 99, 1)), libc::ENOPROTOOPT);
    if v4(pair) {
        let udp = pair.socket(&pair.a, libc::SOCK_DGRAM);
        assert_eq!(errno(set_option(&udp, libc::IPPROTO_IP, libc::IP_HDRINCL, 1)), libc::ENOPROTOOPT);
        return;
    }
    let at = |fd: &Fd, at| set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_CHECKSUM, at);
    let get = |fd: &Fd| option(fd, libc::IPPROTO_IPV6, libc::IPV6_CHECKSUM).unwrap();
    assert_eq!((get(&fd), get(&of_icmp)), (-1, 2));
    assert_eq!(errno(at(&of_icmp, 4)), libc::EINVAL);
    assert_eq!(errno(at(&fd, 3)), libc::EINVAL);
    at(&fd, 4).unwrap();
    assert_eq!(get(&fd), 4);
    at(&fd, -7).unwrap();
    assert_eq!(get(&fd), -1);
    assert_eq!(errno(setsockopt(fd.0, libc::IPPROTO_IPV6, libc::IPV6_CHECKSUM, &[0; 3])), libc::EINVAL);
    assert_eq!(errno(option(&fd, libc::IPPROTO_IP, libc::IP_TTL)), libc::ENOPROTOOPT);
    assert_eq!(errno(set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)), libc::EINVAL);
}

/// IPV6_CHECKSUM: computed on the way out, checked on the way in.
pub(crate) fn checksums(pair: &Pair) {
    if v4(pair) {
        return;
    }
    let (plain, computing) = (raw(pair, &pair.a, OURS), raw(pair, &pair.a, OURS));
    let (any, checking) = (raw(pair, &pair.b, OURS), raw(pair, &pair.b, OURS));
    for fd in [&computing, &checking] {
        set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_CHECKSUM, 2).unwrap();
    }
    sendto(computing.0, b"12xx56", NONE, host(pair.b_addr)).unwrap();
    let (good, _) = receive(pair, &checking);
    assert_ne!(&good[2..4], b"xx");
    assert_eq!(receive(pair, &any).0, good);
    sendto(plain.0, b"12xx56", NONE, host(pair.b_addr)).unwrap();
    assert_eq!(receive(pair, &any).0, b"12xx56");
    sendto(plain.0, &good, NONE, host(pair.b_addr)).unwrap();
    assert_eq!(receive(pair, &checking).0, good);
    nothing(&checking);
    // There has to be room for it.
    assert_eq!(errno(sendto(computing.0, b"123", NONE, host(pair.b_addr))), libc::EINVAL);
    assert_eq!(sendto(computing.0, b"1234", NONE, host(pair.b_addr)).unwrap(), 4);
}

/// Nobody has the protocol: a connected socket hears of it.
pub(crate) fn unreachable(pair: &Pair) {
    let (connected, free) = (raw(pair, &pair.a, OURS), raw(pair, &pair.a, OURS));
    connect(connected.0, host(pair.b_addr)).unwrap();
    write(connected.0, b"anybody?").unwrap();
    wait(&connected, if pair.native { Events::ERR } else { Events::IN });
    let wanted = if v4(pair) { libc::ENOPROTOOPT } else { libc::EPROTO };
    assert_eq!(errno(read(connected.0, &mut [0; 4])), wanted);
    assert_eq!(so_error(&connected), 0);
    nothing(&free);
    assert_eq!(so_error(&free), 0);
    // A raw socket is somebody, whether it wants to hear or not.
    let b = raw(pair, &pair.b, OURS);
    attach(&b, &[ret(0)]).unwrap();
    write(connected.0, b"and now?").unwrap();
    // What was sent behind it has come, so it has, too.
    let ((from, _), (to, addr)) = (pair.udp_a(), pair.udp_b());
    sendto(from.0, b"behind", NONE, addr).unwrap();
    assert_eq!(recv(to.0, &mut [0; 8], NONE).unwrap(), 6);
    detach(&b).unwrap();
    write(connected.0, b"still").unwrap();
    assert_eq!(receive(pair, &b).0, b"still");
    assert_eq!(so_error(&connected), 0);
}

/// Who looks at UDP's packets takes nothing from UDP.
pub(crate) fn beside_udp(pair: &Pair) {
    let look = raw(pair, &pair.b, libc::IPPROTO_UDP);
    let (a, from) = pair.udp_a();
    let (b, to) = pair.udp_b();
    sendto(a.0, b"datagram", NONE, to).unwrap();
    let (packet, sender) = receive(pair, &look);
    assert_eq!(sender, host(pair.a_addr));
    assert_eq!(packet[..2], from.port().to_be_bytes());
    assert_eq!(packet[2..4], to.port().to_be_bytes());
    assert_eq!(&packet[8..], b"datagram");
    assert_eq!(read(b.0, &mut [0; 20]).unwrap(), 8);
}

pub(crate) fn filters(pair: &Pair) {
    let (a, b) = (raw(pair, &pair.a, OURS), raw(pair, &pair.b, OURS));
    // Over IPv4 a filter's view begins with the header.
    let header = if v4(pair) { 20 } else { 0 };
    attach(&b, &[load_byte(header), unless_equal(b'y'.into(), 1), ret(header as u32 + 2), ret(0)]).unwrap();
    for text in ["no", "yes", "never", "yet"] {
        sendto(a.0, text.as_bytes(), NONE, host(pair.b_addr)).unwrap();
    }
    assert_eq!(receive(pair, &b).0, b"ye");
    assert_eq!(receive(pair, &b).0, b"ye");
    nothing(&b);
}

pub(crate) fn control_messages(pair: &Pair) {
    let (a, b) = (raw(pair, &pair.a, OURS), raw(pair, &pair.b, OURS));
    let (level, wanted, hops) = match v4(pair) {
        true => (libc::IPPROTO_IP, [libc::IP_PKTINFO, libc::IP_RECVTTL], libc::IP_TTL),
        false => (libc::IPPROTO_IPV6, [libc::IPV6_RECVPKTINFO, libc::IPV6_RECVHOPLIMIT], libc::IPV6_HOPLIMIT),
    };
    for name in wanted {
        set_option(&b, level, name, 1).unwrap();
    }
    let mut sent = Vec::new();
    control::push(&mut sent, level, hops, &9i32.to_ne_bytes());
    let to = host(pair.b_addr).into();
    let data = [std::io::IoSlice::new(b"x")];
    let message = ioth::SendMsg { addr: Some(&to), control: &sent, ..ioth::SendMsg::new(&data) };
    sendmsg(a.0, &message, NONE).unwrap();
    let (mut buffer, mut room) = ([0; 100], [0; 200]);
    let mut data = [std::io::IoSliceMut::new(&mut buffer)];
    let mut message = ioth::RecvMsg { control: &mut room, ..ioth::RecvMsg::new(&mut data) };
    recvmsg(b.0, &mut message, NONE).unwrap();
    let filled = message.control_len;
    let told: Vec<_> = control::messages(&room[..filled]).map(Result::unwrap).collect();
    assert_eq!(told.len(), 2);
    assert_eq!(told.iter().find(|message| message.kind == hops).unwrap().as_i32(), Some(9));
}

/// Without a peer it is told so, and shut all the same. Linux sends still, and receives what does not have to be waited for.
pub(crate) fn shut_down_unconnected(pair: &Pair) {
    let fd = raw(pair, &pair.a, OURS);
    ends_a_wait(&fd);
    wait_exactly(&fd, Events::IN | Events::OUT | Events::RDHUP | Events::HUP);
    let b = raw(pair, &pair.b, OURS);
    sendto(fd.0, b"still", NONE, host(pair.b_addr)).unwrap();
    assert_eq!(receive(pair, &b), (b"still".to_vec(), host(pair.a_addr)));
    sendto(b.0, b"back", NONE, host(pair.a_addr)).unwrap();
    until(|| recv(fd.0, &mut [0; 100], MsgFlags::DONTWAIT).is_ok());
}

/// What a router says of a datagram, for a connected socket without and with IP_RECVERR: Linux's icmp_err_convert and
/// icmpv6_err_convert.
pub(crate) fn said_of_a_datagram(pair: &Pair) {
    // Type, code, whether everybody hears of it, and the error.
    let v4_codes: &[(u8, u8, bool, i32)] = &[
        (3, 0, false, libc::ENETUNREACH),
        (3, 6, true, libc::ENETUNREACH),
        (3, 9, true, libc::ENETUNREACH),
        (3, 15, true, libc::EHOSTUNREACH),
        (3, 16, false, 0),
        (3, 19, false, 0),
        (11, 0, false, libc::EHOSTUNREACH),
        (11, 1, false, 0),
        (12, 0, true, libc::EPROTO),
    ];
    let v6_codes: &[(u8, u8, bool, i32)] = &[
        (1, 0, false, libc::ENETUNREACH),
        (1, 2, false, libc::EHOSTUNREACH),
        (1, 3, false, libc::EHOSTUNREACH),
        (1, 6, true, libc::EACCES),
        (1, 7, true, libc::EPROTO),
        (1, 99, true, libc::EPROTO),
        (3, 1, false, libc::EHOSTUNREACH),
        (4, 2, true, libc::EPROTO),
        (5, 0, false, libc::EPROTO),
        (127, 9, false, libc::EPROTO),
    ];
    let router = raw(pair, &pair.b, icmp(pair));
    for (kind, code, everybody, error) in if v4(pair) { v4_codes } else { v6_codes } {
        for asked in [false, true] {
            let ((a, from), (b, to)) = (pair.udp_a(), pair.udp_b());
            let (level, name) = match v4(pair) {
                true => (libc::IPPROTO_IP, libc::IP_RECVERR),
                false => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
            };
            set_option(&a, level, name, asked.into()).unwrap();
            connect(a.0, to).unwrap();
            sendto(router.0, &unreached(*kind, *code, from, to), NONE, host(pair.a_addr)).unwrap();
            // What was sent behind it comes behind it.
            sendto(b.0, b"behind", NONE, from).unwrap();
            let told = recv(a.0, &mut [0; 8], NONE).err().and_then(|error| error.raw_os_error()).unwrap_or(0);
            let wanted = if asked || *everybody { *error } else { 0 };
            assert_eq!(told, wanted, "type {kind}, code {code}, asked for: {asked}");
        }
    }
}

/// An ICMP error about a datagram of UDP.
fn unreached(kind: u8, code: u8, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut quoted = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0];
            header.extend([from.octets(), to.octets()].concat());
            let sum = checksum(&header).to_be_bytes();
            header[10..12].copy_from_slice(&sum);
            header
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut header = vec![0x60, 0, 0, 0, 0, 8, 17, 64];
            header.extend([from.octets(), to.octets()].concat());
            header
        }
        _ => panic!("{from} and {to} are of two families"),
    };
    quoted.extend([from.port().to_be_bytes(), to.port().to_be_bytes(), [0, 8], [0, 0]].concat());
    let mut message = [&[kind, code, 0, 0, 0, 0, 0, 0], &quoted[..]].concat();
    if from.is_ipv4() {
        let sum = checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
    }
    message
}
