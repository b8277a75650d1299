//! Level SOL_SOCKET: socket(7).

use ioth_core::{Domain, Errno, Result};

use super::{int, put, put_int};
use crate::engine::datagram::{SO_TIMESTAMP_NEW, SO_TIMESTAMPNS_NEW, TimeStamp};
use crate::engine::sockets::{DEFAULT_BUFFER, Kind};
use crate::engine::{Engine, SocketId, tcp};

/// asm-generic/socket.h
const SO_PEERPIDFD: i32 = 77;
/// Bounds of SO_RCVBUF and SO_SNDBUF, in bytes as Linux reports them: SOCK_MIN_RCVBUF, SOCK_MIN_SNDBUF, twice rmem_max.
const MIN_RECEIVE_BUFFER: usize = 2304;
const MIN_SEND_BUFFER: usize = 4608;
const MAX_BUFFER: usize = 425_984;

impl Engine {
    pub(super) fn set_socket_option(&mut self, id: SocketId, name: i32, value: &[u8]) -> Result<()> {
        match name {
            libc::SO_BINDTODEVICE => return self.bind_to_device(id, value),
            libc::SO_ATTACH_FILTER => return self.attach_filter(id, value),
            libc::SO_LINGER => {
                let (on, seconds) = (int(value)?, int(value.get(4..).unwrap_or(&[]))?);
                // A negative time is as good as for ever.
                self.sockets[id.0].options.linger = (on != 0).then_some(seconds as u32);
                return Ok(());
            }
            _ => {}
        }
        let number = int(value)?;
        let on = number != 0;
        match name {
            libc::SO_DETACH_FILTER => return self.detach_filter(id),
            libc::SO_LOCK_FILTER => return self.lock_filter(id, on),
            _ => {}
        }
        let sock = &mut self.sockets[id.0];
        let stream = matches!(sock.kind, Kind::Stream(_));
        let options = &mut sock.options;
        match name {
            libc::SO_REUSEADDR => options.reuse_addr = on,
            libc::SO_REUSEPORT => options.reuse_port = on,
            libc::SO_BROADCAST => options.broadcast = on,
            libc::SO_KEEPALIVE => options.keep_alive = on,
            libc::SO_OOBINLINE => options.urgent_inline = on,
            // socket(7): "outside the range 0 to 6 requires the CAP_NET_ADMIN capability", which all of a node's users have.
            libc::SO_PRIORITY => options.priority = number,
            // socket(7): "The kernel doubles this value".
            // No right is needed to set them, and none goes beyond the bound.
            libc::SO_RCVBUF | libc::SO_RCVBUFFORCE => {
                options.receive_buffer = Some(doubled(number, MIN_RECEIVE_BUFFER));
            }
            libc::SO_SNDBUF | libc::SO_SNDBUFFORCE => {
                options.send_buffer = Some(doubled(number, MIN_SEND_BUFFER));
            }
            libc::SO_TIMESTAMP | SO_TIMESTAMP_NEW => options.time_stamp = TimeStamp::micros(name, on),
            libc::SO_TIMESTAMPNS | SO_TIMESTAMPNS_NEW => options.time_stamp = TimeStamp::nanos(name, on),
            libc::SO_RCVLOWAT => options.receive_low = low_water(number, options.receive_buffer),
            // Linux does not ask whether there is such an interface, either.
            libc::SO_BINDTOIFINDEX => {
                let ifindex = u32::try_from(number).map_err(|_| Errno::EINVAL)?;
                options.device = (ifindex != 0).then_some(ifindex);
            }
            // SO_TYPE, SO_ERROR, SO_DOMAIN, SO_PROTOCOL and SO_ACCEPTCONN are read only.
            _ => return options.quiet.set(name, number, stream),
        }
        self.net.stamping |= options.time_stamp != TimeStamp::None;
        Ok(())
    }

