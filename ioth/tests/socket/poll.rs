//! What poll(2) says of the descriptor, state by state.

use std::net::SocketAddr;
use std::time::Duration;

use ioth::berkeley::*;
use ioth::{Events, MsgFlags};

use crate::fixture::*;

const OVER: Events = Events::IN.union(Events::OUT).union(Events::RDHUP).union(Events::HUP);

pub(crate) fn fresh(pair: &Pair) {
    // HUP cannot be taken back from a signal fd: there it is missing.
    let tcp = if pair.native { Events::OUT | Events::HUP } else { Events::OUT };
    assert_eq!(events(&pair.tcp_a()), tcp);
    assert_eq!(events(&pair.udp_a().0), Events::OUT);
}

pub(crate) fn listening(pair: &Pair) {
    let (listener, addr) = pair.listener();
    assert_eq!(events(&listener), Events::empty());
    let clients = [pair.tcp_a(), pair.tcp_a()];
    for client in &clients {
        connect(client.0, addr).unwrap();
    }
    wait_exactly(&listener, Events::IN);
    let first = Fd(accept(listener.0).unwrap().0);
    wait_exactly(&listener, Events::IN);
    let second = Fd(accept(listener.0).unwrap().0);
    assert_eq!(events(&listener), Events::empty());
    assert_eq!(events(&first), Events::OUT);
    drop((first, second));
}

pub(crate) fn connected(pair: &Pair) {
    let (client, server) = pair.connected();
    assert_eq!((events(&client), events(&server)), (Events::OUT, Events::OUT));
    for _ in 0..3 {
        send_all(&client, b"1234");
        wait_exactly(&server, Events::IN | Events::OUT);
        read_some(&server, 3);
        assert_eq!(events(&server), Events::IN | Events::OUT);
        read_some(&server, 1);
        assert_eq!(events(&server), Events::OUT);
    }
}

pub(crate) fn peer_half_closed(pair: &Pair) {
    let (client, server) = pair.connected();
    send_all(&client, b"last");
    shutdown(client.0, libc::SHUT_WR).unwrap();
    let half = Events::IN | Events::OUT | Events::RDHUP;
    wait_exactly(&server, half);
    // IN stays: a read does not wait, it ends.
    assert_eq!(read_some(&server, 100), b"last");
    assert_eq!(events(&server), half);
    assert_eq!(events(&client), Events::OUT);
}

pub(crate) fn both_closed(pair: &Pair) {
    let (client, server) = pair.connected();
    shutdown(client.0, libc::SHUT_WR).unwrap();
    wait_exactly(&server, Events::IN | Events::OUT | Events::RDHUP);
    shutdown(server.0, libc::SHUT_WR).unwrap();
    assert_eq!(events(&server), OVER);
    wait_exactly(&client, OVER);
    assert_eq!(read(client.0, &mut [0]).unwrap(), 0);
    // Reading on after the end changes nothing.
    assert_eq!((events(&client), so_error(&client)), (OVER, 0));
}

pub(crate) fn reset(pair: &Pair) {
    let (client, server) = pair.connected();
    send_all(&client, b"unread");
    wait(&server, Events::IN);
    drop(server);
    wait_exactly(&client, OVER | Events::ERR);
    assert_eq!(so_error(&client), libc::ECONNRESET);
    if pair.native {
        // Taking the error takes ERR away; a signal fd keeps it.
        assert_eq!(events(&client), OVER);
    }
}

pub(crate) fn refused(pair: &Pair) {
    let (_closed, addr) = pair.refusing();
    let client = pair.socket(&pair.a, libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
    assert_eq!(errno(connect(client.0, addr)), libc::EINPROGRESS);
    wait_exactly(&client, OVER | Events::ERR);
    assert_eq!(so_error(&client), libc::ECONNREFUSED);
}

pub(crate) fn full(pair: &Pair) {
    let (client, server) = pair.connected();
    let data = vec![7; 1 << 16];
    let mut sent = 0;
    // What one call takes depends on how fast the other end acknowledges: until it stays full.
    loop {
        match send(client.0, &data, MsgFlags::DONTWAIT) {
            Ok(len) => sent += len,
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
                let edges = Edges::new(&client);
                if edges.wait(Duration::from_millis(300)).is_empty() {
                    break;
                }
            }
        }
    }
    assert_eq!(events(&client), Events::empty());
    assert_eq!(read_some(&server, sent).len(), sent);
    wait_exactly(&client, Events::OUT);
    send_all(&client, b"x");
    assert_eq!(read_some(&server, 1), b"x");
}

