//! Requests about interfaces, addresses and routes in the words of ioctl(2): netdevice(7), rtentry(7).
//!
//! They change the same tables as netlink does, whose listeners hear of it. What Linux does is in `dev_ioctl()`,
//! `devinet_ioctl()`, `ip_rt_ioctl()`, `addrconf_add_ifaddr()` and `ipv6_route_ioctl()`; the node is its program's
//! own, so nothing needs a right.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ioth_core::{Cidr, Domain, Errno, MacAddr, Result};

use super::addr::{Addr, AddrAttrs, AddrState};
use super::iface::Iface;
use super::route::{AddMode, METRIC_USER, Route, RouteFilter, RouteKind, scope};
use super::tables::Tables;
use super::{Engine, SocketId};

/// `struct ifreq`: a name, then what it is about.
const IFREQ: usize = size_of::<libc::ifreq>();
/// `struct in6_ifreq` (linux/ipv6.h): address, length of the prefix, index.
const IN6_IFREQ: usize = 24;
/// `struct in6_rtmsg` (linux/ipv6_route.h).
const IN6_RTMSG: usize = 80;
/// What netlink says, too: it is kept for show.
const TX_QUEUE_LEN: i32 = 1000;

impl Engine {
    /// A request that is not about the socket on which it is made.
    ///
    /// # Errors
    /// `ENOTTY` for a request that Linux does not know on such a socket, `EINVAL` for an argument that is too short, and
    /// those of the request.
    pub(super) fn configure(&mut self, id: SocketId, request: u64, argument: &mut [u8]) -> Result<i32> {
        let tables = &mut self.net.tables;
        // Linux's packet_ioctl() leaves what is about IPv4 to IPv4.
        match (request, self.sockets[id.0].domain) {
            (libc::SIOCGIFCONF, _) => return Ok(list(tables, argument)),
            (
                libc::SIOCGIFADDR | libc::SIOCGIFDSTADDR | libc::SIOCGIFBRDADDR | libc::SIOCGIFNETMASK,
                Domain::INET | Domain::PACKET,
            ) => address(tables, request, ifreq(argument)?)?,
            (
                libc::SIOCSIFADDR | libc::SIOCSIFDSTADDR | libc::SIOCSIFBRDADDR | libc::SIOCSIFNETMASK,
                Domain::INET | Domain::PACKET,
            ) => set_address(tables, request, ifreq(argument)?)?,
            (libc::SIOCADDRT | libc::SIOCDELRT, Domain::INET | Domain::PACKET) => {
                ipv4_route(tables, request, argument)?;
            }
            (SIOCRTMSG | SIOCSIFPFLAGS | SIOCGIFPFLAGS, Domain::INET) => return Err(Errno::EINVAL),
            (libc::SIOCSIFADDR | libc::SIOCDIFADDR, Domain::INET6) => {
                ipv6_address(tables, request, argument)?;
            }
            // Of tunnels only, which there are none.
            (libc::SIOCSIFDSTADDR, Domain::INET6) => return Err(Errno::ENODEV),
            (libc::SIOCADDRT | libc::SIOCDELRT, Domain::INET6) => ipv6_route(tables, request, argument)?,
            (libc::SIOCSIFFLAGS, Domain::INET | Domain::PACKET) if has_label(ifreq(argument)?) => {
                drop_alias(tables, ifreq(argument)?)?;
            }
            _ => return self.device(request, argument),
        }
        Ok(0)
    }

