//! Options of IPv4's header (RFC 791 §3.1, RFC 2113, ip(7)): what sockets send, and what arrives.
//!
//! ```text
//!   setsockopt(2), sendmsg(2) ─▶ IpOptions::to_send ─▶ IpOptions::put_into ─▶ a packet
//!   a packet ─▶ arrive ─▶ Received ─▶ recvmsg(2), getsockopt(2) of an accepted stream, replies
//! ```
//!
//! The rules are those of Linux's `ip_options.c`, refusals and their offsets included. A node passes nothing on, so what has a
//! source route is not for it to take (Linux's `accept_source_route`, off).

use std::net::{IpAddr, Ipv4Addr};

use ioth_core::{Errno, Result};
use ioth_vde::{Checksum, Frame};

use super::net::Net;
use super::offload;
use super::wire::{self, IPV4_HEADER, IpHeader};

/// Bytes of options at most: a header is fifteen words long at most.
pub(crate) const MAX: usize = 40;

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const RECORD_ROUTE: u8 = 7;
const TIMESTAMP: u8 = 68;
const LOOSE_ROUTE: u8 = 131;
const CIPSO: u8 = 134;
const STRICT_ROUTE: u8 = 137;
const ROUTER_ALERT: u8 = 148;

/// RFC 791, timestamp's flags.
const STAMPS: u8 = 0;
const STAMPS_AND_ADDRESSES: u8 = 1;
const STAMPS_OF_ADDRESSES: u8 = 3;

/// Options with what is known of them: Linux's `struct ip_options`. Places are counted from the first option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IpOptions {
    bytes: [u8; MAX],
    len: usize,
    /// Of a source route: where the packet goes first.
    first_hop: Option<Ipv4Addr>,
    source_route: Option<usize>,
    strict: bool,
    record_route: Option<usize>,
    timestamp: Option<usize>,
    /// What whoever sends the packet enters: their places are before the pointers already.
    record_address: bool,
    stamp_address: bool,
    stamp_time: bool,
}

/// The options of a packet that arrived, and those with which an answer goes back; none where they cannot be turned round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    options: IpOptions,
    pub(crate) reply: Option<IpOptions>,
}

/// What is done with options while they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// They are to be sent.
    ToSend,
    /// They arrive: this address and time are entered.
    Arriving(Ipv4Addr, [u8; 4]),
    /// They have arrived.
    Arrived,
}

/// Reads the options of a packet that arrives, and enters the node's address and time where they ask for it.
///
/// # Errors
/// The offset in the packet of what is wrong, which its sender is told (RFC 792: a parameter problem).
pub(crate) fn arrive(
    net: &Net,
    header: &IpHeader,
    packet: &mut [u8],
    local: IpAddr,
) -> std::result::Result<Arrived, u32> {
    let local = if let IpAddr::V4(local) = local { local } else { Ipv4Addr::UNSPECIFIED };
    let reading = Reading::Arriving(local, net.time_of_day());
    let options = &mut packet[IPV4_HEADER..header.payload_at];
    let read = IpOptions::read(options, reading, |addr| net.is_elsewhere(addr));
    let read = read.map_err(|at| (IPV4_HEADER + at) as u32)?;
    wire::fill_ipv4_checksum(packet);
    Ok(Arrived { source_route: read.source_route.is_some() })
}

/// What [`arrive`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) source_route: bool,
}

impl Received {
    /// The options of a packet that went through [`arrive`]; none if it has none.
    pub(crate) fn of(net: &Net, header: &IpHeader, packet: &[u8]) -> Option<Received> {
        if header.src.is_ipv6() || header.payload_at <= IPV4_HEADER {
            return None;
        }
        let mut bytes = [END; MAX];
        let bytes = &mut bytes[..header.payload_at - IPV4_HEADER];
        bytes.copy_from_slice(packet.get(IPV4_HEADER..header.payload_at)?);
        let elsewhere = |addr: Ipv4Addr| net.is_elsewhere(addr);
        let options = IpOptions::read(bytes, Reading::Arrived, elsewhere).ok()?;
        Some(Received { options, reply: options.turned_round(elsewhere) })
    }

    /// As they stand in the packet.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.options.bytes()
    }
}

impl IpOptions {
    const NONE: IpOptions = IpOptions {
        bytes: [END; MAX],
        len: 0,
        first_hop: None,
        source_route: None,
        strict: false,
        record_route: None,
        timestamp: None,
        record_address: false,
        stamp_address: false,
        stamp_time: false,
    };

