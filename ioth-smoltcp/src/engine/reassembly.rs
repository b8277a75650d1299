//! Packets that arrive in pieces (RFC 791 §3.2, RFC 8200 §4.5, RFC 5722, RFC 6946).
//!
//! Sans-IO: [`Reassembly::insert`] takes a piece and gives the packet when it is whole, [`Reassembly::poll`] gives up those of
//! which a piece did not come. What waits is bounded in bytes; beyond, the oldest packet goes.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ioth_vde::{Checksum, Frame};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::IpProtocol;

use super::wire::{self, Fragment, IPV6_HEADER, IpHeader};

/// Linux's net.ipv4.ipfrag_time and net.ipv6.ip6frag_time (RFC 8200 §4.5).
const V4_TIME: Duration = Duration::from_secs(30);
const V6_TIME: Duration = Duration::from_secs(60);
/// Bytes that may wait, their buffers counted: Linux's net.ipv4.ipfrag_high_thresh.
const MAX_BYTES: usize = 4 << 20;
/// What a piece costs at least, however short it is: the smallest buffer, and its place.
const MIN_COST: usize = 2048 + 128;
/// What a packet's length field can tell, in bytes.
const MAX_LENGTH: usize = 65_535;

/// What tells the packets apart of which pieces wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    ident: u32,
    /// Link-local addresses mean another host on each link.
    ifindex: u32,
}

/// A packet in the making.
#[derive(Debug)]
struct Assembly {
    /// By where they begin; no two overlap.
    pieces: BTreeMap<usize, Frame>,
    /// Bytes that are there.
    have: usize,
    /// Length of the whole, once its last piece came.
    total: Option<usize>,
    /// The first piece's headers, which become the packet's.
    headers: Option<Headers>,
    trusted: bool,
    cost: usize,
    serial: u64,
}

#[derive(Debug)]
struct Headers {
    /// Up to where the piece's payload begins.
    bytes: Vec<u8>,
    fragment: Fragment,
}

/// What became of a piece.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The packet is whole.
    Whole(Frame),
    /// Others are missing.
    Waiting,
    /// It overlaps another one, or makes the packet too long: all of it is dropped.
    Overlapping,
}

/// A packet of which a piece did not come in time.
#[derive(Debug)]
pub(crate) struct Expired {
    pub(crate) ifindex: u32,
    /// The first piece, if that came: whom to tell, and of what.
    pub(crate) first: Option<Vec<u8>>,
}

/// The pieces that wait.
#[derive(Debug)]
pub(crate) struct Reassembly {
    waiting: HashMap<Key, Assembly, FixedState>,
    /// By when their time is over; packets that are whole by now are passed over by their serial number.
    order: [VecDeque<(Instant, u64, Key)>; 2],
    bytes: usize,
    serial: u64,
}

impl Reassembly {
    pub(crate) fn new(seed: u64) -> Self {
        Reassembly {
            waiting: HashMap::with_hasher(FixedState::with_seed(seed)),
            order: [VecDeque::new(), VecDeque::new()],
            bytes: 0,
            serial: 0,
        }
    }

    /// A piece arrived: a packet whose `header` says which one.
    pub(crate) fn insert(
        &mut self,
        now: Instant,
        ifindex: u32,
        header: &IpHeader,
        fragment: Fragment,
        (start, end): (usize, usize),
        packet: Frame,
    ) -> Outcome {
        let key = key(ifindex, header, fragment);
        let serial = self.serial + 1;
        let assembly = self.waiting.entry(key).or_insert_with(|| Assembly::new(serial));
        if assembly.serial == serial {
            self.serial = serial;
            let v6 = header.src.is_ipv6();
            self.order[usize::from(v6)].push_back((now + if v6 { V6_TIME } else { V4_TIME }, serial, key));
        }
        let before = assembly.cost;
        let placed = assembly.place(start, end, fragment, header, packet);
        self.bytes += assembly.cost - before;
        match placed {
            Placed::Fine if assembly.is_whole() => {
                let whole = self.remove(key).and_then(Assembly::join);
                whole.map_or(Outcome::Overlapping, Outcome::Whole)
            }
            Placed::Fine => {
                self.bound(key);
                Outcome::Waiting
            }
            Placed::Known => Outcome::Waiting,
            Placed::Overlaps => {
                self.remove(key);
                Outcome::Overlapping
            }
        }
    }

