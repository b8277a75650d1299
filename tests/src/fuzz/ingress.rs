//! A program over a small world: two nodes on a bad wire, and a hostile host that knows what passes on it.
//!
//! A byte of input says what happens next: a socket call, a stretch of time, a change of the wire, or a forged frame
//! that is well-formed and fits what was seen on the wire. Afterwards nothing disturbs any more, and the nodes must
//! have kept their bounds, go on with what nobody hurt, and hold nothing once all is closed.

mod flows;
mod forge;
mod packet;
mod world;

use std::io::IoSlice;

use ioth_core::{Domain, MsgFlags, SendMsg, Shutdown, SocketType};

use super::Input;
use world::{ETH, World, addr};

/// Steps of a program at most.
const MAX_STEPS: usize = 400;
/// Ports of listeners and datagram sockets, and those that connections come from: few, so that they meet.
const PORTS: [u16; 4] = [80, 7, 1000, 1001];

/// Options of streams and listeners, with values that matter: level, name, values.
const OPTIONS: [(i32, i32, &[i32]); 12] = [
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE, &[0, 1]),
    (libc::SOL_SOCKET, libc::SO_SNDBUF, &[1, 5000, 100_000]),
    (libc::SOL_SOCKET, libc::SO_RCVBUF, &[1, 5000, 100_000]),
    (libc::IPPROTO_TCP, libc::TCP_NODELAY, &[0, 1]),
    (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, &[1, 30, 7200, 32_767]),
    (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, &[1, 75]),
    (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, &[1, 9]),
    (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, &[0, 1, 10_000]),
    (libc::IPPROTO_TCP, libc::TCP_CORK, &[0, 1]),
    (libc::IPPROTO_TCP, libc::TCP_MAXSEG, &[88, 536, 1460]),
    (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, &[0, 1, 30]),
    (libc::IPPROTO_IP, libc::IP_TTL, &[1, 64]),
];

/// Sockets below UDP and TCP: domain, type, protocol. Packet sockets have theirs in network byte order.
const OTHERS: [(Domain, SocketType, i32); 11] = [
    (Domain::INET, SocketType::RAW, libc::IPPROTO_ICMP),
    (Domain::INET, SocketType::RAW, libc::IPPROTO_TCP),
    (Domain::INET, SocketType::RAW, libc::IPPROTO_UDP),
    (Domain::INET, SocketType::RAW, EXPERIMENT),
    (Domain::INET6, SocketType::RAW, libc::IPPROTO_ICMPV6),
    (Domain::INET6, SocketType::RAW, EXPERIMENT),
    (Domain::INET, SocketType::DGRAM, libc::IPPROTO_ICMP),
    (Domain::INET6, SocketType::DGRAM, libc::IPPROTO_ICMPV6),
    (Domain::PACKET, SocketType::RAW, (libc::ETH_P_ALL as u16).to_be() as i32),
    (Domain::PACKET, SocketType::DGRAM, (libc::ETH_P_ALL as u16).to_be() as i32),
    (Domain::PACKET, SocketType::RAW, (libc::ETH_P_IP as u16).to_be() as i32),
];
/// RFC 3692: a protocol that nobody has.
const EXPERIMENT: i32 = 253;

/// Those with which a connection may end for no more than a few seconds of silence.
const IMPATIENT: [i32; 4] =
    [libc::TCP_USER_TIMEOUT, libc::TCP_KEEPIDLE, libc::TCP_KEEPINTVL, libc::TCP_KEEPCNT];

/// What a program came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Steps that were done.
    pub steps: u64,
    /// Virtual time that passed, in microseconds.
    pub micros: u64,
    /// Frames that the nodes sent.
    pub frames: u64,
    /// Frames that were forged.
    pub injected: u64,
    /// Connections that were established at both ends when all calmed down, and carried data.
    pub transfers: u64,
    /// Tells apart what programs brought about, roughly.
    pub signature: u64,
}

/// Runs a program.
pub fn ingress(data: &[u8]) {
    ingress_tally(data, false);
}

/// The same, and tells what it came to. `shown`: and what happens, on standard error.
pub fn ingress_tally(data: &[u8], shown: bool) -> Tally {
    let mut input = Input(data);
    let mut world = World::new(u64::from(input.byte()));
    world.shown = shown;
    world.set_scene(input.byte());
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        world.tally.steps += 1;
        step(&mut world, &mut input);
        world.check_bounds();
    }
    world.sign();
    world.come_to_rest();
    world.check_bounds();
    world.tally
}

fn step(world: &mut World, input: &mut Input<'_>) {
    let what = input.byte() % 32;
    world.show(|| format!("-- step {what}, then {:02x?}", &input.0[..input.0.len().min(8)]));
    match what {
        0..=15 => call(world, what, input),
        16..=20 => world.run(1 << (input.byte() % 31)),
        21 => wire(world, input),
        _ => forge::inject(world, what, input),
    }
    world.settle_all();
}

