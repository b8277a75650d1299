//! Sockets of the user-space stack: waiting, time-outs and descriptors around the engine's calls.

mod stream;

use std::io::IoSlice;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use ioth_core::fork::Owned;
use ioth_core::reactor::Reactor;
use ioth_core::{
    Errno, Events, Mmsg, MsgFlags, Readiness, RecvMsg, Result, SendMsg, Shutdown, SockAddr, Socket,
    SocketType, recv_each, send_each,
};
use ioth_vde::Schemes;

use crate::driver::{CLOSED, Node};
use crate::engine::{Engine, SocketId};
use crate::netlink;

/// A socket of a [`Smoltcp`](crate::Smoltcp) stack.
#[derive(Debug)]
pub(crate) struct NodeSocket {
    /// Looked at before anything else: in a forked child the node is another process's.
    handle: Owned<Arc<Handle>>,
    stream: bool,
    /// Of a netlink socket: what opens the links of new interfaces.
    schemes: Option<Schemes>,
    nonblocking: AtomicBool,
    /// SO_RCVTIMEO and SO_SNDTIMEO in microseconds; 0 waits for ever, [`NO_TIME`] not at all.
    receive_timeout: AtomicU64,
    send_timeout: AtomicU64,
    /// SO_RCVLOWAT of a stream.
    receive_low: AtomicUsize,
    /// The descriptor was made: the socket lives as long as that does.
    released: AtomicBool,
}

/// What keeps a socket in its node.
#[derive(Debug)]
struct Handle {
    node: Arc<Node>,
    id: SocketId,
    readiness: Arc<Readiness>,
    /// The thread that closes the last duplicate of the descriptor by a call of ours: it may wait for SO_LINGER's time.
    closing: parking_lot::Mutex<Option<ThreadId>>,
    /// SO_LINGER was set, by whomever.
    lingers: AtomicBool,
}

impl Handle {
    /// The descriptor's last duplicate is closed. Nobody waits in the reactor's thread.
    fn closed(&self) {
        if *self.closing.lock() == Some(std::thread::current().id()) { self.close() } else { self.end() }
    }

    /// close(2), which waits where SO_LINGER says so; not in the reactor's thread, which brings the acknowledgements.
    fn close(&self) {
        if Reactor::is_current_thread() || !self.lingers.load(Ordering::Relaxed) {
            return self.end();
        }
        let begun =
            self.node.call_socket(self.id, &self.readiness, |engine| Ok(engine.begin_lingering(self.id)));
        if let Ok(Some(seconds)) = begun {
            let deadline = Instant::now().checked_add(Duration::from_secs(u64::from(seconds)));
            // A signal ends that wait, too; the socket is closed in any case.
            let _ = self.node.wait(&self.readiness, Events::HUP, deadline);
        }
        self.end();
    }

    fn end(&self) {
        self.node.close(self.id, &self.readiness);
    }
}

impl NodeSocket {
    pub(crate) fn new(node: Arc<Node>, id: SocketId, readiness: Arc<Readiness>, kind: SocketType) -> Self {
        NodeSocket {
            handle: Owned::new(Arc::new(Handle {
                node,
                id,
                readiness,
                closing: parking_lot::Mutex::new(None),
                lingers: AtomicBool::new(false),
            })),
            stream: kind == SocketType::STREAM,
            schemes: None,
            nonblocking: AtomicBool::new(false),
            receive_timeout: AtomicU64::new(0),
            send_timeout: AtomicU64::new(0),
            receive_low: AtomicUsize::new(1),
            released: AtomicBool::new(false),
        }
    }

    /// A netlink socket, whose new interfaces have links of these schemes.
    pub(crate) fn with_schemes(mut self, schemes: Schemes) -> Self {
        self.schemes = Some(schemes);
        self
    }

    /// # Errors
    /// `ENODEV` in a forked child.
    fn handle(&self) -> Result<&Handle> {
        self.handle.check()?;
        Ok(&self.handle)
    }

