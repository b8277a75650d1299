//! Packet sockets (packet(7)): frames between two nodes on a wire.

use std::time::{Duration, Instant};

use ioth::berkeley::*;
use ioth::core::PacketAddr;
use ioth::{Events, MsgFlags, SockAddr, Stack};

use crate::filter::{attach, load_byte, load_half, ret, unless_equal};
use crate::fixture::*;

/// An EtherType for experiments (IEEE 802.1), which no other traffic on the wire has.
pub(crate) const OURS: u16 = 0x88b5;
pub(crate) const ALL: u16 = libc::ETH_P_ALL as u16;
const ETHER: usize = 14;

/// The Ethernet interface of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ether {
    pub(crate) ifindex: u32,
    pub(crate) mac: [u8; 6],
}

impl Ether {
    pub(crate) fn of(pair: &Pair, stack: &Stack) -> Ether {
        let name = if pair.native { "eth0" } else { "vde0" };
        let ifindex = pair.inside(stack, || stack.if_nametoindex(name)).unwrap();
        let fd = raw(pair, stack, 0);
        bind(fd.0, at(ifindex, 0)).unwrap();
        let SockAddr::Packet(addr) = getsockname(fd.0).unwrap() else { panic!("a packet socket's name") };
        assert_eq!((addr.halen, addr.hatype), (6, libc::ARPHRD_ETHER));
        Ether { ifindex, mac: addr.addr[..6].try_into().unwrap() }
    }

    /// An address of this interface's node on the wire, as its own side names it in sendto(2) with SOCK_DGRAM.
    pub(crate) fn to(self, from: Ether, protocol: u16) -> SockAddr {
        SockAddr::Packet(PacketAddr { halen: 6, addr: padded(self.mac), ..address(from.ifindex, protocol) })
    }
}

fn padded(mac: [u8; 6]) -> [u8; 8] {
    let [a, b, c, d, e, f] = mac;
    [a, b, c, d, e, f, 0, 0]
}

fn address(ifindex: u32, protocol: u16) -> PacketAddr {
    PacketAddr { ifindex, protocol, ..PacketAddr::default() }
}

pub(crate) fn at(ifindex: u32, protocol: u16) -> SockAddr {
    SockAddr::Packet(address(ifindex, protocol))
}

fn packet(pair: &Pair, stack: &Stack, kind: i32, protocol: u16) -> Fd {
    pair.open(stack, libc::AF_PACKET, kind, i32::from(protocol.to_be())).unwrap()
}

pub(crate) fn raw(pair: &Pair, stack: &Stack, protocol: u16) -> Fd {
    packet(pair, stack, libc::SOCK_RAW, protocol)
}

pub(crate) fn cooked(pair: &Pair, stack: &Stack, protocol: u16) -> Fd {
    packet(pair, stack, libc::SOCK_DGRAM, protocol)
}

pub(crate) fn frame(to: [u8; 6], from: [u8; 6], protocol: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &protocol.to_be_bytes(), payload].concat()
}

/// The next frame, and what is told of it.
#[track_caller]
fn receive(fd: &Fd) -> (Vec<u8>, PacketAddr) {
    let mut buffer = [0; 2000];
    let (len, from) = recvfrom(fd.0, &mut buffer, NONE).unwrap();
    let Some(SockAddr::Packet(from)) = from else { panic!("{from:?}") };
    (buffer[..len].to_vec(), from)
}

/// The next frame that is `wanted`; a socket of ETH_P_ALL sees the nodes' own traffic, too.
#[track_caller]
fn receive_until(fd: &Fd, wanted: impl Fn(&[u8], &PacketAddr) -> bool) -> (Vec<u8>, PacketAddr) {
    loop {
        let (data, from) = receive(fd);
        if wanted(&data, &from) {
            return (data, from);
        }
    }
}

#[track_caller]
fn nothing(fd: &Fd) {
    assert_eq!(errno(recv(fd.0, &mut [0; 100], MsgFlags::DONTWAIT)), libc::EAGAIN);
}

/// Both ends' interfaces.
fn ends(pair: &Pair) -> (Ether, Ether) {
    (Ether::of(pair, &pair.a), Ether::of(pair, &pair.b))
}

