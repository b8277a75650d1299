//! What the link hears of memberships.

use ioth_core::{Domain, Errno};
use ioth_vde::Frame;
use smoltcp::time::Duration;
use smoltcp::wire::IpProtocol;
use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

use super::lan::{ETH, Lan, WIRE, mac};
use crate::engine::SocketId;
use crate::engine::wire::{self, IpAttrs, emit_ip, ip_header_len, parse_ip};

const V4: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const V6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 9);

/// IGMP and MLD messages: destination and the message, without its checksum.
type Messages = Rc<RefCell<Vec<(IpAddr, Vec<u8>)>>>;

/// One node, whose beginning has been told.
fn node() -> (Lan, Messages) {
    let mut lan = Lan::new(1, WIRE);
    let heard = Messages::default();
    let messages = heard.clone();
    lan.fate = Box::new(move |frame| {
        let header = parse_ip(&frame[14..], true).unwrap();
        let at = 14 + header.payload_at;
        let mld = header.protocol == IpProtocol::Icmpv6 && matches!(frame[at], 130..=132 | 143);
        if header.protocol == IpProtocol::Igmp || mld {
            assert_eq!(header.hop_limit, 1);
            assert!(header.payload_at > ip_header_len(header.src), "router alert");
            let mut message = frame[at..14 + header.total_len].to_vec();
            assert!(wire::verify_checksum(&frame[14..], &header));
            message[2..4].fill(0);
            messages.borrow_mut().push((header.dst, message));
        }
        Vec::new()
    });
    lan.run_until_idle(Duration::from_secs(10));
    (lan, heard)
}

fn request(group: IpAddr) -> (Domain, i32, [i32; 2], Vec<u8>) {
    match group {
        IpAddr::V4(v4) => (
            Domain::INET,
            libc::IPPROTO_IP,
            [libc::IP_ADD_MEMBERSHIP, libc::IP_DROP_MEMBERSHIP],
            [&v4.octets()[..], &[0; 4], &ETH.to_ne_bytes()].concat(),
        ),
        IpAddr::V6(v6) => (
            Domain::INET6,
            libc::IPPROTO_IPV6,
            [libc::IPV6_ADD_MEMBERSHIP, libc::IPV6_DROP_MEMBERSHIP],
            [&v6.octets()[..], &ETH.to_ne_bytes()].concat(),
        ),
    }
}

fn join(lan: &mut Lan, group: IpAddr) -> SocketId {
    let (domain, level, [add, _], value) = request(group);
    let id = lan.datagrams(0, domain);
    lan.nodes[0].set_option(id, level, add, &value).unwrap();
    id
}

