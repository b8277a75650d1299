//! Switches and their plugs: ours and Debian's, each beside and against the other.

mod management;
mod node;
mod vde_switch;
mod watchers;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

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
        manage(&self.dir.join("mgmt"), command)
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

/// Runs a management command of a switch; its answer.
fn manage(socket: &Path, command: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
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

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
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
