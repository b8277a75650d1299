//! System calls, without the C library's functions of the same names: those are what this library stands in for.

use std::ffi::{c_int, c_long};
use std::mem::offset_of;

use super::memory::User;
use super::pieces::{Inward, Outward, Pieces};
use crate::errno::{Errno, Result};

/// A descriptor of this library's, closed when it is dropped.
#[derive(Debug)]
pub struct Fd(c_int);

impl Fd {
    /// Its number.
    pub fn number(&self) -> c_int {
        self.0
    }

    /// Gives it to the program.
    pub fn into_number(self) -> c_int {
        let number = self.0;
        std::mem::forget(self);
        number
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        let _ = call(libc::SYS_close, [number(self.0), 0, 0, 0, 0, 0]);
    }
}

/// The thread's errno.
pub fn errno() -> c_int {
    // std reads it only as an error of its own.
    // SAFETY: the pointer is good for the thread's life.
    unsafe { *libc::__errno_location() }
}

/// Sets it.
pub fn set_errno(errno: c_int) {
    // As above, and std does not set it.
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Any system call on numbers and the program's own memory, as the program asked for it.
pub(crate) fn call(which: c_long, args: [usize; 6]) -> Result<isize> {
    let [a, b, c, d, e, f] = args;
    // Calls that the program makes are passed on as they are.
    // SAFETY: the kernel checks the pointers. Those of the program are its own to have written; those of this library come
    // from the functions below, whose memory is live and long enough.
    let result = unsafe { libc::syscall(which, a, b, c, d, e, f) };
    match result {
        -1 => Err(Errno(errno())),
        result => Ok(result as isize),
    }
}

/// A C int as an argument.
pub(crate) fn number(number: c_int) -> usize {
    number as isize as usize
}

/// A descriptor as the kernel has given it.
fn fd(number: isize) -> Fd {
    Fd(number as c_int)
}

/// The name of the other end of an AF_UNIX socket: all of its address, and how long that is.
pub(crate) fn peer_name(of: c_int, name: &mut [u8; size_of::<libc::sockaddr_un>()]) -> Result<usize> {
    let mut len = name.len() as libc::socklen_t;
    let (at, len_at) = (name.as_mut_ptr() as usize, &raw mut len as usize);
    call(libc::SYS_getpeername, [number(of), at, len_at, 0, 0, 0])?;
    Ok(len as usize)
}

/// An option of SOL_SOCKET that is an int.
pub(crate) fn option(of: c_int, name: c_int) -> Result<c_int> {
    let (mut value, mut len): (c_int, _) = (0, size_of::<c_int>() as libc::socklen_t);
    let (at, len_at) = (&raw mut value as usize, &raw mut len as usize);
    call(libc::SYS_getsockopt, [number(of), number(libc::SOL_SOCKET), number(name), at, len_at, 0])?;
    Ok(value)
}

/// A time-out of a socket, in milliseconds; none for a socket that waits for ever.
pub(crate) fn timeout(of: c_int, name: c_int) -> Result<Option<i64>> {
    let mut value = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let mut len = size_of::<libc::timeval>() as libc::socklen_t;
    let (at, len_at) = (&raw mut value as usize, &raw mut len as usize);
    call(libc::SYS_getsockopt, [number(of), number(libc::SOL_SOCKET), number(name), at, len_at, 0])?;
    let milliseconds = value.tv_sec.saturating_mul(1000).saturating_add(value.tv_usec / 1000);
    Ok((value.tv_sec != 0 || value.tv_usec != 0).then_some(milliseconds.max(1)))
}

/// Sets an int of SOL_SOCKET.
pub(crate) fn set_option(of: c_int, name: c_int, value: c_int) -> Result<()> {
    let at = &raw const value as usize;
    let len = size_of::<c_int>();
    call(libc::SYS_setsockopt, [number(of), number(libc::SOL_SOCKET), number(name), at, len, 0]).map(drop)
}

/// A SOCK_SEQPACKET socket of AF_UNIX, closed by exec.
pub(crate) fn control_socket() -> Result<Fd> {
    let kind = number(libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC);
    call(libc::SYS_socket, [number(libc::AF_UNIX), kind, 0, 0, 0, 0]).map(fd)
}

/// Connects to an abstract name, given without its NUL.
pub(crate) fn connect(control: &Fd, name: &[u8]) -> Result<()> {
    let mut addr = libc::sockaddr_un { sun_family: libc::AF_UNIX as libc::sa_family_t, sun_path: [0; 108] };
    for (to, from) in addr.sun_path[1..].iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    let len = offset_of!(libc::sockaddr_un, sun_path) + 1 + name.len();
    let at = &raw const addr as usize;
    call(libc::SYS_connect, [number(control.0), at, len.min(size_of_val(&addr)), 0, 0, 0]).map(drop)
}

/// Whether the descriptor does not wait.
pub(crate) fn is_nonblocking(of: c_int) -> Result<bool> {
    let flags = call(libc::SYS_fcntl, [number(of), number(libc::F_GETFL), 0, 0, 0, 0])?;
    Ok(flags as c_int & libc::O_NONBLOCK != 0)
}

/// Makes a descriptor that was received, with O_CLOEXEC, the program's.
pub(crate) fn hand_out(received: Fd, nonblocking: bool, close_on_exec: bool) -> Result<c_int> {
    if nonblocking {
        let flags = number(libc::O_RDWR | libc::O_NONBLOCK);
        call(libc::SYS_fcntl, [number(received.0), number(libc::F_SETFL), flags, 0, 0, 0])?;
    }
    if !close_on_exec {
        call(libc::SYS_fcntl, [number(received.0), number(libc::F_SETFD), 0, 0, 0, 0])?;
    }
    Ok(received.into_number())
}

/// Gives a descriptor the lowest number that is free.
pub(crate) fn lowest(received: Fd) -> Result<Fd> {
    let other = reserve(received.0)?;
    let (lower, higher) = if other.0 < received.0 { (other, received) } else { (received, other) };
    drop(higher);
    Ok(lower)
}

/// Another descriptor, which keeps a number free.
pub(crate) fn reserve(of: c_int) -> Result<Fd> {
    call(libc::SYS_fcntl, [number(of), number(libc::F_DUPFD_CLOEXEC), 0, 0, 0, 0]).map(fd)
}

pub(crate) fn shutdown(of: c_int, how: c_int) -> Result<()> {
    call(libc::SYS_shutdown, [number(of), number(how), 0, 0, 0, 0]).map(drop)
}

/// Waits for poll(2) events, for ever without a time: those that came, 0 for none in time.
pub(crate) fn poll(of: c_int, events: i16, milliseconds: Option<i64>) -> Result<i16> {
    let mut wanted = libc::pollfd { fd: of, events, revents: 0 };
    let time = milliseconds.map(|milliseconds| libc::timespec {
        tv_sec: milliseconds / 1000,
        tv_nsec: milliseconds % 1000 * 1_000_000,
    });
    let time_at = time.as_ref().map_or(0, |time| &raw const *time as usize);
    call(libc::SYS_ppoll, [&raw mut wanted as usize, 1, time_at, 0, 0, 0])?;
    Ok(wanted.revents)
}

/// The time since some moment, in nanoseconds.
pub(crate) fn monotonic() -> Result<i128> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    call(libc::SYS_clock_gettime, [number(libc::CLOCK_MONOTONIC), &raw mut now as usize, 0, 0, 0, 0])?;
    Ok(i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec))
}

