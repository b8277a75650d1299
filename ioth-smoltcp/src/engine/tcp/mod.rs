//! TCP around smoltcp: demultiplexer, listeners with a real backlog, life and death of connections.
//!
//! Every connection is a smoltcp socket in a set of its own ([`Conn`]), found by its hashed 4-tuple and pumped only
//! when something happened to it, so that the cost of a packet does not grow with their number.
//!
//! Read first: RFC 9293 §3.10 (event processing), RFC 4987 (SYN floods), tcp(7).

mod conn;
mod context;
mod input;
mod recovery;
mod timewait;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ioth_core::{Domain, Errno, Events, Result};
use ioth_vde::Frame;
use smoltcp::socket::tcp::State;
use smoltcp::time::{Duration, Instant};

use super::ports::{Binding, Space};
use super::sockets::{Kind, Options};
use super::{Engine, SocketId};
use conn::{Conn, KeepAlive, Stage, Tuple};
pub(crate) use conn::{receive_buffer, send_buffer};
use context::Contexts;
use timewait::TimeWait;

/// Linux's net.core.somaxconn.
const MAX_BACKLOG: usize = 4096;
/// Connections of a listener whose handshake is under way; beyond, a random one goes (RFC 4987 §3.4).
const MAX_EMBRYOS: usize = 512;
/// Segments that may wait for room in a listener's queue, and for how long: then their senders repeat them.
const MAX_PARKED: usize = 256;
const PARKING_TIME: Duration = Duration::from_secs(1);
/// Ports that are looked at for one without a connection in TIME_WAIT, before one with is taken: when a program opens
/// thousands of connections a second to one server, all of them have one.
const FRESH_TRIES: usize = 32;
/// Packets that a connection may send before others have their turn.
const PUMP_ROOM: usize = 32;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Tcp {
    connections: HashMap<Tuple, SocketId, FixedState>,
    time_wait: TimeWait,
    contexts: Contexts,
    out: Vec<Frame>,
}

impl Tcp {
    pub(crate) fn new(seed: u64) -> Self {
        Tcp {
            connections: HashMap::with_hasher(FixedState::with_seed(seed)),
            time_wait: TimeWait::new(seed),
            contexts: Contexts::default(),
            out: Vec::new(),
        }
    }
}

/// A stream socket.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    role: Role,
    /// The address that bind(2) or listen(2) gave it.
    bound: Option<SocketAddr>,
    /// The local port that connect(2) chose.
    chosen: Option<u16>,
    shut_read: bool,
    shut_write: bool,
}

#[derive(Debug, Default)]
enum Role {
    #[default]
    Idle,
    Listener(Listener),
    Connection(Box<Conn>),
}

#[derive(Debug)]
struct Listener {
    backlog: usize,
    /// Established, waiting for accept(2), oldest first.
    ready: VecDeque<SocketId>,
    /// In SYN-RECEIVED.
    embryos: Vec<SocketId>,
    /// Packets that came while `ready` was full, with their time and interface.
    parked: VecDeque<(Instant, u32, Frame)>,
}

impl Stream {
    fn conn(&self) -> Option<&Conn> {
        match &self.role {
            Role::Connection(conn) => Some(conn),
            _ => None,
        }
    }

    fn conn_mut(&mut self) -> Option<&mut Conn> {
        match &mut self.role {
            Role::Connection(conn) => Some(conn),
            _ => None,
        }
    }

    /// The poll bits, as Linux's tcp_poll() has them, without a pending error.
    pub(crate) fn events(&self) -> Events {
        match &self.role {
            // Linux adds HUP for a socket that was never connected. A signal fd can't take HUP back, so it is left out.
            Role::Idle => Events::OUT,
            Role::Listener(listener) if listener.ready.is_empty() => Events::empty(),
            Role::Listener(_) => Events::IN,
            Role::Connection(conn) => conn.events(self.shut_read, self.shut_write),
        }
    }

    pub(crate) fn listening(&self) -> bool {
        matches!(self.role, Role::Listener(_))
    }

    /// Bytes received and not read: FIONREAD.
    pub(crate) fn received(&self) -> usize {
        self.conn().map_or(0, Conn::received)
    }

