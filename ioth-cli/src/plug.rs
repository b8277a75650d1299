//! `ioth plug`.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Ends, Sender, channel};

use ioth::vde::stream::{Decoder, Encoder};
use ioth::vde::vnl::Locator;
use ioth::vde::{Batch, Filter, Link, Schemes};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::args::Plug;
use crate::daemon::{PidFile, Ready, detached};
use crate::failure::{Context, Failure, Result};
use crate::serve::take_signals;
use crate::wires::{End, Inbox, tell_losses};

/// Size of a read, in bytes.
const READ: usize = 1 << 16;

/// Joins networks, or one and standard input and output, until either ends.
///
/// # Errors
/// Why it cannot, or why it ended.
pub(crate) fn plug(args: &Plug) -> Result<()> {
    let mut networks = networks(&args.words)?;
    if networks.is_empty() {
        networks.push(String::new());
    }
    if args.daemon && networks.len() < 2 {
        let what =
            "plug: --daemon goes with two networks, or with one, \"=\" and a command: standard input ends";
        return Err(Failure::usage(what));
    }
    let wishes = [(&args.group, args.mode, args.port), (&args.group2, args.mode2, args.port2)];
    for (at, (group, mode, port)) in wishes.into_iter().enumerate() {
        let wishes = wishes_of(group.as_deref(), mode, port);
        match networks.get_mut(at) {
            _ if wishes.is_empty() => (),
            Some(network) => *network = with_wishes(network, &wishes)?,
            None => return Err(Failure::usage("plug: options for a second network, and there is none")),
        }
    }
    ioth::vde::describe(args.description.as_deref().unwrap_or("ioth plug:"));
    if args.daemon {
        return detached(|ready| work(args, &networks, ready));
    }
    work(args, &networks, Ready::foreground())
}

fn work(args: &Plug, networks: &[String], ready: Ready) -> Result<()> {
    let (ends, end) = channel();
    stop_at_signals(ends.clone())?;
    let _pid = args.pidfile.as_deref().map(PidFile::write).transpose()?;
    let outcome = match networks {
        [one, two] => join(args, one, two, &ends, &end, ready),
        [one, ..] => over_stdio(args, one, &ends, &end),
        [] => over_stdio(args, "", &ends, &end),
    };
    match outcome? {
        End::Done => Ok(()),
        End::Failed(why) => Err(Failure::new(why)),
    }
}

/// The networks that the words name: at most two.
fn networks(words: &[String]) -> Result<Vec<String>> {
    let misuse = |what: &str| Failure::usage(format!("plug: {what} (ioth plug --help shows how)"));
    let Some(at) = words.iter().position(|word| word == "=") else {
        return if words.len() <= 2 { Ok(words.to_vec()) } else { Err(misuse("more than two networks")) };
    };
    let (before, command) = (&words[..at], &words[at + 1..]);
    if command.is_empty() {
        return Err(misuse("no command behind \"=\""));
    }
    let first = match before {
        [] => String::new(),
        [one] => one.clone(),
        _ => return Err(misuse("more than one network before \"=\"")),
    };
    let quoted: Vec<String> = command.iter().map(|word| quote(word)).collect();
    Ok(vec![first, format!("cmd://{}", quoted.join(" "))])
}

/// What options ask of a plug, in the words of a VNL.
fn wishes_of(group: Option<&str>, mode: Option<u32>, port: Option<u32>) -> Vec<String> {
    let escaped = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
    let group = group.map(|group| format!("group={}", escaped(group)));
    let mode = mode.map(|mode| format!("mode={mode:o}"));
    let port = port.map(|port| format!("port={port}"));
    [group, mode, port].into_iter().flatten().collect()
}

/// The VNL of a switch's port with these words in it, before its own.
fn with_wishes(network: &str, wishes: &[String]) -> Result<String> {
    let home = std::env::var_os("HOME").map(std::path::PathBuf::from);
    let locator =
        Locator::resolve(network, home.as_deref()).map_err(|error| Failure::new(error.to_string()))?;
    if locator.scheme != "vde" {
        let what = format!("plug: group, mode and port are options of vde://, not of \"{network}\"");
        return Err(Failure::usage(what));
    }
    let (path, own) = locator.rest.split_once('[').unwrap_or((&locator.rest, "]"));
    Ok(format!("vde://{path}[{}/{own}", wishes.join("/")))
}

/// A word as cmd:// takes it for itself.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Ends the work at a signal. To be called before there are threads.
pub(crate) fn stop_at_signals(ends: Sender<End>) -> Result<()> {
    let signals = take_signals(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP])?;
    let thread = std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut wait = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        while poll(&mut wait, PollTimeout::NONE).is_err() {}
        let _ = ends.send(End::Done);
    });
    thread.context("a thread").map(drop)
}

/// A network's plug, which takes all that comes by, of any length unless the VNL says one.
pub(crate) fn open_all(vnl: &str, inbox: Arc<Inbox>) -> Result<Arc<dyn Link>> {
    let failed = |error: ioth::vde::LinkError| Failure::new(error.to_string());
    let link = Schemes::process().widest().open(vnl).map_err(failed)?;
    link.set_filter(&Filter { promiscuous: true, ..Filter::default() });
    link.attach(inbox).map_err(failed)?;
    Ok(link)
}

/// Waits for the end, which comes from a thread, a network or a signal.
fn wait(end: &Ends<End>) -> End {
    end.recv().unwrap_or(End::Done)
}

