//! VNLs: virtual network locators, the text that names a link.
//!
//! ```text
//! [ifname:]scheme://rest          rest, by scheme:
//!                                   path[key=value/flag]             vde, switch, hub, multi, tap
//!                                   address/key=value/flag           null
//!                                   before{another VNL}/key=value    pcap, fault, rate, vlan
//! ```
//! A VNL without `://` is a path handed to `vde`, or a file whose first line is the VNL.
//!
//! A key may be shortened to any prefix; the first match in the scheme's table wins. `'...'`,
//! `"..."` and `\c` quote; outside quotes `%XX` is the byte of that hexadecimal value, and any other `%`
//! is itself. Paths before `[` and VNLs between `{` and `}` are taken as they are.

use std::fmt;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::LinkError;

/// Longest VNL, in bytes; what a file's first line may have as well.
pub const MAX_LEN: usize = 4096;

/// Longest interface name, in bytes: Linux's IFNAMSIZ less its final NUL.
pub const IFNAME_MAX: usize = 15;

/// A VNL cut at its `://`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locator {
    /// What stands before `://`; `vde` where there is none.
    pub scheme: String,
    /// What stands behind it, in the scheme's own grammar.
    pub rest: String,
}

impl Locator {
    /// Cuts a VNL at its first `://`, without looking at any file.
    ///
    /// # Errors
    /// [`LinkError::Syntax`] for a VNL that is too long, has a NUL in it or no scheme before `://`.
    pub fn parse(vnl: &str) -> Result<Self, LinkError> {
        if vnl.len() > MAX_LEN {
            let start: String = vnl.chars().take(40).collect();
            return Err(syntax(format!("{} bytes in \"{start}...\" (at most {MAX_LEN})", vnl.len())));
        }
        if let Some(at) = vnl.find('\0') {
            return Err(syntax(format!("NUL at byte {at} of {vnl:?}")));
        }
        match vnl.split_once("://") {
            Some(("", _)) => {
                Err(syntax(format!("no scheme before \"://\" in \"{vnl}\" (such as switch://lan)")))
            }
            Some((scheme, rest)) => Ok(Locator { scheme: scheme.to_owned(), rest: rest.to_owned() }),
            None => Ok(Locator { scheme: "vde".to_owned(), rest: vnl.to_owned() }),
        }
    }

    /// As [`parse`](Self::parse); of a VNL without `://` the default and the file rules apply first.
    ///
    /// Empty means `.vdeplug/default`, else `.vde2/default.switch`, under `home` when such a file exists.
    /// A regular file's first line is the VNL; a file that it names in turn is not read.
    ///
    /// # Errors
    /// As `parse`; [`LinkError::Os`] when the file cannot be read.
    pub fn resolve(vnl: &str, home: Option<&Path>) -> Result<Self, LinkError> {
        Locator::resolve_from(vnl, home).map(|(locator, _)| locator)
    }

    /// As [`resolve`](Self::resolve), and the file that it was read from.
    pub(crate) fn resolve_from(vnl: &str, home: Option<&Path>) -> Result<(Self, Option<PathBuf>), LinkError> {
        let parse = |vnl: &str| Ok((Locator::parse(vnl)?, None));
        if vnl.contains("://") || vnl.len() > MAX_LEN || vnl.contains('\0') {
            return parse(vnl);
        }
        let path = match vnl {
            "" => default_file(home),
            path => Some(PathBuf::from(path)),
        };
        let Some(path) = path else { return parse(vnl) };
        match first_line(&path)? {
            Some(line) => match Locator::parse(&line) {
                Ok(locator) => Ok((locator, Some(path))),
                Err(error) => Err(error.in_file(&path)),
            },
            None => match path.to_str() {
                Some(path) => parse(path),
                None => Err(syntax(format!("the path {path:?} is not UTF-8"))),
            },
        }
    }
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.rest)
    }
}

