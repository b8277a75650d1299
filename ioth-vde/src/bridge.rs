//! The brain of a switch: which ports a frame goes to, and in which form.
//!
//! It does no I/O. Whoever has ports announces them with [`Bridge::activate`], asks [`Bridge::forward`] for each
//! frame that arrived, in order, with the time in seconds since some fixed moment, sends the frame to the ports that it
//! names, and tells what became of it with [`Bridge::sent`] and [`Bridge::dropped`]. Nothing has to be polled: what is
//! too old is not found any more, and its place is taken by others.
//!
//! IEEE 802.1Q as `vde_switch` has it. A port is in one VLAN *untagged*, at first VLAN 0, or in none, and in any number of
//! VLANs *tagged*. A frame without a tag belongs to its port's untagged VLAN; one with a tag is taken when its port is in
//! that VLAN. It goes to the members of its VLAN, with the tag to tagged ones. Bridges learn by VLAN.
//! A tag of VLAN 0 tells a priority only: the frame belongs where it would without it (IEEE 802.1Q-2018 §6.9.1: "the VID
//! parameter ... of the frame is the null VLAN ID", then it is the port's), and the tag that it leaves with keeps its priority.
//! (`vde_switch` has it in VLAN 0 always; here only at a port that is in VLAN 0 tagged, so that two such switches understand each other.)
//! A hub sends everything everywhere, as it is. A transparent switch learns by VLAN as well, but every port is in every VLAN,
//! and tags stay as they are: that is upstream's `switch://`, which has no management by which a VLAN could be made.

mod ports;
mod stations;
mod vlans;

use std::collections::BTreeMap;

use ioth_core::{Errno, MacAddr};

use crate::ether::{FRAME_MAX, HEADER, Mac, TAG, is_group, is_tagged, mac_at, vlan_of};
use ports::PortSet;
use stations::{Key, Learned, Stations};
use vlans::Vlan;

pub use vlans::Member;

/// The VLAN of a port's untagged frames when there is none: they are dropped.
pub const NO_VLAN: u16 = 0xfff;
/// The highest VLAN that can be made. (IEEE 802.1Q has 4094 as well; `vde_switch` does not.)
pub const VLAN_MAX: u16 = 0xffd;
/// Most ports of a bridge.
pub const PORTS_MAX: usize = 1 << 16;

/// What a bridge is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Port numbers are lower than this.
    pub ports: usize,
    /// It does not learn, and knows no VLANs.
    pub hub: bool,
    /// Every port is in every VLAN, and no tag is put in or taken out.
    pub transparent: bool,
    /// It is no switch, but port 0's several ways to one place.
    pub trunk: Option<Trunk>,
    /// Stations that it knows at most; then some make room.
    pub stations: usize,
    /// For how many seconds a station is known after its last frame.
    pub expire: u32,
    /// For how many seconds a station stays where it was heard, whoever else sends from its address.
    pub persistence: u32,
}

impl Default for Config {
    /// A switch of 32 ports as `vde_switch` has it, that knows 100,000 stations.
    fn default() -> Self {
        Config {
            ports: 32,
            hub: false,
            transparent: false,
            trunk: None,
            stations: 100_000,
            expire: 100,
            persistence: 3,
        }
    }
}

/// How frames of port 0 go to several ports that lead to one place. What others send goes to port 0 only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trunk {
    /// To all of them: one may fail and nothing is lost.
    All,
    /// To one after the other: their throughput adds up.
    InTurn,
}

/// In which form a frame leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it came.
    Same,
    /// Without its tag.
    Untagged,
    /// With a tag of this VLAN, which it did not have.
    Tagged(u16),
    /// With this VLAN in its tag, whose priority it keeps.
    Retagged(u16),
}

/// Why a frame that arrived goes nowhere, or one that should leave does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loss {
    /// On arrival: shorter than an Ethernet header.
    Short,
    /// On arrival: longer than 9234 bytes, VDE's largest frame, and cut.
    Long,
    /// On arrival: the port is not in the frame's VLAN.
    Vlan,
    /// On arrival: the destination is behind the port that it came from, or nowhere.
    Local,
    /// On leaving: the port's queue was full.
    Full,
    /// On leaving: the host had no memory, or the port's owner does not take it.
    Refused,
    /// On leaving: the port's owner takes no frame of that length.
    TooLong,
}

