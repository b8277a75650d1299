//! Packet sockets: frames as the interfaces have them (packet(7)).
//!
//! What a socket may see of an interface it sees before the rest of the node: every frame that the interface takes, and
//! with ETH_P_ALL also those that it sends. Without such a socket a frame costs one look at an empty list.
//!
//! Where Linux hands out checksums that a network card would have computed, here they are right already.

mod members;
mod options;
mod send;
mod taps;

use ioth_core::{Errno, Events, MacAddr, MsgFlags, PacketAddr, RecvMsg, Result, SockAddr};
use ioth_vde::{Checksum, Frame};

use super::bpf::Packet;
use super::datagram::{Datagram, Inbox, LinkArrival};
use super::iface::{Iface, LOOPBACK};
use super::net::{ETHERNET_HEADER, ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use super::sockets::Kind;
use super::{Engine, SocketId, offload, wire};
use members::Membership;
pub(crate) use taps::{Sent, Taps};

/// Every protocol, and what is sent besides (`ETH_P_ALL`).
pub(crate) const ETH_P_ALL: u16 = libc::ETH_P_ALL as u16;
/// Smaller numbers in a frame's type field are lengths (IEEE 802.3).
const ETH_P_802_3_MIN: u16 = 0x0600;
/// The interface that a socket was bound to is no more; Linux shows -1.
const GONE: u32 = u32::MAX;

/// A packet socket.
#[derive(Debug, Default)]
pub(crate) struct Packets {
    /// SOCK_DGRAM: without the Ethernet header.
    cooked: bool,
    /// The EtherType that it takes, in host byte order; 0 takes none.
    protocol: u16,
    /// The interface that it is bound to; 0 for all.
    ifindex: u32,
    /// The interface that it is bound to was up when it was last looked at.
    up: bool,
    memberships: Vec<Membership>,
    /// PACKET_ORIGDEV, which is kept and changes nothing: no interface is part of another one.
    original_device: bool,
    /// PACKET_IGNORE_OUTGOING
    ignore_outgoing: bool,
    /// PACKET_STATISTICS: frames that were queued and that found no room.
    queued_frames: u32,
    dropped_frames: u32,
    pub(crate) inbox: Inbox,
}

/// A frame on its way past the packet sockets.
struct Passing<'a> {
    ifindex: u32,
    /// `PACKET_HOST`, `PACKET_OUTGOING`, ...
    kind: u8,
    /// From its Ethernet header on.
    frame: &'a Frame,
    /// The packet socket that sent it, which does not see it on its way out.
    sender: Option<SocketId>,
}

impl Packets {
    pub(crate) fn new(cooked: bool, protocol: u16) -> Packets {
        Packets { cooked, protocol, ..Packets::default() }
    }

    /// The poll bits without a pending error.
    pub(crate) fn events(&self) -> Events {
        if self.inbox.is_empty() { Events::OUT } else { Events::IN | Events::OUT }
    }

    /// Length of the frame that is next: FIONREAD.
    pub(crate) fn next_len(&self) -> usize {
        self.inbox.next_len()
    }

    /// SO_TYPE
    pub(crate) fn kind(&self) -> i32 {
        if self.cooked { libc::SOCK_DGRAM } else { libc::SOCK_RAW }
    }

    /// Whether it sees frames of a protocol on an interface.
    fn wants(&self, passing: &Passing<'_>, protocol: u16, id: SocketId) -> bool {
        let outgoing = passing.kind == libc::PACKET_OUTGOING;
        (self.ifindex == 0 || self.ifindex == passing.ifindex)
            && (self.protocol == ETH_P_ALL || (self.protocol == protocol && !outgoing))
            && !(outgoing && (self.ignore_outgoing || passing.sender == Some(id)))
    }
}

impl Engine {
    /// Counts a fresh socket in: with a protocol it sees all interfaces at once.
    pub(super) fn packet_opened(&mut self) {
        self.packet_taps();
    }

    /// bind(2): the interface, and the protocol where one is named.
    pub(super) fn packet_bind(&mut self, id: SocketId, addr: &SockAddr) -> Result<()> {
        let SockAddr::Packet(addr) = addr else { return Err(Errno::EINVAL) };
        let up = match addr.ifindex {
            0 => true,
            ifindex => self.net.tables.iface(ifindex).ok_or(Errno::ENODEV)?.is_up(),
        };
        let packets = self.packets_mut(id)?;
        if addr.protocol != 0 {
            packets.protocol = addr.protocol;
        }
        let moved = std::mem::replace(&mut packets.ifindex, addr.ifindex) != addr.ifindex;
        packets.up = up;
        // Linux: bind(2) succeeds, and the socket has an error pending until the interface is raised.
        if !up && moved && packets.protocol != 0 {
            self.sockets[id.0].error = Some(Errno::ENETDOWN);
            self.touch(id);
        }
        self.packet_taps();
        Ok(())
    }

