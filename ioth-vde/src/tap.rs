//! `tap://name`: the host's kernel is at the other end, as a TAP interface.
//!
//! ```text
//!   tap://t0                      the interface t0; made if it is not there, which takes CAP_NET_ADMIN
//!   tap://                        a new one, which the kernel names
//!   tap://t0[gso=0]               no super-frames either way; gso=BYTES: ours have that size at most (65535)
//!   tap://t0[checksum]            checksums are computed, rather than left to the kernel
//!   tap://t0[queues=4]            several queues of an interface that root made with multi_queue, a flow by one of them
//! ```
//! Without privileges, root makes the interface once: `ip tuntap add t0 mode tap user NAME`. Up and with addresses it is made as
//! any other interface (`ip link set t0 up`); its MTU is the link's.
//!
//! Each frame has a header in front (`struct virtio_net_hdr`), by which both sides leave TCP's segmentation and the
//! checksums undone: nobody needs them in the memory of one machine. Where the kernel is too old for that, we do without.
//! One thread of ours reads, so that one queue does, unless there are more flows at once than it has room for.
//!
//! The other way round, [`Device`] is such an interface for whoever joins a kernel to a [`Link`]: the stack `vdestack` does.

mod device;
mod macvtap;
mod queues;
mod vnet;

use std::fs::OpenOptions;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use ioth_core::Errno;
use nix::sys::uio::{readv, writev};

use crate::offload::{self, Layout};
use crate::schemes::Spec;
use crate::tally::{HEADER, Tally};
use crate::vnl::{IFNAME_MAX, Keys, Params, syntax};
use crate::wire::{Descriptor, Halt, Port, Trouble, Wire, send_trouble};
use crate::{Batch, Checksum, Frame, Link, LinkError, Properties, sys};
use queues::Queues;
use vnet::{Gso, Header};

pub use device::{Device, opening};
pub(crate) use macvtap::open as open_macvtap;

const DEVICE: &str = "/dev/net/tun";
const KEYS: Keys = &["gso", "checksum"];
const TAP_KEYS: Keys = &["gso", "checksum", "queues"];
/// Queues of one interface: what Linux has (MAX_TAP_QUEUES).
const QUEUES_MAX: u64 = 256;
/// Largest super-frame's IP packet: what IP's length has room for.
const GSO_MAX: usize = 65_535;
/// A frame at most this long is copied out of the buffer that has room for the longest.
const COPIED_MAX: usize = 1984;
/// Ethernet with two VLAN tags.
const OVERHEAD: usize = HEADER + 8;

/// Opens `tap://...`.
pub(crate) fn open(spec: &Spec<'_>) -> Result<Arc<dyn Link>, LinkError> {
    let (name, params) = spec.bracket(TAP_KEYS)?;
    check_name(name, spec.vnl)?;
    let options = options(&params)?;
    let queues = params.number("queues", 1..=QUEUES_MAX)?.unwrap_or(1);
    let failed = |(what, errno)| LinkError::Os { what: format!("{}: {what}", spec.vnl), errno };
    let tap = Tap::new(name, options, queues as usize).map_err(failed)?;
    Ok(Arc::new(Port::new(spec.vnl, tap)))
}

/// A TAP interface whose frames have no headers in front, and no work left undone; errors begin with `what`.
pub(crate) fn plain(name: &str, what: &str) -> Result<OwnedFd, LinkError> {
    check_name(name, what)?;
    interface(name, libc::IFF_TAP | libc::IFF_NO_PI)
        .map(|(fd, _)| fd)
        .map_err(|(why, errno)| LinkError::Os { what: format!("{what}: {why}"), errno })
}

fn check_name(name: &str, place: &str) -> Result<(), LinkError> {
    if name.len() > IFNAME_MAX || name.contains(['/', ':', '%']) || name.contains(char::is_whitespace) {
        return Err(syntax(format!(
            "interface name \"{name}\" in \"{place}\" (at most {IFNAME_MAX} bytes, no '/', ':', '%' or blank)",
        )));
    }
    Ok(())
}

/// What the VNL asks for.
#[derive(Clone, Copy, Debug)]
struct Options {
    gso_max: usize,
    /// Checksums may be left undone.
    offload: bool,
}

fn options(params: &Params) -> Result<Options, LinkError> {
    let gso_max = params.number("gso", 0..=GSO_MAX as u64)?.map_or(GSO_MAX, |bytes| bytes as usize);
    Ok(Options { gso_max, offload: !params.flag("checksum")? })
}

