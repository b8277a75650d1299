//! Two nodes on a bad wire, in virtual time, and what must hold of them whatever happens.

use std::collections::{BTreeMap, VecDeque};
use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use ioth_core::{Domain, Events, MacAddr, MsgFlags, RecvMsg, Result, SendMsg, SocketType};
use ioth_smoltcp::engine::addr::AddrAttrs;
use ioth_smoltcp::engine::{Engine, Instant, SocketId};
use ioth_vde::{Batch, Frame, Properties};

use super::Tally;
use super::flows::Flows;
use super::packet;

/// The Ethernet interface of every node.
pub(super) const ETH: u32 = 2;
/// Frames that a hostile host remembers.
const MEMORY: usize = 64;
/// Sockets that a node's program opens at most, those that it accepts included.
const MAX_OPEN: usize = 24;
/// What one listener may hold: handshakes, segments that wait, connections that nobody accepted.
const MAX_EMBRYOS: usize = 512;
const MAX_PARKED: usize = 256;
pub(super) const MAX_BACKLOG: usize = 3;
const MAX_NEIGHBOURS: usize = 16_384;
const MAX_UNRESOLVED: usize = 1024;
/// What pieces cost at least bounds the packets in the making.
const MAX_PIECES: usize = (4 << 20) / 2048;
const MAX_REPORTS: usize = 16_384;
const MAX_PATH_MTUS: usize = 4096;
const MAX_TIME_WAIT: usize = 65_536;
/// Reminders that a socket may have, see `engine::timer`.
const MAX_REMINDERS: usize = 32;
/// A node may be asked this often at one instant, with nothing to show for it.
const MAX_SPINS: u32 = 50;
/// Arrivals and deadlines in one stretch of time without a call from outside.
const MAX_EVENTS: u32 = 150_000;

/// Time in microseconds.
const SECOND: u64 = 1_000_000;
/// How long a connection may take, when nothing disturbs any more, to deliver and to end: the largest time-out of a
/// retransmission twice, and a neighbour that has to be found again.
const TRANSFER_TIME: u64 = 200 * SECOND;
/// tcp(7): data of a closed socket is tried for 924 s at most.
const CLOSING_TIME: u64 = 1000 * SECOND;
/// TCP_KEEPIDLE's default: the longest that anybody asks to be reminded.
const LONGEST_REMINDER: u64 = 40_000 * SECOND;

/// A stream socket and what its program knows.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) id: SocketId,
    /// Local and remote end.
    pub(super) ends: [SocketAddr; 2],
    pub(super) sent: usize,
    pub(super) received: usize,
    pub(super) shut: bool,
    pub(super) ended: bool,
}

/// A node and its program.
pub(super) struct Host {
    pub(super) index: usize,
    pub(super) engine: Engine,
    pub(super) listeners: Vec<SocketId>,
    pub(super) streams: Vec<Stream>,
    pub(super) datagrams: Vec<SocketId>,
    /// Raw, ping and packet sockets.
    pub(super) others: Vec<SocketId>,
    pub(super) blocked: bool,
    /// Its connections may have been told to give up soon.
    pub(super) impatient: bool,
    /// Sockets that there ever were, and listeners.
    opened: usize,
    listened: usize,
    deadline: Option<u64>,
    spins: u32,
}

/// What the wire does, in percent, and the longest delay in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wire {
    pub(super) loss: u8,
    pub(super) twice: u8,
    pub(super) delay: u64,
    /// Nothing passes from node i.
    pub(super) cut: [bool; 2],
}

/// A frame that was on the wire.
pub(super) struct Remembered {
    pub(super) from: usize,
    pub(super) frame: Vec<u8>,
    pub(super) flow: Option<(usize, u32)>,
}

