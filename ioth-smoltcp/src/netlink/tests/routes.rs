//! Routes.

use super::*;

#[test]
fn routes() {
    let mut peer = Peer::new();
    let (v4, v6) = (libc::AF_INET, libc::AF_INET6);
    let (dst, gateway, oif) = (libc::RTA_DST, libc::RTA_GATEWAY, libc::RTA_OIF);
    let mut new = |flags, body| peer.errno(libc::RTM_NEWROUTE, REQUEST | ACK | flags, body);
    assert_eq!(
        new(CREATE | EXCL, route(v4, 16, 0, 1).ip(dst, "10.9.0.0").ip(gateway, "10.0.0.2").attr(0, [0; 4])),
        0
    );
    assert_eq!(
        new(CREATE | EXCL, route(v4, 16, 0, 1).ip(dst, "10.9.0.0").ip(gateway, "10.0.0.3")),
        libc::EEXIST
    );
    assert_eq!(new(CREATE | EXCL, route(v4, 0, 0, 1).ip(gateway, "10.0.0.254")), 0);
    assert_eq!(new(CREATE, route(v4, 33, 0, 1).ip(dst, "10.9.0.0").u32(oif, ETH)), libc::EINVAL);
    assert_eq!(new(CREATE, route(v4, 0, 0, 1).ip(dst, "10.9.0.0").u32(oif, ETH)), libc::EINVAL);
    assert_eq!(new(0, route(v4, 16, 0, 1).ip(dst, "10.7.0.0").ip(gateway, "10.0.0.2")), libc::ENOENT);
    assert_eq!(new(0, route(v6, 16, 0, 1).ip(dst, "fd76::").u32(oif, ETH)), 0);
    assert_eq!(
        new(CREATE, route(v4, 16, 253, 1).ip(dst, "10.6.0.0").ip(gateway, "10.0.0.2")),
        libc::ENETUNREACH
    );
    assert_eq!(new(CREATE, route(v4, 16, 0, 1).ip(dst, "10.6.0.0").u32(oif, ETH)), 0);
    for kind in [0, 2, 50] {
        assert_eq!(new(CREATE, route(v4, 16, 0, kind).ip(dst, "10.5.0.0").u32(oif, ETH)), libc::EINVAL);
    }
    for family in [0, 99] {
        assert_eq!(new(CREATE, route(family, 16, 0, 1).ip(dst, "10.5.0.0").u32(oif, ETH)), libc::EOPNOTSUPP);
    }
    assert_eq!(new(CREATE, route(v6, 16, 0, 1).attr(dst, [0xfd, 1, 0, 0]).u32(oif, ETH)), 0);
    assert_eq!(new(CREATE, route(v4, 16, 0, 7).ip(dst, "10.3.0.0").u32(oif, ETH)), libc::EINVAL);
    assert_eq!(new(CREATE, route(v4, 16, 0, 7).ip(dst, "10.3.0.0")), 0);
    assert_eq!(new(CREATE, route(v6, 64, 0, 1).ip(dst, "fd0b::").ip(gateway, "fd77::3")), libc::EHOSTUNREACH);
    let mut del = |body| peer.errno(libc::RTM_DELROUTE, REQUEST | ACK, body);
    assert_eq!(del(route(v4, 16, 0, 1).ip(dst, "10.99.0.0")), libc::ESRCH);
    assert_eq!(del(route(v6, 16, 0, 1).ip(dst, "fd99::")), libc::ESRCH);
    assert_eq!(del(route(v4, 24, 0, 0).ip(dst, "10.0.0.0")), libc::ESRCH, "its scope is link");
    assert_eq!(del(route(v4, 16, 255, 0).ip(dst, "10.9.0.0")), 0);
    let mut get =
        |family, to, len| peer.errno(libc::RTM_GETROUTE, REQUEST, route(family, len, 0, 0).ip(dst, to));
    assert_eq!(get(v4, "10.3.0.1", 32), libc::EHOSTUNREACH);
    assert_eq!(get(v6, "fd99::9", 128), libc::ENETUNREACH);
    assert_eq!(get(0, "10.0.0.1", 32), libc::EOPNOTSUPP);
    let way = peer.read(libc::RTM_GETROUTE, REQUEST, route(v4, 32, 0, 0).ip(dst, "99.0.0.9"));
    let Some(RouteNetlinkMessage::NewRoute(way)) = inner(&way[0]) else { panic!("{way:?}") };
    for wanted in [
        RouteAttribute::Gateway(RouteAddress::Inet(Ipv4Addr::new(10, 0, 0, 254))),
        RouteAttribute::PrefSource(RouteAddress::Inet(Ipv4Addr::new(10, 0, 0, 1))),
        RouteAttribute::Oif(ETH),
    ] {
        assert!(way.attributes.contains(&wanted), "{wanted:?} in {:?}", way.attributes);
    }
    let all = peer.read(libc::RTM_GETROUTE, REQUEST | DUMP, route(0, 0, 0, 0));
    let told: Vec<_> = all
        .iter()
        .filter_map(|message| match inner(message)? {
            RouteNetlinkMessage::NewRoute(route) => {
                let dst = route.attributes.iter().find_map(|attribute| match attribute {
                    RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(ip.to_string()),
                    RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(ip.to_string()),
                    _ => None,
                });
                Some(format!(
                    "{}/{}",
                    dst.unwrap_or("default".into()),
                    route.header.destination_prefix_length
                ))
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        told,
        [
            "default/0",
            "10.0.0.0/24",
            "10.3.0.0/16",
            "10.6.0.0/16",
            "::1/128",
            "fd01::/16",
            "fd76::/16",
            "fe80::/64"
        ]
    );
}
