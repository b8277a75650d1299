//! Telling the neighbours that an address has a new interface.
//!
//! Read first: RFC 5227 §2.3, RFC 4861 §7.2.6.
//!
//! Each node process has Ethernet addresses of its own. Started again with the same IP address, a server would not be reached
//! for a minute by neighbours who remember the interface that it had before.

use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};

use ioth::core::PacketAddr;
use ioth::core::netlink::LinkFlags;
use ioth::{Domain, Errno, InterfaceAddress, MsgFlags, SendMsg, SockAddr, SocketType, Stack};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Announces all addresses of a node. Nobody has to hear it: what cannot be sent is not.
pub(crate) fn announce(stack: &Stack) {
    let Ok(entries) = stack.getifaddrs() else {
        return;
    };
    for entry in &entries {
        let (Some(mac), Some(ip)) = (hardware_address(&entries, entry), entry.addr.as_ip()) else {
            continue;
        };
        let _ = match ip.ip() {
            IpAddr::V4(ip) => by_arp(stack, entry.index, mac, ip),
            IpAddr::V6(ip) => by_advertisement(stack, entry.index, mac, ip),
        };
    }
}

/// The Ethernet address of an address' interface, where that is up and has neighbours.
fn hardware_address(entries: &[InterfaceAddress], of: &InterfaceAddress) -> Option<[u8; 6]> {
    let silent = LinkFlags::LOOPBACK | LinkFlags::NOARP;
    entries.iter().filter(|entry| entry.index == of.index).find_map(|entry| match entry.addr {
        SockAddr::Packet(addr)
            if addr.halen == 6 && entry.flags.contains(LinkFlags::UP) && !entry.flags.intersects(silent) =>
        {
            addr.addr.first_chunk().copied()
        }
        _ => None,
    })
}

/// "An ARP announcement is identical to the ARP Probe described above, except that now the sender and target IP addresses
/// are both set to the host's newly selected IPv4 address."
fn by_arp(stack: &Stack, ifindex: u32, mac: [u8; 6], ip: Ipv4Addr) -> Result<(), Errno> {
    let protocol = libc::ETH_P_ARP as u16;
    let socket = stack.socket(Domain::PACKET, SocketType::DGRAM, i32::from(protocol.to_be()))?;
    let mut addr = [0xff; 8];
    addr[6..].fill(0);
    let to = SockAddr::Packet(PacketAddr { protocol, ifindex, halen: 6, addr, ..PacketAddr::default() });
    let packet = arp_announcement(mac, ip);
    socket
        .send(&SendMsg { addr: Some(&to), ..SendMsg::new(&[IoSlice::new(&packet)]) }, MsgFlags::DONTWAIT)?;
    Ok(())
}

/// RFC 826: Ethernet, IPv4, lengths 6 and 4, a request.
fn arp_announcement(mac: [u8; 6], ip: Ipv4Addr) -> Vec<u8> {
    let begin = [0, 1, 8, 0, 6, 4, 0, 1];
    [&begin[..], &mac, &ip.octets(), &[0; 6], &ip.octets()].concat()
}

fn by_advertisement(stack: &Stack, ifindex: u32, mac: [u8; 6], ip: Ipv6Addr) -> Result<(), Errno> {
    let socket = stack.socket(Domain::INET6, SocketType::RAW, libc::IPPROTO_ICMPV6)?;
    let index = (ifindex as i32).to_ne_bytes();
    socket.set_option(libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, &index)?;
    // RFC 4861 §7.1.2: "The IP Hop Limit field has a value of 255".
    socket.set_option(libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, &255i32.to_ne_bytes())?;
    socket.set_option(libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, &0i32.to_ne_bytes())?;
    let at = |ip| SockAddr::from(std::net::SocketAddr::V6(SocketAddrV6::new(ip, 0, 0, ifindex)));
    socket.bind(&at(ip))?;
    let to = at(ALL_NODES);
    let packet = advertisement(mac, ip);
    socket
        .send(&SendMsg { addr: Some(&to), ..SendMsg::new(&[IoSlice::new(&packet)]) }, MsgFlags::DONTWAIT)?;
    Ok(())
}

/// RFC 4861 §4.4, with the Override flag and the target's link-layer address; the stack computes the checksum.
fn advertisement(mac: [u8; 6], ip: Ipv6Addr) -> Vec<u8> {
    let begin = [136, 0, 0, 0, 0x20, 0, 0, 0];
    let option = [2, 1];
    [&begin[..], &ip.octets(), &option, &mac].concat()
}

#[cfg(test)]
mod tests {
    use std::io::IoSliceMut;
    use std::time::Duration;

    use ioth::RecvMsg;

    use super::*;

    #[test]
    fn neighbours_hear_of_every_address() {
        let listener = Stack::new("stack=smoltcp,vnl=hub://announce,ip=10.0.0.9/24").unwrap();
        let all = libc::ETH_P_ALL as u16;
        let socket = listener.socket(Domain::PACKET, SocketType::DGRAM, i32::from(all.to_be())).unwrap();
        let patience = [Duration::from_secs(20).as_secs() as i64, 0].map(i64::to_ne_bytes).concat();
        socket.set_option(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &patience).unwrap();
        let node = Stack::new("stack=smoltcp,vnl=hub://announce,ip=10.0.0.1/24,ip=fd00::1/64").unwrap();
        let mac = node.linkgetaddr(node.if_nametoindex("vde0").unwrap()).unwrap().unwrap().0;
        announce(&node);
        let mut missing = vec![
            arp_announcement(mac, Ipv4Addr::new(10, 0, 0, 1)),
            advertisement(mac, "fd00::1".parse().unwrap()),
        ];
        while !missing.is_empty() {
            let mut buffer = [0; 1500];
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let len = socket.recv(&mut RecvMsg::new(&mut parts), MsgFlags::empty()).unwrap();
            let packet = &buffer[..len];
            missing.retain(|wanted| {
                // An IPv6 packet has its header, and a checksum in the message.
                let is_arp = wanted.len() == 28;
                let heard = match packet.get(40..) {
                    Some(message) if !is_arp && message.len() == wanted.len() => {
                        message[..2] == wanted[..2] && message[4..] == wanted[4..] && packet[7] == 255
                    }
                    _ => packet.starts_with(wanted),
                };
                !heard
            });
        }
    }

    #[test]
    fn a_node_without_neighbours_says_nothing() {
        announce(&Stack::new("stack=smoltcp").unwrap());
    }
}
