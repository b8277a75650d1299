//! The base of links that move frames over descriptors: the life of the link, the reactor, back-pressure.
//!
//! A [`Wire`] only knows how frames go through its descriptors; [`Port`] makes a [`Link`] of it.

use std::cell::Cell;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use ioth_core::reactor::{Reactor, Registration, Source};
use ioth_core::{Errno, Events, fork};
use nix::poll::{PollFd, PollFlags};
use parking_lot::{Mutex, MutexGuard};

use crate::tally::Tally;
use crate::{Batch, Counters, Filter, Link, LinkError, Patience, Properties, Receiver, Waiter, sys};
use bell::Bell;

mod bell;
#[cfg(test)]
mod tests;

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
    /// Held while a batch is read and delivered, so that batches keep their order. The reactor's thread never waits for it.
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
    /// The thread that reads what comes, in the reactor's place.
    attendant: Option<Attendant>,
    /// Counts them.
    attendances: u64,
    /// Made for the first of them.
    bell: Option<Arc<Bell>>,
}

#[derive(Debug)]
struct Attendant {
    thread: usize,
    number: u64,
}

impl State {
    /// Tells the reactor what the link waits for.
    fn set_interest(&self) {
        let Phase::Attached { watched, .. } = &self.phase else { return };
        for Watched { registration, descriptor } in watched {
            // It can only fail for want of memory; the next send that finds no room tries again.
            let _ = registration.set_interest(self.interest(descriptor));
        }
    }

    fn interest(&self, descriptor: &Descriptor) -> Events {
        let mut interest = if self.attendant.is_some() { Events::empty() } else { Events::IN };
        interest.set(Events::OUT, self.blocked && descriptor.sends);
        interest
    }

