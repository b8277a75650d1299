//! `cmd://command line`: a command whose standard input and output are the network, as a [stream](crate::stream).
//!
//! ```text
//!   cmd://vde_plug vde:///tmp/sw                 a port of a switch, by another program
//!   cmd://ssh host vde_plug vde:///tmp/sw        the same on another machine
//! ```
//! Blanks separate words. `'...'` is taken as it is; so is `"..."`, but for `\"`, which does not end it; elsewhere `\c`
//! is the character itself. A first word `mtu=9000` is no command, but the largest IP packet. There is no shell: for one, write `sh -c '...'`. A `;` that is not quoted is refused.
//!
//! The command's standard input and output are one socket, standard error is the program's own. It is sent SIGTERM
//! when the link is detached, and SIGKILL a second later. When it ends, the network is gone; one that closes its
//! standard output has a second for that.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ioth_core::reactor::{Alarm, Reactor, Registration, Source, Timer};
use ioth_core::{Errno, Events};
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, recv, sendmsg, setsockopt, shutdown, socketpair,
    sockopt,
};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use parking_lot::Mutex;

use crate::ether::MTU_MAX;
use crate::schemes::Spec;
use crate::stream::{Decoder, Encoder};
use crate::tally::Tally;
use crate::wire::{Descriptor, Halt, Port, Wire};
use crate::{Batch, Link, LinkError, Properties, sys, vnl};

/// Size of the socket's queue, and of a read, in bytes.
const BUFFER: usize = 1 << 18;
const READ: usize = 1 << 16;
/// Reads after the command's end, at most: a child of its own may go on writing.
const LAST_READS: usize = 64;
/// How long the command has to end by itself.
const PATIENCE: Duration = Duration::from_secs(1);

/// Which of the descriptors is the stream.
const STREAM: usize = 1;

/// Opens `cmd://...`.
pub(crate) fn open(spec: &Spec<'_>) -> Result<Arc<dyn Link>, LinkError> {
    let words = words(spec.rest, spec.vnl)?;
    let (words, properties) = properties(&words, spec)?;
    let [program, arguments @ ..] = words else {
        return Err(vnl::syntax(format!("no command in \"{}\" (such as cmd://ssh host vde_plug)", spec.vnl)));
    };
    let failed = |what: &str, errno| LinkError::Os { what: format!("{}: {what}", spec.vnl), errno };
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
        .map_err(|errno| failed("making its standard input and output", errno))?;
    for socket in [&ours, &theirs] {
        // A burst should fit; where the system allows less, it is less.
        let _ = setsockopt(socket, sockopt::SndBuf, &BUFFER);
    }
    let input = theirs.try_clone().map_err(|error| failed("duplicating a socket", crate::errno(&error)))?;
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(theirs))
        .spawn()
        .map_err(|error| failed(&format!("running \"{program}\""), crate::errno(&error)))?;
    let process = match sys::pidfd_open(child.id()) {
        Ok(process) => Arc::new(process),
        Err(errno) => {
            abandon(child);
            return Err(failed("watching the command (Linux 5.3 or later can)", errno));
        }
    };
    Ok(Arc::new(Port::new(
        spec.vnl,
        Cmd {
            properties,
            stream: Arc::new(ours),
            process,
            ended: Mutex::new(None),
            last: Mutex::new(None),
            encoder: Mutex::default(),
            decoder: Mutex::new((Decoder::default(), vec![0; READ].into_boxed_slice())),
        },
    )))
}

/// What the link can carry, and the command behind that. (vde2's tools take frames of 1521 bytes at most, upstream's 9234.)
fn properties<'a>(words: &'a [String], spec: &Spec<'_>) -> Result<(&'a [String], Properties), LinkError> {
    let of = |mtu| Properties { mtu, gso_max: 0, trusted: false };
    let Some((text, rest)) =
        words.split_first().and_then(|(first, rest)| Some((first.strip_prefix("mtu=")?, rest)))
    else {
        return Ok((words, of(spec.default_mtu())));
    };
    match vnl::size(text) {
        Some(mtu) if (68..=MTU_MAX as u64).contains(&mtu) => Ok((rest, of(mtu as usize))),
        _ => Err(vnl::syntax(format!("\"mtu={text}\" in \"{}\" (should be from 68 to {MTU_MAX})", spec.vnl))),
    }
}

