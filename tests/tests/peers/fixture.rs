//! A vde_switch, a kernel plugged into it, and the end of both.

#[path = "../../../ioth-core/tests/support/again.rs"]
mod again;

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ioth::Stack;
use nix::sched::{CloneFlags, setns, unshare};

/// How long one step may take; a broken test ends then.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How long a test may take.
const LONGEST: Duration = Duration::from_secs(150);

pub(crate) const NODE4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
pub(crate) const NODE6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));
pub(crate) const KERNEL4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
pub(crate) const KERNEL6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));
/// The node's and the kernel's address of each family.
pub(crate) const FAMILIES: [(IpAddr, IpAddr); 2] = [(NODE4, KERNEL4), (NODE6, KERNEL6)];

/// Runs `test`, which is the whole of a test function, with a LAN of its own.
///
/// An ordinary user gets the rights for it from `unshare -Urn`, in which the test function is run again.
///
/// # Panics
/// When the test does, or a program or a right is missing.
pub(crate) fn on_lan<F: FnOnce(&Lan)>(test: F) {
    as_root(std::any::type_name::<F>(), || test(&Lan::new()));
}

/// Runs `test`, which is the whole of a test function, with a kernel's stack of its own. As [`on_lan`].
pub(crate) fn with_kernel<F: FnOnce(&Kernel)>(test: F) {
    as_root(std::any::type_name::<F>(), || test(&Kernel::alone()));
}

fn as_root(function: &str, test: impl FnOnce()) {
    if nix::unistd::geteuid().is_root() {
        let _watch = Watch::over(function, LONGEST);
        return test();
    }
    assert!(!again::is_inside(), "`unshare -Ur` did not make this process root");
    let name = function.trim_end_matches("::{{closure}}").split_once("::").map_or(function, |(_, name)| name);
    again::run("-Urn", name);
}

/// A switch with a kernel plugged into it. The switch can be killed.
pub(crate) struct Lan {
    // Dropped in this order: the plug would complain about a switch that is gone.
    pub(crate) kernel: Kernel,
    pub(crate) switch: Switch,
}

impl Lan {
    fn new() -> Self {
        let switch = Switch::start();
        Lan { kernel: Kernel::plugged(&switch), switch }
    }

    /// A node of ours on it.
    pub(crate) fn node(&self) -> Stack {
        let vnl = self.switch.vnl();
        Stack::new(&format!("stack=smoltcp,vnl={vnl},ip={NODE4}/24,ip={NODE6}/64")).unwrap()
    }
}

/// A vde_switch in a directory of its own.
pub(crate) struct Switch {
    process: Process,
    dir: PathBuf,
}

