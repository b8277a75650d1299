//! Engines on a virtual LAN in virtual time.

mod hostile;
mod lan;
mod tcp;
mod tcp_time;
mod udp;
