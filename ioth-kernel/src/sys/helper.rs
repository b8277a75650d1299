//! A process in a network namespace of its own, which makes sockets there and passes them on.
//!
//! It is cloned with our memory and without our descriptors. Its memory costs nothing then, however much the program has
//! and changes; but it must not do what a thread of the program does: allocate, panic, touch a thread-local variable
//! (such as errno: those of the thread that cloned it are what it sees). So it makes bare system calls, over its own stack.

use std::ffi::CStr;
use std::mem::{MaybeUninit, offset_of};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;

use ioth_core::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, mprotect, munmap};
use nix::sys::signal::SigSet;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use syscalls::{Sysno, syscall};

/// The helper's name, as ps(1) shows it.
const NAME: &CStr = c"ioth-vdestack";
/// Bytes of its stack; it uses some hundred. Below it is a page that cannot be touched.
const STACK: usize = 64 << 10;
const GUARD: usize = 64 << 10;

/// What is asked of the helper; each question has one [`Answer`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    /// [`SOCKET`] or [`TUN`].
    pub(crate) what: i32,
    pub(crate) domain: i32,
    pub(crate) kind: i32,
    pub(crate) protocol: i32,
}

/// socket(2)
pub(crate) const SOCKET: i32 = 1;
/// Opens /dev/net/tun.
pub(crate) const TUN: i32 = 2;

impl Question {
    pub(crate) fn to_bytes(self) -> [u8; size_of::<Question>()] {
        let mut bytes = [0; size_of::<Question>()];
        for (to, from) in bytes.chunks_exact_mut(4).zip([self.what, self.domain, self.kind, self.protocol]) {
            to.copy_from_slice(&from.to_ne_bytes());
        }
        bytes
    }
}

/// An errno, or 0 and a descriptor beside it. Before all, one without says that the helper is there; after each, one without says
/// that the helper has closed its own.
pub(crate) const ANSWER: usize = size_of::<i32>();

/// What the helper begins with.
#[derive(Debug)]
pub(crate) struct Start {
    /// Its end of the channel, a socket of messages.
    pub(crate) channel: RawFd,
    /// A pidfd of the process that it works for.
    pub(crate) maker: RawFd,
    /// What it writes into its uid_map and gid_map: it is root in there, for who looks in with nsenter(1).
    pub(crate) uid_map: String,
    pub(crate) gid_map: String,
}

/// A helper that runs. It ends when its channel or its maker does.
#[derive(Debug)]
pub(crate) struct Process {
    pidfd: OwnedFd,
    /// Dropped after the process has ended.
    memory: Option<Memory>,
}

impl Process {
    /// Clones the helper into a user namespace of its own. It enters a network namespace, and says in its first answer how that
    /// went.
    ///
    /// # Errors
    /// As clone(2): the host refuses.
    pub(crate) fn start(start: Start) -> Result<Self, Errno> {
        let memory = Memory::new(start)?;
        // With exit signal 0 the program's wait(2) does not see it.
        // The network namespace is not made here: that takes milliseconds, in which it would hold the program's descriptors.
        let flags = libc::CLONE_VM | libc::CLONE_NEWUSER | libc::CLONE_PIDFD;
        let mut pidfd: RawFd = -1;
        // A handler of the program's must not run in there; it inherits what is blocked.
        let before = SigSet::all().thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)?;
        // nix's clone() knows no pidfd.
        // SAFETY: the stack and what `start` points to live until the process has ended (see Drop), and the function
        // keeps to what the module says of a process that shares our memory.
        let cloned = Errno::result(unsafe {
            libc::clone(helper, memory.top().as_ptr(), flags, memory.start().as_ptr().cast(), &raw mut pidfd)
        });
        let _ = before.thread_set_mask();
        let _pid = cloned?;
        // SAFETY: clone(2) made the descriptor just now, and nobody else knows of it.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        Ok(Process { pidfd, memory: Some(memory) })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It ends by itself, but for one that was stopped.
        // SAFETY: a descriptor and numbers are passed.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.pidfd.as_raw_fd(), libc::SIGKILL, 0, 0) };
        let ended = loop {
            match waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::__WALL) {
                Err(Errno::EINTR) => (),
                // Somebody waited for all processes, and for it among them.
                Ok(_) | Err(Errno::ECHILD) => break true,
                Err(_) => break false,
            }
        };
        if !ended {
            std::mem::forget(self.memory.take());
        }
    }
}