/// Ends a command that cannot be watched.
fn abandon(mut child: std::process::Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// A command, and the stream to it.
#[derive(Debug)]
struct Cmd {
    properties: Properties,
    stream: Arc<OwnedFd>,
    /// The process (pidfd_open(2)).
    process: Arc<OwnedFd>,
    /// Its exit status, once it is known.
    ended: Mutex<Option<ExitStatus>>,
    /// Its output has ended: it has so long to end itself.
    last: Mutex<Option<Deadline>>,
    encoder: Mutex<Encoder>,
    decoder: Mutex<(Decoder, Box<[u8]>)>,
}

impl Wire for Cmd {
    fn properties(&self) -> Properties {
        self.properties
    }

    fn descriptors(&self) -> Vec<Descriptor> {
        let process = Descriptor { fd: self.process.clone(), sends: false };
        if self.last.lock().is_some() {
            return vec![process];
        }
        vec![process, Descriptor { fd: self.stream.clone(), sends: true }]
    }

    fn send(&self, frames: &mut Batch, tally: &Tally) -> Result<(), Halt> {
        let mut encoder = self.encoder.lock();
        loop {
            tally.bad_lengths(encoder.load(frames));
            if encoder.is_empty() {
                return Ok(());
            }
            let slices: Vec<_> = encoder.slices().map(IoSlice::new).collect();
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match sendmsg::<()>(self.stream.as_raw_fd(), &slices, &[], flags, None) {
                Ok(len) => {
                    let (frames, bytes) = encoder.written(len);
                    tally.sent(frames, bytes);
                }
                Err(Errno::EINTR) => (),
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => return Err(Halt::Wait),
                Err(_) => {
                    tally.downs(encoder.clear());
                    return Err(Halt::Gone);
                }
            }
        }
    }

    fn receive(&self, which: usize, _: usize, batch: &mut Batch, tally: &Tally) -> Result<bool, Halt> {
        if which == STREAM {
            return match self.read(batch, tally) {
                // The exit status, which comes next, says why.
                Err(Halt::Gone) => self.output_ended(),
                other => other,
            };
        }
        self.reap();
        // What it wrote before it ended is still for us.
        for _ in 0..LAST_READS {
            if self.read(batch, tally).is_err() {
                break;
            }
        }
        Err(Halt::Gone)
    }

    fn flush(&self, tally: &Tally) -> Result<(), Halt> {
        self.send(&mut Batch::new(), tally)
    }

    fn epitaph(&self) -> Option<String> {
        self.reap();
        let status = (*self.ended.lock())?;
        Some(format!("the command ended ({status})"))
    }

    fn close(&self) {
        let _ = shutdown(self.stream.as_raw_fd(), Shutdown::Both);
        if self.ended.lock().is_none() {
            Undertaker::send(&self.process);
        }
    }
}

impl Cmd {
    fn read(&self, batch: &mut Batch, tally: &Tally) -> Result<bool, Halt> {
        let (decoder, buffer) = &mut *self.decoder.lock();
        let len = loop {
            match recv(self.stream.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Err(Halt::Gone),
                Ok(len) => break len,
                Err(Errno::EINTR) => (),
                Err(Errno::EAGAIN) => return Err(Halt::Wait),
                Err(_) => return Err(Halt::Gone),
            }
        };
        let decoded = decoder.decode(&buffer[..len], batch);
        tally.received_bad_length(decoder.take_bad_length());
        match decoded {
            Ok(()) => Ok(len == READ),
            Err(_) => {
                tally.received_bad_length(1);
                Err(Halt::Gone)
            }
        }
    }

    fn output_ended(&self) -> Result<bool, Halt> {
        let _ = shutdown(self.stream.as_raw_fd(), Shutdown::Both);
        *self.last.lock() = Deadline::new(&self.process);
        Err(if self.last.lock().is_some() { Halt::Changed } else { Halt::Gone })
    }

    /// Learns the exit status, if the command has ended.
    fn reap(&self) {
        let mut ended = self.ended.lock();
        if ended.is_none() {
            *ended = reap(self.process.as_fd());
        }
    }
}

/// The exit status of a process that has ended; the system forgets it by that.
fn reap(process: BorrowedFd<'_>) -> Option<ExitStatus> {
    match waitid(Id::PIDFd(process), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG) {
        Ok(WaitStatus::Exited(_, code)) => Some(ExitStatus::from_raw(code << 8)),
        Ok(WaitStatus::Signaled(_, signal, _)) => Some(ExitStatus::from_raw(signal as i32)),
        _ => None,
    }
}

/// Kills a process when its time is up.
struct Deadline {
    _timer: Timer,
    _killer: Arc<Killer>,
}

impl Deadline {
    fn new(process: &Arc<OwnedFd>) -> Option<Self> {
        let reactor = Reactor::try_global().ok()?;
        let killer = Arc::new(Killer(process.clone()));
        let alarm: Arc<dyn Alarm> = killer.clone();
        let timer = reactor.timer(Arc::downgrade(&alarm));
        timer.set(Instant::now() + PATIENCE);
        Some(Deadline { _timer: timer, _killer: killer })
    }
}

impl std::fmt::Debug for Deadline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Deadline")
    }
}

