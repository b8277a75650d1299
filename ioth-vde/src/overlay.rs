//! What `vxvde://` and `vxlan://` share: Ethernet frames in UDP, each behind a header of eight bytes, to a group or to who is known to have
//! the destination.
//!
//! ```text
//!   flags (1)   reserved (3)   network identifier (3)   reserved (1)      RFC 7348 §5
//! ```

mod net;
mod table;

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use ioth_core::Errno;
use nix::sys::socket::SockaddrStorage;
use parking_lot::Mutex;

use crate::datagram::frame_max;
use crate::ether::{HEADER, mac_at};
use crate::tally::Tally;
use crate::udp::is_away;
use crate::wire::{Descriptor, Halt, Trouble, Wire, send_trouble};
use crate::{Batch, Frame, Properties, sys};

pub(crate) use net::{Group, Probe, any, bind, family, group, interface, number, socket, unknown_group};
pub(crate) use table::Table;

/// Length of the header before each frame.
pub(crate) const PREFIX: usize = 8;
/// Largest network identifier.
pub(crate) const VNI_MAX: u64 = 0xff_ffff;
/// The flag that says that there is an identifier, which is always there.
const VALID: u8 = 0x08;

/// The header of a network.
pub(crate) fn header(vni: u32) -> [u8; PREFIX] {
    let [_, a, b, c] = vni.to_be_bytes();
    [VALID, 0, 0, 0, a, b, c, 0]
}

/// What is behind the header of one's own network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A frame, if it is long enough.
    Frame,
    /// The sender leaves (`vxvde://` only).
    Leave,
    /// A header of something else.
    Foreign,
}

/// Which of the two kinds it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Vxvde,
    Vxlan,
}

impl Kind {
    /// Reads a datagram's header.
    pub(crate) fn content(self, datagram: &[u8], own: &[u8; PREFIX]) -> Content {
        let Some(header) = datagram.get(..PREFIX) else { return Content::Foreign };
        let same = match self {
            Kind::Vxvde => header == own,
            // RFC 7348 §5: reserved fields "MUST be set to zero on transmission and ignored on receipt".
            Kind::Vxlan => header[0] == own[0] && header[4..7] == own[4..7],
        };
        match same {
            false => Content::Foreign,
            true if self == Kind::Vxvde && datagram.len() == PREFIX => Content::Leave,
            true => Content::Frame,
        }
    }
}

/// An overlay network's end.
#[derive(Debug)]
pub(crate) struct Overlay {
    pub(crate) kind: Kind,
    pub(crate) header: [u8; PREFIX],
    /// Where frames go of whose destination nobody is known.
    pub(crate) group: SocketAddr,
    /// Everything is sent from here, and what is for us alone comes here.
    pub(crate) unicast: Arc<OwnedFd>,
    /// Where the group is heard, if not there.
    pub(crate) multicast: Option<Arc<OwnedFd>>,
    /// The port of `unicast`, and its address when it has one.
    pub(crate) own: SocketAddr,
    pub(crate) table: Mutex<Table>,
    pub(crate) properties: Properties,
    /// What tells which addresses the host has.
    pub(crate) probe: Probe,
}

impl Overlay {
    fn is_own(&self, sender: SocketAddr) -> bool {
        if sender.port() != self.own.port() {
            return false;
        }
        if !self.own.ip().is_unspecified() {
            return sender.ip() == self.own.ip();
        }
        // Without an address of our own we have any of the host's; only other hosts have our port as well. Not so of VXLAN,
        // whose port everybody has: it does not hear itself, its socket being told so.
        if self.kind == Kind::Vxlan {
            return false;
        }
        // A host with nothing but its loopback interface sends to a group from no address.
        sender.ip().is_unspecified() || self.probe.is_local(sender.ip())
    }

    fn take(&self, datagram: &mut Frame, sender: SocketAddr, tally: &Tally) -> bool {
        match self.kind.content(datagram, &self.header) {
            Content::Foreign => tally.received_bad_header(1),
            Content::Leave => self.table.lock().forget(sender),
            Content::Frame if datagram.len() < PREFIX + HEADER => tally.received_bad_length(1),
            Content::Frame => {
                datagram.pull_front(PREFIX);
                let at = match self.kind {
                    Kind::Vxvde => sender,
                    // RFC 7348 §5: the source port is a hash of the frame's headers; answers go to the known one.
                    Kind::Vxlan => SocketAddr::new(sender.ip(), self.group.port()).with_scope_of(sender),
                };
                self.table.lock().learn(mac_at(datagram, 6), at);
                return true;
            }
        }
        false
    }
}

