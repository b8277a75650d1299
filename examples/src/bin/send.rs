//! Sends a text, or what stands in standard input, from a node of its own.
//!
//! ```text
//!   send --stack 'stack=smoltcp,vnl=vde:///tmp/sw,ip=10.0.0.2/24' --udp 10.0.0.1:5000 'ciao'
//! ```
#![forbid(unsafe_code)]

use std::io::{self, BufRead, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::process::ExitCode;
use std::thread;

use clap::Parser;
use ioth::Stack;
use ioth::net::{TcpStream, UdpSocket};
use ioth_examples::{Context, Failure, Node, finish};

/// Sends a text, or standard input, from a node of its own.
///
/// Over TCP all is sent, the stream ended, and the peer's end of it waited for, so that nothing is lost; what the peer
/// sends meanwhile goes to standard output. Over UDP the text is one datagram, or each line of standard input one.
#[derive(Parser)]
#[command(name = "send", version, after_help = "Exit status: 0 all was sent, 1 it failed, 2 wrong usage.")]
struct Cli {
    #[command(flatten)]
    node: Node,
    /// Send over TCP (the default)
    #[arg(long, conflicts_with = "udp")]
    tcp: bool,
    /// Send over UDP
    #[arg(long)]
    udp: bool,
    // Not a doc comment: rustdoc would take the brackets for a link.
    #[arg(
        value_name = "ADDRESS:PORT",
        help = "Where to: 10.0.0.1:5000 or [fd00::1]:5000 (names are not resolved)"
    )]
    to: SocketAddr,
    /// What to send, as it is; without it, standard input
    text: Option<String>,
}

fn main() -> ExitCode {
    finish("send", run(&Cli::parse()))
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let stack = cli.node.start()?;
    match cli.udp {
        true => send_udp(cli, &stack)?,
        false => send_tcp(cli, &stack)?,
    }
    stack.delete().context(|| "end of the node".to_owned())
}

fn send_tcp(cli: &Cli, stack: &Stack) -> Result<(), Failure> {
    let to = cli.to;
    let stream = TcpStream::connect_on(stack, to).context(|| format!("connect to {to}"))?;
    cli.node.tell(format_args!("connected to {to}"));
    let writing = stream.try_clone().context(|| "the stream's second handle".to_owned())?;
    let text = cli.text.clone();
    // Both directions at once: a peer that answers while it reads must not wait for us to read.
    let writer = thread::spawn(move || match text {
        Some(text) => write(&writing, text.as_bytes()),
        None => write(&writing, io::stdin().lock()),
    });
    let mut stdout = io::stdout().lock();
    let received = copy(&stream, &mut stdout, || "receive".to_owned(), || "standard output".to_owned())?;
    let sent = writer.join().map_err(|_| Failure::from("the sending thread panicked".to_owned()))??;
    cli.node.tell(format_args!("sent {sent} bytes, received {received}; the peer has all of it"));
    Ok(())
}

/// Sends all of `from`, and that it is all.
fn write(stream: &TcpStream, from: impl Read) -> Result<u64, Failure> {
    let sent = copy(from, stream, || "standard input".to_owned(), || "send".to_owned())?;
    stream.shutdown(Shutdown::Write).context(|| "end of the stream".to_owned())?;
    Ok(sent)
}

/// io::copy, which does not say which side failed.
fn copy(
    mut from: impl Read,
    mut to: impl Write,
    reading: impl FnOnce() -> String,
    writing: impl FnOnce() -> String,
) -> Result<u64, Failure> {
    let mut buffer = vec![0; 64 << 10];
    let mut copied = 0;
    loop {
        let len = match from.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context(reading),
        };
        if let Err(error) = to.write_all(&buffer[..len]).and_then(|()| to.flush()) {
            return Err(error).context(writing);
        }
        copied += len as u64;
    }
}

fn send_udp(cli: &Cli, stack: &Stack) -> Result<(), Failure> {
    let to = cli.to;
    let any = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind_on(stack, SocketAddr::new(any, 0)).context(|| "bind".to_owned())?;
    socket.connect(to).context(|| format!("connect to {to}"))?;
    let mut sent = 0;
    let mut send = |datagram: &[u8]| {
        sent += 1;
        socket.send(datagram).context(|| format!("send {} bytes to {to}", datagram.len())).map(drop)
    };
    match &cli.text {
        Some(text) => send(text.as_bytes())?,
        None => {
            let mut stdin = io::stdin().lock();
            let mut line = Vec::new();
            while stdin.read_until(b'\n', &mut line).context(|| "standard input".to_owned())? > 0 {
                send(&line)?;
                line.clear();
            }
        }
    }
    cli.node.tell(format_args!("sent {sent} datagrams to {to}; UDP does not say whether they arrived"));
    Ok(())
}
