//! What a sender left to the link: checksums and the segmentation of TCP's super-frames.
//!
//! A link that can hand both on (`tap://`) says so in its [`Properties`](crate::Properties); for the others it is done
//! here, on the way out. Frames whose headers are not understood are left as they are.

use std::num::NonZeroU16;

use crate::tally::HEADER;
use crate::{Batch, Checksum, Frame};

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// IEEE 802.1Q and 802.1ad.
const TAGS: [u16; 2] = [0x8100, 0x88a8];
const TAG: usize = 4;
const TAGS_MAX: usize = 2;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// Extension headers that are passed over: more make no sense, and would cost whoever looks.
const EXTENSIONS_MAX: usize = 8;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

const TCP: u8 = 6;
const UDP: u8 = 17;
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// Where a frame's headers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Where the IP header begins.
    pub(crate) ip: usize,
    /// Where TCP's or UDP's header begins.
    pub(crate) transport: usize,
    /// Where that header ends.
    pub(crate) payload: usize,
    /// Where the IP packet ends: a frame may be padded.
    pub(crate) end: usize,
    pub(crate) v6: bool,
    pub(crate) tcp: bool,
}

impl Layout {
    /// Looks for TCP or UDP in a whole IP packet, not in a piece of one.
    pub(crate) fn of(frame: &[u8]) -> Option<Self> {
        let mut ip = HEADER;
        let mut kind = be16(frame, 12)?;
        for _ in 0..TAGS_MAX {
            if TAGS.contains(&kind) {
                kind = be16(frame, ip + 2)?;
                ip += TAG;
            }
        }
        let (transport, end, protocol) = match kind {
            IPV4 => ipv4(frame, ip)?,
            IPV6 => ipv6(frame, ip)?,
            _ => return None,
        };
        let tcp = protocol == TCP;
        let header = match protocol {
            TCP => usize::from(frame.get(transport + 12)? >> 4) * 4,
            UDP => UDP_HEADER,
            _ => return None,
        };
        let payload = transport + header;
        let least = if tcp { TCP_HEADER } else { UDP_HEADER };
        (end <= frame.len() && header >= least && payload <= end).then_some(Layout {
            ip,
            transport,
            payload,
            end,
            v6: kind == IPV6,
            tcp,
        })
    }

    /// Where the transport's checksum is.
    pub(crate) fn checksum(&self) -> usize {
        self.transport + self.checksum_offset()
    }

    /// The same, counted from the transport's header.
    pub(crate) fn checksum_offset(&self) -> usize {
        if self.tcp { 16 } else { 6 }
    }

    /// Puts the sum of the pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1) where the checksum belongs: the rest is for whoever
    /// completes it.
    pub(crate) fn begin_checksum(&self, frame: &mut [u8]) {
        let sum = fold(self.pseudo_header(frame));
        frame[self.checksum()..][..2].copy_from_slice(&sum.to_be_bytes());
    }

