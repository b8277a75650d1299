//! Which groups a socket is a member of (ip(7), RFC 3493 §5.2). What the links hear of it is in [`super::groups`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ioth_core::{Errno, Result};

use super::sockets::Sock;
use super::{Engine, SocketId};

/// Linux's net.ipv4.igmp_max_memberships.
const MAX_V4: usize = 20;
/// IPv6 memberships of one socket; Linux bounds them by net.core.optmem_max.
const MAX_V6: usize = 2000;

/// A socket's membership of a group on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    group: IpAddr,
    ifindex: u32,
    /// The address by which IP_ADD_MEMBERSHIP named the interface.
    named_by: Ipv4Addr,
}

/// Which interface a group is joined or left on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct On {
    /// 0: not named.
    pub(crate) ifindex: u32,
    /// Unspecified: not named.
    pub(crate) addr: Ipv4Addr,
}

impl On {
    pub(crate) fn index(ifindex: u32) -> Self {
        On { ifindex, addr: Ipv4Addr::UNSPECIFIED }
    }
}

impl Sock {
    /// Whether the socket wants datagrams to a group that came by an interface (`ip_mc_sf_allow`, `inet6_mc_check`): what it
    /// joined and, unless IP_MULTICAST_ALL is off, what anybody on this node did.
    pub(crate) fn hears(&self, group: IpAddr, ifindex: u32) -> bool {
        let joined = |membership: &Membership| {
            membership.group == group && (membership.ifindex == ifindex || group.is_ipv6())
        };
        self.options.group(group.is_ipv4()).all || self.memberships.iter().any(joined)
    }
}

impl Engine {
    /// IP_ADD_MEMBERSHIP, IPV6_JOIN_GROUP, MCAST_JOIN_GROUP.
    ///
    /// # Errors
    /// `EINVAL` when it is no group, `ENODEV` without an interface for it, `EADDRINUSE` when the socket is a member, `ENOBUFS` and
    /// `ENOMEM` when it is one of too many.
    pub(super) fn join_group(&mut self, id: SocketId, group: IpAddr, on: On) -> Result<()> {
        if !group.is_multicast() {
            return Err(Errno::EINVAL);
        }
        let ifindex = self.group_iface(group, on);
        let memberships = &self.sock(id)?.memberships;
        // Linux looks for an IPv6 membership before it looks for the interface.
        let named = if group.is_ipv6() { on.ifindex } else { ifindex.unwrap_or(0) };
        let same = |held: &&Membership| {
            held.group == group && (held.ifindex == named || (named == 0 && group.is_ipv6()))
        };
        let is_member = memberships.iter().find(same).is_some();
        if group.is_ipv6() && is_member {
            return Err(Errno::EADDRINUSE);
        }
        let ifindex = ifindex.ok_or(Errno::ENODEV)?;
        if is_member {
            return Err(Errno::EADDRINUSE);
        }
        let count = memberships.iter().filter(|held| held.group.is_ipv4() == group.is_ipv4()).count();
        match group {
            IpAddr::V4(_) if count >= MAX_V4 => return Err(Errno::ENOBUFS),
            IpAddr::V6(_) if count >= MAX_V6 => return Err(Errno::ENOMEM),
            _ => {}
        }
        self.net.join(ifindex, group);
        self.sockets[id.0].memberships.push(Membership { group, ifindex, named_by: on.addr });
        Ok(())
    }

    /// IP_DROP_MEMBERSHIP, IPV6_LEAVE_GROUP, MCAST_LEAVE_GROUP.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` when the socket is no member, `EINVAL` and `ENODEV` as for joining.
    pub(super) fn leave_group(&mut self, id: SocketId, group: IpAddr, on: On) -> Result<()> {
        let found = match group {
            IpAddr::V4(_) => self.group_iface(group, on),
            IpAddr::V6(_) if !group.is_multicast() => return Err(Errno::EINVAL),
            IpAddr::V6(_) => Some(on.ifindex).filter(|ifindex| *ifindex != 0),
        };
        if group.is_ipv4() && found.is_none() && on == On::index(0) {
            return Err(Errno::ENODEV);
        }
        let memberships = &mut self.sockets.get_mut(id.0).ok_or(Errno::EBADF)?.memberships;
        let at = memberships.iter().position(|held| {
            held.group == group
                && match found.or(Some(on.ifindex).filter(|ifindex| *ifindex != 0)) {
                    Some(ifindex) => held.ifindex == ifindex,
                    None => on.addr.is_unspecified() || held.named_by == on.addr,
                }
        });
        let Membership { group, ifindex, .. } = memberships.remove(at.ok_or(Errno::EADDRNOTAVAIL)?);
        self.net.leave(ifindex, group);
        Ok(())
    }

    /// The socket goes.
    pub(super) fn leave_all(&mut self, id: SocketId) {
        for Membership { group, ifindex, .. } in std::mem::take(&mut self.sockets[id.0].memberships) {
            self.net.leave(ifindex, group);
        }
    }

    /// The interface for a group: the one that is named by index or address, else the one to which a route leads.
    fn group_iface(&self, group: IpAddr, on: On) -> Option<u32> {
        let tables = &self.net.tables;
        if on.ifindex != 0 {
            return tables.iface(on.ifindex).map(|iface| iface.index());
        }
        if !on.addr.is_unspecified() {
            return tables.is_local(on.addr.into(), None).map(|local| local.ifindex);
        }
        tables.route(group, None, None).ok().map(|path| path.ifindex)
    }
}

/// Whether an address is a group's that never leaves the node (RFC 4291 §2.7.1).
pub(super) fn is_node_local(group: Ipv6Addr) -> bool {
    group.octets()[1] & 0x0f <= 1
}
