//! Socket addresses of every family that a stack speaks.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::{Domain, Errno, Result};

/// An address as bind(2), connect(2) and recvfrom(2) carry it: `struct sockaddr` by families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SockAddr {
    /// `AF_UNSPEC`; dissolves a datagram socket's association.
    #[default]
    Unspecified,
    /// `struct sockaddr_in` or `struct sockaddr_in6`.
    Ip(SocketAddr),
    /// `struct sockaddr_nl`, netlink(7).
    Netlink {
        /// `nl_pid`: 0 is the stack itself.
        port: u32,
        /// `nl_groups`: multicast groups, a bit each.
        groups: u32,
    },
    /// `struct sockaddr_ll`, packet(7).
    Packet(PacketAddr),
}

/// `struct sockaddr_ll`, packet(7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PacketAddr {
    /// EtherType in host byte order.
    pub protocol: u16,
    /// Interface index; 0 matches any.
    pub ifindex: u32,
    /// `ARPHRD_*`
    pub hatype: u16,
    /// `PACKET_HOST`, `PACKET_BROADCAST`, ...
    pub pkttype: u8,
    /// Length of the hardware address in bytes.
    pub halen: u8,
    /// The hardware address.
    pub addr: [u8; 8],
}

impl SockAddr {
    /// The family, `AF_*`.
    pub fn domain(&self) -> Domain {
        match self {
            SockAddr::Unspecified => Domain(libc::AF_UNSPEC),
            SockAddr::Ip(SocketAddr::V4(_)) => Domain::INET,
            SockAddr::Ip(SocketAddr::V6(_)) => Domain::INET6,
            SockAddr::Netlink { .. } => Domain::NETLINK,
            SockAddr::Packet(_) => Domain::PACKET,
        }
    }

    /// The Internet address and port, if it is one.
    pub fn as_ip(&self) -> Option<SocketAddr> {
        match self {
            SockAddr::Ip(addr) => Some(*addr),
            _ => None,
        }
    }

    /// Reads the C representation.
    ///
    /// # Errors
    /// `EINVAL` when the bytes are too few for their family, `EAFNOSUPPORT` for an unknown family.
    pub fn from_raw(raw: &[u8]) -> Result<Self> {
        let family = i32::from(u16::from_ne_bytes(array(raw, 0)?));
        match family {
            libc::AF_UNSPEC => Ok(SockAddr::Unspecified),
            libc::AF_INET if raw.len() >= 16 => {
                let port = u16::from_be_bytes(array(raw, 2)?);
                let ip = Ipv4Addr::from(array::<4>(raw, 4)?);
                Ok(SockAddr::Ip(SocketAddrV4::new(ip, port).into()))
            }
            // RFC 2133's sockaddr_in6 had no scope id: Linux takes 24 bytes as well.
            libc::AF_INET6 if raw.len() >= 24 => {
                let port = u16::from_be_bytes(array(raw, 2)?);
                let flowinfo = u32::from_be_bytes(array(raw, 4)?);
                let ip = Ipv6Addr::from(array::<16>(raw, 8)?);
                let scope = if raw.len() >= 28 { u32::from_ne_bytes(array(raw, 24)?) } else { 0 };
                Ok(SockAddr::Ip(SocketAddrV6::new(ip, port, flowinfo, scope).into()))
            }
            libc::AF_NETLINK if raw.len() >= 12 => Ok(SockAddr::Netlink {
                port: u32::from_ne_bytes(array(raw, 4)?),
                groups: u32::from_ne_bytes(array(raw, 8)?),
            }),
            libc::AF_PACKET if raw.len() >= 20 => Ok(SockAddr::Packet(PacketAddr {
                protocol: u16::from_be_bytes(array(raw, 2)?),
                ifindex: u32::from_ne_bytes(array(raw, 4)?),
                hatype: u16::from_ne_bytes(array(raw, 8)?),
                pkttype: raw[10],
                halen: raw[11],
                addr: array(raw, 12)?,
            })),
            libc::AF_INET | libc::AF_INET6 | libc::AF_NETLINK | libc::AF_PACKET => Err(Errno::EINVAL),
            _ => Err(Errno::EAFNOSUPPORT),
        }
    }

