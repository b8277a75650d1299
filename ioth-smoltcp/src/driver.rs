//! The driver: locks, moves frames between links and engines, and tells readiness.
//!
//! Work is done by whoever has it, once. A socket call locks its node, runs the engine, takes the frames
//! out, unlocks and delivers them; the receiving node's engine runs in the same thread when its lock is free.
//!
//! ```text
//!   call ─ lock ─ engine ─ unlock ─▶ Port::drain ─▶ Link::send ─▶ Receiver::receive
//!                                                                       │ inbox
//!                              run queue of the thread ◀────────────────┘
//!                                     │ one node after the other, never nested
//!                                     ▼
//!                              lock ─ engine ─ unlock ─▶ ...
//! ```
//!
//! Rules that keep it free of deadlock and of lost frames:
//! * A node's lock is never held while another's is taken, a link is called, or a waiter is woken.
//! * Who puts frames into an inbox then tries the node's lock; who gives the lock back, on whatever path, then looks
//!   into the inbox: see [`desk`].
//! * A reader that spins looks into the inbox itself, and once more after it has said that it spins no longer.
//! * One thread drains a port at a time, so frames keep their order; what is added meanwhile it sees before it stops.
//!   What the link or the drainer does not get done holds the engine's senders back: see [`lane`].
//! * No thread works for others without end: what is left after a budget of frames is the reactor's.
//!
//! [`models`] has loom try every order of execution of these.

mod attend;
mod desk;
mod lane;
#[cfg(all(test, loom))]
mod models;
mod plugs;
mod port;
mod runq;
mod spin;
mod sync;
#[cfg(all(test, not(loom)))]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ioth_core::reactor::{Alarm, Reactor, Timer};
use ioth_core::spin::History;
use ioth_core::{Errno, Events, MacAddr, Readiness, Result};
use ioth_vde::{Filter, Frame, Link, LinkError};
use parking_lot::{Mutex, RwLock};

use crate::engine::{self, Engine, SocketId};
use desk::{Brought, Desk};
use lane::Drained;
use port::Port;
use sync::MutexGuard;

/// Frames that one turn of a node takes from its inbox before others have theirs.
const TURN: usize = 64;
/// Frames in an inbox from which on the bringer waits for the node's lock and does the work itself: back-pressure.
const INBOX_LIMIT: usize = 512;
/// Frames that a call sends, its own and those that come up meanwhile, before it hands the rest to the reactor.
const SEND_BUDGET: usize = 1024;
/// No deadline is armed.
const UNARMED: i64 = i64::MAX;
/// What a socket polls once it is closed: no call waits for anything.
pub(crate) const CLOSED: Events =
    Events::IN.union(Events::OUT).union(Events::RDHUP).union(Events::HUP).union(Events::ERR);

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    desk: Desk<Core, (u32, Frame)>,
    /// Changed with the node's lock held, see [`plugs`].
    ports: RwLock<Arc<[Arc<Port>]>>,
    spin_history: History,
    attend_history: attend::History,
    /// Sockets that a user holds.
    users: AtomicUsize,
    /// `OUT` while nothing that was sent waits in the node.
    sent: Arc<Readiness>,
    /// When the timer will fire, in microseconds since `start`.
    armed: AtomicI64,
    /// Held while `armed` and the timer are changed together.
    timer: Mutex<Option<Timer>>,
    /// The reactor was asked to go on where a call's budget ended.
    handed_over: AtomicBool,
    /// The reactor's thread will send what waits when it has gone through what it woke up for. That thread's own.
    gathering: AtomicBool,
    start: Instant,
    me: Weak<Node>,
}

/// What a node's lock protects.
#[derive(Debug)]
struct Core {
    engine: Engine,
    /// By socket index.
    sockets: Vec<Option<Arc<Readiness>>>,
    changed: Vec<(SocketId, Events)>,
    /// Counts the filters that were made.
    filters: u64,
    /// By port: the interfaces' Ethernet addresses, which are part of the filters, and when they were looked at.
    macs: Vec<Option<MacAddr>>,
    generation: u64,
    deleted: bool,
}

