//! UDP, ICMP and neighbours between engines.

use ioth_core::{Domain, Errno, Events, MsgFlags, RecvMsg, SockAddr};
use smoltcp::time::Duration;
use std::io::IoSliceMut;

use super::lan::{ETH, Lan, WIRE, addr, recv, send, send_to};

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
