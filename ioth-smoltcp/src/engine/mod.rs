//! The engine: one node's brain, without I/O.
//!
//! Frames go in ([`Engine::handle_frame`]) and come out ([`Engine::take_egress`]), sockets are called, time is told by
//! whoever calls. There is no thread, no clock, no descriptor and no global in here, and what is random comes from a
//! seed: a thousand engines run in one test, in virtual time, the same way each time.
//!
//! # Order of calls
//! 1. [`set_now`](Engine::set_now), before anything that time matters for.
//! 2. Any number of [`handle_frame`](Engine::handle_frame) and socket calls.
//! 3. [`poll`](Engine::poll): what was put off is done (acknowledgements go out once a batch), and the next deadline
//!    is told.
//! 4. [`take_egress`](Engine::take_egress) for every interface, [`take_changed`](Engine::take_changed) for the sockets whose
//!    poll bits changed.
//!
//! ```text
//!      handle_frame                       take_egress
//!          │                                   ▲
//!   Ethernet ─ ARP, ND ───────────────── Net::output ─ neighbours
//!          │                                   ▲
//!      IPv4, IPv6 ─ ICMP ──────────────────────┤
//!          │                                   │
//!      TCP (one smoltcp socket each), UDP ─────┘
//! ```

pub mod addr;
mod icmp;
pub mod iface;
mod limit;
mod neigh;
mod net;
mod netlink_socket;
mod offload;
mod options;
mod ports;
mod random;
pub mod route;
mod sockets;
pub mod tables;
mod tcp;
mod timer;
mod udp;
mod wire;

#[cfg(test)]
mod tests;

use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr};

use ioth_core::{
    Domain, Errno, Events, MacAddr, MsgFlags, RecvMsg, Result, SendMsg, Shutdown, SockAddr, SocketType,
};
use ioth_vde::{Batch, Checksum, Counters, Frame, Properties};
use slab::Slab;
use smoltcp::wire::IpProtocol;

pub use net::Drops;
pub use smoltcp::time::Instant;

use icmp::Unreachable;
use iface::LOOPBACK;
use net::{ETHERNET_HEADER, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Net};
use netlink_socket::Netlink;
use ports::Ports;
use random::Random;
use sockets::{Kind, Options, Sock};
use tables::Tables;
use tcp::{Stream, Tcp};
use timer::Timers;
use udp::Datagrams;
use wire::{IpError, IpHeader};

/// Names a socket of an engine until it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub(crate) usize);

impl SocketId {
    /// A small number, unique among the open sockets of its engine.
    pub fn index(self) -> usize {
        self.0
    }
}

/// Sockets of one engine at most, those in the kernel's hands included (RLIMIT_NOFILE bounds a process's own).
const MAX_SOCKETS: usize = 1 << 20;

/// One node. See the [module](self).
#[derive(Debug)]
pub struct Engine {
    net: Net,
    sockets: Slab<Sock>,
    ports: Ports,
    tcp: Tcp,
    timers: Timers,
    stamps: u64,
    /// Sockets whose poll bits may have changed.
    touched: Vec<SocketId>,
    /// Connections that may have something to send.
    dirty: Vec<SocketId>,
    /// Sockets that wait for a link to take frames again.
    stalled: Vec<SocketId>,
    changed: Vec<(SocketId, Events)>,
    /// The interface of the packet that is being looked at.
    arrived_by: u32,
}

impl Engine {
    /// A node with its loopback interface and nothing else. The seed feeds sequence numbers, ports and hash keys: from
    /// the system's generator in earnest, any constant in a test.
    pub fn new(seed: [u8; 32]) -> Self {
        let mut random = Random::new(seed);
        let (ports, tcp) = (Ports::new(random.next_u64()), Tcp::new(random.next_u64()));
        Engine {
            net: Net::new(random, Instant::ZERO),
            sockets: Slab::new(),
            ports,
            tcp,
            timers: Timers::default(),
            stamps: 0,
            touched: Vec::new(),
            dirty: Vec::new(),
            stalled: Vec::new(),
            changed: Vec::new(),
            arrived_by: 0,
        }
    }