pub(super) struct World {
    pub(super) hosts: [Host; 2],
    pub(super) wire: Wire,
    pub(super) flows: Flows,
    pub(super) memory: VecDeque<Remembered>,
    pub(super) tally: Tally,
    /// Tell what happens, on standard error.
    pub(super) shown: bool,
    now: u64,
    dice: u64,
    /// By time of arrival, then in the order sent: receiver and frame.
    flying: BTreeMap<(u64, u64), (usize, Frame)>,
    order: u64,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        World {
            hosts: [Host::new(0), Host::new(1)],
            wire: Wire { delay: 100, ..Wire::default() },
            flows: Flows::default(),
            memory: VecDeque::new(),
            tally: Tally::default(),
            shown: false,
            now: 0,
            dice: seed,
            flying: BTreeMap::new(),
            order: 0,
        }
    }

    /// What there is at the beginning: listeners, connections and datagram sockets, by bits.
    pub(super) fn set_scene(&mut self, bits: u8) {
        for v6 in [false, true] {
            if bits & 1 << u8::from(v6) != 0 {
                self.hosts[1].listen(v6, 80, MAX_BACKLOG);
                self.settle_all();
                for _ in 0..1 + (bits >> 2 & 1) {
                    self.hosts[0].connect(v6, 80, None);
                    self.run(SECOND / 100);
                    self.hosts[1].accept(false);
                }
            }
        }
        if bits & 8 != 0 {
            for host in &mut self.hosts {
                host.bind_datagrams(bits & 16 != 0, false, 7, None);
            }
            self.settle_all();
        }
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, micros: u64) {
        let end = self.now + micros;
        self.settle_all();
        let mut events = 0;
        loop {
            let arrival = self.flying.keys().next().map(|(at, _)| *at);
            let deadline = self.hosts.iter().filter_map(|host| host.deadline).min();
            let Some(next) = arrival.into_iter().chain(deadline).min().filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            events += 1;
            assert!(events < MAX_EVENTS, "the wire does not come to rest");
            let mut due = [false; 2];
            while let Some(entry) = self.flying.first_entry()
                && entry.key().0 <= self.now
            {
                let (to, frame) = entry.remove();
                self.hosts[to].engine.set_now(instant(self.now));
                self.hosts[to].engine.handle_frame(ETH, frame);
                due[to] = true;
            }
            for (i, arrived) in due.into_iter().enumerate() {
                if arrived || self.hosts[i].deadline.is_some_and(|at| at <= self.now) {
                    self.settle(i, arrived);
                }
            }
        }
        self.now = end;
        self.settle_all();
        self.tally.micros += micros;
    }

    /// Has a forged frame arrive at a node, at once.
    pub(super) fn inject(&mut self, to: usize, frame: &[u8]) {
        self.tally.injected += 1;
        self.show(|| format!("   forged to {to}: {}", packet::describe(frame)));
        self.hosts[to].engine.set_now(instant(self.now));
        self.hosts[to].engine.handle_frame(ETH, Frame::copy_of(frame));
        self.settle(to, true);
    }

    pub(super) fn settle_all(&mut self) {
        for i in 0..2 {
            self.settle(i, true);
        }
    }

    /// Lets a node do what it has to, and puts its frames onto the wire. `asked`: somebody did something to it.
    fn settle(&mut self, i: usize, asked: bool) {
        let mut progress = asked;
        loop {
            let host = &mut self.hosts[i];
            host.engine.set_now(instant(self.now));
            host.deadline = host.engine.poll().map(|at| at.total_micros().max(0) as u64);
            host.engine.take_changed(&mut Vec::new());
            if host.blocked {
                break;
            }
            let mut batch = Batch::new();
            host.engine.take_egress(ETH, &mut batch);
            let stalled = host.engine.has_stalled();
            if stalled {
                host.engine.resume();
            }
            if batch.is_empty() && !stalled {
                break;
            }
            progress |= !batch.is_empty();
            assert!(batch.len() < 20_000, "{} frames at once", batch.len());
            for frame in batch {
                self.send(i, frame);
            }
        }
        let host = &mut self.hosts[i];
        let past = host.deadline.is_some_and(|at| at <= self.now) && !host.blocked;
        host.spins = if past && !progress { host.spins + 1 } else { 0 };
        assert!(host.spins < MAX_SPINS, "node {i} asks to be called for nothing, again and again");
    }

    /// Puts a frame of a node onto the wire.
    fn send(&mut self, from: usize, frame: Frame) {
        self.tally.frames += 1;
        let seen = packet::segment(&frame);
        let flow = seen.and_then(|seen| self.flows.observe(from, &seen, node_of));
        if self.memory.len() >= MEMORY {
            self.memory.pop_front();
        }
        self.memory.push_back(Remembered { from, frame: frame.to_vec(), flow });
        let to = 1 - from;
        let for_it = frame[0] & 1 != 0 || frame[..6] == mac(to).0;
        if !for_it || self.wire.cut[from] || self.dice() % 100 < u64::from(self.wire.loss) {
            self.show(|| format!("{from} sends in vain {}", packet::describe(&frame)));
            return;
        }
        self.show(|| format!("{from} sends {}", packet::describe(&frame)));
        let copies = 1 + u64::from(self.dice() % 100 < u64::from(self.wire.twice));
        for _ in 0..copies {
            let delay = 20 + self.dice() % self.wire.delay.max(1);
            self.order += 1;
            self.flying.insert((self.now + delay, self.order), (to, frame.clone()));
        }
    }

    pub(super) fn show(&self, what: impl FnOnce() -> String) {
        if self.shown {
            eprintln!("{:>12.6} {}", self.now as f64 / 1e6, what());
        }
    }

    /// splitmix64
    fn dice(&mut self) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.dice;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Takes what a stream received; everything that no forged segment can have brought is what was sent.
    pub(super) fn receive(&mut self, node: usize, at: usize, len: usize) -> Result<usize> {
        let mut buffer = vec![0; len];
        let host = &mut self.hosts[node];
        let stream = &mut host.streams[at];
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let got = host.engine.recv(stream.id, &mut RecvMsg::new(&mut slices), MsgFlags::empty())?;
        let mut ends = stream.ends;
        if node == 1 {
            ends.swap(0, 1);
        }
        let known = self.flows.find(&ends).is_some_and(|flow| !self.flows.0[flow].tainted);
        if known {
            for (i, byte) in buffer[..got].iter().enumerate() {
                let position = stream.received + i;
                assert_eq!(*byte, pattern(position), "byte {position} of {:?} at node {node}", stream.ends);
            }
        }
        stream.received += got;
        stream.ended |= got == 0 && len > 0;
        Ok(got)
    }

    /// What one node holds at most, at any time.
    pub(super) fn check_bounds(&self) {
        for host in &self.hosts {
            let census = host.engine.census();
            let held = census.sockets;
            let most = host.opened + host.listened * (MAX_EMBRYOS + MAX_BACKLOG + 1);
            let bounds = [
                ("sockets", held, most),
                ("connections", census.connections, held),
                ("embryos", census.embryos, host.listeners.len() * MAX_EMBRYOS),
                ("ready", census.ready, host.listeners.len() * (MAX_BACKLOG + 1)),
                ("parked", census.parked, host.listeners.len() * MAX_PARKED),
                ("time_wait", census.time_wait, MAX_TIME_WAIT),
                ("ports", census.ports, held),
                ("timers", census.timers, most * MAX_REMINDERS),
                ("neighbours", census.neighbours, MAX_NEIGHBOURS),
                ("unresolved", census.unresolved, MAX_UNRESOLVED),
                ("pieces", census.pieces, MAX_PIECES),
                ("reports", census.reports, MAX_REPORTS),
                ("path_mtus", census.path_mtus, MAX_PATH_MTUS),
            ];
            for (what, count, bound) in bounds {
                assert!(count <= bound, "{count} {what} at node {}, {bound} at most", host.index);
            }
        }
    }

    /// Notes what the program brought about: which kinds of drops, how full the tables are, what state the sockets are in.
    pub(super) fn sign(&mut self) {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        let magnitude = |count: usize| usize::BITS - count.leading_zeros();
        for host in &self.hosts {
            let census = host.engine.census();
            let counts = [
                census.sockets,
                census.embryos,
                census.ready,
                census.parked,
                census.time_wait,
                census.pieces,
                census.reports,
                census.path_mtus,
            ];
            counts.map(magnitude).hash(&mut hasher);
            format!("{:?}", host.engine.drops()).split(|c: char| !c.is_ascii_digit()).for_each(|count| {
                count.parse().map_or(0, magnitude).min(4).hash(&mut hasher);
            });
            let mut streams: Vec<_> = host
                .streams
                .iter()
                .map(|stream| {
                    let bits = host.engine.events(stream.id).bits();
                    (bits, magnitude(stream.sent).div_ceil(6), magnitude(stream.received).div_ceil(6))
                })
                .collect();
            streams.sort_unstable();
            streams.hash(&mut hasher);
        }
        self.flows.0.iter().filter(|flow| flow.tainted).count().min(2).hash(&mut hasher);
        self.tally.signature = hasher.finish();
    }

    /// Nobody disturbs any more: what is established still works, what is closed ends, and nothing is left.
    pub(super) fn come_to_rest(&mut self) {
        self.wire = Wire { delay: 100, ..Wire::default() };
        for host in &mut self.hosts {
            host.blocked = false;
            host.engine.set_blocked(ETH, false);
        }
        self.accept_and_drain();
        self.run(TRANSFER_TIME);
        self.accept_and_drain();
        self.transfer();
        for host in &mut self.hosts {
            host.close_all();
        }
        self.run(CLOSING_TIME);
        for host in &self.hosts {
            let census = host.engine.census();
            let held = [
                census.sockets,
                census.connections,
                census.ports,
                census.unresolved,
                census.pieces,
                census.reports,
                census.egress,
            ];
            assert_eq!(held, [0; 7], "node {} still holds {census:?}", host.index);
        }
        // What was forgotten may still be in the heap; it does nothing any more.
        let micros = self.tally.micros;
        self.run(LONGEST_REMINDER);
        self.tally.micros = micros;
        for host in &mut self.hosts {
            assert_eq!(host.engine.poll(), None, "node {} has something to do for ever", host.index);
            assert_eq!(host.engine.census().timers, 0);
        }
    }

    /// Connections that both programs hold, by their place at each node, and that nothing forged can have hurt.
    fn healthy_pairs(&self) -> Vec<[usize; 2]> {
        let [first, second] = &self.hosts;
        if first.impatient || second.impatient {
            return Vec::new();
        }
        let lives = |host: &Host, stream: &Stream| {
            let over = Events::ERR | Events::HUP;
            !stream.shut
                && !host.engine.events(stream.id).intersects(over)
                && host.engine.peer_addr(stream.id).is_ok()
        };
        let mut pairs = Vec::new();
        for (i, a) in first.streams.iter().enumerate().filter(|(_, a)| lives(first, a)) {
            for (j, b) in second.streams.iter().enumerate().filter(|(_, b)| lives(second, b)) {
                let flow = self.flows.find(&a.ends).map(|at| &self.flows.0[at]);
                let ended = a.ended || b.ended;
                if a.ends == [b.ends[1], b.ends[0]] && !ended && flow.is_some_and(|flow| !flow.tainted) {
                    pairs.push([i, j]);
                }
            }
        }
        pairs
    }

    /// On every connection that is established at both ends, data goes through both ways.
    fn transfer(&mut self) {
        let pairs = self.healthy_pairs();
        for &pair in &pairs {
            for (node, at) in pair.into_iter().enumerate() {
                let host = &mut self.hosts[node];
                host.send_pattern(at, 3000);
            }
        }
        self.run(TRANSFER_TIME / 2);
        self.accept_and_drain();
        self.run(TRANSFER_TIME / 2);
        self.accept_and_drain();
        for pair in pairs {
            let [a, b] = [0, 1].map(|node| &self.hosts[node].streams[pair[node]]);
            let alive = [0, 1].map(|node| {
                let id = self.hosts[node].streams[pair[node]].id;
                !self.hosts[node].engine.events(id).intersects(Events::ERR | Events::HUP)
            });
            assert_eq!(alive, [true; 2], "the undisturbed connection {:?} broke", a.ends);
            assert_eq!((a.sent, b.sent), (b.received, a.received), "the connection {:?} is stuck", a.ends);
            self.tally.transfers += 1;
        }
    }

    /// What well-behaved programs do: take what is there, until nothing comes any more.
    fn accept_and_drain(&mut self) {
        for _ in 0..60 {
            let mut moved = false;
            for node in 0..2 {
                moved |= self.hosts[node].accept(false);
                for at in 0..self.hosts[node].streams.len() {
                    while self.receive(node, at, 65_536).is_ok_and(|got| got > 0) {
                        moved = true;
                    }
                }
                for id in [&self.hosts[node].datagrams[..], &self.hosts[node].others].concat() {
                    while self.hosts[node].receive_datagram(id).is_ok() {
                        moved = true;
                    }
                }
            }
            if !moved {
                break;
            }
            self.run(SECOND);
        }
    }
}

