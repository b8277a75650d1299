//! The virtual LAN: what one engine sends reaches the others when a closure says so.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::rc::Rc;

use ioth_core::{Cidr, Domain, Errno, MacAddr, MsgFlags, RecvMsg, Result, SendMsg, SockAddr, SocketType};
use ioth_vde::{Batch, Frame, Properties};
use smoltcp::time::{Duration, Instant};

use crate::engine::addr::AddrAttrs;
use crate::engine::{Engine, SocketId};

/// The Ethernet interface of every node.
pub(crate) const ETH: u32 = 2;

/// What becomes of a frame: the delays after which copies of it arrive; none when it is lost.
pub(crate) type Fate = Box<dyn FnMut(&Frame) -> Vec<Duration>>;

/// Nodes on one Ethernet.
pub(crate) struct Lan {
    pub(crate) nodes: Vec<Engine>,
    pub(crate) now: Instant,
    /// The time, for a [`Fate`].
    pub(crate) clock: Rc<Cell<Instant>>,
    pub(crate) fate: Fate,
    pub(crate) frames: u64,
    /// By time of arrival, then in the order sent: the sender and the frame.
    flying: BTreeMap<(Instant, u64), (usize, Frame)>,
    deadlines: Vec<Option<Instant>>,
}

/// Links as a real network has them: every packet of its own, with checksums.
pub(crate) const WIRE: Properties = Properties { mtu: 1500, gso_max: 0, trusted: false };

impl Lan {
    /// `count` nodes, node i with 10.0.0.i+1/16 and fd00::i+1/64.
    pub(crate) fn new(count: usize, properties: Properties) -> Lan {
        let nodes = (0..count).map(|i| node(i, properties)).collect();
        Lan {
            nodes,
            now: Instant::ZERO,
            clock: Rc::new(Cell::new(Instant::ZERO)),
            fate: Box::new(|_| vec![Duration::from_micros(50)]),
            frames: 0,
            flying: BTreeMap::new(),
            deadlines: vec![None; count],
        }
    }

    /// Lets every node do what it has to now, and puts its frames on their way.
    pub(crate) fn settle(&mut self) {
        for i in 0..self.nodes.len() {
            self.settle_one(i);
        }
    }

    fn settle_one(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        node.set_now(self.now);
        self.deadlines[i] = node.poll();
        let mut batch = Batch::new();
        node.take_egress(ETH, &mut batch);
        if !batch.is_empty() {
            node.resume();
            self.deadlines[i] = node.poll();
            node.take_egress(ETH, &mut batch);
        }
        self.clock.set(self.now);
        for frame in batch {
            for delay in (self.fate)(&frame) {
                self.frames += 1;
                self.flying.insert((self.now + delay, self.frames), (i, frame.clone()));
            }
        }
    }

    /// Goes to the next arrival or deadline and handles it. False when there is none.
    pub(crate) fn step(&mut self) -> bool {
        let Some(next) = self.next_event() else { return false };
        self.now = self.now.max(next);
        let mut reached = Vec::new();
        while let Some(entry) = self.flying.first_entry()
            && entry.key().0 <= self.now
        {
            let (from, frame) = entry.remove();
            for to in (0..self.nodes.len()).filter(|to| *to != from) {
                if !self.addressed_to(to, &frame) {
                    continue;
                }
                self.nodes[to].set_now(self.now);
                self.nodes[to].handle_frame(ETH, frame.clone());
                reached.push(to);
            }
        }
        for i in 0..self.nodes.len() {
            if reached.contains(&i) || self.deadlines[i].is_some_and(|deadline| deadline <= self.now) {
                self.settle_one(i);
            }
        }
        true
    }

    fn next_event(&self) -> Option<Instant> {
        let arrival = self.flying.keys().next().map(|(at, _)| *at);
        let deadline = self.deadlines.iter().flatten().min().copied();
        arrival.into_iter().chain(deadline).min()
    }

