//! The poller as a child of a test: a program without code of ours that has inherited a descriptor.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

/// A poller, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Poller {
    process: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Poller {
    /// A program that has `fd`: as standard error, since that needs no unsafe code and leaks into no other child.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        let mut process = Command::new(path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fd)
            .spawn()
            .expect("the poller starts");
        let commands = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().expect("it was piped"));
        Poller { process, commands, answers }
    }

    /// Gives a command, and its answer.
    pub(crate) fn ask(&mut self, command: &str) -> u32 {
        self.send(command);
        self.answer()
    }

    /// Tells it to end, and closes its descriptors with that.
    pub(crate) fn end(&mut self) {
        drop(self.commands.take());
    }

    pub(crate) fn send(&mut self, command: &str) {
        writeln!(self.commands.as_ref().expect("it is there until the end"), "{command}").unwrap();
    }

    pub(crate) fn answer(&mut self) -> u32 {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().parse().unwrap_or_else(|_| panic!("the poller ended or answered {line:?}"))
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.end();
        let _ = self.process.wait();
    }
}

/// The poller's path; builds it first, since cargo builds a test's own package only.
fn path() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
        let output = Command::new(cargo)
            .args(["build", "--package", "ioth-test-poller", "--message-format", "json-render-diagnostics"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stderr(Stdio::inherit())
            .output()
            .expect("cargo starts");
        assert!(output.status.success(), "cargo build --package ioth-test-poller failed");
        let messages = String::from_utf8(output.stdout).unwrap();
        let executable =
            messages.lines().find_map(|line| line.split_once("\"executable\":\"")?.1.split_once('"'));
        executable.expect("cargo names the executable").0.to_owned()
    })
}