impl Host {
    fn new(index: usize) -> Self {
        let mut engine = Engine::new([index as u8 + 1; 32]);
        let properties = Properties { mtu: 1500, gso_max: 0, trusted: false };
        let eth = engine.add_interface("vde0", mac(index), properties).expect("the first interface");
        assert_eq!(eth, ETH);
        let tables = engine.tables_mut();
        for ifindex in [1, ETH] {
            tables.set_up(ifindex, true).expect("it is there");
        }
        for v6 in [false, true] {
            let cidr = format!("{}/{}", addr(index, v6, 0).ip(), if v6 { 64 } else { 24 });
            let cidr = cidr.parse().expect("an address");
            tables.add_addr(ETH, cidr, AddrAttrs::default()).expect("the first of its family");
        }
        Host {
            index,
            engine,
            listeners: Vec::new(),
            streams: Vec::new(),
            datagrams: Vec::new(),
            others: Vec::new(),
            blocked: false,
            impatient: false,
            opened: 0,
            listened: 0,
            deadline: None,
            spins: 0,
        }
    }

    fn is_full(&self) -> bool {
        self.listeners.len() + self.streams.len() + self.datagrams.len() + self.others.len() >= MAX_OPEN
    }

    fn socket(&mut self, v6: bool, kind: SocketType, protocol: i32) -> Option<SocketId> {
        if self.is_full() {
            return None;
        }
        self.opened += 1;
        self.engine.socket(if v6 { Domain::INET6 } else { Domain::INET }, kind, protocol).ok()
    }

