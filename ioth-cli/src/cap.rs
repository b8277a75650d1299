//! `ioth cap`.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use ioth::vde::pcapng::Writer;
use ioth::vde::vnl::split_ifname;
use parking_lot::Mutex;

use crate::args::Cap;
use crate::failure::{Context, Failure, Result};
use crate::plug::{open_all, stop_at_signals};
use crate::wires::{End, Inbox, tell_losses};

/// Records until it is asked to stop, or has as much as it was asked for.
///
/// # Errors
/// Why it cannot, or why it ended.
pub(crate) fn cap(args: &Cap) -> Result<()> {
    let (ends, end) = channel();
    stop_at_signals(ends.clone())?;
    let named: Vec<_> = args
        .networks
        .iter()
        .map(|text| split_ifname(text).map_err(|error| Failure::usage(error.to_string())))
        .collect::<Result<_>>()?;
    let inboxes: Vec<_> = named.iter().map(|_| Arc::new(Inbox::new(ends.clone()))).collect();
    let mut links = Vec::new();
    for ((_, vnl), inbox) in named.iter().zip(&inboxes) {
        links.push(open_all(vnl, inbox.clone())?);
    }
    // Last, as the others may fail: a file is not to be emptied for nothing.
    let failed = || format!("writing to {}", args.write.display());
    let output = open(&args.write).context(failed())?;
    let mut writer = Writer::new(output, concat!("ioth ", env!("CARGO_PKG_VERSION"))).context(failed())?;
    let mut numbers = Vec::new();
    for (name, vnl) in &named {
        numbers.push(writer.interface(name.unwrap_or(vnl), vnl).context(failed())?);
    }
    writer.flush().context(failed())?;
    if args.verbose {
        eprintln!("ioth: listening to {}", args.networks.join(" and "));
    }

    let capture = Arc::new(Mutex::new(Capture { writer, frames: 0, most: args.count.unwrap_or(u64::MAX) }));
    for (number, inbox) in numbers.into_iter().zip(&inboxes) {
        let (capture, inbox, ends) = (capture.clone(), inbox.clone(), ends.clone());
        std::thread::Builder::new()
            .name("capture".into())
            .spawn(move || record(&capture, &inbox, number, &ends))
            .context("a thread")?;
    }
    let outcome = end.recv().unwrap_or(End::Done);
    for ((link, inbox), network) in links.iter().zip(&inboxes).zip(&args.networks) {
        link.detach();
        inbox.close();
        tell_losses(network, &**link, inbox);
    }
    let mut capture = capture.lock();
    let flushed = capture.writer.flush();
    if args.verbose {
        eprintln!("ioth: {} frames recorded", capture.frames);
    }
    match outcome {
        End::Done => flushed.context(failed()),
        End::Failed(why) => Err(Failure::new(why)),
    }
}

type Output = Box<dyn Write + Send>;

struct Capture {
    writer: Writer<Output>,
    frames: u64,
    most: u64,
}

/// Records what comes to one network.
fn record(capture: &Mutex<Capture>, inbox: &Inbox, number: u32, ends: &Sender<End>) {
    while let Some(taken) = inbox.take() {
        let mut capture = capture.lock();
        let Capture { writer, frames, most } = &mut *capture;
        let write = || {
            for (time, frame) in taken {
                if *frames == *most {
                    break;
                }
                writer.frame(number, time, None, &frame)?;
                *frames += 1;
            }
            // Complete after every batch, however the process ends.
            writer.flush()
        };
        let end = match write() {
            Ok(()) if *frames < *most => continue,
            Ok(()) => End::Done,
            // Whoever read it has gone.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => End::Done,
            Err(error) => End::Failed(format!("writing the capture: {error}")),
        };
        // Nobody hears it who has ended already.
        let _ = ends.send(end);
        return;
    }
}

/// A file for its owner's eyes only, made or emptied; "-" is standard output.
fn open(path: &Path) -> io::Result<Output> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdout()));
    }
    Ok(Box::new(OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?))
}
