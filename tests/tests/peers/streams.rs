//! TCP between the node and the kernel.

use std::net::{IpAddr, Shutdown};
use std::{net as std_net, thread};

use ioth::net::{TcpListener, TcpStream};

use crate::fixture::{FAMILIES, KERNEL4, KERNEL6, Lan, NODE4, NODE6, PATIENCE, on_lan, rethrow};
use crate::programs::{ask, check, echo, report, send};

const LONG: usize = 100_000_000;

#[test]
fn the_kernel_sends_100_mb_over_ipv4() {
    on_lan(|lan| kernel_sends(lan, NODE4));
}

#[test]
fn the_kernel_sends_100_mb_over_ipv6() {
    on_lan(|lan| kernel_sends(lan, NODE6));
}

#[test]
fn the_node_sends_100_mb_over_ipv4() {
    on_lan(|lan| node_sends(lan, KERNEL4));
}

#[test]
fn the_node_sends_100_mb_over_ipv6() {
    on_lan(|lan| node_sends(lan, KERNEL6));
}

fn kernel_sends(lan: &Lan, to: IpAddr) {
    let node = lan.node();
    let listener = TcpListener::bind_on(&node, (to, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    report(&format!("kernel to node, {to}, {}", congestion_control(lan)), LONG, || {
        let sender = lan.kernel.spawn(move || {
            let stream = std_net::TcpStream::connect_timeout(&addr, PATIENCE).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            send(&stream, LONG).unwrap();
        });
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let checked = check(&stream, LONG);
        sender.join().unwrap_or_else(rethrow);
        checked.unwrap();
    });
}

fn node_sends(lan: &Lan, to: IpAddr) {
    let node = lan.node();
    let listener = lan.kernel.run(|| std_net::TcpListener::bind((to, 0)).unwrap());
    let addr = listener.local_addr().unwrap();
    report(&format!("node to kernel, {to}, cubic"), LONG, || {
        let receiver = lan.kernel.spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            check(&stream, LONG).unwrap();
        });
        let stream = TcpStream::connect_timeout_on(&node, &addr, PATIENCE).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let sent = send(&stream, LONG);
        drop(stream);
        receiver.join().unwrap_or_else(rethrow);
        sent.unwrap();
    });
}

/// The kernel's, which its throughput depends on.
fn congestion_control(lan: &Lan) -> String {
    lan.kernel
        .run(|| std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control"))
        .map_or_else(|_| "?".to_owned(), |name| name.trim().to_owned())
}

#[test]
fn both_ways_at_once() {
    const EACH: usize = 20_000_000;
    on_lan(|lan| {
        let node = lan.node();
        let listener = TcpListener::bind_on(&node, (NODE6, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        report("both ways at once, IPv6", 2 * EACH, || {
            let peer = lan.kernel.spawn(move || {
                let stream = std_net::TcpStream::connect_timeout(&addr, PATIENCE).unwrap();
                stream.set_write_timeout(Some(PATIENCE)).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                thread::scope(|scope| {
                    scope.spawn(|| {
                        send(&stream, EACH).unwrap();
                        stream.shutdown(Shutdown::Write).unwrap();
                    });
                    check(&stream, EACH).unwrap();
                });
            });
            let (stream, from) = listener.accept().unwrap();
            assert_eq!(from.ip(), KERNEL6);
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            thread::scope(|scope| {
                scope.spawn(|| {
                    send(&stream, EACH).unwrap();
                    stream.shutdown(Shutdown::Write).unwrap();
                });
                check(&stream, EACH).unwrap();
            });
            peer.join().unwrap_or_else(rethrow);
        });
    });
}

#[test]
fn short_connections() {
    const CONNECTIONS: u32 = 300;
    on_lan(|lan| {
        let node = lan.node();
        let listener = TcpListener::bind_on(&node, (NODE4, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let start = std::time::Instant::now();
        let clients = lan.kernel.spawn(move || {
            for question in 0..CONNECTIONS {
                let stream = std_net::TcpStream::connect_timeout(&addr, PATIENCE).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                ask(&stream, question).unwrap();
            }
        });
        for _ in 0..CONNECTIONS {
            let (stream, from) = listener.accept().unwrap();
            assert_eq!(from.ip(), KERNEL4);
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            echo(&stream).unwrap();
        }
        clients.join().unwrap_or_else(rethrow);
        println!("{CONNECTIONS} connections from the kernel in {:?}", start.elapsed());

        let listener = lan.kernel.run(|| std_net::TcpListener::bind((KERNEL4, 0)).unwrap());
        let addr = listener.local_addr().unwrap();
        let start = std::time::Instant::now();
        let server = lan.kernel.spawn(move || {
            for _ in 0..CONNECTIONS {
                let (stream, from) = listener.accept().unwrap();
                assert_eq!(from.ip(), NODE4);
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                echo(&stream).unwrap();
            }
        });
        for question in 0..CONNECTIONS {
            let stream = TcpStream::connect_timeout_on(&node, &addr, PATIENCE).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            ask(&stream, question).unwrap();
        }
        server.join().unwrap_or_else(rethrow);
        println!("{CONNECTIONS} connections from the node in {:?}", start.elapsed());
    });
}

#[test]
fn half_closed() {
    on_lan(|lan| {
        let node = lan.node();
        for (ours, theirs) in FAMILIES {
            // The kernel ends its side first, and goes on to receive.
            let listener = TcpListener::bind_on(&node, (ours, 0)).unwrap();
            let addr = listener.local_addr().unwrap();
            let peer = lan.kernel.spawn(move || {
                let stream = std_net::TcpStream::connect_timeout(&addr, PATIENCE).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                check(&stream, 1_000_000).unwrap();
            });
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            check(&stream, 0).unwrap();
            send(&stream, 1_000_000).unwrap();
            drop(stream);
            peer.join().unwrap_or_else(rethrow);

            // And the node.
            let listener = lan.kernel.run(|| std_net::TcpListener::bind((theirs, 0)).unwrap());
            let addr = listener.local_addr().unwrap();
            let peer = lan.kernel.spawn(move || {
                let (stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                check(&stream, 0).unwrap();
                send(&stream, 1_000_000).unwrap();
            });
            let stream = TcpStream::connect_timeout_on(&node, &addr, PATIENCE).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            check(&stream, 1_000_000).unwrap();
            peer.join().unwrap_or_else(rethrow);
        }
    });
}