    pub(super) fn listen(&mut self, v6: bool, port: u16, backlog: usize) {
        let Some(id) = self.socket(v6, SocketType::STREAM, 0) else { return };
        let bound = self.engine.bind(id, &addr(self.index, v6, port).into());
        if bound.and_then(|()| self.engine.listen(id, backlog.min(MAX_BACKLOG) as i32)).is_ok() {
            self.listeners.push(id);
            self.listened += 1;
        } else {
            self.engine.close(id);
        }
    }

    /// Begins a connection to a port of the other node, from a port of ours if it is given.
    pub(super) fn connect(&mut self, v6: bool, port: u16, from: Option<u16>) {
        let Some(id) = self.socket(v6, SocketType::STREAM, 0) else { return };
        if let Some(from) = from {
            let _ = self.engine.bind(id, &addr(self.index, v6, from).into());
        }
        let remote = addr(1 - self.index, v6, port);
        let _ = self.engine.connect(id, &remote.into());
        match self.engine.local_addr(id).ok().and_then(|local| local.as_ip()) {
            Some(local) => self.add(id, [local, remote]),
            None => self.engine.close(id),
        }
    }

    /// Opens a socket of UDP, or of UDP-Lite if `lite`; `peer` is the other node's port to which it is connected.
    pub(super) fn bind_datagrams(&mut self, v6: bool, lite: bool, port: u16, peer: Option<u16>) {
        let protocol = if lite { libc::IPPROTO_UDPLITE } else { libc::IPPROTO_UDP };
        let Some(id) = self.socket(v6, SocketType::DGRAM, protocol) else { return };
        let _ = self.engine.bind(id, &addr(self.index, v6, port).into());
        if let Some(peer) = peer {
            let _ = self.engine.connect(id, &addr(1 - self.index, v6, peer).into());
        }
        self.datagrams.push(id);
    }

