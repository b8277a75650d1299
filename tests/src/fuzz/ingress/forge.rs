//! Frames of the hostile host: well-formed, and made of what it saw.

use std::net::{IpAddr, SocketAddr};

use super::super::Input;
use super::PORTS;
use super::packet::{
    self, ACK, ARP, ETHERNET, FRAGMENT, ICMP, ICMPV6, IGMP, RST, SYN, Seen, Segment, TCP, UDP, UDP_LITE,
};
use super::world::{World, addr, mac};

/// Forges what the next bytes say.
pub(super) fn inject(world: &mut World, what: u8, input: &mut Input<'_>) {
    match what {
        22..=24 => tcp(world, input),
        25 => replay(world, input, false),
        26 => replay(world, input, true),
        27 => fragments(world, input),
        28 => icmp_error(world, input),
        29 => neighbours(world, input),
        30 => datagram(world, input),
        _ => strangers(world, input),
    }
}

/// A segment for a connection that there is, or was.
fn tcp(world: &mut World, input: &mut Input<'_>) {
    if world.flows.0.is_empty() {
        return;
    }
    let which = input.byte();
    let to = usize::from(which & 1);
    let at = world.flows.0.len() - 1 - usize::from(which >> 1) % world.flows.0.len();
    let flow = &world.flows.0[at];
    let flags = flags(input);
    let (sender, receiver) = (&flow.sides[1 - to], &flow.sides[to]);
    let expected = receiver.acked.or(sender.end).unwrap_or(0);
    let sequence = near(expected, receiver.window, input);
    let sent = receiver.end.unwrap_or(0);
    let acked = sender.acked.unwrap_or(sent);
    let ack = match input.byte() % 4 {
        0 | 1 => acked,
        2 => sent,
        _ => near(sent, sender.window, input),
    };
    let shape = input.byte();
    let window = if shape & 1 != 0 { input.u16() } else { sender.window };
    let urgent = if flags & packet::URG != 0 { input.u16() } else { 0 };
    let options = if shape & 2 != 0 { options(input) } else { Vec::new() };
    let payload = match shape >> 2 & 3 {
        0 | 1 => Vec::new(),
        2 => input.take(usize::from(shape >> 4) + 1).to_vec(),
        _ => vec![0xee; usize::from(input.u16() % 1460)],
    };
    let [from_end, to_end] = [flow.ends[1 - to], flow.ends[to]];
    let ports = [from_end.port(), to_end.port()];
    let bytes =
        Segment { ports, sequence, ack, flags, window, urgent, options: &options, payload: &payload }.emit();
    let forged = Seen {
        src: (from_end.ip(), from_end.port()),
        dst: (to_end.ip(), to_end.port()),
        sequence,
        ack,
        flags,
        window,
        len: payload.len(),
    };
    taint(world, at, to, &forged);
    let mut packet = packet::ip(from_end.ip(), to_end.ip(), TCP, 64, &bytes);
    packet::repair(&mut packet);
    deliver(world, to, &packet);
}

/// A number at, near or far from one that is expected.
fn near(expected: u32, window: u16, input: &mut Input<'_>) -> u32 {
    let window = u32::from(window);
    let offset = match input.byte() % 16 {
        0..=4 => 0,
        5 => 1,
        6 => u32::MAX,
        7 => window,
        8 => window.wrapping_sub(1),
        9 => window + 1,
        10 => 0u32.wrapping_sub(window),
        11 => 1 << 31,
        12 => 1 << (input.byte() % 32),
        13 => 0u32.wrapping_sub(1 << (input.byte() % 32)),
        14 => u32::from(input.u16()),
        _ => u32::from(input.u16()) << 16 | u32::from(input.u16()),
    };
    expected.wrapping_add(offset)
}

fn flags(input: &mut Input<'_>) -> u8 {
    const USUAL: [u8; 12] = [
        ACK,
        ACK,
        ACK | 8,
        ACK | packet::FIN,
        RST,
        RST | ACK,
        SYN,
        SYN | ACK,
        ACK | packet::URG,
        packet::FIN,
        0,
        SYN | RST,
    ];
    let what = input.byte();
    USUAL.get(usize::from(what % 16)).copied().unwrap_or_else(|| input.byte())
}

