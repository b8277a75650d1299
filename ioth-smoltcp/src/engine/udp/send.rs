//! UDP on the way out: one datagram a call, or several calls for one (MSG_MORE, UDP_CORK).

use std::net::SocketAddr;

use ioth_core::{Domain, Errno, MsgFlags, Result, SendMsg};
use ioth_vde::{Checksum, Frame};
use smoltcp::wire::{IpProtocol, UdpPacket};

use super::Datagrams;
use crate::engine::calls::Use;
use crate::engine::datagram::Way;
use crate::engine::ports::Space;
use crate::engine::wire::{self, UDP_HEADER, ip_header_len};
use crate::engine::{Engine, SocketId, offload};

/// What RFC 768's length field can tell, in bytes.
const MAX_LENGTH: usize = 65_535;

/// A datagram that is being put together: its way is that of its first piece.
#[derive(Debug)]
pub(super) struct Cork {
    way: Way,
    port: u16,
    data: Vec<u8>,
}

impl Cork {
    /// connect(2) was called meanwhile.
    pub(super) fn redirect(&mut self, way: Way, port: u16) {
        self.way = way;
        self.port = port;
    }
}

impl Engine {
    pub(in crate::engine) fn udp_send(
        &mut self,
        id: SocketId,
        message: &SendMsg<'_>,
        flags: MsgFlags,
    ) -> Result<usize> {
        self.udp_autobind(id)?;
        let len = message.len();
        if len > MAX_LENGTH && self.sockets[id.0].domain == Domain::INET {
            return Err(Errno::EMSGSIZE);
        }
        let corked = flags.contains(MsgFlags::MORE) || self.sockets[id.0].options.udp_cork;
        // What is under way decides where to; a destination given now is not looked at.
        if let Some(mut cork) = self.datagrams_mut(id)?.cork.take() {
            // Linux: a piece that does not fit loses the others, too.
            cork.way.takes(UDP_HEADER + cork.data.len() + len)?;
            // A call that waits comes again with the same piece: it is taken when it can go, and not before. Pieces
            // that stay wait as well, for what is taken leaves whatever the link says.
            if self.net.congested(cork.way.path.ifindex) {
                self.datagrams_mut(id)?.cork = Some(cork);
                self.stall(id);
                return Err(Errno::EAGAIN);
            }
            gather(&mut cork.data, message);
            if corked {
                self.datagrams_mut(id)?.cork = Some(cork);
                return Ok(len);
            }
            return self.udp_push(id, &cork).map(|()| len);
        }
        let (destination, way) = self.udp_way(id, message)?;
        // IPv6's udpv6_sendmsg() does not look at it.
        if flags.contains(MsgFlags::OOB) && destination.is_ipv4() {
            return Err(Errno::EOPNOTSUPP);
        }
        way.takes(UDP_HEADER + len)?;
        if let Some(error) = self.take_error(id) {
            return Err(error);
        }
        if self.datagrams_mut(id)?.shut_write {
            return Err(Errno::EPIPE);
        }
        if self.net.congested(way.path.ifindex) {
            self.stall(id);
            return Err(Errno::EAGAIN);
        }
        if corked {
            let mut cork = Box::new(Cork { way, port: destination.port(), data: Vec::with_capacity(len) });
            gather(&mut cork.data, message);
            self.datagrams_mut(id)?.cork = Some(cork);
            return Ok(len);
        }
        let data = message.data.iter().map(|slice| &**slice);
        self.udp_output(id, &way, destination.port(), len, data)?;
        Ok(len)
    }

    /// UDP_CORK was taken off: what is there goes, and nothing of it stays for what is sent next.
    pub(in crate::engine) fn udp_uncork(&mut self, id: SocketId) -> Result<()> {
        match self.datagrams_mut(id)?.cork.take() {
            Some(cork) => self.udp_push(id, &cork),
            None => Ok(()),
        }
    }

    fn udp_way(&mut self, id: SocketId, message: &SendMsg<'_>) -> Result<(SocketAddr, Way)> {
        let Datagrams { peer, bound, .. } = *self.datagrams_mut(id)?;
        let destination = match message.addr {
            Some(addr) => {
                let destination = self.destination(id, addr, Use::Send)?;
                // IPv6's udpv6_sendmsg() looks at the length later.
                if destination.is_ipv4() && message.len() > MAX_LENGTH {
                    return Err(Errno::EMSGSIZE);
                }
                if destination.port() == 0 {
                    return Err(Errno::EINVAL);
                }
                destination
            }
            None => peer.ok_or(Errno::EDESTADDRREQ)?,
        };
        let way = self.way(id, destination, bound.map(|addr| addr.ip()), message.control)?;
        Ok((destination, way))
    }

    /// Sends the pieces as one. The link was asked before they were taken, so that no more than one datagram a socket
    /// comes on top of what it takes.
    fn udp_push(&mut self, id: SocketId, cork: &Cork) -> Result<()> {
        // connect(2) may have led to where less fits.
        cork.way.takes(UDP_HEADER + cork.data.len())?;
        self.udp_output(id, &cork.way, cork.port, cork.data.len(), std::iter::once(&cork.data[..]))
    }

    fn udp_output<'a>(
        &mut self,
        id: SocketId,
        way: &Way,
        port: u16,
        len: usize,
        data: impl Iterator<Item = &'a [u8]>,
    ) -> Result<()> {
        let datagrams = self.datagrams_mut(id)?;
        let source = datagrams.bound.ok_or(Errno::EINVAL)?.port();
        let (space, whole) = (datagrams.space, UDP_HEADER + len);
        // udplite_csum(): a whole that is covered whole is told so by its length.
        let told = match datagrams.coverage.send {
            Some(covered) if usize::from(covered) < whole => usize::from(covered),
            _ => whole,
        };
        let protocol = if space == Space::UdpLite { wire::UDP_LITE } else { IpProtocol::Udp };
        let ip = ip_header_len(way.destination);
        let mut packet = Frame::new(ip + whole);
        wire::emit_ip(&mut packet, way.source, way.destination, way.attrs(protocol));
        let mut udp = UdpPacket::new_unchecked(&mut packet[ip..]);
        udp.set_src_port(source);
        udp.set_dst_port(port);
        udp.set_len(told as u16);
        udp.set_checksum(0);
        let mut at = ip + UDP_HEADER;
        for slice in data {
            packet[at..at + slice.len()].copy_from_slice(slice);
            at += slice.len();
        }
        packet.checksum = Checksum::Trusted;
        // No link knows what such a checksum covers.
        if space == Space::UdpLite {
            offload::fill_checksums(&mut packet);
        }
        self.send_by(way, packet);
        Ok(())
    }
}

fn gather(to: &mut Vec<u8>, message: &SendMsg<'_>) {
    for slice in message.data {
        to.extend_from_slice(slice);
    }
}
