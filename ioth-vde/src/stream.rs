//! Frames on a byte stream: standard input and output of a command, an ssh connection.
//!
//! ```text
//!   length (2 bytes, big endian)   frame   length   frame   ...
//! ```
//! As upstream's vde_plug and its predecessors speak it: no magic, no checksum, a length of 0 is skipped. Once a
//! length is wrong nothing behind it can be told apart: the stream is then of no further use.
//!
//! Both halves are without I/O. The decoder takes bytes however the stream cut them and keeps what is not yet
//! whole; the encoder says which bytes are to be written and is told how many were.
//!
//! ```
//! use ioth_vde::stream::{Decoder, Encoder};
//! use ioth_vde::{Batch, Frame};
//!
//! let mut encoder = Encoder::new();
//! let mut frames = Batch::from([Frame::copy_of(&[7; 60])]);
//! encoder.load(&mut frames);
//! let bytes: Vec<u8> = encoder.slices().flat_map(|slice| slice.to_vec()).collect();
//! encoder.written(bytes.len());
//!
//! let mut decoder = Decoder::default();
//! decoder.decode(&bytes[..1], &mut frames)?;
//! decoder.decode(&bytes[1..], &mut frames)?;
//! assert_eq!(frames[0][..], [7; 60]);
//! # Ok::<_, ioth_vde::stream::TooLong>(())
//! ```

use std::mem;

use crate::tally::HEADER;
use crate::{Batch, Frame};

/// Longest frame that upstream sends and takes, in bytes: its largest MTU, Ethernet and one VLAN tag.
pub const FRAME_MAX: usize = 9216 + 14 + 4;

/// Length of the length.
const PREFIX: usize = 2;
/// Frames that an encoder holds at most.
pub const QUEUE: usize = 64;

/// Puts frames together from a stream's bytes.
///
/// It holds at most one frame that is not yet whole.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    frame_max: usize,
    bad_length: u64,
}

#[derive(Debug)]
enum State {
    /// Between frames.
    Start,
    /// The first byte of a length has come.
    Half(u8),
    /// `filled` bytes of a frame have come.
    Body { frame: Frame, filled: usize },
    /// Nothing can be told apart any more.
    Broken(TooLong),
}

/// Error returned by [`Decoder::decode`]: a length that no frame has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {len} bytes in the stream (at most {max}; the bytes are not frames, or out of step)")]
pub struct TooLong {
    /// The length that the stream gave.
    pub len: usize,
    /// The longest that is taken.
    pub max: usize,
}

impl Decoder {
    /// A decoder for frames of at most `frame_max` bytes, which is cut to what a [`Frame`] can hold.
    pub fn new(frame_max: usize) -> Self {
        Decoder { state: State::Start, frame_max: frame_max.min(Frame::MAX), bad_length: 0 }
    }

    /// Takes the stream's next bytes; frames that are whole now are appended.
    ///
    /// # Errors
    /// [`TooLong`], then and ever after; the frames before it are appended.
    pub fn decode(&mut self, mut bytes: &[u8], frames: &mut Batch) -> Result<(), TooLong> {
        while let Some((&first, rest)) = bytes.split_first() {
            self.state = match mem::replace(&mut self.state, State::Start) {
                State::Start => {
                    bytes = rest;
                    State::Half(first)
                }
                State::Half(high) => {
                    bytes = rest;
                    self.begin(usize::from(u16::from_be_bytes([high, first])))
                }
                State::Body { mut frame, filled } => {
                    let (piece, rest) = bytes.split_at(bytes.len().min(frame.len() - filled));
                    bytes = rest;
                    frame[filled..filled + piece.len()].copy_from_slice(piece);
                    match filled + piece.len() {
                        filled if filled < frame.len() => State::Body { frame, filled },
                        HEADER.. => {
                            frames.push_back(frame);
                            State::Start
                        }
                        _ => {
                            self.bad_length += 1;
                            State::Start
                        }
                    }
                }
                State::Broken(wrong) => {
                    self.state = State::Broken(wrong);
                    return Err(wrong);
                }
            };
        }
        match self.state {
            State::Broken(wrong) => Err(wrong),
            _ => Ok(()),
        }
    }

    /// Frames shorter than an Ethernet header since it was asked last: they were skipped.
    pub fn take_bad_length(&mut self) -> u64 {
        mem::take(&mut self.bad_length)
    }

    /// Whether the stream stands between two frames: ending elsewhere it has lost one.
    pub fn is_between_frames(&self) -> bool {
        matches!(self.state, State::Start)
    }

    fn begin(&self, len: usize) -> State {
        match len {
            0 => State::Start,
            len if len > self.frame_max => State::Broken(TooLong { len, max: self.frame_max }),
            len => State::Body { frame: Frame::new(len), filled: 0 },
        }
    }
}

impl Default for Decoder {
    /// For frames as long as upstream's.
    fn default() -> Self {
        Decoder::new(FRAME_MAX)
    }
}

/// Makes a stream's bytes of frames. It holds at most [`QUEUE`] of them.
#[derive(Debug, Default)]
pub struct Encoder {
    /// With their lengths in front.
    queue: Batch,
    /// Bytes of the first one that are written.
    done: usize,
}

impl Encoder {
    /// An encoder without frames.
    pub fn new() -> Self {
        Encoder::default()
    }

    /// Takes frames from the front of the batch for as long as there is room; what has no room stays there.
    ///
    /// A frame that is empty, or too long for a length of two bytes, is dropped: the number of these is returned.
    pub fn load(&mut self, frames: &mut Batch) -> usize {
        let mut dropped = 0;
        while self.queue.len() < QUEUE
            && let Some(mut frame) = frames.pop_front()
        {
            match u16::try_from(frame.len()) {
                Ok(len @ 1..) => {
                    frame.push_front(PREFIX);
                    frame[..PREFIX].copy_from_slice(&len.to_be_bytes());
                    self.queue.push_back(frame);
                }
                _ => dropped += 1,
            }
        }
        dropped
    }