/// Options, most of them wrong in some way.
fn options(input: &mut Input<'_>) -> Vec<u8> {
    let what = input.byte();
    let value = input.byte();
    match what % 16 {
        0 => vec![2, 4, 0, value],
        1 => vec![2, 4, value, 0],
        2 => vec![2, 4, 0, 0],
        3 => vec![2, 3, value],
        4 => vec![3, 3, value],
        5 => vec![3, 3, 14, 3, 3, value],
        6 => vec![4, 2, 2, 4, 5, 180, 3, 3, 7],
        7 => [&[5, 10][..], input.take(8)].concat(),
        8 => [&[5, 2 + value % 40][..], input.take(30)].concat(),
        9 => [&[8, 10][..], input.take(8)].concat(),
        10 => vec![value, 0],
        11 => vec![value, 1],
        12 => vec![1, 1, 1, value, 200],
        13 => vec![0, value, value, value],
        14 => [&[19, 18][..], &[value; 16]].concat(),
        _ => input.take(usize::from(value % 41)).to_vec(),
    }
}

/// A frame that was on the wire comes once more, or with a byte changed and its checksums right again.
fn replay(world: &mut World, input: &mut Input<'_>, changed: bool) {
    let Some(at) = recall(world, input) else { return };
    let remembered = &world.memory[at];
    let (to, mut frame, flow) = (1 - remembered.from, remembered.frame.clone(), remembered.flow);
    if frame[0] & 1 == 0 {
        frame[..6].copy_from_slice(&mac(to).0);
    }
    if changed {
        let (place, value) = (usize::from(input.byte()), input.byte());
        let place = ETHERNET + place % frame.len().saturating_sub(ETHERNET).max(1);
        if let Some(byte) = frame.get_mut(place) {
            *byte ^= value;
        }
        packet::repair(&mut frame[ETHERNET..]);
    }
    // What it says may fit another connection now, or another place in its own.
    if let Some(seen) = packet::segment(&frame) {
        let ends = [SocketAddr::from(seen.src), SocketAddr::from(seen.dst)];
        let ends = if to == 0 { [ends[1], ends[0]] } else { ends };
        if let Some(now) = world.flows.find(&ends) {
            let same_life = flow.is_some_and(|(_, life)| world.flows.0[now].life == life);
            if changed || !same_life {
                taint(world, now, to, &seen);
            }
        }
    }
    world.inject(to, &frame);
}

/// A packet that was on the wire comes in pieces: in any order, with a gap or an overlap.
fn fragments(world: &mut World, input: &mut Input<'_>) {
    let Some(at) = recall(world, input) else { return };
    let (how, first, ident) = (input.byte(), usize::from(input.byte()), input.byte());
    let remembered = &world.memory[at];
    let (to, packet, flow) = (1 - remembered.from, remembered.frame[ETHERNET..].to_vec(), remembered.flow);
    let header = match packet.first().map(|byte| byte >> 4) {
        Some(4) => 20,
        Some(6) => 40,
        _ => return,
    };
    let Some(payload) = packet.get(header..).filter(|payload| payload.len() > 8) else { return };
    if let Some((at, life)) = flow
        && world.flows.0.get(at).is_some_and(|flow| flow.life != life)
    {
        return;
    }
    // Units of eight bytes, of which the first piece has some and the second the rest.
    let units = payload.len().div_ceil(8);
    let cut = 1 + first % (units - 1).max(1);
    let overlap = usize::from(how & 1 != 0 && cut > 1);
    let gap = usize::from(how & 2 != 0);
    let second_at = cut - overlap + gap;
    let pieces = [
        (0, &payload[..(cut * 8).min(payload.len())], true),
        (second_at, payload.get(second_at * 8..).unwrap_or_default(), how & 4 != 0),
    ];
    let order = if how & 8 != 0 { [1, 0] } else { [0, 1] };
    for i in order {
        let (offset, bytes, more) = pieces[i];
        let piece = fragment(&packet[..header], offset, bytes, more, ident);
        deliver(world, to, &piece);
    }
    // Without its second piece, the first one waits.
    if how & 16 != 0 {
        let piece = fragment(&packet[..header], 0, pieces[0].1, true, ident.wrapping_add(1));
        deliver(world, to, &piece);
    }
}

