//! Where a node process is found.

/// The environment variable by which programs learn of their node: the text of a [`Place`].
pub const ENV: &str = "IOTH_NODE";

/// The control socket of a node process, and the secret that lets programs use it.
///
/// Its text is `NAME:TOKEN`: the abstract name without its leading NUL, and 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    name: [u8; Place::NAME_MAX],
    name_len: usize,
    /// The secret.
    pub token: [u8; 16],
}

impl Place {
    /// The longest name, in bytes.
    pub const NAME_MAX: usize = 64;
    /// The longest text, in bytes.
    pub const TEXT_MAX: usize = Place::NAME_MAX + 1 + 32;

    /// A place; `None` for a name that is empty, too long, or has other characters than letters, digits, `/`, `-`, `.`.
    pub fn new(name: &str, token: [u8; 16]) -> Option<Place> {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-.".contains(byte);
        let fits = !name.is_empty() && name.len() <= Place::NAME_MAX;
        if !fits || !name.as_bytes().iter().all(plain) {
            return None;
        }
        let mut place = Place { name: [0; Place::NAME_MAX], name_len: name.len(), token };
        place.name[..name.len()].copy_from_slice(name.as_bytes());
        Some(place)
    }

    /// From its text.
    pub fn parse(text: &[u8]) -> Option<Place> {
        let text = core::str::from_utf8(text).ok()?;
        let (name, digits) = text.split_once(':')?;
        let digits = digits.as_bytes();
        let mut token = [0; 16];
        if digits.len() != 2 * token.len() {
            return None;
        }
        for (byte, pair) in token.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Place::new(name, token)
    }

    /// The abstract name, without the leading NUL.
    pub fn name(&self) -> &[u8] {
        &self.name[..self.name_len]
    }

    /// Writes its text: how many bytes it has.
    pub fn emit(&self, text: &mut [u8; Place::TEXT_MAX]) -> usize {
        let name = self.name();
        text[..name.len()].copy_from_slice(name);
        text[name.len()] = b':';
        for (at, byte) in self.token.iter().enumerate() {
            let at = name.len() + 1 + 2 * at;
            text[at] = DIGITS[usize::from(byte >> 4)];
            text[at + 1] = DIGITS[usize::from(byte & 15)];
        }
        name.len() + 1 + 2 * self.token.len()
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The value of a hexadecimal digit in lower case.
pub(crate) fn digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Writes `number` in hexadecimal digits that fill `text`.
pub(crate) fn hexadecimal(mut number: u64, text: &mut [u8]) {
    for place in text.iter_mut().rev() {
        *place = DIGITS[(number & 15) as usize];
        number >>= 4;
    }
}

/// The number that `text` has in hexadecimal digits.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0u64, |number, &byte| Some(number << 4 | u64::from(digit(byte)?)))
}