    /// The descriptors are others from now on, or none: whoever waits at the old ones stops.
    fn dismiss(&mut self) {
        if self.attendant.take().is_some()
            && let Some(bell) = &self.bell
        {
            bell.ring();
        }
    }
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
                state: Mutex::new(State {
                    phase: Phase::Fresh,
                    blocked: false,
                    attendant: None,
                    attendances: 0,
                    bell: None,
                }),
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
        let watched = inner.watch(&state).map_err(|error| LinkError::Os {
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

    fn attend(&self, waiter: &mut dyn Waiter) -> bool {
        let Some(attendance) = Attendance::begin(&self.inner) else { return false };
        let mut waits: Vec<_> =
            attendance.fds.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect();
        let own = waiter.descriptor();
        waits.extend(own.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
        waits.push(PollFd::new(attendance.bell.as_fd(), PollFlags::POLLIN));
        loop {
            attendance.bell.arm();
            let Some(patience) = waiter.patience(&attendance.waker) else { return true };
            let result = wait(&mut waits, patience);
            attendance.bell.disarm();
            match result {
                Ok(()) => {}
                Err(Errno::EINTR) => waiter.interrupted(),
                // Out of memory, or a filter of the program's: the reactor is there.
                Err(_) => return false,
            }
            let Some((bell, waits)) = waits.split_last() else { return false };
            match bell.revents() {
                Some(events) if events.is_empty() => {}
                Some(PollFlags::POLLIN) => attendance.bell.take(),
                // The program has closed it.
                _ => {
                    self.inner.state.lock().bell = None;
                    return false;
                }
            }
            for (which, wait) in waits.iter().take(attendance.fds.len()).enumerate() {
                if !attendance.is_current() {
                    return false;
                }
                if wait.any() == Some(true) {
                    // Somebody who began earlier ends soon, and no frame is to wait for the next one.
                    self.inner.read(which, self.inner.reading.lock());
                }
            }
        }
    }

    fn detach(&self) {
        let inner = &self.inner;
        let mut state = inner.state.lock();
        let phase = std::mem::replace(&mut state.phase, Phase::Detached);
        state.dismiss();
        drop(state);
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
    fn watch(self: &Arc<Self>, state: &State) -> std::io::Result<Vec<Watched>> {
        let reactor = Reactor::try_global()?;
        let mut watched = Vec::new();
        for (which, descriptor) in self.wire.descriptors().into_iter().enumerate() {
            let source = Arc::new(Watch { inner: Arc::downgrade(self), which });
            let registration =
                reactor.register(descriptor.fd.as_fd(), state.interest(&descriptor), source)?;
            watched.push(Watched { registration, descriptor });
        }
        Ok(watched)
    }

    /// Takes the descriptors that the wire has now.
    fn rewatch(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.dismiss();
        let Phase::Attached { watched, .. } = &mut state.phase else { return };
        // One descriptor may be in both lists, and can be registered once only.
        watched.clear();
        match (self.watch(&state), &mut state.phase) {
            (Ok(new), Phase::Attached { watched, .. }) => *watched = new,
            (Ok(_), _) => return,
            (Err(error), _) => {
                let _ = self.gone.set(LinkError::Os {
                    what: format!("{}: watching its descriptors", self.name),
                    errno: crate::errno(&error),
                });
                drop(state);
                return self.end();
            }
        }
        let blocked = state.blocked;
        drop(state);
        // Nobody may be told of room by a descriptor that is not there any more.
        if blocked {
            self.room();
        }
    }

    /// Reads what has come and delivers it, unless another thread is at it.
    fn pump(self: &Arc<Self>, which: usize) {
        if let Some(reading) = self.reading.try_lock() {
            self.read(which, reading);
        }
    }

    fn read(self: &Arc<Self>, which: usize, _reading: MutexGuard<'_, ()>) {
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
        state.set_interest();
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
        let blocked = std::mem::take(&mut state.blocked);
        state.set_interest();
        if let Phase::Attached { receiver, .. } = &state.phase
            && blocked
        {
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
        state.dismiss();
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

/// Waits for one of these, as long as `patience` says.
fn wait(waits: &mut [PollFd<'_>], patience: Patience) -> Result<(), Errno> {
    loop {
        let left = patience.until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = if patience.awake { Some(Duration::ZERO) } else { left };
        let ready = sys::poll(waits, timeout)?;
        if ready || !patience.awake || left == Some(Duration::ZERO) {
            return Ok(());
        }
        thread::yield_now();
    }
}

/// A thread that reads the link's descriptors in the reactor's place, until this is dropped.
struct Attendance<'a> {
    inner: &'a Inner,
    number: u64,
    fds: Vec<Arc<OwnedFd>>,
    bell: Arc<Bell>,
    waker: Waker,
}

impl<'a> Attendance<'a> {
    /// `None` when another thread is at it, there is nothing to read, or no descriptor is left for the bell.
    fn begin(inner: &'a Inner) -> Option<Self> {
        // The descriptors are the parent's, too.
        fork::check(inner.generation).ok()?;
        let mut state = inner.state.lock();
        let Phase::Attached { watched, .. } = &state.phase else { return None };
        let thread = this_thread();
        // A thread that has left its wait by siglongjmp(3) may come back.
        if state.attendant.as_ref().is_some_and(|attendant| attendant.thread != thread) {
            return None;
        }
        let fds = watched.iter().map(|watched| watched.descriptor.fd.clone()).collect();
        let bell = match &state.bell {
            Some(bell) => bell.clone(),
            None => state.bell.insert(Arc::new(Bell::new()?)).clone(),
        };
        state.attendances += 1;
        let number = state.attendances;
        state.attendant = Some(Attendant { thread, number });
        state.set_interest();
        let waker = Waker::from(bell.clone());
        Some(Attendance { inner, number, fds, bell, waker })
    }

    fn is_current(&self) -> bool {
        self.inner.state.lock().attendant.as_ref().is_some_and(|attendant| attendant.number == self.number)
    }
}

impl Drop for Attendance<'_> {
    fn drop(&mut self) {
        let mut state = self.inner.state.lock();
        if state.attendant.take_if(|attendant| attendant.number == self.number).is_some() {
            state.set_interest();
        }
    }
}

/// Tells threads that are there apart.
fn this_thread() -> usize {
    // Without a destructor, it is there to the thread's end.
    thread_local!(static HERE: Cell<u8> = const { Cell::new(0) });
    HERE.with(|here| std::ptr::from_ref(here).addr())
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
