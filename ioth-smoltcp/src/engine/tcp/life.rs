//! The life and death of connections: pumped when something happened, looked after when a deadline comes.

use ioth_core::Errno;
use smoltcp::socket::tcp::State;

use super::conn::{Conn, Stage};
use super::{Role, Stream, Tcp};
use crate::engine::ports::Space;
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
    pub(in crate::engine) fn tcp_timer(&mut self, id: SocketId) {
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

    /// Back to a fresh socket, which keeps its options.
    pub(super) fn reset_stream(&mut self, id: SocketId) {
        self.release(id);
        let fresh = Stream::default();
        if let Ok(stream) = self.stream_mut(id) {
            *stream = fresh;
        }
    }

    /// Gives back ports and the place in the demultiplexer.
    pub(in crate::engine) fn tcp_release(&mut self, id: SocketId) {
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

    /// Whether a closed stream still has data or its FIN to deliver.
    pub fn has_undelivered(&self) -> bool {
        self.sockets.iter().any(|(_, sock)| match &sock.kind {
            Kind::Stream(stream) => stream.conn().is_some_and(Conn::is_delivering),
            _ => false,
        })
    }
}
