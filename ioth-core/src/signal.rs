//! The signal fd: a descriptor that poll(2), select(2) and epoll(7) see as ready when a socket is.
//!
//! It is the user's end of a pair of AF_UNIX stream sockets, so it needs no code of ours in whoever polls it: it
//! works in a process that inherited it. Nothing that travels through the pair means anything; what counts is what
//! the kernel says of the user's end while it is there:
//!
//! | bit | how it is shown | how it is taken back |
//! |---|---|---|
//! | `IN` | a byte from the stack's end waits in the user's end | the user's end reads it |
//! | `PRI` | so does an out-of-band byte (`IN` goes with it) | the user's end reads it |
//! | `OUT` | what the user's end has sent is less than a quarter of its minimal send buffer: one byte | the user's end sends another byte |
//! | `RDHUP` | the stack's end is shut down for writing | never |
//! | `HUP` | the stack's end is shut down for both | never |
//! | `ERR` | the stack's end is closed with a byte unread | never |
//!
//! So the stack raises `IN`, `PRI` and `OUT` (and the final three) at its own end at any time, while lowering them needs
//! the user's end, of which the process must hold no duplicate: the user's last close would not be the last one.
//! The calls that the user makes with the descriptor lower them.
//!
//! ```text
//!             raise: IN PRI OUT        lower: IN PRI OUT
//!                    ╭───╮                 ╭───╮
//!                    ▼   │                 ▼   │
//!   new ──────────▶ Live ─────────────────────── user closed ──▶ Gone
//!                    │ first a pipe goes over       ▲
//!                    ▼                              │
//!                ReadShut ──▶ HungUp ──▶ Failed ────╯     (any may be skipped, none can be undone)
//! ```
//!
//! That the user has closed the last duplicate shows at the stack's end as `HUP`. Once that end is shut down or closed
//! it says nothing any more; therefore one end of a pipe is first sent over in a byte that nobody reads. It sits in the
//! user's receive queue and is closed with it, and the pipe's other end polls `HUP`.

use std::collections::HashSet;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Weak};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, recv, send, sendmsg, setsockopt,
    shutdown, socketpair, sockopt,
};
use nix::unistd::pipe2;
use parking_lot::{Mutex, ReentrantMutex};

use crate::fork::Inherited;
use crate::reactor::{Reactor, Registration, Source};
use crate::readiness::Word;
use crate::{Events, sys};

/// The stack's end of a signal fd.
///
/// Made with [`new`](Self::new); then [`sync`](Self::sync) after every change of the socket's readiness. Dropping it
/// leaves the user's end in `IN|OUT|RDHUP|HUP|ERR`.
pub(crate) struct SignalFd {
    inner: Arc<Inner>,
}

impl SignalFd {
    /// Makes a pair for a socket at `word`; the user's end shows `OUT` alone until the first `sync`.
    ///
    /// `closed` is called once, in the reactor's thread or by [`check_closed`](Self::check_closed), with no lock held
    /// but one that ends alone take, when the last duplicate of the user's end is closed.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`, `ENOBUFS`, `ENOSPC`.
    pub(crate) fn new(word: Word, closed: Box<dyn FnOnce() + Send>) -> Result<(Self, OwnedFd), Errno> {
        let (user, end) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
        // The kernel raises it to its minimum.
        setsockopt(&user, sockopt::SndBuf, &0)?;
        // Stays unread, so that closing the stack's end is a reset whenever it comes.
        send(user.as_raw_fd(), &[0], QUIET)?;
        let inner = Arc::new(Inner {
            cookie: sys::socket_cookie(user.as_fd())?,
            state: Mutex::new(State::new(End::new(end), word)),
            ending: ReentrantMutex::new(()),
            closed: Mutex::new(Some(closed)),
        });
        let mut state = inner.state.lock();
        let watched = watch(state.end.as_ref().expect("the end was just stored").as_fd(), &inner)?;
        state.watch = Some(watched);
        drop(state);
        Ok((SignalFd { inner }, user))
    }

