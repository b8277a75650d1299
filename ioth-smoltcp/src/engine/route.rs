//! Routes of a node: adding and removing. The way to a destination is found in `tables::lookup`.
//!
//! Read first: RFC 1122 §3.3.1 (outbound datagrams), ip-route(8).

use std::net::IpAddr;

use ioth_core::{Cidr, Errno};

use super::iface::Iface;
use super::tables::{Change, Tables};

/// Routes that one node can have.
pub const MAX_ROUTES: usize = 1 << 20;

/// Metric of an IPv6 route that was added without one (`IP6_RT_PRIO_USER`).
pub const METRIC_USER: u32 = 1024;
/// Metric of the route to an IPv6 address's prefix (`IP6_RT_PRIO_ADDRCONF`).
pub const METRIC_ADDRCONF: u32 = 256;

/// How far a destination or an address reaches, `RT_SCOPE_*` of rtnetlink(7).
pub mod scope {
    /// Anywhere.
    pub const UNIVERSE: u8 = libc::RT_SCOPE_UNIVERSE;
    /// Deprecated site-local IPv6.
    pub const SITE: u8 = libc::RT_SCOPE_SITE;
    /// On the link.
    pub const LINK: u8 = libc::RT_SCOPE_LINK;
    /// In this node.
    pub const HOST: u8 = libc::RT_SCOPE_HOST;
    /// Nowhere; any, in a removal.
    pub const NOWHERE: u8 = libc::RT_SCOPE_NOWHERE;
}

/// What a route does with a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// Sends it on.
    #[default]
    Unicast,
    /// Drops it; local senders get `EINVAL`.
    Blackhole,
    /// Refuses it: `EHOSTUNREACH`.
    Unreachable,
    /// Refuses it: `EACCES`.
    Prohibit,
}

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destinations; prefix length 0 is the default route.
    pub dst: Cidr,
    /// The router, of the same family; `None` when the destinations are on the link.
    pub gateway: Option<IpAddr>,
    /// The interface; 0 lets the gateway decide, and is what routes that refuse have.
    pub oif: u32,
    /// The source address of packets that have none yet.
    pub prefsrc: Option<IpAddr>,
    /// The lower one of two routes to the same prefix is taken.
    pub metric: u32,
    /// Who made it, `RTPROT_*`.
    pub protocol: u8,
    /// How far the destinations are, `RT_SCOPE_*`.
    pub scope: u8,
    /// What it does.
    pub kind: RouteKind,
    /// Path MTU in bytes, `RTAX_MTU`; 0 leaves it to the interface.
    pub mtu: u32,
    /// Take the gateway to be on the link without a route to it, `RTNH_F_ONLINK`.
    pub onlink: bool,
}

impl Route {
    /// A route to prefix `dst` on the link of interface `oif`, as `ip route add` makes it.
    pub fn new(dst: Cidr, oif: u32) -> Self {
        Route {
            dst,
            gateway: None,
            oif,
            prefsrc: None,
            metric: 0,
            protocol: libc::RTPROT_BOOT,
            scope: if dst.addr().is_ipv4() { scope::LINK } else { scope::UNIVERSE },
            kind: RouteKind::Unicast,
            mtu: 0,
            onlink: false,
        }
    }

    /// A route to prefix `dst` through a router; the interface follows from the route to `gateway`, but must
    /// be set in `oif` for a link-local one.
    pub fn via(dst: Cidr, gateway: IpAddr) -> Self {
        Route { gateway: Some(gateway), scope: scope::UNIVERSE, ..Route::new(dst, 0) }
    }
}

/// What to do when there is a route to the same prefix with the same metric: `NLM_F_*` of netlink(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddMode {
    /// Make a route that is not there.
    pub create: bool,
    /// Refuse if one is there.
    pub exclusive: bool,
    /// Put it in the place of the one that is there.
    pub replace: bool,
    /// Put it behind the ones that are there, rather than before them.
    pub append: bool,
}

impl AddMode {
    /// `ip route add`
    pub const ADD: AddMode = AddMode { create: true, exclusive: true, replace: false, append: false };
    /// `ip route replace`
    pub const REPLACE: AddMode = AddMode { create: true, exclusive: false, replace: true, append: false };
    /// `ip route append`
    pub const APPEND: AddMode = AddMode { create: true, exclusive: false, replace: false, append: true };
}

