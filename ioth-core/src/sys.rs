//! The system calls that no safe wrapper covers: the crate's only unsafe code.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use libc::c_int;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollTimeout};
use nix::sys::time::TimeSpec;

/// Waits as epoll_wait(2), to the nanosecond where the kernel can.
pub(crate) fn epoll_wait(
    epoll: &Epoll,
    events: &mut [EpollEvent],
    timeout: Option<Duration>,
) -> Result<usize, Errno> {
    static OLD: AtomicBool = AtomicBool::new(false);
    // Its timespec has 64 bits everywhere, the C library's not.
    if cfg!(target_pointer_width = "64") && !OLD.load(Ordering::Relaxed) {
        let timeout = timeout.map(TimeSpec::from);
        let timeout: *const libc::timespec = timeout.as_ref().map_or(ptr::null(), |timeout| timeout.as_ref());
        let room = c_int::try_from(events.len()).unwrap_or(c_int::MAX);
        // nix has epoll_wait(2) only, whose milliseconds are too coarse for TCP's timers; older C libraries have no
        // epoll_pwait2.
        // SAFETY: the kernel writes at most `room` events to `events`, whose elements are epoll_events (the type is
        // transparent), and reads a timespec, if any, that lives until the call returns; there is no signal mask.
        let result = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                epoll.0.as_raw_fd(),
                events.as_mut_ptr(),
                room,
                timeout,
                ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        match Errno::result(result) {
            // Before Linux 5.11, or under a filter that does not know it.
            Err(Errno::ENOSYS | Errno::EPERM) => OLD.store(true, Ordering::Relaxed),
            result => return result.map(|count| count as usize),
        }
    }
    // Rather late than awake for nothing.
    let timeout = match timeout {
        None => EpollTimeout::NONE,
        Some(timeout) => {
            EpollTimeout::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(EpollTimeout::MAX)
        }
    };
    epoll.wait(events, timeout)
}

/// Sleeps while `word` is `expected`, at most for so long: futex(2), FUTEX_WAIT, among the threads of this process.
///
/// # Errors
/// `EAGAIN` when it is something else, `ETIMEDOUT`, `EINTR` as signal(7) says.
pub(crate) fn futex_wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> Result<(), Errno> {
    /// The call's timespec, which has two words of the machine's, whatever the C library's has.
    #[repr(C)]
    struct Time(libc::c_long, libc::c_long);
    // One too long for the clock is none.
    let time = timeout.and_then(|timeout| {
        let seconds = libc::c_long::try_from(timeout.as_secs()).ok()?;
        Some(Time(seconds, timeout.subsec_nanos() as libc::c_long))
    });
    let time: *const Time = time.as_ref().map_or(ptr::null(), |time| time);
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the kernel reads a word, and a time, if any, that live until the call returns.
    let result = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, expected, time) };
    Errno::result(result).map(drop)
}

/// Wakes a thread that sleeps on `word`, if there is one.
pub(crate) fn futex_wake(word: &AtomicU32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: of the word only the address counts.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, 1) };
}

/// Whether calls are begun again after each handler of a signal that the program has (SA_RESTART).
pub(crate) fn handlers_restart() -> bool {
    // What a thread does itself, and not while it waits: Rust's own runtime has handlers for such.
    const FAULTS: [i32; 6] =
        [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];
    (1..=libc::SIGRTMAX()).filter(|signal| !FAULTS.contains(signal)).all(|signal| {
        // nix tells of a handler by replacing it.
        // SAFETY: all zeros is a valid sigaction: numbers, a set of bits, and null pointers.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes a structure that lives during the call, and changes nothing.
        let known = unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) } == 0;
        let handled = known && ![libc::SIG_DFL, libc::SIG_IGN].contains(&action.sa_sigaction);
        !handled || action.sa_flags & libc::SA_RESTART != 0
    })
}

/// Changes what is told of `fd`.
pub(crate) fn epoll_modify(epoll: &Epoll, fd: RawFd, mut event: EpollEvent) -> Result<(), Errno> {
    // The table keeps a number, since a borrow cannot be stored.
    // SAFETY: whoever registered `fd` keeps it open until it is deregistered; the number goes into
    // one epoll_ctl call and nowhere else, which fails with EBADF or ENOENT for a stale one.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    epoll.modify(fd, &mut event)
}

