//! The system calls that have no safe wrapper of the shape needed here.
#![allow(unsafe_code)]

pub(crate) mod helper;

use std::io::IoSlice;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use ioth_core::{Errno, Mmsg, RecvMsg, Result, SendMsg, SockAddr};

/// Bytes of `struct sockaddr_storage`: room for an address of any family.
pub(crate) const ADDR_MAX: usize = size_of::<libc::sockaddr_storage>();

/// At most this many buffers go into one call (`UIO_MAXIOV`).
pub(crate) const IOV_MAX: usize = 1024;

mod requests {
    //! Of those that nix does not name.

    nix::ioctl_read_bad!(unsent, libc::TIOCOUTQ, libc::c_int);
}

/// SIOCOUTQ
pub(crate) fn unsent(fd: BorrowedFd<'_>) -> Result<i32> {
    let mut bytes = 0;
    // SAFETY: the pointer is that of a number that lives during the call, which writes it.
    unsafe { requests::unsent(fd.as_raw_fd(), &raw mut bytes) }?;
    Ok(bytes)
}

pub(crate) fn socket(domain: i32, kind: i32, protocol: i32) -> Result<OwnedFd> {
    // nix knows the families and protocols by enums that leave some out.
    // SAFETY: no pointers are passed.
    owned(unsafe { libc::socket(domain, kind, protocol) })
}

pub(crate) fn bind(fd: BorrowedFd<'_>, addr: &[u8]) -> Result<()> {
    // The address comes as bytes of any family.
    // SAFETY: pointer and length are of one live slice, which the kernel only reads.
    Errno::result(unsafe { libc::bind(fd.as_raw_fd(), addr.as_ptr().cast(), addr.len() as u32) }).map(drop)
}

pub(crate) fn connect(fd: BorrowedFd<'_>, addr: &[u8]) -> Result<()> {
    // The address comes as bytes of any family.
    // SAFETY: pointer and length are of one live slice, which the kernel only reads.
    Errno::result(unsafe { libc::connect(fd.as_raw_fd(), addr.as_ptr().cast(), addr.len() as u32) }).map(drop)
}

pub(crate) fn listen(fd: BorrowedFd<'_>, backlog: i32) -> Result<()> {
    // nix bounds the backlog by the SOMAXCONN of its own build.
    // SAFETY: no pointers are passed.
    Errno::result(unsafe { libc::listen(fd.as_raw_fd(), backlog) }).map(drop)
}

pub(crate) fn shutdown(fd: BorrowedFd<'_>, how: i32) -> Result<()> {
    // nix's takes a number for a descriptor.
    // SAFETY: no pointers are passed.
    Errno::result(unsafe { libc::shutdown(fd.as_raw_fd(), how) }).map(drop)
}

pub(crate) fn accept(fd: BorrowedFd<'_>, addr: &mut [u8; ADDR_MAX], flags: i32) -> Result<(OwnedFd, usize)> {
    let mut len = ADDR_MAX as libc::socklen_t;
    // nix drops the peer's address.
    // SAFETY: `addr` has `len` bytes, both outlive the call.
    let fd = unsafe { libc::accept4(fd.as_raw_fd(), addr.as_mut_ptr().cast(), &mut len, flags) };
    Ok((owned(fd)?, (len as usize).min(ADDR_MAX)))
}

/// getsockname(2) or, with `peer`, getpeername(2): the address's length.
pub(crate) fn name(fd: BorrowedFd<'_>, addr: &mut [u8; ADDR_MAX], peer: bool) -> Result<usize> {
    let call = if peer { libc::getpeername } else { libc::getsockname };
    let mut len = ADDR_MAX as libc::socklen_t;
    // nix gives the address as an enum that lacks families.
    // SAFETY: `addr` has `len` bytes, both outlive the call.
    Errno::result(unsafe { call(fd.as_raw_fd(), addr.as_mut_ptr().cast(), &mut len) })?;
    Ok((len as usize).min(ADDR_MAX))
}

