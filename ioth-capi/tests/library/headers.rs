//! The headers, and whether the library has what they say.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use crate::support::{here, library, scratch, succeeds};

const HEADERS: [&str; 3] = ["ioth.h", "iothconf.h", "iothaddr.h"];

/// The functions that a header declares, without those that it defines itself.
fn declared(header: &str) -> BTreeSet<String> {
    let path = here().join("include").join(header);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut names = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_lowercase())) {
        let Some((before, _)) = line.split_once('(') else { continue };
        let name = before.rsplit([' ', '*']).next().unwrap_or_default();
        if name.starts_with("ioth") {
            names.insert(name.to_owned());
        }
    }
    names
}

pub(crate) fn declared_everywhere() -> BTreeSet<String> {
    HEADERS.into_iter().flat_map(declared).collect()
}

#[test]
fn the_library_exports_what_the_headers_declare_and_nothing_else() {
    let declared = declared_everywhere();
    assert!(declared.len() > 50, "{declared:?}");
    let output = succeeds(Command::new("nm").args(["--dynamic", "--defined-only"]).arg(&library().shared));
    let text = String::from_utf8_lossy(&output.stdout);
    let exported: BTreeSet<String> =
        text.lines().filter_map(|line| line.split(' ').nth(2)).map(str::to_owned).collect();
    assert_eq!(exported, declared);
}

#[test]
fn the_library_has_its_name() {
    let output = succeeds(Command::new("readelf").arg("--dynamic").arg(&library().shared));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.lines().any(|line| line.contains("SONAME") && line.contains("[libioth.so.0]")), "{text}");
}

/// Compiles a text that includes a header first, with these arguments.
fn compiles(compiler: &str, extension: &str, arguments: &[&str]) {
    let dir = scratch(&format!("headers {compiler} {}", arguments.concat()));
    for header in HEADERS {
        let source = dir.join(header).with_extension(extension);
        // Twice, as programs do by including others.
        let text = format!("#include <{header}>\n#include <{header}>\nint main(void) {{ return 0; }}\n");
        std::fs::write(&source, text).expect("a file in the scratch directory");
        let mut command = Command::new(compiler);
        command.args(arguments).args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", "-I"]);
        succeeds(command.arg(here().join("include")).arg(source));
    }
}

#[test]
fn each_header_stands_alone_in_c() {
    for standard in ["-std=c99", "-std=c11", "-std=gnu17"] {
        compiles("gcc", "c", &[standard]);
    }
    // As a program that asks for the oldest interfaces, or for all.
    compiles("gcc", "c", &["-std=gnu99", "-D_POSIX_C_SOURCE=200112L"]);
    compiles("gcc", "c", &["-std=gnu11", "-D_GNU_SOURCE"]);
}

/// C++ is not needed to build or to test the library, so it is not asked for.
#[test]
fn each_header_stands_alone_in_cxx() {
    let there = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).map(|dir| dir.join("g++")).any(|program: PathBuf| program.exists())
    });
    if there {
        compiles("g++", "cc", &["-std=c++98"]);
        compiles("g++", "cc", &["-std=c++17"]);
    }
}
