//! `udp://[src:]sport->dst:dport`: a cable of UDP datagrams; each has a frame in it, and nothing else.
//!
//! ```text
//!   udp://2000->b.example.org:3000             here            udp://3000->a.example.org:2000    there
//!   udp://10.0.0.1:2000->10.0.0.2:3000/mtu=9000
//!   udp://2000->[fd00::2]:3000                 the brackets may be left out: the last ':' separates
//! ```
//! Frames are taken from whoever sends them to the port, as upstream does; nothing is encrypted or authenticated. `mtu=`
//! (1500) is the largest IP packet of the network; longer datagrams than the real one carries travel in pieces.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use ioth_core::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};

use crate::datagram::{self, frame_max};
use crate::schemes::Spec;
use crate::tally::Tally;
use crate::vnl::{Keys, syntax};
use crate::wire::{Descriptor, Halt, Port, Wire};
use crate::{Batch, Link, LinkError, Properties};

const KEYS: Keys = &["mtu"];

/// Opens `udp://...`.
pub(crate) fn open(spec: &Spec<'_>) -> Result<Arc<dyn Link>, LinkError> {
    let (address, params) = spec.slash(KEYS)?;
    let properties = datagram::properties(&params, spec.default_mtu())?;
    let ends = Ends::parse(&address, spec.vnl)?;
    let failed = |what: &str, errno| LinkError::Os { what: format!("{}: {what}", spec.vnl), errno };
    let to =
        resolve(ends.to, None).map_err(|errno| failed("looking for the destination's address", errno))?;
    let from = match ends.host {
        Some(host) => resolve((host, ends.port), Some(to.is_ipv4()))
            .map_err(|errno| failed("looking for the own address, of the destination's family", errno))?,
        None if to.is_ipv4() => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), ends.port),
        None => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), ends.port),
    };
    let fd = socket(family(&to), SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|errno| failed("making a socket", errno))?;
    datagram::widen(&fd);
    if !to.is_ipv4() {
        // The port of IPv4 is another's.
        let _ = setsockopt(&fd, sockopt::Ipv6V6Only, &true);
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(from))
        .map_err(|errno| failed(&format!("binding {from}"), errno))?;
    let wire = Udp { fd: Arc::new(fd), to: to.into(), properties };
    Ok(Arc::new(Port::new(spec.vnl, wire)))
}

pub(crate) fn family(address: &SocketAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// The first address of a name, of one family or either.
pub(crate) fn resolve(name: (&str, u16), v4: Option<bool>) -> Result<SocketAddr, Errno> {
    // getaddrinfo(3) has errors of its own, which std keeps as text.
    let mut found = name.to_socket_addrs().map_err(|_| Errno::ENOENT)?;
    found.find(|address| v4.is_none_or(|v4| address.is_ipv4() == v4)).ok_or(Errno::ENOENT)
}

/// The two ends, as the VNL has them.
#[derive(Debug, PartialEq, Eq)]
struct Ends<'a> {
    host: Option<&'a str>,
    port: u16,
    to: (&'a str, u16),
}

impl<'a> Ends<'a> {
    fn parse(text: &'a str, vnl: &str) -> Result<Self, LinkError> {
        let right = "should be [address:]port->address:port, such as udp://2000->10.0.0.2:3000";
        let Some((from, to)) = text.split_once("->") else {
            return Err(syntax(format!("no \"->\" in \"{vnl}\" ({right})")));
        };
        let port = |text: &str| {
            text.parse()
                .ok()
                .filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
                .ok_or_else(|| syntax(format!("port \"{text}\" in \"{vnl}\" ({right})")))
        };
        let (host, own) = match from.rsplit_once(':') {
            Some((host, own)) => (Some(bare(host)), own),
            None => (None, from),
        };
        let Some((peer, theirs)) = to.rsplit_once(':') else {
            return Err(syntax(format!("destination \"{to}\" in \"{vnl}\" ({right})")));
        };
        let ends = Ends { host, port: port(own)?, to: (bare(peer), port(theirs)?) };
        if ends.to.0.is_empty() || ends.host == Some("") || ends.to.1 == 0 {
            return Err(syntax(format!("an end without address or port in \"{vnl}\" ({right})")));
        }
        Ok(ends)
    }
}

/// An address without the brackets that one of IPv6 may have.
fn bare(host: &str) -> &str {
    let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    inside.filter(|inside| inside.parse::<Ipv6Addr>().is_ok()).unwrap_or(host)
}

/// A UDP socket with one destination.
#[derive(Debug)]
struct Udp {
    fd: Arc<OwnedFd>,
    to: SockaddrStorage,
    properties: Properties,
}

impl Wire for Udp {
    fn properties(&self) -> Properties {
        self.properties
    }

    fn descriptors(&self) -> Vec<Descriptor> {
        vec![Descriptor { fd: self.fd.clone(), sends: true }]
    }

    fn send(&self, frames: &mut Batch, tally: &Tally) -> Result<(), Halt> {
        datagram::send(self.fd.as_fd(), Some(&self.to), frames, tally, is_away)
    }

    fn receive(&self, _: usize, room: usize, batch: &mut Batch, tally: &Tally) -> Result<bool, Halt> {
        match datagram::receive(self.fd.as_fd(), frame_max(&self.properties), room, batch, tally) {
            Ok(received) => {
                tally.received_bad_length(received.empty as u64);
                Ok(received.more)
            }
            // An error that ICMP told is taken by that, and means one datagram.
            Err(_) => Err(Halt::Wait),
        }
    }
}

/// Whether an error of sending by UDP means the way or the peer. These come and go.
pub(crate) fn is_away(errno: Errno) -> bool {
    !matches!(
        errno,
        Errno::EINTR | Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM | Errno::EMSGSIZE | Errno::EBADF
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends() {
        let of = |text| Ends::parse(text, text).unwrap();
        assert_eq!(of("1->h:2"), Ends { host: None, port: 1, to: ("h", 2) });
        assert_eq!(of("a:1->h:2"), Ends { host: Some("a"), port: 1, to: ("h", 2) });
        assert_eq!(of("::1:1->fd00::2:2"), Ends { host: Some("::1"), port: 1, to: ("fd00::2", 2) });
        assert_eq!(of("[::1]:1->[fd00::2]:2"), Ends { host: Some("::1"), port: 1, to: ("fd00::2", 2) });
        for wrong in
            ["", "1", "1->", "->h:2", "x->h:2", "1->h", "1->h:", "1->h:65536", "+1->h:2", "1->:2", "1->h:0"]
        {
            let error = crate::open(&format!("udp://{wrong}")).unwrap_err();
            assert!(matches!(error, LinkError::Syntax(_)), "{error}");
        }
        assert!(crate::open("udp://0->127.0.0.1:9/mtu=9217").is_err());
    }

    #[test]
    fn errors_name_what_failed() {
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let vnl = format!("udp://127.0.0.1:{port}->127.0.0.1:9");
        let error = crate::open(&vnl).unwrap_err();
        assert_eq!(error.errno(), Errno::EADDRINUSE);
        assert!(error.to_string().contains(&format!("binding 127.0.0.1:{port}")), "{error}");
        let error = crate::open("udp://127.0.0.1:0->[::1]:9").unwrap_err();
        assert_eq!(error.errno(), Errno::ENOENT);
    }

    proptest::proptest! {
        #[test]
        fn any_text(text in r"[0-9a:\[\]>.-]{0,30}") {
            let _ = Ends::parse(&text, &text);
        }
    }
}