    /// Gives up what waited too long.
    pub(crate) fn poll(&mut self, now: Instant, expired: &mut Vec<Expired>) {
        for version in 0..2 {
            while let Some(&(due, serial, key)) = self.order[version].front() {
                let waits = self.waiting.get(&key).is_some_and(|assembly| assembly.serial == serial);
                if waits && due > now {
                    break;
                }
                self.order[version].pop_front();
                if waits && let Some(assembly) = self.remove(key) {
                    expired.push(Expired { ifindex: key.ifindex, first: assembly.first() });
                }
            }
        }
    }

    /// When [`poll`](Self::poll) has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.order.iter().filter_map(|order| order.front()).map(|(due, ..)| *due).min()
    }

    /// Packets of which pieces are missing.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    fn remove(&mut self, key: Key) -> Option<Assembly> {
        let assembly = self.waiting.remove(&key)?;
        self.bytes -= assembly.cost;
        // Packets that became whole leave their entries behind.
        if self.waiting.is_empty() {
            self.order = [VecDeque::new(), VecDeque::new()];
        } else if self.order.iter().map(VecDeque::len).sum::<usize>() > 2 * self.waiting.len() + 64 {
            let waiting = &self.waiting;
            for order in &mut self.order {
                order.retain(|(_, serial, key)| {
                    waiting.get(key).is_some_and(|assembly| assembly.serial == *serial)
                });
            }
        }
        Some(assembly)
    }

    /// Drops the oldest packets while there is too much, `newest` last.
    fn bound(&mut self, newest: Key) {
        while self.bytes > MAX_BYTES {
            let oldest =
                (0..2).filter_map(|version| self.oldest(version, newest)).min_by_key(|(serial, _)| *serial);
            if self.remove(oldest.map_or(newest, |(_, key)| key)).is_none() {
                return;
            }
        }
    }

    /// The packet of a version that waits longest, `newest` left out. What no longer waits is taken from the front of
    /// the order, so that a flood does not look at it again with each piece.
    fn oldest(&mut self, version: usize, newest: Key) -> Option<(u64, Key)> {
        let order = &mut self.order[version];
        let mut left_out = None;
        let oldest = loop {
            let Some(&entry) = order.front() else { break None };
            let (_, serial, key) = entry;
            let waits = self.waiting.get(&key).is_some_and(|assembly| assembly.serial == serial);
            if waits && key != newest {
                break Some((serial, key));
            }
            order.pop_front();
            if waits {
                left_out = Some(entry);
            }
        };
        if let Some(entry) = left_out {
            order.push_front(entry);
        }
        oldest
    }
}

/// What became of a piece within its packet.
enum Placed {
    Fine,
    /// All of it was there already.
    Known,
    Overlaps,
}

impl Assembly {
    fn new(serial: u64) -> Self {
        Assembly {
            pieces: BTreeMap::new(),
            have: 0,
            total: None,
            headers: None,
            trusted: true,
            cost: 0,
            serial,
        }
    }

    fn place(
        &mut self,
        start: usize,
        end: usize,
        fragment: Fragment,
        header: &IpHeader,
        mut packet: Frame,
    ) -> Placed {
        // Linux: "If we already have some bits beyond end or have different end, the segment is corrupted."
        let furthest = self.pieces.last_key_value().map_or(0, |(at, piece)| at + piece.len());
        let lies = match (self.total, fragment.more) {
            (Some(total), true) => end > total,
            (Some(total), false) => end != total,
            (None, true) => false,
            (None, false) => end < furthest,
        };
        if lies {
            return Placed::Overlaps;
        }
        let before = self.pieces.range(..=start).next_back().map(|(at, piece)| at + piece.len());
        if before.is_some_and(|before| end <= before) {
            return Placed::Known;
        }
        // RFC 5722 §3: "the entire datagram (and any constituent fragments) MUST be silently discarded"; Linux has
        // the same for IPv4.
        let behind = self.pieces.range(start..).next().map(|(at, _)| *at);
        if before.is_some_and(|before| start < before) || behind.is_some_and(|behind| end > behind) {
            return Placed::Overlaps;
        }
        if !fragment.more {
            self.total = Some(end);
        }
        if start == 0 {
            self.headers = Some(Headers { bytes: packet[..header.payload_at].to_vec(), fragment });
        }
        packet.pull_front(header.payload_at);
        packet.truncate(end - start);
        self.trusted &= packet.checksum == Checksum::Trusted;
        self.have += packet.len();
        self.cost += packet.len().max(MIN_COST);
        self.pieces.insert(start, packet);
        Placed::Fine
    }

