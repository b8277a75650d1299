//! Level IPPROTO_TCP: tcp(7).

use ioth_core::{Errno, Result};

use super::{int, put_int, within};
use crate::engine::sockets::Kind;
use crate::engine::{Engine, SocketId};

/// Bounds of TCP_KEEPIDLE and TCP_KEEPINTVL in seconds (MAX_TCP_KEEPIDLE), and of TCP_KEEPCNT.
const KEEP_SECONDS: std::ops::RangeInclusive<i32> = 1..=32_767;
const KEEP_COUNT: std::ops::RangeInclusive<i32> = 1..=127;

impl Engine {
    pub(super) fn set_tcp_option(&mut self, id: SocketId, name: i32, value: &[u8]) -> Result<()> {
        let number = int(value)?;
        let options = &mut self.sockets[id.0].options;
        match name {
            libc::TCP_NODELAY => options.no_delay = number != 0,
            libc::TCP_KEEPIDLE => options.keep_idle = within(number, KEEP_SECONDS)?,
            libc::TCP_KEEPINTVL => options.keep_interval = within(number, KEEP_SECONDS)?,
            libc::TCP_KEEPCNT => options.keep_count = within(number, KEEP_COUNT)?,
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }

    pub(super) fn tcp_option(&mut self, id: SocketId, name: i32, value: &mut [u8]) -> Result<usize> {
        let sock = self.sock(id)?;
        let Kind::Stream(stream) = &sock.kind else { return Err(Errno::ENOPROTOOPT) };
        let number = match name {
            libc::TCP_NODELAY => i32::from(sock.options.no_delay),
            libc::TCP_KEEPIDLE => sock.options.keep_idle as i32,
            libc::TCP_KEEPINTVL => sock.options.keep_interval as i32,
            libc::TCP_KEEPCNT => sock.options.keep_count as i32,
            libc::TCP_MAXSEG => stream.mss() as i32,
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(put_int(value, number))
    }
}
