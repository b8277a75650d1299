//! Starting a node process, from the starter's side.
//!
//! The node process is the command `ioth`, as `ioth serve`. What it needs comes in its standard descriptors and its
//! environment, so that neither other users nor descriptors of the caller's come into it:
//!
//! | | an unnamed node | a named one |
//! |---|---|---|
//! | stdin | the control socket, listening | the same |
//! | stdout | the lease's reading end | /dev/null: it makes its own |
//! | stderr | the report: text, a NUL byte, and the process id once it serves, or the negative errno | the same |

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use ioth_core::Errno;
use ioth_node_proto::{ENV, Place, VERSION};
use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::unistd::pipe2;

use crate::error::{Context, Error, Result};
use crate::named::Name;

/// The variable by which a node process learns its configuration: no other user sees it, unlike arguments.
pub const STACK_ENV: &str = "IOTH_SERVE_STACK";
/// The variable by which it learns the starter's version of the protocol.
pub const VERSION_ENV: &str = "IOTH_SERVE_VERSION";
/// The variable by which an unnamed node learns what program it is for, which its switches show.
pub const PROGRAM_ENV: &str = "IOTH_SERVE_PROGRAM";
/// The preload library's file name, whose programs are not nodes.
pub const PRELOAD_FILE: &str = "libioth_preload.so";
/// The variable that the dynamic linker reads.
pub const LD_PRELOAD: &str = "LD_PRELOAD";

/// A node that serves.
#[derive(Debug)]
pub struct Served {
    /// Where it is found.
    pub place: Place,
    /// The writing end, which programs are to inherit; a named node has none to give but to those who join it.
    pub lease: Option<OwnedFd>,
    /// Its process.
    pub pid: String,
    /// What it had to say: warnings, and the steps of a configuration with `debug`.
    pub notes: String,
}

/// Starts a node process by the command `ioth`, which is at `command`, and waits until it serves. Without a name it is for `program`, or for
/// this process.
///
/// # Errors
/// What it reported instead; a system call failed.
pub fn start(command: &Path, config: &str, name: Option<&Name>, program: Option<&OsStr>) -> Result<Served> {
    let found = command;
    let own = std::env::args_os().next();
    let program = program.or(own.as_deref()).and_then(|path| Path::new(path).file_name()).unwrap_or_default();
    let (place, control) = control()?;
    let (lease_end, lease) = pipe2(OFlag::O_CLOEXEC).context("the lease's pipe")?;
    let (report, report_end) = pipe2(OFlag::O_CLOEXEC).context("the report's pipe")?;
    let mut command = Command::new(found);
    command.arg0("ioth").arg("serve").args(name.map(Name::as_str));
    command.env(ENV, text(&place)).env(STACK_ENV, config).env(VERSION_ENV, VERSION.to_string());
    command.env(PROGRAM_ENV, program).stdin(control).stderr(report_end);
    match without_preload(std::env::var_os(LD_PRELOAD).as_deref()) {
        Some(others) => command.env(LD_PRELOAD, others),
        None => command.env_remove(LD_PRELOAD),
    };
    match name {
        Some(_) => command.stdout(Stdio::null()),
        None => command.stdout(lease_end),
    };
    let child = command.spawn().context(format_args!("the node process ({})", found.display()))?;
    // It has our ends of the pipes as well.
    drop(command);
    let mut told = Vec::new();
    File::from(report).read_to_end(&mut told).context("the node process's report")?;
    reap(child)?;
    let (notes, pid) = read_report(&told)?;
    Ok(Served { place, lease: name.is_none().then_some(lease), pid, notes })
}

/// Waits for the process that was started; the node goes on in a child of its own.
fn reap(mut child: Child) -> Result<()> {
    match child.wait() {
        // The program waits for all its children itself, or for none (SIGCHLD is ignored).
        Err(error) if error.raw_os_error() == Some(Errno::ECHILD as i32) => Ok(()),
        waited => waited.map(drop).context("the node process"),
    }
}

/// What a node process had to say, and its process id.
fn read_report(told: &[u8]) -> Result<(String, String)> {
    let (words, number) = match told.iter().position(|byte| *byte == 0) {
        Some(end) => (&told[..end], Some(String::from_utf8_lossy(&told[end + 1..]).into_owned())),
        None => (told, None),
    };
    let words = String::from_utf8_lossy(words).trim_end().to_owned();
    let errno = match number {
        Some(number) if !number.starts_with('-') => return Ok((words, number)),
        number => number.and_then(|number| number.strip_prefix('-')?.parse().ok()).map(Errno::from_raw),
    };
    let errno = errno.filter(|&errno| errno != Errno::UnknownErrno).unwrap_or(Errno::EIO);
    match words.is_empty() {
        true => Err(Error::new("the node process ended before it served, and said nothing", errno)),
        false => Err(Error::new(words, errno)),
    }
}

/// What `LD_PRELOAD` is but for the preload library: the node process has none of it.
pub fn without_preload(list: Option<&OsStr>) -> Option<OsString> {
    let ours =
        |item: &&[u8]| Path::new(OsStr::from_bytes(item)).file_name() == Some(OsStr::new(PRELOAD_FILE));
    let items = list?.as_bytes().split(|byte| b" :".contains(byte));
    let others: Vec<&[u8]> = items.filter(|item| !item.is_empty() && !ours(item)).collect();
    (!others.is_empty()).then(|| OsString::from_vec(others.join(&b':')))
}

/// A control socket with a name and a token that nobody can guess.
///
/// # Errors
/// A system call failed.
pub fn control() -> Result<(Place, OwnedFd)> {
    let name = format!("ioth/{:032x}", u128::from_ne_bytes(random()?));
    let place = Place::new(&name, random()?).expect("hexadecimal digits are a name");
    let control = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
        .context("the control socket")?;
    let addr = UnixAddr::new_abstract(place.name()).context("the control socket's name")?;
    bind(control.as_raw_fd(), &addr).context("the control socket's name")?;
    listen(&control, Backlog::MAXCONN).context("the control socket")?;
    Ok((place, control))
}

/// The text of a place, for the environment.
pub fn text(place: &Place) -> String {
    let mut text = [0; Place::TEXT_MAX];
    let len = place.emit(&mut text);
    String::from_utf8_lossy(&text[..len]).into_owned()
}

fn random() -> Result<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        Error::new(format!("random numbers: {error}"), errno)
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read() {
        assert_eq!(read_report(b"a word\n\x00123"), Ok(("a word".into(), "123".into())));
        assert_eq!(read_report(b"\x00123"), Ok((String::new(), "123".into())));
        for (told, errno) in [
            (&b""[..], Errno::EIO),
            (b"no network\n", Errno::EIO),
            (b"no network\x00-111", Errno::ECONNREFUSED),
            (b"\x00-x", Errno::EIO),
            (b"\x00-99999999999", Errno::EIO),
        ] {
            assert_eq!(read_report(told).unwrap_err().errno(), errno, "{told:?}");
        }
    }

    #[test]
    fn places_are_random_and_taken() {
        let (place, control) = control().unwrap();
        let addr = UnixAddr::new_abstract(place.name()).unwrap();
        let client = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        nix::sys::socket::connect(client.as_raw_fd(), &addr).unwrap();
        drop(control);
        let (other, _control) = super::control().unwrap();
        assert_ne!(place, other);
        assert_eq!(Place::parse(text(&place).as_bytes()), Some(place));
    }
}
