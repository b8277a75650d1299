//! ICMP and ICMPv6: echo, and errors both ways (RFC 792, RFC 1122 §3.2.2, RFC 4443).

use std::net::{IpAddr, SocketAddr};

use ioth_core::Errno;
use ioth_vde::Frame;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Icmpv6Message, Icmpv6Packet, Icmpv6Repr, IpProtocol};

use super::Engine;
use super::datagram::{IpArrival, Notice};
use super::groups::{MLD_QUERY, MLDV1_REPORT};
use super::ip_options::Received;
use super::ports::Space;
use super::route::Path;
use super::sockets::DEFAULT_HOPS;
use super::wire::{self, IpAttrs, IpHeader, ip_header_len};

/// Length of the fixed part of an ICMP message, in bytes.
const ICMP_HEADER: usize = 8;
/// RFC 1812 §4.3.2.3: "SHOULD contain as much of the original datagram as possible without [...] exceeding 576 bytes".
const MAX_ICMPV4_ERROR: usize = 576;
/// RFC 4443 §3.1: "without the ICMPv6 packet exceeding the minimum IPv6 MTU".
const MAX_ICMPV6_ERROR: usize = 1280;

const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
/// The highest code of it that is known.
const LAST_UNREACHABLE: u8 = 15;
const ECHO_REQUEST: u8 = 8;
const TIME_EXCEEDED: u8 = 11;
/// Its code for pieces that did not all come.
const REASSEMBLY_TIME: u8 = 1;
const PARAMETER_PROBLEM: u8 = 12;
const V6_UNREACHABLE: u8 = 1;
const V6_PACKET_TOO_BIG: u8 = 2;
const V6_TIME_EXCEEDED: u8 = 3;
const V6_PARAMETER_PROBLEM: u8 = 4;
/// RFC 4443 §2.1: types below are errors.
const V6_FIRST_INFORMATIONAL: u8 = 128;

/// Why a packet could not be delivered here.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unreachable {
    /// No socket has the port.
    Port,
    /// No such protocol; for IPv6 the offset of the field that named it.
    Protocol(u32),
    /// RFC 8200 §4.2: an option that is not known, at this offset.
    Option(u32),
    /// RFC 792, RFC 8200 §4.5: a field of an IP header, at this offset, is wrong.
    Field(u32),
    /// RFC 8200 §4.5: the first piece does not have all headers.
    Incomplete,
    /// A piece of the packet did not come in time.
    Reassembly,
}

impl Unreachable {
    /// ICMP type, code, and the second word of the header.
    fn message(self, ipv4: bool) -> Option<(u8, u8, u32)> {
        match (self, ipv4) {
            (Unreachable::Port, true) => Some((UNREACHABLE, 3, 0)),
            (Unreachable::Port, false) => Some((V6_UNREACHABLE, 4, 0)),
            (Unreachable::Protocol(_), true) => Some((UNREACHABLE, 2, 0)),
            (Unreachable::Protocol(pointer), false) => Some((V6_PARAMETER_PROBLEM, 1, pointer)),
            (Unreachable::Option(_), true) => None,
            (Unreachable::Field(pointer), true) => Some((PARAMETER_PROBLEM, 0, pointer << 24)),
            (Unreachable::Incomplete, true) => None,
            // RFC 7112 §5: "IPv6 First Fragment has incomplete IPv6 Header Chain".
            (Unreachable::Incomplete, false) => Some((V6_PARAMETER_PROBLEM, 3, 0)),
            (Unreachable::Field(pointer), false) => Some((V6_PARAMETER_PROBLEM, 0, pointer)),
            (Unreachable::Reassembly, true) => Some((TIME_EXCEEDED, 1, 0)),
            (Unreachable::Reassembly, false) => Some((V6_TIME_EXCEEDED, 1, 0)),
            (Unreachable::Option(pointer), false) => Some((V6_PARAMETER_PROBLEM, 2, pointer)),
        }
    }
}

