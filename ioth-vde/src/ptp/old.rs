//! The older form: two SOCK_DGRAM sockets, `path` of the first one and `path+` of the second.
//!
//! Each sends to the other's name. A datagram of no bytes says that the sender goes.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ioth_core::Errno;
use nix::sys::socket::{Shutdown, SockType, UnixAddr, connect, shutdown};
use parking_lot::Mutex;

use super::{ATTEMPTS, Failure, Name, Options, bury, call, inode, make};
use crate::datagram::{self, frame_max};
use crate::tally::Tally;
use crate::wire::{Descriptor, Halt, Wire};
use crate::{Batch, Frame, Properties, sys};

/// One end of a cable.
///
/// Its socket is connected to the other's only while it waits for room there: a connected one takes nothing of others,
/// and the end that comes after one that died without a word would be refused.
#[derive(Debug)]
pub(super) struct Cable {
    fd: Arc<OwnedFd>,
    other: UnixAddr,
    properties: Properties,
    name: Mutex<Option<Name>>,
}

impl Cable {
    /// Plugs in at the path, as the second one or else as the first.
    pub(super) fn plug(options: Options) -> Result<Self, Failure> {
        let mut second = options.path.clone().into_os_string();
        second.push("+");
        let second = PathBuf::from(second);
        for _ in 0..ATTEMPTS {
            let fd = make(SockType::Datagram)?;
            let there = inode(&options.path);
            let (own, other) = match call(&fd, &options.path) {
                // EPERM: it is connected to a second end, which may be dead.
                Ok(()) | Err(Errno::EPERM) => (&second, &options.path),
                Err(Errno::ECONNREFUSED) => {
                    bury(&options.path, there)?;
                    (&options.path, &second)
                }
                Err(Errno::ENOENT) => (&options.path, &second),
                Err(errno) => return Err((format!("calling at {}", options.path.display()), errno)),
            };
            let is_second = own == &second;
            // The socket was connected by looking.
            let _ = sys::disconnect(fd.as_fd());
            let failed = |errno| (format!("making the socket {}", own.display()), errno);
            match Name::give(&fd, own, options.mode, || Ok(())) {
                Ok(name) => {
                    return Ok(Cable {
                        fd: Arc::new(fd),
                        other: UnixAddr::new(other).map_err(failed)?,
                        properties: options.properties,
                        name: Mutex::new(Some(name)),
                    });
                }
                Err(Errno::EADDRINUSE) if is_second => displace(&second)?,
                // Somebody was quicker.
                Err(Errno::EADDRINUSE) => (),
                Err(errno) => return Err(failed(errno)),
            }
        }
        Err((format!("others come and go too fast at {}", options.path.display()), Errno::EAGAIN))
    }
}

/// Takes away a dead second end's socket; one that lives has the place.
fn displace(second: &Path) -> Result<(), Failure> {
    let there = inode(second);
    let probe = make(SockType::Datagram)?;
    match call(&probe, second) {
        Err(Errno::ECONNREFUSED) => bury(second, there),
        Err(Errno::ENOENT) => Ok(()),
        // EPERM: it is connected to the first end, and takes nothing of others.
        _ => {
            let what = "asking for the cable's other end (two programs have it)".to_owned();
            Err((what, Errno::EISCONN))
        }
    }
}

fn is_away(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ENOENT | Errno::ECONNREFUSED | Errno::ECONNRESET | Errno::EPIPE | Errno::EPERM | Errno::EACCES
    )
}

impl Wire for Cable {
    fn properties(&self) -> Properties {
        self.properties
    }

    fn descriptors(&self) -> Vec<Descriptor> {
        vec![Descriptor { fd: self.fd.clone(), sends: true }]
    }

    fn send(&self, frames: &mut Batch, tally: &Tally) -> Result<(), Halt> {
        let outcome = datagram::send(self.fd.as_fd(), Some(&self.other), frames, tally, is_away);
        if outcome == Err(Halt::Wait) {
            // Only a connected socket polls for room in the other's queue.
            let _ = connect(self.fd.as_raw_fd(), &self.other);
        }
        outcome
    }

    fn receive(&self, _: usize, room: usize, batch: &mut Batch, tally: &Tally) -> Result<bool, Halt> {
        match datagram::receive(self.fd.as_fd(), frame_max(&self.properties), room, batch, tally) {
            // One of no bytes: the other end goes, of which the next send hears as well.
            Ok(received) => Ok(received.more),
            Err(Errno::EAGAIN) => Err(Halt::Wait),
            // The other end has gone, which is told by an error that reading takes.
            Err(Errno::ECONNRESET | Errno::ECONNREFUSED) => Ok(true),
            Err(_) => Err(Halt::Gone),
        }
    }

    fn flush(&self, _: &Tally) -> Result<(), Halt> {
        // See `Cable`.
        let _ = sys::disconnect(self.fd.as_fd());
        Ok(())
    }

    fn close(&self) {
        // Upstream's end forgets us by that, and takes the next.
        let goodbye = Batch::from([Frame::new(0)]);
        let _ = sys::send_to(self.fd.as_fd(), &[], &goodbye, std::slice::from_ref(&self.other));
        let _ = shutdown(self.fd.as_raw_fd(), Shutdown::Both);
        *self.name.lock() = None;
    }
}
