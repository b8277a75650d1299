//! glibc's resolver is the judge: the same questions to it in a network namespace, and to a node with the same addresses.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use ioth::Stack;
use ioth::conf::Resolver;
use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::sys::judge;
use crate::task::tests::block_on;

/// Runs `test`, which is the whole of a test function, in a network namespace of its own.
///
/// An ordinary user gets the rights for it from `unshare -Urn`, in which the test function is run again.
fn in_namespace<F: FnOnce() + Send>(test: F) {
    const INSIDE: &str = "IOTH_TEST_NAMESPACE";
    let function = std::any::type_name::<F>();
    if nix::unistd::geteuid().is_root() {
        let run = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap_or_else(|error| {
                panic!("a network namespace: {error}; needed: root, or `unshare -Urn`")
            });
            test();
        };
        return thread::scope(|scope| scope.spawn(run).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
    assert!(std::env::var_os(INSIDE).is_none(), "`unshare -Ur` did not make this process root");
    let name = function.trim_end_matches("::{{closure}}").split_once("::").map_or(function, |(_, name)| name);
    let run = Command::new("unshare")
        .arg("-Urn")
        .arg(std::env::current_exe().expect("a test knows its own binary"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap_or_else(|error| panic!("unshare: {error}; needed: apt-get install util-linux"));
    let text = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
    assert!(
        run.status.success() && text.contains("1 passed"),
        "in `unshare -Urn` (needs root, or sysctl kernel.unprivileged_userns_clone=1):\n{text}"
    );
}

/// Runs ip(8) with these words.
fn ip(words: &str) {
    let run = Command::new("ip").args(words.split(' ')).output();
    let run = run.unwrap_or_else(|error| panic!("ip: {error}; needed: apt-get install iproute2"));
    assert!(run.status.success(), "ip {words}: {}", String::from_utf8_lossy(&run.stderr));
}

/// A node's names, with the addresses `addrs` on an interface that the kernel's is like.
fn pair(addrs: &[&str]) -> Names {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let vnl = format!("switch://ioth-names-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let stack = Stack::newstack("smoltcp", Some(&vnl)).unwrap();
    let index = stack.if_nametoindex("vde0").unwrap();
    ip("link set lo up");
    ip(&format!("link add vde0 index {index} type veth peer name peer0 index 99"));
    // Up, both have a link-local address too.
    if !addrs.is_empty() {
        stack.linksetupdown(index, true).unwrap();
        ip("link set vde0 up");
        ip("link set peer0 up");
    }
    for addr in addrs {
        let nodad = if addr.contains(':') { " nodad" } else { "" };
        ip(&format!("addr add {addr} dev vde0{nodad}"));
        stack.ipaddr_add(addr.parse().unwrap(), index).unwrap();
    }
    Names::new(stack, &Resolver::default(), &Files::default())
}

/// Compares the answers to every combination of these.
fn compare(
    names: &Names,
    hosts: &[Option<&str>],
    services: &[Option<&str>],
    flags: &[i32],
    kinds: &[(i32, i32)],
) {
    let mut wrong = Vec::new();
    for &host in hosts {
        for &service in services {
            for &flags in flags {
                for &(kind, protocol) in kinds {
                    for family in [libc::AF_UNSPEC, libc::AF_INET, libc::AF_INET6, libc::AF_UNIX] {
                        let query = Query { host, service, flags, family, kind, protocol };
                        let ours = block_on(names.addresses(query)).map_err(|error| error.code());
                        let glibcs = judge::addresses(&query);
                        if ours != glibcs {
                            wrong.push(format!("{query:?}:\n  ours:   {ours:?}\n  glibc's: {glibcs:?}"));
                        }
                    }
                }
            }
        }
    }
    let some = wrong.iter().take(10).cloned().collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} differ:\n{some}", wrong.len());
}

const TCP: [(i32, i32); 1] = [(libc::SOCK_STREAM, 0)];

#[test]
fn every_kind_of_query_is_answered_as_glibc_does() {
    in_namespace(|| {
        let names = pair(&["198.18.7.1/24", "fd00::1/64"]);
        let kinds = [
            (0, 0),
            (libc::SOCK_STREAM, 0),
            (libc::SOCK_DGRAM, 0),
            (libc::SOCK_RAW, 0),
            (libc::SOCK_SEQPACKET, 0),
            (libc::SOCK_RDM, 0),
            (99, 0),
            (0, libc::IPPROTO_TCP),
            (0, libc::IPPROTO_UDP),
            (0, libc::IPPROTO_UDPLITE),
            (0, libc::IPPROTO_SCTP),
            (0, libc::IPPROTO_ICMP),
            (0, 255),
            (libc::SOCK_RAW, libc::IPPROTO_ICMP),
            (libc::SOCK_STREAM, libc::IPPROTO_UDP),
            (libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE),
        ];
        let services = [
            None,
            Some(""),
            Some("*"),
            Some("0"),
            Some("80"),
            Some(" 80"),
            Some("80x"),
            Some("-1"),
            Some("+7"),
            Some("65536"),
            Some("4294967296"),
            Some("99999999999999999999999"),
            Some("http"),
            Some("domain"),
            Some("HTTP"),
            Some("no-such-service"),
        ];
        let flags = [0, libc::AI_NUMERICSERV, libc::AI_PASSIVE, libc::AI_CANONNAME];
        compare(&names, &[None, Some("*"), Some("127.0.0.1")], &services, &flags, &kinds);
    });
}

#[test]
fn every_kind_of_host_is_answered_as_glibc_does() {
    in_namespace(|| {
        let names = pair(&["198.18.7.1/24", "fd00::1/64"]);
        let hosts = [
            None,
            Some(""),
            Some("*"),
            Some("127.0.0.1"),
            Some("127.1"),
            Some("0x7f000001"),
            Some("1.2.3.4.5"),
            Some("198.18.7.2"),
            Some("::1"),
            Some("fd00::2"),
            Some("::ffff:198.18.7.2"),
            Some("::ffff:198.18.7.2%1"),
            Some("fe80::1"),
            Some("fe80::1%vde0"),
            Some("fe80::1%7"),
            Some("fe80::1%nonesuch"),
            Some("fe80::1%"),
            Some("ff02::1%vde0"),
            Some("fd00::1%vde0"),
            Some("fd00::1%7"),
            Some("a-name-that-is-nowhere"),
        ];
        let flags = [
            0,
            libc::AI_PASSIVE,
            libc::AI_CANONNAME,
            libc::AI_NUMERICHOST,
            libc::AI_V4MAPPED,
            libc::AI_V4MAPPED | libc::AI_ALL,
            libc::AI_ADDRCONFIG,
            libc::AI_PASSIVE | libc::AI_ADDRCONFIG | libc::AI_CANONNAME,
            Query::DEFAULT_FLAGS,
            0x40,
            0x80,
            0x300,
            0x800,
            -1,
        ];
        compare(&names, &hosts, &[None, Some("80")], &flags, &TCP);
        // Names that nobody is asked for. glibc does ask when the canonical name of one family is wanted.
        let long = [["x"; 60].join("").as_str(); 5].join(".");
        let texts = [
            "::1:",
            "a b",
            "a_b",
            "-a",
            "a-",
            "a/b",
            "a\\.b",
            "a..b",
            ".a",
            "a.",
            "a..",
            ".",
            "..",
            &long,
            &long[..64],
            &long[..60],
            &long[..253],
            &long[..254],
            "\u{e9}",
        ];
        compare(&names, &texts.map(Some), &[None], &[0, libc::AI_V4MAPPED], &TCP);
    });
}

#[test]
fn addresses_are_named_as_glibc_does() {
    in_namespace(|| {
        let names = pair(&["198.18.7.1/24", "fd00::1/64"]);
        let vde0 = names.stack.if_nametoindex("vde0").unwrap();
        let addrs = [
            "127.0.0.1:80".to_owned(),
            "127.0.0.9:0".to_owned(),
            "198.18.7.2:53".to_owned(),
            "[fd00::2]:514".to_owned(),
            "[::ffff:127.0.0.1]:4711".to_owned(),
            "[::]:80".to_owned(),
            format!("[fe80::1%{vde0}]:80"),
            "[fe80::1%4711]:80".to_owned(),
            format!("[ff02::1%{vde0}]:80"),
            format!("[fd00::1%{vde0}]:80"),
        ];
        let mut raws: Vec<Vec<u8>> = addrs
            .iter()
            .map(|addr| ioth::SockAddr::from(addr.parse::<SocketAddr>().unwrap()).to_raw().to_vec())
            .collect();
        raws.push(raws[0][..15].to_vec());
        raws.push(raws[3][..24].to_vec());
        raws.push(raws[3][..27].to_vec());
        raws.push(vec![0; 16]);
        raws.push(Vec::new());
        let mut wrong = Vec::new();
        for raw in &raws {
            for flags in (0..32).chain([32, 64, 128, 256, -1]) {
                for wanted in [(true, true), (true, false), (false, true), (false, false)] {
                    let ours = block_on(names.of_address(raw, flags, wanted)).map_err(|error| error.code());
                    let glibcs = judge::name_info(raw, flags, wanted);
                    if ours != glibcs {
                        wrong.push(format!("{raw:?} {flags} {wanted:?}: ours {ours:?}, glibc's {glibcs:?}"));
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong[..wrong.len().min(10)].join("\n"));
    });
}

#[test]
fn what_the_judge_cannot_be_asked() {
    // The hosts file may be without any of these here.
    let stack = Stack::newstack("smoltcp", None).unwrap();
    let nothing = Files { hosts: "/nonexistent".into(), services: "/nonexistent".into() };
    let names = Names::new(stack, &Resolver::default(), &nothing);
    let ask = |host, family| {
        let query = Query { host: Some(host), kind: libc::SOCK_STREAM, family, ..Query::default() };
        block_on(names.addresses(query))
            .map(|answer| answer.found.iter().map(|found| found.addr.ip()).collect())
    };
    let (v4, v6) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST));
    assert_eq!(ask("localhost", libc::AF_UNSPEC), Ok(vec![v6, v4]));
    assert_eq!(ask("LocalHost.", libc::AF_INET), Ok(vec![v4]));
    assert_eq!(ask("www.localhost", libc::AF_INET6), Ok(vec![v6]));
    assert_eq!(ask("nolocalhost", libc::AF_INET), Err(LookupError::Again));
    assert_eq!(block_on(names.host_by_name("127.0.0.1", Family::V4)).unwrap().addresses, [v4]);
    assert_eq!(block_on(names.host_by_name("127.0.0.1", Family::V6)), Err(HostError::NotFound));
    assert_eq!(block_on(names.host_by_name("::1", Family::V6)).unwrap().addresses, [v6]);
    let of = |family, raw: &[u8]| block_on(names.host_by_address(family, raw));
    assert_eq!(of(libc::AF_INET6, &Ipv6Addr::LOCALHOST.octets()).unwrap().name, "localhost");
    assert_eq!(of(libc::AF_INET, &[127, 0, 0, 1]).unwrap().addresses, [v4]);
    assert_eq!(of(libc::AF_INET, &[127, 0, 0, 2]), Err(HostError::TryAgain));
    assert_eq!(of(libc::AF_INET, &[127, 0, 0]), Err(HostError::Internal(ioth::Errno::EINVAL)));
    assert_eq!(of(libc::AF_UNIX, &[127, 0, 0, 1]), Err(HostError::Internal(ioth::Errno::EAFNOSUPPORT)));
    let service = Query { service: Some("http"), ..Query::default() };
    assert_eq!(block_on(names.addresses(service)), Err(LookupError::Service));
}

#[test]
fn what_the_node_has_no_address_of_is_left_out() {
    for addrs in [&[][..], &["198.18.7.1/24"], &["fd00::1/64"]] {
        in_namespace(|| {
            let names = pair(addrs);
            let hosts = [None, Some("198.18.7.2"), Some("fd00::2"), Some("a-name-that-is-nowhere")];
            let flags = [libc::AI_ADDRCONFIG, libc::AI_ADDRCONFIG | libc::AI_PASSIVE, 0];
            compare(&names, &hosts, &[Some("80")], &flags, &TCP);
        });
    }
}
