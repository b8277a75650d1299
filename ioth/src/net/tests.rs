use std::future::Future;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::{TcpListener, TcpStream, UdpSocket};
use crate::{Stack, berkeley};

/// The smallest executor.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Arc::new(Unpark(thread::current())).into();
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => return done,
            Poll::Pending => thread::park(),
        }
    }
}

fn stack() -> Stack {
    Stack::newstack("kernel", None).unwrap()
}

fn pair(stack: &Stack) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind_on(stack, "127.0.0.1:0").unwrap();
    let client = TcpStream::connect_on(stack, listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

#[test]
fn tcp_as_std() {
    let (mut a, mut b) = pair(&stack());
    assert_eq!(a.local_addr().unwrap(), b.peer_addr().unwrap());
    a.write_all(b"hello").unwrap();
    let mut buffer = [0; 16];
    assert_eq!(b.peek(&mut buffer).unwrap(), 5);
    assert_eq!((&b).read(&mut buffer).unwrap(), 5);
    a.shutdown(Shutdown::Write).unwrap();
    assert_eq!(b.read(&mut buffer).unwrap(), 0);
    assert!(!a.nodelay().unwrap());
    a.set_nodelay(true).unwrap();
    assert!(a.nodelay().unwrap());
    a.set_ttl(7).unwrap();
    assert_eq!(a.ttl().unwrap(), 7);
    assert!(a.take_error().unwrap().is_none());
    b.set_nonblocking(true).unwrap();
    b.shutdown(Shutdown::Both).unwrap();
    assert_eq!(a.read(&mut buffer).unwrap(), 0);
}

#[test]
fn time_outs() {
    let (_a, mut b) = pair(&stack());
    assert_eq!(b.read_timeout().unwrap(), None);
    assert_eq!(b.set_read_timeout(Some(Duration::ZERO)).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    b.set_read_timeout(Some(Duration::from_millis(40))).unwrap();
    assert_eq!(b.read_timeout().unwrap(), Some(Duration::from_millis(40)));
    let start = Instant::now();
    assert_eq!(b.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert!(start.elapsed() >= Duration::from_millis(39));
    b.set_read_timeout(None).unwrap();
    assert_eq!(b.read_timeout().unwrap(), None);
    b.set_write_timeout(Some(Duration::from_millis(1500))).unwrap();
    assert_eq!(b.write_timeout().unwrap(), Some(Duration::from_millis(1500)));
}

#[test]
fn connect_timeout() {
    let stack = stack();
    let listener = TcpListener::bind_on(&stack, "[::1]:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let long = Duration::from_secs(10);
    assert_eq!(TcpStream::connect_timeout_on(&stack, &addr, long).unwrap().peer_addr().unwrap(), addr);
    drop(listener);
    let refused = TcpStream::connect_timeout_on(&stack, &addr, long).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    let zero = TcpStream::connect_timeout_on(&stack, &addr, Duration::ZERO).unwrap_err();
    assert_eq!(zero.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn a_full_backlog_times_out() {
    // Nobody accepts: beyond the backlog the kernel answers no SYN.
    let listener = berkeley::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0).unwrap();
    berkeley::bind(listener, std::net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    berkeley::listen(listener, 0).unwrap();
    let addr = berkeley::getsockname(listener).unwrap().as_ip().unwrap();
    let mut queued = Vec::new();
    let error = loop {
        match TcpStream::connect_timeout(&addr, Duration::from_millis(50)) {
            Ok(stream) => queued.push(stream),
            Err(error) => break error,
        }
        assert!(queued.len() < 8);
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    berkeley::close(listener).unwrap();
}

#[test]
fn udp_as_std() {
    let stack = stack();
    let a = UdpSocket::bind_on(&stack, "127.0.0.1:0").unwrap();
    let b = UdpSocket::bind_on(&stack, ("127.0.0.1", 0)).unwrap();
    a.send_to(b"one", b.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 2];
    assert_eq!(b.peek_from(&mut buffer).unwrap(), (2, a.local_addr().unwrap()));
    assert_eq!(b.recv_from(&mut buffer).unwrap(), (2, a.local_addr().unwrap()));
    b.connect(a.local_addr().unwrap()).unwrap();
    assert_eq!(b.peer_addr().unwrap(), a.local_addr().unwrap());
    a.connect(b.local_addr().unwrap()).unwrap();
    b.send(b"two").unwrap();
    let clone = a.try_clone().unwrap();
    drop(a);
    assert_eq!(clone.peek(&mut buffer).unwrap(), 2);
    assert_eq!(clone.recv(&mut buffer).unwrap(), 2);
    assert!(!clone.broadcast().unwrap());
    clone.set_broadcast(true).unwrap();
    assert!(clone.broadcast().unwrap());
    clone.set_nonblocking(true).unwrap();
    assert_eq!(clone.recv(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn multicast_membership() {
    let stack = stack();
    let v4 = UdpSocket::bind_on(&stack, "0.0.0.0:0").unwrap();
    let group = "239.1.2.3".parse().unwrap();
    v4.join_multicast_v4(&group, &[127, 0, 0, 1].into()).unwrap();
    v4.set_multicast_loop_v4(true).unwrap();
    v4.set_multicast_ttl_v4(3).unwrap();
    v4.leave_multicast_v4(&group, &[127, 0, 0, 1].into()).unwrap();
    let v6 = UdpSocket::bind_on(&stack, "[::]:0").unwrap();
    let group = "ff01::1234".parse().unwrap();
    v6.join_multicast_v6(&group, 1).unwrap();
    v6.set_multicast_loop_v6(false).unwrap();
    v6.leave_multicast_v6(&group, 1).unwrap();
}

#[test]
fn asynchronous() {
    let stack = stack();
    let listener = TcpListener::bind_on(&stack, "127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        block_on(async {
            let (stream, _) = listener.accept_async().await?;
            let mut buffer = [0; 64 << 10];
            loop {
                match stream.read_async(&mut buffer).await? {
                    0 => return io::Result::Ok(()),
                    len => stream.write_all_async(&buffer[..len]).await?,
                }
            }
        })
    });
    let stream = Arc::new(block_on(TcpStream::connect_async(&stack, addr)).unwrap());
    let sent: Vec<u8> = (0..4_000_000u32).map(|i| (i % 251) as u8).collect();
    // Reading and writing wait on the same socket in two tasks.
    let reader = thread::spawn({
        let stream = Arc::clone(&stream);
        move || {
            block_on(async {
                let mut all = Vec::new();
                let mut buffer = [0; 10_000];
                loop {
                    match stream.read_async(&mut buffer).await? {
                        0 => return io::Result::Ok(all),
                        len => all.extend_from_slice(&buffer[..len]),
                    }
                }
            })
        }
    });
    block_on(stream.write_all_async(&sent)).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(reader.join().unwrap().unwrap() == sent);
    server.join().unwrap().unwrap();
    drop(stream);
    let refused = block_on(TcpStream::connect_async(&stack, addr)).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn asynchronous_datagrams() {
    let stack = stack();
    let a = UdpSocket::bind_on(&stack, "[::1]:0").unwrap();
    let b = UdpSocket::bind_on(&stack, "[::1]:0").unwrap();
    let (addr_a, addr_b) = (a.local_addr().unwrap(), b.local_addr().unwrap());
    let echo = thread::spawn(move || {
        block_on(async {
            let mut buffer = [0; 100];
            let (len, from) = b.recv_from_async(&mut buffer).await?;
            b.send_to_async(&buffer[..len], from).await
        })
    });
    block_on(async {
        a.writable().await;
        a.connect(addr_b).unwrap();
        a.send_async(b"ping").await.unwrap();
        a.readable().await;
        let mut buffer = [0; 100];
        assert_eq!(a.recv_async(&mut buffer).await.unwrap(), 4);
    });
    assert_eq!(echo.join().unwrap().unwrap(), 4);
    assert_eq!(a.local_addr().unwrap(), addr_a);
}

#[test]
fn a_descriptor_when_asked_for() {
    use std::os::fd::AsRawFd;

    let stack = stack();
    let (a, mut b) = pair(&stack);
    a.set_nonblocking(true).unwrap();
    let clone = a.try_clone().unwrap();
    let fd = a.into_fd().unwrap();
    assert_eq!(clone.try_clone().unwrap().into_fd().unwrap_err().raw_os_error(), Some(libc::EEXIST));
    let flags = berkeley::fcntl(fd.as_raw_fd(), libc::F_GETFL, 0).unwrap();
    assert_ne!(flags & libc::O_NONBLOCK, 0);
    assert_eq!(berkeley::write(fd.as_raw_fd(), b"by fd").unwrap(), 5);
    (&clone).write_all(b" and by clone").unwrap();
    drop(clone);
    assert!(stack.delete().is_err());
    drop(fd);
    let mut all = String::new();
    b.read_to_string(&mut all).unwrap();
    assert_eq!(all, "by fd and by clone");
    drop(b);
    stack.delete().unwrap();
}

#[test]
fn incoming_is_endless() {
    let stack = stack();
    let listener = TcpListener::bind_on(&stack, "127.0.0.1:0").unwrap();
    let clients: Vec<_> =
        (0..3).map(|_| TcpStream::connect_on(&stack, listener.local_addr().unwrap()).unwrap()).collect();
    let accepted: Vec<_> = listener.incoming().take(3).map(Result::unwrap).collect();
    let mut of_clients: Vec<_> = clients.iter().map(|client| client.local_addr().unwrap()).collect();
    let mut of_accepted: Vec<_> = accepted.iter().map(|stream| stream.peer_addr().unwrap()).collect();
    of_clients.sort();
    of_accepted.sort();
    assert_eq!(of_clients, of_accepted);
}
