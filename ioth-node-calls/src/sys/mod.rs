//! What touches memory and the system: the crate's only unsafe code.
#![allow(unsafe_code)]

pub mod memory;
pub mod pieces;
pub mod raw;
