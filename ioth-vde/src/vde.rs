//! `vde://dir`: a port of a VDE switch (`vde_switch`, or a node of upstream's `switch://path`).
//!
//! ```text
//!   vde:///tmp/sw                     vde://               /var/run/vde.ctl, else /tmp/vde.ctl
//!   vde:///tmp/sw[3]                  port=, portgroup=    a port by number, or by its own socket's name
//!   vde:///tmp/sw[data=path]          group=, mode=        permissions of the data socket's file
//!   vde:///tmp/sw[mtu=9000]                                a switch of ours, or upstream's switch://: up to 9216
//!   vde:///tmp/sw[heal]               heal=SECONDS         asks again, every 20 seconds at least, when the switch has gone
//! ```
//! The data socket is abstract unless permissions are named, and has a file if the switch refuses that;
//! `data=path` and `data=abstract` choose.

mod connect;

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use ioth_core::reactor::{Reactor, Registration, Source};
use ioth_core::{Errno, Events};
use nix::sys::socket::{MsgFlags, Shutdown, recv, shutdown};
use parking_lot::Mutex;

use crate::ether::{HEADER, MTU_MAX, TAG};
use crate::restart::{self, Restart};
use crate::schemes::Spec;
use crate::tally::Tally;
use crate::vnl::{Keys, Params};
use crate::{Batch, Counters, Frame, Link, LinkError, Properties, Receiver, sys};
use connect::{Connection, DataKind, Options, PortName};

pub(crate) use connect::group;
#[doc(hidden)]
pub use connect::reply_path;

/// What vde_switch carries: it cuts longer frames without a word.
const MTU: usize = 1500;
/// Size of the data socket's queues, in bytes.
const BUFFER: usize = 1 << 20;
/// Batches that one call of the reactor delivers: a busy link must not keep it from the others.
const ROUNDS: usize = 4;
/// Frames that the first of them has room for.
const FIRST_BATCH: usize = 4;

const KEYS: Keys = &["", "port", "portgroup", "group", "mode", "data", "mtu", "heal"];
const DEFAULT_DIRS: [&str; 2] = ["/var/run/vde.ctl", "/tmp/vde.ctl"];

/// A port of a VDE switch.
#[derive(Debug)]
pub struct Vde {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    mtu: usize,
    // Before the descriptors: registrations end first.
    state: Mutex<State>,
    control: OwnedFd,
    data: OwnedFd,
    /// Held while a batch is read and delivered, so that batches keep their order. Never waited for.
    reading: Mutex<()>,
    /// Why there is no switch any more.
    gone: OnceLock<LinkError>,
    tally: Tally,
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
    Attached(Attached),
    Gone,
    Detached,
}

#[derive(Debug)]
struct Attached {
    receiver: Arc<dyn Receiver>,
    data: Registration,
    _control: Registration,
}

/// Opens `vde://...`.
pub(crate) fn open(spec: &Spec<'_>) -> Result<Arc<dyn Link>, LinkError> {
    let (dir, params) = spec.bracket(KEYS)?;
    let options = options(&params)?;
    let mtu = params.number("mtu", 68..=MTU_MAX as u64)?.map_or(MTU, |mtu| mtu as usize);
    let heal = match params.get("heal") {
        Some("") => Some(restart::LONGEST),
        _ => params.number("heal", restart::SECONDS)?,
    };
    let (dir, name) = (dir.to_owned(), spec.vnl.to_owned());
    let opener = move || -> Result<Arc<dyn Link>, LinkError> {
        Ok(Arc::new(Vde::new(&name, mtu, plug(&dir, &options)?)))
    };
    match heal {
        None => opener(),
        Some(seconds) => Ok(Arc::new(Restart::new(Box::new(opener), Duration::from_secs(seconds))?)),
    }
}

/// Gets a port of the switch there; of the first that has one, where none is named.
fn plug(dir: &str, options: &Options) -> Result<Connection, LinkError> {
    match dir {
        "" => DEFAULT_DIRS
            .iter()
            .map(|dir| connect::plug(Path::new(dir), options))
            .reduce(|first, second| first.or(second))
            .unwrap_or(Err(LinkError::Detached)),
        dir => connect::plug(Path::new(dir), options),
    }
}

