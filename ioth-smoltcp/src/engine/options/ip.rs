//! Level IPPROTO_IP: ip(7). IPv6 sockets have it too, for what they send to mapped addresses.

use ioth_core::{Errno, Result};

use super::{class, int, put_int};
use crate::engine::sockets::DEFAULT_HOPS;
use crate::engine::{Engine, SocketId};

impl Engine {
    pub(super) fn set_ip_option(&mut self, id: SocketId, name: i32, value: &[u8]) -> Result<()> {
        // These options take a byte as well as an int.
        let number = match value {
            [byte] => i32::from(*byte),
            _ => int(value)?,
        };
        let sock = &mut self.sockets[id.0];
        let options = &mut sock.options;
        match (name, number) {
            (libc::IP_TTL, -1) => options.ttl = None,
            (libc::IP_TTL, 1..=255) => options.ttl = Some(number as u8),
            (libc::IP_TTL, _) => return Err(Errno::EINVAL),
            (libc::IP_TOS, _) => options.tos = class(&sock.kind, options.tos, number as u8),
            (libc::IP_PKTINFO, _) => options.report.pktinfo = number != 0,
            (libc::IP_RECVTTL, _) => options.report.ttl = number != 0,
            (libc::IP_RECVTOS, _) => options.report.tos = number != 0,
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }

    pub(super) fn ip_option(&mut self, id: SocketId, name: i32, value: &mut [u8]) -> Result<usize> {
        let options = self.sock(id)?.options;
        let number = match name {
            libc::IP_TTL => i32::from(options.ttl.unwrap_or(DEFAULT_HOPS)),
            libc::IP_TOS => i32::from(options.tos),
            libc::IP_PKTINFO => i32::from(options.report.pktinfo),
            libc::IP_RECVTTL => i32::from(options.report.ttl),
            libc::IP_RECVTOS => i32::from(options.report.tos),
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(put_int(value, number))
    }
}
