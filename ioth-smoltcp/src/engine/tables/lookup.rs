//! The way to a destination.
//!
//! Read first: RFC 1122 §3.3.1 (outbound datagrams), RFC 4007 §6 (zones of link-local destinations).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Tables;
use crate::engine::iface::{Iface, LOOPBACK};
use crate::engine::route::{Path, Route, RouteError, RouteKind};

/// Lookups.
impl Tables {
    /// The way to `dst`: longest prefix, then least metric.
    ///
    /// `oif` restricts it to an interface (SO_BINDTODEVICE, a scope id) and `src` is the source address where
    /// one is bound already. The node's own addresses lead to loopback with themselves as the source. The
    /// result may be kept until [`generation`](Tables::generation) changes.
    pub fn route(&self, dst: IpAddr, oif: Option<u32>, src: Option<IpAddr>) -> Result<Path, RouteError> {
        let oif = oif.filter(|ifindex| *ifindex != 0);
        let src = src.filter(|src| !src.is_unspecified());
        if src.is_some_and(|src| src.is_ipv4() != dst.is_ipv4()) {
            return Err(RouteError::Family);
        }
        let out = match oif {
            // Linux: over IPv6 there is no route then.
            Some(ifindex) if dst.is_ipv6() => Some(self.iface(ifindex).ok_or(RouteError::NoRoute)?),
            Some(ifindex) => Some(self.iface(ifindex).ok_or(RouteError::NoDevice)?),
            None => None,
        };
        if out.is_some_and(|iface| !iface.is_up()) {
            return Err(RouteError::NoRoute);
        }
        match dst {
            IpAddr::V4(dst) => self.route_v4(dst, out, src),
            IpAddr::V6(dst) => self.route_v6(dst, out, src),
        }
    }

    fn route_v4(&self, dst: Ipv4Addr, out: Option<&Iface>, src: Option<IpAddr>) -> Result<Path, RouteError> {
        // Linux: nobody in particular is oneself (connect to 0.0.0.0).
        if dst.is_unspecified() {
            let dst = src.unwrap_or(Ipv4Addr::LOCALHOST.into());
            return self.own(dst, out, src)?.ok_or(RouteError::NoRoute);
        }
        if let Some(path) = self.own(dst.into(), out, src)? {
            return Ok(path);
        }
        let group = dst.is_multicast() || dst.is_broadcast();
        // Linux: a group goes out of the interface that has the source address, without a route.
        let out = match src {
            Some(src) if group && out.is_none() => {
                self.is_local(src, None).and_then(|local| self.iface(local.ifindex))
            }
            _ => out,
        };
        let on_link = |iface: &Iface| self.path(iface, dst.into(), dst.into(), src, None, 0);
        if let (true, Some(iface)) = (group, out) {
            return on_link(iface);
        }
        match self.lookup(dst.into(), out.map(Iface::index)) {
            Ok(route) => self.path_by(route, dst.into(), src),
            // Linux: "Apparently, routing tables are wrong. Assume, that the destination is on link."
            Err(RouteError::NoRoute) => out.map_or(Err(RouteError::NoRoute), on_link),
            Err(error) => Err(error),
        }
    }

    fn route_v6(&self, dst: Ipv6Addr, out: Option<&Iface>, src: Option<IpAddr>) -> Result<Path, RouteError> {
        if dst.is_unspecified() {
            let dst = src.unwrap_or(Ipv6Addr::LOCALHOST.into());
            return self.own(dst, out, src)?.ok_or(RouteError::NoRoute);
        }
        if let Some(path) = self.own(dst.into(), out, src)? {
            return Ok(path);
        }
        if dst.is_multicast() {
            // Linux has a route ff00::/8 for each interface, the oldest first; a link-local source tells more.
            let by_source = src.and_then(|src| self.is_local(src, None)).map(|local| local.ifindex);
            let first = || {
                let mut able = self.ifaces().filter(|iface| iface.is_up() && iface.carries_ipv6());
                able.find(|iface| !iface.is_loopback() && by_source.is_none_or(|at| at == iface.index()))
            };
            let iface = out.or_else(first).ok_or(RouteError::NoRoute)?;
            return self.path(iface, dst.into(), dst.into(), src, None, 0);
        }
        let route = self.lookup(dst.into(), out.map(Iface::index))?;
        self.path_by(route, dst.into(), src)
    }

    /// The path to `dst` if that is one of the node's own addresses.
    fn own(&self, dst: IpAddr, out: Option<&Iface>, src: Option<IpAddr>) -> Result<Option<Path>, RouteError> {
        let Some(local) = self.is_local(dst, out.map(Iface::index)) else { return Ok(None) };
        // Bound to an interface, only what is behind that interface is in reach. Linux: IPv4 finds no route to a link's
        // address by loopback, and takes it to be there nevertheless.
        let there =
            |iface: &Iface| iface.index() == local.ifindex || (dst.is_ipv4() && iface.index() == LOOPBACK);
        if !out.is_none_or(there) {
            return Ok(None);
        }
        let loopback = self.iface(LOOPBACK).filter(|iface| iface.is_up()).ok_or(RouteError::NoRoute)?;
        Ok(Some(Path {
            ifindex: LOOPBACK,
            arrival: out.map_or(local.ifindex, Iface::index),
            next_hop: dst,
            source: src.unwrap_or_else(|| self.local_source(dst)),
            mtu: loopback.mtu(),
            local: true,
            broadcast: false,
        }))
    }

    pub(in crate::engine) fn lookup(&self, dst: IpAddr, oif: Option<u32>) -> Result<&Route, RouteError> {
        for route in self.fib.matches(dst) {
            match route.kind {
                RouteKind::Blackhole => return Err(RouteError::Blackhole),
                RouteKind::Unreachable => return Err(RouteError::Unreachable),
                RouteKind::Prohibit => return Err(RouteError::Prohibited),
                RouteKind::Unicast if oif.is_none_or(|ifindex| ifindex == route.oif) => return Ok(route),
                RouteKind::Unicast => {}
            }
        }
        Err(RouteError::NoRoute)
    }

    fn path_by(&self, route: &Route, dst: IpAddr, src: Option<IpAddr>) -> Result<Path, RouteError> {
        let iface = self.iface(route.oif).ok_or(RouteError::NoRoute)?;
        self.path(iface, dst, route.gateway.unwrap_or(dst), src, route.prefsrc, route.mtu)
    }

    fn path(
        &self,
        iface: &Iface,
        dst: IpAddr,
        next_hop: IpAddr,
        src: Option<IpAddr>,
        prefsrc: Option<IpAddr>,
        mtu: u32,
    ) -> Result<Path, RouteError> {
        let source = match src.or(prefsrc) {
            Some(source) => source,
            None => self.select_source(iface, dst, next_hop).ok_or(RouteError::NoSource)?,
        };
        let mtu = if mtu == 0 { iface.mtu() } else { iface.mtu().min(mtu as usize) };
        let mtu = self.known_mtu(iface.index(), dst).map_or(mtu, |known| known.min(mtu));
        let broadcast = matches!(dst, IpAddr::V4(dst) if self.is_broadcast(dst, iface.index()));
        Ok(Path {
            ifindex: iface.index(),
            next_hop,
            source,
            mtu,
            local: false,
            arrival: iface.index(),
            broadcast,
        })
    }
}
