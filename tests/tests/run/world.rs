//! Where programs run: a network namespace, a directory, a guard, and the end of it all.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use ioth_tests::guard::Guard;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use crate::place::Place;

/// How long one step may take; a broken test ends then. Longer than anything takes on a machine that has other things to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long a test may take.
const LONGEST: Duration = Duration::from_secs(300);

/// Runs `test`, which is the whole of a test function, in a world of its own.
///
/// An ordinary user gets the namespace from `unshare -Ucn`, in which the test function is run again.
///
/// # Panics
/// When the test does; when the host's network was asked for; when processes are left; when a program or right is missing.
pub(crate) fn in_world<F: FnOnce(&World) + Send>(test: F) {
    const INSIDE: &str = "IOTH_TEST_WORLD";
    let function = std::any::type_name::<F>();
    // Outside: cargo is none of the programs that are looked at, and takes its time.
    built();
    let _watch = Watch::over(function, LONGEST);
    if geteuid().is_root() || std::env::var_os(INSIDE).is_some() {
        let separate = std::env::var_os(INSIDE).is_none();
        return thread::scope(|scope| {
            let world = scope.spawn(|| {
                if separate {
                    leave_namespaces();
                }
                let mut world = World::new();
                test(&world);
                world.end();
            });
            world.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
    }
    let name = function.trim_end_matches("::{{closure}}").split_once("::").map_or(function, |(_, name)| name);
    let run = Command::new("unshare")
        .args(["--user", "--map-current-user", "--net"])
        .arg(std::env::current_exe().expect("a test knows its own binary"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap_or_else(|error| panic!("unshare: {error}; needed: apt-get install util-linux"));
    let text = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
    assert!(
        run.status.success() && text.contains("1 passed"),
        "in `unshare --user --net` (needs root, or sysctl kernel.unprivileged_userns_clone=1):\n{text}"
    );
}

/// Takes the calling thread to a network whose lo is down, a /run that nobody else sees, for daemons write there, and a name of
/// the machine that may be changed, as one of CPython's tests does.
fn leave_namespaces() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)
        .unwrap_or_else(|error| panic!("namespaces: {error}; a container needs: docker run --privileged"));
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("mounts of our own");
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .expect("a /run of our own");
}

/// A test's surroundings.
pub(crate) struct World {
    dir: PathBuf,
    guard: Guard,
    network: PathBuf,
    ended: bool,
}

impl World {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("ioth-run-{}-{count}", std::process::id()));
        // sshd(8) wants it so, and servers that give up root have to find their files.
        std::fs::DirBuilder::new().mode(0o755).create(&dir).unwrap();
        std::fs::DirBuilder::new().mode(0o700).create(dir.join("runtime")).unwrap();
        let network = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        World { dir, guard: Guard::default(), network, ended: false }
    }

    /// A path in the test's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes a file into the test's directory.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Writes a file of `len` bytes without a pattern.
    pub(crate) fn noise(&self, name: &str, len: usize) -> PathBuf {
        let mut bytes = vec![0; len];
        // Knuth's MMIX generator, of which the upper bits are good.
        let mut state = 1u64;
        for chunk in bytes.chunks_mut(4) {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            chunk.copy_from_slice(&state.to_be_bytes()[..chunk.len()]);
        }
        self.file(name, bytes)
    }

    /// `ioth`, with these words.
    pub(crate) fn ioth<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Run<'_> {
        let mut run = self.plain(&built().ioth);
        run.command.args(words);
        run
    }

    /// `ioth run` of a program on a node with this configuration.
    pub(crate) fn run_on(&self, config: &str, program: &str) -> Run<'_> {
        self.ioth(["run", "--stack", config, "--", program])
    }

    /// A program as it is, in the same surroundings.
    pub(crate) fn plain(&self, program: impl AsRef<OsStr>) -> Run<'_> {
        let mut command = Command::new(program.as_ref());
        command
            .env_remove("LD_PRELOAD")
            .env_remove("IOTH_NODE")
            .env("IOTH_PRELOAD", &built().preload)
            .env("XDG_RUNTIME_DIR", self.path("runtime"))
            .env("LC_ALL", "C")
            .current_dir(&self.dir);
        Run { world: self, command, input: None }
    }

    /// Debian's vde_switch: its VNL, and the switch, which ends when it is dropped.
    pub(crate) fn switch(&self) -> (String, Daemon) {
        let path = self.path("switch");
        let mut command = Command::new("vde_switch");
        // It stops when its standard input ends, so it does not outlive this process however that ends.
        command.arg("-s").arg(&path).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("vde_switch: {error}; needed: apt-get install vde2"));
        let control = path.join("ctl");
        wait_until("the switch's socket", || {
            control.metadata().is_ok_and(|meta| meta.file_type().is_socket())
        });
        (format!("vde://{}", path.display()), Daemon(child))
    }

    /// Waits until there is no node process any more.
    pub(crate) fn wait_for_nodes(&self, count: usize) {
        let nodes = || self.processes().into_iter().filter(|(_, name)| name == "ioth-node").count();
        wait_until(&format!("{count} node processes, but {} ({})", nodes(), self.tell_processes()), || {
            nodes() == count
        });
    }

    /// The living processes of this world but this one: numbers and names.
    pub(crate) fn processes(&self) -> BTreeSet<(i32, String)> {
        let own = std::process::id() as i32;
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        numbers
            .filter(|pid| *pid != own)
            .filter_map(|pid| self.process(pid).map(|name| (pid, name)))
            .collect()
    }

    /// A living process's name, if it is one of this world. What waits for its parent is not alive.
    fn process(&self, pid: i32) -> Option<String> {
        let network = std::fs::read_link(format!("/proc/{pid}/ns/net")).ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (name, state) = stat.split_once('(')?.1.rsplit_once(')')?;
        (network == self.network && !state.starts_with(" Z")).then(|| name.to_owned())
    }

    fn tell_processes(&self) -> String {
        let told = self.processes().into_iter().map(|(pid, name)| {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            format!("{pid} {name}: {}", line.replace('\0', " ").trim_end())
        });
        told.collect::<Vec<_>>().join(", ")
    }

    /// Nobody is left, and nobody asked for the host's network.
    fn end(&mut self) {
        self.ended = true;
        let deadline = Instant::now() + PATIENCE;
        while !self.processes().is_empty() {
            assert!(Instant::now() < deadline, "left behind: {}", self.tell_processes());
            thread::sleep(Duration::from_millis(5));
        }
        let attempts: Vec<_> = self.guard.attempts().iter().map(ToString::to_string).collect();
        assert!(attempts.is_empty(), "the host's network: {}", attempts.join(", "));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !self.ended || thread::panicking() {
            eprintln!("processes at the end: {}", self.tell_processes());
            for attempt in self.guard.attempts() {
                eprintln!("the host's network: {attempt}");
            }
            // Where daemons tell their troubles.
            eprintln!("log:\n{}", std::fs::read_to_string(self.path("log")).unwrap_or_default());
            for (pid, _) in self.processes() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A program that is about to run.
pub(crate) struct Run<'a> {
    world: &'a World,
    command: Command,
    input: Option<PathBuf>,
}

/// What a program came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    told: String,
}

