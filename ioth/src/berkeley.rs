//! Berkeley's calls, by descriptor number, with Linux's errors.
//!
//! The descriptors are real: poll(2), epoll(7), dup(2), fcntl(2), close(2), fork+exec and SCM_RIGHTS work on them without
//! further ado. Data moves by the calls of this module only, except where the stack is the kernel's.
//! A descriptor that did not come from here, or was closed, is `EBADF`.
//!
//! Whether a call waits is decided by O_NONBLOCK of the descriptor, which belongs to the program, also when
//! set by plain fcntl(2). It is looked at only when a call would have to wait.
//!
//! Each call finds its socket by the `SO_COOKIE` of the descriptor, one system call. The types of
//! [`net`](crate::net) need neither descriptor nor look-up.
//!
//! ```
//! use ioth::berkeley::{bind, close, getsockname, socket};
//!
//! let fd = socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)?;
//! bind(fd, std::net::SocketAddr::from(([127, 0, 0, 1], 0)))?;
//! assert_ne!(getsockname(fd)?.as_ip().unwrap().port(), 0);
//! close(fd)?;
//! # Ok::<(), std::io::Error>(())
//! ```

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use ioth_core::{
    Domain, Errno, Mmsg, MsgFlags, RecvMsg, Result, SendMsg, Shutdown, SockAddr, Socket, SocketType,
};
use ioth_kernel::calls;
use nix::fcntl::{FcntlArg, FdFlag};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::table::TABLE;
use crate::{Stack, get_defstack};

/// socket(2) on the default stack of the thread ([`get_defstack`]).
///
/// `kind` takes `SOCK_NONBLOCK` and `SOCK_CLOEXEC` besides.
///
/// # Errors
/// As socket(2); `ENODEV` when the default stack is no more.
pub fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<RawFd> {
    msocket(None, domain, kind, protocol)
}

/// socket(2) on a stack; `None` is the default one.
///
/// # Errors
/// As for [`socket`].
pub fn msocket(stack: Option<&Stack>, domain: i32, kind: i32, protocol: i32) -> io::Result<RawFd> {
    let flags = kind & !SOCK_TYPE_MASK;
    if flags & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let default;
    let stack = match stack {
        Some(stack) => stack,
        None => {
            default = get_defstack().map_err(|error| error.errno())?;
            &default
        }
    };
    let socket = stack.socket(Domain(domain), SocketType(kind & SOCK_TYPE_MASK), protocol)?;
    Ok(publish(socket, flags)?.into_raw_fd())
}

/// bind(2)
///
/// # Errors
/// As bind(2).
pub fn bind(fd: RawFd, addr: impl Into<SockAddr>) -> io::Result<()> {
    let addr = addr.into();
    on(fd, |fd| calls::bind(fd, &addr), |ours| ours.socket.bind(&addr))
}

/// connect(2); with O_NONBLOCK it ends with `EINPROGRESS`, then `OUT` tells of the end and SO_ERROR how it went.
///
/// # Errors
/// As connect(2).
pub fn connect(fd: RawFd, addr: impl Into<SockAddr>) -> io::Result<()> {
    let addr = addr.into();
    on(
        fd,
        |fd| calls::connect(fd, &addr),
        |ours| {
            ours.socket.set_nonblocking(calls::nonblocking(ours.fd)?)?;
            ours.settled(|socket| socket.connect(&addr))
        },
    )
}

/// listen(2)
///
/// # Errors
/// As listen(2).
pub fn listen(fd: RawFd, backlog: i32) -> io::Result<()> {
    on(fd, |fd| calls::listen(fd, backlog), |ours| ours.settled(|socket| socket.listen(backlog)))
}

/// accept(2): the new descriptor and the peer's address.
///
/// # Errors
/// As accept(2).
pub fn accept(fd: RawFd) -> io::Result<(RawFd, SockAddr)> {
    accept4(fd, 0)
}