    /// From setsockopt(2) with IP_OPTIONS, or a control message IP_RETOPTS.
    ///
    /// # Errors
    /// `EINVAL` for more than 40 bytes and for options that cannot be.
    pub(crate) fn to_send(net: &Net, value: &[u8]) -> Result<IpOptions> {
        let mut bytes = [END; MAX];
        bytes.get_mut(..value.len()).ok_or(Errno::EINVAL)?.copy_from_slice(value);
        let padded = &mut bytes[..value.len().next_multiple_of(4)];
        IpOptions::read(padded, Reading::ToSend, |addr| net.is_elsewhere(addr)).map_err(|_| Errno::EINVAL)
    }

    /// Length in the header, in bytes: a multiple of 4.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether a time of day is entered.
    pub(crate) fn wants_time(&self) -> bool {
        self.stamp_time
    }

    /// Where a packet to `destination` goes first.
    pub(crate) fn next(&self, destination: IpAddr) -> IpAddr {
        self.first_hop.map_or(destination, IpAddr::V4)
    }

    /// Whether a source route begins with a router that has to be a neighbour (RFC 791: "strict source routing").
    pub(crate) fn is_strict(&self) -> bool {
        self.strict && self.first_hop.is_some()
    }

    /// As setsockopt(2) was given them, or as recvmsg(2) gives them to be sent back: Linux's `ip_options_undo`.
    pub(crate) fn told(&self) -> Vec<u8> {
        let mut bytes = self.bytes;
        if let (Some(at), Some(hop)) = (self.source_route, self.first_hop) {
            let len = usize::from(bytes[at + 1]);
            bytes.copy_within(at + 3..at + len - 4, at + 7);
            bytes[at + 3..at + 7].copy_from_slice(&hop.octets());
        }
        if let Some(at) = self.record_route.filter(|_| self.record_address) {
            take_back(&mut bytes, at);
        }
        if let Some(at) = self.timestamp {
            if self.stamp_time {
                take_back(&mut bytes, at);
                if bytes[at + 3] & 0x0f == STAMPS_OF_ADDRESSES {
                    bytes[at + 2] = bytes[at + 2].saturating_sub(4);
                }
            }
            if self.stamp_address {
                take_back(&mut bytes, at);
            }
        }
        bytes[..self.len].to_vec()
    }

    /// Puts the options into a whole packet without any, whose destination is the last one: Linux's `ip_options_build`. The
    /// checksum of a source route's packet is that of its last destination (RFC 1122 §4.2.3.8), which no link knows: it
    /// leaves complete, if it must be in several packets.
    pub(crate) fn put_into(&self, net: &Net, mut packet: Frame) -> Vec<Frame> {
        let whole = packet[0] == 0x40 | (IPV4_HEADER / 4) as u8;
        if self.len == 0 || !whole {
            return vec![packet];
        }
        if self.first_hop.is_none() {
            return vec![self.inserted(net, &packet)];
        }
        if packet.gso_size.is_some() {
            let mut segments = offload::segment(&packet);
            segments.iter_mut().for_each(|segment| segment.gso_size = None);
            return segments.into_iter().flat_map(|segment| self.put_into(net, segment)).collect();
        }
        if packet.checksum == Checksum::Trusted {
            offload::fill_checksums(&mut packet);
        }
        vec![self.inserted(net, &packet)]
    }

