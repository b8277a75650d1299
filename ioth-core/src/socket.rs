//! The socket: Berkeley's calls as a trait.

use std::fmt;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use bitflags::bitflags;

use crate::{Errno, Events, Result, SockAddr};

/// A socket of some stack.
///
/// The calls are Berkeley's, with Linux's errors. A call that cannot go on at once waits
/// when the socket is blocking (the default), and fails with `EAGAIN` (connect: `EINPROGRESS`)
/// when [`set_nonblocking`](Self::set_nonblocking) is on or `MSG_DONTWAIT` is given. Waiting ends
/// with `EAGAIN` after SO_RCVTIMEO or SO_SNDTIMEO.
///
/// A socket ends when the last `Arc` to it is dropped, when [`close`](Self::close) is called, or,
/// once [`release_fd`](Self::release_fd) has made a descriptor, when its last duplicate is closed.
pub trait Socket: Send + Sync + fmt::Debug + 'static {
    /// Gives the socket a local address, as bind(2).
    fn bind(&self, addr: &SockAddr) -> Result<()>;

    /// Connects, or sets a datagram socket's peer ([`SockAddr::Unspecified`] dissolves it), as connect(2).
    fn connect(&self, addr: &SockAddr) -> Result<()>;

    /// Begins to accept connections, as listen(2). A negative backlog means the maximum.
    fn listen(&self, backlog: i32) -> Result<()>;

    /// Takes the first pending connection and its peer's address, as accept(2). The new socket is blocking.
    fn accept(&self) -> Result<(Arc<dyn Socket>, SockAddr)>;

    /// The local address, as getsockname(2).
    fn local_addr(&self) -> Result<SockAddr>;

    /// The peer's address, as getpeername(2).
    fn peer_addr(&self) -> Result<SockAddr>;

    /// Sends one message or a piece of a stream, as sendmsg(2): the number of bytes taken.
    ///
    /// Never raises SIGPIPE: a broken connection is `EPIPE`.
    fn send(&self, message: &SendMsg<'_>, flags: MsgFlags) -> Result<usize>;

    /// Receives one message or a piece of a stream, as recvmsg(2): the number of bytes written to the
    /// buffers (the datagram's length with `MSG_TRUNC`), 0 at the end of a stream.
    fn recv(&self, message: &mut RecvMsg<'_, '_>, flags: MsgFlags) -> Result<usize>;

    /// Sends several messages, as sendmmsg(2): how many, each with its [`Mmsg::len`] set.
    ///
    /// It ends with the first message that fails or is taken in part only; a waiting call waits in each.
    ///
    /// # Errors
    /// That of the first message. A later message's is not told, and the count is.
    fn send_many(&self, messages: &mut [Mmsg<SendMsg<'_>>], flags: MsgFlags) -> Result<usize> {
        let (sent, error) = send_each(messages, |message| self.send(message, flags));
        counted(sent, error)
    }

    /// Receives several messages, as recvmmsg(2): how many, each with its [`Mmsg::len`] set.
    ///
    /// A waiting call waits for each of them; with `MSG_WAITFORONE` for the first only. `timeout` is
    /// Linux's: it is looked at after each message, so it does not end a call that waits, and holds what is left of it.
    ///
    /// # Errors
    /// That of the first message. A later message's is the next call's.
    fn recv_many(
        &self,
        messages: &mut [Mmsg<RecvMsg<'_, '_>>],
        flags: MsgFlags,
        timeout: Option<&mut Duration>,
    ) -> Result<usize> {
        let (received, error) =
            recv_each(messages, flags, timeout, |message, flags| self.recv(message, flags));
        counted(received, error)
    }

    /// Sets an option from its C representation, as setsockopt(2).
    ///
    /// Where that holds a pointer, the value is what the pointer leads to: for `SO_ATTACH_FILTER` the array of
    /// `struct sock_filter`, not the `struct sock_fprog` (whose length says how many there are).
    fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<()>;

    /// Reads an option into its C representation, as getsockopt(2): the number of bytes written.
    ///
    /// `SO_GET_FILTER` gives the array of `struct sock_filter`, and its length in bytes; without room for one
    /// instruction only the length.
    fn option(&self, level: i32, name: i32, value: &mut [u8]) -> Result<usize>;

    /// Shuts down one or both directions, as shutdown(2).
    fn shutdown(&self, how: Shutdown) -> Result<()>;

    /// A device or socket request, as ioctl(2); `argument` is the C structure, changed in place.
    fn ioctl(&self, request: u64, argument: &mut [u8]) -> Result<i32>;

    /// Switches the calls between waiting and failing with `EAGAIN`.
    fn set_nonblocking(&self, nonblocking: bool) -> Result<()>;

    /// What poll(2) would say of the socket now.
    fn events(&self) -> Events;

    /// Ready when any of `interest` (or `ERR`, `HUP`) holds; else wakes `waker` on the next change towards it.
    fn poll_ready(&self, interest: Events, waker: &Waker) -> std::task::Poll<Events>;

    /// Makes the pollable descriptor of the socket and hands it to the caller, close-on-exec.
    ///
    /// From then on the socket lives as long as the descriptor or a duplicate of it is open anywhere.
    /// O_NONBLOCK of that descriptor belongs to the user; it is not read here (the Berkeley calls do it).
    /// Reading it with read(2) gives data only where [`native`](Self::native) says so.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`; `EEXIST` when it was already made.
    fn release_fd(&self) -> Result<OwnedFd>;

    /// Whether the descriptor is a socket of the kernel: plain system calls on it are this trait's calls.
    fn native(&self) -> bool {
        false
    }

    /// Whether the socket is wherever its released descriptor is, in this process or in others, and nothing of it is kept
    /// here: [`by_descriptor`](Self::by_descriptor) says what to call. True of a native socket.
    fn lives_in_descriptors(&self) -> bool {
        self.native()
    }

    /// The same socket as it is reached by `fd`, the released descriptor or a duplicate, for as long as a call takes: the
    /// Berkeley calls make theirs on it. `None` where it does not matter by which descriptor a call comes.
    fn by_descriptor(&self, fd: BorrowedFd<'_>) -> Option<Arc<dyn Socket>> {
        let _ = fd;
        None
    }

    /// Brings the descriptor's poll bits down to the socket's state, by system calls on `fd`, which is the
    /// released descriptor or a duplicate; the Berkeley calls do it after each call. Does nothing for a native
    /// socket.
    fn settle(&self, fd: BorrowedFd<'_>) {
        let _ = fd;
    }

    /// Told by the Berkeley close(2) when it has closed a duplicate of the released descriptor: if that was the last
    /// one, the socket ends now and not when the reactor comes round to it, so that its port is free when
    /// the call returns. Does nothing for a native socket.
    fn fd_closed(&self) {}

    /// Ends the socket as close(2) does: a stream is shut down gracefully in the background, or reset when
    /// unread data is lost (RFC 2525 §2.17). Later calls fail with `EBADF`.
    fn close(&self) -> Result<()>;
}

/// What [`Socket::send`] sends.
#[derive(Clone, Copy, Debug, Default)]
pub struct SendMsg<'a> {
    /// The data, gathered in order.
    pub data: &'a [IoSlice<'a>],
    /// Destination of a datagram; `None` for the connected peer.
    pub addr: Option<&'a SockAddr>,
    /// Ancillary data as cmsg(3) lays it out.
    pub control: &'a [u8],
}

