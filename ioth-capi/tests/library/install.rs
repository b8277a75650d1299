//! `make install`, and programs built with what it installed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::headers::declared_everywhere;
use crate::place::{Place, cargo};
use crate::support::{here, run, scratch, succeeds};

/// Where a package's files go, below the directory that stands for the root.
const PREFIX: &str = "/usr/local";

/// Runs make(1). Only to build does it need cargo, which root, who installs, seldom has.
fn make(goal: &str, root: &Path) {
    let place = Place::of_this_test();
    let cargo = if goal == "all" { cargo() } else { "/bin/false".into() };
    let mut make = Command::new("make");
    make.arg(goal).arg(format!("PREFIX={PREFIX}")).arg(format!("PROFILE={}", place.profile));
    make.arg(format!("DESTDIR={}", root.display())).arg(format!("CARGO={}", cargo.display()));
    make.env("CARGO_TARGET_DIR", &place.target).current_dir(here().join(".."));
    match place.triple {
        Some(triple) => make.env("CARGO_BUILD_TARGET", triple),
        None => make.env_remove("CARGO_BUILD_TARGET"),
    };
    // What a make that runs the tests says is not for this one.
    for name in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PROFILE"] {
        make.env_remove(name);
    }
    succeeds(&mut make);
}

/// The files below a directory.
fn files(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.expect("a directory's entry").path();
        match path.is_dir() {
            true => found.append(&mut files(&path)),
            false => drop(found.insert(path)),
        }
    }
    found
}

/// Another name for a directory, without the blanks with which pkg-config's callers cannot cope.
struct Plain(PathBuf);

impl Plain {
    fn new(dir: &Path) -> Self {
        let name = std::env::temp_dir().join(format!("ioth-capi-{}", std::process::id()));
        crate::support::symlink(dir, &name);
        Plain(name)
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Compiles and links with what pkg-config says of a package.
fn with_pkg_config(root: &Plain, package: &str, source: &Path, program: &Path) {
    let mut ask = Command::new("pkg-config");
    ask.args(["--cflags", "--libs", package]).env_remove("PKG_CONFIG_PATH");
    ask.env("PKG_CONFIG_LIBDIR", root.0.join("usr/local/lib/pkgconfig"));
    let flags = succeeds(ask.env("PKG_CONFIG_SYSROOT_DIR", &root.0));
    let flags = String::from_utf8_lossy(&flags.stdout).into_owned();
    let mut gcc = Command::new("gcc");
    gcc.args(["-Wall", "-Wextra", "-Werror"]).arg(source).arg("-o").arg(program);
    succeeds(gcc.args(flags.split_whitespace()));
}

#[test]
fn what_make_installs_is_built_with_and_can_be_removed() {
    let dir = scratch("install");
    let root = dir.join("root");
    make("all", &root);
    make("install", &root);
    let lib = root.join("usr/local/lib");
    assert_eq!(files(&root.join("usr/local/include")).len(), 3);

    // The command finds its library where both were put; to the dynamic linker it cannot name a directory with a blank.
    let mut ioth = Command::new(root.join("usr/local/bin/ioth"));
    let told = ioth.args(["run", "true"]).env_remove("IOTH_PRELOAD").output().expect("the installed command");
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.contains("lib/ioth/libioth_preload.so: ") && told.contains("a blank"), "{told}");

    let source = here().join("tests/c/everything.c");
    let run_with = |program: &Path, args: &[&str]| {
        // Beside the program, where `run` has the loader look.
        crate::support::symlink(&lib.join("libioth.so.0"), &program.with_file_name("libioth.so.0"));
        run(program, args)
    };
    let program = dir.join("everything");
    let plain = Plain::new(&root);
    for package in ["libioth", "libiothconf", "libiothaddr"] {
        with_pkg_config(&plain, package, &source, &program);
        let told = run_with(&program, &["switch://install"]);
        assert!(told.ends_with(" checks\n"), "{package}: {told}");
    }

    // By hand, as the C library's makefiles have it: each name once, and all together.
    for libraries in [&["-liothconf", "-lioth"][..], &["-lioth", "-liothaddr", "-liothconf"]] {
        let mut gcc = Command::new("gcc");
        gcc.arg(&source).arg("-o").arg(&program).arg("-I").arg(root.join("usr/local/include"));
        succeeds(gcc.arg("-L").arg(&lib).args(libraries));
        run_with(&program, &["switch://install"]);
        let needed = succeeds(Command::new("readelf").arg("--dynamic").arg(&program));
        let needed = String::from_utf8_lossy(&needed.stdout).into_owned();
        assert_eq!(needed.lines().filter(|line| line.contains("NEEDED") && line.contains("ioth")).count(), 1);
    }

    // Without the shared library.
    let fixed = dir.join("fixed");
    std::fs::create_dir(&fixed).expect("a directory in the scratch directory");
    for name in ["libioth.a", "libiothconf.a", "libiothaddr.a"] {
        std::fs::copy(lib.join(name), fixed.join(name)).expect("an installed file");
    }
    let mut gcc = Command::new("gcc");
    gcc.arg(&source)
        .arg("-o")
        .arg(&program)
        .arg("-I")
        .arg(root.join("usr/local/include"))
        .arg("-L")
        .arg(&fixed);
    gcc.args(["-liothconf", "-lioth", "-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl"]);
    succeeds(&mut gcc);
    let needed = succeeds(Command::new("readelf").arg("--dynamic").arg(&program));
    assert!(!String::from_utf8_lossy(&needed.stdout).contains("libioth"));
    run(&program, ["switch://install"]);

    make("uninstall", &root);
    assert_eq!(files(&root), BTreeSet::new());
}

#[test]
fn every_function_has_its_manual_page() {
    let dir = scratch("manual");
    let root = dir.join("root");
    make("all", &root);
    make("install", &root);
    let man = root.join("usr/local/share/man/man3");
    for name in declared_everywhere() {
        let path = man.join(&name).with_extension("3");
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let page = text.strip_prefix(".so ").map(|to| man.join("..").join(to.trim_end()));
        let text =
            page.map_or(text, |page| std::fs::read_to_string(page).expect("the page that is referred to"));
        assert!(text.contains(&format!("{name}(")), "{name}: not in the synopsis of its page");
    }
}
