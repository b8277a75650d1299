//! `RTM_*LINK`: interfaces.

use ioth_core::{Errno, MacAddr};

use crate::engine::iface::{Iface, LOOPBACK};
use crate::engine::tables::Tables;

use super::wire::{Attrs, Header, Request, Writer, u32_at};
use super::{Fault, Host, LinkStats, NewLink, VDE};

/// Length of `struct ifinfomsg`.
pub(super) const INFO: usize = 16;

/// Longest name that a request may have, without its NUL: `IFNAMSIZ` and, for alternative names, `ALTIFNAMSIZ`.
const MAX_NAME: usize = 15;

/// Longest virtual network locator in a request, in bytes.
const MAX_LOCATOR: usize = 4096;

pub(super) fn get(
    tables: &Tables,
    host: &dyn Host,
    request: &Request<'_>,
    reply: &mut Vec<u8>,
) -> Result<(), Fault> {
    let (info, attrs) = request.split::<INFO>()?;
    let found = find(tables, &info, attrs)?.ok_or(Errno::EINVAL)?;
    let iface = found.ok_or(Errno::ENODEV)?;
    put(reply, host, iface, libc::RTM_NEWLINK, request.reply());
    Ok(())
}

/// `RTM_NEWLINK` changes an interface that is there and makes one that is not.
pub(super) fn new(
    tables: &mut Tables,
    host: &mut dyn Host,
    request: &Request<'_>,
    reply: &mut Vec<u8>,
) -> Result<(), Fault> {
    let (info, attrs) = request.split::<INFO>()?;
    let header = request.header;
    if let Some(iface) = find(tables, &info, attrs)?.flatten() {
        let ifindex = iface.index();
        if header.has(libc::NLM_F_EXCL) {
            return Err(Errno::EEXIST.into());
        }
        if header.has(libc::NLM_F_REPLACE) {
            return Err(Errno::EOPNOTSUPP.into());
        }
        return change(tables, host, ifindex, &info, attrs);
    }
    if !header.has(libc::NLM_F_CREATE) {
        return Err(Errno::ENODEV.into());
    }
    // Linux gives the index that is asked for. Here it is a place in tables, which a big one would make big.
    if i32::from_ne_bytes([info[4], info[5], info[6], info[7]]) > 0 {
        return Err(Fault::new(Errno::EOPNOTSUPP, "the user-space stack numbers its interfaces itself"));
    }
    let link = described(attrs)?;
    let ifindex = host.create_link(tables, &link)?;
    set_flags(tables, host, ifindex, &info)?;
    // A caller that asks for the new index, or for an echo, is answered with the interface.
    if attrs.has(IFLA_NEW_IFINDEX) || header.has(libc::NLM_F_ECHO) {
        let iface = tables.iface(ifindex).ok_or(Errno::ENODEV)?;
        put(reply, host, iface, libc::RTM_NEWLINK, request.reply());
    }
    Ok(())
}

/// The VNL that a request wants to be opened: it makes an interface of kind [`VDE`], and there is none of that name.
pub(super) fn wanted<'a>(tables: &Tables, request: &Request<'a>) -> Option<&'a str> {
    let (info, attrs) = request.split::<INFO>().ok()?;
    let absent = find(tables, &info, attrs).ok()?.flatten().is_none();
    let link = described(attrs).ok().filter(|link| link.kind == VDE)?;
    (absent && request.header.has(libc::NLM_F_CREATE)).then_some(link.locator).flatten()
}

pub(super) fn set(tables: &mut Tables, host: &mut dyn Host, request: &Request<'_>) -> Result<(), Fault> {
    let (info, attrs) = request.split::<INFO>()?;
    let iface = find(tables, &info, attrs)?.ok_or(Errno::EINVAL)?.ok_or(Errno::ENODEV)?;
    let ifindex = iface.index();
    change(tables, host, ifindex, &info, attrs)
}

pub(super) fn del(tables: &mut Tables, host: &mut dyn Host, request: &Request<'_>) -> Result<(), Fault> {
    let (info, attrs) = request.split::<INFO>()?;
    let iface = find(tables, &info, attrs)?.ok_or(Errno::EINVAL)?.ok_or(Errno::ENODEV)?;
    let ifindex = iface.index();
    if ifindex == LOOPBACK {
        return Err(Errno::EOPNOTSUPP.into());
    }
    Ok(host.delete_link(tables, ifindex)?)
}

