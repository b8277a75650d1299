//! Names and interfaces: what the node answers, in the shapes that netdb.h and net/if.h define.
//!
//! The C library's own functions would ask the host: their sockets are made inside it, where nobody can stand in for
//! them. Memory is as the C library's freeing functions expect it.

mod addresses;
mod hosts;
mod interfaces;
mod resolver;

pub(crate) use addresses::{Place, getaddrinfo, getnameinfo};
pub(crate) use hosts::{HostFailure, Hostent, Wanted, host};
pub(crate) use interfaces::{getifaddrs, if_indextoname, if_nameindex, if_nametoindex};
pub(crate) use resolver::{INTERNAL, Resolved, exchange, query, search};

use std::ffi::c_int;

use ioth_node_calls::control::{self, Question};
use ioth_node_calls::sys::pieces::{Inward, Outward, Pieces};
use ioth_node_calls::{Errno, Result};
use ioth_node_proto::{Reply, Row};

use crate::sys::start;

/// More addresses than any name has, in bytes; what does not fit is not told.
const ROOM: usize = 16 << 10;
/// The longest name that is looked up, with its NUL, as `NI_MAXHOST`.
pub(crate) const NAME_MAX: usize = 1025;

/// What a `result` means that is none of the call's own codes: an error of the request itself.
fn refused(result: c_int) -> Errno {
    Errno(result.saturating_neg().max(1))
}

/// Asks about names; what the reply lists goes into `row`.
fn ask<'a>(question: &Question, payload: &[u8], row: &'a mut [u8; ROOM]) -> Result<(Reply, Row<'a>)> {
    let mut pieces = Pieces::<Outward>::new();
    pieces.own(payload)?;
    let mut room = Pieces::<Inward>::new();
    room.own(row)?;
    let answer = control::exchange(start::client(), question, &mut pieces, &mut room)?;
    Ok((answer.reply, Row::new(&row[..answer.len.min(ROOM)])))
}
