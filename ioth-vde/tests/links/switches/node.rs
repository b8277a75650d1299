//! A switch of ours in a directory: what clients of all kinds, and those who mean no good, get from it.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use ioth_core::Errno;
use ioth_vde::node::{Config, Node};
use ioth_vde::{Batch, Frame, LinkError, open};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, connect, socket};

use super::{introduce, is_socket, manage};
use crate::plug::{PATIENCE, Plug, frame, wait_until};

/// A directory of its own for each test.
pub(crate) fn scratch() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("ioth-node-{}-{count}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    dir
}

/// A switch with a thread of its own.
pub(crate) struct Served {
    pub(crate) dir: PathBuf,
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    pub(crate) fn start(ports: usize) -> Self {
        let dir = scratch();
        let mut config = Config::new(dir.join("sw"));
        config.bridge.ports = ports;
        let mut node = Node::open(config).unwrap();
        node.manage(dir.join("mgmt"), 0o600, None).unwrap();
        let (stop, stopped) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || node.serve(stopped.as_fd()).unwrap());
        Served { dir, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join("sw")
    }

    pub(crate) fn client(&self) -> Client {
        Client::plug(&self.path(), &request(3, 0, b"client")).unwrap()
    }

    pub(crate) fn command(&self, command: &str) -> String {
        manage(&self.dir.join("mgmt"), command)
    }

    fn names(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && !std::thread::panicking()
        {
            thread.join().unwrap();
            assert!(!self.path().exists(), "the directory is gone");
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A client without any of our code.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) control: UnixStream,
    pub(crate) data: UnixDatagram,
    path: String,
}

/// A request's words, and how its data socket is called.
pub(crate) struct Ask {
    words: Vec<u8>,
    description: Vec<u8>,
}

pub(crate) fn request(version: u32, kind: u32, description: &[u8]) -> Ask {
    let words = [0xfeed_face, version, kind].map(u32::to_ne_bytes).concat();
    Ask { words, description: description.to_vec() }
}

fn old_request(kind: u32, description: &[u8]) -> Ask {
    let words = [&0xfeed_face_u32.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 6]].concat();
    Ask { words, description: description.to_vec() }
}

impl Client {
    /// `None` when the switch hung up.
    pub(crate) fn plug(dir: &Path, ask: &Ask) -> Option<Client> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut name = format!("ioth-client-{}-{count}", std::process::id()).into_bytes();
        name.resize(107, 0);
        let data = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(data.as_raw_fd(), &UnixAddr::new_abstract(&name).unwrap()).unwrap();
        let bytes = [&ask.words[..], &1u16.to_ne_bytes(), &[0], &name, &ask.description].concat();
        let control = converse(dir, &bytes)?;
        let (control, reply) = control;
        let path = String::from_utf8(reply[2..].to_vec()).unwrap();
        let path = path.trim_end_matches('\0').to_owned();
        connect(data.as_raw_fd(), &UnixAddr::new(Path::new(&path)).unwrap()).unwrap();
        let data = UnixDatagram::from(data);
        data.set_read_timeout(Some(PATIENCE)).unwrap();
        Some(Client { control, data, path })
    }

    pub(crate) fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 20_000];
        let len = self.data.recv(&mut buffer).unwrap();
        buffer.truncate(len);
        buffer
    }

    /// Nothing has come by the time at which what the switch got before is dealt with.
    fn has_nothing(&self) -> bool {
        self.data.set_nonblocking(true).unwrap();
        let result = self.data.recv(&mut [0; 1]);
        self.data.set_nonblocking(false).unwrap();
        result.is_err()
    }
}

/// Says this on a control socket: the answer, or `None` when the switch hung up.
fn converse(dir: &Path, bytes: &[u8]) -> Option<(UnixStream, [u8; 110])> {
    let mut control = UnixStream::connect(dir.join("ctl")).unwrap();
    control.set_read_timeout(Some(PATIENCE)).unwrap();
    control.write_all(bytes).unwrap();
    let mut reply = [0; 110];
    match control.read_exact(&mut reply) {
        Ok(()) => Some((control, reply)),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the client is left waiting"),
        Err(_) => None,
    }
}

