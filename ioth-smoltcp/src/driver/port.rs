//! A node's end of a link.

use std::sync::{Arc, Weak};

use ioth_core::MacAddr;
use ioth_vde::{Batch, Filter, Frame, Link, LinkError, Receiver, Waiter};
use parking_lot::Mutex;

use super::Node;
use super::lane::{Added, Drained, Lane};
use crate::engine::Engine;
use crate::engine::tables::{Tables, group_mac};

/// A link, and the frames on their way to it.
#[derive(Debug)]
pub(crate) struct Port {
    ifindex: u32,
    link: Arc<dyn Link>,
    lane: Lane<Frame>,
    /// Version of the filter that the link has.
    filtered: Mutex<u64>,
}

impl Port {
    pub(crate) fn new(ifindex: u32, link: Arc<dyn Link>) -> Port {
        Port { ifindex, link, lane: Lane::new(), filtered: Mutex::new(0) }
    }

    pub(crate) fn ifindex(&self) -> u32 {
        self.ifindex
    }

    pub(crate) fn attach(self: &Arc<Self>, node: &Arc<Node>) -> Result<(), LinkError> {
        self.link.attach(Arc::new(Plug { node: Arc::downgrade(node), port: Arc::downgrade(self) }))
    }

    pub(crate) fn detach(&self) {
        self.link.detach();
    }

    /// Tells the link a filter, unless another thread has told it a later one.
    pub(crate) fn set_filter(&self, version: u64, filter: &Filter) {
        let mut filtered = self.filtered.lock();
        if *filtered < version {
            *filtered = version;
            self.link.set_filter(filter);
        }
    }

    /// What the interface wants to see.
    pub(crate) fn filter(&self, engine: &Engine) -> Filter {
        let tables = engine.tables();
        let groups = tables.groups(self.ifindex).map(group_mac);
        let (further_groups, further): (Vec<_>, Vec<_>) =
            engine.further_addresses(self.ifindex).partition(|mac| mac.is_group());
        Filter {
            unicast: self.mac(tables).into_iter().chain(further).collect(),
            groups: groups.chain(further_groups).collect(),
            promiscuous: engine.is_open(self.ifindex),
        }
    }

    /// The interface's Ethernet address.
    pub(crate) fn mac(&self, tables: &Tables) -> Option<MacAddr> {
        tables.iface(self.ifindex).map(|iface| iface.mac())
    }

    /// Lets the engine go on if there is room again. Called with the node's lock held.
    pub(crate) fn relieve(&self, engine: &mut Engine) {
        if self.lane.relieve() {
            engine.set_blocked(self.ifindex, false);
        }
    }

    /// Takes what the engine has for the link. Called with the node's lock held. True when something waits.
    pub(crate) fn collect(&self, engine: &mut Engine) -> bool {
        let Added { waiting, hold } = self.lane.add(|frames| engine.take_egress(self.ifindex, frames));
        if hold {
            engine.set_blocked(self.ifindex, true);
        }
        waiting
    }

    /// Whether what waits may wait for more: sending is dear, and a full batch is not there yet.
    pub(crate) fn gathers(&self) -> bool {
        !self.is_trusted() && !self.lane.has_batch()
    }

    /// Whether frames stay within the process.
    pub(crate) fn is_trusted(&self) -> bool {
        self.link.properties().trusted
    }

    /// Sends what waits, unless somebody else is at it. Called with no lock held.
    pub(crate) fn drain(&self, budget: &mut usize) -> Drained {
        self.lane.drain(budget, |frames| {
            // A link that is gone will never take anything.
            if self.link.send(frames).is_err() {
                frames.clear();
            }
        })
    }

    /// Frames that the link has delivered.
    pub(crate) fn frames_received(&self) -> u64 {
        self.link.counters().rx_frames
    }

    /// Waits for frames in this thread and delivers them, as [`Link::attend`] does. Called with no lock held.
    pub(crate) fn attend(&self, waiter: &mut dyn Waiter) -> bool {
        self.link.attend(waiter)
    }

    #[cfg(all(test, not(loom)))]
    pub(crate) fn is_idle(&self) -> bool {
        self.lane.is_empty()
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
            port.lane.unblock();
            node.call(|_| ());
        }
    }

    fn down(&self, _cause: LinkError) {
        if let (Some(node), Some(port)) = (self.node.upgrade(), self.port.upgrade()) {
            // What waits goes the way of all frames to a link that is gone, and nobody waits for room there.
            port.lane.unblock();
            node.link_down(port.ifindex);
        }
    }
}