    fn is_whole(&self) -> bool {
        self.total == Some(self.have) && self.headers.is_some()
    }

    /// The packet as it was before it was cut. None when it is longer than a packet can be.
    fn join(self) -> Option<Frame> {
        let Headers { bytes, fragment } = self.headers?;
        let ipv4 = bytes[0] >> 4 == 4;
        // IPv6's fragment header was not there.
        let front = if ipv4 { bytes.len() } else { fragment.header_at };
        let len = front + self.have;
        let counted = if ipv4 { len } else { len - IPV6_HEADER };
        if counted > MAX_LENGTH {
            return None;
        }
        let mut packet = Frame::new(len);
        packet[..front].copy_from_slice(&bytes[..front]);
        for (at, piece) in &self.pieces {
            packet[front + at..front + at + piece.len()].copy_from_slice(piece);
        }
        if ipv4 {
            packet[2..4].copy_from_slice(&(counted as u16).to_be_bytes());
            packet[6..8].fill(0);
            wire::fill_ipv4_checksum(&mut packet);
        } else {
            packet[4..6].copy_from_slice(&(counted as u16).to_be_bytes());
            packet[fragment.field_at] = bytes[fragment.header_at];
        }
        packet.checksum = if self.trusted { Checksum::Trusted } else { Checksum::Present };
        Some(packet)
    }

    fn first(mut self) -> Option<Vec<u8>> {
        let mut packet = self.headers?.bytes;
        packet.extend_from_slice(&self.pieces.remove(&0)?);
        Some(packet)
    }
}

/// Where a piece begins and ends.
///
/// # Errors
/// It cannot be a piece; the offset is of the field that is wrong, where IPv6 has its sender told.
pub(crate) fn bounds(header: &IpHeader, fragment: Fragment) -> Result<(usize, usize), Option<u32>> {
    let ipv4 = header.src.is_ipv4();
    let mut len = header.total_len - header.payload_at;
    if fragment.more && !len.is_multiple_of(8) {
        if !ipv4 {
            // RFC 8200 §4.5: "the Payload Length field of the fragment packet".
            return Err(Some(4));
        }
        len -= len % 8;
    }
    if len == 0 {
        return Err(None);
    }
    let end = fragment.offset + len;
    let before = if ipv4 { header.payload_at } else { fragment.header_at - IPV6_HEADER };
    if before + end > MAX_LENGTH {
        // RFC 8200 §4.5: "the Fragment Offset field of the fragment packet".
        return Err((!ipv4).then_some(fragment.header_at as u32 + 2));
    }
    Ok((fragment.offset, end))
}