    fn call<R>(&self, f: impl FnOnce(&mut Engine, SocketId) -> Result<R>) -> Result<R> {
        let Handle { node, id, readiness, .. } = self.handle()?;
        node.call_socket(*id, readiness, |engine| f(engine, *id))
    }

    /// Repeats a call that must not wait until it does not fail with `EAGAIN`, waiting in between if it may.
    fn repeat<R>(&self, wait: Option<&Wait<'_>>, mut f: impl FnMut() -> Result<R>) -> Result<R> {
        loop {
            match (f(), wait) {
                (Err(Errno::EAGAIN), Some(wait)) => {
                    if !self.handle.node.wait(&self.handle.readiness, wait.interest, wait.deadline())? {
                        return Err(Errno::EAGAIN);
                    }
                }
                (result, _) => return result,
            }
        }
    }

    fn may_wait(&self, flags: MsgFlags) -> bool {
        // Linux: nobody waits for an error.
        !self.nonblocking.load(Ordering::Relaxed)
            && !flags.intersects(MsgFlags::DONTWAIT | MsgFlags::ERRQUEUE)
    }

    /// The flags with `MSG_DONTWAIT` where the socket is what does not wait.
    fn told(&self, flags: MsgFlags) -> MsgFlags {
        if self.may_wait(flags) { flags } else { flags | MsgFlags::DONTWAIT }
    }

    fn reading(&self) -> Wait<'_> {
        Wait::new(Events::IN | Events::RDHUP, &self.receive_timeout)
    }

    fn writing(&self) -> Wait<'_> {
        Wait::new(Events::OUT, &self.send_timeout)
    }

    /// What is sent to netlink, which never waits: a message at a time where there are several, as each may make an interface.
    fn send_requests(&self, schemes: &Schemes, message: &SendMsg<'_>, flags: MsgFlags) -> Result<usize> {
        let Handle { node, id, readiness, .. } = self.handle()?;
        if message.len() > netlink::MAX_REQUEST {
            return Err(Errno::EMSGSIZE);
        }
        let bytes: Vec<u8> = message.data.iter().flat_map(|slice| slice.iter().copied()).collect();
        let (mut first, mut rest) = netlink::split_first(&bytes);
        loop {
            let data = [IoSlice::new(first)];
            let part = SendMsg { data: &data, ..*message };
            node.request(*id, readiness, schemes, first, |engine| engine.send(*id, &part, flags))?;
            if rest.is_empty() {
                return Ok(bytes.len());
            }
            (first, rest) = netlink::split_first(rest);
        }
    }
}

fn is_unbound(engine: &Engine, id: SocketId) -> bool {
    matches!(engine.local_addr(id), Ok(SockAddr::Ip(addr)) if addr.port() == 0)
}

impl Socket for NodeSocket {
    fn bind(&self, addr: &SockAddr) -> Result<()> {
        self.call(|engine, id| engine.bind(id, addr))
    }

    fn connect(&self, addr: &SockAddr) -> Result<()> {
        let begun = match self.call(|engine, id| engine.connect(id, addr)) {
            // connect(2) on a blocking socket joins an attempt that is under way.
            Err(error @ (Errno::EINPROGRESS | Errno::EALREADY)) if self.may_wait(MsgFlags::empty()) => error,
            result => return result,
        };
        let wait = self.writing();
        let Handle { node, readiness, .. } = self.handle()?;
        if !node.wait(readiness, wait.interest, wait.deadline())? {
            // socket(7): "if no data has been transferred and the timeout has been reached, then [...] EINPROGRESS".
            return Err(begun);
        }
        self.call(Engine::connect_result)
    }

    fn listen(&self, backlog: i32) -> Result<()> {
        self.call(|engine, id| engine.listen(id, backlog))
    }

