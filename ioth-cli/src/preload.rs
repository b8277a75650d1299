//! Where the preload library is.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ioth_node_client::start::{PRELOAD_FILE as FILE, without_preload};

use crate::failure::{Context, Failure, Result};

/// The variable that names it.
const ENV: &str = "IOTH_PRELOAD";

/// Debian's name for this machine's kind, below which libraries are.
const MULTIARCH: &str = if cfg!(target_arch = "x86_64") {
    "x86_64-linux-gnu"
} else if cfg!(target_arch = "aarch64") {
    "aarch64-linux-gnu"
} else if cfg!(target_arch = "riscv64") {
    "riscv64-linux-gnu"
} else if cfg!(target_arch = "x86") {
    "i386-linux-gnu"
} else if cfg!(target_arch = "arm") {
    "arm-linux-gnueabihf"
} else if cfg!(target_arch = "s390x") {
    "s390x-linux-gnu"
} else {
    "powerpc64le-linux-gnu"
};

/// The library's path.
///
/// # Errors
/// It is not there: the message says where it was looked for. It cannot be named to the dynamic linker.
pub(crate) fn find() -> Result<PathBuf> {
    let own = std::env::current_exe().context("the path of ioth itself")?;
    let named = std::env::var_os(ENV).filter(|path| !path.is_empty());
    let places = places(&own, named.as_deref());
    let Some(found) = places.iter().find(|place| place.is_file()) else {
        let places: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
        return Err(Failure::new(format!(
            "{FILE}: not in any of {} (it is built with ioth; {ENV} says where it is)",
            places.join(", ")
        )));
    };
    // Programs change their directory.
    let found = std::path::absolute(found).context(found.display())?;
    // ld.so(8): "The items of the list can be separated by spaces or colons, and there is no support for escaping".
    match found.as_os_str().as_bytes().iter().any(|byte| b" :".contains(byte)) {
        true => Err(Failure::new(format!(
            "{}: the dynamic linker takes no path with a blank or a colon ({ENV} names another)",
            found.display()
        ))),
        false => Ok(found),
    }
}

/// What `LD_PRELOAD` is to be: the library, then the others that are there.
pub(crate) fn with(library: &Path, others: Option<&OsStr>) -> OsString {
    let mut list = library.as_os_str().to_owned();
    if let Some(others) = without_preload(others) {
        list.push(":");
        list.push(others);
    }
    list
}

fn places(own: &Path, named: Option<&OsStr>) -> Vec<PathBuf> {
    if let Some(named) = named {
        return vec![named.into()];
    }
    let beside = own.parent().unwrap_or(Path::new("/"));
    let prefix = beside.parent().unwrap_or(Path::new("/"));
    let lib = prefix.join("lib");
    vec![
        beside.join(FILE),
        lib.join("ioth").join(FILE),
        lib.join(MULTIARCH).join("ioth").join(FILE),
        lib.join(MULTIARCH).join(FILE),
        prefix.join("lib64/ioth").join(FILE),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_looked_for_beside_the_command_and_where_libraries_are() {
        let places = places(Path::new("/usr/bin/ioth"), None);
        assert_eq!(places[0], Path::new("/usr/bin/libioth_preload.so"));
        assert!(places.contains(&"/usr/lib/ioth/libioth_preload.so".into()), "{places:?}");
        assert!(places.contains(&Path::new("/usr/lib").join(MULTIARCH).join(FILE)), "{places:?}");
        assert_eq!(
            super::places(Path::new("/usr/bin/ioth"), Some(OsStr::new("/x.so"))),
            [Path::new("/x.so")]
        );
    }

    #[test]
    fn ours_is_first_and_once() {
        let library = Path::new("/lib/ioth/libioth_preload.so");
        let with = |others| with(library, others).into_string().unwrap();
        assert_eq!(with(None), "/lib/ioth/libioth_preload.so");
        assert_eq!(with(Some(OsStr::new(""))), "/lib/ioth/libioth_preload.so");
        assert_eq!(with(Some(OsStr::new("a.so /b.so"))), "/lib/ioth/libioth_preload.so:a.so:/b.so");
        assert_eq!(
            with(Some(OsStr::new("/old/libioth_preload.so:a.so"))),
            "/lib/ioth/libioth_preload.so:a.so"
        );
        assert_eq!(without_preload(Some(OsStr::new("/old/libioth_preload.so"))), None);
        assert_eq!(without_preload(None), None);
    }
}
