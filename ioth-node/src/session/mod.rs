//! A session: a socket of the stack and the node's end of its pair.

mod lasting;
mod listener;
mod message;
mod stream;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Poll, Wake, Waker};

use ioth::core::reactor::{Reactor, Registration, Source};
use ioth::{Errno, Events, MsgFlags, SendMsg, Shutdown, SockAddr, Socket};
use ioth_node_proto::{EndName, State};
use parking_lot::Mutex;

use crate::control::Conversation;
use crate::node::{Node, Remains};
use crate::pair;

pub(crate) use lasting::Lasting;
use listener::Listener;
use message::Messages;
use stream::{Connecting, Stream};

type Result<T> = std::result::Result<T, Errno>;

/// How many pieces a turn moves each way before others have theirs.
const BUDGET: usize = 16;

/// One socket of a program.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) name: EndName,
    pub(crate) owner: pair::Owner,
    pub(crate) socket: Arc<dyn Socket>,
    node: Weak<Node>,
    me: Weak<Session>,
    /// Gives it a turn. One for ever: whoever keeps it knows it again, and does not keep a second.
    waker: Waker,
    /// Why a turn is due: [`Cause`]'s bits.
    queued: AtomicU8,
    /// Of a connection that was accepted from the stack.
    listener: Weak<Session>,
    /// It may be a connection that nobody accepted before the listener was closed.
    unaccepted: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// The node's end; `None` when the session is over.
    end: Option<OwnedFd>,
    /// Of the node's end, until it has hung up: what comes after is read without being told.
    watch: Option<(Registration, Events)>,
    role: Role,
    /// An error that the stack told already, and the program did not hear yet.
    error: Option<Errno>,
}

/// What the session does between pair and stack.
#[derive(Debug)]
enum Role {
    /// A stream that is neither connected nor listens.
    Idle,
    Connecting(Connecting),
    Stream(Stream),
    Listener(Listener),
    Messages(Messages),
}

/// What a turn came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    /// Everything was moved that can be; go on when one of these holds at the node's end, or at the socket.
    Wait { end: Events, socket: Option<Events> },
    /// There may be more to do at once.
    Again,
    /// The session is over; whether the connection is to be reset.
    Over { reset: bool },
}

/// Which side something may be new at: what waits for the other one has nothing to try.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cause {
    end: bool,
    socket: bool,
}

impl Cause {
    const NONE: Cause = Cause { end: false, socket: false };
    const END: Cause = Cause { end: true, socket: false };
    const SOCKET: Cause = Cause { end: false, socket: true };
    const BOTH: Cause = Cause { end: true, socket: true };

    fn bits(self) -> u8 {
        u8::from(self.end) | u8::from(self.socket) << 1
    }

    fn from_bits(bits: u8) -> Cause {
        Cause { end: bits & 1 != 0, socket: bits & 2 != 0 }
    }

    /// Whether a direction that waits for `side` may go on.
    fn concerns(self, side: Option<Side>) -> bool {
        match side {
            None | Some(Side::Neither) => true,
            Some(Side::End) => self.end,
            Some(Side::Socket) => self.socket,
        }
    }
}

/// What a direction waits for: the node's end of the pair, or the socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    End,
    Socket,
    /// There is nothing to wait for, unless a request changes that.
    Neither,
}

/// What becomes of a request to connect.
#[derive(Debug)]
pub(crate) enum Connect {
    /// The result is known.
    Done(Result<()>),
    /// The conversation is answered later.
    Later,
}

impl Session {
    /// Makes a session of a socket, and the user's end of it.
    pub(crate) fn begin(
        node: &Arc<Node>,
        socket: Arc<dyn Socket>,
        name: EndName,
    ) -> Result<(Arc<Session>, OwnedFd)> {
        let role = if name.is_stream() { Role::Idle } else { Role::Messages(Messages::default()) };
        Session::begin_as(node, socket, name, role, Weak::new())
    }

    /// Makes a session of a connection that was accepted.
    fn begin_connected(
        node: &Arc<Node>,
        socket: Arc<dyn Socket>,
        name: EndName,
        listener: &Session,
    ) -> Result<(Arc<Session>, OwnedFd)> {
        let (role, listener) = (Role::Stream(Stream::default()), listener.me.clone());
        let (session, user) = Session::begin_as(node, socket, name, role, listener)?;
        pair::set_state(user.as_fd(), State::Connected)?;
        // accept(2) shall not return before what came already can be read: who defers it counts on that.
        session.turn();
        Ok((session, user))
    }