    /// Bytes given and not acknowledged: SIOCOUTQ.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.conn().map_or(0, Conn::unacknowledged)
    }

    /// TCP_MAXSEG of a connection, Linux's default of a fresh socket.
    pub(crate) fn mss(&self) -> usize {
        self.conn().map_or(536, Conn::mss)
    }

    /// Brings a connection in line with the socket's options.
    pub(crate) fn apply(&mut self, options: &Options) {
        if let Some(conn) = self.conn_mut() {
            conn.send_limit = options.send_buffer;
            conn.set_nagle(!options.no_delay);
            let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
            conn.set_keep_alive(options.keep_alive.then_some(KeepAlive {
                idle: seconds(options.keep_idle),
                interval: seconds(options.keep_interval),
                count: options.keep_count,
            }));
            conn.set_hop_limit(options.hop_limit(conn.tuple.remote_ip.is_ipv4()));
        }
    }
}

impl Engine {
    pub(super) fn tcp_bind(&mut self, id: SocketId, addr: SocketAddr) -> Result<()> {
        let sock = &self.sockets[id.0];
        let Kind::Stream(stream) = &sock.kind else { return Err(Errno::EINVAL) };
        if stream.bound.is_some() || !matches!(stream.role, Role::Idle) {
            return Err(Errno::EINVAL);
        }
        let port = self.bind_port(Space::Tcp, id, addr)?;
        let Kind::Stream(stream) = &mut self.sockets[id.0].kind else { return Err(Errno::EINVAL) };
        stream.bound = Some(SocketAddr::new(addr.ip(), port));
        Ok(())
    }

    pub(super) fn tcp_listen(&mut self, id: SocketId, backlog: i32) -> Result<()> {
        // listen(2): "if the backlog argument is greater than [somaxconn], it is silently capped".
        let backlog = usize::try_from(backlog).unwrap_or(MAX_BACKLOG).min(MAX_BACKLOG);
        let unbound = match &mut self.stream_mut(id)?.role {
            Role::Listener(listener) => {
                listener.backlog = backlog;
                return Ok(());
            }
            Role::Connection(_) => return Err(Errno::EINVAL),
            Role::Idle => self.stream_mut(id)?.bound.is_none(),
        };
        if unbound {
            let any = self.sockets[id.0].wildcard();
            self.tcp_bind(id, SocketAddr::new(any, 0))?;
        }
        let Some(bound) = self.stream_mut(id)?.bound else { return Err(Errno::EINVAL) };
        if !self.ports.listen(bound.port(), id) {
            return Err(Errno::EADDRINUSE);
        }
        self.stream_mut(id)?.role = Role::Listener(Listener {
            backlog,
            ready: VecDeque::new(),
            embryos: Vec::new(),
            parked: VecDeque::new(),
        });
        self.touch(id);
        Ok(())
    }

    pub(super) fn tcp_accept(&mut self, id: SocketId) -> Result<(SocketId, SocketAddr)> {
        let Role::Listener(listener) = &mut self.stream_mut(id)?.role else { return Err(Errno::EINVAL) };
        let child = listener.ready.pop_front().ok_or(Errno::EAGAIN)?;
        self.touch(id);
        let conn = self.stream_mut(child)?.conn_mut().ok_or(Errno::EINVAL)?;
        conn.parent = None;
        let remote = conn.tuple.remote();
        self.touch(child);
        self.unpark(id);
        Ok((child, remote))
    }

    /// Connections that wait for accept(2): ss(8)'s Recv-Q of a listener. `None` for another socket.
    pub fn accept_queue(&self, id: SocketId) -> Option<usize> {
        match &self.sockets.get(id.0)?.kind {
            Kind::Stream(Stream { role: Role::Listener(listener), .. }) => Some(listener.ready.len()),
            _ => None,
        }
    }

    /// Whether a closed stream still has data or its FIN to deliver.
    pub fn has_undelivered(&self) -> bool {
        self.sockets.iter().any(|(_, sock)| match &sock.kind {
            Kind::Stream(stream) => stream.conn().is_some_and(Conn::is_delivering),
            _ => false,
        })
    }

