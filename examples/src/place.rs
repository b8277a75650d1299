//! Where to listen.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// A port, or an address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    addr: Option<SocketAddr>,
    port: u16,
}

impl Place {
    /// The address to bind to. Without one it is `::`, which takes IPv4 as well (ipv6(7), IPV6_V6ONLY).
    pub fn addr(&self) -> SocketAddr {
        self.addr.unwrap_or((Ipv6Addr::UNSPECIFIED, self.port).into())
    }

    /// The address family.
    pub fn domain(&self) -> i32 {
        if self.addr().is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(port) = text.parse() {
            return Ok(Place { addr: None, port });
        }
        match text.parse::<SocketAddr>() {
            Ok(addr) => Ok(Place { addr: Some(addr), port: addr.port() }),
            Err(_) => {
                Err("neither a port (5000) nor an address and a port (10.0.0.1:5000, [fd00::1]:5000)".into())
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addr {
            Some(addr) => write!(f, "{addr}"),
            None => write!(f, "port {}", self.port),
        }
    }
}

/// An address as its owner writes it: IPv4 that came to an IPv6 socket without the mapping (RFC 4291 §2.5.5.2).
pub(crate) fn plain(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => {
            SocketAddr::new(addr.ip().to_canonical(), addr.port())
        }
        _ => addr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_addresses() {
        let place: Place = "5000".parse().unwrap();
        assert_eq!((place.addr().to_string(), place.domain()), ("[::]:5000".into(), libc::AF_INET6));
        let place: Place = "10.0.0.1:7".parse().unwrap();
        assert_eq!((place.to_string(), place.domain()), ("10.0.0.1:7".into(), libc::AF_INET));
        for wrong in ["", "70000", "-1", "host:7", "10.0.0.1"] {
            assert!(wrong.parse::<Place>().unwrap_err().contains("10.0.0.1:5000"), "{wrong}");
        }
    }

    #[test]
    fn mapped_addresses_are_written_plainly() {
        assert_eq!(plain("[::ffff:10.0.0.2]:7".parse().unwrap()).to_string(), "10.0.0.2:7");
        assert_eq!(plain("[fd00::1]:7".parse().unwrap()).to_string(), "[fd00::1]:7");
    }
}
