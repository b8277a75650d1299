//! Berkeley's calls on streams.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ioth_core::{Domain, Errno, MsgFlags, RecvMsg, Result, SendMsg, control};
use smoltcp::socket::tcp::State;
use smoltcp::time::Instant;

use super::Role;
use super::conn::{Conn, Stage};
use crate::engine::datagram::{SendControl, TimeStamp, stamp};
use crate::engine::ports::{Binding, Space};
use crate::engine::sockets::Kind;
use crate::engine::{Engine, SocketId, scatter};

impl Engine {
    pub(in crate::engine) fn tcp_bind(&mut self, id: SocketId, addr: SocketAddr) -> Result<()> {
        let sock = &self.sockets[id.0];
        let Kind::Stream(stream) = &sock.kind else { return Err(Errno::EINVAL) };
        if stream.bound.is_some() || !stream.is_closed() {
            return Err(Errno::EINVAL);
        }
        let port = self.bind_port(Space::Tcp, id, addr)?;
        let stream = self.stream_mut(id)?;
        stream.bound = Some(SocketAddr::new(addr.ip(), port));
        stream.own_ip = Some(addr.ip());
        stream.name = stream.bound;
        stream.port_locked = addr.port() != 0;
        Ok(())
    }

    /// Appends to the stream from several buffers: the number of bytes that found room. More follows soon with MSG_MORE.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for MSG_FASTOPEN, as on a Linux whose sysctl tcp_fastopen has none for clients; `EISCONN` and `EALREADY` where there
    /// is no connection to open; a pending error, `EPIPE`, `EINVAL` for control messages, `EAGAIN`.
    pub(in crate::engine) fn tcp_send(
        &mut self,
        id: SocketId,
        message: &SendMsg<'_>,
        flags: MsgFlags,
    ) -> Result<usize> {
        let (data, more) = (message.data, flags.contains(MsgFlags::MORE));
        let now = self.net.now;
        let sock = &mut self.sockets[id.0];
        if flags.bits() & libc::MSG_FASTOPEN != 0
            && let Kind::Stream(stream) = &sock.kind
        {
            return Err(match &stream.role {
                Role::Idle => Errno::EOPNOTSUPP,
                Role::Connection(conn) if conn.stage == Stage::Opening => Errno::EALREADY,
                Role::Connection(_) | Role::Listener(_) => Errno::EISCONN,
            });
        }
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
        SendControl::check_stream(message.control)?;
        let mut left = data.iter().filter(|slice| !slice.is_empty()).count();
        let mut sent = 0;
        for slice in data.iter().filter(|slice| !slice.is_empty()) {
            left -= 1;
            let n = conn.send(now, slice, more || left > 0);
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

    /// Takes received data into several buffers: the number of bytes, 0 at the end of the stream. With data comes the time stamp that
    /// SO_TIMESTAMP or SO_TIMESTAMPNS asked for.
    pub(in crate::engine) fn tcp_recv(
        &mut self,
        id: SocketId,
        message: &mut RecvMsg<'_, '_>,
        flags: MsgFlags,
    ) -> Result<usize> {
        let now = self.net.now;
        let data = &mut *message.data;
        let (peek, discard) = (flags.contains(MsgFlags::PEEK), flags.contains(MsgFlags::TRUNC));
        let sock = &mut self.sockets[id.0];
        let Kind::Stream(stream) = &mut sock.kind else { return Err(Errno::EINVAL) };
        let shut = stream.shut_read;
        let Some(conn) = stream.conn_mut() else {
            return match (stream.listening(), sock.error.take()) {
                (false, Some(error)) => {
                    self.touch(id);
                    Err(error)
                }
                (false, None) if shut => Ok(0),
                (_, error) => {
                    sock.error = error;
                    Err(Errno::ENOTCONN)
                }
            };
        };
        let capacity = data.iter().map(|slice| slice.len()).sum::<usize>();
        let received = match (discard, peek) {
            // tcp(7), MSG_TRUNC: "causes the received bytes of data to be discarded, rather than passed back".
            (true, true) => capacity.min(conn.received()),
            (true, false) => conn.discard(capacity),
            (false, true) => peek_into(conn, data, capacity),
            (false, false) => recv_into(conn, data),
        };
        if received > 0 {
            let readable_at = conn.readable_at();
            if !peek {
                conn.note_read(now, received);
                self.mark_dirty(id);
            }
            self.tcp_stamp(id, message, readable_at);
            return Ok(received);
        }
        if capacity == 0 && conn.received() > 0 {
            let readable_at = conn.readable_at();
            self.tcp_stamp(id, message, readable_at);
            return Ok(0);
        }
        let (finished, saw_end) = (conn.peer_finished(), conn.saw_end());
        // Linux's tcp_recvmsg(): SOCK_DONE comes before the error, which is left to others.
        if !saw_end && let Some(error) = sock.error.take() {
            self.touch(id);
            return Err(error);
        }
        if finished || shut {
            return Ok(0);
        }
        Err(Errno::EAGAIN)
    }

    /// Writes the time stamp of received data, where it was asked for.
    fn tcp_stamp(&self, id: SocketId, message: &mut RecvMsg<'_, '_>, at: Instant) {
        let wanted = self.sockets[id.0].options.time_stamp;
        if wanted == TimeStamp::None {
            return;
        }
        let mut writer = control::Writer::new(message.control);
        stamp(&mut writer, wanted, self.net.wall_clock(at));
        let (filled, cut) = writer.finish();
        message.control_len = filled;
        message.flags |= cut;
    }

    /// What a waiting call needs to be received before its socket is readable for it; `None`: SO_RCVLOWAT again.
    pub(crate) fn want_received(&mut self, id: SocketId, wanted: Option<usize>) -> Result<()> {
        self.stream_mut(id)?.wanted = wanted;
        self.touch(id);
        Ok(())
    }

    pub(in crate::engine) fn tcp_shutdown(&mut self, id: SocketId, read: bool, write: bool) -> Result<()> {
        let now = self.net.now;
        let stream = self.stream_mut(id)?;
        match &mut stream.role {
            Role::Listener(_) => {
                // Linux: shutting a listener down for reading ends it.
                return if read { self.tcp_disconnect(id) } else { Ok(()) };
            }
            // Linux's inet_shutdown(): the attempt is given up, in whatever direction.
            Role::Connection(conn) if conn.state() == State::SynSent => return self.tcp_disconnect(id),
            Role::Connection(conn) if conn.stage != Stage::Done => {
                if write && !stream.shut_write {
                    conn.finish(now);
                }
                stream.shut_read |= read;
                stream.shut_write |= write;
                stream.connecting = false;
            }
            // Linux shuts all the same.
            Role::Idle | Role::Connection(_) => {
                stream.shut_read |= read;
                stream.shut_write |= write;
                self.touch(id);
                return Err(Errno::ENOTCONN);
            }
        }
        self.mark_dirty(id);
        Ok(())
    }

    /// connect(2) to AF_UNSPEC: back to a fresh socket, as Linux's tcp_disconnect() does. Its options stay, and its name
    /// where bind(2) was given the port; what is pending as an error stays as well.
    pub(in crate::engine) fn tcp_disconnect(&mut self, id: SocketId) -> Result<()> {
        let mut reset = false;
        match &mut self.stream_mut(id)?.role {
            Role::Idle => return Ok(()),
            Role::Listener(_) => self.drop_pending(id),
            Role::Connection(conn) if conn.stage != Stage::Done => {
                reset = true;
                if conn.state() != State::SynSent {
                    conn.abort();
                }
            }
            Role::Connection(_) => {}
        }
        if reset {
            self.pump(id);
            // Linux: those who wait for the connection have to hear of its end.
            self.sockets[id.0].error = Some(Errno::ECONNRESET);
        }
        self.reset_stream(id);
        self.touch(id);
        Ok(())
    }

    /// The end of an attempt to connect that was waited for: its error, which makes room for another attempt.
    pub(crate) fn connect_result(&mut self, id: SocketId) -> Result<()> {
        let stream = self.stream_mut(id)?;
        match stream.conn().map(|conn| conn.stage) {
            Some(Stage::Opening) => return Err(Errno::EALREADY),
            Some(Stage::Open) => {
                stream.connecting = false;
                return Ok(());
            }
            Some(Stage::Done) => self.reset_stream(id),
            None => {}
        }
        self.touch(id);
        // Linux's __inet_stream_connect(): another call was told why it failed.
        Err(self.take_error(id).unwrap_or(Errno::ECONNABORTED))
    }

    /// Whether close(2) has to wait for SO_LINGER's time, and how many seconds: the socket sends its FIN, and polls `HUP`
    /// when the peer has acknowledged everything.
    pub(crate) fn begin_lingering(&mut self, id: SocketId) -> Option<u32> {
        let seconds = self.sockets.get(id.0)?.options.linger.filter(|seconds| *seconds > 0)?;
        let now = self.net.now;
        let stream = self.stream_mut(id).ok()?;
        let conn = stream.conn_mut()?;
        if conn.stage != Stage::Open || conn.received() > 0 {
            return None;
        }
        if !std::mem::replace(&mut stream.shut_write, true)
            && let Some(conn) = stream.conn_mut()
        {
            conn.finish(now);
        }
        stream.lingering = true;
        self.mark_dirty(id);
        Some(seconds)
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
                    conn.finish(now);
                }
                conn.abandon(now);
            }
        }
        self.mark_dirty(id);
    }

    pub(in crate::engine) fn tcp_local(&self, id: SocketId) -> Option<SocketAddr> {
        let Kind::Stream(stream) = &self.sockets[id.0].kind else { return None };
        match stream.conn() {
            Some(conn) if conn.stage == Stage::Done => stream.name.or(Some(conn.tuple.local())),
            Some(conn) => Some(conn.tuple.local()),
            None => stream.bound.or(stream.name),
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
            device: sock.options.device,
            listening: false,
            peer: None,
            order: 0,
        };
        // Those whose time is over let go of their ports.
        self.tcp.time_wait.expire(self.net.now, &mut self.ports);
        if addr.port() == 0 {
            let random = self.net.random.next_u64() as u32;
            return self.ports.bind_ephemeral(space, random, binding).ok_or(Errno::EADDRINUSE);
        }
        if self.ports.bind(space, addr.port(), binding) { Ok(addr.port()) } else { Err(Errno::EADDRINUSE) }
    }
}

fn recv_into(conn: &mut Conn, data: &mut [std::io::IoSliceMut<'_>]) -> usize {
    let mut received = 0;
    for slice in data {
        let n = conn.recv(slice);
        received += n;
        if n < slice.len() {
            break;
        }
    }
    received
}

/// smoltcp looks from the front only: several buffers are filled from one.
fn peek_into(conn: &mut Conn, data: &mut [std::io::IoSliceMut<'_>], capacity: usize) -> usize {
    if let [only] = data {
        return conn.peek(only);
    }
    let mut front = vec![0; capacity.min(conn.received())];
    let peeked = conn.peek(&mut front);
    scatter(&front[..peeked], data)
}