    /// A request about a device, on a socket of any family.
    fn device(&mut self, request: u64, argument: &mut [u8]) -> Result<i32> {
        let tables = &mut self.net.tables;
        match request {
            libc::SIOCGIFNAME => {
                let ifreq = ifreq(argument)?;
                let iface = tables.iface(number(ifreq) as u32).ok_or(Errno::ENODEV)?;
                put_name(ifreq, iface.name());
                return Ok(0);
            }
            libc::SIOCGIFFLAGS
            | libc::SIOCGIFMETRIC
            | libc::SIOCGIFMTU
            | libc::SIOCGIFHWADDR
            | libc::SIOCGIFSLAVE
            | libc::SIOCGIFMAP
            | libc::SIOCGIFINDEX
            | libc::SIOCGIFTXQLEN => {
                let ifreq = ifreq(argument)?;
                return describe(named(tables, ifreq)?, request, ifreq).map(|()| 0);
            }
            libc::SIOCSIFFLAGS
            | libc::SIOCSIFMETRIC
            | libc::SIOCSIFMTU
            | libc::SIOCSIFHWADDR
            | libc::SIOCSIFTXQLEN
            | libc::SIOCSIFNAME
            | libc::SIOCSIFSLAVE
            | libc::SIOCSIFMAP
            | libc::SIOCADDMULTI
            | libc::SIOCDELMULTI
            | libc::SIOCGMIIPHY
            | libc::SIOCGMIIREG => {}
            _ => return Err(Errno::ENOTTY),
        }
        let ifreq = ifreq(argument)?;
        let ifindex = named(tables, ifreq)?.index();
        match request {
            libc::SIOCSIFFLAGS => {
                let flags = i32::from(i16::from_ne_bytes([ifreq[16], ifreq[17]]));
                tables.set_up(ifindex, flags & libc::IFF_UP != 0)?;
            }
            libc::SIOCSIFMTU => {
                let mtu = usize::try_from(number(ifreq)).map_err(|_| Errno::EINVAL)?;
                tables.set_mtu(ifindex, mtu)?;
            }
            libc::SIOCSIFHWADDR => {
                let kind = u16::from_ne_bytes([ifreq[16], ifreq[17]]);
                if tables.iface(ifindex).is_none_or(|iface| kind != hardware(iface)) {
                    return Err(Errno::EINVAL);
                }
                let mac = ifreq[18..].first_chunk::<6>().ok_or(Errno::EINVAL)?;
                tables.set_mac(ifindex, MacAddr(*mac))?;
            }
            libc::SIOCSIFNAME => {
                let name = text(&ifreq[16..32])?.to_owned();
                tables.rename(ifindex, &name)?;
            }
            // As by netlink: saying so is better than pretending. Of the metric Linux says the same, and of the others what the device's
            // driver says.
            _ => return Err(Errno::EOPNOTSUPP),
        }
        // Linux forgets the neighbours of an interface that goes down or gets another address.
        self.net.neighbours.flush(ifindex);
        Ok(0)
    }
}

/// SIOCGIFCONF: each IPv4 address of each interface, as much as there is room for. How many bytes that is; without any
/// room, how many it would be.
fn list(tables: &Tables, argument: &mut [u8]) -> i32 {
    let ifaces = tables.ifaces();
    let all = ifaces.flat_map(|iface| iface.addrs().iter().map(move |addr| (iface, addr)));
    let ipv4 = all.filter_map(|(iface, addr)| match addr.local() {
        IpAddr::V4(local) => Some((label(iface, addr), local)),
        IpAddr::V6(_) => None,
    });
    if argument.is_empty() {
        return i32::try_from(ipv4.count() * IFREQ).unwrap_or(i32::MAX);
    }
    let mut len = 0;
    for ((name, local), place) in ipv4.zip(argument.chunks_exact_mut(IFREQ)) {
        place.fill(0);
        put_name(place, name);
        put_ipv4(place, local);
        len += IFREQ;
    }
    i32::try_from(len).unwrap_or(i32::MAX)
}

/// What an interface is.
fn describe(iface: &Iface, request: u64, ifreq: &mut [u8]) -> Result<()> {
    let value = &mut ifreq[16..];
    match request {
        libc::SIOCGIFFLAGS => value[..2].copy_from_slice(&(iface.flags() as u16).to_ne_bytes()),
        libc::SIOCGIFMETRIC => value[..4].fill(0),
        libc::SIOCGIFMTU => value[..4].copy_from_slice(&(iface.mtu() as i32).to_ne_bytes()),
        libc::SIOCGIFINDEX => value[..4].copy_from_slice(&iface.index().to_ne_bytes()),
        libc::SIOCGIFTXQLEN => value[..4].copy_from_slice(&TX_QUEUE_LEN.to_ne_bytes()),
        libc::SIOCGIFMAP => value.fill(0),
        libc::SIOCGIFHWADDR => {
            value[..2].copy_from_slice(&hardware(iface).to_ne_bytes());
            value[2..8].copy_from_slice(&iface.mac().0);
        }
        // Linux: SIOCGIFSLAVE is of other devices.
        _ => return Err(Errno::EINVAL),
    }
    Ok(())
}

