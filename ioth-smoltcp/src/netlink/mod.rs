//! The node's end of `AF_NETLINK` / `NETLINK_ROUTE` sockets: requests in, replies and events out.
//!
//! Read first: RFC 3549, netlink(7), rtnetlink(7). Error numbers, and what is ignored or answered of a malformed
//! request, are those of Linux 6.18.
//!
//! A [`Session`] is one socket's dialogue. It does no I/O: [`Session::request`] takes what the program sent and
//! returns messages to queue for it, and events for whoever listens to multicast groups. A dump is made part by
//! part as the program reads, so that ten thousand routes are never in a queue at once.
//!
//! ```text
//!  send ──▶ Session::request ──▶ replies ──▶ the socket's queue ──▶ recv
//!                 │    ╰──▶ events ──▶ queues of subscribed sockets   ▲ queue empty and is_dumping()
//!              Tables, Host                      Session::next_part ──╯
//! ```
//!
//! Requests are read by hand rather than with netlink-packet-route: that crate refuses a message for one
//! attribute it cannot read, where Linux goes on or says which error it is. The tests use it as the judge.
//!
//! Deviations from Linux: one routing table (main); no rules, no multipath, no TOS, no route expiry; an IPv4
//! route that goes with its interface is told to listeners as well.

mod addr;
mod dump;
mod link;
mod neigh;
mod route;
#[cfg(test)]
mod tests;
mod wire;

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use ioth_core::{Errno, MacAddr};

use crate::engine::addr::AddrError;
use crate::engine::iface::IfaceError;
use crate::engine::route::{RouteChangeError, RouteError};
use crate::engine::tables::{Change, Tables};

use dump::Dump;
use wire::{HEADER, Header, Request, Writer};

/// A request at most, in bytes: Linux's default send buffer.
pub(crate) const MAX_REQUEST: usize = 212_992;

/// The kind of interface that is at a virtual network (`IFLA_INFO_KIND`).
pub(crate) const VDE: &str = "vde";

/// What netlink shows or asks for that is not in [`Tables`]; the engine's part.
pub trait Host {
    /// Traffic of an interface since it was made.
    fn link_stats(&self, ifindex: u32) -> LinkStats {
        let _ = ifindex;
        LinkStats::default()
    }

    /// The kind of link behind an interface and where it leads, such as `("vde", "switch://lan")`.
    fn link_info(&self, ifindex: u32) -> Option<(String, String)> {
        let _ = ifindex;
        None
    }

    /// The neighbour table, ARP and neighbour discovery alike.
    fn neighbours(&self) -> Vec<Neighbour> {
        Vec::new()
    }

    /// An interface was raised, lowered or given another address, MTU or name.
    fn link_changed(&mut self, tables: &Tables, ifindex: u32) {
        let _ = (tables, ifindex);
    }

    /// Makes an interface and returns its index.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if the host cannot.
    fn create_link(&mut self, tables: &mut Tables, link: &NewLink<'_>) -> Result<u32, Errno> {
        let _ = (tables, link);
        Err(Errno::EOPNOTSUPP)
    }

    /// Removes an interface.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if the host cannot.
    fn delete_link(&mut self, tables: &mut Tables, ifindex: u32) -> Result<(), Errno> {
        let _ = (tables, ifindex);
        Err(Errno::EOPNOTSUPP)
    }

    /// Enters a neighbour, or with `replace` changes the entry that is there.
    ///
    /// # Errors
    /// `EEXIST`, or `EOPNOTSUPP` if the host cannot.
    fn set_neighbour(&mut self, tables: &Tables, neighbour: &Neighbour, replace: bool) -> Result<(), Errno> {
        let _ = (tables, neighbour, replace);
        Err(Errno::EOPNOTSUPP)
    }

    /// Removes a neighbour's entry.
    ///
    /// # Errors
    /// `ENOENT`, or `EOPNOTSUPP` if the host cannot.
    fn delete_neighbour(&mut self, tables: &Tables, ifindex: u32, addr: IpAddr) -> Result<(), Errno> {
        let _ = (tables, ifindex, addr);
        Err(Errno::EOPNOTSUPP)
    }
}

