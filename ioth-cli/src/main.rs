//! The command `ioth`: unmodified programs as nodes of their own.
//!
//! ```text
//!   ioth run ── checks the program, starts or joins a node ──▶ execve(2): it *is* the program from here on
//!                     │                                            │ libioth_preload.so, IOTH_NODE, lease
//!                     ▼                                            ▼
//!              ioth serve, detached ◀═════ sockets ═════ the program and its descendants
//! ```
//!
//! Nothing of the command is left in between: signals, exit status, job control and the process id are the program's own.
//! The node process ends when the last program has gone, which the *lease* tells: the end of a pipe that programs inherit.
#![deny(unsafe_code)]

mod announce;
mod args;
mod desk;
mod failure;
mod named;
mod node;
mod preload;
mod program;
mod run;
mod serve;
mod start;
mod sys;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(run) => run::run(&run),
        Command::Node(node) => node::node(&node),
        Command::Serve(serve) => serve::detached(&serve),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ioth: {failure}");
            ExitCode::from(failure.status())
        }
    }
}
