//! The process that makes the stack's sockets, as its maker sees it.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use ioth_core::registry::StackError;
use ioth_core::{Domain, Errno, Result, SocketType};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socketpair, sockopt,
};
use nix::sys::time::TimeVal;
use nix::unistd::{getegid, geteuid};
use parking_lot::Mutex;

use super::refusal;
use crate::sys::helper::{ANSWER, Process, Question, SOCKET, Start, TUN, own_pidfd, receive};

/// How long an answer may take, in seconds: far longer than any does, unless somebody has stopped the helper.
const PATIENCE: libc::time_t = 10;
/// The same question within that time is expected to be asked once more. What was made ahead and is older is not used: a socket
/// has the settings that its namespace had when it was made.
const SOON: Duration = Duration::from_millis(100);

/// A process in a user and a network namespace of its own, which makes sockets there.
///
/// A socket belongs to the namespace in which it was made, so it is the only call that needs the process.
#[derive(Debug)]
pub(crate) struct Helper {
    /// `None` when it answers no more.
    channel: Mutex<Option<Channel>>,
    process: Mutex<Option<Process>>,
}

/// Our ends.
#[derive(Debug)]
struct Channel {
    /// Takes questions and gives answers.
    talk: OwnedFd,
    /// Gives the descriptors.
    passage: OwnedFd,
    /// What was asked for last, and when.
    last: Option<(Question, Instant)>,
    /// Whether that has been asked once more, ahead of whoever wants it.
    ahead: bool,
}

impl Helper {
    /// Makes the namespaces.
    ///
    /// # Errors
    /// [`StackError::Os`] with the reason for which the host refuses them, and what would change that.
    pub(crate) fn start() -> Result<Self, StackError> {
        let failed = |what: &str| {
            let what = format!("vdestack: {what}");
            move |errno| StackError::Os { what, errno }
        };
        let pair = || socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
        let (talk, their_talk) = pair().map_err(failed("a channel to its helper"))?;
        let (passage, their_passage) = pair().map_err(failed("a channel to its helper"))?;
        setsockopt(&talk, sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE, 0))
            .map_err(failed("a channel to its helper"))?;
        let maker = own_pidfd().map_err(failed("pidfd_open, which it takes Linux 5.9 for"))?;
        let start = Start {
            channel: their_talk.as_raw_fd(),
            passage: their_passage.as_raw_fd(),
            maker: maker.as_raw_fd(),
            uid_map: format!("0 {} 1", geteuid()),
            gid_map: format!("0 {} 1", getegid()),
        };
        let refused = |which: &str, errno| StackError::Os {
            what: format!("vdestack: making its {which} namespace{}", refusal::why(errno)),
            errno,
        };
        let process = Process::start(start).map_err(|errno| refused("user", errno))?;
        drop((their_talk, their_passage, maker));
        let channel = Channel { talk, passage, last: None, ahead: false };
        channel.answer().unwrap_or(Err(Errno::ENODEV)).map_err(|errno| refused("network", errno))?;
        Ok(Helper { channel: Mutex::new(Some(channel)), process: Mutex::new(Some(process)) })
    }

    /// socket(2), in the namespace.
    ///
    /// # Errors
    /// As there; `ENODEV` when the process has been killed.
    pub(crate) fn socket(&self, domain: Domain, kind: SocketType, protocol: i32) -> Result<OwnedFd> {
        self.ask(Question { what: SOCKET, domain: domain.0, kind: kind.0, protocol })
    }

    /// Opens /dev/net/tun in the namespace.
    ///
    /// # Errors
    /// As open(2); `ENODEV` when the process has been killed.
    pub(crate) fn tun(&self) -> Result<OwnedFd> {
        self.ask(Question { what: TUN, domain: 0, kind: 0, protocol: 0 })
    }

    /// Ends the process. Its sockets live on, and their namespace with them.
    pub(crate) fn end(&self) {
        self.channel.lock().take();
        // Waits for its end.
        drop(self.process.lock().take());
    }

    /// Asks, and when the same is wanted again and again asks ahead, so that who wants it next does not wait.
    fn ask(&self, question: Question) -> Result<OwnedFd> {
        // One question at a time, so that each has its own answer.
        let mut channel = self.channel.lock();
        let answer = channel.as_mut().ok_or(Errno::ENODEV)?.ask(question);
        // Without an answer, a late one would be taken for the next question's.
        answer.unwrap_or_else(|Silent| {
            *channel = None;
            Err(Errno::ENODEV)
        })
    }
}

/// The helper answers no more.
#[derive(Clone, Copy, Debug)]
struct Silent;

impl Channel {
    fn ask(&mut self, question: Question) -> std::result::Result<Result<OwnedFd>, Silent> {
        let now = Instant::now();
        let again = self.last.is_some_and(|(last, at)| last == question && now.duration_since(at) <= SOON);
        if std::mem::take(&mut self.ahead) {
            let answer = self.receive()?;
            if again {
                self.ask_ahead(question, now)?;
                return Ok(answer);
            }
        }
        self.send(question)?;
        let answer = self.receive()?;
        match again {
            true => self.ask_ahead(question, now)?,
            false => self.last = Some((question, now)),
        }
        Ok(answer)
    }

    fn ask_ahead(&mut self, question: Question, now: Instant) -> std::result::Result<(), Silent> {
        self.last = Some((question, now));
        self.ahead = question.is_quiet();
        match self.ahead {
            true => self.send(question),
            false => Ok(()),
        }
    }

    fn send(&self, question: Question) -> std::result::Result<(), Silent> {
        match send(self.talk.as_raw_fd(), &question.to_bytes(), MsgFlags::MSG_NOSIGNAL) {
            Ok(_) => Ok(()),
            Err(_) => Err(Silent),
        }
    }

    /// An answer, and the descriptor that it is about.
    fn receive(&self) -> std::result::Result<Result<OwnedFd>, Silent> {
        if let Err(errno) = self.answer()? {
            return Ok(Err(errno));
        }
        match receive(self.passage.as_fd()) {
            // The descriptor found no number here; the channel is well.
            received @ (Ok(_) | Err(Errno::EMFILE)) => Ok(received),
            Err(_) => Err(Silent),
        }
    }

    fn answer(&self) -> std::result::Result<Result<()>, Silent> {
        let mut bytes = [0; ANSWER];
        let received = loop {
            match recv(self.talk.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
                Err(Errno::EINTR) => (),
                received => break received,
            }
        };
        match received {
            Ok(ANSWER) => Ok(match i32::from_ne_bytes(bytes) {
                0 => Ok(()),
                errno => Err(Errno::from_raw(errno)),
            }),
            _ => Err(Silent),
        }
    }
}
