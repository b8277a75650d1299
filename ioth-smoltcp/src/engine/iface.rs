//! Interfaces of a node: what each is, and how one is named, raised and changed.
//!
//! Read first: RFC 4291 Appendix A (EUI-64), netdevice(7).

use std::net::Ipv6Addr;

use ioth_core::{Cidr, Errno, MacAddr};

use super::addr::{Addr, AddrAttrs, AddrState, IFAPROT_KERNEL_LL, IFAPROT_KERNEL_LO};
use super::tables::{Change, Tables};

/// Index of the loopback interface, which every node has.
pub const LOOPBACK: u32 = 1;

/// Smallest MTU of any interface, in bytes: below it Linux has no IPv4 either (RFC 791 §3.2).
pub const MIN_MTU: usize = 68;

/// Smallest MTU that carries IPv6, in bytes (RFC 8200 §5).
pub const IPV6_MIN_MTU: usize = 1280;

/// Interfaces that one node can have.
pub const MAX_IFACES: usize = 4096;

/// MTU of the loopback interface, in bytes.
const LOOPBACK_MTU: usize = 65536;

/// Longest interface name in bytes: `IFNAMSIZ` without the closing NUL.
const MAX_NAME: usize = 15;

/// What stands behind an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IfaceKind {
    /// The node itself.
    Loopback,
    /// A port into an Ethernet.
    Ethernet,
}

/// An interface: its state, its link parameters and its addresses.
#[derive(Clone, Debug)]
pub struct Iface {
    pub(super) index: u32,
    pub(super) kind: IfaceKind,
    pub(super) name: Box<str>,
    pub(super) mac: MacAddr,
    pub(super) mtu: usize,
    pub(super) max_mtu: usize,
    pub(super) up: bool,
    pub(super) carrier: bool,
    /// IPv4 first in order of preference (primaries before secondaries), then IPv6 by falling scope.
    pub(super) addrs: Vec<Addr>,
}

impl Iface {
    /// The index, from 1, never used again in the life of the node.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// What stands behind it.
    pub fn kind(&self) -> IfaceKind {
        self.kind
    }

    /// The name, unique in the node.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The Ethernet address; all zero for loopback unless it was given one.
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    /// The largest IP packet it carries, in bytes.
    pub fn mtu(&self) -> usize {
        self.mtu
    }

    /// The largest MTU that its link can be given, in bytes.
    pub fn max_mtu(&self) -> usize {
        self.max_mtu
    }

    /// Whether it is administratively up.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Whether its link is plugged.
    pub fn has_carrier(&self) -> bool {
        self.carrier
    }

    /// Whether packets can pass: up and plugged.
    pub fn is_running(&self) -> bool {
        self.up && self.carrier
    }

    /// Whether it is the loopback interface.
    pub fn is_loopback(&self) -> bool {
        self.kind == IfaceKind::Loopback
    }

    /// Its addresses, IPv4 first.
    pub fn addrs(&self) -> &[Addr] {
        &self.addrs
    }

    /// The interface flags, `IFF_*` of netdevice(7).
    pub fn flags(&self) -> u32 {
        let mut flags = match self.kind {
            IfaceKind::Loopback => libc::IFF_LOOPBACK,
            IfaceKind::Ethernet => libc::IFF_BROADCAST | libc::IFF_MULTICAST,
        };
        if self.up {
            flags |= libc::IFF_UP;
        }
        if self.is_running() {
            flags |= libc::IFF_RUNNING | libc::IFF_LOWER_UP;
        }
        flags as u32
    }

    /// Whether it can have IPv6 addresses (RFC 8200 §5: "every link in the Internet have an MTU of 1280
    /// octets or greater").
    pub(super) fn carries_ipv6(&self) -> bool {
        self.mtu >= IPV6_MIN_MTU
    }
}

/// Error returned by the interface methods of [`Tables`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IfaceError {
    /// Not a name that Linux would take.
    #[error("interface name: 1 to 15 bytes without \"/\", \":\" and white space, not \".\" or \"..\"")]
    InvalidName,
    /// Another interface has the name.
    #[error("an interface of that name exists")]
    Exists,
    /// The node has as many interfaces as it can have.
    #[error("the node has {MAX_IFACES} interfaces already")]
    TooMany,
    /// No interface of that index.
    #[error("no such interface")]
    NoDevice,
    /// A group or an all-zero address cannot be a station's.
    #[error("hardware address: must be a unicast address")]
    InvalidMac,
    /// Below the least MTU of any link.
    #[error("mtu less than device minimum")]
    MtuTooSmall,
    /// Above what the link carries.
    #[error("mtu greater than device maximum")]
    MtuTooLarge,
    /// The loopback interface cannot be removed.
    #[error("the loopback interface cannot be removed")]
    Permanent,
}

