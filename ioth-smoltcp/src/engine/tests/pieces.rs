//! Packets in pieces, and ways that are narrower than the link.

use ioth_core::{Domain, Errno, Events, SockAddr};
use ioth_vde::Frame;
use smoltcp::time::Duration;
use smoltcp::wire::IpProtocol;
use std::net::{IpAddr, SocketAddr};

use super::lan::{Dice, ETH, Lan, WIRE, addr, mac, recv, send, send_to};
use crate::engine::SocketId;
use crate::engine::wire::{self, IpAttrs, emit_ip, ip_header_len, parse_ip};

const SHORT: Duration = Duration::from_secs(5);

fn pair(lan: &mut Lan, v6: bool) -> (SocketId, SocketId) {
    let domain = if v6 { Domain::INET6 } else { Domain::INET };
    let (a, b) = (lan.datagrams(0, domain), lan.datagrams(1, domain));
    lan.nodes[0].bind(a, &SockAddr::Ip(addr(0, v6, 7))).unwrap();
    lan.nodes[1].bind(b, &SockAddr::Ip(addr(1, v6, 7))).unwrap();
    (a, b)
}

#[test]
fn pieces_arrive_in_any_order_and_twice() {
    for v6 in [true, false] {
        let mut lan = Lan::new(2, WIRE);
        let (a, b) = pair(&mut lan, v6);
        let mut dice = Dice(1);
        lan.fate = Box::new(move |frame| {
            let delay = |dice: &mut Dice| Duration::from_micros(10 + dice.next() % 900);
            let copies = if frame.len() > 200 { 2 } else { 1 };
            (0..copies).map(|_| delay(&mut dice)).collect()
        });
        let data: Vec<u8> = (0..60_000u32).map(|i| (i * 31) as u8).collect();
        let mut buffer = vec![0; 65_536];
        for len in [1473, 3000, 20_000, 60_000] {
            send_to(&mut lan.nodes[0], a, &data[..len], addr(1, v6, 7)).unwrap();
            assert!(lan.run_until(SHORT, |lan| lan.nodes[1].events(b).contains(Events::IN)), "{len}");
            assert_eq!(recv(&mut lan.nodes[1], b, &mut buffer), Ok(len));
            assert_eq!(buffer[..len], data[..len]);
            // What came twice waits for the rest until its time is over.
            lan.run_until_idle(Duration::from_secs(700));
            assert_eq!(recv(&mut lan.nodes[1], b, &mut buffer), Err(Errno::EAGAIN));
        }
    }
}

#[test]
fn a_lost_piece_is_told() {
    for v6 in [true, false] {
        let mut lan = Lan::new(2, WIRE);
        let (a, b) = pair(&mut lan, v6);
        let told = std::rc::Rc::new(std::cell::Cell::new(0));
        let seen = told.clone();
        lan.fate = Box::new(move |frame| {
            let ip = 14 + if v6 { 40 } else { 20 };
            let protocol = if v6 { frame[20] } else { frame[23] };
            let exceeded = if v6 { (58, [3, 1]) } else { (1, [11, 1]) };
            if (protocol, &frame[ip..ip + 2]) == (exceeded.0, &exceeded.1[..]) {
                seen.set(seen.get() + 1);
            }
            // The last piece of three.
            if frame.len() > 200 && frame.len() < 1000 { Vec::new() } else { vec![Duration::from_micros(50)] }
        });
        send_to(&mut lan.nodes[0], a, &[7; 3500], addr(1, v6, 7)).unwrap();
        lan.run_until_idle(Duration::from_secs(100));
        assert_eq!(recv(&mut lan.nodes[1], b, &mut [0; 8]), Err(Errno::EAGAIN));
        assert_eq!((told.get(), lan.nodes[1].drops().fragments), (1, 1));
    }
}