/// A node's lock. Whoever gives it back, however, looks into the inbox afterwards.
struct Locked<'a> {
    // In this order: first unlocked, then looked.
    core: MutexGuard<'a, Core>,
    look: Look<'a>,
}

/// A look into a node's inbox that is owed.
struct Look<'a>(&'a Node);

/// What is to be done once a node's lock is free again.
#[derive(Default)]
struct Aftermath {
    told: Vec<Arc<Readiness>>,
    filters: Vec<(Arc<Port>, Filter)>,
    /// The version of `filters`.
    version: u64,
    deadline: Option<engine::Instant>,
    egress: bool,
}

impl Node {
    /// A node with these links as its interfaces, which are down.
    ///
    /// # Errors
    /// A link's own, or `EINVAL` and `EEXIST` for interface names.
    pub(crate) fn new(
        seed: [u8; 32],
        links: Vec<(Option<String>, Arc<dyn Link>, MacAddr)>,
    ) -> std::result::Result<Arc<Node>, NodeError> {
        let mut engine = Engine::new(seed);
        let mut ports = Vec::with_capacity(links.len());
        for (name, link, mac) in links {
            let name = name.as_deref().unwrap_or("vde%d");
            let ifindex = engine
                .add_interface(name, mac, link.properties())
                .map_err(|error| NodeError::Interface { name: name.to_owned(), errno: error.to_errno() })?;
            ports.push(Arc::new(Port::new(ifindex, link)));
        }
        let macs = ports.iter().map(|port| port.mac(engine.tables())).collect();
        let core = Core {
            generation: engine.tables().generation(),
            engine,
            sockets: Vec::new(),
            changed: Vec::new(),
            filters: 0,
            macs,
            deleted: false,
        };
        let node = Arc::new_cyclic(|me| Node {
            desk: Desk::new(core),
            ports: RwLock::new(ports.into()),
            spin_history: History::default(),
            attend_history: attend::History::default(),
            users: AtomicUsize::new(0),
            sent: Arc::new(Readiness::new(Events::OUT)),
            armed: AtomicI64::new(UNARMED),
            timer: Mutex::new(None),
            handed_over: AtomicBool::new(false),
            gathering: AtomicBool::new(false),
            start: Instant::now(),
            me: me.clone(),
        });
        for port in node.ports().iter() {
            port.attach(&node).map_err(NodeError::Link)?;
        }
        Ok(node)
    }

    /// Locks the node, does `f`, and then whatever follows from it.
    pub(crate) fn call<R>(&self, f: impl FnOnce(&mut Engine) -> R) -> R {
        let mut locked = self.lock();
        locked.core.feed(self);
        let result = f(&mut locked.core.engine);
        self.conclude(locked);
        result
    }

    /// The same for a socket, which has to be there still.
    pub(crate) fn call_socket<R>(
        &self,
        id: SocketId,
        readiness: &Arc<Readiness>,
        f: impl FnOnce(&mut Engine) -> Result<R>,
    ) -> Result<R> {
        let mut locked = self.lock();
        if !locked.core.holds(id, readiness) {
            return Err(Errno::EBADF);
        }
        locked.core.feed(self);
        let result = f(&mut locked.core.engine);
        self.conclude(locked);
        result
    }

    /// Opens a socket with the engine's `open`, which names it.
    pub(crate) fn open(
        &self,
        open: impl FnOnce(&mut Engine) -> Result<SocketId>,
    ) -> Result<(SocketId, Arc<Readiness>)> {
        let mut locked = self.lock();
        let core = &mut *locked.core;
        if core.deleted {
            return Err(Errno::ENODEV);
        }
        let opened = open(&mut core.engine).map(|id| (id, core.adopt(id)));
        if opened.is_ok() {
            self.users.fetch_add(1, Ordering::Relaxed);
        }
        self.conclude(locked);
        opened
    }

    /// Takes a connection from a listener.
    pub(crate) fn accept(
        &self,
        id: SocketId,
        readiness: &Arc<Readiness>,
    ) -> Result<(SocketId, Arc<Readiness>, ioth_core::SockAddr)> {
        let mut locked = self.lock();
        let core = &mut *locked.core;
        if !core.holds(id, readiness) {
            return Err(Errno::EBADF);
        }
        core.feed(self);
        let accepted = core.engine.accept(id).map(|(child, peer)| (child, core.adopt(child), peer));
        if accepted.is_ok() {
            self.users.fetch_add(1, Ordering::Relaxed);
        }
        self.conclude(locked);
        accepted
    }

