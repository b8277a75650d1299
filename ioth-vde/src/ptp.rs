//! `ptp://path`: a cable between two programs that name the same path.
//!
//! ```text
//!   ptp:///tmp/cable              whoever comes first makes the socket, the second one finds it
//!   ptp:///tmp/cable[mode=0770]   permissions of the socket's file (0700)
//!   ptp:///tmp/cable[old]         in the form of vde2 and of vdeplug up to 4.0.1, should we be the first
//!   ptp:///tmp/cable[mtu=9000]    the largest IP packet of the network (1500)
//! ```
//! There are two forms, which cannot talk to each other: a SOCK_SEQPACKET connection on which the first one answers with a
//! byte (0, or why not), and an older one of two SOCK_DGRAM sockets, `path` and `path+`. The second one takes the form
//! that it finds.
//!
//! Frames that are sent while nobody is at the other end are dropped and counted. When the first one goes, the other
//! takes its place, and waits for the next.

mod old;
mod pair;

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ioth_core::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt};

use crate::datagram::{self, BUFFER};
use crate::schemes::Spec;
use crate::vnl::{Keys, Params, syntax};
use crate::wire::Port;
use crate::{Link, LinkError, Properties};

const KEYS: Keys = &["mode", "old", "mtu"];
/// Rounds of looking who is there: another process may come or go in between.
const ATTEMPTS: usize = 16;

/// Opens `ptp://...`.
pub(crate) fn open(spec: &Spec<'_>) -> Result<Arc<dyn Link>, LinkError> {
    let (path, params) = spec.bracket(KEYS)?;
    if path.is_empty() {
        return Err(syntax(format!("no path in \"{}\" (such as ptp:///tmp/cable)", spec.vnl)));
    }
    let options = Options::new(path, &params, spec.default_mtu())?;
    let failed = |(what, errno): Failure| LinkError::Os { what: format!("{}: {what}", spec.vnl), errno };
    if params.flag("old")? {
        return Ok(Arc::new(Port::new(spec.vnl, old::Cable::plug(options).map_err(failed)?)));
    }
    match pair::Cable::plug(options.clone()) {
        // Its socket is of the other form.
        Err((_, Errno::EPROTOTYPE)) => {
            Ok(Arc::new(Port::new(spec.vnl, old::Cable::plug(options).map_err(failed)?)))
        }
        cable => Ok(Arc::new(Port::new(spec.vnl, cable.map_err(failed)?))),
    }
}

/// What was being done, and why it failed.
type Failure = (String, Errno);

#[derive(Clone, Debug)]
struct Options {
    path: PathBuf,
    mode: u32,
    properties: Properties,
}

impl Options {
    fn new(path: &str, params: &Params, mtu: usize) -> Result<Self, LinkError> {
        let mode = match params.get("mode").map(|mode| u32::from_str_radix(mode, 8)) {
            None => 0o700,
            Some(Ok(mode)) if mode <= 0o777 => mode,
            Some(_) => return Err(params.wrong("mode", "permissions in octal, such as 0700")),
        };
        // The process may change its directory before the name is used again.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
        Ok(Options { path, mode, properties: datagram::properties(params, mtu)? })
    }
}

/// A socket's name in the file system, which goes with it.
#[derive(Debug)]
struct Name {
    path: PathBuf,
    inode: (u64, u64),
}

impl Name {
    /// Gives a socket its name, unless another has it (`EADDRINUSE`).
    ///
    /// `ready` makes the socket fit for those who find it: it has another name until then, so that nobody takes it for a
    /// dead one.
    fn give(
        fd: &OwnedFd,
        path: &Path,
        mode: u32,
        ready: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<Self, Errno> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|_| Errno::EIO)?;
        let mut hidden = path.as_os_str().to_owned();
        hidden.push(format!(".{:016x}", u64::from_ne_bytes(random)));
        let hidden = PathBuf::from(hidden);
        nix::sys::socket::bind(fd.as_raw_fd(), &UnixAddr::new(&hidden)?)?;
        let named = || {
            std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(mode))?;
            ready()?;
            std::fs::hard_link(&hidden, path)?;
            path.symlink_metadata()
        };
        let named = named();
        let _ = std::fs::remove_file(&hidden);
        match named {
            Ok(file) => Ok(Name { path: path.to_owned(), inode: (file.dev(), file.ino()) }),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(Errno::EADDRINUSE),
            Err(error) => Err(crate::errno(&error)),
        }
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // Another may have it by now.
        if inode(&self.path) == Some(self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    path.symlink_metadata().ok().map(|file| (file.dev(), file.ino()))
}

/// Takes away a socket that nobody listens to any more.
fn bury(path: &Path, dead: Option<(u64, u64)>) -> Result<(), Failure> {
    let failed = |errno| (format!("clearing away the dead socket {}", path.display()), errno);
    match path.symlink_metadata() {
        // Somebody else was quicker, and may live.
        Ok(file) if Some((file.dev(), file.ino())) != dead => Ok(()),
        Ok(file) if !file.file_type().is_socket() => Err(failed(Errno::ENOTSOCK)),
        Ok(_) => match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(crate::errno(&error))),
            _ => Ok(()),
        },
        Err(_) => Ok(()),
    }
}

fn make(kind: SockType) -> Result<OwnedFd, Failure> {
    let fd = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
        .map_err(|errno| ("making a socket".to_owned(), errno))?;
    // A burst should fit; where the system allows less, it is less.
    let _ = setsockopt(&fd, sockopt::SndBuf, &BUFFER);
    Ok(fd)
}

fn call(fd: &OwnedFd, path: &Path) -> Result<(), Errno> {
    connect(fd.as_raw_fd(), &UnixAddr::new(path)?)
}

#[cfg(test)]
mod tests;
