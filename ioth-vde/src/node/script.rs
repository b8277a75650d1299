//! Files of management commands.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ioth_core::Errno;

use super::commands::{Answer, Outcome};
use super::core::Core;

/// Longest file of commands, in bytes.
const SCRIPT_MAX: u64 = 1 << 20;
/// How deep such files may load each other.
const SCRIPTS_MAX: usize = 8;

/// A line of a file of commands that could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongLine {
    /// Its number, from 1.
    pub number: usize,
    /// What it says.
    pub line: String,
    /// Why not, as the switch's console tells it.
    pub errno: Errno,
}

impl fmt::Display for WrongLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, {:?}: {}", self.number, self.line, self.errno)
    }
}

impl Core {
    /// Runs the commands of a file, all of them, as `vde_switch` does; those that could not be done are told.
    pub(super) fn load(&mut self, path: &Path) -> Result<Vec<WrongLine>, Errno> {
        if self.scripts >= SCRIPTS_MAX {
            return Err(Errno::ELOOP);
        }
        let errno = |error: io::Error| crate::errno(&error);
        // A FIFO would make the switch wait.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(errno)?;
        if !file.metadata().map_err(errno)?.is_file() {
            return Err(Errno::EINVAL);
        }
        let mut text = Vec::new();
        file.take(SCRIPT_MAX).read_to_end(&mut text).map_err(errno)?;
        self.scripts += 1;
        let mut wrong = Vec::new();
        for (at, line) in String::from_utf8_lossy(&text).lines().enumerate() {
            if let Outcome::Answer(Answer { result: Err(errno), .. }) = self.command(line) {
                wrong.push(WrongLine { number: at + 1, line: line.trim().to_owned(), errno });
            }
        }
        self.scripts -= 1;
        Ok(wrong)
    }
}