    /// Opens a raw, ping or packet socket.
    pub(super) fn open_other(&mut self, domain: Domain, kind: SocketType, protocol: i32) {
        if !self.is_full() {
            self.opened += 1;
            self.others.extend(self.engine.socket(domain, kind, protocol));
        }
    }

    /// Takes what waits in listeners. `all`: also beyond what a program would keep open, to be closed at once.
    pub(super) fn accept(&mut self, all: bool) -> bool {
        let mut accepted = false;
        for listener in self.listeners.clone() {
            while all || !self.is_full() {
                let Ok((id, peer)) = self.engine.accept(listener) else { break };
                self.opened += 1;
                accepted = true;
                let local = self.engine.local_addr(id).ok().and_then(|local| local.as_ip());
                match (local, peer.as_ip()) {
                    (Some(local), Some(remote)) if !self.is_full() => self.add(id, [local, remote]),
                    _ => self.engine.close(id),
                }
            }
        }
        accepted
    }

    fn add(&mut self, id: SocketId, ends: [SocketAddr; 2]) {
        let ends = ends.map(ioth_core::addr::unmap);
        self.streams.push(Stream { id, ends, sent: 0, received: 0, shut: false, ended: false });
    }

    pub(super) fn send_pattern(&mut self, at: usize, len: usize) {
        let stream = &mut self.streams[at];
        let bytes: Vec<u8> = (stream.sent..stream.sent + len).map(pattern).collect();
        if let Ok(sent) =
            self.engine.send(stream.id, &SendMsg::new(&[IoSlice::new(&bytes)]), MsgFlags::empty())
        {
            stream.sent += sent;
        }
    }