    /// Makes the user's end show what `load` says; to take `IN`, `PRI` and `OUT` away it needs `user`, any
    /// duplicate of the user's end. A descriptor that is something else is left alone.
    ///
    /// Calls are serialised and `load` is read inside, so the last one shows the newest state. No stack's lock is
    /// held: it makes system calls.
    pub(crate) fn sync(&self, user: Option<BorrowedFd<'_>>, load: &dyn Fn() -> Word) {
        let mut state = self.inner.state.lock();
        let mut word = load();
        loop {
            state.raise(word, &self.inner);
            if let Some(user) = user
                && state.is_lowered_by(word)
            {
                // The program may have closed the number while the call was waiting, and got it again for
                // another file, whose data must not be touched.
                if sys::socket_cookie(user) != Ok(self.inner.cookie) {
                    return;
                }
                state.lower(word, user);
            }
            let now = load();
            if now.is_same(word) {
                return;
            }
            word = now;
        }
    }

    /// Looks whether the last duplicate of the user's end is closed, and if so does at once what the reactor
    /// would do soon. If the reactor is at it, it has done so when this returns.
    pub(crate) fn check_closed(&self) {
        let _ending = self.inner.ending.lock();
        let hung_up = {
            let state = self.inner.state.lock();
            state.watched().is_some_and(|watched| {
                let mut polled = [PollFd::new(watched, PollFlags::empty())];
                let asked = poll(&mut polled, PollTimeout::ZERO).is_ok();
                asked && polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
            })
        };
        if hung_up {
            Hangup(Arc::downgrade(&self.inner)).ready(Events::HUP);
        }
    }
}

impl fmt::Debug for SignalFd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SignalFd").field(&*self.inner.state.lock()).finish()
    }
}

/// Lock order: `ending`, `state`, then the reactor's table; `closed` on its own.
struct Inner {
    /// Of the user's end.
    cookie: u64,
    state: Mutex<State>,
    /// Held from the look at the user's end until `closed` has returned, so that whoever comes second finds it done.
    /// Only ends take it; reentrant, since what `closed` wakes may end another time.
    ending: ReentrantMutex<()>,
    closed: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

/// Waits for the user's last close.
#[derive(Debug)]
struct Hangup(Weak<Inner>);

impl Source for Hangup {
    fn ready(&self, events: Events) {
        // A pipe without writers says HUP, the stack's end HUP, with ERR when the user had left bytes unread.
        if !events.contains(Events::HUP) {
            return;
        }
        let Some(inner) = self.0.upgrade() else { return };
        let _ending = inner.ending.lock();
        // Nobody is left who could look.
        let gone = inner.state.lock().take_down();
        drop(gone);
        let closed = inner.closed.lock().take();
        if let Some(closed) = closed {
            closed();
        }
    }
}

/// Which of the final bits are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// None: everything can be taken back.
    Live,
    /// `RDHUP`, and `IN`.
    ReadShut,
    /// `HUP`, and all before it, and `OUT`.
    HungUp,
    /// `ERR`, and all before it: the stack's end is closed.
    Failed,
    /// The user has closed its last duplicate.
    Gone,
}

impl Phase {
    /// `HUP` without `RDHUP` is a fresh socket's, which is not for good: it is not shown.
    fn of(events: Events) -> Phase {
        match events {
            _ if events.contains(Events::RDHUP | Events::HUP | Events::ERR) => Phase::Failed,
            _ if events.contains(Events::RDHUP | Events::HUP) => Phase::HungUp,
            _ if events.contains(Events::RDHUP) => Phase::ReadShut,
            _ => Phase::Live,
        }
    }
}

/// What the user's end shows.
#[derive(Debug)]
struct State {
    /// Goes before the descriptor that it belongs to is shut down or closed.
    watch: Option<Registration>,
    /// None in `Failed` and `Gone`.
    end: Option<End>,
    /// The pipe's reading end, from `ReadShut` on.
    pipe: Option<OwnedFd>,
    phase: Phase,
    /// Bytes that wait in the user's end to show `IN`.
    in_bytes: usize,
    /// An out-of-band byte waits there, showing `PRI`.
    urgent: bool,
    /// An out-of-band byte was sent: its mark shows `IN` until a read has passed it.
    marked: bool,
    /// The user's end is filled: no `OUT`.
    filled: bool,
    /// The epochs that were shown.
    in_epoch: u16,
    out_epoch: u16,
    pri_epoch: u16,
}

impl State {
    fn new(end: End, word: Word) -> Self {
        State {
            watch: None,
            end: Some(end),
            pipe: None,
            phase: Phase::Live,
            in_bytes: 0,
            urgent: false,
            marked: false,
            filled: false,
            in_epoch: word.in_epoch(),
            out_epoch: word.out_epoch(),
            pri_epoch: word.pri_epoch(),
        }
    }

