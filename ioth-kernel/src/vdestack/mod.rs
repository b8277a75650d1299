//! `vdestack`: a kernel's stack of one's own, behind virtual networks.
//!
//! A process that this one clones (no program is run, and no root needed) enters a user and a network namespace of its own. It
//! makes sockets and TAP devices there and passes them on; all further calls on them are made directly here, at the
//! kernel's speed. Frames move between the TAP devices and their [`Link`](ioth_vde::Link)s in the threads of these calls and in the
//! reactor's.
//!
//! ```text
//!   this process                                          the helper, in its namespaces
//!     Vdestack::socket ── socket(2), open(/dev/net/tun) ──▶  ioth-vdestack
//!        ◀──────────────── a descriptor (SCM_RIGHTS) ──────────╯
//!     KernelSocket ── bind, connect, send, ... ──▶ the namespace's kernel ── TAP ── Link
//! ```
//! The helper ends with the stack, and with this process however that ends. `nsenter -t PID -U -n --preserve-credentials`
//! looks into the namespace, where PID is what `pgrep -P` of this process and `ioth-vdestack` tells.
//!
//! Read user_namespaces(7), network_namespaces(7) and the kernel's networking/tuntap.rst first.

mod helper;
mod interface;
mod quiet;
mod refusal;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ioth_core::descriptor::Count;
use ioth_core::fork::Owned;
use ioth_core::netlink::Route;
use ioth_core::reactor::Reactor;
use ioth_core::registry::{Factory, StackError};
use ioth_core::spin::History;
use ioth_core::{Domain, Errno, Result, Socket, SocketType, Stack, StackSpec};
use ioth_vde::tap::{self, Device};
use ioth_vde::{LinkError, Schemes, Waiter, vnl};

use crate::KernelSocket;
use crate::socket::Carrier;
use crate::stack::is_ours;
use helper::Helper;
use interface::{Interface, Traffic};
use quiet::Watch;

/// The name under which the backend is registered.
pub const NAME: &str = "vdestack";

/// How long the end of a stack waits for what its closed sockets sent: as long as a neighbour is asked for its address.
const PATIENCE: Duration = Duration::from_secs(3);

/// A kernel's stack in a network namespace of its own.
///
/// A forked child may go on with sockets that it has, as with all sockets of the kernel, while its parent lives and moves the
/// frames; new ones, and the stack's end, are the parent's: `ENODEV`.
#[derive(Debug)]
pub struct Vdestack {
    sockets: Count,
    /// The sockets keep it as well.
    network: Arc<Owned<Network>>,
}

impl Vdestack {
    /// A stack with an interface for each virtual network locator `[ifname:]vnl`, called vde0, vde1 and so on where no name is
    /// given. The interfaces are down and have random Ethernet addresses, as on Linux; loopback is up.
    ///
    /// # Errors
    /// [`StackError::Link`] with what is wrong with which locator, or why its network cannot be reached; [`StackError::Os`] with the
    /// reason for which the host refuses namespaces or TAP devices, and what would change that.
    pub fn new(spec: &StackSpec, schemes: &Schemes) -> std::result::Result<Self, StackError> {
        // Upstream's ignores options; here a mistake is told.
        if !spec.options.is_empty() {
            let what = format!("{NAME} takes no options, not \"{}\"", spec.options);
            return Err(StackError::Os { what, errno: Errno::EINVAL });
        }
        let mut links = Vec::with_capacity(spec.vnls.len());
        for text in &spec.vnls {
            let (name, vnl) = vnl::split_ifname(text).map_err(link_error)?;
            links.push((name.unwrap_or("vde%d"), schemes.open(vnl).map_err(link_error)?));
        }
        let helper = Helper::start()?;
        let (mut interfaces, traffic) = (Vec::with_capacity(links.len()), Arc::new(Traffic::default()));
        for (name, link) in links {
            let device = helper.tun().map_err(|errno| StackError::Os {
                what: format!("{NAME}: {}", tap::opening(errno)),
                errno,
            })?;
            let device = Device::new(device, name).map_err(|error| StackError::Os {
                errno: error.errno(),
                what: match error {
                    LinkError::Os { what, .. } => format!("{NAME}: {what}"),
                    error => format!("{NAME}: {error}"),
                },
            })?;
            interfaces.push(Interface::join(device, link, traffic.clone()).map_err(link_error)?);
        }
        let network =
            Network { ended: AtomicBool::new(false), interfaces, traffic, waits: History::default(), helper };
        let network = Arc::new(Owned::new(network));
        let stack = Vdestack { sockets: Count::keeping(network.clone()), network };
        stack.begin()?;
        Ok(stack)
    }