impl Loss {
    /// All of them, in the order of [`Counters::dropped`].
    pub const ALL: [Loss; 7] =
        [Loss::Short, Loss::Long, Loss::Vlan, Loss::Local, Loss::Full, Loss::Refused, Loss::TooLong];

    /// Its name in what a person or a program reads.
    pub fn name(self) -> &'static str {
        match self {
            Loss::Short => "rx_short",
            Loss::Long => "rx_long",
            Loss::Vlan => "rx_vlan",
            Loss::Local => "rx_local",
            Loss::Full => "tx_full",
            Loss::Refused => "tx_refused",
            Loss::TooLong => "tx_too_long",
        }
    }
}

/// What went through a port, and what was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames that arrived.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames that left.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames lost, in the order of [`Loss::ALL`].
    pub dropped: [u64; Loss::ALL.len()],
}

/// A port, as it is configured.
#[derive(Clone, Debug)]
struct Port {
    /// [`NO_VLAN`] for none.
    untagged: u16,
    active: bool,
    counters: Counters,
}

/// A station, as [`Bridge::stations`] tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// Its address.
    pub mac: MacAddr,
    /// Its VLAN.
    pub vlan: u16,
    /// The port behind which it is.
    pub port: u16,
    /// Seconds since it was heard.
    pub age: u32,
    /// Its place in a table of as many as were asked for.
    pub bucket: usize,
}

/// A station that became known or was forgotten, as [`Bridge::take_changes`] tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whether it became known.
    pub known: bool,
    /// Its address.
    pub mac: MacAddr,
    /// Its VLAN.
    pub vlan: u16,
    /// The port behind which it is, or was.
    pub port: u16,
}

/// The brain of a switch.
#[derive(Debug)]
pub struct Bridge {
    limit: usize,
    hub: bool,
    transparent: bool,
    trunk: Option<Trunk>,
    /// The port of a trunk that had its turn.
    turn: u16,
    ports: Vec<Option<Port>>,
    vlans: BTreeMap<u16, Vlan>,
    active: PortSet,
    stations: Stations,
    moves: u64,
    /// Frames lost at any port, also at those that are no more.
    lost: [u64; Loss::ALL.len()],
}

impl Bridge {
    /// A bridge without ports, with VLAN 0.
    pub fn new(config: Config) -> Self {
        Bridge {
            limit: config.ports.clamp(1, PORTS_MAX),
            hub: config.hub,
            transparent: config.transparent,
            trunk: config.trunk,
            turn: 0,
            ports: Vec::new(),
            vlans: BTreeMap::from([(0, Vlan::default())]),
            active: PortSet::default(),
            stations: Stations::new(config.stations, config.expire, config.persistence),
            moves: 0,
            lost: [0; Loss::ALL.len()],
        }
    }

    /// Decides on a frame that arrived at a port, and learns from it. The ports that it goes to are appended to `to`.
    ///
    /// # Errors
    /// Why it goes nowhere, which is counted already.
    pub fn forward(
        &mut self,
        now: u32,
        from: u16,
        frame: &[u8],
        to: &mut Vec<(u16, Form)>,
    ) -> Result<(), Loss> {
        let Some(port) = self.ports.get_mut(usize::from(from)).and_then(Option::as_mut) else {
            return Err(Loss::Vlan);
        };
        port.counters.rx_frames += 1;
        port.counters.rx_bytes += frame.len() as u64;
        let untagged = port.untagged;
        let decided = self.decide(now, from, untagged, frame, to);
        if let Err(why) = decided {
            self.dropped(from, why, 1);
        }
        decided
    }