struct Killer(Arc<OwnedFd>);

impl Alarm for Killer {
    fn fire(&self) {
        let _ = sys::pidfd_signal(self.0.as_fd(), libc::SIGKILL);
    }
}

/// Sees a command to its end when nobody wants it any more, without anybody waiting.
#[derive(Debug)]
struct Undertaker {
    process: Arc<OwnedFd>,
    /// Keeps this alive until the process has ended.
    watch: Mutex<Option<(Registration, Deadline)>>,
}

impl Undertaker {
    fn send(process: &Arc<OwnedFd>) {
        if reap(process.as_fd()).is_some() || sys::pidfd_signal(process.as_fd(), libc::SIGTERM).is_err() {
            return;
        }
        let undertaker = Arc::new(Undertaker { process: process.clone(), watch: Mutex::new(None) });
        let mut watch = undertaker.watch.lock();
        let source = Arc::new(Grave(undertaker.clone()));
        let registered = Reactor::try_global()
            .and_then(|reactor| reactor.register(process.as_fd(), Events::IN, source))
            .ok();
        *watch = registered.zip(Deadline::new(process));
        if watch.is_none() {
            let _ = sys::pidfd_signal(process.as_fd(), libc::SIGKILL);
        }
    }
}

#[derive(Debug)]
struct Grave(Arc<Undertaker>);

impl Source for Grave {
    fn ready(&self, _: Events) {
        let _ = reap(self.0.process.as_fd());
        let watch = self.0.watch.lock().take();
        drop(watch);
    }
}

/// Cuts a command line into words.
fn words(text: &str, vnl: &str) -> Result<Vec<String>, LinkError> {
    let mut words = Vec::new();
    // `None` between words: '' is a word, too.
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            ';' => {
                return Err(vnl::syntax(format!(
                    "';' in \"{vnl}\" (one command only; quote the ';', or run sh -c '...')"
                )));
            }
            '\\' => word.get_or_insert_default().extend(chars.next()),
            quote @ ('\'' | '"') => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        None => return Err(vnl::syntax(format!("open quote in \"{vnl}\""))),
                        Some(end) if end == quote => break,
                        Some('\\') if quote == '"' => {
                            word.push('\\');
                            word.extend(chars.next());
                        }
                        Some(other) => word.push(other),
                    }
                }
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests;
