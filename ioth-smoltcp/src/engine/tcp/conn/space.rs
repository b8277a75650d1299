//! How much a connection may receive and send ahead: buffers that grow with what their connection can use.
//!
//! smoltcp's rings have the size that they were made with, and cost memory where they are used. What bounds their use is
//! here: the window that is offered to the peer, and how much the user may give before something is acknowledged.
//!
//! * A window begins with 64 KiB and doubles when more than half of it was read within a round trip, by a reader who
//!   keeps up: then the next round trip may well need more. (Linux's tcp_rcv_space_adjust().)
//! * What may be sent ahead is twice what was under way at a time. (Linux's tcp_sndbuf_expand().)
//! * SO_RCVBUF and SO_SNDBUF end this, as Linux's SOCK_RCVBUF_LOCK and SOCK_SNDBUF_LOCK do.
//! * What all connections of a stack have grown by is bounded.
//!
//! A ring's pages are used in turn, all of them, however little is in it: once a second those are given back in which
//! nothing is.
//!
//! Read first: RFC 9293 §3.8.6, RFC 7323 §2, tcp(7) on tcp_moderate_rcvbuf.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ioth_vde::Frame;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::tcp::State;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    IpAddress, IpEndpoint, IpListenEndpoint, IpProtocol, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

use super::header::set_scale;
use super::{Conn, FIRST_FLIGHT, Stage, initial_window};
use crate::engine::tcp::context::{Contexts, Wire, with_sequence};
use crate::engine::wire::{self, IpAttrs, ip_header_len};
use crate::sys::{Size, TcpCell, WARM_BYTES};

/// The window of a connection that has not read anything yet: what Linux's second number of tcp_rmem, 131072, is worth.
const FIRST_WINDOW: usize = 65_536;
/// Linux's second number of tcp_wmem: SO_SNDBUF before there is a connection.
const FIRST_SEND_BUFFER: usize = 16_384;
/// The most that SO_RCVLOWAT makes a window wait for, unless SO_RCVBUF says otherwise.
const MAX_LOW_WATER: usize = Size::Near.receive() / 2;
/// What all connections of a stack together may have grown by, in bytes: Linux's tcp_mem.
const POOL: usize = 256 << 20;
/// Round trips from which on a connection has large rings: 1 MiB each are good for 2 Gbit/s.
const FAR: u64 = 4_000;
/// The shortest time in which reading is measured, and that of a path whose round trip is not known.
const MIN_SPAN: u64 = 1_000;
const UNKNOWN_SPAN: u64 = 100_000;
/// A reader who lets more time than this go by does not keep up.
const LATE: Duration = Duration::from_millis(10);
/// How often memory is given back at most.
const TRIM_INTERVAL: Duration = Duration::from_secs(1);

/// What the connections of a stack share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool(Arc<AtomicUsize>);

/// A connection's part of it, given back when it is over.
#[derive(Debug, Default)]
struct Share {
    pool: Pool,
    taken: usize,
}

impl Share {
    /// So much more; false when the stack has given all it has.
    fn take(&mut self, bytes: usize) -> bool {
        let Pool(taken) = &self.pool;
        let enough = |taken: usize| taken.checked_add(bytes).filter(|taken| *taken <= POOL);
        let took = taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enough).is_ok();
        self.taken += if took { bytes } else { 0 };
        took
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.pool.0.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

/// The buffers of a connection, as far as they may be used.
#[derive(Debug)]
pub(super) struct Space {
    share: Share,
    /// Bytes that may be received and not read; SO_RCVBUF has decided about it.
    window: usize,
    window_locked: bool,
    /// Bytes that may be given and not acknowledged; SO_SNDBUF has decided about it.
    send: usize,
    send_locked: bool,
    /// The sequence number behind what the peer was ever allowed to send, and the window that our SYN offered.
    pub(super) offered: Option<u32>,
    pub(super) first_offer: usize,
    /// Bytes read since the measurement began, and the most that one measured.
    read: usize,
    since: Instant,
    most_read: usize,
    /// Bytes read, ever: where smoltcp reads in its ring.
    read_total: u64,
    /// When memory was given back last.
    trimmed: Instant,
}

impl Space {
    pub(super) fn new(pool: &Pool, now: Instant, window: Option<usize>) -> Self {
        Space {
            share: Share { pool: pool.clone(), taken: 0 },
            window: window.unwrap_or(FIRST_WINDOW),
            window_locked: window.is_some(),
            send: FIRST_SEND_BUFFER,
            send_locked: false,
            offered: None,
            first_offer: 0,
            read: 0,
            since: now,
            most_read: 0,
            read_total: 0,
            trimmed: now,
        }
    }
}

impl Conn {
    /// SO_RCVBUF and SO_SNDBUF as they were set, and SO_RCVLOWAT.
    pub(crate) fn set_space(&mut self, receive: Option<usize>, send: Option<usize>, low: usize) {
        match receive {
            // Half of SO_RCVBUF is for bookkeeping (tcp(7), tcp_adv_win_scale).
            Some(bytes) => (self.space.window, self.space.window_locked) = (bytes / 2, true),
            // Linux's tcp_set_rcvlowat(): the window has to have room for it.
            None if low > self.space.window && !self.space.window_locked => {
                let more = low - self.space.window;
                if self.space.share.take(more) {
                    self.space.window = low;
                }
            }
            None => {}
        }
        if let Some(bytes) = send {
            (self.space.send, self.space.send_locked) = (bytes, true);
        }
    }

