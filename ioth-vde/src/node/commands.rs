//! Management commands, with the words, the answers and the errors of `vde_switch`.
//!
//! As there, a number is whatever digits an argument begins with, and 0 without any.

use std::fmt::Write as _;
use std::os::fd::AsRawFd;

use ioth_core::{Errno, MacAddr};
use nix::unistd::{Gid, Group, Uid, User};

use super::core::{Core, Way};
use super::debug::{debug_add, debug_del, debug_list};
use super::fstp::{fstp_bonus, fstp_print, fstp_setedge, fstp_setfstp, fstp_showinfo};
use crate::bridge::{Loss, Station};

pub(super) const BANNER: &str =
    concat!("VDE switch V.", env!("CARGO_PKG_VERSION"), " (ioth)\nlibioth in Rust: Internet of Threads\n");
/// Most places that a table of stations is shown with.
const BUCKETS_MAX: i64 = 1 << 30;

/// What a command came to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// There was none.
    Nothing,
    Answer(Answer),
    Logout,
    Shutdown,
}

/// Data where the command has any, and how it ended.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) data: Option<String>,
    pub(super) result: Result<(), Errno>,
}

type Run = fn(&mut Core, &str, &mut String) -> Result<(), Errno>;

/// A command: whether it shows something, and what it does.
struct Command {
    path: &'static str,
    syntax: &'static str,
    help: &'static str,
    what: What,
}

enum What {
    Menu,
    Sets(fn(&mut Core, &str) -> Result<(), Errno>),
    Shows(Run),
    Logout,
    Shutdown,
}

use What::{Logout, Menu, Sets, Shows, Shutdown};

const fn command(path: &'static str, syntax: &'static str, help: &'static str, what: What) -> Command {
    Command { path, syntax, help, what }
}

