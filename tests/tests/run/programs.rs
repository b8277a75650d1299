//! Servers and their clients, each on a node of its own, over a switch.

use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use nix::unistd::{User, chown, geteuid};

use crate::world::{Daemon, Run, Started, World, built, in_world, wait_until};

const SERVER: &str = "10.0.0.1";
const SERVER6: &str = "fd00::1";

/// Two nodes on a switch.
struct Network<'a> {
    world: &'a World,
    vnl: String,
    _switch: Daemon,
}

impl<'a> Network<'a> {
    fn new(world: &'a World) -> Self {
        let (vnl, switch) = world.switch();
        Network { world, vnl, _switch: switch }
    }

    fn on(&self, end: u8, program: &str) -> Run<'a> {
        let config = format!("stack=smoltcp,vnl={},ip=10.0.0.{end}/24,ip=fd00::{end}/64", self.vnl);
        self.world.run_on(&config, program)
    }

    /// Starts a server, which is ready when it has said so.
    fn serve(&self, program: &str, words: &[&str], ready: &str) -> Started {
        let server = self.on(1, program).args(words).start();
        wait_until(ready, || server.output().contains(ready));
        server
    }

    fn client(&self, program: &str) -> Run<'a> {
        self.on(2, program)
    }

    /// Ends a server, whose node goes with it.
    fn end(&self, server: Started, signal: Signal) {
        server.signal(signal);
        server.finish();
        self.world.wait_for_nodes(0);
    }
}

/// A file that two programs should have passed on as it was.
fn assert_same(world: &World, from: &str, to: &str) {
    let read = |name: &str| std::fs::read(world.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(read(from) == read(to), "{to} is not {from}");
}

/// What the kernel passes as well.
#[test]
fn connections_end_as_they_do_on_the_kernel() {
    in_world(|world| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/run/ends.py");
        world.run_on("stack=smoltcp", "/usr/bin/python3").arg(script).finish().succeeded();
        world.wait_for_nodes(0);
    });
}

/// What the kernel passes as well.
#[test]
fn ss_tells_of_programs() {
    in_world(|world| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/run/diag.py");
        world.run_on("stack=smoltcp", "/usr/bin/python3").arg(script).finish().succeeded();
        world.wait_for_nodes(0);
    });
}

#[test]
fn redis() {
    in_world(|world| {
        let network = Network::new(world);
        let words = ["--save", "", "--bind", SERVER, SERVER6, "--protected-mode", "no"];
        let server = network.serve("redis-server", &words, "Ready to accept connections");
        for at in [SERVER, SERVER6] {
            let words = ["-h", at, "-q", "-t", "ping,set,get,lrange_100", "-n", "4000", "-c", "20"];
            let bench = network.client("redis-benchmark").args(words).finish().succeeded().text();
            assert_eq!(bench.matches("requests per second").count(), 6, "{bench}");
        }
        // Long values, many at once.
        let words = ["-h", SERVER, "-q", "-t", "set,get", "-n", "400", "-c", "10", "-d", "100000", "-P", "8"];
        let bench = network.client("redis-benchmark").args(words).finish().succeeded().text();
        assert_eq!(bench.matches("requests per second").count(), 2, "{bench}");
        let words = ["-h", SERVER, "strlen", "key:__rand_int__"];
        let cli = network.client("redis-cli").args(words).finish().succeeded();
        assert_eq!(cli.text(), "100000\n");
        network.end(server, Signal::SIGTERM);
    });
}

#[test]
fn iperf3() {
    in_world(|world| {
        let network = Network::new(world);
        let server = network.serve("iperf3", &["-s", "--forceflush"], "Server listening");
        let ways: [&[&str]; 6] = [
            &["-c", SERVER, "-n", "20M"],
            &["-c", SERVER, "-n", "20M", "-R"],
            &["-c", SERVER6, "-n", "10M", "-P", "4"],
            &["-c", SERVER, "-n", "10M", "--bidir"],
            &["-c", SERVER, "-u", "-b", "10M", "-n", "500K"],
            &["-c", SERVER6, "-u", "-b", "10M", "-n", "500K", "-R"],
        ];
        for words in ways {
            let said = network.client("iperf3").args(words).finish().succeeded().text();
            assert!(said.contains("receiver") && said.contains("iperf Done."), "{words:?}: {said}");
        }
        network.end(server, Signal::SIGTERM);
    });
}

