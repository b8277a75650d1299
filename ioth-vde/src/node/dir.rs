//! The directory in which a switch is found, and the sockets in it.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use ioth_core::{Errno, fork};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use nix::unistd::geteuid;

use super::request::PATH_LEN;
use crate::LinkError;

/// Room for the longest name in the directory: a port's data socket, `65535.1048576`, and the zero behind it.
const NAME_MAX: usize = 15;

/// The socket at which clients knock.
pub(super) const CONTROL: &str = "ctl";

/// Who may use the sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Permit {
    pub(super) mode: u32,
    pub(super) group: Option<u32>,
}

impl Permit {
    pub(super) fn apply(self, path: &Path) -> io::Result<()> {
        if let Some(group) = self.group {
            lchown(path, None, Some(group))?;
        }
        fs::set_permissions(path, Permissions::from_mode(self.mode))
    }
}

/// A directory that goes with its owner.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// In a forked child it is the parent's.
    process: u64,
}

impl Directory {
    /// Makes it. One that a switch left behind when it was killed is taken over, and so is an empty one.
    pub(super) fn make(path: &Path, permit: Permit) -> Result<Self, LinkError> {
        let what = || format!("making the switch's directory {}", path.display());
        let failed = |error: io::Error| LinkError::Os { what: what(), errno: crate::errno(&error) };
        let absolute = std::path::absolute(path).map_err(failed)?;
        if absolute.as_os_str().len() + NAME_MAX >= PATH_LEN {
            let what = format!("{} (a socket's path has 107 bytes at most)", what());
            return Err(LinkError::Os { what, errno: Errno::ENAMETOOLONG });
        }
        match DirBuilder::new().mode(0o700).create(&absolute) {
            Ok(()) => (),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => take_over(&absolute)?,
            Err(error) => return Err(failed(error)),
        }
        let made = Directory { path: absolute, process: fork::generation() };
        permit.apply(&made.path).map_err(failed)?;
        Ok(made)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if fork::check(self.process).is_ok() {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// Clears a directory in which no switch lives any more: one that is empty, or where a `ctl` is at which nobody listens, and
/// else only what such a switch leaves behind.
fn take_over(path: &Path) -> Result<(), LinkError> {
    let failed = |why: &str, errno| LinkError::Os { what: format!("{}: {why}", path.display()), errno };
    let io = |error: io::Error| failed("looking for what is there", crate::errno(&error));
    let meta = path.symlink_metadata().map_err(io)?;
    if !meta.is_dir() {
        return Err(failed("there is a file of that name already", Errno::EEXIST));
    }
    if meta.uid() != geteuid().as_raw() {
        return Err(failed("there is another user's directory of that name already", Errno::EEXIST));
    }
    let names = fs::read_dir(path).map_err(io)?.map(|entry| entry.map(|entry| entry.file_name()));
    let names = names.collect::<io::Result<Vec<_>>>().map_err(io)?;
    let is_socket = |path: &Path| path.symlink_metadata().is_ok_and(|meta| meta.file_type().is_socket());
    let control = path.join(CONTROL);
    let is_there = is_socket(&control);
    if is_there && !is_dead(&control) {
        let why = "there is a switch already (vde://PATH is a port of it)";
        return Err(failed(why, Errno::EADDRINUSE));
    }
    for name in &names {
        let file = path.join(name);
        let is_ours = match kind_of(name.to_str().unwrap_or_default()) {
            Some(Name::Switch) => is_there && is_socket(&file) && is_dead(&file),
            // A client that asks again when the switch has gone may have made it anew.
            Some(Name::Client) => is_there && is_socket(&file),
            None => false,
        };
        if !is_ours {
            let why = format!(
                "there is a directory of that name already, with \"{}\" in it, which no switch left behind",
                name.display()
            );
            return Err(failed(&why, Errno::EEXIST));
        }
    }
    for name in names {
        fs::remove_file(path.join(name)).map_err(io)?;
    }
    Ok(())
}

/// Whose socket it is that has a name in a switch's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Switch,
    Client,
}

/// Names that switches make in their directory, ours and others: `ctl`, `mgmt`, `003.7` for a port's data, `5` for a port of
/// its own; and clients: `.00123-00000`.
fn kind_of(name: &str) -> Option<Name> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let pair = |text: &str, by| text.split_once(by).is_some_and(|(one, two)| digits(one) && digits(two));
    match name.strip_prefix('.') {
        Some(rest) => pair(rest, '-').then_some(Name::Client),
        None => {
            let is_switchs = name == CONTROL || name == "mgmt" || digits(name) || pair(name, '.');
            is_switchs.then_some(Name::Switch)
        }
    }
}

/// Whether nobody listens at a socket.
fn is_dead(path: &Path) -> bool {
    let attempt = || {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path)?)
    };
    matches!(attempt(), Err(Errno::ECONNREFUSED))
}

/// A socket's name, which goes with its owner.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// In a forked child it is the parent's.
    process: u64,
}

impl SocketFile {
    pub(super) fn bind(socket: &OwnedFd, path: PathBuf) -> nix::Result<Self> {
        bind(socket.as_raw_fd(), &UnixAddr::new(&path)?)?;
        Ok(SocketFile { path, process: fork::generation() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fork::check(self.process).is_ok() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A socket at which clients knock. A dead one's name is taken over.
pub(super) fn listener(path: &Path, permit: Permit) -> Result<(OwnedFd, SocketFile), LinkError> {
    let failed = |errno| LinkError::Os { what: format!("listening at {}", path.display()), errno };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(failed)?;
    let file = match SocketFile::bind(&socket, path.to_owned()) {
        Err(Errno::EADDRINUSE) if is_dead(path) => {
            fs::remove_file(path).map_err(|error| failed(crate::errno(&error)))?;
            SocketFile::bind(&socket, path.to_owned())
        }
        bound => bound,
    }
    .map_err(failed)?;
    // Before anybody can connect.
    permit.apply(path).map_err(|error| failed(crate::errno(&error)))?;
    listen(&socket, Backlog::MAXCONN).map_err(failed)?;
    Ok((socket, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["ctl", "mgmt", "003.7", "65535.1048576", "5"] {
            assert_eq!(kind_of(name), Some(Name::Switch), "{name}");
        }
        assert_eq!(kind_of(".00123-00000"), Some(Name::Client));
        for name in ["", ".", "X0", "agent.17", "3.", ".7", "1.2.3", ".1-", "-", "ctl2", "\u{663}.\u{663}"] {
            assert_eq!(kind_of(name), None, "{name}");
        }
    }
}
