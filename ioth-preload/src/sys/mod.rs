//! What touches memory and the system: the crate's only unsafe code.
//!
//! * [`exports`]: the functions that programs call, instead of the C library's.
//! * [`memory`]: the program's memory, behind its pointers.
//! * [`raw`]: system calls, and the pieces that messages are made of.
//! * [`start`]: what happens before main().
#![allow(unsafe_code)]

mod exports;
pub(crate) mod memory;
pub(crate) mod pieces;
pub(crate) mod raw;
pub(crate) mod start;
