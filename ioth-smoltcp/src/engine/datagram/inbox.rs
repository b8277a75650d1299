//! The datagrams that wait for a socket's user, in the frames that brought them.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ioth_core::{Domain, MsgFlags, RecvMsg, SockAddr, control};
use ioth_vde::Frame;
use smoltcp::time::Instant;

use super::control::{TimeStamp, auxdata, ip_options, report, stamp};
use crate::engine::addr::is_link_local;
use crate::engine::ip_options::Received;
use crate::engine::net::since_start;
use crate::engine::scatter;
use crate::engine::sockets::{DEFAULT_BUFFER, Options};
use crate::engine::wire::IpHeader;

/// What a waiting datagram costs beside its bytes; Linux counts its buffers likewise.
const OVERHEAD: usize = 768;

/// A datagram as it came, with what a socket's options may ask of it.
#[derive(Clone, Debug)]
pub(crate) struct Datagram {
    /// As it travelled: IPv4 is not mapped.
    pub(crate) source: SockAddr,
    /// What the kind of socket gives to its user: UDP without headers, a raw IPv4 socket with the IP header.
    pub(crate) payload: Frame,
    /// When it arrived.
    pub(crate) time: Instant,
    /// None for what is not IP's: packet sockets.
    pub(crate) ip: Option<IpArrival>,
    /// Of packet sockets only.
    pub(crate) link: Option<LinkArrival>,
    /// Of the IPv4 header.
    pub(crate) options: Option<Arc<Received>>,
}

/// What an IP header said, and where it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IpArrival {
    /// The destination in the header.
    pub(crate) destination: IpAddr,
    /// The address of ours from which an answer would come: the destination, unless that is a group or broadcast.
    pub(crate) local: IpAddr,
    pub(crate) ifindex: u32,
    pub(crate) hop_limit: u8,
    pub(crate) traffic_class: u8,
}

/// What PACKET_AUXDATA tells of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkArrival {
    /// Its length before the socket's filter cut it, in bytes.
    pub(crate) len: usize,
    /// Where in it the network header begins.
    pub(crate) network: usize,
    /// The checksums are known to be right.
    pub(crate) verified: bool,
}

impl IpArrival {
    /// From the header of a packet on its way in; `local` as in the field.
    pub(crate) fn new(ifindex: u32, header: &IpHeader, local: IpAddr) -> Self {
        IpArrival {
            destination: header.dst,
            local,
            ifindex,
            hop_limit: header.hop_limit,
            traffic_class: header.traffic_class,
        }
    }
}

/// The queue. Its bound is SO_RCVBUF.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    queue: VecDeque<Datagram>,
    bytes: usize,
    /// SIOCGSTAMP: when the last datagram arrived that was received without a stamp.
    stamp: Option<Instant>,
}

impl Inbox {
    /// Adds a datagram. False when there is no room for it; one always fits, as Linux has it.
    #[must_use]
    pub(crate) fn push(&mut self, datagram: Datagram, options: &Options) -> bool {
        let limit = options.receive_buffer.unwrap_or(DEFAULT_BUFFER);
        let cost = datagram.payload.len() + OVERHEAD;
        if self.bytes + cost > limit && !self.queue.is_empty() {
            return false;
        }
        self.bytes += cost;
        self.queue.push_back(datagram);
        true
    }

    /// Gives the next datagram to recvmsg(2): the number of bytes, or None when there is no datagram.
    ///
    /// `domain` and `options` are the socket's; `epoch` is the Unix time at the engine's instant zero.
    pub(crate) fn receive(
        &mut self,
        domain: Domain,
        options: &Options,
        epoch: Duration,
        message: &mut RecvMsg<'_, '_>,
        flags: MsgFlags,
    ) -> Option<usize> {
        let datagram = self.queue.front()?;
        let len = datagram.payload.len();
        let copied = scatter(&datagram.payload, message.data);
        if copied < len {
            message.flags |= MsgFlags::TRUNC;
        }
        message.addr = Some(presented(datagram, domain));
        let mut writer = control::Writer::new(message.control);
        stamp(&mut writer, options.time_stamp, epoch + since_start(datagram.time));
        if let Some(arrival) = datagram.link.as_ref().filter(|_| options.report.auxdata) {
            auxdata(&mut writer, arrival, len);
        }
        if let Some(arrival) = &datagram.ip {
            report(&mut writer, &options.report, domain, arrival);
        }
        if let Some(received) = &datagram.options {
            message.flags |= ip_options(&mut writer, &options.report, received);
        }
        let (filled, cut) = writer.finish();
        message.control_len = filled;
        message.flags |= cut;
        if options.time_stamp == TimeStamp::None {
            self.stamp = Some(datagram.time);
        }
        if !flags.contains(MsgFlags::PEEK) {
            self.pop();
        }
        Some(if flags.contains(MsgFlags::TRUNC) { len } else { copied })
    }

    /// SIOCGSTAMP: when the last datagram arrived that was received, unless SO_TIMESTAMP told already.
    pub(crate) fn stamp(&self) -> Option<Instant> {
        self.stamp
    }

    /// Forgets the next datagram.
    pub(crate) fn pop(&mut self) -> Option<Datagram> {
        let datagram = self.queue.pop_front()?;
        self.bytes -= datagram.payload.len() + OVERHEAD;
        if self.queue.is_empty() {
            // Ten thousand idle sockets must not keep what each once needed.
            self.queue = VecDeque::new();
        }
        Some(datagram)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Length of the datagram that is next, in bytes: FIONREAD.
    pub(crate) fn next_len(&self) -> usize {
        self.queue.front().map_or(0, |datagram| datagram.payload.len())
    }
}

#[cfg(test)]
impl Inbox {
    /// The account, and what it should be.
    pub(super) fn account(&self) -> (usize, usize) {
        (self.bytes, self.queue.iter().map(|datagram| datagram.payload.len() + OVERHEAD).sum())
    }
}

/// The source as the socket's user sees it: mapped on an IPv6 socket, with a scope id where it needs one (RFC 4007 §6).
fn presented(datagram: &Datagram, domain: Domain) -> SockAddr {
    let SockAddr::Ip(mut source) = datagram.source else { return datagram.source };
    if let (SocketAddr::V6(v6), Some(arrival)) = (&mut source, &datagram.ip)
        && is_link_local(IpAddr::V6(*v6.ip()))
    {
        v6.set_scope_id(arrival.ifindex);
    }
    SockAddr::Ip(if domain == Domain::INET6 { ioth_core::addr::map(source) } else { source })
}
