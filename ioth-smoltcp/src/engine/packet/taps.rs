//! What the packet sockets together want of layer 2.

use std::collections::VecDeque;

use ioth_core::MacAddr;
use ioth_vde::Frame;

use super::members::Listening;
use super::{ETH_P_ALL, Packets, ethertype_of};
use crate::engine::SocketId;
use crate::engine::net::ETHERNET_HEADER;

/// Frames that were sent and that the packet sockets have not been shown yet, at most: the engine shows them after every
/// frame and call.
const MAX_SENT: usize = 4096;

/// What the packet sockets together want to see.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    /// Those that take frames of some protocol.
    sockets: Vec<SocketId>,
    /// Some of them see what is sent.
    outgoing: bool,
    /// Beyond what the interfaces take by themselves.
    listening: Listening,
    listening_before: Listening,
    listening_changed: bool,
    sent: VecDeque<Sent>,
    /// The tables' generation when the interfaces were last looked at.
    generation: u64,
}

/// A frame that was sent.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(super) ifindex: u32,
    pub(super) frame: Frame,
    pub(super) sender: Option<SocketId>,
}

impl Taps {
    /// Whether there is anybody to show frames to.
    pub(crate) fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Whether an interface takes frames to an Ethernet address that it would not take by itself.
    pub(crate) fn listens(&self, ifindex: u32, to: MacAddr) -> bool {
        self.listening.takes(ifindex, to)
    }

    /// What [`listens`](Self::listens) goes by.
    pub(crate) fn listening(&self) -> &Listening {
        &self.listening
    }

    /// Whether that changed since the last call.
    pub(crate) fn take_listening_changed(&mut self) -> bool {
        std::mem::take(&mut self.listening_changed)
    }

    /// A frame goes out.
    pub(crate) fn sent(&mut self, ifindex: u32, frame: &Frame, sender: Option<SocketId>) {
        if self.outgoing && self.sent.len() < MAX_SENT {
            self.sent.push_back(Sent { ifindex, frame: frame.clone(), sender });
        }
    }

    /// An IP packet goes out of the loopback interface.
    pub(crate) fn looped(&mut self, ifindex: u32, packet: &Frame) {
        if self.outgoing && self.sent.len() < MAX_SENT {
            self.sent.push_back(Sent { ifindex, frame: with_empty_header(packet), sender: None });
        }
    }

    pub(super) fn pop_sent(&mut self) -> Option<Sent> {
        self.sent.pop_front()
    }

    /// Whether interfaces may have changed since the last call.
    pub(super) fn links_changed(&mut self, generation: u64) -> bool {
        !self.is_empty() && std::mem::replace(&mut self.generation, generation) != generation
    }

    /// The list, to be put back.
    pub(super) fn take_sockets(&mut self) -> Vec<SocketId> {
        std::mem::take(&mut self.sockets)
    }

    pub(super) fn put_sockets(&mut self, sockets: Vec<SocketId>) {
        self.sockets = sockets;
    }

    /// Begins to count anew: [`add`](Self::add) each socket, then [`settle`](Self::settle).
    pub(super) fn clear(&mut self) {
        self.sockets.clear();
        self.outgoing = false;
        self.listening_before = std::mem::take(&mut self.listening);
    }

    pub(super) fn add(&mut self, id: SocketId, packets: &Packets) {
        if packets.protocol != 0 {
            self.sockets.push(id);
        }
        self.outgoing |= packets.protocol == ETH_P_ALL && !packets.ignore_outgoing;
        for membership in &packets.memberships {
            self.listening.add(membership);
        }
    }

    pub(super) fn settle(&mut self) {
        if std::mem::take(&mut self.listening_before) != self.listening {
            self.listening_changed = true;
        }
        if !self.outgoing {
            self.sent = VecDeque::new();
        }
    }
}

/// An IP packet with the header that the loopback interface puts in front: the protocol, and no addresses.
pub(super) fn with_empty_header(packet: &Frame) -> Frame {
    let mut frame = packet.clone();
    let ethertype = ethertype_of(packet);
    frame.push_front(ETHERNET_HEADER);
    frame[..12].fill(0);
    frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
    frame
}
