//! UDP, ICMP and neighbours between engines.

use ioth_core::{Cidr, Domain, Errno, Events, MsgFlags, RecvMsg, Result, SendMsg, SockAddr};
use smoltcp::time::Duration;
use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;

use super::lan::{ETH, Lan, WIRE, addr, recv, send, send_to};
use crate::engine::SocketId;
use crate::engine::route::{AddMode, Route};

const SHORT: Duration = Duration::from_secs(5);

#[test]
fn there_and_back() {
    for v6 in [true, false] {
        let mut lan = Lan::new(2, WIRE);
        let domain = if v6 { Domain::INET6 } else { Domain::INET };
        let (a, b) = (lan.datagrams(0, domain), lan.datagrams(1, domain));
        lan.nodes[1].bind(b, &SockAddr::Ip(addr(1, v6, 7))).unwrap();
        assert_eq!(send_to(&mut lan.nodes[0], a, b"ping", addr(1, v6, 7)), Ok(4));
        assert!(lan.run_until(SHORT, |lan| lan.nodes[1].events(b).contains(Events::IN)));
        let mut buffer = [0; 16];
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let mut message = RecvMsg::new(&mut slices);
        assert_eq!(lan.nodes[1].recv(b, &mut message, MsgFlags::empty()), Ok(4));
        let from = message.addr.and_then(|addr| addr.as_ip()).unwrap();
        assert_eq!(from.ip(), addr(0, v6, 0).ip());
        assert_eq!(send_to(&mut lan.nodes[1], b, b"", from), Ok(0));
        assert!(lan.run_until(SHORT, |lan| lan.nodes[0].events(a).contains(Events::IN)));
        assert_eq!(recv(&mut lan.nodes[0], a, &mut buffer), Ok(0), "an empty datagram is one");
        assert_eq!(recv(&mut lan.nodes[0], a, &mut buffer), Err(Errno::EAGAIN));
    }
}

#[test]
fn nobody_has_the_port() {
    for v6 in [true, false] {
        let mut lan = Lan::new(2, WIRE);
        let a = lan.datagrams(0, if v6 { Domain::INET6 } else { Domain::INET });
        lan.nodes[0].connect(a, &SockAddr::Ip(addr(1, v6, 7))).unwrap();
        send(&mut lan.nodes[0], a, b"anybody?").unwrap();
        assert!(lan.run_until(SHORT, |lan| lan.nodes[0].events(a).contains(Events::ERR)));
        assert_eq!(recv(&mut lan.nodes[0], a, &mut [0; 8]), Err(Errno::ECONNREFUSED));
        assert_eq!(recv(&mut lan.nodes[0], a, &mut [0; 8]), Err(Errno::EAGAIN));
    }
}

#[test]
fn a_full_buffer_drops_and_counts() {
    let mut lan = Lan::new(2, WIRE);
    let (a, b) = (lan.datagrams(0, Domain::INET), lan.datagrams(1, Domain::INET));
    lan.nodes[1].bind(b, &SockAddr::Ip(addr(1, false, 7))).unwrap();
    let data = [0; 1000];
    for _ in 0..500 {
        send_to(&mut lan.nodes[0], a, &data, addr(1, false, 7)).unwrap();
        lan.settle();
        lan.run_until(Duration::from_millis(1), |_| false);
    }
    let mut received = 0;
    while recv(&mut lan.nodes[1], b, &mut [0; 1500]).is_ok() {
        received += 1;
    }
    assert_eq!(received + lan.nodes[1].drops().receive_buffer, 500);
    assert!(received > 50, "{received}");
}

#[test]
fn a_sender_waits_for_its_link() {
    let mut lan = Lan::new(2, WIRE);
    let a = lan.datagrams(0, Domain::INET);
    lan.nodes[0].set_blocked(ETH, true);
    assert_eq!(send_to(&mut lan.nodes[0], a, b"x", addr(1, false, 7)), Err(Errno::EAGAIN));
    assert!(!lan.nodes[0].events(a).contains(Events::OUT));
    lan.nodes[0].set_blocked(ETH, false);
    assert!(lan.nodes[0].events(a).contains(Events::OUT));
    assert_eq!(send_to(&mut lan.nodes[0], a, b"x", addr(1, false, 7)), Ok(1));
}

#[test]
fn a_hundred_nodes_reach_each_other() {
    let mut lan = Lan::new(100, WIRE);
    let mut dice = super::lan::Dice(1);
    lan.fate = Box::new(move |_| {
        let delay = Duration::from_micros(100 + dice.next() % 2000);
        if dice.percent(3) { Vec::new() } else { vec![delay] }
    });
    let sockets: Vec<_> = (0..100).map(|i| lan.datagrams(i, Domain::INET6)).collect();
    for (i, &id) in sockets.iter().enumerate() {
        lan.nodes[i].bind(id, &SockAddr::Ip(addr(i, true, 7))).unwrap();
    }
    // Everybody greets its neighbour until the greeting came: some are lost.
    let mut heard = [false; 100];
    for _ in 0..50 {
        for (i, &id) in sockets.iter().enumerate() {
            let next = (i + 1) % 100;
            if !heard[next] {
                let _ = send_to(&mut lan.nodes[i], id, &[i as u8], addr(next, true, 7));
            }
        }
        lan.run_until(Duration::from_millis(500), |_| false);
        for (i, &id) in sockets.iter().enumerate() {
            let mut byte = [0];
            while recv(&mut lan.nodes[i], id, &mut byte).is_ok() {
                assert_eq!((usize::from(byte[0]) + 1) % 100, i);
                heard[i] = true;
            }
        }
    }
    assert!(heard.iter().all(|heard| *heard));
}

