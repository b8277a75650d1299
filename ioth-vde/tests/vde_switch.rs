//! Debian's vde_switch is the judge of `vde://`.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use ioth_core::Errno;
use ioth_vde::{Batch, Frame, Link, LinkError, Receiver, open};

/// How long anything may take; a broken test ends then.
const PATIENCE: Duration = Duration::from_secs(10);

/// A vde_switch in a directory of its own.
struct Switch {
    child: Child,
    dir: PathBuf,
}

impl Switch {
    fn start(ports: u32) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("ioth-vde-{}-{count}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let child = Command::new("vde_switch")
            .args(["-s", dir.join("sw").to_str().unwrap(), "-M", dir.join("mgmt").to_str().unwrap()])
            .args(["-n", &ports.to_string()])
            // It stops when its standard input ends.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("vde_switch (supply it by: apt-get install vde2)");
        let switch = Switch { child, dir };
        wait_until("the switch's sockets", || {
            is_socket(&switch.dir.join("sw/ctl")) && is_socket(&switch.dir.join("mgmt"))
        });
        switch
    }

    fn vnl(&self, options: &str) -> String {
        format!("vde://{}{options}", self.dir.join("sw").display())
    }

    fn open(&self, options: &str) -> Plug {
        Plug::new(open(&self.vnl(options)).unwrap())
    }

