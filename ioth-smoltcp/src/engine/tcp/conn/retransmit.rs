//! When data that was not acknowledged is sent again, sooner than smoltcp would.
//!
//! smoltcp waits a second at least (RFC 6298 §2.4) and looks at nothing but its clock; Linux waits 200 ms at least and
//! probes the end of a flight after two round trips. Both need nothing from smoltcp but what it does anyway:
//!
//! * Each connection has a clock of its own. When our time-out is over, the clock is put forward to smoltcp's, which
//!   then sends everything again, with a congestion window of one segment.
//! * Three duplicate acknowledgements make it send the first missing segment again. What smoltcp shall take for an
//!   acknowledgement of the peer's is built here.
//!
//! Read first: RFC 6298, RFC 8985 §7 (tail loss probe), RFC 9293 §3.10.7.4.

use ioth_vde::Frame;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::TcpPacket;

use super::{Conn, Fed, Stage, header};
use crate::engine::tcp::context::{Contexts, Wire};
use crate::engine::tcp::recovery::{Ack, FAST_RETRANSMIT, is_newer};
use crate::engine::wire::{TCP_HEADER, ip_header_len};

/// Linux's TCP_RTO_MAX.
const MAX_TIMEOUT: Duration = Duration::from_secs(120);
/// RFC 8985 §7.2: a lone segment may meet a receiver that delays its acknowledgement ("TLP.max_ack_delay"), others need
/// a little for what the timers are worth (Linux's TCP_TIMEOUT_MIN).
const MAX_ACK_DELAY: Duration = Duration::from_millis(200);
const TIMER_SLACK: Duration = Duration::from_millis(2);
/// Segments of a flight whose loss costs more, sent again one for each round trip, than a congestion window that begins with
/// one segment and doubles.
const MANY: usize = 4;
/// Timers of smoltcp's that may be in front of its time-out: delayed acknowledgements and the like.
const MAX_STEPS: usize = 3;

/// What is under way, and since when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight {
    /// How far smoltcp's clock was put forward.
    skew: Duration,
    /// The last time that something new was sent or acknowledged.
    moved_at: Instant,
    /// The last time that everything was sent again, or `moved_at`.
    waiting_since: Instant,
    /// Since when there is something that is not acknowledged, without any progress.
    pub(super) stuck_since: Instant,
    /// Time-outs in a row.
    pub(super) timeouts: u32,
    /// The end of this flight was probed.
    probed: bool,
    /// Everything before this is being sent again, because many segments of it were lost.
    resending_to: Option<u32>,
    /// Segments that were sent again, ever.
    pub(super) retransmits: u32,
    /// The most segments that were under way at a time.
    pub(super) most: u32,
    /// RFC 9293's SND.WND in the form that it had on the wire, and SND.WL1.
    pub(super) window: u16,
    window_from: Option<u32>,
    /// The end of the window that smoltcp offered last.
    pub(super) edge: u32,
}

impl Flight {
    pub(super) fn new(now: Instant) -> Self {
        Flight {
            skew: Duration::ZERO,
            moved_at: now,
            waiting_since: now,
            stuck_since: now,
            timeouts: 0,
            probed: false,
            resending_to: None,
            retransmits: 0,
            most: 0,
            window: 0,
            window_from: None,
            edge: 0,
        }
    }

    /// Whether the peer has told a window since the handshake.
    pub(super) fn knows_window(&self) -> bool {
        self.window_from.is_some()
    }

    /// smoltcp's time.
    pub(super) fn clock(&self, now: Instant) -> Instant {
        now + self.skew
    }

    /// A moment of smoltcp's time in ours.
    pub(super) fn real(&self, at: Instant) -> Instant {
        at - self.skew
    }

    /// The user gives something to send; so much was there already.
    pub(super) fn begin(&mut self, now: Instant, before: usize) {
        if before == 0 {
            self.stuck_since = now;
        }
    }

    pub(super) fn on_send(&mut self, now: Instant, first: bool) {
        self.moved_at = now;
        self.probed = false;
        if first {
            self.waiting_since = now;
        }
    }

    fn on_progress(&mut self, now: Instant) {
        self.moved_at = now;
        self.waiting_since = now;
        self.stuck_since = now;
        self.timeouts = 0;
        self.probed = false;
    }

