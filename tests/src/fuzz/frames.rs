//! Frames into the engine, in virtual time.

use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;

use ioth_core::{Domain, MacAddr, MsgFlags, RecvMsg, SendMsg, SocketType};
use ioth_smoltcp::engine::addr::AddrAttrs;
use ioth_smoltcp::engine::{Engine, Instant, SocketId};
use ioth_vde::{Batch, Checksum, Frame, Properties};

use super::Input;

/// Frames from anywhere to a node with sockets open. Each has a byte of flags and its length in two bytes in front.
pub fn frames(data: &[u8]) {
    let mut input = Input(data);
    let mut node = Node::new(1);
    let mut micros = 0;
    for v6 in [false, true] {
        node.listen(v6);
        node.bind_datagrams(v6);
        node.connect(v6);
    }
    node.look_at_everything();
    node.run(0);
    while !input.is_empty() {
        let (flags, len) = (input.byte(), usize::from(input.u16()));
        let mut frame = Frame::copy_of(input.take(len.min(4096)));
        if flags & ADDRESSED != 0 && frame.len() >= 12 {
            frame[..6].copy_from_slice(&mac(1).0);
            frame[6..12].copy_from_slice(&mac(0).0);
        }
        if flags & TRUSTED != 0 {
            frame.checksum = Checksum::Trusted;
        }
        // Up to half an hour at a time, mostly less.
        micros += 1u64 << (flags >> 3);
        node.engine.handle_frame(ETH, frame);
        node.run(micros);
        node.serve();
    }
    // What was begun has an end: time-outs that lead nowhere must not repeat for ever.
    node.wind_down(micros);
}

/// A conversation of two nodes on a wire that does to each frame what three bytes of input say: lose it, double it,
/// or change one of its bytes.
pub fn dialogue(data: &[u8]) {
    let mut input = Input(data);
    let v6 = input.byte() & 1 != 0;
    let mut nodes = [Node::new(0), Node::new(1)];
    nodes[1].listen(v6);
    for node in &mut nodes {
        node.bind_datagrams(v6);
    }
    nodes[0].connect(v6);
    let mut micros = 0;
    let mut steps = 0;
    while !input.is_empty() && steps < 2000 {
        steps += 1;
        let mut idle = true;
        for (from, to) in [(0, 1), (1, 0)] {
            for frame in nodes[from].run(micros) {
                idle = false;
                let (what, at, byte) = (input.byte(), input.byte(), input.byte());
                let mut changed = frame.clone();
                changed.checksum = Checksum::Trusted;
                let at = 14 + usize::from(at);
                match what % 8 {
                    // Changed in one byte, or shorter.
                    0 if at < changed.len() => changed[at] = byte,
                    1 if at < changed.len() => changed[at] ^= byte,
                    2 => changed.truncate(at),
                    3 => continue,
                    4 => nodes[to].engine.handle_frame(ETH, frame),
                    _ => {}
                }
                nodes[to].engine.handle_frame(ETH, changed);
            }
            nodes[from].serve();
        }
        if idle {
            // Nothing under way: on to the next deadline, or end.
            match nodes.iter_mut().filter_map(|node| node.engine.poll()).min() {
                Some(at) => micros = micros.max(at.total_micros() as u64),
                None => break,
            }
        }
        micros += 50;
    }
}

