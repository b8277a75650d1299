//! UDP-Lite (RFC 3828, udplite(7)): UDP with ports of its own and checksums that may leave the end out.

use std::net::SocketAddr;

use ioth::berkeley::*;
use ioth::{Events, MsgFlags};

use crate::fixture::*;
#[cfg(feature = "smoltcp")]
use crate::multicast::{ifindex, join};

const LEVEL: i32 = libc::IPPROTO_UDPLITE;
/// linux/udp.h
const SEND_COVERAGE: i32 = 10;
const RECEIVE_COVERAGE: i32 = 11;
const HEADER: usize = 8;

fn lite(pair: &Pair, at_b: bool) -> (Fd, SocketAddr) {
    let (stack, addr) = if at_b { (&pair.b, pair.b_addr) } else { (&pair.a, pair.a_addr) };
    let fd = pair.open(stack, pair.domain(), libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE).unwrap();
    bind_any(&fd, addr)
}

fn nothing(fd: &Fd) {
    assert_eq!(errno(recv(fd.0, &mut [0; 4], MsgFlags::DONTWAIT)), libc::EAGAIN);
}

#[track_caller]
fn expect(fd: &Fd, data: &[u8]) {
    let mut buffer = vec![0; data.len() + 1];
    assert_eq!(read(fd.0, &mut buffer).unwrap(), data.len());
    assert_eq!(&buffer[..data.len()], data);
}

pub(crate) fn there_and_back(pair: &Pair) {
    let ((a, a_addr), (b, b_addr)) = (lite(pair, false), lite(pair, true));
    assert_eq!(option(&a, libc::SOL_SOCKET, libc::SO_PROTOCOL).unwrap(), libc::IPPROTO_UDPLITE);
    assert_eq!(option(&a, libc::SOL_SOCKET, libc::SO_TYPE).unwrap(), libc::SOCK_DGRAM);
    // Odd and even lengths, and more than a link's MTU.
    for len in [0, 1, 2, 999, 1000, 9001] {
        let data: Vec<u8> = (0..len).map(|i| i as u8).collect();
        assert_eq!(sendto(a.0, &data, NONE, b_addr).unwrap(), len);
        let mut buffer = vec![0; len + 1];
        assert_eq!(recvfrom(b.0, &mut buffer, NONE).unwrap(), (len, Some(a_addr.into())));
        assert_eq!(buffer[..len], data);
        assert_eq!(sendto(b.0, &data, NONE, a_addr).unwrap(), len);
        expect(&a, &data);
    }
}

pub(crate) fn ports(pair: &Pair) {
    let (lite_b, addr) = lite(pair, true);
    let udp_b = pair.socket(&pair.b, libc::SOCK_DGRAM);
    // UDP may have given the port to somebody else meanwhile, and TCP's are others again.
    if let Err(error) = bind(udp_b.0, addr) {
        assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));
        return;
    }
    let other = pair.open(&pair.b, pair.domain(), libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE).unwrap();
    assert_eq!(errno(bind(other.0, addr)), libc::EADDRINUSE);
    let ((lite_a, _), (udp_a, _)) = (lite(pair, false), pair.udp_a());
    sendto(lite_a.0, b"lite", NONE, addr).unwrap();
    sendto(udp_a.0, b"udp", NONE, addr).unwrap();
    expect(&lite_b, b"lite");
    expect(&udp_b, b"udp");
    nothing(&lite_b);
    nothing(&udp_b);
}

pub(crate) fn coverage(pair: &Pair) {
    let ((a, _), (b, b_addr)) = (lite(pair, false), lite(pair, true));
    let send = |covered: i32, data: &[u8]| {
        set_option(&a, LEVEL, SEND_COVERAGE, covered).unwrap();
        assert_eq!(sendto(a.0, data, NONE, b_addr).unwrap(), data.len());
    };
    let wants = |least: i32| set_option(&b, LEVEL, RECEIVE_COVERAGE, least).unwrap();
    // Whoever asks for nothing takes all.
    for covered in [0, 8, 10, 14, 65_535] {
        send(covered, b"abcdef");
        expect(&b, b"abcdef");
    }
    // (least, taken, dropped): a whole is never too little.
    for (least, taken, dropped) in [(12, &[12, 13, 0, 14, 20][..], &[8, 11][..]), (0, &[0, 14, 99], &[8, 13])]
    {
        wants(least);
        for &covered in dropped {
            send(covered, b"abcdef");
        }
        for &covered in taken {
            send(covered, b"fedcba");
            expect(&b, b"fedcba");
        }
        nothing(&b);
    }
    wants(40);
    send(0, b"short");
    expect(&b, b"short");
    // UDP's sockets know of it, and cannot have it.
    let (udp, _) = pair.udp_a();
    assert_eq!(option(&udp, LEVEL, SEND_COVERAGE).unwrap(), 0);
    assert_eq!(errno(set_option(&udp, LEVEL, SEND_COVERAGE, 8)), libc::ENOPROTOOPT);
}

pub(crate) fn corked(pair: &Pair) {
    let ((a, _), (b, b_addr)) = (lite(pair, false), lite(pair, true));
    set_option(&a, LEVEL, SEND_COVERAGE, 9).unwrap();
    // Either level will do.
    set_option(&a, LEVEL, libc::UDP_CORK, 1).unwrap();
    assert_eq!(option(&a, libc::IPPROTO_UDP, libc::UDP_CORK).unwrap(), 1);
    sendto(a.0, b"ab", NONE, b_addr).unwrap();
    sendto(a.0, b"cd", NONE, b_addr).unwrap();
    nothing(&b);
    set_option(&a, libc::IPPROTO_UDP, libc::UDP_CORK, 0).unwrap();
    expect(&b, b"abcd");
    sendto(a.0, b"ef", MsgFlags::MORE, b_addr).unwrap();
    sendto(a.0, b"gh", NONE, b_addr).unwrap();
    expect(&b, b"efgh");
}