/// Takes `fd` out.
pub(crate) fn epoll_delete(epoll: &Epoll, fd: RawFd) -> Result<(), Errno> {
    // The table keeps a number, since a borrow cannot be stored.
    // SAFETY: as in `epoll_modify`.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    epoll.delete(fd)
}

/// The number that the kernel gave the socket, unique while the system runs (`SO_COOKIE`).
pub(crate) fn socket_cookie(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut cookie = 0u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // nix has no such option.
    // SAFETY: the kernel writes at most `len` bytes to `cookie`, which has that size, and the length to `len`.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    Errno::result(result).map(|_| cookie)
}

/// poll(2) without waiting: which of `events` hold.
pub(crate) fn poll(fd: BorrowedFd<'_>, events: i16) -> Result<i16, Errno> {
    let mut polled = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // nix's flags lack POLLRDHUP, and it gives nothing at all when that is set.
    // SAFETY: one live, exclusive structure is passed, and its count.
    Errno::result(unsafe { libc::poll(&mut polled, 1, 0) })?;
    Ok(polled.revents)
}

/// Runs `call` on a descriptor's number; a closed one gives `EBADF` there.
pub(crate) fn with_number<T>(
    fd: RawFd,
    call: impl FnOnce(BorrowedFd<'_>) -> Result<T, Errno>,
) -> Result<T, Errno> {
    if fd < 0 {
        return Err(Errno::EBADF);
    }
    // A released descriptor belongs to the user, who may close it at any time.
    // SAFETY: not -1; only system calls are made on it, and the kernel checks the number in each.
    call(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// How many bytes wait to be read (`FIONREAD`).
pub(crate) fn unread(fd: BorrowedFd<'_>) -> Result<usize, Errno> {
    let mut count: libc::c_int = 0;
    // nix makes a function of an ioctl by a macro that is unsafe as well.
    // SAFETY: FIONREAD writes one int to the address, which `count` has.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    Errno::result(result).map(|_| usize::try_from(count).unwrap_or(0))
}

/// A number that is 0 at first, and again in a forked child; the three functions are run around each fork(3).
pub(crate) fn fork_mark(
    before: extern "C" fn(),
    parent: extern "C" fn(),
    child: extern "C" fn(),
) -> &'static AtomicU64 {
    /// Where the kernel wipes nothing, `child` does.
    static PLAIN: AtomicU64 = AtomicU64::new(0);
    static MARK: OnceLock<&'static AtomicU64> = OnceLock::new();
    MARK.get_or_init(|| {
        // Neither std nor nix has it.
        // SAFETY: three functions that live as long as the program. It fails for want of memory only; then a child is
        // recognised by the wiped page.
        unsafe { libc::pthread_atfork(Some(hook(before)), Some(hook(parent)), Some(hook(child))) };
        wiped_on_fork().unwrap_or(&PLAIN)
    })
}

/// The type that pthread_atfork(3) takes.
fn hook(function: extern "C" fn()) -> unsafe extern "C" fn() {
    function
}

/// A number in a page of its own, which is 0, and which a forked child finds 0 again (madvise(2), since Linux 4.14).
fn wiped_on_fork() -> Option<&'static AtomicU64> {
    let len = size_of::<AtomicU64>();
    // Only a whole page can be wiped, which no allocation of std's is.
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no memory of ours.
    let page = unsafe {
        let (rights, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        libc::mmap(ptr::null_mut(), len, rights, kind, -1, 0)
    };
    if page == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the page was mapped just above; nobody else knows of it.
    if unsafe { libc::madvise(page, len, libc::MADV_WIPEONFORK) } != 0 {
        // SAFETY: as above, and nobody refers to it.
        unsafe { libc::munmap(page, len) };
        return None;
    }
    // SAFETY: a page is aligned and large enough, its zeroes are a valid number, and it is never unmapped.
    Some(unsafe { &*page.cast::<AtomicU64>() })
}