    /// Computes the IPv4 header's checksum; there is none in IPv6.
    pub(crate) fn fill_ip_checksum(&self, frame: &mut [u8]) {
        if !self.v6 {
            let header = &mut frame[self.ip..self.transport];
            header[10..12].fill(0);
            let sum = !fold(sum(header));
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
    }

    fn pseudo_header(&self, frame: &[u8]) -> u64 {
        let addresses =
            if self.v6 { &frame[self.ip + 8..self.ip + 40] } else { &frame[self.ip + 12..self.ip + 20] };
        let protocol = if self.tcp { TCP } else { UDP };
        sum(addresses) + (self.end - self.transport) as u64 + u64::from(protocol)
    }

    fn fill(&self, frame: &mut [u8]) {
        self.fill_ip_checksum(frame);
        self.begin_checksum(frame);
        complete(&mut frame[..self.end], self.transport, self.checksum_offset(), !self.tcp);
    }
}

/// Completes a checksum that was begun: that of all from `start` on, at `start + offset`. `false` when that is outside.
pub(crate) fn complete(frame: &mut [u8], start: usize, offset: usize, udp: bool) -> bool {
    if start + offset + 2 > frame.len() {
        return false;
    }
    let mut sum = !fold(sum(&frame[start..]));
    // RFC 768: "An all zero transmitted checksum value means that the transmitter generated no checksum".
    if sum == 0 && udp {
        sum = !0;
    }
    frame[start + offset..][..2].copy_from_slice(&sum.to_be_bytes());
    true
}

/// Computes the checksums that a sender left out.
pub(crate) fn fill(frame: &mut Frame) {
    if let Some(layout) = Layout::of(frame) {
        layout.fill(frame);
    }
    frame.checksum = Checksum::Present;
}

/// Cuts a super-frame into frames with `gso_size` bytes of payload each, and fills their checksums. One that is not TCP comes out
/// as it went in.
pub(crate) fn segment(mut frame: Frame, into: &mut Batch) {
    let (Some(size), Some(layout)) = (frame.gso_size, Layout::of(&frame)) else {
        return into.push_back(frame);
    };
    if !layout.tcp {
        return into.push_back(frame);
    }
    let (ip, transport, payload) = (layout.ip, layout.transport, layout.payload);
    frame.truncate(layout.end);
    let first = be32(&frame, transport + 4);
    let ident = be16(&frame, ip + 4).unwrap_or(0);
    let mut at = payload;
    let mut index = 0u16;
    // One without payload has one piece as well.
    while at < layout.end || index == 0 {
        let piece = &frame[at..layout.end.min(at + usize::from(size.get()))];
        let mut segment = Frame::new(payload + piece.len());
        segment[..payload].copy_from_slice(&frame[..payload]);
        segment[payload..].copy_from_slice(piece);
        let len = segment.len();
        if layout.v6 {
            segment[ip + 4..ip + 6].copy_from_slice(&((len - ip - IPV6_HEADER) as u16).to_be_bytes());
        } else {
            segment[ip + 2..ip + 4].copy_from_slice(&((len - ip) as u16).to_be_bytes());
            segment[ip + 4..ip + 6].copy_from_slice(&ident.wrapping_add(index).to_be_bytes());
        }
        let sequence = first.wrapping_add((at - payload) as u32);
        segment[transport + 4..transport + 8].copy_from_slice(&sequence.to_be_bytes());
        // RFC 3168 §6.1.2: CWR once, with the first; the end of the data is the last one's.
        if at + piece.len() < layout.end {
            segment[transport + 13] &= !FIN_PSH;
        }
        if index > 0 {
            segment[transport + 13] &= !CWR;
        }
        Layout { end: len, ..layout }.fill(&mut segment);
        at += usize::from(size.get());
        index += 1;
        into.push_back(segment);
    }
}

/// All that a sender may have left undone, done. For fuzzers.
#[doc(hidden)]
pub fn finish(frame: Frame) -> Batch {
    let mut pieces = Batch::new();
    segment(frame, &mut pieces);
    pieces.iter_mut().filter(|piece| piece.checksum == Checksum::Trusted).for_each(fill);
    pieces
}

/// The segment size of a super-frame, when the frame is one: longer than one segment.
pub(crate) fn super_frame(frame: &Frame, layout: &Layout) -> Option<NonZeroU16> {
    frame.gso_size.filter(|size| layout.tcp && layout.end - layout.payload > usize::from(size.get()))
}

/// The sum that Internet checksums are made of (RFC 1071), not yet folded. Of at most 4 GiB.
fn sum(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(4);
    let mut sum: u64 =
        (&mut words).map(|word| u64::from(u32::from_be_bytes(word.try_into().expect("four bytes")))).sum();
    let mut halves = words.remainder().chunks_exact(2);
    sum += (&mut halves)
        .map(|half| u64::from(u16::from_be_bytes(half.try_into().expect("two bytes"))))
        .sum::<u64>();
    sum + halves.remainder().first().map_or(0, |&last| u64::from(last) << 8)
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

fn ipv4(frame: &[u8], ip: usize) -> Option<(usize, usize, u8)> {
    let header = frame.get(ip..ip + IPV4_HEADER)?;
    let len = usize::from(header[0] & 15) * 4;
    // More fragments, or an offset.
    let piece = be16(header, 6)? & 0x3fff != 0;
    let end = ip + usize::from(be16(header, 2)?);
    (header[0] >> 4 == 4 && len >= IPV4_HEADER && !piece).then_some((ip + len, end, header[9]))
}

fn ipv6(frame: &[u8], ip: usize) -> Option<(usize, usize, u8)> {
    let header = frame.get(ip..ip + IPV6_HEADER)?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let end = ip + IPV6_HEADER + usize::from(be16(header, 4)?);
    let (mut at, mut next) = (ip + IPV6_HEADER, header[6]);
    for _ in 0..EXTENSIONS_MAX {
        match next {
            // Hop-by-hop and destination options. Past a routing header the destination is another one.
            0 | 60 => {
                next = *frame.get(at)?;
                at += (usize::from(*frame.get(at + 1)?) + 1) * 8;
            }
            _ => return Some((at, end, next)),
        }
    }
    None
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

#[cfg(test)]
pub(crate) mod tests;