    /// Runs a management command; its answer.
    fn command(&self, command: &str) -> String {
        let mut stream = UnixStream::connect(self.dir.join("mgmt")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut prompt = [0; 6];
        let mut banner = Vec::new();
        while !banner.ends_with(b"\nvde$ ") {
            reader.read_exact(&mut prompt[..1]).unwrap();
            banner.push(prompt[0]);
        }
        stream.write_all(format!("{command}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        while !answer.lines().last().is_some_and(|line| line.starts_with('1')) {
            assert_ne!(reader.read_line(&mut answer).unwrap(), 0, "{answer}");
        }
        // The switch mixes up its clients when one leaves while another comes: see this one out.
        stream.write_all(b"logout\n").unwrap();
        reader.read_to_end(&mut Vec::new()).unwrap();
        answer
    }

    fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.stop();
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

/// A link with somebody who keeps what comes.
struct Plug {
    link: Arc<dyn Link>,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    frames: Vec<Vec<u8>>,
    writable: bool,
    down: Option<LinkError>,
}

impl Receiver for Seen {
    fn receive(&self, frames: &mut Batch) {
        self.change(|state| state.frames.extend(frames.drain(..).map(|frame| frame.to_vec())));
    }

    fn writable(&self) {
        self.change(|state| state.writable = true);
    }

    fn down(&self, cause: LinkError) {
        self.change(|state| assert_eq!(state.down.replace(cause), None));
    }
}

impl Seen {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    fn wait<T>(&self, what: &str, mut condition: impl FnMut(&mut State) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state.lock().unwrap();
        loop {
            if let Some(value) = condition(&mut state) {
                return value;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {what} (have {} frames)", state.frames.len());
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    fn frames(&self, count: usize) -> Vec<Vec<u8>> {
        self.wait(&format!("{count} frames"), |state| {
            (state.frames.len() >= count).then(|| std::mem::take(&mut state.frames))
        })
    }
}

impl Plug {
    fn new(link: Arc<dyn Link>) -> Self {
        let seen = Arc::<Seen>::default();
        link.attach(seen.clone()).unwrap();
        Plug { link, seen }
    }

    fn send(&self, frames: impl IntoIterator<Item = Vec<u8>>) {
        let mut batch: Batch = frames.into_iter().map(|bytes| Frame::copy_of(&bytes)).collect();
        self.link.send(&mut batch).unwrap();
        while !batch.is_empty() {
            self.seen.wait("room", |state| std::mem::take(&mut state.writable).then_some(()));
            self.link.send(&mut batch).unwrap();
        }
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "no {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn is_socket(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.file_type().is_socket())
}

fn frame(to: u8, from: u8, len: usize, number: u32) -> Vec<u8> {
    let mut frame = vec![0; len];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 0x88, 0xb5]);
    if to == 0xff {
        frame[..6].fill(0xff);
    }
    if len >= 18 {
        frame[14..18].copy_from_slice(&number.to_be_bytes());
    }
    frame
}

/// Lets the switch learn that `from` is behind this plug.
fn introduce(plug: &Plug, others: &[&Plug], from: u8) {
    plug.send([frame(0xff, from, 60, 0)]);
    for other in others {
        assert_eq!(other.seen.frames(1), [frame(0xff, from, 60, 0)]);
    }
}

#[test]
fn frames_go_both_ways_by_either_data_socket() {
    let switch = Switch::start(8);
    for (options, user) in [("[data=abstract]", "NONE"), ("[data=path]", "root")] {
        let [a, b] = [(); 2].map(|()| switch.open(options));
        introduce(&a, &[&b], 1);
        introduce(&b, &[&a], 2);
        a.send([frame(2, 1, 14, 0), frame(2, 1, 1514, 1)]);
        assert_eq!(b.seen.frames(2), [frame(2, 1, 14, 0), frame(2, 1, 1514, 1)]);
        b.send([frame(1, 2, 60, 2)]);
        assert_eq!(a.seen.frames(1), [frame(1, 2, 60, 2)]);

        let ports = switch.command("port/print");
        let me = format!("ioth user={} pid={}", nix::unistd::geteuid(), std::process::id());
        assert_eq!(ports.matches(&me).count(), 2, "{ports}");
        if nix::unistd::geteuid().is_root() {
            assert!(ports.contains(user) || ports.contains(&user.to_lowercase()), "{ports}");
        }
        // No name is left behind.
        let left: Vec<_> = std::fs::read_dir(switch.dir.join("sw"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with('.'))
            .collect();
        assert!(left.is_empty(), "{left:?}");

        let counters = a.link.counters();
        assert_eq!((counters.tx_frames, counters.rx_frames), (3, 2));
        // Both ports are given back.
        a.link.detach();
        drop(b);
        wait_until("free ports", || !switch.command("port/print").contains("ioth user="));
    }
}

#[test]
fn ports_by_number() {
    let switch = Switch::start(8);
    let a = switch.open("[5]");
    assert!(switch.command("port/print 5").contains("ioth user="));
    drop(a);
    let _b = switch.open("[port=0]");
    assert!(switch.command("port/print 0").contains("ioth user="));
    let error = open(&switch.vnl("[portgroup=nobody]")).unwrap_err();
    assert_eq!(error.errno(), Errno::ENOENT, "{error}");
}

#[test]
fn a_full_switch_times_out() {
    let switch = Switch::start(2);
    let _only = switch.open("");
    let start = Instant::now();
    let error = open(&switch.vnl("")).unwrap_err();
    assert_eq!(error.errno(), Errno::ETIMEDOUT);
    assert!(error.to_string().contains("no free port"), "{error}");
    assert!(start.elapsed() >= Duration::from_millis(1900) && start.elapsed() < PATIENCE);
}

#[test]
fn a_switch_that_dies_is_noticed() {
    let mut switch = Switch::start(4);
    let [a, b] = [(); 2].map(|()| switch.open(""));
    introduce(&a, &[&b], 1);
    switch.stop();
    for plug in [&a, &b] {
        let cause = plug.seen.wait("end", |state| state.down.take());
        assert_eq!(cause, LinkError::Gone(switch.vnl("")));
    }
    let mut batch: Batch = [Frame::copy_of(&frame(2, 1, 60, 0))].into();
    assert_eq!(a.link.send(&mut batch), Err(LinkError::Gone(switch.vnl(""))));
    assert!(batch.is_empty());
    assert_eq!(a.link.counters().tx_down, 1);
}

#[test]
fn a_stream_of_batches_loses_nothing() {
    // The switch drops what its reader does not take at once, and its queue has the system's default
    // length: 93 frames where that is 208 KiB.
    const WINDOW: u32 = 64;
    const FRAMES: u32 = 300 * WINDOW;
    let switch = Switch::start(4);
    let [a, b] = [(); 2].map(|()| switch.open(""));
    introduce(&a, &[&b], 1);
    introduce(&b, &[&a], 2);
    let number = |number: u32| frame(2, 1, 60 + number as usize % 1400, number);
    for from in (0..FRAMES).step_by(WINDOW as usize) {
        let window: Vec<_> = (from..from + WINDOW).map(number).collect();
        a.send(window.clone());
        assert_eq!(b.seen.frames(WINDOW as usize), window);
    }
    assert_eq!(a.link.counters().tx_frames, u64::from(FRAMES) + 1);
    assert_eq!(b.link.counters().rx_frames, u64::from(FRAMES) + 1);
}

#[test]
fn a_stopped_switch_pushes_back() {
    const FRAMES: u32 = 5000;
    let switch = Switch::start(4);
    let [a, b] = [(); 2].map(|()| switch.open(""));
    introduce(&a, &[&b], 1);
    introduce(&b, &[&a], 2);
    let pid = nix::unistd::Pid::from_raw(switch.child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::SIGSTOP).unwrap();
    let mut batch: Batch = (0..FRAMES).map(|number| Frame::copy_of(&frame(2, 1, 1514, number))).collect();
    a.link.send(&mut batch).unwrap();
    let left = batch.len() as u32;
    assert!(left > 0 && left < FRAMES, "{left} of {FRAMES} frames left");
    assert_eq!(batch[0][..18], frame(2, 1, 18, FRAMES - left));
    // Without room there is no event.
    assert!(!a.seen.state.lock().unwrap().writable);
    nix::sys::signal::kill(pid, nix::sys::signal::SIGCONT).unwrap();
    a.send(batch.drain(..).map(|frame| frame.to_vec()));
    // The switch got all of them, and the one that introduced us.
    let all = format!("IN: pkts {}", FRAMES + 1);
    let squeeze = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    wait_until("all frames in the switch", || squeeze(switch.command("port/print 1")).contains(&all));
}

#[test]
fn what_the_switch_would_cut_is_not_sent() {
    let switch = Switch::start(4);
    let [a, b] = [(); 2].map(|()| switch.open(""));
    a.send([frame(0xff, 1, 1515, 0), frame(0xff, 1, 1519, 0), vec![0; 13]]);
    a.send([frame(0xff, 1, 60, 7)]);
    assert_eq!(b.seen.frames(1), [frame(0xff, 1, 60, 7)]);
    let counters = a.link.counters();
    assert_eq!((counters.tx_bad_length, counters.tx_frames), (3, 1));
}