    /// getsockname(2).
    pub(super) fn packet_local(&self, id: SocketId) -> Result<SockAddr> {
        let Kind::Packets(packets) = &self.sock(id)?.kind else { return Err(Errno::EOPNOTSUPP) };
        let mut addr =
            PacketAddr { protocol: packets.protocol, ifindex: packets.ifindex, ..PacketAddr::default() };
        if let Some(iface) = self.net.tables.iface(packets.ifindex) {
            addr.hatype = hardware_type(Some(iface));
            addr.halen = 6;
            addr.addr[..6].copy_from_slice(&iface.mac().0);
        }
        Ok(SockAddr::Packet(addr))
    }

    pub(super) fn packet_recv(
        &mut self,
        id: SocketId,
        message: &mut RecvMsg<'_, '_>,
        flags: MsgFlags,
    ) -> Result<usize> {
        // Linux knows these and no others here; our own sockets have MSG_NOSIGNAL on always.
        let known = MsgFlags::PEEK | MsgFlags::DONTWAIT | MsgFlags::TRUNC | MsgFlags::NOSIGNAL;
        if !(flags - known).is_empty() {
            return Err(Errno::EINVAL);
        }
        if let Some(error) = self.take_error(id) {
            return Err(error);
        }
        let epoch = self.net.epoch;
        let sock = &mut self.sockets[id.0];
        let Kind::Packets(packets) = &mut sock.kind else { return Err(Errno::EOPNOTSUPP) };
        let received = packets.inbox.receive(sock.domain, &sock.options, epoch, message, flags);
        if packets.inbox.is_empty() {
            self.touch(id);
        }
        received.ok_or(Errno::EAGAIN)
    }

    pub(super) fn packet_release(&mut self, id: SocketId) {
        if let Ok(packets) = self.packets_mut(id) {
            *packets = Packets::default();
        }
        self.packet_taps();
    }

    /// A frame arrived, before anybody else looks at it. `to` is where it is addressed.
    pub(super) fn packet_input(&mut self, ifindex: u32, to: MacAddr, frame: &Frame) {
        self.packet_drain();
        let Some(iface) = self.net.tables.iface(ifindex) else { return };
        let kind = match to {
            MacAddr::BROADCAST => libc::PACKET_BROADCAST,
            to if to.is_group() => libc::PACKET_MULTICAST,
            to if to == iface.mac() => libc::PACKET_HOST,
            _ => libc::PACKET_OTHERHOST,
        };
        self.packet_pass(Passing { ifindex, kind, frame, sender: None });
    }

    /// A packet of ours to ourselves, which the loopback interface gives an Ethernet header without addresses.
    pub(super) fn packet_looped(&mut self, packet: &Frame) {
        self.packet_drain();
        let frame = taps::with_empty_header(packet);
        self.packet_pass(Passing { ifindex: LOOPBACK, kind: libc::PACKET_HOST, frame: &frame, sender: None });
    }

    /// Shows what was sent since the last time, in its place between what arrived.
    pub(super) fn packet_drain(&mut self) {
        while let Some(Sent { ifindex, frame, sender }) = self.net.taps.pop_sent() {
            self.packet_pass(Passing { ifindex, kind: libc::PACKET_OUTGOING, frame: &frame, sender });
        }
    }

    /// Tells sockets of interfaces that went down, or are no more.
    pub(super) fn packet_links(&mut self) {
        if !self.net.taps.links_changed(self.net.tables.generation()) {
            return;
        }
        for id in self.net.taps.take_sockets() {
            let Some(sock) = self.sockets.get_mut(id.0) else { continue };
            let Kind::Packets(packets) = &mut sock.kind else { continue };
            if packets.ifindex == 0 || packets.ifindex == GONE {
                continue;
            }
            let iface = self.net.tables.iface(packets.ifindex);
            let up = iface.is_some_and(Iface::is_up);
            if iface.is_none() {
                packets.ifindex = GONE;
            }
            if std::mem::replace(&mut packets.up, up) && !up {
                sock.error = Some(Errno::ENETDOWN);
                self.touch(id);
            }
        }
        self.packet_taps();
    }