trait ScopeOf {
    fn with_scope_of(self, other: Self) -> Self;
}

impl ScopeOf for SocketAddr {
    /// A link-local address says nothing without its interface.
    fn with_scope_of(mut self, other: Self) -> Self {
        if let (SocketAddr::V6(own), SocketAddr::V6(other)) = (&mut self, other) {
            own.set_scope_id(other.scope_id());
        }
        self
    }
}

impl Wire for Overlay {
    fn properties(&self) -> Properties {
        self.properties
    }

    fn descriptors(&self) -> Vec<Descriptor> {
        let unicast = Descriptor { fd: self.unicast.clone(), sends: true };
        let multicast = self.multicast.iter().map(|fd| Descriptor { fd: fd.clone(), sends: false });
        std::iter::once(unicast).chain(multicast).collect()
    }

    fn send(&self, frames: &mut Batch, tally: &Tally) -> Result<(), Halt> {
        while !frames.is_empty() {
            let to: Vec<_> = {
                let mut table = self.table.lock();
                let whom = |frame: &Frame| table.find(mac_at(frame, 0)).unwrap_or(self.group);
                frames.iter().take(sys::BATCH).map(whom).map(SockaddrStorage::from).collect()
            };
            match sys::send_to(self.unicast.as_fd(), &self.header, frames, &to) {
                Ok(sent) => {
                    let bytes = frames.drain(..sent).map(|frame| frame.len()).sum();
                    tally.sent(sent, bytes);
                }
                Err(errno) if is_away(errno) => tally.unreachable(frames),
                Err(errno) => match send_trouble(errno, frames, tally) {
                    Trouble::Again | Trouble::Dropped => (),
                    Trouble::Halt(halt) => return Err(halt),
                },
            }
        }
        Ok(())
    }

    fn receive(&self, which: usize, room: usize, batch: &mut Batch, tally: &Tally) -> Result<bool, Halt> {
        let fd = match (which, &self.multicast) {
            (0, _) | (_, None) => &self.unicast,
            (_, Some(multicast)) => multicast,
        };
        let longest = PREFIX + frame_max(&self.properties);
        let room = room.min(sys::BATCH);
        let mut frames: Vec<_> = (0..room).map(|_| Frame::new(longest)).collect();
        let mut lengths = [0; sys::BATCH];
        let mut senders = [None; sys::BATCH];
        let count = match sys::receive_from(fd.as_fd(), &mut frames, &mut lengths, &mut senders) {
            Ok(count) => count,
            Err(Errno::EAGAIN) => return Err(Halt::Wait),
            // An error that ICMP told is taken by that, and means one datagram.
            Err(_) => return Ok(true),
        };
        for ((mut datagram, len), sender) in frames.drain(..count).zip(lengths).zip(senders) {
            let Some(sender) = sender else { continue };
            if self.is_own(sender) {
                continue;
            }
            if len > longest {
                tally.received_bad_length(1);
                continue;
            }
            datagram.truncate(len);
            if self.take(&mut datagram, sender, tally) {
                batch.push_back(datagram);
            }
        }
        Ok(count == room)
    }

    fn close(&self) {
        if self.kind == Kind::Vxvde {
            // A header alone: whoever knows our nodes forgets them.
            let goodbye = Batch::from([Frame::new(0)]);
            let to = [SockaddrStorage::from(self.group)];
            let _ = sys::send_to(self.unicast.as_fd(), &self.header, &goodbye, &to);
        }
    }
}

/// What the end of a network makes of a datagram. For fuzzers: `None` when it is dropped.
#[doc(hidden)]
pub fn read(vxlan: bool, vni: u32, datagram: &[u8]) -> Option<&[u8]> {
    let kind = if vxlan { Kind::Vxlan } else { Kind::Vxvde };
    match kind.content(datagram, &header(vni)) {
        Content::Frame => Some(&datagram[PREFIX..]).filter(|frame| frame.len() >= HEADER),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