const COMMANDS: &[Command] = &[
    command("ds", "============", "DATA SOCKET MENU", Menu),
    command("ds/showinfo", "", "show ds info", Shows(ds_showinfo)),
    command("help", "[arg]", "Help (limited to arg when specified)", Shows(help)),
    command("logout", "", "logout from this mgmt terminal", Logout),
    command("shutdown", "", "shutdown of the switch", Shutdown),
    command("showinfo", "", "show switch version and info", Shows(showinfo)),
    command("load", "path", "load a configuration script", Sets(load)),
    command("debug", "============", "DEBUG MENU", Menu),
    command("debug/list", "", "list debug categories", Shows(debug_list)),
    command("debug/add", "dbgpath", "enable debug info for a given category", Sets(debug_add)),
    command("debug/del", "dbgpath", "disable debug info for a given category", Sets(debug_del)),
    command("status", "============", "STATUS MENU (ioth)", Menu),
    command("status/json", "", "all that there is to know, as JSON", Shows(status_json)),
    command("plugin", "============", "PLUGINS MENU", Menu),
    command("plugin/list", "", "list plugins", Shows(plugin_list)),
    command("plugin/add", "library", "load a plugin", Sets(plugin_add)),
    command("plugin/del", "name", "unload a plugin", Sets(plugin_del)),
    command("hash", "============", "HASH TABLE MENU", Menu),
    command("hash/showinfo", "", "show hash info", Shows(hash_showinfo)),
    command("hash/setsize", "N", "change hash size", Sets(hash_setsize)),
    command("hash/setgcint", "N", "change garbage collector interval", Sets(hash_setgcint)),
    command("hash/setexpire", "N", "change hash entries expire time", Sets(hash_setexpire)),
    command("hash/setminper", "N", "minimum persistence time", Sets(hash_setminper)),
    command("hash/print", "", "print the hash table", Shows(hash_print)),
    command("hash/find", "MAC [VLAN]", "MAC lookup", Shows(hash_find)),
    command("fstp", "============", "FAST SPANNING TREE MENU", Menu),
    command("fstp/showinfo", "", "show fstp info", Shows(fstp_showinfo)),
    command("fstp/setfstp", "0/1", "Fast spanning tree protocol 1=ON 0=OFF", Shows(fstp_setfstp)),
    command("fstp/setedge", "VLAN PORT 1/0", "Define an edge port for a vlan 1=Y 0=N", Sets(fstp_setedge)),
    command("fstp/bonus", "VLAN PORT COST", "set the port bonus for a vlan", Sets(fstp_bonus)),
    command("fstp/print", "[N]", "print fst data for the defined vlan", Shows(fstp_print)),
    command("port", "============", "PORT STATUS MENU", Menu),
    command("port/showinfo", "", "show port info", Shows(port_showinfo)),
    command("port/setnumports", "N", "set the number of ports", Sets(port_setnumports)),
    command("port/sethub", "0/1", "1=HUB 0=switch", Sets(port_sethub)),
    command("port/setvlan", "N VLAN", "set port VLAN (untagged)", Sets(port_setvlan)),
    command(
        "port/createauto",
        "",
        "create a port with an automatically allocated id (inactive|notallocatable)",
        Shows(port_createauto),
    ),
    command("port/create", "N", "create the port N (inactive|notallocatable)", Sets(port_create)),
    command("port/remove", "N", "remove the port N", Sets(port_remove)),
    command(
        "port/allocatable",
        "N 0/1",
        "Is the port allocatable as unnamed? 1=Y 0=N",
        Sets(port_allocatable),
    ),
    command("port/setuser", "N user", "access control: set user", Sets(port_setuser)),
    command("port/setgroup", "N user", "access control: set group", Sets(port_setgroup)),
    command("port/epclose", "N ID", "remove the endpoint port N/id ID", Sets(port_epclose)),
    command("port/resetcounter", "[N]", "reset the port (N) counters", Sets(port_resetcounter)),
    command("port/print", "[N]", "print the port/endpoint table", Shows(port_print)),
    command(
        "port/allprint",
        "[N]",
        "print the port/endpoint table (including inactive port)",
        Shows(port_allprint),
    ),
    command("port/drops", "[N]", "print the port's lost frames by cause (ioth)", Shows(port_drops)),
    command("vlan", "============", "VLAN MANAGEMENT MENU", Menu),
    command("vlan/create", "N", "create the VLAN with tag N", Sets(vlan_create)),
    command("vlan/remove", "N", "remove the VLAN with tag N", Sets(vlan_remove)),
    command("vlan/addport", "N PORT", "add port to the vlan N (tagged)", Sets(vlan_addport)),
    command("vlan/delport", "N PORT", "delete port from the vlan N (tagged)", Sets(vlan_delport)),
    command("vlan/print", "[N]", "print the list of defined vlan", Shows(vlan_print)),
    command(
        "vlan/allprint",
        "[N]",
        "print the list of defined vlan (including inactive port)",
        Shows(vlan_allprint),
    ),
];

