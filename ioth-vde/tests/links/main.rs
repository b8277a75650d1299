//! Debian's tools and the kernel are the judges of the links. `cmd://vde_plug VNL` is the C program's side of each.

mod cmd;
mod datagram;
mod overlay;
mod plug;
mod ptp;
