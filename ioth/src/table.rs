//! Which socket is behind a descriptor.
//!
//! Descriptors are known by the `SO_COOKIE` of the kernel's socket behind them (an AF_UNIX signal fd or a native
//! socket), asked anew in each call. Numbers would be faster by that one system call, but cannot be trusted: a
//! program may close(2) one, open a file in its place, and have the socket live on in a duplicate; a call would then
//! take data from a socket that the number is no more. A cookie is never given twice, and is the same for every
//! duplicate, however it was made: dup(2), fcntl(2), fork(2), SCM_RIGHTS. So no entry can be stale, only dead.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ioth_core::fork::Inherited;
use ioth_core::{Errno, Result, Socket};
use ioth_kernel::calls;
use nix::sys::resource::{Resource, getrlimit};

pub(crate) static TABLE: Table = Table::new();

/// All sockets of the process that have a descriptor.
///
/// A forked child takes it over: its duplicates of the descriptors are the same sockets. Those of the kernel it goes on
/// to use; the others say that they are the parent's.
///
/// A dead entry (all descriptors closed by the system call) is found by [`sweep`](Self::sweep), which runs
/// when the table has doubled since the last time: its cost is spread over the insertions.
#[derive(Debug)]
pub(crate) struct Table {
    shards: [Inherited<Shard>; SHARDS],
    len: AtomicUsize,
    sweep_at: AtomicUsize,
}

type Shard = HashMap<u64, Arc<dyn Socket>, BuildHasherDefault<CookieHasher>>;

const SHARDS: usize = 16;

/// Fewer entries are not worth a sweep.
const SWEEP_MIN: usize = 64;

impl Table {
    const fn new() -> Self {
        Table {
            // A child that could not take its part over knows none of the descriptors.
            shards: [const { Inherited::new(Shard::default, Shard::default) }; SHARDS],
            len: AtomicUsize::new(0),
            sweep_at: AtomicUsize::new(SWEEP_MIN),
        }
    }

    /// Makes `fd` and all its duplicates known as `socket`.
    pub(crate) fn insert(&'static self, fd: BorrowedFd<'_>, socket: Arc<dyn Socket>) -> Result<()> {
        let cookie = calls::cookie(fd)?;
        if self.shard(cookie).write().insert(cookie, socket).is_none() {
            let len = self.len.fetch_add(1, Ordering::Relaxed) + 1;
            if len >= self.sweep_at.load(Ordering::Relaxed) {
                // Set before the sweep: other threads need not begin one of their own.
                self.sweep_at.store(usize::MAX, Ordering::Relaxed);
                self.sweep();
            }
        }
        Ok(())
    }

    /// The socket behind `fd`, and its cookie.
    ///
    /// # Errors
    /// `EBADF` when the descriptor is closed or not one of ours.
    pub(crate) fn find(&'static self, fd: BorrowedFd<'_>) -> Result<(u64, Arc<dyn Socket>)> {
        let cookie = calls::cookie(fd).map_err(|_| Errno::EBADF)?;
        let socket = self.shard(cookie).read().get(&cookie).cloned().ok_or(Errno::EBADF)?;
        Ok((cookie, socket.by_descriptor(fd).unwrap_or(socket)))
    }

