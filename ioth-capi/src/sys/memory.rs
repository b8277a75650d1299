//! The program's memory, with the kernel's caution.
//!
//! Linux answers `EFAULT` for a pointer that cannot be used. A library cannot ask before each access what a page is,
//! but it can do most of it:
//! - Small things (addresses, lengths, option values, message headers, strings) are probed by a system call that
//!   touches the memory in the kernel and reports `EFAULT` instead of ending the process.
//! - Of a buffer of data the first and the last page are probed so, and the range is compared with the program's half
//!   of the address space. Each thread remembers a few pages that were there: a buffer that is used again and again
//!   costs no system call. So two things end the process still: a hole in the middle of a buffer, and a page that was
//!   there for an earlier call of the thread and is not any more.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_void};
use std::slice;
use std::sync::atomic::AtomicU32;

use ioth::Errno;

use crate::outcome::Result;

/// The most bytes that one call moves, as in the kernel (`MAX_RW_COUNT`).
pub(super) const MAX_COUNT: usize = i32::MAX as usize & !(PAGE - 1);

/// Longest string that a program may pass, in bytes with its NUL.
const MAX_STRING: usize = 64 << 10;

/// The smallest page of any Linux: memory within it is there as a whole, or not.
const PAGE: usize = 4096;

/// Where the program's half of the address space ends.
#[cfg(target_arch = "x86_64")]
const TOP: usize = (1 << 47) - PAGE;
/// Where the program's half of the address space ends.
#[cfg(not(target_arch = "x86_64"))]
const TOP: usize = isize::MAX as usize;

/// Whether `len` bytes at `at` can be the program's at all, as the kernel's `access_ok`.
fn is_plausible(at: usize, len: usize) -> bool {
    // Nobody has the first page: a NULL with an offset.
    len == 0 || at >= PAGE && at.checked_add(len).is_some_and(|end| end <= TOP)
}

/// The system call for looking at eight bytes: `how` is wrong, which the kernel says only after having read the set.
fn is_readable(word: usize) -> bool {
    Errno::set_raw(0);
    // What libc's sigprocmask does with a wrong pointer is its own business.
    // SAFETY: the kernel checks the pointer; a wrong `how` changes nothing.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, -1, word, 0, 8) };
    Errno::last() != Errno::EFAULT
}

/// The system call that writes eight bytes, the signal mask.
///
/// # Safety
/// They are to be overwritten, and nobody else uses them.
unsafe fn is_writable(word: usize) -> bool {
    Errno::set_raw(0);
    // As above.
    // SAFETY: the kernel checks the pointer; that the bytes may be written is the caller's promise.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, 0, word, 8) };
    Errno::last() != Errno::EFAULT
}

/// What is to be done with a page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

/// Pages of data buffers that a thread remembers.
const REMEMBERED: usize = 16;

thread_local! {
    /// Pages that were there, each with its [`Access`] in the lowest bit; 0 is nobody's page.
    static SEEN: [Cell<usize>; REMEMBERED] = const { [const { Cell::new(0) }; REMEMBERED] };
}

impl Access {
    /// Whether a word of a page can be used so. It is not changed.
    fn reaches(self, word: usize) -> bool {
        let page = word & !(PAGE - 1);
        let key = page | usize::from(self == Access::Write);
        // Next to each other for a buffer of several pages, and apart for both kinds.
        let place = (page / PAGE + usize::from(self == Access::Write) * (REMEMBERED / 2)) % REMEMBERED;
        SEEN.with(|seen| {
            if seen[place].get() == key {
                return true;
            }
            let there = match self {
                Access::Read => is_readable(word & !7),
                Access::Write => is_changeable(word & !3),
            };
            if there {
                seen[place].set(key);
            }
            there
        })
    }

    /// How many of `len` bytes at `at` can be used, as the first and the last page tell: all, or those before the
    /// first page that is not there.
    fn usable(self, at: usize, len: usize) -> usize {
        if len == 0 || !self.reaches(at) {
            return 0;
        }
        let last = (at + len - 1) & !(PAGE - 1);
        if last <= at || self.reaches(last) {
            return len;
        }
        let mut page = (at & !(PAGE - 1)) + PAGE;
        while page < last && self.reaches(page) {
            page += PAGE;
        }
        page - at
    }
}

/// The system call that writes a word what it is already: "or" it with nothing, in one step. Who waits for this word as a
/// futex is woken for nothing at most, for which every such waiter is prepared.
fn is_changeable(word: usize) -> bool {
    static OURS: AtomicU32 = AtomicU32::new(0);
    let operation = libc::FUTEX_WAKE_OP | libc::FUTEX_PRIVATE_FLAG;
    Errno::set_raw(0);
    // libc has no function for futexes.
    // SAFETY: the kernel checks the pointer and leaves the value; the other word is ours, and nobody waits for it.
    unsafe { libc::syscall(libc::SYS_futex, OURS.as_ptr(), operation, 0, 0, word, OR_NOTHING) };
    Errno::last() != Errno::EFAULT
}

