//! Packets longer than a link's MTU leave in pieces (RFC 791 §3.2, RFC 8200 §4.5).

use ioth_vde::Frame;

use super::wire::{self, IPV6_HEADER};

/// Length of IPv6's fragment header, in bytes.
const FRAGMENT_HEADER: usize = 8;
/// Pieces begin at multiples of this many bytes.
const UNIT: usize = 8;
/// IPv4's flag that more pieces follow.
const MORE_V4: u8 = 0x20;
/// Numbers of extension headers that every piece carries.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;

/// Cuts a whole IP packet, with its checksums, into pieces of at most `mtu` bytes.
///
/// `ident` tells which pieces belong together. Nothing comes out of a packet whose headers leave no room in the MTU.
pub(crate) fn split(packet: &[u8], mtu: usize, ident: u32) -> Vec<Frame> {
    if packet[0] >> 4 == 4 { split_v4(packet, mtu, ident as u16) } else { split_v6(packet, mtu, ident) }
}

fn split_v4(packet: &[u8], mtu: usize, ident: u16) -> Vec<Frame> {
    let header_len = usize::from(packet[0] & 0x0f) * 4;
    let (header, payload) = packet.split_at(header_len.min(packet.len()));
    let room = mtu.saturating_sub(header_len) / UNIT * UNIT;
    if room == 0 {
        return Vec::new();
    }
    let count = payload.len().div_ceil(room);
    let pieces = payload.chunks(room).enumerate().map(|(i, piece)| {
        let mut frame = Frame::new(header_len + piece.len());
        frame[..header_len].copy_from_slice(header);
        frame[header_len..].copy_from_slice(piece);
        if i > 0 {
            blank_options(&mut frame[wire::IPV4_HEADER..header_len]);
        }
        let len = frame.len() as u16;
        frame[2..4].copy_from_slice(&len.to_be_bytes());
        frame[4..6].copy_from_slice(&ident.to_be_bytes());
        let offset = (i * room / UNIT) as u16;
        frame[6..8].copy_from_slice(&offset.to_be_bytes());
        if i + 1 < count {
            frame[6] |= MORE_V4;
        }
        wire::fill_ipv4_checksum(&mut frame);
        frame
    });
    pieces.collect()
}

/// RFC 791 §3.1: an option without the "copied" flag is in the first piece only. It becomes "no operation" as in Linux.
fn blank_options(options: &mut [u8]) {
    const COPIED: u8 = 0x80;
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        let len = match kind {
            0 => return,
            1 => 1,
            _ => usize::from(options.get(at + 1).copied().unwrap_or(0)).max(2),
        };
        let end = (at + len).min(options.len());
        if kind & COPIED == 0 {
            options[at..end].fill(1);
        }
        at = end;
    }
}

fn split_v6(packet: &[u8], mtu: usize, ident: u32) -> Vec<Frame> {
    let (at, field) = unfragmentable(packet);
    let (headers, payload) = packet.split_at(at);
    let front = at + FRAGMENT_HEADER;
    let room = mtu.saturating_sub(front) / UNIT * UNIT;
    if room == 0 {
        return Vec::new();
    }
    let next = headers[field];
    let count = payload.len().div_ceil(room);
    let pieces = payload.chunks(room).enumerate().map(|(i, piece)| {
        let mut frame = Frame::new(front + piece.len());
        frame[..at].copy_from_slice(headers);
        frame[field] = FRAGMENT;
        let offset = (i * room) as u16 | u16::from(i + 1 < count);
        frame[at..at + 2].copy_from_slice(&[next, 0]);
        frame[at + 2..at + 4].copy_from_slice(&offset.to_be_bytes());
        frame[at + 4..front].copy_from_slice(&ident.to_be_bytes());
        frame[front..].copy_from_slice(piece);
        let len = (frame.len() - IPV6_HEADER) as u16;
        frame[4..6].copy_from_slice(&len.to_be_bytes());
        frame
    });
    pieces.collect()
}

/// RFC 8200 §4.5, the "Per-Fragment headers": their length, and where the number of what follows them stands.
fn unfragmentable(packet: &[u8]) -> (usize, usize) {
    let (mut at, mut field) = (IPV6_HEADER, 6);
    while matches!(packet[field], HOP_BY_HOP | ROUTING) {
        let Some(&units) = packet.get(at + 1) else { break };
        let end = at + (usize::from(units) + 1) * 8;
        if end > packet.len() {
            break;
        }
        field = at;
        at = end;
    }
    (at, field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::wire::{IpAttrs, emit_ip, ip_header_len, parse_ip};
    use proptest::prelude::*;
    use smoltcp::wire::IpProtocol;
    use std::net::IpAddr;

    proptest! {
        #[test]
        fn pieces_are_the_whole_and_fit(v6: bool, len in 4000usize..9000, mtu in 1280usize..4000) {
            let (src, dst): (IpAddr, IpAddr) = if v6 {
                ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap())
            } else {
                ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap())
            };
            let ip = ip_header_len(src);
            let mut packet = vec![0; ip + len];
            for (i, byte) in packet[ip..].iter_mut().enumerate() {
                *byte = i as u8;
            }
            emit_ip(&mut packet, src, dst, IpAttrs::new(IpProtocol::Udp, 9));
            let pieces = split(&packet, mtu, 0x1234_5678);
            let mut joined = Vec::new();
            for (i, piece) in pieces.iter().enumerate() {
                prop_assert!(piece.len() <= mtu);
                let header = parse_ip(piece, true).unwrap();
                prop_assert_eq!((header.src, header.dst, header.hop_limit, header.total_len), (src, dst, 9, piece.len()));
                prop_assert_eq!(header.protocol, IpProtocol::Udp);
                let fragment = header.fragment.unwrap();
                prop_assert_eq!(fragment.offset, joined.len());
                prop_assert_eq!(fragment.more, i + 1 < pieces.len());
                joined.extend_from_slice(&piece[header.payload_at..]);
            }
            prop_assert_eq!(&joined[..], &packet[ip..]);
        }
    }

    #[test]
    fn options_that_are_not_copied() {
        let mut options = [0x07, 3, 4, 1, 0x83, 3, 4, 0];
        blank_options(&mut options);
        assert_eq!(options, [1, 1, 1, 1, 0x83, 3, 4, 0]);
        // A length that lies ends with the options.
        let mut options = [0x07, 200, 4];
        blank_options(&mut options);
        assert_eq!(options, [1, 1, 1]);
    }
}