/// SIOCGIFADDR and its like.
fn address(tables: &Tables, request: u64, ifreq: &mut [u8]) -> Result<()> {
    let wanted = ipv4(ifreq);
    let iface = named(tables, ifreq)?;
    // 4.4BSD style: the address that the structure has, when it is one; else the label counts.
    let exact = iface.addrs().iter().find(|addr| wanted.is_some_and(|wanted| addr.local() == wanted));
    let addr = match exact {
        Some(addr) => addr,
        None => labelled(iface, ifreq)?.ok_or(Errno::EADDRNOTAVAIL)?,
    };
    let value = match request {
        libc::SIOCGIFADDR => addr.local(),
        libc::SIOCGIFDSTADDR => addr.attrs().peer.unwrap_or(addr.local()),
        libc::SIOCGIFBRDADDR => addr.attrs().broadcast.unwrap_or(Ipv4Addr::UNSPECIFIED).into(),
        _ => mask(addr.cidr().prefix_len()).into(),
    };
    if let IpAddr::V4(value) = value {
        put_ipv4(ifreq, value);
    }
    Ok(())
}

/// SIOCSIFADDR and its like: the address of that label is taken away and comes back changed.
fn set_address(tables: &mut Tables, request: u64, ifreq: &mut [u8]) -> Result<()> {
    let value = ipv4(ifreq).ok_or(Errno::EINVAL)?;
    let iface = named(tables, ifreq)?;
    let (ifindex, ethernet) = (iface.index(), !iface.is_loopback());
    let own_label = (text(&ifreq[..16])? != iface.name()).then(|| text(&ifreq[..16])).transpose()?;
    let own_label = own_label.map(Box::from);
    let old = labelled(iface, ifreq)?.cloned();
    let (cidr, attrs) = match (request, &old) {
        (libc::SIOCSIFADDR, old) => {
            let len = class_len(value).ok_or(Errno::EINVAL)?;
            if old.as_ref().is_some_and(|old| old.local() == value) {
                return Ok(());
            }
            let broadcast = (ethernet && len < 31).then(|| value | !mask(len));
            let label = old.as_ref().map_or(own_label, |old| old.attrs().label.clone());
            // Nothing but a removal, if there is something to remove.
            let cidr = (!value.is_unspecified()).then_some((value, len));
            (cidr, AddrAttrs { label, broadcast, ..AddrAttrs::default() })
        }
        (_, None) => return Err(Errno::EADDRNOTAVAIL),
        (libc::SIOCSIFBRDADDR, Some(old)) => {
            if old.attrs().broadcast.unwrap_or(Ipv4Addr::UNSPECIFIED) == value {
                return Ok(());
            }
            let broadcast = (!value.is_unspecified()).then_some(value);
            (own(old), AddrAttrs { broadcast, ..old.attrs().clone() })
        }
        (libc::SIOCSIFDSTADDR, Some(old)) => {
            if old.attrs().peer.unwrap_or(old.local()) == value {
                return Ok(());
            }
            class_len(value).ok_or(Errno::EINVAL)?;
            let peer = (old.local() != value).then_some(value.into());
            (own(old), AddrAttrs { peer, ..old.attrs().clone() })
        }
        (_, Some(old)) => {
            let len = mask_len(value).ok_or(Errno::EINVAL)?;
            let old_len = old.cidr().prefix_len();
            if len == old_len {
                return Ok(());
            }
            let Some((local, _)) = own(old) else { return Err(Errno::EADDRNOTAVAIL) };
            let mut attrs = old.attrs().clone();
            // A broadcast address that followed from the mask goes on to do so; another one is the program's choice.
            if ethernet && len < 31 && attrs.broadcast == Some(local | !mask(old_len)) {
                attrs.broadcast = Some(local | !mask(len));
            }
            (Some((local, len)), attrs)
        }
    };
    let changed = cidr.map(|(local, len)| prefix(local, len)).transpose()?;
    if let Some(old) = old {
        tables.del_addr(ifindex, old.cidr(), old.attrs().peer)?;
    }
    changed.map_or(Ok(()), |cidr| Ok(tables.add_addr(ifindex, cidr, attrs)?))
}

