//! UDP (RFC 768, RFC 8085, udp(7)) and UDP-Lite (RFC 3828, udplite(7)): addresses and calls. What is sent is in `send`, what
//! arrives in `input`. The two differ in whose ports they have and in what a checksum covers.

mod input;
mod send;

use std::net::SocketAddr;

use ioth_core::{Domain, Errno, Events, MsgFlags, RecvMsg, Result};

use super::datagram::Inbox;
use super::ports::Space;
use super::sockets::Kind;
use super::{Engine, SocketId};
use send::Cork;

/// A datagram socket.
#[derive(Debug)]
pub(crate) struct Datagrams {
    /// UDP's or UDP-Lite's.
    pub(crate) space: Space,
    /// The local address. Without a port, it is what a dissolved association left of bind(2)'s.
    pub(crate) bound: Option<SocketAddr>,
    /// The address was chosen by connect(2) and goes with it.
    addr_by_connect: bool,
    /// bind(2) named the port. One that was chosen goes when the association is dissolved.
    port_by_user: bool,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) inbox: Inbox,
    shut_read: bool,
    shut_write: bool,
    /// The datagram that is being put together.
    cork: Option<Box<Cork>>,
    pub(crate) coverage: Coverage,
}

/// What checksums of UDP-Lite cover, in bytes with the header; 0 is all. What was never set asks for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Coverage {
    /// UDPLITE_SEND_CSCOV
    pub(crate) send: Option<u16>,
    /// UDPLITE_RECV_CSCOV: what is covered less is dropped.
    pub(crate) receive: Option<u16>,
}

impl Datagrams {
    pub(crate) fn new(space: Space) -> Self {
        Datagrams {
            space,
            bound: None,
            addr_by_connect: false,
            port_by_user: false,
            peer: None,
            inbox: Inbox::default(),
            shut_read: false,
            shut_write: false,
            cork: None,
            coverage: Coverage::default(),
        }
    }

    /// The number that socket(2) was given.
    pub(crate) fn protocol(&self) -> i32 {
        if self.space == Space::UdpLite { libc::IPPROTO_UDPLITE } else { libc::IPPROTO_UDP }
    }

    /// The poll bits, as Linux's udp_poll() has them, without a pending error.
    pub(crate) fn events(&self) -> Events {
        let mut events = Events::OUT;
        if self.shut_read {
            events |= Events::IN | Events::RDHUP;
        }
        if self.shut_read && self.shut_write {
            events |= Events::HUP;
        }
        if !self.inbox.is_empty() {
            events |= Events::IN;
        }
        events
    }

    pub(super) fn has_port(&self) -> bool {
        self.bound.is_some_and(|addr| addr.port() != 0)
    }

    /// Length of the datagram that is next: FIONREAD.
    pub(crate) fn next_len(&self) -> usize {
        self.inbox.next_len()
    }
}

impl Engine {
    pub(super) fn udp_bind(&mut self, id: SocketId, addr: SocketAddr) -> Result<()> {
        let datagrams = self.datagrams_mut(id)?;
        if datagrams.has_port() {
            return Err(Errno::EINVAL);
        }
        let space = datagrams.space;
        let port = self.bind_port(space, id, addr)?;
        let datagrams = self.datagrams_mut(id)?;
        datagrams.bound = Some(SocketAddr::new(addr.ip(), port));
        datagrams.port_by_user = addr.port() != 0;
        Ok(())
    }

    pub(super) fn udp_connect(&mut self, id: SocketId, peer: SocketAddr) -> Result<()> {
        self.connect_scope(id, peer)?;
        let bound = self.datagrams_mut(id)?.bound;
        let way = self.way(id, peer, bound.map(|addr| addr.ip()), &[])?;
        let source = way.source;
        self.udp_autobind(id)?;
        let datagrams = self.datagrams_mut(id)?;
        let peer = SocketAddr::new(way.destination, peer.port());
        datagrams.peer = Some(peer);
        // Linux keeps both in one place, for IPv4: what is being put together goes to the new peer.
        if let Some(cork) = datagrams.cork.as_mut().filter(|_| peer.is_ipv4()) {
            cork.redirect(way, peer.port());
        }
        let Some(bound) = &mut datagrams.bound else { return Ok(()) };
        if bound.ip().is_unspecified() {
            bound.set_ip(source);
            datagrams.addr_by_connect = true;
        }
        let (space, bound) = (datagrams.space, *bound);
        self.ports.update(space, bound.port(), id, |binding| {
            binding.addr = bound.ip();
            binding.dual = false;
            binding.peer = Some(peer);
        });
        Ok(())
    }

