//! The configuration of one node: interfaces, addresses and routes.
//!
//! [`Tables`] is plain state: no clock, no thread, no packet. Lookups that packets need (is this address
//! ours, which way to that one) go by hash and do not slow down with the number of entries; what is empty
//! takes no memory. Each change that could alter a path bumps [`Tables::generation`], so that a caller may
//! keep a [`Path`] until then.
//!
//! What changes is beside what it is about: interfaces in `iface`, addresses in `addr`, routes in `route`; what
//! packets ask is here.

mod fib;
mod groups;
mod local;
mod lookup;
mod mtus;
mod source;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use foldhash::fast::FixedState;
use ioth_core::{Cidr, MacAddr};

use super::addr::{Addr, AddrState, Local};
use super::iface::Iface;
use super::route::Route;

pub use super::iface::LOOPBACK;
pub use super::route::Path;
use fib::Fib;
pub use groups::{group_mac, solicited_node};

/// A hash table with the node's seed.
pub(super) type Map<K, V> = hashbrown::HashMap<K, V, FixedState>;

/// Changes that are kept for [`Tables::take_changes`]; a reader that is behind further learns so.
const MAX_CHANGES: usize = 16384;

/// Interfaces, addresses and routes of one node.
///
/// `&self` methods ask, `&mut self` methods change. A method that fails has changed nothing. Times are
/// milliseconds on the engine's clock, told by [`advance`](Self::advance).
pub struct Tables {
    /// By rising index; loopback is the first.
    pub(super) ifaces: Vec<Iface>,
    pub(super) last_index: u32,
    pub(super) addr_count: usize,
    /// Who has an address; more than one for link-local ones mostly.
    pub(super) locals: Map<IpAddr, Vec<Local>>,
    /// Prefixes of loopback's IPv4 addresses, counted, and the set of their lengths (a bit each).
    pub(super) loopback_prefixes: Map<Cidr, u32>,
    pub(super) loopback_lengths: u64,
    /// Subnet broadcast addresses by interface, counted.
    pub(super) broadcasts: Map<(u32, Ipv4Addr), u32>,
    /// Memberships by interface, counted.
    pub(super) groups: Map<(u32, IpAddr), u32>,
    /// Ethernet addresses of those groups: several groups share one (RFC 1112 §6.4).
    pub(super) group_macs: Map<(u32, MacAddr), u32>,
    pub(super) groups_changed: bool,
    /// Interface, group, and whether it was joined or left: what the links have to hear of.
    pub(super) group_changes: Vec<(u32, IpAddr, bool)>,
    /// By interface and destination.
    path_mtus: Map<(u32, IpAddr), mtus::PathMtu>,
    next_mtu_expiry: Option<smoltcp::time::Instant>,
    pub(super) fib: Fib,
    pub(super) initial_state: AddrState,
    /// Milliseconds.
    pub(super) now: u64,
    pub(super) next_expiry: Option<u64>,
    generation: u64,
    watched: bool,
    changes: Vec<Change>,
    overrun: bool,
}

/// Something that was configured, by whomever: what netlink's multicast groups tell.
#[derive(Clone, Debug)]
pub enum Change {
    /// An interface came into being or changed.
    LinkNew(u32),
    /// An interface was removed.
    LinkDel(Box<Iface>),
    /// An address was added or changed.
    AddrNew(Addr),
    /// An address was removed.
    AddrDel(Addr),
    /// A route was added.
    RouteNew(Route),
    /// A route was removed.
    RouteDel(Route),
}

impl Tables {
    /// A node with nothing but loopback, which is up and has 127.0.0.1/8 and ::1/128.
    pub fn new() -> Self {
        Tables::with_seed(0)
    }

    /// The same, with hash tables whose order an outsider cannot guess.
    pub fn with_seed(seed: u64) -> Self {
        let state = FixedState::with_seed(seed);
        let mut tables = Tables {
            ifaces: Vec::with_capacity(2),
            last_index: 0,
            addr_count: 0,
            locals: Map::with_hasher(state.clone()),
            loopback_prefixes: Map::with_hasher(state.clone()),
            loopback_lengths: 0,
            broadcasts: Map::with_hasher(state.clone()),
            groups: Map::with_hasher(state.clone()),
            group_macs: Map::with_hasher(state.clone()),
            groups_changed: false,
            group_changes: Vec::new(),
            path_mtus: Map::with_hasher(state.clone()),
            next_mtu_expiry: None,
            fib: Fib::new(state),
            initial_state: AddrState::Preferred,
            now: 0,
            next_expiry: None,
            generation: 0,
            watched: false,
            changes: Vec::new(),
            overrun: false,
        };
        tables.add_loopback();
        tables
    }

    /// Whether changes are kept for [`take_changes`](Self::take_changes); at first they are not.
    pub fn watch(&mut self, watched: bool) {
        self.watched = watched;
        if !watched {
            self.changes = Vec::new();
            self.overrun = false;
        }
    }

    /// The changes since the last call, oldest first, and whether some are missing because there were too many.
    pub fn take_changes(&mut self) -> (Vec<Change>, bool) {
        (std::mem::take(&mut self.changes), std::mem::take(&mut self.overrun))
    }

    /// Whether the set of groups of any interface changed since the last call.
    pub fn take_groups_changed(&mut self) -> bool {
        std::mem::take(&mut self.groups_changed)
    }

    /// Groups that were joined or left since the last call, in order.
    pub(super) fn take_group_changes(&mut self) -> Vec<(u32, IpAddr, bool)> {
        std::mem::take(&mut self.group_changes)
    }

    /// A number that is another one after every change that can affect a path.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The clock as last told, in milliseconds.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Paths that were given out may be wrong.
    fn paths_changed(&mut self) {
        self.generation += 1;
    }

    pub(super) fn changed(&mut self, change: Change) {
        self.paths_changed();
        if !self.watched {
            return;
        }
        if self.changes.len() < MAX_CHANGES {
            self.changes.push(change);
        } else {
            self.overrun = true;
        }
    }
}

impl Default for Tables {
    fn default() -> Self {
        Tables::new()
    }
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables")
            .field("ifaces", &self.ifaces)
            .field("routes", &self.fib.len())
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}