/// SIOCSIFFLAGS with an alias: without IFF_UP it takes the alias's address away.
fn drop_alias(tables: &mut Tables, ifreq: &mut [u8]) -> Result<()> {
    let iface = named(tables, ifreq)?;
    let ifindex = iface.index();
    let addr = labelled(iface, ifreq)?.cloned().ok_or(Errno::EADDRNOTAVAIL)?;
    let flags = i32::from(i16::from_ne_bytes([ifreq[16], ifreq[17]]));
    if flags & libc::IFF_UP == 0 {
        tables.del_addr(ifindex, addr.cidr(), addr.attrs().peer)?;
    }
    Ok(())
}

/// SIOCADDRT and SIOCDELRT of IPv4: a `struct rtentry`, and behind it the name that its pointer means.
fn ipv4_route(tables: &mut Tables, request: u64, argument: &[u8]) -> Result<()> {
    const LEN: usize = size_of::<libc::rtentry>();
    const DEVICE: usize = std::mem::offset_of!(libc::rtentry, rt_dev);
    let entry = argument.get(..LEN).ok_or(Errno::EINVAL)?;
    let word = |at: usize| u16::from_ne_bytes([entry[at], entry[at + 1]]);
    let sockaddr = |at: usize| {
        let addr =
            entry[at + 4..].first_chunk::<4>().map_or(Ipv4Addr::UNSPECIFIED, |addr| Ipv4Addr::from(*addr));
        (i32::from(word(at)), addr)
    };
    let (family, dst) = sockaddr(std::mem::offset_of!(libc::rtentry, rt_dst));
    let (gateway_family, gateway) = sockaddr(std::mem::offset_of!(libc::rtentry, rt_gateway));
    let (mask_family, netmask) = sockaddr(std::mem::offset_of!(libc::rtentry, rt_genmask));
    let flags = word(std::mem::offset_of!(libc::rtentry, rt_flags));
    let metric = word(std::mem::offset_of!(libc::rtentry, rt_metric)) as i16;
    if family != libc::AF_INET {
        return Err(Errno::EAFNOSUPPORT);
    }
    let mut len = 32;
    if flags & libc::RTF_HOST == 0 {
        if mask_family != libc::AF_INET && (mask_family != 0 || !netmask.is_unspecified()) {
            return Err(Errno::EAFNOSUPPORT);
        }
        // The bits of the host have to be clear.
        len = mask_len(netmask).filter(|_| (dst & !netmask).is_unspecified()).ok_or(Errno::EINVAL)?;
    }
    let cidr = prefix(dst, len)?;
    let metric = if metric == 0 { 0 } else { i32::from(metric) as u32 - 1 };
    let rejects = flags & libc::RTF_REJECT != 0;
    let mut oif = 0;
    if !rejects && entry[DEVICE..DEVICE + size_of::<usize>()].iter().any(|byte| *byte != 0) {
        let name = argument.get(LEN..LEN + libc::IFNAMSIZ).ok_or(Errno::EFAULT)?;
        oif = tables.iface_by_name(device_name(text(name)?)).ok_or(Errno::ENODEV)?.index();
    }
    let gateway = (!rejects && gateway_family == libc::AF_INET && !gateway.is_unspecified())
        .then_some(IpAddr::V4(gateway));
    if request == libc::SIOCDELRT {
        let filter = RouteFilter {
            gateway,
            oif: (oif != 0).then_some(oif),
            metric: (metric != 0).then_some(metric),
            kind: Some(if rejects { RouteKind::Unreachable } else { RouteKind::Unicast }),
            ..RouteFilter::to(cidr)
        };
        return Ok(tables.del_route(&filter)?);
    }
    if flags & libc::RTF_GATEWAY != 0 && gateway.is_none() && !rejects {
        return Err(Errno::EINVAL);
    }
    let far = flags & libc::RTF_GATEWAY != 0
        && gateway.is_some_and(|gateway| tables.is_local(gateway, None).is_none());
    let route = Route {
        gateway,
        metric,
        scope: match (rejects, far) {
            (true, _) => scope::HOST,
            (false, true) => scope::UNIVERSE,
            (false, false) => scope::LINK,
        },
        kind: if rejects { RouteKind::Unreachable } else { RouteKind::Unicast },
        ..Route::new(cidr, oif)
    };
    Ok(tables.put_route(route, ADD)?)
}

