//! Engines on a virtual LAN in virtual time.

mod groups;
mod hostile;
mod lan;
mod martians;
mod peer;
mod pieces;
mod tcp;
mod tcp_time;
mod udp;