impl Switch {
    pub(crate) fn start() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("ioth-peers-{}-{count}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let process = Process::start(
            // It stops when its standard input ends, so it does not outlive this process however that ends.
            Command::new("vde_switch").arg("-s").arg(dir.join("sw")).stdin(Stdio::piped()),
            "apt-get install vde2",
        );
        let control = dir.join("sw/ctl");
        wait_until("the switch's socket", || {
            control.metadata().is_ok_and(|meta| meta.file_type().is_socket())
        });
        Switch { process, dir }
    }

    pub(crate) fn vnl(&self) -> String {
        format!("vde://{}", self.path().display())
    }

    /// Its directory.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join("sw")
    }

    /// Ends the switch as a crash would.
    pub(crate) fn kill(&self) {
        let pid = nix::unistd::Pid::from_raw(self.process.0.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).unwrap();
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.process.stop();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A network namespace with a kernel's stack, an interface of which is plugged into a switch.
///
/// It has no name, and is gone with the last thread, process or file of it.
pub(crate) struct Kernel {
    namespace: File,
    _plug: Option<Process>,
}

impl Kernel {
    fn plugged(switch: &Switch) -> Self {
        let kernel = Kernel::alone();
        let vnl = switch.vnl();
        let plug = kernel.run(|| Kernel::plug(&vnl));
        Kernel { _plug: Some(plug), ..kernel }
    }

    /// One with nothing but its loopback interface.
    pub(crate) fn alone() -> Self {
        thread::scope(|scope| scope.spawn(Kernel::in_new_namespace).join()).unwrap_or_else(rethrow)
    }

    /// Takes the calling thread with it.
    fn in_new_namespace() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).unwrap_or_else(|error| {
            panic!("a network namespace: {error}; needed: root, or run the tests under `unshare -Urn`")
        });
        let namespace = File::open("/proc/thread-self/ns/net").unwrap();
        File::options().read(true).write(true).open("/dev/net/tun").unwrap_or_else(|error| {
            panic!(
                "/dev/net/tun: {error}; needed: modprobe tun, and for ordinary users chmod 666 /dev/net/tun"
            )
        });
        ip("link set lo up");
        Kernel { namespace, _plug: None }
    }

    /// Plugs an interface tap0 with the kernel's addresses into a network, in the calling thread's namespace, by Debian's plug.
    pub(crate) fn plug(vnl: &str) -> Process {
        let plug = Kernel::tap(vnl, "tap0");
        Kernel::address("tap0");
        plug
    }

    fn tap(vnl: &str, interface: &str) -> Process {
        let plug = Process::start(
            // The TAP is opened last: once it is there, the plug is in both.
            Command::new("vde_plug").args([vnl, &format!("tap://{interface}")]).stdin(Stdio::null()),
            "apt-get install vdeplug",
        );
        wait_until("the plug's interface", || {
            std::fs::read_to_string("/proc/thread-self/net/dev").unwrap().contains(&format!("{interface}:"))
        });
        plug
    }

    /// Gives an interface in the calling thread's namespace the kernel's addresses.
    pub(crate) fn address(interface: &str) {
        ip(&format!("addr add {KERNEL4}/24 dev {interface}"));
        ip(&format!("addr add {KERNEL6}/64 dev {interface} nodad"));
        ip(&format!("link set {interface} up"));
    }

    /// Plugs an interface "wire" with this address into a switch. (A veth pair would leave the checksums of packets within packets undone,
    /// trusting that a kernel takes them out.)
    pub(crate) fn wire(&self, switch: &Switch, address: &str) -> Process {
        self.run(|| {
            let plug = Kernel::tap(&switch.vnl(), "wire");
            ip(&format!("addr add {address} dev wire"));
            ip("link set wire up");
            ip("route add 224.0.0.0/4 dev wire");
            plug
        })
    }

    /// Starts a thread there.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        program: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let namespace = self.namespace.try_clone().unwrap();
        thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            program()
        })
    }

    /// Does something there.
    pub(crate) fn run<T: Send>(&self, program: impl FnOnce() -> T + Send) -> T {
        let namespace = &self.namespace;
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                program()
            });
            inside.join()
        })
        .unwrap_or_else(rethrow)
    }
}

impl Kernel {
    /// Starts a program there, which ends with its holder.
    pub(crate) fn start(&self, command: &mut Command, supply: &str) -> Process {
        self.run(|| Process::start(command, supply))
    }
}

/// Runs ip(8) with these words.
pub(crate) fn ip(words: &str) {
    command("ip", words, "apt-get install iproute2");
}

/// Runs a program with these words, which has to succeed: what it said.
pub(crate) fn command(program: &str, words: &str, supply: &str) -> String {
    let run = Command::new(program).args(words.split(' ')).output();
    let run = run.unwrap_or_else(|error| panic!("{program}: {error}; needed: {supply}"));
    let text = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{program} {words}: {text}");
    text.into_owned()
}

/// A child process that ends with its holder.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(command: &mut Command, supply: &str) -> Self {
        let program = command.get_program().to_owned();
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Process(child.unwrap_or_else(|error| panic!("{program:?}: {error}; needed: {supply}")))
    }

    fn stop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Ends the process when it is not dropped in time: a test that hangs would say nothing.
pub(crate) struct Watch {
    _end: mpsc::Sender<()>,
}

impl Watch {
    pub(crate) fn over(what: &str, longest: Duration) -> Self {
        let (end, ended) = mpsc::channel::<()>();
        let what = what.to_owned();
        thread::spawn(move || {
            if ended.recv_timeout(longest) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("{what} hangs: not finished after {longest:?}");
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

/// Goes on with the panic of a thread.
pub(crate) fn rethrow<T>(panic: Box<dyn std::any::Any + Send>) -> T {
    std::panic::resume_unwind(panic)
}
