//! Addresses with a prefix length.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An address and the length of its network prefix in bits: `10.0.0.1/24`, `fd00::1/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    addr: IpAddr,
    prefix_len: u8,
}

/// Error returned when text or numbers are not an address with a prefix length.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CidrError {
    /// The part before the slash.
    #[error("\"{0}\" is not an IP address (such as 10.0.0.1 or fd00::1)")]
    Address(String),
    /// The part after the slash.
    #[error("\"{0}\" is not a prefix length (0 to {1} for this address)")]
    PrefixLen(String, u8),
}

impl Cidr {
    /// An address with a prefix length in bits.
    ///
    /// # Errors
    /// [`CidrError::PrefixLen`] above 32 (IPv4) or 128 (IPv6).
    pub fn new(addr: impl Into<IpAddr>, prefix_len: u8) -> Result<Self, CidrError> {
        let addr = addr.into();
        let longest = bits(addr);
        if prefix_len > longest {
            return Err(CidrError::PrefixLen(prefix_len.to_string(), longest));
        }
        Ok(Cidr { addr, prefix_len })
    }

    /// One address: /32 or /128.
    pub fn host(addr: impl Into<IpAddr>) -> Self {
        let addr = addr.into();
        Cidr { addr, prefix_len: bits(addr) }
    }

    /// Reads `address[/length]`; without a length it is `default(address)`.
    ///
    /// # Errors
    /// Which of the two parts is wrong.
    pub fn parse_or(text: &str, default: impl FnOnce(IpAddr) -> u8) -> Result<Self, CidrError> {
        let (addr, len) = match text.split_once('/') {
            Some((addr, len)) => (addr, Some(len)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| CidrError::Address(addr.to_owned()))?;
        let Some(len) = len else { return Cidr::new(addr, default(addr)) };
        let digits = !len.is_empty() && len.bytes().all(|b| b.is_ascii_digit());
        let number = len.parse().ok().filter(|_| digits);
        let number = number.ok_or_else(|| CidrError::PrefixLen(len.to_owned(), bits(addr)))?;
        Cidr::new(addr, number)
    }

    /// The address, host bits included.
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// The prefix length in bits.
    pub fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// The same prefix with the host bits cleared.
    pub fn network(&self) -> Cidr {
        Cidr { addr: mask(self.addr, self.prefix_len), prefix_len: self.prefix_len }
    }

    /// Whether `addr` is of this family and shares the prefix.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.addr.is_ipv4() == addr.is_ipv4()
            && mask(addr, self.prefix_len) == mask(self.addr, self.prefix_len)
    }
}

/// `addr` with everything behind the first `prefix_len` bits cleared.
pub fn mask(addr: IpAddr, prefix_len: u8) -> IpAddr {
    match addr {
        IpAddr::V4(v4) => {
            let kept = u32::MAX.checked_shl(32 - u32::from(prefix_len.min(32))).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & kept).into())
        }
        IpAddr::V6(v6) => {
            let kept = u128::MAX.checked_shl(128 - u32::from(prefix_len.min(128))).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & kept).into())
        }
    }
}

/// Length of an address in bits.
fn bits(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

impl FromStr for Cidr {
    type Err = CidrError;

    /// Without a length it is one address (/32 or /128).
    fn from_str(text: &str) -> Result<Self, CidrError> {
        Cidr::parse_or(text, bits)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text() {
        assert_eq!("10.0.0.1/24".parse::<Cidr>().unwrap().to_string(), "10.0.0.1/24");
        assert_eq!("fd00::1".parse::<Cidr>().unwrap().prefix_len(), 128);
        assert_eq!(Cidr::parse_or("fd00::1", |_| 64).unwrap().network().to_string(), "fd00::/64");
        for wrong in
            ["", "/", "10.0.0.1/", "10.0.0.1/33", "fd00::1/129", "fd00::1/+1", "10.0.0/8", "10.0.0.1/2/3"]
        {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn containment() {
        let net: Cidr = "10.1.0.0/16".parse().unwrap();
        assert!(net.contains("10.1.2.3".parse().unwrap()));
        assert!(!net.contains("10.2.2.3".parse().unwrap()));
        assert!(!net.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!("::/0".parse::<Cidr>().unwrap().contains("fe80::1".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn round_trip(bits: u128, len in 0u8..=128) {
            let cidr = Cidr::new(std::net::Ipv6Addr::from(bits), len).unwrap();
            prop_assert_eq!(cidr.to_string().parse::<Cidr>(), Ok(cidr));
            prop_assert!(cidr.contains(cidr.network().addr()));
        }

        #[test]
        fn any_text(text in ".{0,40}") {
            let _ = text.parse::<Cidr>();
        }
    }
}
