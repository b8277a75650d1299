//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

/// A 48-bit Ethernet address (IEEE 802).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// `ff:ff:ff:ff:ff:ff`
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);
    /// `00:00:00:00:00:00`
    pub const UNSPECIFIED: MacAddr = MacAddr([0; 6]);

    /// Whether the group bit is set: multicast or broadcast.
    pub fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether it can name one station: not a group, not all zero.
    pub fn is_unicast(self) -> bool {
        !self.is_group() && self != MacAddr::UNSPECIFIED
    }

    /// A locally administered unicast address from 48 random bits.
    pub fn local(mut random: [u8; 6]) -> Self {
        random[0] = (random[0] | 0x02) & 0xfe;
        MacAddr(random)
    }
}

/// Error returned when text is not an Ethernet address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an Ethernet address (six hexadecimal bytes, such as 02:00:5e:10:00:01)")]
pub struct ParseMacError(String);

impl FromStr for MacAddr {
    type Err = ParseMacError;

    /// Takes `:` or `-` between the bytes, one or two digits a byte, either case.
    fn from_str(text: &str) -> Result<Self, ParseMacError> {
        let error = || ParseMacError(text.to_owned());
        let mut mac = [0; 6];
        let mut bytes = text.split([':', '-']);
        for byte in &mut mac {
            let digits = bytes.next().ok_or_else(error)?;
            if digits.is_empty() || digits.len() > 2 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(error());
            }
            *byte = u8::from_str_radix(digits, 16).map_err(|_| error())?;
        }
        if bytes.next().is_some() { Err(error()) } else { Ok(MacAddr(mac)) }
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text() {
        let mac: MacAddr = "02-00-5e-10-00-1".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:5e:10:00:01");
        for wrong in
            ["", "1:2:3:4:5", "1:2:3:4:5:6:7", "1:2:3:4:5:", "1:2:3:4:5:+6", "1:2:3:4:5:006", "g:2:3:4:5:6"]
        {
            assert!(wrong.parse::<MacAddr>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn kinds() {
        assert!(MacAddr::BROADCAST.is_group());
        assert!(!MacAddr::UNSPECIFIED.is_unicast());
        assert!(MacAddr::local([0xff; 6]).is_unicast());
    }

    proptest! {
        #[test]
        fn round_trip(bytes: [u8; 6]) {
            let mac = MacAddr(bytes);
            prop_assert_eq!(mac.to_string().parse::<MacAddr>(), Ok(mac));
        }

        #[test]
        fn any_text(text in ".{0,24}") {
            let _ = text.parse::<MacAddr>();
        }
    }
}
