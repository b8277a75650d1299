//! Socket options and ioctls, in their C representations: a module for each level (socket(7), tcp(7), ip(7), ipv6(7)).
//!
//! What is not here answers `ENOPROTOOPT`, as an old kernel would.

mod ip;
mod ipv6;
mod quiet;
mod socket;
mod tcp;
mod udp;

use std::net::IpAddr;

use ioth_core::{Domain, Errno, Result, SockAddr};

pub(crate) use self::quiet::Quiet;
use super::datagram::Inbox;
use super::ports::Space;
use super::sockets::{Kind, Options};
use super::{Engine, SocketId};

/// linux/sockios.h
const SIOCOUTQNSD: u64 = 0x894b;
/// asm-generic/sockios.h: the last two have 64-bit seconds on every machine.
const SIOCATMARK: u64 = 0x8905;
const SIOCGSTAMP: u64 = 0x8906;
const SIOCGSTAMPNS: u64 = 0x8907;
const SIOCGSTAMP_NEW: u64 = 0x8010_8906;
const SIOCGSTAMPNS_NEW: u64 = 0x8010_8907;
/// Those that tell when something arrived.
pub(super) const TIME_REQUESTS: [u64; 4] = [SIOCGSTAMP, SIOCGSTAMPNS, SIOCGSTAMP_NEW, SIOCGSTAMPNS_NEW];

