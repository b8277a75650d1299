//! Level IPPROTO_TCP: tcp(7).

use ioth_core::{Errno, Result};

use super::quiet::TCP_IS_MPTCP;
use super::{int, put, put_int, within};
use crate::engine::sockets::Kind;
use crate::engine::tcp::Congestion;
use crate::engine::{Engine, SocketId};

/// Bounds of TCP_KEEPIDLE and TCP_KEEPINTVL in seconds (MAX_TCP_KEEPIDLE), and of TCP_KEEPCNT and TCP_SYNCNT.
const KEEP_SECONDS: std::ops::RangeInclusive<i32> = 1..=32_767;
const COUNT: std::ops::RangeInclusive<i32> = 1..=127;
const SWITCH: std::ops::RangeInclusive<i32> = 0..=1;
/// Bounds of TCP_MAXSEG: TCP_MIN_MSS and MAX_TCP_WINDOW.
const SEGMENT: std::ops::RangeInclusive<i32> = 88..=32_767;
/// The length of a congestion control's name, with its end: TCP_CA_NAME_MAX.
const NAME_LEN: usize = 16;

impl Engine {
    pub(super) fn set_tcp_option(&mut self, id: SocketId, name: i32, value: &[u8]) -> Result<()> {
        if name == libc::TCP_CONGESTION {
            return self.set_congestion(id, value);
        }
        let number = int(value)?;
        let sock = &mut self.sockets[id.0];
        let Kind::Stream(stream) = &mut sock.kind else { return Err(Errno::ENOPROTOOPT) };
        let options = &mut sock.options.tcp;
        match name {
            libc::TCP_NODELAY => {
                options.no_delay = number != 0;
                // tcp(7): "setting this option forces an explicit flush of pending output, even if TCP_CORK is
                // currently set".
                if options.no_delay {
                    stream.uncork();
                }
            }
            libc::TCP_CORK => options.cork = number != 0,
            libc::TCP_QUICKACK => {
                options.quick_ack = number != 0;
                stream.quick_ack(options.quick_ack);
            }
            libc::TCP_MAXSEG => {
                // Linux: 0 takes the limit away.
                let size = if number == 0 { 0 } else { within(number, SEGMENT)? };
                options.max_segment = u16::try_from(size).ok().filter(|size| *size != 0);
            }
            libc::TCP_KEEPIDLE => options.keep_idle = within(number, KEEP_SECONDS)?,
            libc::TCP_KEEPINTVL => options.keep_interval = within(number, KEEP_SECONDS)?,
            libc::TCP_KEEPCNT => options.keep_count = within(number, COUNT)?,
            libc::TCP_SYNCNT => options.syn_retries = within(number, COUNT)? as u8,
            libc::TCP_USER_TIMEOUT => {
                options.user_timeout = u32::try_from(number).map_err(|_| Errno::EINVAL)?;
            }
            libc::TCP_DEFER_ACCEPT => options.set_defer_accept(number),
            libc::TCP_LINGER2 => options.set_linger2(number),
            libc::TCP_WINDOW_CLAMP if options.set_window_clamp(number, stream.is_closed()) => {}
            libc::TCP_WINDOW_CLAMP => return Err(Errno::EINVAL),
            libc::TCP_THIN_LINEAR_TIMEOUTS => sock.options.quiet.thin = within(number, SWITCH)? == 1,
            // Linux knows only its number any more.
            libc::TCP_THIN_DUPACK => drop(within(number, SWITCH)?),
            // TCP_INFO is read only.
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }

    pub(super) fn tcp_option(&mut self, id: SocketId, name: i32, value: &mut [u8]) -> Result<usize> {
        let now = self.net.now;
        let sock = self.sock(id)?;
        let Kind::Stream(stream) = &sock.kind else { return Err(Errno::ENOPROTOOPT) };
        let options = &sock.options.tcp;
        let number = match name {
            libc::TCP_INFO => return Ok(put(value, &stream.info(now))),
            libc::TCP_CONGESTION => {
                let mut padded = [0; NAME_LEN];
                let name = options.congestion.name().as_bytes();
                padded[..name.len()].copy_from_slice(name);
                return Ok(put(value, &padded));
            }
            libc::TCP_NODELAY => i32::from(options.no_delay),
            libc::TCP_CORK => i32::from(options.cork),
            libc::TCP_QUICKACK => i32::from(options.quick_ack),
            libc::TCP_MAXSEG => stream.max_segment(options) as i32,
            libc::TCP_KEEPIDLE => options.keep_idle as i32,
            libc::TCP_KEEPINTVL => options.keep_interval as i32,
            libc::TCP_KEEPCNT => options.keep_count as i32,
            libc::TCP_SYNCNT => i32::from(options.syn_retries),
            libc::TCP_USER_TIMEOUT => options.user_timeout as i32,
            libc::TCP_DEFER_ACCEPT => options.defer_accept_seconds() as i32,
            libc::TCP_LINGER2 => options.linger2(),
            libc::TCP_WINDOW_CLAMP => options.window_clamp() as i32,
            libc::TCP_THIN_LINEAR_TIMEOUTS => i32::from(sock.options.quiet.thin),
            libc::TCP_THIN_DUPACK | TCP_IS_MPTCP => 0,
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(put_int(value, number))
    }

    /// Linux takes the name up to its end or 15 bytes.
    fn set_congestion(&mut self, id: SocketId, value: &[u8]) -> Result<()> {
        if value.is_empty() {
            return Err(Errno::EINVAL);
        }
        let name = &value[..value.len().min(NAME_LEN - 1)];
        let name = name.split(|byte| *byte == 0).next().unwrap_or(&[]);
        let congestion = Congestion::by_name(name).ok_or(Errno::ENOENT)?;
        self.sockets[id.0].options.tcp.congestion = congestion;
        Ok(())
    }
}
