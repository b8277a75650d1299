//! What the tables hold: interfaces, addresses, routes.
//!
//! Only the attributes that are used are looked at, so that what a newer kernel adds or
//! changes elsewhere does no harm.

use std::net::IpAddr;

use bitflags::bitflags;
use netlink_packet_core::{NlasIterator, parse_ip, parse_string, parse_u32};
use netlink_packet_route::address::AddressHeader;
use netlink_packet_route::link::LinkHeader;
use netlink_packet_route::route::RouteHeader;

use crate::{Cidr, MacAddr};

bitflags! {
    /// Flags of an interface, netdevice(7), with Linux's values; unknown bits are kept.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct LinkFlags: u32 {
        /// `IFF_UP`: taken into service.
        const UP = libc::IFF_UP as u32;
        /// `IFF_BROADCAST`
        const BROADCAST = libc::IFF_BROADCAST as u32;
        /// `IFF_LOOPBACK`
        const LOOPBACK = libc::IFF_LOOPBACK as u32;
        /// `IFF_POINTOPOINT`
        const POINTOPOINT = libc::IFF_POINTOPOINT as u32;
        /// `IFF_RUNNING`: works, the cable is plugged.
        const RUNNING = libc::IFF_RUNNING as u32;
        /// `IFF_NOARP`
        const NOARP = libc::IFF_NOARP as u32;
        /// `IFF_PROMISC`
        const PROMISC = libc::IFF_PROMISC as u32;
        /// `IFF_ALLMULTI`
        const ALLMULTI = libc::IFF_ALLMULTI as u32;
        /// `IFF_MULTICAST`
        const MULTICAST = libc::IFF_MULTICAST as u32;
        /// `IFF_LOWER_UP`
        const LOWER_UP = 1 << 16;
        const _ = !0;
    }
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Link {
    /// Its index, never 0.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `ARPHRD_*`: 1 is Ethernet, 772 loopback.
    pub hatype: u16,
    /// Flags.
    pub flags: LinkFlags,
    /// Hardware address of any length, in bytes as given.
    pub hwaddr: Vec<u8>,
    /// Hardware broadcast address, in bytes as given.
    pub broadcast: Vec<u8>,
    /// The hardware address, when it has six bytes.
    pub mac: Option<MacAddr>,
    /// MTU in bytes, without the Ethernet header; 0 when not told.
    pub mtu: u32,
    /// Counters, when told.
    pub stats: Option<LinkStats>,
}

impl Link {
    /// Whether the interface is in service (`IFF_UP`).
    pub fn up(&self) -> bool {
        self.flags.contains(LinkFlags::UP)
    }

    /// Whether it is the loopback interface.
    pub fn loopback(&self) -> bool {
        self.flags.contains(LinkFlags::LOOPBACK)
    }

    /// From the payload of an RTM_NEWLINK; `None` when index or name are missing.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let header = LinkHeader::parse(payload).ok()?;
        let mut link = Link {
            index: header.index,
            hatype: header.link_layer_type.into(),
            flags: LinkFlags::from_bits_retain(header.flags.bits()),
            ..Link::default()
        };
        for (kind, value) in attributes(payload.get(16..)?) {
            match kind {
                libc::IFLA_IFNAME => link.name = parse_string(value).unwrap_or_default(),
                libc::IFLA_ADDRESS => link.hwaddr = value.to_vec(),
                libc::IFLA_BROADCAST => link.broadcast = value.to_vec(),
                libc::IFLA_MTU => link.mtu = parse_u32(value).unwrap_or_default(),
                libc::IFLA_STATS64 => link.stats = LinkStats::parse(value, 8).or(link.stats),
                libc::IFLA_STATS if link.stats.is_none() => link.stats = LinkStats::parse(value, 4),
                _ => {}
            }
        }
        link.mac = link.hwaddr.as_slice().try_into().ok().map(MacAddr);
        (link.index != 0 && !link.name.is_empty()).then_some(link)
    }
}

/// Counters of an interface (`struct rtnl_link_stats64`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Bad packets received.
    pub rx_errors: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Packets received and dropped for lack of room.
    pub rx_dropped: u64,
    /// Packets dropped before sending.
    pub tx_dropped: u64,
    /// Multicast packets received.
    pub multicast: u64,
    /// Collisions.
    pub collisions: u64,
}

