//! The life and death of connections: pumped when something happened, looked after when a deadline comes.

use std::net::SocketAddr;

use ioth_core::Errno;
use smoltcp::socket::tcp::State;

use super::conn::{Conn, Stage};
use super::{Role, Stream, Tcp};
use crate::engine::ports::{Held, Space};
use crate::engine::sockets::Kind;
use crate::engine::{Engine, SocketId};

/// Packets that a connection may send before others have their turn.
const PUMP_ROOM: usize = 32;

impl Engine {
    /// Sends what connections have to send, and looks after those whose time has come.
    pub(in crate::engine) fn tcp_flush(&mut self) {
        while let Some(id) = self.dirty.pop() {
            let Some(sock) = self.sockets.get_mut(id.0) else { continue };
            let Kind::Stream(stream) = &mut sock.kind else { continue };
            let Role::Connection(conn) = &mut stream.role else { continue };
            if !std::mem::take(&mut conn.dirty) {
                continue;
            }
            if self.pump(id)
                && let Ok(Stream { role: Role::Connection(conn), .. }) = self.stream_mut(id)
                && conn.stage != Stage::Done
            {
                conn.dirty = true;
                self.stall(id);
            }
            self.after(id);
        }
    }

    /// Sends what a connection has to send. True when its link takes no more for now.
    pub(super) fn pump(&mut self, id: SocketId) -> bool {
        let now = self.net.now;
        let Some(sock) = self.sockets.get_mut(id.0) else { return false };
        let Kind::Stream(Stream { role: Role::Connection(conn), .. }) = &mut sock.kind else { return false };
        let Tcp { contexts, out, .. } = &mut self.tcp;
        loop {
            if self.net.congested(conn.ifindex()) {
                return true;
            }
            conn.pump(contexts, now, PUMP_ROOM, out);
            let more = out.len() >= PUMP_ROOM;
            for packet in out.drain(..) {
                conn.transmit(&mut self.net, packet);
            }
            if !more {
                break;
            }
        }
        if conn.owes_window() {
            conn.state_position(contexts, now, out);
            for packet in out.drain(..) {
                conn.transmit(&mut self.net, packet);
            }
        }
        false
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
                    sock.error = Some(conn.soft_error.unwrap_or(Errno::ETIMEDOUT));
                }
                return self.detach(id);
            }
            if conn.over() {
                return self.detach(id);
            }
            if conn.state() == State::TimeWait && !conn.dirty && !conn.owes_ack(&mut self.tcp.contexts, now) {
                let (tuple, (send_next, receive_next)) = (conn.tuple, conn.sent);
                let held = Held {
                    addr: tuple.local_ip,
                    reuse_addr: sock.options.reuse_addr,
                    reuse_port: sock.options.reuse_port,
                };
                self.tcp.time_wait.insert(now, tuple, send_next, receive_next, held, &mut self.ports);
                return self.detach(id);
            }
            conn.watch_orphan(now);
        }
        let deadline = match conn.deadline(&mut self.tcp.contexts, now) {
            // A deadline in the past means "send now", which waits for the link; patience ends all the same.
            Some(deadline) if deadline <= now => conn.patience_ends(now),
            deadline => deadline,
        };
        if let Some(deadline) = deadline
            && conn.reminders.need(deadline)
        {
            self.timers.push(deadline, id, stamp);
            self.timers.sweep(|at, id, stamp| {
                self.sockets.get(id.0).is_some_and(|sock| {
                    sock.stamp == stamp && matches!(&sock.kind, Kind::Stream(stream) if stream.awaits(at))
                })
            });
        }
    }

    /// A connection's reminder came up.
    pub(in crate::engine) fn tcp_timer(&mut self, id: SocketId) {
        let now = self.net.now;
        if let Ok(stream) = self.stream_mut(id)
            && let Some(conn) = stream.conn_mut()
        {
            conn.reminders.came_up(now);
            if conn.expired(now) {
                return self.after(id);
            }
            conn.probe(now);
            if conn.dirty {
                // It may wait for its link, for as long as that takes: nobody else enters its next deadline.
                return self.after(id);
            }
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
        let (chosen, held) = (stream.chosen.take(), stream.held.take());
        // Linux: a port that bind(2) was not given goes with the connection.
        let bound = if stream.port_locked { None } else { stream.bound.take() };
        if let Some(bound) = bound {
            self.ports.unbind(Space::Tcp, bound.port(), id);
        }
        if self.tcp.connections.get(&tuple) == Some(&id) {
            self.tcp.connections.remove(&tuple);
        }
        if let Some(port) = chosen {
            self.ports.release(port);
        }
        if let Some(held) = held {
            self.ports.let_go(tuple.local_port, held);
        }
        let embryo = parent.is_some_and(|parent| self.forget_embryo(parent, id));
        if orphan || embryo {
            self.remove(id);
        }
    }

    /// Back to a fresh socket, which keeps its options, and its port if bind(2) was given that.
    pub(super) fn reset_stream(&mut self, id: SocketId) {
        let any = self.sockets[id.0].wildcard();
        let Ok(stream) = self.stream_mut(id) else { return };
        let kept = stream.bound.filter(|_| stream.port_locked);
        // Linux lets getsockname(2) tell a port that was given back, and the address where bind(2) chose it.
        let name = match stream.conn() {
            Some(conn) => Some(SocketAddr::new(stream.own_ip.unwrap_or(any), conn.tuple.local_port)),
            None => stream.bound,
        };
        let own_ip = stream.own_ip;
        if kept.is_some() {
            stream.bound = None;
        }
        self.release(id);
        if let Some(kept) = kept {
            self.ports.unlisten(kept.port(), id);
        }
        let options = self.sockets[id.0].options;
        if let Ok(stream) = self.stream_mut(id) {
            *stream = Stream { bound: kept, own_ip, name, port_locked: kept.is_some(), ..Stream::default() };
            stream.apply(&options);
        }
        self.sockets[id.0].was_connected = false;
    }

    /// Gives back ports and the place in the demultiplexer.
    pub(in crate::engine) fn tcp_release(&mut self, id: SocketId) {
        let Ok(stream) = self.stream_mut(id) else { return };
        let bound = stream.bound.take();
        let (chosen, held) = (stream.chosen.take(), stream.held.take());
        let tuple = stream.conn().map(|conn| conn.tuple);
        if let Some(bound) = bound {
            self.ports.unbind(Space::Tcp, bound.port(), id);
        }
        if let Some(port) = chosen {
            self.ports.release(port);
        }
        if let (Some(tuple), Some(held)) = (tuple, held) {
            self.ports.let_go(tuple.local_port, held);
        }
        if let Some(tuple) = tuple
            && self.tcp.connections.get(&tuple) == Some(&id)
        {
            self.tcp.connections.remove(&tuple);
        }
    }

    /// Whether a closed stream still has data or its FIN to deliver.
    pub fn has_undelivered(&self) -> bool {
        self.sockets.iter().any(|(_, sock)| match &sock.kind {
            Kind::Stream(stream) => stream.conn().is_some_and(Conn::is_delivering),
            _ => false,
        })
    }
}
