use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ioth_core::{Domain, Errno, MsgFlags, RecvMsg, SockAddr, control};
use ioth_vde::Frame;
use proptest::prelude::*;
use smoltcp::time::Instant;

use super::{Datagram, Inbox, IpArrival, Report, SendControl, TimeStamp};
use crate::engine::sockets::Options;

const EPOCH: Duration = Duration::from_secs(1_000_000);
const ALL: Report = Report {
    pktinfo: true,
    ttl: true,
    tos: true,
    options: true,
    reply_options: true,
    v6_pktinfo: true,
    v6_hop_limit: true,
    v6_traffic_class: true,
    auxdata: true,
};

fn datagram(source: &str, destination: &str, payload: &[u8]) -> Datagram {
    let destination: IpAddr = destination.parse().unwrap();
    Datagram {
        source: SockAddr::Ip(source.parse::<SocketAddr>().unwrap()),
        payload: Frame::copy_of(payload),
        time: Instant::from_micros(2_500_001),
        ip: Some(IpArrival {
            destination,
            local: destination,
            ifindex: 3,
            hop_limit: 7,
            traffic_class: 0x2e,
        }),
        link: None,
        options: None,
    }
}

struct Got {
    len: usize,
    from: SockAddr,
    flags: MsgFlags,
    control: Vec<u8>,
}

fn receive(
    inbox: &mut Inbox,
    domain: Domain,
    options: &Options,
    room: (usize, usize),
    flags: MsgFlags,
) -> Option<Got> {
    let (mut data, mut control) = (vec![0; room.0], vec![0; room.1]);
    let mut slices = [IoSliceMut::new(&mut data)];
    let mut message = RecvMsg { control: &mut control, ..RecvMsg::new(&mut slices) };
    let len = inbox.receive(domain, options, EPOCH, &mut message, flags)?;
    let (from, flags, filled) = (message.addr.unwrap(), message.flags, message.control_len);
    control.truncate(filled);
    Some(Got { len, from, flags, control })
}

fn kinds(control: &[u8]) -> Vec<(i32, i32)> {
    control::messages(control)
        .map(|message| message.map(|message| (message.level, message.kind)).unwrap())
        .collect()
}

#[test]
fn peek_and_truncation() {
    let (mut inbox, options) = (Inbox::default(), Options::default());
    assert!(inbox.push(datagram("10.0.0.1:5", "10.0.0.2", b"0123456789"), &options));
    assert_eq!(inbox.next_len(), 10);
    let peeked =
        receive(&mut inbox, Domain::INET, &options, (4, 0), MsgFlags::PEEK | MsgFlags::TRUNC).unwrap();
    assert_eq!((peeked.len, peeked.flags), (10, MsgFlags::TRUNC));
    let taken = receive(&mut inbox, Domain::INET, &options, (4, 0), MsgFlags::empty()).unwrap();
    assert_eq!((taken.len, taken.flags), (4, MsgFlags::TRUNC));
    assert!(inbox.is_empty() && inbox.bytes_are_right());
    assert!(receive(&mut inbox, Domain::INET, &options, (4, 0), MsgFlags::empty()).is_none());
}

#[test]
fn what_was_asked_for_is_reported() {
    const V4: [(i32, i32); 3] = [
        (libc::IPPROTO_IP, libc::IP_PKTINFO),
        (libc::IPPROTO_IP, libc::IP_TTL),
        (libc::IPPROTO_IP, libc::IP_TOS),
    ];
    const V6: [(i32, i32); 3] = [
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO),
        (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT),
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
    ];
    let options = Options { report: ALL, ..Options::default() };
    for (domain, source, destination, from, expected) in [
        (Domain::INET, "10.0.0.1:5", "10.0.0.2", "10.0.0.1:5", &V4[..]),
        (Domain::INET6, "[fe80::1]:5", "fd00::2", "[fe80::1%3]:5", &V6[..]),
        (Domain::INET6, "10.0.0.1:5", "10.0.0.2", "[::ffff:10.0.0.1]:5", &[V6[0], V4[0], V4[1], V4[2]]),
    ] {
        let mut inbox = Inbox::default();
        assert!(inbox.push(datagram(source, destination, b"x"), &options));
        let got = receive(&mut inbox, domain, &options, (9, 300), MsgFlags::empty()).unwrap();
        assert_eq!(kinds(&got.control), expected);
        assert_eq!(got.from.to_string(), from);
        assert_eq!(got.flags, MsgFlags::empty());
    }
}

