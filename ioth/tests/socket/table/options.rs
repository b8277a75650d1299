//! Options that are an int: the default, what comes of setting them, and a value that is too short.
//!
//! Options with structures have their rows in `structures`.

use super::kinds::grouped;
use super::{Row, row, said, said_number};
use crate::fixture::{Fd, Pair, option, set_option};
use ioth::berkeley::setsockopt;

/// Kinds of sockets that an option is tried on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    Stream,
    Datagram,
    Raw,
    Lite,
}

use On::{Datagram, Lite, Raw, Stream};

pub(super) const BOTH: &[On] = &[Stream, Datagram];
pub(super) const ALL: &[On] = &[Stream, Datagram, Raw];
/// Values for a switch.
const SWITCH: &[i32] = &[1, 0, 2, -1];

/// A row for each line: the option, the kinds of sockets, values to set one after the other, and a remark.
macro_rules! options {
    ($level:ident: $($name:ident $kinds:expr, $values:expr $(, $remark:literal)?;)*) => {
        vec![$(int_row(libc::$level, libc::$name, stringify!($name), $kinds, $values, concat!($($remark)?)),)*]
    };
}

pub(super) fn socket() -> Vec<Row> {
    options! { SOL_SOCKET:
        SO_TYPE ALL, &[1];
        SO_DOMAIN ALL, &[1];
        SO_PROTOCOL ALL, &[1];
        SO_ACCEPTCONN BOTH, &[1];
        SO_ERROR BOTH, &[1];
        SO_REUSEADDR BOTH, SWITCH;
        SO_REUSEPORT BOTH, SWITCH;
        SO_BROADCAST BOTH, SWITCH;
        SO_KEEPALIVE BOTH, SWITCH;
        SO_OOBINLINE BOTH, SWITCH;
        SO_PRIORITY BOTH, &[1, 6, 0];
        SO_TIMESTAMP BOTH, SWITCH;
        SO_TIMESTAMPNS BOTH, SWITCH;
        SO_RCVLOWAT &[Stream], &[1, 5, 0];
        SO_SNDLOWAT &[Stream], &[1];
        SO_DEBUG BOTH, &[0];
        SO_BSDCOMPAT BOTH, SWITCH;
        SO_NO_CHECK BOTH, SWITCH;
        SO_MARK BOTH, &[1, -1, 0];
        SO_WIFI_STATUS BOTH, SWITCH;
        SO_NOFCS BOTH, SWITCH;
        SO_INCOMING_NAPI_ID BOTH, &[1];
        SO_BUSY_POLL BOTH, &[0, -1];
        SO_BINDTOIFINDEX BOTH, &[1, 99, -1, 0];
        SO_PEERGROUPS BOTH, &[1];
    }
}

pub(super) fn tcp() -> Vec<Row> {
    options! { IPPROTO_TCP:
        TCP_NODELAY BOTH, SWITCH;
        TCP_KEEPIDLE BOTH, &[1, 32_767, 0, 32_768, -1];
        TCP_KEEPINTVL BOTH, &[1, 32_767, 0, 32_768, -1];
        TCP_KEEPCNT BOTH, &[1, 127, 0, 128, -1];
        TCP_CORK BOTH, SWITCH;
        TCP_QUICKACK BOTH, SWITCH;
        TCP_MAXSEG &[Stream], &[88, 32_767, 0, 87, 32_768, -1];
        TCP_SYNCNT &[Stream], &[1, 127, 0, 128, -1];
        TCP_USER_TIMEOUT &[Stream], &[1, 2_147_483_647, 0, -1];
        TCP_DEFER_ACCEPT &[Stream], &[1, 2, 4, 10, 100, 1000, 0, -1];
        TCP_LINGER2 &[Stream], &[1, 120, 121, 0, -1, -5];
        TCP_WINDOW_CLAMP &[Stream], &[1, 1152, 5000, 0, -1];
        TCP_THIN_LINEAR_TIMEOUTS &[Stream], SWITCH;
        TCP_THIN_DUPACK &[Stream], SWITCH;
    }
}

pub(super) fn ip() -> Vec<Row> {
    options! { IPPROTO_IP:
        IP_TTL BOTH, &[1, 255, 0, 256, -1, -2];
        IP_TOS BOTH, &[16, 255, 256, -1];
        IP_PKTINFO BOTH, SWITCH;
        IP_RECVTTL BOTH, SWITCH;
        IP_RECVTOS BOTH, SWITCH;
        IP_RECVOPTS BOTH, SWITCH;
        IP_RETOPTS BOTH, SWITCH;
        IP_FREEBIND BOTH, SWITCH;
        IP_RECVERR BOTH, SWITCH;
        IP_MTU_DISCOVER BOTH, &[0, 1, 2, 3, 4, 5, 6, -1];
        IP_MTU BOTH, &[1500];
        IP_MULTICAST_TTL BOTH, &[0, 255, 256, -1, -2];
        IP_MULTICAST_LOOP BOTH, SWITCH;
        IP_MULTICAST_ALL BOTH, SWITCH;
        IP_MULTICAST_IF BOTH, &[0, 1];
        IP_HDRINCL ALL, SWITCH;
        IP_PASSSEC BOTH, SWITCH;
    }
}

