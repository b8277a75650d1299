//! Berkeley's calls that move no data: addresses, options, the descriptor itself.

use std::ffi::{c_int, c_long, c_void};
use std::os::fd::RawFd;

use ioth::{Errno, SockAddr, berkeley};
use libc::{sockaddr, socklen_t};

use super::{memory, run_on};
use crate::outcome::{Result, run};

/// Bytes of `struct sockaddr_storage`: no address is longer.
const ADDR_MAX: usize = size_of::<libc::sockaddr_storage>();

/// No option's value is longer; of a longer one only the beginning is read, as in the kernel.
const OPTION_MAX: usize = 64 << 10;

#[unsafe(no_mangle)]
extern "C" fn ioth_close(fd: c_int) -> c_int {
    run(|| Ok(berkeley::close(fd).map(|()| 0)?))
}

/// # Safety
/// The address is not changed during the call.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_bind(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
    // SAFETY: the caller's promise.
    run_on(fd, || Ok(berkeley::bind(fd, unsafe { read_addr(addr, len)? }).map(|()| 0)?))
}

/// # Safety
/// The address is not changed during the call.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
    // SAFETY: the caller's promise.
    run_on(fd, || Ok(berkeley::connect(fd, unsafe { read_addr(addr, len)? }).map(|()| 0)?))
}

#[unsafe(no_mangle)]
extern "C" fn ioth_listen(fd: c_int, backlog: c_int) -> c_int {
    run(|| Ok(berkeley::listen(fd, backlog).map(|()| 0)?))
}

/// # Safety
/// `addr` and `len` are the program's to change.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_accept(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { ioth_accept4(fd, addr, len, 0) }
}

/// # Safety
/// `addr` and `len` are the program's to change.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_accept4(
    fd: c_int,
    addr: *mut sockaddr,
    len: *mut socklen_t,
    flags: c_int,
) -> c_int {
    run(|| {
        let (accepted, peer) = berkeley::accept4(fd, flags)?;
        if !addr.is_null() {
            // SAFETY: the caller's promise.
            if let Err(failure) = unsafe { write_addr(Some(&peer), addr, len) } {
                // As in the kernel: a connection whose peer cannot be told is lost.
                let _ = berkeley::close(accepted);
                return Err(failure);
            }
        }
        Ok(accepted)
    })
}

/// # Safety
/// `addr` and `len` are the program's to change.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_getsockname(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
    // SAFETY: the caller's promise.
    run(|| unsafe { write_addr(Some(&berkeley::getsockname(fd)?), addr, len) }.map(|()| 0))
}

/// # Safety
/// `addr` and `len` are the program's to change.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_getpeername(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
    // SAFETY: the caller's promise.
    run(|| unsafe { write_addr(Some(&berkeley::getpeername(fd)?), addr, len) }.map(|()| 0))
}

#[unsafe(no_mangle)]
extern "C" fn ioth_shutdown(fd: c_int, how: c_int) -> c_int {
    run(|| Ok(berkeley::shutdown(fd, how).map(|()| 0)?))
}

/// # Safety
/// The value is not changed during the call.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    run_on(fd, || {
        let len = length(len)?;
        if is_filter(level, name) {
            // SAFETY: the caller's promise.
            let program = unsafe { read_filter(value, len)? };
            return Ok(berkeley::setsockopt(fd, level, name, &program).map(|()| 0)?);
        }
        let mut bytes = vec![0; len.min(OPTION_MAX)];
        // SAFETY: the caller's promise.
        let there = unsafe { memory::copy_in_some(value, &mut bytes) };
        if there == 0 && len > 0 {
            return Err(Errno::EFAULT.into());
        }
        Ok(berkeley::setsockopt(fd, level, name, &bytes[..there]).map(|()| 0)?)
    })
}

/// Options whose value in C is a `struct sock_fprog`, or is counted in `struct sock_filter`.
fn is_filter(level: c_int, name: c_int) -> bool {
    level == libc::SOL_SOCKET && matches!(name, libc::SO_ATTACH_FILTER | libc::SO_ATTACH_REUSEPORT_CBPF)
}

