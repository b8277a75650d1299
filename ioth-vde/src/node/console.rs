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
use crate::LinkError;

/// Managers at once, at most.
const SESSIONS_MAX: usize = 16;
/// Bytes that wait for a manager who watches and does not read, at most.
const UNREAD_MAX: usize = 1 << 16;
/// Longest command line, in bytes.
const LINE_MAX: usize = 4096;
const PROMPT: &str = "\nvde$ ";
const END: &str = "9999 END OF SESSION";

/// Management sockets and who is there.
#[derive(Debug, Default)]
pub(super) struct Consoles {
    pub(super) listeners: Vec<Listener>,
    sessions: Slab<Session>,
    /// Who the command at hand is of.
    asking: Option<usize>,
    /// What anybody watches, as a set of categories.
    watched: u16,
    /// Lines for watchers who do not read.
    pub(super) missed: u64,
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
    /// What it watches, as a set of categories.
    watches: u16,
    /// It was told something since it was written to.
    told: bool,
}

impl Consoles {
    /// The set of categories that who asks watches, to be changed; `ENOTCONN` in a file of commands, whom nobody answers.
    pub(super) fn watching(&mut self) -> Result<&mut u16, Errno> {
        let session = self.asking.and_then(|key| self.sessions.get_mut(key)).ok_or(Errno::ENOTCONN)?;
        Ok(&mut session.watches)
    }

    pub(super) fn is_watched(&self, categories: u16) -> bool {
        self.watched & categories != 0
    }

    /// Somebody came, went or watches something else: what anybody watches now.
    pub(super) fn watch_anew(&mut self) -> u16 {
        self.watched = self.sessions.iter().fold(0, |all, (_, session)| all | session.watches);
        self.watched
    }

    /// Puts a line down for all who watch that.
    pub(super) fn tell(&mut self, categories: u16, line: &str) {
        for (_, session) in &mut self.sessions {
            if session.watches & categories == 0 {
                continue;
            }
            if session.output.len() + line.len() > UNREAD_MAX {
                self.missed += 1;
            } else {
                session.output.extend(line.as_bytes());
                session.told = true;
            }
        }
    }
}

impl Core {
    /// Writes to those who were told something.
    pub(super) fn hand_out(&mut self) {
        if !self.consoles.is_watched(u16::MAX) {
            return;
        }
        let told = |(key, session): (usize, &mut Session)| std::mem::take(&mut session.told).then_some(key);
        let told: Vec<_> = self.consoles.sessions.iter_mut().filter_map(told).collect();
        for key in told {
            self.drain(key);
        }
    }

    /// A manager has gone.
    fn forget_session(&mut self, key: usize) {
        if let Some(session) = self.consoles.sessions.try_remove(key)
            && session.watches != 0
        {
            self.watch_stations();
        }
    }

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
        let Ok(stream) = self.guests.accept(listener.socket.as_fd()) else { return };
        if self.consoles.sessions.len() >= SESSIONS_MAX {
            self.guests.refuse("too many managers", 1);
            // Who does not take it hears nothing.
            let answer = text_of(&Answer { data: None, result: Err(Errno::EBUSY) });
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            let _ = send(stream.as_raw_fd(), answer.as_bytes(), flags);
            return;
        }
        let output = format!("{BANNER}{PROMPT}").into_bytes();
        let key = self.consoles.sessions.insert(Session {
            stream,
            input: Vec::new(),
            output,
            closing: false,
            watches: 0,
            told: false,
        });
        let stream = self.consoles.sessions[key].stream.as_fd();
        if self.watch(stream, Token::Console(key), EpollFlags::EPOLLIN).is_err() {
            self.forget_session(key);
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
                self.forget_session(key);
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
                    self.forget_session(key);
                }
                return false;
            };
            let line: Vec<u8> = session.input.drain(..=end).collect();
            self.consoles.asking = Some(key);
            let outcome = self.command(&String::from_utf8_lossy(&line));
            self.consoles.asking = None;
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
                self.forget_session(key);
                return false;
            }
            Ok(()) => false,
            Err(Errno::EAGAIN) => true,
            Err(_) => {
                self.forget_session(key);
                return false;
            }
        };
        let flags = if waits { EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
        let event = &mut EpollEvent::new(flags, Token::Console(key).pack());
        if self.epoll.modify(&session.stream, event).is_err() {
            self.forget_session(key);
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
