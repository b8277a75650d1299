//! Runs a program for each connection, which is its standard input and output: a node for programs that know of no network.
//!
//! ```text
//!   inetd --stack 'stack=node,vnl=vde:///tmp/sw,ip=10.0.0.1/24' 7 cat
//! ```
//! The node has a process of its own (`stack=node`), so a connection is a descriptor that other programs can have: it goes
//! on when this program has ended. Those of `smoltcp` are within the program.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::process::{Command, ExitCode};
use std::thread;

use clap::Parser;
use ioth::net::{TcpListener, TcpStream};
use ioth_examples::{Context, Failure, Node, Place, finish};

/// Runs a program for each TCP connection, which is its standard input and output.
#[derive(Parser)]
#[command(name = "inetd", version, after_help = "Exit status: 1 it failed, 2 wrong usage.")]
struct Cli {
    #[command(flatten)]
    node: Node,
    // Not a doc comment: rustdoc would take the brackets for a link.
    #[arg(value_name = "[ADDRESS:]PORT", help = "Where to listen: 7, 10.0.0.1:7, [fd00::1]:7")]
    place: Place,
    /// The program to run
    program: String,
    /// Its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

fn main() -> ExitCode {
    finish("inetd", run(&Cli::parse()))
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let stack = cli.node.start()?;
    if !["node", "kernel"].contains(&stack.backend()) {
        let message = "the connections of stack={} are within this program: stack=node has some to pass on";
        return Err(message.replace("{}", stack.backend()).into());
    }
    let place = cli.place;
    let listener = TcpListener::bind_on(&stack, place.addr()).context(|| format!("listen on {place}"))?;
    cli.node.tell(format_args!("listening on {place}, tcp"));
    loop {
        let (stream, from) = listener.accept().context(|| "accept".to_owned())?;
        if let Err(error) = serve(cli, stream, from) {
            eprintln!("inetd: {}: {error}", cli.program);
        }
    }
}

/// Starts the program for one connection, and waits for its end in a thread.
fn serve(cli: &Cli, stream: TcpStream, from: SocketAddr) -> io::Result<()> {
    let output = stream.into_fd()?;
    let input = output.try_clone()?;
    let mut child = Command::new(&cli.program).args(&cli.args).stdin(input).stdout(output).spawn()?;
    cli.node.tell(format_args!("{from} has process {}", child.id()));
    thread::spawn(move || child.wait());
    Ok(())
}
