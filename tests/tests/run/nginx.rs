//! nginx as a daemon with two workers, and curl.

use std::collections::BTreeSet;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{Run, World, in_world, wait_until};

const BIG: usize = 20_000_000;

/// Writes what nginx serves, and its configuration.
fn prepare(world: &World) {
    std::fs::create_dir(world.path("www")).unwrap();
    std::fs::create_dir(world.path("temp")).unwrap();
    world.file("www/small", "a few bytes\n");
    world.noise("www/big", BIG);
    let dir = world.path("");
    let dir = dir.display();
    let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
    let temps: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("{name}_temp_path {dir}/temp/{name}; "))
        .collect();
    world.file(
        "nginx.conf",
        format!(
            "daemon on; worker_processes 2; pid {dir}/pid; error_log {dir}/log info; {user}\n\
             env LD_PRELOAD; env IOTH_NODE;\n\
             events {{ worker_connections 256; }}\n\
             http {{\n\
             log_format workers '$pid $connection $server_port $status $body_bytes_sent $remote_addr $args';\n\
             access_log {dir}/access workers; sendfile on; keepalive_timeout 60; {temps}\n\
             server {{ listen 80; listen [::]:80; root {dir}/www; }}\n\
             server {{ listen 8080 reuseport; root {dir}/www; }}\n\
             }}\n"
        ),
    );
}

/// nginx's command line, as a plain program or under `ioth run`.
fn nginx<'a>(run: Run<'a>, world: &World) -> Run<'a> {
    let (config, log) = (world.path("nginx.conf"), world.path("log"));
    run.args([Path::new("-c"), &config, Path::new("-e"), &log])
}

fn master(world: &World) -> Pid {
    process(world, "pid").expect("nginx's pid file")
}

fn process(world: &World, file: &str) -> Option<Pid> {
    std::fs::read_to_string(world.path(file)).ok()?.trim().parse().ok().map(Pid::from_raw)
}

/// Lines of the access log whose query begins so: worker, connection, port, status, bytes, who asked, and the query. nginx writes
/// them when a request is over, which its client may know before.
fn access(world: &World, query: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(world.path("access")).unwrap_or_default();
    let lines = text.lines().map(|line| line.split(' ').map(str::to_owned).collect());
    lines.filter(|line: &Vec<String>| line.len() == 7 && line[6].starts_with(query)).collect()
}

/// What `curl` on another or the same node gets, the server being at `at`.
fn fetch_all<'a>(world: &World, at: &str, client: &str, curl: impl Fn() -> Run<'a>) {
    let get = |path: &str| {
        let got = curl().args(["-sS", "--fail", &format!("http://{at}{path}")]).finish().succeeded();
        got.stdout
    };
    assert_eq!(get("/small"), b"a few bytes\n");
    let big = std::fs::read(world.path("www/big")).unwrap();
    assert!(get("/big") == big, "the big file has changed on its way");
    assert!(curl().args(["-sS", "--fail", &format!("http://{at}/none")]).finish().status.code() == Some(22));

    // 50 requests on one connection, which stays.
    let urls = format!("http://{at}/small?kept-[1-50]");
    let got = curl().args(["-sS", "--fail", "-w", "%{num_connects}\n", "-o", "/dev/null", &urls]).finish();
    let connects: Vec<_> = got.succeeded().text().lines().map(str::to_owned).collect();
    assert_eq!(connects.len(), 50);
    assert_eq!(connects.iter().filter(|count| *count != "0").count(), 1, "{connects:?}");
    wait_until("50 lines in the log", || access(world, "kept").len() == 50);
    let lines = access(world, "kept");
    assert!(
        lines.iter().all(|line| line[1] == lines[0][1] && line[3] == "200" && line[5] == client),
        "{lines:?}"
    );

    // 50 connections, by whose addresses they are shared out.
    let urls = format!("http://{at}:8080/small?each-[1-50]");
    let header = ["-H", "Connection: close"];
    curl().args(["-sS", "--fail", "-o", "/dev/null"]).args(header).arg(&urls).finish().succeeded();
    wait_until("50 lines in the log", || access(world, "each").len() == 50);
    let lines = access(world, "each");
    let workers: BTreeSet<_> = lines.iter().map(|line| &line[0]).collect();
    assert_eq!(workers.len(), 2, "{lines:?}");
}

/// `nginx -s reload` while a connection is open, and `nginx -s quit`.
fn reload_and_quit<'a>(world: &World, at: &str, control: impl Fn() -> Run<'a>, curl: impl Fn() -> Run<'a>) {
    let master = master(world).as_raw();
    let workers = || -> BTreeSet<i32> {
        let all = world.processes().into_iter().filter(|(_, name)| name == "nginx");
        all.map(|(pid, _)| pid).filter(|pid| *pid != master).collect()
    };
    let old = workers();
    assert_eq!(old.len(), 2);
    nginx(control(), world).args(["-s", "reload"]).finish().succeeded();
    wait_until("new workers", || workers().len() == 2 && workers().is_disjoint(&old));
    let got = curl().args(["-sS", "--fail", &format!("http://{at}/small")]).finish().succeeded();
    assert_eq!(got.text(), "a few bytes\n");

    nginx(control(), world).args(["-s", "quit"]).finish().succeeded();
    wait_until("end of nginx", || !world.processes().iter().any(|(_, name)| name == "nginx"));
}