/// Options of IPv4's header between two nodes: what one sets on its sockets and sends, and what comes forged. Each begins with
/// a byte that says which, and how long it is.
pub fn ip_options(data: &[u8]) {
    const MAX_STEPS: usize = 60;
    let mut input = Input(data);
    let mut nodes = [Node::new(0), Node::new(1)];
    nodes[1].listen(false);
    for node in &mut nodes {
        node.bind_datagrams(false);
        for name in [libc::IP_RECVOPTS, libc::IP_RETOPTS] {
            node.engine.set_option(node.sockets[0], libc::IPPROTO_IP, name, &[1; 4]).expect("a switch");
        }
    }
    let mut micros = 0;
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        let what = input.byte();
        let options = input.take(usize::from(what >> 2));
        let engine = &mut nodes[0].engine;
        match what & 3 {
            0 => {
                let id = nodes[0].sockets[0];
                if set_ip_options(engine, id, options) {
                    let (to, data) = (addr(1, false, 7).into(), [IoSlice::new(b"x")]);
                    let message = SendMsg { data: &data, addr: Some(&to), control: &[] };
                    let _ = engine.send(id, &message, MsgFlags::empty());
                }
            }
            1 => {
                let id = nodes[0].socket(false, SocketType::STREAM);
                set_ip_options(&mut nodes[0].engine, id, options);
                let _ = nodes[0].engine.connect(id, &addr(1, false, 80).into());
                let _ = nodes[0].engine.send(id, &SendMsg::new(&[IoSlice::new(b"x")]), MsgFlags::empty());
                nodes[0].sockets.push(id);
            }
            kind => {
                let packet = with_options(options, kind == 2);
                nodes[1].engine.handle_frame(ETH, packet);
            }
        }
        for _ in 0..8 {
            micros += 50;
            for (from, to) in [(0, 1), (1, 0)] {
                for frame in nodes[from].run(micros) {
                    nodes[to].engine.handle_frame(ETH, frame);
                }
            }
            nodes.iter_mut().for_each(Node::serve);
        }
    }
    nodes.iter_mut().for_each(|node| node.wind_down(micros));
}

/// What is taken is told, and what is told is taken.
fn set_ip_options(engine: &mut Engine, id: SocketId, options: &[u8]) -> bool {
    let set = engine.set_option(id, libc::IPPROTO_IP, libc::IP_OPTIONS, options).is_ok();
    let mut told = [0; 40];
    let len = engine.option(id, libc::IPPROTO_IP, libc::IP_OPTIONS, &mut told).expect("it can be read");
    assert!(engine.set_option(id, libc::IPPROTO_IP, libc::IP_OPTIONS, &told[..len]).is_ok());
    set
}

