//! The built library, and programs compiled in C that are run with it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::node::Node;
use crate::place::Place;

/// Longer than any C program of the tests takes on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(60);

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The library, built as the tests are: cargo builds no shared library for the tests of its own package.
pub(crate) fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let place = Place::of_this_test();
        place.build(&["--package", "ioth-preload", "--lib"]);
        place.dir.join("libioth_preload.so")
    })
}

/// A program of `tests/c`, compiled.
pub(crate) fn program(name: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("preload-{name}"));
    // Several tests of one program may compile it at once, in threads or in processes.
    let new = program.with_extension(format!("{}-{:?}", std::process::id(), std::thread::current().id()));
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-D_FORTIFY_SOURCE=2", "-pthread"]);
    gcc.arg(here().join(format!("tests/c/{name}.c"))).arg("-o").arg(&new);
    let output = gcc.output().unwrap_or_else(|error| panic!("gcc: {error} (apt-get install gcc libc6-dev)"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::rename(&new, &program).expect("the program's directory");
    program
}

/// Runs a program on a node, or on none, to its good end: what it has printed.
pub(crate) fn run(node: Option<&Node>, program: &Path, args: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(args).env("LD_PRELOAD", library()).env_remove("IOTH_NODE");
    if let Some(node) = node {
        command.env("IOTH_NODE", node.environment());
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (mut stdout, mut stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    std::thread::scope(|scope| {
        let read = |pipe: &mut dyn Read| {
            let mut text = String::new();
            let _ = pipe.read_to_string(&mut text);
            text
        };
        let (text, errors) = (scope.spawn(move || read(&mut stdout)), scope.spawn(move || read(&mut stderr)));
        let end = Instant::now() + PATIENCE;
        let status = loop {
            match child.try_wait().expect("a child of ours") {
                Some(status) => break status,
                None if Instant::now() > end => {
                    let _ = child.kill();
                    break child.wait().expect("a child of ours");
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let (text, errors) = (text.join().expect("a reader"), errors.join().expect("a reader"));
        assert!(status.success(), "{command:?}: {status}\n{text}{errors}");
        text
    })
}
