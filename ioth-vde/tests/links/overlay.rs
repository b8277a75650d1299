//! Bad input to `vxlan://` and `vxvde://`. What good input does, the kernel and Debian's plug judge, in namespaces.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use ioth_core::Errno;
use ioth_vde::open;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt};

use crate::plug::{PATIENCE, Plug, frame, wait_until};

/// The header of network 1.
const HEADER: [u8; 8] = [8, 0, 0, 0, 0, 0, 1, 0];

fn datagram(header: [u8; 8], frame: &[u8]) -> Vec<u8> {
    [&header[..], frame].concat()
}

/// A port that nobody has.
fn port() -> u16 {
    UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn what_is_no_frame_of_the_network_is_counted() {
    let port = port();
    let plug = Plug::new(&format!("vxlan://127.0.0.2/port={port}/bind=127.0.0.1/mtu=1500"));
    let stranger = UdpSocket::bind(("127.0.0.2", port)).unwrap();
    let send = |bytes: &[u8]| {
        stranger.send_to(bytes, ("127.0.0.1", port)).unwrap();
    };
    for len in 0..8 {
        send(&HEADER[..len]);
    }
    send(&datagram([0; 8], &frame(1, 2, 60, 0)));
    send(&datagram([8, 0, 0, 0, 0, 0, 2, 0], &frame(1, 2, 60, 0)));
    send(&vec![0x55; 60_000]);
    for len in [0, 1, 13, 1519] {
        send(&datagram(HEADER, &frame(1, 2, 2000, 0)[..len]));
    }
    send(&datagram(HEADER, &frame(1, 2, 14, 0)));
    send(&datagram(HEADER, &frame(1, 2, 1514, 1)));
    assert_eq!(plug.seen.frames(2), [frame(1, 2, 14, 0), frame(1, 2, 1514, 1)]);
    let counters = plug.link.counters();
    // Eight too short for a header, two of other networks; too long, and too short for Ethernet.
    assert_eq!((counters.rx_bad_header, counters.rx_bad_length), (10, 5));
}

/// Of both sockets of a group's member: its own, and the group's, by which another network's frames come.
#[test]
fn what_is_no_frame_of_a_group_is_counted() {
    let group = Ipv4Addr::new(239, 1, 2, 3);
    let port = port();
    let vnl = |vni: u8| format!("vxvde://{group}/port={port}/if=lo/vni={vni}");
    let member = || {
        let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
        setsockopt(&fd, sockopt::ReuseAddr, &true).unwrap();
        bind(fd.as_raw_fd(), &SockaddrIn::from(std::net::SocketAddrV4::new(group, port))).unwrap();
        let member = UdpSocket::from(fd);
        member.join_multicast_v4(&group, &Ipv4Addr::LOCALHOST).unwrap();
        member.set_read_timeout(Some(PATIENCE)).unwrap();
        member
    };
    let member = member();
    let plug = Plug::new(&vnl(1));
    plug.send([frame(0xff, 1, 60, 1)]);
    let mut buffer = [0; 2000];
    let (len, end) = member.recv_from(&mut buffer).unwrap();
    assert_eq!(buffer[..len], datagram(HEADER, &frame(0xff, 1, 60, 1)));
    let stranger = UdpSocket::bind((end.ip(), 0)).unwrap();
    let send = |bytes: &[u8]| {
        stranger.send_to(bytes, SocketAddr::new(end.ip(), end.port())).unwrap();
    };
    for len in 0..8 {
        send(&HEADER[..len]);
    }
    send(&datagram([0; 8], &frame(1, 2, 60, 0)));
    send(&vec![0x55; 60_000]);
    for len in [1, 13, 1519] {
        send(&datagram(HEADER, &frame(1, 2, 2000, 0)[..len]));
    }
    // Who leaves, and was never there.
    send(&HEADER);
    send(&datagram(HEADER, &frame(1, 2, 1514, 1)));
    assert_eq!(plug.seen.frames(1), [frame(1, 2, 1514, 1)]);
    let counters = plug.link.counters();
    // Eight too short for a header and one with another; too long, and too short for Ethernet.
    assert_eq!((counters.rx_bad_header, counters.rx_bad_length), (9, 4));
    let other = Plug::new(&vnl(2));
    other.send([frame(0xff, 3, 60, 2)]);
    wait_until("the other network's frame", || plug.link.counters().rx_bad_header == 10);
    assert!(plug.seen.is_empty());
}

#[test]
fn a_flood_of_addresses_leaves_the_network_as_it_was() {
    let port = port();
    let plug = Plug::new(&format!("vxlan://127.0.0.2/port={port}/bind=127.0.0.1/hashsize=100"));
    let peer = UdpSocket::bind(("127.0.0.2", port)).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    let flooder = UdpSocket::bind("127.0.0.3:0").unwrap();
    let mut flood = frame(1, 9, 60, 0);
    // None of these is a station that we know.
    flood[6] = 6;
    for number in 0..100_000u32 {
        flood[8..12].copy_from_slice(&number.to_be_bytes());
        // Where the queue is full, it is lost.
        let _ = flooder.send_to(&datagram(HEADER, &flood), ("127.0.0.1", port));
    }
    let reach = || {
        peer.send_to(&datagram(HEADER, &frame(1, 2, 60, 7)), ("127.0.0.1", port)).unwrap();
        plug.link.counters().rx_frames > 0
    };
    wait_until("a frame in the flood", reach);
    plug.send([frame(2, 1, 60, 8)]);
    let mut buffer = [0; 100];
    let len = peer.recv(&mut buffer).unwrap();
    assert_eq!(buffer[..len], datagram(HEADER, &frame(2, 1, 60, 8)));
}

#[test]
fn ends_of_one_host_need_addresses_of_their_own() {
    let port = port();
    let end = |options: &str| open(&format!("vxlan://127.0.0.9/port={port}{options}"));
    let one = end("").unwrap();
    let error = end("").unwrap_err();
    assert_eq!(error.errno(), Errno::EADDRINUSE);
    assert!(error.to_string().contains("bind="), "{error}");
    drop(one);
    let _two: Vec<_> = ["/bind=127.0.0.1", "/bind=127.0.0.2"].map(|bind| end(bind).unwrap()).into();
    let error = end("/bind=192.0.2.1").unwrap_err();
    assert_eq!(error.errno(), Errno::EADDRNOTAVAIL);
}
