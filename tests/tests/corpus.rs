//! Inputs that fuzzing found worth keeping, once more, one after another.

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
fn every_entry_has_its_target_and_is_declared() {
    let manifest = std::fs::read_to_string(fuzz().join("Cargo.toml")).expect("fuzz/Cargo.toml");
    for (name, _) in ENTRIES {
        let target = format!("fuzz_targets/{name}.rs");
        assert!(fuzz().join(&target).exists(), "fuzz/{target} is missing");
        assert!(manifest.contains(&format!("path = \"{target}\"")), "{name} is not in fuzz/Cargo.toml");
    }
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
