//! The stack as the registry makes it.

use std::sync::Arc;

use ioth_core::fork::Owned;
use ioth_core::reactor::Reactor;
use ioth_core::registry::{Factory, StackError};
use ioth_core::{Domain, Errno, MacAddr, Result, Socket, SocketType, Stack, StackSpec, Unheld};
use ioth_vde::{LinkError, Schemes, vnl};

use crate::driver::{Node, NodeError};
use crate::socket::NodeSocket;

/// The name under which the backend is registered.
pub const NAME: &str = "smoltcp";

/// A node in user space.
#[derive(Debug)]
pub struct Smoltcp {
    /// A forked child has a copy that nobody hears of, and leaves it alone.
    node: Owned<Arc<Node>>,
    /// What opens the links of interfaces that netlink makes.
    schemes: Schemes,
}

impl Smoltcp {
    /// A node with an interface for each virtual network locator `[ifname:]vnl`, each with a random Ethernet
    /// address. The interfaces are down, as on Linux; loopback is up.
    ///
    /// # Errors
    /// [`StackError::Link`] with what is wrong with which locator, or why its network cannot be reached.
    pub fn new(spec: &StackSpec, schemes: &Schemes) -> std::result::Result<Self, StackError> {
        if !spec.options.is_empty() {
            let what = format!("smoltcp takes no options, not \"{}\"", spec.options);
            return Err(StackError::Os { what, errno: Errno::EINVAL });
        }
        let mut seed = [0; 32];
        random(&mut seed)?;
        let mut links = Vec::with_capacity(spec.vnls.len());
        for text in &spec.vnls {
            let (name, vnl) = vnl::split_ifname(text).map_err(link_error)?;
            let link = schemes.open(vnl).map_err(link_error)?;
            let mut mac = [0; 6];
            random(&mut mac)?;
            links.push((name.map(str::to_owned), link, MacAddr::local(mac)));
        }
        let node = Node::new(seed, links).map_err(|error| match error {
            NodeError::Link(error) => link_error(error),
            NodeError::Interface { ref name, errno } => {
                StackError::Os { what: format!("interface \"{name}\""), errno }
            }
        })?;
        Ok(Smoltcp { node: Owned::new(node), schemes: schemes.clone() })
    }
}

/// Makes stacks for a [`Registry`](ioth_core::Registry), with the link types of the process ([`ioth_vde::register`]).
pub fn factory() -> Factory {
    Arc::new(|spec| Ok(Arc::new(Smoltcp::new(spec, &Schemes::process())?)))
}

impl Stack for Smoltcp {
    fn backend(&self) -> &str {
        NAME
    }

    fn socket(&self, domain: Domain, kind: SocketType, protocol: i32) -> Result<Arc<dyn Socket>> {
        self.node.check()?;
        let (id, readiness) = self.node.open(|engine| engine.socket(domain, kind, protocol))?;
        let socket = NodeSocket::new(Arc::clone(&self.node), id, readiness, kind);
        Ok(Arc::new(if domain == Domain::NETLINK {
            socket.with_schemes(self.schemes.clone())
        } else {
            socket
        }))
    }

    fn delete(&self) -> Result<()> {
        self.node.check()?;
        self.node.delete()
    }

    fn unheld(&self, limit: usize) -> Vec<Unheld> {
        match self.node.check() {
            Ok(_) => self.node.call(|engine| engine.unheld(limit)),
            Err(_) => Vec::new(),
        }
    }
}

impl Drop for Smoltcp {
    fn drop(&mut self) {
        // With sockets left the node goes with the last of them. The reactor's thread can't wait for its own timers.
        // One that was deleted has waited already.
        if self.node.check().is_ok() && !Reactor::is_current_thread() && !self.node.is_deleted() {
            let _ = self.node.delete();
        }
    }
}

fn link_error(error: LinkError) -> StackError {
    StackError::Link { message: error.to_string(), errno: error.errno() }
}

fn random(bytes: &mut [u8]) -> std::result::Result<(), StackError> {
    getrandom::fill(bytes).map_err(|error| StackError::Os {
        what: "reading random numbers".to_owned(),
        errno: error.raw_os_error().map_or(Errno::EIO, Errno::from_raw),
    })
}
