//! Memory for what functions about names give: from malloc(3) where the program frees it, or the program's own.

use std::ffi::c_char;

use ioth_node_calls::User;

/// A piece of memory that is filled from its beginning.
#[derive(Debug)]
pub(crate) struct Room {
    at: *mut u8,
    len: usize,
    used: usize,
    /// Freed unless it is given away.
    owned: bool,
}

impl Room {
    /// From malloc(3); none when there is no more.
    pub(crate) fn new(len: usize) -> Option<Room> {
        // Programs free it by free(3), in functions of the C library.
        // SAFETY: any length is good.
        let at: *mut u8 = unsafe { libc::calloc(1, len.max(1)) }.cast();
        (!at.is_null()).then_some(Room { at, len, used: 0, owned: true })
    }

    /// A buffer that the program gave for a result.
    pub(crate) fn lent(at: User<u8>, len: usize) -> Room {
        Room { at: at.pointer(), len: if at.is_null() { 0 } else { len }, used: 0, owned: false }
    }

    /// A place for `count` values; none when there is no room.
    pub(crate) fn array<T>(&mut self, count: usize) -> Option<*mut T> {
        let now = self.at.wrapping_add(self.used) as usize;
        let start = self.used.checked_add(now.next_multiple_of(align_of::<T>()).checked_sub(now)?)?;
        let end = start.checked_add(size_of::<T>().checked_mul(count)?)?;
        if end > self.len {
            return None;
        }
        self.used = end;
        Some(self.at.wrapping_add(start).cast())
    }

    /// Puts a value behind what is there, and says where.
    pub(crate) fn value<T: Copy>(&mut self, value: T) -> Option<*mut T> {
        let at = self.array(1)?;
        self.set(at, 0, value);
        Some(at)
    }

    /// Puts bytes behind what is there.
    pub(crate) fn bytes(&mut self, bytes: &[u8], align: usize) -> Option<*mut u8> {
        let at = match align {
            ..=1 => self.array::<u8>(bytes.len())?,
            _ => self.array::<u64>(bytes.len().div_ceil(8))?.cast(),
        };
        for (place, byte) in bytes.iter().enumerate() {
            self.set(at, place, *byte);
        }
        Some(at)
    }

    /// Puts a text and its NUL behind what is there.
    pub(crate) fn text(&mut self, text: &[u8]) -> Option<*mut c_char> {
        let at = self.array::<u8>(text.len().checked_add(1)?)?;
        for (place, byte) in text.iter().chain(&[0]).enumerate() {
            self.set(at, place, *byte);
        }
        Some(at.cast())
    }

    /// Sets an element of an array that is here; elsewhere nothing.
    pub(crate) fn set<T: Copy>(&mut self, array: *mut T, at: usize, value: T) {
        let place = array.wrapping_add(at);
        let Some(start) = (place as usize).checked_sub(self.at as usize) else { return };
        if start.checked_add(size_of::<T>()).is_some_and(|end| end <= self.used) {
            // Structures that the C library defines are full of pointers.
            // SAFETY: within this memory, which is nobody else's yet; `array` has aligned it, or it is written as it is.
            unsafe { place.write_unaligned(value) };
        }
    }

    /// Frees the names of the first `count` entries, each of which is memory that was given away.
    pub(crate) fn free_names(&mut self, entries: *mut libc::if_nameindex, count: usize) {
        for at in 0..count {
            let entry = entries.wrapping_add(at);
            // What was given to the program in parts has to come back in parts.
            // SAFETY: the caller has set that many entries in this memory, to names from `give`.
            unsafe { libc::free(entry.read_unaligned().if_name.cast()) };
        }
    }

    /// Gives it to the program.
    pub(crate) fn give<T>(mut self) -> *mut T {
        self.owned = false;
        self.at.cast()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.owned {
            // SAFETY: from calloc(3), and not given away.
            unsafe { libc::free(self.at.cast()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_filled_in_order_and_never_beyond() {
        let mut room = Room::new(32).unwrap();
        let text = room.text(b"abc").unwrap();
        let number = room.value(7u64).unwrap();
        assert_eq!(number as usize - text as usize, 8);
        assert_eq!(number as usize % 8, 0);
        let pair = room.array::<u32>(2).unwrap();
        room.set(pair, 1, 9);
        // SAFETY: just written, in memory of 32 bytes.
        unsafe { assert_eq!((number.read(), pair.add(1).read(), text.read() as u8), (7, 9, b'a')) };
        assert!(room.array::<u64>(2).is_none());
        assert!(room.bytes(&[1; 9], 1).is_none());
        assert!(room.bytes(&[1; 8], 8).is_some());
        assert!(room.text(b"").is_none());
        assert!(room.array::<u64>(usize::MAX).is_none());
        room.set(number, 100, 1);
        room.set(number.wrapping_sub(100), 0, 1);
    }

    #[test]
    fn a_lent_one_is_aligned_where_it_is() {
        let buffer = [0u8; 40].map(std::cell::Cell::new);
        // SAFETY: nobody else uses the buffer.
        let at = unsafe { User::new(buffer[1..].as_ptr().cast()) };
        let mut room = Room::lent(at, 39);
        let number = room.value(5u64).unwrap();
        assert_eq!(number as usize % align_of::<u64>(), 0);
        assert!(Room::lent(User::NULL, 100).text(b"").is_none());
    }
}