impl LinkStats {
    /// Reads the leading ten counters of `width` bytes each; later ones are details of drivers.
    fn parse(value: &[u8], width: usize) -> Option<Self> {
        let mut counters = value.chunks_exact(width).map(|raw| match *raw {
            [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]).into(),
            _ => raw.try_into().map(u64::from_ne_bytes).unwrap_or_default(),
        });
        let mut next = || counters.next();
        Some(LinkStats {
            rx_packets: next()?,
            tx_packets: next()?,
            rx_bytes: next()?,
            tx_bytes: next()?,
            rx_errors: next()?,
            tx_errors: next()?,
            rx_dropped: next()?,
            tx_dropped: next()?,
            multicast: next()?,
            collisions: next()?,
        })
    }
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Address {
    /// The interface's index.
    pub index: u32,
    /// The local address and the length of its prefix.
    pub address: Cidr,
    /// The other end of a point-to-point interface.
    pub peer: Option<IpAddr>,
    /// IPv4 broadcast address.
    pub broadcast: Option<IpAddr>,
    /// IPv4 label: the interface's name, perhaps with a suffix (`eth0:1`).
    pub label: Option<String>,
    /// `RT_SCOPE_*`: 0 universe, 253 link, 254 host.
    pub scope: u8,
    /// `IFA_F_*`: 0x40 tentative, 0x20 deprecated, 0x08 duplicate, 0x80 permanent.
    pub flags: u32,
    /// Seconds that the address is still valid; `None` for ever.
    pub valid: Option<u32>,
    /// Seconds that it is still preferred; `None` for ever.
    pub preferred: Option<u32>,
    /// `IFAPROT_*`, who made it: 0 not told, 1 to 3 the stack itself.
    pub protocol: u8,
}

impl Address {
    /// From the payload of an RTM_NEWADDR; `None` when it isn't IPv4 or IPv6, or has no address.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let header = AddressHeader::parse(payload).ok()?;
        let (mut local, mut remote, mut broadcast, mut label) = (None, None, None, None);
        let mut flags = u32::from(header.flags.bits());
        let mut lifetimes = [None; 2];
        let mut protocol = 0;
        for (kind, value) in attributes(payload.get(8..)?) {
            match kind {
                libc::IFA_LOCAL => local = parse_ip(value).ok(),
                libc::IFA_ADDRESS => remote = parse_ip(value).ok(),
                libc::IFA_BROADCAST => broadcast = parse_ip(value).ok(),
                libc::IFA_LABEL => label = parse_string(value).ok(),
                libc::IFA_FLAGS => flags = parse_u32(value).unwrap_or(flags),
                libc::IFA_CACHEINFO => {
                    // struct ifa_cacheinfo: ifa_prefered, ifa_valid; all ones is for ever
                    for (lifetime, raw) in lifetimes.iter_mut().zip(value.chunks_exact(4)) {
                        *lifetime = parse_u32(raw).ok().filter(|&seconds| seconds != u32::MAX);
                    }
                }
                IFA_PROTO => protocol = value.first().copied().unwrap_or_default(),
                _ => {}
            }
        }
        // rtnetlink(7): IFA_ADDRESS is the peer's where IFA_LOCAL is given, else our own.
        let own = local.or(remote)?;
        let of_family = |addr: &IpAddr| u8::from(header.family) == libc_family(*addr);
        Some(Address {
            index: header.index,
            address: Cidr::new(own, header.prefix_len).ok().filter(|_| of_family(&own))?,
            peer: remote.filter(|remote| *remote != own && of_family(remote)),
            broadcast: broadcast.filter(of_family),
            label,
            scope: header.scope.into(),
            flags,
            preferred: lifetimes[0],
            valid: lifetimes[1],
            protocol,
        })
    }
}

/// linux/if_addr.h; not in libc.
const IFA_PROTO: u16 = 11;