    /// The user of a socket is gone. A second call does nothing.
    pub(crate) fn close(&self, id: SocketId, readiness: &Arc<Readiness>) {
        let mut locked = self.lock();
        let core = &mut *locked.core;
        let mut told = false;
        if core.holds(id, readiness) {
            core.sockets[id.index()] = None;
            core.engine.close(id);
            self.users.fetch_sub(1, Ordering::Relaxed);
            // Nobody else sets it any more. Calls that wait in other threads have to come back, to hear EBADF.
            told = readiness.set(CLOSED);
        }
        self.conclude(locked);
        if told {
            readiness.notify();
        }
    }

    /// Ends the node, after what its sockets sent while they were there: a packet may wait for a neighbour's answer,
    /// a stream for its acknowledgement. A few seconds at most.
    ///
    /// # Errors
    /// `EBUSY` while sockets are open.
    pub(crate) fn delete(&self) -> Result<()> {
        let mut locked = self.lock();
        let busy = self.users.load(Ordering::Relaxed) > 0;
        if !busy {
            locked.core.deleted = true;
            locked.core.engine.leave();
        }
        self.conclude(locked);
        if busy {
            return Err(Errno::EBUSY);
        }
        // The deadline is for those who keep asking something of a node that goes.
        self.sent.wait(Events::OUT, Instant::now().checked_add(engine::RESOLUTION_TIME));
        self.finish_sending();
        for port in self.ports().iter() {
            port.detach();
        }
        Ok(())
    }

    /// Whether [`delete`](Self::delete) has ended the node.
    pub(crate) fn is_deleted(&self) -> bool {
        self.lock().core.deleted
    }

    /// Waits until one of `interest`, `ERR` or `HUP` holds, first awake and then asleep. False after the deadline.
    ///
    /// # Errors
    /// `EINTR`, as [`Readiness::wait_interruptibly`].
    pub(crate) fn wait(
        &self,
        readiness: &Readiness,
        interest: Events,
        deadline: Option<Instant>,
    ) -> Result<bool> {
        let mask = interest | Events::ERR | Events::HUP;
        let started = Instant::now();
        if spin::until(|| readiness.events().intersects(mask), self) {
            return Ok(true);
        }
        if let Some(ready) = attend::wait(self, readiness, interest, deadline) {
            return ready;
        }
        let ready = readiness.wait_interruptibly(interest, deadline);
        self.spin_history.slept(started.elapsed(), spin::SHORT_SLEEP);
        Ok(!ready?.is_empty())
    }

    /// Frames arrived for an interface: the work is done here and now, unless somebody else is at it.
    fn receive(&self, ifindex: u32, frames: &mut ioth_vde::Batch) {
        let Brought { waiting, watched } = self.desk.bring(frames.drain(..).map(|frame| (ifindex, frame)));
        if !watched || waiting >= INBOX_LIMIT {
            self.run();
        }
    }

    /// Has the inbox looked at, in this thread unless that is about to end.
    fn run(&self) {
        // Whoever drops the node's last reference has nobody left to work for.
        let Some(node) = self.me.upgrade() else { return };
        if std::thread::panicking() { runq::run_later(node) } else { runq::run(node) }
    }

    /// A turn of the node: up to [`TURN`] frames from its inbox. Returns how many, 0 when there is nothing to do here.
    fn turn(&self) -> usize {
        let waiting = self.desk.len();
        if waiting == 0 {
            return 0;
        }
        let core = if waiting >= INBOX_LIMIT { Some(self.desk.lock()) } else { self.desk.try_lock() };
        // Whoever has the lock will look into the inbox when it gives it back.
        let Some(core) = core else { return 0 };
        let mut locked = self.locked(core);
        let fed = locked.core.feed(self);
        self.conclude(locked);
        fed
    }

