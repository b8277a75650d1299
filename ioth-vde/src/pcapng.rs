//! Writes captures of several interfaces, with their names, as Wireshark and tcpdump read them.
//!
//! <https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-03.html>: a section header, then descriptions of interfaces
//! and packets with nanoseconds, link type Ethernet. It is written by hand for the same reason as [`pcap`](crate::pcap):
//! it is four small blocks, the fourth of which gives addresses names.
//!
//! ```
//! use ioth_vde::pcapng::{Direction, Writer};
//!
//! let mut capture = Writer::new(Vec::new(), "example")?;
//! let lan = capture.interface("lan", "switch://lan")?;
//! capture.frame(lan, std::time::SystemTime::now(), Some(Direction::Inbound), &[0xff; 60])?;
//! capture.flush()?;
//! # Ok::<_, std::io::Error>(())
//! ```

mod roll;

use std::io::{self, BufWriter, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{SystemTime, UNIX_EPOCH};

use ioth_core::MacAddr;

pub use roll::{Roll, claims};

/// Large enough that most batches are one write.
const BUFFER: usize = 64 << 10;
/// Longest packet, in bytes: readers refuse more.
const SNAPLEN: u32 = 262_144;
const LINKTYPE_ETHERNET: u16 = 1;
/// Longest name or description of an interface, in bytes.
const NAME_MAX: usize = 255;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const NAMES: u32 = 4;
const PACKET: u32 = 6;

const END: u16 = 0;
const SECTION_APPLICATION: u16 = 4;
const INTERFACE_NAME: u16 = 2;
const INTERFACE_DESCRIPTION: u16 = 3;
const INTERFACE_RESOLUTION: u16 = 9;
const PACKET_FLAGS: u16 = 2;

/// An address that a name is given to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// Of IPv4.
    V4(Ipv4Addr),
    /// Of IPv6.
    V6(Ipv6Addr),
    /// Of Ethernet.
    Mac(MacAddr),
}

/// Which way a frame went, as the interface sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It arrived.
    Inbound,
    /// It was sent.
    Outbound,
}

/// A capture in the making.
#[derive(Debug)]
pub struct Writer<W: Write> {
    output: BufWriter<W>,
    interfaces: u32,
}

impl<W: Write> Writer<W> {
    /// Begins a capture; `application` says who writes it.
    ///
    /// # Errors
    /// The output's.
    pub fn new(output: W, application: &str) -> io::Result<Self> {
        let mut body = Vec::new();
        // Whoever reads it tells the byte order by this.
        body.extend(0x1a2b_3c4d_u32.to_le_bytes());
        body.extend(1u16.to_le_bytes());
        body.extend(0u16.to_le_bytes());
        // The section's length is not known.
        body.extend(u64::MAX.to_le_bytes());
        option(&mut body, SECTION_APPLICATION, cut(application));
        option(&mut body, END, &[]);
        let mut writer = Writer { output: BufWriter::with_capacity(BUFFER, output), interfaces: 0 };
        writer.block(SECTION, &[&body])?;
        writer.flush()?;
        Ok(writer)
    }

    /// Adds an interface: its number in this capture.
    ///
    /// # Errors
    /// The output's.
    pub fn interface(&mut self, name: &str, description: &str) -> io::Result<u32> {
        let mut body = Vec::new();
        body.extend(LINKTYPE_ETHERNET.to_le_bytes());
        body.extend(0u16.to_le_bytes());
        body.extend(SNAPLEN.to_le_bytes());
        option(&mut body, INTERFACE_NAME, cut(name));
        option(&mut body, INTERFACE_DESCRIPTION, cut(description));
        // Powers of ten.
        option(&mut body, INTERFACE_RESOLUTION, &[9]);
        option(&mut body, END, &[]);
        self.block(INTERFACE, &[&body])?;
        let number = self.interfaces;
        self.interfaces += 1;
        Ok(number)
    }

    /// Says whose an address is, for readers that show names. What the format has no room for is left out or cut.
    ///
    /// # Errors
    /// The output's.
    pub fn name(&mut self, address: Address, name: &str) -> io::Result<()> {
        let (kind, octets): (u16, &[u8]) = match &address {
            Address::V4(address) => (1, &address.octets()),
            Address::V6(address) => (2, &address.octets()),
            Address::Mac(address) => (3, &address.0),
        };
        // A NUL ends a name.
        let name = cut(name.split('\0').next().unwrap_or_default());
        if name.is_empty() {
            return Ok(());
        }
        let mut body = Vec::new();
        option(&mut body, kind, &[octets, name, &[0]].concat());
        option(&mut body, END, &[]);
        self.block(NAMES, &[&body])
    }

