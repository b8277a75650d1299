//! Who gets a frame.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use ioth_core::MacAddr;

use super::port::Member;
use crate::Filter;
use crate::ether::{Hasher, Mac, is_group, mac_at};

/// Learned addresses at most; then old ones make room.
pub(super) const LEARNED_MAX: usize = 4096;
/// A learned address is good for this many seconds after its last frame.
pub(super) const LEARNED_AGE: u32 = 120;

/// A destination that is always good.
pub(super) const FOREVER: u32 = u32::MAX;

const BROADCAST: Mac = 0xffff_ffff_ffff;

/// Which ports are where.
pub(super) struct Table {
    learning: bool,
    all: Vec<Arc<Member>>,
    open: Vec<Arc<Member>>,
    declared: HashMap<Mac, Vec<Arc<Member>>, Hasher>,
    learned: Learned,
}

impl Table {
    pub(super) fn new(learning: bool) -> Self {
        Table {
            learning,
            all: Vec::new(),
            open: Vec::new(),
            declared: HashMap::default(),
            learned: Learned::default(),
        }
    }

    pub(super) fn join(&mut self, member: &Arc<Member>, wishes: &Wishes) {
        self.all.push(member.clone());
        self.change(member, &Wishes::default(), wishes);
    }

    pub(super) fn leave(&mut self, member: &Arc<Member>, wishes: &Wishes) {
        take_out(&mut self.all, member);
        self.change(member, wishes, &Wishes::default());
    }

    pub(super) fn change(&mut self, member: &Arc<Member>, old: &Wishes, new: &Wishes) {
        for mac in old.macs.iter().filter(|mac| new.macs.binary_search(mac).is_err()) {
            if let Some(members) = self.declared.get_mut(mac) {
                take_out(members, member);
                if members.is_empty() {
                    self.declared.remove(mac);
                }
            }
        }
        for mac in new.macs.iter().filter(|mac| old.macs.binary_search(mac).is_err()) {
            self.declared.entry(*mac).or_default().push(member.clone());
        }
        match (old.open, new.open) {
            (false, true) => self.open.push(member.clone()),
            (true, false) => {
                take_out(&mut self.open, member);
                self.learned.forget(member);
            }
            _ => (),
        }
    }

    /// The ports for a destination, in two disjoint lists (the sender may be among them), and until when.
    pub(super) fn route(&self, to: Mac, now: u32) -> ([&[Arc<Member>]; 2], u32) {
        if to == BROADCAST {
            return ([&self.all, &[]], FOREVER);
        }
        let declared = self.declared.get(&to).map_or(&[][..], Vec::as_slice);
        if is_group(to) || !self.learning {
            return ([declared, &self.open], FOREVER);
        }
        if !declared.is_empty() {
            return ([declared, &[]], FOREVER);
        }
        match self.learned.find(to, now) {
            Some((member, until)) => ([std::slice::from_ref(member), &[]], until),
            None => ([&self.open, &[]], FOREVER),
        }
    }

    /// Notes a frame of a station that is known behind this port; false when it is not.
    pub(super) fn touch(&self, from: Mac, member: &Arc<Member>, now: u32) -> bool {
        let Some(entry) = self.learned.index.get(&from).map(|&at| &self.learned.entries[at]) else {
            return false;
        };
        let here = Arc::ptr_eq(&entry.member, member);
        // An expired one may stand in a cache as unknown: it has to be learned, for all to see.
        if !here || now.saturating_sub(entry.seen.load(Relaxed)) > LEARNED_AGE {
            return false;
        }
        entry.seen.store(now, Relaxed);
        true
    }

    pub(super) fn learn(&mut self, from: Mac, member: &Arc<Member>, now: u32) {
        // The port may have left, or declared a filter, since the frame was looked at.
        if member.is_open() {
            self.learned.insert(from, member, now);
        }
    }

    #[cfg(test)]
    pub(super) fn learned_len(&self) -> usize {
        assert_eq!(self.learned.index.len(), self.learned.entries.len());
        self.learned.entries.len()
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("ports", &self.all.len())
            .field("open", &self.open.len())
            .field("declared", &self.declared.len())
            .field("learned", &self.learned.entries.len())
            .finish()
    }
}

/// What a port wants, in the table's terms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    /// Declared addresses, sorted.
    macs: Vec<Mac>,
    /// It also gets floods, and is learned from.
    pub(super) open: bool,
}

impl Wishes {
    /// Before a filter is declared.
    pub(super) fn undeclared() -> Self {
        Wishes { macs: Vec::new(), open: true }
    }

    pub(super) fn new(filter: &Filter, learning: bool) -> Self {
        let open = filter.promiscuous;
        // An open port gets groups anyway, and of a hub everything: it must not be in two lists.
        let unicast = filter.unicast.iter().filter(|mac| mac.is_unicast() && (learning || !open));
        let groups =
            filter.groups.iter().filter(|mac| mac.is_group() && **mac != MacAddr::BROADCAST && !open);
        let mut macs: Vec<_> = unicast.chain(groups).map(|mac| mac_at(&mac.0, 0)).collect();
        macs.sort_unstable();
        macs.dedup();
        Wishes { macs, open }
    }
}

/// Where stations behind open ports are. When full, the oldest of a few makes room.
#[derive(Default)]
struct Learned {
    entries: Vec<Entry>,
    index: HashMap<Mac, usize, Hasher>,
    hand: usize,
}

struct Entry {
    mac: Mac,
    member: Arc<Member>,
    seen: AtomicU32,
}

impl Learned {
    fn find(&self, mac: Mac, now: u32) -> Option<(&Arc<Member>, u32)> {
        let entry = &self.entries[*self.index.get(&mac)?];
        let until = entry.seen.load(Relaxed).saturating_add(LEARNED_AGE);
        (now <= until).then_some((&entry.member, until))
    }

    fn insert(&mut self, mac: Mac, member: &Arc<Member>, now: u32) {
        let entry = Entry { mac, member: member.clone(), seen: AtomicU32::new(now) };
        if let Some(&at) = self.index.get(&mac) {
            self.entries[at] = entry;
            return;
        }
        let at = if self.entries.len() < LEARNED_MAX {
            self.entries.push(entry);
            self.entries.len() - 1
        } else {
            let at = self.oldest_of_some();
            self.index.remove(&self.entries[at].mac);
            self.entries[at] = entry;
            at
        };
        self.index.insert(mac, at);
    }

    fn oldest_of_some(&mut self) -> usize {
        const SOME: usize = 16;
        let from = self.hand;
        self.hand = (self.hand + SOME) % LEARNED_MAX;
        let candidates = (from..from + SOME).map(|at| at % LEARNED_MAX);
        candidates.min_by_key(|&at| self.entries[at].seen.load(Relaxed)).unwrap_or(from)
    }

    fn forget(&mut self, member: &Arc<Member>) {
        let mut at = 0;
        while let Some(entry) = self.entries.get(at) {
            if !Arc::ptr_eq(&entry.member, member) {
                at += 1;
                continue;
            }
            self.index.remove(&entry.mac);
            self.entries.swap_remove(at);
            if let Some(moved) = self.entries.get(at) {
                self.index.insert(moved.mac, at);
            }
        }
    }
}

fn take_out(members: &mut Vec<Arc<Member>>, member: &Arc<Member>) {
    if let Some(at) = members.iter().position(|other| Arc::ptr_eq(other, member)) {
        members.swap_remove(at);
    }
}