    /// The handshake is complete: Linux's tcp_init_buffer_space() lets twice the first flight be given.
    pub(super) fn open_space(&mut self) {
        // The Nagle algorithm looks at super-frames as segments: while one is under way another has to become full.
        let super_frames = 4 * self.route.context_mtu;
        self.grow_send((2 * FIRST_FLIGHT * linux_size(self.mss())).max(super_frames));
    }

    /// Bytes that may be received and not read.
    pub(super) fn window(&self) -> usize {
        let ring = self.cell.socket().recv_capacity();
        self.space.window.min(ring - margin(self.ring_scale()).min(ring))
    }

    /// Bytes that may be given and not acknowledged.
    pub(super) fn send_limit(&self) -> usize {
        self.space.send.min(self.cell.size().send())
    }

    /// SO_RCVBUF and SO_SNDBUF of a connection that adjusts them itself.
    pub(crate) fn automatic_buffers(&self) -> (usize, usize) {
        (2 * self.space.window.max(FIRST_WINDOW), self.send_limit())
    }

    /// The most that was read within a round trip: TCP_INFO's tcpi_rcv_space.
    pub(super) fn read_at_once(&self) -> usize {
        self.space.most_read.max(initial_window(self.announced_mss()))
    }

    /// By how many bits smoltcp shifts its window (RFC 7323 §2.3): as many as its ring needs.
    pub(super) fn ring_scale(&self) -> u8 {
        self.peer_scale.map_or(0, |_| scale_for(self.cell.socket().recv_capacity()))
    }

    /// By how many bits the window is shifted that the peer is told.
    pub(super) fn wire_scale(&self) -> u8 {
        self.peer_scale.map_or(0, |_| self.own_scale)
    }

    /// Puts the window of ours into a segment that smoltcp made, in place of its own.
    ///
    /// RFC 9293 §3.8.6: "a receiver SHOULD NOT shrink the window". The end of what was offered stays where it is, or moves
    /// on by what is worth telling (§3.8.6.2.2, the silly window syndrome). smoltcp takes what lies before the end of
    /// its own window, which it rounds down to whole units: so ours ends one unit before.
    pub(super) fn put_window(&mut self, packet: &mut [u8], tcp_at: usize) {
        let mut tcp = TcpPacket::new_unchecked(&mut packet[tcp_at..]);
        if tcp.rst() || !(tcp.syn() || tcp.ack()) {
            return;
        }
        let ack = tcp.ack_number().0 as u32;
        if tcp.syn() {
            // RFC 7323 §2.2: "The window field in a segment where the SYN bit is set (i.e., a <SYN> or <SYN,ACK>) MUST NOT
            // be scaled."
            let window = usize::from(tcp.window_len()).min(self.window());
            tcp.set_window_len(window as u16);
            self.space.first_offer = window;
            self.space.offered = tcp.ack().then(|| ack.wrapping_add(window as u32));
            set_scale(packet, tcp_at, self.own_scale);
            return;
        }
        let (ring, wire) = (self.ring_scale(), self.wire_scale());
        let most = usize::from(tcp.window_len()).saturating_sub(usize::from(ring > 0)) << ring;
        let unread = self.received();
        let target = self.window().saturating_sub(unread).min(most);
        // Bytes that the peer may still send of what it was offered before.
        let left = match self.space.offered {
            Some(edge) => (edge.wrapping_sub(ack) as i32).max(0) as usize,
            None => self.space.first_offer,
        };
        let wanted = if target >= left + self.worth_telling() { target } else { left };
        let unit = 1 << wire;
        let up = wanted.next_multiple_of(unit);
        // Rounded up, as Linux does, lest the last bytes be left for window probes: which must not go on for ever.
        let window = if up <= most && up <= target + 2 * unit { up } else { wanted / unit * unit };
        let window = window.min(usize::from(u16::MAX) << wire);
        tcp.set_window_len((window >> wire) as u16);
        self.space.offered = Some(ack.wrapping_add(window.max(left) as u32));
    }

