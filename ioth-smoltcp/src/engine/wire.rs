//! What the engine reads and writes of IP headers, and the Internet checksum.
//!
//! Formats come from `smoltcp::wire`; this file adds the walk over IPv6 extension headers and a
//! checksum that is fast over whole segments (RFC 1071).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet};

/// Length of an IPv4 header without options, in bytes.
pub(crate) const IPV4_HEADER: usize = 20;
/// Length of an IPv6 header, in bytes.
pub(crate) const IPV6_HEADER: usize = 40;
/// Length of a UDP header, in bytes.
pub(crate) const UDP_HEADER: usize = 8;
/// Length of a TCP header without options, in bytes.
pub(crate) const TCP_HEADER: usize = 20;
/// RFC 3828 §7
pub(crate) const UDP_LITE: IpProtocol = IpProtocol::Unknown(136);
/// Extension headers that a packet may carry before it is called hostile.
const MAX_EXTENSIONS: usize = 8;

/// What the layers above need of an IP header, checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IpHeader {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    /// Of the upper layer.
    pub(crate) protocol: IpProtocol,
    /// Where the upper layer begins, in bytes from the IP header.
    pub(crate) payload_at: usize,
    /// Length of the packet, in bytes; the buffer may be longer (Ethernet padding).
    pub(crate) total_len: usize,
    /// TTL or hop limit.
    pub(crate) hop_limit: u8,
    /// TOS or traffic class.
    pub(crate) traffic_class: u8,
    /// Which piece it is of a packet that was fragmented.
    pub(crate) fragment: Option<Fragment>,
    /// It came with a fragment header, if only as one piece, or was put together.
    pub(crate) fragmented: bool,
}

/// A piece's place in the packet that it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    /// Tells which pieces belong together; 16 bits for IPv4.
    pub(crate) ident: u32,
    /// Where the piece begins in what was cut, in bytes.
    pub(crate) offset: usize,
    /// It is not the last one.
    pub(crate) more: bool,
    /// IPv6: where in the packet the number stands that the fragment header's takes the place of, and where that
    /// header begins.
    pub(crate) field_at: usize,
    pub(crate) header_at: usize,
}

/// Why a packet was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IpError {
    /// Lengths that lie, an unknown version, a wrong header checksum.
    Malformed,
    /// RFC 8200 §4.2: an option, at this offset, asks to be answered when it is not known.
    UnknownOption { pointer: u32, answer_multicast: bool },
    /// RFC 8200 §4.4: a routing header, whose type is at this offset, is not known and has segments left.
    UnknownRouting { pointer: u32 },
    /// RFC 8200 §4.2: an option asks for silence when it is not known. Linux has no answer to some routing headers either.
    Discard,
}

/// Reads an IP header of either version.
pub(crate) fn parse_ip(packet: &[u8], verify: bool) -> Result<IpHeader, IpError> {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => parse_ipv4(packet, verify),
        Some(6) => parse_ipv6(packet),
        _ => Err(IpError::Malformed),
    }
}

fn parse_ipv4(bytes: &[u8], verify: bool) -> Result<IpHeader, IpError> {
    let packet = Ipv4Packet::new_checked(bytes).map_err(|_| IpError::Malformed)?;
    let header_len = usize::from(packet.header_len());
    let total_len = usize::from(packet.total_len());
    if packet.version() != 4 || header_len < IPV4_HEADER || total_len < header_len || total_len > bytes.len()
    {
        return Err(IpError::Malformed);
    }
    if verify && checksum(0, &bytes[..header_len]) != 0xffff {
        return Err(IpError::Malformed);
    }
    Ok(IpHeader {
        src: packet.src_addr().into(),
        dst: packet.dst_addr().into(),
        protocol: packet.next_header(),
        payload_at: header_len,
        total_len,
        hop_limit: packet.hop_limit(),
        traffic_class: bytes[1],
        fragment: (packet.more_frags() || packet.frag_offset() != 0).then(|| Fragment {
            ident: packet.ident().into(),
            offset: packet.frag_offset().into(),
            more: packet.more_frags(),
            field_at: 9,
            header_at: header_len,
        }),
        fragmented: packet.more_frags() || packet.frag_offset() != 0,
    })
}