impl Core {
    /// Runs a line. What cannot be done is an answer, too.
    pub(super) fn command(&mut self, line: &str) -> Outcome {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Outcome::Nothing;
        }
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        let found = COMMANDS.iter().find(|command| command.path == word).map(|command| &command.what);
        let (data, result) = match found {
            None | Some(Menu) => (None, Err(Errno::ENOSYS)),
            Some(Logout) => return Outcome::Logout,
            Some(Shutdown) => return Outcome::Shutdown,
            Some(Sets(run)) => (None, run(self, rest)),
            Some(Shows(run)) => {
                let mut data = String::new();
                let result = run(self, rest, &mut data);
                (Some(data), result)
            }
        };
        // As there, what a command brought about is told before its answer.
        self.tell_stations();
        Outcome::Answer(Answer { data, result })
    }

    fn show_port(&self, port: u16, data: &mut String) {
        let access = self.ports.of(port);
        let active = if self.bridge.is_active(port) { "ACTIVE" } else { "INACTIVE" };
        let not = if access.allocatable { "" } else { "NOT " };
        let untagged = self.bridge.untagged(port).unwrap_or_default();
        let current = access.current.filter(|_| self.bridge.is_active(port));
        let counters = self.bridge.counters(port);
        show(
            data,
            format_args!("Port {port:04} untagged_vlan={untagged:04} {active} - {not}Unnamed Allocatable\n"),
        );
        let (current, user, group) = (user_name(current), user_name(access.user), group_name(access.group));
        show(
            data,
            format_args!(" Current User: {current} Access Control: (User: {user} - Group: {group})\n"),
        );
        for (way, frames, bytes) in
            [("IN: ", counters.rx_frames, counters.rx_bytes), ("OUT:", counters.tx_frames, counters.tx_bytes)]
        {
            show(data, format_args!(" {way} pkts {frames:>10}          bytes {bytes:>20}\n"));
        }
        for &key in self.at.get(usize::from(port)).into_iter().flatten().rev() {
            let Some(endpoint) = self.endpoints.get(key) else { continue };
            let module = match endpoint.way {
                Way::Owner => "host",
                Way::Client(_) => "unix prog",
                Way::Tap(_) => "tuntap",
            };
            let (id, description) = (endpoint_id(endpoint), &endpoint.description);
            show(data, format_args!("  -- endpoint ID {id:04} module {module:<12}: {description}\n"));
        }
    }

    fn show_vlan(&self, vlan: u16, all: bool, data: &mut String) {
        let Some(members) = self.bridge.members(vlan) else { return };
        show(data, format_args!("VLAN {vlan:04}\n"));
        // A hub knows no VLANs.
        for member in members.iter().filter(|member| (all || member.active) && !self.bridge.is_hub()) {
            let (port, tagged, active) = (member.port, u8::from(member.tagged), u8::from(member.active));
            let status = if member.active { "Forwarding" } else { "Learning" };
            show(data, format_args!(" -- Port {port:04} tagged={tagged} active={active} status={status}\n"));
        }
    }

    /// A port's number; `EINVAL` beyond the last.
    pub(super) fn port(&self, text: &str) -> Result<u16, Errno> {
        let number = usize::try_from(atoi(text)).map_err(|_| Errno::EINVAL)?;
        if number >= self.bridge.limit() {
            return Err(Errno::EINVAL);
        }
        u16::try_from(number).map_err(|_| Errno::EINVAL)
    }

    /// A port that was made.
    fn made(&self, text: &str) -> Result<u16, Errno> {
        let port = self.port(text)?;
        if self.bridge.exists(usize::from(port)) { Ok(port) } else { Err(Errno::ENXIO) }
    }
}

pub(super) fn show(data: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = data.write_fmt(line);
}

/// What clients know an endpoint by: its control socket's number, as upstream.
pub(super) fn endpoint_id(endpoint: &super::core::Endpoint) -> i32 {
    match &endpoint.way {
        Way::Owner => 0,
        Way::Client(client) => client.control.as_raw_fd(),
        Way::Tap(fd) => fd.as_raw_fd(),
    }
}

pub(super) fn user_name(user: Option<u32>) -> String {
    let Some(user) = user else { return "NONE".to_owned() };
    User::from_uid(Uid::from_raw(user)).ok().flatten().map_or_else(|| user.to_string(), |user| user.name)
}

fn group_name(group: Option<u32>) -> String {
    let Some(group) = group else { return "NONE".to_owned() };
    Group::from_gid(Gid::from_raw(group)).ok().flatten().map_or_else(|| group.to_string(), |group| group.name)
}

/// The number that a text begins with.
pub(super) fn atoi(text: &str) -> i64 {
    let text = text.trim_start();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = digits.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    // What is too long for a number is too large for all that it is used for.
    let number = if end == 0 { 0 } else { digits[..end].parse().unwrap_or(i64::MAX) };
    if negative { -number } else { number }
}

/// Two arguments, both of which have to be there.
pub(super) fn two(text: &str) -> Result<(&str, &str), Errno> {
    let (first, second) = text.split_once(char::is_whitespace).ok_or(Errno::EINVAL)?;
    Ok((first, second.trim_start()))
}