pub(crate) fn whole_frames(pair: &Pair) {
    let (a, b) = ends(pair);
    let (sender, receiver) = (raw(pair, &pair.a, 0), raw(pair, &pair.b, OURS));
    let sent = frame(b.mac, a.mac, OURS, &[7; 60]);
    assert_eq!(events(&receiver), Events::OUT);
    assert_eq!(sendto(sender.0, &sent, NONE, at(a.ifindex, 0)).unwrap(), sent.len());
    wait_exactly(&receiver, Events::IN | Events::OUT);
    let (got, from) = receive(&receiver);
    assert_eq!(got, sent);
    let wanted = PacketAddr {
        protocol: OURS,
        ifindex: b.ifindex,
        hatype: libc::ARPHRD_ETHER,
        pkttype: libc::PACKET_HOST,
        halen: 6,
        addr: padded(a.mac),
    };
    assert_eq!(from, wanted);
    assert_eq!(events(&receiver), Events::OUT);
    // Bound, the interface need not be named again.
    bind(sender.0, at(a.ifindex, 0)).unwrap();
    for (to, kind) in [
        ([0xff; 6], libc::PACKET_BROADCAST),
        ([0x33, 0x33, 0, 0, 0, 1], libc::PACKET_MULTICAST),
        (b.mac, libc::PACKET_HOST),
    ] {
        let sent = frame(to, a.mac, OURS, b"payload of some length, so that nothing is padded.........");
        write(sender.0, &sent).unwrap();
        assert_eq!(receive(&receiver), (sent, PacketAddr { pkttype: kind, ..wanted }));
    }
}

pub(crate) fn without_header(pair: &Pair) {
    let (a, b) = ends(pair);
    let (sender, receiver, whole) =
        (cooked(pair, &pair.a, 0), cooked(pair, &pair.b, OURS), raw(pair, &pair.b, OURS));
    assert_eq!(sendto(sender.0, &[9; 46], NONE, b.to(a, OURS)).unwrap(), 46);
    let (got, from) = receive(&receiver);
    assert_eq!(got, [9; 46]);
    assert_eq!((from.addr, from.pkttype, from.protocol), (padded(a.mac), libc::PACKET_HOST, OURS));
    assert_eq!(receive(&whole), (frame(b.mac, a.mac, OURS, &[9; 46]), from));
    // 802.2 and Novell's 802.3 have a length in place of the protocol.
    let eights = cooked(pair, &pair.b, libc::ETH_P_802_2 as u16);
    sendto(sender.0, &[0x42; 50], NONE, b.to(a, libc::ETH_P_802_2 as u16)).unwrap();
    let (got, from) = receive(&eights);
    assert_eq!((got.len(), from.protocol), (50, libc::ETH_P_802_2 as u16));
    // Without an address nobody knows where to.
    bind(sender.0, at(a.ifindex, OURS)).unwrap();
    assert_eq!(errno(write(sender.0, &[1; 46])), libc::EINVAL);
}

pub(crate) fn who_sees_what(pair: &Pair) {
    let (a, b) = ends(pair);
    let ours = |data: &[u8], from: &PacketAddr| from.protocol == OURS && data[ETHER..].starts_with(b"look");
    let (sender, everything) = (raw(pair, &pair.a, ALL), raw(pair, &pair.a, ALL));
    let (sent_too, silent) = (raw(pair, &pair.a, OURS), raw(pair, &pair.a, 0));
    let far = raw(pair, &pair.b, ALL);
    let data = frame(b.mac, a.mac, OURS, &[b"look".as_slice(), &[0; 56]].concat());
    sendto(sender.0, &data, NONE, at(a.ifindex, 0)).unwrap();
    // On the way out it is seen by those of ETH_P_ALL, and not by the one who sent it.
    let (got, from) = receive_until(&everything, ours);
    assert_eq!((got, from.pkttype, from.ifindex), (data.clone(), libc::PACKET_OUTGOING, a.ifindex));
    assert_eq!(from.addr, padded(a.mac));
    let (_, from) = receive_until(&far, ours);
    assert_eq!(from.pkttype, libc::PACKET_HOST);
    nothing(&sent_too);
    nothing(&silent);
    // Back it comes to everybody who wants its protocol.
    let back = raw(pair, &pair.b, 0);
    let data = frame(a.mac, b.mac, OURS, &[b"look".as_slice(), &[1; 56]].concat());
    sendto(back.0, &data, NONE, at(b.ifindex, 0)).unwrap();
    assert_eq!(receive(&sent_too).0, data);
    for all in [&sender, &everything] {
        assert_eq!(
            receive_until(all, |data, from| ours(data, from) && from.pkttype == libc::PACKET_HOST).0,
            data
        );
    }
    nothing(&silent);
    // Until it is told what to take.
    bind(silent.0, at(0, OURS)).unwrap();
    sendto(back.0, &data, NONE, at(b.ifindex, 0)).unwrap();
    assert_eq!(receive(&silent).0, data);
    // Bound to another interface, nothing comes.
    let lo = pair.inside(&pair.a, || pair.a.if_nametoindex("lo")).unwrap();
    bind(silent.0, at(lo, 0)).unwrap();
    sendto(back.0, &data, NONE, at(b.ifindex, 0)).unwrap();
    receive(&sent_too);
    assert_eq!(receive(&sent_too).0, data);
    nothing(&silent);
}

