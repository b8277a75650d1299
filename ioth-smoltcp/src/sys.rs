//! The one place of this crate that the compiler cannot check: memory for TCP buffers.
//!
//! smoltcp fixes a socket's buffers when it is made. Fresh vectors would cost 100 us a socket and be
//! resident; here they are slots of an address range that is reserved once, untouched until data
//! comes, and given back when much of it was used.
#![allow(unsafe_code)]

use std::num::NonZeroUsize;
use std::ptr::NonNull;

use ioth_core::fork::PerProcess;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous};
use parking_lot::Mutex;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp;

/// Receive buffer of a connection, in bytes: the largest window that it can offer.
pub(crate) const RECEIVE_BUFFER: usize = 1 << 20;
/// Send buffer of a connection, in bytes.
pub(crate) const SEND_BUFFER: usize = 1 << 20;

const SLOT: usize = RECEIVE_BUFFER + SEND_BUFFER;
/// Slots that are reserved at once: 512 MiB of addresses, no memory.
const SLOTS_PER_CHUNK: usize = 256;
/// A freed slot that moved more than this gives its memory back to the system; others stay warm.
const WARM_BYTES: usize = 16 << 10;

/// A forked child leaves its parent's sockets alone, and takes slots of its own.
static ARENA: PerProcess<Mutex<Arena>> = PerProcess::new();

#[derive(Default)]
struct Arena {
    free: Vec<Slot>,
}

/// A piece of the arena that nobody else has.
struct Slot(NonNull<u8>);

// SAFETY: a slot is a unique owner of its memory, which is not tied to any thread.
unsafe impl Send for Slot {}
// SAFETY: nothing can be reached through a shared reference to a slot.
unsafe impl Sync for Slot {}

impl Slot {
    /// The most recently freed slot, or a fresh one. `None` when the address space is used up.
    fn take() -> Option<Slot> {
        let mut arena = ARENA.get_or_init(Mutex::default).lock();
        if arena.free.is_empty() {
            arena.reserve()?;
        }
        arena.free.pop()
    }
}

impl Arena {
    fn reserve(&mut self) -> Option<()> {
        let len = NonZeroUsize::new(SLOT * SLOTS_PER_CHUNK)?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // Needed: reserving addresses without memory is what no safe allocation can do.
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe { mmap_anonymous(None, len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags) };
        let base = base.ok()?.cast::<u8>();
        // Needed: huge pages would make one byte of a slot cost 2 MiB.
        // SAFETY: the range was mapped just above; the advice changes no content.
        let _ = unsafe { madvise(base.cast(), len.get(), MmapAdvise::MADV_NOHUGEPAGE) };
        self.free.extend((0..SLOTS_PER_CHUNK).rev().map(|i| {
            // Needed: the slots lie one behind the other in the mapping.
            // SAFETY: i * SLOT is below the mapping's length.
            Slot(unsafe { base.add(i * SLOT) })
        }));
        Some(())
    }
}

/// One smoltcp TCP socket in a set of its own, with buffers from the arena.
///
/// The socket borrows the slot. It is only lent out under a lifetime of the borrower's choice
/// ([`with`](Self::with)), so that nothing that refers to the slot can outlive it.
pub(crate) struct TcpCell {
    set: SocketSet<'static>,
    handle: SocketHandle,
    slot: Option<Slot>,
    /// Bytes that went through, as far as the owner counted them.
    pub(crate) moved: usize,
}

impl TcpCell {
    /// A closed socket that takes `receive` bytes, at most [`RECEIVE_BUFFER`]. `None` when the address space is used up.
    pub(crate) fn new(receive: usize) -> Option<TcpCell> {
        let receive = receive.clamp(1, RECEIVE_BUFFER);
        let slot = Slot::take()?;
        // Needed: smoltcp takes slices, the arena has addresses.
        // SAFETY: the slot is SLOT bytes of mapped, initialised (zero or used) memory that only this cell owns,
        // the two ranges do not overlap (`receive` is at most RECEIVE_BUFFER), and `set`, which holds them, is dropped before the slot is freed.
        let (receive, send) = unsafe {
            let receive = std::slice::from_raw_parts_mut(slot.0.as_ptr(), receive);
            let send = std::slice::from_raw_parts_mut(slot.0.as_ptr().add(RECEIVE_BUFFER), SEND_BUFFER);
            (receive, send)
        };
        let mut set = SocketSet::new(Vec::with_capacity(1));
        let handle = set.add(tcp::Socket::new(tcp::SocketBuffer::new(receive), tcp::SocketBuffer::new(send)));
        Some(TcpCell { set, handle, slot: Some(slot), moved: 0 })
    }

    /// Lends the set and the socket's handle in it.
    pub(crate) fn with<R>(&mut self, f: impl for<'a> FnOnce(&mut SocketSet<'a>, SocketHandle) -> R) -> R {
        // Needed: to shorten an invariant lifetime.
        // SAFETY: only the lifetime changes, to one that `f` cannot name: nothing from inside can leave the closure,
        // and nothing shorter-lived can enter the set.
        let set: &mut SocketSet<'_> = unsafe { std::mem::transmute(&mut self.set) };
        f(set, self.handle)
    }

    /// The socket, to look at.
    pub(crate) fn socket(&self) -> &tcp::Socket<'_> {
        self.set.get(self.handle)
    }

    /// Works on the socket itself.
    pub(crate) fn socket_mut<R>(&mut self, f: impl for<'a> FnOnce(&mut tcp::Socket<'a>) -> R) -> R {
        self.with(|set, handle| f(set.get_mut(handle)))
    }
}

impl Drop for TcpCell {
    fn drop(&mut self) {
        // The socket goes first: it refers to the slot.
        self.set = SocketSet::new(Vec::new());
        let Some(slot) = self.slot.take() else { return };
        if self.moved > WARM_BYTES {
            // Needed: to give the memory back and keep the addresses.
            // SAFETY: nobody refers to the slot any more; its content may become zero.
            let _ = unsafe { madvise(slot.0.cast(), SLOT, MmapAdvise::MADV_DONTNEED) };
        }
        ARENA.get_or_init(Mutex::default).lock().free.push(slot);
    }
}

impl std::fmt::Debug for TcpCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TcpCell").field("state", &self.socket().state()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_buffers_of_their_own() {
        let cells: Vec<_> = (0..SLOTS_PER_CHUNK + 2).map(|_| TcpCell::new(RECEIVE_BUFFER).unwrap()).collect();
        let mut slots: Vec<_> =
            cells.iter().map(|cell| cell.slot.as_ref().unwrap().0.as_ptr() as usize).collect();
        slots.sort_unstable();
        assert!(slots.windows(2).all(|pair| pair[1] - pair[0] >= SLOT));
        assert_eq!(cells[0].socket().recv_capacity(), RECEIVE_BUFFER);
        assert_eq!(cells[0].socket().send_capacity(), SEND_BUFFER);
    }
}
