//! `struct virtio_net_hdr`, which stands in front of each frame (virtio 1.2 §5.1.6, and linux/virtio_net.h).
//!
//! ```text
//!   flags   gso_type   hdr_len (2)   gso_size (2)   csum_start (2)   csum_offset (2)      in the machine's byte order
//! ```

use std::num::NonZeroU16;

/// Length of the header, in bytes.
pub(super) const LEN: usize = 10;

/// What we can do without (`TUN_F_*`): checksums, and TCP's segmentation for either family.
pub(super) const CHECKSUM: libc::c_uint = 1;
pub(super) const TSO4: libc::c_uint = 2;
pub(super) const TSO6: libc::c_uint = 4;

const NEEDS_CHECKSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCP4: u8 = 1;
const GSO_TCP6: u8 = 4;
const GSO_ECN: u8 = 0x80;

/// What is left to do on a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// A checksum is to be completed: from where on, and where it is from there.
    pub(super) checksum: Option<(u16, u16)>,
    /// The checksum was checked.
    pub(super) valid: bool,
    pub(super) gso: Option<Gso>,
    /// Where the headers end; a hint.
    pub(super) header_len: u16,
}

/// A super-frame of TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gso {
    pub(super) size: NonZeroU16,
    pub(super) v6: bool,
}

impl Header {
    pub(super) fn to_bytes(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        if self.valid {
            bytes[0] |= DATA_VALID;
        }
        if let Some((start, offset)) = self.checksum {
            bytes[0] |= NEEDS_CHECKSUM;
            bytes[6..8].copy_from_slice(&start.to_ne_bytes());
            bytes[8..].copy_from_slice(&offset.to_ne_bytes());
        }
        if let Some(Gso { size, v6 }) = self.gso {
            bytes[1] = if v6 { GSO_TCP6 } else { GSO_TCP4 };
            bytes[4..6].copy_from_slice(&size.get().to_ne_bytes());
        }
        bytes[2..4].copy_from_slice(&self.header_len.to_ne_bytes());
        bytes
    }

    /// `None` for a kind of super-frame that we did not ask for.
    pub(super) fn from_bytes(bytes: [u8; LEN]) -> Option<Self> {
        let number = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let gso = match bytes[1] & !GSO_ECN {
            GSO_NONE => None,
            kind @ (GSO_TCP4 | GSO_TCP6) => {
                Some(Gso { size: NonZeroU16::new(number(4))?, v6: kind == GSO_TCP6 })
            }
            _ => return None,
        };
        let checksum = (bytes[0] & NEEDS_CHECKSUM != 0).then(|| (number(6), number(8)));
        Some(Header { checksum, valid: bytes[0] & DATA_VALID != 0, gso, header_len: number(2) })
    }
}