pub(crate) fn edges(pair: &Pair) {
    let (client, server) = pair.connected();
    nonblocking(&server, true);
    let edges = Edges::new(&server);
    let none = Duration::from_millis(30);
    assert_eq!(edges.wait(LONG), Events::OUT);
    assert_eq!(edges.wait(none), Events::empty());
    for _ in 0..3 {
        send_all(&client, b"data");
        assert_eq!(edges.wait(LONG), Events::IN | Events::OUT);
        assert_eq!(edges.wait(none), Events::empty());
        assert_eq!(read_some(&server, 4), b"data");
        assert_eq!(errno(read(server.0, &mut [0])), libc::EAGAIN);
    }
    shutdown(client.0, libc::SHUT_WR).unwrap();
    assert_eq!(edges.wait(LONG), Events::IN | Events::OUT | Events::RDHUP);
}

pub(crate) fn edges_of_what_comes_on_top(pair: &Pair) {
    let again = |edges: &Edges, events: Events, mut more: Box<dyn FnMut() + '_>| {
        for _ in 0..3 {
            more();
            assert_eq!(edges.wait(LONG), events);
            assert_eq!(edges.wait(Duration::from_millis(30)), Events::empty());
        }
    };
    let (client, server) = pair.connected();
    let edges = Edges::new(&server);
    assert_eq!(edges.wait(LONG), Events::OUT);
    // Nobody reads it, and each piece is told.
    again(&edges, Events::IN | Events::OUT, Box::new(|| send_all(&client, b"data")));
    assert_eq!(read_some(&server, 12).len(), 12);
    assert_eq!(events(&server), Events::OUT);

    let (listener, addr) = pair.listener();
    let edges = Edges::new(&listener);
    let mut clients = Vec::new();
    again(
        &edges,
        Events::IN,
        Box::new(|| {
            let client = pair.tcp_a();
            connect(client.0, addr).unwrap();
            clients.push(client);
        }),
    );

    let (a, _) = pair.udp_a();
    let (b, b_addr) = pair.udp_b();
    let edges = Edges::new(&b);
    assert_eq!(edges.wait(LONG), Events::OUT);
    again(
        &edges,
        Events::IN | Events::OUT,
        Box::new(|| {
            sendto(a.0, b"x", NONE, b_addr).unwrap();
        }),
    );
}

pub(crate) fn datagrams(pair: &Pair) {
    let (a, _) = pair.udp_a();
    let (b, b_addr) = pair.udp_b();
    for _ in 0..2 {
        sendto(a.0, b"x", NONE, b_addr).unwrap();
    }
    wait_exactly(&b, Events::IN | Events::OUT);
    read(b.0, &mut [0]).unwrap();
    // The second one may still be on its way.
    assert_eq!(recv(b.0, &mut [0], MsgFlags::PEEK).unwrap(), 1);
    assert_eq!(events(&b), Events::IN | Events::OUT);
    read(b.0, &mut [0]).unwrap();
    assert_eq!(events(&b), Events::OUT);
    assert_eq!(events(&a), Events::OUT);
}

pub(crate) fn datagram_error(pair: &Pair) {
    let (a, _) = pair.udp_a();
    let (closed, addr): (Fd, SocketAddr) = pair.udp_b();
    drop(closed);
    connect(a.0, addr).unwrap();
    send(a.0, b"x", NONE).unwrap();
    // A signal fd shows the error, which the next call takes away, as IN.
    wait_exactly(&a, Events::OUT | if pair.native { Events::ERR } else { Events::IN });
    assert_eq!(errno(read(a.0, &mut [0])), libc::ECONNREFUSED);
    assert_eq!(events(&a), Events::OUT);
}
