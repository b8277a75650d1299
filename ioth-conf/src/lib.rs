//! Configuration strings: one line of text that makes a node and configures it.
//!
//! ```text
//! stack=smoltcp,vnl=switch://lan,eth,fqdn=host.example.org,ip=fd00::1/64,gw=fd00::ff
//! ```
//!
//! [`new_stack`] makes a stack from such a string, [`configure`] changes one that is there. Both do
//! it through [`netlink::Route`](ioth_core::netlink::Route) alone, so they work on every backend.
//!
//! ```
//! use ioth_conf::Config;
//!
//! let config: Config = "stack=smoltcp,vnl=switch://lan,ip=fd00::1".parse()?;
//! assert_eq!(config.stack(), Some("smoltcp"));
//! assert_eq!(config.to_string(), "stack=smoltcp,vnl=switch://lan,ip=fd00::1/64");
//!
//! let error = "stack=smoltcp,vln=switch://lan".parse::<Config>().unwrap_err();
//! assert_eq!(error.to_string(), "config: unknown word \"vln\" at character 15 (did you mean \"vnl\"?)");
//! # Ok::<(), ioth_conf::ConfigError>(())
//! ```
//!
//! # Syntax
//! Words are separated by blanks, tabs, line ends, `,` and `;`. The first `=` of a word begins its
//! value, later ones belong to it. `#` begins a comment that ends with the line. `'...'`, `"..."` and
//! `\c` protect all of these; between double quotes, `\` protects `"` and `\` only.
//!
//! # Words
#![doc = include_str!("words.md")]
//!
//! # Interfaces
//! Each `vnl=` adds an interface: `vde0`, `vde1`, ... or the name before the locator (`eth0:switch://lan`).
//! The other words apply to one interface: to that of the last `iface=` or `ifindex=` before them, else to
//! the first one (`vde0`, or the first `vnl=`'s name). An interface without `fqdn=` of its own has
//! the first `fqdn=` of the string.
//!
//! # Order
//! The order of words does not matter otherwise. What is removed goes first (`-static`, `-ip=`, `-gw=`,
//! then `-eth`); then come `eth`, the addresses, the gateways. Saying again what is already
//! so is no error. An error leaves the steps before it done; [`new_stack`] deletes the stack then.
//!
//! [`new_stack`] treats an interface that its `vnl=` made and that some `ip=` applies to as if `eth` had
//! been said: it comes up. libioth leaves it down, where the address is of no use.
//!
//! `dns=` and `domain=` change nothing in the stack: [`Resolver`] collects them.
//!
//! What it does not do yet: DHCP, router discovery; their words are known and refused with `ENOTSUP`.
#![forbid(unsafe_code)]

mod apply;
mod config;
mod error;
mod resolver;
mod split;
mod words;

pub use apply::{Applied, configure, new_stack};
pub use config::Config;
pub use error::ConfigError;
pub use resolver::Resolver;
pub use words::{WORDS, Word, WordInfo};
