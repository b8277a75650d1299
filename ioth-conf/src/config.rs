//! A configuration string, read.

use std::fmt;
use std::str::FromStr;

use crate::ConfigError;
use crate::split::Tokens;
use crate::words::Word;

/// A configuration: the words of a string in their order.
///
/// Reading and showing it again give an equal configuration. See the [crate] for what words there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Config {
    words: Vec<Word>,
}

impl Config {
    /// The backend's name and options (`stack=`).
    pub fn stack(&self) -> Option<&str> {
        self.words.iter().find_map(|word| match word {
            Word::Stack(stack) => Some(stack.as_str()),
            _ => None,
        })
    }

    /// The virtual network locators (`vnl=`), an interface each, with their interface names.
    pub fn vnls(&self) -> impl Iterator<Item = &str> {
        self.words.iter().filter_map(|word| match word {
            Word::Vnl(vnl) => Some(vnl.as_str()),
            _ => None,
        })
    }

    /// The words, in the order of the string.
    pub fn words(&self) -> &[Word] {
        &self.words
    }

    /// Whether the steps are to be told (`debug`).
    pub fn debug(&self) -> bool {
        self.words.contains(&Word::Debug)
    }
}

impl FromStr for Config {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let mut config = Config::default();
        for token in Tokens::new(text) {
            let token = token?;
            let word = Word::read(&token)?;
            if matches!(word, Word::Stack(_)) && config.stack().is_some() {
                return Err(ConfigError::Repeated { word: "stack", position: token.position });
            }
            config.words.push(word);
        }
        Ok(config)
    }
}

