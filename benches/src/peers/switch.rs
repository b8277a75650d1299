//! Debian's vde_switch.

use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::program;

/// A switch of our own. It ends at the end of its standard input, thus with this process at the latest.
#[derive(Debug)]
pub(crate) struct Switch {
    child: Child,
    vnl: String,
}

impl Switch {
    /// Starts a switch with room for `ports` plugs.
    pub(crate) fn start(dir: &Path, ports: usize) -> Result<Self, String> {
        let vde_switch = program("vde_switch").ok_or("apt-get install vde2")?;
        let sock = dir.join("switch");
        // One that was killed leaves its directory behind.
        let _ = std::fs::remove_dir_all(&sock);
        let child = Command::new(vde_switch)
            .arg("-s")
            .arg(&sock)
            .args(["-n", &ports.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("vde_switch: {error}"))?;
        let switch = Switch { child, vnl: format!("vde://{}", sock.display()) };
        let deadline = Instant::now() + Duration::from_secs(5);
        while !sock.join("ctl").exists() {
            if Instant::now() > deadline {
                return Err(format!("vde_switch: no {}/ctl after 5 s", sock.display()));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(switch)
    }

    pub(crate) fn vnl(&self) -> &str {
        &self.vnl
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        end(&mut self.child, Duration::from_millis(500));
    }
}

/// Ends a process that ends with its input, which is closed already or by this.
pub(crate) fn end(child: &mut Child, patience: Duration) {
    drop(child.stdin.take());
    let deadline = Instant::now() + patience;
    while let Ok(None) = child.try_wait() {
        if Instant::now() > deadline {
            let _: io::Result<()> = child.kill();
            let _ = child.wait();
            return;
        }
        thread::sleep(Duration::from_millis(2));
    }
}
