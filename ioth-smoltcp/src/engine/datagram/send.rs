//! The way of a datagram: what its destination, its socket's options and its control messages make together.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ioth_core::{Errno, Result};
use smoltcp::wire::IpProtocol;

use super::SendControl;
use crate::engine::addr::is_link_local;
use crate::engine::route::Path;
use crate::engine::wire::IpAttrs;
use crate::engine::{Engine, SocketId};

/// Where a datagram goes, and what its IP header says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) path: Path,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) hop_limit: u8,
    pub(crate) traffic_class: u8,
}

impl Way {
    /// The IP header for it.
    pub(crate) fn attrs(&self, protocol: IpProtocol) -> IpAttrs {
        IpAttrs { traffic_class: self.traffic_class, ..IpAttrs::new(protocol, self.hop_limit) }
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
        let control = match ipv4 {
            true => SendControl::parse_v4(control, sock.domain)?,
            false => SendControl::parse_v6(control)?,
        };
        let bound = bound.filter(|ip| !ip.is_unspecified());
        if bound.is_some_and(|ip| ip.is_ipv4() != ipv4) {
            // Linux: an IPv6 source for an IPv4 destination is no source, and the other way round has no route.
            return Err(if ipv4 { Errno::EINVAL } else { Errno::ENETUNREACH });
        }
        let oif = self.outgoing(scope, &control, ipv4)?;
        self.check_source(oif, &control)?;
        let source = control.source.or(bound);
        if let Some(IpAddr::V4(source)) = source
            && self.net.tables.is_local(source.into(), None).is_none()
        {
            return Err(if is_no_source(source) { Errno::EINVAL } else { Errno::ENETUNREACH });
        }
        // BSD'ism, as Linux calls it: nobody in particular is oneself.
        let to = match destination.ip() {
            IpAddr::V4(v4) if v4.is_unspecified() => source.unwrap_or(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            other => other,
        };
        let path = self.net.tables.route(to, oif, source).map_err(|error| error.to_errno())?;
        // Linux's __mkroute_output: 127.0.0.0/8 does not leave the node.
        if matches!(source, Some(IpAddr::V4(v4)) if v4.is_loopback()) && !path.local {
            return Err(Errno::EINVAL);
        }
        if path.broadcast && !options.broadcast {
            return Err(Errno::EACCES);
        }
        // RFC 1112 §6.1: multicast stays on the link unless told otherwise.
        let hops = if to.is_multicast() { 1 } else { options.hop_limit(ipv4) };
        Ok(Way {
            path,
            source: source.unwrap_or(path.source),
            destination: to,
            hop_limit: control.hop_limit.unwrap_or(hops),
            traffic_class: control.traffic_class.unwrap_or(options.class(ipv4)),
        })
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
