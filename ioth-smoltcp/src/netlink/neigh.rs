//! `RTM_*NEIGH`: the neighbour table.

use std::net::IpAddr;

use ioth_core::{Errno, MacAddr};

use crate::engine::tables::Tables;

use super::wire::{Attrs, Header, Request, Writer};
use super::{Fault, Host, Neighbour};

/// Length of `struct ndmsg`.
pub(super) const INFO: usize = 12;

/// Looks up one neighbour.
pub(super) fn get(
    tables: &Tables,
    host: &dyn Host,
    request: &Request<'_>,
    reply: &mut Vec<u8>,
) -> Result<(), Fault> {
    let (ifindex, addr, ..) = read(tables, request)?;
    let mut neighbours = host.neighbours().into_iter();
    let found = neighbours.find(|neighbour| neighbour.ifindex == ifindex && neighbour.addr == addr);
    put(reply, &found.ok_or(Errno::ENOENT)?, request.reply());
    Ok(())
}

pub(super) fn new(tables: &Tables, host: &mut dyn Host, request: &Request<'_>) -> Result<(), Fault> {
    let (ifindex, addr, info, attrs) = read(tables, request)?;
    let header = request.header;
    let there = host.neighbours().iter().any(|other| other.ifindex == ifindex && other.addr == addr);
    if there && header.has(libc::NLM_F_EXCL) {
        return Err(Errno::EEXIST.into());
    }
    if !there && !header.has(libc::NLM_F_CREATE) {
        return Err(Errno::ENOENT.into());
    }
    let mac = match attrs.get(libc::NDA_LLADDR) {
        Some(value) => Some(MacAddr(*value.first_chunk().ok_or(Errno::EINVAL)?)),
        None => None,
    };
    let neighbour =
        Neighbour { ifindex, addr, mac, state: u16::from_ne_bytes([info[8], info[9]]), flags: info[10] };
    Ok(host.set_neighbour(tables, &neighbour, header.has(libc::NLM_F_REPLACE))?)
}

pub(super) fn del(tables: &Tables, host: &mut dyn Host, request: &Request<'_>) -> Result<(), Fault> {
    let (ifindex, addr, ..) = read(tables, request)?;
    Ok(host.delete_neighbour(tables, ifindex, addr)?)
}

/// Appends the message that describes a neighbour.
pub(super) fn put(buffer: &mut Vec<u8>, neighbour: &Neighbour, to: Header) {
    let mut writer = Writer::begin(buffer, libc::RTM_NEWNEIGH, to.flags, to.seq, to.port);
    let family = if neighbour.addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    writer.put(&[family as u8, 0, 0, 0]);
    writer.put(&neighbour.ifindex.to_ne_bytes());
    writer.put(&neighbour.state.to_ne_bytes());
    writer.put(&[neighbour.flags, libc::RTN_UNICAST]);
    writer.ip(libc::NDA_DST, neighbour.addr);
    if let Some(mac) = neighbour.mac {
        writer.attr(libc::NDA_LLADDR, &mac.0);
    }
    writer.end();
}

/// The interface of a dump request, 0 for all.
pub(super) fn filter(request: &Request<'_>) -> u32 {
    let (info, attrs) = request.split_short::<INFO>();
    let index = u32::from_ne_bytes([info[4], info[5], info[6], info[7]]);
    attrs.u32(NDA_IFINDEX).ok().flatten().unwrap_or(index)
}

/// Interface, address, fixed part and attributes of a request about one neighbour.
fn read<'a>(tables: &Tables, request: &Request<'a>) -> Result<(u32, IpAddr, [u8; INFO], Attrs<'a>), Fault> {
    let (info, attrs) = request.split::<INFO>()?;
    let addr = attrs.get(libc::NDA_DST).ok_or(Fault::new(Errno::EINVAL, "Network address not specified"))?;
    let ipv6 = match request.family() {
        libc::AF_INET => false,
        libc::AF_INET6 => true,
        libc::AF_UNSPEC => return Err(Errno::EINVAL.into()),
        _ => return Err(Errno::EAFNOSUPPORT.into()),
    };
    let ifindex = u32::from_ne_bytes([info[4], info[5], info[6], info[7]]);
    let short = Fault::new(Errno::EINVAL, "Invalid network address");
    let addr = if ipv6 {
        IpAddr::from(*addr.first_chunk::<16>().ok_or(short)?)
    } else {
        IpAddr::from(*addr.first_chunk::<4>().ok_or(short)?)
    };
    tables.iface(ifindex).ok_or(if ifindex == 0 { Errno::EINVAL } else { Errno::ENODEV })?;
    Ok((ifindex, addr, info, attrs))
}

// linux/neighbour.h, where libc has it not.
const NDA_IFINDEX: u16 = 8;