    /// What is to be written next, in order.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let skip = |at| if at == 0 { self.done } else { 0 };
        self.queue.iter().enumerate().map(move |(at, frame)| &frame[skip(at)..])
    }

    /// Tells that the first `len` bytes of [`slices`](Self::slices) are written: how many frames, and how many bytes
    /// of frames, are through by that.
    pub fn written(&mut self, len: usize) -> (usize, usize) {
        self.done += len;
        let (mut frames, mut bytes) = (0, 0);
        while let Some(first) = self.queue.front()
            && self.done >= first.len()
        {
            self.done -= first.len();
            frames += 1;
            bytes += first.len() - PREFIX;
            self.queue.pop_front();
        }
        (frames, bytes)
    }

    /// Drops what is not written: how many frames.
    pub fn clear(&mut self) -> usize {
        self.done = 0;
        let dropped = self.queue.len();
        self.queue.clear();
        dropped
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contents(frames: &Batch) -> Vec<Vec<u8>> {
        frames.iter().map(|frame| frame.to_vec()).collect()
    }

    #[test]
    fn a_header_alone_at_a_boundary_is_kept() {
        // Upstream forgets the first byte here.
        let mut decoder = Decoder::default();
        let mut frames = Batch::new();
        decoder.decode(&[0], &mut frames).unwrap();
        assert!(!decoder.is_between_frames());
        decoder.decode(&[14], &mut frames).unwrap();
        assert!(frames.is_empty() && !decoder.is_between_frames());
        decoder.decode(&[9; 14], &mut frames).unwrap();
        assert_eq!(contents(&frames), [[9; 14]]);
        assert!(decoder.is_between_frames());
    }

    #[test]
    fn empty_and_short_frames_are_skipped() {
        let mut stream = vec![0, 0, 0, 13];
        stream.extend([1; 13]);
        stream.extend([0, 14]);
        stream.extend([2; 14]);
        let mut decoder = Decoder::default();
        let mut frames = Batch::new();
        decoder.decode(&stream, &mut frames).unwrap();
        assert_eq!(contents(&frames), [[2; 14]]);
        assert_eq!((decoder.take_bad_length(), decoder.take_bad_length()), (1, 0));
    }

    #[test]
    fn a_length_too_long_ends_it() {
        let mut decoder = Decoder::new(1518);
        let mut frames = Batch::new();
        let mut stream = vec![0, 14];
        stream.extend([3; 14]);
        stream.extend(1519u16.to_be_bytes());
        let wrong = TooLong { len: 1519, max: 1518 };
        assert_eq!(decoder.decode(&stream, &mut frames), Err(wrong));
        assert_eq!(decoder.decode(&[0, 14], &mut frames), Err(wrong));
        assert_eq!((frames.len(), decoder.is_between_frames()), (1, false));
    }

    #[test]
    fn the_encoder_is_bounded() {
        let mut frames: Batch = (0..QUEUE + 3).map(|_| Frame::copy_of(&[1; 20])).collect();
        frames.push_front(Frame::new(0));
        frames.push_front(Frame::new(Frame::MAX));
        let mut encoder = Encoder::new();
        assert_eq!(encoder.load(&mut frames), 2);
        assert_eq!(frames.len(), 3);
        assert_eq!(encoder.written(21), (0, 0));
        assert_eq!(encoder.slices().next().unwrap().len(), 1);
        assert_eq!(encoder.written(1 + 22 + 5), (2, 40));
        assert_eq!(encoder.clear(), QUEUE - 2);
        assert!(encoder.is_empty());
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_however_it_is_cut(
            lens in proptest::collection::vec(HEADER..FRAME_MAX, 0..100),
            cuts in proptest::collection::vec(1usize..5000, 1..50),
        ) {
            let sent: Vec<_> = lens.iter().enumerate().map(|(at, &len)| vec![at as u8; len]).collect();
            let mut left: Batch = sent.iter().map(|frame| Frame::copy_of(frame)).collect();
            let (mut encoder, mut decoder, mut received) = (Encoder::new(), Decoder::default(), Batch::new());
            let mut through = (0, 0);
            for &cut in cuts.iter().cycle() {
                prop_assert_eq!(encoder.load(&mut left), 0);
                if encoder.is_empty() {
                    break;
                }
                let piece: Vec<u8> = encoder.slices().flatten().copied().take(cut).collect();
                let (frames, bytes) = encoder.written(piece.len());
                through = (through.0 + frames, through.1 + bytes);
                decoder.decode(&piece, &mut received).unwrap();
            }
            prop_assert_eq!(through, (lens.len(), lens.iter().sum()));
            prop_assert!(decoder.is_between_frames());
            prop_assert_eq!(contents(&received), sent);
        }

        #[test]
        fn any_stream_gives_the_same_whole_or_in_bytes(
            stream in proptest::collection::vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 0..4000),
        ) {
            let (mut whole, mut bytewise) = (Decoder::new(300), Decoder::new(300));
            let (mut a, mut b) = (Batch::new(), Batch::new());
            let one = whole.decode(&stream, &mut a);
            let mut other = Ok(());
            for byte in &stream {
                other = bytewise.decode(std::slice::from_ref(byte), &mut b);
            }
            prop_assert_eq!(one, other);
            prop_assert_eq!(contents(&a), contents(&b));
            prop_assert_eq!(whole.take_bad_length(), bytewise.take_bad_length());
            prop_assert!(a.iter().all(|frame| (HEADER..=300).contains(&frame.len())));
        }
    }
}
