//! What every switch reads of a frame.

/// An Ethernet address as a number: cheap to hash and compare.
pub(crate) type Mac = u64;
/// The hash of tables whose keys strangers choose.
pub(crate) type Hasher = foldhash::fast::RandomState;

/// Length of an Ethernet header, in bytes.
pub(crate) const HEADER: usize = 14;
/// Length of an IEEE 802.1Q tag, in bytes.
pub(crate) const TAG: usize = 4;
/// What stands where the EtherType would, when a tag follows.
pub(crate) const TAG_TYPE: [u8; 2] = [0x81, 0x00];
/// VDE's largest MTU, in bytes.
pub(crate) const MTU_MAX: usize = 9216;
/// The frame of that: Ethernet, one tag.
pub(crate) const FRAME_MAX: usize = MTU_MAX + HEADER + TAG;

/// Reads an address from a frame: the destination is at 0, the source at 6.
pub(crate) fn mac_at(frame: &[u8], at: usize) -> Mac {
    let mut bytes = [0; 8];
    bytes[2..].copy_from_slice(&frame[at..at + 6]);
    Mac::from_be_bytes(bytes)
}

pub(crate) fn is_group(mac: Mac) -> bool {
    mac >> 40 & 1 != 0
}

/// Whether a frame, which has its header, is tagged.
pub(crate) fn is_tagged(frame: &[u8]) -> bool {
    frame[12..HEADER] == TAG_TYPE
}

/// The tag control information's VLAN. IEEE 802.1Q-2018 §9.6: the low 12 bits.
pub(crate) fn vlan_of(control: [u8; 2]) -> u16 {
    u16::from_be_bytes(control) & 0xfff
}
