//! `RTM_*ROUTE`: routes, and the way to one destination.

use std::net::IpAddr;

use ioth_core::cidr::mask;
use ioth_core::{Cidr, Errno};

use crate::engine::iface::LOOPBACK;
use crate::engine::route::{AddMode, Route, RouteFilter, RouteKind, scope};
use crate::engine::tables::Tables;

use super::Fault;
use super::wire::{Attrs, Header, Request, Writer, u32_at};

/// Length of `struct rtmsg`.
pub(super) const INFO: usize = 12;

pub(super) fn new(tables: &mut Tables, request: &Request<'_>) -> Result<(), Fault> {
    let ask = Ask::read(request)?;
    let header = request.header;
    if ask.table != MAIN {
        return Err(Fault::new(Errno::EOPNOTSUPP, "the user-space stack has the main table only"));
    }
    if UNSUPPORTED.iter().any(|kind| ask.attrs.has(*kind)) || ask.tos != 0 {
        return Err(Fault::new(
            Errno::EOPNOTSUPP,
            "multipath, encapsulated, TOS and expiring routes are not supported",
        ));
    }
    let kind = kind_of(ask.kind).ok_or(Fault::new(Errno::EINVAL, "Invalid route type"))?;
    if kind != RouteKind::Unicast && !ask.ipv6 && (ask.oif != 0 || ask.gateway.is_some()) {
        return Err(Fault::new(Errno::EINVAL, "Routes of this type have no gateway and no device"));
    }
    let refuses = kind != RouteKind::Unicast;
    let metrics = ask.attrs.get(libc::RTA_METRICS).map(Attrs);
    let mtu = metrics.map(|metrics| metrics.u32(RTAX_MTU)).transpose()?.flatten();
    let route = Route {
        dst: ask.dst,
        gateway: ask.gateway.filter(|_| !refuses),
        oif: if refuses { 0 } else { ask.oif },
        prefsrc: ask.prefsrc,
        metric: ask.metric,
        protocol: ask.protocol,
        scope: ask.scope,
        kind,
        mtu: mtu.unwrap_or(0),
        onlink: ask.flags & RTNH_F_ONLINK != 0,
    };
    let replace = header.has(libc::NLM_F_REPLACE);
    let mode = AddMode {
        // Linux only grumbles about an IPv6 route without NLM_F_CREATE.
        create: header.has(libc::NLM_F_CREATE) || ask.ipv6 && !replace,
        exclusive: header.has(libc::NLM_F_EXCL),
        replace,
        append: header.has(libc::NLM_F_APPEND),
    };
    Ok(tables.put_route(route, mode)?)
}

pub(super) fn del(tables: &mut Tables, request: &Request<'_>) -> Result<(), Fault> {
    let ask = Ask::read(request)?;
    if ask.table != MAIN {
        return Err(Errno::ESRCH.into());
    }
    let kind = match ask.kind {
        libc::RTN_UNSPEC => None,
        kind => Some(kind_of(kind).ok_or(Errno::ESRCH)?),
    };
    // Linux: unspecified, that is 0 (a scope: nowhere), matches any.
    let asked = |value: u32| (value != 0).then_some(value);
    let of_interface = kind.is_none_or(|kind| kind == RouteKind::Unicast);
    let filter = RouteFilter {
        dst: ask.dst,
        gateway: ask.gateway,
        oif: asked(ask.oif).filter(|_| of_interface),
        prefsrc: ask.prefsrc,
        metric: asked(ask.metric),
        protocol: (ask.protocol != 0).then_some(ask.protocol),
        scope: (ask.scope != scope::NOWHERE).then_some(ask.scope),
        kind: kind.filter(|kind| !ask.ipv6 || *kind != RouteKind::Unicast),
    };
    Ok(tables.del_route(&filter)?)
}

