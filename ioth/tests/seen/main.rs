//! What poll(2), select(2) and epoll(7) say in a program that has inherited the descriptor, and knows nothing of us.
//!
//! It is a test of its own, apart from `socket`: a program that starts has everybody's descriptors for a moment, which
//! tests of the last close notice.

#[path = "../socket/fixture.rs"]
#[allow(dead_code)]
mod fixture;
#[path = "../socket/namespaces.rs"]
#[allow(dead_code)]
mod namespaces;
#[path = "../../../ioth-core/tests/poller/client.rs"]
#[allow(dead_code)]
mod poller;
#[path = "../socket/sys.rs"]
mod sys;

use std::os::fd::OwnedFd;

use ioth::berkeley::*;
use ioth::{Events, MsgFlags};
use ioth_kernel::calls;

use fixture::*;
use poller::Poller;

const IN: Events = Events::IN;
const OUT: Events = Events::OUT;
const RDHUP: Events = Events::RDHUP;
const HUP: Events = Events::HUP;
const ERR: Events = Events::ERR;
const NONE_OF_THEM: Events = Events::empty();
/// A connection that is over.
const OVER: Events = IN.union(OUT).union(RDHUP).union(HUP);

/// Another program with a duplicate of a descriptor.
struct Other(Poller);

impl Other {
    fn new(fd: &Fd) -> Self {
        let fd: OwnedFd = calls::with_number(fd.0, |fd| Ok(fd.try_clone_to_owned())).unwrap().unwrap();
        Other(Poller::new(fd))
    }

    fn ask(&mut self, command: &str) -> Events {
        Events::from_bits_retain(self.0.ask(command))
    }

    /// Level-triggered, all three ways, once it is so.
    #[track_caller]
    fn shows(&mut self, events: Events) {
        let deadline = std::time::Instant::now() + LONG;
        while self.ask("poll") != events {
            assert!(std::time::Instant::now() < deadline, "{:?} and not {events:?}", self.ask("poll"));
        }
        assert_eq!(self.ask("epoll-lt"), events, "level-triggered epoll");
        // POLLIN_SET, POLLOUT_SET and POLLEX_SET of the kernel's fs/select.c.
        let mut sets = events & (IN | OUT | Events::PRI);
        sets.set(IN, events.intersects(IN | HUP | ERR));
        sets.set(OUT, events.intersects(OUT | ERR));
        assert_eq!(self.ask("select"), sets, "select(2)");
    }

    /// The same, and an edge that says so, once.
    #[track_caller]
    fn turns(&mut self, events: Events) {
        self.shows(events);
        assert_eq!(self.ask("epoll-et"), events, "edge-triggered epoll");
        self.no_edge();
    }

    #[track_caller]
    fn no_edge(&mut self) {
        assert_eq!(self.ask("epoll-et"), NONE_OF_THEM, "no edge");
    }
}

/// What Linux shows, and what a signal fd does where it differs: docs/posix.md has the list.
fn listed(pair: &Pair, linux: Events, signal_fd: Events) -> Events {
    if pair.native { linux } else { signal_fd }
}

fn fresh(pair: &Pair) {
    Other::new(&pair.tcp_a()).turns(listed(pair, OUT | HUP, OUT));
    Other::new(&pair.udp_a().0).turns(OUT);
}

fn listening(pair: &Pair) {
    let (listener, addr) = pair.listener();
    let mut other = Other::new(&listener);
    other.shows(NONE_OF_THEM);
    other.no_edge();
    let clients = [pair.tcp_a(), pair.tcp_a()];
    connect(clients[0].0, addr).unwrap();
    other.turns(IN);
    connect(clients[1].0, addr).unwrap();
    other.shows(IN);
    for rest in [IN, NONE_OF_THEM] {
        let accepted = Fd(accept(listener.0).unwrap().0);
        other.shows(rest);
        drop(accepted);
    }
}

fn connecting(pair: &Pair) {
    let (listener, addr) = pair.listener();
    listen(listener.0, 0).unwrap();
    let clients = [(); 4].map(|()| pair.socket(&pair.a, libc::SOCK_STREAM | libc::SOCK_NONBLOCK));
    for client in &clients {
        assert_eq!(errno(connect(client.0, addr)), libc::EINPROGRESS);
    }
    // The listener's queue is full: the last one waits.
    let mut other = Other::new(&clients[3]);
    other.shows(NONE_OF_THEM);
    other.no_edge();
    let mut first = Other::new(&clients[0]);
    first.turns(OUT);
}

