//! Datagrams of an overlay network, frames whose sender left something to the link, and what senders say of themselves.

use std::num::NonZeroU16;

use ioth_vde::pcapng::{Address, claims as claims_of};
use ioth_vde::{Checksum, Frame, finish_offload, read_overlay};

use super::Input;

/// A datagram to one end of either kind: what is taken is what stands behind eight bytes of this network.
pub fn overlay(data: &[u8]) {
    let Some((&choice, datagram)) = data.split_first() else { return };
    let (vxlan, vni) = (choice & 1 != 0, u32::from(choice >> 1));
    let taken = read_overlay(vxlan, vni, datagram);
    match (taken, datagram) {
        (Some(frame), [8, _, _, _, 0, 0, low, _, behind @ ..]) => {
            assert_eq!(u32::from(*low), vni);
            assert!(frame == behind && frame.len() >= 14);
        }
        (Some(_), _) => panic!("a frame behind another header"),
        (None, [8, 0, 0, 0, 0, 0, low, 0, behind @ ..]) => {
            assert!(u32::from(*low) != vni || behind.len() < 14, "a frame that was dropped");
        }
        (None, _) => (),
    }
}

/// What a frame's sender says of itself, for the names in captures.
pub fn claims(data: &[u8]) {
    let said = claims_of(data);
    if let [Some(Address::Mac(mac)), _] = said {
        assert_eq!(data[6..12], mac.0);
    }
    for address in said.into_iter().flatten() {
        let own = match address {
            Address::Mac(address) => address.0.to_vec(),
            Address::V4(address) => address.octets().to_vec(),
            Address::V6(address) => address.octets().to_vec(),
        };
        assert!(data.windows(own.len()).any(|part| part == own), "{address:?} is not in the frame");
        assert!(said[0].is_some());
    }
}

/// A frame with checksums and segmentation to be done: no byte of it is lost or made twice.
pub fn offload(data: &[u8]) {
    let mut input = Input(data);
    let size = input.u16();
    let content = input.0;
    if content.len() < 14 || content.len() > Frame::MAX {
        return;
    }
    let mut frame = Frame::copy_of(content);
    frame.gso_size = NonZeroU16::new(size);
    frame.checksum = Checksum::Trusted;
    let pieces = finish_offload(frame);
    assert!(!pieces.is_empty() && pieces.iter().all(|piece| piece.checksum == Checksum::Present));
    if let [piece] = pieces.as_slices().0 {
        // Padding behind a packet may go with its segmentation.
        assert!(piece.len() <= content.len());
        return;
    }
    let (first, last) = (&pieces[0], &pieces[pieces.len() - 1]);
    let headers = first.len() - usize::from(size);
    let payload: usize = pieces.iter().map(|piece| piece.len() - headers).sum();
    assert!(headers + payload <= content.len() && last.len() > headers);
    let mut expected = &content[headers..];
    for piece in &pieces {
        let (now, later) = expected.split_at(piece.len() - headers);
        assert_eq!(&piece[headers..], now);
        expected = later;
    }
}
