//! One netlink message and its answer, as `ioth_nldialog` has it.

use std::io::{IoSlice, IoSliceMut};

use ioth::{Domain, Errno, MsgFlags, RecvMsg, SendMsg, SockAddr, SocketType, Stack};

use crate::outcome::Result;

/// Bytes of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;

/// An acknowledgement with the request in it, or an interface with all its attributes, is less.
const ANSWER: usize = 64 << 10;

/// How long a stack may think, in seconds.
const ANSWER_SECONDS: libc::time_t = 10;

/// Sends a message to the stack and reads its answer: 0 or a positive number from an acknowledgement, the index from
/// an interface, 0 from anything else.
///
/// # Errors
/// `EINVAL` for less than a header, what the stack answers, `EBADMSG` when it is not netlink, `ETIMEDOUT` when there is
/// none (a message without `NLM_F_ACK`).
pub(crate) fn dialog(stack: &Stack, message: &mut [u8]) -> Result<i32> {
    if message.len() < HEADER {
        return Err(Errno::EINVAL.into());
    }
    // struct nlmsghdr: len u32, type u16, flags u16, seq u32, pid u32
    message[8..12].copy_from_slice(&1u32.to_ne_bytes());
    let socket = stack.socket(Domain::NETLINK, SocketType::RAW, libc::NETLINK_ROUTE)?;
    socket.bind(&SockAddr::Netlink { port: 0, groups: 0 })?;
    // struct timeval: seconds and microseconds
    let patience = [ANSWER_SECONDS, 0].map(libc::time_t::to_ne_bytes).concat();
    socket.set_option(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &patience)?;
    let to = SockAddr::Netlink { port: 0, groups: 0 };
    socket.send(&SendMsg { addr: Some(&to), ..SendMsg::new(&[IoSlice::new(message)]) }, MsgFlags::empty())?;
    let mut answer = vec![0; ANSWER];
    let len = loop {
        match socket.recv(&mut RecvMsg::new(&mut [IoSliceMut::new(&mut answer)]), MsgFlags::empty()) {
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Err(Errno::ETIMEDOUT.into()),
            received => break received?,
        }
    };
    read(&answer[..len.min(ANSWER)])
}

fn read(answer: &[u8]) -> Result<i32> {
    let kind = answer.get(4..6).ok_or(Errno::EBADMSG)?;
    let kind = u16::from_ne_bytes([kind[0], kind[1]]);
    let number = |at: usize| {
        let bytes = answer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(i32::from_ne_bytes).ok_or(Errno::EBADMSG)
    };
    match i32::from(kind) {
        libc::NLMSG_ERROR => match number(HEADER)? {
            error if error < 0 => Err(Errno::from_raw(error.checked_neg().unwrap_or(libc::EIO)).into()),
            value => Ok(value),
        },
        // struct ifinfomsg: family u8, pad u8, type u16, index i32
        _ if kind == libc::RTM_NEWLINK => Ok(number(HEADER + 4)?),
        _ => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Failure;

    fn request(kind: u16, flags: i32, body: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        message.extend_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&(flags as u16).to_ne_bytes());
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(body);
        message
    }

    /// `struct ifinfomsg` of an interface.
    fn interface(index: i32) -> Vec<u8> {
        [&[0; 4][..], &index.to_ne_bytes(), &[0; 8]].concat()
    }

    #[test]
    fn the_kernel_answers() {
        let stack = Stack::newstack("kernel", None).unwrap();
        let mut get = request(libc::RTM_GETLINK, libc::NLM_F_REQUEST, &interface(1));
        assert_eq!(dialog(&stack, &mut get), Ok(1));
        let mut absent = request(libc::RTM_GETLINK, libc::NLM_F_REQUEST, &interface(i32::MAX));
        assert_eq!(dialog(&stack, &mut absent), Err(Failure(libc::ENODEV)));
        assert_eq!(dialog(&stack, &mut get[..15]), Err(Failure(libc::EINVAL)));
    }

    #[test]
    fn answers_that_are_too_short() {
        let bad = Err(Failure(libc::EBADMSG));
        assert_eq!(read(&[]), bad);
        assert_eq!(read(&request(libc::NLMSG_ERROR as u16, 0, &[0; 3])), bad);
        assert_eq!(read(&request(libc::RTM_NEWLINK, 0, &[0; 7])), bad);
        let lowest = request(libc::NLMSG_ERROR as u16, 0, &i32::MIN.to_ne_bytes());
        assert_eq!(read(&lowest), Err(Failure(libc::EIO)));
        assert_eq!(read(&request(libc::NLMSG_DONE as u16, 0, &[])), Ok(0));
    }
}
