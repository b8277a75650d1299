//! The neighbour table: who has which Ethernet address (RFC 826, RFC 4861 §7).
//!
//! One table serves ARP and neighbour discovery; what differs is only the packet that asks. Sans-IO:
//! calls say what happened, [`Neighbours::poll`] says whom to ask and whom to give up.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::IpAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ioth_core::MacAddr;
use ioth_vde::Frame;
use smoltcp::time::{Duration, Instant};

/// A neighbour: the interface it is on and its address.
pub(crate) type Key = (u32, IpAddr);

/// Entries at most; beyond, one that is not in use goes.
pub(crate) const MAX_ENTRIES: usize = 16_384;
/// Bytes that wait for one neighbour, as Linux's `unres_qlen_bytes` (arp(7)), and packets that wait for all of them; the oldest
/// goes first.
const MAX_QUEUE_BYTES: usize = 212_992;
const MAX_QUEUED: usize = 1024;
/// What a packet counts besides its bytes.
const OVERHEAD: usize = 768;

/// RFC 4861 §10: MAX_MULTICAST_SOLICIT, MAX_UNICAST_SOLICIT.
const MAX_SOLICIT: u8 = 3;
/// RFC 4861 §10: RETRANS_TIMER.
const RETRANS_TIMER: Duration = Duration::from_millis(1000);
/// How long a packet waits at most for an answer.
pub(crate) const RESOLUTION_TIME: std::time::Duration =
    std::time::Duration::from_millis(MAX_SOLICIT as u64 * RETRANS_TIMER.total_millis());
/// RFC 4861 §10: REACHABLE_TIME. Linux draws it between half and one and a half of this.
const REACHABLE_TIME: Duration = Duration::from_millis(30_000);
/// RFC 4861 §10: DELAY_FIRST_PROBE_TIME.
const DELAY_FIRST_PROBE: Duration = Duration::from_millis(5_000);

/// RFC 4861 §7.3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Asked by multicast, nothing heard.
    Incomplete { asked: u8, next: Instant },
    /// Heard from lately.
    Reachable { until: Instant },
    /// Not heard from lately; used as it is until somebody sends.
    Stale,
    /// Somebody sent: the upper layer has until then to confirm.
    Delay { until: Instant },
    /// Asked by unicast.
    Probe { asked: u8, next: Instant },
}

impl State {
    /// How often was asked, and when something has to be done.
    fn due(self) -> Option<(u8, Instant)> {
        match self {
            State::Incomplete { asked, next } | State::Probe { asked, next } => Some((asked, next)),
            State::Delay { until } => Some((0, until)),
            State::Reachable { .. } | State::Stale => None,
        }
    }
}

/// Packets that wait for one neighbour.
#[derive(Debug, Default)]
struct Queue {
    packets: VecDeque<Frame>,
    /// What they count.
    bytes: usize,
}

impl Queue {
    /// Takes a packet. Returns how many older ones have gone for it: the newest is the one worth keeping.
    fn push(&mut self, packet: Frame) -> usize {
        let mut gone = 0;
        while self.bytes + packet.len() + OVERHEAD > MAX_QUEUE_BYTES && self.pop() {
            gone += 1;
        }
        self.bytes += packet.len() + OVERHEAD;
        self.packets.push_back(packet);
        gone
    }

    /// Drops the oldest, if there is one.
    fn pop(&mut self) -> bool {
        let oldest = self.packets.pop_front();
        self.bytes -= oldest.as_ref().map_or(0, |packet| packet.len() + OVERHEAD);
        oldest.is_some()
    }

    fn into_packets(self) -> Vec<Frame> {
        self.packets.into()
    }
}

#[derive(Debug)]
struct Entry {
    mac: MacAddr,
    state: State,
    used: Instant,
    queue: Queue,
    /// When it will be looked at.
    reminder: Option<Instant>,
}

/// What became of a packet that was to be sent.
#[derive(Debug)]
pub(crate) enum Resolution {
    /// Send it there. The address may be used again without asking until `fresh_until`.
    Known { mac: MacAddr, packet: Frame, fresh_until: Instant },
    /// It waits. When `ask` is set a solicitation has to go out now.
    Queued { ask: bool },
}

