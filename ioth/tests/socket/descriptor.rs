//! Descriptors: duplicates, flags, numbers used again.

use std::os::fd::{AsRawFd, IntoRawFd};

use ioth::Events;
use ioth::berkeley::*;
use ioth_kernel::calls;

use crate::fixture::*;

pub(crate) fn duplicates_share(pair: &Pair) {
    let (client, server) = pair.connected();
    let second = Fd(dup(client.0).unwrap());
    assert_ne!(second.0, client.0);
    send_all(&client, b"one");
    send_all(&second, b"two");
    assert_eq!(read_some(&server, 6), b"onetwo");
    // The connection ends with the last of them.
    drop(client);
    assert_eq!(events(&server), Events::OUT);
    send_all(&second, b"three");
    assert_eq!(read_some(&server, 5), b"three");
    send_all(&server, b"four");
    assert_eq!(read_some(&second, 4), b"four");
    drop(second);
    assert_eq!(read(server.0, &mut [0]).unwrap(), 0);
}

pub(crate) fn status_flags_are_shared(pair: &Pair) {
    let (client, _server) = pair.connected();
    let second = Fd(fcntl(client.0, libc::F_DUPFD_CLOEXEC, 100).unwrap());
    assert!(second.0 >= 100);
    assert_eq!(fcntl(second.0, libc::F_GETFD, 0).unwrap(), libc::FD_CLOEXEC);
    assert_eq!(fcntl(client.0, libc::F_GETFD, 0).unwrap(), 0);
    fcntl(client.0, libc::F_SETFD, libc::FD_CLOEXEC).unwrap();
    assert_eq!(fcntl(client.0, libc::F_GETFD, 0).unwrap(), libc::FD_CLOEXEC);
    nonblocking(&second, true);
    assert_ne!(fcntl(client.0, libc::F_GETFL, 0).unwrap() & libc::O_NONBLOCK, 0);
    assert_eq!(errno(read(client.0, &mut [0])), libc::EAGAIN);
}

pub(crate) fn creation_flags(pair: &Pair) {
    for (flags, cloexec, nonblock) in [
        (0, 0, 0),
        (libc::SOCK_CLOEXEC, libc::FD_CLOEXEC, 0),
        (libc::SOCK_NONBLOCK, 0, libc::O_NONBLOCK),
        (libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, libc::FD_CLOEXEC, libc::O_NONBLOCK),
    ] {
        let fd = pair.socket(&pair.a, libc::SOCK_DGRAM | flags);
        assert_eq!(fcntl(fd.0, libc::F_GETFD, 0).unwrap(), cloexec);
        assert_eq!(fcntl(fd.0, libc::F_GETFL, 0).unwrap() & libc::O_NONBLOCK, nonblock);
    }
}

pub(crate) fn accepted_flags(pair: &Pair) {
    let (listener, addr) = pair.listener();
    for (flags, cloexec, nonblock) in
        [(0, 0, 0), (libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, libc::FD_CLOEXEC, libc::O_NONBLOCK)]
    {
        let client = pair.tcp_a();
        connect(client.0, addr).unwrap();
        let server = Fd(accept4(listener.0, flags).unwrap().0);
        assert_eq!(fcntl(server.0, libc::F_GETFD, 0).unwrap(), cloexec);
        assert_eq!(fcntl(server.0, libc::F_GETFL, 0).unwrap() & libc::O_NONBLOCK, nonblock);
    }
    assert_eq!(errno(accept4(listener.0, 1)), libc::EINVAL);
}

pub(crate) fn native_duplicate(pair: &Pair) {
    let (client, server) = pair.connected();
    // Made by the system call, so nobody told the library.
    let second = calls::with_number(client.0, |fd| Ok(fd.try_clone_to_owned())).unwrap().unwrap();
    let second = Fd(second.into_raw_fd());
    drop(client);
    send_all(&second, b"still here");
    assert_eq!(read_some(&server, 10), b"still here");
    assert_eq!(events(&server), Events::OUT);
}

pub(crate) fn native_close(pair: &Pair) {
    let (client, server) = pair.connected();
    send_all(&client, b"last words");
    nix::unistd::close(client.0).unwrap();
    assert_eq!(read_some(&server, 100), b"last words");
    assert_eq!(read(server.0, &mut [0]).unwrap(), 0);
    std::mem::forget(client);
}

pub(crate) fn number_used_again(pair: &Pair) {
    let (client, server) = pair.connected();
    let second = Fd(dup(client.0).unwrap());
    // Another file takes the number while the connection lives on in a duplicate.
    let (unix, other_end) = std::os::unix::net::UnixStream::pair().unwrap();
    nix::unistd::write(&other_end, b"secret").unwrap();
    // High enough that no other test takes it meanwhile.
    let number = fcntl(client.0, libc::F_DUPFD, pair.high_number(0)).unwrap();
    drop(client);
    nix::unistd::close(number).unwrap();
    assert_eq!(fcntl_dup(&unix, number), number);
    assert_eq!(errno(read(number, &mut [0; 8])), libc::EBADF);
    assert_eq!(errno(write(number, b"x")), libc::EBADF);
    assert_eq!(errno(close(number)), libc::EBADF);
    let mut buffer = [0; 8];
    assert_eq!(nix::unistd::read(&unix, &mut buffer).unwrap(), 6);
    send_all(&second, b"untouched");
    assert_eq!(read_some(&server, 9), b"untouched");
    nix::unistd::close(number).unwrap();
}

