//! Failures, as a person reads them and as a shell sees them.

use std::fmt;

use nix::errno::Errno;

/// What went wrong, and what would be right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    message: String,
    status: u8,
    /// The same as Linux numbers it, for a program that made the node.
    errno: Errno,
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// The command itself fails.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Failure { message: message.into(), status: 1, errno: Errno::EIO }
    }

    /// The command is used wrongly.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Failure { status: 2, ..Failure::new(message) }
    }

    /// The program cannot be executed.
    pub(crate) fn not_executable(message: impl Into<String>) -> Self {
        Failure { status: 126, ..Failure::new(message) }
    }

    /// There is no such program.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Failure { status: 127, ..Failure::new(message) }
    }

    /// The same, as Linux numbers it.
    pub(crate) fn with_errno(self, errno: Errno) -> Self {
        Failure { errno, ..self }
    }

    /// The error as Linux numbers it.
    pub(crate) fn errno(&self) -> Errno {
        self.errno
    }

    /// The exit status, as a shell has it.
    pub(crate) fn status(&self) -> u8 {
        self.status
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<ioth_node_client::Error> for Failure {
    fn from(error: ioth_node_client::Error) -> Self {
        Failure::new(error.to_string()).with_errno(error.errno())
    }
}

/// Says what was being done when something failed.
pub(crate) trait Context<T> {
    /// Puts `what` before the error.
    ///
    /// # Errors
    /// The one that is there already.
    fn context(self, what: impl fmt::Display) -> Result<T>;
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| {
            let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
            Failure::new(format!("{what}: {error}")).with_errno(errno)
        })
    }
}

impl<T> Context<T> for nix::Result<T> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|errno: Errno| Failure::new(format!("{what}: {}", errno.desc())).with_errno(errno))
    }
}
