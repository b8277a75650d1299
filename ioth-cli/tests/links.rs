//! `ioth switch`, `ioth plug` and `ioth cap`, with Debian's VDE programs at the other ends.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long anything may take; a broken test ends then.
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory, and processes that end with the test.
struct World {
    dir: PathBuf,
}

impl World {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("ioth-links-{}-{count}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        World { dir }
    }

    fn at(&self, name: &str) -> String {
        self.dir.join(name).to_str().unwrap().to_owned()
    }

    /// A switch of ours.
    fn switch(&self, name: &str, options: &[&str]) -> Running {
        let running = Running::start(ioth().arg("switch").arg(self.at(name)).args(options));
        let management = self.dir.join(name).join("mgmt");
        wait_until("the switch", || std::os::unix::net::UnixStream::connect(&management).is_ok());
        running
    }

    /// Waits until somebody is at that many ports of a switch.
    fn wait_for_ports(&self, name: &str, ports: usize) {
        wait_until("clients", || {
            let status = ioth().args(["switch", "--status", "--json", &self.at(name)]).output().unwrap();
            String::from_utf8_lossy(&status.stdout).matches("\"active\":true").count() == ports
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn ioth() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ioth"))
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "no {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A process that ends with its owner.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        Running(child.unwrap_or_else(|error| {
            panic!("{command:?}: {error} (supply it by: apt-get install vde2 vdeplug vdens)")
        }))
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id() as i32), signal).unwrap();
    }

    /// Its exit status.
    fn wait(&mut self) -> Option<i32> {
        let mut status = None;
        wait_until("end of the process", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program with frames on its standard input and output.
struct Plug {
    running: Running,
    frames: Receiver<Vec<u8>>,
    /// Bytes of a frame that are written on their own. (Debian's loses a single one.)
    first: usize,
}

impl Plug {
    fn start(command: &mut Command, first: usize) -> Self {
        let mut running = Running::start(command);
        let mut output = running.0.stdout.take().unwrap();
        let (sender, frames) = channel();
        std::thread::spawn(move || {
            let mut length = [0; 2];
            while output.read_exact(&mut length).is_ok() {
                let mut frame = vec![0; usize::from(u16::from_be_bytes(length))];
                if output.read_exact(&mut frame).is_err() || sender.send(frame).is_err() {
                    break;
                }
            }
        });
        Plug { running, frames, first }
    }

    /// Debian's.
    fn c(vnl: &str) -> Self {
        Plug::start(Command::new("vde_plug").arg(vnl), 0)
    }

    /// Ours.
    fn ours(words: &[&str]) -> Self {
        Plug::start(ioth().arg("plug").args(words), 1)
    }

    fn send(&mut self, frame: &[u8]) {
        let input = self.running.0.stdin.as_mut().unwrap();
        let mut bytes = (frame.len() as u16).to_be_bytes().to_vec();
        bytes.extend(frame);
        input.write_all(&bytes[..self.first]).unwrap();
        input.flush().unwrap();
        input.write_all(&bytes[self.first..]).unwrap();
        input.flush().unwrap();
    }

    fn receive(&self) -> Vec<u8> {
        self.frames.recv_timeout(PATIENCE).expect("a frame")
    }
}

fn frame(to: u8, from: u8, len: usize) -> Vec<u8> {
    let mut frame = vec![0; len];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 0x88, 0xb5]);
    if to == 0xff {
        frame[..6].fill(0xff);
    }
    frame
}

/// Frames go from each to the other.
fn converse(a: &mut Plug, b: &mut Plug) {
    a.send(&frame(0xff, 1, 60));
    assert_eq!(b.receive(), frame(0xff, 1, 60));
    for len in [60, 14, 1514] {
        b.send(&frame(1, 2, len));
        assert_eq!(a.receive(), frame(1, 2, len));
        a.send(&frame(2, 1, len));
        assert_eq!(b.receive(), frame(2, 1, len));
    }
}

#[test]
fn two_c_plugs_on_our_switch() {
    let world = World::new();
    let mut switch = world.switch("sw", &["-n", "8"]);
    let [mut a, mut b] = [(); 2].map(|()| Plug::c(&format!("vde://{}", world.at("sw"))));
    world.wait_for_ports("sw", 2);
    converse(&mut a, &mut b);
    let status = run(ioth().args(["switch", "--status", &world.at("sw")]));
    let text = String::from_utf8_lossy(&status.stdout);
    assert!(status.status.success() && text.contains("Port 0002 untagged_vlan=0000 ACTIVE"), "{text}");
    assert!(text.contains("vdeplug: user=") && text.contains("Port 0001 rx_short=0"), "{text}");
    switch.signal(Signal::SIGTERM);
    assert_eq!(switch.wait(), Some(0));
    assert!(!Path::new(&world.at("sw")).exists());
}

