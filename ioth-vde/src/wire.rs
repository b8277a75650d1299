//! The base of links that move frames over descriptors: the life of the link, the reactor, back-pressure.
//!
//! A [`Wire`] only knows how frames go through its descriptors; [`Port`] makes a [`Link`] of it.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use ioth_core::reactor::{Reactor, Registration, Source};
use ioth_core::{Errno, Events, fork};
use parking_lot::Mutex;

use crate::tally::Tally;
use crate::{Batch, Counters, Filter, Link, LinkError, Properties, Receiver, sys};

/// Batches that one call of the reactor delivers: a busy link must not keep it from the others.
const ROUNDS: usize = 4;
/// Frames that the first of them has room for.
const FIRST_BATCH: usize = 4;

/// How frames go through descriptors. Nothing here waits.
pub(crate) trait Wire: Send + Sync + fmt::Debug + 'static {
    /// What the link can carry.
    fn properties(&self) -> Properties;

    /// What is to be watched, until [`Halt::Changed`] says that it is something else.
    fn descriptors(&self) -> Vec<Descriptor>;

    /// Sends frames from the front of the batch and counts them; what cannot be sent for its own fault is dropped and
    /// counted. [`Halt::Wait`] with frames left: there is no room.
    fn send(&self, frames: &mut Batch, tally: &Tally) -> Result<(), Halt>;

    /// Reads about `room` frames from the descriptor of that number in [`descriptors`](Self::descriptors), appends the good ones and
    /// counts the others: whether there may be more. [`Halt::Wait`]: there is nothing.
    fn receive(&self, which: usize, room: usize, batch: &mut Batch, tally: &Tally) -> Result<bool, Halt>;

    /// A descriptor has room again: writes what a send had taken already. [`Halt::Wait`] when there is still more.
    fn flush(&self, tally: &Tally) -> Result<(), Halt> {
        let _ = tally;
        Ok(())
    }

    /// Which frames the receiver wants.
    fn set_filter(&self, filter: &Filter) {
        let _ = filter;
    }

    /// Why the network is gone, where that can be said.
    fn epitaph(&self) -> Option<String> {
        None
    }

    /// The link is detached, or was dropped: the last words to the network. Called once, in the process that made it.
    fn close(&self) {}
}

/// A descriptor of a [`Wire`].
#[derive(Clone, Debug)]
pub(crate) struct Descriptor {
    /// Whoever watches it keeps it open.
    pub(crate) fd: Arc<OwnedFd>,
    /// Whether a send that found no room waits for this one.
    pub(crate) sends: bool,
}

/// Why a wire moves nothing more just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Halt {
    /// The descriptor is empty, or full.
    Wait,
    /// There are other descriptors now.
    Changed,
    /// There is no network any more.
    Gone,
}

/// A link over a [`Wire`].
#[derive(Debug)]
pub(crate) struct Port {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    state: Mutex<State>,
    /// Held while a batch is read and delivered, so that batches keep their order. Never waited for.
    reading: Mutex<()>,
    /// Why there is no network any more.
    gone: OnceLock<LinkError>,
    closed: AtomicBool,
    /// The process that made it: a forked child must say nothing on its parent's descriptors.
    generation: u64,
    tally: Tally,
    wire: Box<dyn Wire>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// A send found no room; the receiver waits to be told.
    blocked: bool,
}

#[derive(Debug)]
enum Phase {
    Fresh,
    Attached { receiver: Arc<dyn Receiver>, watched: Vec<Watched> },
    Gone,
    Detached,
}

#[derive(Debug)]
struct Watched {
    // Before the descriptor: the registration ends first.
    registration: Registration,
    descriptor: Descriptor,
}

impl Port {
    /// A link of this name, which its messages begin with.
    pub(crate) fn new(name: &str, wire: impl Wire) -> Self {
        Port {
            inner: Arc::new(Inner {
                name: name.to_owned(),
                state: Mutex::new(State { phase: Phase::Fresh, blocked: false }),
                reading: Mutex::new(()),
                gone: OnceLock::new(),
                closed: AtomicBool::new(false),
                generation: fork::generation(),
                tally: Tally::default(),
                wire: Box::new(wire),
            }),
        }
    }
}

impl Link for Port {
    fn properties(&self) -> Properties {
        self.inner.wire.properties()
    }

