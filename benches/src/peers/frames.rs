//! Switches, and two plugs of libvdeplug on them.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ioth::vde::node::{Config, Node};

use super::switch::end;
use super::{compile, program};
use crate::contender::Contender;
use crate::work::Sample;

const SOURCE: &str = include_str!("../frames.c");

/// Compiles the program with the plugs.
pub(crate) fn build(dir: &Path) -> Result<PathBuf, String> {
    compile(dir, "frames", SOURCE, "vdeplug", "apt-get install libvdeplug-dev")
}

/// A switch in a process of its own, which ends at the end of its standard input.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    path: PathBuf,
}

impl Server {
    /// Starts a contender's switch with room for `ports` plugs.
    pub(crate) fn start(contender: Contender, dir: &Path, ports: usize) -> Result<Self, String> {
        let path = dir.join("switch");
        // One that was killed leaves its directory behind.
        let _ = std::fs::remove_dir_all(&path);
        let mut command = match contender {
            Contender::Switch => {
                let mut command = Command::new("/proc/self/exe");
                command.arg("--switch").arg(ports.to_string()).arg(&path);
                command
            }
            Contender::VdeSwitch => {
                let mut command = Command::new(program("vde_switch").ok_or("apt-get install vde2")?);
                command.arg("-n").arg(ports.to_string()).arg("-s").arg(&path);
                command
            }
            _ => {
                let mut command = Command::new(program("vde_plug").ok_or("apt-get install vdeplug")?);
                command.arg("null://").arg(format!("switch://{}", path.display()));
                command
            }
        };
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", contender.name()))?;
        let server = Server { child, path };
        let deadline = Instant::now() + Duration::from_secs(5);
        while UnixStream::connect(server.path.join("ctl")).is_err() {
            if Instant::now() > deadline {
                return Err(format!("{}: no {}/ctl after 5 s", contender.name(), server.path.display()));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(server)
    }

    /// Frames of a length from one plug to another a second, for some time, with so many idle plugs beside them.
    pub(crate) fn measure(
        &self,
        plugs: &Path,
        len: usize,
        span: Duration,
        idle: usize,
    ) -> io::Result<Sample> {
        let output = Command::new(plugs)
            .arg(format!("vde://{}", self.path.display()))
            .args([len.to_string(), span.as_millis().to_string(), idle.to_string()])
            .stdin(Stdio::null())
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let figures: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        match figures[..] {
            [sent, received, seconds] if seconds > 0.0 => {
                Ok(Sample { value: received / seconds, lost: Some((1.0 - received / sent).max(0.0)) })
            }
            _ => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child, Duration::from_millis(500));
    }
}

/// Serves a switch of ours until standard input ends.
pub(crate) fn serve(path: &str, ports: usize) -> Result<(), String> {
    let mut config = Config::new(path);
    config.bridge.ports = ports;
    let mut node = Node::open(config).map_err(|error| error.to_string())?;
    // Readable at its end.
    let input = io::stdin();
    node.serve(std::os::fd::AsFd::as_fd(&input)).map_err(|error| error.to_string())
}
