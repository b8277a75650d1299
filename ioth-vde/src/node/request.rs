//! What clients say on the control socket, and the answer.
//!
//! ```text
//!   version 3:  magic(4) version(4) type(4)     sockaddr_un(110) description(0..)     type: 0, or 1 for port 0;
//!   older:      magic(4) type(4) unused(6)      sockaddr_un(110) description(0..)           the port's number << 8
//!   answer:     sockaddr_un(110)
//! ```
//! All in the machine's byte order; an older request is told by its second word, which is less than 2. The address
//! is that of the client's data socket, and in the answer that of the port's.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sys::socket::UnixAddr;

/// Most bytes of a request that are looked at.
pub(super) const REQUEST_MAX: usize = 256;
/// `struct sockaddr_un`: the family in two bytes, then the path.
const ADDRESS_LEN: usize = 2 + PATH_LEN;
pub(super) const PATH_LEN: usize = 108;
/// Upstream's clients cut their description here.
const DESCRIPTION_MAX: usize = 127;

const MAGIC: u32 = 0xfeed_face;
const VERSION: u32 = 3;

/// A client's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The port that it wants.
    pub port: Wanted,
    /// Its data socket.
    pub address: Address,
    /// What it says of itself, without control characters.
    pub description: String,
}

/// Which port a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Any that is free.
    Any,
    /// This one, whoever else is there.
    Number(u32),
}

/// A data socket's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// In the file system.
    Path(PathBuf),
    /// In the network namespace: all bytes behind the first zero.
    Abstract([u8; PATH_LEN - 1]),
}

/// Error returned by [`Request::parse`]: why it is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// It is cut.
    #[error("a request of {0} bytes (its fixed part has 122, or 124 without a version)")]
    Short(usize),
    /// It does not begin as requests do.
    #[error("no request: it begins with {0:#010x} (should be 0xfeedface)")]
    Magic(u32),
    /// A version that is not known.
    #[error("protocol version {0} (3 is spoken here, and the form before versions)")]
    Version(u32),
    /// It asks for something that is not known.
    #[error("a request of type {0} (0 asks for a port, 1 for port 0)")]
    Type(u32),
    /// The address is not of AF_UNIX.
    #[error("a data socket of address family {0} (should be AF_UNIX, 1)")]
    Family(u16),
    /// The address names nothing.
    #[error("a data socket without a name")]
    Unnamed,
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, RequestError> {
        let short = RequestError::Short(bytes.len());
        let word = |at: usize| {
            let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
            word.map(u32::from_ne_bytes).ok_or(short)
        };
        let magic = word(0)?;
        if magic != MAGIC {
            return Err(RequestError::Magic(magic));
        }
        let (kind, at) = match word(4)? {
            kind @ (0 | 1) => (kind, 14),
            VERSION => (word(8)?, 12),
            version => return Err(RequestError::Version(version)),
        };
        let port = match (kind & 0xff, kind >> 8) {
            (0, 0) => Wanted::Any,
            (0, number) => Wanted::Number(number),
            (1, 0) => Wanted::Number(0),
            _ => return Err(RequestError::Type(kind)),
        };
        let (address, description) =
            bytes.get(at..).and_then(|rest| rest.split_at_checked(ADDRESS_LEN)).ok_or(short)?;
        Ok(Request { port, address: Address::parse(address)?, description: readable(description) })
    }
}

impl Address {
    /// Reads a `sockaddr_un`.
    fn parse(bytes: &[u8]) -> Result<Self, RequestError> {
        let family = u16::from_ne_bytes([bytes[0], bytes[1]]);
        if i32::from(family) != libc::AF_UNIX {
            return Err(RequestError::Family(family));
        }
        let path = &bytes[2..];
        if path.iter().all(|&byte| byte == 0) {
            return Err(RequestError::Unnamed);
        }
        if path[0] == 0 {
            let mut name = [0; PATH_LEN - 1];
            name.copy_from_slice(&path[1..]);
            return Ok(Address::Abstract(name));
        }
        let end = path.iter().position(|&byte| byte == 0).unwrap_or(path.len());
        Ok(Address::Path(PathBuf::from(OsStr::from_bytes(&path[..end]))))
    }

    /// As the kernel takes it; abstract names have their full length, as clients bind them.
    pub(super) fn to_unix(&self) -> nix::Result<UnixAddr> {
        match self {
            Address::Path(path) => UnixAddr::new(path),
            Address::Abstract(name) => UnixAddr::new_abstract(name),
        }
    }
}

