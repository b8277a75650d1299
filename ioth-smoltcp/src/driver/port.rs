//! A node's end of a link.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Weak};

use ioth_core::MacAddr;
use ioth_vde::{Batch, Filter, Link, LinkError, Receiver};
use parking_lot::Mutex;

use super::Node;
use crate::engine::Engine;
use crate::engine::tables::{Tables, group_mac};

/// Frames that go to a link at once.
const BATCH: usize = 64;

/// A link, and the frames on their way to it.
#[derive(Debug)]
pub(crate) struct Port {
    ifindex: u32,
    link: Arc<dyn Link>,
    backlog: Mutex<Batch>,
    /// The backlog's length, to be looked at without its lock.
    waiting: AtomicUsize,
    /// Somebody sends from the backlog.
    draining: AtomicBool,
    /// The link left frames in its batch and will say when it takes more.
    blocked: AtomicBool,
}

impl Port {
    pub(crate) fn new(ifindex: u32, link: Arc<dyn Link>) -> Port {
        Port {
            ifindex,
            link,
            backlog: Mutex::new(Batch::new()),
            waiting: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
        }
    }

    pub(crate) fn ifindex(&self) -> u32 {
        self.ifindex
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::SeqCst)
    }

    pub(crate) fn attach(self: &Arc<Self>, node: &Arc<Node>) -> Result<(), LinkError> {
        self.link.attach(Arc::new(Plug { node: Arc::downgrade(node), port: Arc::downgrade(self) }))
    }

    pub(crate) fn detach(&self) {
        self.link.detach();
    }

    pub(crate) fn set_filter(&self, filter: &Filter) {
        self.link.set_filter(filter);
    }

    /// What the interface wants to see.
    pub(crate) fn filter(&self, tables: &Tables) -> Filter {
        let unicast: Vec<MacAddr> = tables.iface(self.ifindex).map(|iface| iface.mac()).into_iter().collect();
        let groups = tables.groups(self.ifindex).map(group_mac).collect();
        Filter { unicast, groups, promiscuous: false }
    }

    /// Takes what the engine has for the link. Called with the node's lock held. True when something waits.
    pub(crate) fn collect(&self, engine: &mut Engine) -> bool {
        let mut backlog = self.backlog.lock();
        engine.take_egress(self.ifindex, &mut backlog);
        self.waiting.store(backlog.len(), Ordering::SeqCst);
        !backlog.is_empty()
    }

    /// Sends what waits, unless somebody else is at it. Called with no lock held.
    pub(crate) fn drain(&self, node: &Node) {
        while self.waiting.load(Ordering::SeqCst) > 0 && !self.is_blocked() {
            if self.draining.swap(true, Ordering::SeqCst) {
                return;
            }
            self.send_all(node);
            self.draining.store(false, Ordering::SeqCst);
            // Frames that were added meanwhile were left to this thread.
            fence(Ordering::SeqCst);
        }
    }

    fn send_all(&self, node: &Node) {
        let mut batch = Batch::new();
        loop {
            self.take(&mut batch);
            if batch.is_empty() {
                return;
            }
            if self.send(&mut batch) {
                continue;
            }
            // First say so, then try once more: so `writable` can't come in between and be lost.
            self.blocked.store(true, Ordering::SeqCst);
            if self.send(&mut batch) {
                self.blocked.store(false, Ordering::SeqCst);
                continue;
            }
            self.give_back(batch);
            node.block(self);
            // `writable` may have come before the engine was told.
            if !self.is_blocked() {
                node.unblock_engine(self);
                batch = Batch::new();
                continue;
            }
            return;
        }
    }

    /// True when the link took everything, or is gone and will never take anything.
    fn send(&self, batch: &mut Batch) -> bool {
        if self.link.send(batch).is_err() {
            batch.clear();
        }
        batch.is_empty()
    }

    fn take(&self, batch: &mut Batch) {
        let mut backlog = self.backlog.lock();
        if backlog.len() <= BATCH {
            std::mem::swap(batch, &mut backlog);
        } else {
            batch.extend(backlog.drain(..BATCH));
        }
        self.waiting.store(backlog.len(), Ordering::SeqCst);
    }

    fn give_back(&self, mut batch: Batch) {
        let mut backlog = self.backlog.lock();
        batch.append(&mut backlog);
        *backlog = batch;
        self.waiting.store(backlog.len(), Ordering::SeqCst);
    }
}

/// The receiver of a link: it keeps neither the node nor the port alive.
#[derive(Debug)]
struct Plug {
    node: Weak<Node>,
    port: Weak<Port>,
}

impl Receiver for Plug {
    fn receive(&self, frames: &mut Batch) {
        match (self.node.upgrade(), self.port.upgrade()) {
            (Some(node), Some(port)) => node.receive(port.ifindex, frames),
            _ => frames.clear(),
        }
    }

    fn writable(&self) {
        if let (Some(node), Some(port)) = (self.node.upgrade(), self.port.upgrade()) {
            port.blocked.store(false, Ordering::SeqCst);
            node.unblock(&port);
        }
    }

    fn down(&self, _cause: LinkError) {
        if let (Some(node), Some(port)) = (self.node.upgrade(), self.port.upgrade()) {
            node.link_down(port.ifindex);
        }
    }
}
