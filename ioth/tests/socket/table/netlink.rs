//! Requests of NETLINK_ROUTE: each that asks for something, and those that change links, addresses, routes and neighbours.

use ioth::MsgFlags;
use ioth::berkeley::*;

use super::kinds::KINDS;
use super::{Row, errno_name, row, said};
use crate::fixture::*;

/// Those that ask, and what they ask for: linux/rtnetlink.h.
const GET: [(u16, &str); 22] = [
    (18, "RTM_GETLINK"),
    (22, "RTM_GETADDR"),
    (26, "RTM_GETROUTE"),
    (30, "RTM_GETNEIGH"),
    (34, "RTM_GETRULE"),
    (38, "RTM_GETQDISC"),
    (42, "RTM_GETTCLASS"),
    (46, "RTM_GETTFILTER"),
    (50, "RTM_GETACTION"),
    (58, "RTM_GETMULTICAST"),
    (62, "RTM_GETANYCAST"),
    (66, "RTM_GETNEIGHTBL"),
    (74, "RTM_GETADDRLABEL"),
    (78, "RTM_GETDCB"),
    (82, "RTM_GETNETCONF"),
    (86, "RTM_GETMDB"),
    (90, "RTM_GETNSID"),
    (94, "RTM_GETSTATS"),
    (102, "RTM_GETCHAIN"),
    (106, "RTM_GETNEXTHOP"),
    (110, "RTM_GETLINKPROP"),
    (122, "RTM_GETTUNNEL"),
];
/// Those that change something.
const CHANGE: [(u16, &str); 9] = [
    (16, "RTM_NEWLINK"),
    (17, "RTM_DELLINK"),
    (19, "RTM_SETLINK"),
    (20, "RTM_NEWADDR"),
    (21, "RTM_DELADDR"),
    (24, "RTM_NEWROUTE"),
    (25, "RTM_DELROUTE"),
    (28, "RTM_NEWNEIGH"),
    (29, "RTM_DELNEIGH"),
];
/// Types that there are not, before and behind those that there are.
const NONE_SUCH: [u16; 4] = [4, 15, 128, 200];

const REMARK: &str = "links, addresses, routes and neighbours alone: others are `EOPNOTSUPP`";

pub(super) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (kind, name) in GET {
        rows.push(row(name, move |_pair| asked(_pair, kind), if kind > 30 { REMARK } else { "" }));
    }
    for (kind, name) in CHANGE {
        rows.push(row(name, move |pair| changed(pair, kind), ""));
    }
    for kind in NONE_SUCH {
        rows.push(row(format!("netlink message of type {kind}"), move |pair| changed(pair, kind), ""));
    }
    rows.push(row("netlink message with a wrong length", lengths, ""));
    rows
}

fn asked(pair: &Pair, kind: u16) -> String {
    let dump = libc::NLM_F_DUMP;
    [
        ("header alone", ask(pair, kind, 0, &[])),
        ("a family", ask(pair, kind, 0, &[0; 4])),
        ("zeros", ask(pair, kind, 0, &[0; 64])),
        ("of family 99", ask(pair, kind, 0, &[&[99][..], &[0; 63]].concat())),
        ("dump", ask(pair, kind, dump, &[0; 16])),
        ("dump of family 99", ask(pair, kind, dump, &[&[99][..], &[0; 15]].concat())),
    ]
    .map(|(what, answer)| format!("{what}: {answer}"))
    .join(", ")
}

fn changed(pair: &Pair, kind: u16) -> String {
    [
        ("header alone", ask(pair, kind, 0, &[])),
        ("a family", ask(pair, kind, 0, &[0; 4])),
        ("zeros", ask(pair, kind, 0, &[0; 64])),
        ("of family 99", ask(pair, kind, 0, &[&[99][..], &[0; 63]].concat())),
    ]
    .map(|(what, answer)| format!("{what}: {answer}"))
    .join(", ")
}

/// What comes of a request: an errno, or the kind of the first answer.
fn ask(pair: &Pair, kind: u16, flags: i32, body: &[u8]) -> String {
    send_and_see(pair, 16 + body.len() as u32, kind, flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK, body)
}

fn send_and_see(pair: &Pair, length: u32, kind: u16, flags: i32, body: &[u8]) -> String {
    let fd = KINDS[7].open(pair);
    let header =
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &(flags as u16).to_ne_bytes(), &[0; 8]].concat();
    if let Err(error) = send(fd.0, &[header, body.to_vec()].concat(), NONE) {
        return said::<()>(Err(error));
    }
    let mut answer = vec![0; 1 << 16];
    let Ok(len) = recv(fd.0, &mut answer, MsgFlags::DONTWAIT) else { return "nothing".to_owned() };
    let errno = answer.get(16..20).map_or(0, |errno| i32::from_ne_bytes(errno.try_into().unwrap()));
    match i32::from(u16::from_ne_bytes([answer[4], answer[5]])) {
        libc::NLMSG_ERROR if errno == 0 => "ok".to_owned(),
        libc::NLMSG_ERROR => errno_name(-errno),
        // Where nothing is found it is the first that comes.
        libc::NLMSG_DONE if len >= 20 && errno < 0 => errno_name(-errno),
        _ => "answered".to_owned(),
    }
}

fn lengths(pair: &Pair) -> String {
    let request = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
    [0, 15, 16, 17, 31, 33, 48, 1000]
        .map(|length| {
            format!("{length}: {}", send_and_see(pair, length, libc::RTM_GETLINK, request, &[0; 16]))
        })
        .join(", ")
}
