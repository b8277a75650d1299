//! The stub resolver: questions to the node's name servers, over the node's own sockets.
//!
//! Read RFC 1034 §5.3.1 and resolv.conf(5) first, whose defaults are kept.

pub mod message;
mod search;
mod servers;

use std::net::IpAddr;

use domain::base::Name;
use domain::base::iana::{Class, Rtype};
use ioth::conf::Resolver;
use ioth::{Errno, Stack};

use super::hosts::{Family, Host};
use crate::task::join;
use message::{Failure, Query};
use search::Search;
use servers::Servers;

/// The stub resolver of a node.
#[derive(Debug)]
pub(super) struct Client {
    servers: Servers,
    domains: Vec<String>,
}

impl Client {
    pub(super) fn new(stack: Stack, resolver: &Resolver) -> Client {
        let domains = resolver.domains().into_iter().map(str::to_owned).collect();
        Client { servers: Servers::new(stack, &resolver.servers()), domains }
    }

    /// The domain of this node, if it has one.
    pub(super) fn domain(&self) -> Option<&str> {
        self.domains.first().map(|domain| domain.trim_start_matches('.'))
    }

    /// The addresses of a name, which may be short.
    pub(super) async fn by_name(&self, name: &str, family: Family) -> Result<Host, Failure> {
        let mut search = Search::new(name, &self.domains);
        while let Some(name) = search.next() {
            match self.addresses(&name, family).await {
                Ok(host) => return Ok(host),
                Err(failure) => search.failed(failure),
            }
        }
        Err(search.outcome())
    }

    /// The names of an address.
    pub(super) async fn by_address(&self, ip: IpAddr) -> Result<Host, Failure> {
        let name = reverse(ip).ok_or(Failure::NoRecovery)?;
        let answer = self.ask(&name, Class::IN, Rtype::PTR).await?;
        Ok(Host { addresses: vec![ip], ..message::pointers(&answer)? })
    }

    /// res_query(3), or res_search(3): the answer with records of this class and type, or the one without.
    pub(super) async fn resolve(
        &self,
        name: &str,
        class: u16,
        rtype: u16,
        search: bool,
    ) -> Result<Vec<u8>, (Failure, Vec<u8>)> {
        let complete = format!("{}.", name.strip_suffix('.').unwrap_or(name));
        let mut search = Search::new(if search { name } else { &complete }, &self.domains);
        let mut last = Vec::new();
        let mut asked = false;
        while let Some(name) = search.next() {
            asked = true;
            match self.ask(&name, Class::from_int(class), Rtype::from_int(rtype)).await {
                Ok(answer) => match message::check(&answer) {
                    Ok(()) => return Ok(answer),
                    Err(failure) => {
                        last = answer;
                        search.failed(failure);
                    }
                },
                Err(failure) => search.failed(failure),
            }
        }
        // What is no name at all cannot be asked for.
        Err((if asked { search.outcome() } else { Failure::NoRecovery }, last))
    }

    /// res_send(3): the answer to a message.
    pub(super) async fn exchange(&self, query: &[u8]) -> Result<Vec<u8>, Errno> {
        let query = Query::from_message(query).ok_or(Errno::EINVAL)?;
        self.servers.ask(&query).await.map_err(|failure| match failure {
            Failure::Unreachable(errno) => errno,
            // As glibc, which goes on to the next server until there is none.
            _ => Errno::ETIMEDOUT,
        })
    }

    async fn addresses(&self, name: &Name<Vec<u8>>, family: Family) -> Result<Host, Failure> {
        let of = async |rtype| message::addresses(&self.ask(name, Class::IN, rtype).await?);
        match family {
            Family::V4 => of(Rtype::A).await,
            Family::V6 => of(Rtype::AAAA).await,
            Family::Any => match join(of(Rtype::A), of(Rtype::AAAA)).await {
                (Ok(v4), Ok(v6)) => Ok(Host { addresses: [v4.addresses, v6.addresses].concat(), ..v4 }),
                (Ok(host), Err(_)) | (Err(_), Ok(host)) => Ok(host),
                (Err(v4), Err(v6)) => Err(v4.worse(v6)),
            },
        }
    }

    async fn ask(&self, name: &Name<Vec<u8>>, class: Class, rtype: Rtype) -> Result<Vec<u8>, Failure> {
        let mut id = [0; 2];
        getrandom::fill(&mut id).map_err(|_| Failure::Unreachable(Errno::EIO))?;
        self.servers.ask(&Query::new(u16::from_ne_bytes(id), name, class, rtype)).await
    }
}

/// RFC 1035 §3.5, RFC 3596 §2.5.
fn reverse(ip: IpAddr) -> Option<Name<Vec<u8>>> {
    use std::fmt::Write;
    let mut text = String::new();
    let written = match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            write!(text, "{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(ip) => (0..32)
            .try_for_each(|nibble| write!(text, "{:x}.", ip.to_bits() >> (4 * nibble) & 0xf))
            .and_then(|()| write!(text, "ip6.arpa")),
    };
    written.ok()?;
    Name::from_chars(text.chars()).ok()
}

#[cfg(test)]
mod tests;
