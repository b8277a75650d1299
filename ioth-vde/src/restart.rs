//! `restart://[SECONDS]{inner}`: a link that is opened again when its network has gone.
//!
//! ```text
//!   restart://{vde:///tmp/sw}        tries after 0.1, 0.2, 0.4 ... seconds, at most 20
//!   restart://5{cmd://ssh host ...}  at most 5
//! ```
//! What is sent in between is lost, and counted. The first time it has to open.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ioth_core::reactor::{Alarm, Reactor, Timer};
use parking_lot::Mutex;

use crate::schemes::Spec;
use crate::tally::Tally;
use crate::vnl::{Params, size, syntax};
use crate::{Batch, Counters, Filter, Link, LinkError, Properties, Receiver, Waiter};

/// The first wait.
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest wait, in seconds, unless it is said.
pub(crate) const LONGEST: u64 = 20;
/// The longest that can be said: a day.
pub(crate) const SECONDS: std::ops::RangeInclusive<u64> = 1..=86_400;

/// What opens the link, and opens it again.
pub type Opener = Box<dyn Fn() -> Result<Arc<dyn Link>, LinkError> + Send + Sync>;

/// A link that is opened again when its network has gone.
pub struct Restart {
    inner: Arc<Inner>,
}

struct Inner {
    own: Weak<Inner>,
    opener: Opener,
    longest: Duration,
    properties: Properties,
    timer: Timer,
    state: Mutex<State>,
    lost: Tally,
}

struct State {
    /// `None` while there is no network.
    link: Option<Arc<dyn Link>>,
    receiver: Option<Arc<dyn Receiver>>,
    filter: Option<Filter>,
    /// Grows with each link: what an earlier one tells is of no more interest.
    epoch: u64,
    wait: Duration,
    /// What went through earlier links.
    past: Counters,
    detached: bool,
}

impl Restart {
    /// Opens a link, and again whenever its network has gone, after a tenth of a second first and `longest` at most.
    ///
    /// # Errors
    /// The opener's, the first time; [`LinkError::Os`] when there can be no reactor.
    pub fn new(opener: Opener, longest: Duration) -> Result<Self, LinkError> {
        let link = opener()?;
        let reactor = Reactor::try_global()
            .map_err(|error| LinkError::Os { what: "restart".to_owned(), errno: crate::errno(&error) })?;
        let properties = link.properties();
        let inner = Arc::new_cyclic(|own: &Weak<Inner>| Inner {
            own: own.clone(),
            opener,
            longest,
            properties,
            timer: reactor.timer(own.clone()),
            state: Mutex::new(State {
                link: Some(link),
                receiver: None,
                filter: None,
                epoch: 0,
                wait: SHORTEST,
                past: Counters::default(),
                detached: false,
            }),
            lost: Tally::default(),
        });
        Ok(Restart { inner })
    }
}

impl Link for Restart {
    fn properties(&self) -> Properties {
        self.inner.properties
    }

    fn attach(&self, receiver: Arc<dyn Receiver>) -> Result<(), LinkError> {
        let (link, relay) = {
            let mut state = self.inner.state.lock();
            if state.detached {
                return Err(LinkError::Detached);
            }
            if state.receiver.is_some() {
                return Err(LinkError::attached("the link"));
            }
            state.receiver = Some(receiver);
            (state.link.clone(), self.inner.relay(state.epoch))
        };
        match link.map_or(Err(LinkError::Detached), |link| link.attach(relay)) {
            Ok(()) => Ok(()),
            // It went between.
            Err(_) => {
                self.inner.try_later(0);
                Ok(())
            }
        }
    }

    fn send(&self, frames: &mut Batch) -> Result<(), LinkError> {
        let (link, epoch) = {
            let state = self.inner.state.lock();
            if state.detached {
                self.inner.lost.down(frames);
                return Err(LinkError::Detached);
            }
            (state.link.clone(), state.epoch)
        };
        match link {
            // What it could not send it counted as lost.
            Some(link) if link.send(frames).is_err() => self.inner.try_later(epoch),
            Some(_) => (),
            None => self.inner.lost.down(frames),
        }
        Ok(())
    }

    fn set_filter(&self, filter: &Filter) {
        let link = {
            let mut state = self.inner.state.lock();
            state.filter = Some(filter.clone());
            state.link.clone()
        };
        if let Some(link) = link {
            link.set_filter(filter);
        }
    }

    fn attend(&self, waiter: &mut dyn Waiter) -> bool {
        let link = self.inner.state.lock().link.clone();
        link.is_some_and(|link| link.attend(waiter))
    }

