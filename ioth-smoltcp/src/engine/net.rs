//! Layers 2 and 3 on the way out, and ARP and neighbour discovery both ways.
//!
//! Read first: RFC 826 (ARP), RFC 4861 (neighbour discovery), RFC 1122 §3, RFC 4443 (ICMPv6).

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ioth_core::MacAddr;
use ioth_vde::{Batch, Checksum, Counters, Frame, Properties};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::Instant;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv6Packet, Icmpv6Repr, IpProtocol,
    NdiscNeighborFlags, NdiscRepr, RawHardwareAddress,
};

use super::fragment;
use super::groups::Reports;
use super::iface::LOOPBACK;
use super::limit::TokenBucket;
use super::neigh::{Action, Key, Neighbours, Resolution};
use super::netlink_socket::Plugs;
use super::offload;
use super::packet::Taps;
use super::random::Random;
use super::reassembly::Reassembly;

use super::SocketId;
use super::route::Path;
use super::tables::{Tables, group_mac, solicited_node};
use super::wire::{self, IPV6_HEADER, IpAttrs, IpHeader};

/// Length of an Ethernet header, in bytes.
pub(crate) const ETHERNET_HEADER: usize = 14;
pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(crate) const ETHERTYPE_ARP: u16 = 0x0806;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;
/// IEEE 802.1Q
pub(crate) const ETHERTYPE_VLAN: u16 = 0x8100;
/// IEEE 802.1ad
pub(crate) const ETHERTYPE_SERVICE: u16 = 0x88a8;

/// Packets that wait on the loopback interface at most.
const MAX_LOOPED: usize = 8192;
/// Frames that an interface may hold back before its senders have to wait.
pub(crate) const EGRESS_LIMIT: usize = 512;

/// The running half of an interface; its configuration is in [`Tables`].
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) properties: Properties,
    /// Frames for the link, in order.
    pub(crate) egress: Batch,
    /// The link takes nothing more for the moment.
    pub(crate) blocked: bool,
    pub(crate) counters: Counters,
}

/// What was dropped at layer 2 and 3, by name. Frames or packets each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drops {
    /// Headers that lie about their lengths, unknown versions, option or extension header errors.
    pub malformed: u64,
    /// A wrong checksum at any layer.
    pub checksum: u64,
    /// Not for this node: another Ethernet or IP address.
    pub not_ours: u64,
    /// Source addresses that cannot be (loopback from outside, multicast).
    pub martian: u64,
    /// Pieces of packets that could not be put together: they overlapped, or one did not come in time.
    pub fragments: u64,
    /// No listener, or its queue was full.
    pub no_socket: u64,
    /// A socket's receive buffer was full.
    pub receive_buffer: u64,
    /// Packets with a source route, which a node does not take.
    pub source_route: u64,
    /// UDP-Lite's checksum covered less than the socket asks for.
    pub coverage: u64,
    /// A listener's queues were full.
    pub listen_queue: u64,
    /// No route to the destination.
    pub no_route: u64,
    /// The interface was down, or the loopback queue was full.
    pub interface: u64,
    /// TCP segments that fit no window, acknowledge what was not sent, or would restart a connection.
    pub unacceptable: u64,
    /// Nobody answered for the next hop's address.
    pub unreachable: u64,
    /// Messages not sent because of the rate limit of RFC 4443 §2.4(f).
    pub icmp_limited: u64,
}

/// A packet that the node hears itself.
#[derive(Debug)]
pub(crate) struct Looped {
    pub(crate) packet: Frame,
    /// The interface by which it seems to arrive.
    pub(crate) arrival: u32,
    /// It goes through the loopback interface; otherwise it is a copy of what left by another one.
    pub(crate) by_loopback: bool,
}