/// python's http.server, which serves git's repository as files and by git's own program.
#[test]
fn http_server_and_git() {
    in_world(|world| {
        let network = Network::new(world);
        let git = |words: &[&str]| {
            let who = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"];
            world.plain("git").args(who).args(words).env("HOME", world.path("")).finish().succeeded()
        };
        std::fs::create_dir(world.path("www")).unwrap();
        std::fs::create_dir(world.path("www/cgi-bin")).unwrap();
        world.noise("www/big", 5_000_000);
        git(&["init", "-q", "tree"]);
        world.noise("tree/big", 2_000_000);
        for round in 0..20 {
            world.file("tree/text", format!("{round}\n"));
            git(&["-C", "tree", "add", "."]);
            git(&["-C", "tree", "commit", "-q", "-m", &round.to_string()]);
        }
        git(&["clone", "-q", "--bare", "tree", "www/tree.git"]);
        git(&["-C", "www/tree.git", "update-server-info"]);
        let root = world.path("www");
        // Root's http.server gives up being root for scripts, and git does not trust other people's repositories.
        let script = world.file(
            "www/cgi-bin/git",
            format!(
                "#!/bin/sh\nGIT_PROJECT_ROOT={} GIT_HTTP_EXPORT_ALL=1 exec git -c safe.directory=* http-backend\n",
                root.display()
            ),
        );
        std::fs::set_permissions(script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();

        let root = root.display().to_string();
        let words = ["-u", "-m", "http.server", "--cgi", "--bind", "::", "--directory", &root, "80"];
        let server = network.serve("/usr/bin/python3", &words, "Serving HTTP");
        for at in [SERVER, "[fd00::1]"] {
            let url = format!("http://{at}/big");
            network.client("curl").args(["-sS", "--fail", "-o", "curled", &url]).finish().succeeded();
            assert_same(world, "www/big", "curled");
            network.client("wget").args(["-q", "-O", "wgot", &url]).finish().succeeded();
            assert_same(world, "www/big", "wgot");
        }
        // As files, and in git's own protocol.
        for (path, to) in [("tree.git", "files"), ("cgi-bin/git/tree.git", "asked")] {
            let url = format!("http://{SERVER}/{path}");
            let clone = network.client("git").args(["clone", "-q", &url, to]).env("HOME", world.path(""));
            clone.finish().succeeded();
            assert_same(world, "tree/big", &format!("{to}/big"));
            let commits = git(&["-C", to, "rev-list", "--count", "HEAD"]).text();
            assert_eq!(commits, "20\n", "{to}");
        }
        network.end(server, Signal::SIGTERM);
    });
}

#[test]
fn node_js() {
    in_world(|world| {
        let network = Network::new(world);
        let server = world.file(
            "server.js",
            "const http = require('http');\n\
             const server = http.createServer((request, response) => {\n\
             \x20 response.setHeader('x-peer', request.socket.remoteAddress);\n\
             \x20 request.pipe(response);\n\
             });\n\
             server.listen(80, () => console.log('listening'));\n",
        );
        let client = world.file(
            "client.js",
            "const http = require('http');\n\
             const agent = new http.Agent({ keepAlive: true, maxSockets: 8 });\n\
             const ask = (host, body) => new Promise((resolve, reject) => {\n\
             \x20 const request = http.request({ host, port: 80, agent, method: 'POST' }, response => {\n\
             \x20   const parts = [];\n\
             \x20   response.on('data', part => parts.push(part));\n\
             \x20   response.on('end', () => Buffer.concat(parts).equals(body)\n\
             \x20     ? resolve(response.headers['x-peer']) : reject(new Error('another body')));\n\
             \x20 });\n\
             \x20 request.on('error', reject);\n\
             \x20 request.end(body);\n\
             });\n\
             (async () => {\n\
             \x20 for (const host of process.argv.slice(2)) {\n\
             \x20   const bodies = Array.from({ length: 100 }, (_, at) => Buffer.alloc(at * 997 + 1, at));\n\
             \x20   const peers = await Promise.all(bodies.map(body => ask(host, body)));\n\
             \x20   await ask(host, Buffer.alloc(5000000, 7));\n\
             \x20   console.log(new Set(peers));\n\
             \x20 }\n\
             \x20 agent.destroy();\n\
             })();\n",
        );
        let server = network.serve("node", &[server.to_str().unwrap()], "listening");
        let said = network.client("node").arg(client).args([SERVER, SERVER6]).finish().succeeded().text();
        assert_eq!(said, "Set(1) { '::ffff:10.0.0.2' }\nSet(1) { 'fd00::2' }\n");
        network.end(server, Signal::SIGTERM);
    });
}

#[test]
fn iproute2() {
    in_world(|world| {
        let network = Network::new(world);
        let config = format!("stack=smoltcp,vnl={},ip=10.0.0.2/24", network.vnl);
        world.ioth(["node", "here", "--stack", &config]).finish().succeeded();
        let ip =
            |words: &str| world.ioth(["run", "--node", "here", "--", "ip"]).args(words.split(' ')).finish();
        let shown = |words: &str| ip(words).succeeded().text();
        let links = shown("-o link show");
        assert!(links.starts_with("1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536"), "{links}");
        assert!(links.contains("2: vde0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500"), "{links}");

        ip("addr add 10.1.0.2/24 dev vde0").succeeded();
        ip("addr add fd01::2/64 dev vde0 nodad").succeeded();
        let addrs = shown("-br addr show dev vde0");
        assert!(addrs.contains(" 10.0.0.2/24 10.1.0.2/24 fd01::2/64 "), "{addrs}");
        let again = ip("addr add 10.1.0.2/24 dev vde0");
        assert!(again.status.code() == Some(2) && again.stderr.contains("assigned"), "{again:?}");

        ip("route add 192.0.2.0/24 via 10.1.0.1").succeeded();
        ip("route add default via fd01::1").succeeded();
        let routes = shown("route show 192.0.2.0/24");
        assert_eq!(routes.trim_end(), "192.0.2.0/24 via 10.1.0.1 dev vde0");
        let route = shown("route get 192.0.2.7");
        assert!(route.starts_with("192.0.2.7 via 10.1.0.1 dev vde0 src 10.1.0.2"), "{route}");
        assert!(shown("-6 route show").contains("default via fd01::1 dev vde0"));
        ip("route del 192.0.2.0/24").succeeded();
        assert_eq!(shown("route show 192.0.2.0/24"), "");
        assert_eq!(ip("route del 192.0.2.0/24").status.code(), Some(2));

        // What was added is there for the others on the switch, until it is taken away.
        let server =
            world.ioth(["run", "--node", "here", "--", "/usr/bin/python3", "-u", "-m", "http.server", "80"]);
        let server = server.start();
        wait_until("server", || server.output().contains("Serving HTTP"));
        let config = format!("stack=smoltcp,vnl={},ip=10.1.0.9/24,ip=fd01::9/64", network.vnl);
        let fetch = |at: &str| {
            let words = ["-sS", "--fail", "--max-time", "20", "-o", "/dev/null", at];
            world.run_on(&config, "curl").args(words).finish()
        };
        fetch("http://10.1.0.2/").succeeded();
        ip("addr del 10.1.0.2/24 dev vde0").succeeded();
        assert!(!shown("-br addr show dev vde0").contains("10.1.0.2"));
        ip("link set vde0 down").succeeded();
        assert!(shown("-br link show vde0").contains("DOWN"));
        assert!(!fetch("http://10.1.0.2/").status.success());
        ip("link set vde0 up").succeeded();
        // Linux forgets IPv6 addresses when an interface goes down.
        assert!(!shown("-br addr show dev vde0").contains("fd01::2"));
        server.signal(Signal::SIGTERM);
        server.finish();
        world.ioth(["node", "--stop", "here"]).finish().succeeded();
        world.wait_for_nodes(0);
    });
}

/// Debian's folder of PostgreSQL's programs, which are in no path.
fn postgresql() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let bins = versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").exists());
    bins.max().expect("PostgreSQL; needed: ./test.sh installs the tests' programs")
}

