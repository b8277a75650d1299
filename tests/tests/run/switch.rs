//! Nodes of several processes on a switch of ours: `ioth switch`, and `switch://PATH`, which the server's node serves.

use nix::sys::signal::Signal;

use crate::world::{World, in_world, wait_until};

const SERVER: &str = "10.0.0.1";

/// Fetches a file from a server on one network by a client on another name of it.
fn fetch(world: &World, server: &str, client: &str) {
    std::fs::create_dir_all(world.path("www")).unwrap();
    world.noise("www/big", 3_000_000);
    let root = world.path("www").display().to_string();
    let config = |vnl: &str, end: u8| format!("stack=smoltcp,vnl={vnl},ip=10.0.0.{end}/24");
    let words = ["-u", "-m", "http.server", "--directory", &root, "80"];
    let server = world.run_on(&config(server, 1), "/usr/bin/python3").args(words).start();
    wait_until("Serving HTTP", || server.output().contains("Serving HTTP"));
    let url = format!("http://{SERVER}/big");
    for end in [2, 3] {
        let words = ["-sS", "--fail", "-o", "got", &url];
        world.run_on(&config(client, end), "curl").args(words).finish().succeeded();
        let read = |name: &str| std::fs::read(world.path(name)).unwrap();
        assert!(read("www/big") == read("got"));
    }
    server.signal(Signal::SIGTERM);
    server.finish();
    world.wait_for_nodes(0);
}

#[test]
fn nodes_on_a_switch_that_one_of_them_serves() {
    in_world(|world| {
        let path = world.path("lan").display().to_string();
        fetch(world, &format!("switch://{path}"), &format!("vde://{path}"));
        assert!(!world.path("lan").exists());
        // With frames as long as VDE has them.
        fetch(world, &format!("hub://{path}[mtu=9000]"), &format!("vde://{path}[mtu=9000]"));
    });
}

#[test]
fn nodes_on_ioth_switch() {
    in_world(|world| {
        let path = world.path("lan").display().to_string();
        let switch = world.ioth(["switch", "-n", "8", &path]).start();
        wait_until("the switch", || world.path("lan/ctl").exists());
        let vnl = format!("vde://{path}");
        fetch(world, &vnl, &vnl);
        let status = world.ioth(["switch", "--status", "--json", &path]).finish().succeeded().text();
        assert!(status.contains("\"tx_full\":0,\"tx_refused\":0"), "{status}");
        switch.signal(Signal::SIGTERM);
        assert_eq!(switch.finish().status.code(), Some(0));
        assert!(!world.path("lan").exists());
    });
}
