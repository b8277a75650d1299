//! Debian's vdens: namespaces of its own, and a node of ours that is pinged from there over each kind of link that both know.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::fixture::{KERNEL4, KERNEL6, Kernel, NODE4, NODE6, ip, wait_until, with_kernel};
use crate::links::{node, wired};

/// vdens makes a namespace on a network there, and pings the node.
fn pings(kernel: &Kernel, theirs: &str) {
    is_answered(kernel, theirs, &format!("ping -n -q -c 1 -W 1 {NODE4} && ping -n -q -c 1 -W 1 {NODE6}"));
}

/// A program that pings, in a namespace that vdens makes on a network, is answered in the end.
fn is_answered(kernel: &Kernel, theirs: &str, ping: &str) {
    let script = format!(
        "ip addr add {KERNEL4}/24 dev vde0; ip addr add {KERNEL6}/64 dev vde0 nodad; ip link set vde0 up; \
         for i in $(seq 20); do {ping} && echo answered && exit; done; echo silent"
    );
    let mut vdens = kernel.run(|| {
        let mut vdens = Command::new("vdens");
        vdens.args([theirs, "sh", "-c", &script]).stdin(Stdio::null()).stdout(Stdio::piped());
        vdens.spawn().unwrap_or_else(|error| panic!("vdens: {error}; needed: apt-get install vdens"))
    });
    let said = BufReader::new(vdens.stdout.take().unwrap()).lines().map_while(Result::ok);
    let told: Vec<_> = said.take_while(|line| line != "silent" && line != "answered").collect();
    let answered = told.iter().rev().find(|line| line.contains("packets transmitted"));
    // It does not always notice the end of its program by itself.
    let _ = vdens.kill();
    vdens.wait().unwrap();
    assert!(answered.is_some_and(|line| line.contains(" 1 received")), "{theirs}: {told:?}");
}

/// A directory for sockets.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let place = std::env::temp_dir().join(format!("ioth-vdens-{name}-{}", std::process::id()));
        std::fs::create_dir(&place).unwrap();
        Place(place)
    }

    fn at(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn cables_and_groups() {
    with_kernel(|kernel| {
        // Over loopback, which is no place for groups before it is told.
        kernel.run(|| {
            ip("link set lo multicast on");
            ip("addr add 10.77.0.1/24 dev lo");
            ip("route add 224.0.0.0/4 dev lo");
        });
        let place = Place::new("cables");
        let cable = place.at("cable");
        for (ours, theirs) in [
            (&*format!("ptp://{cable}[old]"), &*format!("ptp://{cable}")),
            ("udp://127.0.0.1:6001->127.0.0.1:6002", "udp://127.0.0.1:6002->127.0.0.1:6001"),
            ("vxvde:///vni=9", "vxvde:///vni=9"),
        ] {
            let _node = node(kernel, ours);
            pings(kernel, theirs);
        }
    });
}

/// Debian's plug keeps the addresses of ends it has heard from without their lengths, and cannot send to them: two of its
/// own do not ping each other. What goes to the group gets through, and so do the answers.
#[test]
fn vxlan() {
    wired(|[here, there, _]| {
        let _node = node(here, "vxlan://239.1.1.1/vni=42/if=wire");
        // The first one asks the group for the node's address, which tells the node who asks.
        let ping = format!("ping -n -q -c 1 -W 1 {NODE6}; ping -n -q -c 1 -W 1 -I {KERNEL6} ff02::1%vde0");
        is_answered(there, "vxlan://239.1.1.1/vni=42", &ping);
    });
}

/// What a node of ours serves, by vdens' own link or by a command.
#[test]
fn places_that_a_node_serves() {
    with_kernel(|kernel| {
        let place = Place::new("ours");
        for scheme in ["switch", "hub", "multi", "bonding"] {
            let path = place.at(scheme);
            let _node = node(kernel, &format!("{scheme}://{path}"));
            pings(kernel, &format!("vde://{path}"));
            pings(kernel, &format!("cmd://vde_plug vde://{path}"));
        }
    });
}

/// What vdens serves, for as long as it pings.
#[test]
fn places_that_vdens_serves() {
    with_kernel(|kernel| {
        let place = Place::new("theirs");
        for scheme in ["switch", "hub", "multi", "bonding"] {
            let path = place.at(scheme);
            std::thread::scope(|scope| {
                let theirs = scope.spawn(|| pings(kernel, &format!("{scheme}://{path}")));
                let control = Path::new(&path).join("ctl");
                wait_until("vdens' socket", || control.exists());
                let _node = node(kernel, &format!("vde://{path}"));
                theirs.join().unwrap_or_else(crate::fixture::rethrow);
            });
        }
    });
}
