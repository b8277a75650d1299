//! The pieces of which messages are made, and into which they are received: this library's and the program's.

use std::marker::PhantomData;

use libc::iovec;

use super::memory::User;
use crate::errno::{Errno, Result};

/// What the kernel takes at most (`UIO_MAXIOV`).
pub(crate) const IOVECS_MAX: usize = 1024;
/// Room for this library's own pieces around those of the program.
const OWN: usize = 4;
/// Enough for most calls; the others have as much as the kernel takes.
pub const SMALL: usize = 8 + OWN;
/// Enough for every call.
pub(crate) const LARGE: usize = IOVECS_MAX + OWN;

/// Pieces that are sent.
#[derive(Debug)]
pub struct Outward;
/// Pieces that are received into.
#[derive(Debug)]
pub struct Inward;

/// A list of pieces of memory, behind a place for a head that a call puts in for as long as it takes.
#[derive(Debug)]
pub struct Pieces<'a, Direction, const N: usize = SMALL> {
    list: [iovec; N],
    used: usize,
    borrowed: PhantomData<(&'a mut [u8], Direction)>,
}

impl<'a, Direction, const N: usize> Pieces<'a, Direction, N> {
    const EMPTY: iovec = iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

    /// None yet.
    pub fn new() -> Self {
        Pieces { list: [Self::EMPTY; N], used: 1, borrowed: PhantomData }
    }

    /// Adds a buffer of the program's.
    ///
    /// # Errors
    /// `EMSGSIZE` for more than there is room for.
    pub fn user(&mut self, at: User<u8>, len: usize) -> Result<()> {
        self.push(iovec { iov_base: at.pointer().cast(), iov_len: len })
    }

    /// Adds the program's list of buffers, at most `most` bytes of them: how many bytes they have.
    pub(crate) fn user_list(&mut self, list: User<iovec>, count: usize, most: usize) -> Result<usize> {
        if count > IOVECS_MAX {
            return Err(Errno::MSGSIZE);
        }
        let mut sum = 0usize;
        for at in 0..count {
            let mut piece = list.add(at).read()?;
            if piece.iov_len > isize::MAX as usize {
                return Err(Errno::INVAL);
            }
            piece.iov_len = piece.iov_len.min(most - sum);
            sum += piece.iov_len;
            self.push(piece)?;
        }
        Ok(sum)
    }

    /// How many bytes they have.
    pub(crate) fn len(&self) -> usize {
        self.list().iter().fold(0, |sum, piece| sum.saturating_add(piece.iov_len))
    }

    /// Runs a system call on the list with `head` before it.
    pub(crate) fn with_head<T>(
        &mut self,
        head: *mut u8,
        len: usize,
        call: impl FnOnce(&mut [iovec]) -> T,
    ) -> T {
        self.list[0] = iovec { iov_base: head.cast(), iov_len: len };
        let result = call(&mut self.list[..self.used]);
        self.list[0] = Self::EMPTY;
        result
    }

    fn list(&self) -> &[iovec] {
        &self.list[..self.used]
    }

    fn push(&mut self, piece: iovec) -> Result<()> {
        *self.list.get_mut(self.used).ok_or(Errno::MSGSIZE)? = piece;
        self.used += 1;
        Ok(())
    }
}

impl<Direction, const N: usize> Default for Pieces<'_, Direction, N> {
    fn default() -> Self {
        Pieces::new()
    }
}

impl<'a, const N: usize> Pieces<'a, Outward, N> {
    /// Adds bytes of this library's.
    ///
    /// # Errors
    /// `EMSGSIZE` for more than there is room for.
    pub fn own(&mut self, bytes: &'a [u8]) -> Result<()> {
        self.push(iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() })
    }
}

impl<'a, const N: usize> Pieces<'a, Inward, N> {
    /// Adds room of this library's.
    ///
    /// # Errors
    /// `EMSGSIZE` for more than there is room for.
    pub fn own(&mut self, room: &'a mut [u8]) -> Result<()> {
        self.push(iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() })
    }

    /// Moves `len` bytes from `from` to `to`; places are counted over all pieces, which were received into just now.
    pub(crate) fn shift(&mut self, from: usize, to: usize, len: usize) {
        for at in 0..len {
            // Nothing is written over that is still to be moved.
            let at = if to < from { at } else { len - 1 - at };
            let (Some(source), Some(target)) = (self.byte(from + at), self.byte(to + at)) else { continue };
            // Pieces of the program may be anywhere, so this is done byte by byte.
            // SAFETY: both are in memory that the program or this library lends for the message.
            unsafe { target.write(source.read()) };
        }
    }

    /// Copies what was received from `at` on: how much there was room for.
    pub(crate) fn copy_out(&self, at: usize, bytes: &mut [u8]) -> usize {
        for (number, to) in bytes.iter_mut().enumerate() {
            let Some(byte) = self.byte(at + number) else { return number };
            // As above.
            // SAFETY: the kernel wrote there just now.
            *to = unsafe { byte.read() };
        }
        bytes.len()
    }

    /// Puts bytes at the beginning, as many as there is room for.
    pub(crate) fn copy_in(&mut self, bytes: &[u8]) {
        for (at, from) in bytes.iter().enumerate() {
            let Some(byte) = self.byte(at) else { return };
            // As above.
            // SAFETY: the program or this library lends it for the message.
            unsafe { byte.write(*from) };
        }
    }

    fn byte(&self, mut at: usize) -> Option<*mut u8> {
        for piece in self.list() {
            if at < piece.iov_len {
                return Some(piece.iov_base.cast::<u8>().wrapping_add(at));
            }
            at -= piece.iov_len;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three pieces of 3, 0 and 5 bytes.
    fn shifted(from: usize, to: usize, len: usize) -> Vec<u8> {
        let (mut a, mut b, mut c) = (*b"abc", [], *b"defgh");
        let mut pieces = Pieces::<Inward>::new();
        for piece in [&mut a[..], &mut b[..], &mut c[..]] {
            pieces.own(piece).unwrap();
        }
        assert_eq!(pieces.len(), 8);
        pieces.shift(from, to, len);
        let mut all = [0; 10];
        assert_eq!(pieces.copy_out(0, &mut all), 8);
        all[..8].to_vec()
    }

    #[test]
    fn bytes_move_over_the_borders_of_pieces() {
        assert_eq!(shifted(2, 0, 6), b"cdefghgh");
        assert_eq!(shifted(0, 2, 6), b"ababcdef");
        assert_eq!(shifted(1, 1, 7), b"abcdefgh");
        assert_eq!(shifted(7, 0, 100), b"hbcdefgh", "what is beyond the end stays out");
        assert_eq!(shifted(0, 7, 100), b"abcdefga");
    }

    #[test]
    fn there_is_room_for_so_many_pieces() {
        let mut pieces = Pieces::<Outward>::new();
        for _ in 1..SMALL {
            pieces.own(b"x").unwrap();
        }
        assert_eq!(pieces.own(b"x"), Err(Errno::MSGSIZE));
        assert_eq!(pieces.len(), SMALL - 1);
        assert_eq!(pieces.user_list(User::NULL, IOVECS_MAX + 1, 1), Err(Errno::MSGSIZE));
        assert_eq!(pieces.user_list(User::NULL, 1, 1), Err(Errno::FAULT));
    }
}