fn options(params: &Params) -> Result<Options, LinkError> {
    let port = match ["port", "portgroup", ""].iter().find_map(|key| Some((*key, params.get(key)?))) {
        None | Some((_, "")) => None,
        Some((key, name)) if name.bytes().all(|b| b.is_ascii_digit()) => match name.parse() {
            Ok(number) if number <= connect::PORT_MAX => Some(PortName::Number(number)),
            _ => return Err(params.wrong(key, &format!("a port from 0 to {}", connect::PORT_MAX))),
        },
        Some((key, name)) if name.contains('/') || name == "." || name == ".." => {
            return Err(params.wrong(key, "a port's number or the name of its socket, without '/'"));
        }
        Some((_, name)) => Some(PortName::Group(name.to_owned())),
    };
    let mode = match params.get("mode") {
        None => None,
        Some(mode) => match u32::from_str_radix(mode, 8) {
            Ok(mode) if mode <= 0o777 => Some(mode),
            _ => return Err(params.wrong("mode", "permissions in octal, such as 0700")),
        },
    };
    let data = match params.get("data") {
        None => None,
        Some("abstract") => Some(DataKind::Abstract),
        Some("path") => Some(DataKind::Path),
        Some(_) => return Err(params.wrong("data", "abstract or path")),
    };
    Ok(Options { port, group: params.get("group").and_then(connect::group), mode, data })
}

impl Vde {
    fn new(name: &str, mtu: usize, connection: Connection) -> Self {
        Vde {
            inner: Arc::new(Inner {
                name: name.to_owned(),
                mtu,
                state: Mutex::new(State { phase: Phase::Fresh, blocked: false }),
                control: connection.control,
                data: connection.data,
                reading: Mutex::new(()),
                gone: OnceLock::new(),
                tally: Tally::default(),
            }),
        }
    }
}

impl Link for Vde {
    fn properties(&self) -> Properties {
        self.inner.properties()
    }

    fn attach(&self, receiver: Arc<dyn Receiver>) -> Result<(), LinkError> {
        let inner = &self.inner;
        let mut state = inner.state.lock();
        match state.phase {
            Phase::Fresh => (),
            Phase::Attached(_) => return Err(LinkError::attached(&inner.name)),
            Phase::Gone => return Err(inner.cause()),
            Phase::Detached => return Err(LinkError::Detached),
        }
        let register = |fd: &OwnedFd, interest, source| {
            let reactor = Reactor::try_global()?;
            reactor.register(fd.as_fd(), interest, source)
        };
        let failed = |error: std::io::Error| LinkError::Os {
            what: format!("{}: watching the switch", inner.name),
            errno: crate::errno(&error),
        };
        let control =
            register(&inner.control, Events::IN, Arc::new(Control(Arc::downgrade(inner)))).map_err(failed)?;
        let interest = if state.blocked { Events::IN | Events::OUT } else { Events::IN };
        let data = register(&inner.data, interest, Arc::new(Data(Arc::downgrade(inner)))).map_err(failed)?;
        state.phase = Phase::Attached(Attached { receiver, data, _control: control });
        Ok(())
    }

    fn send(&self, frames: &mut Batch) -> Result<(), LinkError> {
        let inner = &self.inner;
        inner.tally.admit(frames, &inner.properties());
        if let Some(cause) = inner.gone.get() {
            inner.tally.down(frames);
            return Err(cause.clone());
        }
        while !frames.is_empty() {
            match sys::send(inner.data.as_fd(), frames) {
                Ok(sent) => {
                    let bytes = frames.drain(..sent).map(|frame| frame.len()).sum();
                    inner.tally.sent(sent, bytes);
                }
                Err(Errno::EINTR) => (),
                Err(Errno::EAGAIN) => {
                    inner.wait_for_room();
                    break;
                }
                // The socket polls OUT all the while: waiting for that would be spinning.
                Err(Errno::ENOBUFS | Errno::ENOMEM) => inner.tally.no_memory(frames),
                Err(Errno::EMSGSIZE) => inner.tally.bad_length(frames),
                Err(_) => {
                    let cause = inner.lost();
                    inner.tally.down(frames);
                    // The receiver may be sending with a lock held that it wants for `down`, too.
                    if let Ok(reactor) = Reactor::try_global() {
                        let inner = inner.clone();
                        reactor.defer(Box::new(move || inner.end()));
                    }
                    return Err(cause);
                }
            }
        }
        Ok(())
    }

    fn detach(&self) {
        let inner = &self.inner;
        let phase = {
            let mut state = inner.state.lock();
            std::mem::replace(&mut state.phase, Phase::Detached)
        };
        let _ = inner.gone.set(LinkError::Detached);
        // The switch forgets the port; the descriptors themselves may be in use by another thread.
        let _ = shutdown(inner.control.as_raw_fd(), Shutdown::Both);
        // The receiver's drop may come back here: no lock is held.
        drop(phase);
    }

