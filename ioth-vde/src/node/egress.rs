//! What waits to leave by a port: the bounded queue of an endpoint, and who waits for room in it.
//!
//! A sender of unicast frames to a queue that is filling up is not read from until there is room: it feels what its
//! receiver is like, and nothing is lost. Floods wait for nobody. An endpoint that does not make room in time is
//! *slow*: until its queue has been empty, what finds no room is lost, and holds nobody up.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::bridge::Form;
use crate::ether::{HEADER, TAG, TAG_TYPE};
use crate::{Frame, sys};

/// From here on senders wait.
const FULL_FRAMES: usize = 512;
const FULL_BYTES: usize = 1 << 20;
/// What was read already when they began to wait has a place, too, if there are not too many of them.
const MOST_FRAMES: usize = 2 * FULL_FRAMES;
const MOST_BYTES: usize = 2 * FULL_BYTES;
/// How long a queue may stay full before its owner counts as slow.
const PATIENCE: Duration = Duration::from_millis(100);

/// An endpoint's queue.
#[derive(Debug, Default)]
pub(super) struct Egress {
    queue: VecDeque<Frame>,
    bytes: usize,
    /// The system has no room; it tells when there is some.
    pub(super) blocked: bool,
    slow: bool,
    full_since: Option<Instant>,
    /// Endpoints that wait for room.
    pub(super) waiters: Vec<usize>,
}

impl Egress {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_slow(&self) -> bool {
        self.slow
    }

    fn is_full(&self) -> bool {
        self.queue.len() >= FULL_FRAMES || self.bytes >= FULL_BYTES
    }

    /// Takes a frame in; false when there is no room.
    pub(super) fn push(&mut self, frame: &[u8], form: Form) -> bool {
        let full = self.is_full();
        if full && (self.slow || self.queue.len() >= MOST_FRAMES || self.bytes >= MOST_BYTES) {
            return false;
        }
        let copy = formed(frame, form);
        self.bytes += copy.len();
        self.queue.push_back(copy);
        true
    }

    /// Lets a sender wait for room; false when it need not, or should not.
    pub(super) fn wait(&mut self, sender: usize, now: Instant) -> bool {
        if !self.is_full() || self.slow || self.waiters.contains(&sender) {
            return false;
        }
        self.full_since.get_or_insert(now);
        self.waiters.push(sender);
        true
    }

    /// When its owner counts as slow, unless there is room before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.full_since.map(|since| since + PATIENCE)
    }

    /// It did not make room in time.
    pub(super) fn give_up(&mut self) {
        self.slow = true;
        self.full_since = None;
    }

    /// Whether there is room enough for those who wait.
    pub(super) fn has_room(&self) -> bool {
        self.queue.len() <= FULL_FRAMES / 2 && self.bytes <= FULL_BYTES / 2
    }

    /// Those who wait, when they need not any more.
    pub(super) fn take_waiters(&mut self) -> Vec<usize> {
        self.full_since = None;
        std::mem::take(&mut self.waiters)
    }

    /// The first frames, as many as go at once.
    pub(super) fn front(&self) -> impl Iterator<Item = &Frame> {
        self.queue.iter().take(sys::BATCH)
    }

    /// Takes out the first frames: their bytes.
    pub(super) fn advance(&mut self, frames: usize) -> usize {
        let gone = self.queue.drain(..frames).map(|frame| frame.len()).sum();
        self.bytes -= gone;
        if self.queue.is_empty() {
            self.slow = false;
        }
        gone
    }
}

/// A frame of its own in the form in which it leaves.
pub(super) fn formed(frame: &[u8], form: Form) -> Frame {
    let mut copy = Frame::new(form.resize(frame.len()));
    let mut at = 0;
    for piece in pieces(frame, form, &tag(frame, form)) {
        copy[at..at + piece.len()].copy_from_slice(piece);
        at += piece.len();
    }
    copy
}

