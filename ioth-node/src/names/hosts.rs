//! The hosts file, hosts(5).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use super::file::lines;
use super::numeric;

/// A family of addresses that is looked for, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `AF_UNSPEC`
    Any,
    /// `AF_INET`
    V4,
    /// `AF_INET6`
    V6,
}

/// What is found under a name or an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// The canonical name.
    pub name: String,
    /// Other names.
    pub aliases: Vec<String>,
    /// The addresses, in the order of the source.
    pub addresses: Vec<IpAddr>,
}

/// A hosts file.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    entries: Vec<Entry>,
    /// The entries of a name in lower case, in their order.
    by_name: HashMap<String, Vec<u32>>,
}

#[derive(Clone, Debug)]
struct Entry {
    address: IpAddr,
    name: String,
    aliases: Vec<String>,
}

impl Hosts {
    /// Reads a file; lines without an address are left out, as are names that are not UTF-8.
    pub fn parse(text: &[u8]) -> Hosts {
        let mut hosts = Hosts::default();
        for mut fields in lines(text) {
            let text = |field| std::str::from_utf8(field).ok();
            let Some(address) = fields.next().and_then(text).and_then(numeric::plain) else { continue };
            let mut names = fields.filter_map(text).map(str::to_owned);
            let Some(name) = names.next() else { continue };
            hosts.add(Entry { address, name, aliases: names.collect() });
        }
        hosts
    }

    /// What is under `name`, whose case does not matter: of all lines that have it.
    pub fn by_name(&self, name: &str, family: Family) -> Option<Host> {
        let mut found: Option<Host> = None;
        for &at in self.by_name.get(&name.to_ascii_lowercase())? {
            let entry = &self.entries[at as usize];
            let Some(address) = entry.address_of(family) else { continue };
            match &mut found {
                None => {
                    found = Some(Host {
                        name: entry.name.clone(),
                        aliases: entry.aliases.clone(),
                        addresses: vec![address],
                    });
                }
                Some(host) => {
                    host.addresses.push(address);
                    host.aliases.extend(entry.aliases.iter().cloned());
                    if entry.name != host.name {
                        host.aliases.push(entry.name.clone());
                    }
                }
            }
        }
        found
    }

    /// What the first line with `address` says.
    pub fn by_address(&self, address: IpAddr) -> Option<Host> {
        let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
        let entry = self.entries.iter().find(|entry| entry.address_of(family) == Some(address))?;
        let (name, aliases) = (entry.name.clone(), entry.aliases.clone());
        Some(Host { name, aliases, addresses: vec![address] })
    }

    fn add(&mut self, entry: Entry) {
        let at = self.entries.len() as u32;
        for name in std::iter::once(&entry.name).chain(&entry.aliases) {
            let entries = self.by_name.entry(name.to_ascii_lowercase()).or_default();
            // A line may have a name twice.
            if entries.last() != Some(&at) {
                entries.push(at);
            }
        }
        self.entries.push(entry);
    }
}

impl Entry {
    /// Its address for whoever looks for `family`: IPv4 is also what its IPv6 forms stand for, as glibc has it.
    fn address_of(&self, family: Family) -> Option<IpAddr> {
        match (family, self.address) {
            (Family::Any, address) => Some(address),
            (Family::V4, IpAddr::V4(_)) | (Family::V6, IpAddr::V6(_)) => Some(self.address),
            (Family::V4, IpAddr::V6(v6)) if v6.is_loopback() => Some(Ipv4Addr::LOCALHOST.into()),
            (Family::V4, IpAddr::V6(v6)) => v6.to_ipv4_mapped().map(IpAddr::from),
            (Family::V6, IpAddr::V4(_)) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(hosts: &Hosts, name: &str, family: Family) -> Vec<String> {
        let host = hosts.by_name(name, family).unwrap_or_default();
        host.addresses.iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn lines_of_all_kinds() {
        let hosts = Hosts::parse(
            b"# a comment\n127.0.0.1\tlocalhost loop\n::1 localhost ip6-localhost # more\n\n10.0.0.1 Web.Example web\x0bw3\n\
              10.0.0.2 web second\nfd00::1 web\n::ffff:10.0.0.3 web\nnonsense web\n10.0.0.4\n010.0.0.5 web\n10.0.0.6 \xff web",
        );
        assert_eq!(found(&hosts, "localhost", Family::Any), ["127.0.0.1", "::1"]);
        assert_eq!(found(&hosts, "LOCALHOST", Family::V4), ["127.0.0.1", "127.0.0.1"]);
        assert_eq!(found(&hosts, "ip6-localhost", Family::V4), ["127.0.0.1"]);
        assert_eq!(found(&hosts, "web", Family::V6), ["fd00::1", "::ffff:10.0.0.3"]);
        assert_eq!(found(&hosts, "w3", Family::Any), ["10.0.0.1"]);
        assert_eq!(found(&hosts, "w3", Family::V6), [""; 0]);
        let web = hosts.by_name("web", Family::V4).unwrap();
        assert_eq!(web.name, "Web.Example");
        assert_eq!(web.aliases, ["web", "w3", "second", "web", "web", "web"]);
        assert_eq!(web.addresses.len(), 4);
        assert_eq!(hosts.by_name("nobody", Family::Any), None);
        assert_eq!(hosts.by_name("", Family::Any), None);
        let of = |text: &str| hosts.by_address(text.parse().unwrap());
        assert_eq!(of("10.0.0.2").unwrap().aliases, ["second"]);
        assert_eq!(of("10.0.0.3").unwrap().name, "web");
        assert_eq!(of("10.0.0.4"), None, "a line without a name");
        assert_eq!(of("10.0.0.5"), None);
    }
}
