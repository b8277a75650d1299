//! One connection: a smoltcp socket, its path, and what smoltcp leaves to its user.
//!
//! Read first: RFC 9293 (TCP), RFC 1122 §4.2, tcp(7).

mod counts;
mod data;
mod guard;
mod header;
mod retransmit;
mod rtt;
mod space;
mod timers;
mod transmit;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ioth_core::{Errno, Events, MacAddr};
use ioth_vde::Frame;
use smoltcp::socket::tcp::State;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{IpEndpoint, IpListenEndpoint, TcpPacket};

pub(crate) use counts::Counts;
use guard::Guard;
pub(crate) use guard::Verdict;
pub(crate) use header::mend_options;
pub(crate) use space::{Pool, first_buffers, max_low_water};

use super::context::{Contexts, Wire, with_sequence};
use super::options::{Congestion, TcpOptions};
use super::recovery::{Ack, FAST_RETRANSMIT, Recovery};
use super::sack::Scoreboard;
use crate::engine::SocketId;
use crate::engine::addr::is_link_local;
use crate::engine::ip_options::IpOptions;
use crate::engine::net::Net;
use crate::engine::route::Path;
use crate::engine::sockets::Options;
use crate::engine::timer::Reminders;
use crate::engine::wire::TCP_HEADER;
use crate::sys::{Size, TcpCell};
use retransmit::Flight;
use rtt::Rtt;
use space::Space;

/// tcp(7), tcp_synack_retries = 5: "31 seconds" and the wait after the last.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(63);
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Tuple {
    pub(crate) local_ip: IpAddr,
    pub(crate) local_port: u16,
    pub(crate) remote_ip: IpAddr,
    pub(crate) remote_port: u16,
    /// The interface, where one of the addresses means something on one link only; else 0.
    pub(super) scope: u32,
}

