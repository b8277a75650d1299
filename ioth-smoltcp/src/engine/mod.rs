//! The engine: one node's brain, without I/O.
//!
//! Frames go in ([`Engine::handle_frame`]) and come out ([`Engine::take_egress`]), sockets are called, time is told by
//! whoever calls. There is no thread, no clock, no descriptor and no global in here, and what is random comes from a
//! seed: a thousand engines run in one test, in virtual time, the same way each time.
//!
//! # Order of calls
//! 1. [`set_now`](Engine::set_now), before anything that time matters for.
//! 2. Any number of [`handle_frame`](Engine::handle_frame) and socket calls.
//! 3. [`poll`](Engine::poll): what was put off is done (acknowledgements go out once a batch), and the next deadline
//!    is told.
//! 4. [`take_egress`](Engine::take_egress) for every interface, [`take_changed`](Engine::take_changed) for the sockets whose
//!    poll bits changed.
//!
//! ```text
//!      handle_frame                       take_egress
//!          │                                   ▲
//!   Ethernet ─ ARP, ND ───────────────── Net::output ─ neighbours
//!          │                                   ▲
//!      IPv4, IPv6 ─ ICMP ──────────────────────┤
//!          │                                   │
//!      TCP (one smoltcp socket each), UDP ─────┘
//! ```

pub mod addr;
pub mod bpf;
mod calls;
mod census;
mod datagram;
mod fragment;
mod groups;
mod icmp;
pub mod iface;
mod input;
mod ioctl;
mod ip_options;
mod limit;
mod multicast;
mod neigh;
mod net;
mod netlink_socket;
mod offload;
mod options;
mod packet;
mod ping;
mod ports;
mod random;
mod raw;
mod reassembly;
pub mod route;
mod sockets;
pub mod tables;
mod tcp;
mod timer;
mod udp;
mod wire;

#[cfg(test)]
mod tests;

use std::io::IoSliceMut;

use ioth_core::{Domain, Errno, Events, MacAddr, Result};
use ioth_vde::{Batch, Counters, Frame, Properties};
use slab::Slab;

pub use census::Census;
pub(crate) use neigh::RESOLUTION_TIME;
pub use net::Drops;
pub(crate) use netlink_socket::Plug;
pub use smoltcp::time::Instant;

use datagram::Errors;
use net::{
    ETHERNET_HEADER, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_SERVICE, ETHERTYPE_VLAN,
    Looped, Net,
};
use options::TIME_REQUESTS;
use ports::Ports;
use random::Random;
use sockets::{Kind, Options, Sock};
use tables::Tables;
use tcp::Tcp;
use timer::Timers;

/// Names a socket of an engine until it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub(crate) usize);

impl SocketId {
    /// A small number, unique among the open sockets of its engine.
    pub fn index(self) -> usize {
        self.0
    }
}

/// Sockets of one engine at most, those in the kernel's hands included (RLIMIT_NOFILE bounds a process's own).
const MAX_SOCKETS: usize = 1 << 20;

/// Sockets that wait for a link among which it is not worth the while to look for closed ones.
const FEW_STALLED: usize = 64;

/// One node. See the [module](self).
#[derive(Debug)]
pub struct Engine {
    net: Net,
    sockets: Slab<Sock>,
    ports: Ports,
    tcp: Tcp,
    raws: raw::Raws,
    pings: ping::Pings,
    timers: Timers,
    stamps: u64,
    /// Sockets whose poll bits may have changed.
    touched: Vec<SocketId>,
    /// Connections that may have something to send.
    dirty: Vec<SocketId>,
    /// Sockets that wait for a link to take frames again.
    stalled: Vec<SocketId>,
    changed: Vec<(SocketId, Events)>,
    /// The interface of the packet that is being looked at.
    arrived_by: u32,
}

