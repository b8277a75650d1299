//! The exported names of the functions in variadic.c, and what they call.
//!
//! rustc exports functions written in Rust only, and cannot write these in Rust: so each is one jump, which leaves all
//! arguments where they are.

use std::arch::naked_asm;
use std::ffi::{c_char, c_int, c_long, c_ulong, c_void};

use super::{Ioth, calls, ioctl, stacks};

unsafe extern "C" {
    fn ioth_variadic_newstackl();
    fn ioth_variadic_ioctl();
    fn ioth_variadic_fcntl();
}

/// The jump, behind the mark that processors with branch protection want at a function's beginning.
macro_rules! jump {
    ($to:path) => {
        naked_asm!(
            #[cfg(target_arch = "x86_64")]
            "endbr64",
            #[cfg(target_arch = "x86_64")]
            "jmp {to}",
            #[cfg(target_arch = "aarch64")]
            "hint #34",
            #[cfg(any(target_arch = "aarch64", target_arch = "arm", target_arch = "loongarch64"))]
            "b {to}",
            #[cfg(any(target_arch = "riscv64", target_arch = "riscv32"))]
            "tail {to}",
            #[cfg(target_arch = "s390x")]
            "jg {to}",
            to = sym $to,
        )
    };
}

/// # Safety
/// As `ioth_newstackv`; the list ends with a NULL.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn ioth_newstackl() {
    jump!(ioth_variadic_newstackl)
}

/// # Safety
/// The argument is what the request takes.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn ioth_ioctl() {
    jump!(ioth_variadic_ioctl)
}

/// # Safety
/// The argument is what the command takes.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn ioth_fcntl() {
    jump!(ioth_variadic_fcntl)
}

/// # Safety
/// As `ioth_newstackv`.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_fixed_newstackv(stack: *const c_char, vnlv: *const *const c_char) -> *mut Ioth {
    // SAFETY: the caller's promise.
    unsafe { stacks::ioth_newstackv(stack, vnlv) }
}

/// # Safety
/// `argument` is what the request takes.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioth_fixed_ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { ioctl::ioctl(fd, request, argument) }
}

#[unsafe(no_mangle)]
extern "C" fn ioth_fixed_fcntl(fd: c_int, command: c_int, argument: c_long) -> c_int {
    calls::fcntl(fd, command, argument)
}