/// Traffic counters of an interface, `struct rtnl_link_stats64`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are Linux's")]
pub struct LinkStats {
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_errors: u64,
    pub tx_errors: u64,
    pub rx_dropped: u64,
    pub tx_dropped: u64,
    pub multicast: u64,
}

/// A neighbour and its Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface that it is behind.
    pub ifindex: u32,
    /// Its IP address.
    pub addr: IpAddr,
    /// Its Ethernet address, once known.
    pub mac: Option<MacAddr>,
    /// `NUD_*`
    pub state: u16,
    /// `NTF_*`, such as `NTF_ROUTER`.
    pub flags: u8,
}

/// An interface that a program asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewLink<'a> {
    /// `IFLA_INFO_KIND`, such as `vde`.
    pub kind: &'a str,
    /// The first attribute of `IFLA_INFO_DATA`: the VNL of kind `vde`.
    pub locator: Option<&'a str>,
    /// Its name, if it is to have a certain one.
    pub name: Option<&'a str>,
    /// Its Ethernet address, if it is to have a certain one.
    pub mac: Option<MacAddr>,
    /// Its MTU in bytes, if it is to have a certain one.
    pub mtu: Option<usize>,
}

/// A message for the sockets that listen to a multicast group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `RTNLGRP_*`: the number, whose bit in `sockaddr_nl.nl_groups` is the number less one.
    pub group: u32,
    /// The whole message.
    pub message: Vec<u8>,
}

/// What a request brought forth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Datagrams for the socket that asked, in order.
    pub replies: Vec<Vec<u8>>,
    /// For every socket that listens, in order; there are none unless [`Tables::watch`] is on.
    pub events: Vec<Event>,
    /// Some events are missing: listeners get `ENOBUFS`.
    pub overrun: bool,
}

/// The dialogue of one netlink socket with the node.
#[derive(Debug, Default)]
pub struct Session {
    port: u32,
    /// NETLINK_EXT_ACK: errors come with a text.
    pub ext_ack: bool,
    /// NETLINK_CAP_ACK: errors do not repeat the request.
    pub cap_ack: bool,
    /// NETLINK_GET_STRICT_CHK: dumps can be filtered.
    pub strict: bool,
    dump: Option<Box<Dump>>,
}

impl Session {
    /// A dialogue with the socket of that port (`nl_pid`).
    pub fn new(port: u32) -> Self {
        Session { port, ..Session::default() }
    }

    /// Changes the port: the socket was bound.
    pub fn set_port(&mut self, port: u32) {
        self.port = port;
    }

    /// Carries out what a program sent: one or more requests in a buffer.
    ///
    /// The first part of a dump is among the replies; for the next ones see [`next_part`](Self::next_part).
    pub fn request(&mut self, tables: &mut Tables, host: &mut dyn Host, mut buffer: &[u8]) -> Outcome {
        let mut outcome = Outcome::default();
        // Linux stops without a word at a length that cannot be.
        while let Some((header, message, rest)) = wire::split(buffer) {
            buffer = rest;
            self.one(tables, host, header, message, &mut outcome);
            let (events, overrun) = events(tables, host, self.port, header.seq);
            outcome.events.extend(events);
            outcome.overrun |= overrun;
        }
        outcome
    }

    /// The next part of the dump under way, to be called when the program has read all that was queued. `room`
    /// is the size of its buffer in bytes, a hint.
    pub fn next_part(&mut self, tables: &Tables, host: &dyn Host, room: usize) -> Option<Vec<u8>> {
        let dump = self.dump.as_mut()?;
        let part = dump.part(self.port, tables, host, room);
        if dump.is_done() {
            self.dump = None;
        }
        Some(part)
    }

    /// Whether there is a next part: the socket is readable even when nothing is queued.
    pub fn is_dumping(&self) -> bool {
        self.dump.is_some()
    }

    fn one(
        &mut self,
        tables: &mut Tables,
        host: &mut dyn Host,
        header: Header,
        message: &[u8],
        outcome: &mut Outcome,
    ) {
        let mut reply = Vec::new();
        let request = Request {
            header,
            body: message.get(HEADER..).unwrap_or_default(),
            port: self.port,
            strict: self.strict,
        };
        let result = self.dispatch(tables, host, &request, &mut reply);
        if !reply.is_empty() {
            outcome.replies.push(reply);
        }
        match result {
            Ok(Answer::Dump) => {
                let part = self.next_part(tables, host, 0);
                outcome.replies.extend(part);
            }
            Ok(Answer::Done) if header.has(libc::NLM_F_ACK) => {
                outcome.replies.push(self.acknowledgement(header, message, None));
            }
            Ok(Answer::Done) => {}
            Err(fault) => outcome.replies.push(self.acknowledgement(header, message, Some(&fault))),
        }
    }

