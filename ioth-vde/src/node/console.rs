//! The management socket: text, as `vde_switch -M` speaks it.
//!
//! A banner and a prompt; then a line is a command, and its answer data between `0000 DATA END WITH '.'` and a line
//! with a dot, where there are any, then `1000 Success` or 1000 and an error's number, and the prompt again.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use ioth_core::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::socket::{MsgFlags, recv, send};
use slab::Slab;

use super::commands::{Answer, BANNER, Outcome};
use super::core::{Core, Token};
use super::dir::{Permit, SocketFile, listener};
use crate::{LinkError, sys};

/// Managers at once, at most.
const SESSIONS_MAX: usize = 16;
/// Longest command line, in bytes.
const LINE_MAX: usize = 4096;
const PROMPT: &str = "\nvde$ ";
const END: &str = "9999 END OF SESSION";

/// Management sockets and who is there.
#[derive(Debug, Default)]
pub(super) struct Consoles {
    pub(super) listeners: Vec<Listener>,
    sessions: Slab<Session>,
}

#[derive(Debug)]
pub(super) struct Listener {
    pub(super) path: PathBuf,
    pub(super) mode: u32,
    socket: OwnedFd,
    _file: SocketFile,
}

#[derive(Debug)]
struct Session {
    stream: OwnedFd,
    /// Not yet a line.
    input: Vec<u8>,
    /// Not yet taken. Nothing is read, and no command run, as long as there is something.
    output: Vec<u8>,
    closing: bool,
}

impl Core {
    /// A command's answer as text.
    pub(super) fn answer(&mut self, line: &str) -> Option<String> {
        match self.command(line) {
            Outcome::Answer(answer) => Some(text_of(&answer)),
            Outcome::Nothing | Outcome::Logout | Outcome::Shutdown => None,
        }
    }

    /// Listens for managers.
    pub(super) fn manage(&mut self, path: PathBuf, permit: Permit) -> Result<(), LinkError> {
        let path = std::path::absolute(&path).unwrap_or(path);
        let (socket, file) = listener(&path, permit)?;
        let at = self.consoles.listeners.len();
        self.watch(socket.as_fd(), Token::ConsoleListener(at), EpollFlags::EPOLLIN)
            .map_err(|errno| LinkError::Os { what: format!("listening at {}", path.display()), errno })?;
        self.consoles.listeners.push(Listener { path, mode: permit.mode, socket, _file: file });
        Ok(())
    }

    pub(super) fn console_knock(&mut self, at: usize) {
        let Some(listener) = self.consoles.listeners.get(at) else { return };
        // Without descriptors left the door tries again, when one is free, with the next event.
        let Ok(stream) = sys::accept(listener.socket.as_fd()) else { return };
        if self.consoles.sessions.len() >= SESSIONS_MAX {
            return;
        }
        let output = format!("{BANNER}{PROMPT}").into_bytes();
        let key =
            self.consoles.sessions.insert(Session { stream, input: Vec::new(), output, closing: false });
        let stream = self.consoles.sessions[key].stream.as_fd();
        if self.watch(stream, Token::Console(key), EpollFlags::EPOLLIN).is_err() {
            self.consoles.sessions.remove(key);
            return;
        }
        self.drain(key);
    }

    /// Whether the switch is to stop.
    pub(super) fn console_event(&mut self, key: usize, flags: EpollFlags) -> bool {
        if flags.contains(EpollFlags::EPOLLOUT) && !self.drain(key) {
            return false;
        }
        let Some(session) = self.consoles.sessions.get_mut(key) else { return false };
        if !session.output.is_empty() {
            return false;
        }
        let mut bytes = [0; 1024];
        match recv(session.stream.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(len @ 1..) => session.input.extend(&bytes[..len]),
            Err(Errno::EAGAIN | Errno::EINTR) => (),
            Ok(_) | Err(_) => {
                self.consoles.sessions.remove(key);
                return false;
            }
        }
        self.commands(key)
    }

    /// Runs the commands that are there, until an answer is not taken at once.
    fn commands(&mut self, key: usize) -> bool {
        while let Some(session) = self.consoles.sessions.get_mut(key) {
            let Some(end) = session.input.iter().position(|&byte| byte == b'\n') else {
                if session.input.len() > LINE_MAX {
                    self.consoles.sessions.remove(key);
                }
                return false;
            };
            let line: Vec<u8> = session.input.drain(..=end).collect();
            let outcome = self.command(&String::from_utf8_lossy(&line));
            let Some(session) = self.consoles.sessions.get_mut(key) else { return false };
            let (text, closing, stop) = match outcome {
                Outcome::Nothing => (PROMPT.to_owned(), false, false),
                Outcome::Answer(answer) => (format!("{}{PROMPT}", text_of(&answer)), false, false),
                Outcome::Logout => (END.to_owned(), true, false),
                Outcome::Shutdown => (END.to_owned(), true, true),
            };
            session.output.extend(text.into_bytes());
            session.closing = closing;
            let drained = self.drain(key);
            if stop {
                return true;
            }
            if !drained {
                return false;
            }
        }
        false
    }

    /// Writes what there is; whether all was taken, by somebody who is still there.
    fn drain(&mut self, key: usize) -> bool {
        let Some(session) = self.consoles.sessions.get_mut(key) else { return false };
        let mut written = 0;
        let outcome = loop {
            let rest = &session.output[written..];
            if rest.is_empty() {
                break Ok(());
            }
            match send(session.stream.as_raw_fd(), rest, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(len) => written += len,
                Err(Errno::EINTR) => (),
                Err(errno) => break Err(errno),
            }
        };
        session.output.drain(..written);
        let waits = match outcome {
            Ok(()) if session.closing => {
                self.consoles.sessions.remove(key);
                return false;
            }
            Ok(()) => false,
            Err(Errno::EAGAIN) => true,
            Err(_) => {
                self.consoles.sessions.remove(key);
                return false;
            }
        };
        let flags = if waits { EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
        let event = &mut EpollEvent::new(flags, Token::Console(key).pack());
        if self.epoll.modify(&session.stream, event).is_err() {
            self.consoles.sessions.remove(key);
            return false;
        }
        !waits
    }
}

fn text_of(answer: &Answer) -> String {
    let data = answer.data.as_ref().map(|data| format!("0000 DATA END WITH '.'\n{data}.\n"));
    let status = match answer.result {
        Ok(()) => "1000 Success".to_owned(),
        Err(errno) => format!("{} {}", 1000 + errno as i32, errno.desc()),
    };
    format!("{}{status}\n", data.unwrap_or_default())
}
