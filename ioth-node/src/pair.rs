//! The pair behind a program's descriptor, and the messages on it.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use ioth::{Errno, Events};
use ioth_node_proto::{EndName, State};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType, UnixAddr,
    bind, getpeername, getsockopt, recv, recvmsg, send, sendmsg, setsockopt, shutdown, socketpair, sockopt,
};
use nix::sys::stat::fstat;

use crate::sys;

type Result<T> = std::result::Result<T, Errno>;

/// What no call here does: wait (so none is interrupted either), or raise SIGPIPE.
const FLAGS: MsgFlags = MsgFlags::MSG_DONTWAIT.union(MsgFlags::MSG_NOSIGNAL);
/// The smallest send buffer, in bytes (`SOCK_MIN_SNDBUF` of the kernel, which rounds up to it).
const SMALL: usize = 1;

/// Makes a pair: the node's end, which is named, and the user's.
pub(crate) fn make(name: &EndName) -> Result<(OwnedFd, OwnedFd)> {
    let kind = if name.is_stream() { SockType::Stream } else { SockType::SeqPacket };
    let (node, user) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)?;
    bind(node.as_raw_fd(), &UnixAddr::new_abstract(&name.emit())?)?;
    Ok((node, user))
}

/// What /proc/PID/fd shows of a descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) user: u32,
    pub(crate) inode: u32,
}

/// Of the user's end. Nothing depends on it but what ss(8) shows; so where it cannot be found there is none.
pub(crate) fn owner(user: BorrowedFd<'_>) -> Owner {
    match fstat(user) {
        // sock_diag(7) has 32 bits for it, as the sockets' numbers have.
        Ok(stat) => Owner { user: stat.st_uid, inode: stat.st_ino as u32 },
        Err(_) => Owner::default(),
    }
}

/// Whose end a descriptor is, if it is one.
pub(crate) fn name_of(user: BorrowedFd<'_>) -> Option<EndName> {
    let peer: UnixAddr = getpeername(user.as_raw_fd()).ok()?;
    EndName::parse(peer.as_abstract()?)
}

/// Lets the user's end say what may be done without asking.
pub(crate) fn set_state(user: BorrowedFd<'_>, state: State) -> Result<()> {
    setsockopt(&user, sockopt::Priority, &state.priority())
}

/// Lets a user's end that is said to be connecting say what has come of it.
pub(crate) fn decide(user: BorrowedFd<'_>, state: State) {
    if getsockopt(&user, sockopt::Priority) == Ok(State::Connecting.priority()) {
        // What does not work now is asked again.
        let _ = set_state(user, state);
    }
}

/// Gives an end the smallest send buffer: about two messages without data.
pub(crate) fn shrink(end: BorrowedFd<'_>) -> Result<()> {
    setsockopt(&end, sockopt::SndBuf, &SMALL)
}

/// Sends from the user's end until it is not writable: how many bytes that took.
pub(crate) fn fill(user: BorrowedFd<'_>) -> usize {
    static ZEROES: [u8; 32 << 10] = [0; 32 << 10];
    let mut filled = 0;
    // The largest send buffer that there is by default has 208 KiB: a bound for a kernel that takes everything.
    while filled < 64 << 20 {
        match send(user.as_raw_fd(), &ZEROES, FLAGS) {
            Ok(sent) => filled += sent,
            Err(_) => break,
        }
    }
    filled
}

/// Receives bytes or a message, of which what does not fit is lost; 0 is the end, or an empty message.
pub(crate) fn receive(end: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    recv(end.as_raw_fd(), buffer, FLAGS)
}

/// Sends bytes, as many as fit, or a message made of pieces.
pub(crate) fn put(end: BorrowedFd<'_>, pieces: &[&[u8]]) -> Result<usize> {
    put_with(end, pieces, None)
}

/// As [`put`], with a descriptor.
pub(crate) fn put_with(end: BorrowedFd<'_>, pieces: &[&[u8]], fd: Option<BorrowedFd<'_>>) -> Result<usize> {
    if let ([piece], None) = (pieces, fd) {
        // The usual case, bytes of a stream: without a header that the kernel has to read as well.
        return send(end.as_raw_fd(), piece, FLAGS);
    }
    let mut slices = [IoSlice::new(&[]); 4];
    for (slice, piece) in slices.iter_mut().zip(pieces) {
        *slice = IoSlice::new(piece);
    }
    let fds = fd.map(|fd| [fd.as_raw_fd()]);
    let rights = fds.as_ref().map(|fds| ControlMessage::ScmRights(fds));
    let slices = &slices[..pieces.len()];
    sendmsg::<UnixAddr>(end.as_raw_fd(), slices, rights.as_slice(), FLAGS, None)
}

/// Receives a message and the first descriptor that comes with it.
pub(crate) fn receive_with(end: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<(usize, Option<OwnedFd>)> {
    // More than one descriptor is more than anybody has a reason to send; the kernel closes what has no room.
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let flags = FLAGS | MsgFlags::MSG_CMSG_CLOEXEC;
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<UnixAddr>(end.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
    let mut fds = message.cmsgs().into_iter().flatten().filter_map(|control| match control {
        ControlMessageOwned::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let mut fds = fds.next().into_iter().flatten().map(sys::received);
    let first = fds.next();
    drop(fds.collect::<Vec<_>>());
    Ok((message.bytes, first))
}

/// Lets the other end read to the end.
pub(crate) fn end_of_data(end: BorrowedFd<'_>) {
    let _ = shutdown(end.as_raw_fd(), Shutdown::Write);
}

/// What poll(2) says of an end now, of those that are asked for and of `ERR` and `HUP`.
pub(crate) fn events(end: BorrowedFd<'_>, interest: Events) -> Events {
    sys::poll(end, interest)
}

/// Whether the user's last descriptor was closed with something unread; asked once.
pub(crate) fn is_unread(end: BorrowedFd<'_>) -> bool {
    getsockopt(&end, sockopt::SocketError) == Ok(Errno::ECONNRESET as i32)
}

/// Whether the user can neither read nor write any more: usually since the last descriptor was closed.
pub(crate) fn is_hung_up(end: &OwnedFd) -> bool {
    events(end.as_fd(), Events::empty()).contains(Events::HUP)
}
