//! SO_RCVTIMEO and SO_SNDTIMEO: what they end, and what they leave done (socket(7)).

use std::time::Duration;

use ioth::Events;
use ioth::berkeley::*;

use crate::fixture::*;

fn time_out(fd: &Fd, name: i32, seconds: i64, micros: i64) {
    let value = [seconds.to_ne_bytes(), micros.to_ne_bytes()].concat();
    setsockopt(fd.0, libc::SOL_SOCKET, name, &value).unwrap();
}

/// More than the buffers of a connection take.
const MUCH: usize = 64 << 20;

pub(crate) fn send_ends(pair: &Pair) {
    let (client, server) = pair.connected();
    time_out(&client, libc::SO_SNDTIMEO, 0, 50_000);
    // What went is told; only a call that can do nothing fails.
    let mut sent = 0;
    let error = loop {
        match send(client.0, &vec![7; MUCH], NONE) {
            Ok(0) => panic!("a send of something sends something"),
            Ok(more) => sent += more,
            Err(error) => break error,
        }
        assert!(sent < 4 * MUCH);
    };
    assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
    // The connection goes on.
    assert_eq!(read_some(&server, sent).len(), sent);
    wait(&client, Events::OUT);
    send_all(&client, b"end");
    assert_eq!(read_some(&server, 3), b"end");
}

pub(crate) fn negative_does_not_wait(pair: &Pair) {
    let (client, _server) = pair.connected();
    for name in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
        time_out(&client, name, -1, 0);
    }
    assert_eq!(errno(recv(client.0, &mut [0; 4], NONE)), libc::EAGAIN);
    assert!(send(client.0, &vec![7; MUCH], NONE).unwrap() < MUCH);
    let (datagrams, _) = pair.udp_a();
    time_out(&datagrams, libc::SO_RCVTIMEO, -1, 0);
    assert_eq!(errno(recv(datagrams.0, &mut [0; 4], NONE)), libc::EAGAIN);
    let (listener, _) = pair.listener();
    time_out(&listener, libc::SO_RCVTIMEO, -5, 0);
    assert_eq!(errno(accept(listener.0)), libc::EAGAIN);
}

pub(crate) fn the_longest_waits(pair: &Pair) {
    let ((a, _), (b, b_addr)) = (pair.udp_a(), pair.udp_b());
    time_out(&b, libc::SO_RCVTIMEO, i64::MAX, 999_999);
    let received = std::thread::scope(|scope| {
        let receiver = scope.spawn(|| recv(b.0, &mut [0; 4], NONE).map_err(|error| error.raw_os_error()));
        sendto(a.0, b"x", NONE, b_addr).unwrap();
        receiver.join().unwrap()
    });
    assert_eq!(received, Ok(1));
    // The next one takes its place.
    crate::fixture::receive_timeout(&b, Duration::from_millis(20));
    assert_eq!(errno(recv(b.0, &mut [0; 4], NONE)), libc::EAGAIN);
}
