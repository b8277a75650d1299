//! What the peer has received beyond what it acknowledges, by its selective acknowledgements: the scoreboard of RFC 6675 §4.
//!
//! smoltcp ignores them. Alone, it sends one missing segment again in each round trip, and narrows its congestion window for
//! each. So when many are missing (`retransmit::MANY`) it is made to send everything again, as after a time-out but at once: it narrows
//! its window a single time and doubles it with every round trip. What the peer has is kept from leaving.
//!
//! Read first: RFC 2018, RFC 6675 §4.

use super::recovery::is_newer;

/// Ranges that are remembered: what arrives in more pieces is sent again.
const MAX_RANGES: usize = 64;
/// RFC 6675 §2: segments received above a hole that make it count as lost.
const DUP_THRESH: usize = 3;

/// Ranges of sequence numbers that the peer has, in order, with holes between them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scoreboard {
    ranges: Vec<(u32, u32)>,
}

impl Scoreboard {
    /// A block of an acknowledgement. One that is not of what is under way says nothing.
    pub(crate) fn note(&mut self, acknowledged: u32, sent: u32, (begin, end): (u32, u32)) {
        let within = is_newer(begin, acknowledged) && is_newer(end, begin) && !is_newer(end, sent);
        if !within {
            return;
        }
        let (mut begin, mut end) = (begin, end);
        self.ranges.retain(|&(from, to)| {
            let apart = is_newer(from, end) || is_newer(begin, to);
            if !apart {
                begin = if is_newer(begin, from) { from } else { begin };
                end = if is_newer(to, end) { to } else { end };
            }
            apart
        });
        if self.ranges.len() < MAX_RANGES {
            let at = self.ranges.partition_point(|(from, _)| is_newer(begin, *from));
            self.ranges.insert(at, (begin, end));
        }
    }

    /// Everything before `acknowledged` has arrived.
    pub(crate) fn advance(&mut self, acknowledged: u32) {
        self.ranges.retain(|(begin, _)| is_newer(*begin, acknowledged));
    }

    /// The peer may have changed its mind (RFC 2018 §8).
    pub(crate) fn clear(&mut self) {
        self.ranges.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether the peer has all of this.
    pub(crate) fn holds(&self, begin: u32, end: u32) -> bool {
        self.ranges.iter().any(|(from, to)| !is_newer(*from, begin) && !is_newer(end, *to))
    }

    /// Bytes in holes that count as lost (RFC 6675 §4, IsLost): enough has been received above them.
    pub(crate) fn lost(&self, acknowledged: u32, segment: usize) -> usize {
        let (mut above, mut lost) = (0, 0);
        for (at, &(begin, end)) in self.ranges.iter().enumerate().rev() {
            above += end.wrapping_sub(begin) as usize;
            let pieces = self.ranges.len() - at;
            if above > (DUP_THRESH - 1) * segment || pieces >= DUP_THRESH {
                let hole_from = at.checked_sub(1).map_or(acknowledged, |before| self.ranges[before].1);
                lost += begin.wrapping_sub(hole_from) as usize;
            }
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn holes_with_enough_above_them_are_lost() {
        let start = u32::MAX - 2000;
        let at = |n: u32| start.wrapping_add(n);
        let mut board = Scoreboard::default();
        board.note(at(0), at(20_000), (at(1000), at(2000)));
        assert_eq!(board.lost(at(0), 1000), 0);
        board.note(at(0), at(20_000), (at(2000), at(3000)));
        assert_eq!(board.lost(at(0), 1000), 0);
        board.note(at(0), at(20_000), (at(1000), at(4000)));
        assert_eq!(board.lost(at(0), 1000), 1000);
        board.note(at(0), at(20_000), (at(9000), at(10_000)));
        assert_eq!(board.lost(at(0), 1000), 1000);
        board.note(at(0), at(20_000), (at(9000), at(12_000)));
        assert_eq!(board.lost(at(0), 1000), 6000);
        assert!(board.holds(at(1500), at(4000)) && !board.holds(at(1500), at(4001)));
        board.advance(at(4000));
        assert_eq!(board.lost(at(4000), 1000), 5000);
        board.advance(at(12_000));
        assert!(board.is_empty());
    }

    proptest! {
        #[test]
        fn any_blocks_leave_ranges_in_order_and_within(start: u32, blocks in proptest::collection::vec((any::<i32>(), -20_000i32..20_000), 0..200)) {
            let sent = start.wrapping_add(1_000_000);
            let mut board = Scoreboard::default();
            for (from, len) in blocks {
                let begin = start.wrapping_add((from % 1_100_000) as u32);
                board.note(start, sent, (begin, begin.wrapping_add(len as u32)));
            }
            prop_assert!(board.ranges.len() <= MAX_RANGES);
            let mut last = 0;
            for (begin, end) in &board.ranges {
                let (begin, end) = (begin.wrapping_sub(start), end.wrapping_sub(start));
                prop_assert!(last < begin && begin < end && end <= 1_000_000);
                last = end;
            }
            prop_assert!(board.lost(start, 1460) <= 1_000_000);
        }
    }
}
