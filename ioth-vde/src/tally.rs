//! Counters that many threads add to, and the checks that decide what is counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub(crate) use crate::ether::HEADER;
use crate::ether::{TAG, is_tagged};
use crate::offload;
use crate::{Batch, Checksum, Counters, Frame, Properties};

/// [`Counters`] in the making.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) rx_frames: AtomicU64,
    pub(crate) rx_bytes: AtomicU64,
    pub(crate) tx_frames: AtomicU64,
    pub(crate) tx_bytes: AtomicU64,
    pub(crate) tx_bad_length: AtomicU64,
    pub(crate) tx_down: AtomicU64,
    pub(crate) tx_no_memory: AtomicU64,
    pub(crate) tx_unreachable: AtomicU64,
    pub(crate) rx_bad_length: AtomicU64,
    pub(crate) rx_bad_header: AtomicU64,
    pub(crate) rx_overrun: AtomicU64,
}

impl Tally {
    pub(crate) fn received(&self, frames: &Batch) {
        self.rx_frames.fetch_add(frames.len() as u64, Relaxed);
        self.rx_bytes.fetch_add(frames.iter().map(|frame| frame.len() as u64).sum(), Relaxed);
    }

    pub(crate) fn sent(&self, frames: usize, bytes: usize) {
        self.tx_frames.fetch_add(frames as u64, Relaxed);
        self.tx_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Drops the first frame, which is too long.
    pub(crate) fn bad_length(&self, frames: &mut Batch) {
        frames.pop_front();
        self.tx_bad_length.fetch_add(1, Relaxed);
    }

    /// Drops the first frame, for which the host has no memory.
    pub(crate) fn no_memory(&self, frames: &mut Batch) {
        frames.pop_front();
        self.tx_no_memory.fetch_add(1, Relaxed);
    }

    /// Drops the first frame, for which nobody is there.
    pub(crate) fn unreachable(&self, frames: &mut Batch) {
        frames.pop_front();
        self.tx_unreachable.fetch_add(1, Relaxed);
    }

    /// Frames that were dropped before they were sent, as no way leads where they should go.
    pub(crate) fn unreachables(&self, frames: usize) {
        self.tx_unreachable.fetch_add(frames as u64, Relaxed);
    }

    /// Frames that were dropped before they were sent, for their length.
    pub(crate) fn bad_lengths(&self, frames: usize) {
        self.tx_bad_length.fetch_add(frames as u64, Relaxed);
    }

    /// Frames that were taken for sending, and lost with the network.
    pub(crate) fn downs(&self, frames: usize) {
        self.tx_down.fetch_add(frames as u64, Relaxed);
    }

    /// What came and was no frame.
    pub(crate) fn received_bad_length(&self, frames: u64) {
        self.rx_bad_length.fetch_add(frames, Relaxed);
    }

    /// What came with a header that is not ours.
    pub(crate) fn received_bad_header(&self, frames: u64) {
        self.rx_bad_header.fetch_add(frames, Relaxed);
    }

    /// Frames that came and found no room.
    pub(crate) fn overruns(&self, frames: u64) {
        self.rx_overrun.fetch_add(frames, Relaxed);
    }

    /// Empties the batch of a link that has gone.
    pub(crate) fn down(&self, frames: &mut Batch) {
        self.tx_down.fetch_add(frames.len() as u64, Relaxed);
        frames.clear();
    }

    /// Does what the sender left to a link that cannot do it either, then drops the frames that a link of these properties
    /// can never carry.
    pub(crate) fn admit(&self, frames: &mut Batch, properties: &Properties) {
        let is_left = |frame: &Frame| frame.checksum == Checksum::Trusted && !properties.trusted;
        let is_long = |frame: &Frame| frame.gso_size.is_some() && !fits(frame, properties);
        if frames.iter().any(|frame| is_left(frame) || is_long(frame)) {
            for mut frame in std::mem::take(frames) {
                if is_long(&frame) {
                    offload::segment(frame, frames);
                } else {
                    if is_left(&frame) {
                        offload::fill(&mut frame);
                    }
                    frames.push_back(frame);
                }
            }
            // What could not be cut, as nobody knows it, has its checksums.
            frames
                .iter_mut()
                .filter(|frame| is_left(frame))
                .for_each(|frame| frame.checksum = Checksum::Present);
        }
        if !frames.iter().all(|frame| fits(frame, properties)) {
            let before = frames.len();
            frames.retain(|frame| fits(frame, properties));
            self.tx_bad_length.fetch_add((before - frames.len()) as u64, Relaxed);
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        Counters {
            rx_frames: self.rx_frames.load(Relaxed),
            rx_bytes: self.rx_bytes.load(Relaxed),
            tx_frames: self.tx_frames.load(Relaxed),
            tx_bytes: self.tx_bytes.load(Relaxed),
            tx_bad_length: self.tx_bad_length.load(Relaxed),
            tx_down: self.tx_down.load(Relaxed),
            tx_no_memory: self.tx_no_memory.load(Relaxed),
            tx_unreachable: self.tx_unreachable.load(Relaxed),
            rx_bad_length: self.rx_bad_length.load(Relaxed),
            rx_bad_header: self.rx_bad_header.load(Relaxed),
            rx_overrun: self.rx_overrun.load(Relaxed),
        }
    }
}

fn fits(frame: &Frame, properties: &Properties) -> bool {
    let packet = match frame.gso_size {
        Some(_) => properties.gso_max.max(properties.mtu),
        None => properties.mtu,
    };
    // IEEE 802.1Q: the tag does not count against the MTU.
    let tagged = frame.len() > packet + HEADER && is_tagged(frame);
    frame.len() >= HEADER && frame.len() <= packet + HEADER + if tagged { TAG } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        let properties = Properties { mtu: 1500, gso_max: 3000, trusted: true };
        let mut gso = Frame::copy_of(&[0; 3014]);
        gso.gso_size = std::num::NonZeroU16::new(1000);
        let mut tagged = Frame::copy_of(&[0; 1518]);
        tagged[12..14].copy_from_slice(&[0x81, 0]);
        let mut batch: Batch = [0, 13, 14, 1514, 1515, 1518].map(|len| Frame::copy_of(&vec![0; len])).into();
        batch.push_back(gso);
        batch.push_back(tagged);
        let tally = Tally::default();
        tally.admit(&mut batch, &properties);
        assert_eq!(batch.iter().map(|frame| frame.len()).collect::<Vec<_>>(), [14, 1514, 3014, 1518]);
        assert_eq!(tally.counters().tx_bad_length, 4);
        tally.admit(&mut batch, &Properties { gso_max: 0, ..properties });
        assert_eq!(batch.len(), 3);
    }
}
