//! When a connection has to be looked at, and when its time is over.
//!
//! Read first: RFC 1122 §4.2.3.6 (keepalive), RFC 5482 (user time-out), tcp(7).

use smoltcp::socket::tcp::State;
use smoltcp::time::{Duration, Instant};

use super::{Conn, KeepAlive, Stage};
use crate::engine::tcp::context::Contexts;

/// tcp(7), tcp_retries2 = 15: "a hypothetical timeout of 924.6 seconds".
const DATA_TIMEOUT: Duration = Duration::from_secs(924);
/// tcp(7), tcp_orphan_retries = 8: how long data of a closed socket is still tried.
const ORPHAN_TIMEOUT: Duration = Duration::from_secs(100);
/// How long it is tried while the peer's window is closed: until Linux's probes are two minutes apart.
const ORPHAN_PROBE_TIMEOUT: Duration = Duration::from_secs(204);

impl Conn {
    /// When it has to be pumped again, however quiet the network is.
    pub(crate) fn deadline(&mut self, contexts: &mut Contexts, now: Instant) -> Option<Instant> {
        if self.stage == Stage::Done {
            return None;
        }
        let clock = self.flight.clock(now);
        let context = contexts.get(self.route.context_mtu, clock);
        let timer = self.cell.with(|set, _| context.poll_at(clock, set)).map(|at| self.flight.real(at));
        let ours = [self.stuck_at(), self.probe_at(), self.retransmit_at(), self.trim_at()];
        [timer, self.give_up_at, self.held_until].into_iter().chain(ours).flatten().min()
    }

    /// When it has to be looked at though its link takes nothing: what runs out meanwhile.
    pub(crate) fn patience_ends(&self, now: Instant) -> Option<Instant> {
        [self.give_up_at, self.stuck_at(), self.probe_at()].into_iter().flatten().filter(|at| *at > now).min()
    }

    /// Starts to ask a peer that was silent for too long. smoltcp sends the probes, the first one at once.
    pub(crate) fn probe(&mut self, now: Instant) {
        if let Some(keep_alive) = self.keep_alive
            && self.probe_at().is_some_and(|at| now >= at)
        {
            self.probing = true;
            let patience = match self.user_timeout {
                // tcp(7): "TCP_USER_TIMEOUT will override keepalive to determine when to close a connection".
                Some(timeout) => timeout.max(keep_alive.idle) - keep_alive.idle,
                None => keep_alive.interval * keep_alive.count,
            };
            self.give_up_at = Some(now + patience.max(keep_alive.interval));
            self.cell.socket_mut(|socket| socket.set_keep_alive(Some(keep_alive.interval)));
        }
    }

    /// When the peer will have been silent for too long. Unacknowledged data asks by itself.
    fn probe_at(&self) -> Option<Instant> {
        let idle = self.stage == Stage::Open && !self.orphan && !self.probing && self.unacknowledged() == 0;
        self.keep_alive.filter(|_| idle).map(|keep_alive| self.heard + keep_alive.idle)
    }

    pub(super) fn hear(&mut self, now: Instant) {
        self.heard = now;
        if std::mem::take(&mut self.probing) {
            self.give_up_at = None;
            self.cell.socket_mut(|socket| socket.set_keep_alive(None));
        }
    }

    /// Whether its time is over: nobody answered.
    pub(crate) fn expired(&self, now: Instant) -> bool {
        [self.give_up_at, self.stuck_at()].into_iter().flatten().any(|at| now >= at)
    }

    /// When data or a FIN will have been tried for too long. The handshake has a deadline of its own.
    fn stuck_at(&self) -> Option<Instant> {
        let closing = matches!(self.state(), State::FinWait1 | State::Closing | State::LastAck);
        if self.stage != Stage::Open || !(closing || self.unacknowledged() > 0) {
            return None;
        }
        Some(match self.user_timeout {
            // RFC 5482 §1: "the maximum amount of time that transmitted data may remain unacknowledged".
            Some(timeout) => self.flight.stuck_since + timeout,
            None if self.orphan && self.is_window_closed() => self.flight.stuck_since + ORPHAN_PROBE_TIMEOUT,
            None if self.orphan => self.flight.stuck_since + ORPHAN_TIMEOUT,
            // A peer that answers may keep its window closed for as long as it likes (RFC 9293 §3.8.6.1).
            None if self.is_window_closed() => self.heard.max(self.flight.stuck_since) + DATA_TIMEOUT,
            None => self.flight.stuck_since + DATA_TIMEOUT,
        })
    }

    /// The user is gone; what was given is still delivered.
    pub(crate) fn abandon(&mut self, now: Instant) {
        self.orphan = true;
        self.flight.stuck_since = now;
        self.watch_orphan(now);
    }

    /// For an orphan: not everything that was given is acknowledged, the FIN included.
    pub(crate) fn is_delivering(&self) -> bool {
        self.orphan && self.is_finishing()
    }

    /// Not everything that was given is acknowledged, the FIN included.
    pub(crate) fn is_finishing(&self) -> bool {
        let closing = matches!(self.state(), State::FinWait1 | State::Closing | State::LastAck);
        self.stage != Stage::Done && (closing || self.unacknowledged() > 0)
    }

    /// For an orphan: the peer has acknowledged everything, and gets a minute, or TCP_LINGER2's time, for its FIN.
    pub(crate) fn watch_orphan(&mut self, now: Instant) {
        if !self.orphan || self.state() != State::FinWait2 || self.give_up_at.is_some() {
            return;
        }
        match self.fin_timeout {
            Some(timeout) => self.give_up_at = Some(now + timeout),
            None => self.abort(),
        }
    }

    /// TCP_DEFER_ACCEPT: whether the handshake's last acknowledgement is still left out of account.
    pub(crate) fn deferred(&self, now: Instant, seconds: u32) -> bool {
        now < self.began + Duration::from_secs(u64::from(seconds))
    }

    /// Whether an acknowledgement is still held back: nothing else that TIME_WAIT waits for comes this soon.
    pub(crate) fn owes_ack(&mut self, contexts: &mut Contexts, now: Instant) -> bool {
        self.deadline(contexts, now).is_some_and(|at| at < now + Duration::from_secs(1))
    }

    pub(crate) fn set_keep_alive(&mut self, keep_alive: Option<KeepAlive>) {
        if self.keep_alive != keep_alive {
            let heard = self.heard;
            self.hear(heard);
            self.keep_alive = keep_alive;
        }
    }
}
