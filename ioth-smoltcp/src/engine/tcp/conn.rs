//! One connection: a smoltcp socket, its path, and what smoltcp leaves to its user.
//!
//! Read first: RFC 9293 (TCP), RFC 1122 §4.2, tcp(7).

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use ioth_core::{Errno, Events, MacAddr};
use ioth_vde::{Checksum, Frame};
use smoltcp::socket::tcp::State;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{IpEndpoint, IpListenEndpoint, TcpPacket};

use super::context::{Contexts, Wire, with_sequence};
use super::recovery::{Ack, FAST_RETRANSMIT, Recovery};
use crate::engine::SocketId;
use crate::engine::iface::LOOPBACK;
use crate::engine::neigh::Resolution;
use crate::engine::net::Net;
use crate::engine::route::Path;
use crate::engine::wire::{TCP_HEADER, ip_header_len};
use crate::sys::{RECEIVE_BUFFER, SEND_BUFFER, TcpCell};

/// tcp(7), tcp_syn_retries = 6: "approximately 127 seconds".
const CONNECT_TIMEOUT: Duration = Duration::from_secs(127);
/// tcp(7), tcp_synack_retries = 5: "31 seconds" and the wait after the last.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(63);
/// tcp(7), tcp_retries2 = 15: "a hypothetical timeout of 924.6 seconds".
const DATA_TIMEOUT: Duration = Duration::from_secs(924);
/// tcp(7), tcp_orphan_retries = 8: how long data of a closed socket is still tried.
const ORPHAN_TIMEOUT: Duration = Duration::from_secs(100);
/// tcp(7), tcp_fin_timeout: how long a closed socket waits for the peer's FIN.
const FIN_TIMEOUT: Duration = Duration::from_secs(60);
/// Segments with data that are acknowledged at once when a connection begins, so that the peer's slow start does not
/// wait for a delayed acknowledgement: Linux's quick ACK mode (TCP_MAX_QUICKACKS).
const QUICK_ACKS: u8 = 16;
/// How long an acknowledgement then waits for data to travel with.
const ACK_DELAY: Duration = Duration::from_millis(10);

/// SO_KEEPALIVE and its times (tcp(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeepAlive {
    /// TCP_KEEPIDLE: silence before the first probe.
    pub(crate) idle: Duration,
    /// TCP_KEEPINTVL: between probes.
    pub(crate) interval: Duration,
    /// TCP_KEEPCNT: probes without an answer before the peer counts as gone.
    pub(crate) count: u32,
}

/// A connection's two ends. IPv4 in its own form, never mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tuple {
    pub(crate) local_ip: IpAddr,
    pub(crate) local_port: u16,
    pub(crate) remote_ip: IpAddr,
    pub(crate) remote_port: u16,
}

impl Tuple {
    pub(crate) fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Tuple {
            local_ip: local.ip(),
            local_port: local.port(),
            remote_ip: remote.ip(),
            remote_port: remote.port(),
        }
    }

    pub(crate) fn local(&self) -> SocketAddr {
        SocketAddr::new(self.local_ip, self.local_port)
    }

    pub(crate) fn remote(&self) -> SocketAddr {
        SocketAddr::new(self.remote_ip, self.remote_port)
    }
}

/// A connection, from the SYN on.
#[derive(Debug)]
pub(crate) struct Conn {
    cell: TcpCell,
    pub(crate) tuple: Tuple,
    /// The listener whose queue it is or was in.
    pub(crate) parent: Option<SocketId>,
    pub(crate) stage: Stage,
    /// The user closed it: nobody will read or ask.
    pub(crate) orphan: bool,
    /// In the list of connections that have something to send.
    pub(crate) dirty: bool,
    /// Where the timer heap will look after it.
    pub(crate) armed: Option<Instant>,
    /// It has to be over by then.
    give_up_at: Option<Instant>,
    /// Bound to an interface by the user or by a link-local address.
    pub(crate) scope: Option<u32>,
    route: Route,
    /// Largest TCP payload that the peer takes on a wire.
    peer_mss: usize,
    /// Behind the last byte sent, and the next one expected: what TIME_WAIT has to remember.
    pub(crate) sent: (u32, u32),
    /// The sequence number behind all the data that was given.
    given: u32,
    /// A FIN has to follow, once all that was given is sent.
    finishing: bool,
    /// SO_SNDBUF, where it was set.
    pub(crate) send_limit: Option<usize>,
    recovery: Recovery,
    quick_acks: u8,
    keep_alive: Option<KeepAlive>,
    /// The peer was silent for too long and is being asked.
    probing: bool,
    heard: Instant,
}

