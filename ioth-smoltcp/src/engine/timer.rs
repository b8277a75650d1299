//! The deadlines of all sockets in one heap.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use smoltcp::time::Instant;

use super::SocketId;

/// Deadlines, earliest first.
///
/// An entry is only a reminder to look: a deadline that moved away stays in the heap and is entered anew when
/// it comes up. A socket enters a deadline only if it has none before it ([`Reminders`]), so it has few, however often
/// its deadline changes. `stamp` tells a socket from an earlier one with the same id. What dead sockets leave behind is
/// cleared away when there may be as much of it as of the rest.
#[derive(Debug)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, SocketId, u64)>>,
    /// So many entries are looked through for dead ones.
    sweep_at: usize,
}

/// Entries among which it is not worth the while to look for dead ones.
const FEW: usize = 1024;

impl Default for Timers {
    fn default() -> Self {
        Timers { heap: BinaryHeap::new(), sweep_at: FEW }
    }
}

impl Timers {
    pub(crate) fn push(&mut self, at: Instant, id: SocketId, stamp: u64) {
        self.heap.push(Reverse((at, id, stamp)));
    }

    /// Forgets entries that mean nothing any more, if there are twice as many as were left the last time: which makes
    /// it cheap, however often it is called.
    pub(crate) fn sweep(&mut self, mut is_alive: impl FnMut(Instant, SocketId, u64) -> bool) {
        if self.heap.len() >= self.sweep_at {
            self.heap.retain(|Reverse((at, id, stamp))| is_alive(*at, *id, *stamp));
            self.sweep_at = FEW.max(2 * self.heap.len());
        }
    }

    /// The next socket to look after, if it is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(SocketId, u64)> {
        let Reverse((at, _, _)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, id, stamp))| (id, stamp))
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _, _))| *at)
    }
}

/// The entries of one socket in the heap.
#[derive(Debug, Default)]
pub(crate) struct Reminders {
    /// The earliest last.
    at: Vec<Instant>,
}

impl Reminders {
    /// Whether a deadline has to be entered, which then counts as done: nothing comes up before it.
    pub(crate) fn need(&mut self, deadline: Instant) -> bool {
        let need = self.at.last().is_none_or(|at| deadline < *at);
        if need {
            self.at.push(deadline);
        }
        need
    }

    /// Whether this one was entered and has not come up.
    pub(crate) fn hold(&self, at: Instant) -> bool {
        self.at.contains(&at)
    }

    /// One came up.
    pub(crate) fn came_up(&mut self, now: Instant) {
        while self.at.last().is_some_and(|at| *at <= now) {
            self.at.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_are_cleared_away_and_the_living_kept() {
        let mut timers = Timers::default();
        let far = Instant::from_secs(7200);
        for id in 0..100_000 {
            timers.push(far, SocketId(id), 0);
            timers.sweep(|_, SocketId(id), _| id < 10);
            assert!(timers.len() <= FEW);
        }
        // With nothing to clear away it is looked for seldom.
        let mut looks = 0;
        for id in 0..100_000 {
            timers.push(far, SocketId(id), 1);
            timers.sweep(|_, _, _| {
                looks += 1;
                true
            });
        }
        assert!(looks <= 4 * 100_000 && timers.len() >= 100_010);
        let mut left = std::iter::from_fn(|| timers.pop_due(far)).filter(|(_, stamp)| *stamp == 0);
        assert_eq!((0..10).map(|_| left.next().unwrap().0.0).max(), Some(9));
    }

    #[test]
    fn a_far_deadline_is_entered_once_however_many_near_ones_come_before() {
        let mut reminders = Reminders::default();
        let far = Instant::from_secs(7200);
        assert!(reminders.need(far));
        for second in 1..1000 {
            let near = Instant::from_secs(second);
            assert!(reminders.need(near) && !reminders.need(near) && !reminders.need(far));
            reminders.came_up(near);
        }
        assert_eq!(reminders.at, [far]);
        reminders.came_up(far);
        assert!(reminders.need(far + smoltcp::time::Duration::from_secs(1)));
    }
}
