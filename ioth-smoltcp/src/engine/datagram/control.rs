//! Control messages of datagram sockets, both ways.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ioth_core::control::{self, Message, Writer};
use ioth_core::{Domain, Errno, MsgFlags, Result};

use crate::engine::ip_options::{self, Received};

use super::inbox::{IpArrival, LinkArrival};

/// Since Linux 5.1, the same with 64-bit seconds on every machine.
pub(crate) const SO_TIMESTAMP_NEW: i32 = 63;
pub(crate) const SO_TIMESTAMPNS_NEW: i32 = 64;
/// RFC 2292's numbers, which Linux takes still.
const IPV6_2292PKTINFO: i32 = 2;
const IPV6_2292HOPLIMIT: i32 = 8;

/// Which time stamp a socket's user wants with each datagram: the option's number is the message's type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TimeStamp {
    #[default]
    None,
    /// SO_TIMESTAMP or SO_TIMESTAMP_NEW: a `struct timeval`.
    Micros(i32),
    /// SO_TIMESTAMPNS or SO_TIMESTAMPNS_NEW: a `struct timespec`.
    Nanos(i32),
}

impl TimeStamp {
    /// From setsockopt(2) with SO_TIMESTAMP or SO_TIMESTAMP_NEW.
    pub(crate) fn micros(name: i32, on: bool) -> Self {
        if on { TimeStamp::Micros(name) } else { TimeStamp::None }
    }

    /// From setsockopt(2) with SO_TIMESTAMPNS or SO_TIMESTAMPNS_NEW.
    pub(crate) fn nanos(name: i32, on: bool) -> Self {
        if on { TimeStamp::Nanos(name) } else { TimeStamp::None }
    }

    /// Whether getsockopt(2) with this option says 1. Linux: SO_TIMESTAMP_NEW does with SO_TIMESTAMPNS_NEW, too.
    pub(crate) fn answers(self, name: i32) -> bool {
        match self {
            TimeStamp::None => false,
            TimeStamp::Micros(set) => set == name,
            TimeStamp::Nanos(set) => set == name || (set, name) == (SO_TIMESTAMPNS_NEW, SO_TIMESTAMP_NEW),
        }
    }
}

/// What a socket's user wants to know of each datagram's IP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// IP_PKTINFO
    pub(crate) pktinfo: bool,
    /// IP_RECVTTL
    pub(crate) ttl: bool,
    /// IP_RECVTOS
    pub(crate) tos: bool,
    /// IP_RECVOPTS
    pub(crate) options: bool,
    /// IP_RETOPTS
    pub(crate) reply_options: bool,
    /// IPV6_RECVPKTINFO
    pub(crate) v6_pktinfo: bool,
    /// IPV6_RECVHOPLIMIT
    pub(crate) v6_hop_limit: bool,
    /// IPV6_RECVTCLASS
    pub(crate) v6_traffic_class: bool,
    /// PACKET_AUXDATA
    pub(crate) auxdata: bool,
}

/// Writes the time stamp that was asked for. `time` is since 1970.
pub(crate) fn stamp(writer: &mut Writer<'_>, wanted: TimeStamp, time: Duration) {
    let (kind, fraction) = match wanted {
        TimeStamp::None => return,
        TimeStamp::Micros(kind) => (kind, time.subsec_micros()),
        TimeStamp::Nanos(kind) => (kind, time.subsec_nanos()),
    };
    let mut value = [0; 16];
    value[..8].copy_from_slice(&time.as_secs().to_ne_bytes());
    value[8..].copy_from_slice(&u64::from(fraction).to_ne_bytes());
    writer.put(libc::SOL_SOCKET, kind, &value);
}