    fn packet_pass(&mut self, passing: Passing<'_>) {
        let frame = passing.frame;
        let protocol = protocol_of(frame);
        let hatype = hardware_type(self.net.tables.iface(passing.ifindex));
        let mut source = PacketAddr {
            protocol,
            ifindex: passing.ifindex,
            hatype,
            pkttype: passing.kind,
            halen: 6,
            addr: [0; 8],
        };
        source.addr[..6].copy_from_slice(&frame[6..12]);
        let sockets = self.net.taps.take_sockets();
        for &id in &sockets {
            let Some(sock) = self.sockets.get_mut(id.0) else { continue };
            let Kind::Packets(packets) = &mut sock.kind else { continue };
            if !packets.wants(&passing, protocol, id) {
                continue;
            }
            let start = if packets.cooked { ETHERNET_HEADER } else { 0 };
            let keep = sock.attached.run(|| Packet {
                bytes: frame,
                start,
                link: Some(0),
                network: ETHERNET_HEADER,
                protocol,
                kind: passing.kind,
                ifindex: passing.ifindex,
                hatype,
                random: self.net.random.next_u64() as u32,
            });
            if keep == 0 {
                continue;
            }
            let mut payload = presentable(frame);
            payload.pull_front(start);
            let link = LinkArrival {
                len: payload.len(),
                network: ETHERNET_HEADER - start,
                verified: frame.checksum == Checksum::Trusted && passing.kind != libc::PACKET_OUTGOING,
            };
            payload.truncate(keep);
            let (source, time) = (SockAddr::Packet(source), self.net.now);
            let was_empty = packets.inbox.is_empty();
            let datagram = Datagram { source, payload, time, ip: None, link: Some(link), options: None };
            if !packets.inbox.push(datagram, &sock.options) {
                packets.dropped_frames = packets.dropped_frames.wrapping_add(1);
                self.net.drops.receive_buffer += 1;
                continue;
            }
            packets.queued_frames = packets.queued_frames.wrapping_add(1);
            if was_empty {
                self.touch(id);
            }
        }
        self.net.taps.put_sockets(sockets);
    }

    /// Brings what layer 2 asks once a frame in line with the sockets.
    fn packet_taps(&mut self) {
        self.net.taps.clear();
        for (at, sock) in &self.sockets {
            if let Kind::Packets(packets) = &sock.kind {
                self.net.taps.add(SocketId(at), packets);
            }
        }
        self.net.taps.settle();
    }

    fn packets_mut(&mut self, id: SocketId) -> Result<&mut Packets> {
        match self.sockets.get_mut(id.0).map(|sock| &mut sock.kind) {
            Some(Kind::Packets(packets)) => Ok(packets),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }
}

/// A copy with all its checksums, which a trusted link leaves out.
fn presentable(frame: &Frame) -> Frame {
    let mut copy = frame.clone();
    if copy.checksum == Checksum::Trusted {
        copy.pull_front(ETHERNET_HEADER);
        // Of a fragment they are the whole packet's.
        if wire::parse_ip(&copy, false).is_ok_and(|header| header.fragment.is_none()) {
            offload::fill_checksums(&mut copy);
        }
        copy.push_front(ETHERNET_HEADER);
    }
    copy
}

/// The protocol by Linux's `eth_type_trans`: what has a length instead is 802.2, or Novell's 802.3.
fn protocol_of(frame: &[u8]) -> u16 {
    let number = u16::from_be_bytes([frame[12], frame[13]]);
    match frame.get(ETHERNET_HEADER..ETHERNET_HEADER + 2) {
        _ if number >= ETH_P_802_3_MIN => number,
        Some([0xff, 0xff]) => libc::ETH_P_802_3 as u16,
        _ => libc::ETH_P_802_2 as u16,
    }
}

/// The EtherType of an IP packet.
pub(crate) fn ethertype_of(packet: &[u8]) -> u16 {
    if packet.first().is_some_and(|byte| byte >> 4 == 4) { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 }
}

/// `ARPHRD_*`
pub(crate) fn hardware_type(iface: Option<&Iface>) -> u16 {
    match iface {
        Some(iface) if iface.is_loopback() => libc::ARPHRD_LOOPBACK,
        _ => libc::ARPHRD_ETHER,
    }
}
