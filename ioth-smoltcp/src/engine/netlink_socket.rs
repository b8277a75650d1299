//! Netlink sockets of the node (netlink(7)): what is written is a request, what is read is the answer.

use std::collections::VecDeque;

use ioth_core::{Errno, Events, MsgFlags, RecvMsg, Result, SendMsg, SockAddr};

use super::sockets::Kind;
use super::{Engine, SocketId, scatter};

/// Answers that wait to be read, in bytes; beyond, `ENOBUFS` tells that some were lost (netlink(7)).
const MAX_QUEUED: usize = 4 << 20;

/// A netlink socket.
#[derive(Debug, Default)]
pub(crate) struct Netlink {
    /// `nl_pid`; 0 until bound.
    port: u32,
    /// Multicast groups, a bit each.
    groups: u32,
    peer: u32,
    queue: VecDeque<Vec<u8>>,
    queued: usize,
    /// NETLINK_EXT_ACK
    extended_ack: bool,
    /// Something was lost: told once.
    overrun: bool,
}

impl Netlink {
    pub(crate) fn events(&self) -> Events {
        let mut events = Events::OUT;
        if !self.queue.is_empty() {
            events |= Events::IN;
        }
        if self.overrun {
            events |= Events::ERR;
        }
        events
    }

    pub(crate) fn local_addr(&self) -> SockAddr {
        SockAddr::Netlink { port: self.port, groups: self.groups }
    }

    pub(crate) fn peer_addr(&self) -> SockAddr {
        SockAddr::Netlink { port: self.peer, groups: 0 }
    }

    fn push(&mut self, message: Vec<u8>) {
        if self.queued + message.len() > MAX_QUEUED {
            self.overrun = true;
            return;
        }
        self.queued += message.len();
        self.queue.push_back(message);
    }
}

impl Engine {
    pub(super) fn netlink_bind(&mut self, id: SocketId, addr: &SockAddr) -> Result<()> {
        let SockAddr::Netlink { port, groups } = *addr else { return Err(Errno::EINVAL) };
        let taken = port != 0 && self.netlinks().any(|(other, netlink)| other != id && netlink.port == port);
        if taken {
            return Err(Errno::EADDRINUSE);
        }
        let mine = self.netlink_mut(id)?.port;
        if mine != 0 && port != mine && port != 0 {
            return Err(Errno::EINVAL);
        }
        let port = if port != 0 { port } else { self.netlink_port(id)? };
        let netlink = self.netlink_mut(id)?;
        (netlink.port, netlink.groups) = (port, groups);
        self.watch_tables();
        Ok(())
    }

    pub(super) fn netlink_connect(&mut self, id: SocketId, addr: &SockAddr) -> Result<()> {
        let peer = match *addr {
            SockAddr::Unspecified => 0,
            SockAddr::Netlink { port, groups: 0 } => port,
            SockAddr::Netlink { .. } => return Err(Errno::EPERM),
            _ => return Err(Errno::EINVAL),
        };
        let port = self.netlink_port(id)?;
        let netlink = self.netlink_mut(id)?;
        (netlink.port, netlink.peer) = (port, peer);
        Ok(())
    }

    /// The port of a socket; chosen as Linux does when it has none.
    fn netlink_port(&mut self, id: SocketId) -> Result<u32> {
        let mine = self.netlink_mut(id)?.port;
        if mine != 0 {
            return Ok(mine);
        }
        let mut port = std::process::id();
        while self.netlinks().any(|(_, netlink)| netlink.port == port) {
            // Linux takes numbers from -4096 downwards when the process id is taken.
            port = (self.net.random.next_u64() as u32) | 0x8000_0000;
        }
        Ok(port)
    }

