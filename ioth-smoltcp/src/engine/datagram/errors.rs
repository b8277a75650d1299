//! IP_RECVERR and IPV6_RECVERR: ICMP errors that wait for recvmsg(2) with MSG_ERRQUEUE (ip(7)).

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use ioth_core::{Domain, Errno, MsgFlags, RecvMsg, SockAddr, control};

use super::control::report;
use super::inbox::IpArrival;
use crate::engine::scatter;
use crate::engine::sockets::{DEFAULT_BUFFER, Options};

/// What a waiting error costs beside its bytes; Linux counts its buffers likewise.
const OVERHEAD: usize = 768;
/// linux/errqueue.h: SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6
const ORIGIN_ICMP: u8 = 2;
const ORIGIN_ICMP6: u8 = 3;

/// What an ICMP message said about a packet of ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notice {
    pub(crate) errno: Errno,
    /// Whether a connected datagram socket hears of it unasked.
    pub(crate) fatal: bool,
    /// ICMP type and code.
    pub(crate) kind: u8,
    pub(crate) code: u8,
    /// The MTU of what follows, in bytes, where that is the matter.
    pub(crate) mtu: u32,
    /// Who said so.
    pub(crate) offender: IpAddr,
    /// How it came; none from ourselves.
    pub(crate) arrival: Option<IpArrival>,
}

/// A notice, and about what.
#[derive(Debug)]
struct Waiting {
    notice: Notice,
    /// Where the packet was sent to.
    destination: SocketAddr,
    /// The beginning of what it carried.
    payload: Vec<u8>,
}

/// The queue. Its bound is SO_RCVBUF.
#[derive(Debug, Default)]
pub(crate) struct Errors {
    queue: VecDeque<Waiting>,
    bytes: usize,
}

impl Errors {
    /// Adds an error. False when there is no room for it.
    #[must_use]
    pub(crate) fn push(
        &mut self,
        notice: &Notice,
        destination: SocketAddr,
        payload: &[u8],
        options: &Options,
    ) -> bool {
        let cost = payload.len() + OVERHEAD;
        if self.bytes + cost > options.receive_buffer.unwrap_or(DEFAULT_BUFFER) {
            return false;
        }
        self.bytes += cost;
        self.queue.push_back(Waiting { notice: *notice, destination, payload: payload.to_vec() });
        true
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The errno of the next one.
    pub(crate) fn next(&self) -> Option<Errno> {
        self.queue.front().map(|waiting| waiting.notice.errno)
    }

    pub(crate) fn clear(&mut self) {
        *self = Errors::default();
    }

    /// Gives the next error to recvmsg(2): the number of bytes of the packet that it is about.
    pub(crate) fn receive(
        &mut self,
        domain: Domain,
        options: &Options,
        message: &mut RecvMsg<'_, '_>,
    ) -> Option<usize> {
        let Waiting { notice, destination, payload } = self.queue.pop_front()?;
        self.bytes -= payload.len() + OVERHEAD;
        let copied = scatter(&payload, message.data);
        let v6 = domain == Domain::INET6;
        let presented = |addr: SocketAddr| SockAddr::Ip(if v6 { ioth_core::addr::map(addr) } else { addr });
        message.addr = Some(presented(destination));
        let mut writer = control::Writer::new(message.control);
        if let Some(arrival) = &notice.arrival {
            report(&mut writer, &options.report, domain, arrival);
        }
        // struct sock_extended_err, and the address of who said so.
        let origin = if notice.offender.is_ipv4() { ORIGIN_ICMP } else { ORIGIN_ICMP6 };
        let mut value = (notice.errno as u32).to_ne_bytes().to_vec();
        value.extend([origin, notice.kind, notice.code, 0]);
        value.extend(notice.mtu.to_ne_bytes());
        value.extend(0u32.to_ne_bytes());
        value.extend_from_slice(&presented(SocketAddr::new(notice.offender, 0)).to_raw());
        match v6 {
            true => writer.put(libc::IPPROTO_IPV6, libc::IPV6_RECVERR, &value),
            false => writer.put(libc::IPPROTO_IP, libc::IP_RECVERR, &value),
        }
        let (used, lost) = writer.finish();
        message.control_len = used;
        message.flags |= lost | MsgFlags::ERRQUEUE;
        if copied < payload.len() {
            message.flags |= MsgFlags::TRUNC;
        }
        Some(copied)
    }
}
