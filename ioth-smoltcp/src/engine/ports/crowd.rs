//! A UDP port that many sockets have: who has a datagram is found by hash, as Linux finds it by its hashes of the 4-tuple
//! and of the local address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::{Binding, Ends, part};
use crate::engine::SocketId;

/// The sockets of one port.
#[derive(Debug)]
pub(super) struct Crowd {
    slots: HashMap<Key, Slot, FixedState>,
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

/// Bindings by rising order.
#[derive(Debug, Default)]
struct Slot {
    all: Vec<(u64, SocketId)>,
    /// Those that take a part of the senders each.
    sharing: Vec<(u64, SocketId)>,
}

impl Crowd {
    pub(super) fn of(bindings: &[Binding], seed: u64) -> Self {
        let slots = HashMap::with_hasher(FixedState::with_seed(seed));
        let mut crowd = Crowd { slots, on_devices: 0, connected: 0 };
        bindings.iter().for_each(|binding| crowd.insert(binding));
        crowd
    }

    pub(super) fn insert(&mut self, binding: &Binding) {
        self.on_devices += usize::from(binding.device.is_some());
        self.connected += usize::from(binding.peer.is_some());
        for key in keys(binding) {
            let slot = self.slots.entry(key).or_default();
            put(&mut slot.all, binding);
            if binding.shares() {
                put(&mut slot.sharing, binding);
            }
        }
    }

    pub(super) fn remove(&mut self, binding: &Binding) {
        self.on_devices -= usize::from(binding.device.is_some());
        self.connected -= usize::from(binding.peer.is_some());
        for key in keys(binding) {
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            take(&mut slot.all, binding);
            take(&mut slot.sharing, binding);
            if slot.all.is_empty() {
                self.slots.remove(&key);
            }
        }
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
                if let Some((_, id)) = last(ends.source.port()).max(last(0)) {
                    return Some(*id);
                }
            }
            for device in devices() {
                let Some(slot) = look(&Key { local, peer: None, device }) else { continue };
                if slot.sharing.last() != slot.all.last() {
                    return slot.all.last().map(|(_, id)| *id);
                }
                return slot.sharing.get(part(hash(), slot.sharing.len())).map(|(_, id)| *id);
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

fn put(list: &mut Vec<(u64, SocketId)>, binding: &Binding) {
    let at = list.partition_point(|(order, _)| *order < binding.order);
    list.insert(at, (binding.order, binding.id));
}

fn take(list: &mut Vec<(u64, SocketId)>, binding: &Binding) {
    if let Ok(at) = list.binary_search_by_key(&binding.order, |(order, _)| *order) {
        list.remove(at);
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
        (locals(), proptest::option::of(peer()), device, any::<bool>()).prop_map(
            |((addr, dual), peer, device, reuse_port)| Binding {
                id: SocketId(0),
                addr,
                dual,
                reuse_addr: true,
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

    proptest! {
        /// By hash it is who it would be by looking at one after the other, whoever comes, goes and changes.
        #[test]
        fn as_one_after_the_other(acts in proptest::collection::vec(act(), 0..200)) {
            let mut ports = Ports::new(1);
            let mut next = 0;
            for act in acts {
                let bindings = ports.bindings(Space::Udp, PORT);
                let at = |at: usize| bindings.get(at % bindings.len().max(1)).map(|binding| binding.id);
                match act {
                    Act::Bind(binding) => {
                        next += 1;
                        let new = Binding { id: SocketId(next), ..binding };
                        prop_assert!(ports.bind(Space::Udp, PORT, new), "everybody shares");
                    }
                    Act::Unbind(which) => {
                        if let Some(id) = at(which) {
                            ports.unbind(Space::Udp, PORT, id);
                        }
                    }
                    Act::Change(which, to) => {
                        if let Some(id) = at(which) {
                            ports.update(Space::Udp, PORT, id, |binding| {
                                *binding = Binding { id, order: binding.order, ..to };
                            });
                        }
                    }
                    Act::Ask(ends, hash) => {
                        let expected = best_of(bindings, &ends, || hash);
                        prop_assert_eq!(ports.receiver(Space::Udp, &ends, || hash), expected);
                        prop_assert_eq!(Crowd::of(bindings, 2).receiver(&ends, || hash), expected);
                    }
                }
                prop_assert!(ports.bindings(Space::Udp, PORT).len() <= FEW || ports.crowds.contains_key(&(Space::Udp, PORT)));
            }
            let all: Vec<_> = ports.bindings(Space::Udp, PORT).iter().map(|binding| binding.id).collect();
            for id in all {
                ports.unbind(Space::Udp, PORT, id);
            }
            prop_assert!(ports.crowds.is_empty() && ports.bound.is_empty());
        }
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