pub(crate) fn send(
    fd: BorrowedFd<'_>,
    data: &[IoSlice<'_>],
    addr: Option<&[u8]>,
    control: &[u8],
    flags: i32,
) -> Result<usize> {
    let header = send_header(data, addr, control);
    // Control messages come as bytes, which nix does not take.
    // SAFETY: every pointer in `header` has its length beside it and outlives the call.
    let sent = Errno::result(unsafe { libc::sendmsg(fd.as_raw_fd(), &header, flags) })?;
    Ok(sent as usize)
}

/// sendmmsg(2): how many were sent.
pub(crate) fn send_many(fd: BorrowedFd<'_>, messages: &mut [Mmsg<SendMsg<'_>>], flags: i32) -> Result<usize> {
    let count = messages.len().min(IOV_MAX);
    let addrs: Vec<_> =
        messages[..count].iter().map(|each| each.message.addr.map(SockAddr::to_raw)).collect();
    let mut headers: Vec<_> = messages
        .iter()
        .zip(&addrs)
        .map(|(Mmsg { message, .. }, addr)| libc::mmsghdr {
            msg_hdr: send_header(message.data, addr.as_deref(), message.control),
            msg_len: 0,
        })
        .collect();
    // nix takes control messages of its own types only.
    // SAFETY: as many headers as are told; every pointer in them has its length beside it and outlives the call.
    let sent = Errno::result(unsafe {
        libc::sendmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), headers.len() as u32, flags as _)
    })? as usize;
    for (each, header) in messages.iter_mut().zip(&headers).take(sent) {
        each.len = header.msg_len as usize;
    }
    Ok(sent)
}

/// A header that points to what is to be sent; nobody writes through it.
fn send_header(data: &[IoSlice<'_>], addr: Option<&[u8]>, control: &[u8]) -> libc::msghdr {
    // Some C libraries have padding fields in msghdr, which a literal could not name.
    // SAFETY: all fields are integers and pointers, for which zero is valid.
    let mut header: libc::msghdr = unsafe { zeroed() };
    // IoSlice has the layout of iovec (std's guarantee); the kernel does not write through these.
    header.msg_iov = data.as_ptr().cast_mut().cast();
    header.msg_iovlen = data.len() as _;
    if let Some(addr) = addr {
        header.msg_name = addr.as_ptr().cast_mut().cast();
        header.msg_namelen = addr.len() as libc::socklen_t;
    }
    if !control.is_empty() {
        header.msg_control = control.as_ptr().cast_mut().cast();
        header.msg_controllen = control.len() as _;
    }
    header
}

/// What recvmsg(2) reported beside the data.
pub(crate) struct Received {
    pub(crate) addr_len: usize,
    /// Of `size_t` or `socklen_t`, by C library.
    pub(crate) control_len: usize,
    pub(crate) flags: i32,
}

impl Received {
    fn new(header: &libc::msghdr) -> Self {
        Received {
            addr_len: (header.msg_namelen as usize).min(ADDR_MAX),
            control_len: header.msg_controllen as _,
            flags: header.msg_flags,
        }
    }
}

pub(crate) fn recv(
    fd: BorrowedFd<'_>,
    message: &mut RecvMsg<'_, '_>,
    addr: &mut [u8; ADDR_MAX],
    flags: i32,
) -> Result<(usize, Received)> {
    let mut header = recv_header(message, addr);
    // Control messages go out as bytes, which nix does not give.
    // SAFETY: every pointer in `header` has its length beside it, is exclusive and outlives the call.
    let len = Errno::result(unsafe { libc::recvmsg(fd.as_raw_fd(), &mut header, flags) })?;
    Ok((len as usize, Received::new(&header)))
}

/// recvmmsg(2): what came of each message that was received. `addrs` is as long as `messages`.
pub(crate) fn recv_many(
    fd: BorrowedFd<'_>,
    messages: &mut [Mmsg<RecvMsg<'_, '_>>],
    addrs: &mut [[u8; ADDR_MAX]],
    flags: i32,
    timeout: Option<&mut Duration>,
) -> Result<Vec<Received>> {
    let mut headers: Vec<_> = messages
        .iter_mut()
        .zip(addrs)
        .map(|(each, addr)| libc::mmsghdr { msg_hdr: recv_header(&mut each.message, addr), msg_len: 0 })
        .collect();
    let mut left = timeout.as_ref().map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let left_at = left.as_mut().map_or(std::ptr::null_mut(), |left| left as *mut _);
    // nix takes control messages of its own types only.
    // SAFETY: as many headers as are told; every pointer in them has its length beside it, is exclusive and outlives
    // the call, and so does the time.
    let received = Errno::result(unsafe {
        libc::recvmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), headers.len() as u32, flags as _, left_at)
    })? as usize;
    if let (Some(timeout), Some(left)) = (timeout, left) {
        *timeout = Duration::new(left.tv_sec.max(0) as u64, left.tv_nsec as u32);
    }
    headers.truncate(received);
    for (each, header) in messages.iter_mut().zip(&headers) {
        each.len = header.msg_len as usize;
    }
    Ok(headers.iter().map(|header| Received::new(&header.msg_hdr)).collect())
}

