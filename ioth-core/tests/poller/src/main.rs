//! Polls the descriptor that it inherited as standard error, and tells on standard output what it saw. What else it
//! inherited it closes.
//!
//! Each line on standard input is a command, each answer a line; events are answered as the number that
//! poll(2) and epoll(7) use (their bits have the same values), 0 for none:
//!
//! | command | answer |
//! |---|---|
//! | `poll` | what poll(2) says now |
//! | `select` | what select(2) says now: 1 readable, 4 writable, 2 exceptional |
//! | `epoll-lt`, `epoll-et` | what level- or edge-triggered epoll says now |
//! | `wait N` | what poll(2) says once one of the bits `N` holds, at most ten seconds later |
//! | `so_error` | SO_ERROR, which is cleared by that |
//! | `nonblock` | 1 when O_NONBLOCK is set |
//! | `close` | closes it, and answers 0 |
#![deny(unsafe_code)]

use std::io::{self, BufRead, Write};

mod sys;

fn main() -> io::Result<()> {
    sys::close_others()?;
    let level = sys::Epoll::new(false)?;
    let edge = sys::Epoll::new(true)?;
    let mut stdout = io::stdout();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let answer = match line.split_once(' ').unwrap_or((&line, "")) {
            ("poll", _) => sys::poll(sys::ALL, 0)?,
            ("select", _) => sys::select()?,
            ("wait", bits) => sys::poll(bits.parse().map_err(io::Error::other)?, 10_000)?,
            ("epoll-lt", _) => level.wait()?,
            ("epoll-et", _) => edge.wait()?,
            ("so_error", _) => sys::so_error()?,
            ("nonblock", _) => sys::nonblock()?,
            ("close", _) => sys::close()?,
            _ => return Err(io::Error::other(format!("unknown command \"{line}\""))),
        };
        writeln!(stdout, "{answer}")?;
        stdout.flush()?;
    }
    Ok(())
}
