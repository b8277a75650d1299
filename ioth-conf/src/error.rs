//! What can be wrong with a configuration.

use ioth_core::registry::StackError;
use ioth_core::{Errno, netlink};

/// Error returned when a configuration string is read or applied.
///
/// Positions are counted in characters from 1. Of an unknown word only the part before `=` is shown:
/// what follows may be a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No such word.
    #[error("config: unknown word \"{word}\" at character {position}{}", hint(.nearest))]
    UnknownWord {
        /// The word, at most 32 characters of it.
        word: String,
        /// Where it begins.
        position: usize,
        /// The known word that looks most like it.
        nearest: Option<&'static str>,
    },
    /// A word of libioth that this version does not serve.
    #[error("config: \"{word}\" at character {position} is not supported in this version")]
    NotSupported {
        /// The word.
        word: &'static str,
        /// Where it begins.
        position: usize,
    },
    /// The word needs a value.
    #[error("config: \"{word}\" at character {position} needs a value: {word}={expected}")]
    MissingValue {
        /// The word.
        word: &'static str,
        /// Where it begins.
        position: usize,
        /// What the value would be.
        expected: &'static str,
    },
    /// The word takes no value.
    #[error("config: \"{word}\" at character {position} takes no value")]
    UnexpectedValue {
        /// The word.
        word: &'static str,
        /// Where it begins.
        position: usize,
    },
    /// The value cannot be read.
    #[error("config: {word}= at character {position}: {reason}")]
    Value {
        /// The word.
        word: &'static str,
        /// Where it begins.
        position: usize,
        /// What is wrong with the value, and what would be right.
        reason: String,
    },
    /// The word may stand only once.
    #[error("config: second \"{word}\" at character {position}")]
    Repeated {
        /// The word.
        word: &'static str,
        /// Where it begins.
        position: usize,
    },
    /// A quote is not closed.
    #[error("config: nothing ends the {quote} at character {position}")]
    Quote {
        /// The quote.
        quote: char,
        /// Where it stands.
        position: usize,
    },
    /// `stack=` or `vnl=` for a stack that is there already.
    #[error("config: {word}= makes a stack, it cannot change one")]
    Misplaced {
        /// The word.
        word: &'static str,
    },
    /// A word where only an interface can be selected.
    #[error("config: {word} does not select an interface (iface=NAME, ifindex=N)")]
    NotASelection {
        /// The word and its value.
        word: String,
    },
    /// The stack could not be made.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The stack has no such interface.
    #[error("config: the stack has no interface {interface}")]
    NoInterface {
        /// Its name or index.
        interface: String,
    },
    /// The stack refused a step.
    #[error("config: {step}: {source}")]
    Step {
        /// The interface and the word.
        step: String,
        /// Why.
        source: netlink::Error,
    },
    /// Something else is already there instead.
    #[error("config: {step}: {there}")]
    Conflict {
        /// The interface and the word.
        step: String,
        /// What is there.
        there: String,
    },
}

impl ConfigError {
    /// The error as Linux numbers it: `EINVAL` for what is wrong in the string, `ENOTSUP` for words that
    /// are not supported in this version, `ENODEV` for a missing interface, else the stack's own.
    pub fn errno(&self) -> Errno {
        match self {
            ConfigError::UnknownWord { .. }
            | ConfigError::MissingValue { .. }
            | ConfigError::UnexpectedValue { .. }
            | ConfigError::Value { .. }
            | ConfigError::Repeated { .. }
            | ConfigError::Quote { .. }
            | ConfigError::Misplaced { .. }
            | ConfigError::NotASelection { .. } => Errno::EINVAL,
            ConfigError::NotSupported { .. } => Errno::ENOTSUP,
            ConfigError::Stack(error) => error.errno(),
            ConfigError::NoInterface { .. } => Errno::ENODEV,
            ConfigError::Step { source, .. } => source.errno(),
            ConfigError::Conflict { .. } => Errno::EEXIST,
        }
    }

    /// Where in the string it is, in characters from 1; `None` for what went wrong later.
    pub fn position(&self) -> Option<usize> {
        match self {
            ConfigError::UnknownWord { position, .. }
            | ConfigError::NotSupported { position, .. }
            | ConfigError::MissingValue { position, .. }
            | ConfigError::UnexpectedValue { position, .. }
            | ConfigError::Value { position, .. }
            | ConfigError::Repeated { position, .. }
            | ConfigError::Quote { position, .. } => Some(*position),
            _ => None,
        }
    }
}

impl From<ConfigError> for std::io::Error {
    fn from(error: ConfigError) -> Self {
        let kind = std::io::Error::from(error.errno()).kind();
        std::io::Error::new(kind, error)
    }
}

fn hint(nearest: &Option<&'static str>) -> String {
    nearest.map(|word| format!(" (did you mean \"{word}\"?)")).unwrap_or_default()
}