pub(crate) fn nodes_own_traffic(pair: &Pair) {
    let (a, b) = ends(pair);
    let protocol = if pair.a_addr.is_ipv4() { libc::ETH_P_IP } else { libc::ETH_P_IPV6 } as u16;
    let (near, far) = (raw(pair, &pair.a, ALL), cooked(pair, &pair.b, protocol));
    let (udp, _) = pair.udp_a();
    let (server, to) = pair.udp_b();
    sendto(udp.0, b"datagram", NONE, to).unwrap();
    let (_, from) = receive_until(&near, |data, _| data.ends_with(b"datagram"));
    assert_eq!((from.pkttype, from.protocol), (libc::PACKET_OUTGOING, protocol));
    let (data, from) = receive_until(&far, |data, _| data.ends_with(b"datagram"));
    assert_eq!((from.pkttype, from.ifindex, from.addr), (libc::PACKET_HOST, b.ifindex, padded(a.mac)));
    assert_eq!(data[0] >> 4, if pair.a_addr.is_ipv4() { 4 } else { 6 });
    // Who looks takes nothing away.
    assert_eq!(read(server.0, &mut [0; 20]).unwrap(), 8);
}

pub(crate) fn loopback(pair: &Pair) {
    let lo = pair.inside(&pair.a, || pair.a.if_nametoindex("lo")).unwrap();
    let everything = raw(pair, &pair.a, ALL);
    bind(everything.0, at(lo, 0)).unwrap();
    let SockAddr::Packet(name) = getsockname(everything.0).unwrap() else { panic!("a packet socket's name") };
    assert_eq!((name.hatype, name.halen, name.addr), (libc::ARPHRD_LOOPBACK, 6, [0; 8]));
    let (udp, addr) = pair.udp_a();
    sendto(udp.0, b"to myself", NONE, addr).unwrap();
    for kind in [libc::PACKET_OUTGOING, libc::PACKET_HOST] {
        let (data, from) = receive_until(&everything, |data, _| data.ends_with(b"to myself"));
        assert_eq!((from.pkttype, from.hatype, from.halen), (kind, libc::ARPHRD_LOOPBACK, 6));
        assert_eq!(data[..12], [0; 12]);
    }
    assert_eq!(read(udp.0, &mut [0; 20]).unwrap(), 9);
    // What is sent on it comes back, to the sender, too.
    let both = cooked(pair, &pair.a, OURS);
    bind(both.0, at(lo, 0)).unwrap();
    write(both.0, b"round").unwrap();
    let (data, from) = receive(&both);
    assert_eq!((&data[..], from.pkttype), (&b"round"[..], libc::PACKET_HOST));
}