/// Appends the message that describes an interface.
pub(super) fn put(buffer: &mut Vec<u8>, host: &dyn Host, iface: &Iface, kind: u16, to: Header) {
    let mut writer = Writer::begin(buffer, kind, to.flags, to.seq, to.port);
    let hardware = if iface.is_loopback() { libc::ARPHRD_LOOPBACK } else { libc::ARPHRD_ETHER };
    writer.put(&[libc::AF_UNSPEC as u8, 0]);
    writer.put(&hardware.to_ne_bytes());
    writer.put(&iface.index().to_ne_bytes());
    writer.put(&iface.flags().to_ne_bytes());
    writer.put(&[0; 4]);
    writer.text(libc::IFLA_IFNAME, iface.name());
    writer.u32(libc::IFLA_TXQLEN, 1000);
    writer.u8(libc::IFLA_OPERSTATE, oper_state(iface));
    writer.u8(libc::IFLA_LINKMODE, 0);
    writer.u32(libc::IFLA_MTU, iface.mtu() as u32);
    writer.u32(libc::IFLA_MIN_MTU, crate::engine::iface::MIN_MTU as u32);
    writer.u32(libc::IFLA_MAX_MTU, iface.max_mtu() as u32);
    writer.u32(libc::IFLA_GROUP, 0);
    writer.u32(libc::IFLA_PROMISCUITY, 0);
    writer.u32(libc::IFLA_NUM_TX_QUEUES, 1);
    writer.u32(libc::IFLA_NUM_RX_QUEUES, 1);
    writer.u8(libc::IFLA_CARRIER, iface.has_carrier().into());
    writer.text(libc::IFLA_QDISC, if iface.is_up() { "noqueue" } else { "noop" });
    writer.attr(libc::IFLA_ADDRESS, &iface.mac().0);
    let broadcast = if iface.is_loopback() { MacAddr::UNSPECIFIED } else { MacAddr::BROADCAST };
    writer.attr(libc::IFLA_BROADCAST, &broadcast.0);
    let counters = counters(host.link_stats(iface.index()));
    writer.attr(libc::IFLA_STATS64, &counters.map(u64::to_ne_bytes).concat());
    // The 32-bit counters wrap, as Linux's do.
    writer.attr(libc::IFLA_STATS, &counters.map(|n| (n as u32).to_ne_bytes())[..STATS32].concat());
    if let Some((kind, locator)) = host.link_info(iface.index()) {
        writer.nest(libc::IFLA_LINKINFO, |writer| {
            writer.text(IFLA_INFO_KIND, &kind);
            writer.nest(IFLA_INFO_DATA, |writer| writer.text(1, &locator));
        });
    }
    writer.end();
}

/// The interface that a request names by index or else by name; `None` when it names none.
fn find<'t>(
    tables: &'t Tables,
    info: &[u8; INFO],
    attrs: Attrs<'_>,
) -> Result<Option<Option<&'t Iface>>, Fault> {
    let name = attrs.text(libc::IFLA_IFNAME, MAX_NAME)?;
    let index = i32::from_ne_bytes([info[4], info[5], info[6], info[7]]);
    if index > 0 {
        return Ok(Some(tables.iface(index as u32)));
    }
    // Upstream's iplink_add asks for "any index" with -1; Linux knows 0 only.
    if index < 0 && !attrs.has(IFLA_NEW_IFINDEX) {
        return Err(Fault::new(Errno::EINVAL, "ifindex can't be negative"));
    }
    Ok(name.filter(|name| !name.is_empty()).map(|name| tables.iface_by_name(name)))
}

