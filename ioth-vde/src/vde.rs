//! `vde://dir`: a port of a VDE switch (`vde_switch`, or a node of upstream's `switch://path`).
//!
//! ```text
//!   vde:///tmp/sw                     vde://               /var/run/vde.ctl, else /tmp/vde.ctl
//!   vde:///tmp/sw[3]                  port=, portgroup=    a port by number, or by its own socket's name
//!   vde:///tmp/sw[data=path]          group=, mode=        permissions of the data socket's file
//!   vde:///tmp/sw[mtu=9000]                                a switch of ours, or upstream's switch://: up to 9216
//!   vde:///tmp/sw[heal]               heal=SECONDS         asks again, every 20 seconds at least, when the switch has gone
//!   vde:///tmp/sw[descr=web]                               who we are, for people who look at the switch
//! ```
//! The data socket is abstract unless permissions are named, and has a file if the switch refuses that or cannot see it, being in
//! another network namespace;
//! `data=path` and `data=abstract` choose.

mod connect;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ioth_core::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, UnixAddr, recv, shutdown};

use crate::datagram::{self, frame_max};
use crate::restart::{self, Restart};
use crate::schemes::Spec;
use crate::tally::Tally;
use crate::vnl::{Keys, Params};
use crate::wire::{Descriptor, Halt, Port, Wire};
use crate::{Batch, Link, LinkError, Properties};
use connect::{Connection, DataKind, Options, PortName};

pub(crate) use connect::group;
#[doc(hidden)]
pub use connect::reply_path;

const KEYS: Keys = &["", "port", "portgroup", "group", "mode", "data", "mtu", "heal", "descr"];
const DEFAULT_DIRS: [&str; 2] = ["/var/run/vde.ctl", "/tmp/vde.ctl"];

/// Opens `vde://...`.
pub(crate) fn open(spec: &Spec<'_>) -> Result<Arc<dyn Link>, LinkError> {
    let (dir, params) = spec.bracket(KEYS)?;
    let options = options(&params)?;
    // Unless it is said: vde_switch cuts longer frames without a word.
    let properties = datagram::properties(&params, spec.default_mtu())?;
    let heal = match params.get("heal") {
        Some("") => Some(restart::LONGEST),
        _ => params.number("heal", restart::SECONDS)?,
    };
    let (dir, name) = (dir.to_owned(), spec.vnl.to_owned());
    let opener = move || -> Result<Arc<dyn Link>, LinkError> {
        let Connection { control, data } = plug(&dir, &options)?;
        Ok(Arc::new(Port::new(&name, Plug { data: Arc::new(data), control: Arc::new(control), properties })))
    };
    match heal {
        None => opener(),
        Some(seconds) => Ok(Arc::new(Restart::new(Box::new(opener), Duration::from_secs(seconds))?)),
    }
}

/// Gets a port of the switch there; of the first that has one, where none is named.
fn plug(dir: &str, options: &Options) -> Result<Connection, LinkError> {
    if !dir.is_empty() {
        return connect::plug(Path::new(dir), options);
    }
    first_of(&DEFAULT_DIRS, options)
}

/// Gets a port of the first switch that has one; what is wrong with each is told if none has.
fn first_of(dirs: &[&str], options: &Options) -> Result<Connection, LinkError> {
    let mut failures = Vec::new();
    for dir in dirs {
        match connect::plug(Path::new(dir), options) {
            Ok(connection) => return Ok(connection),
            Err(failure) => failures.push(failure),
        }
    }
    // A switch that is there and refuses tells more than a place where there is none.
    let errno = failures.iter().map(LinkError::errno).find(|errno| *errno != Errno::ENOENT);
    let each: Vec<_> = failures.iter().map(LinkError::to_string).collect();
    let what = format!("vde://: no port at any of the default places ({})", each.join("; "));
    Err(LinkError::Os { what, errno: errno.unwrap_or(Errno::ENOENT) })
}

fn options(params: &Params) -> Result<Options, LinkError> {
    let port = match ["port", "portgroup", ""].iter().find_map(|key| Some((*key, params.get(key)?))) {
        None | Some((_, "")) => None,
        Some((key, name)) if name.bytes().all(|b| b.is_ascii_digit()) => match name.parse() {
            Ok(number) if number <= connect::PORT_MAX => Some(PortName::Number(number)),
            _ => return Err(params.wrong(key, &format!("a port from 0 to {}", connect::PORT_MAX))),
        },
        Some((key, name)) if name.contains('/') || name == "." || name == ".." => {
            return Err(params.wrong(key, "a port's number or the name of its socket, without '/'"));
        }
        Some((_, name)) => Some(PortName::Group(name.to_owned())),
    };
    let mode = match params.get("mode") {
        None => None,
        Some(mode) => match u32::from_str_radix(mode, 8) {
            Ok(mode) if mode <= 0o777 => Some(mode),
            _ => return Err(params.wrong("mode", "permissions in octal, such as 0700")),
        },
    };
    let data = match params.get("data") {
        None => None,
        Some("abstract") => Some(DataKind::Abstract),
        Some("path") => Some(DataKind::Path),
        Some(_) => return Err(params.wrong("data", "abstract or path")),
    };
    Ok(Options {
        port,
        group: connect::group(params, "group")?,
        mode,
        data,
        description: params.get("descr").map(str::to_owned),
    })
}

/// The frames' socket, and the stream whose end is the port's end.
#[derive(Debug)]
struct Plug {
    data: Arc<OwnedFd>,
    control: Arc<OwnedFd>,
    properties: Properties,
}

/// The number of the data socket in the list of descriptors.
const DATA: usize = 0;

impl Wire for Plug {
    fn properties(&self) -> Properties {
        self.properties
    }

    fn descriptors(&self) -> Vec<Descriptor> {
        vec![
            Descriptor { fd: self.data.clone(), sends: true },
            Descriptor { fd: self.control.clone(), sends: false },
        ]
    }

    fn send(&self, frames: &mut Batch, tally: &Tally) -> Result<(), Halt> {
        datagram::send(self.data.as_fd(), None::<&UnixAddr>, frames, tally, |_| false)
    }

    fn receive(&self, which: usize, room: usize, batch: &mut Batch, tally: &Tally) -> Result<bool, Halt> {
        if which != DATA && !self.has_ended() {
            return Ok(false);
        }
        let frame_max = frame_max(&self.properties);
        match datagram::receive(self.data.as_fd(), frame_max, room, batch, tally) {
            Ok(received) => {
                tally.received_bad_length(received.empty as u64);
                // What the switch sent before it went is still for us.
                if which == DATA || received.more { Ok(received.more) } else { Err(Halt::Gone) }
            }
            Err(Errno::EAGAIN) if which == DATA => Err(Halt::Wait),
            Err(_) => Err(Halt::Gone),
        }
    }

    fn close(&self) {
        // The switch forgets the port; the descriptors themselves may be in use by another thread.
        let _ = shutdown(self.control.as_raw_fd(), Shutdown::Both);
    }
}

impl Plug {
    /// Whether the stream has ended: nothing else is expected on it.
    fn has_ended(&self) -> bool {
        let mut ignored = [0; 256];
        match recv(self.control.as_raw_fd(), &mut ignored, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => true,
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => false,
            Err(_) => true,
        }
    }
}

#[cfg(test)]
mod tests;
