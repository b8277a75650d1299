//! Backends by name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::{Stack, StackSpec};

/// Makes a stack of one backend.
pub type Factory = Arc<dyn Fn(&StackSpec) -> std::result::Result<Arc<dyn Stack>, StackError> + Send + Sync>;

/// The table of backends: explicit, ordered by name, open to third parties.
///
/// There is no global one here and nothing registers itself; the facade builds its own table from
/// its features and lets a program add to it.
#[derive(Clone, Default)]
pub struct Registry {
    factories: BTreeMap<String, Factory>,
}

/// Error returned by [`Registry::create`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StackError {
    /// No backend of that name.
    #[error("stack: unknown backend \"{name}\" (known: {known})")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is, separated by commas.
        known: String,
    },
    /// A virtual network locator is wrong, or its network cannot be reached.
    #[error("{message}")]
    Link {
        /// Which VNL, what is wrong, what would be right.
        message: String,
        /// The same as Linux's error.
        errno: crate::Errno,
    },
    /// The stack has a process of its own, which could not be started or reached.
    #[error("{message}")]
    Process {
        /// What is wrong, what would be right.
        message: String,
        /// The same as Linux's error.
        errno: crate::Errno,
    },
    /// The backend could not make the stack.
    #[error("stack: {what}: {errno}")]
    Os {
        /// What was being done.
        what: String,
        /// Why it failed.
        errno: crate::Errno,
    },
}

impl StackError {
    /// The error as Linux numbers it: `ENOTSUP` for an unknown backend, else the cause's.
    pub fn errno(&self) -> crate::Errno {
        match self {
            StackError::Unknown { .. } => crate::Errno::ENOTSUP,
            StackError::Link { errno, .. }
            | StackError::Process { errno, .. }
            | StackError::Os { errno, .. } => *errno,
        }
    }
}

impl From<StackError> for std::io::Error {
    fn from(error: StackError) -> Self {
        let kind = std::io::Error::from(error.errno()).kind();
        std::io::Error::new(kind, error)
    }
}

impl Registry {
    /// An empty table.
    pub fn new() -> Self {
        Registry::default()
    }

    /// Adds a backend, or replaces the one of that name.
    pub fn register(&mut self, name: impl Into<String>, factory: Factory) {
        self.factories.insert(name.into(), factory);
    }

    /// Makes a stack from `name[,options]` and its virtual network locators.
    ///
    /// # Errors
    /// The name is unknown, or the backend's own.
    pub fn create(&self, stack: &str, vnls: &[&str]) -> std::result::Result<Arc<dyn Stack>, StackError> {
        let (name, options) = stack.split_once(',').unwrap_or((stack, ""));
        let factory = self.factories.get(name).ok_or_else(|| StackError::Unknown {
            name: name.to_owned(),
            known: self.names().filter(|name| !name.is_empty()).collect::<Vec<_>>().join(", "),
        })?;
        factory(&StackSpec {
            options: options.to_owned(),
            vnls: vnls.iter().map(|vnl| (*vnl).to_owned()).collect(),
        })
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.factories.keys().map(String::as_str)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}
