//! Engines on a virtual LAN in virtual time.

mod groups;
mod headers;
mod hostile;
mod lan;
mod links;
mod loss;
mod martians;
mod peer;
mod pieces;
mod portless;
mod space;
mod tcp;
mod tcp_time;
mod udp;