    pub(crate) fn remove(&'static self, cookie: u64) {
        let removed = self.shard(cookie).write().remove(&cookie);
        if removed.is_some() {
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
        // The socket's end is the stack's business, with no lock of ours held.
        drop(removed);
    }

    /// Takes out the entries whose descriptors are all closed.
    ///
    /// A stack in this process knows that by itself, in whatever process the last one was. A socket that lives in its
    /// descriptors, and one of a process that this one was forked from, are looked for among the process's descriptors.
    pub(crate) fn sweep(&'static self) {
        let mut foreign = Vec::new();
        let mut dead = Vec::new();
        for shard in &self.shards {
            // Cloned, so that the stacks are asked with no lock held.
            let entries: Vec<_> =
                shard.read().iter().map(|(cookie, socket)| (*cookie, socket.clone())).collect();
            for (cookie, socket) in entries {
                if socket.lives_in_descriptors() {
                    foreign.push(cookie);
                    continue;
                }
                match socket.local_addr() {
                    Err(Errno::ENODEV) => foreign.push(cookie),
                    Err(Errno::EBADF) => dead.push(cookie),
                    _ => {}
                }
            }
        }
        // A descriptor moved to another number between two looks at /proc could be missed once: look twice.
        for _ in 0..2 {
            if foreign.is_empty() {
                break;
            }
            let mut open: Vec<u64> = Vec::new();
            for_each_descriptor(|fd| open.extend(calls::with_number(fd, calls::cookie).ok()));
            open.sort_unstable();
            foreign.retain(|cookie| open.binary_search(cookie).is_err());
        }
        for cookie in dead.into_iter().chain(foreign) {
            self.remove(cookie);
        }
        let sweep_at = (2 * self.len.load(Ordering::Relaxed)).max(SWEEP_MIN);
        self.sweep_at.store(sweep_at, Ordering::Relaxed);
    }

    fn shard(&'static self, cookie: u64) -> &'static Inherited<Shard> {
        &self.shards[cookie as usize % SHARDS]
    }
}

/// Cookies are distinct numbers that nobody chooses: one multiplication spreads them.
#[derive(Default)]
struct CookieHasher(u64);

impl Hasher for CookieHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, cookie: u64) {
        // 2^64 / golden ratio: Knuth, The Art of Computer Programming, vol. 3, §6.4.
        self.0 = (self.0 ^ cookie).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Calls `each` with the numbers of the process's open descriptors, and perhaps of closed ones.
fn for_each_descriptor(mut each: impl FnMut(RawFd)) {
    match std::fs::read_dir("/proc/self/fd") {
        Ok(entries) => {
            let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
            numbers.for_each(each);
        }
        // In a chroot without /proc: the limit bounds the numbers.
        Err(_) => {
            let most = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
            (0..RawFd::try_from(most).unwrap_or(RawFd::MAX)).for_each(&mut each);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use ioth_core::{Domain, SocketType, Stack};

    use super::*;

    fn udp(stack: &ioth_kernel::KernelStack) -> (Arc<dyn Socket>, OwnedFd) {
        let socket = stack.socket(Domain::INET, SocketType::DGRAM, 0).unwrap();
        let fd = socket.release_fd().unwrap();
        (socket, fd)
    }

    #[test]
    fn every_duplicate_is_the_same_socket() {
        let table: &'static Table = Box::leak(Box::new(Table::new()));
        let (socket, fd) = udp(&ioth_kernel::KernelStack::new());
        assert_eq!(table.find(fd.as_fd()).err(), Some(Errno::EBADF));
        table.insert(fd.as_fd(), socket.clone()).unwrap();
        let duplicate = fd.try_clone().unwrap();
        drop(fd);
        let (cookie, found) = table.find(duplicate.as_fd()).unwrap();
        assert!(Arc::ptr_eq(&found, &socket));
        table.remove(cookie);
        assert_eq!(table.find(duplicate.as_fd()).err(), Some(Errno::EBADF));
    }

    #[test]
    fn a_sweep_takes_the_dead_and_only_them() {
        let table: &'static Table = Box::leak(Box::new(Table::new()));
        let stack = ioth_kernel::KernelStack::new();
        let kept: Vec<_> = (0..5).map(|_| udp(&stack)).collect();
        for (socket, fd) in &kept {
            table.insert(fd.as_fd(), socket.clone()).unwrap();
        }
        // Far more than SWEEP_MIN live and die: the table stays small by itself.
        for _ in 0..10 * SWEEP_MIN {
            let (socket, fd) = udp(&stack);
            table.insert(fd.as_fd(), socket).unwrap();
            assert!(table.len.load(Ordering::Relaxed) <= SWEEP_MIN);
        }
        table.sweep();
        assert_eq!(table.len.load(Ordering::Relaxed), kept.len());
        assert!(kept.iter().all(|(_, fd)| table.find(fd.as_fd()).is_ok()));
    }

    #[test]
    fn other_files_are_not_ours() {
        let table: &'static Table = Box::leak(Box::new(Table::new()));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(table.find(file.as_fd()).err(), Some(Errno::EBADF));
        let (unix, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(table.find(unix.as_fd()).err(), Some(Errno::EBADF));
    }
}
