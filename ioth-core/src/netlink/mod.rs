//! The netlink client: how a stack's interfaces, addresses and routes are read and changed.
//!
//! Written once for all backends: it talks rtnetlink over an ordinary `AF_NETLINK`
//! socket of the stack, be that the host's kernel or a stack in user space. Read RFC 3549,
//! netlink(7) and rtnetlink(7) first.
//!
//! ```
//! use ioth_core::{Stack, netlink::Route};
//!
//! fn configure(stack: &dyn Stack) -> Result<(), Box<dyn std::error::Error>> {
//!     let route = Route::new(stack)?;
//!     let vde0 = route.link_index("vde0")?;
//!     route.set_link_up(vde0, true)?;
//!     route.add_address(vde0, "fd00::1/64".parse()?)?;
//!     route.add_route(None, Some("fd00::ff".parse()?), vde0)?;
//!     Ok(())
//! }
//! ```
//!
//! What the other side says is not trusted: lengths that lie, replies to questions that were not
//! asked and attributes of the wrong size end in an error or are left out, never in a panic.

mod changes;
mod client;
mod create;
mod entry;
mod ifaddrs;

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags as WireFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use parking_lot::Mutex;

use crate::{Cidr, Errno, MacAddr, Stack};

pub use changes::Changes;
pub use create::{AddressDetails, NewLink, RouteDetails};
pub use entry::{Address, Link, LinkFlags, LinkStats, RouteEntry};
pub use ifaddrs::InterfaceAddress;

use client::Client;

/// Error returned by the methods of [`Route`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The netlink socket failed, or the request could not be made.
    #[error("netlink: {}", .0.desc())]
    Os(Errno),
    /// The stack refused the request.
    #[error("netlink: {}{}{message}", errno.desc(), if message.is_empty() { "" } else { ": " })]
    Refused {
        /// Why.
        errno: Errno,
        /// The stack's own words (extended acknowledgement), often empty.
        message: String,
    },
    /// The reply is not netlink.
    #[error("netlink: malformed reply: {0}")]
    Malformed(&'static str),
}

/// Result of a netlink operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The error as Linux numbers it; `EBADMSG` for a malformed reply.
    pub fn errno(&self) -> Errno {
        match self {
            Error::Os(errno) | Error::Refused { errno, .. } => *errno,
            Error::Malformed(_) => Errno::EBADMSG,
        }
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Error::Os(errno)
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        let kind = std::io::Error::from(error.errno()).kind();
        std::io::Error::new(kind, error)
    }
}

/// A conversation with a stack's `NETLINK_ROUTE`.
///
/// Each method is one request and its replies. Threads may share it: one request is under way at a
/// time, the others wait. It holds a socket of the stack open, so [`Stack::delete`] fails with
/// `EBUSY` until it is dropped.
///
/// All methods fail with [`Error`]; `ENODEV` stands for an interface that does not exist, `EPERM` for
/// a stack that the caller may not configure.
#[derive(Debug)]
pub struct Route {
    client: Mutex<Client>,
}

impl Route {
    /// Opens `AF_NETLINK`, `SOCK_RAW`, `NETLINK_ROUTE` on `stack` and binds it to a port of its choice.
    ///
    /// # Errors
    /// What socket(2) and bind(2) give; `EAFNOSUPPORT` from a stack without netlink.
    pub fn new(stack: &dyn Stack) -> Result<Self> {
        Ok(Route { client: Mutex::new(Client::new(stack)?) })
    }

    /// The index of the interface called `name`, as if_nametoindex(3).
    ///
    /// # Errors
    /// `ENODEV` when there is none.
    pub fn link_index(&self, name: &str) -> Result<u32> {
        // if(7): IFNAMSIZ is 16 with the final NUL. Kernels differ in what they say to longer names.
        if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains('\0') {
            return Err(Errno::ENODEV.into());
        }
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        Ok(self.get_link(message)?.index)
    }

