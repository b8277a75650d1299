//! TIME_WAIT without buffers: what a connection leaves behind (RFC 9293 §3.6.1, RFC 6191).

use std::collections::BTreeSet;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use smoltcp::time::{Duration, Instant};

use super::conn::Tuple;
use crate::engine::ports::{Held, Ports};

/// Linux's TCP_TIMEWAIT_LEN.
const TIME_WAIT: Duration = Duration::from_secs(60);
/// Linux's tcp_invalid_ratelimit.
const ANSWER_INTERVAL: Duration = Duration::from_millis(500);
/// Entries at most; beyond, the oldest goes.
const MAX_ENTRIES: usize = 65_536;

/// What is known of a connection that is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remains {
    /// The sequence number behind our FIN.
    pub(crate) send_next: u32,
    /// The sequence number behind the peer's FIN.
    pub(crate) receive_next: u32,
    /// Its part in the local port.
    held: Held,
    until: Instant,
    /// When something without data was answered last.
    answered: Option<Instant>,
}

/// The connections in TIME_WAIT.
#[derive(Debug)]
pub(crate) struct TimeWait {
    entries: HashMap<Tuple, Remains, FixedState>,
    /// The same, in the order in which they end.
    order: BTreeSet<(Instant, Tuple)>,
}

impl TimeWait {
    pub(crate) fn new(seed: u64) -> Self {
        TimeWait { entries: HashMap::with_hasher(FixedState::with_seed(seed)), order: BTreeSet::new() }
    }

    pub(crate) fn insert(
        &mut self,
        now: Instant,
        tuple: Tuple,
        send_next: u32,
        receive_next: u32,
        held: Held,
        ports: &mut Ports,
    ) {
        self.expire(now, ports);
        ports.hold(tuple.local_port, held);
        self.remove(&tuple, ports);
        if self.entries.len() >= MAX_ENTRIES {
            self.drop_oldest(ports);
        }
        let until = now + TIME_WAIT;
        self.entries.insert(tuple, Remains { send_next, receive_next, held, until, answered: None });
        self.order.insert((until, tuple));
    }

    /// What is left of a connection, if its time is not over.
    pub(crate) fn get(&self, now: Instant, tuple: &Tuple) -> Option<Remains> {
        self.entries.get(tuple).copied().filter(|remains| now < remains.until)
    }

    /// Whether something without data may be answered, which then counts as done.
    ///
    /// Linux's tcp_oow_rate_limited(): nobody who sends without being asked needs more answers than that.
    pub(crate) fn may_answer(&mut self, now: Instant, tuple: &Tuple) -> bool {
        let Some(remains) = self.entries.get_mut(tuple) else { return false };
        let may = remains.answered.is_none_or(|last| now >= last + ANSWER_INTERVAL);
        if may {
            remains.answered = Some(now);
        }
        may
    }

    pub(crate) fn remove(&mut self, tuple: &Tuple, ports: &mut Ports) -> Option<Remains> {
        let remains = self.entries.remove(tuple)?;
        self.order.remove(&(remains.until, *tuple));
        ports.let_go(tuple.local_port, remains.held);
        Some(remains)
    }

    /// The connections whose time is not over, the latest first, with how long it lasts.
    pub(crate) fn latest(&self, now: Instant) -> impl Iterator<Item = (Duration, &Tuple)> {
        let all = self.order.iter().rev().map(|(until, tuple)| (*until, tuple));
        all.take_while(move |(until, _)| now < *until).map(move |(until, tuple)| (until - now, tuple))
    }

    /// Entries, those included whose time is over.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// RFC 9293 §3.10.7.8: a retransmitted FIN restarts the time-out.
    pub(crate) fn restart(&mut self, now: Instant, tuple: Tuple) {
        if let Some(remains) = self.entries.get_mut(&tuple) {
            self.order.remove(&(remains.until, tuple));
            remains.until = now + TIME_WAIT;
            self.order.insert((remains.until, tuple));
        }
    }

    /// Forgets what is over. No timer is needed for it: a lookup asks the time as well.
    pub(crate) fn expire(&mut self, now: Instant, ports: &mut Ports) {
        while self.order.first().is_some_and(|(until, _)| *until <= now) {
            self.drop_oldest(ports);
        }
    }

    fn drop_oldest(&mut self, ports: &mut Ports) {
        if let Some((_, tuple)) = self.order.pop_first() {
            self.remove(&tuple, ports);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(port: u16) -> Tuple {
        let [local, remote] =
            ["10.0.0.1:80", "10.0.0.2:1"].map(|addr| addr.parse::<std::net::SocketAddr>().unwrap());
        Tuple { remote_port: port, ..Tuple::new(local, remote, 0) }
    }

    fn held() -> Held {
        Held { addr: tuple(1).local_ip, reuse_addr: false, reuse_port: false }
    }

    #[test]
    fn a_minute() {
        let (mut table, mut ports) = (TimeWait::new(1), Ports::new(1));
        table.insert(Instant::ZERO, tuple(1), 5, 6, held(), &mut ports);
        assert_eq!(table.get(Instant::from_secs(59), &tuple(1)).unwrap().send_next, 5);
        assert!(table.get(Instant::from_secs(60), &tuple(1)).is_none());
        let left =
            |now| table.latest(Instant::from_secs(now)).map(|(left, _)| left.secs()).collect::<Vec<_>>();
        assert_eq!((left(59), left(60)), (vec![1], vec![]));
        table.restart(Instant::from_secs(59), tuple(1));
        assert!(table.get(Instant::from_secs(100), &tuple(1)).is_some());
        table.insert(Instant::from_secs(200), tuple(2), 0, 0, held(), &mut ports);
        assert_eq!((table.entries.len(), table.order.len()), (1, 1));
        table.remove(&tuple(2), &mut ports);
        assert!(!ports.is_held(80), "every one let go of its port");
    }

    #[test]
    fn a_flood_of_fins_lets_the_others_be() {
        let (mut table, mut ports) = (TimeWait::new(1), Ports::new(1));
        for port in 0..1000 {
            table.insert(Instant::ZERO, tuple(port), 0, 0, held(), &mut ports);
        }
        for fin in 0..3 * MAX_ENTRIES as i64 {
            table.restart(Instant::from_micros(fin), tuple(7));
            assert_eq!((table.entries.len(), table.order.len()), (1000, 1000));
        }
        table.insert(Instant::from_secs(59), tuple(1000), 0, 0, held(), &mut ports);
        assert!((0..=1000).all(|port| table.get(Instant::from_secs(59), &tuple(port)).is_some()));
        // Its own time began anew.
        table.expire(Instant::from_secs(60), &mut ports);
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn bounded() {
        let (mut table, mut ports) = (TimeWait::new(1), Ports::new(1));
        for _ in 0..4 {
            for port in 0..=u16::MAX {
                table.insert(Instant::ZERO, tuple(port), 0, 0, held(), &mut ports);
            }
        }
        table.insert(Instant::ZERO, Tuple { local_port: 81, ..tuple(0) }, 0, 0, held(), &mut ports);
        assert_eq!((table.entries.len(), table.order.len()), (MAX_ENTRIES, MAX_ENTRIES));
        table.expire(Instant::from_secs(3600), &mut ports);
        assert!(!ports.is_held(80) && !ports.is_held(81));
    }
}
