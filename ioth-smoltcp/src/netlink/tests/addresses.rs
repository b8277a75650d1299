//! Addresses and neighbours.

use super::*;

#[test]
fn addresses() {
    let mut peer = Peer::new();
    let local = libc::IFA_LOCAL;
    let v4 = |text| addr(libc::AF_INET, 24, ETH).ip(local, text);
    let v6 = |text| addr(libc::AF_INET6, 64, ETH).ip(local, text);
    let mut new = |flags, body| peer.errno(libc::RTM_NEWADDR, REQUEST | ACK | flags, body);
    assert_eq!(new(CREATE | EXCL, v4("10.1.0.1").ip(libc::IFA_ADDRESS, "10.1.0.1")), 0);
    assert_eq!(new(CREATE | EXCL, v6("fd00::1").ip(libc::IFA_ADDRESS, "fd00::1")), 0);
    assert_eq!(new(0, v4("10.1.0.1")), libc::EEXIST);
    assert_eq!(new(CREATE | REPLACE, v4("10.1.0.1")), 0);
    assert_eq!(new(CREATE, v6("fd00::1")), libc::EEXIST);
    assert_eq!(new(CREATE | REPLACE, v6("fd00::1")), 0);
    assert_eq!(new(0, v6("fd00::77")), 0);
    for family in [0, 5, libc::AF_PACKET] {
        assert_eq!(new(CREATE, addr(family, 24, ETH).ip(local, "10.1.0.2")), libc::EOPNOTSUPP);
    }
    assert_eq!(new(CREATE, addr(libc::AF_INET, 24, ETH)), libc::EINVAL);
    assert_eq!(new(CREATE, addr(libc::AF_INET, 24, ETH).ip(libc::IFA_ADDRESS, "10.1.0.3")), libc::EINVAL);
    assert_eq!(new(CREATE, addr(libc::AF_INET6, 64, ETH).ip(libc::IFA_ADDRESS, "fd00::3")), 0);
    assert_eq!(new(CREATE, addr(libc::AF_INET6, 64, ETH)), libc::EINVAL);
    assert_eq!(new(CREATE, addr(libc::AF_INET, 33, ETH).ip(local, "10.1.0.3")), libc::EINVAL);
    assert_eq!(new(CREATE, addr(libc::AF_INET6, 129, ETH).ip(local, "fd00::4")), libc::EINVAL);
    assert_eq!(new(CREATE, addr(libc::AF_INET6, 64, ETH).ip(local, "10.0.0.1")), libc::ERANGE);
    assert_eq!(new(CREATE, addr(libc::AF_INET, 24, 99).ip(local, "10.1.0.3")), libc::ENODEV);
    assert_eq!(new(CREATE, v6("ff02::77")), libc::EADDRNOTAVAIL);
    assert_eq!(new(CREATE, v6("::")), libc::EADDRNOTAVAIL);
    assert_eq!(new(CREATE, v6("::1")), libc::EADDRNOTAVAIL);
    let lives = |preferred: u32, valid: u32| [preferred, valid, 0, 0].map(u32::to_ne_bytes).concat();
    assert_eq!(new(CREATE, v4("10.2.0.1").attr(libc::IFA_CACHEINFO, lives(0, 0))), libc::EINVAL);
    assert_eq!(new(CREATE, v4("10.2.0.1").attr(libc::IFA_CACHEINFO, lives(9, 5))), libc::EINVAL);
    assert_eq!(new(CREATE, v4("10.2.0.1").attr(libc::IFA_CACHEINFO, lives(5, 9))), 0);
    let mut del = |body| peer.errno(libc::RTM_DELADDR, REQUEST | ACK, body);
    assert_eq!(del(v4("10.77.0.8")), libc::EADDRNOTAVAIL);
    assert_eq!(del(v6("fd77::8")), libc::EADDRNOTAVAIL);
    assert_eq!(del(addr(libc::AF_INET6, 0, ETH).ip(local, "fd00::1")), libc::EADDRNOTAVAIL);
    assert_eq!(del(addr(libc::AF_INET6, 64, ETH)), libc::EINVAL);
    assert_eq!(del(addr(libc::AF_INET, 24, 99).ip(local, "10.0.0.1")), libc::ENODEV);
    assert_eq!(del(addr(libc::AF_INET6, 64, 99).ip(local, "fd00::1")), libc::ENODEV);
    assert_eq!(
        del(addr(libc::AF_INET, 25, ETH).ip(local, "10.0.0.1")),
        0,
        "the length counts with IFA_ADDRESS only"
    );
    assert_eq!(del(v6("fd00::77")), 0);
    assert_eq!(peer.errno(libc::RTM_GETADDR, REQUEST | ACK, addr(libc::AF_INET, 0, ETH)), libc::EOPNOTSUPP);
    let all = peer.read(libc::RTM_GETADDR, REQUEST | DUMP, addr(0, 0, 0));
    let told: Vec<_> = all
        .iter()
        .filter_map(|message| match inner(message)? {
            RouteNetlinkMessage::NewAddress(address) => {
                address.attributes.iter().find_map(|attr| match attr {
                    AddressAttribute::Address(ip) => {
                        Some(format!("{} {ip}/{}", address.header.index, address.header.prefix_len))
                    }
                    _ => None,
                })
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        told,
        [
            "1 127.0.0.1/8",
            "2 10.1.0.1/24",
            "2 10.2.0.1/24",
            "1 ::1/128",
            "2 fd00::3/64",
            "2 fd00::1/64",
            "2 fe80::ff:fe00:1/64"
        ]
    );
    let v6_only = peer.read(libc::RTM_GETADDR, REQUEST | DUMP, addr(libc::AF_INET6, 0, 0));
    assert_eq!(v6_only.len(), 5);
    peer.session.strict = true;
    let filtered = peer.read(libc::RTM_GETADDR, REQUEST | DUMP, addr(0, 0, 1));
    assert_eq!(filtered.len(), 3);
    assert_eq!(filtered[0].header.flags, 0x22);
}

#[test]
fn neighbours() {
    let mut peer = Peer::new();
    let all = peer.read(libc::RTM_GETNEIGH, REQUEST | DUMP, neigh(0, 0));
    assert_eq!(all.len(), 3);
    let Some(RouteNetlinkMessage::NewNeighbour(first)) = inner(&all[0]) else { panic!("{all:?}") };
    assert!(
        first
            .attributes
            .contains(&NeighbourAttribute::Destination(NeighbourAddress::Inet(Ipv4Addr::new(10, 0, 0, 9))))
    );
    assert_eq!(peer.read(libc::RTM_GETNEIGH, REQUEST | DUMP, neigh(libc::AF_INET6, 0)).len(), 2);
    assert_eq!(peer.read(libc::RTM_GETNEIGH, REQUEST | DUMP, neigh(0, 1)).len(), 1);
    let mut get = |body| peer.errno(libc::RTM_GETNEIGH, REQUEST | ACK, body);
    assert_eq!(get(neigh(0, 0)), libc::EINVAL);
    assert_eq!(get(neigh(libc::AF_INET, ETH).ip(libc::NDA_DST, "10.0.0.8")), libc::ENOENT);
    let new = neigh(libc::AF_INET, ETH).ip(libc::NDA_DST, "10.0.0.9");
    assert_eq!(peer.errno(libc::RTM_NEWNEIGH, ADD, new.clone()), libc::EEXIST);
    assert_eq!(peer.errno(libc::RTM_DELNEIGH, REQUEST, new), libc::EOPNOTSUPP);
}
