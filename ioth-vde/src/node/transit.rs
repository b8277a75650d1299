//! The way of frames: read in batches, sorted by where they go, sent or queued.

use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use ioth_core::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::uio::writev;
use nix::unistd::read;

use super::core::{Core, Endpoint, Token, Way, data_flags};
use super::egress::{formed, pieces, tag};
use crate::bridge::{Form, Loss};
use crate::ether::{FRAME_MAX, TAG};
use crate::{Batch, Frame, sys};

/// A frame of the batch at hand, on its way to an endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    /// Its place in the batch.
    at: usize,
    form: Form,
    /// It is for one station, and may wait for it.
    patient: bool,
}

impl Core {
    /// Reads a batch and passes it on; whether there may be more.
    pub(super) fn read(&mut self, key: usize) -> bool {
        let Some(Endpoint { port, way, .. }) = self.endpoints.get(key) else { return false };
        let port = *port;
        let mut lengths = [0; sys::BATCH];
        let received = match way {
            Way::Owner => return false,
            Way::Client(client) => sys::receive(client.data.as_fd(), &mut self.frames, &mut lengths),
            Way::Tap(fd) => tap_receive(fd, &mut self.frames, &mut lengths),
        };
        let count = match received {
            Ok(count) => count,
            // The interface was deleted.
            Err(Errno::EBADFD) => {
                self.remove_endpoint(key);
                return false;
            }
            Err(Errno::EINTR) => return true,
            // The peer closed its socket with frames of ours unread: reading took the error away, and there may be
            // frames of its own behind it.
            Err(Errno::ECONNRESET) => return true,
            Err(_) => return false,
        };
        let mut frames = std::mem::take(&mut self.frames);
        let now = self.now();
        for (at, &len) in lengths[..count].iter().enumerate() {
            // One that was cut is told by its length, and goes nowhere.
            if len > FRAME_MAX {
                self.bridge.dropped(port, Loss::Long, 1);
            } else {
                frames[at].truncate(len);
                self.plan(now, port, at, &frames[at]);
            }
        }
        self.leave(key, &frames);
        frames[..count].iter_mut().for_each(|frame| frame.restore(FRAME_MAX));
        self.frames = frames;
        count == sys::BATCH
    }

    /// Decides where a frame of the batch goes.
    pub(super) fn plan(&mut self, now: u32, port: u16, at: usize, frame: &[u8]) {
        self.to.clear();
        let decided = self.bridge.forward(now, port, frame, &mut self.to);
        if let Some(mirror) = &mut self.mirror {
            mirror.frame(port, frame);
        }
        if decided.is_err() {
            return;
        }
        let patient = self.to.len() == 1 && frame[0] & 1 == 0;
        for &(port, form) in &self.to {
            for &key in self.at.get(usize::from(port)).map_or(&[][..], Vec::as_slice) {
                let planned = self.endpoints.get_mut(key).map(|endpoint| &mut endpoint.planned);
                let Some(planned) = planned else { continue };
                let place = *planned.get_or_insert_with(|| {
                    self.plan.push((key, self.spare.pop().unwrap_or_default()));
                    self.plan.len() - 1
                });
                self.plan[place].1.push(Item { at, form, patient });
            }
        }
    }

    /// Carries out the plan for a batch of the endpoint `from`.
    pub(super) fn leave(&mut self, from: usize, frames: &[Frame]) {
        let mut plan = std::mem::take(&mut self.plan);
        for (key, mut items) in plan.drain(..) {
            self.deliver(key, from, frames, &items);
            items.clear();
            self.spare.push(items);
        }
        self.plan = plan;
    }

    fn deliver(&mut self, key: usize, from: usize, frames: &[Frame], items: &[Item]) {
        let Some(endpoint) = self.endpoints.get_mut(key) else { return };
        endpoint.planned = None;
        let port = endpoint.port;
        if matches!(endpoint.way, Way::Owner) {
            return self.deliver_to_host(port, frames, items);
        }
        let mut rest = items;
        if endpoint.egress.is_empty() && !endpoint.egress.blocked {
            while !rest.is_empty() {
                let now = &rest[..rest.len().min(sys::BATCH)];
                match send(&endpoint.way, frames, now) {
                    Ok(sent) => {
                        let bytes: usize =
                            now[..sent].iter().map(|item| item.form.resize(frames[item.at].len())).sum();
                        self.bridge.sent(port, sent as u64, bytes as u64);
                        rest = &rest[sent..];
                    }
                    Err(Trouble::Full) => break,
                    Err(Trouble::Again) => (),
                    Err(Trouble::First(loss)) => {
                        self.bridge.dropped(port, loss, 1);
                        rest = &rest[1..];
                    }
                    Err(Trouble::All(loss)) => {
                        self.bridge.dropped(port, loss, rest.len() as u64);
                        return;
                    }
                }
            }
            if rest.is_empty() {
                return;
            }
            self.block(key);
        }
        self.queue(key, from, frames, rest);
    }

