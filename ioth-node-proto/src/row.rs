//! What replies about names and interfaces list.

use crate::{ADDR_MAX, Cursor};

/// One item of a [`Row`].
///
/// Each is its kind (2 bytes), the length of its body in bytes (2 bytes), and the body. Text has no NUL at its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Item<'a> {
    /// A `struct addrinfo`. Body: family, socket type, protocol (4 bytes each), the address.
    AddrInfo(AddrInfo<'a>),
    /// A name: `ai_canonname`, `h_name`, or getnameinfo(3)'s host. Body: the text.
    Name(&'a [u8]),
    /// One of `h_aliases`. Body: the text.
    Alias(&'a [u8]),
    /// One of `h_addr_list`. Body: 4 or 16 bytes.
    Address(&'a [u8]),
    /// getnameinfo(3)'s service. Body: the text.
    Service(&'a [u8]),
    /// A `struct ifaddrs`. Body: as [`InterfaceAddress`] has it.
    Interface(InterfaceAddress<'a>),
}

/// A `struct addrinfo` without its canonical name, which is an [`Item::Name`] before the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddrInfo<'a> {
    /// `ai_family`
    pub family: i32,
    /// `ai_socktype`
    pub kind: i32,
    /// `ai_protocol`
    pub protocol: i32,
    /// `ai_addr`, as a `struct sockaddr_in` or `struct sockaddr_in6`.
    pub addr: &'a [u8],
}

/// A `struct ifaddrs`, in getifaddrs(3)'s order: first an `AF_PACKET` entry for each interface, then their addresses.
///
/// The `AF_PACKET` entries are what if_nameindex(3) gives. Body: index, flags (4 bytes each), the lengths of the name and of
/// the three addresses (1 byte each), these four, and in the rest the counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterfaceAddress<'a> {
    /// The interface's index.
    pub index: u32,
    /// `ifa_flags`, which say too whether `other` is a broadcast address (`IFF_BROADCAST`) or a destination.
    pub flags: u32,
    /// `ifa_name`: the interface's name, or the IPv4 address' label.
    pub name: &'a [u8],
    /// `ifa_addr`, as a `struct sockaddr_ll`, `_in` or `_in6`.
    pub addr: &'a [u8],
    /// `ifa_netmask`; empty for none.
    pub netmask: &'a [u8],
    /// `ifa_broadaddr` or `ifa_dstaddr`; empty for none.
    pub other: &'a [u8],
    /// `ifa_data`: a `struct rtnl_link_stats` of [`STATS_LEN`](InterfaceAddress::STATS_LEN) bytes; empty but for `AF_PACKET`.
    pub stats: &'a [u8],
}

impl InterfaceAddress<'_> {
    /// Length of a `struct rtnl_link_stats` in bytes: 24 counters of 32 bits.
    pub const STATS_LEN: usize = 24 * 4;
}

impl<'a> Item<'a> {
    const ADDR_INFO: u16 = 1;
    const NAME: u16 = 2;
    const ALIAS: u16 = 3;
    const ADDRESS: u16 = 4;
    const SERVICE: u16 = 5;
    const INTERFACE: u16 = 6;

    /// Writes it to the beginning of `out`: how many bytes it has. `None` when there is no room, or it is too long for a row.
    pub fn emit(&self, out: &mut [u8]) -> Option<usize> {
        let (kind, room) = (self.kind(), out.get_mut(4..)?);
        let len = match *self {
            Item::AddrInfo(AddrInfo { family, kind, protocol, addr }) => put(
                room,
                &[
                    &family.to_ne_bytes(),
                    &kind.to_ne_bytes(),
                    &protocol.to_ne_bytes(),
                    short(addr, ADDR_MAX)?,
                ],
            ),
            Item::Name(bytes) | Item::Alias(bytes) | Item::Address(bytes) | Item::Service(bytes) => {
                put(room, &[bytes])
            }
            Item::Interface(InterfaceAddress { index, flags, name, addr, netmask, other, stats }) => {
                let lengths = [
                    u8::try_from(name.len()).ok()?,
                    short(addr, ADDR_MAX)?.len() as u8,
                    short(netmask, ADDR_MAX)?.len() as u8,
                    short(other, ADDR_MAX)?.len() as u8,
                ];
                let numbers = [index.to_ne_bytes(), flags.to_ne_bytes()];
                put(room, &[&numbers[0], &numbers[1], &lengths, name, addr, netmask, other, stats])
            }
        }?;
        out[0..2].copy_from_slice(&kind.to_ne_bytes());
        out[2..4].copy_from_slice(&u16::try_from(len).ok()?.to_ne_bytes());
        Some(4 + len)
    }

    fn kind(&self) -> u16 {
        match self {
            Item::AddrInfo(_) => Item::ADDR_INFO,
            Item::Name(_) => Item::NAME,
            Item::Alias(_) => Item::ALIAS,
            Item::Address(_) => Item::ADDRESS,
            Item::Service(_) => Item::SERVICE,
            Item::Interface(_) => Item::INTERFACE,
        }
    }

    fn parse(kind: u16, body: &'a [u8]) -> Option<Item<'a>> {
        let mut cursor = Cursor::new(body);
        Some(match kind {
            Item::ADDR_INFO => Item::AddrInfo(AddrInfo {
                family: i32::from_ne_bytes(cursor.take()?),
                kind: i32::from_ne_bytes(cursor.take()?),
                protocol: i32::from_ne_bytes(cursor.take()?),
                addr: short(cursor.rest(), ADDR_MAX)?,
            }),
            Item::NAME => Item::Name(body),
            Item::ALIAS => Item::Alias(body),
            Item::ADDRESS => Item::Address(body),
            Item::SERVICE => Item::Service(body),
            Item::INTERFACE => {
                let index = u32::from_ne_bytes(cursor.take()?);
                let flags = u32::from_ne_bytes(cursor.take()?);
                let lengths: [u8; 4] = cursor.take()?;
                let (name, rest) = cursor.rest().split_at_checked(lengths[0].into())?;
                let (addr, rest) = rest.split_at_checked(lengths[1].into())?;
                let (netmask, rest) = rest.split_at_checked(lengths[2].into())?;
                let (other, stats) = rest.split_at_checked(lengths[3].into())?;
                for addr in [addr, netmask, other] {
                    short(addr, ADDR_MAX)?;
                }
                Item::Interface(InterfaceAddress { index, flags, name, addr, netmask, other, stats })
            }
            _ => return None,
        })
    }
}

/// A reply's payload as items; it ends at the first that is none.
///
/// ```
/// use ioth_node_proto::{Item, Row};
///
/// let mut payload = [0; 16];
/// let len = Item::Name(b"example.org").emit(&mut payload).unwrap();
/// assert_eq!(Row::new(&payload[..len]).collect::<Vec<_>>(), [Item::Name(b"example.org")]);
/// ```
#[derive(Clone, Debug)]
pub struct Row<'a> {
    rest: &'a [u8],
}

impl<'a> Row<'a> {
    /// The items of a payload.
    pub fn new(payload: &'a [u8]) -> Row<'a> {
        Row { rest: payload }
    }
}

impl<'a> Iterator for Row<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        let mut cursor = Cursor::new(core::mem::take(&mut self.rest));
        let kind = u16::from_ne_bytes(cursor.take()?);
        let len = u16::from_ne_bytes(cursor.take()?);
        let (body, rest) = cursor.rest().split_at_checked(len.into())?;
        let item = Item::parse(kind, body)?;
        self.rest = rest;
        Some(item)
    }
}

/// What getaddrinfo(3) is asked for: the payload of [`Op::Lookup`](crate::Op::Lookup).
///
/// Each is one byte 0 for a null pointer, or a byte 1, the text and its NUL.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wanted<'a> {
    /// `node`
    pub host: Option<&'a [u8]>,
    /// `service`
    pub service: Option<&'a [u8]>,
}

