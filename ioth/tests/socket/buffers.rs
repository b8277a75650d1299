//! SO_RCVBUF and SO_SNDBUF of streams: what they are when nobody sets them, and what setting them does at any time.

use std::time::Duration;

use ioth::berkeley::*;
use ioth::{Events, MsgFlags};

use crate::fixture::*;

const SOCKET: i32 = libc::SOL_SOCKET;

fn receive_buffer(fd: &Fd) -> usize {
    option(fd, SOCKET, libc::SO_RCVBUF).unwrap() as usize
}

fn send_buffer(fd: &Fd) -> usize {
    option(fd, SOCKET, libc::SO_SNDBUF).unwrap() as usize
}

/// FIONREAD or SIOCOUTQ.
fn amount(fd: &Fd, request: libc::c_ulong) -> usize {
    let mut value = [0; 4];
    ioctl(fd.0, request as _, &mut value).unwrap();
    i32::from_ne_bytes(value) as usize
}

fn unacknowledged(fd: &Fd) -> usize {
    amount(fd, libc::TIOCOUTQ as _)
}

/// SIOCOUTQNSD
fn unsent(fd: &Fd) -> usize {
    amount(fd, 0x894b)
}

/// What does not fit into the peer's window was not sent; it goes when there is room, and our FIN with it.
pub(crate) fn what_was_not_sent(pair: &Pair) {
    let (client, server) = pair.connected();
    assert_eq!(unsent(&client), 0);
    nonblocking(&client, true);
    let sent = fill(&client, 20_000);
    until(|| unacknowledged(&client) < sent);
    let (waiting, behind) = (unacknowledged(&client), unsent(&client));
    assert!(0 < behind && behind <= waiting, "{behind} of {waiting}");
    shutdown(client.0, libc::SHUT_WR).unwrap();
    assert_eq!(unsent(&client), behind + 1);
    assert_eq!(read_some(&server, sent + 1).len(), sent);
    until(|| unacknowledged(&client) == 0);
    assert_eq!(unsent(&client), 0);
    drop(server);
    assert_eq!(unsent(&pair.tcp_a()), 0);
    assert_eq!(errno(ioctl(pair.listener().0.0, 0x894b, &mut [0; 4])), libc::EINVAL);
    assert_eq!(errno(ioctl(pair.udp_a().0.0, 0x894b, &mut [0; 4])), libc::ENOTTY);
}

/// Second of the three numbers of a sysctl on the kernel, and what it is by default elsewhere.
fn default_buffer(pair: &Pair, name: &str, default: usize) -> usize {
    if !pair.native {
        return default;
    }
    let numbers = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap();
    numbers.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Writes in pieces of `piece` bytes until nothing goes in any more: so much went in.
fn fill(fd: &Fd, piece: usize) -> usize {
    let data = vec![7; piece];
    let mut sent = 0;
    loop {
        match send(fd.0, &data, MsgFlags::DONTWAIT) {
            Ok(n) => sent += n,
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
                if Edges::new(fd).wait(Duration::from_millis(300)).is_empty() {
                    return sent;
                }
            }
        }
        assert!(sent < 64 << 20, "nothing bounds it");
    }
}

pub(crate) fn unset(pair: &Pair) {
    let receive = default_buffer(pair, "tcp_rmem", 131_072);
    let send = default_buffer(pair, "tcp_wmem", 16_384);
    let fresh = pair.tcp_a();
    assert_eq!((receive_buffer(&fresh), send_buffer(&fresh)), (receive, send));
    let (listener, _) = pair.listener();
    assert_eq!((receive_buffer(&listener), send_buffer(&listener)), (receive, send));
    let (client, server) = pair.connected();
    for end in [&client, &server] {
        assert_eq!(receive_buffer(end), receive);
        // Room for twice the first flight.
        assert!(send_buffer(end) >= 2 * 10 * 1220, "{}", send_buffer(end));
    }
    // Who does not read gets no more room.
    let sent = fill(&client, 10_000);
    assert_eq!(receive_buffer(&server), receive);
    assert!(unread(&server) <= receive, "{}", unread(&server));
    assert_eq!(unread(&server) + unacknowledged(&client), sent);
    assert!(send_buffer(&client) >= 2 * 10 * 1220);
    assert_eq!(read_some(&server, sent).len(), sent);
}

pub(crate) fn grow_with_their_use(pair: &Pair) {
    let (client, server) = pair.connected();
    let locked = pair.connected();
    for (client, server) in [(&client, &server), (&locked.0, &locked.1)] {
        let (receive, send) = (receive_buffer(server), send_buffer(client));
        let fixed = client.0 == locked.0.0;
        if fixed {
            set_option(client, SOCKET, libc::SO_SNDBUF, 30_000).unwrap();
            set_option(server, SOCKET, libc::SO_RCVBUF, 40_000).unwrap();
        }
        let (data, mut most) = (vec![7; 4 << 20], 0);
        // A reader who keeps up, as soon as the machine lets it.
        until(|| {
            std::thread::scope(|scope| {
                scope.spawn(|| send_all(client, &data));
                assert!(read_some(server, data.len()) == data);
            });
            most = most.max(receive_buffer(server));
            fixed || most > receive
        });
        if fixed {
            assert_eq!((receive_buffer(server), send_buffer(client)), (80_000, 60_000));
        } else {
            assert!(receive_buffer(server) == most && send_buffer(client) >= send);
        }
    }
}

