//! The order of destinations. Read RFC 6724 §6 first.
//!
//! The rules and the tables are those of glibc, which has kept the labels and scopes of RFC 3484: programs are to find
//! the addresses in the order that they know.

use std::cmp::Ordering;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ioth::Stack;
use ioth::core::netlink::Address;
use ioth::net::UdpSocket;

/// A destination and how it would be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) addr: SocketAddr,
    /// From where; `None` when it cannot be reached.
    pub(crate) source: Option<Source>,
}

/// The address that the stack would send from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) ip: IpAddr,
    /// It is going to expire.
    pub(crate) deprecated: bool,
    /// Length of its prefix; `None` when it is not one of the node's.
    pub(crate) prefix: Option<u8>,
}

/// Puts destinations into the order in which they are to be tried; `own` are the node's addresses.
pub(crate) fn sort(stack: &Stack, own: &[Address], addrs: &mut [SocketAddr]) {
    let mut destinations: Vec<Destination> = addrs
        .iter()
        .map(|&addr| Destination { addr, source: source(stack, addr).ok().map(|ip| Source::of(ip, own)) })
        .collect();
    // Rule 10: "Otherwise, leave the order unchanged." The sort is stable.
    destinations.sort_by(compare);
    for (place, destination) in addrs.iter_mut().zip(destinations) {
        *place = destination.addr;
    }
}

/// Which address the stack would send from: a datagram socket is connected, which sends nothing.
fn source(stack: &Stack, addr: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr =
        if addr.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind_on(stack, (any, 0))?;
    socket.connect(addr)?;
    Ok(socket.local_addr()?.ip())
}

impl Source {
    fn of(ip: IpAddr, own: &[Address]) -> Source {
        // All of 127.0.0.0/8 is the address of the loopback interface.
        let known = match ip {
            IpAddr::V4(v4) if v4.is_loopback() => Ipv4Addr::LOCALHOST.into(),
            ip => ip,
        };
        let found = own.iter().find(|own| own.address.addr() == known);
        Source {
            ip,
            deprecated: found.is_some_and(|found| found.flags & (IFA_F_DEPRECATED | IFA_F_OPTIMISTIC) != 0),
            prefix: found.map(|found| found.address.prefix_len()),
        }
    }
}

const IFA_F_OPTIMISTIC: u32 = 0x04;
const IFA_F_DEPRECATED: u32 = 0x20;

/// Which of two destinations comes first.
pub(crate) fn compare(a: &Destination, b: &Destination) -> Ordering {
    let (ip_a, ip_b) = (a.addr.ip(), b.addr.ip());
    let scopes = (scope(ip_a), scope(ip_b));
    let (Some(from_a), Some(from_b)) = (&a.source, &b.source) else {
        // Rule 1: "Avoid unusable destinations."
        return (b.source.is_some().cmp(&a.source.is_some()))
            .then(precedence(ip_b).cmp(&precedence(ip_a)))
            .then(scopes.0.cmp(&scopes.1));
    };
    let prefer = |a: bool, b: bool| b.cmp(&a);
    // Rule 2: "Prefer matching scope."
    prefer(scopes.0 == scope(from_a.ip), scopes.1 == scope(from_b.ip))
        // Rule 3: "Avoid deprecated addresses." Rule 4 is about mobile nodes, which there are none of.
        .then(prefer(!from_a.deprecated, !from_b.deprecated))
        // Rule 5: "Prefer matching label."
        .then(prefer(label(ip_a) == label(from_a.ip), label(ip_b) == label(from_b.ip)))
        // Rule 6: "Prefer higher precedence." Rule 7 is about tunnels, which there are none of.
        .then(precedence(ip_b).cmp(&precedence(ip_a)))
        // Rule 8: "Prefer smaller scope."
        .then(scopes.0.cmp(&scopes.1))
        // Rule 9: "Use longest matching prefix", which says nothing of two families. That the families are apart here
        // (IPv4 and its form in IPv6 come this far) makes it an order.
        .then(ip_a.is_ipv4().cmp(&ip_b.is_ipv4()))
        .then_with(|| common_prefix(ip_b, from_b).cmp(&common_prefix(ip_a, from_a)))
}

/// RFC 6724 §3.1, with IPv4's scopes of §3.2.
fn scope(ip: IpAddr) -> u8 {
    const LINK: u8 = 2;
    const SITE: u8 = 5;
    const GLOBAL: u8 = 14;
    match ip {
        IpAddr::V4(v4) if v4.is_loopback() || v4.is_link_local() => LINK,
        IpAddr::V4(_) => GLOBAL,
        IpAddr::V6(v6) if v6.is_multicast() => v6.octets()[1] & 0x0f,
        IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.is_loopback() => LINK,
        IpAddr::V6(v6) if v6.segments()[0] & 0xffc0 == 0xfec0 => SITE,
        IpAddr::V6(_) => GLOBAL,
    }
}

/// A line of a policy table: prefix, its length, value.
type Policy = (Ipv6Addr, u32, u8);

const fn prefix(first: u16, mapped: u16, last: u16) -> Ipv6Addr {
    Ipv6Addr::new(first, 0, 0, 0, 0, mapped, 0, last)
}