/// Which route to remove: the first one of the prefix for which everything that is set is equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are Route's")]
pub struct RouteFilter {
    pub dst: Cidr,
    pub gateway: Option<IpAddr>,
    pub oif: Option<u32>,
    pub prefsrc: Option<IpAddr>,
    pub metric: Option<u32>,
    pub protocol: Option<u8>,
    pub scope: Option<u8>,
    pub kind: Option<RouteKind>,
}

impl RouteFilter {
    /// Any route to that prefix.
    pub fn to(dst: Cidr) -> Self {
        RouteFilter {
            dst,
            gateway: None,
            oif: None,
            prefsrc: None,
            metric: None,
            protocol: None,
            scope: None,
            kind: None,
        }
    }

    fn matches(&self, route: &Route) -> bool {
        fn same<T: PartialEq>(asked: Option<T>, is: T) -> bool {
            asked.is_none_or(|asked| asked == is)
        }
        same(self.gateway.map(Some), route.gateway)
            && same(self.oif, route.oif)
            && same(self.prefsrc.map(Some), route.prefsrc)
            && same(self.metric, route.metric)
            && same(self.protocol, route.protocol)
            && same(self.scope, route.scope)
            && same(self.kind, route.kind)
    }
}

/// The way that a packet takes out of the node. Valid until [`Tables::generation`] changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The interface; loopback for the node's own addresses.
    pub ifindex: u32,
    /// Whose link-layer address to use: the gateway's or the destination's.
    pub next_hop: IpAddr,
    /// The source address; unspecified when an IPv4 interface has none yet.
    pub source: IpAddr,
    /// The largest IP packet for it, in bytes.
    pub mtu: usize,
    /// The destination is the node itself.
    pub local: bool,
    /// The interface that a packet to the node itself seems to arrive by: the one that has the address. Otherwise that
    /// which it leaves by.
    pub arrival: u32,
    /// The destination is every station on the link (Linux asks for SO_BROADCAST).
    pub broadcast: bool,
}

/// Error returned by [`Tables::route`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// No route to the destination.
    #[error("no route to the destination")]
    NoRoute,
    /// A route says that the destination cannot be reached.
    #[error("the destination is unreachable by a route")]
    Unreachable,
    /// A route forbids it.
    #[error("the destination is prohibited by a route")]
    Prohibited,
    /// A route drops it.
    #[error("the destination is a black hole by a route")]
    Blackhole,
    /// The interface asked for does not exist.
    #[error("no such interface")]
    NoDevice,
    /// No address of the node suits as the source.
    #[error("no source address for the destination")]
    NoSource,
    /// Source and destination are not of one family.
    #[error("source and destination are of different families")]
    Family,
}

impl RouteError {
    /// The error as Linux numbers it.
    pub fn to_errno(self) -> Errno {
        match self {
            RouteError::NoRoute => Errno::ENETUNREACH,
            RouteError::Unreachable => Errno::EHOSTUNREACH,
            RouteError::Prohibited => Errno::EACCES,
            RouteError::Blackhole | RouteError::Family => Errno::EINVAL,
            RouteError::NoDevice => Errno::ENODEV,
            RouteError::NoSource => Errno::EADDRNOTAVAIL,
        }
    }
}

impl From<RouteError> for Errno {
    fn from(error: RouteError) -> Errno {
        error.to_errno()
    }
}

/// Error returned by the methods of [`Tables`] that change routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteChangeError {
    /// There is a route to the prefix with the metric.
    #[error("a route to that prefix with that metric exists")]
    Exists,
    /// No route to change, and creating one was not asked for.
    #[error("no route to replace")]
    NothingToReplace,
    /// No route to remove.
    #[error("no such route")]
    NotFound,
    /// Neither an interface nor a gateway, or an interface that does not exist.
    #[error("no such interface")]
    NoDevice,
    /// The interface is down.
    #[error("Nexthop device is not up")]
    DeviceDown,
    /// The gateway is not on any link (IPv4).
    #[error("Nexthop has invalid gateway")]
    GatewayOffLink,
    /// The gateway is not on any link (IPv6).
    #[error("no route to the gateway")]
    GatewayUnreachable,
    /// The gateway is not one station of the same family that is somebody else.
    #[error("Nexthop has invalid gateway")]
    InvalidGateway,
    /// A link-local gateway does not say on which link.
    #[error("Egress device not specified")]
    NoScope,
    /// Bits are set behind the prefix.
    #[error("Invalid prefix for given prefix length")]
    InvalidPrefix,
    /// The preferred source is not the node's.
    #[error("Invalid prefsrc address")]
    InvalidPrefsrc,
    /// The scope does not go with a gateway.
    #[error("Nexthop has invalid scope")]
    InvalidScope,
    /// The node has as many routes as it can have.
    #[error("the node has {MAX_ROUTES} routes already")]
    TooMany,
}

