//! What touches memory and the system: the crate's only unsafe code.
//!
//! * [`exports`]: the functions that programs call, instead of the C library's.
//! * [`names`], [`hosts`], [`resolver`]: those about names and interfaces; [`next`]: the C library's own of them.
//! * [`reading`]: the C library's own read(2), for what is no connection that was reset.
//! * [`room`]: memory for what such functions give.
//! * [`start`]: what happens before main().
#![allow(unsafe_code)]

/// Functions with the C library's names, whose callers promise what its manual pages say.
macro_rules! exports {
    ($($(#[$meta:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) -> $result:ty $body:block)*) => {
        $(
            $(#[$meta])*
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name($($arg: $type),*) -> $result $body
        )*
    };
}

mod exports;
mod hosts;
mod names;
mod next;
mod reading;
mod resolver;
pub(crate) mod room;
pub(crate) mod start;

use std::ffi::c_int;

use ioth_node_calls::sys::raw;
use ioth_node_calls::{Result, User};

/// What a call returns, and errno.
fn returns<T: From<i8>>(call: impl FnOnce() -> Result<T>) -> T {
    let before = raw::errno();
    match call() {
        Ok(value) => {
            // What was tried on the way does not show.
            raw::set_errno(before);
            value
        }
        Err(errno) => {
            raw::set_errno(errno.0);
            T::from(-1)
        }
    }
}

/// # Safety
/// As [`User`] says.
unsafe fn user<T>(at: *const T) -> User<u8> {
    // SAFETY: the caller's promise.
    unsafe { User::new(at.cast()) }
}

/// [`returns`] for functions that say otherwise that they failed.
fn gives<T>(failed: T, call: impl FnOnce() -> Result<T>) -> T {
    let before = raw::errno();
    match call() {
        Ok(value) => {
            raw::set_errno(before);
            value
        }
        Err(errno) => {
            raw::set_errno(errno.0);
            failed
        }
    }
}

/// Sets netdb.h's h_errno.
fn set_h_errno(code: c_int) {
    unsafe extern "C" {
        fn __h_errno_location() -> *mut c_int;
    }
    // It is a variable of the thread, as errno is.
    // SAFETY: the pointer is good for the thread's life.
    unsafe { *__h_errno_location() = code };
}
