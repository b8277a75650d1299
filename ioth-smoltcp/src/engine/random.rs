//! Numbers that nobody outside can guess, from one seed.

use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};

use siphasher::sip::SipHasher24;
use smoltcp::time::Instant;

/// Two keys and a counter: deterministic for a test's seed, unpredictable for a real one.
#[derive(Debug)]
pub(crate) struct Random {
    stream: SipHasher24,
    keyed: SipHasher24,
    counter: u64,
}

impl Random {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        let key = |at: usize| -> [u8; 16] { seed[at..at + 16].try_into().expect("half of the seed") };
        Random {
            stream: SipHasher24::new_with_key(&key(0)),
            keyed: SipHasher24::new_with_key(&key(16)),
            counter: 0,
        }
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.counter += 1;
        let mut hasher = self.stream;
        hasher.write_u64(self.counter);
        hasher.finish()
    }

    /// Uniform below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        // Lemire's multiply-shift: the bias is below 2^-32 for every bound used here.
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// The initial sequence number of a connection.
    ///
    /// RFC 6528 §3: "ISN = M + F(localip, localport, remoteip, remoteport, secretkey)", M a 4 us clock.
    pub(crate) fn initial_sequence(&self, now: Instant, local: SocketAddr, remote: SocketAddr) -> u32 {
        let clock = (now.total_micros() / 4) as u32;
        clock.wrapping_add(self.tuple(local, remote) as u32)
    }

    /// Where the search for a local port begins.
    ///
    /// RFC 6056 §3.3.3, algorithm 3: a hash of what is known of the connection, to which a counter is added.
    pub(crate) fn port_offset(&self, local: IpAddr, remote: SocketAddr) -> u32 {
        (self.tuple(SocketAddr::new(local, 0), remote) >> 32) as u32
    }

    /// A keyed hash of both ends.
    pub(crate) fn tuple(&self, local: SocketAddr, remote: SocketAddr) -> u64 {
        let mut hasher = self.keyed;
        for addr in [local, remote] {
            match addr.ip() {
                IpAddr::V4(v4) => hasher.write(&v4.octets()),
                IpAddr::V6(v6) => hasher.write(&v6.octets()),
            }
            hasher.write_u16(addr.port());
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::engine::ports::{EPHEMERAL, Ports};

    fn ends(v6: bool) -> (IpAddr, Vec<SocketAddr>) {
        let (local, peers) = if v6 { ("fd00::1", "fd00::2:") } else { ("10.0.0.1", "10.0.1.") };
        let peer = |i: u16| SocketAddr::new(format!("{peers}{i}").parse().unwrap(), 80);
        (local.parse().unwrap(), (0..200).map(peer).collect())
    }

    /// RFC 6056 §3.3.3: who knows the ports towards one peer does not know those towards another, nor another node's.
    #[test]
    fn ports_differ_by_seed_and_by_peer() {
        for v6 in [true, false] {
            let (local, peers) = ends(v6);
            let port = |random: &Random, ports: &mut Ports, peer| {
                let port = ports.choose(random.port_offset(local, peer), 1, |_| true).unwrap();
                assert!(EPHEMERAL.contains(&port));
                port
            };
            let random = Random::new([1; 32]);
            // The same counter for each: what differs is the hash.
            let by_peer: HashSet<_> =
                peers.iter().map(|peer| port(&random, &mut Ports::new(1), *peer)).collect();
            let by_seed: HashSet<_> =
                (0..200).map(|i| port(&Random::new([i; 32]), &mut Ports::new(1), peers[0])).collect();
            let by_service: HashSet<_> = (1..=200)
                .map(|i| port(&random, &mut Ports::new(1), SocketAddr::new(peers[0].ip(), i)))
                .collect();
            for ports in [by_peer, by_seed, by_service] {
                // Some meet by chance: about one of 200 in 28,232.
                assert!(ports.len() > 190, "{}", ports.len());
                let low = ports.iter().filter(|port| **port < 46_884).count();
                assert!((60..140).contains(&low), "{low} of {} in the lower half", ports.len());
            }
            // To one peer they are told apart, and a seed is repeatable.
            let mut ports = Ports::new(1);
            let ours: HashSet<_> = (0..200).map(|_| port(&random, &mut ports, peers[0])).collect();
            assert_eq!(ours.len(), 200);
            let again = Random::new([1; 32]);
            assert_eq!(again.port_offset(local, peers[1]), random.port_offset(local, peers[1]));
        }
    }

    /// RFC 6528 §3: numbers towards one peer tell nothing of those towards another; towards the same they go up.
    #[test]
    fn sequence_numbers_differ_by_seed_and_by_peer_and_follow_the_clock() {
        for v6 in [true, false] {
            let (local, peers) = ends(v6);
            let local = SocketAddr::new(local, 40_000);
            let at = |seed, peer, secs| {
                Random::new([seed; 32]).initial_sequence(Instant::from_secs(secs), local, peer)
            };
            let by_peer: HashSet<_> = peers.iter().map(|peer| at(1, *peer, 5)).collect();
            let by_seed: HashSet<_> = (0..200).map(|seed| at(seed, peers[0], 5)).collect();
            assert_eq!((by_peer.len(), by_seed.len()), (200, 200));
            assert_eq!(at(1, peers[0], 6).wrapping_sub(at(1, peers[0], 5)), 250_000);
        }
    }
}
