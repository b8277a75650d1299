//! Options that Linux has and smoltcp does not: every number of every level is asked for, and set, on every kind of socket.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

use ioth::berkeley::{getsockopt, setsockopt};

use super::kinds::{KINDS, Kind};
use crate::fixture::Pair;

/// Numbers from here on are multicast routing's and packet filters' of the host, where they are not modules besides.
const END: i32 = 128;

/// Whether it is an option of a packet filter of the host's: there or not by the modules that are loaded.
fn is_netfilter(level: i32, name: i32) -> bool {
    let ip = [libc::IPPROTO_IP, libc::IPPROTO_IPV6].contains(&level);
    ip && matches!(name, 64..=69 | 80..=83 | 96..=99)
}

/// Names of options, for show: a number without one is shown as it is.
macro_rules! levels {
    ($($level:ident = $number:expr; $($name:ident = $value:literal)*;)*) => {
        [$((stringify!($level), $number, &[$((stringify!($name), $value)),*])),*]
    };
}

/// A level: its name, number, and names of its options.
type Level = (&'static str, i32, &'static [(&'static str, i32)]);

const LEVELS: [Level; 10] = levels! {
    SOL_SOCKET = libc::SOL_SOCKET;
        SO_DONTROUTE = 5 SO_PASSCRED = 16 SO_ATTACH_FILTER = 26 SO_DETACH_FILTER = 27 SO_PASSSEC = 34
        SO_TIMESTAMPING = 37 SO_RXQ_OVFL = 40 SO_PEEK_OFF = 42 SO_LOCK_FILTER = 44 SO_SELECT_ERR_QUEUE = 45
        SO_MAX_PACING_RATE = 47 SO_BPF_EXTENSIONS = 48 SO_INCOMING_CPU = 49 SO_ATTACH_BPF = 50
        SO_ATTACH_REUSEPORT_CBPF = 51 SO_ATTACH_REUSEPORT_EBPF = 52 SO_MEMINFO = 55 SO_ZEROCOPY = 60
        SO_TXTIME = 61 SO_TIMESTAMPING_NEW = 65 SO_DETACH_REUSEPORT_BPF = 68 SO_NETNS_COOKIE = 71
        SO_BUF_LOCK = 72 SO_RESERVE_MEM = 73 SO_RCVMARK = 75 SO_DEVMEM_DONTNEED = 80 SO_RCVPRIORITY = 82;
    IPPROTO_TCP = libc::IPPROTO_TCP;
        TCP_MD5SIG = 14 TCP_REPAIR = 19 TCP_REPAIR_QUEUE = 20 TCP_QUEUE_SEQ = 21 TCP_REPAIR_OPTIONS = 22
        TCP_FASTOPEN = 23 TCP_TIMESTAMP = 24 TCP_NOTSENT_LOWAT = 25 TCP_CC_INFO = 26 TCP_SAVE_SYN = 27
        TCP_SAVED_SYN = 28 TCP_REPAIR_WINDOW = 29 TCP_FASTOPEN_CONNECT = 30 TCP_ULP = 31 TCP_MD5SIG_EXT = 32
        TCP_FASTOPEN_KEY = 33 TCP_FASTOPEN_NO_COOKIE = 34 TCP_ZEROCOPY_RECEIVE = 35 TCP_INQ = 36
        TCP_TX_DELAY = 37 TCP_RTO_MAX_MS = 44 TCP_RTO_MIN_US = 45 TCP_DELACK_MAX_US = 46;
    IPPROTO_UDP = libc::IPPROTO_UDP;
        UDP_ENCAP = 100 UDP_NO_CHECK6_TX = 101 UDP_NO_CHECK6_RX = 102 UDP_SEGMENT = 103;
    IPPROTO_UDPLITE = libc::IPPROTO_UDPLITE;
        UDP_ENCAP = 100 UDP_NO_CHECK6_TX = 101 UDP_NO_CHECK6_RX = 102 UDP_SEGMENT = 103;
    IPPROTO_IP = libc::IPPROTO_IP;
        IP_ROUTER_ALERT = 5 IP_PKTOPTIONS = 9 IP_XFRM_POLICY = 17 IP_TRANSPARENT = 19
        IP_RECVORIGDSTADDR = 20 IP_MINTTL = 21 IP_NODEFRAG = 22 IP_CHECKSUM = 23
        IP_BIND_ADDRESS_NO_PORT = 24 IP_RECVFRAGSIZE = 25 IP_RECVERR_RFC4884 = 26 IP_UNBLOCK_SOURCE = 37
        IP_BLOCK_SOURCE = 38 IP_ADD_SOURCE_MEMBERSHIP = 39 IP_DROP_SOURCE_MEMBERSHIP = 40 IP_MSFILTER = 41
        MCAST_BLOCK_SOURCE = 43 MCAST_UNBLOCK_SOURCE = 44 MCAST_JOIN_SOURCE_GROUP = 46
        MCAST_LEAVE_SOURCE_GROUP = 47 MCAST_MSFILTER = 48 IP_UNICAST_IF = 50 IP_LOCAL_PORT_RANGE = 51;
    IPPROTO_IPV6 = libc::IPPROTO_IPV6;
        IPV6_ADDRFORM = 1 IPV6_2292PKTINFO = 2 IPV6_2292HOPOPTS = 3 IPV6_2292DSTOPTS = 4 IPV6_2292RTHDR = 5
        IPV6_2292PKTOPTIONS = 6 IPV6_2292HOPLIMIT = 8 IPV6_FLOWINFO = 11 IPV6_ROUTER_ALERT = 22
        IPV6_JOIN_ANYCAST = 27 IPV6_LEAVE_ANYCAST = 28 IPV6_ROUTER_ALERT_ISOLATE = 30
        IPV6_RECVERR_RFC4884 = 31 IPV6_FLOWLABEL_MGR = 32 IPV6_FLOWINFO_SEND = 33 IPV6_XFRM_POLICY = 35
        MCAST_BLOCK_SOURCE = 43 MCAST_UNBLOCK_SOURCE = 44 MCAST_JOIN_SOURCE_GROUP = 46
        MCAST_LEAVE_SOURCE_GROUP = 47 MCAST_MSFILTER = 48 IPV6_RECVHOPOPTS = 53 IPV6_HOPOPTS = 54
        IPV6_RTHDRDSTOPTS = 55 IPV6_RECVRTHDR = 56 IPV6_RTHDR = 57 IPV6_RECVDSTOPTS = 58 IPV6_DSTOPTS = 59
        IPV6_RECVPATHMTU = 60 IPV6_PATHMTU = 61 IPV6_AUTOFLOWLABEL = 70 IPV6_ADDR_PREFERENCES = 72
        IPV6_MINHOPCOUNT = 73 IPV6_ORIGDSTADDR = 74 IPV6_TRANSPARENT = 75 IPV6_UNICAST_IF = 76
        IPV6_RECVFRAGSIZE = 77;
    SOL_RAW = libc::SOL_RAW;;
    IPPROTO_ICMPV6 = libc::IPPROTO_ICMPV6;;
    SOL_PACKET = libc::SOL_PACKET;
        PACKET_RX_RING = 5 PACKET_COPY_THRESH = 7 PACKET_VERSION = 10 PACKET_HDRLEN = 11 PACKET_RESERVE = 12
        PACKET_TX_RING = 13 PACKET_LOSS = 14 PACKET_VNET_HDR = 15 PACKET_TIMESTAMP = 17 PACKET_FANOUT = 18
        PACKET_TX_HAS_OFF = 19 PACKET_QDISC_BYPASS = 20 PACKET_ROLLOVER_STATS = 21 PACKET_FANOUT_DATA = 22
        PACKET_VNET_HDR_SZ = 24;
    SOL_NETLINK = libc::SOL_NETLINK;
        NETLINK_PKTINFO = 3 NETLINK_BROADCAST_ERROR = 4 NETLINK_NO_ENOBUFS = 5 NETLINK_LISTEN_ALL_NSID = 8
        NETLINK_LIST_MEMBERSHIPS = 9;
};

/// Whether a kind of socket knows an option when it is asked for, and when it is set.
type Known = [bool; 2];

/// For each level, those that the kernel's sockets know and ours do not. In brackets: on which kinds, and whether to be
/// asked for or to be set, where that is not everywhere where Linux has it.
pub(super) fn list(stacks: &[[Pair; 2]; 2]) -> String {
    let mut strange = Vec::new();
    let mut lacking: BTreeMap<(usize, i32), Lack> = BTreeMap::new();
    for (at, kind) in KINDS.iter().enumerate() {
        for family in [0, 1] {
            let [kernel, ours] = stacks.each_ref().map(|pairs| sweep(&pairs[family], kind));
            for (option @ (level, name), kernel) in kernel {
                for (way, (kernel, ours)) in kernel.into_iter().zip(ours[&option]).enumerate() {
                    match (kernel, ours) {
                        (true, ours) => lacking.entry(option).or_default().note(at, way, ours),
                        (false, true) => strange.push((kind.word, LEVELS[level].0, name)),
                        (false, false) => {}
                    }
                }
            }
        }
    }
    assert!(strange.is_empty(), "options that Linux does not have: {strange:?}");
    let mut text = String::new();
    for (at, (label, ..)) in LEVELS.iter().enumerate() {
        let absent = lacking.iter().filter(|((level, _), _)| *level == at);
        let absent: Vec<_> = absent.filter_map(|((_, name), lack)| lack.told(&name_of(at, *name))).collect();
        if !absent.is_empty() {
            let _ = writeln!(text, "- {label}: {}", absent.join(", "));
        }
    }
    text
}

/// On which kinds Linux has an option, and on which of them we do not have it; by the way in which it is used.
#[derive(Default)]
struct Lack {
    linux: [Vec<usize>; 2],
    absent: [Vec<usize>; 2],
}

impl Lack {
    fn note(&mut self, kind: usize, way: usize, ours: bool) {
        let add = |kinds: &mut Vec<usize>| {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        };
        add(&mut self.linux[way]);
        if !ours {
            add(&mut self.absent[way]);
        }
    }

    fn told(&self, name: &str) -> Option<String> {
        if self.absent == [const { Vec::new() }; 2] {
            return None;
        }
        if self.absent == self.linux {
            return Some(name.to_owned());
        }
        let kinds = |way: usize| match &self.absent[way] {
            absent if *absent == self.linux[way] => "everywhere".to_owned(),
            absent => absent.iter().map(|kind| KINDS[*kind].word).collect::<Vec<_>>().join(", "),
        };
        let told = match &self.absent {
            [get, set] if get == set => kinds(0),
            [get, set] if set.is_empty() && !get.is_empty() => format!("get: {}", kinds(0)),
            [get, _] if get.is_empty() => format!("set: {}", kinds(1)),
            _ => format!("get: {}; set: {}", kinds(0), kinds(1)),
        };
        Some(format!("{name} ({told})"))
    }
}

fn name_of(level: usize, number: i32) -> String {
    let named = LEVELS[level].2.iter().find(|(_, named)| *named == number);
    named.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

/// Asks for all options, and sets them, on one socket each: an option that is not there is not there in any state.
fn sweep(pair: &Pair, kind: &Kind) -> BTreeMap<(usize, i32), Known> {
    let [asked, set] = [(); 2].map(|()| kind.open(pair));
    let mut answers = BTreeMap::new();
    for (at, &(_, level, _)) in LEVELS.iter().enumerate() {
        for name in (0..END).filter(|name| !is_netfilter(level, *name)) {
            // 0 and another number as an int, and room for any structure.
            let values: [&[u8]; 3] = [&[0; 4], &1i32.to_ne_bytes(), &[0; 256]];
            let get = is_known(getsockopt(asked.0, level, name, &mut [0; 256]));
            let set = values.map(|value| is_known(setsockopt(set.0, level, name, value)));
            answers.insert((at, name), [get, set.contains(&true)]);
        }
    }
    answers
}

/// What else an option wants to be given is not asked here.
fn is_known<T>(answer: io::Result<T>) -> bool {
    !answer.is_err_and(|error| {
        error.raw_os_error().is_some_and(|errno| [libc::ENOPROTOOPT, libc::EOPNOTSUPP].contains(&errno))
    })
}