    fn counters(&self) -> Counters {
        self.inner.tally.counters()
    }
}

impl Drop for Vde {
    fn drop(&mut self) {
        self.detach();
    }
}

impl Inner {
    fn properties(&self) -> Properties {
        Properties { mtu: self.mtu, gso_max: 0, trusted: false }
    }

    /// Reads what has come and delivers it. Callable from any thread: the first one does it.
    fn pump(&self) {
        let Some(_reading) = self.reading.try_lock() else { return };
        let mut frames = Vec::new();
        let mut batch = Batch::new();
        let mut room = FIRST_BATCH;
        for _ in 0..ROUNDS {
            let Some(receiver) = self.receiver() else { return };
            let outcome = self.read(&mut frames, room, &mut batch);
            if !batch.is_empty() {
                self.tally.received(&batch);
                receiver.receive(&mut batch);
                batch.clear();
            }
            match outcome {
                Ok(count) if count == room => room = (room * 4).min(sys::BATCH),
                Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => return,
                Err(_) => {
                    self.lost();
                    return self.end();
                }
            }
        }
    }

    /// Reads up to `room` frames into the batch; how many datagrams there were. `frames` is kept between calls.
    fn read(&self, frames: &mut Vec<Frame>, room: usize, batch: &mut Batch) -> Result<usize, Errno> {
        // Ethernet, one VLAN tag, the MTU.
        let longest = HEADER + TAG + self.mtu;
        frames.resize_with(room, || Frame::new(longest));
        let mut lengths = [0; sys::BATCH];
        let count = sys::receive(self.data.as_fd(), frames, &mut lengths)?;
        for (mut frame, len) in frames.drain(..count).zip(lengths) {
            if (HEADER..=longest).contains(&len) {
                frame.truncate(len);
                batch.push_back(frame);
            } else {
                self.tally.rx_bad_length.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
        Ok(count)
    }

    fn receiver(&self) -> Option<Arc<dyn Receiver>> {
        match &self.state.lock().phase {
            Phase::Attached(attached) => Some(attached.receiver.clone()),
            _ => None,
        }
    }

    fn wait_for_room(&self) {
        let mut state = self.state.lock();
        state.blocked = true;
        if let Phase::Attached(attached) = &state.phase {
            // It can only fail for want of memory; the next send that finds no room tries again.
            let _ = attached.data.set_interest(Events::IN | Events::OUT);
        }
    }

    fn room(&self) {
        let mut state = self.state.lock();
        let State { phase: Phase::Attached(attached), blocked } = &mut *state else { return };
        let _ = attached.data.set_interest(Events::IN);
        if std::mem::take(blocked) {
            let receiver = attached.receiver.clone();
            drop(state);
            receiver.writable();
        }
    }

    /// Notes that the switch is gone.
    fn lost(&self) -> LinkError {
        let _ = self.gone.set(LinkError::Gone(self.name.clone()));
        self.cause()
    }

    fn cause(&self) -> LinkError {
        self.gone.get().cloned().unwrap_or(LinkError::Detached)
    }

    /// Tells the receiver, once, that the switch is gone.
    fn end(&self) {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Detached) {
            return;
        }
        let phase = std::mem::replace(&mut state.phase, Phase::Gone);
        drop(state);
        if let Phase::Attached(attached) = phase {
            let receiver = attached.receiver.clone();
            drop(attached);
            receiver.down(self.cause());
        }
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("name", &self.name)
            .field("gone", &self.gone.get())
            .field("counters", &self.tally.counters())
            .finish_non_exhaustive()
    }
}

/// The data socket's readiness. Weak, as the link owns the registration.
#[derive(Debug)]
struct Data(Weak<Inner>);

impl Source for Data {
    fn ready(&self, events: Events) {
        let Some(inner) = self.0.upgrade() else { return };
        if events.contains(Events::OUT) {
            inner.room();
        }
        // A pending error is taken by reading.
        if events.intersects(Events::IN | Events::ERR | Events::HUP) {
            inner.pump();
        }
    }
}

/// The control socket's readiness: nothing is expected on it but its end.
#[derive(Debug)]
struct Control(Weak<Inner>);

impl Source for Control {
    fn ready(&self, _: Events) {
        let Some(inner) = self.0.upgrade() else { return };
        let mut ignored = [0; 256];
        match recv(inner.control.as_raw_fd(), &mut ignored, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => (),
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => return,
            Err(_) => (),
        }
        // What the switch sent before it went is still for us.
        inner.pump();
        inner.lost();
        inner.end();
    }
}

#[cfg(test)]
mod tests;