#[test]
fn frames_up_to_vdes_largest() {
    let served = Served::start(32);
    let [a, b, c] = [(); 3].map(|()| served.client());
    let big = frame(0xff, 1, 9234, 7);
    a.data.send(&big).unwrap();
    assert!(b.receive() == big && c.receive() == big);
    let back = frame(1, 2, 60, 8);
    b.data.send(&back).unwrap();
    assert_eq!(a.receive(), back);
    // Too long and too short ones are counted, and go nowhere.
    for odd in [vec![0xff; 9235], vec![0xff; 13], vec![]] {
        a.data.send(&odd).unwrap();
    }
    a.data.send(&frame(2, 1, 14, 0)).unwrap();
    assert_eq!(b.receive().len(), 14);
    assert!(c.has_nothing());
    let drops = served.command("port/drops 1");
    assert!(drops.contains("Port 0001 rx_short=2 rx_long=1 rx_vlan=0"), "{drops}");
}

#[test]
fn both_forms_and_ports_by_number() {
    let served = Served::start(8);
    let plug = |ask: &Ask| Client::plug(&served.path(), ask).unwrap();
    let clients = [
        plug(&request(3, 0, b"any")),
        plug(&request(3, 5 << 8, b"five")),
        plug(&request(3, 5 << 8, b"five as well")),
        plug(&request(3, 1, b"zero")),
        plug(&old_request(0, b"old")),
        plug(&old_request(1, b"old zero")),
    ];
    let ports = clients.each_ref().map(|client| client.path.rsplit_once('/').unwrap().1[..3].to_owned());
    assert_eq!(ports, ["001", "005", "005", "000", "002", "000"]);
    // Who shares a port gets the same, and not what comes from there.
    clients[1].data.send(&frame(0xff, 1, 60, 1)).unwrap();
    assert_eq!(clients[0].receive(), frame(0xff, 1, 60, 1));
    clients[0].data.send(&frame(1, 2, 60, 2)).unwrap();
    for client in &clients[1..3] {
        assert_eq!(client.receive(), frame(1, 2, 60, 2));
    }
    let listed = served.command("port/print 5");
    assert!(listed.contains("module unix prog   : five as well\n  -- endpoint ID"), "{listed}");
    // What is not there any more.
    let names = served.names();
    assert_eq!(names.len(), 7, "{names:?}");
    drop(clients);
    wait_until("the names to go", || served.names().len() == 1);
    assert!(served.command("port/print").starts_with("0000 DATA END WITH '.'\n.\n1000 Success"));
}

#[test]
fn whoever_asks_wrongly_is_hung_up_on() {
    let served = Served::start(3);
    let path = served.path();
    let whole = [&request(3, 0, b"").words[..], &[1, 0], &[0; 108]].concat();
    let mut named = whole.clone();
    named[14..19].copy_from_slice(b"/etc/");
    let mut journal = whole.clone();
    journal[14..23].copy_from_slice(b"/dev/null");
    for wrong in [
        &[][..],
        &[0],
        b"GET / HTTP/1.0\r\n\r\n",
        &[0xff; 256],
        &whole[..50],
        &whole,
        &named,
        &journal,
        &[7; 4000],
    ] {
        let mut control = UnixStream::connect(path.join("ctl")).unwrap();
        control.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may have hung up before all is written.
        let _ = control.write_all(wrong);
        if wrong.is_empty() {
            control.shutdown(std::net::Shutdown::Write).unwrap();
        }
        let end = control.read(&mut [0; 200]);
        assert!(!matches!(&end, Ok(1..)), "{end:?}");
        assert!(end.is_ok() || end.unwrap_err().kind() != std::io::ErrorKind::WouldBlock, "{wrong:?}");
    }
    for wrong in [request(2, 0, b""), request(4, 0, b""), request(3, 2, b""), request(3, 3 << 8, b"")] {
        assert!(Client::plug(&path, &wrong).is_none());
    }
    // All ports taken: the others hear so.
    let clients = [served.client(), served.client()];
    assert!(Client::plug(&path, &request(3, 0, b"")).is_none());
    let error = open(&format!("vde://{}", path.display())).unwrap_err();
    assert_eq!(error.errno(), Errno::ECONNREFUSED, "{error}");
    drop(clients);
    wait_until("a free port", || Client::plug(&path, &request(3, 0, b"")).is_some());
    let status = served.command("status/json");
    for why in ["bad request", "no free port", "no such port", "its socket cannot be reached"] {
        assert!(status.contains(&format!("\"{why}\":")), "{why}: {status}");
    }
}

