//! Berkeley's calls, none of which waits: dispatch by kind of socket, and what addresses mean.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ioth_core::{Domain, Errno, Events, MsgFlags, RecvMsg, Result, SendMsg, Shutdown, SockAddr, SocketType};

use super::addr::is_link_local;
use super::datagram::{Notice, SendControl};
use super::netlink_socket::Netlink;
use super::packet::Packets;
use super::ping::Ping;
use super::ports::Space;
use super::raw::{Raw, is_shared};
use super::sockets::{Kind, Options, Sock};
use super::tcp::Stream;
use super::udp::Datagrams;
use super::{Engine, MAX_SOCKETS, SocketId};

/// What an address was given for: the errors for one that the socket cannot use differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Bind,
    Connect,
    Send,
}

impl Engine {
    /// Opens a socket, as socket(2).
    ///
    /// # Errors
    /// `EAFNOSUPPORT`, `ESOCKTNOSUPPORT`, `EPROTONOSUPPORT`, `EINVAL`, `ENFILE`.
    pub fn socket(&mut self, domain: Domain, kind: SocketType, protocol: i32) -> Result<SocketId> {
        // Linux's inet_create(): IPPROTO_MAX is one above IPPROTO_MPTCP.
        if matches!(domain, Domain::INET | Domain::INET6) && !(0..=libc::IPPROTO_MPTCP).contains(&protocol) {
            return Err(Errno::EINVAL);
        }
        let kind = match (domain, kind) {
            (Domain::INET | Domain::INET6, SocketType::STREAM) => match protocol {
                0 | libc::IPPROTO_TCP => Kind::Stream(Stream::default()),
                _ => return Err(Errno::EPROTONOSUPPORT),
            },
            (Domain::INET | Domain::INET6, SocketType::DGRAM) => match protocol {
                0 | libc::IPPROTO_UDP => Kind::Datagrams(Datagrams::new(Space::Udp)),
                libc::IPPROTO_UDPLITE => Kind::Datagrams(Datagrams::new(Space::UdpLite)),
                libc::IPPROTO_ICMP if domain == Domain::INET => Kind::Ping(Ping::default()),
                libc::IPPROTO_ICMPV6 if domain == Domain::INET6 => Kind::Ping(Ping::default()),
                _ => return Err(Errno::EPROTONOSUPPORT),
            },
            (Domain::INET | Domain::INET6, SocketType::RAW) => match protocol {
                0 => return Err(Errno::EPROTONOSUPPORT),
                _ => Kind::Raw(Raw::new(domain, protocol as u16)),
            },
            (Domain::INET | Domain::INET6, _) => return Err(Errno::ESOCKTNOSUPPORT),
            (Domain::NETLINK, SocketType::RAW | SocketType::DGRAM) => match protocol {
                libc::NETLINK_ROUTE => Kind::Netlink(Netlink::default()),
                _ => return Err(Errno::EPROTONOSUPPORT),
            },
            // socket(2): the protocol of a packet socket is in network byte order.
            (Domain::PACKET, SocketType::RAW | SocketType::DGRAM) => {
                Kind::Packets(Packets::new(kind == SocketType::DGRAM, u16::from_be(protocol as u16)))
            }
            (Domain::NETLINK | Domain::PACKET, _) => return Err(Errno::ESOCKTNOSUPPORT),
            _ => return Err(Errno::EAFNOSUPPORT),
        };
        if self.sockets.len() >= MAX_SOCKETS {
            return Err(Errno::ENFILE);
        }
        let mut options = Options::default();
        // Linux: inet6_create() leaves IP_MULTICAST_ALL off.
        options.v4_group.all = domain == Domain::INET;
        // Linux: INET_PROTOSW_REUSE of these.
        options.reuse_addr = matches!(kind, Kind::Raw(_) | Kind::Ping(_));
        let id = self.insert(domain, kind, options);
        match self.sockets[id.0].kind {
            Kind::Packets(_) => self.packet_opened(),
            Kind::Raw(_) => self.raw_opened(id),
            _ => {}
        }
        Ok(id)
    }

