//! Who has which port, who may share it, and who of them has a datagram (socket(7), RFC 6056).

mod crowd;

use std::net::{IpAddr, SocketAddr};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::SocketId;
use crowd::Crowd;

/// Datagram sockets that may share a port before they are found by hash; Linux's udp_lib_lport_inuse() and its lookups go by a
/// second hash beyond ten.
const FEW: usize = 8;

/// Linux's ip_local_port_range.
pub(crate) const EPHEMERAL: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// What a port number belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Space {
    Tcp,
    Udp,
    UdpLite,
}

/// A socket's local address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(crate) id: SocketId,
    /// Unspecified: any address of its family.
    pub(crate) addr: IpAddr,
    /// An IPv6 wildcard that takes IPv4 as well.
    pub(crate) dual: bool,
    /// SO_REUSEADDR
    pub(crate) reuse_addr: bool,
    /// SO_REUSEPORT
    pub(crate) reuse_port: bool,
    /// SO_BINDTODEVICE
    pub(crate) device: Option<u32>,
    /// A TCP socket in LISTEN.
    pub(crate) listening: bool,
    /// The only one that a UDP socket hears. Port 0 is any.
    pub(crate) peer: Option<SocketAddr>,
    /// Grows from one that is entered to the next.
    pub(crate) order: u64,
}

/// What a datagram says of its ends, and where it came in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) ifindex: u32,
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
}

impl Binding {
    /// How well it fits a packet for `addr`: `None` not at all, more is better.
    pub(crate) fn fits(&self, addr: IpAddr) -> Option<u8> {
        if self.addr == addr {
            return Some(2);
        }
        let family = self.addr.is_ipv4() == addr.is_ipv4() || self.dual;
        (self.addr.is_unspecified() && family).then_some(u8::from(self.addr.is_ipv4() == addr.is_ipv4()))
    }

    /// How well it fits a datagram, as Linux's compute_score() has it: the address, then the peer, then the interface.
    pub(crate) fn score(&self, ends: &Ends) -> Option<u8> {
        let fits = self.fits(ends.destination.ip())?;
        let device = match self.device {
            Some(device) if device != ends.ifindex => return None,
            device => u8::from(device.is_some()),
        };
        let peer = match self.peer {
            Some(peer) if !same_end(peer, ends.source) => return None,
            peer => u8::from(peer.is_some()),
        };
        Some(8 * fits + 2 * peer + device)
    }

    /// Whether it takes its part of the senders only.
    fn shares(&self) -> bool {
        self.reuse_port && self.peer.is_none()
    }

    fn overlaps(&self, other: &Binding) -> bool {
        if matches!((self.device, other.device), (Some(mine), Some(others)) if mine != others) {
            return false;
        }
        if self.addr == other.addr {
            return true;
        }
        let covers = |any: &Binding, one: &Binding| {
            any.addr.is_unspecified()
                && (any.addr.is_ipv4() == one.addr.is_ipv4() || (any.dual && one.addr.is_ipv4()))
        };
        covers(self, other) || covers(other, self)
    }
}

/// What a connection keeps of the port that its listener had, and what TIME_WAIT keeps of any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) addr: IpAddr,
    /// SO_REUSEADDR
    pub(crate) reuse_addr: bool,
    /// SO_REUSEPORT
    pub(crate) reuse_port: bool,
}

/// Every port in use.
#[derive(Debug)]
pub(crate) struct Ports {
    /// Where few have a port, by rising order.
    bound: HashMap<(Space, u16), Vec<Binding>, FixedState>,
    /// The ports of datagram sockets that many have, with all of them.
    crowds: HashMap<(Space, u16), Crowd, FixedState>,
    /// What the next binding's order is.
    order: u64,
    seed: u64,
    /// Local ports of connections that no bind(2) chose, and how many share each.
    chosen: HashMap<u16, u32, FixedState>,
    /// TCP ports that connections hold without a binding, and how many each way.
    held: HashMap<u16, Vec<(Held, u32)>, FixedState>,
    next: u32,
}

impl Ports {
    pub(crate) fn new(seed: u64) -> Self {
        Ports {
            bound: HashMap::with_hasher(FixedState::with_seed(seed)),
            crowds: HashMap::with_hasher(FixedState::with_seed(seed)),
            order: 0,
            seed,
            chosen: HashMap::with_hasher(FixedState::with_seed(seed)),
            held: HashMap::with_hasher(FixedState::with_seed(seed)),
            next: seed as u32,
        }
    }

    /// The sockets bound to a port, in the order in which they came.
    pub(crate) fn bindings(
        &self,
        space: Space,
        port: u16,
    ) -> impl DoubleEndedIterator<Item = &Binding> + Clone {
        let few = self.bound.get(&(space, port)).map_or(&[][..], Vec::as_slice);
        few.iter().chain(self.crowds.get(&(space, port)).map(Crowd::bindings).into_iter().flatten())
    }