fn fragment(header: &[u8], offset: usize, bytes: &[u8], more: bool, ident: u8) -> Vec<u8> {
    let mut packet = header.to_vec();
    let field = (offset * 8) as u16;
    if header.len() == 20 {
        packet[2..4].copy_from_slice(&((20 + bytes.len()) as u16).to_be_bytes());
        packet[4..6].copy_from_slice(&[0x77, ident]);
        packet[6..8].copy_from_slice(&((field / 8) | (u16::from(more) << 13)).to_be_bytes());
        packet.extend(bytes);
    } else {
        let next = std::mem::replace(&mut packet[6], FRAGMENT);
        packet[4..6].copy_from_slice(&((8 + bytes.len()) as u16).to_be_bytes());
        packet.extend([next, 0]);
        packet.extend((field | u16::from(more)).to_be_bytes());
        packet.extend([0, 0, 0x77, ident]);
        packet.extend(bytes);
    }
    packet::repair(&mut packet);
    packet
}

/// Somebody on the way says that a packet of a node was not delivered.
fn icmp_error(world: &mut World, input: &mut Input<'_>) {
    let Some(at) = recall(world, input) else { return };
    let (kind, code, word) = (input.byte(), input.byte(), input.u16());
    let (len, shift) = (usize::from(input.byte()) * 4, input.byte());
    let to = world.memory[at].from;
    let mut quoted = world.memory[at].frame[ETHERNET..].to_vec();
    let v4 = match quoted.first().map(|byte| byte >> 4) {
        Some(4) => true,
        Some(6) => false,
        _ => return,
    };
    // The sequence number that is quoted may be far away.
    if shift & 1 != 0 {
        let at = if v4 { 24 } else { 44 };
        if let Some(sequence) = quoted.get_mut(at..at + 4) {
            sequence[usize::from(shift >> 1 & 3)] ^= shift;
        }
    }
    quoted.truncate(len.max(8));
    const V4: [u8; 5] = [3, 3, 11, 12, 4];
    const V6: [u8; 5] = [1, 2, 3, 4, 127];
    let kind = if v4 { V4 } else { V6 }.get(usize::from(kind % 6)).copied().unwrap_or(kind);
    let mut message = vec![kind, code % 17, 0, 0];
    // The next hop's MTU is in another half of the word in each family; so it is in both.
    message.extend(if v4 { [0; 2] } else { [0, u8::from(word & 0x8000 != 0)] });
    message.extend((word & 0x7fff).to_be_bytes());
    message.extend(quoted);
    let from = usize::from(input.byte() % 4);
    let protocol = if v4 { ICMP } else { ICMPV6 };
    let mut packet = packet::ip(addr(from, !v4, 0).ip(), addr(to, !v4, 0).ip(), protocol, 64, &message);
    packet::repair(&mut packet);
    deliver(world, to, &packet);
}

