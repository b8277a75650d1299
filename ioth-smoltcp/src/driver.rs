//! The driver: locks, moves frames between links and engines, and tells readiness.
//!
//! Work is done by whoever has it, once (contract 5). A socket call locks its node, runs the engine, takes the frames
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
//! * Who puts frames into an inbox then tries the node's lock; who gives the lock back then looks into the inbox. A
//!   sequentially consistent fence between the two steps on both sides makes sure that one of them sees the other.
//! * A reader that spins looks into the inbox itself, and once more after it has said that it spins no longer.
//! * One thread drains a port at a time, so frames keep their order; what is added meanwhile it sees before it stops.

mod inbox;
mod port;
mod runq;
mod spin;

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use ioth_core::reactor::{Alarm, Reactor, Timer};
use ioth_core::{Errno, Events, MacAddr, Readiness, Result};
use ioth_vde::{Filter, Link, LinkError};
use parking_lot::{Mutex, MutexGuard};

use crate::engine::{self, Engine, SocketId};
use inbox::Inbox;
use port::Port;

/// Frames that one turn of a node takes from its inbox before others have theirs.
const TURN: usize = 64;
/// Frames in an inbox from which on the bringer waits for the node's lock and does the work itself: back-pressure.
const INBOX_LIMIT: usize = 512;
/// No deadline is armed.
const UNARMED: i64 = i64::MAX;

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    core: Mutex<Core>,
    inbox: Inbox,
    ports: Vec<Arc<Port>>,
    /// Readers that are awake and look into the inbox themselves.
    spinners: AtomicUsize,
    /// Sockets that a user holds.
    users: AtomicUsize,
    /// `OUT` while no packet waits for a neighbour's answer.
    sent: Arc<Readiness>,
    /// When the timer will fire, in microseconds since `start`.
    armed: AtomicI64,
    timer: OnceLock<Timer>,
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
    deleted: bool,
}

