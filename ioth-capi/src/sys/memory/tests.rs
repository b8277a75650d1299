use std::ptr::{null, null_mut, without_provenance, without_provenance_mut};

use super::*;
use crate::outcome::Failure;

const FAULT: Failure = Failure(libc::EFAULT);

/// Three pages: one that can be written, one that can be read, one that is not there.
struct Pages(*mut u8);

impl Pages {
    fn new() -> Self {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping.
        let pages =
            unsafe { libc::mmap(null_mut(), 3 * PAGE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        assert_ne!(pages, libc::MAP_FAILED);
        let pages = Pages(pages.cast());
        for (page, protection) in [(1, libc::PROT_READ), (2, libc::PROT_NONE)] {
            // SAFETY: a page of the mapping.
            assert_eq!(unsafe { libc::mprotect(pages.at(page * PAGE).cast(), PAGE, protection) }, 0);
        }
        pages
    }

    fn at(&self, offset: usize) -> *mut u8 {
        self.0.wrapping_add(offset)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping made above.
        unsafe { libc::munmap(self.0.cast(), 3 * PAGE) };
    }
}

/// Pointers that are nobody's memory.
fn wild() -> [usize; 5] {
    [0, 1, PAGE - 1, usize::MAX - 7, 1 << 63]
}

#[test]
fn reading() {
    let pages = Pages::new();
    let mut bytes = [7; 64];
    // SAFETY: nobody changes these pages.
    unsafe {
        copy_in(pages.at(PAGE - 13).cast(), &mut bytes).unwrap();
        assert_eq!(bytes, [0; 64]);
        copy_in(pages.at(2 * PAGE - 64).cast(), &mut bytes).unwrap();
        assert_eq!(copy_in(pages.at(2 * PAGE - 63).cast(), &mut bytes), Err(FAULT));
        assert_eq!(copy_in(pages.at(2 * PAGE).cast(), &mut bytes), Err(FAULT));
        assert_eq!(copy_in_some(pages.at(2 * PAGE - 10).cast(), &mut bytes), 10);
        for at in wild() {
            assert_eq!(copy_in(without_provenance(at), &mut bytes), Err(FAULT), "{at:#x}");
            assert_eq!(get(without_provenance::<u32>(at)), Err(FAULT), "{at:#x}");
        }
        copy_in(null(), &mut []).unwrap();
    }
}

#[test]
fn writing() {
    let pages = Pages::new();
    // SAFETY: these pages are the test's.
    unsafe {
        for len in [1, 4, 7, 8, 9, 100] {
            let bytes = vec![0x5a; len];
            copy_out(pages.at(PAGE - len).cast(), &bytes).unwrap();
            assert_eq!(slice::from_raw_parts(pages.at(PAGE - len), len), &bytes);
            for (at, what) in [(PAGE - len + 1, "half"), (PAGE, "read only"), (2 * PAGE, "not there")] {
                assert_eq!(copy_out(pages.at(at).cast(), &bytes), Err(FAULT), "{len} bytes, {what}");
            }
            for at in wild() {
                assert_eq!(copy_out(without_provenance_mut(at), &bytes), Err(FAULT), "{len} at {at:#x}");
            }
        }
        copy_out(null_mut(), &[]).unwrap();
        put(pages.at(3).cast::<u32>(), 0x0102_0304).unwrap();
        assert_eq!(get(pages.at(3).cast::<u32>()), Ok(0x0102_0304));
    }
}

#[test]
fn buffers() {
    let pages = Pages::new();
    let byte = 1;
    // SAFETY: a byte of the test's; the others are refused.
    unsafe {
        assert_eq!(input((&raw const byte).cast(), 1), Ok(&[1][..]));
        assert_eq!(input(null(), 0), Ok(&[][..]));
        assert_eq!(input((&raw const byte).cast(), usize::MAX), Err(FAULT));
        // Room that ends before its length says, and what can only be read, or not at all.
        assert_eq!(output(pages.at(10).cast(), MAX_COUNT).unwrap().len(), PAGE - 10);
        assert_eq!(output(pages.at(10).cast(), PAGE).unwrap().len(), PAGE - 10);
        assert_eq!(output(pages.at(PAGE).cast(), 1), Err(FAULT));
        assert_eq!(output(pages.at(2 * PAGE).cast(), 1), Err(FAULT));
        assert_eq!(input(pages.at(PAGE).cast(), PAGE).unwrap().len(), PAGE);
        assert_eq!(input(pages.at(PAGE).cast(), PAGE + 1), Err(FAULT));
        assert_eq!(input(pages.at(2 * PAGE).cast(), 1), Err(FAULT));
        // Asking has changed nothing.
        assert_eq!(pages.at(8).cast::<u64>().read(), 0);
        for at in wild() {
            assert_eq!(input(without_provenance(at), 8), Err(FAULT), "{at:#x}");
            assert_eq!(output(without_provenance_mut(at), 8), Err(FAULT), "{at:#x}");
        }
    }
}

#[test]
fn strings() {
    let pages = Pages::new();
    // SAFETY: nobody else changes these pages.
    unsafe {
        assert_eq!(string(pages.at(0).cast()), Ok(c""));
        pages.at(0).write_bytes(b'x', PAGE);
        assert_eq!(string(pages.at(1).cast()).unwrap().count_bytes(), PAGE - 1);
        libc::mprotect(pages.at(PAGE).cast(), PAGE, libc::PROT_NONE);
        assert_eq!(string(pages.at(1).cast()), Err(FAULT));
        let long = vec![b'x'; MAX_STRING + PAGE];
        assert_eq!(string(long.as_ptr().cast()), Err(Failure(libc::ENAMETOOLONG)));
        assert_eq!(text(null()), Ok(None));
        assert_eq!(text(c"caf\xe9".as_ptr()), Err(Failure(libc::EINVAL)));
        for at in wild().into_iter().skip(1) {
            assert_eq!(text(without_provenance(at)), Err(FAULT), "{at:#x}");
        }
    }
}
