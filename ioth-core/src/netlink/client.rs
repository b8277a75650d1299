//! One question, its answers: sequence numbers, multi-part replies, acknowledgements.

use std::fmt;
use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;
use std::time::Duration;

use netlink_packet_core::{
    ErrorBuffer, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP_INTR, NLM_F_MULTIPART, NLM_F_REQUEST,
    NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN, NetlinkBuffer, NetlinkMessage, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;

use super::{Error, Result};
use crate::{Domain, Errno, MsgFlags, RecvMsg, SendMsg, SockAddr, Socket, SocketType, Stack};

/// A netlink socket and the state of its conversation.
pub(super) struct Client {
    socket: Arc<dyn Socket>,
    /// Our `nl_pid`, which replies carry.
    port: u32,
    sequence: u32,
    /// Room for one datagram; grows to the longest.
    buffer: Vec<u8>,
}

impl Client {
    pub(super) fn new(stack: &dyn Stack) -> Result<Self> {
        let socket = stack.socket(Domain::NETLINK, SocketType::RAW, libc::NETLINK_ROUTE)?;
        socket.bind(&SockAddr::Netlink { port: 0, groups: 0 })?;
        let port = match socket.local_addr()? {
            SockAddr::Netlink { port, .. } => port,
            _ => return Err(Error::Malformed("the socket's own address is not netlink's")),
        };
        // All three are comforts: words to the errors, short errors, and an end to waiting for a stack
        // that does not answer. A stack that lacks them is as good.
        let on = 1i32.to_ne_bytes();
        let _ = socket.set_option(libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, &on);
        let _ = socket.set_option(libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, &on);
        let _ = socket.set_option(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &timeval(ANSWER));
        Ok(Client { socket, port, sequence: 0, buffer: vec![0; 8192] })
    }

    /// Sends a request and waits for its acknowledgement.
    pub(super) fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        self.send(message, flags | NLM_F_ACK)?;
        self.replies(|reply| Ok(matches!(reply, Reply::Acknowledged)))
    }

    /// Sends a request and waits for its acknowledgement; `take` gets the payloads of `kind` that come before it.
    pub(super) fn request_with(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        kind: u16,
        mut take: impl FnMut(&[u8]),
    ) -> Result<()> {
        self.send(message, flags | NLM_F_ACK)?;
        self.replies(|reply| {
            if let Reply::Object { kind: given, payload, .. } = reply {
                if given == kind {
                    take(payload);
                }
                return Ok(false);
            }
            Ok(true)
        })
    }

    /// Sends a request for one object and gives the payload of the first reply of `kind` to `take`.
    pub(super) fn get(
        &mut self,
        message: RouteNetlinkMessage,
        kind: u16,
        mut take: impl FnMut(&[u8]),
    ) -> Result<()> {
        // No NLM_F_ACK: the object is the answer, an acknowledgement would stay behind in the queue.
        self.send(message, 0)?;
        self.replies(|reply| match reply {
            Reply::Object { kind: given, payload, .. } if given == kind => {
                take(payload);
                Ok(true)
            }
            Reply::Acknowledged | Reply::Done => {
                Err(Error::Malformed("an acknowledgement without the object"))
            }
            Reply::Object { .. } => Ok(false),
        })
    }

    /// Dumps a table: `take` gets every payload of `kind`. False when the table changed meanwhile.
    pub(super) fn dump(
        &mut self,
        message: &RouteNetlinkMessage,
        flags: u16,
        kind: u16,
        mut take: impl FnMut(&[u8]),
    ) -> Result<bool> {
        self.send(message.clone(), flags)?;
        let mut consistent = true;
        let mut objects = 0;
        self.replies(|reply| match reply {
            Reply::Object { kind: given, payload, flags } => {
                objects += 1;
                if objects > MAX_OBJECTS {
                    return Err(Error::Malformed("a table without end"));
                }
                consistent &= flags & NLM_F_DUMP_INTR == 0;
                if given == kind {
                    take(payload);
                }
                // A table of one part is not followed by NLMSG_DONE.
                Ok(flags & NLM_F_MULTIPART == 0)
            }
            Reply::Done | Reply::Acknowledged => Ok(true),
        })?;
        Ok(consistent)
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = flags | NLM_F_REQUEST;
        message.header.sequence_number = self.sequence;
        message.header.port_number = self.port;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let stack = SockAddr::Netlink { port: 0, groups: 0 };
        let data = [IoSlice::new(&bytes)];
        let sent = SendMsg { addr: Some(&stack), ..SendMsg::new(&data) };
        retry(|| self.socket.send(&sent, MsgFlags::empty()))?;
        Ok(())
    }

    /// Gives each reply to the last request to `take`, until it says that the answer is complete.
    fn replies(&mut self, mut take: impl FnMut(Reply<'_>) -> Result<bool>) -> Result<()> {
        let mut strangers = 0;
        loop {
            let Some(len) = self.receive()? else {
                strangers += 1;
                if strangers > MAX_STRANGERS {
                    return Err(Error::Malformed("only messages of others"));
                }
                continue;
            };
            let mut rest = &self.buffer[..len];
            let mut ours = false;
            while !rest.is_empty() {
                let (message, next) = split(rest)?;
                rest = next;
                if message.sequence_number() != self.sequence || message.port_number() != self.port {
                    continue;
                }
                ours = true;
                if let Some(reply) = read(&message)?
                    && take(reply)?
                {
                    return Ok(());
                }
            }
            if !ours {
                strangers += 1;
            }
            if strangers > MAX_STRANGERS {
                return Err(Error::Malformed("only replies to other questions"));
            }
        }
    }

    /// Receives one datagram into `buffer` and gives its length; `None` when it isn't from the stack.
    fn receive(&mut self) -> Result<Option<usize>> {
        // netlink(7): a datagram that does not fit is cut and lost, so its size is asked first.
        let (size, _) = self.recv(MsgFlags::PEEK | MsgFlags::TRUNC)?;
        if size > MAX_DATAGRAM {
            // Takes it off the queue, cut.
            self.recv(MsgFlags::TRUNC)?;
            return Err(Error::Malformed("a datagram of more than 16 MiB"));
        }
        if size > self.buffer.len() {
            self.buffer.resize(size.next_multiple_of(4096), 0);
        }
        let (len, from) = self.recv(MsgFlags::TRUNC)?;
        if len > self.buffer.len() {
            return Err(Error::Malformed("a datagram longer than announced"));
        }
        // netlink(7): anyone may send to our port; the stack itself is port 0.
        let stranger = matches!(from, Some(SockAddr::Netlink { port, .. }) if port != 0);
        Ok((!stranger).then_some(len))
    }

    fn recv(&mut self, flags: MsgFlags) -> Result<(usize, Option<SockAddr>)> {
        let mut data = [IoSliceMut::new(&mut self.buffer)];
        let mut message = RecvMsg::new(&mut data);
        let len = retry(|| self.socket.recv(&mut message, flags))?;
        Ok((len, message.addr))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Client { socket, port, sequence, .. } = self;
        f.debug_struct("Client")
            .field("socket", socket)
            .field("port", port)
            .field("sequence", sequence)
            .finish_non_exhaustive()
    }
}

/// A reply that carries no error.
enum Reply<'a> {
    /// NLMSG_ERROR with code 0.
    Acknowledged,
    /// NLMSG_DONE.
    Done,
    /// An object of the table.
    Object { kind: u16, flags: u16, payload: &'a [u8] },
}

/// How long a stack may think about a request before it counts as dead.
const ANSWER: Duration = Duration::from_secs(10);

/// Linux sends at most 32 KiB at a time, a single object with many virtual functions somewhat more.
const MAX_DATAGRAM: usize = 16 << 20;

/// More than any real table: full Internet routes are about a million.
const MAX_OBJECTS: usize = 16 << 20;

/// How many datagrams that are not for us are skipped in one answer.
const MAX_STRANGERS: u32 = 4096;

/// Cuts the first message off: its checked view and what follows.
fn split(bytes: &[u8]) -> Result<(NetlinkBuffer<&[u8]>, &[u8])> {
    let message =
        NetlinkBuffer::new_checked(bytes).map_err(|_| Error::Malformed("a message's length is wrong"))?;
    let len = message.length() as usize;
    // NLMSG_ALIGN; the last message may lack its padding.
    let next = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    Ok((message, next))
}

/// What the message says; `None` for one to be skipped.
fn read<'a>(message: &NetlinkBuffer<&'a [u8]>) -> Result<Option<Reply<'a>>> {
    let payload = message.payload();
    let flags = message.flags();
    match message.message_type() {
        NLMSG_ERROR => {
            let code = ErrorBuffer::new_checked(payload)
                .map_err(|_| Error::Malformed("an error message that is too short"))?
                .code()
                .map_or(0, i32::from);
            refusal(code, error_attributes(payload, flags))?;
            Ok(Some(Reply::Acknowledged))
        }
        NLMSG_DONE => {
            // Linux puts the dump's result here; an empty one means success.
            let (code, attributes) = payload
                .split_first_chunk()
                .map_or((0, payload), |(code, rest)| (i32::from_ne_bytes(*code), rest));
            refusal(code, if flags & NLM_F_ACK_TLVS != 0 { attributes } else { &[] })?;
            Ok(Some(Reply::Done))
        }
        NLMSG_OVERRUN => Err(Errno::ENOBUFS.into()),
        // netlink(7): types below NLMSG_MIN_TYPE are control messages; NLMSG_NOOP is one of them.
        kind if kind < NLMSG_MIN_TYPE => Ok(None),
        kind => Ok(Some(Reply::Object { kind, flags, payload })),
    }
}