/// Layers 2 and 3.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) now: Instant,
    /// The time of day at the engine's instant zero, since 1970.
    pub(crate) epoch: std::time::Duration,
    /// A socket's user wants time stamps.
    pub(crate) stamping: bool,
    /// The node only waits for what its closed sockets sent: to everybody else it is not there any more.
    pub(crate) leaving: bool,
    pub(crate) tables: Tables,
    pub(crate) neighbours: Neighbours,
    pub(crate) reassembly: Reassembly,
    pub(crate) reports: Reports,
    pub(crate) random: Random,
    pub(crate) drops: Drops,
    pub(crate) icmp_limit: TokenBucket,
    /// Packets that the node hears itself.
    pub(crate) looped: VecDeque<Looped>,
    /// Packets that found no neighbour, and on which interface: their sockets have to hear of it.
    pub(crate) failed: Vec<(u32, Frame)>,
    /// By interface index; none for the loopback interface and for those that are gone, whose numbers are not given again.
    pub(crate) ports: Vec<Option<Box<Port>>>,
    pub(crate) plugs: Plugs,
    /// What packet sockets want to see.
    pub(crate) taps: Taps,
    actions: Vec<Action>,
}

impl Net {
    pub(crate) fn new(mut random: Random, now: Instant) -> Self {
        Net {
            now,
            epoch: std::time::Duration::ZERO,
            stamping: false,
            leaving: false,
            tables: Tables::with_seed(random.next_u64()),
            neighbours: Neighbours::new(random.next_u64()),
            reassembly: Reassembly::new(random.next_u64()),
            reports: Reports::new(random.next_u64()),
            random,
            drops: Drops::default(),
            icmp_limit: TokenBucket::default(),
            looped: VecDeque::new(),
            failed: Vec::new(),
            ports: Vec::new(),
            plugs: Plugs::default(),
            taps: Taps::default(),
            actions: Vec::new(),
        }
    }

    /// Gives an interface of the tables its link.
    pub(crate) fn add_port(&mut self, ifindex: u32, properties: Properties) {
        Net::plug(&mut self.ports, ifindex, properties);
    }

    /// The same with the ports alone.
    pub(crate) fn plug(ports: &mut Vec<Option<Box<Port>>>, ifindex: u32, properties: Properties) {
        let at = ifindex as usize;
        if ports.len() <= at {
            ports.resize_with(at + 1, || None);
        }
        let (egress, counters) = (Batch::new(), Counters::default());
        ports[at] = Some(Box::new(Port { properties, egress, blocked: false, counters }));
    }

    pub(crate) fn port(&self, ifindex: u32) -> Option<&Port> {
        self.ports.get(ifindex as usize)?.as_deref()
    }

    pub(crate) fn port_mut(&mut self, ifindex: u32) -> Option<&mut Port> {
        self.ports.get_mut(ifindex as usize)?.as_deref_mut()
    }

    /// Whether a sender has to wait for this interface.
    pub(crate) fn congested(&self, ifindex: u32) -> bool {
        self.port(ifindex).is_some_and(|port| port.blocked || port.egress.len() >= EGRESS_LIMIT)
    }

    /// What an interface can carry beyond plain packets. The loopback interface carries anything.
    pub(crate) fn offload(&self, ifindex: u32) -> (usize, bool) {
        match self.port(ifindex) {
            Some(port) => (port.properties.gso_max, port.properties.trusted),
            None => (usize::from(u16::MAX), true),
        }
    }

    /// Changes whenever a path or an address on it may have changed.
    pub(crate) fn generation(&self) -> u64 {
        self.tables.generation().wrapping_add(self.neighbours.generation())
    }

    /// Sends a whole IP packet along a path. Its checksums may be left to this function.
    pub(crate) fn output(&mut self, path: &Path, packet: Frame) {
        if path.ifindex == LOOPBACK {
            return self.output_loopback(path.arrival, packet);
        }
        self.output_to(path.ifindex, path.next_hop, packet);
    }

    /// Whether an address is another host's, as far as the tables say: neither ours nor many's.
    pub(crate) fn is_elsewhere(&self, addr: Ipv4Addr) -> bool {
        let broadcast = || self.tables.ifaces().any(|iface| self.tables.is_broadcast(addr, iface.index()));
        let many = addr.is_multicast() || addr.octets()[0] == 0 || broadcast();
        !many && self.tables.is_local(addr.into(), None).is_none()
    }

    /// The time since 1970 at a moment of the engine's.
    pub(crate) fn wall_clock(&self, at: Instant) -> std::time::Duration {
        self.epoch + since_start(at)
    }