/// Where a connection stands beside smoltcp's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The handshake is under way.
    Opening,
    /// Established at some time.
    Open,
    /// Out of the demultiplexer: nothing will arrive, but received data may still be read.
    Done,
}

/// The way to the peer as it was last looked up.
#[derive(Debug)]
struct Route {
    path: Path,
    generation: u64,
    mac: Option<(MacAddr, Instant)>,
    /// The size for which smoltcp builds packets.
    context_mtu: usize,
}

/// What an incoming segment did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fed {
    /// Nothing that the demultiplexer has to know.
    Nothing,
    /// The handshake is complete.
    Established,
    /// Reset by the peer, with what the user is to be told.
    Reset(Errno),
    /// An embryonic connection of a listener is gone.
    Reaped,
}

impl Conn {
    /// A connection towards `tuple`'s remote end, its SYN still to be sent.
    pub(crate) fn connect(net: &Net, tuple: Tuple, path: Path, sequence: u32) -> Option<Conn> {
        let mut conn = Conn::new(net, tuple, path, None)?;
        let mut context = with_sequence(conn.route.context_mtu, net.now, sequence);
        let connected = conn.cell.socket_mut(|socket| {
            socket.connect(
                context.context(),
                IpEndpoint::from(tuple.remote()),
                IpEndpoint::from(tuple.local()),
            )
        });
        conn.give_up_at = Some(net.now + CONNECT_TIMEOUT);
        connected.ok().map(|()| conn)
    }

    /// A connection that answers a SYN, which is processed at once.
    pub(crate) fn answer(
        net: &mut Net,
        tuple: Tuple,
        path: Path,
        sequence: u32,
        parent: SocketId,
        syn: &mut Frame,
        out: &mut Vec<Frame>,
    ) -> Option<Conn> {
        let mut conn = Conn::new(net, tuple, path, Some(parent))?;
        let local = tuple.local();
        let endpoint = IpListenEndpoint { addr: Some(local.ip().into()), port: local.port() };
        conn.cell.socket_mut(|socket| socket.listen(endpoint)).ok()?;
        conn.give_up_at = Some(net.now + ACCEPT_TIMEOUT);
        conn.rewrite_mss(syn);
        let mtu = conn.route.context_mtu;
        let mut context = with_sequence(mtu, net.now, sequence);
        conn.cell.with(|set, _| {
            context.poll_ingress_single(net.now, &mut Wire { mtu, rx: Some(syn), tx: out }, set)
        });
        (conn.state() == State::SynReceived).then_some(conn)
    }

    fn new(net: &Net, tuple: Tuple, path: Path, parent: Option<SocketId>) -> Option<Conn> {
        let mut cell = TcpCell::new()?;
        cell.socket_mut(|socket| {
            socket.set_ack_delay(None);
            socket.set_congestion_control(smoltcp::socket::tcp::CongestionControl::Cubic)
        });
        let scope = None;
        let mut conn = Conn {
            cell,
            tuple,
            parent,
            stage: Stage::Opening,
            orphan: false,
            dirty: false,
            armed: None,
            give_up_at: None,
            scope,
            route: Route { path, generation: 0, mac: None, context_mtu: 0 },
            // RFC 9293 §3.7.1: "If an MSS Option is not received at connection setup, TCP implementations MUST
            // assume a default send MSS of 536 (576 - 40) for IPv4 or 1220 (1280 - 60) for IPv6".
            peer_mss: if tuple.remote_ip.is_ipv4() { 536 } else { 1220 },
            sent: (0, 0),
            given: 0,
            finishing: false,
            send_limit: None,
            recovery: Recovery::default(),
            quick_acks: QUICK_ACKS,
            keep_alive: None,
            probing: false,
            heard: net.now,
        };
        conn.use_path(net, path);
        Some(conn)
    }

