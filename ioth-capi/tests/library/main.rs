//! The library as C programmers have it: compiled against by gcc, linked both ways, installed, looked into.

mod headers;
mod install;
mod programs;
mod support;