/// `FUTEX_OP(FUTEX_OP_OR, 0, FUTEX_OP_CMP_LT, 0)`, see futex(2).
const OR_NOTHING: libc::c_int = 2 << 28 | 2 << 24;

/// How many of `len` bytes at `at` can be read: all, or those before the first page that is not there.
fn readable(at: usize, len: usize) -> usize {
    if len == 0 {
        return 0;
    }
    if !is_plausible(at, len) {
        return if is_plausible(at, 1) { readable(at, TOP - at) } else { 0 };
    }
    let mut page = at & !(PAGE - 1);
    while page < at + len {
        // Eight bytes of this page, which need not be ours.
        if !is_readable(page.max(at & !7)) {
            return page.saturating_sub(at);
        }
        page += PAGE;
    }
    len
}

/// Whether all of `len` bytes at `at` can be written; they may be changed by asking.
///
/// # Safety
/// As for [`is_writable`].
unsafe fn writable(at: usize, len: usize) -> bool {
    if len < 8 {
        // Where the shortest probe is too long, the copy itself is left to the kernel: see `copy_out`.
        return is_plausible(at, len);
    }
    if !is_plausible(at, len) {
        return false;
    }
    let last = at + len - 8;
    let mut word = at;
    loop {
        // SAFETY: the eight bytes are within the range.
        if !unsafe { is_writable(word) } {
            return false;
        }
        if word == last {
            return true;
        }
        word = ((word & !(PAGE - 1)) + PAGE).min(last);
    }
}

/// Copies a small thing out of the program's memory.
///
/// # Errors
/// `EFAULT`.
///
/// # Safety
/// What is mapped there is not changed meanwhile.
pub(super) unsafe fn copy_in(from: *const c_void, to: &mut [u8]) -> Result<()> {
    // SAFETY: the caller's promise.
    if unsafe { copy_in_some(from, to) } < to.len() { Err(Errno::EFAULT.into()) } else { Ok(()) }
}

/// Copies as much as is mapped, and gives its length: for lengths that say more than there is, such as an option's.
///
/// # Safety
/// As for [`copy_in`].
pub(super) unsafe fn copy_in_some(from: *const c_void, to: &mut [u8]) -> usize {
    let len = readable(from.addr(), to.len());
    if len > 0 {
        // SAFETY: `len` bytes can be read at `from`, as the kernel has found, and `to` has more room.
        unsafe { std::ptr::copy_nonoverlapping(from.cast(), to.as_mut_ptr(), len) };
    }
    len
}

/// Reads a number or a plain structure of C.
///
/// # Errors
/// `EFAULT`.
///
/// # Safety
/// As for [`copy_in`]; any bytes are a valid `T`.
pub(super) unsafe fn get<T: Copy>(from: *const T) -> Result<T> {
    if readable(from.addr(), size_of::<T>()) < size_of::<T>() {
        return Err(Errno::EFAULT.into());
    }
    // SAFETY: the bytes can be read, and are a valid T by the caller's promise.
    Ok(unsafe { from.read_unaligned() })
}

/// Copies a small thing into the program's memory.
///
/// # Errors
/// `EFAULT`; some of it may then have been written.
///
/// # Safety
/// What is mapped there is the program's to change, and nobody else uses it meanwhile.
pub(super) unsafe fn copy_out(to: *mut c_void, from: &[u8]) -> Result<()> {
    if from.is_empty() {
        return Ok(());
    }
    // SAFETY: the caller's promise.
    if !unsafe { writable(to.addr(), from.len()) } {
        return Err(Errno::EFAULT.into());
    }
    if from.len() < 8 {
        return small_out(to, from);
    }
    // SAFETY: the bytes can be written, as the kernel has found; `from` is a slice of ours.
    unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.cast(), from.len()) };
    Ok(())
}

/// Has the kernel copy the few bytes: it says when it cannot.
fn small_out(to: *mut c_void, from: &[u8]) -> Result<()> {
    let local = libc::iovec { iov_base: from.as_ptr().cast_mut().cast(), iov_len: from.len() };
    let remote = libc::iovec { iov_base: to, iov_len: from.len() };
    // nix wants the remote side as numbers, and a process other than this one is its purpose.
    // SAFETY: the local side is a slice that is only read; the kernel checks the remote one.
    let copied = unsafe { libc::process_vm_writev(libc::getpid(), &local, 1, &remote, 1, 0) };
    match copied {
        copied if copied == from.len() as isize => Ok(()),
        -1 if Errno::last() != Errno::EFAULT => {
            // A sandbox that forbids the call. What can be read is nearly always what can be written.
            if readable(to.addr(), from.len()) < from.len() {
                return Err(Errno::EFAULT.into());
            }
            // SAFETY: the bytes are mapped; `from` is a slice of ours.
            unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.cast(), from.len()) };
            Ok(())
        }
        _ => Err(Errno::EFAULT.into()),
    }
}

