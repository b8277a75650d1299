//! Which addresses stations say are theirs.
//!
//! RFC 826: the sender of an ARP packet. RFC 4861 §4.3, §4.4: the source of a neighbour solicitation, the target of an
//! advertisement. Only what a station says of itself counts: the frame's source is the address that the packet gives.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use ioth_core::MacAddr;

use super::Address;
use crate::ether::{HEADER, Hasher, TAG, is_group, is_tagged, mac_at};

/// Addresses that are remembered; with more the memory begins anew, and names are told again.
const MOST: usize = 1 << 16;

/// Who was heard already, and by which interface.
#[derive(Debug, Default)]
pub struct Roll {
    heard: HashMap<Address, u32, Hasher>,
}

impl Roll {
    /// The addresses that the frame's sender says are its own, without those that it said by the same interface before.
    pub fn news(&mut self, interface: u32, frame: &[u8]) -> [Option<Address>; 2] {
        claims(frame).map(|claim| claim.filter(|address| self.is_new(*address, interface)))
    }

    fn is_new(&mut self, address: Address, interface: u32) -> bool {
        if self.heard.len() >= MOST {
            self.heard.clear();
        }
        self.heard.insert(address, interface) != Some(interface)
    }
}

/// The addresses that a frame's sender says are its own: Ethernet's, and one of IP.
pub fn claims(frame: &[u8]) -> [Option<Address>; 2] {
    if frame.len() < HEADER || is_group(mac_at(frame, 6)) || mac_at(frame, 6) == 0 {
        return [None, None];
    }
    let source = &frame[6..12];
    let mac = source.try_into().ok().map(|bytes| Address::Mac(MacAddr(bytes)));
    let start = if is_tagged(frame) { HEADER + TAG } else { HEADER };
    let (Some(kind), Some(packet)) = (frame.get(start - 2..start), frame.get(start..)) else {
        return [mac, None];
    };
    let ip = match kind {
        [0x08, 0x06] => arp(source, packet).map(Address::V4),
        [0x86, 0xdd] => neighbour(source, packet).map(Address::V6),
        _ => None,
    };
    [mac, ip]
}

fn arp(source: &[u8], packet: &[u8]) -> Option<Ipv4Addr> {
    // Ethernet, IPv4, lengths of addresses.
    let rest = packet.get(..28)?.strip_prefix(&[0, 1, 8, 0, 6, 4])?;
    let addr = Ipv4Addr::from(<[u8; 4]>::try_from(&rest[8..12]).ok()?);
    let own = rest[2..8] == *source && !addr.is_unspecified() && !addr.is_broadcast() && !addr.is_multicast();
    own.then_some(addr)
}

fn neighbour(source: &[u8], packet: &[u8]) -> Option<Ipv6Addr> {
    /// Solicitation or advertisement, with its target.
    const LEN: usize = 40 + 24;
    let (head, options) = packet.split_at_checked(LEN)?;
    // RFC 4861 §7.1: "The IP Hop Limit field has a value of 255".
    if head[0] >> 4 != 6 || head[6] != 58 || head[7] != 255 {
        return None;
    }
    let (at, option) = match head[40] {
        // From the unspecified address it asks whether somebody else has the target.
        135 => (8, 1),
        136 => (48, 2),
        _ => return None,
    };
    let addr = Ipv6Addr::from(<[u8; 16]>::try_from(&head[at..at + 16]).ok()?);
    // The link-layer address stands first, where there is one: an answer to a unicast question may leave it out.
    let own = options.strip_prefix(&[option, 1]).is_none_or(|addr| addr.starts_with(source));
    (own && !addr.is_unspecified() && !addr.is_multicast()).then_some(addr)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    fn frame(kind: [u8; 2], packet: &[u8]) -> Vec<u8> {
        [&[0xff; 6][..], &MAC, &kind, packet].concat()
    }

    fn arp_packet(sender: [u8; 6], addr: [u8; 4]) -> Vec<u8> {
        [&[0, 1, 8, 0, 6, 4, 0, 1][..], &sender, &addr, &[0; 6], &[10, 0, 0, 2]].concat()
    }

    fn nd_packet(kind: u8, source: Ipv6Addr, target: Ipv6Addr, option: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 24, 58, 255];
        packet.extend(source.octets());
        packet.extend([0xff; 16]);
        packet.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
        packet.extend(target.octets());
        packet.extend(option);
        packet
    }

    #[test]
    fn what_stations_say() {
        let mac = Some(Address::Mac(MacAddr(MAC)));
        let v4 = |a| Some(Address::V4(Ipv4Addr::from(a)));
        let arp = frame([8, 6], &arp_packet(MAC, [10, 0, 0, 1]));
        assert_eq!(claims(&arp), [mac, v4([10, 0, 0, 1])]);
        let mut tagged = arp.clone();
        tagged.splice(12..12, [0x81, 0, 0, 5]);
        assert_eq!(claims(&tagged), claims(&arp));
        // For somebody else, a probe, and cut.
        assert_eq!(claims(&frame([8, 6], &arp_packet([2; 6], [10, 0, 0, 1]))), [mac, None]);
        assert_eq!(claims(&frame([8, 6], &arp_packet(MAC, [0; 4]))), [mac, None]);
        assert_eq!(claims(&arp[..arp.len() - 1]), [mac, None]);
        let (one, two) = ("fd00::1".parse::<Ipv6Addr>().unwrap(), "fd00::2".parse::<Ipv6Addr>().unwrap());
        let nd = |kind, source, option: &[u8]| {
            claims(&frame([0x86, 0xdd], &nd_packet(kind, source, two, option)))[1]
        };
        assert_eq!(nd(135, one, &[&[1, 1][..], &MAC].concat()), Some(Address::V6(one)));
        assert_eq!(nd(136, one, &[&[2, 1][..], &MAC].concat()), Some(Address::V6(two)));
        assert_eq!(nd(136, one, &[]), Some(Address::V6(two)));
        assert_eq!(nd(136, one, &[2, 1, 9, 9, 9, 9, 9, 9]), None);
        assert_eq!(nd(135, Ipv6Addr::UNSPECIFIED, &[]), None);
        assert_eq!(nd(134, one, &[]), None);
    }

    #[test]
    fn once_for_each_interface() {
        let count = |news: [Option<Address>; 2]| news.iter().flatten().count();
        let mut roll = Roll::default();
        let arp = frame([8, 6], &arp_packet(MAC, [10, 0, 0, 1]));
        assert_eq!(count(roll.news(0, &arp)), 2);
        assert_eq!(count(roll.news(0, &arp)), 0);
        assert_eq!(count(roll.news(1, &arp)), 2, "it moved, or another took its place");
        let mut flood = frame([0x88, 0xb5], &[0; 46]);
        for number in 0..=MOST as u32 {
            flood[8..12].copy_from_slice(&number.to_be_bytes());
            roll.news(0, &flood);
            assert!(roll.heard.len() <= MOST);
        }
    }

    proptest! {
        #[test]
        fn any_frame(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), kind in 0..4usize) {
            if bytes.len() >= 14 {
                bytes[12..14].copy_from_slice(&[[8, 6], [0x86, 0xdd], [0x81, 0], [8, 0]][kind]);
            }
            let [mac, ip] = claims(&bytes);
            prop_assert!(mac.is_some() || ip.is_none());
        }
    }
}
