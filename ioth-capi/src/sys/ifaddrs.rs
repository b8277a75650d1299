//! getifaddrs(3) of a stack.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::mem::offset_of;
use std::ptr::null_mut;

use ioth::core::netlink::LinkStats;
use ioth::{Errno, InterfaceAddress, SockAddr};
use libc::{ifaddrs, sockaddr};

use super::{Ioth, memory};
use crate::handle;
use crate::outcome::{Result, run};

/// # Safety
/// `list` is the program's to change.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_getifaddrs(stack: *mut Ioth, list: *mut *mut ifaddrs) -> c_int {
    run(|| {
        let entries = handle::find(stack.addr())?.getifaddrs()?;
        let made = make(&entries)?;
        // SAFETY: the caller's promise; a pointer has no padding.
        if let Err(failure) = unsafe { memory::put(list, made) } {
            // Nobody else knows of it.
            // SAFETY: allocated by `make`, or NULL.
            unsafe { libc::free(made.cast()) };
            return Err(failure);
        }
        Ok(0)
    })
}

/// # Safety
/// The list is NULL or one of `ioth_getifaddrs`, not freed yet.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_freeifaddrs(list: *mut ifaddrs) {
    // SAFETY: the caller's promise; the list is one piece of memory.
    unsafe { libc::free(list.cast()) };
}

/// Longest name of an interface that is told, in bytes with its NUL.
const NAME_MAX: usize = 64;

/// An entry and all that it points to. The entries lie side by side in one piece of memory, so that freeifaddrs(3) of
/// the C library, which is one free(3), does as well.
#[repr(C)]
struct Record {
    entry: ifaddrs,
    /// Address, netmask, broadcast or destination.
    addrs: [Address; 3],
    stats: Stats,
    name: [u8; NAME_MAX],
}

/// Room for an address of any family that a stack has.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Address([u8; 32]);

/// `struct rtnl_link_stats` (linux/if_link.h): counters that wrap.
type Stats = [u32; 24];

/// # Errors
/// `ENOMEM`.
fn make(entries: &[InterfaceAddress]) -> Result<*mut ifaddrs> {
    if entries.is_empty() {
        return Ok(null_mut());
    }
    let size = entries.len().checked_mul(size_of::<Record>()).ok_or(Errno::ENOMEM)?;
    let memory: *mut Record = memory::allocate(&vec![0; size])?.cast();
    for (number, entry) in entries.iter().enumerate() {
        let at = memory.wrapping_add(number);
        let next = if number + 1 < entries.len() { at.wrapping_add(1).cast() } else { null_mut() };
        // SAFETY: as many records were allocated just now, aligned as C's allocator does it.
        unsafe { at.write(record(entry, at, next)) };
    }
    Ok(memory.cast())
}

/// The record that is going to be at `at`.
fn record(from: &InterfaceAddress, at: *mut Record, next: *mut ifaddrs) -> Record {
    let mut addrs = [Address([0; 32]); 3];
    let place = |number: usize| {
        let offset = offset_of!(Record, addrs) + number * size_of::<Address>();
        at.wrapping_byte_add(offset).cast::<sockaddr>()
    };
    let mut put = |number: usize, addr: Option<&SockAddr>| {
        let Some(raw) = addr.map(SockAddr::to_raw) else { return null_mut() };
        addrs[number].0[..raw.len()].copy_from_slice(&raw);
        place(number)
    };
    let ifa_addr = put(0, Some(&from.addr));
    let ifa_netmask = put(1, from.netmask.as_ref());
    let ifa_ifu = put(2, from.broadcast.as_ref().or(from.destination.as_ref()));
    let mut name = [0; NAME_MAX];
    let len = from.name.len().min(NAME_MAX - 1);
    name[..len].copy_from_slice(&from.name.as_bytes()[..len]);
    let ifa_data: *mut c_void = match from.stats {
        Some(_) => at.wrapping_byte_add(offset_of!(Record, stats)).cast(),
        None => null_mut(),
    };
    Record {
        entry: ifaddrs {
            ifa_next: next,
            ifa_name: at.wrapping_byte_add(offset_of!(Record, name)).cast::<c_char>(),
            ifa_flags: from.flags.bits() as c_uint,
            ifa_addr,
            ifa_netmask,
            ifa_ifu,
            ifa_data,
        },
        addrs,
        stats: from.stats.map(stats).unwrap_or_default(),
        name,
    }
}

fn stats(from: LinkStats) -> Stats {
    let mut stats = Stats::default();
    let counters = [
        from.rx_packets,
        from.tx_packets,
        from.rx_bytes,
        from.tx_bytes,
        from.rx_errors,
        from.tx_errors,
        from.rx_dropped,
        from.tx_dropped,
        from.multicast,
        from.collisions,
    ];
    for (to, counter) in stats.iter_mut().zip(counters) {
        *to = counter as u32;
    }
    stats
}
