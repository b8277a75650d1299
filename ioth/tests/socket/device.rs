//! SO_BINDTODEVICE: what a socket of one interface reaches, and what reaches it (socket(7)).

use std::net::SocketAddr;

use ioth::Stack;
use ioth::berkeley::*;

use crate::fixture::*;
use crate::ioctl::device_of;

fn bind_to(fd: &Fd, device: &str) {
    setsockopt(fd.0, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, device.as_bytes()).unwrap();
}

/// A socket of a node's with SO_REUSEADDR, bound to a device.
fn on_device(pair: &Pair, stack: &Stack, kind: i32, device: &str) -> Fd {
    let fd = pair.socket(stack, kind);
    set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).unwrap();
    bind_to(&fd, device);
    fd
}

pub(crate) fn streams(pair: &Pair) {
    let ((_, a_link, _), (_, b_link, _)) = (device_of(pair, &pair.a), device_of(pair, &pair.b));
    let (listener, addr) = pair.listener();
    let client = on_device(pair, &pair.a, libc::SOCK_STREAM, "lo");
    let short = [0i64.to_ne_bytes(), 50_000i64.to_ne_bytes()].concat();
    setsockopt(client.0, libc::SOL_SOCKET, libc::SO_SNDTIMEO, &short).unwrap();
    assert!(connect(client.0, addr).is_err());
    let client = on_device(pair, &pair.a, libc::SOCK_STREAM, &a_link);
    connect(client.0, addr).unwrap();
    let server = Fd(accept(listener.0).unwrap().0);
    send_all(&client, b"linked");
    assert_eq!(read_some(&server, 6), b"linked");
    // A listener of another interface is none for who comes over this one.
    for (device, reached) in [("lo", false), (&*b_link, true)] {
        let listener = on_device(pair, &pair.b, libc::SOCK_STREAM, device);
        bind(listener.0, SocketAddr::new(pair.wildcard(), 0)).unwrap();
        listen(listener.0, 1).unwrap();
        let client = pair.tcp_a();
        let connected = connect(client.0, SocketAddr::new(pair.b_addr, name(&listener).port()));
        match reached {
            true => connected.unwrap(),
            false => assert_eq!(errno(connected), libc::ECONNREFUSED),
        }
    }
}

pub(crate) fn datagrams(pair: &Pair) {
    let ((_, a_link, _), (_, b_link, _)) = (device_of(pair, &pair.a), device_of(pair, &pair.b));
    let (receiver, addr) = pair.udp_b();
    let sender = on_device(pair, &pair.a, libc::SOCK_DGRAM, "lo");
    // Linux sends it to nowhere over IPv4, and knows no way over IPv6.
    let _ = sendto(sender.0, b"lost", NONE, addr);
    bind_to(&sender, &a_link);
    sendto(sender.0, b"linked", NONE, addr).unwrap();
    let mut buffer = [0; 8];
    let len = recv(receiver.0, &mut buffer, NONE).unwrap();
    assert_eq!(&buffer[..len], b"linked");
    // Each of two receivers of a port hears its own interface.
    let local = on_device(pair, &pair.b, libc::SOCK_DGRAM, "lo");
    bind(local.0, SocketAddr::new(pair.wildcard(), 0)).unwrap();
    let port = name(&local).port();
    let linked = on_device(pair, &pair.b, libc::SOCK_DGRAM, &b_link);
    bind(linked.0, SocketAddr::new(pair.wildcard(), port)).unwrap();
    sendto(sender.0, b"far", NONE, SocketAddr::new(pair.b_addr, port)).unwrap();
    let len = recv(linked.0, &mut buffer, NONE).unwrap();
    assert_eq!(&buffer[..len], b"far");
    nonblocking(&local, true);
    assert_eq!(errno(recv(local.0, &mut buffer, NONE)), libc::EAGAIN);
}