pub(crate) fn names(pair: &Pair) {
    let a = Ether::of(pair, &pair.a);
    let fd = cooked(pair, &pair.a, OURS);
    assert_eq!(getsockname(fd.0).unwrap(), at(0, OURS));
    assert_eq!(option(&fd, libc::SOL_SOCKET, libc::SO_TYPE).unwrap(), libc::SOCK_DGRAM);
    assert_eq!(option(&fd, libc::SOL_SOCKET, libc::SO_DOMAIN).unwrap(), libc::AF_PACKET);
    assert_eq!(option(&fd, libc::SOL_SOCKET, libc::SO_PROTOCOL).unwrap(), 0);
    // A protocol that is not named stays.
    bind(fd.0, at(a.ifindex, 0)).unwrap();
    let wanted =
        PacketAddr { hatype: libc::ARPHRD_ETHER, halen: 6, addr: padded(a.mac), ..address(a.ifindex, OURS) };
    assert_eq!(getsockname(fd.0).unwrap(), SockAddr::Packet(wanted));
    // It can be bound again, unlike other sockets.
    bind(fd.0, at(0, ALL)).unwrap();
    assert_eq!(getsockname(fd.0).unwrap(), at(0, ALL));
    assert_eq!(errno(bind(fd.0, at(4711, 0))), libc::ENODEV);
    assert_eq!(errno(bind(fd.0, std::net::SocketAddr::new(pair.a_addr, 0))), libc::EINVAL);
    assert_eq!(errno(pair.open(&pair.a, libc::AF_PACKET, libc::SOCK_STREAM, 0)), libc::ESOCKTNOSUPPORT);
}

pub(crate) fn calls_that_are_not(pair: &Pair) {
    let fd = raw(pair, &pair.a, OURS);
    assert_eq!(errno(connect(fd.0, at(1, OURS))), libc::EOPNOTSUPP);
    assert_eq!(errno(getpeername(fd.0)), libc::EOPNOTSUPP);
    assert_eq!(errno(listen(fd.0, 1)), libc::EOPNOTSUPP);
    assert_eq!(errno(accept(fd.0)), libc::EOPNOTSUPP);
    assert_eq!(errno(shutdown(fd.0, libc::SHUT_RDWR)), libc::EOPNOTSUPP);
    for flag in [MsgFlags::WAITALL, MsgFlags::OOB] {
        assert_eq!(errno(recv(fd.0, &mut [0; 4], flag | MsgFlags::DONTWAIT)), libc::EINVAL);
    }
    nothing(&fd);
}

pub(crate) fn send_errors(pair: &Pair) {
    let (a, b) = ends(pair);
    let (whole, without) = (raw(pair, &pair.a, 0), cooked(pair, &pair.a, 0));
    let good = frame(b.mac, a.mac, OURS, &[0; 46]);
    assert_eq!(errno(write(whole.0, &good)), libc::ENXIO);
    assert_eq!(errno(sendto(whole.0, &good, NONE, at(4711, OURS))), libc::ENXIO);
    assert_eq!(errno(sendto(whole.0, &good[..13], NONE, at(a.ifindex, OURS))), libc::EINVAL);
    assert_eq!(errno(sendto(whole.0, b"", NONE, at(a.ifindex, OURS))), libc::EINVAL);
    assert_eq!(sendto(whole.0, &good[..14], NONE, at(a.ifindex, OURS)).unwrap(), 14);
    let SockAddr::Packet(to) = b.to(a, OURS) else { unreachable!() };
    let long_address = SockAddr::Packet(PacketAddr { halen: 9, ..to });
    assert_eq!(errno(sendto(without.0, &[0; 46], NONE, long_address)), libc::EINVAL);
    // The MTU counts without the header.
    for (fd, header) in [(&whole, ETHER), (&without, 0)] {
        let mut longest = frame(b.mac, a.mac, OURS, &vec![0; 2000]);
        longest.truncate(1500 + header);
        assert_eq!(sendto(fd.0, &longest, NONE, b.to(a, OURS)).unwrap(), longest.len());
        longest.push(0);
        assert_eq!(errno(sendto(fd.0, &longest, NONE, b.to(a, OURS))), libc::EMSGSIZE);
        longest.resize(3000, 0);
        assert_eq!(errno(sendto(fd.0, &longest, NONE, b.to(a, OURS))), libc::EMSGSIZE);
    }
}

