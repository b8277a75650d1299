//! `ioth run`.

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ioth_node::proto::{ENV, Place};
use ioth_node_client::named;
use ioth_node_client::start::{LD_PRELOAD, text};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource, getrlimit};

use crate::args::Run;
use crate::failure::{Context, Failure, Result};
use crate::program::Program;
use crate::{preload, start, sys};

/// Descriptors from here on are seldom closed one by one, and never by redirection in a shell.
const LEASE_FROM: u64 = 200;

/// Becomes the program: returns only when that fails.
///
/// # Errors
/// Why it cannot be the program, with a shell's exit status.
pub(crate) fn run(args: &Run) -> Result<()> {
    let tell = |what: std::fmt::Arguments<'_>| {
        if args.verbose {
            eprintln!("ioth: {what}");
        }
    };
    // All that can be wrong, before anything is started.
    let config = start::config(args.stack.as_deref())?;
    let program = Program::find(&args.program[0])?;
    for warning in program.check()? {
        eprintln!("ioth: {warning}");
    }
    let library = preload::find()?;

    let (place, lease) = match &args.node {
        Some(name) => {
            let (place, lease) = named::join(name)?;
            tell(format_args!("joined the node {name}"));
            (place, lease)
        }
        None => {
            let served = start::start(config, None, Some(&args.program[0]))?;
            tell(format_args!("a node of its own: process {}, {config}", served.pid));
            (served.place, served.lease.expect("an unnamed node's starter has the lease"))
        }
    };
    let _lease = inheritable(lease)?;
    tell(format_args!("{} with {}", program.path().display(), library.display()));
    match execute(program.path(), &args.program, &place, &library)? {}
}

/// Moves a descriptor to a high number and lets programs inherit it: many close or use low ones.
fn inheritable(lease: OwnedFd) -> Result<OwnedFd> {
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).context("the limit of descriptors")?;
    let from = LEASE_FROM.min(limit.saturating_sub(1)) as i32;
    let high = match fcntl(&lease, FcntlArg::F_DUPFD(from)) {
        // All of them are taken up to the limit.
        Err(Errno::EINVAL | Errno::EMFILE) => fcntl(&lease, FcntlArg::F_DUPFD(3)),
        result => result,
    };
    let high = high.context("a descriptor for the program")?;
    sys::adopt(high).ok_or_else(|| Failure::new("a descriptor for the program has no number"))
}

/// Executes the program in this process: signals, exit status, terminal and process id stay the caller's affair and its
/// own.
fn execute(path: &Path, words: &[OsString], place: &Place, library: &Path) -> Result<Infallible> {
    let preloaded = preload::with(library, std::env::var_os(LD_PRELOAD).as_deref());
    let own = [(OsString::from(ENV), text(place).into()), (LD_PRELOAD.into(), preloaded)];
    let inherited = std::env::vars_os().filter(|(name, _)| name != ENV && name != LD_PRELOAD);
    let env: Vec<CString> = inherited.chain(own).map(|(name, value)| assignment(&name, &value)).collect();
    let words: Vec<CString> = words.iter().map(|word| c_string(word)).collect();
    let path = c_string(path.as_os_str());
    sys::restore_sigpipe();
    let errno = match nix::unistd::execve(&path, &words, &env) {
        // A script without "#!": execvp(3) gives it to the shell.
        Err(Errno::ENOEXEC) => {
            let shell = [CString::from(c"sh"), path.clone()];
            let words: Vec<CString> = shell.into_iter().chain(words.into_iter().skip(1)).collect();
            nix::unistd::execve(c"/bin/sh", &words, &env).unwrap_err()
        }
        Err(errno) => errno,
        Ok(never) => match never {},
    };
    Err(Failure::not_executable(format!("{}: {}", path.to_string_lossy(), errno.desc())))
}

fn assignment(name: &OsStr, value: &OsStr) -> CString {
    let mut text = name.to_owned();
    text.push("=");
    text.push(value);
    c_string(&text)
}

/// What came from the command line or the environment has no NUL in it.
fn c_string(text: &OsStr) -> CString {
    CString::new(text.as_bytes()).expect("arguments and environment come as C strings")
}
