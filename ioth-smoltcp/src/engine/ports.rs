//! Who has which port, and who may share it (socket(7), RFC 6056).

use std::net::IpAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::SocketId;

/// Linux's ip_local_port_range.
pub(crate) const EPHEMERAL: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// What a port number belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Space {
    Tcp,
    Udp,
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
    bound: HashMap<(Space, u16), Vec<Binding>, FixedState>,
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
            chosen: HashMap::with_hasher(FixedState::with_seed(seed)),
            held: HashMap::with_hasher(FixedState::with_seed(seed)),
            next: seed as u32,
        }
    }

    /// The sockets bound to a port.
    pub(crate) fn bindings(&self, space: Space, port: u16) -> &[Binding] {
        self.bound.get(&(space, port)).map_or(&[], Vec::as_slice)
    }

    /// Enters a binding, unless another one excludes it.
    pub(crate) fn bind(&mut self, space: Space, port: u16, binding: Binding) -> bool {
        if self.conflicts(space, port, &binding) {
            return false;
        }
        self.bound.entry((space, port)).or_default().push(binding);
        true
    }

    /// Enters a binding on a free ephemeral port, which it returns.
    pub(crate) fn bind_ephemeral(&mut self, space: Space, random: u32, binding: Binding) -> Option<u16> {
        let exclusive = Binding { reuse_addr: false, reuse_port: false, ..binding };
        let port = candidates(random).find(|&port| !self.conflicts(space, port, &exclusive))?;
        self.bound.entry((space, port)).or_default().push(binding);
        Some(port)
    }

    /// A local port for a connection, of which `free` says whether its 4-tuple is; at most `tries` are looked at.
    ///
    /// RFC 6056 §3.3.3: `offset` is a keyed hash of the connection, to which a counter is added.
    pub(crate) fn choose(&mut self, offset: u32, tries: usize, free: impl Fn(u16) -> bool) -> Option<u16> {
        self.next = self.next.wrapping_add(1);
        let start = offset.wrapping_add(self.next);
        let usable = |port: &u16| self.bindings(Space::Tcp, *port).is_empty() && free(*port);
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
        if let Some(bindings) = self.bound.get_mut(&(space, port)) {
            bindings.retain(|binding| binding.id != id);
            if bindings.is_empty() {
                self.bound.remove(&(space, port));
            }
        }
    }

    /// How many sockets hold a port.
    pub(crate) fn held(&self) -> usize {
        let bound: usize = self.bound.values().map(Vec::len).sum();
        bound + self.chosen.values().map(|count| *count as usize).sum::<usize>()
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
        let bindings = self.bound.get_mut(&(space, port));
        if let Some(binding) = bindings.and_then(|list| list.iter_mut().find(|binding| binding.id == id)) {
            change(binding);
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
        if space == Space::Udp {
            // Linux's udp_lib_lport_inuse: the first in its way, from the newest on, decides.
            let in_the_way = |old: &&Binding| old.overlaps(new) && !(old.reuse_addr && new.reuse_addr);
            let first = self.bindings(space, port).iter().rev().find(in_the_way);
            return first.is_some_and(|old| !(old.reuse_port && new.reuse_port));
        }
        self.bindings(space, port).iter().any(|old| {
            let shared = (old.reuse_port && new.reuse_port)
                || (old.reuse_addr && new.reuse_addr && !(old.listening || new.listening));
            old.overlaps(new) && !shared
        })
    }
}

/// The ephemeral ports, each once, from a random one on.
fn candidates(random: u32) -> impl Iterator<Item = u16> {
    let count = u32::from(EPHEMERAL.end() - EPHEMERAL.start()) + 1;
    (0..count).map(move |i| EPHEMERAL.start() + ((random % count + i) % count) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(id: usize, addr: &str) -> Binding {
        Binding {
            id: SocketId(id),
            addr: addr.parse().unwrap(),
            dual: false,
            reuse_addr: false,
            reuse_port: false,
            device: None,
            listening: false,
        }
    }

    #[test]
    fn who_excludes_whom() {
        let dual = |id| Binding { dual: true, ..binding(id, "::") };
        for (first, second, together) in [
            (binding(1, "0.0.0.0"), binding(2, "10.0.0.1"), false),
            (binding(1, "10.0.0.1"), binding(2, "10.0.0.2"), true),
            (binding(1, "10.0.0.1"), binding(2, "10.0.0.1"), false),
            (binding(1, "::"), binding(2, "0.0.0.0"), true),
            (dual(1), binding(2, "0.0.0.0"), false),
            (dual(1), binding(2, "10.0.0.1"), false),
            (binding(1, "10.0.0.1"), dual(2), false),
            (binding(1, "fd00::1"), dual(2), false),
        ] {
            let mut ports = Ports::new(1);
            assert!(ports.bind(Space::Tcp, 80, first));
            assert!(ports.bind(Space::Udp, 80, second), "another space");
            assert_eq!(ports.bind(Space::Tcp, 80, second), together, "{first:?} {second:?}");
            let reuse = |binding| Binding { reuse_addr: true, ..binding };
            let mut ports = Ports::new(1);
            assert!(ports.bind(Space::Tcp, 80, reuse(first)));
            assert!(ports.bind(Space::Tcp, 80, reuse(second)));
            assert!(ports.listen(80, SocketId(1)));
            assert_eq!(ports.listen(80, SocketId(2)), together);
        }
    }

    #[test]
    fn ephemeral_ports_run_out() {
        let mut ports = Ports::new(1);
        let count = EPHEMERAL.count();
        let mut seen = std::collections::HashSet::new();
        for i in 0..count {
            assert!(seen.insert(ports.bind_ephemeral(Space::Udp, i as u32, binding(i, "0.0.0.0")).unwrap()));
        }
        assert_eq!(ports.bind_ephemeral(Space::Udp, 7, binding(count, "0.0.0.0")), None);
        let one = *seen.iter().next().unwrap();
        let owner = ports.bindings(Space::Udp, one)[0].id;
        ports.unbind(Space::Udp, one, owner);
        assert_eq!(ports.bind_ephemeral(Space::Udp, 7, binding(count, "0.0.0.0")), Some(one));
    }

    #[test]
    fn connections_share_a_port_but_bind_may_not_have_it() {
        let mut ports = Ports::new(1);
        let port = ports.choose(5, 1, |_| true).unwrap();
        assert!(!ports.bind(Space::Tcp, port, binding(1, "0.0.0.0")));
        ports.release(port);
        assert!(ports.bind(Space::Tcp, port, binding(1, "0.0.0.0")));
    }
}
