//! Requests to the node, each on a connection of its own.

use std::ffi::c_int;

use ioth_node_proto::{Op, Reply, Request, request_flags};

use crate::Client;
use crate::deadline::Deadline;
use crate::errno::{Errno, Result};
use crate::sys::pieces::{Inward, Outward, Pieces, SMALL};
use crate::sys::raw::{self, Fd};

/// What is asked of the node, without its payload.
#[derive(Debug)]
pub struct Question {
    /// What.
    pub op: Op,
    /// Its numbers.
    pub args: [i32; 4],
    /// The user's end that it is about.
    pub end: Option<c_int>,
    /// Whether the node is not to wait.
    pub nonblocking: bool,
    /// Whether a signal ends the call (`EINTR`); that closes the connection, which tells the node.
    pub interruptible: bool,
    /// After how many milliseconds the call ends by itself (`EAGAIN`), as by a signal.
    pub timeout: Option<i64>,
}

impl Question {
    /// About a socket.
    pub fn about(end: c_int, op: Op, args: [i32; 4]) -> Question {
        Question { end: Some(end), ..Question::general(op, args) }
    }

    /// About none.
    pub fn general(op: Op, args: [i32; 4]) -> Question {
        Question { op, args, end: None, nonblocking: false, interruptible: false, timeout: None }
    }
}

/// What the node has answered.
#[derive(Debug)]
pub struct Answer {
    /// The reply's head.
    pub reply: Reply,
    /// Bytes of payload, also those that found no room.
    pub len: usize,
    /// The descriptor that came with it, with O_CLOEXEC.
    pub fd: Option<Fd>,
}

/// Asks without payload in either direction.
pub fn ask(client: &Client, question: &Question) -> Result<Answer> {
    ask_with(client, question, &mut Pieces::<Outward>::new(), &mut Pieces::<Inward>::new())
}

/// Asks with a payload, and gets one that goes into `room`.
///
/// # Errors
/// The node's, or one that such calls have for lack of a descriptor (`ENOBUFS`) or of a network (`ENETDOWN`, a node that has
/// gone). `EFAULT` for wrong pointers of the program's among the pieces.
pub fn ask_with<const N: usize, const M: usize>(
    client: &Client,
    question: &Question,
    payload: &mut Pieces<'_, Outward, N>,
    room: &mut Pieces<'_, Inward, M>,
) -> Result<Answer> {
    match exchange(client, question, payload, room)? {
        answer if answer.reply.result < 0 => Err(Errno(answer.reply.result.saturating_neg())),
        answer => Ok(answer),
    }
}

/// As [`ask_with`], for calls whose results are no errno.
pub fn exchange<const N: usize, const M: usize>(
    client: &Client,
    question: &Question,
    payload: &mut Pieces<'_, Outward, N>,
    room: &mut Pieces<'_, Inward, M>,
) -> Result<Answer> {
    let place = client.place().ok_or(Errno::NETDOWN)?;
    let control = raw::control_socket().map_err(|errno| match (question.op, errno) {
        (Op::Socket, errno) => errno,
        (_, Errno::MFILE | Errno::NFILE) => Errno::NOBUFS,
        (_, errno) => errno,
    })?;
    again(|| raw::connect(&control, place.name())).map_err(gone)?;
    let flags = if question.nonblocking { request_flags::NONBLOCK } else { 0 };
    let head = Request { op: question.op, flags, args: question.args, token: place.token }.emit();
    again(|| raw::send(control.number(), &head, payload, question.end, libc::MSG_NOSIGNAL)).map_err(gone)?;
    let mut head = [0; Reply::LEN];
    if let Some(milliseconds) = question.timeout {
        wait(&control, milliseconds, question.interruptible)?;
    }
    let received = loop {
        let with_fd = matches!(question.op, Op::Socket | Op::Lease);
        match raw::receive(control.number(), &mut head, room, with_fd, libc::MSG_TRUNC) {
            Err(Errno::INTR) if !question.interruptible => {}
            received => break received.map_err(gone)?,
        }
    };
    let (reply, _) =
        Reply::parse(head.get(..received.len.min(Reply::LEN)).unwrap_or_default()).ok_or(Errno::NETDOWN)?;
    Ok(Answer { reply, len: received.len - Reply::LEN, fd: received.fd })
}

/// Waits for the answer for as long as the program would.
fn wait(control: &Fd, milliseconds: i64, interruptible: bool) -> Result<()> {
    let end = Deadline::after(milliseconds)?;
    loop {
        match raw::poll(control.number(), libc::POLLIN, Some(end.left()?)) {
            Err(Errno::INTR) if !interruptible => {}
            Ok(0) => return Err(Errno::AGAIN),
            other => return other.map(drop),
        }
    }
}

/// Room for one buffer of the program's.
///
/// # Errors
/// None: there is room for one.
pub fn room(at: crate::sys::memory::User<u8>, len: usize) -> Result<Pieces<'static, Inward, SMALL>> {
    let mut pieces = Pieces::new();
    pieces.user(at, len)?;
    Ok(pieces)
}

/// One buffer of the program's.
///
/// # Errors
/// None: there is room for one.
pub fn payload(at: crate::sys::memory::User<u8>, len: usize) -> Result<Pieces<'static, Outward, SMALL>> {
    let mut pieces = Pieces::new();
    pieces.user(at, len)?;
    Ok(pieces)
}

/// What the errors of the control socket mean for the socket: the node process has gone.
fn gone(errno: Errno) -> Errno {
    match errno {
        Errno::CONNREFUSED | Errno::CONNRESET | Errno::PIPE | Errno::NOTCONN => Errno::NETDOWN,
        errno => errno,
    }
}

fn again<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}
