//! Level IPPROTO_IP: ip(7). IPv6 sockets have it too, for what they send to mapped addresses.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ioth_core::{Errno, Result};

use super::{class, group_request, int, put, put_int};
use crate::engine::datagram::Discover;
use crate::engine::ip_options::IpOptions;
use crate::engine::multicast::On;
use crate::engine::sockets::{DEFAULT_HOPS, Kind};
use crate::engine::{Engine, SocketId};

/// linux/in.h; libc lacks it.
const IP_PROTOCOL: i32 = 52;
/// Lengths of `struct in_addr`, `ip_mreq` and `ip_mreqn`, in bytes.
const IN_ADDR: usize = 4;
const MREQ: usize = 8;
const MREQN: usize = 12;

impl Engine {
    pub(super) fn set_ip_option(&mut self, id: SocketId, name: i32, value: &[u8]) -> Result<()> {
        let stream = matches!(self.sock(id)?.kind, Kind::Stream(_));
        match name {
            libc::IP_MULTICAST_TTL | libc::IP_MULTICAST_IF if stream => return Err(Errno::EINVAL),
            libc::IP_MULTICAST_IF => return self.set_multicast_if(id, value),
            libc::IP_ADD_MEMBERSHIP | libc::IP_DROP_MEMBERSHIP if stream => {
                return Err(Errno::EPROTO);
            }
            libc::IP_ADD_MEMBERSHIP | libc::IP_DROP_MEMBERSHIP => {
                let request = mreqn(value).filter(|_| value.len() >= MREQ).ok_or(Errno::EINVAL)?;
                let on = On { ifindex: request.ifindex, addr: request.addr };
                return match name {
                    libc::IP_ADD_MEMBERSHIP => self.join_group(id, request.group.into(), on),
                    _ => self.leave_group(id, request.group.into(), on),
                };
            }
            libc::MCAST_JOIN_GROUP | libc::MCAST_LEAVE_GROUP => {
                let (group @ IpAddr::V4(_), ifindex) = group_request(value)? else {
                    return Err(Errno::EINVAL);
                };
                return match name {
                    _ if stream => Err(Errno::EPROTO),
                    libc::MCAST_JOIN_GROUP => self.join_group(id, group, On::index(ifindex)),
                    _ => self.leave_group(id, group, On::index(ifindex)),
                };
            }
            libc::IP_OPTIONS => return self.set_ip_options(id, value),
            _ => {}
        }
        // These options take a byte as well as an int.
        let number = match value {
            // do_ip_setsockopt() asks for a byte at least in these cases alone, and takes nothing for 0.
            [] => match name {
                libc::IP_TTL
                | libc::IP_FREEBIND
                | libc::IP_MULTICAST_TTL
                | libc::IP_MULTICAST_LOOP
                | libc::IP_MULTICAST_ALL => return Err(Errno::EINVAL),
                _ => 0,
            },
            [byte] | [byte, _] | [byte, _, _] => i32::from(*byte),
            _ => int(value)?,
        };
        let sock = &mut self.sockets[id.0];
        let options = &mut sock.options;
        match (name, number) {
            (libc::IP_TTL, -1) => options.ttl = None,
            (libc::IP_TTL, 1..=255) => options.ttl = Some(number as u8),
            (libc::IP_TTL, _) => return Err(Errno::EINVAL),
            (libc::IP_TOS, _) => {
                let tos = class(&sock.kind, options.tos, number as u8);
                // __ip_sock_set_tos(): one that stays as it is does nothing.
                if tos != options.tos {
                    options.tos = tos;
                    options.priority = priority(tos);
                }
            }
            (libc::IP_PKTINFO, _) => options.report.pktinfo = number != 0,
            (libc::IP_RECVTTL, _) => options.report.ttl = number != 0,
            (libc::IP_RECVTOS, _) => options.report.tos = number != 0,
            (libc::IP_RECVOPTS, _) => options.report.options = number != 0,
            (libc::IP_RETOPTS, _) => options.report.reply_options = number != 0,
            (libc::IP_PASSSEC, _) => options.quiet.pass_security = number != 0,
            (libc::IP_FREEBIND, _) => options.free_bind = number != 0,
            (libc::IP_RECVERR, _) => {
                options.hear_errors = number != 0;
                if number == 0 {
                    sock.errors.clear();
                    self.touch(id);
                }
            }
            (libc::IP_MTU_DISCOVER, _) => {
                options.discover = Discover::from_raw(number).ok_or(Errno::EINVAL)?;
            }
            (libc::IP_MULTICAST_TTL, -1) => options.v4_group.hops = 1,
            (libc::IP_MULTICAST_TTL, 0..=255) => options.v4_group.hops = number as u8,
            (libc::IP_MULTICAST_TTL, _) => return Err(Errno::EINVAL),
            (libc::IP_MULTICAST_LOOP, _) => options.v4_group.loops = number != 0,
            (libc::IP_MULTICAST_ALL, 0 | 1) => options.v4_group.all = number == 1,
            (libc::IP_MULTICAST_ALL, _) => return Err(Errno::EINVAL),
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
            libc::IP_RECVOPTS => i32::from(options.report.options),
            libc::IP_RETOPTS => i32::from(options.report.reply_options),
            libc::IP_OPTIONS => {
                let told = self.sock(id)?.ip_options.as_ref().map(|options| options.told());
                return Ok(put(value, &told.unwrap_or_default()));
            }
            libc::IP_PASSSEC => i32::from(options.quiet.pass_security),
            IP_PROTOCOL => return self.socket_option(id, libc::SO_PROTOCOL, value),
            libc::IP_FREEBIND => i32::from(options.free_bind),
            libc::IP_RECVERR => i32::from(options.hear_errors),
            libc::IP_MTU_DISCOVER => options.discover.as_raw(),
            libc::IP_MTU => self.path_mtu(id)? as i32,
            libc::IP_MULTICAST_TTL => i32::from(options.v4_group.hops),
            libc::IP_MULTICAST_LOOP => i32::from(options.v4_group.loops),
            libc::IP_MULTICAST_ALL => i32::from(options.v4_group.all),
            // Only raw sockets have it set, every other one may ask.
            libc::IP_HDRINCL => 0,
            libc::IP_MULTICAST_IF => {
                let Some(IpAddr::V4(addr)) = options.v4_group.source else {
                    return Ok(put(value, &[0; IN_ADDR]));
                };
                return Ok(put(value, &addr.octets()));
            }
            _ => return Err(Errno::ENOPROTOOPT),
        };
        // Linux: where there is no room for an int, a number that fits goes into a byte.
        match (value.len(), u8::try_from(number)) {
            (1..4, Ok(byte)) => Ok(put(value, &[byte])),
            _ => Ok(put_int(value, number)),
        }
    }

