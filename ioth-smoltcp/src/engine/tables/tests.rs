use std::net::{IpAddr, Ipv4Addr};

use ioth_core::{Cidr, Errno, MacAddr};
use proptest::prelude::*;

use super::*;
use crate::engine::addr::{AddrAttrs, AddrError};
use crate::engine::iface::{IfaceError, LOOPBACK};
use crate::engine::route::{AddMode, Path, RouteChangeError, RouteError, RouteFilter, RouteKind, scope};

const MAC: MacAddr = MacAddr([2, 0, 0x5e, 0x10, 0, 1]);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

/// A node with an interface that is up (index 2) and these addresses.
fn node(addrs: &[&str]) -> Tables {
    let mut tables = Tables::new();
    assert_eq!(tables.add_iface("vde%d", MAC, 1500, 9000), Ok(2));
    tables.set_up(2, true).unwrap();
    for addr in addrs {
        add(&mut tables, 2, addr).unwrap();
    }
    tables
}

fn add(tables: &mut Tables, ifindex: u32, addr: &str) -> Result<(), AddrError> {
    tables.add_addr(ifindex, cidr(addr), AddrAttrs::default())
}

fn via(dst: &str, gateway: &str) -> Route {
    Route::via(cidr(dst), ip(gateway))
}

fn to(tables: &Tables, dst: &str) -> Result<Path, Errno> {
    tables.route(ip(dst), None, None).map_err(RouteError::to_errno)
}

fn local_addrs(tables: &Tables, ifindex: u32) -> Vec<String> {
    tables.addrs_of(ifindex).iter().map(|addr| addr.cidr().to_string()).collect()
}

fn prefixes(tables: &Tables) -> Vec<String> {
    let mut all: Vec<_> = tables.routes().map(|route| route.dst.to_string()).collect();
    all.sort();
    all
}

#[test]
fn a_new_node_has_loopback() {
    let tables = Tables::new();
    let lo = tables.iface_by_name("lo").unwrap();
    assert_eq!((lo.index(), lo.mtu(), lo.is_running()), (LOOPBACK, 65536, true));
    assert_eq!(local_addrs(&tables, LOOPBACK), ["127.0.0.1/8", "::1/128"]);
    assert!(tables.is_local(ip("127.200.0.9"), None).is_some());
    assert!(tables.is_local(ip("128.0.0.1"), None).is_none());
    let path = to(&tables, "127.9.9.9").unwrap();
    assert_eq!((path.ifindex, path.source, path.local), (LOOPBACK, ip("127.0.0.1"), true));
    assert_eq!(to(&tables, "::1").unwrap().source, ip("::1"));
    assert_eq!(to(&tables, "10.0.0.1"), Err(Errno::ENETUNREACH));
    assert_eq!(to(&tables, "fd00::1"), Err(Errno::ENETUNREACH));
    assert_eq!(to(&tables, "0.0.0.0").unwrap().next_hop, ip("127.0.0.1"));
}

#[test]
fn names() {
    let mut tables = Tables::new();
    for wrong in ["", ".", "..", "a/b", "a:b", "a b", "0123456789abcdef", "a\n", "a%s", "%d%d"] {
        assert_eq!(tables.add_iface(wrong, MAC, 1500, 1500), Err(IfaceError::InvalidName), "{wrong:?}");
    }
    assert_eq!(tables.add_iface("lo", MAC, 1500, 1500), Err(IfaceError::Exists));
    assert_eq!(tables.add_iface("e%d", MAC, 1500, 1500), Ok(2));
    assert_eq!(tables.add_iface("e%d", MAC, 1500, 1500), Ok(3));
    assert_eq!(tables.iface(3).unwrap().name(), "e1");
    assert_eq!(tables.rename(3, "e0"), Err(IfaceError::Exists));
    tables.rename(3, "wan").unwrap();
    assert_eq!(tables.iface_by_name("wan").unwrap().index(), 3);
    tables.del_iface(3).unwrap();
    assert_eq!(tables.add_iface("e%d", MAC, 1500, 1500), Ok(4), "an index is not used again");
    assert_eq!(tables.del_iface(LOOPBACK), Err(IfaceError::Permanent));
    assert_eq!(tables.add_iface("x", MacAddr::BROADCAST, 1500, 1500), Err(IfaceError::InvalidMac));
    assert_eq!(tables.add_iface("x", MAC, 67, 1500), Err(IfaceError::MtuTooSmall));
    assert_eq!(tables.set_mtu(2, 1501), Err(IfaceError::MtuTooLarge));
}

