//! What must not be answered, lest a stranger have us speak to many, or many of us to somebody.

use ioth_vde::Frame;
use smoltcp::time::Duration;
use smoltcp::wire::IpProtocol;
use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;

use super::lan::{ETH, Lan, WIRE, mac};
use crate::engine::wire::{self, IpAttrs, emit_ip, ip_header_len, parse_ip};

/// How many frames a node sends when it hears a packet.
fn answers(src: &str, dst: &str, protocol: IpProtocol, payload: &[u8]) -> usize {
    answers_behind(&[], src, dst, protocol, payload)
}

/// The same, when the packet comes behind these tags of VLANs.
fn answers_behind(tags: &[u8], src: &str, dst: &str, protocol: IpProtocol, payload: &[u8]) -> usize {
    let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
    let mut lan = Lan::new(1, WIRE);
    lan.run_until_idle(Duration::from_secs(10));
    let sent = Rc::new(Cell::new(0));
    let counted = sent.clone();
    lan.fate = Box::new(move |_| {
        counted.set(counted.get() + 1);
        Vec::new()
    });
    let ip = ip_header_len(src);
    let mut packet = vec![0; ip + payload.len()];
    packet[ip..].copy_from_slice(payload);
    emit_ip(&mut packet, src, dst, IpAttrs::new(protocol, 64));
    if let Ok(header) = parse_ip(&packet, true)
        && !matches!(protocol, IpProtocol::Ipv6Frag)
    {
        wire::fill_checksum(&mut packet, &header);
    }
    let ethertype = if src.is_ipv6() { [0x86, 0xdd] } else { [8, 0] };
    let frame = [&mac(0).0[..], &mac(9).0, tags, &ethertype, &packet].concat();
    lan.nodes[0].handle_frame(ETH, Frame::copy_of(&frame));
    lan.run_until_idle(Duration::from_secs(100));
    sent.get()
}

#[test]
fn nobody_is_answered_by_broadcast() {
    let echo = [8, 0, 0, 0, 0, 1, 0, 1];
    assert_ne!(answers("10.0.0.99", "10.0.0.1", IpProtocol::Icmp, &echo), 0, "the question is a good one");
    for src in ["10.0.255.255", "255.255.255.255", "0.1.2.3", "224.0.0.1", "127.0.0.1"] {
        assert_eq!(answers(src, "10.0.0.1", IpProtocol::Icmp, &echo), 0, "{src}");
    }
}

/// RFC 4443 §2.4(e.3)
#[test]
fn a_group_tells_no_errors() {
    // A first piece of 9 bytes: RFC 8200 §4.5 has the sender told, if it is one who sent it to us.
    let piece = [17, 0, 0, 1, 0, 0, 0, 7, 1, 2, 3, 4, 0, 9, 0, 0, 5];
    assert_ne!(answers("fd00::99", "fd00::1", IpProtocol::Ipv6Frag, &piece), 0);
    assert_eq!(answers("fd00::99", "ff02::1", IpProtocol::Ipv6Frag, &piece), 0);
}

/// As Linux: tags that tell a priority alone are taken out, a frame of a VLAN is nobody's.
#[test]
fn frames_with_tags() {
    let echo = [8, 0, 0, 0, 0, 1, 0, 1];
    let answers = |tags: &[u8]| answers_behind(tags, "10.0.0.99", "10.0.0.1", IpProtocol::Icmp, &echo);
    for tags in [&[0x81, 0, 0xb0, 0][..], &[0x88, 0xa8, 0, 0], &[0x88, 0xa8, 0, 0, 0x81, 0, 0x20, 0]] {
        assert_ne!(answers(tags), 0, "{tags:02x?}");
    }
    for tags in [&[0x81, 0, 0, 5][..], &[0x81, 0, 1, 0], &[0x88, 0xa8, 0, 0, 0x81, 0, 0, 1]] {
        assert_eq!(answers(tags), 0, "{tags:02x?}");
    }
    // Cut within the tag.
    let mut lan = Lan::new(1, WIRE);
    for len in 14..18 {
        let frame = [&mac(0).0[..], &mac(9).0, &[0x81, 0, 0, 0, 8, 0]].concat();
        lan.nodes[0].handle_frame(ETH, Frame::copy_of(&frame[..len]));
    }
}