    /// Begins a connection; `EINPROGRESS` is success so far.
    pub(super) fn tcp_connect(&mut self, id: SocketId, remote: SocketAddr) -> Result<()> {
        let stage = match &self.stream_mut(id)?.role {
            Role::Idle => None,
            Role::Listener(_) => return Err(Errno::EISCONN),
            Role::Connection(conn) => Some((conn.stage, conn.state())),
        };
        match stage {
            None => {}
            Some((Stage::Opening, _)) => return Err(Errno::EALREADY),
            Some((Stage::Done, _)) if !self.sockets[id.0].was_connected => {
                // connect(2) reports a failed attempt once, and then tries again.
                self.reset_stream(id);
                if let Some(error) = self.sockets[id.0].error.take() {
                    self.touch(id);
                    return Err(error);
                }
            }
            Some(_) => return Err(Errno::EISCONN),
        }
        if remote.ip().is_multicast() || remote.ip() == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return Err(Errno::ENETUNREACH);
        }
        // Linux: the unspecified address means this host.
        let remote_ip = match remote.ip() {
            IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            other => other,
        };
        let scope = self.scope_of(id, remote)?;
        let remote = SocketAddr::new(remote_ip, remote.port());
        if remote.port() == 0 {
            return Err(Errno::ECONNREFUSED);
        }
        let bound = self.stream_mut(id)?.bound;
        let source = bound.map(|addr| addr.ip()).filter(|ip| !ip.is_unspecified());
        if source.is_some_and(|ip| ip.is_ipv4() != remote_ip.is_ipv4()) {
            return Err(Errno::EINVAL);
        }
        let path = self.net.tables.route(remote_ip, scope, source).map_err(|error| error.to_errno())?;
        let local_ip = source.unwrap_or(path.source);
        let (local, chosen) = match bound {
            Some(bound) => (SocketAddr::new(local_ip, bound.port()), None),
            None => {
                let port = self.choose_port(local_ip, remote)?;
                (SocketAddr::new(local_ip, port), Some(port))
            }
        };
        let tuple = Tuple::new(local, remote);
        if self.tcp.connections.contains_key(&tuple) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        let sequence = self.initial_sequence(&tuple);
        let Some(mut conn) = Conn::connect(&self.net, tuple, path, sequence) else {
            if let Some(port) = chosen {
                self.ports.release(port);
            }
            return Err(Errno::ENOBUFS);
        };
        conn.scope = scope;
        self.tcp.connections.insert(tuple, id);
        let sock = &mut self.sockets[id.0];
        let options = sock.options;
        if let Kind::Stream(stream) = &mut sock.kind {
            stream.chosen = chosen;
            stream.role = Role::Connection(Box::new(conn));
            stream.apply(&options);
        }
        self.mark_dirty(id);
        Err(Errno::EINPROGRESS)
    }

    /// Appends to the stream from several buffers: the number of bytes that found room.
    pub(super) fn tcp_send(&mut self, id: SocketId, data: &[std::io::IoSlice<'_>]) -> Result<usize> {
        let sock = &mut self.sockets[id.0];
        if let Some(error) = sock.error.take() {
            self.touch(id);
            return Err(error);
        }
        let Kind::Stream(stream) = &mut sock.kind else { return Err(Errno::EINVAL) };
        let shut = stream.shut_write;
        let Some(conn) = stream.conn_mut() else { return Err(Errno::EPIPE) };
        match conn.stage {
            Stage::Opening => return Err(Errno::EAGAIN),
            Stage::Done => return Err(Errno::EPIPE),
            Stage::Open if shut || !conn.may_send() => return Err(Errno::EPIPE),
            Stage::Open => {}
        }
        let room = conn.send_room();
        let mut sent = 0;
        for slice in data {
            let fits = slice.len().min(room - sent);
            let n = conn.send(&slice[..fits]);
            sent += n;
            if n < slice.len() {
                break;
            }
        }
        if sent == 0 && data.iter().any(|slice| !slice.is_empty()) {
            return Err(Errno::EAGAIN);
        }
        self.mark_dirty(id);
        Ok(sent)
    }

    /// Takes received data into several buffers: the number of bytes, 0 at the end of the stream.
    pub(super) fn tcp_recv(
        &mut self,
        id: SocketId,
        data: &mut [std::io::IoSliceMut<'_>],
        peek: bool,
    ) -> Result<usize> {
        let sock = &mut self.sockets[id.0];
        let Kind::Stream(stream) = &mut sock.kind else { return Err(Errno::EINVAL) };
        let shut = stream.shut_read;
        let Some(conn) = stream.conn_mut() else { return Err(Errno::ENOTCONN) };
        let mut received = 0;
        for slice in data.iter_mut() {
            let n = if peek { conn.peek(received, slice) } else { conn.recv(slice) };
            received += n;
            if n < slice.len() {
                break;
            }
        }
        if received > 0 {
            if !peek {
                self.mark_dirty(id);
            }
            return Ok(received);
        }
        if data.iter().all(|slice| slice.is_empty()) && conn.received() > 0 {
            return Ok(0);
        }
        let finished = conn.peer_finished();
        if let Some(error) = sock.error.take() {
            self.touch(id);
            return Err(error);
        }
        if finished || shut {
            return Ok(0);
        }
        Err(Errno::EAGAIN)
    }

    pub(super) fn tcp_shutdown(&mut self, id: SocketId, read: bool, write: bool) -> Result<()> {
        let stream = self.stream_mut(id)?;
        match &mut stream.role {
            Role::Idle => return Err(Errno::ENOTCONN),
            Role::Listener(_) => {
                // Linux: shutting a listener down for reading ends it.
                if read {
                    self.drop_pending(id);
                    self.reset_stream(id);
                    self.touch(id);
                }
                return Ok(());
            }
            Role::Connection(conn) if conn.stage == Stage::Done => return Err(Errno::ENOTCONN),
            Role::Connection(conn) => {
                if write && !stream.shut_write {
                    if conn.stage == Stage::Opening && conn.state() == State::SynSent {
                        // Linux's tcp_disconnect() by way of inet_shutdown(): the attempt is given up.
                        self.sockets[id.0].error = None;
                        self.detach(id);
                        return Ok(());
                    }
                    conn.finish();
                }
                stream.shut_read |= read;
                stream.shut_write |= write;
            }
        }
        self.mark_dirty(id);
        Ok(())
    }

    /// The user is gone. `linger`: SO_LINGER's time-out, of which only 0 matters here: reset.
    pub(super) fn tcp_close(&mut self, id: SocketId) {
        let linger = self.sockets[id.0].options.linger;
        let now = self.net.now;
        let Ok(stream) = self.stream_mut(id) else { return };
        match &mut stream.role {
            Role::Idle => return self.remove(id),
            Role::Listener(_) => {
                self.drop_pending(id);
                return self.remove(id);
            }
            Role::Connection(conn) => {
                if conn.stage == Stage::Done || conn.state() == State::SynSent {
                    return self.remove(id);
                }
                // RFC 2525 §2.17: data that nobody will read is a reset, lest the peer think it was read.
                if conn.received() > 0 || linger == Some(0) {
                    conn.abort();
                } else {
                    conn.finish();
                }
                conn.abandon(now);
            }
        }
        self.mark_dirty(id);
    }

    pub(super) fn tcp_local(&self, id: SocketId) -> Option<SocketAddr> {
        let Kind::Stream(stream) = &self.sockets[id.0].kind else { return None };
        match stream.conn() {
            Some(conn) => Some(conn.tuple.local()),
            None => stream.bound,
        }
    }

    pub(super) fn tcp_peer(&self, id: SocketId) -> Result<SocketAddr> {
        let Kind::Stream(stream) = &self.sockets[id.0].kind else { return Err(Errno::ENOTCONN) };
        match stream.conn() {
            Some(conn) if conn.stage == Stage::Open => Ok(conn.tuple.remote()),
            _ => Err(Errno::ENOTCONN),
        }
    }

    /// Sends what connections have to send, and looks after those whose time has come.
    pub(super) fn tcp_flush(&mut self) {
        while let Some(id) = self.dirty.pop() {
            let Some(sock) = self.sockets.get_mut(id.0) else { continue };
            let Kind::Stream(stream) = &mut sock.kind else { continue };
            let Role::Connection(conn) = &mut stream.role else { continue };
            if !std::mem::take(&mut conn.dirty) {
                continue;
            }
            let before = conn.state();
            let Tcp { contexts, out, .. } = &mut self.tcp;
            let mut stalled = false;
            loop {
                if self.net.congested(conn.ifindex()) {
                    stalled = true;
                    break;
                }
                conn.pump(contexts, self.net.now, PUMP_ROOM, out);
                let more = out.len() >= PUMP_ROOM;
                for packet in out.drain(..) {
                    conn.transmit(&mut self.net, packet);
                }
                if !more {
                    break;
                }
            }
            if stalled && conn.stage != Stage::Done {
                conn.dirty = true;
                self.stalled.push(id);
            }
            // Only smoltcp's own time-out closes a connection while it is pumped.
            if before != State::Closed && conn.state() == State::Closed && before != State::TimeWait {
                sock.error = Some(Errno::ETIMEDOUT);
            }
            self.after(id);
        }
    }

    /// Bookkeeping after anything that may have changed a connection's state.
    pub(super) fn after(&mut self, id: SocketId) {
        self.touch(id);
        let now = self.net.now;
        let Some(sock) = self.sockets.get_mut(id.0) else { return };
        let stamp = sock.stamp;
        let Kind::Stream(Stream { role: Role::Connection(conn), .. }) = &mut sock.kind else { return };
        if conn.stage != Stage::Done {
            if conn.expired(now) {
                if !conn.orphan {
                    sock.error = Some(Errno::ETIMEDOUT);
                }
                return self.detach(id);
            }
            if conn.over() {
                return self.detach(id);
            }
            if conn.state() == State::TimeWait && !conn.dirty && !conn.owes_ack(&mut self.tcp.contexts, now) {
                let (tuple, (send_next, receive_next)) = (conn.tuple, conn.sent);
                self.tcp.time_wait.insert(now, tuple, send_next, receive_next);
                return self.detach(id);
            }
            conn.watch_orphan(now);
        }
        if let Some(deadline) = conn.deadline(&mut self.tcp.contexts, now)
            && conn.armed.is_none_or(|armed| deadline < armed)
        {
            // A deadline in the past means "send now", which waits for the link.
            if deadline > now {
                conn.armed = Some(deadline);
                self.timers.push(deadline, id, stamp);
            }
        }
    }

    /// A connection's reminder came up.
    pub(super) fn tcp_timer(&mut self, id: SocketId) {
        let now = self.net.now;
        if let Ok(stream) = self.stream_mut(id)
            && let Some(conn) = stream.conn_mut()
        {
            conn.armed = None;
            if conn.expired(now) {
                return self.after(id);
            }
            conn.probe(now);
            self.mark_dirty(id);
        }
    }

    /// Takes a connection out of the demultiplexer. The user may still read what it received.
    pub(super) fn detach(&mut self, id: SocketId) {
        self.touch(id);
        let Ok(stream) = self.stream_mut(id) else { return };
        let Some(conn) = stream.conn_mut() else { return };
        if conn.stage == Stage::Done {
            return;
        }
        conn.stage = Stage::Done;
        let (tuple, orphan, parent) = (conn.tuple, conn.orphan, conn.parent);
        let chosen = stream.chosen.take();
        if self.tcp.connections.get(&tuple) == Some(&id) {
            self.tcp.connections.remove(&tuple);
        }
        if let Some(port) = chosen {
            self.ports.release(port);
        }
        let embryo = parent.is_some_and(|parent| self.forget_embryo(parent, id));
        if orphan || embryo {
            self.remove(id);
        }
    }

    /// Resets every connection that waits in a listener.
    fn drop_pending(&mut self, listener: SocketId) {
        let Ok(Stream { role: Role::Listener(state), .. }) = self.stream_mut(listener) else { return };
        let pending: Vec<_> = state.ready.drain(..).chain(state.embryos.drain(..)).collect();
        let now = self.net.now;
        for id in pending {
            let Ok(stream) = self.stream_mut(id) else { continue };
            match stream.conn_mut() {
                Some(conn) if conn.stage != Stage::Done => {
                    conn.parent = None;
                    conn.abort();
                    conn.abandon(now);
                    self.mark_dirty(id);
                }
                _ => self.remove(id),
            }
        }
    }

    /// Back to a fresh socket, which keeps its options.
    fn reset_stream(&mut self, id: SocketId) {
        self.release(id);
        let fresh = Stream::default();
        if let Ok(stream) = self.stream_mut(id) {
            *stream = fresh;
        }
    }

    /// Gives back ports and the place in the demultiplexer.
    pub(super) fn tcp_release(&mut self, id: SocketId) {
        let Ok(stream) = self.stream_mut(id) else { return };
        let bound = stream.bound.take();
        let chosen = stream.chosen.take();
        let tuple = stream.conn().map(|conn| conn.tuple);
        if let Some(bound) = bound {
            self.ports.unbind(Space::Tcp, bound.port(), id);
        }
        if let Some(port) = chosen {
            self.ports.release(port);
        }
        if let Some(tuple) = tuple
            && self.tcp.connections.get(&tuple) == Some(&id)
        {
            self.tcp.connections.remove(&tuple);
        }
    }

    /// A local port whose 4-tuple is free; if there is none, one whose connection is over but for TIME_WAIT.
    fn choose_port(&mut self, local: IpAddr, remote: SocketAddr) -> Result<u16> {
        let offset = self.net.random.port_offset(local, remote);
        let tuple = |port| Tuple::new(SocketAddr::new(local, port), remote);
        let (connections, time_wait, now) = (&self.tcp.connections, &self.tcp.time_wait, self.net.now);
        let unused = |port| !connections.contains_key(&tuple(port));
        self.ports
            .choose(offset, FRESH_TRIES, |port| unused(port) && time_wait.get(now, &tuple(port)).is_none())
            // RFC 6191: the new sequence numbers are above the old ones, see initial_sequence().
            .or_else(|| self.ports.choose(offset, usize::MAX, unused))
            .ok_or(Errno::EADDRNOTAVAIL)
    }

    /// RFC 6528, and beyond what the tuple's last connection used (RFC 1122 §4.2.2.13).
    pub(super) fn initial_sequence(&mut self, tuple: &Tuple) -> u32 {
        let sequence = self.net.random.initial_sequence(self.net.now, tuple.local(), tuple.remote());
        match self.tcp.time_wait.remove(tuple) {
            Some(remains) if sequence.wrapping_sub(remains.send_next) as i32 <= 0 => {
                let gap = 64_000 + self.net.random.below(64_000) as u32;
                remains.send_next.wrapping_add(gap)
            }
            _ => sequence,
        }
    }

    /// Has a connection pumped before the engine gives control back.
    pub(super) fn mark_dirty(&mut self, id: SocketId) {
        if let Ok(stream) = self.stream_mut(id)
            && let Some(conn) = stream.conn_mut()
            && !std::mem::replace(&mut conn.dirty, true)
        {
            self.dirty.push(id);
        }
        self.touch(id);
    }

    pub(super) fn stream_mut(&mut self, id: SocketId) -> Result<&mut Stream> {
        match self.sockets.get_mut(id.0).map(|sock| &mut sock.kind) {
            Some(Kind::Stream(stream)) => Ok(stream),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// Enters a bind(2) in the port table; the port it got.
    pub(super) fn bind_port(&mut self, space: Space, id: SocketId, addr: SocketAddr) -> Result<u16> {
        let sock = &self.sockets[id.0];
        let binding = Binding {
            id,
            addr: addr.ip(),
            dual: sock.domain == Domain::INET6
                && !sock.options.v6_only
                && addr.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            reuse_addr: sock.options.reuse_addr,
            reuse_port: sock.options.reuse_port,
            listening: false,
        };
        if addr.port() == 0 {
            let random = self.net.random.next_u64() as u32;
            return self.ports.bind_ephemeral(space, random, binding).ok_or(Errno::EADDRINUSE);
        }
        if self.ports.bind(space, addr.port(), binding) { Ok(addr.port()) } else { Err(Errno::EADDRINUSE) }
    }
}
