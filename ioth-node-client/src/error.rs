//! What can be wrong with a node process, and on the way to it.

use std::fmt;
use std::io;

use ioth_core::Errno;
use ioth_core::registry::StackError;

/// Error returned where a node process is started, named or joined: what was wrong, and what would be right.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    message: String,
    errno: Errno,
}

/// Result of what is done with node processes.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// What was wrong, and the same as Linux numbers it.
    pub fn new(message: impl Into<String>, errno: Errno) -> Self {
        Error { message: message.into(), errno }
    }

    /// The error as Linux numbers it.
    pub fn errno(&self) -> Errno {
        self.errno
    }
}

impl From<Error> for StackError {
    fn from(Error { message, errno }: Error) -> Self {
        StackError::Process { message, errno }
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

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| {
            let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
            Error::new(format!("{what}: {error}"), errno)
        })
    }
}

impl<T> Context<T> for nix::Result<T> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|errno: Errno| Error::new(format!("{what}: {}", errno.desc()), errno))
    }
}