#[test]
fn a_full_switch_does_not_let_c_plugs_hang() {
    let world = World::new();
    let _switch = world.switch("sw", &["-n", "2"]);
    let vnl = format!("vde://{}", world.at("sw"));
    let _only = Plug::c(&vnl);
    world.wait_for_ports("sw", 1);
    let mut second = Running::start(Command::new("vde_plug").arg(&vnl).stderr(Stdio::null()));
    assert_ne!(second.wait(), Some(0));
}

#[test]
fn plugs_of_ours_and_of_debian() {
    let world = World::new();
    let _switch = world.switch("sw", &[]);
    let vnl = format!("vde://{}", world.at("sw"));
    let mut a = Plug::ours(&[&vnl]);
    let mut b = Plug::c(&vnl);
    world.wait_for_ports("sw", 2);
    converse(&mut a, &mut b);
    // The end of its input is its end.
    drop(a.running.0.stdin.take());
    assert_eq!(a.running.wait(), Some(0));
    b.running.signal(Signal::SIGTERM);
    // A network that ends is a failure.
    let mut c = Plug::ours(&[&vnl]);
    world.wait_for_ports("sw", 1);
    drop(_switch);
    assert_eq!(c.running.wait(), Some(1));
}

/// The longest frames of VDE pass, and what does not is told.
#[test]
fn jumbo_frames() {
    let world = World::new();
    let _switches = [world.switch("one", &[]), world.switch("two", &[])];
    let [one, two] = ["one", "two"].map(|name| format!("vde://{}", world.at(name)));
    let _joint = Running::start(ioth().args(["plug", &one, "=", "vde_plug", &two]));
    let mut a = Plug::c(&one);
    let mut b = Plug::ours(&[&two]);
    world.wait_for_ports("one", 2);
    world.wait_for_ports("two", 2);
    converse(&mut a, &mut b);
    a.send(&frame(2, 1, 9230));
    assert_eq!(b.receive(), frame(2, 1, 9230));
    b.send(&frame(1, 2, 9230));
    assert_eq!(a.receive(), frame(1, 2, 9230));

    let mut short = ioth();
    short.args(["plug", &format!("{two}[mtu=1500]")]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut short = short.spawn().unwrap();
    let mut bytes = 9000_u16.to_be_bytes().to_vec();
    bytes.extend(frame(0xff, 3, 9000));
    short.stdin.take().unwrap().write_all(&bytes).unwrap();
    let ended = short.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && said.contains("mtu=1500]\": frames lost: tx_bad_length 1"), "{said}");
}

#[test]
fn two_networks_joined() {
    let world = World::new();
    let _switches = [world.switch("one", &[]), world.switch("two", &["--hub"])];
    let vnls = ["one", "two"].map(|name| format!("vde://{}", world.at(name)));
    let mut joint = Running::start(ioth().args(["plug", &vnls[0], &vnls[1]]));
    let [mut a, mut b] = vnls.each_ref().map(|vnl| Plug::c(vnl));
    world.wait_for_ports("one", 2);
    world.wait_for_ports("two", 2);
    converse(&mut a, &mut b);
    joint.signal(Signal::SIGINT);
    assert_eq!(joint.wait(), Some(0));
    // The same by a command's standard input and output.
    let mut joint = Running::start(ioth().args(["plug", &vnls[0], "=", "vde_plug", &vnls[1]]));
    world.wait_for_ports("one", 2);
    world.wait_for_ports("two", 2);
    converse(&mut a, &mut b);
    joint.signal(Signal::SIGTERM);
    assert_eq!(joint.wait(), Some(0));
}

#[test]
fn wirefilter_in_between() {
    let world = World::new();
    let _switches = [world.switch("one", &[]), world.switch("two", &[])];
    let wire = format!("{}:{}", world.at("one"), world.at("two"));
    let mut filter = Command::new("wirefilter");
    let _filter = Running::start(filter.args(["-v", &wire, "-d", "5"]));
    let [mut a, mut b] = ["one", "two"].map(|name| Plug::c(&format!("vde://{}", world.at(name))));
    world.wait_for_ports("one", 2);
    world.wait_for_ports("two", 2);
    converse(&mut a, &mut b);
}

