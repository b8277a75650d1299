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

/// How large a connection's buffers are. Both are rings whose every page is used in turn, and a small one stays in the
/// processor's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// For a peer that answers within milliseconds: 1 MiB each way.
    Near,
    /// For what is under way on a longer path: 6 MiB to receive, 4 MiB to send, as Linux's tcp_rmem and tcp_wmem have it.
    Far,
}

impl Size {
    /// The receive buffer in bytes: the largest window that it can offer.
    pub(crate) const fn receive(self) -> usize {
        match self {
            Size::Near => 1 << 20,
            Size::Far => 6 << 20,
        }
    }

    /// The send buffer in bytes.
    pub(crate) const fn send(self) -> usize {
        match self {
            Size::Near => 1 << 20,
            Size::Far => 4 << 20,
        }
    }

    const fn slot(self) -> usize {
        self.receive() + self.send()
    }

    /// Slots that are reserved at once: addresses, no memory.
    const fn slots_per_chunk(self) -> usize {
        match self {
            Size::Near => 256,
            Size::Far => 32,
        }
    }
}

/// A freed slot that moved more than this gives its memory back to the system; others stay warm.
pub(crate) const WARM_BYTES: usize = 16 << 10;

/// A forked child leaves its parent's sockets alone, and takes slots of its own.
static ARENAS: PerProcess<[Mutex<Arena>; 2]> = PerProcess::new();

#[derive(Default)]
struct Arena {
    free: Vec<Slot>,
}

/// A piece of the arena that nobody else has.
struct Slot {
    base: NonNull<u8>,
    size: Size,
}

// SAFETY: a slot is a unique owner of its memory, which is not tied to any thread.
unsafe impl Send for Slot {}
// SAFETY: nothing can be reached through a shared reference to a slot.
unsafe impl Sync for Slot {}

impl Slot {
    /// The most recently freed slot, or a fresh one. `None` when the address space is used up.
    fn take(size: Size) -> Option<Slot> {
        let mut arena = arena(size).lock();
        if arena.free.is_empty() {
            arena.reserve(size)?;
        }
        arena.free.pop()
    }

    /// Gives pages of the slot back to the system, those that lie wholly between two offsets.
    fn give_back(&mut self, from: usize, to: usize) {
        let from = from.next_multiple_of(PAGE);
        let to = to.min(self.size.slot()) / PAGE * PAGE;
        if from >= to {
            return;
        }
        // Needed: to give the memory back and keep the addresses.
        // SAFETY: the range lies within the slot, which is this process's own; its bytes become zero, and who lets go of
        // them wants nothing of what they were.
        let _ = unsafe { madvise(self.base.add(from).cast(), to - from, MmapAdvise::MADV_DONTNEED) };
    }
}

/// What memory is given back in. On machines with larger pages the system refuses a range that is none of theirs.
const PAGE: usize = 4096;

fn arena(size: Size) -> &'static Mutex<Arena> {
    &ARENAS.get_or_init(Default::default)[size as usize]
}

