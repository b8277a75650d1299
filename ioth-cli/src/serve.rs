//! The node process.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use ioth::Stack;
use ioth::conf::{Config, Resolver};
use ioth_node::Setup;
use ioth_node::proto::{ENV, Place, VERSION};
use ioth_node_client::named::{Claim, Name};
use ioth_node_client::start;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{chdir, dup2_stderr, dup2_stdin, dup2_stdout, pipe2, setsid};

use crate::announce::announce;
use crate::args::Serve;
use crate::desk::Desk;
use crate::failure::{Context, Failure, Result};
use crate::sys;

/// What a node process begins with.
pub(crate) struct Begin<'a> {
    pub(crate) config: &'a str,
    pub(crate) place: Place,
    pub(crate) control: OwnedFd,
    pub(crate) lease: Lease<'a>,
}

/// What keeps the node alive, beside open sockets.
pub(crate) enum Lease<'a> {
    /// Programs that have the other end of this pipe.
    Programs(OwnedFd),
    /// The name, and the programs that came by it.
    Name(&'a Name),
}

/// `ioth serve`: leaves the caller's session, and serves. Failures go to standard error, which the starter reads.
///
/// # Errors
/// It was not started as it has to be.
pub(crate) fn detached(args: &Serve) -> Result<()> {
    let begin = inherit(args)?;
    if !sys::fork().context("the node process")? {
        // The starter waits for this process, nobody for its child.
        return Ok(());
    }
    if let Err(failure) =
        setsid().context("a session").and_then(|_| same_version()).and_then(|()| serve(begin, ready))
    {
        report(&failure);
    }
    Ok(())
}

/// Serves until the last program and the last socket have gone.
///
/// # Errors
/// Why there can be no such node; `ready`'s own.
pub(crate) fn serve(begin: Begin<'_>, ready: impl FnOnce() -> Result<()>) -> Result<()> {
    let signals = take_signals(&[
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGALRM,
    ])?;
    let _ = nix::sys::prctl::set_name(c"ioth-node");
    raise_descriptors()?;
    let who = match &begin.lease {
        Lease::Name(name) => name.to_string(),
        Lease::Programs(_) => std::env::var(start::PROGRAM_ENV).unwrap_or_default(),
    };
    ioth::vde::describe(&format!("ioth:{who}"));
    let failed = |error: ioth::Error| Failure::new(error.to_string()).with_errno(error.errno());
    let stack = Stack::new(begin.config).map_err(failed)?;
    let mut resolver = Resolver::default();
    resolver.apply(&begin.config.parse::<Config>().map_err(|error| failed(error.into()))?);
    let (lease, desk) = match begin.lease {
        Lease::Programs(lease) => (lease, None),
        Lease::Name(name) => {
            let (lease, programs) = pipe2(OFlag::O_CLOEXEC).context("the lease's pipe")?;
            (lease, Some(Desk::new(Claim::new(name)?, begin.place, programs, signals)))
        }
    };
    announce(&stack);
    ready()?;
    let release = desk.map(|desk| {
        let claim = desk.claim();
        std::thread::Builder::new().name("desk".into()).spawn(move || desk.run()).context("a thread")?;
        Ok::<_, Failure>(claim)
    });
    let release = release.transpose()?;
    let setup = Setup { stack, resolver, place: begin.place, control: begin.control, lease };
    let served = ioth_node::serve(setup).map_err(|error| Failure::new(error.to_string()));
    if let Some(claim) = release {
        claim.release();
    }
    served
}

/// What [`crate::start`] passed on.
fn inherit(args: &Serve) -> Result<Begin<'_>> {
    // Who waits for the end of the caller's pipes and locks must not wait for us.
    sys::close_from(3);
    let misuse = || Failure::new("serve: for `ioth run` and `ioth node`, which start it");
    let place = std::env::var(ENV).ok().and_then(|text| Place::parse(text.as_bytes())).ok_or_else(misuse)?;
    let config = std::env::var(start::STACK_ENV).map_err(|_| misuse())?;
    if std::env::var(start::VERSION_ENV).ok() != Some(VERSION.to_string()) {
        return Err(Failure::new(
            "the command ioth is of another version than the program that starts a node by it",
        )
        .with_errno(Errno::EPROTO));
    }
    let control = io::stdin().as_fd().try_clone_to_owned().context("the control socket")?;
    let output = io::stdout().as_fd().try_clone_to_owned().context("the lease")?;
    let null = null()?;
    dup2_stdin(&null).context("standard input")?;
    dup2_stdout(&null).context("standard output")?;
    let lease = match &args.name {
        Some(name) => Lease::Name(name),
        None => Lease::Programs(output),
    };
    Ok(Begin { config: config.leak(), place, control, lease })
}

/// Fails where the starter is a library of another version.
fn same_version() -> Result<()> {
    match std::env::var(start::VERSION_ENV) {
        Ok(version) if version == VERSION.to_string() => Ok(()),
        _ => Err(Failure::new("the command ioth is of another version than what starts a node by it")
            .with_errno(Errno::EPROTO)),
    }
}

/// Tells the starter why there is no node.
fn report(failure: &Failure) {
    eprint!("{failure}\0-{}", failure.errno() as i32);
}

/// Tells the starter that programs can come, and that nothing more will be told.
fn ready() -> Result<()> {
    // Paths in a configuration were the caller's; a node must keep no file system busy.
    chdir("/").context("/")?;
    let mut stderr = io::stderr().lock();
    // A starter that went away had its reasons: the lease tells.
    let _ = stderr.write_all(format!("\0{}", std::process::id()).as_bytes());
    dup2_stderr(null()?).context("standard error")
}

pub(crate) fn null() -> Result<std::fs::File> {
    std::fs::File::options().read(true).write(true).open("/dev/null").context("/dev/null")
}

/// Signals neither end the process nor wait for it: they are read like data. To be called before there are threads, which
/// inherit that the signals are blocked.
pub(crate) fn take_signals(which: &[Signal]) -> Result<SignalFd> {
    let signals: SigSet = which.iter().copied().collect();
    signals.thread_block().context("signals")?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).context("signals")
}

/// Two descriptors for each of all programs' sockets are more than a program's share.
pub(crate) fn raise_descriptors() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("the limit of descriptors")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("the limit of descriptors")
}
