//! Two kernels on a wire: the judge of what needs a right, or a link that is not the loopback interface.

#[path = "../../../ioth-core/tests/support/again.rs"]
mod again;

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::thread;

use ioth::{Domain, SocketType, Stack};
use nix::sched::{CloneFlags, setns, unshare};

use crate::fixture::{Family, Pair, until};
use crate::sys;

/// Runs a test with the rights of root in its namespaces; `name` is the test's, with its modules.
///
/// Root runs it here. An ordinary user gets the rights from `unshare -Urn`, in which the test is run again.
///
/// # Panics
/// When the test does, or such a namespace is not to be had.
pub(crate) fn privileged(name: &str, test: impl FnOnce()) {
    if nix::unistd::geteuid().is_root() {
        return test();
    }
    assert!(!again::is_inside(), "`unshare -Ur` did not make this process root");
    again::run("-Urn", name);
}

/// Two network namespaces of the kernel with a veth between them, `eth0` in each.
///
/// Needs [`privileged`].
pub(crate) fn kernel_net(family: Family) -> Pair {
    let (a, b) = (Namespace::new(), Namespace::new());
    let far = format!("/proc/{}/fd/{}", std::process::id(), b.0.as_raw_fd());
    a.run(|| ip(&format!("link add eth0 type veth peer name eth0 netns {far}")));
    let plug = |namespace: &Namespace, host: &str| {
        let addr = match family {
            Family::V4 => format!("10.9.0.{host}/24"),
            // Without duplicate address detection, which ends in another thread even where it is turned off.
            Family::V6 => format!("fd09::{host}/64 nodad"),
        };
        namespace.run(|| {
            ip(&format!("addr add dev eth0 {addr}"));
            ip("link set eth0 up");
        });
        addr.split_once('/').unwrap().0.parse().unwrap()
    };
    let (a_addr, b_addr) = (plug(&a, "1"), plug(&b, "2"));
    for namespace in [&a, &b] {
        namespace.run(carries);
    }
    let stack = || Stack::newstack("kernel", None).unwrap();
    Pair { a: stack(), b: stack(), a_addr, b_addr, native: true, namespaces: Some((a, b)), _switch: None }
}

/// Two stacks of `vdestack` on a switch in the process.
///
/// Needs [`privileged`].
pub(crate) fn vdestack_net(family: Family) -> Pair {
    let pair = crate::fixture::own_vdestack(family);
    let [a, b] = [&pair.a, &pair.b].map(|stack| {
        let namespace = Namespace::of(stack);
        namespace.run(quiet);
        namespace
    });
    Pair { namespaces: Some((a, b)), ..pair }
}

/// A network namespace without a name, which is gone with the last file, socket or thread of it.
#[derive(Debug)]
pub(crate) struct Namespace(File);

impl Namespace {
    fn new() -> Self {
        let made = thread::scope(|scope| {
            let inside = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET)
                    .unwrap_or_else(|error| panic!("a network namespace: {error}; needed: root"));
                // Duplicate address detection would keep the addresses back for a second.
                for which in ["all", "default"] {
                    set(&format!("ipv6/conf/{which}/accept_dad"), "0");
                }
                // icmp(7): who may have ping sockets.
                set("ipv4/ping_group_range", "0 0");
                quiet();
                ip("link set lo up");
                File::open("/proc/thread-self/ns/net").unwrap()
            });
            inside.join()
        });
        Namespace(made.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }

    /// That of a kernel's stack.
    fn of(stack: &Stack) -> Self {
        let socket = stack.socket(Domain::INET, SocketType::DGRAM, 0).unwrap().release_fd().unwrap();
        Namespace(sys::network_of(socket.as_fd()).unwrap().into())
    }

    /// Does something there: what it makes stays there.
    pub(crate) fn run<T>(&self, program: impl FnOnce() -> T) -> T {
        let here = File::open("/proc/thread-self/ns/net").unwrap();
        setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(program));
        setns(here, CloneFlags::CLONE_NEWNET).unwrap();
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Many refusals in a row are wanted here.
fn quiet() {
    for family in ["ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"] {
        set(family, "0");
    }
    // And the bound on all together: 50 in 20 ms. Where it is not the namespace's (before Linux 6.14) it cannot be set here.
    for (name, value) in [("icmp_msgs_burst", "1000000"), ("icmp_msgs_per_sec", "100000000")] {
        if std::path::Path::new("/proc/sys/net/ipv4").join(name).exists() {
            set(&format!("ipv4/{name}"), value);
        }
    }
}

fn set(name: &str, value: &str) {
    let file = format!("/proc/sys/net/{name}");
    std::fs::write(&file, value).unwrap_or_else(|error| panic!("{file}: {error}"));
}

/// Waits until eth0 carries frames: the kernel sees to that some time after both ends are up, and drops until then what is sent.
fn carries() {
    until(|| ip("link show dev eth0").contains("state UP"));
    // The state comes first. Who changes it has the lock that this waits for.
    ip("link set eth0 up");
}

/// What ip(8) says to these words.
fn ip(words: &str) -> String {
    let run = Command::new("ip").args(words.split(' ')).output();
    let run = run.unwrap_or_else(|error| panic!("ip: {error}; needed: apt-get install iproute2"));
    assert!(run.status.success(), "ip {words}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8_lossy(&run.stdout).into_owned()
}
