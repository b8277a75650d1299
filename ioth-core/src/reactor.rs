//! The process-wide reactor: one thread that waits for descriptors and deadlines.
//!
//! The thread is named `ioth-reactor`, starts at first use and never ends. It sleeps without a time-out while
//! no timer is set: an idle process shows no wake-up at all. Whatever it calls, it calls with no lock held.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::SigSet;
use parking_lot::Mutex;

use crate::fork::{self, PerProcess};
use crate::spin::{Service, Wait, look_or_sleep};
use crate::{Events, sys};
use agenda::{Agenda, Sleep, TimerInner, TimerState};

mod agenda;
#[cfg(test)]
mod tests;

/// Somebody who waits for a descriptor.
pub trait Source: Send + Sync + fmt::Debug + 'static {
    /// Called in the reactor's thread, with no lock held, again and again for as long as one of `events` holds
    /// (level-triggered).
    ///
    /// `events` is made of the interest given and of `ERR` and `HUP`, which are always reported: a source that
    /// cannot make them go away has to drop its [`Registration`]. `IN` comes with them when it was asked for.
    /// `RDHUP` is never reported on its own; it shows as `IN`.
    ///
    /// A call may still be under way, or about to begin, in the reactor's thread when another thread has
    /// dropped the registration. A panic is reported on standard error and ends the registration.
    fn ready(&self, events: Events);
}

/// Somebody who waits for a deadline.
pub trait Alarm: Send + Sync + 'static {
    /// Called in the reactor's thread, with no lock held, once after the deadline of a [`Timer`].
    ///
    /// It may come late, after another thread has cleared the timer or moved its deadline: compare the clock
    /// with what is due. A panic is reported on standard error.
    fn fire(&self);
}

/// What the reactor's thread is called.
const THREAD_NAME: &str = "ioth-reactor";
/// Key of the bell, which no registration has.
const BELL: u64 = u64::MAX;
/// Descriptors that one wait tells of, to begin with; the others have their turn in the next.
const EVENTS: usize = 256;

/// The process-wide reactor.
///
/// In a forked child the parent's, with all that is registered there, is out of reach: registrations and timers of the
/// parent do nothing, for the epoll(7) behind them is the parent's too.
pub struct Reactor {
    shared: Arc<Shared>,
}

/// Where a process has its reactor.
#[derive(Default)]
struct Place {
    reactor: OnceLock<Reactor>,
    starting: Mutex<()>,
}