pub(crate) fn interface_down(pair: &Pair) {
    let (a, b) = ends(pair);
    let (bound, free) = (raw(pair, &pair.a, OURS), raw(pair, &pair.a, OURS));
    bind(bound.0, at(a.ifindex, 0)).unwrap();
    let set_up = |up: bool| pair.inside(&pair.a, || pair.a.linksetupdown(a.ifindex, up)).unwrap();
    set_up(false);
    wait(&bound, if pair.native { Events::ERR } else { Events::IN });
    assert_eq!(errno(read(bound.0, &mut [0; 4])), libc::ENETDOWN);
    nothing(&bound);
    nothing(&free);
    let data = frame(b.mac, a.mac, OURS, &[0; 46]);
    assert_eq!(errno(write(bound.0, &data)), libc::ENETDOWN);
    // Binding to an interface that is down succeeds, and leaves the error.
    let late = raw(pair, &pair.a, OURS);
    bind(late.0, at(a.ifindex, 0)).unwrap();
    assert_eq!(so_error(&late), libc::ENETDOWN);
    set_up(true);
    let back = raw(pair, &pair.b, 0);
    // The kernel's carrier comes back a little later.
    let (deadline, edges) = (Instant::now() + LONG, Edges::new(&bound));
    while !events(&bound).contains(Events::IN) {
        assert!(Instant::now() < deadline, "nothing comes any more");
        sendto(back.0, &frame([0xff; 6], b.mac, OURS, &[3; 46]), NONE, at(b.ifindex, 0)).unwrap();
        edges.wait(Duration::from_millis(20));
    }
    assert_eq!(receive(&bound).0[ETHER..], [3; 46]);
    assert_eq!(receive(&late).0[ETHER..], [3; 46]);
}

pub(crate) fn peek_and_cut(pair: &Pair) {
    let (a, b) = ends(pair);
    let (sender, receiver) = (cooked(pair, &pair.a, 0), cooked(pair, &pair.b, OURS));
    sendto(sender.0, &[5; 60], NONE, b.to(a, OURS)).unwrap();
    wait(&receiver, Events::IN);
    let mut unread = [0; 4];
    ioctl(receiver.0, libc::FIONREAD, &mut unread).unwrap();
    assert_eq!(i32::from_ne_bytes(unread), 60);
    let mut buffer = [0; 10];
    assert_eq!(recv(receiver.0, &mut buffer, MsgFlags::PEEK | MsgFlags::TRUNC).unwrap(), 60);
    assert_eq!(recv(receiver.0, &mut buffer, MsgFlags::PEEK).unwrap(), 10);
    let mut data = [std::io::IoSliceMut::new(&mut buffer)];
    let mut message = ioth::RecvMsg::new(&mut data);
    assert_eq!(recvmsg(receiver.0, &mut message, NONE).unwrap(), 10);
    assert_eq!(message.flags, MsgFlags::TRUNC);
    nothing(&receiver);
}

pub(crate) fn filter(pair: &Pair) {
    let (a, b) = ends(pair);
    let (sender, whole, without) =
        (cooked(pair, &pair.a, 0), raw(pair, &pair.b, OURS), cooked(pair, &pair.b, OURS));
    // Offsets count from where the socket's own view begins.
    attach(&whole, &[load_byte(14), unless_equal(1, 1), ret(20), ret(0)]).unwrap();
    attach(&without, &[load_byte(0), unless_equal(2, 1), ret(u32::MAX), ret(0)]).unwrap();
    for first in [0, 1, 2] {
        sendto(sender.0, &[&[first], &[9; 59][..]].concat(), NONE, b.to(a, OURS)).unwrap();
    }
    let (data, _) = receive(&whole);
    assert_eq!((data.len(), data[14]), (20, 1));
    let (data, _) = receive(&without);
    assert_eq!((data.len(), data[0]), (60, 2));
    nothing(&whole);
    nothing(&without);
    // What is not in the packet, or in front of the view.
    let ancillary = |what: i32| load_half(libc::SKF_AD_OFF + what);
    let program = [
        ancillary(libc::SKF_AD_PROTOCOL),
        unless_equal(OURS.into(), 7),
        ancillary(libc::SKF_AD_PKTTYPE),
        unless_equal(libc::PACKET_BROADCAST.into(), 5),
        ancillary(libc::SKF_AD_IFINDEX),
        unless_equal(b.ifindex, 3),
        load_byte(libc::SKF_LL_OFF + 11),
        unless_equal(a.mac[5].into(), 1),
        ret(u32::MAX),
        ret(0),
    ];
    attach(&without, &program).unwrap();
    sendto(sender.0, &[3; 60], NONE, b.to(a, OURS)).unwrap();
    sendto(sender.0, &[4; 60], NONE, Ether { mac: [0xff; 6], ..b }.to(a, OURS)).unwrap();
    assert_eq!(receive(&without).0, [4; 60]);
    nothing(&without);
}

