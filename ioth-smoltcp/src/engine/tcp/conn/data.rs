//! The stream's data: what was received, and what is to be sent.

use smoltcp::socket::tcp::State;

use super::{Conn, Stage};
use crate::sys::{RECEIVE_BUFFER, SEND_BUFFER};

impl Conn {
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
    pub(super) fn writable(&self) -> bool {
        let size = self.send_limit.unwrap_or(SEND_BUFFER).min(SEND_BUFFER);
        self.send_room() >= size / 3
    }

    /// How much data still fits.
    pub(crate) fn send_room(&self) -> usize {
        let size = self.send_limit.unwrap_or(SEND_BUFFER).min(SEND_BUFFER);
        size.saturating_sub(self.unacknowledged())
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
