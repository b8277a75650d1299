//! Berkeley's calls that move data.

use std::ffi::{c_int, c_void};
use std::io::{IoSlice, IoSliceMut};

use ioth::{Errno, MsgFlags, SockAddr, berkeley};
use libc::{iovec, size_t, sockaddr, socklen_t, ssize_t};

use super::calls::{read_addr, write_addr};
use super::{memory, run_on};
use crate::outcome::{Failure, Result};

/// The most buffers of one call (`UIO_MAXIOV`).
pub(super) const IOV_MAX: usize = 1024;

/// # Safety
/// `data` has room for `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_read(fd: c_int, data: *mut c_void, len: size_t) -> ssize_t {
    // SAFETY: the caller's promise.
    run_on(fd, || received(berkeley::read(fd, unsafe { memory::output(data, len)? })))
}

/// # Safety
/// The buffers have the room that they say.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_readv(fd: c_int, vectors: *const iovec, count: c_int) -> ssize_t {
    run_on(fd, || {
        // SAFETY: the caller's promise.
        let mut buffers = unsafe { outputs(vectors, count_of(count)?)? };
        received(berkeley::readv(fd, &mut buffers))
    })
}

/// # Safety
/// `data` has room for `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_recv(fd: c_int, data: *mut c_void, len: size_t, flags: c_int) -> ssize_t {
    let flags = MsgFlags::from_bits_retain(flags);
    // SAFETY: the caller's promise.
    run_on(fd, || received(berkeley::recv(fd, unsafe { memory::output(data, len)? }, flags)))
}

/// # Safety
/// `data` has room for `len` bytes; `addr` and `addr_len` are the program's to change.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_recvfrom(
    fd: c_int,
    data: *mut c_void,
    len: size_t,
    flags: c_int,
    addr: *mut sockaddr,
    addr_len: *mut socklen_t,
) -> ssize_t {
    run_on(fd, || {
        // SAFETY: the caller's promise.
        let data = unsafe { memory::output(data, len)? };
        let (len, source) = berkeley::recvfrom(fd, data, MsgFlags::from_bits_retain(flags))?;
        if !addr.is_null() {
            // SAFETY: the caller's promise.
            unsafe { write_addr(source.as_ref(), addr, addr_len)? };
        }
        Ok(len as ssize_t)
    })
}

/// # Safety
/// `data` has `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_write(fd: c_int, data: *const c_void, len: size_t) -> ssize_t {
    // SAFETY: the caller's promise.
    send_on(fd, 0, || Ok(berkeley::write(fd, unsafe { memory::input(data, len)? })?))
}

/// # Safety
/// The buffers have the bytes that they say.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_writev(fd: c_int, vectors: *const iovec, count: c_int) -> ssize_t {
    send_on(fd, 0, || {
        // SAFETY: the caller's promise.
        let buffers = unsafe { inputs(vectors, count_of(count)?)? };
        Ok(berkeley::writev(fd, &buffers)?)
    })
}

/// # Safety
/// `data` has `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_send(fd: c_int, data: *const c_void, len: size_t, flags: c_int) -> ssize_t {
    send_on(fd, flags, || {
        // SAFETY: the caller's promise.
        let data = unsafe { memory::input(data, len)? };
        Ok(berkeley::send(fd, data, MsgFlags::from_bits_retain(flags))?)
    })
}

/// # Safety
/// `data` has `len` bytes; the address is not changed during the call.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_sendto(
    fd: c_int,
    data: *const c_void,
    len: size_t,
    flags: c_int,
    addr: *const sockaddr,
    addr_len: socklen_t,
) -> ssize_t {
    send_on(fd, flags, || {
        let msg_flags = MsgFlags::from_bits_retain(flags);
        // SAFETY: the caller's promise.
        let (data, to) = unsafe { (memory::input(data, len)?, destination(fd, addr, addr_len)?) };
        Ok(match to {
            Some(to) => berkeley::sendto(fd, data, msg_flags, to)?,
            None => berkeley::send(fd, data, msg_flags)?,
        })
    })
}