impl Arena {
    fn reserve(&mut self, size: Size) -> Option<()> {
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // Where addresses are limited (RLIMIT_AS, vm.overcommit_memory = 2), fewer at once may still be had.
        let (slots, len, base) = [size.slots_per_chunk(), 8, 1].into_iter().find_map(|slots| {
            let len = NonZeroUsize::new(size.slot() * slots)?;
            // Needed: reserving addresses without memory is what no safe allocation can do.
            // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no memory of ours.
            let base =
                unsafe { mmap_anonymous(None, len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags) };
            base.ok().map(|base| (slots, len, base.cast::<u8>()))
        })?;
        // Needed: huge pages would make one byte of a slot cost 2 MiB.
        // SAFETY: the range was mapped just above; the advice changes no content.
        let _ = unsafe { madvise(base.cast(), len.get(), MmapAdvise::MADV_NOHUGEPAGE) };
        self.free.extend((0..slots).rev().map(|i| {
            // Needed: the slots lie one behind the other in the mapping.
            // SAFETY: i times the slot's length is below the mapping's length.
            Slot { base: unsafe { base.add(i * size.slot()) }, size }
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
    /// A closed socket that takes `receive` bytes, at most what the size has. `None` when the address space is used up.
    pub(crate) fn new(size: Size, receive: usize) -> Option<TcpCell> {
        let receive = receive.clamp(1, size.receive());
        let slot = Slot::take(size)?;
        // Needed: smoltcp takes slices, the arena has addresses.
        // SAFETY: the slot is mapped, initialised (zero or used) memory that only this cell owns, as long as its size says;
        // the two ranges do not overlap (`receive` is at most the first one's), and `set`, which holds them, is dropped before the slot is freed.
        let (receive, send) = unsafe {
            let receive = std::slice::from_raw_parts_mut(slot.base.as_ptr(), receive);
            let send = std::slice::from_raw_parts_mut(slot.base.as_ptr().add(size.receive()), size.send());
            (receive, send)
        };
        let mut set = SocketSet::new(Vec::with_capacity(1));
        let handle = set.add(tcp::Socket::new(tcp::SocketBuffer::new(receive), tcp::SocketBuffer::new(send)));
        Some(TcpCell { set, handle, slot: Some(slot), moved: 0 })
    }

    /// How large its slot is.
    pub(crate) fn size(&self) -> Size {
        self.slot.as_ref().map_or(Size::Near, |slot| slot.size)
    }

    /// Gives back the memory of the receive ring but for `live` bytes from `start` on, which may go round its end.
    pub(crate) fn trim_receive(&mut self, start: usize, live: usize) {
        let ring = self.socket().recv_capacity();
        let Some(slot) = &mut self.slot else { return };
        let end = start + live;
        if end <= ring {
            slot.give_back(0, start);
            slot.give_back(end, ring);
        } else {
            slot.give_back(end - ring, start);
        }
    }

    /// Gives back the memory of the send ring, which has to be empty.
    pub(crate) fn trim_send(&mut self) {
        let Some(slot) = &mut self.slot else { return };
        slot.give_back(slot.size.receive(), slot.size.slot());
    }

    /// Bytes of its slot that are in memory.
    #[cfg(test)]
    pub(crate) fn resident(&self) -> usize {
        let Some(slot) = &self.slot else { return 0 };
        let mut pages = vec![0u8; slot.size.slot() / PAGE];
        // Needed: nobody else knows which pages there are.
        // SAFETY: the slot is mapped, and the vector has a byte for each of its pages.
        let told =
            unsafe { nix::libc::mincore(slot.base.as_ptr().cast(), slot.size.slot(), pages.as_mut_ptr()) };
        assert_eq!(told, 0);
        pages.iter().filter(|page| **page & 1 != 0).count() * PAGE
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
        let Some(mut slot) = self.slot.take() else { return };
        if self.moved > WARM_BYTES {
            slot.give_back(0, slot.size.slot());
        }
        arena(slot.size).lock().free.push(slot);
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
        for size in [Size::Near, Size::Far] {
            let count = size.slots_per_chunk() + 2;
            let cells: Vec<_> = (0..count).map(|_| TcpCell::new(size, size.receive()).unwrap()).collect();
            let mut slots: Vec<_> =
                cells.iter().map(|cell| cell.slot.as_ref().unwrap().base.as_ptr() as usize).collect();
            slots.sort_unstable();
            assert!(slots.windows(2).all(|pair| pair[1] - pair[0] >= size.slot()));
            assert_eq!(cells[0].socket().recv_capacity(), size.receive());
            assert_eq!(cells[0].socket().send_capacity(), size.send());
        }
    }

    #[test]
    fn what_is_live_survives_trimming() {
        let size = Size::Near;
        let ring = size.receive();
        for (start, live) in
            [(0, 0), (0, 5000), (10_000, 100_000), (ring - 3000, 9000), (ring - 1, 1), (5, ring)]
        {
            let mut cell = TcpCell::new(size, ring).unwrap();
            let base = cell.slot.as_ref().unwrap().base;
            // Needed: to look at the ring as smoltcp does.
            // SAFETY: the slot is the cell's own, and nobody else looks meanwhile.
            let bytes = unsafe { std::slice::from_raw_parts_mut(base.as_ptr(), size.slot()) };
            bytes.fill(7);
            cell.trim_receive(start, live);
            assert!((start..start + live).all(|at| bytes[at % ring] == 7), "{start} {live}");
            let kept = bytes[..ring].iter().filter(|byte| **byte == 7).count();
            assert!(kept <= live + 2 * PAGE, "{start} {live}: {kept}");
            assert!(bytes[ring..].iter().all(|byte| *byte == 7));
            cell.trim_send();
            assert!(bytes[ring..].iter().all(|byte| *byte == 0));
        }
    }
}
