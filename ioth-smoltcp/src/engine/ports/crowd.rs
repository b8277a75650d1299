//! A UDP port that many sockets have: who has a datagram is found by hash, as Linux finds it by its hashes of the 4-tuple
//! and of the local address, and who is in the way of another one as well. No call looks at all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::{Binding, Ends, part};
use crate::engine::SocketId;

/// The sockets of one port.
#[derive(Debug)]
pub(super) struct Crowd {
    /// By rising order.
    all: BTreeMap<u64, Binding>,
    orders: HashMap<SocketId, u64, FixedState>,
    slots: HashMap<Key, Slot, FixedState>,
    /// The orders of those that may be in another one's way.
    obstacles: HashMap<Obstacle, BTreeSet<u64>, FixedState>,
    /// How many are bound to an interface, and how many have a peer: nobody is looked for where nobody is.
    on_devices: usize,
    connected: usize,
}

/// What bindings that fit every datagram equally well have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    local: Local,
    peer: Option<SocketAddr>,
    device: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Local {
    /// One address, or all of its family.
    Addr(IpAddr),
    /// IPv4's addresses by a wildcard of IPv6.
    Mapped,
}

/// Bindings that fit equally well.
#[derive(Debug, Default)]
struct Slot {
    /// By rising order, and whether they take a part of the senders each.
    all: BTreeSet<(u64, SocketId, bool)>,
    /// Those that do, and where each is. As with Linux's reuseport groups the last one takes the place of one that goes.
    sharing: Vec<SocketId>,
    places: HashMap<SocketId, usize, FixedState>,
}

/// What bindings that are in the way of the same ones have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Obstacle {
    range: Range,
    /// On this interface alone, on none in particular, or on whichever.
    device: Option<Option<u32>>,
    reuse_addr: bool,
    reuse_port: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Range {
    /// Bound to just this, which may be a wildcard.
    Addr(IpAddr),
    /// A wildcard of IPv6 that takes IPv4 as well.
    Dual,
    /// Bound to anything of a family.
    V4,
    V6,
}

impl Range {
    fn family(addr: IpAddr) -> Range {
        if addr.is_ipv4() { Range::V4 } else { Range::V6 }
    }
}

impl Crowd {
    pub(super) fn of(bindings: &[Binding], seed: u64) -> Self {
        let mut crowd = Crowd {
            all: BTreeMap::new(),
            orders: HashMap::with_hasher(FixedState::with_seed(seed)),
            slots: HashMap::with_hasher(FixedState::with_seed(seed)),
            obstacles: HashMap::with_hasher(FixedState::with_seed(seed)),
            on_devices: 0,
            connected: 0,
        };
        bindings.iter().for_each(|binding| crowd.insert(binding));
        crowd
    }

    /// By rising order.
    pub(super) fn bindings(&self) -> std::collections::btree_map::Values<'_, u64, Binding> {
        self.all.values()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn get(&self, id: SocketId) -> Option<&Binding> {
        self.all.get(self.orders.get(&id)?)
    }

    pub(super) fn insert(&mut self, binding: &Binding) {
        self.all.insert(binding.order, *binding);
        self.orders.insert(binding.id, binding.order);
        self.on_devices += usize::from(binding.device.is_some());
        self.connected += usize::from(binding.peer.is_some());
        for key in keys(binding) {
            self.slots.entry(key).or_default().insert(binding);
        }
        for obstacle in obstacles(binding) {
            self.obstacles.entry(obstacle).or_default().insert(binding.order);
        }
    }

    /// Takes a socket's binding out.
    pub(super) fn remove(&mut self, id: SocketId) -> Option<Binding> {
        let binding = self.all.remove(&self.orders.remove(&id)?)?;
        self.on_devices -= usize::from(binding.device.is_some());
        self.connected -= usize::from(binding.peer.is_some());
        for key in keys(&binding) {
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            slot.remove(&binding);
            if slot.all.is_empty() {
                self.slots.remove(&key);
            }
        }
        for obstacle in obstacles(&binding) {
            let Some(orders) = self.obstacles.get_mut(&obstacle) else { continue };
            orders.remove(&binding.order);
            if orders.is_empty() {
                self.obstacles.remove(&obstacle);
            }
        }
        Some(binding)
    }