impl Engine {
    /// A node with its loopback interface and nothing else. The seed feeds sequence numbers, ports and hash keys: from
    /// the system's generator in earnest, any constant in a test.
    pub fn new(seed: [u8; 32]) -> Self {
        let mut random = Random::new(seed);
        let raws = raw::Raws::new(random.next_u64());
        let (ports, tcp) = (Ports::new(random.next_u64()), Tcp::new(random.next_u64()));
        Engine {
            net: Net::new(random, Instant::ZERO),
            sockets: Slab::new(),
            ports,
            tcp,
            raws,
            pings: ping::Pings::default(),
            timers: Timers::default(),
            stamps: 0,
            touched: Vec::new(),
            dirty: Vec::new(),
            stalled: Vec::new(),
            changed: Vec::new(),
            arrived_by: 0,
        }
    }

    /// Tells the time, which never goes back.
    pub fn set_now(&mut self, now: Instant) {
        if now > self.net.now {
            self.net.now = now;
        }
    }

    /// Tells the time of day, since 1970, that belongs to the last [`set_now`](Self::set_now): for the time stamps of
    /// datagrams. Needed only while [`wants_wall_clock`](Self::wants_wall_clock); where it is never told, stamps count
    /// from the engine's beginning.
    pub fn set_wall_clock(&mut self, since_1970: std::time::Duration) {
        /// The clocks are read one after the other: what lies between them is no other time, up to this much.
        const SLACK: std::time::Duration = std::time::Duration::from_micros(100);
        let epoch = since_1970.saturating_sub(net::since_start(self.net.now));
        // The nearer they were read to each other the earlier it is.
        if !(self.net.epoch..self.net.epoch + SLACK).contains(&epoch) {
            self.net.epoch = epoch;
        }
    }

    /// Whether an ioctl(2) tells a time, for which [`want_wall_clock`](Self::want_wall_clock) has to come before it.
    pub fn tells_time(request: u64) -> bool {
        TIME_REQUESTS.contains(&request)
    }

    /// From now on [`set_wall_clock`](Self::set_wall_clock) is needed.
    pub fn want_wall_clock(&mut self) {
        self.net.stamping = true;
    }

    /// Whether a socket's user has asked for time stamps.
    pub fn wants_wall_clock(&self) -> bool {
        self.net.stamping
    }

    /// Adds an Ethernet interface, down, and returns its index.
    ///
    /// # Errors
    /// See [`Tables::add_iface`].
    pub fn add_interface(
        &mut self,
        name: &str,
        mac: MacAddr,
        properties: Properties,
    ) -> Result<u32, iface::IfaceError> {
        let ifindex = self.net.tables.add_iface(name, mac, properties.mtu, properties.mtu)?;
        self.net.add_port(ifindex, properties);
        Ok(ifindex)
    }

    /// Interfaces, addresses and routes.
    pub fn tables(&self) -> &Tables {
        &self.net.tables
    }

    /// The same, to be changed.
    pub fn tables_mut(&mut self) -> &mut Tables {
        &mut self.net.tables
    }

    /// Sockets that there are, connections that wait in listeners included.
    pub fn socket_count(&self) -> usize {
        self.sockets.len()
    }

    /// What was dropped, by name.
    pub fn drops(&self) -> Drops {
        self.net.drops
    }

    /// What went through an interface.
    pub fn counters(&self, ifindex: u32) -> Option<Counters> {
        self.net.port(ifindex).map(|port| port.counters)
    }

    /// The node has no sockets and ends as soon as what they sent has arrived. Another may have its addresses already: this
    /// one takes what is sent to it by name, answers nobody who asks for an address, and refuses nothing.
    pub fn leave(&mut self) {
        self.net.leaving = true;
    }

