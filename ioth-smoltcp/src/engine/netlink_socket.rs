//! Netlink sockets of the node (netlink(7)): what is written is a request, what is read is the answer.
//!
//! The dialogue itself is [`crate::netlink`]'s; here are the sockets: ports, queues, groups.

use std::collections::VecDeque;

use ioth_core::{Errno, Events, MacAddr, MsgFlags, RecvMsg, Result, SendMsg, SockAddr};
use ioth_vde::Properties;

use super::neigh::{self, Neighbours};
use super::net::{Net, Port};
use super::random::Random;
use super::sockets::Kind;
use super::tables::Tables;
use super::{Engine, SocketId, scatter};
use crate::netlink::{self, Event, Host, LinkStats, Neighbour, NewLink, Session};

/// Answers that wait to be read, in bytes; beyond, `ENOBUFS` tells that some were lost (netlink(7)).
const MAX_QUEUED: usize = 1 << 20;

/// Interfaces that come and go by netlink, and the links behind them.
#[derive(Debug, Default)]
pub(crate) struct Plugs {
    offered: Option<Result<Properties>>,
    changes: Vec<Plug>,
}

/// An interface that came or went by netlink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plug {
    /// With the link that was offered.
    Made(u32),
    Removed(u32),
}

/// A netlink socket.
#[derive(Debug)]
pub(crate) struct Netlink {
    session: Session,
    /// `nl_pid`; 0 until bound.
    port: u32,
    /// Multicast groups, a bit each.
    groups: u32,
    peer: u32,
    queue: VecDeque<Message>,
    queued: usize,
    /// Something was lost: told once.
    overrun: bool,
}

#[derive(Debug)]
struct Message {
    bytes: Vec<u8>,
    /// The group it was sent to; 0 for an answer.
    groups: u32,
}

impl Default for Netlink {
    fn default() -> Self {
        Netlink {
            session: Session::new(0),
            port: 0,
            groups: 0,
            peer: 0,
            queue: VecDeque::new(),
            queued: 0,
            overrun: false,
        }
    }
}

impl Netlink {
    pub(crate) fn events(&self) -> Events {
        let mut events = Events::OUT;
        if !self.queue.is_empty() || self.session.is_dumping() {
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

    fn set_port(&mut self, port: u32) {
        self.port = port;
        self.session.set_port(port);
    }

    fn push(&mut self, bytes: Vec<u8>, groups: u32) {
        if self.queued + bytes.len() > MAX_QUEUED {
            self.overrun = true;
            return;
        }
        self.queued += bytes.len();
        self.queue.push_back(Message { bytes, groups });
    }
}

/// What the server shows and changes of the node beside its tables.
struct NodeHost<'a> {
    neighbours: &'a mut Neighbours,
    ports: &'a mut Vec<Option<Box<Port>>>,
    plugs: &'a mut Plugs,
    random: &'a mut Random,
}

impl Host for NodeHost<'_> {
    fn link_stats(&self, ifindex: u32) -> LinkStats {
        let port = self.ports.get(ifindex as usize).and_then(Option::as_deref);
        let counters = port.map(|port| port.counters).unwrap_or_default();
        LinkStats {
            rx_packets: counters.rx_frames,
            tx_packets: counters.tx_frames,
            rx_bytes: counters.rx_bytes,
            tx_bytes: counters.tx_bytes,
            rx_errors: counters.rx_bad_length,
            tx_errors: counters.tx_bad_length,
            rx_dropped: counters.rx_overrun,
            tx_dropped: counters.tx_down,
            multicast: 0,
        }
    }

    fn neighbours(&self) -> Vec<Neighbour> {
        let entry = |((ifindex, addr), mac, state): (neigh::Key, _, _)| {
            let (state, known) = match state {
                neigh::State::Incomplete { .. } => (libc::NUD_INCOMPLETE, false),
                neigh::State::Reachable { .. } => (libc::NUD_REACHABLE, true),
                neigh::State::Stale => (libc::NUD_STALE, true),
                neigh::State::Delay { .. } => (libc::NUD_DELAY, true),
                neigh::State::Probe { .. } => (libc::NUD_PROBE, true),
            };
            Neighbour { ifindex, addr, mac: known.then_some(mac), state, flags: 0 }
        };
        self.neighbours.iter().map(entry).collect()
    }

