//! Plugging into a VDE switch: the dialogue on its control socket.
//!
//! The client connects a stream to `<dir>/ctl`, binds a datagram socket and tells its address; the switch
//! answers with the address of the port's own. The stream stays open for as long as the port is used.

use std::ffi::OsStr;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ioth_core::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, recv, sendmsg, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;
use nix::unistd::{Gid, Group, getegid, geteuid};

use crate::LinkError;
use crate::datagram::widen;
use crate::description::description;
use crate::vnl::Params;

/// How long the switch has for its answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// `struct sockaddr_un`: the family in two bytes, then the path.
pub(super) const ADDRESS_LEN: usize = 2 + PATH_LEN;
const PATH_LEN: usize = 108;

const MAGIC: u32 = 0xfeed_face;
const VERSION: u32 = 3;
const NEW_CONTROL: u32 = 0;
const NEW_PORT_0: u32 = 1;
/// The port's number stands above the type's low byte.
const PORT_SHIFT: u32 = 8;
/// Largest port number that the request has room for.
pub(super) const PORT_MAX: u32 = u32::MAX >> PORT_SHIFT;
/// Upstream cuts it here; the switch reads 256 bytes at most.
const DESCRIPTION_MAX: usize = 127;
/// Data sockets of one process in one directory, at most.
const PATHS_MAX: u32 = 10_000;

/// What the VNL asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) port: Option<PortName>,
    /// The group of the data socket's file.
    pub(super) group: Option<Gid>,
    /// The mode of the data socket's file.
    pub(super) mode: Option<u32>,
    /// Which data socket; both in turn when not given.
    pub(super) data: Option<DataKind>,
    /// Who we are, for people who look at the switch.
    pub(super) description: Option<String>,
}

/// A port of the switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PortName {
    Number(u32),
    /// A socket of its own in the switch's directory.
    Group(String),
}

/// Where the data socket has its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DataKind {
    /// In the network namespace: no file, no permissions; the switch cannot tell the owner.
    Abstract,
    /// In the file system.
    Path,
}

/// A port of a switch.
#[derive(Debug)]
pub(super) struct Connection {
    /// The stream; its end is the port's end.
    pub(super) control: OwnedFd,
    /// One datagram is one frame.
    pub(super) data: OwnedFd,
}

/// Gets a port of the switch in this directory.
pub(super) fn plug(dir: &Path, options: &Options) -> Result<Connection, LinkError> {
    let dir = &dir.canonicalize().map_err(|error| {
        failed(dir, "looking for the switch (vde_switch -s PATH -d starts one)", crate::errno(&error))
    })?;
    let kinds: &[DataKind] = match options.data {
        Some(DataKind::Abstract) => &[DataKind::Abstract],
        Some(DataKind::Path) => &[DataKind::Path],
        // Whoever names permissions wants the switch to see an owner.
        None if options.group.is_some() || options.mode.is_some() => &[DataKind::Path],
        None => &[DataKind::Abstract, DataKind::Path],
    };
    for &kind in kinds {
        // Closed without an answer: a switch in another network namespace, or one that does not know
        // abstract names, will take the other kind.
        if let Some(connection) = attempt(dir, options, kind)? {
            return Ok(connection);
        }
    }
    let what = "asking for a port (the switch hung up: it takes protocol version 3 only, and must be \
                allowed to write to our data socket, see group= and mode=)";
    Err(failed(dir, what, Errno::ECONNREFUSED))
}

fn attempt(dir: &Path, options: &Options, kind: DataKind) -> Result<Option<Connection>, LinkError> {
    let (control, request_type) = reach(dir, options.port.as_ref())?;
    let data = open(dir, SockType::Datagram)?;
    widen(&data);
    let (path, file) = match kind {
        DataKind::Abstract => (bind_abstract(dir, &data)?, None),
        DataKind::Path => {
            let (path, file) = bind_path(dir, &data)?;
            file.permit(dir, options)?;
            (path, Some(file))
        }
    };
    let request = request(request_type, &path, description(options.description.as_deref()).as_bytes());
    let sent = sendmsg::<()>(
        control.as_raw_fd(),
        &[IoSlice::new(&request)],
        &[],
        // The switch reads once: the request goes in one piece.
        MsgFlags::MSG_NOSIGNAL,
        None,
    );
    match sent {
        Ok(len) if len == request.len() => (),
        Err(Errno::EPIPE | Errno::ECONNRESET) => return Ok(None),
        Ok(_) => return Err(failed(dir, "sending the request", Errno::EIO)),
        Err(errno) => return Err(failed(dir, "sending the request", errno)),
    }
    let Some(reply) = read_reply(dir, &control)? else { return Ok(None) };
    let address = parse_reply(&reply)
        .map_err(|wrong| failed(dir, &format!("reading the switch's answer ({wrong})"), Errno::EPROTO))?;
    // Upstream's nodes answer although an abstract name of another network namespace means nothing to them.
    if kind == DataKind::Abstract && options.data.is_none() && !is_taken(dir, &address)? {
        return Ok(None);
    }
    connect(data.as_raw_fd(), &address)
        .map_err(|errno| failed(dir, "connecting to the port's data socket", errno))?;
    if let Some(file) = file {
        // As upstream does; the name goes with `file`.
        let _ = file.permit(dir, options);
    }
    Ok(Some(Connection { control, data }))
}

