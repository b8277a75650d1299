//! Filters on sockets: SO_ATTACH_FILTER and its kin (socket(7)).
//!
//! The C option's value is a `struct sock_fprog`, which holds a pointer. Here, and in every call of this project that
//! takes bytes, it is what the pointer leads to: the array of `struct sock_filter`. Only a caller that has the pointer
//! from C may follow it.

use std::net::IpAddr;

use ioth_core::{Errno, Result};

use super::{Filter, INSTRUCTION_SIZE, Packet};
use crate::engine::packet::{ethertype_of, hardware_type};
use crate::engine::wire::IpHeader;
use crate::engine::{Engine, SocketId};

/// A socket's filter.
#[derive(Debug, Default)]
pub(crate) struct Attached {
    filter: Option<Filter>,
    /// SO_LOCK_FILTER: it stays.
    locked: bool,
}

impl Attached {
    /// How many bytes of a packet the socket gets. Without a filter nobody asks what the packet is.
    pub(crate) fn run<'a>(&self, packet: impl FnOnce() -> Packet<'a>) -> usize {
        match &self.filter {
            None => usize::MAX,
            Some(filter) => filter.run(&packet()) as usize,
        }
    }
}

impl Engine {
    /// Runs the filter of a socket of IP over a packet, of which its own view begins at `start`: how many bytes from there
    /// on it gets, `least` at the least. `None`: nothing.
    pub(in crate::engine) fn filter_ip(
        &mut self,
        id: SocketId,
        ifindex: u32,
        header: &IpHeader,
        packet: &[u8],
        (start, least): (usize, usize),
    ) -> Option<usize> {
        let len = packet.len().saturating_sub(start);
        let (tables, random) = (&self.net.tables, &mut self.net.random);
        let keep = self.sockets.get(id.0)?.attached.run(|| Packet {
            bytes: packet,
            start,
            link: None,
            network: 0,
            protocol: ethertype_of(packet),
            kind: match header.dst {
                IpAddr::V4(dst) if tables.is_broadcast(dst, ifindex) => libc::PACKET_BROADCAST,
                dst if dst.is_multicast() => libc::PACKET_MULTICAST,
                _ => libc::PACKET_HOST,
            },
            ifindex,
            hatype: hardware_type(tables.iface(ifindex)),
            random: random.next_u64() as u32,
        });
        (keep > 0).then_some(keep.max(least).min(len))
    }

    /// SO_ATTACH_FILTER: the program, instead of the one that there was.
    ///
    /// # Errors
    /// `EPERM` when the filter is locked, `EINVAL` for a program that Linux would refuse.
    pub(in crate::engine) fn attach_filter(&mut self, id: SocketId, program: &[u8]) -> Result<()> {
        let attached = self.attached_mut(id)?;
        if attached.locked {
            return Err(Errno::EPERM);
        }
        attached.filter = Some(Filter::parse(program)?);
        Ok(())
    }

    /// SO_DETACH_FILTER.
    ///
    /// # Errors
    /// `EPERM` when the filter is locked, `ENOENT` when there is none.
    pub(in crate::engine) fn detach_filter(&mut self, id: SocketId) -> Result<()> {
        let attached = self.attached_mut(id)?;
        if attached.locked {
            return Err(Errno::EPERM);
        }
        attached.filter.take().map(drop).ok_or(Errno::ENOENT)
    }

    /// SO_LOCK_FILTER: the filter, or that there is none, can no longer be changed.
    ///
    /// # Errors
    /// `EPERM` for taking the lock back.
    pub(in crate::engine) fn lock_filter(&mut self, id: SocketId, lock: bool) -> Result<()> {
        let attached = self.attached_mut(id)?;
        if attached.locked && !lock {
            return Err(Errno::EPERM);
        }
        attached.locked = lock;
        Ok(())
    }

    /// Whether the filter is locked.
    pub(in crate::engine) fn filter_locked(&mut self, id: SocketId) -> Result<bool> {
        Ok(self.attached_mut(id)?.locked)
    }

    /// SO_GET_FILTER: the program, and its length in bytes. Without room for an instruction only the length.
    ///
    /// # Errors
    /// `EINVAL` when there is some room, but too little.
    pub(in crate::engine) fn attached_filter(&mut self, id: SocketId, value: &mut [u8]) -> Result<usize> {
        let program = self.attached_mut(id)?.filter.as_ref().map(Filter::to_bytes).unwrap_or_default();
        if value.len() >= INSTRUCTION_SIZE {
            value.get_mut(..program.len()).ok_or(Errno::EINVAL)?.copy_from_slice(&program);
        }
        Ok(program.len())
    }

    /// Streams and netlink sockets have no filters here.
    fn attached_mut(&mut self, id: SocketId) -> Result<&mut Attached> {
        let sock = self.sockets.get_mut(id.0).ok_or(Errno::EBADF)?;
        if sock.takes_filters() { Ok(&mut sock.attached) } else { Err(Errno::ENOPROTOOPT) }
    }
}