/// Debian's tools for vde_switch's management socket.
#[test]
fn debians_tools_manage_it() {
    let world = World::new();
    let _switch = world.switch("sw", &[]);
    let socket = world.at("sw/mgmt");
    let missing = "unixcmd, unixterm (supply them by: apt-get install vde2)";
    let command = |words: &[&str]| {
        let mut unixcmd = Command::new("unixcmd");
        unixcmd.args(["-s", &socket, "-f", "/etc/vde2/vdecmd"]).args(words).stdin(Stdio::null());
        String::from_utf8_lossy(&unixcmd.output().expect(missing).stdout).into_owned()
    };
    command(&["vlan/create", "77"]);
    assert!(command(&["showinfo"]).contains("mgmt"));
    let mut terminal = Command::new("unixterm");
    let mut terminal = Running::start(terminal.arg(&socket).stderr(Stdio::null()));
    let input = terminal.0.stdin.as_mut().unwrap();
    input.write_all(b"vlan/print\n").unwrap();
    let mut said = String::new();
    let mut output = terminal.0.stdout.take().unwrap();
    while !said.contains("1000 Success") {
        let mut some = [0; 200];
        let len = output.read(&mut some).unwrap();
        assert!(len > 0, "{said}");
        said.push_str(&String::from_utf8_lossy(&some[..len]));
    }
    assert!(said.contains("VLAN 0000\nVLAN 0077\n"), "{said}");
}