    /// Tells the time, which never goes back.
    pub fn set_now(&mut self, now: Instant) {
        if now > self.net.now {
            self.net.now = now;
        }
    }

    /// Adds an Ethernet interface, down, and returns its index.
    ///
    /// # Errors
    /// See [`Tables::add_iface`].
    pub fn add_interface(
        &mut self,
        name: &str,
        mac: MacAddr,
        properties: Properties,
    ) -> Result<u32, iface::IfaceError> {
        let ifindex = self.net.tables.add_iface(name, mac, properties.mtu, properties.mtu)?;
        self.net.add_port(ifindex, properties);
        Ok(ifindex)
    }

    /// Interfaces, addresses and routes.
    pub fn tables(&self) -> &Tables {
        &self.net.tables
    }

    /// The same, to be changed.
    pub fn tables_mut(&mut self) -> &mut Tables {
        &mut self.net.tables
    }

    /// Sockets that there are, connections that wait in listeners included.
    pub fn socket_count(&self) -> usize {
        self.sockets.len()
    }

    /// What was dropped, by name.
    pub fn drops(&self) -> Drops {
        self.net.drops
    }

    /// What went through an interface.
    pub fn counters(&self, ifindex: u32) -> Option<Counters> {
        self.net.port(ifindex).map(|port| port.counters)
    }

    /// A frame arrived on an interface.
    pub fn handle_frame(&mut self, ifindex: u32, mut frame: Frame) {
        let up = self.net.tables.iface(ifindex).filter(|iface| iface.is_up()).map(|iface| iface.mac());
        let (Some(mac), Some(port)) = (up, self.net.port_mut(ifindex)) else {
            self.net.drops.interface += 1;
            return;
        };
        if frame.len() < ETHERNET_HEADER {
            port.counters.rx_bad_length += 1;
            return;
        }
        port.counters.rx_frames += 1;
        port.counters.rx_bytes += frame.len() as u64;
        let destination = MacAddr(frame[..6].try_into().expect("six bytes"));
        if destination != mac
            && destination != MacAddr::BROADCAST
            && !(destination.is_group() && self.net.tables.wants_group(destination, ifindex))
        {
            self.net.drops.not_ours += 1;
            return;
        }
        let ethertype = u16::from_be_bytes([frame[12], frame[13]]);
        frame.pull_front(ETHERNET_HEADER);
        match ethertype {
            ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => self.ip_input(ifindex, frame),
            ETHERTYPE_ARP => self.net.input_arp(ifindex, &frame),
            _ => self.net.drops.not_ours += 1,
        }
    }

    /// Does what was put off and what is due, and tells when there will be more to do.
    ///
    /// `None`: nothing before a frame or a call.
    pub fn poll(&mut self) -> Option<Instant> {
        self.net.poll_neighbours();
        self.neighbours_failed();
        while let Some((id, stamp)) = self.timers.pop_due(self.net.now) {
            if self.sockets.get(id.0).is_some_and(|sock| sock.stamp == stamp) {
                self.tcp_timer(id);
            }
        }
        self.tcp_flush();
        // What we send to ourselves arrives at once; it may make us send again.
        while let Some(packet) = self.net.looped.pop_front() {
            self.ip_input(LOOPBACK, packet);
            if self.net.looped.is_empty() {
                self.neighbours_failed();
                self.tcp_flush();
            }
        }
        self.netlink_events();
        self.tell_changes();
        [self.timers.next(), self.net.neighbours.next_deadline()].into_iter().flatten().min()
    }

    /// Moves the frames that wait for an interface's link behind those in `batch`.
    pub fn take_egress(&mut self, ifindex: u32, batch: &mut Batch) {
        if let Some(port) = self.net.port_mut(ifindex) {
            if batch.is_empty() {
                std::mem::swap(batch, &mut port.egress);
            } else {
                batch.append(&mut port.egress);
            }
        }
    }