impl Tuple {
    /// `ifindex` is the interface by which its packets come.
    pub(crate) fn new(local: SocketAddr, remote: SocketAddr, ifindex: u32) -> Self {
        let scoped = is_link_local(local.ip()) || is_link_local(remote.ip());
        Tuple {
            scope: if scoped { ifindex } else { 0 },
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
    /// When the timer heap will look after it.
    pub(crate) reminders: Reminders,
    /// It has to be over by then.
    give_up_at: Option<Instant>,
    /// When it began, and TCP_DEFER_ACCEPT's time from then on.
    began: Instant,
    /// Bound to an interface by the user or by a link-local address.
    pub(crate) scope: Option<u32>,
    route: Route,
    /// IP_OPTIONS: what each of its packets carries, if it is one of IPv4.
    ip_options: Option<Arc<IpOptions>>,
    /// Largest TCP payload that the peer takes on a wire.
    peer_mss: usize,
    /// TCP_MAXSEG as it was when the connection began: what we announce, and use.
    mss_limit: Option<u16>,
    /// The same as smoltcp was told it.
    told_mss: Option<u16>,
    /// How much may be received and sent ahead.
    space: Space,
    /// The number of our SYN.
    initial_sequence: u32,
    /// Window scales, ours and the peer's, used where both have one (RFC 7323 §2), and SACK (RFC 2018).
    own_scale: u8,
    scale_offered: bool,
    peer_scale: Option<u8>,
    peer_sack: bool,
    /// Behind the last byte sent, and the next one expected: what TIME_WAIT has to remember.
    pub(crate) sent: (u32, u32),
    /// The sequence number behind all the data that was given.
    given: u32,
    /// A FIN has to follow, once all that was given is sent.
    finishing: bool,
    /// The peer's FIN arrived, after all its data.
    peer_finished: bool,
    /// TCP_CORK
    cork: bool,
    /// The end of what was given, less than a segment, which TCP_CORK or MSG_MORE keeps from leaving; and until when.
    held: Vec<u8>,
    held_until: Option<Instant>,
    /// What the network said of a way that does not lead there.
    pub(crate) soft_error: Option<Errno>,
    guard: Guard,
    recovery: Recovery,
    scoreboard: Scoreboard,
    flight: Flight,
    rtt: Rtt,
    counts: Counts,
    quick_acks: u8,
    congestion: Congestion,
    /// TCP_USER_TIMEOUT, and how long an orphan waits in FIN-WAIT-2.
    user_timeout: Option<Duration>,
    fin_timeout: Option<Duration>,
    keep_alive: Option<KeepAlive>,
    /// The peer was silent for too long and is being asked.
    probing: bool,
    heard: Instant,
    data_sent: Instant,
    data_received: Instant,
    /// When data last became readable: SO_TIMESTAMP.
    readable_at: Instant,
}

/// What a connection begins with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) tuple: Tuple,
    pub(crate) path: Path,
    /// The initial sequence number.
    pub(crate) sequence: u32,
    pub(crate) options: &'a Options,
    /// IP_OPTIONS
    pub(crate) ip_options: Option<&'a Arc<IpOptions>>,
    /// What connections share.
    pub(crate) pool: &'a Pool,
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
    /// A connection towards the tuple's remote end, its SYN still to be sent.
    pub(crate) fn connect(net: &Net, contexts: &mut Contexts, setup: Setup<'_>) -> Option<Conn> {
        let tuple = setup.tuple;
        let mut conn = Conn::new(net, contexts, setup, None)?;
        let mut context = with_sequence(conn.route.context_mtu, net.now, setup.sequence);
        let connected = conn.cell.socket_mut(|socket| {
            socket.connect(
                context.context(),
                IpEndpoint::from(tuple.remote()),
                IpEndpoint::from(tuple.local()),
            )
        });
        conn.give_up_at = Some(net.now + setup.options.tcp.connect_timeout());
        connected.ok().map(|()| conn)
    }

    /// A connection that answers a SYN, which is processed at once.
    pub(crate) fn answer(
        net: &Net,
        contexts: &mut Contexts,
        setup: Setup<'_>,
        parent: SocketId,
        syn: &mut Frame,
        out: &mut Vec<Frame>,
    ) -> Option<Conn> {
        let mut conn = Conn::new(net, contexts, setup, Some(parent))?;
        let local = setup.tuple.local();
        let endpoint = IpListenEndpoint { addr: Some(local.ip().into()), port: local.port() };
        conn.cell.socket_mut(|socket| socket.listen(endpoint)).ok()?;
        let deferral = Duration::from_secs(u64::from(setup.options.tcp.defer_accept_seconds()));
        conn.give_up_at = Some(net.now + ACCEPT_TIMEOUT + deferral);
        conn.hear_syn(syn);
        conn.expect_after(header::sequence(syn));
        let mtu = conn.route.context_mtu;
        let mut context = with_sequence(mtu, net.now, setup.sequence);
        conn.cell.with(|set, _| {
            context.poll_ingress_single(net.now, &mut Wire { mtu, rx: Some(syn), tx: out }, set)
        });
        (conn.state() == State::SynReceived).then_some(conn)
    }

    fn new(net: &Net, contexts: &mut Contexts, setup: Setup<'_>, parent: Option<SocketId>) -> Option<Conn> {
        let Setup { tuple, path, options, .. } = setup;
        let window = window_set(options);
        let mut cell = TcpCell::new(Size::Near, Size::Near.receive())?;
        cell.socket_mut(|socket| {
            socket.set_ack_delay(None);
            socket.set_congestion_control(options.tcp.congestion.control());
        });
        let mut conn = Conn {
            cell,
            tuple,
            parent,
            stage: Stage::Opening,
            orphan: false,
            dirty: false,
            reminders: Reminders::default(),
            give_up_at: None,
            began: net.now,
            scope: None,
            route: Route { path, generation: 0, mac: None, context_mtu: 0 },
            ip_options: setup.ip_options.filter(|_| tuple.remote_ip.is_ipv4()).cloned(),
            // RFC 9293 §3.7.1: "If an MSS Option is not received at connection setup, TCP implementations MUST
            // assume a default send MSS of 536 (576 - 40) for IPv4 or 1220 (1280 - 60) for IPv6".
            peer_mss: if tuple.remote_ip.is_ipv4() { 536 } else { 1220 },
            mss_limit: options.tcp.max_segment,
            told_mss: None,
            space: Space::new(setup.pool, net.now, window),
            initial_sequence: setup.sequence,
            own_scale: space::scale_for(if window.is_some() { Size::Near } else { Size::Far }.receive()),
            scale_offered: parent.is_none(),
            peer_scale: None,
            peer_sack: false,
            sent: (0, 0),
            given: 0,
            finishing: false,
            peer_finished: false,
            cork: false,
            held: Vec::new(),
            held_until: None,
            soft_error: None,
            guard: Guard::default(),
            recovery: Recovery::default(),
            scoreboard: Scoreboard::default(),
            flight: Flight::new(net.now),
            rtt: Rtt::default(),
            // The SYN that is answered is counted here, for it does not come by the way of others.
            counts: Counts { segments_in: u32::from(parent.is_some()), ..Counts::default() },
            quick_acks: QUICK_ACKS,
            congestion: options.tcp.congestion,
            user_timeout: None,
            fin_timeout: None,
            keep_alive: None,
            probing: false,
            heard: net.now,
            data_sent: net.now,
            data_received: net.now,
            readable_at: net.now,
        };
        conn.use_path(net, path);
        let window = initial_window(conn.announced_mss());
        contexts.teach_initial_window(&mut conn.cell, net.now, window);
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
        let closed = self.is_window_closed() && self.flight.knows_window();
        let (syn, rst, payload, ack, within) = {
            let tcp = TcpPacket::new_unchecked(&packet[tcp_at..]);
            let payload = packet.len() - tcp_at - usize::from(tcp.header_len());
            let within = self.is_within_window(&tcp);
            (tcp.syn(), tcp.rst(), payload, self.take_ack(now, &tcp, payload), within)
        };
        if within && let Some(window) = self.flight.stale_window(packet, tcp_at, ack) {
            packet[tcp_at + 14..tcp_at + 16].copy_from_slice(&window.to_be_bytes());
        }
        // smoltcp would go for a fast retransmission, which needs data, and forget the time-out that resends the FIN.
        if matches!(ack, Ack::Duplicate(n) if n >= FAST_RETRANSMIT) && self.unacknowledged() == 0 {
            return Fed::Nothing;
        }
        if within && let Some(fed) = self.take_sack(contexts, now, packet, tcp_at, ack, out) {
            return fed;
        }
        if syn {
            self.hear_syn(packet);
        }
        if self.stage == Stage::Opening && !rst && ack == Ack::New && self.is_far() {
            self.take_larger_rings(contexts, now);
        }
        self.cell.moved += payload;
        self.hear(now);
        if payload > 0 {
            self.data_received = now;
            if self.quick_acks > 0 {
                self.quick_acks -= 1;
                if self.quick_acks == 0 {
                    self.cell.socket_mut(|socket| socket.set_ack_delay(Some(ACK_DELAY)));
                }
            }
        }
        self.process(contexts, now, packet, out);
        let missing = match ack {
            // It is sent again in any case.
            Ack::Partial if self.is_resending() => 0,
            Ack::Partial
                if self.recovery.acknowledged().is_some_and(|una| self.has_lost_many(una))
                    && self.resend_lost(contexts, now, out) =>
            {
                0
            }
            Ack::Partial => FAST_RETRANSMIT,
            Ack::Duplicate(n) if n + 1 >= self.segments_in_flight() => FAST_RETRANSMIT.saturating_sub(n),
            _ => 0,
        };
        if closed && !self.is_window_closed() {
            self.resume_flight(contexts, now, out);
        } else if missing > 0 && self.unacknowledged() > 0 {
            self.recovery.begin(self.sent.0);
            self.repeat_ack(contexts, now, missing, out);
        }
        let after = self.state();
        if after == before {
            return Fed::Nothing;
        }
        self.peer_finished |=
            matches!(after, State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
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
                self.open_space();
                Fed::Established
            }
            _ => Fed::Nothing,
        }
    }