impl Engine {
    /// An ICMP message arrived. Its checksum is right.
    pub(super) fn icmp_input(&mut self, ifindex: u32, header: &IpHeader, mut packet: Frame, unicast: bool) {
        packet.truncate(header.total_len);
        let at = header.payload_at;
        let Some(&[kind, code, ..]) = packet.get(at..at + ICMP_HEADER) else {
            self.net.drops.malformed += 1;
            return;
        };
        if header.src.is_ipv6() {
            return self.icmpv6_input(ifindex, header, packet, kind, code, unicast);
        }
        match kind {
            // RFC 1122 §3.2.2.6: an echo to a broadcast or multicast address may be discarded; Linux does.
            ECHO_REQUEST if unicast => self.echo(header, &packet, ECHO_REPLY),
            ECHO_REPLY => self.ping_input(ifindex, header, &packet),
            // Linux's icmp_unreach(): codes that are not known, and "reassembly time exceeded", are nobody's.
            UNREACHABLE if code > LAST_UNREACHABLE => {}
            TIME_EXCEEDED if code == REASSEMBLY_TIME => {}
            UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM => {
                let (errno, fatal) = errno_v4(kind, code);
                let quoted = &packet[at + ICMP_HEADER..];
                let notice = Notice {
                    errno,
                    fatal,
                    kind,
                    code,
                    mtu: 0,
                    offender: header.src,
                    arrival: Some(IpArrival::new(ifindex, header, header.dst)),
                };
                if (kind, code) == (UNREACHABLE, 4) {
                    let mtu = u16::from_be_bytes([packet[at + 6], packet[at + 7]]);
                    return self.too_big(quoted, Notice { mtu: mtu.into(), ..notice });
                }
                self.icmp_error_input(quoted, &notice);
            }
            _ => {}
        }
    }

    fn icmpv6_input(
        &mut self,
        ifindex: u32,
        header: &IpHeader,
        packet: Frame,
        kind: u8,
        code: u8,
        unicast: bool,
    ) {
        let at = header.payload_at;
        let message = Icmpv6Packet::new_unchecked(&packet[at..]);
        match message.msg_type() {
            // RFC 4443 §4.2: an echo to a multicast address is answered from a unicast one.
            Icmpv6Message::EchoRequest if unicast || !header.src.is_unspecified() => {
                self.echo(header, &packet, u8::from(Icmpv6Message::EchoReply));
            }
            Icmpv6Message::EchoReply => self.ping_input(ifindex, header, &packet),
            Icmpv6Message::NeighborSolicit | Icmpv6Message::NeighborAdvert => {
                let (IpAddr::V6(src), IpAddr::V6(dst)) = (header.src, header.dst) else { return };
                let parsed = Icmpv6Packet::new_checked(&packet[at..]).and_then(|message| {
                    Icmpv6Repr::parse(&src, &dst, &message, &ChecksumCapabilities::ignored())
                });
                match parsed {
                    // RFC 4861 §7.1.1: "ICMP Code is 0".
                    Ok(Icmpv6Repr::Ndisc(repr)) if code == 0 => self.net.input_ndisc(ifindex, header, repr),
                    _ => self.net.drops.malformed += 1,
                }
            }
            _ if matches!(kind, MLD_QUERY | MLDV1_REPORT) => self.net.input_mld(ifindex, header, &packet),
            // RFC 4443 §2.4 (a): "If an ICMPv6 error message of unknown type is received at its destination, it MUST be passed to
            // the upper-layer process that originated the packet".
            _ if kind < V6_FIRST_INFORMATIONAL => {
                let (errno, fatal) = errno_v6(kind, code);
                let quoted = &packet[at + ICMP_HEADER..];
                let notice = Notice {
                    errno,
                    fatal,
                    kind,
                    code,
                    mtu: 0,
                    offender: header.src,
                    arrival: Some(IpArrival::new(ifindex, header, header.dst)),
                };
                if kind == V6_PACKET_TOO_BIG {
                    let [a, b, c, d] = [4, 5, 6, 7].map(|i| packet[at + i]);
                    return self.too_big(quoted, Notice { mtu: u32::from_be_bytes([a, b, c, d]), ..notice });
                }
                self.icmp_error_input(quoted, &notice);
            }
            _ => {}
        }
    }