    /// RFC 791, timestamps: "milliseconds since midnight UT", or "any time" with the highest bit set.
    pub(crate) fn time_of_day(&self) -> [u8; 4] {
        const DAY: u128 = 86_400_000;
        const NON_STANDARD: u32 = 1 << 31;
        let time = (self.wall_clock(self.now).as_millis() % DAY) as u32;
        let known = !self.epoch.is_zero();
        (if known { time } else { time | NON_STANDARD }).to_be_bytes()
    }

    /// Sends a whole IP packet along a path, in pieces when it is longer than `mtu`.
    pub(crate) fn output_pieces(&mut self, path: &Path, mtu: usize, mut packet: Frame) {
        let ipv4 = packet[0] >> 4 == 4;
        if packet.len() <= mtu {
            if ipv4 && packet[6] & 0x40 == 0 {
                // RFC 6864 §4.3: what may still be fragmented needs an identification that is not reused soon.
                let ident = self.random.next_u64() as u16;
                packet[4..6].copy_from_slice(&ident.to_be_bytes());
                wire::fill_ipv4_checksum(&mut packet);
            }
            return self.output(path, packet);
        }
        if packet.checksum == Checksum::Trusted {
            offload::fill_checksums(&mut packet);
        }
        // RFC 7739 §5.3: unpredictable.
        let ident = self.random.next_u64() as u32;
        for piece in fragment::split(&packet, mtu, ident) {
            self.output(path, piece);
        }
    }

    pub(crate) fn output_to(&mut self, ifindex: u32, next_hop: IpAddr, packet: Frame) {
        if ifindex == LOOPBACK {
            return self.output_loopback(LOOPBACK, packet);
        }
        match self.hardware_address(ifindex, next_hop, packet) {
            Resolution::Known { mac, packet, .. } => self.output_ethernet(ifindex, mac, packet),
            Resolution::Queued { ask: true } => self.solicit((ifindex, next_hop), None),
            Resolution::Queued { ask: false } => {}
        }
    }

    /// A socket joins a group on an interface.
    pub(crate) fn join(&mut self, ifindex: u32, group: IpAddr) {
        self.tables.join(ifindex, group);
    }

    /// A socket leaves a group, or goes.
    pub(crate) fn leave(&mut self, ifindex: u32, group: IpAddr) {
        self.tables.leave(ifindex, group);
    }

    /// The address of ours from which a packet to a group or broadcast would be answered, IPv4's `ipi_spec_dst`.
    pub(crate) fn answering(&self, ifindex: u32, src: IpAddr, dst: IpAddr) -> IpAddr {
        if !dst.is_ipv4() {
            return dst;
        }
        self.tables.route(src, Some(ifindex), None).map_or(Ipv4Addr::UNSPECIFIED.into(), |path| path.source)
    }

    /// A packet of ours to ourselves, which is to seem to arrive by an interface.
    pub(crate) fn output_loopback(&mut self, arrival: u32, packet: Frame) {
        self.loop_back(Looped { packet, arrival, by_loopback: true });
    }

    /// A copy of what leaves by an interface, as if it had arrived there.
    pub(crate) fn output_looped(&mut self, ifindex: u32, packet: Frame) {
        self.loop_back(Looped { packet, arrival: ifindex, by_loopback: false });
    }

    fn loop_back(&mut self, looped: Looped) {
        if self.looped.len() >= MAX_LOOPED {
            self.drops.interface += 1;
            return;
        }
        if !self.taps.is_empty() && looped.by_loopback {
            self.taps.looped(LOOPBACK, &looped.packet);
        }
        self.looped.push_back(looped);
    }

    /// Puts the Ethernet header in front of an IP packet, finishes what the link can't, and queues it.
    pub(crate) fn output_ethernet(&mut self, ifindex: u32, mac: MacAddr, mut packet: Frame) {
        let up = self.tables.iface(ifindex).is_some_and(|iface| iface.is_up());
        let Some(port) = self.port(ifindex).filter(|_| up) else {
            self.drops.interface += 1;
            return;
        };
        if packet.gso_size.is_some() && packet.len() > port.properties.gso_max {
            for segment in offload::segment(&packet) {
                self.output_ethernet(ifindex, mac, segment);
            }
            return;
        }
        if packet.checksum == Checksum::Trusted && !port.properties.trusted {
            offload::fill_checksums(&mut packet);
        }
        let ethertype = if packet[0] >> 4 == 4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
        self.push_frame(ifindex, mac, ethertype, packet);
    }