    fn inserted(&self, net: &Net, packet: &Frame) -> Frame {
        let (header, payload) = packet.split_at(IPV4_HEADER);
        let behind = IPV4_HEADER + self.len;
        let mut longer = Frame::new(packet.len() + self.len);
        (longer.checksum, longer.gso_size) = (packet.checksum, packet.gso_size);
        longer[..IPV4_HEADER].copy_from_slice(header);
        longer[behind..].copy_from_slice(payload);
        longer[0] = 0x40 | (behind / 4) as u8;
        let len = (longer.len() as u16).to_be_bytes();
        longer[2..4].copy_from_slice(&len);
        let mut bytes = self.bytes;
        if let (Some(at), Some(hop)) = (self.source_route, self.first_hop) {
            let end = at + usize::from(bytes[at + 1]);
            enter(&mut bytes, end - 4, &header[16..20]);
            longer[16..20].copy_from_slice(&hop.octets());
        }
        let source = &header[12..16];
        if let Some(at) = self.record_route.filter(|_| self.record_address) {
            let place = at + usize::from(bytes[at + 2]) - 5;
            enter(&mut bytes, place, source);
        }
        if let Some(at) = self.timestamp {
            let behind = at + usize::from(bytes[at + 2]);
            if self.stamp_address {
                enter(&mut bytes, behind - 9, source);
            }
            if self.stamp_time {
                enter(&mut bytes, behind - 5, &net.time_of_day());
            }
        }
        longer[IPV4_HEADER..behind].copy_from_slice(&bytes[..self.len]);
        wire::fill_ipv4_checksum(&mut longer);
        longer
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Linux's `__ip_options_compile`. `elsewhere` tells the addresses of other hosts. The error is the place of what is wrong.
    fn read(
        bytes: &mut [u8],
        reading: Reading,
        elsewhere: impl Fn(Ipv4Addr) -> bool,
    ) -> std::result::Result<IpOptions, usize> {
        let mut found = IpOptions { len: bytes.len().min(MAX), ..IpOptions::NONE };
        let mut at = 0;
        while let Some(&kind) = bytes.get(at) {
            match kind {
                END => {
                    bytes[at..].fill(END);
                    break;
                }
                NO_OPERATION => {
                    at += 1;
                    continue;
                }
                _ => {}
            }
            let len = bytes.get(at + 1).map_or(0, |len| usize::from(*len));
            if len < 2 || at + len > bytes.len() {
                return Err(at);
            }
            let option = &mut bytes[at..at + len];
            let read = match kind {
                LOOSE_ROUTE | STRICT_ROUTE => found.read_source_route(at, option, reading),
                RECORD_ROUTE => found.read_record_route(at, option, reading),
                TIMESTAMP => found.read_timestamp(at, option, reading, &elsewhere),
                ROUTER_ALERT if len < 4 => Err(1),
                // No domain of interpretation is known, as on Linux without any.
                CIPSO => Err(if len < 8 { 1 } else { 2 }),
                _ => Ok(()),
            };
            read.map_err(|offset| at + offset)?;
            at += len;
        }
        found.bytes[..found.len].copy_from_slice(&bytes[..found.len]);
        Ok(found)
    }

    fn read_source_route(
        &mut self,
        at: usize,
        option: &mut [u8],
        reading: Reading,
    ) -> std::result::Result<(), usize> {
        let len = option.len();
        match () {
            () if len < 3 => return Err(1),
            () if option[2] < 4 => return Err(2),
            // RFC 1812 §5.2.4.1
            () if self.source_route.is_some() => return Err(0),
            () => {}
        }
        if reading == Reading::ToSend {
            if option[2] != 4 || len < 7 || !(len - 3).is_multiple_of(4) {
                return Err(1);
            }
            self.first_hop = Some(Ipv4Addr::new(option[3], option[4], option[5], option[6]));
            option.copy_within(7.., 3);
        }
        self.strict = option[0] == STRICT_ROUTE;
        self.source_route = Some(at);
        Ok(())
    }

    fn read_record_route(
        &mut self,
        at: usize,
        option: &mut [u8],
        reading: Reading,
    ) -> std::result::Result<(), usize> {
        if self.record_route.is_some() {
            return Err(0);
        }
        let len = option.len();
        let pointer = usize::from(*option.get(2).ok_or(1usize)?);
        // What has arrived was found right, and its pointer may be where too little room is left now.
        if reading != Reading::Arrived && (pointer < 4 || (pointer <= len && pointer + 3 > len)) {
            return Err(2);
        }
        if pointer <= len {
            if let Reading::Arriving(local, _) = reading {
                enter(option, pointer - 1, &local.octets());
            }
            if reading != Reading::Arrived {
                option[2] += 4;
            }
            self.record_address = true;
        }
        self.record_route = Some(at);
        Ok(())
    }

    fn read_timestamp(
        &mut self,
        at: usize,
        option: &mut [u8],
        reading: Reading,
        elsewhere: impl Fn(Ipv4Addr) -> bool,
    ) -> std::result::Result<(), usize> {
        if self.timestamp.is_some() {
            return Err(0);
        }
        let len = option.len();
        if len < 4 {
            return Err(1);
        }
        let (pointer, kind) = (usize::from(option[2]), option[3] & 0x0f);
        let room = if matches!(kind, STAMPS_AND_ADDRESSES | STAMPS_OF_ADDRESSES) { 8 } else { 4 };
        if reading != Reading::Arrived && (pointer < 5 || (pointer <= len && pointer + room - 1 > len)) {
            return Err(2);
        }
        self.timestamp = Some(at);
        if pointer > len {
            // RFC 791: "the number of IP modules that cannot register timestamps due to lack of space".
            let missed = option[3] >> 4;
            if kind != STAMPS_OF_ADDRESSES && missed == 15 && reading != Reading::Arrived {
                return Err(3);
            }
            if kind != STAMPS_OF_ADDRESSES && matches!(reading, Reading::Arriving(..)) {
                option[3] += 0x10;
            }
            return Ok(());
        }
        let named = |at: usize| address(option, at).filter(|addr| !elsewhere(*addr)).is_some();
        let stamped = match (kind, reading) {
            (STAMPS | STAMPS_AND_ADDRESSES, _) => true,
            // Ours is the one before the pointer, if the last entry is ours.
            (STAMPS_OF_ADDRESSES, Reading::Arrived) => pointer >= 13 && named(pointer - 9),
            (STAMPS_OF_ADDRESSES, _) => named(pointer - 1),
            _ => false,
        };
        if !stamped {
            return Ok(());
        }
        self.stamp_time = true;
        self.stamp_address = kind == STAMPS_AND_ADDRESSES;
        if let Reading::Arriving(local, time) = reading {
            if kind == STAMPS_AND_ADDRESSES {
                enter(option, pointer - 1, &local.octets());
            }
            enter(option, pointer + room - 5, &time);
        }
        if reading != Reading::Arrived {
            option[2] += room as u8;
        }
        Ok(())
    }

    /// Linux's `__ip_options_echo`: what an answer carries of the options that a packet came with. A packet with a source route
    /// is not taken, so none is turned round.
    fn turned_round(&self, elsewhere: impl Fn(Ipv4Addr) -> bool) -> Option<IpOptions> {
        let mut reply = IpOptions::NONE;
        let option = |at: usize| &self.bytes[at..at + usize::from(self.bytes[at + 1])];
        if let Some(option) = self.record_route.map(option) {
            let pointer = usize::from(option[2]);
            let at = reply.append(option);
            reply.record_route = Some(at);
            if self.record_address && pointer <= option.len() {
                if pointer + 3 > option.len() {
                    return None;
                }
                reply.bytes[at + 2] += 4;
                reply.record_address = true;
            }
        }
        if let Some(option) = self.timestamp.map(option) {
            let (mut pointer, kind, len) = (usize::from(option[2]), option[3] & 0x0f, option.len());
            let at = reply.append(option);
            reply.timestamp = Some(at);
            if pointer <= len {
                if self.stamp_address {
                    if pointer + 3 > len {
                        return None;
                    }
                    reply.stamp_address = true;
                    pointer += 4;
                }
                if self.stamp_time {
                    if pointer + 3 > len {
                        return None;
                    }
                    if kind != STAMPS_OF_ADDRESSES {
                        reply.stamp_time = true;
                        pointer += 4;
                    } else if pointer + 7 <= len
                        && address(option, pointer - 1).is_some_and(|addr| !elsewhere(addr))
                    {
                        reply.stamp_time = true;
                        pointer += 8;
                    }
                }
                reply.bytes[at + 2] = pointer as u8;
            }
        }
        reply.len = reply.len.next_multiple_of(4);
        Some(reply)
    }

    /// Appends an option, and tells where it is. There is room for those of one header.
    fn append(&mut self, option: &[u8]) -> usize {
        let at = self.len;
        self.bytes[at..at + option.len()].copy_from_slice(option);
        self.len += option.len();
        at
    }
}

/// Takes the last entry of four bytes out of an option that has a pointer.
fn take_back(bytes: &mut [u8], at: usize) {
    bytes[at + 2] = bytes[at + 2].saturating_sub(4);
    let place = (at + usize::from(bytes[at + 2])).saturating_sub(1);
    enter(bytes, place, &[0; 4]);
}

/// Writes an address or a time, where it has room.
fn enter(bytes: &mut [u8], at: usize, four: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at.saturating_add(4)) {
        place.copy_from_slice(four);
    }
}

fn address(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    bytes.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()).map(Ipv4Addr::from)
}

#[cfg(test)]
mod tests;