    /// A frame arrived on an interface.
    pub fn handle_frame(&mut self, ifindex: u32, mut frame: Frame) {
        let up = self.net.tables.iface(ifindex).filter(|iface| iface.is_up()).map(|iface| iface.mac());
        let (Some(mac), Some(port)) = (up, self.net.port_mut(ifindex)) else {
            self.net.drops.interface += 1;
            return;
        };
        if frame.len() < ETHERNET_HEADER {
            port.counters.rx_bad_length += 1;
            return;
        }
        port.counters.rx_frames += 1;
        port.counters.rx_bytes += frame.len() as u64;
        let destination = MacAddr(frame[..6].try_into().expect("six bytes"));
        if !self.net.taps.is_empty() && self.is_listening(ifindex, mac, destination) {
            self.packet_input(ifindex, destination, &frame);
        }
        if destination != mac
            && (self.net.leaving || destination != MacAddr::BROADCAST)
            && (self.net.leaving
                || !(destination.is_group() && self.net.tables.wants_group(destination, ifindex)))
        {
            self.net.drops.not_ours += 1;
            return;
        }
        let mut ethertype = u16::from_be_bytes([frame[12], frame[13]]);
        frame.pull_front(ETHERNET_HEADER);
        if let ETHERTYPE_VLAN | ETHERTYPE_SERVICE = ethertype {
            ethertype = net::behind_priority(&mut frame, ethertype);
        }
        match ethertype {
            ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => self.ip_input(ifindex, frame),
            ETHERTYPE_ARP => self.net.input_arp(ifindex, &frame),
            _ => self.net.drops.not_ours += 1,
        }
    }

    /// Whether an interface takes frames to an Ethernet address: its own, broadcast, its groups, and what packet
    /// sockets ask for besides.
    fn is_listening(&self, ifindex: u32, mac: MacAddr, to: MacAddr) -> bool {
        to == mac || self.net.tables.wants_group(to, ifindex) || self.net.taps.listens(ifindex, to)
    }

