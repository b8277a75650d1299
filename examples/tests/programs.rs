//! The programs as they are run.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const HELLO: &str = env!("CARGO_BIN_EXE_hello");
const SEND: &str = env!("CARGO_BIN_EXE_send");
const RECV: &str = env!("CARGO_BIN_EXE_recv");
const ECHO_SERVER: &str = env!("CARGO_BIN_EXE_echo_server");

fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A program in the background, ended with the test.
struct Background {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Background {
    /// Runs it until it says that it listens.
    fn listening(program: &str, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(args).arg("-v").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut told = String::new();
        while !told.contains("listening") {
            assert_ne!(stderr.read_line(&mut told).unwrap(), 0, "{told}");
        }
        Background { child, stderr }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Exit status and standard output. Standard error is read to its end, so that nothing is stuck.
    fn end(mut self) -> (Option<i32>, String) {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        self.stderr.read_to_string(&mut stderr).unwrap();
        (self.child.wait().unwrap().code(), stdout)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
    }
}

/// A port of the host's that was free just now.
fn port() -> String {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port().to_string()
}

#[test]
fn hello() {
    let start = Instant::now();
    let output = run(HELLO, &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(start.elapsed() < Duration::from_secs(5));
    let said = text(&output.stdout);
    for line in [
        "[one] <- TCP from [fd00::2]:",
        "[two] <- TCP from [fd00::1]:7: \"hello two, this is one\"",
        "[one] <- UDP from [fd00::2]:",
        "[two] <- UDP from [fd00::1]:9: \"got 10 bytes\"",
        "[two] <- UDP from [fd00::1]:9: \"got 20 bytes\" (descriptor",
    ] {
        assert!(said.contains(line), "{line} is not in\n{said}");
    }
}

#[test]
fn exit_codes() {
    for program in [HELLO, SEND, RECV, ECHO_SERVER] {
        assert_eq!(run(program, &["--help"]).status.code(), Some(0));
        assert_eq!(run(program, &["--version"]).status.code(), Some(0));
        assert_eq!(run(program, &["--nonsense"]).status.code(), Some(2));
    }
    let nobody = run(SEND, &["--stack", "stack=smoltcp,vnl=null://,ip=10.0.0.1/24", "10.0.1.1:7", "ciao"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains("no route: give the node"), "{}", text(&nobody.stderr));
}

#[test]
fn an_echo_until_sigterm() {
    let port = port();
    let place = format!("127.0.0.1:{port}");
    let server = Background::listening(ECHO_SERVER, &["--stack", "stack=kernel", &place]);
    for sent in ["ciao", "ciao again"] {
        let output = run(SEND, &["--stack", "stack=kernel", &place, sent]);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), sent.to_owned()));
    }
    server.signal(Signal::SIGTERM);
    assert_eq!(server.end().0, Some(0));
}

#[test]
fn datagrams_and_streams() {
    let port = port();
    let to = format!("127.0.0.1:{port}");
    let receiver = Background::listening(RECV, &["--stack", "stack=kernel", "--udp", "--count", "2", &port]);
    for _ in 0..2 {
        assert!(run(SEND, &["--stack", "stack=kernel", "--udp", &to, "ciao"]).status.success());
    }
    assert_eq!(receiver.end(), (Some(0), "ciaociao".to_owned()));

    let receiver = Background::listening(RECV, &["--stack", "stack=kernel", &port]);
    assert!(run(SEND, &["--stack", "stack=kernel", &to, "ciao"]).status.success());
    assert_eq!(receiver.end(), (Some(0), "ciao".to_owned()));
}

#[test]
fn a_receiver_that_is_stopped() {
    let config = "stack=smoltcp,vnl=null://,ip=10.0.0.1/24";
    let receiver = Background::listening(RECV, &["--stack", config, "7"]);
    receiver.signal(Signal::SIGINT);
    assert_eq!(receiver.end(), (Some(0), String::new()));
}
