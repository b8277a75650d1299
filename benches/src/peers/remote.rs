//! A node in a process of its own, at the other end of a row. It ends at the end of its standard input.
//!
//! ```text
//!   we write the row's name; it writes the port, and when the connection has ended its figure, or "error: " and why
//! ```

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ioth::Stack;

use super::switch::end;
use super::vdestack::Helper;
use crate::node::Node;
use crate::row::Row;
use crate::work::{self, Sample};

/// The process.
#[derive(Debug)]
pub(crate) struct Remote {
    child: Child,
    told: BufReader<ChildStdout>,
}

impl Remote {
    /// One with a stack of ours.
    pub(crate) fn ours(config: &str) -> Result<Self, String> {
        Self::start(Command::new("/proc/self/exe").args(["--node", "ours", config]))
    }

    /// One with a stack of the C library, by the program that was compiled for it.
    pub(crate) fn vdestack(program: &Path, vnl: &str, cidr: &str) -> Result<Self, String> {
        Self::start(
            Command::new("/proc/self/exe").args(["--node", "vdestack"]).arg(program).args([vnl, cidr]),
        )
    }

    fn start(command: &mut Command) -> Result<Self, String> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("a second process: {error}"))?;
        let told = child.stdout.take().ok_or("a second process without its output")?;
        let mut remote = Remote { child, told: BufReader::new(told) };
        remote.hear().map_err(|error| format!("a second process: {error}"))?;
        Ok(remote)
    }

    /// A sample of a row, called by a node here.
    pub(crate) fn measure(
        &mut self,
        here: &Node,
        there: IpAddr,
        row: Row,
        span: Duration,
    ) -> io::Result<Sample> {
        let stdin = self.child.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(stdin, "{}", row.name())?;
        let port = self.hear()?.parse().map_err(io::Error::other)?;
        let called = work::call(here, SocketAddr::new(there, port), row, span)?;
        let answered: f64 = self.hear()?.parse().map_err(io::Error::other)?;
        Ok(if row == Row::PingProcesses { called.into() } else { answered.into() })
    }

    fn hear(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.told.read_line(&mut line)? == 0 {
            return Err(io::Error::other("it has ended"));
        }
        match line.trim().strip_prefix("error: ") {
            Some(why) => Err(io::Error::other(why.to_owned())),
            None => Ok(line.trim().to_owned()),
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        end(&mut self.child, Duration::from_secs(2));
    }
}

/// The process itself: a node as the words tell, which answers until its input ends.
pub(crate) fn answer(words: &[String]) -> Result<(), String> {
    let node = match words {
        [kind, config] if kind == "ours" => {
            Stack::new(config).map(Node::Ours).map_err(|error| error.to_string())
        }
        [kind, program, vnl, cidr] if kind == "vdestack" => {
            Helper::start(Path::new(program), vnl, cidr).map(|helper| Node::Vdestack(Arc::new(helper)))
        }
        _ => Err("--node lacks what it is".to_owned()),
    };
    let node = node.inspect_err(|error| println!("error: {error}"))?;
    println!("ready");
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|error| error.to_string())?;
        let row = Row::named(&line).ok_or_else(|| format!("there is no row \"{line}\""))?;
        match work::answer(&node, row, |port| println!("{port}")) {
            Ok(figure) => println!("{figure}"),
            Err(error) => println!("error: {error}"),
        }
    }
    Ok(())
}