    /// How many bytes its socket for a flow may have sent that were not acknowledged: no more than were given, and no more
    /// than so many segments carry.
    pub(super) fn under_way(&mut self, ends: &[SocketAddr; 2]) -> u32 {
        let ends = [ends[self.index], ends[1 - self.index]];
        let streams = self.streams.iter().filter(|stream| stream.ends == ends);
        let engine = &mut self.engine;
        let most = streams.map(|stream| {
            let mut given = [0; 4];
            engine.ioctl(stream.id, libc::TIOCOUTQ, &mut given).ok()?;
            let mut info = [0; 32];
            engine.option(stream.id, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info).ok()?;
            // linux/tcp.h: `tcpi_snd_mss` and `tcpi_unacked`
            let word = |at: usize| info.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
            Some(u32::from_ne_bytes(given).min(word(16)?.saturating_mul(word(24)?)))
        });
        most.flatten().max().unwrap_or(0)
    }

    pub(super) fn receive_datagram(&mut self, id: SocketId) -> Result<usize> {
        let mut buffer = [0; 2048];
        let mut slices = [IoSliceMut::new(&mut buffer)];
        self.engine.recv(id, &mut RecvMsg::new(&mut slices), MsgFlags::empty())
    }

    fn close_all(&mut self) {
        let streams = self.streams.drain(..).map(|stream| stream.id);
        for id in self
            .listeners
            .drain(..)
            .chain(streams)
            .chain(self.datagrams.drain(..))
            .chain(self.others.drain(..))
        {
            self.engine.close(id);
        }
    }
}

/// The byte at a position of every stream.
fn pattern(at: usize) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 24) as u8
}

pub(super) fn mac(index: usize) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, index as u8])
}

/// Node i is 10.0.0.i+1 and fd00::i+1; those beyond the second are nobody.
pub(super) fn addr(index: usize, v6: bool, port: u16) -> SocketAddr {
    let host = index as u16 + 1;
    if v6 { ([0xfd00, 0, 0, 0, 0, 0, 0, host], port).into() } else { ([10, 0, 0, host as u8], port).into() }
}

fn node_of(ip: IpAddr) -> Option<usize> {
    (0..2).find(|&i| [false, true].into_iter().any(|v6| addr(i, v6, 0).ip() == ip))
}

fn instant(micros: u64) -> Instant {
    Instant::from_micros(micros as i64)
}
