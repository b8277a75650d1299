//! Debian's wirefilter as the cable between two switches: what it loses, delays, repeats and has no room for.
//!
//! Its noise is left out: of the bits that it flips two may cancel out in TCP's checksum, between any two stacks.
//!
//! ```text
//!   node, which serves switch://PATH ── wirefilter ── vde_switch ─┬─ node
//!                                                                 └─ vde_plug ── tap0 ── Linux
//! ```

use std::cell::OnceCell;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use ioth::Stack;
use ioth::net::{TcpListener, TcpStream, UdpSocket};
use ioth_vde::{Frame, Link};

use crate::fixture::{
    FAMILIES, Kernel, Lan, NODE4, NODE6, PATIENCE, Process, command, on_lan, rethrow, wait_until, with_kernel,
};
use crate::links::{streams_go_both_ways, they_find_each_other};
use crate::programs::{check, send};
use crate::switches::Dir;

/// Bytes of a stream: many segments, and few enough for the time that their losses cost.
const LEN: usize = 400_000;

/// A node with a switch of its own, and one on the LAN's; Debian's filter is between the two.
struct Wire {
    near: Stack,
    far: Stack,
    // The filter goes before the switch's directory.
    _filter: Process,
    _dir: Dir,
}

impl Wire {
    /// `options` are wirefilter's, `mtu` the near node's.
    fn new(lan: &Lan, name: &str, options: &str, mtu: usize) -> Self {
        let dir = Dir::new(name);
        let path = dir.path("sw");
        let near = format!("stack=smoltcp,vnl=switch://{path}[mtu={mtu}],ip={NODE4}/24,ip={NODE6}/64");
        let near = Stack::new(&near).unwrap();
        let far = format!("stack=smoltcp,vnl={},ip=10.0.0.3/24,ip=fd00::3/64", lan.switch.vnl());
        let far = Stack::new(&far).unwrap();
        let filter = filter(Path::new(&path), &lan.switch.path(), options);
        Wire { near, far, _filter: filter, _dir: dir }
    }

    /// Streams of both nodes, and of the kernel and the near node, each way and over either family.
    fn carries_streams(&self, lan: &Lan, len: usize) {
        for (near, kernel) in FAMILIES {
            they_find_each_other(&lan.kernel, near);
            streams_go_both_ways(&lan.kernel, &self.near, (near, kernel), len);
            let far: IpAddr = if near.is_ipv4() { "10.0.0.3" } else { "fd00::3" }.parse().unwrap();
            transfer(&self.near, &self.far, far, len);
            transfer(&self.far, &self.near, near, len);
        }
    }
}

/// Joins two switches, and waits until it is in both. The command line is `wirefilter -v LEFT:RIGHT OPTIONS`.
fn filter(left: &Path, right: &Path, options: &str) -> Process {
    // A switch makes a socket for each of its ports.
    let ports = || [left, right].map(|dir| std::fs::read_dir(dir).unwrap().count());
    let before = ports();
    let filter = Process::start(
        Command::new("wirefilter")
            .args(["-v", &format!("{}:{}", left.display(), right.display())])
            .args(options.split(' '))
            // It manages itself by this, and stops at its end.
            .stdin(Stdio::piped()),
        "apt-get install vde2",
    );
    wait_until("wirefilter at both switches", || {
        ports().iter().zip(before).all(|(now, before)| *now > before)
    });
    filter
}

/// A stream from one node to the other.
fn transfer(from: &Stack, to: &Stack, addr: IpAddr, len: usize) {
    let listener = TcpListener::bind_on(to, (addr, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            // Who asks for a neighbour may ask in vain, and be told so: then the kernel's programs would try again, too.
            let stream = wait_for_connection(from, &addr);
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            send(&stream, len).unwrap();
        });
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        check(&stream, len).unwrap();
        sender.join().unwrap_or_else(rethrow);
    });
}

fn wait_for_connection(from: &Stack, addr: &std::net::SocketAddr) -> TcpStream {
    let made = OnceCell::new();
    wait_until("a connection", || {
        TcpStream::connect_timeout_on(from, addr, PATIENCE).is_ok_and(|stream| made.set(stream).is_ok())
    });
    made.into_inner().expect("there is one")
}

#[test]
fn loss() {
    on_lan(|lan| Wire::new(lan, "loss", "-l 5", 1500).carries_streams(lan, LEN));
}

/// Frames are lost in a row, as on a radio.
#[test]
fn loss_in_bursts() {
    on_lan(|lan| Wire::new(lan, "bursts", "-l 3 -L 3", 1500).carries_streams(lan, LEN / 2));
}

/// Later frames overtake earlier ones.
#[test]
fn delay_that_varies() {
    on_lan(|lan| Wire::new(lan, "delay", "-d 10+8 -N", 1500).carries_streams(lan, LEN));
}