pub(super) fn vlan_number(text: &str) -> Result<u16, Errno> {
    u16::try_from(atoi(text)).map_err(|_| Errno::EINVAL)
}

fn seconds(text: &str) -> u32 {
    u32::try_from(atoi(text).max(0)).unwrap_or(u32::MAX)
}

fn ds_showinfo(core: &mut Core, _: &str, data: &mut String) -> Result<(), Errno> {
    show(data, format_args!("ctl dir {}\nstd mode 0{:03o}\n", core.dir.path().display(), core.config.mode));
    Ok(())
}

fn help(_: &mut Core, about: &str, data: &mut String) -> Result<(), Errno> {
    data.push_str(
        "COMMAND PATH       SYNTAX          HELP\n------------       --------------  ------------\n",
    );
    for Command { path, syntax, help, .. } in
        COMMANDS.iter().filter(|command| command.path.starts_with(about))
    {
        show(data, format_args!("{path:<18} {syntax:<15} {help}\n"));
    }
    Ok(())
}

fn showinfo(core: &mut Core, _: &str, data: &mut String) -> Result<(), Errno> {
    let (pid, mac, uptime) = (std::process::id(), core.config.mac, core.now());
    show(data, format_args!("{BANNER}\npid {pid} MAC {mac} uptime {uptime}\n"));
    for console in &core.consoles.listeners {
        show(data, format_args!("mgmt {} perm 0{:03o}\n", console.path.display(), console.mode));
    }
    Ok(())
}

fn load(core: &mut Core, path: &str) -> Result<(), Errno> {
    let wrong = core.load(std::path::Path::new(path))?;
    wrong.first().map_or(Ok(()), |wrong| Err(wrong.errno))
}

fn status_json(core: &mut Core, _: &str, data: &mut String) -> Result<(), Errno> {
    core.status().write(data);
    data.push('\n');
    Ok(())
}

fn plugin_list(_: &mut Core, _: &str, data: &mut String) -> Result<(), Errno> {
    data.push_str("NAME                   HELP\n------------           ----\n");
    Err(Errno::ENOENT)
}

/// Plug-ins are shared libraries for the inside of `vde_switch`: there is none that would fit.
fn plugin_add(_: &mut Core, text: &str) -> Result<(), Errno> {
    if text.is_empty() {
        return Err(Errno::EINVAL);
    }
    Err(if std::path::Path::new(text).exists() { Errno::ENOEXEC } else { Errno::ENOENT })
}

fn plugin_del(_: &mut Core, _: &str) -> Result<(), Errno> {
    Err(Errno::ENOENT)
}

fn hash_showinfo(core: &mut Core, _: &str, data: &mut String) -> Result<(), Errno> {
    let (expire, persistence) = core.bridge.times();
    let (buckets, interval) = (core.config.buckets, core.config.interval);
    show(data, format_args!("Hash size {buckets}\nGC interval {interval} secs\n"));
    show(data, format_args!("GC expire {expire} secs\nMin persistence {persistence} secs\n"));
    Ok(())
}

fn hash_setsize(core: &mut Core, text: &str) -> Result<(), Errno> {
    let size = atoi(text);
    if !(1..=BUCKETS_MAX).contains(&size) {
        return Err(Errno::EINVAL);
    }
    core.set_buckets(size as usize);
    Ok(())
}

fn hash_setgcint(core: &mut Core, text: &str) -> Result<(), Errno> {
    // Nothing has to be collected; it is remembered for who asks.
    core.config.interval = seconds(text);
    Ok(())
}

fn hash_setexpire(core: &mut Core, text: &str) -> Result<(), Errno> {
    core.bridge.set_expire(seconds(text));
    Ok(())
}

fn hash_setminper(core: &mut Core, text: &str) -> Result<(), Errno> {
    core.bridge.set_persistence(seconds(text));
    Ok(())
}

fn show_station(station: &Station, data: &mut String) {
    let Station { mac, vlan, port, age, bucket } = station;
    show(
        data,
        format_args!("Hash: {bucket:04} Addr: {mac} VLAN {vlan:04} to port: {port:03}  age {age} secs\n"),
    );
}