/// Writes a number or a plain structure of C.
///
/// # Errors
/// `EFAULT`.
///
/// # Safety
/// As for [`copy_out`]; `T` has no padding.
pub(super) unsafe fn put<T: Copy>(to: *mut T, value: T) -> Result<()> {
    // SAFETY: the bytes of one value, without padding by the caller's promise.
    let bytes = unsafe { slice::from_raw_parts((&raw const value).cast::<u8>(), size_of::<T>()) };
    // SAFETY: the caller's promise.
    unsafe { copy_out(to.cast(), bytes) }
}

/// Data to be sent.
///
/// # Errors
/// `EFAULT` where it cannot be read, as far as its first and last page tell.
///
/// # Safety
/// What these pages do not tell is there, and nothing is changed while the slice lives.
pub(super) unsafe fn input<'a>(data: *const c_void, len: usize) -> Result<&'a [u8]> {
    if !is_plausible(data.addr(), len) {
        return Err(Errno::EFAULT.into());
    }
    match len.min(MAX_COUNT) {
        0 => Ok(&[]),
        len if Access::Read.usable(data.addr(), len) < len => Err(Errno::EFAULT.into()),
        // SAFETY: not NULL, shorter than isize::MAX, and there by the caller's promise.
        len => Ok(unsafe { slice::from_raw_parts(data.cast(), len) }),
    }
}

/// Room for data to be received; more than the kernel takes at once is not used. Of room that is less than its length says
/// there is what there is: the kernel does not mind either while nothing is to be written there.
///
/// # Errors
/// `EFAULT` where nothing can be written, as far as its first and last page tell.
///
/// # Safety
/// What these pages do not tell is there, and nobody else uses it while the slice lives.
pub(super) unsafe fn output<'a>(data: *mut c_void, len: usize) -> Result<&'a mut [u8]> {
    let len = len.min(MAX_COUNT);
    if !is_plausible(data.addr(), len) {
        return Err(Errno::EFAULT.into());
    }
    if len == 0 {
        return Ok(&mut []);
    }
    match Access::Write.usable(data.addr(), len) {
        0 => Err(Errno::EFAULT.into()),
        // SAFETY: not NULL, shorter than isize::MAX, and there by the caller's promise.
        len => Ok(unsafe { slice::from_raw_parts_mut(data.cast(), len) }),
    }
}

/// A string of the program.
///
/// # Errors
/// `EFAULT`; `ENAMETOOLONG` when there is no end to it.
///
/// # Safety
/// What is mapped there is not changed while the string lives.
pub(super) unsafe fn string<'a>(text: *const c_char) -> Result<&'a CStr> {
    let mut seen = 0;
    while seen < MAX_STRING {
        let at = text.addr() + seen;
        let rest_of_page = PAGE - at % PAGE;
        if readable(at, rest_of_page) < rest_of_page {
            return Err(Errno::EFAULT.into());
        }
        // SAFETY: these bytes can be read, as the kernel has found.
        let part = unsafe { slice::from_raw_parts(text.cast::<u8>().add(seen), rest_of_page) };
        if part.contains(&0) {
            // SAFETY: there is a NUL, and all bytes up to it can be read.
            return Ok(unsafe { CStr::from_ptr(text) });
        }
        seen += rest_of_page;
    }
    Err(Errno::ENAMETOOLONG.into())
}

/// A string that is to be text; NULL is none.
///
/// # Errors
/// As [`string`]; `EINVAL` for what is not UTF-8.
///
/// # Safety
/// As for [`string`].
pub(super) unsafe fn text<'a>(text: *const c_char) -> Result<Option<&'a str>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    Ok(Some(unsafe { string(text) }?.to_str().map_err(|_| Errno::EINVAL)?))
}

/// Memory that the program frees with free(3), filled with `bytes`.
///
/// # Errors
/// `ENOMEM`.
pub(super) fn allocate(bytes: &[u8]) -> Result<*mut c_void> {
    // The program frees it, by C's allocator.
    // SAFETY: any size may be asked for; it is zeroed, so that it may be read as well.
    let memory = unsafe { libc::calloc(1, bytes.len().max(1)) };
    if memory.is_null() {
        return Err(Errno::ENOMEM.into());
    }
    // SAFETY: as many bytes were allocated just now.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), memory.cast(), bytes.len()) };
    Ok(memory)
}

#[cfg(test)]
mod tests;
