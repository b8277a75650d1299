//! res_query(3) and its kin: the node's name servers, without the C library's resolver.

use std::ffi::c_int;

use ioth_node_calls::control::{self, Question};
use ioth_node_calls::sys::pieces::{Inward, Outward, Pieces};
use ioth_node_calls::{Errno, Result, User};
use ioth_node_proto::Op;

use crate::sys::start;

/// What came of a question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Resolved {
    /// The length of the answer, which may be more than there was room for.
    Answer(usize),
    /// What h_errno becomes, and errno unless it is 0.
    Failure(c_int, Errno),
}

/// netdb.h: `NETDB_INTERNAL`
pub(crate) const INTERNAL: c_int = -1;

/// res_query(3): the answer is written also where it is none that was asked for.
pub(crate) fn query(name: &[u8], class: c_int, kind: c_int, answer: User<u8>, room: c_int) -> Resolved {
    resolve(name, [class, kind, 0, 0], answer, room)
}

/// res_search(3)
pub(crate) fn search(name: &[u8], class: c_int, kind: c_int, answer: User<u8>, room: c_int) -> Resolved {
    resolve(name, [class, kind, 1, 0], answer, room)
}

fn resolve(name: &[u8], args: [c_int; 4], answer: User<u8>, room: c_int) -> Resolved {
    let mut payload = Pieces::<Outward>::new();
    let asked = payload.own(name).and_then(|()| {
        let mut pieces = control::room(answer, usize::try_from(room).map_err(|_| Errno::INVAL)?)?;
        control::exchange(start::client(), &Question::general(Op::Resolve, args), &mut payload, &mut pieces)
    });
    match asked {
        Ok(answer) if answer.reply.args[0] == 0 && answer.reply.result >= 0 => Resolved::Answer(answer.len),
        Ok(answer) if answer.reply.args[0] == 0 => {
            Resolved::Failure(INTERNAL, Errno(answer.reply.result.saturating_neg()))
        }
        Ok(answer) => Resolved::Failure(answer.reply.args[0], Errno(answer.reply.args[1])),
        Err(errno) => Resolved::Failure(INTERNAL, errno),
    }
}

/// res_send(3): the length of the answer.
pub(crate) fn exchange(query: User<u8>, len: c_int, answer: User<u8>, room: c_int) -> Result<usize> {
    let length = |len| usize::try_from(len).map_err(|_| Errno::INVAL);
    let mut payload = control::payload(query, length(len)?)?;
    let mut pieces: Pieces<'_, Inward> = control::room(answer, length(room)?)?;
    let answer = control::ask_with(
        start::client(),
        &Question::general(Op::Exchange, [0; 4]),
        &mut payload,
        &mut pieces,
    )?;
    Ok(answer.len)
}
