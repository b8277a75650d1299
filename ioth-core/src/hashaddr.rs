//! Addresses made of names: hash and one-time (OTIP) IPv6 addresses, MAC hashes, EUI-64.
//!
//! A *hash address* is a prefix whose interface identifier is the MD5 of the host's name: whoever
//! knows the name knows the address, without a server. A *one-time* address mixes in a password and
//! the time step, so that only those who share the password can find the host, and yesterday's
//! address is of no use. Read RFC 4291 (§2.5.1, appendix A: interface identifiers) first.
//!
//! ```
//! use ioth_core::hashaddr::{hash_addr, otip_addr, otip_time};
//!
//! let base = "fc00::".parse().unwrap();
//! assert_eq!(hash_addr(base, "renzo.hash.local").to_string(), "fc00::4cc:8049:6765:d03a");
//!
//! let now = otip_time(1_660_463_552, 32, 0);
//! let addr = otip_addr("fd00:add1:5ea7:4a11::".parse().unwrap(), "test.otip.v2.cs.unibo.it", "secret_password", now);
//! assert_eq!(addr.to_string(), "fd00:add1:5ea7:4a11:78e4:bb37:f7bf:f2cf");
//! ```
//!
//! # What MD5 does here, and what it does not
//! MD5 is fixed by interoperation: every peer must compute the same bytes. It spreads names evenly
//! over 62 bits, and that is all that a plain hash address needs (it is public, like the name).
//! A one-time address is *hard to guess* from outside, 62 bits at most and never more than
//! the password holds. It authenticates nobody: anyone who sees a packet has the address for the rest of
//! its time step, and can try passwords against it off line, at MD5's speed. The input is a plain
//! concatenation, so name `a` with password `bc` is name `ab` with password `c`. Use it to be
//! found by few, not to be trusted.
//!
//! Everything here is a pure function; the time is passed in, never read from a clock.

use std::net::Ipv6Addr;

use md5::{Digest, Md5};

use crate::MacAddr;

/// The usual length of a one-time address' time step, in seconds.
pub const OTIP_PERIOD: u32 = 32;

/// The hash address of `name`: 62 bits of its MD5 XORed into the low half of `base`.
///
/// One trailing dot of the name is ignored; nothing else is normalised, case matters.
pub fn hash_addr(base: Ipv6Addr, name: impl AsRef<[u8]>) -> Ipv6Addr {
    otip_addr(base, name, "", 0)
}

/// The one-time address of `name` at the time step `otiptime` (see [`otip_time`]).
///
/// An empty password counts as none, and `otiptime` 0 as no time: with both it is [`hash_addr`].
/// The universal/local and group bits are cleared, also where `base` has them set.
pub fn otip_addr(
    base: Ipv6Addr,
    name: impl AsRef<[u8]>,
    password: impl AsRef<[u8]>,
    otiptime: u32,
) -> Ipv6Addr {
    let mut hash = Md5::new_with_prefix(without_dot(name.as_ref()));
    hash.update(password.as_ref());
    if otiptime != 0 {
        hash.update(otiptime.to_be_bytes());
    }
    let digest = hash.finalize();
    let mut addr = base.octets();
    for (byte, hashed) in addr[8..].iter_mut().zip(digest) {
        *byte ^= hashed;
    }
    addr[8] &= 0xfc;
    addr.into()
}

/// The time step of one-time addresses: `(unix_seconds + offset) / period`, 0 when `period` is 0.
///
/// `offset` is in seconds: a server with a positive one is reachable by clients whose clocks are fast.
/// Sums before 1970 count as 0; the result is cut to 32 bits as on the wire.
pub fn otip_time(unix_seconds: u64, period: u32, offset: i64) -> u32 {
    let step = unix_seconds.saturating_add_signed(offset).checked_div(u64::from(period)).unwrap_or(0);
    step as u32
}