    /// The newest one that overlaps a new one and does not share with it by SO_REUSEADDR.
    pub(super) fn in_the_way(&self, new: &Binding) -> Option<&Binding> {
        let wildcard: IpAddr = match new.addr {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // Binding::overlaps(): the same address, what covers the new one, and what the new one covers.
        let ranges = [
            Some(Range::Addr(new.addr)),
            Some(Range::Addr(wildcard)),
            new.addr.is_ipv4().then_some(Range::Dual),
            new.addr.is_unspecified().then_some(Range::family(new.addr)),
            new.dual.then_some(Range::V4),
        ];
        let devices: &[Option<Option<u32>>] = match new.device {
            None => &[None],
            Some(_) => &[Some(None), Some(new.device)],
        };
        let flags = [(false, false), (false, true), (true, false), (true, true)];
        let flags = flags.into_iter().filter(|(reuse_addr, _)| !(*reuse_addr && new.reuse_addr));
        let newest = |range, device| {
            let looks = flags.clone().map(move |(reuse_addr, reuse_port)| Obstacle {
                range,
                device,
                reuse_addr,
                reuse_port,
            });
            looks.filter_map(|obstacle| self.obstacles.get(&obstacle)?.last().copied()).max()
        };
        let order = ranges
            .into_iter()
            .flatten()
            .flat_map(|range| devices.iter().map(move |device| (range, *device)))
            .filter_map(|(range, device)| newest(range, device))
            .max()?;
        self.all.get(&order)
    }

    /// See [`Ports::receiver`](super::Ports::receiver).
    pub(super) fn receiver(&self, ends: &Ends, hash: impl FnOnce() -> u64) -> Option<SocketId> {
        self.receiver_by(ends, hash, |key| self.slots.get(key))
    }

    /// The same with `look` as the way to look into the table.
    fn receiver_by<'a>(
        &self,
        ends: &Ends,
        hash: impl FnOnce() -> u64,
        mut look: impl FnMut(&Key) -> Option<&'a Slot>,
    ) -> Option<SocketId> {
        let destination = ends.destination.ip();
        let (any, mapped) = match destination {
            IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), Some(Local::Mapped)),
            IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), None),
        };
        let devices = || (self.on_devices > 0).then_some(Some(ends.ifindex)).into_iter().chain([None]);
        // From what fits best on: Binding::score().
        for local in [Local::Addr(destination), Local::Addr(any)].into_iter().chain(mapped) {
            for device in devices().filter(|_| self.connected > 0) {
                let mut last = |port| {
                    let peer = Some(SocketAddr::new(ends.source.ip(), port));
                    look(&Key { local, peer, device })?.all.last()
                };
                if let Some((_, id, _)) = last(ends.source.port()).max(last(0)) {
                    return Some(*id);
                }
            }
            for device in devices() {
                let Some(slot) = look(&Key { local, peer: None, device }) else { continue };
                let (_, last, shares) = *slot.all.last()?;
                if !shares {
                    return Some(last);
                }
                return slot.sharing.get(part(hash(), slot.sharing.len())).copied();
            }
        }
        None
    }
}

/// Where a binding is entered: an IPv6 wildcard that takes IPv4 as well in two places.
fn keys(binding: &Binding) -> impl Iterator<Item = Key> {
    let mapped = binding.dual.then_some(Local::Mapped);
    let Binding { peer, device, .. } = *binding;
    [Local::Addr(binding.addr)].into_iter().chain(mapped).map(move |local| Key { local, peer, device })
}

/// Where a binding is looked for by one that may not be beside it.
fn obstacles(binding: &Binding) -> impl Iterator<Item = Obstacle> {
    let Binding { addr, dual, device, reuse_addr, reuse_port, .. } = *binding;
    let ranges = [Some(Range::Addr(addr)), dual.then_some(Range::Dual), Some(Range::family(addr))];
    let both = [None, Some(device)];
    ranges.into_iter().flatten().flat_map(move |range| {
        both.into_iter().map(move |device| Obstacle { range, device, reuse_addr, reuse_port })
    })
}

impl Slot {
    fn insert(&mut self, binding: &Binding) {
        self.all.insert((binding.order, binding.id, binding.shares()));
        if binding.shares() {
            self.places.insert(binding.id, self.sharing.len());
            self.sharing.push(binding.id);
        }
    }

