//! Path MTUs that routers told of (RFC 1191, RFC 8201).

use std::net::IpAddr;

use smoltcp::time::{Duration, Instant};

use super::Tables;
use crate::engine::iface::IPV6_MIN_MTU;

/// Linux's net.ipv4.route.min_pmtu: less is an attack rather than a link (RFC 5927 §7).
const V4_LEAST: usize = 552;
/// RFC 1191 §6.3, RFC 8201 §5.3; Linux's net.ipv4.route.mtu_expires.
const LIFETIME: Duration = Duration::from_secs(600);
/// Destinations that are remembered; beyond, of a few the one that was learnt first goes.
const MAX_ENTRIES: usize = 4096;

/// What is known of the way to a destination.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct PathMtu {
    mtu: usize,
    until: Instant,
}

impl Tables {
    /// A router told that packets to `dst` by an interface have to be shorter. True when that is news.
    pub(in crate::engine) fn learn_mtu(
        &mut self,
        now: Instant,
        ifindex: u32,
        dst: IpAddr,
        mtu: usize,
    ) -> bool {
        let mtu = mtu.max(if dst.is_ipv4() { V4_LEAST } else { IPV6_MIN_MTU });
        let known = self.known_mtu(ifindex, dst).or(self.iface(ifindex).map(|iface| iface.mtu()));
        if known.is_none_or(|known| mtu >= known) {
            return false;
        }
        if self.path_mtus.len() >= MAX_ENTRIES {
            let victim = self.path_mtus.iter().take(16).min_by_key(|(_, known)| known.until);
            if let Some(key) = victim.map(|(key, _)| *key) {
                self.path_mtus.remove(&key);
            }
        }
        let until = now + LIFETIME;
        self.path_mtus.insert((ifindex, dst), PathMtu { mtu, until });
        self.next_mtu_expiry = Some(self.next_mtu_expiry.map_or(until, |next| next.min(until)));
        self.paths_changed();
        true
    }

    /// Forgets what was learnt long ago: the way may have changed.
    pub(in crate::engine) fn expire_mtus(&mut self, now: Instant) {
        if self.next_mtu_expiry.is_none_or(|next| now < next) {
            return;
        }
        self.path_mtus.retain(|_, known| known.until > now);
        self.next_mtu_expiry = self.path_mtus.values().map(|known| known.until).min();
        self.paths_changed();
    }

    /// When [`expire_mtus`](Self::expire_mtus) has something to do.
    pub(in crate::engine) fn next_mtu_expiry(&self) -> Option<Instant> {
        self.next_mtu_expiry
    }

    /// Destinations to which a narrower way is known.
    pub(in crate::engine) fn path_mtu_count(&self) -> usize {
        self.path_mtus.len()
    }

    /// What a router told of the way to `dst` by an interface, in bytes.
    pub(super) fn known_mtu(&self, ifindex: u32, dst: IpAddr) -> Option<usize> {
        self.path_mtus.get(&(ifindex, dst)).map(|known| known.mtu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::iface::LOOPBACK;

    const DST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9));

    #[test]
    fn shorter_ways_are_learnt_and_forgotten() {
        let mut tables = Tables::new();
        let generation = tables.generation();
        assert!(tables.learn_mtu(Instant::from_secs(1), LOOPBACK, DST, 1400));
        assert!(!tables.learn_mtu(Instant::from_secs(2), LOOPBACK, DST, 1450), "no longer one");
        assert!(tables.learn_mtu(Instant::from_secs(3), LOOPBACK, DST, 68));
        assert_eq!(tables.known_mtu(LOOPBACK, DST), Some(V4_LEAST));
        assert_ne!(tables.generation(), generation);
        assert_eq!(tables.next_mtu_expiry(), Some(Instant::from_secs(601)));
        tables.expire_mtus(Instant::from_secs(602));
        assert_eq!(tables.known_mtu(LOOPBACK, DST), Some(V4_LEAST));
        tables.expire_mtus(Instant::from_secs(603));
        assert_eq!(tables.known_mtu(LOOPBACK, DST), None);
        assert_eq!(tables.next_mtu_expiry(), None);
    }

    #[test]
    fn a_flood_is_bounded() {
        let mut tables = Tables::new();
        for i in 0..2 * MAX_ENTRIES as u32 {
            tables.learn_mtu(Instant::from_secs(1), LOOPBACK, std::net::Ipv4Addr::from(i).into(), 1000);
        }
        assert_eq!(tables.path_mtus.len(), MAX_ENTRIES);
    }
}
