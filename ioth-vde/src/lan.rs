//! `switch://name`, `hub://name`: a LAN within this process. (With a `/` in it, it is a path: see [`node`](crate::node).)
//!
//! A frame goes from the sender's thread straight into the receivers, without a system call, a
//! copy (but for floods) or a thread of the LAN's own. Who gets it costs a table lookup, whatever
//! the number of ports, and for the same destination as before not even that.
//!
//! Ports that declared a [`Filter`](crate::Filter) get what they declared, and broadcast. Ports that did
//! not, or are promiscuous, are *open*: they get every group frame and every frame to an unknown station,
//! and a switch learns from their source addresses behind which of them a station is. A hub does not learn:
//! its open ports get everything.
//!
//! Options: `switch://name[mtu=9000/gso=0/checksum]`
//!
//! | key | meaning |
//! |---|---|
//! | `mtu` | largest IP packet in bytes (1500) |
//! | `gso` | largest super-frame's IP packet in bytes, 0 for none (65535) |
//! | `checksum` | checksums are needed: the LAN is not to be trusted |
//!
//! The first port of a LAN decides; another one that says otherwise is refused.

mod port;
mod table;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::time::Instant;

use ioth_core::fork::PerProcess;
use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::schemes::Spec;
use crate::vnl::Keys;
use crate::{Link, LinkError, Properties};

pub use port::Port;
use table::Table;

/// What a LAN is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whether it learns where stations are: a switch, not a hub.
    pub learning: bool,
    /// What its ports can carry.
    pub properties: Properties,
}

impl Default for Config {
    /// A switch of MTU 1500 that takes super-frames and needs no checksums.
    fn default() -> Self {
        Config { learning: true, properties: Properties { mtu: 1500, gso_max: 65_535, trusted: true } }
    }
}

/// A LAN within this process. It lives as long as it is held or has ports.
#[derive(Debug)]
pub struct Lan {
    config: Config,
    /// The key in [`NAMES`], for a LAN that is there.
    name: Option<Key>,
    table: RwLock<Table>,
    /// Grows with each change of the table, under its lock: what was looked up before is stale.
    generation: AtomicU64,
    born: Instant,
}

impl Lan {
    /// A LAN without a name, as [`Config::default`] has it.
    pub fn new() -> Arc<Self> {
        Lan::with(Config::default())
    }

    /// A LAN without a name.
    pub fn with(config: Config) -> Arc<Self> {
        Arc::new(Lan::make(config, None))
    }

    /// A new port. The LAN knows it from [`Link::attach`] to [`Link::detach`] or its drop.
    pub fn port(self: &Arc<Self>) -> Arc<Port> {
        Arc::new(Port::new(self.clone()))
    }

    /// What the LAN is like.
    pub fn config(&self) -> Config {
        self.config
    }

    fn make(config: Config, name: Option<Key>) -> Self {
        Lan {
            config,
            name,
            table: RwLock::new(Table::new(config.learning)),
            generation: AtomicU64::new(0),
            born: Instant::now(),
        }
    }

    /// The clock of learned addresses, in seconds.
    fn now(&self) -> u32 {
        self.born.elapsed().as_secs() as u32
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        let Some(key) = &self.name else { return };
        let mut names = names();
        // A LAN of the same name may have taken the place already.
        if names.get(key).is_some_and(|lan| lan.strong_count() == 0) {
            names.remove(key);
        }
    }
}

/// Scheme and name.
type Key = (String, String);

/// The process's named LANs.
static NAMES: PerProcess<Mutex<BTreeMap<Key, Weak<Lan>>>> = PerProcess::new();

fn names() -> MutexGuard<'static, BTreeMap<Key, Weak<Lan>>> {
    NAMES.get_or_init(Mutex::default).lock()
}

/// Smallest and largest MTU: RFC 791 §3.2 "Every internet module must be able to forward a datagram of
/// 68 octets without further fragmentation"; an IP packet's length field.
const MTU: std::ops::RangeInclusive<u64> = 68..=65_535;

const KEYS: Keys = &["mtu", "gso", "checksum"];

/// Opens `switch://name[...]` or `hub://name[...]`: a port of the process's LAN of that name.
pub(crate) fn open(spec: &Spec<'_>) -> Result<Arc<dyn Link>, LinkError> {
    // A path is a switch that other processes plug into. Upstream has a default one.
    let end = spec.rest.find('[').unwrap_or(spec.rest.len());
    if end == 0 || spec.rest[..end].contains('/') {
        return crate::node::open(spec);
    }
    let (name, params) = spec.bracket(KEYS)?;
    let default = Config::default();
    let mtu = params.number("mtu", MTU)?.map(|mtu| mtu as usize);
    let gso_max = params.number("gso", 0..=65_535)?.map(|gso| gso as usize);
    let trusted = params.get("checksum").map(|_| params.flag("checksum")).transpose()?.map(|needed| !needed);
    let config = Config {
        learning: spec.scheme != "hub",
        properties: Properties {
            mtu: mtu.unwrap_or(default.properties.mtu),
            gso_max: gso_max.unwrap_or(default.properties.gso_max),
            trusted: trusted.unwrap_or(default.properties.trusted),
        },
    };
    let lan = named((spec.scheme.to_owned(), name.to_owned()), config);
    let there = lan.config.properties;
    let agree = "the first port decided, and all of one LAN agree";
    if mtu.is_some_and(|mtu| mtu != there.mtu) {
        return Err(params.wrong("mtu", &format!("{}: {agree}", there.mtu)));
    }
    if gso_max.is_some_and(|gso| gso != there.gso_max) {
        return Err(params.wrong("gso", &format!("{}: {agree}", there.gso_max)));
    }
    if trusted.is_some_and(|trusted| trusted != there.trusted) {
        return Err(params.wrong("checksum", &format!("{}: {agree}", u8::from(!there.trusted))));
    }
    Ok(lan.port())
}

/// The LAN of that name; made when there is none.
fn named(key: Key, config: Config) -> Arc<Lan> {
    let mut names = names();
    if let Some(lan) = names.get(&key).and_then(Weak::upgrade) {
        return lan;
    }
    let lan = Arc::new(Lan::make(config, Some(key.clone())));
    names.insert(key, Arc::downgrade(&lan));
    lan
}

#[cfg(test)]
mod tests;
