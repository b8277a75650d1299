//! Two nodes that reach each other, and words for what the tests do with them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use ioth::{Events, MsgFlags, Stack, berkeley};
use ioth_kernel::calls;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::namespaces::{Namespace, vdestack_net};

pub(crate) const NONE: MsgFlags = MsgFlags::empty();

/// Far longer than anything takes, and short enough to wait for.
pub(crate) const LONG: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
pub(crate) enum Family {
    V4,
    V6,
}

/// Two nodes that reach each other; they may be the same.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) a: Stack,
    pub(crate) b: Stack,
    pub(crate) a_addr: IpAddr,
    pub(crate) b_addr: IpAddr,
    /// Whether descriptors are the kernel's sockets. Signal fds cannot show all that those do (docs/posix.md).
    pub(crate) native: bool,
    /// Where the sockets of a and of b are made, if not here.
    pub(crate) namespaces: Option<(Namespace, Namespace)>,
    /// What joins them, if that is here.
    pub(crate) _switch: Option<std::sync::Arc<dyn ioth::vde::Link>>,
}

/// The host, twice.
pub(crate) fn kernel(family: Family) -> Pair {
    let addr = match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    };
    let stack = || Stack::newstack("kernel", None).unwrap();
    Pair { a: stack(), b: stack(), a_addr: addr, b_addr: addr, native: true, namespaces: None, _switch: None }
}

/// Two user-space nodes on a switch of their own.
#[cfg(feature = "smoltcp")]
pub(crate) fn smoltcp(family: Family) -> Pair {
    on_a_switch("smoltcp", "vde0", family)
}

/// Two kernels' stacks on a switch of their own: for all tests the same, as the host is. While a stack is made its process has
/// duplicates of all descriptors for a moment, by which what a test closed could live on.
///
/// Needs [`privileged`](crate::namespaces::privileged).
pub(crate) fn vdestack(family: Family) -> Pair {
    static SHARED: [LazyLock<Pair>; 2] =
        [LazyLock::new(|| vdestack_net(Family::V4)), LazyLock::new(|| vdestack_net(Family::V6))];
    let Pair { a, b, a_addr, b_addr, .. } = &*SHARED[family as usize];
    Pair {
        a: a.clone(),
        b: b.clone(),
        a_addr: *a_addr,
        b_addr: *b_addr,
        native: true,
        namespaces: None,
        _switch: None,
    }
}

/// Two of its own, without further rights.
pub(crate) fn own_vdestack(family: Family) -> Pair {
    Pair { native: true, ..on_a_switch("vdestack", "eth0", family) }
}

fn on_a_switch(stack: &str, interface: &str, family: Family) -> Pair {
    static SWITCHES: AtomicU32 = AtomicU32::new(0);
    let switch = format!("socket-test-{}", SWITCHES.fetch_add(1, Ordering::Relaxed));
    let node = |host: &str| {
        let addr = match family {
            Family::V4 => format!("10.9.0.{host}/24"),
            Family::V6 => format!("fd09::{host}/64"),
        };
        let config = format!("stack={stack},vnl={interface}:switch://{switch},eth,ip={addr}");
        let stack = Stack::new(&config).unwrap_or_else(|error| panic!("{error}"));
        (stack, addr.split_once('/').unwrap().0.parse().unwrap())
    };
    let ((a, a_addr), (b, b_addr)) = (node("1"), node("2"));
    Pair { a, b, a_addr, b_addr, native: false, namespaces: None, _switch: None }
}

/// Fails instead of hanging when a call does not return.
pub(crate) fn bounded(test: impl FnOnce() + Send + 'static) {
    bounded_by(2 * LONG, test)
}

/// The same for a test that takes longer.
pub(crate) fn bounded_by(time: Duration, test: impl FnOnce() + Send + 'static) {
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        test();
        let _ = tell.send(());
    });
    match told.recv_timeout(time) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        _ => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}

/// A descriptor that is closed in the end.
#[derive(Debug)]
pub(crate) struct Fd(pub(crate) RawFd);

impl Drop for Fd {
    fn drop(&mut self) {
        let _ = berkeley::close(self.0);
    }
}