impl Engine {
    /// setsockopt(2).
    ///
    /// # Errors
    /// `ENOPROTOOPT` for what is not known, `EINVAL` for values out of bounds, `ENODEV`, `EDOM`.
    pub fn set_option(&mut self, id: SocketId, level: i32, name: i32, value: &[u8]) -> Result<()> {
        if let Some(done) = self.raw_set_option(id, level, name, value) {
            return done;
        }
        let sock = self.sock(id)?;
        match (level, sock.domain, &sock.kind) {
            (libc::SOL_SOCKET, _, _) => self.set_socket_option(id, name, value)?,
            (libc::SOL_NETLINK, _, Kind::Netlink(_)) => return self.netlink_set_option(id, name, value),
            (libc::SOL_PACKET, _, Kind::Packets(_)) => return self.packet_set_option(id, name, value),
            (libc::IPPROTO_TCP, _, Kind::Stream(_)) => self.set_tcp_option(id, name, value)?,
            (libc::IPPROTO_UDP | libc::IPPROTO_UDPLITE, _, Kind::Datagrams(_)) => {
                self.set_udp_option(id, name, value)?
            }
            (libc::IPPROTO_IP, Domain::INET | Domain::INET6, _) => self.set_ip_option(id, name, value)?,
            (libc::IPPROTO_IPV6, Domain::INET6, _) => self.set_ipv6_option(id, name, value)?,
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
        if let Some(done) = self.raw_option(id, level, name, value) {
            return done;
        }
        let sock = self.sock(id)?;
        match (level, sock.domain, &sock.kind) {
            (libc::SOL_SOCKET, _, _) => self.socket_option(id, name, value),
            (libc::SOL_NETLINK, _, Kind::Netlink(_)) => self.netlink_option(id, name, value),
            (libc::SOL_PACKET, _, Kind::Packets(_)) => self.packet_option(id, name, value),
            (libc::IPPROTO_TCP, _, Kind::Stream(_)) => self.tcp_option(id, name, value),
            (libc::IPPROTO_UDP | libc::IPPROTO_UDPLITE, _, Kind::Datagrams(_)) => {
                self.udp_option(id, name, value)
            }
            (libc::IPPROTO_IP, Domain::INET | Domain::INET6, _) => self.ip_option(id, name, value),
            (libc::IPPROTO_IPV6, Domain::INET6, _) => self.ipv6_option(id, name, value),
            // Linux: ip_getsockopt(), which is asked last, says it so.
            (_, Domain::INET, _) => Err(Errno::EOPNOTSUPP),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    /// ioctl(2): FIONREAD, SIOCOUTQ, SIOCOUTQNSD, SIOCATMARK, SIOCGSTAMP, SIOCGSTAMPNS, and the requests of netdevice(7) and
    /// for routes.
    ///
    /// `argument` is the request's structure. Where that has a pointer, what it points to comes in its place: for
    /// SIOCGIFCONF the array of `struct ifreq`, whose used length in bytes is returned (without any room, the length that
    /// there is); for SIOCADDRT and SIOCDELRT of IPv4 the device's name (16 bytes) is behind the structure, if
    /// `rt_dev` is not null.
    ///
    /// # Errors
    /// `ENOTTY` for what is not known; `ENOENT` where nothing was received that had a stamp; `EINVAL` for FIONREAD on a listening socket; those of netdevice(7).
    pub fn ioctl(&mut self, id: SocketId, request: u64, argument: &mut [u8]) -> Result<i32> {
        let number = match (request, &self.sock(id)?.kind) {
            (libc::FIONREAD, Kind::Stream(stream)) if stream.listening() => return Err(Errno::EINVAL),
            (libc::FIONREAD, Kind::Stream(stream)) => stream.received(),
            (libc::FIONREAD, Kind::Datagrams(datagrams)) => datagrams.next_len(),
            (libc::FIONREAD, Kind::Packets(packets)) => packets.next_len(),
            (libc::FIONREAD, Kind::Raw(raw)) => raw.endpoint.inbox.next_len(),
            (libc::TIOCOUTQ, Kind::Stream(stream)) if stream.listening() => return Err(Errno::EINVAL),
            (libc::TIOCOUTQ, Kind::Stream(stream)) => stream.unacknowledged(),
            (SIOCOUTQNSD, Kind::Stream(stream)) if stream.listening() => return Err(Errno::EINVAL),
            (SIOCOUTQNSD, Kind::Stream(stream)) => stream.unsent(),
            (libc::TIOCOUTQ, Kind::Datagrams(_) | Kind::Packets(_) | Kind::Raw(_)) => 0,
            // Urgent data is data like other: nothing is marked.
            (SIOCATMARK, Kind::Stream(_)) => 0,
            (request, _) if TIME_REQUESTS.contains(&request) => return self.tell_time(id, request, argument),
            _ => return self.configure(id, request, argument),
        };
        let target = argument.get_mut(..4).ok_or(Errno::EFAULT)?;
        target.copy_from_slice(&(number as i32).to_ne_bytes());
        Ok(0)
    }

    /// SIOCGSTAMP and its like: when the last datagram came that was received.
    fn tell_time(&self, id: SocketId, request: u64, argument: &mut [u8]) -> Result<i32> {
        let kind = &self.sock(id)?.kind;
        if matches!(kind, Kind::Netlink(_)) {
            return Err(Errno::ENOTTY);
        }
        // Linux has none for streams.
        let stamp = kind.inbox().and_then(Inbox::stamp).ok_or(Errno::ENOENT)?;
        let time = self.net.wall_clock(stamp);
        let fraction = match request {
            SIOCGSTAMPNS | SIOCGSTAMPNS_NEW => time.subsec_nanos(),
            _ => time.subsec_micros(),
        };
        let value = [time.as_secs(), u64::from(fraction)].map(u64::to_ne_bytes).concat();
        argument.get_mut(..value.len()).ok_or(Errno::EFAULT)?.copy_from_slice(&value);
        Ok(0)
    }

    /// Brings what was made from the options in line with them.
    pub(super) fn apply_options(&mut self, id: SocketId) {
        let sock = &mut self.sockets[id.0];
        let options: Options = sock.options;
        let space = match &mut sock.kind {
            Kind::Stream(stream) => {
                stream.apply(&options);
                Space::Tcp
            }
            Kind::Datagrams(datagrams) => datagrams.space,
            Kind::Netlink(_) | Kind::Packets(_) | Kind::Raw(_) | Kind::Ping(_) => return,
        };
        if let Ok(Some(local)) = self.local_addr(id).map(|addr| addr.as_ip()) {
            self.ports.update(space, local.port(), id, |binding| {
                binding.reuse_addr = options.reuse_addr;
                binding.reuse_port = options.reuse_port;
                binding.device = options.device;
            });
        }
        // Nagle's algorithm may have held something back.
        if space == Space::Tcp {
            self.mark_dirty(id);
        }
    }
}

/// An int; longer values are cut as Linux does.
pub(super) fn int(value: &[u8]) -> Result<i32> {
    let bytes = value.get(..4).ok_or(Errno::EINVAL)?;
    Ok(i32::from_ne_bytes(bytes.try_into().map_err(|_| Errno::EINVAL)?))
}

fn within(number: i32, bounds: std::ops::RangeInclusive<i32>) -> Result<u32> {
    if bounds.contains(&number) { Ok(number as u32) } else { Err(Errno::EINVAL) }
}

/// A TOS or traffic class as it is set: on a stream the two bits of ECN are TCP's own (RFC 3168 §6.1).
fn class(kind: &Kind, was: u8, wanted: u8) -> u8 {
    const ECN: u8 = 0x03;
    if matches!(kind, Kind::Stream(_)) { wanted & !ECN | was & ECN } else { wanted }
}

/// A `struct group_req` (RFC 3678 §5.1): group and interface.
fn group_request(value: &[u8]) -> Result<(IpAddr, u32)> {
    const LENGTH: usize = GROUP_AT + 128;
    const GROUP_AT: usize = size_of::<usize>();
    let index = value.get(..LENGTH).and_then(|value| value.first_chunk::<4>()).ok_or(Errno::EINVAL)?;
    match SockAddr::from_raw(&value[GROUP_AT..LENGTH]) {
        Ok(SockAddr::Ip(group)) => Ok((group.ip(), u32::from_ne_bytes(*index))),
        _ => Err(Errno::EINVAL),
    }
}

/// Writes as much of an option as there is room for.
pub(super) fn put(value: &mut [u8], bytes: &[u8]) -> usize {
    let n = value.len().min(bytes.len());
    value[..n].copy_from_slice(&bytes[..n]);
    n
}

/// Writes an option that is an int.
pub(super) fn put_int(value: &mut [u8], number: i32) -> usize {
    put(value, &number.to_ne_bytes())
}