    pub(crate) fn state(&self) -> State {
        self.cell.socket().state()
    }

    /// Processes a segment. Replies are appended to `out`.
    pub(crate) fn feed(
        &mut self,
        contexts: &mut Contexts,
        now: Instant,
        packet: &mut Frame,
        tcp_at: usize,
        out: &mut Vec<Frame>,
    ) -> Fed {
        let before = self.state();
        let (syn, rst, payload, ack) = {
            let tcp = TcpPacket::new_unchecked(&packet[tcp_at..]);
            let payload = packet.len() - tcp_at - usize::from(tcp.header_len());
            let pure_ack = payload == 0 && tcp.ack() && !(tcp.syn() || tcp.fin() || tcp.rst());
            let ack = match pure_ack {
                true => self.recovery.on_ack(tcp.ack_number().0 as u32, tcp.window_len(), self.sent.0),
                false => Ack::Plain,
            };
            (tcp.syn(), tcp.rst(), payload, ack)
        };
        // smoltcp would go for a fast retransmission, which needs data, and forget the time-out that resends the FIN.
        if matches!(ack, Ack::Duplicate(n) if n >= FAST_RETRANSMIT) && self.unacknowledged() == 0 {
            return Fed::Nothing;
        }
        if syn {
            self.rewrite_mss(packet);
        }
        self.cell.moved += payload;
        self.hear(now);
        if payload > 0 && self.quick_acks > 0 {
            self.quick_acks -= 1;
            if self.quick_acks == 0 {
                self.cell.socket_mut(|socket| socket.set_ack_delay(Some(ACK_DELAY)));
            }
        }
        let mtu = self.route.context_mtu;
        let context = contexts.get(mtu, now);
        self.cell.with(|set, _| {
            context.poll_ingress_single(now, &mut Wire { mtu, rx: Some(packet), tx: out }, set)
        });
        let missing = match ack {
            Ack::Partial => FAST_RETRANSMIT,
            Ack::Duplicate(n) if n + 1 >= self.segments_in_flight() => FAST_RETRANSMIT.saturating_sub(n),
            _ => 0,
        };
        if missing > 0 && self.unacknowledged() > 0 {
            self.recovery.begin(self.sent.0);
            for _ in 0..missing {
                self.cell.with(|set, _| {
                    context.poll_ingress_single(now, &mut Wire { mtu, rx: Some(packet), tx: out }, set)
                });
            }
        }
        let after = self.state();
        if after == before {
            return Fed::Nothing;
        }
        match (before, after) {
            (State::SynReceived, State::Listen) => Fed::Reaped,
            (_, State::Closed) if rst => Fed::Reset(match before {
                State::SynSent => Errno::ECONNREFUSED,
                // Linux's tcp_reset(): the peer had ended its side already.
                State::CloseWait => Errno::EPIPE,
                _ => Errno::ECONNRESET,
            }),
            (State::SynSent | State::SynReceived, State::Established | State::CloseWait) => {
                self.stage = Stage::Open;
                self.give_up_at = None;
                Fed::Established
            }
            _ => Fed::Nothing,
        }
    }

    /// Segments that were sent and not acknowledged.
    fn segments_in_flight(&self) -> usize {
        self.recovery.in_flight(self.sent.0).div_ceil(self.wire_mss(TCP_HEADER))
    }

    /// Lets smoltcp send what it has to, until it has nothing more or `room` packets are out.
    pub(crate) fn pump(&mut self, contexts: &mut Contexts, now: Instant, room: usize, out: &mut Vec<Frame>) {
        if self.stage == Stage::Done {
            return;
        }
        if self.finishing && self.all_sent() {
            self.finishing = false;
            self.cell.socket_mut(|socket| socket.close());
        }
        self.arm_timeout();
        let mtu = self.route.context_mtu;
        let context = contexts.get(mtu, now);
        let until = out.len() + room;
        self.cell.with(|set, _| {
            let mut wire = Wire { mtu, rx: None, tx: out };
            let mut sent = wire.tx.len();
            while sent < until {
                context.poll_egress(now, &mut wire, set);
                if wire.tx.len() == sent {
                    break;
                }
                sent = wire.tx.len();
            }
        });
    }