    fn lock(&self) -> Locked<'_> {
        self.locked(self.desk.lock())
    }

    fn locked<'a>(&'a self, mut core: MutexGuard<'a, Core>) -> Locked<'a> {
        core.engine.set_now(self.now());
        if core.engine.wants_wall_clock() {
            // Before 1970: stamps of zero rather than none.
            core.engine.set_wall_clock(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        }
        Locked { core, look: Look(self) }
    }

    /// Runs the engine to its end, unlocks, and does what has to be done without the lock.
    fn conclude<'a>(&'a self, mut locked: Locked<'a>) {
        let mut budget = SEND_BUDGET;
        loop {
            let mut after = self.harvest(&mut locked.core);
            let Locked { core, look } = locked;
            drop(core);
            if !self.settle(&mut after, &mut budget) {
                return;
            }
            // The engine had more to send than it may at once, and there is room again.
            if budget == 0 && self.hand_over() {
                return;
            }
            locked = Locked { core: self.desk.lock(), look };
            locked.core.engine.set_now(self.now());
        }
    }

    fn harvest(&self, core: &mut Core) -> Aftermath {
        let ports = self.ports.read();
        for port in ports.iter() {
            port.relieve(&mut core.engine);
        }
        let mut after = Aftermath { deadline: core.engine.poll(), ..Aftermath::default() };
        for port in ports.iter() {
            after.egress |= port.collect(&mut core.engine);
        }
        core.take_filters(&ports, &mut after);
        drop(ports);
        let Core { engine, sockets, changed, deleted, .. } = core;
        let unsent = engine.awaits_neighbours() || (*deleted && engine.has_undelivered());
        let sent = if unsent { Events::empty() } else { Events::OUT };
        if self.sent.set(sent) {
            after.told.push(self.sent.clone());
        }
        engine.take_changed(changed);
        for (id, events) in changed.drain(..) {
            let Some(Some(readiness)) = sockets.get(id.index()) else { continue };
            let again = readiness.events() == events;
            if if again { readiness.renew(Events::IN) } else { readiness.set(events) } {
                after.told.push(readiness.clone());
            }
        }
        after
    }

    /// True when there may be more to do.
    fn settle(&self, after: &mut Aftermath, budget: &mut usize) -> bool {
        for (port, filter) in after.filters.drain(..) {
            port.set_filter(after.version, &filter);
        }
        if let Some(deadline) = after.deadline {
            self.arm(deadline);
        }
        let mut more = false;
        if after.egress && !self.flush_later() {
            more = self.flush(budget);
        }
        for readiness in after.told.drain(..) {
            readiness.notify();
        }
        more
    }

    /// Sends what waits. True when there may be more to do.
    fn flush(&self, budget: &mut usize) -> bool {
        let mut more = false;
        for port in self.ports().iter() {
            more |= port.drain(budget) != Drained::Done;
        }
        more
    }

    /// Sends what waits, and lets the reactor's thread send what that has gathered, or has begun with.
    fn finish_sending(&self) {
        self.flush(&mut { SEND_BUDGET });
        if Reactor::is_current_thread() || self.ports.read().iter().all(|port| port.is_trusted()) {
            return;
        }
        let Ok(reactor) = Reactor::try_global() else { return };
        let (done, over) = mpsc::channel();
        reactor.defer_round(Box::new(move || {
            let _ = done.send(());
        }));
        // Bounded, as that thread may be at somebody else's source.
        let _ = over.recv_timeout(engine::RESOLUTION_TIME);
    }

    /// In the reactor's thread, many sockets of a node may have something to send, one after the other: to a link where
    /// that costs a system call it goes together. False when it is not to wait.
    fn flush_later(&self) -> bool {
        if self.ports.read().iter().any(|port| !port.gathers()) {
            return false;
        }
        if self.gathering.load(Ordering::Relaxed) {
            return Reactor::is_current_thread();
        }
        // Kept until then: the last socket may go meanwhile, and the node with it. A node that is going waits for nothing.
        let Some(node) = self.me.upgrade() else { return false };
        let later = Reactor::at_end_of_round(move || {
            node.gathering.store(false, Ordering::Relaxed);
            if node.flush(&mut { SEND_BUDGET }) {
                node.call(|_| ());
            }
        });
        if later.is_ok() {
            self.gathering.store(true, Ordering::Relaxed);
        }
        later.is_ok()
    }

    /// Leaves the rest to the reactor's thread. False when there is none to be had.
    fn hand_over(&self) -> bool {
        let Ok(reactor) = Reactor::try_global() else { return false };
        if !self.handed_over.swap(true, Ordering::AcqRel) {
            let node = self.me.clone();
            reactor.defer(Box::new(move || {
                if let Some(node) = node.upgrade() {
                    node.handed_over.swap(false, Ordering::AcqRel);
                    node.call(|_| ());
                }
            }));
        }
        true
    }

    /// Makes sure that the timer fires by then. It may fire earlier: what is due is asked for anew.
    fn arm(&self, deadline: engine::Instant) {
        let micros = deadline.total_micros();
        // Whoever reads an old deadline that is firing has let go of the node's lock before the alarm takes it, and
        // the alarm asks for this deadline, too.
        if self.armed.load(Ordering::Acquire) <= micros {
            return;
        }
        // Both under one lock: else of two threads the one with the later deadline could have the last word.
        let mut timer = self.timer.lock();
        if self.armed.load(Ordering::Acquire) <= micros {
            return;
        }
        if timer.is_none() {
            // A process without a thread or a descriptor left for the reactor: the next call tries again.
            let Ok(reactor) = Reactor::try_global() else { return };
            let target: Weak<dyn Alarm> = self.me.clone();
            *timer = Some(reactor.timer(target));
        }
        if let Some(timer) = &*timer {
            self.armed.store(micros, Ordering::Release);
            timer.set(self.start + Duration::from_micros(micros.max(0) as u64));
        }
    }

    fn now(&self) -> engine::Instant {
        engine::Instant::from_micros(self.start.elapsed().as_micros() as i64)
    }

    /// A link is gone for good.
    fn link_down(&self, ifindex: u32) {
        let mut locked = self.lock();
        // One that was removed meanwhile has nothing to be told.
        let _ = locked.core.engine.tables_mut().set_carrier(ifindex, false);
        self.conclude(locked);
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        if self.0.desk.look() {
            self.0.run();
        }
    }
}

