//! Listeners: connections go to the program one by one, behind each other in the pair.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use ioth::{Errno, Events, SockAddr, Socket};
use ioth_node_proto::{EndName, Head, HeadKind};

use super::{Session, Turn};
use crate::node::Node;
use crate::pair;

/// A listener's part of the work.
#[derive(Debug, Default)]
pub(super) struct Listener {
    /// A connection that did not fit.
    kept: Option<(OwnedFd, SockAddr)>,
}

impl Listener {
    /// Hands over one connection.
    pub(super) fn turn(
        &mut self,
        node: &Arc<Node>,
        name: &EndName,
        socket: &dyn Socket,
        end: BorrowedFd<'_>,
    ) -> Turn {
        let (user, peer) = match self.kept.take() {
            Some(kept) => kept,
            // Only when there is room: the backlog is the stack's, and stays there.
            None if !pair::events(end, Events::OUT).contains(Events::OUT) => {
                return Turn::Wait { end: Events::OUT, socket: None };
            }
            None => match accept(node, name, socket) {
                Ok(accepted) => accepted,
                Err(Errno::EAGAIN) => return Turn::Wait { end: Events::empty(), socket: Some(Events::IN) },
                // That connection is lost; the next may be better.
                Err(Errno::ECONNABORTED) => return Turn::Again,
                // Shut down, or out of descriptors: the next request or close of a connection gives another turn.
                Err(_) => return Turn::Wait { end: Events::empty(), socket: None },
            },
        };
        let head = Head::new(HeadKind::Connection, &peer.to_raw());
        match pair::put_with(end, &[&head.emit()], Some(user.as_fd())) {
            Ok(_) => Turn::Again,
            Err(Errno::EAGAIN) => {
                self.kept = Some((user, peer));
                Turn::Wait { end: Events::OUT, socket: None }
            }
            // The program has gone: the hang-up comes.
            Err(_) => Turn::Wait { end: Events::empty(), socket: None },
        }
    }
}

fn accept(node: &Arc<Node>, name: &EndName, socket: &dyn Socket) -> Result<(OwnedFd, SockAddr), Errno> {
    let (accepted, peer) = socket.accept()?;
    accepted.set_nonblocking(true)?;
    let name = node.name(name.domain.into(), name.kind.into(), name.protocol.into());
    let (_, user) = Session::begin_connected(node, accepted, name)?;
    Ok((user, peer))
}
