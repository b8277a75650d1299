//! A switch, or a hub, in a directory: what C plugs and `vde://` connect to.
//!
//! ```text
//!   DIR/ctl          clients ask for a port, and stay connected for as long as they want it
//!   DIR/NNN.FD       the data socket of port NNN: one datagram is one frame
//! ```
//! It serves all that `vde_switch` serves: both forms of the request, ports by number, several clients at one port,
//! data sockets by path or abstract name. Frames have up to 9234 bytes.
//!
//! One thread does all the work, in batches; which one is up to the owner: [`Node::serve`] is a loop of its own, and the
//! link `switch://PATH` is served by the process's reactor.

mod commands;
mod console;
mod core;
mod debug;
mod dir;
mod door;
mod egress;
mod fstp;
mod link;
mod mirror;
mod request;
mod script;
mod status;
mod transit;

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use ioth_core::{Errno, MacAddr};
use nix::sys::epoll::EpollFlags;

use self::core::{Core, Round, Token};
use self::dir::Permit;
use self::mirror::Mirror;
use crate::{LinkError, bridge};

pub(crate) use link::open;
pub use link::{Host, directory_mode};
pub use request::{Address, Request, RequestError, Wanted};
#[doc(hidden)]
pub use script::WrongLine;

/// What a switch in a directory is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The directory, which is made and removed.
    pub path: PathBuf,
    /// Permissions of the control socket.
    pub mode: u32,
    /// Permissions of the directory.
    pub dirmode: u32,
    /// The group of both.
    pub group: Option<u32>,
    /// The switch.
    pub bridge: bridge::Config,
    /// Its own address, which is shown and not used.
    pub mac: MacAddr,
    /// Places in the table of stations as it is shown, a power of two.
    pub buckets: usize,
    /// Seconds between rounds of forgetting, which are shown and not needed.
    pub interval: u32,
}

impl Config {
    /// A switch there, for its user alone, as `vde_switch` has it.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let mut random = [0; 6];
        // Without the system's randomness it is a poor address, and still one.
        let _ = getrandom::fill(&mut random);
        Config {
            path: path.into(),
            mode: 0o600,
            dirmode: 0o2700,
            group: None,
            bridge: bridge::Config::default(),
            mac: MacAddr::local(random),
            buckets: 128,
            interval: 2,
        }
    }
}

/// A switch in a directory. Dropping it removes all that it made.
#[derive(Debug)]
pub struct Node {
    core: Core,
}

impl Node {
    /// Makes the directory and listens in it.
    ///
    /// # Errors
    /// [`LinkError::Os`]: `EEXIST` for what is there already, `EADDRINUSE` for a switch that lives there, `ENAMETOOLONG`,
    /// or what the system says.
    pub fn open(config: Config) -> Result<Self, LinkError> {
        Ok(Node { core: Core::new(config)? })
    }

    /// Adds a management socket, as `vde_switch -M` has it.
    ///
    /// # Errors
    /// [`LinkError::Os`] when it cannot listen there.
    pub fn manage(
        &mut self,
        path: impl Into<PathBuf>,
        mode: u32,
        group: Option<u32>,
    ) -> Result<(), LinkError> {
        self.core.manage(path.into(), Permit { mode, group })
    }

    /// Plugs in the host's kernel, by a TAP interface of that name at a port of its own; made if it is not there.
    ///
    /// # Errors
    /// [`LinkError::Syntax`] for what is no interface's name; [`LinkError::Os`] when there is no such interface for us, or no
    /// free port: `ENOSPC`.
    pub fn tap(&mut self, name: &str) -> Result<(), LinkError> {
        let what = format!("a switch at {}: tap {name}", self.core.dir.path().display());
        let fd = crate::tap::plain(name, &what)?;
        self.core.add_tap(fd, name).map_err(|errno| LinkError::Os { what, errno })
    }

    /// Records each frame that arrives in a capture, which is made or emptied: every port is an interface, with who is there.
    ///
    /// # Errors
    /// [`LinkError::Os`] when there can be no such file: `EINVAL` for one that is none on a disk.
    pub fn mirror(&mut self, path: &Path) -> Result<(), LinkError> {
        let failed = |error: std::io::Error| LinkError::Os {
            what: format!("mirroring to {}", path.display()),
            errno: crate::errno(&error),
        };
        self.core.mirror = Some(Mirror::new(path).map_err(failed)?);
        Ok(())
    }

    /// Runs a management command: its answer as a manager reads it, without the prompt. What is no command, as an empty
    /// line, has none; `logout` and `shutdown` are a manager's own affair, and have none either.
    ///
    /// ```
    /// use ioth_vde::node::{Config, Node};
    ///
    /// let mut node = Node::open(Config::new(std::env::temp_dir().join(format!("doc-{}", std::process::id()))))?;
    /// assert_eq!(node.command("vlan/create 20").as_deref(), Some("1000 Success\n"));
    /// # Ok::<_, ioth_vde::LinkError>(())
    /// ```
    pub fn command(&mut self, line: &str) -> Option<String> {
        self.core.answer(line)
    }

    /// Runs the management commands of a file. All of them are tried; those that could not be done are told.
    ///
    /// # Errors
    /// [`LinkError::Os`] when the file cannot be read.
    pub fn load(&mut self, path: &Path) -> Result<Vec<WrongLine>, LinkError> {
        let failed = |errno| LinkError::Os { what: format!("commands from {}", path.display()), errno };
        self.core.load(path).map_err(failed)
    }

    /// The directory, from the root on.
    pub fn path(&self) -> &Path {
        self.core.dir.path()
    }

    /// Serves until `stop` is readable, or a management client says so.
    ///
    /// # Errors
    /// [`LinkError::Os`] when the system cannot wait for events.
    pub fn serve(&mut self, stop: BorrowedFd<'_>) -> Result<(), LinkError> {
        let failed = |errno: Errno| LinkError::Os { what: "waiting for events".to_owned(), errno };
        self.core.watch(stop.as_fd(), Token::Stop, EpollFlags::EPOLLIN).map_err(failed)?;
        let outcome = loop {
            match self.core.round(true) {
                Ok(Round::Stopped) => break Ok(()),
                Ok(_) => (),
                Err(errno) => break Err(failed(errno)),
            }
        };
        let _ = self.core.epoll.delete(stop);
        outcome
    }
}
