//! Interfaces that come and go while the node runs: netlink's `RTM_NEWLINK` and `RTM_DELLINK`.
//!
//! The engine decides and numbers; the link is opened before and attached after, with no lock held.

use std::sync::Arc;

use ioth_core::{Errno, Readiness, Result};
use ioth_vde::{Link, Schemes};

use super::port::Port;
use super::{Core, Locked, Node};
use crate::engine::{Engine, Plug, SocketId};

impl Node {
    /// The links of the node's interfaces as they are now.
    pub(super) fn ports(&self) -> Arc<[Arc<Port>]> {
        self.ports.read().clone()
    }

    /// Has `send` hand one netlink message, `message`, to the engine. The link that it wants is opened first.
    ///
    /// # Errors
    /// `send`'s, and `EBADF`. That a link cannot be opened is told by the answer to the message.
    pub(crate) fn request<R>(
        &self,
        id: SocketId,
        readiness: &Arc<Readiness>,
        schemes: &Schemes,
        message: &[u8],
        send: impl FnOnce(&mut Engine) -> Result<R>,
    ) -> Result<R> {
        let vnl =
            self.call_socket(id, readiness, |engine| Ok(engine.wanted_link(message).map(str::to_owned)))?;
        let link = vnl.map(|vnl| schemes.open(&vnl).map_err(|error| error.errno()));
        let mut locked = self.lock();
        if !locked.core.holds(id, readiness) {
            return Err(Errno::EBADF);
        }
        locked.core.feed(self);
        let offered =
            link.as_ref().map(|link| link.as_ref().map(|link| link.properties()).map_err(|error| *error));
        locked.core.engine.offer_link(offered);
        let result = send(&mut locked.core.engine);
        locked.core.engine.offer_link(None);
        let (made, removed) = self.replug(&mut locked.core, link.and_then(Result::ok));
        if let Some(port) = made {
            let Locked { core, look } = locked;
            drop(core);
            self.plug_in(&port);
            locked = Locked { core: self.desk.lock(), look };
        }
        self.conclude(locked);
        for port in removed {
            port.detach();
        }
        result
    }

    /// Brings the ports in line with what the engine has made of a message: the one to be attached, those to be detached.
    fn replug(&self, core: &mut Core, link: Option<Arc<dyn Link>>) -> (Option<Arc<Port>>, Vec<Arc<Port>>) {
        let (mut link, mut made, mut removed) = (link, None, Vec::new());
        for change in core.engine.take_plugs() {
            let mut ports = self.ports.write();
            let mut changed = ports.to_vec();
            match change {
                Plug::Made(ifindex) => {
                    let Some(link) = link.take() else { continue };
                    let port = Arc::new(Port::new(ifindex, link));
                    changed.push(port.clone());
                    // No address yet: so the link is told its filter.
                    core.macs.push(None);
                    made = Some(port);
                }
                Plug::Removed(ifindex) => {
                    let Some(at) = changed.iter().position(|port| port.ifindex() == ifindex) else {
                        continue;
                    };
                    core.macs.remove(at);
                    removed.push(changed.remove(at));
                }
            }
            *ports = changed.into();
        }
        (made, removed)
    }

    /// Attaches a new link. One whose network went in between is an interface without carrier.
    fn plug_in(&self, port: &Arc<Port>) {
        let attached = self.me.upgrade().map(|node| port.attach(&node));
        if !matches!(attached, Some(Ok(()))) {
            self.link_down(port.ifindex());
        }
    }
}
