//! Socket options and ioctls, in their C representations (socket(7), tcp(7), ip(7), ipv6(7)).
//!
//! What is not here answers `ENOPROTOOPT`, as an old kernel would.

use ioth_core::{Domain, Errno, Result};

use super::sockets::{DEFAULT_BUFFER, DEFAULT_HOPS, Kind, Options};
use super::tcp;
use super::{Engine, SocketId};

/// Bounds of SO_RCVBUF and SO_SNDBUF, in bytes as Linux reports them: SOCK_MIN_RCVBUF and twice rmem_max.
const MIN_BUFFER: usize = 2304;
const MAX_BUFFER: usize = 425_984;
/// Bounds of TCP_KEEPIDLE and TCP_KEEPINTVL in seconds (MAX_TCP_KEEPIDLE), and of TCP_KEEPCNT.
const KEEP_SECONDS: std::ops::RangeInclusive<i32> = 1..=32_767;
const KEEP_COUNT: std::ops::RangeInclusive<i32> = 1..=127;

impl Engine {
    /// setsockopt(2).
    ///
    /// # Errors
    /// `ENOPROTOOPT` for what is not known, `EINVAL` for values out of bounds, `ENODEV`, `EDOM`.
    pub fn set_option(&mut self, id: SocketId, level: i32, name: i32, value: &[u8]) -> Result<()> {
        let sock = self.sock(id)?;
        let (domain, stream) = (sock.domain, matches!(sock.kind, Kind::Stream(_)));
        if let Kind::Netlink(_) = sock.kind
            && level == libc::SOL_NETLINK
        {
            return self.netlink_set_option(id, name, value);
        }
        if (level, name) == (libc::SOL_SOCKET, libc::SO_BINDTODEVICE) {
            return self.bind_to_device(id, value);
        }
        if (level, name) == (libc::SOL_SOCKET, libc::SO_LINGER) {
            let (on, seconds) = (int(value)?, int(value.get(4..).unwrap_or(&[]))?);
            self.sockets[id.0].options.linger = (on != 0).then_some(seconds.max(0) as u32);
            return Ok(());
        }
        // IP_TTL and IP_TOS take a byte as well as an int.
        let number = match (level, value) {
            (libc::IPPROTO_IP, [byte]) => i32::from(*byte),
            _ => int(value)?,
        };
        let on = number != 0;
        let bound = self.local_addr(id)?.as_ip().is_some_and(|addr| addr.port() != 0);
        let options = &mut self.sockets[id.0].options;
        match (level, name) {
            (libc::SOL_SOCKET, libc::SO_REUSEADDR) => options.reuse_addr = on,
            (libc::SOL_SOCKET, libc::SO_REUSEPORT) => options.reuse_port = on,
            (libc::SOL_SOCKET, libc::SO_BROADCAST) => options.broadcast = on,
            (libc::SOL_SOCKET, libc::SO_KEEPALIVE) => options.keep_alive = on,
            // socket(7): "The kernel doubles this value".
            (libc::SOL_SOCKET, libc::SO_RCVBUF) => options.receive_buffer = Some(doubled(number)),
            (libc::SOL_SOCKET, libc::SO_SNDBUF) => options.send_buffer = Some(doubled(number)),
            (
                libc::SOL_SOCKET,
                libc::SO_TYPE | libc::SO_ERROR | libc::SO_DOMAIN | libc::SO_PROTOCOL | libc::SO_ACCEPTCONN,
            ) => {
                return Err(Errno::ENOPROTOOPT);
            }
            (libc::IPPROTO_TCP, libc::TCP_NODELAY) if stream => options.no_delay = on,
            (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE) if stream => {
                options.keep_idle = within(number, KEEP_SECONDS)?
            }
            (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL) if stream => {
                options.keep_interval = within(number, KEEP_SECONDS)?
            }
            (libc::IPPROTO_TCP, libc::TCP_KEEPCNT) if stream => {
                options.keep_count = within(number, KEEP_COUNT)?
            }
            (libc::IPPROTO_IP, libc::IP_TTL) if domain != Domain::NETLINK => match number {
                -1 => options.ttl = None,
                1..=255 => options.ttl = Some(number as u8),
                _ => return Err(Errno::EINVAL),
            },
            (libc::IPPROTO_IP, libc::IP_TOS) if domain != Domain::NETLINK => options.tos = number as u8,
            (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY) if domain == Domain::INET6 => {
                // ipv6(7): only before bind.
                if bound {
                    return Err(Errno::EINVAL);
                }
                options.v6_only = on;
            }
            (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS) if domain == Domain::INET6 => match number {
                -1 => options.unicast_hops = None,
                // A hop limit of 0 is legal for Linux and leaves no host; smoltcp does not take it for TCP.
                0..=255 => options.unicast_hops = Some(number as u8),
                _ => return Err(Errno::EINVAL),
            },
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) if domain == Domain::INET6 => match number {
                -1 => options.traffic_class = 0,
                0..=255 => options.traffic_class = number as u8,
                _ => return Err(Errno::EINVAL),
            },
            _ => return Err(Errno::ENOPROTOOPT),
        }
        self.apply_options(id);
        Ok(())
    }

    /// getsockopt(2): the number of bytes written.
    ///
    /// # Errors
    /// `ENOPROTOOPT` for what is not known.
    pub fn option(&mut self, id: SocketId, level: i32, name: i32, value: &mut [u8]) -> Result<usize> {
        let sock = self.sock(id)?;
        let (domain, options) = (sock.domain, sock.options);
        let stream = match &sock.kind {
            Kind::Stream(stream) => Some(stream),
            _ => None,
        };
        if let (Kind::Netlink(_), libc::SOL_NETLINK) = (&sock.kind, level) {
            return self.netlink_option(id, name, value);
        }
        let flag = i32::from;
        let number = match (level, name) {
            (libc::SOL_SOCKET, libc::SO_TYPE) => match &sock.kind {
                Kind::Stream(_) => libc::SOCK_STREAM,
                Kind::Datagrams(_) => libc::SOCK_DGRAM,
                Kind::Netlink(_) => libc::SOCK_RAW,
            },
            (libc::SOL_SOCKET, libc::SO_DOMAIN) => domain.0,
            (libc::SOL_SOCKET, libc::SO_PROTOCOL) => match &sock.kind {
                Kind::Stream(_) => libc::IPPROTO_TCP,
                Kind::Datagrams(_) => libc::IPPROTO_UDP,
                Kind::Netlink(_) => libc::NETLINK_ROUTE,
            },
            (libc::SOL_SOCKET, libc::SO_ACCEPTCONN) => flag(stream.is_some_and(|stream| stream.listening())),
            (libc::SOL_SOCKET, libc::SO_REUSEADDR) => flag(options.reuse_addr),
            (libc::SOL_SOCKET, libc::SO_REUSEPORT) => flag(options.reuse_port),
            (libc::SOL_SOCKET, libc::SO_BROADCAST) => flag(options.broadcast),
            (libc::SOL_SOCKET, libc::SO_KEEPALIVE) => flag(options.keep_alive),
            (libc::SOL_SOCKET, libc::SO_RCVBUF) => {
                let default = if stream.is_some() { tcp::receive_buffer() } else { DEFAULT_BUFFER };
                options.receive_buffer.unwrap_or(default) as i32
            }
            (libc::SOL_SOCKET, libc::SO_SNDBUF) => {
                let default = if stream.is_some() { tcp::send_buffer() } else { DEFAULT_BUFFER };
                options.send_buffer.unwrap_or(default) as i32
            }
            (libc::SOL_SOCKET, libc::SO_LINGER) => {
                let mut linger = [0; 8];
                linger[..4].copy_from_slice(&flag(options.linger.is_some()).to_ne_bytes());
                linger[4..].copy_from_slice(&options.linger.unwrap_or(0).to_ne_bytes());
                return Ok(put(value, &linger));
            }
            (libc::SOL_SOCKET, libc::SO_ERROR) => self.take_error(id).map_or(0, |errno| errno as i32),
            (libc::SOL_SOCKET, libc::SO_BINDTODEVICE) => {
                let name = options
                    .device
                    .and_then(|ifindex| self.net.tables.iface(ifindex))
                    .map(|iface| iface.name());
                let Some(name) = name else { return Ok(0) };
                if value.len() < libc::IFNAMSIZ {
                    return Err(Errno::EINVAL);
                }
                return Ok(put(value, &[name.as_bytes(), &[0]].concat()));
            }
            (libc::IPPROTO_TCP, libc::TCP_NODELAY) if stream.is_some() => flag(options.no_delay),
            (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE) if stream.is_some() => options.keep_idle as i32,
            (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL) if stream.is_some() => options.keep_interval as i32,
            (libc::IPPROTO_TCP, libc::TCP_KEEPCNT) if stream.is_some() => options.keep_count as i32,
            (libc::IPPROTO_TCP, libc::TCP_MAXSEG) if let Some(stream) = stream => stream.mss() as i32,
            (libc::IPPROTO_IP, libc::IP_TTL) if domain != Domain::NETLINK => {
                i32::from(options.ttl.unwrap_or(DEFAULT_HOPS))
            }
            (libc::IPPROTO_IP, libc::IP_TOS) if domain != Domain::NETLINK => i32::from(options.tos),
            (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY) if domain == Domain::INET6 => flag(options.v6_only),
            (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS) if domain == Domain::INET6 => {
                i32::from(options.unicast_hops.unwrap_or(DEFAULT_HOPS))
            }
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) if domain == Domain::INET6 => {
                i32::from(options.traffic_class)
            }
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(put(value, &number.to_ne_bytes()))
    }

    /// ioctl(2) requests that need no interface name: FIONREAD and SIOCOUTQ.
    ///
    /// # Errors
    /// `ENOTTY` for what is not known; `EINVAL` for FIONREAD on a listening socket.
    pub fn ioctl(&mut self, id: SocketId, request: u64, argument: &mut [u8]) -> Result<i32> {
        let number = match (request, &self.sock(id)?.kind) {
            (libc::FIONREAD, Kind::Stream(stream)) if stream.listening() => return Err(Errno::EINVAL),
            (libc::FIONREAD, Kind::Stream(stream)) => stream.received(),
            (libc::FIONREAD, Kind::Datagrams(datagrams)) => datagrams.next_len(),
            (libc::TIOCOUTQ, Kind::Stream(stream)) if stream.listening() => return Err(Errno::EINVAL),
            (libc::TIOCOUTQ, Kind::Stream(stream)) => stream.unacknowledged(),
            (libc::TIOCOUTQ, Kind::Datagrams(_)) => 0,
            _ => return Err(Errno::ENOTTY),
        };
        let target = argument.get_mut(..4).ok_or(Errno::EFAULT)?;
        target.copy_from_slice(&(number as i32).to_ne_bytes());
        Ok(0)
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

    /// Brings what was made from the options in line with them.
    fn apply_options(&mut self, id: SocketId) {
        let sock = &mut self.sockets[id.0];
        let options: Options = sock.options;
        let space = match &mut sock.kind {
            Kind::Stream(stream) => {
                stream.apply(&options);
                super::ports::Space::Tcp
            }
            Kind::Datagrams(_) => super::ports::Space::Udp,
            Kind::Netlink(_) => return,
        };
        if let Ok(Some(local)) = self.local_addr(id).map(|addr| addr.as_ip()) {
            self.ports.update(space, local.port(), id, |binding| {
                binding.reuse_addr = options.reuse_addr;
                binding.reuse_port = options.reuse_port;
            });
        }
        // Nagle's algorithm may have held something back.
        if space == super::ports::Space::Tcp {
            self.mark_dirty(id);
        }
    }
}

/// An int; longer values are cut as Linux does.
fn int(value: &[u8]) -> Result<i32> {
    let bytes = value.get(..4).ok_or(Errno::EINVAL)?;
    Ok(i32::from_ne_bytes(bytes.try_into().map_err(|_| Errno::EINVAL)?))
}

fn within(number: i32, bounds: std::ops::RangeInclusive<i32>) -> Result<u32> {
    if bounds.contains(&number) { Ok(number as u32) } else { Err(Errno::EINVAL) }
}

/// Writes as much of an option as there is room for.
fn put(value: &mut [u8], bytes: &[u8]) -> usize {
    let n = value.len().min(bytes.len());
    value[..n].copy_from_slice(&bytes[..n]);
    n
}

fn doubled(bytes: i32) -> usize {
    (bytes.max(0) as usize).saturating_mul(2).clamp(MIN_BUFFER, MAX_BUFFER)
}
