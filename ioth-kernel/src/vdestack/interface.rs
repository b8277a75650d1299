//! An interface of the stack: a TAP device whose other end is a link.
//!
//! ```text
//!   sockets ── kernel of the namespace ── TAP ── pump ───────────▶ Link ──▶ network
//!                                          ▲                       │
//!                                          ╰── Receiver::receive ──╯
//! ```
//! Frames towards the network move in the thread whose call sends them, or in the reactor's; those from it in the thread that
//! brings them, with what the kernel answers. Super-frames and
//! checksums that the kernel left undone go on as they are; a link that cannot carry them does what is missing.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use ioth_core::reactor::{Reactor, Registration, Source};
use ioth_core::{Errno, Events};
use ioth_vde::tap::Device;
use ioth_vde::{Batch, Link, LinkError, Receiver, Waiter};
use parking_lot::{Condvar, Mutex, MutexGuard};

/// Frames that go to the link at once.
const BATCH: usize = 64;
/// Bytes from which on a batch grows no more: of super-frames a few are many packets, and cutting them takes a while, in which
/// nobody reads what comes for others.
const BATCH_BYTES: usize = 64 << 10;
/// Frames that the first batch has room for: one that comes alone does not wait for the look that finds no other.
const FIRST_BATCH: usize = 1;
/// Batches that one call of the reactor moves: a busy interface must not keep it from the others.
const ROUNDS: usize = 4;

#[derive(Debug)]
pub(crate) struct Interface {
    // Before the device, whose descriptor it watches.
    watch: Mutex<Watch>,
    /// Held while frames move from the device to the link, so that they keep their order. Nobody waits with it held.
    moving: Mutex<()>,
    /// What the link had no room for. The device is not read meanwhile: what comes waits in the kernel's queue.
    waiting: Mutex<Batch>,
    /// The link left frames and will say when it takes more.
    blocked: AtomicBool,
    link: Arc<dyn Link>,
    device: Device,
    traffic: Arc<Traffic>,
}

/// What the reactor is told of the device.
#[derive(Debug, Default)]
struct Watch {
    registration: Option<Registration>,
    /// Threads that carry what they are about to send.
    holds: usize,
}

impl Watch {
    /// The reactor wakes up for frames that somebody has to take from the device.
    fn update(&self, blocked: bool) {
        if let Some(registration) = &self.registration {
            let interest = if blocked || self.holds > 0 { Events::empty() } else { Events::IN };
            // It can only fail for want of memory; then a full device is read once too often, or its next frame is late.
            let _ = registration.set_interest(interest);
        }
    }
}

/// Tells that frames moved, one way or the other, where somebody waits for what these bring about.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    awaited: AtomicBool,
    /// Counts what was told.
    moves: Mutex<u64>,
    moved: Condvar,
}

impl Traffic {
    /// Frames have moved: what the kernel does for those that it gets is done.
    fn tell(&self) {
        // After the frames, as the waiter looks after the mark: one of the two sees the other.
        if self.awaited.load(Ordering::SeqCst) {
            *self.moves.lock() += 1;
            self.moved.notify_all();
        }
    }

    /// Waits until `done`, which is asked again whenever frames have moved, or the deadline passes.
    pub(crate) fn wait_until(&self, deadline: Instant, mut done: impl FnMut() -> bool) {
        self.awaited.store(true, Ordering::SeqCst);
        let mut moves = self.moves.lock();
        loop {
            let seen = *moves;
            drop(moves);
            if done() {
                return;
            }
            moves = self.moves.lock();
            while *moves == seen {
                if self.moved.wait_until(&mut moves, deadline).timed_out() {
                    return;
                }
            }
        }
    }
}

impl Interface {
    /// Joins a TAP device and a link, and tells of its traffic.
    ///
    /// # Errors
    /// The link's own; [`LinkError::Os`] when the device cannot be watched.
    pub(crate) fn join(
        device: Device,
        link: Arc<dyn Link>,
        traffic: Arc<Traffic>,
    ) -> Result<Arc<Self>, LinkError> {
        let interface = Arc::new(Interface {
            watch: Mutex::default(),
            moving: Mutex::default(),
            waiting: Mutex::default(),
            blocked: AtomicBool::new(false),
            link,
            device,
            traffic,
        });
        let end = Arc::new(End(Arc::downgrade(&interface)));
        let registered = Reactor::try_global()
            .and_then(|reactor| reactor.register(interface.device.as_fd(), Events::IN, end.clone()));
        let registration = registered.map_err(|error| LinkError::Os {
            what: format!("watching the interface {}", interface.device.name()),
            errno: error.raw_os_error().map_or(Errno::EIO, Errno::from_raw),
        })?;
        interface.watch.lock().registration = Some(registration);
        interface.link.attach(end)?;
        Ok(interface)
    }

