//! Switches and their plugs: ours and Debian's, each beside and against the other.

mod management;
pub(crate) mod node;
mod vde_switch;
mod watchers;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::plug::{PATIENCE, Plug, frame, wait_until};

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
        Plug::new(&self.vnl(options))
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

fn is_socket(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.file_type().is_socket())
}

/// Lets the switch learn that `from` is behind this plug.
fn introduce(plug: &Plug, others: &[&Plug], from: u8) {
    plug.send([frame(0xff, from, 60, 0)]);
    for other in others {
        assert_eq!(other.seen.frames(1), [frame(0xff, from, 60, 0)]);
    }
}