impl<'a> SendMsg<'a> {
    /// A message without destination and ancillary data.
    pub fn new(data: &'a [IoSlice<'a>]) -> Self {
        SendMsg { data, addr: None, control: &[] }
    }

    /// The message's length in bytes.
    pub fn len(&self) -> usize {
        self.data.iter().map(|slice| slice.len()).sum()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where [`Socket::recv`] puts what it received.
#[derive(Debug)]
pub struct RecvMsg<'a, 'b> {
    /// The buffers, filled in order.
    pub data: &'a mut [IoSliceMut<'b>],
    /// Room for ancillary data as cmsg(3) lays it out.
    pub control: &'a mut [u8],
    /// Set: the source address, where the socket's type has one.
    pub addr: Option<SockAddr>,
    /// Set: how much of `control` was filled, in bytes.
    pub control_len: usize,
    /// Set: `MSG_TRUNC`, `MSG_CTRUNC`.
    pub flags: MsgFlags,
}

impl<'a, 'b> RecvMsg<'a, 'b> {
    /// Buffers without room for ancillary data.
    pub fn new(data: &'a mut [IoSliceMut<'b>]) -> Self {
        RecvMsg { data, control: &mut [], addr: None, control_len: 0, flags: MsgFlags::empty() }
    }

    /// Room for data, in bytes.
    pub fn capacity(&self) -> usize {
        self.data.iter().map(|slice| slice.len()).sum()
    }
}

