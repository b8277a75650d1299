//! Failures as the kernel gives them.

use std::ffi::c_int;

/// A positive errno.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub c_int);

/// Result of a call.
pub type Result<T> = std::result::Result<T, Errno>;

impl Errno {
    /// No error.
    pub const NONE: Errno = Errno(0);
    /// `EAGAIN`
    pub const AGAIN: Errno = Errno(libc::EAGAIN);
    /// `EFAULT`
    pub const FAULT: Errno = Errno(libc::EFAULT);
    /// `EINTR`
    pub const INTR: Errno = Errno(libc::EINTR);
    /// `EINVAL`
    pub const INVAL: Errno = Errno(libc::EINVAL);
    /// `EMFILE`
    pub const MFILE: Errno = Errno(libc::EMFILE);
    /// `EMSGSIZE`
    pub const MSGSIZE: Errno = Errno(libc::EMSGSIZE);
    /// `ENETDOWN`
    pub const NETDOWN: Errno = Errno(libc::ENETDOWN);
    /// `ENFILE`
    pub const NFILE: Errno = Errno(libc::ENFILE);
    /// `ENOBUFS`
    pub const NOBUFS: Errno = Errno(libc::ENOBUFS);
    /// `ENOPROTOOPT`
    pub const NOPROTOOPT: Errno = Errno(libc::ENOPROTOOPT);
    /// `ENOTCONN`
    pub const NOTCONN: Errno = Errno(libc::ENOTCONN);
    /// `EOPNOTSUPP`
    pub const OPNOTSUPP: Errno = Errno(libc::EOPNOTSUPP);
    /// `EPIPE`
    pub const PIPE: Errno = Errno(libc::EPIPE);
    /// `ECONNRESET`
    pub const CONNRESET: Errno = Errno(libc::ECONNRESET);
    /// `ECONNREFUSED`
    pub const CONNREFUSED: Errno = Errno(libc::ECONNREFUSED);
}