/// Cuts `ifname:vnl` in two: there is a name when a `:` comes before any `://`.
///
/// A `:` behind a `/` belongs to a path (`/tmp/a:b`).
///
/// # Errors
/// [`LinkError::Syntax`] when what stands there is not a name that Linux gives an interface.
pub fn split_ifname(text: &str) -> Result<(Option<&str>, &str), LinkError> {
    let Some((name, vnl)) = text.split_once(':') else { return Ok((None, text)) };
    if vnl.starts_with("//") || name.contains('/') {
        return Ok((None, text));
    }
    let right = "an interface name has 1 to 15 bytes, no '/' and no blank, and is not . or ..";
    if name.is_empty() || name.len() > IFNAME_MAX || name == "." || name == ".." {
        return Err(syntax(format!("interface name {name:?} in {text:?} ({right})")));
    }
    // Linux's dev_valid_name() judges bytes by the C locale's isspace(), where 0xa0 is one too.
    if name.bytes().any(|b| b.is_ascii_whitespace() || b == 0x0b || b == 0) || name.contains('\u{a0}') {
        return Err(syntax(format!("blank in the interface name {name:?} in {text:?} ({right})")));
    }
    Ok((Some(name), vnl))
}

/// Reads the bracket style `path[key=value/flag]`: the path as it is, and the parameters.
///
/// The path ends at the first `[`, the parameters at the last `]` that is not quoted.
///
/// # Errors
/// [`LinkError::Syntax`] for a missing `]`, for text behind it, and as [`Params::parse`].
pub fn bracket<'a>(rest: &'a str, keys: Keys, vnl: &str) -> Result<(&'a str, Params), LinkError> {
    let Some(open) = rest.find('[') else { return Ok((rest, Params::parse("", keys, vnl)?)) };
    let (path, inside) = (&rest[..open], &rest[open + 1..]);
    let Some(close) = last_unquoted(inside, b']') else {
        return Err(syntax(format!("'[' without ']' in \"{vnl}\"")));
    };
    let behind = &inside[close + 1..];
    if !behind.is_empty() {
        return Err(syntax(format!("\"{behind}\" behind ']' in \"{vnl}\" (']' is the end)")));
    }
    Ok((path, Params::parse(&inside[..close], keys, vnl)?))
}

/// Reads the slash style `address/key=value/flag`: the address, unquoted, and the parameters.
///
/// # Errors
/// [`LinkError::Syntax`] as [`Params::parse`].
pub fn slash(rest: &str, keys: Keys, vnl: &str) -> Result<(String, Params), LinkError> {
    let at = first_unquoted(rest, b'/').unwrap_or(rest.len());
    let mut address = String::new();
    for element in elements(&rest[..at], vnl)? {
        // An address may have a '=' in it: only what follows a slash is a parameter.
        address = match element.value {
            Some(value) => format!("{}={value}", element.key),
            None => element.key,
        };
    }
    Ok((address, Params::parse(&rest[at..], keys, vnl)?))
}

/// The parts of the nested style.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nested<'a> {
    /// What stands before the first `{`.
    pub before: &'a str,
    /// The enclosed VNL, as it is.
    pub inner: &'a str,
    /// Parameters in slash style behind the last unquoted `}`.
    pub after: &'a str,
}

/// Reads the nested style `before{inner}/key=value`.
///
/// # Errors
/// [`LinkError::Syntax`] when the braces are missing, or something else than `/` follows the last.
pub fn nested<'a>(rest: &'a str, vnl: &str) -> Result<Nested<'a>, LinkError> {
    let Some(open) = rest.find('{') else {
        return Err(syntax(format!("no {{VNL}} in \"{vnl}\" (such as pcap://trace{{switch://lan}})")));
    };
    let inside = &rest[open + 1..];
    let Some(close) = last_unquoted(inside, b'}') else {
        return Err(syntax(format!("'{{' without '}}' in \"{vnl}\"")));
    };
    let after = &inside[close + 1..];
    if !after.is_empty() && !after.starts_with('/') {
        return Err(syntax(format!("\"{after}\" behind '}}' in \"{vnl}\" (parameters begin with '/')")));
    }
    Ok(Nested { before: &rest[..open], inner: &inside[..close], after })
}

/// A scheme's keys in the order in which prefixes are tried; "" is the entry of a lone value.
pub type Keys = &'static [&'static str];

/// The parameters of a VNL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    keys: Keys,
    values: Vec<Option<String>>,
    vnl: String,
}

