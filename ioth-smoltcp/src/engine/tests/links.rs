//! A node with two links, and on each a neighbour of the same link-local address.

use std::net::SocketAddr;

use ioth_core::{Domain, Errno, Events, SockAddr, SocketType};
use ioth_vde::Batch;
use smoltcp::time::{Duration, Instant};

use super::lan::{WIRE, mac, recv, send};
use crate::engine::addr::AddrAttrs;
use crate::engine::{Engine, SocketId};

/// One engine in the middle, with an interface to each of the others.
struct Star {
    now: Instant,
    middle: Engine,
    ends: [Engine; 2],
}

const LINKS: [u32; 2] = [2, 3];

fn node(i: usize, host: u16, links: usize) -> Engine {
    let mut engine = Engine::new([i as u8 + 1; 32]);
    for link in 0..links {
        // Neither of two links knows the other, so the hardware addresses may be the same, too.
        let ifindex = engine.add_interface(&format!("vde{link}"), mac(host.into()), WIRE).unwrap();
        let tables = engine.tables_mut();
        tables.set_up(ifindex, true).unwrap();
        let cidr = format!("fe80::{host:x}/64").parse().unwrap();
        tables.add_addr(ifindex, cidr, AddrAttrs::default()).unwrap();
    }
    engine
}

impl Star {
    fn new() -> Star {
        Star { now: Instant::ZERO, middle: node(0, 1, 2), ends: [node(1, 2, 1), node(2, 2, 1)] }
    }

    fn run_until(&mut self, mut done: impl FnMut(&mut Star) -> bool) {
        for _ in 0..10_000 {
            if done(self) {
                return;
            }
            self.now += Duration::from_millis(1);
            self.middle.set_now(self.now);
            self.middle.poll();
            for (i, end) in self.ends.iter_mut().enumerate() {
                end.set_now(self.now);
                end.poll();
                let [mut out, mut back] = [Batch::new(), Batch::new()];
                self.middle.take_egress(LINKS[i], &mut out);
                end.take_egress(LINKS[0], &mut back);
                out.into_iter().for_each(|frame| end.handle_frame(LINKS[0], frame));
                back.into_iter().for_each(|frame| self.middle.handle_frame(LINKS[i], frame));
            }
            self.middle.resume();
            self.ends.iter_mut().for_each(Engine::resume);
        }
        panic!("it does not come");
    }
}

fn addr(host: u16, port: u16, scope: u32) -> SockAddr {
    let SocketAddr::V6(mut addr) = format!("[fe80::{host:x}]:{port}").parse().unwrap() else { panic!() };
    addr.set_scope_id(scope);
    SockAddr::Ip(addr.into())
}

fn stream(engine: &mut Engine) -> SocketId {
    engine.socket(Domain::INET6, SocketType::STREAM, 0).unwrap()
}

/// Data goes both ways on each, and none of it to the other.
fn talk(star: &mut Star, middle: [SocketId; 2], ends: [SocketId; 2]) {
    for (i, text) in [b"left", b"rite"].into_iter().enumerate() {
        send(&mut star.middle, middle[i], text).unwrap();
        send(&mut star.ends[i], ends[i], text).unwrap();
    }
    star.run_until(|star| {
        let at_middle = middle.iter().all(|id| star.middle.events(*id).contains(Events::IN));
        at_middle && (0..2).all(|i| star.ends[i].events(ends[i]).contains(Events::IN))
    });
    for (i, text) in [b"left", b"rite"].into_iter().enumerate() {
        let mut got = [0; 8];
        assert_eq!(recv(&mut star.middle, middle[i], &mut got), Ok(4));
        assert_eq!(&got[..4], text);
        assert_eq!(recv(&mut star.ends[i], ends[i], &mut got), Ok(4));
        assert_eq!(&got[..4], text);
    }
}

#[test]
fn the_same_peer_on_two_links() {
    let mut star = Star::new();
    let listener = stream(&mut star.middle);
    star.middle.bind(listener, &SockAddr::Ip("[::]:80".parse().unwrap())).unwrap();
    star.middle.listen(listener, 5).unwrap();
    let ends = [0, 1].map(|i| {
        let end = &mut star.ends[i];
        let id = stream(end);
        end.bind(id, &addr(2, 1000, LINKS[0])).unwrap();
        assert_eq!(end.connect(id, &addr(1, 80, LINKS[0])), Err(Errno::EINPROGRESS));
        id
    });
    let mut accepted = Vec::new();
    star.run_until(|star| {
        accepted.extend(star.middle.accept(listener).ok());
        accepted.len() == 2
    });
    // Both have the same name and the same peer, but for the link.
    let scope = |addr: &SockAddr| match addr {
        SockAddr::Ip(SocketAddr::V6(addr)) => addr.scope_id(),
        _ => 0,
    };
    accepted.sort_by_key(|(_, peer)| scope(peer));
    assert_eq!([0, 1].map(|i| scope(&accepted[i].1)), LINKS);
    talk(&mut star, [accepted[0].0, accepted[1].0], ends);
    // One is reset, and the other lives on.
    star.ends[0].set_option(ends[0], libc::SOL_SOCKET, libc::SO_LINGER, &[1, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    star.ends[0].close(ends[0]);
    let (gone, there) = (accepted[0].0, accepted[1].0);
    star.run_until(|star| star.middle.events(gone).contains(Events::ERR));
    assert!(!star.middle.events(there).intersects(Events::ERR | Events::HUP | Events::RDHUP));
}

#[test]
fn the_same_connection_to_two_links() {
    let mut star = Star::new();
    let listeners = [0, 1].map(|i| {
        let end = &mut star.ends[i];
        let id = stream(end);
        end.bind(id, &SockAddr::Ip("[::]:80".parse().unwrap())).unwrap();
        end.listen(id, 5).unwrap();
        id
    });
    let middle = LINKS.map(|link| {
        let id = stream(&mut star.middle);
        star.middle.bind(id, &addr(1, 1000, link)).unwrap();
        assert_eq!(star.middle.connect(id, &addr(2, 80, link)), Err(Errno::EINPROGRESS));
        id
    });
    let mut accepted = [None, None];
    star.run_until(|star| {
        for i in 0..2 {
            accepted[i] = accepted[i].or(star.ends[i].accept(listeners[i]).ok().map(|(id, _)| id));
        }
        accepted.iter().all(Option::is_some) && middle.iter().all(|id| !star.middle.connecting(*id))
    });
    talk(&mut star, middle, accepted.map(Option::unwrap));
    // The same once more on one link is taken.
    let third = stream(&mut star.middle);
    star.middle.set_option(third, libc::SOL_SOCKET, libc::SO_REUSEADDR, &[1, 0, 0, 0]).unwrap();
    assert_eq!(star.middle.bind(third, &addr(1, 1000, LINKS[0])), Err(Errno::EADDRINUSE));
}