    pub(crate) fn name(&self) -> &str {
        self.device.name()
    }

    /// The MTU that the link asks for.
    pub(crate) fn mtu(&self) -> u32 {
        Device::mtu_for(self.link.properties().mtu)
    }

    /// Whether everything that the kernel sent has been given to the link.
    pub(crate) fn is_drained(&self) -> bool {
        // Whoever is at it tells when it is done.
        let Some(_moving) = self.moving.try_lock() else { return false };
        let unread = crate::calls::events(self.device.as_fd()).contains(Events::IN);
        self.watch.lock().registration.is_none() || !unread && self.waiting.lock().is_empty()
    }

    /// Unplugs the cable.
    pub(crate) fn end(&self) {
        let registration = self.watch.lock().registration.take();
        drop(registration);
        // What fails here costs time only.
        let _ = self.device.leave_to_namespace();
        self.link.detach();
    }

    /// [`Link::attend`]
    pub(crate) fn attend(&self, waiter: &mut dyn Waiter) -> bool {
        self.link.attend(waiter)
    }

    /// Moves what the kernel sent to the link, unless another thread is at it; the reactor moves what that leaves.
    pub(crate) fn carry(self: &Arc<Self>) {
        if let Some(moving) = self.moving.try_lock() {
            self.pump(moving);
            self.traffic.tell();
        }
    }

    /// The reactor does not wake up for frames until as many have said [`release`](Self::release).
    pub(crate) fn hold(&self) {
        self.watch_with(|watch| watch.holds += 1);
    }

    pub(crate) fn release(&self) {
        self.watch_with(|watch| watch.holds = watch.holds.saturating_sub(1));
    }

    fn watch_with(&self, change: impl FnOnce(&mut Watch)) {
        let mut watch = self.watch.lock();
        change(&mut watch);
        // With the lock held, so that the last to change something has the last word.
        watch.update(self.blocked.load(Ordering::Acquire));
    }

    fn pump(&self, _moving: MutexGuard<'_, ()>) {
        if self.blocked.load(Ordering::Acquire) {
            return;
        }
        let mut batch = std::mem::take(&mut *self.waiting.lock());
        let mut room = FIRST_BATCH;
        for _ in 0..ROUNDS {
            let more = match batch.is_empty() {
                true => self.device.read(room, &mut batch),
                false => Ok(true),
            };
            if batch.is_empty() && matches!(more, Ok(false)) {
                return;
            }
            let bytes: usize = batch.iter().map(|frame| frame.len()).sum();
            // A link that is gone takes everything, and tells so itself.
            let _ = self.link.send(&mut batch);
            if !batch.is_empty() {
                // First say so, then try once more: so the link's word cannot come in between and be lost.
                self.block(true);
                let _ = self.link.send(&mut batch);
                if !batch.is_empty() {
                    *self.waiting.lock() = batch;
                    return;
                }
                self.block(false);
            }
            match more {
                Ok(true) if bytes < BATCH_BYTES => room = (room * 4).min(BATCH),
                Ok(true) => (),
                Ok(false) => return,
                Err(_) => return drop(self.watch.lock().registration.take()),
            }
        }
    }

    /// The link takes frames again.
    fn resume(self: &Arc<Self>) {
        self.watch_with(|_| ());
        self.pump(self.moving.lock());
        self.traffic.tell();
    }

    fn block(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Release);
        self.watch_with(|_| ());
    }
}

/// What the reactor and the link know of an interface: they do not keep it alive.
#[derive(Debug)]
struct End(Weak<Interface>);

impl Source for End {
    fn ready(&self, events: Events) {
        let Some(interface) = self.0.upgrade() else { return };
        if events.contains(Events::IN) {
            // What another thread is at it would be told of again and again.
            interface.pump(interface.moving.lock());
        } else {
            // The device was deleted, as by ip-link(8) in the namespace.
            drop(interface.watch.lock().registration.take());
        }
        interface.traffic.tell();
    }
}

impl Receiver for End {
    fn receive(&self, frames: &mut Batch) {
        match self.0.upgrade() {
            Some(interface) => {
                interface.device.write(frames);
                interface.traffic.tell();
                // The kernel may have answered.
                interface.carry();
            }
            None => frames.clear(),
        }
    }

    fn writable(&self) {
        let Some(interface) = self.0.upgrade() else { return };
        if interface.blocked.swap(false, Ordering::AcqRel)
            && let Ok(reactor) = Reactor::try_global()
        {
            reactor.defer(Box::new(move || interface.resume()));
        }
    }

    fn down(&self, _cause: LinkError) {
        if let Some(interface) = self.0.upgrade() {
            // As when the cable of a machine is pulled.
            let _ = interface.device.set_carrier(false);
            interface.block(false);
            interface.waiting.lock().clear();
            interface.traffic.tell();
        }
    }
}
