//! A test in namespaces of its own: its binary is run again there. Tests of other crates include this file.

use std::process::Command;

const INSIDE: &str = "IOTH_TEST_NAMESPACE";

/// Whether this is such a second run.
pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs the test `name`, given with its modules, by `unshare` with these flags.
///
/// # Panics
/// When the test does, or no namespace can be made.
pub(crate) fn run(flags: &str, name: &str) {
    let run = Command::new("unshare")
        .arg(flags)
        .arg(std::env::current_exe().expect("a test knows its own binary"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap_or_else(|error| panic!("unshare: {error}; needed: apt-get install util-linux"));
    let text = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
    assert!(
        run.status.success() && text.contains("1 passed"),
        "{name} in `unshare {flags}` (needs root, or sysctl kernel.unprivileged_userns_clone=1):\n{text}"
    );
}