    fn queue(&mut self, key: usize, from: usize, frames: &[Frame], items: &[Item]) {
        let Some(endpoint) = self.endpoints.get_mut(key) else { return };
        let mut lost = 0;
        let mut patient = false;
        for item in items {
            lost += u64::from(!endpoint.egress.push(&frames[item.at], item.form));
            patient |= item.patient;
        }
        let port = endpoint.port;
        if patient && endpoint.egress.wait(from, Instant::now()) {
            if endpoint.egress.waiters.len() == 1 {
                self.full.push(key);
            }
            if let Some(sender) = self.endpoints.get_mut(from) {
                sender.waits += 1;
            }
        }
        if lost > 0 {
            self.bridge.dropped(port, Loss::Full, lost);
        }
    }

    /// Has the system tell when it has room.
    fn block(&mut self, key: usize) {
        let Some(endpoint) = self.endpoints.get_mut(key) else { return };
        if !std::mem::replace(&mut endpoint.egress.blocked, true) {
            self.set_interest(key);
        }
    }

    fn set_interest(&self, key: usize) {
        let Some(Endpoint { way, egress, .. }) = self.endpoints.get(key) else { return };
        let Some(fd) = way.fd() else { return };
        let mut flags = data_flags();
        flags.set(EpollFlags::EPOLLOUT, egress.blocked);
        // It can only fail for want of memory: then the queue is emptied when the next frame comes.
        let _ = self.epoll.modify(fd, &mut EpollEvent::new(flags, Token::Data(key).pack()));
    }

    /// Sends what waits in an endpoint's queue.
    pub(super) fn flush(&mut self, key: usize) {
        let Some(endpoint) = self.endpoints.get_mut(key) else { return };
        let port = endpoint.port;
        let mut full = false;
        while !endpoint.egress.is_empty() {
            let whole: Vec<sys::Pieces<'_>> = endpoint
                .egress
                .front()
                .map(|frame| [IoSlice::new(frame), IoSlice::new(&[]), IoSlice::new(&[])])
                .collect();
            match trouble(send_pieces(&endpoint.way, &whole)) {
                Ok(sent) => {
                    let bytes = endpoint.egress.advance(sent);
                    self.bridge.sent(port, sent as u64, bytes as u64);
                }
                Err(Trouble::Full) => {
                    full = true;
                    break;
                }
                Err(Trouble::Again) => (),
                Err(Trouble::First(loss)) => {
                    endpoint.egress.advance(1);
                    self.bridge.dropped(port, loss, 1);
                }
                Err(Trouble::All(loss)) => {
                    let lost = endpoint.egress.len();
                    endpoint.egress.advance(lost);
                    self.bridge.dropped(port, loss, lost as u64);
                }
            }
        }
        if endpoint.egress.blocked != full {
            endpoint.egress.blocked = full;
            self.set_interest(key);
        }
        self.release(key);
    }

    /// Lets those go on who waited for an endpoint that has room now, or is too slow to be waited for.
    pub(super) fn release(&mut self, key: usize) {
        let Some(endpoint) = self.endpoints.get_mut(key) else { return };
        if endpoint.egress.waiters.is_empty() || !(endpoint.egress.has_room() || endpoint.egress.is_slow()) {
            return;
        }
        self.full.retain(|other| *other != key);
        for waiter in endpoint.egress.take_waiters() {
            self.resume(waiter);
        }
    }

    pub(super) fn resume(&mut self, key: usize) {
        let Some(endpoint) = self.endpoints.get_mut(key) else { return };
        endpoint.waits = endpoint.waits.saturating_sub(1);
        self.enlist(key);
    }

    fn deliver_to_host(&mut self, port: u16, frames: &[Frame], items: &[Item]) {
        let Some(host) = &mut self.host else { return };
        let mut bytes = 0;
        for item in items {
            let copy = formed(&frames[item.at], item.form);
            bytes += copy.len();
            host.inbox.push_back(copy);
        }
        self.bridge.sent(port, items.len() as u64, bytes as u64);
    }

