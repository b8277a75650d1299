//! A TAP interface whose far end is a link.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ioth_core::Errno;

use super::{DEVICE, GSO_MAX, KIND, Queues, Tap};
use crate::tally::Tally;
use crate::wire::{Halt, Wire};
use crate::{Batch, Counters, LinkError, sys};

/// The largest MTU that the kernel gives a TAP interface, in bytes.
const MTU_MAX: usize = 65_521;

/// A new TAP interface, seen from the outside: what its kernel sends is read here, and what is written here arrives there.
///
/// It may be in another network namespace: it is in the one where its descriptor was opened. The interface ends with its
/// descriptor. Nothing here waits; any thread may call.
#[derive(Debug)]
pub struct Device {
    tap: Tap,
    tally: Tally,
    name: String,
}

impl Device {
    /// Makes an interface of `device`, which is /dev/net/tun, opened with `O_NONBLOCK`. It is down. `%d` in its name becomes a
    /// number that is free.
    ///
    /// Its kernel leaves checksums and TCP's segmentation undone; a [`Link`](crate::Link) does what cannot be left any further.
    ///
    /// # Errors
    /// [`LinkError::Os`] with `EPERM` for want of CAP_NET_ADMIN in the namespace's user namespace, `EBUSY` or `EINVAL` for a name
    /// that is taken.
    pub fn new(device: OwnedFd, name: &str) -> Result<Self, LinkError> {
        let given = sys::tun_set_interface(device.as_fd(), name, KIND).map_err(|errno| {
            let why = match errno {
                Errno::EBUSY | Errno::EINVAL => " (another interface has that name)",
                Errno::EPERM => " (it takes CAP_NET_ADMIN in the user namespace)",
                Errno::ENOTTY | Errno::ENOTSUP => " (/dev/net/tun is something else)",
                _ => "",
            };
            LinkError::Os { what: format!("making the interface {name}{why}"), errno }
        })?;
        // Its own MTU matters to nobody here: super-frames are read with room for the longest, and any length is written.
        let tap = Tap::over(Queues::new(device, Vec::new()), MTU_MAX, GSO_MAX, true);
        Ok(Device { tap, tally: Tally::default(), name: given })
    }

    /// The interface's name, as it was made.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The MTU for a link whose largest packet has `mtu` bytes.
    pub fn mtu_for(mtu: usize) -> u32 {
        mtu.min(MTU_MAX) as u32
    }

    /// Fills the batch, which is empty, with up to `room` frames that the kernel sent: whether there may be more.
    ///
    /// # Errors
    /// `ENODEV` when the interface is gone.
    pub fn read(&self, room: usize, batch: &mut Batch) -> Result<bool, Errno> {
        debug_assert!(batch.is_empty(), "frames would be counted twice");
        let outcome = self.tap.receive(0, room, batch, &self.tally);
        self.tally.received(batch);
        match outcome {
            Ok(more) => Ok(more),
            Err(Halt::Wait) => Ok(false),
            Err(Halt::Changed | Halt::Gone) => Err(Errno::ENODEV),
        }
    }

    /// Has the frames arrive at the kernel, all of them: it has a queue of its own, and drops and counts what that has no room for.
    pub fn write(&self, frames: &mut Batch) {
        self.tally.admit(frames, &self.tap.properties);
        if self.tap.send(frames, &self.tally).is_err() {
            self.tally.down(frames);
        }
    }

    /// Plugs the cable in, or out (`IFF_RUNNING` of the interface).
    ///
    /// # Errors
    /// `EINVAL` before Linux 5.0.
    pub fn set_carrier(&self, carrier: bool) -> Result<(), Errno> {
        sys::tun_set_carrier(self.as_fd(), carrier)
    }

    /// Leaves the interface to its network namespace, with which it ends. The descriptor's close then unplugs the cable, and
    /// no more; else it would wait for the kernel to take the interface out, which takes tens of milliseconds.
    ///
    /// # Errors
    /// `EBADFD` when the interface is gone.
    pub fn leave_to_namespace(&self) -> Result<(), Errno> {
        sys::tun_set_persistent(self.as_fd())
    }

    /// What went through: "received" is what the kernel sent.
    pub fn counters(&self) -> Counters {
        self.tally.counters()
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tap.queues.first().as_fd()
    }
}

/// Why /dev/net/tun could not be opened, in words that say what to do about it.
pub fn opening(errno: Errno) -> String {
    let remedy = match errno {
        Errno::ENOENT | Errno::ENODEV | Errno::ENXIO => {
            " (as root: modprobe tun; in a container: --device /dev/net/tun)"
        }
        Errno::EACCES | Errno::EPERM => {
            " (as root: chmod 666 /dev/net/tun; in a container: --device /dev/net/tun)"
        }
        _ => "",
    };
    format!("opening {DEVICE}{remedy}")
}
