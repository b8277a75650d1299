use std::num::NonZeroU16;

use proptest::prelude::*;

use super::*;
use crate::offload::tests::frame;

#[test]
fn headers_for_the_kernel() {
    // A frame with its checksums needs nothing.
    let mut done = frame(false, true, 0, b"x");
    offload::fill(&mut done);
    assert_eq!(outgoing(&mut done).to_bytes(), [0; vnet::LEN]);
    for (v6, tcp, start, offset) in [(false, true, 34, 16), (true, true, 62, 16), (false, false, 34, 6)] {
        let mut left = frame(v6, tcp, 0, &[9; 3000]);
        left.gso_size = NonZeroU16::new(1000);
        let header = outgoing(&mut left);
        assert_eq!(header.checksum, Some((start, offset)));
        let size = NonZeroU16::new(1000).unwrap();
        assert_eq!(header.gso, tcp.then_some(Gso { size, v6 }));
        assert_eq!(header.header_len, start + if tcp { 20 } else { 8 });
        // The kernel completes it as hardware would: then it is right.
        let mut whole = left.clone();
        assert!(offload::complete(&mut whole, start.into(), offset.into(), !tcp));
        let mut other = left.clone();
        offload::fill(&mut other);
        assert_eq!(whole[..], other[..]);
    }
    // One segment is no super-frame.
    let mut short = frame(false, true, 0, &[9; 1000]);
    short.gso_size = NonZeroU16::new(1000);
    assert_eq!(outgoing(&mut short).gso, None);
}

#[test]
fn headers_of_the_kernel() {
    let size = NonZeroU16::new(1448).unwrap();
    let header = Header { gso: Some(Gso { size, v6: false }), checksum: Some((34, 16)), ..Header::default() };
    let mut big = frame(false, true, 0, &[1; 5000]);
    big.checksum = Checksum::Present;
    assert!(incoming(&mut big, &Some(header)));
    assert_eq!((big.gso_size, big.checksum), (Some(size), Checksum::Trusted));
    // Within another packet.
    let inner = Header { checksum: Some((84, 6)), ..Header::default() };
    let mut tunnel = frame(false, false, 0, &[0; 100]);
    tunnel.checksum = Checksum::Present;
    assert!(incoming(&mut tunnel, &Some(inner)));
    assert_eq!((tunnel.checksum, &tunnel[90..92]), (Checksum::Present, &[0xff, 0xff][..]));
    let outside = Header { checksum: Some((60_000, 60_000)), ..Header::default() };
    assert!(!incoming(&mut tunnel, &Some(outside)));
    let mut udp = [0; vnet::LEN];
    udp[1] = 3;
    assert_eq!(Header::from_bytes(udp), None);
}

#[test]
fn names_and_options() {
    for wrong in
        ["tap://a/b", "tap://0123456789abcdef", "tap://a b", "tap://t%d", "tap://t[gso=65536]", "tap://t[x]"]
    {
        assert!(matches!(crate::open(wrong).unwrap_err(), LinkError::Syntax(_)), "{wrong}");
    }
}

proptest! {
    #[test]
    fn any_header(bytes: [u8; vnet::LEN], content in proptest::collection::vec(any::<u8>(), 14..200)) {
        let header = Header::from_bytes(bytes);
        let _ = incoming(&mut Frame::copy_of(&content), &header);
        if let Some(header) = header {
            prop_assert_eq!(Header::from_bytes(header.to_bytes()), Some(header));
        }
    }
}
