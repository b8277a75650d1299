//! What the tests of the whole workspace share; nobody depends on it.
//!
//! [`fuzz`] has the entries through which hostile input gets in: cargo-fuzz drives them in `fuzz/`, and the inputs
//! that it found worth keeping are replayed by a plain test of this package.
//!
//! [`guard`] watches whether programs open sockets of the host.
#![deny(unsafe_code)]

pub mod fuzz;
pub mod guard;
mod sys;