/// accept4(2): accept with `SOCK_NONBLOCK`, `SOCK_CLOEXEC`.
///
/// # Errors
/// As accept4(2). A connection is not lost to `EMFILE`: it stays queued.
pub fn accept4(fd: RawFd, flags: i32) -> io::Result<(RawFd, SockAddr)> {
    if flags & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let (fd, addr) = with(fd, |_, fd, socket| {
        if socket.native() {
            let (fd, addr) = calls::accept(fd)?;
            // The listener's entry stands for its connections too: it says "native", and keeps the stack busy.
            TABLE.insert(fd.as_fd(), socket)?;
            return Ok((with_flags(fd, flags)?, addr));
        }
        let ours = Ours { fd, socket };
        ours.socket.set_nonblocking(calls::nonblocking(fd)?)?;
        // A signal fd takes two numbers while it is made; they are taken before the connection is.
        let reserve = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
        let second = reserve.as_fd().try_clone_to_owned().map_err(errno)?;
        let (accepted, addr) = ours.settled(|socket| socket.accept())?;
        drop((reserve, second));
        Ok((publish(accepted, flags)?, addr))
    })?;
    Ok((fd.into_raw_fd(), addr))
}

/// getsockname(2)
///
/// # Errors
/// As getsockname(2).
pub fn getsockname(fd: RawFd) -> io::Result<SockAddr> {
    on(fd, calls::local_addr, |ours| ours.socket.local_addr())
}

/// getpeername(2)
///
/// # Errors
/// As getpeername(2).
pub fn getpeername(fd: RawFd) -> io::Result<SockAddr> {
    on(fd, calls::peer_addr, |ours| ours.socket.peer_addr())
}

/// shutdown(2); `how` is `SHUT_RD`, `SHUT_WR` or `SHUT_RDWR`.
///
/// # Errors
/// As shutdown(2).
pub fn shutdown(fd: RawFd, how: i32) -> io::Result<()> {
    let how = Shutdown::from_raw(how);
    on(fd, |fd| calls::shutdown(fd, how?), |ours| ours.settled(|socket| socket.shutdown(how?)))
}

/// close(2). The socket ends with its last duplicate; the plain system call does the same, a little later.
///
/// # Errors
/// As close(2); `EBADF` also for a descriptor that is not a socket of a stack, which then stays open.
pub fn close(fd: RawFd) -> io::Result<()> {
    with(fd, |cookie, _, socket| {
        nix::unistd::close(fd)?;
        ended(cookie, &*socket);
        Ok(())
    })
}

/// read(2)
///
/// # Errors
/// As read(2).
pub fn read(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    readv(fd, &mut [IoSliceMut::new(buffer)])
}

/// readv(2)
///
/// # Errors
/// As readv(2).
pub fn readv(fd: RawFd, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    // Unlike recv(2), Linux's read(2) of nothing neither waits nor takes a datagram.
    if buffers.iter().all(|buffer| buffer.is_empty()) {
        return with(fd, |_, _, _| Ok(0));
    }
    recvmsg(fd, &mut RecvMsg::new(buffers), MsgFlags::empty())
}

/// write(2), without SIGPIPE
///
/// # Errors
/// As write(2).
pub fn write(fd: RawFd, data: &[u8]) -> io::Result<usize> {
    send(fd, data, MsgFlags::empty())
}

