//! One end: a node of any kind, and its sockets.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use ioth::Stack;
use ioth::net as ours;

use crate::peers::netns::Netns;
use crate::peers::vdestack::Helper;

/// A node of one of the contenders.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    /// One of our stacks.
    Ours(Stack),
    /// The kernel, in the namespace of the process.
    Host,
    /// The kernel, in a namespace of its own.
    Netns(Arc<Netns>),
    /// The kernel, in a namespace behind the C library, whose process makes the sockets.
    Vdestack(Arc<Helper>),
}

impl Node {
    /// Puts the calling thread where the node's sockets are made.
    pub(crate) fn enter(&self) -> io::Result<()> {
        match self {
            Node::Netns(netns) => netns.enter(),
            _ => Ok(()),
        }
    }

    pub(crate) fn listen(&self, addr: SocketAddr) -> io::Result<Listener> {
        match self {
            Node::Ours(stack) => ours::TcpListener::bind_on(stack, addr).map(Listener::Ours),
            Node::Host | Node::Netns(_) => TcpListener::bind(addr).map(Listener::Kernel),
            Node::Vdestack(helper) => helper.listen(addr).map(Listener::Kernel),
        }
    }

    pub(crate) fn connect(&self, addr: SocketAddr) -> io::Result<Tcp> {
        match self {
            Node::Ours(stack) => ours::TcpStream::connect_on(stack, addr).map(Tcp::Ours),
            Node::Host | Node::Netns(_) => TcpStream::connect(addr).map(Tcp::Kernel),
            Node::Vdestack(helper) => helper.connect(addr).map(Tcp::Kernel),
        }
    }

    pub(crate) fn udp(&self, addr: SocketAddr) -> io::Result<Udp> {
        match self {
            Node::Ours(stack) => ours::UdpSocket::bind_on(stack, addr).map(Udp::Ours),
            Node::Host | Node::Netns(_) => UdpSocket::bind(addr).map(Udp::Kernel),
            Node::Vdestack(helper) => helper.udp(addr).map(Udp::Kernel),
        }
    }

    /// Has `count` sockets ready for [`connect`](Self::connect), where they come from another process.
    pub(crate) fn prepare_streams(&self, count: usize) -> io::Result<()> {
        match self {
            Node::Vdestack(helper) => helper.prepare(count),
            _ => Ok(()),
        }
    }

    /// What the sockets used up so far took to make, in that other process.
    pub(crate) fn socket_cost(&self) -> Duration {
        match self {
            Node::Vdestack(helper) => helper.spent(),
            _ => Duration::ZERO,
        }
    }
}

pub(crate) enum Listener {
    Ours(ours::TcpListener),
    Kernel(TcpListener),
}

impl Listener {
    pub(crate) fn accept(&self) -> io::Result<Tcp> {
        match self {
            Listener::Ours(listener) => listener.accept().map(|(stream, _)| Tcp::Ours(stream)),
            Listener::Kernel(listener) => listener.accept().map(|(stream, _)| Tcp::Kernel(stream)),
        }
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Listener::Ours(listener) => listener.local_addr(),
            Listener::Kernel(listener) => listener.local_addr(),
        }
    }
}

pub(crate) enum Tcp {
    Ours(ours::TcpStream),
    Kernel(TcpStream),
}

impl Tcp {
    pub(crate) fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Tcp::Ours(stream) => stream.set_nodelay(true),
            Tcp::Kernel(stream) => stream.set_nodelay(true),
        }
    }

    pub(crate) fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Tcp::Ours(stream) => stream.set_read_timeout(Some(timeout)),
            Tcp::Kernel(stream) => stream.set_read_timeout(Some(timeout)),
        }
    }

    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Tcp::Ours(stream) => stream.shutdown(Shutdown::Write),
            Tcp::Kernel(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}

impl Read for Tcp {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Tcp::Ours(stream) => stream.read(buffer),
            Tcp::Kernel(stream) => stream.read(buffer),
        }
    }
}

impl Write for Tcp {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Tcp::Ours(stream) => stream.write(data),
            Tcp::Kernel(stream) => stream.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) enum Udp {
    Ours(ours::UdpSocket),
    Kernel(UdpSocket),
}

impl Udp {
    pub(crate) fn connect(&self, addr: SocketAddr) -> io::Result<()> {
        match self {
            Udp::Ours(socket) => socket.connect(addr),
            Udp::Kernel(socket) => socket.connect(addr),
        }
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Udp::Ours(socket) => socket.local_addr(),
            Udp::Kernel(socket) => socket.local_addr(),
        }
    }

    pub(crate) fn send(&self, data: &[u8]) -> io::Result<usize> {
        match self {
            Udp::Ours(socket) => socket.send(data),
            Udp::Kernel(socket) => socket.send(data),
        }
    }

    pub(crate) fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Udp::Ours(socket) => socket.recv(buffer),
            Udp::Kernel(socket) => socket.recv(buffer),
        }
    }

    pub(crate) fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Udp::Ours(socket) => socket.set_read_timeout(Some(timeout)),
            Udp::Kernel(socket) => socket.set_read_timeout(Some(timeout)),
        }
    }
}
