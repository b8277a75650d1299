//! Calls of streams that wait for more than there is at first: all that is to be sent, or as much as was asked for.

use std::io::{IoSlice, IoSliceMut};

use ioth_core::{Errno, Events, MsgFlags, RecvMsg, Result, SendMsg};

use super::NodeSocket;
use crate::engine::{Engine, SocketId};

impl NodeSocket {
    /// A blocking send of a stream: everything, or as much as went before an error. `sent` bytes went already.
    pub(super) fn send_all(&self, message: &SendMsg<'_>, flags: MsgFlags, mut sent: usize) -> Result<usize> {
        let wait = self.writing();
        let mut slices: Vec<IoSlice<'_>> = message.data.to_vec();
        let mut rest = &mut slices[..];
        IoSlice::advance_slices(&mut rest, sent);
        while sent == 0 || rest.iter().any(|slice| !slice.is_empty()) {
            let data = &*rest;
            let n = self.repeat(Some(&wait), || {
                self.call(|engine, id| {
                    if sent > 0 {
                        keep_error(engine, id)?;
                    }
                    engine.send(id, &SendMsg::new(data), flags)
                })
            });
            match n {
                // Nothing was to be sent, and what had to be waited for was the connection.
                Ok(0) => break,
                Ok(n) => {
                    sent += n;
                    IoSlice::advance_slices(&mut rest, n);
                }
                Err(error) if sent == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(sent)
    }

    /// A waiting recv(2) of a stream that is not content with one byte: `wanted`, or what there is at the end, at an
    /// error or after SO_RCVTIMEO.
    pub(super) fn recv_wanted(
        &self,
        message: &mut RecvMsg<'_, '_>,
        flags: MsgFlags,
        wanted: usize,
    ) -> Result<usize> {
        let wait = self.reading();
        let there = self.repeat(Some(&wait), || {
            self.call(|engine, id| {
                let enough =
                    unread(engine, id) >= wanted || engine.events(id).intersects(Events::RDHUP | Events::ERR);
                engine.want_received(id, (!enough).then_some(wanted))?;
                if enough { Ok(()) } else { Err(Errno::EAGAIN) }
            })
        });
        self.call(|engine, id| {
            engine.want_received(id, None)?;
            match engine.recv(id, message, flags) {
                Err(Errno::EAGAIN) => there.and(Err(Errno::EAGAIN)),
                received => received,
            }
        })
    }

    /// recv(2) with MSG_WAITALL: until the buffers are full, the stream ends, or an error comes.
    pub(super) fn recv_all(&self, message: &mut RecvMsg<'_, '_>, flags: MsgFlags) -> Result<usize> {
        let flags = flags - MsgFlags::WAITALL;
        let capacity = message.capacity();
        if flags.contains(MsgFlags::PEEK) {
            return self.recv_wanted(message, flags, capacity);
        }
        let wait = self.reading();
        let mut received = 0;
        let mut buffer = vec![0; capacity.min(1 << 20)];
        let outcome = loop {
            let want = (capacity - received).min(buffer.len());
            let mut part = [IoSliceMut::new(&mut buffer[..want])];
            let mut part = RecvMsg { control: &mut *message.control, ..RecvMsg::new(&mut part) };
            let n = self.repeat(Some(&wait), || {
                self.call(|engine, id| {
                    if received > 0 && unread(engine, id) == 0 {
                        keep_error(engine, id)?;
                    }
                    // SO_RCVLOWAT is not what this one waits for.
                    engine.want_received(id, Some(1))?;
                    engine.recv(id, &mut part, flags)
                })
            });
            let n = match n {
                Ok(n) => n,
                Err(error) if received == 0 => break Err(error),
                Err(_) => break Ok(received),
            };
            if n > 0 {
                // Of several segments the last one's are told.
                (message.control_len, message.flags) = (part.control_len, part.flags);
            }
            if !flags.contains(MsgFlags::TRUNC) {
                put_at(message.data, received, &buffer[..n]);
            }
            received += n;
            if n == 0 || received == capacity {
                break Ok(received);
            }
        };
        self.call(|engine, id| engine.want_received(id, None))?;
        outcome
    }
}

/// A call that has done a part reports that, and leaves a pending error to the next call: as Linux.
fn keep_error(engine: &Engine, id: SocketId) -> Result<()> {
    if engine.events(id).contains(Events::ERR) { Err(Errno::EIO) } else { Ok(()) }
}

/// Bytes received and not read.
fn unread(engine: &mut Engine, id: SocketId) -> usize {
    let mut bytes = [0; 4];
    match engine.ioctl(id, libc::FIONREAD, &mut bytes) {
        Ok(_) => u32::from_ne_bytes(bytes) as usize,
        Err(_) => 0,
    }
}

/// Copies into several buffers from an offset on.
fn put_at(to: &mut [IoSliceMut<'_>], mut offset: usize, mut from: &[u8]) {
    for slice in to {
        if offset >= slice.len() {
            offset -= slice.len();
            continue;
        }
        let n = (slice.len() - offset).min(from.len());
        slice[offset..offset + n].copy_from_slice(&from[..n]);
        from = &from[n..];
        offset = 0;
        if from.is_empty() {
            return;
        }
    }
}
