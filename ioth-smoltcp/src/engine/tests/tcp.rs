//! TCP between engines.

use ioth_core::{Domain, Errno, Events, Shutdown, SockAddr};
use smoltcp::time::Duration;

use super::lan::{Dice, Lan, WIRE, addr, recv, send};

/// The byte at a position of the test stream.
fn pattern(at: usize) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 24) as u8
}

/// Sends `len` bytes from node 0 to node 1 and checks each.
fn transfer(lan: &mut Lan, v6: bool, len: usize) {
    let (client, server) = lan.connection(v6);
    let (mut sent, mut received) = (0, 0);
    let mut buffer = vec![0; 65_536];
    let done = lan.run_until(Duration::from_secs(3600 * 4), |lan| {
        while sent < len {
            let chunk: Vec<u8> = (sent..len.min(sent + 16_384)).map(pattern).collect();
            match send(&mut lan.nodes[0], client, &chunk) {
                Ok(n) => sent += n,
                Err(Errno::EAGAIN) => break,
                Err(error) => panic!("send: {error}"),
            }
            if sent == len {
                lan.nodes[0].shutdown(client, Shutdown::Write).unwrap();
            }
        }
        loop {
            match recv(&mut lan.nodes[1], server, &mut buffer) {
                Ok(0) => return true,
                Ok(n) => {
                    for (i, byte) in buffer[..n].iter().enumerate() {
                        assert_eq!(*byte, pattern(received + i), "at {}", received + i);
                    }
                    received += n;
                }
                Err(Errno::EAGAIN) => return false,
                Err(error) => panic!("recv: {error}"),
            }
        }
    });
    assert!(done, "{received} of {len} bytes, {sent} sent, at {}", lan.now);
    assert_eq!(received, len);
}

/// The gate: everything else stands on this.
#[test]
fn ten_megabytes_under_loss_and_reordering() {
    for v6 in [true, false] {
        let mut lan = Lan::new(2, WIRE);
        let mut dice = Dice(42);
        lan.fate = Box::new(move |_| {
            if dice.percent(5) {
                return Vec::new();
            }
            // A tenth of the frames are overtaken by those behind them.
            let delay = if dice.percent(10) { 3_000 } else { 500 + dice.next() % 100 };
            vec![Duration::from_micros(delay)]
        });
        transfer(&mut lan, v6, 10_000_000);
    }
}

#[test]
fn the_same_seed_gives_the_same_frames() {
    let run = || {
        let mut lan = Lan::new(2, WIRE);
        let mut dice = Dice(7);
        lan.fate = Box::new(move |_| {
            if dice.percent(10) { Vec::new() } else { vec![Duration::from_micros(dice.next() % 900)] }
        });
        transfer(&mut lan, true, 300_000);
        (lan.frames, lan.now)
    };
    assert_eq!(run(), run());
}

#[test]
fn several_losses_in_one_window_need_no_time_out() {
    let mut lan = Lan::new(2, WIRE);
    let mut data_frames = 0;
    // Every 300th data frame and two more near it are lost, once.
    lan.fate = Box::new(move |frame| {
        if frame.len() > 1000 {
            data_frames += 1;
            if matches!(data_frames % 300, 290 | 293 | 296) {
                return Vec::new();
            }
        }
        vec![Duration::from_micros(500)]
    });
    transfer(&mut lan, true, 2_000_000);
    // Each time-out would take a second.
    assert!(lan.now < smoltcp::time::Instant::from_millis(1500), "{}", lan.now);
}

#[test]
fn duplicates_do_no_harm() {
    let mut lan = Lan::new(2, WIRE);
    lan.fate = Box::new(|_| vec![Duration::from_micros(100), Duration::from_micros(150)]);
    transfer(&mut lan, true, 1_000_000);
}

#[test]
fn super_frames_arrive_whole() {
    let properties = ioth_vde::Properties { mtu: 1500, gso_max: 65_535, trusted: true };
    for v6 in [true, false] {
        let mut lan = Lan::new(2, properties);
        transfer(&mut lan, v6, 5_000_000);
        assert!(lan.frames < 5_000_000 / 10_000, "{} frames", lan.frames);
    }
}