    fn decide(
        &mut self,
        now: u32,
        from: u16,
        untagged: u16,
        frame: &[u8],
        to: &mut Vec<(u16, Form)>,
    ) -> Result<(), Loss> {
        if frame.len() < HEADER {
            return Err(Loss::Short);
        }
        if frame.len() > FRAME_MAX {
            return Err(Loss::Long);
        }
        if let Some(trunk) = self.trunk {
            return self.through(trunk, from, to);
        }
        if self.hub {
            self.flood(from, to);
            return Ok(());
        }
        let tagged = is_tagged(frame);
        let vlan = match frame.get(HEADER..HEADER + TAG) {
            Some(control) if tagged => vlan_of([control[0], control[1]]),
            // What is left without the tag would be less than a header.
            None if tagged => return Err(Loss::Short),
            _ => untagged,
        };
        if self.transparent {
            match self.look_up(now, from, vlan, frame) {
                Some(port) if port == from => return Err(Loss::Local),
                Some(port) => to.push((port, Form::Same)),
                None => self.flood(from, to),
            }
            return Ok(());
        }
        let in_0_tagged = || self.vlans.get(&0).is_some_and(|members| members.tagged.contains(from));
        let (vlan, add) = match vlan {
            0 if tagged && untagged != 0 && !in_0_tagged() => (untagged, Form::Retagged(untagged)),
            _ if tagged => (vlan, Form::Same),
            _ => (vlan, Form::Tagged(vlan)),
        };
        let is_member = |members: &&Vlan| vlan == untagged || members.tagged.contains(from);
        if self.vlans.get(&vlan).filter(is_member).is_none() {
            return Err(Loss::Vlan);
        }
        let known = self.look_up(now, from, vlan, frame);
        let Some(members) = self.vlans.get(&vlan) else { return Err(Loss::Vlan) };
        let remove = if tagged { Form::Untagged } else { Form::Same };
        match known {
            Some(port) if port == from => return Err(Loss::Local),
            Some(port) if members.untagged.contains(port) => to.push((port, remove)),
            Some(port) => to.push((port, add)),
            None => {
                let other = |port: &u16| *port != from && self.active.contains(*port);
                to.extend(members.untagged.iter().filter(other).map(|port| (port, remove)));
                to.extend(members.tagged.iter().filter(other).map(|port| (port, add)));
            }
        }
        Ok(())
    }

    /// Learns where a frame's sender is, and tells where its receiver is, if that is known.
    fn look_up(&mut self, now: u32, from: u16, vlan: u16, frame: &[u8]) -> Option<u16> {
        let source = mac_at(frame, 6);
        if source != 0
            && !is_group(source)
            && let Learned::Moved(_) = self.stations.learn(Key::new(vlan, source), from, now)
        {
            self.moves += 1;
        }
        let destination = mac_at(frame, 0);
        match is_group(destination) {
            true => None,
            false => self.stations.find(Key::new(vlan, destination), now),
        }
    }

    /// A frame to everybody else, as it is.
    fn flood(&self, from: u16, to: &mut Vec<(u16, Form)>) {
        to.extend(self.active.iter().filter(|port| *port != from).map(|port| (port, Form::Same)));
    }

    /// Whether it is a trunk, and no way leads anywhere just now.
    pub fn is_cut(&self) -> bool {
        self.trunk.is_some() && !self.active.iter().any(|port| port != 0)
    }

    /// The way of a frame through a trunk.
    fn through(&mut self, trunk: Trunk, from: u16, to: &mut Vec<(u16, Form)>) -> Result<(), Loss> {
        let before = to.len();
        let links = || self.active.iter().filter(|port| *port != 0);
        match trunk {
            _ if from != 0 => to.extend(self.active.contains(0).then_some((0, Form::Same))),
            Trunk::All => to.extend(links().map(|port| (port, Form::Same))),
            Trunk::InTurn => {
                if let Some(next) = links().find(|port| *port > self.turn).or_else(|| links().next()) {
                    self.turn = next;
                    to.push((next, Form::Same));
                }
            }
        }
        if to.len() > before { Ok(()) } else { Err(Loss::Local) }
    }