/// One of several messages, as `struct mmsghdr`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mmsg<M> {
    /// The message: a [`SendMsg`] or a [`RecvMsg`].
    pub message: M,
    /// Set: what send(2) or recv(2) would have returned for it.
    pub len: usize,
}

impl<M> From<M> for Mmsg<M> {
    fn from(message: M) -> Self {
        Mmsg { message, len: 0 }
    }
}

/// sendmmsg(2) by `send`, one message after the other: how many were sent, and why not more.
pub fn send_each(
    messages: &mut [Mmsg<SendMsg<'_>>],
    mut send: impl FnMut(&SendMsg<'_>) -> Result<usize>,
) -> (usize, Option<Errno>) {
    let mut sent = 0;
    for Mmsg { message, len } in messages {
        *len = match send(message) {
            Ok(len) => len,
            Err(error) => return (sent, Some(error)),
        };
        sent += 1;
        if *len < message.len() {
            break;
        }
    }
    (sent, None)
}

/// recvmmsg(2) by `recv`, one message after the other: how many were received, and why not more.
pub fn recv_each<'a, 'b>(
    messages: &mut [Mmsg<RecvMsg<'a, 'b>>],
    flags: MsgFlags,
    mut timeout: Option<&mut Duration>,
    mut recv: impl FnMut(&mut RecvMsg<'a, 'b>, MsgFlags) -> Result<usize>,
) -> (usize, Option<Errno>) {
    let started = timeout.as_ref().map(|timeout| (Instant::now(), **timeout));
    let mut flags_now = flags - MsgFlags::WAITFORONE;
    let mut received = 0;
    for Mmsg { message, len } in messages {
        *len = match recv(message, flags_now) {
            Ok(len) => len,
            Err(error) => return (received, Some(error)),
        };
        received += 1;
        // recvmmsg(2): "Turns on MSG_DONTWAIT after the first message has been received."
        if flags.contains(MsgFlags::WAITFORONE) {
            flags_now |= MsgFlags::DONTWAIT;
        }
        if let (Some(timeout), Some((at, whole))) = (&mut timeout, started) {
            **timeout = whole.saturating_sub(at.elapsed());
            if timeout.is_zero() {
                break;
            }
        }
        // do_recvmmsg(): "Out of band data, return right away".
        if message.flags.contains(MsgFlags::OOB) {
            break;
        }
    }
    (received, None)
}

/// What sendmmsg(2) and recvmmsg(2) return.
fn counted(messages: usize, error: Option<Errno>) -> Result<usize> {
    match error {
        Some(error) if messages == 0 => Err(error),
        _ => Ok(messages),
    }
}

/// Address family, `AF_*`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(pub i32);

impl Domain {
    /// `AF_INET`, ip(7).
    pub const INET: Domain = Domain(libc::AF_INET);
    /// `AF_INET6`, ipv6(7).
    pub const INET6: Domain = Domain(libc::AF_INET6);
    /// `AF_NETLINK`, netlink(7).
    pub const NETLINK: Domain = Domain(libc::AF_NETLINK);
    /// `AF_PACKET`, packet(7).
    pub const PACKET: Domain = Domain(libc::AF_PACKET);
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Domain::INET => f.write_str("AF_INET"),
            Domain::INET6 => f.write_str("AF_INET6"),
            Domain::NETLINK => f.write_str("AF_NETLINK"),
            Domain::PACKET => f.write_str("AF_PACKET"),
            Domain(other) => write!(f, "AF_{other}"),
        }
    }
}

