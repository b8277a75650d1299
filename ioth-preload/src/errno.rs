//! Failures as the kernel gives them.

use std::ffi::c_int;

/// A positive errno.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Errno(pub(crate) c_int);

pub(crate) type Result<T> = std::result::Result<T, Errno>;

impl Errno {
    /// No error.
    pub(crate) const NONE: Errno = Errno(0);
    pub(crate) const AGAIN: Errno = Errno(libc::EAGAIN);
    pub(crate) const FAULT: Errno = Errno(libc::EFAULT);
    pub(crate) const INTR: Errno = Errno(libc::EINTR);
    pub(crate) const INVAL: Errno = Errno(libc::EINVAL);
    pub(crate) const MFILE: Errno = Errno(libc::EMFILE);
    pub(crate) const MSGSIZE: Errno = Errno(libc::EMSGSIZE);
    pub(crate) const NETDOWN: Errno = Errno(libc::ENETDOWN);
    pub(crate) const NFILE: Errno = Errno(libc::ENFILE);
    pub(crate) const NOBUFS: Errno = Errno(libc::ENOBUFS);
    pub(crate) const NOPROTOOPT: Errno = Errno(libc::ENOPROTOOPT);
    pub(crate) const NOTCONN: Errno = Errno(libc::ENOTCONN);
    pub(crate) const OPNOTSUPP: Errno = Errno(libc::EOPNOTSUPP);
    pub(crate) const PIPE: Errno = Errno(libc::EPIPE);
    pub(crate) const CONNRESET: Errno = Errno(libc::ECONNRESET);
    pub(crate) const CONNREFUSED: Errno = Errno(libc::ECONNREFUSED);
}
