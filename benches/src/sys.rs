//! The one system call whose result nobody but this crate can vouch for.
#![allow(unsafe_code)]

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// Receives a message into `buffer`, and the descriptor that came with it.
pub(crate) fn recv_with_fd(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut data = [IoSliceMut::new(buffer)];
    let mut control = nix::cmsg_space!([i32; 1]);
    let message =
        recvmsg::<()>(socket.as_raw_fd(), &mut data, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut received = None;
    for item in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = item {
            for fd in fds {
                // Needed because nix hands descriptors out as numbers.
                // SAFETY: the kernel made this descriptor for this call just now; nobody else knows its number.
                received = Some(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    Ok((message.bytes, received))
}
