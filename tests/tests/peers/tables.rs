//! What was configured is what is read, on either stack.

use std::net::IpAddr;

use ioth::core::netlink::LinkFlags;
use ioth::{Cidr, MacAddr, SockAddr, Stack};

use crate::fixture::{command, on_lan};

/// What a stack is told, and has to tell.
const CONFIG: &str = "mac=02:00:00:00:00:0a,ip=10.9.0.1/24,ip=10.9.0.7/16,ip=fd09::1/64,ip=fd09:0:0:1::1/80,\
                      gw=10.9.0.254,gw=fd09::fe";
const ADDRESSES: [&str; 4] = ["10.9.0.1/24", "10.9.0.7/16", "fd09::1/64", "fd09:0:0:1::1/80"];
const ROUTES: [&str; 4] = ["10.9.0.0/24", "10.9.0.0/16", "fd09::/64", "fd09:0:0:1::/80"];
const GATEWAYS: [&str; 2] = ["10.9.0.254", "fd09::fe"];
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x0a]);

fn agrees(stack: &Stack, name: &str) {
    let index = stack.if_nametoindex(name).unwrap();
    let route = stack.route().unwrap();
    assert_eq!(route.link_name(index).unwrap(), name);
    let link = route.link(index).unwrap();
    assert_eq!((&*link.name, link.mac, link.mtu, link.hatype), (name, Some(MAC), 1500, 1), "{link:?}");
    let flags = LinkFlags::UP | LinkFlags::RUNNING | LinkFlags::BROADCAST | LinkFlags::MULTICAST;
    assert!(link.flags.contains(flags), "{link:?}");
    assert!(route.links().unwrap().iter().any(|link| link.loopback() && link.name == "lo"));
    assert_eq!(stack.linkgetaddr(index).unwrap(), Some(MAC));

    let configured = ADDRESSES.map(|cidr| cidr.parse::<Cidr>().unwrap());
    let addresses = route.addresses().unwrap();
    let interfaces = stack.getifaddrs().unwrap();
    for cidr in configured {
        assert!(
            addresses.iter().any(|entry| entry.index == index && entry.address == cidr),
            "{cidr}: {addresses:?}"
        );
        let entry = interfaces
            .iter()
            .find(|entry| entry.addr.as_ip().is_some_and(|addr| addr.ip() == cidr.addr()))
            .unwrap_or_else(|| panic!("{cidr}: {interfaces:?}"));
        assert_eq!((&*entry.name, entry.index), (name, index));
        let ones: u32 = match entry.netmask.as_ref().and_then(SockAddr::as_ip).unwrap().ip() {
            IpAddr::V4(mask) => mask.to_bits().count_ones(),
            IpAddr::V6(mask) => mask.to_bits().count_ones(),
        };
        assert_eq!(ones, u32::from(cidr.prefix_len()));
    }
    // Beside them there are link-local ones only.
    for entry in addresses.iter().filter(|entry| entry.index == index) {
        let link_local = matches!(entry.address.addr(), IpAddr::V6(v6) if v6.is_unicast_link_local());
        assert!(link_local || configured.contains(&entry.address), "{entry:?}");
    }
    let packet =
        interfaces.iter().find(|entry| matches!(&entry.addr, SockAddr::Packet(_)) && entry.index == index);
    let Some(SockAddr::Packet(packet)) = packet.map(|entry| &entry.addr) else { panic!("{interfaces:?}") };
    assert_eq!(packet.addr[..6], MAC.0);

    let routes = route.routes().unwrap();
    for prefix in ROUTES.map(|cidr| cidr.parse::<Cidr>().unwrap()) {
        let found = routes.iter().any(|route| route.dst == prefix && route.gateway.is_none());
        assert!(found, "{prefix}: {routes:?}");
    }
    for gateway in GATEWAYS.map(|ip| ip.parse::<IpAddr>().unwrap()) {
        let found = routes.iter().any(|route| route.dst.prefix_len() == 0 && route.gateway == Some(gateway));
        assert!(found, "{gateway}: {routes:?}");
    }

    // What is taken away is gone; the routes that came with it go, too.
    for word in ["-gw=10.9.0.254", "-gw=fd09::fe", "-ip=10.9.0.7/16", "-ip=fd09:0:0:1::1/80"] {
        stack.config(&format!("iface={name},{word}")).unwrap();
    }
    let left: Vec<Cidr> = route.addresses().unwrap().iter().map(|entry| entry.address).collect();
    let routes = route.routes().unwrap();
    assert!(!left.contains(&configured[1]) && !left.contains(&configured[3]), "{left:?}");
    assert!(left.contains(&configured[0]) && left.contains(&configured[2]), "{left:?}");
    assert!(!routes.iter().any(|route| route.index == index && route.gateway.is_some()), "{routes:?}");
    for prefix in [ROUTES[1], ROUTES[3]] {
        let prefix: Cidr = prefix.parse().unwrap();
        assert!(!routes.iter().any(|route| route.dst == prefix), "{routes:?}");
    }
}

#[test]
fn on_smoltcp() {
    let stack = Stack::new(&format!("stack=smoltcp,vnl=eth7:switch://tables,{CONFIG}")).unwrap();
    agrees(&stack, "eth7");
}

#[test]
fn on_the_kernel() {
    on_lan(|lan| {
        lan.kernel.run(|| {
            // Of the namespace in which each of its sockets is made.
            let stack = Stack::new("stack=kernel").unwrap();
            stack.config("iface=tap0,-static").unwrap();
            stack.config(&format!("iface=tap0,eth,{CONFIG}")).unwrap();
            let said = command("ip", "-o addr show dev tap0", "apt-get install iproute2");
            assert!(ADDRESSES.iter().all(|addr| said.contains(addr)), "{said}");
            agrees(&stack, "tap0");
        });
    });
}