fn parse_ipv6(bytes: &[u8]) -> Result<IpHeader, IpError> {
    let packet = Ipv6Packet::new_checked(bytes).map_err(|_| IpError::Malformed)?;
    let total_len = packet.total_len();
    if total_len > bytes.len() {
        return Err(IpError::Malformed);
    }
    let mut header = IpHeader {
        src: packet.src_addr().into(),
        dst: packet.dst_addr().into(),
        protocol: packet.next_header(),
        payload_at: IPV6_HEADER,
        total_len,
        hop_limit: packet.hop_limit(),
        traffic_class: packet.traffic_class(),
        fragment: None,
        fragmented: false,
    };
    // Where the number of the header that comes next stands.
    let mut field_at = 6;
    for _ in 0..MAX_EXTENSIONS {
        let rest = &bytes[header.payload_at..total_len];
        match header.protocol {
            IpProtocol::HopByHop | IpProtocol::Ipv6Opts | IpProtocol::Ipv6Route => {
                let [next, units, ..] = *rest else { return Err(IpError::Malformed) };
                let len = (usize::from(units) + 1) * 8;
                if len > rest.len() {
                    return Err(IpError::Malformed);
                }
                match header.protocol {
                    IpProtocol::Ipv6Route => check_routing(rest, header.dst, header.payload_at)?,
                    _ => check_options(&rest[2..len], header.payload_at + 2)?,
                }
                header.protocol = next.into();
                field_at = header.payload_at;
                header.payload_at += len;
            }
            IpProtocol::Ipv6Frag => {
                let [next, _, offset_high, offset_low, ..] = *rest else { return Err(IpError::Malformed) };
                if rest.len() < 8 {
                    return Err(IpError::Malformed);
                }
                let field = u16::from_be_bytes([offset_high, offset_low]);
                let (offset, more) = (usize::from(field & !7), field & 1 != 0);
                let header_at = header.payload_at;
                header.protocol = next.into();
                header.payload_at += 8;
                header.fragmented = true;
                // RFC 6946: an atomic fragment (offset 0, no more to come) is a whole packet.
                if offset != 0 || more {
                    let ident = u32::from_be_bytes([rest[4], rest[5], rest[6], rest[7]]);
                    header.fragment = Some(Fragment { ident, offset, more, field_at, header_at });
                    return Ok(header);
                }
                field_at = header_at;
            }
            _ => return Ok(header),
        }
    }
    Err(IpError::Malformed)
}

/// Where the chain of an IPv6 packet's extension headers leads from a header at `at` with the number `protocol`: the upper
/// layer's number and where it begins, which may be behind the end. A piece that is not the first leads to its fragment
/// header. None when the chain itself goes on behind the end.
pub(crate) fn upper_layer(
    packet: &[u8],
    mut protocol: IpProtocol,
    mut at: usize,
) -> Option<(IpProtocol, usize)> {
    loop {
        let len = match protocol {
            IpProtocol::HopByHop | IpProtocol::Ipv6Opts | IpProtocol::Ipv6Route => {
                (usize::from(*packet.get(at + 1)?) + 1) * 8
            }
            // RFC 4302 §2.2: "in 32-bit words (4-byte units), minus \"2\"".
            IpProtocol::IpSecAh => (usize::from(*packet.get(at + 1)?) + 2) * 4,
            IpProtocol::Ipv6Frag => match *packet.get(at..at + 8)? {
                [_, _, high, low, ..] if u16::from_be_bytes([high, low]) & !7 == 0 => 8,
                _ => return Some((protocol, at)),
            },
            _ => return Some((protocol, at)),
        };
        protocol = packet[at].into();
        at += len;
    }
}

/// Whether the first piece of an IPv6 packet has all its headers (RFC 8200 §4.5, RFC 7112 §5). Of the upper layer's it asks
/// for as much as Linux's `ipv6frag_thdr_truncated`.
pub(crate) fn has_all_headers(packet: &[u8], header: &IpHeader) -> bool {
    let packet = &packet[..header.total_len];
    upper_layer(packet, header.protocol, header.payload_at).is_some_and(|(protocol, at)| {
        let least = match protocol {
            IpProtocol::Tcp => TCP_HEADER,
            IpProtocol::Udp => UDP_HEADER,
            IpProtocol::Icmpv6 => 8,
            IpProtocol::Ipv6NoNxt => 0,
            _ => 1,
        };
        at + least <= packet.len()
    })
}

/// What Linux's ipv6_rthdr_rcv() makes of a routing header at `offset` where none is known: with no segments left it is
/// ignored, otherwise it "must discard the packet and send an ICMP Parameter Problem, Code 0" (RFC 8200 §4.4, for type 0
/// RFC 5095). A packet to a group may not have one. Segment routing (RFC 8754) and RPL (RFC 6554) have to be allowed on an
/// interface before it looks at these.
fn check_routing(header: &[u8], dst: IpAddr, offset: usize) -> Result<(), IpError> {
    const RPL: u8 = 3;
    const SEGMENT_ROUTING: u8 = 4;
    match (header[2], header[3]) {
        _ if dst.is_multicast() => Err(IpError::Discard),
        (RPL | SEGMENT_ROUTING, _) => Err(IpError::Discard),
        (_, 0) => Ok(()),
        (_, _) => Err(IpError::UnknownRouting { pointer: offset as u32 + 2 }),
    }
}