/// Maps a page of a file for as long as the program runs, without the right to look at it.
pub fn map_nothing(file: &Fd) {
    let (rights, kind) = (number(libc::PROT_NONE), number(libc::MAP_SHARED));
    let _ = call(libc::SYS_mmap, [0, 1, rights, kind, number(file.0), 0]);
}

/// Ends the calling thread's write to a broken pipe as the kernel does.
pub(crate) fn raise_sigpipe() {
    let (Ok(process), Ok(thread)) = (call(libc::SYS_getpid, [0; 6]), call(libc::SYS_gettid, [0; 6])) else {
        return;
    };
    let _ = call(libc::SYS_tgkill, [process as usize, thread as usize, number(libc::SIGPIPE), 0, 0, 0]);
}

/// One descriptor as ancillary data.
#[repr(C)]
struct Rights {
    header: libc::cmsghdr,
    fd: c_int,
}

impl Rights {
    /// `CMSG_LEN` of one descriptor.
    const LEN: usize = offset_of!(Rights, fd) + size_of::<c_int>();

    fn new(fd: c_int) -> Rights {
        // SAFETY: a header is numbers (and padding on some systems), of which zeroes are some.
        let mut header: libc::cmsghdr = unsafe { std::mem::zeroed() };
        header.cmsg_len = Rights::LEN as _;
        header.cmsg_level = libc::SOL_SOCKET;
        header.cmsg_type = libc::SCM_RIGHTS;
        Rights { header, fd }
    }
}

