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
/// tcp(7), tcp_fin_timeout: how long a closed socket waits for the peer's FIN.
const FIN_TIMEOUT: Duration = Duration::from_secs(60);

impl Conn {
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

    pub(super) fn hear(&mut self, now: Instant) {
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

    pub(crate) fn set_keep_alive(&mut self, keep_alive: Option<KeepAlive>) {
        if self.keep_alive != keep_alive {
            let heard = self.heard;
            self.hear(heard);
            self.keep_alive = keep_alive;
        }
    }

    /// smoltcp's time-out kills idle connections too: it is only on while something is outstanding.
    pub(super) fn arm_timeout(&mut self) {
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
}
