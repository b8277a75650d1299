//! TCP.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::iter::FusedIterator;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ioth_core::{Errno, Events, MsgFlags, Socket, SocketType};

use super::addr::{ToSocketAddrs, first};
use super::common::{Inner, common_methods, connect, data_methods, ip, wait};
use crate::{Stack, get_defstack};

/// Connections that wait to be accepted, as `std` has it.
const BACKLOG: i32 = 128;

/// A TCP connection.
pub struct TcpStream {
    inner: Arc<Inner>,
}

impl TcpStream {
    /// Connects on the default stack of the thread, to the first of the addresses that answers.
    ///
    /// # Errors
    /// As connect(2), of the last address.
    pub fn connect(addrs: impl ToSocketAddrs) -> io::Result<Self> {
        TcpStream::connect_on(&get_defstack()?, addrs)
    }

    /// Connects on `stack`, to the first of the addresses that answers.
    ///
    /// # Errors
    /// As connect(2), of the last address.
    pub fn connect_on(stack: &Stack, addrs: impl ToSocketAddrs) -> io::Result<Self> {
        first(addrs, |addr| {
            let inner = Inner::create(stack, addr, SocketType::STREAM)?;
            match connect(&*inner.socket, addr) {
                Ok(()) => {}
                Err(Some(error)) => return Err(error.into()),
                Err(None) => {
                    wait(&*inner.socket, Events::OUT, None);
                    inner.connected()?;
                }
            }
            Ok(TcpStream { inner })
        })
    }

    /// Connects on the default stack of the thread, within `timeout`.
    ///
    /// # Errors
    /// As connect(2); `TimedOut`; `InvalidInput` for a time-out of zero.
    pub fn connect_timeout(addr: &SocketAddr, timeout: Duration) -> io::Result<Self> {
        TcpStream::connect_timeout_on(&get_defstack()?, addr, timeout)
    }

    /// Connects on `stack`, within `timeout`.
    ///
    /// # Errors
    /// As connect(2); `TimedOut`; `InvalidInput` for a time-out of zero.
    pub fn connect_timeout_on(stack: &Stack, addr: &SocketAddr, timeout: Duration) -> io::Result<Self> {
        if timeout.is_zero() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "nothing connects within a time-out of zero",
            ));
        }
        let deadline = Instant::now().checked_add(timeout);
        let inner = Inner::create(stack, *addr, SocketType::STREAM)?;
        inner.socket.set_nonblocking(true)?;
        match connect(&*inner.socket, *addr) {
            Ok(()) => {}
            Err(None | Some(Errno::EINPROGRESS)) => {
                if wait(&*inner.socket, Events::OUT, deadline).is_empty() {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "connection timed out"));
                }
                inner.connected()?;
            }
            Err(Some(error)) => return Err(error.into()),
        }
        inner.socket.set_nonblocking(false)?;
        Ok(TcpStream { inner })
    }

    /// Connects on `stack` without blocking the thread, to the first of the addresses that answers.
    ///
    /// # Errors
    /// As connect(2), of the last address.
    pub async fn connect_async(stack: &Stack, addrs: impl ToSocketAddrs) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "no address given");
        for addr in addrs.to_socket_addrs()? {
            match TcpStream::connect_one_async(stack, addr).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Ends one direction or both, as shutdown(2).
    ///
    /// # Errors
    /// `ENOTCONN`.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let how = match how {
            Shutdown::Read => ioth_core::Shutdown::Read,
            Shutdown::Write => ioth_core::Shutdown::Write,
            Shutdown::Both => ioth_core::Shutdown::Both,
        };
        Ok(self.inner.socket.shutdown(how)?)
    }

    /// Reads without taking the data from the queue.
    ///
    /// # Errors
    /// As recv(2).
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.recv(&mut [IoSliceMut::new(buffer)], MsgFlags::PEEK)
    }

    /// Switches Nagle's algorithm (RFC 1122 §4.2.3.4) off or on.
    ///
    /// # Errors
    /// As setsockopt(2).
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.inner.set_option(libc::IPPROTO_TCP, libc::TCP_NODELAY, nodelay.into())
    }

    /// Whether Nagle's algorithm is off.
    ///
    /// # Errors
    /// As getsockopt(2).
    pub fn nodelay(&self) -> io::Result<bool> {
        Ok(self.inner.option(libc::IPPROTO_TCP, libc::TCP_NODELAY)? != 0)
    }

    /// Reads without blocking the thread; 0 at the end of the stream.
    ///
    /// # Errors
    /// As recv(2), never `WouldBlock`.
    pub async fn read_async(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut read = || self.inner.recv(&mut [IoSliceMut::new(buffer)], MsgFlags::DONTWAIT);
        self.inner.when(Events::IN, &mut read).await
    }

    /// Writes a piece of `data` without blocking the thread.
    ///
    /// # Errors
    /// As send(2), never `WouldBlock`.
    pub async fn write_async(&self, data: &[u8]) -> io::Result<usize> {
        let write = || self.inner.send(&[IoSlice::new(data)], None, MsgFlags::DONTWAIT);
        self.inner.when(Events::OUT, write).await
    }

    /// Writes all of `data` without blocking the thread.
    ///
    /// # Errors
    /// As send(2), never `WouldBlock`; part of the data may have been sent then.
    pub async fn write_all_async(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            data = &data[self.write_async(data).await?..];
        }
        Ok(())
    }

    async fn connect_one_async(stack: &Stack, addr: SocketAddr) -> io::Result<Self> {
        let inner = Inner::create(stack, addr, SocketType::STREAM)?;
        inner.socket.set_nonblocking(true)?;
        match connect(&*inner.socket, addr) {
            Ok(()) => {}
            Err(None | Some(Errno::EINPROGRESS)) => {
                poll_fn(|cx| inner.poll(Events::OUT, cx)).await;
                inner.connected()?;
            }
            Err(Some(error)) => return Err(error.into()),
        }
        inner.socket.set_nonblocking(false)?;
        Ok(TcpStream { inner })
    }
}

