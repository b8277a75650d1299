use std::net::{IpAddr, Ipv4Addr};

use ioth_core::{Cidr, Errno, MacAddr};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute};
use netlink_packet_route::route::{RouteAddress, RouteAttribute};
use proptest::prelude::*;

use super::*;
use crate::engine::route::Route;

const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const ACK: u16 = libc::NLM_F_ACK as u16;
const DUMP: u16 = libc::NLM_F_DUMP as u16;
const CREATE: u16 = libc::NLM_F_CREATE as u16;
const EXCL: u16 = libc::NLM_F_EXCL as u16;
const REPLACE: u16 = libc::NLM_F_REPLACE as u16;
const ADD: u16 = REQUEST | ACK | CREATE | EXCL;
const UP: u32 = libc::IFF_UP as u32;

/// The index of `vde0`.
const ETH: u32 = 2;

#[derive(Default)]
struct TestHost {
    changed: Vec<u32>,
}

impl Host for TestHost {
    fn link_stats(&self, ifindex: u32) -> LinkStats {
        LinkStats { rx_packets: u64::from(ifindex) + (1 << 40), ..LinkStats::default() }
    }

    fn link_info(&self, ifindex: u32) -> Option<(String, String)> {
        (ifindex == ETH).then(|| ("vde".into(), "switch://lan".into()))
    }

    fn neighbours(&self) -> Vec<Neighbour> {
        let neighbour = |addr: &str| Neighbour {
            ifindex: ETH,
            addr: ip(addr),
            mac: Some(MacAddr([2, 0, 0, 0, 0, 9])),
            state: libc::NUD_REACHABLE,
            flags: 0,
        };
        vec![neighbour("10.0.0.9"), neighbour("fe80::9")]
    }

    fn link_changed(&mut self, _: &Tables, ifindex: u32) {
        self.changed.push(ifindex);
    }

    fn create_link(&mut self, tables: &mut Tables, link: &NewLink<'_>) -> Result<u32, Errno> {
        if link.kind != "vde" {
            return Err(Errno::EOPNOTSUPP);
        }
        assert!(link.locator.is_none_or(|locator| !locator.is_empty()));
        let mac = link.mac.unwrap_or(MacAddr([2, 0, 0, 0, 0, 3]));
        Ok(tables.add_iface(link.name.unwrap_or("vde%d"), mac, link.mtu.unwrap_or(1500), 9000)?)
    }

    fn delete_link(&mut self, tables: &mut Tables, ifindex: u32) -> Result<(), Errno> {
        Ok(tables.del_iface(ifindex)?)
    }
}

/// A node with `vde0` up, a socket and a host.
struct Peer {
    tables: Tables,
    host: TestHost,
    session: Session,
}

impl Peer {
    fn new() -> Self {
        let mut tables = Tables::new();
        tables.add_iface("vde0", MacAddr([2, 0, 0, 0, 0, 1]), 1500, 9000).unwrap();
        tables.set_up(ETH, true).unwrap();
        tables.add_addr(ETH, "10.0.0.1/24".parse().unwrap(), Default::default()).unwrap();
        Peer { tables, host: TestHost::default(), session: Session::new(4711) }
    }

    fn ask(&mut self, bytes: &[u8]) -> Outcome {
        self.session.request(&mut self.tables, &mut self.host, bytes)
    }

    /// Sends a request that is answered by nothing but an error number, 0 for an acknowledgement.
    fn errno(&mut self, kind: u16, flags: u16, body: Body) -> i32 {
        let outcome = self.ask(&body.message(kind, flags));
        let [reply] = &outcome.replies[..] else { panic!("one reply, not {:?}", outcome.replies) };
        errno_of(reply)
    }

    /// Sends a request and reads all that comes, dump parts included, through the other implementation.
    fn read(&mut self, kind: u16, flags: u16, body: Body) -> Vec<NetlinkMessage<RouteNetlinkMessage>> {
        let mut replies = self.ask(&body.message(kind, flags)).replies;
        while let Some(part) = self.session.next_part(&self.tables, &self.host, 0) {
            replies.push(part);
        }
        replies.iter().flat_map(|reply| messages(reply)).collect()
    }
}

/// The fixed part and attributes of a message.
#[derive(Clone, Debug)]
struct Body(Vec<u8>);

fn link(index: i32, flags: u32, change: u32) -> Body {
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(change.to_ne_bytes());
    Body(body)
}

fn addr(family: i32, len: u8, index: u32) -> Body {
    Body([[family as u8, len, 0, 0], index.to_ne_bytes()].concat())
}

fn route(family: i32, len: u8, scope: u8, kind: u8) -> Body {
    Body(vec![family as u8, len, 0, 0, 254, 3, scope, kind, 0, 0, 0, 0])
}

