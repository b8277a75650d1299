//! The wrapper that puts a bad network in front of a link.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ioth_core::reactor::{Alarm, Reactor, Timer};
use parking_lot::{Mutex, MutexGuard};

use super::{Config, Fault, Faults};
use crate::tally::Tally;
use crate::{Batch, Counters, Filter, Link, LinkError, Properties, Receiver};

/// Batches that are delivered at a time; what is due then is left to the timer, as other links want to be heard too.
const ROUNDS: usize = 4;

/// A link with faults. It takes no super-frames: losing one would not be losing a packet.
pub struct FaultLink {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Arc<dyn Link>,
    born: Instant,
    timer: Timer,
    state: Mutex<State>,
    /// Only what is dropped here is counted here.
    tally: Tally,
}

struct State {
    receiver: Option<Arc<dyn Receiver>>,
    ended: Option<LinkError>,
    sent: Fault,
    received: Fault,
    /// What has passed, and waits for room in the link.
    passed: Batch,
    /// The link has, or may have, no room; it tells when there is some.
    stalled: bool,
    /// Frames were left with the sender, who waits to be told.
    owed: bool,
    // A thread is at it, and will see what is added meanwhile: one at a time, so that order is kept.
    sending: bool,
    delivering: bool,
}

impl FaultLink {
    /// A link with faults of what it sends and of what it receives.
    ///
    /// # Errors
    /// [`LinkError::Os`] when the process has no thread or descriptor left for the timer.
    pub fn new(inner: Arc<dyn Link>, sent: Config, received: Config) -> Result<Self, LinkError> {
        let reactor = Reactor::try_global().map_err(|error| LinkError::Os {
            what: "fault://: starting the reactor".to_owned(),
            errno: crate::errno(&error),
        })?;
        let shared = Arc::new_cyclic(|weak: &Weak<Shared>| Shared {
            inner,
            born: Instant::now(),
            timer: reactor.timer(weak.clone()),
            state: Mutex::new(State {
                receiver: None,
                ended: None,
                sent: Fault::new(sent),
                received: Fault::new(received),
                passed: Batch::new(),
                stalled: false,
                owed: false,
                sending: false,
                delivering: false,
            }),
            tally: Tally::default(),
        });
        Ok(FaultLink { shared })
    }

    /// What went wrong with what was sent, and with what was received.
    pub fn faults(&self) -> (Faults, Faults) {
        let state = self.shared.state.lock();
        (state.sent.faults(), state.received.faults())
    }
}

impl Link for FaultLink {
    fn properties(&self) -> Properties {
        Properties { gso_max: 0, trusted: false, ..self.shared.inner.properties() }
    }

    fn attach(&self, receiver: Arc<dyn Receiver>) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock();
        if let Some(cause) = &state.ended {
            return Err(cause.clone());
        }
        if state.receiver.is_some() {
            return Err(LinkError::attached("fault://"));
        }
        state.receiver = Some(receiver);
        drop(state);
        let attached = self.shared.inner.attach(Arc::new(Side(Arc::downgrade(&self.shared))));
        if attached.is_err() {
            let receiver = self.shared.state.lock().receiver.take();
            drop(receiver);
        }
        attached
    }

    fn send(&self, frames: &mut Batch) -> Result<(), LinkError> {
        let shared = &self.shared;
        shared.tally.admit(frames, &self.properties());
        let mut state = shared.state.lock();
        if let Some(cause) = &state.ended {
            let cause = cause.clone();
            drop(state);
            shared.tally.down(frames);
            return Err(cause);
        }
        if state.stalled && !state.passed.is_empty() {
            state.owed = true;
            return Ok(());
        }
        let now = shared.now();
        for frame in frames.drain(..) {
            state.sent.push(now, frame);
        }
        let state = shared.pass(state);
        state.ended.clone().map_or(Ok(()), Err)
    }

    fn set_filter(&self, filter: &Filter) {
        self.shared.inner.set_filter(filter);
    }

    fn detach(&self) {
        self.shared.inner.detach();
        let receiver = self.shared.end(LinkError::Detached);
        drop(receiver);
    }

    fn counters(&self) -> Counters {
        let (inner, here) = (self.shared.inner.counters(), self.shared.tally.counters());
        Counters {
            tx_bad_length: inner.tx_bad_length + here.tx_bad_length,
            tx_down: inner.tx_down + here.tx_down,
            rx_frames: here.rx_frames,
            rx_bytes: here.rx_bytes,
            ..inner
        }
    }
}

