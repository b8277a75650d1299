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
