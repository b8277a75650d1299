//! What the types of this module have in common.

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use ioth_core::{Domain, Errno, Events, MsgFlags, RecvMsg, Result, SendMsg, SockAddr, Socket, SocketType};

use crate::Stack;
use crate::berkeley::publish;

/// A socket with the mode that is its descriptor's once there is one.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) socket: Arc<dyn Socket>,
    nonblocking: AtomicBool,
}

impl Inner {
    pub(super) fn new(socket: Arc<dyn Socket>) -> Arc<Self> {
        Arc::new(Inner { socket, nonblocking: AtomicBool::new(false) })
    }

    pub(super) fn create(stack: &Stack, addr: SocketAddr, kind: SocketType) -> io::Result<Arc<Self>> {
        let domain = if addr.is_ipv4() { Domain::INET } else { Domain::INET6 };
        Ok(Inner::new(stack.socket(domain, kind, 0)?))
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        ip(self.socket.local_addr()?)
    }

    pub(super) fn peer_addr(&self) -> io::Result<SocketAddr> {
        ip(self.socket.peer_addr()?)
    }

    pub(super) fn send(
        &self,
        data: &[IoSlice<'_>],
        addr: Option<SocketAddr>,
        flags: MsgFlags,
    ) -> io::Result<usize> {
        let addr = addr.map(SockAddr::from);
        let message = SendMsg { addr: addr.as_ref(), ..SendMsg::new(data) };
        Ok(self.socket.send(&message, flags | MsgFlags::NOSIGNAL)?)
    }

    pub(super) fn recv(&self, data: &mut [IoSliceMut<'_>], flags: MsgFlags) -> io::Result<usize> {
        Ok(self.socket.recv(&mut RecvMsg::new(data), flags)?)
    }

    pub(super) fn recv_from(&self, data: &mut [u8], flags: MsgFlags) -> io::Result<(usize, SocketAddr)> {
        let mut data = [IoSliceMut::new(data)];
        let mut message = RecvMsg::new(&mut data);
        let len = self.socket.recv(&mut message, flags)?;
        Ok((len, ip(message.addr.unwrap_or_default())?))
    }

    pub(super) fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.socket.set_nonblocking(nonblocking)?;
        self.nonblocking.store(nonblocking, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn set_option(&self, level: i32, name: i32, value: i32) -> io::Result<()> {
        Ok(self.socket.set_option(level, name, &value.to_ne_bytes())?)
    }

    pub(super) fn option(&self, level: i32, name: i32) -> io::Result<i32> {
        let mut value = [0; 4];
        self.socket.option(level, name, &mut value)?;
        Ok(i32::from_ne_bytes(value))
    }

    pub(super) fn take_error(&self) -> io::Result<Option<io::Error>> {
        let error = self.option(libc::SOL_SOCKET, libc::SO_ERROR)?;
        Ok((error != 0).then(|| io::Error::from_raw_os_error(error)))
    }

    /// `SO_RCVTIMEO` or `SO_SNDTIMEO`; `None` waits for ever.
    pub(super) fn set_timeout(&self, name: i32, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = match timeout {
            None => Duration::ZERO,
            Some(Duration::ZERO) => {
                let message = "a time-out of zero would wait for ever: pass None, or use set_nonblocking";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
            // Anything shorter than the option's unit would be zero.
            Some(timeout) => timeout.max(Duration::from_micros(1)),
        };
        let seconds = libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX);
        let micros = timeout.subsec_micros() as libc::suseconds_t;
        // struct timeval
        let value = [seconds.to_ne_bytes().as_slice(), &micros.to_ne_bytes()].concat();
        Ok(self.socket.set_option(libc::SOL_SOCKET, name, &value)?)
    }

    pub(super) fn timeout(&self, name: i32) -> io::Result<Option<Duration>> {
        const SECONDS: usize = size_of::<libc::time_t>();
        let mut value = [0; size_of::<libc::timeval>()];
        self.socket.option(libc::SOL_SOCKET, name, &mut value)?;
        let (seconds, micros) = value.split_at(SECONDS);
        let seconds = libc::time_t::from_ne_bytes(seconds.try_into().expect("split at its size"));
        let micros = micros.first_chunk().map_or(0, |micros| libc::suseconds_t::from_ne_bytes(*micros));
        let timeout =
            Duration::new(seconds.try_into().unwrap_or(0), u32::try_from(micros).unwrap_or(0) * 1000);
        Ok((!timeout.is_zero()).then_some(timeout))
    }

    /// The option for the time to live, which IPv6 calls hop limit.
    pub(super) fn ttl_option(&self) -> io::Result<(i32, i32)> {
        Ok(match self.local_addr()? {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TTL),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
        })
    }

    pub(super) fn into_fd(self: Arc<Self>) -> io::Result<OwnedFd> {
        let nonblocking = self.nonblocking.load(Ordering::Relaxed);
        let mut flags = libc::SOCK_CLOEXEC;
        if nonblocking {
            flags |= libc::SOCK_NONBLOCK;
        }
        Ok(publish(Arc::clone(&self.socket), flags)?)
    }

    /// Runs `call` until it has not to wait.
    pub(super) async fn when<T>(
        &self,
        interest: Events,
        mut call: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match call() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                done => return done,
            }
            poll_fn(|cx| self.poll(interest, cx)).await;
        }
    }