    fn begin_as(
        node: &Arc<Node>,
        socket: Arc<dyn Socket>,
        name: EndName,
        role: Role,
        listener: Weak<Session>,
    ) -> Result<(Arc<Session>, OwnedFd)> {
        let (end, user) = pair::make(&name)?;
        let owner = pair::owner(user.as_fd());
        let session = Arc::new_cyclic(|me| Session {
            name,
            owner,
            socket,
            node: Arc::downgrade(node),
            me: me.clone(),
            waker: Waker::from(Arc::new(Turner(me.clone()))),
            queued: AtomicU8::new(0),
            listener,
            unaccepted: AtomicBool::new(false),
            inner: Mutex::new(Inner { end: None, watch: None, role, error: None }),
        });
        let registration = Reactor::global()
            .register(end.as_fd(), Events::empty(), session.clone())
            .map_err(crate::node::errno)?;
        let mut inner = session.inner.lock();
        inner.watch = Some((registration, Events::empty()));
        inner.end = Some(end);
        drop(inner);
        node.enter(&session);
        session.schedule(Cause::BOTH);
        Ok((session, user))
    }

    /// Takes a turn soon.
    fn schedule(&self, cause: Cause) {
        if let (0, Some(me), Some(node)) =
            (self.queued.fetch_or(cause.bits(), Ordering::AcqRel), self.me.upgrade(), self.node.upgrade())
        {
            node.schedule(me);
        }
    }

    /// Moves what can be moved.
    pub(crate) fn turn(&self) {
        self.queued.store(0, Ordering::Release);
        self.turn_for(Cause::BOTH);
    }

    /// The turn that was due.
    pub(crate) fn scheduled_turn(&self) {
        let cause = Cause::from_bits(self.queued.swap(0, Ordering::AcqRel));
        if cause != Cause::NONE {
            self.turn_for(cause);
        }
    }

    fn turn_for(&self, cause: Cause) {
        let over = self.turn_locked(&mut self.inner.lock(), cause);
        self.end(over);
    }

    fn turn_locked(&self, inner: &mut Inner, mut cause: Cause) -> Option<Remains> {
        for _ in 0..BUDGET {
            let Inner { end: Some(end), watch, role, error } = inner else { return None };
            let hung = watch.is_none();
            let turn = match role {
                Role::Idle if hung => Turn::Over { reset: false },
                Role::Idle => Turn::Wait { end: Events::empty(), socket: None },
                Role::Connecting(_) if hung => Turn::Over { reset: false },
                Role::Connecting(connecting) => match connecting.turn(&*self.socket, end.as_fd()) {
                    Some(next) => {
                        *role = next;
                        Turn::Again
                    }
                    None => Turn::Wait { end: Events::empty(), socket: Some(Events::OUT) },
                },
                Role::Stream(stream) => match stream.turn(&*self.socket, end, hung, cause, error) {
                    // As Linux does with what waits in a listener's queue.
                    Turn::Over { reset: false } if stream.is_untouched() && self.is_unaccepted() => {
                        Turn::Over { reset: true }
                    }
                    turn => turn,
                },
                Role::Listener(listener) if hung => {
                    listener.end(end.as_fd());
                    Turn::Over { reset: false }
                }
                Role::Listener(listener) => match self.node.upgrade() {
                    Some(node) => listener.turn(&node, self, end.as_fd()),
                    None => Turn::Over { reset: false },
                },
                Role::Messages(messages) => messages.turn(&*self.socket, end.as_fd(), hung, cause, error),
            };
            cause = Cause::NONE;
            match turn {
                Turn::Again => {}
                Turn::Over { reset } => return Some(self.finish(inner, reset)),
                Turn::Wait { end, socket } => {
                    if let Some((registration, now)) = watch
                        && *now != end
                    {
                        let _ = registration.set_interest(end);
                        *now = end;
                    }
                    match socket {
                        Some(interest) if self.is_ready(interest) => cause = Cause::SOCKET,
                        _ => return None,
                    }
                }
            }
        }
        self.schedule(Cause::BOTH);
        None
    }

    /// The listener was closed with connections that nobody accepted, of which this may be one.
    fn was_not_accepted(&self) {
        self.unaccepted.store(true, Ordering::Relaxed);
    }

