//! What is changed in the headers of smoltcp's segments: the window, and the MSS option.

use crate::engine::wire::TCP_HEADER;

/// Offers the peer one unit less of window than smoltcp has.
///
/// RFC 9293 §3.8.6: "a receiver SHOULD NOT shrink the window". smoltcp 0.14 rounds it down to whole units of the window
/// scale, so that its end moves back by up to one unit less a byte when an odd number of bytes is acknowledged, and
/// takes only what is below that end: the last bytes that an earlier window let in would be cut off.
pub(super) fn lower_window(packet: &mut [u8], tcp_at: usize) {
    let Some(window) = packet.get_mut(tcp_at + 14..tcp_at + 16) else { return };
    let lower = u16::from_be_bytes([window[0], window[1]]).saturating_sub(1);
    window.copy_from_slice(&lower.to_be_bytes());
}

/// Where the value of a segment's option is, by its kind and whole length (RFC 9293 §3.2).
fn option_at(packet: &[u8], tcp_at: usize, wanted: u8, wanted_len: usize) -> Option<usize> {
    let header_len = usize::from(packet.get(tcp_at + 12)? >> 4) * 4;
    let options = packet.get(tcp_at + TCP_HEADER..tcp_at + header_len)?;
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        match kind {
            0 => return None,
            1 => at += 1,
            _ => {
                let len = usize::from(*options.get(at + 1)?);
                if kind == wanted && len == wanted_len && options.len() >= at + len {
                    return Some(tcp_at + TCP_HEADER + at + 2);
                }
                at += len.max(2);
            }
        }
    }
    None
}

/// What matters of a SYN's options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SynOptions {
    /// A size of 0 is none, as on Linux.
    pub(super) mss: Option<u16>,
    /// RFC 7323 §2.2
    pub(super) scale: Option<u8>,
    /// RFC 2018 §2
    pub(super) sack: bool,
}

pub(super) fn syn_options(packet: &[u8], tcp_at: usize) -> SynOptions {
    let value = |kind, len| option_at(packet, tcp_at, kind, len);
    SynOptions {
        mss: value(2, 4).map(|at| u16::from_be_bytes([packet[at], packet[at + 1]])).filter(|mss| *mss != 0),
        scale: value(3, 3).map(|at| packet[at]),
        sack: value(4, 2).is_some(),
    }
}

pub(super) fn set_mss(packet: &mut [u8], tcp_at: usize, mss: usize) {
    if let Some(at) = option_at(packet, tcp_at, 2, 4) {
        packet[at..at + 2].copy_from_slice(&(mss.min(usize::from(u16::MAX)) as u16).to_be_bytes());
    }
}
