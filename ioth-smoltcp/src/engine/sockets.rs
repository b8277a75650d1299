//! What every socket has, whatever its protocol.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ioth_core::{Domain, Errno, Events};

use super::bpf::Attached;
use super::datagram::{Discover, Errors, Group, Inbox, Report, TimeStamp};
use super::ip_options::IpOptions;
use super::multicast::Membership;
use super::netlink_socket::Netlink;
use super::options::Quiet;
use super::packet::Packets;
use super::ping::Ping;
use super::raw::Raw;
use super::tcp::{Stream, TcpOptions};
use super::udp::Datagrams;

/// A socket of the engine.
#[derive(Debug)]
pub(crate) struct Sock {
    pub(crate) domain: Domain,
    pub(crate) kind: Kind,
    pub(crate) options: Options,
    /// Groups that the socket joined.
    pub(crate) memberships: Vec<Membership>,
    /// IP_OPTIONS: the options of IPv4 packets; of an accepted stream those that answer the SYN's.
    pub(crate) ip_options: Option<Arc<IpOptions>>,
    /// SO_ATTACH_FILTER
    pub(crate) attached: Attached,
    /// SO_ERROR: reported once.
    pub(crate) error: Option<Errno>,
    /// IP_RECVERR: what MSG_ERRQUEUE finds.
    pub(crate) errors: Errors,
    /// Tells this socket from an earlier one with the same id.
    pub(crate) stamp: u64,
    /// In the list of sockets whose poll bits have to be looked at.
    pub(crate) touched: bool,
    /// Something arrived since the poll bits were told.
    pub(crate) arrived: bool,
    /// The poll bits that were told last.
    pub(crate) events: Events,
    /// A TCP connection was established at some time.
    pub(crate) was_connected: bool,
    /// A sender has to wait until the link takes frames again.
    pub(crate) stalled: bool,
}

/// By protocol.
#[derive(Debug)]
pub(crate) enum Kind {
    Stream(Stream),
    Datagrams(Datagrams),
    Netlink(Netlink),
    Packets(Packets),
    Raw(Raw),
    Ping(Ping),
}

impl Kind {
    /// The datagrams that wait, where it is datagrams.
    pub(crate) fn inbox(&self) -> Option<&Inbox> {
        match self {
            Kind::Stream(_) | Kind::Netlink(_) => None,
            Kind::Datagrams(datagrams) => Some(&datagrams.inbox),
            Kind::Packets(packets) => Some(&packets.inbox),
            Kind::Raw(raw) => Some(&raw.endpoint.inbox),
            Kind::Ping(ping) => Some(&ping.endpoint.inbox),
        }
    }
}

impl Sock {
    /// The poll bits now.
    pub(crate) fn poll(&self) -> Events {
        let mut events = match &self.kind {
            Kind::Stream(stream) => stream.events(),
            Kind::Datagrams(datagrams) => datagrams.events(),
            Kind::Netlink(netlink) => netlink.events(),
            Kind::Packets(packets) => packets.events(),
            Kind::Raw(raw) => raw.endpoint.events(),
            Kind::Ping(ping) => ping.endpoint.events(),
        };
        if self.stalled && !matches!(self.kind, Kind::Stream(_)) {
            events -= Events::OUT;
        }
        if self.error.is_some() || !self.errors.is_empty() {
            events |= Events::ERR;
        }
        events
    }

    /// Whether it can have a filter.
    pub(crate) fn takes_filters(&self) -> bool {
        !matches!(self.kind, Kind::Stream(_) | Kind::Netlink(_))
    }

    /// The address that means any address of the socket's family.
    pub(crate) fn wildcard(&self) -> IpAddr {
        match self.domain {
            Domain::INET6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => Ipv4Addr::UNSPECIFIED.into(),
        }
    }
}

