//! Starting a node process, from the starter's side.
//!
//! The node process is this command again, as `ioth serve`. What it needs comes in its standard descriptors and its
//! environment, so that neither other users nor descriptors of the caller's come into it:
//!
//! | | an unnamed node | a named one |
//! |---|---|---|
//! | stdin | the control socket, listening | the same |
//! | stdout | the lease's reading end | /dev/null: it makes its own |
//! | stderr | the report: text, then a NUL byte and the process id once it serves | the same |

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use ioth::conf::Config;
use ioth_node::proto::{ENV, Place};
use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::unistd::pipe2;

use crate::failure::{Context, Failure, Result};
use crate::named::Name;
use crate::preload;

/// The variable by which a node process learns its configuration: no other user sees it, unlike arguments.
pub(crate) const STACK_ENV: &str = "IOTH_SERVE_STACK";
/// The node of who names none.
const LOOPBACK_ONLY: &str = "stack=smoltcp";

/// A node that serves.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) place: Place,
    /// The writing end, which programs are to inherit; a named node has none to give but to those who join it.
    pub(crate) lease: Option<OwnedFd>,
    /// Its process.
    pub(crate) pid: String,
}

/// The configuration of a node: what was asked for, or loopback only.
///
/// # Errors
/// It is no configuration string, or one of the host itself.
pub(crate) fn config(asked: Option<&str>) -> Result<&str> {
    let Some(text) = asked else {
        return Ok(LOOPBACK_ONLY);
    };
    let config: Config = text.parse().map_err(|error| Failure::new(format!("--stack: {error}")))?;
    let backend = config.stack().unwrap_or_default().split(',').next().unwrap_or_default();
    match backend {
        "" => Err(Failure::new(format!(
            "--stack: no stack= in \"{text}\", which is the host's own network: say stack=smoltcp"
        ))),
        "kernel" => Err(Failure::new(
            "--stack: stack=kernel is the host's own network: run the program without ioth, or say stack=smoltcp",
        )),
        _ => Ok(text),
    }
}

/// Starts a node process and waits until it serves.
///
/// # Errors
/// What it reported instead; a system call failed.
pub(crate) fn start(config: &str, name: Option<&Name>) -> Result<Served> {
    let (place, control) = control()?;
    let (lease_end, lease) = pipe2(OFlag::O_CLOEXEC).context("the lease's pipe")?;
    let (report, report_end) = pipe2(OFlag::O_CLOEXEC).context("the report's pipe")?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("ioth").arg("serve").args(name.map(Name::as_str));
    command.env(ENV, text(&place)).env(STACK_ENV, config).stdin(control).stderr(report_end);
    match preload::without(std::env::var_os(preload::LD_PRELOAD).as_deref()) {
        Some(others) => command.env(preload::LD_PRELOAD, others),
        None => command.env_remove(preload::LD_PRELOAD),
    };
    match name {
        Some(_) => command.stdout(Stdio::null()),
        None => command.stdout(lease_end),
    };
    let mut child = command.spawn().context("the node process (/proc/self/exe)")?;
    // It has our ends of the pipes as well.
    drop(command);
    let mut told = Vec::new();
    File::from(report).read_to_end(&mut told).context("the node process's report")?;
    // It goes on in a child of its own.
    child.wait().context("the node process")?;
    let (words, pid) = match told.iter().position(|byte| *byte == 0) {
        Some(end) => (&told[..end], Some(String::from_utf8_lossy(&told[end + 1..]).into_owned())),
        None => (&told[..], None),
    };
    let words = String::from_utf8_lossy(words);
    let words = words.trim_end();
    match pid {
        Some(pid) => {
            // Warnings, and the steps of a configuration with `debug`.
            words.lines().for_each(|line| eprintln!("ioth: node: {line}"));
            Ok(Served { place, lease: name.is_none().then_some(lease), pid })
        }
        None if words.is_empty() => {
            Err(Failure::new("the node process ended before it served, and said nothing"))
        }
        None => Err(Failure::new(words)),
    }
}

/// A control socket with a name and a token that nobody can guess.
///
/// # Errors
/// A system call failed.
pub(crate) fn control() -> Result<(Place, OwnedFd)> {
    let name = format!("ioth/{:032x}", u128::from_ne_bytes(random()?));
    let place = Place::new(&name, random()?).expect("hexadecimal digits are a name");
    let control = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
        .context("the control socket")?;
    let addr = UnixAddr::new_abstract(place.name()).context("the control socket's name")?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&control), &addr).context("the control socket's name")?;
    listen(&control, Backlog::MAXCONN).context("the control socket")?;
    Ok((place, control))
}

/// The text of a place, for the environment.
pub(crate) fn text(place: &Place) -> String {
    let mut text = [0; Place::TEXT_MAX];
    let len = place.emit(&mut text);
    String::from_utf8_lossy(&text[..len]).into_owned()
}

fn random() -> Result<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Failure::new(format!("random numbers: {error}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_no_node() {
        assert_eq!(config(None), Ok(LOOPBACK_ONLY));
        let text = "stack=smoltcp,vnl=null://,ip=10.0.0.1/24";
        assert_eq!(config(Some(text)), Ok(text));
        for (wrong, hint) in [
            ("stack=kernel", "stack=smoltcp"),
            ("stack=kernel,ip=10.0.0.1/24", "stack=smoltcp"),
            ("ip=10.0.0.1/24", "stack=smoltcp"),
            ("", "stack=smoltcp"),
            ("stack=smoltcp,vln=null://", "did you mean \"vnl\"?"),
        ] {
            let failure = config(Some(wrong)).unwrap_err();
            assert_eq!(failure.status(), 1);
            let message = failure.to_string();
            assert!(message.contains(hint) && !message.contains('\n'), "{wrong}: {message}");
        }
    }

    #[test]
    fn places_are_random_and_taken() {
        let (place, control) = control().unwrap();
        let addr = UnixAddr::new_abstract(place.name()).unwrap();
        let client = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        nix::sys::socket::connect(std::os::fd::AsRawFd::as_raw_fd(&client), &addr).unwrap();
        drop(control);
        let (other, _control) = super::control().unwrap();
        assert_ne!(place, other);
        assert_eq!(Place::parse(text(&place).as_bytes()), Some(place));
    }
}
