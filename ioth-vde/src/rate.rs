//! `rate://{inner}/rate=10m`: any link, no faster than that. A sender waits for its turn; nothing is lost for that.
//!
//! ```text
//!   rate://{vde:///tmp/sw}/rate=10m              10 Mbit/s each way
//!   rate://{tap://t0}/tx=1g/rx=100m              each way by itself
//!   rate://{switch://lan}/tx=5m/burst=64k        64 KiB may go at once after a pause
//! ```
//!
//! | option | default | meaning |
//! |---|---|---|
//! | `rate` | unlimited | bits per second, either way (k, m, g: powers of 1000) |
//! | `tx`, `rx` | `rate` | of what is sent, of what is received |
//! | `burst` | 16k | bytes that may go at once after a pause |
//! | `limit` | 1000 | received frames that wait; more are dropped, and counted as `rx_overrun` |
//!
//! Bits are those of the frames, without what a real wire adds. (`rate=` of [`fault`](crate::fault) is a slow network, which loses what it has
//! no room for.)

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ioth_core::reactor::{Alarm, Reactor, Timer};
use parking_lot::{Mutex, MutexGuard};

use crate::fault::rate as bits_per_second;
use crate::schemes::Spec;
use crate::tally::Tally;
use crate::vnl::{Keys, Params, syntax};
use crate::{Batch, Counters, Filter, Frame, Link, LinkError, Properties, Receiver};

const KEYS: Keys = &["rate", "tx", "rx", "burst", "limit"];
/// Bytes that may go at once unless it is said: ten full frames.
const BURST: u64 = 16 << 10;
const BURST_MAX: u64 = 1 << 30;
/// Received frames that wait unless it is said, and at most.
const LIMIT: u64 = 1000;
const LIMIT_MAX: u64 = 1 << 20;
/// Batches that are delivered at a time; what is due then is left to the timer, as other links want to be heard too.
const ROUNDS: usize = 4;

/// How fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bits per second that are sent; `None` for any number.
    pub sent: Option<NonZeroU64>,
    /// Bits per second that are received.
    pub received: Option<NonZeroU64>,
    /// Bytes that may go at once after a pause.
    pub burst: u64,
    /// Received frames that wait at most.
    pub limit: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config { sent: None, received: None, burst: BURST, limit: LIMIT as usize }
    }
}

impl std::str::FromStr for Config {
    type Err = LinkError;

    /// Reads what follows the inner VNL: `rate=10m/burst=64k/...`.
    fn from_str(text: &str) -> Result<Self, LinkError> {
        Config::from_params(&Params::parse(text, KEYS, text)?)
    }
}

impl Config {
    fn from_params(params: &Params) -> Result<Self, LinkError> {
        let rate = |key| match params.get(key) {
            None => Ok(None),
            Some(value) => bits_per_second(value)
                .map(Some)
                .ok_or_else(|| params.wrong(key, "bits per second, such as 10m (k, m, g: powers of 1000)")),
        };
        let both = rate("rate")?;
        let config = Config {
            sent: rate("tx")?.or(both),
            received: rate("rx")?.or(both),
            burst: params.number("burst", 1..=BURST_MAX)?.unwrap_or(BURST),
            limit: params.number("limit", 1..=LIMIT_MAX)?.unwrap_or(LIMIT) as usize,
        };
        Ok(config)
    }
}

/// One direction's account, without I/O: until when the frames that went would keep a wire of that rate busy.
///
/// Time is counted from wherever the caller likes, and must not go backwards.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    rate: Option<NonZeroU64>,
    /// The time that a burst takes.
    ahead: Duration,
    busy: Duration,
}

impl Meter {
    /// An account of this rate, in bits per second, and burst, in bytes.
    pub fn new(rate: Option<NonZeroU64>, burst: u64) -> Self {
        let mut meter = Meter { rate, ahead: Duration::ZERO, busy: Duration::ZERO };
        meter.ahead = meter.time(burst);
        meter
    }

    /// When a frame may go, if not now.
    pub fn wait(&self, now: Duration) -> Option<Duration> {
        let due = self.busy.saturating_sub(self.ahead);
        (due > now).then_some(due)
    }