    /// Enters a binding, unless another one excludes it.
    pub(crate) fn bind(&mut self, space: Space, port: u16, binding: Binding) -> bool {
        if self.conflicts(space, port, &binding) {
            return false;
        }
        self.enter(space, port, binding);
        true
    }

    /// Enters a binding on a free ephemeral port, which it returns.
    pub(crate) fn bind_ephemeral(&mut self, space: Space, random: u32, binding: Binding) -> Option<u16> {
        let exclusive = Binding { reuse_addr: false, reuse_port: false, ..binding };
        let port = candidates(random).find(|&port| !self.conflicts(space, port, &exclusive))?;
        self.enter(space, port, binding);
        Some(port)
    }

    /// The datagram socket that fits a unicast datagram best; among equals the one of those that share the port (SO_REUSEPORT)
    /// that `hash` says, else the last one bound. However many have the port, it takes a bounded number of looks.
    pub(crate) fn receiver(&self, space: Space, ends: &Ends, hash: impl FnOnce() -> u64) -> Option<SocketId> {
        let port = ends.destination.port();
        match self.crowds.get(&(space, port)) {
            Some(crowd) => crowd.receiver(ends, hash),
            None => best_of(self.bindings(space, port), ends, hash),
        }
    }

    /// A local port for a connection, of which `free` says whether its 4-tuple is; at most `tries` are looked at.
    ///
    /// RFC 6056 §3.3.3: `offset` is a keyed hash of the connection, to which a counter is added.
    pub(crate) fn choose(&mut self, offset: u32, tries: usize, free: impl Fn(u16) -> bool) -> Option<u16> {
        self.next = self.next.wrapping_add(1);
        let start = offset.wrapping_add(self.next);
        let usable = |port: &u16| self.bindings(Space::Tcp, *port).next().is_none() && free(*port);
        let port = candidates(start).take(tries).find(usable)?;
        *self.chosen.entry(port).or_default() += 1;
        Some(port)
    }

    /// Gives back a port that [`choose`](Self::choose) gave.
    pub(crate) fn release(&mut self, port: u16) {
        if let Some(count) = self.chosen.get_mut(&port) {
            *count -= 1;
            if *count == 0 {
                self.chosen.remove(&port);
            }
        }
    }

    /// A connection keeps a port from those who don't share it.
    pub(crate) fn hold(&mut self, port: u16, held: Held) {
        let list = self.held.entry(port).or_default();
        match list.iter_mut().find(|(other, _)| *other == held) {
            Some((_, count)) => *count += 1,
            None => list.push((held, 1)),
        }
    }

    /// The opposite of [`hold`](Self::hold).
    pub(crate) fn let_go(&mut self, port: u16, held: Held) {
        let Some(list) = self.held.get_mut(&port) else { return };
        if let Some((_, count)) = list.iter_mut().find(|(other, _)| *other == held) {
            *count -= 1;
        }
        list.retain(|(_, count)| *count > 0);
        if list.is_empty() {
            self.held.remove(&port);
        }
    }

    #[cfg(test)]
    pub(crate) fn is_held(&self, port: u16) -> bool {
        self.held.contains_key(&port)
    }

    pub(crate) fn unbind(&mut self, space: Space, port: u16, id: SocketId) {
        let key = (space, port);
        if let Some(crowd) = self.crowds.get_mut(&key) {
            crowd.remove(id);
            // Not one more or less makes and unmakes a crowd over and over.
            if crowd.len() <= FEW / 2 {
                let few = crowd.bindings().copied().collect();
                self.crowds.remove(&key);
                self.bound.insert(key, few);
            }
            return;
        }
        let Some(bindings) = self.bound.get_mut(&key) else { return };
        bindings.retain(|binding| binding.id != id);
        if bindings.is_empty() {
            self.bound.remove(&key);
        }
    }

    /// How many sockets hold a port.
    pub(crate) fn held(&self) -> usize {
        let bound: usize = self.bound.values().map(Vec::len).sum();
        bound
            + self.crowds.values().map(Crowd::len).sum::<usize>()
            + self.chosen.values().map(|count| *count as usize).sum::<usize>()
    }

    /// Marks a TCP binding as listening. False when another listener excludes it.
    pub(crate) fn listen(&mut self, port: u16, id: SocketId) -> bool {
        let Some(bindings) = self.bound.get_mut(&(Space::Tcp, port)) else { return false };
        let Some(at) = bindings.iter().position(|binding| binding.id == id) else { return false };
        let mine = bindings[at];
        let excluded = bindings.iter().any(|other| {
            other.id != id
                && other.listening
                && other.overlaps(&mine)
                && !(other.reuse_port && mine.reuse_port)
        });
        bindings[at].listening |= !excluded;
        !excluded
    }

