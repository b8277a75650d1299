//! `AF_NETLINK` / `NETLINK_SOCK_DIAG`: the node's sockets, as ss(8) asks for them (sock_diag(7)).
//!
//! What programs hold is answered from the sessions: the inode is that of the program's end of the pair, which stands in
//! its /proc/PID/fd; the user is that of the node. The stack tells the rest, which no program has: handshakes that are under
//! way, connections that wait for accept(2), those that were closed and still deliver, and those in TIME-WAIT.

mod message;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::task::{Poll, Waker};

use ioth::core::Unheld;
use ioth::core::readiness::Readiness;
use ioth::{Errno, Events, MsgFlags, RecvMsg, SendMsg, Shutdown, SockAddr, Socket};
use parking_lot::Mutex;

use crate::node::Node;
use crate::session::Session;

pub use message::{Entry, answers};

type Result<T> = std::result::Result<T, Errno>;

/// A request at most, in bytes: Linux's default send buffer.
const MAX_REQUEST: usize = 212_992;
/// Answers that wait, in bytes; beyond, `ENOBUFS` tells that some were lost (netlink(7)).
const MAX_QUEUED: usize = 4 << 20;
/// Connections that no program holds in one answer, which then has room for them: those in TIME-WAIT may be many more.
const MAX_UNHELD: usize = 16_384;
/// net/tcp.h: TCP_CA_NAME_MAX
const CONGESTION_MAX: usize = 16;
/// linux/tcp_states.h
const ESTABLISHED: u8 = 1;
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;

/// A socket that tells of the others.
#[derive(Debug)]
pub(crate) struct Diag {
    node: Weak<Node>,
    readiness: Readiness,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    port: u32,
    queue: VecDeque<Vec<u8>>,
    overrun: bool,
}

impl Diag {
    pub(crate) fn new(node: &Arc<Node>) -> Self {
        Diag { node: Arc::downgrade(node), readiness: Readiness::new(Events::OUT), inner: Mutex::default() }
    }

    fn show(&self, inner: &Inner) {
        let mut events = Events::OUT;
        events.set(Events::IN, !inner.queue.is_empty());
        events.set(Events::ERR, inner.overrun);
        // Whoever waits is given a turn later, and takes no lock here.
        if self.readiness.set(events) {
            self.readiness.notify();
        }
    }
}

/// The netlink port of a socket: Linux gives the process's number, which is not known here.
fn chosen_port(wanted: u32) -> u32 {
    if wanted == 0 { std::process::id() } else { wanted }
}

impl Socket for Diag {
    fn bind(&self, addr: &SockAddr) -> Result<()> {
        let SockAddr::Netlink { port, .. } = *addr else { return Err(Errno::EINVAL) };
        self.inner.lock().port = chosen_port(port);
        Ok(())
    }

    fn connect(&self, addr: &SockAddr) -> Result<()> {
        match addr {
            SockAddr::Unspecified | SockAddr::Netlink { port: 0, .. } => Ok(()),
            SockAddr::Netlink { .. } => Err(Errno::ECONNREFUSED),
            _ => Err(Errno::EINVAL),
        }
    }

    fn listen(&self, _: i32) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn accept(&self) -> Result<(Arc<dyn Socket>, SockAddr)> {
        Err(Errno::EOPNOTSUPP)
    }

    fn local_addr(&self) -> Result<SockAddr> {
        Ok(SockAddr::Netlink { port: self.inner.lock().port, groups: 0 })
    }

    fn peer_addr(&self) -> Result<SockAddr> {
        Ok(SockAddr::Netlink { port: 0, groups: 0 })
    }