#[test]
fn what_the_window_held_back_follows_at_once_after_close() {
    for v6 in [true, false] {
        let mut lan = Lan::new(2, WIRE);
        let (client, server) = lan.connection(v6);
        lan.nodes[0].shutdown(client, Shutdown::Write).unwrap();
        // The reader's buffer is full, and data is left, when the writer goes.
        const WINDOW: usize = 65_536;
        const LEN: usize = WINDOW + 60_000;
        let amount = |lan: &mut Lan, node: usize, id, request| {
            let mut bytes = [0; 4];
            lan.nodes[node].ioctl(id, request, &mut bytes).unwrap();
            i32::from_ne_bytes(bytes) as usize
        };
        let mut sent = 0;
        assert!(lan.run_until(Duration::from_millis(500), |lan| {
            while sent < LEN
                && let Ok(n) = send(&mut lan.nodes[1], server, &vec![7; LEN - sent])
            {
                sent += n;
            }
            sent == LEN && amount(lan, 0, client, libc::FIONREAD) > WINDOW - 2_000
        }));
        lan.nodes[1].close(server);
        assert!(lan.run_until(Duration::from_millis(500), |lan| {
            let received = amount(lan, 0, client, libc::FIONREAD);
            // All that fits: the window is told in units of 128 bytes. The FIN waits behind it, and counts.
            received > WINDOW - 256 && received + amount(lan, 1, server, libc::TIOCOUTQ) == LEN + 1
        }));
        let start = lan.now;
        let mut buffer = [0; 50_001];
        let mut received = 0;
        assert!(lan.run_until(Duration::from_secs(60), |lan| {
            while let Ok(n) = recv(&mut lan.nodes[0], client, &mut buffer) {
                received += n;
                lan.settle();
                if n == 0 {
                    return true;
                }
            }
            false
        }));
        assert_eq!(received, LEN);
        assert!(lan.now - start < Duration::from_millis(100), "{}", lan.now - start);
    }
}

#[test]
fn half_close_lets_the_answer_through() {
    let mut lan = Lan::new(2, WIRE);
    let (client, server) = lan.connection(true);
    send(&mut lan.nodes[0], client, b"question").unwrap();
    lan.nodes[0].shutdown(client, Shutdown::Write).unwrap();
    let mut buffer = [0; 64];
    assert!(lan.run_until(Duration::from_secs(5), |lan| lan.nodes[1].events(server).contains(Events::RDHUP)));
    assert_eq!(recv(&mut lan.nodes[1], server, &mut buffer), Ok(8));
    assert_eq!(recv(&mut lan.nodes[1], server, &mut buffer), Ok(0));
    assert_eq!(send(&mut lan.nodes[0], client, b"more"), Err(Errno::EPIPE));
    send(&mut lan.nodes[1], server, b"answer").unwrap();
    assert!(lan.run_until(Duration::from_secs(5), |lan| lan.nodes[0].events(client).contains(Events::IN)));
    assert_eq!(recv(&mut lan.nodes[0], client, &mut buffer), Ok(6));
    lan.nodes[1].close(server);
    lan.nodes[0].close(client);
    // What keeps time is the deadline of data that was acknowledged long ago.
    lan.run_until_idle(Duration::from_secs(1000));
}

#[test]
fn nobody_listens() {
    let mut lan = Lan::new(2, WIRE);
    let client = lan.stream(0, Domain::INET6);
    assert_eq!(lan.nodes[0].connect(client, &SockAddr::Ip(addr(1, true, 81))), Err(Errno::EINPROGRESS));
    assert!(lan.run_until(Duration::from_secs(5), |lan| !lan.nodes[0].connecting(client)));
    let all = Events::IN | Events::OUT | Events::RDHUP | Events::HUP | Events::ERR;
    assert_eq!(lan.nodes[0].events(client), all);
    assert_eq!(lan.nodes[0].take_error(client), Some(Errno::ECONNREFUSED));
}

#[test]
fn nobody_answers() {
    let mut lan = Lan::new(2, WIRE);
    // There is a neighbour, but it says nothing at all: its SYNs are lost.
    lan.fate = Box::new(|frame| {
        let ipv4 = frame[12..14] == [8, 0];
        if ipv4 { Vec::new() } else { vec![Duration::from_micros(50)] }
    });
    let client = lan.stream(0, Domain::INET);
    assert_eq!(lan.nodes[0].connect(client, &SockAddr::Ip(addr(1, false, 81))), Err(Errno::EINPROGRESS));
    assert!(lan.run_until(Duration::from_secs(200), |lan| !lan.nodes[0].connecting(client)));
    assert_eq!(lan.nodes[0].take_error(client), Some(Errno::ETIMEDOUT));
    assert!(lan.now.total_millis() >= 127_000, "{}", lan.now);
}

