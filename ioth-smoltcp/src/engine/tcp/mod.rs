//! TCP around smoltcp: demultiplexer, listeners with a real backlog, life and death of connections.
//!
//! Every connection is a smoltcp socket in a set of its own ([`Conn`]), found by its hashed 4-tuple and pumped only
//! when something happened to it, so that the cost of a packet does not grow with their number.
//!
//! Read first: RFC 9293 §3.10 (event processing), RFC 4987 (SYN floods), tcp(7).

mod calls;
mod conn;
mod connect;
mod context;
mod info;
mod input;
mod life;
mod listen;
mod options;
mod recovery;
mod sack;
mod timewait;
mod unheld;

use std::net::{IpAddr, SocketAddr};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ioth_core::{Errno, Events, Result};
use ioth_vde::Frame;
use smoltcp::time::{Duration, Instant};

use super::ports::Held;
use super::sockets::{Kind, Options};
use super::{Census, Engine, SocketId};
use conn::{Conn, KeepAlive, Pool, Stage, Tuple};
pub(crate) use conn::{first_buffers, max_low_water};
use context::Contexts;
use listen::Listener;
pub(crate) use options::{Congestion, TcpOptions};
use timewait::TimeWait;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Tcp {
    connections: HashMap<Tuple, SocketId, FixedState>,
    time_wait: TimeWait,
    contexts: Contexts,
    /// What connections may have grown by.
    pool: Pool,
    out: Vec<Frame>,
}

impl Tcp {
    pub(crate) fn new(seed: u64) -> Self {
        Tcp {
            connections: HashMap::with_hasher(FixedState::with_seed(seed)),
            time_wait: TimeWait::new(seed),
            contexts: Contexts::default(),
            pool: Pool::default(),
            out: Vec::new(),
        }
    }

    pub(crate) fn count(&self, census: &mut Census) {
        census.connections = self.connections.len();
        census.time_wait = self.time_wait.len();
    }
}

/// A stream socket.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    role: Role,
    /// The address that bind(2) or listen(2) gave it.
    bound: Option<SocketAddr>,
    /// The address of bind(2), which stays when the port is given back.
    own_ip: Option<IpAddr>,
    /// The local port that connect(2) chose.
    chosen: Option<u16>,
    /// What getsockname(2) still tells of a connection that is over.
    name: Option<SocketAddr>,
    /// bind(2) was given the port: it stays the socket's when its connection is over.
    port_locked: bool,
    /// Linux's SS_CONNECTING: connect(2) has begun, and nobody was told yet what came of it.
    connecting: bool,
    shut_read: bool,
    shut_write: bool,
    /// SO_RCVLOWAT
    receive_low: usize,
    /// The place that an accepted connection has in the port table.
    held: Option<Held>,
    /// close(2) waits for SO_LINGER's time.
    lingering: bool,
    /// What a waiting call needs, where that is not SO_RCVLOWAT.
    wanted: Option<usize>,
}

#[derive(Debug, Default)]
enum Role {
    #[default]
    Idle,
    Listener(Listener),
    Connection(Box<Conn>),
}

impl Stream {
    /// The address that bind(2) gave it, whether or not it has its port still.
    pub(crate) fn own_ip(&self) -> Option<IpAddr> {
        self.own_ip
    }

    fn conn(&self) -> Option<&Conn> {
        match &self.role {
            Role::Connection(conn) => Some(conn),
            _ => None,
        }
    }

    pub(crate) fn conn_mut(&mut self) -> Option<&mut Conn> {
        match &mut self.role {
            Role::Connection(conn) => Some(conn),
            _ => None,
        }
    }

    /// Whether a reminder that was entered for this moment still means something.
    fn awaits(&self, at: Instant) -> bool {
        self.conn().is_some_and(|conn| conn.stage != Stage::Done && conn.reminders.hold(at))
    }

