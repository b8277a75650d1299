//! The dialogue: framing, acknowledgements, dumps in parts, and what listeners are told.

use super::*;

#[test]
fn framing_as_linux() {
    let mut peer = Peer::new();
    let one = link(1, 0, 0);
    // Not a request, or a control message: acknowledged without a look.
    assert_eq!(peer.errno(libc::RTM_GETLINK, ACK, one.clone()), 0);
    assert_eq!(peer.errno(15, REQUEST | ACK, one.clone()), 0);
    assert_eq!(peer.ask(&one.message(libc::RTM_GETLINK, 0)), Outcome::default());
    assert_eq!(peer.errno(1000, REQUEST | ACK, one.clone()), libc::EOPNOTSUPP);
    assert_eq!(peer.errno(libc::RTM_GETRULE, REQUEST | DUMP, one.clone()), libc::EOPNOTSUPP);
    // Nothing but a header is no request either.
    assert_eq!(peer.ask(&Body(vec![]).message(libc::RTM_GETLINK, REQUEST | DUMP)), Outcome::default());
    // Lengths that lie end the buffer without an answer.
    for len in [0u32, 8, 15, 400, u32::MAX] {
        let mut bytes = one.message(libc::RTM_GETLINK, REQUEST | ACK);
        bytes[..4].copy_from_slice(&len.to_ne_bytes());
        assert_eq!(peer.ask(&bytes), Outcome::default());
    }
    assert_eq!(peer.ask(b"abcdef"), Outcome::default());
    // Attributes that lie are not there.
    for lie in [2u16, 40] {
        let mut body = one.clone().attr(3, "xxxx");
        body.0[16..18].copy_from_slice(&lie.to_ne_bytes());
        assert_eq!(peer.ask(&body.message(libc::RTM_GETLINK, REQUEST | ACK)).replies.len(), 2);
    }
    // Several requests in a buffer.
    let mut two = one.message(libc::RTM_GETLINK, REQUEST | ACK);
    two.extend(link(99, 0, 0).message(libc::RTM_GETLINK, REQUEST | ACK));
    let replies = peer.ask(&two).replies;
    assert_eq!((replies.len(), errno_of(&replies[1]), errno_of(&replies[2])), (3, 0, libc::ENODEV));
}

#[test]
fn acknowledgements_as_linux() {
    let mut peer = Peer::new();
    let wrong =
        route(libc::AF_INET, 16, 0, 1).ip(libc::RTA_DST, "10.66.0.0").ip(libc::RTA_GATEWAY, "99.0.0.2");
    let request = wrong.message(libc::RTM_NEWROUTE, REQUEST | ACK | CREATE);
    let mut reply = |cap, ext, bytes: &[u8]| {
        peer.session.cap_ack = cap;
        peer.session.ext_ack = ext;
        peer.ask(bytes).replies.remove(0)
    };
    let flags = |reply: &[u8]| wire::u16_at(reply, 6).unwrap();
    let plain = reply(false, false, &request);
    assert_eq!((plain.len(), flags(&plain)), (20 + request.len(), 0));
    assert_eq!(plain[20..], request[..]);
    let capped = reply(true, true, &request);
    assert_eq!((capped.len(), flags(&capped)), (68, 0x300));
    assert_eq!(capped[36..], b"\x20\0\x01\0Nexthop has invalid gateway\0"[..]);
    assert_eq!(capped.len(), wire::u32_at(&capped, 0).unwrap() as usize);
    let request = link(2, UP, UP).message(libc::RTM_SETLINK, REQUEST | ACK);
    let ack = reply(false, false, &request);
    assert_eq!((ack.len(), flags(&ack)), (36, 0x100));
}

#[test]
fn a_long_dump_comes_in_parts() {
    let mut peer = Peer::new();
    for n in 0..10_000u32 {
        let dst = Cidr::new(Ipv4Addr::from(0x2000_0000 + (n << 8)), 24).unwrap();
        peer.tables.add_route(Route { metric: n % 3, ..Route::via(dst, ip("10.0.0.2")) }).unwrap();
    }
    let request = route(libc::AF_INET, 0, 0, 0).message(libc::RTM_GETROUTE, REQUEST | DUMP);
    let mut replies = peer.ask(&request).replies;
    assert_eq!(replies.len(), 1);
    assert!(peer.session.is_dumping());
    assert_eq!(errno_of(&peer.ask(&request).replies[0]), libc::EBUSY);
    while let Some(part) = peer.session.next_part(&peer.tables, &peer.host, 1 << 20) {
        replies.push(part);
    }
    assert!(!peer.session.is_dumping());
    assert!(replies.iter().all(|part| part.len() <= 32768 && !part.is_empty()));
    let all: Vec<_> = replies.iter().flat_map(|part| messages(part)).collect();
    assert_eq!(all.len(), 10_002);
    assert!(matches!(all[10_001].payload, NetlinkPayload::Done(_)));
    // A change in between is told.
    peer.ask(&request);
    peer.tables.set_mtu(ETH, 1400).unwrap();
    let part = peer.session.next_part(&peer.tables, &peer.host, 0).unwrap();
    assert_eq!(wire::u16_at(&part, 6), Some(0x12));
}

#[test]
fn many_routes_to_one_prefix_come_in_parts() {
    let mut peer = Peer::new();
    for metric in 0..500 {
        peer.tables
            .add_route(Route { metric, ..Route::via("0.0.0.0/0".parse().unwrap(), ip("10.0.0.2")) })
            .unwrap();
    }
    let all = peer.read(libc::RTM_GETROUTE, REQUEST | DUMP, route(libc::AF_INET, 0, 0, 0));
    assert_eq!(all.len(), 502);
}

#[test]
fn listeners_are_told() {
    let mut peer = Peer::new();
    let body = addr(libc::AF_INET, 24, ETH).ip(libc::IFA_LOCAL, "10.1.0.1");
    assert!(peer.ask(&body.message(libc::RTM_NEWADDR, ADD)).events.is_empty(), "nobody listens");
    peer.tables.watch(true);
    let outcome = peer.ask(&body.message(libc::RTM_DELADDR, REQUEST | ACK));
    let groups: Vec<_> = outcome.events.iter().map(|event| event.group).collect();
    assert_eq!(groups, [libc::RTNLGRP_IPV4_ROUTE, libc::RTNLGRP_IPV4_IFADDR]);
    let [message] = &messages(&outcome.events[1].message)[..] else { panic!() };
    assert!(matches!(inner(message), Some(RouteNetlinkMessage::DelAddress(_))));
    assert_eq!((message.header.sequence_number, message.header.port_number), (7, 4711));
    peer.tables.set_carrier(ETH, false).unwrap();
    let (told, overrun) = events(&mut peer.tables, &peer.host, 0, 0);
    assert_eq!((told.len(), told[0].group, overrun), (1, libc::RTNLGRP_LINK, false));
}