/// RFC 8200 §4.2: the two highest bits of an unknown option's type say what is to be done.
fn check_options(options: &[u8], offset: usize) -> Result<(), IpError> {
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        // Pad1 has no length.
        if kind == 0 {
            at += 1;
            continue;
        }
        let len = usize::from(*options.get(at + 1).ok_or(IpError::Malformed)?);
        if at + 2 + len > options.len() {
            return Err(IpError::Malformed);
        }
        let known = matches!(kind, 0x01 | 0x05);
        match kind >> 6 {
            _ if known => {}
            0 => {}
            1 => return Err(IpError::Discard),
            action => {
                let pointer = (offset + at) as u32;
                return Err(IpError::UnknownOption { pointer, answer_multicast: action == 2 });
            }
        }
        at += 2 + len;
    }
    Ok(())
}

/// What an IP header of ours says beside the addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IpAttrs {
    pub(crate) protocol: IpProtocol,
    pub(crate) hop_limit: u8,
    pub(crate) traffic_class: u8,
    /// IPv4's "don't fragment"; IPv6 routers never fragment.
    pub(crate) dont_fragment: bool,
    /// IPv4's identification, for packets that may be fragmented.
    pub(crate) ident: u16,
}

impl IpAttrs {
    pub(crate) fn new(protocol: IpProtocol, hop_limit: u8) -> Self {
        IpAttrs { protocol, hop_limit, traffic_class: 0, dont_fragment: true, ident: 0 }
    }
}

/// Length of the header that [`emit_ip`] writes, in bytes.
pub(crate) fn ip_header_len(addr: IpAddr) -> usize {
    if addr.is_ipv4() { IPV4_HEADER } else { IPV6_HEADER }
}

/// Writes the IP header at the front of a whole packet. `src` and `dst` are of one family.
pub(crate) fn emit_ip(packet: &mut [u8], src: IpAddr, dst: IpAddr, attrs: IpAttrs) {
    let len = packet.len();
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut header = Ipv4Packet::new_unchecked(&mut packet[..]);
            header.set_version(4);
            header.set_header_len(IPV4_HEADER as u8);
            header.set_dscp(attrs.traffic_class >> 2);
            header.set_ecn(attrs.traffic_class & 3);
            header.set_total_len(len as u16);
            header.set_ident(attrs.ident);
            header.clear_flags();
            header.set_dont_frag(attrs.dont_fragment);
            header.set_frag_offset(0);
            header.set_hop_limit(attrs.hop_limit);
            header.set_next_header(attrs.protocol);
            header.set_src_addr(src);
            header.set_dst_addr(dst);
            fill_ipv4_checksum(packet);
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut header = Ipv6Packet::new_unchecked(packet);
            header.set_version(6);
            header.set_traffic_class(attrs.traffic_class);
            header.set_flow_label(0);
            header.set_payload_len((len - IPV6_HEADER) as u16);
            header.set_next_header(attrs.protocol);
            header.set_hop_limit(attrs.hop_limit);
            header.set_src_addr(src);
            header.set_dst_addr(dst);
        }
        _ => debug_assert!(false, "addresses of two families"),
    }
}