    /// Tells whether an interface's link takes frames. While it doesn't, senders have to wait.
    pub fn set_blocked(&mut self, ifindex: u32, blocked: bool) {
        if let Some(port) = self.net.port_mut(ifindex) {
            port.blocked = blocked;
        }
        if !blocked {
            self.resume();
        }
    }

    /// Sockets that had to wait try again.
    pub fn resume(&mut self) {
        for id in std::mem::take(&mut self.stalled) {
            let Some(sock) = self.sockets.get_mut(id.0) else { continue };
            sock.stalled = false;
            let stream = matches!(sock.kind, Kind::Stream(_));
            self.touch(id);
            if stream {
                self.requeue(id);
            }
        }
    }

    /// Whether a socket waits for a link.
    pub fn has_stalled(&self) -> bool {
        !self.stalled.is_empty()
    }

    /// Moves the sockets whose poll bits changed, with their bits, behind those in `changed`.
    pub fn take_changed(&mut self, changed: &mut Vec<(SocketId, Events)>) {
        changed.append(&mut self.changed);
    }

    /// Opens a socket, as socket(2).
    ///
    /// # Errors
    /// `EAFNOSUPPORT`, `ESOCKTNOSUPPORT`, `EPROTONOSUPPORT`, `ENFILE`.
    pub fn socket(&mut self, domain: Domain, kind: SocketType, protocol: i32) -> Result<SocketId> {
        let kind = match (domain, kind) {
            (Domain::INET | Domain::INET6, SocketType::STREAM) => match protocol {
                0 | libc::IPPROTO_TCP => Kind::Stream(Stream::default()),
                _ => return Err(Errno::EPROTONOSUPPORT),
            },
            (Domain::INET | Domain::INET6, SocketType::DGRAM) => match protocol {
                0 | libc::IPPROTO_UDP => Kind::Datagrams(Datagrams::default()),
                _ => return Err(Errno::EPROTONOSUPPORT),
            },
            (Domain::INET | Domain::INET6, _) => return Err(Errno::ESOCKTNOSUPPORT),
            (Domain::NETLINK, SocketType::RAW | SocketType::DGRAM) => match protocol {
                libc::NETLINK_ROUTE => Kind::Netlink(Netlink::default()),
                _ => return Err(Errno::EPROTONOSUPPORT),
            },
            (Domain::NETLINK, _) => return Err(Errno::ESOCKTNOSUPPORT),
            _ => return Err(Errno::EAFNOSUPPORT),
        };
        if self.sockets.len() >= MAX_SOCKETS {
            return Err(Errno::ENFILE);
        }
        Ok(self.insert(domain, kind, Options::default()))
    }

    /// bind(2).
    pub fn bind(&mut self, id: SocketId, addr: &SockAddr) -> Result<()> {
        let sock = self.sock(id)?;
        if let Kind::Netlink(_) = sock.kind {
            return self.netlink_bind(id, addr);
        }
        let domain = sock.domain;
        let addr = match addr {
            SockAddr::Ip(addr) => *addr,
            // Linux: AF_UNSPEC with the wildcard address is taken for AF_INET.
            SockAddr::Unspecified if domain == Domain::INET => SocketAddr::from(([0, 0, 0, 0], 0)),
            _ => return Err(if domain == Domain::INET { Errno::EAFNOSUPPORT } else { Errno::EINVAL }),
        };
        let addr = self.family(id, addr, Errno::EAFNOSUPPORT)?;
        let scope = scope_id(addr);
        if is_scoped(addr.ip()) && scope.is_none() && self.sockets[id.0].options.device.is_none() {
            return Err(Errno::EINVAL);
        }
        let ip = addr.ip();
        let group = ip.is_multicast() || matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
        let datagrams = matches!(self.sockets[id.0].kind, Kind::Datagrams(_));
        if !(ip.is_unspecified()
            || self.net.tables.is_local(ip, scope).is_some()
            || (datagrams && (group || self.is_subnet_broadcast(ip))))
        {
            return Err(Errno::EADDRNOTAVAIL);
        }
        match self.sockets[id.0].kind {
            Kind::Stream(_) => self.tcp_bind(id, addr),
            Kind::Datagrams(_) => self.udp_bind(id, addr),
            Kind::Netlink(_) => Err(Errno::EINVAL),
        }
    }

