//! Sockets that *are* descriptors: how a backend holds a socket of the kernel, whatever is behind that.
//!
//! Most of such a socket's calls are system calls on a [`Descriptor`]. It polls by itself, so readiness needs no state
//! machine of ours; a [`Waker`] is told by the reactor.

use std::any::Any;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use parking_lot::RwLock;

use crate::fork::PerProcess;
use crate::{Errno, Events, Result, sys};
use watch::Watch;

mod watch;

/// The descriptor behind a socket, which owns it until it is released to the user.
///
/// From then on but the number and the kernel's cookie of the socket are remembered: calls go on working while that number
/// is this socket, and fail with `EBADF` once the user has closed it, whatever has the number then.
pub struct Descriptor {
    state: RwLock<State>,
    /// With the reactor of the process that waits.
    watch: PerProcess<Arc<Watch>>,
}

#[derive(Debug)]
enum State {
    /// The `Arc` keeps the number taken during calls of other threads while this one closes.
    Owned(Arc<OwnedFd>, Open),
    Released {
        number: RawFd,
        cookie: u64,
        open: Open,
    },
    /// A duplicate, for as long as a call takes.
    Lent(RawFd, Open),
    Closed,
}

/// A descriptor for the duration of a call.
enum Held {
    Owned(Arc<OwnedFd>),
    Number(RawFd),
}

impl Descriptor {
    /// A descriptor of one's own; `open` counts it.
    pub fn new(fd: OwnedFd, open: Open) -> Self {
        Descriptor { state: RwLock::new(State::Owned(Arc::new(fd), open)), watch: PerProcess::new() }
    }

    /// The same socket by another descriptor of the user's, for as long as a call takes.
    ///
    /// # Errors
    /// `EBADF` after [`close`](Self::close).
    pub fn lent(&self, fd: BorrowedFd<'_>) -> Result<Self> {
        let state = RwLock::new(State::Lent(fd.as_raw_fd(), self.open()?));
        Ok(Descriptor { state, watch: PerProcess::new() })
    }

    /// Runs `call` on the descriptor without holding a lock: a call may wait.
    ///
    /// # Errors
    /// `EBADF` for one that is closed; what `call` returns.
    pub fn with<T>(&self, call: impl FnOnce(BorrowedFd<'_>) -> Result<T>) -> Result<T> {
        match self.held()? {
            Held::Owned(fd) => call(fd.as_fd()),
            Held::Number(fd) => with_number(fd, call),
        }
    }

    /// The descriptor, kept open for as long as a call waits; `None` for one that is the user's, or closed.
    pub fn owned(&self) -> Option<Arc<OwnedFd>> {
        match &*self.state.read() {
            State::Owned(fd, _) => Some(Arc::clone(fd)),
            _ => None,
        }
    }

    fn held(&self) -> Result<Held> {
        match &*self.state.read() {
            State::Owned(fd, _) => Ok(Held::Owned(Arc::clone(fd))),
            State::Lent(number, _) => Ok(Held::Number(*number)),
            State::Released { number, cookie, .. } => {
                if with_number(*number, self::cookie) != Ok(*cookie) {
                    return Err(Errno::EBADF);
                }
                Ok(Held::Number(*number))
            }
            State::Closed => Err(Errno::EBADF),
        }
    }

    /// For a connection that this socket accepts: taken before the call, so that the connection is not lost to a close in
    /// between.
    ///
    /// # Errors
    /// `EBADF` after [`close`](Self::close).
    pub fn open(&self) -> Result<Open> {
        match &*self.state.read() {
            State::Owned(_, open) | State::Released { open, .. } | State::Lent(_, open) => Ok(open.clone()),
            State::Closed => Err(Errno::EBADF),
        }
    }

    /// What poll(2) says now: [`Socket::events`](crate::Socket::events).
    pub fn events(&self) -> Events {
        self.with(|fd| Ok(events(fd))).unwrap_or(Events::ERR | Events::HUP)
    }

    /// [`Socket::poll_ready`](crate::Socket::poll_ready) by the reactor.
    pub fn poll_ready(&self, interest: Events, waker: &Waker) -> Poll<Events> {
        const ALWAYS: Events = Events::ERR.union(Events::HUP);
        let events = self.events();
        if events.intersects(interest | ALWAYS) {
            return Poll::Ready(events);
        }
        let fd = match self.held() {
            Ok(Held::Owned(fd)) => Ok(fd),
            // The user may close the number while the reactor knows it: a duplicate stays valid.
            Ok(Held::Number(fd)) => with_number(fd, duplicate).map(Arc::new),
            Err(error) => Err(error),
        };
        let watch = self.watch.get_or_init(Arc::default);
        match fd.and_then(|fd| watch.add(fd, interest, waker)) {
            Ok(()) => Poll::Pending,
            // Nobody will tell: let the caller's next call find the error.
            Err(_) => Poll::Ready(events | Events::ERR),
        }
    }

    /// Gives the descriptor to the user: [`Socket::release_fd`](crate::Socket::release_fd).
    ///
    /// # Errors
    /// `EEXIST` when it was given already, `EBADF` when it is closed, `EMFILE` and `ENFILE`.
    pub fn release(&self) -> Result<OwnedFd> {
        let mut state = self.state.write();
        match &*state {
            State::Released { .. } | State::Lent(..) => return Err(Errno::EEXIST),
            State::Closed => return Err(Errno::EBADF),
            State::Owned(..) => {}
        }
        let State::Owned(fd, open) = std::mem::replace(&mut *state, State::Closed) else {
            return Err(Errno::EBADF);
        };
        // A call in progress, or the reactor, has the number in use: the user gets a duplicate.
        let fd = match Arc::try_unwrap(fd) {
            Ok(fd) => fd,
            Err(shared) => match duplicate(shared.as_fd()) {
                Ok(fd) => fd,
                Err(error) => {
                    *state = State::Owned(shared, open);
                    return Err(error);
                }
            },
        };
        match cookie(fd.as_fd()) {
            Ok(cookie) => {
                *state = State::Released { number: fd.as_raw_fd(), cookie, open };
                Ok(fd)
            }
            Err(error) => {
                *state = State::Owned(Arc::new(fd), open);
                Err(error)
            }
        }
    }

    /// Closes it, or does what may be done to a number that is the user's: `shut` shuts it down.
    ///
    /// # Errors
    /// `EBADF` when it is closed.
    pub fn close(&self, shut: impl FnOnce(BorrowedFd<'_>)) -> Result<()> {
        let old = std::mem::replace(&mut *self.state.write(), State::Closed);
        if let Some(watch) = self.watch.get() {
            watch.end();
        }
        match old {
            State::Owned(..) => Ok(()),
            State::Released { number, cookie, .. } => {
                if with_number(number, self::cookie) == Ok(cookie) {
                    let _ = with_number(number, |fd| {
                        shut(fd);
                        Ok(())
                    });
                }
                Ok(())
            }
            State::Lent(number, _) => with_number(number, |fd| {
                shut(fd);
                Ok(())
            }),
            State::Closed => Err(Errno::EBADF),
        }
    }
}

impl Drop for Descriptor {
    /// Lets go of the reactor's registration, which holds the watch in turn.
    fn drop(&mut self) {
        if let Some(watch) = self.watch.get() {
            watch.end();
        }
    }
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.state.try_read() {
            Some(state) => state.fmt(f),
            None => f.write_str("<in use>"),
        }
    }
}

/// How many sockets of a stack are open, until it is deleted.
#[derive(Clone, Debug, Default)]
pub struct Count(Arc<Counted>);

#[derive(Debug, Default)]
struct Counted {
    /// Or [`DELETED`].
    open: AtomicUsize,
    /// What lives as long as the stack and its sockets do.
    _kept: Option<Arc<dyn Any + Send + Sync>>,
}

const DELETED: usize = usize::MAX;

impl Count {
    /// None yet; `kept` lives as long as the stack and its sockets do.
    pub fn keeping(kept: Arc<dyn Any + Send + Sync>) -> Self {
        Count(Arc::new(Counted { open: AtomicUsize::new(0), _kept: Some(kept) }))
    }