/// Computes an IPv4 header's own checksum in place.
pub(crate) fn fill_ipv4_checksum(packet: &mut [u8]) {
    let header_len = usize::from(packet[0] & 0x0f) * 4;
    packet[10..12].fill(0);
    let sum = !checksum(0, &packet[..header_len]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Where TCP, UDP, ICMPv6 and ICMPv4 keep their checksum within their header.
pub(crate) fn checksum_offset(protocol: IpProtocol) -> Option<usize> {
    match protocol {
        IpProtocol::Tcp => Some(16),
        IpProtocol::Udp | UDP_LITE => Some(6),
        IpProtocol::Icmp | IpProtocol::Icmpv6 => Some(2),
        _ => None,
    }
}

/// Computes the upper layer's checksum of a whole packet in place.
pub(crate) fn fill_checksum(packet: &mut [u8], header: &IpHeader) {
    let Some(offset) = checksum_offset(header.protocol) else { return };
    let at = header.payload_at + offset;
    let Some(field) = packet.get_mut(at..at + 2) else { return };
    field.fill(0);
    let mut sum = !transport_checksum(packet, header);
    // RFC 768: "If the computed checksum is zero, it is transmitted as all ones"; RFC 3828 §3.1 has the same.
    if matches!(header.protocol, IpProtocol::Udp | UDP_LITE) && sum == 0 {
        sum = 0xffff;
    }
    packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Whether the upper layer's checksum of a whole packet is right.
pub(crate) fn verify_checksum(packet: &[u8], header: &IpHeader) -> bool {
    let Some(offset) = checksum_offset(header.protocol) else { return true };
    let Some(field) = packet.get(header.payload_at + offset..header.payload_at + offset + 2) else {
        return false;
    };
    // RFC 768: an IPv4 sender may leave the UDP checksum out; RFC 8200 §8.1: an IPv6 sender may not.
    if header.protocol == IpProtocol::Udp && field == [0, 0] {
        return header.src.is_ipv4();
    }
    // RFC 3828 §3.1: "The checksum field MUST NOT be zero."
    if header.protocol == UDP_LITE
        && (field == [0, 0] || coverage(&packet[header.payload_at..header.total_len]).is_none())
    {
        return false;
    }
    transport_checksum(packet, header) == 0xffff
}

/// How many bytes of a UDP-Lite packet its checksum covers, by the field that is UDP's length. None where that cannot be.
///
/// RFC 3828 §3.1: "A Checksum Coverage of zero indicates that the entire UDP-Lite packet is covered", other values below the
/// header's length or above the packet's are not valid.
pub(crate) fn coverage(packet: &[u8]) -> Option<usize> {
    let field = usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]));
    let covered = if field == 0 { packet.len() } else { field };
    (UDP_HEADER..=packet.len()).contains(&covered).then_some(covered)
}

/// The sum over pseudo-header and upper layer, not complemented.
fn transport_checksum(packet: &[u8], header: &IpHeader) -> u16 {
    let payload = &packet[header.payload_at..header.total_len];
    // ICMPv4 has no pseudo-header (RFC 792).
    let pseudo = match header.protocol {
        IpProtocol::Icmp => 0,
        _ => pseudo_header(header.src, header.dst, header.protocol, payload.len()),
    };
    // RFC 3828 §3.1: the pseudo-header tells the length of the whole packet, whatever is covered.
    let covered = match header.protocol {
        UDP_LITE => coverage(payload).unwrap_or(payload.len()),
        _ => payload.len(),
    };
    checksum(pseudo, &payload[..covered])
}

pub(crate) fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: IpProtocol, len: usize) -> u64 {
    let addresses = |addr: IpAddr| match addr {
        IpAddr::V4(v4) => words_v4(v4),
        IpAddr::V6(v6) => words_v6(v6),
    };
    addresses(src) + addresses(dst) + u64::from(u8::from(protocol)) + len as u64
}

fn words_v4(addr: Ipv4Addr) -> u64 {
    let [a, b, c, d] = addr.octets();
    u64::from(u16::from_be_bytes([a, b])) + u64::from(u16::from_be_bytes([c, d]))
}

fn words_v6(addr: Ipv6Addr) -> u64 {
    addr.segments().iter().map(|&word| u64::from(word)).sum()
}