#[test]
fn up_and_down_as_linux() {
    let mut tables = node(&["10.0.0.1/24", "fd00::1/64"]);
    tables.add_route(via("0.0.0.0/0", "10.0.0.254")).unwrap();
    assert_eq!(local_addrs(&tables, 2), ["10.0.0.1/24", "fd00::1/64", "fe80::5eff:fe10:1/64"]);
    assert_eq!(prefixes(&tables), ["0.0.0.0/0", "10.0.0.0/24", "::1/128", "fd00::/64", "fe80::/64"]);
    tables.set_up(2, false).unwrap();
    assert_eq!(local_addrs(&tables, 2), ["10.0.0.1/24"]);
    assert_eq!(prefixes(&tables), ["::1/128"]);
    assert_eq!(tables.add_route(Route::new(cidr("10.9.0.0/16"), 2)), Err(RouteChangeError::DeviceDown));
    tables.set_up(2, true).unwrap();
    assert_eq!(prefixes(&tables), ["10.0.0.0/24", "::1/128", "fe80::/64"]);
    tables.set_mtu(2, 1000).unwrap();
    assert_eq!(local_addrs(&tables, 2), ["10.0.0.1/24"]);
    assert_eq!(add(&mut tables, 2, "fd00::1/64").unwrap_err().to_errno(), Errno::EINVAL);
    tables.set_mtu(2, 1500).unwrap();
    assert_eq!(local_addrs(&tables, 2), ["10.0.0.1/24", "fe80::5eff:fe10:1/64"]);
}

#[test]
fn addresses_are_refused_as_linux() {
    let mut tables = node(&["10.0.0.1/24", "fd00::1/64"]);
    let mut refused = |addr: &str| add(&mut tables, 2, addr).err().map(AddrError::to_errno);
    assert_eq!(refused("10.0.0.1/24"), Some(Errno::EEXIST));
    assert_eq!(refused("fd00::1/48"), Some(Errno::EEXIST));
    assert_eq!(refused("224.0.0.1/24"), Some(Errno::EADDRNOTAVAIL));
    assert_eq!(refused("255.255.255.255/32"), Some(Errno::EADDRNOTAVAIL));
    assert_eq!(refused("ff02::1/64"), Some(Errno::EADDRNOTAVAIL));
    assert_eq!(refused("::/64"), Some(Errno::EADDRNOTAVAIL));
    assert_eq!(refused("::1/128"), Some(Errno::EADDRNOTAVAIL));
    assert_eq!(refused("10.0.0.1/25"), None, "the same address in another subnet");
    assert_eq!(add(&mut tables, 9, "10.0.0.2/24"), Err(AddrError::NoDevice));
    assert_eq!(tables.del_addr(2, cidr("10.0.0.9/24"), None), Err(AddrError::NotFound));
    let attrs = AddrAttrs { valid: 10, preferred: 20, ..AddrAttrs::default() };
    assert_eq!(tables.add_addr(2, cidr("10.0.0.7/24"), attrs), Err(AddrError::InvalidLifetime));
}