/// What failed, in words, and why.
type Failure = (String, Errno);

/// A queue of a TAP interface, and the interface's name.
fn interface(name: &str, kind: libc::c_int) -> Result<(OwnedFd, String), Failure> {
    let fd = device()?;
    let given = match sys::tun_set_interface(fd.as_fd(), name, kind) {
        // One of several queues has to say so.
        Err(Errno::EINVAL) => sys::tun_set_interface(fd.as_fd(), name, kind | libc::IFF_MULTI_QUEUE),
        other => other,
    };
    match given {
        Ok(name) => Ok((fd, name)),
        Err(errno) => Err((refusal(name, errno), errno)),
    }
}

/// Several queues of a TAP interface, and the interface's name.
fn queues_of(name: &str, count: usize) -> Result<(Queues, String), Failure> {
    let queue = |name: &str| {
        let fd = device()?;
        match sys::tun_set_interface(fd.as_fd(), name, KIND | libc::IFF_MULTI_QUEUE) {
            Ok(name) => Ok((fd, name)),
            Err(errno @ (Errno::EINVAL | Errno::E2BIG | Errno::EBUSY)) => {
                let what = format!(
                    "getting {count} queues of the interface (it has not so many that are free; as root: \
                     ip tuntap add {name} mode tap multi_queue user NAME)"
                );
                Err((what, errno))
            }
            Err(errno) => Err((refusal(name, errno), errno)),
        }
    };
    let (first, name) = queue(name)?;
    let others = (1..count).map(|_| queue(&name).map(|(fd, _)| fd)).collect::<Result<_, _>>()?;
    Ok((Queues::new(first, others), name))
}

fn device() -> Result<OwnedFd, Failure> {
    let device = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DEVICE);
    device.map(OwnedFd::from).map_err(|error| {
        let errno = crate::errno(&error);
        (opening(errno), errno)
    })
}

/// What the kernel refused, in words that say what to do about it.
fn refusal(name: &str, errno: Errno) -> String {
    let name = if name.is_empty() { "tap0" } else { name };
    let why = match errno {
        Errno::EPERM => format!(
            " (the interface is not there and may not be made by us, or is another user's; as root: \
             ip tuntap add {name} mode tap user NAME)"
        ),
        Errno::EBUSY => {
            " (another program has it, and it has one queue only: see multi_queue in ip-tuntap(8))".into()
        }
        Errno::EINVAL => " (there is an interface of that name that is no TAP)".into(),
        Errno::ENOTTY | Errno::ENOTSUP => {
            format!(" ({DEVICE} is something else; as root: mknod -m 666 {DEVICE} c 10 200)")
        }
        _ => String::new(),
    };
    format!("getting the interface{why}")
}

/// A TAP interface, seen from the outside.
#[derive(Debug)]
struct Tap {
    queues: Queues,
    properties: Properties,
    /// The kernel sends super-frames, of any size.
    super_frames: bool,
}

/// Ethernet frames, with a header in front of each.
const KIND: libc::c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

impl Tap {
    fn new(name: &str, options: Options, queues: usize) -> Result<Self, Failure> {
        let (queues, name) = if queues > 1 {
            queues_of(name, queues)?
        } else {
            let (fd, name) = interface(name, KIND)?;
            (Queues::new(fd, Vec::new()), name)
        };
        Tap::on(queues, &name, options)
    }

    /// Queues of that interface.
    fn on(queues: Queues, name: &str, Options { gso_max, offload }: Options) -> Result<Self, Failure> {
        let mtu =
            sys::interface_mtu(name).map_err(|errno| (format!("asking for the MTU of {name}"), errno))?;
        Ok(Tap::over(queues, mtu, gso_max, offload))
    }

    /// Says what the kernel may leave undone.
    fn over(queues: Queues, mtu: usize, gso_max: usize, offload: bool) -> Self {
        // What the kernel may leave to us; the other way it always takes what we leave to it.
        let super_frames = gso_max > 0 && offload;
        let wanted: &[libc::c_uint] = match (offload, super_frames) {
            (true, true) => &[vnet::CHECKSUM | vnet::TSO4 | vnet::TSO6, vnet::CHECKSUM, 0],
            (true, false) => &[vnet::CHECKSUM, 0],
            (false, _) => &[0],
        };
        for &features in wanted {
            // It is the interface's. An old kernel that knows none of it sends everything done.
            if sys::tun_set_offload(queues.first().as_fd(), features).is_ok() {
                break;
            }
        }
        let gso_max = if super_frames { gso_max } else { 0 };
        Tap { queues, properties: Properties { mtu, gso_max, trusted: offload }, super_frames }
    }

