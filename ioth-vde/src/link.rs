//! The plug between a node and a virtual network.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use ioth_core::{Errno, MacAddr};

use crate::Batch;

/// An Ethernet port into a virtual network.
///
/// Order of calls: [`attach`](Self::attach) once, then [`send`](Self::send) and
/// [`set_filter`](Self::set_filter) from any thread, [`detach`](Self::detach) at the end. No delivery
/// begins before `attach` or after `detach` returned. Dropping a link detaches it.
///
/// A link holds no lock while it calls its receiver, so a receiver may send from within.
pub trait Link: Send + Sync + fmt::Debug + 'static {
    /// What the link can carry. Constant for the link's life.
    fn properties(&self) -> Properties;

    /// Plugs the receiver in and starts delivery.
    ///
    /// # Errors
    /// [`LinkError`] when the network cannot be reached any more.
    fn attach(&self, receiver: Arc<dyn Receiver>) -> Result<(), LinkError>;

    /// Sends frames from the front of the batch, in order, without waiting.
    ///
    /// What stays in the batch found no room; [`Receiver::writable`] tells when there is some again.
    /// A frame that can never be sent (too long, too short) is dropped and counted.
    ///
    /// # Errors
    /// [`LinkError`] when the network is gone; the batch is then emptied, its frames counted as dropped.
    fn send(&self, frames: &mut Batch) -> Result<(), LinkError>;

    /// Tells which frames the port wants, so that a switch can spare it the others. A hint: other frames may come.
    fn set_filter(&self, filter: &Filter) {
        let _ = filter;
    }

    /// Waits in the calling thread for what comes and delivers it in this thread, again and again, until the waiter has enough.
    ///
    /// Meanwhile the reactor's thread leaves the link's descriptors to this one: whoever waits for an answer anyway is
    /// spared a wake-up of another thread. Meant for a thread that holds no lock. False where the link cannot do that, or
    /// cannot any more, or another thread is at it: then the reactor's thread reads.
    fn attend(&self, waiter: &mut dyn Waiter) -> bool {
        let _ = waiter;
        false
    }

    /// Unplugs: the receiver is dropped and the network forgets the port. A second call does nothing.
    ///
    /// Does not wait: a delivery that another thread had begun may end after this returned.
    fn detach(&self);

    /// What went through and what was lost.
    fn counters(&self) -> Counters;
}

/// What a link tells of its other side; implemented by a stack.
///
/// Called from whatever thread brought the event: another node's caller, or the reactor. Must not block.
pub trait Receiver: Send + Sync + fmt::Debug + 'static {
    /// Frames arrived. The receiver takes them all.
    fn receive(&self, frames: &mut Batch);

    /// There is room for [`Link::send`] again, after it had left frames in its batch.
    fn writable(&self);

    /// The network is gone; nothing will be delivered any more.
    fn down(&self, cause: LinkError);
}

/// Who waits at a link: see [`Link::attend`].
pub trait Waiter {
    /// How to wait; `None` when it has enough. Asked again after whatever came. What else happens is told by the waker, from
    /// before this is called.
    fn patience(&mut self, waker: &Waker) -> Option<Patience>;

    /// A descriptor whose input is waited for as well; asked once, before all.
    fn descriptor(&self) -> Option<Arc<OwnedFd>> {
        None
    }

    /// A signal's handler has run in the midst of the wait.
    fn interrupted(&mut self) {}
}

/// How to wait at a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// It looks again and again, and lets others have its core between two looks. Else it sleeps.
    pub awake: bool,
    /// Until then (`None`: for ever).
    pub until: Option<Instant>,
}

/// What a link can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Properties {
    /// Largest IP packet, in bytes (the frame is 14 longer).
    pub mtu: usize,
    /// Largest IP packet that the link takes as a super-frame, to be segmented by whoever must; 0 when it takes none.
    pub gso_max: usize,
    /// Whether frames reach their receiver in this process's memory, so that checksums need not be computed.
    pub trusted: bool,
}

/// Which frames a port wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The port's own addresses.
    pub unicast: Vec<MacAddr>,
    /// Group addresses that it listens to; broadcast is always included.
    pub groups: Vec<MacAddr>,
    /// It wants everything (a bridge, a sniffer).
    pub promiscuous: bool,
}

/// What went through a link, and what was lost by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames handed to the receiver.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames not sent: shorter than an Ethernet header or longer than the MTU allows.
    pub tx_bad_length: u64,
    /// Frames not sent because the network was gone.
    pub tx_down: u64,
    /// Frames not sent because the host had no memory for them.
    pub tx_no_memory: u64,
    /// Frames not sent because nobody is at the other end, no way leads there just now, or their VLAN is none of the link's.
    pub tx_unreachable: u64,
    /// Frames not received: shorter than an Ethernet header or cut by the network.
    pub rx_bad_length: u64,
    /// Frames not received: their header is not the tunnel's, is another network's or VLAN's, or asks for what cannot be done.
    pub rx_bad_header: u64,
    /// Frames not delivered because the receiver's queue was full.
    pub rx_overrun: u64,
}

impl Counters {
    /// What was lost, by name.
    pub fn losses(&self) -> [(&'static str, u64); 7] {
        [
            ("tx_bad_length", self.tx_bad_length),
            ("tx_down", self.tx_down),
            ("tx_no_memory", self.tx_no_memory),
            ("tx_unreachable", self.tx_unreachable),
            ("rx_bad_length", self.rx_bad_length),
            ("rx_bad_header", self.rx_bad_header),
            ("rx_overrun", self.rx_overrun),
        ]
    }
}

/// Error returned when a link cannot be made or has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The VNL is malformed: what is wrong, where, and what would be right.
    #[error("vnl: {0}")]
    Syntax(String),
    /// No such scheme.
    #[error("vnl: unknown scheme \"{scheme}\" in \"{vnl}\" (known: {known})")]
    Scheme {
        /// The part before `://`.
        scheme: String,
        /// The whole VNL.
        vnl: String,
        /// The schemes that there are.
        known: String,
    },
    /// The network refused, or a system call failed.
    #[error("{what}: {errno}")]
    Os {
        /// What was being done, with the VNL or path.
        what: String,
        /// Why it failed.
        errno: Errno,
    },
    /// The network's other side has gone.
    #[error("{0}: the network is gone")]
    Gone(String),
    /// The link was detached.
    #[error("the link is detached")]
    Detached,
}

impl LinkError {
    /// The same of a VNL that stood in a file.
    pub(crate) fn in_file(self, path: &std::path::Path) -> Self {
        let file = path.display();
        match self {
            LinkError::Syntax(what) => LinkError::Syntax(format!("{what}, as the file {file} says")),
            LinkError::Os { what, errno } => {
                LinkError::Os { what: format!("{what} (as the file {file} says)"), errno }
            }
            // The others name no VNL, or the file already.
            other => other,
        }
    }

    /// A second [`Link::attach`].
    pub(crate) fn attached(what: &str) -> Self {
        LinkError::Os { what: format!("{what} has its receiver already"), errno: Errno::EISCONN }
    }

    /// The error as Linux numbers it.
    pub fn errno(&self) -> Errno {
        match self {
            LinkError::Syntax(_) => Errno::EINVAL,
            LinkError::Scheme { .. } => Errno::EPROTONOSUPPORT,
            LinkError::Os { errno, .. } => *errno,
            LinkError::Gone(_) | LinkError::Detached => Errno::ENETDOWN,
        }
    }
}
