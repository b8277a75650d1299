//! What a filter sees of a packet: its bytes, and what Linux's ancillary loads tell of it.

use smoltcp::wire::IpProtocol;

use crate::engine::wire;

/// From here on, as unsigned numbers, loads are ancillary (`SKF_AD_OFF` of linux/filter.h).
pub(super) const AD_OFF: u32 = libc::SKF_AD_OFF as u32;
/// From here on loads count from the network header (`SKF_NET_OFF`).
const NET_OFF: u32 = libc::SKF_NET_OFF as u32;
/// From here on loads count from the link-layer header (`SKF_LL_OFF`).
const LL_OFF: u32 = libc::SKF_LL_OFF as u32;

/// The ancillary values, as distances from [`AD_OFF`] (`SKF_AD_*`).
const PROTOCOL: u32 = libc::SKF_AD_PROTOCOL as u32;
const PKTTYPE: u32 = libc::SKF_AD_PKTTYPE as u32;
const IFINDEX: u32 = libc::SKF_AD_IFINDEX as u32;
const NLATTR: u32 = libc::SKF_AD_NLATTR as u32;
const NLATTR_NEST: u32 = libc::SKF_AD_NLATTR_NEST as u32;
const MARK: u32 = libc::SKF_AD_MARK as u32;
const QUEUE: u32 = libc::SKF_AD_QUEUE as u32;
const HATYPE: u32 = libc::SKF_AD_HATYPE as u32;
const RXHASH: u32 = libc::SKF_AD_RXHASH as u32;
const CPU: u32 = libc::SKF_AD_CPU as u32;
const ALU_XOR_X: u32 = libc::SKF_AD_ALU_XOR_X as u32;
const VLAN_TAG: u32 = libc::SKF_AD_VLAN_TAG as u32;
const VLAN_TAG_PRESENT: u32 = libc::SKF_AD_VLAN_TAG_PRESENT as u32;
const PAY_OFFSET: u32 = libc::SKF_AD_PAY_OFFSET as u32;
const RANDOM: u32 = libc::SKF_AD_RANDOM as u32;
const VLAN_TPID: u32 = libc::SKF_AD_VLAN_TPID as u32;

/// A packet as a filter sees it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Packet<'a> {
    /// All its bytes that there are.
    pub bytes: &'a [u8],
    /// Where in them the socket's own view begins, from which loads count and which the length is of.
    pub start: usize,
    /// Where the link-layer header begins; `None` where there is none.
    pub link: Option<usize>,
    /// Where the network header begins.
    pub network: usize,
    /// The EtherType, in host byte order.
    pub protocol: u16,
    /// `PACKET_HOST`, `PACKET_BROADCAST`, ... of packet(7).
    pub kind: u8,
    /// The interface.
    pub ifindex: u32,
    /// The interface's `ARPHRD_*`.
    pub hatype: u16,
    /// A number that nobody can guess.
    pub random: u32,
}

