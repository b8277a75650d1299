//! Servers and their clients, each on a node of its own, over a switch.

use nix::sys::signal::Signal;

use crate::world::{Daemon, Run, Started, World, in_world, wait_until};

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
