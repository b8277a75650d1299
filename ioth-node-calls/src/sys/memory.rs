//! The program's memory, with the kernel's caution.
//!
//! Linux answers `EFAULT` for a pointer that cannot be used. Buffers of data are given to the kernel as they came, so that
//! is true here as well. The small things that this library reads and writes itself are probed before, by a system call
//! that reads a word in the kernel: what is not there is found out; memory that can be read but not written is not.

use std::ffi::{c_int, c_long};

use crate::errno::{Errno, Result};

/// Memory is there as a whole within the smallest page of any Linux.
const PAGE: usize = 4096;
/// What the probe reads, in bytes.
const WORD: usize = 8;

/// A pointer that the program gave: into its own memory, or wrong.
///
/// They are made out of the arguments of functions whose callers promise what C's manual pages say: if the memory is there,
/// it is theirs to read or to be written during the call.
#[derive(Debug)]
pub struct User<T> {
    at: *mut T,
    /// Whether it may be wrong.
    is_probed: bool,
}

impl<T> Clone for User<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for User<T> {}

/// Types of which every pattern of bits is a value.
///
/// # Safety
/// That is so.
pub unsafe trait Plain: Copy {}

// SAFETY: numbers, and structures of numbers and pointers, as the kernel defines them.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for c_int {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for usize {}
// SAFETY: as above.
unsafe impl Plain for libc::iovec {}
// SAFETY: as above.
unsafe impl Plain for libc::msghdr {}
// SAFETY: as above.
unsafe impl Plain for libc::mmsghdr {}
// SAFETY: as above.
unsafe impl Plain for libc::timespec {}
// SAFETY: as above.
unsafe impl Plain for libc::sock_fprog {}
// SAFETY: as above.
unsafe impl Plain for libc::addrinfo {}
// SAFETY: as above.
unsafe impl<T> Plain for *mut T {}

impl<T> User<T> {
    /// C's null pointer.
    pub const NULL: User<T> = User { at: std::ptr::null_mut(), is_probed: true };

    /// A pointer that the program gave.
    ///
    /// # Safety
    /// As [`User`] says.
    pub unsafe fn new(at: *const T) -> User<T> {
        User { at: at.cast_mut(), is_probed: true }
    }

    /// Memory that is known to be there, which is not probed.
    ///
    /// # Safety
    /// It is there for as long as this and what is made of it is used: to be read, and to be written where it is given for
    /// a result.
    pub unsafe fn own(at: *const T) -> User<T> {
        User { at: at.cast_mut(), is_probed: false }
    }

    /// Whether it is a null pointer.
    pub fn is_null(self) -> bool {
        self.at.is_null()
    }

    /// For the kernel, which checks it.
    pub fn pointer(self) -> *mut T {
        self.at
    }

    /// The same, to another type.
    pub fn cast<U>(self) -> User<U> {
        User { at: self.at.cast(), is_probed: self.is_probed }
    }

    /// Another `bytes` further.
    pub fn byte_add(self, bytes: usize) -> User<T> {
        User { at: self.at.wrapping_byte_add(bytes), ..self }
    }

    /// Another `count` elements further.
    pub(crate) fn add(self, count: usize) -> User<T> {
        User { at: self.at.wrapping_add(count), ..self }
    }
}

impl<T> User<T> {
    /// Whether `len` bytes are there.
    fn probe(self, len: usize) -> Result<()> {
        if self.is_probed { probe(self.at as usize, len) } else { Ok(()) }
    }
}

impl User<u8> {
    /// Where a structure, that the program gave, points to: as much the program's promise as the structure.
    pub(crate) fn pointed<T>(at: *const T) -> User<u8> {
        User { at: at.cast_mut().cast(), is_probed: true }
    }

    /// Fills `bytes`.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn read_bytes(self, bytes: &mut [u8]) -> Result<()> {
        self.probe(bytes.len())?;
        // Slices cannot be made of what another thread of the program might change.
        // SAFETY: it was there a moment ago, and what the program passes during a call it leaves there.
        unsafe { std::ptr::copy_nonoverlapping(self.at, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    /// The text up to its NUL, in `bytes`: none for a null pointer.
    ///
    /// # Errors
    /// `EFAULT`; `EMSGSIZE` for a longer text.
    pub fn text(self, bytes: &mut [u8]) -> Result<Option<&[u8]>> {
        if self.is_null() {
            return Ok(None);
        }
        match self.read_text(bytes)? {
            len if len == bytes.len() => Err(Errno::MSGSIZE),
            len => Ok(Some(&bytes[..len])),
        }
    }

    /// Copies a text up to its NUL, or as much as there is room for: how many bytes that are.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn read_text(self, bytes: &mut [u8]) -> Result<usize> {
        for (at, byte) in bytes.iter_mut().enumerate() {
            // A text may end before a page that is not there.
            let from = self.byte_add(at);
            *byte = match at == 0 || (from.at as usize).is_multiple_of(PAGE) {
                true => from.read()?,
                // SAFETY: the page was there a moment ago; as in `read_bytes`.
                false => unsafe { from.at.read() },
            };
            if *byte == 0 {
                return Ok(at);
            }
        }
        Ok(bytes.len())
    }

    /// Takes `bytes`.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn write_bytes(self, bytes: &[u8]) -> Result<()> {
        self.probe(bytes.len())?;
        // As above.
        // SAFETY: as above; what the program gives for a result it lets the call write.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.at, bytes.len()) };
        Ok(())
    }
}

impl<T: Plain> User<T> {
    /// The value there.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn read(self) -> Result<T> {
        self.probe(size_of::<T>())?;
        // The program's structures are behind pointers.
        // SAFETY: it was there a moment ago, and what the program passes during a call it leaves there; any bits are a value.
        Ok(unsafe { self.at.read_unaligned() })
    }

    /// Puts a value there.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn write(self, value: T) -> Result<()> {
        self.probe(size_of::<T>())?;
        // As above.
        // SAFETY: as above; what the program gives for a result it lets the call write.
        unsafe { self.at.write_unaligned(value) };
        Ok(())
    }
}

/// Whether `len` bytes are there, as far as the first and the last word of each page tell.
fn probe(at: usize, len: usize) -> Result<()> {
    if len == 0 {
        return Ok(());
    }
    let last = at.checked_add(len - 1).ok_or(Errno::FAULT)?;
    if at < PAGE {
        return Err(Errno::FAULT);
    }
    let mut page = at & !(PAGE - 1);
    while page <= last {
        // A word within the page, wherever in it the bytes are.
        let word = page.max(at).min(page + PAGE - WORD);
        if !is_readable(word) {
            return Err(Errno::FAULT);
        }
        page = match page.checked_add(PAGE) {
            Some(next) => next,
            None => break,
        };
    }
    Ok(())
}

/// Whether the word there can be read.
fn is_readable(word: usize) -> bool {
    const NONE: c_int = -1;
    // Neither std nor libc can look at memory that may not be there. `NONE` is no way to change a mask, which the
    // kernel says only after it has read the mask.
    // SAFETY: the kernel checks the pointer, and nothing changes.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, NONE, word, 0usize, WORD) };
    result == 0 as c_long || super::raw::errno() != libc::EFAULT
}