#[test]
fn time_stamps_count_from_1970() {
    for (wanted, kind, fraction) in [
        (TimeStamp::Micros(libc::SO_TIMESTAMP), libc::SO_TIMESTAMP, 500_001u64),
        (TimeStamp::Nanos(libc::SO_TIMESTAMPNS), libc::SO_TIMESTAMPNS, 500_001_000),
    ] {
        let options = Options { time_stamp: wanted, ..Options::default() };
        let mut inbox = Inbox::default();
        assert!(inbox.push(datagram("10.0.0.1:5", "10.0.0.2", b"x"), &options));
        let got = receive(&mut inbox, Domain::INET, &options, (9, 300), MsgFlags::PEEK).unwrap();
        let message = control::messages(&got.control).next().unwrap().unwrap();
        assert_eq!((message.level, message.kind), (libc::SOL_SOCKET, kind));
        assert_eq!(message.data[..8], 1_000_002u64.to_ne_bytes());
        assert_eq!(message.data[8..], fraction.to_ne_bytes());
        let cut = receive(&mut inbox, Domain::INET, &options, (9, 0), MsgFlags::empty()).unwrap();
        assert_eq!((cut.flags, cut.control.len()), (MsgFlags::CTRUNC, 0));
    }
}

fn message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
    let mut control = Vec::new();
    control::push(&mut control, level, kind, data);
    control
}

#[test]
fn what_a_sender_may_say() {
    let int = |number: i32| number.to_ne_bytes().to_vec();
    let v4 =
        |kind, data: Vec<u8>| SendControl::parse_v4(&message(libc::IPPROTO_IP, kind, &data), Domain::INET);
    let v6 = |kind, data: Vec<u8>| SendControl::parse_v6(&message(libc::IPPROTO_IPV6, kind, &data));
    let ttl = |hop_limit| Ok(SendControl { hop_limit, ..SendControl::default() });
    assert_eq!(v4(libc::IP_TTL, int(1)), ttl(Some(1)));
    assert_eq!(v4(libc::IP_TTL, int(0)), Err(Errno::EINVAL));
    assert_eq!(v4(libc::IP_TTL, vec![1]), Err(Errno::EINVAL));
    assert_eq!(v6(libc::IPV6_HOPLIMIT, int(0)), ttl(Some(0)));
    assert_eq!(v6(libc::IPV6_HOPLIMIT, int(-1)), ttl(None));
    assert_eq!(v6(libc::IPV6_HOPLIMIT, int(-2)), Err(Errno::EINVAL));
    let class = |class| Ok(SendControl { traffic_class: Some(class), ..SendControl::default() });
    assert_eq!(v4(libc::IP_TOS, vec![4]), class(4));
    assert_eq!(v4(libc::IP_TOS, int(255)), class(255));
    assert_eq!(v4(libc::IP_TOS, int(-1)), Err(Errno::EINVAL));
    assert_eq!(v6(libc::IPV6_TCLASS, int(256)), Err(Errno::EINVAL));
    assert_eq!(v6(libc::IPV6_DONTFRAG, int(2)), Err(Errno::EINVAL));
    assert_eq!(v4(libc::IP_MTU, int(2)), Err(Errno::EINVAL));
    // Other levels are for others, except those of every socket.
    assert_eq!(SendControl::parse_v4(&message(99, 1, &[]), Domain::INET), Ok(SendControl::default()));
    assert_eq!(SendControl::parse_v6(&message(libc::SOL_SOCKET, 99, &[])), Err(Errno::EINVAL));
    // A dual-stack socket names an IPv4 source by its mapped address, and no other.
    let pktinfo = |addr: &str| {
        let addr: std::net::Ipv6Addr = addr.parse().unwrap();
        message(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &[&addr.octets()[..], &4u32.to_ne_bytes()].concat())
    };
    let parsed = SendControl::parse_v4(&pktinfo("::ffff:10.0.0.1"), Domain::INET6).unwrap();
    assert_eq!((parsed.source, parsed.ifindex), (Some("10.0.0.1".parse().unwrap()), Some(4)));
    assert_eq!(SendControl::parse_v4(&pktinfo("fd00::1"), Domain::INET6), Err(Errno::EINVAL));
    assert_eq!(SendControl::parse_v4(&pktinfo("fd00::1"), Domain::INET), Ok(SendControl::default()));
}

proptest! {
    #[test]
    fn any_control_does_no_harm(level in prop_oneof![Just(0), Just(41), Just(1)], kind in 0i32..70, data in proptest::collection::vec(any::<u8>(), 0..30)) {
        let control = message(level, kind, &data);
        let _ = SendControl::parse_v4(&control, Domain::INET6);
        let _ = SendControl::parse_v6(&control);
    }

    #[test]
    fn bytes_that_wait_are_counted(sizes in proptest::collection::vec(0usize..2000, 1..50), limit in 2304usize..10_000) {
        let options = Options { receive_buffer: Some(limit), ..Options::default() };
        let mut inbox = Inbox::default();
        let mut waiting = 0;
        for size in sizes {
            waiting += usize::from(inbox.push(datagram("10.0.0.1:5", "10.0.0.2", &vec![1; size]), &options));
            prop_assert!(inbox.bytes_are_right());
        }
        for _ in 0..waiting {
            prop_assert!(inbox.pop().is_some());
        }
        prop_assert!(inbox.is_empty() && inbox.bytes_are_right());
    }
}

impl Inbox {
    fn bytes_are_right(&self) -> bool {
        let (bytes, counted) = self.account();
        bytes == counted
    }
}