/// One's complement sum of `bytes` on top of `initial` (a sum of 16-bit words in host order), RFC 1071.
///
/// Sums native 32-bit words into 64-bit lanes, which the compiler vectorises, and swaps once at the end
/// (RFC 1071 §2(B): the sum's byte order is the data's).
pub(crate) fn checksum(initial: u64, bytes: &[u8]) -> u16 {
    let mut lanes = [0u64; 8];
    let mut chunks = bytes.chunks_exact(32);
    for chunk in &mut chunks {
        for (lane, word) in lanes.iter_mut().zip(chunk.chunks_exact(4)) {
            *lane += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
    }
    let mut native: u64 = lanes.iter().sum();
    let mut words = chunks.remainder().chunks_exact(2);
    for word in &mut words {
        native += u64::from(u16::from_ne_bytes([word[0], word[1]]));
    }
    if let [last] = *words.remainder() {
        native += u64::from(u16::from_ne_bytes([last, 0]));
    }
    let swapped = u64::from(u16::from_be(fold(native)));
    fold(swapped + initial)
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(initial: u64, bytes: &[u8]) -> u16 {
        let mut sum = initial;
        for pair in bytes.chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
        fold(sum)
    }

    proptest! {
        #[test]
        fn checksum_is_rfc_1071(bytes in proptest::collection::vec(any::<u8>(), 0..300), initial in 0u64..1 << 20) {
            prop_assert_eq!(checksum(initial, &bytes), naive(initial, &bytes));
        }

        #[test]
        fn any_packet(bytes in proptest::collection::vec(any::<u8>(), 0..200), version in 0u8..16) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = version << 4 | *first & 0x0f;
            }
            if let Ok(header) = parse_ip(&bytes, false) {
                prop_assert!(header.payload_at <= header.total_len && header.total_len <= bytes.len());
                verify_checksum(&bytes, &header);
                fill_checksum(&mut bytes, &header);
            }
        }

        #[test]
        fn what_is_emitted_is_parsed(v6: bool, lite: bool, payload in proptest::collection::vec(any::<u8>(), 8..100), hops: u8, class: u8, broken: proptest::sample::Index) {
            let (src, dst): (IpAddr, IpAddr) = if v6 {
                ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap())
            } else {
                ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap())
            };
            let mut packet = vec![0; ip_header_len(src)];
            packet.extend_from_slice(&payload);
            let attrs = IpAttrs { traffic_class: class, ..IpAttrs::new(if lite { UDP_LITE } else { IpProtocol::Udp }, hops) };
            emit_ip(&mut packet, src, dst, attrs);
            let header = parse_ip(&packet, true).unwrap();
            let at = header.payload_at;
            if lite {
                // From less than the header to more than there is.
                packet[at + 4] = 0;
                packet[at + 5] %= payload.len() as u8 + 3;
            }
            let covered = if lite { coverage(&packet[at..]) } else { Some(payload.len()) };
            prop_assert_eq!((header.src, header.dst, header.hop_limit, header.traffic_class), (src, dst, hops, class));
            fill_checksum(&mut packet, &header);
            prop_assert_eq!(verify_checksum(&packet, &header), covered.is_some());
            // One bit that is wrong is found exactly where the checksum covers it.
            let Some(covered) = covered else { return Ok(()) };
            let broken = broken.index(payload.len());
            prop_assume!(!(4..8).contains(&broken));
            packet[at + broken] ^= 1;
            prop_assert_eq!(verify_checksum(&packet, &header), broken >= covered);
        }
    }

    #[test]
    fn extension_headers() {
        let mut packet = vec![0u8; IPV6_HEADER + 8 + 8];
        emit_ip(
            &mut packet,
            Ipv6Addr::LOCALHOST.into(),
            Ipv6Addr::LOCALHOST.into(),
            IpAttrs::new(IpProtocol::HopByHop, 64),
        );
        packet[40..48].copy_from_slice(&[17, 0, 1, 4, 0, 0, 0, 0]);
        let header = parse_ip(&packet, true).unwrap();
        assert_eq!((header.protocol, header.payload_at), (IpProtocol::Udp, 48));
        // RFC 8200 §4.2, the four actions for an option that is not known
        for (kind, expected) in [
            (0x3e, None),
            (0x7e, Some(IpError::Discard)),
            (0xbe, Some(IpError::UnknownOption { pointer: 42, answer_multicast: true })),
            (0xfe, Some(IpError::UnknownOption { pointer: 42, answer_multicast: false })),
        ] {
            packet[42] = kind;
            assert_eq!(parse_ip(&packet, true).err(), expected, "{kind:#x}");
        }
    }

    #[test]
    fn routing_headers() {
        let unknown = Some(IpError::UnknownRouting { pointer: 42 });
        for (dst, kind, left, expected) in [
            ("fd00::2", 0, 0, None),
            ("fd00::2", 0, 1, unknown),
            ("fd00::2", 2, 0, None),
            ("fd00::2", 2, 255, unknown),
            ("fd00::2", 77, 0, None),
            ("fd00::2", 77, 1, unknown),
            ("fd00::2", 3, 0, Some(IpError::Discard)),
            ("fd00::2", 4, 1, Some(IpError::Discard)),
            ("ff02::1", 77, 0, Some(IpError::Discard)),
            ("ff02::1", 77, 1, Some(IpError::Discard)),
        ] {
            let mut packet = vec![0u8; IPV6_HEADER + 8 + 8];
            let attrs = IpAttrs::new(IpProtocol::Ipv6Route, 64);
            emit_ip(&mut packet, "fd00::1".parse().unwrap(), dst.parse().unwrap(), attrs);
            packet[40..48].copy_from_slice(&[17, 0, kind, left, 0, 0, 0, 0]);
            assert_eq!(parse_ip(&packet, true).err(), expected, "{dst} {kind} {left}");
        }
    }
}
