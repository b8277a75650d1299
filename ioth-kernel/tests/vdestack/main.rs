//! What of a `vdestack` is seen outside of it: its helper process, what hosts refuse, who may have one.
//!
//! Tests run their binary again where they need a process, rights or a host of their own.

mod sys;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, IoSlice, IoSliceMut, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use ioth_core::netlink::Route;
use ioth_core::{Domain, Errno, MsgFlags, RecvMsg, SendMsg, Socket, SocketType, Stack, StackSpec};
use ioth_kernel::vdestack::Vdestack;
use ioth_vde::Schemes;
use nix::sys::signal::{SaFlags, Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

const LONG: Duration = Duration::from_secs(20);
/// Says to a test that it is the second run.
const AGAIN: &str = "IOTH_VDESTACK_TEST";

fn make(vnls: &[&str]) -> Result<Vdestack, String> {
    let vnls = vnls.iter().map(|vnl| (*vnl).to_owned()).collect();
    Vdestack::new(&StackSpec { vnls, ..StackSpec::default() }, &Schemes::builtin())
        .map_err(|error| error.to_string())
}

fn stack(vnls: &[&str]) -> Vdestack {
    make(vnls).unwrap_or_else(|error| panic!("{error}"))
}

fn udp(stack: &Vdestack) -> Arc<dyn Socket> {
    stack.socket(Domain::INET, SocketType::DGRAM, 0).unwrap()
}

/// Whether this is the second run of a test; else it is run again, by `command` before its own words.
fn is_again(name: &str, command: &[&str]) -> bool {
    if std::env::var_os(AGAIN).is_some() {
        return true;
    }
    let rights = nix::unistd::geteuid().is_root() || !command.contains(&"-m");
    assert!(rights, "it changes files in a mount namespace; needed: root");
    let run = again(name, command).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && text.contains("1 passed"), "{name} by {command:?}:\n{text}");
    false
}

fn again(name: &str, command: &[&str]) -> Command {
    let own = std::env::current_exe().expect("a test knows its own binary");
    let mut words = command.iter().map(|word| (*word).to_owned()).chain([own.display().to_string()]);
    let mut command = Command::new(words.next().expect("a word"));
    command.args(words).args(["--exact", name, "--nocapture", "--test-threads=1"]).env(AGAIN, "1");
    command
}

/// A shell in a mount namespace of its own, which runs `script` and then the test. For root.
fn with_devices(script: &str) -> Vec<&str> {
    vec!["unshare", "-m", "sh", "-c", script, "sh"]
}

