//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use crate::row::Row;

pub(crate) const HELP: &str = "\
Measures stacks of the Internet of Threads beside the kernel's and the C library's, interleaved in one run.

Usage: ioth-bench [options]

  --quick        3 short rounds: shows that all of it runs, not how fast
  --rounds N     rounds of each row (default 7); the table shows medians
  --only ROW     only this row; may be given more than once
  --json FILE    writes every sample as JSON, beside the table
  --help         this text
  --version      the version

Exit codes: 0 measured (also where a peer is missing, which the table says), 1 failed, 2 wrong usage.

Rows:
";

/// What was asked for.
#[derive(Debug)]
pub(crate) enum Command {
    Measure(Options),
    /// One sample of a node's memory, in a process of its own.
    Memory {
        vnl: Option<String>,
        nodes: usize,
    },
    /// A switch of ours, in a process of its own.
    Switch {
        path: String,
        ports: usize,
    },
    /// A node in a process of its own, which answers.
    Node(Vec<String>),
    Help,
    Version,
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) rounds: usize,
    pub(crate) span: Duration,
    pub(crate) quick: bool,
    pub(crate) rows: Vec<Row>,
    pub(crate) json: Option<PathBuf>,
}

/// Reads the arguments behind the program's name.
pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Command, String> {
    let mut options =
        Options { rounds: 7, span: Duration::from_millis(400), quick: false, rows: Vec::new(), json: None };
    let mut rounds = None;
    while let Some(arg) = args.next() {
        let mut value = |what: &str| args.next().ok_or(format!("{arg} lacks its value: {what}"));
        match &*arg {
            "--help" | "-h" => return Ok(Command::Help),
            "--version" | "-V" => return Ok(Command::Version),
            "--quick" => {
                options.quick = true;
                options.rounds = 3;
                options.span = Duration::from_millis(100);
            }
            "--rounds" => rounds = Some(number(&arg, &value("a number")?)?),
            "--only" => {
                let name = value("a row's name")?;
                let row = Row::named(&name).ok_or_else(|| {
                    let names: Vec<_> = Row::ALL.iter().map(|row| row.name()).collect();
                    format!("--only: there is no row \"{name}\" (known: {})", names.join(", "))
                })?;
                options.rows.push(row);
            }
            "--json" => options.json = Some(value("a file")?.into()),
            "--memory" => {
                let nodes = number(&arg, &value("how many nodes")?)?;
                return Ok(Command::Memory { vnl: args.next(), nodes });
            }
            "--switch" => {
                let ports = number(&arg, &value("how many ports")?)?;
                return Ok(Command::Switch { path: args.next().ok_or("--switch lacks its path")?, ports });
            }
            "--node" => return Ok(Command::Node(args.collect())),
            _ => return Err(format!("unknown argument \"{arg}\" (see --help)")),
        }
    }
    options.rounds = rounds.unwrap_or(options.rounds);
    if options.rows.is_empty() {
        options.rows = Row::ALL.to_vec();
    }
    Ok(Command::Measure(options))
}

fn number(arg: &str, text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..) => Ok(number),
        _ => Err(format!("{arg}: \"{text}\" is not a number from 1 on")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<Command, String> {
        parse(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options() {
        let Ok(Command::Measure(options)) = words("--rounds 5 --quick --only tcp-bulk --json x") else {
            panic!("refused")
        };
        assert_eq!((options.rounds, options.quick), (5, true));
        assert_eq!(options.rows, [Row::TcpBulk]);
        assert!(matches!(words(""), Ok(Command::Measure(all)) if all.rows == Row::ALL));
    }

    #[test]
    fn wrong_usage() {
        for wrong in ["--fast", "--rounds", "--rounds 0", "--rounds x", "--only nothing", "rows"] {
            assert!(words(wrong).is_err(), "{wrong}");
        }
    }
}
