//! Word of what changes.

use std::fmt;
use std::io::IoSliceMut;
use std::sync::Arc;
use std::time::Instant;

use super::Result;
use super::client::{retry, timeval};
use crate::{Domain, Errno, MsgFlags, RecvMsg, SockAddr, Socket, SocketType, Stack};

/// Tells that interfaces or addresses of a stack have changed, by whomever, as `ip monitor link address` does.
///
/// What they are now, [`Route`](super::Route) tells. Like that it holds a socket of the stack open.
pub struct Changes {
    socket: Arc<dyn Socket>,
}

impl Changes {
    /// Listens from now on: a change after this is told.
    ///
    /// # Errors
    /// What socket(2) and bind(2) give; `EAFNOSUPPORT` from a stack without netlink.
    pub fn new(stack: &dyn Stack) -> Result<Self> {
        const GROUPS: [u32; 3] = [libc::RTNLGRP_LINK, libc::RTNLGRP_IPV4_IFADDR, libc::RTNLGRP_IPV6_IFADDR];
        let socket = stack.socket(Domain::NETLINK, SocketType::RAW, libc::NETLINK_ROUTE)?;
        let groups = GROUPS.into_iter().fold(0, |groups, group| groups | 1 << (group - 1));
        socket.bind(&SockAddr::Netlink { port: 0, groups })?;
        Ok(Changes { socket })
    }

    /// Waits for a change that was not told yet: false when there is none until the deadline.
    ///
    /// # Errors
    /// As recv(2).
    pub fn wait(&self, deadline: Instant) -> Result<bool> {
        let left = deadline.saturating_duration_since(Instant::now());
        // A time-out of nothing would be none.
        if left.as_micros() == 0 {
            return Ok(false);
        }
        self.socket.set_option(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &timeval(left))?;
        let mut buffer = [0];
        let mut data = [IoSliceMut::new(&mut buffer)];
        match retry(|| self.socket.recv(&mut RecvMsg::new(&mut data), MsgFlags::empty())) {
            Ok(_) => Ok(true),
            Err(error) => match error.errno() {
                // netlink(7): more than there was room for is a change, too.
                Errno::ENOBUFS => Ok(true),
                Errno::ETIMEDOUT => Ok(false),
                _ => Err(error),
            },
        }
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").field("socket", &self.socket).finish()
    }
}
