//! Listeners: the queue of those who want in, and accept(2).
//!
//! Read first: RFC 4987 (SYN floods), listen(2).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use ioth_core::{Errno, Result};
use ioth_vde::Frame;
use smoltcp::time::{Duration, Instant};

use super::conn::{Conn, Setup, Stage, Tuple};
use super::{Role, Stream};
use crate::engine::addr::is_link_local;
use crate::engine::ip_options::Received;
use crate::engine::ports::{Binding, Held, Space};
use crate::engine::sockets::{Kind, Options};
use crate::engine::{Engine, SocketId, wire};

/// Linux's net.core.somaxconn.
const MAX_BACKLOG: usize = 4096;
/// Connections of a listener whose handshake is under way; beyond, a random one goes (RFC 4987 §3.4).
const MAX_EMBRYOS: usize = 512;
/// Segments that may wait for room in a listener's queue, and for how long: then their senders repeat them.
const MAX_PARKED: usize = 256;
const PARKING_TIME: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Listener {
    pub(super) backlog: usize,
    /// Established, waiting for accept(2), oldest first.
    pub(super) ready: VecDeque<SocketId>,
    /// In SYN-RECEIVED.
    pub(super) embryos: Vec<SocketId>,
    /// Packets that came while `ready` was full, with their time and interface.
    pub(super) parked: VecDeque<(Instant, u32, Frame)>,
}

