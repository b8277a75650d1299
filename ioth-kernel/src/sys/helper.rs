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

/// What is asked of the helper; each question has one answer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Whether it is for a socket that hears nothing before it is used: raw ones hear all from the moment that they are made.
    pub(crate) fn is_quiet(self) -> bool {
        let kind = self.kind & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
        self.what == SOCKET
            && matches!(self.domain, libc::AF_INET | libc::AF_INET6)
            && matches!(kind, libc::SOCK_STREAM | libc::SOCK_DGRAM)
    }

    pub(crate) fn to_bytes(self) -> [u8; size_of::<Question>()] {
        let mut bytes = [0; size_of::<Question>()];
        for (to, from) in bytes.chunks_exact_mut(4).zip([self.what, self.domain, self.kind, self.protocol]) {
            to.copy_from_slice(&from.to_ne_bytes());
        }
        bytes
    }
}

/// An errno; or 0 when a descriptor has been passed, and the helper has closed its own. Before all, one says that the helper is there.
pub(crate) const ANSWER: usize = size_of::<i32>();

/// What the helper begins with.
#[derive(Debug)]
pub(crate) struct Start {
    /// Its end of the channel, a socket of messages.
    pub(crate) channel: RawFd,
    /// Its end of the pair over which descriptors pass: where nobody waits, so that a descriptor wakes nobody who would have to wait
    /// again for the answer.
    pub(crate) passage: RawFd,
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

/// Receives the descriptor that was passed before the answer.
///
/// # Errors
/// `EMFILE`: it found no number here.
pub(crate) fn receive(passage: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let mut byte = 0u8;
    let mut data = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut passed = Passed::default();
    let mut header = message(&mut data, &mut passed);
    // nix allocates for the descriptor, whose absence for want of a number it does not tell.
    // SAFETY: all pointers in the header are of live variables of the lengths beside them.
    Errno::result(unsafe {
        libc::recvmsg(passage.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT)
    })?;
    if header.msg_controllen >= Passed::LEN as _ && passed.kind == libc::SCM_RIGHTS {
        // SAFETY: the kernel made the descriptor just now, and nobody else knows of it.
        return Ok(unsafe { OwnedFd::from_raw_fd(passed.fd) });
    }
    Err(if header.msg_flags & libc::MSG_CTRUNC != 0 { Errno::EMFILE } else { Errno::EPROTO })
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
            answer(start.channel, 0);
            serve(start);
        }
        Err(errno) => answer(start.channel, errno.into_raw()),
    }
    loop {
        // Past the functions that exit(3) would run: they are the program's.
        // SAFETY: a number is passed.
        let _ = unsafe { syscall!(Sysno::exit_group, 0) };
    }
}

/// Takes leave of the program: its descriptors, signals, process group and directory.
fn leave(start: &Start) {
    let [a, b, c] = [start.channel, start.passage, start.maker].map(|fd| fd as u32);
    let (low, high) = (a.min(b).min(c), a.max(b).max(c));
    let middle = a.max(b).min(a.min(b).max(c));
    close_between(0, low);
    close_between(low.wrapping_add(1), middle);
    close_between(middle.wrapping_add(1), high);
    close_range(high.wrapping_add(1), u32::MAX);
    let all = u64::MAX;
    // SAFETY: live pointers with their lengths, and numbers.
    unsafe {
        let _ = syscall!(Sysno::rt_sigprocmask, libc::SIG_SETMASK, &raw const all, 0, size_of::<u64>());
        let _ = syscall!(Sysno::prctl, libc::PR_SET_NAME, NAME.as_ptr(), 0, 0, 0);
        // Not setsid(2): sessions have the processor in turns (SCHED_AUTOGROUP), and a busy machine would have who asks wait for the helper's.
        let _ = syscall!(Sysno::setpgid, 0, 0);
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
fn serve(start: &Start) {
    let &Start { channel, passage, maker, .. } = start;
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
        let passed = match made {
            Ok(fd) => {
                let passed = pass(passage, fd as RawFd);
                // Before the answer: the one that was passed is its new owner's alone by then, and closing it is the last close.
                // SAFETY: the descriptor was made above.
                let _ = unsafe { syscall!(Sysno::close, fd) };
                passed
            }
            Err(errno) => Err(errno),
        };
        match passed {
            Ok(_) => answer(channel, 0),
            Err(errno) => answer(channel, errno.into_raw()),
        }
    }
}

/// Passes a descriptor.
fn pass(passage: RawFd, fd: RawFd) -> Result<usize, syscalls::Errno> {
    let mut byte = 0u8;
    let mut data = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let (level, kind) = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
    let mut passed = Passed { len: Passed::LEN, level, kind, fd, _padding: 0 };
    let header = message(&mut data, &mut passed);
    // SAFETY: all pointers in the header are of live variables of the lengths beside them.
    unsafe { syscall!(Sysno::sendmsg, passage, &raw const header, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) }
}

fn answer(channel: RawFd, errno: i32) {
    let bytes = errno.to_ne_bytes();
    // SAFETY: a live array of that length, and no address.
    let _ = unsafe { syscall!(Sysno::sendto, channel, bytes.as_ptr(), ANSWER, libc::MSG_NOSIGNAL, 0, 0) };
}

/// Closes from the first on to before the other.
fn close_between(first: u32, end: u32) {
    if end > first {
        close_range(first, end.wrapping_sub(1));
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
