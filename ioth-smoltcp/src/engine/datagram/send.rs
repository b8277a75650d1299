//! The way of a datagram: what its destination, its socket's options and its control messages make together.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ioth_core::{Errno, Result};
use ioth_vde::Frame;
use smoltcp::wire::IpProtocol;

use super::{Discover, SendControl};
use crate::engine::addr::is_link_local;
use crate::engine::iface::{LOOPBACK, MIN_MTU};
use crate::engine::ip_options::IpOptions;
use crate::engine::multicast::is_node_local;
use crate::engine::route::Path;
use crate::engine::sockets::{Kind, Options};
use crate::engine::wire::{IPV4_HEADER, IPV6_HEADER, IpAttrs};
use crate::engine::{Engine, SocketId};

/// Longest IP packet that its length field can tell, in bytes; IPv6 does not count its header.
const MAX_LENGTH: usize = 65_535;

/// Where a datagram goes, and what its IP header says.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// To the first hop of a source route, where there is one.
    pub(crate) path: Path,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) hop_limit: u8,
    pub(crate) traffic_class: u8,
    /// The longest packet that leaves in one piece, in bytes.
    pub(crate) mtu: usize,
    /// IPv4's "don't fragment" on packets that leave in one piece.
    dont_fragment: bool,
    /// Longer packets leave in pieces.
    fragments: bool,
    /// The node hears what it sends to a group or broadcast, where it listens.
    loops: bool,
    /// Of IPv4's header.
    pub(crate) options: Option<Arc<IpOptions>>,
}

impl Way {
    /// The IP header for it.
    pub(crate) fn attrs(&self, protocol: IpProtocol) -> IpAttrs {
        IpAttrs {
            traffic_class: self.traffic_class,
            dont_fragment: self.dont_fragment,
            ..IpAttrs::new(protocol, self.hop_limit)
        }
    }

    /// How many bytes may follow the IP header, the transport's header included; more is `EMSGSIZE`.
    fn longest(&self) -> usize {
        let ipv4_header = IPV4_HEADER + self.options.as_ref().map_or(0, |options| options.len());
        match (self.fragments, self.destination.is_ipv4()) {
            (true, true) => MAX_LENGTH - ipv4_header,
            (true, false) => MAX_LENGTH,
            (false, true) => self.mtu.saturating_sub(ipv4_header),
            (false, false) => self.mtu.saturating_sub(IPV6_HEADER),
        }
    }

    /// Whether `len` bytes may follow the IP header, the transport's header included.
    ///
    /// # Errors
    /// `EMSGSIZE`: it is longer than [`longest`](Self::longest). A route can have been given an MTU that no packet fits in:
    /// Linux has `ENETUNREACH` then for IPv4 (`ip_setup_cork`), `EMSGSIZE` for IPv6 (`__ip6_append_data`).
    pub(crate) fn takes(&self, len: usize) -> Result<()> {
        if self.destination.is_ipv4() && self.mtu < MIN_MTU {
            return Err(Errno::ENETUNREACH);
        }
        // Room for IPv6's fragment header and the least that can follow it.
        let narrow = self.destination.is_ipv6() && self.mtu < IPV6_HEADER + 16;
        if narrow || len > self.longest() { Err(Errno::EMSGSIZE) } else { Ok(()) }
    }
}