fn record(kind: u8, group: IpAddr) -> Vec<u8> {
    let group = match group {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    [&[kind, 0, 0, 0][..], &group].concat()
}

/// A report of one group, in the newest version.
fn report(kind: u8, group: IpAddr) -> (IpAddr, Vec<u8>) {
    let (to, message): (IpAddr, u8) = match group {
        IpAddr::V4(_) => ("224.0.0.22".parse().unwrap(), 0x22),
        IpAddr::V6(_) => ("ff02::16".parse().unwrap(), 143),
    };
    (to, [&[message, 0, 0, 0, 0, 0, 0, 1][..], &record(kind, group)].concat())
}

fn ask(lan: &mut Lan, group: IpAddr, message: &[u8]) {
    let all = if group.is_ipv6() { "ff02::1" } else { "224.0.0.1" };
    tell(lan, all.parse().unwrap(), message);
}

/// A neighbour's message to `dst`.
fn tell(lan: &mut Lan, dst: IpAddr, message: &[u8]) {
    let v6 = dst.is_ipv6();
    let src: IpAddr = if v6 { "fe80::99" } else { "10.0.0.99" }.parse().unwrap();
    let ip = ip_header_len(src);
    let mut packet = vec![0; ip + message.len()];
    packet[ip..].copy_from_slice(message);
    let protocol = if v6 { IpProtocol::Icmpv6 } else { IpProtocol::Igmp };
    emit_ip(&mut packet, src, dst, IpAttrs::new(protocol, 1));
    let sum = if v6 {
        let header = parse_ip(&packet, true).unwrap();
        wire::fill_checksum(&mut packet, &header);
        None
    } else {
        Some(!wire::checksum(0, message))
    };
    if let Some(sum) = sum {
        packet[ip + 2..ip + 4].copy_from_slice(&sum.to_be_bytes());
    }
    let ethertype = if v6 { [0x86, 0xdd] } else { [8, 0] };
    let frame = [&mac(0).0[..], &mac(9).0, &ethertype, &packet].concat();
    lan.nodes[0].handle_frame(ETH, Frame::copy_of(&frame));
}

#[test]
fn joining_and_leaving_are_told_twice() {
    for group in [IpAddr::V4(V4), IpAddr::V6(V6)] {
        let (mut lan, heard) = node();
        heard.borrow_mut().clear();
        let first = join(&mut lan, group);
        let second = join(&mut lan, group);
        lan.run_until_idle(Duration::from_secs(10));
        assert_eq!(*heard.borrow(), [report(4, group), report(4, group)]);
        heard.borrow_mut().clear();
        // Somebody is there still.
        lan.nodes[0].close(first);
        lan.run_until_idle(Duration::from_secs(10));
        assert!(heard.borrow().is_empty());
        let (_, level, [_, drop], value) = request(group);
        lan.nodes[0].set_option(second, level, drop, &value).unwrap();
        assert_eq!(lan.nodes[0].set_option(second, level, drop, &value), Err(Errno::EADDRNOTAVAIL));
        lan.run_until_idle(Duration::from_secs(10));
        assert_eq!(*heard.borrow(), [report(3, group), report(3, group)]);
    }
}

#[test]
fn the_groups_of_addresses_are_told_when_the_link_comes_up() {
    let (mut lan, heard) = node();
    let solicited: IpAddr = "ff02::1:ff00:1".parse().unwrap();
    let told = |heard: &Messages| {
        let records = heard.borrow().iter().map(|(_, message)| message[8..].to_vec()).collect::<Vec<_>>();
        records.iter().filter(|records| records.chunks(20).any(|one| *one == record(4, solicited))).count()
    };
    assert_eq!(told(&heard), 2);
    heard.borrow_mut().clear();
    let id = join(&mut lan, V4.into());
    lan.run_until_idle(Duration::from_secs(10));
    lan.nodes[0].tables_mut().set_up(ETH, false).unwrap();
    lan.run_until_idle(Duration::from_secs(10));
    heard.borrow_mut().clear();
    lan.nodes[0].tables_mut().set_up(ETH, true).unwrap();
    lan.run_until_idle(Duration::from_secs(10));
    assert!(heard.borrow().contains(&report(4, V4.into())));
    lan.nodes[0].close(id);
}

#[test]
fn routers_are_answered_in_their_version() {
    let (mut lan, heard) = node();
    let _id = join(&mut lan, V4.into());
    let _id = join(&mut lan, V6.into());
    lan.run_until_idle(Duration::from_secs(10));
    // A general query of each version, the newest first: older ones are remembered.
    heard.borrow_mut().clear();
    ask(&mut lan, V4.into(), &[0x11, 10, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0]);
    lan.run_until_idle(Duration::from_secs(2));
    assert_eq!(*heard.borrow(), [report(2, V4.into())]);
    heard.borrow_mut().clear();
    let [a, b, c, d] = V4.octets();
    ask(&mut lan, V4.into(), &[0x11, 10, 0, 0, a, b, c, d]);
    lan.run_until_idle(Duration::from_secs(2));
    assert_eq!(*heard.borrow(), [(V4.into(), vec![0x16, 0, 0, 0, a, b, c, d])]);
    heard.borrow_mut().clear();
    ask(&mut lan, V4.into(), &[0x11, 10, 0, 0, 239, 9, 9, 9]);
    lan.run_until_idle(Duration::from_secs(2));
    assert!(heard.borrow().is_empty(), "another group");
    let mut query = [&[130, 0, 0, 0, 0, 100, 0, 0][..], &V6.octets(), &[2, 125, 0, 0]].concat();
    ask(&mut lan, V6.into(), &query);
    lan.run_until_idle(Duration::from_secs(2));
    assert_eq!(*heard.borrow(), [report(2, V6.into())]);
    heard.borrow_mut().clear();
    query.truncate(24);
    ask(&mut lan, V6.into(), &query);
    lan.run_until_idle(Duration::from_secs(2));
    assert_eq!(*heard.borrow(), [(V6.into(), [&[131, 0, 0, 0, 0, 0, 0, 0][..], &V6.octets()].concat())]);
}

#[test]
fn a_report_is_overheard_where_the_router_hears_it() {
    let (mut lan, heard) = node();
    let _id = join(&mut lan, V4.into());
    let _id = join(&mut lan, V6.into());
    lan.run_until_idle(Duration::from_secs(10));
    let v4 = |kind| [&[kind, 10, 0, 0][..], &V4.octets()].concat();
    let v6 = |kind| [&[kind, 0, 0, 0, 0, 100, 0, 0][..], &V6.octets()].concat();
    let cases: [(Vec<u8>, Vec<u8>, IpAddr, IpAddr); 2] = [
        (v4(0x11), v4(0x16), V4.into(), "10.0.0.1".parse().unwrap()),
        (v6(130), v6(131), V6.into(), "fd00::1".parse().unwrap()),
    ];
    for (query, report, group, alone) in cases {
        for (to, answers) in [(alone, 1), (group, 0)] {
            heard.borrow_mut().clear();
            ask(&mut lan, group, &query);
            tell(&mut lan, to, &report);
            lan.run_until_idle(Duration::from_secs(5));
            assert_eq!(heard.borrow().len(), answers, "{to}");
        }
    }
}