impl Pair {
    pub(crate) fn domain(&self) -> i32 {
        if self.a_addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }
    }

    pub(crate) fn wildcard(&self) -> IpAddr {
        match self.a_addr {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    /// Numbers from here on are taken by no other test that runs meanwhile, where `purpose` is the test's own.
    pub(crate) fn high_number(&self, purpose: i32) -> RawFd {
        let stack =
            ["kernel", "vdestack", "smoltcp", "node"].iter().position(|name| *name == self.a.backend());
        let stack = stack.expect("a backend of ours") as i32;
        500 + 100 * purpose + 12 * (2 * stack + i32::from(self.a_addr.is_ipv6()))
    }

    pub(crate) fn socket(&self, stack: &Stack, kind: i32) -> Fd {
        self.open(stack, self.domain(), kind, 0).unwrap()
    }

    /// A socket of any kind; `stack` is `a` or `b`.
    pub(crate) fn open(&self, stack: &Stack, domain: i32, kind: i32, protocol: i32) -> io::Result<Fd> {
        self.inside(stack, || berkeley::msocket(Some(stack), domain, kind, protocol)).map(Fd)
    }

    /// Does something where the sockets of `a` or `b` are made.
    pub(crate) fn inside<T>(&self, stack: &Stack, program: impl FnOnce() -> T) -> T {
        match &self.namespaces {
            Some((a, _)) if std::ptr::eq(stack, &self.a) => a.run(program),
            Some((_, b)) => b.run(program),
            None => program(),
        }
    }

    pub(crate) fn tcp_a(&self) -> Fd {
        self.socket(&self.a, libc::SOCK_STREAM)
    }

    pub(crate) fn tcp_b(&self) -> Fd {
        self.socket(&self.b, libc::SOCK_STREAM)
    }

    /// A UDP socket on a's address.
    pub(crate) fn udp_a(&self) -> (Fd, SocketAddr) {
        let fd = self.socket(&self.a, libc::SOCK_DGRAM);
        bind_any(&fd, self.a_addr)
    }

    /// A UDP socket on b's address.
    pub(crate) fn udp_b(&self) -> (Fd, SocketAddr) {
        let fd = self.socket(&self.b, libc::SOCK_DGRAM);
        bind_any(&fd, self.b_addr)
    }

    /// A listener on b's address.
    pub(crate) fn listener(&self) -> (Fd, SocketAddr) {
        let (fd, addr) = bind_any(&self.tcp_b(), self.b_addr);
        berkeley::listen(fd.0, 16).unwrap();
        (fd, addr)
    }

    /// A listener on b's address, and a socket that keeps its port from other tests when it is gone.
    pub(crate) fn guarded_listener(&self) -> (Fd, Fd, SocketAddr) {
        let shared = || {
            let fd = self.tcp_b();
            set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).unwrap();
            fd
        };
        let (guard, addr) = bind_any(&shared(), self.b_addr);
        let listener = shared();
        berkeley::bind(listener.0, addr).unwrap();
        berkeley::listen(listener.0, 16).unwrap();
        (listener, guard, addr)
    }

    /// An address of b's where nobody listens; it stays so while the descriptor is open.
    pub(crate) fn refusing(&self) -> (Fd, SocketAddr) {
        bind_any(&self.tcp_b(), self.b_addr)
    }

    /// A connection from a to b.
    pub(crate) fn connected(&self) -> (Fd, Fd) {
        let (listener, addr) = self.listener();
        let client = self.tcp_a();
        berkeley::connect(client.0, addr).unwrap();
        let (server, _) = berkeley::accept(listener.0).unwrap();
        (client, Fd(server))
    }
}

/// Binds to a port of the stack's choice.
pub(crate) fn bind_any(fd: &Fd, ip: IpAddr) -> (Fd, SocketAddr) {
    berkeley::bind(fd.0, SocketAddr::new(ip, 0)).unwrap();
    let own = Fd(berkeley::dup(fd.0).unwrap());
    let addr = name(&own);
    (own, addr)
}

pub(crate) fn name(fd: &Fd) -> SocketAddr {
    berkeley::getsockname(fd.0).unwrap().as_ip().unwrap()
}

pub(crate) fn peer(fd: &Fd) -> SocketAddr {
    berkeley::getpeername(fd.0).unwrap().as_ip().unwrap()
}

