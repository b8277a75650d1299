//! Level IPPROTO_IPV6: ipv6(7), RFC 3493, RFC 3542.

use ioth_core::{Errno, Result};

use super::{class, int, put_int};
use crate::engine::sockets::DEFAULT_HOPS;
use crate::engine::{Engine, SocketId};

impl Engine {
    pub(super) fn set_ipv6_option(&mut self, id: SocketId, name: i32, value: &[u8]) -> Result<()> {
        let number = int(value)?;
        let bound = self.local_addr(id)?.as_ip().is_some_and(|addr| addr.port() != 0);
        let sock = &mut self.sockets[id.0];
        let options = &mut sock.options;
        match (name, number) {
            // ipv6(7): only before bind.
            (libc::IPV6_V6ONLY, _) if bound => return Err(Errno::EINVAL),
            (libc::IPV6_V6ONLY, _) => options.v6_only = number != 0,
            (libc::IPV6_UNICAST_HOPS, -1) => options.unicast_hops = None,
            // A hop limit of 0 is legal for Linux and leaves no host; smoltcp does not take it for TCP.
            (libc::IPV6_UNICAST_HOPS, 0..=255) => options.unicast_hops = Some(number as u8),
            (libc::IPV6_TCLASS, -1..=255) => {
                options.traffic_class = class(&sock.kind, options.traffic_class, number.max(0) as u8);
            }
            (libc::IPV6_RECVPKTINFO, _) => options.report.v6_pktinfo = number != 0,
            (libc::IPV6_RECVHOPLIMIT, _) => options.report.v6_hop_limit = number != 0,
            (libc::IPV6_RECVTCLASS, _) => options.report.v6_traffic_class = number != 0,
            (libc::IPV6_UNICAST_HOPS | libc::IPV6_TCLASS, _) => return Err(Errno::EINVAL),
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }

    pub(super) fn ipv6_option(&mut self, id: SocketId, name: i32, value: &mut [u8]) -> Result<usize> {
        let options = self.sock(id)?.options;
        let number = match name {
            libc::IPV6_V6ONLY => i32::from(options.v6_only),
            libc::IPV6_UNICAST_HOPS => i32::from(options.unicast_hops.unwrap_or(DEFAULT_HOPS)),
            libc::IPV6_TCLASS => i32::from(options.traffic_class),
            libc::IPV6_RECVPKTINFO => i32::from(options.report.v6_pktinfo),
            libc::IPV6_RECVHOPLIMIT => i32::from(options.report.v6_hop_limit),
            libc::IPV6_RECVTCLASS => i32::from(options.report.v6_traffic_class),
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(put_int(value, number))
    }
}
