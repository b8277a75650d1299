//! What we are compared with, and over which networks. All of it ends with the process, however that ends: processes
//! end at the end of their standard input, and namespaces with their last user.

pub(crate) mod frames;
pub(crate) mod netns;
pub(crate) mod remote;
pub(crate) mod switch;
pub(crate) mod vdestack;

use std::path::{Path, PathBuf};

/// The program of that name: where `PATH` has it, or where only root's has it.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// A directory of this process, which is removed in the end.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> std::io::Result<Self> {
        let dir = std::env::temp_dir().join(format!("ioth-bench-{}", std::process::id()));
        std::fs::create_dir(&dir)?;
        Ok(Scratch(dir))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A directory in it.
    pub(crate) fn subdirectory(&self, name: &str) -> Result<PathBuf, String> {
        let dir = self.0.join(name);
        std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Compiles a program in C that needs a library; else what is missing.
pub(crate) fn compile(
    dir: &Path,
    name: &str,
    text: &str,
    library: &str,
    remedy: &str,
) -> Result<PathBuf, String> {
    let cc = program("cc").ok_or("apt-get install gcc libc6-dev")?;
    let (source, made) = (dir.join(format!("{name}.c")), dir.join(format!("{name}-helper")));
    std::fs::write(&source, text).map_err(|error| format!("{}: {error}", source.display()))?;
    let output = std::process::Command::new(cc)
        .args(["-O2", "-Wall", "-o"])
        .arg(&made)
        .arg(&source)
        .arg(format!("-l{library}"))
        .output()
        .map_err(|error| format!("cc: {error}"))?;
    if output.status.success() {
        return Ok(made);
    }
    let why = String::from_utf8_lossy(&output.stderr);
    if why.contains(&format!("{library}.h")) || why.contains(&format!("-l{library}")) {
        return Err(remedy.to_owned());
    }
    Err(format!("cc: {}", why.lines().next().unwrap_or_default()))
}
