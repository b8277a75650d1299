//! What is changed in the headers of segments: the options of a SYN, options that make no sense.

use ioth_vde::Frame;

use crate::engine::wire::{IPV6_HEADER, TCP_HEADER};

/// RFC 9293 §3.1: the data offset has four bits.
const MAX_TCP_HEADER: usize = 60;

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

/// Takes what makes no sense out of a segment's options: smoltcp drops the segment for it, Linux reads on.
///
/// Linux's tcp_parse_options(): an option with an impossible length ends the list, one with a length that is not its own
/// is passed over.
pub(crate) fn mend_options(segment: &mut [u8]) {
    let header_len = segment.get(12).map_or(0, |offset| usize::from(offset >> 4) * 4);
    let Some(options) = segment.get_mut(TCP_HEADER..header_len) else { return };
    let mut at = 0;
    while at < options.len() {
        let len = match options[at] {
            0 => return,
            1 => 1,
            _ => options.get(at + 1).map_or(0, |len| usize::from(*len)),
        };
        if len == 0 || at + len > options.len() || (len == 1 && options[at] != 1) {
            return options[at..].fill(0);
        }
        let right = match options[at] {
            // MSS, window scale, SACK permitted, SACK, time stamps
            2 => len == 4,
            3 => len == 3,
            4 => len == 2,
            5 => len >= 10 && (len - 2).is_multiple_of(8),
            8 => len == 10,
            _ => true,
        };
        if !right {
            options[at..at + len].fill(1);
        }
        at += len;
    }
}

/// The sequence number of an IP packet's segment, without extension headers.
pub(super) fn sequence(packet: &[u8]) -> u32 {
    let ip = if packet[0] >> 4 == 4 { usize::from(packet[0] & 0x0f) * 4 } else { IPV6_HEADER };
    packet.get(ip + 4..ip + 8).and_then(|word| word.try_into().ok()).map_or(0, u32::from_be_bytes)
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

/// The blocks of a segment's selective acknowledgement (RFC 2018 §3).
pub(super) fn sack_blocks(packet: &[u8], tcp_at: usize) -> impl Iterator<Item = (u32, u32)> {
    let found =
        [10, 18, 26, 34].into_iter().find_map(|len| Some((option_at(packet, tcp_at, 5, len)?, len - 2)));
    let blocks = found.map_or(&[][..], |(at, len)| &packet[at..at + len]);
    let word = |bytes: &[u8]| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    blocks.chunks_exact(8).map(move |block| (word(&block[..4]), word(&block[4..])))
}

pub(super) fn set_mss(packet: &mut [u8], tcp_at: usize, mss: usize) {
    if let Some(at) = option_at(packet, tcp_at, 2, 4) {
        packet[at..at + 2].copy_from_slice(&(mss.min(usize::from(u16::MAX)) as u16).to_be_bytes());
    }
}

/// Sets the segment size in a SYN that tells none, if its header has room for the option.
pub(super) fn give_mss(packet: &mut Frame, tcp_at: usize, mss: usize) {
    let header_len = packet.get(tcp_at + 12).map_or(0, |offset| usize::from(offset >> 4) * 4);
    if option_at(packet, tcp_at, 2, 4).is_none() {
        if !(TCP_HEADER..=MAX_TCP_HEADER - 4).contains(&header_len) {
            return;
        }
        let options_at = tcp_at + TCP_HEADER;
        let mut longer = Frame::new(packet.len() + 4);
        longer[..options_at].copy_from_slice(&packet[..options_at]);
        longer[options_at..options_at + 4].copy_from_slice(&[2, 4, 0, 0]);
        longer[options_at + 4..].copy_from_slice(&packet[options_at..]);
        longer[tcp_at + 12] += 1 << 4;
        let (at, covered) =
            if longer[0] >> 4 == 4 { (2, longer.len()) } else { (4, longer.len() - IPV6_HEADER) };
        let Ok(len) = u16::try_from(covered) else { return };
        longer[at..at + 2].copy_from_slice(&len.to_be_bytes());
        *packet = longer;
    }
    set_mss(packet, tcp_at, mss);
}

/// Changes a SYN's window scale, where it has one.
pub(super) fn set_scale(packet: &mut [u8], tcp_at: usize, scale: u8) {
    if let Some(at) = option_at(packet, tcp_at, 3, 3) {
        packet[at] = scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{IpAddress, TcpPacket, TcpRepr};

    fn segment(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0];
        bytes.extend(options);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes[12] = ((bytes.len() / 4) as u8) << 4;
        bytes
    }

    #[test]
    fn as_linux_reads_them() {
        for (options, mended) in [
            (&[2, 4, 5, 180][..], &[2, 4, 5, 180][..]),
            (&[2, 0, 0, 0], &[0, 0, 0, 0]),
            (&[5, 1, 0, 0], &[0, 0, 0, 0]),
            (&[19, 255, 1, 1], &[0, 0, 0, 0]),
            (&[1, 254, 0, 0], &[1, 0, 0, 0]),
            (&[3, 3, 15, 2, 4, 5, 180, 0], &[3, 3, 15, 2, 4, 5, 180, 0]),
            (&[2, 3, 9, 3, 3, 7, 1, 1], &[1, 1, 1, 3, 3, 7, 1, 1]),
            (&[1, 1, 1, 2], &[1, 1, 1, 0]),
        ] {
            let mut bytes = segment(options);
            mend_options(&mut bytes);
            assert_eq!(&bytes[20..], mended, "{options:?}");
        }
    }

    proptest! {
        #[test]
        fn smoltcp_understands_what_is_mended(options in proptest::collection::vec(any::<u8>(), 0..=40)) {
            let mut bytes = segment(&options);
            mend_options(&mut bytes);
            let packet = TcpPacket::new_checked(&bytes[..]).unwrap();
            let any = IpAddress::v4(10, 0, 0, 1);
            prop_assert!(TcpRepr::parse(&packet, &any, &any, &ChecksumCapabilities::ignored()).is_ok());
        }
    }
}
