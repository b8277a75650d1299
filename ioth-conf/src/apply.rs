//! Making it so: a configuration's words in their order of application, over netlink.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitflags::bitflags;
use ioth_core::hashaddr::hash_mac;
use ioth_core::netlink::{self, Address, Changes, LinkFlags, Route, RouteEntry};
use ioth_core::{Cidr, Errno, MacAddr, Registry, Stack};

use crate::words::Word;
use crate::{Config, ConfigError};

bitflags! {
    /// The sources of configuration that worked, with libioth's values.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Applied: u32 {
        /// `ip=`, `gw=`, `dns=`, `domain=`.
        const STATIC = 1;
        /// `eth`.
        const ETH = 2;
        /// `dhcp`; not in this version.
        const DHCP4 = 4;
        /// `dhcp6`; not in this version.
        const DHCPV6 = 8;
        /// `rd`; not in this version.
        const RD = 16;
    }
}

/// Changes a stack's configuration by a string, as `ioth_config`.
///
/// # Errors
/// What is wrong in the string ([`ConfigError::errno`] says `EINVAL`, also for `stack=` and `vnl=`;
/// `ENOTSUP` for words of later versions), a missing interface (`ENODEV`), or the stack's refusal. The
/// steps before the one that failed stay done.
pub fn configure(stack: &dyn Stack, config: &str) -> Result<Applied, ConfigError> {
    config.parse::<Config>()?.apply(stack)
}

/// Makes a stack by a string, with its interfaces, and configures it, as `ioth_newstackc`.
///
/// Without `stack=`, or with an empty one, it is the backend called `kernel`.
///
/// # Errors
/// As [`configure`], and what [`Registry::create`] gives. The stack is deleted then.
pub fn new_stack(registry: &Registry, config: &str) -> Result<Arc<dyn Stack>, ConfigError> {
    config.parse::<Config>()?.create(registry)
}

impl Config {
    /// Changes a stack's configuration: [`configure`] with a string that is already read.
    ///
    /// # Errors
    /// As [`configure`].
    pub fn apply(&self, stack: &dyn Stack) -> Result<Applied, ConfigError> {
        for word in self.words() {
            match word {
                Word::Stack(_) => return Err(ConfigError::Misplaced { word: "stack" }),
                Word::Vnl(_) => return Err(ConfigError::Misplaced { word: "vnl" }),
                _ => {}
            }
        }
        self.run(stack)
    }

    /// Makes a stack and configures it: [`new_stack`] with a string that is already read.
    ///
    /// # Errors
    /// As [`new_stack`].
    pub fn create(&self, registry: &Registry) -> Result<Arc<dyn Stack>, ConfigError> {
        let name = self.stack().filter(|name| !name.is_empty()).unwrap_or("kernel");
        let vnls: Vec<&str> = self.vnls().collect();
        let stack = registry.create(name, &vnls)?;
        match self.run(&*stack) {
            Ok(_) => Ok(stack),
            Err(error) => {
                // The error to tell is the first one; dropping the stack deletes it all the same.
                let _ = stack.delete();
                Err(error)
            }
        }
    }

    /// The order is libioth's: removals, then `eth`, then what is static.
    fn run(&self, stack: &dyn Stack) -> Result<Applied, ConfigError> {
        let ours = own_interfaces(self);
        let mut applied = Applied::empty();
        let mut targets = Vec::new();
        // Opened by the first interface: without one there is nothing to ask the stack for.
        let mut opened = None;
        for Section { selected, named, words } in sections(self) {
            if words.iter().any(|word| matches!(word, Word::Dns(_) | Word::Domain(_))) {
                applied |= Applied::STATIC;
            }
            if !named && !words.iter().any(|word| needs_interface(word)) {
                continue;
            }
            let route = match &opened {
                Some(route) => Arc::clone(route),
                None => {
                    let step = || "netlink socket".to_owned();
                    let route =
                        Route::new(stack).map_err(|source| ConfigError::Step { step: step(), source })?;
                    Arc::clone(opened.insert(Arc::new(route)))
                }
            };
            let (index, name) = selected.find(&route)?;
            let eth = words.contains(&&Word::Eth)
                || ours.contains(&name) && words.iter().any(|word| matches!(word, Word::Ip(_)));
            targets.push(Target { route, index, name, words, eth, debug: self.debug() });
        }
        let fqdn = self.words().iter().find_map(fqdn);
        for target in &targets {
            target.remove()?;
        }
        for target in &targets {
            applied.set(Applied::ETH, target.bring_up(fqdn)? || applied.contains(Applied::ETH));
        }
        for target in &targets {
            applied.set(Applied::STATIC, target.add_static(stack)? || applied.contains(Applied::STATIC));
        }
        Ok(applied)
    }
}