/// RFC 3484 §2.1, with site-local, unique local and Teredo addresses set apart.
const LABELS: [Policy; 8] = [
    (prefix(0, 0, 1), 128, 0),
    (prefix(0x2002, 0, 0), 16, 2),
    (prefix(0, 0, 0), 96, 3),
    (prefix(0, 0xffff, 0), 96, 4),
    (prefix(0xfec0, 0, 0), 10, 5),
    (prefix(0xfc00, 0, 0), 7, 6),
    (prefix(0x2001, 0, 0), 32, 7),
    (prefix(0, 0, 0), 0, 1),
];

/// RFC 3484 §2.1.
const PRECEDENCES: [Policy; 5] = [
    (prefix(0, 0, 1), 128, 50),
    (prefix(0x2002, 0, 0), 16, 30),
    (prefix(0, 0, 0), 96, 20),
    (prefix(0, 0xffff, 0), 96, 10),
    (prefix(0, 0, 0), 0, 40),
];

fn label(ip: IpAddr) -> u8 {
    policy(ip, &LABELS)
}

fn precedence(ip: IpAddr) -> u8 {
    policy(ip, &PRECEDENCES)
}

fn policy(ip: IpAddr, table: &[Policy]) -> u8 {
    let bits = u128::from(v6_of(ip));
    let matches = |(prefix, len, _): &&Policy| (bits ^ u128::from(*prefix)).leading_zeros() >= *len;
    table.iter().find(matches).map_or(0, |(.., value)| *value)
}

fn v6_of(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// How many bits of the destination are those of the source; of IPv4 only within the source's own network, outside
/// of which numbers that are alike mean nothing.
fn common_prefix(ip: IpAddr, source: &Source) -> u32 {
    match (ip, source.ip) {
        (IpAddr::V4(ip), IpAddr::V4(own)) => {
            let common = (ip.to_bits() ^ own.to_bits()).leading_zeros();
            let network = source.prefix.filter(|&len| len > 0).map_or(32, u32::from);
            if common >= network { common } else { 0 }
        }
        (IpAddr::V6(ip), IpAddr::V6(own)) => (ip.to_bits() ^ own.to_bits()).leading_zeros(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `destination<source/prefix`, with `!` for a deprecated source, or without one.
    fn destination(text: &str) -> Destination {
        let (ip, source) = text.split_once('<').map_or((text, None), |(ip, source)| (ip, Some(source)));
        let source = source.map(|source| {
            let (source, deprecated) =
                source.strip_suffix('!').map_or((source, false), |plain| (plain, true));
            let (ip, prefix) = source.split_once('/').unwrap();
            Source { ip: ip.parse().unwrap(), deprecated, prefix: prefix.parse().ok() }
        });
        Destination { addr: SocketAddr::new(ip.parse().unwrap(), 0), source }
    }

    #[track_caller]
    fn first(a: &str, b: &str) {
        assert_eq!(compare(&destination(a), &destination(b)), Ordering::Less, "{a} before {b}");
        assert_eq!(compare(&destination(b), &destination(a)), Ordering::Greater, "{b} after {a}");
    }

    #[test]
    fn examples_of_the_rfc() {
        // RFC 6724 §10.2
        first("2001:db8:1::1<2001:db8:1::2/64", "198.51.100.121<169.254.13.78/16");
        first("198.51.100.121<198.51.100.117/24", "2001:db8:1::1<fe80::1/64");
        first("2001:db8:1::1<2001:db8:1::2/64", "10.1.2.3<10.1.2.4/24");
        first("fe80::1<fe80::2/64", "2001:db8:1::1<2001:db8:1::2/64");
        first("2001:db8:1::1<2001:db8:1::2/64", "fe80::1<fe80::2/64!");
        first("2001:db8:1::1<2001:db8:1::2/64", "2001:db8:3ffe::1<2001:db8:3f44::2/64");
        first("2002:c633:6401::1<2002:c633:6401::2/64", "2001:db8:1::1<2002:c633:6401::2/64");
        first("2001:db8:1::1<2001:db8:1::2/64", "2002:c633:6401::1<2002:c633:6401::2/64");
    }

    #[test]
    fn rule_by_rule() {
        first("10.0.0.1<10.0.0.2/24", "2001:db8::1");
        first("2001:db8::1", "10.0.0.1");
        first("::1", "2001:db8::1");
        first("0.0.0.0<127.0.0.1/8", "::<::1/128");
        first("::1<::1/128", "127.0.0.1<127.0.0.1/8");
        // A unique local source does not go well with a global destination.
        first("192.0.2.1<192.0.2.2/24", "2001:db8::1<fd00::1/64");
        first("fd00::2<fd00::1/64", "192.0.2.1<192.0.2.2/24");
        // IPv4 prefixes count on the own network only.
        first("10.0.0.9<10.0.0.2/24", "10.0.1.2<10.0.0.2/24");
        let (a, b) = ("10.0.1.2<10.0.0.2/24", "11.0.0.2<10.0.0.2/24");
        assert_eq!(compare(&destination(a), &destination(b)), Ordering::Equal);
    }
}
