//! sendmsg(2), recvmsg(2) and the calls for many of them: messages with addresses and ancillary data.

use std::ffi::{c_int, c_uint};
use std::io::{IoSlice, IoSliceMut};
use std::mem::offset_of;
use std::time::Duration;

use ioth::{Errno, Mmsg, MsgFlags, RecvMsg, SendMsg, SockAddr, berkeley};
use libc::{mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t, timespec};

use super::calls::length;
use super::data::{IOV_MAX, destination, inputs, outputs, send_on};
use super::{memory, run_on};
use crate::outcome::Result;

/// More ancillary data than Linux takes (net.core.optmem_max), or has to give.
const CONTROL_MAX: usize = 128 << 10;

/// The most messages of one call (`UIO_MAXIOV`); of more, the first are taken.
const MESSAGES_MAX: usize = 1024;

/// # Safety
/// The message and what it points to are not changed during the call.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    send_on(fd, flags, || {
        // SAFETY: the caller's promise.
        let message = unsafe { Outgoing::read(fd, message)? };
        Ok(berkeley::sendmsg(fd, &message.lend(), MsgFlags::from_bits_retain(flags))?)
    })
}

/// # Safety
/// The messages and what they point to are the program's to change.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int {
    let sent = send_on(fd, flags, || {
        // SAFETY: the caller's promise.
        let read = |at| unsafe { Outgoing::read(fd, header_of(messages, at)) };
        let outgoing = up_to_failure(count, read)?;
        let mut lent: Vec<_> = outgoing.iter().map(|message| Mmsg::from(message.lend())).collect();
        let sent = berkeley::sendmmsg(fd, &mut lent, MsgFlags::from_bits_retain(flags))?;
        for (at, Mmsg { len, .. }) in lent.iter().take(sent).enumerate() {
            // SAFETY: the caller's promise.
            if let Err(failure) = unsafe { put_len(messages, at, *len) } {
                // As in the kernel: the message is gone, and not counted.
                return if at == 0 { Err(failure) } else { Ok(at) };
            }
        }
        Ok(sent)
    });
    sent as c_int
}

/// # Safety
/// The message and what it points to are the program's to change.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    run_on(fd, || {
        // SAFETY: the caller's promise.
        let mut incoming = unsafe { Incoming::read(message)? };
        let mut received = incoming.lend();
        let len = berkeley::recvmsg(fd, &mut received, MsgFlags::from_bits_retain(flags))?;
        let told = Told::from(&received);
        // SAFETY: the caller's promise.
        unsafe { incoming.write(&told)? };
        Ok(len as ssize_t)
    })
}

/// # Safety
/// The messages, what they point to and the time-out are the program's to change.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_recvmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    run_on(fd, || {
        let mut left = None;
        if !timeout.is_null() {
            // SAFETY: the caller's promise; a timespec is plain numbers.
            left = Some(duration(unsafe { memory::get(timeout.cast_const())? })?);
        }
        // SAFETY: the caller's promise.
        let mut incoming = up_to_failure(count, |at| unsafe { Incoming::read(header_of(messages, at)) })?;
        let mut lent: Vec<_> = incoming.iter_mut().map(|message| Mmsg::from(message.lend())).collect();
        let flags = MsgFlags::from_bits_retain(flags);
        let received = berkeley::recvmmsg(fd, &mut lent, flags, left.as_mut())?;
        let told: Vec<_> =
            lent.iter().take(received).map(|Mmsg { message, len }| (Told::from(message), *len)).collect();
        for (at, (message, (told, len))) in incoming.iter().zip(told).enumerate() {
            // SAFETY: the caller's promise.
            if let Err(failure) = unsafe { message.write(&told).and_then(|()| put_len(messages, at, len)) } {
                return if at == 0 { Err(failure) } else { Ok(at as c_int) };
            }
        }
        if let Some(left) = left.filter(|_| received > 0) {
            let left = timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos().into() };
            // SAFETY: the caller's promise; both numbers are as long, so there is no padding.
            unsafe { memory::put(timeout, left)? };
        }
        Ok(received as c_int)
    })
}

/// A message to be sent.
struct Outgoing<'a> {
    data: Vec<IoSlice<'a>>,
    to: Option<SockAddr>,
    control: Vec<u8>,
}

impl Outgoing<'_> {
    /// # Safety
    /// The message and what it points to are not changed while the value lives.
    unsafe fn read(fd: c_int, message: *const msghdr) -> Result<Self> {
        // SAFETY: the caller's promise; a msghdr is plain numbers.
        let header = unsafe { memory::get(message)? };
        let name_len = if header.msg_name.is_null() { 0 } else { length(header.msg_namelen)? };
        // The kernel cuts the length here, and does not refuse it as sendto(2) does.
        let name_len = name_len.min(size_of::<libc::sockaddr_storage>()) as socklen_t;
        let name: *const sockaddr = if name_len == 0 { std::ptr::null() } else { header.msg_name.cast() };
        // SAFETY: the caller's promise.
        let to = unsafe { destination(fd, name, name_len)? };
        // SAFETY: the caller's promise.
        let data = unsafe { inputs(header.msg_iov, count_of(header.msg_iovlen)?)? };
        let control_len = header.msg_controllen as usize;
        if control_len > CONTROL_MAX {
            return Err(Errno::ENOBUFS.into());
        }
        let mut control = vec![0; control_len];
        // SAFETY: the caller's promise.
        unsafe { memory::copy_in(header.msg_control, &mut control)? };
        Ok(Outgoing { data, to, control })
    }

    fn lend(&self) -> SendMsg<'_> {
        SendMsg { data: &self.data, addr: self.to.as_ref(), control: &self.control }
    }
}

