//! `ioth switch`.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ioth::vde::node::{Config, Node, directory_mode};
use nix::sys::signal::Signal;
use nix::unistd::{Group, geteuid};

use crate::args::Switch;
use crate::daemon::{PidFile, Ready, detached};
use crate::failure::{Context, Failure, Result};
use crate::serve::{raise_descriptors, take_signals};

/// The management socket that every switch has, in its directory.
const MANAGEMENT: &str = "mgmt";
/// How long a switch has to tell its state.
const PATIENCE: Duration = Duration::from_secs(5);
const PROMPT: &[u8] = b"\nvde$ ";

/// Serves a switch, or shows one.
///
/// # Errors
/// Why it cannot.
pub(crate) fn switch(args: &Switch) -> Result<()> {
    let path = args.path.clone().or(args.sock.clone()).unwrap_or_else(default_path);
    if args.status {
        return status(&path, args.json);
    }
    let config = config(args, path)?;
    if args.daemon {
        return detached(|ready| serve(args, config, ready));
    }
    serve(args, config, Ready::foreground())
}

fn serve(args: &Switch, config: Config, ready: Ready) -> Result<()> {
    let signals = take_signals(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP])?;
    // Two for each client; who has fewer has fewer clients.
    let _ = raise_descriptors();
    let (hub, ports) = (config.bridge.hub, config.bridge.ports);
    let failed = |error: ioth::vde::LinkError| Failure::new(error.to_string());
    let mut node = Node::open(config).map_err(failed)?;
    let group = args.mgmtgroup.as_deref().map(group).transpose()?;
    let own = node.path().join(MANAGEMENT);
    for path in [Some(own), args.mgmt.clone()].into_iter().flatten() {
        node.manage(path, args.mgmtmode, group).map_err(failed)?;
    }
    if let Some(file) = &args.mirror {
        node.mirror(file).map_err(failed)?;
    }
    for tap in &args.tap {
        node.tap(tap).map_err(failed)?;
    }
    if let Some(file) = &args.rcfile {
        // As vde_switch, it serves all the same.
        for wrong in node.load(file).map_err(failed)? {
            eprintln!("ioth: {}: {wrong}", file.display());
        }
    }
    let _pid = args.pidfile.as_deref().map(PidFile::write).transpose()?;
    if args.verbose {
        let what = if hub { "hub" } else { "switch" };
        eprintln!(
            "ioth: a {what} of {ports} ports at {}, process {}",
            node.path().display(),
            std::process::id()
        );
    }
    ready.tell()?;
    node.serve(signals.as_fd()).map_err(failed)?;
    if args.verbose {
        eprintln!("ioth: the switch ends");
    }
    Ok(())
}

fn config(args: &Switch, path: PathBuf) -> Result<Config> {
    let mut config = Config::new(path);
    config.mode = args.mode;
    config.dirmode = match (args.dirmode, args.mode) {
        (Some(mode), _) => mode,
        (None, 0o600) => config.dirmode,
        (None, mode) => directory_mode(mode),
    };
    config.group = args.group.as_deref().map(group).transpose()?;
    config.bridge.ports = args.numports as usize;
    config.bridge.hub = args.hub;
    config.bridge.expire = args.expire;
    config.buckets = (args.hashsize as usize).next_power_of_two();
    config.bridge.stations = config.bridge.stations.max(config.buckets);
    config.mac = args.macaddr.unwrap_or(config.mac);
    Ok(config)
}

fn group(name: &str) -> Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    match Group::from_name(name).context(format_args!("the group \"{name}\""))? {
        Some(group) => Ok(group.gid.as_raw()),
        None => {
            Err(Failure::new(format!("there is no group \"{name}\" (getent group shows those there are)")))
        }
    }
}

/// Where vde_switch is found, and looked for.
fn default_path() -> PathBuf {
    PathBuf::from(if geteuid().is_root() { "/var/run/vde.ctl" } else { "/tmp/vde.ctl" })
}

/// Asks a switch what there is to know.
fn status(path: &Path, json: bool) -> Result<()> {
    let socket = path.join(MANAGEMENT);
    let asking = || format!("asking the switch at {}", path.display());
    let mut stream = UnixStream::connect(&socket).context(asking())?;
    stream.set_read_timeout(Some(PATIENCE)).context(asking())?;
    let commands: &[&str] =
        if json { &["status/json"] } else { &["showinfo", "port/allprint", "port/drops"] };
    read_to_prompt(&mut stream).context(asking())?;
    let mut out = std::io::stdout().lock();
    for command in commands {
        stream.write_all(format!("{command}\n").as_bytes()).context(asking())?;
        let answer = read_to_prompt(&mut stream).context(asking())?;
        let data = data(&answer).ok_or_else(|| Failure::new(format!("{}: {}", asking(), answer.trim())))?;
        out.write_all(data.as_bytes()).context("standard output")?;
    }
    Ok(())
}

/// What stands between the marks of data.
fn data(answer: &str) -> Option<&str> {
    let (data, _) = answer.strip_prefix("0000 DATA END WITH '.'\n")?.rsplit_once(".\n1000 Success\n")?;
    Some(data)
}

fn read_to_prompt(stream: &mut UnixStream) -> std::io::Result<String> {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !answer.ends_with(PROMPT) {
        match stream.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            len => answer.extend(&buffer[..len]),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
