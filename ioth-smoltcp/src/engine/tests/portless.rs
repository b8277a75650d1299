//! Packet, raw and ping sockets between engines.

use std::io::IoSliceMut;
use std::net::SocketAddr;

use ioth_core::{Domain, Errno, Events, MsgFlags, PacketAddr, RecvMsg, SockAddr, SocketType};
use ioth_vde::Frame;
use smoltcp::time::Duration;

use super::lan::{ETH, Lan, WIRE, addr, mac, recv, send_to};
use crate::engine::{Engine, SocketId};

const SHORT: Duration = Duration::from_secs(5);
const ETH_P_ALL: u16 = libc::ETH_P_ALL as u16;

fn everything(engine: &mut Engine) -> SocketId {
    engine.socket(Domain::PACKET, SocketType::RAW, i32::from(ETH_P_ALL.to_be())).unwrap()
}

fn seen(engine: &mut Engine, id: SocketId) -> Option<(Vec<u8>, PacketAddr)> {
    let mut buffer = [0; 2000];
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let mut message = RecvMsg::new(&mut slices);
    let len = engine.recv(id, &mut message, MsgFlags::empty()).ok()?;
    let Some(SockAddr::Packet(from)) = message.addr else { panic!("{:?}", message.addr) };
    Some((buffer[..len].to_vec(), from))
}

fn membership(kind: i32) -> Vec<u8> {
    let mut mreq = ETH.to_ne_bytes().to_vec();
    mreq.extend_from_slice(&(kind as u16).to_ne_bytes());
    mreq.resize(16, 0);
    mreq
}

#[test]
fn frames_are_seen_in_their_order() {
    for v6 in [false, true] {
        let mut lan = Lan::new(2, WIRE);
        let domain = if v6 { Domain::INET6 } else { Domain::INET };
        let (a, b) = (lan.datagrams(0, domain), lan.datagrams(1, domain));
        let tap = everything(&mut lan.nodes[0]);
        lan.nodes[1].bind(b, &SockAddr::Ip(addr(1, v6, 7))).unwrap();
        send_to(&mut lan.nodes[0], a, b"hello", addr(1, v6, 7)).unwrap();
        assert!(lan.run_until(SHORT, |lan| lan.nodes[1].events(b).contains(Events::IN)));
        let mut kinds = Vec::new();
        while let Some((data, from)) = seen(&mut lan.nodes[0], tap) {
            assert_eq!(from.ifindex, ETH);
            assert_eq!(u16::from_be_bytes([data[12], data[13]]), from.protocol);
            // A node that listens to groups may say so meanwhile.
            if data[0] & 1 == 0 || data[..6] == [0xff; 6] || data[20] == 58 && data[54] == 135 {
                kinds.push(from.pkttype);
            }
        }
        // Question and answer for the neighbour's address, then the datagram.
        assert_eq!(kinds, [libc::PACKET_OUTGOING, libc::PACKET_HOST, libc::PACKET_OUTGOING], "{v6}");
    }
}

#[test]
fn what_waits_is_bounded() {
    let mut lan = Lan::new(2, WIRE);
    let tap = everything(&mut lan.nodes[1]);
    let raw = lan.nodes[1].socket(Domain::INET, SocketType::RAW, libc::IPPROTO_UDP).unwrap();
    let (a, b) = (lan.datagrams(0, Domain::INET), lan.datagrams(1, Domain::INET));
    lan.nodes[1].bind(b, &SockAddr::Ip(addr(1, false, 7))).unwrap();
    for _ in 0..1000 {
        send_to(&mut lan.nodes[0], a, &[7; 1000], addr(1, false, 7)).unwrap();
        lan.run_until(Duration::from_millis(1), |_| false);
        // UDP's own reader keeps up.
        while recv(&mut lan.nodes[1], b, &mut [0; 1500]).is_ok() {}
    }
    let dropped = lan.nodes[1].drops().receive_buffer;
    let (mut frames, mut packets) = (0, 0);
    while seen(&mut lan.nodes[1], tap).is_some() {
        frames += 1;
    }
    while recv(&mut lan.nodes[1], raw, &mut [0; 1500]).is_ok() {
        packets += 1;
    }
    assert!(frames > 50 && frames < 300 && packets > 50 && packets < 300, "{frames} {packets}");
    assert!(dropped > 1400, "{dropped}");
}

#[test]
fn links_hear_what_packet_sockets_want() {
    let mut lan = Lan::new(1, WIRE);
    let node = &mut lan.nodes[0];
    node.take_filters_changed();
    let tap = node.socket(Domain::PACKET, SocketType::RAW, i32::from(0x88b5u16.to_be())).unwrap();
    let stranger = |node: &mut Engine| {
        let mut frame = [0u8; 60];
        frame[..6].copy_from_slice(&mac(7).0);
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        node.handle_frame(ETH, Frame::copy_of(&frame));
        node.poll();
    };
    stranger(node);
    assert_eq!(seen(node, tap), None, "not for this node");
    node.set_option(tap, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &membership(libc::PACKET_MR_PROMISC))
        .unwrap();
    assert!(node.take_filters_changed() && node.is_open(ETH));
    stranger(node);
    assert_eq!(seen(node, tap).unwrap().1.pkttype, libc::PACKET_OTHERHOST);
    for kind in 10..3000 {
        let joined = node.set_option(tap, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &membership(kind));
        assert_eq!(joined, if kind < 1033 { Ok(()) } else { Err(Errno::ENOBUFS) }, "{kind}");
    }
    node.close(tap);
    assert!(node.take_filters_changed() && !node.is_open(ETH));
    stranger(node);
}

#[test]
fn an_echo_finds_its_socket() {
    for v6 in [false, true] {
        let mut lan = Lan::new(2, WIRE);
        let (domain, protocol, request) = if v6 {
            (Domain::INET6, libc::IPPROTO_ICMPV6, 128)
        } else {
            (Domain::INET, libc::IPPROTO_ICMP, 8)
        };
        let mut open = || lan.nodes[0].socket(domain, SocketType::DGRAM, protocol).unwrap();
        let (asks, waits) = (open(), open());
        let to = SocketAddr::new(addr(1, v6, 0).ip(), 0);
        send_to(&mut lan.nodes[0], asks, &[request, 0, 0, 0, 0, 0, 0, 1, 42], to).unwrap();
        assert!(lan.run_until(SHORT, |lan| lan.nodes[0].events(asks).contains(Events::IN)));
        let mut reply = [0; 20];
        assert_eq!(recv(&mut lan.nodes[0], asks, &mut reply), Ok(9));
        assert_eq!((reply[7], reply[8]), (1, 42));
        assert_eq!(recv(&mut lan.nodes[0], waits, &mut reply), Err(Errno::EAGAIN));
        lan.nodes[0].close(asks);
        lan.nodes[0].close(waits);
        // A reply that nobody waits for is nothing.
        let raw = lan.nodes[1].socket(domain, SocketType::RAW, protocol).unwrap();
        let back = SocketAddr::new(addr(0, v6, 0).ip(), 0);
        send_to(&mut lan.nodes[1], raw, &[if v6 { 129 } else { 0 }, 0, 0, 0, 9, 9, 0, 1], back).unwrap();
        lan.run_until(SHORT, |_| false);
        assert_eq!(lan.nodes[0].socket_count(), 0);
    }
}