/// The helpers of a process.
fn helpers(of: u32) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
        let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        if value("Name:") == Some("ioth-vdestack") && value("PPid:") == Some(&of.to_string()) {
            found.insert(pid);
        }
    }
    found
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Whether it runs: what has ended may wait for its parent to hear of it.
fn runs(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// A program that has a stack and waits. Its helper is the only one.
fn program(name: &str) -> (Child, BTreeSet<i32>, Vec<i32>) {
    let mut child = again(name, &["env"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut children = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(pids) = line.split("children:").nth(1) {
            children = pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
            break;
        }
    }
    let helpers = helpers(child.id());
    assert_eq!(helpers.len(), 1);
    (child, helpers, children)
}

/// The program's part: never returns.
fn be_program(fork: bool) -> ! {
    let _stack = stack(&["null://"]);
    let child = if fork { sys::sleeping_child().to_string() } else { String::new() };
    println!("children:{child}");
    loop {
        thread::park();
    }
}

#[test]
fn the_helper_ends_with_a_killed_program() {
    if std::env::var_os(AGAIN).is_some() {
        be_program(false);
    }
    let (mut program, helpers, _) = program("the_helper_ends_with_a_killed_program");
    program.kill().unwrap();
    program.wait().unwrap();
    until("the helper outlives its program", || !helpers.iter().any(|pid| runs(*pid)));
}

/// A forked child has the parent's descriptors.
#[test]
fn the_helper_ends_although_a_child_lives() {
    if std::env::var_os(AGAIN).is_some() {
        be_program(true);
    }
    let (mut program, helpers, children) = program("the_helper_ends_although_a_child_lives");
    program.kill().unwrap();
    program.wait().unwrap();
    until("the helper outlives its program", || !helpers.iter().any(|pid| runs(*pid)));
    for child in children {
        assert!(runs(child));
        kill(Pid::from_raw(child), Signal::SIGKILL).unwrap();
    }
}

/// execve(2) closes what the program has of it.
#[test]
fn the_helper_ends_when_another_program_is_executed() {
    if std::env::var_os(AGAIN).is_some() {
        let made = stack(&["null://"]);
        println!("children:");
        // Its parent closes standard input when it has looked.
        let _ = std::io::stdin().read(&mut [0]);
        let error = Command::new("sleep").arg("1000").exec();
        panic!("sleep: {error}, with {made:?}");
    }
    let (mut program, helpers, _) = program("the_helper_ends_when_another_program_is_executed");
    drop(program.stdin.take());
    until("the helper outlives its program", || !helpers.iter().any(|pid| runs(*pid)));
    program.kill().unwrap();
    program.wait().unwrap();
}

/// A forked child goes on with the sockets, and neither its calls nor its end disturb the parent's stack.
#[test]
fn a_forked_child_has_the_sockets_only() {
    if !is_again("a_forked_child_has_the_sockets_only", &["env"]) {
        return;
    }
    let made = stack(&["null://"]);
    let (one, two) = (udp(&made), udp(&made));
    two.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let addr = two.local_addr().unwrap();
    let mut given = Some((made, one));
    sys::in_child(|| {
        let (made, one) = given.take().unwrap();
        assert_eq!(made.socket(Domain::INET, SocketType::DGRAM, 0).err(), Some(Errno::ENODEV));
        let data = [IoSlice::new(b"child")];
        let message = SendMsg { addr: Some(&addr), ..SendMsg::new(&data) };
        assert_eq!(one.send(&message, MsgFlags::empty()), Ok(5));
        one.close().unwrap();
        assert_eq!(made.delete(), Err(Errno::ENODEV));
        drop((made, one));
    });
    let (made, one) = given.take().unwrap();
    let mut buffer = [0; 8];
    let mut data = [IoSliceMut::new(&mut buffer)];
    assert_eq!(two.recv(&mut RecvMsg::new(&mut data), MsgFlags::DONTWAIT), Ok(5));
    udp(&made);
    assert_eq!(made.delete(), Err(Errno::EBUSY));
    drop((one, two));
    assert_eq!(made.delete(), Ok(()));
    assert_eq!(helpers(std::process::id()), BTreeSet::new());
}

/// A thread that waits at the link is interrupted as one that waits in the kernel, by signal(7).
#[test]
fn a_signal_ends_a_wait_where_its_handler_says_so() {
    if !is_again("a_signal_ends_a_wait_where_its_handler_says_so", &["env"]) {
        return;
    }
    let path = std::env::temp_dir().join(format!("ioth-signal-{}", std::process::id()));
    let made = stack(&[&format!("ptp://{}", path.display())]);
    let (one, two) = (udp(&made), udp(&made));
    two.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let addr = two.local_addr().unwrap();
    let wait = || {
        let two = two.clone();
        thread::spawn(move || {
            let mut buffer = [0; 8];
            two.recv(&mut RecvMsg::new(&mut [IoSliceMut::new(&mut buffer)]), MsgFlags::empty())
        })
    };

    sys::count_signals(SaFlags::empty());
    let waiter = wait();
    until("the call goes on", || {
        sys::signal(&waiter);
        waiter.is_finished()
    });
    assert_eq!(waiter.join().unwrap(), Err(Errno::EINTR));

    let count = sys::count_signals(SaFlags::SA_RESTART);
    let waiter = wait();
    until("no handler runs", || {
        sys::signal(&waiter);
        count.load(Ordering::SeqCst) > 20
    });
    assert!(!waiter.is_finished());
    let data = [IoSlice::new(b"data")];
    assert_eq!(one.send(&SendMsg { addr: Some(&addr), ..SendMsg::new(&data) }, MsgFlags::empty()), Ok(4));
    assert_eq!(waiter.join().unwrap(), Ok(4));
}

#[test]
fn nothing_is_left_of_a_hundred() {
    if !is_again("nothing_is_left_of_a_hundred", &["env"]) {
        return;
    }
    // The reactor's descriptors stay.
    drop(stack(&["switch://hundred"]));
    let before = descriptors();
    let mut stacks: Vec<_> = (0..50).map(|_| stack(&["switch://hundred"])).collect();
    assert_eq!(helpers(std::process::id()).len(), 50);
    for _ in 0..50 {
        stacks.remove(0);
        stacks.push(stack(&["switch://hundred", "null://"]));
    }
    drop(stacks);
    assert_eq!(descriptors(), before);
    // Neither a process nor what is left of one; and wait(2) has seen none of them.
    let id = std::process::id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
    assert_eq!(children.unwrap_or_default(), "");
    assert_eq!(helpers(id), BTreeSet::new());
    assert_eq!(waitpid(None, None), Err(Errno::ECHILD));
}

#[test]
fn the_helper_keeps_to_itself() {
    if !is_again("the_helper_keeps_to_itself", &["env"]) {
        return;
    }
    let made = stack(&["null://"]);
    let helper = *helpers(std::process::id()).first().unwrap();
    assert_eq!(waitpid(None, None), Err(Errno::ECHILD), "wait(2) sees it");
    // Its two channels, and the descriptor of its maker: what it passed on it has closed.
    let held = || fs::read_dir(format!("/proc/{helper}/fd")).unwrap().count();
    assert_eq!(held(), 3);
    assert_eq!(fs::read_link(format!("/proc/{helper}/cwd")).unwrap().as_os_str(), "/");
    let stat = fs::read_to_string(format!("/proc/{helper}/stat")).unwrap();
    let group: i32 = stat.rsplit(") ").next().unwrap().split(' ').nth(2).unwrap().parse().unwrap();
    assert_eq!(group, helper);
    // Who looks in is root there, and finds its interfaces.
    let helper_id = helper.to_string();
    let inside = ["-t", &helper_id, "-U", "-n", "--preserve-credentials", "ip", "link", "set", "vde0", "up"];
    let run = Command::new("nsenter").args(inside).output();
    let run =
        run.unwrap_or_else(|error| panic!("nsenter: {error}; needed: apt-get install util-linux iproute2"));
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let route = Route::new(&made).unwrap();
    assert!(route.link(route.link_index("vde0").unwrap()).unwrap().up());
    drop(route);
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGTSTP, Signal::SIGSEGV] {
        kill(Pid::from_raw(helper), signal).unwrap();
    }
    udp(&made);
    // One that was stopped ends, too.
    kill(Pid::from_raw(helper), Signal::SIGSTOP).unwrap();
    made.delete().unwrap();
    assert!(!fs::exists(format!("/proc/{helper}")).unwrap());
}

#[test]
fn a_killed_helper_costs_new_sockets_only() {
    if !is_again("a_killed_helper_costs_new_sockets_only", &["env"]) {
        return;
    }
    let made = stack(&["null://"]);
    let route = Route::new(&made).unwrap();
    let helper = *helpers(std::process::id()).first().unwrap();
    kill(Pid::from_raw(helper), Signal::SIGKILL).unwrap();
    until("the helper lives on", || !runs(helper));
    assert_eq!(made.socket(Domain::INET, SocketType::DGRAM, 0).err(), Some(Errno::ENODEV));
    assert!(route.link_index("vde0").is_ok());
    drop(route);
    assert_eq!(made.delete(), Ok(()));
}

/// The host's own sockets are somewhere else, and so is what they are configured by.
#[test]
fn the_namespace_is_its_own() {
    let made = stack(&["null://"]);
    let cookie = |socket: Arc<dyn Socket>| {
        let fd = socket.release_fd().unwrap();
        let mut value = [0; 8];
        let got = ioth_kernel::calls::option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, &mut value);
        assert_eq!(got, Ok(8));
        u64::from_ne_bytes(value)
    };
    let host = ioth_kernel::KernelStack::new().socket(Domain::INET, SocketType::DGRAM, 0).unwrap();
    assert_ne!(cookie(udp(&made)), cookie(host));
}