    /// Does what was put off and what is due, and tells when there will be more to do.
    ///
    /// `None`: nothing before a frame or a call.
    pub fn poll(&mut self) -> Option<Instant> {
        self.net.poll_neighbours();
        self.neighbours_failed();
        self.reassembly_expired();
        self.net.tables.expire_mtus(self.net.now);
        while let Some((id, stamp)) = self.timers.pop_due(self.net.now) {
            if self.sockets.get(id.0).is_some_and(|sock| sock.stamp == stamp) {
                self.tcp_timer(id);
            }
        }
        self.tcp_flush();
        // What we send to ourselves arrives at once; it may make us send again.
        while let Some(Looped { packet, arrival, by_loopback }) = self.net.looped.pop_front() {
            if !self.net.taps.is_empty() && by_loopback {
                self.packet_looped(&packet);
            }
            self.ip_looped(arrival, packet);
            if self.net.looped.is_empty() {
                self.neighbours_failed();
                self.tcp_flush();
            }
        }
        self.net.poll_groups();
        self.packet_links();
        self.packet_drain();
        self.netlink_events();
        self.tell_changes();
        let deadlines = [
            self.timers.next(),
            self.net.neighbours.next_deadline(),
            self.net.reassembly.next_deadline(),
            self.net.reports.next_deadline(),
            self.net.tables.next_mtu_expiry(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Moves the frames that wait for an interface's link behind those in `batch`.
    pub fn take_egress(&mut self, ifindex: u32, batch: &mut Batch) {
        if let Some(port) = self.net.port_mut(ifindex) {
            if batch.is_empty() {
                std::mem::swap(batch, &mut port.egress);
            } else {
                batch.append(&mut port.egress);
            }
        }
    }

    /// Tells whether an interface's link takes frames. While it doesn't, senders have to wait.
    pub fn set_blocked(&mut self, ifindex: u32, blocked: bool) {
        if let Some(port) = self.net.port_mut(ifindex) {
            port.blocked = blocked;
        }
        if !blocked {
            self.resume();
        }
    }

    /// Whether what the links should deliver changed since the last call: groups, or what packet sockets ask for.
    pub fn take_filters_changed(&mut self) -> bool {
        self.net.tables.take_groups_changed() | self.net.taps.take_listening_changed()
    }

    /// Whether an interface wants more frames than those to its own addresses and groups.
    pub fn is_open(&self, ifindex: u32) -> bool {
        self.net.taps.listening().is_open(ifindex)
    }

    /// Addresses to which an interface takes frames beside its own and its groups.
    pub fn further_addresses(&self, ifindex: u32) -> impl Iterator<Item = MacAddr> {
        self.net.taps.listening().addresses(ifindex)
    }

    /// Sockets that had to wait try again.
    pub fn resume(&mut self) {
        for id in std::mem::take(&mut self.stalled) {
            let Some(sock) = self.sockets.get_mut(id.0) else { continue };
            sock.stalled = false;
            let stream = matches!(sock.kind, Kind::Stream(_));
            self.touch(id);
            if stream {
                self.requeue(id);
            }
        }
    }

    /// Whether a socket waits for a link.
    pub fn has_stalled(&self) -> bool {
        !self.stalled.is_empty()
    }

    /// Whether a packet waits for a neighbour to tell its Ethernet address.
    pub fn awaits_neighbours(&self) -> bool {
        self.net.neighbours.holds_packets()
    }

    /// Moves the sockets whose poll bits changed, with their bits, behind those in `changed`; with the same bits as
    /// before those to whom something more has arrived.
    pub fn take_changed(&mut self, changed: &mut Vec<(SocketId, Events)>) {
        changed.append(&mut self.changed);
    }

    fn insert(&mut self, domain: Domain, kind: Kind, options: Options) -> SocketId {
        self.stamps += 1;
        let mut sock = Sock {
            domain,
            kind,
            options,
            memberships: Vec::new(),
            ip_options: None,
            attached: bpf::Attached::default(),
            error: None,
            errors: Errors::default(),
            stamp: self.stamps,
            touched: false,
            arrived: false,
            events: Events::empty(),
            was_connected: false,
            stalled: false,
        };
        sock.events = sock.poll();
        SocketId(self.sockets.insert(sock))
    }

    /// Forgets a socket and everything that leads to it.
    fn remove(&mut self, id: SocketId) {
        if self.sockets.contains(id.0) {
            self.release(id);
            self.sockets.remove(id.0);
        }
    }

    fn release(&mut self, id: SocketId) {
        self.leave_all(id);
        match self.sockets[id.0].kind {
            Kind::Stream(_) => self.tcp_release(id),
            Kind::Datagrams(_) => self.udp_release(id),
            Kind::Netlink(_) => self.netlink_release(id),
            Kind::Packets(_) => self.packet_release(id),
            Kind::Raw(_) => self.raw_release(id),
            Kind::Ping(_) => self.ping_release(id),
        }
    }

    fn sock(&self, id: SocketId) -> Result<&Sock> {
        self.sockets.get(id.0).ok_or(Errno::EBADF)
    }

    /// Has a socket's poll bits looked at before control goes back.
    fn touch(&mut self, id: SocketId) {
        if let Some(sock) = self.sockets.get_mut(id.0)
            && !std::mem::replace(&mut sock.touched, true)
        {
            self.touched.push(id);
        }
    }

    /// The same when data arrived, or a connection for a listener: an edge, though there was something before.
    fn touch_arrived(&mut self, id: SocketId) {
        if let Some(sock) = self.sockets.get_mut(id.0) {
            sock.arrived = true;
        }
        self.touch(id);
    }

    fn tell_changes(&mut self) {
        for id in self.touched.drain(..) {
            let Some(sock) = self.sockets.get_mut(id.0) else { continue };
            sock.touched = false;
            let events = sock.poll();
            let again = std::mem::take(&mut sock.arrived) && events.contains(Events::IN);
            if events != sock.events || again {
                sock.events = events;
                self.changed.push((id, events));
            }
        }
    }

    /// A socket has to wait for the link.
    fn stall(&mut self, id: SocketId) {
        if !std::mem::replace(&mut self.sockets[id.0].stalled, true) {
            self.stalled.push(id);
        }
        // Sockets come and go while the link takes nothing, and leave their ids behind.
        if self.stalled.len() > 2 * self.sockets.len() + FEW_STALLED {
            self.stalled.sort_unstable();
            self.stalled.dedup();
            self.stalled.retain(|id| self.sockets.get(id.0).is_some_and(|sock| sock.stalled));
        }
        self.touch(id);
    }

    /// A connection that waited for its link is still marked dirty: back into the list.
    fn requeue(&mut self, id: SocketId) {
        self.dirty.push(id);
    }
}

/// Copies into several buffers: the number of bytes that found room.
fn scatter(from: &[u8], to: &mut [IoSliceMut<'_>]) -> usize {
    let mut copied = 0;
    for slice in to {
        let n = slice.len().min(from.len() - copied);
        slice[..n].copy_from_slice(&from[copied..copied + n]);
        copied += n;
    }
    copied
}