impl<'a> Wanted<'a> {
    /// Writes it to the beginning of `out`: how many bytes it has. `None` when there is no room, or a NUL in a text.
    pub fn emit(&self, out: &mut [u8]) -> Option<usize> {
        let mut at = 0;
        for text in [self.host, self.service] {
            let room = out.get_mut(at..)?;
            at += match text {
                None => put(room, &[&[0]])?,
                Some(text) if text.contains(&0) => return None,
                Some(text) => put(room, &[&[1], text, &[0]])?,
            };
        }
        Some(at)
    }

    /// From a payload.
    pub fn parse(payload: &'a [u8]) -> Option<Wanted<'a>> {
        let (host, rest) = text(payload)?;
        let (service, rest) = text(rest)?;
        rest.is_empty().then_some(Wanted { host, service })
    }
}

fn text(bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    match bytes.split_first()? {
        (0, rest) => Some((None, rest)),
        (1, rest) => {
            let end = rest.iter().position(|&byte| byte == 0)?;
            Some((Some(&rest[..end]), &rest[end + 1..]))
        }
        _ => None,
    }
}

/// Writes pieces one behind the other: how many bytes they have.
fn put(out: &mut [u8], pieces: &[&[u8]]) -> Option<usize> {
    let mut at = 0;
    for piece in pieces {
        out.get_mut(at..)?.get_mut(..piece.len())?.copy_from_slice(piece);
        at += piece.len();
    }
    Some(at)
}

fn short(bytes: &[u8], max: usize) -> Option<&[u8]> {
    (bytes.len() <= max).then_some(bytes)
}
