//! The control socket: requests and replies.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};

use ioth::core::reactor::{Reactor, Registration, Source};
use ioth::{Errno, Events, MsgFlags, SendMsg, Shutdown, SockAddr, Socket};
use ioth_node_proto::{Op, REQUEST_ROOM, Reply, Request, State, reply_flags, request_flags};
use nix::sys::socket::{SockFlag, accept4};
use parking_lot::Mutex;

use crate::diag::Diag;
use crate::node::{Node, Remains, with_scratch};
use crate::session::{Connect, Session};
use crate::task::Task;
use crate::{interfaces, pair, sys};

type Result<T> = std::result::Result<T, Errno>;

/// Conversations that are taken on at once.
const BATCH: usize = 64;
/// The longest value of a socket option, in bytes.
const OPTION_MAX: usize = 64 << 10;

/// The control socket of a node.
#[derive(Debug)]
pub(crate) struct Control {
    node: Weak<Node>,
    listener: OwnedFd,
    watch: Mutex<Option<Registration>>,
    /// Given up for a moment when there are no descriptors left, to turn a program away.
    spare: Mutex<Option<OwnedFd>>,
}

impl Control {
    pub(crate) fn begin(node: &Arc<Node>, listener: OwnedFd) -> io::Result<Arc<Control>> {
        nix::fcntl::fcntl(&listener, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
        let spare = Mutex::new(Some(listener.try_clone()?));
        let control =
            Arc::new(Control { node: Arc::downgrade(node), listener, watch: Mutex::default(), spare });
        let registration =
            Reactor::global().register(control.listener.as_fd(), Events::IN, control.clone())?;
        *control.watch.lock() = Some(registration);
        Ok(control)
    }
}

impl Source for Control {
    fn ready(&self, _: Events) {
        for _ in 0..BATCH {
            match accept4(self.listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
                Ok(fd) => Conversation::begin(self.node.clone(), sys::received(fd)),
                Err(Errno::EMFILE | Errno::ENFILE) => {
                    let mut spare = self.spare.lock();
                    if spare.take().is_some() {
                        drop(accept4(self.listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC).map(sys::received));
                    }
                    *spare = self.listener.try_clone().ok();
                    return;
                }
                Err(_) => return,
            }
        }
    }
}

/// A program's request, from its connection to the reply.
#[derive(Debug)]
pub(crate) struct Conversation {
    node: Weak<Node>,
    me: Weak<Conversation>,
    fd: OwnedFd,
    state: Mutex<Conversing>,
}

#[derive(Debug, Default)]
struct Conversing {
    /// The request has come.
    heard: bool,
    watch: Option<Registration>,
    /// Whose connection the program waits for.
    session: Option<Arc<Session>>,
    /// A message that the socket does not take yet.
    sending: Option<Sending>,
    /// A request about names that is under way.
    lookup: Option<Task>,
}

#[derive(Debug)]
struct Sending {
    session: Arc<Session>,
    payload: Vec<u8>,
    args: [i32; 4],
}

/// What came on the connection.
enum Heard {
    Request(Message),
    Nothing,
    End,
}

/// A request as it came, and the descriptor with it.
struct Message {
    bytes: Vec<u8>,
    user: Option<OwnedFd>,
}

/// What a request leads to.
enum Outcome {
    Reply(Reply, Vec<u8>, Option<OwnedFd>),
    /// The reply has been sent.
    Replied,
    Later,
}

impl From<Result<i32>> for Outcome {
    fn from(result: Result<i32>) -> Self {
        Outcome::with(result.map(|number| (number, Vec::new())))
    }
}

impl Outcome {
    fn with(result: Result<(i32, Vec<u8>)>) -> Self {
        match result {
            Ok((result, payload)) => Outcome::Reply(Reply { result, ..Reply::default() }, payload, None),
            Err(error) => Outcome::Reply(failed(error), Vec::new(), None),
        }
    }
}

fn failed(error: Errno) -> Reply {
    Reply { result: -(error as i32), ..Reply::default() }
}

impl Conversation {
    fn begin(node: Weak<Node>, fd: OwnedFd) {
        let conversation =
            Arc::new_cyclic(|me| Conversation { node, me: me.clone(), fd, state: Mutex::default() });
        match conversation.hear() {
            // As often as not. The program may have closed a socket just before, whose port it asks for now: the reactor
            // hears of what was closed until here before it comes to this job.
            Heard::Request(request) => Reactor::global().defer_round(Box::new(move || {
                if !conversation.attend(request) {
                    conversation.watch();
                }
            })),
            Heard::Nothing => conversation.watch(),
            Heard::End => {}
        }
    }

