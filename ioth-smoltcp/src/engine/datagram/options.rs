//! Options that say how datagrams leave.

use std::net::IpAddr;

/// IP_MTU_DISCOVER and IPV6_MTU_DISCOVER: what is done with packets that are longer than the path's MTU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Discover {
    /// IP_PMTUDISC_DONT: fragmented, and routers may do so.
    Dont,
    /// IP_PMTUDISC_WANT: fragmented here; routers tell.
    #[default]
    Want,
    /// IP_PMTUDISC_DO: `EMSGSIZE`.
    Do,
    /// IP_PMTUDISC_PROBE: what routers told is not looked at, the interface's MTU bounds.
    Probe,
    /// IP_PMTUDISC_INTERFACE: the same, and routers may fragment.
    Interface,
    /// IP_PMTUDISC_OMIT: the same, and what is longer is fragmented here.
    Omit,
}

impl Discover {
    const ALL: [Discover; 6] =
        [Discover::Dont, Discover::Want, Discover::Do, Discover::Probe, Discover::Interface, Discover::Omit];

    /// From the option's number.
    pub(crate) fn from_raw(number: i32) -> Option<Self> {
        Discover::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// The option's number.
    pub(crate) fn as_raw(self) -> i32 {
        self as i32
    }

    /// Whether what routers told of the path counts.
    pub(crate) fn knows_path(self) -> bool {
        matches!(self, Discover::Dont | Discover::Want | Discover::Do)
    }

    /// Whether packets longer than the MTU leave in pieces.
    pub(crate) fn fragments(self) -> bool {
        matches!(self, Discover::Dont | Discover::Want | Discover::Omit)
    }
}

/// How datagrams to groups leave: IP_MULTICAST_TTL, LOOP and IF, and the same of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) hops: u8,
    /// Members on this node hear it.
    pub(crate) loops: bool,
    pub(crate) ifindex: Option<u32>,
    /// The source that IP_MULTICAST_IF named.
    pub(crate) source: Option<IpAddr>,
    /// IP_MULTICAST_ALL: what others on this node joined is heard, too.
    pub(crate) all: bool,
}

impl Default for Group {
    fn default() -> Self {
        // RFC 1112 §6.1, RFC 3493 §5.2
        Group { hops: 1, loops: true, ifindex: None, source: None, all: true }
    }
}