pub(crate) fn refused(pair: &Pair) {
    let ((a, _), (b, b_addr)) = (lite(pair, false), lite(pair, true));
    drop(b);
    connect(a.0, b_addr).unwrap();
    send(a.0, b"x", NONE).unwrap();
    assert_eq!(errno(read(a.0, &mut [0; 4])), libc::ECONNREFUSED);
    send(a.0, b"x", NONE).unwrap();
    wait(&a, if pair.native { Events::ERR } else { Events::IN });
    assert_eq!(so_error(&a), libc::ECONNREFUSED);
}

pub(crate) fn connected(pair: &Pair) {
    let ((a, a_addr), (b, b_addr), (stranger, _)) = (lite(pair, false), lite(pair, true), lite(pair, false));
    connect(b.0, a_addr).unwrap();
    assert_eq!(peer(&b), a_addr);
    sendto(stranger.0, b"strange", NONE, b_addr).unwrap();
    sendto(a.0, b"known", NONE, b_addr).unwrap();
    expect(&b, b"known");
    nothing(&b);
    assert_eq!(sendto(a.0, &[0; 65_536], NONE, b_addr).unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
}

/// The header as it travels, by a raw socket of the protocol.
#[cfg(feature = "smoltcp")]
pub(crate) fn on_the_wire(pair: &Pair) {
    let ((a, a_addr), (_b, b_addr)) = (lite(pair, false), lite(pair, true));
    let look = pair.open(&pair.b, pair.domain(), libc::SOCK_RAW, LEVEL).unwrap();
    let data = b"abcdefghi";
    let whole = HEADER + data.len();
    // (option, field, how much the checksum is over)
    let cases = [
        (None, whole, whole),
        (Some(0), 0, whole),
        (Some(8), 8, 8),
        (Some(11), 11, 11),
        (Some(99), whole, whole),
    ];
    for (set, field, covered) in cases {
        if let Some(set) = set {
            set_option(&a, LEVEL, SEND_COVERAGE, set).unwrap();
        }
        sendto(a.0, data, NONE, b_addr).unwrap();
        let mut buffer = [0; 200];
        let len = read(look.0, &mut buffer).unwrap();
        let at = if pair.a_addr.is_ipv4() { 20 } else { 0 };
        let datagram = &buffer[at..len];
        assert_eq!(&datagram[HEADER..], data);
        assert_eq!(datagram[..2], a_addr.port().to_be_bytes());
        assert_eq!(usize::from(u16::from_be_bytes([datagram[4], datagram[5]])), field, "{set:?}");
        let sum = sum(&pseudo_header(a_addr, b_addr, whole)) + sum(&datagram[..covered]);
        assert_eq!(sum % 0xffff, 0, "{set:?}");
        // And back as it should not be: nobody hears of it.
        for (field, garbled) in [(7u16, false), (whole as u16 + 1, false), (0, true)] {
            let mut wrong = datagram.to_vec();
            wrong.swap(0, 2);
            wrong.swap(1, 3);
            wrong[4..6].copy_from_slice(&field.to_be_bytes());
            if garbled {
                wrong[6..8].fill(0);
            }
            let mut to = a_addr;
            to.set_port(0);
            sendto(look.0, &wrong, NONE, to).unwrap();
        }
        sendto(_b.0, b"fine", NONE, a_addr).unwrap();
        expect(&a, b"fine");
        nothing(&a);
    }
}

#[cfg(feature = "smoltcp")]
fn pseudo_header(source: SocketAddr, destination: SocketAddr, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for addr in [source, destination] {
        match addr {
            SocketAddr::V4(v4) => bytes.extend(v4.ip().octets()),
            SocketAddr::V6(v6) => bytes.extend(v6.ip().octets()),
        }
    }
    bytes.extend((len as u32).to_be_bytes());
    bytes.extend((LEVEL as u32).to_be_bytes());
    bytes
}

#[cfg(feature = "smoltcp")]
fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum()
}

/// A datagram to a group, to every member with UDP-Lite and nobody with UDP.
#[cfg(feature = "smoltcp")]
pub(crate) fn groups(pair: &Pair) {
    let (a, _) = lite(pair, false);
    let open = |protocol| {
        let fd = pair.open(&pair.b, pair.domain(), libc::SOCK_DGRAM, protocol).unwrap();
        set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).unwrap();
        fd
    };
    let members = [open(LEVEL), open(LEVEL)];
    let udp = open(libc::IPPROTO_UDP);
    let group: SocketAddr = match pair.a_addr.is_ipv4() {
        true => "239.1.2.3:5678".parse().unwrap(),
        false => "[ff05::1:3]:5678".parse().unwrap(),
    };
    let index = ifindex(pair, &pair.b);
    for fd in members.iter().chain([&udp]) {
        join(pair, fd, group.ip(), index).unwrap();
        bind(fd.0, SocketAddr::new(pair.wildcard(), group.port())).unwrap();
    }
    sendto(a.0, b"all", NONE, group).unwrap();
    for fd in &members {
        expect(fd, b"all");
    }
    nothing(&udp);
}