    fn link_changed(&mut self, _tables: &Tables, ifindex: u32) {
        // Linux forgets the neighbours of an interface that goes down or gets another address.
        self.neighbours.flush(ifindex);
    }

    fn create_link(&mut self, tables: &mut Tables, link: &NewLink<'_>) -> Result<u32> {
        if link.kind != netlink::VDE {
            return Err(Errno::EOPNOTSUPP);
        }
        // Whoever calls the engine has opened the link, or knows why it cannot be.
        let properties = self.plugs.offered.take().ok_or(Errno::EINVAL)??;
        let mac = link.mac.unwrap_or_else(|| {
            let random = self.random.next_u64().to_ne_bytes();
            MacAddr::local(*random.first_chunk().expect("eight bytes"))
        });
        let (mtu, name) = (link.mtu.unwrap_or(properties.mtu), link.name.unwrap_or("vde%d"));
        let ifindex = tables.add_iface(name, mac, mtu, properties.mtu)?;
        Net::plug(self.ports, ifindex, properties);
        self.plugs.changes.push(Plug::Made(ifindex));
        Ok(ifindex)
    }

    fn delete_link(&mut self, tables: &mut Tables, ifindex: u32) -> Result<()> {
        tables.del_iface(ifindex)?;
        self.neighbours.flush(ifindex);
        if let Some(port) = self.ports.get_mut(ifindex as usize) {
            *port = None;
        }
        self.plugs.changes.push(Plug::Removed(ifindex));
        Ok(())
    }
}