/// What a router says that carries no more than `mtu` bytes.
fn too_big(v6: bool, quoted: &[u8], mtu: u32) -> Frame {
    let router: IpAddr = if v6 { "fd00::99".parse().unwrap() } else { "10.0.0.99".parse().unwrap() };
    let ip = ip_header_len(router);
    let mut packet = vec![0; ip + 8 + quoted.len()];
    packet[ip] = if v6 { 2 } else { 3 };
    packet[ip + 1] = if v6 { 0 } else { 4 };
    packet[ip + 4..ip + 8].copy_from_slice(&mtu.to_be_bytes());
    packet[ip + 8..].copy_from_slice(quoted);
    let protocol = if v6 { IpProtocol::Icmpv6 } else { IpProtocol::Icmp };
    emit_ip(&mut packet, router, addr(0, v6, 0).ip(), IpAttrs::new(protocol, 64));
    let header = parse_ip(&packet, true).unwrap();
    wire::fill_checksum(&mut packet, &header);
    let ethertype = if v6 { [0x86, 0xdd] } else { [8, 0] };
    Frame::copy_of(&[&mac(0).0[..], &mac(9).0, &ethertype, &packet].concat())
}

fn mtu_of(lan: &mut Lan, id: SocketId, v6: bool) -> i32 {
    let (level, name) =
        if v6 { (libc::IPPROTO_IPV6, libc::IPV6_MTU) } else { (libc::IPPROTO_IP, libc::IP_MTU) };
    let mut value = [0; 4];
    lan.nodes[0].option(id, level, name, &mut value).unwrap();
    i32::from_ne_bytes(value)
}

#[test]
fn a_narrower_way_is_learnt_and_forgotten() {
    for v6 in [true, false] {
        let mut lan = Lan::new(2, WIRE);
        let (a, b) = pair(&mut lan, v6);
        lan.nodes[0].connect(a, &SockAddr::Ip(addr(1, v6, 7))).unwrap();
        let seen = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let copies = seen.clone();
        lan.fate = Box::new(move |frame| {
            copies.borrow_mut().push(frame[14..].to_vec());
            vec![Duration::from_micros(50)]
        });
        send(&mut lan.nodes[0], a, &[1; 1400]).unwrap();
        assert!(lan.run_until(SHORT, |lan| lan.nodes[1].events(b).contains(Events::IN)));
        let sent = seen.borrow().iter().find(|packet| packet.len() > 1400).unwrap().clone();
        let say = |lan: &mut Lan, quoted: &[u8], mtu| {
            lan.nodes[0].handle_frame(ETH, too_big(v6, quoted, mtu));
            lan.settle();
        };
        // Nothing of ours, nothing that was too long, and nothing from a router that does not know.
        let mut strange = sent.clone();
        let port = ip_header_len(addr(0, v6, 0).ip());
        strange[port] ^= 1;
        say(&mut lan, &strange[..port + 8], 1300);
        say(&mut lan, &sent[..port + 8], 1499);
        say(&mut lan, &sent[..port + 8], 0);
        assert_eq!(mtu_of(&mut lan, a, v6), 1500);
        assert_eq!(lan.nodes[0].take_error(a), None);
        say(&mut lan, &sent[..port + 8], 1300);
        assert_eq!(mtu_of(&mut lan, a, v6), 1300);
        assert_eq!(lan.nodes[0].take_error(a), Some(Errno::EMSGSIZE));
        // From now on in pieces.
        seen.borrow_mut().clear();
        recv(&mut lan.nodes[1], b, &mut [0; 2000]).unwrap();
        send(&mut lan.nodes[0], a, &[1; 1400]).unwrap();
        assert!(lan.run_until(SHORT, |lan| lan.nodes[1].events(b).contains(Events::IN)));
        assert!(seen.borrow().iter().all(|packet| packet.len() <= 1300));
        assert_eq!(recv(&mut lan.nodes[1], b, &mut [0; 2000]), Ok(1400));
        // No less than a link can have.
        say(&mut lan, &sent[..port + 8], 100);
        assert_eq!(mtu_of(&mut lan, a, v6), if v6 { 1280 } else { 552 });
        lan.run_until(Duration::from_secs(700), |_| false);
        assert_eq!(mtu_of(&mut lan, a, v6), 1500);
    }
}

