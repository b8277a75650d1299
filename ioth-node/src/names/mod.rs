//! Names for the programs of a node: what getaddrinfo(3) and its kin answer, by the node's own settings.
//!
//! ```text
//!   numeric text ─▶ hosts file ─▶ localhost ─▶ the node's name servers       then: RFC 6724's order
//! ```
//!
//! The hosts and services files are the host's: they say what names mean here, not where to ask. The host's resolv.conf(5)
//! is not looked at: its servers belong to the host's network. Nor are nsswitch.conf(5) and gai.conf(5): the order of
//! sources is that of the diagram, and the order of addresses the default one.

mod addrinfo;
pub mod dns;
mod file;
pub mod hosts;
mod nameinfo;
mod numeric;
mod order;
pub mod services;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;

use ioth::Stack;
use ioth::conf::Resolver;
use ioth::core::netlink::{Address, Error as NetlinkError};

pub use addrinfo::{LookupError, Query};
use dns::message::Failure;
use file::Cached;
use hosts::{Family, Host, Hosts};
use services::Services;

/// One of getaddrinfo(3)'s answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// `ai_socktype`
    pub kind: i32,
    /// `ai_protocol`
    pub protocol: i32,
    /// Address and port.
    pub addr: SocketAddr,
}

/// What getaddrinfo(3) gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// `ai_canonname`, when it was asked for.
    pub canonical: Option<String>,
    /// The addresses, to be tried in this order.
    pub found: Vec<Found>,
}

/// Why a host was not found: netdb(3)'s h_errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// `HOST_NOT_FOUND`
    #[error("names: there is no such name")]
    NotFound,
    /// `TRY_AGAIN`
    #[error("names: no answer for the time being")]
    TryAgain,
    /// `NO_RECOVERY`
    #[error("names: the servers failed for good")]
    NoRecovery,
    /// `NO_DATA`: the name has other records.
    #[error("names: no address under this name")]
    NoData,
    /// `NETDB_INTERNAL`
    #[error("names: {0}")]
    Internal(ioth::Errno),
}

impl HostError {
    /// netdb.h's number.
    pub fn code(&self) -> i32 {
        match self {
            HostError::NotFound => 1,
            HostError::TryAgain => 2,
            HostError::NoRecovery => 3,
            HostError::NoData => 4,
            HostError::Internal(_) => -1,
        }
    }
}

/// Where names come from, beside the servers.
#[derive(Clone, Debug)]
pub struct Files {
    /// hosts(5)
    pub hosts: PathBuf,
    /// services(5)
    pub services: PathBuf,
}

impl Default for Files {
    fn default() -> Self {
        Files { hosts: "/etc/hosts".into(), services: "/etc/services".into() }
    }
}

/// The names of a node.
#[derive(Debug)]
pub struct Names {
    stack: Stack,
    hosts: Cached<Hosts>,
    services: Cached<Services>,
    dns: dns::Client,
}

impl Names {
    /// The names of the node `stack`, with the name servers and search domains of `resolver`.
    pub fn new(stack: Stack, resolver: &Resolver, files: &Files) -> Names {
        Names {
            dns: dns::Client::new(stack.clone(), resolver),
            stack,
            hosts: Cached::new(&files.hosts, Hosts::parse),
            services: Cached::new(&files.services, Services::parse),
        }
    }

