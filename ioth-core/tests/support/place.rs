//! Where cargo built a test, and how to build something else in the same place: cargo makes neither programs nor shared
//! libraries for the tests of another package.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The place, from a test's own path: `TARGET[/TRIPLE]/PROFILE/deps/NAME`.
pub(crate) struct Place {
    pub(crate) target: PathBuf,
    pub(crate) triple: Option<String>,
    /// As cargo's options have it.
    pub(crate) profile: String,
    /// Where the built files are.
    pub(crate) dir: PathBuf,
}

impl Place {
    /// Where this test was built.
    pub(crate) fn of_this_test() -> Self {
        let own = std::env::current_exe().expect("a test knows its own binary");
        let dir = own.ancestors().nth(2).expect("a test is in a directory of its profile");
        let name = |path: &Path| path.file_name().expect("no root").to_string_lossy().into_owned();
        let profile = match name(dir) {
            debug if debug == "debug" => "dev".to_owned(),
            other => other,
        };
        let parent = dir.parent().expect("the directory of a profile is in another");
        // ARCHITECTURE-VENDOR-linux-LIBRARY. A mark of cargo's in its target directory is no help: it leaves none in one
        // that it finds.
        let is_triple = name(parent).split('-').nth(2) == Some("linux");
        let (target, triple) = match is_triple {
            true => (parent.parent().expect("the directory of a triple is in another"), Some(name(parent))),
            false => (parent, None),
        };
        Self { target: target.to_owned(), triple, profile, dir: dir.to_owned() }
    }

    /// Builds what `packages` say, so that it is in [`dir`](Self::dir) then.
    ///
    /// # Panics
    /// When cargo fails.
    pub(crate) fn build(&self, packages: &[&str]) {
        let mut cargo = Command::new(cargo());
        cargo.args(["build", "--locked", "--profile", &self.profile]).args(packages);
        cargo.arg("--target-dir").arg(&self.target);
        if let Some(triple) = &self.triple {
            cargo.args(["--target", triple]);
        }
        let run = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).output().expect("cargo");
        assert!(run.status.success(), "{cargo:?}:\n{}", String::from_utf8_lossy(&run.stderr));
    }
}

/// The cargo that runs the tests, or has built them.
pub(crate) fn cargo() -> PathBuf {
    std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()).into()
}