    /// Lets smoltcp have a packet.
    fn process(&mut self, contexts: &mut Contexts, now: Instant, packet: &[u8], out: &mut Vec<Frame>) {
        let (mtu, now) = (self.route.context_mtu, self.flight.clock(now));
        let context = contexts.get(mtu, now);
        self.cell.with(|set, _| {
            context.poll_ingress_single(now, &mut Wire { mtu, rx: Some(packet), tx: out }, set)
        });
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
        if self.held_until.is_some_and(|at| now >= at) {
            self.uncork();
        }
        self.retransmit_due(contexts, now, out);
        self.trim(now);
        let (mtu, now) = (self.route.context_mtu, self.flight.clock(now));
        let until = out.len() + room;
        let cautious = self.cautious_mtu();
        if cautious < mtu {
            let context = contexts.get(cautious, now);
            let mut wire = Wire { mtu: cautious, rx: None, tx: out };
            self.cell.with(|set, _| context.poll_egress(now, &mut wire, set));
        }
        let context = contexts.get(mtu, now);
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

    /// Ends the sending direction with a FIN.
    pub(crate) fn finish(&mut self, now: Instant) {
        self.uncork();
        self.flight.begin(now, self.unacknowledged());
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

    /// Whether our FIN is on its way or there, and the peer's is not here.
    pub(crate) fn has_finished(&self) -> bool {
        matches!(self.state(), State::FinWait1 | State::FinWait2)
    }

    /// Ends both directions with a RST, which the next pump sends.
    pub(crate) fn abort(&mut self) {
        self.cell.socket_mut(|socket| socket.abort());
    }

    /// Whether smoltcp has forgotten the peer: a RST was sent or received, or the last ACK arrived.
    pub(crate) fn over(&self) -> bool {
        self.state() == State::Closed && self.cell.socket().remote_endpoint().is_none()
    }

    /// Brings it in line with what tcp(7) sets. What belongs to the handshake was taken when the connection began.
    pub(crate) fn configure(&mut self, options: &TcpOptions) {
        self.set_nagle(!options.no_delay);
        self.user_timeout = options.user_timeout();
        self.fin_timeout = options.fin_timeout();
        if std::mem::replace(&mut self.cork, options.cork) && !options.cork {
            self.uncork();
        }
        if std::mem::replace(&mut self.congestion, options.congestion) != options.congestion {
            self.cell.socket_mut(|socket| socket.set_congestion_control(options.congestion.control()));
        }
    }

    /// TCP_QUICKACK: whether the next segments are acknowledged at once.
    pub(crate) fn quick_ack(&mut self, on: bool) {
        self.quick_acks = if on { QUICK_ACKS } else { 0 };
        self.cell.socket_mut(|socket| socket.set_ack_delay((!on).then_some(ACK_DELAY)));
    }

    fn set_nagle(&mut self, on: bool) {
        self.cell.socket_mut(|socket| socket.set_nagle_enabled(on));
    }

    pub(crate) fn set_hop_limit(&mut self, hops: u8) {
        self.cell.socket_mut(|socket| socket.set_hop_limit(Some(hops.max(1))));
    }

    /// The poll bits of a connection, as Linux's tcp_poll() has them.
    ///
    /// `low`: how many bytes make it readable.
    pub(crate) fn events(&self, shut_read: bool, shut_write: bool, low: usize) -> Events {
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
        if self.is_readable(low) {
            events |= Events::IN;
        }
        if shut_write || over || !self.may_send() || self.writable() {
            events |= Events::OUT;
        }
        events
    }
}

/// The window in bytes, where the user has decided about it. SO_RCVBUF is twice what it stands for (tcp(7),
/// tcp_adv_win_scale).
fn window_set(options: &Options) -> Option<usize> {
    let window = options.receive_buffer.map(|buffer| buffer / 2);
    match options.tcp.window_clamp() {
        0 => window,
        clamp => Some(window.unwrap_or(usize::MAX).min(clamp as usize).min(Size::Near.receive() / 2)),
    }
}

/// RFC 6928 §2: "min (10*MSS, max (2*MSS, 14600))", which Linux rounds to 10 segments.
const FIRST_FLIGHT: usize = 10;

fn initial_window(mss: usize) -> usize {
    FIRST_FLIGHT * mss
}