    fn send(&self, message: &SendMsg<'_>, _: MsgFlags) -> Result<usize> {
        match message.addr {
            None | Some(SockAddr::Netlink { port: 0, .. }) => {}
            Some(SockAddr::Netlink { .. }) => return Err(Errno::ECONNREFUSED),
            Some(_) => return Err(Errno::EINVAL),
        }
        if message.len() > MAX_REQUEST {
            return Err(Errno::EMSGSIZE);
        }
        let request: Vec<u8> = message.data.iter().flat_map(|slice| slice.iter().copied()).collect();
        let node = self.node.upgrade().ok_or(Errno::EBADF)?;
        let mut entries: Vec<_> = node.all().iter().filter_map(|session| entry(session)).collect();
        entries.extend(node.stack.as_backend().unheld(MAX_UNHELD).iter().map(unheld));
        let mut inner = self.inner.lock();
        inner.port = chosen_port(inner.port);
        for answer in answers(&request, inner.port, &entries) {
            let queued: usize = inner.queue.iter().map(Vec::len).sum();
            match queued + answer.len() > MAX_QUEUED {
                true => inner.overrun = true,
                false => inner.queue.push_back(answer),
            }
        }
        self.show(&inner);
        Ok(request.len())
    }

    fn recv(&self, message: &mut RecvMsg<'_, '_>, flags: MsgFlags) -> Result<usize> {
        let mut inner = self.inner.lock();
        if std::mem::take(&mut inner.overrun) {
            self.show(&inner);
            return Err(Errno::ENOBUFS);
        }
        let answer = inner.queue.front().ok_or(Errno::EAGAIN)?;
        let (len, mut rest) = (answer.len(), &answer[..]);
        for slice in message.data.iter_mut() {
            let (copied, left) = rest.split_at(rest.len().min(slice.len()));
            slice[..copied.len()].copy_from_slice(copied);
            rest = left;
        }
        let copied = len - rest.len();
        if copied < len {
            message.flags |= MsgFlags::TRUNC;
        }
        message.addr = Some(SockAddr::Netlink { port: 0, groups: 0 });
        if !flags.contains(MsgFlags::PEEK) {
            inner.queue.pop_front();
            self.show(&inner);
        }
        Ok(if flags.contains(MsgFlags::TRUNC) { len } else { copied })
    }