pub(super) fn ipv6() -> Vec<Row> {
    options! { IPPROTO_IPV6:
        IPV6_V6ONLY BOTH, SWITCH;
        IPV6_TCLASS BOTH, &[0, 255, 256, -1, -2];
        IPV6_RECVPKTINFO BOTH, SWITCH;
        IPV6_RECVHOPLIMIT BOTH, SWITCH;
        IPV6_RECVTCLASS BOTH, SWITCH;
        IPV6_UNICAST_HOPS BOTH, &[255, 0, 256, -1, -2];
        IPV6_FREEBIND BOTH, SWITCH;
        IPV6_RECVERR BOTH, SWITCH;
        IPV6_DONTFRAG BOTH, SWITCH;
        IPV6_MTU_DISCOVER BOTH, &[0, 1, 2, 3, 4, 5, 6, -1];
        IPV6_MTU BOTH, &[1280, 1279, 0, -1];
        IPV6_MULTICAST_HOPS BOTH, &[0, 255, 256, -1, -2];
        IPV6_MULTICAST_LOOP BOTH, SWITCH;
        IPV6_MULTICAST_ALL BOTH, SWITCH;
        IPV6_MULTICAST_IF BOTH, &[1, 99, -1, 0];
        IPV6_HDRINCL ALL, SWITCH;
        IPV6_CHECKSUM ALL, &[0, 2, 3, -1, -2];
    }
}

/// What the levels of UDP and UDP-Lite have both.
pub(super) fn lite() -> Vec<Row> {
    const VALUES: &[i32] = &[0, 7, 8, 65_536, -1];
    [
        (libc::UDP_CORK, "UDP_CORK", SWITCH),
        (libc::UDP_GRO, "UDP_GRO", SWITCH),
        (10, "UDPLITE_SEND_CSCOV", VALUES),
        (11, "UDPLITE_RECV_CSCOV", VALUES),
    ]
    .map(|(name, label, values)| int_row(libc::IPPROTO_UDPLITE, name, label, &[Datagram, Lite], values, ""))
    .into()
}

fn int_row(
    level: i32,
    name: i32,
    label: &'static str,
    kinds: &'static [On],
    values: &'static [i32],
    remark: &'static str,
) -> Row {
    let probe = move |pair: &Pair| {
        // What an IPv4 socket says of options of IPv6 is always the same, and tested elsewhere.
        if level == libc::IPPROTO_IPV6 && pair.a_addr.is_ipv4() {
            return String::new();
        }
        on_kinds(pair, kinds, |fd| probe_int(fd, level, name, values))
    };
    row(label, probe, remark)
}

/// What a probe says of a fresh socket of each kind, said once where it is the same.
pub(super) fn on_kinds(pair: &Pair, kinds: &[On], probe: impl Fn(&Fd) -> String) -> String {
    grouped(kinds.iter().map(|kind| (word(*kind), probe(&open(pair, *kind)))))
}

pub(super) fn open(pair: &Pair, kind: On) -> Fd {
    let (kind, protocol) = match kind {
        Stream => (libc::SOCK_STREAM, 0),
        Datagram => (libc::SOCK_DGRAM, 0),
        // RFC 3692 §2.1: a protocol for experiments, which nobody else answers.
        Raw => (libc::SOCK_RAW, 253),
        Lite => (libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE),
    };
    pair.open(&pair.a, pair.domain(), kind, protocol).unwrap()
}

pub(super) fn word(kind: On) -> &'static str {
    match kind {
        Stream => "stream",
        Datagram => "datagram",
        Raw => "raw",
        Lite => "UDP-Lite",
    }
}

/// Such as "0; set 1: 1, 0: 0, -1: EINVAL; a byte: EINVAL".
fn probe_int(fd: &Fd, level: i32, name: i32, values: &[i32]) -> String {
    let default = said_number(option(fd, level, name));
    let outcomes: Vec<_> = values
        .iter()
        .map(|&value| match set_option(fd, level, name, value) {
            Ok(()) => said_number(option(fd, level, name)),
            error => said(error),
        })
        .collect();
    let byte = said(setsockopt(fd.0, level, name, &[1]));
    if outcomes.iter().all(|outcome| *outcome == byte) {
        return format!("{default}; set: {byte}");
    }
    let outcomes: Vec<_> =
        values.iter().zip(outcomes).map(|(value, outcome)| format!("{value}: {outcome}")).collect();
    format!("{default}; set {}; a byte: {byte}", outcomes.join(", "))
}
