//! `ioth cap`.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use ioth::core::MacAddr;
use ioth::vde::pcapng::{Address, Roll, Writer};
use ioth::vde::vnl::split_ifname;
use parking_lot::Mutex;

use crate::args::Cap;
use crate::failure::{Context, Failure, Result};
use crate::manage::Names;
use crate::plug::{open_all, stop_at_signals};
use crate::wires::{End, Inbox, tell_losses};

/// Records until it is asked to stop, or has as much as it was asked for.
///
/// # Errors
/// Why it cannot, or why it ended.
pub(crate) fn cap(args: &Cap) -> Result<()> {
    ioth::vde::describe("ioth cap:");
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
    for ((number, inbox), (_, vnl)) in numbers.into_iter().zip(&inboxes).zip(&named) {
        let (capture, inbox, ends) = (capture.clone(), inbox.clone(), ends.clone());
        let stations = Stations { roll: Roll::default(), names: Names::of(vnl) };
        std::thread::Builder::new()
            .name("capture".into())
            .spawn(move || record(&capture, &inbox, number, stations, &ends))
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

/// Who is in a network.
struct Stations {
    roll: Roll,
    names: Names,
}

impl Stations {
    /// The names of addresses that this frame is the first one of.
    fn named(&mut self, frame: &[u8]) -> Vec<(Address, String)> {
        let news = self.roll.news(0, frame);
        let (Some(mac), true) = (frame.get(6..12), news.iter().any(Option::is_some)) else {
            return Vec::new();
        };
        let vlan = match frame.get(12..16) {
            Some([0x81, 0, high, low]) => u16::from_be_bytes([*high, *low]) & 0xfff,
            _ => 0,
        };
        let mac = <[u8; 6]>::try_from(mac).map(MacAddr);
        let node = mac.ok().and_then(|mac| self.names.node(mac, vlan));
        let named = |address: Address| Some((address, node.clone()?));
        news.into_iter().flatten().filter_map(named).collect()
    }
}

/// Records what comes to one network.
fn record(capture: &Mutex<Capture>, inbox: &Inbox, number: u32, mut stations: Stations, ends: &Sender<End>) {
    while let Some(taken) = inbox.take() {
        // The switch is asked before the capture is locked, which is all networks'.
        let names: Vec<_> = taken.iter().flat_map(|(_, frame)| stations.named(frame)).collect();
        let mut capture = capture.lock();
        let Capture { writer, frames, most } = &mut *capture;
        let write = || {
            for (address, node) in names {
                writer.name(address, &node)?;
            }
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
