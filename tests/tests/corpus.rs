//! Inputs that fuzzing found worth keeping, once more, one after another.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ioth_tests::fuzz::ENTRIES;

#[test]
fn every_input_does_no_harm() {
    for (name, entry) in ENTRIES {
        let files = corpus(name);
        assert!(!files.is_empty(), "no corpus in fuzz/corpus/{name}");
        for file in files {
            let data = std::fs::read(&file).expect("a file of the corpus");
            let outcome = std::panic::catch_unwind(|| entry(&data));
            assert!(outcome.is_ok(), "{name} fails on {}", file.display());
        }
    }
}

#[test]
fn every_target_is_an_entry_and_every_entry_a_target() {
    let manifest = std::fs::read_to_string(fuzz().join("Cargo.toml")).expect("fuzz/Cargo.toml");
    let declared: BTreeSet<_> = manifest
        .split("[[bin]]")
        .skip(1)
        .map(|bin| {
            let value = |key| {
                bin.lines()
                    .find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix("= "))
                    .map(|value| value.trim_matches('"'))
            };
            let name = value("name").expect("each [[bin]] of fuzz/Cargo.toml has a name");
            assert_eq!(
                value("path"),
                Some(&*format!("fuzz_targets/{name}.rs")),
                "of {name} in fuzz/Cargo.toml"
            );
            name.to_owned()
        })
        .collect();
    let replayed: BTreeSet<_> = ENTRIES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(
        declared, replayed,
        "the targets in fuzz/Cargo.toml, and the entries whose corpora are replayed"
    );
    let files = names(&fuzz().join("fuzz_targets"));
    assert_eq!(
        files,
        replayed.iter().map(|name| format!("{name}.rs")).collect(),
        "the files in fuzz/fuzz_targets"
    );
    assert_eq!(names(&fuzz().join("corpus")), replayed, "the directories in fuzz/corpus");
    for name in &replayed {
        let target = fuzz().join(format!("fuzz_targets/{name}.rs"));
        let text = std::fs::read_to_string(&target).expect("a target");
        assert!(text.contains(&format!("fuzz::{name}(")), "{} calls another entry", target.display());
    }
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    entries
        .map(|entry| entry.expect("a directory's entry").file_name().to_string_lossy().into_owned())
        .collect()
}

fn corpus(name: &str) -> Vec<PathBuf> {
    let dir = fuzz().join("corpus").join(name);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a directory's entry").path()).collect();
    files.sort();
    files
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a directory of the workspace").join("fuzz")
}
