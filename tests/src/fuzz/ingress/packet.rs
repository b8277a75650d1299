//! Packets as they are on the wire, built and repaired by hand: a hostile host owes nothing to our own emitters.

use std::net::IpAddr;

pub(super) const ETHERNET: usize = 14;
pub(super) const IPV4: u16 = 0x0800;
pub(super) const ARP: u16 = 0x0806;
pub(super) const IPV6: u16 = 0x86dd;

pub(super) const ICMP: u8 = 1;
pub(super) const IGMP: u8 = 2;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const UDP_LITE: u8 = 136;
pub(super) const FRAGMENT: u8 = 44;
pub(super) const ICMPV6: u8 = 58;

/// An Ethernet frame around a payload.
pub(super) fn ethernet(to: [u8; 6], from: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &ethertype.to_be_bytes(), payload].concat()
}

/// An IP packet of the addresses' family. Its checksums are [`repair`]'s.
pub(super) fn ip(src: IpAddr, dst: IpAddr, protocol: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let len = (20 + payload.len()) as u16;
            let mut packet = vec![0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, hops, protocol, 0, 0];
            packet[2..4].copy_from_slice(&len.to_be_bytes());
            packet.extend(src.octets());
            packet.extend(dst.octets());
            packet.extend(payload);
            packet
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let len = payload.len() as u16;
            let mut packet = vec![0x60, 0, 0, 0, 0, 0, protocol, hops];
            packet[4..6].copy_from_slice(&len.to_be_bytes());
            packet.extend(src.octets());
            packet.extend(dst.octets());
            packet.extend(payload);
            packet
        }
        _ => unreachable!("both ends are drawn for one family"),
    }
}

/// The ethertype for an IP packet.
pub(super) fn ethertype(packet: &[u8]) -> u16 {
    if packet[0] >> 4 == 4 { IPV4 } else { IPV6 }
}

/// Makes an IP packet's checksums right, as far as it is understood.
pub(super) fn repair(packet: &mut [u8]) {
    let Some(&first) = packet.first() else { return };
    let (protocol, at, pseudo) = match first >> 4 {
        4 if packet.len() >= 20 => {
            let at = usize::from(first & 0x0f) * 4;
            if at < 20 || at > packet.len() {
                return;
            }
            packet[10..12].fill(0);
            let sum = !fold(sum(&packet[..at]));
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            // The first piece of a fragmented packet does not have all that the checksum covers.
            if packet[6] & 0x3f != 0 || packet[7] != 0 {
                return;
            }
            (packet[9], at, sum_of_addresses(&packet[12..20]))
        }
        6 if packet.len() >= 40 => (packet[6], 40, sum_of_addresses(&packet[8..40])),
        _ => return,
    };
    let Some(payload) = packet.get_mut(at..) else { return };
    let (field, pseudo) = match protocol {
        TCP => (16, pseudo),
        UDP | UDP_LITE => (6, pseudo),
        ICMPV6 => (2, pseudo),
        ICMP => (2, 0),
        _ => return,
    };
    if payload.len() < field + 2 {
        return;
    }
    let pseudo = if pseudo == 0 { 0 } else { pseudo + u64::from(protocol) + payload.len() as u64 };
    // RFC 3828 §3.1: a field of UDP-Lite says how much is covered, if it is possible.
    let covered = match protocol {
        UDP_LITE => usize::from(u16::from_be_bytes([payload[4], payload[5]])),
        _ => payload.len(),
    };
    let covered = if (8..payload.len()).contains(&covered) { covered } else { payload.len() };
    payload[field..field + 2].fill(0);
    let sum = !fold(pseudo + sum(&payload[..covered]));
    payload[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}

/// The fields of a TCP header and what follows it.
#[derive(Clone, Debug, Default)]
pub(super) struct Segment<'a> {
    pub(super) ports: [u16; 2],
    pub(super) sequence: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) urgent: u16,
    pub(super) options: &'a [u8],
    pub(super) payload: &'a [u8],
}

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const ACK: u8 = 0x10;
pub(super) const URG: u8 = 0x20;

