//! Options that Linux has and smoltcp does not: asked is for every option of the system's headers.

use std::fmt::Write as _;

use ioth::berkeley::getsockopt;

use super::options::{ALL, On, open, word};
use crate::fixture::Pair;

/// Options by their levels.
macro_rules! names {
    ($($level:ident: $($name:ident)*;)*) => {
        vec![$((stringify!($level), libc::$level, vec![$((stringify!($name), libc::$name)),*])),*]
    };
}

/// For each level, those that the kernel's sockets know and ours do not; with the types of the sockets in brackets, where
/// others of ours know it.
pub(super) fn list([kernel, ours]: &[[Pair; 2]; 2]) -> String {
    let levels = names! {
        SOL_SOCKET:
            SO_ZEROCOPY SO_TXTIME SO_BPF_EXTENSIONS SO_INCOMING_NAPI_ID SO_LOCK_FILTER SO_MAX_PACING_RATE SO_PREFER_BUSY_POLL SO_NOFCS SO_COOKIE SO_BUSY_POLL_BUDGET SO_MEMINFO SO_WIFI_STATUS SO_SELECT_ERR_QUEUE SO_INCOMING_CPU SO_ATTACH_FILTER SO_ATTACH_REUSEPORT_CBPF SO_ATTACH_REUSEPORT_EBPF SO_BINDTODEVICE
            SO_BUSY_POLL SO_DEBUG SO_DETACH_FILTER SO_DONTROUTE SO_LINGER SO_MARK SO_NO_CHECK
            SO_OOBINLINE SO_PASSCRED SO_PASSSEC SO_PEEK_OFF SO_PEERCRED SO_PEERNAME SO_PRIORITY
            SO_RCVBUF SO_RCVBUFFORCE SO_RCVLOWAT SO_RCVTIMEO SO_RCVTIMEO_NEW SO_RXQ_OVFL SO_SNDBUF SO_SNDBUFFORCE
            SO_SNDLOWAT SO_SNDTIMEO SO_SNDTIMEO_NEW SO_TIMESTAMP SO_TIMESTAMPING SO_TIMESTAMPNS;
        IPPROTO_TCP:
            TCP_CC_INFO TCP_CONGESTION TCP_CORK TCP_DEFER_ACCEPT TCP_FASTOPEN TCP_FASTOPEN_CONNECT
            TCP_FASTOPEN_KEY TCP_FASTOPEN_NO_COOKIE TCP_INFO TCP_INQ TCP_LINGER2 TCP_MAXSEG
            TCP_MD5SIG TCP_NOTSENT_LOWAT TCP_QUEUE_SEQ TCP_QUICKACK TCP_REPAIR TCP_REPAIR_OPTIONS
            TCP_REPAIR_QUEUE TCP_REPAIR_WINDOW TCP_SAVED_SYN TCP_SAVE_SYN TCP_SYNCNT TCP_THIN_DUPACK
            TCP_THIN_LINEAR_TIMEOUTS TCP_TIMESTAMP TCP_ULP TCP_USER_TIMEOUT
            TCP_WINDOW_CLAMP;
        IPPROTO_UDP:
            UDP_CORK UDP_ENCAP UDP_GRO UDP_NO_CHECK6_RX UDP_NO_CHECK6_TX UDP_SEGMENT;
        IPPROTO_IP:
            IP_BIND_ADDRESS_NO_PORT IP_CHECKSUM IP_FREEBIND IP_HDRINCL IP_MINTTL IP_MSFILTER IP_MTU
            IP_MTU_DISCOVER IP_MULTICAST_ALL IP_MULTICAST_IF IP_MULTICAST_LOOP IP_MULTICAST_TTL
            IP_NODEFRAG IP_OPTIONS IP_PASSSEC IP_PKTINFO IP_PKTOPTIONS IP_RECVERR IP_RECVFRAGSIZE
            IP_RECVOPTS IP_RECVORIGDSTADDR IP_RECVTOS IP_RECVTTL IP_RETOPTS IP_ROUTER_ALERT
            IP_TRANSPARENT IP_UNICAST_IF;
        IPPROTO_IPV6:
            IPV6_2292DSTOPTS IPV6_2292HOPLIMIT IPV6_2292HOPOPTS IPV6_2292PKTINFO IPV6_2292PKTOPTIONS
            IPV6_2292RTHDR IPV6_ADDRFORM IPV6_ADDR_PREFERENCES IPV6_AUTOFLOWLABEL IPV6_CHECKSUM
            IPV6_DONTFRAG IPV6_DSTOPTS IPV6_FLOWINFO IPV6_FLOWINFO_SEND IPV6_FLOWLABEL_MGR
            IPV6_FREEBIND IPV6_HDRINCL IPV6_HOPOPTS IPV6_MINHOPCOUNT IPV6_MTU IPV6_MTU_DISCOVER
            IPV6_MULTICAST_ALL IPV6_MULTICAST_HOPS IPV6_MULTICAST_IF IPV6_MULTICAST_LOOP
            IPV6_PATHMTU IPV6_PKTINFO IPV6_RECVDSTOPTS IPV6_RECVERR IPV6_RECVFRAGSIZE
            IPV6_RECVHOPLIMIT IPV6_RECVHOPOPTS IPV6_RECVORIGDSTADDR IPV6_RECVPATHMTU
            IPV6_RECVPKTINFO IPV6_RECVRTHDR IPV6_RECVTCLASS IPV6_ROUTER_ALERT
            IPV6_ROUTER_ALERT_ISOLATE IPV6_RTHDR IPV6_RTHDRDSTOPTS IPV6_TRANSPARENT IPV6_UNICAST_IF;
    };
    let mut text = String::new();
    for (label, level, names) in levels {
        let absent = names.into_iter().filter_map(|(label, name)| {
            let known = |pairs: &[Pair; 2]| {
                [&pairs[0], &pairs[1]]
                    .map(|pair| ALL.iter().map(|kind| is_known(pair, *kind, level, name)).collect())
            };
            let (kernel, ours): ([Vec<bool>; 2], [Vec<bool>; 2]) = (known(kernel), known(ours));
            let lacks = |kind: usize| (0..2).any(|family| kernel[family][kind] && !ours[family][kind]);
            let lacking: Vec<_> =
                (0..ALL.len()).filter(|kind| lacks(*kind)).map(|kind| word(ALL[kind])).collect();
            match () {
                () if lacking.is_empty() => None,
                () if !ours.iter().flatten().any(|known| *known) => Some(label.to_owned()),
                () => Some(format!("{label} ({})", lacking.join(", "))),
            }
        });
        let absent: Vec<_> = absent.collect();
        let _ = writeln!(text, "- {label}: {}", absent.join(", "));
    }
    text
}

/// Whether getsockopt(2) knows an option. What else it wants to be given is not asked here.
fn is_known(pair: &Pair, kind: On, level: i32, name: i32) -> bool {
    let asked = getsockopt(open(pair, kind).0, level, name, &mut [0; 256]);
    !asked.is_err_and(|error| {
        error.raw_os_error().is_some_and(|errno| [libc::ENOPROTOOPT, libc::EOPNOTSUPP].contains(&errno))
    })
}
