//! CPython's own tests: what passes on the kernel passes under `ioth run`.
//!
//! `python/MODULE.txt` are the ids of those that pass on the kernel, in a namespace with loopback up, written by
//! `unshare -n sh -c 'ip link set lo up; /usr/bin/python3 tests/tests/run/python/runner.py test.MODULE MODULE.txt'`
//! (as root, with Debian's libpython3.11-testsuite). A test that is skipped has not passed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::world::{World, ids, in_world};

/// Debian's, whose tests they are; another python may come first in the path.
const PYTHON: &str = "/usr/bin/python3";

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/run/python")
}

fn passes(world: &World, module: &str) {
    let passed = world.path("passed");
    let run = world
        .run_on("stack=smoltcp", PYTHON)
        .arg(directory().join("runner.py"))
        .arg(format!("test.{module}"))
        .arg(&passed)
        .finish();
    assert!(
        run.status.success(),
        "{:?}; needed: apt-get install libpython3.11-testsuite\n{}",
        run.status,
        run.stderr
    );
    let kernel = ids(&directory().join(format!("{module}.txt")));
    assert!(!kernel.is_empty());
    let mut exceptions = ids(&directory().join("exceptions.txt"));
    if !geteuid().is_root() {
        exceptions.extend(ids(&directory().join("root.txt")));
    }
    let passed = ids(&passed);
    let missing: Vec<_> = kernel.difference(&passed).filter(|id| !exceptions.contains(*id)).collect();
    assert!(missing.is_empty(), "pass on the kernel, and not here: {missing:#?}\n{}", run.stderr);
    world.wait_for_nodes(0);
}

macro_rules! modules {
    ($($module:ident)*) => {$(
        #[test]
        fn $module() {
            in_world(|world| passes(world, stringify!($module)));
        }
    )*};
}

modules! {
    test_socket test_socketserver test_selectors test_select test_poll test_epoll test_ftplib test_httplib test_httpservers
}

#[test]
fn exceptions_are_of_tests_that_pass_on_the_kernel() {
    let lists =
        std::fs::read_dir(directory()).expect("the lists").map(|entry| entry.expect("an entry").path());
    let lists = lists.filter(|path| path.extension().is_some_and(|extension| extension == "txt"));
    let exceptions = ["exceptions.txt", "root.txt"];
    let known: BTreeSet<_> = lists
        .filter(|path| !exceptions.iter().any(|name| path.ends_with(name)))
        .flat_map(|list| ids(&list))
        .collect();
    let listed = exceptions.iter().flat_map(|name| ids(&directory().join(name)));
    let unknown: Vec<_> = listed.filter(|id| !known.contains(id)).collect();
    assert!(unknown.is_empty(), "{unknown:#?}");
}