impl Reactor {
    /// The reactor; its thread is started by the first call.
    ///
    /// # Panics
    /// When the process has no descriptor or thread left for it: see [`try_global`](Self::try_global).
    pub fn global() -> &'static Reactor {
        match Reactor::try_global() {
            Ok(reactor) => reactor,
            Err(error) => panic!("ioth-reactor: cannot start: {error} (raise RLIMIT_NOFILE or RLIMIT_NPROC)"),
        }
    }

    /// As [`global`](Self::global), for whoever can live without it or report the error.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM` or `EAGAIN` when it could not be started; the next call tries again.
    pub fn try_global() -> io::Result<&'static Reactor> {
        // A forked child has neither the thread nor an epoll(7) of its own: it starts a reactor anew.
        static PLACE: PerProcess<Place> = PerProcess::new();
        let Place { reactor, starting } = PLACE.get_or_init(Place::default);
        if let Some(reactor) = reactor.get() {
            return Ok(reactor);
        }
        let _starting = starting.lock();
        if let Some(reactor) = reactor.get() {
            return Ok(reactor);
        }
        let started = Reactor::start()?;
        Ok(reactor.get_or_init(|| started))
    }

    /// Whether the caller runs in the reactor's thread, where nothing may wait for what the reactor does.
    pub fn is_current_thread() -> bool {
        ROUND.get() != Round::None
    }

    /// Calls `source` whenever one of `interest`, or `ERR` or `HUP`, holds for `fd`.
    ///
    /// `fd` must stay open until the [`Registration`] is dropped, and can be registered once only.
    ///
    /// # Errors
    /// `EEXIST` when `fd` is registered already, `EPERM` for a file that cannot be polled, `ENOMEM` and `ENOSPC`
    /// when the system's tables are full, `ENODEV` for a reactor of the process that this one was forked from.
    pub fn register(
        &self,
        fd: BorrowedFd<'_>,
        interest: Events,
        source: Arc<dyn Source>,
    ) -> io::Result<Registration> {
        fork::check(self.shared.generation)?;
        let mut table = self.shared.table.lock();
        let key = table.next_key();
        self.shared.epoll.add(fd, epoll_event(key, interest))?;
        let fd = fd.as_raw_fd();
        table.by_fd.insert(fd, key);
        table.entries.insert(key, Registered { fd, interest, source });
        Ok(Registration { shared: self.shared.clone(), key })
    }

    /// A one-shot timer without a deadline; `target` is not kept alive by it.
    pub fn timer(&self, target: Weak<dyn Alarm>) -> Timer {
        let state = Mutex::new(TimerState { deadline: None, queued: None });
        Timer { shared: self.shared.clone(), inner: Arc::new(TimerInner { target, state }) }
    }

    /// Runs `job` soon in the reactor's thread.
    pub fn defer(&self, job: Box<dyn FnOnce() + Send>) {
        self.shared.enter(|agenda| agenda.jobs.push(job));
    }

    /// As [`defer`](Self::defer), after whatever holds of the descriptors by now has been told.
    pub fn defer_round(&self, job: Box<dyn FnOnce() + Send>) {
        self.shared.enter(|agenda| agenda.next_round.push(job));
    }

    /// Has the reactor's thread look for what comes next before it sleeps, as [`spin`](crate::spin) has it.
    ///
    /// For a process that has no other work: who answers it is another process, and each of the two would sleep while the
    /// other one wakes. A thread of a program that waits for its own socket looks by itself.
    pub fn look_before_sleep(&self) {
        self.shared.eager.store(true, Ordering::Relaxed);
    }

    /// Runs `job` when the reactor's thread has gone through what it woke up for, so that what many sources bring can be
    /// sent at once. Elsewhere than within that, `job` is given back.
    ///
    /// # Errors
    /// The job, for the caller to run.
    pub fn at_end_of_round<J: FnOnce() + 'static>(job: J) -> Result<(), J> {
        if ROUND.get() != Round::Open {
            return Err(job);
        }
        LAST.with_borrow_mut(|last| last.push(Box::new(job)));
        Ok(())
    }

    fn start() -> io::Result<Reactor> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        // Edge-triggered, each ring is told once, and nobody has to read the count.
        epoll.add(&bell, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, BELL))?;
        let shared = Arc::new(Shared {
            generation: fork::generation(),
            epoll,
            bell,
            table: Mutex::new(Table::default()),
            agenda: Mutex::default(),
            eager: AtomicBool::new(false),
        });
        let for_thread = shared.clone();
        thread::Builder::new().name(THREAD_NAME.into()).spawn(move || for_thread.run())?;
        Ok(Reactor { shared })
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor")
            .field("sources", &self.shared.table.lock().entries.len())
            .finish_non_exhaustive()
    }
}

/// What the thread is at.
#[derive(Clone, Copy, PartialEq)]
enum Round {
    /// It is not the reactor's thread, or that waits.
    None,
    Open,
    Closing,
}

thread_local! {
    static ROUND: Cell<Round> = const { Cell::new(Round::None) };
    /// Jobs for the end of the round.
    static LAST: RefCell<Vec<Box<dyn FnOnce()>>> = const { RefCell::new(Vec::new()) };
}

fn run_all<J: FnOnce() + ?Sized>(jobs: Vec<Box<J>>)
where
    Box<J>: FnOnce(),
{
    for job in jobs {
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            eprintln!("ioth-reactor: a deferred job panicked; going on");
        }
    }
}

/// A descriptor in the reactor; dropping it takes the descriptor out.
///
/// It may be dropped anywhere, also from within [`Source::ready`].
#[must_use = "dropping it ends the registration"]
pub struct Registration {
    shared: Arc<Shared>,
    key: u64,
}

impl Registration {
    /// Replaces the interest; an empty one leaves `HUP` and `ERR`.
    ///
    /// # Errors
    /// `ENOENT` when a panic of the source has ended the registration, `ENOMEM`, `ENODEV` in a forked child.
    pub fn set_interest(&self, interest: Events) -> io::Result<()> {
        fork::check(self.shared.generation)?;
        let mut table = self.shared.table.lock();
        let Some(registered) = table.entries.get_mut(&self.key) else {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        };
        if registered.interest != interest {
            sys::epoll_modify(&self.shared.epoll, registered.fd, epoll_event(self.key, interest))?;
            registered.interest = interest;
        }
        Ok(())
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.shared.deregister(self.key);
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration").field("key", &self.key).finish_non_exhaustive()
    }
}