impl Params {
    /// Reads `key=value/flag/...`; empty elements are skipped, and of a repeated key the last one counts.
    ///
    /// `vnl` is the whole text, for the messages.
    ///
    /// # Errors
    /// [`LinkError::Syntax`] for an unknown key, an open quote and bytes that are not text.
    pub fn parse(text: &str, keys: Keys, vnl: &str) -> Result<Self, LinkError> {
        let mut params = Params { keys, values: vec![None; keys.len()], vnl: vnl.to_owned() };
        for Element { key, value } in elements(text, vnl)? {
            if key.is_empty() && value.is_none() {
                continue;
            }
            let named = keys.iter().position(|known| !key.is_empty() && known.starts_with(&key));
            let unnamed = keys.iter().position(|known| known.is_empty());
            let (at, value) = match (named, unnamed, value) {
                (Some(at), _, value) => (at, value.unwrap_or_default()),
                (None, Some(at), None) => (at, key),
                _ => {
                    let known: Vec<_> = keys.iter().copied().filter(|known| !known.is_empty()).collect();
                    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                    return Err(syntax(format!("unknown key \"{key}\" in \"{vnl}\" (known: {known})")));
                }
            };
            params.values[at] = Some(value);
        }
        Ok(params)
    }

    /// The value of a key, "" for a flag.
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.keys.iter().position(|known| *known == key)?;
        self.values[at].as_deref()
    }

    /// Whether a flag is given; `key=0` takes it back.
    ///
    /// # Errors
    /// [`LinkError::Syntax`] for another value than 0 or 1.
    pub fn flag(&self, key: &str) -> Result<bool, LinkError> {
        match self.get(key) {
            None | Some("0") => Ok(false),
            Some("" | "1") => Ok(true),
            Some(_) => Err(self.wrong(key, "a flag: no value, or 0 or 1")),
        }
    }

    /// The value of a key as a number: see [`size`].
    ///
    /// # Errors
    /// [`LinkError::Syntax`] when it is not one or lies outside the range.
    pub fn number(&self, key: &str, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, LinkError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match size(value) {
            Some(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(self.wrong(key, &format!("a number from {} to {}", range.start(), range.end()))),
        }
    }

    /// The error for a value that `right` describes better.
    pub fn wrong(&self, key: &str, right: &str) -> LinkError {
        let value = self.get(key).unwrap_or_default();
        syntax(format!("\"{key}={value}\" in \"{}\" (should be {right})", self.vnl))
    }
}

/// A number in C's syntax (`10`, `0x1f`, `017`) with a suffix k, m, g or t: powers of 1024.
pub fn size(text: &str) -> Option<u64> {
    let shift = match text.as_bytes().last()?.to_ascii_lowercase() {
        b'k' => 10,
        b'm' => 20,
        b'g' => 30,
        b't' => 40,
        _ => 0,
    };
    let digits = if shift == 0 { text } else { &text[..text.len() - 1] };
    let (digits, radix) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&digits[2..], 16),
        [b'0', _, ..] => (&digits[1..], 8),
        _ => (digits, 10),
    };
    // from_str_radix would take a sign.
    if !digits.bytes().all(|digit| digit.is_ascii_alphanumeric()) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()?.checked_mul(1 << shift)
}

pub(crate) fn syntax(message: String) -> LinkError {
    LinkError::Syntax(message)
}

fn default_file(home: Option<&Path>) -> Option<PathBuf> {
    let home = home?;
    [".vdeplug/default", ".vde2/default.switch"].iter().map(|name| home.join(name)).find(|path| path.exists())
}

/// The first line of a regular file; `None` when the path names anything else, or nothing.
fn first_line(path: &Path) -> Result<Option<String>, LinkError> {
    if !path.is_file() {
        return Ok(None);
    }
    let failed = |error: std::io::Error| LinkError::Os {
        what: format!("reading a VNL from {}", path.display()),
        errno: crate::errno(&error),
    };
    // It could have been replaced by a FIFO since: opening that must not wait.
    let file =
        std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_LEN as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    let end = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
    let line = std::str::from_utf8(&bytes[..end])
        .map_err(|_| syntax(format!("the first line of {} is not UTF-8", path.display())))?;
    Ok(Some(line.trim().to_owned()))
}

