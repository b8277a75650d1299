//! The system calls that no safe wrapper covers: the tests' only unsafe code.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// A descriptor that came in a message.
pub(crate) fn received(fd: RawFd) -> OwnedFd {
    // nix gives numbers.
    // SAFETY: it was received just now, and nobody else knows of it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// getsockopt(2) of any option: the length.
pub(crate) fn option(fd: BorrowedFd<'_>, level: i32, name: i32, value: &mut [u8]) -> Result<usize, Errno> {
    let mut len = value.len() as libc::socklen_t;
    // nix has each option as a type.
    // SAFETY: the kernel writes at most as many bytes as there are.
    let result =
        unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut len) };
    Errno::result(result).map(|_| len as usize)
}

/// setsockopt(2) of any option.
pub(crate) fn set_option(fd: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
    // As above.
    // SAFETY: the kernel reads as many bytes as there are.
    let result = unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), value.len() as libc::socklen_t)
    };
    Errno::result(result).map(drop)
}

/// Calls that take an address: bind(2), connect(2).
pub(crate) fn with_addr(
    call: unsafe extern "C" fn(i32, *const libc::sockaddr, libc::socklen_t) -> i32,
    fd: BorrowedFd<'_>,
    addr: &[u8],
) -> Result<(), Errno> {
    // nix takes addresses apart.
    // SAFETY: the kernel reads as many bytes as there are.
    let result = unsafe { call(fd.as_raw_fd(), addr.as_ptr().cast(), addr.len() as libc::socklen_t) };
    Errno::result(result).map(drop)
}

/// Calls that give an address: getsockname(2), getpeername(2), accept(2).
pub(crate) fn addr_of(
    call: unsafe extern "C" fn(i32, *mut libc::sockaddr, *mut libc::socklen_t) -> i32,
    fd: BorrowedFd<'_>,
) -> Result<(i32, Vec<u8>), Errno> {
    let mut addr = vec![0; 128];
    let mut len = addr.len() as libc::socklen_t;
    // As above.
    // SAFETY: the kernel writes at most as many bytes as there are.
    let result = unsafe { call(fd.as_raw_fd(), addr.as_mut_ptr().cast(), &raw mut len) };
    let result = Errno::result(result)?;
    addr.truncate(len as usize);
    Ok((result, addr))
}

/// sendto(2)
pub(crate) fn sendto(fd: BorrowedFd<'_>, data: &[u8], flags: i32, addr: &[u8]) -> Result<usize, Errno> {
    let at = if addr.is_empty() { std::ptr::null() } else { addr.as_ptr() };
    // As above.
    // SAFETY: the kernel reads as many bytes as there are.
    let result = unsafe {
        let (data, len) = (data.as_ptr().cast(), data.len());
        libc::sendto(fd.as_raw_fd(), data, len, flags, at.cast(), addr.len() as libc::socklen_t)
    };
    Errno::result(result).map(|sent| sent as usize)
}

/// recvfrom(2): the length and the sender.
pub(crate) fn recvfrom(fd: BorrowedFd<'_>, room: &mut [u8]) -> Result<(usize, Vec<u8>), Errno> {
    let mut addr = vec![0; 128];
    let mut len = addr.len() as libc::socklen_t;
    // As above.
    // SAFETY: the kernel writes at most as many bytes as there are.
    let result = unsafe {
        let (room, room_len) = (room.as_mut_ptr().cast(), room.len());
        libc::recvfrom(fd.as_raw_fd(), room, room_len, 0, addr.as_mut_ptr().cast(), &raw mut len)
    };
    let result = Errno::result(result)?;
    addr.truncate(len as usize);
    Ok((result as usize, addr))
}

/// A message of the queue of errors.
pub(crate) struct QueuedError {
    pub(crate) data: Vec<u8>,
    pub(crate) addr: Vec<u8>,
    pub(crate) control: Vec<u8>,
    pub(crate) flags: i32,
}

/// recvmsg(2) with MSG_ERRQUEUE.
pub(crate) fn queued_error(fd: BorrowedFd<'_>) -> Result<QueuedError, Errno> {
    let (mut data, mut addr, mut control) = (vec![0u8; 1280], vec![0u8; 128], vec![0u8; 512]);
    let mut part = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
    // nix parses the ancillary data, which is passed on here.
    // SAFETY: a struct of numbers and pointers may be zero; the kernel writes at most as many bytes as it says.
    let (result, message) = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_name = addr.as_mut_ptr().cast();
        message.msg_namelen = addr.len() as libc::socklen_t;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = control.len();
        (libc::recvmsg(fd.as_raw_fd(), &raw mut message, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT), message)
    };
    data.truncate(Errno::result(result)? as usize);
    addr.truncate(message.msg_namelen as usize);
    control.truncate(message.msg_controllen);
    Ok(QueuedError { data, addr, control, flags: message.msg_flags })
}

/// ioctl(2) over a structure.
pub(crate) fn ioctl(fd: BorrowedFd<'_>, request: u64, argument: &mut [u8]) -> Result<i32, Errno> {
    // nix makes a function of each request.
    // SAFETY: the tests' requests are over structures of this length.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), request, argument.as_mut_ptr()) })
}

/// socket(2) by numbers.
pub(crate) fn socket(domain: i32, kind: i32, protocol: i32) -> Result<OwnedFd, Errno> {
    // nix knows not all of them.
    // SAFETY: numbers.
    Errno::result(unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) }).map(received)
}

/// listen(2)
pub(crate) fn listen(fd: BorrowedFd<'_>, backlog: i32) -> i32 {
    // nix bounds the backlog.
    // SAFETY: numbers.
    unsafe { libc::listen(fd.as_raw_fd(), backlog) }
}

/// shutdown(2)
pub(crate) fn shutdown(fd: BorrowedFd<'_>, how: i32) -> i32 {
    // nix knows no wrong ones.
    // SAFETY: numbers.
    unsafe { libc::shutdown(fd.as_raw_fd(), how) }
}
