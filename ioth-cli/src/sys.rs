//! The system calls that no safe wrapper has.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::unistd::ForkResult;

/// Whether SIGPIPE was ignored when the command was started, before Rust's runtime did the same.
static SIGPIPE_IGNORED: AtomicBool = AtomicBool::new(false);

/// Looks before `main`: Rust's runtime sets the signal and forgets what it was.
extern "C" fn look_at_sigpipe() {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // nix's wrapper cannot ask without setting.
    // SAFETY: a null pointer for the new action sets none; the old one is written to memory of its type, and read only then.
    let ignored = unsafe {
        libc::sigaction(libc::SIGPIPE, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    };
    SIGPIPE_IGNORED.store(ignored, Ordering::Relaxed);
}

// The only time at which the signal is still as the caller left it.
// SAFETY: the C library calls the pointers of this section once, before `main`; the function needs nothing of Rust's runtime.
#[unsafe(link_section = ".init_array")]
#[used]
static LOOK_AT_SIGPIPE: extern "C" fn() = look_at_sigpipe;

/// Gives the program that is executed next SIGPIPE as the command had it.
pub(crate) fn restore_sigpipe() {
    if !SIGPIPE_IGNORED.load(Ordering::Relaxed) {
        // Handlers can be unsound, so setting any is unsafe.
        // SAFETY: the default action is no handler.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    }
}

/// fork(2): true in the child.
///
/// # Errors
/// As fork(2); `EBUSY` when there is a second thread, whose locks the child would find held for ever.
pub(crate) fn fork() -> nix::Result<bool> {
    if std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count) != 1 {
        return Err(Errno::EBUSY);
    }
    // A child of a process with threads may do very little.
    // SAFETY: there is this one thread.
    Ok(matches!(unsafe { nix::unistd::fork() }?, ForkResult::Child))
}

/// Closes all descriptors from `first` on, which nobody may own.
pub(crate) fn close_from(first: RawFd) {
    // Closing a descriptor of unknown owner cannot be safe.
    // SAFETY: by contract nothing of this process has them.
    unsafe {
        if libc::close_range(first as libc::c_uint, libc::c_uint::MAX, 0) == 0 {
            return;
        }
    }
    // Linux before 5.9. What is listed may be closed by now: the listing's own descriptor is.
    let listed = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let open: Vec<RawFd> = listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| *fd >= first) {
        // SAFETY: as above.
        unsafe { libc::close(fd) };
    }
}

/// Takes over a descriptor that came in a message, or was made by a call that returns numbers.
pub(crate) fn adopt(fd: RawFd) -> Option<OwnedFd> {
    // Numbers say nothing of their owner.
    // SAFETY: a descriptor that was just received or made is nobody else's.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether a file has this extended attribute.
pub(crate) fn has_attribute(file: BorrowedFd<'_>, name: &CStr) -> bool {
    // nix has no fgetxattr(2).
    // SAFETY: the name ends with a NUL; a room of 0 bytes asks for the length only.
    unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), std::ptr::null_mut(), 0) > 0 }
}