#[test]
fn a_daemon_with_workers_serves_its_own_node() {
    in_world(|world| {
        prepare(world);
        let on_node = |program: &str| world.ioth(["run", "--node", "web", "--", program]);
        world.ioth(["node", "web"]).finish().succeeded();
        nginx(on_node("nginx"), world).finish().succeeded();
        fetch_all(world, "127.0.0.1", "127.0.0.1", || on_node("curl"));
        let got = on_node("curl").args(["-sS", "--fail", "http://[::1]/small"]).finish().succeeded();
        assert_eq!(got.text(), "a few bytes\n");
        reload_and_quit(world, "127.0.0.1", || on_node("nginx"), || on_node("curl"));
        world.wait_for_nodes(1);
        world.ioth(["node", "--stop", "web"]).finish().succeeded();
        world.wait_for_nodes(0);
    });
}

#[test]
fn a_daemon_with_workers_serves_other_nodes() {
    in_world(|world| {
        prepare(world);
        let (vnl, _switch) = world.switch();
        let server = format!("stack=smoltcp,vnl={vnl},ip=10.0.0.1/24,ip=fd00::1/64");
        let client = format!("stack=smoltcp,vnl={vnl},ip=10.0.0.2/24,ip=fd00::2/64");
        // Whoever reads the output of a server that becomes a daemon has not to wait for it, nor for the node.
        nginx(world.run_on(&server, "nginx"), world).finish_and_read_to_the_end().succeeded();
        let curl = || world.run_on(&client, "curl");
        fetch_all(world, "10.0.0.1", "10.0.0.2", curl);
        let got = curl().args(["-sS", "--fail", "http://[fd00::1]/small"]).finish().succeeded();
        assert_eq!(got.text(), "a few bytes\n");
        world.wait_for_nodes(1);
        reload_and_quit(world, "10.0.0.1", || world.ioth(["run", "--", "nginx"]), curl);
        world.wait_for_nodes(0);
    });
}

/// nginx.org/en/docs/control.html, "Upgrading Executable on the Fly". Sockets are inherited by number; what nginx is to leave in
/// the environment of the new program, its configuration says.
#[test]
fn a_daemon_is_replaced_while_it_serves() {
    in_world(|world| {
        prepare(world);
        let (vnl, _switch) = world.switch();
        let server = format!("stack=smoltcp,vnl={vnl},ip=10.0.0.1/24");
        let client = format!("stack=smoltcp,vnl={vnl},ip=10.0.0.2/24");
        // It executes itself by the name that it was given.
        nginx(world.run_on(&server, "/usr/sbin/nginx"), world).finish().succeeded();
        let fetch = || {
            let wget = world.run_on(&client, "wget").args(["-q", "-O", "-", "http://10.0.0.1/small?wget"]);
            assert_eq!(wget.finish().succeeded().text(), "a few bytes\n");
        };
        fetch();
        let old = master(world);
        kill(old, Signal::SIGUSR2).unwrap();
        wait_until("the new program's pid file", || {
            process(world, "pid.oldbin") == Some(old) && process(world, "pid").is_some_and(|new| new != old)
        });
        let new = master(world);
        fetch();
        kill(old, Signal::SIGQUIT).unwrap();
        wait_until("end of the old program", || !world.path("pid.oldbin").exists());
        for _ in 0..5 {
            fetch();
        }
        wait_until("7 lines in the log", || access(world, "wget").len() == 7);
        kill(new, Signal::SIGQUIT).unwrap();
        world.wait_for_nodes(0);
    });
}

/// A node that still waits for the acknowledgement of its last FIN has the address, as has the one that follows it at once; and
/// clients remember the Ethernet address of the first.
#[test]
fn a_server_is_reached_as_soon_as_it_is_started_again() {
    in_world(|world| {
        prepare(world);
        let (vnl, _switch) = world.switch();
        let node = |end: u8| format!("stack=smoltcp,vnl={vnl},ip=10.0.0.{end}/24,ip=fd00::{end}/64");
        world.ioth(["node", "client", "--stack", &node(3)]).finish().succeeded();
        for _ in 0..3 {
            nginx(world.run_on(&node(1), "nginx"), world).finish().succeeded();
            for at in ["10.0.0.1", "[fd00::1]"] {
                let url = format!("http://{at}/small");
                // Well below the time in which a neighbour is forgotten.
                let words = ["-sS", "--fail", "--max-time", "15", &url];
                world.run_on(&node(2), "curl").args(words).finish().succeeded();
                world.ioth(["run", "--node", "client", "--", "curl"]).args(words).finish().succeeded();
            }
            let last = master(world);
            kill(last, Signal::SIGQUIT).unwrap();
            wait_until("end of nginx", || !world.path("pid").exists());
        }
        world.ioth(["node", "--stop", "client"]).finish().succeeded();
        world.wait_for_nodes(0);
    });
}
