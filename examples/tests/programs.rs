//! The programs as they are run.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[path = "../../ioth-core/tests/support/place.rs"]
mod place;

const HELLO: &str = env!("CARGO_BIN_EXE_hello");
const SEND: &str = env!("CARGO_BIN_EXE_send");
const RECV: &str = env!("CARGO_BIN_EXE_recv");
const ECHO_SERVER: &str = env!("CARGO_BIN_EXE_echo_server");
const INETD: &str = env!("CARGO_BIN_EXE_inetd");

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
        Background::listening_by(Command::new(program).args(args).arg("-v"))
    }

    fn listening_by(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
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
    for program in [HELLO, SEND, RECV, ECHO_SERVER, INETD] {
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

/// The node is the command `ioth`, on a switch of this test's.
#[test]
fn a_program_for_each_connection() {
    let place = place::Place::of_this_test();
    place.build(&["--package", "ioth-cli"]);
    let switch = std::env::temp_dir().join(format!("ioth-inetd-test-{}", std::process::id()));
    let _serves = ioth::vde::open(&format!("switch://{}", switch.display())).unwrap();
    let node =
        |stack: &str, host: u8| format!("stack={stack},vnl=vde://{},ip=10.9.0.{host}/24", switch.display());
    let mut inetd = Command::new(INETD);
    inetd.env("IOTH_COMMAND", place.dir.join("ioth"));
    inetd.args(["-v", "--stack", &node("node", 1), "7", "tr", "a-z", "A-Z"]);
    let _server = Background::listening_by(&mut inetd);
    for (sent, back) in [("ciao", "CIAO"), ("ciao again", "CIAO AGAIN")] {
        let output = run(SEND, &["--stack", &node("smoltcp", 2), "10.9.0.1:7", sent]);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), back.to_owned()));
    }
    let within = run(INETD, &["--stack", "stack=smoltcp,vnl=null://", "7", "cat"]);
    assert_eq!(within.status.code(), Some(1));
    assert!(text(&within.stderr).contains("stack=node has some to pass on"), "{}", text(&within.stderr));
}
