//! The command line.

use std::ffi::OsString;

use clap::{Args, Parser, Subcommand};

use crate::named::Name;

#[derive(Debug, Parser)]
#[command(name = "ioth", version, about = "Runs unmodified programs as Internet nodes of their own")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Run),
    Node(Node),
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