/// ARP and neighbour discovery that claims any address for anybody.
fn neighbours(world: &mut World, input: &mut Input<'_>) {
    let (which, flags) = (input.byte(), input.byte());
    let to = usize::from(which & 1);
    let (claimed, asked) = (usize::from(which >> 1 & 3), usize::from(which >> 3 & 3));
    let owner = mac(usize::from(which >> 5));
    let target = if flags & 1 != 0 { [0xff; 6] } else { mac(to).0 };
    if flags & 2 != 0 {
        let mut message = vec![0, 1, 8, 0, 6, 4, 0, 1 + (flags >> 2 & 1)];
        for (mac, index) in [(owner, claimed), (mac(to), asked)] {
            let IpAddr::V4(ip) = addr(index, false, 0).ip() else { return };
            message.extend(mac.0);
            message.extend(ip.octets());
        }
        if flags & 8 != 0 {
            let at = usize::from(input.byte()) % message.len();
            message[at] ^= input.byte();
        }
        return world.inject(to, &packet::ethernet(target, owner.0, ARP, &message));
    }
    let IpAddr::V6(claimed) = addr(claimed, true, 0).ip() else { return };
    let IpAddr::V6(asked) = addr(asked, true, 0).ip() else { return };
    let kind = [135, 136, 134, 137, 133][usize::from(flags >> 2) % 5];
    let mut message = vec![kind, 0, 0, 0, flags & 0xe0, 0, 0, 0];
    match kind {
        135 => message.extend(asked.octets()),
        136 => message.extend(claimed.octets()),
        137 => message.extend([claimed.octets(), asked.octets()].concat()),
        134 => message.extend([0; 8]),
        _ => {}
    }
    match input.byte() % 6 {
        0 => message.extend([&[1, 1][..], &owner.0].concat()),
        1 | 2 => message.extend([&[2, 1][..], &owner.0].concat()),
        3 => message.extend([5, 1, 0, 0, 0, 0, input.byte(), input.byte()]),
        4 => message.extend(input.take(24)),
        _ => {}
    }
    let hops = if flags & 0x10 != 0 && input.byte() & 1 != 0 { 64 } else { 255 };
    let src = if input.byte() % 8 == 7 { [0u16; 8].into() } else { IpAddr::V6(claimed) };
    let mut packet = packet::ip(src, addr(to, true, 0).ip(), ICMPV6, hops, &message);
    packet::repair(&mut packet);
    world.inject(to, &packet::ethernet(target, owner.0, packet::IPV6, &packet));
}

/// A datagram, an echo request or any other protocol, from the other node or from nobody.
fn datagram(world: &mut World, input: &mut Input<'_>) {
    let which = input.byte();
    let (to, v6) = (usize::from(which & 1), which & 2 != 0);
    let (from, what) = (usize::from(which >> 2 & 3), which >> 4);
    let len = usize::from(input.u16() % 1400);
    let mut hops = 64;
    let mut src = addr(from, v6, 0).ip();
    let (protocol, payload) = match what {
        0..=5 => {
            let [source, port] = [0, 1].map(|_| PORTS[usize::from(input.byte() % 4)]);
            let claimed = match input.byte() % 8 {
                0 => input.u16(),
                _ => (8 + len) as u16,
            };
            let mut bytes =
                [source.to_be_bytes(), port.to_be_bytes(), claimed.to_be_bytes(), [0, 0]].concat();
            bytes.resize(8 + len, 0x5a);
            (if what < 5 { UDP } else { UDP_LITE }, bytes)
        }
        6..=9 => {
            let kind = if v6 { 128 } else { 8 } + u8::from(what == 9);
            let mut bytes = vec![kind, 0, 0, 0, 0, 1, 0, input.byte()];
            bytes.resize(8 + len, 0x5a);
            (if v6 { ICMPV6 } else { ICMP }, bytes)
        }
        10 => (input.byte(), input.take(len).to_vec()),
        11 => {
            hops = input.byte();
            // Extension headers, and options in them, that end in no next header.
            let next = [0, 43, 60, 51, 135][usize::from(input.byte() % 5)];
            let mut bytes = vec![59, input.byte() % 3];
            bytes.extend(input.take(22));
            (next, bytes)
        }
        12 => {
            // A router asks who listens.
            hops = 1;
            let (delay, group) = (input.byte(), input.byte() % 4);
            match v6 {
                true => {
                    // RFC 3810 §5.1.14: from a link-local address.
                    src = [0xfe80, 0, 0, 0, 0, 0, 0, from as u16 + 1].into();
                    let mut bytes = vec![130, 0, 0, 0, 0, delay, 0, 0];
                    bytes.extend([0xff, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, group]);
                    bytes.extend(input.take(20));
                    (ICMPV6, bytes)
                }
                false => {
                    let mut bytes = vec![0x11, delay, 0, 0, 239, 0, 0, group];
                    bytes.extend(input.take(20));
                    let sum = packet::checksum(&bytes);
                    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
                    (IGMP, bytes)
                }
            }
        }
        13 => {
            // Pieces of packets that never become whole.
            for i in 0..1u16 << (input.byte() % 9) {
                let ident = i.to_be_bytes();
                let header = packet::ip(addr(from, v6, 0).ip(), addr(to, v6, 0).ip(), UDP, 64, &[]);
                let piece = fragment(&header, 8 * usize::from(i % 5), &[0x5a; 64], i % 3 != 0, ident[1]);
                deliver(world, to, &piece);
            }
            return;
        }
        _ => (if v6 { ICMPV6 } else { ICMP }, input.take(len.min(80)).to_vec()),
    };
    let to_ip = match input.byte() % 10 {
        8 if v6 => [0xff05, 0, 0, 0, 0, 0, 0, u16::from(input.byte() % 4)].into(),
        8 => [239, 0, 0, input.byte() % 4].into(),
        0 if v6 => [0xff02, 0, 0, 0, 0, 0, 0, 1].into(),
        0 => [224, 0, 0, 1].into(),
        1 if !v6 => [10, 0, 0, 255].into(),
        _ => addr(to, v6, 0).ip(),
    };
    let mut packet = packet::ip(src, to_ip, protocol, hops, &payload);
    packet::repair(&mut packet);
    deliver(world, to, &packet);
}