    fn dispatch(
        &mut self,
        tables: &mut Tables,
        host: &mut dyn Host,
        request: &Request<'_>,
        reply: &mut Vec<u8>,
    ) -> Result<Answer, Fault> {
        let header = request.header;
        // Linux: control messages and what is no request are acknowledged if that was asked for.
        if !header.has(libc::NLM_F_REQUEST) || header.kind < libc::RTM_NEWLINK {
            return Ok(Answer::Done);
        }
        // Linux: "All the messages must have at least 1 byte length".
        let known = header.kind <= RTM_MAX;
        if known && request.body.is_empty() {
            return Ok(Answer::Done);
        }
        let is_get = header.kind & 3 == 2;
        if known && is_get && header.has(libc::NLM_F_DUMP) {
            let dump = Dump::new(request, tables, host)?;
            if self.dump.is_some() {
                return Err(Errno::EBUSY.into());
            }
            self.dump = Some(Box::new(dump));
            return Ok(Answer::Dump);
        }
        match header.kind {
            libc::RTM_GETLINK => link::get(tables, host, request, reply)?,
            libc::RTM_NEWLINK => link::new(tables, host, request, reply)?,
            libc::RTM_SETLINK => link::set(tables, host, request)?,
            libc::RTM_DELLINK => link::del(tables, host, request)?,
            libc::RTM_GETADDR => addr::get(tables, request, reply)?,
            libc::RTM_NEWADDR => addr::new(tables, request)?,
            libc::RTM_DELADDR => addr::del(tables, request)?,
            libc::RTM_GETROUTE => route::get(tables, request, reply)?,
            libc::RTM_NEWROUTE => route::new(tables, request)?,
            libc::RTM_DELROUTE => route::del(tables, request)?,
            libc::RTM_GETNEIGH => neigh::get(tables, host, request, reply)?,
            libc::RTM_NEWNEIGH => neigh::new(tables, host, request)?,
            libc::RTM_DELNEIGH => neigh::del(tables, host, request)?,
            _ => return Err(Errno::EOPNOTSUPP.into()),
        }
        Ok(Answer::Done)
    }

    /// `NLMSG_ERROR`, which is an acknowledgement when there is no error.
    fn acknowledgement(&self, header: Header, message: &[u8], fault: Option<&Fault>) -> Vec<u8> {
        let text = fault.and_then(|fault| fault.text.as_deref()).filter(|_| self.ext_ack);
        let whole = fault.is_some() && !self.cap_ack;
        let mut flags = if whole { 0 } else { NLM_F_CAPPED };
        if text.is_some() {
            flags |= NLM_F_ACK_TLVS;
        }
        let mut bytes = Vec::new();
        let mut writer =
            Writer::begin(&mut bytes, libc::NLMSG_ERROR as u16, flags as u16, header.seq, self.port);
        writer.put(&(fault.map_or(0, |fault| -(fault.errno as i32))).to_ne_bytes());
        writer.put(if whole { message } else { &message[..HEADER] });
        if let Some(text) = text {
            writer.align();
            writer.text(NLMSGERR_ATTR_MSG, text);
        }
        writer.end();
        bytes
    }
}

/// Turns what was changed, by whomever, into messages for multicast groups, and says whether some are missing.
///
/// `port` and `seq` are those of the request that caused it, 0 if none did. [`Session::request`] calls it; the
/// engine does so after changes of its own making (expired addresses, pulled plugs).
pub fn events(tables: &mut Tables, host: &dyn Host, port: u32, seq: u32) -> (Vec<Event>, bool) {
    let (changes, overrun) = tables.take_changes();
    let from = Header { port, seq, ..Header::default() };
    let event = |change| event(tables, host, from, change);
    (changes.into_iter().filter_map(event).collect(), overrun)
}

