//! The built library, the C compiler, and a switch.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::place::Place;

/// Longer than any C program of the tests takes on a machine that has other things to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The crate's directory.
pub(crate) fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The built libraries.
#[derive(Debug)]
pub(crate) struct Library {
    pub(crate) shared: PathBuf,
    pub(crate) fixed: PathBuf,
}

/// The library, built as the tests are: cargo builds no shared library for the tests of its own package.
pub(crate) fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let place = Place::of_this_test();
        place.build(&["--package", "ioth-capi", "--lib"]);
        Library { shared: place.dir.join("libioth_c.so"), fixed: place.dir.join("libioth_c.a") }
    })
}

/// An empty directory of this name.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("capi {name}"));
    match std::fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{}: {error}", dir.display()),
        _ => std::fs::create_dir_all(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())),
    }
    dir
}

/// How a program is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Shared,
    Static,
}

/// Compiles a C program against the headers and links it with the library.
pub(crate) fn compile(source: &Path, dir: &Path, link: Link) -> PathBuf {
    compile_with(source, dir, link, &[])
}

/// [`compile`] with arguments of the program's own.
pub(crate) fn compile_with(source: &Path, dir: &Path, link: Link, arguments: &[&str]) -> PathBuf {
    let program = dir.join(source.file_stem().expect("a source file's name"));
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-I"]).arg(here().join("include"));
    gcc.args(arguments).arg(source).arg("-o").arg(&program);
    match link {
        Link::Shared => {
            for name in ["libioth.so.0", "libioth.so"] {
                symlink(&library().shared, &dir.join(name));
            }
            gcc.arg("-L").arg(dir).arg("-lioth");
        }
        Link::Static => {
            gcc.arg(&library().fixed).args(STATIC_LIBS);
        }
    }
    succeeds(&mut gcc);
    program
}

/// What Rust's standard library needs of the system (`rustc --print native-static-libs`).
const STATIC_LIBS: [&str; 6] = ["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl"];

pub(crate) fn symlink(to: &Path, from: &Path) {
    let _ = std::fs::remove_file(from);
    std::os::unix::fs::symlink(to, from).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
}

/// Runs a compiled program, which finds the shared library beside itself.
pub(crate) fn run(program: &Path, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
    let mut command = Command::new(program);
    command.args(args).env("LD_LIBRARY_PATH", program.parent().expect("a program is in a directory"));
    let output = succeeds(&mut command);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command to its end, which must be a good one.
pub(crate) fn succeeds(command: &mut Command) -> Output {
    let output = finish(command);
    if !output.status.success() {
        let mut text = format!("{command:?}: {}\n", output.status);
        for part in [&output.stdout, &output.stderr] {
            // Cargo's messages for machines are of no use to a reader.
            let lines = String::from_utf8_lossy(part);
            lines.lines().filter(|line| !line.starts_with('{')).for_each(|line| {
                let _ = writeln!(text, "{line}");
            });
        }
        panic!("{text}");
    }
    output
}

/// Runs a command to its end, and ends it when it takes too long. Cargo and make may take their time.
fn finish(command: &mut Command) -> Output {
    let slow = ["cargo", "make"]
        .map(OsStr::new)
        .contains(&Path::new(command.get_program()).file_stem().unwrap_or_default());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| {
        panic!("{command:?}: {error} (apt-get install gcc libc6-dev binutils make pkg-config)")
    });
    let (mut stdout, mut stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let read = |pipe: &mut dyn Read| {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("a child's output");
        bytes
    };
    std::thread::scope(|scope| {
        let errors = scope.spawn(|| read(&mut stderr));
        let text = scope.spawn(|| read(&mut stdout));
        let status = wait(&mut child, if slow { 10 * PATIENCE } else { PATIENCE });
        let join =
            |thread: std::thread::ScopedJoinHandle<'_, Vec<u8>>| thread.join().expect("a reading thread");
        Output { status, stdout: join(text), stderr: join(errors) }
    })
}

/// Waits for a child's end; kills it when it does not come.
pub(crate) fn wait(child: &mut Child, patience: Duration) -> std::process::ExitStatus {
    let end = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            return status;
        }
        if Instant::now() > end {
            let _ = child.kill();
            return child.wait().expect("a child of ours");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Debian's vde_switch, until dropped.
pub(crate) struct Switch {
    child: Child,
    path: PathBuf,
}

impl Switch {
    /// Starts one whose ports are at `path`.
    pub(crate) fn start(path: &Path) -> Self {
        // Without -d it ends when its input does: the pipe is kept.
        let mut command = Command::new("vde_switch");
        command.arg("-s").arg(path).stdin(Stdio::piped()).stdout(Stdio::null());
        let child =
            command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error} (apt-get install vde2)"));
        let switch = Switch { child, path: path.to_owned() };
        let end = Instant::now() + PATIENCE;
        while !path.join("ctl").exists() {
            assert!(Instant::now() < end, "vde_switch did not begin");
            std::thread::sleep(Duration::from_millis(5));
        }
        switch
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
