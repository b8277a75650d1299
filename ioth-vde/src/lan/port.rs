//! A port of a LAN.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};

use super::Lan;
use super::table::{FOREVER, Wishes};
use crate::ether::{Hasher, Mac, is_group, mac_at};
use crate::tally::Tally;
use crate::{Batch, Counters, Filter, Frame, Link, LinkError, Properties, Receiver};

/// A port of a [`Lan`].
pub struct Port {
    lan: Arc<Lan>,
    member: Arc<Member>,
    state: Mutex<State>,
    /// The last destination that was one port.
    last: Mutex<Destination>,
    /// The last source that was known to be here.
    source: Mutex<Source>,
    sent: Tally,
}

/// What the table holds of a port. It holds no other port, so that there are no cycles.
pub(super) struct Member {
    receiver: RwLock<Option<Arc<dyn Receiver>>>,
    /// Attached, and wants floods. Changes under the table's lock.
    open: AtomicBool,
    received: Tally,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    wishes: Wishes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Fresh,
    Attached,
    Detached,
}

#[derive(Default)]
struct Destination {
    mac: Mac,
    generation: u64,
    member: Option<Arc<Member>>,
    until: u32,
}

#[derive(Default, PartialEq)]
struct Source {
    mac: Mac,
    generation: u64,
    seen: u32,
}

impl Port {
    pub(super) fn new(lan: Arc<Lan>) -> Self {
        Port {
            lan,
            member: Arc::new(Member {
                receiver: RwLock::new(None),
                open: AtomicBool::new(false),
                received: Tally::default(),
            }),
            state: Mutex::new(State { phase: Phase::Fresh, wishes: Wishes::undeclared() }),
            last: Mutex::default(),
            source: Mutex::default(),
            sent: Tally::default(),
        }
    }

    /// Learns where the senders of these frames are.
    fn learn(&self, frames: &Batch) {
        let seen = self.lan.now();
        let mut last = self.source.lock();
        for frame in frames {
            let mac = mac_at(frame, 6);
            let generation = self.lan.generation.load(Ordering::Acquire);
            let source = Source { mac, generation, seen };
            if *last == source || mac == 0 || is_group(mac) {
                continue;
            }
            if !self.lan.table.read().touch(mac, &self.member, seen) {
                let mut table = self.lan.table.write();
                table.learn(mac, &self.member, seen);
                self.lan.generation.fetch_add(1, Ordering::Release);
            }
            *last = source;
        }
    }

    /// The port for this destination, if it is one.
    fn single(&self, mac: Mac) -> Option<Arc<Member>> {
        // Before the lookup, so that a change meanwhile makes the result stale.
        let generation = self.lan.generation.load(Ordering::Acquire);
        let mut last = self.last.lock();
        if last.generation == generation
            && last.mac == mac
            && last.member.is_some()
            && (last.until == FOREVER || self.lan.now() <= last.until)
        {
            return last.member.clone();
        }
        let table = self.lan.table.read();
        let (lists, until) = table.route(mac, self.lan.now());
        let mut others = self.others(lists);
        let member = others.next()?.clone();
        if others.next().is_some() {
            return None;
        }
        *last = Destination { mac, generation, member: Some(member.clone()), until };
        Some(member)
    }

    fn others<'a>(&self, lists: [&'a [Arc<Member>]; 2]) -> impl Iterator<Item = &'a Arc<Member>> {
        let [one, two] = lists;
        one.iter().chain(two).filter(|member| !Arc::ptr_eq(member, &self.member))
    }

    /// Delivers frames to several destinations.
    fn scatter(&self, frames: &mut Batch) {
        let mut parts = Parts::take();
        let table = self.lan.table.read();
        let now = self.lan.now();
        for frame in frames.drain(..) {
            let (lists, _) = table.route(mac_at(&frame, 0), now);
            let mut members = self.others(lists);
            let Some(mut member) = members.next() else { continue };
            for next in members {
                parts.push(member, frame.clone());
                member = next;
            }
            parts.push(member, frame);
        }
        drop(table);
        parts.deliver();
    }
}

impl Link for Port {
    fn properties(&self) -> Properties {
        self.lan.config.properties
    }

