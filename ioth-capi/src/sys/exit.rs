//! The program's exit(3), of which the library is told.

use std::ffi::c_int;
use std::os::fd::RawFd;
use std::process;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::outcome::run;

/// The process that made the last node: a child of fork(2) that made none has nothing to end.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// Has the nodes ended when the program ends by exit(3) or returns from `main`.
pub(crate) fn register() {
    static REGISTERED: Once = Once::new();
    OWNER.store(process::id(), Ordering::Relaxed);
    // A child inherits the entry.
    REGISTERED.call_once(|| {
        // Without memory for the entry there is no time for what was sent last, which is not worth a failure.
        // SAFETY: a function without arguments, which stays: the library is never unloaded.
        unsafe { libc::atexit(at_exit) };
    });
}

extern "C" fn at_exit() {
    run(|| {
        if process::id() == OWNER.load(Ordering::Relaxed) {
            // The thread that ends has lost its thread-locals already; another has its own.
            if let Ok(thread) = std::thread::Builder::new().spawn(crate::exit::finish) {
                let _ = thread.join();
            }
        }
        Ok(())
    })
}

/// What the kernel takes a descriptor for: its socket's address family.
pub(crate) fn kernel_domain(fd: RawFd) -> Option<c_int> {
    kernel_option(fd, libc::SO_DOMAIN).map(c_int::from_ne_bytes)
}

/// The number of the network that a socket is on, as the kernel has it; since Linux 5.14.
pub(crate) fn kernel_network(fd: RawFd) -> Option<u64> {
    kernel_option(fd, libc::SO_NETNS_COOKIE).map(u64::from_ne_bytes)
}

/// An option of a socket.
fn kernel_option<const N: usize>(fd: RawFd, option: c_int) -> Option<[u8; N]> {
    let mut value = [0; N];
    let mut len = N as libc::socklen_t;
    // nix takes no descriptor by its number.
    // SAFETY: both pointers are of live variables of the lengths that they say.
    let got =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, option, value.as_mut_ptr().cast(), &raw mut len) };
    (got == 0).then_some(value)
}