const MORE: MsgFlags = MsgFlags::MORE;

fn send_more(lan: &mut Lan, id: SocketId, data: &[u8]) -> Result<usize> {
    lan.nodes[0].send(id, &SendMsg::new(&[IoSlice::new(data)]), MORE)
}

fn cork(lan: &mut Lan, id: SocketId, on: i32) {
    lan.nodes[0].set_option(id, libc::IPPROTO_UDP, libc::UDP_CORK, &on.to_ne_bytes()).unwrap();
}

/// What arrived at node 1, datagram by datagram.
fn arrived(lan: &mut Lan, id: SocketId) -> Vec<Vec<u8>> {
    lan.run_for(Duration::from_secs(1));
    let mut buffer = [0; 64];
    std::iter::from_fn(|| recv(&mut lan.nodes[1], id, &mut buffer).ok().map(|len| buffer[..len].to_vec()))
        .collect()
}

#[test]
fn a_cork_under_back_pressure_takes_each_piece_once() {
    for v6 in [true, false] {
        let mut lan = Lan::new(2, WIRE);
        let domain = if v6 { Domain::INET6 } else { Domain::INET };
        let (a, b) = (lan.datagrams(0, domain), lan.datagrams(1, domain));
        lan.nodes[1].bind(b, &SockAddr::Ip(addr(1, v6, 7))).unwrap();
        lan.nodes[0].connect(a, &SockAddr::Ip(addr(1, v6, 7))).unwrap();
        send_more(&mut lan, a, b"A").unwrap();
        lan.nodes[0].set_blocked(ETH, true);
        for _ in 0..3 {
            assert_eq!(send_more(&mut lan, a, b"B"), Err(Errno::EAGAIN));
            assert_eq!(send(&mut lan.nodes[0], a, b"B"), Err(Errno::EAGAIN));
        }
        assert!(!lan.nodes[0].events(a).contains(Events::OUT));
        lan.nodes[0].set_blocked(ETH, false);
        assert_eq!(send(&mut lan.nodes[0], a, b"B"), Ok(1));
        assert_eq!(arrived(&mut lan, b), [b"AB"]);
        // What was taken leaves with the cork, and is not in front of what is sent next.
        cork(&mut lan, a, 1);
        send(&mut lan.nodes[0], a, b"C").unwrap();
        lan.nodes[0].set_blocked(ETH, true);
        cork(&mut lan, a, 0);
        lan.nodes[0].set_blocked(ETH, false);
        send(&mut lan.nodes[0], a, b"D").unwrap();
        assert_eq!(arrived(&mut lan, b), [b"C", b"D"]);
    }
}

#[test]
fn a_cork_that_does_not_fit_its_new_way_is_dropped() {
    let mut lan = Lan::new(2, WIRE);
    let (a, b) = (lan.datagrams(0, Domain::INET6), lan.datagrams(1, Domain::INET));
    lan.nodes[1].bind(b, &SockAddr::Ip(addr(1, false, 7))).unwrap();
    cork(&mut lan, a, 1);
    assert_eq!(send_to(&mut lan.nodes[0], a, &vec![0; 65_527], addr(1, true, 7)), Ok(65_527));
    lan.nodes[0].connect(a, &SockAddr::Ip("[::ffff:10.0.0.2]:7".parse().unwrap())).unwrap();
    cork(&mut lan, a, 0);
    send(&mut lan.nodes[0], a, b"next").unwrap();
    assert_eq!(arrived(&mut lan, b), [b"next"]);
}

#[test]
fn a_route_without_room_for_a_packet() {
    const PROBE: i32 = 3;
    for v6 in [true, false] {
        let mut lan = Lan::new(1, WIRE);
        let a = lan.datagrams(0, if v6 { Domain::INET6 } else { Domain::INET });
        let to: SocketAddr = if v6 { "[fd01::1]:7" } else { "192.0.2.1:7" }.parse().unwrap();
        let mut route = Route::new(Cidr::new(to.ip(), if v6 { 128 } else { 32 }).unwrap(), ETH);
        let none = if v6 { Errno::EMSGSIZE } else { Errno::ENETUNREACH };
        let (level, name) = if v6 {
            (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER)
        } else {
            (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER)
        };
        for mtu in [10, 39] {
            route.mtu = mtu;
            lan.nodes[0].tables_mut().put_route(route.clone(), AddMode::REPLACE).unwrap();
            for discover in 0..PROBE {
                lan.nodes[0].set_option(a, level, name, &discover.to_ne_bytes()).unwrap();
                for len in [0, 1, 100] {
                    assert_eq!(
                        send_to(&mut lan.nodes[0], a, &vec![0; len], to),
                        Err(none),
                        "{mtu} {discover}"
                    );
                }
            }
            // It does not look at routes.
            lan.nodes[0].set_option(a, level, name, &PROBE.to_ne_bytes()).unwrap();
            assert_eq!(send_to(&mut lan.nodes[0], a, b"x", to), Ok(1));
            if v6 {
                lan.nodes[0].set_option(a, level, name, &0i32.to_ne_bytes()).unwrap();
                lan.nodes[0].set_option(a, level, libc::IPV6_DONTFRAG, &1i32.to_ne_bytes()).unwrap();
                assert_eq!(send_to(&mut lan.nodes[0], a, b"x", to), Err(none));
            }
            // A connection does not come about, and does no harm.
            let stream = lan.stream(0, if v6 { Domain::INET6 } else { Domain::INET });
            let _ = lan.nodes[0].connect(stream, &SockAddr::Ip(to));
            lan.run_for(Duration::from_secs(5));
        }
    }
}
