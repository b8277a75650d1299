//! Options of raw sockets alone: levels SOL_RAW, IPPROTO_ICMPV6, and some of IPPROTO_IP and IPPROTO_IPV6.

use ioth_core::{Domain, Errno, Result};

use super::{ICMPV6, Raw};
use crate::engine::options::{int, put, put_int};
use crate::engine::sockets::Kind;
use crate::engine::{Engine, SocketId};

/// linux/icmp.h, linux/icmpv6.h, linux/in6.h; libc lacks these.
const ICMP_FILTER: i32 = 1;
const ICMPV6_FILTER: i32 = 1;
const IPV6_HDRINCL: i32 = 36;
const ICMP: u16 = libc::IPPROTO_ICMP as u16;

/// Bytes of a `struct icmp_filter`; `struct icmp6_filter` is the whole of [`Raw::blocked`].
const ICMP_FILTER_LEN: usize = 4;

impl Engine {
    /// setsockopt(2). `None`: it is an option that other sockets of the family have, too.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for a filter of ICMP types on a socket of another protocol, `EINVAL`, `ENOPROTOOPT`.
    pub(in crate::engine) fn raw_set_option(
        &mut self,
        id: SocketId,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> Option<Result<()>> {
        let sock = self.sockets.get_mut(id.0)?;
        let Kind::Raw(raw) = &mut sock.kind else { return None };
        Some(match (sock.domain, level, name) {
            (Domain::INET, libc::SOL_RAW, ICMP_FILTER) => raw.set_blocked(ICMP, ICMP_FILTER_LEN, value),
            (Domain::INET, libc::SOL_RAW, _) => Err(Errno::ENOPROTOOPT),
            (Domain::INET, libc::IPPROTO_IP, libc::IP_HDRINCL) => match *value {
                [on] => {
                    raw.header_included = on != 0;
                    Ok(())
                }
                _ => int(value).map(|on| raw.header_included = on != 0),
            },
            (Domain::INET6, libc::IPPROTO_ICMPV6, _) if raw.protocol != ICMPV6 => Err(Errno::EOPNOTSUPP),
            (Domain::INET6, libc::IPPROTO_ICMPV6, ICMPV6_FILTER) => {
                raw.set_blocked(ICMPV6, size_of_val(&raw.blocked), value)
            }
            (Domain::INET6, libc::SOL_RAW, _)
            | (Domain::INET6, libc::IPPROTO_IPV6, libc::IPV6_CHECKSUM | IPV6_HDRINCL) => {
                int(value).and_then(|number| raw.set_v6(level, name, number))
            }
            // Linux: a raw IPv6 socket has no options of IPv4.
            (Domain::INET6, libc::IPPROTO_IP, _) => Err(Errno::ENOPROTOOPT),
            _ => return None,
        })
    }

    /// getsockopt(2). `None`: it is an option that other sockets of the family have, too.
    ///
    /// # Errors
    /// As [`raw_set_option`](Self::raw_set_option).
    pub(in crate::engine) fn raw_option(
        &mut self,
        id: SocketId,
        level: i32,
        name: i32,
        value: &mut [u8],
    ) -> Option<Result<usize>> {
        let sock = self.sockets.get(id.0)?;
        let Kind::Raw(raw) = &sock.kind else { return None };
        Some(match (sock.domain, level, name) {
            (Domain::INET, libc::SOL_RAW, ICMP_FILTER) => raw.blocked(ICMP, ICMP_FILTER_LEN, value),
            (Domain::INET, libc::SOL_RAW, _) => Err(Errno::ENOPROTOOPT),
            (Domain::INET, libc::IPPROTO_IP, libc::IP_HDRINCL)
            | (Domain::INET6, libc::IPPROTO_IPV6 | libc::SOL_RAW, IPV6_HDRINCL) => {
                Ok(put_int(value, raw.header_included.into()))
            }
            (Domain::INET6, libc::IPPROTO_ICMPV6, _) if raw.protocol != ICMPV6 => Err(Errno::EOPNOTSUPP),
            (Domain::INET6, libc::IPPROTO_ICMPV6, ICMPV6_FILTER) => {
                raw.blocked(ICMPV6, size_of_val(&raw.blocked), value)
            }
            (Domain::INET6, libc::IPPROTO_IPV6 | libc::SOL_RAW, libc::IPV6_CHECKSUM) => {
                Ok(put_int(value, raw.checksum.map_or(-1, |at| at as i32)))
            }
            (Domain::INET6, libc::SOL_RAW | libc::IPPROTO_IP, _) => Err(Errno::ENOPROTOOPT),
            _ => return None,
        })
    }
}

impl Raw {
    fn set_v6(&mut self, level: i32, name: i32, number: i32) -> Result<()> {
        match name {
            IPV6_HDRINCL => self.header_included = number != 0,
            // RFC 3542 §3.1: the checksum of ICMPv6 is the node's affair.
            libc::IPV6_CHECKSUM if self.protocol == ICMPV6 && level == libc::IPPROTO_IPV6 => {
                return Err(Errno::EINVAL);
            }
            // RFC 3542 §3.1: "Attempts to specify [...] a positive odd value [...] will fail".
            libc::IPV6_CHECKSUM if number > 0 && number & 1 != 0 => return Err(Errno::EINVAL),
            libc::IPV6_CHECKSUM => self.checksum = usize::try_from(number).ok(),
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }

    /// Linux takes as much of a filter as it is given.
    fn set_blocked(&mut self, protocol: u16, len: usize, value: &[u8]) -> Result<()> {
        if self.protocol != protocol {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut bytes = self.blocked_bytes();
        let len = len.min(value.len());
        bytes[..len].copy_from_slice(&value[..len]);
        for (word, chunk) in self.blocked.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        }
        Ok(())
    }

    fn blocked(&self, protocol: u16, len: usize, value: &mut [u8]) -> Result<usize> {
        if self.protocol != protocol {
            return Err(Errno::EOPNOTSUPP);
        }
        Ok(put(value, &self.blocked_bytes()[..len]))
    }

    fn blocked_bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(self.blocked) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}
