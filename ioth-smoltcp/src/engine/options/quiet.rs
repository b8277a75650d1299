//! Options that are told back, and nothing else: what they ask for is so already, or is nothing that a node has.

use ioth_core::{Errno, Result};

/// linux/tcp.h, linux/udp.h, asm-generic/socket.h; libc lacks some of these.
pub(super) const SO_BSDCOMPAT: i32 = 14;
pub(super) const SO_CNX_ADVICE: i32 = 53;
pub(super) const SO_BUSY_POLL_BUDGET: i32 = 70;
pub(super) const SO_TXREHASH: i32 = 74;
pub(super) const TCP_IS_MPTCP: i32 = 43;

/// Switches of SOL_SOCKET: nothing is logged (SO_DEBUG); checksums are always sent (SO_NO_CHECK); links are no wireless ones and
/// make their frames' check sequences themselves (SO_WIFI_STATUS, SO_NOFCS); how a call waits is the driver's affair
/// (SO_PREFER_BUSY_POLL).
const SWITCHES: [i32; 5] =
    [libc::SO_DEBUG, libc::SO_NO_CHECK, libc::SO_WIFI_STATUS, libc::SO_NOFCS, libc::SO_PREFER_BUSY_POLL];

/// What was set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quiet {
    /// A bit for each of [`SWITCHES`].
    switches: u8,
    /// SO_MARK: nothing looks at it, for there are no rules.
    pub(super) mark: i32,
    /// SO_BUSY_POLL: as SO_PREFER_BUSY_POLL.
    busy_poll: i32,
    /// SO_TXREHASH: a route is one way.
    rehash: bool,
    /// TCP_THIN_LINEAR_TIMEOUTS: time-outs grow for thin streams, too.
    pub(super) thin: bool,
    /// UDP_GRO: each datagram is received by itself, which programs have to be ready for in any case.
    pub(super) coalesce: bool,
    /// IP_PASSSEC: packets have no security context.
    pub(super) pass_security: bool,
}

impl Default for Quiet {
    fn default() -> Self {
        Quiet {
            switches: 0,
            mark: 0,
            busy_poll: 0,
            // Linux's net.core.txrehash.
            rehash: true,
            thin: false,
            coalesce: false,
            pass_security: false,
        }
    }
}

impl Quiet {
    /// setsockopt(2) of level SOL_SOCKET.
    ///
    /// # Errors
    /// `EINVAL` for values out of bounds, `ENOPROTOOPT` for what is not here.
    pub(super) fn set(&mut self, name: i32, number: i32, stream: bool) -> Result<()> {
        if let Some(at) = SWITCHES.iter().position(|switch| *switch == name) {
            self.switches = self.switches & !(1 << at) | u8::from(number != 0) << at;
            return Ok(());
        }
        match (name, number) {
            // The first has been of no effect on Linux, too, since its version 2.2; the second is about neighbours that do not answer,
            // which are asked again by themselves.
            (SO_BSDCOMPAT | SO_CNX_ADVICE, _) => {}
            (libc::SO_MARK, _) => self.mark = number,
            (libc::SO_BUSY_POLL, 0..) => self.busy_poll = number,
            (SO_BUSY_POLL_BUDGET, 0..=0xffff) => {}
            (libc::SO_BUSY_POLL | SO_BUSY_POLL_BUDGET, _) => return Err(Errno::EINVAL),
            (SO_TXREHASH, _) if !stream => return Err(Errno::EOPNOTSUPP),
            // -1 stands for the default.
            (SO_TXREHASH, -1..=1) => self.rehash = number != 0,
            (SO_TXREHASH, _) => return Err(Errno::EINVAL),
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }

    /// getsockopt(2) of level SOL_SOCKET.
    ///
    /// # Errors
    /// `ENOPROTOOPT` for what is not here.
    pub(super) fn get(&self, name: i32, stream: bool) -> Result<i32> {
        if let Some(at) = SWITCHES.iter().position(|switch| *switch == name) {
            return Ok(i32::from(self.switches >> at & 1));
        }
        match name {
            SO_BSDCOMPAT | libc::SO_INCOMING_NAPI_ID => Ok(0),
            libc::SO_MARK => Ok(self.mark),
            libc::SO_BUSY_POLL => Ok(self.busy_poll),
            SO_TXREHASH if stream => Ok(self.rehash.into()),
            SO_TXREHASH => Err(Errno::EOPNOTSUPP),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }
}
