//! Where stations are: the table of addresses that a switch has learned.
//!
//! Entries of a port are a list in the order in which they were last heard, to the second. A full table makes room
//! in the list of the newcomer's port, if that has its share of the table already, else in the longest list: a port
//! that makes up addresses pushes out its own, not those of others.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::hash::BuildHasher;

use crate::ether::{Hasher, Mac};

/// A station's address within its VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(u64);

impl Key {
    pub(super) fn new(vlan: u16, mac: Mac) -> Self {
        Key(u64::from(vlan) << 48 | mac)
    }

    pub(super) fn vlan(self) -> u16 {
        (self.0 >> 48) as u16
    }

    pub(super) fn mac(self) -> Mac {
        self.0 & 0xffff_ffff_ffff
    }
}

/// No entry.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: Key,
    seen: u32,
    port: u16,
    /// In the port's list, or the list of free entries.
    older: u32,
    newer: u32,
}

/// A port's entries.
#[derive(Clone, Copy, Debug)]
struct List {
    oldest: u32,
    newest: u32,
    len: u32,
}

impl Default for List {
    fn default() -> Self {
        List { oldest: NONE, newest: NONE, len: 0 }
    }
}

#[derive(Debug)]
pub(super) struct Stations {
    index: HashMap<Key, u32, Hasher>,
    entries: Vec<Entry>,
    free: u32,
    lists: Vec<List>,
    /// Ports that have entries.
    sharers: u32,
    capacity: usize,
    expire: u32,
    persistence: u32,
    evicted: u64,
    /// Those that had expired when their place was taken, or when they were heard again.
    expired: u64,
    /// When it was asked last.
    clock: u32,
    /// What became known (`true`) or was forgotten, with its port, when somebody watches.
    changes: Option<Vec<(bool, Key, u16)>>,
    /// Changes that found no room there.
    missed: u64,
}

/// Changes that wait to be taken, at most.
const CHANGES_MAX: usize = 4096;

/// What became of a frame's source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Learned {
    Known,
    New,
    /// It was behind this other port.
    Moved(u16),
    /// It is behind this other port, which was heard too short a time ago.
    Elsewhere(u16),
}

impl Stations {
    pub(super) fn new(capacity: usize, expire: u32, persistence: u32) -> Self {
        Stations {
            index: HashMap::default(),
            entries: Vec::new(),
            free: NONE,
            lists: Vec::new(),
            sharers: 0,
            // Positions have 32 bits.
            capacity: capacity.clamp(1, NONE as usize - 1),
            expire,
            persistence,
            evicted: 0,
            expired: 0,
            clock: 0,
            changes: None,
            missed: 0,
        }
    }

    /// Keeps what becomes known and what is forgotten from now on, or does not any more.
    pub(super) fn watch(&mut self, watched: bool) {
        if watched {
            self.changes.get_or_insert_default();
        } else {
            self.changes = None;
        }
    }

    /// What was kept since it was asked last, and how much more there was.
    pub(super) fn take_changes(&mut self) -> (Vec<(bool, Key, u16)>, u64) {
        let changes = self.changes.as_mut().map(std::mem::take).unwrap_or_default();
        (changes, std::mem::take(&mut self.missed))
    }

    fn note(&mut self, known: bool, key: Key, port: u16) {
        match &mut self.changes {
            Some(changes) if changes.len() < CHANGES_MAX => changes.push((known, key, port)),
            Some(_) => self.missed += 1,
            None => (),
        }
    }

    /// Notes a frame from that address.
    pub(super) fn learn(&mut self, key: Key, port: u16, now: u32) -> Learned {
        let (expire, persistence) = (self.expire, self.persistence);
        self.clock = now;
        if let Some(&at) = self.index.get(&key) {
            let entry = &mut self.entries[at as usize];
            let age = now.saturating_sub(entry.seen);
            self.expired += u64::from(age > expire);
            if entry.port == port {
                if age > 0 {
                    entry.seen = now;
                    self.unlink(at);
                    self.link(at, port);
                }
                return Learned::Known;
            }
            let before = entry.port;
            if age <= persistence && age <= expire {
                return Learned::Elsewhere(before);
            }
            entry.seen = now;
            self.unlink(at);
            self.link(at, port);
            return Learned::Moved(before);
        }
        self.forget_expired(port, now);
        if self.index.len() >= self.capacity {
            self.make_room(port);
        }
        self.insert(key, port, now);
        Learned::New
    }

    /// The port behind which a station was heard, not too long ago.
    pub(super) fn find(&self, key: Key, now: u32) -> Option<u16> {
        let entry = &self.entries[*self.index.get(&key)? as usize];
        (now.saturating_sub(entry.seen) <= self.expire).then_some(entry.port)
    }

    /// Port and age of a station.
    pub(super) fn age(&self, key: Key, now: u32) -> Option<(u16, u32)> {
        let entry = &self.entries[*self.index.get(&key)? as usize];
        let age = now.saturating_sub(entry.seen);
        (age <= self.expire).then_some((entry.port, age))
    }

