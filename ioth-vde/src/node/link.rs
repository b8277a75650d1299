//! `switch://PATH`, `hub://PATH`: a node's own port of a switch that it serves.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};

use ioth_core::reactor::{Alarm, Reactor, Registration, Source, Timer};
use ioth_core::{Errno, Events};
use nix::unistd::{Uid, User};
use parking_lot::Mutex;

use super::Config;
use super::core::{Core, Round};
use crate::bridge::{Bridge, Loss, Trunk};
use crate::ether::MTU_MAX;
use crate::schemes::Spec;
use crate::tally::Tally;
use crate::vde::group;
use crate::vnl::{Keys, Params};
use crate::{Batch, Counters, Link, LinkError, Properties, Receiver, bridge};

/// Rounds of one call of the reactor: a busy switch must not keep it from the others.
const ROUNDS: usize = 4;
/// Ports of a switch by VNL, which names no number.
const PORTS: usize = 1024;
/// Upstream's defaults.
const MODE: u32 = 0o600;
const DIRMODE: u32 = 0o2700;
const EXPIRE: u32 = 120;
const BUCKETS: usize = 256;

const KEYS: Keys = &["mode", "dirmode", "grp", "hashsize", "hashseed", "expiretime", "mtu"];

/// A node's own port of a switch that it serves, in the process's reactor. The switch lives as long as the port.
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    own: Weak<Inner>,
    name: String,
    properties: Properties,
    state: Mutex<State>,
    core: Mutex<Option<Core>>,
    /// Held while a batch is taken and delivered, so that batches keep their order. Never waited for.
    delivering: Mutex<()>,
    timer: OnceLock<Timer>,
    watch: Mutex<Option<Watch>>,
    gone: OnceLock<LinkError>,
    tally: Tally,
    /// What the switch lost, when there is none any more.
    lost: OnceLock<Counters>,
}

/// Lock order: `delivering`, `core`, `state`; none is held while a receiver is called.
enum State {
    Fresh,
    Attached(Arc<dyn Receiver>),
    Detached,
}

/// The registration, and the descriptor that it watches. Dropped in this order.
struct Watch {
    _registration: Registration,
    _epoll: OwnedFd,
}

impl Host {
    /// Serves a switch, and plugs into it.
    ///
    /// Clients are served at once; what they send before [`Link::attach`] is not for this port.
    ///
    /// # Errors
    /// As [`Node::open`](super::Node::open); [`LinkError::Os`] when there can be no reactor.
    pub fn open(name: &str, config: Config, mtu: usize) -> Result<Arc<Self>, LinkError> {
        let failed = |errno| LinkError::Os { what: name.to_owned(), errno };
        let mut core = Core::new(config)?;
        core.add_host(&format!("{name} pid={}", std::process::id())).map_err(failed)?;
        let epoll = core.epoll.0.try_clone().map_err(|error| failed(crate::errno(&error)))?;
        let reactor = Reactor::try_global().map_err(|error| failed(crate::errno(&error)))?;
        let inner = Arc::new_cyclic(|own: &Weak<Inner>| Inner {
            own: own.clone(),
            name: name.to_owned(),
            properties: Properties { mtu, gso_max: 0, trusted: false },
            state: Mutex::new(State::Fresh),
            core: Mutex::new(Some(core)),
            delivering: Mutex::new(()),
            timer: OnceLock::new(),
            watch: Mutex::new(None),
            gone: OnceLock::new(),
            tally: Tally::default(),
            lost: OnceLock::new(),
        });
        let weak = Arc::downgrade(&inner);
        let _ = inner.timer.set(reactor.timer(weak.clone()));
        let registration = reactor
            .register(epoll.as_fd(), Events::IN, Arc::new(Ready(weak)))
            .map_err(|error| failed(crate::errno(&error)))?;
        *inner.watch.lock() = Some(Watch { _registration: registration, _epoll: epoll });
        Ok(Arc::new(Host { inner }))
    }
}

impl Link for Host {
    fn properties(&self) -> Properties {
        self.inner.properties
    }

    fn attach(&self, receiver: Arc<dyn Receiver>) -> Result<(), LinkError> {
        let inner = &self.inner;
        let mut core = inner.core.lock();
        let mut state = inner.state.lock();
        match &*state {
            State::Fresh => (),
            State::Attached(_) => return Err(LinkError::attached(&inner.name)),
            State::Detached => return Err(LinkError::Detached),
        }
        if let Some(cause) = inner.gone.get() {
            return Err(cause.clone());
        }
        if let Some(host) = core.as_mut().and_then(|core| core.host.as_mut()) {
            host.inbox.clear();
        }
        *state = State::Attached(receiver);
        Ok(())
    }

