//! Segments on their way in: to their connection, to a listener, or back as a RST.
//!
//! Read first: RFC 9293 §3.10.7, RFC 4987 (SYN floods), RFC 1337 (TIME_WAIT).

use std::net::SocketAddr;

use ioth_core::{Errno, Result};
use ioth_vde::{Checksum, Frame};
use smoltcp::socket::tcp::State;
use smoltcp::wire::{IpProtocol, TcpPacket, TcpSeqNumber};

use super::conn::{Fed, Tuple, Verdict, mend_options};
use super::recovery::is_newer;
use super::timewait::Remains;
use super::{Role, Stream, Tcp};
use crate::engine::addr::is_link_local;
use crate::engine::route::Path;
use crate::engine::sockets::Kind;
use crate::engine::wire::{self, IpAttrs, IpHeader, TCP_HEADER, ip_header_len};
use crate::engine::{Engine, SocketId};

impl Engine {
    /// A segment arrived for one of our addresses. Its checksum is right.
    pub(in crate::engine) fn tcp_input(&mut self, ifindex: u32, header: &IpHeader, mut packet: Frame) {
        packet.truncate(header.total_len);
        let mut tcp_at = header.payload_at;
        if TcpPacket::new_checked(&packet[tcp_at..]).is_err() {
            self.net.drops.malformed += 1;
            return;
        }
        if header.src.is_ipv6() && tcp_at != wire::IPV6_HEADER {
            packet = strip_extensions(&packet, header);
            tcp_at = wire::IPV6_HEADER;
        }
        mend_options(&mut packet[tcp_at..]);
        let tcp = TcpPacket::new_unchecked(&packet[tcp_at..]);
        let local = SocketAddr::new(header.dst, tcp.dst_port());
        let tuple = Tuple::new(local, SocketAddr::new(header.src, tcp.src_port()), ifindex);
        // The connection that this one follows may be over and only not yet cleared away.
        if tcp.syn() && !tcp.ack() && self.tcp.connections.contains_key(&tuple) {
            self.tcp_flush();
        }
        if let Some(&id) = self.tcp.connections.get(&tuple) {
            return self.feed(id, packet, tcp_at);
        }
        if let Some(remains) = self.tcp.time_wait.get(self.net.now, &tuple) {
            let newer = is_newer(tcp.seq_number().0 as u32, remains.receive_next);
            let reopens = tcp.syn() && !(tcp.ack() || tcp.rst() || tcp.fin()) && newer;
            if !reopens {
                return self.time_wait_input(header, tuple, remains, &packet[tcp_at..]);
            }
        }
        let listener = self.listener_for(ifindex, &tuple);
        if tcp.syn()
            && !(tcp.ack() || tcp.rst() || tcp.fin())
            && let Some(listener) = listener
        {
            return self.spawn(listener, ifindex, tuple, packet);
        }
        self.net.drops.no_socket += 1;
        // RFC 9293 §3.10.7.2: anything else for a listener "should be discarded"; only an ACK gets its RST.
        if tcp.rst() || (listener.is_some() && !tcp.ack()) {
            return;
        }
        // RFC 9293 §3.10.7.1: how to answer a segment for a connection that does not exist.
        let (sequence, ack) = if tcp.ack() {
            (tcp.ack_number().0 as u32, None)
        } else {
            (0, Some((tcp.seq_number() + tcp.segment_len()).0 as u32))
        };
        self.reply(header, &tuple, sequence, ack, true);
    }

    /// A segment arrived for a connection in TIME_WAIT. Linux's tcp_timewait_state_process().
    fn time_wait_input(&mut self, header: &IpHeader, tuple: Tuple, remains: Remains, segment: &[u8]) {
        let tcp = TcpPacket::new_unchecked(segment);
        // RFC 1337: a reset does not end TIME_WAIT.
        if tcp.rst() {
            return;
        }
        // RFC 9293 §3.10.7.8: "Acknowledge it, and restart the 2 MSL timeout."
        if tcp.fin() {
            self.tcp.time_wait.restart(self.net.now, tuple);
        }
        // Two nodes in TIME_WAIT would answer each other's acknowledgements for ever.
        let bare = tcp.segment_len() == 0;
        if bare && tcp.seq_number().0 as u32 == remains.receive_next {
            return;
        }
        if (bare || tcp.syn()) && !self.tcp.time_wait.may_answer(self.net.now, &tuple) {
            return;
        }
        self.reply(header, &tuple, remains.send_next, Some(remains.receive_next), false);
    }

