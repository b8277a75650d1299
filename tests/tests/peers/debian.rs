//! Debian's vde_plug with each of the schemes that it ships, with a node of ours at the other end.
//!
//! Some have tests of their own elsewhere; those of [`ELSEWHERE`] say where.

use std::collections::BTreeSet;
use std::net::{self as std_net, Ipv4Addr};
use std::process::{Command, Stdio};

use ioth::net::UdpSocket;

use crate::fixture::{KERNEL4, Kernel, NODE4, PATIENCE, Process, wait_until, with_kernel};
use crate::links::{node, they_talk, wired};
use crate::switches::{Dir, Served};

/// Schemes that are tried here.
const HERE: [&str; 7] = ["bonding", "cmd", "hub", "multi", "null", "switch", "vxlan"];
/// Others, by the test that tries them.
const ELSEWHERE: [(&str, &str); 6] = [
    ("ptp", "links::cable"),
    ("seqpacket", "links::inherited_socket"),
    ("tap", "links::udp and each other one: the kernel's end of all of them"),
    ("udp", "links::udp"),
    ("vde", "fixture::Lan, under most tests"),
    ("vxvde", "links::vxvde"),
];

/// A scheme that comes with a later version of Debian's is not left out unseen.
#[test]
fn each_scheme_that_debian_ships_is_tried() {
    let listed = Command::new("dpkg-query").args(["--listfiles", "libvdeplug2", "vdeplug"]).output();
    let listed = listed.expect("dpkg-query (part of Debian)");
    let text = String::from_utf8_lossy(&listed.stdout);
    let scheme = |line: &str| {
        let (folder, file) = line.rsplit_once('/')?;
        let name = file.strip_prefix("libvdeplug_")?.strip_suffix(".so")?;
        folder.ends_with("/vdeplug").then(|| name.to_owned())
    };
    let shipped: BTreeSet<String> = text.lines().filter_map(scheme).collect();
    assert!(!shipped.is_empty(), "{text}; needed: apt-get install vdeplug");
    let tried: BTreeSet<String> =
        HERE.into_iter().chain(ELSEWHERE.map(|(name, _)| name)).map(str::to_owned).collect();
    assert_eq!(shipped, tried, "shipped on the left, tried on the right");
}

/// Their end is a node that ours is plugged into.
fn they_serve(scheme: &str) {
    with_kernel(|kernel| {
        let dir = Dir::new(scheme);
        let path = dir.path("sw");
        let _plug = kernel.run(|| Kernel::plug(&format!("{scheme}://{path}")));
        let node = node(kernel, &format!("vde://{path}"));
        they_talk(kernel, &node);
    });
}

#[test]
fn switch() {
    they_serve("switch");
}

#[test]
fn hub() {
    they_serve("hub");
}

#[test]
fn multi() {
    they_serve("multi");
}

#[test]
fn bonding() {
    they_serve("bonding");
}

/// Their `cmd://` runs a command that leads to our node.
#[test]
fn cmd() {
    with_kernel(|kernel| {
        let dir = Dir::new("cmd");
        let path = dir.path("sw");
        let node = node(kernel, &format!("switch://{path}"));
        let _plug = kernel.run(|| Kernel::plug(&format!("cmd://vde_plug vde://{path}")));
        they_talk(kernel, &node);
    });
}

/// Where everything vanishes: a port of our switches that takes all and says nothing, and disturbs nobody.
#[test]
fn null() {
    with_kernel(|kernel| {
        let dir = Dir::new("null");
        let own = dir.path("sw");
        let served = Served::start("null-served");
        for vnl in [format!("switch://{own}"), served.vnl()] {
            let node = node(kernel, &vnl);
            let at = if vnl.starts_with("switch") { own.clone() } else { served.path.display().to_string() };
            let count = || std::fs::read_dir(&at).unwrap().count();
            let before = count();
            let null = Process::start(
                Command::new("vde_plug").args(["null://", &format!("vde://{at}")]).stdin(Stdio::null()),
                "apt-get install vdeplug",
            );
            wait_until("their port", || count() > before);
            let plug = kernel.run(|| Kernel::plug(&format!("vde://{at}")));
            they_talk(kernel, &node);
            // Nothing came from there, so that all addresses are known elsewhere; what is for everybody goes there, too.
            let socket = UdpSocket::bind_on(&node, (NODE4, 0)).unwrap();
            socket.set_broadcast(true).unwrap();
            for _ in 0..1000 {
                socket.send_to(&[0; 1000], (Ipv4Addr::new(10, 0, 0, 255), 9)).unwrap();
            }
            they_talk(kernel, &node);
            drop((plug, null));
            wait_until("the ports to be free", || count() == before);
        }
    });
}

/// Debian's `vxlan://` sends to the group alone: what it has learnt of one end it cannot send to. So broadcasts and multicasts go both ways, and
/// nothing else does.
#[test]
fn vxlan() {
    wired(|[here, there, _]| {
        let node = node(here, "vxlan://239.1.1.1/vni=42/if=wire");
        // Theirs looks for the group by the routing table.
        let _plug = there.run(|| Kernel::plug("vxlan://239.1.1.1/vni=42"));
        let everybody = (Ipv4Addr::new(10, 0, 0, 255), 4321);
        let ours = UdpSocket::bind_on(&node, ("0.0.0.0", 4321)).unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        ours.set_broadcast(true).unwrap();
        let theirs = there.run(|| std_net::UdpSocket::bind("0.0.0.0:4321").unwrap());
        theirs.set_read_timeout(Some(PATIENCE)).unwrap();
        theirs.set_broadcast(true).unwrap();
        let mut buffer = [0; 100];
        ours.send_to(b"from the node", everybody).unwrap();
        let (len, from) = theirs.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from.ip()), (&b"from the node"[..], NODE4));
        theirs.send_to(b"from the kernel", everybody).unwrap();
        loop {
            // A socket hears its own broadcasts.
            let (len, from) = ours.recv_from(&mut buffer).unwrap();
            if from.ip() == KERNEL4 {
                break assert_eq!(&buffer[..len], b"from the kernel");
            }
        }
    });
}