/// writev(2), without SIGPIPE
///
/// # Errors
/// As writev(2).
pub fn writev(fd: RawFd, data: &[IoSlice<'_>]) -> io::Result<usize> {
    sendmsg(fd, &SendMsg::new(data), MsgFlags::empty())
}

/// send(2), without SIGPIPE
///
/// # Errors
/// As send(2).
pub fn send(fd: RawFd, data: &[u8], flags: MsgFlags) -> io::Result<usize> {
    sendmsg(fd, &SendMsg::new(&[IoSlice::new(data)]), flags)
}

/// recv(2)
///
/// # Errors
/// As recv(2).
pub fn recv(fd: RawFd, buffer: &mut [u8], flags: MsgFlags) -> io::Result<usize> {
    recvmsg(fd, &mut RecvMsg::new(&mut [IoSliceMut::new(buffer)]), flags)
}

/// sendto(2), without SIGPIPE
///
/// # Errors
/// As sendto(2).
pub fn sendto(fd: RawFd, data: &[u8], flags: MsgFlags, addr: impl Into<SockAddr>) -> io::Result<usize> {
    let addr = addr.into();
    let data = [IoSlice::new(data)];
    sendmsg(fd, &SendMsg { addr: Some(&addr), ..SendMsg::new(&data) }, flags)
}

/// recvfrom(2): the length, and the source where the socket's type has one.
///
/// # Errors
/// As recvfrom(2).
pub fn recvfrom(fd: RawFd, buffer: &mut [u8], flags: MsgFlags) -> io::Result<(usize, Option<SockAddr>)> {
    let mut data = [IoSliceMut::new(buffer)];
    let mut message = RecvMsg::new(&mut data);
    let len = recvmsg(fd, &mut message, flags)?;
    Ok((len, message.addr))
}

/// sendmsg(2), without SIGPIPE
///
/// # Errors
/// As sendmsg(2).
pub fn sendmsg(fd: RawFd, message: &SendMsg<'_>, flags: MsgFlags) -> io::Result<usize> {
    on(fd, |fd| calls::send(fd, message, flags), |ours| ours.settled(|_| ours.send(message, flags)))
}

/// recvmsg(2)
///
/// # Errors
/// As recvmsg(2).
pub fn recvmsg(fd: RawFd, message: &mut RecvMsg<'_, '_>, flags: MsgFlags) -> io::Result<usize> {
    with(fd, |_, fd, socket| {
        if socket.native() {
            return calls::recv(fd, message, flags);
        }
        let ours = Ours { fd, socket };
        ours.settled(|_| ours.recv(message, flags))
    })
}

/// sendmmsg(2), without SIGPIPE: how many messages were sent, each with its [`Mmsg::len`] set.
///
/// Of more than 1024 messages (`UIO_MAXIOV`) the first 1024 are sent.
///
/// # Errors
/// That of the first message, as sendmsg(2). A later message's is not told: the count ends before it.
pub fn sendmmsg(fd: RawFd, messages: &mut [Mmsg<SendMsg<'_>>], flags: MsgFlags) -> io::Result<usize> {
    let count = messages.len().min(UIO_MAXIOV);
    let messages = &mut messages[..count];
    with(fd, |_, fd, socket| {
        if socket.native() {
            return calls::send_many(fd, messages, flags);
        }
        let ours = Ours { fd, socket };
        let flags = ours.flags(flags)?;
        ours.settled(|socket| socket.send_many(messages, flags))
    })
}

/// recvmmsg(2): how many messages were received, each with its [`Mmsg::len`] set.
///
/// `MSG_WAITFORONE` waits for the first only. `timeout` is looked at after each message, so that it does not end a
/// call that waits for one: recvmmsg(2) calls this a bug, and programs know it. It holds what is left of it then.
///
/// # Errors
/// That of the first message, as recvmsg(2). A later message's is the next call's, or SO_ERROR's.
pub fn recvmmsg(
    fd: RawFd,
    messages: &mut [Mmsg<RecvMsg<'_, '_>>],
    flags: MsgFlags,
    timeout: Option<&mut Duration>,
) -> io::Result<usize> {
    with(fd, |_, fd, socket| {
        if socket.native() {
            return calls::recv_many(fd, messages, flags, timeout);
        }
        let ours = Ours { fd, socket };
        let flags = ours.flags(flags)?;
        ours.settled(|socket| socket.recv_many(messages, flags, timeout))
    })
}

/// getsockopt(2): fills `value` and gives the option's length in bytes.
///
/// # Errors
/// As getsockopt(2).
pub fn getsockopt(fd: RawFd, level: i32, name: i32, value: &mut [u8]) -> io::Result<usize> {
    with(fd, |_, fd, socket| {
        if socket.native() {
            return calls::option(fd, level, name, value);
        }
        let len = socket.option(level, name, value)?;
        if (level, name) == (libc::SOL_SOCKET, libc::SO_ERROR) {
            // Reading a datagram socket's error takes it away, and its poll bit with it.
            socket.settle(fd);
        }
        Ok(len)
    })
}

/// setsockopt(2); `value` is the option's C representation. Where that holds a pointer, it is what the pointer leads to: see
/// [`Socket::set_option`].
///
/// # Errors
/// As setsockopt(2).
pub fn setsockopt(fd: RawFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    on(fd, |fd| calls::set_option(fd, level, name, value), |ours| ours.socket.set_option(level, name, value))
}

/// ioctl(2): queue lengths, what is the descriptor's (`FIONBIO`, `FIOASYNC`, the owner), and the requests of netdevice(7)
/// and for routes, which do the same as netlink does.
///
/// `argument` is the C structure, changed in place. Where that has a pointer, what it points to comes in its place:
/// for `SIOCGIFCONF` the array of `struct ifreq`, whose used length in bytes is returned (without any room, the length
/// that there is); for `SIOCADDRT` and `SIOCDELRT` of IPv4 the device's name (16 bytes) is behind `struct rtentry`, if
/// `rt_dev` is not null.
///
/// # Errors
/// As ioctl(2); `ENOTTY` for other requests, `EINVAL` for an argument shorter than the structure.
pub fn ioctl(fd: RawFd, request: u64, argument: &mut [u8]) -> io::Result<i32> {
    with(fd, |_, fd, socket| {
        if socket.native() || is_descriptors(request) {
            return calls::ioctl(fd, request, argument);
        }
        socket.ioctl(request, argument)
    })
}

/// Whether a request is about the descriptor, whatever is behind it.
fn is_descriptors(request: u64) -> bool {
    // asm-generic/sockios.h
    const FIOSETOWN: u64 = 0x8901;
    const SIOCGPGRP: u64 = 0x8904;
    let plain = [libc::FIONBIO, libc::FIOASYNC, libc::FIOCLEX, libc::FIONCLEX];
    plain.contains(&(request as _)) || (FIOSETOWN..=SIOCGPGRP).contains(&request)
}

/// fcntl(2), with the commands that take a number: `F_GETFL`, `F_SETFL`, `F_GETFD`, `F_SETFD`, `F_DUPFD`,
/// `F_DUPFD_CLOEXEC`, `F_GETOWN`, `F_SETOWN`, `F_GETSIG`, `F_SETSIG` and those that mean nothing for a socket.
///
/// # Errors
/// As fcntl(2); `EINVAL` for commands that take a pointer, which the plain call knows.
pub fn fcntl(fd: RawFd, command: i32, argument: i32) -> io::Result<i32> {
    with(fd, |_, fd, _| calls::control(fd, command, argument))
}

/// dup(2)
///
/// # Errors
/// As dup(2).
pub fn dup(fd: RawFd) -> io::Result<RawFd> {
    fcntl(fd, libc::F_DUPFD, 0)
}

/// dup2(2): `to` becomes a duplicate of `fd`. What it was, is closed, and ends if it was a socket's last.
///
/// # Errors
/// As dup2(2).
pub fn dup2(fd: RawFd, to: RawFd) -> io::Result<RawFd> {
    replace(fd, to, |fd| calls::dup2(fd, to))
}

/// dup3(2): dup2 with `O_CLOEXEC`.
///
/// # Errors
/// As dup3(2): `EINVAL` for equal numbers and for other flags.
pub fn dup3(fd: RawFd, to: RawFd, flags: i32) -> io::Result<RawFd> {
    if flags & !libc::O_CLOEXEC != 0 || fd == to {
        return Err(Errno::EINVAL.into());
    }
    replace(fd, to, |fd| calls::dup3(fd, to, flags))
}

/// Makes `to` a duplicate, and ends the socket that it was the last descriptor of.
fn replace(
    fd: RawFd,
    to: RawFd,
    duplicate: impl FnOnce(BorrowedFd<'_>) -> Result<RawFd>,
) -> io::Result<RawFd> {
    let replaced = match fd == to {
        true => None,
        false => calls::with_number(to, |to| TABLE.find(to)).ok(),
    };
    let number = with(fd, |_, fd, _| duplicate(fd))?;
    if let Some((cookie, socket)) = replaced {
        ended(cookie, &*socket);
    }
    Ok(number)
}

/// A duplicate of a socket's descriptor was closed: if it was the last one, the socket ends now.
fn ended(cookie: u64, socket: &dyn Socket) {
    if !socket.lives_in_descriptors() {
        socket.fd_closed();
        if socket.local_addr() == Err(Errno::EBADF) {
            TABLE.remove(cookie);
        }
    }
}

/// Whether the descriptor's socket goes on without this process, for those who have a duplicate: the kernel's do, and those
/// of a node process.
///
/// # Errors
/// `EBADF`.
pub fn outlives_process(fd: RawFd) -> io::Result<bool> {
    with(fd, |_, _, socket| Ok(socket.lives_in_descriptors()))
}

/// The most messages of one sendmmsg(2) (linux/uio.h).
const UIO_MAXIOV: usize = 1024;
/// The bits of `type` that are not flags (linux/net.h).
const SOCK_TYPE_MASK: i32 = 0xf;

/// Makes the socket's descriptor and enters it into the table.
pub(crate) fn publish(socket: Arc<dyn Socket>, flags: i32) -> Result<OwnedFd> {
    let fd = socket.release_fd()?;
    TABLE.insert(fd.as_fd(), socket)?;
    with_flags(fd, flags)
}

/// Applies `SOCK_NONBLOCK` and `SOCK_CLOEXEC` to a descriptor that is close-on-exec.
fn with_flags(fd: OwnedFd, flags: i32) -> Result<OwnedFd> {
    if flags & libc::SOCK_NONBLOCK != 0 {
        calls::set_nonblocking(fd.as_fd(), true)?;
    }
    if flags & libc::SOCK_CLOEXEC == 0 {
        nix::fcntl::fcntl(&fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
    }
    Ok(fd)
}

/// Runs `call` with the cookie, the descriptor and the socket behind it.
fn with<T>(fd: RawFd, call: impl FnOnce(u64, BorrowedFd<'_>, Arc<dyn Socket>) -> Result<T>) -> io::Result<T> {
    let result = calls::with_number(fd, |fd| {
        let (cookie, socket) = TABLE.find(fd)?;
        call(cookie, fd, socket)
    });
    Ok(result?)
}

/// Runs `native` where the kernel does the work and knows what the descriptor is, `ours` for every other stack.
fn on<T>(
    fd: RawFd,
    native: impl FnOnce(BorrowedFd<'_>) -> Result<T>,
    ours: impl FnOnce(&Ours<'_>) -> Result<T>,
) -> io::Result<T> {
    with(fd, |_, fd, socket| if socket.native() { native(fd) } else { ours(&Ours { fd, socket }) })
}

/// A socket of a stack other than the kernel's, and the descriptor by which it was called.
///
/// The socket itself is in blocking mode, except that connect and accept set its mode as the descriptor has it.
struct Ours<'a> {
    fd: BorrowedFd<'a>,
    socket: Arc<dyn Socket>,
}

impl Ours<'_> {
    /// Runs a call that may change what poll(2) says, and has the descriptor say so.
    fn settled<T>(&self, call: impl FnOnce(&dyn Socket) -> Result<T>) -> Result<T> {
        let result = call(&*self.socket);
        self.socket.settle(self.fd);
        result
    }

    fn recv(&self, message: &mut RecvMsg<'_, '_>, flags: MsgFlags) -> Result<usize> {
        // MSG_WAITALL wants to wait in the middle of the call: it needs to know at its start.
        if !flags.contains(MsgFlags::WAITALL) {
            let first = self.socket.recv(message, flags | MsgFlags::DONTWAIT);
            if first != Err(Errno::EAGAIN) {
                return first;
            }
        }
        match self.may_wait(flags)? {
            true => self.socket.recv(message, flags),
            false if flags.contains(MsgFlags::WAITALL) => {
                self.socket.recv(message, flags | MsgFlags::DONTWAIT)
            }
            false => Err(Errno::EAGAIN),
        }
    }

    fn send(&self, message: &SendMsg<'_>, flags: MsgFlags) -> Result<usize> {
        let first = self.socket.send(message, flags | MsgFlags::DONTWAIT);
        let sent = match first {
            Err(Errno::EAGAIN) => 0,
            // A datagram is sent whole; a waiting send(2) of a stream goes on to the last byte.
            Ok(sent) if sent < message.len() => sent,
            done => return done,
        };
        if !self.may_wait(flags)? {
            return first;
        }
        if sent == 0 {
            return self.socket.send(message, flags);
        }
        let mut rest: Vec<_> = message.data.iter().map(|slice| IoSlice::new(slice)).collect();
        let mut rest = &mut rest[..];
        IoSlice::advance_slices(&mut rest, sent);
        // What has been taken counts, however the rest ends: the error shows in the next call.
        let more = self.socket.send(&SendMsg { addr: message.addr, ..SendMsg::new(rest) }, flags);
        Ok(sent + more.unwrap_or(0))
    }

    /// The flags of a call on several messages: whether it waits is asked once, at its start.
    fn flags(&self, flags: MsgFlags) -> Result<MsgFlags> {
        Ok(if self.may_wait(flags)? { flags } else { flags | MsgFlags::DONTWAIT })
    }

    /// Whether a call may wait by its flags and by the descriptor's; if so, the socket will.
    fn may_wait(&self, flags: MsgFlags) -> Result<bool> {
        if flags.contains(MsgFlags::DONTWAIT) || calls::nonblocking(self.fd)? {
            return Ok(false);
        }
        self.socket.set_nonblocking(false)?;
        Ok(true)
    }
}

pub(crate) fn errno(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