    pub(super) fn poll(&self, interest: Events, cx: &mut Context<'_>) -> Poll<()> {
        self.socket.poll_ready(interest, cx.waker()).map(drop)
    }

    /// How a connection that was under way turned out.
    pub(super) fn connected(&self) -> io::Result<()> {
        match self.take_error()? {
            Some(error) => Err(error),
            // As std: no error, but hung up as well.
            None if self.socket.peer_addr() == Err(Errno::ENOTCONN) => Err(Errno::ENOTCONN.into()),
            None => Ok(()),
        }
    }
}

pub(super) fn ip(addr: SockAddr) -> io::Result<SocketAddr> {
    addr.as_ip().ok_or_else(|| Errno::EAFNOSUPPORT.into())
}

/// Parks the thread until one of `interest`, or an error or end, holds; empty after the deadline.
pub(super) fn wait(socket: &dyn Socket, interest: Events, deadline: Option<Instant>) -> Events {
    struct Unpark {
        thread: Thread,
        told: AtomicBool,
    }

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.told.store(true, Ordering::Release);
            self.thread.unpark();
        }
    }

    let unpark = Arc::new(Unpark { thread: thread::current(), told: AtomicBool::new(false) });
    let waker = Waker::from(Arc::clone(&unpark));
    loop {
        if let Poll::Ready(events) = socket.poll_ready(interest, &waker) {
            return events;
        }
        while !unpark.told.swap(false, Ordering::Acquire) {
            match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => thread::park(),
                Some(Duration::ZERO) => return Events::empty(),
                Some(left) => thread::park_timeout(left),
            }
        }
    }
}

/// Connects and waits for the end of it, whatever signals come in between.
pub(super) fn connect(socket: &dyn Socket, addr: SocketAddr) -> Result<(), Option<Errno>> {
    match socket.connect(&addr.into()) {
        Ok(()) => Ok(()),
        // POSIX, connect(): an interrupted call goes on asynchronously.
        Err(Errno::EINTR) => Err(None),
        Err(error) => Err(Some(error)),
    }
}

