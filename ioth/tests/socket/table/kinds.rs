//! Kinds of sockets, and such with something to be received.

use ioth::MsgFlags;
use ioth::berkeley::*;

use crate::fixture::*;
use crate::packet::{Ether, OURS, at, cooked};
use crate::raw::{echo, host};
use ioth::SockAddr;

/// A kind of socket.
pub(super) struct Kind {
    pub(super) word: &'static str,
    /// 0: that of the pair.
    domain: i32,
    kind: i32,
    /// Over IPv4 and IPv6.
    protocols: [i32; 2],
}

const fn kind(word: &'static str, domain: i32, kind: i32, protocols: [i32; 2]) -> Kind {
    Kind { word, domain, kind, protocols }
}

const PING: [i32; 2] = [libc::IPPROTO_ICMP, libc::IPPROTO_ICMPV6];
/// RFC 3692 §2.1: a protocol for experiments.
const EXPERIMENT: i32 = 253;

pub(super) const KINDS: [Kind; 8] = [
    kind("stream", 0, libc::SOCK_STREAM, [0; 2]),
    kind("datagram", 0, libc::SOCK_DGRAM, [0; 2]),
    kind("UDP-Lite", 0, libc::SOCK_DGRAM, [libc::IPPROTO_UDPLITE; 2]),
    kind("raw", 0, libc::SOCK_RAW, [EXPERIMENT; 2]),
    kind("raw ICMP", 0, libc::SOCK_RAW, PING),
    kind("ping", 0, libc::SOCK_DGRAM, PING),
    kind("packet", libc::AF_PACKET, libc::SOCK_RAW, [0; 2]),
    kind("netlink", libc::AF_NETLINK, libc::SOCK_RAW, [libc::NETLINK_ROUTE; 2]),
];

impl Kind {
    /// A fresh one of a's.
    pub(super) fn open(&self, pair: &Pair) -> Fd {
        let domain = if self.domain == 0 { pair.domain() } else { self.domain };
        let protocol = self.protocols[usize::from(pair.a_addr.is_ipv6())];
        pair.open(&pair.a, domain, self.kind, protocol).unwrap()
    }
}

/// What was said of each kind, said once where it is the same.
pub(super) fn grouped<'a>(outcomes: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut groups: Vec<(String, String)> = Vec::new();
    for (word, said) in outcomes {
        match groups.iter_mut().find(|(_, same)| *same == said) {
            Some((words, _)) => *words = format!("{words}, {word}"),
            None => groups.push((word.to_owned(), said)),
        }
    }
    match &groups[..] {
        [(_, all)] => all.clone(),
        _ => groups.iter().map(|(words, said)| format!("{words}: {said}")).collect::<Vec<_>>().join("<br>"),
    }
}

/// A probe of a fresh socket of each kind.
pub(super) fn of_each(pair: &Pair, probe: impl Fn(&Fd) -> String) -> String {
    grouped(KINDS.iter().map(|kind| (kind.word, probe(&kind.open(pair)))))
}

/// A socket that something can be sent by, and that something comes to.
pub(super) struct Scene<'a> {
    pub(super) word: &'static str,
    pub(super) fd: Fd,
    /// Has something arrive: `data`, with headers where the kind of socket shows them.
    pub(super) fill: Box<dyn Fn() + 'a>,
    /// What is sent, and where to if the socket is not connected.
    pub(super) message: Vec<u8>,
    pub(super) to: Option<SockAddr>,
}

const DATA: &[u8] = b"data";

/// One of each kind but the raw sockets of ICMP.
pub(super) fn scenes(pair: &Pair) -> Vec<Scene<'_>> {
    let mut scenes = vec![stream(pair)];
    let [_, datagram, lite, raw, ..] = &KINDS;
    scenes.extend([datagram, lite, raw].map(|kind| between(pair, kind)));
    scenes.extend([ping(pair), frames(pair), netlink(pair)]);
    scenes
}

fn stream(pair: &Pair) -> Scene<'_> {
    let (fd, server) = pair.connected();
    let number = duplicate(&fd);
    let fill = move || {
        let there = unread(&number);
        send_all(&server, DATA);
        until(|| unread(&number) == there + DATA.len());
    };
    Scene { word: "stream", fd, fill: Box::new(fill), message: DATA.into(), to: None }
}

/// A socket connected to one like it.
fn between<'a>(pair: &'a Pair, kind: &'static Kind) -> Scene<'a> {
    let open = |stack| {
        let protocol = kind.protocols[0];
        pair.open(stack, pair.domain(), kind.kind, protocol).unwrap()
    };
    let (fd, _) = bind_any(&open(&pair.a), pair.a_addr);
    let (other, _) = bind_any(&open(&pair.b), pair.b_addr);
    connect(fd.0, name(&other)).unwrap();
    connect(other.0, name(&fd)).unwrap();
    let own = duplicate(&fd);
    let fill = move || arrives(&own, &other, DATA, None);
    Scene { word: kind.word, fd, fill: Box::new(fill), message: DATA.into(), to: None }
}

fn ping(pair: &Pair) -> Scene<'_> {
    let fd = KINDS[5].open(pair);
    connect(fd.0, host(pair.b_addr)).unwrap();
    let request = echo(pair, false, 1, DATA);
    let (own, message) = (duplicate(&fd), request.clone());
    let fill = move || arrives(&own, &own, &message, None);
    Scene { word: "ping", fd, fill: Box::new(fill), message: request, to: None }
}

fn frames(pair: &Pair) -> Scene<'_> {
    let [a, b] = [&pair.a, &pair.b].map(|stack| Ether::of(pair, stack));
    let (fd, other) = (cooked(pair, &pair.a, OURS), cooked(pair, &pair.b, 0));
    bind(fd.0, at(a.ifindex, OURS)).unwrap();
    let own = duplicate(&fd);
    let fill = move || arrives(&own, &other, DATA, Some(a.to(b, OURS)));
    Scene { word: "packet", fd, fill: Box::new(fill), message: DATA.into(), to: Some(b.to(a, OURS)) }
}

fn netlink(pair: &Pair) -> Scene<'_> {
    let fd = KINDS[7].open(pair);
    // The loopback interface, by its index.
    let mut request = vec![0; 32];
    request[..4].copy_from_slice(&32u32.to_ne_bytes());
    request[4..6].copy_from_slice(&libc::RTM_GETLINK.to_ne_bytes());
    request[6..8].copy_from_slice(&(libc::NLM_F_REQUEST as u16).to_ne_bytes());
    request[20..24].copy_from_slice(&1u32.to_ne_bytes());
    let (own, message) = (duplicate(&fd), request.clone());
    let fill = move || arrives(&own, &own, &message, None);
    Scene { word: "netlink", fd, fill: Box::new(fill), message: request, to: None }
}

fn duplicate(fd: &Fd) -> Fd {
    Fd(dup(fd.0).unwrap())
}

/// Waits for what `from` sends to be there.
fn arrives(fd: &Fd, from: &Fd, message: &[u8], to: Option<SockAddr>) {
    let sent = match to {
        Some(to) => sendto(from.0, message, NONE, to),
        None => send(from.0, message, NONE),
    };
    assert_eq!(sent.unwrap(), message.len());
    wait(fd, ioth::Events::IN);
}

impl Scene<'_> {
    /// Takes what there is: the bytes of each call.
    pub(super) fn drain(&self) -> Vec<usize> {
        let mut buffer = vec![0; 1 << 16];
        std::iter::from_fn(|| recv(self.fd.0, &mut buffer, MsgFlags::DONTWAIT).ok()).collect()
    }
}
