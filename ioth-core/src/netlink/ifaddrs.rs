//! getifaddrs(3) over netlink.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::{Address, Link, LinkFlags, LinkStats, Result, Route};
use crate::addr::PacketAddr;
use crate::{SockAddr, cidr};

/// One entry of getifaddrs(3).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InterfaceAddress {
    /// The interface's name, or the IPv4 address' label (`eth0:1`).
    pub name: String,
    /// The interface's index.
    pub index: u32,
    /// The interface's flags.
    pub flags: LinkFlags,
    /// The address; the hardware address for the interface's own entry.
    pub addr: SockAddr,
    /// The netmask, in the form of an address; none for a hardware address.
    pub netmask: Option<SockAddr>,
    /// The broadcast address (with [`LinkFlags::BROADCAST`]).
    pub broadcast: Option<SockAddr>,
    /// The other end (with [`LinkFlags::POINTOPOINT`]).
    pub destination: Option<SockAddr>,
    /// The interface's counters, in its own entry only.
    pub stats: Option<LinkStats>,
}

impl Route {
    /// Every address of every interface, as getifaddrs(3).
    ///
    /// First one `AF_PACKET` entry an interface, then the IPv4 and IPv6 addresses in the stack's order.
    /// Link-local addresses carry the interface's index as scope id (RFC 4007 §6).
    pub fn interface_addresses(&self) -> Result<Vec<InterfaceAddress>> {
        let links = self.links()?;
        let addresses = self.addresses()?;
        let owned = addresses.iter().filter_map(|address| {
            // One that appeared between the two dumps has no link: it comes next time.
            let link = links.iter().find(|link| link.index == address.index)?;
            Some(of_address(link, address))
        });
        Ok(links.iter().map(of_link).chain(owned).collect())
    }
}

fn of_link(link: &Link) -> InterfaceAddress {
    let packet = |hwaddr: &[u8]| {
        let mut addr = [0; 8];
        let len = hwaddr.len().min(addr.len());
        addr[..len].copy_from_slice(&hwaddr[..len]);
        SockAddr::Packet(PacketAddr {
            ifindex: link.index,
            hatype: link.hatype,
            halen: len as u8,
            addr,
            ..PacketAddr::default()
        })
    };
    InterfaceAddress {
        name: link.name.clone(),
        index: link.index,
        flags: link.flags,
        addr: packet(&link.hwaddr),
        netmask: None,
        broadcast: (!link.broadcast.is_empty()).then(|| packet(&link.broadcast)),
        destination: None,
        stats: link.stats,
    }
}

fn of_address(link: &Link, address: &Address) -> InterfaceAddress {
    let socket = |ip| with_scope(ip, link.index);
    let own = address.address.addr();
    let ones = if own.is_ipv4() { IpAddr::from([0xff; 4]) } else { IpAddr::from([0xff; 16]) };
    let netmask = cidr::mask(ones, address.address.prefix_len());
    InterfaceAddress {
        name: address.label.clone().unwrap_or_else(|| link.name.clone()),
        index: link.index,
        flags: link.flags,
        addr: socket(own),
        netmask: Some(SocketAddr::new(netmask, 0).into()),
        broadcast: address.broadcast.map(socket),
        destination: address.peer.map(socket),
        stats: None,
    }
}

fn with_scope(ip: IpAddr, index: u32) -> SockAddr {
    match ip {
        IpAddr::V6(v6) if needs_scope(v6) => SocketAddrV6::new(v6, 0, 0, index).into(),
        ip => SocketAddr::new(ip, 0).into(),
    }
}

/// RFC 4007 §6: link-local unicast, and multicast of interface- and link-local scope.
fn needs_scope(ip: Ipv6Addr) -> bool {
    let [first, second, ..] = ip.octets();
    ip.is_unicast_link_local() || (first == 0xff && matches!(second & 0x0f, 1 | 2))
}