#[test]
fn psql() {
    in_world(|world| {
        let network = Network::new(world);
        let bin = postgresql();
        let program = |name: &str| bin.join(name).display().to_string();
        let data = world.path("data");
        std::fs::create_dir(&data).unwrap();
        // The server does not run as root: where root runs the tests, it runs as Debian's user for it, who may not be able to
        // read what cargo built.
        let library = world.path("preload.so");
        std::fs::copy(&built().preload, &library).unwrap();
        let as_user: &[&str] = match geteuid().is_root() {
            true => &["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"],
            false => &["env"],
        };
        if geteuid().is_root() {
            let user = User::from_name("postgres").unwrap().expect("Debian's postgresql made it");
            chown(&data, Some(user.uid), Some(user.gid)).unwrap();
        }
        let words = ["-U", "tester", "-A", "trust", "--no-sync", "-D"];
        let init = world.plain(as_user[0]).args(&as_user[1..]).arg(program("initdb")).args(words).arg(&data);
        init.finish().succeeded();
        let access = "host all all 10.0.0.0/24 trust\nhost all all fd00::/64 trust\n";
        std::fs::write(data.join("pg_hba.conf"), access).unwrap();

        let server =
            network.on(1, as_user[0]).args(&as_user[1..]).arg(program("postgres")).arg("-D").arg(&data);
        let settings = ["listen_addresses=*", "unix_socket_directories=", "fsync=off"];
        let server = server.args(settings.iter().flat_map(|setting| ["-c", setting]));
        let server = server.env("IOTH_PRELOAD", &library).start();
        wait_until("server", || server.said().contains("ready to accept connections"));
        for (at, table) in [(SERVER, "one"), (SERVER6, "two")] {
            let ask = |statements: &str| {
                let words = ["-h", at, "-U", "tester", "-d", "postgres", "-AtX", "-c", statements];
                network.client("psql").args(words).finish().succeeded().text()
            };
            ask(&format!(
                "create table {table} as select n, repeat(n::text, 20) as t from generate_series(1, 20000) as n"
            ));
            assert_eq!(ask(&format!("select count(*), sum(n) from {table}")), "20000|200010000\n");
            let all = ask(&format!("select t from {table} order by n"));
            assert_eq!(all.lines().count(), 20000);
            assert_eq!(all.lines().last(), Some("20000".repeat(20).as_str()));
        }
        let bench = |words: &[&str]| {
            let pgbench = network.client(&program("pgbench")).args(["-h", SERVER, "-U", "tester"]);
            pgbench.args(words).arg("postgres").finish().succeeded().text()
        };
        bench(&["-i", "-q"]);
        let said = bench(&["-c", "4", "-t", "50"]);
        assert!(said.contains("number of transactions actually processed: 200/200"), "{said}");
        network.end(server, Signal::SIGINT);
    });
}
