//! The netlink client against Linux's own rtnetlink, in private network namespaces.

mod support;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ioth_core::netlink::{AddressDetails, Changes, Error, NewLink, Route, RouteDetails};
use ioth_core::{Cidr, Errno, MacAddr, SockAddr};
use support::{KernelStack, in_namespace, veth};

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn errno<T: std::fmt::Debug>(result: Result<T, Error>) -> Errno {
    result.unwrap_err().errno()
}

#[test]
fn links() {
    in_namespace("links", || {
        let route = Route::new(&KernelStack).unwrap();
        let lo = route.link_index("lo").unwrap();
        assert_eq!(route.link_name(lo).unwrap(), "lo");
        assert_eq!(errno(route.link_index("nosuchlink")), Errno::ENODEV);
        assert_eq!(errno(route.link_index("a name of more than 15 bytes")), Errno::ENODEV);
        assert_eq!(errno(route.link_index("")), Errno::ENODEV);
        assert_eq!(errno(route.link_name(4711)), Errno::ENODEV);
        assert_eq!(errno(route.set_link_up(0, true)), Errno::ENODEV);

        let link = route.link(lo).unwrap();
        assert!(link.loopback() && !link.up());
        assert_eq!(link.mtu, 65536);
        assert_eq!(route.link_addr(lo).unwrap(), Some(MacAddr::UNSPECIFIED));
        assert_eq!(link.stats.unwrap().rx_packets, 0);
        assert!(route.links().unwrap().contains(&link));

        route.set_link_up(lo, true).unwrap();
        assert!(route.link(lo).unwrap().up());
        route.set_link_mtu(lo, 1500).unwrap();
        assert_eq!(route.link(lo).unwrap().mtu, 1500);
        route.set_link_addr(lo, MacAddr([2, 0, 0, 0, 0, 1])).unwrap();
        assert_eq!(route.link_addr(lo).unwrap(), Some(MacAddr([2, 0, 0, 0, 0, 1])));
        route.set_link_up(lo, false).unwrap();
        assert!(!route.link(lo).unwrap().up());
    });
}

#[test]
fn the_kernel_says_why() {
    in_namespace("the_kernel_says_why", || {
        let route = Route::new(&KernelStack).unwrap();
        let refused = route.set_link_mtu(route.link_index("lo").unwrap(), u32::MAX).unwrap_err();
        let Error::Refused { errno: Errno::EINVAL, message } = &refused else { panic!("{refused:?}") };
        assert!(message.contains("mtu"), "{message}");
        assert!(refused.to_string().ends_with(message), "{refused}");
    });
}

#[test]
fn addresses() {
    in_namespace("addresses", || {
        let route = Route::new(&KernelStack).unwrap();
        let lo = route.link_index("lo").unwrap();
        route.set_link_up(lo, true).unwrap();
        for address in ["127.0.0.2/8", "fd00::1/64", "fe80::1/64"] {
            route.add_address(lo, cidr(address)).unwrap();
            assert_eq!(errno(route.add_address(lo, cidr(address))), Errno::EEXIST, "{address}");
        }
        let all = route.addresses().unwrap();
        let found = |address| all.iter().find(|entry| entry.address == cidr(address));
        let v4 = found("127.0.0.2/8").unwrap();
        assert_eq!((v4.index, v4.label.as_deref(), v4.valid, v4.peer), (lo, Some("lo"), None, None));
        assert_eq!(found("fd00::1/64").unwrap().flags & 0x80, 0x80, "permanent");
        assert!(found("127.0.0.1/8").is_some(), "the kernel's own");

        let entries = route.interface_addresses().unwrap();
        assert!(
            matches!(entries[0].addr, SockAddr::Packet(packet) if packet.ifindex == lo && packet.hatype == 772)
        );
        assert!(entries[0].stats.is_some());
        let text: Vec<String> = entries[1..]
            .iter()
            .map(|entry| format!("{} {} {}", entry.name, entry.addr, entry.netmask.unwrap()))
            .collect();
        assert!(text.contains(&"lo 127.0.0.2:0 255.0.0.0:0".to_owned()), "{text:?}");
        assert!(text.contains(&"lo [fd00::1]:0 [ffff:ffff:ffff:ffff::]:0".to_owned()), "{text:?}");
        assert!(text.contains(&format!("lo [fe80::1%{lo}]:0 [ffff:ffff:ffff:ffff::]:0")), "{text:?}");

        for address in ["127.0.0.2/8", "fd00::1/64"] {
            route.del_address(lo, cidr(address)).unwrap();
            assert_eq!(errno(route.del_address(lo, cidr(address))), Errno::EADDRNOTAVAIL, "{address}");
        }
        assert_eq!(errno(route.add_address(4711, cidr("10.0.0.1/24"))), Errno::ENODEV);
    });
}