impl Drop for FaultLink {
    fn drop(&mut self) {
        self.detach();
    }
}

impl fmt::Debug for FaultLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultLink")
            .field("inner", &self.shared.inner)
            .field("faults", &self.faults())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn now(&self) -> Duration {
        self.born.elapsed()
    }

    /// Hands what is due to the link.
    fn pass<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        if state.sending {
            return state;
        }
        state.sending = true;
        while state.ended.is_none() && !state.stalled {
            let State { sent, passed, .. } = &mut *state;
            let now = self.now();
            passed.extend(std::iter::from_fn(|| sent.pop(now)));
            if passed.is_empty() {
                break;
            }
            let mut batch = std::mem::take(passed);
            // Beforehand, as `writable` may come before we are back.
            state.stalled = true;
            drop(state);
            let result = self.inner.send(&mut batch);
            state = self.state.lock();
            if batch.is_empty() {
                state.stalled = false;
            }
            state.passed = batch;
            if let Err(cause) = result {
                state.ended.get_or_insert(cause);
            }
        }
        state.sending = false;
        self.arm(&state);
        state
    }

    /// Hands what is due to the receiver.
    fn deliver<'a>(&'a self, mut state: MutexGuard<'a, State>) {
        if state.delivering {
            return;
        }
        state.delivering = true;
        for _ in 0..ROUNDS {
            let Some(receiver) = state.receiver.clone() else { break };
            let now = self.now();
            let mut batch: Batch = std::iter::from_fn(|| state.received.pop(now)).collect();
            if batch.is_empty() {
                break;
            }
            drop(state);
            self.tally.received(&batch);
            receiver.receive(&mut batch);
            drop((batch, receiver));
            state = self.state.lock();
        }
        state.delivering = false;
        self.arm(&state);
    }

    fn arm(&self, state: &State) {
        let sent = state.sent.next_deadline().filter(|_| !state.stalled);
        // A deadline that is centuries away cannot be told, and need not.
        if let Some(next) = sent.into_iter().chain(state.received.next_deadline()).min()
            && let Some(deadline) = self.born.checked_add(next)
        {
            self.timer.set(deadline);
        }
    }

    /// Nothing goes through any more; the receiver, for the caller to tell or to drop.
    fn end(&self, cause: LinkError) -> Option<Arc<dyn Receiver>> {
        self.timer.clear();
        let mut state = self.state.lock();
        state.ended.get_or_insert(cause);
        state.sent.clear();
        state.received.clear();
        state.passed.clear();
        state.receiver.take()
    }
}

impl Alarm for Shared {
    fn fire(&self) {
        drop(self.pass(self.state.lock()));
        self.deliver(self.state.lock());
    }
}

/// What the link sees of us. Weak, as we own the link.
#[derive(Debug)]
struct Side(Weak<Shared>);

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Receiver for Side {
    fn receive(&self, frames: &mut Batch) {
        let Some(shared) = self.0.upgrade() else { return frames.clear() };
        let mut state = shared.state.lock();
        let now = shared.now();
        for frame in frames.drain(..) {
            state.received.push(now, frame);
        }
        shared.deliver(state);
    }

    fn writable(&self) {
        let Some(shared) = self.0.upgrade() else { return };
        let mut state = shared.state.lock();
        state.stalled = false;
        let mut state = shared.pass(state);
        if !state.stalled && std::mem::take(&mut state.owed) {
            let receiver = state.receiver.clone();
            drop(state);
            if let Some(receiver) = receiver {
                receiver.writable();
            }
        }
    }

    fn down(&self, cause: LinkError) {
        let Some(shared) = self.0.upgrade() else { return };
        if let Some(receiver) = shared.end(cause.clone()) {
            receiver.down(cause);
        }
    }
}
