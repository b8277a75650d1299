//! What goes wrong, and how it is told.

use std::io::{self, ErrorKind};
use std::net as std_net;
use std::time::{Duration, Instant};

use ioth::net::{TcpListener, TcpStream, UdpSocket};
use ioth::{Errno, Stack};

use crate::fixture::{FAMILIES, Lan, NODE4, PATIENCE, Watch, on_lan, rethrow};
use crate::programs::{check, send};

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or_else(|| panic!("{error:?} is not the system's")))
}

#[test]
fn streams_are_refused() {
    on_lan(|lan| {
        let node = lan.node();
        for (ours, theirs) in FAMILIES {
            let start = Instant::now();
            let error = TcpStream::connect_on(&node, (theirs, 9)).unwrap_err();
            assert_eq!(errno(&error), Errno::ECONNREFUSED);
            let error = lan.kernel.run(|| std_net::TcpStream::connect((ours, 9)).unwrap_err());
            assert_eq!(errno(&error), Errno::ECONNREFUSED);
            assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        }
    });
}

#[test]
fn datagrams_are_refused() {
    on_lan(|lan| {
        let node = lan.node();
        for (ours, theirs) in FAMILIES {
            let socket = UdpSocket::bind_on(&node, (ours, 0)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.connect((theirs, 9)).unwrap();
            socket.send(b"?").unwrap();
            assert_eq!(errno(&socket.recv(&mut [0; 4]).unwrap_err()), Errno::ECONNREFUSED);
            // Once: then it is as before.
            socket.send(b"?").unwrap();

            let error = lan.kernel.run(|| {
                let socket = std_net::UdpSocket::bind((theirs, 0)).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket.connect((ours, 9)).unwrap();
                socket.send(b"?").unwrap();
                socket.recv(&mut [0; 4]).unwrap_err()
            });
            assert_eq!(errno(&error), Errno::ECONNREFUSED);
        }
    });
}

#[test]
fn nobody_is_there() {
    on_lan(|lan| {
        let node = lan.node();
        for (host, elsewhere) in [("10.0.0.77", "192.168.7.7"), ("fd00::77", "2001:db8::1")] {
            let start = Instant::now();
            let error = TcpStream::connect_on(&node, (host, 80)).unwrap_err();
            assert_eq!(errno(&error), Errno::EHOSTUNREACH, "{host}");
            // RFC 4861 §10: three solicitations, a second apart.
            assert!((2..8).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
            let error = TcpStream::connect_on(&node, (elsewhere, 80)).unwrap_err();
            assert_eq!(errno(&error), Errno::ENETUNREACH, "{elsewhere}");
        }
    });
}

#[test]
fn an_address_in_use() {
    on_lan(|lan| {
        let node = lan.node();
        for (ours, theirs) in FAMILIES {
            let listener = TcpListener::bind_on(&node, (ours, 0)).unwrap();
            let error = TcpListener::bind_on(&node, listener.local_addr().unwrap()).unwrap_err();
            assert_eq!(errno(&error), Errno::EADDRINUSE);
            let socket = UdpSocket::bind_on(&node, (ours, 0)).unwrap();
            let error = UdpSocket::bind_on(&node, socket.local_addr().unwrap()).unwrap_err();
            assert_eq!(errno(&error), Errno::EADDRINUSE);
            // Another node's address, and the same port on another node.
            let error = TcpListener::bind_on(&node, (theirs, 0)).unwrap_err();
            assert_eq!(errno(&error), Errno::EADDRNOTAVAIL);
            let port = listener.local_addr().unwrap().port();
            lan.kernel.run(|| std_net::TcpListener::bind((theirs, port)).unwrap());
        }
    });
}

/// A switch that crashes in the middle of a transfer is told as a cable that was pulled: calls end by their time-outs or
/// with what a kernel would say, and other nodes of the process go on.
#[test]
fn the_switch_dies() {
    on_lan(|lan| {
        let node = lan.node();
        let (receiving, sending, _sink) = established(lan, &node);
        let datagrams = UdpSocket::bind_on(&node, (NODE4, 0)).unwrap();
        let [one, two] = ["1", "2"].map(|host| {
            Stack::new(&format!("stack=smoltcp,vnl=switch://elsewhere,ip=fd00:1::{host}/64")).unwrap()
        });
        let elsewhere = TcpListener::bind_on(&two, "[fd00:1::2]:7").unwrap();
        let before = TcpStream::connect_on(&one, "[fd00:1::2]:7").unwrap();

        let mut received = 0;
        let mut buffer = [0; 65536];
        while received < 5_000_000 {
            received += io::Read::read(&mut &receiving, &mut buffer).unwrap();
        }
        lan.switch.kill();

        let limit = Duration::from_secs(2);
        receiving.set_read_timeout(Some(limit)).unwrap();
        sending.set_write_timeout(Some(limit)).unwrap();
        datagrams.set_read_timeout(Some(limit)).unwrap();
        let ends = |what: &str, within: Duration, call: &dyn Fn() -> io::Error| {
            let _watch = Watch::over(what, PATIENCE);
            let start = Instant::now();
            let error = call();
            println!("{what}: {error} after {:?}", start.elapsed());
            assert!(start.elapsed() < within, "{what} took {:?}", start.elapsed());
            let kinds = [
                ErrorKind::WouldBlock,
                ErrorKind::TimedOut,
                ErrorKind::HostUnreachable,
                ErrorKind::NetworkDown,
            ];
            assert!(kinds.contains(&error.kind()), "{what}: {error:?}");
        };
        ends("a stream's recv", 3 * limit, &|| loop {
            // What had arrived comes first.
            match io::Read::read(&mut &receiving, &mut [0; 65536]) {
                Ok(0) => panic!("the end of a stream that nobody ended"),
                Ok(_) => {}
                Err(error) => return error,
            }
        });
        ends("a stream's send", 3 * limit, &|| send(&sending, usize::MAX).unwrap_err());
        ends("a datagram socket's recv", 3 * limit, &|| datagrams.recv_from(&mut [0; 4]).unwrap_err());
        ends("a connect", 10 * limit, &|| {
            let addr = (FAMILIES[0].1, 7).into();
            TcpStream::connect_timeout_on(&node, &addr, 3 * limit).unwrap_err()
        });
        let link = node.route().unwrap().link(node.if_nametoindex("vde0").unwrap()).unwrap();
        assert!(link.up() && !link.flags.contains(ioth::core::netlink::LinkFlags::RUNNING), "{link:?}");

        // The others are as they were.
        let (after, _) = elsewhere.accept().unwrap();
        let sender = std::thread::spawn(move || send(&before, 10_000_000));
        after.set_read_timeout(Some(PATIENCE)).unwrap();
        check(&after, 10_000_000).unwrap();
        sender.join().unwrap_or_else(rethrow).unwrap();

        // A dead switch has nobody who answers at its door.
        let error = Stack::newstack("smoltcp", Some(&lan.switch.vnl())).unwrap_err();
        assert!([Errno::ECONNREFUSED, Errno::ENOENT].contains(&error.errno()), "{error}");
        drop((receiving, sending, datagrams));
        node.delete().unwrap();
    });
}

/// A stream on which the kernel sends without end, and one that it never accepts from its listener.
fn established(lan: &Lan, node: &Stack) -> (TcpStream, TcpStream, std_net::TcpListener) {
    let listener = TcpListener::bind_on(node, (NODE4, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    // They end when this process does, or the kernel gives up.
    lan.kernel.spawn(move || {
        let stream = std_net::TcpStream::connect_timeout(&addr, PATIENCE).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let _ = send(&stream, usize::MAX);
    });
    let (receiving, _) = listener.accept().unwrap();
    receiving.set_read_timeout(Some(PATIENCE)).unwrap();
    let sink = lan.kernel.run(|| std_net::TcpListener::bind((FAMILIES[0].1, 0)).unwrap());
    let sending = TcpStream::connect_timeout_on(node, &sink.local_addr().unwrap(), PATIENCE).unwrap();
    (receiving, sending, sink)
}

#[test]
fn what_cannot_be_a_stack() {
    for (config, expected, says) in [
        ("stack=smoltcp,vnl=vd:///tmp/sw", Errno::EPROTONOSUPPORT, "unknown scheme \"vd\""),
        ("stack=smoltcp,vnl=switch://lan[mtu=x]", Errno::EINVAL, "mtu"),
        ("stack=smoltcp,vnl=switch://lan[mtu=1500", Errno::EINVAL, "["),
        ("stack=smoltcp,vnl=switch://lan[colour=red]", Errno::EINVAL, "colour"),
        ("stack=smoltcp,vnl=switch:///nonexistent/lan", Errno::ENOENT, "/nonexistent/lan"),
        ("stack=smoltcp,vnl=pcap://", Errno::EINVAL, "pcap"),
        ("stack=smoltcp,vnl=fault://{switch://lan}/loss=200%", Errno::EINVAL, "loss"),
        ("stack=smoltcp,vnl=vde:///nonexistent/switch", Errno::ENOENT, "/nonexistent/switch"),
        ("stack=smoltpc,vnl=switch://lan", Errno::ENOTSUP, "\"smoltpc\""),
        ("stack='smoltcp,fast',vnl=switch://lan", Errno::EINVAL, "fast"),
        ("stack=smoltcp,vnl=switch://lan,ip=fd00::1/129", Errno::EINVAL, "129"),
        ("stack=smoltcp,vnl=switch://lan,eht", Errno::EINVAL, "eth"),
        ("stack=smoltcp,vnl=a:switch://x,vnl=a:switch://y", Errno::EEXIST, "\"a\""),
        ("stack=smoltcp,vnl=switch://lan,iface=nosuch,ip=fd00::1", Errno::ENODEV, "nosuch"),
    ] {
        let error = Stack::new(config).map(drop).expect_err(config);
        assert_eq!(error.errno(), expected, "{config}: {error}");
        assert!(error.to_string().contains(says), "{config}: {error}");
        println!("{config}\n\t{error}");
    }
}
