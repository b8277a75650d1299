//! Failures, as a person reads them.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// What went wrong, and what would be right.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Failure(message)
    }
}

/// Says what was being done when something failed.
pub trait Context<T> {
    /// Puts `what` before the error, and behind it what would be right where that is known.
    ///
    /// # Errors
    /// The one that is there already.
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| {
            let hint =
                error.raw_os_error().and_then(hint).map(|hint| format!(" ({hint})")).unwrap_or_default();
            Failure(format!("{}: {error}{hint}", what()))
        })
    }
}

impl<T> Context<T> for ioth::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        // libioth's own messages say what would be right.
        self.map_err(|error| Failure(format!("{}: {error}", what())))
    }
}

/// What a program's `main` returns: 0, or 1 after telling the failure on standard error.
pub fn finish(name: &str, result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{name}: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// What would be right, by error number.
fn hint(errno: i32) -> Option<&'static str> {
    Some(match errno {
        libc::ECONNREFUSED => "that node is there, but nobody listens on that port: start the receiver first",
        libc::EHOSTUNREACH => {
            "nobody has that address on this network: is the other node up, on the same vnl=?"
        }
        libc::ENETUNREACH => "no route: give the node an ip= with a prefix that holds the address, or a gw=",
        libc::ETIMEDOUT => "the other node stopped answering",
        libc::EADDRINUSE => "take another port, or end the program that has this one",
        libc::EADDRNOTAVAIL => "the node has no such address: give it one with ip=",
        libc::EACCES => "ports below 1024 of the kernel's stack are for root: take a higher one",
        libc::EMSGSIZE => "larger than a datagram on this network can be: send less, or over TCP",
        libc::EAFNOSUPPORT => "this stack has no such address family",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_wrong_and_what_would_be_right() {
        let refused: io::Result<()> = Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
        let message = refused.context(|| "connect to 10.0.0.1:5000".to_owned()).unwrap_err().to_string();
        assert!(message.starts_with("connect to 10.0.0.1:5000: Connection refused"), "{message}");
        assert!(message.contains("start the receiver first"), "{message}");
    }
}
