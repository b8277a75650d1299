//! tokio's own network tests: what passes on the kernel passes under `ioth run`.
//!
//! Its crate ships them, and the package `tests/tokio` makes one program of them. `tokio/network.txt` are the names of those
//! that pass on the kernel, in a namespace with loopback up, for the version in `tests/tokio/Cargo.lock`; where the program
//! is, `cargo test --test run tokio -- --nocapture` tells:
//! `unshare -n sh -c 'ip link set lo up; PROGRAM' | sed -n 's/^test \(.*\) \.\.\. ok$/\1/p' | sort`

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cargo_metadata::{Message, MetadataCommand};

use crate::world::{built, ids, in_world};

/// Builds the program; its path.
fn program() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("tokio");
    let manifest = package.join("Cargo.toml");
    let options = ["--locked".to_owned()];
    let metadata = MetadataCommand::new().manifest_path(&manifest).other_options(options).exec();
    let metadata = metadata.unwrap_or_else(|error| panic!("{}: {error}", manifest.display()));
    let tokio =
        metadata.packages.iter().find(|package| package.name == "tokio").expect("it depends on tokio");
    let tests = tokio.manifest_path.parent().expect("a manifest is in a folder").join("tests");
    // Beside our own, which cargo locks for others.
    let target =
        built().ioth.ancestors().nth(2).expect("a program is in a directory of its profile").join("tokio");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()));
    cargo
        .args(["test", "--no-run", "--locked", "--message-format=json", "--target-dir"])
        .arg(&target)
        .env("TOKIO_TESTS", &tests)
        .current_dir(&package)
        .stdin(Stdio::null());
    let run = cargo.output().expect("cargo");
    let messages = Message::parse_stream(&run.stdout[..]).flatten();
    let executable = messages
        .filter_map(|message| match message {
            Message::CompilerArtifact(artifact) => artifact.executable,
            _ => None,
        })
        .last();
    match executable {
        Some(executable) if run.status.success() => executable.into(),
        _ => panic!("{cargo:?}:\n{}", String::from_utf8_lossy(&run.stderr)),
    }
}

/// The names of the tests that went well, of what the test harness says.
fn passed(output: &str) -> BTreeSet<String> {
    let told = output.lines().filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... ok"));
    told.map(str::to_owned).collect()
}

#[test]
fn network() {
    let program = program();
    println!("{}", program.display());
    in_world(|world| {
        let run = world.run_on("stack=smoltcp", program.to_str().expect("a path of cargo's")).finish();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/run/tokio");
        let kernel = ids(&folder.join("network.txt"));
        assert!(!kernel.is_empty());
        let missing: Vec<_> = kernel.difference(&passed(&run.text())).cloned().collect();
        assert!(
            missing.is_empty(),
            "pass on the kernel, and not here: {missing:#?}\n{}{}",
            run.text(),
            run.stderr
        );
        run.succeeded();
        world.wait_for_nodes(0);
    });
}