/// Whether the port's socket is connected, to ours: the kernel lets nobody else call it then.
fn is_taken(dir: &Path, address: &UnixAddr) -> Result<bool, LinkError> {
    let stranger = open(dir, SockType::Datagram)?;
    // Any other error will come to us as well, and be told.
    Ok(connect(stranger.as_raw_fd(), address).is_err())
}

/// Connects to the switch; the request's type says which port is wanted.
fn reach(dir: &Path, port: Option<&PortName>) -> Result<(OwnedFd, u32), LinkError> {
    let request_type = match port {
        None => NEW_CONTROL,
        Some(PortName::Group(name)) => {
            let socket = call(dir, name)?;
            return Ok((socket, NEW_CONTROL));
        }
        Some(PortName::Number(number)) => {
            // A port's own socket may admit whom `ctl` does not.
            if let Ok(socket) = call(dir, &number.to_string()) {
                return Ok((socket, NEW_CONTROL));
            }
            if *number == 0 { NEW_PORT_0 } else { NEW_CONTROL | number << PORT_SHIFT }
        }
    };
    Ok((call(dir, "ctl")?, request_type))
}

fn call(dir: &Path, name: &str) -> Result<OwnedFd, LinkError> {
    let path = dir.join(name);
    let socket = open(dir, SockType::Stream)?;
    let what = || format!("connecting to {name}");
    let address = UnixAddr::new(&path).map_err(|errno| failed(dir, &what(), errno))?;
    // With clients waiting in its backlog, a switch that hangs would block us for ever.
    let _ = setsockopt(&socket, sockopt::SendTimeout, &timeval(PATIENCE));
    match connect(socket.as_raw_fd(), &address) {
        Ok(()) => Ok(socket),
        Err(Errno::EAGAIN) => Err(failed(dir, &what(), Errno::ETIMEDOUT)),
        Err(errno) => Err(failed(dir, &what(), errno)),
    }
}

fn open(dir: &Path, kind: SockType) -> Result<OwnedFd, LinkError> {
    socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|errno| failed(dir, "making a socket", errno))
}

/// The switch's answer; `None` when it hung up without one.
fn read_reply(dir: &Path, control: &OwnedFd) -> Result<Option<Vec<u8>>, LinkError> {
    let deadline = Instant::now() + PATIENCE;
    let mut reply = vec![0; ADDRESS_LEN + 1];
    let mut len = 0;
    while len < ADDRESS_LEN {
        let left = deadline.saturating_duration_since(Instant::now());
        // Zero would mean for ever.
        let _ = setsockopt(control, sockopt::ReceiveTimeout, &timeval(left.max(Duration::from_millis(1))));
        match recv(control.as_raw_fd(), &mut reply[len..], MsgFlags::empty()) {
            Ok(0) | Err(Errno::ECONNRESET) if len == 0 => return Ok(None),
            Ok(0) => break,
            Ok(more) => len += more,
            Err(Errno::EINTR) => (),
            Err(Errno::EAGAIN) => {
                let what = "waiting 2 s for an answer (the switch may have no free port, or not this one; \
                            vde_switch -n sets how many there are)";
                return Err(failed(dir, what, Errno::ETIMEDOUT));
            }
            Err(errno) => return Err(failed(dir, "waiting for an answer", errno)),
        }
    }
    reply.truncate(len);
    Ok(Some(reply))
}

/// The request, in the machine's byte order.
pub(super) fn request(request_type: u32, path: &[u8; PATH_LEN], description: &[u8]) -> Vec<u8> {
    let mut request = Vec::with_capacity(12 + ADDRESS_LEN + DESCRIPTION_MAX);
    request.extend(MAGIC.to_ne_bytes());
    request.extend(VERSION.to_ne_bytes());
    request.extend(request_type.to_ne_bytes());
    request.extend((libc::AF_UNIX as u16).to_ne_bytes());
    request.extend(path);
    request.extend(&description[..description.len().min(DESCRIPTION_MAX)]);
    request
}

/// The address in a switch's answer; else what is wrong with it.
pub(super) fn parse_reply(reply: &[u8]) -> Result<UnixAddr, String> {
    if reply.len() != ADDRESS_LEN {
        return Err(format!("{} bytes of an address that should have {ADDRESS_LEN}", reply.len()));
    }
    let family = u16::from_ne_bytes([reply[0], reply[1]]);
    if i32::from(family) != libc::AF_UNIX {
        return Err(format!("address family {family} instead of AF_UNIX"));
    }
    let path = &reply[2..];
    let address = if path[0] == 0 {
        if path.iter().all(|&byte| byte == 0) {
            return Err("an address without a path".to_owned());
        }
        UnixAddr::new_abstract(&path[1..])
    } else {
        let end = path.iter().position(|&byte| byte == 0).unwrap_or(path.len());
        UnixAddr::new(OsStr::from_bytes(&path[..end]))
    };
    address.map_err(|errno| format!("an address that is no address: {errno}"))
}

