//! Addresses of a node: adding, removing, ageing, and whether an address is ours.
//!
//! Read first: RFC 4862 §5.5.4 (lifetimes), RFC 1122 §3.2.1.3 (which addresses a node can have).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ioth_core::{Cidr, Errno};

use super::iface::Iface;
use super::route::{Route, scope};
use super::tables::{Change, Map, Tables};

/// A lifetime without end, in seconds (`INFINITY_LIFE_TIME`).
pub const FOREVER: u32 = u32::MAX;

/// Addresses that one node can have.
pub const MAX_ADDRS: usize = 65536;

/// `IFA_PROTO` of the loopback addresses.
pub const IFAPROT_KERNEL_LO: u8 = 1;
/// `IFA_PROTO` of link-local addresses made by the node itself.
pub const IFAPROT_KERNEL_LL: u8 = 3;

/// The life of an address: RFC 4862's states, and one more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AddrState {
    /// Being checked for a duplicate: receives neighbour discovery, sends nothing.
    Tentative,
    /// In full use.
    #[default]
    Preferred,
    /// In use, not chosen as a source while there is another.
    Deprecated,
    /// Established connections live on; to everybody else the address does not exist.
    Closed,
}

/// How an address is added, beside the address itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddrAttrs {
    /// `IFA_F_*` that the caller may choose: `NODAD`, `NOPREFIXROUTE`, `HOMEADDRESS`, `MANAGETEMPADDR`,
    /// `TEMPORARY` and the like. `PERMANENT`, `TENTATIVE`, `DEPRECATED` and `SECONDARY` are derived.
    pub flags: u32,
    /// For how long it is valid, in seconds from now; [`FOREVER`].
    pub valid: u32,
    /// For how long it is preferred, in seconds from now; [`FOREVER`]. At most `valid`.
    pub preferred: u32,
    /// `RT_SCOPE_*` of an IPv4 address; `None` derives it. IPv6 always derives it.
    pub scope: Option<u8>,
    /// Label of an IPv4 address; `None` is the interface's name.
    pub label: Option<Box<str>>,
    /// `IFA_PROTO`: who configured it.
    pub proto: u8,
    /// Subnet broadcast address of an IPv4 address, beside the all-ones address of its prefix.
    pub broadcast: Option<Ipv4Addr>,
    /// The other end of a point-to-point address: the prefix length is that one's.
    pub peer: Option<IpAddr>,
    /// Metric of the prefix's route; 0 is the default.
    pub metric: u32,
    /// The state it begins in. Preferred or tentative, mostly.
    pub state: AddrState,
}

impl Default for AddrAttrs {
    fn default() -> Self {
        AddrAttrs {
            flags: 0,
            valid: FOREVER,
            preferred: FOREVER,
            scope: None,
            label: None,
            proto: 0,
            broadcast: None,
            peer: None,
            metric: 0,
            state: AddrState::Preferred,
        }
    }
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addr {
    pub(super) ifindex: u32,
    pub(super) cidr: Cidr,
    pub(super) secondary: bool,
    pub(super) scope: u8,
    pub(super) attrs: AddrAttrs,
    /// Milliseconds on the engine's clock.
    pub(super) created: u64,
    /// Milliseconds on the engine's clock.
    pub(super) updated: u64,
}

impl Addr {
    /// The interface that has it.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// The address with the length of its prefix.
    pub fn cidr(&self) -> Cidr {
        self.cidr
    }

    /// The address.
    pub fn local(&self) -> IpAddr {
        self.cidr.addr()
    }

    /// The prefix that is on the link: the peer's for a point-to-point address.
    pub fn prefix(&self) -> Cidr {
        let base = self.attrs.peer.unwrap_or(self.cidr.addr());
        Cidr::new(base, self.cidr.prefix_len()).unwrap_or(self.cidr).network()
    }

    /// `RT_SCOPE_*`
    pub fn scope(&self) -> u8 {
        self.scope
    }

    /// The attributes that it was added or last updated with, `state` being the present one.
    pub fn attrs(&self) -> &AddrAttrs {
        &self.attrs
    }

    /// Where it is in its life.
    pub fn state(&self) -> AddrState {
        self.attrs.state
    }

    /// Whether it is an IPv4 address that an earlier one of its subnet precedes.
    pub fn is_secondary(&self) -> bool {
        self.secondary
    }

