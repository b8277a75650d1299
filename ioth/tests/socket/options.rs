//! setsockopt(2) and getsockopt(2).

use ioth::berkeley::*;

use crate::fixture::*;

pub(crate) fn types(pair: &Pair) {
    let (listener, _) = pair.listener();
    let (udp, _) = pair.udp_a();
    let get = |fd: &Fd, name| option(fd, libc::SOL_SOCKET, name).unwrap();
    assert_eq!(get(&listener, libc::SO_TYPE), libc::SOCK_STREAM);
    assert_eq!(get(&udp, libc::SO_TYPE), libc::SOCK_DGRAM);
    assert_eq!(get(&listener, libc::SO_DOMAIN), pair.domain());
    assert_eq!(get(&listener, libc::SO_PROTOCOL), libc::IPPROTO_TCP);
    assert_eq!(get(&udp, libc::SO_PROTOCOL), libc::IPPROTO_UDP);
    assert_eq!(get(&listener, libc::SO_ACCEPTCONN), 1);
    assert_eq!(get(&pair.tcp_a(), libc::SO_ACCEPTCONN), 0);
    assert_eq!(get(&listener, libc::SO_ERROR), 0);
}

pub(crate) fn levels(pair: &Pair) {
    let tcp = pair.tcp_a();
    let (hops_level, hops) = match pair.domain() {
        libc::AF_INET => (libc::IPPROTO_IP, libc::IP_TTL),
        _ => (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
    };
    for (level, name, value) in [
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
        (libc::SOL_SOCKET, libc::SO_REUSEADDR, 1),
        (libc::IPPROTO_TCP, libc::TCP_NODELAY, 1),
        (hops_level, hops, 7),
    ] {
        assert_ne!(option(&tcp, level, name).unwrap(), value, "{level} {name}");
        set_option(&tcp, level, name, value).unwrap();
        assert_eq!(option(&tcp, level, name).unwrap(), value, "{level} {name}");
    }
    assert_eq!(errno(set_option(&tcp, hops_level, hops, 256)), libc::EINVAL);
    let udp = pair.socket(&pair.a, libc::SOCK_DGRAM);
    assert_eq!(option(&udp, libc::SOL_SOCKET, libc::SO_BROADCAST).unwrap(), 0);
    set_option(&udp, libc::SOL_SOCKET, libc::SO_BROADCAST, 1).unwrap();
    assert_eq!(option(&udp, libc::SOL_SOCKET, libc::SO_BROADCAST).unwrap(), 1);
}

pub(crate) fn reuse(pair: &Pair) {
    let sockets = [(); 3].map(|()| pair.socket(&pair.b, libc::SOCK_DGRAM));
    for fd in &sockets[..2] {
        set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).unwrap();
    }
    let addr = std::net::SocketAddr::new(pair.b_addr, 0);
    bind(sockets[0].0, addr).unwrap();
    let addr = name(&sockets[0]);
    bind(sockets[1].0, addr).unwrap();
    assert_eq!(errno(bind(sockets[2].0, addr)), libc::EADDRINUSE);
}

pub(crate) fn buffers(pair: &Pair) {
    let tcp = pair.tcp_a();
    for name in [libc::SO_RCVBUF, libc::SO_SNDBUF] {
        // socket(7): the kernel doubles the value to leave room for its bookkeeping.
        set_option(&tcp, libc::SOL_SOCKET, name, 40_000).unwrap();
        assert_eq!(option(&tcp, libc::SOL_SOCKET, name).unwrap(), 80_000);
    }
}

pub(crate) fn unknown(pair: &Pair) {
    let tcp = pair.tcp_a();
    assert_eq!(errno(option(&tcp, libc::SOL_SOCKET, 9999)), libc::ENOPROTOOPT);
    assert_eq!(errno(set_option(&tcp, libc::SOL_SOCKET, 9999, 1)), libc::ENOPROTOOPT);
    assert_eq!(errno(set_option(&tcp, libc::IPPROTO_TCP, 9999, 1)), libc::ENOPROTOOPT);
    assert_eq!(errno(setsockopt(tcp.0, libc::SOL_SOCKET, libc::SO_REUSEADDR, &[1])), libc::EINVAL);
    // A short buffer takes as much as it can.
    let mut two = [0; 2];
    assert_eq!(getsockopt(tcp.0, libc::SOL_SOCKET, libc::SO_TYPE, &mut two).unwrap(), 2);
    assert_eq!(two, libc::SOCK_STREAM.to_ne_bytes()[..2]);
}
