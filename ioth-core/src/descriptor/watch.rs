//! Wakers of a descriptor, told by the reactor.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::Waker;

use parking_lot::Mutex;

use crate::reactor::{Reactor, Registration, Source};
use crate::{Errno, Events, Result};

/// Who waits for a socket. Registered with the reactor only while somebody does, so that a socket
/// nobody waits for costs no wake-up; each waker is called once.
#[derive(Debug, Default)]
pub(super) struct Watch {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    wakers: Vec<(Events, Waker)>,
    /// Before `fd`, which has to outlive it.
    registration: Option<Registration>,
    fd: Option<Arc<OwnedFd>>,
}

impl Watch {
    /// Wakes `waker` once when any of `interest`, `ERR` or `HUP` holds of `fd`.
    pub(super) fn add(self: &Arc<Self>, fd: Arc<OwnedFd>, interest: Events, waker: &Waker) -> Result<()> {
        // The reactor tells of RDHUP by IN alone. With data unread that is early, and the waker asks again.
        let interest = if interest.contains(Events::RDHUP) { interest | Events::IN } else { interest };
        let mut waiting = self.waiting.lock();
        match waiting.wakers.iter_mut().find(|(_, known)| known.will_wake(waker)) {
            Some((known, _)) => *known |= interest,
            None => waiting.wakers.push((interest, waker.clone())),
        }
        let interest = waiting.interest();
        // Level-triggered: what came true since the caller looked is told at once.
        let told = match &waiting.registration {
            Some(registration) => registration.set_interest(interest),
            None => {
                let source = Arc::clone(self) as Arc<dyn Source>;
                let reactor = Reactor::try_global();
                reactor.and_then(|reactor| reactor.register(fd.as_fd(), interest, source)).map(
                    |registration| {
                        waiting.registration = Some(registration);
                        waiting.fd = Some(fd);
                    },
                )
            }
        };
        told.map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
    }

    /// Stops waiting and wakes everybody: the socket is closed.
    pub(super) fn end(&self) {
        let ended = std::mem::take(&mut *self.waiting.lock());
        for (_, waker) in ended.wakers {
            waker.wake();
        }
    }
}

impl Waiting {
    fn interest(&self) -> Events {
        self.wakers.iter().fold(Events::empty(), |all, (events, _)| all | *events)
    }
}

impl Source for Watch {
    fn ready(&self, events: Events) {
        let mut waiting = self.waiting.lock();
        let over = events.intersects(Events::ERR | Events::HUP);
        let woken: Vec<_> =
            waiting.wakers.extract_if(.., |(interest, _)| over || interest.intersects(events)).collect();
        let interest = waiting.interest();
        let kept = match &waiting.registration {
            Some(registration) if !waiting.wakers.is_empty() => registration.set_interest(interest).is_ok(),
            _ => false,
        };
        // Under the lock: the next registration of this descriptor has to come after this one's end.
        if !kept {
            waiting.registration = None;
            waiting.fd = None;
        }
        let stranded = if kept { Vec::new() } else { std::mem::take(&mut waiting.wakers) };
        drop(waiting);
        for (_, waker) in woken.into_iter().chain(stranded) {
            waker.wake();
        }
    }
}
