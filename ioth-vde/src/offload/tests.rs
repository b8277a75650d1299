use proptest::prelude::*;

use super::*;

/// A frame of TCP or UDP without checksums.
pub(crate) fn frame(v6: bool, tcp: bool, tags: usize, payload: &[u8]) -> Frame {
    let mut bytes = vec![2; 12];
    for tag in 0..tags {
        bytes.extend(TAGS[1 - tag % 2].to_be_bytes());
        bytes.extend([0, 7]);
    }
    let transport = if tcp { TCP_HEADER } else { UDP_HEADER } + payload.len();
    let protocol = if tcp { TCP } else { UDP };
    if v6 {
        bytes.extend(IPV6.to_be_bytes());
        bytes.extend([0x60, 0, 0, 0]);
        // With an extension header: eight bytes of options.
        bytes.extend((transport as u16 + 8).to_be_bytes());
        bytes.extend([0, 64]);
        bytes.extend([0xfd; 32]);
        bytes.extend([protocol, 0, 1, 4, 0, 0, 0, 0]);
    } else {
        bytes.extend(IPV4.to_be_bytes());
        bytes.extend([0x45, 0]);
        bytes.extend((transport as u16 + 20).to_be_bytes());
        bytes.extend([0x12, 0x34, 0x40, 0, 64, protocol, 0xaa, 0xaa, 10, 0, 0, 1, 10, 0, 0, 2]);
    }
    bytes.extend([0x30, 0x39, 0, 80]);
    if tcp {
        bytes.extend([0xff, 0xff, 0xff, 0xf0, 0, 0, 0, 1, 0x50, CWR | 0x19, 1, 0, 0xbb, 0xbb, 0, 0]);
    } else {
        bytes.extend((transport as u16).to_be_bytes());
        bytes.extend([0, 0]);
    }
    bytes.extend(payload);
    let mut frame = Frame::copy_of(&bytes);
    frame.checksum = Checksum::Trusted;
    frame
}

/// Whether all checksums are right: the sums over what they cover are those of zero.
fn is_right(frame: &Frame) -> bool {
    let layout = Layout::of(frame).unwrap();
    let pseudo = layout.pseudo_header(frame);
    let transport = fold(pseudo + sum(&frame[layout.transport..layout.end]));
    let ip = layout.v6 || fold(sum(&frame[layout.ip..layout.transport])) == 0xffff;
    transport == 0xffff && ip && frame.checksum == Checksum::Present
}

#[test]
fn checksums_of_others() {
    // An echo of tcpdump's: 10.0.0.1:12345 > 10.0.0.2:80, computed by the kernel.
    assert_eq!(fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2); // RFC 1071 §3
    assert_eq!(fold(sum(&[1, 2, 3])), 0x0402);
    for (v6, tcp, tags) in [(false, true, 0), (true, true, 1), (false, false, 2), (true, false, 0)] {
        let mut frame = frame(v6, tcp, tags, b"odd payload");
        // A padded frame: the padding is not summed.
        let len = frame.len();
        let mut padded = Frame::new(len + 9);
        padded.fill(0xee);
        padded[..len].copy_from_slice(&frame);
        fill(&mut frame);
        fill(&mut padded);
        assert!(is_right(&frame) && is_right(&padded), "{v6} {tcp} {tags}");
        assert_eq!(padded[..len], frame[..]);
    }
}

#[test]
fn a_datagram_never_goes_without_checksum() {
    // Two bytes that make the sum zero.
    let mut one = frame(false, false, 0, &[0, 0]);
    fill(&mut one);
    let checksum = be16(&one, 14 + 20 + 6).unwrap();
    let mut two = frame(false, false, 0, &checksum.to_be_bytes());
    fill(&mut two);
    assert_eq!(be16(&two, 14 + 20 + 6), Some(0xffff));
}

#[test]
fn what_is_left_alone() {
    let whole = frame(false, true, 0, &[7; 100]);
    let mut fragment = whole.clone();
    fragment[20] |= 0x20;
    assert_eq!(Layout::of(&fragment), None);
    let mut short = whole.clone();
    short.truncate(60);
    assert_eq!(Layout::of(&short), None);
    let mut udp = frame(false, false, 0, &[7; 3000]);
    udp.gso_size = NonZeroU16::new(1000);
    let mut batch = Batch::new();
    segment(udp, &mut batch);
    assert_eq!(batch.len(), 1);
    assert!(!complete(&mut [0; 20], 10, 9, false) && complete(&mut [0; 21], 10, 9, false));
}

proptest! {
    #[test]
    fn the_pieces_are_the_whole(
        v6: bool, tags in 0..3usize, len in 0..9000usize, size in 1..3000u16,
    ) {
        let payload: Vec<u8> = (0..len).map(|at| (at * 7) as u8).collect();
        let mut whole = frame(v6, true, tags, &payload);
        whole.gso_size = NonZeroU16::new(size);
        let mut pieces = Batch::new();
        segment(whole, &mut pieces);
        prop_assert_eq!(pieces.len(), len.div_ceil(usize::from(size)).max(1));
        let last = pieces.len() - 1;
        let mut joined = Vec::new();
        for (at, piece) in pieces.iter().enumerate() {
            prop_assert!(is_right(piece));
            let layout = Layout::of(piece).unwrap();
            prop_assert_eq!(layout.end, piece.len());
            prop_assert_eq!(piece.gso_size, None);
            let sequence = 0xffff_fff0u32.wrapping_add((at * usize::from(size)) as u32);
            prop_assert_eq!(be32(piece, layout.transport + 4), sequence);
            let flags = piece[layout.transport + 13];
            prop_assert_eq!((flags & FIN_PSH != 0, flags & CWR != 0), (at == last, at == 0));
            joined.extend_from_slice(&piece[layout.payload..]);
        }
        prop_assert_eq!(joined, payload);
    }

    #[test]
    fn any_frame(
        mut bytes in proptest::collection::vec(any::<u8>(), 14..200), kind in 0..4usize, size in 0..50u16,
    ) {
        bytes[12..14].copy_from_slice(&[IPV4, IPV6, TAGS[0], 0x88b5][kind].to_be_bytes());
        if bytes.len() > 24 {
            bytes[14] = [0x45, 0x60, 0, 0][kind];
            bytes[23] = TCP;
        }
        let mut frame = Frame::copy_of(&bytes);
        frame.gso_size = NonZeroU16::new(size);
        frame.checksum = Checksum::Trusted;
        let mut pieces = Batch::new();
        segment(frame.clone(), &mut pieces);
        fill(&mut frame);
        prop_assert!(pieces.len() <= bytes.len().max(1));
    }
}