    /// Registered, it lives until it is answered or the program has gone.
    fn watch(self: &Arc<Self>) {
        let watch = Reactor::global().register(self.fd.as_fd(), Events::IN, self.clone());
        self.state.lock().watch = watch.ok();
    }

    fn hear(&self) -> Heard {
        let heard = with_scratch(|buffer| {
            let (len, user) = pair::receive_with(self.fd.as_fd(), &mut buffer[..REQUEST_ROOM])?;
            Ok(Message { bytes: buffer[..len].to_vec(), user })
        });
        match heard {
            Ok(message) if message.bytes.is_empty() => Heard::End,
            Ok(message) => {
                self.state.lock().heard = true;
                Heard::Request(message)
            }
            Err(Errno::EAGAIN) => Heard::Nothing,
            Err(_) => Heard::End,
        }
    }

    /// Does what is asked, and answers, if that can be. False when the answer is still to come.
    fn attend(self: &Arc<Self>, Message { bytes, user }: Message) -> bool {
        let Some(node) = self.node.upgrade() else { return true };
        let outcome = match Request::parse(&bytes) {
            Some((request, payload)) if request.token == node.token => {
                self.obey(&node, &request, payload, user)
            }
            // Somebody else's program, or another version of ours.
            Some(_) => Outcome::from(Err(Errno::EACCES)),
            None => Outcome::from(Err(Errno::EPROTO)),
        };
        match outcome {
            Outcome::Reply(reply, payload, fd) => {
                self.reply(&reply, &payload, fd);
                true
            }
            Outcome::Replied => true,
            Outcome::Later => false,
        }
    }

    fn reply(&self, reply: &Reply, payload: &[u8], fd: Option<OwnedFd>) {
        // Nobody is there to hear of an error.
        let _ = pair::put_with(self.fd.as_fd(), &[&reply.emit(), payload], fd.as_ref().map(|fd| fd.as_fd()));
        let watch = self.state.lock().watch.take();
        drop(watch);
    }

    /// Gives the answer that was put off.
    pub(crate) fn answer(&self, result: Result<i32>) {
        let reply = match result {
            Ok(result) => Reply { result, ..Reply::default() },
            Err(error) => failed(error),
        };
        let session = self.state.lock().session.take();
        self.reply(&reply, &[], None);
        drop(session);
    }

    /// Gives the answer that was put off, with a payload.
    pub(crate) fn answer_with(&self, reply: &Reply, payload: &[u8]) {
        self.reply(reply, payload, None);
    }

    fn obey(
        self: &Arc<Self>,
        node: &Arc<Node>,
        request: &Request,
        payload: &[u8],
        user: Option<OwnedFd>,
    ) -> Outcome {
        let args = request.args;
        match request.op {
            Op::Socket => {
                return match socket(node, args) {
                    Ok(user) => Outcome::Reply(Reply::default(), Vec::new(), Some(user)),
                    Err(error) => Outcome::from(Err(error)),
                };
            }
            Op::Lease => {
                return match node.grant() {
                    Ok(lease) => Outcome::Reply(Reply::default(), Vec::new(), Some(lease)),
                    Err(error) => Outcome::from(Err(error)),
                };
            }
            Op::Lookup | Op::HostByName | Op::HostByAddr | Op::NameInfo | Op::Resolve | Op::Exchange => {
                let task = node.desk.task(request, payload, self);
                if task.start() {
                    return Outcome::Replied;
                }
                self.state.lock().lookup = Some(task);
                return Outcome::Later;
            }
            Op::Interfaces => {
                return match interfaces::list(&node.stack, args[0]) {
                    Ok((reply, row)) => Outcome::Reply(reply, row, None),
                    Err(error) => Outcome::from(Err(error)),
                };
            }
            _ => {}
        }
        let Some(user) = user else { return Outcome::from(Err(Errno::EBADF)) };
        let Some(name) = pair::name_of(user.as_fd()) else { return Outcome::from(Err(Errno::ENOTSOCK)) };
        // What came before the request acts before it, which may be the session's end.
        if let Some(session) = node.find(&name) {
            session.turn();
        }
        match node.find(&name) {
            Some(session) => self.on_session(&session, request, payload, user),
            None => match node.remains(&name) {
                Some(remains) => {
                    // There was a connection: the pair has what is left of it.
                    pair::decide(user.as_fd(), State::Connected);
                    on_remains(&remains, request)
                }
                None => Outcome::from(Err(Errno::EBADF)),
            },
        }
    }

