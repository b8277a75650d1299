//! The stream's data: what was received, and what is to be sent.

use smoltcp::socket::tcp::State;
use smoltcp::time::{Duration, Instant};

use super::{Conn, Stage};

/// tcp(7), TCP_CORK: "there is a 200 millisecond ceiling on the time for which output is corked".
const CORK_TIME: Duration = Duration::from_millis(200);

impl Conn {
    /// Appends data to what is to be sent: the number of bytes that found room. `more` follows soon (MSG_MORE).
    pub(crate) fn send(&mut self, now: Instant, data: &[u8], more: bool) -> usize {
        let data = &data[..data.len().min(self.send_room())];
        self.flight.begin(now, self.unacknowledged());
        let hold = more || self.cork;
        if !hold && self.held.is_empty() {
            return self.give(data);
        }
        // Whole segments go, what is less than one stays.
        let waiting = self.held.len() + data.len();
        let pass = if hold { waiting - waiting % self.mss() } else { waiting };
        if pass < self.held.len() {
            // Segments became shorter while something was held back.
            self.uncork();
            return self.give(data);
        }
        let (first, rest) = data.split_at(pass - self.held.len());
        if pass > 0 {
            let held = std::mem::take(&mut self.held);
            self.give(&held);
            self.give(first);
            self.held_until = None;
        }
        self.held.extend_from_slice(rest);
        if !self.held.is_empty() && self.held_until.is_none() {
            self.held_until = Some(now + CORK_TIME);
        }
        data.len()
    }

    /// Lets go of what TCP_CORK or MSG_MORE holds back.
    pub(crate) fn uncork(&mut self) {
        self.held_until = None;
        let held = std::mem::take(&mut self.held);
        if !held.is_empty() {
            self.give(&held);
        }
    }

    fn give(&mut self, data: &[u8]) -> usize {
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

    /// Throws received data away: the number of bytes.
    pub(crate) fn discard(&mut self, len: usize) -> usize {
        let mut discarded = 0;
        while discarded < len {
            let n = self.cell.socket_mut(|socket| {
                socket.recv(|queued| {
                    let n = queued.len().min(len - discarded);
                    (n, n)
                })
            });
            match n {
                Ok(n) if n > 0 => discarded += n,
                _ => break,
            }
        }
        discarded
    }

    /// Looks at received data, from the front: the number of bytes.
    pub(crate) fn peek(&mut self, data: &mut [u8]) -> usize {
        self.cell.socket_mut(|socket| socket.peek_slice(data).unwrap_or(0))
    }

    /// Whether so much was received that a reader is told. Linux tells as well when the peer may send hardly more.
    pub(super) fn is_readable(&self, low: usize) -> bool {
        let received = self.received();
        let room = match self.space.offered {
            Some(edge) => self.until(edge),
            None => self.window().saturating_sub(received),
        };
        received >= low || (received > 0 && room <= self.mss() && !self.owes_window())
    }

    /// There is more to read than before.
    pub(crate) fn note_readable(&mut self, now: Instant) {
        self.readable_at = now;
    }

    /// When the last of what there is to read became readable. Linux puts what waits together, and stamps all of it with the time of the
    /// last segment (tcp_try_coalesce()).
    pub(crate) fn readable_at(&self) -> Instant {
        self.readable_at
    }

    /// Bytes received and not read.
    pub(crate) fn received(&self) -> usize {
        self.cell.socket().recv_queue()
    }

    /// Bytes given and not acknowledged.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.cell.socket().send_queue() + self.held.len()
    }

    /// SIOCOUTQ: the same with our FIN, and a SYN that was never answered, as Linux counts them.
    pub(crate) fn outstanding(&self) -> usize {
        let fin = matches!(self.state(), State::FinWait1 | State::Closing | State::LastAck);
        let never = self.stage == Stage::Done && self.recovery.acknowledged().is_none();
        self.unacknowledged() + usize::from(fin || never || self.finishing)
    }

    /// SIOCOUTQNSD: those of them that were not sent.
    pub(crate) fn unsent(&self) -> usize {
        match self.stage {
            Stage::Opening => 0,
            // The SYN alone, which was sent.
            _ if self.recovery.acknowledged().is_none() => 0,
            _ => self.outstanding().saturating_sub(self.recovery.in_flight(self.sent.0)),
        }
    }

    /// Whether the peer's FIN has arrived, after all its data.
    pub(crate) fn peer_finished(&self) -> bool {
        self.peer_finished || self.stage == Stage::Done
    }

    /// Whether the peer's FIN has arrived: Linux's SOCK_DONE, for which a reader sees the end before an error.
    pub(crate) fn saw_end(&self) -> bool {
        self.peer_finished
    }

    /// Whether data may still be given.
    pub(crate) fn may_send(&self) -> bool {
        self.cell.socket().may_send()
    }

    /// Linux's `sk_stream_is_writeable`: at least a third of the buffer is free.
    pub(super) fn writable(&self) -> bool {
        self.send_room() >= self.send_limit() / 3
    }

    /// How much data still fits.
    pub(crate) fn send_room(&self) -> usize {
        self.send_limit().saturating_sub(self.unacknowledged())
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