/// `struct packet_mreq`
fn membership(ifindex: u32, kind: i32, mac: &[u8]) -> Vec<u8> {
    let mut mreq = ifindex.to_ne_bytes().to_vec();
    mreq.extend_from_slice(&(kind as u16).to_ne_bytes());
    mreq.extend_from_slice(&(mac.len() as u16).to_ne_bytes());
    mreq.extend_from_slice(mac);
    mreq.resize(16, 0);
    mreq
}

pub(crate) fn memberships(pair: &Pair) {
    let (a, b) = ends(pair);
    let (sender, fd) = (raw(pair, &pair.a, 0), raw(pair, &pair.b, OURS));
    let change = |name, mreq: &[u8]| setsockopt(fd.0, libc::SOL_PACKET, name, mreq);
    let (add, drop) = (libc::PACKET_ADD_MEMBERSHIP, libc::PACKET_DROP_MEMBERSHIP);
    let other = [2, 4, 6, 8, 10, 12];
    let promiscuous = membership(b.ifindex, libc::PACKET_MR_PROMISC, &[]);
    // To take back what was never asked for is nothing to complain about.
    change(drop, &promiscuous).unwrap();
    change(add, &promiscuous).unwrap();
    let sent = frame(other, a.mac, OURS, &[1; 60]);
    sendto(sender.0, &sent, NONE, at(a.ifindex, 0)).unwrap();
    let (got, from) = receive(&fd);
    assert_eq!((got, from.pkttype), (sent, libc::PACKET_OTHERHOST));
    // It is counted.
    change(add, &promiscuous).unwrap();
    change(drop, &promiscuous).unwrap();
    let sent = frame(other, a.mac, OURS, &[5; 60]);
    sendto(sender.0, &sent, NONE, at(a.ifindex, 0)).unwrap();
    assert_eq!(receive(&fd).0, sent);
    change(drop, &promiscuous).unwrap();
    let group = [0x01, 0, 0x5e, 1, 2, 3];
    for mreq in [
        membership(b.ifindex, libc::PACKET_MR_MULTICAST, &group),
        membership(b.ifindex, libc::PACKET_MR_ALLMULTI, &[]),
    ] {
        change(add, &mreq).unwrap();
        let sent = frame(group, a.mac, OURS, &[2; 60]);
        sendto(sender.0, &sent, NONE, at(a.ifindex, 0)).unwrap();
        let (got, from) = receive(&fd);
        assert_eq!((got, from.pkttype), (sent, libc::PACKET_MULTICAST));
        change(drop, &mreq).unwrap();
    }
    assert_eq!(errno(change(add, &promiscuous[..15])), libc::EINVAL);
    assert_eq!(errno(change(add, &membership(4711, libc::PACKET_MR_PROMISC, &[]))), libc::ENODEV);
    assert_eq!(errno(change(add, &membership(b.ifindex, libc::PACKET_MR_MULTICAST, &[1]))), libc::EINVAL);
    assert_eq!(errno(change(add, &membership(b.ifindex, libc::PACKET_MR_MULTICAST, &[1; 8]))), libc::EINVAL);
    // A type that nobody knows is taken.
    change(add, &membership(b.ifindex, 77, &[])).unwrap();
}

pub(crate) fn statistics(pair: &Pair) {
    let (a, b) = ends(pair);
    let (sender, fd) = (raw(pair, &pair.a, 0), raw(pair, &pair.b, OURS));
    let read_statistics = || {
        let mut value = [0; 8];
        assert_eq!(getsockopt(fd.0, libc::SOL_PACKET, libc::PACKET_STATISTICS, &mut value).unwrap(), 8);
        let [all, dropped] =
            [&value[..4], &value[4..]].map(|half| u32::from_ne_bytes(half.try_into().unwrap()));
        (all, dropped)
    };
    for _ in 0..3 {
        sendto(sender.0, &frame(b.mac, a.mac, OURS, &[1; 60]), NONE, at(a.ifindex, 0)).unwrap();
    }
    (0..3).for_each(|_| drop(receive(&fd)));
    assert_eq!(read_statistics(), (3, 0));
    assert_eq!(read_statistics(), (0, 0));
    set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUF, 1).unwrap();
    for _ in 0..50 {
        sendto(sender.0, &frame(b.mac, a.mac, OURS, &[1; 1000]), NONE, at(a.ifindex, 0)).unwrap();
    }
    wait(&fd, Events::IN);
    let (mut all, mut dropped) = (0, 0);
    let deadline = Instant::now() + LONG;
    while all < 50 {
        let (more, lost) = read_statistics();
        (all, dropped) = (all + more, dropped + lost);
        assert!(Instant::now() < deadline, "{all}");
    }
    assert_eq!(all, 50);
    assert!(dropped > 30 && dropped < 50, "{dropped}");
}

