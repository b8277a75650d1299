//! Addresses as text, in all forms that getaddrinfo(3) takes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 address as inet_aton(3) reads it, but with nothing behind it.
///
/// One to four numbers, decimal, octal or hexadecimal as in C, of which the last fills what the others leave.
pub(crate) fn ipv4(text: &str) -> Option<Ipv4Addr> {
    let mut parts = [0u32; 4];
    let mut count = 0;
    for part in text.split('.') {
        *parts.get_mut(count)? = number(part)?;
        count += 1;
    }
    let (last, high) = parts[..count].split_last()?;
    if high.iter().any(|&part| part > 0xff) || u64::from(*last) > u64::from(u32::MAX) >> (8 * high.len()) {
        return None;
    }
    let value = high.iter().enumerate().fold(*last, |value, (at, part)| value | part << (24 - 8 * at));
    Some(Ipv4Addr::from(value))
}

/// A number as strtoul(3) with base 0 reads it, that begins with a digit and fits into 32 bits.
fn number(text: &str) -> Option<u32> {
    let hexadecimal = text.strip_prefix("0x").or(text.strip_prefix("0X"));
    let (digits, radix) = match hexadecimal {
        Some(digits) => (digits, 16),
        None if text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    // from_str_radix takes a sign, strtoul's caller has seen to a digit.
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    // Any number of zeros may lead.
    plain.then(|| u32::from_str_radix(digits, radix).ok())?
}

/// An IPv6 address as inet_pton(3) reads it, and the scope behind `%`.
pub(crate) fn ipv6(text: &str) -> Option<(Ipv6Addr, Option<&str>)> {
    let (addr, scope) = match text.split_once('%') {
        Some((addr, scope)) => (addr, Some(scope)),
        None => (text, None),
    };
    Some((addr.parse().ok()?, scope))
}

/// Whether an interface's name may stand for the scope of this address.
pub(crate) fn has_link_scope(addr: &Ipv6Addr) -> bool {
    let [first, second, ..] = addr.octets();
    addr.is_unicast_link_local() || (first == 0xff && second & 0x0f == 2)
}

/// A scope in numbers.
pub(crate) fn scope_number(text: &str) -> Option<u32> {
    text.starts_with(|first: char| first.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Whether a text can only be meant as an address, so that nobody is asked for it as a name, as gethostbyname(3) has it.
pub(crate) fn is_no_name(text: &str) -> bool {
    let all = |set: fn(&u8) -> bool| text.bytes().all(|byte| byte == b'.' || set(&byte));
    let v4 = text.starts_with(|first: char| first.is_ascii_digit()) && all(u8::is_ascii_digit);
    let v6 =
        text.contains(':') && !text.starts_with('.') && all(|byte| *byte == b':' || byte.is_ascii_hexdigit());
    (v4 || v6) && !text.ends_with('.')
}

/// An address that is all of a text, without scope.
pub(crate) fn plain(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sys::judge;

    #[test]
    fn forms_of_inet_aton() {
        for (text, addr) in [
            ("127.0.0.1", Some([127, 0, 0, 1])),
            ("127.1", Some([127, 0, 0, 1])),
            ("10.1.2", Some([10, 1, 0, 2])),
            ("10.1.65535", Some([10, 1, 255, 255])),
            ("0x7f.1", Some([127, 0, 0, 1])),
            ("0177.0.0.01", Some([127, 0, 0, 1])),
            ("4294967295", Some([255; 4])),
            ("0XFFFFFFFF", Some([255; 4])),
            ("0", Some([0; 4])),
            ("00000000000000000000000001", Some([0, 0, 0, 1])),
            ("4294967296", None),
            ("1.2.3.256", None),
            ("256.1", None),
            ("1.16777216", None),
            ("1.2.3.4.5", None),
            ("1.2.3.4.", None),
            ("1..2", None),
            (".1", None),
            ("0x", None),
            ("08", None),
            ("+1", None),
            ("0x+1", None),
            ("1 ", None),
            ("", None),
        ] {
            assert_eq!(ipv4(text), addr.map(Ipv4Addr::from), "{text:?}");
            assert_eq!(judge::numeric(text), addr.map(IpAddr::from), "glibc: {text:?}");
        }
    }

    #[test]
    fn scopes() {
        assert_eq!(ipv6("fe80::1%vde0"), Some(("fe80::1".parse().unwrap(), Some("vde0"))));
        assert_eq!(ipv6("::1"), Some((Ipv6Addr::LOCALHOST, None)));
        assert_eq!(ipv6("::1%"), Some((Ipv6Addr::LOCALHOST, Some(""))));
        assert_eq!(ipv6("fe80:::1"), None);
        assert_eq!(scope_number("12"), Some(12));
        assert_eq!(["", "+1", "-1", "1x", "4294967296"].map(scope_number), [None; 5]);
    }

    proptest! {
        /// glibc's getaddrinfo(3) is the judge of what is an address.
        #[test]
        fn numbers_are_read_as_glibc_reads_them(
            text in prop_oneof!["[0-9a-fxX.+-]{0,18}", "(0x?)?[0-9]{1,4}(\\.(0x?)?[0-9a-f]{1,3}){0,4}", "[0-9a-f:.]{0,24}",
                "([0-9a-f]{1,4}:){0,7}(:([0-9a-f]{1,4}:?){0,7})?([0-9]{1,3}\\.){0,3}[0-9]{0,3}"],
        ) {
            let ours = ipv4(&text).map(IpAddr::from).or(ipv6(&text).map(|(addr, _)| addr.into()));
            prop_assert_eq!(ours, judge::numeric(&text));
        }
    }
}
