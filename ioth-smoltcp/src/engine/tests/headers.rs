//! Extension headers of IPv6 that no honest host sends.

use ioth_core::{Domain, Events, SockAddr};
use ioth_vde::{Batch, Frame};
use smoltcp::time::Duration;
use smoltcp::wire::IpProtocol;
use std::net::{IpAddr, Ipv6Addr};

use super::lan::{ETH, Lan, WIRE, addr, mac, send_to};
use crate::engine::fragment::split;
use crate::engine::wire::{IPV6_HEADER, IpAttrs, emit_ip, fill_checksum, parse_ip};

const HOP_BY_HOP: u8 = 0;
const UDP: u8 = 17;
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;
const OPTIONS: u8 = 60;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// RFC 8200 §4.2: answer, even one that was sent to a group.
const UNKNOWN: u8 = 0x80;

/// Nodes that know each other's Ethernet addresses.
fn acquainted() -> Lan {
    let mut lan = Lan::new(2, WIRE);
    let (a, b) = (lan.datagrams(0, Domain::INET6), lan.datagrams(1, Domain::INET6));
    lan.nodes[1].bind(b, &SockAddr::Ip(addr(1, true, 7))).unwrap();
    send_to(&mut lan.nodes[0], a, b"x", addr(1, true, 7)).unwrap();
    assert!(lan.run_until(Duration::from_secs(5), |lan| lan.nodes[1].events(b).contains(Events::IN)));
    lan
}

/// A packet from node 0.
fn packet(dst: IpAddr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; IPV6_HEADER];
    packet.extend_from_slice(payload);
    emit_ip(&mut packet, addr(0, true, 0).ip(), dst, IpAttrs::new(next.into(), 255));
    packet
}

/// Type and code of the ICMPv6 messages that node 1 answers a packet with.
fn answers(lan: &mut Lan, packet: &[u8]) -> Vec<(u8, u8)> {
    let frame = [&mac(1).0[..], &mac(0).0, &[0x86, 0xdd], packet].concat();
    lan.nodes[1].handle_frame(ETH, Frame::copy_of(&frame));
    lan.nodes[1].poll();
    let mut batch = Batch::new();
    lan.nodes[1].take_egress(ETH, &mut batch);
    let icmp = |frame: &Frame| (frame[20] == ICMPV6).then(|| (frame[54], frame[55]));
    batch.into_iter().filter_map(|frame| icmp(&frame)).collect()
}

#[test]
fn neighbour_discovery_in_pieces_is_not_heard() {
    let mut lan = acquainted();
    let IpAddr::V6(target) = addr(1, true, 0).ip() else { unreachable!() };
    let mut question = vec![135, 0, 0, 0, 0, 0, 0, 0];
    question.extend_from_slice(&target.octets());
    let mut whole = packet(target.into(), ICMPV6, &question);
    let header = parse_ip(&whole, false).unwrap();
    fill_checksum(&mut whole, &header);
    assert_eq!(answers(&mut lan, &whole), [(NEIGHBOUR_ADVERTISEMENT, 0)]);
    let before = lan.nodes[1].drops().malformed;
    let atomic = [&[ICMPV6, 0, 0, 0, 0, 0, 0, 9], &whole[IPV6_HEADER..]].concat();
    assert_eq!(answers(&mut lan, &packet(target.into(), FRAGMENT, &atomic)), []);
    for piece in split(&whole, IPV6_HEADER + 8 + 16, 5) {
        assert_eq!(answers(&mut lan, &piece), []);
    }
    assert_eq!(lan.nodes[1].drops().malformed, before + 2);
    assert_eq!(answers(&mut lan, &whole), [(NEIGHBOUR_ADVERTISEMENT, 0)]);
}

