//! What a VDE switch, or whoever listens in its place, says on the control socket; and its clients to ours.

use std::sync::atomic::{AtomicU32, Ordering};

use ioth_vde::node::{Address, Config, Node, Request, Wanted};
use ioth_vde::vde;

/// The address of a port's data socket. One that can be read names what the bytes name, and nothing else.
pub fn vde_reply(data: &[u8]) {
    match vde::reply_path(data) {
        Ok(path) => {
            assert_eq!(data.len(), 110, "a reply is as long as struct sockaddr_un");
            let (family, name) = data.split_at(2);
            assert_eq!(family, 1u16.to_ne_bytes(), "not of AF_UNIX");
            assert!(name.starts_with(&path), "{path:?} of {name:?}");
            // A file's name ends with its first zero; an abstract one is all there is.
            assert!(path[0] == 0 || name.get(path.len()).is_none_or(|&end| end == 0), "{path:?} of {name:?}");
            assert!(path[0] != 0 || path.len() == name.len(), "{path:?} of {name:?}");
        }
        Err(wrong) => assert!(!wrong.is_empty()),
    }
}

/// A client's request. One that can be read asks for what its bytes ask for, and has nothing for a terminal to obey.
pub fn vde_request(data: &[u8]) {
    match Request::parse(data) {
        Ok(request) => {
            assert!(data.len() >= 122, "a request has its fixed part");
            assert!(!request.description.chars().any(char::is_control), "{:?}", request.description);
            assert!(
                !matches!(request.port, Wanted::Number(number) if number > u32::MAX >> 8),
                "{:?}",
                request.port
            );
            match request.address {
                Address::Path(path) => assert!(!path.as_os_str().is_empty() && path.as_os_str().len() <= 108),
                Address::Abstract(name) => assert!(name.iter().any(|&byte| byte != 0)),
            }
        }
        Err(wrong) => assert!(!wrong.to_string().is_empty()),
    }
}

/// A manager's commands, a line each. Whatever is asked, the answer has the form that clients read, and a switch that has
/// been configured in any way goes on.
pub fn vde_command(data: &[u8]) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("ioth-fuzz-{}-{count}", std::process::id()));
    let mut node = Node::open(Config::new(path)).expect("a directory for the switch");
    for line in String::from_utf8_lossy(data).lines().take(100) {
        // The files that it would read are the machine's.
        if line.trim_start().starts_with("load") {
            continue;
        }
        let Some(answer) = node.command(line) else { continue };
        let (data, status) = match answer.strip_prefix("0000 DATA END WITH '.'\n") {
            Some(rest) => rest.rsplit_once(".\n").expect("an end of the data"),
            None => ("", &answer[..]),
        };
        assert!(data.is_empty() || data.ends_with('\n'), "{line}: {answer}");
        assert!(!data.lines().any(|line| line == "."), "{line}: {answer}");
        assert!(
            status.starts_with("1") && status.ends_with('\n') && status.lines().count() == 1,
            "{line}: {answer}"
        );
    }
    let status = node.command("status/json").expect("an answer");
    assert!(status.contains("{\"version\":") && status.ends_with("}\n.\n1000 Success\n"), "{status}");
}