    /// `IFA_F_*` as netlink shows them.
    pub fn flags(&self) -> u32 {
        let mut flags = self.attrs.flags;
        if self.attrs.valid == FOREVER {
            flags |= libc::IFA_F_PERMANENT;
        }
        if self.secondary {
            flags |= libc::IFA_F_SECONDARY;
        }
        match self.attrs.state {
            AddrState::Tentative => flags | libc::IFA_F_TENTATIVE,
            AddrState::Deprecated => flags | libc::IFA_F_DEPRECATED,
            AddrState::Preferred | AddrState::Closed => flags,
        }
    }

    /// When it was added, in milliseconds on the engine's clock.
    pub fn created(&self) -> u64 {
        self.created
    }

    /// When its lifetimes were last set, in milliseconds on the engine's clock.
    pub fn updated(&self) -> u64 {
        self.updated
    }

    /// Seconds for which it remains preferred and valid at `now` (milliseconds); [`FOREVER`].
    pub fn remaining(&self, now: u64) -> (u32, u32) {
        let age = now.saturating_sub(self.updated) / 1000;
        let left = |life: u32| match life {
            FOREVER => FOREVER,
            _ => u32::try_from(u64::from(life).saturating_sub(age)).unwrap_or(0),
        };
        (left(self.attrs.preferred), left(self.attrs.valid))
    }

    fn deprecated_at(&self) -> Option<u64> {
        let waits = self.attrs.preferred != FOREVER && self.attrs.state == AddrState::Preferred;
        waits.then(|| self.updated.saturating_add(u64::from(self.attrs.preferred) * 1000))
    }

    fn invalid_at(&self) -> Option<u64> {
        (self.attrs.valid != FOREVER).then(|| self.updated.saturating_add(u64::from(self.attrs.valid) * 1000))
    }

    /// The route to its prefix, if it has one while its interface is up.
    fn connected(&self, iface: &Iface) -> Option<Route> {
        if self.attrs.flags & libc::IFA_F_NOPREFIXROUTE != 0 {
            return None;
        }
        let prefix = self.prefix();
        let mut route = Route::new(prefix, self.ifindex);
        route.protocol = libc::RTPROT_KERNEL;
        route.metric = self.attrs.metric;
        match self.local() {
            IpAddr::V4(local) => {
                let alone = prefix.prefix_len() == 32 && prefix.addr() == local;
                // A loopback prefix is local as a whole: see `Tables::is_local`.
                if self.secondary || alone || iface.is_loopback() || prefix.addr() == Ipv4Addr::UNSPECIFIED {
                    return None;
                }
                route.scope = scope::LINK;
                route.prefsrc = Some(self.local());
            }
            IpAddr::V6(_) => {
                route.scope = scope::UNIVERSE;
                if route.metric == 0 {
                    route.metric = super::route::METRIC_ADDRCONF;
                }
            }
        }
        Some(route)
    }
}

/// An address found to be the node's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// The interface that has it.
    pub ifindex: u32,
    /// Where it is in its life.
    pub state: AddrState,
}

/// Error returned by the address methods of [`Tables`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddrError {
    /// No interface of that index.
    #[error("no such interface")]
    NoDevice,
    /// The interface has the address.
    #[error("address already assigned")]
    Exists,
    /// The interface does not have the address.
    #[error("address not found")]
    NotFound,
    /// Unspecified, multicast or broadcast.
    #[error("not an address that a node can have (unspecified, multicast or broadcast)")]
    NotUnicast,
    /// Not a group to join.
    #[error("not a multicast address")]
    NotMulticast,
    /// `::1` belongs to the loopback interface.
    #[error("cannot assign loopback address on this device")]
    Loopback,
    /// Valid for no time, or preferred for longer than valid.
    #[error("lifetimes: valid must be above 0 and at least as long as preferred")]
    InvalidLifetime,
    /// The peer is of the other family.
    #[error("peer address: must be of the same family")]
    InvalidPeer,
    /// The interface's MTU is below 1280.
    #[error("the interface's MTU is below 1280, the least of IPv6")]
    MtuTooSmall,
    /// An IPv4 label is at most 15 bytes.
    #[error("label: at most 15 bytes")]
    InvalidLabel,
    /// The node has as many addresses as it can have.
    #[error("the node has {MAX_ADDRS} addresses already")]
    TooMany,
}

