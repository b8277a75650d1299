//! socat's own tests, groups tcp4, tcp6, udp4 and udp6: what passes on the kernel passes under `ioth run`.
//!
//! `socat/tests.txt` are those that pass on the kernel, in a namespace with loopback up, as said by
//! `unshare -n sh -c 'ip link set lo up; SOCAT=socat FILAN=filan PROCAN=procan bash test.sh tcp4 tcp6 udp4 udp6'`
//! (as root, with Debian's socat). The script measures time and is in a hurry: what fails beside others is run again by itself,
//! as it was on the kernel. `socat/exceptions.txt` are those that do not pass here, each with its reason. The
//! script itself is under the GNU General Public License: ./test.sh takes it from Debian's source of socat.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::world::{World, built, ids, in_world};

/// How many of the script run at a time, each on a node of its own: they mostly wait.
const AT_ONCE: usize = 12;

fn list(name: &str) -> BTreeSet<String> {
    ids(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/run/socat").join(name))
}

fn script() -> PathBuf {
    let target = built().ioth.ancestors().nth(2).expect("a program is in a directory of its profile");
    let script = target.join("peers/socat/test.sh");
    assert!(script.exists(), "{} is missing; needed: ./test.sh fetches it", script.display());
    script
}

/// The tests that went well, of what the script says: number and name.
fn passed_of(output: &str) -> BTreeSet<String> {
    let mut passed = BTreeSet::new();
    let mut current = None;
    for line in output.lines() {
        if let Some(test) = line.strip_prefix("test ")
            && let Some((test, _)) = test.split_once(':')
        {
            current = Some(test.trim().to_owned());
        }
        // In green.
        if line.contains("\u{1b}[32mOK") {
            passed.extend(current.take());
        }
    }
    passed
}

/// Makes what all that use TLS would make anew, of numbers that take a second to find and not a minute; and a ping(8), by which
/// the script finds out which families there are, without file capabilities: no library can be put into a program that has
/// more rights than its caller.
fn prepare(world: &World) {
    std::fs::create_dir(world.path("bin")).unwrap();
    for name in ["ping", "ping6"] {
        std::fs::copy("/usr/bin/ping", world.path("bin").join(name))
            .unwrap_or_else(|error| panic!("ping: {error}; needed: apt-get install iputils-ping"));
    }
    let words = ["dhparam", "-dsaparam", "-out", "dh", "2048"];
    world.plain("openssl").args(words).finish().succeeded();
}

#[test]
fn tcp_and_udp() {
    let script = script();
    in_world(|world| {
        prepare(world);
        let (kernel, exceptions) = (list("tests.txt"), list("exceptions.txt"));
        assert!(!kernel.is_empty() && exceptions.is_subset(&kernel));
        let wanted: Vec<_> = kernel.difference(&exceptions).collect();
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", world.path("bin").display());
        let run = |name: String, tests: &[&String]| {
            let dir = world.path(&name);
            std::fs::create_dir(&dir).unwrap();
            std::fs::copy(world.path("dh"), dir.join("testcert.dh")).unwrap();
            let numbers = tests.iter().map(|test| test.split(' ').next().expect("a number and a name"));
            let run = world.run_on("stack=smoltcp", "bash").arg(&script).args(numbers);
            let run = run.env("SOCAT", "socat").env("FILAN", "filan").env("PROCAN", "procan");
            run.env("TMPDIR", &dir).env("PATH", &path).at(&dir).start()
        };
        let parts =
            (0..AT_ONCE).map(|at| wanted.iter().skip(at).step_by(AT_ONCE).copied().collect::<Vec<_>>());
        let runs: Vec<_> = parts.enumerate().map(|(at, tests)| run(format!("socat-{at}"), &tests)).collect();
        let told: Vec<_> = runs.into_iter().map(|run| run.finish().text()).collect();
        let mut passed: BTreeSet<_> = told.iter().flat_map(|told| passed_of(told)).collect();
        for test in &wanted {
            if !passed.contains(*test) {
                let alone = run(format!("alone-{}", test.replace(' ', "-")), &[test]).finish();
                passed.extend(passed_of(&alone.text()));
                println!("{}{}", alone.text(), alone.stderr);
            }
        }
        let missing: Vec<_> = wanted.into_iter().filter(|test| !passed.contains(*test)).collect();
        assert!(missing.is_empty(), "pass on the kernel, and not here: {missing:#?}");
        world.wait_for_nodes(0);
    });
}