/// A descriptor of this process, by which others are told of its end.
pub(crate) fn own_pidfd() -> Result<OwnedFd, Errno> {
    // nix has no pidfd_open().
    // SAFETY: numbers are passed.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) })?;
    // SAFETY: the kernel made it just now, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Receives an answer, and the descriptor that came with it.
pub(crate) fn receive(
    channel: BorrowedFd<'_>,
    answer: &mut [u8; ANSWER],
) -> Result<(usize, Option<OwnedFd>), Errno> {
    let mut data = libc::iovec { iov_base: answer.as_mut_ptr().cast(), iov_len: answer.len() };
    let mut passed = Passed::default();
    let mut header = message(&mut data, &mut passed);
    // nix allocates for the descriptor, whose absence for want of a number it does not tell.
    // SAFETY: all pointers in the header are of live variables of the lengths beside them.
    let len = Errno::result(unsafe {
        libc::recvmsg(channel.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC)
    })?;
    let came = header.msg_controllen >= Passed::LEN as _ && passed.kind == libc::SCM_RIGHTS;
    // SAFETY: the kernel made the descriptor just now, and nobody else knows of it.
    let fd = came.then(|| unsafe { OwnedFd::from_raw_fd(passed.fd) });
    // The answer promised one.
    if fd.is_none() && header.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(Errno::EMFILE);
    }
    Ok((len as usize, fd))
}

/// The helper's memory: its stack, and what it begins with.
#[derive(Debug)]
struct Memory {
    base: NonNull<libc::c_void>,
    start: Box<Start>,
}

// The memory belongs to the value alone.
// SAFETY: nothing but this value, and a process that ends before it, knows the pointer.
unsafe impl Send for Memory {}
// SAFETY: as above; a shared reference gives out numbers only.
unsafe impl Sync for Memory {}

impl Memory {
    const LEN: usize = GUARD + STACK;

    fn new(start: Start) -> Result<Self, Errno> {
        let len = NonZeroUsize::new(Memory::LEN).expect("not zero");
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_STACK | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping, at an address of the kernel's choice, replaces nothing.
        let base = unsafe { mmap_anonymous(None, len, protection, flags)? };
        let memory = Memory { base, start: Box::new(start) };
        // SAFETY: the first pages of the mapping above, which nobody uses.
        unsafe { mprotect(base, GUARD, ProtFlags::PROT_NONE)? };
        // A forked child of the program has no use for it.
        // SAFETY: the mapping above; in this process nothing changes.
        unsafe { madvise(base, Memory::LEN, MmapAdvise::MADV_DONTFORK)? };
        Ok(memory)
    }

    /// Where the stack begins, growing down.
    fn top(&self) -> NonNull<libc::c_void> {
        // SAFETY: the end of the mapping.
        unsafe { self.base.byte_add(Memory::LEN) }
    }

