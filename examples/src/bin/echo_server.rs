//! Echoes TCP and UDP to many clients from one thread, by poll(2).
//!
//! ```text
//!   echo_server --stack 'stack=smoltcp,vnl=vde:///tmp/sw,ip=10.0.0.1/24' 7
//! ```
//!
//! The descriptors are those of Berkeley's calls on the node's stack; beside them a signalfd(2), a descriptor of the
//! kernel, waits in the same poll(2).
#![forbid(unsafe_code)]

use std::io;
use std::process::ExitCode;

use clap::Parser;
use ioth::{MsgFlags, Stack, berkeley};
use ioth_examples::{Context, Descriptor, Failure, Node, Place, Stop, finish, interest, wait};

/// Echoes what it receives over TCP and UDP, to any number of clients, on a node of its own.
///
/// It ends on SIGTERM or SIGINT.
#[derive(Parser)]
#[command(
    name = "echo_server",
    version,
    after_help = "Exit status: 0 ended by a signal, 1 it failed, 2 wrong usage."
)]
struct Cli {
    #[command(flatten)]
    node: Node,
    // Not a doc comment: rustdoc would take the brackets for a link.
    #[arg(value_name = "[ADDRESS:]PORT", help = "Where to listen: 7, 10.0.0.1:7, [fd00::1]:7")]
    place: Place,
}

fn main() -> ExitCode {
    finish("echo_server", run(&Cli::parse()))
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let stop = Stop::new().context(|| "signals".to_owned())?;
    let stack = cli.node.start()?;
    serve(cli, &stack, &stop)?;
    cli.node.tell(format_args!("stopped by a signal"));
    stack.delete().context(|| "end of the node".to_owned())
}

fn serve(cli: &Cli, stack: &Stack, stop: &Stop) -> Result<(), Failure> {
    let place = cli.place;
    let listener = bound(stack, place, libc::SOCK_STREAM).context(|| format!("listen on {place}, tcp"))?;
    let datagrams = bound(stack, place, libc::SOCK_DGRAM).context(|| format!("listen on {place}, udp"))?;
    cli.node.tell(format_args!("listening on {place}, tcp and udp"));
    let mut clients: Vec<Client> = Vec::new();
    // Without a descriptor to spare, connections wait in the backlog until a client goes.
    let mut full = false;
    let mut fds = Vec::new();
    loop {
        fds.clear();
        fds.push(interest(stop.number(), libc::POLLIN));
        fds.push(interest(datagrams.number(), libc::POLLIN));
        fds.push(interest(listener.number(), if full { 0 } else { libc::POLLIN }));
        fds.extend(clients.iter().map(|client| interest(client.socket.number(), client.interest())));
        wait(&mut fds).context(|| "poll".to_owned())?;
        if fds[0].revents != 0 {
            return Ok(());
        }
        if fds[1].revents != 0 {
            echo_datagrams(cli, &datagrams);
        }
        let before = clients.len();
        let mut at = FIXED;
        clients.retain_mut(|client| {
            let ready = fds[at].revents != 0;
            at += 1;
            !ready || client.serve(cli)
        });
        full &= clients.len() == before;
        if fds[2].revents != 0 {
            full = !accept(cli, &listener, &mut clients)?;
        }
    }
}

/// Descriptors before those of the clients: signals, datagrams, listener.
const FIXED: usize = 3;

/// A non-blocking socket at `place`, listening if it is a stream.
fn bound(stack: &Stack, place: Place, kind: i32) -> io::Result<Descriptor> {
    let socket = Descriptor::open(stack, place.domain(), kind | libc::SOCK_NONBLOCK)?;
    if kind == libc::SOCK_STREAM {
        let on = 1_i32.to_ne_bytes();
        berkeley::setsockopt(socket.number(), libc::SOL_SOCKET, libc::SO_REUSEADDR, &on)?;
    }
    berkeley::bind(socket.number(), place.addr())?;
    if kind == libc::SOCK_STREAM {
        berkeley::listen(socket.number(), 128)?;
    }
    Ok(socket)
}

/// Takes all connections that wait. False when the process has no descriptor left.
fn accept(cli: &Cli, listener: &Descriptor, clients: &mut Vec<Client>) -> Result<bool, Failure> {
    loop {
        match berkeley::accept4(listener.number(), libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) {
            Ok((fd, from)) => {
                let name = Node::show(&from);
                cli.node.tell(format_args!("{name}: connected"));
                clients.push(Client::new(Descriptor::from_number(fd), name));
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN) => return Ok(true),
                // accept(2): the connection was given up while it waited.
                Some(libc::ECONNABORTED | libc::EINTR) => {}
                Some(libc::EMFILE | libc::ENFILE) => {
                    cli.node.tell(format_args!("no descriptors left: new clients wait"));
                    return Ok(false);
                }
                _ => return Err(error).context(|| "accept".to_owned()),
            },
        }
    }
}

/// Echoes all datagrams that wait. One that cannot be sent is lost, as datagrams may be.
fn echo_datagrams(cli: &Cli, socket: &Descriptor) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match berkeley::recvfrom(socket.number(), &mut buffer, MsgFlags::empty()) {
            Ok((len, Some(from))) => {
                cli.node.tell(format_args!("{}: a datagram of {len} bytes", Node::show(&from)));
                if let Err(error) = berkeley::sendto(socket.number(), &buffer[..len], MsgFlags::empty(), from)
                {
                    cli.node.tell(format_args!("{}: {error}", Node::show(&from)));
                }
            }
            Ok((_, None)) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            // What became of an earlier datagram.
            Err(error) => cli.node.tell(format_args!("datagrams: {error}")),
        }
    }
}

/// A connection, and what of it is still to be sent back.
#[derive(Debug)]
struct Client {
    socket: Descriptor,
    name: String,
    buffer: Box<[u8]>,
    /// The part of `buffer` that waits: from, to.
    waits: (usize, usize),
}

impl Client {
    fn new(socket: Descriptor, name: String) -> Self {
        Client { socket, name, buffer: vec![0; 16 << 10].into(), waits: (0, 0) }
    }

    /// Either to send or to receive: who does not read its echo is not read from.
    fn interest(&self) -> i16 {
        if self.waits.0 < self.waits.1 { libc::POLLOUT } else { libc::POLLIN }
    }

    /// Echoes as far as it goes without waiting. False when the connection is over.
    fn serve(&mut self, cli: &Cli) -> bool {
        match self.echo() {
            Ok(true) => true,
            Ok(false) => {
                cli.node.tell(format_args!("{}: ended", self.name));
                false
            }
            Err(error) => {
                cli.node.tell(format_args!("{}: {error}", self.name));
                false
            }
        }
    }

    fn echo(&mut self) -> io::Result<bool> {
        let fd = self.socket.number();
        // Bounded, so that one client does not keep the others waiting.
        for _ in 0..16 {
            let (from, to) = self.waits;
            let done = if from < to {
                berkeley::send(fd, &self.buffer[from..to], MsgFlags::empty()).map(|len| self.waits.0 += len)
            } else {
                match berkeley::recv(fd, &mut self.buffer, MsgFlags::empty()) {
                    Ok(0) => return Ok(false),
                    received => received.map(|len| self.waits = (0, len)),
                }
            };
            match done {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