    fn set_option(&self, level: i32, _: i32, _: &[u8]) -> Result<()> {
        match level {
            // Buffers and extended answers, without which it does as well.
            libc::SOL_SOCKET | libc::SOL_NETLINK => Ok(()),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn option(&self, level: i32, name: i32, value: &mut [u8]) -> Result<usize> {
        let number = match (level, name) {
            (libc::SOL_SOCKET, libc::SO_PROTOCOL) => libc::NETLINK_SOCK_DIAG,
            (libc::SOL_SOCKET, libc::SO_ERROR) => 0,
            (libc::SOL_SOCKET, libc::SO_SNDBUF | libc::SO_RCVBUF) => MAX_REQUEST as i32,
            _ => return Err(Errno::ENOPROTOOPT),
        };
        let len = value.len().min(size_of::<i32>());
        value[..len].copy_from_slice(&number.to_ne_bytes()[..len]);
        Ok(len)
    }

    fn shutdown(&self, _: Shutdown) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn ioctl(&self, _: u64, _: &mut [u8]) -> Result<i32> {
        Err(Errno::ENOTTY)
    }

    fn set_nonblocking(&self, _: bool) -> Result<()> {
        Ok(())
    }

    fn events(&self) -> Events {
        self.readiness.events()
    }

    fn poll_ready(&self, interest: Events, waker: &Waker) -> Poll<Events> {
        self.readiness.poll_ready(interest, waker)
    }

    fn release_fd(&self) -> Result<OwnedFd> {
        // Its descriptor is the program's end of a pair.
        Err(Errno::EOPNOTSUPP)
    }

    fn close(&self) -> Result<()> {
        self.inner.lock().queue.clear();
        Ok(())
    }
}

/// A session as sock_diag(7) shows it. What has no address yet is in no table of Linux's.
fn entry(session: &Session) -> Option<Entry> {
    let socket = &*session.socket;
    let family = i32::from(session.name.domain);
    if ![libc::AF_INET, libc::AF_INET6].contains(&family) {
        return None;
    }
    let none = match family {
        libc::AF_INET => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        _ => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let mut local = socket.local_addr().ok()?.as_ip()?;
    let peer = socket.peer_addr().ok().and_then(|addr| addr.as_ip());
    let mut info = Vec::new();
    let (protocol, state) = match i32::from(session.name.kind) {
        libc::SOCK_STREAM => {
            info.resize(256, 0);
            let len = socket.option(libc::IPPROTO_TCP, libc::TCP_INFO, &mut info).ok()?;
            info.truncate(len);
            let state = *info.first()?;
            // Bound or over: no table of Linux's that ss(8) asks for has it.
            if state == CLOSE {
                return None;
            }
            (libc::IPPROTO_TCP, state)
        }
        libc::SOCK_DGRAM if local.port() != 0 && is_udp(session.name.protocol) => {
            (session.name.protocol.into(), if peer.is_some() { ESTABLISHED } else { CLOSE })
        }
        libc::SOCK_RAW => {
            local.set_port(session.name.protocol);
            (libc::IPPROTO_RAW, if peer.is_some() { ESTABLISHED } else { CLOSE })
        }
        _ => return None,
    };
    let number = |level, name| {
        let mut value = [0; 4];
        socket.option(level, name, &mut value).map_or(0, |_| u32::from_ne_bytes(value))
    };
    let waiting = |request| {
        let mut count = [0; 4];
        socket.ioctl(request, &mut count).map_or(0, |_| u32::from_ne_bytes(count))
    };
    // tcpi_unacked, tcpi_sacked: of a listener its queue and its backlog.
    let word = |at: usize| {
        info.get(at..at + 4).map_or(0, |word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
    };
    let (unread, unsent) = match state {
        LISTEN => (word(24), word(28)),
        _ => (waiting(libc::FIONREAD), waiting(libc::TIOCOUTQ)),
    };
    let mut congestion = vec![0; CONGESTION_MAX];
    let len = match protocol {
        libc::IPPROTO_TCP => {
            socket.option(libc::IPPROTO_TCP, libc::TCP_CONGESTION, &mut congestion).unwrap_or(0)
        }
        _ => 0,
    };
    congestion.truncate(len);
    // The kernel's name ends with a NUL, and with no more than one.
    let name = congestion.iter().position(|byte| *byte == 0).unwrap_or(len);
    congestion.truncate(name);
    if name > 0 {
        congestion.push(0);
    }
    Some(Entry {
        family: family as u8,
        protocol: protocol as u8,
        state,
        local,
        peer: peer.unwrap_or(SocketAddr::new(none, 0)),
        device: number(libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX),
        unread,
        unsent,
        cookie: session.name.socket,
        only_ipv6: family == libc::AF_INET6 && number(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY) != 0,
        info,
        user: session.owner.user,
        inode: session.owner.inode,
        buffers: [libc::SO_RCVBUF, libc::SO_SNDBUF].map(|name| number(libc::SOL_SOCKET, name)),
        congestion,
        remaining: None,
    })
}

/// A connection that no program holds: neither user nor inode.
fn unheld(conn: &Unheld) -> Entry {
    // The same at each answer, and like none of a session, whose numbers are counted from 1.
    let mut hasher = DefaultHasher::new();
    (conn.local, conn.peer, conn.device).hash(&mut hasher);
    let word = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Entry {
        family: conn.domain.0 as u8,
        protocol: libc::IPPROTO_TCP as u8,
        state: conn.state,
        local: conn.local,
        peer: conn.peer,
        device: conn.device,
        unread: word(conn.unread),
        unsent: word(conn.unsent),
        cookie: hasher.finish() | 1 << 63,
        only_ipv6: false,
        info: Vec::new(),
        user: 0,
        inode: 0,
        buffers: [0, 0],
        congestion: Vec::new(),
        remaining: conn.remaining,
    }
}

fn is_udp(protocol: u16) -> bool {
    [libc::IPPROTO_UDP, libc::IPPROTO_UDPLITE].contains(&protocol.into())
}