    /// All of them, with port and age, in no order.
    pub(super) fn iter(&self, now: u32) -> impl Iterator<Item = (Key, u16, u32)> {
        self.index.values().filter_map(move |&at| {
            let entry = &self.entries[at as usize];
            let age = now.saturating_sub(entry.seen);
            (age <= self.expire).then_some((entry.key, entry.port, age))
        })
    }

    /// Forgets the stations behind a port: all, or those of a VLAN.
    pub(super) fn forget(&mut self, port: u16, vlan: Option<u16>) {
        let mut at = self.list(port).oldest;
        while at != NONE {
            let Entry { key, newer, .. } = self.entries[at as usize];
            if vlan.is_none_or(|vlan| vlan == key.vlan()) {
                self.remove(at);
            }
            at = newer;
        }
    }

    /// Changes how long stations are known, in seconds.
    pub(super) fn set_expire(&mut self, expire: u32) {
        self.expire = expire;
    }

    /// Changes how long a station stays where it was heard, in seconds.
    pub(super) fn set_persistence(&mut self, persistence: u32) {
        self.persistence = persistence;
    }

    pub(super) fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity.clamp(1, NONE as usize - 1);
        while self.index.len() > self.capacity {
            self.make_room(u16::MAX);
        }
    }

    pub(super) fn expire(&self) -> u32 {
        self.expire
    }

    pub(super) fn persistence(&self) -> u32 {
        self.persistence
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Stations that had to make room.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Stations that were not heard for too long, whether their places were taken since or not.
    pub(super) fn expired(&self, now: u32) -> u64 {
        let stale = |at: &&u32| now.saturating_sub(self.entries[**at as usize].seen) > self.expire;
        self.expired + self.index.values().filter(stale).count() as u64
    }

    /// In which of `buckets` a station would be.
    pub(super) fn bucket(&self, key: Key, buckets: usize) -> usize {
        self.index.hasher().hash_one(key) as usize % buckets.max(1)
    }

    fn list(&self, port: u16) -> List {
        self.lists.get(usize::from(port)).copied().unwrap_or_default()
    }

    /// A port's list is in order of age: what has expired is at its head. Two for each that comes keep up.
    fn forget_expired(&mut self, port: u16, now: u32) {
        for _ in 0..2 {
            let at = self.list(port).oldest;
            if at == NONE || now.saturating_sub(self.entries[at as usize].seen) <= self.expire {
                return;
            }
            self.remove(at);
        }
    }

    fn make_room(&mut self, newcomer: u16) {
        let share = self.capacity / self.sharers.max(1) as usize;
        let victim = if self.list(newcomer).len as usize >= share.max(1) {
            usize::from(newcomer)
        } else {
            // Somebody has more than a share, and is above it only for as long as others come.
            let longest = self.lists.iter().enumerate().max_by_key(|(_, list)| list.len);
            longest.map_or(0, |(port, _)| port)
        };
        let Some(&List { oldest, .. }) = self.lists.get(victim) else { return };
        if oldest != NONE {
            // One that has expired would have gone anyway.
            self.evicted += u64::from(!self.is_stale(oldest));
            self.remove(oldest);
        }
    }

    fn insert(&mut self, key: Key, port: u16, seen: u32) {
        self.note(true, key, port);
        let entry = Entry { key, seen, port, older: NONE, newer: NONE };
        let at = if self.free == NONE {
            self.entries.push(entry);
            (self.entries.len() - 1) as u32
        } else {
            let at = self.free;
            self.free = self.entries[at as usize].newer;
            self.entries[at as usize] = entry;
            at
        };
        if let Place::Vacant(place) = self.index.entry(key) {
            place.insert(at);
        }
        self.link(at, port);
    }

    fn is_stale(&self, at: u32) -> bool {
        self.clock.saturating_sub(self.entries[at as usize].seen) > self.expire
    }

    fn remove(&mut self, at: u32) {
        self.expired += u64::from(self.is_stale(at));
        self.unlink(at);
        let Entry { key, port, .. } = self.entries[at as usize];
        self.note(false, key, port);
        let entry = &mut self.entries[at as usize];
        self.index.remove(&entry.key);
        entry.newer = self.free;
        self.free = at;
    }

    /// Puts an entry at the end of a port's list.
    fn link(&mut self, at: u32, port: u16) {
        let place = usize::from(port);
        if self.lists.len() <= place {
            self.lists.resize(place + 1, List::default());
        }
        let list = &mut self.lists[place];
        let before = std::mem::replace(&mut list.newest, at);
        if before == NONE {
            list.oldest = at;
            self.sharers += 1;
        } else {
            self.entries[before as usize].newer = at;
        }
        self.lists[place].len += 1;
        let entry = &mut self.entries[at as usize];
        (entry.port, entry.older, entry.newer) = (port, before, NONE);
    }

    fn unlink(&mut self, at: u32) {
        let Entry { port, older, newer, .. } = self.entries[at as usize];
        let list = &mut self.lists[usize::from(port)];
        list.len -= 1;
        if list.len == 0 {
            self.sharers -= 1;
        }
        if older == NONE {
            list.oldest = newer;
        }
        if newer == NONE {
            list.newest = older;
        }
        if older != NONE {
            self.entries[older as usize].newer = newer;
        }
        if newer != NONE {
            self.entries[newer as usize].older = older;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(mac: u64) -> Key {
        Key::new(0, mac)
    }

    #[test]
    fn the_expired_are_counted_once() {
        let mut stations = Stations::new(3, 100, 3);
        for mac in 1..=3 {
            stations.learn(key(mac), 1, 0);
        }
        assert_eq!((stations.expired(100), stations.expired(101)), (0, 3));
        // One is heard again, two make room for others, and are not among those who had to.
        stations.learn(key(1), 1, 101);
        assert_eq!(stations.expired(101), 3);
        stations.learn(key(4), 2, 101);
        stations.learn(key(5), 3, 101);
        assert_eq!((stations.expired(101), stations.evicted(), stations.len()), (3, 0, 3));
        stations.learn(key(6), 4, 101);
        assert_eq!((stations.expired(101), stations.evicted()), (3, 1));
        // Ports go, with those that had expired and one that had not.
        stations.learn(key(7), 1, 250);
        let before = stations.expired(250);
        (1..5).for_each(|port| stations.forget(port, None));
        assert_eq!((stations.expired(250), stations.len()), (before, 0));
    }

    #[test]
    fn ages_and_moves() {
        let mut stations = Stations::new(10, 100, 3);
        assert_eq!(stations.learn(key(1), 1, 0), Learned::New);
        assert_eq!(stations.learn(key(1), 1, 0), Learned::Known);
        // Heard a moment ago elsewhere: it does not flap.
        assert_eq!(stations.learn(key(1), 2, 3), Learned::Elsewhere(1));
        assert_eq!(stations.find(key(1), 3), Some(1));
        assert_eq!(stations.learn(key(1), 2, 4), Learned::Moved(1));
        assert_eq!(stations.age(key(1), 5), Some((2, 1)));
        assert_eq!(stations.find(key(1), 104), Some(2));
        assert_eq!(stations.find(key(1), 105), None);
        assert_eq!(stations.find(Key::new(7, 1), 5), None);
        // What has expired goes when others come.
        stations.learn(key(2), 2, 200);
        assert_eq!(stations.len(), 1);
    }

    #[test]
    fn forgets_by_port_and_vlan() {
        let mut stations = Stations::new(10, 100, 3);
        stations.learn(Key::new(1, 1), 1, 0);
        stations.learn(Key::new(2, 1), 1, 0);
        stations.learn(Key::new(2, 2), 2, 0);
        stations.forget(1, Some(2));
        assert_eq!(stations.iter(0).count(), 2);
        stations.forget(1, None);
        assert_eq!(stations.iter(0).collect::<Vec<_>>(), [(Key::new(2, 2), 2, 0)]);
        stations.forget(9, None);
    }

    #[test]
    fn a_port_that_makes_up_addresses_pushes_out_its_own() {
        const CAPACITY: usize = 100_000;
        let mut stations = Stations::new(CAPACITY, 100, 3);
        for mac in 0..100 {
            stations.learn(key(mac), 1, 0);
        }
        for mac in 1000..1000 + 3 * CAPACITY as u64 {
            stations.learn(key(mac), 2, 1);
        }
        assert_eq!(stations.len(), CAPACITY);
        assert!((0..100).all(|mac| stations.find(key(mac), 1) == Some(1)));
        // Newcomers elsewhere find room, at the expense of the one that has most.
        for mac in 100..200 {
            stations.learn(key(mac), 3, 1);
        }
        assert!((0..100).all(|mac| stations.find(key(mac), 1) == Some(1)));
        assert!((100..200).all(|mac| stations.find(key(mac), 1) == Some(3)));
        assert_eq!(stations.len(), CAPACITY);
        assert!(stations.evicted() > 0);
        stations.set_capacity(300);
        assert_eq!(stations.len(), 300);
        assert!((0..100).all(|mac| stations.find(key(mac), 1) == Some(1)));
    }

    proptest! {
        /// A map that forgets nothing agrees on what is known, and the lists on what there is.
        #[test]
        fn any_order(steps in proptest::collection::vec((0..3u8, 0..20u64, 0..4u16), 1..200)) {
            let mut stations = Stations::new(12, u32::MAX, 0);
            let mut model = HashMap::new();
            for (now, (what, mac, port)) in steps.into_iter().enumerate() {
                match what {
                    2 => {
                        stations.forget(port, None);
                        model.retain(|_, there| *there != port);
                    }
                    _ => {
                        stations.learn(key(mac), port, now as u32);
                        model.insert(mac, port);
                    }
                }
                let listed: u32 = stations.lists.iter().map(|list| list.len).sum();
                prop_assert_eq!(listed as usize, stations.len());
                prop_assert!(stations.len() <= 12);
                prop_assert_eq!(
                    stations.sharers as usize,
                    stations.lists.iter().filter(|list| list.len > 0).count()
                );
                for (key, port, _) in stations.iter(now as u32) {
                    prop_assert_eq!(model.get(&key.mac()), Some(&port));
                }
            }
        }
    }
}
