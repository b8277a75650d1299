//! `ioth switch`.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ioth::vde::node::{Config, Node, directory_mode};
use nix::sys::signal::Signal;
use nix::unistd::{AccessFlags, Group, access, geteuid};

use crate::args::Switch;
use crate::daemon::{PidFile, Ready, detached};
use crate::failure::{Context, Failure, Result};
use crate::manage::{self, Manager};
use crate::serve::{raise_descriptors, take_signals};

/// How long a switch has to tell its state.
const PATIENCE: Duration = Duration::from_secs(5);

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
    let own = node.path().join(manage::SOCKET);
    for path in [Some(own), args.mgmt.clone()].into_iter().flatten() {
        node.manage(path, args.mgmtmode, group).map_err(failed)?;
    }
    if let Some(file) = &args.mirror {
        node.mirror(file).map_err(failed)?;
    }
    for tap in &args.tap {
        node.tap(tap).map_err(failed)?;
    }
    if let Some(file) = args.rcfile.clone().or_else(default_rcfile) {
        // As vde_switch, it serves all the same.
        for wrong in node.load(&file).map_err(failed)? {
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

/// The file of commands that vde_switch begins with when it is told none: the user's own, else the system's.
fn default_rcfile() -> Option<PathBuf> {
    let own = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".vde2/vde_switch.rc"));
    let readable = |file: &PathBuf| access(file, AccessFlags::R_OK).is_ok();
    own.into_iter().chain([PathBuf::from("/etc/vde2/vde_switch.rc")]).find(readable)
}

/// Asks a switch what there is to know.
fn status(path: &Path, json: bool) -> Result<()> {
    let asking = || format!("asking the switch at {}", path.display());
    let mut manager = Manager::connect(path, PATIENCE).context(asking())?;
    let commands: &[&str] =
        if json { &["status/json"] } else { &["showinfo", "port/allprint", "port/drops"] };
    let mut out = std::io::stdout().lock();
    for command in commands {
        let answer = manager.ask(command).context(asking())?;
        let data = answer.map_err(|answer| Failure::new(format!("{}: {}", asking(), answer.trim())))?;
        out.write_all(data.as_bytes()).context("standard output")?;
    }
    Ok(())
}