/// Lends the tables and the rest of layer 3 to the server at the same time.
fn with_host<R>(net: &mut Net, f: impl FnOnce(&mut Tables, &mut NodeHost<'_>) -> R) -> R {
    let Net { tables, neighbours, ports, plugs, random, .. } = net;
    f(tables, &mut NodeHost { neighbours, ports, plugs, random })
}

impl Engine {
    /// The VNL of the interface that a request asks for, if the first message in `request` makes one of kind `vde`: the
    /// caller is to open it, and to [offer](Self::offer_link) it before the message is sent.
    pub(crate) fn wanted_link<'a>(&self, request: &'a [u8]) -> Option<&'a str> {
        netlink::wanted_link(&self.net.tables, request)
    }

    /// What a link that was opened for the next message can carry, or why it could not be opened. `None` takes back
    /// what nobody wanted.
    pub(crate) fn offer_link(&mut self, offered: Option<Result<Properties>>) {
        self.net.plugs.offered = offered;
    }

    /// Interfaces that were made with an offered link, and those that were removed, since the last call.
    pub(crate) fn take_plugs(&mut self) -> Vec<Plug> {
        std::mem::take(&mut self.net.plugs.changes)
    }

    pub(super) fn netlink_bind(&mut self, id: SocketId, addr: &SockAddr) -> Result<()> {
        let SockAddr::Netlink { port, groups } = *addr else { return Err(Errno::EINVAL) };
        let mine = self.netlink_mut(id)?.port;
        if mine != 0 && port != mine && port != 0 {
            return Err(Errno::EINVAL);
        }
        let taken = port != 0 && self.netlinks().any(|(other, netlink)| other != id && netlink.port == port);
        if taken {
            return Err(Errno::EADDRINUSE);
        }
        let port = if port != 0 { port } else { self.netlink_port(id)? };
        let netlink = self.netlink_mut(id)?;
        netlink.set_port(port);
        netlink.groups = groups;
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
        netlink.set_port(port);
        netlink.peer = peer;
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
        if message.len() > netlink::MAX_REQUEST {
            return Err(Errno::EMSGSIZE);
        }
        let port = self.netlink_port(id)?;
        let request: Vec<u8> = message.data.iter().flat_map(|slice| slice.iter().copied()).collect();
        let Kind::Netlink(netlink) = &mut self.sockets[id.0].kind else { return Err(Errno::EOPNOTSUPP) };
        netlink.set_port(port);
        let session = &mut netlink.session;
        let outcome = with_host(&mut self.net, |tables, host| session.request(tables, host, &request));
        for reply in outcome.replies {
            netlink.push(reply, 0);
        }
        self.touch(id);
        self.netlink_publish(outcome.events, outcome.overrun);
        Ok(request.len())
    }

    /// Tells the listeners of what changed by itself: a link that went down, an address that expired.
    pub(super) fn netlink_events(&mut self) {
        let (events, overrun) = with_host(&mut self.net, |tables, host| netlink::events(tables, host, 0, 0));
        self.netlink_publish(events, overrun);
    }

    fn netlink_publish(&mut self, events: Vec<Event>, overrun: bool) {
        if events.is_empty() && !overrun {
            return;
        }
        let listeners: Vec<_> =
            self.netlinks().filter(|(_, netlink)| netlink.groups != 0).map(|(id, _)| id).collect();
        for id in listeners {
            let Ok(netlink) = self.netlink_mut(id) else { continue };
            for event in &events {
                let bit = 1u32.checked_shl(event.group.wrapping_sub(1)).unwrap_or(0);
                if netlink.groups & bit != 0 {
                    netlink.push(event.message.clone(), bit);
                }
            }
            netlink.overrun |= overrun;
            self.touch(id);
        }
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
        // The next part of a dump is made when the last one was read.
        if netlink.queue.is_empty() && netlink.session.is_dumping() {
            let Kind::Netlink(netlink) = &mut self.sockets[id.0].kind else { return Err(Errno::EOPNOTSUPP) };
            let session = &mut netlink.session;
            let room = message.capacity();
            let part = with_host(&mut self.net, |tables, host| session.next_part(tables, host, room));
            if let Some(part) = part {
                netlink.push(part, 0);
            }
        }
        let netlink = self.netlink_mut(id)?;
        let front = netlink.queue.front().ok_or(Errno::EAGAIN)?;
        let len = front.bytes.len();
        let copied = scatter(&front.bytes, message.data);
        if copied < len {
            message.flags |= MsgFlags::TRUNC;
        }
        message.addr = Some(SockAddr::Netlink { port: 0, groups: front.groups });
        if !flags.contains(MsgFlags::PEEK) {
            netlink.queue.pop_front();
            netlink.queued -= len;
            self.touch(id);
        }
        Ok(if flags.contains(MsgFlags::TRUNC) { len } else { copied })
    }

    pub(super) fn netlink_set_option(&mut self, id: SocketId, name: i32, value: &[u8]) -> Result<()> {
        // netlink_setsockopt(): what is too short stands for 0.
        let number = value.first_chunk::<4>().map_or(0, |number| i32::from_ne_bytes(*number));
        let netlink = self.netlink_mut(id)?;
        let group = || (1..=32).contains(&number).then(|| 1u32 << (number - 1)).ok_or(Errno::EINVAL);
        match name {
            libc::NETLINK_EXT_ACK => netlink.session.ext_ack = number != 0,
            libc::NETLINK_CAP_ACK => netlink.session.cap_ack = number != 0,
            libc::NETLINK_GET_STRICT_CHK => netlink.session.strict = number != 0,
            libc::NETLINK_ADD_MEMBERSHIP => netlink.groups |= group()?,
            libc::NETLINK_DROP_MEMBERSHIP => netlink.groups &= !group()?,
            _ => return Err(Errno::ENOPROTOOPT),
        }
        self.watch_tables();
        Ok(())
    }

    pub(super) fn netlink_option(&mut self, id: SocketId, name: i32, value: &mut [u8]) -> Result<usize> {
        let number = match name {
            libc::NETLINK_EXT_ACK => i32::from(self.netlink_mut(id)?.session.ext_ack),
            libc::NETLINK_CAP_ACK => i32::from(self.netlink_mut(id)?.session.cap_ack),
            libc::NETLINK_GET_STRICT_CHK => i32::from(self.netlink_mut(id)?.session.strict),
            _ => return Err(Errno::ENOPROTOOPT),
        };
        let n = value.len().min(4);
        value[..n].copy_from_slice(&number.to_ne_bytes()[..n]);
        Ok(n)
    }

    pub(super) fn netlink_release(&mut self, id: SocketId) {
        if let Ok(netlink) = self.netlink_mut(id) {
            netlink.groups = 0;
        }
        self.watch_tables();
    }

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
}