    /// IP_MTU, IPV6_MTU: the MTU of the path to the peer, in bytes.
    ///
    /// # Errors
    /// `ENOTCONN` without a peer.
    pub(super) fn path_mtu(&self, id: SocketId) -> Result<usize> {
        let peer = self.peer_addr(id)?.as_ip().ok_or(Errno::ENOTCONN)?;
        let peer = ioth_core::addr::unmap(peer);
        let local = self.local_addr(id)?.as_ip().map(|addr| ioth_core::addr::unmap(addr).ip());
        let source = local.filter(|ip| !ip.is_multicast());
        let path = self.net.tables.route(peer.ip(), self.scope_of(id, peer)?, source);
        path.map(|path| path.mtu).map_err(|_| Errno::ENOTCONN)
    }

    /// IP_OPTIONS. A connection that is there sends the others from now on.
    fn set_ip_options(&mut self, id: SocketId, value: &[u8]) -> Result<()> {
        let options = Arc::new(IpOptions::to_send(&self.net, value)?);
        self.net.stamping |= options.wants_time();
        let sock = &mut self.sockets[id.0];
        sock.ip_options = Some(options.clone());
        if let Kind::Stream(stream) = &mut sock.kind
            && let Some(conn) = stream.conn_mut()
        {
            conn.set_ip_options(&self.net, Some(options));
        }
        Ok(())
    }

    fn set_multicast_if(&mut self, id: SocketId, value: &[u8]) -> Result<()> {
        let request = match value.len() {
            IN_ADDR..MREQ => {
                let addr: [u8; IN_ADDR] = value[..IN_ADDR].try_into().map_err(|_| Errno::EINVAL)?;
                Mreqn { group: Ipv4Addr::UNSPECIFIED, addr: addr.into(), ifindex: 0 }
            }
            _ => mreqn(value).ok_or(Errno::EINVAL)?,
        };
        let Mreqn { addr, ifindex, .. } = request;
        let named = match ifindex {
            0 if addr.is_unspecified() => None,
            0 => Some(self.net.tables.is_local(addr.into(), None).map(|local| local.ifindex)),
            _ => Some(self.net.tables.iface(ifindex).map(|iface| iface.index())),
        };
        let named = match named {
            None => None,
            Some(found) => Some(found.ok_or(Errno::EADDRNOTAVAIL)?),
        };
        let options = &mut self.sockets[id.0].options;
        if named.is_some() && options.device.is_some_and(|device| Some(device) != named) {
            return Err(Errno::EINVAL);
        }
        options.v4_group.ifindex = named;
        options.v4_group.source = Some(IpAddr::V4(addr)).filter(|addr| !addr.is_unspecified());
        Ok(())
    }
}

/// Linux's rt_tos2priority(): TC_PRIO_BESTEFFORT, TC_PRIO_BULK, TC_PRIO_INTERACTIVE, TC_PRIO_INTERACTIVE_BULK.
fn priority(tos: u8) -> i32 {
    [0, 2, 6, 4][usize::from(tos & 0x1e) >> 3]
}

/// A `struct ip_mreqn`, or an `ip_mreq`, which has no index.
struct Mreqn {
    group: Ipv4Addr,
    addr: Ipv4Addr,
    ifindex: u32,
}

fn mreqn(value: &[u8]) -> Option<Mreqn> {
    let word = |at: usize| <[u8; 4]>::try_from(value.get(at..at + 4)?).ok();
    let ifindex = if value.len() >= MREQN { u32::from_ne_bytes(word(8)?) } else { 0 };
    Some(Mreqn { group: word(0)?.into(), addr: word(4)?.into(), ifindex })
}
