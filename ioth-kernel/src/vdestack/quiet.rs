//! Whether anything that closed sockets sent is still on its way: the questions of netlink(7) that tell.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};

use ioth_core::{Domain, Errno, MsgFlags, RecvMsg, Result, SendMsg, SocketType};

use super::helper::Helper;
use crate::calls;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;

/// rtnetlink(7)
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
/// Length of `struct ndmsg`, and where its state is.
const NDMSG: usize = 12;
const NDM_STATE: usize = 8;
const NUD_INCOMPLETE: u16 = 1;

/// sock_diag(7)
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// Length of `struct inet_diag_req_v2`.
const INET_DIAG_REQ: usize = 56;
/// What a closed connection is in until its peer has acknowledged all: FIN_WAIT1, LAST_ACK, CLOSING.
const UNACKNOWLEDGED: u32 = 1 << 4 | 1 << 9 | 1 << 11;

/// Bytes of one part of an answer at most; the kernel sends 32 KiB.
const PART: usize = 64 << 10;
/// Parts of an answer that are read.
const PARTS: usize = 4096;

/// Netlink sockets of a namespace.
#[derive(Debug)]
pub(crate) struct Watch {
    route: OwnedFd,
    /// Not every kernel has it.
    diag: Option<OwnedFd>,
}

impl Watch {
    pub(crate) fn new(helper: &Helper) -> Result<Self> {
        let socket = |protocol| helper.socket(Domain::NETLINK, SocketType::RAW, protocol);
        Ok(Watch { route: socket(libc::NETLINK_ROUTE)?, diag: socket(libc::NETLINK_SOCK_DIAG).ok() })
    }

    /// Whether no packet waits for its neighbour's address and no data of a closed connection for its acknowledgement.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.is_resolving().unwrap_or(false) && !self.is_unacknowledged()
    }

    fn is_resolving(&self) -> Result<bool> {
        let mut found = false;
        dump(&self.route, RTM_GETNEIGH, &[0; NDMSG], |kind, payload| {
            let state =
                payload.get(NDM_STATE..NDM_STATE + 2).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
            found |= kind == RTM_NEWNEIGH && state.is_some_and(|state| state & NUD_INCOMPLETE != 0);
        })?;
        Ok(found)
    }

    fn is_unacknowledged(&self) -> bool {
        let Some(diag) = &self.diag else { return false };
        [libc::AF_INET, libc::AF_INET6].into_iter().any(|family| {
            let mut request = [0; INET_DIAG_REQ];
            request[0] = family as u8;
            request[1] = libc::IPPROTO_TCP as u8;
            request[4..8].copy_from_slice(&UNACKNOWLEDGED.to_ne_bytes());
            let mut found = false;
            let asked =
                dump(diag, SOCK_DIAG_BY_FAMILY, &request, |kind, _| found |= kind == SOCK_DIAG_BY_FAMILY);
            asked.is_ok() && found
        })
    }
}

/// Asks for a table, and gives each message of the answer to `take`: its type and its payload.
fn dump(socket: &OwnedFd, kind: u16, request: &[u8], mut take: impl FnMut(u16, &[u8])) -> Result<()> {
    let mut message = Vec::with_capacity(HEADER + request.len());
    message.extend_from_slice(&((HEADER + request.len()) as u32).to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    // One question at a time needs no number, and a port of its own neither.
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(request);
    calls::send(socket.as_fd(), &SendMsg::new(&[IoSlice::new(&message)]), MsgFlags::empty())?;
    let mut buffer = vec![0; PART];
    for _ in 0..PARTS {
        let mut data = [IoSliceMut::new(&mut buffer)];
        // The kernel has answered when the question was taken.
        let len = calls::recv(socket.as_fd(), &mut RecvMsg::new(&mut data), MsgFlags::DONTWAIT)?;
        let mut over = len == 0;
        for (kind, payload) in messages(&buffer[..len]) {
            over |= kind == NLMSG_DONE || kind == NLMSG_ERROR;
            take(kind, payload);
        }
        if over {
            return Ok(());
        }
    }
    Err(Errno::EMSGSIZE)
}

/// The messages of a part: type and payload. Ends before one that is cut.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes([*bytes.get(4)?, *bytes.get(5)?]);
        let payload = bytes.get(HEADER..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, payload))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_are_taken_apart() {
        let mut bytes = Vec::new();
        for (kind, payload) in [(28u16, &[1, 2, 3][..]), (3, &[])] {
            bytes.extend_from_slice(&((HEADER + payload.len()) as u32).to_ne_bytes());
            bytes.extend_from_slice(&kind.to_ne_bytes());
            bytes.extend_from_slice(&[0; 10]);
            bytes.extend_from_slice(payload);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        let all: Vec<_> = messages(&bytes).collect();
        assert_eq!(all, [(28, &[1, 2, 3][..]), (3, &[][..])]);
        assert_eq!(messages(&bytes[..18]).count(), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(0u8..40, 0..200)) {
            prop_assert!(messages(&bytes).count() <= bytes.len());
        }
    }
}