impl RouteChangeError {
    /// The error as Linux numbers it.
    pub fn to_errno(self) -> Errno {
        match self {
            RouteChangeError::Exists => Errno::EEXIST,
            RouteChangeError::NothingToReplace => Errno::ENOENT,
            RouteChangeError::NotFound => Errno::ESRCH,
            RouteChangeError::NoDevice => Errno::ENODEV,
            RouteChangeError::DeviceDown => Errno::ENETDOWN,
            RouteChangeError::GatewayOffLink => Errno::ENETUNREACH,
            RouteChangeError::GatewayUnreachable => Errno::EHOSTUNREACH,
            RouteChangeError::InvalidGateway
            | RouteChangeError::NoScope
            | RouteChangeError::InvalidPrefix
            | RouteChangeError::InvalidPrefsrc
            | RouteChangeError::InvalidScope => Errno::EINVAL,
            RouteChangeError::TooMany => Errno::ENOBUFS,
        }
    }
}

impl From<RouteChangeError> for Errno {
    fn from(error: RouteChangeError) -> Errno {
        error.to_errno()
    }
}

/// Routes.
impl Tables {
    /// Adds a route; there must be none to the same prefix with the same metric.
    pub fn add_route(&mut self, route: Route) -> Result<(), RouteChangeError> {
        self.put_route(route, AddMode::ADD)
    }

    /// Adds or replaces a route as `mode` says.
    ///
    /// IPv6 routes without a metric get 1024, and host bits of their prefix are cleared (IPv4: refused).
    pub fn put_route(&mut self, mut route: Route, mode: AddMode) -> Result<(), RouteChangeError> {
        if route.dst.addr().is_ipv6() {
            route.dst = route.dst.network();
            route.scope = scope::UNIVERSE;
            if route.metric == 0 {
                route.metric = METRIC_USER;
            }
        } else if route.dst != route.dst.network() {
            return Err(RouteChangeError::InvalidPrefix);
        }
        route.oif = self.check_next_hop(&route)?;
        if let Some(prefsrc) = route.prefsrc
            && (prefsrc.is_ipv4() != route.dst.addr().is_ipv4() || self.is_local(prefsrc, None).is_none())
        {
            return Err(RouteChangeError::InvalidPrefsrc);
        }
        let same = self.fib.exact(route.dst).iter().filter(|other| other.metric == route.metric);
        let (there, identical) = same.fold((0, false), |(n, same), other| (n + 1, same || *other == route));
        if there > 0 && mode.exclusive {
            return Err(RouteChangeError::Exists);
        }
        if there == 0 && !mode.create {
            return Err(RouteChangeError::NothingToReplace);
        }
        if identical {
            // Linux: replacing a route by itself is no change and no error.
            return if mode.replace { Ok(()) } else { Err(RouteChangeError::Exists) };
        }
        if there > 0 && mode.replace {
            if let Some(slot) = self.fib.exact_mut(route.dst).iter_mut().find(|r| r.metric == route.metric) {
                *slot = route.clone();
            }
            self.changed(Change::RouteNew(route));
            return Ok(());
        }
        if there > 0 && !mode.create {
            return Err(RouteChangeError::NothingToReplace);
        }
        if self.fib.len() >= MAX_ROUTES {
            return Err(RouteChangeError::TooMany);
        }
        // IPv6 keeps equals in order of arrival; IPv4 puts a new one first unless told to append.
        let last = mode.append || route.dst.addr().is_ipv6();
        self.fib.insert(route.clone(), last);
        self.changed(Change::RouteNew(route));
        Ok(())
    }

    /// Removes the first route that `filter` names.
    pub fn del_route(&mut self, filter: &RouteFilter) -> Result<(), RouteChangeError> {
        let mut filter = *filter;
        if filter.dst.addr().is_ipv6() {
            filter.dst = filter.dst.network();
            filter.scope = None;
        }
        let at = self.fib.exact(filter.dst).iter().position(|route| filter.matches(route));
        let route = self.fib.remove(filter.dst, at.ok_or(RouteChangeError::NotFound)?);
        self.changed(Change::RouteDel(route));
        Ok(())
    }