struct Element {
    key: String,
    value: Option<String>,
}

/// Cuts at unquoted slashes and, once an element, at an unquoted `=`; takes the quoting away.
fn elements(text: &str, vnl: &str) -> Result<Vec<Element>, LinkError> {
    let mut done = Vec::new();
    let (mut key, mut word) = (None, Vec::new());
    let mut scan = Scan::new(text);
    while let Some(token) = scan.next() {
        match token {
            Token::Plain(b'/') => finish(&mut done, &mut key, &mut word),
            Token::Plain(b'=') if key.is_none() => key = Some(std::mem::take(&mut word)),
            Token::Plain(byte) | Token::Quoted(byte) => word.push(byte),
            Token::Syntax => (),
        }
    }
    if scan.open {
        return Err(syntax(format!("open quote in \"{vnl}\"")));
    }
    finish(&mut done, &mut key, &mut word);
    let text = |bytes: Vec<u8>| match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(syntax(format!("%XX in \"{vnl}\" makes something that is not text in UTF-8"))),
    };
    done.into_iter()
        .map(|(key, value)| Ok(Element { key: text(key)?, value: value.map(text).transpose()? }))
        .collect()
}

type RawElement = (Vec<u8>, Option<Vec<u8>>);

fn finish(done: &mut Vec<RawElement>, key: &mut Option<Vec<u8>>, word: &mut Vec<u8>) {
    let word = std::mem::take(word);
    done.push(match key.take() {
        Some(key) => (key, Some(word)),
        None => (word, None),
    });
}

fn first_unquoted(text: &str, wanted: u8) -> Option<usize> {
    let mut scan = Scan::new(text);
    loop {
        let at = scan.at;
        if scan.next()? == Token::Plain(wanted) {
            return Some(at);
        }
    }
}

fn last_unquoted(text: &str, wanted: u8) -> Option<usize> {
    let mut scan = Scan::new(text);
    let mut last = None;
    loop {
        let at = scan.at;
        match scan.next() {
            Some(Token::Plain(byte)) if byte == wanted => last = Some(at),
            Some(_) => (),
            None => return last,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    /// A byte that may be a separator.
    Plain(u8),
    /// A byte that stands for itself.
    Quoted(u8),
    /// A quote or a backslash.
    Syntax,
}

/// Reads quoting byte by byte. Quotes and separators are ASCII, so multi-byte characters pass unharmed.
struct Scan<'a> {
    text: &'a [u8],
    at: usize,
    quote: Option<u8>,
    /// Something that was begun needs more bytes.
    open: bool,
}

impl<'a> Scan<'a> {
    fn new(text: &'a str) -> Self {
        Scan { text: text.as_bytes(), at: 0, quote: None, open: false }
    }

    fn next(&mut self) -> Option<Token> {
        let byte = *self.text.get(self.at)?;
        self.at += 1;
        let token = match (self.quote, byte) {
            (Some(quote), _) if byte == quote => {
                self.quote = None;
                Token::Syntax
            }
            (None, b'\'' | b'"') => {
                self.quote = Some(byte);
                Token::Syntax
            }
            (None | Some(b'"'), b'\\') => match self.text.get(self.at) {
                Some(&next) => {
                    self.at += 1;
                    Token::Quoted(next)
                }
                None => {
                    self.open = true;
                    return Some(Token::Syntax);
                }
            },
            (None, b'%') => match self.hex() {
                Some(byte) => Token::Quoted(byte),
                None => Token::Quoted(b'%'),
            },
            (Some(_), _) => Token::Quoted(byte),
            (None, _) => Token::Plain(byte),
        };
        self.open = self.quote.is_some();
        Some(token)
    }

    fn hex(&mut self) -> Option<u8> {
        let digit = |at: usize| char::from(*self.text.get(at)?).to_digit(16);
        let byte = digit(self.at)? * 16 + digit(self.at + 1)?;
        self.at += 2;
        u8::try_from(byte).ok()
    }
}

#[cfg(test)]
mod tests;
