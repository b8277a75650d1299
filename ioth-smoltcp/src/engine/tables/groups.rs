//! The groups that a node listens to, by interface.
//!
//! Read first: RFC 1112 §6.4 and RFC 2464 §7 (group addresses on Ethernet), RFC 4291 §2.7.1 and §2.8.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ioth_core::MacAddr;

use super::{MAX_CHANGES, Tables};
use crate::engine::addr::{AddrError, count_down};

/// 224.0.0.1 and ff02::1 (RFC 1112 §4, RFC 4291 §2.7.1).
const ALL_NODES_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const ALL_NODES_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MACS: [MacAddr; 2] =
    [MacAddr([0x01, 0x00, 0x5e, 0, 0, 1]), MacAddr([0x33, 0x33, 0, 0, 0, 1])];

/// Groups.
impl Tables {
    /// Counts a further reason to listen to a group on an interface; the first one returns true.
    pub fn join_group(&mut self, ifindex: u32, group: IpAddr) -> Result<bool, AddrError> {
        if self.iface(ifindex).is_none() {
            return Err(AddrError::NoDevice);
        }
        if !group.is_multicast() {
            return Err(AddrError::NotMulticast);
        }
        Ok(self.join(ifindex, group))
    }

    /// Takes back one [`join_group`](Self::join_group); the last one returns true.
    pub fn leave_group(&mut self, ifindex: u32, group: IpAddr) -> Result<bool, AddrError> {
        if !self.groups.contains_key(&(ifindex, group)) {
            return Err(AddrError::NotFound);
        }
        Ok(self.leave(ifindex, group))
    }

    /// Whether packets for a group are to be taken on an interface.
    pub fn is_member(&self, group: IpAddr, ifindex: u32) -> bool {
        all_nodes(group) || self.groups.contains_key(&(ifindex, group))
    }

    /// Whether frames to a group address (broadcast included) are to be taken on an interface.
    pub fn wants_group(&self, mac: MacAddr, ifindex: u32) -> bool {
        mac == MacAddr::BROADCAST
            || ALL_NODES_MACS.contains(&mac)
            || self.group_macs.contains_key(&(ifindex, mac))
    }

    /// The groups an interface listens to: all nodes, the solicited-node groups of its addresses, joined ones.
    pub fn groups(&self, ifindex: u32) -> impl Iterator<Item = IpAddr> {
        let joined = self.groups.keys().filter(move |(of, _)| *of == ifindex).map(|(_, group)| *group);
        [IpAddr::V4(ALL_NODES_V4), IpAddr::V6(ALL_NODES_V6)].into_iter().chain(joined)
    }

    pub(in crate::engine) fn join(&mut self, ifindex: u32, group: IpAddr) -> bool {
        let count = self.groups.entry((ifindex, group)).or_insert(0);
        *count += 1;
        let first = *count == 1;
        if first {
            *self.group_macs.entry((ifindex, group_mac(group))).or_insert(0) += 1;
            self.group_changed(ifindex, group, true);
        }
        first
    }

    pub(in crate::engine) fn leave(&mut self, ifindex: u32, group: IpAddr) -> bool {
        let last = count_down(&mut self.groups, (ifindex, group));
        if last {
            count_down(&mut self.group_macs, (ifindex, group_mac(group)));
            self.group_changed(ifindex, group, false);
        }
        last
    }

    /// An interface was raised: its link has heard of none of its groups yet.
    pub(in crate::engine) fn announce_groups(&mut self, ifindex: u32) {
        let joined: Vec<_> = self.groups.keys().filter(|(of, _)| *of == ifindex).copied().collect();
        for (ifindex, group) in joined {
            self.group_changed(ifindex, group, true);
        }
    }

    fn group_changed(&mut self, ifindex: u32, group: IpAddr, joined: bool) {
        self.groups_changed = true;
        // Nobody may be asking; what is missing is told when a router asks.
        if self.group_changes.len() < MAX_CHANGES {
            self.group_changes.push((ifindex, group, joined));
        }
    }
}

/// The solicited-node group of an address (RFC 4291 §2.7.1).
pub fn solicited_node(addr: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = addr.octets();
    Ipv6Addr::from([0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The Ethernet address to which packets for a group go (RFC 1112 §6.4, RFC 2464 §7).
pub fn group_mac(group: IpAddr) -> MacAddr {
    match group {
        IpAddr::V4(group) => {
            let [_, b, c, d] = group.octets();
            MacAddr([0x01, 0x00, 0x5e, b & 0x7f, c, d])
        }
        IpAddr::V6(group) => {
            let [.., a, b, c, d] = group.octets();
            MacAddr([0x33, 0x33, a, b, c, d])
        }
    }
}

fn all_nodes(group: IpAddr) -> bool {
    group == IpAddr::V4(ALL_NODES_V4) || group == IpAddr::V6(ALL_NODES_V6)
}