/// The interface that a request wants to be made.
fn described(attrs: Attrs<'_>) -> Result<NewLink<'_>, Fault> {
    let link_info = attrs.get(libc::IFLA_LINKINFO).map(Attrs);
    let kind = link_info.map(|info| info.text(IFLA_INFO_KIND, MAX_NAME)).transpose()?.flatten();
    let kind = kind.ok_or(Fault::new(Errno::EOPNOTSUPP, "Unknown device type"))?;
    let data = link_info.and_then(|info| info.get(IFLA_INFO_DATA)).map(Attrs);
    Ok(NewLink {
        kind,
        locator: data.map(|data| data.text(1, MAX_LOCATOR)).transpose()?.flatten(),
        name: attrs.text(libc::IFLA_IFNAME, MAX_NAME)?.filter(|name| !name.is_empty()),
        mac: mac(attrs)?,
        mtu: attrs.u32(libc::IFLA_MTU)?.map(|mtu| mtu as usize),
    })
}

/// Carries out what a request asks of an interface, in Linux's order.
fn change(
    tables: &mut Tables,
    host: &mut dyn Host,
    ifindex: u32,
    info: &[u8; INFO],
    attrs: Attrs<'_>,
) -> Result<(), Fault> {
    let refused = REFUSED.iter().any(|kind| attrs.has(*kind));
    if refused || attrs.u32(libc::IFLA_MASTER)?.is_some_and(|master| master != 0) {
        return Err(Fault::new(Errno::EOPNOTSUPP, "the user-space stack cannot change this of an interface"));
    }
    let result = configure(tables, ifindex, attrs);
    // What came before an error was done.
    host.link_changed(tables, ifindex);
    result?;
    set_flags(tables, host, ifindex, info)
}

fn configure(tables: &mut Tables, ifindex: u32, attrs: Attrs<'_>) -> Result<(), Fault> {
    let mtu = attrs.u32(libc::IFLA_MTU)?;
    let name = attrs.text(libc::IFLA_IFNAME, MAX_NAME)?.filter(|name| !name.is_empty());
    if let Some(mac) = mac(attrs)? {
        tables.set_mac(ifindex, mac)?;
    }
    if let Some(mtu) = mtu {
        tables.set_mtu(ifindex, mtu as usize)?;
    }
    if let Some(name) = name {
        tables.rename(ifindex, name)?;
    }
    Ok(())
}

fn set_flags(tables: &mut Tables, host: &mut dyn Host, ifindex: u32, info: &[u8; INFO]) -> Result<(), Fault> {
    let flags = u32_at(info, 8).unwrap_or(0);
    let mask = u32_at(info, 12).unwrap_or(0);
    let up = libc::IFF_UP as u32;
    // Linux: without a mask the flags mean all of them, unless there are none.
    if mask & up != 0 || mask == 0 && flags != 0 {
        tables.set_up(ifindex, flags & up != 0)?;
        host.link_changed(tables, ifindex);
    }
    Ok(())
}

fn mac(attrs: Attrs<'_>) -> Result<Option<MacAddr>, Fault> {
    let Some(value) = attrs.get(libc::IFLA_ADDRESS) else { return Ok(None) };
    let mac = value.first_chunk::<6>().ok_or(Errno::EINVAL)?;
    Ok(Some(MacAddr(*mac)))
}

/// RFC 2863's operational state.
fn oper_state(iface: &Iface) -> u8 {
    match (iface.is_loopback(), iface.is_running()) {
        (_, false) => IF_OPER_DOWN,
        (true, true) => IF_OPER_UNKNOWN,
        (false, true) => IF_OPER_UP,
    }
}

/// `struct rtnl_link_stats64` from its first field.
fn counters(stats: LinkStats) -> [u64; STATS64] {
    let mut counters = [0; STATS64];
    counters[..9].copy_from_slice(&[
        stats.rx_packets,
        stats.tx_packets,
        stats.rx_bytes,
        stats.tx_bytes,
        stats.rx_errors,
        stats.tx_errors,
        stats.rx_dropped,
        stats.tx_dropped,
        stats.multicast,
    ]);
    counters
}

/// Fields of `struct rtnl_link_stats64` and `struct rtnl_link_stats`.
const STATS64: usize = 25;
const STATS32: usize = 24;

/// What cannot be changed here: saying so is better than pretending.
const REFUSED: [u16; 4] =
    [libc::IFLA_TXQLEN, libc::IFLA_NET_NS_PID, libc::IFLA_NET_NS_FD, libc::IFLA_IFALIAS];

// linux/if_link.h and linux/if.h, where libc has them not.
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_NEW_IFINDEX: u16 = 49;
const IF_OPER_UNKNOWN: u8 = 0;
const IF_OPER_DOWN: u8 = 2;
const IF_OPER_UP: u8 = 6;