/// The MAC address of `name`: locally administered, unicast, 46 bits of the MD5 of name and password.
///
/// Digest bytes 3 and 4 are left out: they are where EUI-64 puts `ff:fe`, so that on a prefix of 64 bits
/// [`hash_eui64`] and [`hash_addr`] differ in these two bytes only.
pub fn hash_mac(name: impl AsRef<[u8]>, password: impl AsRef<[u8]>) -> MacAddr {
    let d = Md5::new_with_prefix(without_dot(name.as_ref())).chain_update(password.as_ref()).finalize();
    MacAddr::local([d[0], d[1], d[2], d[5], d[6], d[7]])
}

/// The address of `mac` on `base` (RFC 4291 appendix A).
///
/// Bytes 8 to 12 are assigned and bytes 13 to 15 XORed with those of `base`, as the peers do; with a
/// prefix of 64 bits it is the standard modified EUI-64.
pub fn eui64(base: Ipv6Addr, mac: MacAddr) -> Ipv6Addr {
    let mut addr = base.octets();
    let [m0, m1, m2, low @ ..] = mac.0;
    // RFC 4291 appendix A: "complementing the 'u' (universal/local) bit"
    addr[8..13].copy_from_slice(&[m0 ^ 0x02, m1, m2, 0xff, 0xfe]);
    for (byte, mac) in addr[13..].iter_mut().zip(low) {
        *byte ^= mac;
    }
    addr.into()
}

/// The EUI-64 address of the MAC hash of `name` (without a password) on `base`.
pub fn hash_eui64(base: Ipv6Addr, name: impl AsRef<[u8]>) -> Ipv6Addr {
    eui64(base, hash_mac(name, ""))
}

