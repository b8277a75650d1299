//! getnameinfo(3) and gethostbyaddr(3): names of addresses. Read RFC 3493 §6.2 first.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ioth::{Errno, SockAddr};

use super::hosts::Host;
use super::{HostError, LookupError, Names, numeric};

/// netdb.h; not in libc: `NI_IDN`, and two that are ignored.
const NI_IDN: i32 = 32;
const DEPRECATED_NI_IDN: i32 = 192;

const KNOWN_FLAGS: i32 = libc::NI_NUMERICHOST
    | libc::NI_NUMERICSERV
    | libc::NI_NOFQDN
    | libc::NI_NAMEREQD
    | libc::NI_DGRAM
    | NI_IDN
    | DEPRECATED_NI_IDN;

impl Names {
    /// getnameinfo(3): the names of a host and a service, those of both that are `wanted`.
    ///
    /// # Errors
    /// [`LookupError`], as glibc tells them.
    pub async fn of_address(
        &self,
        raw: &[u8],
        flags: i32,
        wanted: (bool, bool),
    ) -> Result<(Option<String>, Option<String>), LookupError> {
        if flags & !KNOWN_FLAGS != 0 {
            return Err(LookupError::BadFlags);
        }
        if raw.len() < size_of::<libc::sa_family_t>() {
            return Err(LookupError::Family);
        }
        if flags & libc::NI_NAMEREQD != 0 && wanted == (false, false) {
            return Err(LookupError::NoName);
        }
        // glibc wants the scope id, which the socket calls do without.
        let is_whole = |family| family != libc::AF_INET6 || raw.len() >= size_of::<libc::sockaddr_in6>();
        let addr = match SockAddr::from_raw(raw) {
            Ok(SockAddr::Ip(addr)) if is_whole(SockAddr::Ip(addr).domain().0) => addr,
            _ => return Err(LookupError::Family),
        };
        let host = if wanted.0 { Some(self.host_text(addr, flags).await?) } else { None };
        Ok((host, wanted.1.then(|| self.service_text(addr.port(), flags))))
    }

    /// gethostbyaddr(3): the names of an address of 4 or 16 bytes.
    ///
    /// # Errors
    /// [`HostError`]; `EAFNOSUPPORT` and `EINVAL` for another family or length.
    pub async fn host_by_address(&self, family: i32, raw: &[u8]) -> Result<Host, HostError> {
        let ip: Option<IpAddr> = match family {
            libc::AF_INET => <[u8; 4]>::try_from(raw).ok().map(IpAddr::from),
            libc::AF_INET6 => <[u8; 16]>::try_from(raw).ok().map(IpAddr::from),
            _ => return Err(HostError::Internal(Errno::EAFNOSUPPORT)),
        };
        let ip = ip.ok_or(HostError::Internal(Errno::EINVAL))?;
        self.reverse(ip).await
    }

    async fn host_text(&self, addr: SocketAddr, flags: i32) -> Result<String, LookupError> {
        if flags & libc::NI_NUMERICHOST == 0 {
            match self.reverse(addr.ip()).await {
                Ok(host) if flags & libc::NI_NOFQDN != 0 => return Ok(self.short(host.name)),
                Ok(host) => return Ok(host.name),
                Err(HostError::TryAgain) => return Err(LookupError::Again),
                Err(HostError::Internal(errno)) => return Err(LookupError::System(errno)),
                Err(_) => {}
            }
        }
        if flags & libc::NI_NAMEREQD != 0 {
            return Err(LookupError::NoName);
        }
        Ok(match addr {
            SocketAddr::V6(addr) if addr.scope_id() != 0 => {
                let (ip, scope) = (addr.ip(), addr.scope_id());
                let name = numeric::has_link_scope(ip).then(|| self.interface(scope)).flatten();
                format!("{ip}%{}", name.unwrap_or_else(|| scope.to_string()))
            }
            addr => addr.ip().to_string(),
        })
    }

    fn service_text(&self, port: u16, flags: i32) -> String {
        let protocol = if flags & libc::NI_DGRAM != 0 { "udp" } else { "tcp" };
        let services = self.services.get();
        let name = match flags & libc::NI_NUMERICSERV {
            0 => services.name(port, protocol),
            _ => None,
        };
        name.map_or_else(|| port.to_string(), str::to_owned)
    }

    /// The names of an address: from the hosts file, else those of loopback, else from the servers.
    async fn reverse(&self, ip: IpAddr) -> Result<Host, HostError> {
        if ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
            return Err(HostError::NotFound);
        }
        if let Some(host) = self.hosts.get().by_address(ip) {
            return Ok(host);
        }
        // RFC 6303 §3: servers are not to be asked for it.
        if ip == IpAddr::V4(Ipv4Addr::LOCALHOST) || ip == IpAddr::V6(Ipv6Addr::LOCALHOST) {
            return Ok(Host { name: "localhost".to_owned(), addresses: vec![ip], ..Host::default() });
        }
        Ok(Host { addresses: vec![ip], ..self.dns.by_address(ip.to_canonical()).await? })
    }

    /// A name without the node's own domain (`NI_NOFQDN`).
    fn short(&self, name: String) -> String {
        let Some(domain) = self.dns.domain() else { return name };
        let host = name.len().checked_sub(domain.len() + 1).filter(|&len| len > 0);
        match host.and_then(|len| name.split_at_checked(len)) {
            Some((host, rest)) if rest.starts_with('.') && rest[1..].eq_ignore_ascii_case(domain) => {
                host.to_owned()
            }
            _ => name,
        }
    }

    fn interface(&self, index: u32) -> Option<String> {
        self.stack.route().ok()?.link_name(index).ok()
    }
}
