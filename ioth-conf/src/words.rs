//! The words: one table that the parser, the documentation and the search for the nearest word use.

use std::fmt;
use std::net::IpAddr;

use ioth_core::{Cidr, MacAddr};

use crate::ConfigError;
use crate::split::{Token, quote};

/// A word of a configuration, with its value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Word {
    /// `stack=NAME[,OPTIONS]`
    Stack(String),
    /// `vnl=[IFNAME:]VNL`
    Vnl(String),
    /// `iface=NAME`
    Iface(String),
    /// `ifindex=N`
    IfIndex(u32),
    /// `fqdn=NAME`
    Fqdn(String),
    /// `mac=MAC`
    Mac(MacAddr),
    /// `eth`
    Eth,
    /// `ip=ADDRESS[/LENGTH]`
    Ip(Cidr),
    /// `gw=ADDRESS`
    Gw(IpAddr),
    /// `dns=ADDRESS`
    Dns(IpAddr),
    /// `domain=NAME`
    Domain(String),
    /// `debug`
    Debug,
    /// `-ip=ADDRESS[/LENGTH]`: the address, of any prefix length when none is given.
    RemoveIp(IpAddr, Option<u8>),
    /// `-gw=ADDRESS`
    RemoveGw(IpAddr),
    /// `-dns=ADDRESS`
    RemoveDns(IpAddr),
    /// `-domain=NAME`
    RemoveDomain(String),
    /// `-static`
    RemoveStatic,
    /// `-eth`
    RemoveEth,
}

/// A line of the table of words.
#[derive(Debug)]
#[non_exhaustive]
pub struct WordInfo {
    /// The word.
    pub name: &'static str,
    /// Other ways to write it.
    pub aliases: &'static [&'static str],
    /// What its value is; `None` for a word without one.
    pub value: Option<&'static str>,
    /// What it does.
    pub meaning: &'static str,
    read: Read,
}

/// How a word is read.
#[derive(Debug)]
enum Read {
    Flag(Word),
    Value(fn(&str) -> Result<Word, String>),
    /// An empty value has a meaning of its own.
    MaybeEmpty(fn(String) -> Word),
    NotSupported,
}

impl WordInfo {
    /// Whether this version serves it.
    pub fn supported(&self) -> bool {
        !matches!(self.read, Read::NotSupported)
    }

    const fn flag(name: &'static str, word: Word, meaning: &'static str) -> Self {
        WordInfo { name, aliases: &[], value: None, meaning, read: Read::Flag(word) }
    }

    const fn value(
        name: &'static str,
        value: &'static str,
        read: fn(&str) -> Result<Word, String>,
        meaning: &'static str,
    ) -> Self {
        WordInfo { name, aliases: &[], value: Some(value), meaning, read: Read::Value(read) }
    }

    const fn not_supported(
        name: &'static str,
        aliases: &'static [&'static str],
        meaning: &'static str,
    ) -> Self {
        WordInfo { name, aliases, value: None, meaning, read: Read::NotSupported }
    }

    fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }
}