fn message() -> libc::msghdr {
    // SAFETY: numbers, pointers and padding, of which zeroes are some.
    unsafe { std::mem::zeroed() }
}

/// Sends a message made of a head and pieces, and a descriptor with it.
pub(crate) fn send<const N: usize>(
    to: c_int,
    head: &[u8],
    pieces: &mut Pieces<'_, Outward, N>,
    rights: Option<c_int>,
    flags: c_int,
) -> Result<usize> {
    let mut rights = rights.map(Rights::new);
    let mut header = message();
    if let Some(rights) = &mut rights {
        header.msg_control = (&raw mut *rights).cast();
        header.msg_controllen = size_of::<Rights>() as _;
    }
    // The kernel does not write to what it sends.
    pieces.with_head(head.as_ptr().cast_mut(), head.len(), |list| {
        header.msg_iov = list.as_mut_ptr();
        header.msg_iovlen = list.len() as _;
        call(libc::SYS_sendmsg, [number(to), &raw const header as usize, number(flags), 0, 0, 0])
            .map(|sent| sent as usize)
    })
}

/// What [`receive`] has received.
#[derive(Debug)]
pub(crate) struct Received {
    /// In bytes; with MSG_TRUNC among the call's flags also what found no room.
    pub(crate) len: usize,
    /// `msg_flags`
    pub(crate) flags: c_int,
    /// The descriptor that came with it, with O_CLOEXEC.
    pub(crate) fd: Option<Fd>,
}

/// Receives a message into a head and pieces. Descriptors that come with it are lost, unless one is asked for.
pub(crate) fn receive<const N: usize>(
    from: c_int,
    head: &mut [u8],
    pieces: &mut Pieces<'_, Inward, N>,
    with_fd: bool,
    flags: c_int,
) -> Result<Received> {
    let mut rights = Rights::new(-1);
    let mut header = message();
    if with_fd {
        header.msg_control = (&raw mut rights).cast();
        header.msg_controllen = size_of::<Rights>() as _;
    }
    let flags = number(flags | libc::MSG_CMSG_CLOEXEC);
    let len = pieces.with_head(head.as_mut_ptr(), head.len(), |list| {
        header.msg_iov = list.as_mut_ptr();
        header.msg_iovlen = list.len() as _;
        call(libc::SYS_recvmsg, [number(from), &raw mut header as usize, flags, 0, 0, 0])
    })?;
    let is_rights = with_fd
        && header.msg_controllen >= Rights::LEN
        && (rights.header.cmsg_level, rights.header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS)
        && rights.header.cmsg_len >= Rights::LEN;
    let flags = header.msg_flags & !libc::MSG_CMSG_CLOEXEC;
    Ok(Received { len: len as usize, flags, fd: is_rights.then(|| Fd(rights.fd)) })
}

/// sendto(2) on the pair itself, to nobody in particular.
pub(crate) fn send_native(to: c_int, data: User<u8>, len: usize, flags: c_int) -> Result<usize> {
    let at = data.pointer() as usize;
    call(libc::SYS_sendto, [number(to), at, len, number(flags), 0, 0]).map(|sent| sent as usize)
}

/// recvfrom(2) on the pair itself, from nobody in particular.
pub(crate) fn receive_native(from: c_int, room: User<u8>, len: usize, flags: c_int) -> Result<usize> {
    let at = room.pointer() as usize;
    call(libc::SYS_recvfrom, [number(from), at, len, number(flags), 0, 0]).map(|len| len as usize)
}

/// ioctl(2) whose argument is an int to be written.
pub(crate) fn count(of: c_int, request: u64) -> Result<c_int> {
    let mut count: c_int = 0;
    call(libc::SYS_ioctl, [number(of), request as usize, &raw mut count as usize, 0, 0, 0])?;
    Ok(count)
}

/// Ends the process: the C library's answer to a buffer that is shorter than it was said to be.
pub fn chk_fail() -> ! {
    unsafe extern "C" {
        fn __chk_fail() -> !;
    }
    // Only the C library knows how it says so.
    // SAFETY: it takes nothing and does not return.
    unsafe { __chk_fail() }
}