/// The methods that all types have.
macro_rules! common_methods {
    ($kind:ident) => {
        impl $kind {
            /// The address of this end.
            ///
            /// # Errors
            /// As getsockname(2).
            pub fn local_addr(&self) -> io::Result<SocketAddr> {
                self.inner.local_addr()
            }

            /// Another handle of the same socket. The socket ends when the last one is dropped.
            ///
            /// # Errors
            /// None; the result is for likeness with `std`.
            pub fn try_clone(&self) -> io::Result<Self> {
                Ok($kind { inner: Arc::clone(&self.inner) })
            }

            /// Switches between waiting and failing with `WouldBlock`, for all clones.
            ///
            /// # Errors
            /// As fcntl(2).
            pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
                self.inner.set_nonblocking(nonblocking)
            }

            /// Takes the pending error (`SO_ERROR`).
            ///
            /// # Errors
            /// As getsockopt(2).
            pub fn take_error(&self) -> io::Result<Option<io::Error>> {
                self.inner.take_error()
            }

            /// Sets the time to live of packets, IPv6's hop limit.
            ///
            /// # Errors
            /// As setsockopt(2).
            pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
                let (level, name) = self.inner.ttl_option()?;
                self.inner.set_option(level, name, ttl.try_into().unwrap_or(i32::MAX))
            }

            /// The time to live of packets, IPv6's hop limit.
            ///
            /// # Errors
            /// As getsockopt(2).
            pub fn ttl(&self) -> io::Result<u32> {
                let (level, name) = self.inner.ttl_option()?;
                Ok(self.inner.option(level, name)?.try_into().unwrap_or(0))
            }

            /// Makes the socket's descriptor, close-on-exec, for poll(2) and the calls of
            /// [`berkeley`](crate::berkeley); O_NONBLOCK is as [`set_nonblocking`](Self::set_nonblocking) has it.
            ///
            /// From then on the socket lives as long as the descriptor or a duplicate of it. Clones of this value
            /// go on working meanwhile.
            ///
            /// # Errors
            /// `EMFILE`, `ENFILE`; `EEXIST` when a clone has made it already.
            pub fn into_fd(self) -> io::Result<OwnedFd> {
                self.inner.into_fd()
            }

            /// The socket itself, for options and calls that have no method here.
            pub fn as_socket(&self) -> &Arc<dyn Socket> {
                &self.inner.socket
            }

            /// Ready when reading (accepting) would not wait; else the task is woken when that may have changed.
            pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
                self.inner.poll(Events::IN, cx)
            }

            /// Waits until reading (accepting) would not wait.
            pub async fn readable(&self) {
                poll_fn(|cx| self.poll_read_ready(cx)).await;
            }
        }
    };
}

/// The methods of the types that carry data.
macro_rules! data_methods {
    ($kind:ident) => {
        impl $kind {
            /// The address of the other end.
            ///
            /// # Errors
            /// `ENOTCONN`.
            pub fn peer_addr(&self) -> io::Result<SocketAddr> {
                self.inner.peer_addr()
            }

            /// Bounds the waiting of reads, which then fail with `WouldBlock`; `None` lifts the bound.
            ///
            /// # Errors
            /// `InvalidInput` for a time-out of zero.
            pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                self.inner.set_timeout(libc::SO_RCVTIMEO, timeout)
            }

            /// Bounds the waiting of writes, which then fail with `WouldBlock`; `None` lifts the bound.
            ///
            /// # Errors
            /// `InvalidInput` for a time-out of zero.
            pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                self.inner.set_timeout(libc::SO_SNDTIMEO, timeout)
            }

            /// The bound on the waiting of reads.
            ///
            /// # Errors
            /// As getsockopt(2).
            pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
                self.inner.timeout(libc::SO_RCVTIMEO)
            }

            /// The bound on the waiting of writes.
            ///
            /// # Errors
            /// As getsockopt(2).
            pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
                self.inner.timeout(libc::SO_SNDTIMEO)
            }

            /// Ready when writing would not wait; else the task is woken when that may have changed.
            pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
                self.inner.poll(Events::OUT, cx)
            }

            /// Waits until writing would not wait.
            pub async fn writable(&self) {
                poll_fn(|cx| self.poll_write_ready(cx)).await;
            }
        }
    };
}

pub(super) use {common_methods, data_methods};