    /// Sends a request back as a reply: the same identifier, sequence number and data.
    fn echo(&mut self, header: &IpHeader, packet: &[u8], reply: u8) {
        if self.net.leaving {
            return;
        }
        let request = &packet[header.payload_at..];
        let options = Received::of(&self.net, header, packet);
        if options.as_ref().is_some_and(|options| options.reply.is_none()) {
            return;
        }
        let local = self.net.tables.is_local(header.dst, None).is_some();
        let source = local.then_some(header.dst);
        let scope = super::addr::is_link_local(header.src).then_some(self.arrived_by);
        let Ok(path) = self.net.tables.route(header.src, scope, source) else {
            self.net.drops.no_route += 1;
            return;
        };
        let ip = ip_header_len(header.src);
        let protocol = if header.src.is_ipv4() { IpProtocol::Icmp } else { IpProtocol::Icmpv6 };
        let mut packet = Frame::new(ip + request.len());
        packet[ip..].copy_from_slice(request);
        packet[ip] = reply;
        let attrs = IpAttrs {
            traffic_class: header.traffic_class,
            // A long answer leaves in pieces, as the question came.
            dont_fragment: ip + request.len() <= path.mtu,
            ..IpAttrs::new(protocol, DEFAULT_HOPS)
        };
        wire::emit_ip(&mut packet, source.unwrap_or(path.source), header.src, attrs);
        // Routers and captures look into ICMP: its checksum is always there.
        super::offload::fill_checksums(&mut packet);
        self.icmp_output(&path, options, packet);
    }

    /// Tells the sender of a packet why it was not delivered, if it may be told.
    pub(super) fn unreachable(&mut self, packet: &[u8], header: &IpHeader, reason: Unreachable) {
        if self.net.leaving {
            return;
        }
        let ipv4 = header.src.is_ipv4();
        let Some((kind, code, word)) = reason.message(ipv4) else { return };
        // RFC 1122 §3.2.2, RFC 4443 §2.4(e): never about an ICMP error, to nobody, to many, or from many.
        let about_error = match header.protocol {
            IpProtocol::Icmp => !matches!(packet.get(header.payload_at), Some(&(ECHO_REQUEST | ECHO_REPLY))),
            IpProtocol::Icmpv6 => packet.get(header.payload_at).is_none_or(|kind| *kind < 128),
            _ => false,
        };
        let local = self.net.tables.is_local(header.dst, None).is_some();
        // RFC 4443 §2.4(e.3): of what went to a group only an unknown option may be told of, by every member.
        let to_group = header.dst.is_multicast() && !matches!(reason, Unreachable::Option(_));
        if to_group
            || about_error
            || header.src.is_unspecified()
            || header.src.is_multicast()
            || (ipv4 && !local)
        {
            return;
        }
        if !self.net.icmp_limit.take(self.net.now) {
            self.net.drops.icmp_limited += 1;
            return;
        }
        let source = local.then_some(header.dst);
        let scope = super::addr::is_link_local(header.src).then_some(self.arrived_by);
        let Ok(path) = self.net.tables.route(header.src, scope, source) else { return };
        let (ip, longest, protocol) = match ipv4 {
            true => (wire::IPV4_HEADER, MAX_ICMPV4_ERROR, IpProtocol::Icmp),
            false => (wire::IPV6_HEADER, MAX_ICMPV6_ERROR, IpProtocol::Icmpv6),
        };
        // RFC 1122 §3.2.2.8 asks for it of echoes; Linux answers all options, but for those that are what is wrong.
        let options = match reason {
            Unreachable::Field(_) => None,
            _ => Received::of(&self.net, header, packet),
        };
        let longest =
            longest - options.as_ref().and_then(|options| options.reply).map_or(0, |reply| reply.len());
        let quoted = &packet[..packet.len().min(header.total_len).min(longest - ip - ICMP_HEADER)];
        let mut error = Frame::new(ip + ICMP_HEADER + quoted.len());
        error[ip..ip + 4].copy_from_slice(&[kind, code, 0, 0]);
        error[ip + 4..ip + 8].copy_from_slice(&word.to_be_bytes());
        error[ip + ICMP_HEADER..].copy_from_slice(quoted);
        wire::emit_ip(
            &mut error,
            source.unwrap_or(path.source),
            header.src,
            IpAttrs::new(protocol, DEFAULT_HOPS),
        );
        super::offload::fill_checksums(&mut error);
        self.icmp_output(&path, options, error);
    }

