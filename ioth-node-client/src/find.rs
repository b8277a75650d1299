//! Where the command `ioth` is, which a node process is.
//!
//! A library has no program of its own to run, and can rely on none: the program that it is part of may do anything in its
//! `main`, and a forked copy of a process with threads can do next to nothing. So the command has to be there.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ioth_core::Errno;

use crate::error::{Error, Result};
use crate::sys;

/// The variable that names the command, by its path.
pub const COMMAND_ENV: &str = "IOTH_COMMAND";
const FILE: &str = "ioth";
/// Where it is looked for beside `PATH`, of which services have little.
const USUAL: [&str; 2] = ["/usr/local/bin", "/usr/bin"];

/// The command's path: that of [`COMMAND_ENV`], else the first in `PATH`, `/usr/local/bin` and `/usr/bin`.
///
/// A program with more rights than its caller (set-uid) looks into the latter two only: the environment is its caller's.
///
/// # Errors
/// `ENOENT` when it is nowhere, with all places that were looked at.
pub fn command() -> Result<PathBuf> {
    let variable = |name| if sys::is_privileged() { None } else { std::env::var_os(name) };
    let named = variable(COMMAND_ENV).filter(|path| !path.is_empty());
    match named {
        Some(named) => find(vec![named.into()], true),
        None => find(places(variable("PATH").as_deref()), false),
    }
}

fn find(places: Vec<PathBuf>, is_named: bool) -> Result<PathBuf> {
    match places.iter().find(|place| is_executable(place)) {
        // The node's process is given it as it is, and the current directory may change meanwhile.
        Some(found) => Ok(std::path::absolute(found).unwrap_or_else(|_| found.clone())),
        None if is_named => Err(Error::new(
            format!("node: {COMMAND_ENV} names no program: {}", places[0].display()),
            Errno::ENOENT,
        )),
        None => {
            let places: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
            Err(Error::new(
                format!(
                    "node: there is no command {FILE}, which a node process is: not {} (install it, or let {COMMAND_ENV} \
                     be its path)",
                    places.join(", ")
                ),
                Errno::ENOENT,
            ))
        }
    }
}

fn places(path: Option<&OsStr>) -> Vec<PathBuf> {
    // What is relative would be whatever the current directory has.
    let listed = path.into_iter().flat_map(std::env::split_paths).filter(|dir| dir.is_absolute());
    let mut places: Vec<PathBuf> = Vec::new();
    for place in listed.chain(USUAL.map(PathBuf::from)).map(|dir| dir.join(FILE)) {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_looked_for_in_the_path_and_where_programs_are() {
        let places = |path: &str| places(Some(OsStr::new(path)));
        assert_eq!(
            places("/a:/usr/bin::./b:b:/a"),
            ["/a/ioth", "/usr/bin/ioth", "/usr/local/bin/ioth"].map(PathBuf::from)
        );
        assert_eq!(super::places(None).len(), 2);
    }

    #[test]
    fn what_is_missing_is_said() {
        let error = find(vec!["/nowhere/ioth".into(), "/neither/ioth".into()], false).unwrap_err();
        assert_eq!(error.errno(), Errno::ENOENT);
        let text = error.to_string();
        assert!(text.contains("/nowhere/ioth, /neither/ioth") && text.contains(COMMAND_ENV), "{text}");
        let error = find(vec!["/dev/null".into()], true).unwrap_err();
        assert_eq!(error.to_string(), "node: IOTH_COMMAND names no program: /dev/null");
    }

    #[test]
    fn what_can_be_executed_is_found() {
        assert_eq!(find(vec!["/dev/null".into(), "/bin/sh".into()], false), Ok("/bin/sh".into()));
    }
}