#[test]
fn duplicates() {
    on_lan(|lan| {
        let wire = Wire::new(lan, "duplicates", "-D 30", 1500);
        wire.carries_streams(lan, LEN);
        for (near, _) in FAMILIES {
            // Some of a hundred answers or questions come twice.
            let words = format!("-n -q -c 100 -i 0.002 -W 5 {near}");
            let said = lan.kernel.run(|| command("ping", &words, "apt-get install iputils-ping"));
            assert!(said.contains("100 received, +") && said.contains(" duplicates"), "{said}");
        }
        // Datagrams come twice as well: that is how IP is.
        let receiver = UdpSocket::bind_on(&wire.near, (NODE4, 0)).unwrap();
        receiver.set_read_timeout(Some(PATIENCE)).unwrap();
        let sender = UdpSocket::bind_on(&wire.far, "0.0.0.0:0").unwrap();
        let mut seen = 0;
        let mut number = 0u32;
        while seen <= number {
            number += 1;
            sender.send_to(&number.to_be_bytes(), receiver.local_addr().unwrap()).unwrap();
            let mut last = [0; 4];
            while last != number.to_be_bytes() {
                assert_eq!(receiver.recv(&mut last).unwrap(), 4);
                seen += 1;
            }
        }
    });
}

/// Frames of more than 1314 bytes vanish without a word, as in an Ethernet whose segments differ. Who knows of it says so by `mtu=`.
#[test]
fn a_small_mtu() {
    on_lan(|lan| {
        // The filter measures frames with their 14 bytes of header, and two of its own.
        let wire = Wire::new(lan, "mtu", "-m 1316", 1300);
        // One end that knows is enough for streams: each side heeds the other's MSS.
        wire.carries_streams(lan, LEN);
        for (near, _) in FAMILIES {
            let ping = |size: usize| {
                let words = format!("-n -q -c 1 -W 1 -s {size} {near}");
                let run = || Command::new("ping").args(words.split(' ')).output().unwrap().status.success();
                lan.kernel.run(run)
            };
            // Just what fits, and a byte more, which is lost on the way to the node.
            let fits = if near.is_ipv4() { 1300 - 28 } else { 1300 - 48 };
            wait_until("an answer", || ping(fits));
            assert!(!ping(fits + 1));
        }
        // Datagrams of the node go in pieces that fit.
        let receiver = UdpSocket::bind_on(&wire.far, "10.0.0.3:0").unwrap();
        receiver.set_read_timeout(Some(PATIENCE)).unwrap();
        let sender = UdpSocket::bind_on(&wire.near, "0.0.0.0:0").unwrap();
        let sent: Vec<u8> = (0..4000).map(|at| (at * 31) as u8).collect();
        sender.send_to(&sent, receiver.local_addr().unwrap()).unwrap();
        let mut buffer = [0; 5000];
        let len = receiver.recv(&mut buffer).unwrap();
        assert!(buffer[..len] == sent);
    });
}

/// What a link's own MTU has no room for is not sent, and counted under its name.
#[test]
fn what_a_link_has_no_room_for_is_counted() {
    on_lan(|lan| {
        let dir = Dir::new("counted");
        let near = ioth_vde::open(&format!("switch://{}[mtu=1300]", dir.path("sw"))).unwrap();
        let _filter = filter(Path::new(&dir.path("sw")), &lan.switch.path(), "-m 1316");
        let far = ioth_vde::open(&format!("{}[mtu=1500]", lan.switch.vnl())).unwrap();
        let bytes = |len: usize| {
            let mut frame = vec![0; len];
            frame[..14].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
            Frame::copy_of(&frame)
        };
        let lost = |link: &dyn Link| link.counters().tx_bad_length;
        near.send(&mut [bytes(1314), bytes(1315)].into()).unwrap();
        assert_eq!((lost(&*near), near.counters().tx_frames), (1, 1));
        far.send(&mut [bytes(1514), bytes(1515)].into()).unwrap();
        assert_eq!((lost(&*far), far.counters().tx_frames), (1, 1));
    });
}

/// A kernel on either side, and the filter between two switches of ours.
#[test]
fn between_switches_of_ours() {
    with_kernel(|kernel| {
        let [left, right] = ["wire-left", "wire-right"].map(crate::switches::Served::start);
        let _filter = filter(&left.path, &right.path, "-l 2 -d 2 -D 2");
        let config = format!("stack=smoltcp,vnl={},ip={NODE4}/24,ip={NODE6}/64", left.vnl());
        let node = Stack::new(&config).unwrap();
        let _plug = kernel.run(|| Kernel::plug(&right.vnl()));
        for family in FAMILIES {
            they_find_each_other(kernel, family.0);
            streams_go_both_ways(kernel, &node, family, LEN);
        }
    });
}