    /// getaddrinfo(3).
    ///
    /// # Errors
    /// [`LookupError`], as glibc tells them.
    pub async fn addresses(&self, query: Query<'_>) -> Result<Answer, LookupError> {
        let mut query = query.checked()?;
        let mut own = None;
        if query.has(libc::AI_ADDRCONFIG) {
            let addresses = self.own_addresses()?;
            query.family = configured(query.family, &addresses)?;
            own = Some(addresses);
        }
        let transports = addrinfo::transports(&query, &self.services.get())?;
        let Located { mut addrs, name } = match query.host {
            Some(host) => self.locate(host, &query).await?,
            None => Located { addrs: this_node(&query), name: None },
        };
        // The source depends on the port where there are filters or tunnels: it is the first transport's, as in glibc.
        let port = transports.first().map_or(0, |transport| transport.port);
        for addr in &mut addrs {
            addr.set_port(port);
        }
        if addrs.len() > 1 {
            let own = own.map_or_else(|| self.own_addresses(), Ok)?;
            order::sort(&self.stack, &own, &mut addrs);
        }
        let found = addrs.iter().flat_map(|addr| {
            transports.iter().map(|transport| {
                let mut addr = *addr;
                addr.set_port(transport.port);
                Found { kind: transport.kind, protocol: transport.protocol, addr }
            })
        });
        let canonical =
            query.has(libc::AI_CANONNAME).then(|| name.or(query.host.map(str::to_owned))).flatten();
        Ok(Answer { canonical, found: found.collect() })
    }

    /// gethostbyname2(3): the canonical name, aliases and addresses of one family.
    ///
    /// # Errors
    /// [`HostError`]; [`Family::Any`] is an `EAFNOSUPPORT`.
    pub async fn host_by_name(&self, name: &str, family: Family) -> Result<Host, HostError> {
        let numeric = match family {
            Family::Any => return Err(HostError::Internal(ioth::Errno::EAFNOSUPPORT)),
            _ if !numeric::is_no_name(name) => return self.host(name, family).await,
            Family::V4 => numeric::ipv4(name).map(IpAddr::from),
            Family::V6 => numeric::ipv6(name).map(|(v6, _)| v6.into()),
        };
        // An address of the other family is no name.
        let address = numeric.ok_or(HostError::NotFound)?;
        Ok(Host { name: name.to_owned(), addresses: vec![address], ..Host::default() })
    }

    /// res_query(3), or res_search(3) with `search`: the answer, a DNS message with records of this class and type.
    ///
    /// # Errors
    /// What h_errno and errno become, and the answer that says so, if there was one.
    pub async fn resolve(
        &self,
        name: &str,
        class: u16,
        rtype: u16,
        search: bool,
    ) -> Result<Vec<u8>, (HostError, Option<ioth::Errno>, Vec<u8>)> {
        self.dns.resolve(name, class, rtype, search).await.map_err(|(failure, answer)| {
            let errno = if let Failure::Unreachable(errno) = failure { Some(errno) } else { None };
            (failure.into(), errno, answer)
        })
    }

    /// res_send(3): the answer to a DNS message.
    ///
    /// # Errors
    /// `EINVAL` for what is no message, `ECONNREFUSED`, `ETIMEDOUT` and what else hinders sockets.
    pub async fn exchange(&self, query: &[u8]) -> Result<Vec<u8>, ioth::Errno> {
        self.dns.exchange(query).await
    }

    /// The addresses of a host that is named, and its name.
    async fn locate(&self, host: &str, query: &Query<'_>) -> Result<Located, LookupError> {
        if query.has(addrinfo::AI_IDN) && !host.is_ascii() {
            return Err(LookupError::Encoding);
        }
        if let Some(addr) = self.numeric(host, query)? {
            return Ok(Located { addrs: vec![addr], name: None });
        }
        if query.has(libc::AI_NUMERICHOST) {
            return Err(LookupError::NoName);
        }
        let found = match query.family {
            // glibc asks as gethostbyname(3) does when it can.
            libc::AF_INET if !query.has(libc::AI_CANONNAME) => self.host_by_name(host, Family::V4).await,
            libc::AF_INET => self.host(host, Family::V4).await,
            libc::AF_INET6 => self.host_mapped(host, query).await,
            _ => self.host(host, Family::Any).await,
        }
        .map_err(LookupError::from)?;
        let addrs = found.addresses.iter().map(|&ip| SocketAddr::new(ip, 0)).collect();
        Ok(Located { addrs, name: Some(found.name) })
    }