impl Core {
    /// Feeds the engine from the node's inbox: how many frames.
    fn feed(&mut self, node: &Node) -> usize {
        node.desk.take(TURN, |(ifindex, frame)| self.engine.handle_frame(ifindex, frame))
    }

    /// What the links have to be told, if the addresses that the interfaces listen to changed.
    fn take_filters(&mut self, ports: &[Arc<Port>], after: &mut Aftermath) {
        let mut changed = self.engine.take_filters_changed();
        let tables = self.engine.tables();
        if self.generation != tables.generation() {
            self.generation = tables.generation();
            for (port, mac) in ports.iter().zip(&mut self.macs) {
                let now = port.mac(tables);
                changed |= std::mem::replace(mac, now) != now;
            }
        }
        if changed {
            self.filters += 1;
            after.version = self.filters;
            after.filters = ports.iter().map(|port| (port.clone(), port.filter(&self.engine))).collect();
        }
    }

    /// Whether the socket is still the one that its user opened.
    fn holds(&self, id: SocketId, readiness: &Arc<Readiness>) -> bool {
        matches!(self.sockets.get(id.index()), Some(Some(held)) if Arc::ptr_eq(held, readiness))
    }

    /// Gives a socket its readiness.
    fn adopt(&mut self, id: SocketId) -> Arc<Readiness> {
        let readiness = Arc::new(Readiness::new(self.engine.events(id)));
        let at = id.index();
        if self.sockets.len() <= at {
            self.sockets.resize(at + 1, None);
        }
        self.sockets[at] = Some(readiness.clone());
        readiness
    }
}

impl Alarm for Node {
    fn fire(&self) {
        let timer = self.timer.lock();
        self.armed.store(UNARMED, Ordering::Release);
        drop(timer);
        self.call(|_| ());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for port in self.ports().iter() {
            port.detach();
        }
    }
}

/// Why a node could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeError {
    /// An interface's name.
    #[error("interface \"{name}\": {errno}")]
    Interface {
        /// As it was given.
        name: String,
        /// What is wrong with it.
        errno: Errno,
    },
    /// A link.
    #[error(transparent)]
    Link(LinkError),
}