    /// connect(2). For a stream `EINPROGRESS` means that it has begun: `OUT`, `ERR` or `HUP` tells the end.
    pub fn connect(&mut self, id: SocketId, addr: &SockAddr) -> Result<()> {
        match (&self.sock(id)?.kind, addr) {
            (Kind::Netlink(_), _) => self.netlink_connect(id, addr),
            (Kind::Datagrams(_), SockAddr::Unspecified) => self.udp_disconnect(id),
            (Kind::Stream(_), SockAddr::Unspecified) => Err(Errno::EAFNOSUPPORT),
            (Kind::Stream(_), _) => {
                let remote = self.destination(id, addr)?;
                self.tcp_connect(id, remote)
            }
            (Kind::Datagrams(_), _) => {
                let remote = self.destination(id, addr)?;
                self.udp_connect(id, remote)
            }
        }
    }

    /// listen(2).
    pub fn listen(&mut self, id: SocketId, backlog: i32) -> Result<()> {
        match self.sock(id)?.kind {
            Kind::Stream(_) => self.tcp_listen(id, backlog),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// accept(2) without waiting: the connection and its peer, or `EAGAIN`.
    pub fn accept(&mut self, id: SocketId) -> Result<(SocketId, SockAddr)> {
        match self.sock(id)?.kind {
            Kind::Stream(_) => {
                let (child, remote) = self.tcp_accept(id)?;
                Ok((child, self.presented(child, remote)))
            }
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// sendmsg(2) without waiting.
    pub fn send(&mut self, id: SocketId, message: &SendMsg<'_>) -> Result<usize> {
        match self.sock(id)?.kind {
            // tcp(7), send(2): a destination is ignored or EISCONN; Linux ignores it.
            Kind::Stream(_) => self.tcp_send(id, message.data),
            Kind::Datagrams(_) => self.udp_send(id, message),
            Kind::Netlink(_) => self.netlink_send(id, message),
        }
    }

    /// recvmsg(2) without waiting.
    pub fn recv(&mut self, id: SocketId, message: &mut RecvMsg<'_, '_>, flags: MsgFlags) -> Result<usize> {
        message.flags = MsgFlags::empty();
        message.control_len = 0;
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EINVAL);
        }
        match self.sock(id)?.kind {
            Kind::Stream(_) => self.tcp_recv(id, message.data, flags.contains(MsgFlags::PEEK)),
            Kind::Datagrams(_) => self.udp_recv(id, message, flags),
            Kind::Netlink(_) => self.netlink_recv(id, message, flags),
        }
    }

    /// getsockname(2).
    pub fn local_addr(&self, id: SocketId) -> Result<SockAddr> {
        let sock = self.sock(id)?;
        let local = match &sock.kind {
            Kind::Stream(_) => self.tcp_local(id),
            Kind::Datagrams(datagrams) => datagrams.bound,
            Kind::Netlink(netlink) => return Ok(netlink.local_addr()),
        };
        Ok(match local {
            Some(local) => self.presented(id, local),
            None => SockAddr::Ip(SocketAddr::new(sock.wildcard(), 0)),
        })
    }

    /// getpeername(2).
    pub fn peer_addr(&self, id: SocketId) -> Result<SockAddr> {
        let peer = match &self.sock(id)?.kind {
            Kind::Stream(_) => self.tcp_peer(id)?,
            Kind::Datagrams(datagrams) => datagrams.peer.ok_or(Errno::ENOTCONN)?,
            Kind::Netlink(netlink) => return Ok(netlink.peer_addr()),
        };
        Ok(self.presented(id, peer))
    }

    /// shutdown(2).
    pub fn shutdown(&mut self, id: SocketId, how: Shutdown) -> Result<()> {
        match self.sock(id)?.kind {
            Kind::Stream(_) => self.tcp_shutdown(id, how.read(), how.write()),
            Kind::Datagrams(_) => self.udp_shutdown(id, how.read(), how.write()),
            Kind::Netlink(_) => Err(Errno::EOPNOTSUPP),
        }
    }

    /// The user is gone. The id must not be used any more.
    pub fn close(&mut self, id: SocketId) {
        match self.sockets.get(id.0).map(|sock| &sock.kind) {
            Some(Kind::Stream(_)) => self.tcp_close(id),
            Some(_) => self.remove(id),
            None => {}
        }
    }

    /// The poll bits of a socket now.
    pub fn events(&self, id: SocketId) -> Events {
        self.sockets.get(id.0).map_or(Events::empty(), Sock::poll)
    }

    /// Whether a TCP connection attempt is still under way.
    pub fn connecting(&self, id: SocketId) -> bool {
        let events = self.events(id);
        !events.intersects(Events::OUT | Events::ERR | Events::HUP)
    }

    /// SO_ERROR: the pending error, which is then forgotten.
    pub fn take_error(&mut self, id: SocketId) -> Option<Errno> {
        let error = self.sockets.get_mut(id.0)?.error.take();
        if error.is_some() {
            self.touch(id);
        }
        error
    }

    /// An IP packet without its Ethernet header.
    fn ip_input(&mut self, ifindex: u32, mut packet: Frame) {
        let verify = packet.checksum == Checksum::Present;
        let header = match wire::parse_ip(&packet, verify) {
            Ok(header) => header,
            Err(IpError::UnknownOption { pointer, answer_multicast }) => {
                return self.unknown_option(&packet, pointer, answer_multicast);
            }
            Err(IpError::Malformed | IpError::Discard) => {
                self.net.drops.malformed += 1;
                return;
            }
        };
        // RFC 1122 §3.2.1.3, RFC 4291 §2.5.3 and §2.7: what may not be a source, or only within the node.
        let outside = ifindex != LOOPBACK;
        let loopback = header.src.is_loopback() || header.dst.is_loopback();
        let broadcast = matches!(header.src, IpAddr::V4(v4) if v4.is_broadcast());
        if header.src.is_multicast() || broadcast || (loopback && outside) {
            self.net.drops.martian += 1;
            return;
        }
        self.arrived_by = ifindex;
        let unicast = match self.net.tables.is_local(header.dst, Some(ifindex)) {
            Some(_) => true,
            None if header.dst.is_multicast() => {
                if !self.net.tables.is_member(header.dst, ifindex) {
                    self.net.drops.not_ours += 1;
                    return;
                }
                false
            }
            None => {
                if !matches!(header.dst, IpAddr::V4(v4) if self.net.tables.is_broadcast(v4, ifindex)) {
                    self.net.drops.not_ours += 1;
                    return;
                }
                false
            }
        };
        if header.fragment {
            self.net.drops.fragments += 1;
            return;
        }
        if verify && !wire::verify_checksum(&packet, &header) {
            self.net.drops.checksum += 1;
            return;
        }
        packet.truncate(header.total_len);
        match header.protocol {
            IpProtocol::Tcp if unicast && !header.src.is_unspecified() => {
                self.tcp_input(ifindex, &header, packet)
            }
            IpProtocol::Tcp => self.net.drops.martian += 1,
            IpProtocol::Udp => self.udp_input(ifindex, &header, packet, unicast),
            IpProtocol::Icmp if header.src.is_ipv4() => self.icmp_input(ifindex, &header, packet, unicast),
            IpProtocol::Icmpv6 if header.src.is_ipv6() => self.icmp_input(ifindex, &header, packet, unicast),
            // RFC 8200 §4.7: "no next header" is nothing to complain about.
            IpProtocol::Ipv6NoNxt => {}
            _ if unicast => {
                self.net.drops.no_socket += 1;
                // RFC 8200 §4: the pointer names the field that holds the unknown number.
                self.unreachable(&packet, &header, Unreachable::Protocol(next_header_at(&packet, &header)));
            }
            _ => self.net.drops.no_socket += 1,
        }
    }

    /// RFC 8200 §4.2: the sender of an option that is not known wants to hear of it.
    fn unknown_option(&mut self, packet: &Frame, pointer: u32, answer_multicast: bool) {
        self.net.drops.malformed += 1;
        let (Ok(src), Ok(dst)) =
            (<[u8; 16]>::try_from(&packet[8..24]), <[u8; 16]>::try_from(&packet[24..40]))
        else {
            return;
        };
        let header = IpHeader {
            src: IpAddr::from(src),
            dst: IpAddr::from(dst),
            protocol: IpProtocol::Ipv6NoNxt,
            payload_at: wire::IPV6_HEADER,
            total_len: packet.len(),
            hop_limit: packet[7],
            traffic_class: 0,
            fragment: false,
        };
        if !header.dst.is_multicast() || answer_multicast {
            self.unreachable(packet, &header, Unreachable::Option(pointer));
        }
    }

    fn insert(&mut self, domain: Domain, kind: Kind, options: Options) -> SocketId {
        self.stamps += 1;
        let mut sock = Sock {
            domain,
            kind,
            options,
            error: None,
            stamp: self.stamps,
            touched: false,
            events: Events::empty(),
            was_connected: false,
            stalled: false,
        };
        sock.events = sock.poll();
        SocketId(self.sockets.insert(sock))
    }

    /// Forgets a socket and everything that leads to it.
    fn remove(&mut self, id: SocketId) {
        if self.sockets.contains(id.0) {
            self.release(id);
            self.sockets.remove(id.0);
        }
    }

    fn release(&mut self, id: SocketId) {
        match self.sockets[id.0].kind {
            Kind::Stream(_) => self.tcp_release(id),
            Kind::Datagrams(_) => self.udp_release(id),
            Kind::Netlink(_) => self.netlink_release(id),
        }
    }

    fn sock(&self, id: SocketId) -> Result<&Sock> {
        self.sockets.get(id.0).ok_or(Errno::EBADF)
    }

    /// Has a socket's poll bits looked at before control goes back.
    fn touch(&mut self, id: SocketId) {
        if let Some(sock) = self.sockets.get_mut(id.0)
            && !std::mem::replace(&mut sock.touched, true)
        {
            self.touched.push(id);
        }
    }

    fn tell_changes(&mut self) {
        for id in self.touched.drain(..) {
            let Some(sock) = self.sockets.get_mut(id.0) else { continue };
            sock.touched = false;
            let events = sock.poll();
            if events != sock.events {
                sock.events = events;
                self.changed.push((id, events));
            }
        }
    }

    /// A datagram socket has to wait for the link.
    fn stall(&mut self, id: SocketId) {
        if !std::mem::replace(&mut self.sockets[id.0].stalled, true) {
            self.stalled.push(id);
        }
        self.touch(id);
    }

    /// A connection that waited for its link is still marked dirty: back into the list.
    fn requeue(&mut self, id: SocketId) {
        self.dirty.push(id);
    }

    /// A destination in the form in which it travels: IPv4 for an IPv4-mapped address.
    fn destination(&self, id: SocketId, addr: &SockAddr) -> Result<SocketAddr> {
        match addr {
            SockAddr::Ip(addr) => self.family(id, *addr, Errno::ENETUNREACH),
            _ => Err(Errno::EAFNOSUPPORT),
        }
    }

    /// Checks an address against the socket's family and unmaps it. `v6_only` is the error for a mapped one.
    fn family(&self, id: SocketId, addr: SocketAddr, v6_only: Errno) -> Result<SocketAddr> {
        let sock = self.sock(id)?;
        match (sock.domain, addr) {
            (Domain::INET, SocketAddr::V4(_)) => Ok(addr),
            (Domain::INET6, SocketAddr::V6(v6)) if v6.ip().to_ipv4_mapped().is_some() => {
                if sock.options.v6_only { Err(v6_only) } else { Ok(ioth_core::addr::unmap(addr)) }
            }
            (Domain::INET6, SocketAddr::V6(_)) => Ok(addr),
            // Linux's inet6 sockets take sockaddr_in in connect and sendto, where they may be dual.
            (Domain::INET6, SocketAddr::V4(_)) if v6_only == Errno::ENETUNREACH && !sock.options.v6_only => {
                Ok(addr)
            }
            (Domain::INET6, SocketAddr::V4(_)) => Err(Errno::EINVAL),
            _ => Err(Errno::EAFNOSUPPORT),
        }
    }

    /// An address in the form in which the user of a socket sees it.
    fn presented(&self, id: SocketId, addr: SocketAddr) -> SockAddr {
        match self.sockets.get(id.0).map(|sock| sock.domain) {
            Some(Domain::INET6) => SockAddr::Ip(ioth_core::addr::map(addr)),
            _ => SockAddr::Ip(addr),
        }
    }

    /// The interface that a destination is on, by its scope id or SO_BINDTODEVICE. A link-local one needs it.
    fn scope_of(&self, id: SocketId, remote: SocketAddr) -> Result<Option<u32>> {
        let sock = self.sock(id)?;
        let bound = match &sock.kind {
            Kind::Datagrams(datagrams) => datagrams.bound.and_then(scope_id),
            _ => None,
        };
        let scope = scope_id(remote).filter(|_| is_scoped(remote.ip()));
        match (scope, sock.options.device) {
            (Some(scope), Some(device)) if scope != device => Err(Errno::EINVAL),
            (Some(scope), _) => Ok(Some(scope)),
            (None, Some(device)) => Ok(Some(device)),
            (None, None) if is_scoped(remote.ip()) && !remote.ip().is_multicast() => match bound {
                Some(scope) => Ok(Some(scope)),
                None if self.net.tables.is_local(remote.ip(), None).is_some() => Ok(None),
                None => Err(Errno::EINVAL),
            },
            (None, None) => Ok(None),
        }
    }

    fn is_subnet_broadcast(&self, ip: IpAddr) -> bool {
        let IpAddr::V4(v4) = ip else { return false };
        self.net.tables.ifaces().any(|iface| self.net.tables.is_broadcast(v4, iface.index()))
    }
}

/// Link-local, unicast or multicast: it means something on one link only (RFC 4007).
fn is_scoped(ip: IpAddr) -> bool {
    let group = matches!(ip, IpAddr::V6(v6) if v6.is_multicast() && v6.octets()[1] & 0x0f == 2);
    group || addr::is_link_local(ip)
}

fn scope_id(addr: SocketAddr) -> Option<u32> {
    match addr {
        SocketAddr::V6(v6) => Some(v6.scope_id()).filter(|scope| *scope != 0),
        SocketAddr::V4(_) => None,
    }
}

/// Where in the packet the number of the upper layer's protocol stands.
fn next_header_at(packet: &[u8], header: &IpHeader) -> u32 {
    if header.src.is_ipv4() || header.payload_at == wire::IPV6_HEADER {
        return 6;
    }
    let (mut at, mut field) = (wire::IPV6_HEADER, 6);
    while at < header.payload_at {
        field = at as u32;
        at += (usize::from(packet.get(at + 1).copied().unwrap_or(0)) + 1) * 8;
    }
    field
}

/// Copies into several buffers: the number of bytes that found room.
fn scatter(from: &[u8], to: &mut [IoSliceMut<'_>]) -> usize {
    let mut copied = 0;
    for slice in to {
        let n = slice.len().min(from.len() - copied);
        slice[..n].copy_from_slice(&from[copied..copied + n]);
        copied += n;
    }
    copied
}
