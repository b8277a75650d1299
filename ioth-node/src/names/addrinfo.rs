//! getaddrinfo(3): what is asked, in which form the answer is wanted, and what can be wrong with it.
//!
//! Read RFC 3493 §6.1 first. Where that leaves room, glibc's ways are kept.

use super::services::Services;

/// What getaddrinfo(3) is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<'a> {
    /// A host's name or address; `None` for this node.
    pub host: Option<&'a str>,
    /// A service's name or port.
    pub service: Option<&'a str>,
    /// `ai_flags`; what null hints stand for is [`Query::DEFAULT_FLAGS`].
    pub flags: i32,
    /// `ai_family`
    pub family: i32,
    /// `ai_socktype`
    pub kind: i32,
    /// `ai_protocol`
    pub protocol: i32,
}

impl<'a> Query<'a> {
    /// The flags of null hints.
    pub const DEFAULT_FLAGS: i32 = libc::AI_V4MAPPED | libc::AI_ADDRCONFIG;

    /// Whether a flag is set.
    pub(super) fn has(&self, flag: i32) -> bool {
        self.flags & flag != 0
    }

    /// The query as it is meant, when it can mean anything.
    pub(super) fn checked(self) -> Result<Query<'a>, LookupError> {
        // glibc's, not in RFC 3493: a star stands for a null pointer.
        let null_for_star = |text: Option<&'a str>| text.filter(|&text| text != "*");
        let query = Query { host: null_for_star(self.host), service: null_for_star(self.service), ..self };
        if query.host.is_none() && query.service.is_none() {
            return Err(LookupError::NoName);
        }
        if query.has(!KNOWN_FLAGS) || query.has(libc::AI_CANONNAME) && query.host.is_none() {
            return Err(LookupError::BadFlags);
        }
        if ![libc::AF_UNSPEC, libc::AF_INET, libc::AF_INET6].contains(&query.family) {
            return Err(LookupError::Family);
        }
        Ok(query)
    }
}

/// Not in libc: `AI_IDN`, `AI_CANONIDN`, and two that are ignored.
pub(super) const AI_IDN: i32 = 0x40;
const AI_CANONIDN: i32 = 0x80;
const DEPRECATED_AI_IDN: i32 = 0x300;

const KNOWN_FLAGS: i32 = libc::AI_PASSIVE
    | libc::AI_CANONNAME
    | libc::AI_NUMERICHOST
    | libc::AI_V4MAPPED
    | libc::AI_ALL
    | libc::AI_ADDRCONFIG
    | AI_IDN
    | AI_CANONIDN
    | DEPRECATED_AI_IDN
    | libc::AI_NUMERICSERV;

/// Why getaddrinfo(3) or getnameinfo(3) has no answer: glibc's `EAI_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// `EAI_BADFLAGS`
    #[error("names: flags that do not go together")]
    BadFlags,
    /// `EAI_NONAME`
    #[error("names: name or service not known")]
    NoName,
    /// `EAI_AGAIN`: nobody could be asked, or there is too much to do.
    #[error("names: no answer for the time being")]
    Again,
    /// `EAI_NODATA`: the name has other records.
    #[error("names: no address under this name")]
    NoData,
    /// `EAI_FAMILY`
    #[error("names: family not known")]
    Family,
    /// `EAI_SOCKTYPE`
    #[error("names: socket type not known")]
    SocketType,
    /// `EAI_SERVICE`
    #[error("names: service not known for this socket type")]
    Service,
    /// `EAI_ADDRFAMILY`
    #[error("names: an address of another family")]
    AddrFamily,
    /// `EAI_IDN_ENCODE`: other characters than ASCII's have to be encoded by the program.
    #[error("names: a name that is not ASCII")]
    Encoding,
    /// `EAI_SYSTEM`
    #[error("names: {0}")]
    System(ioth::Errno),
}

impl LookupError {
    /// glibc's `EAI_*`, which is negative.
    pub fn code(&self) -> i32 {
        match self {
            LookupError::BadFlags => libc::EAI_BADFLAGS,
            LookupError::NoName => libc::EAI_NONAME,
            LookupError::Again => libc::EAI_AGAIN,
            LookupError::NoData => EAI_NODATA,
            LookupError::Family => libc::EAI_FAMILY,
            LookupError::SocketType => libc::EAI_SOCKTYPE,
            LookupError::Service => libc::EAI_SERVICE,
            LookupError::AddrFamily => EAI_ADDRFAMILY,
            LookupError::Encoding => EAI_IDN_ENCODE,
            LookupError::System(_) => libc::EAI_SYSTEM,
        }
    }
}