    fn send(&self, frames: &mut Batch) -> Result<(), LinkError> {
        let inner = &self.inner;
        inner.tally.admit(frames, &inner.properties);
        let mut place = inner.core.lock();
        let Some(core) = place.as_mut() else {
            inner.tally.down(frames);
            return Err(inner.cause());
        };
        if core.bridge.is_cut() {
            while !frames.is_empty() {
                inner.tally.unreachable(frames);
            }
            return Ok(());
        }
        let (count, bytes) = (frames.len(), bytes_of(frames));
        core.send_from_host(frames);
        inner.tally.sent(count - frames.len(), bytes - bytes_of(frames));
        // Somebody may wait for a queue that has just become full.
        inner.arm(core);
        Ok(())
    }

    fn detach(&self) {
        let inner = &self.inner;
        let _ = inner.gone.set(LinkError::Detached);
        let state = std::mem::replace(&mut *inner.state.lock(), State::Detached);
        let watch = inner.watch.lock().take();
        drop(watch);
        // Clients find their control sockets closed.
        let core = inner.take_core();
        drop(core);
        // The receiver's drop may come back here: no lock is held.
        drop(state);
    }

    fn counters(&self) -> Counters {
        let inner = &self.inner;
        let switch = match &*inner.core.lock() {
            Some(core) => lost_by(&core.bridge),
            None => inner.lost.get().copied().unwrap_or_default(),
        };
        let own = inner.tally.counters();
        Counters {
            tx_bad_length: own.tx_bad_length + switch.tx_bad_length,
            tx_unreachable: own.tx_unreachable + switch.tx_unreachable,
            tx_no_memory: own.tx_no_memory + switch.tx_no_memory,
            rx_bad_length: own.rx_bad_length + switch.rx_bad_length,
            ..own
        }
    }
}

/// What a switch lost, which has nobody else to tell it to than its owner. A frame that a client sends to whoever is at its
/// own port is not lost.
fn lost_by(bridge: &Bridge) -> Counters {
    let lost = bridge.lost();
    let of = |why: Loss| lost[why as usize];
    let owners = bridge.counters(0).dropped;
    Counters {
        rx_bad_length: of(Loss::Short) + of(Loss::Long),
        tx_unreachable: of(Loss::Vlan) + owners[Loss::Local as usize],
        tx_no_memory: of(Loss::Full) + of(Loss::Refused),
        tx_bad_length: of(Loss::TooLong),
        ..Counters::default()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.detach();
    }
}

impl Inner {
    /// Works for a while, and delivers. Callable from any thread: the first one does it.
    fn pump(self: &Arc<Self>) {
        for _ in 0..ROUNDS {
            let Some(_delivering) = self.delivering.try_lock() else { return };
            let mut place = self.core.lock();
            let Some(core) = place.as_mut() else { return };
            let round = core.round(false);
            let mut batch =
                core.host.as_mut().map(|host| std::mem::take(&mut host.inbox)).unwrap_or_default();
            let may_go_on = core.host_may_go_on();
            let more = core.has_work();
            self.arm(core);
            drop(place);
            self.deliver(&mut batch, may_go_on);
            match round {
                Ok(_) if more => (),
                Ok(Round::Idle) => return,
                Ok(Round::Busy | Round::Stopped) => (),
                Err(errno) => return self.end(errno),
            }
        }
        // An event tells of the rest, but for what is known already.
        let more = self.core.lock().as_ref().is_some_and(Core::has_work);
        if more && let Ok(reactor) = Reactor::try_global() {
            let inner = self.clone();
            reactor.defer(Box::new(move || inner.pump()));
        }
    }

    fn deliver(&self, batch: &mut Batch, may_go_on: bool) {
        let receiver = match &*self.state.lock() {
            State::Attached(receiver) => receiver.clone(),
            State::Fresh | State::Detached => return,
        };
        if !batch.is_empty() {
            self.tally.received(batch);
            receiver.receive(batch);
        }
        if may_go_on {
            receiver.writable();
        }
    }

    fn arm(&self, core: &Core) {
        let Some(timer) = self.timer.get() else { return };
        match core.next_deadline() {
            Some(deadline) => timer.set(deadline),
            None => timer.clear(),
        }
    }

