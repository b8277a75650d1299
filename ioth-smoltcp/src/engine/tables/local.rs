//! Which addresses are the node's own, by hash.
//!
//! Read first: RFC 1122 §3.3.4.2 (the weak host model), RFC 919 (broadcast).

use std::net::{IpAddr, Ipv4Addr};

use ioth_core::Cidr;

use super::{Tables, solicited_node};
use crate::engine::addr::{Addr, AddrState, Local, count_down, is_link_local};
use crate::engine::iface::LOOPBACK;

/// Lookups.
impl Tables {
    /// Whether `addr` is the node's own, by a hash lookup.
    ///
    /// A node owns its addresses on whatever interface a packet comes in (RFC 1122 §3.3.4.2, the weak model,
    /// as Linux), link-local IPv6 addresses excepted: with `scope` they must be that interface's. All of the
    /// prefixes of loopback's IPv4 addresses is local, 127.0.0.0/8 at first.
    pub fn is_local(&self, addr: IpAddr, scope: Option<u32>) -> Option<Local> {
        let mut entries = self.locals.get(&addr).into_iter().flatten();
        let found = match scope {
            Some(ifindex) if is_link_local(addr) => return entries.find(|at| at.ifindex == ifindex).copied(),
            Some(ifindex) => entries.clone().find(|at| at.ifindex == ifindex).or_else(|| entries.next()),
            None => entries.next(),
        };
        if let Some(local) = found {
            return Some(*local);
        }
        let in_prefix =
            |len| Cidr::new(addr, len).is_ok_and(|cidr| self.loopback_prefixes.contains_key(&cidr.network()));
        let local = addr.is_ipv4() && bits(self.loopback_lengths).any(in_prefix);
        local.then_some(Local { ifindex: LOOPBACK, state: AddrState::Preferred })
    }

    /// Whether `addr` means every station on the interface's link: 255.255.255.255 or a subnet's broadcast.
    pub fn is_broadcast(&self, addr: Ipv4Addr, ifindex: u32) -> bool {
        addr.is_broadcast() || self.broadcasts.contains_key(&(ifindex, addr))
    }

    /// Enters an address into the tables that answer by hash.
    pub(in crate::engine) fn index_addr(&mut self, addr: &Addr) {
        self.addr_count += 1;
        let local = Local { ifindex: addr.ifindex, state: addr.attrs.state };
        self.locals.entry(addr.local()).or_insert_with(|| Vec::with_capacity(1)).push(local);
        for broadcast in broadcasts(addr).into_iter().flatten() {
            *self.broadcasts.entry((addr.ifindex, broadcast)).or_insert(0) += 1;
        }
        if let IpAddr::V6(local) = addr.local()
            && addr.ifindex != LOOPBACK
        {
            self.join(addr.ifindex, solicited_node(local).into());
        }
        if addr.ifindex == LOOPBACK && addr.local().is_ipv4() && addr.cidr.prefix_len() < 32 {
            *self.loopback_prefixes.entry(addr.prefix()).or_insert(0) += 1;
            self.loopback_lengths |= 1 << addr.cidr.prefix_len();
        }
    }

    pub(in crate::engine) fn unindex_addr(&mut self, addr: &Addr) {
        self.addr_count = self.addr_count.saturating_sub(1);
        if let Some(entries) = self.locals.get_mut(&addr.local()) {
            if let Some(at) = entries.iter().position(|local| local.ifindex == addr.ifindex) {
                entries.remove(at);
            }
            if entries.is_empty() {
                self.locals.remove(&addr.local());
            }
        }
        for broadcast in broadcasts(addr).into_iter().flatten() {
            count_down(&mut self.broadcasts, (addr.ifindex, broadcast));
        }
        if let IpAddr::V6(local) = addr.local()
            && addr.ifindex != LOOPBACK
        {
            self.leave(addr.ifindex, solicited_node(local).into());
        }
        if addr.ifindex == LOOPBACK && addr.local().is_ipv4() && addr.cidr.prefix_len() < 32 {
            count_down(&mut self.loopback_prefixes, addr.prefix());
            let lengths = self.loopback_prefixes.keys().map(|prefix| 1 << prefix.prefix_len());
            self.loopback_lengths = lengths.fold(0, |all, bit| all | bit);
        }
    }

    pub(in crate::engine) fn has_local(&self, addr: IpAddr, ifindex: u32) -> bool {
        self.locals.get(&addr).into_iter().flatten().any(|local| local.ifindex == ifindex)
    }
}

/// The subnet broadcast addresses that come with an address (RFC 919; none in a /31, RFC 3021 §2.2).
fn broadcasts(addr: &Addr) -> [Option<Ipv4Addr>; 2] {
    let IpAddr::V4(network) = addr.prefix().addr() else { return [None; 2] };
    let len = addr.cidr.prefix_len();
    if len >= 31 || addr.ifindex == LOOPBACK {
        return [addr.attrs.broadcast.filter(|_| addr.ifindex != LOOPBACK), None];
    }
    let all_ones = Ipv4Addr::from(network.to_bits() | (u32::MAX >> len));
    [Some(all_ones), addr.attrs.broadcast.filter(|explicit| *explicit != all_ones)]
}

/// The positions of the bits that are set, from the highest.
fn bits(mut mask: u64) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let bit = mask.checked_ilog2()?;
        mask &= !(1 << bit);
        Some(bit as u8)
    })
}
