//! Who is at a switch's port: the text that a client's request has for people.
//!
//! Upstream's form: `NAME user=UID pid=PID`, and ` SSH=ADDRESS` where the process came by ssh. A name `PROGRAM:NODE` tells the program and
//! its node's name; `vdeplug:` is a plug, behind which there may be anybody.

use std::path::Path;

use ioth_core::fork::Inherited;
use nix::unistd::geteuid;

/// Longest name, in bytes: the rest has room behind it in the 127 that upstream's clients send.
pub const NAME_MAX: usize = 64;

static NAME: Inherited<Option<String>> = Inherited::new(|| None, || None);

/// Names the process's links for the switches that they are plugged into from now on: `port/print` shows it, and captures have it as the name
/// of the node's addresses. Without it the name is `ioth:PROGRAM`. A VNL's own (`vde:///tmp/sw[descr=web]`) goes before.
///
/// Control characters become `?`, and what is longer than [`NAME_MAX`] bytes is cut.
///
/// ```
/// ioth_vde::describe("ioth:web");
/// ```
pub fn describe(name: &str) {
    *NAME.write() = Some(readable(name));
}

/// What a switch is told of a link.
pub(crate) fn description(own: Option<&str>) -> String {
    let name = own.map(readable).or_else(|| NAME.read().clone()).unwrap_or_else(by_program);
    let mut text = format!("{name} user={} pid={}", geteuid(), std::process::id());
    if let Some(client) = std::env::var_os("SSH_CLIENT") {
        let client = client.to_string_lossy();
        text.push_str(" SSH=");
        text.extend(client.split_whitespace().next().unwrap_or_default().chars().take(64));
    }
    text
}

/// The name of the node that a description is of: what stands before ` user=`, behind the program's name where there is one. `None` for a
/// plug, which is no node, and for who does not say.
///
/// ```
/// use ioth_vde::node_name;
///
/// assert_eq!(node_name("ioth:web user=1000 pid=77"), Some("web"));
/// assert_eq!(node_name("web server user=1000 pid=77"), Some("web server"));
/// assert_eq!(node_name("vdeplug: user=1000 pid=77"), None);
/// ```
pub fn node_name(description: &str) -> Option<&str> {
    let (who, _) = description.split_once(" user=")?;
    let name = who.rsplit_once(':').map_or(who, |(_, name)| name).trim();
    (!name.is_empty()).then_some(name)
}

fn by_program() -> String {
    let program = std::env::args_os().next();
    let name = program.as_deref().and_then(|path| Path::new(path).file_name());
    readable(&name.map_or_else(|| "ioth".to_owned(), |name| format!("ioth:{}", name.to_string_lossy())))
}

fn readable(name: &str) -> String {
    let mut text: String = name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    text.truncate(text.floor_char_boundary(NAME_MAX));
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names() {
        let rest = format!(" user={} pid={}", geteuid(), std::process::id());
        assert_eq!(description(Some("web")), format!("web{rest}"));
        let default = description(None);
        assert!(default.starts_with("ioth:") && default.ends_with(&rest), "{default}");
        assert_eq!(node_name("vdens: vde user=0 pid=1"), Some("vde"));
        for nobody in ["", "web", " user=0 pid=1", "vde_plug: user=0 pid=1"] {
            assert_eq!(node_name(nobody), None, "{nobody:?}");
        }
    }

    proptest! {
        #[test]
        fn any_name(name: String) {
            let text = description(Some(&name));
            prop_assert!(text.find(" user=").is_some_and(|at| at <= NAME_MAX) && !text.chars().any(char::is_control));
            let _ = node_name(&name);
        }
    }
}
