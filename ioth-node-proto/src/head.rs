//! What stands before a message in a pair.

use crate::{ADDR_MAX, Cursor};

/// What stands before a message in a pair: its address and lengths, of fixed size.
///
/// The message is the head, [`control_len`](Head::control_len) bytes of ancillary data, and the data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// What kind of message.
    pub kind: HeadKind,
    /// `MSG_*` flags that recvmsg(2) shows, such as `MSG_BROADCAST`.
    pub flags: u32,
    /// Length of the ancillary data in bytes, as cmsg(3) lays it out; only towards the program.
    pub control_len: u32,
    /// Where it is from or to, as a `struct sockaddr`.
    pub addr: [u8; ADDR_MAX],
    /// How much of `addr` is used, in bytes; 0 for none.
    pub addr_len: u16,
}

/// What kind of message a [`Head`] stands before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeadKind {
    /// A message of the socket.
    Message,
    /// The socket's pending error, a positive errno: recv(2) fails with it. No data.
    Error(i32),
    /// A connection for accept(2): its descriptor comes as SCM_RIGHTS. No data.
    Connection,
}

impl Head {
    /// Length in bytes.
    pub const LEN: usize = 4 + 4 + 4 + 4 + 2 + ADDR_MAX;
    const MESSAGE: u32 = 0x494f_0001;
    const ERROR: u32 = 0x494f_0002;
    const CONNECTION: u32 = 0x494f_0003;

    /// A message's head with an address, cut to [`ADDR_MAX`], and no ancillary data.
    pub fn new(kind: HeadKind, from: &[u8]) -> Head {
        let len = from.len().min(ADDR_MAX);
        let mut addr = [0; ADDR_MAX];
        addr[..len].copy_from_slice(&from[..len]);
        Head { kind, flags: 0, control_len: 0, addr, addr_len: len as u16 }
    }

    /// The address.
    pub fn addr(&self) -> &[u8] {
        &self.addr[..usize::from(self.addr_len)]
    }

    /// Its bytes.
    pub fn emit(&self) -> [u8; Head::LEN] {
        let (kind, errno) = match self.kind {
            HeadKind::Message => (Head::MESSAGE, 0),
            HeadKind::Error(errno) => (Head::ERROR, errno),
            HeadKind::Connection => (Head::CONNECTION, 0),
        };
        let mut bytes = [0; Head::LEN];
        bytes[0..4].copy_from_slice(&kind.to_ne_bytes());
        bytes[4..8].copy_from_slice(&errno.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.flags.to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.control_len.to_ne_bytes());
        bytes[16..18].copy_from_slice(&self.addr_len.to_ne_bytes());
        bytes[18..].copy_from_slice(&self.addr);
        bytes
    }

    /// From the first bytes of a message.
    pub fn parse(bytes: &[u8]) -> Option<Head> {
        let mut cursor = Cursor::new(bytes);
        let kind = u32::from_ne_bytes(cursor.take()?);
        let errno = i32::from_ne_bytes(cursor.take()?);
        let head = Head {
            kind: match kind {
                Head::MESSAGE => HeadKind::Message,
                Head::ERROR if errno > 0 => HeadKind::Error(errno),
                Head::CONNECTION => HeadKind::Connection,
                _ => return None,
            },
            flags: u32::from_ne_bytes(cursor.take()?),
            control_len: u32::from_ne_bytes(cursor.take()?),
            addr_len: u16::from_ne_bytes(cursor.take()?),
            addr: cursor.take()?,
        };
        (usize::from(head.addr_len) <= ADDR_MAX).then_some(head)
    }
}
