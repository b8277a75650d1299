//! Debian's libvdestack. It runs in a process of its own, since it clones the one it is in; its sockets are the kernel's
//! and are used here, by the same code as all others.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, SockaddrIn, bind, connect, listen, send,
    setsockopt, socketpair, sockopt,
};

use super::switch::end;
use super::{compile, program};
use crate::sys;

const SOURCE: &str = include_str!("../vdestack.c");

/// Compiles the helper.
pub(crate) fn build(dir: &Path) -> Result<PathBuf, String> {
    compile(dir, "vdestack", SOURCE, "vdestack", "apt-get install libvdestack-dev")
}

/// A process with one stack of the C library.
#[derive(Debug)]
pub(crate) struct Helper {
    child: Mutex<Child>,
    /// `None` while it is being ended.
    channel: Option<OwnedFd>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Stream sockets made ahead, with what each took.
    ready: VecDeque<(OwnedFd, Duration)>,
    spent: Duration,
}

impl Helper {
    /// Starts the helper `program` with a stack on `vnl` that has the address `cidr`.
    pub(crate) fn start(helper: &Path, vnl: &str, cidr: &str) -> Result<Self, String> {
        let ip = program("ip").ok_or("apt-get install iproute2")?;
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(|errno| format!("socketpair: {errno}"))?;
        let child = Command::new(helper)
            .args([vnl, cidr])
            .arg(ip)
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", helper.display()))?;
        // Nothing hangs here for ever: a C client without a free port on its switch would.
        let patience = nix::sys::time::TimeVal::new(20, 0);
        setsockopt(&ours, sockopt::ReceiveTimeout, &patience).map_err(|errno| errno.to_string())?;
        let started = Helper { child: Mutex::new(child), channel: Some(ours), state: Mutex::default() };
        started
            .answer()
            .map_err(|error| format!("libvdestack: {error} (it needs /dev/net/tun and user namespaces)"))?;
        Ok(started)
    }

    /// Makes, configures and deletes `count` stacks: what it took.
    pub(crate) fn create(&self, count: usize) -> io::Result<Duration> {
        let (nanos, _) = self.ask(&format!("c{count}"))?;
        Ok(Duration::from_nanos(nanos))
    }

    /// Makes `count` stacks: the memory of their processes in KiB.
    pub(crate) fn memory(&self, count: usize) -> io::Result<u64> {
        self.ask(&format!("m{count}")).map(|(kib, _)| kib)
    }

    pub(crate) fn prepare(&self, count: usize) -> io::Result<()> {
        let missing = count.saturating_sub(self.state().ready.len());
        for _ in 0..missing {
            let made = self.socket(libc::SOCK_STREAM)?;
            self.state().ready.push_back(made);
        }
        Ok(())
    }

    pub(crate) fn spent(&self) -> Duration {
        self.state().spent
    }

    pub(crate) fn listen(&self, addr: SocketAddr) -> io::Result<TcpListener> {
        let (fd, _) = self.socket(libc::SOCK_STREAM)?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        bind(fd.as_raw_fd(), &ipv4(addr)?)?;
        listen(&fd, Backlog::new(128)?)?;
        Ok(fd.into())
    }

    pub(crate) fn connect(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        let ready = {
            let mut state = self.state();
            let ready = state.ready.pop_front();
            state.spent += ready.as_ref().map_or(Duration::ZERO, |(_, cost)| *cost);
            ready
        };
        let (fd, _) = ready.map_or_else(|| self.socket(libc::SOCK_STREAM), Ok)?;
        connect(fd.as_raw_fd(), &ipv4(addr)?)?;
        Ok(fd.into())
    }

    pub(crate) fn udp(&self, addr: SocketAddr) -> io::Result<UdpSocket> {
        let (fd, _) = self.socket(libc::SOCK_DGRAM)?;
        bind(fd.as_raw_fd(), &ipv4(addr)?)?;
        Ok(fd.into())
    }

    fn socket(&self, kind: i32) -> io::Result<(OwnedFd, Duration)> {
        let (nanos, fd) = self.ask(&format!("s{kind}"))?;
        let fd = fd.ok_or_else(|| io::Error::other("libvdestack: an answer without its socket"))?;
        Ok((fd, Duration::from_nanos(nanos)))
    }

    fn ask(&self, request: &str) -> io::Result<(u64, Option<OwnedFd>)> {
        // One dialogue at a time.
        let _alone = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = &self.channel {
            send(channel.as_raw_fd(), request.as_bytes(), MsgFlags::MSG_NOSIGNAL)?;
        }
        self.answer()
    }

    fn answer(&self) -> io::Result<(u64, Option<OwnedFd>)> {
        let channel = self.channel.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let mut value = [0; 8];
        let (len, fd) = sys::recv_with_fd(channel.as_fd(), &mut value)?;
        if len != value.len() {
            return Err(io::Error::other("its process has ended"));
        }
        match i64::from_ne_bytes(value) {
            value @ 0.. => Ok((value as u64, fd)),
            errno => Err(io::Error::from_raw_os_error(-errno as i32)),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.channel.take());
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        end(child, Duration::from_secs(2));
    }
}

fn ipv4(addr: SocketAddr) -> io::Result<SockaddrIn> {
    match addr {
        SocketAddr::V4(addr) => Ok(SockaddrIn::from(SocketAddrV4::new(*addr.ip(), addr.port()))),
        SocketAddr::V6(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}
