//! `RTM_*ADDR`: addresses.

use std::net::IpAddr;

use ioth_core::{Cidr, Errno};

use crate::engine::addr::{Addr, AddrAttrs, AddrState, FOREVER};
use crate::engine::tables::Tables;

use super::Fault;
use super::wire::{Attrs, Header, Request, Writer, u32_at};

/// Length of `struct ifaddrmsg`.
pub(super) const INFO: usize = 8;

/// `IFA_F_*` that a program may set.
const SETTABLE: u32 =
    libc::IFA_F_NODAD | libc::IFA_F_HOMEADDRESS | libc::IFA_F_MANAGETEMPADDR | libc::IFA_F_NOPREFIXROUTE;

/// Looks up one address: Linux does so with IPv6 only.
pub(super) fn get(tables: &Tables, request: &Request<'_>, reply: &mut Vec<u8>) -> Result<(), Fault> {
    if request.family() != libc::AF_INET6 {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let (info, attrs) = request.split::<INFO>()?;
    let (local, _) = pair(attrs, true)?;
    let local = local.ok_or(Errno::EINVAL)?;
    let ifindex = index(&info);
    let mut found = tables.addrs().filter(|addr| addr.local() == local);
    let addr = found.find(|addr| ifindex == 0 || addr.ifindex() == ifindex).ok_or(Errno::EADDRNOTAVAIL)?;
    put(reply, tables, addr, libc::RTM_NEWADDR, request.reply());
    Ok(())
}

pub(super) fn new(tables: &mut Tables, request: &Request<'_>) -> Result<(), Fault> {
    let ipv6 = ipv6(request)?;
    let (info, attrs) = request.split::<INFO>()?;
    let (local, peer) = pair(attrs, ipv6)?;
    let local = local.ok_or(Errno::EINVAL)?;
    let cidr = Cidr::new(local, info[1]).map_err(|_| Fault::new(Errno::EINVAL, "Invalid prefix length"))?;
    let ifindex = index(&info);
    let cacheinfo = attrs.array::<16>(libc::IFA_CACHEINFO)?;
    let life = |at| cacheinfo.and_then(|cacheinfo| u32_at(&cacheinfo, at)).unwrap_or(FOREVER);
    let (preferred, valid) = (life(0), life(4));
    let flags = attrs.u32(libc::IFA_FLAGS)?.unwrap_or(u32::from(info[2])) & SETTABLE;
    let on_loopback = tables.iface(ifindex).is_some_and(|iface| iface.is_loopback());
    let state = if preferred == 0 {
        AddrState::Deprecated
    } else if ipv6 && !on_loopback && flags & libc::IFA_F_NODAD == 0 {
        tables.initial_state()
    } else {
        AddrState::Preferred
    };
    let broadcast = match attrs.ip(libc::IFA_BROADCAST, false) {
        Ok(Some(IpAddr::V4(broadcast))) if !ipv6 => Some(broadcast),
        Err(fault) if !ipv6 => return Err(fault),
        _ => None,
    };
    let new = AddrAttrs {
        flags,
        valid,
        preferred,
        scope: (!ipv6).then_some(info[3]),
        label: attrs.text(libc::IFA_LABEL, 15)?.filter(|label| !ipv6 && !label.is_empty()).map(Into::into),
        proto: attrs.get(IFA_PROTO).and_then(|value| value.first().copied()).unwrap_or(0),
        broadcast,
        peer,
        metric: attrs.u32(IFA_RT_PRIORITY)?.unwrap_or(0),
        state,
    };
    match tables.add_addr(ifindex, cidr, new.clone()) {
        Err(crate::engine::addr::AddrError::Exists)
            if request.header.has(libc::NLM_F_REPLACE) && !request.header.has(libc::NLM_F_EXCL) =>
        {
            // An address under way through duplicate detection stays so.
            let addrs = tables.addrs_of(ifindex).iter();
            let old = addrs.clone().find(|addr| addr.cidr() == cidr).map(|addr| addr.state());
            let state = match old {
                Some(AddrState::Tentative) => AddrState::Tentative,
                _ if preferred == 0 => AddrState::Deprecated,
                _ => AddrState::Preferred,
            };
            Ok(tables.update_addr(ifindex, cidr, AddrAttrs { state, ..new })?)
        }
        result => Ok(result?),
    }
}

pub(super) fn del(tables: &mut Tables, request: &Request<'_>) -> Result<(), Fault> {
    let ipv6 = ipv6(request)?;
    let (info, attrs) = request.split::<INFO>()?;
    let ifindex = index(&info);
    let local = pair(attrs, ipv6)?.0;
    if ipv6 && local.is_none() {
        return Err(Errno::EINVAL.into());
    }
    let iface = tables.iface(ifindex).ok_or(Errno::ENODEV)?;
    let named = if ipv6 { local } else { attrs.ip(libc::IFA_LOCAL, false)? };
    let in_prefix = attrs.ip(libc::IFA_ADDRESS, ipv6)?.filter(|_| !ipv6);
    let label = attrs.text(libc::IFA_LABEL, 15)?.filter(|_| !ipv6);
    // Linux takes the first IPv4 address that agrees with all that is given, and the length counts only
    // together with IFA_ADDRESS; with IPv6 it must be equal.
    let matches = |addr: &&Addr| {
        addr.local().is_ipv6() == ipv6
            && named.is_none_or(|named| named == addr.local())
            && (!ipv6 || addr.cidr().prefix_len() == info[1])
            && in_prefix
                .is_none_or(|address| addr.cidr().prefix_len() == info[1] && addr.prefix().contains(address))
            && label.is_none_or(|label| label == addr.attrs().label.as_deref().unwrap_or(iface.name()))
    };
    let found = iface.addrs().iter().find(matches).map(|addr| (addr.cidr(), addr.attrs().peer));
    let (cidr, peer) = found.ok_or(Fault::new(Errno::EADDRNOTAVAIL, "Address not found"))?;
    Ok(tables.del_addr(ifindex, cidr, peer)?)
}

/// Appends the message that describes an address.
pub(super) fn put(buffer: &mut Vec<u8>, tables: &Tables, addr: &Addr, kind: u16, to: Header) {
    let mut writer = Writer::begin(buffer, kind, to.flags, to.seq, to.port);
    let local = addr.local();
    let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    writer.put(&[family as u8, addr.cidr().prefix_len(), addr.flags() as u8, addr.scope()]);
    writer.put(&addr.ifindex().to_ne_bytes());
    writer.ip(libc::IFA_ADDRESS, addr.attrs().peer.unwrap_or(local));
    // With IPv6 Linux tells the local address apart only if there is a peer.
    if local.is_ipv4() || addr.attrs().peer.is_some() {
        writer.ip(libc::IFA_LOCAL, local);
    }
    if let Some(broadcast) = addr.attrs().broadcast {
        writer.ip(libc::IFA_BROADCAST, broadcast.into());
    }
    if local.is_ipv4() {
        let name = tables.iface(addr.ifindex()).map_or("", |iface| iface.name());
        writer.text(libc::IFA_LABEL, addr.attrs().label.as_deref().unwrap_or(name));
    }
    if addr.attrs().proto != 0 {
        writer.u8(IFA_PROTO, addr.attrs().proto);
    }
    writer.u32(libc::IFA_FLAGS, addr.flags());
    if addr.attrs().metric != 0 {
        writer.u32(IFA_RT_PRIORITY, addr.attrs().metric);
    }
    let (preferred, valid) = addr.remaining(tables.now());
    // Time stamps are in hundredths of a second since the node began.
    let stamp = |millis: u64| (millis / 10) as u32;
    let cacheinfo = [preferred, valid, stamp(addr.created()), stamp(addr.updated())];
    writer.attr(libc::IFA_CACHEINFO, &cacheinfo.map(u32::to_ne_bytes).concat());
    writer.end();
}

/// The family of a request that changes addresses.
fn ipv6(request: &Request<'_>) -> Result<bool, Fault> {
    match request.family() {
        libc::AF_INET => Ok(false),
        libc::AF_INET6 => Ok(true),
        _ => Err(Errno::EOPNOTSUPP.into()),
    }
}

fn index(info: &[u8; INFO]) -> u32 {
    u32::from_ne_bytes([info[4], info[5], info[6], info[7]])
}

/// The local address and its peer: IFA_LOCAL and IFA_ADDRESS, of which IPv6 may have either.
fn pair(attrs: Attrs<'_>, ipv6: bool) -> Result<(Option<IpAddr>, Option<IpAddr>), Fault> {
    let local = attrs.ip(libc::IFA_LOCAL, ipv6)?;
    let address = attrs.ip(libc::IFA_ADDRESS, ipv6)?;
    let local = if ipv6 { local.or(address) } else { local };
    Ok((local, address.filter(|address| Some(*address) != local && local.is_some())))
}

// linux/if_addr.h, where libc has them not.
const IFA_RT_PRIORITY: u16 = 9;
const IFA_PROTO: u16 = 11;
