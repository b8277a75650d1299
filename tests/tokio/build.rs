//! Makes a module of each of tokio's files of network tests.
//!
//! `TOKIO_TESTS` is the folder of tokio's tests, where cargo has unpacked its crate: who builds this knows it from
//! `cargo metadata`.

use std::path::Path;
use std::{env, fs};

/// How the names of the files begin that are about the network.
const FILES: [&str; 7] = ["buffered", "io_copy_bidirectional", "io_driver", "net_", "tcp_", "udp", "no_rt"];
/// Those of them that are about pipes.
const NOT: [&str; 2] = ["net_named_pipe", "net_unix_pipe"];

fn main() {
    println!("cargo::rerun-if-env-changed=TOKIO_TESTS");
    println!("cargo::rerun-if-changed=build.rs");
    let folder = env::var("TOKIO_TESTS").expect("TOKIO_TESTS is the folder of tokio's tests");
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut names: Vec<_> = files
        .filter_map(|file| file.ok()?.file_name().to_str()?.strip_suffix(".rs").map(str::to_owned))
        .filter(|name| FILES.iter().any(|start| name.starts_with(start)) && !NOT.contains(&name.as_str()))
        .collect();
    names.sort();
    let modules: String =
        names.iter().map(|name| format!("#[path = \"{folder}/{name}.rs\"]\nmod {name};\n")).collect();
    let out = env::var("OUT_DIR").expect("cargo names it");
    fs::write(Path::new(&out).join("modules.rs"), modules).expect("cargo's folder can be written");
}
