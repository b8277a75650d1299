//! What a command, or whoever is at the other end of an ssh connection, writes to a stream link.

use ioth_vde::Batch;
use ioth_vde::stream::{Decoder, FRAME_MAX};

/// Longest piece that the stream is cut into, in bytes.
const PIECE_MAX: usize = 64;

/// A stream, cut as its first byte says. However it is cut, the frames are those that its lengths say.
pub fn stream(data: &[u8]) {
    let Some((&cut, stream)) = data.split_first() else { return };
    let mut decoder = Decoder::default();
    let mut frames = Batch::new();
    let mut outcome = Ok(());
    for piece in stream.chunks(usize::from(cut) % PIECE_MAX + 1) {
        outcome = decoder.decode(piece, &mut frames);
    }
    let mut skipped = 0;
    let mut rest = stream;
    loop {
        let [high, low, behind @ ..] = rest else {
            assert_eq!((outcome, decoder.is_between_frames()), (Ok(()), rest.is_empty()));
            break;
        };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        if len > FRAME_MAX {
            assert_eq!(outcome.map_err(|wrong| wrong.len), Err(len));
            break;
        }
        if behind.len() < len {
            assert_eq!((outcome, decoder.is_between_frames()), (Ok(()), false));
            break;
        }
        match len {
            0 => (),
            1..14 => skipped += 1,
            _ => assert_eq!(frames.pop_front().as_deref(), Some(&behind[..len])),
        }
        rest = &behind[len..];
    }
    assert!(frames.is_empty());
    assert_eq!(decoder.take_bad_length(), skipped);
}