/// netdb.h; not in libc.
const EAI_NODATA: i32 = -5;
const EAI_ADDRFAMILY: i32 = -9;
const EAI_IDN_ENCODE: i32 = -105;

/// A socket type with a protocol, and the port of the service there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transport {
    pub(super) kind: i32,
    pub(super) protocol: i32,
    pub(super) port: u16,
}

/// What glibc knows of a socket type.
struct Known {
    kind: i32,
    /// `None` for any.
    protocol: Option<i32>,
    /// In the services file; `None` when it has no services.
    name: Option<&'static str>,
    /// Whether it is given to whoever asked for none.
    default: bool,
}

/// In glibc's order.
const KNOWN: [Known; 7] = [
    known(libc::SOCK_STREAM, libc::IPPROTO_TCP, "tcp", true),
    known(libc::SOCK_DGRAM, libc::IPPROTO_UDP, "udp", true),
    known(libc::SOCK_DCCP, libc::IPPROTO_DCCP, "dccp", false),
    known(libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE, "udplite", false),
    known(libc::SOCK_STREAM, libc::IPPROTO_SCTP, "sctp", false),
    known(libc::SOCK_SEQPACKET, libc::IPPROTO_SCTP, "sctp", false),
    Known { kind: libc::SOCK_RAW, protocol: None, name: None, default: true },
];

const fn known(kind: i32, protocol: i32, name: &'static str, default: bool) -> Known {
    Known { kind, protocol: Some(protocol), name: Some(name), default }
}

/// The transports of an answer: what the hints allow, with the port of the service.
pub(super) fn transports(query: &Query<'_>, services: &Services) -> Result<Vec<Transport>, LookupError> {
    let free = query.kind == 0 && query.protocol == 0;
    let fits = |known: &Known| {
        (query.kind == 0 || query.kind == known.kind)
            && (query.protocol == 0 || known.protocol.is_none_or(|protocol| protocol == query.protocol))
    };
    let service = query.service.filter(|service| !service.is_empty());
    let number = service.map(port);
    if number == Some(None) && query.has(libc::AI_NUMERICSERV) {
        return Err(LookupError::NoName);
    }
    let missing = if query.kind != 0 { LookupError::SocketType } else { LookupError::Service };
    // Without hints there are several; with any, the first that goes with them.
    let first = KNOWN.iter().find(|known| fits(known)).ok_or(missing)?;
    if service.is_some() && !free && first.name.is_none() {
        return Err(LookupError::Service);
    }
    let transport = |known: &Known, port| Transport {
        kind: known.kind,
        protocol: known.protocol.unwrap_or(query.protocol),
        port,
    };
    let port = match (service, number.flatten()) {
        (None, _) => 0,
        // glibc cuts it to 16 bits.
        (_, Some(port)) if port >= 0 => port as u16,
        (Some(service), _) => {
            let candidates = if free { &KNOWN[..] } else { std::slice::from_ref(first) };
            let transports: Vec<_> = candidates
                .iter()
                .filter_map(|known| Some(transport(known, services.port(service, known.name?)?)))
                .collect();
            return if transports.is_empty() { Err(LookupError::Service) } else { Ok(transports) };
        }
    };
    Ok(match free {
        true => KNOWN.iter().filter(|known| known.default).map(|known| transport(known, port)).collect(),
        false => vec![transport(first, port)],
    })
}

/// A service that is a number as strtoul(3) reads it, put into an `int`; `None` when it is none.
fn port(service: &str) -> Option<i32> {
    let text = service.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let (digits, negative) = match text.as_bytes().first() {
        Some(b'-') => (&text[1..], true),
        Some(b'+') => (&text[1..], false),
        _ => (text, false),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Only too many digits are left to go wrong: strtoul gives its maximum then, whatever the sign.
    Some(match digits.parse::<u64>() {
        Ok(number) if negative => number.wrapping_neg() as i32,
        Ok(number) => number as i32,
        Err(_) => u64::MAX as i32,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_as_strtoul_reads_them() {
        assert_eq!(port("80"), Some(80));
        assert_eq!(port(" +80"), Some(80));
        assert_eq!(port("-1"), Some(-1));
        assert_eq!(port("4294967376"), Some(80));
        assert_eq!(port("99999999999999999999999"), Some(-1));
        assert_eq!(["", "+", "80x", "0x50", "http"].map(port), [None; 5]);
    }
}
