//! Bad input to `vxlan://` and `vxvde://`. What good input does, the kernel and Debian's plug judge, in namespaces.

use std::net::UdpSocket;

use ioth_core::Errno;
use ioth_vde::open;

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
