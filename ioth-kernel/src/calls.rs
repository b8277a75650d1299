//! Berkeley's calls on a descriptor, as system calls with this project's types.
//!
//! They suit any native socket, however its descriptor came about: a duplicate, an inherited one.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

pub use ioth_core::descriptor::{cookie, events, nonblocking, set_nonblocking, with_number};
use ioth_core::{Errno, Mmsg, MsgFlags, RecvMsg, Result, SendMsg, Shutdown, SockAddr};

use crate::sys::{self, ADDR_MAX, IOV_MAX, Received};

/// bind(2)
pub fn bind(fd: BorrowedFd<'_>, addr: &SockAddr) -> Result<()> {
    sys::bind(fd, &addr.to_raw())
}

/// connect(2)
pub fn connect(fd: BorrowedFd<'_>, addr: &SockAddr) -> Result<()> {
    sys::connect(fd, &addr.to_raw())
}

/// listen(2); a negative backlog is the maximum, as the kernel has it.
pub fn listen(fd: BorrowedFd<'_>, backlog: i32) -> Result<()> {
    let backlog = if backlog < 0 { i32::MAX } else { backlog };
    sys::listen(fd, backlog)
}

/// accept4(2), close-on-exec
pub fn accept(fd: BorrowedFd<'_>) -> Result<(OwnedFd, SockAddr)> {
    let mut raw = [0; ADDR_MAX];
    let (fd, len) = sys::accept(fd, &mut raw, libc::SOCK_CLOEXEC)?;
    Ok((fd, addr_of(&raw[..len]).unwrap_or_default()))
}

/// getsockname(2)
pub fn local_addr(fd: BorrowedFd<'_>) -> Result<SockAddr> {
    let mut raw = [0; ADDR_MAX];
    let len = sys::name(fd, &mut raw, false)?;
    // The kernel leaves out what a packet socket's hardware address does not fill; it is zero here.
    let family = i32::from(u16::from_ne_bytes([raw[0], raw[1]]));
    let len = if family == libc::AF_PACKET { len.max(size_of::<libc::sockaddr_ll>()) } else { len };
    SockAddr::from_raw(&raw[..len])
}

/// getpeername(2)
pub fn peer_addr(fd: BorrowedFd<'_>) -> Result<SockAddr> {
    let mut raw = [0; ADDR_MAX];
    let len = sys::name(fd, &mut raw, true)?;
    SockAddr::from_raw(&raw[..len])
}

/// sendmsg(2), never with a SIGPIPE
pub fn send(fd: BorrowedFd<'_>, message: &SendMsg<'_>, flags: MsgFlags) -> Result<usize> {
    if message.data.len() > IOV_MAX {
        return Err(Errno::EMSGSIZE);
    }
    let raw = message.addr.map(SockAddr::to_raw);
    let flags = (flags | MsgFlags::NOSIGNAL).bits();
    sys::send(fd, message.data, raw.as_deref(), message.control, flags)
}

/// recvmsg(2)
pub fn recv(fd: BorrowedFd<'_>, message: &mut RecvMsg<'_, '_>, flags: MsgFlags) -> Result<usize> {
    if message.data.len() > IOV_MAX {
        return Err(Errno::EMSGSIZE);
    }
    let mut raw = [0; ADDR_MAX];
    let (len, received) = receiving(flags, |flags| sys::recv(fd, message, &mut raw, flags))?;
    report(message, &received, &raw);
    Ok(len)
}

/// sendmmsg(2), never with a SIGPIPE: how many messages were sent
pub fn send_many(fd: BorrowedFd<'_>, messages: &mut [Mmsg<SendMsg<'_>>], flags: MsgFlags) -> Result<usize> {
    sys::send_many(fd, messages, (flags | MsgFlags::NOSIGNAL).bits())
}

/// recvmmsg(2): how many messages were received; `timeout` is what is left of it then
pub fn recv_many(
    fd: BorrowedFd<'_>,
    messages: &mut [Mmsg<RecvMsg<'_, '_>>],
    flags: MsgFlags,
    mut timeout: Option<&mut Duration>,
) -> Result<usize> {
    let mut raw = vec![[0; ADDR_MAX]; messages.len()];
    let received =
        receiving(flags, |flags| sys::recv_many(fd, messages, &mut raw, flags, timeout.as_deref_mut()))?;
    for ((each, received), raw) in messages.iter_mut().zip(&received).zip(&raw) {
        report(&mut each.message, received, raw);
    }
    Ok(received.len())
}

/// Makes a receiving call: descriptors that come with a message are close-on-exec.
fn receiving<T>(flags: MsgFlags, mut call: impl FnMut(i32) -> Result<T>) -> Result<T> {
    match call(flags.bits() | libc::MSG_CMSG_CLOEXEC) {
        // A packet socket refuses the flag, before it does anything; descriptors never come with its messages.
        Err(Errno::EINVAL) => call(flags.bits()),
        received => received,
    }
}

