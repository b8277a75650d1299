//! From Rust's results to C's: a return value and errno.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ioth::Errno;
use ioth::conf::ConfigError;

/// Why a call failed: an errno, kept as a number so that those without a name survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure(pub(crate) i32);

/// Result of a call.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::UnknownErrno => Failure(libc::EIO),
            errno => Failure(errno as i32),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure(error.raw_os_error().filter(|errno| *errno > 0).unwrap_or(libc::EIO))
    }
}

impl From<ioth::Error> for Failure {
    fn from(error: ioth::Error) -> Self {
        error.errno().into()
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        error.errno().into()
    }
}

/// What a C function returns when it fails.
pub(crate) trait Outcome {
    const FAILURE: Self;
}

impl Outcome for i32 {
    const FAILURE: Self = -1;
}

impl Outcome for isize {
    const FAILURE: Self = -1;
}

impl Outcome for u32 {
    const FAILURE: Self = 0;
}

impl Outcome for () {
    const FAILURE: Self = ();
}

impl<T> Outcome for *mut T {
    const FAILURE: Self = std::ptr::null_mut();
}

impl<T> Outcome for *const T {
    const FAILURE: Self = std::ptr::null();
}

/// Runs the body of a C function. Errno is set when it fails, and only then.
///
/// A panic ends here, as `ENOTRECOVERABLE`: unwinding into C is undefined. It is a bug of ours, of which the
/// panic's message on standard error tells.
pub(crate) fn run<T: Outcome>(body: impl FnOnce() -> Result<T>) -> T {
    let before = Errno::last_raw();
    let errno = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => {
            Errno::set_raw(before);
            return value;
        }
        Ok(Err(Failure(errno))) => errno,
        Err(payload) => {
            // Its drop may panic as well.
            std::mem::forget(payload);
            libc::ENOTRECOVERABLE
        }
    };
    Errno::set_raw(errno);
    T::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errno_is_set_by_failures_only() {
        Errno::set_raw(libc::EDOM);
        let value = run(|| {
            Errno::set_raw(libc::ERANGE);
            Ok(7)
        });
        assert_eq!((value, Errno::last_raw()), (7, libc::EDOM));
        assert_eq!(run(|| Err::<isize, _>(Errno::EPIPE.into())), -1);
        assert_eq!(Errno::last(), Errno::EPIPE);
        assert!(run(|| Err::<*mut u8, _>(Failure(524))).is_null());
        assert_eq!(Errno::last_raw(), 524);
    }

    #[test]
    fn a_panic_is_an_error() {
        struct Worse;
        impl Drop for Worse {
            fn drop(&mut self) {
                panic!("and again");
            }
        }
        let value: i32 = run(|| std::panic::panic_any(Worse));
        assert_eq!((value, Errno::last()), (-1, Errno::ENOTRECOVERABLE));
    }
}