/// A header that points to where a message goes.
fn recv_header(message: &mut RecvMsg<'_, '_>, addr: &mut [u8; ADDR_MAX]) -> libc::msghdr {
    // Some C libraries have padding fields in msghdr, which a literal could not name.
    // SAFETY: all fields are integers and pointers, for which zero is valid.
    let mut header: libc::msghdr = unsafe { zeroed() };
    // IoSliceMut has the layout of iovec (std's guarantee).
    header.msg_iov = message.data.as_mut_ptr().cast();
    header.msg_iovlen = message.data.len() as _;
    header.msg_name = addr.as_mut_ptr().cast();
    header.msg_namelen = ADDR_MAX as libc::socklen_t;
    if !message.control.is_empty() {
        header.msg_control = message.control.as_mut_ptr().cast();
        header.msg_controllen = message.control.len() as _;
    }
    header
}

pub(crate) fn set_option(fd: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> Result<()> {
    let len = value.len() as libc::socklen_t;
    // Options come by number.
    // SAFETY: pointer and length are of one live slice, which the kernel only reads.
    Errno::result(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), len) })
        .map(drop)
}

/// SO_ATTACH_FILTER and SO_ATTACH_REUSEPORT_CBPF with an array of `struct sock_filter`.
pub(crate) fn attach_filter(fd: BorrowedFd<'_>, name: i32, program: &[u8]) -> Result<()> {
    let count = program.len() / size_of::<libc::sock_filter>();
    if !program.len().is_multiple_of(size_of::<libc::sock_filter>()) {
        return Err(Errno::EINVAL);
    }
    let program = libc::sock_fprog {
        len: count.try_into().map_err(|_| Errno::EINVAL)?,
        filter: program.as_ptr().cast_mut().cast(),
    };
    let len = size_of::<libc::sock_fprog>() as libc::socklen_t;
    // nix has no filters.
    // SAFETY: the structure is live, and so is the array to which it points, of as many instructions as it says; the
    // kernel only copies both, at any alignment.
    Errno::result(unsafe {
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, name, (&raw const program).cast(), len)
    })
    .map(drop)
}

/// SO_GET_FILTER, whose length counts instructions: the filter's length in bytes.
pub(crate) fn filter(fd: BorrowedFd<'_>, value: &mut [u8]) -> Result<usize> {
    let mut count = (value.len() / size_of::<libc::sock_filter>()) as libc::socklen_t;
    let (level, name) = (libc::SOL_SOCKET, libc::SO_GET_FILTER);
    // nix has no filters.
    // SAFETY: the kernel writes no more than `count` instructions to `value`, which is live and exclusive.
    Errno::result(unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &mut count)
    })?;
    Ok(count as usize * size_of::<libc::sock_filter>())
}