/// What [`Neighbours::poll`] wants done.
#[derive(Debug)]
pub(crate) enum Action {
    /// Ask; by unicast when the address was known once.
    Solicit { key: Key, mac: Option<MacAddr> },
    /// Nobody answered: these packets cannot be delivered.
    Failed { ifindex: u32, packets: Vec<Frame> },
}

/// The table.
#[derive(Debug)]
pub(crate) struct Neighbours {
    entries: HashMap<Key, Entry, FixedState>,
    queued: usize,
    /// Whose packets wait, the oldest first. Those that do no more are passed over.
    waiting: VecDeque<Key>,
    /// When which entry has to be looked at; those that an entry does not know any more are passed over.
    reminders: BinaryHeap<Reverse<(Instant, Key)>>,
    /// Counts changes of any address, so that cached paths know when to ask again.
    generation: u64,
}

impl Neighbours {
    pub(crate) fn new(seed: u64) -> Self {
        Neighbours {
            entries: HashMap::with_hasher(FixedState::with_seed(seed)),
            queued: 0,
            waiting: VecDeque::new(),
            reminders: BinaryHeap::new(),
            generation: 0,
        }
    }

    /// The way to send `packet` to a neighbour: its address, or a place in its queue.
    pub(crate) fn resolve(&mut self, now: Instant, key: Key, packet: Frame) -> Resolution {
        if !self.entries.contains_key(&key) {
            self.make_room();
            let state = State::Incomplete { asked: 1, next: now + RETRANS_TIMER };
            let mut queue = Queue::default();
            queue.push(packet);
            let entry = Entry { mac: MacAddr::UNSPECIFIED, state, used: now, queue, reminder: None };
            self.entries.insert(key, entry);
            self.count_waiting(key);
            self.remind(key, now + RETRANS_TIMER);
            return Resolution::Queued { ask: true };
        }
        let entry = self.entries.get_mut(&key).expect("the entry was found just now");
        entry.used = now;
        let fresh_until = match entry.state {
            State::Incomplete { .. } => {
                self.queued -= entry.queue.push(packet);
                self.count_waiting(key);
                return Resolution::Queued { ask: false };
            }
            State::Reachable { until } if now < until => until,
            State::Reachable { .. } | State::Stale => {
                let until = now + DELAY_FIRST_PROBE;
                entry.state = State::Delay { until };
                let mac = entry.mac;
                self.remind(key, until);
                return Resolution::Known { mac, packet, fresh_until: until };
            }
            State::Delay { until } => until,
            State::Probe { next, .. } => next,
        };
        Resolution::Known { mac: entry.mac, packet, fresh_until }
    }

    /// A neighbour answered, or said something that proves that it hears us. Returns what waited for it.
    ///
    /// `solicited`: RFC 4861 §7.2.5, only an answer to our question proves reachability. `overriding`: a known
    /// address may be replaced.
    pub(crate) fn confirm(
        &mut self,
        now: Instant,
        key: Key,
        mac: MacAddr,
        solicited: bool,
        overriding: bool,
    ) -> Vec<Frame> {
        let Some(entry) = self.entries.get_mut(&key) else { return Vec::new() };
        let incomplete = matches!(entry.state, State::Incomplete { .. });
        if !incomplete && entry.mac != mac && !overriding {
            // RFC 4861 §7.2.5: "If the Override flag is clear [...] set the state to STALE".
            if matches!(entry.state, State::Reachable { .. }) {
                entry.state = State::Stale;
                self.generation += 1;
            }
            return Vec::new();
        }
        let changed = entry.mac != mac;
        entry.mac = mac;
        if solicited {
            entry.state = State::Reachable { until: now + REACHABLE_TIME };
        } else if changed || incomplete {
            entry.state = State::Stale;
        }
        if changed {
            self.generation += 1;
        }
        let packets = std::mem::take(&mut entry.queue).into_packets();
        self.queued -= packets.len();
        packets
    }

    /// A neighbour asked us something and told its address. Returns what waited for it.
    pub(crate) fn observe(&mut self, now: Instant, key: Key, mac: MacAddr) -> Vec<Frame> {
        if self.entries.contains_key(&key) {
            return self.confirm(now, key, mac, false, true);
        }
        self.make_room();
        self.entries.insert(
            key,
            Entry { mac, state: State::Stale, used: now, queue: Queue::default(), reminder: None },
        );
        Vec::new()
    }

