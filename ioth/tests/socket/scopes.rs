//! Link-local addresses and their scope ids (RFC 4007 §6, ipv6(7)).

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use ioth::Stack;
use ioth::berkeley::*;

use crate::fixture::*;
use crate::ioctl::device_of;

/// A node's link-local address and its interface.
fn link_local(pair: &Pair, stack: &Stack) -> (Ipv6Addr, u32) {
    let (_, _, index) = device_of(pair, stack);
    let mut found = None;
    // Duplicate address detection may still be under way.
    until(|| {
        let fd = pair.socket(stack, libc::SOCK_DGRAM);
        let all_nodes = SocketAddrV6::new("ff02::1".parse().unwrap(), 9, 0, index);
        let IpAddr::V6(own) =
            connect(fd.0, SocketAddr::from(all_nodes)).map_or(pair.wildcard(), |()| name(&fd).ip())
        else {
            return false;
        };
        found = Some(own).filter(Ipv6Addr::is_unicast_link_local);
        found.is_some()
    });
    (found.unwrap(), index)
}

fn scope(addr: SocketAddr) -> u32 {
    match addr {
        SocketAddr::V6(addr) => addr.scope_id(),
        SocketAddr::V4(_) => panic!("{addr} is not of IPv6"),
    }
}

fn with(ip: Ipv6Addr, port: u16, scope: u32) -> SocketAddr {
    SocketAddrV6::new(ip, port, 0, scope).into()
}

pub(crate) fn streams(pair: &Pair) {
    if pair.a_addr.is_ipv4() {
        return;
    }
    let ((a, a_index), (b, b_index)) = (link_local(pair, &pair.a), link_local(pair, &pair.b));
    let listener = pair.tcp_b();
    assert_eq!(errno(bind(listener.0, with(b, 0, 0))), libc::EINVAL);
    bind(listener.0, with(b, 0, b_index)).unwrap();
    assert_eq!(scope(name(&listener)), b_index);
    listen(listener.0, 4).unwrap();
    let port = name(&listener).port();
    let client = pair.tcp_a();
    assert_eq!(errno(connect(client.0, with(b, port, 0))), libc::EINVAL);
    connect(client.0, with(b, port, a_index)).unwrap();
    let (server, from) = accept(listener.0).unwrap();
    let server = Fd(server);
    assert_eq!(peer(&client), with(b, port, a_index));
    assert_eq!(name(&client), with(a, name(&client).port(), a_index));
    assert_eq!(from.as_ip().unwrap(), with(a, name(&client).port(), b_index));
    assert_eq!(peer(&server), with(a, name(&client).port(), b_index));
    assert_eq!(name(&server), with(b, port, b_index));
    send_all(&client, b"there");
    send_all(&server, b"back");
    assert_eq!(read_some(&server, 5), b"there");
    assert_eq!(read_some(&client, 4), b"back");
    // A device stands for the scope id.
    let client = pair.tcp_a();
    let (_, device, _) = device_of(pair, &pair.a);
    setsockopt(client.0, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, device.as_bytes()).unwrap();
    connect(client.0, with(b, port, 0)).unwrap();
    assert_eq!(peer(&client), with(b, port, a_index));
}

