//! Name servers and search domains, collected from configurations.

use std::fmt;
use std::net::IpAddr;

use ioth_core::Stack;
use ioth_core::netlink::Route;

use crate::apply::{Section, Selected, sections};
use crate::words::Word;
use crate::{Config, ConfigError};

/// What a resolver of a node has to know: the outcome of its `dns=` and `domain=` words.
///
/// A stack does not hold it; whoever holds the stack keeps one of these beside it, and gives
/// it each configuration that the stack gets. It shows itself as the text of resolv.conf(5).
///
/// ```
/// use ioth_conf::{Config, Resolver};
///
/// let mut resolver = Resolver::default();
/// resolver.apply(&"dns=10.0.0.1,dns=fd00::1,domain=example.org".parse::<Config>()?);
/// resolver.apply(&"-dns=10.0.0.1,dns=10.0.0.2".parse::<Config>()?);
/// assert_eq!(resolver.to_string(), "search example.org\nnameserver fd00::1\nnameserver 10.0.0.2\n");
/// # Ok::<(), ioth_conf::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    servers: Vec<(Selected, IpAddr)>,
    domains: Vec<(Selected, String)>,
}

impl Resolver {
    /// Takes over a configuration's words: removals first, then additions; what is there already stays once.
    pub fn apply(&mut self, config: &Config) {
        for Section { selected: interface, words, .. } in sections(config) {
            for word in &words {
                match word {
                    Word::RemoveStatic => {
                        self.servers.retain(|(of, _)| *of != interface);
                        self.domains.retain(|(of, _)| *of != interface);
                    }
                    Word::RemoveDns(ip) => self.servers.retain(|(of, there)| (of, there) != (&interface, ip)),
                    Word::RemoveDomain(name) => {
                        self.domains.retain(|(of, there)| (of, there) != (&interface, name))
                    }
                    _ => {}
                }
            }
            for word in words {
                match word {
                    Word::Dns(ip) => add(&mut self.servers, (interface.clone(), *ip)),
                    Word::Domain(name) => add(&mut self.domains, (interface.clone(), name.clone())),
                    _ => {}
                }
            }
        }
    }

    /// The part for the interface that `selection` selects (`iface=`, `ifindex=`); all of it when it selects none.
    ///
    /// An interface may have been configured by its name and by its index: the stack knows which are the same.
    ///
    /// # Errors
    /// [`ConfigError::NotASelection`] for other words, [`ConfigError::NoInterface`], and what the stack's netlink gives.
    pub fn select(&self, stack: &dyn Stack, selection: &Config) -> Result<Resolver, ConfigError> {
        let mut wanted = None;
        for word in selection.words() {
            match word {
                Word::Iface(name) => wanted = Some(Selected::Name(name.clone())),
                Word::IfIndex(index) => wanted = Some(Selected::Index(*index)),
                word => return Err(ConfigError::NotASelection { word: word.to_string() }),
            }
        }
        let Some(wanted) = wanted else { return Ok(self.clone()) };
        let step = || "netlink socket".to_owned();
        let route = Route::new(stack).map_err(|source| ConfigError::Step { step: step(), source })?;
        let (index, _) = wanted.find(&route)?;
        // What belongs to an interface that is gone belongs to none.
        let is_wanted =
            |of: &Selected| *of == wanted || of.find(&route).is_ok_and(|(found, _)| found == index);
        Ok(Resolver {
            servers: self.servers.iter().filter(|(of, _)| is_wanted(of)).cloned().collect(),
            domains: self.domains.iter().filter(|(of, _)| is_wanted(of)).cloned().collect(),
        })
    }

    /// The name servers, IPv6 first, each once.
    pub fn servers(&self) -> Vec<IpAddr> {
        let mut servers = Vec::new();
        for v6 in [true, false] {
            for (_, server) in self.servers.iter().filter(|(_, server)| server.is_ipv6() == v6) {
                add(&mut servers, *server);
            }
        }
        servers
    }

    /// The domains to search, each once.
    pub fn domains(&self) -> Vec<&str> {
        let mut domains = Vec::new();
        for (_, domain) in &self.domains {
            add(&mut domains, domain.as_str());
        }
        domains
    }
}

impl fmt::Display for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let domains = self.domains();
        if !domains.is_empty() {
            writeln!(f, "search {}", domains.join(" "))?;
        }
        self.servers().iter().try_for_each(|server| writeln!(f, "nameserver {server}"))
    }
}

fn add<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_kept_apart() {
        let mut resolver = Resolver::default();
        let mut apply = |text: &str| {
            resolver.apply(&text.parse().unwrap());
            resolver.to_string()
        };
        assert_eq!(
            apply("dns=1.1.1.1 domain=a iface=vde1 dns=1.1.1.1 domain=b"),
            "search a b\nnameserver 1.1.1.1\n"
        );
        assert_eq!(apply("iface=vde1,-static"), "search a\nnameserver 1.1.1.1\n");
        assert_eq!(apply("iface=vde0 -static domain=c"), "search c\n");
        assert_eq!(apply("-domain=c"), "");
    }
}