fn without_dot(name: &[u8]) -> &[u8] {
    name.strip_suffix(b".").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    #[test]
    fn hash_addresses() {
        let unibo = "2001:760:2e00:ff00::";
        for (base, name, addr) in [
            ("fc00::", "renzo.hash.local", "fc00::4cc:8049:6765:d03a"),
            ("fc00::", "renzo.hash.local.", "fc00::4cc:8049:6765:d03a"),
            ("fc00::1", "renzo.hash.local", "fc00::4cc:8049:6765:d03b"),
            ("fc00::", "RENZO.hash.local", "fc00::3c6b:12ae:d181:7424"),
            ("fc00::", "hic_sunt_leones.hash.local", "fc00::9c8f:74b4:705f:6512"),
            ("fc00::", "hash.test.local", "fc00::f4b7:a5a9:259b:fb70"),
            (unibo, "renzo.hash.v2.cs.unibo.it", "2001:760:2e00:ff00:6066:4f84:db3e:c9cb"),
            (unibo, "lucia.hash.v2.cs.unibo.it", "2001:760:2e00:ff00:cf1:1fe9:aad4:e838"),
            (unibo, "whatever-you-want.hash.v2.cs.unibo.it", "2001:760:2e00:ff00:542d:ffcb:17e:8fa7"),
            ("2000:760::", "test.v2.cs.unibo.it", "2000:760::68d6:2fac:95a:5a2e"),
        ] {
            assert_eq!(hash_addr(ip(base), name), ip(addr), "{name} on {base}");
        }
    }

    #[test]
    fn only_one_dot_is_dropped() {
        assert_ne!(hash_addr(ip("fc00::"), "a.."), hash_addr(ip("fc00::"), "a"));
        assert_eq!(hash_addr(ip("fc00::"), "a.."), otip_addr(ip("fc00::"), "a", ".", 0));
    }

    #[test]
    fn one_time_addresses() {
        let test = ("test.otip.v2.cs.unibo.it", "secret_password");
        let renzo = ("renzo.otip", "mypassword");
        let unibo = "2001:760:2e00:ff00::";
        for (base, (name, password), time, addr) in [
            ("fd00:add1:5ea7:4a11::", test, 51_889_486, "fd00:add1:5ea7:4a11:78e4:bb37:f7bf:f2cf"),
            ("fc01::", renzo, 51_890_493, "fc01::103b:2baf:8539:1e32"),
            ("fc01::", renzo, 51_890_495, "fc01::18b5:b8a:5f15:3839"),
            ("fc01::", renzo, 51_890_593, "fc01::801f:3538:9ba1:7101"),
            ("fc01::", renzo, 51_890_606, "fc01::889:ccb8:ee7:5908"),
            (unibo, renzo, 51_746_753, "2001:760:2e00:ff00:e8be:1b1f:6545:8d12"),
            (unibo, renzo, 51_746_754, "2001:760:2e00:ff00:64c6:30b9:3f3a:14d7"),
            ("fc01::", renzo, 0, "fc01::a086:5677:2679:16f9"),
            ("fc01::", renzo, 1, "fc01::a80d:c83f:9271:d9ce"),
            ("fc01::", renzo, 2, "fc01::ac39:4e5c:82a3:b3c0"),
            ("fc01::", renzo, 0x0102_0304, "fc01::a8f2:5661:4b24:dbc9"),
            ("fc01::", renzo, 50_000_000, "fc01::e8b5:5367:ff56:fea4"),
            ("fc01::", renzo, 53_125_000, "fc01::8ce3:a148:b648:6c83"),
            ("fc01::", renzo, 0x7fff_ffff, "fc01::1419:8097:ed41:18fe"),
            ("fc01::", renzo, 0xffff_ffff, "fc01::e812:4f14:a0b5:ed24"),
        ] {
            assert_eq!(otip_addr(ip(base), name, password, time), ip(addr), "{name} on {base} at {time}");
        }
    }

    #[test]
    fn time_steps() {
        for (seconds, period, offset, step) in [
            (1_660_463_552, 32, 0, 51_889_486),
            (1_660_463_583, 32, 0, 51_889_486),
            (1_660_463_584, 32, 0, 51_889_487),
            (1_660_463_551, 32, 0, 51_889_485),
            // the offset is added before dividing
            (1_660_463_551, 32, 1, 51_889_486),
            (1_660_463_552, 32, -1, 51_889_485),
            (1_660_463_552, 1, 0, 1_660_463_552),
            (1_660_463_552, 0, 7, 0),
            (0, 32, -1, 0),
            (u64::MAX, 1, 5, u32::MAX),
            (1 << 32, 1, 1, 1),
        ] {
            assert_eq!(otip_time(seconds, period, offset), step, "({seconds} + {offset}) / {period}");
        }
    }

    #[test]
    fn mac_hashes() {
        for (name, password, mac) in [
            ("test.v2.cs.unibo.it", "", "6a:d6:2f:5a:5a:2e"),
            ("renzo.hash.local", "", "06:cc:80:65:d0:3a"),
            ("renzo.hash.local.", "", "06:cc:80:65:d0:3a"),
            ("renzo.hash.local", "pw", "6e:9c:d6:5f:38:28"),
            ("host.v2.cs.unibo.it", "", "52:6f:03:54:fb:d3"),
        ] {
            assert_eq!(hash_mac(name, password).to_string(), mac, "{name} {password}");
        }
    }

    #[test]
    fn eui64_addresses() {
        for (base, name, addr) in [
            ("2000:760::", "test.v2.cs.unibo.it", "2000:760::68d6:2fff:fe5a:5a2e"),
            ("fc00::5:6", "test.v2.cs.unibo.it", "fc00::68d6:2fff:fe5f:5a28"),
        ] {
            assert_eq!(hash_eui64(ip(base), name), ip(addr), "{name} on {base}");
        }
        for (base, mac, addr) in [
            ("fe80::", "52:54:00:12:34:56", "fe80::5054:ff:fe12:3456"),
            ("fc00::", "80:01:01:01:01:01", "fc00::8201:1ff:fe01:101"),
        ] {
            assert_eq!(eui64(ip(base), mac.parse().unwrap()), ip(addr), "{mac} on {base}");
        }
    }

    proptest! {
        #[test]
        fn prefix_and_flag_bits(base: u128, name: Vec<u8>, password: Vec<u8>, time: u32) {
            let base = Ipv6Addr::from_bits(base);
            let addr = otip_addr(base, &name, &password, time).octets();
            prop_assert_eq!(&addr[..8], &base.octets()[..8]);
            prop_assert_eq!(addr[8] & 3, 0);
            let mac = hash_mac(&name, &password);
            prop_assert!(mac.is_unicast() && mac.0[0] & 2 != 0);
        }

        #[test]
        fn time_never_panics(seconds: u64, period: u32, offset: i64) {
            otip_time(seconds, period, offset);
        }
    }
}
