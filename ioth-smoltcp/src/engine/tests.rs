//! Engines on a virtual LAN in virtual time.

mod lan;
mod tcp;