#[test]
fn nobody_is_there() {
    let mut lan = Lan::new(2, WIRE);
    for v6 in [false, true] {
        let start = lan.now;
        let client = lan.stream(0, if v6 { Domain::INET6 } else { Domain::INET });
        assert_eq!(lan.nodes[0].connect(client, &SockAddr::Ip(addr(99, v6, 81))), Err(Errno::EINPROGRESS));
        assert!(lan.run_until(Duration::from_secs(10), |lan| !lan.nodes[0].connecting(client)));
        assert_eq!(lan.nodes[0].take_error(client), Some(Errno::EHOSTUNREACH));
        assert!(lan.now - start <= Duration::from_secs(4));
    }
}

#[test]
fn unread_data_makes_close_a_reset() {
    let mut lan = Lan::new(2, WIRE);
    let (client, server) = lan.connection(true);
    send(&mut lan.nodes[0], client, b"never read").unwrap();
    assert!(lan.run_until(Duration::from_secs(5), |lan| lan.nodes[1].events(server).contains(Events::IN)));
    lan.nodes[1].close(server);
    assert!(lan.run_until(Duration::from_secs(5), |lan| lan.nodes[0].events(client).contains(Events::ERR)));
    assert_eq!(recv(&mut lan.nodes[0], client, &mut [0; 8]), Err(Errno::ECONNRESET));
    assert_eq!(recv(&mut lan.nodes[0], client, &mut [0; 8]), Ok(0));
    assert_eq!(send(&mut lan.nodes[0], client, b"x"), Err(Errno::EPIPE));
}

#[test]
fn data_sent_before_close_arrives() {
    let mut lan = Lan::new(2, WIRE);
    let (client, server) = lan.connection(false);
    let data = vec![7; 80_000];
    assert_eq!(send(&mut lan.nodes[0], client, &data), Ok(data.len()));
    lan.nodes[0].close(client);
    let mut received = 0;
    let mut buffer = vec![0; 4096];
    assert!(lan.run_until(Duration::from_secs(60), |lan| loop {
        match recv(&mut lan.nodes[1], server, &mut buffer) {
            Ok(0) => return true,
            Ok(n) => received += n,
            Err(_) => return false,
        }
    }));
    assert_eq!(received, data.len());
}

#[test]
fn a_node_that_leaves_is_there_for_its_connections_only() {
    for v6 in [false, true] {
        let mut lan = Lan::new(3, WIRE);
        let (client, server) = lan.connection(v6);
        // More than a window, so that it takes a while, and no socket is left.
        let data = vec![7; 2_000_000];
        let sent = send(&mut lan.nodes[0], client, &data).unwrap();
        lan.nodes[0].close(client);
        lan.nodes[0].leave();
        // The third asks everybody for the address, the second knows who has it: it is refused nothing.
        for asker in [2, 1] {
            let stranger = lan.stream(asker, if v6 { Domain::INET6 } else { Domain::INET });
            let connected = lan.nodes[asker].connect(stranger, &SockAddr::Ip(addr(0, v6, 81)));
            assert_eq!(connected, Err(Errno::EINPROGRESS));
            let answered =
                lan.run_until(Duration::from_secs(2), |lan| !lan.nodes[asker].connecting(stranger));
            assert!(!answered, "{asker}: {:?}", lan.nodes[asker].take_error(stranger));
        }
        let mut received = 0;
        let mut buffer = vec![0; 1 << 16];
        assert!(lan.run_until(Duration::from_secs(60), |lan| loop {
            match recv(&mut lan.nodes[1], server, &mut buffer) {
                Ok(0) => return true,
                Ok(n) => received += n,
                Err(_) => return false,
            }
        }));
        assert_eq!(received, sent);
    }
}

