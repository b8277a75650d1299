//! What TCP_INFO counts of a connection (RFC 4898).

use super::{Ack, Conn};

/// Counters since the connection began. Segments are those on a wire: a super-frame is several.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) segments_out: u32,
    pub(crate) segments_in: u32,
    pub(crate) data_segments_out: u32,
    pub(crate) data_segments_in: u32,
    /// Those of ours that have arrived, as far as acknowledgements tell.
    pub(crate) delivered: u32,
    /// Bytes that were acknowledged, with SYN and FIN as Linux counts them.
    pub(crate) acknowledged: u64,
    /// Bytes that arrived in order, with the FIN.
    pub(crate) received: u64,
    /// Bytes of data that left, sent again or not; and those that were sent again.
    pub(crate) sent: u64,
    pub(crate) sent_again: u64,
    /// Time-outs, ever.
    pub(crate) timeouts: u16,
    /// The window that the peer's SYN told, which is not scaled.
    pub(crate) first_window: u16,
    /// The longest segment that arrived, in bytes of data.
    pub(crate) longest_in: u32,
}

impl Conn {
    /// A segment leaves.
    pub(super) fn count_out(&mut self, payload: usize, mss: usize, again: bool) {
        let segments = segments(payload, mss);
        let counts = &mut self.counts;
        counts.segments_out = counts.segments_out.wrapping_add(segments);
        if payload == 0 {
            return;
        }
        counts.data_segments_out = counts.data_segments_out.wrapping_add(segments);
        counts.sent += payload as u64;
        if again {
            counts.sent_again += payload as u64;
        }
    }

    /// A segment has arrived, which brought so much in order.
    pub(super) fn count_in(&mut self, payload: usize, in_order: u32) {
        let most = self.announced_mss();
        let segments = segments(payload, most);
        let counts = &mut self.counts;
        counts.segments_in = counts.segments_in.wrapping_add(segments);
        counts.received += u64::from(in_order);
        if payload > 0 {
            counts.data_segments_in = counts.data_segments_in.wrapping_add(segments);
            counts.longest_in = counts.longest_in.max(payload.min(most) as u32);
        }
    }

    /// An acknowledgement has moved on from `before`, which is none for our SYN's.
    pub(super) fn count_acknowledged(&mut self, before: Option<u32>, now: Option<u32>, ack: Ack) {
        let Some(now) = now.filter(|_| ack.moves_on()) else { return };
        let bytes = match before {
            Some(before) => now.wrapping_sub(before) as usize,
            // Linux counts the SYN of who connects.
            None => usize::from(self.parent.is_none()),
        };
        let mss = self.mss();
        self.counts.acknowledged += bytes as u64;
        self.counts.delivered = self.counts.delivered.wrapping_add(segments(bytes, mss));
    }
}

fn segments(payload: usize, mss: usize) -> u32 {
    if payload <= mss { 1 } else { payload.div_ceil(mss.max(1)) as u32 }
}