impl Segment<'_> {
    pub(super) fn emit(&self) -> Vec<u8> {
        let options = &self.options[..self.options.len().min(40)];
        let padded = options.len().next_multiple_of(4);
        let mut bytes = Vec::with_capacity(20 + padded + self.payload.len());
        bytes.extend(self.ports[0].to_be_bytes());
        bytes.extend(self.ports[1].to_be_bytes());
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.ack.to_be_bytes());
        bytes.extend([((20 + padded) as u8 / 4) << 4, self.flags]);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(self.urgent.to_be_bytes());
        bytes.extend(options);
        bytes.resize(20 + padded, 0);
        bytes.extend(self.payload);
        bytes
    }
}

/// What a TCP segment on the wire says, for those that watch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) src: (IpAddr, u16),
    pub(super) dst: (IpAddr, u16),
    pub(super) sequence: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    /// Bytes of payload.
    pub(super) len: usize,
}

/// Reads a whole TCP segment out of an Ethernet frame.
pub(super) fn segment(frame: &[u8]) -> Option<Seen> {
    let packet = frame.get(ETHERNET..)?;
    let (src, dst, tcp): (IpAddr, IpAddr, &[u8]) = match packet.first()? >> 4 {
        4 if *packet.get(9)? == TCP => {
            let len = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
            let addr = |at: usize| <[u8; 4]>::try_from(packet.get(at..at + 4)?).ok().map(IpAddr::from);
            (addr(12)?, addr(16)?, packet.get(usize::from(packet[0] & 15) * 4..len)?)
        }
        6 if *packet.get(6)? == TCP => {
            let addr = |at: usize| <[u8; 16]>::try_from(packet.get(at..at + 16)?).ok().map(IpAddr::from);
            (addr(8)?, addr(24)?, packet.get(40..)?)
        }
        _ => return None,
    };
    let word = |at: usize| Some(u16::from_be_bytes([*tcp.get(at)?, *tcp.get(at + 1)?]));
    let long = |at: usize| Some(u32::from(word(at)?) << 16 | u32::from(word(at + 2)?));
    Some(Seen {
        src: (src, word(0)?),
        dst: (dst, word(2)?),
        sequence: long(4)?,
        ack: long(8)?,
        flags: *tcp.get(13)?,
        window: word(14)?,
        len: tcp.len().checked_sub(usize::from(tcp[12] >> 4) * 4)?,
    })
}

/// A frame in a few words, for people.
pub(super) fn describe(frame: &[u8]) -> String {
    let Some(seen) = segment(frame) else {
        let shown = &frame[..frame.len().min(96)];
        return format!("{} bytes: {shown:02x?}", frame.len());
    };
    let flags: String =
        "FSRPAU".chars().enumerate().filter(|(i, _)| seen.flags >> i & 1 != 0).map(|(_, c)| c).collect();
    let (src, dst) = (std::net::SocketAddr::from(seen.src), std::net::SocketAddr::from(seen.dst));
    let Seen { sequence, ack, window, len, .. } = seen;
    format!("{src} > {dst} {flags} seq {sequence} ack {ack} win {window} len {len}")
}

impl Seen {
    /// The sequence number behind it.
    pub(super) fn end(&self) -> u32 {
        let controls = u32::from(self.flags & SYN != 0) + u32::from(self.flags & FIN != 0);
        self.sequence.wrapping_add(self.len as u32 + controls)
    }
}

/// The checksum of a message without a pseudo-header.
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    !fold(sum(bytes))
}

fn sum_of_addresses(bytes: &[u8]) -> u64 {
    // Never 0, which says that there is no pseudo-header: 0xffff is the same in one's complement.
    sum(bytes) + 0xffff
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
