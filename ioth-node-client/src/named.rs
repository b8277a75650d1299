//! Nodes with a name: a socket for each in a directory that is its user's alone.
//!
//! Both sides go through a descriptor of the directory, whose owner and mode they checked: neither a symbolic link nor a
//! directory of another user's comes in between, and its path may have any length. Whoever makes or removes a socket has
//! the directory locked.

use std::fmt;
use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use ioth_core::Errno;
use ioth_node_proto::{Place, VERSION};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    bind, connect, getsockopt, listen, recvmsg, sendmsg, socket, sockopt,
};
use nix::unistd::{Uid, geteuid};

use crate::error::{Context, Error, Result};
use crate::{start, sys};

/// How long a node may take to answer, in milliseconds: it does nothing else at that desk.
const PATIENCE: u16 = 10_000;

/// A node's name: letters and digits, with "-", "_" and "." between them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Name(String);

impl Name {
    const MAX: usize = 64;

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        let begins = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        match begins && text.len() <= Name::MAX && text.as_bytes().iter().all(plain) {
            true => Ok(Name(text.to_owned())),
            false => Err(format!(
                "a node's name begins with a letter or digit and has only those, \"-\", \"_\" and \".\", at most {}",
                Name::MAX
            )),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is asked of a named node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// Its place, and an end of its lease.
    Join,
    /// To take no more programs, and to end. The connection ends when the node does.
    Stop,
}

impl Ask {
    /// Length of the message in bytes.
    pub const LEN: usize = 3;

    fn emit(self) -> [u8; Ask::LEN] {
        let [low, high] = VERSION.to_ne_bytes();
        [
            low,
            high,
            match self {
                Ask::Join => b'J',
                Ask::Stop => b'S',
            },
        ]
    }

    /// From a message. That of another version is understood: it gets the same answer, which tells the version.
    pub fn parse(message: &[u8]) -> Option<Ask> {
        match message {
            [_, _, b'J'] => Some(Ask::Join),
            [_, _, b'S'] => Some(Ask::Stop),
            _ => None,
        }
    }
}

/// The place of a named node, and the end of its lease that the program is to have.
///
/// # Errors
/// There is none of that name, or it cannot be reached from here.
pub fn join(name: &Name) -> Result<(Place, OwnedFd)> {
    let node = ask(name, Ask::Join)?;
    let odd = || Error::new(format!("the node {name} does not answer as one"), Errno::EPROTO);
    if poll(&mut [PollFd::new(node.as_fd(), PollFlags::POLLIN)], PollTimeout::from(PATIENCE))
        .context(format_args!("the node {name}"))?
        == 0
    {
        return Err(Error::new(format!("the node {name} does not answer"), Errno::ETIMEDOUT));
    }
    let mut text = [0; 2 + Place::TEXT_MAX];
    let mut room = nix::cmsg_space!(RawFd);
    let (len, lease) = {
        let mut parts = [IoSliceMut::new(&mut text)];
        let received =
            recvmsg::<()>(node.as_raw_fd(), &mut parts, Some(&mut room), MsgFlags::MSG_CMSG_CLOEXEC)
                .context(format_args!("the node {name}"))?;
        let mut lease = None;
        for control in received.cmsgs().context(format_args!("the node {name}"))? {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                for number in numbers {
                    lease = sys::adopt(number);
                }
            }
        }
        (received.bytes, lease)
    };
    let (version, place) = text[..len].split_first_chunk().ok_or_else(odd)?;
    if u16::from_ne_bytes(*version) != VERSION {
        return Err(Error::new(
            format!("the node {name} is of another version of ioth: stop it and make it anew"),
            Errno::EPROTO,
        ));
    }
    let place = Place::parse(place).ok_or_else(odd)?;
    let lease = lease.ok_or_else(odd)?;
    // unix(7): abstract names are a network namespace's own, files are not.
    let addr = UnixAddr::new_abstract(place.name()).context("the control socket's name")?;
    match connect(new_socket()?.as_raw_fd(), &addr) {
        Err(Errno::ECONNREFUSED) => Err(Error::new(
            format!("the node {name} is in another network namespace: programs join it there"),
            Errno::ENETUNREACH,
        )),
        result => result.context(format_args!("the node {name}")).map(|()| (place, lease)),
    }
}

