//! Options of IPv4's header (ip(7): IP_OPTIONS, IP_RECVOPTS, IP_RETOPTS): over a wire, and for IPv6 sockets by mapped addresses
//! over the loopback interface.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ioth::berkeley::*;
use ioth::core::control;
use ioth::{MsgFlags, RecvMsg, SendMsg, Stack};

use crate::fixture::*;

const LEVEL: i32 = libc::IPPROTO_IP;
const OPTIONS: i32 = libc::IP_OPTIONS;

/// The nodes of the two ends, and the address of each.
fn ends(pair: &Pair) -> [(&Stack, IpAddr); 2] {
    let mapped = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
    match pair.a_addr.is_ipv4() {
        true => [(&pair.a, pair.a_addr), (&pair.b, pair.b_addr)],
        false => [(&pair.b, mapped), (&pair.b, mapped)],
    }
}

fn octets(addr: IpAddr) -> [u8; 4] {
    match addr.to_canonical() {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(_) => panic!("an IPv4 address"),
    }
}

/// A UDP socket at each end, of which the second tells of options.
fn datagrams(pair: &Pair) -> [(Fd, SocketAddr); 2] {
    let [a, b] = ends(pair).map(|(stack, addr)| bind_any(&pair.socket(stack, libc::SOCK_DGRAM), addr));
    set_option(&b.0, LEVEL, libc::IP_RECVOPTS, 1).unwrap();
    set_option(&b.0, LEVEL, libc::IP_RETOPTS, 1).unwrap();
    [a, b]
}

fn told(fd: &Fd) -> Vec<u8> {
    let mut value = [0xee; 64];
    let len = getsockopt(fd.0, LEVEL, OPTIONS, &mut value).unwrap();
    value[..len].to_vec()
}

/// The options that came with the next datagram, and those that would go back.
fn received(fd: &Fd, room: usize) -> (Vec<(i32, Vec<u8>)>, MsgFlags) {
    let (mut data, mut control) = ([0; 100], vec![0; room]);
    let mut slices = [IoSliceMut::new(&mut data)];
    let mut message = RecvMsg { control: &mut control, ..RecvMsg::new(&mut slices) };
    recvmsg(fd.0, &mut message, NONE).unwrap();
    let (filled, flags) = (message.control_len, message.flags);
    let messages = control::messages(&control[..filled]).map(Result::unwrap);
    (messages.map(|message| (message.kind, message.data.to_vec())).collect(), flags)
}

fn both(arrived: &[u8], back: &[u8]) -> Vec<(i32, Vec<u8>)> {
    vec![(libc::IP_RECVOPTS, arrived.to_vec()), (libc::IP_RETOPTS, back.to_vec())]
}

