//! Kernels on switches of ours.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use ioth::Stack;
use ioth::net::TcpListener;
use ioth::vde::node::{Config, Node};

use crate::fixture::{FAMILIES, KERNEL4, Kernel, NODE4, NODE6, command, ip, on_lan, wait_until, with_kernel};

/// A switch of ours with a thread of its own.
pub(crate) struct Served {
    pub(crate) path: PathBuf,
    _dir: Dir,
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

/// A directory of a test's own.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("ioth-peers-{name}-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        Dir(dir)
    }
}

impl Dir {
    /// A path in it, as text.
    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Served {
    pub(crate) fn start(name: &str) -> Self {
        Served::with(name, |_| ())
    }

    /// One that is made ready first.
    fn with(name: &str, prepare: impl FnOnce(&mut Node)) -> Self {
        let dir = Dir::new(name);
        let mut node = Node::open(Config::new(dir.0.join("sw"))).unwrap();
        prepare(&mut node);
        let path = node.path().to_owned();
        let (stop, stopped) = UnixStream::pair().unwrap();
        let serve = move || node.serve(std::os::fd::AsFd::as_fd(&stopped)).unwrap();
        Served { path, _dir: dir, stop: Some(stop), thread: Some(std::thread::spawn(serve)) }
    }

    pub(crate) fn vnl(&self) -> String {
        format!("vde://{}", self.path.display())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The kernel pings a node of ours and fetches some data from it.
fn ping_and_fetch(kernel: &Kernel, node: &Stack) {
    for (at, _) in FAMILIES {
        let words = format!("-n -c 5 -i 0.05 -W 5 {at}");
        let said = kernel.run(|| command("ping", &words, "apt-get install iputils-ping"));
        assert!(said.contains("5 received, 0% packet loss"), "{said}");
    }
    let data: Vec<u8> = (0..2_000_000_u32).map(|number| (number.wrapping_mul(number) >> 8) as u8).collect();
    let listener = TcpListener::bind_on(node, (NODE4, 7)).unwrap();
    let sent = data.clone();
    let server = std::thread::spawn(move || listener.accept().unwrap().0.write_all(&sent).unwrap());
    let received = kernel.run(|| {
        let mut received = Vec::new();
        std::net::TcpStream::connect((NODE4, 7)).unwrap().read_to_end(&mut received).unwrap();
        received
    });
    server.join().unwrap();
    assert!(received == data);
}

#[test]
fn a_kernel_and_a_node_on_a_switch_of_ours() {
    on_lan(|_| {
        let served = Served::start("served");
        let vnl = served.vnl();
        let kernel = Kernel::alone();
        let _plug = kernel.run(|| Kernel::plug(&vnl));
        let node = Stack::new(&format!("stack=smoltcp,vnl={vnl},ip={NODE4}/24,ip={NODE6}/64")).unwrap();
        ping_and_fetch(&kernel, &node);
    });
}

#[test]
fn a_switch_of_ours_that_the_kernel_is_plugged_into_by_tap() {
    with_kernel(|kernel| {
        let served = kernel.run(|| {
            Served::with("tap", |node| {
                node.tap("tap5").unwrap();
                let error = node.tap("no/name").unwrap_err();
                assert!(error.to_string().contains("interface name \"no/name\""), "{error}");
                let error = node.tap("lo").unwrap_err();
                assert!(error.to_string().contains("no TAP"), "{error}");
                let shown = node.command("port/print").unwrap();
                assert!(shown.contains(" module tuntap      : tap5\n"), "{shown}");
                assert!(node.command("status/json").unwrap().contains("\"tap\":true"));
            })
        });
        let vnl = served.vnl();
        let node = Stack::new(&format!("stack=smoltcp,vnl={vnl},ip={NODE4}/24,ip={NODE6}/64")).unwrap();
        // Down, it takes nothing; up, it does.
        kernel.run(|| Kernel::address("tap5"));
        ping_and_fetch(kernel, &node);
        // A frame that VDE has no room for is cut by nobody.
        kernel.run(|| ip("link set tap5 mtu 9300"));
        let words = format!("-n -q -c 1 -W 1 -M do -s 9250 {NODE4}");
        let ping = kernel.run(|| Command::new("ping").args(words.split(' ')).output().unwrap());
        assert!(!ping.status.success());
        kernel.run(|| ip("link set tap5 mtu 1500"));
        ping_and_fetch(kernel, &node);
        // Deleted, it is gone from the switch, which goes on.
        kernel.run(|| ip("link del tap5"));
        let _plug = kernel.run(|| Kernel::plug(&vnl));
        ping_and_fetch(kernel, &node);
    });
}

/// The programs of Debian's vde2, which speak the older form of the protocol's request.
#[test]
fn a_kernel_by_vde_plug2tap() {
    with_kernel(|kernel| {
        let dir = Dir::new("plug2tap");
        let served = Served::start("plug2tap-served");
        let path = dir.0.join("sw");
        for (switch, vnl) in
            [(served.path.clone(), served.vnl()), (path.clone(), format!("switch://{}", path.display()))]
        {
            let node = kernel
                .run(|| Stack::new(&format!("stack=smoltcp,vnl={vnl},ip={NODE4}/24,ip={NODE6}/64")).unwrap());
            let _plug = kernel.start(
                Command::new("vde_plug2tap").arg("-s").arg(&switch).arg("tap0").stdin(Stdio::null()),
                "apt-get install vde2",
            );
            kernel.run(|| {
                wait_until("tap0", || {
                    std::fs::read_to_string("/proc/thread-self/net/dev").unwrap().contains("tap0:")
                });
                Kernel::address("tap0");
            });
            ping_and_fetch(kernel, &node);
        }
    });
}

#[test]
fn a_kernel_on_the_switch_that_a_node_serves() {
    on_lan(|_| {
        let dir = Dir::new("host");
        let path = dir.0.join("sw").display().to_string();
        let config = format!("stack=smoltcp,vnl=switch://{path},ip={NODE4}/24,ip={NODE6}/64");
        let node = Stack::new(&config).unwrap();
        let kernel = Kernel::alone();
        let _plug = kernel.run(|| Kernel::plug(&format!("vde://{path}")));
        ping_and_fetch(&kernel, &node);
        drop(node);
    });
}

/// Debian's vdens makes a namespace, and plugs it in.
#[test]
fn namespaces_of_vdens_ping_each_other() {
    on_lan(|_| {
        let served = Served::start("vdens");
        let kernel = Kernel::alone();
        let _plug = kernel.run(|| Kernel::plug(&served.vnl()));
        let script = format!(
            "ip addr add 10.0.0.9/24 dev vde0 && ip link set vde0 up && ping -n -c 3 -i 0.1 -W 5 {KERNEL4}"
        );
        let run = kernel.run(|| {
            Command::new("vdens").arg(served.vnl()).args(["sh", "-c", &script]).stdin(Stdio::null()).output()
        });
        let run = run.expect("vdens (supply it by: apt-get install vdens)");
        let said = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
        assert!(said.contains("3 received, 0% packet loss"), "{said}");
        wait_until("vdens' port to be free", || std::fs::read_dir(&served.path).unwrap().count() == 2);
    });
}
