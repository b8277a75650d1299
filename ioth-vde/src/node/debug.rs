//! What managers watch: `debug/add`, with the categories, tags and lines of `vde_switch`.
//!
//! A line is `3TTT category what`, between answers and, where a command brought it about, before its answer. Who does not read
//! misses lines, which are counted.

use std::fmt;

use ioth_core::Errno;

use super::commands::{endpoint_id, show};
use super::core::Core;

/// What can be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Category {
    StationNew,
    StationGone,
    FstpStatus,
    FstpRoot,
    FstpNew,
    FstpGone,
    PortNew,
    PortGone,
    Description,
    EndpointNew,
    EndpointGone,
}

use Category::{
    Description, EndpointGone, EndpointNew, FstpGone, FstpNew, FstpRoot, FstpStatus, PortGone, PortNew,
    StationGone, StationNew,
};

/// A category's path, tag and help.
const CATEGORIES: [(Category, &str, u16, &str); 11] = [
    (StationNew, "hash/+", 0o11, "hash: new element"),
    (StationGone, "hash/-", 0o12, "hash: discarded element"),
    (FstpStatus, "fstp/status", 0o44, "fstp: status change"),
    (FstpRoot, "fstp/root", 0o45, "fstp: rootswitch/port change"),
    (FstpNew, "fstp/+", 0o41, "fstp: port becomes active"),
    (FstpGone, "fstp/-", 0o42, "fstp: port becomes inactive"),
    (PortNew, "port/+", 0o21, "new port"),
    (PortGone, "port/-", 0o22, "closed port"),
    (Description, "port/descr", 0o23, "set port description"),
    (EndpointNew, "port/ep/+", 0o31, "new endpoint"),
    (EndpointGone, "port/ep/-", 0o32, "closed endpoint"),
];

impl Category {
    /// The set of this one alone.
    fn bit(self) -> u16 {
        1 << self as u16
    }

    /// The set of those whose path begins so; `EINVAL` without any.
    fn below(path: &str) -> Result<u16, Errno> {
        let found = CATEGORIES.iter().filter(|(_, known, ..)| known.starts_with(path));
        match found.fold(0, |set, (category, ..)| set | category.bit()) {
            0 => Err(Errno::EINVAL),
            set => Ok(set),
        }
    }
}

impl Core {
    /// Tells who watches that.
    pub(super) fn tell(&mut self, category: Category, what: fmt::Arguments<'_>) {
        if !self.consoles.is_watched(category.bit()) {
            return;
        }
        let Some((_, path, tag, _)) = CATEGORIES.iter().find(|(known, ..)| *known == category) else {
            return;
        };
        self.consoles.tell(category.bit(), &format!("3{tag:03o} {path} {what}\n"));
    }

    pub(super) fn tell_description(&mut self, key: usize) {
        if !self.consoles.is_watched(Description.bit()) {
            return;
        }
        let endpoint = &self.endpoints[key];
        let (port, id, description) = (endpoint.port, endpoint_id(endpoint), endpoint.description.clone());
        self.tell(Description, format_args!("Port {port:02} FD {id:2} -> \"{description}\""));
    }

    /// Tells which stations became known, or were forgotten.
    pub(super) fn tell_stations(&mut self) {
        if !self.consoles.is_watched(StationNew.bit() | StationGone.bit()) {
            return;
        }
        let (changes, missed) = self.bridge.take_changes();
        self.consoles.missed += missed;
        for change in changes {
            let category = if change.known { StationNew } else { StationGone };
            let [high, low] = change.vlan.to_be_bytes();
            let (mac, port) = (change.mac, change.port);
            self.tell(category, format_args!("{mac} VLAN {low:02x}:{high:02x} Port {port}"));
        }
    }

    /// Has the bridge keep what is watched, and nothing that is not.
    pub(super) fn watch_stations(&mut self) {
        let watched = self.consoles.watch_anew();
        self.bridge.watch(watched & (StationNew.bit() | StationGone.bit()) != 0);
    }
}

pub(super) fn debug_list(core: &mut Core, _: &str, data: &mut String) -> Result<(), Errno> {
    let watches = core.consoles.watching().map_or(0, |watches| *watches);
    data.push_str("CATEGORY               TAG STATUS HELP\n------------           --- ------ ----\n");
    for (category, path, tag, help) in CATEGORIES {
        let status = if watches & category.bit() != 0 { "ON" } else { "OFF" };
        show(data, format_args!("{path:<22} {tag:03o} {status:<6} {help}\n"));
    }
    Ok(())
}

pub(super) fn debug_add(core: &mut Core, path: &str) -> Result<(), Errno> {
    let set = Category::below(path)?;
    let watches = core.consoles.watching()?;
    if *watches & set == set {
        return Err(Errno::EEXIST);
    }
    *watches |= set;
    core.watch_stations();
    Ok(())
}

pub(super) fn debug_del(core: &mut Core, path: &str) -> Result<(), Errno> {
    let set = Category::below(path)?;
    let watches = core.consoles.watching()?;
    if *watches & set == 0 {
        return Err(Errno::ENOENT);
    }
    *watches &= !set;
    core.watch_stations();
    Ok(())
}