/// All words, in the order of the documentation.
pub const WORDS: &[WordInfo] = &[
    WordInfo {
        name: "stack",
        aliases: &[],
        value: Some("NAME[,OPTIONS]"),
        meaning: "new stacks only: the backend (default: `kernel`); quote the comma before options",
        read: Read::MaybeEmpty(Word::Stack),
    },
    WordInfo {
        name: "vnl",
        aliases: &[],
        value: Some("[IFNAME:]VNL"),
        meaning: "new stacks only: adds an interface, plugged into that virtual network",
        read: Read::MaybeEmpty(Word::Vnl),
    },
    WordInfo::value(
        "iface",
        "NAME",
        |v| Ok(Word::Iface(v.to_owned())),
        "the words after it are for this interface",
    ),
    WordInfo::value("ifindex", "N", index, "the same by the interface's number"),
    WordInfo::value(
        "fqdn",
        "NAME",
        |v| name(v).map(Word::Fqdn),
        "the host's name: `eth` makes the MAC address of it",
    ),
    WordInfo {
        name: "mac",
        aliases: &["macaddr"],
        value: Some("MAC"),
        meaning: "the MAC address that `eth` sets",
        read: Read::Value(|v| v.parse().map(Word::Mac).map_err(|error| format!("{error}"))),
    },
    WordInfo::flag(
        "eth",
        Word::Eth,
        "sets the MAC address (`mac=`, else the hash of `fqdn=`, else none) and brings the interface up",
    ),
    WordInfo::value(
        "ip",
        "ADDRESS[/LENGTH]",
        |v| cidr(v).map(Word::Ip),
        "adds an address; without a length /24 (IPv4) or /64 (IPv6)",
    ),
    WordInfo::value("gw", "ADDRESS", |v| ip(v).map(Word::Gw), "adds a default route"),
    WordInfo::value("dns", "ADDRESS", |v| ip(v).map(Word::Dns), "a name server"),
    WordInfo::value("domain", "NAME", |v| name(v).map(Word::Domain), "a domain to search names in"),
    WordInfo::flag("debug", Word::Debug, "tells each step on standard error"),
    WordInfo::value(
        "-ip",
        "ADDRESS[/LENGTH]",
        remove_ip,
        "removes that address; without a length whatever its prefix",
    ),
    WordInfo::value("-gw", "ADDRESS", |v| ip(v).map(Word::RemoveGw), "removes the default route through it"),
    WordInfo::value("-dns", "ADDRESS", |v| ip(v).map(Word::RemoveDns), "forgets that name server"),
    WordInfo::value("-domain", "NAME", |v| name(v).map(Word::RemoveDomain), "forgets that domain"),
    WordInfo::flag(
        "-static",
        Word::RemoveStatic,
        "removes the interface's addresses without end of life, its routes of protocol boot, `dns=` and `domain=`",
    ),
    WordInfo::flag("-eth", Word::RemoveEth, "takes the interface down"),
    WordInfo::not_supported("dhcp", &["dhcp4", "dhcpv4"], "DHCPv4 client"),
    WordInfo::not_supported("dhcp6", &["dhcpv6"], "DHCPv6 client"),
    WordInfo::not_supported("rd", &["rd6"], "router discovery"),
    WordInfo::not_supported("slaac", &[], "with `rd`, makes addresses as well"),
    WordInfo::not_supported("auto", &[], "`eth dhcp dhcp6 rd`"),
    WordInfo::not_supported("auto4", &["autov4"], "`eth dhcp`"),
    WordInfo::not_supported("auto6", &["autov6"], "`eth dhcp6 rd`"),
    WordInfo::not_supported("-dhcp", &["-dhcp4", "-dhcpv4"], "removes what DHCPv4 gave"),
    WordInfo::not_supported("-dhcp6", &["-dhcpv6"], "removes what DHCPv6 gave"),
    WordInfo::not_supported("-rd", &["-rd6"], "removes what router discovery gave"),
    WordInfo::not_supported("-auto", &["-all"], "`-eth -dhcp -dhcp6 -rd`"),
    WordInfo::not_supported("-auto4", &["-autov4"], "`-eth -dhcp`"),
    WordInfo::not_supported("-auto6", &["-autov6"], "`-eth -dhcp6 -rd`"),
];

impl Word {
    /// Reads a word by the table.
    pub(crate) fn read(token: &Token) -> Result<Self, ConfigError> {
        let position = token.position;
        let found = WORDS.iter().find_map(|info| {
            let word = info.names().find(|name| *name == token.key)?;
            Some((info, word))
        });
        let Some((info, word)) = found else {
            let shown: String = token.key.chars().take(SHOWN).flat_map(char::escape_debug).collect();
            return Err(ConfigError::UnknownWord { word: shown, position, nearest: nearest(&token.key) });
        };
        let missing =
            || ConfigError::MissingValue { word, position, expected: info.value.unwrap_or_default() };
        match &info.read {
            Read::NotSupported => Err(ConfigError::NotSupported { word, position }),
            Read::Flag(_) if token.value.is_some() => Err(ConfigError::UnexpectedValue { word, position }),
            Read::Flag(flag) => Ok(flag.clone()),
            Read::MaybeEmpty(read) => Ok(read(token.value.clone().ok_or_else(missing)?)),
            Read::Value(read) => {
                let value = token.value.as_deref().filter(|value| !value.is_empty()).ok_or_else(missing)?;
                read(value).map_err(|reason| ConfigError::Value { word, position, reason })
            }
        }
    }
}