    /// The opposite of [`listen`](Self::listen).
    pub(crate) fn unlisten(&mut self, port: u16, id: SocketId) {
        self.update(Space::Tcp, port, id, |binding| binding.listening = false);
    }

    /// Changes a binding in place: its address after connect(2), its options.
    pub(crate) fn update(
        &mut self,
        space: Space,
        port: u16,
        id: SocketId,
        change: impl FnOnce(&mut Binding),
    ) {
        if let Some(crowd) = self.crowds.get_mut(&(space, port)) {
            let Some(before) = crowd.get(id).copied() else { return };
            let mut after = before;
            change(&mut after);
            if after != before {
                crowd.remove(id);
                crowd.insert(&after);
            }
            return;
        }
        let bindings = self.bound.get_mut(&(space, port));
        if let Some(binding) = bindings.and_then(|list| list.iter_mut().find(|binding| binding.id == id)) {
            change(binding);
        }
    }

    fn enter(&mut self, space: Space, port: u16, mut binding: Binding) {
        self.order += 1;
        binding.order = self.order;
        let key = (space, port);
        if let Some(crowd) = self.crowds.get_mut(&key) {
            return crowd.insert(&binding);
        }
        let bindings = self.bound.entry(key).or_default();
        bindings.push(binding);
        if space != Space::Tcp && bindings.len() > FEW {
            self.crowds.insert(key, Crowd::of(bindings, self.seed));
            self.bound.remove(&key);
        }
    }

    fn conflicts(&self, space: Space, port: u16, new: &Binding) -> bool {
        if space == Space::Tcp && self.chosen.contains_key(&port) && !new.reuse_addr {
            return true;
        }
        // Linux's inet_csk_bind_conflict(): both need SO_REUSEADDR, and the connection's time is what it had then.
        let held = self.held.get(&port).filter(|_| space == Space::Tcp);
        let excluded = held.into_iter().flatten().any(|(held, _)| {
            let other = Binding { addr: held.addr, dual: false, ..*new };
            let shared = (held.reuse_addr && new.reuse_addr) || (held.reuse_port && new.reuse_port);
            other.overlaps(new) && !shared
        });
        if excluded {
            return true;
        }
        if space != Space::Tcp {
            // Linux's udp_lib_lport_inuse: the first in its way, from the newest on, decides.
            let in_the_way = |old: &&Binding| old.overlaps(new) && !(old.reuse_addr && new.reuse_addr);
            let first = match self.crowds.get(&(space, port)) {
                Some(crowd) => crowd.in_the_way(new),
                None => self.bindings(space, port).rev().find(in_the_way),
            };
            return first.is_some_and(|old| !(old.reuse_port && new.reuse_port));
        }
        self.bindings(space, port).any(|old| {
            let shared = (old.reuse_port && new.reuse_port)
                || (old.reuse_addr && new.reuse_addr && !(old.listening || new.listening));
            old.overlaps(new) && !shared
        })
    }
}

/// What [`Ports::receiver`] does, one binding after the other.
fn best_of<'a>(
    bindings: impl Iterator<Item = &'a Binding> + Clone,
    ends: &Ends,
    hash: impl FnOnce() -> u64,
) -> Option<SocketId> {
    let fitting = || bindings.clone().filter_map(|binding| Some((binding.score(ends)?, binding)));
    let (best, last) = fitting().max_by_key(|(score, _)| *score)?;
    if !last.shares() {
        return Some(last.id);
    }
    let group = || fitting().filter(|(score, binding)| *score == best && binding.shares());
    group().nth(part(hash(), group().count())).map(|(_, binding)| binding.id)
}

/// Which of `count` equal parts of all hashes one is in: Lemire's multiply-shift, as Linux's reciprocal_scale().
fn part(hash: u64, count: usize) -> usize {
    ((u128::from(hash) * count as u128) >> 64) as usize
}

/// Whether a peer is the one that a packet came from. Port 0 is no port.
fn same_end(peer: SocketAddr, source: SocketAddr) -> bool {
    peer.ip() == source.ip() && (peer.port() == source.port() || peer.port() == 0)
}

/// The ephemeral ports, each once, from a random one on.
fn candidates(random: u32) -> impl Iterator<Item = u16> {
    let count = u32::from(EPHEMERAL.end() - EPHEMERAL.start()) + 1;
    (0..count).map(move |i| EPHEMERAL.start() + ((random % count + i) % count) as u16)
}

#[cfg(test)]
mod tests;
