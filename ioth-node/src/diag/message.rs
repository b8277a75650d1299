//! sock_diag(7) on the wire: what is asked for, and what is answered. No I/O.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ioth::Errno;

/// `struct nlmsghdr`
const HEADER: usize = 16;
/// `struct inet_diag_req_v2`, `struct inet_diag_sockid` in it, `struct inet_diag_msg`
const REQUEST: usize = 56;
const ID: usize = 48;
const MESSAGE: usize = 72;
/// linux/inet_diag.h: attributes of a request, and of an answer.
const REQ_BYTECODE: u16 = 1;
const MEMINFO: u16 = 1;
const INFO: u16 = 2;
const CONG: u16 = 4;
const SKMEMINFO: u16 = 7;
const SKV6ONLY: u16 = 11;
/// linux/tcp_states.h
const LISTEN: u8 = 10;
/// sock_diag(7), idiag_timer: "3 a TIME_WAIT timer"
const TIMER_TIME_WAIT: u8 = 3;
/// linux/sock_diag.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// A reader has at least room for this: a part of a dump is not longer, but for one long message.
const PART: usize = 8 << 10;

/// A socket, as sock_diag(7) shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// `AF_INET` or `AF_INET6`
    pub family: u8,
    /// `IPPROTO_TCP`, `IPPROTO_UDP`, `IPPROTO_UDPLITE`; `IPPROTO_RAW` for all raw sockets, whose protocol is their port.
    pub protocol: u8,
    /// Of linux/tcp_states.h.
    pub state: u8,
    /// Its address.
    pub local: SocketAddr,
    /// Its peer's; unspecified and 0 without one.
    pub peer: SocketAddr,
    /// SO_BINDTODEVICE, 0 for none.
    pub device: u32,
    /// Bytes that wait to be read; of a listener the connections that do.
    pub unread: u32,
    /// Bytes that are not acknowledged; of a listener the backlog.
    pub unsent: u32,
    /// Tells it from all others.
    pub cookie: u64,
    /// IPV6_V6ONLY
    pub only_ipv6: bool,
    /// `struct tcp_info`
    pub info: Vec<u8>,
    /// The user, and the inode by which ss(8) finds the programs that have the descriptor.
    pub user: u32,
    /// See `user`.
    pub inode: u32,
    /// SO_RCVBUF, SO_SNDBUF
    pub buffers: [u32; 2],
    /// TCP_CONGESTION
    pub congestion: Vec<u8>,
    /// How long TIME-WAIT lasts from now.
    pub remaining: Option<Duration>,
}

/// The answers to what a program sent: a datagram each. `port` is the netlink port of its socket.
pub fn answers(mut sent: &[u8], port: u32, entries: &[Entry]) -> Vec<Vec<u8>> {
    let mut answers = Vec::new();
    let mut dumped = false;
    while let Some(header) = Header::parse(sent) {
        let len = header.len as usize;
        // netlink_rcv_skb(): what is cut off is not looked at.
        if len < HEADER || len > sent.len() {
            break;
        }
        let (message, rest) = (&sent[..len], sent.get(len.next_multiple_of(4)..).unwrap_or_default());
        sent = rest;
        if i32::from(header.flags) & libc::NLM_F_REQUEST == 0 || i32::from(header.kind) < libc::NLMSG_MIN_TYPE
        {
            continue;
        }
        let dumps = i32::from(header.flags) & libc::NLM_F_DUMP == libc::NLM_F_DUMP;
        // One at a time: what is answered is at most so much longer than what is asked.
        let answered = match dumps && std::mem::replace(&mut dumped, true) {
            true => Err(Errno::EBUSY),
            false => answer(&header, &message[HEADER..], port, entries),
        };
        match answered {
            Ok(parts) => {
                answers.extend(parts);
                if i32::from(header.flags) & libc::NLM_F_ACK != 0 && !dumps {
                    answers.push(error(&header, port, None, message));
                }
            }
            Err(errno) => answers.push(error(&header, port, Some(errno), message)),
        }
    }
    answers
}

/// `struct nlmsghdr`
#[derive(Clone, Copy, Debug)]
struct Header {
    len: u32,
    kind: u16,
    flags: u16,
    seq: u32,
}

impl Header {
    fn parse(bytes: &[u8]) -> Option<Header> {
        Some(Header {
            len: u32_at(bytes, 0)?,
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            seq: u32_at(bytes, 8)?,
        })
    }