    /// Runs until `done`, or until the virtual time is over.
    pub(crate) fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Lan) -> bool) -> bool {
        let end = self.now + limit;
        self.settle();
        loop {
            if done(self) {
                return true;
            }
            self.settle();
            if !self.step() || self.now > end {
                return done(self);
            }
        }
    }

    /// Runs for so long, and no longer.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        while self.next_event().is_some_and(|at| at <= end) {
            self.step();
        }
        self.now = end;
        self.settle();
    }

    /// Runs until nothing is under way any more; how long it took. Panics after `limit`.
    pub(crate) fn run_until_idle(&mut self, limit: Duration) -> Duration {
        let start = self.now;
        self.settle();
        while self.step() {
            assert!(self.now - start <= limit, "not idle after {limit}");
        }
        self.now - start
    }

    fn addressed_to(&self, to: usize, frame: &[u8]) -> bool {
        frame[0] & 1 != 0 || frame[..6] == mac(to).0
    }

    pub(crate) fn stream(&mut self, node: usize, domain: Domain) -> SocketId {
        self.nodes[node].socket(domain, SocketType::STREAM, 0).unwrap()
    }

    pub(crate) fn datagrams(&mut self, node: usize, domain: Domain) -> SocketId {
        self.nodes[node].socket(domain, SocketType::DGRAM, 0).unwrap()
    }

    /// A connection from node 0 to a listener on node 1, both ends.
    pub(crate) fn connection(&mut self, v6: bool) -> (SocketId, SocketId) {
        let domain = if v6 { Domain::INET6 } else { Domain::INET };
        let listener = self.stream(1, domain);
        self.nodes[1].bind(listener, &SockAddr::Ip(addr(1, v6, 80))).unwrap();
        self.nodes[1].listen(listener, 5).unwrap();
        let client = self.stream(0, domain);
        assert_eq!(self.nodes[0].connect(client, &SockAddr::Ip(addr(1, v6, 80))), Err(Errno::EINPROGRESS));
        let mut server = None;
        assert!(self.run_until(Duration::from_secs(120), |lan| {
            server = server.or(lan.nodes[1].accept(listener).ok().map(|(id, _)| id));
            server.is_some() && !lan.nodes[0].connecting(client)
        }));
        (client, server.unwrap())
    }
}

pub(crate) fn mac(i: usize) -> MacAddr {
    let [a, b] = (i as u16).to_be_bytes();
    MacAddr([2, 0, 0, 0, a, b])
}

pub(crate) fn addr(i: usize, v6: bool, port: u16) -> SocketAddr {
    let host = i + 1;
    let text = if v6 {
        format!("[fd00::{host:x}]:{port}")
    } else {
        format!("10.0.{}.{}:{port}", host >> 8, host & 255)
    };
    text.parse().unwrap()
}

pub(crate) fn node(i: usize, properties: Properties) -> Engine {
    let mut engine = Engine::new([i as u8 + 1; 32]);
    let ifindex = engine.add_interface("vde0", mac(i), properties).unwrap();
    assert_eq!(ifindex, ETH);
    let tables = engine.tables_mut();
    tables.set_up(ETH, true).unwrap();
    for (v6, len) in [(false, 16), (true, 64)] {
        let cidr = Cidr::new(addr(i, v6, 0).ip(), len).unwrap();
        tables.add_addr(ETH, cidr, AddrAttrs::default()).unwrap();
    }
    engine
}

pub(crate) fn send(engine: &mut Engine, id: SocketId, data: &[u8]) -> Result<usize> {
    engine.send(id, &SendMsg::new(&[IoSlice::new(data)]), MsgFlags::empty())
}

pub(crate) fn send_to(engine: &mut Engine, id: SocketId, data: &[u8], to: SocketAddr) -> Result<usize> {
    let to = SockAddr::Ip(to);
    engine.send(
        id,
        &SendMsg { data: &[IoSlice::new(data)], addr: Some(&to), control: &[] },
        MsgFlags::empty(),
    )
}

pub(crate) fn recv(engine: &mut Engine, id: SocketId, data: &mut [u8]) -> Result<usize> {
    engine.recv(id, &mut RecvMsg::new(&mut [IoSliceMut::new(data)]), MsgFlags::empty())
}

/// A small generator for tests: splitmix64.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// True in `percent` of all cases.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}
