//! Where programs join a node with a name, and where it is asked to end.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use ioth_node::proto::Place;
use ioth_node_client::named::{Ask, Claim, admit};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::{MsgFlags, SockFlag, accept4, getsockopt, recv, sockopt};
use nix::unistd::geteuid;

use crate::sys;

/// Connections at a time; beyond, the oldest goes.
const MAX_GUESTS: usize = 64;

/// Lets programs join until the node is asked to end; then the node ends with its last program.
pub(crate) struct Desk {
    claim: Claim,
    place: Place,
    /// What keeps the node alive; `None` once it was asked to end.
    lease: Option<OwnedFd>,
    signals: SignalFd,
    guests: Vec<OwnedFd>,
    /// Given up to turn somebody away when descriptors are short: who waits would keep poll(2) awake.
    spare: Option<File>,
}

impl Desk {
    pub(crate) fn new(claim: Claim, place: Place, lease: OwnedFd, signals: SignalFd) -> Self {
        Desk { claim, place, lease: Some(lease), signals, guests: Vec::new(), spare: spare() }
    }

    pub(crate) fn claim(&self) -> Claim {
        self.claim.clone()
    }

    /// Never returns but with the process: who waits for its end has a connection here.
    pub(crate) fn run(mut self) {
        loop {
            let ready = {
                let watch = |fd| PollFd::new(fd, PollFlags::POLLIN);
                let mut watched = vec![watch(self.signals.as_fd()), watch(self.claim.listener().as_fd())];
                watched.extend(self.guests.iter().map(|guest| watch(guest.as_fd())));
                if self.lease.is_none() {
                    // Nobody new.
                    watched[1].set_events(PollFlags::empty());
                }
                match poll(&mut watched, PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    // No memory for it: as if all were ready, one at a time.
                    Err(_) => std::thread::yield_now(),
                }
                watched.iter().map(|fd| fd.any().unwrap_or(true)).collect::<Vec<_>>()
            };
            if ready[0] {
                self.signalled();
            }
            // From the end, so that the others keep their places.
            for at in (0..self.guests.len()).rev().filter(|at| ready[2 + at]) {
                self.asked(at);
            }
            if ready[1] && self.lease.is_some() {
                self.comes();
            }
        }
    }

    fn signalled(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if [Signal::SIGTERM as u32, Signal::SIGINT as u32].contains(&signal.ssi_signo) {
                self.stop();
            }
        }
    }

    /// A guest asks, or went.
    fn asked(&mut self, at: usize) {
        let mut message = [0; Ask::LEN + 1];
        match recv(self.guests[at].as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EAGAIN | Errno::EINTR) => return,
            Ok(len @ 1..) => match (Ask::parse(&message[..len]), &self.lease) {
                (Some(Ask::Stop), _) => return self.stop(),
                (Some(Ask::Join), Some(lease)) => {
                    // Who does not take it has gone.
                    let _ = admit(&self.guests[at], &self.place, lease);
                }
                _ => {}
            },
            _ => {}
        }
        self.guests.remove(at);
    }

    fn comes(&mut self) {
        let listener = self.claim.listener().as_raw_fd();
        let accept = || accept4(listener, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK).map(sys::adopt);
        let guest = match accept() {
            Err(Errno::EMFILE | Errno::ENFILE) => {
                self.spare = None;
                drop(accept());
                self.spare = spare();
                return;
            }
            Ok(Some(guest)) => guest,
            _ => return,
        };
        // The directory lets nobody else in, but who has root's rights.
        if getsockopt(&guest, sockopt::PeerCredentials).is_ok_and(|peer| peer.uid() == geteuid().as_raw()) {
            if self.guests.len() == MAX_GUESTS {
                self.guests.remove(0);
            }
            self.guests.push(guest);
        }
    }

    fn stop(&mut self) {
        if self.lease.take().is_some() {
            self.claim.release();
        }
    }
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}
