//! The kernel's stack in namespaces of its own, joined by a veth pair.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ioth::Stack;
use nix::sched::{CloneFlags, setns, unshare};

use super::program;
use super::switch::end;
use crate::node::Node;
use crate::work::Pair;

/// A network namespace without a name: it is gone with the last descriptor, thread and socket.
#[derive(Debug)]
pub(crate) struct Netns(File);

impl Netns {
    fn new() -> io::Result<Arc<Self>> {
        in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            // Connections that ended leave ports for the next round's. It is the calling thread's namespace that
            // /proc/sys/net shows.
            std::fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "1")?;
            std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1025 65535")?;
            File::open("/proc/thread-self/ns/net").map(|file| Arc::new(Netns(file)))
        })
    }

    /// Puts the calling thread into the namespace.
    pub(crate) fn enter(&self) -> io::Result<()> {
        Ok(setns(&self.0, CloneFlags::CLONE_NEWNET)?)
    }

    /// Runs ip(8) in the namespace.
    fn ip(self: &Arc<Self>, args: &str) -> Result<(), String> {
        let ip = program("ip").ok_or("apt-get install iproute2")?;
        let netns = self.clone();
        let args = args.to_owned();
        in_thread(move || {
            netns.enter()?;
            let output = Command::new(ip).args(args.split_whitespace()).stdin(Stdio::null()).output()?;
            match output.status.success() {
                true => Ok(()),
                false => {
                    let why = String::from_utf8_lossy(&output.stderr);
                    Err(io::Error::other(format!("ip {args}: {}", why.trim())))
                }
            }
        })
        .map_err(|error| error.to_string())
    }
}

/// Two namespaces with a veth pair between them; with `packets` each of them is one packet of 1500 bytes.
pub(crate) fn veth(packets: bool) -> Result<Pair, String> {
    let make = || {
        Netns::new()
            .map_err(|error| format!("a network namespace: {error} (as root, or where unshare -Urn works)"))
    };
    let (a, b) = (make()?, make()?);
    // ip(8) names the other namespace by a process in it.
    let mut anchor = {
        let b = b.clone();
        in_thread(move || {
            b.enter()?;
            Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()
        })
        .map_err(|error| format!("cat: {error}"))?
    };
    let made = a.ip(&format!("link add va type veth peer name vb netns {}", anchor.id()));
    end(&mut anchor, Duration::from_millis(500));
    made?;
    for (netns, name, addr) in [(&a, "va", "10.99.0.1/24"), (&b, "vb", "10.99.0.2/24")] {
        netns.ip(&format!("addr add {addr} dev {name}"))?;
        if packets {
            netns.ip(&format!("link set dev {name} gso_max_segs 1"))?;
        }
        netns.ip(&format!("link set dev {name} up"))?;
    }
    let addr = ([10, 99, 0, 2], 0).into();
    Ok(Pair { a: Node::Netns(a), b: Node::Netns(b), addr, seen_as: None })
}

/// A node of ours on a TAP interface of a namespace.
pub(crate) fn tap() -> Result<Pair, String> {
    let host = host()?;
    let node = {
        let host = host.clone();
        in_thread(move || {
            host.enter()?;
            Stack::new("stack=smoltcp,vnl=tap://bench,ip=10.97.0.1/24").map_err(io::Error::from)
        })
        .map_err(|error| error.to_string())?
    };
    host.ip("addr add 10.97.0.2/24 dev bench")?;
    host.ip("link set bench up")?;
    let addr = ([10, 97, 0, 2], 0).into();
    Ok(Pair { a: Node::Ours(node), b: Node::Netns(host), addr, seen_as: None })
}