/// The answer: where the port's data socket is.
pub(super) fn answer(path: &Path) -> [u8; ADDRESS_LEN] {
    let mut answer = [0; ADDRESS_LEN];
    answer[..2].copy_from_slice(&(libc::AF_UNIX as u16).to_ne_bytes());
    let bytes = path.as_os_str().as_bytes();
    let len = bytes.len().min(PATH_LEN);
    answer[2..2 + len].copy_from_slice(&bytes[..len]);
    answer
}

/// Text for terminals and logs.
fn readable(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len()).min(DESCRIPTION_MAX);
    let text = String::from_utf8_lossy(&bytes[..end]);
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(words: &[u32], unused: usize, path: &[u8], description: &[u8]) -> Vec<u8> {
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        bytes.extend(vec![0xee; unused]);
        bytes.extend(1u16.to_ne_bytes());
        bytes.extend(path);
        bytes.resize(words.len() * 4 + unused + ADDRESS_LEN, 0);
        bytes.extend(description);
        bytes
    }

    #[test]
    fn both_forms() {
        let new = request(&[MAGIC, 3, 0], 0, b"/tmp/sw/.01234-00000", b"demo user=1000 pid=1234");
        assert_eq!(new.len(), 145);
        let plain = Request {
            port: Wanted::Any,
            address: Address::Path("/tmp/sw/.01234-00000".into()),
            description: "demo user=1000 pid=1234".to_owned(),
        };
        assert_eq!(Request::parse(&new), Ok(plain.clone()));
        let old = request(&[MAGIC, 0], 6, b"/tmp/sw/.01234-00000", b"demo user=1000 pid=1234\0junk");
        assert_eq!(Request::parse(&old), Ok(plain));
        let port =
            |kind| Request::parse(&request(&[MAGIC, 3, kind], 0, b"/x", b"")).map(|request| request.port);
        assert_eq!(port(7 << 8), Ok(Wanted::Number(7)));
        assert_eq!(port(1), Ok(Wanted::Number(0)));
        assert_eq!(port(7 << 8 | 1), Err(RequestError::Type(7 << 8 | 1)));
        assert_eq!(port(2), Err(RequestError::Type(2)));
        assert_eq!(Request::parse(&request(&[MAGIC, 1], 6, b"/x", b"")).unwrap().port, Wanted::Number(0));
        let hidden = Request::parse(&request(&[MAGIC, 3, 0], 0, b"\0name", b"a\x1b[2Jb")).unwrap();
        assert!(matches!(hidden.address, Address::Abstract(name) if name.starts_with(b"name\0\0")));
        assert_eq!(hidden.description, "a?[2Jb");
    }

    #[test]
    fn what_is_no_request() {
        let whole = request(&[MAGIC, 3, 0], 0, b"/x", b"");
        for len in 4..whole.len() {
            assert_eq!(Request::parse(&whole[..len]), Err(RequestError::Short(len)));
        }
        assert_eq!(Request::parse(&[0; 200]), Err(RequestError::Magic(0)));
        for version in [2, 4, u32::MAX] {
            assert_eq!(
                Request::parse(&request(&[MAGIC, version, 0], 0, b"/x", b"")),
                Err(RequestError::Version(version))
            );
        }
        assert_eq!(Request::parse(&request(&[MAGIC, 3, 0], 0, b"", b"")), Err(RequestError::Unnamed));
        let mut inet = whole;
        inet[12] = 2;
        assert_eq!(Request::parse(&inet), Err(RequestError::Family(2)));
    }

    #[test]
    fn answers() {
        let bytes = answer(Path::new("/tmp/sw/001.6"));
        assert_eq!(Address::parse(&bytes), Ok(Address::Path("/tmp/sw/001.6".into())));
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0..8u32, form in 0..3usize) {
            let _ = Request::parse(&bytes);
            let words = [vec![MAGIC, 3, kind << 7], vec![MAGIC, kind], vec![MAGIC, 3 + kind, 0]][form].clone();
            let framed = [request(&words, 0, b"", b"")[..words.len() * 4].to_vec(), bytes].concat();
            if let Ok(request) = Request::parse(&framed) {
                prop_assert!(request.description.chars().all(|c| !c.is_control()));
                prop_assert!(request.address.to_unix().is_ok());
            }
        }
    }
}