/// An interface and the words for it.
struct Target<'a> {
    route: Arc<Route>,
    index: u32,
    name: String,
    words: Vec<&'a Word>,
    /// Whether it is to come up.
    eth: bool,
    debug: bool,
}

impl Target<'_> {
    fn remove(&self) -> Result<(), ConfigError> {
        for word in &self.words {
            match word {
                Word::RemoveStatic => {
                    self.remove_routes(word, |route| route.protocol == RTPROT_BOOT)?;
                    self.remove_addresses(word, is_static)?;
                }
                Word::RemoveIp(ip, len) => self.remove_addresses(word, |address| {
                    let there = address.address;
                    there.addr() == *ip && len.is_none_or(|len| len == there.prefix_len())
                })?,
                Word::RemoveGw(ip) => {
                    self.remove_routes(word, |route| route.default_route() && route.gateway == Some(*ip))?;
                }
                _ => {}
            }
        }
        if self.words.contains(&&Word::RemoveEth) {
            self.step(&Word::RemoveEth, |route| route.set_link_up(self.index, false))?;
        }
        Ok(())
    }

    fn remove_addresses(&self, word: &Word, which: impl Fn(&Address) -> bool) -> Result<(), ConfigError> {
        let mine = |address: &Address| address.index == self.index && which(address);
        for address in self.step(word, Route::addresses)?.into_iter().filter(mine) {
            // It may be gone by itself: Linux drops IPv4 secondaries with their primary.
            self.step(word, |route| {
                absent_is_well(route.del_address(self.index, address.address), Errno::EADDRNOTAVAIL)
            })?;
        }
        Ok(())
    }

    fn remove_routes(&self, word: &Word, which: impl Fn(&RouteEntry) -> bool) -> Result<(), ConfigError> {
        let mine =
            |route: &RouteEntry| route.index == self.index && route.table == RT_TABLE_MAIN && which(route);
        for entry in self.step(word, Route::routes)?.into_iter().filter(mine) {
            self.step(word, |route| {
                absent_is_well(route.del_route(Some(entry.dst), entry.gateway, self.index), Errno::ESRCH)
            })?;
        }
        Ok(())
    }

    fn bring_up(&self, node: Option<&str>) -> Result<bool, ConfigError> {
        if !self.eth {
            return Ok(false);
        }
        let explicit = self.words.iter().rev().find_map(|word| match word {
            Word::Mac(mac) => Some(*mac),
            _ => None,
        });
        let fqdn = self.words.iter().rev().find_map(|word| fqdn(word)).or(node);
        if let Some(mac) = explicit.or_else(|| fqdn.map(|name| hash_mac(name, ""))) {
            self.step(&Word::Mac(mac), |route| self.set_mac(route, mac))?;
        }
        self.step(&Word::Eth, |route| route.set_link_up(self.index, true))?;
        Ok(true)
    }

    /// Does nothing when it is the address already: some drivers want to be down for a change.
    fn set_mac(&self, route: &Route, mac: MacAddr) -> netlink::Result<()> {
        if route.link_addr(self.index)? == Some(mac) {
            return Ok(());
        }
        route.set_link_addr(self.index, mac)
    }

    /// Addresses first: gateways are found through them.
    fn add_static(&self, stack: &dyn Stack) -> Result<bool, ConfigError> {
        let mut done = false;
        for word in &self.words {
            if let Word::Ip(address) = word {
                self.add_address(word, *address)?;
                done = true;
            }
        }
        self.wait_for_addresses(stack)?;
        for word in &self.words {
            if let Word::Gw(gateway) = word {
                self.add_gateway(word, *gateway)?;
                done = true;
            }
        }
        Ok(done)
    }

    fn add_address(&self, word: &Word, address: Cidr) -> Result<(), ConfigError> {
        let added = self.step(word, |route| exists(route.add_address(self.index, address)))?;
        if added {
            return Ok(());
        }
        let there = self.step(word, Route::addresses)?.into_iter().find(|there| {
            there.index == self.index && there.address.addr() == address.addr() && there.address != address
        });
        match there {
            Some(there) => Err(self.conflict(word, format!("the interface has {}", there.address))),
            None => Ok(()),
        }
    }

    /// Waits until the addresses that were added can be bound to: Linux looks for duplicates of IPv6 ones first (RFC 4862 §5.4), in a
    /// thread of its own even where that is turned off. One that has a duplicate stays unusable, and so does one whose
    /// interface has no cable yet.
    fn wait_for_addresses(&self, stack: &dyn Stack) -> Result<(), ConfigError> {
        let last = self
            .words
            .iter()
            .rev()
            .find(|word| matches!(word, Word::Ip(address) if address.addr().is_ipv6()));
        let Some(word) = last else { return Ok(()) };
        let deadline = Instant::now() + TENTATIVE_MAX;
        // Opened by the first look that finds it is needed; what changed before that is seen by the next one.
        let mut changes = None;
        loop {
            let is_added = |address: &Address| {
                let added = |word: &&Word| matches!(word, Word::Ip(added) if *added == address.address);
                address.index == self.index && self.words.iter().any(added)
            };
            let waits =
                |address: &Address| address.flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED) == IFA_F_TENTATIVE;
            let addresses = self.step(word, Route::addresses)?;
            if !addresses.iter().any(|address| is_added(address) && waits(address)) {
                return Ok(());
            }
            let link = self.step(word, |route| route.link(self.index))?;
            if !link.flags.contains(LinkFlags::RUNNING) || Instant::now() >= deadline {
                return Ok(());
            }
            match &changes {
                None => changes = Some(self.step(word, |_| Changes::new(stack))?),
                Some(changes) => drop(self.step(word, |_| changes.wait(deadline))?),
            }
        }
    }

    fn add_gateway(&self, word: &Word, gateway: IpAddr) -> Result<(), ConfigError> {
        let added = self.step(word, |route| exists(route.add_route(None, Some(gateway), self.index)))?;
        if added {
            return Ok(());
        }
        let routes = self.step(word, Route::routes)?;
        let mut defaults = routes.iter().filter(|route| {
            route.default_route()
                && route.table == RT_TABLE_MAIN
                && route.dst.addr().is_ipv4() == gateway.is_ipv4()
        });
        if defaults.clone().any(|route| route.gateway == Some(gateway) && route.index == self.index) {
            return Ok(());
        }
        let there = defaults.find_map(|route| route.gateway);
        let through = there.map(|there| format!(" through {there}")).unwrap_or_default();
        Err(self.conflict(word, format!("there is another default route{through}")))
    }

    fn step<T>(&self, word: &Word, act: impl FnOnce(&Route) -> netlink::Result<T>) -> Result<T, ConfigError> {
        let step = || format!("{}: {word}", self.name);
        let result = act(&self.route);
        if self.debug {
            let outcome = result.as_ref().err().map(|error| format!(": {error}")).unwrap_or_default();
            eprintln!("ioth-conf: {}{outcome}", step());
        }
        result.map_err(|source| ConfigError::Step { step: step(), source })
    }

    fn conflict(&self, word: &Word, there: String) -> ConfigError {
        ConfigError::Conflict { step: format!("{}: {word}", self.name), there }
    }
}