    /// All routes, in no particular order.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.fib.iter()
    }

    /// How many routes there are.
    pub fn route_count(&self) -> usize {
        self.fib.len()
    }

    /// Up to `limit` prefixes of a family that have routes, in order, those behind `after` only, each with its
    /// routes in order of preference: how a dump goes on where it stopped.
    pub(crate) fn routes_after(
        &self,
        ipv6: bool,
        after: Option<Cidr>,
        limit: usize,
    ) -> Vec<(Cidr, &[Route])> {
        self.fib.after(ipv6, after, limit)
    }

    /// Whether the next hop of a route can be used, and through which interface.
    fn check_next_hop(&self, route: &Route) -> Result<u32, RouteChangeError> {
        if route.kind != RouteKind::Unicast {
            return Ok(0);
        }
        let out = match route.oif {
            0 => None,
            ifindex => Some(self.iface(ifindex).ok_or(RouteChangeError::NoDevice)?),
        };
        let Some(gateway) = route.gateway else {
            let iface = out.ok_or(RouteChangeError::NoDevice)?;
            return if iface.is_up() { Ok(iface.index()) } else { Err(RouteChangeError::DeviceDown) };
        };
        if gateway.is_ipv4() != route.dst.addr().is_ipv4()
            || gateway.is_unspecified()
            || gateway.is_multicast()
        {
            return Err(RouteChangeError::InvalidGateway);
        }
        match gateway {
            // Linux looks for the gateway in a narrower scope than the route's.
            IpAddr::V4(_) if route.scope >= scope::HOST => return Err(RouteChangeError::InvalidScope),
            IpAddr::V4(_) if route.scope == scope::LINK => return Err(RouteChangeError::GatewayOffLink),
            IpAddr::V6(gateway) if gateway.is_unicast_link_local() => {
                let iface = out.ok_or(RouteChangeError::NoScope)?;
                return if iface.is_up() { Ok(iface.index()) } else { Err(RouteChangeError::DeviceDown) };
            }
            IpAddr::V6(_) if self.is_local(gateway, None).is_some() => {
                return Err(RouteChangeError::InvalidGateway);
            }
            _ => {}
        }
        if let Some(iface) = out
            && !iface.is_up()
            && (route.onlink || gateway.is_ipv6())
        {
            return Err(RouteChangeError::DeviceDown);
        }
        if route.onlink {
            return out.map(Iface::index).ok_or(RouteChangeError::NoScope);
        }
        let found = match gateway {
            IpAddr::V4(_) => {
                let on_link = |route: &&Route| {
                    route.scope >= scope::LINK && out.is_none_or(|iface| iface.index() == route.oif)
                };
                self.fib.matches(gateway).find(on_link).ok_or(RouteChangeError::GatewayOffLink)?
            }
            IpAddr::V6(_) => {
                let found = self.lookup(gateway, out.map(Iface::index)).ok();
                found.filter(|route| route.gateway.is_none()).ok_or(RouteChangeError::GatewayUnreachable)?
            }
        };
        if found.kind != RouteKind::Unicast {
            return Err(RouteChangeError::InvalidGateway);
        }
        if let IpAddr::V4(gateway) = gateway
            && self.is_broadcast(gateway, found.oif)
        {
            return Err(RouteChangeError::InvalidGateway);
        }
        Ok(found.oif)
    }

    /// Adds the route to an address's prefix; many addresses can share one.
    pub(super) fn insert_connected(&mut self, route: Route) {
        if self.fib.exact(route.dst).contains(&route) || self.fib.len() >= MAX_ROUTES {
            return;
        }
        self.fib.insert(route.clone(), true);
        self.changed(Change::RouteNew(route));
    }

    pub(super) fn remove_connected(&mut self, route: &Route) {
        if let Some(at) = self.fib.exact(route.dst).iter().position(|other| other == route) {
            let route = self.fib.remove(route.dst, at);
            self.changed(Change::RouteDel(route));
        }
    }

    /// Removes those routes through an interface that `goes` names.
    pub(super) fn flush_routes(&mut self, ifindex: u32, goes: impl Fn(&Route) -> bool) {
        for route in self.fib.extract(|route| route.oif == ifindex && goes(route)) {
            self.changed(Change::RouteDel(route));
        }
    }

    /// An address is the node's no more: IPv4 routes that prefer it go, IPv6 ones forget it, as in Linux.
    pub(super) fn forget_prefsrc(&mut self, addr: IpAddr) {
        if addr.is_ipv4() {
            for route in self.fib.extract(|route| route.prefsrc == Some(addr)) {
                self.changed(Change::RouteDel(route));
            }
        } else {
            self.fib.update(|route| route.prefsrc = route.prefsrc.filter(|prefsrc| *prefsrc != addr));
        }
    }
}