    fn remove(&mut self, binding: &Binding) {
        self.all.remove(&(binding.order, binding.id, binding.shares()));
        if let Some(place) = self.places.remove(&binding.id) {
            self.sharing.swap_remove(place);
            if let Some(moved) = self.sharing.get(place) {
                self.places.insert(*moved, place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::super::{FEW, Ports, Space, best_of};
    use super::*;

    const PORT: u16 = 53;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn locals() -> impl Strategy<Value = (IpAddr, bool)> {
        prop_oneof![
            Just((ip("0.0.0.0"), false)),
            Just((ip("10.0.0.1"), false)),
            Just((ip("10.0.0.2"), false)),
            Just((ip("::"), false)),
            Just((ip("::"), true)),
            Just((ip("fd00::1"), false)),
        ]
    }

    fn peer() -> impl Strategy<Value = SocketAddr> {
        let ips = prop_oneof![Just(ip("10.0.0.8")), Just(ip("10.0.0.9")), Just(ip("fd00::9"))];
        (ips, 0u16..3).prop_map(|(ip, port)| SocketAddr::new(ip, port))
    }

    fn binding() -> impl Strategy<Value = Binding> {
        let device = proptest::option::of(1u32..3);
        let reuse_addr = proptest::bool::weighted(0.95);
        (locals(), proptest::option::of(peer()), device, any::<bool>(), reuse_addr).prop_map(
            |((addr, dual), peer, device, reuse_port, reuse_addr)| Binding {
                id: SocketId(0),
                addr,
                dual,
                reuse_addr,
                reuse_port,
                device,
                listening: false,
                peer,
                order: 0,
            },
        )
    }

    fn ends() -> impl Strategy<Value = Ends> {
        let to = prop_oneof![
            Just(ip("10.0.0.1")),
            Just(ip("10.0.0.2")),
            Just(ip("10.0.0.3")),
            Just(ip("fd00::1")),
            Just(ip("fd00::2")),
        ];
        (to, peer(), 1u32..4).prop_map(|(to, source, ifindex)| Ends {
            ifindex,
            source,
            destination: SocketAddr::new(to, PORT),
        })
    }

    #[derive(Clone, Debug)]
    enum Act {
        Bind(Binding),
        /// The one at this place, counted around.
        Unbind(usize),
        Change(usize, Binding),
        Ask(Ends, u64),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            3 => binding().prop_map(Act::Bind),
            1 => any::<usize>().prop_map(Act::Unbind),
            2 => (any::<usize>(), binding()).prop_map(|(at, binding)| Act::Change(at, binding)),
            6 => (ends(), any::<u64>()).prop_map(|(ends, hash)| Act::Ask(ends, hash)),
        ]
    }

    /// All that those have in common of which each may have the same datagram.
    fn kind(binding: &Binding) -> (IpAddr, Option<SocketAddr>, Option<u32>, Option<SocketId>) {
        let Binding { id, addr, peer, device, .. } = *binding;
        (addr, peer, device, (!binding.shares()).then_some(id))
    }

    proptest! {
        /// By hash it is who it would be by looking at one after the other, whoever comes, goes and changes; of those that
        /// share the senders it may be another. Nor does who is in whose way differ.
        #[test]
        fn as_one_after_the_other(acts in proptest::collection::vec(act(), 0..200)) {
            let (mut ports, mut next) = (Ports::new(1), 0);
            let mut model: Vec<Binding> = Vec::new();
            for act in acts {
                let count = model.len().max(1);
                match act {
                    Act::Bind(binding) => {
                        next += 1;
                        let new = Binding { id: SocketId(next), ..binding };
                        let in_the_way = |old: &&Binding| {
                            old.overlaps(&new) && !(old.reuse_addr && new.reuse_addr)
                        };
                        let first = model.iter().rev().find(in_the_way);
                        let free = first.is_none_or(|old| old.reuse_port && new.reuse_port);
                        prop_assert_eq!(ports.bind(Space::Udp, PORT, new), free);
                        if free {
                            model.push(Binding { order: ports.order, ..new });
                        }
                    }
                    Act::Unbind(which) if !model.is_empty() => {
                        ports.unbind(Space::Udp, PORT, model.remove(which % count).id);
                    }
                    Act::Change(which, to) if !model.is_empty() => {
                        let binding = &mut model[which % count];
                        *binding = Binding { id: binding.id, order: binding.order, ..to };
                        ports.update(Space::Udp, PORT, binding.id, |entered| {
                            *entered = Binding { id: entered.id, order: entered.order, ..to };
                        });
                    }
                    Act::Ask(ends, hash) => {
                        let of = |id: Option<SocketId>| model.iter().find(|binding| Some(binding.id) == id).map(kind);
                        let expected = of(best_of(model.iter(), &ends, || hash));
                        prop_assert_eq!(of(ports.receiver(Space::Udp, &ends, || hash)), expected);
                        prop_assert_eq!(of(Crowd::of(&model, 2).receiver(&ends, || hash)), expected);
                    }
                    Act::Unbind(_) | Act::Change(..) => {}
                }
                prop_assert!(ports.bindings(Space::Udp, PORT).eq(model.iter()));
                prop_assert!(model.len() <= FEW || ports.crowds.contains_key(&(Space::Udp, PORT)));
                prop_assert_eq!(ports.held(), model.len());
            }
            for binding in model {
                ports.unbind(Space::Udp, PORT, binding.id);
            }
            prop_assert!(ports.crowds.is_empty() && ports.bound.is_empty());
        }
    }

    /// Each of those that share has its part, also after some have gone.
    #[test]
    fn all_parts_are_taken() {
        let sharing = |id| Binding {
            id: SocketId(id),
            addr: ip("10.0.0.1"),
            dual: false,
            reuse_addr: false,
            reuse_port: true,
            device: None,
            listening: false,
            peer: None,
            order: id as u64,
        };
        let mut crowd = Crowd::of(&(0..100).map(sharing).collect::<Vec<_>>(), 1);
        for id in (0..100).step_by(3) {
            assert_eq!(crowd.remove(SocketId(id)).map(|binding| binding.id), Some(SocketId(id)));
        }
        assert_eq!(crowd.remove(SocketId(0)), None);
        let ends = Ends {
            ifindex: 2,
            source: SocketAddr::new(ip("10.0.0.9"), 9),
            destination: SocketAddr::new(ip("10.0.0.1"), PORT),
        };
        let step = u64::MAX / crowd.len() as u64;
        let found: BTreeSet<_> =
            (0..crowd.len() as u64).filter_map(|i| crowd.receiver(&ends, || i * step + step / 2)).collect();
        assert_eq!(found.len(), crowd.len());
    }

    /// Contract: what a datagram costs does not grow with the number of sockets.
    #[test]
    fn ten_thousand_cost_what_ten_cost() {
        let source = |i: usize| SocketAddr::new(ip("10.0.0.9"), 1024 + i as u16);
        let looks = |count: usize, connected: bool| {
            let bindings: Vec<_> = (0..count)
                .map(|i| Binding {
                    id: SocketId(i),
                    addr: ip("10.0.0.1"),
                    dual: false,
                    reuse_addr: true,
                    reuse_port: true,
                    device: None,
                    listening: false,
                    peer: connected.then(|| source(i)),
                    order: i as u64,
                })
                .collect();
            let crowd = Crowd::of(&bindings, 1);
            let mut costs = Vec::new();
            for i in [0, count / 2, count - 1, 20_000] {
                let ends = Ends {
                    ifindex: 2,
                    source: source(i),
                    destination: SocketAddr::new(ip("10.0.0.1"), PORT),
                };
                let looks = Cell::new(0);
                let look = |key: &Key| {
                    looks.set(looks.get() + 1);
                    crowd.slots.get(key)
                };
                let found = crowd.receiver_by(&ends, || u64::MAX, look);
                match connected {
                    true => assert_eq!(found, (i < count).then_some(SocketId(i))),
                    false => assert_eq!(found, Some(SocketId(count - 1))),
                }
                costs.push(looks.get());
            }
            costs
        };
        for connected in [true, false] {
            let few = looks(10, connected);
            assert_eq!(few, looks(10_000, connected));
            assert!(few.iter().all(|looks| *looks <= 9), "{few:?}");
        }
    }
}