    /// The poll bits, as Linux's tcp_poll() has them, without a pending error.
    pub(crate) fn events(&self) -> Events {
        match &self.role {
            // A signal fd can't take HUP back; it shows it together with RDHUP only.
            Role::Idle if self.shut_read => Events::IN | Events::OUT | Events::RDHUP | Events::HUP,
            Role::Idle => Events::OUT | Events::HUP,
            Role::Listener(listener) if listener.ready.is_empty() => Events::empty(),
            Role::Listener(_) => Events::IN,
            Role::Connection(conn) if self.lingering => {
                if conn.is_finishing() {
                    Events::empty()
                } else {
                    Events::HUP
                }
            }
            Role::Connection(conn) => {
                let low = self.wanted.unwrap_or(self.receive_low);
                conn.events(self.shut_read, self.shut_write, low.max(1))
            }
        }
    }

    /// bind(2) or listen(2) gave it a port.
    pub(crate) fn has_port(&self) -> bool {
        self.bound.is_some()
    }

    /// Neither listening nor connected: TCP_CLOSE.
    pub(crate) fn is_closed(&self) -> bool {
        match &self.role {
            Role::Idle => true,
            Role::Listener(_) => false,
            Role::Connection(conn) => conn.stage == Stage::Done,
        }
    }

    /// TCP_INFO
    pub(crate) fn info(&self, now: Instant) -> [u8; info::LEN] {
        info::of(self, now)
    }

    /// Lets go of what TCP_CORK or MSG_MORE holds back.
    pub(crate) fn uncork(&mut self) {
        if let Some(conn) = self.conn_mut() {
            conn.uncork();
        }
    }

    /// TCP_QUICKACK
    pub(crate) fn quick_ack(&mut self, on: bool) {
        if let Some(conn) = self.conn_mut() {
            conn.quick_ack(on);
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
        self.conn().map_or(0, Conn::outstanding)
    }

    /// Bytes given and not sent: SIOCOUTQNSD.
    pub(crate) fn unsent(&self) -> usize {
        self.conn().map_or(0, Conn::unsent)
    }

    /// SO_RCVBUF and SO_SNDBUF where they were not set.
    pub(crate) fn automatic_buffers(&self) -> (usize, usize) {
        self.conn().map_or(first_buffers(), Conn::automatic_buffers)
    }

    /// TCP_MAXSEG: a connection's segment size, else what was set, else Linux's default.
    pub(crate) fn max_segment(&self, options: &TcpOptions) -> usize {
        match self.conn() {
            Some(conn) if conn.stage == Stage::Open => conn.mss(),
            _ => options.max_segment.map_or(536, usize::from),
        }
    }

    pub(crate) fn count(&self, census: &mut Census) {
        if let Role::Listener(listener) = &self.role {
            census.embryos += listener.embryos.len();
            census.ready += listener.ready.len();
            census.parked += listener.parked.len();
        }
    }

    /// Brings a connection in line with the socket's options.
    pub(crate) fn apply(&mut self, options: &Options) {
        self.receive_low = options.receive_low;
        if let Some(conn) = self.conn_mut() {
            conn.set_space(options.receive_buffer, options.send_buffer, options.receive_low);
            conn.configure(&options.tcp);
            let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
            conn.set_keep_alive(options.keep_alive.then_some(KeepAlive {
                idle: seconds(options.tcp.keep_idle),
                interval: seconds(options.tcp.keep_interval),
                count: options.tcp.keep_count,
            }));
            conn.set_hop_limit(options.hop_limit(conn.tuple.remote_ip.is_ipv4()));
        }
    }
}

impl Engine {
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

    /// Bytes of a connection's rings that are in memory.
    #[cfg(test)]
    pub(super) fn resident(&mut self, id: SocketId) -> usize {
        self.stream_mut(id).ok().and_then(|stream| stream.conn()).map_or(0, Conn::resident)
    }

    pub(super) fn stream_mut(&mut self, id: SocketId) -> Result<&mut Stream> {
        match self.sockets.get_mut(id.0).map(|sock| &mut sock.kind) {
            Some(Kind::Stream(stream)) => Ok(stream),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }
}