fn refused(pair: &Pair) {
    let (_closed, addr) = pair.refusing();
    let client = pair.socket(&pair.a, libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
    assert_eq!(errno(connect(client.0, addr)), libc::EINPROGRESS);
    let mut other = Other::new(&client);
    other.turns(OVER | ERR);
    assert_eq!(so_error(&client), libc::ECONNREFUSED);
    other.shows(listed(pair, OVER, OVER | ERR));
}

fn connected(pair: &Pair) {
    let (client, server) = pair.connected();
    let mut other = Other::new(&server);
    other.turns(OUT);
    for _ in 0..3 {
        send_all(&client, b"data");
        other.turns(IN | OUT);
        read_some(&server, 3);
        other.shows(IN | OUT);
        read_some(&server, 1);
        other.shows(OUT);
        other.no_edge();
    }
}

fn full(pair: &Pair) {
    let (client, server) = pair.connected();
    let mut other = Other::new(&client);
    other.turns(OUT);
    let data = vec![7; 1 << 16];
    let mut sent = 0;
    // What one call takes depends on how fast the other end acknowledges: until it stays full.
    loop {
        match send(client.0, &data, MsgFlags::DONTWAIT) {
            Ok(len) => sent += len,
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
                if Edges::new(&client).wait(std::time::Duration::from_millis(300)).is_empty() {
                    break;
                }
            }
        }
    }
    other.shows(NONE_OF_THEM);
    assert_eq!(read_some(&server, sent).len(), sent);
    other.shows(OUT);
}

fn half_closed(pair: &Pair) {
    let (client, server) = pair.connected();
    let (mut at_client, mut at_server) = (Other::new(&client), Other::new(&server));
    at_client.turns(OUT);
    at_server.turns(OUT);
    shutdown(client.0, libc::SHUT_WR).unwrap();
    at_server.turns(IN | OUT | RDHUP);
    at_client.shows(OUT);
    // The other way as well: it is over.
    shutdown(server.0, libc::SHUT_WR).unwrap();
    at_server.shows(OVER);
    at_client.shows(OVER);
}

fn shut_for_reading(pair: &Pair) {
    let (client, server) = pair.connected();
    let mut other = Other::new(&client);
    other.turns(OUT);
    shutdown(client.0, libc::SHUT_RD).unwrap();
    other.turns(IN | OUT | RDHUP);
    send_all(&client, b"goes on");
    assert_eq!(read_some(&server, 7), b"goes on");
    other.shows(IN | OUT | RDHUP);
}

fn reset(pair: &Pair) {
    let (client, server) = pair.connected();
    let mut other = Other::new(&client);
    other.turns(OUT);
    send_all(&client, b"unread");
    wait(&server, IN);
    drop(server);
    other.turns(OVER | ERR);
    assert_eq!(so_error(&client), libc::ECONNRESET);
    other.shows(listed(pair, OVER, OVER | ERR));
}

fn datagrams(pair: &Pair) {
    let ((a, _), (b, addr)) = (pair.udp_a(), pair.udp_b());
    let mut other = Other::new(&b);
    other.turns(OUT);
    for _ in 0..2 {
        sendto(a.0, b"x", NONE, addr).unwrap();
        other.turns(IN | OUT);
        read(b.0, &mut [0]).unwrap();
        other.shows(OUT);
        other.no_edge();
    }
}

fn datagram_error(pair: &Pair) {
    let ((a, _), (closed, addr)) = (pair.udp_a(), pair.udp_b());
    drop(closed);
    connect(a.0, addr).unwrap();
    let mut other = Other::new(&a);
    other.turns(OUT);
    send(a.0, b"x", NONE).unwrap();
    other.turns(listed(pair, OUT | ERR, OUT | IN));
    assert_eq!(so_error(&a), libc::ECONNREFUSED);
    other.shows(OUT);
}

/// One test for each function, stack and family.
macro_rules! on_every_pair {
    (@ $name:ident: $fixture:ident($family:ident): $($test:ident)*) => {
        mod $name {
            use crate::fixture::{Family, bounded, $fixture};
            $(#[test]
            fn $test() {
                bounded(|| crate::$test(&$fixture(Family::$family)));
            })*
        }
    };
    ($($tests:tt)*) => {
        on_every_pair! { @ kernel_ipv4: kernel(V4): $($tests)* }
        on_every_pair! { @ kernel_ipv6: kernel(V6): $($tests)* }
        on_every_pair! { @ smoltcp_ipv4: smoltcp(V4): $($tests)* }
        on_every_pair! { @ smoltcp_ipv6: smoltcp(V6): $($tests)* }
    };
}

on_every_pair! {
    fresh listening connecting refused connected full half_closed shut_for_reading reset datagrams datagram_error
}