    fn on_session(
        self: &Arc<Self>,
        session: &Arc<Session>,
        request: &Request,
        payload: &[u8],
        user: OwnedFd,
    ) -> Outcome {
        let args = request.args;
        let nonblocking = request.flags & request_flags::NONBLOCK != 0;
        let addr = |payload| SockAddr::from_raw(payload);
        let raw = |addr: SockAddr| (0, addr.to_raw().to_vec());
        session.tell_outcome(user.as_fd());
        match request.op {
            Op::Bind => Outcome::from(addr(payload).and_then(|addr| session.socket.bind(&addr)).map(|()| 0)),
            Op::Listen => Outcome::from(session.listen(user.as_fd(), args[0]).map(|()| 0)),
            Op::Connect => {
                let addr = match addr(payload) {
                    Ok(addr) => addr,
                    Err(error) => return Outcome::from(Err(error)),
                };
                self.state.lock().session = Some(session.clone());
                match session.connect(user, &addr, nonblocking, self) {
                    Connect::Done(result) => {
                        self.state.lock().session = None;
                        Outcome::from(result.map(|()| 0))
                    }
                    Connect::Later => Outcome::Later,
                }
            }
            Op::LocalAddr => Outcome::with(session.socket.local_addr().map(raw)),
            Op::PeerAddr => Outcome::with(session.socket.peer_addr().map(raw)),
            Op::GetOption => {
                let mut value = payload.to_vec();
                value.resize(usize::try_from(args[2]).unwrap_or(0).min(OPTION_MAX), 0);
                Outcome::with(session.option(args[0], args[1], &mut value).map(|len| {
                    value.truncate(len);
                    (len as i32, value)
                }))
            }
            Op::SetOption => {
                Outcome::from(session.set_option(user.as_fd(), args[0], args[1], payload).map(|()| 0))
            }
            Op::Shutdown => match Shutdown::from_raw(args[0]).and_then(|how| session.shutdown(how)) {
                Ok(native) => {
                    let flags = if native { reply_flags::NATIVE } else { 0 };
                    Outcome::Reply(Reply { flags, ..Reply::default() }, Vec::new(), None)
                }
                Err(error) => Outcome::from(Err(error)),
            },
            Op::Send => match send(session, args, payload) {
                Err(Errno::EAGAIN) if !nonblocking => {
                    let sending = Sending { session: session.clone(), payload: payload.to_vec(), args };
                    self.state.lock().sending = Some(sending);
                    self.send_again();
                    Outcome::Later
                }
                result => Outcome::from(result.map(|len| len as i32)),
            },
            Op::Ioctl => {
                let request = u64::from(args[0] as u32) | u64::from(args[1] as u32) << 32;
                let mut argument = payload.to_vec();
                Outcome::with(session.socket.ioctl(request, &mut argument).map(|result| (result, argument)))
            }
            Op::Errors => Outcome::with(session.kept_error().map(|message| (0, message))),
            Op::Waiting => {
                let mut count = 0i32.to_ne_bytes();
                let request = if args[0] == 0 { libc::FIONREAD } else { libc::TIOCOUTQ };
                let result = session.socket.ioctl(request, &mut count);
                Outcome::from(result.map(|_| i32::from_ne_bytes(count)))
            }
            // Not about a socket.
            _ => Outcome::from(Err(Errno::EPROTO)),
        }
    }