    /// connect(2) with AF_UNSPEC: no peer any more, nor what was chosen for it (`__udp_disconnect`).
    pub(super) fn udp_disconnect(&mut self, id: SocketId) -> Result<()> {
        self.set_device(id, None);
        let sock = &self.sockets[id.0];
        let wildcard = sock.wildcard();
        let dual = sock.domain == Domain::INET6 && !sock.options.v6_only;
        let datagrams = self.datagrams_mut(id)?;
        datagrams.peer = None;
        let by_connect = std::mem::take(&mut datagrams.addr_by_connect);
        let Some(bound) = &mut datagrams.bound else { return Ok(()) };
        if by_connect {
            bound.set_ip(wildcard);
        }
        let (space, port) = (datagrams.space, bound.port());
        if !datagrams.port_by_user {
            bound.set_port(0);
            self.ports.unbind(space, port, id);
        } else {
            self.ports.update(space, port, id, |binding| {
                binding.peer = None;
                if by_connect {
                    binding.addr = wildcard;
                    binding.dual = dual;
                }
            });
        }
        Ok(())
    }

    pub(super) fn udp_recv(
        &mut self,
        id: SocketId,
        message: &mut RecvMsg<'_, '_>,
        flags: MsgFlags,
    ) -> Result<usize> {
        let epoch = self.net.epoch;
        let sock = &mut self.sockets[id.0];
        if let Some(error) = sock.error.take() {
            self.touch(id);
            return Err(error);
        }
        let Kind::Datagrams(datagrams) = &mut sock.kind else { return Err(Errno::EOPNOTSUPP) };
        let Some(len) = datagrams.inbox.receive(sock.domain, &sock.options, epoch, message, flags) else {
            // Linux: only a call that would wait finds the end.
            let ended = datagrams.shut_read && !flags.contains(MsgFlags::DONTWAIT);
            return if ended { Ok(0) } else { Err(Errno::EAGAIN) };
        };
        if datagrams.inbox.is_empty() {
            self.touch(id);
        }
        Ok(len)
    }

    pub(super) fn udp_shutdown(&mut self, id: SocketId, read: bool, write: bool) -> Result<()> {
        let datagrams = self.datagrams_mut(id)?;
        let connected = datagrams.peer.is_some();
        datagrams.shut_read |= read;
        datagrams.shut_write |= write;
        self.touch(id);
        // Linux's inet_shutdown() shuts all the same: who waits to receive hears of it.
        if connected { Ok(()) } else { Err(Errno::ENOTCONN) }
    }

    pub(super) fn udp_release(&mut self, id: SocketId) {
        if let Ok(datagrams) = self.datagrams_mut(id)
            && let Some(bound) = datagrams.bound.take()
        {
            let space = datagrams.space;
            self.ports.unbind(space, bound.port(), id);
        }
    }

    fn udp_autobind(&mut self, id: SocketId) -> Result<()> {
        let wildcard = SocketAddr::new(self.sockets[id.0].wildcard(), 0);
        let datagrams = self.datagrams_mut(id)?;
        if !datagrams.has_port() {
            let addr = datagrams.bound.unwrap_or(wildcard);
            // Linux: no free port is EAGAIN for a datagram socket.
            self.udp_bind(id, addr).map_err(|_| Errno::EAGAIN)?;
        }
        Ok(())
    }

    fn datagrams_mut(&mut self, id: SocketId) -> Result<&mut Datagrams> {
        match self.sockets.get_mut(id.0).map(|sock| &mut sock.kind) {
            Some(Kind::Datagrams(datagrams)) => Ok(datagrams),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }
}