/// The words for one interface.
pub(crate) struct Section<'a> {
    pub(crate) selected: Selected,
    /// Whether the string names it; the first interface need not exist when no word is for it.
    named: bool,
    pub(crate) words: Vec<&'a Word>,
}

/// The interface that words are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selected {
    Name(String),
    Index(u32),
}

impl Selected {
    pub(crate) fn find(&self, route: &Route) -> Result<(u32, String), ConfigError> {
        let found = match self {
            Selected::Name(name) => route.link_index(name).map(|index| (index, name.clone())),
            Selected::Index(index) => route.link_name(*index).map(|name| (*index, name)),
        };
        found.map_err(|source| match source.errno() {
            Errno::ENODEV => ConfigError::NoInterface { interface: self.to_string() },
            _ => ConfigError::Step { step: format!("interface {self}"), source },
        })
    }
}

impl fmt::Display for Selected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selected::Name(name) => write!(f, "{name:?}"),
            Selected::Index(index) => write!(f, "number {index}"),
        }
    }
}

/// The words of each interface, in the order in which the interfaces are first selected.
pub(crate) fn sections(config: &Config) -> Vec<Section<'_>> {
    let first = config.vnls().next().and_then(ifname).unwrap_or("vde0").to_owned();
    let section = |selected, named| Section { selected, named, words: Vec::new() };
    let mut sections = vec![section(Selected::Name(first), false)];
    let mut current = 0;
    for word in config.words() {
        let selected = match word {
            Word::Iface(name) => Selected::Name(name.clone()),
            Word::IfIndex(index) => Selected::Index(*index),
            word => {
                sections[current].words.push(word);
                continue;
            }
        };
        current = sections.iter().position(|there| there.selected == selected).unwrap_or_else(|| {
            sections.push(section(selected, true));
            sections.len() - 1
        });
        sections[current].named = true;
    }
    sections
}