    /// Counts frames that left by a port.
    pub fn sent(&mut self, port: u16, frames: u64, bytes: u64) {
        if let Some(counters) = self.counters_mut(port) {
            counters.tx_frames += frames;
            counters.tx_bytes += bytes;
        }
    }

    /// Counts frames that were lost at a port.
    pub fn dropped(&mut self, port: u16, why: Loss, frames: u64) {
        self.lost[why as usize] += frames;
        if let Some(counters) = self.counters_mut(port) {
            counters.dropped[why as usize] += frames;
        }
    }

    /// Frames lost at all ports, also at those that have been removed, in the order of [`Loss::ALL`].
    pub fn lost(&self) -> [u64; Loss::ALL.len()] {
        self.lost
    }

    /// Makes a port, inactive and in VLAN 0 untagged.
    ///
    /// # Errors
    /// `EINVAL` for a number that is too high, `EEXIST`.
    pub fn create(&mut self, port: usize) -> Result<u16, Errno> {
        if port >= self.limit {
            return Err(Errno::EINVAL);
        }
        if self.ports.len() <= port {
            self.ports.resize_with(port + 1, || None);
        }
        if self.ports[port].is_some() {
            return Err(Errno::EEXIST);
        }
        self.ports[port] = Some(Port { untagged: 0, active: false, counters: Counters::default() });
        // Below the limit, which has 16 bits.
        let port = port as u16;
        if let Some(vlan) = self.vlans.get_mut(&0) {
            vlan.untagged.insert(port);
        }
        Ok(port)
    }

    /// Forgets a port with all its configuration.
    ///
    /// # Errors
    /// `ENXIO` when there is none.
    pub fn remove(&mut self, port: u16) -> Result<(), Errno> {
        let place = self.ports.get_mut(usize::from(port)).ok_or(Errno::ENXIO)?;
        place.take().ok_or(Errno::ENXIO)?;
        for vlan in self.vlans.values_mut() {
            vlan.untagged.remove(port);
            vlan.tagged.remove(port);
        }
        self.active.remove(port);
        self.stations.forget(port, None);
        Ok(())
    }

    /// Says whether somebody is at a port, who gets what is sent to everybody.
    pub fn activate(&mut self, port: u16, active: bool) {
        let Some(Some(there)) = self.ports.get_mut(usize::from(port)) else { return };
        there.active = active;
        if active {
            self.active.insert(port);
        } else {
            self.active.remove(port);
            self.stations.forget(port, None);
        }
    }

    /// Whether the port was made.
    pub fn exists(&self, port: usize) -> bool {
        matches!(self.ports.get(port), Some(Some(_)))
    }

    /// Whether somebody is there.
    pub fn is_active(&self, port: u16) -> bool {
        self.active.contains(port)
    }

