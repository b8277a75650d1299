//! The C library's own functions about names, for programs that have no node.
//!
//! The others are system calls, which need nobody; a resolver is more than that.

use std::ffi::{CStr, c_void};

/// The function of that name in the libraries behind this one, as a pointer of its type; none where there is none.
macro_rules! next {
    ($name:expr => $type:ty) => {{
        let found = $crate::sys::next::find($name);
        // Only the caller knows its type.
        // SAFETY: a pointer to a function, or null for none; the C library's function of that name has that type.
        unsafe { std::mem::transmute::<*mut std::ffi::c_void, Option<$type>>(found) }
    }};
}

/// Functions with the C library's names, which are the C library's own for programs without a node. Behind `else` is what
/// they return where it has none.
macro_rules! named {
    ($(fn $name:ident($($arg:ident: $type:ty),* $(,)?) -> $result:ty, else $missing:block $body:block)*) => {
        $(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name($($arg: $type),*) -> $result {
                if $crate::sys::start::client().place().is_none() {
                    const NAME: &str = concat!(stringify!($name), "\0");
                    return match $crate::sys::next::next!(NAME => unsafe extern "C" fn($($type),*) -> $result) {
                        // SAFETY: the caller's promise.
                        Some(next) => unsafe { next($($arg),*) },
                        None => $missing,
                    };
                }
                $body
            }
        )*
    };
}

pub(super) use {named, next};

/// The function of that name, which ends with a NUL; null for none.
pub(super) fn find(name: &'static str) -> *mut c_void {
    let Ok(name) = CStr::from_bytes_with_nul(name.as_bytes()) else { return std::ptr::null_mut() };
    // There is no other way to a function whose name this library takes.
    // SAFETY: a name with its NUL.
    unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) }
}
