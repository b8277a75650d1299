//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use ioth::core::MacAddr;

use ioth_node_client::named::Name;

#[derive(Debug, Parser)]
#[command(
    name = "ioth",
    version,
    propagate_version = true,
    about = "Runs unmodified programs as Internet nodes of their own, and the networks between them"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Run),
    Node(Node),
    Switch(Switch),
    Plug(Plug),
    Cap(Cap),
    #[command(hide = true)]
    Serve(Serve),
}

/// Run a program as a node of its own
///
/// The program, and what it starts, has the node's network and not the host's. Without --stack and --node it is a node
/// with loopback only.
#[derive(Debug, Args)]
#[command(
    override_usage = "ioth run [--stack CONFIG | --node NAME] [-v] [--] PROGRAM [ARGS]...",
    after_help = "Exit status: the program's own; 126 it cannot be executed, 127 it is not found, 1 there is no node, \
                  2 wrong usage.\n\nIt is convenience, not isolation: a program that wants the host's network gets it."
)]
pub(crate) struct Run {
    /// The node to be: stack=smoltcp,vnl=NETWORK,ip=ADDRESS/LENGTH[,gw=ADDRESS]
    #[arg(long, value_name = "CONFIG", conflicts_with = "node")]
    pub(crate) stack: Option<String>,
    /// The node to join, which `ioth node NAME` made
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<Name>,
    /// Tell on standard error what happens
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    pub(crate) program: Vec<OsString>,
}

/// Make a node with a name, which programs can share
///
/// It lives in the background until it is stopped, and then until the last of its programs ends.
#[derive(Debug, Args)]
#[command(
    override_usage = "ioth node [--stack CONFIG] [--foreground] [-v] NAME\n       ioth node --stop NAME\n       ioth node --list",
    after_help = "Exit status: 0, 1 it failed, 2 wrong usage."
)]
pub(crate) struct Node {
    /// The node to be: stack=smoltcp,vnl=NETWORK,ip=ADDRESS/LENGTH[,gw=ADDRESS]; without it, one with loopback only
    #[arg(long, value_name = "CONFIG", conflicts_with_all = ["stop", "list"])]
    pub(crate) stack: Option<String>,
    /// Stay in the foreground until SIGTERM or SIGINT
    #[arg(short, long, conflicts_with_all = ["stop", "list"])]
    pub(crate) foreground: bool,
    /// Take the node's name away, and wait for its end: that of its last program
    #[arg(long, conflicts_with = "list")]
    pub(crate) stop: bool,
    /// Show the names of the nodes that there are
    #[arg(long, conflicts_with = "name")]
    pub(crate) list: bool,
    /// Tell on standard error what happens
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// The node's name: letters, digits, and "-", "_" and "." between them
    #[arg(required_unless_present = "list")]
    pub(crate) name: Option<Name>,
}

/// Serve a switch, or a hub, to which VDE's programs and vde:// connect
///
/// PATH is a directory, which is made and removed. Without it, it is /var/run/vde.ctl for root and /tmp/vde.ctl for others.
/// It has a management socket, PATH/mgmt.
#[derive(Debug, Args)]
#[command(
    override_usage = "ioth switch [OPTIONS] [PATH]\n       ioth switch --status [--json] [PATH]",
    after_help = "Exit status: 0 after SIGTERM, SIGINT, SIGHUP or a manager's \"shutdown\", 1 it failed, 2 wrong usage."
)]
pub(crate) struct Switch {
    /// The switch's directory
    #[arg(conflicts_with = "sock")]
    pub(crate) path: Option<PathBuf>,
    /// The same, as vde_switch has it
    #[arg(short, long, visible_aliases = ["vdesock", "unix"], value_name = "PATH")]
    pub(crate) sock: Option<PathBuf>,
    /// Permissions of the control socket, in octal
    #[arg(short, long, alias = "mod", value_parser = octal, default_value = "0600")]
    pub(crate) mode: u32,
    /// Permissions of the directory, in octal [default: 02700, or what goes with --mode]
    #[arg(long, value_parser = octal, value_name = "MODE")]
    pub(crate) dirmode: Option<u32>,
    /// Plug the host's kernel in by this TAP interface; NAME,NAME or several times for several
    #[arg(short, long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) tap: Vec<String>,
    /// Group of the directory and the control socket
    #[arg(short, long)]
    pub(crate) group: Option<String>,
    /// Make it a hub
    #[arg(short = 'x', long)]
    pub(crate) hub: bool,
    /// How many ports there are: 0 for who asks for it, the others for anybody
    #[arg(short, long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=65536))]
    pub(crate) numports: u32,
    /// Stations that the switch knows at most, if that is more than 100000
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 30))]
    pub(crate) hashsize: u32,
    /// Seconds for which a station is known after its last frame
    #[arg(long, default_value_t = 100, value_name = "SECONDS")]
    pub(crate) expire: u32,
    /// The switch's address, which is shown [default: a random one]
    #[arg(long, value_name = "MAC")]
    pub(crate) macaddr: Option<MacAddr>,
    /// A further management socket
    #[arg(short = 'M', long, value_name = "PATH")]
    pub(crate) mgmt: Option<PathBuf>,
    /// Permissions of the management sockets, in octal
    #[arg(long, value_parser = octal, default_value = "0600", value_name = "MODE")]
    pub(crate) mgmtmode: u32,
    /// Group of the management sockets
    #[arg(long, value_name = "GROUP")]
    pub(crate) mgmtgroup: Option<String>,
    /// Run the management commands of this file first
    #[arg(short = 'f', long, value_name = "FILE")]
    pub(crate) rcfile: Option<PathBuf>,
    /// Record each frame that arrives in this file, in pcapng
    #[arg(long, value_name = "FILE")]
    pub(crate) mirror: Option<PathBuf>,
    /// Go into the background once it serves
    #[arg(short, long)]
    pub(crate) daemon: bool,
    /// Write the process's number to this file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) pidfile: Option<PathBuf>,
    /// Show the state of the switch that is there
    #[arg(long, conflicts_with_all = ["daemon", "mirror", "rcfile", "mgmt", "pidfile", "hub", "tap"])]
    pub(crate) status: bool,
    /// With --status, as JSON
    #[arg(long, requires = "status")]
    pub(crate) json: bool,
    /// Tell on standard error what happens
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

