//! Interfaces that are made and removed, and the details of addresses and routes that are seldom asked for.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::{AddressHeaderFlags, AddressScope};
use netlink_packet_route::link::{InfoData, InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteProtocol, RouteScope, RouteType};

use super::{Link, Result, Route, address_message, route_message};
use crate::{Cidr, Errno};

/// An interface to be made by [`Route::add_link`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewLink<'a> {
    /// What it is: `vde` on a stack in user space; `dummy`, `veth`, ... on the kernel's.
    pub kind: &'a str,
    /// Its name; `None` lets the stack choose.
    pub name: Option<&'a str>,
    /// Its index; 0 lets the stack choose.
    pub index: u32,
    /// The virtual network locator of an interface of kind `vde`.
    pub vnl: Option<&'a str>,
    /// What the kind wants to know besides (`IFLA_INFO_DATA`): attributes by number, up to 32 KiB of them.
    pub data: &'a [(u16, &'a [u8])],
}

/// What ip-address(8) calls an address' flags and scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressDetails {
    /// `IFA_F_*`, the first eight bits.
    pub flags: u8,
    /// `RT_SCOPE_*`
    pub scope: u8,
}

/// What ip-route(8) calls a route's type and scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteDetails {
    /// `RTN_*`; 1 is unicast.
    pub kind: u8,
    /// `RT_SCOPE_*`
    pub scope: u8,
}

impl Route {
    /// Makes an interface, as `ip link add`: its index, where the stack tells it or there is a name to ask by.
    ///
    /// # Errors
    /// `EEXIST` when there is one of that name or index, `EOPNOTSUPP` for an unknown kind, `EINVAL` for a name
    /// that is empty, too long or holds a NUL and for data that is too long, and what the kind brings, such as an unreachable virtual network.
    pub fn add_link(&self, new: &NewLink<'_>) -> Result<Option<u32>> {
        let mut message = LinkMessage::default();
        message.header.index = new.index;
        if let Some(name) = new.name {
            message.attributes.push(LinkAttribute::IfName(checked(name)?.to_owned()));
        }
        let mut info = vec![LinkInfo::Kind(InfoKind::Other(new.kind.to_owned()))];
        let mut data = Vec::new();
        if let Some(vnl) = new.vnl {
            put_attribute(&mut data, VDE_VNL, &[vnl.as_bytes(), &[0]].concat())?;
        }
        for &(number, value) in new.data {
            put_attribute(&mut data, number, value)?;
        }
        if !data.is_empty() {
            info.push(LinkInfo::Data(InfoData::Other(data)));
        }
        message.attributes.push(LinkAttribute::LinkInfo(info));
        let mut index = (new.index != 0).then_some(new.index);
        self.client.lock().request_with(
            Message::NewLink(message),
            // Linux tells the new interface since 6.2.
            NLM_F_EXCL | NLM_F_CREATE | NLM_F_ECHO,
            libc::RTM_NEWLINK,
            |payload| index = Link::parse(payload).map(|link| link.index).or(index),
        )?;
        match (index, new.name) {
            (None, Some(name)) => Ok(Some(self.link_index(name)?)),
            (index, _) => Ok(index),
        }
    }

    /// Removes an interface, known by its index, or by its name where the index is 0. Given both, Linux looks at the index.
    ///
    /// # Errors
    /// `ENODEV` when there is none, `EINVAL` when neither is given, `EOPNOTSUPP` for one that stays.
    pub fn del_link(&self, index: u32, name: Option<&str>) -> Result<()> {
        if index == 0 && name.is_none() {
            return Err(Errno::EINVAL.into());
        }
        let mut message = LinkMessage::default();
        message.header.index = index;
        if let Some(name) = name {
            message.attributes.push(LinkAttribute::IfName(checked(name)?.to_owned()));
        }
        self.request(Message::DelLink(message), 0)
    }

    /// [`Route::add_address`] with flags and scope.
    ///
    /// # Errors
    /// As there; `EINVAL` for those that the stack does not know.
    pub fn add_address_with(&self, index: u32, address: Cidr, details: AddressDetails) -> Result<()> {
        let mut message = address_message(index, address);
        message.header.flags = AddressHeaderFlags::from_bits_retain(details.flags);
        message.header.scope = AddressScope::from(details.scope);
        self.request(Message::NewAddress(message), NLM_F_EXCL | NLM_F_CREATE)
    }

    /// [`Route::add_route`] with type and scope.
    ///
    /// # Errors
    /// As there; `EINVAL` for those that the stack does not know.
    pub fn add_route_with(
        &self,
        dst: Option<Cidr>,
        gateway: Option<IpAddr>,
        index: u32,
        details: RouteDetails,
    ) -> Result<()> {
        let mut message = route_message(dst, gateway, index)?;
        message.header.protocol = RouteProtocol::Boot;
        message.header.kind = RouteType::from(details.kind);
        message.header.scope = RouteScope::from(details.scope);
        self.request(Message::NewRoute(message), NLM_F_EXCL | NLM_F_CREATE)
    }

    /// [`Route::del_route`] of a certain type and scope.
    ///
    /// # Errors
    /// As there.
    pub fn del_route_with(
        &self,
        dst: Option<Cidr>,
        gateway: Option<IpAddr>,
        index: u32,
        details: RouteDetails,
    ) -> Result<()> {
        let mut message = route_message(dst, gateway, index)?;
        message.header.kind = RouteType::from(details.kind);
        message.header.scope = RouteScope::from(details.scope);
        self.request(Message::DelRoute(message), 0)
    }
}

/// Bytes of `struct nlattr`.
const ATTRIBUTE_HEADER: usize = 4;

/// libioth's interfaces have one attribute: the virtual network locator with its NUL.
const VDE_VNL: u16 = 1;

/// Longest data of an interface, in bytes: within what an attribute's length can say.
const MAX_DATA: usize = 32 << 10;

/// Appends an attribute.
fn put_attribute(data: &mut Vec<u8>, number: u16, value: &[u8]) -> Result<()> {
    let len = ATTRIBUTE_HEADER + value.len();
    if data.len() + len > MAX_DATA {
        return Err(Errno::EINVAL.into());
    }
    data.extend_from_slice(&(len as u16).to_ne_bytes());
    data.extend_from_slice(&number.to_ne_bytes());
    data.extend_from_slice(value);
    data.resize(data.len().next_multiple_of(4), 0);
    Ok(())
}

/// A name that can be an interface's.
fn checked(name: &str) -> Result<&str> {
    // if(7): IFNAMSIZ is 16 with the final NUL.
    match name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains('\0') {
        true => Err(Errno::EINVAL.into()),
        false => Ok(name),
    }
}
