//! What a VDE switch, or whoever listens in its place, says on the control socket.

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