/// Has a node end, and waits until it has.
///
/// # Errors
/// There is none of that name.
pub fn stop(name: &Name) -> Result<()> {
    let node = ask(name, Ask::Stop)?;
    loop {
        let mut rest = [0; 16];
        match nix::unistd::read(&node, &mut rest) {
            Ok(0) | Err(Errno::ECONNRESET) => return Ok(()),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context(format_args!("the node {name}")),
        }
    }
}

/// The names of the nodes that are there.
///
/// # Errors
/// The directory cannot be read.
pub fn list() -> Result<Vec<Name>> {
    let Some(dir) = Dir::open()? else {
        return Ok(Vec::new());
    };
    let entries = std::fs::read_dir(dir.handle()).context(dir.path.display())?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut names: Vec<Name> = names.filter(|name| dir.connect(name).is_ok()).collect();
    names.sort();
    Ok(names)
}

/// A name that this process has taken, with the socket at which programs come. Clones are the same.
#[derive(Clone, Debug)]
pub struct Claim {
    dir: Arc<Dir>,
    name: Name,
    listener: Arc<OwnedFd>,
    /// The socket's device and inode: what else may be there by now is not ours to remove.
    file: (u64, u64),
}

impl Claim {
    /// Takes a name.
    ///
    /// # Errors
    /// Another node has it; the directory cannot be made or is not this user's.
    pub fn new(name: &Name) -> Result<Self> {
        let dir = Dir::make()?;
        let _locked = dir.lock()?;
        match dir.connect(name) {
            Ok(_) => {
                return Err(Error::new(
                    format!("there is a node {name} already (ioth node --stop {name})"),
                    Errno::EEXIST,
                ));
            }
            // Its node was killed.
            Err(Errno::ECONNREFUSED) => {
                std::fs::remove_file(dir.of(name)).context(dir.path.join(&name.0).display())?
            }
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno).context(dir.path.join(&name.0).display()),
        }
        let listener = socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            None,
        )
        .context("a socket")?;
        let path = dir.of(name);
        let addr = UnixAddr::new(&path).context(dir.path.display())?;
        bind(listener.as_raw_fd(), &addr).context(dir.path.join(&name.0).display())?;
        listen(&listener, Backlog::MAXCONN).context("a socket")?;
        let file = identity(&path).context(dir.path.display())?;
        Ok(Claim { dir: Arc::new(dir), name: name.clone(), listener: Arc::new(listener), file })
    }

    /// At which programs come.
    pub fn listener(&self) -> &OwnedFd {
        &self.listener
    }

    /// Gives the name back. Later calls do nothing.
    pub fn release(&self) {
        let Ok(_locked) = self.dir.lock() else {
            return;
        };
        let path = self.dir.of(&self.name);
        if identity(&path).is_ok_and(|file| file == self.file) {
            // Who comes finds that nobody listens, where it stays.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The directory of this user's nodes.
#[derive(Debug)]
struct Dir {
    file: File,
    path: PathBuf,
}

impl Dir {
    /// The directory, if it is there.
    fn open() -> Result<Option<Self>> {
        Dir::open_at(place(), geteuid())
    }

    /// The directory, made if it is not there.
    fn make() -> Result<Self> {
        Dir::make_at(place(), geteuid())
    }

    fn make_at(path: PathBuf, user: Uid) -> Result<Self> {
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error).context(path.display())?,
            _ => {}
        }
        let gone =
            || Error::new(format!("{}: it was removed while it was made", path.display()), Errno::ENOENT);
        Dir::open_at(path.clone(), user)?.ok_or_else(gone)
    }

    fn open_at(path: PathBuf, user: Uid) -> Result<Option<Self>> {
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let file = match File::options().read(true).custom_flags(flags).open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            // Where it is a symbolic link, or not a directory.
            result => result.context(path.display())?,
        };
        let meta = file.metadata().context(path.display())?;
        if meta.uid() != user.as_raw() || meta.mode() & 0o077 != 0 {
            return Err(Error::new(
                format!(
                    "{}: it has to be this user's and nobody else's (owner {user}, mode 0700), but is user {}'s with mode {:04o}",
                    path.display(),
                    meta.uid(),
                    meta.mode() & 0o7777
                ),
                Errno::EPERM,
            ));
        }
        Ok(Some(Dir { file, path }))
    }

    /// Locked until the result is dropped.
    fn lock(&self) -> Result<impl Drop + use<>> {
        struct Locked(File);
        impl Drop for Locked {
            fn drop(&mut self) {
                let _ = self.0.unlock();
            }
        }
        // A lock belongs to the open file: another thread's must be another's.
        let file = File::open(self.handle()).context(self.path.display())?;
        file.lock().context(self.path.display())?;
        Ok(Locked(file))
    }

    fn connect(&self, name: &Name) -> nix::Result<OwnedFd> {
        let node = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        connect(node.as_raw_fd(), &UnixAddr::new(&self.of(name))?)?;
        Ok(node)
    }

    /// The path of a node's socket.
    fn of(&self, name: &Name) -> PathBuf {
        self.handle().join(&name.0)
    }

    /// The directory itself, whatever its path leads to by now.
    fn handle(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }
}