/// Handshakes begun by many who do not exist, and segments for ports where nobody is.
fn strangers(world: &mut World, input: &mut Input<'_>) {
    let which = input.byte();
    let (to, v6) = (usize::from(which & 1), which & 2 != 0);
    let count = 1 << (which >> 2 & 7);
    let flags = if which & 0x20 != 0 { flags(input) } else { SYN };
    let options = options(input);
    let [port, from] = [0, 1].map(|_| input.byte());
    let first = input.u16();
    for i in 0..count {
        let ports = [first.wrapping_add(i), PORTS[usize::from(port % 4)]];
        let sequence = u32::from(first) << 16 | u32::from(i);
        let bytes =
            Segment { ports, sequence, flags, window: first, options: &options, ..Segment::default() }.emit();
        // From nobody, from the other node, or from the node itself.
        let src =
            addr(if from & 1 != 0 { usize::from(from >> 1) % 8 } else { 8 + usize::from(i % 64) }, v6, 0);
        let mut packet = packet::ip(src.ip(), addr(to, v6, 0).ip(), TCP, 64, &bytes);
        packet::repair(&mut packet);
        if let Some(seen) = packet::segment(&packet::ethernet([0; 6], [0; 6], 0, &packet)) {
            let ends = [SocketAddr::from(seen.src), SocketAddr::from(seen.dst)];
            let ends = if to == 0 { [ends[1], ends[0]] } else { ends };
            if let Some(at) = world.flows.find(&ends) {
                taint(world, at, to, &seen);
            }
        }
        deliver(world, to, &packet);
    }
}

fn recall(world: &World, input: &mut Input<'_>) -> Option<usize> {
    let back = usize::from(input.byte());
    world.memory.len().checked_sub(1 + back % world.memory.len().max(1))
}

fn taint(world: &mut World, at: usize, to: usize, forged: &Seen) {
    let flow = &world.flows.0[at];
    let under_way = world.hosts[to].under_way(&flow.ends);
    let harmless = flow.is_harmless(to, forged, under_way);
    world.flows.0[at].tainted |= !harmless;
}

fn deliver(world: &mut World, to: usize, packet: &[u8]) {
    let frame = packet::ethernet(mac(to).0, mac(1 - to).0, packet::ethertype(packet), packet);
    world.inject(to, &frame);
}