#[test]
fn a_socket_of_somebody_else_is_not_written_to() {
    let served = Served::start(8);
    // A socket that is there, under another name than the client says.
    let theirs = served.dir.join("theirs");
    let socket = UnixDatagram::bind(&theirs).unwrap();
    let link = served.dir.join("link");
    std::os::unix::fs::symlink(&theirs, &link).unwrap();
    let ask = |path: &Path| {
        let mut bytes =
            [&request(3, 0, b"").words[..], &[1, 0], path.as_os_str().as_encoded_bytes()].concat();
        bytes.resize(12 + 110, 0);
        converse(&served.path(), &bytes)
    };
    assert!(ask(&link).is_none());
    assert!(ask(&theirs).is_some());
    drop(socket);
}

#[test]
fn guests_who_say_nothing_make_room() {
    let served = Served::start(8);
    let guests: Vec<_> = (0..65).map(|_| UnixStream::connect(served.path().join("ctl")).unwrap()).collect();
    let mut first = &guests[0];
    first.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(first.read_to_end(&mut Vec::new()).unwrap(), 0);
    // The last ones have their time, and no more.
    let mut last = guests.last().unwrap();
    last.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(last.read_to_end(&mut Vec::new()).unwrap(), 0);
    assert!(served.command("status/json").contains("\"no request\":65"));
}

#[test]
fn a_peer_that_does_not_read_blocks_nobody() {
    let served = Served::start(8);
    let [a, stuck, b] = [(); 3].map(|()| served.client());
    stuck.data.send(&frame(0xff, 2, 60, 0)).unwrap();
    b.data.send(&frame(0xff, 3, 60, 0)).unwrap();
    assert!(a.receive().len() == 60 && a.receive().len() == 60 && b.receive().len() == 60);
    // It waits for a moment when all room is used up, and then no more.
    for number in 0..20_000 {
        a.data.send(&frame(2, 1, 1514, number)).unwrap();
    }
    a.data.send(&frame(3, 1, 60, 1)).unwrap();
    assert_eq!(b.receive(), frame(3, 1, 60, 1));
    let status = served.command("status/json");
    assert!(status.contains("\"slow\":true"), "{status}");
    // It keeps what there was room for, in order, once it reads again.
    stuck.data.set_nonblocking(true).unwrap();
    let mut next = 0;
    let mut buffer = [0; 2000];
    let deadline = Instant::now() + PATIENCE;
    wait_until("the queue to be read", || {
        while let Ok(len) = stuck.data.recv(&mut buffer) {
            if len == 1514 {
                let number = u32::from_be_bytes(buffer[14..18].try_into().unwrap());
                assert!(number >= next);
                next = number + 1;
            }
            assert!(Instant::now() < deadline);
        }
        served.command("status/json").contains("\"queued\":0,\"slow\":false}]},{\"port\":3")
    });
    let lost = served.command("port/drops 2");
    assert!(!lost.contains("tx_full=0") && lost.contains("tx_refused=0"), "{lost}");
}

#[test]
fn floods_wait_for_nobody() {
    let served = Served::start(8);
    let [a, _stuck, _deaf] = [(); 3].map(|()| served.client());
    for number in 0..10_000 {
        // To a station that nobody has heard of.
        a.data.send(&frame(99, 1, 1514, number)).unwrap();
    }
    wait_until("all of it to be read", || {
        let counted = served.command("port/print 1");
        counted.split_whitespace().collect::<Vec<_>>().join(" ").contains("IN: pkts 10000")
    });
    let status = served.command("status/json");
    assert!(!status.contains("\"slow\":true") && status.contains("\"tx_refused\":0"), "{status}");
    for port in [2, 3] {
        assert!(!served.command(&format!("port/drops {port}")).contains("tx_full=0"));
    }
}

#[test]
fn a_slower_reader_loses_nothing() {
    const FRAMES: u32 = 30_000;
    let served = Served::start(8);
    let [a, b] = [(); 2].map(|()| served.client());
    b.data.send(&frame(0xff, 2, 60, 0)).unwrap();
    a.receive();
    let reader = std::thread::spawn(move || {
        for number in 0..FRAMES {
            let frame = b.receive();
            assert_eq!(u32::from_be_bytes(frame[14..18].try_into().unwrap()), number);
            if number % 512 == 0 {
                std::thread::yield_now();
            }
        }
        b
    });
    for number in 0..FRAMES {
        a.data.send(&frame(2, 1, 60, number)).unwrap();
    }
    let _b = reader.join().unwrap();
    assert!(served.command("port/drops 2").contains("tx_full=0"));
}

