//! Frames that arrived and wait for their node's engine.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use ioth_vde::{Batch, Frame};
use parking_lot::Mutex;

/// A queue in order of arrival.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    queue: Mutex<VecDeque<(u32, Frame)>>,
    /// The queue's length, to be looked at without its lock.
    len: AtomicUsize,
}

impl Inbox {
    /// Takes a batch over: how many frames wait now.
    pub(crate) fn push(&self, ifindex: u32, frames: &mut Batch) -> usize {
        let mut queue = self.queue.lock();
        queue.extend(frames.drain(..).map(|frame| (ifindex, frame)));
        self.len.store(queue.len(), Ordering::SeqCst);
        queue.len()
    }

    /// Hands over up to `limit` frames, without holding the queue meanwhile: how many.
    pub(crate) fn take(&self, limit: usize, mut f: impl FnMut(u32, Frame)) -> usize {
        let mut taken = 0;
        while taken < limit {
            let mut queue = self.queue.lock();
            let chunk: VecDeque<_> = if queue.len() <= limit - taken {
                std::mem::take(&mut *queue)
            } else {
                queue.drain(..limit - taken).collect()
            };
            self.len.store(queue.len(), Ordering::SeqCst);
            drop(queue);
            if chunk.is_empty() {
                break;
            }
            for (ifindex, frame) in chunk {
                f(ifindex, frame);
                taken += 1;
            }
        }
        taken
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::SeqCst)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