fn hash_print(core: &mut Core, _: &str, data: &mut String) -> Result<(), Errno> {
    for station in core.bridge.stations(core.now(), core.config.buckets) {
        show_station(&station, data);
    }
    Ok(())
}

fn hash_find(core: &mut Core, text: &str, data: &mut String) -> Result<(), Errno> {
    let (mac, vlan) = two(text).unwrap_or((text, "0"));
    let mac: MacAddr = mac.parse().map_err(|_| Errno::EINVAL)?;
    let vlan = vlan_number(vlan).map_err(|_| Errno::ENODEV)?;
    let station = core.bridge.station(core.now(), vlan, mac, core.config.buckets).ok_or(Errno::ENODEV)?;
    show_station(&station, data);
    Ok(())
}

fn port_showinfo(core: &mut Core, _: &str, data: &mut String) -> Result<(), Errno> {
    let (ports, hub) = (core.bridge.limit(), core.bridge.is_hub());
    show(data, format_args!("Numports={ports}\nHUB={hub}\ncounters=true\n"));
    Ok(())
}

fn port_setnumports(core: &mut Core, text: &str) -> Result<(), Errno> {
    let ports = usize::try_from(atoi(text)).map_err(|_| Errno::EINVAL)?;
    core.bridge.set_limit(ports)?;
    core.ports.keep_below(ports);
    Ok(())
}

fn port_sethub(core: &mut Core, text: &str) -> Result<(), Errno> {
    core.bridge.set_hub(atoi(text) != 0);
    Ok(())
}

fn port_setvlan(core: &mut Core, text: &str) -> Result<(), Errno> {
    let (port, vlan) = two(text)?;
    core.bridge.set_untagged(core.port(port)?, vlan_number(vlan)?)
}

fn port_createauto(core: &mut Core, _: &str, data: &mut String) -> Result<(), Errno> {
    let number = core.free_port().ok_or(Errno::ENOSPC)?;
    if !core.bridge.exists(usize::from(number)) {
        core.create_port(usize::from(number))?;
    }
    core.ports.change(number).allocatable = false;
    show(data, format_args!("Port {number:04}\n"));
    Ok(())
}

fn port_create(core: &mut Core, text: &str) -> Result<(), Errno> {
    let port = core.create_port(usize::try_from(atoi(text)).map_err(|_| Errno::EINVAL)?)?;
    core.ports.change(port).allocatable = false;
    Ok(())
}

fn port_remove(core: &mut Core, text: &str) -> Result<(), Errno> {
    let port = core.made(text)?;
    if core.bridge.is_active(port) {
        return Err(Errno::EADDRINUSE);
    }
    core.ports.forget(port);
    core.bridge.remove(port)
}

fn port_allocatable(core: &mut Core, text: &str) -> Result<(), Errno> {
    let (port, yes) = two(text)?;
    let port = core.made(port)?;
    core.ports.change(port).allocatable = atoi(yes) != 0;
    Ok(())
}

fn port_setuser(core: &mut Core, text: &str) -> Result<(), Errno> {
    let (port, name) = two(text)?;
    let user = owner(name, |name| Some(User::from_name(name).ok()??.uid.as_raw()))?;
    let port = core.made(port)?;
    core.ports.change(port).user = user;
    Ok(())
}

fn port_setgroup(core: &mut Core, text: &str) -> Result<(), Errno> {
    let (port, name) = two(text)?;
    let group = owner(name, |name| Some(Group::from_name(name).ok()??.gid.as_raw()))?;
    let port = core.made(port)?;
    core.ports.change(port).group = group;
    Ok(())
}

/// A number, a name, or NONE.
fn owner(name: &str, by_name: impl FnOnce(&str) -> Option<u32>) -> Result<Option<u32>, Errno> {
    match (name, name.parse()) {
        ("NONE", _) => Ok(None),
        (_, Ok(number)) => Ok(Some(number)),
        (name, _) => by_name(name).map(Some).ok_or(Errno::EINVAL),
    }
}

