//! Every call in every state of a socket.

pub(super) mod datagram;
pub(super) mod stream;

use std::io;

use super::{Row, row};
use crate::fixture::*;
use ioth::berkeley::ioctl;

/// A socket in some state, which does not block, and what has to stay open beside it.
struct Subject {
    fd: Fd,
    _others: Vec<Fd>,
}

type State = fn(&Pair) -> Subject;
type Call = fn(&Pair, &Fd) -> String;

/// A row for each call in each state; `remark` has the reasons for differences, by call and state.
fn cross(
    states: &[(&str, State)],
    calls: &[(&str, Call)],
    remark: fn(&str, &str) -> &'static str,
) -> Vec<Row> {
    let mut rows = Vec::new();
    for &(state, make) in states {
        for &(call, probe) in calls {
            let probe = move |pair: &Pair| {
                let subject = make(pair);
                probe(pair, &subject.fd)
            };
            rows.push(row(format!("{call}: {state}"), probe, remark(call, state)));
        }
    }
    rows
}

fn subject<const N: usize>(fd: Fd, others: [Fd; N]) -> Subject {
    nonblocking(&fd, true);
    Subject { fd, _others: others.into() }
}

/// An ioctl(2) that gives an int.
/// linux/sockios.h
const SIOCOUTQNSD: u64 = 0x894b;

fn request(fd: &Fd, request: u64) -> io::Result<i32> {
    let mut number = [0; 4];
    ioctl(fd.0, request, &mut number)?;
    Ok(i32::from_ne_bytes(number))
}
