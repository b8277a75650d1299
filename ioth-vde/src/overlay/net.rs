//! Groups, interfaces and sockets of an overlay network, by its VNL.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use ioth_core::Errno;
use nix::sys::socket::{SockFlag, SockType, SockaddrStorage, getsockname, setsockopt, sockopt};
use parking_lot::Mutex;

use crate::datagram::widen;
use crate::udp::{self, resolve};
use crate::vnl::Params;
use crate::{LinkError, sys};

/// The family that a VNL asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Any,
    V4,
    V6,
}

/// `v4` and `v6`.
pub(crate) fn family(params: &Params) -> Result<Family, LinkError> {
    match (params.flag("v4")?, params.flag("v6")?) {
        (true, false) => Ok(Family::V4),
        (false, true) => Ok(Family::V6),
        (false, false) => Ok(Family::Any),
        (true, true) => Err(params.wrong("v6", "left out: v4 is given as well")),
    }
}

/// Where a network's members meet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub(crate) to: SocketAddr,
    /// The interface to meet on; 0 for the one that routes say.
    pub(crate) interface: u32,
    pub(crate) ttl: u8,
}

/// The group's address by name, or a default of the family.
pub(crate) fn group(
    name: &str,
    port: u16,
    family: Family,
    v4: IpAddr,
    v6: IpAddr,
) -> Result<SocketAddr, Errno> {
    match (name, family) {
        ("", Family::V6) => Ok(SocketAddr::new(v6, port)),
        ("", _) => Ok(SocketAddr::new(v4, port)),
        (name, Family::Any) => resolve((name, port), None),
        (name, family) => resolve((name, port), Some(family == Family::V4)),
    }
}

/// What was being done when a group has no address: of the family that was asked for, perhaps.
pub(crate) fn unknown_group(name: &str, params: &Params) -> String {
    let kind = match family(params) {
        Ok(Family::V4) => "IPv4 address (/v4)",
        Ok(Family::V6) => "IPv6 address (/v6)",
        _ => "address",
    };
    format!("looking for an {kind} of the group \"{name}\"")
}

/// The index of an interface that is named; 0 when none is.
pub(crate) fn interface(params: &Params, vnl: &str) -> Result<u32, LinkError> {
    match params.get("if") {
        None | Some("") => Ok(0),
        Some(name) => nix::net::if_::if_nametoindex(name).map_err(|errno| LinkError::Os {
            what: format!("{vnl}: looking for the interface \"{name}\""),
            errno,
        }),
    }
}

/// A number, or a group's of the system by its name; empty means our own.
pub(crate) fn number(params: &Params, key: &str) -> Result<Option<u32>, LinkError> {
    let Some(value) = params.get(key) else { return Ok(None) };
    let number = match value {
        "" => Some(nix::unistd::getegid().as_raw()),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
        name => nix::unistd::Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw()),
    };
    match number {
        Some(number) if u64::from(number) <= super::VNI_MAX => Ok(Some(number)),
        _ => Err(params
            .wrong(key, "a number of 24 bits, or the name of a group of this system with such a number")),
    }
}

/// A UDP socket that speaks to a group; `share`: others of this host may have the same address.
pub(crate) fn socket(group: &Group, share: bool, echo: bool) -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = nix::sys::socket::socket(udp::family(&group.to), SockType::Datagram, flags, None)?;
    widen(&fd);
    if share {
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    let (ttl, echo) = (libc::c_int::from(group.ttl), libc::c_int::from(echo));
    match group.to.ip() {
        IpAddr::V4(_) => {
            let interface = libc::ip_mreqn {
                imr_multiaddr: libc::in_addr { s_addr: 0 },
                imr_address: libc::in_addr { s_addr: 0 },
                imr_ifindex: group.interface as libc::c_int,
            };
            sys::set_option(fd.as_fd(), libc::IPPROTO_IP, libc::IP_MULTICAST_TTL, &ttl)?;
            sys::set_option(fd.as_fd(), libc::IPPROTO_IP, libc::IP_TTL, &ttl.max(1))?;
            sys::set_option(fd.as_fd(), libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP, &echo)?;
            sys::set_option(fd.as_fd(), libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &interface)?;
        }
        IpAddr::V6(_) => {
            let interface = group.interface as libc::c_int;
            // The port of IPv4 is another's.
            setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
            sys::set_option(fd.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, &ttl)?;
            sys::set_option(fd.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, &echo)?;
            sys::set_option(fd.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, &interface)?;
        }
    }
    Ok(fd)
}

/// Binds a socket and, when it is to hear the group, joins that. The address that it has.
pub(crate) fn bind(fd: &OwnedFd, to: SocketAddr, join: Option<&Group>) -> Result<SocketAddr, Errno> {
    nix::sys::socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(to))?;
    if let Some(group) = join.filter(|group| group.to.ip().is_multicast()) {
        match group.to.ip() {
            IpAddr::V4(address) => {
                let request = libc::ip_mreqn {
                    imr_multiaddr: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
                    imr_address: libc::in_addr { s_addr: 0 },
                    imr_ifindex: group.interface as libc::c_int,
                };
                sys::set_option(fd.as_fd(), libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &request)?;
            }
            IpAddr::V6(address) => {
                let request = libc::ipv6_mreq {
                    ipv6mr_multiaddr: libc::in6_addr { s6_addr: address.octets() },
                    ipv6mr_interface: group.interface,
                };
                sys::set_option(fd.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &request)?;
            }
        }
    }
    address(fd)
}

/// The address that a socket has.
fn address(fd: &OwnedFd) -> Result<SocketAddr, Errno> {
    let own: SockaddrStorage = getsockname(fd.as_raw_fd())?;
    let v4 = own.as_sockaddr_in().map(|own| SocketAddr::new(own.ip().into(), own.port()));
    let v6 = own.as_sockaddr_in6().map(|own| SocketAddr::new(own.ip().into(), own.port()));
    v4.or(v6).ok_or(Errno::EAFNOSUPPORT)
}

/// Knows the host's addresses: those of the network namespace where it was made, wherever it is asked.
#[derive(Debug)]
pub(crate) struct Probe {
    fd: OwnedFd,
    /// The last one that was local, which is the one that is asked for nearly always.
    last: Mutex<Option<IpAddr>>,
}

impl Probe {
    /// For addresses of this one's family.
    pub(crate) fn new(like: SocketAddr) -> Result<Self, Errno> {
        let fd =
            nix::sys::socket::socket(udp::family(&like), SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        Ok(Probe { fd, last: Mutex::new(None) })
    }

    /// Whether the host has this address: who talks to oneself does it from the same address. Nothing is sent.
    pub(crate) fn is_local(&self, ip: IpAddr) -> bool {
        let mut last = self.last.lock();
        if *last != Some(ip) {
            // Any port will do. A socket that is connected may keep the address that it had for that.
            let to = SockaddrStorage::from(SocketAddr::new(ip, 9));
            let _ = sys::disconnect(self.fd.as_fd());
            let connected = nix::sys::socket::connect(self.fd.as_raw_fd(), &to).is_ok();
            if connected && address(&self.fd).is_ok_and(|own| own.ip() == ip) {
                *last = Some(ip);
            }
        }
        *last == Some(ip)
    }
}

/// The address that stands for any of the host's.
pub(crate) fn any(like: SocketAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}
