//! One function for each way in which bytes of others reach us. None may panic, block or grow without bound.
//!
//! A new parser gets a function here, a line in [`ENTRIES`], and a target of the same name in `fuzz/fuzz_targets`.

mod calls;
mod filter;
mod frames;
mod ingress;
mod names;
mod netlink;
mod overlay;
mod stream;
mod switch;
mod text;

pub use calls::calls;
pub use filter::filter;
pub use frames::{dialogue, frames, ip_options};
pub use ingress::{Tally, ingress, ingress_tally};
pub use names::{dns, names};
pub use netlink::{diag, netlink_reply, netlink_request};
pub use overlay::{claims, offload, overlay};
pub use stream::stream;
pub use switch::{vde_command, vde_reply, vde_request};
pub use text::{address, config, fault, rate, sockaddr, vlan, vnl};

/// What a fuzzer calls with its bytes.
pub type Entry = fn(&[u8]);

/// All entries by the names of their targets and corpora.
pub const ENTRIES: &[(&str, Entry)] = &[
    ("address", address),
    ("calls", calls),
    ("claims", claims),
    ("config", config),
    ("diag", diag),
    ("dialogue", dialogue),
    ("dns", dns),
    ("fault", fault),
    ("filter", filter),
    ("frames", frames),
    ("ingress", ingress),
    ("ip_options", ip_options),
    ("names", names),
    ("netlink_reply", netlink_reply),
    ("netlink_request", netlink_request),
    ("offload", offload),
    ("overlay", overlay),
    ("rate", rate),
    ("sockaddr", sockaddr),
    ("stream", stream),
    ("vde_command", vde_command),
    ("vde_reply", vde_reply),
    ("vde_request", vde_request),
    ("vlan", vlan),
    ("vnl", vnl),
];

/// Reads an input bit by bit; past its end there are zeros.
#[derive(Debug)]
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn i32(&mut self) -> i32 {
        i32::from_be_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    /// Up to `len` bytes.
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