/// What is to be done once a node's lock is free again.
#[derive(Default)]
struct Aftermath {
    told: Vec<Arc<Readiness>>,
    filters: Vec<(Arc<Port>, Filter)>,
    deadline: Option<engine::Instant>,
    egress: bool,
    stalled: bool,
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
        let core = Core { engine, sockets: Vec::new(), changed: Vec::new(), deleted: false };
        let node = Arc::new_cyclic(|me| Node {
            core: Mutex::new(core),
            inbox: Inbox::default(),
            ports,
            spinners: AtomicUsize::new(0),
            users: AtomicUsize::new(0),
            sent: Arc::new(Readiness::new(Events::OUT)),
            armed: AtomicI64::new(UNARMED),
            timer: OnceLock::new(),
            start: Instant::now(),
            me: me.clone(),
        });
        for port in &node.ports {
            port.attach(&node).map_err(NodeError::Link)?;
        }
        Ok(node)
    }

    /// Locks the node, does `f`, and then whatever follows from it.
    pub(crate) fn call<R>(&self, f: impl FnOnce(&mut Engine) -> R) -> R {
        let mut core = self.lock();
        self.feed(&mut core);
        let result = f(&mut core.engine);
        self.conclude(core);
        result
    }

    /// The same for a socket, which has to be there still.
    pub(crate) fn call_socket<R>(
        &self,
        id: SocketId,
        readiness: &Arc<Readiness>,
        f: impl FnOnce(&mut Engine) -> Result<R>,
    ) -> Result<R> {
        let mut core = self.lock();
        if !core.holds(id, readiness) {
            return Err(Errno::EBADF);
        }
        self.feed(&mut core);
        let result = f(&mut core.engine);
        self.conclude(core);
        result
    }

    /// Opens a socket with the engine's `open`, which names it.
    pub(crate) fn open(
        &self,
        open: impl FnOnce(&mut Engine) -> Result<SocketId>,
    ) -> Result<(SocketId, Arc<Readiness>)> {
        let mut core = self.lock();
        if core.deleted {
            return Err(Errno::ENODEV);
        }
        let opened = open(&mut core.engine).map(|id| (id, core.adopt(id)));
        if opened.is_ok() {
            self.users.fetch_add(1, Ordering::Relaxed);
        }
        self.conclude(core);
        opened
    }

    /// Takes a connection from a listener.
    pub(crate) fn accept(
        &self,
        id: SocketId,
        readiness: &Arc<Readiness>,
    ) -> Result<(SocketId, Arc<Readiness>, ioth_core::SockAddr)> {
        let mut core = self.lock();
        if !core.holds(id, readiness) {
            return Err(Errno::EBADF);
        }
        self.feed(&mut core);
        let accepted = core.engine.accept(id).map(|(child, peer)| (child, core.adopt(child), peer));
        if accepted.is_ok() {
            self.users.fetch_add(1, Ordering::Relaxed);
        }
        self.conclude(core);
        accepted
    }

    /// The user of a socket is gone. A second call does nothing.
    pub(crate) fn close(&self, id: SocketId, readiness: &Arc<Readiness>) {
        let mut core = self.lock();
        if core.holds(id, readiness) {
            core.sockets[id.index()] = None;
            core.engine.close(id);
            self.users.fetch_sub(1, Ordering::Relaxed);
        }
        self.conclude(core);
    }

    /// Ends the node, after what its sockets sent while they were there: a packet may wait for a neighbour's answer.
    ///
    /// # Errors
    /// `EBUSY` while sockets are open.
    pub(crate) fn delete(&self) -> Result<()> {
        let mut core = self.lock();
        let busy = self.users.load(Ordering::Relaxed) > 0;
        core.deleted |= !busy;
        self.conclude(core);
        if busy {
            return Err(Errno::EBUSY);
        }
        // The deadline is for those who keep asking something of a node that goes.
        self.sent.wait(Events::OUT, Instant::now().checked_add(engine::RESOLUTION_TIME));
        for port in &self.ports {
            port.detach();
        }
        Ok(())
    }

    /// Waits until one of `interest`, `ERR` or `HUP` holds, first awake and then asleep. False after the deadline.
    pub(crate) fn wait(&self, readiness: &Readiness, interest: Events, deadline: Option<Instant>) -> bool {
        let mask = interest | Events::ERR | Events::HUP;
        if spin::until(|| readiness.events().intersects(mask), self) {
            return true;
        }
        !readiness.wait(interest, deadline).is_empty()
    }

    /// Frames arrived for an interface: the work is done here and now, unless somebody else is at it.
    fn receive(&self, ifindex: u32, frames: &mut ioth_vde::Batch) {
        let waiting = self.inbox.push(ifindex, frames);
        fence(Ordering::SeqCst);
        if self.spinners.load(Ordering::Relaxed) > 0 && waiting < INBOX_LIMIT {
            return;
        }
        if let Some(node) = self.me.upgrade() {
            runq::run(node);
        }
    }

    /// A turn of the node: up to [`TURN`] frames from its inbox. Returns how many, 0 when there is nothing to do here.
    fn turn(&self) -> usize {
        if self.inbox.is_empty() {
            return 0;
        }
        let core =
            if self.inbox.len() >= INBOX_LIMIT { Some(self.core.lock()) } else { self.core.try_lock() };
        // Whoever has the lock will look into the inbox when it gives it back.
        let Some(mut core) = core else { return 0 };
        core.engine.set_now(self.now());
        let fed = self.feed(&mut core);
        self.conclude(core);
        fed
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        let mut core = self.core.lock();
        core.engine.set_now(self.now());
        core
    }

    /// Feeds the engine from the inbox.
    fn feed(&self, core: &mut Core) -> usize {
        if self.inbox.is_empty() {
            return 0;
        }
        self.inbox.take(TURN, |ifindex, frame| core.engine.handle_frame(ifindex, frame))
    }

    /// Runs the engine to its end, unlocks, and does what has to be done without the lock.
    fn conclude(&self, mut core: MutexGuard<'_, Core>) {
        let mut after = self.harvest(&mut core);
        drop(core);
        loop {
            self.settle(&mut after);
            let stalled = after.stalled && self.ports.iter().all(|port| !port.is_blocked());
            if !stalled {
                break;
            }
            // The engine had more to send than it may at once, and the links took it all.
            let mut core = self.lock();
            core.engine.resume();
            after = self.harvest(&mut core);
        }
        fence(Ordering::SeqCst);
        if !self.inbox.is_empty()
            && let Some(node) = self.me.upgrade()
        {
            runq::run(node);
        }
    }

    fn harvest(&self, core: &mut Core) -> Aftermath {
        let Core { engine, sockets, changed, .. } = core;
        let mut after = Aftermath { deadline: engine.poll(), ..Aftermath::default() };
        for port in &self.ports {
            after.egress |= port.collect(engine);
        }
        after.stalled = engine.has_stalled();
        let sent = if engine.awaits_neighbours() { Events::empty() } else { Events::OUT };
        if self.sent.set(sent) {
            after.told.push(self.sent.clone());
        }
        engine.take_changed(changed);
        for (id, events) in changed.drain(..) {
            if let Some(Some(readiness)) = sockets.get(id.index())
                && readiness.set(events)
            {
                after.told.push(readiness.clone());
            }
        }
        if engine.tables_mut().take_groups_changed() {
            for port in &self.ports {
                after.filters.push((port.clone(), port.filter(engine.tables())));
            }
        }
        after
    }

    fn settle(&self, after: &mut Aftermath) {
        for (port, filter) in after.filters.drain(..) {
            port.set_filter(&filter);
        }
        if after.egress {
            for port in &self.ports {
                port.drain(self);
            }
        }
        for readiness in after.told.drain(..) {
            readiness.notify();
        }
        if let Some(deadline) = after.deadline {
            self.arm(deadline);
        }
    }

    /// Makes sure that the timer fires by then. It may fire earlier: what is due is asked for anew.
    fn arm(&self, deadline: engine::Instant) {
        let micros = deadline.total_micros();
        if self.armed.fetch_min(micros, Ordering::AcqRel) <= micros {
            return;
        }
        let timer = self.timer.get_or_init(|| {
            let target: Weak<dyn Alarm> = self.me.clone();
            Reactor::global().timer(target)
        });
        timer.set(self.start + Duration::from_micros(micros.max(0) as u64));
    }

    fn now(&self) -> engine::Instant {
        engine::Instant::from_micros(self.start.elapsed().as_micros() as i64)
    }

    /// A link takes frames again.
    fn unblock(&self, port: &Port) {
        let mut core = self.lock();
        core.engine.set_blocked(port.ifindex(), false);
        self.conclude(core);
        port.drain(self);
    }

    /// The same while the port is being drained: only the engine has to know.
    fn unblock_engine(&self, port: &Port) {
        self.core.lock().engine.set_blocked(port.ifindex(), false);
    }

    /// A link takes no more frames for the moment.
    fn block(&self, port: &Port) {
        self.core.lock().engine.set_blocked(port.ifindex(), true);
    }

    /// A link is gone for good.
    fn link_down(&self, ifindex: u32) {
        let mut core = self.lock();
        // The interface is there: it was made with the port.
        let _ = core.engine.tables_mut().set_carrier(ifindex, false);
        self.conclude(core);
    }
}

impl Core {
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
        self.armed.store(UNARMED, Ordering::Release);
        self.call(|_| ());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for port in &self.ports {
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