const NLMSG_MIN_TYPE: u16 = 0x10;

/// `NLMSGERR_ATTR_MSG`: what went wrong, in words.
const NLMSGERR_ATTR_MSG: u16 = 1;

/// The error that a negative code stands for, with the extended acknowledgement's text.
fn refusal(code: i32, attributes: &[u8]) -> Result<()> {
    if code >= 0 {
        return Ok(());
    }
    let errno = code.checked_neg().map(Errno::from_raw).unwrap_or(Errno::UnknownErrno);
    let message = NlasIterator::new(attributes)
        .map_while(std::result::Result::ok)
        .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)
        .map(|attribute| {
            let text = String::from_utf8_lossy(attribute.value());
            text.trim_end_matches('\0').chars().filter(|c| !c.is_control()).collect()
        })
        .unwrap_or_default();
    Err(Error::Refused { errno, message })
}

/// The attributes of an NLMSG_ERROR: behind the code and the request's header, or whole request.
fn error_attributes(payload: &[u8], flags: u16) -> &[u8] {
    if flags & NLM_F_ACK_TLVS == 0 {
        return &[];
    }
    let Some(request) = payload.get(4..) else { return &[] };
    let echoed = match request.first_chunk() {
        Some(len) if flags & NLM_F_CAPPED == 0 => u32::from_ne_bytes(*len) as usize,
        _ => 16,
    };
    echoed.checked_next_multiple_of(4).and_then(|at| request.get(at..)).unwrap_or(&[])
}

/// `struct timeval`.
pub(super) fn timeval(time: Duration) -> Vec<u8> {
    let seconds = libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX);
    let micros = time.subsec_micros() as libc::suseconds_t;
    [&seconds.to_ne_bytes()[..], &micros.to_ne_bytes()].concat()
}

/// Repeats a call that a signal interrupted; a time-out (`EAGAIN`) becomes `ETIMEDOUT`.
pub(super) fn retry(mut call: impl FnMut() -> crate::Result<usize>) -> Result<usize> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Err(Errno::ETIMEDOUT.into()),
            other => return Ok(other?),
        }
    }
}
