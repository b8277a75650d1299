//! The program: where it is, and whether our library can be loaded into it.
//!
//! A program that our library cannot be loaded into would use the host's network and nobody would notice. What can be
//! found out is found out before it starts.

mod elf;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::prctl::get_no_new_privs;
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::unistd::{AccessFlags, access, getgid, getuid};

use crate::failure::{Failure, Result};
use crate::sys;
use elf::Elf;

/// execve(2): "up to 255 characters" of a "#!" line and its end, and how many interpreters may follow on each other.
const SCRIPT_LINE: usize = 256;
const MAX_INTERPRETERS: usize = 5;
/// execvp(3), where there is no `PATH`.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// A program that is there and may be executed.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
}

impl Program {
    /// Finds it as execvp(3) does.
    ///
    /// # Errors
    /// 127 when there is none, 126 when it may not be executed.
    pub(crate) fn find(name: &OsStr) -> Result<Self> {
        Program::find_in(name, std::env::var_os("PATH"))
    }

    fn find_in(name: &OsStr, path: Option<OsString>) -> Result<Self> {
        if name.as_bytes().contains(&b'/') {
            let path = PathBuf::from(name);
            return match (path.metadata(), is_executable(&path)) {
                (Err(error), _) => Err(Failure::not_found(format!("{}: {error}", path.display()))),
                (Ok(meta), _) if meta.is_dir() => {
                    Err(Failure::not_executable(format!("{}: it is a directory", path.display())))
                }
                (Ok(meta), _) if !meta.is_file() => {
                    Err(Failure::not_executable(format!("{}: it is no file", path.display())))
                }
                (Ok(_), false) => {
                    Err(Failure::not_executable(format!("{}: permission denied", path.display())))
                }
                (Ok(_), true) => Ok(Program { path }),
            };
        }
        let mut forbidden = None;
        let dirs = path.unwrap_or_else(|| DEFAULT_PATH.into());
        for dir in std::env::split_paths(&dirs).filter(|_| !name.is_empty()) {
            // An empty entry is the current directory.
            let candidate =
                if dir.as_os_str().is_empty() { Path::new(".").join(name) } else { dir.join(name) };
            if candidate.is_file() {
                match is_executable(&candidate) {
                    true => return Ok(Program { path: candidate }),
                    false => forbidden = forbidden.or(Some(candidate)),
                }
            }
        }
        Err(match forbidden {
            Some(path) => Failure::not_executable(format!("{}: permission denied", path.display())),
            None => Failure::not_found(format!("{}: not found in PATH", name.display())),
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether our library can be loaded into it: what to warn of.
    ///
    /// # Errors
    /// 126 when it cannot.
    pub(crate) fn check(&self) -> Result<Vec<String>> {
        let own = Elf::read(&File::open("/proc/self/exe"));
        let mut path = self.path.clone();
        for _ in 0..MAX_INTERPRETERS {
            // What may be executed but not read says nothing; nor does what is no file, and opening it may wait.
            let Some(file) = path.is_file().then(|| File::open(&path).ok()).flatten() else {
                return Ok(Vec::new());
            };
            if let Some(interpreter) = interpreter(&file) {
                path = interpreter;
                continue;
            }
            if let Some(why) = gains_rights(&file) {
                return Err(unreachable_for_us(&path, why));
            }
            return match (Elf::read(&Ok(file)), &own) {
                (Some(elf), Some(own)) => elf.judge(own).map_err(|why| unreachable_for_us(&path, &why)),
                // No ELF: the kernel, or a binfmt_misc(5) handler, has to know.
                _ => Ok(Vec::new()),
            }
            .map(|warnings| {
                warnings.into_iter().map(|warning| format!("{}: {warning}", path.display())).collect()
            });
        }
        // execve(2) fails with ELOOP, and says so.
        Ok(Vec::new())
    }
}

fn unreachable_for_us(path: &Path, why: &str) -> Failure {
    Failure::not_executable(format!(
        "{}: {why}, so it would use the host's network: not started",
        path.display()
    ))
}

fn is_executable(path: &Path) -> bool {
    access(path, AccessFlags::X_OK).is_ok()
}

/// The interpreter of a script.
fn interpreter(file: &File) -> Option<PathBuf> {
    let mut line = Vec::with_capacity(SCRIPT_LINE);
    file.take(SCRIPT_LINE as u64).read_to_end(&mut line).ok()?;
    script_interpreter(&line)
}

fn script_interpreter(begin: &[u8]) -> Option<PathBuf> {
    let line = begin.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let word = line.split(|byte| b" \t".contains(byte)).find(|word| !word.is_empty())?;
    Some(OsStr::from_bytes(word).into())
}

/// Why the kernel would give the program other rights than its caller's: then the dynamic linker obeys no environment.
fn gains_rights(file: &File) -> Option<&'static str> {
    let meta = file.metadata().ok()?;
    let is_void = get_no_new_privs().unwrap_or(false)
        || fstatvfs(file).is_ok_and(|system| system.flags().contains(FsFlags::ST_NOSUID));
    if is_void {
        return None;
    }
    let mode = meta.mode();
    let set_gid = nix::libc::S_ISGID | nix::libc::S_IXGRP;
    if mode & nix::libc::S_ISUID != 0 && meta.uid() != getuid().as_raw() {
        return Some("it runs as another user than its caller (set-uid), and no library can be put into it");
    }
    if mode & set_gid == set_gid && meta.gid() != getgid().as_raw() {
        return Some("it runs as another group than its caller (set-gid), and no library can be put into it");
    }
    if !getuid().is_root() && sys::has_attribute(file.as_fd(), c"security.capability") {
        return Some("it has more rights than its caller (capabilities), and no library can be put into it");
    }
    None
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A directory with a few files, gone when dropped.
    struct Files(PathBuf);

    impl Files {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("ioth-program-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            Files(dir)
        }

        fn add(&self, name: &str, mode: u32, content: &[u8]) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            path
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn find(name: &OsStr, path: &str) -> Result<PathBuf> {
        Program::find_in(name, Some(path.into())).map(|program| program.path)
    }

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let (first, second) = (Files::new("first"), Files::new("second"));
        first.add("forbidden", 0o644, b"");
        first.add("both", 0o644, b"");
        let both = second.add("both", 0o755, b"");
        let path = format!("/nowhere:{}:{}", first.0.display(), second.0.display());
        assert_eq!(find("both".as_ref(), &path).unwrap(), both);
        assert_eq!(find(both.as_os_str(), "").unwrap(), both);
        assert_eq!(find("forbidden".as_ref(), &path).unwrap_err().status(), 126);
        assert_eq!(find("none".as_ref(), &path).unwrap_err().status(), 127);
        assert_eq!(find("".as_ref(), &path).unwrap_err().status(), 127);
        assert_eq!(find(first.0.join("none").as_os_str(), &path).unwrap_err().status(), 127);
        assert_eq!(find(first.0.join("forbidden").as_os_str(), &path).unwrap_err().status(), 126);
        assert_eq!(find(first.0.as_os_str(), &path).unwrap_err().status(), 126);
    }

    #[test]
    fn scripts_are_followed() {
        for (line, interpreter) in [
            (&b"#!/bin/sh\nrest"[..], Some("/bin/sh")),
            (b"#! \t/usr/bin/env python3\n", Some("/usr/bin/env")),
            (b"#!/bin/sh", Some("/bin/sh")),
            (b"#!\n/bin/sh", None),
            (b"#", None),
            (b"", None),
        ] {
            assert_eq!(script_interpreter(line), interpreter.map(PathBuf::from), "{line:?}");
        }
        let files = Files::new("scripts");
        let dynamic = Program::find("sh".as_ref()).unwrap();
        assert_eq!(dynamic.check(), Ok(Vec::new()));
        let inner = files.add("inner", 0o755, format!("#!{}\n", dynamic.path().display()).as_bytes());
        let outer = files.add("outer", 0o755, format!("#!{} -x\n", inner.display()).as_bytes());
        assert_eq!(Program { path: outer }.check(), Ok(Vec::new()));
        let own = files.0.join("loop");
        files.add("loop", 0o755, format!("#!{}\n", own.display()).as_bytes());
        assert_eq!(Program { path: own }.check(), Ok(Vec::new()));
    }

    #[test]
    fn programs_with_more_rights_are_refused() {
        let files = Files::new("rights");
        let path = files.add("program", 0o755, b"");
        let other = getuid().as_raw() + 1;
        if std::os::unix::fs::chown(&path, Some(other), None).is_err() {
            // An ordinary user finds one of root's: passwd(1) is always there.
            assert_eq!(Program { path: "/usr/bin/passwd".into() }.check().unwrap_err().status(), 126);
            return;
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o4755)).unwrap();
        let nosuid = fstatvfs(File::open(&path).unwrap()).unwrap().flags().contains(FsFlags::ST_NOSUID);
        let failure = Program { path }.check();
        match nosuid {
            true => assert_eq!(failure, Ok(Vec::new())),
            false => assert!(failure.unwrap_err().to_string().contains("set-uid")),
        }
    }
}