impl IfaceError {
    /// The error as Linux numbers it.
    pub fn to_errno(self) -> Errno {
        match self {
            IfaceError::InvalidName | IfaceError::MtuTooSmall | IfaceError::MtuTooLarge => Errno::EINVAL,
            IfaceError::Exists => Errno::EEXIST,
            IfaceError::TooMany => Errno::ENFILE,
            IfaceError::NoDevice => Errno::ENODEV,
            IfaceError::InvalidMac => Errno::EADDRNOTAVAIL,
            IfaceError::Permanent => Errno::EOPNOTSUPP,
        }
    }
}

impl From<IfaceError> for Errno {
    fn from(error: IfaceError) -> Errno {
        error.to_errno()
    }
}

/// Interfaces.
impl Tables {
    /// Adds an Ethernet interface, down and plugged, and returns its index.
    ///
    /// One `%d` in `name` becomes the least number that makes the name unique. `max_mtu` is what the link
    /// can carry at most, in bytes without the Ethernet header.
    pub fn add_iface(
        &mut self,
        name: &str,
        mac: MacAddr,
        mtu: usize,
        max_mtu: usize,
    ) -> Result<u32, IfaceError> {
        if self.ifaces.len() >= MAX_IFACES {
            return Err(IfaceError::TooMany);
        }
        if !mac.is_unicast() {
            return Err(IfaceError::InvalidMac);
        }
        check_mtu(mtu, max_mtu)?;
        let name = self.free_name(name)?;
        let index = self.ifaces.last().map_or(LOOPBACK, |last| last.index).max(self.last_index) + 1;
        self.last_index = index;
        self.ifaces.push(Iface {
            index,
            kind: IfaceKind::Ethernet,
            name,
            mac,
            mtu,
            max_mtu,
            up: false,
            carrier: true,
            addrs: Vec::new(),
        });
        self.changed(Change::LinkNew(index));
        Ok(index)
    }

    /// Removes an interface with its addresses, routes and group memberships.
    pub fn del_iface(&mut self, ifindex: u32) -> Result<(), IfaceError> {
        if ifindex == LOOPBACK {
            return Err(IfaceError::Permanent);
        }
        self.set_up(ifindex, false)?;
        self.flush_addrs(ifindex, |_| true);
        let position = self.position(ifindex)?;
        let iface = self.ifaces.remove(position);
        self.groups.retain(|&(of, _), _| of != ifindex);
        self.group_macs.retain(|&(of, _), _| of != ifindex);
        self.changed(Change::LinkDel(Box::new(iface)));
        Ok(())
    }

    /// Raises or lowers an interface.
    ///
    /// Raised, it gets its IPv6 link-local address (loopback: `::1/128`) and the routes to its prefixes.
    /// Lowered, it loses its IPv6 addresses and every route through it, and keeps its IPv4 addresses: as Linux.
    pub fn set_up(&mut self, ifindex: u32, up: bool) -> Result<(), IfaceError> {
        let iface = self.iface_mut(ifindex)?;
        if iface.up == up {
            return Ok(());
        }
        iface.up = up;
        if up {
            self.changed(Change::LinkNew(ifindex));
            self.announce_groups(ifindex);
            self.connect_prefixes(ifindex);
            self.start_ipv6(ifindex);
        } else {
            self.flush_addrs(ifindex, |addr| addr.local().is_ipv6());
            self.flush_routes(ifindex, |_| true);
            self.changed(Change::LinkNew(ifindex));
        }
        Ok(())
    }

    /// Notes that the link was plugged or unplugged; routes stay, as in Linux.
    pub fn set_carrier(&mut self, ifindex: u32, carrier: bool) -> Result<(), IfaceError> {
        let iface = self.iface_mut(ifindex)?;
        if iface.carrier != carrier {
            iface.carrier = carrier;
            self.changed(Change::LinkNew(ifindex));
        }
        Ok(())
    }

    /// Changes the Ethernet address. The link-local IPv6 address stays until the interface is next raised.
    pub fn set_mac(&mut self, ifindex: u32, mac: MacAddr) -> Result<(), IfaceError> {
        let iface = self.iface_mut(ifindex)?;
        if !mac.is_unicast() {
            return Err(IfaceError::InvalidMac);
        }
        if iface.mac != mac {
            iface.mac = mac;
            self.changed(Change::LinkNew(ifindex));
        }
        Ok(())
    }

    /// Changes the MTU, in bytes. Below 1280 the interface loses IPv6, and gets a link-local address again
    /// when it comes back above: as Linux.
    pub fn set_mtu(&mut self, ifindex: u32, mtu: usize) -> Result<(), IfaceError> {
        let iface = self.iface_mut(ifindex)?;
        if iface.mtu == mtu {
            return Ok(());
        }
        // Linux's loopback takes any MTU; a TCP segment needs room for its headers in ours.
        check_mtu(mtu, iface.max_mtu)?;
        let had_ipv6 = iface.carries_ipv6();
        iface.mtu = mtu;
        let has_ipv6 = iface.carries_ipv6();
        self.changed(Change::LinkNew(ifindex));
        if had_ipv6 && !has_ipv6 {
            self.flush_addrs(ifindex, |addr| addr.local().is_ipv6());
            self.flush_routes(ifindex, |route| route.dst.addr().is_ipv6());
        } else if has_ipv6 && !had_ipv6 {
            self.start_ipv6(ifindex);
        }
        Ok(())
    }

