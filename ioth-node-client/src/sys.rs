//! The crate's only unsafe code: memory that calls are given, descriptors that they make, and the lease's mapping.
#![allow(unsafe_code)]

use std::io::{IoSlice, IoSliceMut};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;

use ioth_core::{Errno, Result};
use ioth_node_calls::data::{Data, Got, Incoming, Outgoing};
use ioth_node_calls::sys::raw::Fd;
use ioth_node_calls::{Client, User, calls, data, options};
use ioth_node_proto::EndName;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// An errno of the calls' own type.
fn errno(errno: ioth_node_calls::Errno) -> Errno {
    Errno::from_raw(errno.0)
}

/// Takes over a descriptor that came in a message, or was made by a call that returns numbers.
pub(crate) fn adopt(fd: RawFd) -> Option<OwnedFd> {
    // Numbers say nothing of their owner.
    // SAFETY: a descriptor that was just received or made is nobody else's.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The same of the calls' own type.
pub(crate) fn owned(fd: Fd) -> OwnedFd {
    // Both types close in the end.
    // SAFETY: it is given away there.
    unsafe { OwnedFd::from_raw_fd(fd.into_number()) }
}

/// Whether the process has rights that its caller has not.
pub(crate) fn is_privileged() -> bool {
    // nix has no getauxval(3).
    // SAFETY: it takes a number, and says 0 for one that it does not know.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// A page of a file that is mapped, without the right to look at it.
#[derive(Debug)]
pub(crate) struct Mapping(NonNull<libc::c_void>);

const LEN: NonZeroUsize = NonZeroUsize::MIN;

// SAFETY: nobody reads or writes there; what counts is that it is there.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(crate) fn new(file: impl AsFd) -> Result<Self> {
        // Mapping files is never safe for nix.
        // SAFETY: a new mapping at an address of the kernel's choice, which nobody can read or write.
        unsafe { mmap(None, LEN, ProtFlags::PROT_NONE, MapFlags::MAP_SHARED, file, 0) }.map(Mapping)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped above, and this is the only one who knows of it. A forked child has a mapping of its own there.
        let _ = unsafe { munmap(self.0, LEN.get()) };
    }
}

/// Memory for the call that it is made for.
fn lent(bytes: &[u8]) -> User<u8> {
    // The calls take pointers, as the C functions do.
    // SAFETY: the functions below keep it borrowed for as long as their call takes, and give it for nothing but to be read.
    unsafe { User::own(bytes.as_ptr()) }
}

/// The same, for results.
fn lent_mut<T>(value: &mut T) -> User<T> {
    // As above.
    // SAFETY: as above; it is exclusive, and so may be written.
    unsafe { User::own(&raw mut *value) }
}

fn lent_slice(bytes: &mut [u8]) -> User<u8> {
    // As above.
    // SAFETY: as above.
    unsafe { User::own(bytes.as_mut_ptr()) }
}

pub(crate) fn bind(client: &Client, fd: BorrowedFd<'_>, addr: &[u8]) -> Result<()> {
    calls::bind(client, fd.as_raw_fd(), lent(addr), addr.len() as u32).map(drop).map_err(errno)
}

pub(crate) fn connect(client: &Client, fd: BorrowedFd<'_>, addr: &[u8]) -> Result<()> {
    calls::connect(client, fd.as_raw_fd(), lent(addr), addr.len() as u32).map(drop).map_err(errno)
}

/// accept4(2), close-on-exec: the connection, and how long its peer's address is.
pub(crate) fn accept(
    client: &Client,
    fd: BorrowedFd<'_>,
    addr: &mut [u8; calls::SOCKADDR_MAX],
) -> Result<(OwnedFd, usize)> {
    let mut len = addr.len() as u32;
    let (addr, len_at) = (lent_slice(addr), lent_mut(&mut len));
    let made = calls::accept4(client, fd.as_raw_fd(), addr, len_at, libc::SOCK_CLOEXEC).map_err(errno)?;
    let made = adopt(made).ok_or(Errno::EBADF)?;
    Ok((made, (len as usize).min(calls::SOCKADDR_MAX)))
}

/// getsockopt(2)
pub(crate) fn option(
    client: &Client,
    fd: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: &mut [u8],
) -> Result<usize> {
    // The length of a filter counts its instructions.
    let unit = match (level, name) {
        (libc::SOL_SOCKET, libc::SO_GET_FILTER) => size_of::<libc::sock_filter>(),
        _ => 1,
    };
    let mut len = i32::try_from(value.len() / unit).unwrap_or(i32::MAX) as u32;
    let (at, len_at) = (lent_slice(value), lent_mut(&mut len));
    options::get(client, fd.as_raw_fd(), level, name, at, len_at).map_err(errno)?;
    Ok(len as usize * unit)
}

/// setsockopt(2); a filter is the array of its instructions.
pub(crate) fn set_option(
    client: &Client,
    fd: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: &[u8],
) -> Result<()> {
    let set = |value, len: usize| {
        let len = u32::try_from(len).map_err(|_| Errno::EINVAL)?;
        options::set(client, fd.as_raw_fd(), level, name, value, len).map(drop).map_err(errno)
    };
    if (level, name) != (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER) {
        return set(lent(value), value.len());
    }
    let instruction = size_of::<libc::sock_filter>();
    if !value.len().is_multiple_of(instruction) {
        return Err(Errno::EINVAL);
    }
    let len = u16::try_from(value.len() / instruction).map_err(|_| Errno::EINVAL)?;
    let mut program = libc::sock_fprog { len, filter: value.as_ptr().cast_mut().cast() };
    set(lent_mut(&mut program).cast(), size_of::<libc::sock_fprog>())
}

/// sendmsg(2)
pub(crate) fn send(
    client: &Client,
    fd: BorrowedFd<'_>,
    name: &EndName,
    data: &[IoSlice<'_>],
    addr: Option<&[u8]>,
    control: &[u8],
    flags: i32,
) -> Result<usize> {
    let outgoing = Outgoing {
        // IoSlice has the layout of iovec (std's guarantee).
        // SAFETY: borrowed during the call, which only reads.
        data: Data::List(unsafe { User::own(data.as_ptr().cast()) }, data.len()),
        addr: addr.map_or(User::NULL, lent),
        addr_len: addr.map_or(0, |addr| addr.len() as u32),
        control: if control.is_empty() { User::NULL } else { lent(control) },
        control_len: control.len(),
    };
    data::send(client, fd.as_raw_fd(), name, &outgoing, flags).map(|sent| sent as usize).map_err(errno)
}

/// recvmsg(2)
pub(crate) fn receive(
    client: &Client,
    fd: BorrowedFd<'_>,
    name: &EndName,
    data: &mut [IoSliceMut<'_>],
    control: &mut [u8],
    wants_name: bool,
    flags: i32,
) -> Result<Got> {
    let incoming = Incoming {
        // IoSliceMut has the layout of iovec (std's guarantee).
        // SAFETY: borrowed exclusively during the call, and so are the buffers.
        data: Data::List(unsafe { User::own(data.as_mut_ptr().cast()) }, data.len()),
        wants_name,
        control_room: control.len(),
        control: if control.is_empty() { User::NULL } else { lent_slice(control) },
    };
    data::receive(client, fd.as_raw_fd(), name, &incoming, flags).map_err(errno)
}