    /// bind(2).
    pub fn bind(&mut self, id: SocketId, addr: &SockAddr) -> Result<()> {
        let sock = self.sock(id)?;
        match sock.kind {
            Kind::Netlink(_) => return self.netlink_bind(id, addr),
            Kind::Packets(_) => return self.packet_bind(id, addr),
            Kind::Raw(_) => return self.raw_bind(id, addr),
            Kind::Ping(_) => return self.ping_bind(id, addr),
            _ => {}
        }
        let domain = sock.domain;
        let addr = match addr {
            SockAddr::Ip(addr) => *addr,
            // Linux: AF_UNSPEC with the wildcard address is taken for AF_INET.
            SockAddr::Unspecified if domain == Domain::INET => SocketAddr::from(([0, 0, 0, 0], 0)),
            _ => return Err(if domain == Domain::INET { Errno::EAFNOSUPPORT } else { Errno::EINVAL }),
        };
        let addr = self.family(id, addr, Use::Bind)?;
        let ip = addr.ip();
        let stream = matches!(self.sockets[id.0].kind, Kind::Stream(_));
        // Linux's __inet6_bind(); a group of IPv4 is an address like others there.
        if stream && ip.is_ipv6() && ip.is_multicast() {
            return Err(Errno::EINVAL);
        }
        if is_scoped(ip) {
            if self.has_name(id) {
                return Err(Errno::EINVAL);
            }
            let device = scope_id(addr).or(self.sockets[id.0].options.device).ok_or(Errno::EINVAL)?;
            self.net.tables.iface(device).ok_or(Errno::ENODEV)?;
            self.set_device(id, Some(device));
        }
        if !(ip.is_unspecified()
            || self.sockets[id.0].options.free_bind
            || self.owns(ip, self.sockets[id.0].options.device)
            || self.is_for_many(ip))
        {
            return Err(Errno::EADDRNOTAVAIL);
        }
        match self.sockets[id.0].kind {
            Kind::Stream(_) => self.tcp_bind(id, addr),
            Kind::Datagrams(_) => self.udp_bind(id, addr),
            Kind::Netlink(_) | Kind::Packets(_) | Kind::Raw(_) | Kind::Ping(_) => Err(Errno::EINVAL),
        }
    }