/// A connection to a node of that name, with the request sent.
fn ask(name: &Name, ask: Ask) -> Result<OwnedFd> {
    let none =
        || Error::new(format!("there is no node {name} (ioth node {name} --stack CONFIG)"), Errno::ENOENT);
    let dir = Dir::open()?.ok_or_else(none)?;
    let node = match dir.connect(name) {
        Err(Errno::ENOENT | Errno::ECONNREFUSED) => return Err(none()),
        result => result.context(format_args!("the node {name}"))?,
    };
    let peer = getsockopt(&node, sockopt::PeerCredentials).context(format_args!("the node {name}"))?;
    if peer.uid() != geteuid().as_raw() {
        return Err(Error::new(format!("the node {name} is user {}'s", peer.uid()), Errno::EPERM));
    }
    sendmsg::<()>(node.as_raw_fd(), &[IoSlice::new(&ask.emit())], &[], MsgFlags::MSG_NOSIGNAL, None)
        .context(format_args!("the node {name}"))?;
    Ok(node)
}

/// Sends a program what it needs to join.
///
/// # Errors
/// As sendmsg(2).
pub fn admit(guest: &OwnedFd, place: &Place, lease: &OwnedFd) -> nix::Result<()> {
    let mut message = VERSION.to_ne_bytes().to_vec();
    message.extend(start::text(place).into_bytes());
    let numbers = [lease.as_raw_fd()];
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let rights = [ControlMessage::ScmRights(&numbers)];
    sendmsg::<()>(guest.as_raw_fd(), &[IoSlice::new(&message)], &rights, flags, None).map(drop)
}

/// Where the directory is: with the user's other sockets, else in /tmp.
fn place() -> PathBuf {
    let user = geteuid();
    // su(1) and sudo(8) may leave another user's behind.
    let own = |dir: &PathBuf| {
        dir.is_absolute() && dir.metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == user.as_raw())
    };
    let named = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let usual = PathBuf::from(format!("/run/user/{user}"));
    match named.into_iter().chain([usual]).find(own) {
        Some(dir) => dir.join("ioth"),
        None => format!("/tmp/ioth-{user}").into(),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    path.symlink_metadata().map(|meta| (meta.dev(), meta.ino()))
}

fn new_socket() -> Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).context("a socket")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("ioth-named-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn names_are_no_paths() {
        for right in ["a", "web-1", "9.x_y"] {
            assert_eq!(right.parse::<Name>().unwrap().as_str(), right);
        }
        for wrong in ["", ".", "..", "-a", ".a", "a/b", "a b", "ü", &"a".repeat(65)] {
            assert!(wrong.parse::<Name>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_directory_is_its_users_alone() {
        let path = scratch("own");
        assert!(Dir::open_at(path.clone(), geteuid()).unwrap().is_none());
        let dir = Dir::make_at(path.clone(), geteuid()).unwrap();
        assert_eq!(dir.file.metadata().unwrap().mode() & 0o777, 0o700);
        drop(dir.lock().unwrap());

        let other = Uid::from_raw(geteuid().as_raw() + 1);
        assert!(Dir::make_at(path.clone(), other).unwrap_err().to_string().contains("mode 0700"));
        let link = scratch("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(Dir::make_at(link.clone(), geteuid()).is_err(), "a symbolic link");
        std::fs::remove_file(&link).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o750)).unwrap();
        assert!(Dir::open_at(path.clone(), geteuid()).unwrap_err().to_string().contains("0750"));
        std::fs::remove_dir(&path).unwrap();
    }

    #[test]
    fn requests_come_back() {
        for ask in [Ask::Join, Ask::Stop] {
            assert_eq!(Ask::parse(&ask.emit()), Some(ask));
        }
        assert_eq!(Ask::parse(b""), None);
        assert_eq!(Ask::parse(b"xxJJ"), None);
    }
}
