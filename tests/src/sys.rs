//! A filter of system calls for a child process, and the conversation about those that it stops.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::{c_int, sock_filter, sock_fprog};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

mod ioctls {
    nix::ioctl_readwrite!(receive, b'!', 0, libc::seccomp_notif);
    nix::ioctl_readwrite!(send, b'!', 1, libc::seccomp_notif_resp);
}

/// Has the command run under `filter`, with all its descendants; the filter's listener is sent over `to`, which must live
/// until the command was spawned.
pub(crate) fn confine(command: &mut Command, filter: Vec<sock_filter>, to: OwnedFd) {
    let install = move || {
        let listener = install(&filter)?;
        let numbers = [listener.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&numbers)];
        sendmsg::<()>(to.as_raw_fd(), &[io::IoSlice::new(b"x")], &rights, MsgFlags::empty(), None)?;
        Ok(())
    };
    // The filter has to be there before the program, and stay off its parent.
    // SAFETY: between fork and exec only system calls are made, on memory of the closure's own; nix's `sendmsg` allocates
    // for ancillary data, which glibc's fork(3) makes safe in the child.
    unsafe { command.pre_exec(install) };
}

fn install(filter: &[sock_filter]) -> io::Result<OwnedFd> {
    let program = sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    let load = || {
        // nix has no seccomp(2).
        // SAFETY: the program points to `filter`, which the kernel copies.
        unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
                &raw const program,
            )
        }
    };
    let mut listener = load();
    if listener < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EACCES) {
        // An ordinary user has to give up set-uid programs first.
        nix::sys::prctl::set_no_new_privs()?;
        listener = load();
    }
    match listener {
        // SAFETY: the kernel has just made the descriptor.
        0.. => Ok(unsafe { OwnedFd::from_raw_fd(listener as RawFd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A system call that waits to be decided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopped {
    id: u64,
    /// Who called.
    pub(crate) pid: u32,
    /// The call's first argument.
    pub(crate) argument: u64,
}

/// The next call that was stopped.
///
/// # Errors
/// `ENOENT` when who called has gone meanwhile.
pub(crate) fn next_stopped(listener: BorrowedFd<'_>) -> nix::Result<Stopped> {
    // The kernel wants it zeroed.
    // SAFETY: a structure of numbers, for which zero is good; the kernel fills it within its size.
    let stopped = unsafe {
        let mut stopped: libc::seccomp_notif = std::mem::zeroed();
        ioctls::receive(listener.as_raw_fd(), &mut stopped)?;
        stopped
    };
    Ok(Stopped { id: stopped.id, pid: stopped.pid, argument: stopped.data.args[0] })
}

/// Has a stopped call fail.
///
/// # Errors
/// `ENOENT` when who called has gone meanwhile.
pub(crate) fn fail(listener: BorrowedFd<'_>, stopped: &Stopped, errno: c_int) -> nix::Result<()> {
    let mut answer = libc::seccomp_notif_resp { id: stopped.id, val: 0, error: -errno, flags: 0 };
    // nix's macros make functions of any argument.
    // SAFETY: the structure is this request's.
    unsafe { ioctls::send(listener.as_raw_fd(), &mut answer) }.map(drop)
}

/// Takes over a descriptor that was just received.
pub(crate) fn received(fd: RawFd) -> OwnedFd {
    // nix hands received descriptors over as numbers.
    // SAFETY: the kernel opened it for the message, so nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
