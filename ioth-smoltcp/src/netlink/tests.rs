mod addresses;
mod dialogue;
mod hostile;
mod links;
mod routes;

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
