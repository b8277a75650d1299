//! What the tests of the whole workspace share; nobody depends on it.
#![forbid(unsafe_code)]