pub(crate) fn datagrams(pair: &Pair) {
    if pair.a_addr.is_ipv4() {
        return;
    }
    let ((a, a_index), (b, b_index)) = (link_local(pair, &pair.a), link_local(pair, &pair.b));
    let receiver = pair.socket(&pair.b, libc::SOCK_DGRAM);
    assert_eq!(errno(bind(receiver.0, with(b, 0, 0))), libc::EINVAL);
    assert_eq!(errno(bind(receiver.0, with(b, 0, 99))), libc::ENODEV);
    bind(receiver.0, with(b, 0, b_index)).unwrap();
    assert_eq!(scope(name(&receiver)), b_index);
    let port = name(&receiver).port();
    let sender = pair.socket(&pair.a, libc::SOCK_DGRAM);
    // Without a scope id the first link will do, but not for a connection.
    for scope in [0, a_index] {
        sendto(sender.0, b"x", NONE, with(b, port, scope)).unwrap();
        let (_, from) = recvfrom(receiver.0, &mut [0; 4], NONE).unwrap();
        assert_eq!(from.unwrap().as_ip().unwrap(), with(a, name(&sender).port(), b_index));
        assert_eq!(name(&sender).ip(), pair.wildcard());
    }
    assert_eq!(errno(connect(sender.0, with(b, port, 0))), libc::EINVAL);
    for absent in [1, 99] {
        assert_eq!(errno(sendto(sender.0, b"x", NONE, with(b, port, absent))), libc::ENETUNREACH);
    }
    connect(sender.0, with(b, port, a_index)).unwrap();
    assert_eq!((peer(&sender), scope(name(&sender))), (with(b, port, a_index), a_index));
    sendto(receiver.0, b"y", NONE, name_there(name(&sender), b_index)).unwrap();
    assert_eq!(recv(sender.0, &mut [0; 4], NONE).unwrap(), 1);
    // Once connected, it is bound to the link, and other links are out of the question for another connection only.
    let (_, device, _) = device_of(pair, &pair.a);
    assert_eq!(bound_device(&sender), device);
    assert_eq!(errno(connect(sender.0, with(b, port, 1))), libc::EINVAL);
    connect(sender.0, with(b, port, 0)).unwrap();
    // A device stands for the scope id.
    let sender = pair.socket(&pair.a, libc::SOCK_DGRAM);
    setsockopt(sender.0, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"lo").unwrap();
    assert_eq!(errno(sendto(sender.0, b"x", NONE, with(b, port, 0))), libc::ENETUNREACH);
    sendto(sender.0, b"x", NONE, with(b, port, a_index)).unwrap();
    assert_eq!(recv(receiver.0, &mut [0; 4], NONE).unwrap(), 1);
    assert_eq!(errno(connect(sender.0, with(b, port, a_index))), libc::EINVAL);
    setsockopt(sender.0, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, device.as_bytes()).unwrap();
    connect(sender.0, with(b, port, 0)).unwrap();
    assert_eq!(peer(&sender), with(b, port, a_index));
}

/// The same address as the other node writes it.
fn name_there(addr: SocketAddr, index: u32) -> SocketAddr {
    let SocketAddr::V6(mut addr) = addr else { panic!("{addr} is not of IPv6") };
    addr.set_scope_id(index);
    addr.into()
}

/// The interface that a socket is bound to, by name.
fn bound_device(fd: &Fd) -> String {
    let mut name = [0; 16];
    let len = getsockopt(fd.0, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, &mut name).unwrap();
    String::from_utf8_lossy(&name[..len]).trim_end_matches('\0').to_owned()
}

/// A scope id means something with an address of one link only; an interface with these and the loopback address.
pub(crate) fn binding(pair: &Pair) {
    if pair.a_addr.is_ipv4() {
        return;
    }
    let (a, index) = link_local(pair, &pair.a);
    let (_, device, _) = device_of(pair, &pair.a);
    let IpAddr::V6(global) = pair.a_addr else { return };
    for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
        for named in [1, index, 99] {
            for ip in [global, Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED] {
                let fd = pair.socket(&pair.a, kind);
                bind(fd.0, with(ip, 0, named)).unwrap();
                assert_eq!((scope(name(&fd)), &*bound_device(&fd)), (0, ""));
            }
        }
        for (ip, possible) in [(a, true), (global, true), (Ipv6Addr::LOCALHOST, false)] {
            let fd = pair.socket(&pair.a, kind);
            setsockopt(fd.0, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, device.as_bytes()).unwrap();
            match possible {
                true => bind(fd.0, with(ip, 0, 0)).unwrap(),
                false => assert_eq!(errno(bind(fd.0, with(ip, 0, 0))), libc::EADDRNOTAVAIL),
            }
        }
        let fd = pair.socket(&pair.a, kind);
        assert_eq!(errno(bind(fd.0, with(a, 0, 1))), libc::EADDRNOTAVAIL);
        // A scope id overrules a device.
        setsockopt(fd.0, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"lo").unwrap();
        bind(fd.0, with(a, 0, index)).unwrap();
        assert_eq!((scope(name(&fd)), bound_device(&fd)), (index, device.clone()));
        assert_eq!(errno(bind(fd.0, with(a, 0, 1))), libc::EINVAL);
        assert_eq!(bound_device(&fd), device);
    }
}