    /// The descriptor that tells of the user's last close.
    fn watched(&self) -> Option<BorrowedFd<'_>> {
        match (&self.pipe, &self.end) {
            (Some(pipe), _) => Some(pipe.as_fd()),
            (None, end) => end.as_ref().map(End::as_fd),
        }
    }

    /// Shows what the stack's end can show: more bits.
    fn raise(&mut self, word: Word, inner: &Arc<Inner>) {
        let Some(end) = self.end.as_ref().map(|end| end.as_fd().as_raw_fd()) else { return };
        let events = word.events();
        let wanted = Phase::of(events);
        if self.filled && (events.contains(Events::OUT) || wanted >= Phase::HungUp) {
            self.drain();
            self.out_epoch = word.out_epoch();
        }
        if self.phase == Phase::Live && events.contains(Events::PRI) {
            // Another byte, though the first is still there, makes the edge that edge-triggered epoll has to see.
            if !self.urgent || self.pri_epoch != word.pri_epoch() {
                let sent = send(end, &[0], QUIET | MsgFlags::MSG_OOB).is_ok();
                self.urgent |= sent;
                self.marked |= sent;
                self.pri_epoch = word.pri_epoch();
            }
        }
        // Without a pipe (EMFILE, ETOOMANYREFS) the user's last close could not be told any more: then it stays at IN,
        // which makes the user read and hear of everything, and the next change tries again.
        let advances = wanted > self.phase && (self.phase != Phase::Live || self.send_pipe(inner).is_ok());
        if !advances {
            let readable = events.intersects(Word::READABLE) || wanted != Phase::Live;
            if self.phase == Phase::Live
                && readable
                && (self.in_bytes == 0 || self.in_epoch != word.in_epoch())
            {
                // Without `lower` they pile up only when the socket is read by other ways than its descriptor.
                if self.in_bytes < MAX_IN_BYTES && send(end, &[0], QUIET).is_ok() {
                    self.in_bytes += 1;
                }
                self.in_epoch = word.in_epoch();
            }
            return;
        }
        // None of these fails on a connected socket; on one whose peer is gone nobody looks.
        match wanted {
            Phase::ReadShut => _ = shutdown(end, Shutdown::Write),
            Phase::HungUp => _ = shutdown(end, Shutdown::Both),
            _ => {
                // A child that was forked past pthread_atfork(3) may hold a duplicate: then at least the hang-up shows.
                _ = shutdown(end, Shutdown::Both);
                self.end = None;
            }
        }
        self.phase = wanted;
    }

    /// Whether [`lower`](Self::lower) has anything to do.
    fn is_lowered_by(&self, word: Word) -> bool {
        let events = word.events();
        if self.end.is_none() {
            return false;
        }
        let out = self.phase < Phase::HungUp
            && !self.filled
            && (!events.contains(Events::OUT) || self.out_epoch != word.out_epoch());
        let urgent = self.urgent && !events.contains(Events::PRI);
        let readable = self.phase == Phase::Live
            && if events.intersects(Word::READABLE) {
                self.in_bytes > 1 && !self.marked
            } else {
                self.in_bytes > 0 || self.marked
            };
        out || urgent || readable
    }

    /// Shows what takes the user's end: fewer bits. `raise` came just before.
    fn lower(&mut self, word: Word, user: BorrowedFd<'_>) {
        let events = word.events();
        let fd = user.as_raw_fd();
        if self.phase < Phase::HungUp && !self.filled {
            if !events.contains(Events::OUT) {
                fill(user);
                self.filled = true;
            } else if self.out_epoch != word.out_epoch() {
                // Full, and writable again, all before anybody filled: the edge is still owed.
                fill(user);
                self.drain();
            }
            self.out_epoch = word.out_epoch();
        }
        if self.urgent && !events.contains(Events::PRI) {
            let _ = recv(fd, &mut [0], QUIET | MsgFlags::MSG_OOB);
            self.urgent = false;
        }
        // From `ReadShut` on `IN` stays, and a read could eat the byte that carries the pipe.
        if self.phase != Phase::Live {
            return;
        }
        let mut waste = [0; 64];
        if events.intersects(Word::READABLE) {
            if self.in_bytes > 1 && !self.marked {
                let surplus = (self.in_bytes - 1).min(waste.len());
                self.in_bytes -= recv(fd, &mut waste[..surplus], QUIET).unwrap_or(0);
            }
        } else if self.marked && !self.urgent {
            // A read stops at the mark, so how many it takes depends on the order of sending.
            while recv(fd, &mut waste, QUIET).is_ok_and(|n| n > 0) {}
            self.in_bytes = 0;
            self.marked = false;
        } else if !self.marked && self.in_bytes > 0 {
            // Exactly these: one read, and no second one to hear EAGAIN. Fewer are there only when the program
            // has read some with read(2).
            let _ = recv(fd, &mut waste[..self.in_bytes], QUIET);
            self.in_bytes = 0;
        }
    }

    /// Reads what the user's end was filled with, all but the one byte that always stays.
    fn drain(&mut self) {
        let Some(end) = &self.end else { return };
        let mut waste = [0; 512];
        while let Ok(unread @ 2..) = sys::unread(end.as_fd()) {
            let len = (unread - 1).min(waste.len());
            if recv(end.as_fd().as_raw_fd(), &mut waste[..len], QUIET).unwrap_or(0) == 0 {
                break;
            }
        }
        self.filled = false;
    }

    /// Hands the duty to tell of the user's last close over to a pipe.
    fn send_pipe(&mut self, inner: &Arc<Inner>) -> Result<(), Errno> {
        let Some(end) = &self.end else { return Err(Errno::EBADF) };
        let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
        let watch = watch(ours.as_fd(), inner)?;
        let fds = [theirs.as_raw_fd()];
        let data = [std::io::IoSlice::new(&[0])];
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(end.as_fd().as_raw_fd(), &data, &rights, QUIET, None)?;
        // The old registration goes before its descriptor is shut down, so it has told nothing wrong.
        self.watch = Some(watch);
        self.pipe = Some(ours);
        Ok(())
    }

    /// Gives everything up; the caller drops what comes back with no lock held.
    fn take_down(&mut self) -> (Option<Registration>, Option<End>, Option<OwnedFd>) {
        self.phase = Phase::Gone;
        (self.watch.take(), self.end.take(), self.pipe.take())
    }
}