    /// The address that `host` is, if it is one.
    fn numeric(&self, host: &str, query: &Query<'_>) -> Result<Option<SocketAddr>, LookupError> {
        if let Some(v4) = numeric::ipv4(host) {
            return match query.family {
                libc::AF_INET6 if query.has(libc::AI_V4MAPPED) => {
                    Ok(Some(SocketAddr::new(v4.to_ipv6_mapped().into(), 0)))
                }
                libc::AF_INET6 => Err(LookupError::AddrFamily),
                _ => Ok(Some(SocketAddr::new(v4.into(), 0))),
            };
        }
        let Some((v6, scope)) = numeric::ipv6(host) else { return Ok(None) };
        let v4 = match (query.family, v6.to_ipv4_mapped()) {
            (libc::AF_INET, None) => return Err(LookupError::AddrFamily),
            (libc::AF_INET, v4) => v4,
            _ => None,
        };
        let scope = match scope {
            Some(scope) => self.scope(&v6, scope).ok_or(LookupError::NoName)?,
            None => 0,
        };
        Ok(Some(match v4 {
            Some(v4) => SocketAddr::new(v4.into(), 0),
            None => SocketAddrV6::new(v6, 0, 0, scope).into(),
        }))
    }

    /// The scope id that a text stands for: an interface of the node, or a number.
    fn scope(&self, addr: &Ipv6Addr, text: &str) -> Option<u32> {
        let index = match numeric::has_link_scope(addr) {
            true => self.stack.if_nametoindex(text).ok(),
            false => None,
        };
        index.or_else(|| numeric::scope_number(text))
    }

    /// IPv6 addresses; IPv4 ones in IPv6's form instead with `AI_V4MAPPED`, or as well with `AI_ALL` too. What one source
    /// has, be it IPv4 alone, goes before all that the next has, as in glibc.
    async fn host_mapped(&self, name: &str, query: &Query<'_>) -> Result<Host, HostError> {
        let wants_v4 = |has_v6: bool| query.has(libc::AI_V4MAPPED) && (query.has(libc::AI_ALL) || !has_v6);
        let hosts = self.hosts.get();
        let v6 = hosts.by_name(name, Family::V6).ok_or(HostError::NotFound);
        let v4 = match wants_v4(v6.is_ok()) {
            true => hosts.by_name(name, Family::V4).ok_or(HostError::NotFound),
            false => Err(HostError::NotFound),
        };
        if v6.is_ok() || v4.is_ok() {
            return both(v6, v4);
        }
        match self.host_elsewhere(name, Family::V6).await {
            v6 if wants_v4(v6.is_ok()) => both(v6, self.host_elsewhere(name, Family::V4).await),
            v6 => v6,
        }
    }

    /// A host by its name, from the first source that has it.
    async fn host(&self, name: &str, family: Family) -> Result<Host, HostError> {
        match self.hosts.get().by_name(name, family) {
            Some(host) => Ok(host),
            None => self.host_elsewhere(name, family).await,
        }
    }

    /// A host that the hosts file does not have: what localhost means, else from the servers.
    async fn host_elsewhere(&self, name: &str, family: Family) -> Result<Host, HostError> {
        if is_localhost(name) {
            let addresses = match family {
                Family::V4 => vec![Ipv4Addr::LOCALHOST.into()],
                Family::V6 => vec![Ipv6Addr::LOCALHOST.into()],
                Family::Any => vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()],
            };
            return Ok(Host { name: name.to_owned(), addresses, ..Host::default() });
        }
        if !is_hostname(name) {
            return Err(HostError::NotFound);
        }
        Ok(self.dns.by_name(name, family).await?)
    }

    fn own_addresses(&self) -> Result<Vec<Address>, LookupError> {
        let addresses = self.stack.route().map_err(|error| LookupError::System(error.errno()))?.addresses();
        addresses.map_err(|error: NetlinkError| LookupError::System(error.errno()))
    }
}