/// SIOCADDRT and SIOCDELRT of IPv6: a `struct in6_rtmsg`.
fn ipv6_route(tables: &mut Tables, request: u64, argument: &[u8]) -> Result<()> {
    let message = argument.get(..IN6_RTMSG).ok_or(Errno::EINVAL)?;
    let addr = |at: usize| {
        message[at..].first_chunk::<16>().map_or(Ipv6Addr::UNSPECIFIED, |addr| Ipv6Addr::from(*addr))
    };
    let word = |at: usize| message[at..].first_chunk::<4>().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
    let len = |at: usize| u16::from_ne_bytes([message[at], message[at + 1]]);
    let (dst, gateway) = (addr(0), addr(32));
    let (dst_len, src_len, metric, flags, ifindex) = (len(52), len(54), word(56), word(72), word(76));
    // Routes by source are a feature of Linux's that a kernel may lack, too.
    if dst_len > 128 || src_len != 0 {
        return Err(Errno::EINVAL);
    }
    let cidr = prefix(dst, dst_len as u8)?.network();
    let gateway = (flags & u32::from(libc::RTF_GATEWAY) != 0).then_some(IpAddr::V6(gateway));
    let rejects = flags & u32::from(libc::RTF_REJECT) != 0;
    if request == libc::SIOCDELRT {
        let filter = RouteFilter {
            gateway,
            oif: (ifindex != 0).then_some(ifindex),
            metric: (metric != 0).then_some(metric),
            ..RouteFilter::to(cidr)
        };
        return Ok(tables.del_route(&filter)?);
    }
    if ifindex != 0 && tables.iface(ifindex).is_none() {
        return Err(Errno::ENODEV);
    }
    let route = Route {
        gateway: gateway.filter(|_| !rejects),
        metric: if metric == 0 { METRIC_USER } else { metric },
        kind: if rejects { RouteKind::Unreachable } else { RouteKind::Unicast },
        ..Route::new(cidr, if rejects { 0 } else { ifindex })
    };
    Ok(tables.put_route(route, AddMode::ADD)?)
}

/// SIOCSIFADDR and SIOCDIFADDR of IPv6: a `struct in6_ifreq`.
fn ipv6_address(tables: &mut Tables, request: u64, argument: &[u8]) -> Result<()> {
    let message = argument.first_chunk::<IN6_IFREQ>().ok_or(Errno::EINVAL)?;
    let addr = message.first_chunk::<16>().map_or(Ipv6Addr::UNSPECIFIED, |addr| Ipv6Addr::from(*addr));
    let word = |at: usize| message[at..].first_chunk::<4>().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
    let (len, ifindex) = (word(16), word(20));
    let len = u8::try_from(len).ok().filter(|len| *len <= 128).ok_or(Errno::EINVAL)?;
    let cidr = prefix(addr, len)?;
    let iface = tables.iface(ifindex).ok_or(Errno::ENODEV)?;
    if request == libc::SIOCDIFADDR {
        let held = iface.addrs().iter().find(|held| held.cidr() == cidr).ok_or(Errno::EADDRNOTAVAIL)?;
        let peer = held.attrs().peer;
        return Ok(tables.del_addr(ifindex, cidr, peer)?);
    }
    let state = if iface.is_loopback() { AddrState::Preferred } else { tables.initial_state() };
    Ok(tables.add_addr(ifindex, cidr, AddrAttrs { state, ..AddrAttrs::default() })?)
}

fn ifreq(argument: &mut [u8]) -> Result<&mut [u8]> {
    argument.get_mut(..IFREQ).ok_or(Errno::EINVAL)
}

