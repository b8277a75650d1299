//! Sees to it that programs have no sockets of the host's network.
//!
//! A program that quietly falls back to the host's sockets would pass every test of what it does. Under a [`Guard`] such a
//! socket cannot be made, and whoever tried, in the whole tree of processes, is told by [`Guard::attempts`]. How: a seccomp
//! filter (seccomp_unotify(2)) that descendants inherit and nobody can take off.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use libc::sock_filter;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, socketpair,
};

use crate::sys;

/// The families of the host's network.
const FAMILIES: [(libc::c_int, &str); 3] =
    [(libc::AF_INET, "AF_INET"), (libc::AF_INET6, "AF_INET6"), (libc::AF_PACKET, "AF_PACKET")];

/// Processes that may have no socket of AF_INET, AF_INET6 and AF_PACKET. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    attempts: Arc<Mutex<Vec<Attempt>>>,
}

/// A socket of the host that a process asked for, and did not get.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attempt {
    /// The address family.
    pub family: &'static str,
    /// The process.
    pub pid: u32,
    /// Its name, as ps(1) shows it.
    pub name: String,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) asked for a socket of {}", self.name, self.pid, self.family)
    }
}

impl Guard {
    /// Starts a command that it watches, with all descendants. Their socket(2) fails with `EAFNOSUPPORT` for the host's
    /// families, and io_uring_setup(2), by which sockets are made that no filter sees, with `ENOSYS`.
    ///
    /// # Errors
    /// As [`Command::spawn`], and seccomp(2).
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        sys::confine(command, filter(), theirs);
        let child = command.spawn()?;
        let listener = receive(&ours)?;
        let attempts = self.attempts.clone();
        // Ends with the last process.
        thread::Builder::new().name("guard".into()).spawn(move || watch(&listener, &attempts))?;
        Ok(child)
    }

    /// The sockets of the host that were asked for up to now.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn receive(from: &OwnedFd) -> io::Result<OwnedFd> {
    let mut byte = [0];
    let mut room = nix::cmsg_space!(RawFd);
    let mut parts = [IoSliceMut::new(&mut byte)];
    let message = recvmsg::<()>(
        from.as_raw_fd(),
        &mut parts,
        Some(&mut room),
        MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT,
    )?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control
            && let [number] = numbers[..]
        {
            return Ok(sys::received(number));
        }
    }
    Err(io::Error::other("the child sent no listener"))
}

fn watch(listener: &OwnedFd, attempts: &Mutex<Vec<Attempt>>) {
    loop {
        let mut wanted = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        match poll(&mut wanted, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(errno) => panic!("poll: {errno}"),
        }
        let happened = wanted[0].revents().unwrap_or(PollFlags::empty());
        if happened.contains(PollFlags::POLLIN) {
            let stopped = match sys::next_stopped(listener.as_fd()) {
                Ok(stopped) => stopped,
                // It was killed meanwhile.
                Err(Errno::ENOENT | Errno::EINTR) => continue,
                Err(errno) => panic!("the filter's listener: {errno}"),
            };
            let name = std::fs::read_to_string(format!("/proc/{}/comm", stopped.pid)).unwrap_or_default();
            let family = stopped.argument as libc::c_int;
            let family = FAMILIES.iter().find(|(known, _)| *known == family).map_or("?", |(_, name)| *name);
            let attempt = Attempt { family, pid: stopped.pid, name: name.trim_end().to_owned() };
            attempts.lock().unwrap_or_else(PoisonError::into_inner).push(attempt);
            let _ = sys::fail(listener.as_fd(), &stopped, libc::EAFNOSUPPORT);
        } else if happened.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
            return;
        }
    }
}

/// The filter, in the instructions of classic BPF (linux/filter.h) over `struct seccomp_data`.
fn filter() -> Vec<sock_filter> {
    const ARCH: u32 = if cfg!(target_arch = "x86_64") {
        0xc000_003e
    } else if cfg!(target_arch = "aarch64") {
        0xc000_00b7
    } else {
        0
    };
    /// System calls of x86-64 with this bit have 32-bit pointers (x32).
    const X32: u32 = 0x4000_0000;
    /// Offsets in `struct seccomp_data`; an argument's low half is what socket(2) looks at.
    const NUMBER_AT: u32 = 0;
    const ARCH_AT: u32 = 4;
    const FAMILY_AT: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };
    assert_ne!(ARCH, 0, "the guard does not know this machine's kind (linux/audit.h: AUDIT_ARCH_*)");

    let load = |offset| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0);
    let is = |value, yes, no| instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, yes, no);
    let is_least = |value, yes, no| instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, value, yes, no);
    let end = |action| instruction(libc::BPF_RET | libc::BPF_K, action, 0, 0);
    let mut filter = vec![
        load(ARCH_AT),
        is(ARCH, 1, 0),
        end(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER_AT),
        is_least(X32, 0, 1),
        end(libc::SECCOMP_RET_KILL_PROCESS),
        is(libc::SYS_io_uring_setup as u32, 0, 1),
        end(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
        is(libc::SYS_socket as u32, 1, 0),
        end(libc::SECCOMP_RET_ALLOW),
        load(FAMILY_AT),
    ];
    for (family, _) in FAMILIES {
        filter.extend([is(family as u32, 0, 1), end(libc::SECCOMP_RET_USER_NOTIF)]);
    }
    filter.push(end(libc::SECCOMP_RET_ALLOW));
    filter
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    /// A program that tries to make a socket of each family: Debian's python3 is there for other tests as well.
    fn sockets(guard: &Guard, families: &[libc::c_int]) -> String {
        let program = format!(
            "import socket, subprocess, sys\n\
             for family in {families:?}:\n\
             \x20   try: socket.socket(family, socket.SOCK_RAW if family == 17 else socket.SOCK_STREAM).close(); print('ok')\n\
             \x20   except OSError as error: print(error.errno)\n\
             sys.stdout.flush()\n\
             subprocess.run([sys.executable, '-c', 'import socket; socket.socket(socket.AF_INET6)'], stderr=subprocess.DEVNULL)"
        );
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", &program]).stdin(Stdio::null()).stdout(Stdio::piped());
        let child = guard.spawn(&mut command).expect("apt-get install python3");
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    }

    #[test]
    fn sockets_of_the_host_are_refused_and_told() {
        let guard = Guard::default();
        let refused = libc::EAFNOSUPPORT;
        let told = sockets(&guard, &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_PACKET]);
        assert_eq!(told, format!("ok\n{refused}\n{refused}\n{refused}\n"));
        let families: Vec<_> = guard.attempts().iter().map(|attempt| attempt.family).collect();
        assert_eq!(
            families,
            ["AF_INET", "AF_INET6", "AF_PACKET", "AF_INET6"],
            "the last by the child's child"
        );
        let attempts = guard.attempts();
        assert!(attempts[0].name.starts_with("python3"), "{}", attempts[0]);
        assert_ne!(attempts[0].pid, attempts[3].pid);
    }
}
