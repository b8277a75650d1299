//! Several calls for one datagram: MSG_MORE and UDP_CORK.

use ioth::MsgFlags;
use ioth::berkeley::*;

use crate::fixture::*;

const MORE: MsgFlags = MsgFlags::MORE;

fn nothing(fd: &Fd) {
    assert_eq!(errno(recv(fd.0, &mut [0; 4], MsgFlags::DONTWAIT)), libc::EAGAIN);
}

fn expect(fd: &Fd, data: &[u8]) {
    let mut buffer = vec![0; data.len() + 1];
    assert_eq!(read(fd.0, &mut buffer).unwrap(), data.len());
    assert_eq!(&buffer[..data.len()], data);
}

pub(crate) fn more(pair: &Pair) {
    let a = pair.socket(&pair.a, libc::SOCK_DGRAM);
    let ((b, b_addr), (other, other_addr)) = (pair.udp_b(), pair.udp_b());
    assert_eq!(sendto(a.0, b"ab", MORE, b_addr).unwrap(), 2);
    assert_eq!(sendto(a.0, b"cd", MORE, other_addr).unwrap(), 2, "the first one's destination counts");
    nothing(&b);
    assert_eq!(send(a.0, b"ef", NONE).unwrap(), 2, "nor is one needed");
    expect(&b, b"abcdef");
    nothing(&other);
    assert_eq!(errno(send(a.0, b"x", MORE)), libc::EDESTADDRREQ);
    // Nothing at all is a datagram, too.
    assert_eq!(sendto(a.0, b"", MORE, b_addr).unwrap(), 0);
    nothing(&b);
    assert_eq!(send(a.0, b"", NONE).unwrap(), 0);
    expect(&b, b"");
}

pub(crate) fn option(pair: &Pair) {
    let a = pair.socket(&pair.a, libc::SOCK_DGRAM);
    let (b, b_addr) = pair.udp_b();
    let cork = |value| set_option(&a, libc::IPPROTO_UDP, libc::UDP_CORK, value).unwrap();
    let corked = || crate::fixture::option(&a, libc::IPPROTO_UDP, libc::UDP_CORK).unwrap();
    assert_eq!(corked(), 0);
    cork(5);
    assert_eq!(corked(), 1);
    for piece in [b"1", b"2", b"3"] {
        sendto(a.0, piece, NONE, b_addr).unwrap();
    }
    nothing(&b);
    cork(0);
    assert_eq!(corked(), 0);
    expect(&b, b"123");
    cork(1);
    cork(0);
    nothing(&b);
    assert_eq!(errno(setsockopt(a.0, libc::IPPROTO_UDP, libc::UDP_CORK, &[1])), libc::EINVAL);
    assert_eq!(errno(set_option(&a, libc::IPPROTO_UDP, 9999, 1)), libc::ENOPROTOOPT);
}

pub(crate) fn too_long(pair: &Pair) {
    let a = pair.socket(&pair.a, libc::SOCK_DGRAM);
    let (b, b_addr) = pair.udp_b();
    sendto(a.0, &[1; 1000], MORE, b_addr).unwrap();
    assert_eq!(errno(sendto(a.0, &[1; 65_000], MORE, b_addr)), libc::EMSGSIZE);
    // What was there is gone with it.
    sendto(a.0, b"z", NONE, b_addr).unwrap();
    expect(&b, b"z");
}

pub(crate) fn connected_meanwhile(pair: &Pair) {
    let a = pair.socket(&pair.a, libc::SOCK_DGRAM);
    let ((b, b_addr), (other, other_addr)) = (pair.udp_b(), pair.udp_b());
    sendto(a.0, b"a", MORE, b_addr).unwrap();
    connect(a.0, other_addr).unwrap();
    send(a.0, b"b", NONE).unwrap();
    // Where to is remembered in the socket's one place for addresses, for IPv4.
    let (hears, does_not) = if pair.a_addr.is_ipv4() { (&other, &b) } else { (&b, &other) };
    expect(hears, b"ab");
    nothing(does_not);
    // Shut down, what was begun can still be ended.
    send(a.0, b"q", MORE).unwrap();
    shutdown(a.0, libc::SHUT_WR).unwrap();
    send(a.0, b"r", NONE).unwrap();
    expect(&other, b"qr");
    assert_eq!(errno(send(a.0, b"s", NONE)), libc::EPIPE);
}
