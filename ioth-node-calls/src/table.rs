//! To which destinations a socket has sent before.
//!
//! A datagram that goes through the pair fails nowhere: whoever sends hears of no route, no right and no such address by
//! the socket's pending error, later. So the first to a destination goes by a request, whose answer is the call's.
//!
//! The table is nothing but a hint, for all sockets of the process: entries push each other out, and a fork has both
//! processes go on with what was known before.

use std::sync::atomic::{AtomicU64, Ordering};

use ioth_node_proto::EndName;

/// Some servers answer many at once; the table is part of each process.
const ENTRIES: usize = 1024;

static SENT: [AtomicU64; ENTRIES] = [const { AtomicU64::new(0) }; ENTRIES];

/// A socket's destination, in one number that is not 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Destination(u64);

impl Destination {
    pub(crate) fn new(end: &EndName, addr: &[u8]) -> Destination {
        let mut hash = mix(end.node, end.socket);
        for chunk in addr.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = mix(hash, u64::from_ne_bytes(word));
        }
        Destination(mix(hash, addr.len() as u64) | 1)
    }

    /// Whether the socket has sent there before, as far as is known.
    pub(crate) fn is_known(self) -> bool {
        self.entry().load(Ordering::Relaxed) == self.0
    }

    /// The socket has sent there.
    pub(crate) fn learn(self) {
        self.entry().store(self.0, Ordering::Relaxed);
    }

    /// The socket could not send there.
    pub(crate) fn forget(self) {
        let _ = self.entry().compare_exchange(self.0, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn entry(self) -> &'static AtomicU64 {
        &SENT[(self.0 >> 32) as usize % ENTRIES]
    }
}

/// The finaliser of MurmurHash3 over both.
fn mix(seed: u64, word: u64) -> u64 {
    let mut hash = seed.rotate_left(23) ^ word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(socket: u64) -> EndName {
        EndName { node: 0x1234_5678_9abc_def0, socket, domain: 2, kind: 2, protocol: 17 }
    }

    #[test]
    fn a_destination_is_known_once_sent_to() {
        let there = Destination::new(&end(1), &[2, 0, 0, 53, 10, 0, 0, 1]);
        assert!(!there.is_known());
        there.learn();
        assert!(there.is_known());
        assert!(!Destination::new(&end(2), &[2, 0, 0, 53, 10, 0, 0, 1]).is_known(), "another socket");
        assert!(!Destination::new(&end(1), &[2, 0, 0, 54, 10, 0, 0, 1]).is_known(), "another port");
        assert!(!Destination::new(&end(1), &[2, 0, 0, 53, 10, 0, 0, 1, 0]).is_known(), "another length");
        there.forget();
        assert!(!there.is_known());
    }
}