pub(crate) fn nonblocking(fd: &Fd, on: bool) {
    let flags = berkeley::fcntl(fd.0, libc::F_GETFL, 0).unwrap();
    let flags = if on { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
    berkeley::fcntl(fd.0, libc::F_SETFL, flags).unwrap();
}

/// The errno that a call failed with.
#[track_caller]
pub(crate) fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> i32 {
    result.expect_err("it should fail").raw_os_error().expect("an errno")
}

pub(crate) fn option(fd: &Fd, level: i32, name: i32) -> io::Result<i32> {
    let mut value = [0; 4];
    let len = berkeley::getsockopt(fd.0, level, name, &mut value)?;
    assert_eq!(len, 4);
    Ok(i32::from_ne_bytes(value))
}

pub(crate) fn set_option(fd: &Fd, level: i32, name: i32, value: i32) -> io::Result<()> {
    berkeley::setsockopt(fd.0, level, name, &value.to_ne_bytes())
}

pub(crate) fn so_error(fd: &Fd) -> i32 {
    option(fd, libc::SOL_SOCKET, libc::SO_ERROR).unwrap()
}

pub(crate) fn receive_timeout(fd: &Fd, timeout: Duration) {
    let seconds = timeout.as_secs() as libc::time_t;
    let micros = timeout.subsec_micros() as libc::suseconds_t;
    let value = [seconds.to_ne_bytes(), micros.to_ne_bytes()].concat();
    berkeley::setsockopt(fd.0, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &value).unwrap();
}

/// What poll(2) says of the descriptor now.
pub(crate) fn events(fd: &Fd) -> Events {
    calls::with_number(fd.0, |fd| Ok(calls::events(fd))).unwrap()
}

/// Waits until poll(2) says exactly `wanted` of the descriptor.
#[track_caller]
pub(crate) fn wait_exactly(fd: &Fd, wanted: Events) {
    wait_for(fd, wanted, |events| events == wanted);
}

/// Waits until poll(2) says `wanted`, and perhaps more, of the descriptor.
#[track_caller]
pub(crate) fn wait(fd: &Fd, wanted: Events) {
    wait_for(fd, wanted, |events| events.contains(wanted));
}

/// Waits until poll(2) says one of `wanted` of the descriptor.
#[track_caller]
pub(crate) fn wait_any(fd: &Fd, wanted: Events) {
    wait_for(fd, wanted, |events| events.intersects(wanted));
}

#[track_caller]
fn wait_for(fd: &Fd, wanted: Events, done: impl Fn(Events) -> bool) {
    let deadline = Instant::now() + LONG;
    let epoll = Edges::new(fd);
    while !done(events(fd)) {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "{:?} and not {wanted:?}", events(fd));
        epoll.wait(left);
    }
}

/// Waits for what no descriptor tells.
#[track_caller]
pub(crate) fn until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < deadline, "it does not come");
        thread::yield_now();
    }
}

/// An edge-triggered epoll(7) over one descriptor.
pub(crate) struct Edges(Epoll);

impl Edges {
    pub(crate) fn new(fd: &Fd) -> Self {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let all = EpollFlags::EPOLLET
            | EpollFlags::EPOLLIN
            | EpollFlags::EPOLLOUT
            | EpollFlags::EPOLLPRI
            | EpollFlags::EPOLLRDHUP;
        calls::with_number(fd.0, |fd| epoll.add(fd, EpollEvent::new(all, 0))).unwrap();
        Edges(epoll)
    }

    /// The bits of the next edge; none after `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) -> Events {
        let mut event = [EpollEvent::empty()];
        let timeout = EpollTimeout::try_from(timeout).unwrap();
        match self.0.wait(&mut event, timeout).unwrap() {
            0 => Events::empty(),
            _ => Events::from_bits_truncate(event[0].events().bits() as u32),
        }
    }
}

#[track_caller]
pub(crate) fn send_all(fd: &Fd, mut data: &[u8]) {
    while !data.is_empty() {
        data = &data[berkeley::write(fd.0, data).unwrap()..];
    }
}

/// Reads until `len` bytes are there or the stream ends.
#[track_caller]
pub(crate) fn read_some(fd: &Fd, len: usize) -> Vec<u8> {
    let mut all = vec![0; len];
    let mut at = 0;
    while at < len {
        match berkeley::read(fd.0, &mut all[at..]).unwrap() {
            0 => break,
            got => at += got,
        }
    }
    all.truncate(at);
    all
}

/// FIONREAD: bytes that wait to be read.
pub(crate) fn unread(fd: &Fd) -> usize {
    let mut value = [0; 4];
    berkeley::ioctl(fd.0, libc::FIONREAD as _, &mut value).unwrap();
    i32::from_ne_bytes(value) as usize
}