    /// Room for more than the longest frame that may come: the kernel cuts without a word.
    fn room(&self) -> usize {
        if self.super_frames { Frame::MAX } else { (self.properties.mtu + OVERHEAD + 1).min(Frame::MAX) }
    }
}

impl Wire for Tap {
    fn properties(&self) -> Properties {
        self.properties
    }

    fn descriptors(&self) -> Vec<Descriptor> {
        self.queues.descriptors()
    }

    fn send(&self, frames: &mut Batch, tally: &Tally) -> Result<(), Halt> {
        while let Some(frame) = frames.front_mut() {
            let header = outgoing(frame).to_bytes();
            match writev(self.queues.of(frame), &[IoSlice::new(&header), IoSlice::new(frame)]) {
                Ok(_) => {
                    tally.sent(1, frame.len());
                    frames.pop_front();
                }
                // The interface is down.
                Err(Errno::EIO) => tally.unreachable(frames),
                // The kernel does not like the header that we made of the frame's.
                Err(Errno::EINVAL) => tally.bad_length(frames),
                Err(errno) => match send_trouble(errno, frames, tally) {
                    Trouble::Again | Trouble::Dropped => (),
                    Trouble::Halt(halt) => return Err(halt),
                },
            }
        }
        Ok(())
    }

    fn receive(&self, which: usize, room: usize, batch: &mut Batch, tally: &Tally) -> Result<bool, Halt> {
        let longest = self.room();
        let queue = self.queues.get(which);
        let mut scratch = None;
        for _ in 0..room {
            let mut frame = scratch.take().unwrap_or_else(|| Frame::new(longest));
            let mut header = [0; vnet::LEN];
            match readv(queue, &mut [IoSliceMut::new(&mut header), IoSliceMut::new(&mut frame)]) {
                Ok(len) => {
                    let len = len.saturating_sub(vnet::LEN);
                    if len < HEADER || len >= longest {
                        tally.received_bad_length(1);
                        scratch = Some(frame);
                        continue;
                    }
                    let mut frame = if len <= COPIED_MAX {
                        let copy = Frame::copy_of(&frame[..len]);
                        scratch = Some(frame);
                        copy
                    } else {
                        frame.truncate(len);
                        frame
                    };
                    match incoming(&mut frame, &Header::from_bytes(header)) {
                        true => batch.push_back(frame),
                        false => tally.received_bad_header(1),
                    }
                }
                Err(Errno::EINTR) => scratch = Some(frame),
                Err(Errno::EAGAIN) => return Err(Halt::Wait),
                // EBADFD: the interface was deleted.
                Err(_) => return Err(Halt::Gone),
            }
        }
        Ok(true)
    }
}

/// The header for a frame of ours; what the kernel does not do is done here.
fn outgoing(frame: &mut Frame) -> Header {
    let trusted = frame.checksum == Checksum::Trusted;
    if !trusted && frame.gso_size.is_none() {
        return Header::default();
    }
    let Some(layout) = Layout::of(frame) else { return Header::default() };
    let super_frame = offload::super_frame(frame, &layout);
    if !trusted && super_frame.is_none() {
        return Header::default();
    }
    layout.fill_ip_checksum(frame);
    layout.begin_checksum(frame);
    Header {
        checksum: Some((layout.transport as u16, layout.checksum_offset() as u16)),
        valid: false,
        gso: super_frame.map(|size| Gso { size, v6: layout.v6 }),
        header_len: layout.payload as u16,
    }
}

/// Notes on the frame what the kernel left to us; `false` for what it was not asked for.
fn incoming(frame: &mut Frame, header: &Option<Header>) -> bool {
    let Some(header) = header else { return false };
    frame.gso_size = header.gso.map(|gso| gso.size);
    if header.valid {
        frame.checksum = Checksum::Trusted;
    }
    let Some((start, offset)) = header.checksum else { return true };
    let (start, offset) = (usize::from(start), usize::from(offset));
    match Layout::of(frame) {
        Some(layout) if layout.transport == start && layout.checksum_offset() == offset => {
            frame.checksum = Checksum::Trusted;
            true
        }
        // The checksum of a packet within the packet: whoever takes that out would not know.
        _ => frame.gso_size.is_none() && offload::complete(frame, start, offset, offset == 6),
    }
}

#[cfg(test)]
mod tests;