/// Stores what was reported beside the data.
fn report(message: &mut RecvMsg<'_, '_>, received: &Received, raw: &[u8; ADDR_MAX]) {
    message.addr = addr_of(&raw[..received.addr_len]);
    message.control_len = received.control_len.min(message.control.len());
    message.flags = MsgFlags::from_bits_retain(received.flags & !libc::MSG_CMSG_CLOEXEC);
}

/// setsockopt(2)
///
/// A filter (`SO_ATTACH_FILTER`, `SO_ATTACH_REUSEPORT_CBPF`) is given as the array of `struct sock_filter` itself, without
/// the `struct sock_fprog` that points to it.
///
/// # Errors
/// As there; `EINVAL` for a filter with a part of an instruction.
pub fn set_option(fd: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> Result<()> {
    match (level, name) {
        (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER | libc::SO_ATTACH_REUSEPORT_CBPF) => {
            sys::attach_filter(fd, name, value)
        }
        _ => sys::set_option(fd, level, name, value),
    }
}

/// getsockopt(2)
///
/// # Errors
/// As there; `ENOPROTOOPT` besides for `TCP_ZEROCOPY_RECEIVE`, which takes addresses and writes there.
///
/// `SO_GET_FILTER` gives the array of `struct sock_filter`, and counts in bytes; without room for one instruction
/// only the length.
pub fn option(fd: BorrowedFd<'_>, level: i32, name: i32, value: &mut [u8]) -> Result<usize> {
    const TCP_ZEROCOPY_RECEIVE: i32 = 35;
    match (level, name) {
        (libc::SOL_SOCKET, libc::SO_GET_FILTER) => sys::filter(fd, value),
        (libc::IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE) => Err(Errno::ENOPROTOOPT),
        _ => sys::option(fd, level, name, value),
    }
}

/// shutdown(2)
pub fn shutdown(fd: BorrowedFd<'_>, how: Shutdown) -> Result<()> {
    sys::shutdown(fd, how.as_raw())
}

/// ioctl(2), for the requests of sockets and interfaces: the queue lengths (`FIONREAD`, `SIOCOUTQ`, `SIOCOUTQNSD`), `SIOCATMARK`, what
/// is the descriptor's (`FIONBIO`, `FIOASYNC`, `FIOCLEX`, the owner), netdevice(7), and routes.
///
/// `argument` is the request's structure. Where that has a pointer, what it points to comes in its place: for
/// `SIOCGIFCONF` the array of `struct ifreq`, whose used length in bytes is returned (without any room, the length that
/// there is); for `SIOCADDRT` and `SIOCDELRT` of IPv4 the device's name (16 bytes) is behind the structure, if
/// `rt_dev` is not null.
///
/// # Errors
/// As there; `ENOTTY` for other requests, `EINVAL` for an argument shorter than the request's structure.
pub fn ioctl(fd: BorrowedFd<'_>, request: u64, argument: &mut [u8]) -> Result<i32> {
    if request == libc::SIOCGIFCONF {
        return sys::ifconf(fd, argument);
    }
    let needed = argument_len(request).ok_or(Errno::ENOTTY)?;
    if argument.len() < needed {
        return Err(Errno::EINVAL);
    }
    // By the socket's family a request has structures of several lengths: the kernel finds room for the longest.
    let mut longest = [0; sys::REQUEST_MAX];
    let len = argument.len().min(longest.len());
    longest[..len].copy_from_slice(&argument[..len]);
    let routes = [libc::SIOCADDRT, libc::SIOCDELRT].contains(&request);
    let result = sys::ioctl(fd, request, &mut longest, routes)?;
    if !routes {
        argument[..len].copy_from_slice(&longest[..len]);
    }
    Ok(result)
}

/// Bytes of a stream that its peer has not acknowledged, of a datagram socket those on their way out (`SIOCOUTQ`).
///
/// # Errors
/// `EINVAL` for a listener, `ENOTTY` for a family that has none.
pub(crate) fn unsent(fd: BorrowedFd<'_>) -> Result<i32> {
    sys::unsent(fd)
}

/// fcntl(2), for the commands whose argument is a number.
///
/// # Errors
/// As there; `EINVAL` for other commands.
pub fn control(fd: BorrowedFd<'_>, command: i32, argument: i32) -> Result<i32> {
    match command {
        libc::F_DUPFD
        | libc::F_DUPFD_CLOEXEC
        | libc::F_GETFD
        | libc::F_SETFD
        | libc::F_GETFL
        | libc::F_SETFL
        | libc::F_GETOWN
        | libc::F_SETOWN
        | F_GETSIG
        | F_SETSIG
        | libc::F_GETLEASE
        | libc::F_SETLEASE
        | libc::F_NOTIFY
        | libc::F_GETPIPE_SZ
        | libc::F_SETPIPE_SZ
        | libc::F_GET_SEALS
        | libc::F_ADD_SEALS => sys::fcntl(fd, command, argument),
        _ => Err(Errno::EINVAL),
    }
}

/// dup2(2): `to` becomes a duplicate, and what it was is closed
pub fn dup2(fd: BorrowedFd<'_>, to: RawFd) -> Result<RawFd> {
    sys::dup2(fd, to)
}

/// dup3(2): dup2 with `O_CLOEXEC`
pub fn dup3(fd: BorrowedFd<'_>, to: RawFd, flags: i32) -> Result<RawFd> {
    sys::dup3(fd, to, flags)
}

/// asm-generic/fcntl.h, which not every C library names.
const F_SETSIG: i32 = 10;
const F_GETSIG: i32 = 11;

/// The size of a request's structure, the shortest where the socket's family decides; `None` for requests that hold
/// pointers or are unknown.
fn argument_len(request: u64) -> Option<usize> {
    const SIOCOUTQ: u64 = libc::TIOCOUTQ as _;
    // linux/sockios.h
    const SIOCOUTQNSD: u64 = 0x894b;
    const FIONREAD: u64 = libc::FIONREAD as _;
    const FIONBIO: u64 = libc::FIONBIO as _;
    const FIOASYNC: u64 = libc::FIOASYNC as _;
    const FIOCLEX: u64 = libc::FIOCLEX as _;
    const FIONCLEX: u64 = libc::FIONCLEX as _;
    // The owner, asked for and set by two names each, and SIOCATMARK.
    const FIOSETOWN: u64 = 0x8901;
    const SIOCATMARK: u64 = 0x8905;
    // Of the last datagram, as struct timeval and struct timespec; and with 64-bit seconds on every machine.
    const SIOCGSTAMP: u64 = 0x8906;
    const SIOCGSTAMPNS: u64 = 0x8907;
    const SIOCGSTAMP_NEW: u64 = 0x8010_8906;
    const SIOCGSTAMPNS_NEW: u64 = 0x8010_8907;
    const SIOCADDRT: u64 = 0x890B;
    const SIOCDELRT: u64 = 0x890C;
    const SIOCGIFNAME: u64 = 0x8910;
    // SIOCGIFFLAGS to SIOCSIFNAME, 0x8913 to 0x8924: all over struct ifreq, without pointers.
    const SIOCGIFFLAGS: u64 = 0x8913;
    const SIOCSIFADDR: u64 = 0x8916;
    const SIOCSIFDSTADDR: u64 = 0x8918;
    const SIOCSIFHWADDR: u64 = 0x8924;
    const SIOCGIFHWADDR: u64 = 0x8927;
    const SIOCGIFSLAVE: u64 = 0x8929;
    const SIOCGIFINDEX: u64 = 0x8933;
    const SIOCDIFADDR: u64 = 0x8936;
    const SIOCGIFTXQLEN: u64 = 0x8942;
    const SIOCSIFTXQLEN: u64 = 0x8943;
    const SIOCGIFMAP: u64 = 0x8970;
    const SIOCSIFMAP: u64 = 0x8971;
    /// linux/ipv6.h and linux/ipv6_route.h.
    const IN6_IFREQ: usize = 24;
    const IN6_RTMSG: usize = 80;
    match request {
        FIOCLEX | FIONCLEX => Some(0),
        SIOCOUTQ | SIOCOUTQNSD | FIONREAD | FIONBIO | FIOASYNC | FIOSETOWN..=SIOCATMARK => {
            Some(size_of::<i32>())
        }
        SIOCGSTAMP | SIOCGSTAMPNS | SIOCGSTAMP_NEW | SIOCGSTAMPNS_NEW => Some(2 * size_of::<i64>()),
        SIOCADDRT | SIOCDELRT => Some(IN6_RTMSG),
        SIOCSIFADDR | SIOCSIFDSTADDR | SIOCDIFADDR => Some(IN6_IFREQ),
        SIOCGIFNAME
        | SIOCGIFFLAGS..=SIOCSIFHWADDR
        | SIOCGIFHWADDR
        | SIOCGIFSLAVE
        | SIOCGIFINDEX
        | SIOCGIFTXQLEN
        | SIOCSIFTXQLEN
        | SIOCGIFMAP
        | SIOCSIFMAP => Some(size_of::<libc::ifreq>()),
        _ => None,
    }
}

/// An address that the kernel reports; it leaves it out where the socket's type has none.
fn addr_of(raw: &[u8]) -> Option<SockAddr> {
    SockAddr::from_raw(raw).ok().filter(|addr| *addr != SockAddr::Unspecified)
}