/// A datagram socket that is dissolved is bound to no interface any more, not even by SO_BINDTODEVICE; a stream is.
pub(crate) fn dissolved(pair: &Pair) {
    let (_, device, _) = device_of(pair, &pair.a);
    let device_to = |fd: &Fd| setsockopt(fd.0, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, device.as_bytes());
    let (_receiver, addr) = pair.udp_b();
    let fd = pair.socket(&pair.a, libc::SOCK_DGRAM);
    device_to(&fd).unwrap();
    connect(fd.0, addr).unwrap();
    assert_eq!(bound_device(&fd), device);
    connect(fd.0, ioth::SockAddr::Unspecified).unwrap();
    assert_eq!(bound_device(&fd), "");
    let (_listener, addr) = pair.listener();
    let fd = pair.tcp_a();
    device_to(&fd).unwrap();
    connect(fd.0, addr).unwrap();
    connect(fd.0, ioth::SockAddr::Unspecified).unwrap();
    assert_eq!(bound_device(&fd), device);
    if pair.a_addr.is_ipv4() {
        return;
    }
    let ((a, a_index), (b, _)) = (link_local(pair, &pair.a), link_local(pair, &pair.b));
    let fd = pair.socket(&pair.a, libc::SOCK_DGRAM);
    bind(fd.0, with(a, 0, a_index)).unwrap();
    connect(fd.0, with(b, 9, 0)).unwrap();
    connect(fd.0, ioth::SockAddr::Unspecified).unwrap();
    assert_eq!(name(&fd), with(a, 0, 0));
}

pub(crate) fn connected_to_a_group(pair: &Pair) {
    if pair.a_addr.is_ipv4() {
        return;
    }
    let (_, index) = link_local(pair, &pair.a);
    let group: Ipv6Addr = "ff02::9:9".parse().unwrap();
    let fd = pair.socket(&pair.a, libc::SOCK_DGRAM);
    assert_eq!(errno(connect(fd.0, with(group, 9, 0))), libc::EINVAL);
    set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, index as i32).unwrap();
    connect(fd.0, with(group, 9, 0)).unwrap();
    assert_eq!((peer(&fd), scope(name(&fd))), (with(group, 9, index), index));
    let stream = pair.tcp_a();
    assert_eq!(errno(connect(stream.0, with(group, 9, 0))), libc::ENETUNREACH);
}

/// bind(2) to a group of one link needs to know which.
pub(crate) fn groups(pair: &Pair) {
    if pair.a_addr.is_ipv4() {
        return;
    }
    let (_, index) = link_local(pair, &pair.a);
    for group in ["ff01::9:9", "ff02::9:9"] {
        let group = group.parse().unwrap();
        let fd = pair.socket(&pair.a, libc::SOCK_DGRAM);
        assert_eq!(errno(bind(fd.0, with(group, 0, 0))), libc::EINVAL);
        bind(fd.0, with(group, 0, index)).unwrap();
        assert_eq!(scope(name(&fd)), index);
    }
    let wide = pair.socket(&pair.a, libc::SOCK_DGRAM);
    bind(wide.0, with("ff05::9:9".parse().unwrap(), 0, 0)).unwrap();
}