    /// Sends a message, with the options that answer those of the packet that it is about.
    fn icmp_output(&mut self, path: &Path, options: Option<Received>, packet: Frame) {
        let reply = options.and_then(|options| options.reply);
        match reply {
            Some(reply) => {
                for packet in reply.put_into(&self.net, packet) {
                    self.net.output_pieces(path, path.mtu, packet);
                }
            }
            None => self.net.output_pieces(path, path.mtu, packet),
        }
    }

    /// Somebody could not deliver a packet of ours, of which the beginning is quoted.
    fn icmp_error_input(&mut self, quoted: &[u8], notice: &Notice) {
        let Some((protocol, local, remote, sequence)) = ends_of(quoted) else { return };
        if self.net.tables.is_local(local.ip(), None).is_none() {
            return;
        }
        if !self.raws.is_empty() {
            self.raw_error(protocol, local.ip(), remote.ip(), notice, quoted);
        }
        match protocol {
            // RFC 5927 §4.1: who cannot tell what was sent has not seen it.
            IpProtocol::Tcp => {
                if let Some(sequence) = sequence {
                    self.tcp_error(local, remote, sequence, notice.errno);
                }
            }
            IpProtocol::Icmp | IpProtocol::Icmpv6 => {
                self.ping_error(quoted, local.ip(), remote.ip(), notice);
            }
            IpProtocol::Udp => self.udp_error(Space::Udp, local, remote, notice, quoted),
            wire::UDP_LITE => self.udp_error(Space::UdpLite, local, remote, notice, quoted),
            _ => {}
        }
    }

    /// A packet of ours was longer than what follows carries, the notice's MTU (RFC 1191 §3, RFC 8201 §4).
    ///
    /// Anybody can say so. RFC 5927 §7.2, RFC 8201 §4: what is quoted has to be ours, as far as that can be seen, and longer
    /// than what is said to pass.
    fn too_big(&mut self, quoted: &[u8], notice: Notice) {
        let mtu = notice.mtu as usize;
        let Some((protocol, local, remote, sequence)) = ends_of(quoted) else { return };
        let sent = match quoted[0] >> 4 {
            4 => usize::from(u16::from_be_bytes([quoted[2], quoted[3]])),
            _ => wire::IPV6_HEADER + usize::from(u16::from_be_bytes([quoted[4], quoted[5]])),
        };
        // RFC 1191 §5: 0 is from a router that does not know of this; Linux does not guess.
        if mtu == 0 || mtu >= sent || self.net.tables.is_local(local.ip(), None).is_none() {
            return;
        }
        let space = match protocol {
            IpProtocol::Tcp => Space::Tcp,
            IpProtocol::Udp => Space::Udp,
            wire::UDP_LITE => Space::UdpLite,
            _ => return,
        };
        let ours = match space {
            Space::Tcp => self.tcp_has_sent(local, remote, sequence),
            Space::Udp | Space::UdpLite => self.udp_has_sent(space, local, remote),
        };
        if !ours {
            return;
        }
        let scope = super::addr::is_link_local(remote.ip()).then_some(self.arrived_by);
        if let Ok(path) = self.net.tables.route(remote.ip(), scope, Some(local.ip()))
            && !path.local
        {
            self.net.tables.learn_mtu(self.net.now, path.ifindex, remote.ip(), mtu);
        }
        if space != Space::Tcp {
            // Linux: an error for good, for whom it is one at all.
            self.udp_error(space, local, remote, &Notice { fatal: true, ..notice }, quoted);
        }
    }

    /// Packets of ours for which no neighbour answered: like a "host unreachable" from ourselves.
    pub(super) fn neighbours_failed(&mut self) {
        while let Some((ifindex, packet)) = self.net.failed.pop() {
            self.arrived_by = ifindex;
            let Some((_, local, ..)) = ends_of(&packet) else { continue };
            let (kind, code) = if local.is_ipv4() { (UNREACHABLE, 1) } else { (V6_UNREACHABLE, 3) };
            let (errno, fatal) = (Errno::EHOSTUNREACH, false);
            let notice = Notice { errno, fatal, kind, code, mtu: 0, offender: local.ip(), arrival: None };
            self.icmp_error_input(&packet, &notice);
        }
    }
}