    /// An ICMP error about a connection of ours, with the sequence number that it quotes.
    pub(in crate::engine) fn tcp_error(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        sequence: u32,
        errno: Errno,
    ) {
        let tuple = Tuple::new(local, remote, self.arrived_by);
        let Some(&id) = self.tcp.connections.get(&tuple) else { return };
        let Ok(stream) = self.stream_mut(id) else { return };
        let Some(conn) = stream.conn_mut() else { return };
        if !conn.is_in_flight(sequence) {
            return;
        }
        // RFC 1122 §4.2.3.9: soft errors do not end an established connection. Linux keeps them for the case that it
        // ends by a time-out, and ends an attempt.
        conn.soft_error = Some(errno);
        if conn.state() == State::SynSent {
            self.sockets[id.0].error = Some(errno);
            self.detach(id);
        } else if self.sockets[id.0].options.hears_errors(local.is_ipv4()) {
            // ip(7): "no error queue", but the error is told at once.
            self.sockets[id.0].error = Some(errno);
            self.touch(id);
        }
    }

    /// Whether a connection of ours has a segment with this sequence number under way (RFC 5927 §4.1).
    pub(in crate::engine) fn tcp_has_sent(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        sequence: Option<u32>,
    ) -> bool {
        let tuple = Tuple::new(local, remote, self.arrived_by);
        let Some(&id) = self.tcp.connections.get(&tuple) else { return false };
        let Ok(stream) = self.stream_mut(id) else { return false };
        stream.conn().zip(sequence).is_some_and(|(conn, sequence)| conn.is_in_flight(sequence))
    }

    /// Feeds a segment to a connection.
    fn feed(&mut self, id: SocketId, mut packet: Frame, tcp_at: usize) {
        let parent = {
            let Ok(stream) = self.stream_mut(id) else { return };
            let Some(conn) = stream.conn() else { return };
            conn.parent.filter(|_| conn.state() == State::SynReceived)
        };
        // Linux ignores the last ACK of a handshake while the accept queue is full, and the peer tries again.
        if let Some(parent) = parent
            && !TcpPacket::new_unchecked(&packet[tcp_at..]).rst()
            && self.accept_queue_full(parent)
        {
            return self.park(parent, self.arrived_by, packet);
        }
        let now = self.net.now;
        // tcp(7), TCP_DEFER_ACCEPT: "Allow a listener to be awakened only when data arrives on the socket".
        if let Some(parent) = parent
            && self.is_deferred(parent, id, &packet[tcp_at..])
        {
            return;
        }
        let sock = &mut self.sockets[id.0];
        let Kind::Stream(Stream { role: Role::Connection(conn), shut_read, .. }) = &mut sock.kind else {
            return;
        };
        let before = conn.received();
        let Tcp { contexts, out, .. } = &mut self.tcp;
        let fed = match conn.judge(now, &mut packet, tcp_at) {
            Verdict::Take => {
                let mark = conn.mark();
                let fed = conn.feed(contexts, now, &mut packet, tcp_at, out);
                conn.note(now, &packet, tcp_at, mark);
                match conn.overtaken_fin() {
                    Some(mut fin) if fed == Fed::Nothing => {
                        let (mark, at) = (conn.mark(), ip_header_len(conn.tuple.local_ip));
                        let fed = conn.feed(contexts, now, &mut fin, at, out);
                        conn.note(now, &fin, at, mark);
                        fed
                    }
                    _ => fed,
                }
            }
            Verdict::Challenge => {
                self.net.drops.unacceptable += 1;
                conn.state_position(contexts, now, out);
                Fed::Nothing
            }
            Verdict::Drop => {
                self.net.drops.unacceptable += 1;
                return;
            }
        };
        for reply in out.drain(..) {
            conn.transmit(&mut self.net, reply);
        }
        // Data for a closed socket: nobody will ever read it (RFC 2525 §2.17). Linux resets as well once both directions
        // were shut down, and then tells its user.
        let more = conn.received() > before;
        if more {
            conn.note_readable(now);
            sock.arrived = true;
        }
        let unwanted = more && *shut_read && conn.has_finished();
        if (conn.orphan && conn.received() > 0) || unwanted {
            conn.abort();
            if unwanted {
                sock.error = Some(Errno::ECONNRESET);
            }
        }
        match fed {
            Fed::Nothing => {}
            Fed::Established => {
                sock.was_connected = true;
                if let Some(parent) = parent {
                    self.make_ready(parent, id);
                }
            }
            Fed::Reset(errno) => {
                sock.error = Some(errno);
                return self.detach(id);
            }
            Fed::Reaped => return self.detach(id),
        }
        self.mark_dirty(id);
    }