#[test]
fn the_backlog_is_real() {
    let mut lan = Lan::new(2, WIRE);
    let listener = lan.stream(1, Domain::INET6);
    lan.nodes[1].bind(listener, &SockAddr::Ip(addr(1, true, 80))).unwrap();
    lan.nodes[1].listen(listener, 2).unwrap();
    let clients: Vec<_> = (0..6).map(|_| lan.stream(0, Domain::INET6)).collect();
    for client in &clients {
        let _ = lan.nodes[0].connect(*client, &SockAddr::Ip(addr(1, true, 80)));
    }
    lan.run_until(Duration::from_millis(500), |_| false);
    assert_eq!(lan.nodes[1].accept_queue(listener), Some(3), "Linux: one more than the backlog");
    let mut accepted = 0;
    // Those who had to wait did not wait for nothing.
    assert!(lan.run_until(Duration::from_millis(900), |lan| {
        while lan.nodes[1].accept(listener).is_ok() {
            accepted += 1;
        }
        accepted == clients.len()
    }));
}

#[test]
fn keep_alive_finds_out_that_the_peer_is_gone() {
    let mut lan = Lan::new(2, WIRE);
    let (client, _server) = lan.connection(true);
    for (name, value) in [(libc::TCP_KEEPIDLE, 100i32), (libc::TCP_KEEPINTVL, 10), (libc::TCP_KEEPCNT, 3)] {
        lan.nodes[0].set_option(client, libc::IPPROTO_TCP, name, &value.to_ne_bytes()).unwrap();
    }
    lan.nodes[0].set_option(client, libc::SOL_SOCKET, libc::SO_KEEPALIVE, &1i32.to_ne_bytes()).unwrap();
    lan.run_until(Duration::from_secs(1000), |_| false);
    assert!(!lan.nodes[0].events(client).contains(Events::ERR), "it answers");
    // Segments are lost, neighbour discovery works.
    lan.fate = Box::new(|frame| if frame[20] == 6 { Vec::new() } else { vec![Duration::from_micros(50)] });
    let gone = lan.now;
    assert!(lan.run_until(Duration::from_secs(300), |lan| lan.nodes[0].events(client).contains(Events::ERR)));
    assert_eq!(lan.nodes[0].take_error(client), Some(Errno::ETIMEDOUT));
    assert!((20..=131).contains(&(lan.now - gone).secs()), "{}", lan.now - gone);
}

#[test]
fn data_with_the_fin_is_acknowledged() {
    let mut lan = Lan::new(2, WIRE);
    let (client, server) = lan.connection(false);
    lan.nodes[0].shutdown(client, Shutdown::Write).unwrap();
    lan.run_until(Duration::from_millis(100), |_| false);
    // The last data and the FIN travel in one segment.
    send(&mut lan.nodes[1], server, b"bye").unwrap();
    lan.nodes[1].close(server);
    let sockets = lan.nodes[1].socket_count();
    assert!(lan.run_until(Duration::from_millis(500), |lan| lan.nodes[1].socket_count() < sockets));
    assert_eq!(recv(&mut lan.nodes[0], client, &mut [0; 8]), Ok(3));
    assert_eq!(recv(&mut lan.nodes[0], client, &mut [0; 8]), Ok(0));
}

#[test]
fn connections_to_oneself() {
    let mut lan = Lan::new(1, WIRE);
    // The node tells its link which groups it listens to.
    lan.run_until_idle(Duration::from_secs(10));
    let told = lan.frames;
    for target in ["[::1]:80", "127.0.0.1:80", "[fd00::1]:80", "10.0.0.1:80"] {
        let target: std::net::SocketAddr = target.parse().unwrap();
        let domain = if target.is_ipv6() { Domain::INET6 } else { Domain::INET };
        let listener = lan.stream(0, domain);
        lan.nodes[0].bind(listener, &SockAddr::Ip(target)).unwrap();
        lan.nodes[0].listen(listener, 1).unwrap();
        let client = lan.stream(0, domain);
        let _ = lan.nodes[0].connect(client, &SockAddr::Ip(target));
        lan.settle();
        let (server, peer) = lan.nodes[0].accept(listener).unwrap();
        assert_eq!(lan.nodes[0].local_addr(client), Ok(peer));
        send(&mut lan.nodes[0], client, b"me").unwrap();
        lan.settle();
        assert_eq!(recv(&mut lan.nodes[0], server, &mut [0; 9]), Ok(2));
        for id in [client, server, listener] {
            lan.nodes[0].close(id);
        }
        lan.settle();
    }
    assert_eq!(lan.frames, told, "nothing on the wire");
}