#[test]
fn secondaries_go_with_their_primary() {
    let mut tables = node(&["10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/25"]);
    let secondary: Vec<_> = tables.addrs_of(2).iter().map(Addr::is_secondary).collect();
    assert_eq!(local_addrs(&tables, 2)[..3], ["10.0.0.1/24", "10.0.0.3/25", "10.0.0.2/24"]);
    assert_eq!(secondary, [false, false, true, false]);
    assert_eq!(to(&tables, "10.0.0.200").unwrap().source, ip("10.0.0.1"));
    assert_eq!(to(&tables, "10.0.0.100").unwrap().source, ip("10.0.0.3"));
    tables.del_addr(2, cidr("10.0.0.1/24"), None).unwrap();
    assert_eq!(local_addrs(&tables, 2)[..1], ["10.0.0.3/25"]);
    assert!(tables.is_local(ip("10.0.0.2"), None).is_none());
    assert_eq!(to(&tables, "10.0.0.200"), Err(Errno::ENETUNREACH));
}

#[test]
fn the_last_address_takes_the_routes_with_it() {
    let mut tables = node(&["10.0.0.1/24"]);
    tables.add_route(via("10.9.0.0/16", "10.0.0.2")).unwrap();
    tables.del_addr(2, cidr("10.0.0.1/24"), None).unwrap();
    assert_eq!(prefixes(&tables), ["::1/128", "fe80::/64"]);
}