/// A call of one of the programs.
fn call(world: &mut World, what: u8, input: &mut Input<'_>) {
    let which = input.byte();
    let (node, v6) = (usize::from(which & 1), which & 2 != 0);
    let pick = usize::from(which >> 2);
    let host = &mut world.hosts[node];
    let streams = host.streams.len();
    match what {
        0 => host.listen(v6, PORTS[pick % 4], pick / 4),
        1 | 2 => {
            let from = PORTS.get(usize::from(input.byte() % 8)).copied();
            host.connect(v6, PORTS[pick % 4], from);
        }
        3 => {
            host.accept(false);
        }
        4 | 5 if streams > 0 => host.send_pattern(pick % streams, usize::from(input.u16())),
        6 | 7 if streams > 0 => {
            let _ = world.receive(node, pick % streams, usize::from(input.u16()));
        }
        8 if streams > 0 => {
            let stream = &mut host.streams[pick % streams];
            let how = Shutdown::from_raw(i32::from(input.byte() % 3)).expect("one of three");
            stream.shut = true;
            let _ = host.engine.shutdown(stream.id, how);
        }
        9 if streams > 0 => {
            let stream = host.streams.swap_remove(pick % streams);
            host.engine.close(stream.id);
        }
        10 => {
            let ids: Vec<_> =
                host.streams.iter().map(|stream| stream.id).chain(host.listeners.clone()).collect();
            if let Some(id) = ids.get(pick % ids.len().max(1)) {
                let (level, name, values) = OPTIONS[usize::from(input.byte()) % OPTIONS.len()];
                let value = values[usize::from(input.byte()) % values.len()];
                host.impatient |= level == libc::IPPROTO_TCP && IMPATIENT.contains(&name);
                let _ = host.engine.set_option(*id, level, name, &value.to_ne_bytes());
            }
        }
        11 => {
            let how = input.byte();
            let peer = (how & 1 != 0).then_some(PORTS[pick / 4 % 4]);
            host.bind_datagrams(v6, how & 2 != 0, PORTS[pick % 4], peer);
        }
        12 | 13 if !host.datagrams.is_empty() => {
            let id = host.datagrams[pick % host.datagrams.len()];
            let to = addr(usize::from(input.byte() % 4), v6, PORTS[usize::from(input.byte() % 4)]).into();
            let bytes = vec![0x55; usize::from(input.u16() % 3000)];
            let _ = host.engine.send(
                id,
                &SendMsg { data: &[IoSlice::new(&bytes)], addr: Some(&to), control: &[] },
                MsgFlags::empty(),
            );
            let _ = host.receive_datagram(id);
        }
        14 if pick.is_multiple_of(8) && !host.listeners.is_empty() => {
            let id = host.listeners.swap_remove(0);
            host.engine.close(id);
        }
        14 if pick % 8 == 1 && !host.datagrams.is_empty() => {
            let id = host.datagrams.swap_remove(0);
            host.engine.close(id);
        }
        14 if (2..5).contains(&(pick % 8)) => {
            let (domain, kind, protocol) = OTHERS[usize::from(input.byte()) % OTHERS.len()];
            host.open_other(domain, kind, protocol);
        }
        14 if pick % 8 == 5 && !host.others.is_empty() => {
            let id = host.others.swap_remove(0);
            host.engine.close(id);
        }
        14 if pick % 8 == 6 && !host.others.is_empty() => {
            let id = host.others[usize::from(input.byte()) % host.others.len()];
            // An echo request where that means something. A raw socket could forge segments: that is not its program's aim.
            let mut bytes = vec![if v6 { 128 } else { 8 }, 0, 0, 0, 0, 7, 0, 1];
            bytes.resize(8 + usize::from(input.u16() % 4000), 0x55);
            let to = addr(1 - node, v6, 0).into();
            let message = SendMsg { data: &[IoSlice::new(&bytes)], addr: Some(&to), control: &[] };
            let _ = host.engine.send(id, &message, MsgFlags::empty());
        }
        14 if pick % 8 == 7 && !host.datagrams.is_empty() => {
            let id = host.datagrams[usize::from(input.byte()) % host.datagrams.len()];
            let joins = input.byte() & 1 == 0;
            // struct ip_mreqn and struct ipv6_mreq
            let v4 = [&[239, 0, 0, input.byte() % 4, 0, 0, 0, 0][..], &(ETH as i32).to_ne_bytes()].concat();
            let mut v6_group = [0; 20];
            (v6_group[0], v6_group[1], v6_group[15]) = (0xff, 0x05, input.byte() % 4);
            v6_group[16..].copy_from_slice(&ETH.to_ne_bytes());
            let (level, name, value) = match (v6, joins) {
                (false, true) => (libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &v4[..]),
                (false, false) => (libc::IPPROTO_IP, libc::IP_DROP_MEMBERSHIP, &v4[..]),
                (true, true) => (libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &v6_group[..]),
                (true, false) => (libc::IPPROTO_IPV6, libc::IPV6_DROP_MEMBERSHIP, &v6_group[..]),
            };
            let _ = host.engine.set_option(id, level, name, value);
        }
        15 => {
            for stream in &host.streams {
                let _ = (host.engine.take_error(stream.id), host.engine.events(stream.id));
                let mut amount = [0; 4];
                let _ = host.engine.ioctl(stream.id, libc::FIONREAD, &mut amount);
            }
            for id in host.others.clone() {
                let _ = host.receive_datagram(id);
            }
        }
        _ => {}
    }
}

/// The wire gets worse or better.
fn wire(world: &mut World, input: &mut Input<'_>) {
    let (what, value) = (input.byte(), input.byte());
    let node = usize::from(value & 1);
    match what % 8 {
        0 => world.wire.loss = value % 60,
        1 => world.wire.twice = value % 60,
        2 => world.wire.delay = 1 << (value % 22),
        3 => world.wire.cut[node] = value & 2 != 0,
        4 | 5 => {
            let host = &mut world.hosts[node];
            host.blocked = value & 2 != 0;
            host.engine.set_blocked(ETH, host.blocked);
        }
        _ => world.wire = world::Wire { delay: 100, ..world::Wire::default() },
    }
}
