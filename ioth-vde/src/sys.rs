//! The system calls that nix has no fitting wrapper for.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use ioth_core::Errno;

use crate::{Batch, Frame};

/// Datagrams that go through one system call at most.
pub(crate) const BATCH: usize = 64;

/// Sends frames from the front of the batch as datagrams, without waiting: how many went.
pub(crate) fn send(fd: BorrowedFd<'_>, frames: &Batch) -> Result<usize, Errno> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    if let [frame] = frames.as_slices().0 {
        // The common case needs no table of messages.
        // SAFETY: the pointer and length are those of a live slice, which is only read.
        let sent = unsafe { libc::send(fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), flags) };
        return Errno::result(sent).map(|_| 1);
    }
    let mut vectors = [const { libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 } }; BATCH];
    let mut count = 0;
    for (vector, frame) in vectors.iter_mut().zip(frames) {
        // sendmmsg(2) does not write through the pointer, whatever its type says.
        *vector = libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() };
        count += 1;
    }
    let mut messages = messages(&mut vectors[..count]);
    // nix's sendmmsg wants its own address and buffer types, a vector of each.
    // SAFETY: the first `count` messages point to one vector each, and those to frames that outlive the call.
    let sent =
        unsafe { libc::sendmmsg(fd.as_raw_fd(), messages.as_mut_ptr(), count as libc::c_uint, flags as _) };
    Errno::result(sent).map(|sent| sent as usize)
}

/// Receives a datagram into each of the frames in turn, without waiting: how many came.
///
/// `lengths` tells how long the datagrams were; one that is longer than its frame was cut.
pub(crate) fn receive(
    fd: BorrowedFd<'_>,
    frames: &mut [Frame],
    lengths: &mut [usize; BATCH],
) -> Result<usize, Errno> {
    let mut vectors = [const { libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 } }; BATCH];
    let count = frames.len().min(BATCH);
    for (vector, frame) in vectors.iter_mut().zip(frames) {
        *vector = libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() };
    }
    let mut messages = messages(&mut vectors[..count]);
    // MSG_TRUNC as a flag: report the datagram's own length.
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    // SAFETY: the first `count` messages point to one vector each, and those to distinct frames, which are
    // mutably borrowed during the call.
    let received = unsafe {
        libc::recvmmsg(
            fd.as_raw_fd(),
            messages.as_mut_ptr(),
            count as libc::c_uint,
            flags as _,
            std::ptr::null_mut(),
        )
    };
    let received = Errno::result(received)? as usize;
    for (length, message) in lengths.iter_mut().zip(&messages[..received]) {
        *length = message.msg_len as usize;
    }
    Ok(received)
}

/// One message a vector, without address and ancillary data.
fn messages(vectors: &mut [libc::iovec]) -> [libc::mmsghdr; BATCH] {
    // SAFETY: all zeros is a valid mmsghdr: null pointers with zero lengths. (It has private padding on some
    // targets, so it cannot be written as a literal.)
    let mut messages: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    for (message, vector) in messages.iter_mut().zip(vectors) {
        message.msg_hdr.msg_iov = vector;
        message.msg_hdr.msg_iovlen = 1;
    }
    messages
}
