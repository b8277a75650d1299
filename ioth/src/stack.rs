//! The stack as a program holds it.

use std::net::IpAddr;
use std::sync::Arc;

use ioth_core::netlink::{InterfaceAddress, Route};
use ioth_core::{Cidr, Domain, MacAddr, Socket, SocketType, Stack as Backend};

use crate::current::Entered;
use crate::table::TABLE;
use crate::{Error, Result, backends, current};

/// One node of the Internet. Clones are the same node.
///
/// The methods with upstream's names (`linksetupdown`, `ipaddr_add`, ...) are each one request over netlink; for more
/// than a few, and for dumps, use [`Stack::route`].
#[derive(Clone, Debug)]
pub struct Stack {
    backend: Arc<dyn Backend>,
}

impl Stack {
    /// Makes a stack and configures it, all in one string:
    /// `stack=smoltcp,vnl=switch://lan,ip=fd00::1/64,gw=fd00::ff`.
    ///
    /// # Errors
    /// [`Error::Config`].
    #[cfg(feature = "conf")]
    pub fn new(config: &str) -> Result<Self> {
        Ok(ioth_conf::new_stack(&backends(), config)?.into())
    }

    /// Makes a stack with one interface on the virtual network `vnl`, or with loopback only.
    ///
    /// `stack` is `name[,options]`; the empty name is the kernel's stack, which ignores `vnl`.
    ///
    /// # Errors
    /// [`Error::Stack`].
    pub fn newstack(stack: &str, vnl: Option<&str>) -> Result<Self> {
        Stack::newstackv(stack, vnl.as_slice())
    }

    /// Makes a stack with one interface for each of `vnls`, which are `[ifname:]vnl`.
    ///
    /// # Errors
    /// [`Error::Stack`].
    pub fn newstackv(stack: &str, vnls: &[&str]) -> Result<Self> {
        Ok(backends().create(stack, vnls)?.into())
    }

    /// Ends the node (upstream's `delstack`): its links are unplugged, whoever else holds it. What closed sockets had
    /// sent is given a few seconds to leave.
    ///
    /// # Errors
    /// `EBUSY` while any of its sockets is open; the stack then goes on unchanged.
    pub fn delete(&self) -> Result<()> {
        // A descriptor may have been closed by the system call, which nobody told us of.
        TABLE.sweep();
        self.backend.delete().map_err(|errno| Error::Os { what: "stack: delete", errno })
    }

    /// Changes the configuration: `eth,ip=10.0.0.1/24,gw=10.0.0.254`. Gives the sources that took part.
    ///
    /// # Errors
    /// [`Error::Config`].
    #[cfg(feature = "conf")]
    pub fn config(&self, config: &str) -> Result<ioth_conf::Applied> {
        Ok(ioth_conf::configure(&*self.backend, config)?)
    }