    /// A frame of that many bytes goes.
    pub fn charge(&mut self, now: Duration, len: usize) {
        self.busy = self.busy.max(now).saturating_add(self.time(len as u64));
    }

    /// A frame that was charged for did not go.
    pub fn refund(&mut self, len: usize) {
        self.busy = self.busy.saturating_sub(self.time(len as u64));
    }

    fn time(&self, bytes: u64) -> Duration {
        let Some(rate) = self.rate else { return Duration::ZERO };
        let nanos = u128::from(bytes) * 8 * 1_000_000_000 / u128::from(rate.get());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// Opens `rate://{inner}/...`.
pub(crate) fn open(spec: &Spec<'_>) -> Result<Arc<dyn Link>, LinkError> {
    let parts = spec.nested()?;
    if !parts.before.is_empty() {
        let what = format!("\"{}\" before '{{' in \"{}\" (options follow the '}}')", parts.before, spec.vnl);
        return Err(syntax(what));
    }
    let config = Config::from_params(&Params::parse(parts.after, KEYS, spec.vnl)?)?;
    Ok(Arc::new(Rate::new(spec.inner(parts.inner)?, config)?))
}

/// A link that is no faster than it is told.
#[derive(Debug)]
pub struct Rate {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    inner: Arc<dyn Link>,
    born: Instant,
    timer: Timer,
    limit: usize,
    state: Mutex<State>,
    /// What is lost here, and what reaches the receiver.
    tally: Tally,
}

#[derive(Debug)]
struct State {
    receiver: Option<Arc<dyn Receiver>>,
    sent: Meter,
    received: Meter,
    /// Received, and not yet due.
    waiting: VecDeque<Frame>,
    /// A sender was told to wait for its turn.
    owed: bool,
    /// A thread is at it, and will see what is added meanwhile: one at a time, so that order is kept.
    delivering: bool,
    ended: bool,
}

impl Rate {
    /// A link over `inner`.
    ///
    /// # Errors
    /// [`LinkError::Os`] when the process has no thread or descriptor left for the timer.
    pub fn new(inner: Arc<dyn Link>, config: Config) -> Result<Self, LinkError> {
        let reactor = Reactor::try_global().map_err(|error| LinkError::Os {
            what: "rate://: starting the reactor".to_owned(),
            errno: crate::errno(&error),
        })?;
        let shared = Arc::new_cyclic(|weak: &Weak<Shared>| Shared {
            inner,
            born: Instant::now(),
            timer: reactor.timer(weak.clone()),
            limit: config.limit,
            state: Mutex::new(State {
                receiver: None,
                sent: Meter::new(config.sent, config.burst),
                received: Meter::new(config.received, config.burst),
                waiting: VecDeque::new(),
                owed: false,
                delivering: false,
                ended: false,
            }),
            tally: Tally::default(),
        });
        Ok(Rate { shared })
    }
}

impl Link for Rate {
    fn properties(&self) -> Properties {
        self.shared.inner.properties()
    }

    fn attach(&self, receiver: Arc<dyn Receiver>) -> Result<(), LinkError> {
        {
            let mut state = self.shared.state.lock();
            if state.receiver.is_some() {
                return Err(LinkError::attached("rate://"));
            }
            if state.ended {
                return Err(LinkError::Detached);
            }
            state.receiver = Some(receiver);
        }
        let attached = self.shared.inner.attach(Arc::new(Side(Arc::downgrade(&self.shared))));
        if attached.is_err() {
            let receiver = self.shared.state.lock().receiver.take();
            drop(receiver);
        }
        attached
    }

    fn send(&self, frames: &mut Batch) -> Result<(), LinkError> {
        let shared = &self.shared;
        // Before frames wait: only what can be sent is worth it.
        shared.tally.admit(frames, &self.properties());
        let mut due = Batch::new();
        {
            let now = shared.born.elapsed();
            let mut state = shared.state.lock();
            while state.sent.wait(now).is_none() || state.ended {
                let Some(frame) = frames.pop_front() else { break };
                state.sent.charge(now, frame.len());
                due.push_back(frame);
            }
            if !frames.is_empty() {
                state.owed = true;
                shared.arm(&state);
            }
        }
        if due.is_empty() {
            return Ok(());
        }
        let sent = shared.inner.send(&mut due);
        if sent.is_err() {
            shared.tally.down(frames);
        }
        if !due.is_empty() {
            let mut state = shared.state.lock();
            due.iter().for_each(|frame| state.sent.refund(frame.len()));
            drop(state);
            // The link tells when there is room.
            due.append(frames);
            *frames = due;
        }
        sent
    }

    fn set_filter(&self, filter: &Filter) {
        self.shared.inner.set_filter(filter);
    }

    fn detach(&self) {
        self.shared.inner.detach();
        drop(self.shared.end());
    }

    fn counters(&self) -> Counters {
        let (inner, here) = (self.shared.inner.counters(), self.shared.tally.counters());
        Counters {
            rx_frames: here.rx_frames,
            rx_bytes: here.rx_bytes,
            tx_bad_length: inner.tx_bad_length + here.tx_bad_length,
            tx_down: inner.tx_down + here.tx_down,
            rx_overrun: inner.rx_overrun + here.rx_overrun,
            ..inner
        }
    }
}

impl Drop for Rate {
    fn drop(&mut self) {
        self.detach();
    }
}

impl Shared {
    /// Wakes up for what is due next.
    fn arm(&self, state: &State) {
        let sent = if state.owed { state.sent.wait(Duration::ZERO) } else { None };
        let received = if state.waiting.is_empty() { None } else { state.received.wait(Duration::ZERO) };
        let Some(next) = [sent, received].into_iter().flatten().min() else { return };
        // A deadline that is centuries away cannot be told, and need not.
        if let Some(deadline) = self.born.checked_add(next) {
            self.timer.set(deadline);
        }
    }

    /// Hands what is due to the receiver.
    fn deliver<'a>(&'a self, mut state: MutexGuard<'a, State>) {
        if state.delivering {
            return;
        }
        state.delivering = true;
        for _ in 0..ROUNDS {
            let Some(receiver) = state.receiver.clone() else { break };
            let now = self.born.elapsed();
            let mut batch = Batch::new();
            while state.received.wait(now).is_none() {
                let Some(frame) = state.waiting.pop_front() else { break };
                state.received.charge(now, frame.len());
                batch.push_back(frame);
            }
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
        // What is due already is due at once: other links were to be heard first.
        if !state.waiting.is_empty() && state.received.wait(self.born.elapsed()).is_none() {
            self.timer.set(Instant::now());
        } else {
            self.arm(&state);
        }
    }

    /// Nothing goes through any more; the receiver, for the caller to tell or to drop.
    fn end(&self) -> Option<Arc<dyn Receiver>> {
        self.timer.clear();
        let mut state = self.state.lock();
        state.ended = true;
        state.waiting.clear();
        state.receiver.take()
    }
}

impl Alarm for Shared {
    fn fire(&self) {
        let mut state = self.state.lock();
        let turn = state.owed && state.sent.wait(self.born.elapsed()).is_none();
        if turn {
            state.owed = false;
        }
        let receiver = state.receiver.clone().filter(|_| turn);
        self.deliver(state);
        if let Some(receiver) = receiver {
            receiver.writable();
        }
    }
}

/// What the link sees of us. Weak, as we own the link.
#[derive(Debug)]
struct Side(Weak<Shared>);

impl Receiver for Side {
    fn receive(&self, frames: &mut Batch) {
        let Some(shared) = self.0.upgrade() else { return frames.clear() };
        let mut state = shared.state.lock();
        if state.received.rate.is_none() {
            let Some(receiver) = state.receiver.clone() else { return frames.clear() };
            drop(state);
            shared.tally.received(frames);
            return receiver.receive(frames);
        }
        let room = shared.limit.saturating_sub(state.waiting.len());
        shared.tally.overruns(frames.len().saturating_sub(room) as u64);
        state.waiting.extend(frames.drain(..).take(room));
        shared.deliver(state);
    }

    fn writable(&self) {
        let Some(shared) = self.0.upgrade() else { return };
        let receiver = shared.state.lock().receiver.clone();
        if let Some(receiver) = receiver {
            receiver.writable();
        }
    }

    fn down(&self, cause: LinkError) {
        let Some(shared) = self.0.upgrade() else { return };
        if let Some(receiver) = shared.end() {
            receiver.down(cause);
        }
    }
}

#[cfg(test)]
mod tests;