impl Engine {
    /// Finds the way of a socket's datagram to `destination`, which is not a mapped address. `bound` is the source address that
    /// the socket has.
    ///
    /// # Errors
    /// `EINVAL` for control messages and for source addresses that cannot be, `ENODEV`, `EACCES` for a broadcast without
    /// SO_BROADCAST, and what routes say.
    pub(in crate::engine) fn way(
        &self,
        id: SocketId,
        destination: SocketAddr,
        bound: Option<IpAddr>,
        control: &[u8],
    ) -> Result<Way> {
        let sock = self.sock(id)?;
        let options = &sock.options;
        let ipv4 = destination.is_ipv4();
        let scope = self.scope_of(id, destination)?;
        if matches!(sock.kind, Kind::Datagrams(_)) {
            SendControl::check_udp(control)?;
        }
        let control = match ipv4 {
            true => SendControl::parse_v4(control, sock.domain)?,
            false => SendControl::parse_v6(control)?,
        };
        let own = || sock.ip_options.clone().filter(|_| ipv4);
        let ip_options = match &control.options {
            Some(value) => Some(Arc::new(IpOptions::to_send(&self.net, value.as_slice())?)),
            None => own(),
        };
        // Linux: a socket bound to a group or broadcast sends from an address of the interface.
        let of_ipv4 = bound.is_some_and(|ip| ip.is_ipv4());
        let bound = bound.filter(|ip| !ip.is_unspecified() && !ip.is_multicast() && !is_everybody(*ip));
        if ipv4 && bound.is_some_and(|ip| ip.is_ipv6()) {
            return Err(Errno::ENETUNREACH);
        }
        let bound = bound.filter(|ip| ip.is_ipv4() == ipv4);
        let sticky = options.sticky_v6.filter(|_| !ipv4);
        let scope = scope.or(sticky.and_then(|(_, ifindex)| ifindex));
        let mut oif = self.outgoing(scope, &control, ipv4)?;
        self.check_source(oif, &control)?;
        let sticky = sticky.and_then(|(source, _)| source).map(IpAddr::V6);
        let mut source = control.source.or(sticky).or(bound);
        let mismatch = of_ipv4 && !ipv4 && source.is_none();
        // BSD'ism, as Linux calls it: nobody in particular is oneself.
        let to = match destination.ip() {
            IpAddr::V4(v4) if v4.is_unspecified() => source.unwrap_or(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            other => other,
        };
        let group = options.group(ipv4);
        if to.is_multicast() {
            oif = oif.or(group.ifindex);
            source = source.or(group.source);
        }
        if let Some(IpAddr::V4(source)) = source
            && self.net.tables.is_local(source.into(), None).is_none()
        {
            return Err(if is_no_source(source) { Errno::EINVAL } else { Errno::ENETUNREACH });
        }
        let next = ip_options.as_ref().map_or(to, |options| options.next(to));
        if next != to && destination.ip().is_unspecified() {
            return Err(Errno::EINVAL);
        }
        let path = self.net.tables.route(next, oif, source).map_err(|error| error.to_errno())?;
        // Linux's ip6_dst_lookup_tail() compares them when it has a route.
        if mismatch {
            return Err(Errno::EAFNOSUPPORT);
        }
        // Linux looks for a route to a neighbour then (ip_sendmsg_scope()).
        if ip_options.as_ref().is_some_and(|options| options.is_strict()) && path.next_hop != next {
            return Err(Errno::ENETUNREACH);
        }
        // Linux's __mkroute_output: 127.0.0.0/8 does not leave the node.
        if matches!(source, Some(IpAddr::V4(v4)) if v4.is_loopback()) && path.ifindex != LOOPBACK {
            return Err(Errno::EINVAL);
        }
        if path.broadcast && !options.broadcast {
            return Err(Errno::EACCES);
        }
        let hops = if to.is_multicast() { group.hops } else { options.hop_limit(ipv4) };
        let way = Way {
            path,
            source: source.unwrap_or(path.source),
            destination: to,
            hop_limit: control.hop_limit.unwrap_or(hops),
            traffic_class: control.traffic_class.unwrap_or(options.class(ipv4)),
            mtu: path.mtu,
            dont_fragment: true,
            fragments: true,
            loops: path.broadcast || (to.is_multicast() && group.loops),
            options: ip_options,
        };
        Ok(self.sized(way, options, control.dont_fragment))
    }

    /// Sends a datagram on its way: to the node itself where it listens to the group, and out, in pieces if it must be.
    pub(in crate::engine) fn send_by(&mut self, way: &Way, packet: Frame) {
        match &way.options {
            None => self.send_whole(way, packet),
            Some(options) => {
                for packet in options.put_into(&self.net, packet) {
                    self.send_whole(way, packet);
                }
            }
        }
    }

    fn send_whole(&mut self, way: &Way, packet: Frame) {
        if self.leaves(way, &packet) {
            self.net.output_pieces(&way.path, way.mtu, packet);
        }
    }

    /// The same for a packet whose header is not to be touched.
    pub(in crate::engine) fn send_as_it_is(&mut self, way: &Way, packet: Frame) {
        if self.leaves(way, &packet) {
            self.net.output(&way.path, packet);
        }
    }

    /// Lets the node hear a packet to a group or broadcast, and tells whether the packet leaves it.
    fn leaves(&mut self, way: &Way, packet: &Frame) -> bool {
        let Path { ifindex, broadcast, .. } = way.path;
        let group = way.destination.is_multicast();
        if !(group || broadcast) || ifindex == LOOPBACK {
            return true;
        }
        let listens = broadcast || self.net.tables.is_member(way.destination, ifindex);
        if listens && way.loops {
            self.net.output_looped(ifindex, packet.clone());
        }
        // RFC 1112 §6.1: with a time to live of 0 it stays within the node. Linux looks at it only where the node listens
        // (ip_mc_output(), ip6_finish_output2()), and at the scope for IPv6 (RFC 4291 §2.7).
        let stays = match way.destination {
            IpAddr::V4(_) => way.hop_limit == 0 && listens,
            IpAddr::V6(v6) => (way.hop_limit == 0 && listens && way.loops) || is_node_local(v6),
        };
        !(group && stays)
    }

    /// What ip(7)'s IP_MTU_DISCOVER and ipv6(7)'s options make of a path's MTU.
    fn sized(&self, way: Way, options: &Options, dont_fragment: Option<bool>) -> Way {
        let ipv4 = way.destination.is_ipv4();
        let discover = options.discover(ipv4);
        let of_iface = || self.net.tables.iface(way.path.ifindex).map_or(way.path.mtu, |iface| iface.mtu());
        let mut mtu = if discover.knows_path() { way.path.mtu } else { of_iface() };
        if let Some(size) = options.v6_fragment_size.filter(|_| !ipv4) {
            mtu = mtu.min(size);
        }
        let whole = !ipv4 && dont_fragment.unwrap_or(options.v6_dont_fragment);
        Way {
            mtu,
            dont_fragment: matches!(discover, Discover::Want | Discover::Do | Discover::Probe),
            fragments: discover.fragments() && !whole,
            ..way
        }
    }

    /// The interface that a control message names, if it may: `ip6_datagram_send_ctl` takes none but the one that the
    /// socket or the destination has already.
    fn outgoing(&self, scope: Option<u32>, control: &SendControl, ipv4: bool) -> Result<Option<u32>> {
        match (scope, control.ifindex) {
            (Some(scope), Some(named)) if scope != named && !ipv4 => Err(Errno::EINVAL),
            (_, Some(named)) if self.net.tables.iface(named).is_none() => Err(Errno::ENODEV),
            (scope, named) => Ok(named.or(scope)),
        }
    }

    /// An IPv6 source that a control message names has to be ours, a link-local one on the interface.
    fn check_source(&self, oif: Option<u32>, control: &SendControl) -> Result<()> {
        let Some(source @ IpAddr::V6(v6)) = control.source else { return Ok(()) };
        let link_local = is_link_local(source);
        let ours = self.net.tables.is_local(source, oif.filter(|_| link_local)).is_some();
        if v6.is_multicast() || (link_local && oif.is_none()) || !ours {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }
}

/// Linux's ip_route_output_key_hash: groups, everybody and 0.0.0.0/8 send nothing.
fn is_no_source(addr: Ipv4Addr) -> bool {
    addr.is_multicast() || addr.is_broadcast() || addr.octets()[0] == 0
}

fn is_everybody(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V4(v4) if v4.is_broadcast())
}