/// Writes what was asked for of the IP header, in Linux's order (`ip6_datagram_recv_ctl`, `ip_cmsg_recv_offset`).
///
/// A dual-stack socket hears of an IPv4 packet by its options of level IPPROTO_IP, and by IPV6_RECVPKTINFO with
/// mapped addresses.
pub(super) fn report(writer: &mut Writer<'_>, wanted: &Report, domain: Domain, arrival: &IpArrival) {
    if domain == Domain::INET6 && wanted.v6_pktinfo {
        let addr = match arrival.destination {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let mut value = [0; 20];
        value[..16].copy_from_slice(&addr.octets());
        value[16..].copy_from_slice(&arrival.ifindex.to_ne_bytes());
        writer.put(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &value);
    }
    let class = i32::from(arrival.traffic_class);
    let hops = i32::from(arrival.hop_limit).to_ne_bytes();
    match (arrival.destination, arrival.local) {
        (IpAddr::V4(destination), IpAddr::V4(local)) => {
            if wanted.pktinfo {
                let mut value = [0; 12];
                value[..4].copy_from_slice(&arrival.ifindex.to_ne_bytes());
                value[4..8].copy_from_slice(&local.octets());
                value[8..].copy_from_slice(&destination.octets());
                writer.put(libc::IPPROTO_IP, libc::IP_PKTINFO, &value);
            }
            if wanted.ttl {
                writer.put(libc::IPPROTO_IP, libc::IP_TTL, &hops);
            }
            if wanted.tos {
                writer.put(libc::IPPROTO_IP, libc::IP_TOS, &[arrival.traffic_class]);
            }
        }
        _ => {
            if wanted.v6_hop_limit {
                writer.put(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, &hops);
            }
            if wanted.v6_traffic_class {
                writer.put(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &class.to_ne_bytes());
            }
        }
    }
}

/// Writes the IPv4 options that were asked for: as they came, and as they would go back. What cannot go back is lost.
pub(super) fn ip_options(writer: &mut Writer<'_>, wanted: &Report, options: &Received) -> MsgFlags {
    if wanted.options {
        writer.put(libc::IPPROTO_IP, libc::IP_RECVOPTS, options.bytes());
    }
    if !wanted.reply_options {
        return MsgFlags::empty();
    }
    let Some(reply) = &options.reply else { return MsgFlags::CTRUNC };
    writer.put(libc::IPPROTO_IP, libc::IP_RETOPTS, &reply.told());
    MsgFlags::empty()
}

/// Writes PACKET_AUXDATA's `struct tpacket_auxdata`. `kept` is how many bytes of the frame the socket's filter left.
pub(super) fn auxdata(writer: &mut Writer<'_>, arrival: &LinkArrival, kept: usize) {
    let mut status = libc::TP_STATUS_USER;
    if arrival.verified {
        status |= libc::TP_STATUS_CSUM_VALID;
    }
    let mut value = [0; 20];
    value[..4].copy_from_slice(&status.to_ne_bytes());
    value[4..8].copy_from_slice(&(arrival.len as u32).to_ne_bytes());
    value[8..12].copy_from_slice(&(kept as u32).to_ne_bytes());
    value[14..16].copy_from_slice(&(arrival.network as u16).to_ne_bytes());
    writer.put(libc::SOL_PACKET, libc::PACKET_AUXDATA, &value);
}

/// What the control messages of one sendmsg(2) say. What they leave out is as the socket's options have it.
///
/// Addresses and interfaces are as they were given: whether they are ours is found when the way is looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SendControl {
    /// IP_PKTINFO's `ipi_spec_dst`, IPV6_PKTINFO's address.
    pub(crate) source: Option<IpAddr>,
    /// The interface of either.
    pub(crate) ifindex: Option<u32>,
    /// IP_TTL, IPV6_HOPLIMIT
    pub(crate) hop_limit: Option<u8>,
    /// IP_TOS, IPV6_TCLASS
    pub(crate) traffic_class: Option<u8>,
    /// IPV6_DONTFRAG
    pub(crate) dont_fragment: Option<bool>,
    /// IP_RETOPTS
    pub(crate) options: Option<OptionBytes>,
}

/// Options of an IPv4 header as they were given, and how many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OptionBytes([u8; ip_options::MAX], usize);

impl OptionBytes {
    /// Linux takes no more than there can be.
    fn of(value: &[u8]) -> Self {
        let len = value.len().min(ip_options::MAX);
        let mut bytes = [0; ip_options::MAX];
        bytes[..len].copy_from_slice(&value[..len]);
        OptionBytes(bytes, len)
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0[..self.1]
    }
}

impl SendControl {
    /// For a packet to an IPv4 destination, from a socket of either family.
    ///
    /// # Errors
    /// `EINVAL` for malformed messages, those of the levels SOL_SOCKET and IPPROTO_IP that are not known, and values out
    /// of bounds. Other levels are passed over (`ip_cmsg_send`).
    pub(crate) fn parse_v4(control: &[u8], domain: Domain) -> Result<Self> {
        let mut parsed = SendControl::default();
        for message in control::messages(control) {
            let message = message?;
            match (message.level, message.kind) {
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO | IPV6_2292PKTINFO) if domain == Domain::INET6 => {
                    let (addr, ifindex) = v6_pktinfo(&message)?;
                    let source = addr.to_ipv4_mapped().ok_or(Errno::EINVAL)?;
                    parsed.set_v4_source(ifindex, source);
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let value: [u8; 12] = message.data.try_into().map_err(|_| Errno::EINVAL)?;
                    let [a, b, c, d, e, f, g, h, ..] = value;
                    parsed.set_v4_source(u32::from_ne_bytes([a, b, c, d]), Ipv4Addr::new(e, f, g, h));
                }
                (libc::IPPROTO_IP, libc::IP_TTL) => {
                    parsed.hop_limit = Some(bounded(&message, 1)?.ok_or(Errno::EINVAL)?);
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => {
                    parsed.traffic_class = match message.data {
                        [tos] => Some(*tos),
                        _ => Some(bounded(&message, 0)?.ok_or(Errno::EINVAL)?),
                    };
                }
                (libc::IPPROTO_IP, libc::IP_RETOPTS) => parsed.options = Some(OptionBytes::of(message.data)),
                (libc::IPPROTO_IP, _) => return Err(Errno::EINVAL),
                _ => common(&message)?,
            }
        }
        Ok(parsed)
    }

