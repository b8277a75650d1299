//! Levels IPPROTO_UDP and IPPROTO_UDPLITE, which Linux does not tell apart: udp(7), udplite(7).

use ioth_core::{Errno, Result};

use super::{int, put_int};
use crate::engine::ports::Space;
use crate::engine::sockets::Kind;
use crate::engine::udp::Coverage;
use crate::engine::wire::UDP_HEADER;
use crate::engine::{Engine, SocketId};

/// linux/udp.h
const UDPLITE_SEND_CSCOV: i32 = 10;
const UDPLITE_RECV_CSCOV: i32 = 11;

impl Engine {
    pub(super) fn set_udp_option(&mut self, id: SocketId, name: i32, value: &[u8]) -> Result<()> {
        let number = int(value)?;
        match name {
            libc::UDP_CORK => self.sockets[id.0].options.udp_cork = number != 0,
            libc::UDP_GRO => self.sockets[id.0].options.quiet.coalesce = number != 0,
            UDPLITE_SEND_CSCOV => self.lite_coverage(id)?.send = Some(covered(number)),
            UDPLITE_RECV_CSCOV => self.lite_coverage(id)?.receive = Some(covered(number)),
            _ => return Err(Errno::ENOPROTOOPT),
        }
        if name == libc::UDP_CORK && number == 0 {
            // Linux does not tell what became of it either.
            let _ = self.udp_uncork(id);
        }
        Ok(())
    }

    pub(super) fn udp_option(&mut self, id: SocketId, name: i32, value: &mut [u8]) -> Result<usize> {
        let sock = self.sock(id)?;
        let Kind::Datagrams(datagrams) = &sock.kind else { return Err(Errno::ENOPROTOOPT) };
        let number = match name {
            libc::UDP_CORK => i32::from(sock.options.udp_cork),
            libc::UDP_GRO => i32::from(sock.options.quiet.coalesce),
            // "The following two cannot be changed on UDP sockets, the return is always 0", says udp_lib_getsockopt().
            UDPLITE_SEND_CSCOV => i32::from(datagrams.coverage.send.unwrap_or(0)),
            UDPLITE_RECV_CSCOV => i32::from(datagrams.coverage.receive.unwrap_or(0)),
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(put_int(value, number))
    }

    fn lite_coverage(&mut self, id: SocketId) -> Result<&mut Coverage> {
        match &mut self.sockets[id.0].kind {
            Kind::Datagrams(datagrams) if datagrams.space == Space::UdpLite => Ok(&mut datagrams.coverage),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }
}

/// What Linux makes of a coverage: the header at least, or 0 for all.
fn covered(number: i32) -> u16 {
    match number {
        0 => 0,
        _ => number.clamp(UDP_HEADER as i32, u16::MAX.into()) as u16,
    }
}