    /// Whether it is one of those.
    fn is_unaccepted(&self) -> bool {
        if let Some(listener) = self.listener.upgrade() {
            listener.check_closed();
        }
        self.unaccepted.load(Ordering::Relaxed)
    }

    /// Finds out whether a listener was closed, of which it may not have been told yet.
    fn check_closed(&self) {
        // Who has it is in its turn, and finds out as well.
        let Some(mut inner) = self.inner.try_lock() else { return };
        if let Inner { end: Some(end), role: Role::Listener(listener), .. } = &mut *inner
            && pair::is_hung_up(end)
        {
            listener.end(end.as_fd());
        }
    }

    /// Whether something holds at the socket; if not, a turn comes when it does.
    fn is_ready(&self, interest: Events) -> bool {
        matches!(self.socket.poll_ready(interest, &self.waker), Poll::Ready(_))
    }

    /// Ends the socket; the pair ends when `inner` has let go of it.
    fn finish(&self, inner: &mut Inner, reset: bool) -> Remains {
        let options = matches!(inner.role, Role::Stream(_)).then(|| Lasting::of(&*self.socket));
        let remains = Remains { local: self.socket.local_addr().ok(), error: inner.error.take(), options };
        if reset {
            // SO_LINGER of no time: close(2) resets the connection, as it does on Linux when data was not read.
            let linger = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
            let _ = self.socket.set_option(libc::SOL_SOCKET, libc::SO_LINGER, &linger);
        }
        let _ = self.socket.close();
        inner.watch = None;
        inner.end = None;
        remains
    }

    /// Tells the node that the session is over, with no lock held.
    fn end(&self, over: Option<Remains>) {
        if let (Some(remains), Some(node)) = (over, self.node.upgrade()) {
            node.leave(self, remains);
        }
    }
}

/// The requests. The session has had its turn: what the program sent before acts before.
impl Session {
    /// Lets the program that asks know what has become of a connection that nobody waited for.
    pub(crate) fn tell_outcome(&self, user: BorrowedFd<'_>) {
        let state = match self.inner.lock().role {
            Role::Stream(_) => State::Connected,
            Role::Idle => State::Fresh,
            _ => return,
        };
        pair::decide(user, state);
    }

    pub(crate) fn listen(&self, user: BorrowedFd<'_>, backlog: i32) -> Result<()> {
        self.socket.listen(backlog)?;
        let mut inner = self.inner.lock();
        let Some(end) = &inner.end else { return Ok(()) };
        if !matches!(inner.role, Role::Listener(_)) {
            // A listener is never writable. At the node's end about two connections fit; the others wait in the stack.
            pair::shrink(user)?;
            pair::fill(user);
            pair::shrink(end.as_fd())?;
            pair::set_state(user, State::Listening)?;
            inner.role = Role::Listener(Listener::default());
        }
        drop(inner);
        self.turn();
        Ok(())
    }

    /// connect(2). `conversation` is answered later where that is what comes of it.
    pub(crate) fn connect(
        &self,
        user: OwnedFd,
        addr: &SockAddr,
        nonblocking: bool,
        conversation: &Arc<Conversation>,
    ) -> Connect {
        let result = self.socket.connect(addr);
        let mut inner = self.inner.lock();
        let Inner { end: Some(end), role, .. } = &mut *inner else { return Connect::Done(Err(Errno::EBADF)) };
        let outcome = match (role, result) {
            (Role::Messages(messages), Ok(())) => {
                messages.connected(*addr != SockAddr::Unspecified, end.as_fd(), user.as_fd());
                Connect::Done(Ok(()))
            }
            (role @ Role::Idle, Ok(())) if *addr != SockAddr::Unspecified => {
                *role = Role::Connecting(Connecting::begin(end.as_fd()));
                let _ = pair::set_state(user.as_fd(), State::Connected);
                Connect::Done(Ok(()))
            }
            (role @ Role::Connecting(_), Ok(())) if *addr == SockAddr::Unspecified => {
                if let Role::Connecting(connecting) = role {
                    connecting.drain(end.as_fd());
                }
                *role = Role::Idle;
                let _ = pair::set_state(user.as_fd(), State::Fresh);
                Connect::Done(Ok(()))
            }
            (Role::Connecting(_), Ok(())) => {
                let _ = pair::set_state(user.as_fd(), State::Connected);
                Connect::Done(Ok(()))
            }
            (role @ Role::Idle, Err(Errno::EINPROGRESS)) => {
                let mut connecting = Connecting::begin(end.as_fd());
                let outcome = if nonblocking {
                    connecting.go_on_alone(user.as_fd());
                    Connect::Done(Err(Errno::EINPROGRESS))
                } else {
                    connecting.wait(conversation.clone(), user, *addr);
                    Connect::Later
                };
                *role = Role::Connecting(connecting);
                outcome
            }
            (Role::Connecting(connecting), Err(Errno::EALREADY))
                if !nonblocking && !connecting.is_awaited() =>
            {
                connecting.wait(conversation.clone(), user, *addr);
                Connect::Later
            }
            (_, result) => Connect::Done(result),
        };
        drop(inner);
        self.turn();
        outcome
    }