impl FromIterator<Word> for Config {
    fn from_iter<I: IntoIterator<Item = Word>>(words: I) -> Self {
        Config { words: words.into_iter().collect() }
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, word) in self.words.iter().enumerate() {
            let separator = if at == 0 { "" } else { "," };
            write!(f, "{separator}{word}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ioth_core::{Cidr, Errno, MacAddr};
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    #[test]
    fn every_word() {
        let text = "stack='smoltcp,fast',vnl=eth0:vde:///tmp/sw[port=3],iface=eth0,ifindex=7,fqdn=a.b,\
            mac=02:00:00:00:00:01,eth,ip=10.0.0.1/24,ip=fd00::1/64,gw=10.0.0.254,dns=fd00::53,domain=b,debug,\
            -ip=10.0.0.2,-ip=10.0.0.2/8,-gw=fe80::1,-dns=1.2.3.4,-domain=c,-static,-eth";
        let config: Config = text.parse().unwrap();
        assert_eq!(config.to_string(), text);
        assert_eq!(config.stack(), Some("smoltcp,fast"));
        assert_eq!(config.vnls().collect::<Vec<_>>(), ["eth0:vde:///tmp/sw[port=3]"]);
        assert!(config.debug());
        let short: Config = "macaddr=2-0-0-0-0-1 ip=10.0.0.1 ip=fd00::1\nvnl= stack=".parse().unwrap();
        assert_eq!(short.to_string(), "mac=02:00:00:00:00:01,ip=10.0.0.1/24,ip=fd00::1/64,vnl='',stack=''");
    }

    #[test]
    fn errors() {
        for (text, position, message) in [
            ("eth,ipp=secret", 5, "unknown word \"ipp\" at character 5 (did you mean \"ip\"?)"),
            ("eth, zzzz=secret", 6, "unknown word \"zzzz\" at character 6"),
            ("\u{1b}[2J", 1, "unknown word \"\\u{1b}[2J\" at character 1"),
            ("eth=1", 1, "\"eth\" at character 1 takes no value"),
            ("ip", 1, "\"ip\" at character 1 needs a value: ip=ADDRESS[/LENGTH]"),
            ("macaddr=", 1, "\"macaddr\" at character 1 needs a value: macaddr=MAC"),
            ("vnl", 1, "\"vnl\" at character 1 needs a value: vnl=[IFNAME:]VNL"),
            (
                "ip=1.2.3",
                1,
                "ip= at character 1: \"1.2.3\" is not an IP address (such as 10.0.0.1 or fd00::1)",
            ),
            (
                "ip=::/129",
                1,
                "ip= at character 1: \"129\" is not a prefix length (0 to 128 for this address)",
            ),
            ("gw=::/0", 1, "gw= at character 1: \"::/0\" is not an IP address (such as 10.0.0.1 or fd00::1)"),
            ("ifindex=0", 1, "ifindex= at character 1: \"0\" is not an interface index (a number from 1)"),
            ("ifindex=+1", 1, "ifindex= at character 1: \"+1\" is not an interface index (a number from 1)"),
            (
                "fqdn='a b'",
                1,
                "fqdn= at character 1: \"a b\" is not a host's or domain's name: there is a blank in it",
            ),
            ("stack=a,stack=b", 9, "second \"stack\" at character 9"),
            ("eth 'ip", 5, "nothing ends the ' at character 5"),
        ] {
            let error = text.parse::<Config>().unwrap_err();
            assert_eq!(error.to_string(), format!("config: {message}"));
            assert_eq!((error.position(), error.errno()), (Some(position), Errno::EINVAL), "{text}");
        }
    }

    #[test]
    fn words_of_later_versions() {
        for word in ["dhcp", "dhcpv4", "dhcp6", "rd", "slaac", "auto", "autov6", "-all", "-rd", "-auto4"] {
            let error = format!("eth,{word}").parse::<Config>().unwrap_err();
            assert_eq!(error.errno(), Errno::ENOTSUP);
            let message = format!("config: \"{word}\" at character 5 is not supported in this version");
            assert_eq!(error.to_string(), message);
        }
    }

    fn ip() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
            any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).into()),
        ]
    }

    fn word() -> impl Strategy<Value = Word> {
        let cidr = || (ip(), 0u8..=32).prop_map(|(ip, len)| Cidr::new(ip, len).unwrap());
        let name = || "[^\\s\\p{Cc}]{1,60}";
        prop_oneof![
            any::<String>().prop_map(Word::Vnl),
            ".{1,20}".prop_map(Word::Iface),
            (1u32..).prop_map(Word::IfIndex),
            name().prop_map(Word::Fqdn),
            any::<[u8; 6]>().prop_map(|mac| Word::Mac(MacAddr(mac))),
            Just(Word::Eth),
            cidr().prop_map(Word::Ip),
            ip().prop_map(Word::Gw),
            ip().prop_map(Word::Dns),
            name().prop_map(Word::Domain),
            Just(Word::Debug),
            (cidr(), any::<bool>())
                .prop_map(|(c, len)| Word::RemoveIp(c.addr(), len.then_some(c.prefix_len()))),
            ip().prop_map(Word::RemoveGw),
            ip().prop_map(Word::RemoveDns),
            name().prop_map(Word::RemoveDomain),
            Just(Word::RemoveStatic),
            Just(Word::RemoveEth),
        ]
    }

    proptest! {
        #[test]
        fn any_text(text in any::<String>()) {
            let _ = text.parse::<Config>();
        }

        /// Made of pieces of the syntax, so that it gets further than the first word.
        #[test]
        fn any_words(text in "((ip|gw|stack|vnl|fqdn|-ip|eth|debug)?[=,; #'\"\\\\/:0-9a-f]{0,6}){0,8}") {
            if let Ok(config) = text.parse::<Config>() {
                prop_assert_eq!(config.to_string().parse::<Config>().unwrap(), config);
            }
        }

        #[test]
        fn round_trip(stack in proptest::option::of(any::<String>()), words in proptest::collection::vec(word(), 0..10)) {
            let config: Config = stack.map(Word::Stack).into_iter().chain(words).collect();
            prop_assert_eq!(config.to_string().parse::<Config>().unwrap(), config);
        }
    }
}