    /// Counts one more.
    ///
    /// # Errors
    /// `ENODEV` when the stack was deleted.
    pub fn open(&self) -> Result<Open> {
        let more = |open| (open != DELETED).then(|| open + 1);
        match self.0.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, more) {
            Ok(_) => Ok(Open(self.clone())),
            Err(_) => Err(Errno::ENODEV),
        }
    }

    /// From now on there are no more; again and again.
    ///
    /// # Errors
    /// `EBUSY` while some are open.
    pub fn delete(&self) -> Result<()> {
        match self.0.open.compare_exchange(0, DELETED, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) | Err(DELETED) => Ok(()),
            Err(_) => Err(Errno::EBUSY),
        }
    }
}

/// One open socket of a stack, from creation to close.
#[derive(Debug)]
pub struct Open(Count);

impl Clone for Open {
    /// For an accepted connection: its listener is open, so the stack is not deleted.
    fn clone(&self) -> Self {
        self.0.0.open.fetch_add(1, Ordering::AcqRel);
        Open(self.0.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Runs `call` on a descriptor known by its number only; a closed one gives `EBADF`.
///
/// # Errors
/// `EBADF` for a negative number; what `call` returns.
pub fn with_number<T>(fd: RawFd, call: impl FnOnce(BorrowedFd<'_>) -> Result<T>) -> Result<T> {
    sys::with_number(fd, call)
}

/// What poll(2) says now; `ERR | HUP` when it fails.
pub fn events(fd: BorrowedFd<'_>) -> Events {
    match sys::poll(fd, Events::all().bits() as i16) {
        // Sign extension would set bits of its own.
        Ok(seen) => Events::from_bits_truncate(u32::from(seen as u16)),
        Err(_) => Events::ERR | Events::HUP,
    }
}

/// Sets or clears O_NONBLOCK of the open file description.
///
/// # Errors
/// As fcntl(2).
pub fn set_nonblocking(fd: BorrowedFd<'_>, nonblocking: bool) -> Result<()> {
    let old = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    let mut new = old;
    new.set(OFlag::O_NONBLOCK, nonblocking);
    if new != old {
        fcntl(fd, FcntlArg::F_SETFL(new))?;
    }
    Ok(())
}

/// Whether O_NONBLOCK of the open file description is set.
///
/// # Errors
/// As fcntl(2).
pub fn nonblocking(fd: BorrowedFd<'_>) -> Result<bool> {
    Ok(OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?).contains(OFlag::O_NONBLOCK))
}

/// `SO_COOKIE`: the number of the socket behind a descriptor, the same for all its duplicates and never
/// given twice (since Linux 5.4 in no network namespace either).
///
/// # Errors
/// `EBADF`; `ENOTSOCK` for other files.
pub fn cookie(fd: BorrowedFd<'_>) -> Result<u64> {
    sys::socket_cookie(fd)
}

fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    fd.try_clone_to_owned().map_err(|error| error.raw_os_error().map_or(Errno::EMFILE, Errno::from_raw))
}