#[test]
fn routes() {
    in_namespace("routes", || {
        let route = Route::new(&KernelStack).unwrap();
        // Linux takes no IPv6 gateway on the loopback interface.
        let link = veth(&route);
        route.add_address(link, cidr("10.0.0.1/24")).unwrap();
        route.add_address(link, cidr("fd00::1/64")).unwrap();
        let cases = [
            (Some("192.0.2.0/24"), None),
            // through the direct route just added
            (Some("198.51.100.0/24"), Some("192.0.2.1")),
            (None, Some("10.0.0.254")),
            (Some("2001:db8::/32"), Some("fd00::ff")),
            (Some("::/0"), Some("fe80::ff")),
        ];
        for (dst, gateway) in cases {
            let (dst, gateway) = (dst.map(cidr), gateway.map(ip));
            route.add_route(dst, gateway, link).unwrap();
            assert_eq!(errno(route.add_route(dst, gateway, link)), Errno::EEXIST, "{dst:?}");
            let any =
                cidr(if gateway.is_some_and(|gateway| gateway.is_ipv6()) { "::/0" } else { "0.0.0.0/0" });
            let dst = dst.unwrap_or(any);
            let routes = route.routes().unwrap();
            let found =
                routes.iter().find(|entry| entry.dst == dst && entry.table == 254 && entry.index == link);
            assert_eq!(found.unwrap().gateway, gateway, "{dst}");
            assert_eq!(found.unwrap().protocol, 3, "boot");
        }
        for (dst, gateway) in cases.into_iter().rev() {
            let (dst, gateway) = (dst.map(cidr), gateway.map(ip));
            route.del_route(dst, gateway, link).unwrap();
            assert_eq!(errno(route.del_route(dst, gateway, link)), Errno::ESRCH, "{dst:?}");
        }
        // the kernel's own, of protocol "kernel" and scope "link"
        route.del_route(Some(cidr("10.0.0.0/24")), None, link).unwrap();

        assert_eq!(errno(route.add_route(None, None, link)), Errno::EINVAL);
        assert_eq!(
            errno(route.add_route(Some(cidr("10.0.0.0/8")), Some(ip("fd00::1")), link)),
            Errno::EINVAL
        );
    });
}