/// A namespace whose TAP interface ends in slirp4netns, in another.
pub(crate) fn slirp() -> Result<Pair, String> {
    let program = program("slirp4netns").ok_or("apt-get install slirp4netns")?;
    let (host, guest) = (host()?, host()?);
    let there = format!("/proc/{}/fd/{}", std::process::id(), guest.0.as_raw_fd());
    let mut slirp = {
        let host = host.clone();
        in_thread(move || {
            host.enter()?;
            Command::new(program)
                .args(["--configure", "--mtu=65520", "--ready-fd=1", "--netns-type=path", &there, "tap0"])
                // It ends with the write end of this pipe, and so with us.
                .arg("--exit-fd=0")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
        })
        .map_err(|error| format!("slirp4netns: {error}"))?
    };
    let ready = slirp.stdout.take().map(|mut told| told.read_exact(&mut [0]));
    if !matches!(ready, Some(Ok(()))) {
        return Err("slirp4netns does not begin (it needs /dev/net/tun)".to_owned());
    }
    // Its end of the pipe is kept for as long as the bench runs.
    std::mem::forget(slirp);
    let addr = ([127, 0, 0, 1], 0).into();
    let seen_as = Some([10, 0, 2, 2].into());
    Ok(Pair { a: Node::Netns(guest), b: Node::Netns(host), addr, seen_as })
}

/// A namespace whose TAP interface ends in pasta, in another. Pasta gives it the address and the route of an interface
/// there, and makes of the router's address the loopback's.
pub(crate) fn pasta() -> Result<Pair, String> {
    let program = program("pasta").ok_or("apt-get install passt")?;
    let (host, guest) = (host()?, host()?);
    host.ip("link add outside type veth peer name beyond")?;
    host.ip("addr add 10.96.5.1/24 dev outside")?;
    host.ip("link set outside up")?;
    host.ip("link set beyond up")?;
    host.ip("route add default via 10.96.5.254")?;
    let there = format!("/proc/{}/fd/{}", std::process::id(), guest.0.as_raw_fd());
    let mut pasta = {
        let host = host.clone();
        in_thread(move || {
            host.enter()?;
            // It ends with the write end of this pipe, and so with us. By its own descriptor it finds the namespace
            // also without the rights that it gives up first. It inherits what signals we block.
            Command::new("sh")
                .args(["-c", "\"$@\" <\"$0\" & read -r _; kill -KILL $!", &there])
                .arg(program)
                .args(["--foreground", "--ipv4-only", "--config-net", "--ns-ifname=tap0", "--mtu=65520"])
                .args(["--runas=0", "--tcp-ports=none", "--udp-ports=none", "--tcp-ns=none", "--udp-ns=none"])
                .args(["--no-netns-quit", "--netns=/proc/self/fd/0"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
        })
        .map_err(|error| format!("pasta: {error}"))?
    };
    let configured = {
        let guest = guest.clone();
        in_thread(move || {
            guest.enter()?;
            let deadline = Instant::now() + Duration::from_secs(5);
            while !std::fs::read_to_string("/proc/thread-self/net/route")?.contains("tap0\t00000000\t") {
                if Instant::now() > deadline {
                    return Ok(false);
                }
                thread::sleep(Duration::from_millis(5));
            }
            Ok(true)
        })
    };
    if !matches!(configured, Ok(true)) {
        end(&mut pasta, Duration::from_millis(500));
        return Err("pasta does not begin (it needs /dev/net/tun)".to_owned());
    }
    // Its end of the pipe is kept for as long as the bench runs.
    std::mem::forget(pasta);
    let addr = ([127, 0, 0, 1], 0).into();
    let seen_as = Some([10, 96, 5, 254].into());
    Ok(Pair { a: Node::Netns(guest), b: Node::Netns(host), addr, seen_as })
}

fn host() -> Result<Arc<Netns>, String> {
    let host = Netns::new()
        .map_err(|error| format!("a network namespace: {error} (as root, or where unshare -Urn works)"))?;
    host.ip("link set lo up")?;
    Ok(host)
}

/// Seconds to make a namespace, give its loopback an address, and leave it.
pub(crate) fn create() -> io::Result<()> {
    in_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let stack = ioth::Stack::newstack("kernel", None)?;
        let lo = stack.if_nametoindex("lo")?;
        stack.linksetupdown(lo, true)?;
        stack.ipaddr_add("10.99.1.1/24".parse().map_err(io::Error::other)?, lo)?;
        Ok(stack.delete()?)
    })
}

/// Runs `f` in a thread of its own, which it may move into another namespace.
fn in_thread<T: Send + 'static>(f: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    thread::Builder::new()
        .name("netns".to_owned())
        .spawn(f)?
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
}