/// The tag that a form puts in.
pub(super) fn tag(frame: &[u8], form: Form) -> [u8; TAG] {
    let control = match form {
        Form::Tagged(vlan) => vlan.to_be_bytes(),
        // With its priority, and whether it may be dropped first.
        Form::Retagged(vlan) => [frame[HEADER] & 0xf0 | vlan.to_be_bytes()[0], vlan.to_be_bytes()[1]],
        Form::Same | Form::Untagged => [0; 2],
    };
    [TAG_TYPE[0], TAG_TYPE[1], control[0], control[1]]
}

/// A frame in the form in which it leaves; the first piece is all of it when the others are empty.
pub(super) fn pieces<'a>(frame: &'a [u8], form: Form, tag: &'a [u8; TAG]) -> [&'a [u8]; 3] {
    /// Both addresses: a tag stands behind them.
    const ADDRESSES: usize = HEADER - 2;
    match form {
        Form::Same => [frame, &[], &[]],
        Form::Untagged => [&frame[..ADDRESSES], &frame[ADDRESSES + TAG..], &[]],
        Form::Tagged(_) => [&frame[..ADDRESSES], tag, &frame[ADDRESSES..]],
        Form::Retagged(_) => [&frame[..ADDRESSES], tag, &frame[ADDRESSES + TAG..]],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let tagged = b"destinsource\x81\0\x20\x14\x08\0payload";
        let plain = b"destinsource\x08\0payload";
        let of = |frame: &[u8], form| pieces(frame, form, &tag(frame, form)).concat();
        assert_eq!(of(tagged, Form::Same), tagged);
        assert_eq!(of(tagged, Form::Untagged), plain);
        assert_eq!(of(plain, Form::Tagged(20)), b"destinsource\x81\0\0\x14\x08\0payload");
        assert_eq!(
            of(b"destinsource\x81\0\xb0\0\x08\0payload", Form::Retagged(0x114)),
            b"destinsource\x81\0\xb1\x14\x08\0payload"
        );
        let mut egress = Egress::default();
        assert!(egress.push(plain, Form::Tagged(20)) && egress.push(tagged, Form::Untagged));
        assert_eq!(egress.front().map(|frame| frame.to_vec()).collect::<Vec<_>>()[1], plain);
        assert_eq!(egress.advance(2), plain.len() * 2 + TAG);
        assert!(egress.is_empty() && egress.bytes == 0);
    }

    #[test]
    fn senders_wait_but_not_for_ever() {
        let start = Instant::now();
        let mut egress = Egress::default();
        for _ in 0..FULL_FRAMES {
            assert!(!egress.wait(7, start));
            assert!(egress.push(&[0; 60], Form::Same));
        }
        assert!(egress.wait(7, start) && !egress.wait(7, start) && egress.wait(8, start));
        assert_eq!(egress.deadline(), Some(start + PATIENCE));
        // What had been read already.
        while egress.len() < MOST_FRAMES {
            assert!(egress.push(&[0; 60], Form::Same));
        }
        assert!(!egress.push(&[0; 60], Form::Same));
        egress.give_up();
        assert_eq!(egress.take_waiters(), [7, 8]);
        assert!(!egress.wait(7, start) && egress.deadline().is_none());
        egress.advance(FULL_FRAMES);
        assert!(!egress.has_room() && !egress.push(&[0; 60], Form::Same));
        egress.advance(FULL_FRAMES / 2);
        assert!(egress.has_room() && egress.push(&[0; 60], Form::Same));
        egress.advance(egress.len());
        // It caught up.
        assert!(!egress.is_slow());
    }

    #[test]
    fn bytes_count_as_well() {
        let mut egress = Egress::default();
        let jumbo = vec![0; 9018];
        while egress.push(&jumbo, Form::Same) {}
        assert!(egress.bytes >= MOST_BYTES && egress.bytes < MOST_BYTES + jumbo.len());
        assert!(egress.len() < MOST_FRAMES);
    }
}