    /// The C representation.
    pub fn to_raw(&self) -> RawSockAddr {
        let mut raw = RawSockAddr { bytes: [0; RawSockAddr::MAX], len: 0 };
        raw.push(&(self.domain().0 as u16).to_ne_bytes());
        match self {
            SockAddr::Unspecified => raw.push(&[0; 14]),
            SockAddr::Ip(SocketAddr::V4(addr)) => {
                raw.push(&addr.port().to_be_bytes());
                raw.push(&addr.ip().octets());
                raw.push(&[0; 8]);
            }
            SockAddr::Ip(SocketAddr::V6(addr)) => {
                raw.push(&addr.port().to_be_bytes());
                raw.push(&addr.flowinfo().to_be_bytes());
                raw.push(&addr.ip().octets());
                raw.push(&addr.scope_id().to_ne_bytes());
            }
            SockAddr::Netlink { port, groups } => {
                raw.push(&[0; 2]);
                raw.push(&port.to_ne_bytes());
                raw.push(&groups.to_ne_bytes());
            }
            SockAddr::Packet(addr) => {
                raw.push(&addr.protocol.to_be_bytes());
                raw.push(&addr.ifindex.to_ne_bytes());
                raw.push(&addr.hatype.to_ne_bytes());
                raw.push(&[addr.pkttype, addr.halen]);
                raw.push(&addr.addr);
            }
        }
        raw
    }
}

/// The bytes of a `struct sockaddr_*`; derefs to them.
#[derive(Clone, Copy)]
pub struct RawSockAddr {
    bytes: [u8; RawSockAddr::MAX],
    len: usize,
}

impl RawSockAddr {
    /// The longest of the families spoken, in bytes (`struct sockaddr_in6`).
    pub const MAX: usize = 28;

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

impl std::ops::Deref for RawSockAddr {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl fmt::Debug for RawSockAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RawSockAddr").field(&&self[..]).finish()
    }
}

impl<A: Into<SocketAddr>> From<A> for SockAddr {
    fn from(addr: A) -> Self {
        SockAddr::Ip(addr.into())
    }
}

impl fmt::Display for SockAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SockAddr::Unspecified => f.write_str("unspecified"),
            SockAddr::Ip(addr) => addr.fmt(f),
            SockAddr::Netlink { port, groups } => write!(f, "netlink {port}/{groups:#x}"),
            SockAddr::Packet(addr) => write!(f, "packet if{} {:#06x}", addr.ifindex, addr.protocol),
        }
    }
}

/// `::ffff:a.b.c.d` as the IPv4 address that it stands for; anything else unchanged (RFC 4291 §2.5.5.2).
pub fn unmap(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddrV4::new(ip, addr.port()).into(),
        IpAddr::V6(_) => addr,
    }
}

/// An IPv4 address as its IPv4-mapped IPv6 form; IPv6 unchanged (RFC 4291 §2.5.5.2).
pub fn map(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(v4) => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into(),
        SocketAddr::V6(_) => addr,
    }
}

fn array<const N: usize>(raw: &[u8], at: usize) -> Result<[u8; N]> {
    raw.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).ok_or(Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(addr: SockAddr, len: usize) {
        let raw = addr.to_raw();
        assert_eq!(raw.len(), len, "{addr:?}");
        assert_eq!(SockAddr::from_raw(&raw), Ok(addr));
        for short in 2..raw.len().min(12) {
            let cut = SockAddr::from_raw(&raw[..short]);
            assert!(cut == Err(Errno::EINVAL) || addr == SockAddr::Unspecified, "{short}: {cut:?}");
        }
    }

    #[test]
    fn every_family_survives_the_round_trip() {
        round_trip(SockAddr::Unspecified, 16);
        round_trip("10.0.0.1:80".parse::<SocketAddr>().unwrap().into(), 16);
        round_trip(SocketAddrV6::new("fe80::1".parse().unwrap(), 5, 7, 3).into(), 28);
        round_trip(SockAddr::Netlink { port: 4711, groups: 0x11 }, 12);
        let packet =
            PacketAddr { protocol: 0x0800, ifindex: 2, hatype: 1, pkttype: 4, halen: 6, addr: [1; 8] };
        round_trip(SockAddr::Packet(packet), 20);
    }

    #[test]
    fn unknown_family_and_short_input() {
        assert_eq!(SockAddr::from_raw(&[1, 0, 0, 0]), Err(Errno::EAFNOSUPPORT));
        assert_eq!(SockAddr::from_raw(&[2]), Err(Errno::EINVAL));
        assert_eq!(SockAddr::from_raw(&[]), Err(Errno::EINVAL));
    }

    #[test]
    fn mapping() {
        let v4: SocketAddr = "1.2.3.4:5".parse().unwrap();
        assert_eq!(map(v4).to_string(), "[::ffff:1.2.3.4]:5");
        assert_eq!(unmap(map(v4)), v4);
    }

    proptest! {
        #[test]
        fn any_bytes(raw in proptest::collection::vec(any::<u8>(), 0..40), family in 0u16..20) {
            let mut raw = raw;
            if raw.len() >= 2 {
                raw[..2].copy_from_slice(&family.to_ne_bytes());
            }
            if let Ok(addr) = SockAddr::from_raw(&raw) {
                prop_assert_eq!(SockAddr::from_raw(&addr.to_raw()), Ok(addr));
            }
        }
    }
}
