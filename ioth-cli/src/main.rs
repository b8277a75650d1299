//! To be written.
#![deny(unsafe_code)]
fn main() {}