    fn attach(&self, receiver: Arc<dyn Receiver>) -> Result<(), LinkError> {
        let inner = &self.inner;
        let mut state = inner.state.lock();
        match state.phase {
            Phase::Fresh => (),
            Phase::Attached { .. } => return Err(LinkError::attached(&inner.name)),
            Phase::Gone => return Err(inner.cause()),
            Phase::Detached => return Err(LinkError::Detached),
        }
        let watched = inner.watch(state.blocked).map_err(|error| LinkError::Os {
            what: format!("{}: watching its descriptors", inner.name),
            errno: crate::errno(&error),
        })?;
        state.phase = Phase::Attached { receiver, watched };
        Ok(())
    }

    fn send(&self, frames: &mut Batch) -> Result<(), LinkError> {
        let inner = &self.inner;
        inner.tally.admit(frames, &inner.wire.properties());
        if let Some(cause) = inner.gone.get() {
            inner.tally.down(frames);
            return Err(cause.clone());
        }
        // A wire may have taken what it could not yet write, so it waits although the batch is empty.
        match inner.wire.send(frames, &inner.tally) {
            Ok(()) => Ok(()),
            Err(Halt::Wait) => {
                inner.wait_for_room();
                Ok(())
            }
            Err(Halt::Changed) => {
                inner.later(Inner::rewatch);
                Ok(())
            }
            Err(Halt::Gone) => {
                let cause = inner.lost();
                inner.tally.down(frames);
                // The receiver may be sending with a lock held that it wants for `down`, too.
                inner.later(Inner::end);
                Err(cause)
            }
        }
    }

    fn set_filter(&self, filter: &Filter) {
        self.inner.wire.set_filter(filter);
    }

    fn detach(&self) {
        let inner = &self.inner;
        let phase = std::mem::replace(&mut inner.state.lock().phase, Phase::Detached);
        let _ = inner.gone.set(LinkError::Detached);
        // The receiver's drop may come back here: no lock is held.
        drop(phase);
        inner.close();
    }

    fn counters(&self) -> Counters {
        self.inner.tally.counters()
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.detach();
    }
}

impl Inner {
    /// Puts the wire's descriptors into the reactor.
    fn watch(self: &Arc<Self>, blocked: bool) -> std::io::Result<Vec<Watched>> {
        let reactor = Reactor::try_global()?;
        let mut watched = Vec::new();
        for (which, descriptor) in self.wire.descriptors().into_iter().enumerate() {
            let source = Arc::new(Watch { inner: Arc::downgrade(self), which });
            let interest = interest(blocked && descriptor.sends);
            let registration = reactor.register(descriptor.fd.as_fd(), interest, source)?;
            watched.push(Watched { registration, descriptor });
        }
        Ok(watched)
    }

    /// Takes the descriptors that the wire has now. In the reactor's thread.
    fn rewatch(self: &Arc<Self>) {
        let mut state = self.state.lock();
        let blocked = state.blocked;
        let Phase::Attached { watched, .. } = &mut state.phase else { return };
        // One descriptor may be in both lists, and can be registered once only.
        watched.clear();
        match self.watch(blocked) {
            Ok(new) => *watched = new,
            Err(error) => {
                let _ = self.gone.set(LinkError::Os {
                    what: format!("{}: watching its descriptors", self.name),
                    errno: crate::errno(&error),
                });
                drop(state);
                return self.end();
            }
        }
        drop(state);
        // Nobody may be told of room by a descriptor that is not there any more.
        if blocked {
            self.room();
        }
    }

    /// Reads what has come and delivers it. Callable from any thread: the first one does it.
    fn pump(self: &Arc<Self>, which: usize) {
        let Some(_reading) = self.reading.try_lock() else { return };
        let mut batch = Batch::new();
        let mut room = FIRST_BATCH;
        for _ in 0..ROUNDS {
            let Some(receiver) = self.receiver() else { return };
            let outcome = self.wire.receive(which, room, &mut batch, &self.tally);
            if !batch.is_empty() {
                self.tally.received(&batch);
                receiver.receive(&mut batch);
                batch.clear();
            }
            match outcome {
                Ok(true) => room = (room * 4).min(sys::BATCH),
                Ok(false) | Err(Halt::Wait) => return,
                Err(Halt::Changed) => return self.rewatch(),
                Err(Halt::Gone) => {
                    self.lost();
                    return self.end();
                }
            }
        }
    }

