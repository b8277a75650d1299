//! A file that is read again when it has changed.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

/// The longest file that is read, in bytes; the rest of a longer one does not count.
const LONGEST: u64 = 64 << 20;

/// What a file says.
#[derive(Debug)]
pub(crate) struct Cached<T> {
    path: PathBuf,
    parse: fn(&[u8]) -> T,
    last: Mutex<Option<(Stamp, Arc<T>)>>,
}

/// What tells one version of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl<T> Cached<T> {
    pub(crate) fn new(path: impl Into<PathBuf>, parse: fn(&[u8]) -> T) -> Self {
        Cached { path: path.into(), parse, last: Mutex::default() }
    }

    /// What it says now; a file that cannot be read says nothing, and nothing is in it.
    pub(crate) fn get(&self) -> Arc<T> {
        let mut last = self.last.lock();
        let stamp = std::fs::metadata(&self.path).map(|meta| Stamp::of(&meta));
        if let (Ok(stamp), Some((known, parsed))) = (&stamp, &*last)
            && stamp == known
        {
            return parsed.clone();
        }
        match read(&self.path) {
            Ok((stamp, bytes)) => {
                let parsed = Arc::new((self.parse)(&bytes));
                *last = Some((stamp, parsed.clone()));
                parsed
            }
            Err(_) => {
                *last = None;
                Arc::new((self.parse)(&[]))
            }
        }
    }
}

impl Stamp {
    fn of(meta: &std::fs::Metadata) -> Stamp {
        Stamp {
            file: (meta.dev(), meta.ino()),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

fn read(path: &Path) -> io::Result<(Stamp, Vec<u8>)> {
    // Nothing but a plain file: a pipe would be waited for.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let file = File::open(path)?;
    let stamp = Stamp::of(&file.metadata()?);
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok((stamp, bytes))
}

/// The fields of each line that has any: what is between spaces, up to a `#`.
pub(crate) fn lines(text: &[u8]) -> impl Iterator<Item = impl Iterator<Item = &[u8]>> {
    text.split(|&byte| byte == b'\n').filter_map(|line| {
        let line = line.split(|&byte| byte == b'#').next().unwrap_or_default();
        // isspace(3): with the vertical tab, which is_ascii_whitespace leaves out.
        let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
        let mut fields = line.split(is_space).filter(|field| !field.is_empty()).peekable();
        fields.peek().is_some().then_some(fields)
    })
}
