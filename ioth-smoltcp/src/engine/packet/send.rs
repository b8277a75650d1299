//! Frames that packet sockets send.

use ioth_core::{Errno, PacketAddr, Result, SendMsg, SockAddr};
use ioth_vde::Frame;

use super::protocol_of;
use crate::engine::datagram::SendControl;
use crate::engine::iface::LOOPBACK;
use crate::engine::net::{ETHERNET_HEADER, ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use crate::engine::{Engine, SocketId};

/// Room that Linux leaves for a VLAN tag on interfaces that do not count it, in bytes.
const VLAN_TAG: usize = 4;
const ETH_P_8021Q: u16 = libc::ETH_P_8021Q as u16;

impl Engine {
    /// sendmsg(2): a whole frame, or with SOCK_DGRAM what follows its header. Linux's `packet_snd`.
    ///
    /// # Errors
    /// `EINVAL` for an address or a frame that cannot be, `ENXIO` without an interface, `ENETDOWN`, `EMSGSIZE`,
    /// `EAGAIN` while the link takes nothing, and a pending error.
    pub(in crate::engine) fn packet_send(&mut self, id: SocketId, message: &SendMsg<'_>) -> Result<usize> {
        let packets = self.packets_mut(id)?;
        let (cooked, bound, protocol) = (packets.cooked, packets.ifindex, packets.protocol);
        let to = match message.addr {
            None => None,
            Some(SockAddr::Packet(to)) if usize::from(to.halen) <= to.addr.len() => Some(*to),
            // Linux reads any family as its own, which says nothing of use.
            Some(_) => return Err(Errno::EINVAL),
        };
        let (ifindex, protocol) = to.map_or((bound, protocol), |to| (to.ifindex, to.protocol));
        let iface = self.net.tables.iface(ifindex).ok_or(Errno::ENXIO)?;
        let (mac, mtu, up) = (iface.mac(), iface.mtu(), iface.is_up());
        if !up {
            return Err(Errno::ENETDOWN);
        }
        SendControl::check_stream(message.control)?;
        let len = message.len();
        let header = if cooked { ETHERNET_HEADER } else { 0 };
        let longest = mtu + ETHERNET_HEADER - header;
        if len > longest + VLAN_TAG {
            return Err(Errno::EMSGSIZE);
        }
        if let Some(error) = self.take_error(id) {
            return Err(error);
        }
        if self.net.congested(ifindex) {
            self.stall(id);
            return Err(Errno::EAGAIN);
        }
        let mut frame = Frame::new(header + len);
        if cooked {
            let destination = destination(to, ifindex)?;
            let field = if is_802(protocol) { len as u16 } else { protocol };
            frame[..6].copy_from_slice(&destination);
            frame[6..12].copy_from_slice(&mac.0);
            frame[12..14].copy_from_slice(&field.to_be_bytes());
        }
        let mut at = header;
        for slice in message.data {
            frame[at..at + slice.len()].copy_from_slice(slice);
            at += slice.len();
        }
        if frame.len() < ETHERNET_HEADER || len == 0 {
            return Err(Errno::EINVAL);
        }
        if len > longest && frame[12..14] != ETH_P_8021Q.to_be_bytes() {
            return Err(Errno::EMSGSIZE);
        }
        if ifindex == LOOPBACK {
            self.packet_loop(id, frame);
        } else {
            self.net.send_frame(ifindex, frame, Some(id));
        }
        Ok(len)
    }

    /// A frame goes round the loopback interface: out, and in again.
    fn packet_loop(&mut self, id: SocketId, mut frame: Frame) {
        self.net.taps.sent(LOOPBACK, &frame, Some(id));
        self.packet_drain();
        let to = ioth_core::MacAddr(frame[..6].try_into().expect("a whole header"));
        self.packet_input(LOOPBACK, to, &frame);
        let ours = to.is_group() || self.net.tables.iface(LOOPBACK).is_some_and(|iface| iface.mac() == to);
        if ours && matches!(protocol_of(&frame), ETHERTYPE_IPV4 | ETHERTYPE_IPV6) {
            frame.pull_front(ETHERNET_HEADER);
            self.ip_input(LOOPBACK, frame);
        }
    }
}

/// Where a frame of a SOCK_DGRAM socket goes. The loopback interface needs no address.
fn destination(to: Option<PacketAddr>, ifindex: u32) -> Result<[u8; 6]> {
    match to {
        Some(to) => {
            let [a, b, c, d, e, f, ..] = to.addr;
            Ok([a, b, c, d, e, f])
        }
        None if ifindex == LOOPBACK => Ok([0; 6]),
        None => Err(Errno::EINVAL),
    }
}

/// Protocols whose frames have their length in the place of the type.
fn is_802(protocol: u16) -> bool {
    matches!(i32::from(protocol), libc::ETH_P_802_3 | libc::ETH_P_802_2)
}