/// The interface of a `struct ifreq`, whose name may have an alias's number behind a colon.
fn named<'t>(tables: &'t Tables, ifreq: &[u8]) -> Result<&'t Iface> {
    tables.iface_by_name(device_name(text(&ifreq[..16])?)).ok_or(Errno::ENODEV)
}

/// The first address whose label a `struct ifreq` has.
fn labelled<'t>(iface: &'t Iface, ifreq: &[u8]) -> Result<Option<&'t Addr>> {
    let name = text(&ifreq[..16])?;
    Ok(iface.addrs().iter().find(|addr| addr.local().is_ipv4() && label(iface, addr) == name))
}

fn label<'t>(iface: &'t Iface, addr: &'t Addr) -> &'t str {
    addr.attrs().label.as_deref().unwrap_or(iface.name())
}

fn has_label(ifreq: &[u8]) -> bool {
    text(&ifreq[..16]).is_ok_and(|name| name.contains(':'))
}

fn device_name(name: &str) -> &str {
    name.split_once(':').map_or(name, |(device, _)| device)
}

/// A name of up to 15 bytes. One that is not text is nobody's.
fn text(name: &[u8]) -> Result<&str> {
    let name = &name[..name.len().min(libc::IFNAMSIZ - 1)];
    let name = name.split(|byte| *byte == 0).next().unwrap_or(&[]);
    std::str::from_utf8(name).map_err(|_| Errno::ENODEV)
}

fn put_name(ifreq: &mut [u8], name: &str) {
    ifreq[..16].fill(0);
    let len = name.len().min(libc::IFNAMSIZ - 1);
    ifreq[..len].copy_from_slice(&name.as_bytes()[..len]);
}

/// `ifr_ifindex`, `ifr_mtu` and others.
fn number(ifreq: &[u8]) -> i32 {
    i32::from_ne_bytes([ifreq[16], ifreq[17], ifreq[18], ifreq[19]])
}

/// The `struct sockaddr_in`, when it is one.
fn ipv4(ifreq: &[u8]) -> Option<Ipv4Addr> {
    let family = i32::from(u16::from_ne_bytes([ifreq[16], ifreq[17]]));
    (family == libc::AF_INET).then(|| Ipv4Addr::new(ifreq[20], ifreq[21], ifreq[22], ifreq[23]))
}

fn put_ipv4(ifreq: &mut [u8], addr: Ipv4Addr) {
    ifreq[16..32].fill(0);
    ifreq[16..18].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    ifreq[20..24].copy_from_slice(&addr.octets());
}

fn own(addr: &Addr) -> Option<(Ipv4Addr, u8)> {
    match addr.local() {
        IpAddr::V4(local) => Some((local, addr.cidr().prefix_len())),
        IpAddr::V6(_) => None,
    }
}

fn prefix(addr: impl Into<IpAddr>, len: u8) -> Result<Cidr> {
    Cidr::new(addr.into(), len).map_err(|_| Errno::EINVAL)
}

fn hardware(iface: &Iface) -> u16 {
    if iface.is_loopback() { libc::ARPHRD_LOOPBACK } else { libc::ARPHRD_ETHER }
}

fn mask(len: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0))
}

/// The length of a mask that is ones, then zeroes.
fn mask_len(mask: Ipv4Addr) -> Option<u8> {
    let bits = u32::from(mask);
    (bits.leading_ones() + bits.trailing_zeros() == 32).then(|| bits.leading_ones() as u8)
}

/// `inet_abc_len()`: the length of the prefix that an address's class has.
fn class_len(addr: Ipv4Addr) -> Option<u8> {
    match addr.octets()[0] {
        0 => Some(0),
        _ if addr.is_broadcast() => Some(0),
        1..=127 => Some(8),
        128..=191 => Some(16),
        192..=223 => Some(24),
        224..=239 => None,
        240.. => Some(32),
    }
}

/// `NLM_F_CREATE` alone: a second route to the same prefix goes before the first, an equal one is refused.
const ADD: AddMode = AddMode { create: true, exclusive: false, replace: false, append: false };

// linux/sockios.h, where libc has them not.
const SIOCRTMSG: u64 = 0x890D;
const SIOCSIFPFLAGS: u64 = 0x8934;
const SIOCGIFPFLAGS: u64 = 0x8935;