/// The stack's end.
///
/// A forked child closes its duplicates at once: held there, they would keep the user's end from showing that the stack's
/// end was closed, or that the process of the stack has ended.
#[derive(Debug)]
struct End(OwnedFd);

/// The numbers of all stack's ends of the process.
static ENDS: Inherited<HashSet<RawFd>> = Inherited::with(HashSet::new, HashSet::new, |numbers| {
    for number in numbers.drain() {
        let _ = nix::unistd::close(number);
    }
});

impl End {
    fn new(fd: OwnedFd) -> Self {
        ENDS.write().insert(fd.as_raw_fd());
        End(fd)
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // Before it is closed: the number may be somebody else's then.
        ENDS.write().remove(&self.0.as_raw_fd());
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // It must not take the shutdown below for the user's close.
        self.watch = None;
        if let Some(end) = &self.end {
            // A child that was forked past pthread_atfork(3) may hold a duplicate: closing alone would show nothing.
            let _ = shutdown(end.as_fd().as_raw_fd(), Shutdown::Both);
        }
    }
}

/// Takes `OUT` away from the user's end.
fn fill(user: BorrowedFd<'_>) {
    // One byte is enough where this was measured; the size of a byte in the buffer is the kernel's affair.
    for _ in 0..MAX_FILL {
        if send(user.as_raw_fd(), &[0], QUIET).is_err() {
            return;
        }
        let mut polled = [PollFd::new(user, PollFlags::POLLOUT)];
        if poll(&mut polled, PollTimeout::ZERO) == Ok(0) {
            return;
        }
    }
}

fn watch(fd: BorrowedFd<'_>, inner: &Arc<Inner>) -> Result<Registration, Errno> {
    let errno = |error: std::io::Error| error.raw_os_error().map_or(Errno::EAGAIN, Errno::from_raw);
    let source = Arc::new(Hangup(Arc::downgrade(inner)));
    Reactor::try_global().and_then(|reactor| reactor.register(fd, Events::empty(), source)).map_err(errno)
}

/// Never waits, whatever the user has made of O_NONBLOCK, and raises no SIGPIPE.
const QUIET: MsgFlags = MsgFlags::MSG_DONTWAIT.union(MsgFlags::MSG_NOSIGNAL);
/// Edges that can be owed to readers in calls at one time.
const MAX_IN_BYTES: usize = 16;
/// More one-byte messages than a minimal send buffer takes.
const MAX_FILL: usize = 64;