pub(crate) fn low_water_makes_room(pair: &Pair) {
    let receive = default_buffer(pair, "tcp_rmem", 131_072);
    let fresh = pair.tcp_a();
    let (client, server) = pair.connected();
    for fd in [&fresh, &server] {
        set_option(fd, SOCKET, libc::SO_RCVLOWAT, 100).unwrap();
        assert_eq!(receive_buffer(fd), receive);
        set_option(fd, SOCKET, libc::SO_RCVLOWAT, 100_000).unwrap();
        assert_eq!(receive_buffer(fd), 200_000);
    }
    let data = vec![7; 100_000];
    std::thread::scope(|scope| {
        scope.spawn(|| send_all(&client, &data));
        until(|| events(&server).contains(Events::IN));
        // Linux tells a little earlier when the peer may send hardly more.
        assert!(unread(&server) >= 30_000, "{}", unread(&server));
        assert!(read_some(&server, data.len()) == data);
    });
    // What was set keeps its size, and bounds the mark.
    set_option(&server, SOCKET, libc::SO_RCVBUF, 20_000).unwrap();
    set_option(&server, SOCKET, libc::SO_RCVLOWAT, 100_000).unwrap();
    assert_eq!(receive_buffer(&server), 40_000);
    assert_eq!(option(&server, SOCKET, libc::SO_RCVLOWAT).unwrap(), 20_000);
}

pub(crate) fn a_window_follows_its_buffer(pair: &Pair) {
    let (client, server) = pair.connected();
    set_option(&server, SOCKET, libc::SO_RCVBUF, 4096).unwrap();
    assert_eq!(receive_buffer(&server), 8192);
    // What was offered before may still come.
    let mut left = fill(&client, 10_000);
    let offered = unread(&server);
    assert!(offered <= 66_000, "{offered}");
    left -= read_some(&server, offered).len();
    for _ in 0..3 {
        until(|| unread(&server) > 0);
        fill(&client, 10_000);
        let more = unread(&server);
        assert!(more <= 2 * 8192, "{more}");
        left = left.saturating_sub(read_some(&server, more).len());
    }
    // Larger again: the writer hears of it, though nobody reads.
    until(|| unread(&server) > 0);
    set_option(&server, SOCKET, libc::SO_RCVBUF, 60_000).unwrap();
    assert_eq!(receive_buffer(&server), 120_000);
    until(|| unread(&server) > 20_000);
    assert!(unread(&server) <= 120_000);
}

pub(crate) fn a_small_window_becomes_larger(pair: &Pair) {
    let listener = pair.tcp_b();
    set_option(&listener, SOCKET, libc::SO_RCVBUF, 8192).unwrap();
    let (listener, addr) = bind_any(&listener, pair.b_addr);
    listen(listener.0, 1).unwrap();
    let client = pair.tcp_a();
    connect(client.0, addr).unwrap();
    let server = Fd(accept(listener.0).unwrap().0);
    set_option(&server, SOCKET, libc::SO_RCVBUF, 100_000).unwrap();
    assert_eq!(receive_buffer(&server), 200_000);
    let sent = fill(&client, 1000);
    assert!((30_000..=200_000).contains(&unread(&server)), "{}", unread(&server));
    assert_eq!(read_some(&server, sent).len(), sent);
}

pub(crate) fn what_may_be_sent_ahead(pair: &Pair) {
    let (client, server) = pair.connected();
    set_option(&server, SOCKET, libc::SO_RCVBUF, 4096).unwrap();
    set_option(&client, SOCKET, libc::SO_SNDBUF, 50_000).unwrap();
    let mut left = fill(&client, 1000);
    let full = unacknowledged(&client);
    // Linux counts what its packets take, not their bytes alone; and lets the last one go beyond.
    assert!((50_000..=170_000).contains(&full), "{full}");
    assert_eq!(events(&client), Events::empty());
    // Linux's sk_stream_is_writeable(): OUT comes when a third is free.
    let mut buffer = vec![0; 500];
    let mut before = full;
    until(|| {
        let waiting = unacknowledged(&client);
        if events(&client).contains(Events::OUT) {
            return true;
        }
        before = waiting;
        if let Ok(n) = recv(server.0, &mut buffer, MsgFlags::DONTWAIT) {
            left -= n;
        }
        false
    });
    let after = unacknowledged(&client);
    assert!(after <= full * 3 / 4, "{after} of {full}");
    assert!(before >= full / 4, "{before} of {full}: OUT came late");
    assert_eq!(read_some(&server, left).len(), left);
    // Smaller than what waits.
    let sent = fill(&client, 1000);
    set_option(&client, SOCKET, libc::SO_SNDBUF, 1).unwrap();
    assert_eq!(send_buffer(&client), 4608);
    assert_eq!(events(&client), Events::empty());
    assert_eq!(read_some(&server, sent).len(), sent);
    wait_exactly(&client, Events::OUT);
    assert_eq!(send_buffer(&client), 4608);
}