    fn accept(&self) -> Result<(Arc<dyn Socket>, SockAddr)> {
        let Handle { node, id, readiness, .. } = self.handle()?;
        // A listener that another thread shuts down is a fresh socket again, which shows OUT.
        let wait = Wait::new(Events::IN | Events::RDHUP | Events::OUT, &self.receive_timeout);
        let wait = self.may_wait(MsgFlags::empty()).then_some(&wait);
        let (child, child_readiness, peer) = self.repeat(wait, || node.accept(*id, readiness))?;
        let socket = NodeSocket::new(node.clone(), child, child_readiness, SocketType::STREAM);
        // Linux: an accepted socket has its listener's options, but not its O_NONBLOCK.
        for (own, inherited) in
            [(&socket.receive_timeout, &self.receive_timeout), (&socket.send_timeout, &self.send_timeout)]
        {
            own.store(inherited.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        socket.handle.lingers.store(self.handle.lingers.load(Ordering::Relaxed), Ordering::Relaxed);
        socket.receive_low.store(self.receive_low.load(Ordering::Relaxed), Ordering::Relaxed);
        Ok((Arc::new(socket), peer))
    }

    fn local_addr(&self) -> Result<SockAddr> {
        self.call(|engine, id| engine.local_addr(id))
    }

    fn peer_addr(&self) -> Result<SockAddr> {
        self.call(|engine, id| engine.peer_addr(id))
    }

    fn send(&self, message: &SendMsg<'_>, flags: MsgFlags) -> Result<usize> {
        if let Some(schemes) = &self.schemes {
            return self.send_requests(schemes, message, flags);
        }
        if !self.may_wait(flags) {
            return self.call(|engine, id| engine.send(id, message, flags));
        }
        // The usual case first: everything fits at once.
        match self.call(|engine, id| engine.send(id, message, flags)) {
            Ok(n) if !self.stream || n == message.len() => Ok(n),
            Err(error) if error != Errno::EAGAIN => Err(error),
            first if self.stream => self.send_all(message, flags, first.unwrap_or(0)),
            _ => {
                let wait = self.writing();
                self.repeat(Some(&wait), || {
                    self.call(|engine, id| match engine.send(id, message, flags) {
                        // Linux: without a free port a datagram socket fails so, and does not wait for one.
                        Err(Errno::EAGAIN) if is_unbound(engine, id) => Ok(Err(Errno::EAGAIN)),
                        sent => sent.map(Ok),
                    })
                })?
            }
        }
    }

    fn recv(&self, message: &mut RecvMsg<'_, '_>, flags: MsgFlags) -> Result<usize> {
        let waiting = self.may_wait(flags);
        if waiting && self.stream {
            let low = self.receive_low.load(Ordering::Relaxed);
            let capacity = message.capacity();
            match flags.contains(MsgFlags::WAITALL) {
                true if capacity > 1 => return self.recv_all(message, flags),
                false if low > 1 && capacity > 1 => {
                    return self.recv_wanted(message, flags, low.min(capacity));
                }
                _ => {}
            }
        }
        let wait = self.reading();
        let flags = self.told(flags);
        self.repeat(waiting.then_some(&wait), || self.call(|engine, id| engine.recv(id, message, flags)))
    }

    fn send_many(&self, messages: &mut [Mmsg<SendMsg<'_>>], flags: MsgFlags) -> Result<usize> {
        let mut sent = 0;
        loop {
            // A waiting send of a stream goes on in the middle of a message, one to netlink may open links.
            let (more, error) = match self.stream || self.schemes.is_some() {
                true => send_each(&mut messages[sent..], |message| self.send(message, flags)),
                // As many as the links take, under one lock.
                false => self.call(|engine, id| {
                    Ok(send_each(&mut messages[sent..], |message| engine.send(id, message, flags)))
                })?,
            };
            sent += more;
            match error {
                Some(Errno::EAGAIN) if !self.stream && self.may_wait(flags) => {}
                Some(error) if sent == 0 => return Err(error),
                _ => return Ok(sent),
            }
            let next = &mut messages[sent];
            match self.send(&next.message, flags) {
                Ok(len) => next.len = len,
                Err(error) if sent == 0 => return Err(error),
                Err(_) => return Ok(sent),
            }
            sent += 1;
        }
    }

    fn recv_many(
        &self,
        messages: &mut [Mmsg<RecvMsg<'_, '_>>],
        flags: MsgFlags,
        mut timeout: Option<&mut Duration>,
    ) -> Result<usize> {
        if !flags.contains(MsgFlags::ERRQUEUE) {
            // do_recvmmsg() has a pending error come first, also when there is nothing to receive into.
            self.call(|engine, id| engine.take_error(id).map_or(Ok(()), Err))?;
        }
        let fills = self.stream && flags.contains(MsgFlags::WAITALL);
        let flags = self.told(flags);
        let mut received = 0;
        loop {
            let rest = &mut messages[received..];
            let (more, error) = match fills {
                true => {
                    recv_each(rest, flags, timeout.as_deref_mut(), |message, flags| self.recv(message, flags))
                }
                // What is there already, under one lock.
                false => self.call(|engine, id| {
                    Ok(recv_each(rest, flags, timeout.as_deref_mut(), |message, flags| {
                        engine.recv(id, message, flags)
                    }))
                })?,
            };
            received += more;
            let waits =
                !fills && self.may_wait(flags) && !(received > 0 && flags.contains(MsgFlags::WAITFORONE));
            let error = match error {
                None => return Ok(received),
                Some(Errno::EAGAIN) if waits => {
                    let next = &mut messages[received..=received];
                    let (one, error) = recv_each(next, flags, timeout.as_deref_mut(), |message, flags| {
                        self.recv(message, flags)
                    });
                    received += one;
                    match error {
                        Some(error) => error,
                        None if timeout.as_ref().is_some_and(|timeout| timeout.is_zero()) => {
                            return Ok(received);
                        }
                        None => continue,
                    }
                }
                Some(error) => error,
            };
            if received == 0 {
                return Err(error);
            }
            // do_recvmmsg(): "we record the error to return on the next call".
            if ![Errno::EAGAIN, Errno::EINTR].contains(&error) {
                let _ = self.call(|engine, id| engine.put_error(id, error));
            }
            return Ok(received);
        }
    }

    fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<()> {
        self.handle()?;
        if let Some(timeout) = self.timeout(level, name) {
            timeout.store(timeval_micros(value)?, Ordering::Relaxed);
            return Ok(());
        }
        self.call(|engine, id| {
            engine.set_option(id, level, name, value)?;
            if (level, name) == (libc::SOL_SOCKET, libc::SO_LINGER) {
                self.handle.lingers.store(true, Ordering::Relaxed);
            }
            if (level, name) == (libc::SOL_SOCKET, libc::SO_RCVLOWAT) {
                let mut low = [0; 4];
                engine.option(id, level, name, &mut low)?;
                self.receive_low.store(u32::from_ne_bytes(low) as usize, Ordering::Relaxed);
            }
            Ok(())
        })
    }

    fn option(&self, level: i32, name: i32, value: &mut [u8]) -> Result<usize> {
        self.handle()?;
        if let Some(timeout) = self.timeout(level, name) {
            let micros = match timeout.load(Ordering::Relaxed) {
                // Linux tells no time and no bound alike.
                NO_TIME => 0,
                micros => micros,
            };
            let mut timeval = [0; 16];
            timeval[..8].copy_from_slice(&(micros / 1_000_000).to_ne_bytes());
            timeval[8..].copy_from_slice(&(micros % 1_000_000).to_ne_bytes());
            let n = value.len().min(timeval.len());
            value[..n].copy_from_slice(&timeval[..n]);
            return Ok(n);
        }
        self.call(|engine, id| engine.option(id, level, name, value))
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        self.call(|engine, id| engine.shutdown(id, how))
    }

    fn ioctl(&self, request: u64, argument: &mut [u8]) -> Result<i32> {
        if request == libc::FIONBIO {
            let on = argument.get(..4).ok_or(Errno::EFAULT)?.iter().any(|byte| *byte != 0);
            self.set_nonblocking(on)?;
            return Ok(0);
        }
        if Engine::tells_time(request) {
            self.call(|engine, _| {
                engine.want_wall_clock();
                Ok(())
            })?;
        }
        self.call(|engine, id| engine.ioctl(id, request, argument))
    }

    fn set_nonblocking(&self, nonblocking: bool) -> Result<()> {
        self.handle()?;
        self.nonblocking.store(nonblocking, Ordering::Relaxed);
        Ok(())
    }

    fn events(&self) -> Events {
        self.handle().map_or(CLOSED, |handle| handle.readiness.events())
    }

    fn poll_ready(&self, interest: Events, waker: &Waker) -> Poll<Events> {
        match self.handle() {
            Ok(handle) => handle.readiness.poll_ready(interest, waker),
            // The next call has the error.
            Err(_) => Poll::Ready(CLOSED),
        }
    }

    fn release_fd(&self) -> Result<OwnedFd> {
        self.handle()?;
        let handle = Arc::clone(&self.handle);
        let fd = self.handle.readiness.make_signal_fd(Box::new(move || handle.closed()))?;
        self.released.store(true, Ordering::Release);
        Ok(fd)
    }

    fn settle(&self, fd: BorrowedFd<'_>) {
        if let Ok(handle) = self.handle() {
            handle.readiness.settle(fd);
        }
    }

    fn fd_closed(&self) {
        if let Ok(handle) = self.handle() {
            *handle.closing.lock() = Some(std::thread::current().id());
            handle.readiness.check_closed();
            *handle.closing.lock() = None;
        }
    }

    fn close(&self) -> Result<()> {
        self.handle()?.close();
        Ok(())
    }
}

impl NodeSocket {
    fn timeout(&self, level: i32, name: i32) -> Option<&AtomicU64> {
        match (level, name) {
            (libc::SOL_SOCKET, libc::SO_RCVTIMEO | SO_RCVTIMEO_NEW) => Some(&self.receive_timeout),
            (libc::SOL_SOCKET, libc::SO_SNDTIMEO | SO_SNDTIMEO_NEW) => Some(&self.send_timeout),
            _ => None,
        }
    }
}

impl Drop for NodeSocket {
    fn drop(&mut self) {
        if let Ok(handle) = self.handle()
            && !self.released.load(Ordering::Acquire)
        {
            handle.close();
        }
    }
}

/// What a call waits for, and how long.
struct Wait<'a> {
    interest: Events,
    timeout: &'a AtomicU64,
    started: std::cell::OnceCell<Instant>,
}

impl<'a> Wait<'a> {
    fn new(interest: Events, timeout: &'a AtomicU64) -> Self {
        Wait { interest, timeout, started: std::cell::OnceCell::new() }
    }

    /// Counted from the first time that it is asked for: a call that does not wait reads no clock.
    fn deadline(&self) -> Option<Instant> {
        match self.timeout.load(Ordering::Relaxed) {
            0 => None,
            NO_TIME => Some(*self.started.get_or_init(Instant::now)),
            micros => self.started.get_or_init(Instant::now).checked_add(Duration::from_micros(micros)),
        }
    }
}

/// Since Linux 5.1, the same with 64-bit seconds on every machine.
const SO_RCVTIMEO_NEW: i32 = 66;
const SO_SNDTIMEO_NEW: i32 = 67;

/// A time-out of no time at all, which is what Linux makes of a negative one.
const NO_TIME: u64 = u64::MAX;

/// A `struct timeval`, as socket(7)'s time-outs take it: Linux's sock_set_timeout().
fn timeval_micros(value: &[u8]) -> Result<u64> {
    let word = |at: usize| -> Result<i64> {
        let bytes = value.get(at..at + 8).ok_or(Errno::EINVAL)?;
        Ok(i64::from_ne_bytes(bytes.try_into().map_err(|_| Errno::EINVAL)?))
    };
    let (seconds, micros) = (word(0)?, word(8)?);
    if !(0..1_000_000).contains(&micros) {
        return Err(Errno::EDOM);
    }
    let Ok(seconds) = u64::try_from(seconds) else { return Ok(NO_TIME) };
    let total = seconds.checked_mul(1_000_000).and_then(|total| total.checked_add(micros as u64));
    // One that no clock can tell is for ever.
    Ok(total.filter(|total| *total != NO_TIME).unwrap_or(0))
}