/// Socket type, `SOCK_*`, without the flags that socket(2) packs beside it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketType(pub i32);

impl SocketType {
    /// `SOCK_STREAM`: tcp(7).
    pub const STREAM: SocketType = SocketType(libc::SOCK_STREAM);
    /// `SOCK_DGRAM`: udp(7).
    pub const DGRAM: SocketType = SocketType(libc::SOCK_DGRAM);
    /// `SOCK_RAW`: raw(7), packet(7), netlink(7).
    pub const RAW: SocketType = SocketType(libc::SOCK_RAW);
}

impl fmt::Debug for SocketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            SocketType::STREAM => f.write_str("SOCK_STREAM"),
            SocketType::DGRAM => f.write_str("SOCK_DGRAM"),
            SocketType::RAW => f.write_str("SOCK_RAW"),
            SocketType(other) => write!(f, "SOCK_{other}"),
        }
    }
}

/// Which direction [`Socket::shutdown`] ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// `SHUT_RD`
    Read,
    /// `SHUT_WR`
    Write,
    /// `SHUT_RDWR`
    Both,
}

impl Shutdown {
    /// From the `how` of shutdown(2).
    ///
    /// # Errors
    /// `EINVAL` for another number.
    pub fn from_raw(how: i32) -> Result<Self> {
        match how {
            libc::SHUT_RD => Ok(Shutdown::Read),
            libc::SHUT_WR => Ok(Shutdown::Write),
            libc::SHUT_RDWR => Ok(Shutdown::Both),
            _ => Err(Errno::EINVAL),
        }
    }

    /// The `how` of shutdown(2).
    pub fn as_raw(self) -> i32 {
        match self {
            Shutdown::Read => libc::SHUT_RD,
            Shutdown::Write => libc::SHUT_WR,
            Shutdown::Both => libc::SHUT_RDWR,
        }
    }

    /// Whether reading ends.
    pub fn read(self) -> bool {
        self != Shutdown::Write
    }

    /// Whether writing ends.
    pub fn write(self) -> bool {
        self != Shutdown::Read
    }
}

bitflags! {
    /// Flags of send(2) and recv(2), with Linux's values; unknown bits are kept.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct MsgFlags: i32 {
        /// `MSG_OOB`
        const OOB = libc::MSG_OOB;
        /// `MSG_PEEK`: leave the data queued.
        const PEEK = libc::MSG_PEEK;
        /// `MSG_CTRUNC`: ancillary data was cut.
        const CTRUNC = libc::MSG_CTRUNC;
        /// `MSG_TRUNC`: the datagram was cut; on a call, report its whole length.
        const TRUNC = libc::MSG_TRUNC;
        /// `MSG_DONTWAIT`: fail with `EAGAIN` rather than wait.
        const DONTWAIT = libc::MSG_DONTWAIT;
        /// `MSG_WAITALL`: fill the buffers.
        const WAITALL = libc::MSG_WAITALL;
        /// `MSG_NOSIGNAL`: no SIGPIPE.
        const NOSIGNAL = libc::MSG_NOSIGNAL;
        /// `MSG_MORE`: more data follows.
        const MORE = libc::MSG_MORE;
        /// `MSG_WAITFORONE`: recvmmsg(2) waits for its first message only.
        const WAITFORONE = libc::MSG_WAITFORONE;
        /// `MSG_ERRQUEUE`
        const ERRQUEUE = libc::MSG_ERRQUEUE;
        const _ = !0;
    }
}
