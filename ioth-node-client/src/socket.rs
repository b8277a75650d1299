//! A socket of a node process.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::{Poll, Waker};

use ioth_core::descriptor::{Descriptor, Open, set_nonblocking};
use ioth_core::{Errno, Events, MsgFlags, RecvMsg, Result, SendMsg, Shutdown, SockAddr, Socket};
use ioth_node_calls::calls::{self, SOCKADDR_MAX};
use ioth_node_calls::{Client, end, ioctl};
use ioth_node_proto::{EndName, Op, State};
use parking_lot::Mutex;

use crate::sys;

/// A socket whose stack is in a node process: the user's end of a pair.
///
/// It owns the descriptor until [`release_fd`](Socket::release_fd) hands it to the caller, as [`Descriptor`] says. The
/// descriptor polls as the socket does, and a stream's is read and written by plain system calls; the other calls are not
/// those of the pair, so it is not [`native`](Socket::native).
#[derive(Debug)]
pub struct NodeSocket {
    client: Client,
    fd: Descriptor,
    facts: Arc<Facts>,
}

/// What is known of a socket without asking, by whatever descriptor.
#[derive(Debug)]
struct Facts {
    name: EndName,
    /// To whom this process has connected a socket that carries messages: these come without a sender's address. A process
    /// that shares the socket and connects it anew makes this wrong.
    peer: Mutex<Peer>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    /// As connect(2) was told.
    asked: Option<SockAddr>,
    /// As getpeername(2) tells, once somebody wants to know.
    told: Option<SockAddr>,
}

impl NodeSocket {
    pub(crate) fn new(client: Client, fd: OwnedFd, open: Open) -> Result<Self> {
        let name = end::of(fd.as_raw_fd()).ok_or(Errno::ENETDOWN)?;
        let facts = Arc::new(Facts { name, peer: Mutex::default() });
        Ok(NodeSocket { client, fd: Descriptor::new(fd, open), facts })
    }

    fn with<T>(&self, call: impl FnOnce(BorrowedFd<'_>) -> Result<T>) -> Result<T> {
        self.fd.with(call)
    }

    fn address(&self, op: Op) -> Result<SockAddr> {
        let mut raw = [0; SOCKADDR_MAX];
        let len =
            self.with(|fd| calls::address_of(&self.client, fd.as_raw_fd(), op, &mut raw).map_err(errno))?;
        SockAddr::from_raw(&raw[..len])
    }

    /// Who sent a message that came without an address.
    fn sender(&self, fd: BorrowedFd<'_>) -> Option<SockAddr> {
        if self.facts.name.is_stream() || end::state(fd.as_raw_fd()) != State::Connected {
            return None;
        }
        let Peer { asked, told } = *self.facts.peer.lock();
        if told.is_some() {
            return told;
        }
        // Linux: a raw socket has no port, and without one getpeername(2) tells nothing.
        let told = self.peer_addr().ok().or(asked);
        self.facts.peer.lock().told = told;
        told
    }
}

impl Socket for NodeSocket {
    fn bind(&self, addr: &SockAddr) -> Result<()> {
        self.with(|fd| sys::bind(&self.client, fd, &addr.to_raw()))
    }

    fn connect(&self, addr: &SockAddr) -> Result<()> {
        let connected = self.with(|fd| sys::connect(&self.client, fd, &addr.to_raw()));
        if connected.is_ok() {
            *self.facts.peer.lock() = Peer { asked: Some(*addr), told: None };
        }
        connected
    }

    fn listen(&self, backlog: i32) -> Result<()> {
        self.with(|fd| calls::listen(&self.client, fd.as_raw_fd(), backlog).map(drop).map_err(errno))
    }

    fn accept(&self) -> Result<(Arc<dyn Socket>, SockAddr)> {
        let open = self.fd.open()?;
        let mut raw = [0; SOCKADDR_MAX];
        let (fd, len) = self.with(|fd| sys::accept(&self.client, fd, &mut raw))?;
        let addr = SockAddr::from_raw(&raw[..len]).unwrap_or_default();
        Ok((Arc::new(NodeSocket::new(self.client, fd, open)?), addr))
    }

    fn local_addr(&self) -> Result<SockAddr> {
        self.address(Op::LocalAddr)
    }

    fn peer_addr(&self) -> Result<SockAddr> {
        self.address(Op::PeerAddr)
    }

    fn send(&self, message: &SendMsg<'_>, flags: MsgFlags) -> Result<usize> {
        let raw = message.addr.map(SockAddr::to_raw);
        let flags = (flags | MsgFlags::NOSIGNAL).bits();
        let name = &self.facts.name;
        self.with(|fd| {
            sys::send(&self.client, fd, name, message.data, raw.as_deref(), message.control, flags)
        })
    }

    fn recv(&self, message: &mut RecvMsg<'_, '_>, flags: MsgFlags) -> Result<usize> {
        let got = self.with(|fd| {
            let name = &self.facts.name;
            let got =
                sys::receive(&self.client, fd, name, message.data, message.control, false, flags.bits())?;
            message.addr = match SockAddr::from_raw(&got.name[..got.name_len]) {
                Ok(addr) => Some(addr).filter(|addr| *addr != SockAddr::Unspecified),
                Err(_) => self.sender(fd),
            };
            Ok(got)
        })?;
        message.control_len = got.control_len;
        message.flags = MsgFlags::from_bits_retain(got.flags);
        Ok(got.len)
    }

    fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<()> {
        self.with(|fd| sys::set_option(&self.client, fd, level, name, value))
    }

    fn option(&self, level: i32, name: i32, value: &mut [u8]) -> Result<usize> {
        self.with(|fd| sys::option(&self.client, fd, level, name, value))
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        self.with(|fd| calls::shutdown(&self.client, fd.as_raw_fd(), how.as_raw()).map(drop).map_err(errno))
    }

    fn ioctl(&self, request: u64, argument: &mut [u8]) -> Result<i32> {
        self.with(|fd| {
            ioctl::request(&self.client, fd.as_raw_fd(), &self.facts.name, request, argument).map_err(errno)
        })
    }

    fn set_nonblocking(&self, nonblocking: bool) -> Result<()> {
        self.with(|fd| set_nonblocking(fd, nonblocking))
    }

    fn events(&self) -> Events {
        self.fd.events()
    }

    fn poll_ready(&self, interest: Events, waker: &Waker) -> Poll<Events> {
        self.fd.poll_ready(interest, waker)
    }

    fn release_fd(&self) -> Result<OwnedFd> {
        self.fd.release()
    }

    fn lives_in_descriptors(&self) -> bool {
        true
    }

    fn by_descriptor(&self, fd: BorrowedFd<'_>) -> Option<Arc<dyn Socket>> {
        let fd = self.fd.lent(fd.as_fd()).ok()?;
        Some(Arc::new(NodeSocket { client: self.client, fd, facts: Arc::clone(&self.facts) }))
    }

    fn close(&self) -> Result<()> {
        self.fd.close(|fd| {
            let _ = calls::shutdown(&self.client, fd.as_raw_fd(), libc::SHUT_RDWR);
        })
    }
}

/// An errno of the calls' own type.
fn errno(errno: ioth_node_calls::Errno) -> Errno {
    Errno::from_raw(errno.0)
}