    /// When it has to be pumped again, however quiet the network is.
    pub(crate) fn deadline(&mut self, contexts: &mut Contexts, now: Instant) -> Option<Instant> {
        if self.stage == Stage::Done {
            return None;
        }
        let context = contexts.get(self.route.context_mtu, now);
        let timer = self.cell.with(|set, _| context.poll_at(now, set));
        [timer, self.give_up_at, self.probe_at()].into_iter().flatten().min()
    }

    /// Starts to ask a peer that was silent for too long. smoltcp sends the probes, the first one at once.
    pub(crate) fn probe(&mut self, now: Instant) {
        if let Some(keep_alive) = self.keep_alive
            && self.probe_at().is_some_and(|at| now >= at)
        {
            self.probing = true;
            self.give_up_at = Some(now + keep_alive.interval * keep_alive.count);
            self.cell.socket_mut(|socket| socket.set_keep_alive(Some(keep_alive.interval)));
        }
    }

    /// When the peer will have been silent for too long. Unacknowledged data asks by itself.
    fn probe_at(&self) -> Option<Instant> {
        let idle = self.stage == Stage::Open && !self.orphan && !self.probing && self.unacknowledged() == 0;
        self.keep_alive.filter(|_| idle).map(|keep_alive| self.heard + keep_alive.idle)
    }

    fn hear(&mut self, now: Instant) {
        self.heard = now;
        if std::mem::take(&mut self.probing) {
            self.give_up_at = None;
            self.cell.socket_mut(|socket| socket.set_keep_alive(None));
        }
    }

    /// Whether its time is over: nobody answered.
    pub(crate) fn expired(&self, now: Instant) -> bool {
        self.give_up_at.is_some_and(|at| now >= at)
    }

    /// Sends a packet that smoltcp built on its way.
    pub(crate) fn transmit(&mut self, net: &mut Net, mut packet: Frame) {
        let ip = ip_header_len(self.tuple.remote_ip);
        let (sequence, segment_len, header_len, acknowledged) = {
            let tcp = TcpPacket::new_unchecked(&packet[ip..]);
            (
                tcp.seq_number().0 as u32,
                tcp.segment_len(),
                usize::from(tcp.header_len()),
                tcp.ack_number().0 as u32,
            )
        };
        let syn = packet[ip + 13] & 0x02 != 0;
        let end = sequence.wrapping_add(segment_len as u32);
        if end.wrapping_sub(self.sent.0) as i32 > 0 || syn {
            self.sent.0 = end;
        } else if segment_len > 0 {
            self.recovery.on_retransmit(sequence);
        }
        if syn {
            self.given = end;
        } else {
            lower_window(&mut packet, ip);
        }
        self.sent.1 = acknowledged;
        if net.generation() != self.route.generation {
            match net.tables.route(self.tuple.remote_ip, self.scope, Some(self.tuple.local_ip)) {
                Ok(path) => self.use_path(net, path),
                Err(_) => {
                    net.drops.no_route += 1;
                    return;
                }
            }
        }
        packet.checksum = Checksum::Trusted;
        if syn {
            let mss = self.route.path.mtu.min(usize::from(u16::MAX)).saturating_sub(ip + TCP_HEADER);
            set_mss(&mut packet, ip, mss);
        }
        let mss = self.wire_mss(header_len);
        if packet.len() - ip - header_len > mss {
            packet.gso_size = NonZeroU16::new(mss as u16);
        }
        let ifindex = self.route.path.ifindex;
        if ifindex == LOOPBACK {
            return net.output_loopback(packet);
        }
        if let Some((mac, fresh_until)) = self.route.mac
            && net.now < fresh_until
        {
            return net.output_ethernet(ifindex, mac, packet);
        }
        match net.hardware_address(ifindex, self.route.path.next_hop, packet) {
            Resolution::Known { mac, packet, fresh_until } => {
                self.route.mac = Some((mac, fresh_until));
                self.route.generation = net.generation();
                net.output_ethernet(ifindex, mac, packet);
            }
            Resolution::Queued { ask: true } => net.solicit((ifindex, self.route.path.next_hop), None),
            Resolution::Queued { ask: false } => {}
        }
    }

