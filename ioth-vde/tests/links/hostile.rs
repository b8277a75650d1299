//! Peers that mean no good, where the tests of a link do not have them already.
//!
//! | what they do | to | tried by (or here) |
//! |---|---|---|
//! | bytes that are no request, or no frame | a switch's control socket | `switches::node::whoever_asks_wrongly_is_hung_up_on` |
//! | | its data sockets | `switches::node::frames_up_to_vdes_largest`, `garbage_for_a_trunk` |
//! | | its management | `switches::management::hostile_managers`, `any_commands` |
//! | | a switch's client | `vde::tests::hostile_replies`, `garbage_from_a_switch_is_counted_and_ends_nothing` |
//! | | `vxlan://`, `vxvde://` | `overlay::what_is_no_frame_of_the_network_is_counted`, `.._of_a_group_is_counted` |
//! | | `udp://`, `seqpacket://` | `datagram::udp_takes_what_is_a_frame`, `a_socket_that_was_inherited` |
//! | | `ptp://`, both forms | `a_cables_other_end_sends_garbage_and_comes_again_and_again`, `garbage_by_the_older_form_of_a_cable` |
//! | | `cmd://`, `ioth plug` | `cmd::what_is_no_stream_of_frames_ends_the_link`, and as the fuzzer's `stream` |
//! | they stop reading | a switch's ports | `switches::node::a_peer_that_does_not_read_blocks_nobody`, `floods_wait_for_nobody` |
//! | | its management | `switches::management::hostile_managers` |
//! | | `vde://` | `switches::vde_switch::a_stopped_switch_pushes_back` |
//! | | `seqpacket://`, `cmd://` | `datagram::a_peer_that_stops_reading_pushes_back`, `cmd::a_command_that_reads_nothing_pushes_back` |
//! | | `ptp://`, both forms | `a_cables_other_end_that_stops_reading_pushes_back` |
//! | they come again and again | a switch, its management, a cable | `switches::node::reconnecting_in_a_loop_leaves_nothing`, and here |
//! | they make up addresses | a switch, an overlay, a trunk | `switches::node::made_up_addresses_do_not_push_out_others`, `overlay::a_flood_of_addresses_..`, here |
//! | they take all ports | vde_switch's client, our switch | `switches::vde_switch::a_full_switch_times_out`, `a_full_port_table_refuses_and_tells` |
//! | they are there before us | paths | `switches::node::paths_that_are_taken`, and here |
//! | they are another user | sockets, directories | `switches::node::a_socket_of_somebody_else_is_not_written_to`, `another_users_places`, and ioth-cli's `another_users_switch` |

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use ioth_core::Errno;
use ioth_vde::node::{Config, Node};
use ioth_vde::{Frame, open};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, recv, send, socket,
};

use crate::plug::{Dir, PATIENCE, Plug, frame, wait_until};
use crate::switches::node::{Client, Served, request};

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
fn garbage_by_the_older_form_of_a_cable() {
    let dir = Dir::new();
    let path = dir.path("cable");
    let first = Plug::new(&format!("ptp://{path}[old]"));
    let name = UnixAddr::new(&*path).unwrap();
    // Strangers without a name, who come and go, and one with the other end's.
    for round in 0..100 {
        let stranger = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
        if round == 99 {
            bind(stranger.as_raw_fd(), &UnixAddr::new(&*format!("{path}+")).unwrap()).unwrap();
        }
        connect(stranger.as_raw_fd(), &name).unwrap();
        // One of no bytes is a goodbye.
        for len in [1, 13, 1519, 30_000, 0, 60] {
            send(stranger.as_raw_fd(), &frame(1, 2, 30_000, round)[..len], MsgFlags::empty()).unwrap();
        }
        assert_eq!(first.seen.frames(1), [frame(1, 2, 30_000, round)[..60].to_vec()]);
    }
    let counters = first.link.counters();
    assert_eq!((counters.rx_frames, counters.rx_bad_length), (100, 400));
    // The last one went without a word, and left its name: it is nobody, and the next one takes its place.
    let second = Plug::new(&format!("ptp://{path}"));
    first.exchange(&second, 1514);
}

#[test]
fn a_cables_other_end_that_stops_reading_pushes_back() {
    for old in [false, true] {
        let dir = Dir::new();
        let path = dir.path("cable");
        let plug = Plug::new(&format!("ptp://{path}{}", if old { "[old]" } else { "" }));
        let other = if old {
            let fd = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
            bind(fd.as_raw_fd(), &UnixAddr::new(&*format!("{path}+")).unwrap()).unwrap();
            fd
        } else {
            let fd = seqpacket(&path);
            assert_eq!(recv(fd.as_raw_fd(), &mut [0; 2], MsgFlags::empty()), Ok(1));
            fd
        };
        let mut batch = (0..5000).map(|number| Frame::copy_of(&frame(2, 1, 1514, number))).collect();
        plug.link.send(&mut batch).unwrap();
        let left = batch.len();
        assert!(left > 0 && left < 5000, "{left} frames left");
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 2000];
            for number in 0..5000 {
                let len = recv(other.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
                assert_eq!(buffer[..len], frame(2, 1, 1514, number));
            }
            other
        });
        plug.send(batch.drain(..).map(|frame| frame.to_vec()));
        let _other = reader.join().unwrap();
        assert_eq!(plug.link.counters().tx_frames, 5000);
    }
}

#[test]
fn a_full_port_table_refuses_and_tells() {
    let served = Served::start(3);
    let clients = [(); 2].map(|()| served.client());
    for count in 1..=20 {
        assert!(Client::plug(&served.path(), &request(3, 0, b"one too many")).is_none());
        assert!(served.command("status/json").contains(&format!("\"no free port\":{count}")));
    }
    // By our own link it is an error that says so.
    let error = open(&format!("vde://{}", served.path().display())).unwrap_err();
    assert!(error.to_string().contains("asking for a port"), "{error}");
    drop(clients);
    wait_until("a port", || Client::plug(&served.path(), &request(3, 0, b"next")).is_some());
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
        let link = Client::plug(path.as_ref(), &request(3, 0, b"liar")).unwrap();
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