    pub(super) fn netlink_send(&mut self, id: SocketId, message: &SendMsg<'_>) -> Result<usize> {
        let to = match message.addr {
            None => self.netlink_mut(id)?.peer,
            Some(SockAddr::Netlink { port, .. }) => *port,
            Some(_) => return Err(Errno::EINVAL),
        };
        // Between sockets nothing is passed on: only the node itself (port 0) listens.
        if to != 0 {
            return Err(Errno::ECONNREFUSED);
        }
        let port = self.netlink_port(id)?;
        let netlink = self.netlink_mut(id)?;
        netlink.port = port;
        let extended_ack = netlink.extended_ack;
        let request: Vec<u8> = message.data.iter().flat_map(|slice| slice.iter().copied()).collect();
        let answers = self.netlink_serve(&request, port, extended_ack);
        let netlink = self.netlink_mut(id)?;
        for answer in answers {
            netlink.push(answer);
        }
        self.touch(id);
        Ok(request.len())
    }

    pub(super) fn netlink_recv(
        &mut self,
        id: SocketId,
        message: &mut RecvMsg<'_, '_>,
        flags: MsgFlags,
    ) -> Result<usize> {
        let netlink = self.netlink_mut(id)?;
        if std::mem::take(&mut netlink.overrun) {
            self.touch(id);
            return Err(Errno::ENOBUFS);
        }
        let front = netlink.queue.front().ok_or(Errno::EAGAIN)?;
        let len = front.len();
        let copied = scatter(front, message.data);
        if copied < len {
            message.flags |= MsgFlags::TRUNC;
        }
        message.addr = Some(SockAddr::Netlink { port: 0, groups: 0 });
        if !flags.contains(MsgFlags::PEEK) {
            netlink.queue.pop_front();
            netlink.queued -= len;
            self.touch(id);
        }
        Ok(if flags.contains(MsgFlags::TRUNC) { len } else { copied })
    }

    pub(super) fn netlink_set_option(&mut self, id: SocketId, name: i32, value: &[u8]) -> Result<()> {
        let number = value.get(..4).ok_or(Errno::EINVAL)?;
        let number = i32::from_ne_bytes(number.try_into().map_err(|_| Errno::EINVAL)?);
        let netlink = self.netlink_mut(id)?;
        let group = || (1..=32).contains(&number).then(|| 1u32 << (number - 1)).ok_or(Errno::EINVAL);
        match name {
            libc::NETLINK_EXT_ACK => netlink.extended_ack = number != 0,
            libc::NETLINK_ADD_MEMBERSHIP => netlink.groups |= group()?,
            libc::NETLINK_DROP_MEMBERSHIP => netlink.groups &= !group()?,
            // Accepted and without effect, as the answers have the strict form anyhow.
            libc::NETLINK_CAP_ACK | libc::NETLINK_GET_STRICT_CHK => {}
            _ => return Err(Errno::ENOPROTOOPT),
        }
        self.watch_tables();
        Ok(())
    }

    pub(super) fn netlink_option(&mut self, id: SocketId, name: i32, value: &mut [u8]) -> Result<usize> {
        let number = match name {
            libc::NETLINK_EXT_ACK => i32::from(self.netlink_mut(id)?.extended_ack),
            _ => return Err(Errno::ENOPROTOOPT),
        };
        let n = value.len().min(4);
        value[..n].copy_from_slice(&number.to_ne_bytes()[..n]);
        Ok(n)
    }

    pub(super) fn netlink_release(&mut self, _id: SocketId) {}

    fn netlinks(&self) -> impl Iterator<Item = (SocketId, &Netlink)> {
        self.sockets.iter().filter_map(|(at, sock)| match &sock.kind {
            Kind::Netlink(netlink) => Some((SocketId(at), netlink)),
            _ => None,
        })
    }

    fn netlink_mut(&mut self, id: SocketId) -> Result<&mut Netlink> {
        match self.sockets.get_mut(id.0).map(|sock| &mut sock.kind) {
            Some(Kind::Netlink(netlink)) => Ok(netlink),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// The tables keep a list of changes only while somebody listens to one of the groups.
    fn watch_tables(&mut self) {
        let watched = self.netlinks().any(|(_, netlink)| netlink.groups != 0);
        self.net.tables.watch(watched);
    }

    fn netlink_serve(&mut self, _request: &[u8], _port: u32, _extended_ack: bool) -> Vec<Vec<u8>> {
        Vec::new()
    }
}