    /// A message that answers it.
    fn reply(&self, kind: u16, flags: u16, port: u32, body: &[u8]) -> Vec<u8> {
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(((HEADER + body.len()) as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend(self.seq.to_ne_bytes());
        message.extend(port.to_ne_bytes());
        message.extend(body);
        message
    }
}

fn answer(header: &Header, body: &[u8], port: u32, entries: &[Entry]) -> Result<Vec<Vec<u8>>, Errno> {
    if header.kind != SOCK_DIAG_BY_FAMILY {
        return Err(if header.kind == SOCK_DIAG_BY_FAMILY + 1 { Errno::EOPNOTSUPP } else { Errno::EINVAL });
    }
    let family = *body.first().ok_or(Errno::EINVAL)?;
    let wanted = match i32::from(family) {
        libc::AF_INET | libc::AF_INET6 => Wanted::parse(body).ok_or(Errno::EINVAL)?,
        // As where the kernel has no module for it: ss(8) reads /proc/net then.
        _ => return Err(Errno::ENOENT),
    };
    if !entries_of(wanted.protocol) {
        return Err(Errno::ENOENT);
    }
    let shown = entries.iter().filter(|entry| entry.family == family && entry.protocol == wanted.protocol);
    if i32::from(header.flags) & libc::NLM_F_DUMP != libc::NLM_F_DUMP {
        let mut shown = shown.filter(|entry| wanted.names(entry));
        let entry = shown.next().ok_or(Errno::ENOENT)?;
        return Ok(vec![header.reply(SOCK_DIAG_BY_FAMILY, 0, port, &emit(entry, wanted.extensions))]);
    }
    let multi = libc::NLM_F_MULTI as u16;
    let mut parts = Vec::new();
    let mut part = Vec::new();
    for entry in shown.filter(|entry| wanted.includes(entry)) {
        let message = header.reply(SOCK_DIAG_BY_FAMILY, multi, port, &emit(entry, wanted.extensions));
        if !part.is_empty() && part.len() + message.len() > PART {
            parts.push(std::mem::take(&mut part));
        }
        part.extend(message);
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts.push(header.reply(libc::NLMSG_DONE as u16, multi, port, &0i32.to_ne_bytes()));
    Ok(parts)
}

fn entries_of(protocol: u8) -> bool {
    [libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_UDPLITE, libc::IPPROTO_RAW]
        .contains(&i32::from(protocol))
}

/// `struct nlmsgerr`: the error and the request.
fn error(header: &Header, port: u32, errno: Option<Errno>, message: &[u8]) -> Vec<u8> {
    let mut body = errno.map_or(0, |errno| -(errno as i32)).to_ne_bytes().to_vec();
    body.extend(if errno.is_some() { message } else { &message[..HEADER] });
    header.reply(libc::NLMSG_ERROR as u16, 0, port, &body)
}

/// What a request asks for.
#[derive(Debug)]
struct Wanted<'a> {
    protocol: u8,
    extensions: u8,
    /// A bit for each state.
    states: u32,
    id: &'a [u8],
    /// A filter, in the instructions of linux/inet_diag.h.
    filter: Option<&'a [u8]>,
}

impl<'a> Wanted<'a> {
    fn parse(body: &'a [u8]) -> Option<Self> {
        let (request, mut attributes) = body.split_at_checked(REQUEST)?;
        let mut wanted = Wanted {
            protocol: request[1],
            extensions: request[2],
            states: u32_at(request, 4)?,
            id: &request[8..],
            filter: None,
        };
        while let (Some(len), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
            let value = attributes.get(4..usize::from(len))?;
            if kind == REQ_BYTECODE {
                wanted.filter = Some(value);
            }
            attributes = attributes.get(usize::from(len).next_multiple_of(4)..).unwrap_or_default();
        }
        Some(wanted)
    }

    fn includes(&self, entry: &Entry) -> bool {
        let port =
            |at: usize, port: u16| [0, port].contains(&u16::from_be_bytes([self.id[at], self.id[at + 1]]));
        self.states & 1u32.checked_shl(entry.state.into()).unwrap_or(0) != 0
            && port(0, entry.local.port())
            && port(2, entry.peer.port())
            && self.filter.is_none_or(|filter| matches(filter, entry))
    }

    /// Whether it is the one that a request without NLM_F_DUMP names, by its addresses or its cookie.
    fn names(&self, entry: &Entry) -> bool {
        let id = identify(entry);
        let any = self.id[40..ID] == [0xff; 8];
        self.id[..36] == id[..36] && (any || self.id[40..ID] == id[40..ID])
    }
}

/// `struct inet_diag_sockid`
fn identify(entry: &Entry) -> [u8; ID] {
    let mut id = [0; ID];
    id[0..2].copy_from_slice(&entry.local.port().to_be_bytes());
    id[2..4].copy_from_slice(&entry.peer.port().to_be_bytes());
    for (at, addr) in [(4, entry.local.ip()), (20, entry.peer.ip())] {
        let addr = octets(addr, entry.family);
        id[at..at + addr.len()].copy_from_slice(&addr);
    }
    id[36..40].copy_from_slice(&entry.device.to_ne_bytes());
    id[40..48].copy_from_slice(&entry.cookie.to_ne_bytes());
    id
}

/// An address in the form of its socket's family.
fn octets(addr: IpAddr, family: u8) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) if i32::from(family) == libc::AF_INET => addr.octets().to_vec(),
        IpAddr::V4(addr) if addr.is_unspecified() => Ipv6Addr::UNSPECIFIED.octets().to_vec(),
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

/// `struct inet_diag_msg` and attributes.
fn emit(entry: &Entry, extensions: u8) -> Vec<u8> {
    let timer = if entry.remaining.is_some() { TIMER_TIME_WAIT } else { 0 };
    let mut message = vec![entry.family, entry.state, timer, 0];
    message.extend(identify(entry));
    let remaining = entry.remaining.map_or(0, |time| u32::try_from(time.as_millis()).unwrap_or(u32::MAX));
    // When the timer comes, queues, the user and the inode.
    for number in [remaining, entry.unread, entry.unsent, entry.user, entry.inode] {
        message.extend(number.to_ne_bytes());
    }
    debug_assert_eq!(message.len(), MESSAGE);
    if i32::from(entry.family) == libc::AF_INET6 {
        attribute(&mut message, SKV6ONLY, &[u8::from(entry.only_ipv6)]);
    }
    let asks = |kind: u16| extensions & (1 << (kind - 1)) != 0;
    // What waits, without what the system needs to describe it: there is none here.
    let (unread, unsent) = if entry.state == LISTEN { (0, 0) } else { (entry.unread, entry.unsent) };
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>();
    if asks(MEMINFO) {
        attribute(&mut message, MEMINFO, &words(&[unread, unsent, 0, 0]));
    }
    if asks(SKMEMINFO) {
        // linux/sock_diag.h, SK_MEMINFO_*: received, its bound, sent, its bound, ahead, queued, options, backlog, drops.
        let [receive, send] = entry.buffers;
        attribute(&mut message, SKMEMINFO, &words(&[unread, receive, 0, send, 0, unsent, 0, 0, 0]));
    }
    if asks(INFO) && !entry.info.is_empty() {
        attribute(&mut message, INFO, &entry.info);
    }
    if asks(CONG) && !entry.congestion.is_empty() {
        attribute(&mut message, CONG, &entry.congestion);
    }
    message
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend(((4 + value.len()) as u16).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// Runs a filter, as inet_diag_bc_run() does. Jumps go forward only; one that leads anywhere but to the filter's end
/// says no, as what is none of its instructions does.
fn matches(filter: &[u8], entry: &Entry) -> bool {
    let mut at = 0;
    while at < filter.len() {
        let Some(&[code, yes, low, high]) = filter.get(at..at + 4).and_then(|op| op.first_chunk()) else {
            return false;
        };
        let Some(holds) = holds(code, &filter[at + 4..], entry) else { return false };
        let step = if holds { usize::from(yes) } else { usize::from(u16::from_ne_bytes([low, high])) };
        if step < 4 {
            return false;
        }
        at += step;
    }
    at == filter.len()
}

/// Whether an instruction's condition holds; `rest` is what follows the instruction. None for no instruction.
fn holds(code: u8, rest: &[u8], entry: &Entry) -> Option<bool> {
    // In the second half of a further instruction.
    let operand = || u16_at(rest, 2);
    let (local, peer) = (entry.local, entry.peer);
    Some(match code {
        // NOP, JMP
        0 => true,
        1 => false,
        // S_GE, S_LE, D_GE, D_LE, AUTO, S_COND, D_COND, DEV_COND
        2 => local.port() >= operand()?,
        3 => local.port() <= operand()?,
        4 => peer.port() >= operand()?,
        5 => peer.port() <= operand()?,
        // Whether the port was chosen by the stack, which nobody keeps.
        6 => false,
        7 => host(rest, local, entry.family)?,
        8 => host(rest, peer, entry.family)?,
        9 => u32_at(rest, 0)? == entry.device,
        // MARK_COND: there are no marks.
        10 => u32_at(rest, 0)? == 0,
        // S_EQ, D_EQ
        11 => local.port() == operand()?,
        12 => peer.port() == operand()?,
        _ => return None,
    })
}

/// `struct inet_diag_hostcond`
fn host(condition: &[u8], addr: SocketAddr, family: u8) -> Option<bool> {
    let (wanted, prefix) = (*condition.first()?, usize::from(*condition.get(1)?));
    let port = u32_at(condition, 4)? as i32;
    if port != -1 && port != i32::from(addr.port()) {
        return Some(false);
    }
    let mut octets = octets(addr.ip(), family);
    if i32::from(wanted) != libc::AF_UNSPEC && wanted != family {
        // An IPv4 address in IPv6's form is one of IPv4.
        match octets.split_first_chunk::<12>() {
            Some((&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff], rest))
                if i32::from(wanted) == libc::AF_INET =>
            {
                octets = rest.to_vec();
            }
            _ => return Some(false),
        }
    }
    let network = condition.get(8..8 + prefix.div_ceil(8))?;
    let bit = |octets: &[u8], at: usize| octets.get(at / 8).map(|octet| octet >> (7 - at % 8) & 1);
    Some((0..prefix).all(|at| bit(&octets, at).is_some_and(|found| Some(found) == bit(network, at))))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}
