//! RTM_GETLINK, RTM_NEWLINK, RTM_SETLINK, RTM_DELLINK.

use super::*;

#[test]
fn link_by_index_and_name() {
    let mut peer = Peer::new();
    for body in
        [link(2, 0, 0), link(0, 0, 0).attr(libc::IFLA_IFNAME, "vde0"), link(0, 0, 0).attr(3, "vde0\0")]
    {
        let answer = peer.read(libc::RTM_GETLINK, REQUEST | ACK, body);
        assert!(matches!(&answer[1].payload, NetlinkPayload::Error(error) if error.code.is_none()));
        let Some(RouteNetlinkMessage::NewLink(link)) = inner(&answer[0]) else { panic!("{answer:?}") };
        assert_eq!((link.header.index, link.header.link_layer_type), (2, LinkLayerType::Ether));
        assert!(link.header.flags.contains(
            LinkFlags::Up
                | LinkFlags::Running
                | LinkFlags::LowerUp
                | LinkFlags::Multicast
                | LinkFlags::Broadcast
        ));
        for wanted in [
            LinkAttribute::IfName("vde0".into()),
            LinkAttribute::Mtu(1500),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]),
            LinkAttribute::Broadcast(vec![0xff; 6]),
            LinkAttribute::Qdisc("noqueue".into()),
            LinkAttribute::OperState(netlink_packet_route::link::State::Up),
        ] {
            assert!(link.attributes.contains(&wanted), "{wanted:?} in {:?}", link.attributes);
        }
        let stats = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Stats64(stats) => Some(stats.rx_packets),
            _ => None,
        });
        assert_eq!(stats, Some(2 + (1 << 40)));
    }
    let all = peer.read(libc::RTM_GETLINK, REQUEST | DUMP, link(0, 0, 0));
    let Some(RouteNetlinkMessage::NewLink(lo)) = inner(&all[0]) else { panic!("{all:?}") };
    assert_eq!((lo.header.index, lo.header.link_layer_type), (1, LinkLayerType::Loopback));
    assert!(matches!(all[2].payload, NetlinkPayload::Done(_)) && all.len() == 3);
    assert_eq!(all[0].header.flags, libc::NLM_F_MULTI as u16);
}

/// What Linux 6.18 answers to the same bytes.
#[test]
fn link_errors() {
    let mut peer = Peer::new();
    let mut get = |body| peer.errno(libc::RTM_GETLINK, REQUEST | ACK, body);
    assert_eq!(get(link(0, 0, 0)), libc::EINVAL);
    assert_eq!(get(link(99, 0, 0)), libc::ENODEV);
    assert_eq!(get(link(-1, 0, 0)), libc::EINVAL);
    assert_eq!(get(link(0, 0, 0).attr(3, "nx\0")), libc::ENODEV);
    assert_eq!(get(link(0, 0, 0).attr(3, "xxxxxxxxxxxxxxxxxxxx\0")), libc::ERANGE);
    assert_eq!(get(Body(vec![0, 0])), libc::EINVAL);
    let mut new = |flags, body| peer.errno(libc::RTM_NEWLINK, REQUEST | ACK | flags, body);
    assert_eq!(new(0, link(0, 0, 0)), libc::ENODEV);
    assert_eq!(new(0, link(0, 0, 0).attr(3, "nx\0")), libc::ENODEV);
    assert_eq!(new(CREATE | EXCL, link(0, 0, 0).attr(3, "nx\0")), libc::EOPNOTSUPP);
    assert_eq!(new(CREATE | EXCL, link(2, 0, 0)), libc::EEXIST);
    assert_eq!(new(0, link(2, 0, 0).attr(4, [0])), libc::ERANGE);
    assert_eq!(new(0, link(2, 0, 0).attr(4, [0; 8])), libc::EINVAL);
    assert_eq!(new(0, link(2, 0, 0).u32(4, 67)), libc::EINVAL);
    assert_eq!(new(0, link(2, 0, 0).attr(1, [2, 0, 0, 0])), libc::EINVAL);
    assert_eq!(new(0, link(2, 0, 0).attr(1, [1, 0, 0, 0, 0, 1])), libc::EADDRNOTAVAIL);
    assert_eq!(new(0, link(2, 0, 0).attr(1, [2, 0, 0, 0, 0, 1, 0, 0])), 0);
    assert_eq!(new(0, link(2, 0, 0).attr(3, "a/b\0")), libc::EINVAL);
    assert_eq!(new(0, link(2, 0, 0).attr(3, "lo\0")), libc::EEXIST);
    assert_eq!(new(0, link(2, 0, 0).attr(3, "\0")), 0);
    assert_eq!(peer.errno(libc::RTM_SETLINK, REQUEST, link(99, UP, UP)), libc::ENODEV);
    assert_eq!(peer.errno(libc::RTM_SETLINK, REQUEST, link(0, UP, UP)), libc::EINVAL);
    assert_eq!(peer.errno(libc::RTM_DELLINK, REQUEST, link(1, 0, 0)), libc::EOPNOTSUPP);
    assert_eq!(peer.errno(libc::RTM_DELLINK, REQUEST, link(99, 0, 0)), libc::ENODEV);
    assert_eq!(peer.errno(libc::RTM_DELLINK, REQUEST, link(0, 0, 0)), libc::EINVAL);
}

#[test]
fn links_are_changed_made_and_removed() {
    let mut peer = Peer::new();
    assert_eq!(peer.errno(libc::RTM_SETLINK, REQUEST | ACK, link(2, 0, UP)), 0);
    assert!(!peer.tables.iface(2).unwrap().is_up());
    let body = link(2, UP, UP).attr(1, [2, 0, 0, 0, 0, 7]).u32(4, 1400).attr(3, "eth7\0");
    assert_eq!(peer.errno(libc::RTM_NEWLINK, REQUEST | ACK, body), 0);
    let iface = peer.tables.iface(2).unwrap();
    assert_eq!((iface.name(), iface.mtu(), iface.mac().0[5], iface.is_up()), ("eth7", 1400, 7, true));
    assert!(peer.host.changed.contains(&2));
    assert!(peer.tables.is_local(ip("fe80::ff:fe00:7"), Some(2)).is_some());
    // Upstream's iplink_add: any index, and the new one in the answer.
    let data = Body(Vec::new()).attr(1, "switch://x\0");
    let info = Body(Vec::new()).attr(1, "vde\0").attr(2, data.0);
    let body = link(-1, 0, 0).attr(49, []).attr(libc::IFLA_LINKINFO, info.0);
    let answer = peer.read(libc::RTM_NEWLINK, ADD, body);
    let Some(RouteNetlinkMessage::NewLink(new)) = inner(&answer[0]) else { panic!("{answer:?}") };
    assert_eq!(new.header.index, 3);
    assert_eq!(peer.errno(libc::RTM_DELLINK, REQUEST | ACK, link(3, 0, 0)), 0);
    assert!(peer.tables.iface(3).is_none());
}