impl AddrError {
    /// The error as Linux numbers it.
    pub fn to_errno(self) -> Errno {
        match self {
            AddrError::NoDevice => Errno::ENODEV,
            AddrError::Exists => Errno::EEXIST,
            AddrError::NotFound | AddrError::Loopback | AddrError::NotUnicast => Errno::EADDRNOTAVAIL,
            AddrError::NotMulticast
            | AddrError::InvalidLifetime
            | AddrError::InvalidPeer
            | AddrError::InvalidLabel
            | AddrError::MtuTooSmall => Errno::EINVAL,
            AddrError::TooMany => Errno::ENOBUFS,
        }
    }
}

impl From<AddrError> for Errno {
    fn from(error: AddrError) -> Errno {
        error.to_errno()
    }
}

/// Addresses.
impl Tables {
    /// Gives an interface an address and, while it is up, the route to the address's prefix.
    pub fn add_addr(&mut self, ifindex: u32, cidr: Cidr, attrs: AddrAttrs) -> Result<(), AddrError> {
        let iface = self.iface(ifindex).ok_or(AddrError::NoDevice)?;
        check(iface, cidr, &attrs)?;
        let local = cidr.addr();
        let prefix = Cidr::new(attrs.peer.unwrap_or(local), cidr.prefix_len()).unwrap_or(cidr).network();
        let same_subnet =
            |other: &Addr| other.cidr.prefix_len() == cidr.prefix_len() && other.prefix() == prefix;
        // Linux: an IPv6 address is once on an interface, an IPv4 address once with each prefix.
        if self.has_local(local, ifindex)
            && iface
                .addrs
                .iter()
                .any(|other| other.local() == local && (local.is_ipv6() || same_subnet(other)))
        {
            return Err(AddrError::Exists);
        }
        if self.addr_count >= MAX_ADDRS {
            return Err(AddrError::TooMany);
        }
        let addr = Addr {
            ifindex,
            cidr,
            secondary: local.is_ipv4()
                && iface.addrs.iter().any(|other| !other.secondary && same_subnet(other)),
            scope: scope_of(local, attrs.scope),
            created: self.now,
            updated: self.now,
            attrs,
        };
        let position = place(&iface.addrs, &addr);
        let deadline = addr.deprecated_at().into_iter().chain(addr.invalid_at()).min();
        self.next_expiry = self.next_expiry.into_iter().chain(deadline).min();
        self.index_addr(&addr);
        if let Ok(iface) = self.iface_mut(ifindex) {
            iface.addrs.insert(position, addr.clone());
        }
        self.changed(Change::AddrNew(addr.clone()));
        self.connect_prefix(&addr);
        Ok(())
    }

    /// Changes the attributes of an address that is there; its place, label and peer stay.
    pub fn update_addr(&mut self, ifindex: u32, cidr: Cidr, attrs: AddrAttrs) -> Result<(), AddrError> {
        let iface = self.iface(ifindex).ok_or(AddrError::NoDevice)?;
        let found = iface.addrs.iter().find(|addr| is_named(addr, cidr, attrs.peer));
        let old = found.ok_or(AddrError::NotFound)?.clone();
        check(iface, cidr, &attrs)?;
        let mut new = old.clone();
        new.attrs = AddrAttrs { label: old.attrs.label.clone(), peer: old.attrs.peer, ..attrs };
        if old.attrs.state == AddrState::Closed {
            new.attrs.state = AddrState::Closed;
        }
        new.updated = self.now;
        let deadline = new.deprecated_at().into_iter().chain(new.invalid_at()).min();
        self.next_expiry = self.next_expiry.into_iter().chain(deadline).min();
        self.unindex_addr(&old);
        self.index_addr(&new);
        if let Ok(iface) = self.iface_mut(ifindex)
            && let Some(slot) = iface.addrs.iter_mut().find(|addr| **addr == old)
        {
            *slot = new.clone();
        }
        self.changed(Change::AddrNew(new.clone()));
        if old.attrs.metric != new.attrs.metric
            || (old.attrs.flags ^ new.attrs.flags) & libc::IFA_F_NOPREFIXROUTE != 0
        {
            self.disconnect_prefix(&old);
            self.connect_prefix(&new);
        }
        Ok(())
    }