    /// The conversation that waits for a connection has gone: the program was interrupted, or waits no longer.
    pub(crate) fn deserted(&self, conversation: &Conversation) {
        let mut inner = self.inner.lock();
        if let Role::Connecting(connecting) = &mut inner.role {
            connecting.deserted(conversation);
        }
    }

    /// shutdown(2); true when the program does it by itself.
    pub(crate) fn shutdown(&self, how: Shutdown) -> Result<bool> {
        let mut inner = self.inner.lock();
        if matches!(inner.role, Role::Stream(_)) {
            return Ok(true);
        }
        let told = self.socket.shutdown(how);
        // Without a peer it is shut all the same, as Linux's inet_shutdown() has it.
        if let Err(error) = told
            && !(error == Errno::ENOTCONN && matches!(inner.role, Role::Messages(_)))
        {
            return Err(error);
        }
        // Whoever waits for a connection or a message has the end of it.
        if let (Role::Listener(_) | Role::Messages(_), true, Some(end)) =
            (&inner.role, how.read(), &inner.end)
        {
            pair::end_of_data(end.as_fd());
            if matches!(inner.role, Role::Listener(_)) {
                inner.role = Role::Idle;
            }
        }
        told.map(|()| false)
    }

    /// sendmsg(2) of a message by a request.
    pub(crate) fn send(&self, message: &SendMsg<'_>, flags: MsgFlags) -> Result<usize> {
        self.socket.send(message, flags | MsgFlags::DONTWAIT)
    }

    /// recvmsg(2) with MSG_ERRQUEUE: a message as in the pair.
    pub(crate) fn kept_error(&self) -> Result<Vec<u8>> {
        match &mut self.inner.lock().role {
            Role::Messages(messages) => messages.kept_error(&*self.socket),
            _ => Err(Errno::EAGAIN),
        }
    }

    /// Calls `told` once, when the socket may take another message.
    pub(crate) fn is_writable(&self, waker: &Waker) -> bool {
        matches!(self.socket.poll_ready(Events::OUT, waker), Poll::Ready(_))
    }

    pub(crate) fn option(&self, level: i32, name: i32, value: &mut [u8]) -> Result<usize> {
        if (level, name) == (libc::SOL_SOCKET, libc::SO_ERROR)
            && let Some(error) = self.inner.lock().error.take()
        {
            let error = (error as i32).to_ne_bytes();
            let len = error.len().min(value.len());
            value[..len].copy_from_slice(&error[..len]);
            return Ok(len);
        }
        self.socket.option(level, name, value)
    }

    pub(crate) fn set_option(&self, user: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> Result<()> {
        self.socket.set_option(level, name, value)?;
        let mut inner = self.inner.lock();
        if let Inner { end: Some(end), role: Role::Messages(messages), .. } = &mut *inner
            && message::brings_ancillary_data(level, name)
            && value.iter().any(|&byte| byte != 0)
        {
            messages.with_ancillary_data(end.as_fd(), user);
        }
        Ok(())
    }
}

impl Source for Session {
    fn ready(&self, events: Events) {
        let mut inner = self.inner.lock();
        // It would be told again and again.
        let watch = if events.intersects(Events::HUP | Events::ERR) { inner.watch.take() } else { None };
        let over = self.turn_locked(&mut inner, Cause::END);
        drop(inner);
        drop(watch);
        self.end(over);
    }
}

/// Gives a session a turn when its socket is ready.
struct Turner(Weak<Session>);

impl Wake for Turner {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(session) = self.0.upgrade() {
            session.schedule(Cause::SOCKET);
        }
    }
}