    /// The ports that were made, in order.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        // PORTS_MAX is what 16 bits have.
        self.ports.iter().enumerate().filter(|(_, port)| port.is_some()).map(|(number, _)| number as u16)
    }

    /// A port's untagged VLAN, or [`NO_VLAN`].
    pub fn untagged(&self, port: u16) -> Option<u16> {
        Some(self.ports.get(usize::from(port))?.as_ref()?.untagged)
    }

    /// What went through a port.
    pub fn counters(&self, port: u16) -> Counters {
        self.ports
            .get(usize::from(port))
            .and_then(Option::as_ref)
            .map_or_else(Counters::default, |port| port.counters)
    }

    /// Sets a port's counters to zero.
    pub fn reset_counters(&mut self, port: u16) {
        if let Some(counters) = self.counters_mut(port) {
            *counters = Counters::default();
        }
    }

    /// Port numbers are lower than this.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Changes how many ports there can be.
    ///
    /// # Errors
    /// `EINVAL` for none or more than [`PORTS_MAX`], `EADDRINUSE` when somebody is at a port beyond.
    pub fn set_limit(&mut self, limit: usize) -> Result<(), Errno> {
        if !(1..=PORTS_MAX).contains(&limit) {
            return Err(Errno::EINVAL);
        }
        if self.active.iter().any(|port| usize::from(port) >= limit) {
            return Err(Errno::EADDRINUSE);
        }
        for port in self.ports().filter(|port| usize::from(*port) >= limit).collect::<Vec<_>>() {
            self.remove(port)?;
        }
        self.limit = limit;
        Ok(())
    }

    /// Whether it is a hub.
    pub fn is_hub(&self) -> bool {
        self.hub
    }

    /// Makes it a hub, or a switch that knows nothing yet.
    pub fn set_hub(&mut self, hub: bool) {
        self.hub = hub;
        for port in self.ports().collect::<Vec<_>>() {
            self.stations.forget(port, None);
        }
    }

    /// The stations that are known, by their bucket in a table of that many.
    pub fn stations(&self, now: u32, buckets: usize) -> Vec<Station> {
        let station = |(key, port, age): (Key, u16, u32)| Station {
            mac: address(key.mac()),
            vlan: key.vlan(),
            port,
            age,
            bucket: self.stations.bucket(key, buckets),
        };
        let mut all: Vec<_> = self.stations.iter(now).map(station).collect();
        all.sort_unstable_by_key(|station| (station.bucket, station.mac.0, station.vlan));
        all
    }

    /// A station that is known.
    pub fn station(&self, now: u32, vlan: u16, mac: MacAddr, buckets: usize) -> Option<Station> {
        let key = Key::new(vlan, mac_at(&mac.0, 0));
        let (port, age) = self.stations.age(key, now)?;
        Some(Station { mac, vlan, port, age, bucket: self.stations.bucket(key, buckets) })
    }

    /// How many stations have a place in the table, how many can have one, and how many had to leave theirs.
    pub fn occupancy(&self) -> (usize, usize, u64) {
        (self.stations.len(), self.stations.capacity(), self.stations.evicted())
    }

    /// Stations that were not heard for too long, and are not found any more.
    pub fn expired(&self, now: u32) -> u64 {
        self.stations.expired(now)
    }

    /// Keeps which stations become known or are forgotten, for [`take_changes`](Self::take_changes), or does not any more.
    pub fn watch(&mut self, watched: bool) {
        self.stations.watch(watched);
    }

    /// The stations that became known or were forgotten since it was asked last, in order, and how many more there were than
    /// are kept (4096).
    pub fn take_changes(&mut self) -> (Vec<Change>, u64) {
        let (changes, missed) = self.stations.take_changes();
        let change = |(known, key, port): (bool, Key, u16)| Change {
            known,
            mac: address(key.mac()),
            vlan: key.vlan(),
            port,
        };
        (changes.into_iter().map(change).collect(), missed)
    }

    /// Stations that went from one port to another.
    pub fn moves(&self) -> u64 {
        self.moves
    }

    /// For how many seconds a station is known after its last frame, and stays where it was heard.
    pub fn times(&self) -> (u32, u32) {
        (self.stations.expire(), self.stations.persistence())
    }

    /// Changes for how many seconds a station is known.
    pub fn set_expire(&mut self, seconds: u32) {
        self.stations.set_expire(seconds);
    }

    /// Changes for how many seconds a station stays where it was heard.
    pub fn set_persistence(&mut self, seconds: u32) {
        self.stations.set_persistence(seconds);
    }

    /// Changes how many stations can be known; the oldest of the ports that have most make room.
    pub fn set_capacity(&mut self, stations: usize) {
        self.stations.set_capacity(stations);
    }

    fn counters_mut(&mut self, port: u16) -> Option<&mut Counters> {
        self.ports.get_mut(usize::from(port))?.as_mut().map(|port| &mut port.counters)
    }
}

impl Form {
    /// How many bytes longer, or shorter, the frame becomes.
    pub fn resize(self, len: usize) -> usize {
        match self {
            Form::Same | Form::Retagged(_) => len,
            Form::Untagged => len - TAG,
            Form::Tagged(_) => len + TAG,
        }
    }
}

fn address(mac: Mac) -> MacAddr {
    let bytes = mac.to_be_bytes();
    MacAddr([bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
}

#[cfg(test)]
mod tests;