    fn detach(&self) {
        let (link, receiver) = {
            let mut state = self.inner.state.lock();
            state.detached = true;
            state.past = self.inner.sum(&state);
            (state.link.take(), state.receiver.take())
        };
        self.inner.timer.clear();
        if let Some(link) = link {
            link.detach();
        }
        // The receiver's drop may come back here: no lock is held.
        drop(receiver);
    }

    fn counters(&self) -> Counters {
        let state = self.inner.state.lock();
        let mut all = self.inner.sum(&state);
        all.tx_down += self.inner.lost.counters().tx_down;
        all
    }
}

impl Drop for Restart {
    fn drop(&mut self) {
        self.detach();
    }
}

impl Inner {
    fn relay(&self, epoch: u64) -> Arc<Relay> {
        Arc::new(Relay { inner: self.own.clone(), epoch })
    }

    /// The link of this epoch has gone.
    fn try_later(&self, epoch: u64) {
        let link = {
            let mut state = self.state.lock();
            if state.detached || state.epoch != epoch {
                return;
            }
            let Some(link) = state.link.take() else { return };
            add(&mut state.past, &link.counters());
            self.timer.set(Instant::now() + state.wait);
            link
        };
        // It may be in the middle of telling us.
        drop(link);
    }

    /// Opens the link again. It may wait, so it has a thread of its own.
    fn try_again(&self) {
        let opened = (self.opener)();
        let mut state = self.state.lock();
        if state.detached {
            return;
        }
        let link = match opened {
            Ok(link) if link.properties() == self.properties => link,
            // A network of another kind is none that anybody prepared for.
            Ok(_) | Err(_) => {
                state.wait = (state.wait * 2).min(self.longest);
                self.timer.set(Instant::now() + state.wait);
                return;
            }
        };
        state.epoch += 1;
        state.wait = SHORTEST;
        state.link = Some(link.clone());
        let (epoch, filter, receiver) = (state.epoch, state.filter.clone(), state.receiver.clone());
        drop(state);
        if let Some(filter) = filter {
            link.set_filter(&filter);
        }
        let Some(receiver) = receiver else { return };
        if link.attach(self.relay(epoch)).is_err() {
            return self.try_later(epoch);
        }
        // Whoever waited for room of the earlier link.
        receiver.writable();
    }

    fn receiver(&self, epoch: u64) -> Option<Arc<dyn Receiver>> {
        let state = self.state.lock();
        if state.epoch == epoch { state.receiver.clone() } else { None }
    }

    fn sum(&self, state: &State) -> Counters {
        let mut all = state.past;
        if let Some(link) = &state.link {
            add(&mut all, &link.counters());
        }
        all
    }
}

impl Alarm for Inner {
    fn fire(&self) {
        let Some(inner) = self.own.upgrade() else { return };
        let thread = std::thread::Builder::new().name("ioth-restart".into());
        if thread.spawn(move || inner.try_again()).is_err() {
            // No thread now: there may be one later.
            self.timer.set(Instant::now() + self.longest);
        }
    }
}

/// What the link tells.
struct Relay {
    inner: Weak<Inner>,
    epoch: u64,
}

impl Relay {
    fn receiver(&self) -> Option<Arc<dyn Receiver>> {
        self.inner.upgrade()?.receiver(self.epoch)
    }
}

impl Receiver for Relay {
    fn receive(&self, frames: &mut Batch) {
        match self.receiver() {
            Some(receiver) => receiver.receive(frames),
            None => frames.clear(),
        }
    }

    fn writable(&self) {
        if let Some(receiver) = self.receiver() {
            receiver.writable();
        }
    }

    fn down(&self, _: LinkError) {
        if let Some(inner) = self.inner.upgrade() {
            inner.try_later(self.epoch);
        }
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl fmt::Debug for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.inner.state.lock();
        f.debug_struct("Restart")
            .field("link", &state.link)
            .field("epoch", &state.epoch)
            .finish_non_exhaustive()
    }
}

fn add(all: &mut Counters, more: &Counters) {
    all.rx_frames += more.rx_frames;
    all.rx_bytes += more.rx_bytes;
    all.tx_frames += more.tx_frames;
    all.tx_bytes += more.tx_bytes;
    all.tx_bad_length += more.tx_bad_length;
    all.tx_down += more.tx_down;
    all.tx_no_memory += more.tx_no_memory;
    all.rx_bad_length += more.rx_bad_length;
    all.rx_overrun += more.rx_overrun;
}

