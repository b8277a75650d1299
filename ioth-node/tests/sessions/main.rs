//! The node process's side of the protocol, asked by a program that is written out here.
#![deny(unsafe_code)]

mod names;
mod program;
mod sys;

use std::os::fd::AsFd;
use std::thread;

use ioth::Errno;
use ioth_node_proto::{Head, HeadKind, Op, Request, State};
use nix::poll::PollFlags;
use nix::sys::socket::{Shutdown, shutdown};
use std::os::fd::AsRawFd;

use program::{Node, accept, await_events, events, read, state, write};

#[test]
fn a_connection_within_the_node() {
    let node = Node::start();
    let (listener, addr) = node.listen(8);
    assert_eq!(state(&listener), State::Listening);
    assert_eq!(events(&listener), PollFlags::empty(), "neither readable nor writable");
    let client = node.tcp();
    assert_eq!(state(&client), State::Fresh);
    node.connect(&client, addr, false).unwrap();
    assert_eq!(state(&client), State::Connected);
    let (server, peer) = accept(&listener);
    assert_eq!(state(&server), State::Connected);
    assert_eq!(node.name(&client, Op::LocalAddr), Ok(peer));
    assert_eq!(node.name(&client, Op::PeerAddr), Ok(addr));
    assert_eq!(node.name(&server, Op::LocalAddr), Ok(addr));
    assert_eq!(node.name(&server, Op::PeerAddr), Ok(peer));

    write(&client, b"ping").unwrap();
    assert_eq!(read(&server).unwrap(), b"ping");
    write(&server, b"pong").unwrap();
    assert_eq!(read(&client).unwrap(), b"pong");
    shutdown(client.as_raw_fd(), Shutdown::Write).unwrap();
    assert_eq!(read(&server).unwrap(), b"");
    write(&server, b"still").unwrap();
    assert_eq!(read(&client).unwrap(), b"still");
    drop(server);
    assert_eq!(read(&client).unwrap(), b"");
    assert_eq!(node.error(&client), None);
    drop((client, listener));
    node.end();
}

#[test]
fn bytes_arrive_in_order_both_ways() {
    const LEN: usize = 12 << 20;
    let node = Node::start();
    let (client, server) = node.connection();
    let byte = |at: usize, seed: usize| (at.wrapping_mul(31) ^ (at >> 9) ^ seed) as u8;
    thread::scope(|scope| {
        for (from, to, seed) in [(&client, &server, 1), (&server, &client, 2)] {
            scope.spawn(move || {
                let data: Vec<u8> = (0..LEN).map(|at| byte(at, seed)).collect();
                let mut sent = 0;
                while sent < LEN {
                    await_events(from.as_fd(), PollFlags::POLLOUT);
                    sent += write(from, &data[sent..]).unwrap();
                }
            });
            scope.spawn(move || {
                let mut at = 0;
                while at < LEN {
                    for got in read(to).unwrap() {
                        assert_eq!(got, byte(at, seed), "at {at}");
                        at += 1;
                    }
                }
            });
        }
    });
    drop((client, server));
    node.end();
}

#[test]
fn what_was_written_before_a_close_arrives() {
    let node = Node::start();
    let (client, server) = node.connection();
    let data = vec![7; 150_000];
    assert_eq!(write(&client, &data), Ok(data.len()));
    drop(client);
    let mut len = 0;
    loop {
        match read(&server).unwrap().len() {
            0 => break,
            more => len += more,
        }
    }
    assert_eq!(len, data.len());
    drop(server);
    node.end();
}

#[test]
fn what_nobody_will_read_keeps_no_node_alive() {
    let node = Node::start();
    let (client, server) = node.connection();
    // Until the pairs and the stack are full: a request has everything moved that can be.
    let mut full = 0;
    while full < 100 {
        if events(&client).contains(PollFlags::POLLOUT) {
            write(&client, &[7; 4096]).unwrap();
            full = 0;
        } else {
            node.name(&client, Op::LocalAddr).unwrap();
            full += 1;
        }
    }
    drop(client);
    drop(server);
    node.end();
}

#[test]
fn a_close_with_data_unread_resets() {
    let node = Node::start();
    let (client, server) = node.connection();
    write(&server, b"never read").unwrap();
    await_events(client.as_fd(), PollFlags::POLLIN);
    drop(client);
    let bits = await_events(server.as_fd(), PollFlags::POLLIN);
    assert!(bits.contains(PollFlags::POLLHUP), "{bits:?}");
    assert_eq!(node.error(&server), Some(Errno::ECONNRESET));
    assert_eq!(node.error(&server), None, "told once");
    assert_eq!(node.name(&server, Op::PeerAddr), Err(Errno::ENOTCONN));
    assert!(node.name(&server, Op::LocalAddr).is_ok());
    drop(server);
    node.end();
}

