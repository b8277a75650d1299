//! The crates' borders: who may depend on whom, and where unsafe code may be.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Every crate of the workspace, with those of the others that it may depend on. No other arrow.
const ARROWS: &[(&str, &[&str])] = &[
    ("ioth-core", &[]),
    ("ioth-vde", &["ioth-core"]),
    ("ioth-smoltcp", &["ioth-core", "ioth-vde"]),
    ("ioth-kernel", &["ioth-core", "ioth-vde"]),
    ("ioth-conf", &["ioth-core"]),
    ("ioth", &["ioth-conf", "ioth-core", "ioth-kernel", "ioth-node-client", "ioth-smoltcp", "ioth-vde"]),
    ("ioth-capi", &["ioth"]),
    ("ioth-node-proto", &[]),
    ("ioth-node-calls", &["ioth-node-proto"]),
    ("ioth-node-client", &["ioth-core", "ioth-node-calls", "ioth-node-proto"]),
    ("ioth-node", &["ioth", "ioth-node-proto"]),
    ("ioth-preload", &["ioth-node-calls", "ioth-node-proto"]),
    ("ioth-cli", &["ioth", "ioth-node", "ioth-node-client", "ioth-node-proto"]),
];

/// Crates that are tests, benches and tools themselves: they may use everything, nothing may use them.
fn is_published(package: &cargo_metadata::Package) -> bool {
    package.publish.as_ref().is_none_or(|registries| !registries.is_empty())
}

#[test]
fn crates_depend_on_each_other_as_drawn() {
    let metadata = workspace();
    let members: BTreeSet<&str> =
        metadata.workspace_packages().iter().map(|package| &**package.name).collect();
    let mut wrong = Vec::new();
    for package in metadata.workspace_packages().into_iter().filter(|package| is_published(package)) {
        let name = &**package.name;
        let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == name) else {
            wrong.push(format!("{name}: not in ARROWS (say there what it may depend on)"));
            continue;
        };
        let normal =
            package.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development);
        for dependency in normal.filter(|dependency| members.contains(&*dependency.name)) {
            if !allowed.contains(&&*dependency.name) {
                wrong.push(format!("{name} -> {}: allowed are only {allowed:?}", dependency.name));
            }
        }
    }
    for (name, _) in ARROWS.iter().filter(|(name, _)| !members.contains(name)) {
        wrong.push(format!("{name}: in ARROWS, but not in the workspace"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_crate_root_bars_unsafe_code() {
    let mut wrong = Vec::new();
    for package in workspace().workspace_packages() {
        for target in &package.targets {
            let kinds = target.is_lib() || target.is_bin() || target.is_cdylib() || target.is_staticlib();
            if !kinds {
                continue;
            }
            let text = read(target.src_path.as_std_path());
            if !["deny", "forbid"].iter().any(|level| text.contains(&format!("\n#![{level}(unsafe_code)]"))) {
                wrong.push(format!(
                    "{}: neither #![forbid(unsafe_code)] nor #![deny(unsafe_code)]",
                    target.src_path
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_is_in_sys_alone() {
    let root = root();
    let mut wrong = Vec::new();
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    assert!(files.len() > 50, "only {} Rust files under {}", files.len(), root.display());
    for file in files {
        let path = file.strip_prefix(&root).expect("under the root");
        let is_sys = path.ends_with("sys.rs") || path.components().any(|part| part.as_os_str() == "sys");
        for (number, line) in read(&file).lines().enumerate().filter(|_| !is_sys) {
            let code = line.split("//").next().unwrap_or_default();
            let allowed = code.trim_start().starts_with('#')
                && code.contains("unsafe_code")
                && (code.contains("allow") || code.contains("expect"));
            if allowed || uses_unsafe(code) {
                wrong.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "unsafe code outside sys.rs:\n{}", wrong.join("\n"));
}

#[test]
fn every_shared_dependency_and_member_has_its_reason() {
    let text = read(&root().join("Cargo.toml"));
    let mut wrong = Vec::new();
    let (mut table, mut above) = ("", "");
    let mut open = false;
    for line in text.lines() {
        if line.starts_with('[') {
            table = line;
        } else if table == "[workspace]" && line.trim_start().starts_with('"') && !line.contains('#') {
            wrong.push(format!("no comment behind the member: {line}"));
        } else if table == "[workspace.dependencies]" && !open && line.contains('=') && !line.starts_with('#')
        {
            // Our own crates have theirs in the list of members.
            if !line.contains("path =") && !above.starts_with("# ") {
                wrong.push(format!("no comment above: {line}"));
            }
            open = line.ends_with('[');
        } else if open && line.starts_with(']') {
            open = false;
        }
        above = line;
    }
    assert!(wrong.is_empty(), "Cargo.toml: {}", wrong.join("\n"));
}

fn workspace() -> Metadata {
    let manifest = root().join("Cargo.toml");
    MetadataCommand::new().manifest_path(manifest).no_deps().exec().expect("cargo metadata of the workspace")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this package is a directory of the workspace")
        .to_owned()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Sources, without what was built and what is hidden.
fn rust_files(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let entry = entry.expect("a directory's entry");
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                rust_files(&path, files);
            }
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
}

/// Whether the keyword is there: not as part of a longer word, such as `unsafe_code`, and not in a text.
fn uses_unsafe(code: &str) -> bool {
    let words = code.match_indices("unsafe").any(|(at, word)| {
        let part = |c: char| c.is_alphanumeric() || c == '_';
        !code[..at].ends_with(part) && !code[at + word.len()..].starts_with(part)
    });
    words && !code.contains('"')
}

#[test]
fn the_keyword_is_found() {
    assert!(uses_unsafe("    unsafe { call() }"));
    assert!(uses_unsafe("pub unsafe fn call()"));
    assert!(!uses_unsafe("#![deny(unsafe_code)]"));
    assert!(!uses_unsafe("let unsafer = 1;"));
}