    pub(super) fn socket_option(&mut self, id: SocketId, name: i32, value: &mut [u8]) -> Result<usize> {
        let sock = self.sock(id)?;
        let options = sock.options;
        let stream = match &sock.kind {
            Kind::Stream(stream) => Some(stream),
            _ => None,
        };
        let flag = i32::from;
        let number = match name {
            libc::SO_TYPE => match &sock.kind {
                Kind::Stream(_) => libc::SOCK_STREAM,
                Kind::Datagrams(_) => libc::SOCK_DGRAM,
                Kind::Netlink(_) => libc::SOCK_RAW,
                Kind::Packets(packets) => packets.kind(),
                Kind::Raw(_) => libc::SOCK_RAW,
                Kind::Ping(_) => libc::SOCK_DGRAM,
            },
            libc::SO_DOMAIN => sock.domain.0,
            libc::SO_PROTOCOL => match &sock.kind {
                Kind::Stream(_) => libc::IPPROTO_TCP,
                Kind::Datagrams(datagrams) => datagrams.protocol(),
                Kind::Netlink(_) => libc::NETLINK_ROUTE,
                Kind::Packets(_) => 0,
                Kind::Raw(raw) => raw.protocol().into(),
                Kind::Ping(_) if sock.domain == Domain::INET6 => libc::IPPROTO_ICMPV6,
                Kind::Ping(_) => libc::IPPROTO_ICMP,
            },
            libc::SO_GET_FILTER => return self.attached_filter(id, value),
            libc::SO_LOCK_FILTER => flag(self.filter_locked(id)?),
            libc::SO_ACCEPTCONN => flag(stream.is_some_and(|stream| stream.listening())),
            libc::SO_REUSEADDR => flag(options.reuse_addr),
            libc::SO_REUSEPORT => flag(options.reuse_port),
            libc::SO_BROADCAST => flag(options.broadcast),
            libc::SO_KEEPALIVE => flag(options.keep_alive),
            libc::SO_OOBINLINE => flag(options.urgent_inline),
            libc::SO_PRIORITY => options.priority,
            libc::SO_PEERCRED => {
                // A `struct ucred` of nobody: process 0, and no user and no group.
                return Ok(put(value, &[0i32, -1, -1].map(i32::to_ne_bytes).concat()));
            }
            libc::SO_TIMESTAMP | libc::SO_TIMESTAMPNS | SO_TIMESTAMP_NEW | SO_TIMESTAMPNS_NEW => {
                flag(options.time_stamp.answers(name))
            }
            libc::SO_RCVBUF => {
                // Linux's tcp_set_rcvlowat() makes room for what is waited for.
                let least = 2 * options.receive_low;
                let automatic =
                    stream.map_or(DEFAULT_BUFFER, |stream| stream.automatic_buffers().0.max(least));
                options.receive_buffer.unwrap_or(automatic) as i32
            }
            libc::SO_SNDBUF => {
                let automatic = stream.map_or(DEFAULT_BUFFER, |stream| stream.automatic_buffers().1);
                options.send_buffer.unwrap_or(automatic) as i32
            }
            libc::SO_RCVLOWAT => options.receive_low as i32,
            // socket(7): fixed at one byte.
            libc::SO_SNDLOWAT => 1,
            libc::SO_LINGER => {
                let mut linger = [0; 8];
                linger[..4].copy_from_slice(&flag(options.linger.is_some()).to_ne_bytes());
                linger[4..].copy_from_slice(&options.linger.unwrap_or(0).to_ne_bytes());
                return Ok(put(value, &linger));
            }
            libc::SO_ERROR => self.take_error(id).map_or(0, |errno| errno as i32),
            libc::SO_BINDTODEVICE => {
                let Some(ifindex) = options.device else { return Ok(0) };
                if value.len() < libc::IFNAMSIZ {
                    return Err(Errno::EINVAL);
                }
                let name = self.net.tables.iface(ifindex).ok_or(Errno::ENODEV)?.name();
                return Ok(put(value, &[name.as_bytes(), &[0]].concat()));
            }
            libc::SO_BINDTOIFINDEX => options.device.unwrap_or(0) as i32,
            libc::SO_COOKIE if value.len() < size_of::<u64>() => return Err(Errno::EINVAL),
            libc::SO_COOKIE => return Ok(put(value, &sock.stamp.to_ne_bytes())),
            libc::SO_PEERNAME => {
                let peer = self.peer_addr(id).map_err(|_| Errno::ENOTCONN)?.to_raw();
                // Linux's sk_getsockopt(): more than there is cannot be asked for.
                return if peer.len() < value.len() { Err(Errno::EINVAL) } else { Ok(put(value, &peer)) };
            }
            // Of sockets of the host's processes.
            libc::SO_PEERGROUPS | SO_PEERPIDFD => return Err(Errno::ENODATA),
            _ => options.quiet.get(name, stream.is_some())?,
        };
        Ok(put_int(value, number))
    }

    fn bind_to_device(&mut self, id: SocketId, value: &[u8]) -> Result<()> {
        let name = value.split(|byte| *byte == 0).next().unwrap_or(&[]);
        let device = match name {
            [] => None,
            name => {
                let name = std::str::from_utf8(name).map_err(|_| Errno::ENODEV)?;
                Some(self.net.tables.iface_by_name(name).ok_or(Errno::ENODEV)?.index())
            }
        };
        self.sockets[id.0].options.device = device;
        Ok(())
    }
}

/// Linux's sock_setsockopt(): a negative number stands for the largest one.
fn doubled(bytes: i32, least: usize) -> usize {
    (bytes as u32 as usize).saturating_mul(2).clamp(least, MAX_BUFFER)
}

/// Linux's tcp_set_rcvlowat(): more than half of the buffer would never come.
fn low_water(number: i32, buffer: Option<usize>) -> usize {
    let most = buffer.map_or(tcp::max_low_water(), |buffer| buffer / 2);
    // A negative number stands for the largest one.
    usize::try_from(number).unwrap_or(usize::MAX).clamp(1, most)
}
