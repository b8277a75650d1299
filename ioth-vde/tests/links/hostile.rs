//! Peers that mean no good, where the tests of a link do not have them already.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use ioth_core::Errno;
use ioth_vde::node::{Config, Node};
use ioth_vde::open;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, socket};

use crate::plug::{Dir, PATIENCE, Plug, frame, wait_until};
use crate::switches::node::{Served, request};

fn seqpacket(path: &str) -> OwnedFd {
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    connect(fd.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    fd
}

#[test]
fn a_cables_other_end_sends_garbage_and_comes_again_and_again() {
    let dir = Dir::new();
    let path = dir.path("cable");
    let first = Plug::new(&format!("ptp://{path}"));
    for round in 0..100 {
        let mut answer = [0; 2];
        let fd = loop {
            // Until it has noticed that the last one is gone, the cable has its two ends.
            let fd = seqpacket(&path);
            if recv(fd.as_raw_fd(), &mut answer, MsgFlags::empty()) == Ok(1) && answer[0] == 0 {
                break fd;
            }
        };
        for len in [1, 13, 1519, 30_000, 60] {
            send(fd.as_raw_fd(), &frame(1, 2, 30_000, round)[..len], MsgFlags::empty()).unwrap();
        }
        assert_eq!(first.seen.frames(1), [frame(1, 2, 30_000, round)[..60].to_vec()]);
    }
    let counters = first.link.counters();
    assert_eq!((counters.rx_frames, counters.rx_bad_length), (100, 400));
    // What is there already is nobody's to take.
    std::fs::write(dir.path("file"), "mine").unwrap();
    assert!(open(&format!("ptp://{}", dir.path("file"))).is_err());
    assert_eq!(std::fs::read(dir.path("file")).unwrap(), b"mine");
}

#[test]
fn a_client_that_goes_on_talking_on_its_control_socket() {
    let served = Served::start(8);
    let [talker, other] = [(); 2].map(|()| served.client());
    let mut control = talker.control.try_clone().unwrap();
    control.set_nonblocking(true).unwrap();
    // Requests, and what is none: the port is its, and nothing more is heard there.
    for _ in 0..1000 {
        if control.write_all(&[0x5a; 4096]).is_err() {
            std::thread::yield_now();
        }
    }
    other.data.send(&frame(0xff, 1, 60, 1)).unwrap();
    assert_eq!(talker.receive(), frame(0xff, 1, 60, 1));
    talker.data.send(&frame(1, 2, 60, 2)).unwrap();
    assert_eq!(other.receive(), frame(1, 2, 60, 2));
    assert_eq!(served.command("port/print").matches("endpoint ID").count(), 2);
}

#[test]
fn managers_who_come_and_go_in_a_loop() {
    let served = Served::start(4);
    for round in 0..300 {
        let mut stream = UnixStream::connect(served.dir.join("mgmt")).unwrap();
        // Some say something on the way, whole or not, and none waits for the answer.
        let _ = stream.write_all(
            [&b""[..], b"debug/add\n", b"port/print", b"\xff\xfe\n\0\n", b"help\nhelp\n"][round % 5],
        );
    }
    wait_until("a manager to be heard", || {
        let mut stream = UnixStream::connect(served.dir.join("mgmt")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read(&mut [0; 100]).is_ok_and(|len| len > 0)
    });
    assert!(served.command("port/print").contains("1000 Success"));
}

/// A trunk's links may be anybody's who may use the directory: a switch's rules for bad frames hold.
#[test]
fn garbage_for_a_trunk() {
    for scheme in ["multi", "bonding"] {
        let dir = Dir::new();
        let path = dir.path("trunk");
        let host = Plug::new(&format!("{scheme}://{path}"));
        let link = crate::switches::node::Client::plug(path.as_ref(), &request(3, 0, b"liar")).unwrap();
        for len in [0, 1, 13, 9235, 20_000, 14] {
            link.data.send(&vec![0xff; len]).unwrap();
        }
        assert_eq!(host.seen.frames(1), [vec![0xff; 14]]);
        // From any number of addresses, and to nobody: it learns none of them.
        for station in 0..10_000_u32 {
            let mut made_up = frame(0xff, 1, 60, station);
            made_up[8..12].copy_from_slice(&station.to_be_bytes());
            link.data.send(&made_up).unwrap();
        }
        let mut last = host.seen.frames(1);
        while last.last().is_none_or(|frame| frame[14..18] != 9_999_u32.to_be_bytes()) {
            last = host.seen.frames(1);
        }
        // For longer frames than the node takes there is no room in it either.
        host.send([vec![0xff; 1515]]);
        assert_eq!(host.link.counters().tx_bad_length, 1);
    }
}

#[test]
fn another_users_places() {
    let dir = Dir::new();
    let path = dir.path("theirs");
    std::fs::create_dir(&path).unwrap();
    let nobody = 65_534;
    if std::os::unix::fs::chown(&path, Some(nobody), Some(nobody)).is_err() {
        // Only root may give it away; for anybody else root's own is another user's.
        let error = Node::open(Config::new("/root")).unwrap_err();
        assert!(matches!(error.errno(), Errno::EEXIST | Errno::EACCES), "{error}");
        return;
    }
    let error = Node::open(Config::new(&path)).unwrap_err();
    assert_eq!(error.errno(), Errno::EEXIST, "{error}");
    assert!(error.to_string().contains("another user's directory"), "{error}");
    assert!(std::path::Path::new(&path).is_dir());
    let error = open(&format!("multi://{path}")).unwrap_err();
    assert_eq!(error.errno(), Errno::EEXIST, "{error}");
}