/// The protocol of a packet that is quoted, and where its header begins; none for a piece that is not the first.
fn upper_layer(quoted: &[u8]) -> Option<(IpProtocol, usize)> {
    const OFFSET_V4: u16 = 0x1fff;
    const OFFSET_V6: u16 = 0xfff8;
    let word = |at: usize| quoted.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    match quoted.first()? >> 4 {
        4 if word(6)? & OFFSET_V4 != 0 => None,
        4 => Some(((*quoted.get(9)?).into(), usize::from(quoted[0] & 0x0f) * 4)),
        6 => match (*quoted.get(6)?).into() {
            IpProtocol::Ipv6Frag if word(wire::IPV6_HEADER + 2)? & OFFSET_V6 == 0 => {
                Some(((*quoted.get(wire::IPV6_HEADER)?).into(), wire::IPV6_HEADER + 8))
            }
            protocol => Some((protocol, wire::IPV6_HEADER)),
        },
        _ => None,
    }
}

/// What a quoted packet carries behind the header of its protocol, of that many bytes.
pub(super) fn carried(quoted: &[u8], header: usize) -> &[u8] {
    let at = upper_layer(quoted).map_or(quoted.len(), |(_, at)| at + header);
    quoted.get(at..).unwrap_or_default()
}

/// The two ends of a packet of ours whose beginning somebody quotes, and what follows the ports: TCP's sequence number.
/// It may be cut after eight bytes.
fn ends_of(quoted: &[u8]) -> Option<(IpProtocol, SocketAddr, SocketAddr, Option<u32>)> {
    let (protocol, at) = upper_layer(quoted)?;
    let (src, dst): (IpAddr, IpAddr) = if quoted[0] >> 4 == 4 {
        let addr = |at: usize| <[u8; 4]>::try_from(quoted.get(at..at + 4)?).ok().map(IpAddr::from);
        (addr(12)?, addr(16)?)
    } else {
        let addr = |at: usize| <[u8; 16]>::try_from(quoted.get(at..at + 16)?).ok().map(IpAddr::from);
        (addr(8)?, addr(24)?)
    };
    let ports: [u8; 4] = quoted.get(at..at + 4)?.try_into().ok()?;
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    let sequence = quoted.get(at + 4..at + 8).and_then(|word| word.try_into().ok()).map(u32::from_be_bytes);
    Some((protocol, SocketAddr::new(src, port(0)), SocketAddr::new(dst, port(2)), sequence))
}

/// Linux's icmp_err_convert: the errno, and whether a datagram socket hears of it.
fn errno_v4(kind: u8, code: u8) -> (Errno, bool) {
    match (kind, code) {
        (UNREACHABLE, 0 | 11) => (Errno::ENETUNREACH, false),
        (UNREACHABLE, 2) => (Errno::ENOPROTOOPT, true),
        (UNREACHABLE, 3) => (Errno::ECONNREFUSED, true),
        (UNREACHABLE, 4) => (Errno::EMSGSIZE, false),
        (UNREACHABLE, 5) => (Errno::EOPNOTSUPP, false),
        (UNREACHABLE, 7) => (Errno::EHOSTDOWN, true),
        (UNREACHABLE, 8) => (Errno::ENONET, true),
        (UNREACHABLE, 6 | 9) => (Errno::ENETUNREACH, true),
        (UNREACHABLE, 10 | 13..=15) => (Errno::EHOSTUNREACH, true),
        (PARAMETER_PROBLEM, _) => (Errno::EPROTO, true),
        _ => (Errno::EHOSTUNREACH, false),
    }
}

/// Linux's icmpv6_err_convert.
fn errno_v6(kind: u8, code: u8) -> (Errno, bool) {
    match (kind, code) {
        (V6_UNREACHABLE, 0) => (Errno::ENETUNREACH, false),
        (V6_UNREACHABLE, 1 | 5 | 6) => (Errno::EACCES, true),
        (V6_UNREACHABLE, 2 | 3) => (Errno::EHOSTUNREACH, false),
        (V6_UNREACHABLE, 4) => (Errno::ECONNREFUSED, true),
        (V6_UNREACHABLE, _) => (Errno::EPROTO, true),
        (V6_PACKET_TOO_BIG, _) => (Errno::EMSGSIZE, false),
        (V6_TIME_EXCEEDED, _) => (Errno::EHOSTUNREACH, false),
        (V6_PARAMETER_PROBLEM, _) => (Errno::EPROTO, true),
        _ => (Errno::EPROTO, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_quote(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = ends_of(&bytes);
        }
    }
}