    /// Gives the interfaces their links' MTU, and sets loopback up.
    fn begin(&self) -> std::result::Result<(), StackError> {
        let failed = |what: String| {
            move |error: ioth_core::netlink::Error| StackError::Os {
                what: format!("{NAME}: {what}"),
                errno: error.errno(),
            }
        };
        let route = Route::new(self).map_err(failed("a netlink socket".to_owned()))?;
        let loopback = route.link_index("lo").map_err(failed("looking for lo".to_owned()))?;
        route.set_link_up(loopback, true).map_err(failed("setting lo up".to_owned()))?;
        let network = self.network().expect("this process has just made it");
        for interface in &network.interfaces {
            let (name, mtu) = (interface.name(), interface.mtu());
            let index = route.link_index(name).map_err(failed(format!("looking for {name}")))?;
            route.set_link_mtu(index, mtu).map_err(failed(format!("giving {name} its MTU of {mtu}")))?;
        }
        Ok(())
    }

    fn network(&self) -> Result<&Network> {
        self.network.check()?;
        Ok(&self.network)
    }
}

/// Makes stacks for a [`Registry`](ioth_core::Registry), with the link types of the process ([`ioth_vde::register`]).
pub fn factory() -> Factory {
    Arc::new(|spec| Ok(Arc::new(Vdestack::new(spec, &Schemes::process())?)))
}

impl Stack for Vdestack {
    fn backend(&self) -> &str {
        NAME
    }

    fn socket(&self, domain: Domain, kind: SocketType, protocol: i32) -> Result<Arc<dyn Socket>> {
        if !is_ours(domain) {
            return Err(Errno::EAFNOSUPPORT);
        }
        let network = self.network()?;
        let open = self.sockets.open()?;
        let fd = network.helper.socket(domain, kind, protocol)?;
        // Netlink's messages are no frames.
        if domain == Domain::NETLINK {
            return Ok(Arc::new(KernelSocket::new(fd, open)));
        }
        Ok(Arc::new(KernelSocket::carried(fd, open, self.network.clone())))
    }

    fn delete(&self) -> Result<()> {
        let network = self.network()?;
        self.sockets.delete()?;
        network.end();
        Ok(())
    }
}

impl Drop for Vdestack {
    fn drop(&mut self) {
        // With sockets left the namespace goes with the last of them.
        let _ = self.delete();
    }
}

/// What a stack is made of.
#[derive(Debug)]
pub(crate) struct Network {
    ended: AtomicBool,
    // Before the helper: their namespace.
    interfaces: Vec<Arc<Interface>>,
    traffic: Arc<Traffic>,
    /// How the waits at its link went.
    waits: History,
    helper: Helper,
}

impl Carrier for Owned<Network> {
    fn carry(&self) {
        // A forked child's frames are its parent's to move.
        if self.check().is_ok() {
            self.interfaces.iter().for_each(Interface::carry);
        }
    }

    fn hold(&self) {
        if self.check().is_ok() {
            self.interfaces.iter().for_each(|interface| interface.hold());
        }
    }

    fn release(&self) {
        if self.check().is_ok() {
            self.interfaces.iter().for_each(|interface| interface.release());
        }
    }

    fn attend(&self, waiter: &mut dyn Waiter) -> bool {
        let Ok([interface]) = self.check().map(|()| &self.interfaces[..]) else { return false };
        !Reactor::is_current_thread() && interface.attend(waiter)
    }

    fn history(&self) -> &History {
        &self.waits
    }
}

impl Network {
    /// Unplugs the interfaces, once, when what closed sockets sent has left.
    fn end(&self) {
        if self.ended.swap(true, Ordering::AcqRel) {
            return;
        }
        // The reactor's thread moves the frames that would be waited for.
        if !self.interfaces.is_empty() && !Reactor::is_current_thread() {
            self.wait_until_quiet();
        }
        self.interfaces.iter().for_each(|interface| interface.end());
        self.helper.end();
    }

    fn wait_until_quiet(&self) {
        let Ok(watch) = Watch::new(&self.helper) else { return };
        // First what the kernel has yet to send, then what it has sent. Frames are all that changes it.
        self.traffic.wait_until(Instant::now() + PATIENCE, || {
            watch.is_quiet() && self.interfaces.iter().all(|interface| interface.is_drained())
        });
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.end();
    }
}

fn link_error(error: LinkError) -> StackError {
    StackError::Link { message: error.to_string(), errno: error.errno() }
}
