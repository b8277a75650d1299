//! The user-space stack on LANs within this process: the programs that also run against a kernel.
#![forbid(unsafe_code)]

use std::io::ErrorKind;
use std::net::{Ipv6Addr, Shutdown};
use std::thread;
use std::time::{Duration, Instant};

use ioth::Stack;
use ioth::net::{TcpListener, TcpStream, UdpSocket};

#[path = "peers/programs.rs"]
mod programs;

use programs::{ask, check, echo, report, send};

const PATIENCE: Duration = Duration::from_secs(60);
const ONE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const TWO: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

/// Two nodes on `vnl`.
fn nodes(vnl: &str) -> [Stack; 2] {
    [ONE, TWO].map(|ip| Stack::new(&format!("stack=smoltcp,vnl={vnl},ip={ip}/64")).unwrap())
}

/// A connection between two nodes: the first one's end and the second one's.
fn connection(nodes: &[Stack; 2]) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind_on(&nodes[1], (TWO, 0)).unwrap();
    let client = TcpStream::connect_on(&nodes[0], listener.local_addr().unwrap()).unwrap();
    let (server, from) = listener.accept().unwrap();
    assert_eq!(from, client.local_addr().unwrap());
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
    }
    (client, server)
}

/// Both ends send `len` bytes at the same time, and check what they get.
fn exchange(client: &TcpStream, server: &TcpStream, len: usize) {
    thread::scope(|scope| {
        for stream in [client, server] {
            scope.spawn(move || {
                send(stream, len).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
            });
            scope.spawn(move || check(stream, len).unwrap());
        }
    });
}

#[test]
fn both_ways_at_once() {
    const EACH: usize = 100_000_000;
    let (client, server) = connection(&nodes("switch://both"));
    report("both ways at once, super-frames", 2 * EACH, || exchange(&client, &server, EACH));
}

#[test]
fn both_ways_at_once_in_plain_frames() {
    const EACH: usize = 100_000_000;
    let (client, server) = connection(&nodes("switch://plain[gso=0/checksum]"));
    report("both ways at once, plain frames with checksums", 2 * EACH, || exchange(&client, &server, EACH));
}

#[test]
fn one_way() {
    const LEN: usize = 500_000_000;
    let (client, server) = connection(&nodes("switch://one"));
    report("one way, super-frames", LEN, || {
        thread::scope(|scope| {
            scope.spawn(|| {
                send(&client, LEN).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
            });
            check(&server, LEN).unwrap();
        });
    });
}

#[test]
fn a_bad_network() {
    const LEN: usize = 5_000_000;
    let lan = "switch://lan2[gso=0/checksum]";
    let one = Stack::new(&format!("stack=smoltcp,vnl=fault://{{{lan}}}/loss=3%/seed=1,ip={ONE}/64")).unwrap();
    let two = Stack::new(&format!("stack=smoltcp,vnl={lan},ip={TWO}/64")).unwrap();
    let (client, server) = connection(&[one, two]);
    report("3 % loss, one way", LEN, || {
        thread::scope(|scope| {
            scope.spawn(|| {
                send(&client, LEN).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
            });
            check(&server, LEN).unwrap();
        });
    });
}

#[test]
fn datagrams() {
    const DATAGRAMS: u32 = 100_000;
    let nodes = nodes("switch://datagrams");
    let server = UdpSocket::bind_on(&nodes[1], (TWO, 7)).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let client = UdpSocket::bind_on(&nodes[0], (ONE, 0)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.connect((TWO, 7)).unwrap();
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 64];
            for _ in 0..DATAGRAMS {
                let (n, peer) = server.recv_from(&mut buffer).unwrap();
                server.send_to(&buffer[..n], peer).unwrap();
            }
        });
        let mut buffer = [0; 64];
        for number in 0..DATAGRAMS {
            client.send(&number.to_be_bytes()).unwrap();
            assert_eq!(client.recv(&mut buffer).unwrap(), 4);
            assert_eq!(buffer[..4], number.to_be_bytes());
        }
    });
    println!("{DATAGRAMS} datagrams there and back: {:?} each", start.elapsed() / DATAGRAMS);
}

#[test]
fn ten_thousand_connections_one_after_the_other() {
    const CONNECTIONS: u32 = 10_000;
    let nodes = nodes("switch://many");
    let listener = TcpListener::bind_on(&nodes[1], (TWO, 7)).unwrap();
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..CONNECTIONS {
                let (stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                echo(&stream).unwrap();
            }
        });
        for question in 0..CONNECTIONS {
            let stream = TcpStream::connect_timeout_on(&nodes[0], &(TWO, 7).into(), PATIENCE).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            ask(&stream, question).unwrap();
        }
    });
    println!("{CONNECTIONS} connections: {:?} each", start.elapsed() / CONNECTIONS);
}

#[test]
fn two_hundred_connections_at_once() {
    const CONNECTIONS: u32 = 200;
    const LEN: usize = 100_000;
    let nodes = nodes("switch://concurrent");
    let listener = TcpListener::bind_on(&nodes[1], (TWO, 7)).unwrap();
    let start = Instant::now();
    thread::scope(|scope| {
        for question in 0..CONNECTIONS {
            let node = &nodes[0];
            scope.spawn(move || {
                let stream = TcpStream::connect_timeout_on(node, &(TWO, 7).into(), PATIENCE).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                ask(&stream, question).unwrap();
                send(&stream, LEN).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                check(&stream, 0).unwrap();
            });
        }
        for _ in 0..CONNECTIONS {
            let (mut stream, _) = listener.accept().unwrap();
            scope.spawn(move || {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut question = [0; 4];
                std::io::Read::read_exact(&mut stream, &mut question).unwrap();
                std::io::Write::write_all(&mut stream, &question).unwrap();
                check(&stream, LEN).unwrap();
            });
        }
    });
    println!("{CONNECTIONS} connections of {LEN} bytes at once in {:?}", start.elapsed());
}

#[test]
fn refusals() {
    let nodes = nodes("switch://refusals");
    let error = TcpStream::connect_on(&nodes[0], (TWO, 9)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    let socket = UdpSocket::bind_on(&nodes[0], (ONE, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect((TWO, 9)).unwrap();
    socket.send(b"?").unwrap();
    assert_eq!(socket.recv(&mut [0; 4]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    // A node that was deleted is not there any more, for one that did not know it before: a neighbour that was heard
    // from counts as reachable for up to 45 seconds (RFC 4861 §10).
    let [_one, two] = nodes;
    two.delete().unwrap();
    let stranger = Stack::new("stack=smoltcp,vnl=switch://refusals,ip=fd00::3/64").unwrap();
    let start = Instant::now();
    let error = TcpStream::connect_on(&stranger, (TWO, 9)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HostUnreachable);
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}
