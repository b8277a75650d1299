//! Frames: owned, recycled buffers with room in front for headers.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroU16;

use ioth_core::fork::PerProcess;
use parking_lot::Mutex;

/// A batch of frames in the order in which they travel.
pub type Batch = VecDeque<Frame>;

/// One Ethernet frame without its checksum (FCS), or one IP packet on its way to becoming one.
///
/// The buffer comes from a pool and goes back to it. Its content is whatever an earlier frame left,
/// so whoever makes a frame writes all of it.
pub struct Frame {
    buffer: Box<[u8]>,
    start: u32,
    end: u32,
    /// What is known of the transport checksum.
    pub checksum: Checksum,
    /// For a super-frame: how many bytes of TCP payload each segment on a real wire would carry.
    pub gso_size: Option<NonZeroU16>,
}

/// What is known of the checksums above layer 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// They are in the frame, and a receiver has to check them.
    #[default]
    Present,
    /// They are in the frame or not, and need not be checked: the frame never left this process's memory.
    Trusted,
}

/// Buffer sizes, smallest first: an MTU of 1500, of 9216 (VDE's largest), and a super-frame.
const CLASSES: [usize; 3] = [2048, 9472, 65_536 + 128];
/// Buffers of a class that a thread keeps for itself, and that it hands over at once.
const LOCAL: usize = 64;
const CHUNK: usize = 32;
/// Bytes of a class that the process keeps; what is freed beyond goes back to the allocator.
const GLOBAL_BYTES: usize = 16 << 20;

impl Frame {
    /// Room that every frame has in front, in bytes: Ethernet with one VLAN tag, rounded up.
    pub const HEADROOM: usize = 64;
    /// The largest frame, in bytes.
    pub const MAX: usize = CLASSES[2] - Frame::HEADROOM;

    /// A frame of `len` bytes of unspecified content, with [`HEADROOM`](Self::HEADROOM) in front.
    ///
    /// # Panics
    /// Above [`MAX`](Self::MAX) bytes.
    pub fn new(len: usize) -> Self {
        assert!(len <= Frame::MAX, "a frame of {len} bytes");
        let buffer = take(len + Frame::HEADROOM);
        Frame {
            buffer,
            start: Frame::HEADROOM as u32,
            end: (Frame::HEADROOM + len) as u32,
            checksum: Checksum::Present,
            gso_size: None,
        }
    }

    /// A frame with this content.
    pub fn copy_of(content: &[u8]) -> Self {
        let mut frame = Frame::new(content.len());
        frame.copy_from_slice(content);
        frame
    }

    /// Drops what lies behind the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.end = self.start + len as u32;
        }
    }

    /// Makes the frame `len` bytes long again, after [`truncate`](Self::truncate); what it has then is unspecified.
    ///
    /// # Panics
    /// When the buffer has no room for that.
    pub(crate) fn restore(&mut self, len: usize) {
        assert!(self.start as usize + len <= self.buffer.len(), "{len} bytes in a smaller buffer");
        self.end = self.start + len as u32;
    }

    /// How many bytes [`push_front`](Self::push_front) has room for.
    pub(crate) fn headroom(&self) -> usize {
        self.start as usize
    }

    /// Grows the frame at its front by `n` bytes of unspecified content.
    ///
    /// # Panics
    /// When the headroom is used up.
    pub fn push_front(&mut self, n: usize) {
        self.start = self.start.checked_sub(n as u32).expect("headroom for the header");
    }

    /// Drops the first `n` bytes; they become headroom.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn pull_front(&mut self, n: usize) {
        assert!(n <= self.len(), "{n} bytes off a frame of {}", self.len());
        self.start += n as u32;
    }
}

impl std::ops::Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[self.start as usize..self.end as usize]
    }
}

impl std::ops::DerefMut for Frame {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start as usize..self.end as usize]
    }
}

impl Clone for Frame {
    fn clone(&self) -> Self {
        let mut copy = Frame::copy_of(self);
        copy.checksum = self.checksum;
        copy.gso_size = self.gso_size;
        copy
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        give(std::mem::take(&mut self.buffer));
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("len", &self.len())
            .field("checksum", &self.checksum)
            .field("gso_size", &self.gso_size)
            .finish()
    }
}

/// For all threads, by class.
type Pool = [Mutex<Vec<Box<[u8]>>>; CLASSES.len()];

static POOL: PerProcess<Pool> = PerProcess::new();

thread_local! {
    static LOCAL_POOL: RefCell<[Vec<Box<[u8]>>; CLASSES.len()]> = const { RefCell::new([const { Vec::new() }; CLASSES.len()]) };
}

fn class_of(len: usize) -> usize {
    CLASSES.iter().position(|&class| len <= class).expect("a length below the largest class")
}

fn take(len: usize) -> Box<[u8]> {
    let class = class_of(len);
    let recycled = LOCAL_POOL.try_with(|local| {
        let local = &mut local.borrow_mut()[class];
        if local.is_empty() {
            let mut global = POOL.get_or_init(Pool::default)[class].lock();
            let from = global.len().saturating_sub(CHUNK);
            local.extend(global.drain(from..));
        }
        local.pop()
    });
    recycled.ok().flatten().unwrap_or_else(|| vec![0; CLASSES[class]].into_boxed_slice())
}

fn give(buffer: Box<[u8]>) {
    let Some(class) = CLASSES.iter().position(|&class| buffer.len() == class) else { return };
    // A thread that is ending has no pool any more: then the buffer goes to the allocator.
    let _ = LOCAL_POOL.try_with(|local| {
        let local = &mut local.borrow_mut()[class];
        local.push(buffer);
        if local.len() >= LOCAL {
            let mut global = POOL.get_or_init(Pool::default)[class].lock();
            let room = (GLOBAL_BYTES / CLASSES[class]).saturating_sub(global.len()).min(CHUNK);
            let from = local.len() - CHUNK;
            global.extend(local.drain(from..from + room));
            drop(global);
            local.truncate(from);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn front_and_back() {
        let mut frame = Frame::copy_of(b"payload");
        frame.push_front(2);
        frame[..2].copy_from_slice(b"h:");
        assert_eq!(&frame[..], b"h:payload");
        frame.pull_front(2);
        frame.truncate(3);
        assert_eq!(&frame[..], b"pay");
        frame.truncate(9);
        assert_eq!(frame.len(), 3);
    }

    #[test]
    fn pool_is_bounded() {
        let frames: Vec<_> = (0..20_000).map(|_| Frame::new(1514)).collect();
        drop(frames);
        assert!(POOL.get_or_init(Pool::default)[0].lock().len() <= GLOBAL_BYTES / CLASSES[0]);
    }

    #[test]
    fn largest() {
        assert_eq!(Frame::new(Frame::MAX).len(), Frame::MAX);
    }
}