#[test]
fn links_come_and_go() {
    in_namespace("links_come_and_go", || {
        let route = Route::new(&KernelStack).unwrap();
        let new = NewLink { kind: "veth", name: Some("new0"), ..NewLink::default() };
        let index = route.add_link(&new).unwrap().unwrap();
        assert_eq!(route.link_index("new0").unwrap(), index);
        assert_eq!(errno(route.add_link(&new)), Errno::EEXIST);
        assert_eq!(errno(route.del_link(0, Some("nosuchlink"))), Errno::ENODEV);
        route.del_link(0, Some("new0")).unwrap();
        assert_eq!(errno(route.del_link(index, None)), Errno::ENODEV);

        assert_eq!(route.add_link(&NewLink { index: 77, ..new }).unwrap(), Some(77));
        assert_eq!(route.link_name(77).unwrap(), "new0");
        route.del_link(77, None).unwrap();
        route.add_link(&NewLink { name: None, ..new }).unwrap();
        assert!(route.links().unwrap().iter().any(|link| link.name == "veth0"));

        assert_eq!(errno(route.add_link(&NewLink { kind: "nosuchkind", ..new })), Errno::EOPNOTSUPP);
        for name in ["", "a name of more than 15 bytes", "a\0b"] {
            assert_eq!(
                errno(route.add_link(&NewLink { name: Some(name), ..new })),
                Errno::EINVAL,
                "{name:?}"
            );
            assert_eq!(errno(route.del_link(0, Some(name))), Errno::EINVAL, "{name:?}");
        }
        let long = "x".repeat(70_000);
        assert_eq!(errno(route.add_link(&NewLink { vnl: Some(&long), ..new })), Errno::EINVAL);
        // VETH_INFO_PEER: a `struct ifinfomsg`, and IFLA_IFNAME with its padding.
        let peer =
            [&[0; 16][..], &10u16.to_ne_bytes(), &libc::IFLA_IFNAME.to_ne_bytes(), b"peer0\0\0\0"].concat();
        let data = [(1, &peer[..])];
        route.add_link(&NewLink { data: &data, ..new }).unwrap();
        route.del_link(0, Some("peer0")).unwrap();
        let long = [0; 40_000];
        let data = [(1, &long[..])];
        assert_eq!(errno(route.add_link(&NewLink { data: &data, ..new })), Errno::EINVAL);
        assert_eq!(errno(route.del_link(0, None)), Errno::EINVAL);
        assert_eq!(errno(route.del_link(route.link_index("lo").unwrap(), None)), Errno::EOPNOTSUPP);
    });
}

#[test]
fn details() {
    in_namespace("details", || {
        let route = Route::new(&KernelStack).unwrap();
        let index = veth(&route);
        // IFA_F_NODAD and RT_SCOPE_LINK
        let quick = AddressDetails { flags: 2, scope: 253 };
        route.add_address_with(index, cidr("fd00::1/64"), quick).unwrap();
        route.add_address_with(index, cidr("10.0.0.1/24"), quick).unwrap();
        let all = route.addresses().unwrap();
        let found = |address| all.iter().find(|entry| entry.address == cidr(address)).unwrap();
        assert_eq!(found("fd00::1/64").flags & 2, 2);
        assert_eq!(found("10.0.0.1/24").scope, 253);

        // RTN_BLACKHOLE in RT_SCOPE_UNIVERSE
        let hole = RouteDetails { kind: 6, scope: 0 };
        let net = Some(cidr("10.9.0.0/16"));
        route.add_route_with(net, None, 0, hole).unwrap();
        let there = |dst| route.routes().unwrap().into_iter().find(|entry| Some(entry.dst) == dst);
        assert_eq!(there(net).unwrap().kind, 6);
        let other = RouteDetails { kind: 7, ..hole };
        assert_eq!(errno(route.del_route_with(net, None, 0, other)), Errno::ESRCH);
        route.del_route_with(net, None, 0, hole).unwrap();
        assert_eq!(there(net), None);
    });
}

#[test]
fn long_tables_come_in_parts() {
    in_namespace("long_tables_come_in_parts", || {
        let route = Route::new(&KernelStack).unwrap();
        let lo = route.link_index("lo").unwrap();
        route.set_link_up(lo, true).unwrap();
        for host in 0..1000u32 {
            let dst = Cidr::host(std::net::Ipv4Addr::from_bits(0x0a00_0000 + host));
            route.add_route(Some(dst), None, lo).unwrap();
        }
        let routes = route.routes().unwrap();
        assert_eq!(routes.iter().filter(|entry| cidr("10.0.0.0/8").contains(entry.dst.addr())).count(), 1000);
    });
}

#[test]
fn changes_are_told() {
    in_namespace("changes_are_told", || {
        let route = Route::new(&KernelStack).unwrap();
        let vde0 = veth(&route);
        let changes = Changes::new(&KernelStack).unwrap();
        assert!(!changes.wait(Instant::now()).unwrap());
        route.add_address(vde0, cidr("10.0.0.1/24")).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while changes.wait(deadline).unwrap() {
            if route.addresses().unwrap().iter().any(|address| address.address == cidr("10.0.0.1/24")) {
                return;
            }
        }
        panic!("nobody told");
    });
}