pub(crate) fn auxiliary_data(pair: &Pair) {
    let (a, b) = ends(pair);
    let (sender, whole, without) =
        (raw(pair, &pair.a, 0), raw(pair, &pair.b, OURS), cooked(pair, &pair.b, OURS));
    for fd in [&whole, &without] {
        assert_eq!(option(fd, libc::SOL_PACKET, libc::PACKET_AUXDATA).unwrap(), 0);
        set_option(fd, libc::SOL_PACKET, libc::PACKET_AUXDATA, 1).unwrap();
        assert_eq!(option(fd, libc::SOL_PACKET, libc::PACKET_AUXDATA).unwrap(), 1);
        attach(fd, &[ret(30)]).unwrap();
    }
    sendto(sender.0, &frame(b.mac, a.mac, OURS, &[1; 60]), NONE, at(a.ifindex, 0)).unwrap();
    for (fd, len, network) in [(&whole, 74u32, 14u16), (&without, 60, 0)] {
        wait(fd, Events::IN);
        let (mut buffer, mut control) = ([0; 100], [0; 100]);
        let mut data = [std::io::IoSliceMut::new(&mut buffer)];
        let mut message = ioth::RecvMsg { control: &mut control, ..ioth::RecvMsg::new(&mut data) };
        assert_eq!(recvmsg(fd.0, &mut message, NONE).unwrap(), 30);
        let filled = message.control_len;
        let told: Vec<_> = ioth::core::control::messages(&control[..filled]).map(Result::unwrap).collect();
        assert_eq!(told.len(), 1);
        assert_eq!(
            (told[0].level, told[0].kind, told[0].data.len()),
            (libc::SOL_PACKET, libc::PACKET_AUXDATA, 20)
        );
        let word = |at: usize| u32::from_ne_bytes(told[0].data[at..at + 4].try_into().unwrap());
        assert_eq!(word(0) & libc::TP_STATUS_USER, libc::TP_STATUS_USER);
        assert_eq!((word(4), word(8)), (len, 30));
        assert_eq!(told[0].data[14..16], network.to_ne_bytes());
    }
}

pub(crate) fn options(pair: &Pair) {
    let (a, b) = ends(pair);
    let (everything, sender) = (raw(pair, &pair.a, ALL), raw(pair, &pair.a, 0));
    const IGNORE_OUTGOING: i32 = 23;
    assert_eq!(errno(set_option(&everything, libc::SOL_PACKET, IGNORE_OUTGOING, 2)), libc::EINVAL);
    set_option(&everything, libc::SOL_PACKET, IGNORE_OUTGOING, 1).unwrap();
    assert_eq!(option(&everything, libc::SOL_PACKET, IGNORE_OUTGOING).unwrap(), 1);
    sendto(sender.0, &frame(b.mac, a.mac, OURS, &[1; 60]), NONE, at(a.ifindex, 0)).unwrap();
    let back = raw(pair, &pair.b, 0);
    sendto(back.0, &frame(a.mac, b.mac, OURS, &[2; 60]), NONE, at(b.ifindex, 0)).unwrap();
    let (data, from) = receive_until(&everything, |_, from| from.protocol == OURS);
    assert_eq!((data[ETHER], from.pkttype), (2, libc::PACKET_HOST));
    assert_eq!(errno(option(&everything, libc::SOL_PACKET, 99)), libc::ENOPROTOOPT);
    assert_eq!(errno(set_option(&everything, libc::SOL_PACKET, 99, 1)), libc::ENOPROTOOPT);
    assert_eq!(errno(setsockopt(everything.0, libc::SOL_PACKET, libc::PACKET_AUXDATA, &[1])), libc::EINVAL);
}

