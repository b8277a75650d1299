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
mod input;
mod life;
mod listen;
mod recovery;
mod timewait;

use std::net::SocketAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ioth_core::{Errno, Events, Result};
use ioth_vde::Frame;
use smoltcp::time::Duration;

use super::sockets::{Kind, Options};
use super::{Engine, SocketId};
use conn::{Conn, KeepAlive, Tuple};
pub(crate) use conn::{receive_buffer, send_buffer};
use context::Contexts;
use listen::Listener;
use timewait::TimeWait;

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
}
