//! Who may share a port, and who of them receives: udp(7), socket(7)'s SO_REUSEADDR and SO_REUSEPORT.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ioth::berkeley::*;
use ioth::{Events, SockAddr};

use crate::fixture::*;

/// A datagram socket of node b.
fn open(pair: &Pair, ipv6: bool) -> Fd {
    let domain = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    Fd(msocket(Some(&pair.b), domain, libc::SOCK_DGRAM, 0).unwrap())
}

/// Every kind of address with every other one: which exclude each other.
pub(crate) fn families(pair: &Pair) {
    // Addresses that every node has; the first of each pair is the socket's family.
    let any4 = (false, false, Ipv4Addr::UNSPECIFIED.into());
    let one4 = (false, false, Ipv4Addr::LOCALHOST.into());
    let other4 = (false, false, IpAddr::from([127, 0, 0, 2]));
    let any6 = (true, false, Ipv6Addr::UNSPECIFIED.into());
    let any6only = (true, true, Ipv6Addr::UNSPECIFIED.into());
    let one6 = (true, false, Ipv6Addr::LOCALHOST.into());
    let mapped = (true, false, IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped()));
    let mapped_any = (true, false, IpAddr::V6(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped()));
    let all: [(bool, bool, IpAddr); 8] = [any4, one4, other4, any6, any6only, one6, mapped, mapped_any];
    let together = [
        (any4, any6only),
        (any4, one6),
        (one4, other4),
        (one4, any6only),
        (one4, one6),
        (other4, any6only),
        (other4, one6),
        (other4, mapped),
        (any6only, mapped),
        (any6only, mapped_any),
        (one6, mapped),
        (one6, mapped_any),
    ];
    let make = |(ipv6, only, ip), port| {
        let fd = open(pair, ipv6);
        if only {
            set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1).unwrap();
        }
        bind(fd.0, SocketAddr::new(ip, port)).map(|()| fd)
    };
    for first in all {
        for second in all {
            let held = make(first, 0).unwrap();
            let both = make(second, name(&held).port());
            match together.contains(&(first, second)) || together.contains(&(second, first)) {
                true => drop(both.unwrap_or_else(|error| panic!("{first:?} {second:?}: {error}"))),
                false => assert_eq!(errno(both.map(drop)), libc::EADDRINUSE, "{first:?} {second:?}"),
            }
        }
    }
}

pub(crate) fn sharing(pair: &Pair) {
    // What the first and the second socket have set, and whether both may have the port.
    for (first, second, together) in [
        (&[][..], &[][..], false),
        (&[libc::SO_REUSEADDR], &[], false),
        (&[libc::SO_REUSEADDR], &[libc::SO_REUSEADDR], true),
        (&[libc::SO_REUSEPORT], &[], false),
        (&[libc::SO_REUSEPORT], &[libc::SO_REUSEPORT], true),
        (&[libc::SO_REUSEPORT], &[libc::SO_REUSEADDR], false),
        (&[libc::SO_REUSEADDR, libc::SO_REUSEPORT], &[libc::SO_REUSEPORT], true),
    ] {
        let make = |options: &[i32], port| {
            let fd = pair.socket(&pair.b, libc::SOCK_DGRAM);
            for name in options {
                set_option(&fd, libc::SOL_SOCKET, *name, 1).unwrap();
            }
            bind(fd.0, SocketAddr::new(pair.b_addr, port)).map(|()| fd)
        };
        let held = make(first, 0).unwrap();
        let both = make(second, name(&held).port());
        match together {
            true => drop(both.unwrap()),
            false => assert_eq!(errno(both.map(drop)), libc::EADDRINUSE, "{first:?} {second:?}"),
        }
    }
}

/// With SO_REUSEADDR the last one that was bound receives; a connected one before it, and a specific address before any.
pub(crate) fn best_fit(pair: &Pair) {
    let (a, a_addr) = pair.udp_a();
    let make = |ip, port| {
        let fd = pair.socket(&pair.b, libc::SOCK_DGRAM);
        set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).unwrap();
        bind(fd.0, SocketAddr::new(ip, port)).unwrap();
        fd
    };
    let mut sockets = vec![make(pair.wildcard(), 0)];
    let to = SocketAddr::new(pair.b_addr, name(&sockets[0]).port());
    sockets.push(make(pair.wildcard(), to.port()));
    sockets.push(make(pair.b_addr, to.port()));
    sockets.push(make(pair.b_addr, to.port()));
    let expect = |sockets: &[Fd], who: usize| {
        sendto(a.0, b"x", NONE, to).unwrap();
        wait(&sockets[who], Events::IN);
        for (i, fd) in sockets.iter().enumerate() {
            assert_eq!(events(fd).contains(Events::IN), i == who, "{i} of {who}");
        }
        read(sockets[who].0, &mut [0; 4]).unwrap();
    };
    expect(&sockets, 3);
    connect(sockets[2].0, a_addr).unwrap();
    expect(&sockets, 2);
    connect(sockets[2].0, SockAddr::Unspecified).unwrap();
    sockets.truncate(2);
    expect(&sockets, 1);
}

/// With SO_REUSEPORT a hash of the 4-tuple says who receives: each sender one and the same, all together all.
pub(crate) fn balanced(pair: &Pair) {
    let make = |port| {
        let fd = pair.socket(&pair.b, libc::SOCK_DGRAM);
        set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1).unwrap();
        bind(fd.0, SocketAddr::new(pair.b_addr, port)).unwrap();
        nonblocking(&fd, true);
        fd
    };
    let first = make(0);
    let to = name(&first);
    let sockets = [first, make(to.port()), make(to.port())];
    let senders: Vec<_> = (0..60).map(|_| pair.udp_a()).collect();
    for (fd, _) in senders.iter().chain(&senders) {
        sendto(fd.0, b"x", NONE, to).unwrap();
    }
    let mut heard: Vec<Vec<SockAddr>> = vec![Vec::new(); sockets.len()];
    // The last sender's second datagram is the last one.
    let mut left = 2 * senders.len();
    until(|| {
        for (fd, heard) in sockets.iter().zip(&mut heard) {
            while let Ok((_, from)) = recvfrom(fd.0, &mut [0; 4], NONE) {
                heard.push(from.unwrap());
                left -= 1;
            }
        }
        left == 0
    });
    let mut everybody = HashSet::new();
    for heard in &heard {
        let own: HashSet<_> = heard.iter().copied().collect();
        // 60 senders miss one of three sockets once in 10^10 times.
        assert!(!own.is_empty() && own.len() * 2 == heard.len(), "each twice or not at all");
        assert!(own.iter().all(|from| everybody.insert(*from)), "nobody hears another's sender");
    }
}