/// The way to one destination: `ip route get`.
pub(super) fn get(tables: &Tables, request: &Request<'_>, reply: &mut Vec<u8>) -> Result<(), Fault> {
    let ipv6 = ipv6(request)?;
    let (_, attrs) = request.split::<INFO>()?;
    let any = if ipv6 { IpAddr::from([0u8; 16]) } else { IpAddr::from([0u8; 4]) };
    let dst = attrs.ip(libc::RTA_DST, ipv6)?.unwrap_or(any);
    let src = attrs.ip(libc::RTA_SRC, ipv6)?.filter(|src| !src.is_unspecified());
    let oif = attrs.u32(libc::RTA_OIF)?.filter(|oif| *oif != 0);
    if src.is_some_and(|src| tables.is_local(src, None).is_none()) {
        return Err(Errno::EINVAL.into());
    }
    let path = tables.route(dst, oif, src)?;
    let kind = if path.local {
        libc::RTN_LOCAL
    } else if path.broadcast {
        libc::RTN_BROADCAST
    } else if dst.is_multicast() {
        libc::RTN_MULTICAST
    } else {
        libc::RTN_UNICAST
    };
    let table = if path.local || path.broadcast { LOCAL } else { MAIN };
    let to = request.reply();
    let mut writer = Writer::begin(reply, libc::RTM_NEWROUTE, to.flags, to.seq, to.port);
    let host = Cidr::host(if dst.is_unspecified() { path.next_hop } else { dst });
    writer.put(&[family(dst), host.prefix_len(), 0, 0, table as u8, 0, scope::UNIVERSE, kind]);
    writer.put(&RTM_F_CLONED.to_ne_bytes());
    writer.u32(libc::RTA_TABLE, table);
    writer.ip(libc::RTA_DST, host.addr());
    writer.u32(libc::RTA_OIF, path.ifindex);
    writer.ip(libc::RTA_PREFSRC, path.source);
    if path.next_hop != host.addr() {
        writer.ip(libc::RTA_GATEWAY, path.next_hop);
    }
    writer.nest(libc::RTA_METRICS, |writer| writer.u32(RTAX_MTU, path.mtu as u32));
    writer.attr(libc::RTA_CACHEINFO, &[0; CACHEINFO]);
    writer.end();
    Ok(())
}

/// Appends the message that describes a route.
pub(super) fn put(buffer: &mut Vec<u8>, tables: &Tables, route: &Route, kind: u16, to: Header) {
    let mut writer = Writer::begin(buffer, kind, to.flags, to.seq, to.port);
    let ipv6 = route.dst.addr().is_ipv6();
    let type_ = match route.kind {
        RouteKind::Unicast => libc::RTN_UNICAST,
        RouteKind::Blackhole => libc::RTN_BLACKHOLE,
        RouteKind::Unreachable => libc::RTN_UNREACHABLE,
        RouteKind::Prohibit => libc::RTN_PROHIBIT,
    };
    let plugged = tables.iface(route.oif).is_none_or(|iface| iface.has_carrier());
    let mut flags = if route.onlink { RTNH_F_ONLINK } else { 0 };
    if !plugged {
        flags |= RTNH_F_LINKDOWN;
    }
    writer.put(&[family(route.dst.addr()), route.dst.prefix_len(), 0, 0]);
    writer.put(&[MAIN as u8, route.protocol, route.scope, type_]);
    writer.put(&flags.to_ne_bytes());
    writer.u32(libc::RTA_TABLE, MAIN);
    if route.dst.prefix_len() != 0 {
        writer.ip(libc::RTA_DST, route.dst.addr());
    }
    if route.mtu != 0 {
        writer.nest(libc::RTA_METRICS, |writer| writer.u32(RTAX_MTU, route.mtu));
    }
    if route.metric != 0 {
        writer.u32(libc::RTA_PRIORITY, route.metric);
    }
    if let Some(prefsrc) = route.prefsrc {
        writer.ip(libc::RTA_PREFSRC, prefsrc);
    }
    if let Some(gateway) = route.gateway {
        writer.ip(libc::RTA_GATEWAY, gateway);
    }
    match route.oif {
        // Linux shows IPv6 routes that refuse as routes to loopback.
        0 if ipv6 => writer.u32(libc::RTA_OIF, LOOPBACK),
        0 => {}
        oif => writer.u32(libc::RTA_OIF, oif),
    }
    if ipv6 {
        writer.attr(libc::RTA_CACHEINFO, &[0; CACHEINFO]);
        writer.u8(libc::RTA_PREF, 0);
    }
    writer.end();
}

