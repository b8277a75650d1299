//! The calling thread's own kernel as a stack with netlink sockets only, and private network
//! namespaces to try it in.

mod again;
#[macro_use]
mod refusing;
mod sys;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;

use ioth_core::netlink::Route;
use ioth_core::{Domain, Errno, MsgFlags, RecvMsg, Result, SendMsg, SockAddr, Socket, SocketType, Stack};
use nix::sys::socket::{self as nix_socket, NetlinkAddr, SockFlag, SockProtocol};

/// Runs `test` in a network namespace of its own: the test `name` of this binary is executed again there.
///
/// # Panics
/// When the test fails, or no namespace can be made.
pub(crate) fn in_namespace(name: &str, test: fn()) {
    if again::is_inside() {
        return test();
    }
    // Without root a user namespace is needed around the network namespace.
    let flags = if nix::unistd::Uid::effective().is_root() { "-n" } else { "-Urn" };
    again::run(flags, name);
}

/// Makes the two ends of an Ethernet cable, `vde0` and `vde1`, and brings them up: the index of `vde0`.
///
/// # Panics
/// When ip(8) is missing or refuses.
pub(crate) fn veth(route: &Route) -> u32 {
    let args = ["link", "add", "vde0", "type", "veth", "peer", "name", "vde1"];
    let ip = Command::new("ip").args(args).output();
    let ip = ip.unwrap_or_else(|error| panic!("ip: {error}; needed: apt-get install iproute2"));
    assert!(ip.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&ip.stderr));
    for name in ["vde1", "vde0"] {
        route.set_link_up(route.link_index(name).unwrap(), true).unwrap();
    }
    route.link_index("vde0").unwrap()
}

/// The kernel's stack, netlink only.
#[derive(Debug)]
pub(crate) struct KernelStack;

impl Stack for KernelStack {
    fn backend(&self) -> &str {
        "kernel"
    }

    fn socket(&self, domain: Domain, kind: SocketType, protocol: i32) -> Result<Arc<dyn Socket>> {
        if (domain, kind, protocol) != (Domain::NETLINK, SocketType::RAW, 0) {
            return Err(Errno::EAFNOSUPPORT);
        }
        let (family, kind) = (nix_socket::AddressFamily::Netlink, nix_socket::SockType::Raw);
        let fd = nix_socket::socket(family, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
        Ok(Arc::new(KernelSocket(fd)))
    }

    fn delete(&self) -> Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct KernelSocket(OwnedFd);

fn netlink(addr: &SockAddr) -> Result<NetlinkAddr> {
    match addr {
        SockAddr::Netlink { port, groups } => Ok(NetlinkAddr::new(*port, *groups)),
        _ => Err(Errno::EINVAL),
    }
}

impl Socket for KernelSocket {
    fn bind(&self, addr: &SockAddr) -> Result<()> {
        nix_socket::bind(self.0.as_raw_fd(), &netlink(addr)?)
    }

    fn local_addr(&self) -> Result<SockAddr> {
        let addr: NetlinkAddr = nix_socket::getsockname(self.0.as_raw_fd())?;
        Ok(SockAddr::Netlink { port: addr.pid(), groups: addr.groups() })
    }

    fn send(&self, message: &SendMsg<'_>, flags: MsgFlags) -> Result<usize> {
        let addr = message.addr.map(netlink).transpose()?;
        let flags = nix_socket::MsgFlags::from_bits_retain(flags.bits());
        nix_socket::sendmsg(self.0.as_raw_fd(), message.data, &[], flags, addr.as_ref())
    }

    fn recv(&self, message: &mut RecvMsg<'_, '_>, flags: MsgFlags) -> Result<usize> {
        let flags = nix_socket::MsgFlags::from_bits_retain(flags.bits());
        let got = nix_socket::recvmsg::<NetlinkAddr>(self.0.as_raw_fd(), message.data, None, flags)?;
        message.addr = got.address.map(|addr| SockAddr::Netlink { port: addr.pid(), groups: addr.groups() });
        message.flags = MsgFlags::from_bits_retain(got.flags.bits());
        Ok(got.bytes)
    }

    fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<()> {
        sys::set_option(self.0.as_raw_fd(), level, name, value)
    }
    fn release_fd(&self) -> Result<OwnedFd> {
        self.0.try_clone().map_err(|error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
    }
    refusing!(ioth_core);
}