#[test]
fn a_first_piece_has_all_headers() {
    let mut lan = acquainted();
    let to = addr(1, true, 0).ip();
    // Options, and a header of the upper layer in the next piece.
    let first = |upper: u8, units: u8, more: &[u8]| {
        let mut payload = vec![OPTIONS, 0, 0, 1, 0, 0, 0, 9, upper, units, 1, 4, 0, 0, 0, 0];
        payload.extend_from_slice(more);
        packet(to, FRAGMENT, &payload)
    };
    let before = lan.nodes[1].drops().malformed;
    assert_eq!(answers(&mut lan, &first(UDP, 0, &[])), [(4, 3)]);
    assert_eq!(answers(&mut lan, &first(6, 0, &[0; 16])), [(4, 3)], "half a TCP header");
    assert_eq!(answers(&mut lan, &first(UDP, 9, &[0; 8])), [(4, 3)], "the options go on in the next piece");
    assert_eq!(answers(&mut lan, &first(ICMPV6, 0, &[])), [], "it may be of an error");
    assert_eq!(lan.nodes[1].drops().malformed, before + 4);
    assert_eq!(answers(&mut lan, &first(UDP, 0, &[0; 8])), []);
    assert_eq!(lan.nodes[1].drops().malformed, before + 4);
}

#[test]
fn complaints_about_options() {
    let mut lan = acquainted();
    let ours = addr(1, true, 0).ip();
    let option = |upper: u8, kind: u8, rest: &[u8]| {
        let mut payload = vec![upper, 0, kind, 4, 0, 0, 0, 0];
        payload.extend_from_slice(rest);
        payload
    };
    let strange = option(UDP, UNKNOWN, &[0; 8]);
    assert_eq!(answers(&mut lan, &packet(ours, OPTIONS, &strange)), [(4, 2)]);
    assert_eq!(answers(&mut lan, &packet(ours, HOP_BY_HOP, &strange)), [(4, 2)]);
    // Of a packet that passes by, hop-by-hop options alone concern us.
    let other = addr(9, true, 0).ip();
    assert_eq!(answers(&mut lan, &packet(other, OPTIONS, &strange)), []);
    assert_eq!(answers(&mut lan, &packet(other, HOP_BY_HOP, &strange)), [(4, 2)]);
    let behind = option(OPTIONS, 1, &strange);
    assert_eq!(answers(&mut lan, &packet(other, HOP_BY_HOP, &behind)), []);
    assert_eq!(answers(&mut lan, &packet(ours, HOP_BY_HOP, &behind)), [(4, 2)]);
    // Groups that we are in, and others.
    let group = |text: &str| IpAddr::V6(text.parse::<Ipv6Addr>().unwrap());
    assert_eq!(answers(&mut lan, &packet(group("ff02::1"), OPTIONS, &strange)), [(4, 2)]);
    assert_eq!(answers(&mut lan, &packet(group("ff02::1234"), OPTIONS, &strange)), []);
    let quiet = option(UDP, 0xc0, &[0; 8]);
    assert_eq!(answers(&mut lan, &packet(group("ff02::1"), OPTIONS, &quiet)), []);
    assert_eq!(answers(&mut lan, &packet(ours, OPTIONS, &quiet)), [(4, 2)]);
    // Never about an error, wherever it stands; about a question, though.
    for (kind, expected) in [(1u8, &[][..]), (127, &[]), (128, &[(4, 2)])] {
        let message = option(ICMPV6, UNKNOWN, &[kind, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(answers(&mut lan, &packet(ours, OPTIONS, &message)), expected, "{kind}");
        let atomic = [&[OPTIONS, 0, 0, 0, 0, 0, 0, 9], &message[..]].concat();
        assert_eq!(answers(&mut lan, &packet(ours, FRAGMENT, &atomic)), expected, "{kind}");
    }
    // Nor to ourselves, nor to who cannot be there.
    for src in [ours, IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        let mut forged = packet(ours, OPTIONS, &strange);
        emit_ip(&mut forged, src, ours, IpAttrs::new(IpProtocol::Ipv6Opts, 64));
        assert_eq!(answers(&mut lan, &forged), []);
    }
}