    /// connect(2). For a stream `EINPROGRESS` means that it has begun: `OUT`, `ERR` or `HUP` tells the end.
    pub fn connect(&mut self, id: SocketId, addr: &SockAddr) -> Result<()> {
        match (&self.sock(id)?.kind, addr) {
            (Kind::Netlink(_), _) => self.netlink_connect(id, addr),
            (Kind::Packets(_), _) => Err(Errno::EOPNOTSUPP),
            (Kind::Raw(_), SockAddr::Unspecified) => self.raw_disconnect(id),
            (Kind::Raw(_), _) => self.endpoint_connect(id, addr),
            (Kind::Ping(_), SockAddr::Unspecified) => self.ping_disconnect(id),
            (Kind::Ping(_), _) => self.ping_connect(id, addr),
            (Kind::Datagrams(_), SockAddr::Unspecified) => self.udp_disconnect(id),
            (Kind::Stream(_), SockAddr::Unspecified) => self.tcp_disconnect(id),
            (Kind::Stream(_), _) => {
                let remote = self.destination(id, addr, Use::Connect)?;
                self.tcp_connect(id, remote)
            }
            (Kind::Datagrams(_), _) => {
                let remote = self.destination(id, addr, Use::Connect)?;
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
    pub fn send(&mut self, id: SocketId, message: &SendMsg<'_>, flags: MsgFlags) -> Result<usize> {
        match self.sock(id)?.kind {
            // tcp(7), send(2): a destination is ignored or EISCONN; Linux ignores it.
            Kind::Stream(_) => self.tcp_send(id, message, flags),
            Kind::Datagrams(_) => self.udp_send(id, message, flags),
            Kind::Netlink(_) if flags.contains(MsgFlags::OOB) => Err(Errno::EOPNOTSUPP),
            Kind::Netlink(_) => {
                SendControl::check_netlink(message.control)?;
                self.netlink_send(id, message)
            }
            Kind::Packets(_) => self.packet_send(id, message),
            Kind::Raw(_) => self.raw_send(id, message, flags),
            Kind::Ping(_) => self.ping_send(id, message, flags),
        }
    }

    /// recvmsg(2) without waiting.
    pub fn recv(&mut self, id: SocketId, message: &mut RecvMsg<'_, '_>, flags: MsgFlags) -> Result<usize> {
        message.flags = MsgFlags::empty();
        message.control_len = 0;
        let kind = &self.sock(id)?.kind;
        if flags.contains(MsgFlags::OOB) {
            match kind {
                Kind::Stream(stream) if stream.listening() => return Err(Errno::ENOTCONN),
                Kind::Stream(_) | Kind::Packets(_) => return Err(Errno::EINVAL),
                Kind::Netlink(_) | Kind::Raw(_) | Kind::Ping(_) => return Err(Errno::EOPNOTSUPP),
                // Linux: UDP does not look at it.
                Kind::Datagrams(_) => {}
            }
        }
        if flags.contains(MsgFlags::ERRQUEUE) && !matches!(kind, Kind::Netlink(_)) {
            return self.error_recv(id, message);
        }
        match kind {
            Kind::Stream(_) => self.tcp_recv(id, message, flags),
            Kind::Datagrams(_) => self.udp_recv(id, message, flags),
            Kind::Netlink(_) => self.netlink_recv(id, message, flags),
            Kind::Packets(_) => self.packet_recv(id, message, flags),
            Kind::Raw(_) | Kind::Ping(_) => self.endpoint_recv(id, message, flags),
        }
    }

    /// recvmsg(2) with MSG_ERRQUEUE. An error that was read is pending no more, and the next one is.
    fn error_recv(&mut self, id: SocketId, message: &mut RecvMsg<'_, '_>) -> Result<usize> {
        let sock = &mut self.sockets[id.0];
        let len = sock.errors.receive(sock.domain, &sock.options, message).ok_or(Errno::EAGAIN)?;
        sock.error = sock.errors.next();
        self.touch(id);
        Ok(len)
    }

    /// An ICMP error for a socket that wants to hear of all; `payload` is what is left of the packet that it is about.
    pub(super) fn error_push(&mut self, id: SocketId, notice: &Notice, to: SocketAddr, payload: &[u8]) {
        let sock = &mut self.sockets[id.0];
        if !sock.errors.push(notice, to, payload, &sock.options) {
            self.net.drops.receive_buffer += 1;
        }
        self.sockets[id.0].error = Some(notice.errno);
        self.touch(id);
    }

    /// getsockname(2).
    pub fn local_addr(&self, id: SocketId) -> Result<SockAddr> {
        let sock = self.sock(id)?;
        let local = match &sock.kind {
            Kind::Stream(_) => self.tcp_local(id),
            Kind::Datagrams(datagrams) => datagrams.bound,
            Kind::Netlink(netlink) => return Ok(netlink.local_addr()),
            Kind::Packets(_) => return self.packet_local(id),
            Kind::Raw(raw) => {
                Some(SocketAddr::new(raw.endpoint.local.unwrap_or(sock.wildcard()), raw.port()))
            }
            Kind::Ping(ping) => {
                Some(SocketAddr::new(ping.endpoint.local.unwrap_or(sock.wildcard()), ping.ident))
            }
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
            Kind::Packets(_) => return Err(Errno::EOPNOTSUPP),
            // Linux: port 0 is no peer.
            Kind::Raw(Raw { endpoint, .. }) | Kind::Ping(Ping { endpoint, .. }) => {
                endpoint.peer.filter(|peer| peer.port() != 0).ok_or(Errno::ENOTCONN)?
            }
        };
        Ok(self.presented(id, peer))
    }

    /// shutdown(2).
    pub fn shutdown(&mut self, id: SocketId, how: Shutdown) -> Result<()> {
        match self.sock(id)?.kind {
            Kind::Stream(_) => self.tcp_shutdown(id, how.read(), how.write()),
            Kind::Datagrams(_) => self.udp_shutdown(id, how.read(), how.write()),
            Kind::Raw(_) | Kind::Ping(_) => self.endpoint_shutdown(id, how.read(), how.write()),
            Kind::Netlink(_) | Kind::Packets(_) => Err(Errno::EOPNOTSUPP),
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

    /// Makes an error pending, for the next call to tell.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn put_error(&mut self, id: SocketId, error: Errno) -> Result<()> {
        self.sock(id)?;
        self.sockets[id.0].error = Some(error);
        self.touch(id);
        Ok(())
    }

    /// A destination in the form in which it travels: IPv4 for an IPv4-mapped address, and for the unspecified one where the
    /// socket's own address is of IPv4, which then means this host.
    pub(super) fn destination(&self, id: SocketId, addr: &SockAddr, purpose: Use) -> Result<SocketAddr> {
        let SockAddr::Ip(addr) = addr else { return Err(Errno::EAFNOSUPPORT) };
        let addr = self.family(id, *addr, purpose)?;
        let own = match &self.sock(id)?.kind {
            Kind::Stream(stream) => stream.own_ip(),
            Kind::Datagrams(datagrams) => datagrams.bound.map(|bound| bound.ip()),
            _ => None,
        };
        let here = addr.is_ipv6() && addr.ip().is_unspecified() && own.is_some_and(|ip| ip.is_ipv4());
        Ok(if here { SocketAddr::new(Ipv4Addr::LOCALHOST.into(), addr.port()) } else { addr })
    }

    /// Checks an address against the socket's family and unmaps it.
    fn family(&self, id: SocketId, addr: SocketAddr, purpose: Use) -> Result<SocketAddr> {
        let sock = self.sock(id)?;
        let v6_only = sock.options.v6_only;
        match (sock.domain, addr) {
            (Domain::INET, SocketAddr::V4(_)) => Ok(addr),
            (Domain::INET6, SocketAddr::V6(v6)) if v6.ip().to_ipv4_mapped().is_some() => {
                match (v6_only, purpose) {
                    (false, _) => Ok(ioth_core::addr::unmap(addr)),
                    (true, Use::Bind) => Err(Errno::EINVAL),
                    (true, Use::Connect | Use::Send) => Err(Errno::ENETUNREACH),
                }
            }
            (Domain::INET6, SocketAddr::V6(_)) => Ok(addr),
            // Linux: datagram sockets that may be dual take a sockaddr_in in connect and sendto.
            (Domain::INET6, SocketAddr::V4(_)) if matches!(sock.kind, Kind::Datagrams(_)) => {
                match (v6_only, purpose) {
                    (_, Use::Bind) => Err(Errno::EINVAL),
                    (false, _) => Ok(addr),
                    (true, Use::Connect) => Err(Errno::EAFNOSUPPORT),
                    (true, Use::Send) => Err(Errno::ENETUNREACH),
                }
            }
            (Domain::INET6, SocketAddr::V4(_)) => Err(Errno::EINVAL),
            _ => Err(Errno::EAFNOSUPPORT),
        }
    }

    /// An address of a socket's in the form in which its user sees it: a link-local one with the socket's interface
    /// (RFC 4007 §6).
    pub(super) fn presented(&self, id: SocketId, addr: SocketAddr) -> SockAddr {
        let Some(sock) = self.sockets.get(id.0).filter(|sock| sock.domain == Domain::INET6) else {
            return SockAddr::Ip(addr);
        };
        let mut addr = ioth_core::addr::map(addr);
        if let SocketAddr::V6(v6) = &mut addr {
            let scope = sock.options.device.filter(|_| is_scoped(IpAddr::V6(*v6.ip())));
            v6.set_scope_id(scope.unwrap_or(0));
            v6.set_flowinfo(0);
        }
        SockAddr::Ip(addr)
    }

    /// The interface that a packet to a destination leaves by, if a scope id or the socket says so.
    pub(super) fn scope_of(&self, id: SocketId, remote: SocketAddr) -> Result<Option<u32>> {
        let device = self.sock(id)?.options.device;
        Ok(scope_id(remote).filter(|_| is_scoped(remote.ip())).or(device))
    }

    /// connect(2) to an address that means something on one link only binds the socket to that link, for good
    /// (`__ip6_datagram_connect`, `tcp_v6_connect`).
    ///
    /// # Errors
    /// `EINVAL` when neither the address nor the socket says which link, or they disagree.
    pub(super) fn connect_scope(&mut self, id: SocketId, remote: SocketAddr) -> Result<()> {
        if !is_scoped(remote.ip()) {
            return Ok(());
        }
        let options = &self.sock(id)?.options;
        let group = options.v6_group.ifindex.filter(|_| remote.ip().is_multicast());
        let device = match (scope_id(remote), options.device) {
            (Some(scope), Some(device)) if scope != device => return Err(Errno::EINVAL),
            (scope, device) => scope.or(device).or(group).ok_or(Errno::EINVAL)?,
        };
        self.set_device(id, Some(device));
        Ok(())
    }

    /// Binds a socket to an interface, or to none: Linux's `sk_bound_dev_if`, of SO_BINDTODEVICE and scope ids.
    pub(super) fn set_device(&mut self, id: SocketId, device: Option<u32>) {
        if let Some(sock) = self.sockets.get_mut(id.0)
            && sock.options.device != device
        {
            sock.options.device = device;
            self.apply_options(id);
        }
    }

    /// Whether an address is the node's own for a socket that is bound to an interface: Linux's `ipv6_chk_addr`, which
    /// looks at the interface only where the address means something there alone. IPv4's never does.
    pub(super) fn owns(&self, ip: IpAddr, device: Option<u32>) -> bool {
        let device = device.filter(|_| ip.is_ipv6());
        let near = is_link_local(ip) || ip.is_loopback();
        let local = self.net.tables.is_local(ip, device);
        local.is_some_and(|local| !near || device.is_none_or(|device| device == local.ifindex))
    }

    /// Whether a stream or datagram socket has a port, or had one when its connection ended.
    fn has_name(&self, id: SocketId) -> bool {
        match self.sockets.get(id.0).map(|sock| &sock.kind) {
            Some(Kind::Stream(stream)) => stream.has_port() || !stream.is_closed(),
            Some(Kind::Datagrams(datagrams)) => datagrams.has_port(),
            _ => false,
        }
    }

    /// A group or broadcast address: a socket that is bound to it sends from an address of the interface.
    pub(super) fn is_for_many(&self, ip: IpAddr) -> bool {
        is_shared(ip) || self.is_subnet_broadcast(ip)
    }

    pub(super) fn is_subnet_broadcast(&self, ip: IpAddr) -> bool {
        let IpAddr::V4(v4) = ip else { return false };
        self.net.tables.ifaces().any(|iface| self.net.tables.is_broadcast(v4, iface.index()))
    }
}

/// Link-local, or a group of no wider scope: it means something on one link only (RFC 4007, RFC 4291 §2.7).
pub(super) fn is_scoped(ip: IpAddr) -> bool {
    let group = matches!(ip, IpAddr::V6(v6) if v6.is_multicast() && matches!(v6.octets()[1] & 0x0f, 1 | 2));
    group || is_link_local(ip)
}

pub(super) fn scope_id(addr: SocketAddr) -> Option<u32> {
    match addr {
        SocketAddr::V6(v6) => Some(v6.scope_id()).filter(|scope| *scope != 0),
        SocketAddr::V4(_) => None,
    }
}