#[test]
fn reconnecting_in_a_loop_leaves_nothing() {
    let served = Served::start(4);
    for _ in 0..300 {
        // The port may not be free yet.
        let _ = Client::plug(&served.path(), &request(3, 0, b"loop"));
    }
    wait_until("the names to go", || served.names().len() == 1);
    let held = served.client();
    assert_eq!(served.command("port/print").matches("endpoint ID").count(), 1);
    drop(held);
}

#[test]
fn made_up_addresses_do_not_push_out_others() {
    let served = Served::start(8);
    served.command("hash/setsize 1");
    let [honest, liar, other] = [(); 3].map(|()| served.client());
    honest.data.send(&frame(0xff, 1, 60, 0)).unwrap();
    assert!(liar.receive().len() == 60 && other.receive().len() == 60);
    let mut made_up = frame(1, 0, 60, 0);
    for number in 0..150_000_u32 {
        made_up[8..12].copy_from_slice(&number.to_be_bytes());
        made_up[6..8].copy_from_slice(&[2, 1]);
        liar.data.send(&made_up).unwrap();
        if number % 64 == 63 {
            for _ in 0..64 {
                honest.receive();
            }
        }
    }
    other.data.send(&frame(1, 3, 60, 9)).unwrap();
    let status = served.command("status/json");
    assert!(status.contains("\"known\":100000,\"most\":100000"), "{status}");
    // It is still known: nobody else gets its frames.
    while honest.receive() != frame(1, 3, 60, 9) {}
    assert!(liar.has_nothing());
}