    /// Takes an address from an interface, and with the first IPv4 address of a subnet its secondaries.
    pub fn del_addr(&mut self, ifindex: u32, cidr: Cidr, peer: Option<IpAddr>) -> Result<(), AddrError> {
        let iface = self.iface(ifindex).ok_or(AddrError::NoDevice)?;
        let found = iface.addrs.iter().find(|addr| is_named(addr, cidr, peer));
        let addr = found.ok_or(AddrError::NotFound)?.clone();
        if addr.local().is_ipv4() && !addr.secondary {
            let prefix = addr.prefix();
            self.flush_addrs(ifindex, |other| other.secondary && other.prefix() == prefix);
        }
        self.flush_addrs(ifindex, |other| *other == addr);
        Ok(())
    }

    /// Moves an address to another state of its life (duplicate address detection).
    pub fn set_addr_state(&mut self, ifindex: u32, local: IpAddr, state: AddrState) -> Result<(), AddrError> {
        let iface = self.iface_mut(ifindex).map_err(|_| AddrError::NoDevice)?;
        let mut changed = Vec::new();
        for addr in iface.addrs.iter_mut().filter(|addr| addr.local() == local) {
            addr.attrs.state = state;
            changed.push(addr.clone());
        }
        if changed.is_empty() {
            return Err(AddrError::NotFound);
        }
        for entry in self.locals.get_mut(&local).into_iter().flatten() {
            if entry.ifindex == ifindex {
                entry.state = state;
            }
        }
        for addr in changed {
            self.next_expiry = self.next_expiry.into_iter().chain(addr.deprecated_at()).min();
            self.changed(Change::AddrNew(addr));
        }
        Ok(())
    }

    /// Sets the state in which link-local addresses that the node makes itself begin.
    pub fn set_initial_state(&mut self, state: AddrState) {
        self.initial_state = state;
    }

    /// The state in which link-local addresses begin.
    pub fn initial_state(&self) -> AddrState {
        self.initial_state
    }

    /// Moves the clock to `now` (milliseconds), deprecates and removes what has outlived its lifetimes, and
    /// returns when there will be more to do.
    pub fn advance(&mut self, now: u64) -> Option<u64> {
        self.now = self.now.max(now);
        let now = self.now;
        if self.next_expiry.is_none_or(|deadline| deadline > now) {
            return self.next_expiry;
        }
        let due = |at: Option<u64>| at.is_some_and(|at| at <= now);
        let invalid: Vec<Addr> = self.addrs().filter(|addr| due(addr.invalid_at())).cloned().collect();
        for addr in invalid {
            // Not found: it went as a secondary of the one before.
            let _ = self.del_addr(addr.ifindex, addr.cidr, addr.attrs.peer);
        }
        let old: Vec<Addr> = self.addrs().filter(|addr| due(addr.deprecated_at())).cloned().collect();
        for addr in old {
            let _ = self.set_addr_state(addr.ifindex, addr.local(), AddrState::Deprecated);
        }
        let deadlines =
            self.addrs().flat_map(|addr| addr.deprecated_at().into_iter().chain(addr.invalid_at()));
        self.next_expiry = deadlines.min();
        self.next_expiry
    }

    /// All addresses by rising interface index, IPv4 before IPv6 on each.
    pub fn addrs(&self) -> impl Iterator<Item = &Addr> {
        self.ifaces.iter().flat_map(|iface| iface.addrs.iter())
    }

    /// The addresses of one interface.
    pub fn addrs_of(&self, ifindex: u32) -> &[Addr] {
        self.iface(ifindex).map_or(&[], Iface::addrs)
    }

    /// Adds the routes to the prefixes of an interface that came up.
    pub(super) fn connect_prefixes(&mut self, ifindex: u32) {
        for addr in self.addrs_of(ifindex).to_vec() {
            self.connect_prefix(&addr);
        }
    }

    /// Removes those addresses of an interface that `goes` names, and what hangs on them.
    pub(super) fn flush_addrs(&mut self, ifindex: u32, goes: impl Fn(&Addr) -> bool) {
        let Ok(iface) = self.iface_mut(ifindex) else { return };
        let gone: Vec<Addr> = iface.addrs.extract_if(.., |addr| goes(addr)).collect();
        let without_ipv4 = !iface.addrs.iter().any(|addr| addr.local().is_ipv4());
        let mut ipv4_went = false;
        for addr in gone {
            ipv4_went |= addr.local().is_ipv4();
            self.unindex_addr(&addr);
            self.disconnect_prefix(&addr);
            if self.is_local(addr.local(), None).is_none() {
                self.forget_prefsrc(addr.local());
            }
            self.changed(Change::AddrDel(addr));
        }
        if ipv4_went && without_ipv4 {
            // Linux: the last address gone, IPv4 is disabled on the interface.
            self.flush_routes(ifindex, |route| route.dst.addr().is_ipv4());
        }
    }