    /// Whether the last packet of a handshake has to wait for data.
    fn is_deferred(&self, parent: SocketId, id: SocketId, segment: &[u8]) -> bool {
        let Some(parent) = self.sockets.get(parent.0) else { return false };
        let seconds = parent.options.tcp.defer_accept_seconds();
        let tcp = TcpPacket::new_unchecked(segment);
        let pure = segment.len() == usize::from(tcp.header_len()) && !(tcp.rst() || tcp.fin() || tcp.syn());
        let Kind::Stream(stream) = &self.sockets[id.0].kind else { return false };
        seconds > 0 && pure && stream.conn().is_some_and(|conn| conn.deferred(self.net.now, seconds))
    }

    /// Sends a segment without a connection: a RST, or the last ACK again.
    fn reply(&mut self, header: &IpHeader, tuple: &Tuple, sequence: u32, ack: Option<u32>, rst: bool) {
        if rst && self.net.leaving {
            return;
        }
        if rst && !self.net.icmp_limit.take(self.net.now) {
            self.net.drops.icmp_limited += 1;
            return;
        }
        let Ok(path) = self.reply_path(header) else { return };
        let ip = ip_header_len(tuple.remote_ip);
        let mut packet = Frame::new(ip + TCP_HEADER);
        packet.fill(0);
        wire::emit_ip(&mut packet, tuple.local_ip, tuple.remote_ip, IpAttrs::new(IpProtocol::Tcp, 64));
        let mut tcp = TcpPacket::new_unchecked(&mut packet[ip..]);
        tcp.set_src_port(tuple.local_port);
        tcp.set_dst_port(tuple.remote_port);
        tcp.set_header_len(TCP_HEADER as u8);
        tcp.set_seq_number(TcpSeqNumber(sequence as i32));
        tcp.set_rst(rst);
        if let Some(ack) = ack {
            tcp.set_ack_number(TcpSeqNumber(ack as i32));
            tcp.set_ack(true);
        }
        packet.checksum = Checksum::Trusted;
        self.net.output(&path, packet);
    }

    /// The way back for an answer that no socket sends.
    fn reply_path(&self, header: &IpHeader) -> Result<Path> {
        let scope = is_link_local(header.src).then_some(self.arrived_by);
        self.net.tables.route(header.src, scope, Some(header.dst)).map_err(|error| error.to_errno())
    }
}

/// The packet without its extension headers, which smoltcp would not pass.
fn strip_extensions(packet: &Frame, header: &IpHeader) -> Frame {
    let upper = &packet[header.payload_at..header.total_len];
    let mut stripped = Frame::new(wire::IPV6_HEADER + upper.len());
    stripped[..wire::IPV6_HEADER].copy_from_slice(&packet[..wire::IPV6_HEADER]);
    stripped[4..6].copy_from_slice(&(upper.len() as u16).to_be_bytes());
    stripped[6] = header.protocol.into();
    stripped[wire::IPV6_HEADER..].copy_from_slice(upper);
    stripped.checksum = packet.checksum;
    stripped
}