#[test]
fn tags_are_put_in_and_taken_out() {
    let served = Served::start(8);
    let [a, b, c] = [(); 3].map(|()| served.client());
    for command in ["vlan/create 20", "vlan/addport 20 1", "vlan/addport 20 2", "port/setvlan 3 20"] {
        assert_eq!(served.command(command), "1000 Success\n", "{command}");
    }
    let plain = frame(0xff, 3, 60, 1);
    c.data.send(&plain).unwrap();
    let tagged = [&plain[..12], &[0x81, 0, 0, 20], &plain[12..]].concat();
    assert!(a.receive() == tagged && b.receive() == tagged);
    let mut back = tagged;
    back[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    a.data.send(&back).unwrap();
    assert_eq!(b.receive(), back);
    assert_eq!(c.receive(), [&back[..12], &back[16..]].concat());
}

#[test]
fn paths_that_are_taken() {
    let dir = scratch();
    let at = |name: &str| Node::open(Config::new(dir.join(name)));
    let errno = |result: Result<Node, LinkError>| result.unwrap_err().errno();
    let first = at("sw").unwrap();
    let again = at("sw").unwrap_err();
    assert_eq!(again.errno(), Errno::EADDRINUSE, "{again}");
    assert!(is_socket(&dir.join("sw/ctl")));
    drop(first);
    assert!(!dir.join("sw").exists());
    std::fs::write(dir.join("file"), "").unwrap();
    assert_eq!(errno(at("file")), Errno::EEXIST);
    std::fs::create_dir(dir.join("full")).unwrap();
    std::fs::write(dir.join("full/file"), "").unwrap();
    assert_eq!(errno(at("full")), Errno::EEXIST);
    assert_eq!(errno(at("no/such")), Errno::ENOENT);
    assert_eq!(errno(at(&"x".repeat(100))), Errno::ENAMETOOLONG);
    // What one that was killed leaves behind.
    std::fs::create_dir(dir.join("dead")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(dir.join("dead/ctl")).unwrap());
    drop(UnixDatagram::bind(dir.join("dead/001.7")).unwrap());
    drop(UnixDatagram::bind(dir.join("dead/.00123-00000")).unwrap());
    // Not while something else is there, dead or alive; and nothing is touched.
    drop(UnixDatagram::bind(dir.join("dead/agent.17x")).unwrap());
    let refused = at("dead").unwrap_err();
    assert!(refused.errno() == Errno::EEXIST && refused.to_string().contains("agent.17x"), "{refused}");
    assert_eq!(std::fs::read_dir(dir.join("dead")).unwrap().count(), 4);
    std::fs::remove_file(dir.join("dead/agent.17x")).unwrap();
    let alive = UnixDatagram::bind(dir.join("dead/002.7")).unwrap();
    assert_eq!(errno(at("dead")), Errno::EEXIST);
    drop(alive);
    let taken = at("dead").unwrap();
    assert_eq!(std::fs::read_dir(dir.join("dead")).unwrap().count(), 1);
    drop(taken);
    // Another program's, where no switch ever was.
    std::fs::create_dir(dir.join("theirs")).unwrap();
    let theirs = UnixDatagram::bind(dir.join("theirs/001.7")).unwrap();
    assert_eq!(errno(at("theirs")), Errno::EEXIST);
    drop(theirs);
    let refused = at("theirs").unwrap_err();
    assert!(refused.errno() == Errno::EEXIST && refused.to_string().contains("001.7"), "{refused}");
    assert!(is_socket(&dir.join("theirs/001.7")));
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn our_links_and_the_directorys_owner() {
    let dir = scratch();
    let path = dir.join("sw");
    let vnl = format!("switch://{}[mtu=9000]", path.display());
    let host = Plug::new(&vnl);
    assert_eq!(host.link.properties().mtu, 9000);
    assert_eq!(open(&vnl).unwrap_err().errno(), Errno::EADDRINUSE);
    let [a, b] = [(); 2].map(|()| Plug::new(&format!("vde://{}", path.display())));
    introduce(&host, &[&a, &b], 9);
    introduce(&a, &[&host, &b], 1);
    introduce(&b, &[&host, &a], 2);
    a.send([frame(9, 1, 60, 1), frame(2, 1, 60, 2), frame(9, 1, 60, 3)]);
    assert_eq!(host.seen.frames(2), [frame(9, 1, 60, 1), frame(9, 1, 60, 3)]);
    assert_eq!(b.seen.frames(1), [frame(2, 1, 60, 2)]);
    host.send((0..3000).map(|number| frame(1, 9, 1514, number)));
    let mut got = 0;
    while got < 3000 {
        for received in a.seen.frames(1) {
            assert_eq!(received, frame(1, 9, 1514, got));
            got += 1;
        }
    }
    let counters = host.link.counters();
    assert_eq!((counters.tx_frames, counters.rx_frames), (3001, 4));
    host.link.detach();
    assert!(!path.exists());
    for plug in [&a, &b] {
        assert!(matches!(plug.seen.down(), LinkError::Gone(_)));
    }
    let mut batch: Batch = [Frame::copy_of(&frame(1, 9, 60, 0))].into();
    assert_eq!(host.link.send(&mut batch), Err(LinkError::Detached));
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn links_heal_when_the_switch_is_back() {
    let dir = scratch();
    let path = dir.join("sw");
    let vnl = |options: &str| format!("vde://{}{options}", path.display());
    assert!(matches!(open(&vnl("[heal=0]")), Err(LinkError::Syntax(_))));
    assert_eq!(open(&vnl("[heal]")).unwrap_err().errno(), Errno::ENOENT);
    let host = || Plug::new(&format!("switch://{}[mtu=9216]", path.display()));
    let first = host();
    let healing = Plug::new(&vnl("[heal=1/mtu=9216]"));
    let jumbo = frame(0xff, 1, 9230, 1);
    healing.send([jumbo.clone()]);
    assert_eq!(first.seen.frames(1), [jumbo]);
    drop(first);
    wait_until("a loss", || {
        healing.send([frame(0xff, 1, 60, 2)]);
        healing.link.counters().tx_down > 0
    });
    let second = host();
    let mut tries = 2;
    wait_until("the switch to be found", || {
        tries += 1;
        healing.send([frame(0xff, 1, 60, tries)]);
        !second.seen.is_empty()
    });
    second.send([frame(1, 9, 60, 7)]);
    assert_eq!(healing.seen.frames(1), [frame(1, 9, 60, 7)]);
    assert!(healing.seen.is_up());
    drop((second, healing));
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_hub_tells_everybody_everything() {
    let dir = scratch();
    let path = dir.join("hub");
    let host = Plug::new(&format!("hub://{}[mode=660/expire=7]", path.display()));
    let mode = |path: &Path| std::os::unix::fs::MetadataExt::mode(&path.metadata().unwrap()) & 0o7777;
    assert_eq!((mode(&path), mode(&path.join("ctl"))), (0o2770, 0o660));
    let [a, b] = [(); 2].map(|()| Plug::new(&format!("vde://{}", path.display())));
    introduce(&a, &[&host, &b], 1);
    b.send([frame(1, 2, 60, 5)]);
    assert_eq!(host.seen.frames(1), [frame(1, 2, 60, 5)]);
    assert_eq!(a.seen.frames(1), [frame(1, 2, 60, 5)]);
    drop((host, a, b));
    std::fs::remove_dir_all(&dir).unwrap();
}
