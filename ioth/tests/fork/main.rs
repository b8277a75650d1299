//! fork(2): what a child may do with its parent's sockets, and what it may not (docs/posix.md, "The end of things").
//!
//! Each test forks while other threads are busy on the same nodes, so that locks are held in the child by threads
//! that are not there. A child that waits for one is found by its silence.

mod sys;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use ioth::net::{TcpListener, TcpStream, UdpSocket};
use ioth::{Domain, Events, MsgFlags, RecvMsg, SendMsg, Shutdown, SocketType, Stack, berkeley};
use ioth_kernel::calls;
use sys::child;

/// Long enough for any machine, and shorter than the time after which a child counts as hanging.
const LONG: Duration = Duration::from_secs(10);
const NONE: MsgFlags = MsgFlags::empty();

/// Two nodes on a LAN of the test's own, and their addresses.
fn nodes(lan: &str) -> (Stack, Stack) {
    let node =
        |host| Stack::new(&format!("stack=smoltcp,vnl=switch://{lan},eth,ip=10.7.0.{host}/24")).unwrap();
    (node(1), node(2))
}

/// A connection by descriptors, from the first to the second.
fn connected(a: &Stack, b: &Stack) -> (RawFd, RawFd) {
    let listener = berkeley::msocket(Some(b), libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
    berkeley::bind(listener, SocketAddr::from(([10, 7, 0, 2], 0))).unwrap();
    berkeley::listen(listener, 8).unwrap();
    let client = berkeley::msocket(Some(a), libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
    berkeley::connect(client, berkeley::getsockname(listener).unwrap()).unwrap();
    let (server, _) = berkeley::accept(listener).unwrap();
    berkeley::close(listener).unwrap();
    (client, server)
}

fn echo(client: RawFd, server: RawFd) {
    for (from, to) in [(client, server), (server, client)] {
        assert_eq!(berkeley::write(from, b"hello").unwrap(), 5);
        let mut buffer = [0; 8];
        assert_eq!(berkeley::read(to, &mut buffer).unwrap(), 5);
    }
}

/// Waits until poll(2) says so. A child of another test may hold a duplicate of anything for a moment.
#[track_caller]
fn wait_exactly(fd: RawFd, wanted: Events) {
    let deadline = Instant::now() + LONG;
    while events(fd) != wanted {
        assert!(Instant::now() < deadline, "{:?} and not {wanted:?}", events(fd));
        thread::yield_now();
    }
}

fn events(fd: RawFd) -> Events {
    calls::with_number(fd, |fd| Ok(calls::events(fd))).unwrap()
}

#[track_caller]
fn no_device<T>(result: std::io::Result<T>) {
    assert_eq!(result.err().expect("the node is the parent's").raw_os_error(), Some(libc::ENODEV));
}

/// Keeps the nodes' locks, the reactor, the table and the pools busy while it lives.
struct Busy {
    over: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Busy {
    fn new(a: &Stack, b: &Stack) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (client, server) = connected(a, b);
        let go = |work: Box<dyn Fn() + Send>| {
            let over = over.clone();
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    work();
                }
            })
        };
        let a = a.clone();
        let threads = vec![
            go(Box::new(move || echo(client, server))),
            go(Box::new(move || {
                let fd = berkeley::msocket(Some(&a), libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
                let to = SocketAddr::from(([10, 7, 0, 2], 9));
                let _ = berkeley::sendto(fd, b"x", MsgFlags::DONTWAIT, to);
                berkeley::close(fd).unwrap();
            })),
        ];
        Busy { over, threads }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

#[test]
fn the_node_is_the_parents() {
    let (a, b) = nodes("fork-parents");
    let (client, server) = connected(&a, &b);
    let udp = berkeley::msocket(Some(&a), libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
    let stream = TcpListener::bind_on(&b, "10.7.0.2:0").unwrap();
    let plain = a.socket(Domain::INET, SocketType::DGRAM, 0).unwrap();
    let _busy = Busy::new(&a, &b);
    for _ in 0..20 {
        child(|| {
            let mut buffer = [0; 8];
            for fd in [client, udp] {
                let to = SocketAddr::from(([10, 7, 0, 2], 9));
                no_device(berkeley::bind(fd, to));
                no_device(berkeley::connect(fd, to));
                no_device(berkeley::listen(fd, 1));
                no_device(berkeley::accept(fd));
                no_device(berkeley::getsockname(fd));
                no_device(berkeley::getpeername(fd));
                no_device(berkeley::shutdown(fd, libc::SHUT_RDWR));
                no_device(berkeley::read(fd, &mut buffer));
                no_device(berkeley::recvfrom(fd, &mut buffer, MsgFlags::WAITALL));
                no_device(berkeley::recvmmsg(fd, &mut [], NONE, None));
                no_device(berkeley::write(fd, b"x"));
                no_device(berkeley::sendto(fd, b"x", NONE, to));
                no_device(berkeley::getsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &mut [0; 16]));
                no_device(berkeley::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &[0; 16]));
                no_device(berkeley::ioctl(fd, libc::FIONREAD, &mut buffer));
            }
            no_device(stream.accept());
            no_device(TcpStream::connect_on(&a, "10.7.0.2:9"));
            no_device(plain.send(&SendMsg::new(&[]), NONE).map_err(Into::into));
            no_device(plain.recv(&mut RecvMsg::new(&mut []), NONE).map_err(Into::into));
            no_device(plain.shutdown(Shutdown::Both).map_err(Into::into));
            no_device(plain.set_nonblocking(true).map_err(Into::into));
            no_device(plain.release_fd().map_err(Into::into));
            no_device(plain.close().map_err(Into::into));
            // Who waits by events is not left waiting.
            assert!(plain.events().contains(Events::IN | Events::OUT | Events::ERR | Events::HUP));
            let waker = Waker::from(Arc::new(Nobody));
            assert!(matches!(plain.poll_ready(Events::IN, &waker), Poll::Ready(_)));
            assert_eq!(a.delete().unwrap_err().errno() as i32, libc::ENODEV);
            no_device(berkeley::msocket(Some(&a), libc::AF_INET, libc::SOCK_STREAM, 0));
            let _on = a.enter();
            no_device(berkeley::socket(libc::AF_INET, libc::SOCK_STREAM, 0));
        });
    }
    echo(client, server);
}

struct Nobody;

impl Wake for Nobody {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn descriptors_are_the_childs_too() {
    let (a, b) = nodes("fork-descriptors");
    let (client, server) = connected(&a, &b);
    let _busy = Busy::new(&a, &b);
    child(|| {
        // A descriptor can be polled, duplicated, closed: what the parent's calls do shows.
        assert_eq!(events(client), Events::OUT);
        let second = berkeley::dup(client).unwrap();
        assert_eq!(berkeley::dup2(client, second).unwrap(), second);
        assert_eq!(berkeley::fcntl(second, libc::F_GETFD, 0).unwrap(), 0);
        berkeley::close(client).unwrap();
        assert_eq!(berkeley::close(client).unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert_eq!(events(second), Events::OUT);
        berkeley::close(second).unwrap();
    });
    // What the child closed and dropped was its own.
    echo(client, server);
    // The last close counts, whichever process it is in.
    child(|| {
        berkeley::close(server).unwrap();
        // As a program ends, with what it has to do then.
        std::process::exit(0);
    });
    echo(client, server);
    berkeley::close(client).unwrap();
    assert_eq!(berkeley::read(server, &mut [0]).unwrap(), 0);
    berkeley::close(server).unwrap();
}

#[test]
fn what_the_child_drops_disturbs_nobody() {
    let (a, b) = nodes("fork-drops");
    let (client, server) = connected(&a, &b);
    let listener = TcpListener::bind_on(&b, "10.7.0.2:77").unwrap();
    let mut stream = TcpStream::connect_on(&a, "10.7.0.2:77").unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    let lonely = Stack::new("stack=smoltcp,vnl=switch://fork-drops,eth,ip=10.7.0.3/24").unwrap();
    let busy = Busy::new(&a, &b);
    {
        let mut all = Some((a.clone(), b.clone(), listener, stream, accepted, lonely));
        child(|| drop(all.take()));
        (_, _, _, stream, accepted, _) = all.take().unwrap();
    }
    drop(busy);
    echo(client, server);
    stream.write_all(b"still here").unwrap();
    let mut buffer = [0; 10];
    accepted.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"still here");
    drop(stream);
    assert_eq!(accepted.read(&mut buffer).unwrap(), 0);
}

#[test]
fn a_child_makes_nodes_of_its_own() {
    let (a, b) = nodes("fork-own");
    let (client, server) = connected(&a, &b);
    let _busy = Busy::new(&a, &b);
    for round in 0..10 {
        child(|| {
            // The LAN of this name is the parent's; the child's is another one, where the addresses are free.
            let (own_a, own_b) = nodes("fork-own");
            let (own_client, own_server) = connected(&own_a, &own_b);
            echo(own_client, own_server);
            no_device(berkeley::write(client, b"x"));
            // The child's reactor sees the last close, and fires the timer of what nobody answers.
            nix::unistd::close(own_client).unwrap();
            assert_eq!(berkeley::read(own_server, &mut [0]).unwrap(), 0);
            berkeley::close(own_server).unwrap();
            if round == 0 {
                let nobody = UdpSocket::bind_on(&own_a, "10.7.0.1:0").unwrap();
                nobody.send_to(b"x", "10.7.0.99:9").unwrap();
                drop(nobody);
                own_a.delete().unwrap();
                own_b.delete().unwrap();
            }
            // And so does a child of the child, of both.
            let (own_a, own_b) = nodes("fork-own-too");
            let (own_client, own_server) = connected(&own_a, &own_b);
            child(|| {
                no_device(berkeley::write(client, b"x"));
                no_device(berkeley::write(own_client, b"x"));
                let (own_a, own_b) = nodes("fork-own");
                let (own_client, own_server) = connected(&own_a, &own_b);
                echo(own_client, own_server);
            });
            echo(own_client, own_server);
        });
    }
    echo(client, server);
}

#[test]
fn the_kernels_stack_goes_on() {
    let (a, b) = nodes("fork-kernel");
    let kernel = Stack::newstack("kernel", None).unwrap();
    let listener = TcpListener::bind_on(&kernel, "127.0.0.1:0").unwrap();
    let fd = berkeley::msocket(Some(&kernel), libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
    berkeley::connect(fd, listener.local_addr().unwrap()).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    let _busy = Busy::new(&a, &b);
    child(|| {
        berkeley::write(fd, b"by descriptor").unwrap();
        let mut stream = TcpStream::connect_on(&kernel, listener.local_addr().unwrap()).unwrap();
        stream.write_all(b"by type").unwrap();
        let fresh = berkeley::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
        berkeley::close(fresh).unwrap();
        drop(accepted.try_clone());
        berkeley::close(fd).unwrap();
    });
    let mut buffer = [0; 13];
    accepted.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"by descriptor");
    let (mut second, _) = listener.accept().unwrap();
    let mut all = Vec::new();
    second.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"by type");
    berkeley::write(fd, b"parent").unwrap();
    accepted.read_exact(&mut buffer[..6]).unwrap();
    berkeley::close(fd).unwrap();
}

/// What a descriptor polls whose node, or whose connection, is no more.
const OVER: Events = Events::IN.union(Events::OUT).union(Events::RDHUP).union(Events::HUP).union(Events::ERR);

#[test]
fn a_descriptor_tells_that_its_process_has_ended() {
    let (mut report, mut tell) = std::io::pipe().unwrap();
    // The process with the nodes ends, and leaves the descriptor to a child of its own.
    child(|| {
        let (a, b) = nodes("fork-end");
        let (client, _server) = connected(&a, &b);
        let (mut parent, alive) = std::io::pipe().unwrap();
        if sys::forked() {
            drop(alive);
            assert_eq!(parent.read(&mut [0]).unwrap(), 0);
            wait_exactly(client, OVER);
            tell.write_all(b"seen").unwrap();
            sys::exit();
        }
        drop(parent);
        sys::exit();
    });
    drop(tell);
    let mut seen = String::new();
    report.read_to_string(&mut seen).unwrap();
    assert_eq!(seen, "seen");
}

#[test]
fn a_child_hides_no_error() {
    let (a, b) = nodes("fork-error");
    let listener = TcpListener::bind_on(&b, "10.7.0.2:78").unwrap();
    let client = berkeley::msocket(Some(&a), libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
    berkeley::connect(client, SocketAddr::from(([10, 7, 0, 2], 78))).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    berkeley::write(client, b"unread").unwrap();
    accepted.peek(&mut [0; 6]).unwrap();
    let ((mut is_reset, mut reset), (mut is_there, mut there)) =
        (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    thread::scope(|scope| {
        scope.spawn(|| {
            child(|| {
                there.write_all(b"x").unwrap();
                is_reset.read_exact(&mut [0]).unwrap();
                wait_exactly(client, OVER);
            })
        });
        is_there.read_exact(&mut [0]).unwrap();
        // Closed with something unread, which is a reset. The child has a copy of all, and lives.
        drop(accepted);
        wait_exactly(client, OVER);
        reset.write_all(b"x").unwrap();
    });
}

/// Schemes that the parent has registered are the child's as well, while other threads look them up and register more.
#[test]
fn registered_schemes() {
    let opener = || -> ioth::vde::schemes::Opener { Arc::new(|spec| spec.inner("null://")) };
    ioth::vde::register("forked", opener()).unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let busy = scope.spawn(|| {
            let mut number = 0;
            while !over.load(Ordering::Relaxed) && number < 10_000 {
                number += 1;
                ioth::vde::register(&format!("busy-{number}"), opener()).unwrap();
                assert!(ioth::vde::open("forked://").is_ok());
            }
        });
        for round in 0..20 {
            child(|| {
                assert!(ioth::vde::open("forked://").is_ok());
                assert_eq!(ioth::vde::register("forked", opener()).unwrap_err().errno(), ioth::Errno::EEXIST);
                ioth::vde::register(&format!("child-{round}"), opener()).unwrap();
                assert!(ioth::vde::open(&format!("rate://{{child-{round}://}}")).is_ok());
            });
            assert!(ioth::vde::open(&format!("child-{round}://")).is_err(), "the child's own");
        }
        over.store(true, Ordering::Relaxed);
        busy.join().unwrap();
    });
}
