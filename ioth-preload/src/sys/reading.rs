//! The C library's own read(2) and readv(2): unlike bare system calls they are where pthread_cancel(3) may end a thread, on
//! whichever descriptor.

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{iovec, ssize_t};

use super::next;

static READ: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
static READV: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

/// Finds them, before main(): a signal handler, which may read, may not look for functions.
pub(super) fn prepare() {
    READ.store(next::find("read\0"), Ordering::Relaxed);
    READV.store(next::find("readv\0"), Ordering::Relaxed);
}

/// # Safety
/// As read(2) asks.
pub(super) unsafe fn read(fd: c_int, room: *mut c_void, len: usize) -> ssize_t {
    type Read = unsafe extern "C" fn(c_int, *mut c_void, usize) -> ssize_t;
    // Only here its type is known.
    // SAFETY: null, or the function of that name.
    let next = unsafe { std::mem::transmute::<*mut c_void, Option<Read>>(READ.load(Ordering::Relaxed)) };
    match next {
        // SAFETY: the caller's promise.
        Some(next) => unsafe { next(fd, room, len) },
        // Another library's constructor reads before ours has run.
        // SAFETY: the caller's promise.
        None => unsafe { libc::syscall(libc::SYS_read, fd, room, len) as ssize_t },
    }
}

/// # Safety
/// As readv(2) asks.
pub(super) unsafe fn readv(fd: c_int, list: *const iovec, count: c_int) -> ssize_t {
    type Readv = unsafe extern "C" fn(c_int, *const iovec, c_int) -> ssize_t;
    // As above.
    // SAFETY: null, or the function of that name.
    let next = unsafe { std::mem::transmute::<*mut c_void, Option<Readv>>(READV.load(Ordering::Relaxed)) };
    match next {
        // SAFETY: the caller's promise.
        Some(next) => unsafe { next(fd, list, count) },
        // SAFETY: the caller's promise.
        None => unsafe { libc::syscall(libc::SYS_readv, fd, list, count) as ssize_t },
    }
}
