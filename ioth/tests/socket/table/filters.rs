//! Filters on sockets, on each kind: SO_ATTACH_FILTER and its kin.

use ioth::berkeley::*;

use super::kinds::{KINDS, Kind, grouped};
use super::{Row, row, said, said_number};
use crate::filter::{attach, detach, instruction, load_byte, ret, unless_equal};
use crate::fixture::*;

/// BPF_MAXINSNS
const MOST: usize = 4096;

type Probe = fn(&Fd) -> String;

const PROBES: &[(&str, Probe)] = &[
    ("SO_ATTACH_FILTER", |fd| said(attach(fd, &[ret(1)]))),
    ("SO_ATTACH_FILTER of nothing", |fd| said(attach(fd, &[]))),
    ("SO_ATTACH_FILTER of 4096 instructions", |fd| said(attach(fd, &long(MOST)))),
    ("SO_ATTACH_FILTER of 4097 instructions", |fd| said(attach(fd, &long(MOST + 1)))),
    ("SO_ATTACH_FILTER without an end", |fd| said(attach(fd, &[load_byte(0)]))),
    ("SO_ATTACH_FILTER with a jump behind its end", |fd| said(attach(fd, &[unless_equal(1, 9), ret(0)]))),
    ("SO_ATTACH_FILTER with an unknown instruction", |fd| {
        said(attach(fd, &[instruction(0xff, 0, 0, 0), ret(0)]))
    }),
    ("SO_ATTACH_FILTER with a division by 0", |fd| {
        said(attach(fd, &[instruction(libc::BPF_ALU | libc::BPF_DIV, 0, 0, 0), ret(0)]))
    }),
    ("SO_ATTACH_FILTER with the 16th word of memory", |fd| {
        said(attach(fd, &[instruction(libc::BPF_ST, 0, 0, 16), ret(0)]))
    }),
    ("SO_DETACH_FILTER of none", |fd| said(detach(fd))),
    ("SO_ATTACH_FILTER, SO_DETACH_FILTER, again", |fd| {
        let _ = attach(fd, &[ret(1)]);
        said(detach(fd)) + ", " + &said(detach(fd))
    }),
    ("SO_LOCK_FILTER, SO_ATTACH_FILTER, SO_DETACH_FILTER, SO_LOCK_FILTER of 0", |fd| {
        let lock = |on| said(set_option(fd, libc::SOL_SOCKET, libc::SO_LOCK_FILTER, on));
        [lock(1), said(attach(fd, &[ret(1)])), said(detach(fd)), lock(0), lock(2)].join(", ")
    }),
    ("SO_LOCK_FILTER: get", |fd| said_number(option(fd, libc::SOL_SOCKET, libc::SO_LOCK_FILTER))),
    ("SO_GET_FILTER of none, of one, with room for none, for less", |fd| {
        let get = |room: usize| {
            said_number(getsockopt(fd.0, libc::SOL_SOCKET, libc::SO_GET_FILTER, &mut vec![0; room]))
        };
        let none = get(80);
        let _ = attach(fd, &[load_byte(0), ret(1)]);
        [none, get(80), get(0), get(8)].join(", ")
    }),
];

pub(super) fn rows() -> Vec<Row> {
    let (name, attaches) = PROBES[0];
    let mut rows = vec![row(
        format!("{name} on streams and netlink sockets"),
        move |pair| of_those(pair, false, attaches),
        "not there: `ENOPROTOOPT`, as with the others",
    )];
    rows.extend(PROBES.iter().map(|&(name, probe)| row(name, move |pair| of_those(pair, true, probe), "")));
    rows
}

/// A probe of the kinds of sockets that have filters here, or of the others.
fn of_those(pair: &Pair, having: bool, probe: Probe) -> String {
    let has = |kind: &&Kind| !["stream", "netlink"].contains(&kind.word);
    let kinds = KINDS.iter().filter(|kind| has(kind) == having);
    grouped(kinds.map(|kind| (kind.word, probe(&kind.open(pair)))))
}

fn long(len: usize) -> Vec<[u8; 8]> {
    vec![ret(0); len]
}
