//! NETLINK_ROUTE: requests and the forms of their answers (netlink(7), rtnetlink(7)).

use std::net::IpAddr;

use ioth::SockAddr;
use ioth::berkeley::*;

use crate::fixture::*;
use crate::ioctl::device;

/// Lengths of `struct nlmsghdr`, `ifaddrmsg` and `ifinfomsg`, in bytes.
const HEADER: usize = 16;
const IFADDRMSG: usize = 8;
const IFINFOMSG: usize = 16;
const SEQUENCE: u32 = 77;
const REQUEST: i32 = libc::NLM_F_REQUEST;

#[derive(Debug)]
struct Message {
    kind: u16,
    flags: i32,
    sequence: u32,
    port: u32,
    body: Vec<u8>,
}

fn open(pair: &Pair) -> Fd {
    pair.open(&pair.a, libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE).unwrap()
}

/// The port that getsockname(2) tells.
fn port(fd: &Fd) -> u32 {
    match getsockname(fd.0).unwrap() {
        SockAddr::Netlink { port, groups: 0 } => port,
        other => panic!("{other:?}"),
    }
}

fn ask(fd: &Fd, kind: u16, flags: i32, body: &[u8]) {
    let header = [
        &((HEADER + body.len()) as u32).to_ne_bytes()[..],
        &kind.to_ne_bytes(),
        &(flags as u16).to_ne_bytes(),
        &SEQUENCE.to_ne_bytes(),
        &0u32.to_ne_bytes(),
    ];
    let request = [&header.concat()[..], body].concat();
    assert_eq!(send(fd.0, &request, NONE).unwrap(), request.len());
}

/// The messages of one datagram.
fn answers(fd: &Fd) -> Vec<Message> {
    let mut buffer = vec![0; 1 << 16];
    let len = recv(fd.0, &mut buffer, NONE).unwrap();
    let (mut rest, mut messages) = (&buffer[..len], Vec::new());
    while rest.len() >= HEADER {
        let word = |at: usize| u32::from_ne_bytes(rest[at..at + 4].try_into().unwrap());
        let half = |at: usize| u16::from_ne_bytes(rest[at..at + 2].try_into().unwrap());
        let length = word(0) as usize;
        messages.push(Message {
            kind: half(4),
            flags: half(6).into(),
            sequence: word(8),
            port: word(12),
            body: rest[HEADER..length].to_vec(),
        });
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    messages
}

/// The value of an attribute behind a structure of `offset` bytes.
fn attribute(body: &[u8], offset: usize, wanted: u16) -> Option<&[u8]> {
    let mut rest = body.get(offset..)?;
    while let Some((header, _)) = rest.split_first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        if u16::from_ne_bytes([header[2], header[3]]) == wanted {
            return rest.get(4..length);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// The errno of an NLMSG_ERROR: 0 acknowledges.
#[track_caller]
fn error_of(message: &Message) -> i32 {
    assert_eq!(i32::from(message.kind), libc::NLMSG_ERROR, "{message:?}");
    assert_eq!(message.sequence, SEQUENCE);
    -i32::from_ne_bytes(*message.body.first_chunk().unwrap())
}

pub(crate) fn names(pair: &Pair) {
    let (one, other) = (open(pair), open(pair));
    assert_eq!(port(&one), 0);
    for fd in [&one, &other] {
        bind(fd.0, SockAddr::Netlink { port: 0, groups: 0 }).unwrap();
        assert_ne!(port(fd), 0);
    }
    assert_ne!(port(&one), port(&other));
    // A port is one socket's, and a socket's for good.
    let third = open(pair);
    let taken = SockAddr::Netlink { port: port(&one), groups: 0 };
    assert_eq!(errno(bind(third.0, taken)), libc::EADDRINUSE);
    assert_eq!(errno(bind(one.0, SockAddr::Netlink { port: port(&other), groups: 0 })), libc::EINVAL);
    // Who sends has one, too.
    ask(&third, libc::RTM_GETLINK, REQUEST | libc::NLM_F_DUMP, &[0; IFINFOMSG]);
    assert_ne!(port(&third), 0);
}

pub(crate) fn dump(pair: &Pair) {
    let fd = open(pair);
    let family = pair.domain() as u8;
    ask(&fd, libc::RTM_GETADDR, REQUEST | libc::NLM_F_DUMP, &[family, 0, 0, 0, 0, 0, 0, 0]);
    let own = match pair.a_addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    };
    let mut found = false;
    let done = 'dump: loop {
        for message in answers(&fd) {
            assert_ne!(message.flags & libc::NLM_F_MULTI, 0, "{message:?}");
            assert_eq!((message.sequence, message.port), (SEQUENCE, port(&fd)));
            if i32::from(message.kind) == libc::NLMSG_DONE {
                break 'dump message;
            }
            assert_eq!(message.kind, libc::RTM_NEWADDR);
            assert_eq!(message.body[0], family);
            found |= attribute(&message.body, IFADDRMSG, libc::IFA_ADDRESS) == Some(&own);
        }
    };
    assert_eq!(done.body[..4], [0; 4]);
    assert!(found);
    assert_eq!(errno(recv(fd.0, &mut [0; 64], ioth::MsgFlags::DONTWAIT)), libc::EAGAIN);
}

pub(crate) fn link(pair: &Pair) {
    let (_, device, index) = device(pair);
    let fd = open(pair);
    let request = |index: u32| {
        let mut body = [0; IFINFOMSG];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        body
    };
    ask(&fd, libc::RTM_GETLINK, REQUEST, &request(index));
    let [link] = &answers(&fd)[..] else { panic!("one link") };
    assert_eq!((link.kind, link.flags & libc::NLM_F_MULTI), (libc::RTM_NEWLINK, 0));
    assert_eq!(link.body[4..8], index.to_ne_bytes());
    let name = attribute(&link.body, IFINFOMSG, libc::IFLA_IFNAME).unwrap();
    assert_eq!(name, [device.as_bytes(), &[0]].concat());
    ask(&fd, libc::RTM_GETLINK, REQUEST, &request(999));
    assert_eq!(error_of(&answers(&fd)[0]), libc::ENODEV);
    // An acknowledgement comes behind what was asked for.
    ask(&fd, libc::RTM_GETLINK, REQUEST | libc::NLM_F_ACK, &request(index));
    let mut all = answers(&fd);
    if all.len() < 2 {
        all.extend(answers(&fd));
    }
    let [link, acknowledgement] = &all[..] else { panic!("{all:?}") };
    assert_eq!(link.kind, libc::RTM_NEWLINK);
    assert_eq!(error_of(acknowledgement), 0);
}

pub(crate) fn unknown(pair: &Pair) {
    let fd = open(pair);
    for kind in [1000, 0xffff] {
        ask(&fd, kind, REQUEST, &[0; 16]);
        let all = answers(&fd);
        assert_eq!(error_of(&all[0]), libc::EOPNOTSUPP);
        // The header that was wrong comes back.
        assert_eq!(all[0].body[8..10], kind.to_ne_bytes());
    }
    // What is not a request is not answered, but for an acknowledgement.
    ask(&fd, libc::RTM_GETLINK, libc::NLM_F_ACK, &[0; IFINFOMSG]);
    assert_eq!(error_of(&answers(&fd)[0]), 0);
}
