//! Berkeley's calls on streams.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ioth_core::{Domain, Errno, Result};
use smoltcp::socket::tcp::State;

use super::Role;
use super::conn::Stage;
use crate::engine::ports::{Binding, Space};
use crate::engine::sockets::Kind;
use crate::engine::{Engine, SocketId};

impl Engine {
    pub(in crate::engine) fn tcp_bind(&mut self, id: SocketId, addr: SocketAddr) -> Result<()> {
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

    /// Appends to the stream from several buffers: the number of bytes that found room.
    pub(in crate::engine) fn tcp_send(
        &mut self,
        id: SocketId,
        data: &[std::io::IoSlice<'_>],
    ) -> Result<usize> {
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
    pub(in crate::engine) fn tcp_recv(
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

    pub(in crate::engine) fn tcp_shutdown(&mut self, id: SocketId, read: bool, write: bool) -> Result<()> {
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
    pub(in crate::engine) fn tcp_close(&mut self, id: SocketId) {
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

    pub(in crate::engine) fn tcp_local(&self, id: SocketId) -> Option<SocketAddr> {
        let Kind::Stream(stream) = &self.sockets[id.0].kind else { return None };
        match stream.conn() {
            Some(conn) => Some(conn.tuple.local()),
            None => stream.bound,
        }
    }

    pub(in crate::engine) fn tcp_peer(&self, id: SocketId) -> Result<SocketAddr> {
        let Kind::Stream(stream) = &self.sockets[id.0].kind else { return Err(Errno::ENOTCONN) };
        match stream.conn() {
            Some(conn) if conn.stage == Stage::Open => Ok(conn.tuple.remote()),
            _ => Err(Errno::ENOTCONN),
        }
    }

    /// Enters a bind(2) in the port table; the port it got.
    pub(in crate::engine) fn bind_port(
        &mut self,
        space: Space,
        id: SocketId,
        addr: SocketAddr,
    ) -> Result<u16> {
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
