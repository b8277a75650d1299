//! Stacks: `ioth_newstack` and its like.

use std::ffi::{c_char, c_int};
use std::ptr::without_provenance_mut;

use ioth::{Errno, Stack, berkeley};

use super::{Ioth, memory};
use crate::handle;
use crate::names::Names;
use crate::outcome::{Result, run};

/// More interfaces than a stack can be asked to have in one call.
const MAX_INTERFACES: usize = 4096;

/// # Safety
/// The strings are not changed during the call.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_newstack(stack: *const c_char, vnl: *const c_char) -> *mut Ioth {
    run(|| {
        // SAFETY: the caller's promise.
        let (stack, vnl) = unsafe { (memory::text(stack)?, memory::text(vnl)?) };
        new_stack(stack, vnl.as_slice())
    })
}

/// # Safety
/// `vnlv` ends with a NULL; it and the strings are not changed during the call.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn ioth_newstackv(
    stack: *const c_char,
    vnlv: *const *const c_char,
) -> *mut Ioth {
    run(|| {
        let mut vnls = Vec::new();
        let mut next = vnlv;
        while !next.is_null() {
            if vnls.len() == MAX_INTERFACES {
                return Err(Errno::E2BIG.into());
            }
            // SAFETY: the caller's promise.
            let Some(vnl) = (unsafe { memory::text(memory::get(next)?)? }) else { break };
            vnls.push(vnl);
            next = next.wrapping_add(1);
        }
        // SAFETY: the caller's promise.
        new_stack(unsafe { memory::text(stack)? }, &vnls)
    })
}

#[unsafe(no_mangle)]
extern "C" fn ioth_delstack(stack: *mut Ioth) -> c_int {
    run(|| handle::delete(stack.addr()).map(|()| 0))
}

#[unsafe(no_mangle)]
extern "C" fn ioth_set_defstack(stack: *mut Ioth) {
    run(|| handle::set_default(stack.addr()))
}

#[unsafe(no_mangle)]
extern "C" fn ioth_get_defstack() -> *mut Ioth {
    run(|| handle::default().map(without_provenance_mut))
}

#[unsafe(no_mangle)]
extern "C" fn ioth_msocket(stack: *mut Ioth, domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    run(|| {
        let stack = handle::find(stack.addr())?;
        Ok(berkeley::msocket(Some(&stack), domain, kind, protocol)?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn ioth_socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    ioth_msocket(std::ptr::null_mut(), domain, kind, protocol)
}

/// The C library compares the program's licence with that of the stack that it loads. The stacks here are part of the
/// library, and may be used by every program: there is nothing to compare.
#[unsafe(no_mangle)]
extern "C" fn ioth_set_license(_license: *const c_char) {}

fn new_stack(stack: Option<&str>, vnls: &[&str]) -> Result<*mut Ioth> {
    let stack = Stack::newstackv(stack.unwrap_or_default(), vnls)?;
    Ok(without_provenance_mut(handle::add(stack, Names::default())))
}