/// The names of the interfaces that the `vnl=` words make.
fn own_interfaces(config: &Config) -> BTreeSet<String> {
    let numbered = config.vnls().enumerate().map(|(number, _)| format!("vde{number}"));
    numbered.chain(config.vnls().filter_map(ifname).map(str::to_owned)).collect()
}

/// The interface's name in `ifname:vnl`: what stands before a `:` that neither begins `://` nor is in a path.
fn ifname(vnl: &str) -> Option<&str> {
    let (name, rest) = vnl.split_once(':')?;
    (!name.is_empty() && !name.contains('/') && !rest.starts_with("//")).then_some(name)
}

fn needs_interface(word: &Word) -> bool {
    matches!(
        word,
        Word::Eth
            | Word::Ip(_)
            | Word::Gw(_)
            | Word::RemoveIp(..)
            | Word::RemoveGw(_)
            | Word::RemoveStatic
            | Word::RemoveEth
    )
}

fn fqdn(word: &Word) -> Option<&str> {
    match word {
        Word::Fqdn(name) => Some(name),
        _ => None,
    }
}

/// Whether nobody but a static source can have made it: it never expires and isn't the stack's own.
fn is_static(address: &Address) -> bool {
    let automatic = match address.address.addr() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
    };
    address.valid.is_none() && !IFAPROT_KERNEL.contains(&address.protocol) && !automatic
}

/// Longer than the search for duplicates takes by default: up to a second of delay and a second of silence.
const TENTATIVE_MAX: Duration = Duration::from_secs(3);
/// rtnetlink(7), linux/if_addr.h
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_TENTATIVE: u32 = 0x40;
/// `IFAPROT_KERNEL_LO`, `_RA` and `_LL`.
const IFAPROT_KERNEL: std::ops::RangeInclusive<u8> = 1..=3;
/// rtnetlink(7)
const RTPROT_BOOT: u8 = 3;
/// rtnetlink(7)
const RT_TABLE_MAIN: u32 = 254;

/// Whether it was added; false when it was there.
fn exists(added: netlink::Result<()>) -> netlink::Result<bool> {
    match added {
        Err(error) if error.errno() == Errno::EEXIST => Ok(false),
        added => added.map(|()| true),
    }
}

fn absent_is_well(removed: netlink::Result<()>, absent: Errno) -> netlink::Result<()> {
    removed.or_else(|error| if error.errno() == absent { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let config: Config = text.parse().unwrap();
        let show = |section: Section<'_>| {
            let words: Vec<String> = section.words.into_iter().map(Word::to_string).collect();
            format!("{}: {}", section.selected, words.join(" "))
        };
        sections(&config).into_iter().filter(|section| !section.words.is_empty()).map(show).collect()
    }

    #[test]
    fn words_go_to_the_interface_before_them() {
        assert_eq!(
            shown("eth iface=vde1 ip=10.0.0.1 ifindex=3 gw=10.0.0.2 iface=vde0 debug iface=vde1 -eth"),
            ["\"vde0\": eth debug", "\"vde1\": ip=10.0.0.1/24 -eth", "number 3: gw=10.0.0.2"]
        );
        assert_eq!(
            shown("vnl=eth0:switch://a,vnl=switch://b,eth")[0],
            "\"eth0\": vnl=eth0:switch://a vnl=switch://b eth"
        );
        assert_eq!(shown("vnl=switch://a,vnl=eth0:b,eth")[0].split(':').next(), Some("\"vde0\""));
    }

    #[test]
    fn interface_names_in_locators() {
        for (vnl, name) in [
            ("eth0:vde:///tmp/sw", Some("eth0")),
            ("eth0:/tmp/sw", Some("eth0")),
            ("vde:///tmp/sw", None),
            ("udp://1:2->[::1]:3", None),
            ("/tmp/a:b", None),
            ("", None),
        ] {
            assert_eq!(ifname(vnl), name, "{vnl}");
        }
    }

    #[test]
    fn no_stack_in_a_configuration_of_one() {
        for text in ["stack=smoltcp", "eth,vnl=switch://lan"] {
            let config: Config = text.parse().unwrap();
            let empty = Registry::new();
            assert_eq!(config.create(&empty).unwrap_err().errno(), Errno::ENOTSUP);
        }
    }
}