fn join(args: &Plug, one: &str, two: &str, ends: &Sender<End>, end: &Ends<End>, ready: Ready) -> Result<End> {
    let inboxes = [(); 2].map(|()| Arc::new(Inbox::new(ends.clone())));
    let links = [open_all(one, inboxes[0].clone())?, open_all(two, inboxes[1].clone())?];
    for (from, to) in [(0, 1), (1, 0)] {
        let (frames, room, link) = (inboxes[from].clone(), inboxes[to].clone(), links[to].clone());
        std::thread::Builder::new()
            .name(format!("to {to}"))
            .spawn(move || carry(&frames, &room, &*link))
            .context("a thread")?;
    }
    if args.verbose {
        eprintln!("ioth: {one:?} and {two:?} are joined");
    }
    ready.tell()?;
    let outcome = wait(end);
    for (name, link, inbox) in [(one, &links[0], &inboxes[0]), (two, &links[1], &inboxes[1])] {
        link.detach();
        inbox.close();
        tell_losses(name, &**link, inbox);
    }
    Ok(outcome)
}

/// Sends what comes to one network into the other.
fn carry(frames: &Inbox, room: &Inbox, link: &dyn Link) {
    while let Some(taken) = frames.take() {
        let mut batch: Batch = taken.into_iter().map(|(_, frame)| frame).collect();
        if !send(&mut batch, room, link) {
            return;
        }
    }
}

/// Sends all of a batch, waiting for room; false when the network has ended.
fn send(batch: &mut Batch, room: &Inbox, link: &dyn Link) -> bool {
    loop {
        match link.send(batch) {
            Ok(()) if batch.is_empty() => return true,
            Ok(()) => {
                if !room.wait_for_room() {
                    return false;
                }
            }
            // Its receiver hears why.
            Err(_) => return false,
        }
    }
}

fn over_stdio(args: &Plug, vnl: &str, ends: &Sender<End>, end: &Ends<End>) -> Result<End> {
    let inbox = Arc::new(Inbox::new(ends.clone()));
    let link = open_all(vnl, inbox.clone())?;
    let (room, to, at_end) = (inbox.clone(), link.clone(), ends.clone());
    let input = move || {
        let _ = at_end.send(read_frames(&room, &*to));
    };
    let (from, at_end) = (inbox.clone(), ends.clone());
    let output = move || {
        let _ = at_end.send(write_frames(&from));
    };
    std::thread::Builder::new().name("input".into()).spawn(input).context("a thread")?;
    std::thread::Builder::new().name("output".into()).spawn(output).context("a thread")?;
    if args.verbose {
        eprintln!("ioth: {vnl:?} is plugged into standard input and output");
    }
    let outcome = wait(end);
    link.detach();
    inbox.close();
    tell_losses(vnl, &*link, &inbox);
    Ok(outcome)
}

/// Sends what standard input says into the network, as fast as it takes it.
fn read_frames(room: &Inbox, link: &dyn Link) -> End {
    let mut input = std::io::stdin().lock();
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; READ];
    let mut batch = Batch::new();
    loop {
        let len = match input.read(&mut buffer) {
            Ok(0) => return End::Done,
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return End::Failed(format!("standard input: {error}")),
        };
        let decoded = decoder.decode(&buffer[..len], &mut batch);
        if !send(&mut batch, room, link) {
            return End::Failed("the network is gone".to_owned());
        }
        if let Err(wrong) = decoded {
            return End::Failed(format!("standard input: {wrong}"));
        }
    }
}

/// Writes what comes to standard output.
fn write_frames(inbox: &Inbox) -> End {
    let mut output = std::io::stdout().lock();
    let mut encoder = Encoder::new();
    while let Some(taken) = inbox.take() {
        let mut batch: Batch = taken.into_iter().map(|(_, frame)| frame).collect();
        while !batch.is_empty() || !encoder.is_empty() {
            encoder.load(&mut batch);
            let slices: Vec<_> = encoder.slices().map(IoSlice::new).collect();
            let outcome = output.write_vectored(&slices).and_then(|len| output.flush().map(|()| len));
            match outcome {
                Ok(0) => return End::Done,
                Ok(len) => {
                    encoder.written(len);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                // Whoever read it has gone.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return End::Done,
                Err(error) => return End::Failed(format!("standard output: {error}")),
            }
        }
    }
    End::Done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_words_of_the_vnl() {
        let with = |network: &str| {
            with_wishes(network, &wishes_of(Some("a/b"), Some(0o660), Some(3)))
                .map_err(|failure| failure.status())
        };
        let words = "group=%61%2f%62/mode=660/port=3";
        assert_eq!(with("vde:///tmp/sw"), Ok(format!("vde:///tmp/sw[{words}/]")));
        assert_eq!(with("/no/sw[data=path]"), Ok(format!("vde:///no/sw[{words}/data=path]")));
        assert_eq!(with("vde://"), Ok(format!("vde://[{words}/]")));
        assert_eq!(with("null://"), Err(2));
        assert!(wishes_of(None, None, None).is_empty());
    }

    #[test]
    fn words() {
        let of = |words: &[&str]| networks(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&[]).unwrap(), Vec::<String>::new());
        assert_eq!(of(&["a"]).unwrap(), ["a"]);
        assert_eq!(of(&["a", "b"]).unwrap(), ["a", "b"]);
        assert_eq!(of(&["a", "=", "ssh", "it's", "-x"]).unwrap(), ["a", r"cmd://'ssh' 'it'\''s' '-x'"]);
        assert_eq!(of(&["=", "ssh"]).unwrap(), ["", "cmd://'ssh'"]);
        for wrong in [&["a", "b", "c"][..], &["a", "="], &["a", "b", "=", "c"]] {
            assert_eq!(of(wrong).unwrap_err().status(), 2, "{wrong:?}");
        }
    }
}