    /// The interface that its packets leave by.
    pub(crate) fn ifindex(&self) -> u32 {
        self.route.path.ifindex
    }

    /// Appends data to what is to be sent: the number of bytes that found room.
    pub(crate) fn send(&mut self, data: &[u8]) -> usize {
        let mut sent = 0;
        while sent < data.len() {
            let n = self.cell.socket_mut(|socket| {
                socket.send(|room| {
                    let n = room.len().min(data.len() - sent);
                    copy(&mut room[..n], &data[sent..sent + n]);
                    (n, n)
                })
            });
            match n {
                Ok(n) if n > 0 => sent += n,
                _ => break,
            }
        }
        self.given = self.given.wrapping_add(sent as u32);
        self.cell.moved += sent;
        sent
    }

    /// Takes received data: the number of bytes.
    pub(crate) fn recv(&mut self, data: &mut [u8]) -> usize {
        let mut received = 0;
        while received < data.len() {
            let n = self.cell.socket_mut(|socket| {
                socket.recv(|queued| {
                    let n = queued.len().min(data.len() - received);
                    copy(&mut data[received..received + n], &queued[..n]);
                    (n, n)
                })
            });
            match n {
                Ok(n) if n > 0 => received += n,
                _ => break,
            }
        }
        received
    }

    /// Looks at received data from `offset` on: the number of bytes.
    pub(crate) fn peek(&mut self, offset: usize, data: &mut [u8]) -> usize {
        self.cell.socket_mut(|socket| {
            let queued = socket.recv_queue();
            if offset >= queued {
                return 0;
            }
            // smoltcp peeks from the front only, so what was copied already is copied over.
            let mut front = vec![0; (offset + data.len()).min(queued)];
            let peeked = socket.peek_slice(&mut front).unwrap_or(0);
            let fresh = peeked.saturating_sub(offset);
            data[..fresh].copy_from_slice(&front[offset..offset + fresh]);
            fresh
        })
    }

    /// Bytes received and not read.
    pub(crate) fn received(&self) -> usize {
        self.cell.socket().recv_queue()
    }

