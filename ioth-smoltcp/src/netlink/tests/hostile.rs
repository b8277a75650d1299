//! Requests that are damaged, or no requests.

use super::*;

/// Valid requests of every kind, to be damaged.
fn valid() -> impl Strategy<Value = Vec<u8>> {
    let v4 = libc::AF_INET;
    let data = Body(Vec::new()).attr(1, "switch://x\0");
    let info = Body(Vec::new()).attr(1, "vde\0").attr(2, data.0);
    let bodies = vec![
        (libc::RTM_GETLINK, link(0, 0, 0).attr(3, "lo\0")),
        (libc::RTM_NEWLINK, link(2, UP, UP).u32(4, 1400).attr(1, [2, 0, 0, 0, 0, 7]).attr(3, "eth7\0")),
        (libc::RTM_NEWLINK, link(-1, UP, UP).attr(49, []).attr(libc::IFLA_LINKINFO, info.0)),
        (libc::RTM_SETLINK, link(1, 0, UP)),
        (libc::RTM_DELLINK, link(3, 0, 0)),
        (libc::RTM_GETADDR, addr(0, 0, 0)),
        (
            libc::RTM_NEWADDR,
            addr(v4, 24, ETH).ip(2, "10.1.0.1").ip(1, "10.1.0.1").attr(3, "l").attr(6, [9; 16]),
        ),
        (libc::RTM_NEWADDR, addr(libc::AF_INET6, 64, ETH).ip(2, "fd00::1").u32(8, 2)),
        (libc::RTM_DELADDR, addr(v4, 24, ETH).ip(2, "10.0.0.1").ip(1, "10.0.0.1")),
        (
            libc::RTM_NEWROUTE,
            route(v4, 16, 0, 1)
                .ip(1, "10.9.0.0")
                .ip(5, "10.0.0.2")
                .u32(6, 3)
                .attr(8, [8, 0, 2, 0, 0, 5, 0, 0]),
        ),
        (libc::RTM_NEWROUTE, route(libc::AF_INET6, 32, 0, 1).ip(1, "fd01::").u32(4, ETH)),
        (libc::RTM_DELROUTE, route(v4, 24, 255, 0).ip(1, "10.0.0.0")),
        (libc::RTM_GETROUTE, route(v4, 32, 0, 0).ip(1, "10.0.0.7").ip(2, "10.0.0.1").u32(4, ETH)),
        (libc::RTM_GETNEIGH, neigh(v4, ETH).ip(1, "10.0.0.9")),
        (libc::RTM_NEWNEIGH, neigh(v4, ETH).ip(1, "10.0.0.8").attr(2, [2; 6])),
    ];
    let flags = prop_oneof![
        Just(REQUEST | ACK),
        Just(REQUEST | DUMP),
        Just(ADD),
        Just(REQUEST | CREATE | REPLACE),
        any::<u16>()
    ];
    (proptest::sample::select(bodies), flags).prop_map(|((kind, body), flags)| body.message(kind, flags))
}

proptest! {
    /// Nothing that a program can send makes the node fail or answer without bound, and all it says is sound.
    #[test]
    fn hostile_requests(
        requests in proptest::collection::vec((valid(), proptest::collection::vec((0usize..120, any::<u8>()), 0..4), 0usize..8), 1..12),
        noise in proptest::collection::vec(any::<u8>(), 0..200),
        strict: bool,
    ) {
        let mut peer = Peer::new();
        peer.tables.watch(true);
        peer.session.strict = strict;
        peer.session.ext_ack = strict;
        for (mut bytes, damage, cut) in requests {
            for (at, value) in damage {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
            let outcome = peer.ask(&bytes);
            prop_assert!(outcome.replies.len() <= 2 * bytes.len() / 16);
            let mut replies = outcome.replies;
            for _ in 0..100 {
                replies.extend(peer.session.next_part(&peer.tables, &peer.host, 0));
            }
            prop_assert!(!peer.session.is_dumping());
            for mut datagram in replies.iter().chain(outcome.events.iter().map(|event| &event.message)).map(Vec::as_slice) {
                while let Some((_, _, rest)) = wire::split(datagram) {
                    datagram = rest;
                }
                prop_assert!(datagram.is_empty());
            }
        }
        peer.ask(&noise);
    }
}