fn fcntl_dup(file: &std::os::unix::net::UnixStream, least: i32) -> i32 {
    nix::fcntl::fcntl(file, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(least)).unwrap()
}

pub(crate) fn busy_until_closed(pair: &Pair) {
    // One of its own, where the tests share theirs.
    let stack = match pair.a.backend() {
        "vdestack" => ioth::Stack::newstack("vdestack", None).unwrap(),
        _ => pair.a.clone(),
    };
    let fd = pair.socket(&stack, libc::SOCK_STREAM);
    let second = Fd(dup(fd.0).unwrap());
    let busy = |stack: &ioth::Stack| stack.delete().map_err(|error| error.errno() as i32);
    assert_eq!(busy(&stack), Err(libc::EBUSY));
    drop(fd);
    assert_eq!(busy(&stack), Err(libc::EBUSY));
    drop(second);
    assert_eq!(busy(&stack), Ok(()));
    let after = msocket(Some(&stack), pair.domain(), libc::SOCK_STREAM, 0);
    assert_eq!(errno(after), libc::ENODEV);
}

pub(crate) fn closed_is_bad(pair: &Pair) {
    let fd = pair.tcp_a();
    // A number that no other test takes meanwhile.
    let high = fcntl(fd.0, libc::F_DUPFD, pair.high_number(1)).unwrap();
    close(high).unwrap();
    assert_eq!(errno(close(high)), libc::EBADF);
    assert_eq!(errno(read(high, &mut [0])), libc::EBADF);
    assert_eq!(errno(getsockname(high)), libc::EBADF);
    assert_eq!(errno(getsockname(-1)), libc::EBADF);
    let file = std::fs::File::open("/dev/null").unwrap();
    assert_eq!(errno(read(file.as_raw_fd(), &mut [0])), libc::EBADF);
    assert_eq!(errno(close(file.as_raw_fd())), libc::EBADF);
}

pub(crate) fn replaced(pair: &Pair) {
    let (client, server) = pair.connected();
    let (other, _) = pair.udp_a();
    // The number was the last one of its socket, which ends with that.
    let number = client.0;
    std::mem::forget(client);
    assert_eq!(dup2(other.0, number).unwrap(), number);
    assert_eq!(read(server.0, &mut [0]).unwrap(), 0);
    assert_eq!(name(&Fd(number)), name(&other));
    let high = pair.high_number(2);
    let third = Fd(dup3(other.0, high, libc::O_CLOEXEC).unwrap());
    assert_eq!((third.0, fcntl(high, libc::F_GETFD, 0).unwrap()), (high, libc::FD_CLOEXEC));
    let fourth = Fd(dup2(other.0, high + 1).unwrap());
    assert_eq!(fcntl(fourth.0, libc::F_GETFD, 0).unwrap(), 0);
    // A number is its own duplicate for dup2, and an error for dup3.
    assert_eq!(dup2(high, high).unwrap(), high);
    assert_eq!(fcntl(high, libc::F_GETFD, 0).unwrap(), libc::FD_CLOEXEC);
    assert_eq!(errno(dup3(high, high, 0)), libc::EINVAL);
    assert_eq!(errno(dup3(high, high + 1, libc::O_APPEND)), libc::EINVAL);
    assert_eq!(errno(dup2(high + 2, high)), libc::EBADF);
    assert_eq!(errno(dup2(high, -1)), libc::EBADF);
    assert_eq!(errno(dup2(high, i32::MAX)), libc::EBADF);
    assert_eq!(name(&third), name(&other));
}

pub(crate) fn owner(pair: &Pair) {
    let fd = pair.tcp_a();
    assert_eq!(fcntl(fd.0, libc::F_GETOWN, 0).unwrap(), 0);
    let process = std::process::id() as i32;
    fcntl(fd.0, libc::F_SETOWN, process).unwrap();
    assert_eq!(fcntl(fd.0, libc::F_GETOWN, 0).unwrap(), process);
    let group = nix::unistd::getpgrp().as_raw();
    fcntl(fd.0, libc::F_SETOWN, -group).unwrap();
    assert_eq!(fcntl(fd.0, libc::F_GETOWN, 0).unwrap(), -group);
    assert_eq!(errno(fcntl(fd.0, libc::F_SETOWN, i32::MAX)), libc::ESRCH);
    assert_eq!(errno(fcntl(fd.0, libc::F_GETPIPE_SZ, 0)), libc::EBADF);
    assert_eq!(errno(fcntl(fd.0, 9999, 0)), libc::EINVAL);
}
