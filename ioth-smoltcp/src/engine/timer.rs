//! The deadlines of all sockets in one heap.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use smoltcp::time::Instant;

use super::SocketId;

/// Deadlines, earliest first.
///
/// An entry is only a reminder to look: a deadline that moved away stays in the heap and is entered anew when
/// it comes up. So a socket has few entries, however often its deadline changes. `stamp` tells a socket from an
/// earlier one with the same id.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, SocketId, u64)>>,
}

impl Timers {
    pub(crate) fn push(&mut self, at: Instant, id: SocketId, stamp: u64) {
        self.heap.push(Reverse((at, id, stamp)));
    }

    /// The next socket to look after, if it is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(SocketId, u64)> {
        let Reverse((at, _, _)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, id, stamp))| (id, stamp))
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _, _))| *at)
    }
}