/// The instructions to which a `struct sock_fprog` points: what the calls below take for it.
///
/// # Safety
/// The structure and its instructions are not changed during the call.
unsafe fn read_filter(value: *const c_void, len: usize) -> Result<Vec<u8>> {
    if len != size_of::<libc::sock_fprog>() {
        return Err(Errno::EINVAL.into());
    }
    // SAFETY: the caller's promise.
    let program: libc::sock_fprog = unsafe { memory::get(value.cast())? };
    let mut bytes = vec![0; usize::from(program.len) * size_of::<libc::sock_filter>()];
    // SAFETY: the caller's promise.
    unsafe { memory::copy_in(program.filter.cast_const().cast(), &mut bytes)? };
    Ok(bytes)
}

/// # Safety
/// `value` and `len` are the program's to change.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    run_on(fd, || {
        // SAFETY: the caller's promise.
        let room = length(unsafe { memory::get(len)? })?;
        // SO_GET_FILTER, the only one with a unit of its own, counts instructions.
        let unit = if is_filter(level, name) { size_of::<libc::sock_filter>() } else { 1 };
        let mut bytes = vec![0; room.saturating_mul(unit).min(OPTION_MAX)];
        let written = berkeley::getsockopt(fd, level, name, &mut bytes)?;
        // SAFETY: the caller's promise.
        unsafe {
            memory::copy_out(value, &bytes[..written.min(bytes.len())])?;
            memory::put(len, (written / unit) as socklen_t)?;
        }
        Ok(0)
    })
}

pub(super) fn fcntl(fd: RawFd, command: c_int, argument: c_long) -> c_int {
    // Commands that take pointers are not among those of sockets; of an int the upper half is not defined.
    run(|| Ok(berkeley::fcntl(fd, command, argument as c_int)?))
}

#[unsafe(no_mangle)]
extern "C" fn ioth_dup(fd: c_int) -> c_int {
    run(|| Ok(berkeley::dup(fd)?))
}

#[unsafe(no_mangle)]
extern "C" fn ioth_dup2(fd: c_int, number: c_int) -> c_int {
    run(|| Ok(berkeley::dup2(fd, number)?))
}

#[unsafe(no_mangle)]
extern "C" fn ioth_dup3(fd: c_int, number: c_int, flags: c_int) -> c_int {
    run(|| Ok(berkeley::dup3(fd, number, flags)?))
}

/// A length that the kernel takes as an int.
///
/// # Errors
/// `EINVAL` for a negative one.
pub(super) fn length(len: socklen_t) -> Result<usize> {
    let len = c_int::try_from(len).map_err(|_| Errno::EINVAL)?;
    Ok(usize::try_from(len).map_err(|_| Errno::EINVAL)?)
}

/// Reads the program's address.
///
/// # Errors
/// `EINVAL` for a length that is negative, beyond `struct sockaddr_storage` or too short for the family, `EFAULT`,
/// `EAFNOSUPPORT`.
///
/// # Safety
/// The address is not changed meanwhile.
pub(super) unsafe fn read_addr(addr: *const sockaddr, len: socklen_t) -> Result<SockAddr> {
    let mut raw = [0; ADDR_MAX];
    let raw = raw.get_mut(..length(len)?).ok_or(Errno::EINVAL)?;
    // SAFETY: the caller's promise.
    unsafe { memory::copy_in(addr.cast(), raw)? };
    Ok(SockAddr::from_raw(raw)?)
}

/// Writes an address as the kernel does: as much as there is room for, and its whole length.
///
/// # Errors
/// `EFAULT`, `EINVAL` for a negative length.
///
/// # Safety
/// `addr` and `len` are the program's to change.
pub(super) unsafe fn write_addr(
    from: Option<&SockAddr>,
    addr: *mut sockaddr,
    len: *mut socklen_t,
) -> Result<()> {
    let raw = from.map(SockAddr::to_raw);
    let raw = raw.as_deref().unwrap_or_default();
    // SAFETY: the caller's promise.
    unsafe {
        let room = length(memory::get(len)?)?;
        memory::copy_out(addr.cast(), &raw[..raw.len().min(room)])?;
        memory::put(len, raw.len() as socklen_t)
    }
}