    /// Everything that is due. Call it again when [`next_deadline`](Self::next_deadline) has passed.
    pub(crate) fn poll(&mut self, now: Instant, actions: &mut Vec<Action>) {
        while let Some(&Reverse((at, key))) = self.reminders.peek()
            && at <= now
        {
            self.reminders.pop();
            let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.reminder == Some(at)) else {
                continue;
            };
            entry.reminder = None;
            let Some((asked, due)) = entry.state.due() else { continue };
            if now < due {
                self.remind(key, due);
                continue;
            }
            if asked >= MAX_SOLICIT {
                let packets =
                    self.entries.remove(&key).map_or_else(Vec::new, |entry| entry.queue.into_packets());
                self.queued -= packets.len();
                self.generation += 1;
                actions.push(Action::Failed { ifindex: key.0, packets });
                continue;
            }
            let mac = (!matches!(entry.state, State::Incomplete { .. })).then_some(entry.mac);
            let (asked, next) = (asked + 1, now + RETRANS_TIMER);
            entry.state = match mac {
                None => State::Incomplete { asked, next },
                Some(_) => State::Probe { asked, next },
            };
            actions.push(Action::Solicit { key, mac });
            self.remind(key, next);
        }
    }

    /// Packets that wait for an answer.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// Whether a packet waits for an answer.
    pub(crate) fn holds_packets(&self) -> bool {
        self.queued > 0
    }

    /// When [`poll`](Self::poll) has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.reminders.peek().map(|Reverse((at, _))| *at)
    }

    /// Forgets the neighbours of an interface, and what waited for them.
    pub(crate) fn flush(&mut self, ifindex: u32) {
        self.entries.retain(|key, _| key.0 != ifindex);
        self.queued = self.entries.values().map(|entry| entry.queue.packets.len()).sum();
        self.generation += 1;
    }

    /// Changes whenever an address that was given out may be wrong.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Every entry: neighbour, Ethernet address, state.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, MacAddr, State)> + '_ {
        self.entries.iter().map(|(key, entry)| (*key, entry.mac, entry.state))
    }

    /// A packet was queued for a neighbour: beyond the bound the one goes that has waited longest.
    fn count_waiting(&mut self, key: Key) {
        self.queued += 1;
        self.waiting.push_back(key);
        while self.queued > MAX_QUEUED
            && let Some(oldest) = self.waiting.pop_front()
        {
            if self.entries.get_mut(&oldest).is_some_and(|entry| entry.queue.pop()) {
                self.queued -= 1;
            }
        }
        if self.waiting.len() > 4 * MAX_QUEUED {
            let entries = &self.entries;
            self.waiting.retain(|key| entries.get(key).is_some_and(|entry| !entry.queue.packets.is_empty()));
        }
    }

    /// Has an entry looked at when its time comes, unless that is done earlier anyway.
    fn remind(&mut self, key: Key, at: Instant) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if entry.reminder.is_none_or(|before| at < before) {
            entry.reminder = Some(at);
            self.reminders.push(Reverse((at, key)));
        }
        // Those of entries that went are in the way only when very many went at once.
        if self.reminders.len() > 4 * MAX_ENTRIES {
            let entries = &self.entries;
            self.reminders.retain(|Reverse((at, key))| {
                entries.get(key).is_some_and(|entry| entry.reminder == Some(*at))
            });
        }
    }

    /// Evicts, when the table is full, the least recently used of a few entries, rather one that answers nobody.
    fn make_room(&mut self) {
        if self.entries.len() < MAX_ENTRIES {
            return;
        }
        let victim = self
            .entries
            .iter()
            .take(16)
            .min_by_key(|(_, entry)| (matches!(entry.state, State::Reachable { .. }), entry.used))
            .map(|(key, _)| *key);
        if let Some(entry) = victim.and_then(|key| self.entries.remove(&key)) {
            self.queued -= entry.queue.packets.len();
            self.generation += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = (2, IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2)));
    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
    const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 3]);

    fn packet(byte: u8) -> Frame {
        Frame::copy_of(&[byte; 60])
    }

    fn at(ms: i64) -> Instant {
        Instant::from_millis(ms)
    }

    fn known(resolution: Resolution) -> MacAddr {
        match resolution {
            Resolution::Known { mac, .. } => mac,
            Resolution::Queued { .. } => panic!("queued"),
        }
    }

    #[test]
    fn packets_wait_for_the_answer() {
        let mut table = Neighbours::new(1);
        assert!(matches!(table.resolve(at(0), KEY, packet(0)), Resolution::Queued { ask: true }));
        let most = MAX_QUEUE_BYTES / (packet(0).len() + OVERHEAD);
        let newest = most + 20;
        for number in 1..=newest {
            let packet = packet(number as u8);
            assert!(matches!(table.resolve(at(1), KEY, packet), Resolution::Queued { ask: false }));
        }
        assert_eq!(table.queued, most);
        let queue = table.confirm(at(2), KEY, MAC, true, true);
        assert_eq!(queue.len(), most);
        assert_eq!(queue.last().unwrap()[0], newest as u8, "the newest stay");
        assert_eq!(known(table.resolve(at(3), KEY, packet(0))), MAC);
        assert_eq!(table.queued, 0);
    }

    #[test]
    fn three_questions_and_then_unreachable() {
        let mut table = Neighbours::new(1);
        table.resolve(at(0), KEY, packet(7));
        let mut actions = Vec::new();
        table.poll(at(999), &mut actions);
        assert!(actions.is_empty());
        for second in 1..=2 {
            table.poll(at(second * 1000), &mut actions);
            assert!(matches!(actions.pop(), Some(Action::Solicit { mac: None, .. })));
        }
        table.poll(at(3000), &mut actions);
        let Some(Action::Failed { packets, .. }) = actions.pop() else { panic!("{actions:?}") };
        assert_eq!(packets.len(), 1);
        assert_eq!(table.next_deadline(), None);
        assert_eq!(table.iter().count(), 0);
    }

    #[test]
    fn a_silent_neighbour_is_probed_and_given_up() {
        let mut table = Neighbours::new(1);
        table.observe(at(0), KEY, MAC);
        let before = table.generation();
        assert_eq!(known(table.resolve(at(0), KEY, packet(0))), MAC);
        let mut actions = Vec::new();
        for ms in [5000, 6000, 7000] {
            table.poll(at(ms), &mut actions);
            assert!(matches!(actions.pop(), Some(Action::Solicit { mac: Some(MAC), .. })), "{ms}");
        }
        table.poll(at(8000), &mut actions);
        assert!(matches!(actions.pop(), Some(Action::Failed { .. })));
        assert_ne!(table.generation(), before);
    }

    #[test]
    fn an_answer_without_override_does_not_replace() {
        let mut table = Neighbours::new(1);
        table.observe(at(0), KEY, MAC);
        table.confirm(at(0), KEY, MAC, true, true);
        table.confirm(at(1), KEY, OTHER, true, false);
        assert_eq!(known(table.resolve(at(2), KEY, packet(0))), MAC);
        table.confirm(at(3), KEY, OTHER, true, true);
        assert_eq!(known(table.resolve(at(4), KEY, packet(0))), OTHER);
    }

    #[test]
    fn an_unasked_answer_makes_no_entry() {
        let mut table = Neighbours::new(1);
        table.confirm(at(0), KEY, MAC, true, true);
        assert_eq!(table.iter().count(), 0);
    }

    #[test]
    fn a_flood_is_bounded() {
        let mut table = Neighbours::new(1);
        for i in 0..MAX_ENTRIES as u32 + 5000 {
            table.resolve(at(0), (2, IpAddr::V4(i.into())), packet(0));
        }
        assert!(table.iter().count() <= MAX_ENTRIES);
        assert!(table.queued <= MAX_QUEUED && table.waiting.len() <= 4 * MAX_QUEUED + 1);
        let newest = (2, IpAddr::V4((MAX_ENTRIES as u32 + 4999).into()));
        assert_eq!(table.confirm(at(1), newest, MAC, true, true).len(), 1, "the newest waits still");
    }
}