/// A route, or one next hop of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouteEntry {
    /// Destination; `0.0.0.0/0` or `::/0` for the default route.
    pub dst: Cidr,
    /// The next hop; `None` on the link itself.
    pub gateway: Option<IpAddr>,
    /// Index of the outgoing interface; 0 when there is none (`blackhole` and the like).
    pub index: u32,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Metric: the lowest wins. 0 when not told.
    pub metric: u32,
    /// Table: 254 main, 255 local.
    pub table: u32,
    /// `RTPROT_*`, who made it: 2 the stack, 3 boot, 4 static, 9 RA, 16 DHCP.
    pub protocol: u8,
    /// `RT_SCOPE_*`: 0 universe, 253 link, 254 host.
    pub scope: u8,
    /// `RTN_*`: 1 unicast, 2 local, 3 broadcast, 5 multicast, 7 unreachable.
    pub kind: u8,
}

impl RouteEntry {
    /// Whether it is a default route.
    pub fn default_route(&self) -> bool {
        self.dst.prefix_len() == 0
    }

    /// From the payload of an RTM_NEWROUTE, each next hop; `None` when it isn't IPv4 or IPv6.
    pub(super) fn parse(payload: &[u8]) -> Option<Vec<Self>> {
        let header = RouteHeader::parse(payload).ok()?;
        let family = u8::from(header.address_family);
        let of_family = |addr: &IpAddr| libc_family(*addr) == family;
        let any = match i32::from(family) {
            libc::AF_INET => IpAddr::from([0; 4]),
            libc::AF_INET6 => IpAddr::from([0; 16]),
            _ => return None,
        };
        let mut entry = RouteEntry {
            dst: Cidr::new(any, header.destination_prefix_length).ok()?,
            gateway: None,
            index: 0,
            source: None,
            metric: 0,
            table: header.table.into(),
            protocol: header.protocol.into(),
            scope: header.scope.into(),
            kind: header.kind.into(),
        };
        let mut hops = Vec::new();
        for (kind, value) in attributes(payload.get(12..)?) {
            match kind {
                libc::RTA_DST => {
                    let dst = parse_ip(value).ok().filter(of_family)?;
                    entry.dst = Cidr::new(dst, header.destination_prefix_length).ok()?;
                }
                libc::RTA_GATEWAY => entry.gateway = parse_ip(value).ok().filter(of_family),
                libc::RTA_VIA => entry.gateway = via(value),
                libc::RTA_OIF => entry.index = parse_u32(value).unwrap_or_default(),
                libc::RTA_PREFSRC => entry.source = parse_ip(value).ok().filter(of_family),
                libc::RTA_PRIORITY => entry.metric = parse_u32(value).unwrap_or_default(),
                libc::RTA_TABLE => entry.table = parse_u32(value).unwrap_or(entry.table),
                libc::RTA_MULTIPATH => hops = next_hops(value),
                _ => {}
            }
        }
        if hops.is_empty() {
            return Some(vec![entry]);
        }
        Some(
            hops.into_iter().map(|(index, gateway)| RouteEntry { index, gateway, ..entry.clone() }).collect(),
        )
    }
}

/// Interface and gateway of each `struct rtnexthop`.
fn next_hops(mut value: &[u8]) -> Vec<(u32, Option<IpAddr>)> {
    let mut hops = Vec::new();
    // struct rtnexthop: rtnh_len u16, rtnh_flags u8, rtnh_hops u8, rtnh_ifindex i32, attributes
    while let Some(([l0, l1, _, _, i0, i1, i2, i3], _)) = value.split_first_chunk::<8>() {
        let len = usize::from(u16::from_ne_bytes([*l0, *l1]));
        let Some(inner) = value.get(8..len) else { break };
        let gateway = attributes(inner).find_map(|(kind, value)| match kind {
            libc::RTA_GATEWAY => parse_ip(value).ok(),
            libc::RTA_VIA => via(value),
            _ => None,
        });
        hops.push((u32::from_ne_bytes([*i0, *i1, *i2, *i3]), gateway));
        value = value.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    }
    hops
}

/// `struct rtvia`: a gateway of another family than the route's.
fn via(value: &[u8]) -> Option<IpAddr> {
    parse_ip(value.get(2..)?).ok()
}

/// Kind and value of each attribute, up to the first whose length lies.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = NlasIterator::new(bytes);
    let mut at = 0;
    std::iter::from_fn(move || {
        let attribute = rest.next()?.ok()?;
        let len = usize::from(attribute.length());
        let value = bytes.get(at + 4..at + len)?;
        at += len.next_multiple_of(4);
        Some((attribute.kind(), value))
    })
}

fn libc_family(addr: IpAddr) -> u8 {
    (if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }) as u8
}