    /// Bytes given and not acknowledged.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.cell.socket().send_queue()
    }

    /// Whether the peer's FIN has arrived, after all its data.
    pub(crate) fn peer_finished(&self) -> bool {
        matches!(self.state(), State::CloseWait | State::LastAck | State::Closing | State::TimeWait)
            || (self.stage == Stage::Done)
    }

    /// Whether data may still be given.
    pub(crate) fn may_send(&self) -> bool {
        self.cell.socket().may_send()
    }

    /// Linux's `sk_stream_is_writeable`: at least a third of the buffer is free.
    fn writable(&self) -> bool {
        let size = self.send_limit.unwrap_or(SEND_BUFFER).min(SEND_BUFFER);
        self.send_room() >= size / 3
    }

    /// How much data still fits.
    pub(crate) fn send_room(&self) -> usize {
        let size = self.send_limit.unwrap_or(SEND_BUFFER).min(SEND_BUFFER);
        size.saturating_sub(self.unacknowledged())
    }

    /// Ends the sending direction with a FIN.
    pub(crate) fn finish(&mut self) {
        // smoltcp 0.14 takes no window updates in LAST-ACK: data that the window does not let out would wait there for
        // a probe. So that state is entered when all is sent.
        if self.state() == State::CloseWait && !self.all_sent() {
            self.finishing = true;
            self.set_nagle(false);
        } else {
            self.cell.socket_mut(|socket| socket.close());
        }
    }

    fn all_sent(&self) -> bool {
        self.given.wrapping_sub(self.sent.0) as i32 <= 0
    }

    /// Ends both directions with a RST, which the next pump sends.
    pub(crate) fn abort(&mut self) {
        self.cell.socket_mut(|socket| socket.abort());
    }

    /// The user is gone; what was given is still delivered.
    pub(crate) fn abandon(&mut self, now: Instant) {
        self.orphan = true;
        if self.state() == State::FinWait2 {
            self.give_up_at = Some(now + FIN_TIMEOUT);
        }
    }

    /// For an orphan: not everything that was given is acknowledged, the FIN included.
    pub(crate) fn is_delivering(&self) -> bool {
        let closing = matches!(self.state(), State::FinWait1 | State::Closing | State::LastAck);
        self.orphan && self.stage != Stage::Done && (closing || self.unacknowledged() > 0)
    }

    /// For an orphan: the peer has acknowledged everything, and gets a minute for its FIN.
    pub(crate) fn watch_orphan(&mut self, now: Instant) {
        if self.orphan && self.state() == State::FinWait2 && self.give_up_at.is_none() {
            self.give_up_at = Some(now + FIN_TIMEOUT);
        }
    }

    /// Whether an acknowledgement is still held back: nothing else that TIME_WAIT waits for comes this soon.
    pub(crate) fn owes_ack(&mut self, contexts: &mut Contexts, now: Instant) -> bool {
        self.deadline(contexts, now).is_some_and(|at| at < now + Duration::from_secs(1))
    }

    /// Whether smoltcp has forgotten the peer: a RST was sent or received, or the last ACK arrived.
    pub(crate) fn over(&self) -> bool {
        self.state() == State::Closed && self.cell.socket().remote_endpoint().is_none()
    }

    pub(crate) fn set_nagle(&mut self, on: bool) {
        self.cell.socket_mut(|socket| socket.set_nagle_enabled(on));
    }

    pub(crate) fn set_keep_alive(&mut self, keep_alive: Option<KeepAlive>) {
        if self.keep_alive != keep_alive {
            let heard = self.heard;
            self.hear(heard);
            self.keep_alive = keep_alive;
        }
    }

    pub(crate) fn set_hop_limit(&mut self, hops: u8) {
        self.cell.socket_mut(|socket| socket.set_hop_limit(Some(hops.max(1))));
    }

    /// The segment size towards the peer, in bytes of payload: TCP_MAXSEG.
    pub(crate) fn mss(&self) -> usize {
        self.wire_mss(TCP_HEADER)
    }

    /// The poll bits of a connection, as Linux's tcp_poll() has them.
    pub(crate) fn events(&self, shut_read: bool, shut_write: bool) -> Events {
        let state = self.state();
        let mut events = Events::empty();
        let over = self.stage == Stage::Done;
        if over && !matches!(state, State::TimeWait) || (shut_read || self.peer_finished()) && shut_write {
            events |= Events::HUP;
        }
        if shut_read || self.peer_finished() {
            events |= Events::IN | Events::RDHUP;
        }
        if self.stage == Stage::Opening {
            return events;
        }
        if self.received() > 0 {
            events |= Events::IN;
        }
        if shut_write || over || !self.may_send() || self.writable() {
            events |= Events::OUT;
        }
        events
    }

    /// smoltcp's time-out kills idle connections too: it is only on while something is outstanding.
    fn arm_timeout(&mut self) {
        let orphan = self.orphan;
        self.cell.socket_mut(|socket| {
            let closing = matches!(socket.state(), State::FinWait1 | State::Closing | State::LastAck);
            let timeout = match socket.state() {
                // The handshake has a deadline of ours, after which no RST is sent.
                State::SynSent | State::SynReceived => None,
                _ if orphan && (closing || socket.send_queue() > 0) => Some(ORPHAN_TIMEOUT),
                _ if closing || socket.send_queue() > 0 => Some(DATA_TIMEOUT),
                _ => None,
            };
            socket.set_timeout(timeout);
        });
    }

    fn use_path(&mut self, net: &Net, path: Path) {
        let (gso_max, _) = net.offload(path.ifindex);
        self.route = Route {
            context_mtu: path.mtu.max(gso_max).min(usize::from(u16::MAX)),
            path,
            generation: net.generation(),
            mac: None,
        };
    }

    /// The peer's segment size is kept; smoltcp is told one of its own packet size, so that it builds super-frames.
    fn rewrite_mss(&mut self, packet: &mut Frame) {
        let ip = if packet[0] >> 4 == 4 {
            usize::from(packet[0] & 0x0f) * 4
        } else {
            crate::engine::wire::IPV6_HEADER
        };
        if let Some(mss) = mss_of(packet, ip) {
            self.peer_mss = usize::from(mss).max(48);
        }
        let path_mss = self.route.path.mtu.saturating_sub(ip_header_len(self.tuple.remote_ip) + TCP_HEADER);
        if self.route.context_mtu > self.route.path.mtu && self.peer_mss >= 536.min(path_mss) {
            set_mss(packet, ip, self.route.context_mtu - ip_header_len(self.tuple.remote_ip) - TCP_HEADER);
        }
    }

    /// How much payload a segment carries on the wire.
    fn wire_mss(&self, header_len: usize) -> usize {
        let path = self.route.path.mtu.min(usize::from(u16::MAX));
        let path_mss = path.saturating_sub(ip_header_len(self.tuple.remote_ip) + header_len);
        path_mss.min(self.peer_mss).max(1)
    }
}