impl Outcome {
    /// Standard output as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Checks that it went well.
    pub(crate) fn succeeded(self) -> Self {
        assert!(self.status.success(), "{}", self.told);
        self
    }
}

impl Run<'_> {
    pub(crate) fn arg(self, word: impl AsRef<OsStr>) -> Self {
        self.args([word])
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.command.args(words);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Where it runs, if not in the test's directory.
    pub(crate) fn at(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// A file for standard input.
    pub(crate) fn input(mut self, path: &Path) -> Self {
        self.input = Some(path.to_owned());
        self
    }

    /// Starts it, in the background; standard output and error are kept in files, which a daemon may keep open.
    pub(crate) fn start(mut self) -> Started {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let told = ["out", "err"].map(|stream| self.world.path(&format!("{stream}-{count}")));
        let [stdout, stderr] = [0, 1].map(|at| File::create(&told[at]).unwrap());
        let stdin = match &self.input {
            Some(path) => File::open(path).unwrap().into(),
            None => Stdio::null(),
        };
        self.command.stdin(stdin).stdout(stdout).stderr(stderr);
        let child = self.world.guard.spawn(&mut self.command).unwrap_or_else(|error| {
            panic!(
                "{:?}: {error}; needed: ./test.sh installs the tests' programs",
                self.command.get_program()
            )
        });
        Started { child, what: format!("{:?}", self.command), told }
    }

    /// Runs it to its end.
    pub(crate) fn finish(self) -> Outcome {
        self.start().finish()
    }

    /// Runs it to its end with pipes for its output, and reads these to their ends: who keeps them open is waited for.
    pub(crate) fn finish_and_read_to_the_end(mut self) -> Outcome {
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let what = format!("{:?}", self.command);
        let mut child = self.world.guard.spawn(&mut self.command).unwrap();
        let mut read = [Vec::new(), Vec::new()];
        let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let watch = Watch::over(&what, PATIENCE);
        out.read_to_end(&mut read[0]).unwrap();
        err.read_to_end(&mut read[1]).unwrap();
        let status = child.wait().unwrap();
        drop(watch);
        let [stdout, stderr] = read;
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        Outcome { status, stdout, told: format!("{what}: {status}\n{stderr}"), stderr }
    }
}

/// A program that runs.
pub(crate) struct Started {
    child: Child,
    what: String,
    told: [PathBuf; 2],
}

impl Started {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// What it wrote up to now, to standard output and then to standard error.
    pub(crate) fn said(&self) -> String {
        self.output() + &String::from_utf8_lossy(&std::fs::read(&self.told[1]).unwrap())
    }

    /// What it wrote to standard output up to now.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.told[0]).unwrap()).into_owned()
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
                None => {
                    let _ = self.child.kill();
                    let _ = self.child.wait();
                    let stderr = std::fs::read(&self.told[1]).unwrap_or_default();
                    panic!(
                        "{} does not end; it said: {}{}",
                        self.what,
                        self.output(),
                        String::from_utf8_lossy(&stderr)
                    );
                }
            }
        };
        let stdout = std::fs::read(&self.told[0]).unwrap();
        let stderr = String::from_utf8_lossy(&std::fs::read(&self.told[1]).unwrap()).into_owned();
        let begin = String::from_utf8_lossy(&stdout[..stdout.len().min(2000)]).into_owned();
        let told = format!("{}: {status}\n{begin}\n{stderr}", self.what);
        Outcome { status, stdout, stderr, told }
    }
}

