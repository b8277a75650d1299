//! Which of its addresses a node sends from.
//!
//! Read first: RFC 6724 §2.1 (policy table) and §5 (source address selection), RFC 1122 §3.3.4.3.
//!
//! IPv6 looks at each IPv6 address of the node (callers keep the path, see [`Tables::generation`]); IPv4 finds
//! the address by the route to the next hop's prefix.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Tables;
use crate::engine::addr::{Addr, AddrState};
use crate::engine::iface::Iface;
use crate::engine::route::scope;

impl Tables {
    /// The source address of a packet to `dst` through `next_hop` on `iface`. IPv4 without any address is
    /// unspecified (a DHCP client has none yet); IPv6 without one is an error.
    pub(in crate::engine) fn select_source(
        &self,
        iface: &Iface,
        dst: IpAddr,
        next_hop: IpAddr,
    ) -> Option<IpAddr> {
        match (dst, next_hop) {
            (IpAddr::V6(dst), _) => self.select_v6(iface, dst).map(IpAddr::V6),
            (IpAddr::V4(_), next_hop) => Some(self.select_v4(iface, next_hop)),
        }
    }

    /// The source of a packet to the node itself: the destination, where that can be one.
    pub(in crate::engine) fn local_source(&self, dst: IpAddr) -> IpAddr {
        if self.locals.contains_key(&dst) {
            return dst;
        }
        // In the prefix of a loopback address: 127.1.2.3 is reached from 127.0.0.1 as in Linux.
        let of_loopback = self.ifaces[0].addrs().iter().find(|addr| addr.prefix().contains(dst));
        of_loopback.map_or(dst, Addr::local)
    }

    fn select_v4(&self, iface: &Iface, next_hop: IpAddr) -> IpAddr {
        let connected = self.fib.matches(next_hop).find(|route| route.oif == iface.index());
        if let Some(prefsrc) =
            connected.filter(|route| route.gateway.is_none()).and_then(|route| route.prefsrc)
            && self.usable(prefsrc)
        {
            return prefsrc;
        }
        let usable = |addr: &&Addr| {
            addr.local().is_ipv4() && !addr.is_secondary() && addr.scope() <= scope::LINK && speaks(addr)
        };
        let own = iface.addrs().iter().find(usable);
        // Linux's inet_select_addr: an address that reaches further than its link may stand in.
        let any = || self.addrs().filter(usable).find(|addr| addr.scope() < scope::LINK);
        own.or_else(any).map_or(Ipv4Addr::UNSPECIFIED.into(), Addr::local)
    }

    fn usable(&self, addr: IpAddr) -> bool {
        let states = self.locals.get(&addr).into_iter().flatten().map(|local| local.state);
        states.into_iter().any(|state| matches!(state, AddrState::Preferred | AddrState::Deprecated))
    }

    fn select_v6(&self, iface: &Iface, dst: Ipv6Addr) -> Option<Ipv6Addr> {
        let (wanted, wanted_label) = (scope_v6(dst), label(dst));
        // RFC 6724 §4: "For multicast and link-local destination addresses, the set of candidate source
        // addresses MUST only include addresses assigned to interfaces belonging to the same link".
        let same_link = dst.is_multicast() || wanted <= LINK_LOCAL;
        let candidates = self.ifaces().filter(|other| !same_link || other.index() == iface.index());
        let addrs = candidates.flat_map(|other| other.addrs()).filter(|addr| speaks(addr));
        let mut best: Option<(Ipv6Addr, _)> = None;
        for addr in addrs {
            let IpAddr::V6(local) = addr.local() else { continue };
            let rank = rank(addr, local, iface, dst, (wanted, wanted_label));
            // Among equals the first one, which is the newest of its scope.
            if best.as_ref().is_none_or(|(_, highest)| rank > *highest) {
                best = Some((local, rank));
            }
        }
        best.map(|(local, _)| local)
    }
}

/// Whether an address may be chosen as a source.
fn speaks(addr: &Addr) -> bool {
    matches!(addr.state(), AddrState::Preferred | AddrState::Deprecated)
}

/// The rules of RFC 6724 §5 in their order; the greater one is preferred.
fn rank(
    addr: &Addr,
    local: Ipv6Addr,
    iface: &Iface,
    dst: Ipv6Addr,
    (wanted, wanted_label): (u8, u8),
) -> impl Ord + use<> {
    let has = scope_v6(local);
    // Rule 2: the least scope that is enough, else the greatest of those that are not.
    let enough = has >= wanted;
    let scope = if enough { u8::MAX - has } else { has };
    (
        // Rule 1: prefer same address.
        local == dst,
        (enough, scope),
        // Rule 3: avoid deprecated addresses.
        addr.state() == AddrState::Preferred,
        // Rule 5: prefer outgoing interface.
        addr.ifindex() == iface.index(),
        // Rule 6: prefer matching label.
        label(local) == wanted_label,
        // Rule 7: prefer temporary addresses. Linux does not unless told so (use_tempaddr).
        Reverse(addr.attrs().flags & libc::IFA_F_TEMPORARY),
        // Rule 8: use longest matching prefix.
        common_prefix(local, dst).min(addr.cidr().prefix_len()),
    )
}

/// Link-local scope of RFC 4291 §2.7.
const LINK_LOCAL: u8 = 0x2;

/// Scopes in multicast's numbers, to compare both kinds (RFC 6724 §3.1).
fn scope_v6(addr: Ipv6Addr) -> u8 {
    if addr.is_multicast() {
        addr.octets()[1] & 0x0f
    } else if addr.is_loopback() || addr.is_unicast_link_local() {
        LINK_LOCAL
    } else if addr.segments()[0] & 0xffc0 == 0xfec0 {
        0x5
    } else {
        0xe
    }
}

/// The label of RFC 6724 §2.1's default policy table.
fn label(addr: Ipv6Addr) -> u8 {
    let found = POLICY.iter().find(|(prefix, len, _)| common_prefix(addr, *prefix) >= *len);
    found.map_or(1, |(_, _, label)| *label)
}

/// Prefix, its length and label, the longest first; everything else has label 1.
const POLICY: [(Ipv6Addr, u8, u8); 8] = [
    (Ipv6Addr::LOCALHOST, 128, 0),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, 4),
    (Ipv6Addr::UNSPECIFIED, 96, 3),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32, 5),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, 2),
    (Ipv6Addr::new(0x3ffe, 0, 0, 0, 0, 0, 0, 0), 16, 12),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, 11),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, 13),
];

/// How many leading bits two addresses share.
fn common_prefix(a: Ipv6Addr, b: Ipv6Addr) -> u8 {
    (a.to_bits() ^ b.to_bits()).leading_zeros() as u8
}
