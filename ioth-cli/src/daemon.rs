//! Going into the background, and the file that says who is there.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::{chdir, dup2_stderr, dup2_stdin, dup2_stdout, pipe2, setsid};

use crate::failure::{Context, Failure, Result};
use crate::{serve, sys};

/// Does `work` in the background. It is told by `Ready` that all that can fail is done, and by returning that it cannot
/// be done: the caller hears either.
///
/// # Errors
/// Why it could not begin.
pub(crate) fn detached(work: impl FnOnce(Ready) -> Result<()>) -> Result<()> {
    let (from_child, to_parent) = pipe2(OFlag::O_CLOEXEC).context("a pipe")?;
    if !sys::fork().context("a process")? {
        drop(to_parent);
        let mut told = BufReader::new(std::fs::File::from(from_child));
        let mut why = Vec::new();
        // A zero says that it has begun: the pipe stays open for as long as it lives.
        told.read_until(0, &mut why).context("the process in the background")?;
        return match &why[..] {
            [0] => Ok(()),
            why => Err(Failure::new(String::from_utf8_lossy(why))),
        };
    }
    drop(from_child);
    let mut starter = std::fs::File::from(to_parent);
    let again = starter.try_clone().context("a pipe");
    let outcome = again.and_then(|again| {
        setsid().context("a session")?;
        work(Ready(Some(again)))
    });
    if let Err(failure) = outcome {
        // The starter says it. One that went away has no use for it.
        let _ = starter.write_all(failure.to_string().as_bytes());
    }
    Ok(())
}

/// Tells the one who waits for it that the work has begun.
pub(crate) struct Ready(Option<std::fs::File>);

impl Ready {
    /// Nobody waits.
    pub(crate) fn foreground() -> Self {
        Ready(None)
    }

    /// From here on nothing can fail that the starter would want to hear of.
    ///
    /// # Errors
    /// `/dev/null` cannot be opened.
    pub(crate) fn tell(self) -> Result<()> {
        let Some(mut starter) = self.0 else { return Ok(()) };
        chdir("/").context("/")?;
        let null = serve::null()?;
        dup2_stdin(&null).context("standard input")?;
        dup2_stdout(&null).context("standard output")?;
        dup2_stderr(&null).context("standard error")?;
        let _ = starter.write_all(&[0]);
        Ok(())
    }
}

/// A file with the process's number, for as long as it lives.
pub(crate) struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Writes it.
    ///
    /// # Errors
    /// As open(2) and write(2).
    pub(crate) fn write(path: &Path) -> Result<Self> {
        let failed = || format!("writing the process's number to {}", path.display());
        // Others must be able to read it, and nobody to have us follow a link of theirs.
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o644).custom_flags(libc::O_NOFOLLOW);
        let mut file = options.open(path).context(failed())?;
        writeln!(file, "{}", std::process::id()).context(failed())?;
        let path = std::path::absolute(path).context(failed())?;
        Ok(PidFile { path })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
