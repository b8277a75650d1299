//! Starting a node process, as the commands `run` and `node` do.

use std::ffi::OsStr;
use std::path::Path;

use ioth::conf::Config;
use ioth_node_client::named::Name;
use ioth_node_client::start::{self, Served};

use crate::failure::{Failure, Result};

/// The node of who names none.
const LOOPBACK_ONLY: &str = "stack=smoltcp";

/// The configuration of a node: what was asked for, or loopback only.
///
/// # Errors
/// It is no configuration string, or one of the host itself.
pub(crate) fn config(asked: Option<&str>) -> Result<&str> {
    let Some(text) = asked else {
        return Ok(LOOPBACK_ONLY);
    };
    let config: Config = text.parse().map_err(|error| Failure::new(format!("--stack: {error}")))?;
    let backend = config.stack().unwrap_or_default().split(',').next().unwrap_or_default();
    match backend {
        "" => Err(Failure::new(format!(
            "--stack: no stack= in \"{text}\", which is the host's own network: say stack=smoltcp"
        ))),
        "kernel" => Err(Failure::new(
            "--stack: stack=kernel is the host's own network: run the program without ioth, or say stack=smoltcp",
        )),
        "node" => Err(Failure::new(
            "--stack: stack=node is for programs that link the library, and makes what this makes: say stack=smoltcp",
        )),
        _ => Ok(text),
    }
}

/// Starts a node process, which is this command again, and waits until it serves. Without a name it is for `program`.
///
/// # Errors
/// What it reported instead; a system call failed.
pub(crate) fn start(config: &str, name: Option<&Name>, program: Option<&OsStr>) -> Result<Served> {
    let served = start::start(Path::new("/proc/self/exe"), config, name, program)?;
    served.notes.lines().for_each(|line| eprintln!("ioth: node: {line}"));
    Ok(served)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_no_node() {
        assert_eq!(config(None), Ok(LOOPBACK_ONLY));
        let text = "stack=smoltcp,vnl=null://,ip=10.0.0.1/24";
        assert_eq!(config(Some(text)), Ok(text));
        for (wrong, hint) in [
            ("stack=kernel", "stack=smoltcp"),
            ("stack=kernel,ip=10.0.0.1/24", "stack=smoltcp"),
            ("stack=node", "stack=smoltcp"),
            ("stack='node,name=web'", "stack=smoltcp"),
            ("ip=10.0.0.1/24", "stack=smoltcp"),
            ("", "stack=smoltcp"),
            ("stack=smoltcp,vln=null://", "did you mean \"vnl\"?"),
        ] {
            let failure = config(Some(wrong)).unwrap_err();
            assert_eq!(failure.status(), 1);
            let message = failure.to_string();
            assert!(message.contains(hint) && !message.contains('\n'), "{wrong}: {message}");
        }
    }
}