    /// Whether the peer has to be told that there is room again: Linux's tcp_cleanup_rbuf() does when the window is at
    /// least doubled by it.
    pub(crate) fn owes_window(&self) -> bool {
        let open = matches!(self.state(), State::Established | State::FinWait1 | State::FinWait2);
        let Some(edge) = self.space.offered.filter(|_| open && self.stage == Stage::Open) else {
            return false;
        };
        let left = self.until(edge);
        let target = self.window().saturating_sub(self.received());
        // Without a scale the peer can't be told more than this.
        let target = target.min(usize::from(u16::MAX) << self.wire_scale());
        target >= 2 * left && target >= left + self.worth_telling()
    }

    /// How much more of a window makes it worth telling: a segment, or half the window where that is less.
    fn worth_telling(&self) -> usize {
        let segment = self.announced_mss().max(1 << self.wire_scale());
        segment.min(self.window() / 2).max(1)
    }

    /// Bytes from what is expected next up to the end of what was offered.
    pub(super) fn until(&self, edge: u32) -> usize {
        (edge.wrapping_sub(self.guard.expected) as i32).max(0) as usize
    }

    /// The user has read so much.
    pub(crate) fn note_read(&mut self, now: Instant, bytes: usize) {
        let span = self.rtt.smoothed().unwrap_or(UNKNOWN_SPAN).max(MIN_SPAN);
        let late = Duration::from_micros(2 * span).max(LATE);
        let limit = self.window();
        let space = &mut self.space;
        space.read_total += bytes as u64;
        // What a sleeper finds says nothing of the path: it was the window that held the rest back.
        if now - space.since > Duration::from_micros(span) || now - self.data_received > late {
            (space.since, space.read) = (now, 0);
        }
        if now - self.data_received > late {
            return;
        }
        space.read += bytes;
        space.most_read = space.most_read.max(space.read);
        let most = self.cell.socket().recv_capacity();
        if space.window_locked || space.read <= limit / 2 || space.window >= most {
            return;
        }
        let more = space.window.min(most - space.window);
        if space.share.take(more) {
            space.window += more;
        }
        (space.since, space.read) = (now, 0);
    }

    /// So much is under way: as much again may wait behind it.
    pub(super) fn note_flight(&mut self, bytes: usize) {
        self.grow_send(2 * bytes);
    }

    fn grow_send(&mut self, bytes: usize) {
        let bytes = bytes.min(self.cell.size().send());
        let space = &mut self.space;
        if !space.send_locked && bytes > space.send && space.share.take(bytes - space.send) {
            space.send = bytes;
        }
    }

    /// When memory is to be given back.
    pub(super) fn trim_at(&self) -> Option<Instant> {
        // What is left after the last acknowledgement goes with its rings.
        let worth = self.cell.moved > WARM_BYTES && self.state() != State::TimeWait;
        worth.then(|| self.space.trimmed + TRIM_INTERVAL)
    }

    /// Gives the memory back that the rings used and do not need now.
    pub(super) fn trim(&mut self, now: Instant) {
        if self.trim_at().is_none_or(|at| now < at) {
            return;
        }
        self.space.trimmed = now;
        self.cell.moved = 0;
        let ring = self.cell.socket().recv_capacity();
        let start = (self.space.read_total % ring as u64) as usize;
        let live = self.received() + self.overtaken();
        if live < ring {
            self.cell.trim_receive(start, live);
        }
        if self.cell.socket().send_queue() == 0 {
            self.cell.trim_send();
        }
    }

    /// Bytes of its rings that are in memory.
    #[cfg(test)]
    pub(crate) fn resident(&self) -> usize {
        self.cell.resident()
    }

    /// Whether the answer to our SYN took so long that the path can have more under way than the rings hold.
    pub(super) fn is_far(&self) -> bool {
        self.cell.size() == Size::Near
            && !(self.space.window_locked && self.space.send_locked)
            && self.rtt.smoothed().is_none_or(|micros| micros >= FAR)
    }

