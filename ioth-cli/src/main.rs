//! The command `ioth`: unmodified programs as nodes of their own, and the networks between them.
//!
//! ```text
//!   ioth run ── checks the program, starts or joins a node ──▶ execve(2): it *is* the program from here on
//!                     │                                            │ libioth_preload.so, IOTH_NODE, lease
//!                     ▼                                            ▼
//!              ioth serve, detached ◀═════ sockets ═════ the program and its descendants
//! ```
//!
//! Nothing of the command is left in between: signals, exit status, job control and the process id are the program's own.
//! `ioth switch`, `ioth plug` and `ioth cap` are networks' switch, cable and ear; they stay in the foreground.
//!
//! The node process ends when the last program has gone, which the *lease* tells: the end of a pipe that programs inherit.
#![deny(unsafe_code)]

mod announce;
mod args;
mod cap;
mod daemon;
mod desk;
mod failure;
mod manage;
mod node;
mod plug;
mod preload;
mod program;
mod run;
mod serve;
mod start;
mod switch;
mod sys;
mod wires;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    let result = match Cli::parse_from(args::of_vde_switch(std::env::args_os())).command {
        Command::Run(run) => run::run(&run),
        Command::Node(node) => node::node(&node),
        Command::Switch(switch) => switch::switch(&switch),
        Command::Plug(plug) => plug::plug(&plug),
        Command::Cap(cap) => cap::cap(&cap),
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
