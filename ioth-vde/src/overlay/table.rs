//! Who has which Ethernet address.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

use crate::ether::{Hasher, Mac, is_group};

/// What was learnt of the senders of frames: bounded, and forgotten in time.
#[derive(Debug)]
pub(crate) struct Table {
    entries: HashMap<Mac, Entry, Hasher>,
    /// Entries at most.
    max: usize,
    /// Seconds after which an entry counts no more.
    expire: u64,
    born: Instant,
    /// When the table was last found full, in seconds.
    swept: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: SocketAddr,
    /// In seconds since the table was made.
    seen: u64,
}

impl Table {
    pub(crate) fn new(max: usize, expire: u64) -> Self {
        let born = Instant::now();
        Table { entries: HashMap::default(), max, expire, born, swept: None }
    }

    /// Where a unicast address is, if that is known.
    pub(crate) fn find(&mut self, mac: Mac) -> Option<SocketAddr> {
        if is_group(mac) {
            return None;
        }
        let now = self.now();
        let entry = self.entries.get(&mac)?;
        (now - entry.seen <= self.expire).then_some(entry.at)
    }

    /// A frame came from this address.
    pub(crate) fn learn(&mut self, mac: Mac, at: SocketAddr) {
        if is_group(mac) || mac == 0 {
            return;
        }
        let entry = Entry { at, seen: self.now() };
        if let Some(known) = self.entries.get_mut(&mac) {
            *known = entry;
            return;
        }
        if self.entries.len() >= self.max {
            self.make_room(entry.seen);
        }
        self.entries.insert(mac, entry);
    }

    /// Whoever is at this address leaves.
    pub(crate) fn forget(&mut self, at: SocketAddr) {
        self.entries.retain(|_, entry| entry.at != at);
    }

    /// Drops what is too old, else an entry that the hash's seed chooses: who floods us with addresses cannot choose.
    fn make_room(&mut self, now: u64) {
        // The whole table is looked at once a second at most.
        if self.swept != Some(now) {
            self.swept = Some(now);
            let expire = self.expire;
            self.entries.retain(|_, entry| now - entry.seen <= expire);
        }
        if self.entries.len() >= self.max
            && let Some(&victim) = self.entries.keys().next()
        {
            self.entries.remove(&victim);
        }
    }

    fn now(&self) -> u64 {
        self.born.elapsed().as_secs()
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// As if so much time had gone by.
    #[cfg(test)]
    pub(crate) fn age(&mut self, by: std::time::Duration) {
        self.born = self.born.checked_sub(by).expect("a clock that has run so long");
    }
}