/// A datagram to node 1's port, or an echo request, with options that nobody looked at.
fn with_options(options: &[u8], datagram: bool) -> Frame {
    let len = options.len().min(40).next_multiple_of(4);
    let mut bytes = [&mac(1).0[..], &mac(0).0, &[8, 0, 0x45 + (len / 4) as u8, 0]].concat();
    bytes.extend((20 + len as u16 + 9).to_be_bytes());
    bytes.extend([0, 1, 0, 0, 64, if datagram { 17 } else { 1 }, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    bytes.extend(&options[..options.len().min(40)]);
    bytes.resize(14 + 20 + len, 0);
    bytes.extend(if datagram { [0, 9, 0, 7, 0, 9, 0, 0, b'x'] } else { [8, 0, 0, 0, 0, 1, 0, 1, b'x'] });
    let mut frame = Frame::copy_of(&bytes);
    frame.checksum = Checksum::Trusted;
    frame
}

const ADDRESSED: u8 = 1;
const TRUSTED: u8 = 2;
const ETH: u32 = 2;

/// An engine with an Ethernet interface: node i is 10.0.0.i+1 and fd00::i+1.
struct Node {
    index: u8,
    engine: Engine,
    sockets: Vec<SocketId>,
    listeners: Vec<SocketId>,
}

impl Node {
    fn new(index: u8) -> Self {
        let mut engine = Engine::new([index + 1; 32]);
        let properties = Properties { mtu: 1500, gso_max: 0, trusted: false };
        let eth = engine.add_interface("vde0", mac(index), properties).expect("the first interface");
        assert_eq!(eth, ETH);
        let tables = engine.tables_mut();
        tables.set_up(ETH, true).expect("it is there");
        for v6 in [false, true] {
            let cidr = format!("{}/{}", addr(index, v6, 0).ip(), if v6 { 64 } else { 24 });
            let cidr = cidr.parse().expect("an address");
            tables.add_addr(ETH, cidr, AddrAttrs::default()).expect("the first of its family");
        }
        Node { index, engine, sockets: Vec::new(), listeners: Vec::new() }
    }

    fn socket(&mut self, v6: bool, kind: SocketType) -> SocketId {
        let domain = if v6 { Domain::INET6 } else { Domain::INET };
        self.engine.socket(domain, kind, 0).expect("few sockets are open")
    }

    fn listen(&mut self, v6: bool) {
        let id = self.socket(v6, SocketType::STREAM);
        self.engine.bind(id, &addr(self.index, v6, 80).into()).expect("the port is free");
        self.engine.listen(id, 4).expect("it is bound");
        self.listeners.push(id);
    }

    fn bind_datagrams(&mut self, v6: bool) {
        let id = self.socket(v6, SocketType::DGRAM);
        self.engine.bind(id, &addr(self.index, v6, 7).into()).expect("the port is free");
        self.sockets.push(id);
    }

    /// Sockets below UDP and TCP: packet sockets, raw ones and ping.
    fn look_at_everything(&mut self) {
        const ETH_P_ALL: u16 = 3;
        const PROTOCOLS: [i32; 5] = [1, 6, 17, 58, 253];
        let mut open = |domain, kind, protocol| {
            self.sockets.push(self.engine.socket(domain, kind, protocol).expect("few sockets are open"));
        };
        for kind in [SocketType::RAW, SocketType::DGRAM] {
            open(Domain::PACKET, kind, i32::from(ETH_P_ALL.to_be()));
        }
        for domain in [Domain::INET, Domain::INET6] {
            PROTOCOLS.iter().for_each(|protocol| open(domain, SocketType::RAW, *protocol));
        }
        open(Domain::INET, SocketType::DGRAM, 1);
        open(Domain::INET6, SocketType::DGRAM, 58);
        for id in &self.sockets[self.sockets.len() - 2..] {
            // Their identifier, so that replies can be guessed.
            let v6 = self.engine.local_addr(*id).is_ok_and(|addr| addr.domain() == Domain::INET6);
            self.engine.bind(*id, &addr(self.index, v6, 7).into()).expect("nobody else pings");
        }
    }

    /// Begins a connection to the other node, from a known port.
    fn connect(&mut self, v6: bool) {
        let id = self.socket(v6, SocketType::STREAM);
        self.engine.bind(id, &addr(self.index, v6, 1000).into()).expect("the port is free");
        let _ = self.engine.connect(id, &addr(1 - self.index, v6, 80).into());
        self.sockets.push(id);
    }

    /// Does what is due and gives what leaves.
    fn run(&mut self, micros: u64) -> Batch {
        self.engine.set_now(Instant::from_micros(micros as i64));
        self.engine.poll();
        let mut batch = Batch::new();
        self.engine.take_egress(ETH, &mut batch);
        self.engine.resume();
        self.engine.poll();
        self.engine.take_egress(ETH, &mut batch);
        self.engine.take_changed(&mut Vec::new());
        batch
    }

    /// What a program does: takes connections, answers what it hears, and closes what has ended.
    fn serve(&mut self) {
        for listener in self.listeners.clone() {
            while let Ok((id, _)) = self.engine.accept(listener) {
                self.sockets.push(id);
            }
        }
        let mut buffer = [0; 2048];
        for id in self.sockets.clone() {
            let _ = self.engine.take_error(id);
            let mut data = [IoSliceMut::new(&mut buffer)];
            let mut message = RecvMsg::new(&mut data);
            let got = self.engine.recv(id, &mut message, MsgFlags::empty());
            let from = message.addr;
            match got {
                Ok(0) if from.is_none() => {
                    self.engine.close(id);
                    self.sockets.retain(|open| *open != id);
                }
                Ok(len) => {
                    let data = [IoSlice::new(&buffer[..len])];
                    let _ = self.engine.send(
                        id,
                        &SendMsg { data: &data, addr: from.as_ref(), control: &[] },
                        MsgFlags::empty(),
                    );
                }
                Err(_) => {}
            }
        }
        assert!(self.engine.socket_count() < 1000, "{} sockets", self.engine.socket_count());
    }

    /// Closes everything and waits until nothing is due.
    fn wind_down(&mut self, mut micros: u64) {
        for id in self.listeners.drain(..).chain(self.sockets.drain(..)) {
            self.engine.close(id);
        }
        for _ in 0..1000 {
            self.run(micros);
            let Some(at) = self.engine.poll() else { break };
            micros = (at.total_micros() as u64).max(micros + 1);
        }
        assert_eq!(self.engine.poll(), None, "something is due for ever");
    }
}

fn mac(index: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, index])
}

fn addr(index: u8, v6: bool, port: u16) -> SocketAddr {
    let host = u16::from(index) + 1;
    if v6 { ([0xfd00, 0, 0, 0, 0, 0, 0, host], port).into() } else { ([10, 0, 0, host as u8], port).into() }
}
