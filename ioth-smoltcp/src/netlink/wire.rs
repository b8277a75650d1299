//! Netlink's framing: messages, and attributes in them.

use std::net::IpAddr;

use ioth_core::Errno;

use super::Fault;

/// Length of `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;

/// `struct nlmsghdr` without its length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) seq: u32,
    pub(super) port: u32,
}

impl Header {
    /// Whether any bit of `flag` is set, `NLM_F_DUMP` (two bits) wholly.
    pub(super) fn has(self, flag: i32) -> bool {
        i32::from(self.flags) & flag == flag
    }
}

/// A request with its header read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) header: Header,
    pub(super) body: &'a [u8],
    /// The asking socket's.
    pub(super) port: u32,
    /// NETLINK_GET_STRICT_CHK is on.
    pub(super) strict: bool,
}

impl<'a> Request<'a> {
    /// The header of a reply.
    pub(super) fn reply(&self) -> Header {
        Header { kind: 0, flags: 0, seq: self.header.seq, port: self.port }
    }

    /// The family, which every rtnetlink message has first.
    pub(super) fn family(&self) -> i32 {
        self.body.first().copied().map_or(libc::AF_UNSPEC, i32::from)
    }

    /// The fixed part of `N` bytes and the attributes behind it.
    pub(super) fn split<const N: usize>(&self) -> Result<([u8; N], Attrs<'a>), Fault> {
        let (fixed, rest) = self.body.split_first_chunk::<N>().ok_or(Errno::EINVAL)?;
        Ok((*fixed, Attrs(rest.get(N.next_multiple_of(4) - N..).unwrap_or_default())))
    }

    /// The same of a dump request, which may be cut short: what is missing is 0.
    pub(super) fn split_short<const N: usize>(&self) -> ([u8; N], Attrs<'a>) {
        self.split().unwrap_or_else(|_| {
            let mut fixed = [0; N];
            fixed[..self.body.len().min(N)].copy_from_slice(&self.body[..self.body.len().min(N)]);
            (fixed, Attrs(&[]))
        })
    }
}

/// Takes the first message from a buffer: its header, all of it, and what follows it.
pub(super) fn split(buffer: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let len = u32_at(buffer, 0)? as usize;
    if len < HEADER || len > buffer.len() {
        return None;
    }
    let header = Header {
        kind: u16_at(buffer, 4)?,
        flags: u16_at(buffer, 6)?,
        seq: u32_at(buffer, 8)?,
        port: u32_at(buffer, 12)?,
    };
    Some((header, &buffer[..len], buffer.get(len.next_multiple_of(4)..).unwrap_or_default()))
}

/// A number at an offset, if the bytes reach so far.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().map(u32::from_ne_bytes).ok()
}

/// A number at an offset, if the bytes reach so far.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().map(u16::from_ne_bytes).ok()
}

/// Attributes in a row. As in Linux, whatever cannot be one ends them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attrs<'a>(pub(super) &'a [u8]);

impl<'a> Attrs<'a> {
    /// The value of an attribute; the last one counts.
    pub(super) fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.filter(|(other, _)| *other == kind).last().map(|(_, value)| value)
    }

    pub(super) fn has(self, kind: u16) -> bool {
        self.get(kind).is_some()
    }

    /// The first bytes of a value that must have as many. Linux: longer is taken, shorter is `ERANGE`.
    pub(super) fn array<const N: usize>(self, kind: u16) -> Result<Option<[u8; N]>, Fault> {
        let Some(value) = self.get(kind) else { return Ok(None) };
        value.first_chunk::<N>().copied().map(Some).ok_or(Errno::ERANGE.into())
    }

    pub(super) fn u32(self, kind: u16) -> Result<Option<u32>, Fault> {
        Ok(self.array(kind)?.map(u32::from_ne_bytes))
    }

    /// An address of a family.
    pub(super) fn ip(self, kind: u16, ipv6: bool) -> Result<Option<IpAddr>, Fault> {
        if ipv6 {
            Ok(self.array::<16>(kind)?.map(IpAddr::from))
        } else {
            Ok(self.array::<4>(kind)?.map(IpAddr::from))
        }
    }

    /// Text, with or without its NUL, of at most `max` bytes. Linux: longer is `ERANGE`.
    pub(super) fn text(self, kind: u16, max: usize) -> Result<Option<&'a str>, Fault> {
        let Some(value) = self.get(kind) else { return Ok(None) };
        let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
        if text.len() > max {
            return Err(Errno::ERANGE.into());
        }
        std::str::from_utf8(text).map(Some).map_err(|_| Fault::new(Errno::EINVAL, "text must be UTF-8"))
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let len = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & NLA_TYPE_MASK;
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// Writes one message at the end of a buffer.
pub(super) struct Writer<'a> {
    buffer: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn begin(buffer: &'a mut Vec<u8>, kind: u16, flags: u16, seq: u32, port: u32) -> Self {
        let start = buffer.len();
        buffer.extend_from_slice(&[0; 4]);
        buffer.extend_from_slice(&kind.to_ne_bytes());
        buffer.extend_from_slice(&flags.to_ne_bytes());
        buffer.extend_from_slice(&seq.to_ne_bytes());
        buffer.extend_from_slice(&port.to_ne_bytes());
        Writer { buffer, start }
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    pub(super) fn attr(&mut self, kind: u16, value: &[u8]) {
        self.put(&((value.len() + 4) as u16).to_ne_bytes());
        self.put(&kind.to_ne_bytes());
        self.put(value);
        self.align();
    }

    pub(super) fn u8(&mut self, kind: u16, value: u8) {
        self.attr(kind, &[value]);
    }

    pub(super) fn u32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_ne_bytes());
    }

    /// Text with its NUL.
    pub(super) fn text(&mut self, kind: u16, text: &str) {
        let mut value = Vec::with_capacity(text.len() + 1);
        value.extend_from_slice(text.as_bytes());
        value.push(0);
        self.attr(kind, &value);
    }

    pub(super) fn ip(&mut self, kind: u16, addr: IpAddr) {
        match addr {
            IpAddr::V4(addr) => self.attr(kind, &addr.octets()),
            IpAddr::V6(addr) => self.attr(kind, &addr.octets()),
        }
    }

    /// Attributes within an attribute.
    pub(super) fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Writer<'_>)) {
        let at = self.buffer.len();
        self.put(&[0; 2]);
        self.put(&kind.to_ne_bytes());
        inner(&mut Writer { buffer: self.buffer, start: self.start });
        let len = (self.buffer.len() - at) as u16;
        self.buffer[at..at + 2].copy_from_slice(&len.to_ne_bytes());
    }

    pub(super) fn align(&mut self) {
        let len = self.buffer.len() - self.start;
        self.buffer.resize(self.start + len.next_multiple_of(4), 0);
    }

    /// Writes the length.
    pub(super) fn end(mut self) {
        let len = (self.buffer.len() - self.start) as u32;
        self.buffer[self.start..self.start + 4].copy_from_slice(&len.to_ne_bytes());
        self.align();
    }
}

/// The bits beside it say that a value is nested or in network byte order.
const NLA_TYPE_MASK: u16 = 0x3fff;