#[test]
fn a_switch_in_the_background() {
    let world = World::new();
    let (sock, pid) = (world.at("sw"), world.at("pid"));
    let rc = world.at("rc");
    std::fs::write(&rc, "# a comment\nvlan/create 7\nport/create 5\nport/setvlan 5 7\n").unwrap();
    let started =
        run(ioth().args(["switch", "-d", "-s", &sock, "-p", &pid, "-f", &rc, "-M", &world.at("m")]));
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    let number: i32 = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    let status = run(ioth().args(["switch", "--status", "--json", &sock]));
    let text = String::from_utf8_lossy(&status.stdout);
    assert!(text.contains("\"vlans\":[0,7]") && text.contains("\"port\":5,\"active\":false"), "{text}");
    // A second one is told, in the background as well.
    for options in [&["switch", &sock][..], &["switch", "-d", &sock]] {
        let again = run(ioth().args(options));
        let said = String::from_utf8_lossy(&again.stderr);
        assert!(again.status.code() == Some(1) && said.contains("there is a switch already"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    kill(Pid::from_raw(number), Signal::SIGHUP).unwrap();
    wait_until("end of the switch", || {
        ["sw", "pid", "m"].iter().all(|name| !Path::new(&world.at(name)).exists())
    });
}

#[test]
fn captures() {
    let world = World::new();
    let mirror = world.at("mirror.pcapng");
    let mut switch = world.switch("sw", &["--mirror", &mirror]);
    let vnl = format!("vde://{}", world.at("sw"));
    let mut a = Plug::start(Command::new("vde_plug").args(["-D", "web", &vnl]), 0);
    let b = Plug::c(&vnl);
    let file = world.at("cap.pcapng");
    let mut capture = Running::start(ioth().args(["cap", "-w", &file, "-c", "2", &format!("lan:{vnl}")]));
    world.wait_for_ports("sw", 3);
    for len in [60, 1514] {
        a.send(&frame(0xff, 1, len));
        assert_eq!(b.receive().len(), len);
    }
    assert_eq!(capture.wait(), Some(0));
    switch.signal(Signal::SIGTERM);
    assert_eq!(switch.wait(), Some(0));
    for (file, name) in [(&file, &b"lan"[..]), (&mirror, b"web user=")] {
        let bytes = std::fs::read(file).unwrap();
        assert!(bytes.windows(name.len()).any(|part| part == name), "{file}");
        let shown = Command::new("tcpdump").args(["-e", "-n", "-r", file]).output();
        let shown = shown.expect("tcpdump (supply it by: apt-get install tcpdump)");
        let text = String::from_utf8_lossy(&shown.stdout);
        assert!(
            shown.status.success() && text.matches("02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff").count() == 2,
            "{text}"
        );
    }
}

/// Who is at a switch's port says who it is: that is the name of its addresses, in captures of the switch's and of `ioth cap`.
#[test]
fn node_names_in_captures() {
    let world = World::new();
    let mirror = world.at("mirror.pcapng");
    let mut switch = world.switch("sw", &["--mirror", &mirror]);
    let vnl = format!("vde://{}", world.at("sw"));
    // A node of ours says its program's name, or what its VNL has; Debian's plug what it is told, or nothing.
    let mut web = Plug::start(Command::new("vde_plug").args(["-D", "web", &vnl]), 0);
    let mut anonymous = Plug::c(&vnl);
    let mut ours = Plug::ours(&["-D", "db:mail", &vnl]);
    let file = world.at("cap.pcapng");
    let mut capture = Running::start(ioth().args(["cap", "-w", &file, "-c", "6", &vnl]));
    world.wait_for_ports("sw", 4);
    for (plug, station) in [(&mut web, 1), (&mut anonymous, 2), (&mut ours, 3)] {
        let mac = [2, 0, 0, 0, 0, station];
        let addr = [10, 0, 0, station];
        let arp = [&[0xff; 6][..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac, &addr, &[0; 6], &addr];
        plug.send(&arp.concat());
        // An empty IPv4 packet to everybody, of a protocol for experiments.
        let ip = [0x45, 0, 0, 20, 0, 0, 0, 0, 1, 253, 0, 0];
        plug.send(&[&[0xff; 6][..], &mac, &[8, 0], &ip, &addr, &[255; 4]].concat());
    }
    assert_eq!(capture.wait(), Some(0));
    switch.signal(Signal::SIGTERM);
    assert_eq!(switch.wait(), Some(0));
    for file in [&file, &mirror] {
        let shown = Command::new("tshark").args(["-N", "n", "-r", file, "ip"]).output();
        let shown = shown.expect("tshark (supply it by: apt-get install tshark)");
        let text = String::from_utf8_lossy(&shown.stdout);
        for source in ["web", "10.0.0.2", "mail"] {
            assert!(text.contains(&format!(" {source} → ")), "{source} in {text}");
        }
        // Readers that know Ethernet's names find them, too.
        let bytes = std::fs::read(file).unwrap();
        assert!(bytes.windows(10).any(|part| part == b"\x02\0\0\0\0\x01web\0"), "{file}");
    }
}

#[test]
fn options_of_vde_plug() {
    let world = World::new();
    let _switches = [world.switch("one", &[]), world.switch("two", &[])];
    let [one, two] = ["one", "two"].map(|name| format!("vde://{}", world.at(name)));
    let pid = world.at("pid");
    let options = ["-D", "the cable", "-m", "660", "-g", "0", "--port", "5", "--port2=6", "-d", "-p", &pid];
    let started = run(ioth().arg("plug").args(options).args([&one, &two]));
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    for (name, port) in [("one", "Port 0005"), ("two", "Port 0006")] {
        let status = run(ioth().args(["switch", "--status", &world.at(name)]));
        let text = String::from_utf8_lossy(&status.stdout);
        assert!(text.contains(port) && text.contains(": the cable user="), "{text}");
    }
    let mut a = Plug::c(&one);
    let mut b = Plug::c(&two);
    world.wait_for_ports("one", 2);
    world.wait_for_ports("two", 2);
    converse(&mut a, &mut b);
    let number = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    kill(Pid::from_raw(number), Signal::SIGTERM).unwrap();
    wait_until("its end", || !Path::new(&pid).exists());
    world.wait_for_ports("one", 1);
}

/// As vde_switch, it begins with the user's file of commands, when it is told no other.
#[test]
fn the_users_file_of_commands() {
    let world = World::new();
    std::fs::create_dir(world.at(".vde2")).unwrap();
    std::fs::write(world.at(".vde2/vde_switch.rc"), "vlan/create 7\n").unwrap();
    std::fs::write(world.at("rc"), "vlan/create 8\n").unwrap();
    for (words, vlans) in [(&[][..], "\"vlans\":[0,7]"), (&["-f", &world.at("rc")], "\"vlans\":[0,8]")] {
        let path = world.at("sw");
        let mut switch = Running::start(ioth().arg("switch").arg(&path).args(words).env("HOME", &world.dir));
        let status = || {
            let status = run(ioth().args(["switch", "--status", "--json", &path]));
            String::from_utf8_lossy(&status.stdout).into_owned()
        };
        wait_until("the switch", || status().contains("\"vlans\":"));
        wait_until("its VLANs", || status().contains(vlans));
        switch.signal(Signal::SIGTERM);
        assert_eq!(switch.wait(), Some(0));
    }
}

#[test]
fn a_file_of_commands_with_wrong_lines() {
    let world = World::new();
    let commands = world.at("rc");
    std::fs::write(&commands, "# two\nvlan/create 5000\n\nno/such thing\nvlan/create 7\n").unwrap();
    let started = run(ioth().args(["switch", "-daemon", "-f", &commands, &world.at("sw")]));
    let said = String::from_utf8_lossy(&started.stderr);
    assert!(started.status.success(), "{said}");
    assert!(said.contains("rc: line 2, \"vlan/create 5000\": "), "{said}");
    assert!(said.contains("rc: line 4, \"no/such thing\": "), "{said}");
    let mut manager = UnixStream::connect(world.at("sw/mgmt")).unwrap();
    manager.write_all(b"vlan/print 7\nshutdown\n").unwrap();
    let mut answers = String::new();
    manager.read_to_string(&mut answers).unwrap();
    assert!(answers.contains("VLAN 0007"), "{answers}");
    wait_until("the switch's end", || !Path::new(&world.at("sw")).exists());
}

#[test]
fn wrong_usage() {
    let world = World::new();
    for (words, status) in [
        (&["switch", "-n", "1"][..], 2),
        (&["switch", "--json"], 2),
        (&["switch", "--mode", "9"], 2),
        (&["switch", "-s", "x", "y"], 2),
        (&["switch", "--status", &world.at("none")], 1),
        (&["switch", "/no/such/dir/sw"], 1),
        (&["switch", "--group", "no-such-group", &world.at("sw")], 1),
        (&["switch", "-d", "-f", "/no/such/rc", &world.at("sw")], 1),
        (&["plug", "a", "b", "c"], 2),
        (&["plug", "a", "="], 2),
        (&["plug", "-d", "null://"], 2),
        (&["plug", "-d", "null://", "="], 2),
        (&["plug", "--port2", "1", "null://"], 2),
        (&["plug", "-m", "0660", "null://"], 2),
        (&["plug", "-m", "9", "vde:///x"], 2),
        (&["plug", "-l", "null://"], 2),
        (&["plug", "-d", "null://", "vde:///no/such/switch"], 1),
        (&["plug", "-g", "no-such-group", "vde:///no/such/switch"], 1),
        (&["plug", "vde:///no/such/switch"], 1),
        (&["cap", "null://"], 2),
        (&["cap", "-w", "/no/such/file", "null://"], 1),
        (&["cap", "-w", &world.at("f"), "a b:null://"], 2),
        (&["switch", "--help"], 0),
        (&["plug", "--help"], 0),
        (&["cap", "--help"], 0),
    ] {
        let outcome = run(ioth().args(words));
        let said = String::from_utf8_lossy(&outcome.stderr);
        assert_eq!(outcome.status.code(), Some(status), "{words:?}: {said}");
        if status == 1 {
            assert_eq!(said.lines().count(), 1, "{words:?}: {said}");
        }
    }
    assert!(!Path::new(&world.at("sw")).exists(), "nothing is left of what could not be served");
}

#[test]
fn each_command_tells_its_version() {
    for command in ["run", "node", "switch", "plug", "cap"] {
        for option in ["--version", "-V"] {
            let run = run(ioth().args([command, option]));
            let said = String::from_utf8_lossy(&run.stdout);
            assert!(
                run.status.success() && said.ends_with(concat!(env!("CARGO_PKG_VERSION"), "\n")),
                "{said}"
            );
        }
    }
}

/// Who may not use a switch's control socket hears so, and the switch goes on.
#[test]
fn another_users_switch() {
    let world = World::new();
    let _switch = world.switch("sw", &["--mode", "0600", "--dirmode", "0755"]);
    std::fs::set_permissions(&world.dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    // Root has to become somebody else for that; anybody else has such a switch in root's.
    assert!(nix::unistd::geteuid().is_root(), "needed: root, for setpriv --reuid");
    let path = world.at("sw");
    for other in [format!("vde://{path}[data=abstract]"), format!("vde://{path}[data=path]"), path.clone()] {
        let run = run(Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(env!("CARGO_BIN_EXE_ioth"))
            .args(["plug", &other]));
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(said.contains("connecting to ctl: EACCES"), "{said}");
        assert_eq!(run.status.code(), Some(1), "{said}");
    }
    let status = run(ioth().args(["switch", "--status", "--json", &path]));
    assert!(String::from_utf8_lossy(&status.stdout).contains("\"refused\":{}"));
}
