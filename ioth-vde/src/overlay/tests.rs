use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::LinkError;

fn at(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], port))
}

#[test]
fn headers() {
    assert_eq!(header(0x12_3456), [8, 0, 0, 0, 0x12, 0x34, 0x56, 0]);
    let own = header(1);
    let read = |kind: Kind, datagram: &[u8]| kind.content(datagram, &own);
    for kind in [Kind::Vxvde, Kind::Vxlan] {
        assert_eq!(read(kind, &own[..7]), Content::Foreign);
        assert_eq!(read(kind, &header(2)), Content::Foreign);
        assert_eq!(read(kind, &[&own[..], &[0; 14]].concat()), Content::Frame);
        let mut other = own;
        other[0] = 0;
        assert_eq!(read(kind, &other), Content::Foreign);
    }
    assert_eq!(read(Kind::Vxvde, &own), Content::Leave);
    assert_eq!(read(Kind::Vxlan, &own), Content::Frame);
    let mut reserved = own;
    reserved[7] = 9;
    assert_eq!(read(Kind::Vxvde, &reserved), Content::Foreign);
    assert_eq!(read(Kind::Vxlan, &reserved), Content::Frame);
}

#[test]
fn which_addresses_are_the_hosts() {
    for (own, other) in [("127.0.0.1", "192.0.2.1"), ("::1", "2001:db8::1")] {
        let (own, other) = (own.parse().unwrap(), other.parse().unwrap());
        let probe = Probe::new(SocketAddr::new(own, 0)).unwrap();
        for _ in 0..2 {
            assert!(probe.is_local(own) && !probe.is_local(other));
        }
        // Of the other family none is.
        assert!(!probe.is_local(if own.is_ipv4() { "::1" } else { "10.0.0.1" }.parse().unwrap()));
    }
}

#[test]
fn the_table_learns_and_forgets() {
    let mut table = Table::new(4, 100);
    let macs = [0x0200_0000_0001, 0x0200_0000_0002];
    table.learn(macs[0], at(1, 7));
    table.learn(macs[1], at(2, 7));
    // Nobody has these.
    table.learn(0x0100_5e00_0001, at(1, 7));
    table.learn(0, at(1, 7));
    assert_eq!((table.find(macs[0]), table.find(macs[1])), (Some(at(1, 7)), Some(at(2, 7))));
    assert_eq!((table.find(0x0100_5e00_0001), table.len()), (None, 2));
    table.learn(macs[0], at(3, 8));
    assert_eq!(table.find(macs[0]), Some(at(3, 8)));
    // Another of that host stays.
    table.forget(at(3, 9));
    table.forget(at(2, 7));
    assert_eq!((table.find(macs[0]), table.find(macs[1])), (Some(at(3, 8)), None));
    table.age(Duration::from_secs(100));
    assert_eq!(table.find(macs[0]), Some(at(3, 8)));
    table.age(Duration::from_secs(2));
    assert_eq!(table.find(macs[0]), None);
}

#[test]
fn the_table_is_bounded() {
    let mut table = Table::new(1000, 128);
    for mac in 0..100_000 {
        table.learn(0x0200_0000_0000 + mac, at(1, 7));
        assert!(table.len() <= 1000);
    }
    // The last one is there: nobody keeps newcomers out.
    assert_eq!(table.find(0x0200_0001_869f), Some(at(1, 7)));
    // What is too old goes first.
    table.age(Duration::from_secs(200));
    table.learn(0x0200_ffff_0000, at(1, 7));
    assert_eq!(table.len(), 1);
}

#[test]
fn vnls() {
    for wrong in [
        "vxvde:///port=0",
        "vxvde:///vni=16777216",
        "vxvde:///vni=no-such-group-here",
        "vxvde:///ttl=256",
        "vxvde:///hashsize=0",
        "vxvde:///bind=::1",
        "vxvde:///v4/v6",
        "vxvde:///nothing=1",
        "vxvde://10.0.0.1",
        "vxlan:///vni=group",
        "vxlan:///grp=1",
        "vxlan:///mtu=9217",
    ] {
        let error = crate::open(wrong).unwrap_err();
        assert_eq!(error.errno(), Errno::EINVAL, "{error}");
    }
    assert_eq!(crate::open("vxvde:///if=no-such-if").unwrap_err().errno(), Errno::ENODEV);
    assert_eq!(crate::open("vxvde://no.such.name.invalid").unwrap_err().errno(), Errno::ENOENT);
    assert!(matches!(crate::open("vxlan://::1/v4"), Err(LinkError::Os { errno: Errno::ENOENT, .. })));
}

proptest! {
    #[test]
    fn any_datagram(datagram in proptest::collection::vec(0..=u8::MAX, 0..40), vxlan: bool, vni in 0..=0xff_ffffu32) {
        if let Some(frame) = read(vxlan, vni, &datagram) {
            prop_assert!(datagram.ends_with(frame) && frame.len() >= HEADER);
        }
        let own = [&header(vni)[..], &[7; 20]].concat();
        prop_assert_eq!(read(vxlan, vni, &own), Some(&[7; 20][..]));
    }
}
