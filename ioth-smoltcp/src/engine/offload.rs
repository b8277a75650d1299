//! What is left to the link, done in software where the link can't: checksums and TCP segmentation.

use ioth_vde::{Checksum, Frame};
use smoltcp::wire::{IpProtocol, TcpPacket};

use super::wire;

/// Computes the checksums of a whole IP packet of ours.
pub(crate) fn fill_checksums(packet: &mut Frame) {
    if let Ok(header) = wire::parse_ip(packet, false) {
        if header.src.is_ipv4() {
            wire::fill_ipv4_checksum(packet);
        }
        wire::fill_checksum(packet, &header);
    }
    packet.checksum = Checksum::Present;
}

/// Cuts a super-frame (an IP packet with one TCP segment) into segments of its `gso_size`.
///
/// The sequence numbers go on, FIN and PSH stay with the last one (as RFC 9293 §3.8.4 has it for the data's end).
/// A packet that isn't TCP, or has no `gso_size`, comes out whole.
pub(crate) fn segment(packet: &Frame) -> Vec<Frame> {
    let whole = || vec![packet.clone()];
    let (Some(size), Ok(header)) = (packet.gso_size, wire::parse_ip(packet, false)) else { return whole() };
    if header.protocol != IpProtocol::Tcp {
        return whole();
    }
    let Ok(tcp) = TcpPacket::new_checked(&packet[header.payload_at..header.total_len]) else {
        return whole();
    };
    let headers = header.payload_at + usize::from(tcp.header_len());
    let (sequence, fin, psh) = (tcp.seq_number(), tcp.fin(), tcp.psh());
    let payload = &packet[headers..header.total_len];
    let pieces = payload.chunks(usize::from(size.get()));
    let last = pieces.len().saturating_sub(1);
    let mut segments = Vec::with_capacity(pieces.len());
    for (i, piece) in pieces.enumerate() {
        let mut segment = Frame::new(headers + piece.len());
        segment[..headers].copy_from_slice(&packet[..headers]);
        segment[headers..].copy_from_slice(piece);
        set_ip_length(&mut segment);
        let mut tcp = TcpPacket::new_unchecked(&mut segment[header.payload_at..]);
        tcp.set_seq_number(sequence + i * usize::from(size.get()));
        tcp.set_fin(fin && i == last);
        tcp.set_psh(psh && i == last);
        segment.checksum = Checksum::Trusted;
        segments.push(segment);
    }
    segments
}

fn set_ip_length(packet: &mut Frame) {
    let len = packet.len();
    if packet[0] >> 4 == 4 {
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        wire::fill_ipv4_checksum(packet);
    } else {
        packet[4..6].copy_from_slice(&((len - wire::IPV6_HEADER) as u16).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::wire::{IpAttrs, TCP_HEADER, emit_ip, ip_header_len, parse_ip, verify_checksum};
    use std::net::IpAddr;
    use std::num::NonZeroU16;

    fn super_frame(src: IpAddr, dst: IpAddr, payload: &[u8]) -> Frame {
        let ip = ip_header_len(src);
        let mut packet = Frame::new(ip + TCP_HEADER + payload.len());
        packet.fill(0);
        emit_ip(&mut packet, src, dst, IpAttrs::new(IpProtocol::Tcp, 64));
        let mut tcp = TcpPacket::new_unchecked(&mut packet[ip..]);
        tcp.set_header_len(TCP_HEADER as u8);
        tcp.set_seq_number(smoltcp::wire::TcpSeqNumber(i32::MAX - 1000));
        tcp.set_psh(true);
        tcp.set_fin(true);
        packet[ip + TCP_HEADER..].copy_from_slice(payload);
        packet.gso_size = NonZeroU16::new(1000);
        packet.checksum = Checksum::Trusted;
        packet
    }

    #[test]
    fn the_pieces_are_the_whole() {
        for (src, dst) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let payload: Vec<u8> = (0..3500u32).map(|i| i as u8).collect();
            let packet = super_frame(src.parse().unwrap(), dst.parse().unwrap(), &payload);
            let mut segments = segment(&packet);
            assert_eq!(segments.len(), 4);
            let mut joined = Vec::new();
            for (i, segment) in segments.iter_mut().enumerate() {
                fill_checksums(segment);
                let header = parse_ip(segment, true).unwrap();
                assert_eq!(header.total_len, segment.len());
                assert!(verify_checksum(segment, &header));
                let tcp = TcpPacket::new_checked(&segment[header.payload_at..]).unwrap();
                assert_eq!(tcp.seq_number().0, (i32::MAX - 1000).wrapping_add(1000 * i as i32));
                assert_eq!((tcp.fin(), tcp.psh()), (i == 3, i == 3));
                joined.extend_from_slice(tcp.payload());
            }
            assert_eq!(joined, payload);
        }
    }

    #[test]
    fn what_is_not_a_super_frame_stays_whole() {
        let mut packet = super_frame("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap(), &[1; 3000]);
        packet.gso_size = None;
        assert_eq!(segment(&packet).len(), 1);
    }
}