/// A one-shot timer; dropping it clears it.
pub struct Timer {
    shared: Arc<Shared>,
    inner: Arc<TimerInner>,
}

impl Timer {
    /// Sets or moves the deadline; one in the past means at once.
    ///
    /// Cheap when the timer had an earlier deadline before, even a cleared one: the reactor's thread is
    /// woken only for a deadline that comes before everything that it waits for.
    pub fn set(&self, deadline: Instant) {
        if self.shared.is_foreign() {
            return;
        }
        let mut state = self.inner.state.lock();
        state.deadline = Some(deadline);
        if state.queued.is_some_and(|queued| queued <= deadline) {
            return;
        }
        state.queued = Some(deadline);
        let wake = self.shared.agenda.lock().push(deadline, &self.inner);
        drop(state);
        if wake {
            self.shared.wake();
        }
    }

    /// Takes the deadline away.
    pub fn clear(&self) {
        if self.shared.is_foreign() {
            return;
        }
        self.inner.state.lock().deadline = None;
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer").field("deadline", &self.inner.state.lock().deadline).finish_non_exhaustive()
    }
}

/// What the handles and the thread share.
///
/// Lock order: a timer's `state`, then `agenda`; `table` on its own.
struct Shared {
    /// Of the process whose reactor it is.
    generation: u64,
    epoll: Epoll,
    /// Rung to have the thread look at its agenda.
    bell: EventFd,
    table: Mutex<Table>,
    agenda: Mutex<Agenda>,
    /// Its thread looks before it sleeps.
    eager: AtomicBool,
}

impl Shared {
    /// Whether it is the reactor of the process that this one was forked from.
    fn is_foreign(&self) -> bool {
        fork::check(self.generation).is_err()
    }

    fn enter(&self, enter: impl FnOnce(&mut Agenda)) {
        if self.is_foreign() {
            return;
        }
        let mut agenda = self.agenda.lock();
        enter(&mut agenda);
        let asleep = agenda.rouse();
        drop(agenda);
        if asleep {
            self.wake();
        }
    }

    fn run(&self) {
        // The program's signal handlers and the calls that they interrupt belong in the program's threads.
        let _ = SigSet::all().thread_block();
        let mut events = vec![EpollEvent::empty(); EVENTS];
        let service = Service::default();
        loop {
            let sleep = self.agenda.lock().fall_asleep();
            if sleep == Sleep::Awake {
                // Perhaps for a job before which all is to be told that holds: each descriptor is told of once.
                let all = self.table.lock().entries.len() + 1;
                if all > events.len() {
                    events.resize(all, EpollEvent::empty());
                }
            }
            let waited = match self.wait(&mut events, sleep, &service) {
                Err(Errno::EINTR) => Ok(0), // by a debugger: signals are blocked
                waited => waited,
            };
            self.agenda.lock().sleep = Sleep::Awake;
            let ready = match waited {
                Ok(count) => &events[..count],
                Err(error) => {
                    eprintln!(
                        "ioth-reactor: epoll_wait: {error}; links and timers stop \
                         (close_range(2) and the like must spare descriptors that the program did not open)"
                    );
                    return;
                }
            };
            ROUND.set(Round::Open);
            for event in ready {
                self.dispatch(*event);
            }
            self.fire_due(Instant::now());
            // What the sources asked for belongs to this round, what the jobs ask for to the next.
            let jobs = std::mem::take(&mut self.agenda.lock().jobs);
            run_all(jobs);
            ROUND.set(Round::Closing);
            run_all(LAST.take());
        }
    }