/// Opens `restart://...`.
pub(crate) fn open(spec: &Spec<'_>) -> Result<Arc<dyn Link>, LinkError> {
    let parts = spec.nested()?;
    Params::parse(parts.after, &[], spec.vnl)?;
    let seconds = match parts.before {
        "" => LONGEST,
        text => size(text).filter(|seconds| SECONDS.contains(seconds)).ok_or_else(|| {
            let (least, most) = (SECONDS.start(), SECONDS.end());
            syntax(format!(
                "\"{text}\" in \"{}\" (should be a number of seconds from {least} to {most})",
                spec.vnl
            ))
        })?,
    };
    Ok(Arc::new(Restart::new(spec.reopener(parts.inner), Duration::from_secs(seconds))?))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use ioth_core::Errno;

    use super::*;
    use crate::Frame;

    /// A network that ends when it is told.
    #[derive(Debug, Default)]
    struct Frail {
        receiver: Mutex<Option<Arc<dyn Receiver>>>,
        sent: AtomicUsize,
    }

    impl Link for Frail {
        fn properties(&self) -> Properties {
            Properties { mtu: 1500, gso_max: 0, trusted: false }
        }
        fn attach(&self, receiver: Arc<dyn Receiver>) -> Result<(), LinkError> {
            *self.receiver.lock() = Some(receiver);
            Ok(())
        }
        fn send(&self, frames: &mut Batch) -> Result<(), LinkError> {
            self.sent.fetch_add(frames.len(), Ordering::Relaxed);
            frames.clear();
            Ok(())
        }
        fn detach(&self) {}
        fn counters(&self) -> Counters {
            Counters { tx_frames: self.sent.load(Ordering::Relaxed) as u64, ..Counters::default() }
        }
    }

    #[derive(Debug, Default)]
    struct Count {
        writable: AtomicUsize,
        received: AtomicUsize,
    }

    impl Receiver for Count {
        fn receive(&self, frames: &mut Batch) {
            self.received.fetch_add(frames.drain(..).count(), Ordering::Relaxed);
        }
        fn writable(&self) {
            self.writable.fetch_add(1, Ordering::Relaxed);
        }
        fn down(&self, cause: LinkError) {
            panic!("{cause}");
        }
    }

    fn wait_until(mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn opens_again_with_growing_waits() {
        let links = Arc::new(Mutex::new(Vec::<Arc<Frail>>::new()));
        let attempts = Arc::new(AtomicUsize::new(0));
        let (made, counted) = (links.clone(), attempts.clone());
        let opener: Opener = Box::new(move || {
            // The second and third time nobody is there.
            if (1..3).contains(&counted.fetch_add(1, Ordering::Relaxed)) {
                return Err(LinkError::Os { what: "test".to_owned(), errno: Errno::ENOENT });
            }
            let link = Arc::new(Frail::default());
            made.lock().push(link.clone());
            Ok(link)
        });
        let start = Instant::now();
        let link = Restart::new(opener, Duration::from_secs(1)).unwrap();
        let receiver = Arc::new(Count::default());
        link.attach(receiver.clone()).unwrap();
        assert!(link.attach(receiver.clone()).is_err());
        let frames = || -> Batch { [Frame::copy_of(&[0; 60])].into() };
        link.send(&mut frames()).unwrap();
        let first = links.lock()[0].receiver.lock().clone().unwrap();
        first.receive(&mut frames());
        first.down(LinkError::Gone("test".to_owned()));
        first.down(LinkError::Gone("once more".to_owned()));
        link.send(&mut frames()).unwrap();
        wait_until(|| receiver.writable.load(Ordering::Relaxed) == 1);
        // 0.1, 0.2 and 0.4 seconds.
        assert!(start.elapsed() >= Duration::from_millis(700));
        assert_eq!(attempts.load(Ordering::Relaxed), 4);
        // The earlier link has nothing to say any more.
        first.receive(&mut frames());
        link.send(&mut frames()).unwrap();
        let counters = link.counters();
        assert_eq!((counters.tx_frames, counters.tx_down), (2, 1));
        assert_eq!(receiver.received.load(Ordering::Relaxed), 1);
        link.detach();
        assert_eq!(link.send(&mut frames()), Err(LinkError::Detached));
        assert_eq!(link.counters().tx_frames, 2);
    }

    #[test]
    fn vnls() {
        assert!(crate::open("restart://{switch://restart-test}").is_ok());
        assert!(crate::open("restart://5{null://}").is_ok());
        for wrong in
            ["restart://0{null://}", "restart://x{null://}", "restart://null://", "restart://{null://}/x"]
        {
            assert!(matches!(crate::open(wrong), Err(LinkError::Syntax(_))), "{wrong}");
        }
        assert_eq!(crate::open("restart://{vde:///no/such}").unwrap_err().errno(), Errno::ENOENT);
    }
}