    fn receiver(&self) -> Option<Arc<dyn Receiver>> {
        match &self.state.lock().phase {
            Phase::Attached { receiver, .. } => Some(receiver.clone()),
            _ => None,
        }
    }

    fn wait_for_room(&self) {
        let mut state = self.state.lock();
        state.blocked = true;
        if let Phase::Attached { watched, .. } = &state.phase {
            set_interest(watched, true);
        }
    }

    fn room(self: &Arc<Self>) {
        match self.wire.flush(&self.tally) {
            Ok(()) => (),
            Err(Halt::Wait) => return,
            Err(Halt::Changed) => return self.rewatch(),
            Err(Halt::Gone) => {
                self.lost();
                return self.end();
            }
        }
        let mut state = self.state.lock();
        let State { phase: Phase::Attached { receiver, watched }, blocked } = &mut *state else { return };
        set_interest(watched, false);
        if std::mem::take(blocked) {
            let receiver = receiver.clone();
            drop(state);
            receiver.writable();
        }
    }

    fn later(self: &Arc<Self>, job: fn(&Arc<Self>)) {
        if let Ok(reactor) = Reactor::try_global() {
            let inner = self.clone();
            reactor.defer(Box::new(move || job(&inner)));
        }
    }

    /// Notes that the network is gone.
    fn lost(&self) -> LinkError {
        let _ = self.gone.get_or_init(|| match self.wire.epitaph() {
            Some(why) => LinkError::Gone(format!("{}: {why}", self.name)),
            None => LinkError::Gone(self.name.clone()),
        });
        self.cause()
    }

    fn cause(&self) -> LinkError {
        self.gone.get().cloned().unwrap_or(LinkError::Detached)
    }

    /// Tells the receiver, once, that the network is gone.
    fn end(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Detached) {
            return;
        }
        let phase = std::mem::replace(&mut state.phase, Phase::Gone);
        drop(state);
        if let Phase::Attached { receiver, watched } = phase {
            drop(watched);
            receiver.down(self.cause());
        }
    }

    fn close(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) && fork::check(self.generation).is_ok() {
            self.wire.close();
        }
    }
}

fn interest(blocked: bool) -> Events {
    if blocked { Events::IN | Events::OUT } else { Events::IN }
}

fn set_interest(watched: &[Watched], blocked: bool) {
    for Watched { registration, descriptor } in watched {
        // It can only fail for want of memory; the next send that finds no room tries again.
        let _ = registration.set_interest(interest(blocked && descriptor.sends));
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("name", &self.name)
            .field("wire", &self.wire)
            .field("gone", &self.gone.get())
            .field("counters", &self.tally.counters())
            .finish_non_exhaustive()
    }
}

/// A descriptor's readiness. Weak, as the link owns the registration.
#[derive(Debug)]
struct Watch {
    inner: Weak<Inner>,
    which: usize,
}

impl Source for Watch {
    fn ready(&self, events: Events) {
        let Some(inner) = self.inner.upgrade() else { return };
        if events.contains(Events::OUT) {
            inner.room();
        }
        // A pending error is taken by reading.
        if events.intersects(Events::IN | Events::ERR | Events::HUP) {
            inner.pump(self.which);
        }
    }
}

/// An error of a system call that moves frames, sorted by what it means to a batch.
pub(crate) enum Trouble {
    /// Try again.
    Again,
    /// Stop here.
    Halt(Halt),
    /// The first frame is dropped, which was counted; go on with the next.
    Dropped,
}

/// What a failed send means. What does not end the network costs the first frame at most.
pub(crate) fn send_trouble(errno: Errno, frames: &mut Batch, tally: &Tally) -> Trouble {
    match errno {
        Errno::EINTR => Trouble::Again,
        Errno::EAGAIN => Trouble::Halt(Halt::Wait),
        // The socket polls OUT all the while: waiting for that would be spinning.
        Errno::ENOBUFS | Errno::ENOMEM => {
            tally.no_memory(frames);
            Trouble::Dropped
        }
        Errno::EMSGSIZE => {
            tally.bad_length(frames);
            Trouble::Dropped
        }
        _ => Trouble::Halt(Halt::Gone),
    }
}
