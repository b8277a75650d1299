//! Receives on a node of its own, and writes it to standard output.
//!
//! ```text
//!   recv --stack 'stack=smoltcp,vnl=vde:///tmp/sw,ip=10.0.0.1/24' --udp 5000
//! ```
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use ioth::{MsgFlags, Stack, berkeley};
use ioth_examples::{Context, Descriptor, Failure, Node, Place, Stop, finish, interest, wait};

/// Receives on a node of its own, and writes what comes to standard output.
///
/// Over TCP it takes one connection and ends with it; over UDP it ends after --count datagrams.
/// SIGTERM and SIGINT end it as well.
#[derive(Parser)]
#[command(
    name = "recv",
    version,
    after_help = "Exit status: 0 all was received (or stopped between messages), 1 it failed or a stream was cut short, \
                  2 wrong usage."
)]
struct Cli {
    #[command(flatten)]
    node: Node,
    /// Receive over TCP (the default)
    #[arg(long, conflicts_with = "udp")]
    tcp: bool,
    /// Receive over UDP
    #[arg(long)]
    udp: bool,
    /// Datagrams to receive
    #[arg(long, value_name = "N", default_value_t = 1, requires = "udp", value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    // Not a doc comment: rustdoc would take the brackets for a link.
    #[arg(value_name = "[ADDRESS:]PORT", help = "Where to listen: 5000, 10.0.0.1:5000, [fd00::1]:5000")]
    place: Place,
}

fn main() -> ExitCode {
    finish("recv", run(&Cli::parse()))
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let stop = Stop::new().context(|| "signals".to_owned())?;
    let stack = cli.node.start()?;
    match cli.udp {
        true => receive_udp(cli, &stack, &stop)?,
        false => receive_tcp(cli, &stack, &stop)?,
    }
    stack.delete().context(|| "end of the node".to_owned())
}

fn receive_udp(cli: &Cli, stack: &Stack, stop: &Stop) -> Result<(), Failure> {
    let socket = bound(cli, stack, libc::SOCK_DGRAM)?;
    let mut buffer = vec![0; 1 << 16];
    for _ in 0..cli.count {
        if !readable(&socket, stop)? {
            cli.node.tell(format_args!("stopped by a signal"));
            return Ok(());
        }
        let (len, from) = berkeley::recvfrom(socket.number(), &mut buffer, MsgFlags::empty())
            .context(|| "receive".to_owned())?;
        cli.node.tell(format_args!("{len} bytes from {}", Node::show(&from.unwrap_or_default())));
        write(&buffer[..len])?;
    }
    Ok(())
}

fn receive_tcp(cli: &Cli, stack: &Stack, stop: &Stop) -> Result<(), Failure> {
    let listener = bound(cli, stack, libc::SOCK_STREAM)?;
    if !readable(&listener, stop)? {
        cli.node.tell(format_args!("stopped by a signal"));
        return Ok(());
    }
    let (fd, from) =
        berkeley::accept4(listener.number(), libc::SOCK_CLOEXEC).context(|| "accept".to_owned())?;
    let stream = Descriptor::from_number(fd);
    let from = Node::show(&from);
    cli.node.tell(format_args!("connected by {from}"));
    // One connection: others are refused from now on.
    drop(listener);
    let mut buffer = vec![0; 1 << 16];
    let mut received = 0;
    loop {
        if !readable(&stream, stop)? {
            return Err(
                format!("stopped by a signal after {received} bytes, before the end of the stream").into()
            );
        }
        let len = berkeley::recv(stream.number(), &mut buffer, MsgFlags::empty())
            .context(|| format!("receive from {from}, after {received} bytes"))?;
        if len == 0 {
            cli.node.tell(format_args!("{received} bytes, and the end of the stream"));
            return Ok(());
        }
        received += len;
        write(&buffer[..len])?;
    }
}

/// A socket that is bound, and listens if it is a stream.
fn bound(cli: &Cli, stack: &Stack, kind: i32) -> Result<Descriptor, Failure> {
    let place = cli.place;
    let bind = |domain: i32, addr: SocketAddr| -> io::Result<Descriptor> {
        let socket = Descriptor::open(stack, domain, kind)?;
        if kind == libc::SOCK_STREAM {
            let on = 1_i32.to_ne_bytes();
            berkeley::setsockopt(socket.number(), libc::SOL_SOCKET, libc::SO_REUSEADDR, &on)?;
        }
        berkeley::bind(socket.number(), addr)?;
        if kind == libc::SOCK_STREAM {
            berkeley::listen(socket.number(), 1)?;
        }
        Ok(socket)
    };
    let socket = bind(place.domain(), place.addr()).context(|| format!("listen on {place}"))?;
    cli.node.tell(format_args!("listening on {place}, {}", if cli.udp { "udp" } else { "tcp" }));
    Ok(socket)
}

/// Waits until there is something to receive; false when a signal says to stop.
fn readable(socket: &Descriptor, stop: &Stop) -> Result<bool, Failure> {
    let mut fds = [interest(socket.number(), libc::POLLIN), interest(stop.number(), libc::POLLIN)];
    wait(&mut fds).context(|| "poll".to_owned())?;
    Ok(fds[1].revents == 0)
}

fn write(data: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(data).and_then(|()| stdout.flush()).context(|| "standard output".to_owned())
}