/// What a node sends to itself arrives by the interface that has the address.
pub(crate) fn own_address(pair: &Pair) {
    let (_, device, index) = device_of(pair, &pair.a);
    let receivers = |port: u16| {
        let mut port = port;
        let on = |device: &str| {
            let fd = pair.socket(&pair.a, libc::SOCK_DGRAM);
            set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).unwrap();
            setsockopt(fd.0, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, device.as_bytes()).unwrap();
            bind(fd.0, SocketAddr::new(pair.wildcard(), port)).unwrap();
            port = name(&fd).port();
            fd
        };
        ["lo", &device, ""].map(on)
    };
    let receivers = receivers(0);
    let port = name(&receivers[0]).port();
    let loopback = match pair.a_addr {
        IpAddr::V4(_) => SocketAddr::from(([127, 0, 0, 1], port)),
        IpAddr::V6(_) => with(Ipv6Addr::LOCALHOST, port, 0),
    };
    let mut ways = vec![("", SocketAddr::new(pair.a_addr, port), 1), ("", loopback, 0)];
    ways.push((&*device, SocketAddr::new(pair.a_addr, port), 1));
    if pair.a_addr.is_ipv4() {
        ways.push(("lo", SocketAddr::new(pair.a_addr, port), 0));
    } else {
        let (a, _) = link_local(pair, &pair.a);
        ways.extend([("", with(a, port, index), 1), ("", with(a, port, 0), 1)]);
    }
    for (from, to, receiver) in ways {
        let sender = pair.socket(&pair.a, libc::SOCK_DGRAM);
        setsockopt(sender.0, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, from.as_bytes()).unwrap();
        sendto(sender.0, b"own", NONE, to).unwrap();
        let (len, source) = recvfrom(receivers[receiver].0, &mut [0; 8], NONE).unwrap();
        assert_eq!(len, 3, "from {from:?} to {to}");
        let expected = if is_near(to.ip()) { index } else { 0 };
        if let Some(SocketAddr::V6(source)) = source.unwrap().as_ip() {
            assert_eq!(source.scope_id(), expected);
        }
        for other in &receivers {
            let nothing = recv(other.0, &mut [0; 8], ioth::MsgFlags::DONTWAIT);
            assert_eq!(errno(nothing), libc::EAGAIN, "from {from:?} to {to}");
        }
    }
    if pair.a_addr.is_ipv6() {
        let sender = pair.socket(&pair.a, libc::SOCK_DGRAM);
        setsockopt(sender.0, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"lo").unwrap();
        let own = SocketAddr::new(pair.a_addr, port);
        assert_eq!(errno(sendto(sender.0, b"own", NONE, own)), libc::ENETUNREACH);
    }
}

fn is_near(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// The same for a stream: the listener of that interface has it.
pub(crate) fn own_stream(pair: &Pair) {
    let (_, device, index) = device_of(pair, &pair.a);
    let mut own = vec![SocketAddr::new(pair.a_addr, 0)];
    if pair.a_addr.is_ipv6() {
        own.push(with(link_local(pair, &pair.a).0, 0, index));
    }
    for mut own in own {
        for (bound, reached) in [("lo", false), (&*device, true)] {
            let listener = pair.tcp_a();
            setsockopt(listener.0, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, bound.as_bytes()).unwrap();
            bind(listener.0, SocketAddr::new(pair.wildcard(), 0)).unwrap();
            listen(listener.0, 1).unwrap();
            own.set_port(name(&listener).port());
            let client = pair.tcp_a();
            if !reached {
                assert_eq!(errno(connect(client.0, own)), libc::ECONNREFUSED);
                continue;
            }
            connect(client.0, own).unwrap();
            let (server, from) = accept(listener.0).unwrap();
            let server = Fd(server);
            assert_eq!((from.as_ip().unwrap(), peer(&server)), (name(&client), name(&client)));
            assert_eq!((name(&server), bound_device(&server)), (own, device.clone()));
            send_all(&client, b"own");
            assert_eq!(read_some(&server, 3), b"own");
        }
    }
}
