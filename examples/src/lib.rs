//! What the example programs share: the options that say which node to be, and how failures are told.
//!
//! The programs themselves are `src/bin/*.rs`, each to be read on its own: `hello` first.
#![deny(unsafe_code)]

mod descriptor;
mod failure;
mod node;
mod place;
mod stop;
mod sys;

pub use descriptor::Descriptor;
pub use failure::{Context, Failure, finish};
pub use node::Node;
pub use place::Place;
pub use stop::Stop;
pub use sys::{interest, wait};

/// The program in the project's README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