    /// Goes on with a message that waits for room.
    fn send_again(self: &Arc<Self>) {
        loop {
            let mut state = self.state.lock();
            let Some(sending) = &state.sending else { return };
            match send(&sending.session, sending.args, &sending.payload) {
                Err(Errno::EAGAIN) => {
                    let waker = Waker::from(Arc::new(Retry(Arc::downgrade(self))));
                    if !sending.session.is_writable(&waker) {
                        return;
                    }
                }
                result => {
                    state.sending = None;
                    drop(state);
                    return self.answer(result.map(|len| len as i32));
                }
            }
        }
    }
}

impl Source for Conversation {
    fn ready(&self, _: Events) {
        let Some(me) = self.me.upgrade() else { return };
        let heard = self.state.lock().heard;
        if !heard {
            match self.hear() {
                Heard::Nothing => return,
                // Put off for the same reason as one that comes with its connection.
                Heard::Request(request) => {
                    let watch = self.state.lock().watch.take();
                    Reactor::global().defer_round(Box::new(move || {
                        if !me.attend(request) {
                            me.watch();
                        }
                    }));
                    drop(watch);
                    return;
                }
                Heard::End => {}
            }
        }
        // Answered; or the program does not wait any more, for there is but one request in a conversation.
        let mut state = self.state.lock();
        let over = (state.watch.take(), state.sending.take(), state.lookup.take(), state.session.take());
        drop(state);
        if let (.., Some(session)) = &over {
            session.deserted(self);
        }
    }
}

/// Goes on with a message when its socket has room.
struct Retry(Weak<Conversation>);

impl Wake for Retry {
    fn wake(self: Arc<Self>) {
        let conversation = self.0.clone();
        // Not here: whoever wakes has other things to do.
        Reactor::global().defer(Box::new(move || {
            if let Some(conversation) = conversation.upgrade() {
                conversation.send_again();
            }
        }));
    }
}

fn socket(node: &Arc<Node>, [domain, kind, protocol, _]: [i32; 4]) -> Result<OwnedFd> {
    let socket: Arc<dyn Socket> = match (domain, protocol) {
        (libc::AF_NETLINK, libc::NETLINK_SOCK_DIAG) if [libc::SOCK_RAW, libc::SOCK_DGRAM].contains(&kind) => {
            Arc::new(Diag::new(node))
        }
        _ => node.socket(domain, kind, protocol)?,
    };
    let mut value = [0; 4];
    let spoken = socket.option(libc::SOL_SOCKET, libc::SO_PROTOCOL, &mut value);
    let protocol = spoken.map_or(protocol, |_| i32::from_ne_bytes(value));
    let (_, user) = Session::begin(node, socket, node.name(domain, kind, protocol))?;
    Ok(user)
}

fn send(session: &Session, [flags, addr_len, control_len, _]: [i32; 4], payload: &[u8]) -> Result<usize> {
    let length = |len| usize::try_from(len).map_err(|_| Errno::EINVAL);
    let (addr, rest) = payload.split_at_checked(length(addr_len)?).ok_or(Errno::EINVAL)?;
    let (control, data) = rest.split_at_checked(length(control_len)?).ok_or(Errno::EINVAL)?;
    let addr = if addr.is_empty() { None } else { Some(SockAddr::from_raw(addr)?) };
    let data = [io::IoSlice::new(data)];
    let message = SendMsg { data: &data, addr: addr.as_ref(), control };
    session.send(&message, MsgFlags::from_bits_retain(flags))
}

/// What a socket that is over says: what Linux's says when its connection has ended.
fn on_remains(remains: &Remains, request: &Request) -> Outcome {
    let args = request.args;
    match request.op {
        Op::LocalAddr => Outcome::with(match remains.local {
            Some(addr) => Ok((0, addr.to_raw().to_vec())),
            None => Err(Errno::EBADF),
        }),
        Op::PeerAddr | Op::Shutdown => Outcome::from(Err(Errno::ENOTCONN)),
        Op::GetOption if (args[0], args[1]) == (libc::SOL_SOCKET, libc::SO_ERROR) => {
            let error = remains.error.map_or(0, |error| error as i32).to_ne_bytes();
            Outcome::with(Ok((error.len() as i32, error.to_vec())))
        }
        Op::GetOption => {
            let value = remains.options.as_ref().and_then(|options| options.value(args[0], args[1]));
            Outcome::with(value.map(|value| (4, value.to_ne_bytes().to_vec())).ok_or(Errno::EINVAL))
        }
        Op::SetOption | Op::Waiting => Outcome::from(Ok(0)),
        Op::Connect => Outcome::from(Err(Errno::EISCONN)),
        Op::Send => Outcome::from(Err(Errno::EPIPE)),
        _ => Outcome::from(Err(Errno::EINVAL)),
    }
}
