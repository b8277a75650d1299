//! Names from dnsmasq, asked for by a node of ours, and by glibc on the kernel, which is the judge.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use ioth::conf::Resolver;
use ioth_node::names::hosts::Family;
use ioth_node::names::{Files, HostError, LookupError, Names, Query};

use crate::fixture::{KERNEL4, KERNEL6, Lan, Process, command, on_lan, wait_until};

const A: u16 = 1;
const MX: u16 = 15;
const TXT: u16 = 16;

/// More addresses than fit into a datagram.
const MANY: usize = 100;

/// A dnsmasq on the kernel's side, and files for it and glibc.
struct Server {
    dir: PathBuf,
    _process: Process,
}

impl Server {
    fn start(lan: &Lan) -> Server {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("ioth-names-{}-{count}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let many: String = (1..=MANY).map(|n| format!("10.0.1.{n} many.lan.example\n")).collect();
        fs::write(dir.join("hosts"), many).unwrap();
        // Names that the server has too, several lines for a name, IPv6's forms of IPv4, odd spaces and cases.
        let own = "127.0.0.1 localhost\n::1\tlocalhost ip6-localhost\n10.0.0.7 Own.example own # mine\nfd00::7 own other\n\
                   ::ffff:10.0.0.8 mapped\n10.0.0.9 other.example other own\n10.0.0.70 web.lan.example\nfe80::9%tap0 wrong\n\
                   010.0.0.1 wrong\n10.0.0.10\n";
        fs::write(dir.join("own"), own).unwrap();
        fs::write(dir.join("host.conf"), "multi on\n").unwrap();
        let resolv = format!("nameserver {KERNEL4}\nnameserver {KERNEL6}\nsearch lan.example\n");
        fs::write(dir.join("resolv.conf"), resolv).unwrap();
        let long = ["x".repeat(200).as_str(); 10].join(",");
        let process = lan.kernel.start(
            // In the foreground, as whoever runs the test, and with nothing of this machine's.
            Command::new("dnsmasq")
                .args(["--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--no-poll"])
                .args([
                    "--pid-file",
                    "--interface=tap0",
                    "--bind-interfaces",
                    "--local=/example/",
                    "--no-ping",
                ])
                .arg(format!("--addn-hosts={}", dir.join("hosts").display()))
                .args([
                    "--host-record=web.lan.example,10.0.0.80,fd00::80",
                    "--cname=www.lan.example,web.lan.example",
                ])
                .args(["--host-record=four.lan.example,10.0.0.4", "--host-record=six.lan.example,fd00::6"])
                .args(["--mx-host=lan.example,mail.lan.example,10"])
                .arg(format!("--txt-record=long.lan.example,{long}")),
            "apt-get install dnsmasq-base",
        );
        wait_until("the name server", || {
            let asked = command_there(lan, "ss -Hlun sport = 53", "apt-get install iproute2");
            asked.lines().count() >= 2
        });
        Server { dir, _process: process }
    }

    /// What getent(1) says there with this server in resolv.conf(5), in a mount namespace of its own.
    fn getent(&self, lan: &Lan, database: &str, key: &str) -> Vec<String> {
        let mounts = [("resolv.conf", "resolv.conf"), ("own", "hosts"), ("host.conf", "host.conf")];
        let mounts =
            mounts.map(|(ours, theirs)| format!("mount --bind {}/{ours} /etc/{theirs}", self.dir.display()));
        let getent = format!("exec getent -s 'hosts:files dns' {database} {key}");
        let script = format!("{} && {getent}", mounts.join(" && "));
        let run =
            lan.kernel.run(|| Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap());
        // 2: "One or more supplied key could not be found in the database."
        let text = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success() || run.status.code() == Some(2), "getent {database} {key}: {text}");
        String::from_utf8_lossy(&run.stdout).lines().map(str::to_owned).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn command_there(lan: &Lan, words: &str, supply: &str) -> String {
    let (program, words) = words.split_once(' ').expect("a program with words");
    lan.kernel.run(|| command(program, words, supply))
}

/// The node's names, with the words of its configuration and a hosts file.
fn names(lan: &Lan, words: &str, hosts: impl Into<PathBuf>) -> Names {
    let mut resolver = Resolver::default();
    resolver.apply(&words.parse().unwrap());
    Names::new(lan.node(), &resolver, &Files { hosts: hosts.into(), ..Files::default() })
}

fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park();
    }
}