/// Copies in pieces of 2 KiB.
///
/// glibc copies longer pieces with `rep movsb`, which on AMD's Zen 3 and 4 is several times slower than its loop when
/// source and destination lie alike within their pages (glibc bug 30994).
fn copy(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.chunks_mut(2048).zip(from.chunks(2048)) {
        to.copy_from_slice(from);
    }
}

/// The window that a connection can offer at most, in bytes: SO_RCVBUF.
pub(crate) const fn receive_buffer() -> usize {
    RECEIVE_BUFFER
}

/// SO_SNDBUF in bytes.
pub(crate) const fn send_buffer() -> usize {
    SEND_BUFFER
}

/// Offers the peer one unit less of window than smoltcp has.
///
/// RFC 9293 §3.8.6: "a receiver SHOULD NOT shrink the window". smoltcp 0.14 rounds it down to whole units of the window
/// scale, so that its end moves back by up to one unit less a byte when an odd number of bytes is acknowledged, and
/// takes only what is below that end: the last bytes that an earlier window let in would be cut off.
fn lower_window(packet: &mut [u8], tcp_at: usize) {
    let Some(window) = packet.get_mut(tcp_at + 14..tcp_at + 16) else { return };
    let lower = u16::from_be_bytes([window[0], window[1]]).saturating_sub(1);
    window.copy_from_slice(&lower.to_be_bytes());
}

/// Where the value of a segment's MSS option is (RFC 9293 §3.7.1).
fn mss_at(packet: &[u8], tcp_at: usize) -> Option<usize> {
    let header_len = usize::from(packet.get(tcp_at + 12)? >> 4) * 4;
    let options = packet.get(tcp_at + TCP_HEADER..tcp_at + header_len)?;
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        match kind {
            0 => return None,
            1 => at += 1,
            _ => {
                let len = usize::from(*options.get(at + 1)?);
                if kind == 2 && len == 4 && options.len() >= at + 4 {
                    return Some(tcp_at + TCP_HEADER + at + 2);
                }
                at += len.max(2);
            }
        }
    }
    None
}

fn mss_of(packet: &[u8], tcp_at: usize) -> Option<u16> {
    let at = mss_at(packet, tcp_at)?;
    Some(u16::from_be_bytes([packet[at], packet[at + 1]])).filter(|&mss| mss != 0)
}

fn set_mss(packet: &mut [u8], tcp_at: usize, mss: usize) {
    if let Some(at) = mss_at(packet, tcp_at) {
        packet[at..at + 2].copy_from_slice(&(mss.min(usize::from(u16::MAX)) as u16).to_be_bytes());
    }
}
