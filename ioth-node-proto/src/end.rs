//! What a user's end tells without asking the node.

use crate::place::{hexadecimal, number};

/// The abstract name of a node's end, which says all of a socket that never changes.
///
/// As text `ioth/NODE/SOCKET/DDDD.TTTT.PPPP`, all hexadecimal: `ioth/00c0ffee00c0ffee/000000000000002a/0002.0001.0006`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EndName {
    /// The node, a random number.
    pub node: u64,
    /// The socket, never used twice by its node.
    pub socket: u64,
    /// `AF_*`
    pub domain: u16,
    /// `SOCK_*`, without flags.
    pub kind: u16,
    /// `SO_PROTOCOL`
    pub protocol: u16,
}

impl EndName {
    /// Length of the text, in bytes; the abstract name has a leading NUL besides.
    pub const LEN: usize = 5 + 16 + 1 + 16 + 1 + 4 + 1 + 4 + 1 + 4;
    const PREFIX: &'static [u8; 5] = b"ioth/";

    /// Its text.
    pub fn emit(&self) -> [u8; EndName::LEN] {
        let mut text = *b"ioth/................/................/....,....,....";
        hexadecimal(self.node, &mut text[5..21]);
        hexadecimal(self.socket, &mut text[22..38]);
        hexadecimal(self.domain.into(), &mut text[39..43]);
        text[43] = b'.';
        hexadecimal(self.kind.into(), &mut text[44..48]);
        text[48] = b'.';
        hexadecimal(self.protocol.into(), &mut text[49..53]);
        text
    }

    /// From its text, the abstract name without the leading NUL.
    pub fn parse(text: &[u8]) -> Option<EndName> {
        let text: &[u8; EndName::LEN] = text.try_into().ok()?;
        let marks = [(21, b'/'), (38, b'/'), (43, b'.'), (48, b'.')];
        if !text.starts_with(EndName::PREFIX) || marks.iter().any(|&(at, mark)| text[at] != mark) {
            return None;
        }
        let short = |text: &[u8]| number(text).and_then(|number| u16::try_from(number).ok());
        Some(EndName {
            node: number(&text[5..21])?,
            socket: number(&text[22..38])?,
            domain: short(&text[39..43])?,
            kind: short(&text[44..48])?,
            protocol: short(&text[49..53])?,
        })
    }

    /// Whether the pair carries a stream's bytes (else messages).
    pub fn is_stream(&self) -> bool {
        const SOCK_STREAM: u16 = 1;
        self.kind == SOCK_STREAM
    }
}

/// What may be done with a user's end without asking the node: its `SO_PRIORITY`, 0 to 6.
///
/// A state that is behind the socket's makes a program ask more than it had to, never less.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// A fresh socket. A stream moves no data yet; messages go both ways behind a [`Head`](crate::Head).
    Fresh = 0,
    /// Connected: a stream's bytes, or bare messages, go both ways.
    Connected = 1,
    /// A stream that listens: connections come in messages.
    Listening = 2,
    /// A stream whose connect(2) was begun and did not end in that call.
    Connecting = 3,
    /// A socket whose messages come behind a [`Head`](crate::Head) and may bring ancillary data, and leave by requests.
    Ancillary = 4,
}

impl State {
    /// From the option's value.
    pub fn from_priority(priority: i32) -> Option<State> {
        [State::Fresh, State::Connected, State::Listening, State::Connecting, State::Ancillary]
            .into_iter()
            .find(|state| state.priority() == priority)
    }

    /// The option's value.
    pub fn priority(self) -> i32 {
        self as i32
    }
}
