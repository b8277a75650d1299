//! PACKET_ADD_MEMBERSHIP and PACKET_DROP_MEMBERSHIP: frames that an interface would not take by itself.

use std::collections::BTreeSet;

use ioth_core::{Errno, MacAddr, Result};

use crate::engine::{Engine, SocketId};

/// Memberships of one socket at most; Linux ends when it finds no memory, with the same error.
const MAX_MEMBERSHIPS: usize = 1024;
/// Length of an Ethernet address, in bytes.
const ADDRESS: usize = 6;

/// `struct packet_mreq`, and how often it was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Membership {
    ifindex: u32,
    what: What,
    count: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// PACKET_MR_MULTICAST, PACKET_MR_UNICAST: one more address.
    Address(u16, MacAddr),
    /// PACKET_MR_PROMISC: every frame.
    Everything,
    /// PACKET_MR_ALLMULTI: every frame to a group.
    EveryGroup,
    /// Linux takes and ignores types that it does not know; they differ by their bytes.
    Other(u16, [u8; 8]),
}

/// What the memberships of all sockets come to. Sets, so that counting anew gives the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listening {
    everything: BTreeSet<u32>,
    every_group: BTreeSet<u32>,
    addresses: BTreeSet<(u32, MacAddr)>,
}

impl Listening {
    /// Whether a link has to deliver more than the interface's own address and groups.
    pub(crate) fn is_open(&self, ifindex: u32) -> bool {
        self.everything.contains(&ifindex) || self.every_group.contains(&ifindex)
    }

    /// Further addresses that an interface takes.
    pub(crate) fn addresses(&self, ifindex: u32) -> impl Iterator<Item = MacAddr> + '_ {
        self.addresses.iter().filter(move |(of, _)| *of == ifindex).map(|(_, mac)| *mac)
    }

    pub(super) fn takes(&self, ifindex: u32, to: MacAddr) -> bool {
        self.everything.contains(&ifindex)
            || (to.is_group() && self.every_group.contains(&ifindex))
            || self.addresses.contains(&(ifindex, to))
    }

    pub(super) fn add(&mut self, membership: &Membership) {
        let ifindex = membership.ifindex;
        match membership.what {
            What::Address(_, mac) => drop(self.addresses.insert((ifindex, mac))),
            What::Everything => drop(self.everything.insert(ifindex)),
            What::EveryGroup => drop(self.every_group.insert(ifindex)),
            What::Other(..) => {}
        }
    }
}

impl Engine {
    /// PACKET_ADD_MEMBERSHIP, from a `struct packet_mreq`.
    ///
    /// # Errors
    /// `EINVAL` for a structure or an address of a wrong length, `ENODEV`, `ENOBUFS` for too many.
    pub(super) fn packet_join(&mut self, id: SocketId, value: &[u8]) -> Result<()> {
        let (ifindex, what) = read(value)?;
        if self.net.tables.iface(ifindex).is_none() {
            return Err(Errno::ENODEV);
        }
        let what = what?;
        let memberships = &mut self.packets_mut(id)?.memberships;
        match position(memberships, ifindex, what) {
            Some(at) => memberships[at].count = memberships[at].count.saturating_add(1),
            None if memberships.len() >= MAX_MEMBERSHIPS => return Err(Errno::ENOBUFS),
            None => memberships.push(Membership { ifindex, what, count: 1 }),
        }
        self.packet_taps();
        Ok(())
    }

    /// PACKET_DROP_MEMBERSHIP. Linux: what was not joined is left without complaint.
    ///
    /// # Errors
    /// `EINVAL` for a structure of a wrong length.
    pub(super) fn packet_leave(&mut self, id: SocketId, value: &[u8]) -> Result<()> {
        let (ifindex, what) = read(value)?;
        let memberships = &mut self.packets_mut(id)?.memberships;
        let Some(at) = what.ok().and_then(|what| position(memberships, ifindex, what)) else { return Ok(()) };
        memberships[at].count -= 1;
        if memberships[at].count == 0 {
            memberships.swap_remove(at);
        }
        self.packet_taps();
        Ok(())
    }
}

fn position(memberships: &[Membership], ifindex: u32, what: What) -> Option<usize> {
    memberships.iter().position(|membership| (membership.ifindex, membership.what) == (ifindex, what))
}

/// Reads a `struct packet_mreq`. The inner error is about the address.
fn read(value: &[u8]) -> Result<(u32, Result<What>)> {
    let mreq: &[u8; 16] = value.get(..16).and_then(|bytes| bytes.try_into().ok()).ok_or(Errno::EINVAL)?;
    let [i0, i1, i2, i3, t0, t1, l0, l1, address @ ..] = *mreq;
    let ifindex = u32::from_ne_bytes([i0, i1, i2, i3]);
    let (kind, len) = (u16::from_ne_bytes([t0, t1]), usize::from(u16::from_ne_bytes([l0, l1])));
    // Linux's structure for longer addresses has no member longer than 32 bytes; Ethernet has six.
    if 8 + len > value.len() {
        return Err(Errno::EINVAL);
    }
    let what = match i32::from(kind) {
        _ if len > ADDRESS => Err(Errno::EINVAL),
        libc::PACKET_MR_PROMISC => Ok(What::Everything),
        libc::PACKET_MR_ALLMULTI => Ok(What::EveryGroup),
        libc::PACKET_MR_MULTICAST | PACKET_MR_UNICAST if len != ADDRESS => Err(Errno::EINVAL),
        libc::PACKET_MR_MULTICAST | PACKET_MR_UNICAST => {
            let [a, b, c, d, e, f, ..] = address;
            Ok(What::Address(kind, MacAddr([a, b, c, d, e, f])))
        }
        _ => Ok(What::Other(kind, address)),
    };
    Ok((ifindex, what))
}

/// linux/if_packet.h; libc lacks it.
const PACKET_MR_UNICAST: i32 = 3;
