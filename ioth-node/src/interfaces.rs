//! Interfaces and their addresses, as programs ask for them by getifaddrs(3) and if_nametoindex(3).

use ioth::core::netlink::LinkStats;
use ioth::{Errno, InterfaceAddress as Entry, Stack};
use ioth_node_proto::{InterfaceAddress, Item, Reply};

use crate::row::RowWriter;

/// A row of the entries from number `skip` on, as many as fit.
pub(crate) fn list(stack: &Stack, skip: i32) -> Result<(Reply, Vec<u8>), Errno> {
    let entries = stack.getifaddrs().map_err(|error| error.errno())?;
    let skip = usize::try_from(skip).map_err(|_| Errno::EINVAL)?;
    let mut row = RowWriter::default();
    for entry in entries.iter().skip(skip) {
        if !put(&mut row, entry) {
            break;
        }
    }
    let count = i32::try_from(entries.len()).unwrap_or(i32::MAX);
    Ok((Reply { args: [count, 0], ..Reply::default() }, row.into_bytes()))
}

fn put(row: &mut RowWriter, entry: &Entry) -> bool {
    let other = entry.broadcast.or(entry.destination).map(|addr| addr.to_raw());
    let netmask = entry.netmask.map(|addr| addr.to_raw());
    let stats = entry.stats.as_ref().map(counters);
    row.push(&Item::Interface(InterfaceAddress {
        index: entry.index,
        flags: entry.flags.bits(),
        name: entry.name.as_bytes(),
        addr: &entry.addr.to_raw(),
        netmask: netmask.as_deref().unwrap_or_default(),
        other: other.as_deref().unwrap_or_default(),
        stats: stats.as_ref().map_or(&[], |stats| &stats[..]),
    }))
}

/// A `struct rtnl_link_stats`: the first ten counters, as Linux cuts them to 32 bits.
fn counters(stats: &LinkStats) -> [u8; InterfaceAddress::STATS_LEN] {
    let known = [
        stats.rx_packets,
        stats.tx_packets,
        stats.rx_bytes,
        stats.tx_bytes,
        stats.rx_errors,
        stats.tx_errors,
        stats.rx_dropped,
        stats.tx_dropped,
        stats.multicast,
        stats.collisions,
    ];
    let mut raw = [0; InterfaceAddress::STATS_LEN];
    for (place, counter) in raw.chunks_exact_mut(4).zip(known) {
        place.copy_from_slice(&(counter as u32).to_ne_bytes());
    }
    raw
}

#[cfg(test)]
mod tests {
    use ioth::SockAddr;
    use ioth_node_proto::Row;

    use super::*;

    #[test]
    fn entries_are_told_in_parts() {
        let stack = Stack::newstack("smoltcp", Some("switch://ioth-interfaces")).unwrap();
        let vde0 = stack.if_nametoindex("vde0").unwrap();
        stack.ipaddr_add("10.1.2.3/20".parse().unwrap(), vde0).unwrap();
        let (reply, row) = list(&stack, 0).unwrap();
        let entries: Vec<_> = Row::new(&row).collect();
        assert_eq!(reply.args[0] as usize, entries.len());
        let Some(Item::Interface(lo)) = entries.first() else { panic!("{entries:?}") };
        assert_eq!((lo.name, lo.index, lo.netmask.len()), (&b"lo"[..], 1, 0));
        assert_eq!(SockAddr::from_raw(lo.addr).unwrap().domain(), ioth::Domain::PACKET);
        assert!([0, InterfaceAddress::STATS_LEN].contains(&lo.stats.len()));
        let is_added = |item: &Item<'_>| matches!(item, Item::Interface(entry) if entry.netmask.len() == 16 && entry.index == vde0);
        let at = entries.iter().position(is_added).unwrap();
        let Item::Interface(added) = entries[at] else { unreachable!() };
        let ip = |raw| SockAddr::from_raw(raw).unwrap().as_ip().unwrap().ip().to_string();
        assert_eq!((added.name, added.index), (&b"vde0"[..], vde0));
        assert_eq!((ip(added.addr), ip(added.netmask)), ("10.1.2.3".to_owned(), "255.255.240.0".to_owned()));
        let (reply, rest) = list(&stack, at as i32).unwrap();
        assert_eq!(reply.args[0] as usize, entries.len());
        assert_eq!(Row::new(&rest).collect::<Vec<_>>(), entries[at..]);
        assert_eq!(list(&stack, -1), Err(Errno::EINVAL));
    }
}