    fn push_frame(&mut self, ifindex: u32, destination: MacAddr, ethertype: u16, mut frame: Frame) {
        let Some(source) = self.tables.iface(ifindex).map(|iface| iface.mac()) else { return };
        frame.push_front(ETHERNET_HEADER);
        frame[..6].copy_from_slice(&destination.0);
        frame[6..12].copy_from_slice(&source.0);
        frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
        self.send_frame(ifindex, frame, None);
    }

    /// Queues a whole frame for an interface's link. Packet sockets see it, but for the one that sent it.
    pub(crate) fn send_frame(&mut self, ifindex: u32, frame: Frame, sender: Option<SocketId>) {
        if !self.taps.is_empty() {
            self.taps.sent(ifindex, &frame, sender);
        }
        if let Some(port) = self.port_mut(ifindex) {
            port.counters.tx_frames += 1;
            port.counters.tx_bytes += frame.len() as u64;
            port.egress.push_back(frame);
        }
    }

    /// The Ethernet address for a next hop: computed for groups, else looked up.
    pub(crate) fn hardware_address(&mut self, ifindex: u32, next_hop: IpAddr, packet: Frame) -> Resolution {
        let group = match next_hop {
            IpAddr::V4(v4) if v4.is_broadcast() || self.tables.is_broadcast(v4, ifindex) => {
                Some(MacAddr::BROADCAST)
            }
            _ if next_hop.is_multicast() => Some(group_mac(next_hop)),
            _ => None,
        };
        match group {
            Some(mac) => Resolution::Known { mac, packet, fresh_until: Instant::from_micros(i64::MAX) },
            None => self.neighbours.resolve(self.now, (ifindex, next_hop), packet),
        }
    }

    /// Runs the neighbour table's timers.
    pub(crate) fn poll_neighbours(&mut self) {
        let mut actions = std::mem::take(&mut self.actions);
        self.neighbours.poll(self.now, &mut actions);
        for action in actions.drain(..) {
            match action {
                Action::Solicit { key, mac } => self.solicit(key, mac),
                Action::Failed { ifindex, packets } => {
                    self.drops.unreachable += packets.len() as u64;
                    self.failed.extend(packets.into_iter().map(|packet| (ifindex, packet)));
                }
            }
        }
        self.actions = actions;
    }

    /// Asks who has an address: by ARP or neighbour solicitation, to everybody or to the one who had it.
    pub(crate) fn solicit(&mut self, (ifindex, target): Key, known: Option<MacAddr>) {
        let Ok(path) = self.tables.route(target, Some(ifindex), None) else { return };
        match (target, path.source) {
            (IpAddr::V4(target), IpAddr::V4(source)) => {
                let destination = known.unwrap_or(MacAddr::BROADCAST);
                self.send_arp(
                    ifindex,
                    ArpOperation::Request,
                    source,
                    destination,
                    MacAddr::UNSPECIFIED,
                    target,
                );
            }
            (IpAddr::V6(target), IpAddr::V6(source)) => {
                let destination = if known.is_some() { target } else { solicited_node(target) };
                let lladdr =
                    self.tables.iface(ifindex).map(|iface| RawHardwareAddress::from(ethernet(iface.mac())));
                let repr = NdiscRepr::NeighborSolicit { target_addr: target, lladdr };
                let mac = known.unwrap_or_else(|| group_mac(destination.into()));
                self.send_ndisc(ifindex, source, destination, mac, repr);
            }
            _ => {}
        }
    }

