//! What the links hear of the node's memberships, so that switches and routers bring the groups' packets.
//!
//! Read first: RFC 3376 (IGMPv3), RFC 2236 (IGMPv2), RFC 3810 (MLDv2), RFC 2710 (MLD).
//!
//! [`Reports`] is sans-IO: it is told of changes and queries, and says what is to be reported when. A group has an entry only
//! while something about it is to be said. The node speaks the newest version unless a router asks in an older one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ioth_vde::Frame;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::IpProtocol;

use super::iface::LOOPBACK;
use super::multicast::is_node_local;
use super::net::Net;
use super::offload;
use super::random::Random;
use super::tables::group_mac;
use super::wire::{self, IPV4_HEADER, IPV6_HEADER, IpAttrs, IpHeader};

/// RFC 3376 §8.11, RFC 3810 §9.11: Unsolicited Report Interval.
const UNSOLICITED_INTERVAL: Duration = Duration::from_secs(1);
/// RFC 3376 §8.1, RFC 3810 §9.1: Robustness Variable; so often is a change told.
const ROBUSTNESS: u8 = 2;
/// RFC 3376 §8.12, RFC 3810 §9.12: how long a router of an older version is remembered.
const OLDER_VERSION_QUERIER_PRESENT: Duration = Duration::from_secs(2 * 125 + 10);
/// RFC 2236 §4: a version 1 query has no time in it.
const V1_MAX_RESPONSE: Duration = Duration::from_secs(10);
/// Groups about which something is to be said at most. What is beyond is said when a router asks.
const MAX_PENDING: usize = 16_384;

const IGMP_QUERY: u8 = 0x11;
const IGMPV1_REPORT: u8 = 0x12;
const IGMPV2_REPORT: u8 = 0x16;
const IGMPV2_LEAVE: u8 = 0x17;
const IGMPV3_REPORT: u8 = 0x22;
/// ICMPv6 types.
pub(crate) const MLD_QUERY: u8 = 130;
pub(crate) const MLDV1_REPORT: u8 = 131;
const MLDV1_DONE: u8 = 132;
const MLDV2_REPORT: u8 = 143;

const ALL_NODES_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const ALL_ROUTERS_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
/// RFC 3376 §4.2.14
const IGMPV3_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);
const ALL_NODES_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// RFC 3810 §5.2.14
const MLDV2_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);

/// What is to be said of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// A router asked: the node listens.
    Present,
    /// The node has begun to listen.
    Joined,
    /// It has ended.
    Left,
}