    fn start(&self) -> NonNull<Start> {
        NonNull::from(&*self.start)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new`, and who used it has ended.
        let _ = unsafe { munmap(self.base, Memory::LEN) };
    }
}

/// A control message with one descriptor.
#[repr(C)]
struct Passed {
    len: usize,
    level: i32,
    kind: i32,
    fd: RawFd,
    _padding: i32,
}

impl Passed {
    /// CMSG_LEN: without what fills it up.
    const LEN: usize = offset_of!(Passed, fd) + size_of::<RawFd>();
}

impl Default for Passed {
    fn default() -> Self {
        Passed { len: 0, level: 0, kind: 0, fd: -1, _padding: 0 }
    }
}

/// A header for one piece of data and a descriptor.
fn message(data: &mut libc::iovec, passed: &mut Passed) -> libc::msghdr {
    // Some C libraries have padding fields in msghdr, which a literal could not name.
    // SAFETY: all fields are integers and pointers, for which zero is valid.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_iov = data;
    header.msg_iovlen = 1;
    header.msg_control = std::ptr::from_mut(passed).cast();
    header.msg_controllen = size_of::<Passed>() as _;
    header
}

// From here on: the helper's own. Bare system calls, nothing that could panic, no thread-local variable.

extern "C" fn helper(start: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `Process::start` passes it, and keeps it for as long as this runs.
    let start = unsafe { &*start.cast::<Start>() };
    leave(start);
    // SAFETY: a number is passed.
    match unsafe { syscall!(Sysno::unshare, libc::CLONE_NEWNET) } {
        Ok(_) => {
            settle(start);
            answer(start.channel, 0, None);
            serve(start.channel, start.maker);
        }
        Err(errno) => answer(start.channel, errno.into_raw(), None),
    }
    loop {
        // Past the functions that exit(3) would run: they are the program's.
        // SAFETY: a number is passed.
        let _ = unsafe { syscall!(Sysno::exit_group, 0) };
    }
}

/// Takes leave of the program: its descriptors, signals, session and directory.
fn leave(start: &Start) {
    let (low, high) = (start.channel.min(start.maker) as u32, start.channel.max(start.maker) as u32);
    if low > 0 {
        close_range(0, low.wrapping_sub(1));
    }
    if high.wrapping_sub(low) > 1 {
        close_range(low.wrapping_add(1), high.wrapping_sub(1));
    }
    close_range(high.wrapping_add(1), u32::MAX);
    let all = u64::MAX;
    // SAFETY: live pointers with their lengths, and numbers.
    unsafe {
        let _ = syscall!(Sysno::rt_sigprocmask, libc::SIG_SETMASK, &raw const all, 0, size_of::<u64>());
        let _ = syscall!(Sysno::prctl, libc::PR_SET_NAME, NAME.as_ptr(), 0, 0, 0);
        let _ = syscall!(Sysno::setsid);
        let _ = syscall!(Sysno::chdir, c"/".as_ptr());
    }
}

/// Makes itself root of its namespaces, and sets what a stack begins with. What fails here costs comfort only.
fn settle(start: &Start) {
    // user_namespaces(7): who may map but himself has to give up setgroups(2) first.
    write(c"/proc/self/setgroups", b"deny");
    write(c"/proc/self/uid_map", start.uid_map.as_bytes());
    write(c"/proc/self/gid_map", start.gid_map.as_bytes());
    // icmp(7): sockets for echo requests are for its group, and all sockets are made by it.
    write(c"/proc/sys/net/ipv4/ping_group_range", b"0 0");
    // An address is there when it has been added, not a second later.
    write(c"/proc/sys/net/ipv6/conf/all/accept_dad", b"0");
    write(c"/proc/sys/net/ipv6/conf/default/accept_dad", b"0");
}

/// Answers until the channel or the maker ends.
fn serve(channel: RawFd, maker: RawFd) {
    loop {
        let mut polled = [channel, maker].map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
        // SAFETY: live structures, and their number; no time-out and no mask.
        let ready = unsafe { syscall!(Sysno::ppoll, polled.as_mut_ptr(), 2, 0, 0, 0) };
        let [to_channel, to_maker] = polled.map(|polled| polled.revents);
        match ready {
            Err(syscalls::Errno::EINTR) => continue,
            Err(_) => return,
            // The maker's end is told by its descriptor alone where a child of its has the channel's other end.
            Ok(_) if to_maker != 0 => return,
            Ok(_) if to_channel == 0 => continue,
            Ok(_) => (),
        }
        let mut question = Question { what: 0, domain: 0, kind: 0, protocol: 0 };
        let len = size_of::<Question>();
        // SAFETY: a live structure of that length, which any bytes make valid.
        let got = unsafe { syscall!(Sysno::read, channel, &raw mut question, len) };
        match got {
            Ok(got) if got == len => (),
            Err(syscalls::Errno::EINTR | syscalls::Errno::EAGAIN) => continue,
            _ => return,
        }
        let Question { what, domain, kind, protocol } = question;
        let flags = libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC;
        // SAFETY: numbers and a live string are passed.
        let made = unsafe {
            match what {
                SOCKET => syscall!(Sysno::socket, domain, kind | libc::SOCK_CLOEXEC, protocol),
                TUN => syscall!(Sysno::openat, libc::AT_FDCWD, c"/dev/net/tun".as_ptr(), flags, 0),
                _ => Err(syscalls::Errno::EINVAL),
            }
        };
        match made {
            Ok(fd) => {
                answer(channel, 0, Some(fd as RawFd));
                // SAFETY: the descriptor was made above.
                let _ = unsafe { syscall!(Sysno::close, fd) };
            }
            Err(errno) => answer(channel, errno.into_raw(), None),
        }
        // The descriptor that was passed is its new owner's alone by now: closing it is the last close.
        answer(channel, 0, None);
    }
}

fn answer(channel: RawFd, errno: i32, fd: Option<RawFd>) {
    let mut bytes = errno.to_ne_bytes();
    let mut data = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: ANSWER };
    let (level, kind) = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
    let mut passed = Passed { len: Passed::LEN, level, kind, fd: fd.unwrap_or(-1), _padding: 0 };
    let mut header = message(&mut data, &mut passed);
    if fd.is_none() {
        header.msg_controllen = 0;
    }
    // SAFETY: all pointers in the header are of live variables of the lengths beside them.
    let sent = unsafe { syscall!(Sysno::sendmsg, channel, &raw const header, libc::MSG_NOSIGNAL) };
    // unix(7): too many descriptors are under way.
    if let (Err(refused), Some(_)) = (sent, fd) {
        answer(channel, refused.into_raw(), None);
    }
}

fn close_range(first: u32, last: u32) {
    // SAFETY: numbers are passed; this process's descriptors are its own.
    let _ = unsafe { syscall!(Sysno::close_range, first, last, 0) };
}

fn write(path: &CStr, text: &[u8]) {
    // SAFETY: live pointers, with their length or ended by a zero; the descriptor is the one that was just made.
    unsafe {
        let flags = libc::O_WRONLY | libc::O_CLOEXEC;
        if let Ok(fd) = syscall!(Sysno::openat, libc::AT_FDCWD, path.as_ptr(), flags, 0) {
            let _ = syscall!(Sysno::write, fd, text.as_ptr(), text.len());
            let _ = syscall!(Sysno::close, fd);
        }
    }
}
