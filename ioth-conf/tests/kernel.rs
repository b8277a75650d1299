//! Configurations applied to Linux's own stack, in private network namespaces.

#[path = "../../ioth-core/tests/support/mod.rs"]
mod support;

use std::sync::Arc;

use ioth_conf::{Applied, ConfigError, configure, new_stack};
use ioth_core::netlink::Route;
use ioth_core::{Errno, Registry};
use support::{KernelStack, in_namespace, veth};

/// The addresses and the main table's routes of an interface, sorted.
fn state(route: &Route, index: u32) -> Vec<String> {
    let addresses = route.addresses().unwrap().into_iter().filter(|address| address.index == index);
    let routes =
        route.routes().unwrap().into_iter().filter(|route| route.index == index && route.table == 254);
    let mut lines: Vec<String> = addresses
        .map(|address| address.address.to_string())
        .filter(|address| !address.starts_with("fe80:"))
        .chain(routes.filter_map(|route| Some(format!("{} via {}", route.dst, route.gateway?))))
        .collect();
    lines.sort();
    lines
}

#[test]
fn an_ipv6_address_can_be_bound_to_at_once() {
    in_namespace("an_ipv6_address_can_be_bound_to_at_once", || {
        veth(&Route::new(&KernelStack).unwrap());
        // Linux looks for duplicates for a second or two.
        configure(&KernelStack, "ip=fd00::1,ip=fd00::2").unwrap();
        for address in ["fd00::1", "fd00::2"] {
            std::net::UdpSocket::bind((address, 0)).unwrap();
        }
    });
}

#[test]
fn a_life() {
    in_namespace("a_life", || {
        let route = Route::new(&KernelStack).unwrap();
        let vde0 = veth(&route);
        route.set_link_up(vde0, false).unwrap();

        let config =
            "gw=10.0.0.254,ip=10.0.0.1,ip=fd00::1,gw=fd00::ff,eth,fqdn=renzo.hash.local,dns=10.0.0.53";
        // Saying it twice is saying it once.
        for _ in 0..2 {
            assert_eq!(configure(&KernelStack, config).unwrap(), Applied::STATIC | Applied::ETH);
            assert!(route.link(vde0).unwrap().up());
            assert_eq!(route.link_addr(vde0).unwrap().unwrap().to_string(), "06:cc:80:65:d0:3a");
            let all = ["0.0.0.0/0 via 10.0.0.254", "10.0.0.1/24", "::/0 via fd00::ff", "fd00::1/64"];
            assert_eq!(state(&route, vde0), all);
        }

        let other = configure(&KernelStack, "gw=10.0.0.253").unwrap_err();
        assert_eq!(other.errno(), Errno::EEXIST);
        let message = "config: vde0: gw=10.0.0.253: there is another default route through 10.0.0.254";
        assert_eq!(other.to_string(), message);
        let other = configure(&KernelStack, "ip=fd00::1/48").unwrap_err();
        assert_eq!(other.to_string(), "config: vde0: ip=fd00::1/48: the interface has fd00::1/64");

        // Removal comes first, wherever it stands: this replaces.
        configure(&KernelStack, "gw=10.0.0.253,-gw=10.0.0.254,ip=fd00::2,-ip=fd00::1").unwrap();
        assert_eq!(
            state(&route, vde0),
            ["0.0.0.0/0 via 10.0.0.253", "10.0.0.1/24", "::/0 via fd00::ff", "fd00::2/64"]
        );
        // What is not there needs no removal; another length is another address.
        assert_eq!(
            configure(&KernelStack, "-ip=9.9.9.9,-gw=fd00::1,-ip=fd00::2/65").unwrap(),
            Applied::empty()
        );
        assert_eq!(state(&route, vde0).len(), 4);

        configure(&KernelStack, "-static,ip=10.0.0.9/8").unwrap();
        assert_eq!(state(&route, vde0), ["10.0.0.9/8"]);
        assert_eq!(configure(&KernelStack, "-eth,mac=02:00:00:00:00:05").unwrap(), Applied::empty());
        assert!(!route.link(vde0).unwrap().up());
        assert_eq!(configure(&KernelStack, "eth,mac=02:00:00:00:00:05").unwrap(), Applied::ETH);
        assert_eq!(route.link_addr(vde0).unwrap().unwrap().to_string(), "02:00:00:00:00:05");
    });
}