    /// For a packet to an IPv6 destination.
    ///
    /// # Errors
    /// As [`parse_v4`](Self::parse_v4), with level IPPROTO_IPV6 for IPPROTO_IP (`ip6_datagram_send_ctl`).
    pub(crate) fn parse_v6(control: &[u8]) -> Result<Self> {
        let mut parsed = SendControl::default();
        for message in control::messages(control) {
            let message = message?;
            match (message.level, message.kind) {
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO | IPV6_2292PKTINFO) => {
                    let (addr, ifindex) = v6_pktinfo(&message)?;
                    parsed.source = Some(IpAddr::V6(addr)).filter(|addr| !addr.is_unspecified());
                    parsed.ifindex = Some(ifindex).filter(|ifindex| *ifindex != 0);
                }
                (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT | IPV6_2292HOPLIMIT) => {
                    parsed.hop_limit = bounded(&message, -1)?;
                }
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => parsed.traffic_class = bounded(&message, -1)?,
                (libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG) => match message.as_i32() {
                    Some(flag @ 0..=1) => parsed.dont_fragment = Some(flag == 1),
                    _ => return Err(Errno::EINVAL),
                },
                (libc::IPPROTO_IPV6, _) => return Err(Errno::EINVAL),
                _ => common(&message)?,
            }
        }
        Ok(parsed)
    }

    /// Of the control messages of level IPPROTO_UDP, which only UDP's sockets look at, none is known (`udp_cmsg_send`).
    ///
    /// # Errors
    /// `EINVAL` where there is one. Malformed ones are left to others.
    pub(crate) fn check_udp(control: &[u8]) -> Result<()> {
        let mut messages = control::messages(control).flatten();
        if messages.any(|message| message.level == libc::IPPROTO_UDP) { Err(Errno::EINVAL) } else { Ok(()) }
    }

    /// Of control messages to netlink those of SOL_SOCKET alone mean something, and of them the sender's credentials, which nobody
    /// asks for here (`__scm_send`).
    ///
    /// # Errors
    /// `EINVAL` for malformed messages, and those of that level that are not known.
    pub(crate) fn check_netlink(control: &[u8]) -> Result<()> {
        /// `struct ucred`
        const CREDENTIALS: usize = 12;
        for message in control::messages(control) {
            let message = message?;
            let known = message.kind == libc::SCM_CREDENTIALS && message.data.len() == CREDENTIALS;
            if message.level == libc::SOL_SOCKET && !known {
                return Err(Errno::EINVAL);
            }
        }
        Ok(())
    }

    /// Of the control messages of a stream and of a packet socket those of SOL_SOCKET alone mean something (`sock_cmsg_send`).
    ///
    /// # Errors
    /// `EINVAL` for malformed messages, and those of that level that are not known.
    pub(crate) fn check_stream(control: &[u8]) -> Result<()> {
        for message in control::messages(control) {
            let message = message?;
            if message.level == libc::SOL_SOCKET {
                common(&message)?;
            }
        }
        Ok(())
    }

    fn set_v4_source(&mut self, ifindex: u32, source: Ipv4Addr) {
        self.ifindex = Some(ifindex).filter(|ifindex| *ifindex != 0);
        self.source = Some(IpAddr::V4(source)).filter(|source| !source.is_unspecified());
    }
}

/// Levels that both families know, or pass over.
fn common(message: &Message<'_>) -> Result<()> {
    match (message.level, message.kind) {
        // Linux: "semantically in SOL_UNIX", and of no meaning here.
        (libc::SOL_SOCKET, libc::SCM_RIGHTS | libc::SCM_CREDENTIALS) => Ok(()),
        // For one message what the options are for all: nothing looks at them.
        (libc::SOL_SOCKET, libc::SO_MARK | libc::SO_PRIORITY) if message.data.len() == size_of::<i32>() => {
            Ok(())
        }
        (libc::SOL_SOCKET, _) => Err(Errno::EINVAL),
        _ => Ok(()),
    }
}

/// A `struct in6_pktinfo`, at least.
fn v6_pktinfo(message: &Message<'_>) -> Result<(Ipv6Addr, u32)> {
    let value: [u8; 20] =
        message.data.get(..20).and_then(|data| data.try_into().ok()).ok_or(Errno::EINVAL)?;
    let (addr, ifindex) = value.split_at(16);
    let addr: [u8; 16] = addr.try_into().map_err(|_| Errno::EINVAL)?;
    Ok((addr.into(), u32::from_ne_bytes(ifindex.try_into().map_err(|_| Errno::EINVAL)?)))
}

/// An int from `least` to 255; -1 leaves it to the socket.
fn bounded(message: &Message<'_>, least: i32) -> Result<Option<u8>> {
    match message.as_i32() {
        Some(number) if (least..=255).contains(&number) => Ok(u8::try_from(number).ok()),
        _ => Err(Errno::EINVAL),
    }
}