    /// Takes larger rings, while there is nothing in them: the handshake so far is played to a new socket of smoltcp's.
    ///
    /// Before, nobody can know that they are needed; afterwards, there is no way to give smoltcp others.
    pub(super) fn take_larger_rings(&mut self, contexts: &mut Contexts, now: Instant) {
        let receive =
            if self.space.window_locked { self.cell.socket().recv_capacity() } else { Size::Far.receive() };
        let Some(mut cell) = TcpCell::new(Size::Far, receive) else { return };
        let old = self.cell.socket();
        let (nagle, ack_delay, hops, keep_alive) =
            (old.nagle_enabled(), old.ack_delay(), old.hop_limit(), old.keep_alive());
        let control = self.congestion.control();
        cell.socket_mut(|socket| {
            socket.set_nagle_enabled(nagle);
            socket.set_ack_delay(ack_delay);
            socket.set_hop_limit(hops);
            socket.set_keep_alive(keep_alive);
            socket.set_congestion_control(control);
        });
        contexts.teach_initial_window(&mut cell, now, initial_window(self.announced_mss()));
        let (mtu, clock) = (self.route.context_mtu, self.flight.clock(now));
        let mut context = with_sequence(mtu, clock, self.initial_sequence);
        // What it says was said before.
        let mut said = Vec::new();
        let begun = match self.state() {
            State::SynSent => cell.socket_mut(|socket| {
                let remote = IpEndpoint::from(self.tuple.remote());
                socket.connect(context.context(), remote, IpEndpoint::from(self.tuple.local())).is_ok()
            }),
            State::SynReceived if self.parent.is_some() => {
                let local = self.tuple.local();
                let endpoint = IpListenEndpoint { addr: Some(local.ip().into()), port: local.port() };
                let listens = cell.socket_mut(|socket| socket.listen(endpoint)).is_ok();
                let syn = self.peer_syn();
                let mut wire = Wire { mtu, rx: Some(&syn), tx: &mut said };
                cell.with(|set, _| context.poll_ingress_single(clock, &mut wire, set));
                listens
            }
            _ => false,
        };
        if !begun || cell.socket().state() != self.state() {
            return;
        }
        let context = contexts.get(mtu, clock);
        cell.with(|set, _| context.poll_egress(clock, &mut Wire { mtu, rx: None, tx: &mut said }, set));
        self.cell = cell;
    }

    /// The peer's SYN as smoltcp was told it.
    fn peer_syn(&self) -> Frame {
        let tcp = TcpRepr {
            src_port: self.tuple.remote_port,
            dst_port: self.tuple.local_port,
            control: TcpControl::Syn,
            seq_number: TcpSeqNumber(self.guard.peer_initial as i32),
            ack_number: None,
            window_len: u16::MAX,
            window_scale: self.peer_scale,
            max_seg_size: self.told_mss,
            sack_permitted: self.peer_sack,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        };
        let ip = ip_header_len(self.tuple.remote_ip);
        let mut packet = Frame::new(ip + tcp.header_len());
        let attrs = IpAttrs::new(IpProtocol::Tcp, 64);
        wire::emit_ip(&mut packet, self.tuple.remote_ip, self.tuple.local_ip, attrs);
        let mut segment = TcpPacket::new_unchecked(&mut packet[ip..]);
        let [from, to] = [self.tuple.remote_ip, self.tuple.local_ip].map(IpAddress::from);
        tcp.emit(&mut segment, &from, &to, &ChecksumCapabilities::ignored());
        packet
    }
}

/// What a full segment counts for in SO_SNDBUF: Linux's tcp_sndbuf_expand() adds headers and what describes a packet.
fn linux_size(mss: usize) -> usize {
    const HEADERS: usize = 640;
    const DESCRIPTION: usize = 256;
    (mss + HEADERS).next_power_of_two() + DESCRIPTION
}

/// What a ring has to have beyond the window that is offered of it: smoltcp rounds its own down to whole units, and its
/// end must never move back before ours.
fn margin(scale: u8) -> usize {
    if scale == 0 { 0 } else { 2 << scale }
}

/// Bits by which the window of a buffer of so many bytes is shifted, as smoltcp computes it.
pub(super) fn scale_for(bytes: usize) -> u8 {
    (usize::BITS - bytes.leading_zeros()).saturating_sub(16) as u8
}

/// SO_RCVBUF and SO_SNDBUF of a stream without a connection, where they were not set.
pub(crate) const fn first_buffers() -> (usize, usize) {
    (2 * FIRST_WINDOW, FIRST_SEND_BUFFER)
}

/// SO_RCVLOWAT's upper bound where SO_RCVBUF was not set: Linux's tcp_set_rcvlowat().
pub(crate) const fn max_low_water() -> usize {
    MAX_LOW_WATER
}
