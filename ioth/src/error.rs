//! What can go wrong with a stack.

use std::io;

use ioth_core::registry::StackError;
use ioth_core::{Errno, netlink};

/// Error returned by the operations of a [`Stack`](crate::Stack).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The stack could not be made: an unknown backend, a wrong or unreachable virtual network.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// A configuration string is wrong, or the stack refused what it asks for.
    #[cfg(feature = "conf")]
    #[error(transparent)]
    Config(#[from] ioth_conf::ConfigError),
    /// The stack refused a request about its interfaces, addresses or routes.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// An operation failed.
    #[error("{what}: {}", errno.desc())]
    Os {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        errno: Errno,
    },
}

impl Error {
    /// The error as Linux numbers it.
    pub fn errno(&self) -> Errno {
        match self {
            Error::Stack(error) => error.errno(),
            #[cfg(feature = "conf")]
            Error::Config(error) => error.errno(),
            Error::Netlink(error) => error.errno(),
            Error::Os { errno, .. } => *errno,
        }
    }
}

impl From<Error> for io::Error {
    /// Keeps the message; the kind is that of the errno.
    fn from(error: Error) -> Self {
        let kind = io::Error::from(error.errno()).kind();
        io::Error::new(kind, error)
    }
}