    /// The switch cannot go on.
    fn end(&self, errno: Errno) {
        let cause = LinkError::Os { what: format!("{}: waiting for events", self.name), errno };
        if self.gone.set(cause.clone()).is_err() {
            return;
        }
        let watch = self.watch.lock().take();
        drop(watch);
        let core = self.take_core();
        drop(core);
        let receiver = match &*self.state.lock() {
            State::Attached(receiver) => receiver.clone(),
            State::Fresh | State::Detached => return,
        };
        receiver.down(cause);
    }

    /// The switch, which is to end; what it lost stays known.
    fn take_core(&self) -> Option<Core> {
        let mut place = self.core.lock();
        if let Some(core) = &*place {
            let _ = self.lost.set(lost_by(&core.bridge));
        }
        place.take()
    }

    fn cause(&self) -> LinkError {
        self.gone.get().cloned().unwrap_or(LinkError::Detached)
    }
}

/// The switch's own epoll(7). Weak, as the link owns the registration.
struct Ready(Weak<Inner>);

impl Source for Ready {
    fn ready(&self, _: Events) {
        if let Some(inner) = self.0.upgrade() {
            inner.pump();
        }
    }
}

impl Alarm for Inner {
    fn fire(&self) {
        // Time-outs are part of a round of work.
        if let Some(inner) = self.own.upgrade() {
            inner.pump();
        }
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a switch's events")
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("name", &self.inner.name)
            .field("gone", &self.inner.gone.get())
            .field("counters", &self.inner.tally.counters())
            .finish_non_exhaustive()
    }
}

fn bytes_of(frames: &Batch) -> usize {
    frames.iter().map(|frame| frame.len()).sum()
}

/// Opens `switch://PATH[...]` or `hub://PATH[...]`, `multi://...` or `bonding://...`.
pub(crate) fn open(spec: &Spec<'_>) -> Result<Arc<dyn Link>, LinkError> {
    let (path, params) = spec.bracket(KEYS)?;
    let path = match path {
        "" => default_path(),
        path => PathBuf::from(path),
    };
    let mtu = params.number("mtu", 68..=MTU_MAX as u64)?.map_or(spec.default_mtu(), |mtu| mtu as usize);
    let config = config(path, &params, spec.scheme)?;
    Ok(Host::open(spec.vnl, config, mtu)?)
}

fn config(path: PathBuf, params: &Params, scheme: &str) -> Result<Config, LinkError> {
    let mode = permissions(params, "mode", 0o777)?.map(|mode| mode & 0o666);
    let dirmode = permissions(params, "dirmode", 0o7777)?;
    let default = bridge::Config::default();
    // A seed makes the order of upstream's table repeatable. Ours has a secret one: addresses are strangers'.
    params.number("hashseed", 0..=u64::MAX)?;
    let stations = params.number("hashsize", 1..=1 << 30)?.map_or(0, |size| size as usize);
    let expire = params.number("expiretime", 1..=u64::from(u32::MAX))?.map_or(EXPIRE, |time| time as u32);
    let buckets = stations.max(BUCKETS).next_power_of_two();
    Ok(Config {
        mode: mode.unwrap_or(MODE),
        dirmode: dirmode.or(mode.map(directory_mode)).unwrap_or(DIRMODE),
        group: group(params, "grp")?.map(|gid| gid.as_raw()),
        bridge: bridge::Config {
            ports: PORTS,
            hub: scheme == "hub",
            // There is no management by which a VLAN could be made: all are everybody's.
            transparent: true,
            trunk: match scheme {
                "multi" => Some(Trunk::All),
                "bonding" => Some(Trunk::InTurn),
                _ => None,
            },
            stations: default.stations.max(stations),
            expire,
            ..default
        },
        buckets,
        ..Config::new(path)
    })
}

/// A directory's permissions for sockets of that mode: whoever may use the sockets may enter. (Upstream's rule.)
pub fn directory_mode(mode: u32) -> u32 {
    let enter = [0o100, 0o010, 0o001].into_iter().filter(|x| mode & (x << 2 | x << 1) != 0);
    0o2000 | mode | enter.fold(0, |all, x| all | x)
}

fn permissions(params: &Params, key: &str, most: u32) -> Result<Option<u32>, LinkError> {
    let Some(text) = params.get(key) else { return Ok(None) };
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= most => Ok(Some(mode)),
        _ => Err(params.wrong(key, "permissions in octal, such as 0660")),
    }
}

/// Upstream's place for a node whose path is not named.
fn default_path() -> PathBuf {
    let user = Uid::effective();
    match User::from_uid(user).ok().flatten() {
        Some(known) => format!("/tmp/vdenode_{}", known.name).into(),
        None => format!("/tmp/vdenode_u{user}").into(),
    }
}
