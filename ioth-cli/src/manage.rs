//! Asking a switch by its management socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ioth::core::MacAddr;
use ioth::vde::node_name;
use ioth::vde::vnl::Locator;

/// The management socket that every switch of ours has, in its directory.
pub(crate) const SOCKET: &str = "mgmt";
const PROMPT: &[u8] = b"\nvde$ ";
/// Longest answer, in bytes: 65536 ports with what there is to say of each.
const ANSWER_MAX: usize = 64 << 20;
/// How long a capture waits for a name.
const SHORT: Duration = Duration::from_secs(1);
/// Stations that a capture asks for, at most: whoever makes up addresses is not to slow it down for ever.
const STATIONS_MAX: u32 = 16_384;

/// A conversation with a switch.
#[derive(Debug)]
pub(crate) struct Manager {
    stream: UnixStream,
}

impl Manager {
    /// With the switch in this directory.
    ///
    /// # Errors
    /// As connect(2) and read(2); `ETIMEDOUT` in the form of time-outs of sockets.
    pub(crate) fn connect(dir: &Path, patience: Duration) -> io::Result<Self> {
        let stream = UnixStream::connect(dir.join(SOCKET))?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let mut manager = Manager { stream };
        manager.read_to_prompt()?;
        Ok(manager)
    }

    /// Has it do a command: the data of its answer, or the whole of one that says what is wrong.
    ///
    /// # Errors
    /// As read(2) and write(2).
    pub(crate) fn ask(&mut self, command: &str) -> io::Result<Result<String, String>> {
        self.stream.write_all(format!("{command}\n").as_bytes())?;
        let answer = self.read_to_prompt()?;
        Ok(data(&answer).map(str::to_owned).ok_or(answer))
    }

    fn read_to_prompt(&mut self) -> io::Result<String> {
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while !answer.ends_with(PROMPT) {
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    let said = String::from_utf8_lossy(&answer).trim().to_owned();
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        format!("it hung up: {said:?}"),
                    ));
                }
                Ok(len) => answer.extend(&buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(error),
            }
            if answer.len() > ANSWER_MAX {
                return Err(io::Error::other("its answer has no end"));
            }
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

/// What stands between the marks of data.
fn data(answer: &str) -> Option<&str> {
    let (data, _) = answer.strip_prefix("0000 DATA END WITH '.'\n")?.rsplit_once(".\n1000 Success\n")?;
    Some(data)
}

/// Whose the addresses of a network are, as far as its switch tells.
#[derive(Debug)]
pub(crate) struct Names {
    /// `None` when there is nobody to ask, or not any more.
    manager: Option<Manager>,
    left: u32,
}

impl Names {
    /// Those of the network that a VNL names: of a switch of ours, which lets us ask.
    pub(crate) fn of(vnl: &str) -> Self {
        let manager = directory(vnl).and_then(|dir| Manager::connect(&dir, SHORT).ok());
        Names { manager, left: STATIONS_MAX }
    }

    /// The name of the node that has this Ethernet address: what its port's only client says.
    pub(crate) fn node(&mut self, mac: MacAddr, vlan: u16) -> Option<String> {
        self.left = self.left.checked_sub(1)?;
        let manager = self.manager.as_mut()?;
        let asked = manager.ask(&format!("hash/find {mac} {vlan}")).and_then(|found| {
            let Some(port) = found.ok().as_deref().and_then(port_of) else { return Ok(None) };
            manager.ask(&format!("port/print {port}")).map(|shown| shown.ok())
        });
        match asked {
            Ok(shown) => only_client(&shown?).and_then(node_name).map(str::to_owned),
            Err(_) => {
                self.manager = None;
                None
            }
        }
    }
}

/// The directory of the switch that a VNL names.
fn directory(vnl: &str) -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let locator = Locator::resolve(vnl, home.as_deref()).ok()?;
    let path = locator.rest.split('[').next().filter(|path| !path.is_empty())?;
    (locator.scheme == "vde").then(|| path.into())
}

/// `Hash: 0004 Addr: 02:00:00:00:00:01 VLAN 0000 to port: 003  age 0 secs`
fn port_of(found: &str) -> Option<u16> {
    found.split_once("to port: ")?.1.split(' ').next()?.parse().ok()
}

/// `  -- endpoint ID 0007 module unix prog   : DESCRIPTION`
fn only_client(shown: &str) -> Option<&str> {
    let mut clients = shown.lines().filter(|line| line.starts_with("  -- endpoint ID "));
    let (one, None) = (clients.next()?, clients.next()) else { return None };
    one.split_once(": ").map(|(_, description)| description)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_switch_says() {
        let line = "Hash: 0004 Addr: 02:00:00:00:00:01 VLAN 0000 to port: 003  age 0 secs\n";
        assert_eq!(port_of(line), Some(3));
        assert_eq!(port_of("1019 No such device"), None);
        let shown = "Port 0003 untagged_vlan=0000 ACTIVE - Unnamed Allocatable\n Current User: root\n  \
                     -- endpoint ID 0007 module unix prog   : ioth:a: b user=0 pid=7\n";
        assert_eq!(only_client(shown).and_then(node_name), Some("b"));
        assert_eq!(only_client(&shown.repeat(2)), None);
        assert_eq!(directory("vde:///tmp/sw[3]"), Some("/tmp/sw".into()));
        assert_eq!(directory("/no/such/sw"), Some("/no/such/sw".into()));
        assert_eq!(directory("switch://lan"), None);
    }
}