/// Nobody in particular, with a device that all may open.
#[test]
fn an_ordinary_user_has_one() {
    const SCRIPT: &str = "mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200 && \
                          exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs \"$@\"";
    let name = "an_ordinary_user_has_one";
    if std::env::var_os(AGAIN).is_none() && !is_again(name, &with_devices(SCRIPT)) {
        return;
    }
    assert_eq!(nix::unistd::geteuid().as_raw(), 65534);
    let made = stack(&["null://", "eth1:null://"]);
    let route = Route::new(&made).unwrap();
    let index = route.link_index("eth1").unwrap();
    route.set_link_up(index, true).unwrap();
    route.add_address(index, "10.0.0.1/24".parse().unwrap()).unwrap();
    let low = udp(&made);
    low.bind(&std::net::SocketAddr::from(([10, 0, 0, 1], 80)).into()).unwrap();
    for (kind, protocol) in [(SocketType::RAW, libc::IPPROTO_ICMP), (SocketType::DGRAM, libc::IPPROTO_ICMP)] {
        made.socket(Domain::INET, kind, protocol).unwrap();
    }
    made.socket(Domain::PACKET, SocketType::RAW, 0).unwrap();
}

/// The message when `script` has changed the host.
fn refused(name: &str, command: &[&str], words: &[&str]) {
    if std::env::var_os(AGAIN).is_none() && !is_again(name, command) {
        return;
    }
    let error = make(&["null://"]).expect_err("it should be refused");
    for word in words {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
    // A stack that was refused leaves nothing.
    assert_eq!(helpers(std::process::id()), BTreeSet::new());
}

#[test]
fn no_user_namespaces() {
    let script = "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"";
    let command = ["unshare", "-Ur", "sh", "-c", script, "sh"];
    refused(
        "no_user_namespaces",
        &command,
        &["user namespace", "user.max_user_namespaces=0", "sysctl -w", "ENOSPC"],
    );
}

#[test]
fn no_network_namespaces() {
    let script = "echo 0 >/proc/sys/user/max_net_namespaces && exec \"$@\"";
    let command = ["unshare", "-Ur", "sh", "-c", script, "sh"];
    refused("no_network_namespaces", &command, &["network namespace", "user.max_net_namespaces=0", "ENOSPC"]);
}

#[test]
fn no_device() {
    let script = "mount -t tmpfs none /dev/net && exec \"$@\"";
    refused("no_device", &with_devices(script), &["/dev/net/tun", "modprobe tun", "--device", "ENOENT"]);
}

#[test]
fn a_device_that_is_roots() {
    let script = "mount -t tmpfs none /dev/net && mknod -m 600 /dev/net/tun c 10 200 && \
                  exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"";
    refused("a_device_that_is_roots", &with_devices(script), &["/dev/net/tun", "chmod 666", "EACCES"]);
}

#[test]
fn in_a_chroot() {
    let name = "in_a_chroot";
    // A directory that is the whole tree, but not its root.
    let script = "mount -t tmpfs none /mnt && mount --rbind / /mnt && exec chroot /mnt \"$@\"";
    refused(name, &with_devices(script), &["user namespace", "chroot", "EPERM"]);
}
