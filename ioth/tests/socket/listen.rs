//! Listeners: their queue, its order, and who shares a port.

use std::net::SocketAddr;

use ioth::Events;
use ioth::berkeley::*;

use crate::fixture::*;

pub(crate) fn backlog_of_nothing(pair: &Pair) {
    let (listener, addr) = bind_any(&pair.tcp_b(), pair.b_addr);
    listen(listener.0, 0).unwrap();
    let first = pair.tcp_a();
    connect(first.0, addr).unwrap();
    wait(&listener, Events::IN);
    // One more than the backlog fits; who comes then waits.
    let second = pair.socket(&pair.a, libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
    assert_eq!(errno(connect(second.0, addr)), libc::EINPROGRESS);
    assert_eq!(errno(connect(second.0, addr)), libc::EALREADY);
    assert_eq!(events(&second), Events::empty());
    assert_eq!(errno(getpeername(second.0)), libc::ENOTCONN);
    let server = Fd(accept(listener.0).unwrap().0);
    assert_eq!(peer(&server), name(&first));
    wait_exactly(&second, Events::OUT);
    let server = Fd(accept(listener.0).unwrap().0);
    assert_eq!(peer(&server), name(&second));
}

pub(crate) fn another_backlog(pair: &Pair) {
    let (listener, addr) = bind_any(&pair.tcp_b(), pair.b_addr);
    listen(listener.0, 0).unwrap();
    listen(listener.0, 2).unwrap();
    let clients = [(); 3].map(|()| pair.tcp_a());
    for client in &clients {
        connect(client.0, addr).unwrap();
    }
    for client in &clients {
        assert_eq!(
            accept(listener.0).map(|(fd, from)| (Fd(fd), from)).unwrap().1.as_ip(),
            Some(name(client))
        );
    }
    listen(listener.0, -1).unwrap();
    connect(pair.tcp_a().0, addr).unwrap();
}

pub(crate) fn shut_down(pair: &Pair) {
    let (listener, _guard, addr) = pair.guarded_listener();
    let client = pair.tcp_a();
    connect(client.0, addr).unwrap();
    wait(&listener, Events::IN);
    // For writing it means nothing.
    shutdown(listener.0, libc::SHUT_WR).unwrap();
    assert_eq!(events(&listener), Events::IN);
    shutdown(listener.0, libc::SHUT_RD).unwrap();
    assert_eq!(errno(accept(listener.0)), libc::EINVAL);
    assert_eq!(option(&listener, libc::SOL_SOCKET, libc::SO_ACCEPTCONN).unwrap(), 0);
    assert_eq!(name(&listener), addr);
    assert_eq!(errno(read(client.0, &mut [0])), libc::ECONNRESET);
    assert_eq!(errno(connect(pair.tcp_a().0, addr)), libc::ECONNREFUSED);
    assert_eq!(errno(shutdown(listener.0, libc::SHUT_RD)), libc::ENOTCONN);
}

pub(crate) fn shut_down_and_opened_again(pair: &Pair) {
    let (free, addr) = bind_any(&pair.tcp_b(), pair.b_addr);
    drop(free);
    let listener = pair.tcp_b();
    bind(listener.0, addr).unwrap();
    listen(listener.0, 1).unwrap();
    shutdown(listener.0, libc::SHUT_RDWR).unwrap();
    // bind(2) was given the port: it is still the socket's.
    assert_eq!(errno(bind(pair.tcp_b().0, addr)), libc::EADDRINUSE);
    listen(listener.0, 1).unwrap();
    connect(pair.tcp_a().0, addr).unwrap();
    wait_exactly(&listener, Events::IN);
}

pub(crate) fn shutting_down_ends_a_waiting_accept(pair: &Pair) {
    let (listener, _) = pair.listener();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| errno(accept(listener.0)));
        // Whether it waits already or not.
        std::thread::yield_now();
        shutdown(listener.0, libc::SHUT_RD).unwrap();
        assert_eq!(waiting.join().unwrap(), libc::EINVAL);
    });
}

pub(crate) fn a_reset_one_is_accepted(pair: &Pair) {
    let (listener, addr) = pair.listener();
    let client = pair.tcp_a();
    connect(client.0, addr).unwrap();
    let from = name(&client);
    wait(&listener, Events::IN);
    let linger = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
    setsockopt(client.0, libc::SOL_SOCKET, libc::SO_LINGER, &linger).unwrap();
    drop(client);
    let (server, peer) = accept(listener.0).unwrap();
    let server = Fd(server);
    assert_eq!(peer.as_ip(), Some(from));
    wait(&server, Events::HUP);
    assert_eq!(errno(read(server.0, &mut [0])), libc::ECONNRESET);
    assert_eq!(events(&listener), Events::empty());
}

pub(crate) fn a_finished_one_is_accepted(pair: &Pair) {
    let (listener, addr) = pair.listener();
    let client = pair.tcp_a();
    connect(client.0, addr).unwrap();
    send_all(&client, b"all there is");
    drop(client);
    let server = Fd(accept(listener.0).unwrap().0);
    assert_eq!(read_some(&server, 99), b"all there is");
    assert_eq!(read(server.0, &mut [0]).unwrap(), 0);
}

pub(crate) fn a_shared_port_is_balanced(pair: &Pair) {
    let ([first, second], addr) = sharing(pair);
    assert_eq!(errno(bind(pair.tcp_b().0, addr)), libc::EADDRINUSE);
    let clients: Vec<_> = (0..40)
        .map(|_| {
            let client = pair.tcp_a();
            connect(client.0, addr).unwrap();
            client
        })
        .collect();
    let mut counts = [0; 2];
    until(|| {
        for (fd, count) in [&first, &second].into_iter().zip(&mut counts) {
            while let Ok((server, _)) = accept(fd.0) {
                drop(Fd(server));
                *count += 1;
            }
        }
        counts.iter().sum::<usize>() == clients.len()
    });
    // One in 2^39 is unlucky.
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

pub(crate) fn a_shared_port_is_left_to_the_others(pair: &Pair) {
    let ([first, second], addr) = sharing(pair);
    drop(second);
    for _ in 0..8 {
        connect(pair.tcp_a().0, addr).unwrap();
        wait(&first, Events::IN);
        drop(Fd(accept(first.0).unwrap().0));
    }
}

/// Two listeners at one port, which do not block.
fn sharing(pair: &Pair) -> ([Fd; 2], SocketAddr) {
    let open = || {
        let fd = pair.tcp_b();
        set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1).unwrap();
        fd
    };
    let (first, addr) = bind_any(&open(), pair.b_addr);
    let second = open();
    bind(second.0, addr).unwrap();
    for fd in [&first, &second] {
        listen(fd.0, 64).unwrap();
        nonblocking(fd, true);
    }
    ([first, second], addr)
}
