//! What links over datagram sockets share: one datagram is one frame.

use std::os::fd::{BorrowedFd, OwnedFd};

use ioth_core::Errno;
use nix::sys::socket::{SockaddrLike, setsockopt, sockopt};

use crate::tally::{HEADER, Tally};
use crate::wire::{Halt, Trouble, send_trouble};
use crate::{Batch, Frame, LinkError, Properties, sys, vnl};

/// Size of a socket's queues, in bytes.
pub(crate) const BUFFER: usize = 1 << 20;
/// The MTU unless the VNL says another.
pub(crate) const MTU: usize = 1500;
/// Largest MTU, upstream's.
const MTU_MAX: u64 = 9216;
/// Smallest MTU: IPv4's.
const MTU_MIN: u64 = 68;
/// Ethernet with one VLAN tag.
const OVERHEAD: usize = HEADER + 4;

/// Makes room for a burst in a socket's queues; where the system allows less, it is less.
pub(crate) fn widen(socket: &OwnedFd) {
    let _ = setsockopt(socket, sockopt::SndBuf, &BUFFER);
    let _ = setsockopt(socket, sockopt::RcvBuf, &BUFFER);
}

/// The longest frame of a link with these properties, in bytes.
pub(crate) fn frame_max(properties: &Properties) -> usize {
    properties.mtu + OVERHEAD
}

/// What a link over datagrams can carry, by its VNL's `mtu=`.
pub(crate) fn properties(params: &vnl::Params, default: usize) -> Result<Properties, LinkError> {
    let mtu = params.number("mtu", MTU_MIN..=MTU_MAX)?.map_or(default, |mtu| mtu as usize);
    Ok(Properties { mtu, gso_max: 0, trusted: false })
}

/// Sends the batch over a socket with one peer, or to this one. What errors `is_away` says are of a peer that is not
/// there cost the frame, not the link.
pub(crate) fn send(
    fd: BorrowedFd<'_>,
    to: Option<&impl SockaddrLike>,
    frames: &mut Batch,
    tally: &Tally,
    is_away: fn(Errno) -> bool,
) -> Result<(), Halt> {
    while !frames.is_empty() {
        let sent = match to {
            Some(to) => sys::send_to(fd, &[], frames, std::slice::from_ref(to)),
            None => sys::send(fd, frames),
        };
        match sent {
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

/// What one read brought.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    /// There may be more.
    pub(crate) more: bool,
    /// Datagrams of no bytes: of a SOCK_SEQPACKET socket, its end.
    pub(crate) empty: usize,
}

/// Reads up to `room` frames of at most `frame_max` bytes into the batch.
pub(crate) fn receive(
    fd: BorrowedFd<'_>,
    frame_max: usize,
    room: usize,
    batch: &mut Batch,
    tally: &Tally,
) -> Result<Received, Errno> {
    let mut frames: Vec<_> = (0..room.min(sys::BATCH)).map(|_| Frame::new(frame_max)).collect();
    let mut lengths = [0; sys::BATCH];
    let count = loop {
        match sys::receive(fd, &mut frames, &mut lengths) {
            Err(Errno::EINTR) => (),
            other => break other?,
        }
    };
    let (mut empty, mut bad) = (0, 0);
    for (mut frame, len) in frames.drain(..count).zip(lengths) {
        match len {
            0 => empty += 1,
            len if len < HEADER || len > frame_max => bad += 1,
            len => {
                frame.truncate(len);
                batch.push_back(frame);
            }
        }
    }
    tally.received_bad_length(bad);
    Ok(Received { more: count == room, empty })
}
