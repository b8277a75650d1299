//! Virtual Ethernet for the Internet of Threads.
//!
//! A [`Link`] is one Ethernet port into a virtual network. It is named by a VNL (virtual
//! network locator) such as `switch://lan` or `vde:///tmp/sw`, moves batches of [`Frame`]s,
//! and tells a [`Receiver`] what arrives. Tracing and faults are wrappers around any link.
//!
//! ```text
//!   engine ── send(&mut Batch) ──▶ Link ──▶ LAN, vde_switch, ...
//!     ▲                             │
//!     └── Receiver::receive ────────┘
//! ```
//!
//! | VNL | what it is |
//! |---|---|
//! | `switch://name`, `hub://name` | a [`lan`] within this process |
//! | `switch:///path`, `hub:///path` | a switch that other processes plug into: [`node`] |
//! | `vde://dir`, or just the path | a port of a VDE switch: [`vde`] |
//! | `multi://path`, `bonding://path` | several ways to one place, which others plug in: [`node`] |
//! | `cmd://command line` | a command's standard input and output: [`cmd`] |
//! | `tap://name` | the host's kernel: [`tap`] |
//! | `macvtap://name` | a network of the host's, by a macvtap interface: [`tap`] |
//! | `vxvde://[group]` | a switch made of a multicast group: [`vxvde`] |
//! | `vxlan://[group]` | VXLAN, with the kernel's devices: [`vxlan`] |
//! | `udp://port->host:port` | a cable of UDP datagrams: [`udp`] |
//! | `ptp://path` | a cable between two programs: [`ptp`] |
//! | `seqpacket://N` | a socket that was inherited: [`seqpacket`] |
//! | `null://` | nothing: [`null`] |
//! | `vlan://id{inner}` | a VLAN of any link: [`vlan`] |
//! | `rate://{inner}` | any link, no faster than that: [`rate`] |
//! | `restart://{inner}` | any link, opened again when its network has gone: [`restart`] |
//! | `pcap://file{inner}` | any link, recorded: [`pcap`] |
//! | `fault://{inner}/loss=5%` | any link, made worse: [`fault`] |
//!
//! ```
//! use ioth_vde::{Batch, Frame, open};
//!
//! let link = open("fault://{switch://lan[mtu=9000]}/delay=10ms")?;
//! let mut frames = Batch::from([Frame::copy_of(&[0xff; 60])]);
//! link.send(&mut frames)?;
//! # Ok::<_, ioth_vde::LinkError>(())
//! ```
//!
//! A program adds schemes of its own by [`register`].
//!
//! What it does not do: nothing here knows IP, but for the checksums and the segmentation that a sender left to its link.
#![deny(unsafe_code)]

pub mod bridge;
pub mod cmd;
pub mod fault;
pub mod frame;
pub mod lan;
pub mod link;
pub mod node;
pub mod null;
pub mod pcap;
pub mod pcapng;
pub mod ptp;
pub mod rate;
pub mod restart;
pub mod schemes;
pub mod seqpacket;
pub mod stream;
pub mod tap;
pub mod udp;
pub mod vde;
pub mod vlan;
pub mod vnl;
pub mod vxlan;
pub mod vxvde;

mod datagram;
mod description;
mod ether;
mod offload;
mod overlay;

mod sys;
mod tally;
mod wire;

pub use description::{NAME_MAX, describe, node_name};
pub use frame::{Batch, Checksum, Frame};
pub use lan::Lan;
pub use link::{Counters, Filter, Link, LinkError, Patience, Properties, Receiver, Waiter};
#[doc(hidden)]
pub use offload::finish as finish_offload;
#[doc(hidden)]
pub use overlay::read as read_overlay;
pub use schemes::{RegisterError, Schemes, open, register};

/// The number in an error of the operating system.
fn errno(error: &std::io::Error) -> ioth_core::Errno {
    error.raw_os_error().map_or(ioth_core::Errno::EIO, ioth_core::Errno::from_raw)
}