/// The caller has made sure that `name` writes nowhere but to `value` (see [`crate::calls`]).
pub(crate) fn option(fd: BorrowedFd<'_>, level: i32, name: i32, value: &mut [u8]) -> Result<usize> {
    let mut len = value.len() as libc::socklen_t;
    // Options come by number.
    // SAFETY: pointer and length are of one live, exclusive slice.
    Errno::result(unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &mut len)
    })?;
    Ok((len as usize).min(value.len()))
}

/// Bytes of the longest structure of a request, `struct rtentry`, with a device's name behind it, and some more.
pub(crate) const REQUEST_MAX: usize = 256;

/// The caller has made sure that `request` takes a structure without pointers in it, or (with `routes`) at most
/// a `struct rtentry`, whose device's name is behind it (see [`crate::calls`]).
///
/// # Errors
/// As ioctl(2).
pub(crate) fn ioctl(
    fd: BorrowedFd<'_>,
    request: u64,
    argument: &mut [u8; REQUEST_MAX],
    routes: bool,
) -> Result<i32> {
    const DEVICE: usize = std::mem::offset_of!(libc::rtentry, rt_dev);
    let name = argument[size_of::<libc::rtentry>()..].as_ptr() as usize;
    let device = &mut argument[DEVICE..DEVICE + size_of::<usize>()];
    if routes && device.iter().any(|byte| *byte != 0) {
        device.copy_from_slice(&name.to_ne_bytes());
    }
    // Requests come by number.
    // SAFETY: the kernel touches no more than `argument`, which is live and exclusive; a name that it reads there ends
    // within, as the last bytes are zero.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), request as _, argument.as_mut_ptr()) })
}

/// `SIOCGIFCONF`: fills the array of `struct ifreq`, and gives its used length; without any room, the length it has.
pub(crate) fn ifconf(fd: BorrowedFd<'_>, array: &mut [u8]) -> Result<i32> {
    let buffer = if array.is_empty() { std::ptr::null_mut() } else { array.as_mut_ptr() };
    let mut conf = libc::ifconf {
        ifc_len: i32::try_from(array.len()).unwrap_or(i32::MAX),
        ifc_ifcu: libc::__c_anonymous_ifc_ifcu { ifcu_buf: buffer.cast() },
    };
    // It has a pointer in its structure.
    // SAFETY: the kernel writes at most `ifc_len` bytes to the array, which is live and exclusive, and the length to `conf`.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCGIFCONF as _, &raw mut conf) })?;
    Ok(conf.ifc_len)
}

/// dup2(2): the number, which is `to`.
///
/// The caller's program owns `to`, as it does with the plain call.
pub(crate) fn dup2(fd: BorrowedFd<'_>, to: RawFd) -> Result<RawFd> {
    // nix wants to own the number.
    // SAFETY: no pointers are passed.
    Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), to) })
}

/// dup3(2): the number, which is `to`.
pub(crate) fn dup3(fd: BorrowedFd<'_>, to: RawFd, flags: i32) -> Result<RawFd> {
    // nix wants to own the number.
    // SAFETY: no pointers are passed.
    Errno::result(unsafe { libc::dup3(fd.as_raw_fd(), to, flags) })
}

/// fcntl(2) with a command that takes no pointer: the caller has made sure of that (see [`crate::calls`]).
pub(crate) fn fcntl(fd: BorrowedFd<'_>, command: i32, argument: i32) -> Result<i32> {
    // nix's enum lacks commands.
    // SAFETY: no pointers are passed.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), command, argument) };
    // The owner of a descriptor may be a process group, which is told as a negative number.
    if command == libc::F_GETOWN && result < -1 { Ok(result) } else { Errno::result(result) }
}

fn owned(fd: RawFd) -> Result<OwnedFd> {
    let fd = Errno::result(fd)?;
    // The kernel gives a number.
    // SAFETY: it was made just now, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
