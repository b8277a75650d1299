//! Ancillary data of sendmsg(2) and recvmsg(2), as cmsg(3) lays it out.
//!
//! [`messages`] reads what a caller of sendmsg(2) wrote, with Linux's checks; [`Writer`] fills the buffer of a caller of
//! recvmsg(2), and cuts where Linux cuts; [`push`] builds what is to be sent.
//!
//! ```
//! use ioth_core::control;
//!
//! let mut sent = Vec::new();
//! control::push(&mut sent, libc::IPPROTO_IP, libc::IP_TTL, &7i32.to_ne_bytes());
//! let message = control::messages(&sent).next().unwrap().unwrap();
//! assert_eq!((message.kind, message.as_i32()), (libc::IP_TTL, Some(7)));
//! ```

use crate::{Errno, MsgFlags, Result};

/// Length of a `struct cmsghdr`, in bytes: a length in the machine's word, level and type.
pub const HEADER: usize = WORD + 8;
/// Alignment of every message, in bytes.
const WORD: usize = size_of::<usize>();

/// Room that a message of `len` bytes takes, with what fills it up to the next one: `CMSG_SPACE`.
pub const fn space(len: usize) -> usize {
    HEADER + align(len)
}

const fn align(len: usize) -> usize {
    len.next_multiple_of(WORD)
}

/// One control message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// `cmsg_level`: `SOL_SOCKET`, `IPPROTO_IP`, ...
    pub level: i32,
    /// `cmsg_type`: `SCM_*`, `IP_*`, ...
    pub kind: i32,
    /// What follows the header, without padding.
    pub data: &'a [u8],
}

impl Message<'_> {
    /// The data, where it is exactly an `int`.
    pub fn as_i32(&self) -> Option<i32> {
        self.data.try_into().ok().map(i32::from_ne_bytes)
    }
}

/// The control messages in a buffer that sendmsg(2) was given, or that recvmsg(2) filled.
///
/// # Errors
/// A message whose length cannot be (`CMSG_OK` in Linux's `socket.h`) is `EINVAL`, and the last item. A rest that is too short
/// for a header is not looked at.
pub fn messages(control: &[u8]) -> Messages<'_> {
    Messages { rest: control }
}

/// Iterator of [`messages`].
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = std::mem::take(&mut self.rest);
        if rest.len() < HEADER {
            return None;
        }
        let int = |at: usize| rest[at..at + 4].try_into().map_or(0, i32::from_ne_bytes);
        let len = rest[..WORD].try_into().map_or(0, usize::from_ne_bytes);
        if len < HEADER || len > rest.len() {
            return Some(Err(Errno::EINVAL));
        }
        self.rest = rest.get(align(len)..).unwrap_or(&[]);
        Some(Ok(Message { level: int(WORD), kind: int(WORD + 4), data: &rest[HEADER..len] }))
    }
}

/// Adds a message to a buffer for sendmsg(2).
pub fn push(control: &mut Vec<u8>, level: i32, kind: i32, data: &[u8]) {
    let at = control.len();
    control.resize(at + space(data.len()), 0);
    emit(&mut control[at..], HEADER + data.len(), level, kind, data);
}

/// Fills a caller's buffer with control messages, as Linux's `put_cmsg` does.
///
/// A message that finds no room for its header is left out, one that finds too little for its data is cut: either is
/// told by `MSG_CTRUNC`.
#[derive(Debug)]
pub struct Writer<'a> {
    buffer: &'a mut [u8],
    at: usize,
    flags: MsgFlags,
}

impl<'a> Writer<'a> {
    /// Nothing written yet.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Writer { buffer, at: 0, flags: MsgFlags::empty() }
    }

    /// Writes a message, or as much of it as fits.
    pub fn put(&mut self, level: i32, kind: i32, data: &[u8]) {
        let room = &mut self.buffer[self.at..];
        if room.len() < HEADER {
            self.flags |= MsgFlags::CTRUNC;
            return;
        }
        let len = HEADER + data.len();
        if room.len() < len {
            self.flags |= MsgFlags::CTRUNC;
        }
        let len = len.min(room.len());
        emit(room, len, level, kind, &data[..len - HEADER]);
        self.at += space(data.len()).min(room.len());
    }

    /// How many bytes are filled, and `MSG_CTRUNC` if something was cut.
    pub fn finish(self) -> (usize, MsgFlags) {
        (self.at, self.flags)
    }
}

/// Writes a header and its data. `len` counts both.
fn emit(to: &mut [u8], len: usize, level: i32, kind: i32, data: &[u8]) {
    to[..WORD].copy_from_slice(&len.to_ne_bytes());
    to[WORD..WORD + 4].copy_from_slice(&level.to_ne_bytes());
    to[WORD + 4..HEADER].copy_from_slice(&kind.to_ne_bytes());
    to[HEADER..HEADER + data.len()].copy_from_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Plain = (i32, i32, Vec<u8>);

    fn plain(control: &[u8]) -> Result<Vec<Plain>> {
        messages(control)
            .map(|item| item.map(|message| (message.level, message.kind, message.data.to_vec())))
            .collect()
    }

    fn some() -> impl Strategy<Value = Vec<Plain>> {
        proptest::collection::vec(
            (any::<i32>(), any::<i32>(), proptest::collection::vec(any::<u8>(), 0..20)),
            0..5,
        )
    }

    proptest! {
        #[test]
        fn what_is_pushed_is_read(given in some(), tail in 0..HEADER) {
            let mut control = Vec::new();
            for (level, kind, data) in &given {
                push(&mut control, *level, *kind, data);
            }
            control.resize(control.len() + tail, 0xff);
            prop_assert_eq!(plain(&control), Ok(given));
        }

        #[test]
        fn any_bytes_are_read(mut control in proptest::collection::vec(any::<u8>(), 0..80), len in 0usize..90) {
            if control.len() >= WORD {
                control[..WORD].copy_from_slice(&len.to_ne_bytes());
            }
            // It ends, and after an error there is nothing.
            let read: Vec<_> = messages(&control).collect();
            prop_assert!(read.len() <= control.len() / HEADER + 1);
            prop_assert!(read.iter().rev().skip(1).all(|item| item.is_ok()));
        }

        #[test]
        fn a_buffer_takes_what_fits(given in some(), room in 0usize..120) {
            let (mut all, mut buffer) = (vec![0; 1000], vec![0xee; room]);
            let (mut whole, mut writer) = (Writer::new(&mut all), Writer::new(&mut buffer));
            for (level, kind, data) in &given {
                whole.put(*level, *kind, data);
                writer.put(*level, *kind, data);
            }
            let ((needed, none), (filled, flags)) = (whole.finish(), writer.finish());
            prop_assert_eq!(none, MsgFlags::empty());
            prop_assert!(filled <= room && filled <= needed);
            prop_assert!(buffer[filled..].iter().all(|byte| *byte == 0xee), "only what is told is written");
            prop_assert_eq!(plain(&all[..needed]), Ok(given.clone()));
            let got = plain(&buffer[..filled]).unwrap();
            prop_assert_eq!(flags.is_empty(), got == given);
            for (got, given) in got.iter().zip(&given) {
                prop_assert!(given.2.starts_with(&got.2));
            }
        }
    }

    #[test]
    fn lengths_that_lie() {
        let mut control = Vec::new();
        push(&mut control, 1, 2, &[7; 4]);
        for (len, fine) in
            [(HEADER - 1, false), (HEADER, true), (HEADER + 4, true), (control.len() + 1, false)]
        {
            control[..WORD].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(plain(&control).is_ok(), fine, "{len}");
        }
    }
}