/// Options of socket(7), tcp(7), ip(7) and ipv6(7), with Linux's defaults.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) reuse_addr: bool,
    pub(crate) reuse_port: bool,
    pub(crate) broadcast: bool,
    pub(crate) keep_alive: bool,
    /// SO_OOBINLINE: told back, and nothing else, for urgent data is always in line.
    pub(crate) urgent_inline: bool,
    /// SO_PRIORITY: told back, and nothing else, for links have one queue.
    pub(crate) priority: i32,
    /// SO_LINGER's seconds, when it is on.
    pub(crate) linger: Option<u32>,
    /// tcp(7)
    pub(crate) tcp: TcpOptions,
    pub(crate) v6_only: bool,
    /// SO_BINDTODEVICE
    pub(crate) device: Option<u32>,
    /// IP_TTL
    pub(crate) ttl: Option<u8>,
    /// IPV6_UNICAST_HOPS
    pub(crate) unicast_hops: Option<u8>,
    /// IP_TOS
    pub(crate) tos: u8,
    /// IPV6_TCLASS
    pub(crate) traffic_class: u8,
    /// SO_TIMESTAMP, SO_TIMESTAMPNS
    pub(crate) time_stamp: TimeStamp,
    /// IP_PKTINFO, IP_RECVTTL, ..., IPV6_RECVPKTINFO, ...
    pub(crate) report: Report,
    /// IP_FREEBIND, IPV6_FREEBIND: bind(2) takes addresses that the node does not have.
    pub(crate) free_bind: bool,
    /// IP_RECVERR, IPV6_RECVERR: hear of all errors, and keep them.
    pub(crate) hear_errors: bool,
    pub(crate) v6_hear_errors: bool,
    /// IP_MTU_DISCOVER
    pub(crate) discover: Discover,
    /// IPV6_MTU_DISCOVER
    pub(crate) v6_discover: Discover,
    /// IPV6_DONTFRAG
    pub(crate) v6_dont_fragment: bool,
    /// IPV6_MTU as it was set: longer packets leave in pieces.
    pub(crate) v6_fragment_size: Option<usize>,
    /// IPV6_PKTINFO as it was set: source and interface.
    pub(crate) sticky_v6: Option<(Option<Ipv6Addr>, Option<u32>)>,
    /// IP_MULTICAST_*
    pub(crate) v4_group: Group,
    /// IPV6_MULTICAST_*
    pub(crate) v6_group: Group,
    /// UDP_CORK
    pub(crate) udp_cork: bool,
    /// SO_RCVBUF as it was set: bytes of datagrams that may wait, as Linux counts them.
    pub(crate) receive_buffer: Option<usize>,
    /// SO_SNDBUF as it was set: bytes of a stream that may wait for their acknowledgement.
    pub(crate) send_buffer: Option<usize>,
    /// SO_RCVLOWAT: bytes that make a stream readable.
    pub(crate) receive_low: usize,
    /// What is told back, and nothing else.
    pub(crate) quiet: Quiet,
}

/// Linux's net.core.rmem_default and wmem_default.
pub(crate) const DEFAULT_BUFFER: usize = 212_992;
/// Linux's net.ipv4.ip_default_ttl.
pub(crate) const DEFAULT_HOPS: u8 = 64;

impl Default for Options {
    fn default() -> Self {
        Options {
            reuse_addr: false,
            reuse_port: false,
            broadcast: false,
            keep_alive: false,
            urgent_inline: false,
            priority: 0,
            linger: None,
            tcp: TcpOptions::default(),
            v6_only: false,
            device: None,
            ttl: None,
            unicast_hops: None,
            tos: 0,
            traffic_class: 0,
            time_stamp: TimeStamp::default(),
            report: Report::default(),
            free_bind: false,
            hear_errors: false,
            v6_hear_errors: false,
            discover: Discover::default(),
            v6_discover: Discover::default(),
            v6_dont_fragment: false,
            v6_fragment_size: None,
            sticky_v6: None,
            v4_group: Group::default(),
            v6_group: Group::default(),
            udp_cork: false,
            receive_buffer: None,
            send_buffer: None,
            receive_low: 1,
            quiet: Quiet::default(),
        }
    }
}

impl Options {
    /// IP_RECVERR or IPV6_RECVERR, by the packets that the errors are about.
    pub(crate) fn hears_errors(&self, ipv4: bool) -> bool {
        if ipv4 { self.hear_errors } else { self.v6_hear_errors }
    }

    /// TTL or hop limit of packets, by the family of their addresses.
    pub(crate) fn hop_limit(&self, ipv4: bool) -> u8 {
        let chosen = if ipv4 { self.ttl } else { self.unicast_hops };
        chosen.unwrap_or(DEFAULT_HOPS)
    }

    /// What is done with packets that are longer than the path's MTU, by the family of their addresses.
    pub(crate) fn discover(&self, ipv4: bool) -> Discover {
        if ipv4 { self.discover } else { self.v6_discover }
    }

    /// How datagrams to groups leave, by their family.
    pub(crate) fn group(&self, ipv4: bool) -> &Group {
        if ipv4 { &self.v4_group } else { &self.v6_group }
    }

    /// TOS or traffic class of packets, by the family of their addresses.
    pub(crate) fn class(&self, ipv4: bool) -> u8 {
        if ipv4 { self.tos } else { self.traffic_class }
    }
}
