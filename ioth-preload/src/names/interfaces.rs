//! getifaddrs(3), if_nametoindex(3) and their kin.

use std::ffi::{c_uint, c_void};
use std::mem::offset_of;

use ioth_node_calls::control::Question;
use ioth_node_calls::{Errno, Result};
use ioth_node_proto::{ADDR_MAX, InterfaceAddress, Item, Op};
use libc::{ifaddrs, sockaddr};

use super::{ROOM, ask};
use crate::sys::room::Room;

/// What each entry of getifaddrs(3) takes at most, in bytes.
const ENTRY_MAX: usize = size_of::<ifaddrs>()
    + (u8::MAX as usize + 1).next_multiple_of(8)
    + 3 * ADDR_MAX
    + InterfaceAddress::STATS_LEN;

/// Tells of each entry, in order, as long as `hear` wants more. `count` hears first how many there are.
fn each(mut count: impl FnMut(usize), mut hear: impl FnMut(&InterfaceAddress<'_>) -> bool) -> Result<()> {
    let mut done = 0;
    loop {
        let mut row = [0; ROOM];
        let (reply, row) = ask(&Question::general(Op::Interfaces, [done, 0, 0, 0]), &[], &mut row)?;
        if reply.result < 0 {
            return Err(Errno(reply.result.saturating_neg()));
        }
        let all = reply.args[0];
        if done == 0 {
            count(usize::try_from(all).unwrap_or(0));
        }
        let before = done;
        for item in row {
            let Item::Interface(entry) = item else { continue };
            done += 1;
            if !hear(&entry) {
                return Ok(());
            }
        }
        if done >= all || done == before {
            return Ok(());
        }
    }
}

/// Tells of each interface.
fn each_interface(
    count: impl FnMut(usize),
    mut hear: impl FnMut(&InterfaceAddress<'_>) -> bool,
) -> Result<()> {
    each(count, |entry| !is_interface(entry) || hear(entry))
}

/// Whether it is the entry of an interface, of which each has one.
fn is_interface(entry: &InterfaceAddress<'_>) -> bool {
    let family = entry.addr.first_chunk().copied().map(libc::sa_family_t::from_ne_bytes);
    family == Some(libc::AF_PACKET as libc::sa_family_t)
}

/// if_nametoindex(3)
pub(crate) fn if_nametoindex(name: &[u8]) -> Result<c_uint> {
    let mut index = None;
    each_interface(
        |_| {},
        |entry| {
            if entry.name == name {
                index = Some(entry.index);
            }
            index.is_none()
        },
    )?;
    index.ok_or(Errno(libc::ENODEV))
}

/// if_indextoname(3): the name, and how long it is.
pub(crate) fn if_indextoname(index: c_uint) -> Result<([u8; libc::IFNAMSIZ], usize)> {
    let mut found = None;
    each_interface(
        |_| {},
        |entry| {
            if entry.index == index {
                let (mut name, len) = ([0; libc::IFNAMSIZ], entry.name.len().min(libc::IFNAMSIZ - 1));
                name[..len].copy_from_slice(&entry.name[..len]);
                found = Some((name, len));
            }
            found.is_none()
        },
    )?;
    found.ok_or(Errno(libc::ENXIO))
}

/// if_nameindex(3): if_freenameindex(3) frees the array, and each name by itself.
pub(crate) fn if_nameindex() -> Result<*mut libc::if_nameindex> {
    let mut most = 0;
    each_interface(
        |_| {},
        |_| {
            most += 1;
            true
        },
    )?;
    let memory = || Errno::NOBUFS;
    // Zeroes are the entry that ends the list.
    let mut room = Room::new((most + 1) * size_of::<libc::if_nameindex>()).ok_or_else(memory)?;
    let list = room.array::<libc::if_nameindex>(most + 1).ok_or_else(memory)?;
    let (mut done, mut is_short) = (0, false);
    let told = each_interface(
        |_| {},
        |entry| {
            // What has come since finds no room.
            if done == most {
                return false;
            }
            let Some(mut name) = Room::new(entry.name.len() + 1) else {
                is_short = true;
                return false;
            };
            let _ = name.text(entry.name);
            room.set(list, done, libc::if_nameindex { if_index: entry.index, if_name: name.give() });
            done += 1;
            true
        },
    );
    if told.is_err() || is_short {
        room.free_names(list, done);
        return Err(told.err().unwrap_or_else(memory));
    }
    Ok(room.give())
}

/// getifaddrs(3): freeifaddrs(3) frees all of it at once.
pub(crate) fn getifaddrs() -> Result<*mut ifaddrs> {
    let (mut room, mut last): (Option<Room>, Option<*mut ifaddrs>) = (None, None);
    let all = std::cell::Cell::new(0usize);
    each(
        |count| all.set(count),
        |entry| {
            if room.is_none() {
                room = all.get().checked_mul(ENTRY_MAX).and_then(Room::new);
            }
            // More than there were at first find no room, and are left out.
            let Some(room) = &mut room else { return false };
            let Some(at) = put(room, entry) else { return false };
            if let Some(last) = last.replace(at) {
                let next = last.wrapping_byte_add(offset_of!(ifaddrs, ifa_next));
                room.set(next.cast::<*mut ifaddrs>(), 0, at);
            }
            true
        },
    )?;
    match (room, all.get()) {
        (Some(room), _) => Ok(room.give()),
        (None, 0) => Ok(std::ptr::null_mut()),
        (None, _) => Err(Errno(libc::ENOMEM)),
    }
}

/// Puts an entry behind the others.
fn put(room: &mut Room, entry: &InterfaceAddress<'_>) -> Option<*mut ifaddrs> {
    let at = room.array::<ifaddrs>(1)?;
    let mut bytes = |bytes: &[u8]| match bytes {
        [] => Some(std::ptr::null_mut()),
        bytes => room.bytes(bytes, align_of::<u64>()),
    };
    let addr = bytes(entry.addr)?.cast::<sockaddr>();
    let netmask = bytes(entry.netmask)?.cast::<sockaddr>();
    let other = bytes(entry.other)?.cast::<sockaddr>();
    let data = bytes(entry.stats)?.cast::<c_void>();
    let name = room.text(entry.name)?;
    let value = ifaddrs {
        ifa_next: std::ptr::null_mut(),
        ifa_name: name,
        ifa_flags: entry.flags,
        ifa_addr: addr,
        ifa_netmask: netmask,
        ifa_ifu: other,
        ifa_data: data,
    };
    room.set(at, 0, value);
    Some(at)
}
