//! What is done when the program ends.
//!
//! Behind a socket of the host's kernel there is the kernel, which goes on sending when the program is gone. A node in user
//! space ends with its process, and the network of a `vdestack` does: so that a program may send and return, their sockets are
//! closed here, as the kernel closes those that it has, and the nodes get the time that deleting gives them.

use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use ioth::berkeley;

use crate::handle;
use crate::sys::{kernel_domain, kernel_network};

/// How long the end of a program may be put off for all its nodes together: as long as for one of them.
const PATIENCE: Duration = Duration::from_secs(3);

/// Closes the descriptors of sockets that end with the process and deletes the nodes.
pub(crate) fn finish() {
    let host = host_network();
    for fd in descriptors() {
        if is_in_user_space(fd) || is_on_another_network(fd, host) {
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
/// that run at the end may use them. Those of a node process may be a child's as well.
fn is_in_user_space(fd: RawFd) -> bool {
    let mut domain = [0; size_of::<i32>()];
    kernel_domain(fd) == Some(libc::AF_UNIX)
        && berkeley::outlives_process(fd).is_ok_and(|outlives| !outlives)
        && berkeley::getsockopt(fd, libc::SOL_SOCKET, libc::SO_DOMAIN, &mut domain).is_ok()
        && i32::from_ne_bytes(domain) != libc::AF_UNIX
}

/// Whether a descriptor is of a kernel's socket of ours that is in another network namespace than the process.
fn is_on_another_network(fd: RawFd, host: Option<u64>) -> bool {
    host.is_some() && network(fd).is_some_and(|network| Some(network) != host)
}

/// The number of the network that a socket of ours is on, where a kernel has it.
fn network(fd: RawFd) -> Option<u64> {
    let mut cookie = [0; size_of::<u64>()];
    let len = berkeley::getsockopt(fd, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, &mut cookie).ok()?;
    (len == cookie.len()).then(|| u64::from_ne_bytes(cookie))
}

/// The number of the network that the process is on. A socket of any family tells, and this one asks nothing of it.
fn host_network() -> Option<u64> {
    kernel_network(UnixDatagram::unbound().ok()?.as_raw_fd())
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