#[test]
fn groups_follow_addresses() {
    let mut tables = node(&["fd00::12:3456/64"]);
    let group = MacAddr([0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
    assert!(tables.take_groups_changed());
    assert!(tables.wants_group(group, 2) && !tables.wants_group(group, 1));
    assert!(tables.wants_group(MacAddr::BROADCAST, 2));
    assert!(tables.wants_group(MacAddr([0x33, 0x33, 0, 0, 0, 1]), 2));
    assert!(tables.is_member(ip("ff02::1:ff12:3456"), 2));
    tables.del_addr(2, cidr("fd00::12:3456/64"), None).unwrap();
    assert!(!tables.wants_group(group, 2));
    // 224.1.1.1 and 225.1.1.1 share an Ethernet address.
    let shared = MacAddr([1, 0, 0x5e, 1, 1, 1]);
    assert_eq!(tables.join_group(2, ip("224.1.1.1")), Ok(true));
    assert_eq!(tables.join_group(2, ip("224.1.1.1")), Ok(false));
    assert_eq!(tables.join_group(2, ip("225.1.1.1")), Ok(true));
    assert_eq!(tables.leave_group(2, ip("225.1.1.1")), Ok(true));
    assert!(tables.wants_group(shared, 2));
    assert_eq!(tables.leave_group(2, ip("224.1.1.1")), Ok(false));
    assert_eq!(tables.leave_group(2, ip("224.1.1.1")), Ok(true));
    assert!(!tables.wants_group(shared, 2));
    assert_eq!(tables.leave_group(2, ip("224.1.1.1")), Err(AddrError::NotFound));
    assert!(tables.join_group(2, ip("10.0.0.1")).is_err());
}

#[test]
fn broadcasts() {
    let tables = node(&["10.0.0.1/24", "10.1.0.0/31"]);
    assert!(tables.is_broadcast(Ipv4Addr::new(10, 0, 0, 255), 2));
    assert!(!tables.is_broadcast(Ipv4Addr::new(10, 0, 0, 255), 1));
    assert!(!tables.is_broadcast(Ipv4Addr::new(10, 1, 0, 1), 2));
    assert!(tables.is_broadcast(Ipv4Addr::BROADCAST, 1));
    assert!(to(&tables, "10.0.0.255").unwrap().broadcast);
    assert_eq!(to(&tables, "255.255.255.255"), Err(Errno::ENETUNREACH));
    let path = tables.route(ip("255.255.255.255"), Some(2), None).unwrap();
    assert_eq!((path.broadcast, path.source), (true, ip("10.0.0.1")));
}

#[test]
fn an_interface_without_address_can_broadcast() {
    let tables = node(&[]);
    let path = tables.route(ip("255.255.255.255"), Some(2), None).unwrap();
    assert_eq!((path.next_hop, path.source), (ip("255.255.255.255"), ip("0.0.0.0")));
}

#[test]
fn routes_are_refused_as_linux() {
    let mut tables = node(&["10.0.0.1/24", "fd00::1/64"]);
    tables.add_iface("down", MAC, 1500, 1500).unwrap();
    let mut add = |route: Route| tables.add_route(route).err().map(RouteChangeError::to_errno);
    assert_eq!(add(via("10.8.0.0/16", "10.99.0.1")), Some(Errno::ENETUNREACH));
    assert_eq!(add(via("10.8.0.0/16", "10.0.0.255")), Some(Errno::EINVAL));
    assert_eq!(add(via("10.8.0.0/16", "224.0.0.1")), Some(Errno::EINVAL));
    assert_eq!(add(via("10.8.0.1/16", "10.0.0.2")), Some(Errno::EINVAL));
    assert_eq!(add(Route::new(cidr("10.8.0.0/16"), 0)), Some(Errno::ENODEV));
    assert_eq!(add(Route::new(cidr("10.8.0.0/16"), 77)), Some(Errno::ENODEV));
    assert_eq!(add(Route::new(cidr("10.8.0.0/16"), 3)), Some(Errno::ENETDOWN));
    let mut route = via("10.8.0.0/16", "10.0.0.2");
    route.prefsrc = Some(ip("10.0.0.77"));
    assert_eq!(add(route), Some(Errno::EINVAL));
    assert_eq!(add(via("fd0a::/64", "fe80::3")), Some(Errno::EINVAL));
    assert_eq!(add(via("fd0a::/64", "fd77::3")), Some(Errno::EHOSTUNREACH));
    assert_eq!(add(via("fd0a::/64", "fd00::1")), Some(Errno::EINVAL));
    assert_eq!(add(via("fd0a::/64", "ff02::1")), Some(Errno::EINVAL));
    assert_eq!(add(via("fd0a::/64", "10.0.0.2")), Some(Errno::EINVAL));
    assert_eq!(add(Route { oif: 2, ..via("fd0a::/64", "fe80::3") }), None);
    assert_eq!(add(Route { oif: 2, onlink: true, ..via("10.8.0.0/16", "10.99.0.1") }), None);
}

#[test]
fn order_of_equal_routes() {
    let mut tables = node(&["10.0.0.1/24"]);
    let net = "10.8.0.0/16";
    let gateways = |tables: &Tables| {
        let routes = tables.fib.exact(cidr(net)).iter();
        routes.map(|route| (route.gateway.unwrap().to_string(), route.metric)).collect::<Vec<_>>()
    };
    tables.add_route(via(net, "10.0.0.2")).unwrap();
    assert_eq!(tables.add_route(via(net, "10.0.0.3")), Err(RouteChangeError::Exists));
    tables.add_route(Route { metric: 5, ..via(net, "10.0.0.3") }).unwrap();
    tables.put_route(via(net, "10.0.0.3"), AddMode::APPEND).unwrap();
    assert_eq!(tables.put_route(via(net, "10.0.0.3"), AddMode::APPEND), Err(RouteChangeError::Exists));
    tables.put_route(via(net, "10.0.0.4"), AddMode { append: false, ..AddMode::APPEND }).unwrap();
    let order = [("10.0.0.4", 0), ("10.0.0.2", 0), ("10.0.0.3", 0), ("10.0.0.3", 5)];
    assert_eq!(gateways(&tables), order.map(|(gateway, metric)| (gateway.to_owned(), metric)));
    tables.put_route(via(net, "10.0.0.9"), AddMode::REPLACE).unwrap();
    assert_eq!(gateways(&tables)[0].0, "10.0.0.9");
    let change = AddMode { create: false, ..AddMode::REPLACE };
    assert_eq!(
        tables.put_route(via("10.7.0.0/16", "10.0.0.9"), change),
        Err(RouteChangeError::NothingToReplace)
    );
    let other = RouteFilter { gateway: Some(ip("10.0.0.99")), ..RouteFilter::to(cidr(net)) };
    assert_eq!(tables.del_route(&other), Err(RouteChangeError::NotFound));
    tables.del_route(&RouteFilter { metric: Some(5), ..RouteFilter::to(cidr(net)) }).unwrap();
    tables.del_route(&RouteFilter::to(cidr(net))).unwrap();
    assert_eq!(gateways(&tables)[0].0, "10.0.0.2");
}

#[test]
fn refusing_routes() {
    let mut tables = node(&["10.0.0.1/24"]);
    for (dst, kind) in [
        ("10.1.0.0/16", RouteKind::Blackhole),
        ("10.2.0.0/16", RouteKind::Unreachable),
        ("fd02::/16", RouteKind::Prohibit),
    ] {
        tables.add_route(Route { kind, ..Route::new(cidr(dst), 0) }).unwrap();
    }
    assert_eq!(to(&tables, "10.1.0.1"), Err(Errno::EINVAL));
    assert_eq!(to(&tables, "10.2.0.1"), Err(Errno::EHOSTUNREACH));
    assert_eq!(to(&tables, "fd02::1"), Err(Errno::EACCES));
}

/// As Linux, whose routes fe80::/64 are in the order in which the links came up.
#[test]
fn a_link_local_destination_without_a_link_goes_by_the_first() {
    let mut tables = node(&["fd00::1/64"]);
    let second = tables.add_iface("vde1", MacAddr([2, 0, 0, 0, 0, 2]), 1500, 9000).unwrap();
    tables.set_up(second, true).unwrap();
    assert_eq!(to(&tables, "fe80::99").unwrap().ifindex, 2);
    assert_eq!(tables.route(ip("fe80::99"), Some(second), None).unwrap().ifindex, second);
    assert_eq!(tables.route(ip("fe80::99"), Some(LOOPBACK), None), Err(RouteError::NoRoute));
    tables.set_up(2, false).unwrap();
    assert_eq!(to(&tables, "fe80::99").unwrap().ifindex, second);
    tables.set_up(2, true).unwrap();
    assert_eq!(to(&tables, "fe80::99").unwrap().ifindex, second, "which is now the older one");
}

#[test]
fn routing() {
    let mut tables = node(&["10.0.0.1/24", "fd00::1/64"]);
    tables.add_route(Route { mtu: 1400, ..via("0.0.0.0/0", "10.0.0.254") }).unwrap();
    let path = to(&tables, "1.2.3.4").unwrap();
    let wanted = Path {
        ifindex: 2,
        next_hop: ip("10.0.0.254"),
        source: ip("10.0.0.1"),
        mtu: 1400,
        local: false,
        arrival: 2,
        broadcast: false,
    };
    assert_eq!(path, wanted);
    let path = to(&tables, "10.0.0.1").unwrap();
    assert_eq!((path.ifindex, path.local, path.source), (LOOPBACK, true, ip("10.0.0.1")));
    // Linux: what the node sends to itself comes by the interface that has the address.
    assert_eq!((path.arrival, to(&tables, "127.0.0.1").unwrap().arrival), (2, LOOPBACK));
    assert_eq!(tables.route(ip("10.0.0.1"), Some(LOOPBACK), None).unwrap().arrival, LOOPBACK);
    assert_eq!(tables.route(ip("fd00::1"), Some(2), None).unwrap().arrival, 2);
    assert_eq!(tables.route(ip("fd00::1"), Some(LOOPBACK), None), Err(RouteError::NoRoute));
    // Linux: with an interface and no route the destination is taken to be on the link, with IPv4 only.
    tables.del_route(&RouteFilter::to(cidr("0.0.0.0/0"))).unwrap();
    assert_eq!(tables.route(ip("99.0.0.1"), Some(2), None).unwrap().next_hop, ip("99.0.0.1"));
    assert_eq!(tables.route(ip("fd99::1"), Some(2), None), Err(RouteError::NoRoute));
    assert_eq!(tables.route(ip("99.0.0.1"), Some(7), None), Err(RouteError::NoDevice));
    assert_eq!(tables.route(ip("99.0.0.1"), None, Some(ip("::1"))), Err(RouteError::Family));
    // Multicast.
    assert_eq!(to(&tables, "224.0.0.9"), Err(Errno::ENETUNREACH));
    assert_eq!(tables.route(ip("224.0.0.9"), None, Some(ip("10.0.0.1"))).unwrap().ifindex, 2);
    assert_eq!(to(&tables, "ff02::1").unwrap().ifindex, 2);
    // The first link is as good as another for who does not say which.
    assert_eq!(to(&tables, "fe80::99").unwrap().ifindex, 2);
    assert_eq!(tables.route(ip("fe80::99"), Some(7), None), Err(RouteError::NoRoute));
    let path = tables.route(ip("fe80::99"), Some(2), None).unwrap();
    assert_eq!(path.source, ip("fe80::5eff:fe10:1"));
}

#[test]
fn ipv6_sources() {
    let mut tables = node(&["2001:db8:1::1/64", "2001:db8:2::1/64", "fd00::1/64"]);
    tables.add_iface("other", MAC, 1500, 1500).unwrap();
    tables.set_up(3, true).unwrap();
    add(&mut tables, 3, "2001:db8:3::1/64").unwrap();
    tables.add_route(Route { oif: 2, ..via("::/0", "fe80::1") }).unwrap();
    let source = |tables: &Tables, dst: &str| to(tables, dst).unwrap().source.to_string();
    assert_eq!(source(&tables, "2001:db8:1::9"), "2001:db8:1::1", "rule 8");
    assert_eq!(source(&tables, "2001:db8:2:ffff::9"), "2001:db8:2::1", "rule 8");
    assert_eq!(source(&tables, "fd77::9"), "fd00::1", "rule 6");
    assert_eq!(source(&tables, "2001:db8:3:9::9"), "2001:db8:2::1", "rule 5 before rule 8");
    assert_eq!(source(&tables, "ff02::9"), "fe80::5eff:fe10:1", "rule 2");
    tables.set_addr_state(2, ip("2001:db8:2::1"), AddrState::Deprecated).unwrap();
    assert_eq!(source(&tables, "2001:db8:2:ffff::9"), "2001:db8:1::1", "rule 3");
    tables.set_addr_state(2, ip("fd00::1"), AddrState::Closed).unwrap();
    assert_eq!(tables.is_local(ip("fd00::1"), None).unwrap().state, AddrState::Closed);
    assert_ne!(source(&tables, "fd77::9"), "fd00::1", "closed to newcomers");
}

#[test]
fn without_ipv6_source() {
    let mut tables = node(&[]);
    tables.set_addr_state(2, ip("fe80::5eff:fe10:1"), AddrState::Tentative).unwrap();
    assert_eq!(tables.route(ip("fe80::9"), Some(2), None), Err(RouteError::NoSource));
}

#[test]
fn lifetimes() {
    let mut tables = node(&[]);
    let attrs = AddrAttrs { valid: 20, preferred: 10, ..AddrAttrs::default() };
    assert_eq!(tables.advance(5000), None);
    tables.add_addr(2, cidr("fd00::1/64"), attrs.clone()).unwrap();
    assert_eq!(tables.advance(5000), Some(15_000));
    assert_eq!(tables.advance(14_999), Some(15_000));
    assert_eq!(tables.addrs_of(2)[0].remaining(tables.now()), (1, 11));
    assert_eq!(tables.advance(15_000), Some(25_000));
    assert_eq!(tables.addrs_of(2)[0].state(), AddrState::Deprecated);
    tables.update_addr(2, cidr("fd00::1/64"), attrs).unwrap();
    assert_eq!(tables.addrs_of(2)[0].state(), AddrState::Preferred);
    assert_eq!(tables.advance(34_999), Some(35_000));
    assert_eq!(tables.advance(u64::MAX), None);
    assert!(tables.is_local(ip("fd00::1"), None).is_none());
    assert_eq!(prefixes(&tables), ["::1/128", "fe80::/64"]);
}

#[test]
fn changes_are_told() {
    let mut tables = node(&[]);
    assert!(tables.take_changes().0.is_empty());
    tables.watch(true);
    let generation = tables.generation();
    add(&mut tables, 2, "10.0.0.1/24").unwrap();
    assert_ne!(generation, tables.generation());
    let (changes, missing) = tables.take_changes();
    assert!(matches!(&changes[..], [Change::AddrNew(_), Change::RouteNew(_)]) && !missing);
    tables.set_up(2, true).unwrap();
    assert!(tables.take_changes().0.is_empty(), "no change, no event");
    for n in 0..=MAX_CHANGES as u32 {
        tables.set_mtu(2, 1280 + n as usize % 2).unwrap();
    }
    let (changes, missing) = tables.take_changes();
    assert!(changes.len() == MAX_CHANGES && missing);
}

#[test]
fn ten_thousand_routes_in_order() {
    let mut tables = node(&["10.0.0.1/24"]);
    for n in 0..10_000u32 {
        let dst = Cidr::new(Ipv4Addr::from(0x2000_0000 + (n << 8)), 24).unwrap();
        tables.add_route(Route::via(dst, ip("10.0.0.2"))).unwrap();
    }
    assert_eq!(to(&tables, "32.0.5.1").unwrap().next_hop, ip("10.0.0.2"));
    let mut seen = Vec::new();
    loop {
        let part = tables.routes_after(false, seen.last().copied(), 300);
        if part.is_empty() {
            break;
        }
        seen.extend(part.iter().map(|(dst, _)| *dst));
    }
    assert_eq!(seen.len(), 10_001);
    assert!(seen.is_sorted());
}

/// Destinations that meet often.
fn prefix() -> impl Strategy<Value = Cidr> {
    let v4 = (0u32..64, 0u8..=32).prop_map(|(n, len)| Cidr::new(Ipv4Addr::from(n << 26 | n), len).unwrap());
    let v6 = (0u128..64, 0u8..=128)
        .prop_map(|(n, len)| Cidr::new(std::net::Ipv6Addr::from(n << 122 | n), len).unwrap());
    prop_oneof![v4, v6].prop_map(|cidr| cidr.network())
}

#[derive(Clone, Debug)]
enum Op {
    Add(u32, Cidr),
    Del(u32, Cidr),
    Up(u32, bool),
    Mtu(u32, usize),
    Route(Cidr, u32, u32),
    DelRoute(Cidr),
    Advance(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let addr = || {
        (prefix(), 1u8..3).prop_map(|(net, host)| match net.addr() {
            IpAddr::V4(net4) => {
                Cidr::new(Ipv4Addr::from(net4.to_bits() | u32::from(host)), net.prefix_len()).unwrap()
            }
            IpAddr::V6(net6) => {
                Cidr::new(std::net::Ipv6Addr::from(net6.to_bits() | u128::from(host)), net.prefix_len())
                    .unwrap()
            }
        })
    };
    prop_oneof![
        4 => (1u32..4, addr()).prop_map(|(at, addr)| Op::Add(at, addr)),
        3 => (1u32..4, addr()).prop_map(|(at, addr)| Op::Del(at, addr)),
        1 => (1u32..4, any::<bool>()).prop_map(|(at, up)| Op::Up(at, up)),
        1 => (1u32..4, 1000usize..1500).prop_map(|(at, mtu)| Op::Mtu(at, mtu)),
        3 => (prefix(), 1u32..4, 0u32..3).prop_map(|(dst, at, metric)| Op::Route(dst, at, metric)),
        2 => prefix().prop_map(Op::DelRoute),
        1 => (0u64..100_000).prop_map(Op::Advance),
    ]
}

proptest! {
    #[test]
    fn longest_prefix_as_a_list_would(
        routes in proptest::collection::vec((prefix(), 0u32..3), 0..60),
        dsts in proptest::collection::vec(prefix(), 1..30),
    ) {
        let mut fib = Fib::new(FixedState::with_seed(7));
        let mut list: Vec<Route> = Vec::new();
        for (dst, metric) in routes {
            if !list.iter().any(|route| route.dst == dst && route.metric == metric) {
                let route = Route { metric, ..Route::new(dst, 1) };
                fib.insert(route.clone(), true);
                list.push(route);
            }
        }
        for dst in dsts {
            let mut naive: Vec<_> = list.iter().filter(|route| route.dst.contains(dst.addr())).collect();
            naive.sort_by_key(|route| (u8::MAX - route.dst.prefix_len(), route.metric));
            prop_assert_eq!(fib.matches(dst.addr()).collect::<Vec<_>>(), naive);
            fib.extract(|route| route.dst == dst);
            list.retain(|route| route.dst != dst);
            prop_assert_eq!(fib.len(), list.len());
        }
    }

    /// Whatever is done, what the hash tables say is what the lists say.
    #[test]
    fn indexes_agree_with_lists(ops in proptest::collection::vec(op(), 0..60), probes in proptest::collection::vec(prefix(), 10)) {
        let mut tables = node(&[]);
        tables.add_iface("two", MAC, 1500, 9000).unwrap();
        for op in ops {
            let _: Result<(), Errno> = match op {
                Op::Add(at, addr) => {
                    let attrs = AddrAttrs { valid: 60, preferred: 30, ..AddrAttrs::default() };
                    tables.add_addr(at, addr, attrs).map_err(Errno::from)
                }
                Op::Del(at, addr) => tables.del_addr(at, addr, None).map_err(Errno::from),
                Op::Up(at, up) => tables.set_up(at, up).map_err(Errno::from),
                Op::Mtu(at, mtu) => tables.set_mtu(at, mtu).map_err(Errno::from),
                Op::Route(dst, at, metric) => {
                    tables.add_route(Route { metric, ..Route::new(dst, at) }).map_err(Errno::from)
                }
                Op::DelRoute(dst) => tables.del_route(&RouteFilter::to(dst)).map_err(Errno::from),
                Op::Advance(by) => {
                    tables.advance(tables.now() + by);
                    Ok(())
                }
            };
        }
        let mut listed: Vec<_> = tables.addrs().map(|addr| (addr.local(), addr.ifindex(), addr.state())).collect();
        let mut indexed: Vec<_> = Vec::new();
        for (addr, entries) in &tables.locals {
            indexed.extend(entries.iter().map(|local| (*addr, local.ifindex, local.state)));
        }
        listed.sort_by_key(|(addr, at, _)| (*addr, *at));
        indexed.sort_by_key(|(addr, at, _)| (*addr, *at));
        prop_assert_eq!(tables.addr_count, listed.len());
        prop_assert_eq!(listed, indexed);
        let groups = tables.groups.values().sum::<u32>() as usize;
        prop_assert_eq!(groups, tables.addrs().filter(|addr| addr.local().is_ipv6() && addr.ifindex() != 1).count());
        prop_assert!(tables.routes().all(|route| tables.iface(route.oif).unwrap().is_up()));
        prop_assert!(tables.routes().all(|route| route.protocol != libc::RTPROT_KERNEL
            || tables.addrs_of(route.oif).iter().any(|addr| addr.prefix() == route.dst)));
        for probe in probes {
            let _ = tables.route(probe.addr(), Some(2), None);
            if let Ok(path) = tables.route(probe.addr(), None, None) {
                prop_assert!(tables.iface(path.ifindex).unwrap().is_up());
                prop_assert_eq!(path.local, tables.is_local(probe.addr(), None).is_some() || probe.addr().is_unspecified());
            }
        }
        prop_assert!(tables.addrs().all(|addr| addr.scope() <= scope::HOST));
    }
}