    fn send_arp(
        &mut self,
        ifindex: u32,
        operation: ArpOperation,
        source: Ipv4Addr,
        destination: MacAddr,
        target_mac: MacAddr,
        target: Ipv4Addr,
    ) {
        let Some(iface) = self.tables.iface(ifindex).filter(|iface| iface.is_up()) else { return };
        let repr = ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: ethernet(iface.mac()),
            source_protocol_addr: source,
            target_hardware_addr: ethernet(target_mac),
            target_protocol_addr: target,
        };
        let mut frame = Frame::new(repr.buffer_len());
        repr.emit(&mut ArpPacket::new_unchecked(&mut frame[..]));
        self.push_frame(ifindex, destination, ETHERTYPE_ARP, frame);
    }

    fn send_ndisc(&mut self, ifindex: u32, src: Ipv6Addr, dst: Ipv6Addr, mac: MacAddr, repr: NdiscRepr<'_>) {
        let repr = Icmpv6Repr::Ndisc(repr);
        let mut packet = Frame::new(IPV6_HEADER + repr.buffer_len());
        // RFC 4861 §7.1: receivers discard neighbour discovery with another hop limit.
        wire::emit_ip(&mut packet, src.into(), dst.into(), IpAttrs::new(IpProtocol::Icmpv6, 255));
        let mut icmp = Icmpv6Packet::new_unchecked(&mut packet[IPV6_HEADER..]);
        repr.emit(&src, &dst, &mut icmp, &ChecksumCapabilities::default());
        self.output_ethernet(ifindex, mac, packet);
    }

    /// An ARP packet arrived. RFC 826's "packet reception", with Linux's rule not to learn from strangers.
    pub(crate) fn input_arp(&mut self, ifindex: u32, bytes: &[u8]) {
        let Ok(repr) = ArpPacket::new_checked(bytes).and_then(|packet| ArpRepr::parse(&packet)) else {
            self.drops.malformed += 1;
            return;
        };
        let ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr: source,
            target_protocol_addr: target,
            ..
        } = repr
        else {
            return;
        };
        let mac = MacAddr(source_hardware_addr.0);
        if !mac.is_unicast() || source.is_multicast() || source.is_broadcast() || source.is_loopback() {
            self.drops.martian += 1;
            return;
        }
        let for_us =
            self.tables.is_local(target.into(), Some(ifindex)).is_some_and(|local| local.ifindex == ifindex);
        let key = (ifindex, IpAddr::V4(source));
        let stranger = source.is_unspecified() || self.tables.is_local(source.into(), None).is_some();
        let waiting = match operation {
            _ if stranger => Vec::new(),
            ArpOperation::Request if for_us => self.neighbours.observe(self.now, key, mac),
            ArpOperation::Reply if for_us => self.neighbours.confirm(self.now, key, mac, true, true),
            // Gratuitous or overheard: only an entry that is there already is brought up to date.
            _ => self.neighbours.confirm(self.now, key, mac, false, true),
        };
        self.send_waiting(ifindex, mac, waiting);
        if operation == ArpOperation::Request && for_us {
            self.send_arp(ifindex, ArpOperation::Reply, target, mac, mac, source);
        }
    }

    /// A neighbour discovery message arrived, its ICMPv6 checksum already verified.
    pub(crate) fn input_ndisc(&mut self, ifindex: u32, header: &IpHeader, repr: NdiscRepr<'_>) {
        let (IpAddr::V6(source), IpAddr::V6(destination)) = (header.src, header.dst) else { return };
        // RFC 6980 §5: "Nodes MUST silently ignore [...] if the packet carrying it includes an IPv6 Fragmentation Header."
        if header.fragmented {
            self.drops.malformed += 1;
            return;
        }
        // RFC 4861 §7.1.1, §7.1.2: "The IP Hop Limit field has a value of 255".
        if header.hop_limit != 255 {
            self.drops.malformed += 1;
            return;
        }
        match repr {
            NdiscRepr::NeighborSolicit { target_addr: target, lladdr } => {
                if target.is_multicast() || (source.is_unspecified() && lladdr.is_some()) {
                    self.drops.malformed += 1;
                    return;
                }
                let ours = self.tables.is_local(target.into(), Some(ifindex));
                if ours.is_none_or(|local| local.ifindex != ifindex) {
                    return;
                }
                let asker = lladdr.and_then(mac_of);
                if let Some(mac) = asker
                    && !source.is_unspecified()
                {
                    let waiting = self.neighbours.observe(self.now, (ifindex, source.into()), mac);
                    self.send_waiting(ifindex, mac, waiting);
                }
                self.advertise(ifindex, target, source);
            }
            NdiscRepr::NeighborAdvert { flags, target_addr: target, lladdr } => {
                let solicited = flags.contains(NdiscNeighborFlags::SOLICITED);
                if target.is_multicast() || (destination.is_multicast() && solicited) {
                    self.drops.malformed += 1;
                    return;
                }
                let Some(mac) = lladdr.and_then(mac_of) else { return };
                if self.tables.is_local(target.into(), None).is_some() {
                    return;
                }
                let overriding = flags.contains(NdiscNeighborFlags::OVERRIDE);
                let key = (ifindex, IpAddr::V6(target));
                let waiting = self.neighbours.confirm(self.now, key, mac, solicited, overriding);
                self.send_waiting(ifindex, mac, waiting);
            }
            // Router discovery is configuration's affair.
            NdiscRepr::RouterSolicit { .. } | NdiscRepr::RouterAdvert { .. } | NdiscRepr::Redirect { .. } => {
            }
        }
    }

    /// Answers a solicitation, RFC 4861 §7.2.4.
    fn advertise(&mut self, ifindex: u32, target: Ipv6Addr, asker: Ipv6Addr) {
        let Some(mac) = self.tables.iface(ifindex).map(|iface| iface.mac()) else { return };
        let lladdr = Some(RawHardwareAddress::from(ethernet(mac)));
        // "If the source of the solicitation is the unspecified address, the node MUST set the Solicited flag to
        // zero and multicast the advertisement to the all-nodes address."
        if asker.is_unspecified() {
            let flags = NdiscNeighborFlags::OVERRIDE;
            let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
            let repr = NdiscRepr::NeighborAdvert { flags, target_addr: target, lladdr };
            return self.send_ndisc(ifindex, target, all_nodes, group_mac(all_nodes.into()), repr);
        }
        let flags = NdiscNeighborFlags::OVERRIDE | NdiscNeighborFlags::SOLICITED;
        let repr = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { flags, target_addr: target, lladdr });
        let mut packet = Frame::new(IPV6_HEADER + repr.buffer_len());
        wire::emit_ip(&mut packet, target.into(), asker.into(), IpAttrs::new(IpProtocol::Icmpv6, 255));
        let mut icmp = Icmpv6Packet::new_unchecked(&mut packet[IPV6_HEADER..]);
        repr.emit(&target, &asker, &mut icmp, &ChecksumCapabilities::default());
        self.output_to(ifindex, asker.into(), packet);
    }

    fn send_waiting(&mut self, ifindex: u32, mac: MacAddr, packets: Vec<Frame>) {
        for packet in packets {
            self.output_ethernet(ifindex, mac, packet);
        }
    }
}