/// Addresses and canonical name as getent(1) asks for them.
fn addresses(names: &Names, host: &str, family: i32) -> Result<(Vec<String>, Option<String>), LookupError> {
    let query = Query {
        host: Some(host),
        family,
        kind: libc::SOCK_STREAM,
        flags: libc::AI_V4MAPPED | libc::AI_ADDRCONFIG | libc::AI_CANONNAME,
        ..Query::default()
    };
    let answer = block_on(names.addresses(query))?;
    let texts = answer.found.iter().map(|found| found.addr.ip().to_string());
    Ok((texts.collect(), answer.canonical))
}

#[test]
fn names_are_what_they_are_to_glibc() {
    on_lan(|lan| {
        let server = Server::start(lan);
        let names =
            names(lan, &format!("dns={KERNEL4},dns={KERNEL6},domain=lan.example"), server.dir.join("own"));
        let hosts = [
            "web.lan.example",
            "WEB",
            "www",
            "www.lan.example.",
            "four",
            "six",
            "many",
            "nobody",
            "lan.example",
            "localhost",
            "LocalHost",
            "ip6-localhost",
            "own",
            "OWN.EXAMPLE",
            "other",
            "mapped",
            "wrong",
            "10.1",
            "fd00::99",
        ];
        for host in hosts {
            let databases =
                [("ahosts", libc::AF_UNSPEC), ("ahostsv4", libc::AF_INET), ("ahostsv6", libc::AF_INET6)];
            for (database, family) in databases {
                // glibc says that there is something, and gives nothing.
                if (host, family) == ("mapped", libc::AF_INET6) {
                    continue;
                }
                let lines = server.getent(lan, database, host);
                let fields = |line: &String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
                let judged = lines.iter().map(fields).filter(|fields| fields[1] == "STREAM");
                let mut judged: Vec<String> = judged.map(|fields| fields[0].clone()).collect();
                let canonical = lines.first().and_then(|line| fields(line).get(2).cloned());
                let (mut ours, name) = addresses(&names, host, family).unwrap_or_default();
                // dnsmasq begins with another one each time.
                if host == "many" {
                    assert_eq!(ours.len(), MANY);
                    ours.sort();
                    judged.sort();
                }
                assert_eq!((ours, name), (judged, canonical), "{host} {database}");
            }
        }
        assert_eq!(addresses(&names, "nobody.lan.example.", 0), Err(LookupError::NoName));
        assert_eq!(addresses(&names, "lan.example", 0), Err(LookupError::NoData));
        // dnsmasq knows no other names, and nobody whom it could ask.
        assert_eq!(addresses(&names, "elsewhere.test.", 0), Err(LookupError::Again));
    });
}

#[test]
fn hosts_addresses_and_messages() {
    on_lan(|lan| {
        let server = Server::start(lan);
        // Nobody is at the first one.
        let late = names(lan, &format!("dns=10.0.0.99,dns={KERNEL4},domain=lan.example"), "/dev/null");
        let host = block_on(late.host_by_name("www", Family::V4)).unwrap();
        assert_eq!(
            (host.name.as_str(), &host.aliases[..]),
            ("web.lan.example", &["www.lan.example".to_owned()][..])
        );
        let names = names(lan, &format!("dns={KERNEL4},domain=lan.example"), server.dir.join("own"));
        for ip in
            ["10.0.0.80", "fd00::80", "10.0.0.81", "10.0.0.7", "10.0.0.8", "fd00::7", "127.0.0.1", "::1"]
        {
            let (family, raw) = match ip.parse().unwrap() {
                IpAddr::V4(ip) => (libc::AF_INET, ip.octets().to_vec()),
                IpAddr::V6(ip) => (libc::AF_INET6, ip.octets().to_vec()),
            };
            let ours = block_on(names.host_by_address(family, &raw));
            match server.getent(lan, "hosts", ip).first() {
                Some(line) => assert_eq!(ours.unwrap().name, line.split_whitespace().nth(1).unwrap(), "{ip}"),
                // No zone of it is this dnsmasq's.
                None => assert_eq!(ours, Err(HostError::TryAgain), "{ip}"),
            }
        }
        let answers = |message: &[u8]| u16::from_be_bytes([message[6], message[7]]);
        let mail = block_on(names.resolve("lan.example", 1, MX, false)).unwrap();
        assert_eq!(answers(&mail), 1);
        let long = block_on(names.resolve("long", 1, TXT, true)).unwrap();
        assert!(long.len() > 2000 && answers(&long) == 1, "{} bytes", long.len());
        let (error, _, answer) = block_on(names.resolve("nobody.lan.example", 1, A, false)).unwrap_err();
        assert_eq!((error, answer[3] & 15), (HostError::NotFound, 3));
        let question =
            [b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00", &mail[12..mail.len().min(29)]].concat();
        assert_eq!(&block_on(names.exchange(&question)).unwrap()[..2], b"\x12\x34");
    });
}