/// What a request that changes routes says.
struct Ask<'a> {
    ipv6: bool,
    dst: Cidr,
    gateway: Option<IpAddr>,
    prefsrc: Option<IpAddr>,
    oif: u32,
    metric: u32,
    table: u32,
    tos: u8,
    protocol: u8,
    scope: u8,
    kind: u8,
    flags: u32,
    attrs: Attrs<'a>,
}

impl<'a> Ask<'a> {
    fn read(request: &Request<'a>) -> Result<Self, Fault> {
        let ipv6 = ipv6(request)?;
        let (info, attrs) = request.split::<INFO>()?;
        let [_, len, _, tos, table, protocol, scope, kind, ..] = info;
        let table = attrs.u32(libc::RTA_TABLE)?.unwrap_or(table.into());
        let given = |addr: &IpAddr| !addr.is_unspecified();
        Ok(Ask {
            ipv6,
            dst: destination(attrs, ipv6, len)?,
            gateway: attrs.ip(libc::RTA_GATEWAY, ipv6)?.filter(given),
            prefsrc: attrs.ip(libc::RTA_PREFSRC, ipv6)?.filter(given),
            oif: attrs.u32(libc::RTA_OIF)?.unwrap_or(0),
            metric: attrs.u32(libc::RTA_PRIORITY)?.unwrap_or(0),
            table: if table == 0 { MAIN } else { table },
            tos,
            protocol,
            scope,
            kind,
            flags: u32_at(&info, 8).unwrap_or(0),
            attrs,
        })
    }
}

/// The prefix of a request. Linux reads as many bytes of an IPv6 address as the prefix has, four of an IPv4 one.
fn destination(attrs: Attrs<'_>, ipv6: bool, len: u8) -> Result<Cidr, Fault> {
    let longest = if ipv6 { 128 } else { 32 };
    if len > longest {
        return Err(Fault::new(Errno::EINVAL, "Invalid prefix length"));
    }
    let addr = if ipv6 {
        let value = attrs.get(libc::RTA_DST).unwrap_or_default();
        let used = usize::from(len.div_ceil(8));
        if attrs.has(libc::RTA_DST) && value.len() < used {
            return Err(Errno::EINVAL.into());
        }
        let mut bytes = [0u8; 16];
        let taken = value.len().min(used);
        bytes[..taken].copy_from_slice(&value[..taken]);
        mask(bytes.into(), len)
    } else {
        attrs.ip(libc::RTA_DST, false)?.unwrap_or(IpAddr::from([0u8; 4]))
    };
    Cidr::new(addr, len).map_err(|_| Errno::EINVAL.into())
}

fn ipv6(request: &Request<'_>) -> Result<bool, Fault> {
    match request.family() {
        libc::AF_INET => Ok(false),
        libc::AF_INET6 => Ok(true),
        _ => Err(Errno::EOPNOTSUPP.into()),
    }
}

fn family(addr: IpAddr) -> u8 {
    (if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }) as u8
}

fn kind_of(kind: u8) -> Option<RouteKind> {
    match kind {
        libc::RTN_UNICAST => Some(RouteKind::Unicast),
        libc::RTN_BLACKHOLE => Some(RouteKind::Blackhole),
        libc::RTN_UNREACHABLE => Some(RouteKind::Unreachable),
        libc::RTN_PROHIBIT => Some(RouteKind::Prohibit),
        _ => None,
    }
}

/// The one table, and the one in which Linux has a node's own addresses.
pub(super) const MAIN: u32 = libc::RT_TABLE_MAIN as u32;
pub(super) const LOCAL: u32 = libc::RT_TABLE_LOCAL as u32;

/// Attributes that change what a route means and are not supported.
const UNSUPPORTED: [u16; 5] = [libc::RTA_MULTIPATH, RTA_VIA, RTA_ENCAP, RTA_EXPIRES, RTA_NH_ID];

/// Length of `struct rta_cacheinfo`.
const CACHEINFO: usize = 32;

// linux/rtnetlink.h, where libc has them not.
const RTA_VIA: u16 = 18;
const RTA_ENCAP: u16 = 22;
const RTA_EXPIRES: u16 = 23;
const RTA_NH_ID: u16 = 30;
const RTAX_MTU: u16 = 2;
const RTNH_F_ONLINK: u32 = 4;
const RTNH_F_LINKDOWN: u32 = 16;
const RTM_F_CLONED: u32 = 0x200;