pub(crate) fn set_and_told(pair: &Pair) {
    let fine: [(&[u8], &[u8]); 14] = [
        (&[1, 0, 0, 0], &[1, 0, 0, 0]),
        (&[1], &[1, 0, 0, 0]),
        (&[], &[]),
        (&[1; 40], &[1; 40]),
        (&[0, 1, 7, 9], &[0; 4]),
        (&[7, 3, 4], &[7, 3, 4, 0]),
        (&[7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0], &[7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (&[7, 7, 8, 1, 2, 3, 4], &[7, 7, 8, 1, 2, 3, 4, 0]),
        (&[68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (&[68, 12, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0], &[68, 12, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
        (&[68, 12, 5, 3, 9, 9, 9, 9, 0, 0, 0, 0], &[68, 12, 5, 3, 9, 9, 9, 9, 0, 0, 0, 0]),
        (&[131, 7, 4, 10, 7, 7, 7], &[131, 7, 4, 10, 7, 7, 7, 0]),
        (&[137, 11, 4, 10, 7, 7, 7, 10, 8, 8, 8], &[137, 11, 4, 10, 7, 7, 7, 10, 8, 8, 8, 0]),
        (&[148, 4, 0, 0], &[148, 4, 0, 0]),
    ];
    let refused: [&[u8]; 13] = [
        &[1; 41],
        &[7],
        &[7, 1, 1],
        &[7, 2],
        &[7, 7, 5, 0, 0, 0, 0],
        &[7, 7, 4, 0, 0, 0, 0, 7, 7, 4, 0, 0, 0, 0],
        &[68, 4, 5, 0xf0],
        &[68, 8, 5, 1, 0, 0, 0, 0],
        &[131, 3, 4],
        &[131, 7, 8, 10, 7, 7, 7],
        &[131, 7, 4, 10, 7, 7, 7, 137, 7, 4, 10, 7, 7, 7],
        &[134, 8, 0, 0, 0, 1, 1, 2],
        &[148, 2],
    ];
    for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
        let fd = pair.socket(&pair.a, kind);
        assert_eq!(told(&fd), []);
        for (set, says) in fine {
            setsockopt(fd.0, LEVEL, OPTIONS, set).unwrap();
            assert_eq!(told(&fd), says, "{set:?}");
        }
        for set in refused {
            assert_eq!(errno(setsockopt(fd.0, LEVEL, OPTIONS, set)), libc::EINVAL, "{set:?}");
        }
        assert_eq!(told(&fd), [148, 4, 0, 0], "what is refused changes nothing");
        let mut short = [0; 2];
        assert_eq!(getsockopt(fd.0, LEVEL, OPTIONS, &mut short).unwrap(), 2);
        setsockopt(fd.0, LEVEL, OPTIONS, &[]).unwrap();
        assert_eq!(told(&fd), []);
    }
}

pub(crate) fn with_datagrams(pair: &Pair) {
    let [(a, a_addr), (b, b_addr)] = datagrams(pair);
    let send = |options: &[u8]| {
        setsockopt(a.0, LEVEL, OPTIONS, options).unwrap();
        sendto(a.0, b"x", NONE, b_addr).unwrap();
        received(&b, 200)
    };
    let [own, peer] = [a_addr, b_addr].map(|addr| octets(addr.ip()));
    assert_eq!(send(&[]), (vec![], NONE));
    assert_eq!(send(&[1]).0, both(&[1, 0, 0, 0], &[]));
    assert_eq!(send(&[148, 4, 0, 0]).0, both(&[148, 4, 0, 0], &[]));
    let recorded = [&[7, 11, 12][..], &own, &peer, &[0]].concat();
    assert_eq!(send(&[7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0]).0, both(&recorded, &recorded));
    let recorded = [&[7, 7, 8][..], &own, &[0]].concat();
    assert_eq!(send(&[7, 7, 4, 0, 0, 0, 0]).0, both(&recorded, &recorded));
    // Times of day are what they are.
    let timeless = |options: &[u8], at: &[usize]| {
        let (mut got, _) = send(options);
        for (_, value) in &mut got {
            for &at in at {
                value[at..at + 4].fill(0);
            }
        }
        got
    };
    let stamps = [68, 12, 13, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(timeless(&[68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[4, 8]), both(&stamps, &stamps));
    let stamps = [&[68, 12, 13, 0x11][..], &own, &[0; 4]].concat();
    assert_eq!(timeless(&[68, 12, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0], &[8]), both(&stamps, &stamps));
    let asked = [&[68, 12, 5, 3][..], &[203, 0, 113, 1], &[0; 4]].concat();
    assert_eq!(send(&asked).0, both(&asked, &asked), "somebody else's time");
    // What has no room is cut, as everywhere.
    let (_, flags) = {
        sendto(a.0, b"x", NONE, b_addr).unwrap();
        received(&b, 20)
    };
    assert!(flags.contains(MsgFlags::CTRUNC));
    // Long ones go in pieces, each with what every piece has to have.
    setsockopt(a.0, LEVEL, OPTIONS, &[148, 4, 0, 0]).unwrap();
    sendto(a.0, &[7; 9000], NONE, b_addr).unwrap();
    let mut long = vec![0; 9001];
    assert_eq!(read(b.0, &mut long).unwrap(), 9000);
    assert_eq!(sendto(a.0, &vec![0; 65_507], NONE, b_addr).unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
    sendto(a.0, &vec![0; 65_503], NONE, b_addr).unwrap();
}

pub(crate) fn said_for_one_datagram(pair: &Pair) {
    let [(a, a_addr), (b, b_addr)] = datagrams(pair);
    let [own, peer] = [a_addr, b_addr].map(|addr| octets(addr.ip()));
    let send = |options: &[u8]| {
        let mut control = Vec::new();
        control::push(&mut control, LEVEL, libc::IP_RETOPTS, options);
        let to = b_addr.into();
        sendmsg(a.0, &SendMsg { data: &[IoSlice::new(b"x")], addr: Some(&to), control: &control }, NONE)
    };
    setsockopt(a.0, LEVEL, OPTIONS, &[1, 1, 1, 1]).unwrap();
    send(&[7, 7, 4, 0, 0, 0, 0]).unwrap();
    let recorded = [&[7, 7, 8][..], &own, &[0]].concat();
    assert_eq!(received(&b, 200).0, both(&recorded, &recorded));
    send(&[]).unwrap();
    assert_eq!(received(&b, 200).0, []);
    assert_eq!(errno(send(&[7, 1, 1])), libc::EINVAL);
    sendto(a.0, b"x", NONE, b_addr).unwrap();
    assert_eq!(received(&b, 200).0, both(&[1; 4], &[]), "the socket's are what they were");
    // There and back again: what came is what the answer carries on.
    setsockopt(a.0, LEVEL, OPTIONS, &[&[7, 39, 4][..], &[0; 36]].concat()).unwrap();
    sendto(a.0, b"x", NONE, b_addr).unwrap();
    let (came, _) = received(&b, 200);
    for name in [libc::IP_RECVOPTS, libc::IP_RETOPTS] {
        set_option(&a, LEVEL, name, 1).unwrap();
    }
    let mut control = Vec::new();
    control::push(&mut control, LEVEL, libc::IP_RETOPTS, &came[1].1);
    let to = a_addr.into();
    sendmsg(b.0, &SendMsg { data: &[IoSlice::new(b"y")], addr: Some(&to), control: &control }, NONE).unwrap();
    let all = [&[7, 39, 20][..], &own, &peer, &peer, &own, &[0; 21]].concat();
    assert_eq!(received(&a, 200).0, both(&all, &all));
}

pub(crate) fn with_streams(pair: &Pair) {
    let [(a_stack, _), (b_stack, b_addr)] = ends(pair);
    let (listener, addr) = bind_any(&pair.socket(b_stack, libc::SOCK_STREAM), b_addr);
    setsockopt(listener.0, LEVEL, OPTIONS, &[1, 1, 1, 1]).unwrap();
    listen(listener.0, 4).unwrap();
    let client = pair.socket(a_stack, libc::SOCK_STREAM);
    let route = [&[7, 39, 4][..], &[0; 36]].concat();
    setsockopt(client.0, LEVEL, OPTIONS, &route).unwrap();
    connect(client.0, addr).unwrap();
    let (server, from) = accept(listener.0).unwrap();
    let server = Fd(server);
    let own = octets(from.as_ip().unwrap().ip());
    // What the SYN brought, on its way back; and nothing of the listener's.
    assert_eq!(told(&server), [&[7, 39, 12][..], &own, &octets(addr.ip()), &[0; 29]].concat());
    assert_eq!(told(&client), [&route[..], &[0]].concat());
    let data: Vec<u8> = (0..200_000).map(|i| (i / 13) as u8).collect();
    for (from, to) in [(&client, &server), (&server, &client)] {
        std::thread::scope(|scope| {
            scope.spawn(|| send_all(from, &data));
            assert!(read_some(to, data.len()) == data);
        });
    }
    // Segments are shorter by what the options take.
    let size = |fd: &Fd| option(fd, libc::IPPROTO_TCP, libc::TCP_MAXSEG).unwrap();
    let with = size(&client);
    // Linux: and not longer than half of the largest window that the peer has told, which it may have begun with here.
    let is_longer_by =
        |more| [with + more, if pair.native { with } else { with + more }].contains(&size(&client));
    setsockopt(client.0, LEVEL, OPTIONS, &[]).unwrap();
    assert!(is_longer_by(40), "{with}, {}", size(&client));
    setsockopt(client.0, LEVEL, OPTIONS, &[1; 8]).unwrap();
    assert!(is_longer_by(32), "{with}, {}", size(&client));
    send_all(&client, &data);
    assert!(read_some(&server, data.len()) == data);
    // Without options in the SYN there are none.
    let plain = pair.socket(a_stack, libc::SOCK_STREAM);
    connect(plain.0, addr).unwrap();
    assert_eq!(told(&Fd(accept(listener.0).unwrap().0)), []);
}

/// A packet to a group of routers: `device` sees what leaves.
pub(crate) fn source_routes(pair: &Pair) {
    let [(a, _), (b, b_addr)] = datagrams(pair);
    let route = [&[131, 7, 4][..], &octets(b_addr.ip())].concat();
    setsockopt(a.0, LEVEL, OPTIONS, &route).unwrap();
    sendto(a.0, b"x", NONE, b_addr).unwrap();
    setsockopt(a.0, LEVEL, OPTIONS, &[]).unwrap();
    sendto(a.0, b"y", NONE, b_addr).unwrap();
    let mut got = [0; 4];
    assert_eq!((read(b.0, &mut got).unwrap(), got[0]), (1, b'y'), "it is not taken");
    if pair.a_addr.is_ipv6() {
        return;
    }
    let look =
        pair.open(&pair.b, libc::AF_PACKET, libc::SOCK_DGRAM, i32::from((libc::ETH_P_IP as u16).to_be()));
    let look = look.unwrap();
    let destination = SocketAddr::from(([198, 51, 100, 9], 7));
    // Strict, the first hop has to be a neighbour, and this one nobody leads to.
    for kind in [131, 137] {
        let nobody = [&[kind, 7, 4][..], &[198, 51, 100, 1]].concat();
        setsockopt(a.0, LEVEL, OPTIONS, &nobody).unwrap();
        assert_eq!(errno(sendto(a.0, b"x", NONE, b_addr)), libc::ENETUNREACH);
        let through = [&[kind, 11, 4][..], &octets(b_addr.ip()), &[10, 1, 1, 1]].concat();
        setsockopt(a.0, LEVEL, OPTIONS, &through).unwrap();
        sendto(a.0, b"x", NONE, destination).unwrap();
        let mut packet = [0; 200];
        loop {
            let len = read(look.0, &mut packet).unwrap();
            if len == 20 + 12 + 8 + 1 && packet[20] == kind {
                break;
            }
        }
        assert_eq!(packet[0], 0x48);
        assert_eq!(packet[16..20], octets(b_addr.ip()));
        assert_eq!(packet[20..32], [&[kind, 11, 4][..], &[10, 1, 1, 1], &[198, 51, 100, 9], &[0]].concat());
    }
}

/// A packet whose options cannot be: its sender is told what is wrong.
pub(crate) fn wrong_ones_are_answered(pair: &Pair) {
    let [(a_stack, a_addr), (_, b_addr)] = ends(pair);
    let open = |protocol| pair.open(a_stack, libc::AF_INET, libc::SOCK_RAW, protocol).unwrap();
    let (raw, icmp) = (open(libc::IPPROTO_RAW), open(libc::IPPROTO_ICMP));
    let to = SocketAddr::from((octets(b_addr), 0));
    for (options, pointer) in [
        ([7u8, 1, 1, 0], 20),
        ([1, 7, 3, 3], 23),
        ([131, 3, 3, 0], 22),
        ([148, 2, 0, 0], 21),
        ([68, 4, 5, 0xf0], 23),
        ([9, 5, 0, 0], 20),
    ] {
        let mut packet = vec![0x46, 0, 0, 0, 0, 1, 0, 0, 64, 253, 0, 0];
        packet.extend(octets(a_addr));
        packet.extend(octets(b_addr));
        packet.extend(options);
        packet.extend(b"payload!");
        sendto(raw.0, &packet, NONE, to).unwrap();
        let mut got = [0; 200];
        let len = read(icmp.0, &mut got).unwrap();
        assert_eq!(got[20..22], [12, 0], "a parameter problem");
        assert_eq!(got[24], pointer, "{options:?}");
        assert_eq!(got[28..len][20..24], options);
    }
}

/// ping -R: an echo's answer goes on where its question ended.
pub(crate) fn echoes(pair: &Pair) {
    let [(a_stack, a_addr), (_, b_addr)] = ends(pair);
    let raw = pair.open(a_stack, libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP).unwrap();
    setsockopt(raw.0, LEVEL, OPTIONS, &[&[1, 7, 39, 4][..], &[0; 36]].concat()).unwrap();
    let request = [8u8, 0, 0xf7, 0xfd, 0, 1, 0, 1];
    sendto(raw.0, &request, NONE, SocketAddr::from((octets(b_addr), 0))).unwrap();
    let mut got = [0; 200];
    loop {
        let len = read(raw.0, &mut got).unwrap();
        let header = usize::from(got[0] & 0x0f) * 4;
        // Over the loopback interface the question comes as well.
        if len > header && got[header] == 0 {
            break;
        }
    }
    let [own, peer] = [a_addr, b_addr].map(octets);
    let at = 20 + usize::from(got[20] == 1);
    assert_eq!(got[at..at + 19], [&[7, 39, 20][..], &own, &peer, &peer, &own].concat());
}