#[test]
fn several_interfaces() {
    in_namespace("several_interfaces", || {
        let route = Route::new(&KernelStack).unwrap();
        let vde0 = veth(&route);
        let vde1 = route.link_index("vde1").unwrap();
        let config = format!(
            "ip=10.0.0.1 iface=vde1 ip=10.0.1.1 ifindex={vde0} ip=10.0.0.2 iface=lo eth ip=127.0.0.9/8"
        );
        configure(&KernelStack, &config).unwrap();
        assert_eq!(state(&route, vde0), ["10.0.0.1/24", "10.0.0.2/24"]);
        assert_eq!(state(&route, vde1), ["10.0.1.1/24"]);
        configure(&KernelStack, "iface=vde1 -static").unwrap();
        assert_eq!(state(&route, vde0).len(), 2);
        assert!(state(&route, vde1).is_empty());
    });
}

#[test]
fn errors() {
    in_namespace("errors", || {
        for (config, errno, message) in [
            ("eth", Errno::ENODEV, "config: the stack has no interface \"vde0\""),
            ("iface=vde7", Errno::ENODEV, "config: the stack has no interface \"vde7\""),
            ("ifindex=99,eth", Errno::ENODEV, "config: the stack has no interface number 99"),
            ("stack=kernel,eth", Errno::EINVAL, "config: stack= makes a stack, it cannot change one"),
            ("vnl=", Errno::EINVAL, "config: vnl= makes a stack, it cannot change one"),
            (
                "iface=lo,gw=10.0.0.1",
                Errno::ENETUNREACH,
                "config: lo: gw=10.0.0.1: netlink: Network is unreachable: Nexthop has invalid gateway",
            ),
        ] {
            let error = configure(&KernelStack, config).unwrap_err();
            assert_eq!(error.errno(), errno, "{config}: {error}");
            assert_eq!(error.to_string(), message);
        }
        // Nothing for an interface: none is needed.
        assert_eq!(configure(&KernelStack, "dns=10.0.0.1,debug").unwrap(), Applied::STATIC);
        assert_eq!(configure(&KernelStack, "").unwrap(), Applied::empty());
    });
}

#[test]
fn new_stacks() {
    in_namespace("new_stacks", || {
        let route = Route::new(&KernelStack).unwrap();
        let vde0 = veth(&route);
        route.set_link_up(vde0, false).unwrap();
        let mut registry = Registry::new();
        registry.register(
            "test",
            Arc::new(|spec| {
                assert_eq!(spec.options, "x");
                assert_eq!(spec.vnls, ["null://"]);
                Ok(Arc::new(KernelStack))
            }),
        );
        // An address brings the interface of a vnl= up.
        let stack = new_stack(&registry, "stack='test,x',vnl=null://,ip=fd00::1/64").unwrap();
        assert!(route.link(vde0).unwrap().up());
        assert_eq!(state(&route, vde0), ["fd00::1/64"]);
        // ... but not that of a stack that was there.
        route.set_link_up(vde0, false).unwrap();
        configure(&*stack, "ip=10.0.0.1").unwrap();
        assert!(!route.link(vde0).unwrap().up());

        let error = new_stack(&registry, "stack='test,x',vnl=null://,iface=vde9,eth").unwrap_err();
        assert!(matches!(error, ConfigError::NoInterface { .. }), "{error}");
        let error = new_stack(&registry, "vnl=null://").unwrap_err();
        assert_eq!(error.to_string(), "stack: unknown backend \"kernel\" (known: test)");
    });
}