/// Where a message is to be received.
struct Incoming<'a> {
    message: *mut msghdr,
    header: msghdr,
    /// Room for the source's address, in bytes.
    room: usize,
    data: Vec<IoSliceMut<'a>>,
    control: Vec<u8>,
}

impl<'a> Incoming<'a> {
    /// # Safety
    /// The message and what it points to are the program's to change.
    unsafe fn read(message: *mut msghdr) -> Result<Self> {
        // SAFETY: the caller's promise; a msghdr is plain numbers.
        let header = unsafe { memory::get(message.cast_const())? };
        let room = if header.msg_name.is_null() { 0 } else { length(header.msg_namelen)? };
        // SAFETY: the caller's promise.
        let data = unsafe { outputs(header.msg_iov, count_of(header.msg_iovlen)?)? };
        let control_len = if header.msg_control.is_null() { 0 } else { header.msg_controllen as usize };
        let control = vec![0; control_len.min(CONTROL_MAX)];
        Ok(Incoming { message, header, room, data, control })
    }

    fn lend(&mut self) -> RecvMsg<'_, 'a> {
        RecvMsg { control: &mut self.control, ..RecvMsg::new(&mut self.data) }
    }

    /// Writes what came beside the data.
    ///
    /// # Safety
    /// The message and what it points to are the program's to change.
    unsafe fn write(&self, told: &Told) -> Result<()> {
        let Incoming { message, header, room, control, .. } = self;
        let name = told.source.map(|source| source.to_raw());
        let name = name.as_deref().unwrap_or_default();
        let control = &control[..told.control_len.min(control.len())];
        let field = |offset| message.wrapping_byte_add(offset);
        // SAFETY: the caller's promise; the fields are numbers, without padding.
        unsafe {
            if !header.msg_name.is_null() {
                memory::copy_out(header.msg_name, &name[..name.len().min(*room)])?;
                memory::put(field(offset_of!(msghdr, msg_namelen)).cast(), name.len() as socklen_t)?;
            }
            memory::put(field(offset_of!(msghdr, msg_flags)).cast(), told.flags.bits())?;
            memory::copy_out(header.msg_control, control)?;
            memory::put(field(offset_of!(msghdr, msg_controllen)).cast(), control.len())
        }
    }
}

/// What a received message says beside its data.
struct Told {
    source: Option<SockAddr>,
    control_len: usize,
    flags: MsgFlags,
}

impl From<&RecvMsg<'_, '_>> for Told {
    fn from(message: &RecvMsg<'_, '_>) -> Self {
        Told { source: message.addr, control_len: message.control_len, flags: message.flags }
    }
}

/// The header of one of several messages.
fn header_of(messages: *mut mmsghdr, at: usize) -> *mut msghdr {
    messages.wrapping_add(at).wrapping_byte_add(offset_of!(mmsghdr, msg_hdr)).cast()
}

/// # Safety
/// The messages are the program's to change.
unsafe fn put_len(messages: *mut mmsghdr, at: usize, len: usize) -> Result<()> {
    let field = messages.wrapping_add(at).wrapping_byte_add(offset_of!(mmsghdr, msg_len));
    // SAFETY: the caller's promise.
    unsafe { memory::put(field.cast(), len as c_uint) }
}

/// Reads messages up to the first that is wrong: as if those before it had been sent or received already.
///
/// # Errors
/// The first message's.
fn up_to_failure<T>(count: c_uint, read: impl Fn(usize) -> Result<T>) -> Result<Vec<T>> {
    let mut messages = Vec::new();
    for at in 0..(count as usize).min(MESSAGES_MAX) {
        match read(at) {
            Ok(message) => messages.push(message),
            Err(failure) if at == 0 => return Err(failure),
            Err(_) => break,
        }
    }
    Ok(messages)
}

/// The number of buffers of a message.
///
/// # Errors
/// `EMSGSIZE` for too many.
fn count_of(count: impl TryInto<size_t>) -> Result<usize> {
    match count.try_into() {
        Ok(count) if count <= IOV_MAX => Ok(count),
        _ => Err(Errno::EMSGSIZE.into()),
    }
}

/// # Errors
/// `EINVAL` for a negative time, or more nanoseconds than a second has.
fn duration(time: timespec) -> Result<Duration> {
    let seconds = u64::try_from(time.tv_sec).map_err(|_| Errno::EINVAL)?;
    match u32::try_from(time.tv_nsec) {
        Ok(nanoseconds) if nanoseconds < 1_000_000_000 => Ok(Duration::new(seconds, nanoseconds)),
        _ => Err(Errno::EINVAL.into()),
    }
}
