//! tokio's own network tests, each of its files as a module: their names are `FILE::TEST`.
#![allow(clippy::all)]

include!(concat!(env!("OUT_DIR"), "/modules.rs"));