impl Packet<'_> {
    /// Length of the socket's view.
    pub(super) fn len(&self) -> u32 {
        self.view().len() as u32
    }

    pub(super) fn word(&self, offset: u32) -> Option<u32> {
        self.load::<4>(offset).map(u32::from_be_bytes)
    }

    pub(super) fn half(&self, offset: u32) -> Option<u32> {
        self.load::<2>(offset).map(|bytes| u32::from(u16::from_be_bytes(bytes)))
    }

    pub(super) fn byte(&self, offset: u32) -> Option<u32> {
        self.load::<1>(offset).map(|[byte]| u32::from(byte))
    }

    /// The value of an ancillary load. `None`: it is the device's, and there is no device.
    pub(super) fn ancillary(&self, offset: u32, a: u32, x: u32) -> Option<u32> {
        match offset.wrapping_sub(AD_OFF) {
            PROTOCOL => Some(u32::from(self.protocol)),
            PKTTYPE => Some(u32::from(self.kind)),
            IFINDEX => (self.ifindex != 0).then_some(self.ifindex),
            HATYPE => (self.ifindex != 0).then_some(u32::from(self.hatype)),
            NLATTR => Some(self.attribute(a, x)),
            NLATTR_NEST => Some(self.nested_attribute(a, x)),
            // No packet marks, one queue, no hash, and no VLAN tag that was taken off its frame.
            MARK | QUEUE | RXHASH | CPU | VLAN_TAG | VLAN_TAG_PRESENT | VLAN_TPID => Some(0),
            ALU_XOR_X => Some(a ^ x),
            PAY_OFFSET => Some(self.payload_offset()),
            RANDOM => Some(self.random),
            _ => None,
        }
    }

    fn view(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or(&[])
    }

    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let at = match offset {
            0..=0x7fff_ffff => self.start.checked_add(offset as usize)?,
            NET_OFF.. => self.network.checked_add((offset - NET_OFF) as usize)?,
            LL_OFF.. => self.link?.checked_add((offset - LL_OFF) as usize)?,
            _ => return None,
        };
        self.bytes.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    /// Where, from `at` on, the netlink attribute of that type begins (`__skb_get_nlattr`); 0 when there is none.
    fn attribute(&self, at: u32, kind: u32) -> u32 {
        find(self.view(), at as usize, self.view().len(), kind)
    }

    /// The same within the attribute that begins at `at` (`__skb_get_nlattr_nest`).
    fn nested_attribute(&self, at: u32, kind: u32) -> u32 {
        let (view, at) = (self.view(), at as usize);
        match half_at(view, at) {
            Some(len) if at + ATTRIBUTE <= view.len() && usize::from(len) <= view.len() - at => {
                find(view, at + ATTRIBUTE, at + usize::from(len), kind)
            }
            _ => 0,
        }
    }

    /// Where the data behind the transport header begins (`skb_get_poff`); 0 when that is not known.
    fn payload_offset(&self) -> u32 {
        let Some(packet) = self.bytes.get(self.network..) else { return 0 };
        let Ok(header) = wire::parse_ip(packet, false) else { return 0 };
        let transport = &packet[header.payload_at..header.total_len];
        let len = match header.protocol {
            _ if header.fragment.is_some() => 0,
            IpProtocol::Tcp => match transport.get(12) {
                Some(byte) => usize::from((byte & 0xf0) >> 2).max(wire::TCP_HEADER),
                None => return (self.network + header.payload_at).saturating_sub(self.start) as u32,
            },
            IpProtocol::Udp | wire::UDP_LITE | IpProtocol::Icmp | IpProtocol::Icmpv6 | IpProtocol::Igmp => 8,
            _ => 0,
        };
        (self.network + header.payload_at + len).saturating_sub(self.start) as u32
    }
}

/// Whether an offset is of an ancillary value that Linux knows.
pub(super) fn is_ancillary(offset: u32) -> bool {
    let at = offset.wrapping_sub(AD_OFF);
    at.is_multiple_of(4) && at <= VLAN_TPID
}

/// Length of a netlink attribute's header, in bytes.
const ATTRIBUTE: usize = 4;

fn find(view: &[u8], mut at: usize, end: usize, kind: u32) -> u32 {
    while at + ATTRIBUTE <= end {
        let (Some(len), Some(found)) = (half_at(view, at), half_at(view, at + 2)) else { return 0 };
        let len = usize::from(len);
        if len < ATTRIBUTE || len > end - at {
            return 0;
        }
        // The two highest bits of a type are flags (NLA_TYPE_MASK).
        if u32::from(found & 0x3fff) == kind {
            return at as u32;
        }
        at += len.next_multiple_of(4);
    }
    0
}

/// A number as netlink has it, in host byte order.
fn half_at(view: &[u8], at: usize) -> Option<u16> {
    view.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_ne_bytes)
}
