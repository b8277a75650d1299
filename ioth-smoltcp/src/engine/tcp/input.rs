//! Segments on their way in: to their connection, to a listener, or back as a RST.
//!
//! Read first: RFC 9293 §3.10.7, RFC 4987 (SYN floods), RFC 1337 (TIME_WAIT).

use std::net::SocketAddr;

use ioth_core::{Errno, Result};
use ioth_vde::{Checksum, Frame};
use smoltcp::socket::tcp::State;
use smoltcp::wire::{IpProtocol, TcpPacket, TcpSeqNumber};

use super::conn::{Conn, Fed, Tuple};
use super::{MAX_EMBRYOS, MAX_PARKED, PARKING_TIME, Role, Stream, Tcp};
use crate::engine::addr::is_link_local;
use crate::engine::ports::Space;
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
        let tcp = TcpPacket::new_unchecked(&packet[tcp_at..]);
        let tuple = Tuple {
            local_ip: header.dst,
            local_port: tcp.dst_port(),
            remote_ip: header.src,
            remote_port: tcp.src_port(),
        };
        // The connection that this one follows may be over and only not yet cleared away.
        if tcp.syn() && !tcp.ack() && self.tcp.connections.contains_key(&tuple) {
            self.tcp_flush();
        }
        if let Some(&id) = self.tcp.connections.get(&tuple) {
            return self.feed(id, packet, tcp_at);
        }
        if let Some(remains) = self.tcp.time_wait.get(self.net.now, &tuple) {
            let newer = (tcp.seq_number().0 as u32).wrapping_sub(remains.receive_next) as i32 >= 0;
            let reopens = tcp.syn() && !tcp.ack() && !tcp.rst() && newer;
            // RFC 1337: a reset does not end TIME_WAIT.
            if !reopens {
                if !tcp.rst() && (tcp.ack() || tcp.fin()) {
                    let fin = tcp.fin();
                    self.reply(header, &tuple, remains.send_next, Some(remains.receive_next), false);
                    if fin {
                        self.tcp.time_wait.restart(self.net.now, tuple);
                    }
                }
                return;
            }
        }
        if tcp.syn()
            && !(tcp.ack() || tcp.rst() || tcp.fin())
            && let Some(listener) = self.listener_for(&tuple)
        {
            return self.spawn(listener, ifindex, tuple, packet);
        }
        self.net.drops.no_socket += 1;
        if tcp.rst() {
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

    /// An ICMP error about a connection of ours. `fatal` in every state, else only while connecting.
    pub(in crate::engine) fn tcp_error(&mut self, local: SocketAddr, remote: SocketAddr, errno: Errno) {
        let Some(&id) = self.tcp.connections.get(&Tuple::new(local, remote)) else { return };
        let Ok(stream) = self.stream_mut(id) else { return };
        // RFC 1122 §4.2.3.9: soft errors do not end an established connection; Linux ends an attempt.
        if stream.conn().is_some_and(|conn| conn.state() == State::SynSent) {
            self.sockets[id.0].error = Some(errno);
            self.detach(id);
        }
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
        let sock = &mut self.sockets[id.0];
        let Kind::Stream(Stream { role: Role::Connection(conn), .. }) = &mut sock.kind else { return };
        let Tcp { contexts, out, .. } = &mut self.tcp;
        let fed = conn.feed(contexts, now, &mut packet, tcp_at, out);
        for reply in out.drain(..) {
            conn.transmit(&mut self.net, reply);
        }
        // Data for a closed socket: nobody will ever read it (RFC 2525 §2.17).
        if conn.orphan && conn.received() > 0 {
            conn.abort();
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

    /// The listener for a SYN: bound to the address itself, or to a wildcard.
    fn listener_for(&self, tuple: &Tuple) -> Option<SocketId> {
        let bindings = self.ports.bindings(Space::Tcp, tuple.local_port).iter();
        let fitting = bindings.filter(|binding| binding.listening);
        let fitting = fitting.filter_map(|binding| Some((binding.fits(tuple.local_ip)?, binding.id)));
        fitting.max_by_key(|(score, _)| *score).map(|(_, id)| id)
    }

    /// A SYN for a listener: a connection of its own from the start.
    fn spawn(&mut self, listener: SocketId, ifindex: u32, tuple: Tuple, mut syn: Frame) {
        if self.accept_queue_full(listener) {
            return self.park(listener, ifindex, syn);
        }
        // The answer goes back where the question came from, if the route leads there.
        let scope = is_link_local(tuple.remote_ip).then_some(ifindex);
        let Ok(path) = self.net.tables.route(tuple.remote_ip, scope, Some(tuple.local_ip)) else {
            self.net.drops.no_route += 1;
            return;
        };
        self.evict_embryo(listener);
        let sequence = self.initial_sequence(&tuple);
        let mut out = std::mem::take(&mut self.tcp.out);
        let conn = Conn::answer(&mut self.net, tuple, path, sequence, listener, &mut syn, &mut out);
        if let Some(mut conn) = conn {
            conn.scope = scope;
            let parent = &self.sockets[listener.0];
            let (domain, options) = (parent.domain, parent.options);
            let mut stream = Stream { role: Role::Connection(Box::new(conn)), ..Stream::default() };
            stream.apply(&options);
            let id = self.insert(domain, Kind::Stream(stream), options);
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
    fn park(&mut self, listener: SocketId, ifindex: u32, packet: Frame) {
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
    pub(super) fn unpark(&mut self, listener: SocketId) {
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
        self.touch(listener);
    }

    /// Takes an embryo out of its listener. False when it was none (any more).
    pub(super) fn forget_embryo(&mut self, listener: SocketId, id: SocketId) -> bool {
        let Ok(Stream { role: Role::Listener(state), .. }) = self.stream_mut(listener) else { return false };
        let before = state.embryos.len();
        state.embryos.retain(|embryo| *embryo != id);
        state.embryos.len() < before
    }

    /// Sends a segment without a connection: a RST, or the last ACK again.
    fn reply(&mut self, header: &IpHeader, tuple: &Tuple, sequence: u32, ack: Option<u32>, rst: bool) {
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
        self.net.tables.route(header.src, None, Some(header.dst)).map_err(|error| error.to_errno())
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