impl fmt::Display for Word {
    /// Quoted where needed, so that it is read back as the same word.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Word::Stack(name) => write!(f, "stack={}", quote(name)),
            Word::Vnl(vnl) => write!(f, "vnl={}", quote(vnl)),
            Word::Iface(name) => write!(f, "iface={}", quote(name)),
            Word::IfIndex(index) => write!(f, "ifindex={index}"),
            Word::Fqdn(name) => write!(f, "fqdn={}", quote(name)),
            Word::Mac(mac) => write!(f, "mac={mac}"),
            Word::Eth => f.write_str("eth"),
            Word::Ip(cidr) => write!(f, "ip={cidr}"),
            Word::Gw(ip) => write!(f, "gw={ip}"),
            Word::Dns(ip) => write!(f, "dns={ip}"),
            Word::Domain(name) => write!(f, "domain={}", quote(name)),
            Word::Debug => f.write_str("debug"),
            Word::RemoveIp(ip, None) => write!(f, "-ip={ip}"),
            Word::RemoveIp(ip, Some(len)) => write!(f, "-ip={ip}/{len}"),
            Word::RemoveGw(ip) => write!(f, "-gw={ip}"),
            Word::RemoveDns(ip) => write!(f, "-dns={ip}"),
            Word::RemoveDomain(name) => write!(f, "-domain={}", quote(name)),
            Word::RemoveStatic => f.write_str("-static"),
            Word::RemoveEth => f.write_str("-eth"),
        }
    }
}

/// How many characters of an unknown word are shown.
const SHOWN: usize = 32;

fn index(value: &str) -> Result<Word, String> {
    let index = value.parse().ok().filter(|&index| index > 0 && value.bytes().all(|b| b.is_ascii_digit()));
    index.map(Word::IfIndex).ok_or_else(|| format!("{value:?} is not an interface index (a number from 1)"))
}

fn ip(value: &str) -> Result<IpAddr, String> {
    value.parse().map_err(|_| format!("{value:?} is not an IP address (such as 10.0.0.1 or fd00::1)"))
}

fn cidr(value: &str) -> Result<Cidr, String> {
    Cidr::parse_or(value, |addr| if addr.is_ipv4() { 24 } else { 64 }).map_err(|error| error.to_string())
}

fn remove_ip(value: &str) -> Result<Word, String> {
    let cidr = cidr(value)?;
    Ok(Word::RemoveIp(cidr.addr(), value.contains('/').then_some(cidr.prefix_len())))
}

/// RFC 1035 §2.3.4: names of 255 octets or less, which is 253 characters of text and a final dot.
fn name(value: &str) -> Result<String, String> {
    if value.len() > 254 {
        return Err(format!("a name of {} bytes (at most 254)", value.len()));
    }
    if value.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(format!("{value:?} is not a host's or domain's name: there is a blank in it"));
    }
    Ok(value.to_owned())
}

/// The known word that is at most two slips away, supported ones first.
fn nearest(word: &str) -> Option<&'static str> {
    let word: Vec<char> = word.chars().take(SHOWN).collect();
    let known = WORDS.iter().flat_map(|info| info.names().map(|name| (name, info.supported())));
    known
        .map(|(name, supported)| (distance(&word, &name.chars().collect::<Vec<_>>()), !supported, name))
        // Two slips make anything of a word of two letters.
        .filter(|&(slips, _, name)| slips <= 2 && slips < name.len().min(word.len()))
        .min()
        .map(|(_, _, name)| name)
}

/// Insertions, deletions, replacements and swaps of neighbours that make `b` of `a`.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table as words.md, which the crate's documentation includes.
    fn markdown() -> String {
        let mut text = "| word | meaning |\n|---|---|\n".to_owned();
        for info in WORDS {
            let value = info.value.map(|value| format!("={value}")).unwrap_or_default();
            let names: Vec<String> = info.names().map(|name| format!("`{name}{value}`")).collect();
            let note = if info.supported() { "" } else { "not supported in this version: " };
            text += &format!("| {} | {note}{} |\n", names.join(", "), info.meaning);
        }
        text
    }

    #[test]
    fn the_documentation_is_the_table() {
        assert_eq!(include_str!("words.md"), markdown(), "src/words.md should be:\n{}", markdown());
    }

    #[test]
    fn no_word_twice() {
        let mut names: Vec<_> = WORDS.iter().flat_map(WordInfo::names).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn nearest_words() {
        for (word, right) in [
            ("vln", Some("vnl")),
            ("pi", Some("ip")),
            ("macadr", Some("macaddr")),
            ("-statc", Some("-static")),
            ("ifnidex", Some("ifindex")),
            ("DHCP", None),
            ("dchp", Some("dhcp")),
            ("x", None),
            ("", None),
            ("password", None),
        ] {
            assert_eq!(nearest(word), right, "{word}");
        }
    }
}
