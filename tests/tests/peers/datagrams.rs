//! UDP between the node and the kernel.

use std::net as std_net;

use ioth::net::UdpSocket;

use crate::fixture::{FAMILIES, PATIENCE, on_lan, rethrow};

/// The smallest, some, and the largest that needs no fragments over IPv6.
const SIZES: [usize; 5] = [0, 1, 512, 1400, 1452];

#[test]
fn there_and_back() {
    on_lan(|lan| {
        let node = lan.node();
        for (ours, theirs) in FAMILIES {
            let mut buffer = [0; 2048];
            // The kernel asks, the node answers.
            let server = UdpSocket::bind_on(&node, (ours, 0)).unwrap();
            server.set_read_timeout(Some(PATIENCE)).unwrap();
            let addr = server.local_addr().unwrap();
            let client = lan.kernel.spawn(move || {
                let client = std_net::UdpSocket::bind((theirs, 0)).unwrap();
                client.connect(addr).unwrap();
                client.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut buffer = [0; 2048];
                for size in SIZES {
                    let question = vec![size as u8; size];
                    assert_eq!(client.send(&question).unwrap(), size);
                    let n = client.recv(&mut buffer).unwrap();
                    assert_eq!(buffer[..n], question);
                }
                client.local_addr().unwrap()
            });
            let mut from = None;
            for size in SIZES {
                let (n, peer) = server.recv_from(&mut buffer).unwrap();
                assert_eq!(n, size);
                assert_eq!(server.send_to(&buffer[..n], peer).unwrap(), n);
                from = Some(peer);
            }
            assert_eq!(from, Some(client.join().unwrap_or_else(rethrow)));

            // The node asks, the kernel answers.
            let server = lan.kernel.run(|| std_net::UdpSocket::bind((theirs, 0)).unwrap());
            server.set_read_timeout(Some(PATIENCE)).unwrap();
            let addr = server.local_addr().unwrap();
            let server = lan.kernel.spawn(move || {
                let mut buffer = [0; 2048];
                for _ in SIZES {
                    let (n, peer) = server.recv_from(&mut buffer).unwrap();
                    assert_eq!(server.send_to(&buffer[..n], peer).unwrap(), n);
                }
            });
            let client = UdpSocket::bind_on(&node, (ours, 0)).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.connect(addr).unwrap();
            for size in SIZES {
                let question = vec![size as u8; size];
                assert_eq!(client.send(&question).unwrap(), size);
                let n = client.recv(&mut buffer).unwrap();
                assert_eq!(buffer[..n], question);
            }
            server.join().unwrap_or_else(rethrow);
        }
    });
}

#[test]
fn the_kernel_broadcasts() {
    on_lan(|lan| {
        let node = lan.node();
        let server = UdpSocket::bind_on(&node, "0.0.0.0:0").unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let port = server.local_addr().unwrap().port();
        let from = lan.kernel.run(|| {
            let client = std_net::UdpSocket::bind((FAMILIES[0].1, 0)).unwrap();
            client.set_broadcast(true).unwrap();
            client.send_to(b"to all", ("10.0.0.255", port)).unwrap();
            client.local_addr().unwrap()
        });
        let mut buffer = [0; 16];
        assert_eq!(server.recv_from(&mut buffer).unwrap(), (6, from));
    });
}