/// How long the engine ran until a moment.
pub(crate) fn since_start(at: Instant) -> std::time::Duration {
    std::time::Duration::from_micros(at.total_micros().max(0) as u64)
}

fn ethernet(mac: MacAddr) -> EthernetAddress {
    EthernetAddress(mac.0)
}

/// An option's address, when it can be a neighbour's.
fn mac_of(raw: RawHardwareAddress) -> Option<MacAddr> {
    let mac = MacAddr(raw.as_bytes().get(..6)?.try_into().ok()?);
    mac.is_unicast().then_some(mac)
}

/// Takes the tags out that tell a priority alone (IEEE 802.1Q-2018 §6.9.1: the VLAN's number is 0), as Linux does: the type of what is behind
/// them. A frame of a VLAN keeps its tag, and is nobody's here.
#[cold]
pub(crate) fn behind_priority(frame: &mut Frame, ethertype: u16) -> u16 {
    /// Priority and VLAN, and the type that follows.
    const TAG: usize = 4;
    let mut ethertype = ethertype;
    // A customer's behind a provider's; Linux takes out more, which nobody sends.
    for _ in 0..2 {
        let (ETHERTYPE_VLAN | ETHERTYPE_SERVICE, Some(&[high, low, next @ ..])) =
            (ethertype, frame.first_chunk::<TAG>())
        else {
            break;
        };
        if high & 0x0f != 0 || low != 0 {
            break;
        }
        ethertype = u16::from_be_bytes(next);
        frame.pull_front(TAG);
    }
    ethertype
}
