//! The queues of an interface that has several.
//!
//! The kernel sends a flow by the queue from which it got frames of it last, and a new one by any. So each flow has a queue of its own
//! here, too: its frames keep their order, and the kernel's threads that send different flows do not wait for each other.

use std::hash::BuildHasher;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::ether::{HEADER, Hasher};
use crate::offload::Layout;
use crate::wire::Descriptor;

/// The queues that a link has of an interface: one at least.
#[derive(Debug)]
pub(super) struct Queues {
    first: Arc<OwnedFd>,
    others: Vec<Arc<OwnedFd>>,
    hasher: Hasher,
}

impl Queues {
    pub(super) fn new(first: OwnedFd, others: Vec<OwnedFd>) -> Self {
        let others = others.into_iter().map(Arc::new).collect();
        Queues { first: Arc::new(first), others, hasher: Hasher::default() }
    }

    pub(super) fn first(&self) -> &OwnedFd {
        &self.first
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<OwnedFd>> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The queue of that number in [`descriptors`](Self::descriptors).
    pub(super) fn get(&self, which: usize) -> &OwnedFd {
        which.checked_sub(1).and_then(|other| self.others.get(other)).unwrap_or(&self.first)
    }

    /// The queue for a frame, which is the same for all of its flow.
    pub(super) fn of(&self, frame: &[u8]) -> &OwnedFd {
        if self.others.is_empty() {
            return &self.first;
        }
        self.get(self.hasher.hash_one(flow(frame)) as usize % (1 + self.others.len()))
    }

    pub(super) fn descriptors(&self) -> Vec<Descriptor> {
        self.iter().map(|fd| Descriptor { fd: fd.clone(), sends: true }).collect()
    }
}

/// What frames of a flow have in common: addresses and ports, else Ethernet's header.
fn flow(frame: &[u8]) -> [&[u8]; 2] {
    let Some(layout) = Layout::of(frame) else { return [&frame[..HEADER.min(frame.len())], &[]] };
    let addresses = if layout.v6 { layout.ip + 8..layout.ip + 40 } else { layout.ip + 12..layout.ip + 20 };
    let parts = [frame.get(addresses), frame.get(layout.transport..layout.transport + 4)];
    parts.map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::offload::tests::frame;

    fn queues(count: usize) -> Queues {
        let file = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        Queues::new(file(), (1..count).map(|_| file()).collect())
    }

    fn number(queues: &Queues, frame: &[u8]) -> usize {
        let queue: *const OwnedFd = queues.of(frame);
        (0..).find(|which| std::ptr::eq(queues.get(*which), queue)).unwrap()
    }

    #[test]
    fn flows_have_a_queue_each() {
        let several = queues(4);
        assert_eq!(several.descriptors().len(), 4);
        for v6 in [false, true] {
            let mut used = [false; 4];
            for port in 0..200_u16 {
                let mut one = frame(v6, true, 0, b"x");
                let at = Layout::of(&one).unwrap().transport;
                one[at..at + 2].copy_from_slice(&port.to_be_bytes());
                let mut longer = frame(v6, true, 0, &[7; 900]);
                longer[at..at + 2].copy_from_slice(&port.to_be_bytes());
                let queue = number(&several, &one);
                assert_eq!(number(&several, &longer), queue, "a flow keeps its queue");
                used[queue] = true;
            }
            assert_eq!(used, [true; 4]);
        }
        assert_eq!(number(&queues(1), &frame(false, true, 0, b"x")), 0);
    }

    proptest! {
        #[test]
        fn any_frame(content in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(number(&queues(3), &content) < 3);
        }
    }
}