/// A UDP datagram over IPv4 without checksum, as DHCP clients and servers build it by hand.
fn bootp(from: ([u8; 4], u16), to: ([u8; 4], u16), message: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0x10, 0, 0, 0, 0, 0, 0, 128, 17, 0, 0];
    packet.extend_from_slice(&from.0);
    packet.extend_from_slice(&to.0);
    packet[2..4].copy_from_slice(&(28 + message.len() as u16).to_be_bytes());
    let sum = crate::raw::checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(&from.1.to_be_bytes());
    packet.extend_from_slice(&to.1.to_be_bytes());
    packet.extend_from_slice(&(8 + message.len() as u16).to_be_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(message);
    packet
}

/// What dhclient(8) and dhcpcd(8) do before they have an address, and the server's answers to them.
pub(crate) fn dhcp(pair: &Pair) {
    const NOBODY: [u8; 4] = [0; 4];
    const EVERYBODY: [u8; 4] = [255; 4];
    const OFFERED: [u8; 4] = [192, 0, 2, 7];
    let (a, b) = (Ether::of(pair, &pair.a), Ether::of(pair, &pair.b));
    // ISC's program: IPv4, UDP, not a later fragment, port 68 wherever the header ends.
    let instruction = crate::filter::instruction;
    let program = [
        load_half(12),
        unless_equal(0x0800, 8),
        load_byte(23),
        unless_equal(17, 6),
        load_half(20),
        instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 4, 0, 0x1fff),
        instruction(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0, 0, 14),
        instruction(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, 0, 0, 16),
        unless_equal(68, 1),
        ret(u32::MAX),
        ret(0),
    ];
    let client = raw(pair, &pair.a, libc::ETH_P_IP as u16);
    bind(client.0, at(a.ifindex, libc::ETH_P_IP as u16)).unwrap();
    attach(&client, &program).unwrap();
    set_option(&client, libc::SOL_SOCKET, libc::SO_LOCK_FILTER, 1).unwrap();
    // dhcpcd's way: without the Ethernet header, on a socket that was made for no protocol.
    let second = cooked(pair, &pair.a, 0);
    bind(second.0, at(a.ifindex, libc::ETH_P_IP as u16)).unwrap();
    attach(&second, &[load_half(22), unless_equal(68, 1), ret(u32::MAX), ret(0)]).unwrap();
    // The server has a plain UDP socket for what is broadcast.
    let server = pair.open(&pair.b, libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
    set_option(&server, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).unwrap();
    set_option(&server, libc::SOL_SOCKET, libc::SO_BROADCAST, 1).unwrap();
    bind(server.0, std::net::SocketAddr::from((NOBODY, 67))).unwrap();
    let discover =
        frame([0xff; 6], a.mac, libc::ETH_P_IP as u16, &bootp((NOBODY, 68), (EVERYBODY, 67), b"discover"));
    assert_eq!(write(client.0, &discover).unwrap(), discover.len());
    let mut buffer = [0; 600];
    let (len, from) = recvfrom(server.0, &mut buffer, NONE).unwrap();
    assert_eq!(&buffer[..len], b"discover");
    assert_eq!(from, Some(std::net::SocketAddr::from((NOBODY, 68)).into()));
    // The offer goes to an address that nobody has yet, and to the client's hardware.
    let answers = raw(pair, &pair.b, 0);
    let server_ip = [192, 0, 2, 1];
    let noise = bootp((server_ip, 67), (OFFERED, 69), b"something else for the client's hardware");
    let offer = bootp((server_ip, 67), (OFFERED, 68), b"offer");
    for packet in [&noise, &offer] {
        let data = frame(a.mac, b.mac, libc::ETH_P_IP as u16, packet);
        sendto(answers.0, &data, NONE, at(b.ifindex, libc::ETH_P_IP as u16)).unwrap();
    }
    let (got, from) = receive(&client);
    assert_eq!((&got[ETHER..], from.pkttype), (&offer[..], libc::PACKET_HOST));
    let (got, from) = receive(&second);
    assert_eq!((&got[..], from.addr), (&offer[..], padded(b.mac)));
    // dhcpcd asks for it with sendto(2) and the hardware address of everybody.
    let everybody = Ether { mac: [0xff; 6], ..b };
    let request = bootp((NOBODY, 68), (EVERYBODY, 67), b"request");
    sendto(second.0, &request, NONE, everybody.to(a, libc::ETH_P_IP as u16)).unwrap();
    assert_eq!(recv(server.0, &mut buffer, NONE).unwrap(), 7);
    nothing(&client);
    nothing(&second);
}
