//! Level IPPROTO_IPV6: ipv6(7), RFC 3493, RFC 3542.

use std::net::{IpAddr, Ipv6Addr};

use ioth_core::{Errno, Result};

use super::{class, group_request, int, put_int};
use crate::engine::datagram::Discover;
use crate::engine::iface::IPV6_MIN_MTU;
use crate::engine::multicast::On;
use crate::engine::sockets::{DEFAULT_HOPS, Kind};
use crate::engine::{Engine, SocketId};

impl Engine {
    pub(super) fn set_ipv6_option(&mut self, id: SocketId, name: i32, value: &[u8]) -> Result<()> {
        let stream = matches!(self.sock(id)?.kind, Kind::Stream(_));
        match name {
            libc::IPV6_ADD_MEMBERSHIP | libc::IPV6_DROP_MEMBERSHIP => {
                let (group, ifindex) = addr_and_index(value)?;
                return match name {
                    _ if stream => Err(Errno::EPROTO),
                    libc::IPV6_ADD_MEMBERSHIP => self.join_group(id, group.into(), On::index(ifindex)),
                    _ => self.leave_group(id, group.into(), On::index(ifindex)),
                };
            }
            libc::MCAST_JOIN_GROUP | libc::MCAST_LEAVE_GROUP => {
                let (group @ IpAddr::V6(_), ifindex) = group_request(value)? else {
                    return Err(Errno::EADDRNOTAVAIL);
                };
                return match name {
                    _ if stream => Err(Errno::EPROTO),
                    libc::MCAST_JOIN_GROUP => self.join_group(id, group, On::index(ifindex)),
                    _ => self.leave_group(id, group, On::index(ifindex)),
                };
            }
            // Of raw sockets only, whatever the value.
            libc::IPV6_CHECKSUM | libc::IPV6_HDRINCL => return Err(Errno::ENOPROTOOPT),
            libc::IPV6_MULTICAST_HOPS | libc::IPV6_MULTICAST_IF if stream => return Err(Errno::ENOPROTOOPT),
            libc::IPV6_MULTICAST_IF => return self.set_multicast_oif(id, int(value)?),
            libc::IPV6_PKTINFO => {
                let (addr, ifindex) = addr_and_index(value)?;
                let options = &mut self.sockets[id.0].options;
                if options.device.is_some_and(|device| ifindex != 0 && ifindex != device) {
                    return Err(Errno::EINVAL);
                }
                let source = Some(addr).filter(|addr| !addr.is_unspecified());
                options.sticky_v6 = Some((source, Some(ifindex).filter(|ifindex| *ifindex != 0)));
                return Ok(());
            }
            _ => {}
        }
        let number = match name {
            // Linux forgot to ask for an int here, and takes what is too short for 0.
            libc::IPV6_DONTFRAG if value.len() < size_of::<i32>() => 0,
            // What is not known is so whatever its length.
            _ if value.len() < size_of::<i32>() => {
                let known = self.ipv6_option(id, name, &mut [0; 4]) != Err(Errno::ENOPROTOOPT);
                return Err(if known { Errno::EINVAL } else { Errno::ENOPROTOOPT });
            }
            _ => int(value)?,
        };
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
            (libc::IPV6_FREEBIND, _) => options.free_bind = number != 0,
            (libc::IPV6_RECVERR, _) => {
                options.v6_hear_errors = number != 0;
                if number == 0 {
                    sock.errors.clear();
                    self.touch(id);
                }
            }
            (libc::IPV6_DONTFRAG, _) => options.v6_dont_fragment = number != 0,
            (libc::IPV6_MTU_DISCOVER, _) => {
                options.v6_discover = Discover::from_raw(number).ok_or(Errno::EINVAL)?;
            }
            (libc::IPV6_MTU, 0) => options.v6_fragment_size = None,
            (libc::IPV6_MTU, _) if number < IPV6_MIN_MTU as i32 => return Err(Errno::EINVAL),
            (libc::IPV6_MTU, _) => options.v6_fragment_size = Some(number as usize),
            (libc::IPV6_MULTICAST_HOPS, -1) => options.v6_group.hops = 1,
            (libc::IPV6_MULTICAST_HOPS, 0..=255) => options.v6_group.hops = number as u8,
            (libc::IPV6_MULTICAST_LOOP, 0 | 1) => options.v6_group.loops = number == 1,
            (libc::IPV6_MULTICAST_ALL, _) => options.v6_group.all = number != 0,
            (
                libc::IPV6_UNICAST_HOPS
                | libc::IPV6_TCLASS
                | libc::IPV6_MULTICAST_HOPS
                | libc::IPV6_MULTICAST_LOOP,
                _,
            ) => return Err(Errno::EINVAL),
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
            libc::IPV6_FREEBIND => i32::from(options.free_bind),
            libc::IPV6_RECVERR => i32::from(options.v6_hear_errors),
            libc::IPV6_DONTFRAG => i32::from(options.v6_dont_fragment),
            libc::IPV6_MTU_DISCOVER => options.v6_discover.as_raw(),
            libc::IPV6_MTU => self.path_mtu(id)? as i32,
            libc::IPV6_MULTICAST_HOPS => i32::from(options.v6_group.hops),
            libc::IPV6_MULTICAST_LOOP => i32::from(options.v6_group.loops),
            libc::IPV6_MULTICAST_ALL => i32::from(options.v6_group.all),
            libc::IPV6_MULTICAST_IF => options.v6_group.ifindex.unwrap_or(0) as i32,
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(put_int(value, number))
    }

    fn set_multicast_oif(&mut self, id: SocketId, ifindex: i32) -> Result<()> {
        let ifindex = ifindex as u32;
        let known = self.net.tables.iface(ifindex).is_some();
        let options = &mut self.sockets[id.0].options;
        if ifindex == 0 {
            options.v6_group.ifindex = None;
            return Ok(());
        }
        if options.device.is_some_and(|device| device != ifindex) {
            return Err(Errno::EINVAL);
        }
        if !known {
            return Err(Errno::ENODEV);
        }
        options.v6_group.ifindex = Some(ifindex);
        Ok(())
    }
}

/// A `struct ipv6_mreq` or `in6_pktinfo`.
fn addr_and_index(value: &[u8]) -> Result<(Ipv6Addr, u32)> {
    let (addr, rest) = value.split_first_chunk::<16>().ok_or(Errno::EINVAL)?;
    let index = rest.first_chunk::<4>().ok_or(Errno::EINVAL)?;
    Ok((Ipv6Addr::from(*addr), u32::from_ne_bytes(*index)))
}