fn key(ifindex: u32, header: &IpHeader, fragment: Fragment) -> Key {
    // RFC 8200 §4.5 does not ask for the next header to be the same.
    let protocol = if header.src.is_ipv4() { header.protocol } else { IpProtocol::Ipv6Frag };
    Key { src: header.src, dst: header.dst, protocol: protocol.into(), ident: fragment.ident, ifindex }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fragment::split;
    use crate::engine::wire::{IpAttrs, emit_ip, ip_header_len, parse_ip};
    use proptest::prelude::*;

    fn whole(v6: bool, len: usize) -> Vec<u8> {
        let (src, dst): (IpAddr, IpAddr) = if v6 {
            ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap())
        } else {
            ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap())
        };
        let ip = ip_header_len(src);
        let mut packet = vec![0; ip + len];
        for (i, byte) in packet[ip..].iter_mut().enumerate() {
            *byte = (i * 7) as u8;
        }
        let attrs = IpAttrs { dont_fragment: false, ..IpAttrs::new(IpProtocol::Udp, 9) };
        emit_ip(&mut packet, src, dst, attrs);
        packet
    }

    fn insert(table: &mut Reassembly, now: i64, packet: &[u8]) -> Outcome {
        let header = parse_ip(packet, true).unwrap();
        let fragment = header.fragment.expect("a fragment");
        let bounds = bounds(&header, fragment).unwrap();
        table.insert(Instant::from_secs(now), 2, &header, fragment, bounds, Frame::copy_of(packet))
    }

    /// Like the packet that was cut; IPv4's identification was given to it while it was.
    fn assert_same(got: &[u8], sent: &[u8]) {
        let (got, sent) = (&mut got.to_vec(), &mut sent.to_vec());
        if got[0] >> 4 == 4 {
            for packet in [&mut *got, &mut *sent] {
                packet[4..6].fill(0);
                packet[10..12].fill(0);
            }
        }
        assert_eq!(got, sent);
    }

    proptest! {
        #[test]
        fn any_order_and_duplicates(v6: bool, len in 3000usize..20_000, mtu in 1280usize..1600, order in proptest::collection::vec(any::<prop::sample::Index>(), 0..40)) {
            let packet = whole(v6, len);
            let pieces = split(&packet, mtu, 77);
            let mut table = Reassembly::new(1);
            let mut left: Vec<_> = (0..pieces.len()).collect();
            let mut got = None;
            for index in order {
                if left.len() <= 1 { break; }
                let next = *index.get(&left);
                // One that came before comes again.
                if let Some(again) = (0..pieces.len()).find(|i| !left.contains(i)) {
                    prop_assert!(matches!(insert(&mut table, 0, &pieces[again]), Outcome::Waiting));
                }
                left.retain(|i| *i != next);
                prop_assert!(matches!(insert(&mut table, 0, &pieces[next]), Outcome::Waiting));
            }
            for next in left {
                if let Outcome::Whole(frame) = insert(&mut table, 0, &pieces[next]) {
                    got = Some(frame);
                }
            }
            assert_same(&got.expect("the last piece completes it"), &packet);
            prop_assert_eq!((table.bytes, table.waiting.len(), table.next_deadline()), (0, 0, None));
        }

        #[test]
        fn any_pieces_do_no_harm(v6: bool, pieces in proptest::collection::vec((0usize..70_000, 0usize..600, any::<bool>(), 0u32..3), 1..200)) {
            let mut table = Reassembly::new(1);
            let packet = whole(v6, 608);
            let mut header = parse_ip(&packet, false).unwrap();
            let ip = header.payload_at;
            // IPv6 has a header that says what piece it is.
            header.payload_at += if v6 { 8 } else { 0 };
            for (second, (offset, len, more, ident)) in pieces.into_iter().enumerate() {
                header.total_len = header.payload_at + len;
                let fragment = Fragment { ident, offset: offset & !7 & 0xffff, more, field_at: if v6 { 6 } else { 9 }, header_at: ip };
                let Ok(bounds) = bounds(&header, fragment) else { continue };
                let outcome = table.insert(Instant::from_secs(second as i64), 2, &header, fragment, bounds, Frame::copy_of(&packet));
                if let Outcome::Whole(frame) = outcome {
                    prop_assert!(frame.len() <= MAX_LENGTH + IPV6_HEADER);
                }
                let cost: usize = table.waiting.values().map(|assembly| assembly.cost).sum();
                prop_assert_eq!(table.bytes, cost);
                table.poll(Instant::from_secs(second as i64), &mut Vec::new());
            }
            let mut expired = Vec::new();
            table.poll(Instant::from_secs(1000), &mut expired);
            prop_assert_eq!((table.bytes, table.waiting.len(), table.next_deadline()), (0, 0, None));
        }
    }

    #[test]
    fn overlaps_end_the_packet() {
        for v6 in [false, true] {
            let pieces = split(&whole(v6, 4000), 1280, 1);
            let wide = split(&whole(v6, 4000), 1400, 1);
            let mut table = Reassembly::new(1);
            assert!(matches!(insert(&mut table, 0, &pieces[0]), Outcome::Waiting));
            assert!(matches!(insert(&mut table, 0, &wide[0]), Outcome::Overlapping));
            assert_eq!((table.bytes, table.waiting.len()), (0, 0));
            // Another end than the last piece had.
            let last = split(&whole(v6, 4000), 1280, 1).pop().unwrap();
            let other = split(&whole(v6, 3900), 1280, 1).pop().unwrap();
            assert!(matches!(insert(&mut table, 0, &last), Outcome::Waiting));
            assert!(matches!(insert(&mut table, 0, &other), Outcome::Overlapping));
        }
    }

    #[test]
    fn time_is_up() {
        for (v6, seconds) in [(false, 30), (true, 60)] {
            let pieces = split(&whole(v6, 4000), 1280, 1);
            let mut table = Reassembly::new(1);
            insert(&mut table, 0, &pieces[0]);
            insert(&mut table, 5, &pieces[1]);
            let mut expired = Vec::new();
            table.poll(Instant::from_secs(seconds - 1), &mut expired);
            assert!(expired.is_empty());
            assert_eq!(table.next_deadline(), Some(Instant::from_secs(seconds)));
            table.poll(Instant::from_secs(seconds), &mut expired);
            assert_eq!(expired.len(), 1);
            assert_eq!(expired[0].first.as_deref(), Some(&pieces[0][..]));
            assert_eq!(table.next_deadline(), None);
        }
    }

    #[test]
    fn a_flood_is_bounded_and_the_oldest_goes() {
        let mut table = Reassembly::new(1);
        for ident in 0..20_000 {
            let pieces = split(&whole(true, 2000), 1280, ident);
            insert(&mut table, 0, &pieces[0]);
            assert!(table.bytes <= MAX_BYTES);
        }
        let pieces = split(&whole(true, 2000), 1280, 19_999);
        assert!(matches!(insert(&mut table, 0, &pieces[1]), Outcome::Whole(_)));
        assert!(table.order[1].len() <= 2 * table.waiting.len() + 65);
    }

    #[test]
    fn the_oldest_of_both_versions_goes_and_the_newest_stays() {
        let mut table = Reassembly::new(1);
        let first = split(&whole(false, 2000), 1280, 1);
        insert(&mut table, 0, &first[0]);
        let most = MAX_BYTES / MIN_COST;
        for ident in 2..most as u32 {
            insert(&mut table, 0, &split(&whole(ident % 2 == 1, 2000), 1280, ident)[0]);
        }
        // Two that became whole leave their entries behind.
        for ident in [2, 3] {
            let last = &split(&whole(ident % 2 == 1, 2000), 1280, ident)[1];
            assert!(matches!(insert(&mut table, 0, last), Outcome::Whole(_)));
        }
        for ident in 0..3 {
            insert(&mut table, 0, &split(&whole(true, 2000), 1280, 1_000_000 + ident)[0]);
        }
        assert_eq!((table.bytes, table.len()), (most * MIN_COST, most));
        // The oldest gets one more piece and stays; those that came after it go, of either version.
        let long = split(&whole(false, 9000), 1280, 1);
        for (piece, gone) in [(2, 4u32), (3, 5), (4, 6)] {
            let there = |table: &Reassembly, ident| table.waiting.keys().any(|key| key.ident == ident);
            assert!(there(&table, gone));
            insert(&mut table, 0, &long[piece]);
            assert!(there(&table, 1) && !there(&table, gone) && there(&table, gone + 1));
            assert_eq!((table.bytes, table.len()), (most * MIN_COST, most - (gone as usize - 3)));
        }
        // Entries are passed over once.
        assert!(table.order.iter().map(VecDeque::len).sum::<usize>() <= table.len() + 2);
    }
}