    /// Makes this stack the default of the calling thread until the guard is dropped.
    ///
    /// It goes before the process's default ([`set_defstack`](crate::set_defstack)). A socket keeps the
    /// stack that it was made on; threads started meanwhile do not inherit the default.
    ///
    /// ```
    /// # let stack = ioth::Stack::newstack("kernel", None)?;
    /// {
    ///     let _on = stack.enter();
    ///     let listener = ioth::net::TcpListener::bind("127.0.0.1:0")?; // on `stack`
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn enter(&self) -> Entered<'_> {
        current::enter(self)
    }

    /// The name of the backend, such as `"smoltcp"`.
    pub fn backend(&self) -> &str {
        self.backend.backend()
    }

    /// Makes a socket without a descriptor; see [`berkeley::msocket`](crate::berkeley::msocket) for one with.
    ///
    /// # Errors
    /// As socket(2); `ENODEV` when the stack was deleted.
    pub fn socket(
        &self,
        domain: Domain,
        kind: SocketType,
        protocol: i32,
    ) -> ioth_core::Result<Arc<dyn Socket>> {
        self.backend.socket(domain, kind, protocol)
    }

    /// A conversation about interfaces, addresses and routes. It keeps the stack busy while it is open.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn route(&self) -> Result<Route> {
        Ok(Route::new(&*self.backend)?)
    }

    /// The index of the interface called `name`.
    ///
    /// # Errors
    /// `ENODEV` when there is none.
    pub fn if_nametoindex(&self, name: &str) -> Result<u32> {
        Ok(self.route()?.link_index(name)?)
    }

    /// Sets an interface up or down.
    ///
    /// # Errors
    /// [`Error::Netlink`]: `ENODEV`, `EPERM`.
    pub fn linksetupdown(&self, ifindex: u32, up: bool) -> Result<()> {
        Ok(self.route()?.set_link_up(ifindex, up)?)
    }

    /// Gives an interface a hardware address.
    ///
    /// # Errors
    /// [`Error::Netlink`]: `ENODEV`, `EPERM`, `EADDRNOTAVAIL`.
    pub fn linksetaddr(&self, ifindex: u32, mac: MacAddr) -> Result<()> {
        Ok(self.route()?.set_link_addr(ifindex, mac)?)
    }

    /// The hardware address of an interface, where it has one.
    ///
    /// # Errors
    /// [`Error::Netlink`]: `ENODEV`.
    pub fn linkgetaddr(&self, ifindex: u32) -> Result<Option<MacAddr>> {
        Ok(self.route()?.link_addr(ifindex)?)
    }

    /// Sets the MTU of an interface, in bytes.
    ///
    /// # Errors
    /// [`Error::Netlink`]: `ENODEV`, `EPERM`, `EINVAL`.
    pub fn linksetmtu(&self, ifindex: u32, mtu: u32) -> Result<()> {
        Ok(self.route()?.set_link_mtu(ifindex, mtu)?)
    }

    /// Adds an address to an interface.
    ///
    /// # Errors
    /// [`Error::Netlink`]: `ENODEV`, `EPERM`, `EEXIST`.
    pub fn ipaddr_add(&self, addr: Cidr, ifindex: u32) -> Result<()> {
        Ok(self.route()?.add_address(ifindex, addr)?)
    }

    /// Takes an address from an interface.
    ///
    /// # Errors
    /// [`Error::Netlink`]: `ENODEV`, `EPERM`, `EADDRNOTAVAIL`.
    pub fn ipaddr_del(&self, addr: Cidr, ifindex: u32) -> Result<()> {
        Ok(self.route()?.del_address(ifindex, addr)?)
    }

    /// Adds a route to `dst` (`None`: the default route) through `gateway`, an interface, or both; `ifindex` 0
    /// lets the stack find the interface.
    ///
    /// # Errors
    /// [`Error::Netlink`]: `EINVAL`, `EPERM`, `EEXIST`, `ENETUNREACH`.
    pub fn iproute_add(&self, dst: Option<Cidr>, gateway: Option<IpAddr>, ifindex: u32) -> Result<()> {
        Ok(self.route()?.add_route(dst, gateway, ifindex)?)
    }

    /// Takes a route away, described as for [`iproute_add`](Self::iproute_add).
    ///
    /// # Errors
    /// [`Error::Netlink`]: `EINVAL`, `EPERM`, `ESRCH`.
    pub fn iproute_del(&self, dst: Option<Cidr>, gateway: Option<IpAddr>, ifindex: u32) -> Result<()> {
        Ok(self.route()?.del_route(dst, gateway, ifindex)?)
    }

    /// Every address of every interface.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn getifaddrs(&self) -> Result<Vec<InterfaceAddress>> {
        Ok(self.route()?.interface_addresses()?)
    }

    /// The stack behind the facade, for code written against [`ioth_core`].
    pub fn as_backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }
}

impl From<Arc<dyn Backend>> for Stack {
    fn from(backend: Arc<dyn Backend>) -> Self {
        Stack { backend }
    }
}

impl PartialEq for Stack {
    /// Whether both are the same node.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.backend, &other.backend)
    }
}

impl Eq for Stack {}