    /// The name of the interface with this index, as if_indextoname(3).
    ///
    /// # Errors
    /// `ENODEV` when there is none.
    pub fn link_name(&self, index: u32) -> Result<String> {
        Ok(self.link(index)?.name)
    }

    /// The interface with this index.
    ///
    /// # Errors
    /// `ENODEV` when there is none.
    pub fn link(&self, index: u32) -> Result<Link> {
        self.get_link(link_message(index)?)
    }

    /// Every interface, in the order of the stack (by index on Linux).
    pub fn links(&self) -> Result<Vec<Link>> {
        self.dump(Message::GetLink(LinkMessage::default()), libc::RTM_NEWLINK, Link::parse)
    }

    /// The interface's Ethernet address; `None` when it has none (or one of another length).
    pub fn link_addr(&self, index: u32) -> Result<Option<MacAddr>> {
        Ok(self.link(index)?.mac)
    }

    /// Brings the interface up, or takes it down.
    pub fn set_link_up(&self, index: u32, up: bool) -> Result<()> {
        let mut message = link_message(index)?;
        message.header.flags.set(WireFlags::Up, up);
        message.header.change_mask = WireFlags::Up;
        self.request(Message::SetLink(message), 0)
    }

    /// Gives the interface another Ethernet address.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` for a group address, `EBUSY` where the interface must be down for it.
    pub fn set_link_addr(&self, index: u32, mac: MacAddr) -> Result<()> {
        self.change_link(index, LinkAttribute::Address(mac.0.to_vec()))
    }

    /// Sets the interface's MTU, in bytes.
    ///
    /// # Errors
    /// `EINVAL` outside of what the interface can do.
    pub fn set_link_mtu(&self, index: u32, mtu: u32) -> Result<()> {
        self.change_link(index, LinkAttribute::Mtu(mtu))
    }

    /// Every address of every interface.
    pub fn addresses(&self) -> Result<Vec<Address>> {
        let message = Message::GetAddress(AddressMessage::default());
        self.dump(message, libc::RTM_NEWADDR, Address::parse)
    }

    /// Adds an address to an interface.
    ///
    /// # Errors
    /// `EEXIST` when the interface has it.
    pub fn add_address(&self, index: u32, address: Cidr) -> Result<()> {
        self.request(Message::NewAddress(address_message(index, address)), NLM_F_EXCL | NLM_F_CREATE)
    }

    /// Removes an address from an interface.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` when it has no such address with this prefix length.
    pub fn del_address(&self, index: u32, address: Cidr) -> Result<()> {
        self.request(Message::DelAddress(address_message(index, address)), 0)
    }

    /// Every route of every table; one of several next hops appears once for each.
    pub fn routes(&self) -> Result<Vec<RouteEntry>> {
        let mut routes: Vec<RouteEntry> = Vec::new();
        let dump = Message::GetRoute(RouteMessage::default());
        for mut hops in self.dump(dump, libc::RTM_NEWROUTE, RouteEntry::parse)? {
            routes.append(&mut hops);
        }
        Ok(routes)
    }

    /// Adds a route to the main table: to `dst` (`None`: the default route), through `gateway` or
    /// directly on the link, out of the interface `index` (0: the one that reaches the gateway).
    ///
    /// # Errors
    /// `EEXIST` when there is one, `ENETUNREACH`/`EHOSTUNREACH` when the gateway is not on a link,
    /// `EINVAL` when `dst` and `gateway` are of different families or both missing.
    pub fn add_route(&self, dst: Option<Cidr>, gateway: Option<IpAddr>, index: u32) -> Result<()> {
        let mut message = route_message(dst, gateway, index)?;
        message.header.protocol = RouteProtocol::Boot;
        message.header.kind = RouteType::Unicast;
        // As ip-route(8): Linux finds IPv4 gateways through routes of scope link only, so a direct route
        // of scope universe (which libioth sends) could lead to hosts but never to a gateway.
        let direct_v4 = gateway.is_none() && message.header.address_family == AddressFamily::Inet;
        message.header.scope = if direct_v4 { RouteScope::Link } else { RouteScope::Universe };
        self.request(Message::NewRoute(message), NLM_F_EXCL | NLM_F_CREATE)
    }

