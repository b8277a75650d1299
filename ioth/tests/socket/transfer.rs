//! Much data, and many connections.

use std::net::SocketAddr;
use std::thread;

use ioth::berkeley::*;

use crate::fixture::*;

const LEN: usize = 8 << 20;

/// Bytes that repeat late, so that lost, doubled and swapped pieces show.
struct Pattern(u64);

impl Pattern {
    fn fill(&mut self, buffer: &mut [u8]) {
        for byte in buffer {
            // xorshift64 (Marsaglia, 2003)
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            *byte = self.0 as u8;
        }
    }
}

fn send_pattern(fd: &Fd, seed: u64) {
    let mut pattern = Pattern(seed);
    let mut left = LEN;
    let mut buffer = vec![0; 50_000];
    while left > 0 {
        let len = left.min(buffer.len());
        pattern.fill(&mut buffer[..len]);
        send_all(fd, &buffer[..len]);
        left -= len;
    }
    shutdown(fd.0, libc::SHUT_WR).unwrap();
}

fn check_pattern(fd: &Fd, seed: u64) {
    let mut pattern = Pattern(seed);
    let (mut buffer, mut expected) = (vec![0; 70_000], vec![0; 70_000]);
    let mut total = 0;
    loop {
        let len = read(fd.0, &mut buffer).unwrap();
        if len == 0 {
            break;
        }
        pattern.fill(&mut expected[..len]);
        assert!(buffer[..len] == expected[..len], "between {total} and {}", total + len);
        total += len;
    }
    assert_eq!(total, LEN);
}

pub(crate) fn both_ways(pair: &Pair) {
    let (client, server) = pair.connected();
    thread::scope(|scope| {
        scope.spawn(|| send_pattern(&client, 1));
        scope.spawn(|| send_pattern(&server, 2));
        scope.spawn(|| check_pattern(&client, 2));
        scope.spawn(|| check_pattern(&server, 1));
    });
}

pub(crate) fn blocking_write_takes_all(pair: &Pair) {
    let (client, server) = pair.connected();
    let mut data = vec![0; LEN];
    Pattern(3).fill(&mut data);
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(write(client.0, &data).unwrap(), LEN));
        assert!(read_some(&server, LEN) == data);
    });
}

pub(crate) fn many_connections(pair: &Pair) {
    let (listener, _guard, addr) = pair.guarded_listener();
    const CONNECTIONS: u32 = 100;
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..CONNECTIONS {
                let server = Fd(accept(listener.0).unwrap().0);
                let data = read_some(&server, 4);
                send_all(&server, &data);
                assert_eq!(read(server.0, &mut [0]).unwrap(), 0);
            }
        });
        for i in 0..CONNECTIONS {
            let client = pair.tcp_a();
            connect(client.0, addr).unwrap();
            send_all(&client, &i.to_be_bytes());
            assert_eq!(read_some(&client, 4), i.to_be_bytes());
        }
    });
    let elsewhere: SocketAddr = addr;
    drop(listener);
    assert_eq!(errno(connect(pair.tcp_a().0, elsewhere)), libc::ECONNREFUSED);
}
