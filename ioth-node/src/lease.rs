//! Leases: which programs are there, told by memory that they have mapped.
//!
//! A program inherits the end of a pipe, by whose hanging up the node learns that the last program has gone. But servers
//! close descriptors that they do not know (closefrom(3)), and a server that has done so has no socket yet. So each program
//! maps a file of its own: a mapping has no number that could be closed, a forked child has it as well, and exec(2) and
//! exit(2) end it. An unlinked file whose last mapping ends is deleted, which inotify(7) tells.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use ioth::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;

/// As much as the smallest mapping is, in bytes.
const LEN: i64 = 4096;

/// The leases of a node.
#[derive(Debug)]
pub(crate) struct Leases {
    deletions: Inotify,
    live: AtomicUsize,
}

impl Leases {
    pub(crate) fn new() -> Result<Leases, Errno> {
        let deletions = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        Ok(Leases { deletions, live: AtomicUsize::new(0) })
    }

    /// A file for a program to map. It counts until the program has closed and unmapped it.
    pub(crate) fn grant(&self) -> Result<OwnedFd, Errno> {
        let file = memfd_create("ioth-lease", MFdFlags::MFD_CLOEXEC)?;
        ftruncate(&file, LEN)?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        // Before the watch is there: its end is told to another thread.
        self.live.fetch_add(1, Ordering::AcqRel);
        if let Err(error) = self.deletions.add_watch(&*path, AddWatchFlags::IN_DELETE_SELF) {
            self.live.fetch_sub(1, Ordering::AcqRel);
            return Err(error);
        }
        Ok(file)
    }

    /// Readable when leases have ended, which [`hear`](Leases::hear) takes note of.
    pub(crate) fn deletions(&self) -> BorrowedFd<'_> {
        self.deletions.as_fd()
    }

    pub(crate) fn hear(&self) {
        while let Ok(events) = self.deletions.read_events() {
            // Each watch ends with this one, whatever was told before.
            let ended = events.iter().filter(|event| event.mask.contains(AddWatchFlags::IN_IGNORED)).count();
            self.live.fetch_sub(ended, Ordering::AcqRel);
        }
    }

    /// How many programs there are.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    fn wait(leases: &Leases) {
        let mut fds = [PollFd::new(leases.deletions(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(10_000u16)), Ok(1));
        leases.hear();
    }

    #[test]
    fn a_lease_ends_with_the_last_that_holds_it() {
        let leases = Leases::new().unwrap();
        let (first, second) = (leases.grant().unwrap(), leases.grant().unwrap());
        assert_eq!(leases.live(), 2);
        let held = first.try_clone().unwrap();
        drop(first);
        leases.hear();
        assert_eq!(leases.live(), 2);
        drop(held);
        wait(&leases);
        assert_eq!(leases.live(), 1);
        drop(second);
        wait(&leases);
        assert_eq!(leases.live(), 0);
    }
}