    /// Takes frames of the node's owner, from the front; what stays has to wait.
    pub(super) fn send_from_host(&mut self, frames: &mut Batch) {
        let Some(key) = self.host.as_ref().map(|host| host.key) else { return };
        let now = self.now();
        let mut chunk = Vec::with_capacity(frames.len().min(sys::BATCH));
        while !frames.is_empty() {
            if self.endpoints.get(key).is_none_or(|endpoint| endpoint.waits > 0) {
                if let Some(host) = &mut self.host {
                    host.told = true;
                }
                return;
            }
            chunk.clear();
            chunk.extend(frames.drain(..frames.len().min(sys::BATCH)));
            for (at, frame) in chunk.iter().enumerate() {
                self.plan(now, 0, at, frame);
            }
            self.leave(key, &chunk);
        }
    }

    /// Whether the owner, who was told to wait, need not any more.
    pub(super) fn host_may_go_on(&mut self) -> bool {
        let Some(host) = &mut self.host else { return false };
        let free = self.endpoints.get(host.key).is_some_and(|endpoint| endpoint.waits == 0);
        free && std::mem::take(&mut host.told)
    }
}

/// Why not all was sent.
enum Trouble {
    /// No room: it will be told when there is some.
    Full,
    Again,
    /// The first frame is lost.
    First(Loss),
    /// All are lost.
    All(Loss),
}

fn trouble(result: Result<usize, Errno>) -> Result<usize, Trouble> {
    result.map_err(|errno| match errno {
        Errno::EAGAIN => Trouble::Full,
        Errno::EINTR => Trouble::Again,
        Errno::EMSGSIZE => Trouble::First(Loss::TooLong),
        // The socket polls OUT all the while: waiting for that would be spinning. (EIO: the interface is down.)
        Errno::ENOBUFS | Errno::ENOMEM | Errno::EIO => Trouble::First(Loss::Refused),
        // Its data socket is closed or another's. If the client is gone, the control socket tells.
        _ => Trouble::All(Loss::Refused),
    })
}

/// Sends datagrams, as [`sys::send_pieces`].
fn send_pieces(way: &Way, datagrams: &[sys::Pieces<'_>]) -> Result<usize, Errno> {
    match way {
        Way::Owner => Ok(datagrams.len()),
        Way::Client(client) => sys::send_pieces(client.data.as_fd(), datagrams),
        Way::Tap(fd) => tap_send(fd, datagrams),
    }
}

/// A TAP device takes one frame a call.
fn tap_send(fd: &OwnedFd, datagrams: &[sys::Pieces<'_>]) -> Result<usize, Errno> {
    for (sent, pieces) in datagrams.iter().enumerate() {
        match writev(fd, pieces) {
            Ok(_) => (),
            Err(errno) if sent == 0 => return Err(errno),
            // It is told of when it is the first.
            Err(_) => return Ok(sent),
        }
    }
    Ok(datagrams.len())
}

/// Reads a frame of a TAP device into each, as [`sys::receive`].
fn tap_receive(
    fd: &OwnedFd,
    frames: &mut [Frame],
    lengths: &mut [usize; sys::BATCH],
) -> Result<usize, Errno> {
    for (at, (frame, length)) in frames.iter_mut().zip(lengths).enumerate() {
        // The kernel cuts without a word: a byte more than the longest has tells.
        frame.restore(FRAME_MAX + 1);
        match read(fd, frame) {
            Ok(len) => *length = len,
            Err(errno) => {
                frame.truncate(FRAME_MAX);
                return if at == 0 { Err(errno) } else { Ok(at) };
            }
        }
    }
    Ok(frames.len().min(sys::BATCH))
}

fn send(way: &Way, frames: &[Frame], items: &[Item]) -> Result<usize, Trouble> {
    let mut tags = [[0; TAG]; sys::BATCH];
    for (place, item) in tags.iter_mut().zip(items) {
        *place = tag(&frames[item.at], item.form);
    }
    let mut datagrams = [[IoSlice::new(&[]); 3]; sys::BATCH];
    for ((place, item), tag) in datagrams.iter_mut().zip(items).zip(&tags) {
        *place = pieces(&frames[item.at], item.form, tag).map(IoSlice::new);
    }
    trouble(send_pieces(way, &datagrams[..items.len()]))
}
