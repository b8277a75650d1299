//! The system calls: libc's, so that nothing stands between the kernel and what is seen.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The descriptor that is polled.
const FD: i32 = libc::STDERR_FILENO;
/// Every bit that can be asked for; ERR and HUP come by themselves.
pub(crate) const ALL: u32 = (libc::POLLIN | libc::POLLPRI | libc::POLLOUT | libc::POLLRDHUP) as u32;

/// close_range(2) of all but the standard descriptors.
pub(crate) fn close_others() -> io::Result<u32> {
    // std closes what it knows only.
    // SAFETY: the program has just started and has opened nothing.
    check(unsafe { libc::close_range(libc::STDERR_FILENO as u32 + 1, u32::MAX, 0) })?;
    Ok(0)
}

/// poll(2) with a time-out in milliseconds.
pub(crate) fn poll(events: u32, timeout: i32) -> io::Result<u32> {
    let mut polled = libc::pollfd { fd: FD, events: events as i16, revents: 0 };
    // poll(2) itself is what is tested.
    // SAFETY: one valid pollfd.
    check(unsafe { libc::poll(&raw mut polled, 1, timeout) })?;
    Ok(u32::from(polled.revents as u16))
}

/// select(2): its three sets as the bits of `POLLIN`, `POLLOUT` and `POLLPRI`.
pub(crate) fn select() -> io::Result<u32> {
    // select(2) itself is what is tested.
    // SAFETY: an fd_set of zeroes is the empty set; the number is below FD_SETSIZE, and the sets and the time-out
    // outlive the call.
    unsafe {
        let mut sets: [libc::fd_set; 3] = std::mem::zeroed();
        for set in &mut sets {
            libc::FD_SET(FD, set);
        }
        let [read, write, except] = &mut sets;
        let mut now = libc::timeval { tv_sec: 0, tv_usec: 0 };
        check(libc::select(FD + 1, read, write, except, &raw mut now))?;
        let bit = |set: &libc::fd_set, bit: i16| if libc::FD_ISSET(FD, set) { bit as u32 } else { 0 };
        Ok(bit(read, libc::POLLIN) | bit(write, libc::POLLOUT) | bit(except, libc::POLLPRI))
    }
}

/// An epoll set that holds the descriptor.
pub(crate) struct Epoll(OwnedFd);

impl Epoll {
    /// Level- or edge-triggered.
    pub(crate) fn new(edge: bool) -> io::Result<Self> {
        // epoll(7) itself is what is tested.
        // SAFETY: the descriptor that is returned belongs to nobody else.
        let epoll = unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        let mut event = libc::epoll_event { events: ALL, u64: 0 };
        if edge {
            event.events |= libc::EPOLLET as u32;
        }
        // SAFETY: `event` outlives the call.
        check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, FD, &raw mut event) })?;
        Ok(Epoll(epoll))
    }

    /// epoll_wait(2) without waiting.
    pub(crate) fn wait(&self) -> io::Result<u32> {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: room for one event.
        check(unsafe { libc::epoll_wait(self.0.as_raw_fd(), &raw mut event, 1, 0) })?;
        Ok(event.events)
    }
}

/// getsockopt(2) of SO_ERROR.
pub(crate) fn so_error() -> io::Result<u32> {
    let mut error = 0u32;
    let mut len = size_of::<u32>() as libc::socklen_t;
    // std keeps take_error to its own sockets.
    // SAFETY: the kernel writes at most `len` bytes, which `error` has.
    check(unsafe {
        libc::getsockopt(FD, libc::SOL_SOCKET, libc::SO_ERROR, (&raw mut error).cast(), &raw mut len)
    })?;
    Ok(error)
}

/// Whether O_NONBLOCK is set.
pub(crate) fn nonblock() -> io::Result<u32> {
    // std can set it only.
    // SAFETY: F_GETFL takes no argument.
    let flags = check(unsafe { libc::fcntl(FD, libc::F_GETFL) })?;
    Ok(u32::from(flags & libc::O_NONBLOCK != 0))
}

/// close(2).
pub(crate) fn close() -> io::Result<u32> {
    // Standard error has no owner that could be dropped.
    // SAFETY: nothing in this program uses standard error.
    check(unsafe { libc::close(FD) })?;
    Ok(0)
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