    fn connect_prefix(&mut self, addr: &Addr) {
        let Some(iface) = self.iface(addr.ifindex) else { return };
        if !iface.up {
            return;
        }
        if let Some(route) = addr.connected(iface) {
            self.insert_connected(route);
        }
    }

    fn disconnect_prefix(&mut self, addr: &Addr) {
        let Some(iface) = self.iface(addr.ifindex) else { return };
        let Some(route) = addr.connected(iface) else { return };
        let kept = iface.addrs.iter().any(|other| other.connected(iface).as_ref() == Some(&route));
        if !kept {
            self.remove_connected(&route);
        }
    }
}

/// Whether an address means something only together with an interface.
pub fn is_link_local(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local())
}

/// What may not be added to `iface`, as Linux and, for IPv4, RFC 1122 §3.2.1.3 have it.
fn check(iface: &Iface, cidr: Cidr, attrs: &AddrAttrs) -> Result<(), AddrError> {
    let local = cidr.addr();
    // Linux lets some of these be an IPv4 node's; nothing could be received for them.
    let broadcast = matches!(local, IpAddr::V4(local) if local.is_broadcast());
    if local.is_unspecified() || local.is_multicast() || broadcast {
        return Err(AddrError::NotUnicast);
    }
    if local == IpAddr::V6(Ipv6Addr::LOCALHOST) && !iface.is_loopback() {
        return Err(AddrError::Loopback);
    }
    if attrs.valid == 0 || attrs.preferred > attrs.valid {
        return Err(AddrError::InvalidLifetime);
    }
    if attrs.peer.is_some_and(|peer| peer.is_ipv4() != local.is_ipv4()) {
        return Err(AddrError::InvalidPeer);
    }
    if attrs.label.as_ref().is_some_and(|label| label.len() > 15) {
        return Err(AddrError::InvalidLabel);
    }
    if local.is_ipv6() && !iface.carries_ipv6() {
        return Err(AddrError::MtuTooSmall);
    }
    Ok(())
}

/// Whether a caller who says `cidr` and `peer` means this address.
fn is_named(addr: &Addr, cidr: Cidr, peer: Option<IpAddr>) -> bool {
    addr.cidr == cidr && (peer.is_none() || peer == addr.attrs.peer || peer == Some(cidr.addr()))
}

/// `RT_SCOPE_*`: asked for with IPv4, derived with IPv6 (RFC 4007 §4).
fn scope_of(local: IpAddr, asked: Option<u8>) -> u8 {
    match local {
        IpAddr::V4(local) if local.is_loopback() => asked.unwrap_or(scope::HOST),
        IpAddr::V4(_) => asked.unwrap_or(scope::UNIVERSE),
        IpAddr::V6(local) if local.is_loopback() => scope::HOST,
        IpAddr::V6(local) if local.is_unicast_link_local() => scope::LINK,
        // RFC 3879 §4: deprecated site-local prefix, which Linux still shows as such.
        IpAddr::V6(local) if local.segments()[0] & 0xffc0 == 0xfec0 => scope::SITE,
        IpAddr::V6(_) => scope::UNIVERSE,
    }
}

/// Where Linux puts a new address: source selection and dumps go in this order.
fn place(addrs: &[Addr], new: &Addr) -> usize {
    let first_v6 = addrs.partition_point(|addr| addr.local().is_ipv4());
    let (v4, v6) = addrs.split_at(first_v6);
    if new.local().is_ipv6() {
        // Widest scope first, the newest first in its scope.
        return first_v6 + v6.partition_point(|addr| addr.scope < new.scope);
    }
    if new.secondary {
        return first_v6;
    }
    // Behind the last primary of the same or a narrower scope (higher number).
    let last = v4.iter().rposition(|addr| !addr.secondary && new.scope <= addr.scope);
    last.map_or(0, |at| at + 1)
}

/// Takes one from a count and the entry with its last; whether that was so.
pub(super) fn count_down<K: Eq + std::hash::Hash>(counts: &mut Map<K, u32>, key: K) -> bool {
    let Some(count) = counts.get_mut(&key) else { return false };
    *count -= 1;
    let last = *count == 0;
    if last {
        counts.remove(&key);
    }
    last
}