/// Plug into a network: by standard input and output, by a second network, or by a command
///
/// With one network, frames go over standard input and output, each behind its length, as vde_plug has them:
/// "dpipe ioth plug A = ssh host ioth plug B" joins networks of two hosts. Without any network it is the default one.
#[derive(Debug, Args)]
#[command(
    override_usage = "ioth plug [OPTIONS] [NETWORK [NETWORK]]\n       ioth plug [OPTIONS] [NETWORK] = COMMAND [ARGS]...",
    after_help = "Exit status: 0 after SIGTERM, SIGINT, SIGHUP or the end of standard input or output, 1 it failed or a \
                  network ended, 2 wrong usage."
)]
pub(crate) struct Plug {
    /// Who is at the port, for people who look at the switch [default: "ioth plug:"]
    #[arg(short = 'D', long = "descr", visible_alias = "description", value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// Group of the socket by which a switch reaches the first network's plug
    #[arg(short, long)]
    pub(crate) group: Option<String>,
    /// The same of the second network's
    #[arg(short = 'G', long, value_name = "GROUP")]
    pub(crate) group2: Option<String>,
    /// Permissions of the socket by which a switch reaches the first network's plug, in octal
    #[arg(short, long, alias = "mod", value_parser = octal)]
    pub(crate) mode: Option<u32>,
    /// The same of the second network's
    #[arg(short = 'M', long, alias = "mod2", value_parser = octal, value_name = "MODE")]
    pub(crate) mode2: Option<u32>,
    /// The switch's port that the first network's plug wants
    #[arg(long, value_name = "N")]
    pub(crate) port: Option<u32>,
    /// The same of the second network's
    #[arg(long, value_name = "N")]
    pub(crate) port2: Option<u32>,
    /// Go into the background once both networks are joined
    #[arg(short, long)]
    pub(crate) daemon: bool,
    /// Write the process's number to this file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) pidfile: Option<PathBuf>,
    /// Tell on standard error what happens
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// One or two networks, or one, "=" and a command with its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = false, value_name = "NETWORK")]
    pub(crate) words: Vec<String>,
}

/// Record what goes through networks
///
/// Each network is an interface of the capture, with the name before it (lan:switch:///tmp/lan) or the network's own.
/// A port of a switch sees what is for all, not what is for others: a hub, or ioth switch --mirror, shows all.
#[derive(Debug, Args)]
#[command(
    override_usage = "ioth cap [OPTIONS] -w FILE NETWORK...",
    after_help = "Exit status: 0 after SIGTERM, SIGINT, SIGHUP or --count frames, 1 it failed or a network ended, 2 wrong \
                  usage."
)]
pub(crate) struct Cap {
    /// The file, in pcapng; "-" for standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) write: PathBuf,
    /// End after so many frames
    #[arg(short, long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Tell on standard error what happens
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// What to listen to: [NAME:]NETWORK
    #[arg(required = true, value_name = "NETWORK")]
    pub(crate) networks: Vec<String>,
}

/// The words of a command line; those of `ioth switch` and `ioth plug` with two dashes before a long option's name, where `vde_switch`
/// and `vde_plug` take one (getopt_long_only(3)): `-hub` would be `-h` otherwise.
pub(crate) fn of_vde_switch(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<_> = words.into_iter().collect();
    let command = match words.get(1).and_then(|word| word.to_str()) {
        Some("switch") => Switch::augment_args(clap::Command::new("switch")),
        Some("plug") => Plug::augment_args(clap::Command::new("plug")),
        _ => return words,
    };
    let mut names: Vec<&str> = command.get_arguments().filter_map(|option| option.get_long()).collect();
    names.extend(command.get_arguments().filter_map(|option| option.get_all_aliases()).flatten());
    // Behind a "=" they are a command's.
    let options =
        words[2..].iter_mut().take_while(|word| word.as_os_str() != "--" && word.as_os_str() != "=");
    for word in options {
        let Some(text) = word.to_str().and_then(|text| text.strip_prefix('-')) else { continue };
        let name = text.split('=').next().unwrap_or_default();
        if names.contains(&name) {
            *word = format!("--{text}").into();
        }
    }
    words
}