    fn wait(&self, events: &mut [EpollEvent], sleep: Sleep, service: &Service) -> Result<usize, Errno> {
        let deadline = match sleep {
            Sleep::Awake => return sys::epoll_wait(&self.epoll, events, Some(Duration::ZERO)),
            Sleep::Until(deadline) => Some(deadline),
            Sleep::Forever => None,
        };
        let mut wait = |how| {
            let timeout = match how {
                Wait::Awake => Some(Duration::ZERO),
                Wait::Asleep => deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())),
            };
            sys::epoll_wait(&self.epoll, events, timeout)
        };
        match self.eager.load(Ordering::Relaxed) {
            true => look_or_sleep(service, deadline, |found| *found != Ok(0), wait),
            false => wait(Wait::Asleep),
        }
    }

    fn dispatch(&self, event: EpollEvent) {
        let key = event.data();
        let Some((interest, source)) =
            self.table.lock().entries.get(&key).map(|entry| (entry.interest, entry.source.clone()))
        else {
            return; // the bell, or deregistered after the kernel had reported it
        };
        let flags = event.events();
        let over = EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        let mut holds = Events::empty();
        holds.set(Events::IN, flags.intersects(EpollFlags::EPOLLIN | over));
        holds.set(Events::PRI, flags.contains(EpollFlags::EPOLLPRI));
        holds.set(Events::OUT, flags.intersects(EpollFlags::EPOLLOUT | over));
        holds &= interest;
        holds.set(Events::HUP, flags.contains(EpollFlags::EPOLLHUP));
        holds.set(Events::ERR, flags.contains(EpollFlags::EPOLLERR));
        if holds.is_empty() {
            return; // the interest shrank meanwhile
        }
        if catch_unwind(AssertUnwindSafe(|| source.ready(holds))).is_err() {
            let name = catch_unwind(AssertUnwindSafe(|| format!("{source:?}")));
            let name = name.as_deref().unwrap_or("a source");
            eprintln!("ioth-reactor: {name} panicked; its descriptor is watched no more");
            self.deregister(key);
        }
        // The last reference may go here, and a panic in a destructor must not end the thread either.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(source)));
    }

    fn fire_due(&self, now: Instant) {
        // All of them first: an alarm that sets its timer to the past again must not hold up the descriptors.
        let due = self.agenda.lock().take_due(now);
        for due in due {
            let Some(timer) = due.timer.upgrade() else { continue };
            let mut state = timer.state.lock();
            if state.queued != Some(due.deadline) {
                continue; // an earlier entry has taken its place
            }
            state.queued = None;
            match state.deadline {
                Some(deadline) if deadline <= now => state.deadline = None,
                Some(later) => {
                    state.queued = Some(later);
                    // This thread is awake: nobody has to be woken.
                    self.agenda.lock().push(later, &timer);
                    continue;
                }
                None => continue,
            }
            drop(state);
            let target = timer.target.upgrade();
            drop(timer);
            let fired = catch_unwind(AssertUnwindSafe(move || {
                if let Some(target) = target {
                    target.fire();
                }
            }));
            if fired.is_err() {
                eprintln!("ioth-reactor: an alarm panicked; going on");
            }
        }
    }

    fn deregister(&self, key: u64) {
        // The epoll(7) behind it is the parent's, too: what is taken out here would be taken out there.
        if self.is_foreign() {
            return;
        }
        let mut table = self.table.lock();
        let Some(registered) = table.entries.remove(&key) else { return };
        // When the number belongs to a younger registration, the older descriptor was closed first, against the
        // rules, and its file has left the epoll set by itself: the younger one must not be taken out.
        if let Entry::Occupied(current) = table.by_fd.entry(registered.fd)
            && *current.get() == key
        {
            current.remove();
            // It fails only where the file has left by itself.
            let _ = sys::epoll_delete(&self.epoll, registered.fd);
        }
        drop(table);
        // Only now, with no lock held, may the source's destructor run.
        drop(registered);
    }

    fn wake(&self) {
        // It fails only with a count near 2^64, which has been told.
        let _ = self.bell.write(1);
    }
}

/// The registered descriptors.
#[derive(Default)]
struct Table {
    /// By a key that is not used again, so that an event that was read late finds nobody.
    entries: HashMap<u64, Registered>,
    by_fd: HashMap<RawFd, u64>,
    last_key: u64,
}

struct Registered {
    fd: RawFd,
    interest: Events,
    source: Arc<dyn Source>,
}

impl Table {
    fn next_key(&mut self) -> u64 {
        self.last_key += 1;
        self.last_key
    }
}

fn epoll_event(key: u64, interest: Events) -> EpollEvent {
    let mut flags = EpollFlags::empty();
    flags.set(EpollFlags::EPOLLIN, interest.contains(Events::IN));
    flags.set(EpollFlags::EPOLLOUT, interest.contains(Events::OUT));
    flags.set(EpollFlags::EPOLLPRI, interest.contains(Events::PRI));
    EpollEvent::new(flags, key)
}