#[test]
fn refused() {
    let node = Node::start();
    let (listener, addr) = node.listen(8);
    drop(listener);
    let client = node.tcp();
    assert_eq!(node.connect(&client, addr, false), Err(Errno::ECONNREFUSED));
    let again = node.tcp();
    assert_eq!(node.connect(&again, addr, false), Err(Errno::ECONNREFUSED));
    assert_eq!(state(&again), State::Fresh);
    // The same socket may try again, and succeed.
    let (listener, addr) = node.listen(8);
    node.connect(&again, addr, false).unwrap();
    let (server, _) = accept(&listener);
    write(&again, b"at last").unwrap();
    assert_eq!(read(&server).unwrap(), b"at last");
    node_end(node, (listener, server, again, client));
}

#[test]
fn without_waiting() {
    let node = Node::start();
    let (listener, addr) = node.listen(8);
    let client = node.tcp();
    match node.connect(&client, addr, true) {
        Err(Errno::EINPROGRESS) => assert_ne!(state(&client), State::Connected),
        done => assert_eq!(done, Ok(())),
    }
    await_events(client.as_fd(), PollFlags::POLLOUT);
    assert_eq!(node.error(&client), None);
    let (server, _) = accept(&listener);
    write(&client, b"hello").unwrap();
    assert_eq!(read(&server).unwrap(), b"hello", "and nothing of what filled the pair");
    drop((listener, server, client));

    let (listener, addr) = node.listen(8);
    drop(listener);
    let client = node.tcp();
    if node.connect(&client, addr, true) == Err(Errno::EINPROGRESS) {
        await_events(client.as_fd(), PollFlags::POLLOUT);
        assert_eq!(node.error(&client), Some(Errno::ECONNREFUSED));
    }
    node_end(node, client);
}

#[test]
fn connections_wait_in_the_stack_until_they_are_taken() {
    let node = Node::start();
    let (listener, addr) = node.listen(16);
    let clients: Vec<_> = (0..10)
        .map(|number: u8| {
            let client = node.tcp();
            node.connect(&client, addr, false).unwrap();
            write(&client, &[number]).unwrap();
            client
        })
        .collect();
    for number in 0..10 {
        let (server, _) = accept(&listener);
        assert_eq!(read(&server).unwrap(), [number]);
    }
    node_end(node, (listener, clients));
}

#[test]
fn datagrams_with_and_without_a_head() {
    let node = Node::start();
    let (one, other) = (node.udp(), node.udp());
    let (here, there) = (node.bind(&one, 0), node.bind(&other, 0));
    let to = ioth::SockAddr::from(there).to_raw();
    let args = [0, to.len() as i32, 0];
    let (sent, ..) = node.ask(Op::Send, 0, &args, &[&to[..], b"asked"].concat(), Some(one.as_fd())).unwrap();
    assert_eq!(sent, 5);
    let message = read(&other).unwrap();
    let head = Head::parse(&message).unwrap();
    assert_eq!(ioth::SockAddr::from_raw(head.addr()), Ok(here.into()));
    assert_eq!(&message[Head::LEN..], b"asked");

    let message = [&Head::new(HeadKind::Message, &to).emit()[..], b"by the pair"].concat();
    write(&one, &message).unwrap();
    assert_eq!(&read(&other).unwrap()[Head::LEN..], b"by the pair");

    // Two wait when it is connected: they lose their heads.
    for text in [b"first", b"then "] {
        node.ask(Op::Send, 0, &args, &[&to[..], text].concat(), Some(one.as_fd())).unwrap();
    }
    await_events(other.as_fd(), PollFlags::POLLIN);
    node.connect(&other, here, false).unwrap();
    assert_eq!(state(&other), State::Connected);
    assert_eq!(read(&other).unwrap(), b"first");
    assert_eq!(read(&other).unwrap(), b"then ");
    write(&other, b"bare").unwrap();
    let message = read(&one).unwrap();
    assert_eq!(&message[Head::LEN..], b"bare");

    // Nobody there: an error to be asked for.
    drop(one);
    while node.error(&other) != Some(Errno::ECONNREFUSED) {
        write(&other, b"?").unwrap();
    }
    node_end(node, other);
}

#[test]
fn a_datagram_to_nowhere_is_refused_at_once() {
    let node = Node::start();
    let socket = node.udp();
    let to = ioth::SockAddr::from(std::net::SocketAddr::from(([192, 0, 2, 1], 9))).to_raw();
    let args = [0, to.len() as i32, 0];
    let sent = node.ask(Op::Send, 0, &args, &[&to[..], b"x"].concat(), Some(socket.as_fd()));
    assert_eq!(sent.err(), Some(Errno::ENETUNREACH));
    node_end(node, socket);
}

