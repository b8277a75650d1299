//! A copy of each frame that arrives, into a capture.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use crate::description::node_name;
use crate::pcap;
use crate::pcapng::{Direction, Roll, Writer};

/// The capture, with an interface for each port and who is there.
#[derive(Debug)]
pub(super) struct Mirror {
    /// `None` after an error: half a block would spoil what follows.
    output: Option<Writer<File>>,
    ports: HashMap<u16, Name>,
    /// Stations whose names are in the file.
    roll: Roll,
    /// Frames that are not in the file because it could not be written.
    pub(super) missing: u64,
}

/// Who is at a port, and the interface's number once it was needed.
#[derive(Debug, Default)]
struct Name {
    description: String,
    interface: Option<u32>,
}

impl Mirror {
    /// Makes the file, or empties it, for its owner's eyes only.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let output = Writer::new(pcap::create(path)?, concat!("ioth ", env!("CARGO_PKG_VERSION")))?;
        Ok(Mirror { output: Some(output), ports: HashMap::new(), roll: Roll::default(), missing: 0 })
    }

    /// Who comes to a port has an interface of its own.
    pub(super) fn name(&mut self, port: u16, description: &str) {
        self.ports.insert(port, Name { description: description.to_owned(), interface: None });
    }

    pub(super) fn frame(&mut self, port: u16, frame: &[u8]) {
        let name = self.ports.entry(port).or_default();
        let written = self.output.as_mut().map(|output| {
            let interface = match name.interface {
                Some(interface) => interface,
                None => {
                    let interface = output.interface(&format!("port {port}"), &name.description)?;
                    *name.interface.insert(interface)
                }
            };
            if let Some(node) = node_name(&name.description) {
                for address in self.roll.news(interface, frame).into_iter().flatten() {
                    output.name(address, node)?;
                }
            }
            output.frame(interface, SystemTime::now(), Some(Direction::Inbound), frame)
        });
        self.judge(written, 1);
    }

    pub(super) fn flush(&mut self) {
        let written = self.output.as_mut().map(Writer::flush);
        self.judge(written, 0);
    }

    fn judge(&mut self, written: Option<io::Result<()>>, frames: u64) {
        if !matches!(written, Some(Ok(()))) {
            self.output = None;
            self.missing += frames;
        }
    }
}
