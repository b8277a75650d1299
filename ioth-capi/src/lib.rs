//! The C library: `ioth.h`, `iothconf.h` and `iothaddr.h`, in `libioth.so.0` and `libioth.a`.
//!
//! ```text
//!   ioth.h ...   what a C program sees          include/, man/
//!   sys          one function for each name     pointers become slices, lengths are looked at
//!   outcome      errno and return value, and the border that no panic crosses
//!   handle       which stack a `struct ioth *` is
//!   exit         the end of the program
//!   ioth         all the rest
//! ```
//!
//! This crate translates; what the calls do is in the crates below, and documented in the manual pages.
#![deny(unsafe_code)]

mod dialog;
mod exit;
mod handle;
mod names;
mod outcome;
mod sys;