common_methods!(TcpStream);
data_methods!(TcpStream);

impl Read for TcpStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }

    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(buffers)
    }
}

impl Read for &TcpStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.recv(&mut [IoSliceMut::new(buffer)], MsgFlags::empty())
    }

    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.inner.recv(buffers, MsgFlags::empty())
    }
}

impl Write for TcpStream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        (&*self).write(data)
    }

    fn write_vectored(&mut self, data: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for &TcpStream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.inner.send(&[IoSlice::new(data)], None, MsgFlags::empty())
    }

    fn write_vectored(&mut self, data: &[IoSlice<'_>]) -> io::Result<usize> {
        self.inner.send(data, None, MsgFlags::empty())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("TcpStream");
        if let (Ok(local), Ok(peer)) = (self.local_addr(), self.peer_addr()) {
            debug.field("local", &local).field("peer", &peer);
        }
        debug.finish_non_exhaustive()
    }
}

/// A TCP socket that accepts connections.
pub struct TcpListener {
    inner: Arc<Inner>,
}

impl TcpListener {
    /// Listens on the default stack of the thread, at the first of the addresses that can be had.
    ///
    /// # Errors
    /// As bind(2) and listen(2), of the last address.
    pub fn bind(addrs: impl ToSocketAddrs) -> io::Result<Self> {
        TcpListener::bind_on(&get_defstack()?, addrs)
    }

    /// Listens on `stack`, at the first of the addresses that can be had.
    ///
    /// # Errors
    /// As bind(2) and listen(2), of the last address.
    pub fn bind_on(stack: &Stack, addrs: impl ToSocketAddrs) -> io::Result<Self> {
        first(addrs, |addr| {
            let inner = Inner::create(stack, addr, SocketType::STREAM)?;
            // As std: connections in TIME_WAIT do not stand in the way of a new listener.
            inner.set_option(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
            inner.socket.bind(&addr.into())?;
            inner.socket.listen(BACKLOG)?;
            Ok(TcpListener { inner })
        })
    }

    /// Takes a connection.
    ///
    /// # Errors
    /// As accept(2).
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            match self.inner.socket.accept() {
                Err(Errno::EINTR) => {}
                accepted => {
                    let (socket, addr) = accepted?;
                    return Ok((TcpStream { inner: Inner::new(socket) }, ip(addr)?));
                }
            }
        }
    }

    /// Connections as they come; it never ends.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// Takes a connection without blocking the thread.
    ///
    /// It puts the listener in non-blocking mode for good, as another task may take the connection that this one
    /// was woken for.
    ///
    /// # Errors
    /// As accept(2), never `WouldBlock`.
    pub async fn accept_async(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.set_nonblocking(true)?;
        self.inner.when(Events::IN, || self.accept()).await
    }
}

common_methods!(TcpListener);

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("TcpListener");
        if let Ok(local) = self.local_addr() {
            debug.field("local", &local);
        }
        debug.finish_non_exhaustive()
    }
}

/// Iterator over the connections of a listener; made by [`TcpListener::incoming`].
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<io::Result<TcpStream>> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }
}

impl FusedIterator for Incoming<'_> {}