/// The name in a switch's answer, an abstract one with its zero in front; else what is wrong with it. For fuzzers.
pub fn reply_path(reply: &[u8]) -> Result<Vec<u8>, String> {
    let address = parse_reply(reply)?;
    match (address.path(), address.as_abstract()) {
        (Some(path), _) => Ok(path.as_os_str().as_bytes().to_vec()),
        (None, Some(name)) => Ok([&[0], name].concat()),
        (None, None) => Err("an address without a name".to_owned()),
    }
}

/// Binds to a name that nobody guesses. The address has its full length: the switch connects to all of it.
fn bind_abstract(dir: &Path, data: &OwnedFd) -> Result<[u8; PATH_LEN], LinkError> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|_| failed(dir, "drawing a random name", Errno::EIO))?;
    let name = format!("ioth-vde-{}-{:016x}", std::process::id(), u64::from_ne_bytes(random));
    let mut path = [0; PATH_LEN];
    path[1..=name.len()].copy_from_slice(name.as_bytes());
    UnixAddr::new_abstract(&path[1..])
        .and_then(|address| bind(data.as_raw_fd(), &address))
        .map_err(|errno| failed(dir, "binding the data socket", errno))?;
    Ok(path)
}

/// Binds to the first free name, in the switch's directory if that is writable.
fn bind_path(dir: &Path, data: &OwnedFd) -> Result<([u8; PATH_LEN], SocketFile), LinkError> {
    let pid = std::process::id();
    let mut last = Errno::EADDRINUSE;
    for (dir, prefix) in [
        (dir, "."),
        (Path::new("/var/run"), "vde."),
        (Path::new("/var/tmp"), "vde."),
        (Path::new("/tmp"), "vde."),
    ] {
        for count in 0..PATHS_MAX {
            let file = dir.join(format!("{prefix}{pid:05}-{count:05}"));
            match UnixAddr::new(&file).and_then(|address| bind(data.as_raw_fd(), &address)) {
                Ok(()) => {
                    let mut path = [0; PATH_LEN];
                    let bytes = file.as_os_str().as_bytes();
                    path[..bytes.len()].copy_from_slice(bytes);
                    return Ok((path, SocketFile(file)));
                }
                Err(Errno::EADDRINUSE) => (),
                Err(errno) => {
                    last = errno;
                    break;
                }
            }
        }
    }
    Err(failed(dir, "binding the data socket there, in /var/run, /var/tmp or /tmp", last))
}

/// The data socket's name, which goes when both ends know each other.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl SocketFile {
    /// Lets the switch write to the socket.
    fn permit(&self, dir: &Path, options: &Options) -> Result<(), LinkError> {
        let path = &self.0;
        let mut mode = options.mode.unwrap_or(0o700);
        let chgrp = |gid: u32| std::os::unix::fs::lchown(path, None, Some(gid));
        if let Some(group) = options.group {
            chgrp(group.as_raw()).map_err(|error| {
                failed(dir, &format!("giving the data socket to group {group}"), crate::errno(&error))
            })?;
        } else if mode & 0o007 == 0
            && let Ok(switch) = dir.join("ctl").metadata()
            && switch.uid() != 0
            && switch.uid() != geteuid().as_raw()
        {
            mode |= if chgrp(switch.gid()).is_ok() { 0o070 } else { 0o077 };
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(|error| {
            failed(dir, &format!("setting the data socket's mode to {mode:o}"), crate::errno(&error))
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A VNL's group by this key: "" is our own, a number is itself.
///
/// # Errors
/// [`LinkError::Syntax`] for a name that the system does not know: whoever was to be let in would be kept out.
pub(crate) fn group(params: &Params, key: &str) -> Result<Option<Gid>, LinkError> {
    let Some(value) = params.get(key) else { return Ok(None) };
    if value.is_empty() {
        return Ok(Some(getegid()));
    }
    if let Ok(number) = value.parse() {
        return Ok(Some(Gid::from_raw(number)));
    }
    match Group::from_name(value) {
        Ok(Some(group)) => Ok(Some(group.gid)),
        _ => Err(params.wrong(key, "a group that this system knows, or its number")),
    }
}

fn failed(dir: &Path, what: &str, errno: Errno) -> LinkError {
    LinkError::Os { what: format!("vde://{}: {what}", dir.display()), errno }
}

fn timeval(time: Duration) -> TimeVal {
    TimeVal::new(time.as_secs() as _, time.subsec_micros() as _)
}