impl Engine {
    pub(in crate::engine) fn tcp_listen(&mut self, id: SocketId, backlog: i32) -> Result<()> {
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

    pub(in crate::engine) fn tcp_accept(&mut self, id: SocketId) -> Result<(SocketId, SocketAddr)> {
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

    /// Resets every connection that waits in a listener.
    pub(super) fn drop_pending(&mut self, listener: SocketId) {
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

    /// The listener for a SYN: bound to the interface, to the address itself, or to a wildcard. Of several that share
    /// the port by SO_REUSEPORT each has its part of the peers.
    pub(super) fn listener_for(&self, ifindex: u32, tuple: &Tuple) -> Option<SocketId> {
        let bindings = self.ports.bindings(Space::Tcp, tuple.local_port);
        let fitting = bindings.filter(|binding| binding.listening);
        let fits = |binding: &Binding| {
            let score = binding.fits(tuple.local_ip)?;
            match self.sockets.get(binding.id.0)?.options.device {
                Some(device) if device != ifindex => None,
                Some(_) => Some(score + 4),
                None => Some(score),
            }
        };
        let fitting = || fitting.clone().filter_map(|binding| Some((fits(binding)?, binding.id)));
        let best = fitting().map(|(score, _)| score).max()?;
        let mut equals = fitting().filter(|(score, _)| *score == best).map(|(_, id)| id);
        match equals.clone().count() {
            1 => equals.next(),
            count => equals.nth(self.net.random.port_offset(tuple.local_ip, tuple.remote()) as usize % count),
        }
    }

    /// A SYN for a listener: a connection of its own from the start.
    pub(super) fn spawn(&mut self, listener: SocketId, ifindex: u32, tuple: Tuple, mut syn: Frame) {
        if self.accept_queue_full(listener) {
            return self.park(listener, ifindex, syn);
        }
        // The answer goes back where the question came from, if the route leads there.
        let device = self.sockets[listener.0].options.device;
        let scope = is_link_local(tuple.remote_ip).then_some(ifindex).or(device);
        let Ok(path) = self.net.tables.route(tuple.remote_ip, scope, Some(tuple.local_ip)) else {
            self.net.drops.no_route += 1;
            return;
        };
        // Linux's tcp_v4_save_options(): the connection answers the SYN's options, and has not the listener's.
        let ip_options = wire::parse_ip(&syn, false)
            .ok()
            .and_then(|header| Received::of(&self.net, &header, &syn)?.reply)
            .filter(|options| options.len() > 0)
            .map(Arc::new);
        self.evict_embryo(listener);
        let sequence = self.initial_sequence(&tuple);
        let mut out = std::mem::take(&mut self.tcp.out);
        // Linux's tcp_v6_init_req(): "So that link locals have meaning".
        let options = Options { device: scope, ..self.sockets[listener.0].options };
        let setup = Setup {
            tuple,
            path,
            sequence,
            options: &options,
            ip_options: ip_options.as_ref(),
            pool: &self.tcp.pool,
        };
        let conn = Conn::answer(&self.net, &mut self.tcp.contexts, setup, listener, &mut syn, &mut out);
        if let Some(mut conn) = conn {
            conn.scope = scope;
            let domain = self.sockets[listener.0].domain;
            // Linux: an accepted connection shares the listener's port, also when that is closed.
            let held =
                Held { addr: tuple.local_ip, reuse_addr: options.reuse_addr, reuse_port: options.reuse_port };
            self.ports.hold(tuple.local_port, held);
            let mut stream =
                Stream { role: Role::Connection(Box::new(conn)), held: Some(held), ..Stream::default() };
            stream.apply(&options);
            let id = self.insert(domain, Kind::Stream(stream), options);
            self.sockets[id.0].ip_options = ip_options;
            self.tcp.connections.insert(tuple, id);
            if let Ok(Stream { role: Role::Listener(listener), .. }) = self.stream_mut(listener) {
                listener.embryos.push(id);
            }
            self.mark_dirty(id);
        }
        out.clear();
        self.tcp.out = out;
    }

    /// Keeps a packet until accept(2) makes room, as if it had been late on its way. Linux drops it, and a second goes
    /// by before the peer tries again.
    pub(super) fn park(&mut self, listener: SocketId, ifindex: u32, packet: Frame) {
        let now = self.net.now;
        let Ok(Stream { role: Role::Listener(state), .. }) = self.stream_mut(listener) else { return };
        if state.parked.len() >= MAX_PARKED {
            state.parked.pop_front();
            self.net.drops.listen_queue += 1;
        }
        if let Ok(Stream { role: Role::Listener(state), .. }) = self.stream_mut(listener) {
            state.parked.push_back((now, ifindex, packet));
        }
    }

    /// There is room in a listener's queue: the oldest packet that waited for it arrives now.
    fn unpark(&mut self, listener: SocketId) {
        let now = self.net.now;
        while !self.accept_queue_full(listener) {
            let Ok(Stream { role: Role::Listener(state), .. }) = self.stream_mut(listener) else { return };
            let Some((since, ifindex, packet)) = state.parked.pop_front() else { return };
            if now - since >= PARKING_TIME {
                self.net.drops.listen_queue += 1;
                continue;
            }
            let Ok(header) = wire::parse_ip(&packet, false) else { continue };
            self.arrived_by = ifindex;
            self.tcp_input(ifindex, &header, packet);
            // A SYN takes its place only when its handshake is complete, so one at a time is let in.
            return;
        }
    }

    pub(super) fn accept_queue_full(&mut self, listener: SocketId) -> bool {
        match self.stream_mut(listener) {
            // Linux's sk_acceptq_is_full(): one more than the backlog fits.
            Ok(Stream { role: Role::Listener(listener), .. }) => listener.ready.len() > listener.backlog,
            _ => false,
        }
    }

    fn evict_embryo(&mut self, listener: SocketId) {
        let Ok(Stream { role: Role::Listener(state), .. }) = self.stream_mut(listener) else { return };
        let count = state.embryos.len();
        if count < MAX_EMBRYOS {
            return;
        }
        let victim = self.net.random.below(count);
        let Ok(Stream { role: Role::Listener(state), .. }) = self.stream_mut(listener) else { return };
        let victim = state.embryos.swap_remove(victim);
        self.net.drops.listen_queue += 1;
        self.remove(victim);
    }

    pub(super) fn make_ready(&mut self, listener: SocketId, id: SocketId) {
        if let Ok(Stream { role: Role::Listener(state), .. }) = self.stream_mut(listener) {
            state.embryos.retain(|embryo| *embryo != id);
            state.ready.push_back(id);
        }
        self.touch_arrived(listener);
    }

    /// Takes an embryo out of its listener. False when it was none (any more).
    pub(super) fn forget_embryo(&mut self, listener: SocketId, id: SocketId) -> bool {
        let Ok(Stream { role: Role::Listener(state), .. }) = self.stream_mut(listener) else { return false };
        let before = state.embryos.len();
        state.embryos.retain(|embryo| *embryo != id);
        state.embryos.len() < before
    }
}