    /// The window that a segment should have told: `None` when its own is good.
    ///
    /// RFC 9293 §3.10.7.4: "If SND.WL1 < SEG.SEQ or (SND.WL1 = SEG.SEQ and SND.WL2 =< SEG.ACK), set SND.WND"; of several
    /// with equal numbers Linux believes the largest, and one that is closed. An older segment that was overtaken
    /// must not shrink the window.
    pub(super) fn stale_window(&mut self, packet: &[u8], tcp_at: usize, ack: Ack) -> Option<u16> {
        let tcp = TcpPacket::new_unchecked(&packet[tcp_at..]);
        if !tcp.ack() || tcp.rst() {
            return None;
        }
        let (sequence, window) = (tcp.seq_number().0 as u32, tcp.window_len());
        let newer = match self.window_from {
            Some(from) if !tcp.syn() => match sequence.wrapping_sub(from) as i32 {
                0 => ack.moves_on() || window > self.window || window == 0,
                difference => difference > 0 || ack.moves_on(),
            },
            _ => true,
        };
        if !newer {
            return Some(self.window).filter(|known| *known != window);
        }
        // A handshake's window is not scaled: it is compared with nothing.
        if !tcp.syn() {
            (self.window, self.window_from) = (window, Some(sequence));
        }
        None
    }
}

impl Conn {
    /// Looks at what a segment acknowledges, before smoltcp does.
    pub(super) fn take_ack(&mut self, now: Instant, tcp: &TcpPacket<&[u8]>, payload: usize) -> Ack {
        if !tcp.ack() || tcp.rst() || !self.is_within_window(tcp) {
            return Ack::Plain;
        }
        let ack = tcp.ack_number().0 as u32;
        // RFC 9293 §3.10.7.4: SND.UNA < SEG.ACK =< SND.NXT, where but our SYN, and perhaps a FIN, was sent. Any other number would be
        // where we begin to count from.
        if self.stage == Stage::Opening && self.sent.0.wrapping_sub(ack) > 1 {
            return Ack::Plain;
        }
        let pure = payload == 0 && !(tcp.syn() || tcp.fin());
        let before = self.recovery.acknowledged();
        let said = self.recovery.on_ack(ack, tcp.window_len(), self.sent.0, pure);
        self.count_acknowledged(before, self.recovery.acknowledged(), said);
        if self.recovery.acknowledged() != before {
            // Linux's tcp_ack(): the way leads there after all.
            self.soft_error = None;
            self.flight.on_progress(now);
            self.rtt.on_ack(now, ack);
            self.scoreboard.advance(ack);
            self.flight.resending_to = self.flight.resending_to.filter(|to| is_newer(*to, ack));
        }
        said
    }

    /// Whether a segment begins where the peer may send, or just before: who only guesses must not tell us anything.
    ///
    /// RFC 9293 §3.10.7.4 is smoltcp's to keep; this is about what is looked at before smoltcp does.
    pub(super) fn is_within_window(&self, tcp: &TcpPacket<&[u8]>) -> bool {
        let before_edge = self.flight.edge.wrapping_sub(tcp.seq_number().0 as u32) as usize;
        self.stage == Stage::Opening || before_edge <= self.cell.socket().recv_capacity() + 1
    }

    /// When data is sent again if nothing arrives until then.
    pub(super) fn retransmit_at(&self) -> Option<Instant> {
        [self.probe_flight_at(), self.timeout_at()].into_iter().flatten().min()
    }

    fn timeout_at(&self) -> Option<Instant> {
        if self.stage != Stage::Open || self.recovery.in_flight(self.sent.0) == 0 {
            return None;
        }
        let timeout = self.rtt.timeout() * 2u32.saturating_pow(self.flight.timeouts.min(16));
        Some(self.flight.waiting_since + timeout.min(MAX_TIMEOUT))
    }

    /// RFC 8985 §7.2: when the end of a flight is probed. Without SACK the first missing segment says as much as the last.
    fn probe_flight_at(&self) -> Option<Instant> {
        let smoothed = self.rtt.smoothed()?;
        let in_flight = self.recovery.in_flight(self.sent.0);
        let quiet = self.flight.probed || self.flight.timeouts > 0;
        if self.stage != Stage::Open || in_flight == 0 || self.unacknowledged() == 0 || quiet {
            return None;
        }
        let alone = in_flight <= self.mss();
        let slack = if alone { MAX_ACK_DELAY } else { TIMER_SLACK };
        Some(self.flight.moved_at + Duration::from_micros(2 * smoothed) + slack)
    }