fn port_epclose(core: &mut Core, text: &str) -> Result<(), Errno> {
    let (port, id) = two(text)?;
    let (port, id) = (core.port(port)?, atoi(id));
    let there = core.at.get(usize::from(port)).into_iter().flatten();
    let is_it = |key: &&usize| {
        let endpoint = &core.endpoints[**key];
        !matches!(endpoint.way, Way::Owner) && i64::from(endpoint_id(endpoint)) == id
    };
    let key = *there.clone().find(is_it).ok_or(Errno::ENXIO)?;
    core.remove_endpoint(key);
    Ok(())
}

fn port_resetcounter(core: &mut Core, text: &str) -> Result<(), Errno> {
    if text.is_empty() {
        for port in core.bridge.ports().collect::<Vec<_>>() {
            core.bridge.reset_counters(port);
        }
        return Ok(());
    }
    let port = core.port(text)?;
    core.bridge.reset_counters(port);
    Ok(())
}

/// Shows one port that is named, or all; those where nobody is only when asked for.
fn each_port(core: &Core, text: &str, all: bool, mut show: impl FnMut(u16)) -> Result<(), Errno> {
    if text.is_empty() {
        core.bridge.ports().filter(|port| all || core.bridge.is_active(*port)).for_each(show);
        return Ok(());
    }
    let port = core.made(text)?;
    if !all && !core.bridge.is_active(port) {
        return Err(Errno::ENXIO);
    }
    show(port);
    Ok(())
}

fn port_print(core: &mut Core, text: &str, data: &mut String) -> Result<(), Errno> {
    each_port(core, text, false, |port| core.show_port(port, data))
}

fn port_allprint(core: &mut Core, text: &str, data: &mut String) -> Result<(), Errno> {
    each_port(core, text, true, |port| core.show_port(port, data))
}

fn port_drops(core: &mut Core, text: &str, data: &mut String) -> Result<(), Errno> {
    each_port(core, text, true, |port| {
        show(data, format_args!("Port {port:04}"));
        for (loss, count) in Loss::ALL.iter().zip(core.bridge.counters(port).dropped) {
            show(data, format_args!(" {}={count}", loss.name()));
        }
        data.push('\n');
    })
}

fn vlan_create(core: &mut Core, text: &str) -> Result<(), Errno> {
    let vlan = vlan_number(text)?;
    core.bridge.create_vlan(vlan)?;
    core.tell_root(vlan);
    Ok(())
}

fn vlan_remove(core: &mut Core, text: &str) -> Result<(), Errno> {
    let vlan = vlan_number(text)?;
    core.bridge.remove_vlan(vlan)?;
    core.fstp.forget(vlan);
    Ok(())
}

fn vlan_addport(core: &mut Core, text: &str) -> Result<(), Errno> {
    let (vlan, port) = two(text)?;
    core.bridge.set_tagged(core.port(port)?, vlan_number(vlan)?, true)
}

fn vlan_delport(core: &mut Core, text: &str) -> Result<(), Errno> {
    let (vlan, port) = two(text)?;
    core.bridge.set_tagged(core.port(port)?, vlan_number(vlan)?, false)
}

fn each_vlan(core: &Core, text: &str, all: bool, data: &mut String) -> Result<(), Errno> {
    if text.is_empty() {
        core.bridge.vlans().for_each(|vlan| core.show_vlan(vlan, all, data));
        return Ok(());
    }
    let vlan = vlan_number(text)?;
    core.bridge.members(vlan).ok_or(Errno::ENXIO)?;
    core.show_vlan(vlan, all, data);
    Ok(())
}

fn vlan_print(core: &mut Core, text: &str, data: &mut String) -> Result<(), Errno> {
    each_vlan(core, text, false, data)
}

fn vlan_allprint(core: &mut Core, text: &str, data: &mut String) -> Result<(), Errno> {
    each_vlan(core, text, true, data)
}