fn neigh(family: i32, index: u32) -> Body {
    Body([[family as u8, 0, 0, 0], index.to_ne_bytes(), [0; 4]].concat())
}

impl Body {
    fn attr(mut self, kind: u16, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        self.0.extend(((value.len() + 4) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn ip(self, kind: u16, addr: &str) -> Self {
        match ip(addr) {
            IpAddr::V4(addr) => self.attr(kind, addr.octets()),
            IpAddr::V6(addr) => self.attr(kind, addr.octets()),
        }
    }

    fn u32(self, kind: u16, value: u32) -> Self {
        self.attr(kind, value.to_ne_bytes())
    }

    fn message(&self, kind: u16, flags: u16) -> Vec<u8> {
        let mut bytes = (self.0.len() as u32 + 16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(7u32.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&self.0);
        bytes
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn errno_of(reply: &[u8]) -> i32 {
    assert_eq!(wire::u16_at(reply, 4), Some(libc::NLMSG_ERROR as u16), "{reply:?}");
    assert_eq!((wire::u32_at(reply, 8), wire::u32_at(reply, 12)), (Some(7), Some(4711)));
    -(wire::u32_at(reply, 16).unwrap() as i32)
}

fn messages(mut datagram: &[u8]) -> Vec<NetlinkMessage<RouteNetlinkMessage>> {
    let mut all = Vec::new();
    while !datagram.is_empty() {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram).expect("a sound message");
        datagram = &datagram[(message.header.length as usize).next_multiple_of(4)..];
        all.push(message);
    }
    all
}

fn inner(message: &NetlinkMessage<RouteNetlinkMessage>) -> Option<&RouteNetlinkMessage> {
    match &message.payload {
        NetlinkPayload::InnerMessage(inner) => Some(inner),
        _ => None,
    }
}

#[test]
fn link_by_index_and_name() {
    let mut peer = Peer::new();
    for body in
        [link(2, 0, 0), link(0, 0, 0).attr(libc::IFLA_IFNAME, "vde0"), link(0, 0, 0).attr(3, "vde0\0")]
    {
        let answer = peer.read(libc::RTM_GETLINK, REQUEST | ACK, body);
        assert!(matches!(&answer[1].payload, NetlinkPayload::Error(error) if error.code.is_none()));
        let Some(RouteNetlinkMessage::NewLink(link)) = inner(&answer[0]) else { panic!("{answer:?}") };
        assert_eq!((link.header.index, link.header.link_layer_type), (2, LinkLayerType::Ether));
        assert!(link.header.flags.contains(
            LinkFlags::Up
                | LinkFlags::Running
                | LinkFlags::LowerUp
                | LinkFlags::Multicast
                | LinkFlags::Broadcast
        ));
        for wanted in [
            LinkAttribute::IfName("vde0".into()),
            LinkAttribute::Mtu(1500),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]),
            LinkAttribute::Broadcast(vec![0xff; 6]),
            LinkAttribute::Qdisc("noqueue".into()),
            LinkAttribute::OperState(netlink_packet_route::link::State::Up),
        ] {
            assert!(link.attributes.contains(&wanted), "{wanted:?} in {:?}", link.attributes);
        }
        let stats = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Stats64(stats) => Some(stats.rx_packets),
            _ => None,
        });
        assert_eq!(stats, Some(2 + (1 << 40)));
    }
    let all = peer.read(libc::RTM_GETLINK, REQUEST | DUMP, link(0, 0, 0));
    let Some(RouteNetlinkMessage::NewLink(lo)) = inner(&all[0]) else { panic!("{all:?}") };
    assert_eq!((lo.header.index, lo.header.link_layer_type), (1, LinkLayerType::Loopback));
    assert!(matches!(all[2].payload, NetlinkPayload::Done(_)) && all.len() == 3);
    assert_eq!(all[0].header.flags, libc::NLM_F_MULTI as u16);
}

/// What Linux 6.18 answers to the same bytes.
#[test]
fn link_errors() {
    let mut peer = Peer::new();
    let mut get = |body| peer.errno(libc::RTM_GETLINK, REQUEST | ACK, body);
    assert_eq!(get(link(0, 0, 0)), libc::EINVAL);
    assert_eq!(get(link(99, 0, 0)), libc::ENODEV);
    assert_eq!(get(link(-1, 0, 0)), libc::EINVAL);
    assert_eq!(get(link(0, 0, 0).attr(3, "nx\0")), libc::ENODEV);
    assert_eq!(get(link(0, 0, 0).attr(3, "xxxxxxxxxxxxxxxxxxxx\0")), libc::ERANGE);
    assert_eq!(get(Body(vec![0, 0])), libc::EINVAL);
    let mut new = |flags, body| peer.errno(libc::RTM_NEWLINK, REQUEST | ACK | flags, body);
    assert_eq!(new(0, link(0, 0, 0)), libc::ENODEV);
    assert_eq!(new(0, link(0, 0, 0).attr(3, "nx\0")), libc::ENODEV);
    assert_eq!(new(CREATE | EXCL, link(0, 0, 0).attr(3, "nx\0")), libc::EOPNOTSUPP);
    assert_eq!(new(CREATE | EXCL, link(2, 0, 0)), libc::EEXIST);
    assert_eq!(new(0, link(2, 0, 0).attr(4, [0])), libc::ERANGE);
    assert_eq!(new(0, link(2, 0, 0).attr(4, [0; 8])), libc::EINVAL);
    assert_eq!(new(0, link(2, 0, 0).u32(4, 67)), libc::EINVAL);
    assert_eq!(new(0, link(2, 0, 0).attr(1, [2, 0, 0, 0])), libc::EINVAL);
    assert_eq!(new(0, link(2, 0, 0).attr(1, [1, 0, 0, 0, 0, 1])), libc::EADDRNOTAVAIL);
    assert_eq!(new(0, link(2, 0, 0).attr(1, [2, 0, 0, 0, 0, 1, 0, 0])), 0);
    assert_eq!(new(0, link(2, 0, 0).attr(3, "a/b\0")), libc::EINVAL);
    assert_eq!(new(0, link(2, 0, 0).attr(3, "lo\0")), libc::EEXIST);
    assert_eq!(new(0, link(2, 0, 0).attr(3, "\0")), 0);
    assert_eq!(peer.errno(libc::RTM_SETLINK, REQUEST, link(99, UP, UP)), libc::ENODEV);
    assert_eq!(peer.errno(libc::RTM_SETLINK, REQUEST, link(0, UP, UP)), libc::EINVAL);
    assert_eq!(peer.errno(libc::RTM_DELLINK, REQUEST, link(1, 0, 0)), libc::EOPNOTSUPP);
    assert_eq!(peer.errno(libc::RTM_DELLINK, REQUEST, link(99, 0, 0)), libc::ENODEV);
    assert_eq!(peer.errno(libc::RTM_DELLINK, REQUEST, link(0, 0, 0)), libc::EINVAL);
}

#[test]
fn links_are_changed_made_and_removed() {
    let mut peer = Peer::new();
    assert_eq!(peer.errno(libc::RTM_SETLINK, REQUEST | ACK, link(2, 0, UP)), 0);
    assert!(!peer.tables.iface(2).unwrap().is_up());
    let body = link(2, UP, UP).attr(1, [2, 0, 0, 0, 0, 7]).u32(4, 1400).attr(3, "eth7\0");
    assert_eq!(peer.errno(libc::RTM_NEWLINK, REQUEST | ACK, body), 0);
    let iface = peer.tables.iface(2).unwrap();
    assert_eq!((iface.name(), iface.mtu(), iface.mac().0[5], iface.is_up()), ("eth7", 1400, 7, true));
    assert!(peer.host.changed.contains(&2));
    assert!(peer.tables.is_local(ip("fe80::ff:fe00:7"), Some(2)).is_some());
    // Upstream's iplink_add: any index, and the new one in the answer.
    let data = Body(Vec::new()).attr(1, "switch://x\0");
    let info = Body(Vec::new()).attr(1, "vde\0").attr(2, data.0);
    let body = link(-1, 0, 0).attr(49, []).attr(libc::IFLA_LINKINFO, info.0);
    let answer = peer.read(libc::RTM_NEWLINK, ADD, body);
    let Some(RouteNetlinkMessage::NewLink(new)) = inner(&answer[0]) else { panic!("{answer:?}") };
    assert_eq!(new.header.index, 3);
    assert_eq!(peer.errno(libc::RTM_DELLINK, REQUEST | ACK, link(3, 0, 0)), 0);
    assert!(peer.tables.iface(3).is_none());
}

#[test]
fn addresses() {
    let mut peer = Peer::new();
    let local = libc::IFA_LOCAL;
    let v4 = |text| addr(libc::AF_INET, 24, ETH).ip(local, text);
    let v6 = |text| addr(libc::AF_INET6, 64, ETH).ip(local, text);
    let mut new = |flags, body| peer.errno(libc::RTM_NEWADDR, REQUEST | ACK | flags, body);
    assert_eq!(new(CREATE | EXCL, v4("10.1.0.1").ip(libc::IFA_ADDRESS, "10.1.0.1")), 0);
    assert_eq!(new(CREATE | EXCL, v6("fd00::1").ip(libc::IFA_ADDRESS, "fd00::1")), 0);
    assert_eq!(new(0, v4("10.1.0.1")), libc::EEXIST);
    assert_eq!(new(CREATE | REPLACE, v4("10.1.0.1")), 0);
    assert_eq!(new(CREATE, v6("fd00::1")), libc::EEXIST);
    assert_eq!(new(CREATE | REPLACE, v6("fd00::1")), 0);
    assert_eq!(new(0, v6("fd00::77")), 0);
    for family in [0, 5, libc::AF_PACKET] {
        assert_eq!(new(CREATE, addr(family, 24, ETH).ip(local, "10.1.0.2")), libc::EOPNOTSUPP);
    }
    assert_eq!(new(CREATE, addr(libc::AF_INET, 24, ETH)), libc::EINVAL);
    assert_eq!(new(CREATE, addr(libc::AF_INET, 24, ETH).ip(libc::IFA_ADDRESS, "10.1.0.3")), libc::EINVAL);
    assert_eq!(new(CREATE, addr(libc::AF_INET6, 64, ETH).ip(libc::IFA_ADDRESS, "fd00::3")), 0);
    assert_eq!(new(CREATE, addr(libc::AF_INET6, 64, ETH)), libc::EINVAL);
    assert_eq!(new(CREATE, addr(libc::AF_INET, 33, ETH).ip(local, "10.1.0.3")), libc::EINVAL);
    assert_eq!(new(CREATE, addr(libc::AF_INET6, 129, ETH).ip(local, "fd00::4")), libc::EINVAL);
    assert_eq!(new(CREATE, addr(libc::AF_INET6, 64, ETH).ip(local, "10.0.0.1")), libc::ERANGE);
    assert_eq!(new(CREATE, addr(libc::AF_INET, 24, 99).ip(local, "10.1.0.3")), libc::ENODEV);
    assert_eq!(new(CREATE, v6("ff02::77")), libc::EADDRNOTAVAIL);
    assert_eq!(new(CREATE, v6("::")), libc::EADDRNOTAVAIL);
    assert_eq!(new(CREATE, v6("::1")), libc::EADDRNOTAVAIL);
    let lives = |preferred: u32, valid: u32| [preferred, valid, 0, 0].map(u32::to_ne_bytes).concat();
    assert_eq!(new(CREATE, v4("10.2.0.1").attr(libc::IFA_CACHEINFO, lives(0, 0))), libc::EINVAL);
    assert_eq!(new(CREATE, v4("10.2.0.1").attr(libc::IFA_CACHEINFO, lives(9, 5))), libc::EINVAL);
    assert_eq!(new(CREATE, v4("10.2.0.1").attr(libc::IFA_CACHEINFO, lives(5, 9))), 0);
    let mut del = |body| peer.errno(libc::RTM_DELADDR, REQUEST | ACK, body);
    assert_eq!(del(v4("10.77.0.8")), libc::EADDRNOTAVAIL);
    assert_eq!(del(v6("fd77::8")), libc::EADDRNOTAVAIL);
    assert_eq!(del(addr(libc::AF_INET6, 0, ETH).ip(local, "fd00::1")), libc::EADDRNOTAVAIL);
    assert_eq!(del(addr(libc::AF_INET6, 64, ETH)), libc::EINVAL);
    assert_eq!(del(addr(libc::AF_INET, 24, 99).ip(local, "10.0.0.1")), libc::ENODEV);
    assert_eq!(del(addr(libc::AF_INET6, 64, 99).ip(local, "fd00::1")), libc::ENODEV);
    assert_eq!(
        del(addr(libc::AF_INET, 25, ETH).ip(local, "10.0.0.1")),
        0,
        "the length counts with IFA_ADDRESS only"
    );
    assert_eq!(del(v6("fd00::77")), 0);
    assert_eq!(peer.errno(libc::RTM_GETADDR, REQUEST | ACK, addr(libc::AF_INET, 0, ETH)), libc::EOPNOTSUPP);
    let all = peer.read(libc::RTM_GETADDR, REQUEST | DUMP, addr(0, 0, 0));
    let told: Vec<_> = all
        .iter()
        .filter_map(|message| match inner(message)? {
            RouteNetlinkMessage::NewAddress(address) => {
                address.attributes.iter().find_map(|attr| match attr {
                    AddressAttribute::Address(ip) => {
                        Some(format!("{} {ip}/{}", address.header.index, address.header.prefix_len))
                    }
                    _ => None,
                })
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        told,
        [
            "1 127.0.0.1/8",
            "2 10.1.0.1/24",
            "2 10.2.0.1/24",
            "1 ::1/128",
            "2 fd00::3/64",
            "2 fd00::1/64",
            "2 fe80::ff:fe00:1/64"
        ]
    );
    let v6_only = peer.read(libc::RTM_GETADDR, REQUEST | DUMP, addr(libc::AF_INET6, 0, 0));
    assert_eq!(v6_only.len(), 5);
    peer.session.strict = true;
    let filtered = peer.read(libc::RTM_GETADDR, REQUEST | DUMP, addr(0, 0, 1));
    assert_eq!(filtered.len(), 3);
    assert_eq!(filtered[0].header.flags, 0x22);
}

#[test]
fn routes() {
    let mut peer = Peer::new();
    let (v4, v6) = (libc::AF_INET, libc::AF_INET6);
    let (dst, gateway, oif) = (libc::RTA_DST, libc::RTA_GATEWAY, libc::RTA_OIF);
    let mut new = |flags, body| peer.errno(libc::RTM_NEWROUTE, REQUEST | ACK | flags, body);
    assert_eq!(
        new(CREATE | EXCL, route(v4, 16, 0, 1).ip(dst, "10.9.0.0").ip(gateway, "10.0.0.2").attr(0, [0; 4])),
        0
    );
    assert_eq!(
        new(CREATE | EXCL, route(v4, 16, 0, 1).ip(dst, "10.9.0.0").ip(gateway, "10.0.0.3")),
        libc::EEXIST
    );
    assert_eq!(new(CREATE | EXCL, route(v4, 0, 0, 1).ip(gateway, "10.0.0.254")), 0);
    assert_eq!(new(CREATE, route(v4, 33, 0, 1).ip(dst, "10.9.0.0").u32(oif, ETH)), libc::EINVAL);
    assert_eq!(new(CREATE, route(v4, 0, 0, 1).ip(dst, "10.9.0.0").u32(oif, ETH)), libc::EINVAL);
    assert_eq!(new(0, route(v4, 16, 0, 1).ip(dst, "10.7.0.0").ip(gateway, "10.0.0.2")), libc::ENOENT);
    assert_eq!(new(0, route(v6, 16, 0, 1).ip(dst, "fd76::").u32(oif, ETH)), 0);
    assert_eq!(
        new(CREATE, route(v4, 16, 253, 1).ip(dst, "10.6.0.0").ip(gateway, "10.0.0.2")),
        libc::ENETUNREACH
    );
    assert_eq!(new(CREATE, route(v4, 16, 0, 1).ip(dst, "10.6.0.0").u32(oif, ETH)), 0);
    for kind in [0, 2, 50] {
        assert_eq!(new(CREATE, route(v4, 16, 0, kind).ip(dst, "10.5.0.0").u32(oif, ETH)), libc::EINVAL);
    }
    for family in [0, 99] {
        assert_eq!(new(CREATE, route(family, 16, 0, 1).ip(dst, "10.5.0.0").u32(oif, ETH)), libc::EOPNOTSUPP);
    }
    assert_eq!(new(CREATE, route(v6, 16, 0, 1).attr(dst, [0xfd, 1, 0, 0]).u32(oif, ETH)), 0);
    assert_eq!(new(CREATE, route(v4, 16, 0, 7).ip(dst, "10.3.0.0").u32(oif, ETH)), libc::EINVAL);
    assert_eq!(new(CREATE, route(v4, 16, 0, 7).ip(dst, "10.3.0.0")), 0);
    assert_eq!(new(CREATE, route(v6, 64, 0, 1).ip(dst, "fd0b::").ip(gateway, "fd77::3")), libc::EHOSTUNREACH);
    let mut del = |body| peer.errno(libc::RTM_DELROUTE, REQUEST | ACK, body);
    assert_eq!(del(route(v4, 16, 0, 1).ip(dst, "10.99.0.0")), libc::ESRCH);
    assert_eq!(del(route(v6, 16, 0, 1).ip(dst, "fd99::")), libc::ESRCH);
    assert_eq!(del(route(v4, 24, 0, 0).ip(dst, "10.0.0.0")), libc::ESRCH, "its scope is link");
    assert_eq!(del(route(v4, 16, 255, 0).ip(dst, "10.9.0.0")), 0);
    let mut get =
        |family, to, len| peer.errno(libc::RTM_GETROUTE, REQUEST, route(family, len, 0, 0).ip(dst, to));
    assert_eq!(get(v4, "10.3.0.1", 32), libc::EHOSTUNREACH);
    assert_eq!(get(v6, "fd99::9", 128), libc::ENETUNREACH);
    assert_eq!(get(0, "10.0.0.1", 32), libc::EOPNOTSUPP);
    let way = peer.read(libc::RTM_GETROUTE, REQUEST, route(v4, 32, 0, 0).ip(dst, "99.0.0.9"));
    let Some(RouteNetlinkMessage::NewRoute(way)) = inner(&way[0]) else { panic!("{way:?}") };
    for wanted in [
        RouteAttribute::Gateway(RouteAddress::Inet(Ipv4Addr::new(10, 0, 0, 254))),
        RouteAttribute::PrefSource(RouteAddress::Inet(Ipv4Addr::new(10, 0, 0, 1))),
        RouteAttribute::Oif(ETH),
    ] {
        assert!(way.attributes.contains(&wanted), "{wanted:?} in {:?}", way.attributes);
    }
    let all = peer.read(libc::RTM_GETROUTE, REQUEST | DUMP, route(0, 0, 0, 0));
    let told: Vec<_> = all
        .iter()
        .filter_map(|message| match inner(message)? {
            RouteNetlinkMessage::NewRoute(route) => {
                let dst = route.attributes.iter().find_map(|attribute| match attribute {
                    RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(ip.to_string()),
                    RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(ip.to_string()),
                    _ => None,
                });
                Some(format!(
                    "{}/{}",
                    dst.unwrap_or("default".into()),
                    route.header.destination_prefix_length
                ))
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        told,
        [
            "default/0",
            "10.0.0.0/24",
            "10.3.0.0/16",
            "10.6.0.0/16",
            "::1/128",
            "fd01::/16",
            "fd76::/16",
            "fe80::/64"
        ]
    );
}

#[test]
fn neighbours() {
    let mut peer = Peer::new();
    let all = peer.read(libc::RTM_GETNEIGH, REQUEST | DUMP, neigh(0, 0));
    assert_eq!(all.len(), 3);
    let Some(RouteNetlinkMessage::NewNeighbour(first)) = inner(&all[0]) else { panic!("{all:?}") };
    assert!(
        first
            .attributes
            .contains(&NeighbourAttribute::Destination(NeighbourAddress::Inet(Ipv4Addr::new(10, 0, 0, 9))))
    );
    assert_eq!(peer.read(libc::RTM_GETNEIGH, REQUEST | DUMP, neigh(libc::AF_INET6, 0)).len(), 2);
    assert_eq!(peer.read(libc::RTM_GETNEIGH, REQUEST | DUMP, neigh(0, 1)).len(), 1);
    let mut get = |body| peer.errno(libc::RTM_GETNEIGH, REQUEST | ACK, body);
    assert_eq!(get(neigh(0, 0)), libc::EINVAL);
    assert_eq!(get(neigh(libc::AF_INET, ETH).ip(libc::NDA_DST, "10.0.0.8")), libc::ENOENT);
    let new = neigh(libc::AF_INET, ETH).ip(libc::NDA_DST, "10.0.0.9");
    assert_eq!(peer.errno(libc::RTM_NEWNEIGH, ADD, new.clone()), libc::EEXIST);
    assert_eq!(peer.errno(libc::RTM_DELNEIGH, REQUEST, new), libc::EOPNOTSUPP);
}

#[test]
fn framing_as_linux() {
    let mut peer = Peer::new();
    let one = link(1, 0, 0);
    // Not a request, or a control message: acknowledged without a look.
    assert_eq!(peer.errno(libc::RTM_GETLINK, ACK, one.clone()), 0);
    assert_eq!(peer.errno(15, REQUEST | ACK, one.clone()), 0);
    assert_eq!(peer.ask(&one.message(libc::RTM_GETLINK, 0)), Outcome::default());
    assert_eq!(peer.errno(1000, REQUEST | ACK, one.clone()), libc::EOPNOTSUPP);
    assert_eq!(peer.errno(libc::RTM_GETRULE, REQUEST | DUMP, one.clone()), libc::EOPNOTSUPP);
    // Nothing but a header is no request either.
    assert_eq!(peer.ask(&Body(vec![]).message(libc::RTM_GETLINK, REQUEST | DUMP)), Outcome::default());
    // Lengths that lie end the buffer without an answer.
    for len in [0u32, 8, 15, 400, u32::MAX] {
        let mut bytes = one.message(libc::RTM_GETLINK, REQUEST | ACK);
        bytes[..4].copy_from_slice(&len.to_ne_bytes());
        assert_eq!(peer.ask(&bytes), Outcome::default());
    }
    assert_eq!(peer.ask(b"abcdef"), Outcome::default());
    // Attributes that lie are not there.
    for lie in [2u16, 40] {
        let mut body = one.clone().attr(3, "xxxx");
        body.0[16..18].copy_from_slice(&lie.to_ne_bytes());
        assert_eq!(peer.ask(&body.message(libc::RTM_GETLINK, REQUEST | ACK)).replies.len(), 2);
    }
    // Several requests in a buffer.
    let mut two = one.message(libc::RTM_GETLINK, REQUEST | ACK);
    two.extend(link(99, 0, 0).message(libc::RTM_GETLINK, REQUEST | ACK));
    let replies = peer.ask(&two).replies;
    assert_eq!((replies.len(), errno_of(&replies[1]), errno_of(&replies[2])), (3, 0, libc::ENODEV));
}

#[test]
fn acknowledgements_as_linux() {
    let mut peer = Peer::new();
    let wrong =
        route(libc::AF_INET, 16, 0, 1).ip(libc::RTA_DST, "10.66.0.0").ip(libc::RTA_GATEWAY, "99.0.0.2");
    let request = wrong.message(libc::RTM_NEWROUTE, REQUEST | ACK | CREATE);
    let mut reply = |cap, ext, bytes: &[u8]| {
        peer.session.cap_ack = cap;
        peer.session.ext_ack = ext;
        peer.ask(bytes).replies.remove(0)
    };
    let flags = |reply: &[u8]| wire::u16_at(reply, 6).unwrap();
    let plain = reply(false, false, &request);
    assert_eq!((plain.len(), flags(&plain)), (20 + request.len(), 0));
    assert_eq!(plain[20..], request[..]);
    let capped = reply(true, true, &request);
    assert_eq!((capped.len(), flags(&capped)), (68, 0x300));
    assert_eq!(capped[36..], b"\x20\0\x01\0Nexthop has invalid gateway\0"[..]);
    assert_eq!(capped.len(), wire::u32_at(&capped, 0).unwrap() as usize);
    let request = link(2, UP, UP).message(libc::RTM_SETLINK, REQUEST | ACK);
    let ack = reply(false, false, &request);
    assert_eq!((ack.len(), flags(&ack)), (36, 0x100));
}

#[test]
fn a_long_dump_comes_in_parts() {
    let mut peer = Peer::new();
    for n in 0..10_000u32 {
        let dst = Cidr::new(Ipv4Addr::from(0x2000_0000 + (n << 8)), 24).unwrap();
        peer.tables.add_route(Route { metric: n % 3, ..Route::via(dst, ip("10.0.0.2")) }).unwrap();
    }
    let request = route(libc::AF_INET, 0, 0, 0).message(libc::RTM_GETROUTE, REQUEST | DUMP);
    let mut replies = peer.ask(&request).replies;
    assert_eq!(replies.len(), 1);
    assert!(peer.session.is_dumping());
    assert_eq!(errno_of(&peer.ask(&request).replies[0]), libc::EBUSY);
    while let Some(part) = peer.session.next_part(&peer.tables, &peer.host, 1 << 20) {
        replies.push(part);
    }
    assert!(!peer.session.is_dumping());
    assert!(replies.iter().all(|part| part.len() <= 32768 && !part.is_empty()));
    let all: Vec<_> = replies.iter().flat_map(|part| messages(part)).collect();
    assert_eq!(all.len(), 10_002);
    assert!(matches!(all[10_001].payload, NetlinkPayload::Done(_)));
    // A change in between is told.
    peer.ask(&request);
    peer.tables.set_mtu(ETH, 1400).unwrap();
    let part = peer.session.next_part(&peer.tables, &peer.host, 0).unwrap();
    assert_eq!(wire::u16_at(&part, 6), Some(0x12));
}

#[test]
fn many_routes_to_one_prefix_come_in_parts() {
    let mut peer = Peer::new();
    for metric in 0..500 {
        peer.tables
            .add_route(Route { metric, ..Route::via("0.0.0.0/0".parse().unwrap(), ip("10.0.0.2")) })
            .unwrap();
    }
    let all = peer.read(libc::RTM_GETROUTE, REQUEST | DUMP, route(libc::AF_INET, 0, 0, 0));
    assert_eq!(all.len(), 502);
}

#[test]
fn listeners_are_told() {
    let mut peer = Peer::new();
    let body = addr(libc::AF_INET, 24, ETH).ip(libc::IFA_LOCAL, "10.1.0.1");
    assert!(peer.ask(&body.message(libc::RTM_NEWADDR, ADD)).events.is_empty(), "nobody listens");
    peer.tables.watch(true);
    let outcome = peer.ask(&body.message(libc::RTM_DELADDR, REQUEST | ACK));
    let groups: Vec<_> = outcome.events.iter().map(|event| event.group).collect();
    assert_eq!(groups, [libc::RTNLGRP_IPV4_ROUTE, libc::RTNLGRP_IPV4_IFADDR]);
    let [message] = &messages(&outcome.events[1].message)[..] else { panic!() };
    assert!(matches!(inner(message), Some(RouteNetlinkMessage::DelAddress(_))));
    assert_eq!((message.header.sequence_number, message.header.port_number), (7, 4711));
    peer.tables.set_carrier(ETH, false).unwrap();
    let (told, overrun) = events(&mut peer.tables, &peer.host, 0, 0);
    assert_eq!((told.len(), told[0].group, overrun), (1, libc::RTNLGRP_LINK, false));
}

/// Valid requests of every kind, to be damaged.
fn valid() -> impl Strategy<Value = Vec<u8>> {
    let v4 = libc::AF_INET;
    let data = Body(Vec::new()).attr(1, "switch://x\0");
    let info = Body(Vec::new()).attr(1, "vde\0").attr(2, data.0);
    let bodies = vec![
        (libc::RTM_GETLINK, link(0, 0, 0).attr(3, "lo\0")),
        (libc::RTM_NEWLINK, link(2, UP, UP).u32(4, 1400).attr(1, [2, 0, 0, 0, 0, 7]).attr(3, "eth7\0")),
        (libc::RTM_NEWLINK, link(-1, UP, UP).attr(49, []).attr(libc::IFLA_LINKINFO, info.0)),
        (libc::RTM_SETLINK, link(1, 0, UP)),
        (libc::RTM_DELLINK, link(3, 0, 0)),
        (libc::RTM_GETADDR, addr(0, 0, 0)),
        (
            libc::RTM_NEWADDR,
            addr(v4, 24, ETH).ip(2, "10.1.0.1").ip(1, "10.1.0.1").attr(3, "l").attr(6, [9; 16]),
        ),
        (libc::RTM_NEWADDR, addr(libc::AF_INET6, 64, ETH).ip(2, "fd00::1").u32(8, 2)),
        (libc::RTM_DELADDR, addr(v4, 24, ETH).ip(2, "10.0.0.1").ip(1, "10.0.0.1")),
        (
            libc::RTM_NEWROUTE,
            route(v4, 16, 0, 1)
                .ip(1, "10.9.0.0")
                .ip(5, "10.0.0.2")
                .u32(6, 3)
                .attr(8, [8, 0, 2, 0, 0, 5, 0, 0]),
        ),
        (libc::RTM_NEWROUTE, route(libc::AF_INET6, 32, 0, 1).ip(1, "fd01::").u32(4, ETH)),
        (libc::RTM_DELROUTE, route(v4, 24, 255, 0).ip(1, "10.0.0.0")),
        (libc::RTM_GETROUTE, route(v4, 32, 0, 0).ip(1, "10.0.0.7").ip(2, "10.0.0.1").u32(4, ETH)),
        (libc::RTM_GETNEIGH, neigh(v4, ETH).ip(1, "10.0.0.9")),
        (libc::RTM_NEWNEIGH, neigh(v4, ETH).ip(1, "10.0.0.8").attr(2, [2; 6])),
    ];
    let flags = prop_oneof![
        Just(REQUEST | ACK),
        Just(REQUEST | DUMP),
        Just(ADD),
        Just(REQUEST | CREATE | REPLACE),
        any::<u16>()
    ];
    (proptest::sample::select(bodies), flags).prop_map(|((kind, body), flags)| body.message(kind, flags))
}

proptest! {
    /// Nothing that a program can send makes the node fail or answer without bound, and all it says is sound.
    #[test]
    fn hostile_requests(
        requests in proptest::collection::vec((valid(), proptest::collection::vec((0usize..120, any::<u8>()), 0..4), 0usize..8), 1..12),
        noise in proptest::collection::vec(any::<u8>(), 0..200),
        strict: bool,
    ) {
        let mut peer = Peer::new();
        peer.tables.watch(true);
        peer.session.strict = strict;
        peer.session.ext_ack = strict;
        for (mut bytes, damage, cut) in requests {
            for (at, value) in damage {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
            let outcome = peer.ask(&bytes);
            prop_assert!(outcome.replies.len() <= 2 * bytes.len() / 16);
            let mut replies = outcome.replies;
            for _ in 0..100 {
                replies.extend(peer.session.next_part(&peer.tables, &peer.host, 0));
            }
            prop_assert!(!peer.session.is_dumping());
            for mut datagram in replies.iter().chain(outcome.events.iter().map(|event| &event.message)).map(Vec::as_slice) {
                while let Some((_, _, rest)) = wire::split(datagram) {
                    datagram = rest;
                }
                prop_assert!(datagram.is_empty());
            }
        }
        peer.ask(&noise);
    }
}