#[test]
fn a_connection_goes_on_over_a_narrower_way() {
    for v6 in [true, false] {
        let mut lan = Lan::new(2, WIRE);
        let (client, server) = lan.connection(v6);
        let lost = std::rc::Rc::new(std::cell::RefCell::new(None));
        let copy = lost.clone();
        lan.fate = Box::new(move |frame| {
            if frame.len() > 14 + 1300 {
                *copy.borrow_mut() = Some(frame[14..].to_vec());
                return Vec::new();
            }
            vec![Duration::from_micros(50)]
        });
        let data = vec![5; 20_000];
        assert_eq!(send(&mut lan.nodes[0], client, &data), Ok(data.len()));
        let mut received = 0;
        let done = lan.run_until(Duration::from_secs(60), |lan| {
            if let Some(packet) = lost.borrow_mut().take() {
                // A guess does not count.
                let mut guessed = packet.clone();
                let sequence = ip_header_len(addr(0, v6, 0).ip()) + 4;
                guessed[sequence] ^= 0x40;
                lan.nodes[0].handle_frame(ETH, too_big(v6, &guessed[..sequence + 4], 1290));
                assert_ne!(mtu_of(lan, client, v6), 1290);
                lan.nodes[0].handle_frame(ETH, too_big(v6, &packet[..sequence + 4], 1300));
            }
            while let Ok(got @ 1..) = recv(&mut lan.nodes[1], server, &mut [0; 4096]) {
                received += got;
            }
            received == data.len()
        });
        assert!(done, "{received}");
        assert_eq!(mtu_of(&mut lan, client, v6), 1300);
    }
}

#[test]
fn a_long_question_has_a_long_answer() {
    for v6 in [true, false] {
        let mut lan = Lan::new(2, WIRE);
        // Node 0 has to know node 1's Ethernet address, and the other way round.
        let (a, b) = pair(&mut lan, v6);
        send_to(&mut lan.nodes[0], a, b"x", addr(1, v6, 7)).unwrap();
        lan.run_until(SHORT, |lan| lan.nodes[1].events(b).contains(Events::IN));
        let (src, dst): (SocketAddr, SocketAddr) = (addr(0, v6, 0), addr(1, v6, 0));
        let ip = ip_header_len(src.ip());
        let mut packet = vec![9; ip + 5000];
        packet[ip] = if v6 { 128 } else { 8 };
        packet[ip + 1..ip + 8].fill(0);
        let protocol = if v6 { IpProtocol::Icmpv6 } else { IpProtocol::Icmp };
        emit_ip(
            &mut packet,
            src.ip(),
            dst.ip(),
            IpAttrs { dont_fragment: false, ..IpAttrs::new(protocol, 64) },
        );
        let header = parse_ip(&packet, true).unwrap();
        wire::fill_checksum(&mut packet, &header);
        let count = std::rc::Rc::new(std::cell::Cell::new(0));
        let seen = count.clone();
        lan.fate = Box::new(move |frame| {
            seen.set(seen.get() + u32::from(frame[6..12] == mac(1).0 && frame.len() > 500));
            vec![Duration::from_micros(50)]
        });
        let ethertype = if v6 { [0x86, 0xdd] } else { [8, 0] };
        for piece in crate::engine::fragment::split(&packet, 1500, 5) {
            let frame = [&mac(1).0[..], &mac(0).0, &ethertype, &piece].concat();
            lan.nodes[1].handle_frame(ETH, Frame::copy_of(&frame));
        }
        lan.run_until(SHORT, |_| count.get() == 4);
        assert_eq!(count.get(), 4);
    }
}