fn event(tables: &Tables, host: &dyn Host, from: Header, change: Change) -> Option<Event> {
    let mut message = Vec::new();
    let by_family = |addr: IpAddr, v4, v6| if addr.is_ipv4() { v4 } else { v6 };
    let group = match change {
        Change::LinkNew(ifindex) => {
            // Gone again: the removal is told as well.
            let iface = tables.iface(ifindex)?;
            link::put(&mut message, host, iface, libc::RTM_NEWLINK, from);
            libc::RTNLGRP_LINK
        }
        Change::LinkDel(iface) => {
            link::put(&mut message, host, &iface, libc::RTM_DELLINK, from);
            libc::RTNLGRP_LINK
        }
        Change::AddrNew(addr) => {
            addr::put(&mut message, tables, &addr, libc::RTM_NEWADDR, from);
            by_family(addr.local(), libc::RTNLGRP_IPV4_IFADDR, libc::RTNLGRP_IPV6_IFADDR)
        }
        Change::AddrDel(addr) => {
            addr::put(&mut message, tables, &addr, libc::RTM_DELADDR, from);
            by_family(addr.local(), libc::RTNLGRP_IPV4_IFADDR, libc::RTNLGRP_IPV6_IFADDR)
        }
        Change::RouteNew(route) => {
            route::put(&mut message, tables, &route, libc::RTM_NEWROUTE, from);
            by_family(route.dst.addr(), libc::RTNLGRP_IPV4_ROUTE, libc::RTNLGRP_IPV6_ROUTE)
        }
        Change::RouteDel(route) => {
            route::put(&mut message, tables, &route, libc::RTM_DELROUTE, from);
            by_family(route.dst.addr(), libc::RTNLGRP_IPV4_ROUTE, libc::RTNLGRP_IPV6_ROUTE)
        }
    };
    Some(Event { group, message })
}

/// The VNL that has to be opened for the first message in a buffer, which makes an interface of kind [`VDE`].
pub(crate) fn wanted_link<'a>(tables: &Tables, buffer: &'a [u8]) -> Option<&'a str> {
    let (header, message, _) = wire::split(buffer)?;
    let asks = header.has(libc::NLM_F_REQUEST) && header.kind == libc::RTM_NEWLINK;
    let request = Request { header, body: message.get(HEADER..)?, port: 0, strict: false };
    asks.then(|| link::wanted(tables, &request)).flatten()
}

/// The first message in a buffer, and what follows it; what is no message is the last one.
pub(crate) fn split_first(buffer: &[u8]) -> (&[u8], &[u8]) {
    match wire::split(buffer) {
        Some((_, _, rest)) => buffer.split_at(buffer.len() - rest.len()),
        None => (buffer, &[]),
    }
}

/// How a request that did not fail ends.
enum Answer {
    /// With an acknowledgement if it asked for one.
    Done,
    /// With the parts of a dump.
    Dump,
}

/// Why a request failed: the number for everybody, the text for NETLINK_EXT_ACK.
#[derive(Debug)]
struct Fault {
    errno: Errno,
    text: Option<Cow<'static, str>>,
}

impl Fault {
    fn new(errno: Errno, text: &'static str) -> Self {
        Fault { errno, text: Some(Cow::Borrowed(text)) }
    }

    fn of(errno: Errno, error: impl fmt::Display) -> Self {
        Fault { errno, text: Some(Cow::Owned(error.to_string())) }
    }
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Fault { errno, text: None }
    }
}

impl From<IfaceError> for Fault {
    fn from(error: IfaceError) -> Self {
        Fault::of(error.to_errno(), error)
    }
}

impl From<AddrError> for Fault {
    fn from(error: AddrError) -> Self {
        Fault::of(error.to_errno(), error)
    }
}

impl From<RouteError> for Fault {
    fn from(error: RouteError) -> Self {
        Fault::of(error.to_errno(), error)
    }
}

impl From<RouteChangeError> for Fault {
    fn from(error: RouteChangeError) -> Self {
        Fault::of(error.to_errno(), error)
    }
}

/// The highest message type that Linux knows.
const RTM_MAX: u16 = 123;

// linux/netlink.h, where libc has them not.
const NLM_F_CAPPED: i32 = 0x100;
const NLM_F_ACK_TLVS: i32 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
