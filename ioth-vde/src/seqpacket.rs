//! `seqpacket://N`: a socket that the program inherited, as the descriptor of that number; each message is a frame.
//!
//! The socket is one of SOCK_SEQPACKET or a connected one of SOCK_DGRAM, such as an end of socketpair(2). The link takes it over:
//! the number is free again when the link is open, and the socket is closed with the link. `/mtu=` (1500) is the
//! largest IP packet of the network.

use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::Arc;

use ioth_core::Errno;
use nix::sys::socket::{SockType, UnixAddr};

use crate::datagram::{self, frame_max};
use crate::schemes::Spec;
use crate::tally::Tally;
use crate::vnl::{self, Keys, syntax};
use crate::wire::{Descriptor, Halt, Port, Wire};
use crate::{Batch, Link, LinkError, Properties, sys};

const KEYS: Keys = &["mtu"];

/// Opens `seqpacket://...`.
pub(crate) fn open(spec: &Spec<'_>) -> Result<Arc<dyn Link>, LinkError> {
    let (number, params) = spec.slash(KEYS)?;
    let properties = datagram::properties(&params, spec.default_mtu())?;
    let number = vnl::size(&number).and_then(|number| RawFd::try_from(number).ok()).ok_or_else(|| {
        syntax(format!("\"{number}\" in \"{}\" (should be the number of a descriptor)", spec.vnl))
    })?;
    let failed = |what: &str, errno| LinkError::Os { what: format!("{}: {what}", spec.vnl), errno };
    // Asked before it is taken: what is refused stays with the program.
    let kind = sys::socket_type(number)
        .map_err(|errno| failed("looking at the descriptor (a socket is to be inherited there)", errno))?;
    let kind = SockType::try_from(kind)
        .ok()
        .filter(|kind| matches!(kind, SockType::SeqPacket | SockType::Datagram))
        .ok_or_else(|| {
            failed("the socket keeps no messages apart (SOCK_SEQPACKET does)", Errno::EPROTOTYPE)
        })?;
    let fd = sys::take_inherited(number).map_err(|errno| failed("taking the descriptor", errno))?;
    Ok(Arc::new(Port::new(spec.vnl, Inherited { fd: Arc::new(fd), kind, properties })))
}

#[derive(Debug)]
struct Inherited {
    fd: Arc<OwnedFd>,
    kind: SockType,
    properties: Properties,
}

impl Wire for Inherited {
    fn properties(&self) -> Properties {
        self.properties
    }

    fn descriptors(&self) -> Vec<Descriptor> {
        vec![Descriptor { fd: self.fd.clone(), sends: true }]
    }

    fn send(&self, frames: &mut Batch, tally: &Tally) -> Result<(), Halt> {
        datagram::send(self.fd.as_fd(), None::<&UnixAddr>, frames, tally, |_| false)
    }

    fn receive(&self, _: usize, room: usize, batch: &mut Batch, tally: &Tally) -> Result<bool, Halt> {
        match datagram::receive(self.fd.as_fd(), frame_max(&self.properties), room, batch, tally) {
            Ok(received) if received.empty > 0 && self.kind == SockType::SeqPacket => Err(Halt::Gone),
            Ok(received) => {
                tally.received_bad_length(received.empty as u64);
                Ok(received.more)
            }
            Err(Errno::EAGAIN) => Err(Halt::Wait),
            Err(_) => Err(Halt::Gone),
        }
    }
}