/// Where a message goes; `None` for NULL.
///
/// # Errors
/// As [`read_addr`]. A stream does not look at the address, so it may be anything there, as on Linux.
///
/// # Safety
/// The address is not changed meanwhile.
pub(super) unsafe fn destination(
    fd: c_int,
    addr: *const sockaddr,
    len: socklen_t,
) -> Result<Option<SockAddr>> {
    if addr.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    match unsafe { read_addr(addr, len) } {
        Ok(addr) => Ok(Some(addr)),
        Err(Failure(libc::EINVAL | libc::EAFNOSUPPORT))
            if super::calls::length(len).is_ok() && is_stream(fd) =>
        {
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

/// Sends; a stream that is broken raises SIGPIPE, as send(2), unless `MSG_NOSIGNAL` is among the flags.
pub(super) fn send_on(fd: c_int, flags: c_int, body: impl FnOnce() -> Result<usize>) -> ssize_t {
    let sent = run_on(fd, || Ok(body()? as ssize_t));
    if sent < 0 && Errno::last() == Errno::EPIPE && flags & libc::MSG_NOSIGNAL == 0 {
        if is_stream(fd) {
            // As from the kernel, the signal is for the calling thread; the program's handler runs in here.
            // SAFETY: a plain signal to oneself.
            unsafe { libc::raise(libc::SIGPIPE) };
        }
        Errno::set_raw(libc::EPIPE);
    }
    sent
}

/// Whether a descriptor is of a stream.
fn is_stream(fd: c_int) -> bool {
    let mut kind = [0; size_of::<c_int>()];
    let asked = berkeley::getsockopt(fd, libc::SOL_SOCKET, libc::SO_TYPE, &mut kind);
    asked.is_ok() && c_int::from_ne_bytes(kind) == libc::SOCK_STREAM
}

fn received(len: std::io::Result<usize>) -> Result<ssize_t> {
    Ok(len? as ssize_t)
}

/// The number of buffers of readv(2) and writev(2).
///
/// # Errors
/// `EINVAL` for a negative one, or too many.
fn count_of(count: c_int) -> Result<usize> {
    let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
    Ok(if count > IOV_MAX { Err(Errno::EINVAL)? } else { count })
}

/// The program's list of buffers, its lengths cut so that together they are no more than the kernel moves at once.
///
/// # Errors
/// `EFAULT`, `EINVAL` for a length beyond SSIZE_MAX.
///
/// # Safety
/// The list is not changed meanwhile.
unsafe fn vectors(vectors: *const iovec, count: usize) -> Result<Vec<iovec>> {
    let mut left = memory::MAX_COUNT;
    let one = |at| {
        // SAFETY: the caller's promise; an iovec is plain numbers.
        let mut vector = unsafe { memory::get(vectors.wrapping_add(at))? };
        if vector.iov_len > isize::MAX as usize {
            return Err(Errno::EINVAL.into());
        }
        vector.iov_len = vector.iov_len.min(left);
        left -= vector.iov_len;
        Ok(vector)
    };
    (0..count).map(one).collect()
}

/// # Safety
/// The buffers have the bytes that they say, which are not changed while the slices live.
pub(super) unsafe fn inputs<'a>(list: *const iovec, count: usize) -> Result<Vec<IoSlice<'a>>> {
    // SAFETY: the caller's promise.
    let vectors = unsafe { vectors(list, count)? };
    let slice = |vector: iovec| {
        // SAFETY: the caller's promise.
        Ok(IoSlice::new(unsafe { memory::input(vector.iov_base, vector.iov_len)? }))
    };
    vectors.into_iter().map(slice).collect()
}

/// # Safety
/// The buffers have the room that they say, and nobody else uses it while the slices live.
pub(super) unsafe fn outputs<'a>(list: *const iovec, count: usize) -> Result<Vec<IoSliceMut<'a>>> {
    // SAFETY: the caller's promise.
    let vectors = unsafe { vectors(list, count)? };
    let slice = |vector: iovec| {
        // SAFETY: the caller's promise.
        Ok(IoSliceMut::new(unsafe { memory::output(vector.iov_base, vector.iov_len)? }))
    };
    vectors.into_iter().map(slice).collect()
}