    /// Adds a frame. It is in the output after [`flush`](Self::flush).
    ///
    /// # Errors
    /// The output's.
    pub fn frame(
        &mut self,
        interface: u32,
        time: SystemTime,
        direction: Option<Direction>,
        frame: &[u8],
    ) -> io::Result<()> {
        let frame = &frame[..frame.len().min(SNAPLEN as usize)];
        let nanos = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        let mut head = [0; 20];
        let fields = [interface, (nanos >> 32) as u32, nanos as u32, frame.len() as u32, frame.len() as u32];
        for (place, field) in head.chunks_exact_mut(4).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        let mut options = Vec::with_capacity(12);
        if let Some(direction) = direction {
            let flags: u32 = if direction == Direction::Inbound { 1 } else { 2 };
            option(&mut options, PACKET_FLAGS, &flags.to_le_bytes());
            option(&mut options, END, &[]);
        }
        self.block(PACKET, &[&head, frame, padding(frame.len()), &options])
    }

    /// Writes what is buffered.
    ///
    /// # Errors
    /// The output's.
    pub fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }

    /// A block: its length stands at both ends.
    fn block(&mut self, kind: u32, parts: &[&[u8]]) -> io::Result<()> {
        let len = (12 + parts.iter().map(|part| part.len()).sum::<usize>()) as u32;
        self.output.write_all(&kind.to_le_bytes())?;
        self.output.write_all(&len.to_le_bytes())?;
        for part in parts {
            self.output.write_all(part)?;
        }
        self.output.write_all(&len.to_le_bytes())
    }
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    body.extend(code.to_le_bytes());
    // `cut` keeps them short.
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    body.extend(padding(value.len()));
}

/// What brings a length to a multiple of four.
fn padding(len: usize) -> &'static [u8] {
    &[0; 3][..len.wrapping_neg() % 4]
}

fn cut(text: &str) -> &[u8] {
    let end = (0..=text.len().min(NAME_MAX)).rev().find(|&at| text.is_char_boundary(at));
    &text.as_bytes()[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), "ioth-test").unwrap();
        let first = writer.interface("port 1", "a client: user=root").unwrap();
        let second = writer.interface("port 2", &"é".repeat(200)).unwrap();
        writer.name(Address::V4([10, 0, 0, 1].into()), "web").unwrap();
        writer.name(Address::V6(Ipv6Addr::LOCALHOST), &"é".repeat(200)).unwrap();
        writer.name(Address::Mac(MacAddr([2, 0, 0, 0, 0, 1])), "web\0x").unwrap();
        writer.name(Address::V4([10, 0, 0, 2].into()), "").unwrap();
        let time = UNIX_EPOCH + std::time::Duration::new(1_700_000_000, 123_456_789);
        for (interface, direction, len) in [
            (first, Some(Direction::Inbound), 61),
            (second, Some(Direction::Outbound), 60),
            (first, None, 63),
        ] {
            let mut frame = vec![0; len];
            frame[..14].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
            writer.frame(interface, time, direction, &frame).unwrap();
        }
        writer.flush().unwrap();
        writer.output.into_inner().unwrap()
    }

    #[test]
    fn blocks_say_their_length_twice() {
        let bytes = capture();
        let mut rest = &bytes[..];
        let mut kinds = Vec::new();
        while !rest.is_empty() {
            let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
            let len = word(4) as usize;
            assert_eq!((len % 4, word(len - 4) as usize), (0, len));
            kinds.push(word(0));
            rest = &rest[len..];
        }
        assert_eq!(kinds, [SECTION, INTERFACE, INTERFACE, NAMES, NAMES, NAMES, PACKET, PACKET, PACKET]);
    }

    #[test]
    fn tcpdump_reads_it() {
        let path = std::env::temp_dir().join(format!("ioth-pcapng-{}.pcapng", std::process::id()));
        std::fs::write(&path, capture()).unwrap();
        let output = std::process::Command::new("tcpdump")
            .args(["-e", "-n", "-tt", "--nano", "-r"])
            .arg(&path)
            .output()
            .expect("tcpdump (supply it by: apt-get install tcpdump)");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(
            text.matches("1700000000.123456789 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff").count(),
            3,
            "{text}"
        );
        std::fs::remove_file(path).unwrap();
    }
}
