//! What the kinds of sockets that carry datagrams share: UDP, raw, ping, packet.
//!
//! ```text
//!   input ─▶ Inbox::push ... Inbox::receive ─▶ recvmsg(2): data, source, control messages
//!   sendmsg(2) ─▶ SendControl ─▶ the options of the one datagram
//! ```
//!
//! Read first: recvmsg(2), cmsg(3), ip(7), ipv6(7), RFC 3542 §4 to §6.

mod control;
mod errors;
mod inbox;
mod options;
mod send;
#[cfg(test)]
mod tests;

pub(crate) use control::{Report, SO_TIMESTAMP_NEW, SO_TIMESTAMPNS_NEW, SendControl, TimeStamp, stamp};
pub(crate) use errors::{Errors, Notice};
pub(crate) use inbox::{Datagram, Inbox, IpArrival, LinkArrival};
pub(crate) use options::{Discover, Group};
pub(crate) use send::Way;