    /// Has smoltcp send again what is due.
    pub(super) fn retransmit_due(&mut self, contexts: &mut Contexts, now: Instant, out: &mut Vec<Frame>) {
        if self.timeout_at().is_some_and(|at| now >= at) {
            self.flight.timeouts += 1;
            self.counts.timeouts = self.counts.timeouts.saturating_add(1);
            self.flight.waiting_since = now;
            self.flight.resending_to = None;
            if self.flight.timeouts > 1 {
                self.scoreboard.clear();
            }
            // smoltcp forgets its time-out when the window closes, and does not take it up again when it opens. Its window
            // probes have nothing in them when all was sent, of which the peer has dropped what it had no room for.
            if !self.put_clock_forward(contexts, now, out) {
                self.recovery.begin(self.sent.0);
                self.play_ack(contexts, now, self.flight.window.max(1), FAST_RETRANSMIT, out);
            }
        } else if self.probe_flight_at().is_some_and(|at| now >= at) {
            self.flight.probed = true;
            self.recovery.begin(self.sent.0);
            self.repeat_ack(contexts, now, FAST_RETRANSMIT, out);
        }
    }

    /// Notes what the peer has beyond what it acknowledges. `Some` when the segment has done all it can.
    pub(super) fn take_sack(
        &mut self,
        contexts: &mut Contexts,
        now: Instant,
        packet: &Frame,
        tcp_at: usize,
        ack: Ack,
        out: &mut Vec<Frame>,
    ) -> Option<Fed> {
        let una = self.recovery.acknowledged().filter(|_| self.peer_sack && self.stage == Stage::Open)?;
        for block in header::sack_blocks(packet, tcp_at) {
            self.scoreboard.note(una, self.sent.0, block);
        }
        let Ack::Duplicate(_) = ack else { return None };
        if self.unacknowledged() == 0 || self.flight.window == 0 {
            return None;
        }
        let waits = !self.is_resending() && {
            !self.has_lost_many(una) || self.recovery.is_fast() || !self.resend_lost(contexts, now, out)
        };
        if waits {
            return None;
        }
        // What it says again is known: smoltcp would take it for another loss.
        self.hear(now);
        Some(Fed::Nothing)
    }

    /// Whether so much was lost that one segment for each round trip takes longer than to begin anew.
    pub(super) fn has_lost_many(&self, una: u32) -> bool {
        let segment = self.wire_mss(TCP_HEADER);
        self.scoreboard.lost(una, segment) > MANY * segment
    }

    /// Whether everything is being sent again, in order.
    pub(super) fn is_resending(&self) -> bool {
        self.flight.resending_to.is_some()
    }

    /// Sends again what is missing, more than smoltcp would at once. Whether it does.
    pub(super) fn resend_lost(
        &mut self,
        contexts: &mut Contexts,
        now: Instant,
        out: &mut Vec<Frame>,
    ) -> bool {
        let resends = self.put_clock_forward(contexts, now, out);
        if resends {
            self.flight.resending_to = Some(self.sent.0);
            self.recovery.begin(self.sent.0);
        }
        resends
    }

    /// Whether the peer has this already, and hears nothing new by it.
    pub(super) fn is_needless(&self, begin: u32, end: u32, acknowledged: u32) -> bool {
        !self.scoreboard.is_empty() && self.sent.1 == acknowledged && self.scoreboard.holds(begin, end)
    }

    /// The window has opened: what was sent while it was closed, or beyond its end, was for nothing.
    pub(super) fn resume_flight(&mut self, contexts: &mut Contexts, now: Instant, out: &mut Vec<Frame>) {
        if self.recovery.in_flight(self.sent.0) == 0 || self.unacknowledged() == 0 {
            return;
        }
        (self.flight.timeouts, self.flight.waiting_since) = (0, now);
        self.recovery.begin(self.sent.0);
        self.repeat_ack(contexts, now, FAST_RETRANSMIT, out);
    }

    /// smoltcp's next timer is due now. Its time-out may have others in front of it. Whether something was sent again.
    fn put_clock_forward(&mut self, contexts: &mut Contexts, now: Instant, out: &mut Vec<Frame>) -> bool {
        let mtu = self.route.context_mtu;
        for _ in 0..MAX_STEPS {
            let clock = self.flight.clock(now);
            let context = contexts.get(mtu, clock);
            let Some(at) = self.cell.with(|set, _| context.poll_at(clock, set)) else { return false };
            if at > clock {
                self.flight.skew += at - clock;
            }
            let clock = self.flight.clock(now);
            let (before, una) = (out.len(), self.recovery.acknowledged());
            self.cell.with(|set, _| context.poll_egress(clock, &mut Wire { mtu, rx: None, tx: out }, set));
            let ip = ip_header_len(self.tuple.remote_ip);
            let again = out[before..].iter().any(|packet| {
                let tcp = TcpPacket::new_unchecked(&packet[ip..]);
                Some(tcp.seq_number().0 as u32) == una && tcp.segment_len() > 0
            });
            if again {
                return true;
            }
        }
        false
    }

