//! Two threads of one process, each a node of the Internet with an address of its own, greet each other.
//!
//! ```text
//!   cargo run --release --bin hello
//! ```
//!
//! No root, no user namespace, no /dev/net/tun, nothing installed: both nodes and the network between them are in this
//! process.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr};
use std::process::ExitCode;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use clap::Parser;
use ioth::net::{TcpListener, TcpStream, UdpSocket};
use ioth::{MsgFlags, SockAddr, Stack, berkeley};
use ioth_examples::{Context, Failure, finish};

const ONE: &str = "stack=smoltcp,vnl=switch://hello,ip=fd00::1/64";
const TWO: &str = "stack=smoltcp,vnl=switch://hello,ip=fd00::2/64";
const ONE_ADDR: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const TCP_PORT: u16 = 7;
const UDP_PORT: u16 = 9;

/// Two threads of one process, each a node of the Internet, greet each other over TCP and UDP.
#[derive(Parser)]
#[command(name = "hello", version)]
struct Cli {
    /// Tell on standard error how the nodes are made
    #[arg(short, long)]
    verbose: bool,
}

fn main() -> ExitCode {
    finish("hello", run(&Cli::parse()))
}

fn run(cli: &Cli) -> Result<(), Failure> {
    if cli.verbose {
        eprintln!("[one] {ONE}\n[two] {TWO}");
    }
    let (done, results) = mpsc::channel();
    let (listening, listens) = mpsc::channel();
    let first = done.clone();
    thread::spawn(move || first.send(one(&listening)));
    thread::spawn(move || match listens.recv() {
        Ok(()) => done.send(two()),
        // The first one failed, and says why.
        Err(_) => Ok(()),
    });
    for _ in 0..2 {
        let late = |_| Failure::from("the nodes did not finish within 4 s".to_owned());
        results.recv_timeout(Duration::from_secs(4)).map_err(late)??;
    }
    Ok(())
}

/// The first thread: a node that listens.
fn one(listening: &Sender<()>) -> Result<(), Failure> {
    let stack = Stack::new(ONE).context(|| "node one".to_owned())?;
    // From here on this thread is that node: its sockets are made there.
    let node = stack.enter();
    introduce("one", &stack)?;
    let tcp = TcpListener::bind(("::", TCP_PORT)).context(|| "node one: listen".to_owned())?;
    let udp = UdpSocket::bind(("::", UDP_PORT)).context(|| "node one: bind".to_owned())?;
    // Nobody waits for it any more only if the other thread is gone, and main tells of that.
    let _ = listening.send(());

    let talk = || -> io::Result<()> {
        let (mut stream, from) = tcp.accept()?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        say("one", format_args!("<- TCP from {from}: {text:?}"))?;
        let answer = "hello two, this is one";
        say("one", format_args!("-> TCP to {from}: {answer:?}"))?;
        stream.write_all(answer.as_bytes())?;
        drop(stream);
        for _ in 0..2 {
            let mut datagram = [0; 100];
            let (len, from) = udp.recv_from(&mut datagram)?;
            let text = String::from_utf8_lossy(&datagram[..len]);
            say("one", format_args!("<- UDP from {from}: {text:?}"))?;
            let answer = format!("got {len} bytes");
            say("one", format_args!("-> UDP to {from}: {answer:?}"))?;
            udp.send_to(answer.as_bytes(), from)?;
        }
        Ok(())
    };
    talk().context(|| "node one".to_owned())?;
    drop((tcp, udp, node));
    stack.delete().context(|| "node one".to_owned())
}

/// The second thread: a node that calls.
fn two() -> Result<(), Failure> {
    let stack = Stack::new(TWO).context(|| "node two".to_owned())?;
    let node = stack.enter();
    introduce("two", &stack)?;
    by_net_types().context(|| "node two".to_owned())?;
    by_berkeley_calls().context(|| "node two, Berkeley's calls".to_owned())?;
    drop(node);
    stack.delete().context(|| "node two".to_owned())
}

/// Sockets in the image of `std::net`.
fn by_net_types() -> io::Result<()> {
    let mut stream = TcpStream::connect((ONE_ADDR, TCP_PORT))?;
    let to = stream.peer_addr()?;
    let text = "hello one, this is two";
    say("two", format_args!("-> TCP to {to}: {text:?}"))?;
    stream.write_all(text.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    say("two", format_args!("<- TCP from {to}: {answer:?}"))?;

    let udp = UdpSocket::bind("[::]:0")?;
    let to = SocketAddr::from((ONE_ADDR, UDP_PORT));
    let text = "a datagram";
    say("two", format_args!("-> UDP to {to}: {text:?}"))?;
    udp.send_to(text.as_bytes(), to)?;
    let mut answer = [0; 100];
    let (len, from) = udp.recv_from(&mut answer)?;
    say("two", format_args!("<- UDP from {from}: {:?}", String::from_utf8_lossy(&answer[..len])))
}

/// The same with Berkeley's calls, on a descriptor that poll(2) knows as well.
fn by_berkeley_calls() -> io::Result<()> {
    let fd = berkeley::socket(libc::AF_INET6, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)?;
    let to = SocketAddr::from((ONE_ADDR, UDP_PORT));
    let text = "a datagram by sendto";
    say("two", format_args!("-> UDP to {to}: {text:?} (descriptor {fd})"))?;
    berkeley::sendto(fd, text.as_bytes(), MsgFlags::empty(), to)?;
    let mut answer = [0; 100];
    let (len, from) = berkeley::recvfrom(fd, &mut answer, MsgFlags::empty())?;
    let from = from.and_then(|from| from.as_ip()).map_or_else(String::new, |from| from.to_string());
    let answer = String::from_utf8_lossy(&answer[..len]);
    say("two", format_args!("<- UDP from {from}: {answer:?} (descriptor {fd})"))?;
    berkeley::close(fd)
}

/// Says which node the thread is, as the node itself sees it.
fn introduce(name: &str, stack: &Stack) -> Result<(), Failure> {
    let entries = stack.getifaddrs().context(|| format!("node {name}: addresses"))?;
    let mut lines = Vec::new();
    for entry in &entries {
        match (entry.addr, entry.netmask) {
            (SockAddr::Ip(addr), Some(SockAddr::Ip(mask))) => {
                lines.push(format!("{} {}/{}", entry.name, addr.ip(), prefix_len(mask)));
            }
            _ => continue,
        }
    }
    let what = format!("a node of its own: {}", lines.join(", "));
    say(name, format_args!("{what}")).context(|| "standard output".to_owned())
}

fn prefix_len(mask: SocketAddr) -> u32 {
    match mask {
        SocketAddr::V4(mask) => mask.ip().to_bits().count_ones(),
        SocketAddr::V6(mask) => mask.ip().to_bits().count_ones(),
    }
}

/// One line on standard output.
fn say(name: &str, what: fmt::Arguments<'_>) -> io::Result<()> {
    writeln!(io::stdout(), "[{name}] {what}")
}
