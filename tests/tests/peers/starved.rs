//! A process that has no descriptor left.

use std::fs::File;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use ioth::net::{TcpListener, TcpStream};
use ioth::{Errno, Stack, berkeley};
use nix::sys::resource::{Resource, setrlimit};

use crate::fixture::{PATIENCE, Switch, Watch};
use crate::programs::ask;

/// Runs the test `name` of this file again in a process of its own, with `argument`.
fn apart(name: &str, argument: &str) {
    let run = Command::new(std::env::current_exe().expect("a test knows its own binary"))
        .args(["--exact", &format!("starved::{name}"), "--nocapture", "--test-threads=1"])
        .env(ARGUMENT, argument)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && text.contains("1 passed"), "{text}");
}

const ARGUMENT: &str = "IOTH_TEST_STARVED";

fn argument() -> Option<String> {
    std::env::var(ARGUMENT).ok()
}

/// Takes all descriptors, for as long as it is held.
fn starve() -> Vec<File> {
    setrlimit(Resource::RLIMIT_NOFILE, 64, 64).unwrap();
    let files: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(!files.is_empty());
    files
}

fn errno(error: &std::io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw)
}

/// Where it can work without a descriptor it does; where it needs one it says `EMFILE`, and works again later.
#[test]
fn no_descriptor_is_left() {
    let Some(vnl) = argument() else {
        let switch = Switch::start();
        return apart("no_descriptor_is_left", &switch.vnl());
    };
    let _watch = Watch::over("without descriptors", 2 * PATIENCE);
    let node = |host: u32| format!("stack=smoltcp,vnl=switch://starved,ip=fd00::{host}/64");
    let one = Stack::new(&node(1)).unwrap();
    let addr: SocketAddr = "[fd00::1]:7".parse().unwrap();
    let listener = TcpListener::bind_on(&one, addr).unwrap();
    // Starts the process's reactor.
    let first = TcpStream::connect_on(&one, addr).unwrap();
    listener.accept().unwrap();
    drop(first);

    let held = starve();
    let error = Stack::newstack("smoltcp", Some(&vnl)).unwrap_err();
    assert_eq!(error.errno(), Errno::EMFILE, "{error}");
    // A node within the process needs none, and neither does a connection of it.
    let two = Stack::new(&node(2)).unwrap();
    let client = TcpStream::connect_on(&two, addr).unwrap();
    let (server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let echo = std::thread::spawn(move || crate::programs::echo(&server));
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    ask(&client, 1).unwrap();
    // Its descriptor does; without one the connection is gone, as with std's types.
    let error = client.into_fd().unwrap_err();
    assert_eq!(errno(&error), Some(Errno::EMFILE));
    let _ = echo.join().unwrap();
    let error = berkeley::msocket(Some(&two), libc::AF_INET6, libc::SOCK_STREAM, 0).unwrap_err();
    assert_eq!(errno(&error), Some(Errno::EMFILE));
    let kernel = Stack::newstack("kernel", None).unwrap();
    let error = TcpListener::bind_on(&kernel, "127.0.0.1:0").unwrap_err();
    assert_eq!(errno(&error), Some(Errno::EMFILE));

    drop(held);
    let fd = berkeley::msocket(Some(&two), libc::AF_INET6, libc::SOCK_STREAM, 0).unwrap();
    berkeley::connect(fd, addr).unwrap();
    berkeley::close(fd).unwrap();
    Stack::newstack("smoltcp", Some(&vnl)).unwrap();
}

/// The same from the start, where the reactor that a node's timers need cannot be started: calls end by their own
/// time-outs, and once there is a descriptor all is as it should be.
#[test]
fn no_descriptor_for_the_reactor() {
    if argument().is_none() {
        return apart("no_descriptor_for_the_reactor", "");
    }
    let _watch = Watch::over("without a reactor", 2 * PATIENCE);
    let held = starve();
    let node = Stack::new("stack=smoltcp,vnl=switch://starved,ip=fd00::1/64").unwrap();
    let addr = "[fd00::77]:7".parse().unwrap();
    let error = TcpStream::connect_timeout_on(&node, &addr, Duration::from_millis(10)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    drop(held);
    let error = TcpStream::connect_on(&node, addr).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HostUnreachable);
}
