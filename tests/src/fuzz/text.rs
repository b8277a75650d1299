//! Text that people write, and addresses as C programs lay them out.

use std::str::FromStr;
use std::sync::Arc;

use ioth_conf::{Config, Resolver};
use ioth_core::{Cidr, MacAddr, SockAddr};
use ioth_vde::Schemes;
use ioth_vde::vnl::{self, Keys, Locator, Params};

/// A configuration string. One that can be read is shown as one that means the same.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::from_str(text) {
        Ok(config) => {
            let shown = config.to_string();
            assert_eq!(Config::from_str(&shown).ok().as_ref(), Some(&config), "shown as {shown:?}");
            let mut resolver = Resolver::default();
            resolver.apply(&config);
            let _ = resolver.to_string();
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A virtual network locator, taken apart in every style and opened where that touches nothing outside the process.
pub fn vnl(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = Locator::parse(text);
    let _ = Locator::resolve(text, Some("/home/user".as_ref()));
    let _ = vnl::bracket(text, KEYS, text);
    let _ = vnl::slash(text, KEYS, text);
    let _ = vnl::nested(text, text);
    let _ = vnl::size(text);
    if let Ok(params) = Params::parse(text, KEYS, text) {
        let _ = (params.flag("port"), params.number("mode", 0..=7), params.get(""));
    }
    let Ok((_, locator)) = vnl::split_ifname(text) else { return };
    match harmless().open(locator) {
        Ok(link) => assert!(link.properties().mtu >= 68),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// What follows the inner locator of `fault://{...}`.
pub fn fault(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(config) = text.parse::<ioth_vde::fault::Config>() {
        let mut fault = ioth_vde::fault::Fault::new(config);
        for _ in 0..4 {
            fault.push(Default::default(), ioth_vde::Frame::copy_of(&[0xff; 60]));
        }
        while let Some(at) = fault.next_deadline() {
            assert!(fault.pop(at).is_some(), "nothing at the deadline {at:?}");
        }
    }
}

/// What stands before the inner locator of `vlan://...{}`, up to the first zero, and a frame, which comes back from where it goes.
pub fn vlan(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let Ok(text) = std::str::from_utf8(&data[..end]) else { return };
    match ioth_vde::vlan::Rules::parse(text, text) {
        Ok(rules) => {
            let content = data.get(end + 1..).unwrap_or_default();
            let mut frame = ioth_vde::Frame::copy_of(&content[..content.len().min(2000)]);
            let before = frame.len();
            if rules.send(&mut frame) {
                assert!(frame.len().abs_diff(before) <= 4);
                assert!(rules.receive(&mut frame), "{text:?}: it does not come back");
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// What follows the inner locator of `rate://{...}`.
pub fn rate(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(config) = text.parse::<ioth_vde::rate::Config>() else { return };
    let mut meter = ioth_vde::rate::Meter::new(config.sent, config.burst);
    let mut now = std::time::Duration::ZERO;
    for len in [14, 1514, 65_549] {
        if let Some(due) = meter.wait(now) {
            assert!(due > now);
            now = due;
        }
        assert_eq!(meter.wait(now), None, "nothing goes when it is due");
        meter.charge(now, len);
    }
}

/// MAC addresses and prefixes. What can be read is shown as what means the same.
pub fn address(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(mac) = text.parse::<MacAddr>() {
        assert_eq!(mac.to_string().parse::<MacAddr>().ok(), Some(mac));
    }
    if let Ok(cidr) = text.parse::<Cidr>() {
        assert_eq!(cidr.to_string().parse::<Cidr>().ok(), Some(cidr));
        assert!(cidr.contains(cidr.network().addr()));
    }
}

/// `struct sockaddr` of any family.
pub fn sockaddr(data: &[u8]) {
    if let Ok(addr) = SockAddr::from_raw(data) {
        assert_eq!(SockAddr::from_raw(&addr.to_raw()), Ok(addr));
    }
}

const KEYS: Keys = &["", "port", "group", "mode"];

/// All schemes, but those that leave the process open what is within them, or nothing.
fn harmless() -> Schemes {
    let mut schemes = Schemes::builtin();
    schemes.register("pcap", Arc::new(|spec| spec.inner(spec.nested()?.inner)));
    for scheme in ["vde", "multi", "bonding", "macvtap"] {
        schemes.register(scheme, Arc::new(|spec| spec.bracket(KEYS).and_then(|_| spec.inner("null://"))));
    }
    schemes
}