/// A child process that ends with its holder.
pub(crate) struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Ends the process when it is not dropped in time: a test that hangs would say nothing.
struct Watch {
    _end: mpsc::Sender<()>,
}

impl Watch {
    fn over(what: &str, longest: Duration) -> Self {
        let (end, ended) = mpsc::channel::<()>();
        let what = what.to_owned();
        thread::spawn(move || {
            if ended.recv_timeout(longest) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = writeln!(std::io::stderr(), "{what} hangs: not finished after {longest:?}");
                std::process::abort();
            }
        });
        Watch { _end: end }
    }
}

pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "no {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// The ids of tests that are in a file, without comments and empty lines.
pub(crate) fn ids(file: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

/// What cargo built.
pub(crate) struct Built {
    pub(crate) ioth: PathBuf,
    pub(crate) preload: PathBuf,
}

/// The command and its library, built as the tests are: cargo builds neither for the tests of another package.
pub(crate) fn built() -> &'static Built {
    static BUILT: OnceLock<Built> = OnceLock::new();
    BUILT.get_or_init(|| {
        let place = Place::of_this_test();
        place.build(&["--package", "ioth-cli", "--package", "ioth-preload"]);
        Built { ioth: place.dir.join("ioth"), preload: place.dir.join("libioth_preload.so") }
    })
}
