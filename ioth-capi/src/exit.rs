//! What is done when the program ends.
//!
//! Behind a socket of the kernel's there is the kernel, which goes on sending when the program is gone. A node in user
//! space ends with its process: so that a program may send and return, its sockets are closed here, as the kernel
//! closes those that it has, and the nodes get the time that deleting gives them.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use ioth::berkeley;

use crate::handle;
use crate::sys::kernel_domain;

/// How long the end of a program may be put off for all its nodes together: as long as for one of them.
const PATIENCE: Duration = Duration::from_secs(3);

/// Closes the descriptors of sockets in user space and deletes the nodes.
pub(crate) fn finish() {
    for fd in descriptors() {
        if is_in_user_space(fd) {
            do_not_linger(fd);
            let _ = berkeley::close(fd);
        }
    }
    let end = Instant::now() + PATIENCE;
    for stack in handle::all() {
        if Instant::now() > end {
            break;
        }
        // Busy ones have duplicates elsewhere, which are of no use without this process; a parent's say so at once.
        let _ = stack.delete();
    }
}

/// Whether a descriptor is of a socket whose stack is in this process. The kernel's own are left to it: other functions
/// that run at the end may use them.
fn is_in_user_space(fd: RawFd) -> bool {
    let mut domain = [0; size_of::<i32>()];
    kernel_domain(fd) == Some(libc::AF_UNIX)
        && berkeley::getsockopt(fd, libc::SOL_SOCKET, libc::SO_DOMAIN, &mut domain).is_ok()
        && i32::from_ne_bytes(domain) != libc::AF_UNIX
}

/// At the end of a process Linux does not wait for SO_LINGER, but resets where that says so by a time of 0.
fn do_not_linger(fd: RawFd) {
    // struct linger: l_onoff and l_linger, both int
    let mut linger = [0; 8];
    let asked = berkeley::getsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, &mut linger);
    if asked.is_ok() && linger[4..] != [0; 4] {
        let _ = berkeley::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, &[0; 8]);
    }
}

fn descriptors() -> Vec<RawFd> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