impl Said {
    /// The record type of RFC 3376 §4.2.12 and RFC 3810 §5.2.12: membership here is of any source.
    fn record(self) -> u8 {
        const MODE_IS_EXCLUDE: u8 = 2;
        const CHANGE_TO_INCLUDE: u8 = 3;
        const CHANGE_TO_EXCLUDE: u8 = 4;
        match self {
            Said::Present => MODE_IS_EXCLUDE,
            Said::Joined => CHANGE_TO_EXCLUDE,
            Said::Left => CHANGE_TO_INCLUDE,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    due: Instant,
    said: Said,
    /// How often yet, this time included.
    times: u8,
}

/// A router that speaks an older version.
#[derive(Clone, Copy, Debug)]
struct OldQuerier {
    version: u8,
    until: Instant,
}

/// What is to be reported, and when.
#[derive(Debug)]
pub(crate) struct Reports {
    pending: HashMap<(u32, IpAddr), Pending, FixedState>,
    /// By interface, and whether for IPv6.
    old: HashMap<(u32, bool), OldQuerier, FixedState>,
    next: Option<Instant>,
}

impl Reports {
    pub(crate) fn new(seed: u64) -> Self {
        Reports {
            pending: HashMap::with_hasher(FixedState::with_seed(seed)),
            old: HashMap::with_hasher(FixedState::with_seed(seed)),
            next: None,
        }
    }

    /// The node began or ended to listen.
    pub(crate) fn changed(&mut self, now: Instant, ifindex: u32, group: IpAddr, joined: bool) {
        if is_reported(ifindex, group) {
            let said = if joined { Said::Joined } else { Said::Left };
            self.say((ifindex, group), Pending { due: now, said, times: ROBUSTNESS });
        }
    }

    /// A router asked for a group that the node listens to; the answer is due within `delay`.
    pub(crate) fn asked(
        &mut self,
        now: Instant,
        ifindex: u32,
        group: IpAddr,
        delay: Duration,
        random: &mut Random,
    ) {
        if !is_reported(ifindex, group) {
            return;
        }
        let due = now + Duration::from_micros(random.below(delay.total_micros() as usize + 1) as u64);
        match self.pending.get(&(ifindex, group)) {
            // What is said of a change anyway is an answer, too; an answer that is due earlier stays.
            Some(pending) if pending.said != Said::Left && pending.due <= due => {}
            Some(pending) if pending.said == Said::Joined => {
                let sooner = Pending { due, ..*pending };
                self.say((ifindex, group), sooner);
            }
            _ => self.say((ifindex, group), Pending { due, said: Said::Present, times: 1 }),
        }
    }

    /// RFC 2236 §3, RFC 2710 §4: another host reported the group, which is enough for a router of an older version.
    pub(crate) fn overheard(&mut self, ifindex: u32, group: IpAddr) {
        if self.pending.get(&(ifindex, group)).is_some_and(|pending| pending.said == Said::Present) {
            self.pending.remove(&(ifindex, group));
        }
    }

    /// A router asked in an older version.
    pub(crate) fn heard_version(&mut self, now: Instant, ifindex: u32, v6: bool, version: u8) {
        let until = now + OLDER_VERSION_QUERIER_PRESENT;
        let old = self.old.entry((ifindex, v6)).or_insert(OldQuerier { version, until });
        if old.until < now || version <= old.version {
            *old = OldQuerier { version, until };
        }
    }

    /// The version to speak on an interface: 1 to 3 of IGMP, 1 or 2 of MLD.
    fn version(&self, now: Instant, ifindex: u32, v6: bool) -> u8 {
        let old = self.old.get(&(ifindex, v6)).filter(|old| old.until >= now);
        old.map_or(if v6 { 2 } else { 3 }, |old| old.version)
    }

    /// What is due, by interface and group.
    pub(crate) fn due(&mut self, now: Instant, random: &mut Random) -> Vec<(u32, IpAddr, Said)> {
        if self.next.is_none_or(|next| now < next) {
            return Vec::new();
        }
        let mut due = Vec::new();
        self.pending.retain(|(ifindex, group), pending| {
            if pending.due > now {
                return true;
            }
            due.push((*ifindex, *group, pending.said));
            pending.times -= 1;
            let interval = UNSOLICITED_INTERVAL.total_micros() as usize;
            pending.due = now + Duration::from_micros(1 + random.below(interval) as u64);
            pending.times > 0
        });
        self.next = self.pending.values().map(|pending| pending.due).min();
        due.sort_unstable_by_key(|(ifindex, group, _)| (*ifindex, *group));
        due
    }

    /// When [`due`](Self::due) has something.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Groups about which something is to be said.
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    fn say(&mut self, key: (u32, IpAddr), pending: Pending) {
        if self.pending.len() >= MAX_PENDING && !self.pending.contains_key(&key) {
            return;
        }
        self.next = Some(self.next.map_or(pending.due, |next| next.min(pending.due)));
        self.pending.insert(key, pending);
    }
}

/// RFC 3376 §6, RFC 3810 §6: never for all nodes; RFC 2710 §5: nor for what stays within the node.
fn is_reported(ifindex: u32, group: IpAddr) -> bool {
    ifindex != LOOPBACK
        && match group {
            IpAddr::V4(group) => group != ALL_NODES_V4,
            IpAddr::V6(group) => group != ALL_NODES_V6 && !is_node_local(group),
        }
}

impl Net {
    /// Reports what changed and what was asked for.
    pub(crate) fn poll_groups(&mut self) {
        for (ifindex, group, joined) in self.tables.take_group_changes() {
            if self.tables.iface(ifindex).is_some_and(|iface| iface.is_up()) {
                self.reports.changed(self.now, ifindex, group, joined);
            }
        }
        let due = self.reports.due(self.now, &mut self.random);
        for of_iface in due.chunk_by(|a, b| a.0 == b.0 && a.1.is_ipv4() == b.1.is_ipv4()) {
            let (ifindex, v6) = (of_iface[0].0, of_iface[0].1.is_ipv6());
            let Some(mtu) = self.tables.iface(ifindex).filter(|iface| iface.is_up()).map(|iface| iface.mtu())
            else {
                continue;
            };
            match self.reports.version(self.now, ifindex, v6) {
                3 => self.send_igmpv3(ifindex, mtu, of_iface),
                2 if v6 => self.send_mldv2(ifindex, mtu, of_iface),
                version => {
                    for (_, group, said) in of_iface {
                        self.send_older(ifindex, *group, *said, version);
                    }
                }
            }
        }
    }

    /// An IGMP message arrived (RFC 3376 §4, RFC 2236 §2).
    pub(crate) fn input_igmp(&mut self, ifindex: u32, header: &IpHeader, packet: &[u8]) {
        let message = &packet[header.payload_at..header.total_len];
        let &[kind, code, _, _, a, b, c, d, ..] = message else {
            self.drops.malformed += 1;
            return;
        };
        if wire::checksum(0, message) != 0xffff {
            self.drops.checksum += 1;
            return;
        }
        let group = Ipv4Addr::new(a, b, c, d);
        match kind {
            IGMP_QUERY => {
                let tenths = |code: u64| Duration::from_millis(100 * code);
                // RFC 3376 §7.1: the versions are told apart by their lengths.
                let (version, delay) = match (message.len(), code) {
                    (8..12, 0) => (1, V1_MAX_RESPONSE),
                    (8..12, code) => (2, tenths(code.into())),
                    (_, code) => (3, tenths(float(code.into(), 7, 4))),
                };
                self.query(ifindex, group.into(), version, delay);
            }
            // RFC 2236 §9: a report goes to its group. One that came to us alone is not what a router hears.
            IGMPV1_REPORT | IGMPV2_REPORT if header.dst == IpAddr::V4(group) => {
                self.reports.overheard(ifindex, group.into());
            }
            _ => {}
        }
    }

    /// An MLD query or report arrived, its checksum verified (RFC 3810 §5.1, RFC 2710 §3).
    pub(crate) fn input_mld(&mut self, ifindex: u32, header: &IpHeader, packet: &[u8]) {
        let message = &packet[header.payload_at..header.total_len];
        let (Some(&[kind, _, _, _, high, low]), Some(group)) = (
            message.first_chunk::<6>(),
            message.get(8..24).and_then(|group| <[u8; 16]>::try_from(group).ok()).map(Ipv6Addr::from),
        ) else {
            self.drops.malformed += 1;
            return;
        };
        // RFC 3810 §6.2: "the source address is a link-local address, the Hop Limit is 1".
        let near = matches!(header.src, IpAddr::V6(src) if src.is_unicast_link_local());
        if kind == MLD_QUERY && !(near && header.hop_limit == 1) {
            self.drops.martian += 1;
            return;
        }
        match kind {
            MLD_QUERY => {
                let code = u64::from(u16::from_be_bytes([high, low]));
                // RFC 3810 §8.1
                let (version, millis) = match message.len() {
                    ..28 => (1, code),
                    _ => (2, float(code, 15, 12)),
                };
                self.query(ifindex, group.into(), version, Duration::from_millis(millis));
            }
            // RFC 2710 §3, §5: of a neighbour, and to its group.
            _ if near && header.hop_limit == 1 && header.dst == IpAddr::V6(group) => {
                self.reports.overheard(ifindex, group.into());
            }
            _ => {}
        }
    }

    /// A router asks for one group or, with the unspecified address, for all.
    fn query(&mut self, ifindex: u32, asked: IpAddr, version: u8, delay: Duration) {
        let v6 = asked.is_ipv6();
        if version < if v6 { 2 } else { 3 } {
            self.reports.heard_version(self.now, ifindex, v6, version);
        }
        let wanted = |group: &IpAddr| group.is_ipv6() == v6 && (asked.is_unspecified() || *group == asked);
        let groups: Vec<_> = self.tables.groups(ifindex).filter(wanted).collect();
        for group in groups {
            self.reports.asked(self.now, ifindex, group, delay, &mut self.random);
        }
    }

    /// RFC 3376 §4.2: a record of each group, and as many messages as it takes.
    fn send_igmpv3(&mut self, ifindex: u32, mtu: usize, groups: &[(u32, IpAddr, Said)]) {
        const RECORD: usize = 8;
        let most = (mtu.saturating_sub(IPV4_HEADER + 4 + 8) / RECORD).max(1);
        for groups in groups.chunks(most) {
            let mut message = vec![0; 8 + RECORD * groups.len()];
            message[0] = IGMPV3_REPORT;
            message[6..8].copy_from_slice(&(groups.len() as u16).to_be_bytes());
            for (record, (_, group, said)) in message[8..].chunks_exact_mut(RECORD).zip(groups) {
                record[0] = said.record();
                if let IpAddr::V4(group) = group {
                    record[4..].copy_from_slice(&group.octets());
                }
            }
            self.send_igmp(ifindex, IGMPV3_ROUTERS, message);
        }
    }

    /// RFC 3810 §5.2.
    fn send_mldv2(&mut self, ifindex: u32, mtu: usize, groups: &[(u32, IpAddr, Said)]) {
        const RECORD: usize = 20;
        let most = (mtu.saturating_sub(IPV6_HEADER + 8 + 8) / RECORD).max(1);
        for groups in groups.chunks(most) {
            let mut message = vec![0; 8 + RECORD * groups.len()];
            message[0] = MLDV2_REPORT;
            message[6..8].copy_from_slice(&(groups.len() as u16).to_be_bytes());
            for (record, (_, group, said)) in message[8..].chunks_exact_mut(RECORD).zip(groups) {
                record[0] = said.record();
                if let IpAddr::V6(group) = group {
                    record[4..].copy_from_slice(&group.octets());
                }
            }
            self.send_mld(ifindex, MLDV2_ROUTERS, &message);
        }
    }

    /// A message of IGMPv1, IGMPv2 (RFC 2236 §2) or MLDv1 (RFC 2710 §3), which are about one group each.
    fn send_older(&mut self, ifindex: u32, group: IpAddr, said: Said, version: u8) {
        match group {
            IpAddr::V4(group) => {
                let (kind, to) = match (said, version) {
                    // Version 1 does not tell the end.
                    (Said::Left, 1) => return,
                    (Said::Left, _) => (IGMPV2_LEAVE, ALL_ROUTERS_V4),
                    (_, 1) => (IGMPV1_REPORT, group),
                    _ => (IGMPV2_REPORT, group),
                };
                let [a, b, c, d] = group.octets();
                self.send_igmp(ifindex, to, vec![kind, 0, 0, 0, a, b, c, d]);
            }
            IpAddr::V6(group) => {
                let (kind, to) = match said {
                    Said::Left => (MLDV1_DONE, ALL_ROUTERS_V6),
                    _ => (MLDV1_REPORT, group),
                };
                let mut message = [0; 24];
                message[0] = kind;
                message[8..].copy_from_slice(&group.octets());
                self.send_mld(ifindex, to, &message);
            }
        }
    }

    fn send_igmp(&mut self, ifindex: u32, to: Ipv4Addr, mut message: Vec<u8>) {
        /// RFC 2113: every router looks into it.
        const ROUTER_ALERT: [u8; 4] = [0x94, 4, 0, 0];
        /// RFC 3376 §4: "Internetwork Control".
        const PRECEDENCE: u8 = 0xc0;
        let sum = !wire::checksum(0, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let source = self.answering(ifindex, to.into(), to.into());
        let front = IPV4_HEADER + ROUTER_ALERT.len();
        let mut packet = Frame::new(front + message.len());
        let attrs = IpAttrs { traffic_class: PRECEDENCE, ..IpAttrs::new(IpProtocol::Igmp, 1) };
        wire::emit_ip(&mut packet, source, to.into(), attrs);
        packet[0] = 0x46;
        packet[IPV4_HEADER..front].copy_from_slice(&ROUTER_ALERT);
        packet[front..].copy_from_slice(&message);
        wire::fill_ipv4_checksum(&mut packet);
        self.output_ethernet(ifindex, group_mac(to.into()), packet);
    }

    fn send_mld(&mut self, ifindex: u32, to: Ipv6Addr, message: &[u8]) {
        /// RFC 2711 in a hop-by-hop header, padded.
        const ROUTER_ALERT: [u8; 8] = [58, 0, 5, 2, 0, 0, 1, 0];
        // RFC 3590: "If there is no valid link-local address, the unspecified address is used".
        let link_local = self.tables.iface(ifindex).and_then(|iface| {
            let speaks = |addr: &&super::addr::Addr| {
                super::addr::is_link_local(addr.local()) && addr.state() == super::addr::AddrState::Preferred
            };
            iface.addrs().iter().find(speaks).map(|addr| addr.local())
        });
        let source = link_local.unwrap_or(Ipv6Addr::UNSPECIFIED.into());
        let front = IPV6_HEADER + ROUTER_ALERT.len();
        let mut packet = Frame::new(front + message.len());
        wire::emit_ip(&mut packet, source, to.into(), IpAttrs::new(IpProtocol::HopByHop, 1));
        packet[IPV6_HEADER..front].copy_from_slice(&ROUTER_ALERT);
        packet[front..].copy_from_slice(message);
        offload::fill_checksums(&mut packet);
        self.output_ethernet(ifindex, group_mac(to.into()), packet);
    }
}

/// RFC 3376 §4.1.1, RFC 3810 §5.1.3: above `1 << bits` a code is an exponent of three bits and a mantissa.
fn float(code: u64, bits: u32, mantissa_bits: u32) -> u64 {
    if code < 1 << bits {
        return code;
    }
    let mantissa = code & ((1 << mantissa_bits) - 1) | 1 << mantissa_bits;
    let exponent = code >> mantissa_bits & 7;
    mantissa << (exponent + 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(239, 1, 2, 3));

    fn at(ms: i64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn a_change_is_told_twice() {
        let (mut reports, mut random) = (Reports::new(1), Random::new([1; 32]));
        reports.changed(at(0), 2, GROUP, true);
        assert_eq!(reports.due(at(0), &mut random), [(2, GROUP, Said::Joined)]);
        let again = reports.next_deadline().unwrap();
        assert!(again > at(0) && again <= at(1001));
        assert_eq!(reports.due(again, &mut random), [(2, GROUP, Said::Joined)]);
        assert_eq!(reports.next_deadline(), None);
        assert!(reports.pending.is_empty());
        // The end, before the beginning was told again.
        reports.changed(at(5000), 2, GROUP, true);
        reports.due(at(5000), &mut random);
        reports.changed(at(5001), 2, GROUP, false);
        assert_eq!(reports.due(at(5001), &mut random), [(2, GROUP, Said::Left)]);
    }

    #[test]
    fn an_answer_is_delayed_and_may_be_spared() {
        let (mut reports, mut random) = (Reports::new(1), Random::new([1; 32]));
        reports.asked(at(0), 2, GROUP, Duration::from_secs(10), &mut random);
        let due = reports.next_deadline().unwrap();
        assert!(due <= at(10_000));
        reports.asked(at(0), 2, GROUP, Duration::from_secs(10), &mut random);
        assert!(reports.next_deadline().unwrap() <= due);
        reports.overheard(2, GROUP);
        assert!(reports.due(at(10_000), &mut random).is_empty());
        // Nothing is said of these.
        reports.asked(at(0), LOOPBACK, GROUP, Duration::ZERO, &mut random);
        reports.asked(at(0), 2, ALL_NODES_V4.into(), Duration::ZERO, &mut random);
        reports.changed(at(0), 2, "ff01::5".parse().unwrap(), true);
        assert!(reports.pending.is_empty());
    }

    #[test]
    fn an_older_router_is_remembered_for_a_while() {
        let mut reports = Reports::new(1);
        assert_eq!((reports.version(at(0), 2, false), reports.version(at(0), 2, true)), (3, 2));
        reports.heard_version(at(0), 2, false, 1);
        reports.heard_version(at(1000), 2, false, 2);
        assert_eq!(reports.version(at(1000), 2, false), 1, "the oldest one");
        assert_eq!(reports.version(at(1000), 3, false), 3);
        assert_eq!(reports.version(at(300_000), 2, false), 3);
    }

    #[test]
    fn codes_of_time() {
        assert_eq!((float(127, 7, 4), float(128, 7, 4), float(255, 7, 4)), (127, 128, 31_744));
        assert_eq!((float(32_767, 15, 12), float(32_768, 15, 12)), (32_767, 32_768));
    }
}