/// Permissions.
fn octal(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        _ => Err("permissions are octal, such as 0660".to_owned()),
    }
}

/// The node process, which the others start.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The name by which programs join
    pub(crate) name: Option<Name>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &[&str]) -> Result<Run, clap::Error> {
        match Cli::try_parse_from(["ioth", "run"].iter().chain(words))?.command {
            Command::Run(run) => Ok(run),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_program_has_its_options_to_itself() {
        let plain = run(&["-v", "curl", "-v", "--stack", "x", "--", "y"]).unwrap();
        assert_eq!(plain.program, ["curl", "-v", "--stack", "x", "--", "y"]);
        assert!(plain.verbose && plain.stack.is_none());
        let dashed = run(&["--stack", "stack=smoltcp", "--", "--odd", "--", "--help"]).unwrap();
        assert_eq!(dashed.program, ["--odd", "--", "--help"]);
        assert_eq!(dashed.stack.as_deref(), Some("stack=smoltcp"));
    }

    #[test]
    fn long_options_of_the_switch_behind_one_dash() {
        let of = |words: &[&str]| {
            let words = of_vde_switch(["ioth", "switch"].iter().chain(words).map(OsString::from));
            match Cli::try_parse_from(words).map(|cli| cli.command) {
                Ok(Command::Switch(switch)) => Ok(switch),
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err(error.exit_code()),
            }
        };
        let all =
            of(&["-hub", "-tap", "t0", "-daemon", "-sock", "/x", "-mod", "660", "-numports=8"]).unwrap();
        assert!(all.hub && all.daemon && all.tap == ["t0"], "{all:?}");
        assert_eq!((all.sock.as_deref(), all.mode, all.numports), (Some("/x".as_ref()), 0o660, 8));
        let short = of(&["-xd", "-n8", "-s", "/x", "-m660"]).unwrap();
        assert_eq!((short.hub, short.daemon, short.numports, short.mode), (true, true, 8, 0o660));
        assert_eq!(of(&["-unix", "/x"]).unwrap().sock.as_deref(), Some("/x".as_ref()));
        assert_eq!(of(&["--", "-hub"]).unwrap().path.as_deref(), Some("-hub".as_ref()));
        assert_eq!(of(&["-nosuch"]).unwrap_err(), 2);
        assert_eq!(of(&["-help"]).unwrap_err(), 0);
        let plug = |words: &[&str]| {
            let words = of_vde_switch(["ioth", "plug"].iter().chain(words).map(OsString::from));
            match Cli::try_parse_from(words).map(|cli| cli.command) {
                Ok(Command::Plug(plug)) => Ok(plug),
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err(error.exit_code()),
            }
        };
        let all =
            plug(&["-descr", "web", "-mod=660", "-G", "x", "--port2", "7", "-daemon", "a", "=", "c", "-D"]);
        let all = all.unwrap();
        assert_eq!((all.description.as_deref(), all.mode, all.daemon), (Some("web"), Some(0o660), true));
        assert_eq!((all.group2.as_deref(), all.port2, all.group), (Some("x"), Some(7), None));
        assert_eq!(all.words, ["a", "=", "c", "-D"]);
        assert_eq!(plug(&["-l"]).unwrap_err(), 2);
        // A program's words are its own.
        let words = ["ioth", "run", "x", "-hub"].map(OsString::from);
        assert_eq!(of_vde_switch(words.clone()), words);
    }

    #[test]
    fn wrong_usage_is_two() {
        for wrong in [
            &[][..],
            &["--"],
            &["--stack", "stack=smoltcp"],
            &["--stak", "stack=smoltcp", "true"],
            &["--stack", "stack=smoltcp", "--node", "a", "true"],
            &["--node", "../a", "true"],
        ] {
            let error = run(wrong).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{wrong:?}: {error}");
        }
        for wrong in [
            &["node"][..],
            &["node", "--stop"],
            &["node", "--list", "a"],
            &["node", "--stop", "--stack", "x", "a"],
        ] {
            let error = Cli::try_parse_from(["ioth"].iter().chain(wrong)).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{wrong:?}: {error}");
        }
        for right in [&["--help"][..], &["--version"], &["run", "--help"], &["node", "--help"]] {
            assert_eq!(
                Cli::try_parse_from(["ioth"].iter().chain(right)).unwrap_err().exit_code(),
                0,
                "{right:?}"
            );
        }
    }
}