    fn attach(&self, receiver: Arc<dyn Receiver>) -> Result<(), LinkError> {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Fresh => (),
            Phase::Attached => return Err(LinkError::attached(&self.what())),
            Phase::Detached => return Err(LinkError::Detached),
        }
        state.phase = Phase::Attached;
        *self.member.receiver.write() = Some(receiver);
        let mut table = self.lan.table.write();
        table.join(&self.member, &state.wishes);
        self.member.open.store(state.wishes.open, Ordering::Release);
        self.lan.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn send(&self, frames: &mut Batch) -> Result<(), LinkError> {
        self.sent.admit(frames, &self.lan.config.properties);
        let Some(first) = frames.front() else { return Ok(()) };
        if self.member.receiver.read().is_none() && self.state.lock().phase == Phase::Detached {
            self.sent.down(frames);
            return Err(LinkError::Detached);
        }
        let to = mac_at(first, 0);
        let (mut bytes, mut same) = (0, true);
        for frame in &*frames {
            bytes += frame.len();
            same &= mac_at(frame, 0) == to;
        }
        self.sent.sent(frames.len(), bytes);
        if self.lan.config.learning && self.member.is_open() {
            self.learn(frames);
        }
        match if same { self.single(to) } else { None } {
            Some(member) => member.deliver(frames),
            None => self.scatter(frames),
        }
        Ok(())
    }

    fn set_filter(&self, filter: &Filter) {
        let new = Wishes::new(filter, self.lan.config.learning);
        let mut state = self.state.lock();
        if state.wishes == new {
            return;
        }
        if state.phase == Phase::Attached {
            let mut table = self.lan.table.write();
            table.change(&self.member, &state.wishes, &new);
            self.member.open.store(new.open, Ordering::Release);
            self.lan.generation.fetch_add(1, Ordering::Release);
        }
        state.wishes = new;
    }

    fn detach(&self) {
        let mut state = self.state.lock();
        let before = std::mem::replace(&mut state.phase, Phase::Detached);
        if before == Phase::Attached {
            let mut table = self.lan.table.write();
            table.leave(&self.member, &state.wishes);
            self.member.open.store(false, Ordering::Release);
            self.lan.generation.fetch_add(1, Ordering::Release);
        }
        drop(state);
        // The receiver's drop may come back here: no lock is held.
        let receiver = self.member.receiver.write().take();
        drop(receiver);
        let destination = std::mem::take(&mut *self.last.lock());
        drop(destination);
    }

    fn counters(&self) -> Counters {
        let received = self.member.received.counters();
        Counters { rx_frames: received.rx_frames, rx_bytes: received.rx_bytes, ..self.sent.counters() }
    }
}

impl Port {
    fn what(&self) -> String {
        match &self.lan.name {
            Some((scheme, name)) => format!("{scheme}://{name}"),
            None => "a LAN".to_owned(),
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.detach();
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("lan", &self.what()).field("counters", &self.counters()).finish()
    }
}

impl Member {
    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    fn deliver(&self, frames: &mut Batch) {
        let receiver = self.receiver.read().clone();
        if let Some(receiver) = receiver {
            self.received.received(frames);
            receiver.receive(frames);
        }
        frames.clear();
    }
}

/// A batch being sorted by destination; recycled, since this happens for each mixed batch.
#[derive(Default)]
struct Parts {
    list: Vec<(Arc<Member>, Batch)>,
    /// Positions in `list` by the member's address.
    index: HashMap<usize, usize, Hasher>,
    spare: Vec<Batch>,
}

thread_local! {
    static PARTS: RefCell<Option<Parts>> = const { RefCell::new(None) };
}

/// Empty batches that a thread keeps.
const SPARE: usize = 64;

impl Parts {
    /// The thread's own, or a new one while that is in use further up the stack.
    fn take() -> Self {
        PARTS.try_with(|parts| parts.take()).ok().flatten().unwrap_or_default()
    }

    fn push(&mut self, member: &Arc<Member>, frame: Frame) {
        let at = *self.index.entry(Arc::as_ptr(member).addr()).or_insert_with(|| {
            self.list.push((member.clone(), self.spare.pop().unwrap_or_default()));
            self.list.len() - 1
        });
        self.list[at].1.push_back(frame);
    }

    fn deliver(mut self) {
        self.index.clear();
        for (member, mut batch) in self.list.drain(..) {
            member.deliver(&mut batch);
            if self.spare.len() < SPARE {
                self.spare.push(batch);
            }
        }
        let _ = PARTS.try_with(|parts| parts.replace(Some(self)));
    }
}