    /// The size of packets in which smoltcp may send again what is missing.
    ///
    /// For a fast retransmission it takes as much as a segment holds and looks at no window. With super-frames that can be
    /// far beyond it: the peer drops what is too much, and smoltcp takes it for sent.
    pub(super) fn cautious_mtu(&self) -> usize {
        let mtu = self.route.context_mtu;
        let headers = ip_header_len(self.tuple.remote_ip) + TCP_HEADER;
        let window = usize::from(self.flight.window) << self.peer_scale.map_or(0, |scale| scale.min(14));
        if !self.recovery.is_under_way() || window >= self.unacknowledged().min(mtu - headers) {
            return mtu;
        }
        headers + window.clamp(1, self.wire_mss(TCP_HEADER))
    }

    /// The peer's last acknowledgement comes once more, `count` times.
    ///
    /// smoltcp counts duplicates that tell the same window, up to 255 of them, and acts on the third: a different
    /// window before makes it begin anew.
    pub(super) fn repeat_ack(
        &mut self,
        contexts: &mut Contexts,
        now: Instant,
        count: usize,
        out: &mut Vec<Frame>,
    ) {
        if self.flight.window != 0 {
            self.play_ack(contexts, now, self.flight.window, count, out);
        }
    }

    fn play_ack(
        &mut self,
        contexts: &mut Contexts,
        now: Instant,
        window: u16,
        count: usize,
        out: &mut Vec<Frame>,
    ) {
        let Some(ack) = self.recovery.acknowledged() else { return };
        if count >= FAST_RETRANSMIT {
            let other = if window > 1 { window - 1 } else { window + 1 };
            let packet = self.peer_ack(ack, other);
            self.process(contexts, now, &packet, out);
            // That one's acknowledgement number is not new either: but the next window is.
            let packet = self.peer_ack(ack, window);
            self.process(contexts, now, &packet, out);
        }
        let packet = self.peer_ack(ack, window);
        for _ in 0..count {
            self.process(contexts, now, &packet, out);
        }
    }

    /// What the peer would send to acknowledge everything before `ack`.
    fn peer_ack(&self, ack: u32, window: u16) -> Frame {
        // Within the window, wherever the data that arrived meanwhile has got to.
        self.peer_segment(self.flight.edge.wrapping_sub(1), ack, window, 0)
    }
}

#[cfg(test)]
mod tests {
    use smoltcp::wire::TcpSeqNumber;

    use super::*;
    use crate::engine::wire::TCP_HEADER;

    /// What `stale_window` says of a segment.
    fn judge(flight: &mut Flight, sequence: u32, window: u16, ack: Ack) -> Option<u16> {
        let mut bytes = [0; TCP_HEADER];
        let mut tcp = TcpPacket::new_unchecked(&mut bytes[..]);
        tcp.set_header_len(TCP_HEADER as u8);
        tcp.set_seq_number(TcpSeqNumber(sequence as i32));
        tcp.set_ack(true);
        tcp.set_window_len(window);
        flight.stale_window(&bytes, 0, ack)
    }

    #[test]
    fn an_overtaken_segment_does_not_shrink_the_window() {
        let start = u32::MAX - 10;
        let at = |n: u32| start.wrapping_add(n);
        let mut flight = Flight::new(Instant::ZERO);
        assert_eq!(judge(&mut flight, at(0), 100, Ack::New), None);
        assert_eq!(judge(&mut flight, at(0), 90, Ack::New), None, "it acknowledges more");
        assert_eq!(judge(&mut flight, at(0), 200, Ack::Plain), None, "it opens the window");
        assert_eq!(judge(&mut flight, at(0), 150, Ack::Plain), Some(200), "it was overtaken");
        assert_eq!(judge(&mut flight, at(50), 120, Ack::Plain), None, "it came later");
        assert_eq!(judge(&mut flight, at(20), 500, Ack::Plain), Some(120), "it came before");
        assert_eq!(judge(&mut flight, at(20), 110, Ack::New), None, "though it was sent before");
        assert_eq!(judge(&mut flight, at(20), 0, Ack::Plain), None, "a closed window is believed");
        assert_eq!(judge(&mut flight, at(20), 0, Ack::Plain), None);
    }
}
