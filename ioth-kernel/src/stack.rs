//! The host's stack.

use std::sync::Arc;

use ioth_core::descriptor::Count;
use ioth_core::registry::Factory;
use ioth_core::{Domain, Errno, Result, Socket, SocketType, Stack};

use crate::{KernelSocket, sys};

/// The host's network stack, by plain system calls.
///
/// Each value counts its own sockets, for [`delete`](Stack::delete); there is but one kernel below them all.
#[derive(Debug, Default)]
pub struct KernelStack {
    sockets: Count,
}

impl KernelStack {
    /// The host's stack.
    pub fn new() -> Self {
        KernelStack::default()
    }
}

impl Stack for KernelStack {
    fn backend(&self) -> &str {
        "kernel"
    }

    fn socket(&self, domain: Domain, kind: SocketType, protocol: i32) -> Result<Arc<dyn Socket>> {
        if !is_ours(domain) {
            return Err(Errno::EAFNOSUPPORT);
        }
        let open = self.sockets.open()?;
        let fd = sys::socket(domain.0, kind.0 | libc::SOCK_CLOEXEC, protocol)?;
        Ok(Arc::new(KernelSocket::new(fd, open)))
    }

    fn delete(&self) -> Result<()> {
        self.sockets.delete()
    }
}

/// Whether sockets of this family are a stack's.
pub(crate) fn is_ours(domain: Domain) -> bool {
    [Domain::INET, Domain::INET6, Domain::NETLINK, Domain::PACKET].contains(&domain)
}

/// The backend for a registry; takes no options and ignores virtual network locators, as upstream's does.
pub fn factory() -> Factory {
    Arc::new(|_spec| Ok(Arc::new(KernelStack::new()) as Arc<dyn Stack>))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_while_a_socket_is_open() {
        let stack = KernelStack::new();
        let socket = stack.socket(Domain::INET, SocketType::STREAM, 0).unwrap();
        assert_eq!(stack.delete(), Err(Errno::EBUSY));
        socket.close().unwrap();
        assert_eq!(stack.delete(), Ok(()));
        assert_eq!(stack.delete(), Ok(()));
        assert_eq!(stack.socket(Domain::INET, SocketType::STREAM, 0).err(), Some(Errno::ENODEV));
        drop(socket);
        assert_eq!(stack.delete(), Ok(()));
    }

    #[test]
    fn accepted_connections_count() {
        let stack = KernelStack::new();
        let listener = stack.socket(Domain::INET, SocketType::STREAM, 0).unwrap();
        listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(1).unwrap();
        let client = stack.socket(Domain::INET, SocketType::STREAM, 0).unwrap();
        client.connect(&listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        drop((listener, client));
        assert_eq!(stack.delete(), Err(Errno::EBUSY));
        drop(accepted);
        assert_eq!(stack.delete(), Ok(()));
    }

    #[test]
    fn families() {
        let stack = KernelStack::new();
        for (domain, kind) in [
            (Domain::INET, SocketType::DGRAM),
            (Domain::INET6, SocketType::STREAM),
            (Domain::NETLINK, SocketType::RAW),
        ] {
            assert!(stack.socket(domain, kind, 0).is_ok(), "{domain:?}");
        }
        for other in [libc::AF_UNIX, libc::AF_UNSPEC, 200, -1] {
            let made = stack.socket(Domain(other), SocketType::STREAM, 0);
            assert_eq!(made.err(), Some(Errno::EAFNOSUPPORT), "{other}");
        }
        let wrong = stack.socket(Domain::INET, SocketType::STREAM, libc::IPPROTO_UDP);
        assert_eq!(wrong.err(), Some(Errno::EPROTONOSUPPORT));
    }
}