    /// Removes a route of the main table, whoever added it.
    ///
    /// # Errors
    /// `ESRCH` when there is none, `EINVAL` as [`add_route`](Self::add_route).
    pub fn del_route(&self, dst: Option<Cidr>, gateway: Option<IpAddr>, index: u32) -> Result<()> {
        let mut message = route_message(dst, gateway, index)?;
        // As ip-route(8): "nowhere", with type and protocol 0, matches routes of any.
        message.header.scope = RouteScope::NoWhere;
        self.request(Message::DelRoute(message), 0)
    }

    fn change_link(&self, index: u32, attribute: LinkAttribute) -> Result<()> {
        let mut message = link_message(index)?;
        message.attributes.push(attribute);
        self.request(Message::NewLink(message), 0)
    }

    fn get_link(&self, message: LinkMessage) -> Result<Link> {
        let mut found = None;
        self.client.lock().get(Message::GetLink(message), libc::RTM_NEWLINK, |payload| {
            found = Link::parse(payload);
        })?;
        found.ok_or(Error::Malformed("a link without index or name"))
    }

    fn request(&self, message: Message, flags: u16) -> Result<()> {
        self.client.lock().request(message, flags)
    }

    /// Asks for everything of a kind; what `parse` cannot use is left out.
    fn dump<T>(&self, ask: Message, kind: u16, parse: fn(&[u8]) -> Option<T>) -> Result<Vec<T>> {
        let mut client = self.client.lock();
        for _ in 0..DUMP_ATTEMPTS {
            let mut entries = Vec::new();
            if client.dump(&ask, NLM_F_DUMP, kind, |payload| entries.extend(parse(payload)))? {
                return Ok(entries);
            }
        }
        Err(Errno::EAGAIN.into())
    }
}

/// How often a dump is begun anew when the table changed under it (NLM_F_DUMP_INTR).
const DUMP_ATTEMPTS: u32 = 16;

fn link_message(index: u32) -> Result<LinkMessage> {
    if index == 0 {
        return Err(Errno::ENODEV.into());
    }
    let mut message = LinkMessage::default();
    message.header.index = index;
    Ok(message)
}

fn address_message(index: u32, address: Cidr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    if matches!(address.addr(), IpAddr::V4(v4) if v4.is_loopback()) {
        // As ip-address(8): Linux refuses two scopes in one subnet, and its own 127.0.0.1 has this one.
        message.header.scope = AddressScope::Host;
    }
    message.attributes =
        vec![AddressAttribute::Local(address.addr()), AddressAttribute::Address(address.addr())];
    message
}

fn route_message(dst: Option<Cidr>, gateway: Option<IpAddr>, index: u32) -> Result<RouteMessage> {
    let families = [dst.map(|dst| dst.addr()), gateway].map(|addr| addr.map(family));
    let (Some(family), other) = (families[0].or(families[1]), families[1]) else {
        return Err(Errno::EINVAL.into());
    };
    if other.is_some_and(|other| other != family) {
        return Err(Errno::EINVAL.into());
    }
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    if let Some(dst) = dst.filter(|dst| dst.prefix_len() > 0) {
        message.header.destination_prefix_length = dst.prefix_len();
        message.attributes.push(RouteAttribute::Destination(dst.network().addr().into()));
    }
    message.attributes.extend(gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
    if index != 0 {
        message.attributes.push(RouteAttribute::Oif(index));
    }
    Ok(message)
}

fn family(addr: IpAddr) -> AddressFamily {
    if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

#[cfg(test)]
mod tests;