/// Where a host is, and its canonical name where that is not the one it was asked for by.
struct Located {
    addrs: Vec<SocketAddr>,
    name: Option<String>,
}

impl From<Failure> for HostError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NoData => HostError::NoData,
            Failure::NotFound => HostError::NotFound,
            Failure::NoRecovery => HostError::NoRecovery,
            Failure::Rejected | Failure::Unreachable(_) => HostError::TryAgain,
        }
    }
}

impl From<HostError> for LookupError {
    fn from(error: HostError) -> Self {
        match error {
            // glibc knows no EAI_FAIL.
            HostError::NotFound | HostError::NoRecovery => LookupError::NoName,
            HostError::TryAgain => LookupError::Again,
            HostError::NoData => LookupError::NoData,
            HostError::Internal(errno) => LookupError::System(errno),
        }
    }
}

/// The family that is left when those count only of which the node has an address, loopback's aside (`AI_ADDRCONFIG`).
fn configured(family: i32, own: &[Address]) -> Result<i32, LookupError> {
    let has = |v4: bool| {
        own.iter().map(|own| own.address.addr()).any(|ip| match ip {
            IpAddr::V4(ip) => v4 && ip != Ipv4Addr::LOCALHOST,
            IpAddr::V6(ip) => !v4 && !ip.is_loopback(),
        })
    };
    match (family, has(true), has(false)) {
        (libc::AF_UNSPEC, true, false) => Ok(libc::AF_INET),
        (libc::AF_UNSPEC, false, true) => Ok(libc::AF_INET6),
        (libc::AF_INET, false, _) | (libc::AF_INET6, _, false) => Err(LookupError::NoName),
        (family, ..) => Ok(family),
    }
}

/// The addresses without a host: to listen on, or of the node itself.
fn this_node(query: &Query<'_>) -> Vec<SocketAddr> {
    let (v6, v4) = match query.has(libc::AI_PASSIVE) {
        true => (Ipv6Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED),
        false => (Ipv6Addr::LOCALHOST, Ipv4Addr::LOCALHOST),
    };
    let mut addrs = Vec::new();
    if query.family != libc::AF_INET {
        addrs.push(SocketAddr::new(v6.into(), 0));
    }
    if query.family != libc::AF_INET6 {
        addrs.push(SocketAddr::new(v4.into(), 0));
    }
    addrs
}

/// RFC 6761 §6.3: "The domain "localhost." and any names falling within ".localhost." are special".
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Whether servers may be asked for a name: RFC 1123 §2.1 with the underscore, and RFC 1035 §2.3.4's lengths.
fn is_hostname(name: &str) -> bool {
    let labels = name.strip_suffix('.').unwrap_or(name);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(plain);
    name == "." || labels.len() <= 253 && !name.starts_with('-') && labels.split('.').all(is_label)
}

fn mapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
        v6 => v6,
    }
}

/// IPv6 addresses and IPv4 ones in IPv6's form. A failure is as glibc has it one that may pass only when both may.
fn both(v6: Result<Host, HostError>, v4: Result<Host, HostError>) -> Result<Host, HostError> {
    let v4 = v4.map(|host| Host { addresses: host.addresses.into_iter().map(mapped).collect(), ..host });
    match (v6, v4) {
        (Ok(v6), Ok(v4)) => Ok(Host { addresses: [v6.addresses, v4.addresses].concat(), ..v6 }),
        (Ok(host), Err(_)) | (Err(_), Ok(host)) => Ok(host),
        (Err(HostError::Internal(errno)), _) | (_, Err(HostError::Internal(errno))) => {
            Err(HostError::Internal(errno))
        }
        (Err(v6), Err(v4)) if v6 == v4 => Err(v6),
        (Err(HostError::NotFound), _) | (_, Err(HostError::NotFound)) => Err(HostError::NotFound),
        _ => Err(HostError::NoData),
    }
}