#[test]
fn ancillary_data_comes_when_it_is_asked_for() {
    let node = Node::start();
    let (one, other) = (node.udp(), node.udp());
    let (_, there) = (node.bind(&one, 0), node.bind(&other, 0));
    let args = [libc::IPPROTO_IP, libc::IP_RECVTTL];
    node.ask(Op::SetOption, 0, &args, &1i32.to_ne_bytes(), Some(other.as_fd())).unwrap();
    assert_eq!(state(&other), State::Ancillary);
    let to = ioth::SockAddr::from(there).to_raw();
    let args = [0, to.len() as i32, 0];
    node.ask(Op::Send, 0, &args, &[&to[..], b"x"].concat(), Some(one.as_fd())).unwrap();
    let message = read(&other).unwrap();
    let head = Head::parse(&message).unwrap();
    assert!(head.control_len > 0);
    assert_eq!(&message[Head::LEN + head.control_len as usize..], b"x");
    node_end(node, (one, other));
}

#[test]
fn strangers_and_nonsense_are_turned_away() {
    let node = Node::start();
    let conversation = node.converse();
    let request = Request { op: Op::Socket, flags: 0, args: [2, 1, 0, 0], token: [8; 16] };
    write(&conversation, &request.emit()).unwrap();
    assert_eq!(node.hear(&conversation).err(), Some(Errno::EACCES));
    let conversation = node.converse();
    write(&conversation, b"GET / HTTP/1.1").unwrap();
    assert_eq!(node.hear(&conversation).err(), Some(Errno::EPROTO));
    assert_eq!(node.ask(Op::Listen, 0, &[1], &[], None).err(), Some(Errno::EBADF));
    let file = std::fs::File::open("/dev/null").unwrap();
    assert_eq!(node.ask(Op::Listen, 0, &[1], &[], Some(file.as_fd())).err(), Some(Errno::ENOTSOCK));
    let socket = node.tcp();
    let lengths = [0, i32::MAX, i32::MIN];
    assert_eq!(node.ask(Op::Send, 0, &lengths, b"x", Some(socket.as_fd())).err(), Some(Errno::EINVAL));
    let room = [libc::SOL_SOCKET, libc::SO_TYPE, i32::MAX];
    assert_eq!(node.ask(Op::GetOption, 0, &room, &[], Some(socket.as_fd())).unwrap().0, 4);
    node_end(node, socket);
}

#[test]
fn it_lives_while_a_socket_is_open() {
    let mut node = Node::start();
    let (listener, addr) = node.listen(8);
    node.lease = None;
    let client = node.tcp();
    node.connect(&client, addr, false).unwrap();
    assert!(!node.is_over());
    let (server, _) = accept(&listener);
    let duplicate = client.try_clone().unwrap();
    drop((client, listener));
    assert_eq!(node.name(&duplicate, Op::PeerAddr), Ok(addr));
    assert!(!node.is_over());
    node_end(node, (duplicate, server));
}

#[test]
fn a_program_that_is_killed_in_a_connect_leaves_nothing() {
    let node = Node::start();
    let client = node.tcp();
    // A listener whose queue is full, so that the connection stays undecided.
    let (listener, addr) = node.listen(0);
    let mut others = Vec::new();
    loop {
        let other = node.tcp();
        let done = node.connect(&other, addr, true);
        let ready = events(&other);
        others.push(other);
        if done == Err(Errno::EINPROGRESS) && !ready.contains(PollFlags::POLLOUT) && others.len() > 8 {
            break;
        }
        assert!(others.len() < 1000);
    }
    let conversation = node.converse();
    let raw = ioth::SockAddr::from(addr).to_raw();
    node.tell(&conversation, Op::Connect, 0, &[], &raw, Some(client.as_fd()));
    drop((conversation, client, listener, others));
    node.end();
}

#[test]
fn a_connect_that_is_interrupted_goes_on() {
    let node = Node::start();
    let (listener, addr) = node.listen(8);
    let client = node.tcp();
    let conversation = node.converse();
    let raw = ioth::SockAddr::from(addr).to_raw();
    node.tell(&conversation, Op::Connect, 0, &[], &raw, Some(client.as_fd()));
    drop(conversation);
    let (server, _) = accept(&listener);
    await_events(client.as_fd(), PollFlags::POLLOUT);
    write(&server, b"there").unwrap();
    assert_eq!(read(&client).unwrap(), b"there");
    // Told that it has succeeded, unless the answer was on its way already; and then that it is done.
    let told = node.connect(&client, addr, true);
    assert!([Ok(()), Err(Errno::EISCONN)].contains(&told), "{told:?}");
    assert_eq!(node.connect(&client, addr, true), Err(Errno::EISCONN));
    node_end(node, (client, server, listener));
}

fn node_end<T>(node: Node, open: T) {
    drop(open);
    node.end();
}