    /// Renames an interface, up or down (Linux since 6.2). Address labels stay.
    pub fn rename(&mut self, ifindex: u32, name: &str) -> Result<(), IfaceError> {
        let position = self.position(ifindex)?;
        if &*self.ifaces[position].name == name {
            return Ok(());
        }
        let name = self.free_name(name)?;
        self.ifaces[position].name = name;
        self.changed(Change::LinkNew(ifindex));
        Ok(())
    }

    /// The interface of that index.
    pub fn iface(&self, ifindex: u32) -> Option<&Iface> {
        let position = self.position(ifindex).ok()?;
        Some(&self.ifaces[position])
    }

    /// All interfaces by rising index.
    pub fn ifaces(&self) -> impl Iterator<Item = &Iface> {
        self.ifaces.iter()
    }

    /// The interface of that name.
    pub fn iface_by_name(&self, name: &str) -> Option<&Iface> {
        self.ifaces.iter().find(|iface| &*iface.name == name)
    }

    /// Gives a freshly made node its loopback interface, up.
    pub(super) fn add_loopback(&mut self) {
        self.ifaces.push(Iface {
            index: LOOPBACK,
            kind: IfaceKind::Loopback,
            name: "lo".into(),
            mac: MacAddr::UNSPECIFIED,
            mtu: LOOPBACK_MTU,
            max_mtu: LOOPBACK_MTU,
            up: false,
            carrier: true,
            addrs: Vec::with_capacity(2),
        });
        let localhost = Cidr::new([127, 0, 0, 1], 8).expect("8 is a prefix length");
        let attrs = AddrAttrs { proto: IFAPROT_KERNEL_LO, ..AddrAttrs::default() };
        self.add_addr(LOOPBACK, localhost, attrs).expect("the first address of a node");
        self.set_up(LOOPBACK, true).expect("loopback is there");
    }

    pub(super) fn iface_mut(&mut self, ifindex: u32) -> Result<&mut Iface, IfaceError> {
        let position = self.position(ifindex)?;
        Ok(&mut self.ifaces[position])
    }

    fn position(&self, ifindex: u32) -> Result<usize, IfaceError> {
        self.ifaces.binary_search_by_key(&ifindex, |iface| iface.index).map_err(|_| IfaceError::NoDevice)
    }

    /// Adds the IPv6 address that an interface has by itself, if it is up.
    fn start_ipv6(&mut self, ifindex: u32) {
        let Some(iface) = self.iface(ifindex) else { return };
        if !iface.up || !iface.carries_ipv6() {
            return;
        }
        let (cidr, proto) = match iface.kind {
            IfaceKind::Loopback => (Cidr::host(Ipv6Addr::LOCALHOST), IFAPROT_KERNEL_LO),
            IfaceKind::Ethernet => {
                (Cidr::new(link_local(iface.mac), 64).expect("64 is a prefix length"), IFAPROT_KERNEL_LL)
            }
        };
        let state = match iface.kind {
            IfaceKind::Loopback => AddrState::Preferred,
            IfaceKind::Ethernet => self.initial_state,
        };
        // EEXIST: it was configured by hand while the interface was down.
        let _ = self.add_addr(ifindex, cidr, AddrAttrs { proto, state, ..AddrAttrs::default() });
    }

    fn free_name(&self, name: &str) -> Result<Box<str>, IfaceError> {
        let taken = |name: &str| self.iface_by_name(name).is_some();
        let Some((before, behind)) = name.split_once("%d") else {
            if !is_valid_name(name) {
                return Err(IfaceError::InvalidName);
            }
            return if taken(name) { Err(IfaceError::Exists) } else { Ok(name.into()) };
        };
        // One number more than there are interfaces: one is free.
        for number in 0..=self.ifaces.len() {
            let name = format!("{before}{number}{behind}");
            if !is_valid_name(&name) {
                return Err(IfaceError::InvalidName);
            }
            if !taken(&name) {
                return Ok(name.into());
            }
        }
        Err(IfaceError::TooMany)
    }
}

/// The link-local address of an interface: `fe80::/64` with the modified EUI-64 of its Ethernet address.
pub fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, g] = mac.0;
    // RFC 4291 Appendix A: "inverting the u bit".
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, g])
}

/// Whether Linux takes it as an interface's name (`dev_valid_name`); `%` is kept for patterns.
fn is_valid_name(name: &str) -> bool {
    let forbidden = |byte: u8| matches!(byte, b'/' | b':' | b'%' | 0 | b' ' | b'\t'..=b'\r');
    !name.is_empty() && name.len() <= MAX_NAME && name != "." && name != ".." && !name.bytes().any(forbidden)
}

fn check_mtu(mtu: usize, max_mtu: usize) -> Result<(), IfaceError> {
    if mtu < MIN_MTU {
        Err(IfaceError::MtuTooSmall)
    } else if mtu > max_mtu {
        Err(IfaceError::MtuTooLarge)
    } else {
        Ok(())
    }
}
