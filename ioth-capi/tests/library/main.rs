//! The library as C programmers have it: compiled against by gcc, linked both ways, installed, looked into.

mod headers;
mod install;
#[path = "../../../ioth-core/tests/support/place.rs"]
mod place;
mod programs;
mod support;
